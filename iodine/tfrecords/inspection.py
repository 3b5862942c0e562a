"""Describes the contents of TFRecord files, for reports and errors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore

from iodine.tfrecords import damage, walking
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

# Of a file, and of what these bytes are inflated to.
_SAMPLE_BYTES = 1 << 24
_MAX_INFLATED_BYTES = 1 << 28
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
    ValueError: if it is a directory, empty, not a TFRecord file, truncated
      within this record, or the record claims to be longer than any may be.
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
  walk = walking.Walk(path, detect_compression(path))
  walk.go_on(until=lambda: False)
  if walk.fault:
    raise ValueError(f"{damage.record_name(path, walk.count)}: {walk.fault}")
  return walk.count


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
  num_read = sample_bytes = 0
  with contextlib.suppress(tfrecord_format.DamagedStream):
    for num_read, piece in pieces:
      sample_bytes += len(piece)
      if num_read >= _SAMPLE_BYTES or sample_bytes >= _MAX_INFLATED_BYTES:
        break
  share = num_read / file_bytes
  return round(sample_bytes / share / record_bytes)


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
