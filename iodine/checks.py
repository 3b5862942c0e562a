"""What is wrong with arguments and shapes, in the words for a user.

Each function returns a line that names the argument, its value and what is
expected, or None where nothing is wrong.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = [
  "bound_faults",
  "check_shapes",
  "crop_fault",
  "flag_fault",
  "image_dim_fault",
  "int_fault",
  "is_int",
  "path_fault",
  "paths_fault",
  "static_shape",
]


def is_int(value: Any) -> bool:
  """Whether a value is an integer, of Python or NumPy, and no bool."""
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def int_fault(
  name: str,
  value: Any,
  low: int,
  high: int | None = None,
  optional: bool = False,
) -> str | None:
  """Expects an integer from `low` to `high` (None: no bound), or None."""
  if value is None and optional:
    return None
  if is_int(value) and value >= low and (high is None or value <= high):
    return None
  bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
  alternative = " or null" if optional else ""
  return f"{name}={value!r}: expected an integer {bounds}{alternative}"


def flag_fault(name: str, value: Any) -> str | None:
  """Expects True or False."""
  if isinstance(value, bool):
    return None
  return f"{name}={value!r}: expected true or false"


def bound_faults(low: Any, high: Any, most: int | None) -> list[str]:
  """Expects bounds of the number of objects: integers, or None.

  Args:
    low: The least.
    high: The most.
    most: That a scene can have, if that is known.
  """
  faults = [
    int_fault("min_num_objects", low, 0, most, optional=True),
    int_fault("max_num_objects", high, 0, optional=True),
  ]
  if not any(faults) and low is not None and high is not None and low > high:
    faults.append(
      f"min_num_objects={low}, max_num_objects={high}: the minimum is above "
      "the maximum, which leaves no scene"
    )
  return [fault for fault in faults if fault]


def path_fault(name: str, value: Any, optional: bool = False) -> str | None:
  """Expects one path that is not empty, or None."""
  if _is_path(value) or (value is None and optional):
    return None
  alternative = " or null" if optional else ""
  return f"{name}={value!r}: expected a path{alternative}"


def paths_fault(name: str, value: Any) -> str | None:
  """Expects a path, or a sequence of paths that is not empty."""
  if _is_path(value):
    return None
  if isinstance(value, Sequence) and value and all(map(_is_path, value)):
    return None
  return f"{name}={value!r}: expected a file name or a list of file names"


def image_dim_fault(value: Any) -> str | None:
  """Expects (height, width)."""
  if _is_pair(value) and min(value) >= 1:
    return None
  return f"image_dim={value!r}: expected (height, width), two positive integers"


def crop_fault(region: Any) -> str | None:
  """Expects ((top, bottom), (left, right)), or None."""
  if region is None or (
    isinstance(region, Sequence)
    and len(region) == 2
    and all(_is_pair(side) and 0 <= side[0] < side[1] for side in region)
  ):
    return None
  return (
    f"crop_region={region!r}: expected ((top, bottom), (left, right)) in "
    "pixels, with 0 <= top < bottom and 0 <= left < right, or null"
  )


def _is_path(value: Any) -> bool:
  return isinstance(value, str | os.PathLike) and bool(os.fspath(value))


def _is_pair(value: Any) -> bool:
  return (
    isinstance(value, Sequence) and len(value) == 2 and all(map(is_int, value))
  )


def static_shape(
  name: str, tensor: tf.Tensor, expected: Sequence[Any]
) -> list[Any]:
  """Checks a tensor's static shape at a module's door.

  Args:
    name: what the tensor is called in the error.
    tensor: any tensor of known rank; unknown dimensions fit anything.
    expected: one entry per dimension: a size that must match, or a dimension's
      letter (or None) that fits any size.

  Returns:
    The static shape, a list with None for what is unknown.

  Raises:
    ValueError: naming the tensor, its shape and the expected one.
  """
  shape = [] if tensor.shape.rank is None else tensor.shape.as_list()
  fits = len(shape) == len(expected)
  fits = fits and all(
    not isinstance(want, int) or have is None or have == want
    for have, want in zip(shape, expected, strict=True)
  )
  if not fits:
    wanted = ", ".join("*" if e is None else str(e) for e in expected)
    raise ValueError(
      f"{name}: expected shape [{wanted}], got {tensor.shape} "
      f"({tensor.dtype.name})"
    )
  return shape


def check_positive_int(name: str, value: Any) -> None:
  """Raises ValueError unless value is an integer of at least 1."""
  if isinstance(value, bool) or not isinstance(value, int | np.integer):
    raise ValueError(f"{name}={value!r}: must be a positive integer")
  if value < 1:
    raise ValueError(f"{name}={value!r}: must be at least 1")


def check_module(name: str, value: Any) -> None:
  """Raises ValueError unless value can be called, as a plan's modules can."""
  if not callable(value):
    raise ValueError(
      f"{name}={value!r}: must be a module; is its 'constructor' missing?"
    )


def check_shapes(arrays: Mapping[str, tuple[Any, str]]) -> dict[str, int]:
  """Checks that arrays have the expected shapes and agree with one another.

  Args:
    arrays: for each name an array or tensor and its expected dimensions,
      separated by spaces: a number is an exact size, a name stands for the
      same size wherever it occurs, and `_` for any size. Sizes that are
      unknown while tracing are not compared.

  Returns:
    The size of each named dimension that is known.

  Raises:
    ValueError: if a shape does not fit; names the array and both shapes.

  Example:
    >>> check_shapes({"images": (np.zeros([2, 5, 7, 3]), "B H W C"),
    ...               "masks": (np.zeros([2, 5, 7, 4]), "B H W K")})
    {'B': 2, 'H': 5, 'W': 7, 'C': 3, 'K': 4}
  """
  sizes: dict[str, int] = {}
  sources: dict[str, str] = {}
  for name, (array, expected) in arrays.items():
    shape, dims = list(array.shape), expected.split()
    fits = len(shape) == len(dims)
    for size, dim in zip(shape, dims, strict=False):
      if size is None or dim == "_":
        continue
      fits &= size == (int(dim) if dim.isdigit() else sizes.get(dim, size))
    if not fits:
      known = ", ".join(
        f"{d}={sizes[d]} as in {sources[d]}" for d in dims if d in sizes
      )
      raise ValueError(
        f"{name} has shape {shape}, expected [{', '.join(dims)}]"
        + (f" with {known}." if known else ".")
      )
    for size, dim in zip(shape, dims, strict=True):
      if size is not None and dim != "_" and not dim.isdigit():
        sizes.setdefault(dim, int(size))
        sources.setdefault(dim, name)
  return sizes
