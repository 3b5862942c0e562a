"""What the latents of a slot do."""

import logging
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from iodine import exploration
from iodine.commands.visualize import (
  check_choices,
  chosen_slot,
  infer_from,
  latent_factors_of,
  pictures_folder,
)
from iodine.data.datasets import IODINEDataset
from iodine.data.opening import data_errors_as_config_errors, scenes_from
from iodine.errors import ConfigError
from iodine.files import new_files
from iodine.pictures import sections
from iodine.pictures.saving import Album, forms
from iodine.progress import progress
from iodine.runs import loading
from iodine.scene_model import SceneModel

__all__ = ["activeness_of", "traverse"]

# As EfficientMORL's published code names them.
LIMITS_FILE, ACTIVENESS_FILE = "z_range.txt", "activeness.npy"

_NUM_LATENTS = 10  # by activeness
_NUM_VALUES = 8
_VALUE_MS = 250

_LOG = logging.getLogger(__name__)


def traverse(entries: Mapping[str, Any]) -> pathlib.Path:
  """Draws what latents of slots do, as pictures and as animations.

  Args:
    entries: the whole configuration; `scene`, `slot` and `latents` choose, and
      `range_of` says in what range.

  Returns:
    The folder of the pictures, `pictures_dir`/<the data's name>/traverse. With
    range_of=samples, it also gets z_range.txt, lowest and highest value of
    every latent, and, unless `latents` chooses, activeness.npy, see
    `exploration.activeness`.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration, or a model
      whose latents cannot be varied.
  """
  trained = loading.open_trained(entries)
  model, dataset, _ = trained
  check_choices(entries, model)
  batch = scenes_from(dataset, entries["scene"], entries["batch_size"])
  trained.restore()
  folder = pictures_folder(entries, dataset, "traverse")
  info = infer_from(entries, model, batch)
  range_of = _range_of(entries, model, info)
  if range_of == "samples":
    _by_activeness(entries, model, dataset, info, folder)
  else:
    _by_kl(entries, model, dataset, info, folder, range_of)
  return folder


def _range_of(
  entries: Mapping[str, Any], model: SceneModel, info: Mapping[str, Any]
) -> str:
  """The range that is asked for, or else the model's first.

  Raises:
    ConfigError: if the model does not have it.
  """
  possible = exploration.possible_ranges(model, info)
  kind = type(model).__name__
  if not possible:
    raise ConfigError(f"traverse: a {kind} renders no scenes from slots")
  range_of = entries["range_of"]
  if range_of is None:
    return possible[0]
  if range_of not in possible:
    raise ConfigError(
      f"range_of={range_of}: a {kind} has no posterior with a fixed prior; set "
      f"range_of={possible[0]}"
    )
  return range_of


def _by_kl(
  entries: Mapping[str, Any],
  model: SceneModel,
  dataset: IODINEDataset,
  info: Mapping[str, Any],
  folder: pathlib.Path,
  range_of: str,
) -> None:
  """Draws the latents of one slot that have the highest KL."""
  slot = chosen_slot(entries, info)
  name = _name(entries, slot)
  with new_files(folder, forms(*_pictures([name]))) as new:
    album = Album(new, entries["pictures_format"])
    pair = sections.traverse(model, info, slot, entries["latents"], range_of)
    names = _latent_names(entries, model, dataset, info)
    sections.traversal(*pair, album, name, names=names)
  _LOG.info("Wrote %s and %s", *(folder / file for file in _pictures([name])))


def _by_activeness(
  entries: Mapping[str, Any],
  model: SceneModel,
  dataset: IODINEDataset,
  info: Mapping[str, Any],
  folder: pathlib.Path,
) -> None:
  """Draws the most active latents of every slot, or of the chosen one."""
  slots = range(model.num_components)
  if entries["slot"] is not None:
    slots = range(entries["slot"] - 1, entries["slot"])
  names = {slot: _name(entries, slot) for slot in slots}
  files = [*forms(*_pictures(names.values())), LIMITS_FILE, ACTIVENESS_FILE]
  with new_files(folder, files) as new:
    album = Album(new, entries["pictures_format"])
    z = _sampled(entries, model, dataset)
    limits = exploration.latent_limits(z)
    np.savetxt(new / LIMITS_FILE, limits, fmt="%.9g", delimiter=",")
    importance = None
    if entries["latents"] is None:
      variances = activeness_of(entries, model, z, limits)
      np.save(new / ACTIVENESS_FILE, variances)
      importance = variances.mean(axis=0)
    latent_names = _latent_names(entries, model, dataset, info)
    for slot, name in names.items():
      traversal = exploration.traverse(
        model,
        info,
        slot,
        latents=entries["latents"],
        num_latents=_NUM_LATENTS,
        num_values=_NUM_VALUES,
        range_of="samples",
        limits=limits,
        importance=importance,
      )
      sections.traversal(
        traversal, traversal, album, name, _VALUE_MS, latent_names
      )
  _LOG.info("Wrote %s", folder)


def _latent_names(
  entries: Mapping[str, Any],
  model: SceneModel,
  dataset: IODINEDataset,
  info: Mapping[str, Any],
) -> Callable[[int], str] | None:
  """The factors that latents follow, where scenes have factors."""
  correlations = latent_factors_of(entries, model, dataset, info)
  return None if correlations is None else correlations.name


def _sampled(
  entries: Mapping[str, Any], model: SceneModel, dataset: IODINEDataset
) -> np.ndarray:
  """Samples [N, K, Z] of the slots of the first `range_scenes` scenes."""
  count = entries["range_scenes"]
  first = dataset.variant(take=count, shuffle_buffer=None)
  with (
    progress(count, "scenes", _LOG) as update,
    data_errors_as_config_errors(first),
  ):
    return exploration.sampled_latents(
      model, first("eval"), entries["seed"], update
    )


def activeness_of(
  entries: Mapping[str, Any],
  model: SceneModel,
  z: np.ndarray,
  limits: np.ndarray,
) -> np.ndarray:
  """Measures the activeness of a random slot of every scene.

  Args:
    entries: the whole configuration; `seed` chooses the slots.
    model: restored model.
    z: [N, K, Z] samples.
    limits: [Z, 2], see `exploration.latent_limits`.

  Returns:
    [N, Z], see `exploration.activeness`.
  """
  rng = np.random.default_rng(entries["seed"])
  slots = rng.integers(model.num_components, size=len(z))
  with progress(len(z), "scenes", _LOG) as update:
    return exploration.activeness(
      model, z, slots.tolist(), limits, on_progress=update
    )


def _name(entries: Mapping[str, Any], slot: int) -> str:
  return f"scene_{entries['scene']}_slot_{slot + 1}"


def _pictures(names: Iterable[str]) -> list[str]:
  return [f"{name}.{kind}" for name in names for kind in ("gif", "png")]
