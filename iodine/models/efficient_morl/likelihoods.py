"""Likelihoods of an image, given what slots decode to.

Constants of the normal distribution are left out, as in the published code, so
that values may be negative.

Dimensions: B batch, K slots, H height, W width, C channels.
"""

import iodine.quiet_tensorflow

from collections.abc import Callable

import tensorflow as tf

__all__ = ["LIKELIHOODS", "gaussian_nll", "mixture_nll"]


def gaussian_nll(
  image: tf.Tensor,
  components: tf.Tensor,
  log_masks: tf.Tensor,
  log_scale: float,
) -> tf.Tensor:
  """Of one Gaussian, whose mean is the mixture of the slots' pictures.

  Args:
    image: [B, H, W, C] float32 in [0, 1].
    components: [B, K, H, W, C] float32 in [0, 1].
    log_masks: [B, K, H, W, 1] float32, logarithms of masks.
    log_scale: logarithm of the standard deviation.

  Returns:
    [B] float32, the negative log-likelihood in nats, summed over the image.
  """
  recons = tf.reduce_sum(tf.exp(log_masks) * components, axis=1)
  return -_sum(_log_prob(image - recons, log_scale))


def mixture_nll(
  image: tf.Tensor,
  components: tf.Tensor,
  log_masks: tf.Tensor,
  log_scale: float,
) -> tf.Tensor:
  """Of a mixture of Gaussians for every channel of every pixel by itself.

  Args:
    image: as in `gaussian_nll`.
    components: likewise, the mixture's means.
    log_masks: likewise, the logarithms of its weights.
    log_scale: likewise.

  Returns:
    As `gaussian_nll`.
  """
  log_probs = _log_prob(image[:, tf.newaxis] - components, log_scale)
  return -_sum(tf.reduce_logsumexp(log_masks + log_probs, axis=1))


LIKELIHOODS: dict[str, Callable[..., tf.Tensor]] = {
  "gaussian": gaussian_nll,
  "mixture": mixture_nll,
}


def _log_prob(difference: tf.Tensor, log_scale: float) -> tf.Tensor:
  precision = tf.exp(tf.constant(-2.0 * log_scale))
  return -log_scale - 0.5 * precision * tf.square(difference)


def _sum(x: tf.Tensor) -> tf.Tensor:
  """Sums over pixels and channels: [B, H, W, C] to [B]."""
  return tf.reduce_sum(x, axis=[1, 2, 3])
