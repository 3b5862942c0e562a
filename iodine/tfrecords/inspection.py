"""Describes the contents of TFRecord files, for reports and errors."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore

from iodine.tfrecords import damage
from iodine.tfrecords import format as tfrecord_format
from iodine.tfrecords.damage import READ_ERRORS, explain
from iodine.tfrecords.format import PathLike, detect_compression, expand_paths

__all__ = [
  "Feature",
  "PathLike",
  "READ_ERRORS",
  "count_records",
  "detect_compression",
  "estimate_records",
  "expand_paths",
  "expected_features",
  "explain",
  "first_record",
  "format_features",
  "record_features",
]

_NO_RECORD = f"no whole record follows. {tfrecord_format.CHANGED}"
_SAMPLE_PIECES = 256  # 16 MiB
_KINDS = {tf.string: "bytes", tf.float32: "float", tf.int64: "int64"}


class Feature(NamedTuple):
  """A feature of a record.

  Attributes:
    kind: "bytes", "float" or "int64"; "none" for a feature without values.
    num_values: number of values.
    value_bytes: length of the first value; None unless the kind is "bytes".
  """

  kind: str
  num_values: int
  value_bytes: int | None = None


def first_record(path: str) -> bytes:
  """Reads the first record of a TFRecord file, compressed or not.

  Args:
    path: path of the file.

  Returns:
    A serialized `tf.train.Example`.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is a directory, empty, not a TFRecord file or truncated
      within this record.
  """
  return tfrecord_format.first_record(path, detect_compression(path))


def record_features(record: bytes) -> dict[str, Feature]:
  """Lists the features of a record.

  Args:
    record: a serialized `tf.train.Example`.

  Returns:
    The features by name, sorted.

  Raises:
    ValueError: if the record is not a `tf.train.Example`.
  """
  try:
    example = tf.train.Example.FromString(record)
  except DecodeError:
    raise ValueError("The record is no tf.train.Example.") from None
  stored = example.features.feature
  return {name: _feature(stored[name]) for name in sorted(stored)}


def expected_features(
  descriptions: Mapping[str, tf.io.FixedLenFeature],
) -> dict[str, Feature]:
  """Returns what `record_features` should find in a reader's records.

  Args:
    descriptions: the reader's descriptions for `tf.io.parse_single_example`.

  Returns:
    The features by name, sorted. `value_bytes` is None.
  """
  return {
    name: Feature(_KINDS[feature.dtype], math.prod(feature.shape))
    for name, feature in sorted(descriptions.items())
  }


def format_features(features: Mapping[str, Feature]) -> str:
  """Formats features on one line, such as "image 3675 bytes, x 4 float"."""
  words = []
  for name, feature in features.items():
    words.append(f"{name} {feature.num_values} {feature.kind}")
    if (feature.value_bytes or 1) != 1:
      words[-1] += f" (of {feature.value_bytes})"
  return ", ".join(words) or "nothing"


def count_records(path: str) -> int:
  """Counts the records of a TFRecord file without parsing them.

  Skips from record to record, but must inflate compressed data.

  Args:
    path: path of the file.

  Returns:
    The number of records.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is a directory, empty, not a TFRecord file, or visibly
      damaged; names record and likely cause.
  """
  compression = detect_compression(path)
  if compression or "://" in path:
    ends = _skip_inflated(path, compression)
  else:
    ends = _skip_seekable(path)
  count = size = 0
  try:
    for end in ends:
      count, size = count + 1, end
  except tfrecord_format.DamagedStream as error:
    damage.check_end(path, compression, count, size)
    raise ValueError(f"{damage.record_name(path, count)}: {error}") from None
  return count


def estimate_records(path: str) -> int:
  """Estimates the number of records in a TFRecord file, within a second.

  Args:
    path: path of a file of records of equal length, as in all these datasets.

  Returns:
    The number of records: exact for small files, else extrapolated from the
    compression ratio of the first megabytes.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is a directory, empty or not a TFRecord file.
  """
  record_bytes = len(first_record(path)) + tfrecord_format.RECORD_OVERHEAD
  file_bytes = tf.io.gfile.stat(path).length
  pieces = tfrecord_format.inflated(path, detect_compression(path))
  sample_bytes = 0
  with contextlib.suppress(tfrecord_format.DamagedStream):
    for piece in itertools.islice(pieces, _SAMPLE_PIECES):
      sample_bytes += len(piece)
  share = min(_SAMPLE_PIECES * tfrecord_format.PIECE_BYTES / file_bytes, 1)
  return round(sample_bytes / share / record_bytes)


def _skip_seekable(path: str) -> Iterator[int]:
  """Yields where each record of a local file without compression ends."""
  with open(path, "rb", buffering=0) as file:
    end, size = 0, os.fstat(file.fileno()).st_size
    while end < size:
      length = tfrecord_format.record_length(
        file.read(tfrecord_format.RECORD_HEAD)
      )
      if (
        length is None or end + length + tfrecord_format.RECORD_OVERHEAD > size
      ):
        raise tfrecord_format.DamagedStream(_NO_RECORD)
      end = file.seek(end + length + tfrecord_format.RECORD_OVERHEAD)
      yield end


def _skip_inflated(path: str, compression: str) -> Iterator[int]:
  """Likewise for any file, in inflated bytes."""
  begin, data = 0, bytearray()  # data starting at `begin`
  for piece in tfrecord_format.inflated(path, compression):
    data += piece
    end = 0
    while len(data) - end >= tfrecord_format.RECORD_HEAD:
      length = tfrecord_format.record_length(
        data[end : end + tfrecord_format.RECORD_HEAD]
      )
      if length is None:
        raise tfrecord_format.DamagedStream(_NO_RECORD)
      if end + length + tfrecord_format.RECORD_OVERHEAD > len(data):
        break
      end += length + tfrecord_format.RECORD_OVERHEAD
      yield begin + end
    begin += end
    del data[:end]
  if data:
    raise tfrecord_format.DamagedStream(_NO_RECORD)


def _feature(feature: tf.train.Feature) -> Feature:
  kind = feature.WhichOneof("kind")
  if kind is None:
    return Feature("none", 0)
  values = getattr(feature, kind).value
  return Feature(
    kind.removesuffix("_list"),
    len(values),
    len(values[0]) if kind == "bytes_list" and values else None,
  )
