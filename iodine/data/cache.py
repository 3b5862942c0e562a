"""Preprocessed scenes on disk, in files of equal length, read in any order."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import operator
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

__all__ = ["SceneCache"]

# Approximate bytes of one file: a shuffled epoch holds a scene of each of
# `_CYCLE_LENGTH` files at a time and reads the files in random order.
_FILE_BYTES = 64 * 2**20
_MAX_SCENES_PER_FILE = 1024
_CYCLE_LENGTH = 16
_INDEX_NAME = "index.json"


class SceneCache:
  """Scenes in TFRecord files, read in order or thoroughly mixed.

  A scene is a nested dict of tensors. A record is a serialized string tensor
  that holds the scene's serialized tensors (`tf.io.serialize_tensor`).
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    name: str,
    spec: Mapping[str, Any],
    key: Mapping[str, Any],
  ):
    """Locates the cache; opens no file.

    Args:
      folder: folder of all caches; need not exist.
      name: name of the dataset, the prefix of the cache's own folder.
      spec: structure of a scene, with a `tf.TensorSpec` of static shape for
        each tensor.
      key: everything that the scenes depend on, such as files and options, as
        JSON values. A different key means a different cache.
    """
    self._spec = spec
    flat = tf.nest.flatten(spec)
    scene_bytes = sum(x.dtype.size * math.prod(x.shape) for x in flat)
    self._scenes_per_file = min(
      max(_FILE_BYTES // scene_bytes, 1), _MAX_SCENES_PER_FILE
    )
    self._key = {
      **key,
      "tensors": [[x.dtype.name, *x.shape] for x in flat],
      "scenes_per_file": self._scenes_per_file,
    }
    text = json.dumps(self._key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    self.path = pathlib.Path(folder).expanduser() / f"{name}-{digest}"

  def num_scenes(self) -> int | None:
    """Number of cached scenes; None: the cache is missing or damaged."""
    try:
      index = json.loads((self.path / _INDEX_NAME).read_text(encoding="utf-8"))
      num_scenes = operator.index(index["num_scenes"])
      sizes = [path.stat().st_size for path in self._files(index["bytes"])]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
      return None
    return num_scenes if sizes == index["bytes"] else None

  def write(
    self,
    scenes: tf.data.Dataset,
    on_progress: Callable[[int], object] = lambda num_read: None,
  ) -> None:
    """Writes all scenes; the cache appears only when complete.

    Args:
      scenes: pairs of the scene's index before filtering, an int64 scalar, and
        the scene.
      on_progress: called with the number of scenes read so far.

    Raises:
      OSError: if the cache cannot be written; nothing is left behind.
    """
    records = scenes.map(
      lambda place, scene: (place, self._pack(scene)),
      num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)
    # Not iodine.files, which replaces existing files: a folder cannot replace
    # another, and the cache of a faster process is just as good.
    partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
    try:
      partial.mkdir(parents=True)
      self._write_files(partial, iter(records), on_progress)
      if self.num_scenes() is None:  # else another process was faster
        shutil.rmtree(self.path, ignore_errors=True)  # if damaged
        partial.rename(self.path)
    finally:
      shutil.rmtree(partial, ignore_errors=True)

  def read(self, skip: int = 0, take: int | None = None) -> tf.data.Dataset:
    """Opens the records in the order they were written.

    Args:
      skip: number of scenes to skip at the start.
      take: number of scenes after these; None: all.

    Returns:
      A dataset of records for `unpack`.
    """
    return self._parts(skip, take).flat_map(_open)

  def read_mixed(
    self, skip: int, take: int | None, seed: tf.Tensor
  ) -> tf.data.Dataset:
    """Opens the same records with the files in random order.

    Several files are read at a time. Within a file, the order is that of
    writing; a shuffle buffer fixes that.

    Args:
      skip: as in `read`.
      take: as in `read`.
      seed: scalar int64; determines the order together with TensorFlow's global
        seed.

    Returns:
      A dataset of records for `unpack`.
    """
    parts = self._parts(skip, take)
    parts = parts.shuffle(
      parts.cardinality(), seed=seed, reshuffle_each_iteration=False
    )
    return parts.interleave(
      _open,
      cycle_length=_CYCLE_LENGTH,
      num_parallel_calls=tf.data.AUTOTUNE,
      deterministic=True,
    )

  def unpack(self, record: tf.Tensor) -> dict[str, Any]:
    """Decodes a record to its scene; for use in a graph."""
    flat = tf.nest.flatten(self._spec)
    strings = tf.unstack(tf.io.parse_tensor(record, tf.string), len(flat))
    tensors = [
      tf.ensure_shape(tf.io.parse_tensor(string, spec.dtype), spec.shape)
      for string, spec in zip(strings, flat, strict=True)
    ]
    return tf.nest.pack_sequence_as(self._spec, tensors)

  def _pack(self, scene: Mapping[str, Any]) -> tf.Tensor:
    tf.nest.assert_same_structure(self._spec, scene)
    strings = [tf.io.serialize_tensor(x) for x in tf.nest.flatten(scene)]
    return tf.io.serialize_tensor(tf.stack(strings))

  def _files(self, numbers: Sequence[Any]) -> list[pathlib.Path]:
    return [self.path / _file_name(i) for i in range(len(numbers))]

  def _write_files(
    self,
    folder: pathlib.Path,
    records: Iterator[tuple[tf.Tensor, tf.Tensor]],
    on_progress: Callable[[int], object],
  ) -> None:
    num_scenes, sizes = 0, list[int]()
    while part := list(itertools.islice(records, self._scenes_per_file)):
      path = folder / _file_name(len(sizes))
      _write_file(path, [record.numpy() for _, record in part])
      num_scenes += len(part)
      sizes.append(path.stat().st_size)
      on_progress(int(part[-1][0]) + 1)
    index = {"num_scenes": num_scenes, "bytes": sizes, "key": self._key}
    text = json.dumps(index, indent=1)
    (folder / _INDEX_NAME).write_text(text, encoding="utf-8")

  def _parts(self, skip: int, take: int | None) -> tf.data.Dataset:
    """The files and what to skip and take in each: (path, skip, take)."""
    num_scenes = self.num_scenes()
    if num_scenes is None:
      raise FileNotFoundError(f"There is no whole cache {self.path}.")
    stop = num_scenes if take is None else min(skip + take, num_scenes)
    size = self._scenes_per_file
    first_file, last_file = skip // size, math.ceil(stop / size)
    starts = [i * size for i in range(first_file, last_file)]
    return tf.data.Dataset.from_tensor_slices(
      (
        tf.constant([str(self.path / _file_name(i // size)) for i in starts]),
        tf.constant([max(skip - i, 0) for i in starts], tf.int64),
        tf.constant([stop - max(skip, i) for i in starts], tf.int64),
      )
    )


def _file_name(number: int) -> str:
  return f"{number:06d}.tfrecords"


def _open(path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
  return tf.data.TFRecordDataset(path).skip(skip).take(take)


def _write_file(path: pathlib.Path, records: Sequence[bytes]) -> None:
  try:
    with tf.io.TFRecordWriter(str(path)) as writer:
      for record in records:
        writer.write(record)
  except tf.errors.OpError as error:
    raise OSError(f"{path.parent} cannot be written: {error.message}") from None
