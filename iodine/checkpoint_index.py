"""What the index of a checkpoint claims, checked before TensorFlow reads it.

TensorFlow trusts the sizes in PREFIX.index: a shape that cannot be, or a text
that is longer than its file, ends the process. The file is a table of LevelDB
with a `BundleEntryProto` for each tensor, in the order of their names.
"""

import iodine.quiet_tensorflow

import bisect
import math
import os
import pathlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore
from tensorflow.core.framework import tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

__all__ = ["check", "has_end"]

_Entries = Mapping[bytes, tensor_bundle_pb2.BundleEntryProto]

_FOOTER = 48  # bytes: the places of two blocks, and the magic number
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_TRAILER = 5  # bytes after a block: its compression, and a checksum
_MOST_BYTES = 2**24  # of an index; a variable takes about a hundred
_MOST_DIMS = 254  # that TensorFlow has
_TOO_LARGE = f"the index has more than {_MOST_BYTES:,} bytes"
_SLICE_KEY = b"\0"  # how the name of a part of a variable begins
# Numbers of the types that a tensor of a checkpoint can have.
_TYPES = {
  number
  for number in types_pb2.DataType.values()
  if 0 < number < types_pb2.DT_FLOAT_REF
  and tf.dtypes.as_dtype(number).is_numpy_compatible
}


def check(prefix: str) -> None:
  """Checks that a checkpoint's files can hold what its index says they do.

  Checksums, and what is in the tensors, are left to TensorFlow.

  Args:
    prefix: of the checkpoint's files.

  Raises:
    OSError: if a file cannot be read.
    ValueError: names a variable, if possible, and says what is wrong.
  """
  with open(f"{prefix}.index", "rb") as file:
    table = dict(_table(file.read(_MOST_BYTES + 1)))
  header = tensor_bundle_pb2.BundleHeaderProto()
  _parse(header, table.pop(b"", b""), b"the header")
  shards = _Shards(prefix, header.num_shards)
  entries = {
    name: _parse(tensor_bundle_pb2.BundleEntryProto(), value, name)
    for name, value in table.items()
  }
  for name, entry in entries.items():
    try:
      _check_entry(entry, shards)
      if entry.slices:
        _check_slices(entry, _parts(name, entries))
    except ValueError as error:
      raise ValueError(f"{_shown(name)}: {error}") from None
  if sum(entry.size for entry in entries.values()) > shards.total:
    raise ValueError("the index has more tensors than there are data for")


def has_end(path: pathlib.Path) -> bool:
  """Whether an index file has its end, which is written last."""
  return path.read_bytes().endswith(_MAGIC)


def _shown(name: bytes) -> str:
  return name.decode(errors="replace")


def _parse(message: Any, data: bytes, name: bytes) -> Any:
  """Fills a message with what the index has under a name; returns it."""
  try:
    message.ParseFromString(data)
  except DecodeError as error:
    raise ValueError(f"{_shown(name)}: {error}") from None
  return message


