"""One process at a time trains in a folder."""

import contextlib
import datetime
import json
import logging
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock

from iodine.errors import ConfigError

__all__ = ["LOCK_FILE", "locked"]

LOCK_FILE = "run.lock"

_OWNER = ("process", "host", "started")

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other processes from training in a folder.

  The lock is the operating system's, on the file `run.lock`, and ends with the
  process, however that ends. The file names its process; it stays, empty, when
  the run is over. `filelock.FileLock` opens its file itself, and would not tell
  a folder that cannot be written from a file system without locks; therefore
  the file is opened here, and only locked by the library.

  Args:
    folder: the run's folder, which exists.

  Raises:
    ConfigError: names the process that trains in the folder, or says why the
      folder cannot be written.
  """
  path = folder / LOCK_FILE
  try:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
  except OSError as error:
    raise ConfigError(
      f"checkpoint_dir={str(folder)!r}: cannot be written: {error}. A run "
      "keeps its checkpoints there: make it writable, or continue a copy of it."
    ) from error
  try:
    _lock(file, folder)
    if os.fstat(file).st_size:
      _LOG.info("The last run in %s was cut off: %s", folder, _owner(file))
    _overwrite(file, json.dumps(_this_process()))
    try:
      yield
    finally:
      _overwrite(file, "")
  finally:
    os.close(file)


def _lock(file: int, folder: pathlib.Path) -> None:
  """Locks an open file; if another process has, the ConfigError names it."""
  try:
    is_locked = filelock.lock_descriptor(file, blocking=False)
  except OSError as error:  # a file system without locks
    _LOG.warning(
      "%s cannot be locked (%s): see to it that no other run writes there",
      folder,
      error.strerror,
    )
    return
  if not is_locked:
    raise ConfigError(
      f"checkpoint_dir={str(folder)!r}: {_owner(file)}, trains here. Wait for "
      "it, end it, or choose another checkpoint_dir."
    )


def _this_process() -> dict[str, int | str]:
  now = datetime.datetime.now().astimezone()
  return {
    "process": os.getpid(),
    "host": socket.gethostname(),
    "started": now.isoformat(" ", "seconds"),
  }


def _owner(file: int) -> str:
  """Names the process that a lock file is of."""
  try:
    owner = json.loads(os.pread(file, 1000, 0))
    process, host, started = (owner[key] for key in _OWNER)
  except (ValueError, TypeError, KeyError, RecursionError):
    return "another process"  # whose name is just being written
  words = f"process {process} on {host}, started {started}"
  return words if words.isprintable() else "another process"


def _overwrite(file: int, text: str) -> None:
  with contextlib.suppress(OSError):  # a full disk, say: the text is but a hint
    os.ftruncate(file, 0)
    os.pwrite(file, text.encode(), 0)
