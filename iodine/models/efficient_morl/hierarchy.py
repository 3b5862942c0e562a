"""Bottom-up inference of slots in layers that share their weights.

Dimensions: B batch, K slots, Z latent size, N elements of the set, F features,
L layers.
"""

import iodine.quiet_tensorflow

from collections.abc import Callable
from typing import NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine.models import layers
from iodine.models.efficient_morl.gaussian import Gaussian
from iodine.models.efficient_morl.recurrence import DualGRU

__all__ = ["Hierarchy", "Inference", "make_mlp"]

_NORM_EPSILON = 1e-5
_ATTENTION_EPSILON = 1e-8


class Inference(NamedTuple):
  """What the layers infer.

  Attributes:
    posteriors: [B, K, 2 * Z] float32, means and raw deviations side by side:
      the learned initial ones, then those of every layer, from the lowest on.
    attention: [B, N, K] float32 of every layer, the softmax over slots and
      1e-8.
  """

  posteriors: list[tf.Tensor]
  attention: list[tf.Tensor]


class Hierarchy(snt.Module):
  """The layers of the hierarchical VAE, up to the last one's posterior."""

  def __init__(
    self,
    num_layers: int,
    n_z: int,
    dual_gru: bool,
    init_gain: float,
    name: str = "hierarchy",
  ):
    """Makes a hierarchy without variables.

    Args:
      num_layers: L, may be 0.
      n_z: Z.
      dual_gru: whether means and deviations have a GRU each, or one together.
      init_gain: gain of the Glorot normal initial weights.
      name: name of the module.
    """
    super().__init__(name=name)
    self._num_layers = num_layers
    self._size = n_z

    def projection(name: str) -> snt.Linear:
      values = layers.initializers(init_gain)
      return snt.Linear(n_z, with_bias=False, **values, name=name)

    self._project_q = projection("project_q")
    self._project_k = projection("project_k")
    self._project_v = projection("project_v")
    self._norm_slots = layers.layer_norm(_NORM_EPSILON, "norm_slots")
    self._project_update = None
    if dual_gru:
      self._gru: snt.Module = DualGRU(n_z)
    else:
      self._project_update = snt.Linear(
        2 * n_z, **layers.initializers(init_gain), name="project_update"
      )
      self._gru = layers.GRU(2 * n_z, "pytorch")
    self._norms = [
      layers.layer_norm(_NORM_EPSILON, f"norm_{part}")
      for part in ("mean", "raw")
    ]
    self._mlps = [
      make_mlp((2 * n_z, n_z), tf.nn.relu, init_gain, f"mlp_{part}")
      for part in ("mean", "raw")
    ]

  def __call__(self, features: tf.Tensor, noise: tf.Tensor) -> Inference:
    """Infers the posteriors of all layers.

    Args:
      features: [B, N, F] float32.
      noise: [L or more, B, K, Z] float32, standard normal: of a sample of the
        initial posterior, then of those of all layers but the last.

    Returns:
      The posteriors of the layers.
    """
    batch, slots = tf.shape(noise)[1], noise.shape[2]
    self._create_initial()
    posterior = tf.tile(self.initial_posterior[tf.newaxis], [batch, slots, 1])
    inference = Inference([posterior], [])
    keys_and_values = self.keys_and_values(features)
    for layer in range(self._num_layers):
      z = Gaussian.of(posterior).sample(noise[layer])
      attention, posterior = self.layer(posterior, z, *keys_and_values)
      inference.posteriors.append(posterior)
      inference.attention.append(attention)
    return inference

  def keys_and_values(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Keys and values [B, N, Z] of features [B, N, F]."""
    return self._project_k(features), self._project_v(features)

  def layer(
    self,
    posterior: tf.Tensor,
    z: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Infers the posterior of one layer.

    Args:
      posterior: [B, K, 2 * Z] float32, of the layer below.
      z: [B, K, Z] float32, a sample of it.
      keys: [B, N, Z] float32.
      values: [B, N, Z] float32.

    Returns:
      Attention [B, N, K] and posterior [B, K, 2 * Z].
    """
    queries = self._project_q(self._norm_slots(z)) * self._size**-0.5
    logits = tf.linalg.matmul(keys, queries, transpose_b=True)
    attention = tf.nn.softmax(logits) + _ATTENTION_EPSILON
    weights = attention / tf.reduce_sum(attention, axis=1, keepdims=True)
    update = tf.linalg.matmul(weights, values, transpose_a=True)
    if self._project_update is None:
      inputs = tf.concat([update, update], axis=-1)
    else:
      inputs = self._project_update(update)
    parts = tf.split(self._gru(inputs, posterior), 2, axis=-1)
    parts = [
      part + mlp(norm(part))
      for part, norm, mlp in zip(parts, self._norms, self._mlps, strict=True)
    ]
    return attention, tf.concat(parts, axis=-1)

  @snt.once
  def _create_initial(self) -> None:
    value = tf.concat([tf.zeros([1, self._size]), tf.ones([1, self._size])], 1)
    self.initial_posterior = tf.Variable(value, name="initial_posterior")


def make_mlp(
  sizes: tuple[int, int],
  activation: Callable[[tf.Tensor], tf.Tensor],
  init_gain: float,
  name: str,
) -> snt.Sequential:
  """Two linear layers, NAME_0 and NAME_1, with an activation in between."""
  first, second = (
    snt.Linear(size, **layers.initializers(init_gain), name=f"{name}_{i}")
    for i, size in enumerate(sizes)
  )
  return snt.Sequential([first, activation, second], name=name)
