"""Shifts as configurations name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from iodine import checks, errors
from iodine.data.shifts.base import Shift
from iodine.data.shifts.one_object import ObjectColor, ObjectStyle
from iodine.data.shifts.selection import HeldOut, MoreObjects
from iodine.data.shifts.triangle import ObjectShape
from iodine.data.shifts.whole_scenes import Crop, Occlusion

__all__ = ["SHIFTS", "fault", "resolve"]

SHIFTS: dict[str, type[Shift]] = {
  shift.name: shift
  for shift in (
    Occlusion,
    Crop,
    ObjectColor,
    ObjectStyle,
    ObjectShape,
    MoreObjects,
    HeldOut,
  )
}


def resolve(value: Any) -> Shift | None:
  """Makes a shift of what a configuration says.

  Args:
    value: a name of `SHIFTS`; a mapping of `name` and options; or a shift.

  Returns:
    The shift; None: none.

  Raises:
    ValueError: for an unknown name or option, or a wrong value.
  """
  if value is None or isinstance(value, Shift):
    return value
  options = dict(value) if isinstance(value, Mapping) else {"name": value}
  if "name" not in options:
    raise ValueError(
      f"shift={value!r}: name is missing. "
      + errors.did_you_mean("", SHIFTS, "names")
    )
  name = options.pop("name")
  if not isinstance(name, str) or name not in SHIFTS:
    raise ValueError(
      f"shift={name!r}: no such shift. "
      + errors.did_you_mean(str(name), SHIFTS, "names")
    )
  fields = {field.name: field for field in dataclasses.fields(SHIFTS[name])}
  faults = [
    f"{key}={options[key]!r}: unknown option. "
    + errors.did_you_mean(key, fields, "options")
    for key in options
    if key not in fields
  ]
  faults += [
    f"{key}: is missing"
    for key, field in fields.items()
    if field.default is dataclasses.MISSING and key not in options
  ]
  try:
    checks.check(*faults)
    return SHIFTS[name](**options)
  except ValueError as error:
    lines = str(error).splitlines()
    raise ValueError(
      "\n".join(f"shift={name}, {line}" for line in lines)
    ) from None


def fault(value: Any) -> str | None:
  """What is wrong with a value for `resolve`; None: nothing."""
  try:
    resolve(value)
  except ValueError as error:
    return str(error)
  return None
