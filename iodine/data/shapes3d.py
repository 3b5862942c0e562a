"""3D Shapes: every combination of six factors, sorted by them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data import hdf5_files
from iodine.data.hdf5 import HDF5Dataset, Layout, image_shape

__all__ = ["Shapes3D"]

# The factors in the order of the file's `labels`; the last one changes fastest.
_FACTORS = (
  "floor_hue",
  "wall_hue",
  "object_hue",
  "scale",
  "shape",
  "orientation",
)
# singhgautam/slate, without its gaps of an image; 20,000 images are not used.
_SPLITS = {
  "train": (0, 400_000),
  "val": (400_000, 430_000),
  "test": (430_000, 460_000),
}
_MOST_SEED = 2**32 - 1  # that NumPy takes


@dataclasses.dataclass(eq=False)
class Shapes3D(HDF5Dataset):
  """3D Shapes (Burgess & Kim 2018): a room with one object, without masks.

  The file `3dshapes.h5` has 480,000 `images` [N, 64, 64, 3] uint8 and their
  `labels` [N, 6] float64, sorted by these: every combination once, the floor's
  hue slowest. Set a large `shuffle_buffer` or a `cache_dir`.

  The published split cuts the sorted file: training sees floor hues 0 to 7 and
  a third of 8, validation 8 alone, and the test images are nearly all of hue 9,
  which training never shows. It measures how a model extrapolates; for unseen
  images of the same kind, set `split_seed`.

  The factors belong to no entity, so they are not in batches; see `categories`.

  Attributes:
    split: "train", "val" or "test", of 400,000, 30,000 and 30,000 images; None:
      all images.
    split_seed: seed of a random permutation that the split cuts instead of the
      sorted file, from 0 to 2**32 - 1; None: the published split. The order
      stays that of the file.
  """

  _: dataclasses.KW_ONLY
  image_dim: Sequence[int] = (64, 64)
  split: str | None = None
  split_seed: int | None = None
  name: str = "shapes3d"

  def categories(self) -> dict[str, np.ndarray]:
    """Reads the factors of the images, in their order.

    Returns:
      {name: [N] int}, the rank of each value among those in the file: hues of
      floor, wall and object 0 to 9, scale 0 to 7, shape 0 to 3, orientation 0
      to 14.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if it is invalid.
    """
    first, last = self._range()
    with self._opened() as group:
      labels = hdf5_files.dataset_in(group, "labels", [2])
      expected = (self._layout.num_rows, len(_FACTORS))
      if labels.shape != expected:
        raise hdf5_files.unfit(labels, f"[N, 6] = {list(expected)}")
      values = labels[...]
    rows, kept = self._chosen(slice(first, last))
    ranks = [np.unique(x, return_inverse=True)[1] for x in values.T]
    return {
      name: rank[rows][kept] for name, rank in zip(_FACTORS, ranks, strict=True)
    }

  def estimated_num_examples(self) -> int:
    """The number of images in the split."""
    if self._members is None:
      return super().estimated_num_examples()
    return int(self._members.sum())

  @functools.cached_property
  def _members(self) -> np.ndarray | None:
    """[N] bool, which images are in a random split; None: it is contiguous."""
    if self.split is None or self.split_seed is None:
      return None
    first, last = _SPLITS[self.split]
    count = self._layout.num_rows
    # The legacy generator: its permutations do not change with NumPy.
    order = np.random.RandomState(self.split_seed).permutation(count)
    members = np.zeros(count, bool)
    members[order[first:last]] = True
    return members

  def _range(self) -> tuple[int, int]:
    count = self._layout.num_rows
    if self.split is None:
      return 0, count
    first, last = _SPLITS[self.split]
    if last > count:
      raise ValueError(
        f"{self.path}: split={self.split!r} ends at image {last:,}, but there "
        f"are {count:,}; 3dshapes.h5 has 480,000. Download it again, or set "
        "split=null for all images."
      )
    return (first, last) if self.split_seed is None else (0, count)

  def _chosen(self, rows: slice) -> tuple[slice, Any]:
    if self._members is None:
      return super()._chosen(rows)
    return rows, self._members[rows]

  def _check_layout(self, group: Any) -> Layout:
    images = hdf5_files.dataset_in(group, "images", [4])
    shape = image_shape(images)
    length = hdf5_files.rows_per_slice([images], int(np.prod(shape)))
    return Layout(images.shape[0], shape, None, length)

  def _row_spec(self) -> dict[str, tf.TensorSpec]:
    return {"image": tf.TensorSpec(self._layout.image_shape, tf.uint8)}

  def _read(self, group: Any, rows: slice) -> dict[str, np.ndarray]:
    return {"image": hdf5_files.read_images(group["images"], rows)}

  def _example(self, row: dict[str, tf.Tensor]) -> dict[str, Any]:
    return row

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    if self.split is not None:
      yield checks.choice_fault("split", self.split, list(_SPLITS))
    yield checks.int_fault(
      "split_seed", self.split_seed, 0, _MOST_SEED, optional=True
    )

  def __str__(self) -> str:
    return f"Shapes3D: {self.path}, {self.split or 'all images'}"
