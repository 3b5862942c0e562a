"""Stacks of layers, each followed by CELU and then a norm.

Dimensions: B batch, H height, W width, C channels, D size.
"""

import iodine.quiet_tensorflow

from collections.abc import Callable, Sequence
from typing import Any

import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models import layers

__all__ = ["Convolutions", "Perceptron", "check_sizes"]

_NORM_EPSILON = 1e-5


def check_sizes(name: str, values: Sequence[int]) -> tuple[int, ...]:
  """Checks a list of sizes of layers, which may be empty."""
  if isinstance(values, list | tuple) and not values:
    return ()
  return layers.check_layers(name, values, len(values))


def _half(kernel_size: int) -> list[int]:
  """PyTorch's usual padding, the same on both sides."""
  return [(kernel_size - 1) // 2] * 2


class Convolutions(snt.Module):
  """Convolutions, each followed by CELU and a group norm.

  A layer may multiply the height and width by a factor: its convolution then
  makes so many more channels, which become pixels (sub-pixel convolution).
  """

  def __init__(
    self,
    output_channels: Sequence[int],
    kernel_shapes: Sequence[int],
    strides: Sequence[int] = (1,),
    upscales: Sequence[int] = (1,),
    num_groups: Sequence[int] = (1,),
    bare_last: bool = False,
    name: str = "convolutions",
  ):
    """Makes a stack without variables.

    Args:
      output_channels: channels after each layer.
      kernel_shapes: one entry per layer, or one for all; k pixels are padded by
        (k - 1) // 2 on each side.
      strides: likewise; 0: stride 1 without padding.
      upscales: likewise, factors of height and width.
      num_groups: likewise, of the norms; divisors of the channels.
      bare_last: whether the last layer has neither CELU nor norm.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    channels = layers.check_layers(
      "output_channels", output_channels, len(output_channels)
    )
    count = len(channels)
    kernels = layers.check_layers("kernel_shapes", kernel_shapes, count)
    strides = layers.check_layers("strides", strides, count, low=0)
    self._upscales = layers.check_layers("upscales", upscales, count)
    groups = layers.check_layers("num_groups", num_groups, count)
    normed = channels[:-1] if bare_last else channels
    for index, size in enumerate(normed):
      checks.check(
        checks.multiple_fault(
          f"output_channels[{index}]", size, "num_groups", groups[index]
        )
      )
    self._convolutions = [
      snt.Conv2D(
        size * upscale**2,
        kernel,
        max(stride, 1),
        padding=_half if stride else "VALID",
        **layers.initializers("pytorch"),
        name=f"conv_{i}",
      )
      for i, (size, kernel, stride, upscale) in enumerate(
        zip(channels, kernels, strides, self._upscales, strict=True)
      )
    ]
    self._norms = [
      snt.GroupNorm(groups[i], eps=_NORM_EPSILON, name=f"norm_{i}")
      for i in range(len(normed))
    ]

  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    """Maps [B, h, w, c] to [B, H, W, C], both float32."""
    net = inputs
    for i, convolution in enumerate(self._convolutions):
      net = layers.pixel_shuffle(convolution(net), self._upscales[i])
      if i < len(self._norms):
        net = self._norms[i](tf.nn.elu(net))
    return net


class Perceptron(snt.Module):
  """Linear layers, each but perhaps the last followed by CELU and a norm."""

  def __init__(
    self, sizes: Sequence[int], bare_last: bool = True, name: str = "mlp"
  ):
    """Makes a perceptron without variables.

    Args:
      sizes: of all layers.
      bare_last: whether the last layer has neither CELU nor layer norm.
      name: name of the module.
    """
    super().__init__(name=name)
    self._linears = [
      snt.Linear(size, **layers.initializers("pytorch"), name=f"linear_{i}")
      for i, size in enumerate(sizes)
    ]
    self._norms: list[Callable[[Any], Any]] = [
      layers.layer_norm(_NORM_EPSILON, f"norm_{i}")
      for i in range(len(sizes) - bare_last)
    ]

  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    """Maps [B, d] to [B, D], both float32."""
    net = inputs
    for i, linear in enumerate(self._linears):
      net = linear(net)
      if i < len(self._norms):
        net = self._norms[i](tf.nn.elu(net))
    return net
