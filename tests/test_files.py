"""Tests of iodine.files."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from iodine import files
from iodine.errors import ConfigError, RunError
from tests.support.places import REPOSITORY


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  """All files but the list of those that were written."""
  return {
    path.name: path.read_bytes()
    for path in folder.iterdir()
    if path.name != files.LIST_FILE
  }


def refuse(*_, **__):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- One file -----------------------------------------------------------------


@pytest.mark.parametrize("content", ["größer\n", "größer\n".encode()])
def test_a_file_is_written_or_replaced(tmp_path, content):
  path = tmp_path / "file"
  for _ in range(2):
    files.write_whole(path, content)
    assert contents(tmp_path) == {"file": "größer\n".encode()}
    path.write_bytes(b"of an earlier run")


@pytest.mark.parametrize(
  "owner, name",
  [(pathlib.Path, "write_bytes"), (os, "fsync"), (pathlib.Path, "replace")],
)
def test_a_failed_write_leaves_what_was_there(
  tmp_path, monkeypatch, owner, name
):
  path = tmp_path / "file"
  files.write_whole(path, "before")
  with monkeypatch.context() as patch:
    patch.setattr(owner, name, refuse)
    with pytest.raises(RunError, match="file: cannot be written: No space"):
      files.write_whole(path, b"after")
  assert contents(tmp_path) == {"file": b"before"}
  files.write_whole(path, b"after")
  assert contents(tmp_path) == {"file": b"after"}


def test_the_content_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
  synced = []
  fsync = os.fsync

  def record(descriptor):
    synced.append((os.fstat(descriptor).st_ino, contents(tmp_path)))
    fsync(descriptor)

  monkeypatch.setattr(os, "fsync", record)
  path = tmp_path / "file"
  files.write_whole(path, "text")
  (file, before), (folder, after) = synced
  assert (file, folder) == (path.stat().st_ino, tmp_path.stat().st_ino)
  assert list(before.values()) == [b"text"] and "file" not in before
  assert after == {"file": b"text"}


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
  monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0123abcd")
  target = tmp_path / "target"
  target.write_bytes(b"of someone else")
  (tmp_path / ".file.0123abcd.partial").symlink_to(target)
  files.write_whole(tmp_path / "file", "text")
  assert contents(tmp_path) == {"file": b"text", "target": b"of someone else"}


def test_a_link_is_replaced_not_followed(tmp_path):
  target, path = tmp_path / "target", tmp_path / "file"
  target.write_bytes(b"of someone else")
  path.symlink_to(target)
  files.write_whole(path, "text")
  assert contents(tmp_path) == {"file": b"text", "target": b"of someone else"}


def test_what_a_killed_process_left_is_removed(tmp_path):
  (tmp_path / ".file.0123abcd.partial").write_bytes(b"cut off")
  others = {
    ".file.0123abcd.partial.txt": b"",
    ".other.0123abcd.partial": b"",
    "file.partial": b"",
  }
  for name in others:
    (tmp_path / name).touch()
  files.write_whole(tmp_path / "file", "text")
  assert contents(tmp_path) == {"file": b"text", **others}


def test_what_a_living_process_writes_stays(tmp_path):
  path = tmp_path / "file"
  with files.whole_file(path) as partial:
    files.write_whole(path, "of another")
    partial.write_bytes(b"of the last one to finish")
  assert contents(tmp_path) == {"file": b"of the last one to finish"}


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, OSError])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, error):
  path = tmp_path / "file"
  path.write_bytes(b"before")

  def fail():
    with files.whole_file(path) as partial:
      partial.write_bytes(b"half of")
      raise error

  with pytest.raises(error):
    fail()
  assert contents(tmp_path) == {"file": b"before"}


def test_a_file_without_a_folder_is_an_error(tmp_path):
  path = tmp_path / "no folder" / "file"
  with pytest.raises(RunError, match="file: cannot be written: No such file"):
    files.write_whole(path, "text")


# --- Several files ------------------------------------------------------------


def test_new_files_take_the_place_of_old_ones(tmp_path):
  folder = tmp_path / "made" / "within"
  patterns = ["slot_*.png", "index.html"]
  for count in (3, 2):
    with files.new_files(folder, patterns) as new:
      for i in range(count):
        (new / f"slot_{i}.png").write_bytes(b"%d of %d" % (i, count))
      (new / "index.html").write_bytes(b"%d slots" % count)
    (folder / "notes.txt").write_bytes(b"of the user")
  assert contents(folder) == {
    "slot_0.png": b"0 of 2",
    "slot_1.png": b"1 of 2",
    "index.html": b"2 slots",
    "notes.txt": b"of the user",
  }


def test_new_files_that_do_not_come_leave_the_old_ones(tmp_path):
  (tmp_path / "slot_0.png").write_bytes(b"before")

  def fail():
    with files.new_files(tmp_path, ["slot_*.png"]) as new:
      (new / "slot_0.png").write_bytes(b"after")
      raise KeyError

  with pytest.raises(KeyError):
    fail()
  assert contents(tmp_path) == {"slot_0.png": b"before"}


@pytest.mark.parametrize("name", ["[a]", "?", "*"])
def test_files_that_no_run_wrote_stay(tmp_path, name):
  folder, neighbour = tmp_path / name, tmp_path / "a"
  neighbour.mkdir()
  (neighbour / "slot_2.png").write_bytes(b"of a neighbour")
  for count in (2, 1):
    with files.new_files(folder, ["image.png", "slot_*.png"]) as new:
      for i in range(count):
        (new / f"slot_{i}.png").write_bytes(b"%d" % i)
    (folder / "slot_9.png").write_bytes(b"of the user")
    (folder / "image.png").write_bytes(b"of the user, too")
  assert contents(folder) == {
    "slot_0.png": b"0",
    "slot_9.png": b"of the user",
    "image.png": b"of the user, too",
  }
  assert contents(neighbour) == {"slot_2.png": b"of a neighbour"}


def test_runs_with_names_of_their_own_share_a_folder(tmp_path):
  for name in ("a.png", "b.png", "a.png"):
    with files.new_files(tmp_path, [name]) as new:
      (new / name).touch()
  assert set(contents(tmp_path)) == {"a.png", "b.png"}


@pytest.mark.parametrize(
  "content",
  [
    '{"files": ["../precious.png", "/etc/x.png", "..", ""], "source": ""}',
    '{"files": 3, "source": ""}',
    '{"files": [[]], "source": ""}',
    "[" * 100_000,
    "\xff",
  ],
)
def test_a_list_names_files_of_its_folder_only(tmp_path, content):
  folder = tmp_path / "folder"
  folder.mkdir()
  (tmp_path / "precious.png").touch()
  (folder / files.LIST_FILE).write_text(content, encoding="latin-1")
  with files.new_files(folder, ["*.png", "*"]) as new:
    (new / "a.png").touch()
  assert set(contents(folder)) == {"a.png"}
  assert (tmp_path / "precious.png").exists()


def test_links_among_results_are_replaced_not_followed(tmp_path):
  folder, outside = tmp_path / "folder", tmp_path / "outside"
  folder.mkdir()
  outside.write_text('{"files": ["mine.png"], "source": ""}')
  for name in ("a.png", files.LIST_FILE):
    (folder / name).symlink_to(outside)
  (folder / "mine.png").touch()
  with files.new_files(folder, ["*.png"]) as new:
    (new / "a.png").write_bytes(b"new")
  assert contents(folder) == {"a.png": b"new", "mine.png": b""}
  assert not (folder / files.LIST_FILE).is_symlink()
  assert outside.read_text().startswith("{")


def test_a_folder_in_the_way_changes_nothing(tmp_path):
  (tmp_path / "a.png").write_bytes(b"before")
  (tmp_path / "b.png").mkdir()

  def write():
    with files.new_files(tmp_path, ["*.png"]) as new:
      (new / "a.png").touch()
      (new / "b.png").touch()

  with pytest.raises(ConfigError, match="b.png is a folder"):
    write()
  (tmp_path / "b.png").rmdir()
  assert contents(tmp_path) == {"a.png": b"before"}


# --- Remains ------------------------------------------------------------------

REMAINS = ".iodine-0123abcd"


def test_remains_of_killed_processes_go_and_living_ones_stay(tmp_path):
  with files.scratch_folder(tmp_path) as living:
    (living / "a").touch()
    (tmp_path / REMAINS / "new").mkdir(parents=True)
    (tmp_path / REMAINS / "new" / "b").touch()
    (tmp_path / ".iodine-00000000").mkdir()
    with files.scratch_folder(tmp_path):
      pass
    assert [*tmp_path.iterdir()] == [living.parent]
    assert (living / "a").exists()
  assert not any(tmp_path.iterdir())


def test_what_only_looks_like_remains_stays(tmp_path):
  parent, other = tmp_path / "parent", tmp_path / "other"
  other.mkdir()
  (other / "precious").touch()
  (parent / ".iodine-01234567" / "mine").mkdir(parents=True)
  (parent / ".iodine-x" / "new").mkdir(parents=True)
  (parent / ".iodine-aaaaaaaa").touch()
  (parent / ".iodine-bbbbbbbb").symlink_to(other)
  (parent / REMAINS).mkdir()
  (parent / REMAINS / "new").symlink_to(other)
  files.remove_remains(parent)
  assert not (parent / REMAINS).exists()
  assert len([*parent.iterdir()]) == 4
  assert (other / "precious").exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_files_are_put_together(tmp_path, is_there):
  folder = tmp_path / "folder"
  if is_there:
    folder.mkdir()
  with files.scratch_folder(folder if is_there else tmp_path) as new:
    for name in "ab":
      (new / name).write_text(name)
    files.put(new, folder, ["a", "b"])
  assert contents(folder) == {"a": b"a", "b": b"b"}
  assert [*tmp_path.iterdir()] == [folder]


def test_files_are_put_all_or_none(tmp_path):
  (tmp_path / "b").write_bytes(b"of someone else")

  def put():
    with files.scratch_folder(tmp_path) as new:
      for name in "ab":
        (new / name).write_text(name)
      files.put(new, tmp_path, ["a", "b"])

  with pytest.raises(FileExistsError):
    put()
  assert contents(tmp_path) == {"b": b"of someone else"}


def test_files_are_put_where_there_are_no_hard_links(tmp_path, monkeypatch):
  monkeypatch.setattr(os, "link", refuse)
  with files.scratch_folder(tmp_path) as new:
    (new / "a").touch()
    files.put(new, tmp_path, ["a"])
  assert set(contents(tmp_path)) == {"a"}


def test_without_locks_remains_stay(tmp_path, monkeypatch):
  monkeypatch.setattr(files.filelock, "lock_descriptor", refuse)
  (tmp_path / REMAINS).mkdir()
  with files.scratch_folder(tmp_path) as new:
    (new / "a").touch()
  assert [path.name for path in tmp_path.iterdir()] == [REMAINS]


# Replaces two pictures and a page, and dies at the n-th change of a file.
REPLACING = """
import os, pathlib, signal, sys
from iodine import files
folder, count, number = sys.argv[1:]
changes = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
left = int(number)

