"""Reads TFRecord files, from paths to decoded scenes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
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
    tfrecords_path: one path or glob, or a sequence, a tensor or a dataset of
      these, read in turn. The compression (gzip, zlib or none) is detected.
    features: descriptions of the features of a record.
    decode: maps parsed features to the features of a scene.
    read_buffer_size: bytes in the read buffer; None: TensorFlow's default.
    map_parallel_calls: number of scenes to parse in parallel; None: one.

  Returns:
    An unbatched dataset of what `decode` returns; in graph mode, with the
    methods of TensorFlow 1 such as `make_one_shot_iterator`. If a file turns
    out to be damaged, truncated or of mixed records, iterating raises one of
    `inspection.READ_ERRORS`; `inspection.explain` extracts file, record and
    likely cause. (An uncompressed file that was cut exactly between two records
    goes unnoticed.)

  Raises:
    FileNotFoundError: if a file does not exist or a glob matches none.
    ValueError: if a path is a directory, an empty file or not a TFRecord file,
      or its first record does not match `features`. Paths that only a graph
      will know are looked at as they are read; in graph mode, so are records.
  """

  def parse(record: tf.Tensor, name: tf.Tensor) -> Example:
    with tf.control_dependencies([_check_lengths(record, name)]):
      # TensorFlow's errors name only examples in a batch.
      batch = tf.io.parse_example(
        record[tf.newaxis], features, name[tf.newaxis]
      )
    return decode({key: value[0] for key, value in batch.items()})

  is_eager = tf.compat.v1.executing_eagerly_outside_functions()
  names = _unknown_names(tfrecords_path)
  if names is None:
    located = _locate(tfrecords_path)
    if is_eager:
      for path, compression, _ in zip(*located, strict=True):
        _check_first_record(path, compression, features, parse)
    files = tf.data.Dataset.from_tensor_slices(located)
  else:
    files = names.flat_map(_locate_in_graph)
  records = files.flat_map(
    functools.partial(_open_records, read_buffer_size=read_buffer_size)
  )
  scenes = records.map(parse, num_parallel_calls=map_parallel_calls)
  if is_eager:
    return scenes
  return tf.compat.v1.data.Dataset.range(1).flat_map(lambda _: scenes)


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


def _unknown_names(tfrecords_path: Any) -> tf.data.Dataset | None:
  """Makes a dataset of paths that only a graph will know; None: they are known.

  Raises:
    ValueError: if it is a dataset of something else.
  """
  if isinstance(tfrecords_path, tf.data.Dataset):
    spec = tfrecords_path.element_spec
    if getattr(spec, "dtype", None) != tf.string:
      raise ValueError(
        f"tfrecords_path is a dataset of {spec}: expected one of strings."
      )
    return tfrecords_path
  parts = tf.nest.flatten(tfrecords_path)
  if all(tf.get_static_value(x) is not None for x in parts if tf.is_tensor(x)):
    return None
  names = tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)
  return tf.data.Dataset.from_tensors(names)


def _locate(
  tfrecords_path: PathLike,
) -> tuple[list[str], list[str], list[int]]:
  """Returns paths, compressions and sizes in bytes of files."""
  paths = tfrecord_format.expand_paths(tfrecords_path)
  compressions = [tfrecord_format.detect_compression(path) for path in paths]
  sizes = [tf.io.gfile.stat(path).length for path in paths]
  return paths, compressions, sizes


def _locate_in_graph(names: tf.Tensor) -> tf.data.Dataset:
  types = (tf.string, tf.string, tf.int64)
  files = tf.numpy_function(_locate, [tf.reshape(names, [-1])], types)
  return tf.data.Dataset.from_tensor_slices(
    tuple(tf.ensure_shape(column, [None]) for column in files)
  )


def _open_records(
  path: tf.Tensor,
  compression: tf.Tensor,
  file_bytes: tf.Tensor,
  *,
  read_buffer_size: int | None,
) -> tf.data.Dataset:
  """Opens one file as a dataset of pairs: a record, and its name.

  TensorFlow believes a record's head, whatever length that claims. It ends a
  file silently at an incomplete head, where compressed data is cut between two
  records, and after the first of several zlib streams. Its errors never name
  the record, and some not even the file. So it is asked for no record but those
  whose heads have been checked, and has to give every one of them.
  """
  records = tf.data.TFRecordDataset(
    path, compression_type=compression, buffer_size=read_buffer_size
  ).ignore_errors()
  # A file that cannot be opened fails endlessly; never ignore that error.
  first_byte = tf.data.FixedLengthRecordDataset(path, record_bytes=1).take(1)
  records = first_byte.flat_map(lambda _: records)
  # An example is never empty, so an empty record can mark the end.
  records = records.concatenate(tf.data.Dataset.from_tensors(b""))

  def check_next(index, _):
    count = tf.numpy_function(
      _check_next, [path, compression, file_bytes, index], tf.int64
    )
    count = tf.ensure_shape(count, [])
    return count, count - index

  def name_record(index, record):
    name = tf.strings.join(
      [path, damage.RECORD_INFIX, tf.strings.as_string(index)]
    )
    check = tf.cond(
      tf.strings.length(record) > 0,
      lambda: True,
      lambda: tf.numpy_function(_unread, [path, compression, index], tf.bool),
    )
    with tf.control_dependencies([check]):
      return tf.identity(record), name

  # Numbers of records, each checked when the first of them is asked for.
  zero = tf.constant(0, tf.int64)
  stretches = tf.data.Dataset.counter().scan(zero, check_next)
  stretches = stretches.take_while(lambda length: length > 0)
  choices = stretches.flat_map(tf.data.Dataset.from_tensors(zero).repeat)
  # Unlike `zip`, this reads no record after the choices' end, or their error.
  records = tf.data.Dataset.choose_from_datasets([records], choices)
  return records.enumerate().map(name_record)


def _check_next(
  path: bytes, compression: bytes, file_bytes: int, index: int
) -> np.int64:
  """Calls `damage.check_next` with a graph's values."""
  place = os.fsdecode(path), compression.decode()
  return np.int64(damage.check_next(*place, int(file_bytes), int(index)))


def _unread(path: bytes, compression: bytes, index: int) -> bool:
  raise damage.unread(os.fsdecode(path), compression.decode(), int(index))


def _check_lengths(record: tf.Tensor, name: tf.Tensor) -> tf.Tensor:
  """Rejects a record that would crash TensorFlow's parser.

  The parser ends the process for a string that claims 2^31 bytes or more. Such
  a length follows the tag of a string in a list, and its first four bytes have
  their highest bit set; protobuf's parser rules out other matches.
  """
  data = tf.io.decode_raw(record, tf.uint8)
  two = tf.bitwise.bitwise_and(data[:-1], data[1:])
  four = tf.bitwise.bitwise_and(two[1:-2], two[3:])
  looks_long = tf.equal(data[:-4], _STRING_TAG) & (four >= 0x80)
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
