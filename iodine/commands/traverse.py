"""What the latents of a slot do."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine import exploration
from iodine.commands.visualize import (
  check_choices,
  chosen_slot,
  pictures_folder,
)
from iodine.data.opening import scenes_from
from iodine.errors import ConfigError
from iodine.files import new_files
from iodine.pictures import sections
from iodine.runs import loading

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
  info = exploration.infer(model, batch, entries["seed"])
  if not sections.can_traverse(model, info):
    raise ConfigError(
      f"traverse: a {type(model).__name__} has no latents with a prior, "
      "decoded slot by slot"
    )
  slot = chosen_slot(entries, info)
  name = f"scene_{entries['scene']}_slot_{slot + 1}"
  with new_files(folder, [f"{name}.gif", f"{name}.png"]) as new:
    sections.traversal(model, info, new, name, slot, entries["latents"])
  path = folder / f"{name}.png"
  _LOG.info("Wrote %s and %s", path, path.with_suffix(".gif"))
  return path
