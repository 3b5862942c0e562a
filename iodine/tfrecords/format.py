"""The TFRecord format: expands paths, detects compression, inflates files.

A TFRecord file is a sequence of records, each of them the length of its data
(8 bytes, little-endian), the masked CRC-32C of these 8 bytes (4 bytes), the
data, and their masked CRC-32C (4 bytes). The whole file may be compressed.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

__all__ = [
  "CHANGED",
  "CUT_OFF",
  "DamagedStream",
  "MAX_RECORD_BYTES",
  "NO_RECORD",
  "PathLike",
  "RECORD_HEAD",
  "RECORD_OVERHEAD",
  "detect_compression",
  "expand_paths",
  "first_record",
  "inflated",
  "open_seekable",
  "record_bytes",
]

PathLike: TypeAlias = (
  "str | bytes | os.PathLike | Sequence[str | bytes | os.PathLike] | tf.Tensor"
)

# Bytes before a record's data, and bytes before and after it together.
RECORD_HEAD = 12
RECORD_OVERHEAD = 16
# A record that claims more is damaged: whoever reads it has to hold as much in
# memory. A scene of CLEVR, the largest of the public ones, takes 3.3 MB.
MAX_RECORD_BYTES = 1 << 28
# Likely causes of damage, with remedies.
CUT_OFF = (
  "A download, a copy or a generator was probably interrupted. Fetch or write "
  "the file again."
)
CHANGED = (
  "Bytes were probably changed, lost or added. Fetch or write the file again."
)
NO_RECORD = f"the record is empty or fails its checksum. {CHANGED}"
_BREAKS_OFF = f"the file breaks off within this record. {CUT_OFF}"
# Bytes read from a file at a time, then inflated at a time: enough for a record
# head, even if the gzip header contains a long file name. As compressed bytes
# may hold a thousand times as many, what is inflated has a bound of its own.
_READ_BYTES = 1 << 19
_PIECE_BYTES = 1 << 16
_INFLATED_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_AUTO_WBITS = 32 + zlib.MAX_WBITS  # zlib detects gzip or zlib itself


class DamagedStream(ValueError):
  """A file cannot be read to its end; says why and what to do."""


def expand_paths(tfrecords_path: PathLike) -> list[str]:
  """Expands a path, a glob or a sequence of these to a list of files.

  Args:
    tfrecords_path: one path or glob, or a sequence, an array or an eager tensor
      of these. A glob such as "cater_train.tfrecords-*-of-00100" expands to
      the matching files, sorted by name, unless a file has that literal name.

  Returns:
    The files. Only those from globs are known to exist.

  Raises:
    FileNotFoundError: if a glob matches nothing.
    ValueError: if there is no path or an invalid one.
  """
  try:
    paths = [os.fsdecode(path) for path in _flat(tfrecords_path)]
  except TypeError:
    raise ValueError(
      f"tfrecords_path={tfrecords_path!r}: expected a path or a sequence of "
      "paths."
    ) from None
  if not paths:
    raise ValueError("tfrecords_path is empty: name at least one file.")
  return [file for path in paths for file in _expand(path)]


def detect_compression(path: str) -> str:
  """Detects a TFRecord file's compression from its first bytes.

  Args:
    path: path of the file.

  Returns:
    "GZIP", "ZLIB" or "" (none), as for `tf.data.TFRecordDataset`.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is a directory, empty or not a TFRecord file.
  """
  head = _read_head(path)
  # Tested first: the length at the start of an uncompressed file may look like
  # a zlib header, but a compressed file passes the checksum by chance only once
  # in 2**32 times.
  if _record_length(head) is not None:
    return ""
  if head.startswith(_GZIP_MAGIC):
    compression = "GZIP"
  elif _is_zlib_header(head):
    compression = "ZLIB"
  else:
    raise ValueError(
      f"{path} is no TFRecord file: it starts with {head[:12]!r}, neither a "
      f"record nor gzip or zlib data. {_likely_cause(head)}"
    )
  _check_inflated(path, head, compression)
  return compression


def _flat(paths: Any) -> Iterator[Any]:
  """Yields each path; raises TypeError for something else."""
  if tf.is_tensor(paths):
    paths = tf.get_static_value(paths)
  if isinstance(paths, str | bytes | os.PathLike):
    yield paths
  elif isinstance(paths, np.ndarray):
    yield from paths.ravel().tolist()
  else:
    for part in paths:
      yield from _flat(part)


def open_seekable(path: str) -> Any:
  """Opens a file to read a few bytes here and there."""
  if "://" in path:
    return tf.io.gfile.GFile(path, "rb")
  return open(path, "rb", buffering=0)


def inflated(path: str, compression: str) -> Iterator[tuple[int, bytes]]:
  """Reads a file from its start.

  Args:
    path: path of the file.
    compression: compression of the file: "GZIP", "ZLIB" or "".

  Yields:
    The number of the file's bytes that have been read, and the decompressed
    data that were added, a megabyte at most. The members of a gzip file are
    concatenated.

  Raises:
    DamagedStream: if compressed data is damaged, truncated, or followed by data
      that TensorFlow does not read.
    tf.errors.OpError: if the file cannot be read.
  """
  inflater = None
  num_read = 0
  for chunk in _chunks(path):
    num_read += len(chunk)
    if not compression:
      yield num_read, chunk
      continue
    piece = b""
    # What zlib holds back after a full piece takes no more of the chunk.
    while chunk or len(piece) == _INFLATED_BYTES:
      if inflater is None or (inflater.eof and chunk):
        if inflater is not None:
          _check_follower(chunk, compression)
        inflater = zlib.decompressobj(_AUTO_WBITS)
      try:
        piece = inflater.decompress(chunk, _INFLATED_BYTES)
      except zlib.error as error:
        raise DamagedStream(
          f"the {compression} data are damaged ({error}). {CHANGED}"
        ) from None
      chunk = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
      yield num_read - len(chunk), piece
  if compression and not (inflater and inflater.eof):
    raise DamagedStream(
      f"the {compression} data break off before their end. {CUT_OFF}"
    )


def first_record(path: str, compression: str) -> bytes:
  """Returns the data of record 0, unchecked.

  Raises:
    ValueError: if the file is truncated within that record, or the record
      claims to be longer than any may be.
  """
  data = bytearray()
  size = None
  try:
    for _, piece in inflated(path, compression):
      data += piece
      if size is None and len(data) >= RECORD_HEAD:
        size = record_bytes(bytes(data[:RECORD_HEAD]))
      if size is not None and len(data) >= size:
        return bytes(data[RECORD_HEAD : size - RECORD_OVERHEAD + RECORD_HEAD])
    fault = _BREAKS_OFF
  except DamagedStream as error:
    fault = str(error)
  raise ValueError(f"{path}, record 0: {fault}")


def record_bytes(head: bytes, rest: int | None = None) -> int:
  """Returns the number of bytes that a record takes.

  Args:
    head: its first `RECORD_HEAD` bytes, or what there is of them.
    rest: bytes from the record's start to the end of the file; None: unknown.

  Raises:
    DamagedStream: if this is no head, or its record cannot be read.
  """
  if len(head) < RECORD_HEAD:
    raise DamagedStream(_BREAKS_OFF)
  length = _record_length(head)
  if length is None:
    raise DamagedStream(NO_RECORD)
  if length > MAX_RECORD_BYTES:
    raise DamagedStream(
      f"the record claims to be {length:,} bytes long, more than the "
      f"{MAX_RECORD_BYTES:,} that are read. {CHANGED}"
    )
  if rest is not None and length + RECORD_OVERHEAD > rest:
    raise DamagedStream(_BREAKS_OFF)
  return length + RECORD_OVERHEAD


def _record_length(data: bytes) -> int | None:
  """Returns the length stated in a record's head; None: not a head."""
  if len(data) < RECORD_HEAD:
    return None
  checksum = int.from_bytes(data[8:RECORD_HEAD], "little")
  if _masked_crc32c(data[:8]) != checksum:
    return None
  return int.from_bytes(data[:8], "little")


