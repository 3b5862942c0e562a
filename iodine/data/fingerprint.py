"""What the data of a run are, so that other data are noticed later.

A run's folder holds `data.json`: of every data file, in the order in which they
are read, its name, its size, a digest of samples of its content and, on
request, one of all of it. Where the files lie, and when they were changed, is
left out: data may move.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import tensorflow as tf

from iodine.errors import ConfigError
from iodine.files import sha256_of, write_whole
from iodine.progress import progress

__all__ = [
  "DATA_FILE",
  "DataFile",
  "Fingerprint",
  "check",
  "load",
  "save",
  "take",
]

DATA_FILE = "data.json"

_FORMAT = 1  # to be raised whenever the samples, or the file, change
# A sample is a block of a page. The first and the last one lie at the ends of
# the file, the others evenly between them, about one in a megabyte.
_SAMPLE_BYTES = 4096
_SPACING_BYTES = 2**20
_FEWEST_SAMPLES = 8
_MOST_SAMPLES = 256
_PIECE_BYTES = 2**20

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFile:
  """What a file holds.

  Attributes:
    name: its path below the folder that all the files share.
    size: bytes.
    samples: SHA-256 of samples of its content.
    sha256: SHA-256 of all of its content; None: not computed.
  """

  name: str
  size: int
  samples: str
  sha256: str | None = None

  def difference(self, other: DataFile) -> str | None:
    """How the content of another file differs, in words; None: it does not."""
    if self.size != other.size:
      return f"{other.size:,} bytes, not {self.size:,}"
    if self.samples != other.samples:
      return "other content"
    if None not in (self.sha256, other.sha256) and self.sha256 != other.sha256:
      return "other content, as its SHA-256 shows"
    return None


@dataclasses.dataclass(frozen=True)
class Fingerprint:
  """What all files of a dataset hold.

  Attributes:
    files: in the order in which they are read; None: the dataset does not say
      which files it reads.
  """

  files: tuple[DataFile, ...] | None

  def difference(self, other: Fingerprint) -> str | None:
    """How other data differ, in a line.

    Args:
      other: of these data or others. Files may have other names, if the same
        content comes in the same order.

    Returns:
      The first file that differs and how, and how many more do; None: the data
      are the same, or it is not known which files they are in.
    """
    if self.files is None or other.files is None:
      return None
    if len(self.files) == len(other.files) and not any(
      map(DataFile.difference, self.files, other.files)
    ):
      return None
    before = {file.name: file for file in self.files}
    now = {file.name: file for file in other.files}
    found = {
      name: f"{name} has {words}"
      for name in before.keys() & now.keys()
      if (words := before[name].difference(now[name]))
    }
    found |= {x: f"{x} is missing" for x in before.keys() - now.keys()}
    found |= {x: f"{x} is new" for x in now.keys() - before.keys()}
    if not found:
      return "the files come in another order"
    first = found[min(found)]
    more = len(found) - 1
    return f"{first} ({more:,} more files differ)" if more else first

  def with_digests_of(self, other: Fingerprint) -> Fingerprint:
    """Adds SHA-256 sums that are known of the same files, if there are any."""
    if self.files is None or other.files is None:
      return self
    return Fingerprint(
      tuple(
        dataclasses.replace(file, sha256=file.sha256 or same.sha256)
        for file, same in zip(self.files, other.files, strict=True)
      )
    )


def take(paths: Sequence[str] | None, verify: bool) -> Fingerprint:
  """Reads samples of files, at most a megabyte of each.

  Args:
    paths: the data files, in the order in which they are read; None: unknown.
    verify: whether to read every byte, too.

  Returns:
    Their fingerprint.

  Raises:
    OSError: if a file cannot be read.
    tf.errors.OpError: likewise, of a URL.
  """
  if paths is None:
    return Fingerprint(None)
  with futures.ThreadPoolExecutor() as pool:
    sampled = list(pool.map(_sampled, paths))
  digests: list[str | None] = [None] * len(paths)
  if verify:
    total = sum(size for size, _ in sampled) // _PIECE_BYTES
    _LOG.info("Reading all data for their SHA-256")
    with progress(total, "MiB", _LOG) as update:
      digests = [_sha256(path, update) for path in paths]
  return Fingerprint(
    tuple(
      DataFile(name=name, size=size, samples=samples, sha256=sha256)
      for name, (size, samples), sha256 in zip(
        _names(paths), sampled, digests, strict=True
      )
    )
  )


def load(folder: pathlib.Path) -> Fingerprint | None:
  """Reads what the data of a run were; None: the run's folder does not say.

  Raises:
    ConfigError: if the file cannot be read.
  """
  path = folder / DATA_FILE
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["format"] != _FORMAT:
      raise ConfigError(
        f"{path}: format {content['format']!r}, but this version reads "
        f"{_FORMAT}. Continue with the version that wrote it, or "
        f"{_remedy(path)}"
      )
    stored = content["files"]
    files = None if stored is None else tuple(map(_file, stored))
  except FileNotFoundError:
    return None
  except ConfigError:
    raise
  except OSError as error:
    raise ConfigError(f"{path}: {error.strerror}") from error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise ConfigError(
      f"{path} is damaged. To continue all the same, {_remedy(path)}"
    ) from error
  return Fingerprint(files)


def save(folder: pathlib.Path, fingerprint: Fingerprint) -> None:
  """Writes what the data of a run are into its folder.

  Raises:
    RunError: if the file cannot be written.
  """
  files = fingerprint.files
  if files is None:
    lines = "null"
  else:  # one line each, of which there may be many
    lines = ",\n  ".join(json.dumps(dataclasses.asdict(x)) for x in files)
    lines = f"[\n  {lines}\n ]"
  text = f'{{\n "format": {_FORMAT},\n "files": {lines}\n}}\n'
  write_whole(folder / DATA_FILE, text)


def check(
  folder: pathlib.Path, now: Fingerprint, source: object
) -> Fingerprint:
  """Checks that a run goes on with the data that it began with.

  Args:
    folder: of the run.
    now: of the data to go on with.
    source: what says where these are, for errors.

  Returns:
    What to save: `now`, with what else is known of the same files.

  Raises:
    ConfigError: if the data differ, or what they were cannot be read.
  """
  before = load(folder)
  if before is None:
    _LOG.info(
      "%s has no %s: whether the data are still the same is not known",
      folder,
      DATA_FILE,
    )
    return now
  if difference := before.difference(now):
    raise ConfigError(
      f"checkpoint_dir={str(folder)!r}: continue_run=True, but these are not "
      f"the data of that run: {difference} ({source}). Put them back, or start "
      "a new run; or, to resume with other data on purpose, "
      f"{_remedy(folder / DATA_FILE)}"
    )
  return now.with_digests_of(before)


def _remedy(path: pathlib.Path) -> str:
  return f"delete {path}"


def _file(entry: Any) -> DataFile:
  """Checks an entry of the file; raises TypeError or ValueError."""
  file = DataFile(**entry)
  texts = (file.name, file.samples, file.sha256 or "")
  if not isinstance(file.size, int) or not all(
    isinstance(text, str) for text in texts
  ):
    raise ValueError("another type")
  return file


def _names(paths: Sequence[str]) -> list[str]:
  """Paths below the folder that all of them share."""
  start = os.path.commonprefix(list(paths)).rfind("/") + 1
  return [path[start:] for path in paths]


def _is_url(path: str) -> bool:
  return "://" in path


def _open(path: str) -> Any:
  return tf.io.gfile.GFile(path, "rb") if _is_url(path) else open(path, "rb")


def _sampled(path: str) -> tuple[int, str]:
  """The size of a file, and SHA-256 of samples of its content."""
  digest = hashlib.sha256()
  with _open(path) as file:
    size = file.size() if _is_url(path) else os.fstat(file.fileno()).st_size
    for start in _starts(size):
      file.seek(start)
      digest.update(file.read(_SAMPLE_BYTES))
  return size, digest.hexdigest()


def _starts(size: int) -> Sequence[int]:
  """Where the samples of a file of so many bytes begin."""
  count = min(max(size // _SPACING_BYTES, _FEWEST_SAMPLES), _MOST_SAMPLES)
  if size <= count * _SAMPLE_BYTES:
    return range(0, size, _SAMPLE_BYTES)
  last = size - _SAMPLE_BYTES
  return [last * i // (count - 1) for i in range(count)]


def _sha256(path: str, update: Callable[[int], object]) -> str:
  """SHA-256 of a whole file; tells of every MiB."""
  left = 0

  def count(size: int) -> None:
    nonlocal left
    left += size
    update(left // _PIECE_BYTES)
    left %= _PIECE_BYTES

  with _open(path) as file:
    return sha256_of(file, count)
