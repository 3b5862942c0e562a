"""The true factors of objects, as numbers and categories to predict.

Dimensions: N scenes, L true entities, n size of a factor, D size of a target.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Encoding", "Property", "columns", "type_of"]

# Which most files store as floating-point numbers.
_CATEGORIES = ("shape",)
_ANGLES = ("orientation", "rotation")
# The published order, with the positions that are vectors here.
_ORDER = (
  *("size", "scale", "material", "shape"),
  *("x", "y", "position", "location", "z", "color"),
)


def type_of(name: str, dtype: Any) -> str:
  """The type of a factor, one of those of `iodine.modules.factor_eval`.

  Args:
    name: the factor's.
    dtype: NumPy's type of its values.

  Returns:
    "categorical" for a shape or integers, "angle" for an orientation, else
    "scalar".
  """
  if name in _CATEGORIES or np.issubdtype(dtype, np.integer):
    return "categorical"
  return "angle" if name in _ANGLES else "scalar"


def columns(factors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Takes vectors apart.

  Args:
    factors: {name: [..., n]}.

  Returns:
    {name: [...]}, and {name_i: [...]} of several columns; integers where they
    are categories.
  """
  apart = {}
  for name, values in factors.items():
    if type_of(name, values.dtype) == "categorical":
      values = np.rint(values).astype(np.int64)
    count = values.shape[-1]
    for i in range(count):
      apart[name if count == 1 else f"{name}_{i}"] = values[..., i]
  return apart


class Property(NamedTuple):
  """A factor, or a column of categories, that is predicted.

  Attributes:
    name: of the factor, see `columns` for columns.
    factor: the factor's name.
    categories: [size] sorted values; None: they are numbers.
    mean: [size] of numbers.
    std: [size] of numbers, positive.
    start: where its columns of a target start.
    size: how many columns it has.
  """

  name: str
  factor: str
  categories: np.ndarray | None
  mean: np.ndarray
  std: np.ndarray
  start: int
  size: int

  @property
  def columns(self) -> slice:
    """Its columns of a target."""
    return slice(self.start, self.start + self.size)


class Encoding:
  """How factors become targets: numbers standardised, categories one-hot.

  Attributes:
    properties: what is predicted, in the order of the columns. Angles are not,
      as in the published protocol: most objects look alike at several.
    size: D.
    left_out: names of properties that have one value in all training scenes.
  """

  def __init__(self, factors: Mapping[str, np.ndarray], is_object: np.ndarray):
    """Takes moments and categories from the training scenes.

    Args:
      factors: {name: [N, L, n]}.
      is_object: [N, L] bool, which entities are visible objects; at least one.
    """
    self.properties: list[Property] = []
    self.size = 0
    self.left_out: list[str] = []
    for name, (factor, values) in _predicted(factors).items():
      self._add(name, factor, values[is_object])

  def _add(self, name: str, factor: str, values: np.ndarray) -> None:
    """Adds a property with the values [M, n] of all training objects."""
    if (values == values[:1]).all():
      self.left_out.append(name)
      return
    categories = None
    if np.issubdtype(values.dtype, np.integer):
      categories = np.unique(values)
    mean, std = values.mean(axis=0), values.std(axis=0)
    size = len(mean) if categories is None else len(categories)
    std = np.where(std > 0, std, 1.0)
    self.properties.append(
      Property(name, factor, categories, mean, std, self.size, size)
    )
    self.size += size

  def encode(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Makes targets of factors.

    Args:
      factors: {name: [N, L, n]}.

    Returns:
      [N, L, D] float32; all zero in the columns of a category that no training
      object has.
    """
    values = {name: x for name, (_, x) in _predicted(factors).items()}
    parts = [
      (values[p.name] - p.mean) / p.std
      if p.categories is None
      else values[p.name] == p.categories
      for p in self.properties
    ]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _predicted(
  factors: Mapping[str, np.ndarray],
) -> dict[str, tuple[str, np.ndarray]]:
  """{property: (factor, [..., n])}: vectors of numbers whole, others apart."""
  rank = {name: i for i, name in enumerate(_ORDER)}
  found: dict[str, tuple[str, np.ndarray]] = {}
  for name in sorted(factors, key=lambda x: (rank.get(x, len(rank)), x)):
    values = factors[name]
    kind = type_of(name, values.dtype)
    if kind == "scalar":
      found[name] = (name, values.astype(np.float64))
    elif kind == "categorical":
      apart = columns({name: values})
      found |= {k: (name, x[..., np.newaxis]) for k, x in apart.items()}
  return found
