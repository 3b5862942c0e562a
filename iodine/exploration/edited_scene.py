"""A scene whose slots' latents are changed, and what it then looks like."""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine.checks import check_index
from iodine.exploration.decoding import compose, decode_slots, render
from iodine.exploration.traversals import inferred_latents, possible_ranges
from iodine.scene_model import (
  Composition,
  DecodedSlots,
  SceneModel,
  shows_decomposition,
)

__all__ = ["Edited", "EditedScene"]


class Edited(NamedTuple):
  """What an edited scene looks like.

  Attributes:
    image: [H, W, C].
    before: the scene of the inferred latents.
    after: the scene of the changed latents, without masks if the model renders
      none.
    components: [K, H, W, C], the slots.
    masks: [K, H, W, 1], of the slots.
    slots_are_edited: whether components and masks are those of the changed
      latents; otherwise they are the inferred ones, as the model decodes no
      slot by itself.
    places: boxes [K, 4], presence [K] and depth [K] of the changed latents, see
      `SceneModel.places`; None if the model tells none.
  """

  image: np.ndarray
  before: Composition
  after: Composition
  components: np.ndarray
  masks: np.ndarray
  slots_are_edited: bool
  places: dict[str, np.ndarray] | None


class EditedScene:
  """A scene after the last refinement step, whose latents may be changed.

  Attributes:
    inferred: [K, Z], see `inferred_latents`.
    latents: [K, Z], initially the same; change them in place.
  """

  def __init__(self, model: SceneModel, info: Mapping[str, Any], b: int = 0):
    """Renders the scene as inferred.

    Args:
      model: the model that made `info`, and which `can("compose")`.
      info: result of `infer`.
      b: index of the scene in the batch.

    Raises:
      ValueError: if `b` is out of range, or the model renders no scenes from
        slots that it infers.
    """
    if not (possible_ranges(model, info) and shows_decomposition(info)):
      raise ValueError(
        f"{type(model).__name__} renders no scenes from slots that it infers"
      )
    inferred = inferred_latents(info)
    check_index("b", b, len(inferred))
    self.inferred = inferred[b]
    self.latents = self.inferred.copy()
    self._model = model
    self._image = info["data"]["image"][b, -1]
    outputs = info["outputs"]
    self._slots = (outputs["components"][b, -1], outputs["pred_mask"][b, -1])
    self._decoded: DecodedSlots | None = None
    if model.can("decode_slots"):
      self._decoded = decode_slots(model, self.latents)
    self._before = self._after = self._composed()
    self._rendered = self.latents.copy()  # that `_after` is of

  @property
  def changed(self) -> np.ndarray:
    """Which latents differ from the inferred ones, [K, Z] bool."""
    return self.latents != self.inferred

  def render(self) -> Edited:
    """Renders the scene; only slots that changed since are decoded again."""
    stale = (self.latents != self._rendered).any(axis=1)
    if stale.any():
      if self._decoded is not None:
        # What was returned before stays as it is.
        self._decoded = DecodedSlots(*(x.copy() for x in self._decoded))
        again = decode_slots(self._model, self.latents[stale])
        for slots, new in zip(self._decoded, again, strict=True):
          slots[stale] = new
      self._after = self._composed()
      self._rendered = self.latents.copy()
    components, masks = self._slots
    if self._decoded is not None:
      components, masks = self._decoded.components, self._after.masks
    return Edited(
      image=self._image,
      before=self._before,
      after=self._after,
      components=components,
      masks=masks,
      slots_are_edited=self._decoded is not None,
      places=self._places(),
    )

  def _composed(self) -> Composition:
    if self._decoded is not None:
      return compose(*self._decoded)
    scenes = render(self._model, self.latents[np.newaxis])
    return Composition(*(None if x is None else x[0] for x in scenes))

  def _places(self) -> dict[str, np.ndarray] | None:
    if not self._model.can("places"):
      return None
    places = self._model.places(tf.constant(self.latents[np.newaxis]))
    return {name: value[0].numpy() for name, value in places.items()}
