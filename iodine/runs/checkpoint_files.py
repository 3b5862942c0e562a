"""Finding and reading checkpoints of either format.

The reference's checkpoints are name-based (TF1), those of training object-based
(TF2). Both are read as {name: value} under the reference's names.
"""

import contextlib
import functools
import logging
import pathlib
import re
import shutil
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore
from tensorflow.core.protobuf import trackable_object_graph_pb2

from iodine import tf1_checkpoint
from iodine.data.pipeline import IODINEDataset, Position
from iodine.runs.folder import CONFIG_FILE, RunError
from iodine.tf1_checkpoint import CheckpointError, RestoreReport
from iodine.training import Adam, Trainer

__all__ = [
  "RunCheckpoints",
  "find",
  "is_shipped",
  "log_report",
  "read",
  "restore",
]

CHECKPOINT_NAME = "model.ckpt"
# What names the last checkpoint of a folder, and all that are kept.
_STATE_FILE = "checkpoint"
_TRAINER_SEED = "trainer_seed"
# What training saves beside model and optimizer.
_RUN_STATE = (_TRAINER_SEED, "seed", "epoch", "offset", "save_counter")

# Folders of models that come with the package, by the names of configurations.
_PRETRAINED = pathlib.Path(__file__).resolve().parents[1] / "pretrained"

_LOG = logging.getLogger(__name__)

# The entry that an object-based checkpoint describes itself in.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_FILE_OF_PAIR = re.compile(r"(.*)\.(index|meta|data-\d{5}-of-\d{5})")
_SHARD = re.compile(r"(.*)\.data-(\d{5})-of-(\d{5})")
_MOST = 10  # names that an error lists
_STEP = re.compile(r"(.*)-(\d+)")


def find(path: str) -> str:
  """Finds the checkpoint that is meant.

  Args:
    path: a folder, the prefix of a checkpoint's files, or one of the files. In
      a folder: what its file `checkpoint` names as the last one, else the only
      one there is, else the one of the highest step. If there is no folder
      "checkpoints/demo", it stands for the model that comes with the package.

  Returns:
    The prefix, of which `.index` and all `.data-*` files exist.

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
  named = _last_of_state_file(folder)
  if named is not None:
    # The folder may have been copied or moved: what is named lies here first.
    for prefix in (folder / named.name, named):
      if pathlib.Path(f"{prefix}.index").is_file() or _shards(prefix):
        return str(prefix)
    _LOG.warning(
      "The file `checkpoint` in %s names %s, which is not there", folder, named
    )
  prefixes = sorted(str(p.with_suffix("")) for p in folder.glob("*.index"))
  if len(prefixes) == 1:
    return prefixes[0]
  steps = [_STEP.fullmatch(prefix) for prefix in prefixes]
  if prefixes and all(steps) and len({m[1] for m in steps if m}) == 1:
    return max(prefixes, key=lambda prefix: int(prefix.rpartition("-")[2]))
  many = f"{len(prefixes)} checkpoints" if prefixes else "no checkpoint"
  raise CheckpointError(f"{folder}: there is {many}. {_listing(folder)}")


def _last_of_state_file(folder: pathlib.Path) -> pathlib.Path | None:
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
  prefixes = sorted(str(p.with_suffix("")) for p in folder.glob("*.index"))
  prefixes += sorted(str(p.parent) for p in folder.glob("*/*.index"))
  if prefixes:
    names = list(dict.fromkeys(prefixes))
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
    prefix: from `find`.

  Returns:
    {name: value}; of an object-based checkpoint, the model's variables and the
    optimizer's state.

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
    model: an IODINE that has its variables.
    optimizer: restored too, unless None.

  Returns:
    What was found, missing and unused, under the reference's names.

  Raises:
    CheckpointError: as `find`, and if the checkpoint cannot be read or does
      not fit. Nothing is restored then.
  """
  prefix = find(path)
  values = {k: v for k, v in read(prefix).items() if k not in _RUN_STATE}
  report = tf1_checkpoint.restore_values(values, prefix, model, optimizer)
  log_report(prefix, report)
  return report


def log_report(prefix: str, report: RestoreReport) -> None:
  """Logs a table of what was found, missing and left over."""
  rows = [f"Restored {prefix}", f"  found      {len(report.found)} variables"]
  kinds = (("missing, as it was", report.missing), ("left over", report.unused))
  for kind, names in kinds:
    # A name per row is what people look for, but not all of Adam's.
    slots = [n for n in names if re.search(r"/Adam(_1)?$", n)]
    rows += [f"  {kind:<18} {n}" for n in names if n not in slots]
    if slots:
      rows.append(f"  {kind:<18} Adam's moments of {len(slots) // 2} variables")
  _LOG.info("\n".join(rows))


