"""Places small pictures in a large one (Jaderberg et al. 2015).

Dimensions: ... any leading axes, h and w size of a glimpse, H and W size of the
image, C channels.
"""

import iodine.quiet_tensorflow

import tensorflow as tf

from iodine import checks

__all__ = ["place"]

_EPSILON = 1e-15  # of a scale, which may be 0


def place(
  glimpses: tf.Tensor, where: tf.Tensor, image_size: tuple[int, int]
) -> tf.Tensor:
  """Draws each glimpse into its box of an empty image.

  An image's pixel centres are (2 i + 1) / size - 1 in [-1, 1]. A box covers
  [shift - scale, shift + scale] of that in x and in y. Values are bilinear
  between the glimpse's pixel centres, and 0 beyond its edge. As a bilinear
  value is a product of one weight per row and one per column, an image is two
  matrix products. Where a pixel falls exactly on a centre of the glimpse, the
  value has no gradient with respect to the place.

  Args:
    glimpses: [..., h, w, C] float32.
    where: [..., 4] float32: scale x, scale y, shift x, shift y; x goes right, y
      down.
    image_size: (H, W), in pixels.

  Returns:
    [..., H, W, C] float32.

  Raises:
    ValueError: if shapes do not fit.
  """
  leading = " ".join(f"N{i}" for i in range(where.shape.rank - 1))
  checks.check_shapes(
    {
      "where": (where, f"{leading} 4"),
      "glimpses": (glimpses, f"{leading} h w C"),
    }
  )
  scale_x, scale_y, shift_x, shift_y = tf.unstack(where, axis=-1)
  height, width = glimpses.shape[-3:-1]
  rows = _weights(scale_y, shift_y, height, image_size[0])
  columns = _weights(scale_x, shift_x, width, image_size[1])
  net = tf.einsum("...yh,...hwc->...ywc", rows, glimpses)
  return tf.einsum("...xw,...ywc->...yxc", columns, net)


def _weights(
  scale: tf.Tensor, shift: tf.Tensor, size: int, image_size: int
) -> tf.Tensor:
  """What the pixels of a glimpse add to those of an image, along one axis.

  Args:
    scale: [...] float32.
    shift: [...] float32.
    size: n, pixels of the glimpse.
    image_size: m, pixels of the image.

  Returns:
    [..., m, n] float32 in [0, 1].
  """
  pixels = (2.0 * tf.range(image_size, dtype=tf.float32) + 1.0) / image_size
  scale, shift = scale[..., tf.newaxis], shift[..., tf.newaxis]
  inside = (pixels - 1.0 - shift) / (scale + _EPSILON)  # [-1, 1] in the box
  index = ((inside + 1.0) * size - 1.0) / 2.0
  distance = index[..., tf.newaxis] - tf.range(size, dtype=tf.float32)
  return tf.nn.relu(1.0 - tf.abs(distance))
