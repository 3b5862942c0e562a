"""Detects that a file was not read to its end, and explains why."""

from __future__ import annotations

import functools
import re

import tensorflow as tf

from iodine.tfrecords import format as tfrecord_format

__all__ = [
  "READ_ERRORS",
  "RECORD_INFIX",
  "check_end",
  "explain",
  "record_name",
  "stated_size",
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


def stated_size(path: str, compression: str) -> int:
  """Returns the inflated size that a file states, without reading the data.

  Args:
    path: path of the file.
    compression: compression of the file: "GZIP", "ZLIB" or "".

  Returns:
    Number of inflated bytes modulo 2**32, or -1 if not stated. Wrong for a
    damaged file or a gzip file of several members.
  """
  if compression == "ZLIB":
    return -1
  with tf.io.gfile.GFile(path, "rb") as file:
    if not compression:
      return file.size() % 2**32
    file.seek(max(0, file.size() - 4))
    return int.from_bytes(file.read(4), "little")


def check_end(path: str, compression: str, index: int, size: int) -> None:
  """Checks that nothing of a file was left unread.

  Inflates the whole file, once per version of it.

  Args:
    path: path of the file.
    compression: compression of the file: "GZIP", "ZLIB" or "".
    index: number of records read.
    size: size of these records in inflated bytes.

  Raises:
    ValueError: names file, record and likely cause.
  """
  stat = tf.io.gfile.stat(path)
  fault = _find_fault(path, compression, size, stat.length, stat.mtime_nsec)
  if fault:
    raise ValueError(f"{record_name(path, index)}: {fault}")


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


@functools.lru_cache(maxsize=1024)
def _find_fault(
  path: str, compression: str, size: int, length: int, mtime_nsec: int
) -> str | None:
  """Describes what follows the first `size` inflated bytes; None: nothing.

  Cached by the file's length and modification time.
  """
  del mtime_nsec
  try:
    total, head = _measure(path, compression, size, length)
  except tfrecord_format.DamagedStream as error:
    return str(error)
  if total <= size:
    # A compressed file may not state its size.
    return None if compression else "the file was changed after it was opened."
  data_length = tfrecord_format.record_length(head)
  if len(head) < tfrecord_format.RECORD_HEAD or (
    data_length is not None
    and size + data_length + tfrecord_format.RECORD_OVERHEAD > total
  ):
    return f"the file breaks off within this record. {tfrecord_format.CUT_OFF}"
  return f"the record is empty or fails its checksum. {tfrecord_format.CHANGED}"


def _measure(
  path: str, compression: str, offset: int, length: int
) -> tuple[int, bytes]:
  """Returns the number of inflated bytes, and the record head at an offset."""
  if not compression:
    with tf.io.gfile.GFile(path, "rb") as file:
      file.seek(min(offset, length))
      return length, file.read(tfrecord_format.RECORD_HEAD)
  total, head = 0, b""
  for piece in tfrecord_format.inflated(path, compression):
    start = offset + len(head) - total
    if 0 <= start < len(piece):
      head += piece[start : start + tfrecord_format.RECORD_HEAD - len(head)]
    total += len(piece)
  return total, head
