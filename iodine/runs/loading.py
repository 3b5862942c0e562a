"""A trained model with its dataset, from a configuration and a checkpoint."""

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from sacred.utils import convert_to_nested_dict

from iodine import devices, exploration, training
from iodine.config import plans, reading, resolution
from iodine.data import opening
from iodine.data.pipeline import IODINEDataset
from iodine.errors import ConfigError, did_you_mean
from iodine.runs import checkpoint_files
from iodine.runs import folder as run_folder
from iodine.scene_model import SceneModel

__all__ = [
  "LoadedCheckpoint",
  "Trained",
  "build_trained",
  "entries_of",
  "inner_batch_size",
  "initialize",
  "load_checkpoint",
  "open_trained",
]

_LOG = logging.getLogger(__name__)


class Trained(NamedTuple):
  """A trained model and the data to use it on.

  Attributes:
    model: with its variables; `restore` gives them their values.
    dataset: of which no file is opened yet.
    prefix: of the checkpoint's files.
  """

  model: SceneModel
  dataset: IODINEDataset
  prefix: str

  def restore(self, is_logged: bool = True) -> None:
    """Creates the model's variables and restores them.

    Args:
      is_logged: whether the log tells what was restored.

    Raises:
      ConfigError: if data, model and checkpoint do not fit together.
    """
    initialize(self.model, self.dataset)
    checkpoint_files.restore(self.prefix, self.model, is_logged=is_logged)


def open_trained(entries: Mapping[str, Any]) -> Trained:
  """As `build_trained`; the log tells what inner losses are divided by."""
  trained = build_trained(entries)
  shared = {"inner_batch_size": inner_batch_size(entries, trained.prefix)}
  if not plans.filled(entries["model"], shared).keys().isdisjoint(shared):
    _LOG.info("Inner losses are divided by %s", *shared.values())
  return trained


def build_trained(entries: Mapping[str, Any]) -> Trained:
  """Builds what `checkpoint_dir` was trained with, and finds the checkpoint.

  Sets up the devices for it.
  Inner losses are divided by what they were in training, so that what a model
  infers does not depend on the batch size.

  Args:
    entries: the whole configuration.

  Returns:
    Model, dataset and checkpoint; nothing is computed yet, and no data file
    opened.

  Raises:
    ConfigError: lists every fault of the configuration, or says that there is
      no checkpoint.
  """
  try:
    prefix = checkpoint_files.find(str(entries["checkpoint_dir"]))
  except ConfigError:
    resolution.build(entries, ("data", "model"))  # whose faults come first
    raise
  shared = {"inner_batch_size": inner_batch_size(entries, prefix)}
  dataset, model = resolution.build(entries, ("data", "model"), shared)
  devices.set_up(resolution.precision(entries))
  return Trained(model, dataset, prefix)


def entries_of(path: str) -> dict[str, Any]:
  """The whole configuration that a checkpoint was trained with.

  Args:
    path: a named configuration, which stands for its `checkpoint_dir`, or what
      `checkpoint_files.find` takes.

  Returns:
    The configuration that training left beside the checkpoint, else the named
    one; its `checkpoint_dir` is the checkpoint's prefix.

  Raises:
    ConfigError: if there is no checkpoint or no configuration.
  """
  named = reading.named_configs().get(path)
  given = path if named is None else resolution.resolve(named)["checkpoint_dir"]
  prefix = checkpoint_files.find(given)
  file = pathlib.Path(prefix).parent / run_folder.CONFIG_FILE
  if file.is_file():
    own = run_folder.read_file(file, in_place=False)
  elif named is not None:
    own = named
  else:
    raise ConfigError(
      f"{path}: there is no {file}, the configuration that it was trained "
      "with; copy that of its run there, or name a configuration whose "
      "checkpoint_dir is this folder"
    )
  return resolution.resolve(own, {"checkpoint_dir": prefix})


class LoadedCheckpoint(TypedDict):
  """What `load_checkpoint` returns."""

  model: SceneModel
  dataset: IODINEDataset
  inputs: dict[str, Any]
  info: dict[str, Any]


def load_checkpoint(
  config_name_or_path: str | os.PathLike,
  checkpoint_dir: str | os.PathLike | None = None,
  overrides: Mapping[str, Any] | None = None,
) -> LoadedCheckpoint:
  """Restores a model, and runs it on one batch of its dataset.

  Args:
    config_name_or_path: a named configuration, a configuration file, or the
      folder of a training run.
    checkpoint_dir: see `checkpoint_files.find`; None: the folder of the run, or
      the configuration's own.
    overrides: {key: value} of entries; a key such as "data.shuffle_buffer"
      reaches inside of one.

  Returns:
    See `iodine.main.load_checkpoint`.

  Raises:
    ConfigError: for a mistake in configuration, checkpoint or data.
  """
  own = _read(config_name_or_path)
  if checkpoint_dir is not None:
    own["checkpoint_dir"] = os.fspath(checkpoint_dir)
  nested = convert_to_nested_dict(dict(overrides or {}))
  reading.check_entries(nested)
  entries = resolution.resolve(own, nested)
  trained = open_trained(entries)
  inputs = opening.first_batch(trained.dataset)
  trained.restore()
  return LoadedCheckpoint(
    model=trained.model,
    dataset=trained.dataset,
    inputs=inputs,
    info=exploration.infer(trained.model, inputs, entries["seed"] or 0),
  )


def _read(config_name_or_path: str | os.PathLike) -> dict[str, Any]:
  """Entries of a named configuration, a file, or the folder of a run."""
  path = pathlib.Path(config_name_or_path).expanduser()
  named = reading.named_configs()
  if str(config_name_or_path) in named:
    return named[str(config_name_or_path)]
  file = path / run_folder.CONFIG_FILE if path.is_dir() else path
  if not file.is_file():
    raise ConfigError(
      f"{config_name_or_path}: no such configuration, file or folder of a run. "
      + did_you_mean(str(config_name_or_path), named, "configurations")
    )
  entries = run_folder.read_file(file, in_place=True)
  if path.is_dir():
    entries["checkpoint_dir"] = str(path)
  return entries


def initialize(
  part: SceneModel | training.Trainer, dataset: IODINEDataset
) -> None:
  """Creates all variables of a model, or of what trains it.

  Args:
    part: what is to have variables.
    dataset: what their sizes follow from.

  Raises:
    ConfigError: if model and dataset do not fit together.
  """
  with opening.data_errors_as_config_errors(dataset):
    spec = dataset.batch_spec()
  factors = {k: v.shape[-1] for k, v in spec.get("factors", {}).items()}
  try:
    part.initialize(
      spec["image"].shape[2:], factors, dataset.num_background_entities
    )
  except ConfigError:
    raise  # the optimizer's
  except ValueError as error:
    raise ConfigError(f"model: {error}") from error


def inner_batch_size(entries: Mapping[str, Any], prefix: str) -> int:
  """The batch of the inner losses that a checkpoint was trained with.

  As far as one can know: the entry of the model itself, else the sub-batch of
  the configuration that training left beside the checkpoint, else the batch per
  GPU of the paper's training.
  """
  saved = run_folder.load_config(pathlib.Path(prefix).parent)
  return (
    entries["model"].get("inner_batch_size")
    or saved.get("model", {}).get("inner_batch_size")
    or saved.get(resolution.SUB_BATCH_SIZE)
    or saved.get("data", {}).get("batch_size")
    or saved.get("batch_size")
    or entries["paper_batch_size"]
    or entries["batch_size"]
  )
