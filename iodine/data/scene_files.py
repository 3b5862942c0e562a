"""The base of datasets in image files, of which every scene has its own."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from iodine.data import stream
from iodine.data.pipeline import IODINEDataset

__all__ = ["SceneFiles", "compared", "digest"]

# Scenes whose files stand for those of all, of which there may be a million.
_MOST_COMPARED = 500

_Scene = TypeVar("_Scene")


@dataclasses.dataclass(eq=False, kw_only=True)
class SceneFiles(IODINEDataset):
  """Scenes that are read one by one, by names that fit in memory.

  Training shuffles all names; `shuffle_buffer` scenes are held in memory only
  if scenes are cached, filtered by number of objects, or shifted. Images are
  cropped and resized as they are read, see `image_files.load_image`: with
  antialiasing, whatever `half_pixel_centers` says.
  """

  @abc.abstractmethod
  def _names(self) -> tf.data.Dataset:
    """Finds the scenes, in order.

    Returns:
      An unbatched dataset, of known length, of what `_load` takes.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file is invalid.
    """

  @abc.abstractmethod
  def _load(self, name: Any) -> dict[str, Any]:
    """Reads a scene of `examples`, cropped and resized; for use in a graph."""

  def examples(self) -> tf.data.Dataset:
    """Opens the files; see `IODINEDataset.examples`."""
    return self._names().map(self._load, num_parallel_calls=tf.data.AUTOTUNE)

  def remaining_crop(self) -> None:
    """None: `_load` crops."""
    return None

  def _training_order(self) -> tuple[Callable, Callable]:
    """Shuffles names, not scenes, unless something is done with the latter."""
    changes = self._is_filtered() or self._shift is not None
    if changes or self.cache_dir is not None or self.shuffle_buffer is None:
      return super()._training_order()
    self._scenes()  # raises errors early
    names = self._names().skip(self.skip)
    if self.take is not None:
      names = names.take(self.take)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
      stream.set_graph_seed(self.seed or 0)
      return names.shuffle(
        names.cardinality(), seed=epoch, reshuffle_each_iteration=False
      )

    return order, lambda name: self._scene(self._load(name))


def compared(scenes: Sequence[_Scene]) -> list[_Scene]:
  """At most 500 scenes, evenly from the first to the last.

  Their files stand for those of all where data are compared.
  """
  count = min(len(scenes), _MOST_COMPARED)
  places = np.linspace(0, len(scenes) - 1, count).round().astype(int)
  return [scenes[place] for place in places]


def digest(paths: Sequence[str]) -> str:
  """What changes when a file does: a digest of sizes and times."""
  stats = [os.stat(path) for path in paths]
  text = repr([(stat.st_size, stat.st_mtime_ns) for stat in stats])
  return hashlib.sha256(text.encode()).hexdigest()
