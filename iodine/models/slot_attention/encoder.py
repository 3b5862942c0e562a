"""Encodes an image as the set that slot attention binds slots to.

Dimensions: B batch, H and W size of the image, C channels, h and w size of the
feature map, N = h * w, F features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models import layers
from iodine.modules import utils

__all__ = ["ConvEncoder", "EncodedImage"]


class EncodedImage(NamedTuple):
  """Features of an image, stage by stage.

  Attributes:
    convolved: [B, h, w, F] float32, of the convolutions.
    positioned: [B, h, w, F], with positions.
    normed: [B, N, F], after the layer norm, if there is one.
    features: [B, N, F], the set.
  """

  convolved: tf.Tensor
  positioned: tf.Tensor
  normed: tf.Tensor
  features: tf.Tensor

  @property
  def grid(self) -> tuple[int, int]:
    """(h, w)."""
    return tuple(self.positioned.shape[1:3])


class ConvEncoder(snt.Module):
  """Convolutions, positions, and an MLP for every position.

  Attributes:
    options: {argument: value}, those that weights depend on.
  """

  def __init__(
    self,
    output_channels: Sequence[int] = (64, 64, 64, 64),
    kernel_shapes: Sequence[int] = (5,),
    strides: Sequence[int] = (1,),
    rates: Sequence[int] = (1,),
    mlp_sizes: Sequence[int] = (64, 64),
    activation: str = "relu",
    with_layer_norm: bool = True,
    norm_epsilon: float = 1e-3,
    initial_values: str | float = "glorot",
    initial_positions: str | float | None = None,
    name: str = "encoder",
  ):
    """Makes an encoder; the defaults are those of Google's code.

    Args:
      output_channels: channels of each convolution, with SAME padding.
      kernel_shapes: one entry per convolution, or one for all.
      strides: in the same form.
      rates: dilations, in the same form.
      mlp_sizes: sizes of the MLP's layers.
      activation: name, after every convolution and between the MLP's layers;
        "leaky_relu" in the PyTorch versions.
      with_layer_norm: whether a layer norm comes before the MLP; not in the
        PyTorch versions.
      norm_epsilon: of that norm.
      initial_values: see `layers.initializers`.
      initial_positions: the same of the layer for positions; None: as the
        others.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    output_channels = layers.check_layers(
      "output_channels", output_channels, len(output_channels)
    )
    count = len(output_channels)
    kernel_shapes = layers.check_layers("kernel_shapes", kernel_shapes, count)
    strides = layers.check_layers("strides", strides, count)
    rates = layers.check_layers("rates", rates, count)
    mlp_sizes = layers.check_layers("mlp_sizes", mlp_sizes, len(mlp_sizes))
    checks.check_flags(with_layer_norm=with_layer_norm)
    checks.check(checks.above_zero_fault("norm_epsilon", norm_epsilon))
    self.options = {
      "output_channels": output_channels,
      "kernel_shapes": kernel_shapes,
      "mlp_sizes": mlp_sizes,
      "activation": activation,
      "with_layer_norm": with_layer_norm,
      "norm_epsilon": norm_epsilon,
    }
    self._activation = utils.get_act_func(activation)

    def of_layer(prefix: str, index: int) -> dict[str, Any]:
      values = layers.initializers(initial_values)
      return {**values, "name": f"{prefix}_{index}"}

    self._convolutions = [
      snt.Conv2D(size, kernel, stride, rate, **of_layer("conv", i))
      for i, (size, kernel, stride, rate) in enumerate(
        zip(output_channels, kernel_shapes, strides, rates, strict=True)
      )
    ]
    self._position = layers.PositionEmbedding(
      initial_values if initial_positions is None else initial_positions
    )
    self._norm = None
    if with_layer_norm:
      self._norm = layers.layer_norm(norm_epsilon, "norm")
    self._mlp = [
      snt.Linear(size, **of_layer("mlp", i)) for i, size in enumerate(mlp_sizes)
    ]

  def __call__(self, image: tf.Tensor) -> EncodedImage:
    """Encodes images.

    Args:
      image: [B, H, W, C] float32.

    Returns:
      The set and the stages before it.
    """
    x = image
    for convolution in self._convolutions:
      x = self._activation(convolution(x))
    convolved = x
    positioned = self._position(convolved)
    _, height, width, size = positioned.shape
    x = tf.reshape(positioned, [-1, height * width, size])
    normed = x if self._norm is None else self._norm(x)
    x = normed
    for index, linear in enumerate(self._mlp):
      x = linear(self._activation(x) if index else x)
    return EncodedImage(convolved, positioned, normed, x)
