"""Finding and reading checkpoints of either format.

The reference's checkpoints are name-based (TF1), those of training object-based
(TF2). Both are read as {name: value} under the reference's names.
"""

import logging
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore
from tensorflow.core.protobuf import trackable_object_graph_pb2

from iodine import tf1_checkpoint
from iodine.tf1_checkpoint import CheckpointError, RestoreReport
from iodine.training import Adam

__all__ = ["find", "is_shipped", "log_report", "read", "restore"]

# The file of a folder that names its last checkpoint, and all that are kept.
STATE_FILE = "checkpoint"
TRAINER_SEED = "trainer_seed"
# What training saves beside model and optimizer.
RUN_STATE = (TRAINER_SEED, "seed", "epoch", "offset", "save_counter")

# Models that come with the package: a folder per configuration, of its name.
_PRETRAINED = pathlib.Path(__file__).resolve().parents[1] / "pretrained"

_LOG = logging.getLogger(__name__)

# The entry in which an object-based checkpoint describes itself.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_FILE_OF_PAIR = re.compile(r"(.*)\.(index|meta|data-\d{5}-of-\d{5})")
_SHARD = re.compile(r"(.*)\.data-(\d{5})-of-(\d{5})")
_MOST = 10  # checkpoints or files that an error lists
_STEP = re.compile(r"(.*)-(\d+)")


def find(path: str) -> str:
  """Finds the checkpoint that is meant.

  Args:
    path: a folder, the prefix of a checkpoint's files, or one of the files. In
      a folder: what its file `checkpoint` names as the last one, else the only
      one there is, else the one of the highest step. If there is no folder
      "checkpoints/demo", it stands for the model that comes with the package.

  Returns:
    The prefix of its files; `.index` and all `.data-*` files exist.

  Raises:
    CheckpointError: if there is none, several with nothing to choose by, or a
      file of it is missing; it lists what is there.
  """
  given = pathlib.Path(path).expanduser()
  if given.is_dir():
    prefix = _find_in_folder(given)
  elif pathlib.Path(f"{given}.index").is_file():
    prefix = str(given)
  elif match := _FILE_OF_PAIR.fullmatch(str(given)):
    prefix = match[1]
  elif (shipped := _shipped(given)).is_dir():
    prefix = _find_in_folder(shipped)
    _LOG.info("There is no %s: taking the model that comes with IODINE", path)
  else:
    raise CheckpointError(f"{path}: there is no checkpoint. {_listing(given)}")
  _check_whole(prefix)
  return prefix


def is_shipped(prefix: str) -> bool:
  """Whether a checkpoint is one that comes with the package."""
  return _PRETRAINED in pathlib.Path(prefix).resolve().parents


def _shipped(path: pathlib.Path) -> pathlib.Path:
  """The folder in the package that stands in for a configuration's folder."""
  folder, name = path.parent, path.name
  return _PRETRAINED / (name if str(folder) == "checkpoints" else "none")


def _find_in_folder(folder: pathlib.Path) -> str:
  """The prefix of the last checkpoint in a folder; see `find`."""
  prefixes = _prefixes(folder, "*.index")
  prefix = _last_named(folder) or _last_by_step(prefixes)
  if prefix is None:
    many = f"{len(prefixes)} checkpoints" if prefixes else "no checkpoint"
    raise CheckpointError(f"{folder}: there is {many}. {_listing(folder)}")
  return prefix


def _prefixes(folder: pathlib.Path, index_files: str) -> list[str]:
  """Sorted prefixes of the checkpoints whose index files match a pattern."""
  return sorted(str(p.with_suffix("")) for p in folder.glob(index_files))


def _last_named(folder: pathlib.Path) -> str | None:
  """The prefix that the folder's state file names, if it is there."""
  named = _read_state_file(folder)
  if named is None:
    return None
  # The folder may have been copied or moved: look in it first.
  for prefix in (folder / named.name, named):
    if pathlib.Path(f"{prefix}.index").is_file() or _shards(prefix):
      return str(prefix)
  _LOG.warning(
    "The file `checkpoint` in %s names %s, which is not there", folder, named
  )
  return None


def _last_by_step(prefixes: Sequence[str]) -> str | None:
  """The only prefix, or of PREFIX-1, PREFIX-2, ... that of the highest step."""
  if len(prefixes) == 1:
    return prefixes[0]
  names = {match and match[1] for match in map(_STEP.fullmatch, prefixes)}
  if len(names) != 1 or None in names:
    return None
  return max(prefixes, key=lambda prefix: int(prefix.rpartition("-")[2]))


