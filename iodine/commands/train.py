"""Training, new or continued."""

import contextlib
import dataclasses
import logging
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import console, devices, training
from iodine.compiling import check_xla, xla_errors_explained
from iodine.config import resolution
from iodine.config.entries import ENTRIES
from iodine.data import fingerprint, opening
from iodine.data.fingerprint import Fingerprint
from iodine.data.pipeline import IODINEDataset
from iodine.errors import ConfigError
from iodine.experiment import Record
from iodine.runs import continuation, loading, manifest
from iodine.runs import folder as run_folder
from iodine.runs import lock as run_lock
from iodine.runs import loop as training_loop
from iodine.runs import versions as run_versions
from iodine.scene_model import SceneModel
from iodine.training import replicas
from iodine.training.replicas import Distribution

__all__ = ["Parts", "make_trainer", "prepare", "train"]

_LOG = logging.getLogger(__name__)


class Parts(NamedTuple):
  """What a configuration describes; without variables, no file opened."""

  dataset: IODINEDataset
  model: SceneModel
  optimizer: training.Optimizer
  curriculum: training.Curriculum | None = None


def prepare(entries: Mapping[str, Any]) -> Parts:
  """Checks a whole configuration, and builds what training needs.

  Raises:
    ConfigError: lists every fault.
  """
  parts = Parts(*resolution.build(entries))
  size = parts.dataset.batch_size
  if size != entries["batch_size"]:
    _LOG.warning(
      "data.batch_size=%s, but the learning rate follows batch_size=%s",
      size,
      entries["batch_size"],
    )
  if parts.model.num_frames > parts.dataset.num_frames:
    raise ConfigError(
      f"model: needs {parts.model.num_frames} frames of a scene, but the "
      f"dataset {parts.dataset.name} has {parts.dataset.num_frames}"
    )
  if entries["curriculum"] is None:
    return parts
  curriculum = training.Curriculum(entries["curriculum"])
  try:
    curriculum.check(parts.model, parts.dataset.num_frames)
  except ValueError as error:
    raise ConfigError(str(error)) from error
  return parts._replace(curriculum=curriculum)


def train(entries: Mapping[str, Any], parts: Parts, record: Record) -> None:
  """Trains a model, or goes on with it (`continue_run`).

  Args:
    entries: the whole configuration.
    parts: from `prepare`.
    record: of this run.

  Raises:
    ConfigError: for a mistake in folder, data, checkpoint or TF_CONFIG.
    RunError: if the run cannot go on.
    Interrupted: after a signal (see `iodine.signals`), when everything is
      saved.
  """
  replicas.warn_without_gpu()
  precision = resolution.precision(entries)
  devices.set_up(precision)
  devices.check_training(precision)
  if entries["deterministic"]:
    tf.config.experimental.enable_op_determinism()
  distribution = replicas.create(entries["strategy"], entries["accumulate"])
  if entries["xla"]:
    check_xla()
  resolution.sub_batch_size(
    parts.dataset.batch_size, entries["accumulate"], distribution.num_replicas
  )
  with contextlib.ExitStack() as lock:
    run = _Run(entries, parts, record, distribution, lock, entries["seed"])
    try:
      with xla_errors_explained(entries["xla"]):
        run.train()
    except tf.errors.UnimplementedError as error:
      if not entries["deterministic"]:
        raise
      raise ConfigError(
        f"deterministic=True: {error.message}. Set it to False, or train on "
        "the CPU (CUDA_VISIBLE_DEVICES=)"
      ) from error


