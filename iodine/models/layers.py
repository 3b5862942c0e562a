"""Layers and initial values that the models in this folder share.

Dimensions: B batch, N elements of a set, C input size, D output size, H height,
W width.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checks

__all__ = [
  "GRU",
  "INITIAL_VALUES",
  "PositionEmbedding",
  "check_initial_values",
  "check_layers",
  "glorot_normal",
  "glorot_uniform",
  "gru_step",
  "initializers",
  "kaiming_uniform",
  "layer_norm",
  "pixel_shuffle",
  "position_grid",
]

# Keras' and PyTorch's initial values of layers.
INITIAL_VALUES = ("glorot", "pytorch")

Initializer = Callable[[Sequence[int], tf.DType], tf.Tensor]


def check_initial_values(value: Any) -> None:
  """Raises ValueError unless `initializers` knows these initial values."""
  if checks.is_number(value):
    checks.check(checks.above_zero_fault("initial_values", value))
  else:
    checks.check(checks.choice_fault("initial_values", value, INITIAL_VALUES))


def check_layers(
  name: str, values: Sequence[int], count: int, low: int = 1
) -> tuple[int, ...]:
  """Checks a list that has an entry per layer, or one for all.

  Args:
    name: the argument's name.
    values: integers.
    count: number of layers.
    low: the least allowed.

  Returns:
    An entry per layer.

  Raises:
    ValueError: for values out of range or of the wrong number.
  """
  if not isinstance(values, list | tuple) or len(values) not in (1, count):
    raise ValueError(
      f"{name}={values!r}: expected a list with an entry for each of {count} "
      "layers, or with one entry for all"
    )
  for index, value in enumerate(values):
    checks.check(checks.size_fault(f"{name}[{index}]", value, low))
  return tuple(values) if len(values) == count else (values[0],) * count


def glorot_uniform(gain: float = 1.0) -> snt.initializers.Initializer:
  """Uniform within gain * sqrt(6 / (fan_in + fan_out)), also called Xavier."""
  return snt.initializers.VarianceScaling(gain**2, "fan_avg", "uniform")


def glorot_normal(gain: float = 1.0) -> snt.initializers.Initializer:
  """Normal, of deviation gain * sqrt(2 / (fan_in + fan_out))."""
  return snt.initializers.VarianceScaling(gain**2, "fan_avg", "normal")


def kaiming_uniform() -> snt.initializers.Initializer:
  """Uniform within sqrt(6 / fan_in), for layers before a ReLU."""
  return snt.initializers.VarianceScaling(2.0, "fan_in", "uniform")


class _TorchDefault(snt.initializers.Initializer):
  """PyTorch's initial values of a layer: uniform within 1 / sqrt(fan_in).

  One instance serves one layer, which makes its weights before its bias: the
  bias has the bound of the weights.
  """

  def __init__(self) -> None:
    self._weights = snt.initializers.VarianceScaling(
      1.0 / 3.0, "fan_in", "uniform"
    )
    self._bound = 0.0

  def __call__(self, shape: Sequence[int], dtype: tf.DType) -> tf.Tensor:
    if len(shape) > 1:
      self._bound = 1.0 / math.sqrt(math.prod(shape[:-1]))
      return self._weights(shape, dtype)
    return tf.random.uniform(shape, -self._bound, self._bound, dtype)


def initializers(initial_values: str | float) -> dict[str, Any]:
  """The arguments `w_init` and `b_init` of a Sonnet layer.

  Args:
    initial_values: "glorot": Keras' defaults, Glorot uniform weights and zero
      biases; "pytorch": PyTorch's, both uniform within 1 / sqrt(fan_in); a
      number: Glorot normal weights of this gain and zero biases.

  Returns:
    Arguments for one layer; call again for the next.
  """
  check_initial_values(initial_values)
  if not isinstance(initial_values, str):
    return {"w_init": glorot_normal(initial_values)}
  if initial_values == "pytorch":
    initializer = _TorchDefault()
    return {"w_init": initializer, "b_init": initializer}
  return {"w_init": glorot_uniform()}


def layer_norm(epsilon: float, name: str) -> snt.LayerNorm:
  """Layer norm over the last axis, with gain and offset.

  Args:
    epsilon: added to the variance; 1e-3 is Keras' default, 1e-5 PyTorch's.
    name: name of the module.

  Returns:
    The layer.
  """
  return snt.LayerNorm(-1, True, True, eps=epsilon, name=name)


def pixel_shuffle(inputs: tf.Tensor, factor: int = 2) -> tf.Tensor:
  """Turns channels into pixels, `factor` times as many on each side.

  In the order of PyTorch, for a factor u:
  out[u y + i, u x + j, c] = in[y, x, u u c + u i + j]. In that of
  `tf.nn.depth_to_space`, c is the fastest.

  Args:
    inputs: [B, h, w, u * u * c].
    factor: u.

  Returns:
    [B, u * h, u * w, c].
  """
  if factor == 1:
    return inputs
  height, width, channels = inputs.shape[1:]
  channels //= factor**2
  net = tf.reshape(inputs, [-1, height, width, channels, factor, factor])
  net = tf.transpose(net, [0, 1, 4, 2, 5, 3])
  return tf.reshape(net, [-1, height * factor, width * factor, channels])


def gru_step(
  from_input: tf.Tensor, from_state: tf.Tensor, state: tf.Tensor
) -> tf.Tensor:
  """A step of a GRU as Keras (`reset_after`) and PyTorch compute it.

  z, r = sigmoid(u W + b + h U + c), n = tanh(u W + b + r * (h U + c)), each
  with its own third of the weights; h' = z * h + (1 - z) * n. `snt.GRU` is
  another function: it resets h before the product with U.

  Args:
    from_input: [..., 3 * D] float32, u W + b, of z, r and n in turn.
    from_state: [..., 3 * D] float32, h U + c, likewise.
    state: [..., D] float32, h.

  Returns:
    [..., D] float32, h'.
  """
  z_i, r_i, n_i = tf.split(from_input, 3, axis=-1)
  z_h, r_h, n_h = tf.split(from_state, 3, axis=-1)
  z, r = tf.sigmoid(z_i + z_h), tf.sigmoid(r_i + r_h)
  return z * state + (1.0 - z) * tf.tanh(n_i + r * n_h)


class GRU(snt.Module):
  """A cell of a GRU, see `gru_step`."""

  def __init__(
    self, size: int, initial_values: str = "glorot", name: str = "gru"
  ):
    """Makes a cell.

    Args:
      size: D, size of the state.
      initial_values: "glorot": input weights Glorot uniform, recurrent ones
        orthogonal, biases 0; "pytorch": all uniform within 1 / sqrt(D).
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(size=size)
    check_initial_values(initial_values)
    self._size = size
    self._initial_values = initial_values

  def __call__(self, inputs: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
    """Computes the next state.

    Args:
      inputs: [..., C] float32.
      state: [..., D] float32.

    Returns:
      [..., D] float32.
    """
    self._initialize(inputs.shape[-1])
    from_input = tf.linalg.matmul(inputs, self.w_i) + self.b_i
    from_state = tf.linalg.matmul(state, self.w_h) + self.b_h
    return gru_step(from_input, from_state, state)

  @snt.once
  def _initialize(self, input_size: int) -> None:
    size = self._size
    w_i, w_h, bias = (
      glorot_uniform(),
      snt.initializers.Orthogonal(),
      snt.initializers.Zeros(),
    )
    if self._initial_values == "pytorch":
      bound = 1.0 / math.sqrt(size)
      w_i = w_h = bias = snt.initializers.RandomUniform(-bound, bound)
    dtype = tf.float32
    # The gates' order is z, r, n, as in Keras.
    self.w_i = tf.Variable(w_i([input_size, 3 * size], dtype), name="w_i")
    self.w_h = tf.Variable(w_h([size, 3 * size], dtype), name="w_h")
    self.b_i = tf.Variable(bias([3 * size], dtype), name="b_i")
    self.b_h = tf.Variable(bias([3 * size], dtype), name="b_h")


def position_grid(height: int, width: int) -> np.ndarray:
  """Positions of pixels as Slot Attention encodes them.

  Args:
    height: H, in pixels.
    width: W, in pixels.

  Returns:
    [H, W, 4] float32: y, x, 1 - y and 1 - x, from 0 in the first to 1 in the
    last row or column.
  """
  axes = (np.linspace(0.0, 1.0, size) for size in (height, width))
  grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
  return np.concatenate([grid, 1.0 - grid], axis=-1).astype(np.float32)


class PositionEmbedding(snt.Module):
  """Adds a linear map of every pixel's position (`SoftPositionEmbed`)."""

  def __init__(
    self, initial_values: str | float = "glorot", name: str = "position"
  ):
    """Makes a module.

    Args:
      initial_values: see `initializers`.
      name: name of the module.
    """
    super().__init__(name=name)
    self._initializers = initializers(initial_values)

  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    """Adds positions to features.

    Args:
      inputs: [B, H, W, C] float32.

    Returns:
      [B, H, W, C] float32.
    """
    height, width, size = inputs.shape[1:]
    self._create_linear(size)
    return inputs + self._linear(tf.constant(position_grid(height, width)))

  @snt.once
  def _create_linear(self, size: int) -> None:
    self._linear = snt.Linear(size, **self._initializers, name="linear")
