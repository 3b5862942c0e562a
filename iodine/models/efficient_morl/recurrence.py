"""Recurrent updates of slots' means and raw deviations.

Dimensions: D size of the state of each, twice that of both together.
"""

import iodine.quiet_tensorflow

import sonnet as snt
import tensorflow as tf

from iodine.models import layers

__all__ = ["DualGRU"]


class DualGRU(snt.Module):
  """Two GRUs that share nothing: one of the means, one of the deviations.

  Weights and biases are packed as in the published code: `w_ih_1` [D, 2 * D]
  are those of the first GRU's reset and update gates, `w_in_1` [D, D] those of
  its new state, `w_hh_1` and `w_hn_1` the recurrent ones; `b_ih` and `b_hh`
  [4 * D] are of the first GRU's reset and update gates, then of the second's,
  `b_in` and `b_hn` [2 * D] of both new states.
  """

  def __init__(self, size: int, name: str = "dual_gru"):
    """Makes a cell, with standard normal weights and biases as published.

    Args:
      size: D.
      name: name of the module.
    """
    super().__init__(name=name)
    self._size = size

  def __call__(self, inputs: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
    """Computes the next state.

    Args:
      inputs: [..., 2 * D] float32, the first GRU's input and the second's.
      state: [..., 2 * D] float32, the first GRU's state and the second's.

    Returns:
      [..., 2 * D] float32.
    """
    self._initialize()
    from_input = self._gates(
      inputs, (self.w_ih_1, self.w_ih_2), (self.w_in_1, self.w_in_2),
      self.b_ih, self.b_in,
    )  # fmt: skip
    from_state = self._gates(
      state, (self.w_hh_1, self.w_hh_2), (self.w_hn_1, self.w_hn_2),
      self.b_hh, self.b_hn,
    )  # fmt: skip
    states = tf.split(state, 2, axis=-1)
    return tf.concat(
      list(map(layers.gru_step, from_input, from_state, states)), axis=-1
    )

  def _gates(
    self,
    x: tf.Tensor,
    of_gates: tuple[tf.Variable, tf.Variable],
    of_new: tuple[tf.Variable, tf.Variable],
    bias_of_gates: tf.Variable,
    bias_of_new: tf.Variable,
  ) -> list[tf.Tensor]:
    """What each GRU makes of its half of x, as `layers.gru_step` takes it."""
    halves = tf.split(x, 2, axis=-1)
    reset_update = tf.split(bias_of_gates, 2)
    new = tf.split(bias_of_new, 2)
    results = []
    for i in range(2):
      reset, update = tf.split(of_gates[i], 2, axis=-1)
      weights = tf.concat([update, reset, of_new[i]], axis=-1)
      reset, update = tf.split(reset_update[i], 2)
      bias = tf.concat([update, reset, new[i]], axis=0)
      results.append(tf.linalg.matmul(halves[i], weights) + bias)
    return results

  @snt.once
  def _initialize(self) -> None:
    size = self._size
    make = lambda name, *shape: tf.Variable(tf.random.normal(shape), name=name)
    self.w_ih_1 = make("w_ih_1", size, 2 * size)
    self.w_ih_2 = make("w_ih_2", size, 2 * size)
    self.w_hh_1 = make("w_hh_1", size, 2 * size)
    self.w_hh_2 = make("w_hh_2", size, 2 * size)
    self.w_in_1 = make("w_in_1", size, size)
    self.w_in_2 = make("w_in_2", size, size)
    self.w_hn_1 = make("w_hn_1", size, size)
    self.w_hn_2 = make("w_hn_2", size, size)
    self.b_ih = make("b_ih", 4 * size)
    self.b_hh = make("b_hh", 4 * size)
    self.b_in = make("b_in", 2 * size)
    self.b_hn = make("b_hn", 2 * size)