def _chunks(path: str) -> Iterator[bytes]:
  """Reads a file in chunks; in between, it is not open."""
  for start in itertools.count(0, _READ_BYTES):
    with tf.io.gfile.GFile(path, "rb") as file:
      file.seek(start)
      data = file.read(_READ_BYTES)
    for i in range(0, len(data), _PIECE_BYTES):
      yield data[i : i + _PIECE_BYTES]
    if len(data) < _READ_BYTES:
      return


def _expand(path: str) -> list[str]:
  if not any(character in path for character in "*?["):
    return [path]
  if tf.io.gfile.exists(path):
    return [path]
  try:
    files = sorted(tf.io.gfile.glob(path))
  except tf.errors.NotFoundError:
    files = []
  if not files:
    raise FileNotFoundError(
      f"No file matches {path}. (*, ? and [...] in a path stand for any "
      "characters.)"
    )
  return files


def _read_head(path: str) -> bytes:
  """Returns the first bytes of a file; raises an error if there are none."""
  if not tf.io.gfile.exists(path):
    raise FileNotFoundError(f"There is no file {path}.")
  if tf.io.gfile.isdir(path):
    raise ValueError(
      f"{path} is a directory: name the .tfrecords file (or files) in it."
    )
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      head = file.read(_PIECE_BYTES)
  except tf.errors.OpError as error:
    raise ValueError(f"{path} cannot be read: {error.message}") from None
  if not head:
    raise ValueError(f"{path} is empty. {CUT_OFF}")
  return head


