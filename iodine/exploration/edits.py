"""Scenes of other slots than their own, or without one of them."""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from iodine.checks import check_index
from iodine.exploration.decoding import compose, render
from iodine.scene_model import Composition, DecodedSlots, SceneModel

__all__ = [
  "Collage",
  "Removal",
  "Swap",
  "collage",
  "move_slot",
  "put_slots",
  "remove_slots",
  "slot_places",
  "swap_slots",
]

_SIDE = 2.0  # of the image, in the unit of `SceneModel.place_latents`


class Removal(NamedTuple):
  """A scene without one of its slots, for every slot.

  Attributes:
    image: [H, W, C].
    whole: the scene with all slots, rendered, and its masks.
    without: the scenes without slot k, at index k of the first axis; without
      masks if the model renders none.
  """

  image: np.ndarray
  whole: Composition
  without: Composition


class Swap(NamedTuple):
  """Two scenes before and after they swap a slot; first axes of size 2.

  Attributes:
    slots: indices of the slot in the first and in the second scene.
    images: [2, H, W, C].
    before: the inferred scenes, rendered, and their masks.
    components: [2, H, W, C], the swapped slots.
    after: the scenes, each with the other's slot in place of its own; without
      masks if the model renders none.
  """

  slots: tuple[int, int]
  images: np.ndarray
  before: Composition
  components: np.ndarray
  after: Composition


class Collage(NamedTuple):
  """A scene composed of P slots of N others.

  Attributes:
    scenes: [N] indices in the batch of the scenes that slots come from.
    chosen: [P] pairs of a scene, by its index among the N, and a slot.
    images: [N, H, W, C].
    recons: [N, H, W, C].
    components: [N, K, H, W, C].
    masks: [N, K, H, W, 1].
    scene: the composed scene, of P slots; without masks if the model renders
      none.
  """

  scenes: tuple[int, ...]
  chosen: tuple[tuple[int, int], ...]
  images: np.ndarray
  recons: np.ndarray
  components: np.ndarray
  masks: np.ndarray
  scene: Composition


def remove_slots(
  info: Mapping[str, Any], b: int = 0, model: SceneModel | None = None
) -> Removal:
  """Removes each slot of a scene in turn, after the last refinement step.

  Args:
    info: result of `infer`.
    b: index of the scene in the batch.
    model: the model that made `info`, which renders the scenes where `info` has
      no mask logits to compose them by.

  Returns:
    The scenes; the other slots fill in where a slot was.

  Raises:
    ValueError: if `b` is out of range, or there are neither logits nor model.
  """
  check_index("b", b, len(info["outputs"]["pred_mask"]))
  image = info["data"]["image"][b, -1]
  num_slots = info["outputs"]["pred_mask"].shape[2]
  slots = np.arange(num_slots)
  if _has_logits(info):
    components, logits = (array[b] for array in _last_slots(info))
    removed = np.tile(logits, [num_slots, 1, 1, 1, 1])
    removed[slots, slots] = -np.inf
    return Removal(
      image, compose(components, logits), compose(components, removed)
    )
  z = info["latent"]["z"][b, -1]
  whole = _rendered(model, z[np.newaxis])
  others = np.stack([np.delete(z, k, axis=0) for k in slots])
  return Removal(
    image,
    Composition(whole.recons[0], info["outputs"]["pred_mask"][b, -1]),
    Composition(_rendered(model, others).recons),
  )


