"""Decodes slots to pictures and masks.

Dimensions: M slots of all scenes, D slot size, H and W size of the image, C
channels, h and w size of the map to which a slot is broadcast.
"""

import math
import operator
from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models import layers
from iodine.modules import utils

__all__ = ["SpatialBroadcastDecoder"]

ALIGNMENTS = ("tensorflow", "pytorch")


class SpatialBroadcastDecoder(snt.Module):
  """Broadcasts a slot, adds positions, and upsamples (Watters et al. 2019).

  The slot is broadcast to the size of the image divided by all strides: to 8x8
  for 128x128 with the defaults, to the full size if all strides are 1.

  Attributes:
    options: {argument: value}, those that weights depend on.
  """

  def __init__(
    self,
    output_channels: Sequence[int] = (64, 64, 64, 64, 64),
    kernel_shapes: Sequence[int] = (5, 5, 5, 5, 5, 3),
    strides: Sequence[int] = (2, 2, 2, 2, 1, 1),
    activation: str = "relu",
    alignment: str = "tensorflow",
    initial_values: str | float = "glorot",
    name: str = "decoder",
  ):
    """Makes a decoder; the defaults are those of Google's code.

    Args:
      output_channels: channels of each transposed convolution but the last,
        which has C + 1.
      kernel_shapes: one entry per transposed convolution, or one for all.
      strides: in the same form.
      activation: name, between the layers; "leaky_relu" in the PyTorch
        versions.
      alignment: how a strided layer is cropped to its input's size times the
        stride: "tensorflow": SAME padding; "pytorch": padding of half a kernel
        and output padding, which is the same picture shifted by a pixel.
      initial_values: see `layers.initializers`.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    output_channels = layers.check_layers(
      "output_channels", output_channels, len(output_channels)
    )
    count = len(output_channels) + 1
    self._channels = output_channels
    self._kernels = layers.check_layers("kernel_shapes", kernel_shapes, count)
    self._strides = layers.check_layers("strides", strides, count)
    checks.check(checks.choice_fault("alignment", alignment, ALIGNMENTS))
    layers.check_initial_values(initial_values)
    halves = [(kernel + 1) // 2 for kernel in self._kernels]
    too_large = any(map(operator.gt, self._strides, halves))
    if alignment == "pytorch" and too_large:
      raise ValueError(
        f"strides={list(self._strides)}: with alignment='pytorch', expected at "
        f"most half of each of kernel_shapes={list(self._kernels)}"
      )
    self.options = {
      "output_channels": output_channels,
      "kernel_shapes": self._kernels,
      "activation": activation,
    }
    if max(self._strides) > 1:
      self.options["alignment"] = alignment
    self._activation = utils.get_act_func(activation)
    self._alignment = alignment
    self._initial_values = initial_values
    self._position = layers.PositionEmbedding(initial_values)

  def __call__(
    self, slots: tf.Tensor, image_shape: Sequence[int]
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes slots.

    Args:
      slots: [M, D] float32.
      image_shape: (H, W, C).

    Returns:
      [M, h, w, D], what the first layer gets, and [M, H, W, C + 1], the picture
      and, as the last channel, the mask's logits.

    Raises:
      ValueError: if the strides do not divide the image's size.
    """
    height, width, channels = image_shape
    self._create_layers(channels + 1)
    total = math.prod(self._strides)
    if height % total or width % total:
      raise ValueError(
        f"image_dim: the decoder's strides, {total} in all, do not divide an "
        f"image of {height}x{width} pixels; choose another size, or other "
        "strides"
      )
    x = tf.tile(slots[:, None, None], [1, height // total, width // total, 1])
    positioned = x = self._position(x)
    for index, layer in enumerate(self._layers):
      x = self._layer(layer, self._activation(x) if index else x, index)
    return positioned, x

  def _layer(self, layer: snt.Module, x: tf.Tensor, index: int) -> tf.Tensor:
    """Applies a layer, cropped to the input's size times the stride."""
    size = [n * self._strides[index] for n in x.shape[1:3]]
    x = layer(x)
    if self._alignment == "tensorflow":
      return x
    start = self._kernels[index] // 2
    return x[:, start : start + size[0], start : start + size[1]]

  @snt.once
  def _create_layers(self, last_channels: int) -> None:
    padding = "SAME" if self._alignment == "tensorflow" else "VALID"
    self._layers = [
      snt.Conv2DTranspose(
        size,
        kernel,
        stride=stride,
        padding=padding,
        name=f"conv_{index}",
        **layers.initializers(self._initial_values),
      )
      for index, (size, kernel, stride) in enumerate(
        zip(
          (*self._channels, last_channels),
          self._kernels,
          self._strides,
          strict=True,
        )
      )
    ]
