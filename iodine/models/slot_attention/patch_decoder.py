"""Decodes slots to small pictures, and places them.

Dimensions: M slots of all scenes, Z latent size, P side of a patch, H and W
size of the image, C channels.
"""

from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models import layers

__all__ = ["PatchDecoder"]


class PatchDecoder(snt.Module):
  """A picture of P x P pixels, and where in the image it lies.

  Not of the paper. An MLP maps a slot to a patch, the same wherever the object
  is. Its centre is the place of the slot's glimpse, moved by what a linear map
  of the slot says; bilinear interpolation puts it there, as in spatial
  transformers (Jaderberg et al. 2015, arXiv 1506.02025). Outside of the patch,
  picture and mask are constant. So shapes are learned once for all places, at a
  small part of the cost of convolutions over the image. The mask's logits grow
  with the slot's share of all attention.
  """

  def __init__(
    self,
    patch_size: int = 25,
    hidden_sizes: Sequence[int] = (256,),
    max_offset: float = 6.0,
    initial_values: str | float = "glorot",
    name: str = "decoder",
  ):
    """Makes a decoder.

    Args:
      patch_size: P, in pixels; large enough for an object.
      hidden_sizes: sizes of the MLP's hidden layers, each with a ReLU.
      max_offset: how far a centre may lie from the glimpse, in pixels, along
        each axis.
      initial_values: see `layers.initializers`.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(patch_size=patch_size)
    checks.check(checks.above_zero_fault("max_offset", max_offset))
    hidden_sizes = layers.check_layers(
      "hidden_sizes", hidden_sizes, len(hidden_sizes)
    )
    layers.check_initial_values(initial_values)
    self._patch_size = patch_size
    self._max_offset = max_offset
    self._initial_values = initial_values
    self._hidden = [
      self._linear(size, f"hidden_{index}")
      for index, size in enumerate(hidden_sizes)
    ]
    self._offset = self._linear(2, "offset")

  def __call__(
    self, z: tf.Tensor, image_shape: Sequence[int]
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes slots.

    Args:
      z: [M, Z] float32, results of a `Glimpse`: the last three numbers are the
        logarithm of a share, and the row and column of a place, in [0, 1].
      image_shape: (H, W, C).

    Returns:
      [M, 2], the row and column of the patches' centres, in pixels; and
      [M, H, W, C + 1], the picture and, as the last channel, the mask's logits.
    """
    height, width, channels = image_shape
    size, depth = self._patch_size, channels + 1
    self._create_outputs(size * size * depth, depth)
    hidden, share, place = z[:, :-3], z[:, -3], z[:, -2:]
    offset = self._max_offset * tf.tanh(self._offset(hidden))
    centres = place * [height - 1.0, width - 1.0] + offset
    for layer in self._hidden:
      hidden = tf.nn.relu(layer(hidden))
    patches = tf.reshape(self._patch(hidden), [-1, size, depth * size])
    rows = self._weights(centres[:, 0], height)
    columns = self._weights(centres[:, 1], width)
    # Channels stay between rows and columns, for two plain matrix products.
    x = tf.linalg.matmul(rows, patches)  # [M, H, (C + 1) * P]
    x = tf.reshape(x, [-1, height * depth, size])
    x = tf.linalg.matmul(x, columns, transpose_b=True)
    x = tf.reshape(x, [-1, height, depth, width])
    x = tf.transpose(x, [0, 1, 3, 2])
    outside = self._outside(hidden)
    outside += tf.one_hot(channels, depth) * self._scale * share[:, tf.newaxis]
    return centres, x + outside[:, tf.newaxis, tf.newaxis]

  def _weights(self, centres: tf.Tensor, length: int) -> tf.Tensor:
    """Share of each of P pixels in each of `length`: [M] to [M, length, P]."""
    middle = (self._patch_size - 1) / 2.0
    offsets = tf.range(self._patch_size, dtype=tf.float32) - middle
    places = tf.range(length, dtype=tf.float32)[:, tf.newaxis] - offsets
    distances = places - centres[:, tf.newaxis, tf.newaxis]
    return tf.nn.relu(1.0 - tf.abs(distances))

  def _linear(self, size: int, name: str) -> snt.Linear:
    values = layers.initializers(self._initial_values)
    return snt.Linear(size, **values, name=name)

  @snt.once
  def _create_outputs(self, patch_values: int, depth: int) -> None:
    self._patch = self._linear(patch_values, "patch")
    self._outside = self._linear(depth, "outside")
    self._scale = tf.Variable(1.0, name="scale")
