"""Saving and restoring a run, so that it goes on as if it had not ended."""

import iodine.quiet_tensorflow

import contextlib
import logging
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from iodine import checkpoint_index, files, metrics, tf1_checkpoint
from iodine.data.fingerprint import DATA_FILE
from iodine.data.pipeline import IODINEDataset, Position
from iodine.errors import RunError
from iodine.runs import checkpoint_files
from iodine.runs import manifest as run_manifest
from iodine.runs.checkpoint_files import TRAINER_SEED
from iodine.runs.folder import CONFIG_FILE
from iodine.runs.manifest import (
  CHECKPOINT_NAME,
  FileSum,
  Manifest,
  SavedCheckpoint,
)
from iodine.runs.versions import VERSIONS_FILE
from iodine.tf1_checkpoint import CheckpointError
from iodine.training import Trainer

__all__ = ["RunCheckpoints", "explain_failed_writes"]

_LOG = logging.getLogger(__name__)

# Where a checkpoint is written before it gets its name. One process at a time
# writes in a run's folder, and what is found here is a killed one's.
_SAVING = f".{CHECKPOINT_NAME}.saving"
# What says what a run is, beside its checkpoints.
_RECORDS = (CONFIG_FILE, DATA_FILE, VERSIONS_FILE)


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

  A checkpoint is written aside; its files are brought to disk, then named in
  the manifest with their checksums, then moved to their place. A process that
  is killed in between is finished by the next one. The last `keep` checkpoints
  stay. With `keep_best` so do the first one and the one with the best score.
  What the manifest does not name is never deleted.

  All of the workers that train together have to call the same methods. Only the
  chief reads and writes files; the others get from it what it read.
  """

  def __init__(
    self,
    folder: pathlib.Path | None,
    trainer: Trainer,
    keep: int,
    keep_best: str | None = None,
  ):
    """Opens the folder; no checkpoint is read or written yet.

    Args:
      folder: the run's folder, which exists; None for any worker but the chief.
      trainer: what is saved and restored; it has all of its variables.
      keep: number of checkpoints that stay; older ones are removed.
      keep_best: name of the training scalar by whose mean over the steps before
        a checkpoint the best one is chosen; see `metrics.is_score`.

    Raises:
      ConfigError: if a later version of this package wrote the folder.
    """
    self._folder = folder
    self._trainer = trainer
    self._keep, self._keep_best = keep, keep_best
    self._data = {
      name: tf.Variable(0, dtype=tf.int64, trainable=False, name=name)
      for name in ("seed", "epoch", "offset")
    }
    self._checkpoint = tf.train.Checkpoint(trainer=trainer, data=self._data)
    self._latest: str | None = None
    self._manifest = Manifest()
    if folder is not None:
      self._manifest = run_manifest.load(folder) or self._manifest
      self._identity = _identity(folder)

  @property
  def latest(self) -> str | None:
    """Prefix of the last checkpoint, if any; in words if the chief has it."""
    return self._latest

  @property
  def best(self) -> tuple[str, float] | None:
    """Prefix and score of the best checkpoint, with `keep_best`."""
    best = self._best()
    if best is None or self._folder is None or self._keep_best is None:
      return None
    return str(self._folder / best.name), best.scores[self._keep_best]

  def restore(self, dataset: IODINEDataset) -> Position:
    """Restores the folder's last checkpoint that is whole, if there is one.

    Args:
      dataset: what is trained on; gets the seed that the run has had so far.

    Returns:
      Where the data go on; the start, unless training wrote the checkpoint.

    Raises:
      CheckpointError: if none is whole but there are remains of some, or if it
        does not fit.
    """
    place = Position(0, 0)
    if self._folder is not None:
      place = self._read(self._folder, dataset)
    distribution = self._trainer.distribution
    if distribution.num_workers > 1:
      variables = self._trainer.variables
      values = distribution.from_chief([dataset.seed, *place, *variables])
      for variable, value in zip(variables, values[3:], strict=True):
        variable.assign(value)
      dataset.seed, epoch, offset = (int(value) for value in values[:3])
      place = Position(epoch, offset)
      step = int(self._trainer.optimizer.step.numpy())
      if self._folder is None and step:
        self._latest = _of_chief(step)
    return place

  def _read(self, folder: pathlib.Path, dataset: IODINEDataset) -> Position:
    """Does what `restore` does, for the chief."""
    self._finish_save(folder)
    found = self._last_whole(folder)
    if found is None:
      _LOG.info("There is no checkpoint in %s: starting at step 0", folder)
      return Position(0, 0)
    prefix, values = found
    values = checkpoint_files.for_model(values, prefix, self._trainer.model)
    checkpoint_files.check_constraint(values, prefix, self._trainer.model)
    report = tf1_checkpoint.restore_values(
      values, prefix, self._trainer.model, self._trainer.optimizer
    )
    self._latest = prefix
    step = int(self._trainer.optimizer.step.numpy())
    # Later ones are damaged, and would else count as the last.
    self._manifest.checkpoints = [
      c for c in self._manifest.checkpoints if c.step <= step
    ]
    self._sweep(folder)
    place = _place(values)
    if place is None:
      checkpoint_files.log_report(prefix, report)
      return Position(0, 0)
    self._trainer.seed.assign(values[TRAINER_SEED])
    dataset.seed = int(values["seed"])
    _LOG.info("Restored %s", prefix)
    return place

  def _last_whole(
    self, folder: pathlib.Path
  ) -> tuple[str, dict[str, np.ndarray]] | None:
    """Prefix and values of the last checkpoint that can be read.

    Raises:
      CheckpointError: if there are only damaged ones, or remains of some.
    """
    faults = []
    for prefix in checkpoint_files.candidates(folder, self._manifest):
      try:
        values = self._read_whole(prefix)
      except CheckpointError as error:
        faults.append(error)
        continue
      for fault in faults:
        _LOG.warning("%s", fault)
      if faults:
        _LOG.warning("Resuming from the last whole checkpoint, %s", prefix)
      return prefix, values
    remains = checkpoint_files.weights_in(folder)
    if not remains:
      return None
    if _is_first_save_cut_off(folder, remains, self._manifest):
      _LOG.warning(
        "The first checkpoint in %s was cut off: %s", folder, ", ".join(remains)
      )
      return None
    if faults:
      raise faults[0]
    raise CheckpointError(
      f"{folder}: there is no whole checkpoint, but what is left of some: "
      f"{', '.join(remains[:10])}. Starting at step 0 would lose them. Copy or "
      "convert them again, or choose another checkpoint_dir."
    )

  def _read_whole(self, prefix: str) -> dict[str, np.ndarray]:
    """Reads a checkpoint that is as it was saved; else a CheckpointError."""
    path = pathlib.Path(prefix)
    for checkpoint in self._manifest.checkpoints:
      if checkpoint.name == path.name:
        if fault := checkpoint.change(path.parent):
          raise CheckpointError(f"{prefix}: {fault}")
    checkpoint_files.check_whole(prefix)
    return checkpoint_files.read(prefix)

  def record_files(self) -> None:
    """Notes the sums of the files that say what the run is.

    Raises:
      RunError: if the manifest cannot be written.
    """
    if self._folder is not None:
      self._manifest.files = {
        name: run_manifest.file_sum(self._folder / name)
        for name in _RECORDS
        if (self._folder / name).is_file()
      }
      self._manifest.save(self._folder)

  def save(
    self,
    dataset: IODINEDataset,
    position: Position,
    scores: Mapping[str, float] | None = None,
  ) -> str:
    """Saves a checkpoint, named by the optimizer's step.

    Args:
      dataset: what is trained on.
      position: where its next batch is.
      scores: {name of a training scalar: its mean over the steps before}.

    Returns:
      The checkpoint's prefix.

    Raises:
      RunError: if it cannot be saved.
    """
    state = (dataset.seed, position.epoch, position.offset)
    for variable, value in zip(self._data.values(), state, strict=True):
      variable.assign(value)
    step = int(self._trainer.optimizer.step.numpy())
    if self._folder is None:
      latest = _of_chief(step)
    else:
      with explain_failed_writes(
        f"step {step}: the checkpoint cannot be saved"
      ):
        latest = self._save(self._folder, step, scores or {})
    self._latest = latest
    return latest

  def _save(
    self, folder: pathlib.Path, step: int, scores: Mapping[str, float]
  ) -> str:
    """Does what `save` does, for the chief; an OSError if it cannot."""
    if _identity(folder) != self._identity:
      raise RunError(
        f"{folder}: another folder is there now than the run began with. "
        "Nothing was written to it."
      )
    prefix = folder / f"{CHECKPOINT_NAME}-{step}"
    saving = folder / _SAVING
    _remove(saving)
    saving.mkdir()
    try:
      self._checkpoint.write(str(saving / prefix.name))
      checkpoint = SavedCheckpoint(step, _brought_to_disk(saving), scores)
      self._drop_what_is_gone(folder)
      self._manifest.add(checkpoint)
      self._manifest.save(folder)
    except BaseException:
      _remove(saving)
      raise
    self._publish(folder, checkpoint.files)
    _remove(saving)
    self._sweep(folder)
    return str(prefix)

  def _finish_save(self, folder: pathlib.Path) -> None:
    """Finishes the last save, if an earlier process was killed within it."""
    saving = folder / _SAVING
    if self._manifest.checkpoints and saving.is_dir():
      last = self._manifest.checkpoints[-1]
      whole = [
        name
        for name, expected in last.files.items()
        if run_manifest.change(saving / name, expected) is None
      ]
      self._publish(folder, whole)
    with explain_failed_writes(f"{saving}: cannot be removed"):
      _remove(saving)

  def _publish(self, folder: pathlib.Path, names: Iterable[str]) -> None:
    """Gives files of a checkpoint that are whole their names, in this order."""
    for name in names:
      os.replace(folder / _SAVING / name, folder / name)
    files.sync(folder)
    self._name_kept(folder)

  def _name_kept(self, folder: pathlib.Path) -> None:
    """Writes the file `checkpoint`, by which TensorFlow's own tools find them.

    Names are relative, so that they hold in a copy of the folder, too.
    """
    names = [checkpoint.name for checkpoint in self._kept()]
    rows = [f'model_checkpoint_path: "{names[-1]}"']
    rows += [f'all_model_checkpoint_paths: "{name}"' for name in names]
    path = folder / checkpoint_files.STATE_FILE
    files.write_whole(path, "\n".join(rows) + "\n")

  def _kept(self) -> list[SavedCheckpoint]:
    """The checkpoints that stay, in the order of their steps."""
    saved = self._manifest.checkpoints
    others = [saved[0], self._best()] if self._keep_best and saved else []
    steps = {c.step for c in (*saved[-self._keep :], *others) if c is not None}
    return [c for c in saved if c.step in steps]

  def _best(self) -> SavedCheckpoint | None:
    """The checkpoint of the best score, the first of equal ones."""
    name = self._keep_best
    scored = [c for c in self._manifest.checkpoints if name in c.scores]
    if name is None or not scored:
      return None
    sign = 1 if metrics.is_score(name) else -1
    return max(scored, key=lambda c: sign * c.scores[name])

  def _sweep(self, folder: pathlib.Path) -> None:
    """Removes the files of checkpoints that do not stay."""
    kept = self._kept()
    for checkpoint in self._manifest.checkpoints:
      if checkpoint in kept:
        continue
      # Index first: without it, data are no checkpoint.
      for name, expected in reversed(list(checkpoint.files.items())):
        path = folder / name
        with contextlib.suppress(OSError):
          # Somebody may have put another file there.
          if path.lstat().st_size == expected.bytes:
            path.unlink()

  def _drop_what_is_gone(self, folder: pathlib.Path) -> None:
    """Drops checkpoints without files from the manifest."""
    self._manifest.checkpoints = [
      checkpoint
      for checkpoint in self._manifest.checkpoints
      if any((folder / name).exists() for name in checkpoint.files)
    ]


def _of_chief(step: int) -> str:
  """Words for the checkpoint of another worker."""
  return f"{CHECKPOINT_NAME}-{step} in the chief's folder"


def _identity(folder: pathlib.Path) -> tuple[int, int]:
  """Tells a folder from any other that is put in its place."""
  status = folder.stat()
  return status.st_dev, status.st_ino


def _brought_to_disk(folder: pathlib.Path) -> dict[str, FileSum]:
  """Waits for the files of a checkpoint; their sums, data before index."""
  sums = {}
  for path in sorted(folder.iterdir(), key=lambda p: (p.suffix == ".index", p)):
    files.sync(path)
    sums[path.name] = run_manifest.file_sum(path)
  files.sync(folder)
  return sums


def _remove(saving: pathlib.Path) -> None:
  """Removes the folder that a checkpoint is written in; no link is followed."""
  if saving.is_dir() and not saving.is_symlink():
    shutil.rmtree(saving)
  else:
    saving.unlink(missing_ok=True)


def _is_first_save_cut_off(
  folder: pathlib.Path, weights: list[str], manifest: Manifest
) -> bool:
  """Whether an earlier version was killed in the first save of a run.

  It wrote data, index and state file under their final names, in this order.
  """
  names = {path.name for path in folder.iterdir()}
  steps = {
    name.partition(".index")[0].partition(".data")[0] for name in weights
  }
  return (
    CONFIG_FILE in names
    and checkpoint_files.STATE_FILE not in names
    and not manifest.checkpoints
    and len({step.removesuffix("_temp") for step in steps}) == 1
    and not any(
      checkpoint_index.has_end(folder / name)
      for name in weights
      if name.endswith(".index")
    )
  )


def _place(values: Mapping[str, np.ndarray]) -> Position | None:
  """Where the data go on; None for a checkpoint that training did not write."""
  if not {TRAINER_SEED, "seed", "epoch", "offset"} <= set(values):
    return None
  return Position(int(values["epoch"]), int(values["offset"]))
