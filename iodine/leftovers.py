"""Removes what killed writers left, and nothing that is being written."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator

__all__ = ["writing_in"]

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def writing_in(folder: pathlib.Path, pattern: str) -> Iterator[None]:
  """Tells other processes that something is being written in a folder.

  Whoever writes there shares the operating system's lock on the folder, which
  ends with the process, however that ends. Whoever gets it alone knows that all
  partial files and folders are of processes that are gone, and removes them.
  Process ids would not tell: in containers, they are often the same. On a file
  system without such locks, nothing is removed.

  Args:
    folder: the folder, which exists.
    pattern: names of partial files and folders there, with wildcards. They may
      be made only in such a block.

  Raises:
    OSError: if there is no such folder.
  """
  descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
  try:
    with contextlib.suppress(OSError):  # no locks, or somebody is writing
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      for path in folder.glob(pattern):
        _remove(path)
    with contextlib.suppress(OSError):  # no locks
      fcntl.flock(descriptor, fcntl.LOCK_SH)
    yield
  finally:
    os.close(descriptor)


def _remove(path: pathlib.Path) -> None:
  _LOG.info("Removing %s, which a killed process has left", path)
  try:
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()
  except OSError as error:  # of another user, say
    _LOG.warning("%s cannot be removed: %s", path, error)
