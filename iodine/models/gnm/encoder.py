"""Encodes an image as a grid of features, one vector for each cell."""

import iodine.quiet_tensorflow

from collections.abc import Sequence

from iodine.models.gnm.layers import Convolutions

__all__ = ["ImageEncoder"]


class ImageEncoder(Convolutions):
  """Maps images [B, H, W, C] to features [B, N, N, D] of N x N cells."""

  def __init__(
    self,
    output_channels: Sequence[int] = (16, 16, 32, 32, 64, 64, 128, 128, 128),
    kernel_shapes: Sequence[int] = (4, 3, 4, 3, 4, 3, 4, 3, 4),
    strides: Sequence[int] = (2, 1, 2, 1, 2, 1, 2, 1, 2),
    num_groups: Sequence[int] = (1,),
    name: str = "encoder",
  ):
    """Makes an encoder; the defaults are the published ones, for 128 x 128.

    Args:
      output_channels: see `Convolutions`; the last is D.
      kernel_shapes: see `Convolutions`.
      strides: see `Convolutions`; together, they divide H and W by N.
      num_groups: see `Convolutions`.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(
      output_channels, kernel_shapes, strides, num_groups=num_groups, name=name
    )
