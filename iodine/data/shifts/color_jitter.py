"""Random changes of an image's colours, as torchvision's ColorJitter makes.

Dimensions: T frames, H height, W width, C channels.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["adjust_contrast", "adjust_saturation", "jitter"]

_GRAY = (0.2989, 0.587, 0.114)  # weights of red, green and blue


def jitter(
  image: tf.Tensor, factors: tf.Tensor, hue: tf.Tensor, order: tf.Tensor
) -> tf.Tensor:
  """Changes brightness, contrast, saturation and hue, one after another.

  Args:
    image: [T, H, W, C] float32 in [0, 1]. With one channel, saturation and hue
      stay.
    factors: [3] float32 at least 0, of brightness, contrast and saturation; 1
      changes nothing.
    hue: [] float32 in [-0.5, 0.5], the turn of the hue; 0 changes nothing.
    order: [4] int32, a permutation: which of the four comes first, and so on.

  Returns:
    [T, H, W, C] float32 in [0, 1].
  """
  for i in range(4):
    image = tf.switch_case(
      order[i],
      [
        lambda image=image: tf.clip_by_value(image * factors[0], 0.0, 1.0),
        lambda image=image: adjust_contrast(image, factors[1]),
        lambda image=image: adjust_saturation(image, factors[2]),
        lambda image=image: _turn_hue(image, hue),
      ],
    )
  return image


def adjust_contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
  """Scales [T, H, W, C] about the mean gray of each frame."""
  mean = tf.reduce_mean(_gray(image), axis=[1, 2, 3], keepdims=True)
  return _blended(image, mean, factor)


def adjust_saturation(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
  """Scales [T, H, W, C] about the gray of each pixel."""
  return _blended(image, _gray(image), factor)


def _gray(image: tf.Tensor) -> tf.Tensor:
  """[T, H, W, C] to [T, H, W, 1]."""
  if image.shape[-1] != len(_GRAY):
    return image
  return tf.reduce_sum(image * tf.constant(_GRAY), axis=-1, keepdims=True)


def _turn_hue(image: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
  if image.shape[-1] != len(_GRAY):
    return tf.identity(image)
  return tf.clip_by_value(tf.image.adjust_hue(image, turn), 0.0, 1.0)


def _blended(
  image: tf.Tensor, other: tf.Tensor, factor: tf.Tensor
) -> tf.Tensor:
  return tf.clip_by_value(factor * image + (1.0 - factor) * other, 0.0, 1.0)
