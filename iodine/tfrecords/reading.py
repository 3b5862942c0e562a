"""Reads TFRecord files, from paths to decoded scenes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from iodine.tfrecords import damage, inspection
from iodine.tfrecords import format as tfrecord_format
from iodine.tfrecords.format import PathLike

__all__ = ["Example", "PathLike", "decode_bytes", "read"]

Example = dict[str, tf.Tensor]

# Tag before each string of a `tf.train.BytesList`: field 1, with a length.
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
    tfrecords_path: one path or glob, or a sequence of these, read in turn. The
      compression (gzip, zlib or none) is detected.
    features: descriptions of the features of a record.
    decode: maps parsed features to the features of a scene.
    read_buffer_size: bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: number of scenes to parse in parallel; None: one.

  Returns:
    An unbatched dataset of what `decode` returns. If a file turns out to be
    damaged, truncated or of mixed records, iterating raises one of
    `inspection.READ_ERRORS`; `inspection.explain` extracts file, record and
    likely cause. (An uncompressed file that was cut exactly between two records
    goes unnoticed.)

  Raises:
    FileNotFoundError: if a file does not exist or a glob matches none.
    ValueError: if a path is a directory, an empty file or not a TFRecord file,
      or its first record does not match `features`.
  """

  def parse(record: tf.Tensor, name: tf.Tensor, *_: tf.Tensor) -> Example:
    with tf.control_dependencies([_check_lengths(record, name)]):
      # TensorFlow's errors name only examples in a batch.
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
  """Converts features of one-byte strings to uint8.

  Args:
    example: parsed features.
    keys: names of the features to decode: tensors of one-byte strings.

  Returns:
    A copy of `example` in which these features are uint8, of the same shape.
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

  TensorFlow ends a file silently at an incomplete record head, where compressed
  data is cut between two records, and after the first of several zlib streams.
  Its errors never name the record, and some not even the file. So reading
  always ends with a check that nothing is left.
  """
  records = tf.data.TFRecordDataset(
    path, compression_type=compression, buffer_size=read_buffer_size
  ).ignore_errors()
  # A file that cannot be opened fails endlessly; never ignore that error.
  first_byte = tf.data.FixedLengthRecordDataset(path, record_bytes=1).take(1)
  records = first_byte.flat_map(lambda _: records)
  # An example is never empty, so an empty record can mark the end.
  records = records.concatenate(tf.data.Dataset.from_tensors(b""))

  def check_end(index, size):
    return tf.cond(
      size % 2**32 == stated_size,
      lambda: False,
      lambda: tf.numpy_function(
        _check_end, [path, compression, index, size], tf.bool
      ),
    )

  # One function, because each call costs tens of microseconds per record.
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
  """Calls `check_end` with a graph's values; False: there is no more record."""
  damage.check_end(path.decode(), compression.decode(), int(index), int(size))
  return False


def _check_lengths(record: tf.Tensor, name: tf.Tensor) -> tf.Tensor:
  """Rejects a record that would crash TensorFlow's parser.

  The parser ends the process for a string that claims 2^31 bytes or more. Such
  a length follows the tag of a string in a list, and its first four bytes have
  their highest bit set; protobuf's parser rules out other matches.
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
  """Raises ValueError unless a record is a `tf.train.Example`."""
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