@dataclasses.dataclass
class _Run:
  """One process's part in a run.

  Attributes:
    entries: the whole configuration, as it was given.
    parts: what is trained, on what, by what.
    record: of this process.
    devices: that train.
    lock: keeps the folder locked as long as it is open.
    seed: of the run; a continued one keeps its own.
    folder: of the run; None for any worker but the chief, and before it is
      opened.
    data: what the data are; None where `folder` is.
  """

  entries: Mapping[str, Any]
  parts: Parts
  record: Record
  devices: Distribution
  lock: contextlib.ExitStack
  seed: int
  folder: pathlib.Path | None = None
  data: Fingerprint | None = None

  def train(self) -> None:
    """Opens data and folder, and takes the steps."""
    entries, devices = self.entries, self.devices
    if entries["continue_run"] and devices.is_chief:
      self._open_folder()
      self._continue()
    dataset, sample = opening.training_data(entries, self.parts.dataset)
    self.parts = self.parts._replace(dataset=dataset)
    with devices.explain_lost_workers():
      devices.check_alike(
        [entries[name] for name, entry in ENTRIES.items() if entry.alike]
      )
      trainer = make_trainer(
        self.parts.dataset,
        self.parts.model,
        self.parts.optimizer,
        self.seed,
        devices,
        self.parts.curriculum,
        entries["xla"],
      )
    if self.folder is None and devices.is_chief:
      self.data = opening.fingerprint_of(dataset)
      self._open_folder()  # not before the data turned out to be good
    training_loop.run(
      trainer,
      dataset,
      sample,
      self.folder,
      training_loop.Settings(
        stop_after_steps=entries["stop_after_steps"],
        save_summaries_steps=entries["save_summaries_steps"],
        save_images_steps=entries["save_images_steps"],
        save_checkpoint_steps=entries["save_checkpoint_steps"],
        keep_checkpoints=entries["keep_checkpoints"],
        keep_best=entries["keep_best"],
        profile=entries["profile"],
      ),
      self.record.log_scalar,
      on_ready=lambda: self._save_config(trainer),
      flush_metrics=self.record.flush,
    )
    if self.folder is not None:
      _show_next_commands(self.folder / run_folder.CONFIG_FILE)

  def _open_folder(self) -> None:
    """Opens the run's folder, and locks it."""
    self.folder = run_folder.open_folder(
      self.entries["checkpoint_dir"],
      self.entries["continue_run"],
      self.record.run_id,
    )
    self.lock.enter_context(run_lock.locked(self.folder))
    self.record.info["checkpoint_dir"] = str(self.folder)

  def _continue(self) -> None:
    """Checks what a run goes on with, and takes the seeds of that run.

    A checkpoint has the seeds, too, but a run may have been killed before it
    saved one.
    """
    assert self.folder is not None
    saved = run_folder.load_config(self.folder)
    manifest.warn_of_changes(self.folder / run_folder.CONFIG_FILE)
    continuation.check_drift(saved, self.entries, self.folder)
    self.seed = saved.get("seed", self.seed)
    own = self.entries["data"].get("seed", self.seed)
    data_seed = saved.get("data", {}).get("seed", own)
    for name, seed in (("seed", self.seed), ("data.seed", data_seed)):
      if fault := ENTRIES["seed"].fault(name, seed):
        raise ConfigError(f"{self.folder}: its config.json says {fault}")
    self.parts.dataset.seed = data_seed
    now = opening.fingerprint_of(self.parts.dataset)
    self.data = fingerprint.check(self.folder, now, self.parts.dataset)
    self.record.set_seed(self.seed)  # of the initial weights

  def _save_config(self, trainer: training.Trainer) -> None:
    """Writes what the run is, once its seeds are known."""
    if self.folder is None or self.data is None:
      return
    dataset, parts = self.parts.dataset, self.devices.num_sub_batches
    seeds = {"seed": int(trainer.seed.numpy()), "data.seed": dataset.seed}
    entries = run_folder.config_to_save(
      self.entries, seeds, self.record.is_given("seed")
    )
    if parts > 1:
      entries[resolution.SUB_BATCH_SIZE] = dataset.batch_size // parts
    fingerprint.save(self.folder, self.data)
    run_folder.save_config(self.folder, entries)
    step = int(trainer.optimizer.step.numpy())
    run_versions.save_versions(self.folder, step)


def _show_next_commands(config: pathlib.Path) -> None:
  """Logs commands to copy, which take a run's model by its configuration."""
  for command in ("evaluate", "visualize"):
    words = shlex.join([command, "with", str(config)])
    _LOG.info("Next: %s %s", console.program(), words)


def make_trainer(
  dataset: IODINEDataset,
  model: SceneModel,
  optimizer: training.Optimizer,
  seed: int | None,
  devices: Distribution | None = None,
  curriculum: training.Curriculum | None = None,
  xla: bool = False,
) -> training.Trainer:
  """Makes a trainer with all variables that the data call for.

  Raises:
    ConfigError: if model and dataset do not fit together.
  """
  devices = devices or Distribution()
  if devices.num_sub_batches > 1:
    _LOG.info(
      "The %s images of a step: %s sub-batches on %s devices of %s processes",
      dataset.batch_size,
      devices.num_sub_batches,
      devices.num_replicas,
      devices.num_workers,
    )
  with devices.scope():
    trainer = training.Trainer(model, optimizer, seed, devices, curriculum, xla)
    loading.initialize(trainer, dataset)
  return trainer
