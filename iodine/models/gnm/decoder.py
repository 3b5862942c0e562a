"""Decodes vectors to square pictures: glimpses of objects, and backgrounds.

Dimensions: B batch, Z size of a vector, H side of a picture, C channels.
"""

import iodine.quiet_tensorflow

import math
from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from iodine.models import layers
from iodine.models.gnm.layers import Convolutions, check_sizes

__all__ = ["PictureDecoder"]


class PictureDecoder(snt.Module):
  """Sub-pixel convolutions from one pixel to a square picture.

  Attributes:
    side: H, the product of the factors.
  """

  def __init__(
    self,
    output_channels: Sequence[int] = (128, 64, 32, 16, 8),
    kernel_shapes: Sequence[int] = (3,),
    upscales: Sequence[int] = (2,),
    num_groups: Sequence[int] = (1,),
    name: str = "glimpse_decoder",
  ):
    """Makes a decoder without variables; the defaults are published ones.

    Args:
      output_channels: of all layers but the last, whose number follows from
        what is decoded.
      kernel_shapes: see `Convolutions`, of all layers.
      upscales: see `Convolutions`, of all layers.
      num_groups: see `Convolutions`, of all layers but the last.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    self._output_channels = check_sizes("output_channels", output_channels)
    count = len(self._output_channels) + 1
    self._kernels = layers.check_layers("kernel_shapes", kernel_shapes, count)
    self._upscales = layers.check_layers("upscales", upscales, count)
    self._groups = (
      *layers.check_layers("num_groups", num_groups, max(count - 1, 1)),
      1,
    )[-count:]
    self.side = math.prod(self._upscales)

  def __call__(self, z: tf.Tensor, num_channels: int) -> tf.Tensor:
    """Decodes vectors.

    Args:
      z: [B, Z] float32.
      num_channels: C, the same in every call.

    Returns:
      [B, H, H, C] float32 in [0, 1].
    """
    self._create_layers(num_channels)
    return tf.sigmoid(self._layers(z[:, tf.newaxis, tf.newaxis]))

  @snt.once
  def _create_layers(self, num_channels: int) -> None:
    self._layers = Convolutions(
      [*self._output_channels, num_channels],
      self._kernels,
      upscales=self._upscales,
      num_groups=self._groups,
      bare_last=True,
      name="layers",
    )
