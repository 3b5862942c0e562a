"""Turns stored scenes into model inputs.

Dimensions: T frames, L true entities, h, w stored height and width, H, W height
and width after resizing, C channels, n size of a factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import checks

__all__ = [
  "check_scene_spec",
  "convert_images",
  "cropped_size",
  "masks_of_labels",
  "num_objects",
  "preprocess",
  "resize",
  "visibility",
]


def visibility(
  example: Mapping[str, Any], num_background_entities: int
) -> tf.Tensor:
  """Returns which entities are present, as stored or computed from the masks.

  Args:
    example: a stored scene with `visibility`, [L] float32, or with `mask`,
      [L, h, w, 1] or [T, L, h, w, 1] uint8.
    num_background_entities: number of leading entities that are background.

  Returns:
    [L] float32; if computed, 1 for the background and for entities that own a
    pixel in any frame.
  """
  if "visibility" in example:
    return example["visibility"]
  mask = example["mask"]
  axes = [1, 2, 3] if mask.shape.rank == 4 else [0, 2, 3, 4]
  seen = tf.reduce_any(mask > 0, axis=axes)
  is_background = np.arange(seen.shape[0]) < num_background_entities
  return tf.cast(seen | is_background, tf.float32)


def num_objects(
  example: Mapping[str, Any], num_background_entities: int
) -> tf.Tensor:
  """Number of present foreground objects, scalar int32; see `visibility`."""
  visible = tf.reduce_sum(visibility(example, num_background_entities))
  return tf.cast(tf.round(visible), tf.int32) - num_background_entities


def masks_of_labels(labels: tf.Tensor, num_entities: int) -> tf.Tensor:
  """Turns a label map into masks.

  Args:
    labels: [..., h, w] signed integers; what is no number of an entity, from 0
      on, belongs to none.
    num_entities: L.

  Returns:
    [..., L, h, w, 1] uint8, 255 where an entity owns the pixel, else 0.
  """
  entities = tf.range(num_entities)[:, tf.newaxis, tf.newaxis]
  owned = tf.cast(labels, tf.int32)[..., tf.newaxis, :, :] == entities
  return tf.cast(owned, tf.uint8)[..., tf.newaxis] * 255


def preprocess(
  example: Mapping[str, Any],
  image_dim: Sequence[int],
  crop_region: Sequence[Sequence[int]] | None = None,
  grayscale: bool = False,
  num_background_entities: int = 1,
  half_pixel_centers: bool = False,
  mask_dim: Sequence[int] | None = None,
) -> dict[str, Any]:
  """Crops, resizes and converts a stored scene.

  Args:
    example: image [h, w, C] or [T, h, w, C] uint8; optionally mask, [L, h, w,
      1] or [T, L, h, w, 1] uint8, 255 where an entity owns the pixel, else 0;
      visibility [L] float32; factors {name: [L] or [L, n]}.
    image_dim: (H, W).
    crop_region: ((top, bottom), (left, right)) to crop to first; None: all.
    grayscale: whether to replace the channels by their mean.
    num_background_entities: how many of the L entities are background.
    half_pixel_centers: see `resize`.
    mask_dim: (H', W') of the masks; None: (H, W).

  Returns:
    image [T, H, W, C] float32 in [0, 1], resized by bilinear interpolation;
    with masks also mask [T, L, H', W', 1] uint8 in {0, 1}, by nearest
    neighbour, and visibility [L] float32; factors {name: [L, n]}, if any.
  """
  image = tf.cast(_cut(_frames(example["image"], 4), crop_region), tf.float32)
  image = resize(image / 255.0, image_dim, "bilinear", half_pixel_centers)
  if grayscale:
    image = tf.reduce_mean(image, axis=-1, keepdims=True)
  scene: dict[str, Any] = {"image": image}
  if "mask" in example:
    mask = _cut(_frames(example["mask"], 5), crop_region)
    flat = tf.reshape(mask, [-1, *mask.shape[2:]])
    flat = resize(flat, mask_dim or image_dim, "nearest", half_pixel_centers)
    mask = tf.reshape(flat, [*mask.shape[:2], *flat.shape[1:]])
    scene["mask"] = tf.cast(mask > 127, tf.uint8)
    scene["visibility"] = visibility(example, num_background_entities)
  if "factors" in example:
    scene["factors"] = {
      name: factor if factor.shape.rank == 2 else factor[:, tf.newaxis]
      for name, factor in example["factors"].items()
    }
  return scene


def convert_images(images: Any, shape: tuple[int, ...]) -> tf.Tensor:
  """Converts your own images to a batch.

  Args:
    images: [H, W, C] or [B, H, W, C], uint8, or float in [0, 1].
    shape: (H, W, C).

  Returns:
    [B, 1, H, W, C] float32.

  Raises:
    ValueError: if the shape, dtype or range is wrong.
  """
  images = np.asarray(images)
  if images.ndim not in (3, 4) or images.shape[-3:] != shape:
    raise ValueError(
      f"images: expected shape [H, W, C] = {list(shape)}, with or "
      f"without a batch axis before it, got {list(images.shape)}. Resize "
      "the images, and drop an alpha channel."
    )
  if images.dtype == np.uint8:
    images = images / np.float32(255.0)
  elif not np.issubdtype(images.dtype, np.floating):
    raise ValueError(
      f"images: expected uint8, or floats in [0, 1], got {images.dtype}."
    )
  # Written so that NaN fails too.
  elif not (images.size and images.min() >= 0 and images.max() <= 1):
    raise ValueError(
      "images: expected floats in [0, 1], got values outside. Divide "
      "intensities up to 255 by 255."
    )
  images = images.reshape((-1, 1, *shape))
  return tf.convert_to_tensor(images, tf.float32)


def resize(
  images: tf.Tensor,
  size: Sequence[int],
  method: str,
  half_pixel_centers: bool = False,
) -> tf.Tensor:
  """Resizes [N, h, w, C] without antialiasing.

  Args:
    images: [N, h, w, C], of any dtype for "nearest".
    size: (H, W).
    method: "nearest" or "bilinear".
    half_pixel_centers: whether output pixel i samples the input at
      (i + 0.5) * h / H - 0.5, as `tf.image.resize` does, or at i * h / H like
      TensorFlow 1, which shifts the image by up to half a pixel.

  Returns:
    [N, H, W, C], float32 for "bilinear".
  """
  if tuple(images.shape[1:3]) == tuple(size):
    return images
  resize_op = (
    tf.raw_ops.ResizeNearestNeighbor
    if method == "nearest"
    else tf.raw_ops.ResizeBilinear
  )
  return resize_op(
    images=images,
    size=list(size),
    align_corners=False,
    half_pixel_centers=half_pixel_centers,
  )


def _frames(tensor: tf.Tensor, rank: int) -> tf.Tensor:
  """Adds the frame axis if it is missing."""
  return tensor if tensor.shape.rank == rank else tensor[tf.newaxis]


def _cut(
  tensor: tf.Tensor, crop_region: Sequence[Sequence[int]] | None
) -> tf.Tensor:
  """Crops [..., h, w, C] to the region."""
  if crop_region is None:
    return tensor
  (top, bottom), (left, right) = crop_region
  return tensor[..., top:bottom, left:right, :]


def cropped_size(
  size: Sequence[int], crop_region: Sequence[Sequence[int]] | None
) -> tuple[int, int]:
  """Size (h, w) of what is left of a stored image of a size."""
  if crop_region is None:
    height, width = size
    return height, width
  (top, bottom), (left, right) = crop_region
  return bottom - top, right - left


def check_scene_spec(
  name: str,
  spec: Mapping[str, tf.TensorSpec],
  dims: Mapping[str, str],
  num_frames: int = 1,
  crop_region: Sequence[Sequence[int]] | None = None,
  bounds: Mapping[str, int] | None = None,
) -> None:
  """Checks that stored scenes match their dataset's description.

  Args:
    name: name of the dataset in errors.
    spec: structure of a scene, see `IODINEDataset.examples`.
    dims: {"image": dimensions}, with masks also "mask", without the frame axis,
      in the format of `checks.check_shapes`.
    num_frames: T; the axis is optional if T is 1.
    crop_region: ((top, bottom), (left, right)) to crop to; None: all.
    bounds: {option: value} of the filter by number of objects.

  Raises:
    ValueError: if an entry is missing, has the wrong dtype or shape, or
      conflicts with the options.
  """
  absent = set(dims) - set(spec)
  if absent:
    raise ValueError(
      f"{name}: the scenes have no {sorted(absent)}, only {sorted(spec)}."
    )
  if bounds and "mask" not in dims:
    given = " and ".join(f"{key}={value}" for key, value in bounds.items())
    raise ValueError(
      f"{name}: there are no masks to count objects by, so leave out {given}."
    )
  sizes = _stored_sizes(name, spec, dims, num_frames)
  if crop_region is not None:
    (_, bottom), (_, right) = crop_region
    if bottom > sizes["H"] or right > sizes["W"]:
      raise ValueError(
        f"{name}: crop_region={crop_region} reaches beyond the stored image "
        f"of {sizes['H']} rows and {sizes['W']} columns."
      )


def _stored_sizes(
  name: str,
  spec: Mapping[str, tf.TensorSpec],
  dims: Mapping[str, str],
  num_frames: int,
) -> dict[str, int]:
  """Checks dtypes and shapes; returns the sizes of the dimensions in `dims`."""
  for key in dims:
    if spec[key].dtype != tf.uint8 or not spec[key].shape.is_fully_defined():
      raise ValueError(
        f"{name}: {key} must be uint8 of a static shape, not {spec[key]}."
      )
  if num_frames > 1 or spec["image"].shape.rank == 4:
    dims = {key: f"{num_frames} {value}" for key, value in dims.items()}
  try:
    return checks.check_shapes({key: (spec[key], dims[key]) for key in dims})
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from None
