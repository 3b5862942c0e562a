"""Checks that batches fit a model.

Dimensions: B batch, T frames, L true entities, H height, W width, C channels,
n size of a factor.
"""

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from iodine import checks

__all__ = ["check_batch", "check_pixels"]

_SHAPES = {"image": "B T H W C", "mask": "B T L H W 1", "visibility": "B L"}


def check_batch(
  data: Mapping[str, Any],
  num_frames: int,
  num_background_entities: int,
) -> dict[str, Any]:
  """Checks a batch; keeps the frames and entries that a model uses.

  Checks dtypes and shapes, and in eager mode also pixel values.

  Args:
    data: image: [B, T, H, W, C] float32 in [0, 1], and optionally mask:
      [B, T, L, H, W, 1], visibility: [B, L] and factors: {name: [B, L, n]}.
    num_frames: T, the number of frames that the model needs.
    num_background_entities: how many leading true masks are background.

  Returns:
    The entries as tensors, with the first `num_frames` frames; mask float32.

  Raises:
    ValueError: names the entry, what was found and what was expected.
  """
  if "image" not in data:
    raise ValueError(f"data: there is no 'image', only {sorted(data)}")
  names = (*_SHAPES, "factors")
  checked = tf.nest.map_structure(
    tf.convert_to_tensor, {k: data[k] for k in names if k in data}
  )
  sizes = checks.check_shapes(_expected_shapes(checked))
  if sizes.get("T", 0) < num_frames:
    raise ValueError(
      f"image: the model needs {num_frames} frames, got shape "
      f"{checked['image'].shape}"
    )
  if checked["image"].dtype != tf.float32:
    raise ValueError(
      f"image: expected float32 in [0, 1], got {checked['image'].dtype.name}"
    )
  if tf.executing_eagerly():
    check_pixels(checked["image"])
  if sizes.get("L", math.inf) <= num_background_entities:
    raise ValueError(
      f"mask: {sizes['L']} entities, but num_background_entities="
      f"{num_background_entities} leaves no object"
    )
  for name in ("image", "mask"):
    if name in checked:
      checked[name] = checked[name][:, :num_frames]
  if "mask" in checked:  # a byte each until here
    checked["mask"] = tf.cast(checked["mask"], tf.float32)
  return checked


def _expected_shapes(data: Mapping[str, Any]) -> dict[str, tuple]:
  """The tensors of a batch, each with its dimension names."""
  shapes = {k: (data[k], _SHAPES[k]) for k in _SHAPES if k in data}
  for name, value in data.get("factors", {}).items():
    shapes[f"factor {name!r}"] = (value, "B L _")
  return shapes


def check_pixels(image: Any) -> None:
  """Checks that an image's values are in [0, 1]; not for use in a graph.

  Args:
    image: [...], of any type.

  Raises:
    ValueError: names a value out of range or NaN, and its index.
  """
  with tf.device("CPU"):  # where batches come from
    image = tf.convert_to_tensor(image)
    zero, one = tf.zeros([], image.dtype), tf.ones([], image.dtype)
    wrong = tf.logical_not((image >= zero) & (image <= one))  # so is NaN
    found = bool(tf.reduce_any(wrong))
  if found:
    place = tf.where(wrong)[0].numpy().tolist()
    raise ValueError(
      f"image: expected float32 in [0, 1], got {image.dtype.name} "
      f"{float(image[tuple(place)]):g} at {place}"
    )
