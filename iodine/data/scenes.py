"""The scenes of a dataset: stored, filtered, and preprocessed one by one.

Dimensions: T frames, L true entities, h, w stored height and width, H, W height
and width after resizing, C channels, n size of a factor.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import tensorflow as tf

from iodine import checks
from iodine.data import preprocessing, shifts
from iodine.files import is_plain_name

__all__ = ["StoredScenes"]

_Scenes = TypeVar("_Scenes", bound="StoredScenes")


@dataclasses.dataclass(eq=False, kw_only=True)
class StoredScenes(abc.ABC):
  """Opens, filters and preprocesses stored scenes.

  Its arguments are those of `iodine.data.pipeline.IODINEDataset` that decide
  which scenes there are and what they look like.
  """

  # Unannotated, so not dataclass fields; some instances override them.
  num_true_objects = cast("int | None", 1)
  num_background_entities = 1
  num_channels = 3
  num_frames = 1
  factors = cast("dict[str, tuple[tf.DType, int]]", {})
  occluder_gray = 0.5
  _mask_dim = cast("tuple[int, int] | None", None)  # `image_dim`

  image_dim: Sequence[int]
  crop_region: Sequence[Sequence[int]] | None = None
  max_num_objects: int | None = None
  min_num_objects: int | None = None
  grayscale: bool = False
  half_pixel_centers: bool = False
  shift: shifts.Shift | Mapping[str, Any] | str | None = None
  name: str = "dataset"

  def __post_init__(self):
    faults = [fault for fault in self._faults() if fault]
    if faults:
      raise ValueError(f"{type(self).__name__}: " + "\n  ".join(faults))
    self.image_dim = tuple(self.image_dim)
    if self.crop_region is not None:
      self.crop_region = tuple(tuple(side) for side in self.crop_region)
    if self.grayscale:
      self.num_channels = 1
    self.shift = self._shift = shifts.resolve(self.shift)
    self._stored_bounds = self.min_num_objects, self.max_num_objects
    if self._shift is not None:
      try:
        self.min_num_objects, self.max_num_objects = self._shift.bounds(self)
      except ValueError as error:
        raise ValueError(f"{type(self).__name__}: {error}") from None
    self._numbered: tf.data.Dataset | None = None

  @abc.abstractmethod
  def examples(self) -> tf.data.Dataset:
    """Opens the stored scenes.

    Returns:
      An unbatched dataset of dicts:
        image: [h, w, C] or [T, h, w, C] uint8, of static shape.
        mask: [L, h, w, 1] or [T, L, h, w, 1] uint8, 255 where an entity owns
          the pixel, else 0, background first; only with `num_true_objects`.
        visibility: [L] float32, optional; by default 1 for the background and
          for entities that own a pixel.
        factors: {name: [L] or [L, n]} for the names in `factors`, if any.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file is invalid.
    """

  def estimated_num_examples(self) -> int | None:
    """Estimates how many scenes the files hold; None: unknown. Opens them."""
    return None

  def stored_files(self) -> Sequence[str] | None:
    """Lists the files that scenes are read from, in order; None: unknown.

    A run that is continued checks that they still hold the same.

    Raises:
      FileNotFoundError: if one does not exist.
      ValueError: if they cannot be told.
    """
    return None

  def unshifted(self: _Scenes) -> _Scenes:
    """The scenes that the shift departs from; itself, if it does not."""
    if self._shift is None or self._shift == (kept := self._shift.unshifted()):
      return self
    low, high = self._stored_bounds
    options: Any = {"min_num_objects": low, "max_num_objects": high}
    return dataclasses.replace(self, shift=kept, **options)

  def check_shift(self) -> None:
    """Raises ValueError if the data lack what the shift needs."""
    if self._shift is not None:
      self._shift.check(self)

  def files_read(self) -> Sequence[str] | None:
    """`stored_files`, and those that the shift reads; None: unknown.

    Raises:
      FileNotFoundError: if one does not exist.
      ValueError: if they cannot be told.
    """
    own = self.stored_files()
    more = self._shift.stored_files(self) if self._shift is not None else ()
    return None if own is None or more is None else [*own, *more]

  def prepare(self) -> None:  # noqa: B027
    """Writes missing files, if the dataset can generate them.

    Raises:
      OSError: if they cannot be written.
    """

  def counted_objects(self, example: dict) -> tf.Tensor:
    """How many objects a scene of `examples` has for the filter, int32."""
    return preprocessing.num_objects(example, self.num_background_entities)

  def has_wanted_objects(self, example: dict) -> tf.Tensor:
    """Whether a scene of `examples` passes the filter, a scalar bool."""
    count = self.counted_objects(example)
    low, high = self.min_num_objects, self.max_num_objects
    high = count.dtype.max if high is None else high
    passes = tf.logical_and(count >= (low or 0), count <= high)
    if self._shift is not None and self._shift.selects:
      passes &= self._shift.keeps(example, self.num_background_entities)
    return passes

  def remaining_crop(self) -> Sequence[Sequence[int]] | None:
    """`crop_region`, or None if `examples` has already cropped."""
    return self.crop_region

  def _source(self) -> Any:
    """JSON value that changes when the stored files change."""
    return None

  def _faults(self) -> Iterator[str | None]:
    """Yields the errors in the arguments, and None for correct ones."""
    if not isinstance(self.name, str) or not is_plain_name(self.name):
      yield (
        f"name={self.name!r}: expected a name that files and folders can have, "
        "such as 'shapes'"
      )
    yield checks.image_dim_fault(self.image_dim)
    yield checks.crop_fault(self.crop_region)
    yield checks.flag_fault("grayscale", self.grayscale)
    yield checks.flag_fault("half_pixel_centers", self.half_pixel_centers)
    yield shifts.fault(self.shift)
    yield from checks.bound_faults(
      self.min_num_objects, self.max_num_objects, self._most_objects()
    )

  def _most_objects(self) -> int | None:
    """Most foreground objects of a scene, if known without opening files."""
    if self.num_true_objects is None:
      return None
    return self.num_true_objects - self.num_background_entities

  def _scene_spec(self) -> dict[str, Any]:
    """The structure of one preprocessed scene."""
    size = (*self.image_dim, self.num_channels)
    spec: dict[str, Any] = {
      "image": tf.TensorSpec([self.num_frames, *size], tf.float32)
    }
    if self.num_true_objects is not None:
      entities = self.num_true_objects
      spec["mask"] = tf.TensorSpec(
        [self.num_frames, entities, *(self._mask_dim or self.image_dim), 1],
        tf.uint8,
      )
      spec["visibility"] = tf.TensorSpec([entities], tf.float32)
      spec["factors"] = {
        name: tf.TensorSpec([entities, size], dtype)
        for name, (dtype, size) in self.factors.items()
      }
    return spec if self._shift is None else self._shift.stored_spec(spec)

  def _scene(self, example: dict) -> dict[str, Any]:
    """Preprocesses a stored scene."""
    scene = {"factors": {}, **self._preprocessed(example)}
    if self._shift is not None:
      scene |= self._shift.preprocessed(example, self._preprocessed)
    return {name: scene[name] for name in self._scene_spec()}

  def _preprocessed(self, example: dict) -> dict[str, Any]:
    return preprocessing.preprocess(
      example,
      self.image_dim,
      self.remaining_crop(),
      self.grayscale,
      self.num_background_entities,
      self.half_pixel_centers,
      self._mask_dim,
    )

  def _shifted(self, number: tf.Tensor, scene: dict) -> dict[str, Any]:
    """Shifts a preprocessed scene, of this number after the filter."""
    if self._shift is None:
      return scene
    return self._shift(scene, number, self)

  def _checked_examples(self) -> tf.data.Dataset:
    """Opens pairs of a stored scene's index and the scene, filtered."""
    if self._numbered is None:
      examples = self.examples()
      self._check_spec(examples.element_spec)
      self.check_shift()
      if self._shift is not None:
        examples = self._shift.examples(self, examples)
      self._numbered = examples.enumerate()
      if self._is_filtered():
        self._numbered = self._numbered.filter(
          lambda _, example: self.has_wanted_objects(example)
        )
    return self._numbered

  def _is_filtered(self) -> bool:
    bounds = (self.min_num_objects, self.max_num_objects)
    selects = self._shift is not None and self._shift.selects
    return selects or bounds != (None, None)

  def _check_spec(self, spec: Mapping[str, tf.TensorSpec]) -> None:
    channels = "C" if self.grayscale else str(self.num_channels)
    dims = {"image": f"H W {channels}"}
    if self.num_true_objects is not None:
      dims["mask"] = f"{self.num_true_objects} H W 1"
    bounds = {
      "min_num_objects": self.min_num_objects,
      "max_num_objects": self.max_num_objects,
    }
    preprocessing.check_scene_spec(
      type(self).__name__,
      spec,
      dims,
      self.num_frames,
      self.remaining_crop(),
      {key: value for key, value in bounds.items() if value is not None},
    )

  def __str__(self) -> str:
    return type(self).__name__
