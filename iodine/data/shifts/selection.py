"""Shifts that select scenes, and change none.

Dimensions: L true entities, n size of a factor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from iodine import checks, errors
from iodine.data import preprocessing
from iodine.data.shifts.base import Shift
from iodine.data.shifts.parts import are_objects

if TYPE_CHECKING:
  from iodine.data.scenes import StoredScenes

__all__ = ["HeldOut", "MoreObjects"]

_SAME = 1e-3  # numbers of a factor that are less apart are the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoreObjects(Shift):
  """Selects the scenes with more than `max_num_objects` objects."""

  name = "more_objects"

  def bounds(self, dataset: StoredScenes) -> tuple[int | None, int | None]:
    """See the base class."""
    if dataset.max_num_objects is None:
      raise ValueError(
        f"shift={self.name}: more than how many? Set max_num_objects to the "
        "most that the model was trained with"
      )
    return dataset.max_num_objects + 1, None


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut(Shift):
  """Selects scenes by whether an object has certain factors.

  Attributes:
    factors: {name: value} that one object must have all of; a list of n numbers
      where a factor has as many.
    mode: "keep": the scenes with such an object, to test with; "drop": those
      without, to train with.
  """

  name = "held_out"
  selects = True

  factors: Mapping[str, float | Sequence[float]]
  mode: str = "keep"

  def unshifted(self) -> Shift | None:
    """See the base class."""
    return dataclasses.replace(self, mode="drop")

  def check(self, dataset: StoredScenes) -> None:
    """See the base class."""
    for name, value in self.factors.items():
      if name not in dataset.factors:
        raise ValueError(
          f"shift={self.name}, factors.{name}={value!r}: no such factor. "
          + errors.did_you_mean(name, dataset.factors, "factors")
        )
      _, size = dataset.factors[name]
      if np.size(value) != size:
        raise ValueError(
          f"shift={self.name}, factors.{name}={value!r}: expected "
          + ("a number" if size == 1 else f"a list of {size} numbers")
        )

  def keeps(self, example: Mapping[str, Any], num_background: int) -> tf.Tensor:
    """See the base class."""
    visibility = preprocessing.visibility(example, num_background)
    is_wanted = are_objects(visibility, num_background)
    for name, value in self.factors.items():
      factor = tf.cast(example["factors"][name], tf.float32)
      factor = tf.reshape(factor, [visibility.shape[0], -1])
      differs = tf.abs(factor - np.asarray(value, np.float32)) > _SAME
      is_wanted &= ~tf.reduce_any(differs, axis=1)
    return tf.reduce_any(is_wanted) == (self.mode == "keep")

  def cache_key(self, dataset: StoredScenes) -> Any:
    """See the base class."""
    return [self.name, self.mode, sorted(self.factors.items())]

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    yield checks.choice_fault("mode", self.mode, ("keep", "drop"))
    if not isinstance(self.factors, Mapping) or not self.factors:
      yield (
        f"factors={self.factors!r}: expected factors and values, such as "
        "factors.color=3 factors.shape=1"
      )
      return
    for name, value in self.factors.items():
      values = value if isinstance(value, list | tuple) else [value]
      if not values or not all(map(checks.is_number, values)):
        yield (
          f"factors.{name}={value!r}: {checks.text_hint(value)}expected a "
          "number, or a list of numbers"
        )