def swap_slots(
  info: Mapping[str, Any],
  first: tuple[int, int],
  second: tuple[int, int],
  model: SceneModel | None = None,
) -> Swap:
  """Swaps slots between two scenes, after the last refinement step.

  Args:
    info: result of `infer`.
    first: (b, slot), indices of a scene in the batch and of a slot in it.
    second: likewise.
    model: see `remove_slots`.

  Returns:
    The scenes.

  Raises:
    ValueError: if a scene or slot is out of range, or there are neither logits
      nor model.
  """
  masks = info["outputs"]["pred_mask"][:, -1]
  scenes, slots = zip(first, second, strict=True)
  for b, slot in (first, second):
    check_index("b", b, len(masks))
    check_index("slot", slot, masks.shape[1])
  chosen, own, other = list(scenes), ([0, 1], slots), ([1, 0], slots[::-1])

  def swapped(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[own] = array[other]
    return array

  if _has_logits(info):
    components, logits = (array[chosen] for array in _last_slots(info))
    before = compose(components, logits)
    after = compose(swapped(components), swapped(logits))
  else:
    z = info["latent"]["z"][chosen, -1]
    before = Composition(_rendered(model, z).recons, masks[chosen])
    after = Composition(_rendered(model, swapped(z)).recons)
  return Swap(
    slots=slots,
    images=info["data"]["image"][chosen, -1],
    before=before,
    components=info["outputs"]["components"][chosen, -1][own],
    after=after,
  )


def move_slot(
  model: SceneModel,
  info: Mapping[str, Any],
  slot: int,
  shifts: Sequence[tuple[float, float]],
  b: int = 0,
) -> Composition:
  """Moves a slot of a scene, after the last refinement step.

  Args:
    model: the model that made `info`, with `place_latents`, and which
      `can("compose")`.
    info: result of `infer`.
    slot: index of the slot.
    shifts: [N] pairs that are added to x and y; 2 is the image's side.
    b: index of the scene in the batch.

  Returns:
    The N scenes.

  Raises:
    ValueError: if `b` or `slot` is out of range, or latents tell no place.
  """
  z = info["latent"]["z"][:, -1]
  check_index("b", b, len(z))
  check_index("slot", slot, z.shape[1])
  places = slot_places(model, z[b, slot]) + np.asarray(shifts) / _SIDE
  moved = np.tile(z[b], [len(shifts), 1, 1])
  moved[:, slot] = put_slots(model, moved[:, slot], places)
  return render(model, moved)


def slot_places(model: SceneModel, z: np.ndarray) -> np.ndarray:
  """Tells where slots are.

  Args:
    model: the model, with `place_latents`.
    z: [..., Z], slots.

  Returns:
    [..., 2] float64, x and y as shares of the image's width and height: 0 at
    the left and at the top, 1 at the right and at the bottom.

  Raises:
    ValueError: if latents tell no place.
  """
  # Exact in float64, so that a slot that is put where it is stays the same.
  return (z[..., _place_latents(model)].astype(np.float64) + 1.0) / _SIDE


def put_slots(
  model: SceneModel, z: np.ndarray, places: np.ndarray
) -> np.ndarray:
  """Puts slots elsewhere.

  Args:
    model: the model, with `place_latents`.
    z: [..., Z], slots.
    places: [..., 2], see `slot_places`; beyond 0 and 1 is outside the image.

  Returns:
    [..., Z], slots there.

  Raises:
    ValueError: if latents tell no place.
  """
  z = z.copy()
  z[..., _place_latents(model)] = _SIDE * places - 1.0
  return z


def _place_latents(model: SceneModel) -> list[int]:
  if model.place_latents is None:
    raise ValueError(f"{type(model).__name__} has no latents of a slot's place")
  return list(model.place_latents)


def collage(
  model: SceneModel,
  info: Mapping[str, Any],
  chosen: Sequence[tuple[int, int]],
) -> Collage:
  """Composes a scene of slots of others, after the last refinement step.

  Args:
    model: the model that made `info`, and which `can("compose")`.
    info: result of `infer`.
    chosen: [P] pairs (b, slot), P at least 1; any pair may come several times.

  Returns:
    The scene and where it comes from.

  Raises:
    ValueError: if a scene or slot is out of range.
  """
  z = info["latent"]["z"][:, -1]
  for b, slot in chosen:
    check_index("b", b, len(z))
    check_index("slot", slot, z.shape[1])
  rendered = render(model, np.stack([z[place] for place in chosen])[np.newaxis])
  scenes = sorted({b for b, _ in chosen})
  outputs = info["outputs"]
  return Collage(
    scenes=tuple(scenes),
    chosen=tuple((scenes.index(b), slot) for b, slot in chosen),
    images=info["data"]["image"][scenes, -1],
    recons=outputs["recons"][scenes, -1, 0],
    components=outputs["components"][scenes, -1],
    masks=outputs["pred_mask"][scenes, -1],
    scene=Composition(*(None if x is None else x[0] for x in rendered)),
  )


def _has_logits(info: Mapping[str, Any]) -> bool:
  """Whether scenes can be composed of decoded slots."""
  return "pred_mask_logits" in info["outputs"]


def _last_slots(info: Mapping[str, Any]) -> DecodedSlots:
  """The slots of all scenes after the last refinement step."""
  outputs = info["outputs"]
  return DecodedSlots(
    outputs["components"][:, -1], outputs["pred_mask_logits"][:, -1]
  )


def _rendered(model: SceneModel | None, z: np.ndarray) -> Composition:
  if model is None:
    raise ValueError("without mask logits, a model must render the scenes")
  return render(model, z)
