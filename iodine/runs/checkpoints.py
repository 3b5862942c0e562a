"""The checkpoints of a run."""

import contextlib
import functools
import logging
import pathlib
import shutil
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from iodine import tf1_checkpoint
from iodine.data.pipeline import IODINEDataset, Position
from iodine.errors import RunError
from iodine.runs.checkpoint_files import (
  RUN_STATE,
  STATE_FILE,
  TRAINER_SEED,
  find,
  log_report,
  read,
)
from iodine.runs.folder import CONFIG_FILE
from iodine.tf1_checkpoint import CheckpointError
from iodine.training import Trainer

__all__ = ["RunCheckpoints"]

_LOG = logging.getLogger(__name__)

CHECKPOINT_NAME = "model.ckpt"


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
    self._trainer.seed.assign(values[TRAINER_SEED])
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
    name == STATE_FILE or name.endswith(".index") for name in names
  )


def _remove_cut_off(folder: pathlib.Path) -> None:
  """Removes what was being written when an earlier process was killed."""
  patterns = (f"{CHECKPOINT_NAME}-*_temp", f"{STATE_FILE}.tmp*", "*.partial")
  for path in (path for kind in patterns for path in folder.glob(kind)):
    with contextlib.suppress(OSError):
      shutil.rmtree(path) if path.is_dir() else path.unlink()


def _place(values: Mapping[str, np.ndarray]) -> Position | None:
  """Where the data go on; None for a checkpoint that training did not write."""
  if not set(RUN_STATE) <= set(values):
    return None
  return Position(int(values["epoch"]), int(values["offset"]))
