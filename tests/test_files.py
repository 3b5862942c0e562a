"""Tests of iodine.files."""

import errno
import os
import pathlib

import pytest

from iodine import files
from iodine.errors import ConfigError, RunError


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in folder.iterdir()}


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
  with pytest.raises(RunError, match="file: cannot be written: File exists"):
    files.write_whole(tmp_path / "file", "text")
  assert target.read_bytes() == b"of someone else"
  assert not (tmp_path / "file").exists()


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
  (tmp_path / ".file.00000000.partial").mkdir()
  files.write_whole(tmp_path / "file", "text")
  (tmp_path / ".file.00000000.partial").rmdir()
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
