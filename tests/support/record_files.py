"""TFRecord files of random scenes, one kind for each reader."""

import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine.multi_object_datasets import (
  cater_with_masks,
  clevr_with_masks,
  multi_dsprites,
  objects_room,
  tetrominoes,
)
from iodine.tfrecords import format as tfrecord_format

WBITS = {"GZIP": 31, "ZLIB": 15}
# Of features whose bytes are one string.
STRING_SHAPES = {
  "cater_with_masks": {
    "image": (33, 64, 64, 3),
    "mask": (33, 11, 64, 64, 1),
  }
}


class Reader(NamedTuple):
  """A reader for one kind of file.

  Attributes:
    module: its name.
    dataset: the reader.
    features: what it parses.
    args: of the reader after the path.
    compression: of the released files.
  """

  module: str
  dataset: Callable[..., tf.data.Dataset]
  features: Mapping[str, tf.io.FixedLenFeature]
  args: tuple[str, ...] = ()
  compression: str = "GZIP"

  def open(self, path: Any) -> tf.data.Dataset:
    return self.dataset(str(path), *self.args)

  def example(self, seed: int) -> tuple[bytes, dict[str, np.ndarray]]:
    strings = STRING_SHAPES.get(self.module, {})
    return make_example(self.features, np.random.default_rng(seed), strings)


READERS = {
  "tetrominoes": Reader(
    "tetrominoes", tetrominoes.dataset, tetrominoes.features
  ),
  "clevr": Reader(
    "clevr_with_masks", clevr_with_masks.dataset, clevr_with_masks.features
  ),
  "cater": Reader(
    "cater_with_masks",
    cater_with_masks.dataset,
    cater_with_masks.feature_descriptions(),
    compression="ZLIB",
  ),
  **{
    variant: Reader(
      "multi_dsprites",
      multi_dsprites.dataset,
      multi_dsprites.feature_descriptions(entities, variant == "binarized"),
      (variant,),
    )
    for variant, entities in multi_dsprites.MAX_NUM_ENTITIES.items()
  },
  **{
    variant: Reader(
      "objects_room",
      objects_room.dataset,
      objects_room.feature_descriptions(entities),
      (variant,),
    )
    for variant, entities in objects_room.MAX_NUM_ENTITIES.items()
  },
}


def make_example(
  features: Mapping[str, tf.io.FixedLenFeature],
  rng: np.random.Generator,
  strings: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[bytes, dict[str, np.ndarray]]:
  """Returns a serialized example of random values, and these by feature.

  Args:
    features: a reader's.
    rng: draws the values.
    strings: {name: shape} of the features whose bytes are one string.
  """
  strings = strings or {}
  stored, arrays = {}, {}
  for name, description in features.items():
    if description.dtype == tf.string:
      shape = strings.get(name, description.shape)
      array = rng.integers(0, 256, shape, dtype=np.uint8)
      flat = array.tobytes()
      size = len(flat) if name in strings else 1
      values = [flat[i : i + size] for i in range(0, len(flat), size)]
      stored[name] = tf.train.Feature(
        bytes_list=tf.train.BytesList(value=values)
      )
    else:
      array = rng.random(description.shape, dtype=np.float32)
      stored[name] = tf.train.Feature(
        float_list=tf.train.FloatList(value=array.ravel())
      )
    arrays[name] = array
  example = tf.train.Example(features=tf.train.Features(feature=stored))
  return example.SerializeToString(), arrays


def write(
  path: pathlib.Path, records: Sequence[bytes], compression: str = "GZIP"
) -> pathlib.Path:
  """Writes a file as TensorFlow does."""
  with tf.io.TFRecordWriter(str(path), compression) as writer:
    for record in records:
      writer.write(record)
  return path


def framed(folder: pathlib.Path, record: bytes) -> bytes:
  """Returns the bytes that a record takes in a file without compression."""
  return write(folder / "framed", [record], "").read_bytes()


def head(length: int) -> bytes:
  """Returns a record's head, with the right checksum, whatever its length."""
  data = length.to_bytes(8, "little")
  checksum = tfrecord_format._masked_crc32c(data)
  return data + checksum.to_bytes(4, "little")


def compress(
  parts: Sequence[bytes], compression: str, whole: bool = True
) -> bytes:
  """Compresses a file's bytes.

  Args:
    parts: of the bytes.
    compression: "GZIP", "ZLIB" or "" (none).
    whole: whether to end the compressed data.
  """
  data = b"".join(parts)
  if not compression:
    return data
  compressor = zlib.compressobj(1, zlib.DEFLATED, WBITS[compression])
  flush = zlib.Z_FINISH if whole else zlib.Z_SYNC_FLUSH
  return compressor.compress(data) + compressor.flush(flush)
