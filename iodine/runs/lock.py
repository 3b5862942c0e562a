"""One process at a time trains in a folder."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import pathlib
import socket
from collections.abc import Iterator

from iodine.errors import ConfigError

__all__ = ["LOCK_FILE", "locked"]

LOCK_FILE = "run.lock"

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other processes from training in a folder.

  The lock is the operating system's, on the file `run.lock`, and ends with the
  process, however that ends. The file says whose it is; it stays, empty, when
  the run is over.

  Args:
    folder: of a run; exists.

  Raises:
    ConfigError: names the process that trains in the folder, or says why the
      folder cannot be written.
  """
  path = folder / LOCK_FILE
  try:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  except OSError as error:
    raise ConfigError(
      f"checkpoint_dir={str(folder)!r}: cannot be written: {error}. A run "
      "keeps its checkpoints there: make it writable, or continue a copy of it."
    ) from error
  try:
    _acquire(file, folder)
    if os.fstat(file).st_size:
      _LOG.info("The last run in %s was cut off: %s", folder, _owner(file))
    _overwrite(file, json.dumps(_this_process()))
    try:
      yield
    finally:
      _overwrite(file, "")
  finally:
    os.close(file)


def _acquire(file: int, folder: pathlib.Path) -> None:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise ConfigError(
      f"checkpoint_dir={str(folder)!r}: {_owner(file)}, trains here. Wait for "
      "it, end it, or choose another checkpoint_dir."
    ) from None
  except OSError as error:  # a file system without locks
    _LOG.warning(
      "%s cannot be locked (%s): see to it that no other run writes there",
      folder,
      error.strerror,
    )


def _this_process() -> dict[str, int | str]:
  now = datetime.datetime.now().astimezone()
  return {
    "process": os.getpid(),
    "host": socket.gethostname(),
    "started": now.isoformat(" ", "seconds"),
  }


def _owner(file: int) -> str:
  """What a lock file says of its process."""
  words = "process {process} on {host}, started {started}"
  try:
    return words.format(**json.loads(os.pread(file, 1000, 0)))
  except (ValueError, TypeError, KeyError):  # just being written
    return "another process"


def _overwrite(file: int, text: str) -> None:
  with contextlib.suppress(OSError):  # as on a full disk: it is but a hint
    os.ftruncate(file, 0)
    os.pwrite(file, text.encode(), 0)
