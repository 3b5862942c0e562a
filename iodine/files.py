"""Files and folders that appear whole or not at all.

A process may be killed, and a disk may be full, while something is written.
What goes by a name that others read is therefore written under another name
beside it and renamed at the end, so that readers find the old content or the
new one. Whoever writes files does it through here:

- `write_whole`: the content is in memory.
- `whole_file`: something else writes it, such as TensorFlow.
- `sync`: waits until something is on disk.
- `new_files`: several files that take the place of earlier ones together.
- `results_in`, `make_folder`: folders for results, with errors that name the
  entry of the configuration that chose them.
"""

import contextlib
import os
import pathlib
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence

import filelock

from iodine.errors import ConfigError, RunError

__all__ = [
  "make_folder",
  "new_files",
  "results_in",
  "sync",
  "whole_file",
  "write_whole",
]


def write_whole(path: pathlib.Path, content: str | bytes) -> None:
  """Writes or replaces a file; if that breaks off, what was there stays.

  Args:
    path: the file; its folder exists.
    content: all of it; text is written as UTF-8.

  Raises:
    RunError: if it cannot be written.
  """
  data = content.encode() if isinstance(content, str) else content
  try:
    with whole_file(path) as partial:
      partial.write_bytes(data)
  except OSError as error:
    reason = error.strerror or error
    raise RunError(f"{path}: cannot be written: {reason}") from error


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a file its name when the block that writes it has ended.

  What killed processes left of the same file is removed. The system's lock
  tells it from what a living process writes: it ends with its process.

  Args:
    path: the file to write or replace; its folder exists. A link is replaced,
      not followed.

  Yields:
    The place to write to, an empty file beside `path`. It is removed if the
    block raises anything.

  Raises:
    OSError: if it cannot be written.
  """
  _remove_remains(path)
  # Two processes may write the same file; the last one to finish wins.
  name = f".{path.name}.{secrets.token_hex(4)}.partial"
  partial = path.with_name(name)
  file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
  try:
    with contextlib.suppress(OSError):  # a file system without locks
      filelock.lock_descriptor(file, blocking=False)
    yield partial
    sync(partial)
    partial.replace(path)
  except BaseException:
    with contextlib.suppress(OSError):  # or it would hide the reason
      partial.unlink(missing_ok=True)
    raise
  finally:
    os.close(file)
  with contextlib.suppress(OSError):  # some systems cannot: it is there anyway
    sync(path.parent)


def _remove_remains(path: pathlib.Path) -> None:
  """Removes what processes that were killed left of a file."""
  name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.partial")
  with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
    for entry in entries:
      if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
        file = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
          if filelock.lock_descriptor(file, blocking=False):
            os.unlink(entry.path)
        finally:
          os.close(file)


def sync(path: pathlib.Path) -> None:
  """Waits until a file, or the names in a folder, are on disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def new_files(
  folder: pathlib.Path, patterns: Sequence[str]
) -> Iterator[pathlib.Path]:
  """Replaces all files of certain names in a folder when the block has ended.

  Args:
    folder: where they go in the end; made if need be. It is the entry
      `pictures_dir` of the configuration.
    patterns: names that a command may write there, with wildcards. Files of
      earlier runs that match are removed. What matches the last pattern is
      removed first and comes last, as it refers to the others.

  Yields:
    An empty folder to write the new files to, which is gone afterwards. If the
    block raises anything, the earlier files stay.

  Raises:
    ConfigError: if the folder cannot be written to.
  """
  with results_in(folder, "pictures_dir"):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
      yield pathlib.Path(new)
      for pattern in reversed(patterns):
        for path in folder.glob(pattern):
          path.unlink()
      for pattern in patterns:
        for path in sorted(pathlib.Path(new).glob(pattern)):
          path.replace(folder / path.name)


@contextlib.contextmanager
def results_in(folder: pathlib.Path, entry: str) -> Iterator[None]:
  """Removes a folder again if it is new and the block raises anything.

  Args:
    folder: may be made in the block; one that is not empty stays.
    entry: name of the configuration's entry that chose the folder, for errors.

  Raises:
    ConfigError: if the block raises an OSError: the folder cannot be written.
  """
  is_new = not folder.exists()
  try:
    yield
  except BaseException as error:
    if is_new:
      with contextlib.suppress(OSError):
        folder.rmdir()
    if isinstance(error, OSError):
      raise ConfigError(
        f"{entry}: {folder} cannot be written to: {error}"
      ) from error
    raise


def make_folder(folder: pathlib.Path, key: str) -> None:
  """Makes a folder, and those above it, unless it exists.

  Args:
    folder: to be made.
    key: name of the configuration's entry that chose the folder, for errors.

  Raises:
    ConfigError: if it cannot be made.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ConfigError(f"{key}: {folder} cannot be made: {error}") from error
