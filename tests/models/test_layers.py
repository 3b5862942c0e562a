import math
import re

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from iodine.models import layers
from tests.support.module_checks import call, check_gradients, perturb

MODES = ("eager", "compiled")


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("mode", MODES)
class TestGRU:
  def test_equations(self, mode):
    rng = np.random.default_rng(1)
    x, h = rng.normal(size=[7, 3, 5]), rng.normal(size=[7, 3, 4])
    x, h = x.astype(np.float32), h.astype(np.float32)
    gru = layers.GRU(4)
    gru(x, h)
    perturb(gru)
    w_i, w_h, b_i, b_h = (
      np.split(v.numpy(), 3, axis=-1)
      for v in (gru.w_i, gru.w_h, gru.b_i, gru.b_h)
    )
    z, r = (
      sigmoid(x @ w_i[i] + b_i[i] + h @ w_h[i] + b_h[i]) for i in range(2)
    )
    n = np.tanh(x @ w_i[2] + b_i[2] + r * (h @ w_h[2] + b_h[2]))
    expected = z * h + (1 - z) * n
    np.testing.assert_allclose(call(mode, gru, x, h), expected, atol=1e-6)

  def test_gradients(self, mode):
    x, h = tf.ones([2, 5]), tf.fill([2, 4], 0.5)
    gru = layers.GRU(4)
    gru(x, h)
    check_gradients(mode, gru, gru, x, h)


def test_gru_is_not_sonnets():
  x, h = tf.ones([2, 5]), tf.fill([2, 4], 0.5)
  gru, other = layers.GRU(4), snt.GRU(4)
  gru(x, h), other(x, h)
  assert {v.shape.rank for v in gru.variables} == {1, 2}
  assert len(gru.variables) != len(other.variables)


def test_initial_gru_is_orthogonal():
  gru = layers.GRU(4)
  gru(tf.ones([1, 5]), tf.ones([1, 4]))
  product = gru.w_h.numpy() @ gru.w_h.numpy().T
  np.testing.assert_allclose(product, np.eye(4), atol=1e-5)
  assert not np.any(gru.b_i) and not np.any(gru.b_h)
  assert np.abs(gru.w_i).max() <= math.sqrt(6 / (5 + 12))


def test_initial_gru_of_pytorch():
  gru = layers.GRU(4, "pytorch")
  gru(tf.ones([1, 5]), tf.ones([1, 4]))
  for variable in gru.variables:
    assert 0.25 < np.abs(variable).max() <= 0.5  # 1 / sqrt(4)


@pytest.mark.parametrize(
  "layer, inputs, fan_in",
  [
    (lambda **kw: snt.Linear(40, **kw), [1, 9], 9),
    (lambda **kw: snt.Conv2D(40, 3, **kw), [1, 5, 5, 4], 36),
    # PyTorch's weights are [in, out, ...] here, and it takes `out` for `in`.
    (lambda **kw: snt.Conv2DTranspose(40, 3, **kw), [1, 5, 5, 4], 360),
  ],
)
def test_initial_values_of_pytorch(layer, inputs, fan_in):
  layer = layer(**layers.initializers("pytorch"))
  layer(tf.ones(inputs))
  for variable in layer.variables:
    largest = np.abs(variable).max() * math.sqrt(fan_in)
    assert 0.85 < largest <= 1, variable.name


def test_initial_values_of_keras():
  layer = snt.Linear(40, **layers.initializers("glorot"))
  layer(tf.ones([1, 9]))
  assert 0.85 < np.abs(layer.w).max() / math.sqrt(6 / 49) <= 1
  assert not np.any(layer.b)


@pytest.mark.parametrize(
  "layer, inputs, fans",
  [
    (snt.Linear(400), tf.ones([1, 9]), 409),
    (snt.Conv2D(40, 3), tf.ones([1, 4, 4, 5]), 9 * 45),
  ],
)
def test_initial_values_of_a_gain(layer, inputs, fans):
  tf.random.set_seed(0)
  layer.w_init = layers.initializers(0.5)["w_init"]
  layer(inputs)
  assert abs(np.std(layer.w) / (0.5 * math.sqrt(2 / fans)) - 1) < 0.1
  assert np.abs(layer.w).max() > 3 * np.std(layer.w)  # not uniform, not cut
  assert not np.any(layer.b)


def test_kaiming():
  values = layers.kaiming_uniform()([9, 400], tf.float32)
  assert 0.95 < np.abs(values).max() / math.sqrt(6 / 9) <= 1


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_in_the_order_of_pytorch(factor):
  u = factor
  shape = [2, 3, 5, 2 * u * u]
  x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
  out = layers.pixel_shuffle(tf.constant(x), u).numpy()
  assert out.shape == (2, 3 * u, 5 * u, 2)
  for y, x_, i, j, c in np.ndindex(3, 5, u, u, 2):
    np.testing.assert_array_equal(
      out[:, u * y + i, u * x_ + j, c], x[:, y, x_, u * u * c + u * i + j]
    )


def test_position_grid():
  grid = layers.position_grid(3, 5)
  assert grid.shape == (3, 5, 4)
  np.testing.assert_allclose(grid[1, 4], [0.5, 1.0, 0.5, 0.0])
  np.testing.assert_allclose(grid[2, 1], [1.0, 0.25, 0.0, 0.75])


def test_position_embedding_is_linear_in_the_grid():
  module = layers.PositionEmbedding()
  features = np.random.default_rng(0).normal(size=[2, 3, 5, 7])
  features = features.astype(np.float32)
  module(features)
  perturb(module)
  variables = {v.name.split("/")[-1][0]: v.numpy() for v in module.variables}
  added = layers.position_grid(3, 5) @ variables["w"] + variables["b"]
  np.testing.assert_allclose(module(features), features + added, atol=1e-5)


@pytest.mark.parametrize(
  "values, count, expected",
  [([3], 2, (3, 3)), ((3, 4), 2, (3, 4)), ([5], 1, (5,))],
)
def test_check_layers(values, count, expected):
  assert layers.check_layers("sizes", values, count) == expected


@pytest.mark.parametrize(
  "values, message",
  [
    ([1, 2], "sizes=[1, 2]: expected a list with an entry for each of 3"),
    ([], "sizes=[]: expected a list"),
    (4, "sizes=4: expected a list"),
    ([1, 0, 2], "sizes[1]=0: expected an integer of at least 1"),
  ],
)
def test_check_layers_errors(values, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    layers.check_layers("sizes", values, 3)


def test_check_layers_may_allow_zero():
  assert layers.check_layers("paddings", [0], 2, low=0) == (0, 0)
  with pytest.raises(ValueError, match=r"paddings\[0\]=-1"):
    layers.check_layers("paddings", [-1], 2, low=0)


@pytest.mark.parametrize(
  "value, message",
  [
    ("torch", "'torch': no such value.*'pytorch'"),
    (0.0, "initial_values=0.0: expected a number above 0"),
  ],
)
def test_unknown_initial_values(value, message):
  with pytest.raises(ValueError, match=message):
    layers.initializers(value)
