"""What is wrong with the arguments of datasets, in the words for a user.

Each function returns a line that names the argument, its value and what is
expected, or None where nothing is wrong.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from typing import Any

__all__ = [
  "bound_faults",
  "crop_fault",
  "flag_fault",
  "image_dim_fault",
  "int_fault",
  "is_int",
  "path_fault",
  "paths_fault",
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
