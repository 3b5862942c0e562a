"""RAVENS: objects on a table beside a robot, seen by three cameras."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.data import hdf5_files, preprocessing
from iodine.data.hdf5 import HDF5Dataset, Layout, image_shape

__all__ = ["RAVENS"]

_CAMERAS = ("front", "left", "right")  # in the order of a scene's images
_COUNT = "num_objects_on_table"
_NUM_ENTITIES = 12
_NO_BODY = 255  # PyBullet's -1 in a byte

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class RAVENS(HDF5Dataset):
  """RAVENS robot data (HHousen/object-discovery-pytorch): a table of objects.

  The files `ravens_robot_data_{train,test}.h5` hold:
    color: [3 N, 480, 640, 3] uint8; three images in turn show a scene from the
      front, the left and the right.
    segm: [3 N, 480, 640] uint8, the simulator's ids: background, table, robot
      and arm, then up to eight objects. Those that are hidden leave a gap.
    num_objects_on_table: [N] integers, one for three images.

  Each image is a scene of its own, with four background entities. Pixels that
  show no body (255) are background; ids beyond 11 are clipped to 11, which a
  warning tells.

  The filter by number of objects asks how many lie on the table, as stored, so
  that it keeps the images of a scene together; visibility says which a camera
  sees.

  Attributes:
    cameras: which images to use, some of "front", "left" and "right".
    crop_region: as in `IODINEDataset`; by default the central 480 x 500 pixels.
      The alternative crop of the published code, for the front camera alone, is
      ((232, 470), (50, 590)).
  """

  num_true_objects = _NUM_ENTITIES
  num_background_entities = 4

  _: dataclasses.KW_ONLY
  image_dim: Sequence[int] = (128, 128)
  crop_region: Sequence[Sequence[int]] | None = ((0, 480), (70, 570))
  cameras: Sequence[str] = _CAMERAS
  name: str = "ravens"

  def __post_init__(self):
    super().__post_init__()
    self.cameras = tuple(self.cameras)
    self._has_warned = False

  def counted_objects(self, example: dict) -> tf.Tensor:
    """The number of objects on the table."""
    return example[_COUNT]

  def estimated_num_examples(self) -> int:
    """The number of images of these cameras."""
    return self._layout.num_rows // len(_CAMERAS) * len(self.cameras)

  def _chosen(self, rows: slice) -> tuple[slice, Any]:
    period = len(_CAMERAS)
    chosen = [_CAMERAS.index(camera) for camera in self.cameras]
    if len(chosen) == 1:
      first = rows.start + (chosen[0] - rows.start) % period
      return slice(first, max(rows.stop, first), period), slice(None)
    return rows, np.isin(np.arange(rows.start, rows.stop) % period, chosen)

  def _check_layout(self, group: Any) -> Layout:
    images = hdf5_files.dataset_in(group, "color", [4])
    shape = image_shape(images)
    count = images.shape[0]
    labels = hdf5_files.dataset_in(group, "segm", [3])
    if labels.shape != images.shape[:3]:
      raise hdf5_files.unfit(labels, f"[3 N, h, w], like color {images.shape}")
    if labels.dtype != np.uint8:
      raise hdf5_files.unfit(labels, f"uint8 and not {labels.dtype}")
    hdf5_files.check_pixels(labels, math.prod(shape[:2]) * _NUM_ENTITIES)
    counts = hdf5_files.dataset_in(group, _COUNT, [1])
    if counts.shape[0] * len(_CAMERAS) != count:
      raise hdf5_files.unfit(
        counts, f"[N], a number for three of the {count:,} images"
      )
    row_bytes = math.prod(shape[:2]) * (1 + shape[2])
    length = hdf5_files.rows_per_slice([images, labels], row_bytes)
    return Layout(count, shape, _NUM_ENTITIES, length)

  def _row_spec(self) -> dict[str, Any]:
    shape = self._layout.image_shape
    return {
      "image": tf.TensorSpec(shape, tf.uint8),
      "labels": tf.TensorSpec(shape[:2], tf.int16),
      _COUNT: tf.TensorSpec([], tf.int32),
    }

  def _read(self, group: Any, rows: slice) -> dict[str, Any]:
    period = len(_CAMERAS)
    first, stop = rows.start // period, -(-rows.stop // period)
    counts = group[_COUNT][first:stop].astype(np.int32).repeat(period)
    own = slice(rows.start - first * period, rows.stop - first * period)
    return {
      "image": hdf5_files.read_images(group["color"], rows),
      "labels": self._entities(group["segm"][rows], rows),
      _COUNT: counts[own][:: rows.step],
    }

  def _entities(self, ids: np.ndarray, rows: slice) -> np.ndarray:
    """Ids of pixels as entities, [n, h, w] int16 from 0 to 11."""
    last = _NUM_ENTITIES - 1
    ids = np.where(ids == _NO_BODY, 0, ids)
    beyond = ids > last
    if beyond.any() and not self._has_warned:
      self._has_warned = True
      _LOG.warning(
        "%s: in images %s to %s, %s pixels have ids up to %d, beyond the last "
        "entity, %d, and count as it. (Told once.)",
        self,
        f"{rows.start:,}",
        f"{rows.stop - 1:,}",
        f"{np.count_nonzero(beyond):,}",
        ids.max(),
        last,
      )
    return ids.clip(0, last).astype(np.int16)

  def _example(self, row: dict[str, Any]) -> dict[str, Any]:
    mask = preprocessing.masks_of_labels(row["labels"], _NUM_ENTITIES)
    return {"image": row["image"], "mask": mask, _COUNT: row[_COUNT]}

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    cameras = self.cameras
    if (
      not isinstance(cameras, Sequence)
      or isinstance(cameras, str)
      or not cameras
      or len({*cameras}) < len(cameras)
      or not {*cameras} <= {*_CAMERAS}
    ):
      yield f"cameras={cameras!r}: expected some of {list(_CAMERAS)}, each once"

  def _most_objects(self) -> int:
    return _NUM_ENTITIES - self.num_background_entities
