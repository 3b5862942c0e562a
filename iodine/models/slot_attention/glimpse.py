"""A last look of each slot at the image.

Dimensions: B batch, K slots, D slot size, N = h * w elements of a feature map,
C their size, R size of a glimpse's content.
"""

from collections.abc import Sequence

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models import layers
from iodine.models.slot_attention.attention import SlotUpdate

__all__ = ["Glimpse"]


class Glimpse(snt.Module):
  """Each slot points at a place, and reads the features there.

  Not of the paper. Slot attention spreads over an object; its mean says little
  of the shape. A glimpse is a softmax over the elements, of a query of the slot
  times keys, and of the logarithm of the slot's weights in the last iteration,
  so that a slot looks where it attends to. The mean of the values and the mean
  place, both by these weights, join the slot, and so does its share of all
  weights, by which two slots of the same object differ: a latent of D + R + 3
  numbers.
  """

  def __init__(
    self,
    glimpse_size: int = 64,
    initial_values: str = "glorot",
    name: str = "glimpse",
  ):
    """Makes a module.

    Args:
      glimpse_size: R, size of queries, keys and values.
      initial_values: see `layers.initializers`.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(glimpse_size=glimpse_size)
    self._size = glimpse_size
    self._query, self._key, self._value = (
      snt.Linear(glimpse_size, **layers.initializers(initial_values), name=part)
      for part in ("query", "key", "value")
    )

  @property
  def num_numbers(self) -> int:
    """R + 3, what a glimpse adds to a slot."""
    return self._size + 3

  def __call__(
    self, features: tf.Tensor, grid: Sequence[int], update: SlotUpdate
  ) -> tf.Tensor:
    """Joins slots and their glimpses.

    Args:
      features: [B, N, C] float32, the set that slots were bound to.
      grid: (h, w).
      update: of the slots, by attention of one head.

    Returns:
      [B, K, D + R + 3] float32: slot, content, the logarithm of its share, and
      the row and column of the place, in [0, 1].
    """
    query = self._query(update.slots) * self._size**-0.5
    logits = tf.linalg.matmul(query, self._key(features), transpose_b=True)
    logits += tf.linalg.matrix_transpose(update.log_weights)
    weights = tf.nn.softmax(logits)  # [B, K, N]
    content = tf.linalg.matmul(weights, self._value(features))
    place = tf.linalg.matmul(weights, tf.constant(_places(*grid)))
    share = tf.nn.log_softmax(tf.reduce_logsumexp(update.log_weights, axis=1))
    return tf.concat(
      [update.slots, content, share[..., tf.newaxis], place], axis=-1
    )


def _places(height: int, width: int) -> np.ndarray:
  """[N, 2] float32, row and column of each element, in [0, 1]."""
  grid = layers.position_grid(height, width)[..., :2]
  return grid.reshape(-1, 2)
