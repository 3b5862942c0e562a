"""Scenes from HDF5 files without groups: a dataset for each feature.

Dimensions: N scenes, L true entities, h and w stored height and width, C
channels, d numbers of a feature.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data import hdf5_files, preprocessing
from iodine.data.hdf5 import HDF5Dataset, Layout, image_shape

__all__ = ["PUBLISHED_SPLITS", "FlatHDF5"]

# By stored scene, before any filter. HHousen/object-discovery-pytorch loses the
# scenes at its borders (70,000, 85,000; 60,000, 75,000), which are kept here.
PUBLISHED_SPLITS: Mapping[str, tuple[int, int]] = {
  "object_discovery_clevr/train": (0, 70_000),
  "object_discovery_clevr/val": (70_000, 85_000),
  "object_discovery_clevr/test": (85_000, 100_000),
  "object_discovery_tetrominoes/train": (0, 60_000),
  "object_discovery_tetrominoes/val": (60_000, 75_000),
  "object_discovery_tetrominoes/test": (75_000, 90_000),
  "object_centric_library/train": (0, 90_000),
  "object_centric_library/val": (90_000, 95_000),
  "object_centric_library/test": (95_000, 100_000),
  "object_centric_library_clevrtex/train": (0, 40_000),
  "object_centric_library_clevrtex/val": (40_000, 45_000),
  "object_centric_library_clevrtex/test": (45_000, 50_000),
}

_COUNT = "num_actual_objects"
_VISIBILITY = "visibility"
_MOST_ENTITIES = 256  # more are no masks


@dataclasses.dataclass(eq=False)
class FlatHDF5(HDF5Dataset):
  """Scenes from an HDF5 file with a dataset for each feature of the scenes.

  The files of HHousen/object-discovery-pytorch and addtt/object-centric-library
  have this layout:
    image: [N, h, w, C] whole numbers from 0 to 255; C is 1 or 3.
    mask: [N, L, h, w, 1], nonzero where an entity owns the pixel, or a label
      map, [N, h, w, 1] or [N, h, w], the number of the entity; background
      first.
    visibility: [N, L] or [N, L, 1], 0 or 1; optional: an entity is visible if
      it owns a pixel.
    num_actual_objects: [N, 1], objects without the background; optional, to
      check `num_background_entities`.
    features of entities: [N, L] or [N, L, d], such as `color`.

  Stored images are not cropped, see `crop_region`. Metadata in files of their
  own, such as object-centric-library's pickled `-metadata.npy`, are not read.

  Attributes:
    split: a name in `PUBLISHED_SPLITS`, such as "object_discovery_clevr/train",
      or (first, stop) of the stored scenes, counted from 0; None: all.
    factor_keys: {name of a factor: the features that it joins}, such as
      {"position": ["x", "y"]}; None: no factors.
    image_key: what the file calls `image`.
    mask_key: what the file calls `mask`; None: without masks.
    num_entities: L of a label map; None: as `visibility` tells.
    num_background_entities: how many of the L entities are background.
    partial_masks: whether pixels may belong to no entity, having no mask or a
      label that is no entity's; scores that compare masks leave them out.
      Otherwise they are errors.
  """

  _: dataclasses.KW_ONLY
  split: str | Sequence[int] | None = None
  factor_keys: Mapping[str, Sequence[str]] | None = None
  image_key: str = "image"
  mask_key: str | None = "mask"
  num_entities: int | None = None
  num_background_entities: int = 1
  partial_masks: bool = False
  name: str = "flat_hdf5"

  def __post_init__(self):
    super().__post_init__()
    if self.split is not None and not isinstance(self.split, str):
      self.split = tuple(self.split)

  @functools.cached_property
  def factors(self) -> dict:  # type: ignore[override]
    """{name: (dtype, n)}. Opens the file if there are any."""
    if not self.factor_keys:
      return {}
    with self._opened() as group:
      return {
        name: (tf.float32, sum(_width(group[key]) for key in keys))
        for name, keys in self._checked_factors(group).items()
      }

  def _range(self) -> tuple[int, int]:
    count = self._layout.num_rows
    if self.split is None:
      return 0, count
    if isinstance(self.split, str):
      first, last = PUBLISHED_SPLITS[self.split]
    else:
      first, last = self.split
    if last > count:
      raise ValueError(
        f"{self.path}: split={self.split!r} ends at scene {last:,}, but the "
        f"file has {count:,}. Name a split of these data, or (first, stop)."
      )
    return first, last

  def _check_layout(self, group: Any) -> Layout:
    images = hdf5_files.dataset_in(group, self.image_key, [4])
    shape = image_shape(images)
    large, num_entities = [images], None
    if self.mask_key is not None:
      masks = hdf5_files.dataset_in(
        group,
        self.mask_key,
        [3, 4, 5],
        "Set mask_key to its name, or to null to go without masks.",
      )
      large.append(masks)
      num_entities = self._checked_masks(group, masks, (len(images), *shape))
    row_bytes = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in large)
    length = hdf5_files.rows_per_slice(large, row_bytes)
    return Layout(images.shape[0], shape, num_entities, length)

  def _checked_masks(
    self, group: Any, masks: Any, shape: tuple[int, int, int, int]
  ) -> int:
    """Returns L; raises ValueError unless masks and visibility are as told."""
    count, height, width, _ = shape
    visibility = None
    if _VISIBILITY in group:
      visibility = hdf5_files.dataset_in(group, _VISIBILITY, [2, 3])
    if masks.ndim == 5:
      num_entities = masks.shape[1]
      fits = masks.shape == (count, num_entities, height, width, 1)
      if self.num_entities not in (None, num_entities):
        raise hdf5_files.unfit(masks, f"num_entities={self.num_entities}")
    else:
      fits = masks.shape in ((count, height, width, 1), (count, height, width))
      num_entities = self._entities_of_labels(masks, visibility)
    if not fits:
      raise hdf5_files.unfit(
        masks,
        "[N, L, h, w, 1], or a label map [N, h, w, 1] or [N, h, w], like "
        f"{self.image_key} {shape}",
      )
    if num_entities <= self.num_background_entities:
      raise hdf5_files.unfit(
        masks,
        f"more entities than {num_entities}, as num_background_entities="
        f"{self.num_background_entities} leaves no object",
      )
    if num_entities > _MOST_ENTITIES:
      raise hdf5_files.unfit(masks, f"at most {_MOST_ENTITIES} entities")
    hdf5_files.check_pixels(masks, height * width * num_entities)
    allowed = ((count, num_entities), (count, num_entities, 1))
    if visibility is not None and visibility.shape not in allowed:
      raise hdf5_files.unfit(visibility, f"[N, L] = [{count}, {num_entities}]")
    if _COUNT in group:
      counts = hdf5_files.dataset_in(group, _COUNT, [1, 2])
      if counts.size != count:
        raise hdf5_files.unfit(counts, f"[N, 1] = [{count}, 1]")
    return num_entities

  def _entities_of_labels(self, masks: Any, visibility: Any) -> int:
    if self.num_entities is not None:
      return self.num_entities
    if visibility is None:
      raise ValueError(
        f"{self.path}: {masks.name} holds labels, and there is no 'visibility' "
        "to tell how many entities there may be. Set num_entities, the largest "
        "label + 1."
      )
    return visibility.shape[1]

  def _checked_factors(self, group: Any) -> Mapping[str, Sequence[str]]:
    expected = (self._layout.num_rows, self._layout.num_entities)
    factor_keys = self.factor_keys or {}
    for key in (key for keys in factor_keys.values() for key in keys):
      feature = hdf5_files.dataset_in(group, key, [2, 3])
      if feature.shape[:2] != expected or _width(feature) > checks.MOST_SIZE:
        raise hdf5_files.unfit(
          feature,
          f"[N, L] or [N, L, d], of N, L = {list(expected)} and d of at most "
          f"{checks.MOST_SIZE:,}",
        )
    return factor_keys

  @functools.cached_property
  def _has(self) -> frozenset[str]:
    """Which of "mask", "labels" and "visibility" there are."""
    if self._layout.num_entities is None:
      return frozenset()
    with self._opened() as group:
      kind = "mask" if group[self.mask_key].ndim == 5 else "labels"
      return frozenset([kind, *({_VISIBILITY} & set(group))])

  def _row_spec(self) -> dict[str, Any]:
    _, shape, entities, _ = self._layout
    spec: dict[str, Any] = {"image": tf.TensorSpec(shape, tf.uint8)}
    if "mask" in self._has:
      spec["mask"] = tf.TensorSpec([entities, *shape[:2], 1], tf.uint8)
    if "labels" in self._has:
      spec["labels"] = tf.TensorSpec(shape[:2], tf.int16)
    if _VISIBILITY in self._has:
      spec[_VISIBILITY] = tf.TensorSpec([entities], tf.float32)
    spec["factors"] = {
      name: tf.TensorSpec([entities, size], dtype)
      for name, (dtype, size) in self.factors.items()
    }
    return spec

  def _read(self, group: Any, rows: slice) -> dict[str, Any]:
    entities = self._layout.num_entities
    images = hdf5_files.read_images(group[self.image_key], rows)
    values: dict[str, Any] = {"image": images}
    if "mask" in self._has:
      values["mask"] = self._read_masks(group[self.mask_key], rows)
    if "labels" in self._has:
      values["labels"] = self._read_labels(group[self.mask_key], rows)
    if _VISIBILITY in self._has:
      values[_VISIBILITY] = self._read_visibility(group, rows)
    count = len(images)
    values["factors"] = {
      name: np.concatenate(
        [group[key][rows].reshape(count, entities, -1) for key in keys],
        axis=2,
        dtype=np.float32,
      )
      for name, keys in (self.factor_keys or {}).items()
    }
    return values

  def _read_masks(self, masks: Any, rows: slice) -> np.ndarray:
    """[n, L, h, w, 1] uint8, 0 or 255; raises ValueError for odd pixels."""
    owned = masks[rows] != 0
    owners = np.count_nonzero(owned, axis=1)
    odd = {"to several entities": owners > 1}
    if not self.partial_masks:
      odd["to no entity"] = owners == 0
    for words, pixels in odd.items():
      if (row := _first(pixels)) is not None:
        count = np.count_nonzero(pixels[row])
        raise ValueError(
          f"{self.path}: in scene {rows.start + row:,} of {masks.name}, "
          f"{count:,} pixels belong {words}. Are these masks, background "
          "first? Set mask_key to their name, or partial_masks=true if pixels "
          "may belong to nothing."
        )
    values = owned.view(np.uint8)
    values *= 255
    return values

  def _read_labels(self, masks: Any, rows: slice) -> np.ndarray:
    """[n, h, w] int16, -1 for no entity; raises ValueError for odd labels."""
    labels = masks[rows]
    labels = labels.reshape(labels.shape[:3])
    entities = self._layout.num_entities or 0
    valid = (labels >= 0) & (labels < entities) & (labels == np.rint(labels))
    row = None if self.partial_masks else _first(~valid)
    if row is not None:
      label = labels[row][~valid[row]][0]
      raise ValueError(
        f"{self.path}: in scene {rows.start + row:,}, {masks.name} has the "
        f"label {label}, but there are {entities} entities, 0 to "
        f"{entities - 1}. Set num_entities if there are more, or "
        "partial_masks=true if such pixels belong to nothing."
      )
    return np.where(valid, labels, -1).astype(np.int16)

  def _read_visibility(self, group: Any, rows: slice) -> np.ndarray:
    """[n, L] float32, 0 or 1; raises ValueError for other values."""
    visible = group[_VISIBILITY][rows]
    visible = visible.reshape(len(visible), -1).astype(np.float32)
    if not np.isin(visible, (0, 1)).all():
      odd = visible[~np.isin(visible, (0, 1))][0]
      raise ValueError(
        f"{self.path}: /{_VISIBILITY} holds {odd:g}; expected 0 or 1."
      )
    if _COUNT in group:
      counts = group[_COUNT][rows].reshape(-1)
      background = visible.sum(axis=1) - counts
      row = _first(background != self.num_background_entities)
      if row is not None:
        raise ValueError(
          f"{self.path}: scene {rows.start + row:,} has {_COUNT}="
          f"{counts[row]:g} and {visible[row].sum():g} visible entities, which "
          f"leaves {background[row]:g} of background, not "
          f"num_background_entities={self.num_background_entities}. (In this "
          "form, Objects Room's background varies: read its TFRecord files.)"
        )
    return visible

  def _example(self, row: dict[str, Any]) -> dict[str, Any]:
    example = {key: row[key] for key in row if key != "labels"}
    if "labels" in row:
      example["mask"] = preprocessing.masks_of_labels(
        row["labels"], self._layout.num_entities or 0
      )
    return example

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    yield _split_fault(self.split)
    yield checks.path_fault("image_key", self.image_key)
    yield checks.path_fault("mask_key", self.mask_key, optional=True)
    yield checks.int_fault(
      "num_entities", self.num_entities, 2, _MOST_ENTITIES, optional=True
    )
    yield checks.int_fault(
      "num_background_entities", self.num_background_entities, 1, _MOST_ENTITIES
    )
    yield checks.flag_fault("partial_masks", self.partial_masks)
    yield _factor_keys_fault(self.factor_keys)
    if self.factor_keys and self.mask_key is None:
      yield "factor_keys: factors are those of entities, which need masks"


def _first(wrong: np.ndarray) -> int | None:
  """The first of n rows that has anything wrong."""
  rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
  return int(rows[0]) if len(rows) else None


def _width(feature: Any) -> int:
  """D of a feature [N, L] or [N, L, d]."""
  return feature.shape[2] if feature.ndim == 3 else 1


def _split_fault(value: Any) -> str | None:
  if value is None or (isinstance(value, str) and value in PUBLISHED_SPLITS):
    return None
  if isinstance(value, str):
    return checks.choice_fault("split", value, list(PUBLISHED_SPLITS))
  if (
    isinstance(value, Sequence)
    and len(value) == 2
    and all(map(checks.is_int, value))
    and 0 <= value[0] < value[1]
  ):
    return None
  return (
    f"split={value!r}: expected the name of a published split, or (first, "
    "stop) of the scenes, counted from 0, with first < stop"
  )


def _factor_keys_fault(value: Any) -> str | None:
  if value is None or (
    isinstance(value, Mapping)
    and all(
      isinstance(keys, Sequence)
      and not isinstance(keys, str)
      and len(keys) > 0
      and all(isinstance(key, str) and key for key in keys)
      for keys in value.values()
    )
  ):
    return None
  return (
    f"factor_keys={value!r}: expected a mapping from names to lists of the "
    "file's features, such as {'position': ['x', 'y']}, or None"
  )
