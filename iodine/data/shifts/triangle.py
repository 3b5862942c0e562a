"""A shift that adds a sprite of a new shape to Multi-dSprites.

Dimensions: T frames, L true entities, H height, W width, C channels, n size of
a factor.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from iodine.data.shifts.base import Scene, Shift
from iodine.data.shifts.parts import Draws, given, masks_of_image, visibility_of

if TYPE_CHECKING:
  from iodine.data.scenes import StoredScenes

__all__ = ["ObjectShape"]

_SPRITE_FACTORS = ("color", "shape", "scale", "x", "y", "orientation")
_TRIANGLE = 4  # after square, ellipse and heart
_NUM_ORIENTATIONS = 39
_NUM_POSITIONS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectShape(Shift):
  """Adds a triangle to scenes of Multi-dSprites that have room for an object.

  In depth, it is anywhere between the background and the nearest sprite, and so
  is its place among the entities, where later ones cover earlier ones. It has
  the factors of any sprite, but for its shape, which is 4, and its colour,
  which is uniform in RGB (white in binarized scenes). Its corners are at most
  12 of 64 pixels from its centre; at orientation 0, one is right of it. A
  triangle that is covered is not visible.
  """

  name = "object_shape"
  affected_factors = ("shape",)

  def bounds(self, dataset: StoredScenes) -> tuple[int | None, int | None]:
    """See the base class."""
    if set(dataset.factors) != set(_SPRITE_FACTORS):
      raise ValueError(
        f"shift={self.name}: draws a sprite, in scenes of MultiDSprites alone"
      )
    if dataset.crop_region is not None:
      raise ValueError(
        f"shift={self.name}: draws into whole images; leave out "
        f"crop_region={dataset.crop_region}"
      )
    low, high = super().bounds(dataset)
    assert dataset.num_true_objects is not None  # as there are factors
    most = dataset.num_true_objects - dataset.num_background_entities - 1
    return low, most if high is None else min(high, most)

  def __call__(
    self, scene: Scene, number: tf.Tensor, dataset: StoredScenes
  ) -> Scene:
    """See the base class."""
    draws = Draws(self.seed, number)
    is_visible = scene["visibility"] > 0.5
    entities = tf.range(is_visible.shape[0])
    absent = tf.reduce_max(tf.where(is_visible, -1, entities))
    num_visible = tf.reduce_sum(tf.cast(is_visible, tf.int32))
    depth = draws.integers([], dataset.num_background_entities, num_visible + 1)

    sprite = self._sprite(draws, scene["factors"]["color"].shape[1])
    silhouette = _triangle(sprite, scene["image"].shape[1:3])
    is_above = (entities >= depth)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    masks = masks_of_image(scene, dataset)
    is_covered = tf.reduce_any((masks > 0) & is_above, axis=1)
    pixels = silhouette[tf.newaxis, ..., tf.newaxis] & ~is_covered
    color = sprite["color"]
    if dataset.num_channels != color.shape[0]:  # converted to gray
      color = tf.reduce_mean(color, keepdims=True)

    # As the entity `absent`, which then moves to its place.
    is_new = entities == absent
    order = tf.argsort(tf.where(is_new, 2 * depth - 1, 2 * entities))
    factors = {
      name: tf.gather(
        tf.where(is_new[:, tf.newaxis], sprite[name], values), order
      )
      for name, values in scene["factors"].items()
    }
    mask = given(scene["mask"], pixels, absent)
    mask = tf.gather(mask, order, axis=1)
    return {
      **scene,
      "image": tf.where(pixels, color, scene["image"]),
      "mask": mask,
      "visibility": visibility_of(mask, dataset),
      "factors": factors,
      "modified": tf.cast(tf.gather(is_new, order), tf.float32),
    }

  def _sprite(self, draws: Draws, num_channels: int) -> dict[str, tf.Tensor]:
    """The factors of a triangle, [n] each."""
    color = draws.integers([num_channels], 0, 256) / 255
    turn = draws.integers([1], 0, _NUM_ORIENTATIONS) / _NUM_ORIENTATIONS
    sprite = {
      "color": color if num_channels > 1 else tf.ones_like(color),
      "shape": tf.constant([_TRIANGLE]),
      "scale": 0.5 + draws.integers([1], 0, 6) / 10,
      "x": draws.integers([1], 0, _NUM_POSITIONS) / (_NUM_POSITIONS - 1),
      "y": draws.integers([1], 0, _NUM_POSITIONS) / (_NUM_POSITIONS - 1),
      "orientation": turn * (2 * math.pi / 3),
    }
    return {name: tf.cast(x, tf.float32) for name, x in sprite.items()}


def _triangle(
  sprite: Mapping[str, tf.Tensor], size: Sequence[int]
) -> tf.Tensor:
  """The pixels [H, W] of a whole triangle, bool."""
  height, width = size
  # In parts of the image, right of the centre and up from it.
  right = (tf.range(width, dtype=tf.float32) + 0.5) / width
  right -= 0.25 + 0.5 * sprite["x"]
  down = (tf.range(height, dtype=tf.float32) + 0.5) / height
  up = (0.25 + 0.5 * sprite["y"] - down)[:, tf.newaxis]
  distances = []
  for side in range(3):  # opposite of the corners
    angle = sprite["orientation"] + math.pi * (1 + 2 * side / 3)
    distances.append(tf.cos(angle) * right + tf.sin(angle) * up)
  return tf.reduce_max(distances, axis=0) < sprite["scale"] * (12 / 64) / 2
