"""Shifts of whole scenes: a part is covered, or cut out.

Dimensions: T frames, L true entities, H height, W width, C channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import tensorflow as tf

from iodine import checks
from iodine.data import preprocessing
from iodine.data.shifts.base import Scene, Shift
from iodine.data.shifts.parts import Draws, given, object_pixels, visibility_of

if TYPE_CHECKING:
  from iodine.data.scenes import StoredScenes

__all__ = ["Crop", "Occlusion"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Occlusion(Shift):
  """Covers a part of the image with a gray rectangle.

  Of a few random places, it is that with the fewest pixels of objects. Its
  pixels go to entity 0; an object without a pixel is no longer visible.

  Attributes:
    size: height and width, as parts of the image's.
    gray: its intensity in [0, 1]; None: that of the dataset, 0.2 for CLEVR,
      else 0.5.
    num_places: how many places are compared.
  """

  name = "occlusion"

  size: float = 0.4
  gray: float | None = None
  num_places: int = 5

  def __call__(
    self, scene: Scene, number: tf.Tensor, dataset: StoredScenes
  ) -> Scene:
    """See the base class."""
    draws = Draws(self.seed, number)
    is_inside = []  # [num_places, H] and [num_places, W]
    for side in scene["image"].shape[1:3]:
      length = math.floor(self.size * side)
      first = draws.integers([self.num_places, 1], 0, side - length + 1)
      pixels = tf.range(side)
      is_inside.append((pixels >= first) & (pixels < first + length))
    rows, columns = is_inside
    places = rows[:, :, tf.newaxis] & columns[:, tf.newaxis]
    objects = object_pixels(scene, dataset)
    hidden = tf.reduce_sum(tf.where(places, objects, 0), axis=[1, 2])
    place = places[tf.argmin(hidden)][tf.newaxis, ..., tf.newaxis]
    gray = dataset.occluder_gray if self.gray is None else self.gray
    shifted = {**scene, "image": tf.where(place, gray, scene["image"])}
    if "mask" in scene:
      shifted["mask"] = given(scene["mask"], place, 0)
      shifted["visibility"] = visibility_of(shifted["mask"], dataset)
    return shifted

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    yield checks.above_zero_to_fault("size", self.size, 1)
    if self.gray is not None:
      yield checks.unit_fault("gray", self.gray)
    yield checks.int_fault("num_places", self.num_places, 1, 1000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop(Shift):
  """Cuts out the middle of the image, and enlarges it to the same size.

  Images are resized by bilinear interpolation, masks by nearest neighbour, both
  at pixel centres. An object without a pixel is no longer visible. Factors stay
  as they are stored, positions too.

  Attributes:
    zoom: how much larger everything gets, more than 1.
  """

  name = "crop"

  zoom: float = 1.5

  def __call__(
    self, scene: Scene, number: tf.Tensor, dataset: StoredScenes
  ) -> Scene:
    """See the base class."""
    shifted = {**scene, "image": self._enlarged(scene["image"], "bilinear")}
    if "mask" in scene:
      mask = scene["mask"]
      flat = tf.reshape(mask, [-1, *mask.shape[2:]])
      flat = self._enlarged(flat, "nearest")
      shifted["mask"] = tf.reshape(flat, mask.shape)
      shifted["visibility"] = visibility_of(shifted["mask"], dataset)
    return shifted

  def _enlarged(self, images: tf.Tensor, method: str) -> tf.Tensor:
    """Cuts out and enlarges [N, H, W, C]."""
    size = images.shape[1:3]
    height, width = (max(int(side / self.zoom), 1) for side in size)
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    middle = images[:, top : top + height, left : left + width]
    return preprocessing.resize(middle, size, method, half_pixel_centers=True)

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    fault = checks.finite_fault("zoom", self.zoom)
    if fault is None and self.zoom <= 1:
      fault = f"zoom={self.zoom!r}: expected a number above 1"
    yield fault
