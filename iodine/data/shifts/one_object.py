"""Shifts of one object, which gets other pixels.

Dimensions: T frames, L true entities, H height, W width, C channels.
"""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data.shifts import color_jitter
from iodine.data.shifts.base import Scene, Shift
from iodine.data.shifts.parts import Draws, are_objects, masks_of_image

if TYPE_CHECKING:
  from iodine.data.scenes import StoredScenes

__all__ = ["ObjectColor", "ObjectStyle"]


class _OneObject(Shift):
  """Replaces the pixels of a random visible object."""

  affected_factors = ("color", "material")

  def __call__(
    self, scene: Scene, number: tf.Tensor, dataset: StoredScenes
  ) -> Scene:
    """See the base class."""
    draws = Draws(self.seed, number)
    masks = masks_of_image(scene, dataset)
    owns_pixels = tf.reduce_any(masks > 0, axis=[0, 2, 3, 4])
    is_object = are_objects(
      scene["visibility"], dataset.num_background_entities
    )
    is_candidate = is_object & owns_pixels
    lots = draws.uniform(is_candidate.shape)
    entity = tf.argmax(tf.where(is_candidate, lots, -1.0))
    # There may be no object at all.
    is_chosen = tf.range(lots.shape[0]) == tf.cast(entity, tf.int32)
    is_modified = is_chosen & is_candidate
    pixels = tf.gather(masks, entity, axis=1) > 0
    pixels &= tf.reduce_any(is_modified)
    replaced = tf.where(pixels, self._other_image(scene, draws), scene["image"])
    modified = tf.cast(is_modified, tf.float32)
    return {**scene, "image": replaced, "modified": modified}

  @abc.abstractmethod
  def _other_image(self, scene: Scene, draws: Draws) -> tf.Tensor:
    """Where the object's pixels come from, [T, H, W, C]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectColor(_OneObject):
  """Changes the colours of a random visible object.

  Brightness, contrast, saturation and hue of the image change in random order,
  see `color_jitter.jitter`; the object gets its pixels.

  Attributes:
    strength: factors of brightness, contrast and saturation are uniform in 1 -
      strength to 1 + strength, the turn of the hue in -strength to strength.
  """

  name = "object_color"

  strength: float = 0.5

  def _other_image(self, scene: Scene, draws: Draws) -> tf.Tensor:
    factors = draws.uniform([3], 1 - self.strength, 1 + self.strength)
    hue = draws.uniform([], -self.strength, self.strength)
    order = tf.argsort(draws.uniform([4]))
    return color_jitter.jitter(scene["image"], factors, hue, order)

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    yield checks.above_zero_to_fault("strength", self.strength, 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectStyle(_OneObject):
  """Takes a random visible object from a style-transferred copy of the data.

  Attributes:
    style_path: the copy, in the format of the dataset's `path`: the same scenes
      in the same order, with other images.
  """

  name = "object_style"

  style_path: str | os.PathLike | Sequence[str | os.PathLike]

  def examples(
    self, dataset: StoredScenes, examples: tf.data.Dataset
  ) -> tf.data.Dataset:
    """See the base class."""
    copies = self._copy(dataset).examples()
    spec, own = copies.element_spec["image"], examples.element_spec["image"]
    if spec != own:
      raise ValueError(
        f"{self._source}: images of shape {list(spec.shape)}, but those of the "
        f"data have {list(own.shape)}"
      )
    images = copies.map(lambda example: (example["image"], True))
    nothing = (tf.zeros(spec.shape, spec.dtype), False)
    images = images.concatenate(tf.data.Dataset.from_tensors(nothing).repeat())

    def check(image: np.ndarray, is_there: np.ndarray) -> np.ndarray:
      if not is_there:
        raise ValueError(f"{self._source}: has fewer scenes than the data")
      return image

    def with_copy(example: Scene, copied: tuple) -> Scene:
      image = tf.numpy_function(check, copied, spec.dtype, stateful=False)
      return {**example, "styled_image": tf.ensure_shape(image, spec.shape)}

    return tf.data.Dataset.zip(examples, images).map(with_copy)

  def preprocessed(
    self, example: Scene, preprocess: Callable[[Scene], Scene]
  ) -> Scene:
    """See the base class."""
    styled = preprocess({"image": example["styled_image"]})
    return {"styled_image": styled["image"]}

  def stored_files(self, dataset: StoredScenes) -> Sequence[str] | None:
    """See the base class."""
    return self._copy(dataset).stored_files()

  def cache_key(self, dataset: StoredScenes) -> Any:
    """See the base class."""
    return [self.name, self._copy(dataset)._source()]

  def stored_spec(self, spec: Scene) -> Scene:
    """See the base class."""
    return {**spec, "styled_image": spec["image"]}

  def shifted_spec(self, spec: Scene) -> Scene:
    """See the base class."""
    spec = super().shifted_spec(spec)
    return {key: x for key, x in spec.items() if key != "styled_image"}

  def __call__(
    self, scene: Scene, number: tf.Tensor, dataset: StoredScenes
  ) -> Scene:
    """See the base class."""
    shifted = super().__call__(scene, number, dataset)
    return {key: x for key, x in shifted.items() if key != "styled_image"}

  def _other_image(self, scene: Scene, draws: Draws) -> tf.Tensor:
    return scene["styled_image"]

  @property
  def _source(self) -> str:
    return f"shift={self.name}, style_path={self.style_path!r}"

  def _copy(self, dataset: StoredScenes) -> StoredScenes:
    """The dataset of the copy, whose files exist."""
    if not any(x.name == "path" for x in dataclasses.fields(dataset)):
      raise ValueError(f"shift={self.name}: {dataset} has no path of its files")
    copied: Any = {"path": self.style_path, "shift": None}
    copy = dataclasses.replace(dataset, **copied)
    try:
      copy.stored_files()
    except FileNotFoundError:
      raise FileNotFoundError(
        f"{self._source}: there is no such file. It is a copy of the data in "
        "the same format, whose images are transferred to another style"
      ) from None
    return copy

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    yield checks.paths_fault("style_path", self.style_path)
