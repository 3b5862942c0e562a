"""Stacks of 2D convolutions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine.modules import utils

__all__ = ["BroadcastConv2D", "ConvNet2D"]


class ConvNet2D(snt.Module):
  """A stack of 2D convolutions with SAME padding, plain or transposed.

  The counterpart of Sonnet 1's `snt.nets.ConvNet2D` and `ConvNet2DTranspose`.
  """

  def __init__(
    self,
    output_channels: Sequence[int | None],
    kernel_shapes: Sequence[Any],
    strides: Sequence[Any],
    rates: Sequence[Any] = (1,),
    activation: Any = "relu",
    activate_final: bool = False,
    use_bias: bool | Sequence[bool] = True,
    transpose: bool = False,
    first_layer: Callable[..., snt.Module] | None = None,
    name: str | None = None,
  ):
    """Constructor.

    Args:
      output_channels: one entry per layer; the last may be None, and is then
        given with the first call.
      kernel_shapes: one entry (an integer or a pair) per layer, or one for all.
      strides: likewise.
      rates: dilations, likewise.
      activation: between the layers, name or function.
      activate_final: whether it follows the last layer too.
      use_bias: one boolean for all layers, or one per layer.
      transpose: whether the convolutions are transposed.
      first_layer: constructor of the first layer, with the parameters of
        `snt.Conv2D`; it gets the inputs as they are.
      name: of the module; default: Sonnet 1's.

    Raises:
      ValueError: for lists of unequal lengths or values that are not positive.
    """
    suffix = "_transpose" if transpose else ""
    super().__init__(name=name or f"conv_net_2d{suffix}")
    self._layer_name = f"conv_2d{suffix}"
    if not isinstance(output_channels, list | tuple):
      raise ValueError(f"output_channels={output_channels!r}: must be a list")
    self._output_channels = tuple(output_channels)
    count = len(self._output_channels)
    if not count:
      raise ValueError("output_channels must not be empty")
    for i, channels in enumerate(self._output_channels):
      if channels is not None or i < count - 1:
        utils.check_positive_int(f"output_channels[{i}]", channels)
    self._kernel_shapes = _per_layer("kernel_shapes", kernel_shapes, count)
    self._strides = _per_layer("strides", strides, count)
    self._rates = _per_layer("rates", rates, count)
    biases = [use_bias] if isinstance(use_bias, bool) else use_bias
    if not isinstance(biases, list | tuple) or len(biases) not in (1, count):
      raise ValueError(
        f"use_bias={use_bias!r}: must be a boolean, or 1 or {count} of them"
      )
    self._use_bias = tuple(biases) * (count // len(biases))
    self._activation = utils.get_act_func(activation)
    self._activate_final = activate_final
    self._transpose = transpose
    self._first_layer = first_layer

  @property
  def stride(self) -> tuple[int, int]:
    """Product of all layers' strides along H and W."""
    pairs = [_pair(s) for s in self._strides]
    return math.prod(p[0] for p in pairs), math.prod(p[1] for p in pairs)

  def __call__(
    self, inputs: Any, output_channels: int | None = None
  ) -> tf.Tensor:
    """Connects the module.

    Args:
      inputs: [B, H, W, C] float32, or what the constructor's first_layer takes.
      output_channels: of the last layer, needed where the constructor got None.

    Returns:
      [B, H', W', C'] float32.

    Raises:
      ValueError: if the last layer's channels are unknown or contradict.
    """
    self._create_layers(output_channels)
    if output_channels not in (None, self._last_channels):
      raise ValueError(
        f"output_channels={output_channels}: the last convolution has "
        f"{self._last_channels}"
      )
    net = inputs
    for i, layer in enumerate(self._layers):
      net = layer(net)
      if i < len(self._layers) - 1 or self._activate_final:
        net = self._activation(net)
    return net

  @snt.once
  def _create_layers(self, output_channels: int | None) -> None:
    last = self._output_channels[-1] or output_channels
    if last is None:
      raise ValueError(
        "output_channels ends in None: the first call must say how many"
      )
    self._last_channels = last
    usual = snt.Conv2DTranspose if self._transpose else snt.Conv2D
    self._layers = []
    for i, channels in enumerate((*self._output_channels[:-1], last)):
      constructor = usual if i else self._first_layer or usual
      self._layers.append(
        constructor(
          channels,
          self._kernel_shapes[i],
          stride=self._strides[i],
          rate=self._rates[i],
          padding="SAME",
          with_bias=self._use_bias[i],
          name=f"{self._layer_name}_{i}",
        )
      )


