"""The properties of objects as vectors, and average precision over them.

Dimensions: B batch, L true entities, N objects with padding, K predictions, P
entries that describe an object, n size of a factor.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import checks, metrics

__all__ = ["Properties"]

# Distances below which a prediction counts, in the unit of the position.
_MAX_DISTANCES = (np.inf, 1.0, 0.5, 0.25, 0.125)


class Properties:
  """A position, categories, and whether there is an object.

  An object is a vector of P entries: the position's, scaled so that its range
  is [0, 1]; each category one-hot; and 1. Padding is a vector of zeros.

  Attributes:
    size: P.
    score_names: names of what `average_precision` returns.
  """

  def __init__(
    self,
    position: Sequence[Any] = ("location", 3, -3.0, 3.0),
    categories: Sequence[Sequence[Any]] = (
      ("size", 2),
      ("material", 2),
      ("shape", 3),
      ("color", 8),
    ),
  ):
    """Describes properties; by default those of CLEVR's objects.

    Args:
      position: name and size of a factor, and its lowest and highest value.
      categories: name and number of classes of each factor. Classes are counted
        from 1, as in DeepMind's CLEVR; 0 is no class.

    Raises:
      ValueError: for a malformed entry.
    """
    if not _is_entry(position, 4) or not all(
      checks.is_number(bound) for bound in position[2:]
    ):
      raise ValueError(
        f"position={position!r}: expected (name, size, lowest value, highest "
        "value)"
      )
    name, size, low, high = position
    checks.check(checks.size_fault(f"position: size of {name!r}", size))
    if not low < high:
      raise ValueError(
        f"position={position!r}: the lowest value must be below the highest"
      )
    for entry in categories:
      if not _is_entry(entry, 2):
        raise ValueError(
          f"categories: {entry!r}: expected (name, number of classes)"
        )
      checks.check(
        checks.size_fault(f"categories: classes of {entry[0]!r}", entry[1])
      )
    self._position = name
    self._position_size = size
    self._low, self._extent = float(low), float(high - low)
    self._categories = {name: int(count) for name, count in categories}
    self.size = size + sum(self._categories.values()) + 1
    self.score_names = tuple(f"ap/{d:g}" for d in _MAX_DISTANCES)

  def missing(self, data: Mapping[str, Any]) -> list[str]:
    """What `encode` needs and the data lack, by name."""
    factors = data.get("factors", {})
    needed = [self._position, *self._categories]
    missing = [name for name in needed if name not in factors]
    return missing + ["visibility"] * ("visibility" not in data)

  def encode(
    self, data: Mapping[str, Any], num_background_entities: int
  ) -> tf.Tensor:
    """Makes the vectors of all objects, the target of the prediction.

    Args:
      data: visibility [B, L] float32 and factors {name: [B, L, n]}, n = 1 for
        categories.
      num_background_entities: how many leading entities are background, which
        is no object.

    Returns:
      [B, N, P] float32 in [0, 1], N = L less the background; zeros for objects
      that are not visible.

    Raises:
      ValueError: if something is missing or has another size.
    """
    factors = data.get("factors", {})
    if missing := self.missing(data):
      raise ValueError(
        f"the data lack {', '.join(missing)}, which are to be predicted; they "
        f"have the factors {sorted(factors)}. For CLEVR, take "
        "data.constructor=iodine.modules.data.CLEVRProperties"
      )
    sizes = {self._position: self._position_size}
    checks.check_shapes(
      {
        f"factor {name!r}": (factors[name], f"B L {sizes.get(name, 1)}")
        for name in (self._position, *self._categories)
      }
    )
    position = tf.cast(factors[self._position], tf.float32)
    visible = tf.cast(data["visibility"], tf.float32)[..., tf.newaxis]
    parts = [(position - self._low) / self._extent]
    for name, count in self._categories.items():
      classes = tf.cast(factors[name][..., 0], tf.int32) - 1
      parts.append(tf.one_hot(classes, count))
    objects = tf.concat([*parts, tf.ones_like(visible)], axis=-1)
    return (objects * visible)[:, num_background_entities:]

  def average_precision(
    self, predictions: tf.Tensor, target: tf.Tensor
  ) -> tf.Tensor:
    """Average precision by several largest distances.

    A prediction is that of the nearest object in its image that has the same
    categories. It is right if it is near enough and no surer prediction of that
    object is.

    Args:
      predictions: [B, K, P] float32.
      target: [B, N, P] float32, from `encode`.

    Returns:
      [5] float32 in [0, 1], at distances below infinity, 1, 0.5, 0.25 and
      0.125, in the position's unit; NaN if there are no objects.
    """
    predictions = tf.cast(predictions, tf.float32)
    target = tf.cast(target, tf.float32)
    is_real = target[..., -1] > 0.5
    same = is_real[:, tf.newaxis]
    start = self._position_size
    for count in self._categories.values():
      part = slice(start, start + count)
      start += count
      predicted = tf.argmax(predictions[..., part], -1)[:, :, tf.newaxis]
      same &= predicted == tf.argmax(target[..., part], -1)[:, tf.newaxis]
    position = slice(self._position_size)
    differences = (
      predictions[:, :, tf.newaxis, position]
      - target[:, tf.newaxis, :, position]
    )
    distances = tf.norm(differences * self._extent, axis=-1)  # [B, K, N]
    distances = tf.where(same, distances, np.inf)
    nearest = tf.argmin(distances, -1, output_type=tf.int32)
    batch, num_objects = tf.unstack(tf.shape(target)[:2])
    found = num_objects * tf.range(batch)[:, tf.newaxis] + nearest
    is_near = tf.reduce_min(distances, -1, keepdims=True) < _MAX_DISTANCES
    return metrics.average_precision(
      tf.reshape(predictions[..., -1], [-1]),
      tf.reshape(found, [-1]),
      tf.reshape(is_near, [-1, len(_MAX_DISTANCES)]),
      tf.reshape(is_real, [-1]),
    )


def _is_entry(entry: Any, length: int) -> bool:
  return (
    isinstance(entry, list | tuple)
    and len(entry) == length
    and isinstance(entry[0], str)
  )
