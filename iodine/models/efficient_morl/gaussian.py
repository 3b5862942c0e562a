"""Diagonal Gaussians of slots, by the parameters that networks give.

Dimensions: B batch, K slots, Z latent size.
"""

from __future__ import annotations

import iodine.quiet_tensorflow

from typing import NamedTuple

import tensorflow as tf

__all__ = ["Gaussian", "stddev"]

_LARGEST_RAW = 80.0  # whose exponential is finite in float32
_LEAST_VARIANCE = 1e-5


def stddev(raw: tf.Tensor) -> tf.Tensor:
  """The standard deviation, sqrt(softplus(raw) + 1e-5), of any shape.

  The logarithm is written out as in the published code, whose float32 rounding
  of small deviations differs from that of `tf.nn.softplus`.

  Args:
    raw: float32, not bounded.

  Returns:
    float32 above 0.
  """
  raw = tf.minimum(raw, _LARGEST_RAW)
  return tf.sqrt(tf.math.log(1.0 + tf.exp(raw)) + _LEAST_VARIANCE)


class Gaussian(NamedTuple):
  """A distribution of each slot's latent.

  Attributes:
    mean: [B, K, Z] float32.
    raw: [B, K, Z] float32, from which `stddev` makes the deviation.
  """

  mean: tf.Tensor
  raw: tf.Tensor

  @classmethod
  def of(cls, params: tf.Tensor) -> Gaussian:
    """Makes one of means and raw deviations side by side, [B, K, 2 * Z]."""
    return cls(*tf.split(params, 2, axis=-1))

  def sample(self, noise: tf.Tensor) -> tf.Tensor:
    """A sample, given standard normal noise, both [B, K, Z]."""
    return self.mean + stddev(self.raw) * noise

  def kl(self, prior: Gaussian | None) -> tf.Tensor:
    """The KL divergence from a prior, [B, K] nats, summed over Z.

    Args:
      prior: None: a standard normal one.
    """
    deviation = stddev(self.raw)
    difference = self.mean
    if prior is not None:
      prior_deviation = stddev(prior.raw)
      deviation /= prior_deviation
      difference = (difference - prior.mean) / prior_deviation
    ratio = tf.square(deviation)
    terms = 0.5 * (ratio + tf.square(difference) - 1.0 - tf.math.log(ratio))
    return tf.reduce_sum(terms, axis=-1)
