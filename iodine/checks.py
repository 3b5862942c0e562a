"""Checks of arguments and shapes, with messages for users.

A `*_fault` function returns a line with the argument's name, its value and what
is expected, or None if nothing is wrong. A `check*` function raises.
"""

from __future__ import annotations

import itertools
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

from iodine import errors

__all__ = [
  "FITS",
  "MOST_BATCH",
  "MOST_FREQUENCIES",
  "MOST_ITERS",
  "MOST_SIZE",
  "PRECISIONS",
  "above_zero_fault",
  "above_zero_to_fault",
  "bound_faults",
  "check",
  "check_flags",
  "check_index",
  "check_modules",
  "check_positive_ints",
  "check_shapes",
  "check_sizes",
  "check_weights",
  "choice_fault",
  "crop_fault",
  "curriculum_fault",
  "finite_fault",
  "flag_fault",
  "image_dim_fault",
  "int_fault",
  "is_int",
  "is_number",
  "multiple_fault",
  "not_negative_fault",
  "number_fault",
  "path_fault",
  "paths_fault",
  "share_fault",
  "size_fault",
  "text_hint",
  "unit_fault",
]

# What is larger is a slip of the keyboard: no machine has the memory or time.
MOST_SIZE = 8_192  # of a layer, a latent, a kernel, the side of an image
MOST_FREQUENCIES = 64  # of coordinates, whose square is a number of channels
MOST_ITERS = 1_000
MOST_BATCH = 65_536
# What is done to an image of another aspect ratio.
FITS = ("crop", "pad", "stretch")
# What convolutions compute in, TF32 and bfloat16 where devices can.
PRECISIONS = ("float32", "tf32", "bfloat16")
_MOST_WEIGHTS = 2**30  # of a layer: 4 GiB
_MOST_INT = 2**63 - 1  # that TensorFlow holds
_MOST_SHOWN = 80  # characters of a value


def is_int(value: Any) -> bool:
  """Whether a value is a Python or NumPy integer, and not a bool."""
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
  """Whether a value is a real Python or NumPy number, and not a bool."""
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def int_fault(
  name: str,
  value: Any,
  low: int,
  high: int | None = None,
  optional: bool = False,
) -> str | None:
  """Expects an integer from `low` to `high` (None: unbounded), or None."""
  if value is None and optional:
    return None
  if is_int(value) and value >= low and (high is None or value <= high):
    return number_fault(name, value)
  bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
  alternative = " or None" if optional else ""
  wanted = f"expected an integer {bounds}{alternative}"
  return f"{name}={_shown(value)}: {text_hint(value)}{wanted}"


def size_fault(
  name: str,
  value: Any,
  low: int = 1,
  most: int = MOST_SIZE,
  optional: bool = False,
) -> str | None:
  """Expects an integer from `low` on that a machine can serve, or None."""
  if is_int(value) and value > most:
    return f"{name}={_shown(value)}: is too large; expected at most {most:,}"
  return int_fault(name, value, low, optional=optional)


def number_fault(name: str, value: Any) -> str | None:
  """Expects of a number that it is finite, and of an integer 64 bits."""
  if is_int(value):
    if -_MOST_INT <= value <= _MOST_INT:
      return None
    return f"{name}={_shown(value)}: is too large; expected 64 bits at most"
  if is_number(value) and not math.isfinite(value):
    return f"{name}={value!r}: expected a finite number"
  return None


def _shown(value: Any) -> str:
  """A value in an error, which is not to fill the screen."""
  text = repr(value)
  if len(text) <= _MOST_SHOWN:
    return text
  return f"{text[: _MOST_SHOWN - 20]}...{text[-10:]}"


def finite_fault(name: str, value: Any) -> str | None:
  """Expects a finite number."""
  if is_number(value) and math.isfinite(value):
    return None
  return f"{name}={value!r}: {text_hint(value)}expected a finite number"


def above_zero_fault(name: str, value: Any) -> str | None:
  """Expects a finite number above 0."""
  if is_number(value) and 0 < value < math.inf:
    return None
  return f"{name}={value!r}: {text_hint(value)}expected a number above 0"


