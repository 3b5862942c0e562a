"""Files and folders that appear whole or not at all.

A process may be killed, and a disk may be full, while something is written.
What goes by a name that others read is therefore written under another name
beside it and renamed at the end, so that readers find the old content or the
new one. Whoever writes files does it through here:

- `write_whole`: the content is in memory.
- `whole_file`: something else writes it, such as TensorFlow.
- `sync`: waits until something is on disk.
- `sha256_of`: a checksum, to know a file again.
- `new_files`: several files that take the place of earlier ones together.
- `scratch_folder`, `put`: files that are to be there only when all of them are.
- `results_in`, `make_folder`: folders for results, with errors that name the
  entry of the configuration that chose them.
"""

import contextlib
import fnmatch
import glob
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import filelock

from iodine.errors import ConfigError, RunError
from iodine.leftovers import writing_in

__all__ = [
  "LIST_FILE",
  "is_plain_name",
  "make_folder",
  "new_files",
  "plain_name",
  "put",
  "remove_remains",
  "results_in",
  "scratch_folder",
  "sha256_of",
  "source_of",
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

  What killed processes left of the same file is removed.

  Args:
    path: the file to write or replace; its folder exists. A link is replaced,
      not followed.

  Yields:
    The place to write to, an empty file beside `path`. It is removed if the
    block raises anything.

  Raises:
    OSError: if it cannot be written.
  """
  start = f".{path.name}."
  remains = f"{glob.escape(start)}{'[0-9a-f]' * 8}.partial"
  with writing_in(path.parent, remains):
    # Two processes may write the same file; the last one to finish wins.
    partial = path.with_name(f"{start}{secrets.token_hex(4)}.partial")
    partial.touch(exist_ok=False)
    try:
      yield partial
      sync(partial)
      partial.replace(path)
    except BaseException:
      with contextlib.suppress(OSError):  # or it would hide the reason
        partial.unlink(missing_ok=True)
      raise
    with contextlib.suppress(
      OSError
    ):  # some systems cannot: it is there anyway
      sync(path.parent)


def sha256_of(
  file: BinaryIO, read: Callable[[int], object] = lambda count: None
) -> str:
  """Returns the SHA-256 of what is left to read of a file, in hexadecimal.

  Args:
    file: open; read in pieces of a MiB.
    read: called with the number of bytes of each piece.
  """
  digest = hashlib.sha256()  # hashlib.file_digest came with Python 3.11.
  while piece := file.read(2**20):
    digest.update(piece)
    read(len(piece))
  return digest.hexdigest()


def sync(path: pathlib.Path) -> None:
  """Waits until a file, or the names in a folder, are on disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


# A folder that is written to until all is there: `new` within it takes the
# files, and `lock` is locked as long as its process lives.
_SCRATCH = re.compile(r"\.iodine-[0-9a-f]{8}")
_NEW, _LOCK = "new", "lock"


@contextlib.contextmanager
def scratch_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a block a hidden folder for files that are to be renamed at the end.

  What killed processes left of such folders is removed first.

  Args:
    parent: the folder that it lies in, so that renaming moves no data; exists.

  Yields:
    An empty folder. It is gone afterwards, with what is in it.

  Raises:
    OSError: if it cannot be made.
  """
  remove_remains(parent)
  lock = None
  while lock is None:  # another process may take a new folder for remains
    folder = parent / f".iodine-{secrets.token_hex(4)}"
    folder.mkdir()
    lock = _lock_scratch(folder)
  try:
    (folder / _NEW).mkdir()
    yield folder / _NEW
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def remove_remains(parent: pathlib.Path) -> None:
  """Removes what killed processes left of scratch folders, and of `put`.

  Args:
    parent: the folder that they lie in. Nothing is done where it cannot be
      read or written, or where the file system has no locks.
  """
  with contextlib.suppress(OSError), os.scandir(parent) as entries:
    for entry in entries:
      if not _SCRATCH.fullmatch(entry.name):
        continue
      with contextlib.suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
          _remove_if_dead(pathlib.Path(entry.path))


def _remove_if_dead(folder: pathlib.Path) -> None:
  """Removes a scratch folder unless its process lives."""
  if not {_NEW, _LOCK}.issuperset(os.listdir(folder)):
    return  # someone else's
  lock = _lock_scratch(folder, is_new=False)
  if lock is not None:
    try:
      _take_back(folder / _NEW, folder.parent)
      shutil.rmtree(folder)
    finally:
      os.close(lock)


def _lock_scratch(folder: pathlib.Path, is_new: bool = True) -> int | None:
  """Locks a scratch folder.

  Args:
    folder: the scratch folder.
    is_new: whether this process made it; a file system without locks is then
      no obstacle.

  Returns:
    The open lock file; None if another process has locked or removed it.
  """
  path = folder / _LOCK
  try:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
  except FileNotFoundError:
    return None
  try:
    is_locked = filelock.lock_descriptor(file, blocking=False)
  except OSError:
    is_locked = is_new
  with contextlib.suppress(FileNotFoundError):
    if is_locked and os.path.samestat(os.fstat(file), os.lstat(path)):
      return file
  os.close(file)
  return None


def put(new: pathlib.Path, folder: pathlib.Path, names: Sequence[str]) -> None:
  """Gives files that are complete their final names, all or none.

  If the process is killed in between, `remove_remains` takes back those that
  already have theirs: each is the same file as one in the scratch folder.

  Args:
    new: what `scratch_folder` yielded, in `folder` or in the folder above it.
    folder: where the files go; if it does not exist, it comes with all of them.
    names: the files in `new`; who reads them looks for the last one first.

  Raises:
    OSError: if a file of such a name is there or it cannot be written.
  """
  for name in names:
    sync(new / name)
  sync(new)
  if not os.path.lexists(folder):
    new.rename(folder)
    folder_of_new_names = folder.parent
  else:
    try:
      for name in names:
        _put_file(new / name, folder / name)
    except BaseException:
      _take_back(new, folder)
      raise
    folder_of_new_names = folder
  with contextlib.suppress(OSError):  # some systems cannot: it is there anyway
    sync(folder_of_new_names)


def _put_file(path: pathlib.Path, target: pathlib.Path) -> None:
  try:
    os.link(path, target, follow_symlinks=False)
  except FileExistsError:
    raise
  except OSError:  # a file system without hard links
    path.rename(target)


def _take_back(new: pathlib.Path, folder: pathlib.Path) -> None:
  """Removes files that `put` gave their names, unless it did so with all."""
  if new.is_symlink() or not new.is_dir():
    return
  files = list(new.iterdir())
  there = [
    target
    for path in files
    if os.path.lexists(target := folder / path.name)
    and os.path.samestat(path.lstat(), target.lstat())
  ]
  if len(there) < len(files):
    for target in there:
      target.unlink()


# In a folder of results: which files of it an earlier run wrote.
LIST_FILE = ".iodine.json"
_MOST_LISTED = 1 << 20  # bytes


@contextlib.contextmanager
def new_files(
  folder: pathlib.Path, patterns: Sequence[str], source: str = ""
) -> Iterator[pathlib.Path]:
  """Replaces all files of certain names in a folder when the block has ended.

  The folder's hidden file `.iodine.json` lists what was written there. A file
  that is not listed is not removed; it is replaced by a new one of its name.

  Args:
    folder: where they go in the end; made if need be. It is the entry
      `pictures_dir` of the configuration.
    patterns: names that a command may write there, with wildcards. Files of
      earlier runs that match are removed. What matches the last pattern is
      removed first and comes last, as it refers to the others.
    source: what the files are made of, for `source_of`.

  Yields:
    An empty folder to write the new files to, which is gone afterwards. If the
    block raises anything, the earlier files stay.

  Raises:
    ConfigError: if the folder cannot be written to.
  """
  with results_in(folder, "pictures_dir"):
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder) as new:
      yield new
      fresh = _in_order(os.listdir(new), patterns)
      listed = _listed(folder)[0]
      old = _in_order({*listed, *fresh}, patterns)
      for name in old:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
          raise IsADirectoryError(f"{folder / name} is a folder")
      # Listed before the first one comes, in case the process is killed.
      _list(folder, {*listed, *fresh}, source)
      for name in reversed(old):
        (folder / name).unlink(missing_ok=True)
      for name in fresh:
        (new / name).replace(folder / name)
      _list(folder, {*listed} - {*old} | {*fresh}, source)


def is_plain_name(name: str) -> bool:
  """Whether a file of this name lies in the folder that it is looked for in."""
  is_part = pathlib.PurePath(name).name == name and name not in ("", "..")
  return is_part and name.isprintable()


def plain_name(text: str) -> str:
  """A file name for a text: the text itself where that is one."""
  name = re.sub(r"[/\x00]", "_", text)
  name = "".join(c if c.isprintable() else "_" for c in name)
  return name if is_plain_name(name) else "_"


def source_of(folder: pathlib.Path) -> str | None:
  """What the files in a folder were made of, see `new_files`; None: unknown."""
  return _listed(folder)[1]


def _in_order(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
  """The names that match a pattern, in the order of the patterns."""
  return list(
    dict.fromkeys(
      name
      for pattern in patterns
      for name in sorted(names)
      if fnmatch.fnmatchcase(name, pattern)
    )
  )


def _list(folder: pathlib.Path, names: Iterable[str], source: str) -> None:
  content = {"files": sorted(names), "source": source}
  with whole_file(folder / LIST_FILE) as path:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _listed(folder: pathlib.Path) -> tuple[list[str], str | None]:
  """The files that earlier runs wrote into a folder, and their source."""
  try:
    file = os.open(folder / LIST_FILE, os.O_RDONLY | os.O_NOFOLLOW)
    with open(file, "rb") as opened:
      content = json.loads(opened.read(_MOST_LISTED))
    names, source = content["files"], content["source"]
    if isinstance(source, str):
      # Someone else may have written this list: nothing outside the folder.
      return [name for name in names if is_plain_name(name)], source
  except (OSError, ValueError, TypeError, KeyError, RecursionError):
    pass  # nothing is known
  return [], None


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
