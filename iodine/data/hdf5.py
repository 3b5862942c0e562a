"""Scenes from HDF5 files, and the layout of EfficientMORL.

Dimensions: N rows of a file, L true entities, h and w stored height and width,
C channels, F numbers of an entity.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data import hdf5_files
from iodine.data.pipeline import IODINEDataset

__all__ = ["HDF5", "HDF5Dataset", "Layout", "image_shape"]


class Layout(NamedTuple):
  """What a file holds.

  Attributes:
    num_rows: N.
    image_shape: (h, w, C).
    num_entities: L; None: no masks.
    rows_per_slice: how many rows to read at a time, see
      `hdf5_files.rows_per_slice`.
  """

  num_rows: int
  image_shape: tuple[int, int, int]
  num_entities: int | None
  rows_per_slice: int


@dataclasses.dataclass(eq=False)
class HDF5Dataset(IODINEDataset):
  """Rows of datasets in one group of an HDF5 file, read in its order.

  A subclass says what the datasets are. They are read in slices of several
  rows, whole chunks where that fits into memory, with the file open for a whole
  pass; this needs the package h5py.

  Attributes:
    path: path of the file, made absolute; "~" is expanded.
  """

  path: str | os.PathLike
  _: dataclasses.KW_ONLY
  name: str = "hdf5"

  _group = "/"  # that holds the datasets

  def __post_init__(self):
    super().__post_init__()
    self.path = os.path.abspath(os.path.expanduser(self.path))

  @abc.abstractmethod
  def _check_layout(self, group: Any) -> Layout:
    """Raises ValueError unless the datasets are consistent."""

  @abc.abstractmethod
  def _row_spec(self) -> dict[str, Any]:
    """What `_read` returns, as `tf.TensorSpec`s without the axis of rows."""

  @abc.abstractmethod
  def _read(self, group: Any, rows: slice) -> dict[str, Any]:
    """Reads these rows; raises ValueError for values that cannot be."""

  @abc.abstractmethod
  def _example(self, row: dict[str, Any]) -> dict[str, Any]:
    """Makes a scene of a row, see `examples`; for use in a graph."""

  def _range(self) -> tuple[int, int]:
    """The first row to use, and the one after the last."""
    return 0, self._layout.num_rows

  def _chosen(self, rows: slice) -> tuple[slice, Any]:
    """Which of some rows to read, and which of these to keep, an index."""
    return rows, slice(None)

  @functools.cached_property
  def num_true_objects(self) -> int | None:  # type: ignore[override]
    """L; None: no masks. Opens the file."""
    return self._layout.num_entities

  @functools.cached_property
  def num_channels(self) -> int:  # type: ignore[override]
    """C. Opens the file, unless `grayscale` decides."""
    return self._layout.image_shape[2]

  def examples(self) -> tf.data.Dataset:
    """Opens the file; see `IODINEDataset.examples`."""
    self._range()  # raises errors early
    slices = tf.data.Dataset.from_generator(
      self._slices,
      output_signature=tf.nest.map_structure(
        lambda spec: tf.TensorSpec([None, *spec.shape], spec.dtype),
        self._row_spec(),
      ),
    )
    return slices.prefetch(1).unbatch().map(self._example)

  def stored_files(self) -> list[str]:
    """The one file."""
    return [os.fspath(self.path)]

  def estimated_num_examples(self) -> int:
    """The number of scenes to use."""
    start, stop = self._range()
    return stop - start

  @functools.cached_property
  def _layout(self) -> Layout:
    with self._opened() as group:
      return self._check_layout(group)

  def _slices(self) -> Iterator[dict[str, np.ndarray]]:
    """Reads the rows to use. Slices begin and end where chunks do."""
    first, last = self._range()
    length = self._layout.rows_per_slice
    with self._opened() as group:
      for start in range(first - first % length, last, length):
        rows = slice(max(start, first), min(start + length, last))
        rows, kept = self._chosen(rows)
        values = self._read(group, rows)
        yield tf.nest.map_structure(operator.itemgetter(kept), values)

  def _opened(self) -> contextlib.AbstractContextManager[Any]:
    return hdf5_files.opened(self.path, self._group)

  def _faults(self) -> Iterator[str | None]:
    yield checks.path_fault("path", self.path)
    yield from super()._faults()

  def _most_objects(self) -> int | None:
    return None  # Known only from the file.

  def _source(self) -> Any:
    stat = os.stat(self.path)
    return [self.path, stat.st_size, stat.st_mtime_ns]

  def __str__(self) -> str:
    return f"{type(self).__name__}: {self.path}"


def image_shape(images: Any) -> tuple[int, int, int]:
  """(h, w, C) of a dataset of images; raises ValueError if it is none.

  Args:
    images: `h5py.Dataset` of 4 dimensions.
  """
  _, height, width, channels = images.shape
  if channels not in (1, 3):
    raise hdf5_files.unfit(images, "[N, h, w, C] with 1 or 3 channels C")
  hdf5_files.check_pixels(images, height * width)
  return height, width, channels


@dataclasses.dataclass(eq=False)
class HDF5(HDF5Dataset):
  """Scenes from an HDF5 file in the layout of EfficientMORL's datasets.

  The file has a group for each split, such as `train`, `val` and `test`, with
  up to three datasets (pemami4911/EfficientMORL: lib/datasets.py):
    imgs: [N, h, w, C] whole numbers from 0 to 255; C is 1 or 3.
    masks: [N, L, h, w, 1], optional; nonzero where an entity owns the pixel,
      background first. (Only the first of several channels counts.)
    factors: [N, L, F], optional: F numbers for each entity.

  An entity is visible if it owns a pixel.

  The stored images are not cropped: for CLEVR, set `crop_region` to
  ((29, 221), (64, 256)). Its F factors are x, y, z, rotation, size, material,
  shape, color and visibility (EfficientMORL: eval.py), so `factor_columns` may
  be {"position": [0, 1, 2], "size": [4]}.

  Attributes:
    split: name of the group.
    factor_columns: {name of a factor: its columns among the F}; None: no
      factors.
  """

  _: dataclasses.KW_ONLY
  split: str = "train"
  factor_columns: Mapping[str, Sequence[int]] | None = None

  def __post_init__(self):
    super().__post_init__()
    self._group = self.split
    self.factors = {
      name: (tf.float32, len(columns))
      for name, columns in (self.factor_columns or {}).items()
    }

  def _check_layout(self, group: Any) -> Layout:
    images = hdf5_files.dataset_in(group, "imgs", [4])
    height, width, channels = image_shape(images)
    count = images.shape[0]
    num_entities, row_bytes, large = None, height * width * channels, [images]
    if "masks" in group:
      masks = hdf5_files.dataset_in(group, "masks", [5])
      num_entities = masks.shape[1]
      expected = (count, num_entities, height, width)
      if masks.shape[:4] != expected or num_entities < 2:
        raise hdf5_files.unfit(
          masks,
          f"[N, L, h, w, 1], like imgs {images.shape}, with L of 2 or more "
          "entities",
        )
      hdf5_files.check_pixels(masks, height * width * num_entities)
      row_bytes += height * width * num_entities
      large.append(masks)
    if self.factor_columns:
      num_factors = 1 + max(max(x) for x in self.factor_columns.values())
      factors = hdf5_files.dataset_in(group, "factors", [3])
      shape = factors.shape
      if shape[:2] != (count, num_entities) or shape[2] < num_factors:
        raise hdf5_files.unfit(
          factors,
          f"[N, L, F] = [{count}, {num_entities}, {num_factors} or more], "
          "which is what masks and factor_columns call for",
        )
    return Layout(
      count,
      (height, width, channels),
      num_entities,
      hdf5_files.rows_per_slice(large, row_bytes),
    )

  def _row_spec(self) -> dict[str, tf.TensorSpec]:
    _, (height, width, channels), entities, _ = self._layout
    spec = {"imgs": tf.TensorSpec([height, width, channels], tf.uint8)}
    if entities is not None:
      spec["masks"] = tf.TensorSpec([entities, height, width, 1], tf.uint8)
    if self.factor_columns:
      spec["factors"] = tf.TensorSpec([entities, None], tf.float32)
    return spec

  def _read(self, group: Any, rows: slice) -> dict[str, np.ndarray]:
    values = {"imgs": hdf5_files.read_images(group["imgs"], rows)}
    if self._layout.num_entities is not None:
      masks = group["masks"][rows, ..., :1]
      values["masks"] = np.uint8(255) * (masks != 0)
    if self.factor_columns:
      values["factors"] = group["factors"][rows].astype(np.float32)
    return values

  def _example(self, row: dict[str, tf.Tensor]) -> dict[str, Any]:
    names = {"imgs": "image", "masks": "mask"}
    example = {names[key]: row[key] for key in names if key in row}
    if self.factor_columns:
      example["factors"] = {
        name: tf.gather(row["factors"], list(columns), axis=-1)
        for name, columns in self.factor_columns.items()
      }
    return example

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    yield checks.path_fault("split", self.split)
    columns = self.factor_columns
    if columns is not None and not _are_columns(columns):
      yield (
        f"factor_columns={columns!r}: expected a mapping from names to lists "
        "of columns counted from 0, such as {'position': [0, 1]}, or None"
      )

  def __str__(self) -> str:
    return f"HDF5: {self.path}, {self.split}"


def _are_columns(value: Any) -> bool:
  """Whether a value is {name: at least one column}."""
  return isinstance(value, Mapping) and all(
    isinstance(name, str)
    and isinstance(columns, Sequence)
    and len(columns) > 0
    and all(checks.is_int(x) and x >= 0 for x in columns)
    for name, columns in value.items()
  )
