"""Seeds and noise of models.

Dimensions: n draws, B batch, K slots, D size of a slot, H height, W width, C
channels.
"""

import iodine.quiet_tensorflow

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from iodine import checks, random_numbers

__all__ = ["slot_noise", "split_seed"]


def split_seed(seed: tf.Tensor | None, count: int) -> list[tf.Tensor]:
  """Seeds [2] int32 for `count` purposes; None: not repeatable."""
  seed = tfp.random.sanitize_seed(seed)
  return random_numbers.split(seed, count)


def slot_noise(
  image: tf.Tensor,
  num_slots: int,
  size: int,
  noise: Any,
  seed: tf.Tensor | None,
  num_draws: int = 1,
) -> tf.Tensor:
  """The noise of slots: what is given, or drawn.

  Args:
    image: [B, H, W, C].
    num_slots: K.
    size: D.
    noise: [n, B, K, D] float32, standard normal; None: drawn.
    seed: [2] int32 seed of the draw; None: not repeatable.
    num_draws: n.

  Returns:
    [n, B, K, D] float32.

  Raises:
    ValueError: for noise of another shape.
  """
  if noise is None:
    shape = [num_draws, tf.shape(image)[0], num_slots, size]
    return random_numbers.normal(shape, tfp.random.sanitize_seed(seed))
  noise = tf.convert_to_tensor(noise, tf.float32)
  expected = f"{num_draws} B {num_slots} {size}"
  checks.check_shapes({"image": (image, "B _ _ _"), "noise": (noise, expected)})
  return noise
