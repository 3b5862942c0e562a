"""Random numbers, the same with XLA and without, up to rounding.

XLA draws other floats than TensorFlow's kernels from the same seed. Here it
makes them of the generator's integers, as these kernels do.
"""

import iodine.quiet_tensorflow

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from iodine.compiling import is_for_xla

__all__ = ["fold_in", "normal", "of_latent", "split", "uniform"]

_BLOCK = 4  # numbers that the generator draws at once
_MANTISSA, _ONE = np.uint32(0x7FFFFF), np.uint32(0x3F800000)
_MIXING_KEY, _HIGH = np.uint64(0x02461E293EC8F720), np.uint64(2**32)
_LEAST = 1e-7  # of a uniform number, before its logarithm


def uniform(shape: Any, seed: tf.Tensor) -> tf.Tensor:
  """Draws float32 numbers in [0, 1), see `tf.random.stateless_uniform`.

  Args:
    shape: of the result, a tensor or a list of numbers and tensors.
    seed: [2] int32.
  """
  if not is_for_xla():
    return tf.random.stateless_uniform(shape, seed)
  count = tf.reduce_prod(tf.cast(shape, tf.int32))
  return tf.reshape(_uniform(count, seed), shape)


def normal(shape: Any, seed: tf.Tensor) -> tf.Tensor:
  """Draws standard normal float32 numbers, see `tf.random.stateless_normal`.

  Args:
    shape: of the result, a tensor or a list of numbers and tensors.
    seed: [2] int32.
  """
  if not is_for_xla():
    return tf.random.stateless_normal(shape, seed)
  count = tf.reduce_prod(tf.cast(shape, tf.int32))
  pairs = _uniform(count + -count % _BLOCK, seed)
  radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(pairs[::2], _LEAST)))
  angle = 2.0 * math.pi * pairs[1::2]
  numbers = tf.stack([radius * tf.sin(angle), radius * tf.cos(angle)], axis=1)
  return tf.reshape(tf.reshape(numbers, [-1])[:count], shape)


def of_latent(distribution: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
  """Draws a sample of a distribution.

  With XLA, only a normal one gives the same numbers as without.

  Args:
    distribution: of float32 numbers.
    seed: [2] int32.
  """
  base = distribution
  while isinstance(base, tfd.Independent):
    base = base.distribution
  if not (is_for_xla() and isinstance(base, tfd.Normal)):
    return distribution.sample(seed=seed)
  mean = base.mean()
  return mean + base.stddev() * normal(tf.shape(mean), seed)


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
  """Seeds [2] int32, so many of one; see `tfp.random.split_seed`."""
  if not is_for_xla():
    return tf.unstack(tfp.random.split_seed(seed, n=count))
  integers = tf.bitcast(_integers(2 * count, seed), tf.int32)
  return tf.unstack(tf.reshape(integers, [count, 2]))


def fold_in(seed: tf.Tensor, index: tf.Tensor | int) -> tf.Tensor:
  """A seed [2] int32 of a seed and an int32 number; see `tf.random.fold_in`."""
  if not is_for_xla():
    return tf.random.fold_in(seed, index)
  return tf.stack([tf.bitcast(_integers(1, seed)[0], tf.int32), index])


def _uniform(count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Makes numbers in [0, 1) of the last 23 bits of integers."""
  mantissa = tf.bitwise.bitwise_and(_integers(count, seed), _MANTISSA)
  # With the exponent of numbers in [1, 2).
  return tf.bitcast(tf.bitwise.bitwise_or(mantissa, _ONE), tf.float32) - 1.0


def _integers(count: tf.Tensor | int, seed: tf.Tensor) -> tf.Tensor:
  """Draws [count] uint32, as TensorFlow's kernels do.

  XLA itself takes negative seeds for others.
  """
  halves = tf.bitcast(tf.cast(seed, tf.int64), tf.uint64)
  mixed = tf.cast(_philox(4, [_MIXING_KEY], halves), tf.uint64)
  key = mixed[0] + mixed[1] * _HIGH
  counter = tf.stack([tf.zeros_like(key), mixed[2] + mixed[3] * _HIGH])
  return _philox(count, key[tf.newaxis], counter)


def _philox(count: Any, key: Any, counter: Any) -> tf.Tensor:
  """Draws [count] uint32 by a key [1] uint64 and a counter [2] uint64."""
  return tf.raw_ops.StatelessRandomUniformFullIntV2(
    shape=[count],
    key=key,
    counter=counter,
    alg=tf.random.Algorithm.PHILOX.value,
    dtype=tf.uint32,
  )
