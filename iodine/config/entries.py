"""The entries of a configuration: types, ranges and choices."""

import math
import os
from collections.abc import Mapping
from typing import Any

from iodine import checks, errors

__all__ = ["data_dir"]

# The parts of a configuration that are plans of constructors.
PLANS = ("data", "model", "optimizer")


def data_dir() -> str:
  """The folder of the datasets: $IODINE_DATA_DIR, else "data"."""
  return os.environ.get("IODINE_DATA_DIR") or "data"


# {key: lowest allowed value}; others may be any value of their type.
_AT_LEAST = {
  "batch_size": 1,
  "base_batch_size": 1,
  "accumulate": 1,
  "n_z": 1,
  "num_components": 2,
  "num_iters": 1,
  "stop_after_steps": 1,
  "save_summaries_steps": 1,
  "save_images_steps": 1,
  "save_checkpoint_steps": 1,
  "keep_checkpoints": 1,
  "held_out_scenes": 0,
  "num_scenes": 1,
  "num_samples": 1,
  "paper_batch_size": 1,
  "scene": 1,
  "seed": 0,
}

_AT_MOST = {"seed": 2**31 - 2}

_ABOVE_ZERO = ("base_learn_rate", "learn_rate")

_CHOICES = {
  "strategy": ("mirrored", "multi_worker"),
}

# What chooses parts of the model, of which it has so many: {key: entry}.
OF_MODEL = {"slot": "num_components", "latents": "n_z"}


def choice_faults(key: str, value: Any, config: Mapping[str, Any]) -> list[str]:
  """Faults of a slot, counted from 1, or of latents, counted from 0."""
  count: Any = config.get(OF_MODEL[key])
  if value is None or not (checks.is_int(count) and count > 0):
    return []
  if key == "slot":
    fault = checks.int_fault(key, value, 1, count)
    return [fault] if fault else []
  if isinstance(value, list | tuple) and value:
    if all(checks.is_int(x) and 0 <= x < count for x in value):
      return []
  return [
    f"{key}={value!r}: expected a list of integers from 0 to {count - 1}, "
    f"such as [0]"
  ]


def value_faults(key: str, value: Any, default: Any) -> list[str]:
  """Faults of a top-level entry's type and range."""
  optional = default is None and key not in _ABOVE_ZERO
  if optional and value is None:
    return []
  if key == "image_dim":
    fault = checks.image_dim_fault(value)
    return [fault] if fault else []
  types = {bool: "True or False", int: "an integer", float: "a number"}
  types.update({str: "a string", dict: "a mapping of entries"})
  kind = int if key in _AT_LEAST else type(default)
  kind = float if key in _ABOVE_ZERO else kind
  kind = str if default is None and kind is type(None) else kind
  accepted: tuple[type, ...] = (int, float) if kind is float else (kind,)
  is_bool = isinstance(value, bool)
  number: Any = value
  if not isinstance(value, accepted) or (is_bool and kind is not bool):
    return [f"{key}={value!r}: must be {types[kind]}"]
  if value not in _CHOICES.get(key, (value,)):
    choices = _CHOICES[key]
    meant = errors.did_you_mean(str(value), choices, "values")
    return [f"{key}={value!r}: no such value. {meant}"]
  if key in _AT_LEAST and number < _AT_LEAST[key]:
    return [
      f"{key}={value!r}: expected an integer of at least {_AT_LEAST[key]}"
    ]
  if key in _AT_MOST and number > _AT_MOST[key]:
    return [f"{key}={value!r}: must be at most {_AT_MOST[key]}"]
  if key in _ABOVE_ZERO and not (number > 0 and math.isfinite(number)):
    return [f"{key}={value!r}: must be above 0"]
  return []
