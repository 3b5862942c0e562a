"""Reader for the CLEVR (with masks) dataset."""

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
IMAGE_SIZE = [240, 320]
# Masks and factors per scene: the background and up to ten objects.
MAX_NUM_ENTITIES = 11
BYTE_FEATURES = ["mask", "image", "color", "material", "shape", "size"]

features = {
  "image": tf.io.FixedLenFeature(IMAGE_SIZE + [3], tf.string),
  "mask": tf.io.FixedLenFeature(
    [MAX_NUM_ENTITIES] + IMAGE_SIZE + [1], tf.string
  ),
  "x": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
  "y": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
  "z": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
  "pixel_coords": tf.io.FixedLenFeature([MAX_NUM_ENTITIES, 3], tf.float32),
  "rotation": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
  "size": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.string),
  "material": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.string),
  "shape": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.string),
  "color": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.string),
  "visibility": tf.io.FixedLenFeature([MAX_NUM_ENTITIES], tf.float32),
}


def _decode(example: tfrecord_reading.Example) -> tfrecord_reading.Example:
  return tfrecord_reading.decode_bytes(example, BYTE_FEATURES)


def dataset(
  tfrecords_path: tfrecord_reading.PathLike,
  read_buffer_size: int | None = None,
  map_parallel_calls: int | None = None,
) -> tf.data.Dataset:
  """Reads, decompresses and parses CLEVR files.

  L is `MAX_NUM_ENTITIES`; entity 0 is the background.

  Args:
    tfrecords_path: one path or glob, or a sequence, a tensor or a dataset of
      these. The compression (gzip, zlib or none) is detected.
    read_buffer_size: bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: number of scenes to parse in parallel; None: one.

  Returns:
    An unbatched dataset of dicts:
      image: [240, 320, 3] uint8.
      mask: [L, 240, 320, 1] uint8, 255 where an entity owns the pixel, else 0.
      x, y, z: [L] float32, position in scene units.
      pixel_coords: [L, 3] float32, position in the image and depth.
      rotation: [L] float32.
      size, material, shape, color: [L] uint8, counted from 1; 0: no object.
      visibility: [L] float32, 1 where the entity is present, else 0.

  Raises:
    FileNotFoundError: if a file does not exist or a glob matches none.
    ValueError: if a path is a directory, an empty file or not a TFRecord file,
      or a file is of another dataset.
  """
  return tfrecord_reading.read(
    tfrecords_path, features, _decode, read_buffer_size, map_parallel_calls
  )
