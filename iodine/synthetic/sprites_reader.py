"""Reader for files of `iodine.synthetic.sprites`."""

import tensorflow as tf

from iodine.synthetic import sprites
from iodine.tfrecords import reading as tfrecord_reading

__all__ = ["dataset", "features"]

features = {
  name: tf.io.FixedLenFeature(
    feature.shape, tf.string if feature.kind == "bytes" else tf.float32
  )
  for name, feature in sprites.FEATURES.items()
}
_BYTE_FEATURES = [
  name for name, feature in sprites.FEATURES.items() if feature.kind == "bytes"
]


def _decode(example: tfrecord_reading.Example) -> tfrecord_reading.Example:
  return tfrecord_reading.decode_bytes(example, _BYTE_FEATURES)


def dataset(
  tfrecords_path: tfrecord_reading.PathLike,
  read_buffer_size: int | None = None,
  map_parallel_calls: int | None = None,
) -> tf.data.Dataset:
  """Reads, decompresses and parses files of sprites.

  Args:
    tfrecords_path: one path or a sequence of paths. The compression (gzip,
      zlib or none) is detected.
    read_buffer_size: bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: number of scenes to parse in parallel; None: one.

  Returns:
    An unbatched dataset of dicts, as from `sprites.sample_scenes` but without
    the batch axis.

  Raises:
    FileNotFoundError: if a file does not exist.
    ValueError: if a path is a directory, an empty file or not a TFRecord file.
  """
  return tfrecord_reading.read(
    tfrecords_path, features, _decode, read_buffer_size, map_parallel_calls
  )
