"""Encodes an image as the set that slots compete for."""

import iodine.quiet_tensorflow

from collections.abc import Sequence

from iodine.models.slot_attention.encoder import ConvEncoder

__all__ = ["ImageEncoder"]

_NORM_EPSILON = 1e-5


class ImageEncoder(ConvEncoder):
  """Slot Attention's encoder with the sizes of EfficientMORL."""

  def __init__(
    self,
    output_channels: Sequence[int] = (64, 64, 64, 64),
    kernel_shapes: Sequence[int] = (5,),
    strides: Sequence[int] = (1,),
    mlp_sizes: Sequence[int] = (64, 64),
    init_gain: float = 0.02,
    name: str = "encoder",
  ):
    """Makes an encoder; the defaults are those of the published code.

    Args:
      output_channels: channels of each convolution, with SAME padding and a
        ReLU.
      kernel_shapes: one entry per convolution, or one for all.
      strides: in the same form.
      mlp_sizes: sizes of the layers of the MLP after the layer norm.
      init_gain: gain of the Glorot normal initial weights; positions have
        PyTorch's initial values.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(
      output_channels,
      kernel_shapes,
      strides,
      mlp_sizes=mlp_sizes,
      norm_epsilon=_NORM_EPSILON,
      initial_values=init_gain,
      initial_positions="pytorch",
      name=name,
    )
