"""Tests of iodine.random_numbers: XLA's numbers against TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine import random_numbers
from iodine.compiling import compiled

_SEEDS = [[3, 5], [-3, 5], [2**31 - 1, -(2**31)]]
_SEED = tf.constant(_SEEDS[1])
# Logarithm, root and sine round otherwise.
_CLOSE = {"rtol": 1e-5, "atol": 2e-5}


@pytest.mark.parametrize("shape", [[], [1], [3, 5], [4, 333]])
@pytest.mark.parametrize(
  "draw", [random_numbers.uniform, random_numbers.normal]
)
def test_numbers_are_the_same_with_xla(draw, shape):
  plain = draw(shape, _SEED)
  of_xla = compiled(lambda: draw(shape, _SEED), xla=True)()
  np.testing.assert_allclose(of_xla, plain, **_CLOSE)
  assert plain.shape == of_xla.shape == tuple(shape)
  assert len(np.unique(of_xla)) > 0.99 * np.prod(shape)


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize(
  "draw",
  [
    lambda seed: random_numbers.uniform([9], seed),
    lambda seed: random_numbers.normal([9], seed),
    lambda seed: random_numbers.split(seed, 3),
    lambda seed: random_numbers.fold_in(seed, 2),
  ],
)
def test_any_seed_gives_the_same_with_xla(draw, seed):
  plain, of_xla = (compiled(draw, xla)(tf.constant(seed)) for xla in (0, 1))
  np.testing.assert_allclose(of_xla, plain, **_CLOSE)


def test_normal_latents_are_the_same_with_xla():
  mean = tf.constant(np.arange(6, dtype=np.float32).reshape(2, 3))
  draw = lambda: random_numbers.of_latent(
    tfd.Independent(tfd.Normal(mean, 2.0 + mean), 1), _SEED
  )
  np.testing.assert_allclose(compiled(draw, xla=True)(), draw(), **_CLOSE)
  other = lambda: random_numbers.of_latent(tfd.Laplace(mean, 0.1), _SEED)
  np.testing.assert_allclose(compiled(other, xla=True)(), mean, atol=2.0)
