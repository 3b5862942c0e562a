"""Opening of TFRecord files and decoding of their byte features."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

__all__ = ["PathLike", "decode_bytes", "detect_compression", "open_records"]

PathLike = str | os.PathLike | Sequence[str | os.PathLike]

# A record starts with its length (8 bytes) and the masked CRC-32C of these.
_RECORD_HEAD = 12
# Enough of a compressed file to inflate one record head from, also when a
# gzip header holds a long file name.
_PROBE_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_AUTO_WBITS = 32 + zlib.MAX_WBITS  # zlib finds out itself: gzip or zlib


def open_records(
  tfrecords_path: PathLike, read_buffer_size: int | None = None
) -> tf.data.Dataset:
  """Opens TFRecord files, compressed or not.

  Args:
    tfrecords_path: One path or a sequence of paths, read one after the other.
    read_buffer_size: Bytes in the read buffer; None: TensorFlow's default.

  Returns:
    A dataset of serialized records.

  Raises:
    FileNotFoundError: if a file does not exist.
    ValueError: if a path is a directory, an empty file or no TFRecord file.
  """
  paths = _as_list(tfrecords_path)
  compressions = [detect_compression(path) for path in paths]
  records = None
  # A TFRecordDataset takes any number of files, but one compression.
  by_compression = itertools.groupby(
    zip(paths, compressions, strict=True), key=lambda pair: pair[1]
  )
  for compression, group in by_compression:
    part = tf.data.TFRecordDataset(
      [path for path, _ in group],
      compression_type=compression,
      buffer_size=read_buffer_size,
    )
    records = part if records is None else records.concatenate(part)
  return records


def detect_compression(path: str) -> str:
  """Tells a TFRecord file's compression from its first bytes.

  Args:
    path: The file.

  Returns:
    "GZIP", "ZLIB" or "" (none), as `tf.data.TFRecordDataset` takes it.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is a directory, empty or no TFRecord file.
  """
  head = _read_head(path)
  # This test comes first: the length that starts an uncompressed file may look
  # like a zlib header, whereas a compressed file passes the checksum by chance
  # once in 2**32 times.
  if _is_record_head(head):
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


def decode_bytes(
  example: Mapping[str, tf.Tensor], keys: Sequence[str]
) -> dict[str, tf.Tensor]:
  """Turns features of one byte a string into uint8.

  Args:
    example: Parsed features.
    keys: The features to decode: string tensors, each string one byte long.

  Returns:
    A new dict of the same shapes, in which the named features are uint8.
  """
  decoded: dict[str, Any] = dict(example)
  for key in keys:
    # decode_raw appends an axis for the bytes of one string.
    decoded[key] = tf.squeeze(tf.io.decode_raw(example[key], tf.uint8), axis=-1)
  return decoded


def _as_list(tfrecords_path: PathLike) -> list[str]:
  if isinstance(tfrecords_path, (str, os.PathLike)):
    tfrecords_path = [tfrecords_path]
  try:
    paths = [os.fspath(path) for path in tfrecords_path]
  except TypeError:
    raise ValueError(
      f"tfrecords_path={tfrecords_path!r}: expected a path or a sequence of "
      "paths."
    ) from None
  if not paths:
    raise ValueError("tfrecords_path is empty: name at least one file.")
  return paths


def _read_head(path: str) -> bytes:
  """Returns the first bytes of a file that must exist and have some."""
  if not tf.io.gfile.exists(path):
    raise FileNotFoundError(f"There is no file {path}.")
  if tf.io.gfile.isdir(path):
    raise ValueError(
      f"{path} is a directory: name the .tfrecords file (or files) in it."
    )
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      head = file.read(_PROBE_BYTES)
  except tf.errors.OpError as error:
    raise ValueError(f"{path} cannot be read: {error.message}") from None
  if not head:
    raise ValueError(
      f"{path} is empty: a download or a generator was probably interrupted "
      "before it wrote anything. Fetch or write the file again."
    )
  return head


def _is_record_head(data: bytes) -> bool:
  if len(data) < _RECORD_HEAD:
    return False
  checksum = int.from_bytes(data[8:_RECORD_HEAD], "little")
  return _masked_crc32c(data[:8]) == checksum


def _masked_crc32c(data: bytes) -> int:
  """CRC-32C (Castagnoli), rotated and offset as TFRecord files store it."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _is_zlib_header(head: bytes) -> bool:
  """RFC 1950: method 8 (deflate), window up to 32 KiB, divisible by 31."""
  if len(head) < 2:
    return False
  method, window = head[0] & 0x0F, head[0] >> 4
  return method == 8 and window <= 7 and (head[0] * 256 + head[1]) % 31 == 0


def _check_inflated(path: str, head: bytes, compression: str) -> None:
  """Raises ValueError unless the compressed data start with a record."""
  try:
    data = zlib.decompressobj(_AUTO_WBITS).decompress(head, _RECORD_HEAD)
  except zlib.error as error:
    raise ValueError(
      f"{path} is damaged {compression} data ({error}). Fetch or write the "
      "file again."
    ) from None
  if len(data) < _RECORD_HEAD:
    raise ValueError(
      f"{path} holds no record: its {compression} data end after "
      f"{len(data)} bytes. The file was probably cut off as it was written "
      "or copied. Fetch or write it again."
    )
  if not _is_record_head(data):
    raise ValueError(
      f"{path} is no TFRecord file: it holds {compression} data that start "
      f"with {data!r}. {_likely_cause(data)}"
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