def above_zero_to_fault(name: str, value: Any, high: float) -> str | None:
  """Expects a number above 0 that is not above another."""
  if is_number(value) and 0 < value <= high:
    return None
  wanted = f"expected a number above 0, {high} at most"
  return f"{name}={value!r}: {text_hint(value)}{wanted}"


def not_negative_fault(name: str, value: Any) -> str | None:
  """Expects a finite number of at least 0."""
  if is_number(value) and 0 <= value < math.inf:
    return None
  return f"{name}={value!r}: {text_hint(value)}expected a number of at least 0"


def choice_fault(name: str, value: Any, choices: Sequence) -> str | None:
  """Expects one of some values."""
  if value in choices and not isinstance(value, bool):
    return None
  meant = errors.did_you_mean(str(value), [str(x) for x in choices], "values")
  return f"{name}={value!r}: no such value. {meant}"


def multiple_fault(
  name: str, value: int, divisor_name: str, divisor: int
) -> str | None:
  """Expects a multiple of another number, which has a name, too."""
  if value % divisor == 0:
    return None
  return f"{name}={value}: expected a multiple of {divisor_name}, {divisor}"


def share_fault(name: str, value: Any) -> str | None:
  """Expects a number in [0, 1)."""
  if is_number(value) and 0 <= value < 1:
    return None
  return f"{name}={value!r}: {text_hint(value)}expected a number in [0, 1)"


def unit_fault(name: str, value: Any) -> str | None:
  """Expects a number in [0, 1]."""
  if is_number(value) and 0 <= value <= 1:
    return None
  return f"{name}={value!r}: {text_hint(value)}expected a number in [0, 1]"


def text_hint(value: Any) -> str:
  """Points out that a value is text, since it may look like a number."""
  return "is text; " if isinstance(value, str) else ""


def flag_fault(name: str, value: Any) -> str | None:
  """Expects True or False."""
  if isinstance(value, bool):
    return None
  return f"{name}={value!r}: expected True or False"


def bound_faults(low: Any, high: Any, most: int | None) -> list[str]:
  """Expects bounds on the number of objects: integers, or None.

  Args:
    low: minimum number of objects.
    high: maximum number of objects.
    most: largest number possible in a scene, or None if unknown.
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
  """Expects a non-empty path, or None."""
  if _is_path(value) or (value is None and optional):
    return None
  alternative = " or None" if optional else ""
  return f"{name}={value!r}: {_path_hint(value)}expected a path{alternative}"


def paths_fault(name: str, value: Any) -> str | None:
  """Expects a path or a non-empty sequence of paths."""
  if _is_path(value):
    return None
  if isinstance(value, Sequence) and value and all(map(_is_path, value)):
    return None
  return (
    f"{name}={value!r}: {_path_hint(value)}expected a file name or a list of "
    "file names"
  )


def texts_fault(name: str, value: Any, example: str) -> str | None:
  """Expects a list of texts that can be paths."""
  if isinstance(value, list | tuple) and value and all(map(_is_path, value)):
    return None
  return f"{name}={value!r}: expected a list, such as {name}={example}"


def image_dim_fault(value: Any) -> str | None:
  """Expects (height, width)."""
  if not _is_pair(value) or min(value) < 1:
    return (
      f"image_dim={_shown(value)}: expected (height, width), two positive "
      "integers"
    )
  return size_fault("image_dim", max(value))


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
    "pixels, with 0 <= top < bottom and 0 <= left < right, or None"
  )


def curriculum_fault(name: str, value: Any) -> str | None:
  """Expects stages [[0, n], [step, n], ...], in the order of their steps."""
  expected = (
    "expected a list of [first step, number of refinement steps], such as "
    "[[0, 3], [100000, 1]]"
  )
  if not isinstance(value, Sequence) or not value or isinstance(value, str):
    return f"{name}={value!r}: {text_hint(value)}{expected}"
  if not all(_is_pair(stage) and min(stage) >= 0 for stage in value):
    return f"{name}={value!r}: {expected}"
  steps = [stage[0] for stage in value]
  if steps[0] != 0:
    return f"{name}={value!r}: the first stage must begin at step 0"
  if any(a >= b for a, b in itertools.pairwise(steps)):
    return f"{name}={value!r}: each stage must begin after the one before"
  return None


def _is_path(value: Any) -> bool:
  if not isinstance(value, str | os.PathLike):
    return False
  path = os.fspath(value)
  return bool(path) and (b"\0" if isinstance(path, bytes) else "\0") not in path


def _path_hint(value: Any) -> str:
  """Says why a value that may look like a path is none."""
  if is_number(value):
    return f"is a number; write './{value}', or "
  if isinstance(value, str) and "\0" in value:
    return "has a zero byte, which no path can; "
  return ""


def _is_pair(value: Any) -> bool:
  return (
    isinstance(value, Sequence) and len(value) == 2 and all(map(is_int, value))
  )


def check(*faults: str | None) -> None:
  """Raises ValueError if there are faults, one per line."""
  found = [fault for fault in faults if fault]
  if found:
    raise ValueError("\n".join(found))


def check_index(name: str, index: int, length: int) -> None:
  """Raises ValueError unless an index is from 0 to `length` - 1."""
  if not 0 <= index < length:
    raise ValueError(f"{name}={index}: expected from 0 to {length - 1}.")


def check_positive_ints(**values: Any) -> None:
  """Raises ValueError unless all values are integers of at least 1."""
  check(*(int_fault(name, value, 1) for name, value in values.items()))


def check_sizes(**values: Any) -> None:
  """Raises ValueError unless `size_fault` accepts all values."""
  check(*(size_fault(name, value) for name, value in values.items()))


def check_weights(name: str, shape: Sequence[int]) -> None:
  """Raises ValueError if a layer's weights are too many for any machine."""
  if math.prod(shape) > _MOST_WEIGHTS:
    raise ValueError(
      f"{name}: weights of shape {list(shape)} are {math.prod(shape):,} "
      f"numbers; a layer has {_MOST_WEIGHTS:,} at most"
    )