class RunCheckpoints:
  """All state of a run in a folder: trainer, optimizer, model, data position.

  The position is a seed, an epoch and an offset (`IODINEDataset.batches`), the
  random numbers are the trainer's seed and the optimizer's step.

  Of workers that train together, all have to call the same methods; the chief
  alone reads and writes files, and the others get from it what it read.
  """

  def __init__(self, folder: pathlib.Path | None, trainer: Trainer, keep: int):
    """Constructor.

    Args:
      folder: exists; None for any worker but the chief.
      trainer: with all variables.
      keep: how many checkpoints stay.

    Raises:
      CheckpointError: if the folder's file `checkpoint` is damaged.
    """
    self._folder = folder
    self._trainer = trainer
    self._data = {
      name: tf.Variable(0, dtype=tf.int64, trainable=False, name=name)
      for name in ("seed", "epoch", "offset")
    }
    self._last_step = 0  # that was saved
    self._manager: tf.train.CheckpointManager | None = None
    if folder is None:
      return
    checkpoint = tf.train.Checkpoint(trainer=trainer, data=self._data)
    self._make_manager = functools.partial(
      tf.train.CheckpointManager,
      checkpoint,
      str(folder),
      max_to_keep=keep,
      checkpoint_name=CHECKPOINT_NAME,
    )
    try:
      self._manager = self._make_manager()
    except ValueError as error:
      raise CheckpointError(
        f"{folder / 'checkpoint'}: is damaged ({error}). Delete this file; the "
        f"checkpoint of the highest step is then the last one."
      ) from error

  @property
  def latest(self) -> str | None:
    """Prefix of the last checkpoint, or None; the chief's, in words."""
    if self._manager is not None:
      return self._manager.latest_checkpoint
    if not self._last_step:
      return None
    return f"{CHECKPOINT_NAME}-{self._last_step} in the chief's folder"

  def restore(self, dataset: IODINEDataset) -> Position:
    """Restores the folder's last checkpoint, if there is one.

    Args:
      dataset: gets the seed of its order.

    Returns:
      Where the data go on: the start, unless training wrote the checkpoint.

    Raises:
      CheckpointError: if it does not fit or is damaged.
    """
    place = Position(0, 0)
    if self._folder is not None:
      place = self._read(self._folder, dataset)
      _remove_cut_off(self._folder)
    distribution = self._trainer.distribution
    if distribution.num_workers > 1:
      variables = self._trainer.variables
      values = distribution.from_chief([dataset.seed, *place, *variables])
      for variable, value in zip(variables, values[3:], strict=True):
        variable.assign(value)
      dataset.seed, epoch, offset = (int(value) for value in values[:3])
      place = Position(epoch, offset)
      self._last_step = int(self._trainer.optimizer.step.numpy())
    return place

  def _read(self, folder: pathlib.Path, dataset: IODINEDataset) -> Position:
    # A file of a broken checkpoint is a reason to stop, not to start anew.
    files = [
      p for kind in ("index", "data-*") for p in folder.glob(f"*.{kind}")
    ]
    if not files or _is_first_save_cut_off(folder):
      _LOG.info("There is no checkpoint in %s: starting at step 0", folder)
      return Position(0, 0)
    prefix = find(str(folder))
    values = read(prefix)
    report = tf1_checkpoint.restore_values(
      values, prefix, self._trainer.model, self._trainer.optimizer
    )
    place = _place(values)
    if place is None:
      log_report(prefix, report)
      return Position(0, 0)
    self._trainer.seed.assign(values[_TRAINER_SEED])
    dataset.seed = int(values["seed"])
    _LOG.info("Restored %s", prefix)
    if self.latest is None:
      self._announce(folder, prefix)
    return place

  def _announce(self, folder: pathlib.Path, prefix: str) -> None:
    """Finishes a save that was ended before the state file was written.

    The checkpoint then goes when newer ones are there, like any other.
    """
    try:
      tf.compat.v1.train.update_checkpoint_state(
        str(folder), prefix, all_model_checkpoint_timestamps=[time.time()]
      )
    except (OSError, tf.errors.OpError) as error:
      reason = str(error).strip().splitlines()[0]
      raise RunError(f"{folder}: cannot be written ({reason})") from error
    self._manager = self._make_manager()

  def save(self, dataset: IODINEDataset, position: Position) -> str:
    """Saves under the optimizer's step; returns the prefix.

    Raises:
      RunError: if that fails.
    """
    state = (dataset.seed, position.epoch, position.offset)
    for variable, value in zip(self._data.values(), state, strict=True):
      variable.assign(value)
    step = int(self._trainer.optimizer.step.numpy())
    self._last_step = step
    if self._manager is None:
      return str(self.latest)
    try:
      return self._manager.save(checkpoint_number=step)
    except (OSError, tf.errors.OpError) as error:
      reason = str(error).strip().splitlines()[0]
      raise RunError(
        f"step {step}: the checkpoint cannot be saved ({reason})"
      ) from error


def _is_first_save_cut_off(folder: pathlib.Path) -> bool:
  """Whether a run was ended before its first checkpoint was whole.

  Saving writes the data, then the index, then the state file.
  """
  names = {path.name for path in folder.iterdir()}
  return CONFIG_FILE in names and not any(
    name == _STATE_FILE or name.endswith(".index") for name in names
  )


def _remove_cut_off(folder: pathlib.Path) -> None:
  """Removes what was being written when an earlier process was killed."""
  patterns = (f"{CHECKPOINT_NAME}-*_temp", f"{_STATE_FILE}.tmp*", "*.partial")
  for path in (path for kind in patterns for path in folder.glob(kind)):
    with contextlib.suppress(OSError):
      shutil.rmtree(path) if path.is_dir() else path.unlink()


def _place(values: Mapping[str, np.ndarray]) -> Position | None:
  """Where the data go on; None for a checkpoint that training did not write."""
  if not set(_RUN_STATE) <= set(values):
    return None
  return Position(int(values["epoch"]), int(values["offset"]))
