"""Reading of TFRecord files: from paths to decoded scenes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from iodine.tfrecords import damage, inspection
from iodine.tfrecords import format as tfrecord_format
from iodine.tfrecords.format import PathLike

__all__ = ["Example", "PathLike", "decode_bytes", "read"]

Example = dict[str, tf.Tensor]

# Before each string of a `tf.train.BytesList`: field 1, with a length.
_STRING_TAG = 0x0A


def read(
  tfrecords_path: PathLike,
  features: Mapping[str, tf.io.FixedLenFeature],
  decode: Callable[[Example], Example],
  read_buffer_size: int | None = None,
  map_parallel_calls: int | None = None,
) -> tf.data.Dataset:
  """Reads, inflates, parses and decodes TFRecord files.

  Args:
    tfrecords_path: One path or glob, or a sequence of these, read one after the
      other. The compression (gzip, zlib or none) is detected.
    features: Of a record.
    decode: Maps parsed features to those of a scene.
    read_buffer_size: Bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: Number of scenes to parse at the same time; None: one.

  Returns:
    An unbatched dataset of what `decode` returns. Where a file turns out to be
    damaged, cut off or of several kinds of records, iterating over it raises
    one of `inspection.READ_ERRORS` that names file, record and likely cause;
    `inspection.explain` gives its text. (That a file without compression was
    cut just between two records cannot be noticed.)

  Raises:
    FileNotFoundError: if a file does not exist or a glob matches none.
    ValueError: if a path is a directory, an empty file or no TFRecord file, or
      its first record does not fit.
  """

  def parse(record: tf.Tensor, name: tf.Tensor, *_: tf.Tensor) -> Example:
    with tf.control_dependencies([_check_lengths(record, name)]):
      # TensorFlow's errors name only an example that is in a batch.
      batch = tf.io.parse_example(
        record[tf.newaxis], features, name[tf.newaxis]
      )
    return decode({key: value[0] for key, value in batch.items()})

  paths = tfrecord_format.expand_paths(tfrecords_path)
  compressions = [tfrecord_format.detect_compression(path) for path in paths]
  for path, compression in zip(paths, compressions, strict=True):
    _check_first_record(path, compression, features, parse)
  sizes = tf.constant(
    list(map(damage.stated_size, paths, compressions)), tf.int64
  )
  files = tf.data.Dataset.from_tensor_slices((paths, compressions, sizes))
  records = files.flat_map(
    functools.partial(_open_records, read_buffer_size=read_buffer_size)
  )
  return records.map(parse, num_parallel_calls=map_parallel_calls)


def decode_bytes(example: Example, keys: Sequence[str]) -> Example:
  """Turns features of one byte a string into uint8.

  Args:
    example: Parsed features.
    keys: The features to decode: string tensors, each string one byte long.

  Returns:
    A new dict of the same shapes, in which the named features are uint8.
  """
  decoded = dict(example)
  for key in keys:
    # decode_raw appends an axis for the bytes of one string.
    decoded[key] = tf.squeeze(tf.io.decode_raw(example[key], tf.uint8), axis=-1)
  return decoded


def _open_records(
  path: tf.Tensor,
  compression: tf.Tensor,
  stated_size: tf.Tensor,
  *,
  read_buffer_size: int | None,
) -> tf.data.Dataset:
  """Opens one file as a dataset of triples: a record, its name, and True.

  TensorFlow ends a file silently where no more than a part of a record's head
  is left, where compressed data break off between two records, and after the
  first of several zlib streams. Its errors name neither the record nor, some of
  them, the file. So whatever ends the reading is followed by a check that
  nothing is left.
  """
  records = tf.data.TFRecordDataset(
    path, compression_type=compression, buffer_size=read_buffer_size
  ).ignore_errors()
  # A file that cannot be opened is an error without end, one never to ignore.
  first_byte = tf.data.FixedLengthRecordDataset(path, record_bytes=1).take(1)
  records = first_byte.flat_map(lambda _: records)
  # An example is never empty, so that an empty record can mark the end.
  records = records.concatenate(tf.data.Dataset.from_tensors(b""))

  def check_end(index, size):
    return tf.cond(
      size % 2**32 == stated_size,
      lambda: False,
      lambda: tf.numpy_function(
        _check_end, [path, compression, index, size], tf.bool
      ),
    )

  # All in one function, as each takes tens of microseconds a record to call.
  def count(counts, record):
    index, size = counts
    length = tf.cast(tf.strings.length(record), tf.int64)
    name = tf.strings.join(
      [path, damage.RECORD_INFIX, tf.strings.as_string(index)]
    )
    goes_on = tf.cond(length > 0, lambda: True, lambda: check_end(index, size))
    counts_after = (index + 1, size + length + tfrecord_format.RECORD_OVERHEAD)
    return counts_after, (record, name, goes_on)

  start = (tf.constant(0, tf.int64), tf.constant(0, tf.int64))
  return records.scan(start, count).take_while(lambda *element: element[-1])


def _check_end(path: bytes, compression: bytes, index: int, size: int) -> bool:
  """Calls `check_end` with what a graph passes; there is no further record."""
  damage.check_end(path.decode(), compression.decode(), int(index), int(size))
  return False


def _check_lengths(record: tf.Tensor, name: tf.Tensor) -> tf.Tensor:
  """Keeps a record from TensorFlow's parser that would crash it.

  The parser ends the process for a string that claims 2^31 bytes or more. Such
  a length follows the tag of a string in a list, and its first four bytes have
  their highest bit set; what else looks like it is told by protobuf's parser.
  """
  data = tf.io.decode_raw(record, tf.uint8)
  two = tf.bitwise.bitwise_and(data[:-1], data[1:])
  four = tf.bitwise.bitwise_and(two[1:-2], two[3:])
  looks_long = (data[:-4] == _STRING_TAG) & (four >= 0x80)
  return tf.cond(
    tf.reduce_any(looks_long),
    lambda: tf.py_function(_check_example, [record, name], tf.bool),
    lambda: True,
  )


def _check_example(record: tf.Tensor, name: tf.Tensor) -> bool:
  """Raises ValueError unless a record is an example."""
  try:
    inspection.record_features(record.numpy())
  except ValueError as error:
    raise ValueError(f"{name.numpy().decode()}: {error}") from None
  return True


def _check_first_record(
  path: str,
  compression: str,
  features: Mapping[str, tf.io.FixedLenFeature],
  parse: Callable[..., Example],
) -> None:
  """Raises ValueError unless a file's first record can be parsed."""
  record = tfrecord_format.first_record(path, compression)
  name = damage.record_name(path, 0)
  try:
    with tf.init_scope(), tf.device("CPU"):
      parse(tf.constant(record), tf.constant(name))
  except damage.READ_ERRORS as error:
    fault = damage.explain(error, source=name)
  except ValueError as error:
    fault = f"{name}: {error}"
  else:
    return
  expected = inspection.expected_features(features)
  raise ValueError(
    f"{fault}\n"
    f"  expected: {inspection.format_features(expected)}\n"
    f"  found: {_found(record)}"
  )


def _found(record: bytes) -> str:
  try:
    return inspection.format_features(inspection.record_features(record))
  except ValueError as error:
    return str(error)
