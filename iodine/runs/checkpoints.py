"""Saving and restoring a run, so that it goes on as if it had not ended."""

import contextlib
import functools
import logging
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping

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

__all__ = ["RunCheckpoints", "explain_failed_writes"]

_LOG = logging.getLogger(__name__)

CHECKPOINT_NAME = "model.ckpt"


@contextlib.contextmanager
def explain_failed_writes(what: str, then: str = "") -> Iterator[None]:
  """Turns the errors of a block that writes files into a RunError.

  Args:
    what: what failed; the reason follows it in parentheses.
    then: a sentence to end with.

  Raises:
    RunError: for an error of the system or of TensorFlow.
  """
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    reason = str(error).strip().splitlines()[0]
    end = f". {then}" if then else ""
    raise RunError(f"{what} ({reason}){end}") from error


class RunCheckpoints:
  """The checkpoints in a run's folder, which hold all of its state.

  That is the model, the optimizer, the trainer's seed and the position in the
  data: a seed, an epoch and an offset (`IODINEDataset.batches`). The random
  numbers of a step follow from the trainer's seed and the optimizer's step.

  All of the workers that train together have to call the same methods. Only the
  chief reads and writes files; the others get from it what it read.
  """

  def __init__(self, folder: pathlib.Path | None, trainer: Trainer, keep: int):
    """Opens the folder; no checkpoint is read or written yet.

    Args:
      folder: the run's folder, which exists; None for any worker but the chief.
      trainer: what is saved and restored; it has all of its variables.
      keep: number of checkpoints that stay; older ones are removed.

    Raises:
      CheckpointError: if the folder's file `checkpoint` is damaged.
    """
    self._folder = folder
    self._trainer = trainer
    self._data = {
      name: tf.Variable(0, dtype=tf.int64, trainable=False, name=name)
      for name in ("seed", "epoch", "offset")
    }
    self._last_step = 0  # at the last save
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
    """Prefix of the last checkpoint, if any; in words if the chief has it."""
    if self._manager is not None:
      return self._manager.latest_checkpoint
    if not self._last_step:
      return None
    return f"{CHECKPOINT_NAME}-{self._last_step} in the chief's folder"

  def restore(self, dataset: IODINEDataset) -> Position:
    """Restores the folder's last checkpoint, if there is one.

    Args:
      dataset: what is trained on; gets the seed that the run has had so far.

    Returns:
      Where the data go on; the start, unless training wrote the checkpoint.

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
    """Does what `restore` does, for the chief."""
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
    with explain_failed_writes(f"{folder}: cannot be written"):
      tf.compat.v1.train.update_checkpoint_state(
        str(folder), prefix, all_model_checkpoint_timestamps=[time.time()]
      )
    self._manager = self._make_manager()

  def save(self, dataset: IODINEDataset, position: Position) -> str:
    """Saves a checkpoint, named by the optimizer's step.

    Args:
      dataset: what is trained on.
      position: where its next batch is.

    Returns:
      The checkpoint's prefix.

    Raises:
      RunError: if it cannot be saved.
    """
    state = (dataset.seed, position.epoch, position.offset)
    for variable, value in zip(self._data.values(), state, strict=True):
      variable.assign(value)
    step = int(self._trainer.optimizer.step.numpy())
    self._last_step = step
    if self._manager is None:
      return str(self.latest)
    with explain_failed_writes(f"step {step}: the checkpoint cannot be saved"):
      return self._manager.save(checkpoint_number=step)


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
