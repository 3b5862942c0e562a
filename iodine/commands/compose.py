"""A new scene of slots of others."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine import exploration
from iodine.commands.decompose import save_image
from iodine.commands.visualize import pictures_folder
from iodine.data.datasets import IODINEDataset
from iodine.data.opening import chosen_scenes, scenes_from
from iodine.errors import ConfigError
from iodine.files import new_files
from iodine.pictures import sections
from iodine.pictures.saving import Album, forms
from iodine.runs import loading
from iodine.scene_model import SceneModel

__all__ = ["compose"]

OVERVIEW_FILE, SCENE_FILE = "composition.png", "scene.png"

_NUM_SCENES = 3  # where none are chosen

_LOG = logging.getLogger(__name__)


def compose(entries: Mapping[str, Any]) -> pathlib.Path:
  """Composes a scene of slots of others.

  Slot `slots[i]` comes from scene `scenes[i]`; a scene may come several times.
  With the same seed, the slots of a scene have the same numbers in the pictures
  of `visualize`.

  Args:
    entries: the whole configuration; `scenes` and `slots` choose.

  Returns:
    The picture of all scenes and the chosen slots, in `pictures_dir`/<the
    data's name>/compose, beside the composed scene's own.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration, or a model
      that cannot render scenes from slots.
  """
  _check_lengths(entries)
  trained = loading.open_trained(entries)
  model, dataset, _ = trained
  _check_model(entries, model)
  numbers, batch = _read(entries, dataset)
  trained.restore()
  folder = pictures_folder(entries, dataset, "compose")
  info = exploration.infer(
    model, batch, entries["seed"], [number - 1 for number in numbers]
  )
  if not sections.can_render(model, info):
    raise _cannot(model)
  collage = exploration.collage(model, info, _chosen(entries, numbers, info))
  with new_files(folder, [*forms(OVERVIEW_FILE), SCENE_FILE]) as new:
    album = Album(new, entries["pictures_format"])
    sections.composition(collage, numbers, album, OVERVIEW_FILE)
    save_image(new / SCENE_FILE, collage.scene.recons)
  _LOG.info("Wrote %s and %s", folder / OVERVIEW_FILE, folder / SCENE_FILE)
  return folder / OVERVIEW_FILE


def _check_lengths(entries: Mapping[str, Any]) -> None:
  scenes, slots = entries["scenes"], entries["slots"]
  if slots is None:
    return
  if scenes is None:
    raise ConfigError(
      f"slots={list(slots)}: needs scenes, one for each slot, such as "
      f"scenes={list(range(1, len(slots) + 1))}"
    )
  if len(slots) != len(scenes):
    raise ConfigError(
      f"slots={list(slots)}, scenes={list(scenes)}: expected as many slots as "
      "scenes"
    )


def _check_model(entries: Mapping[str, Any], model: SceneModel) -> None:
  if not model.can("compose"):
    raise _cannot(model)
  for slot in entries["slots"] or ():
    if slot > model.num_components:
      raise ConfigError(
        f"slots={list(entries['slots'])}: expected a list of integers from 1 "
        f"to {model.num_components}"
      )


def _cannot(model: SceneModel) -> ConfigError:
  return ConfigError(
    f"compose: a {type(model).__name__} cannot render scenes from slots"
  )


def _read(
  entries: Mapping[str, Any], dataset: IODINEDataset
) -> tuple[list[int], dict[str, Any]]:
  """The scenes that slots come from, each once: their numbers and a batch."""
  if entries["scenes"] is not None:
    numbers = sorted(set(entries["scenes"]))
    return numbers, chosen_scenes(dataset, numbers)
  batch = scenes_from(dataset, 1, _NUM_SCENES)
  return list(range(1, 1 + len(batch["image"]))), batch


def _chosen(
  entries: Mapping[str, Any], numbers: list[int], info: Mapping[str, Any]
) -> list[tuple[int, int]]:
  """Pairs of a scene's index in the batch and a slot, both from 0 on."""
  scenes = [numbers.index(n) for n in entries["scenes"] or numbers]
  if entries["slots"] is not None:
    slots = [slot - 1 for slot in entries["slots"]]
    return list(zip(scenes, slots, strict=True))
  objects = [(b, exploration.object_slot(info, b)) for b in scenes]
  return [*objects, (scenes[0], exploration.background_slot(info, scenes[0]))]
