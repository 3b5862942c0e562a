"""Reader for the Tetrominoes dataset."""

from __future__ import annotations

import tensorflow as tf

from iodine.tfrecords import reading as tfrecord_reading

__all__ = [
  "BYTE_FEATURES",
  "COMPRESSION_TYPE",
  "IMAGE_SIZE",
  "MAX_NUM_ENTITIES",
  "dataset",
  "features",
]

# Compression of the released file; `dataset` reads any.
COMPRESSION_TYPE = "GZIP"
IMAGE_SIZE = [35, 35]
# Masks and factors per scene: the background and three tetrominoes.
MAX_NUM_ENTITIES = 4
BYTE_FEATURES = ["mask", "image"]

features = {
  "image": tf.io.FixedLenFeature(IMAGE_SIZE + [3], tf.string),
  "mask": tf.io.FixedLenFeature(
    [MAX_NUM_ENTITIES] + IMAGE_SIZE + [1], tf.string
  ),
  "x": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
  "y": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
  "shape": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
  "color": tf.io.FixedLenFeature([MAX_NUM_ENTITIES, 3], tf.float32),
  "visibility": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
}


def _decode(example: tfrecord_reading.Example) -> tfrecord_reading.Example:
  return tfrecord_reading.decode_bytes(example, BYTE_FEATURES)


def dataset(
  tfrecords_path: tfrecord_reading.PathLike,
  read_buffer_size: int | None = None,
  map_parallel_calls: int | None = None,
) -> tf.data.Dataset:
  """Reads, decompresses and parses Tetrominoes files.

  L is `MAX_NUM_ENTITIES`; entity 0 is the background.

  Args:
    tfrecords_path: one path or glob, or a sequence, a tensor or a dataset of
      these. The compression (gzip, zlib or none) is detected.
    read_buffer_size: bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: number of scenes to parse in parallel; None: one.

  Returns:
    An unbatched dataset of dicts:
      image: [35, 35, 3] uint8.
      mask: [L, 35, 35, 1] uint8, 255 where an entity owns the pixel, else 0.
      x, y: [L] float32, row and column of the top left corner, in pixels.
      shape: [L] float32, a whole number up to 19; 0 is the background.
      color: [L, 3] float32, RGB in {0, 1}.
      visibility: [L] float32, 1 where the entity is present, else 0.

  Raises:
    FileNotFoundError: if a file does not exist or a glob matches none.
    ValueError: if a path is a directory, an empty file or not a TFRecord file,
      or a file is of another dataset.
  """
  return tfrecord_reading.read(
    tfrecords_path, features, _decode, read_buffer_size, map_parallel_calls
  )
