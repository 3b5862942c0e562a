"""Detects damage before, or when, TensorFlow meets it, and explains it."""

from __future__ import annotations

import re

import tensorflow as tf

from iodine.tfrecords import format as tfrecord_format
from iodine.tfrecords import walking

__all__ = [
  "READ_ERRORS",
  "RECORD_INFIX",
  "check_next",
  "explain",
  "record_name",
  "unread",
]

# Raised when iterating over a dataset. (TensorFlow quotes parts of a damaged
# record, and Python then fails to decode the message.)
READ_ERRORS = (tf.errors.OpError, UnicodeDecodeError)

# Separates the path and the number of a record.
RECORD_INFIX = ", record "

_OTHER_KIND = (
  "The file is probably of another dataset or variant, or it is damaged."
)

# TensorFlow's wrapping of an error raised by a Python function.
_RAISED = re.compile(r"\w+Error: (.*?)\s*\nTraceback", re.DOTALL)
# Prefix of a parsing error for a named example.
_UNPARSED = re.compile(rf"Name: (.*{RECORD_INFIX}\d+), (.*)")
# Prefix for data that is not an example at all, quoted in full.
_NO_EXAMPLE = "Could not parse example input"
# Graph locations around an error's text.
_PLACES = re.compile(
  r"^\{\{.*?\}\} |Error in user-defined function .* with iterator: \S+ "
  r"|\s*\[\[\{\{.*|\s*\[Op:.*"
)


def record_name(path: str, index: int) -> str:
  """Names a record for an error."""
  return f"{path}{RECORD_INFIX}{index}"


def check_next(path: str, compression: str, file_bytes: int, index: int) -> int:
  """Checks the heads of the next records, before TensorFlow reads them.

  Inflates a compressed file as far as it has to, once per version of it.

  Args:
    path: path of the file.
    compression: compression of the file: "GZIP", "ZLIB" or "".
    file_bytes: size of the file when it was opened.
    index: number of the next record.

  Returns:
    The number of records, from the first, that can be read; `index` if the file
    ends there.

  Raises:
    ValueError: if the next record cannot be read; names file, record and likely
      cause.
  """
  try:
    walk = walking.walk_of(path, compression)
    walk.go_on(until=lambda: walk.count > index)
    now_bytes = tf.io.gfile.stat(path).length
  except tf.errors.OpError as error:
    raise ValueError(f"Cannot read {error.message}") from None
  if walk.count > index:
    return walk.count
  fault = walk.fault
  if not fault and (walk.count < index or now_bytes != file_bytes):
    fault = "the file was changed after it was opened."
  if fault:
    raise ValueError(f"{record_name(path, index)}: {fault}")
  return index


def unread(path: str, compression: str, index: int) -> ValueError:
  """Explains why TensorFlow did not read a record whose head is fine.

  Args:
    path: as in `check_next`.
    compression: as in `check_next`.
    index: number of the record.

  Returns:
    An error that names file, record and likely cause.
  """
  fault = None
  if compression:
    # TensorFlow inflates ahead, so it stops before damage of the stream.
    walk = walking.walk_of(path, compression)
    stop = walk.end + walking.STEP_BYTES
    walk.go_on(until=lambda: walk.end > stop)
    fault = walk.fault
  fault = fault or tfrecord_format.NO_RECORD
  return ValueError(f"{record_name(path, index)}: {fault}")


def explain(error: tf.errors.OpError | UnicodeDecodeError, source: str) -> str:
  """Summarizes an error from reading scenes.

  Args:
    error: one of `READ_ERRORS`, raised when iterating over a reader's dataset
      or one derived from it.
    source: name of the data, for errors that do not name the file, such as
      those of another reader.

  Returns:
    File, record (counted from 0 in each file), likely cause and remedy; or the
    source and what is known of the error.
  """
  if isinstance(error, UnicodeDecodeError):
    text = error.object.decode(errors="backslashreplace")
  else:
    text = error.message or str(error)
  raised = _RAISED.search(text)
  if raised:
    return raised[1]
  line = _PLACES.sub("", text.strip().splitlines()[0])
  if line.startswith(_NO_EXAMPLE):
    return f"{source}: a record is no tf.train.Example. {_OTHER_KIND}"
  unparsed = _UNPARSED.match(line)
  if not unparsed:
    return f"{source}: {line}"
  name, reason = unparsed.groups()
  return f"{name}: {reason.rstrip('.')}. {_OTHER_KIND}"