def _per_layer(name: str, values: Sequence[Any], count: int) -> tuple:
  """Checks positive integers or pairs, one per layer or one for all."""
  if not isinstance(values, list | tuple):
    raise ValueError(f"{name}={values!r}: must be a list")
  if len(values) not in (1, count):
    raise ValueError(
      f"{name}={list(values)!r}: needs 1 or {count} entries, one per layer of "
      f"output_channels"
    )
  for value in values:
    if len(_pair(value)) != 2:
      raise ValueError(f"{name}={value!r}: must be an integer or a pair")
    for side in _pair(value):
      utils.check_positive_int(name, side)
  values = tuple(tuple(v) if isinstance(v, list) else v for v in values)
  return values * count if len(values) == 1 else values


def _pair(value: Any) -> tuple:
  return tuple(value) if isinstance(value, list | tuple) else (value, value)


class BroadcastConv2D(snt.Module):
  """The convolution of one vector at every pixel, beside coordinates.

  The same as a `snt.Conv2D` with SAME padding of the tiled vector joined with
  the coordinates, and with its variables, but for less work: a vector that is
  the same everywhere meets every entry of the kernel once, wherever the
  padding does not hide it, and the coordinates do not depend on the batch.
  """

  def __init__(
    self,
    output_channels: int,
    kernel_shape: Any,
    *,
    stride: Any,
    rate: Any,
    padding: str,
    with_bias: bool,
    name: str,
  ):
    super().__init__(name=name)
    self._output_channels = output_channels
    self._kernel_shape = _pair(kernel_shape)
    self._stride, self._rate = _pair(stride), _pair(rate)
    self._padding = padding
    self._with_bias = with_bias

  def __call__(self, inputs: tuple[tf.Tensor, np.ndarray]) -> tf.Tensor:
    """Args: inputs: z [N, Z], coordinates [H, W, c]. Returns: [N, H, W, C]."""
    z, coords = inputs
    height, width, num_coords = coords.shape
    self._initialize(z.shape[-1], num_coords, z.dtype)
    w_z, w_coords = tf.split(self.w, [z.shape[-1], num_coords], axis=2)
    # What every entry of the kernel makes of z, added up where it is visible.
    taps = tf.einsum("nz,tuzc->ntuc", z, w_z)
    taps = tf.einsum("ht,ntuc->nhuc", self._visible_taps(0, height), taps)
    outputs = tf.einsum("wu,nhuc->nhwc", self._visible_taps(1, width), taps)
    if num_coords:
      outputs += tf.nn.conv2d(
        coords[np.newaxis],
        w_coords,
        strides=self._stride,
        padding=self._padding,
        dilations=self._rate,
      )
    return outputs + self.b if self._with_bias else outputs

  def _visible_taps(self, axis: int, size: int) -> np.ndarray:
    """[outputs, kernel]: 1 where an entry lies on the image, 0 on padding."""
    kernel, stride = self._kernel_shape[axis], self._stride[axis]
    offsets = np.arange(kernel) * self._rate[axis]
    starts = np.arange(-(-size // stride)) * stride
    padding = max(starts[-1] + offsets[-1] + 1 - size, 0)
    places = starts[:, np.newaxis] + offsets - padding // 2
    return ((places >= 0) & (places < size)).astype(np.float32)

  @snt.once
  def _initialize(self, size: int, num_coords: int, dtype: tf.DType) -> None:
    shape = [*self._kernel_shape, size + num_coords, self._output_channels]
    initializer = snt.initializers.TruncatedNormal(
      stddev=1 / math.sqrt(math.prod(shape[:-1]))
    )
    self.w = tf.Variable(initializer(shape, dtype), name="w")
    if self._with_bias:
      self.b = tf.Variable(tf.zeros([self._output_channels], dtype), name="b")
