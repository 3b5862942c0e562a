"""Draws objects on a background.

Dimensions: B batch, K objects, A size of an appearance, h side of a glimpse, H
height, W width, C channels.
"""

import iodine.quiet_tensorflow

from typing import NamedTuple

import tensorflow as tf

from iodine.models.gnm.spatial_transformer import place

__all__ = [
  "Covering",
  "Objects",
  "Rendered",
  "components",
  "masks_of",
  "render",
  "shares",
]

_EPSILON = 1e-15
_MOST_PRESENCE = 0.99  # in the curriculum


class Objects(NamedTuple):
  """What is drawn.

  Attributes:
    presence: [B, K, 1] float32 in [0, 1].
    where: [B, K, 4] float32, see `place`.
    depth: [B, K, 1] float32, small ones in front.
    what: [B, K, A] float32.
  """

  presence: tf.Tensor
  where: tf.Tensor
  depth: tf.Tensor
  what: tf.Tensor


class Covering(NamedTuple):
  """Objects that cover the same share of every pixel.

  Attributes:
    holds: [] bool, whether they do.
    alpha: the share, in [0, 1).
  """

  holds: tf.Tensor
  alpha: float


class Rendered(NamedTuple):
  """Scenes and what they consist of.

  Attributes:
    placed: [B, K, H, W, C] float32, each object's colours times its mask.
    masks: [B, K, H, W, 1] in [0, 1], alpha times presence, without regard to
      other objects; None where objects cannot overlap.
    importances: [B, K, H, W, 1], masks times what is due to depth; None
      likewise.
    foreground: [B, H, W, C], all objects.
    alpha: [B, H, W, 1] in [0, 1], what objects cover of the background; None
      likewise.
    image: [B, H, W, C], in [0, 1] but for rounding, unless objects cannot
      overlap.
  """

  placed: tf.Tensor
  masks: tf.Tensor | None
  importances: tf.Tensor | None
  foreground: tf.Tensor
  alpha: tf.Tensor | None
  image: tf.Tensor


def render(
  objects: Objects,
  glimpses: tf.Tensor,
  background: tf.Tensor | None,
  image_size: tuple[int, int],
  overlap: bool = True,
  covering: Covering | None = None,
) -> Rendered:
  """Draws scenes.

  Args:
    objects: the objects.
    glimpses: [B, K, h, h, C + 1] float32, their colours and alpha or, if they
      cannot overlap, [B, K, h, h, C], their colours.
    background: [B, H, W, C] float32; None: black.
    image_size: (H, W).
    overlap: whether objects may overlap. Otherwise, they just add up, and
      depth and background count for nothing.
    covering: what objects cover instead of their own alphas; None: nothing.

  Returns:
    The scenes.
  """
  presence = objects.presence[..., tf.newaxis, tf.newaxis]
  if not overlap:
    placed = place(glimpses * presence, objects.where, image_size)
    image = tf.reduce_sum(placed, axis=1)
    return Rendered(placed, None, None, image, None, image)
  if covering is not None:
    presence = tf.where(
      covering.holds, tf.minimum(presence, _MOST_PRESENCE), presence
    )
  colors, alphas = tf.split(glimpses, [glimpses.shape[-1] - 1, 1], axis=-1)
  alphas *= presence
  both = place(
    tf.concat([alphas * colors, alphas], axis=-1), objects.where, image_size
  )
  placed, masks = tf.split(both, [both.shape[-1] - 1, 1], axis=-1)
  depth = objects.depth[..., tf.newaxis, tf.newaxis]
  importances = masks * tf.sigmoid(-depth)
  # Colours are weighted by alpha already, so that where transparent objects
  # overlap, this is too dark: as published.
  foreground = tf.reduce_sum(_weights(importances) * placed, axis=1)
  total = tf.reduce_sum(masks, axis=1)
  clipped = tf.clip_by_value(total, _EPSILON, 1.0 - _EPSILON)
  alpha = total + tf.stop_gradient(clipped - total)
  if covering is not None:
    alpha = tf.where(covering.holds, covering.alpha, alpha)
  image = foreground
  if background is not None:
    image += (1.0 - alpha) * background
  return Rendered(placed, masks, importances, foreground, alpha, image)


def _weights(importances: tf.Tensor) -> tf.Tensor:
  """Each object's share of the objects at a pixel, [B, K, H, W, 1]."""
  total = tf.reduce_sum(importances, axis=1, keepdims=True)
  return importances / (total + _EPSILON)


def masks_of(rendered: Rendered) -> tf.Tensor:
  """Masks as the published evaluation has them; needs alphas.

  Depth plays no part in them, and where objects overlap, the background's may
  be negative.

  Args:
    rendered: B scenes.

  Returns:
    [B, K + 1, H, W, 1] float32, the background last.
  """
  rest = 1.0 - tf.reduce_sum(rendered.masks, axis=1, keepdims=True)
  return tf.concat([rendered.masks, rest], axis=1)


def shares(rendered: Rendered) -> tf.Tensor:
  """What every object, and last of all the rest, has of a pixel.

  Args:
    rendered: B scenes.

  Returns:
    [B, K + 1, H, W, 1] float32 in [0, 1], summing to 1. Without alphas, an
    object's share is that of its light, and the rest has black pixels alone.
  """
  if rendered.alpha is None:
    light = tf.reduce_sum(rendered.placed, axis=-1, keepdims=True)
    parts = _weights(light)
  else:
    parts = _weights(rendered.importances) * rendered.alpha[:, tf.newaxis]
  rest = 1.0 - tf.reduce_sum(parts, axis=1, keepdims=True)
  return tf.concat([parts, tf.clip_by_value(rest, 0.0, 1.0)], axis=1)


def components(rendered: Rendered) -> tf.Tensor:
  """Objects where they are alone and opaque, [B, K, H, W, C] in [0, 1]."""
  if rendered.masks is None:
    return tf.clip_by_value(rendered.placed, 0.0, 1.0)
  return tf.clip_by_value(
    rendered.placed / (rendered.masks + _EPSILON), 0.0, 1.0
  )
