"""Scenes that a model makes up."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine.commands.visualize import pictures_folder
from iodine.errors import ConfigError
from iodine.files import new_files
from iodine.pictures import sections
from iodine.pictures.saving import Album, forms
from iodine.runs import loading

__all__ = ["sample"]

SAMPLES_FILE = "samples.png"

_LOG = logging.getLogger(__name__)


def sample(entries: Mapping[str, Any]) -> pathlib.Path:
  """Draws scenes of a model's prior.

  With the same seed, they are those of `visualize`.

  Args:
    entries: the whole configuration; `seed` chooses.

  Returns:
    The picture, in `pictures_dir`/<the data's name>/sample.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration, or a model
      that cannot sample scenes.
  """
  trained = loading.open_trained(entries)
  model, dataset, _ = trained
  if not model.can("sample"):
    raise ConfigError(f"sample: a {type(model).__name__} cannot sample scenes")
  trained.restore()
  folder = pictures_folder(entries, dataset, "sample")
  with new_files(folder, forms(SAMPLES_FILE)) as new:
    album = Album(new, entries["pictures_format"])
    sections.samples(model, album, SAMPLES_FILE, entries["seed"])
  _LOG.info("Wrote %s", folder / SAMPLES_FILE)
  return folder / SAMPLES_FILE
