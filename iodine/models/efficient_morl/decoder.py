"""Decodes slots to pictures and masks by convolutions that narrow a canvas.

Dimensions: M slots of all scenes, Z latent size, H and W size of the image, C
channels, h and w size of the canvas.
"""

import iodine.quiet_tensorflow

from collections.abc import Sequence

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models import layers
from iodine.modules import utils

__all__ = ["BroadcastDecoder"]


class BroadcastDecoder(snt.Module):
  """A spatial broadcast decoder at full resolution (Watters et al. 2019).

  A slot is repeated on a canvas, which is so much larger than the image as the
  convolutions take off, and a linear map of each place's position is added.

  Attributes:
    options: {argument: value}, those that weights depend on.
  """

  def __init__(
    self,
    output_channels: Sequence[int] = (64, 64, 64, 64),
    kernel_shapes: Sequence[int] = (3,),
    paddings: Sequence[int] = (0,),
    activation: str = "elu",
    init_gain: float = 0.02,
    name: str = "decoder",
  ):
    """Makes a decoder; the defaults are the decoder "iodine" of EfficientMORL.

    Args:
      output_channels: channels of each convolution but the last, which has
        C + 1.
      kernel_shapes: one entry per convolution, or one for all.
      paddings: zeros on each side, in the same form.
      activation: name, between the layers.
      init_gain: gain of the Glorot normal initial weights.
      name: name of the module.

    Raises:
      ValueError: for values out of range, or a padding that is not smaller than
        its kernel.
    """
    super().__init__(name=name)
    output_channels = layers.check_layers(
      "output_channels", output_channels, len(output_channels)
    )
    count = len(output_channels) + 1
    self._channels = output_channels
    self._kernels = layers.check_layers("kernel_shapes", kernel_shapes, count)
    self._paddings = layers.check_layers("paddings", paddings, count, low=0)
    for kernel, padding in zip(self._kernels, self._paddings, strict=True):
      if padding >= kernel:
        raise ValueError(
          f"paddings={list(paddings)}: expected each to be smaller than its "
          f"kernel of kernel_shapes={list(kernel_shapes)}"
        )
    self._margin = sum(self._kernels) - count - 2 * sum(self._paddings)
    self.options = {
      "output_channels": output_channels,
      "kernel_shapes": self._kernels,
    }
    self._activation = utils.get_act_func(activation)
    self._initial_values = init_gain
    self._position = layers.PositionEmbedding(init_gain)

  def __call__(
    self, slots: tf.Tensor, image_shape: Sequence[int]
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes slots.

    Args:
      slots: [M, Z] float32.
      image_shape: (H, W, C).

    Returns:
      [1, h, w, Z], what is added to every slot on the canvas, and
      [M, H, W, C + 1], the picture and, as the last channel, the mask's logits.

    Raises:
      ValueError: if the convolutions need a canvas smaller than 1 pixel.
    """
    height, width, channels = image_shape
    canvas = (height + self._margin, width + self._margin)
    if min(canvas) < 1:
      raise ValueError(
        f"image_dim: the decoder would spread slots over {canvas[0]}x"
        f"{canvas[1]} pixels for an image of {height}x{width}; choose a larger "
        "size, or smaller paddings"
      )
    self._create_layers(channels + 1)
    positions = self._position(tf.zeros([1, *canvas, slots.shape[-1]]))
    x = self._layers[0](slots, positions)
    for layer, padding in zip(
      self._layers[1:], self._paddings[1:], strict=True
    ):
      x = self._activation(x)
      if padding:
        sides = [padding, padding]
        x = tf.pad(x, [[0, 0], sides, sides, [0, 0]])
      x = layer(x)
    return positions, x

  @snt.once
  def _create_layers(self, last_channels: int) -> None:
    first, *others = zip(
      (*self._channels, last_channels), self._kernels, strict=True
    )
    values = layers.initializers(self._initial_values)
    self._layers = [
      _BroadcastConv(*first, self._paddings[0], values["w_init"], "conv_0"),
      *(
        snt.Conv2D(
          *sizes,
          padding="VALID",
          name=f"conv_{index}",
          **layers.initializers(self._initial_values),
        )
        for index, sizes in enumerate(others, 1)
      ),
    ]


class _BroadcastConv(snt.Module):
  """A convolution of vectors, repeated at every pixel, plus a shared picture.

  Equals the convolution of their sum, at less cost: each entry of the kernel is
  applied to a vector once, and counted wherever it is not on padding.
  """

  def __init__(
    self,
    output_channels: int,
    kernel: int,
    padding: int,
    w_init: snt.initializers.Initializer,
    name: str,
  ):
    super().__init__(name=name)
    self._output_channels = output_channels
    self._kernel, self._padding = kernel, padding
    self._w_init = w_init

  def __call__(self, vectors: tf.Tensor, shared: tf.Tensor) -> tf.Tensor:
    """Args: vectors: [M, Z]; shared: [1, h, w, Z]. Returns: [M, h', w', C]."""
    self._initialize(vectors.shape[-1])
    sides = [self._padding, self._padding]
    shared = tf.nn.conv2d(shared, self.w, 1, [[0, 0], sides, sides, [0, 0]])
    _, height, width, channels = shared.shape
    entries = tf.reshape(self.w, [-1, *self.w.shape[2:]])
    taps = tf.einsum("mz,tzc->mtc", vectors, entries)
    visible = tf.constant(np.kron(self._visible(height), self._visible(width)))
    own = tf.reshape(tf.matmul(visible, taps), [-1, height, width, channels])
    return own + (shared + self.b)

  def _visible(self, size: int) -> np.ndarray:
    """[size, kernel]: 1 where an entry is on the canvas, 0 on padding."""
    places = np.arange(size)[:, np.newaxis] + np.arange(self._kernel)
    canvas = size + self._kernel - 1 - 2 * self._padding
    places -= self._padding
    return ((places >= 0) & (places < canvas)).astype(np.float32)

  @snt.once
  def _initialize(self, input_channels: int) -> None:
    shape = [self._kernel, self._kernel, input_channels, self._output_channels]
    checks.check_weights(self.name, shape)
    self.w = tf.Variable(self._w_init(shape, tf.float32), name="w")
    self.b = tf.Variable(tf.zeros([self._output_channels]), name="b")
