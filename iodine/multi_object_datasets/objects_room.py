"""Reader for the Objects Room datasets."""

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
# Masks per scene and variant. The first four are sky, floor and two walls.
MAX_NUM_ENTITIES = {
  "train": 7,
  "six_objects": 10,
  "empty_room": 4,
  "identical_color": 10,
}
BYTE_FEATURES = ["mask", "image"]


def feature_descriptions(
  max_num_entities: int,
) -> dict[str, tf.io.FixedLenFeature]:
  """Describes the features of one record.

  Args:
    max_num_entities: masks per scene, including the background's.

  Returns:
    Feature descriptions for `tf.io.parse_single_example`.
  """
  return {
    "image": tf.io.FixedLenFeature(IMAGE_SIZE + [3], tf.string),
    "mask": tf.io.FixedLenFeature(
      [max_num_entities] + IMAGE_SIZE + [1], tf.string
    ),
  }


def _decode(example: tfrecord_reading.Example) -> tfrecord_reading.Example:
  return tfrecord_reading.decode_bytes(example, BYTE_FEATURES)


def dataset(
  tfrecords_path: tfrecord_reading.PathLike,
  dataset_variant: str,
  read_buffer_size: int | None = None,
  map_parallel_calls: int | None = None,
) -> tf.data.Dataset:
  """Reads, decompresses and parses Objects Room files.

  L is `MAX_NUM_ENTITIES[dataset_variant]`; entities 0 to 3 are the background:
  sky, floor and two halves of the wall.

  Args:
    tfrecords_path: one path or glob, or a sequence, a tensor or a dataset of
      these. The compression (gzip, zlib or none) is detected.
    dataset_variant: "train", "six_objects", "empty_room" or
      "identical_color". Must be the variant of the file.
    read_buffer_size: bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: number of scenes to parse in parallel; None: one.

  Returns:
    An unbatched dataset of dicts:
      image: [64, 64, 3] uint8.
      mask: [L, 64, 64, 1] uint8, 255 where an entity owns the pixel, else 0.

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
  features = feature_descriptions(MAX_NUM_ENTITIES[dataset_variant])
  return tfrecord_reading.read(
    tfrecords_path, features, _decode, read_buffer_size, map_parallel_calls
  )
