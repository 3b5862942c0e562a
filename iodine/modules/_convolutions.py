"""Stacks of 2D convolutions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.modules import utils

__all__ = ["BroadcastConv2D", "ConvNet2D"]

# Output channels per vector register, in float32 and bfloat16 alike.
_LANES = 16

# Standard deviation of a gain for standard normal latents, before training.
INITIAL_GAIN = 0.3


class ConvNet2D(snt.Module):
  """A stack of 2D convolutions with SAME padding, plain or transposed.

  The counterpart of Sonnet 1's `snt.nets.ConvNet2D` and `ConvNet2DTranspose`.

  Attributes:
    dtype: type of the computation, float32 unless set to bfloat16. Variables,
      their gradients, inputs and outputs are always float32, and so are
      transposed convolutions.
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
    """Makes a stack without variables; the first call creates them.

    Args:
      output_channels: one entry per layer; if the last is None, the first call
        gives it.
      kernel_shapes: one entry (an integer or a pair) per layer, or one for all.
      strides: strides, in the same form.
      rates: dilations, in the same form.
      activation: name or function, applied between the layers.
      activate_final: whether to apply it after the last layer too.
      use_bias: one boolean for all layers, or one per layer.
      transpose: whether the convolutions are transposed.
      first_layer: constructor of the first layer, such as `BroadcastConv2D`;
        it gets the inputs uncast, and its output type is the next layer's.
      name: scope of the variables; None: Sonnet 1's.

    Raises:
      ValueError: for lists of unequal lengths or values that are not positive.
    """
    suffix = "_transpose" if transpose else ""
    super().__init__(name=name or f"conv_net_2d{suffix}")
    self.dtype = tf.float32
    self._layer_name = f"conv_2d{suffix}"
    if not isinstance(output_channels, list | tuple):
      raise ValueError(f"output_channels={output_channels!r}: must be a list")
    self._output_channels = tuple(output_channels)
    count = len(self._output_channels)
    if not count:
      raise ValueError("output_channels must not be empty")
    for i, channels in enumerate(self._output_channels):
      if channels is not None or i < count - 1:
        checks.check(checks.size_fault(f"output_channels[{i}]", channels))
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
    """Applies all layers.

    Args:
      inputs: [B, H, W, C] float32, or what `first_layer` takes.
      output_channels: channels of the last layer, required on the first call if
        the constructor got None.

    Returns:
      [B, H', W', C'] float32.

    Raises:
      ValueError: if the last layer's channels are unknown or contradictory.
    """
    self._create_layers(output_channels)
    if output_channels not in (None, self._last_channels):
      raise ValueError(
        f"output_channels={output_channels}: the last convolution has "
        f"{self._last_channels}"
      )
    net = inputs
    if self._first_layer is None and not self._transpose:
      net = tf.cast(net, self.dtype)
    for i, layer in enumerate(self._layers):
      net = layer(net)
      if i < len(self._layers) - 1 or self._activate_final:
        net = self._activation(net)
    return tf.cast(net, tf.float32)

  @snt.once
  def _create_layers(self, output_channels: int | None) -> None:
    last = self._output_channels[-1] or output_channels
    if last is None:
      raise ValueError(
        "output_channels ends in None: the first call must say how many"
      )
    self._last_channels = last
    usual = snt.Conv2DTranspose if self._transpose else _Conv2D
    self._layers = []
    for i, channels in enumerate((*self._output_channels[:-1], last)):
      constructor = usual if i else self._first_layer or usual
      self._layers.append(
        constructor(
          channels,
          self._kernel_shapes[i],
          stride=self._strides[i],
          rate=self._rates[i],
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
      checks.check(checks.size_fault(name, side))
  values = tuple(tuple(v) if isinstance(v, list) else v for v in values)
  return values * count if len(values) == 1 else values


def _pair(value: Any) -> tuple:
  return tuple(value) if isinstance(value, list | tuple) else (value, value)


class _ConvLayer(snt.Module):
  """Float32 variables of a convolution, as in `snt.Conv2D`; SAME padding."""

  def __init__(
    self,
    output_channels: int,
    kernel_shape: Any,
    *,
    stride: Any,
    rate: Any,
    with_bias: bool,
    name: str,
  ):
    super().__init__(name=name)
    self._output_channels = output_channels
    self._kernel_shape = _pair(kernel_shape)
    self._stride, self._rate = _pair(stride), _pair(rate)
    self._with_bias = with_bias

  @snt.once
  def _initialize(self, input_channels: int) -> None:
    shape = [*self._kernel_shape, input_channels, self._output_channels]
    checks.check_weights(self.name, shape)
    initializer = snt.initializers.TruncatedNormal(
      stddev=1 / math.sqrt(math.prod(shape[:-1]))
    )
    self.w = tf.Variable(initializer(shape, tf.float32), name="w")
    if self._with_bias:
      self.b = tf.Variable(tf.zeros([self._output_channels]), name="b")


class _Conv2D(_ConvLayer):
  """A convolution in the type of its inputs."""

  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    """Args: inputs: [N, H, W, C]. Returns: [N, H', W', C']."""
    self._initialize(inputs.shape[-1])
    w = tf.cast(self.w, inputs.dtype)
    if self._is_narrow:
      outputs = _narrow_conv2d(inputs, w)
    else:
      outputs = tf.nn.conv2d(
        inputs, w, self._stride, "SAME", dilations=self._rate
      )
    if self._with_bias:
      # The gradient of `tf.nn.bias_add` would add up all pixels in bfloat16.
      outputs += tf.cast(self.b, inputs.dtype)
    return outputs

  @property
  def _is_narrow(self) -> bool:
    """Whether `_narrow_conv2d` computes the same with less work."""
    return (
      self._stride == self._rate == (1, 1)
      and all(side % 2 for side in self._kernel_shape)
      and self._kernel_shape[1] > 1
      and self._output_channels <= _LANES // 2
    )


@tf.custom_gradient
def _narrow_conv2d(
  x: tf.Tensor, w: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
  """A SAME convolution of stride 1 with few output channels.

  A processor works on `_LANES` output channels at a time, used or not. A wider
  kernel fills them with the channels of neighbouring pixels. The filter's
  gradient is computed as that of a convolution from outputs to inputs, which
  are more numerous.

  Args:
    x: [N, H, W, C].
    w: [h, w, C, C'], same type as x; h and w are odd.
  """
  height, width, inputs = x.shape[1:]
  rows, columns, _, outputs = w.shape
  pixels = _LANES // outputs
  missing = -width % pixels
  shifted = [
    tf.pad(w, [[0, 0], [i, pixels - 1 - i], [0, 0], [0, 0]])
    for i in range(pixels)
  ]
  padding = [[rows // 2] * 2, [columns // 2, columns // 2 + missing]]
  y = tf.nn.conv2d(
    x, tf.concat(shifted, axis=3), [1, pixels], [[0, 0], *padding, [0, 0]]
  )
  y = tf.reshape(y, [-1, height, width + missing, outputs])[:, :, :width]

  def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    dx = tf.nn.conv2d_transpose(dy, w, tf.shape(x), 1, "SAME")
    dw = tf.raw_ops.Conv2DBackpropFilter(
      input=dy,
      filter_sizes=[rows, columns, outputs, inputs],
      out_backprop=x,
      strides=[1, 1, 1, 1],
      padding="SAME",
    )
    return dx, tf.transpose(dw[::-1, ::-1], [0, 1, 3, 2])

  return y, gradient


class BroadcastConv2D(_ConvLayer):
  """A convolution of one vector, repeated at every pixel, and coordinates.

  Equals the convolution of the tiled vector joined with the coordinates, at
  less cost: each entry of the kernel is applied to the vector once and counted
  wherever it is not on padding, and the coordinates' part is shared by the
  batch. That part is computed in float32, the rest in the vector's type.

  With `modulate`, the vector also scales every channel of the coordinates' part
  (a form of FiLM, arXiv 1709.07871), by 1 plus a linear function of it.
  """

  def __init__(self, *args: Any, modulate: bool = False, **kwargs: Any):
    """Args: modulate: see the class; the others: those of a convolution."""
    super().__init__(*args, **kwargs)
    self._modulate = modulate

  def __call__(self, inputs: tuple[tf.Tensor, np.ndarray]) -> tf.Tensor:
    """Args: inputs: z [N, Z], coordinates [H, W, c]. Returns: [N, H, W, C]."""
    z, coords = inputs
    height, width, num_coords = coords.shape
    self._initialize(z.shape[-1] + num_coords)
    w_z, w_coords = tf.split(self.w, [z.shape[-1], num_coords], axis=2)
    # z times each entry of the kernel, summed over the visible entries.
    w_z = tf.reshape(tf.cast(w_z, z.dtype), [-1, *w_z.shape[2:]])
    taps = tf.einsum("nz,tzc->ntc", z, w_z)
    rows, columns = self._visible_taps(0, height), self._visible_taps(1, width)
    visible = tf.constant(np.kron(rows, columns), z.dtype)
    outputs = tf.matmul(visible, taps)
    shared = self._of_coordinates(coords, w_coords)
    bias = self.b if self._with_bias else tf.zeros([self._output_channels])
    if self._modulate:
      outputs += self._gain(z) * tf.cast(shared, z.dtype)
      outputs += tf.cast(bias, z.dtype)
    else:
      outputs += tf.cast(shared + bias, z.dtype)
    return tf.reshape(
      outputs, [-1, len(rows), len(columns), self._output_channels]
    )

  def _of_coordinates(self, coords: np.ndarray, w: tf.Tensor) -> tf.Tensor:
    """[H * W or 1, C] float32, shared by all images."""
    if not coords.shape[-1]:
      return tf.zeros([1, self._output_channels])
    image = coords[np.newaxis]
    conv = tf.nn.conv2d(image, w, self._stride, "SAME", dilations=self._rate)
    return tf.reshape(conv, [-1, self._output_channels])

  def _gain(self, z: tf.Tensor) -> tf.Tensor:
    """[N, 1, C]: the factor of every channel of the coordinates' part."""
    self._create_gain(z.shape[-1])
    return 1 + tf.matmul(z, tf.cast(self.w_gain, z.dtype))[:, tf.newaxis]

  @snt.once
  def _create_gain(self, num_latents: int) -> None:
    initializer = snt.initializers.TruncatedNormal(
      stddev=INITIAL_GAIN / math.sqrt(num_latents)
    )
    shape = [num_latents, self._output_channels]
    self.w_gain = tf.Variable(initializer(shape, tf.float32), name="w_gain")

  def _visible_taps(self, axis: int, size: int) -> np.ndarray:
    """[outputs, kernel]: 1 where an entry is on the image, 0 on padding."""
    kernel, stride = self._kernel_shape[axis], self._stride[axis]
    offsets = np.arange(kernel) * self._rate[axis]
    starts = np.arange(-(-size // stride)) * stride
    padding = max(starts[-1] + offsets[-1] + 1 - size, 0)
    places = starts[:, np.newaxis] + offsets - padding // 2
    return ((places >= 0) & (places < size)).astype(np.float32)
