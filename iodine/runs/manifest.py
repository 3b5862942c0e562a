"""The files that a run has written into its folder: `manifest.json`.

It names every checkpoint with the sizes and SHA-256 sums of its files, and the
sums of the files that say what the run is. A run deletes and trusts what its
manifest names, and nothing else, so that all names in it are plain names in the
folder: a copy of a run, or a file of somebody else, is never taken for its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from iodine.errors import ConfigError
from iodine.files import sha256_of, write_whole

__all__ = [
  "MANIFEST_FILE",
  "FileSum",
  "Manifest",
  "SavedCheckpoint",
  "change",
  "file_sum",
  "load",
  "warn_of_changes",
]

MANIFEST_FILE = "manifest.json"
FORMAT = 1
CHECKPOINT_NAME = "model.ckpt"

_MOST_BYTES = 2**24  # of a manifest; a checkpoint takes some 500
_CHECKPOINT_FILE = re.compile(
  rf"({re.escape(CHECKPOINT_NAME)}-(\d{{1,18}}))\.(index|data-\d{{5}}-of-\d{{5}})"
)
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_LOG = logging.getLogger(__name__)


class FileSum(NamedTuple):
  """What tells a file from any other: its size in bytes and its SHA-256."""

  bytes: int
  sha256: str


class SavedCheckpoint(NamedTuple):
  """A checkpoint that a run has saved.

  Attributes:
    step: of the optimizer.
    files: {name: sum} of its files, data before index.
    scores: {name of a training scalar: its mean over the steps before}.
  """

  step: int
  files: Mapping[str, FileSum]
  scores: Mapping[str, float]

  @property
  def name(self) -> str:
    """The prefix of its files' names."""
    return f"{CHECKPOINT_NAME}-{self.step}"

  def change(self, folder: pathlib.Path) -> str | None:
    """Says which file is missing or not as it was saved; None: all are."""
    for name, expected in self.files.items():
      if fault := change(folder / name, expected):
        return fault
    return None


@dataclasses.dataclass
class Manifest:
  """What `manifest.json` says.

  Attributes:
    checkpoints: in the order of their steps. Files of old ones may be gone.
    files: {name: sum} of the files that say what the run is.
  """

  checkpoints: list[SavedCheckpoint] = dataclasses.field(default_factory=list)
  files: dict[str, FileSum] = dataclasses.field(default_factory=dict)

  def add(self, checkpoint: SavedCheckpoint) -> None:
    """Adds a checkpoint, in place of any of that step."""
    others = [c for c in self.checkpoints if c.step != checkpoint.step]
    self.checkpoints = sorted([*others, checkpoint], key=lambda c: c.step)

  def save(self, folder: pathlib.Path) -> None:
    """Writes the manifest of a run's folder.

    Raises:
      RunError: if it cannot be written.
    """
    contents = {
      "format": FORMAT,
      "checkpoints": [
        {
          "step": checkpoint.step,
          "scores": dict(checkpoint.scores),
          "files": {k: v._asdict() for k, v in checkpoint.files.items()},
        }
        for checkpoint in self.checkpoints
      ],
      "files": {name: sum_._asdict() for name, sum_ in self.files.items()},
    }
    text = json.dumps({**contents, "sha256": _digest(contents)}, indent=1)
    write_whole(folder / MANIFEST_FILE, text + "\n")


def load(folder: pathlib.Path) -> Manifest | None:
  """Reads the manifest of a run's folder.

  Returns:
    None if there is none, or if it is damaged, of which a warning tells.

  Raises:
    ConfigError: if a later version of this package wrote it.
  """
  path = folder / MANIFEST_FILE
  try:
    with path.open("rb") as file:
      contents = json.loads(file.read(_MOST_BYTES))
    if contents.pop("sha256") != _digest(contents):
      raise ValueError("its checksum differs")
    if contents["format"] == FORMAT:
      return _manifest(contents)
  except FileNotFoundError:
    return None
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
  ) as error:
    _LOG.warning("%s is damaged and does not count: %s", path, error)
    return None
  raise ConfigError(
    f"{path}: a later version of this package wrote it (format "
    f"{contents['format']!r}, known is {FORMAT}). Update the package."
  )


def file_sum(path: pathlib.Path) -> FileSum:
  """Returns size and checksum of a file.

  Raises:
    OSError: if it cannot be read.
  """
  with path.open("rb") as file:
    sha256 = sha256_of(file)
    return FileSum(file.tell(), sha256)


def change(path: pathlib.Path, expected: FileSum) -> str | None:
  """Says what is wrong with a file that a manifest names; None: nothing."""
  try:
    size = path.stat().st_size
    if size != expected.bytes:
      return f"{path} has {size} bytes, not the {expected.bytes} written"
    if file_sum(path) != expected:
      return f"{path} is not as it was written"
  except FileNotFoundError:
    return f"{path} is missing"
  except OSError as error:
    return f"{path} cannot be read: {error.strerror}"
  return None


def warn_of_changes(*paths: pathlib.Path) -> None:
  """Warns of files that are not as the manifests beside them say.

  Args:
    paths: files that say what a run is. Those that are missing, or that no
      manifest names, do not count.

  Raises:
    ConfigError: if a later version of this package wrote a manifest.
  """
  for path in filter(pathlib.Path.is_file, paths):
    manifest = load(path.parent)
    expected = manifest.files.get(path.name) if manifest else None
    if expected and (fault := change(path, expected)):
      _LOG.warning("%s: it was edited, or is damaged", fault)


def _digest(contents: Mapping[str, Any]) -> str:
  text = json.dumps(contents, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _manifest(contents: Mapping[str, Any]) -> Manifest:
  """Checks what was read; an error of Python's if it is wrong."""
  return Manifest(
    [_checkpoint(entry) for entry in contents["checkpoints"]],
    {_plain(name): _sum(entry) for name, entry in contents["files"].items()},
  )


def _checkpoint(entry: Mapping[str, Any]) -> SavedCheckpoint:
  checkpoint = SavedCheckpoint(
    int(entry["step"]),
    {name: _sum(sum_) for name, sum_ in entry["files"].items()},
    {name: float(score) for name, score in entry["scores"].items()},
  )
  for name in checkpoint.files:
    match = _CHECKPOINT_FILE.fullmatch(name)
    if not match or match[1] != checkpoint.name:
      raise ValueError(f"{name!r} is no file of {checkpoint.name}")
  return checkpoint


def _sum(entry: Mapping[str, Any]) -> FileSum:
  size, sha256 = int(entry["bytes"]), str(entry["sha256"])
  if size < 0 or not _SHA256.fullmatch(sha256):
    raise ValueError("it has an impossible size or checksum")
  return FileSum(size, sha256)


def _plain(name: str) -> str:
  if not _PLAIN_NAME.fullmatch(name):
    raise ValueError(f"{name!r} is no name of a file in the folder")
  return name
