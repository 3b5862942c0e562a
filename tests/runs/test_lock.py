"""One process at a time trains in a folder."""

import errno
import json
import logging
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import filelock
import pytest

from iodine.errors import ConfigError
from iodine.runs import lock as run_lock
from tests.support.places import REPOSITORY

# A process that holds the lock until its input ends.
_HOLDER = """
import pathlib, sys
from iodine.runs import lock as run_lock
with run_lock.locked(pathlib.Path(sys.argv[1])):
  print("locked", flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: pathlib.Path):
  """A process that holds the lock of tmp_path."""
  process = subprocess.Popen(
    [sys.executable, "-c", _HOLDER, str(tmp_path)],
    cwd=REPOSITORY,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
  finally:
    process.kill()
    process.communicate()


def lock_file(folder: pathlib.Path) -> pathlib.Path:
  return folder / run_lock.LOCK_FILE


def refuse(folder: pathlib.Path) -> str:
  with pytest.raises(ConfigError) as error, run_lock.locked(folder):
    pass
  return str(error.value)


def test_the_second_process_is_told_of_the_first(holder, tmp_path):
  text = refuse(tmp_path)
  assert re.match(
    rf"checkpoint_dir='{tmp_path}': process {holder.pid} on "
    rf"{re.escape(socket.gethostname())}, started "
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d, trains here\.",
    text,
  )
  assert "Wait for it, end it, or choose another checkpoint_dir." in text
  # The lock is still that of the first.
  assert json.loads(lock_file(tmp_path).read_text())["process"] == holder.pid
  assert f"process {holder.pid} " in refuse(tmp_path)


def test_a_lock_ends_with_its_process(holder, tmp_path, caplog):
  holder.communicate("")
  assert holder.returncode == 0
  assert lock_file(tmp_path).read_text() == ""
  caplog.set_level(logging.INFO)
  with run_lock.locked(tmp_path):
    pass
  assert "cut off" not in caplog.text


def test_the_lock_of_a_killed_process_is_stale(holder, tmp_path, caplog):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  caplog.set_level(logging.INFO)
  with run_lock.locked(tmp_path):
    owner = json.loads(lock_file(tmp_path).read_text())
    assert owner["process"] == os.getpid()
  assert (
    f"The last run in {tmp_path} was cut off: process {holder.pid} on "
    in caplog.text
  )
  assert lock_file(tmp_path).read_text() == ""


def test_an_error_frees_the_lock(tmp_path):
  with pytest.raises(KeyError), run_lock.locked(tmp_path):
    raise KeyError
  assert lock_file(tmp_path).read_text() == ""
  with run_lock.locked(tmp_path):
    refuse(tmp_path)


@pytest.mark.parametrize(
  "content",
  [b"", b"{}", b"[1]", b"{", b"\xff\xfe", b"null", b"x" * 5000]
  + [
    b"[" * 999,
    b'{"process": 1, "host": "a\\u001b[31mb", "started": "now"}',
    b'{"process": 1, "host": "a\\nConfigError", "started": "now"}',
  ],
)
def test_an_owner_that_cannot_be_read_is_another_process(tmp_path, content):
  with run_lock.locked(tmp_path):
    lock_file(tmp_path).write_bytes(content)
    assert "another process, trains here" in refuse(tmp_path)
  # Nor does such a file hinder anyone once it is free.
  lock_file(tmp_path).write_bytes(content)
  with run_lock.locked(tmp_path):
    pass


def test_a_file_system_without_locks_is_a_warning(
  tmp_path, monkeypatch, caplog
):
  def refuse_lock(*_, **__):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(filelock, "lock_descriptor", refuse_lock)
  with run_lock.locked(tmp_path):
    pass
  (record,) = caplog.records
  assert record.levelno == logging.WARNING
  assert f"{tmp_path} cannot be locked (No locks available)" in caplog.text


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
  lock_file(tmp_path).mkdir()  # which stops the superuser, too
  text = refuse(tmp_path)
  assert f"checkpoint_dir='{tmp_path}': cannot be written: " in text
  assert "make it writable, or continue a copy of it" in text


@pytest.mark.parametrize("content", ["of someone else", None])
def test_a_link_is_not_followed(tmp_path, content):
  target = tmp_path / "target"
  if content is not None:
    target.write_text(content)
  lock_file(tmp_path).symlink_to(target)
  assert "cannot be written: " in refuse(tmp_path)
  assert target.exists() == (content is not None)
  assert content is None or target.read_text() == content


def test_a_full_disk_is_no_reason_to_stop(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "pwrite", fail)
  with run_lock.locked(tmp_path):
    assert "another process, trains here" in refuse(tmp_path)
