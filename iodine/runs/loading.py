"""A trained model with its dataset, from a configuration and a checkpoint."""

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any, TypedDict

from sacred.utils import convert_to_nested_dict

from iodine import exploration, training
from iodine.config import reading, resolution
from iodine.data.datasets import IODINEDataset
from iodine.data.opening import build_data, first_batch, user_faults
from iodine.errors import ConfigError, did_you_mean
from iodine.runs import checkpoint_files
from iodine.runs import folder as run_folder
from iodine.scene_model import SceneModel

__all__ = [
  "LoadedCheckpoint",
  "image_size_and_factors",
  "initialize",
  "inner_batch_size",
  "load_checkpoint",
  "restored_model",
]

_LOG = logging.getLogger(__name__)


class LoadedCheckpoint(TypedDict):
  """What `load_checkpoint` returns."""

  model: SceneModel
  dataset: IODINEDataset
  inputs: dict[str, Any]
  info: dict[str, Any]


def load_checkpoint(
  config_name_or_path: str | os.PathLike,
  defaults: Mapping[str, Any],
  checkpoint_dir: str | os.PathLike | None = None,
  overrides: Mapping[str, Any] | None = None,
) -> LoadedCheckpoint:
  """Restores a model, and runs it on one batch of its dataset.

  Args:
    config_name_or_path: a named configuration, a configuration file, or the
      folder of a training run.
    defaults: {key: default} of all entries that there are.
    checkpoint_dir: see `checkpoints.find`; None: the folder of the run, or the
      configuration's own.
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
  entries = resolution.resolve(own, nested, defaults)
  resolution.check(entries, defaults)
  dataset = build_data(entries)
  inputs = first_batch(dataset)
  model, _ = restored_model(entries, dataset)
  info = exploration.infer(model, inputs, entries["seed"] or 0)
  return LoadedCheckpoint(
    model=model, dataset=dataset, inputs=inputs, info=info
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
  entries = resolution.without_derived(reading.load_file(file))
  if file.name == run_folder.CONFIG_FILE:
    entries["checkpoint_dir"] = str(file.parent)
  return entries


def restored_model(
  entries: Mapping[str, Any], dataset: IODINEDataset
) -> tuple[SceneModel, str]:
  """Builds the configuration's model and restores its checkpoint.

  Its inner losses are divided by what they were in training, so that what it
  infers does not depend on the batch size.

  Args:
    entries: the whole configuration.
    dataset: what the model's sizes follow from; no file is opened.

  Returns:
    The model and the checkpoint's prefix.

  Raises:
    ConfigError: if there is no checkpoint, or it does not fit.
  """
  prefix = checkpoint_files.find(entries["checkpoint_dir"])
  plan = dict(entries["model"])
  plan["inner_batch_size"] = inner_batch_size(entries, prefix)
  _LOG.info("Inner losses are divided by %s", plan["inner_batch_size"])
  model = resolution.build_part({"model": plan}, "model")
  initialize(model, dataset)
  checkpoint_files.restore(prefix, model)
  return model, prefix


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
  with user_faults(dataset):
    sizes = image_size_and_factors(dataset)
  try:
    part.initialize(*sizes, dataset.num_background_entities)
  except ValueError as error:
    raise ConfigError(f"model: {error}") from error


def image_size_and_factors(
  dataset: IODINEDataset,
) -> tuple[tuple[int, ...], dict[str, int]]:
  """(H, W, C) of images and {name: n} of factors."""
  spec = dataset.batch_spec()
  factors = {k: v.shape[-1] for k, v in spec.get("factors", {}).items()}
  return tuple(spec["image"].shape[2:]), factors


def inner_batch_size(entries: Mapping[str, Any], prefix: str) -> int:
  """The batch of the inner losses that a checkpoint was trained with.

  As far as one can know: the entry of the model itself, else the sub-batch of
  the configuration that training left beside the checkpoint, else the batch per
  GPU of the paper's training.
  """
  own = entries["model"].get("inner_batch_size")
  if own is not None:
    return own
  saved = run_folder.load_config(pathlib.Path(prefix).parent)
  return (
    saved.get("model", {}).get("inner_batch_size")
    or saved.get(resolution.SUB_BATCH_SIZE)
    or saved.get("data", {}).get("batch_size")
    or entries["paper_batch_size"]
    or entries["batch_size"]
  )
