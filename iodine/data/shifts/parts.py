"""Parts of preprocessed scenes, and what is random about them.

Dimensions: T frames, L true entities, H height and W width of the image, H' and
W' of the masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from iodine.data import preprocessing
from iodine.data.shifts.base import Scene

if TYPE_CHECKING:
  from iodine.data.scenes import StoredScenes

__all__ = [
  "Draws",
  "are_objects",
  "given",
  "masks_of_image",
  "object_pixels",
  "visibility_of",
]


class Draws:
  """Random numbers that a seed and a scene's number determine."""

  def __init__(self, seed: int, number: tf.Tensor):
    self._seed = tf.stack([tf.constant(seed, tf.int64), number])
    self._count = 0

  def uniform(
    self, shape: Any, low: float = 0.0, high: float = 1.0
  ) -> tf.Tensor:
    """Float32 numbers in [low, high)."""
    return tf.random.stateless_uniform(shape, self._next(), low, high)

  def integers(self, shape: Any, low: Any, high: Any) -> tf.Tensor:
    """Int32 numbers from low to high - 1."""
    return tf.random.stateless_uniform(
      shape, self._next(), low, high, dtype=tf.int32
    )

  def _next(self) -> tf.Tensor:
    self._count += 1
    return tf.random.fold_in(self._seed, self._count)


def are_objects(visibility: tf.Tensor, num_background: int) -> tf.Tensor:
  """[L] bool: which entities are present, and not background."""
  is_background = np.arange(visibility.shape[0]) < num_background
  return (visibility > 0.5) & ~is_background


def masks_of_image(scene: Scene, dataset: StoredScenes) -> tf.Tensor:
  """The masks [T, L, H, W, 1] at the size of the image."""
  mask = scene["mask"]
  flat = tf.reshape(mask, [-1, *mask.shape[2:]])
  size = scene["image"].shape[1:3]
  flat = preprocessing.resize(flat, size, "nearest", dataset.half_pixel_centers)
  return tf.reshape(flat, [*mask.shape[:2], *flat.shape[1:]])


def object_pixels(scene: Scene, dataset: StoredScenes) -> tf.Tensor:
  """[H, W] int32: in how many frames a pixel is an object's."""
  if "mask" not in scene:
    return tf.zeros(scene["image"].shape[1:3], tf.int32)
  masks = masks_of_image(scene, dataset)[:, dataset.num_background_entities :]
  return tf.reduce_sum(tf.cast(masks[..., 0], tf.int32), axis=[0, 1])


def given(mask: tf.Tensor, pixels: tf.Tensor, entity: Any) -> tf.Tensor:
  """Gives pixels to an entity, and takes them from all others.

  Args:
    mask: [T, L, H', W', 1] uint8 in {0, 1}.
    pixels: [T or 1, H, W, 1] bool; resized to the masks.
    entity: its number.
  """
  pixels = preprocessing.resize(
    tf.cast(pixels, tf.uint8), mask.shape[2:4], "nearest"
  )
  num_entities = mask.shape[1]
  owner = tf.reshape(
    tf.one_hot(entity, num_entities, dtype=mask.dtype), [num_entities, 1, 1, 1]
  )
  return tf.where(pixels[:, tf.newaxis] > 0, owner, mask)


def visibility_of(mask: tf.Tensor, dataset: StoredScenes) -> tf.Tensor:
  """[L] float32: 1 for the background and for what owns a pixel."""
  return preprocessing.visibility(
    {"mask": mask}, dataset.num_background_entities
  )
