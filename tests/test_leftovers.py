"""Tests of iodine.leftovers."""

import pathlib
import signal
import subprocess
import sys

import pytest

from iodine import leftovers

REPOSITORY = pathlib.Path(__file__).parents[1]
WRITER = """
import pathlib, sys, time
from iodine import leftovers
folder = pathlib.Path(sys.argv[1])
with leftovers.writing_in(folder, "*.partial"):
  (folder / "theirs.partial").write_text("half")
  print("writing", flush=True)
  time.sleep(600)
"""


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_living_writers_stay_and_a_killed_ones_go(tmp_path):
  (tmp_path / "whole").touch()
  (tmp_path / "old.partial").mkdir()
  command = [sys.executable, "-c", WRITER, str(tmp_path)]
  with subprocess.Popen(
    command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
  ) as process:
    try:
      assert process.stdout.readline() == "writing\n"
      assert names(tmp_path) == ["theirs.partial", "whole"]
      with leftovers.writing_in(tmp_path, "*.partial"):
        assert names(tmp_path) == ["theirs.partial", "whole"]
      process.send_signal(signal.SIGKILL)
      process.wait()
    finally:
      process.kill()
  with leftovers.writing_in(tmp_path, "*.partial"):
    assert names(tmp_path) == ["whole"]


def test_links_are_not_followed(tmp_path):
  (tmp_path / "folder").mkdir()
  (tmp_path / "folder" / "file").touch()
  (tmp_path / "a.partial").symlink_to(tmp_path / "folder")
  with leftovers.writing_in(tmp_path, "*.partial"):
    assert names(tmp_path) == ["folder"]
  assert names(tmp_path / "folder") == ["file"]


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
  def flock(descriptor, operation):
    raise OSError("no locks available")

  monkeypatch.setattr(leftovers.fcntl, "flock", flock)
  (tmp_path / "a.partial").touch()
  with leftovers.writing_in(tmp_path, "*.partial"):
    assert names(tmp_path) == ["a.partial"]


def test_no_folder(tmp_path):
  with (
    pytest.raises(FileNotFoundError),
    leftovers.writing_in(tmp_path / "nowhere", "*"),
  ):
    pass
