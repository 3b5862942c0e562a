"""Pictures tiled from batches of images, as TensorFlow ops, for TensorBoard.

Dimensions: B batch, T time or refinement step, K slots, H height, W width,
C channels (1 or 3). All pictures work eagerly and inside `tf.function`, where
all sizes but C may be unknown. Images are floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from iodine.checks import check_shapes
from iodine.pictures.masks import segmentation
from iodine.scene_model import shows_decomposition

__all__ = (
  "color_transform",
  "construct_diagnostic_image",
  "construct_iterations_image",
  "images_to_grid",
  "overview",
  "samples",
)

_GRID_BORDER_WIDTH = 2  # pixels
_BORDER_VALUE = 0.5
_MASK_BORDER_VALUE = 1.0  # sets the masks apart in the diagnostic image


def color_transform(masks: tf.Tensor) -> tf.Tensor:
  """Colours soft masks, see `masks.segmentation`.

  Args:
    masks: [..., K] float, in [0, 1] and summing to 1 over K.

  Returns:
    [..., 3] RGB, same type as `masks`.
  """
  masks = tf.convert_to_tensor(masks)
  rgb = tf.numpy_function(segmentation, [masks], tf.float32, stateful=False)
  return tf.cast(tf.ensure_shape(rgb, [*masks.shape[:-1], 3]), masks.dtype)


def construct_diagnostic_image(
  images: tf.Tensor,
  recons: tf.Tensor,
  masks: tf.Tensor,
  components: tf.Tensor,
  border_width: int = 2,
  nr_images: int = 6,
  clip: bool = True,
  mask_components: bool = False,
) -> tf.Tensor:
  """Tiles image, reconstruction, masks and components; one row per image.

  Args:
    images: [B, H, W, C].
    recons: [B, H, W, C].
    masks: [B, H, W, K], summing to 1 over K.
    components: [B, H, W, K, C].
    border_width: border around each panel, in pixels.
    nr_images: maximum number of images to show.
    clip: whether to clip the picture to [0, 1].
    mask_components: whether to multiply the components by their masks.

  Returns:
    [1, min(B, nr_images) * (H + 2 * border_width),
    (3 + K) * (W + 2 * border_width), 3].

  Raises:
    ValueError: if the shapes do not match, or C is neither 1 nor 3.
  """
  channels = check_shapes(
    {
      "images": (images, "B H W C"),
      "recons": (recons, "B H W C"),
      "masks": (masks, "B H W K"),
      "components": (components, "B H W K C"),
    }
  ).get("C")
  masks = masks[:nr_images]
  components = components[:nr_images]
  if mask_components:
    components = components * masks[..., tf.newaxis]
  panels = tf.concat(
    [
      _pad(_to_rgb(images[:nr_images, tf.newaxis], channels), border_width),
      _pad(_to_rgb(recons[:nr_images, tf.newaxis], channels), border_width),
      _pad(
        color_transform(masks[:, tf.newaxis]), border_width, _MASK_BORDER_VALUE
      ),
      _pad(
        _to_rgb(tf.transpose(components, [0, 3, 1, 2, 4]), channels),
        border_width,
      ),
    ],
    axis=1,
  )
  return _clip(_tile(panels), clip)[tf.newaxis]


def construct_iterations_image(
  images: tf.Tensor,
  recons: tf.Tensor,
  masks: tf.Tensor,
  border_width: int = 2,
  nr_seqs: int = 2,
  clip: bool = True,
) -> tf.Tensor:
  """Tiles the refinement: one column per step, three rows per example.

  The rows of an example are the image, its reconstruction and the masks.

  Args:
    images: [B, T, 1, H, W, C], or [B, 1, 1, H, W, C] for a still image.
    recons: [B, T, 1, H, W, C].
    masks: [B, T, K, H, W, 1], summing to 1 over K.
    border_width: border around each panel, in pixels.
    nr_seqs: maximum number of examples to show.
    clip: whether to clip the picture to [0, 1].

  Returns:
    [1, min(B, nr_seqs) * 3 * (H + 2 * border_width),
    T * (W + 2 * border_width), 3].

  Raises:
    ValueError: if the shapes do not match, or C is neither 1 nor 3.
  """
  still = images.shape[1] == 1
  channels = check_shapes(
    {
      "recons": (recons, "B T 1 H W C"),
      "images": (images, "B 1 1 H W C" if still else "B T 1 H W C"),
      "masks": (masks, "B T K H W 1"),
    }
  ).get("C")
  recons = _to_rgb(recons[:nr_seqs, :, 0], channels)
  images = _to_rgb(images[:nr_seqs, :, 0], channels)
  if still:
    images = tf.broadcast_to(images, tf.shape(recons))
  segmentations = color_transform(
    tf.transpose(masks[:nr_seqs, ..., 0], [0, 1, 3, 4, 2])
  )
  panels = _pad(
    tf.stack([images, recons, segmentations], axis=1), border_width
  )  # [B, 3, T, H, W, 3]
  num_seqs, num_rows, *rest = _shape(panels)
  panels = tf.reshape(panels, [num_seqs * num_rows, *rest])
  return _clip(_tile(panels), clip)[tf.newaxis]


def overview(
  info: Mapping[str, Any], nr_images: int = 4, mask_components: bool = False
) -> dict[str, tf.Tensor]:
  """Draws the decompositions of a batch, for TensorBoard.

  Args:
    info: result of `SceneModel.infer`.
    nr_images: number of images.
    mask_components: whether to multiply the components by their masks.

  Returns:
    {name: [1, H', W', 3] in [0, 1]}: "overview" (last frame, reconstruction,
    masks, components), "sequence" (all steps of the first two images); empty if
    the model does not reconstruct.
  """
  if not shows_decomposition(info):
    return {}
  image, outputs = info["data"]["image"], info["outputs"]
  last = {name: value[:, -1] for name, value in outputs.items()}
  return {
    "overview": construct_diagnostic_image(
      image[:, -1],
      last["recons"][:, 0],
      tf.transpose(last["pred_mask"][..., 0], [0, 2, 3, 1]),
      tf.transpose(last["components"], [0, 2, 3, 1, 4]),
      nr_images=nr_images,
      mask_components=mask_components,
    ),
    "sequence": construct_iterations_image(
      image[:, :, tf.newaxis], outputs["recons"], outputs["pred_mask"]
    ),
  }


def samples(recons: tf.Tensor) -> tf.Tensor:
  """Arranges up to 16 scenes [N, H, W, C] in a grid, [1, H', W', C]."""
  return images_to_grid(tf.clip_by_value(recons, 0.0, 1.0))[tf.newaxis]


def images_to_grid(
  images: tf.Tensor,
  grid_height: int | None = None,
  grid_width: int | None = 4,
  max_grid_height: int | None = 4,
  max_grid_width: int | None = 4,
  image_border_value: float | None = 0.5,
) -> tf.Tensor:
  """Arranges images in a grid, row by row.

  Surplus images are left out; empty cells have the border's value.

  Args:
    images: [B, H], [B, H, W] or [B, H, W, C] float.
    grid_height: rows of the grid; None: as many as needed for B.
    grid_width: columns of the grid; None: as many as needed for B.
    max_grid_height: maximum number of rows if `grid_height` is None.
    max_grid_width: maximum number of columns if `grid_width` is None.
    image_border_value: value of the border of 2 pixels around each image
      (only above and below for [B, H]); None: no border.

  Returns:
    [rows * H, columns * W, C], borders included; W and C are 1 if `images`
    lacks that dimension.

  Raises:
    ValueError: if `images` has another rank or is not float, if both
      `grid_height` and `grid_width` are None, or a size is not positive.
  """
  images = tf.convert_to_tensor(images)
  rank = images.shape.rank
  if rank not in (2, 3, 4) or not images.dtype.is_floating:
    raise ValueError(
      "images must be float of shape [B, H], [B, H, W] or [B, H, W, C], got "
      f"{images.dtype.name} of shape {images.shape}."
    )
  rows, cols = _grid_size(
    _shape(images)[0], grid_height, grid_width, max_grid_height, max_grid_width
  )
  images = tf.reshape(images, _shape(images) + [1] * (4 - rank))
  images = images[: rows * cols]
  num_empty = rows * cols - _shape(images)[0]
  images = tf.pad(
    images,
    [[0, num_empty], [0, 0], [0, 0], [0, 0]],
    constant_values=image_border_value or 0.0,
  )
  if image_border_value is not None:
    images = _pad(
      images, _GRID_BORDER_WIDTH, image_border_value, vertical_only=rank == 2
    )
  return _tile(tf.reshape(images, [rows, cols, *_shape(images)[1:]]))


def _grid_size(batch_size, rows, cols, max_rows, max_cols):
  """Returns rows and columns of a grid: ints, or tensors if unknown."""
  given = {
    "grid_height": rows,
    "grid_width": cols,
    "max_grid_height": max_rows,
    "max_grid_width": max_cols,
  }
  for name, size in given.items():
    if size is not None and (not isinstance(size, int) or size <= 0):
      raise ValueError(f"{name} must be a positive int or None, got {size!r}.")
  if rows is None and cols is None:
    raise ValueError(
      "grid_height and grid_width are both None; set at least one of them."
    )

  def fit(other, limit):
    needed = -(-batch_size // other)
    if limit is None:
      return needed
    return (min if isinstance(needed, int) else tf.minimum)(needed, limit)

  if rows is None:
    rows = fit(cols, max_rows)
  elif cols is None:
    cols = fit(rows, max_cols)
  return rows, cols


def _shape(tensor: tf.Tensor) -> list[Any]:
  """Returns the sizes of `tensor`: ints if known, else scalar tensors."""
  dynamic = tf.shape(tensor)
  return [
    dynamic[i] if size is None else size for i, size in enumerate(tensor.shape)
  ]


def _to_rgb(images: tf.Tensor, num_channels: int | None) -> tf.Tensor:
  """Repeats the channel of grayscale images [..., 1] three times.

  Args:
    images: [..., C], where C may be unknown while tracing.
    num_channels: C, possibly known only from another array.
  """
  if num_channels == 3:
    return tf.convert_to_tensor(images)
  if num_channels == 1:
    return tf.repeat(images, 3, axis=-1)
  raise ValueError(f"images have {num_channels} channels, expected 1 or 3.")


def _pad(
  images: tf.Tensor,
  width: int,
  value: float = _BORDER_VALUE,
  vertical_only: bool = False,
) -> tf.Tensor:
  """Draws a border of `width` pixels around images [..., H, W, C]."""
  horizontal = 0 if vertical_only else width
  paddings = [[0, 0]] * (images.shape.rank - 3) + [
    [width, width],
    [horizontal, horizontal],
    [0, 0],
  ]
  return tf.pad(images, paddings, constant_values=value)


def _tile(panels: tf.Tensor) -> tf.Tensor:
  """Joins panels [rows, cols, H, W, C] into one [rows * H, cols * W, C]."""
  rows, cols, height, width, channels = _shape(panels)
  panels = tf.transpose(panels, [0, 2, 1, 3, 4])
  return tf.reshape(panels, [rows * height, cols * width, channels])


def _clip(image: tf.Tensor, clip: bool) -> tf.Tensor:
  return tf.clip_by_value(image, 0.0, 1.0) if clip else image