def _masked_crc32c(data: bytes) -> int:
  """CRC-32C (Castagnoli), rotated and offset as stored in TFRecord files."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = (crc >> 8) ^ _CRC_OF_BYTE[(crc ^ byte) & 0xFF]
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_byte(crc: int) -> int:
  for _ in range(8):
    crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
  return crc


_CRC_OF_BYTE = tuple(map(_crc_of_byte, range(256)))


def _is_zlib_header(head: bytes) -> bool:
  """RFC 1950: method 8 (deflate), window up to 32 KiB, divisible by 31."""
  if len(head) < 2:
    return False
  method, window = head[0] & 0x0F, head[0] >> 4
  return method == 8 and window <= 7 and (head[0] * 256 + head[1]) % 31 == 0


def _check_inflated(path: str, head: bytes, compression: str) -> None:
  """Raises ValueError unless the compressed data starts with a record."""
  try:
    data = zlib.decompressobj(_AUTO_WBITS).decompress(head, RECORD_HEAD)
  except zlib.error as error:
    raise ValueError(
      f"{path} is damaged {compression} data ({error}). {CHANGED}"
    ) from None
  if len(data) < RECORD_HEAD:
    raise ValueError(
      f"{path} holds no record: its {compression} data end after "
      f"{len(data)} bytes. {CUT_OFF}"
    )
  if _record_length(data) is None:
    raise ValueError(
      f"{path} is no TFRecord file: it holds {compression} data that start "
      f"with {data!r}. {_likely_cause(data)}"
    )


def _check_follower(chunk: bytes, compression: str) -> None:
  """Raises DamagedStream unless TensorFlow reads these bytes after a stream."""
  if compression == "GZIP" and _GZIP_MAGIC.startswith(chunk[:2]):
    return
  if compression == "ZLIB" and _is_zlib_header(chunk):
    raise DamagedStream(
      "another stream of ZLIB data follows, as if files had been joined, which "
      "TensorFlow does not read. Write the records to one stream, or to files "
      "of their own."
    )
  raise DamagedStream(
    f"something follows that is no {compression} data. {CHANGED}"
  )


def _likely_cause(head: bytes) -> str:
  if head.lstrip().startswith(b"<"):
    return (
      "It looks like a web page: the download probably saved an error "
      "message instead of the data."
    )
  if head.startswith(b"version https://git-lfs"):
    return "It is a Git LFS pointer: run `git lfs pull` to get the data."
  return (
    "It is probably a file of another kind (an archive must be unpacked "
    "first) or damaged."
  )