def _read_state_file(folder: pathlib.Path) -> pathlib.Path | None:
  """What the file `checkpoint` of a folder names as the last one, if any."""
  try:
    state = tf.train.get_checkpoint_state(str(folder))
  except ValueError:  # Cut off, or no text.
    return None
  if state is None or not state.model_checkpoint_path:
    return None
  return pathlib.Path(state.model_checkpoint_path)


def _shards(prefix: str | pathlib.Path) -> list[re.Match[str]]:
  """Matches of `_SHARD` for the data files that a checkpoint has."""
  path = pathlib.Path(prefix)
  files = sorted(path.parent.glob("*.data-*")) if path.parent.is_dir() else []
  matches = [_SHARD.fullmatch(file.name) for file in files]
  return [m for m in matches if m and m[1] == path.name]


def _listing(path: pathlib.Path) -> str:
  """Says which checkpoints are in or near a path."""
  folder = path if path.is_dir() else path.parent
  if not folder.is_dir():
    return f"The folder {folder} does not exist."
  inner = sorted({str(p.parent) for p in folder.glob("*/*.index")})
  if names := [*_prefixes(folder, "*.index"), *inner]:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"Name one of: {', '.join(names[:_MOST])}{more}"
  names = sorted(p.name for p in folder.iterdir())
  return f"{folder} holds: {', '.join(names[:_MOST]) or 'nothing'}"


def _check_whole(prefix: str) -> None:
  """Raises CheckpointError if a file of the checkpoint is missing."""
  shards = _shards(prefix)
  total = int(shards[0][3]) if shards else 1
  there = {int(m[2]) for m in shards}
  missing = [
    f"{prefix}.data-{i:05d}-of-{total:05d}"
    for i in range(total)
    if i not in there
  ]
  if not pathlib.Path(f"{prefix}.index").is_file():
    missing.append(f"{prefix}.index")
  if missing:
    raise CheckpointError(
      f"{prefix}: a file of the checkpoint is missing: {', '.join(missing)}. "
      f"Copy or download all of its files. {_listing(pathlib.Path(prefix))}"
    )


def read(prefix: str) -> dict[str, np.ndarray]:
  """Reads a checkpoint of either format under the reference's names.

  Args:
    prefix: prefix of the files, see `find`.

  Returns:
    {name: value}; of an object-based checkpoint, the variables of model,
    optimizer and run.

  Raises:
    CheckpointError: if it cannot be read.
  """
  values = tf1_checkpoint.read(prefix)
  if _OBJECT_GRAPH not in values:
    return values
  graph = trackable_object_graph_pb2.TrackableObjectGraph()
  try:
    graph.ParseFromString(values[_OBJECT_GRAPH].item())
  except DecodeError as error:
    raise CheckpointError(
      f"{prefix}: cannot be read: its object graph is damaged ({error})"
    ) from error
  named = {}
  for node in graph.nodes:
    for attribute in node.attributes:
      if attribute.full_name and attribute.checkpoint_key in values:
        name = tf1_checkpoint.reference_name(attribute.full_name)
        named[name] = values[attribute.checkpoint_key]
  return named


def restore(
  path: str, model: tf.Module, optimizer: Adam | None = None
) -> RestoreReport:
  """Restores a model, and an optimizer, from a checkpoint of either format.

  Args:
    path: see `find`.
    model: the model to restore; it has its variables.
    optimizer: restored too, unless None.

  Returns:
    What was found, missing and unused, under the reference's names. Without
    an optimizer, its state in the checkpoint does not count as unused.

  Raises:
    CheckpointError: as `find`, and if the checkpoint cannot be read or does
      not fit. Nothing is restored then.
  """
  prefix = find(path)
  values = {k: v for k, v in read(prefix).items() if k not in RUN_STATE}
  report = tf1_checkpoint.restore_values(values, prefix, model, optimizer)
  if optimizer is None:
    unused = (
      name
      for name in report.unused
      if not tf1_checkpoint.is_optimizer_state(name)
    )
    report = report._replace(unused=tuple(unused))
  log_report(prefix, report)
  return report


def log_report(prefix: str, report: RestoreReport) -> None:
  """Logs how much was restored, and a table of what is missing or left over."""
  rows = [f"Restored {prefix}: {len(report.found)} variables"]
  kinds = (("missing, as it was", report.missing), ("left over", report.unused))
  for kind, names in kinds:
    # A name per row is what people look for, but not all of Adam's.
    slots = [n for n in names if re.search(r"/Adam(_1)?$", n)]
    rows += [f"  {kind:<18} {n}" for n in names if n not in slots]
    if slots:
      rows.append(f"  {kind:<18} Adam's moments of {len(slots) // 2} variables")
  _LOG.info("\n".join(rows))
