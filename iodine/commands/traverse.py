"""What the latents of a slot do."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine.commands.visualize import (
  check_choices,
  chosen_slot,
  infer_from,
  pictures_folder,
)
from iodine.data.opening import scenes_from
from iodine.errors import ConfigError
from iodine.files import new_files
from iodine.pictures import sections
from iodine.runs import loading
from iodine.scene_model import SceneModel

__all__ = ["traverse"]

_LOG = logging.getLogger(__name__)


def traverse(entries: Mapping[str, Any]) -> pathlib.Path:
  """Draws what latents of a slot do, as a picture and as an animation.

  Args:
    entries: the whole configuration; `scene`, `slot` and `latents` choose.

  Returns:
    The picture, in `pictures_dir`/<the data's name>/traverse, beside the
    animation.

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
  if not sections.can_traverse(model, info):
    raise ConfigError(
      f"traverse: a {type(model).__name__} has {_missing(model, info)}"
    )
  slot = chosen_slot(entries, info)
  name = f"scene_{entries['scene']}_slot_{slot + 1}"
  with new_files(folder, [f"{name}.gif", f"{name}.png"]) as new:
    sections.traversal(model, info, new, name, slot, entries["latents"])
  path = folder / f"{name}.png"
  _LOG.info("Wrote %s and %s", path, path.with_suffix(".gif"))
  return path


def _missing(model: SceneModel, info: Mapping[str, Any]) -> str:
  """What a model would need for its latents to be varied."""
  missing = []
  if "z_mean" not in info.get("latent", {}):
    missing.append("no posterior")
  if model.prior is None:
    missing.append("no prior")
  if not model.can("decode_slots"):
    missing.append("no decoder of single slots")
  *others, last = missing
  return " and ".join(filter(None, [", ".join(others), last]))