def check_flags(**values: Any) -> None:
  """Raises ValueError unless all values are True or False."""
  check(*(flag_fault(name, value) for name, value in values.items()))


def check_modules(**values: Any) -> None:
  """Raises ValueError unless all values are callable, as modules are."""
  check(
    *(
      f"{name}={value!r}: expected a module; is its 'constructor' missing?"
      for name, value in values.items()
      if not callable(value)
    )
  )


def check_shapes(arrays: Mapping[str, tuple[Any, str]]) -> dict[str, int]:
  """Checks that arrays have the expected shapes and agree with one another.

  Args:
    arrays: for each name, an array or tensor and its expected dimensions,
      separated by spaces: a number is an exact size, a name stands for the
      same size everywhere, and `_` for any size. Sizes unknown while tracing
      are not compared.

  Returns:
    The sizes of the named dimensions, where known.

  Raises:
    ValueError: if a shape differs; names the array and both shapes.

  Example:
    >>> check_shapes({"images": (np.zeros([2, 5, 7, 3]), "B H W C"),
    ...               "masks": (np.zeros([2, 5, 7, 4]), "B H W K")})
    {'B': 2, 'H': 5, 'W': 7, 'C': 3, 'K': 4}
  """
  sizes: dict[str, int] = {}
  sources: dict[str, str] = {}
  for name, (array, expected) in arrays.items():
    dims = expected.split()
    if not _fits(array, dims, sizes):
      known = ", ".join(
        f"{d}={sizes[d]} as in {sources[d]}" for d in dims if d in sizes
      )
      raise ValueError(
        f"{name} has shape {_shape(array)}, expected [{', '.join(dims)}]"
        + (f" with {known}." if known else ".")
      )
    for size, dim in zip(array.shape, dims, strict=True):
      if size is not None and dim != "_" and not dim.isdigit():
        sizes.setdefault(dim, int(size))
        sources.setdefault(dim, name)
  return sizes


def _shape(array: Any) -> Any:
  """A list of sizes, or TensorFlow's object for an unknown shape."""
  has_rank = getattr(array.shape, "rank", 0) is not None
  return list(array.shape) if has_rank else array.shape


def _fits(array: Any, dims: Sequence[str], sizes: Mapping[str, int]) -> bool:
  """Whether the known part of a shape is as expected."""
  shape = _shape(array)
  if not isinstance(shape, list) or len(shape) != len(dims):
    return False
  wanted = [int(dim) if dim.isdigit() else sizes.get(dim) for dim in dims]
  return all(
    None in (size, want) or size == want
    for size, want in zip(shape, wanted, strict=True)
  )
