"""Reader for the CATER (with masks) video dataset."""

from __future__ import annotations

import tensorflow as tf

from iodine.tfrecords import reading as tfrecord_reading

__all__ = [
  "BYTE_FEATURES",
  "COMPRESSION_TYPE",
  "IMAGE_SIZE",
  "MAX_NUM_ENTITIES",
  "SEQUENCE_LENGTH",
  "dataset",
  "feature_descriptions",
]

# Compression of the released files; `dataset` reads any.
COMPRESSION_TYPE = "ZLIB"
IMAGE_SIZE = [64, 64]
# Frames per video.
SEQUENCE_LENGTH = 33
# Masks and positions per frame: the background and up to ten objects.
MAX_NUM_ENTITIES = 11
BYTE_FEATURES = ["image", "mask"]


def feature_descriptions(
  sequence_length: int = SEQUENCE_LENGTH,
  max_num_entities: int = MAX_NUM_ENTITIES,
) -> dict[str, tf.io.FixedLenFeature]:
  """Describes the features of one record.

  Args:
    sequence_length: T, frames per video.
    max_num_entities: L, masks and positions per frame.

  Returns:
    Feature descriptions for `tf.io.parse_single_example`. All images
    ([T, H, W, 3]) are one byte string, and so are all masks ([T, L, H, W, 1]);
    positions are stored as [L, T, 3].
  """
  return {
    "camera_matrix": tf.io.FixedLenFeature([sequence_length, 4, 4], tf.float32),
    "image": tf.io.FixedLenFeature([], tf.string),
    "mask": tf.io.FixedLenFeature([], tf.string),
    "object_positions": tf.io.FixedLenFeature(
      [max_num_entities, sequence_length, 3], tf.float32
    ),
  }


def _decode(example: tfrecord_reading.Example) -> tfrecord_reading.Example:
  frames = [SEQUENCE_LENGTH]
  shapes = {
    "image": frames + IMAGE_SIZE + [3],
    "mask": frames + [MAX_NUM_ENTITIES] + IMAGE_SIZE + [1],
  }
  decoded = dict(example)
  for key in BYTE_FEATURES:
    data = tf.io.decode_raw(example[key], tf.uint8)
    decoded[key] = tf.reshape(data, shapes[key])
  # [L, T, 3] -> [T, L, 3]
  decoded["object_positions"] = tf.transpose(
    example["object_positions"], [1, 0, 2]
  )
  return decoded


def dataset(
  tfrecords_path: tfrecord_reading.PathLike,
  read_buffer_size: int | None = None,
  map_parallel_calls: int | None = None,
) -> tf.data.Dataset:
  """Reads, decompresses and parses CATER files.

  Each split of the released videos has 100 files; name them with a glob such as
  "cater_with_masks_train.tfrecords-*-of-00100".

  T is `SEQUENCE_LENGTH`, L is `MAX_NUM_ENTITIES`.

  Args:
    tfrecords_path: one path or glob, or a sequence, a tensor or a dataset of
      these. The compression (gzip, zlib or none) is detected.
    read_buffer_size: bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: number of videos to parse in parallel; None: one.

  Returns:
    An unbatched dataset of dicts:
      image: [T, 64, 64, 3] uint8.
      mask: [T, L, 64, 64, 1] uint8, 255 where an entity owns the pixel, else 0.
      camera_matrix: [T, 4, 4] float32, orientation and position of the camera.
      object_positions: [T, L, 3] float32, position in scene units.

  Raises:
    FileNotFoundError: if a file does not exist or a glob matches none.
    ValueError: if a path is a directory, an empty file or not a TFRecord file,
      or a file is of another dataset.
  """
  return tfrecord_reading.read(
    tfrecords_path,
    feature_descriptions(),
    _decode,
    read_buffer_size,
    map_parallel_calls,
  )
