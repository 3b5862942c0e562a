"""Index files of checkpoints with any claims, whose checksums are right."""

import pathlib
import struct
from collections.abc import Mapping

from iodine import checkpoint_index
from iodine.tfrecords import format as record_format

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def read(prefix: pathlib.Path) -> dict[bytes, bytes]:
  """{name: protocol buffer} of an index, the header's name being empty."""
  data = pathlib.Path(f"{prefix}.index").read_bytes()
  return dict(checkpoint_index._table(data))


def write(
  prefix: pathlib.Path,
  entries: Mapping[bytes, bytes],
  starts: tuple[int, ...] = (0,),
  compression: int = 0,
) -> None:
  """Writes an index of one block.

  Args:
    prefix: of the checkpoint's files.
    entries: see `read`; written in this order.
    starts: where the block says that its entries start.
    compression: which the block says that it has.
  """
  body = b"".join(
    b"\0" + _varint(len(name)) + _varint(len(value)) + name + value
    for name, value in entries.items()
  )
  data = _with_trailer(_block(body, starts), compression)
  meta = len(data)
  data += _with_trailer(_block(b"", (0,)))
  index = len(data)
  handle = _varint(0) + _varint(meta - 5)
  body = b"\0" + _varint(1) + _varint(len(handle)) + b"\x7f" + handle
  data += _with_trailer(_block(body, (0,)))
  footer = b"".join(
    map(_varint, (meta, index - meta - 5, index, len(data) - index - 5))
  )
  data += footer.ljust(40, b"\0") + _MAGIC
  pathlib.Path(f"{prefix}.index").write_bytes(data)


def _varint(value: int) -> bytes:
  head = bytearray()
  while value >= 0x80:
    head.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*head, value])


def _block(body: bytes, starts: tuple[int, ...]) -> bytes:
  return body + struct.pack(f"<{len(starts) + 1}I", *starts, len(starts))


def _with_trailer(block: bytes, compression: int = 0) -> bytes:
  checked = block + bytes([compression])
  return checked + struct.pack("<I", record_format._masked_crc32c(checked))
