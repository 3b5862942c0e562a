"""Sketchy (Cabi et al. 2019), in the files that GENESIS-V2's code makes."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data import image_files, scene_files
from iodine.data.scene_files import SceneFiles
from iodine.progress import progress

__all__ = ["Sketchy"]

_LOG = logging.getLogger(__name__)

_SPLITS = ("train", "valid", "test")
_VIEWS = ("fl", "fr")
_CROPS = ("c0", "c1", "c2", "c3", "c4", "c5", "full")
_PROCESSED = "processed"
_EPISODE = re.compile(r"ep\d{6}")
_IMAGE = re.compile(r"(ep\d{6})_t(\d{3,})_(fl|fr)_(c[0-5]|full)\.png")


class _Episode(NamedTuple):
  """What an episode's folder holds.

  Attributes:
    images: {(frame, view, crop)}.
    others: number of other files.
  """

  images: frozenset[tuple[int, str, str]]
  others: int


@dataclasses.dataclass(eq=False)
class Sketchy(SceneFiles):
  """Sketchy: a robot's gripper over coloured blocks, without masks.

  An image is processed/SPLIT/epEEEEEE/epEEEEEE_tTTT_VIEW_CROP.png, 128 x 128,
  with the numbers of its episode and its frame. Scenes are in the order of
  these names, so that the images of a frame stand beside each other, and the
  frames of an episode, which are much alike; evaluate on another split.

  `_state.pt` files are not opened, nor is the list of paths SPLIT_images.txt,
  which is that of the machine that wrote it.

  Attributes:
    path: folder that holds `processed`, or the splits; made absolute; "~" is
      expanded.
    split: "train", "valid" or "test", episodes of their own, as published.
    views: which cameras: "fl" is front left, "fr" front right.
    crops: which parts of a camera's image: "full" is the central square, "c0"
      to "c5" are two rows of three squares.
  """

  num_true_objects = None

  path: str | os.PathLike
  _: dataclasses.KW_ONLY
  split: str = "train"
  views: Sequence[str] = _VIEWS
  crops: Sequence[str] = _CROPS
  image_dim: Sequence[int] = (128, 128)
  name: str = "sketchy"

  def __post_init__(self):
    super().__post_init__()
    self.path = os.path.abspath(os.path.expanduser(self.path))

  def stored_files(self) -> list[str]:
    """At most 500 images from all over; all with `verify`."""
    images = self._images
    chosen = images if self.verify else scene_files.compared(images)
    return [os.path.join(self._folder, name) for name in chosen]

  def estimated_num_examples(self) -> int:
    """The number of images."""
    return len(self._images)

  @functools.cached_property
  def _folder(self) -> str:
    """The folder of the split; raises FileNotFoundError."""
    path = os.fspath(self.path)
    tried = [os.path.join(path, *x, self.split) for x in ([_PROCESSED], [])]
    for folder in tried:
      if os.path.isdir(folder):
        return folder
    raise FileNotFoundError(
      f"Sketchy: there is no folder {tried[0]}. Fetch it: "
      "./download_datasets.sh sketchy"
    )

  @functools.cached_property
  def _images(self) -> list[str]:
    """The images' paths below the folder of the split, in order.

    Raises:
      FileNotFoundError: if an image of an episode is missing, or there is none.
    """
    episodes = sorted(
      name for name in os.listdir(self._folder) if _EPISODE.fullmatch(name)
    )
    if not episodes:
      raise FileNotFoundError(
        f"Sketchy: {self._folder} has no episode (folders such as ep000000)."
      )
    images, others = [], 0
    with (
      progress(len(episodes), "episodes", _LOG) as update,
      futures.ThreadPoolExecutor() as pool,
    ):
      found = pool.map(self._list, episodes)
      for name, episode in zip(episodes, found, strict=True):
        images += self._chosen(name, episode)
        others += episode.others
        update(1)
    _LOG.info(
      "%s: %s images of %s episodes; %s other files are not opened",
      self._folder,
      f"{len(images):,}",
      f"{len(episodes):,}",
      f"{others:,}",
    )
    paths = f"{self._folder}_images.txt"
    if os.path.exists(paths):
      _LOG.info("%s is not used: its paths may be of another machine", paths)
    return images

  def _list(self, episode: str) -> _Episode:
    names = os.listdir(os.path.join(self._folder, episode))
    matches = [_IMAGE.fullmatch(name) for name in names]
    images = frozenset(
      (int(match[2]), match[3], match[4])
      for match in matches
      if match and match[1] == episode
    )
    return _Episode(images, len(names) - len(images))

  def _chosen(self, name: str, episode: _Episode) -> list[str]:
    """An episode's images of the views and crops, every frame."""
    if not episode.images:
      raise FileNotFoundError(
        f"Sketchy: {os.path.join(self._folder, name)} has no image."
      )
    frames = [frame for frame, _, _ in episode.images]
    wanted = [
      (frame, view, crop)
      for frame in range(min(frames), max(frames) + 1)
      for view in sorted(self.views)
      for crop in sorted(self.crops)
    ]
    paths = [
      os.path.join(name, f"{name}_t{frame:03d}_{view}_{crop}.png")
      for frame, view, crop in wanted
    ]
    for image, path in zip(wanted, paths, strict=True):
      if image not in episode.images:
        raise FileNotFoundError(
          f"Sketchy: there is no file {os.path.join(self._folder, path)}, "
          f"though the episode has the frames {min(frames)} to {max(frames)}. "
          "Unpack the archive again, or leave out what it lacks by views or "
          "crops."
        )
    return paths

  def _names(self) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(self._images)

  def _load(self, name: tf.Tensor) -> dict[str, tf.Tensor]:
    def load(name: bytes) -> np.ndarray:
      path = os.path.join(self._folder, os.fsdecode(name))
      return image_files.load_image(
        path, self.image_dim, self.grayscale, self.crop_region
      )

    image = tf.numpy_function(load, [name], tf.uint8)
    return {
      "image": tf.ensure_shape(image, [*self.image_dim, self.num_channels])
    }

  def _faults(self) -> Iterator[str | None]:
    yield checks.path_fault("path", self.path)
    yield from super()._faults()
    yield checks.choice_fault("split", self.split, _SPLITS)
    yield _subset_fault("views", self.views, _VIEWS)
    yield _subset_fault("crops", self.crops, _CROPS)

  def _source(self) -> Any:
    files = self.stored_files()
    return [self._folder, len(self._images), scene_files.digest(files)]

  def __str__(self) -> str:
    return f"Sketchy: {self.path}, {self.split}"


def _subset_fault(name: str, value: Any, choices: Sequence[str]) -> str | None:
  """Expects a list of some of the choices, each once."""
  if (
    isinstance(value, list | tuple)
    and value
    and all(x in choices for x in value)
    and len(set(value)) == len(value)
  ):
    return None
  return (
    f"{name}={value!r}: expected a list of some of {', '.join(choices)}, such "
    f"as [{choices[-1]}]"
  )
