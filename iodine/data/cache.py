"""Preprocessed scenes on disk, in files of equal length read in any order."""

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

# Bytes of one file, about: a shuffled epoch holds a scene of each of
# `_CYCLE_LENGTH` files at a time, and goes through the files in random order.
_FILE_BYTES = 64 * 2**20
_MAX_SCENES_PER_FILE = 1024
_CYCLE_LENGTH = 16
_INDEX_NAME = "index.json"


class SceneCache:
  """Scenes in TFRecord files: as they were, in order or thoroughly mixed.

  A scene is a nested dict of tensors. A record is `tf.io.serialize_tensor` of
  the strings that `tf.io.serialize_tensor` makes of its tensors.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    name: str,
    spec: Mapping[str, Any],
    key: Mapping[str, Any],
  ):
    """Finds the cache's own folder in that of all caches; opens no file.

    Args:
      folder: The folder of all caches, which need not exist.
      name: Name of the dataset, with which the cache's own folder begins.
      spec: The structure of a scene with a `tf.TensorSpec` of static shape for
        each tensor.
      key: All that the scenes depend on, such as files and options: what JSON
        can hold. Another key is another cache.
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
    """How many scenes the cache holds; None: it is missing or damaged."""
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
    """Writes all scenes; the cache appears when it is whole.

    Args:
      scenes: Pairs: the scene's place among all scenes that are read to find
        these, an int64 scalar, and the scene.
      on_progress: Called with the number of scenes that were read so far.

    Raises:
      OSError: if the cache cannot be written. Nothing is left behind.
    """
    records = scenes.map(
      lambda place, scene: (place, self._pack(scene)),
      num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)
    # Not by iodine.files, whose names replace what had them: a folder cannot
    # replace another, and the cache of a faster process is as good as this one.
    partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
    try:
      partial.mkdir(parents=True)
      self._write_files(partial, iter(records), on_progress)
      if self.num_scenes() is None:  # else another process was faster
        shutil.rmtree(self.path, ignore_errors=True)  # what is damaged
        partial.rename(self.path)
    finally:
      shutil.rmtree(partial, ignore_errors=True)

  def read(self, skip: int = 0, take: int | None = None) -> tf.data.Dataset:
    """Opens the records in the order in which they were written.

    Args:
      skip: Number of scenes to leave out at the start.
      take: Number of scenes after these; None: all.

    Returns:
      A dataset of records, to be given to `unpack`.
    """
    return self._parts(skip, take).flat_map(_open)

  def read_mixed(
    self, skip: int, take: int | None, seed: tf.Tensor
  ) -> tf.data.Dataset:
    """Opens the same records in random order, as far as files allow.

    The files come in random order, several at a time. Within a file, and only
    there, the order is that of writing; a shuffle buffer mends that.

    Args:
      skip: As for `read`.
      take: As for `read`.
      seed: Scalar int64, with TensorFlow's global seed that of the order.

    Returns:
      A dataset of records, to be given to `unpack`.
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
    """Returns the scene of a record; for use in a graph."""
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
    """The files with what to skip and take of each: (path, skip, take)."""
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
