"""What a checkpoint has learned, as a page of pictures."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine import checks, exploration
from iodine.commands.evaluate import eval_batches
from iodine.data.datasets import IODINEDataset
from iodine.data.opening import scenes_from
from iodine.errors import ConfigError
from iodine.evaluation import latent_factors
from iodine.files import new_files
from iodine.pictures import explorer, page, sections
from iodine.pictures.saving import Album, forms
from iodine.progress import progress
from iodine.runs import checkpoint_files, loading, summaries
from iodine.scene_model import SceneModel, shows_decomposition

__all__ = [
  "check_choices",
  "chosen_slot",
  "infer_from",
  "latent_factors_of",
  "pictures_folder",
  "visualize",
]

INDEX_FILE = "index.html"

_LOG = logging.getLogger(__name__)


def visualize(entries: Mapping[str, Any]) -> pathlib.Path:
  """Draws what a checkpoint has learned, and a page that shows the pictures.

  What the model cannot do, or the data do not have, is left out.

  Args:
    entries: the whole configuration; of the data, the scenes from `scene` on
      count, at most eight.

  Returns:
    The page, in `pictures_dir`/<the data's name>/visualize. It replaces an
    earlier one with all pictures at once, when everything is drawn.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration.
  """
  trained = loading.open_trained(entries)
  model, dataset, prefix = trained
  check_choices(entries, model)
  batch = scenes_from(dataset, entries["scene"], entries["batch_size"])
  trained.restore()
  folder = pictures_folder(entries, dataset, "visualize")
  files = [*forms(*sections.PICTURES), explorer.SCRIPT_FILE, INDEX_FILE]
  with new_files(folder, files) as new:
    info = infer_from(entries, model, batch)
    factors = latent_factors_of(entries, model, dataset, info)
    drawn = sections.sections(
      model,
      info,
      Album(new, entries["pictures_format"]),
      chosen_slot(entries, info),
      entries["latents"],
      entries["seed"],
      summaries.read_scalars(pathlib.Path(prefix).parent),
      factors,
    )
    widget = explorer.explorer(model, info, factors and factors.name)
    if widget is not None:
      path = new / widget.script_file
      path.write_text(widget.script, encoding="utf-8")
    text = page.page(
      f"What {type(model).__name__} makes of {dataset.name}",
      model.about,
      _facts(entries, dataset, model, prefix),
      drawn,
      widget,
    )
    (new / INDEX_FILE).write_text(text, encoding="utf-8")
  _LOG.info("Wrote %s", folder / INDEX_FILE)
  return folder / INDEX_FILE


def check_choices(entries: Mapping[str, Any], model: SceneModel) -> None:
  """Raises ConfigError unless the model has such a slot and such latents."""
  count = model.num_components
  fault = checks.int_fault("slot", entries["slot"], 1, count, optional=True)
  if fault:
    raise ConfigError(fault)
  if any(latent >= model.n_z for latent in entries["latents"] or ()):
    raise ConfigError(
      f"latents={entries['latents']!r}: expected a list of integers from 0 to "
      f"{model.n_z - 1}, such as [0]"
    )


def chosen_slot(entries: Mapping[str, Any], info: Mapping[str, Any]) -> int:
  """The slot of the first scene that `slot` names, counted from 0.

  Without a name, it is that of an object, or the first of a model that does not
  decompose images.
  """
  if entries["slot"] is not None:
    return entries["slot"] - 1
  return exploration.object_slot(info) if shows_decomposition(info) else 0


def infer_from(
  entries: Mapping[str, Any], model: SceneModel, batch: Mapping[str, Any]
) -> dict[str, Any]:
  """Runs a model on the scenes from `scene` on, see `exploration.infer`."""
  first = entries["scene"] - 1
  scenes = range(first, first + len(batch["image"]))
  return exploration.infer(model, batch, entries["seed"], scenes)


def latent_factors_of(
  entries: Mapping[str, Any],
  model: SceneModel,
  dataset: IODINEDataset,
  info: Mapping[str, Any],
) -> exploration.Correlations | None:
  """Tells which factors latents follow, over the first `range_scenes` scenes.

  Args:
    entries: the whole configuration.
    model: restored model that inferred `info`.
    dataset: of the scenes.
    info: result of `exploration.infer`.

  Returns:
    See `latent_factors.measure`; None, too, where scenes have no factors or the
    model infers no slots.
  """
  if not info["data"].get("factors") or "z" not in info.get("latent", {}):
    return None
  count = entries["range_scenes"]
  first = dataset.variant(take=count, shuffle_buffer=None)
  with progress(count, "scenes", _LOG, first_compiles=True) as update:
    return latent_factors.measure(
      model, eval_batches(first), entries["seed"], update
    )


def pictures_folder(
  entries: Mapping[str, Any], dataset: IODINEDataset, command: str
) -> pathlib.Path:
  """Where a command's pictures of a dataset go."""
  root = pathlib.Path(entries["pictures_dir"]).expanduser()
  return root / dataset.name / command


def _facts(
  entries: Mapping[str, Any],
  dataset: IODINEDataset,
  model: SceneModel,
  prefix: str,
) -> list[tuple[str, str]]:
  height, width = dataset.image_dim
  return [
    ("Checkpoint", checkpoint_files.short_name(prefix)),
    ("Images", f"{height} x {width} pixels, from scene {entries['scene']} on"),
    ("Slots", str(model.num_components)),
    ("Refinement steps", str(model.num_refinements)),
    ("Size of a latent", str(model.n_z)),
    ("Seed", str(entries["seed"])),
  ]
