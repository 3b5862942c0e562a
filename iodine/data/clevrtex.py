"""ClevrTex (Karazija, Laina & Rupprecht 2021), in the files as published."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data import (
  clevrtex_objects,
  image_files,
  preprocessing,
  scene_files,
)
from iodine.data.scene_files import SceneFiles

__all__ = ["ClevrTex", "NUM_SCENES", "SPLITS"]

# Scenes of each variant; outd has no splits.
NUM_SCENES = {
  "full": 50_000,
  "camo": 20_000,
  "pbg": 20_000,
  "vbg": 20_000,
  "grassbg": 20_000,
  "outd": 10_000,
}
_WITHOUT_SPLITS = ("outd",)
# Where a split begins and ends, in tenths of the scenes
# (karazijal/clevrtex: ool/clevrtex_eval.py).
SPLITS = {"test": (0, 1), "val": (1, 2), "train": (2, 10)}
_STORED_SIZE = (240, 320)
_IMAGE, _MASK, _OBJECTS = ".png", "_flat.png", ".json"
_COUNTS = ("crop", "scene")


@dataclasses.dataclass(eq=False)
class ClevrTex(SceneFiles):
  """ClevrTex: up to ten textured solids on textured ground.

  Scenes are in the order of their indices, from 0 on, and are files of
  clevrtex_VARIANT/INDEX // 1000/CLEVRTEX_VARIANT_INDEX, an index having six
  digits there: `.png`, 240 x 320, whose alpha channel is dropped; `_flat.png`,
  the mask, whose palette indices are labels, 0 for the background;
  `.json`, the objects. Names are derived, and folders never listed: the first
  and the last scene are opened at once, the others when it is their turn.

  Entity i is the object of label i. An object that the crop leaves no pixel has
  visibility 0. Factors, see `clevrtex_objects.read_objects`: shape, size,
  material and, in the variant vbg, color are counted from 1; position is in
  pixels of the whole image, location in scene units, rotation in degrees.

  Attributes:
    path: folder that holds clevrtex_VARIANT, or that folder; made absolute;
      "~" is expanded.
    dataset_variant: "full", "camo", "pbg", "vbg", "grassbg" or "outd".
    split: "test", "val" or "train", the first tenth of the scenes, the second
      and the rest, as published; of outd, "test" is all.
    metadata: whether to read the objects' factors.
    count_objects: what `min_num_objects` and `max_num_objects` count: "crop",
      the objects that can be seen after cropping and resizing; "scene", those
      of the whole image, as for HHousen's ClevrTex6.
  """

  num_true_objects = 1 + clevrtex_objects.MOST_OBJECTS

  path: str | os.PathLike
  _: dataclasses.KW_ONLY
  dataset_variant: str = "full"
  split: str = "train"
  metadata: bool = True
  count_objects: str = "crop"
  image_dim: Sequence[int] = (128, 128)
  crop_region: Sequence[Sequence[int]] | None = ((24, 216), (64, 256))
  name: str = "clevrtex"

  def __post_init__(self):
    super().__post_init__()
    self.path = os.path.abspath(os.path.expanduser(self.path))
    self.factors = {
      name: (tf.as_dtype(dtype), size)
      for name, (dtype, size) in clevrtex_objects.FACTORS.items()
      # Other variants have colours in their files that nothing shows.
      if self.metadata and (name != "color" or self.dataset_variant == "vbg")
    }

  def counted_objects(self, example: dict) -> tf.Tensor:
    """What the filter counts, see `count_objects`."""
    if self.count_objects == "scene":
      return example["num_objects"]
    return super().counted_objects(example)

  def stored_files(self) -> list[str]:
    """The files of at most 500 scenes from all over; all with `verify`."""
    indices = self._indices()
    chosen = indices if self.verify else scene_files.compared(indices)
    return [path for index in chosen for path in self._existing(index)]

  def estimated_num_examples(self) -> int:
    """The number of scenes in the split."""
    return len(self._indices())

  def _indices(self) -> range:
    count = NUM_SCENES[self.dataset_variant]
    if self.dataset_variant in _WITHOUT_SPLITS:
      return range(count)
    start, stop = (count * tenths // 10 for tenths in SPLITS[self.split])
    return range(start, stop)

  @functools.cached_property
  def _folder(self) -> str:
    """The folder of the variant; raises FileNotFoundError."""
    name = f"clevrtex_{self.dataset_variant}"
    folder = os.fspath(self.path)
    if os.path.basename(folder) != name:
      folder = os.path.join(folder, name)
    if not os.path.isdir(folder):
      raise FileNotFoundError(
        f"ClevrTex: there is no folder {folder}. Fetch it: "
        f"./download_datasets.sh {name}"
      )
    return folder

  def _path(self, index: int, suffix: str) -> str:
    name = f"CLEVRTEX_{self.dataset_variant}_{index:06d}{suffix}"
    return os.path.join(self._folder, str(index // 1000), name)

  def _existing(self, index: int) -> list[str]:
    """The files of a scene; raises FileNotFoundError."""
    suffixes = [_IMAGE, _MASK, *([_OBJECTS] if self.metadata else [])]
    paths = [self._path(index, suffix) for suffix in suffixes]
    for path in paths:
      if not os.path.exists(path):
        indices = self._indices()
        raise FileNotFoundError(
          f"ClevrTex: there is no file {path}. The split {self.split} of "
          f"{self.dataset_variant} has the scenes {indices[0]:,} to "
          f"{indices[-1]:,}: fetch and unpack all archives of "
          f"clevrtex_{self.dataset_variant}."
        )
    return paths

  def _names(self) -> tf.data.Dataset:
    indices = self._indices()
    for index in (indices[0], indices[-1]):
      self._read(index)
    return tf.data.Dataset.range(indices.start, indices.stop)

  def _load(self, name: tf.Tensor) -> dict[str, Any]:
    specs = {
      "image": ([*self.image_dim, self.num_channels], tf.uint8),
      "owners": (self.image_dim, tf.uint8),
      "num_objects": ([], tf.int32),
      **{
        name: ([self.num_true_objects, size], dtype)
        for name, (dtype, size) in self.factors.items()
      },
    }
    values = tf.numpy_function(
      self._read, [name], [dtype for _, dtype in specs.values()]
    )
    read = {
      key: tf.ensure_shape(value, shape)
      for (key, (shape, _)), value in zip(specs.items(), values, strict=True)
    }
    return {
      "image": read["image"],
      "mask": preprocessing.masks_of_labels(
        read["owners"], self.num_true_objects
      ),
      "num_objects": read["num_objects"],
      "factors": {key: read[key] for key in self.factors},
    }

  def _read(self, index: int) -> list[np.ndarray]:
    """Reads a scene.

    Returns:
      The image [H, W, C] uint8; which entity owns a pixel, [H, W] uint8; the
      number of objects in the whole image, int32; the factors.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file is invalid.
    """
    try:
      image = self._read_image(index)
      labels, num_objects, factors = self._read_objects(index)
    except FileNotFoundError:
      self._existing(index)  # raises an error that says more
      raise
    if self.crop_region is not None:
      (top, bottom), (left, right) = self.crop_region
      labels = labels[top:bottom, left:right]
    owners = image_files.resize_labels(labels, self.image_dim)
    return [
      image,
      owners.astype(np.uint8),
      np.array(num_objects, np.int32),
      *(factors[name] for name in self.factors),
    ]

  def _read_image(self, index: int) -> np.ndarray:
    path = self._path(index, _IMAGE)
    _check_size(path, image_files.image_size(path))
    return image_files.load_image(
      path, self.image_dim, self.grayscale, self.crop_region, keep_alpha=False
    )

  def _read_objects(
    self, index: int
  ) -> tuple[np.ndarray, int, dict[str, np.ndarray]]:
    """Returns all labels, the number of objects, and the factors."""
    path = self._path(index, _MASK)
    labels = image_files.load_labels(path)
    _check_size(path, labels.shape)
    num_objects = int(np.count_nonzero(np.unique(labels)))
    most, factors = clevrtex_objects.MOST_OBJECTS, dict[str, np.ndarray]()
    if self.metadata:
      num_objects, factors = clevrtex_objects.read_objects(
        self._path(index, _OBJECTS), index
      )
      most = num_objects
    if labels.max() > most:
      raise image_files.ImageFileError(
        f"{path}: label {labels.max()}, but there are {most} objects at most. "
        "The indices of its palette are the labels: was it converted?"
      )
    return labels, num_objects, factors

  def _faults(self) -> Iterator[str | None]:
    yield checks.path_fault("path", self.path)
    yield from super()._faults()
    fault = checks.choice_fault(
      "dataset_variant", self.dataset_variant, list(NUM_SCENES)
    )
    yield fault
    split_fault = checks.choice_fault("split", self.split, list(SPLITS))
    yield split_fault
    if not fault and not split_fault and self.split != "test":
      if self.dataset_variant in _WITHOUT_SPLITS:
        yield (
          f"split={self.split!r}: {self.dataset_variant} has no splits, all of "
          "it is for tests; set 'test'"
        )
    yield checks.flag_fault("metadata", self.metadata)
    yield checks.choice_fault("count_objects", self.count_objects, _COUNTS)
    if not checks.crop_fault(self.crop_region) and self.crop_region is not None:
      (_, bottom), (_, right) = self.crop_region
      if bottom > _STORED_SIZE[0] or right > _STORED_SIZE[1]:
        yield (
          f"crop_region={self.crop_region}: reaches beyond the "
          f"{_STORED_SIZE[0]} rows and {_STORED_SIZE[1]} columns of the images"
        )

  def _source(self) -> Any:
    return [self._folder, scene_files.digest(self.stored_files())]

  def __str__(self) -> str:
    return f"ClevrTex: {self.path}, {self.dataset_variant}, {self.split}"


def _check_size(path: str, size: Sequence[int]) -> None:
  if tuple(size) != _STORED_SIZE:
    raise image_files.ImageFileError(
      f"{path}: {size[0]} rows and {size[1]} columns; expected the "
      f"{_STORED_SIZE[0]} and {_STORED_SIZE[1]} of ClevrTex's files."
    )
