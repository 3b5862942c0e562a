"""Kills of the commands that convert checkpoints, and their repetition."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from iodine.runs import checkpoint_files
from tests.support import tiny
from tests.support.accidents import KILLED_AT_FILE, LIMITED
from tests.support.places import PARITY, REPOSITORY
from tests.support.tiny_runs import TINY, contents, fail, run

pytestmark = pytest.mark.faults

_CHANGES = {
  "open",
  "os.link",
  "os.mkdir",
  "os.remove",
  "os.rename",
  "os.rmdir",
}
_RUN = {
  "checkpoint",
  "config.json",
  "manifest.json",
  "model.ckpt-3.data-00000-of-00001",
  "model.ckpt-3.index",
}
_EXPORT = {"model.ckpt.data-00000-of-00001", "model.ckpt.index"}
_WHOLE = {"convert_checkpoint": _RUN, "export_tf1": _EXPORT}
_SOURCE = PARITY / "tiny_cos" / "tf1_trained"


class States:
  """Copies of a folder, as a kill before each change would leave it."""

  def __init__(self, folder: pathlib.Path, copies: pathlib.Path):
    self._folder = str(folder)
    self._copies = copies
    self._is_on = False
    sys.addaudithook(self._record)

  def _record(self, event: str, args: tuple) -> None:
    if not self._is_on or event not in _CHANGES:
      return
    # What is named relative to an open folder may be in this one.
    relative = event != "open" and not os.path.isabs(args[0])
    if relative or str(args[0]).startswith(self._folder):
      self._is_on = False
      copy = self._copies / f"{len(list(self._copies.iterdir())):03}"
      subprocess.run(["cp", "-a", self._folder, copy], check=True)
      self._is_on = True

  def __enter__(self) -> None:
    self._copies.mkdir()
    self._is_on = True

  def __exit__(self, *_) -> None:
    self._is_on = False

  def all(self) -> list[pathlib.Path]:
    """Of equal copies, one."""
    known = {}
    for copy in sorted(self._copies.iterdir()):
      files = sorted(copy.rglob("*"))
      known[
        tuple(
          (str(f.relative_to(copy)), f.is_file() and f.read_bytes())
          for f in files
        )
      ] = copy
    return list(known.values())


def _words(command: str, data_dir, trained, folder: pathlib.Path) -> tuple:
  """The command that writes into a folder."""
  if command == "export_tf1":
    words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={trained}")
    return (command, *words, f"tf1_checkpoint={folder}/model.ckpt")
  return (
    command,
    "with",
    PARITY / "tiny_cos" / "config.json",
    "data.image_dim=[13, 13]",
    f"data.path={data_dir}/tetrominoes_train.tfrecords",
    f"checkpoint_dir={folder}",
    f"tf1_checkpoint={_SOURCE}",
  )


def _start(script: str, *args: object) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-c", script, *map(str, args)],
    env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=300,
  )


def _assert_whole(folder: pathlib.Path, command: str) -> None:
  assert set(contents(folder)) == _WHOLE[command]
  assert checkpoint_files.read(checkpoint_files.find(str(folder)))


@pytest.mark.parametrize(
  "command, there",
  [
    ("convert_checkpoint", False),
    ("convert_checkpoint", True),
    ("export_tf1", False),
  ],
)
def test_killed_at_any_change_it_can_be_repeated(
  data_dir, trained, tmp_path, capsys, command, there
):
  place = tmp_path / "place"
  folder = place / "run"
  place.mkdir()
  if there:
    folder.mkdir()
  states = States(place, tmp_path / "states")
  with states:
    run(*_words(command, data_dir, trained, folder))
  _assert_whole(folder, command)
  assert {path.name for path in place.iterdir()} == {"run"}
  killed = states.all()
  assert len(killed) > 7
  for state in killed:
    shutil.rmtree(place)
    subprocess.run(["cp", "-a", state, place], check=True)
    words = _words(command, data_dir, trained, folder)
    if any(folder.glob("*.index")):
      # It has its name, so that nothing of it may be missing.
      names = {name for name in _WHOLE[command] if name != "checkpoint"}
      assert names <= {path.name for path in folder.iterdir()}
    if set(_WHOLE[command]) <= set(
      os.listdir(folder) if folder.exists() else ()
    ):
      assert "exists already" in fail(capsys, 2, *words)
    else:
      run(*words)
    _assert_whole(folder, command)
    assert {path.name for path in place.iterdir()} == {"run"}


@pytest.mark.parametrize(
  "command, pattern",
  [
    ("convert_checkpoint", ".iodine-*/new/*"),
    ("convert_checkpoint", ".iodine-*/new/*.data-*"),
    ("export_tf1", "run/.iodine-*/new/*"),
  ],
)
def test_killed_as_tensorflow_writes_it_can_be_repeated(
  data_dir, trained, tmp_path, command, pattern
):
  folder = tmp_path / "run"
  words = _words(command, data_dir, trained, folder)
  died = _start(KILLED_AT_FILE, tmp_path, pattern, *words)
  assert died.returncode == -signal.SIGKILL, died.stdout
  assert any(tmp_path.glob("**/.iodine-*"))
  run(*words)
  _assert_whole(folder, command)
  assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("command", _WHOLE)
@pytest.mark.parametrize("limit", [50, 3000])
def test_a_full_disk_leaves_nothing_that_blocks(
  data_dir, trained, tmp_path, command, limit
):
  folder = tmp_path / "run"
  words = _words(command, data_dir, trained, folder)
  ended = _start(LIMITED, limit, *words)
  assert ended.returncode in (1, 2), ended.stdout
  assert "Traceback" not in ended.stdout
  assert not any(tmp_path.iterdir())
  run(*words)
  _assert_whole(folder, command)


def test_an_exports_neighbours_stay(data_dir, trained, tmp_path):
  neighbour = tmp_path / "model.ckpt-1.index"
  neighbour.write_bytes(b"of another checkpoint")
  words = _words("export_tf1", data_dir, trained, tmp_path)
  died = _start(KILLED_AT_FILE, tmp_path, ".iodine-*/new/*", *words)
  assert died.returncode == -signal.SIGKILL, died.stdout
  run(*words)
  assert set(contents(tmp_path)) == {*_EXPORT, neighbour.name}
  assert neighbour.read_bytes() == b"of another checkpoint"
  assert tiny.read_checkpoint(tmp_path / "model.ckpt")