def die(event, args):
  global left
  if event in changes and (event != "open" or folder in str(args[0])):
    left -= 1
    if left == 0:
      os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
with files.new_files(pathlib.Path(folder), ["*.png", "page"]) as new:
  for name in [*(f"{i}.png" for i in range(int(count))), "page"]:
    (new / name).write_text(count)
"""


@pytest.mark.faults
def test_new_files_can_be_killed_at_any_change(tmp_path):
  def replace(count, number):
    command = [sys.executable, "-c", REPLACING, tmp_path, count, number]
    return subprocess.run([*map(str, command)], cwd=REPOSITORY).returncode

  number, codes = 0, {-signal.SIGKILL}
  while codes == {-signal.SIGKILL}:
    number += 1
    assert replace(3, 0) == 0
    (tmp_path / "mine.png").touch()
    codes = {replace(2, number)}
    found = contents_of_files(tmp_path)
    if "page" in found:  # it shows pictures of one run
      shown = {v for k, v in found.items() if k != "mine.png"}
      assert shown == {found["page"]}
    assert replace(1, 0) == 0
    assert contents(tmp_path) == {"0.png": b"1", "page": b"1", "mine.png": b""}
  assert codes == {0}
  assert number > 15


def contents_of_files(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    path.name: path.read_bytes()
    for path in folder.iterdir()
    if path.is_file() and not path.name.startswith(".")
  }


# --- Folders ------------------------------------------------------------------


@pytest.mark.parametrize("error", [RunError, KeyboardInterrupt])
def test_a_new_folder_without_results_is_removed(tmp_path, error):
  folder = tmp_path / "results"

  def fail():
    with files.results_in(folder, "pictures_dir"):
      files.make_folder(folder, "pictures_dir")
      raise error

  with pytest.raises(error):
    fail()
  assert not folder.exists()


@pytest.mark.parametrize("content", [{}, {"file": b""}])
def test_a_folder_that_was_there_or_has_results_stays(tmp_path, content):
  folder = tmp_path / "results"
  if not content:
    folder.mkdir()

  def fail():
    with files.results_in(folder, "pictures_dir"):
      files.make_folder(folder, "pictures_dir")
      for name, data in content.items():
        (folder / name).write_bytes(data)
      raise KeyError

  with pytest.raises(KeyError):
    fail()
  assert contents(folder) == content


def test_errors_name_the_entry(tmp_path):
  folder = tmp_path / "file" / "results"
  folder.parent.touch()
  message = f"pictures_dir: {folder} cannot be made: "
  with pytest.raises(ConfigError, match=message):
    files.make_folder(folder, "pictures_dir")
  message = f"evaluation_dir: {folder} cannot be written to: .*No space"
  with (
    pytest.raises(ConfigError, match=message),
    files.results_in(folder, "evaluation_dir"),
  ):
    refuse()