# --- The table ----------------------------------------------------------------


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Yields names and values, in the order of the names."""
  if len(data) > _MOST_BYTES:
    raise ValueError(_TOO_LARGE)
  if len(data) < _FOOTER or not data.endswith(_MAGIC):
    raise ValueError("the index is cut off, or is none")
  footer = memoryview(data)[-_FOOTER:]
  _, place = _handle(footer, 0)
  index, _ = _handle(footer, place)
  last, total = None, 0
  for _, value in _block(data, index):
    for name, entry in _block(data, _handle(memoryview(value), 0)[0]):
      if last is not None and name <= last:
        raise ValueError(f"{_shown(name)}: is out of order in the index")
      total += len(name) + len(entry)
      if total > _MOST_BYTES:  # as names may repeat what is before them
        raise ValueError(_TOO_LARGE)
      last = name
      yield name, entry


def _handle(data: memoryview, place: int) -> tuple[tuple[int, int], int]:
  """Reads offset and size of a block; returns the place after them, too."""
  offset, place = _varint(data, place)
  size, place = _varint(data, place)
  return (offset, size), place


def _varint(data: memoryview, place: int) -> tuple[int, int]:
  """Reads a number of up to 64 bits; returns the place after it, too."""
  value = 0
  for shift in range(0, 70, 7):
    if place >= len(data):
      break
    byte = data[place]
    place += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80 and value < 2**64:
      return value, place
  raise ValueError("the index is damaged")


def _block(
  data: bytes, handle: tuple[int, int]
) -> Iterator[tuple[bytes, bytes]]:
  """Yields the entries of a block.

  TensorFlow also starts in the middle of a block, at one of the places that
  stand at its end. They must be the starts of entries, or it would read others
  than those yielded here.
  """
  offset, size = handle
  if offset + size + _TRAILER > len(data) or size < 4:
    raise ValueError("a block of the index lies outside of it")
  if data[offset + size]:
    raise ValueError("the index is compressed, which TensorFlow does not do")
  block = memoryview(data)[offset : offset + size]
  (num_starts,) = struct.unpack("<I", block[-4:])
  end = size - 4 - 4 * num_starts
  if end < 0 or not num_starts:
    raise ValueError("the index is damaged")
  starts = set(struct.unpack(f"<{num_starts}I", block[end:-4]))
  block, name, place = block[:end], b"", 0
  while place < end:
    is_start = place in starts
    starts.discard(place)
    shared, place = _varint(block, place)
    own, place = _varint(block, place)
    length, place = _varint(block, place)
    middle, after = place + own, place + own + length
    if after > end or shared > (0 if is_start else len(name)):
      raise ValueError("the index is damaged")
    name = name[:shared] + bytes(block[place:middle])
    yield name, bytes(block[middle:after])
    place = after
  if starts - {0}:  # an empty block has one at 0
    raise ValueError("the index is damaged")


# --- The entries --------------------------------------------------------------


class _Shards:
  """The data files of a checkpoint."""

  def __init__(self, prefix: str, count: int):
    self._prefix, self._count = prefix, count
    self._sizes: dict[int, int] = {}

  def path(self, number: int) -> str:
    if not 0 <= number < self._count:
      raise ValueError(f"is in data file {number} of {self._count}")
    return f"{self._prefix}.data-{number:05d}-of-{self._count:05d}"

  def size(self, number: int) -> int:
    """In bytes."""
    if number not in self._sizes:
      self._sizes[number] = os.path.getsize(self.path(number))
    return self._sizes[number]

  def read(self, number: int, offset: int, size: int) -> memoryview:
    with open(self.path(number), "rb") as file:
      file.seek(offset)
      return memoryview(file.read(size))

  @property
  def total(self) -> int:
    """Bytes of all data files."""
    return sum(self.size(number) for number in range(self._count))


def _check_entry(
  entry: tensor_bundle_pb2.BundleEntryProto, shards: _Shards
) -> None:
  """Checks that the data file has room for what an entry claims."""
  if entry.dtype not in _TYPES:
    raise ValueError(f"has no type of a variable, but number {entry.dtype}")
  dtype = tf.dtypes.as_dtype(entry.dtype)
  count = _count(entry.shape)
  size, room = count * dtype.size, shards.total
  if not entry.slices:  # else its parts have entries of their own
    if dtype == tf.string:
      size = entry.size
    if size != entry.size:
      raise ValueError(
        f"a {dtype.name} of shape {_dims(entry.shape)} has {size:,} bytes, and "
        f"not {entry.size:,}"
      )
    room = shards.size(entry.shard_id) - entry.offset
  if size > room or min(size, entry.offset) < 0:
    raise ValueError(
      f"has {size:,} bytes from byte {entry.offset:,} on, which are not in the "
      "data file"
    )
  if dtype == tf.string and not entry.slices:
    _check_text(entry, count, shards)


def _dims(shape: tensor_shape_pb2.TensorShapeProto) -> list[int]:
  return [dim.size for dim in shape.dim]


def _count(shape: tensor_shape_pb2.TensorShapeProto) -> int:
  """Number of elements."""
  dims = _dims(shape)
  if shape.unknown_rank or len(dims) > _MOST_DIMS:
    raise ValueError(f"has {len(dims)} dimensions; {_MOST_DIMS} are possible")
  # Also if another dimension is 0, TensorFlow multiplies these.
  if min(dims, default=0) < 0 or math.prod(max(d, 1) for d in dims) >= 2**60:
    raise ValueError(f"has the shape {dims}, which cannot be")
  return math.prod(dims)


def _check_text(
  entry: tensor_bundle_pb2.BundleEntryProto, count: int, shards: _Shards
) -> None:
  """Checks the lengths of texts: varints, a checksum, then the texts."""
  if count + 4 > entry.size:
    raise ValueError(f"{count:,} texts do not fit into {entry.size:,} bytes")
  data = shards.read(entry.shard_id, entry.offset, entry.size)
  total = place = 0
  for _ in range(count):
    length, place = _varint(data, place)
    total += length
  if place + 4 + total != entry.size:
    raise ValueError(
      f"texts of {total:,} bytes do not fit into {entry.size:,} bytes"
    )


# --- Variables in parts -------------------------------------------------------


def _parts(
  name: bytes, entries: _Entries
) -> list[tensor_bundle_pb2.BundleEntryProto]:
  """The entries of a variable's parts, in the order of their names.

  The name of a part is that of the whole and then where it begins and how long
  it is, such that it sorts by these.
  """
  if b"\xff" in name or b"\0" in name:
    raise ValueError("is in parts, and has a name that no variable has")
  start = _SLICE_KEY + name + b"\0"
  names = list(entries)
  first = bisect.bisect_left(names, start + b"\1")
  last = bisect.bisect_left(names, start + b"\2")
  return [entries[part] for part in names[first:last]]


def _check_slices(
  entry: tensor_bundle_pb2.BundleEntryProto,
  parts: list[tensor_bundle_pb2.BundleEntryProto],
) -> None:
  """Checks that a variable's parts have the shapes that it says they have."""
  dims = _dims(entry.shape)
  shapes = {}
  for part in entry.slices:
    extents = [
      # -1: a part has all of the dimension.
      (e.start, e.length if e.HasField("length") else -1)
      for e in part.extent
    ]
    shape = [
      size if length == -1 else length
      for size, (_, length) in zip(dims, extents, strict=False)
    ]
    if len(extents) != len(dims) or any(
      start < 0 or length < 0 or start + length > size
      for size, (start, _), length in zip(dims, extents, shape, strict=True)
    ):
      raise ValueError(f"has a part {extents}, which is not in {dims}")
    if tuple(extents) in shapes:
      raise ValueError(f"has the part {extents} twice")
    shapes[tuple(extents)] = shape
  found = [(part.dtype, _dims(part.shape)) for part in parts]
  if found != [(entry.dtype, shapes[key]) for key in sorted(shapes)]:
    raise ValueError("has other parts than it says")
