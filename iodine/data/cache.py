"""Preprocessed scenes on disk, in files of equal length, read in any order.

Processes may write the same cache at a time: each writes to a folder of its
own, and the first to finish gives the cache its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import operator
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from iodine import leftovers
from iodine.tfrecords import walking

__all__ = ["SceneCache"]

# To be raised when the files change, or what preprocessing makes of the same
# scenes and options: caches of another number are not found, and written anew.
_FORMAT = 1
# Approximate bytes of one file: a shuffled epoch holds a scene of each of
# `_CYCLE_LENGTH` files at a time and reads the files in random order.
_FILE_BYTES = 64 * 2**20
_MAX_SCENES_PER_FILE = 1024
_CYCLE_LENGTH = 16
_INDEX_NAME = "index.json"
# Of every cache in a folder that is being written.
_PARTIALS = f".*-{'[0-9a-f]' * 16}.*.partial"


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
      # Caches of the first format do not tell its number.
      **({"format": _FORMAT} if _FORMAT > 1 else {}),
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
    folder = self.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with (
      leftovers.writing_in(folder, _PARTIALS),
      tempfile.TemporaryDirectory(
        prefix=f".{self.path.name}.",
        suffix=".partial",
        dir=folder,
        ignore_cleanup_errors=True,
      ) as partial,
    ):
      new = pathlib.Path(partial, "new")
      new.mkdir()
      self._write_files(new, iter(records), on_progress)
      self._publish(new, pathlib.Path(partial, "damaged"))

  def read(self, skip: int = 0, take: int | None = None) -> tf.data.Dataset:
    """Opens the records in the order they were written.

    Args:
      skip: number of scenes to skip at the start.
      take: number of scenes after these; None: all.

    Returns:
      A dataset of pairs: the scene's number in the cache, an int64 scalar, and
      its record, for `unpack`.
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
      A dataset of the same pairs.
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

  def _publish(self, new: pathlib.Path, damaged: pathlib.Path) -> None:
    """Gives a cache its name, unless another process was faster.

    Not by iodine.files, which replaces existing files: a folder cannot replace
    another, and the cache of a faster process is just as good.
    """
    if self.num_scenes() is not None:
      return
    with contextlib.suppress(FileNotFoundError):
      self.path.rename(damaged)
    try:
      new.rename(self.path)
    except OSError:
      if self.num_scenes() is None:
        raise

  def _parts(self, skip: int, take: int | None) -> tf.data.Dataset:
    """The files: arguments of `_open`, of which each has a slice."""
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
        tf.constant(starts, tf.int64),
        tf.constant([min(num_scenes - i, size) for i in starts], tf.int64),
        tf.constant([max(skip - i, 0) for i in starts], tf.int64),
        tf.constant([stop - max(skip, i) for i in starts], tf.int64),
      )
    )


def _file_name(number: int) -> str:
  return f"{number:06d}.tfrecords"


def _open(
  path: tf.Tensor,
  first: tf.Tensor,
  num_scenes: tf.Tensor,
  skip: tf.Tensor,
  take: tf.Tensor,
) -> tf.data.Dataset:
  """Opens the records of a file, with their numbers, from `first` on.

  If one is damaged, an error names the file.

  All heads of records are checked before TensorFlow reads any.
  """
  path = _raise_if(_heads_fault, path, num_scenes)
  records = tf.data.TFRecordDataset(path).ignore_errors()
  # A file that cannot be opened fails endlessly; never ignore that error.
  first_byte = tf.data.FixedLengthRecordDataset(path, record_bytes=1).take(1)
  records = first_byte.flat_map(lambda _: records)
  # Reached only if TensorFlow has not read as many.
  rest = tf.data.Dataset.from_tensors(path).map(
    lambda path: _raise_if(_record_fault, path, num_scenes)
  )
  records = records.concatenate(rest).take(num_scenes)
  return records.enumerate(first).skip(skip).take(take)


def _raise_if(
  find_fault: Callable[[str, int], str | None],
  path: tf.Tensor,
  num_scenes: tf.Tensor,
) -> tf.Tensor:
  """Returns the path; raises an error in the graph if the file has a fault."""

  def check(path: bytes, num_scenes: int) -> bytes:
    name = os.fsdecode(path)
    if fault := find_fault(name, int(num_scenes)):
      raise ValueError(
        f"{name}: {fault} Delete the folder {os.path.dirname(name)}: it is a "
        "cache, and will be rewritten."
      )
    return path

  checked = tf.numpy_function(
    check, [path, num_scenes], tf.string, stateful=False
  )
  return tf.ensure_shape(checked, [])


def _heads_fault(path: str, num_scenes: int) -> str | None:
  try:
    walk = walking.walk_of(path, "")
  except tf.errors.OpError as error:
    return f"the file cannot be read: {error.message}."
  walk.go_on(until=lambda: False)
  if walk.fault or walk.count != num_scenes:
    return f"{walk.count} of {num_scenes} scenes can be read."
  return None


def _record_fault(path: str, num_scenes: int) -> str:
  del path, num_scenes
  return "a scene fails its checksum."


def _write_file(path: pathlib.Path, records: Sequence[bytes]) -> None:
  try:
    with tf.io.TFRecordWriter(str(path)) as writer:
      for record in records:
        writer.write(record)
  except tf.errors.OpError as error:
    raise OSError(f"{path.parent} cannot be written: {error.message}") from None
