"""Reader for the Multi-dSprites datasets."""

from __future__ import annotations

import tensorflow as tf

from iodine.tfrecords import reading as tfrecord_reading

__all__ = [
  "BYTE_FEATURES",
  "COMPRESSION_TYPE",
  "IMAGE_SIZE",
  "MAX_NUM_ENTITIES",
  "dataset",
  "feature_descriptions",
]

# Compression of the released files; `dataset` reads any.
COMPRESSION_TYPE = "GZIP"
IMAGE_SIZE = [64, 64]
# Masks and factors per scene and variant, including the background.
MAX_NUM_ENTITIES = {
  "binarized": 4,
  "colored_on_grayscale": 6,
  "colored_on_colored": 5,
}
BYTE_FEATURES = ["mask", "image"]


def feature_descriptions(
  max_num_entities: int, is_grayscale: bool = False
) -> dict[str, tf.io.FixedLenFeature]:
  """Describes the features of one record.

  Args:
    max_num_entities: masks and factors per scene, including the background.
    is_grayscale: whether images and colors have one channel instead of three.

  Returns:
    Feature descriptions for `tf.io.parse_single_example`. The mask is stored
    as [H, W, L, 1].
  """
  num_channels = 1 if is_grayscale else 3
  entities = [max_num_entities]
  return {
    "image": tf.io.FixedLenFeature(IMAGE_SIZE + [num_channels], tf.string),
    "mask": tf.io.FixedLenFeature(IMAGE_SIZE + entities + [1], tf.string),
    "x": tf.io.FixedLenFeature(entities, tf.float32),
    "y": tf.io.FixedLenFeature(entities, tf.float32),
    "shape": tf.io.FixedLenFeature(entities, tf.float32),
    "color": tf.io.FixedLenFeature(entities + [num_channels], tf.float32),
    "visibility": tf.io.FixedLenFeature(entities, tf.float32),
    "orientation": tf.io.FixedLenFeature(entities, tf.float32),
    "scale": tf.io.FixedLenFeature(entities, tf.float32),
  }


def _decode(example: tfrecord_reading.Example) -> tfrecord_reading.Example:
  example = tfrecord_reading.decode_bytes(example, BYTE_FEATURES)
  # [H, W, L, 1] -> [L, H, W, 1], as in the other datasets.
  example["mask"] = tf.transpose(example["mask"], [2, 0, 1, 3])
  return example


def dataset(
  tfrecords_path: tfrecord_reading.PathLike,
  dataset_variant: str,
  read_buffer_size: int | None = None,
  map_parallel_calls: int | None = None,
) -> tf.data.Dataset:
  """Reads, decompresses and parses Multi-dSprites files.

  L is `MAX_NUM_ENTITIES[dataset_variant]`; entity 0 is the background. C is 1
  for "binarized", else 3.

  Args:
    tfrecords_path: one path or glob, or a sequence, a tensor or a dataset of
      these. The compression (gzip, zlib or none) is detected.
    dataset_variant: "binarized", "colored_on_grayscale" or
      "colored_on_colored". Must be the variant of the file.
    read_buffer_size: bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: number of scenes to parse in parallel; None: one.

  Returns:
    An unbatched dataset of dicts:
      image: [64, 64, C] uint8.
      mask: [L, 64, 64, 1] uint8, 255 where an entity owns the pixel, else 0.
      x, y: [L] float32, position of the sprite.
      shape: [L] float32, a whole number.
      color: [L, C] float32.
      orientation: [L] float32, radians.
      scale: [L] float32.
      visibility: [L] float32, 1 where the entity is present, else 0.

  Raises:
    FileNotFoundError: if a file does not exist or a glob matches none.
    ValueError: if the variant is unknown, a path is a directory, an empty file
      or not a TFRecord file, or a file is of another dataset or variant.
  """
  if dataset_variant not in MAX_NUM_ENTITIES:
    raise ValueError(
      f"dataset_variant={dataset_variant!r}: expected one of "
      f"{list(MAX_NUM_ENTITIES)}."
    )
  features = feature_descriptions(
    MAX_NUM_ENTITIES[dataset_variant], dataset_variant == "binarized"
  )
  return tfrecord_reading.read(
    tfrecords_path, features, _decode, read_buffer_size, map_parallel_calls
  )
