"""Refines a posterior by the gradient of the loss with respect to it.

Dimensions: B batch, K slots, Z latent size.
"""

import iodine.quiet_tensorflow

from typing import NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine.models import layers
from iodine.models.efficient_morl.hierarchy import make_mlp

__all__ = ["Refinement", "RefinementNetwork"]

_HIDDEN_SIZE = 128
_NORM_EPSILON = 1e-5


class Refinement(NamedTuple):
  """One step of refinement.

  Attributes:
    gradient: [B, K, 2 * Z] float32, of the loss before the step, with respect
      to the posterior.
    normed: [B, K, 2 * Z], the same after the layer norms; a constant.
    hidden: [B, K, Z], state of the recurrence.
    delta: [B, K, 2 * Z], what is added to the posterior.
  """

  gradient: tf.Tensor
  normed: tf.Tensor
  hidden: tf.Tensor
  delta: tf.Tensor


class RefinementNetwork(snt.Module):
  """An MLP, a GRU, and linear maps to what is added to a posterior."""

  def __init__(self, n_z: int, init_gain: float, name: str = "refinement"):
    """Makes a network without variables.

    Args:
      n_z: Z.
      init_gain: gain of the Glorot normal initial weights.
      name: name of the module.
    """
    super().__init__(name=name)
    self._mlp = make_mlp((_HIDDEN_SIZE, n_z), tf.nn.elu, init_gain, "mlp")
    self._gru = layers.GRU(n_z, "pytorch")
    self._norm = snt.LayerNorm(-1, False, False, eps=_NORM_EPSILON)
    self._outputs = [
      snt.Linear(n_z, **layers.initializers(init_gain), name=name)
      for name in ("mean", "raw")
    ]

  def __call__(
    self, posterior: tf.Tensor, gradient: tf.Tensor, hidden: tf.Tensor
  ) -> Refinement:
    """Computes a step; no gradient flows through the given one.

    Args:
      posterior: [B, K, 2 * Z] float32, means and raw deviations side by side.
      gradient: [B, K, 2 * Z] float32, of a loss in nats.
      hidden: [B, K, Z] float32, state after the step before, first 0.

    Returns:
      The step.
    """
    normed = tf.stop_gradient(
      tf.concat(list(map(self._norm, tf.split(gradient, 2, axis=-1))), -1)
    )
    hidden = self._gru(self._mlp(tf.concat([posterior, normed], -1)), hidden)
    delta = tf.concat([output(hidden) for output in self._outputs], axis=-1)
    return Refinement(gradient, normed, hidden, delta)
