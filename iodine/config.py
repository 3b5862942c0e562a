"""Named configurations, config files, and the check of a configuration."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from iodine.modules import utils
from iodine.modules.utils import ConfigError

__all__ = [
  "build_part",
  "check",
  "data_dir",
  "load_file",
  "named_configs",
  "scaled_learn_rate",
]

# The parts of a configuration that are plans of constructors.
PLANS = ("data", "model", "optimizer")


def data_dir() -> str:
  """The folder of the datasets: $IODINE_DATA_DIR, else "data"."""
  return os.environ.get("IODINE_DATA_DIR") or "data"


def scaled_learn_rate(
  base_learn_rate: float, batch_size: int, base_batch_size: int
) -> float | None:
  """base_learn_rate * sqrt(batch_size / base_batch_size).

  None where the numbers do not allow it; `check` then says what is wrong.
  """
  try:
    return base_learn_rate * math.sqrt(batch_size / base_batch_size)
  except (TypeError, ValueError, ZeroDivisionError):
    return None


def named_configs() -> dict[str, dict[str, Any]]:
  """Reads the configurations that come with the project: {name: entries}."""
  package = pathlib.Path(__file__).resolve().parent
  # In an installed package, and beside it in a checkout.
  for folder in (package / "configs", package.parent / "configs"):
    if folder.is_dir():
      return {p.stem: load_file(p) for p in sorted(folder.glob("*.yaml"))}
  raise ConfigError(f"the named configurations are missing beside {package}")


def load_file(path: str | os.PathLike) -> dict[str, Any]:
  """Reads a YAML or JSON file of configuration entries, as plain data.

  Raises:
    ConfigError: if it cannot be read, parsed, or is no mapping.
  """
  path = pathlib.Path(path)
  if path.suffix not in (".yaml", ".yml", ".json"):
    raise ConfigError(f"{path}: a configuration file ends in .yaml or .json")
  try:
    text = path.read_text(encoding="utf-8")
    is_json = path.suffix == ".json"
    entries = json.loads(text) if is_json else yaml.safe_load(text)
  except (OSError, UnicodeDecodeError) as error:
    raise ConfigError(f"{path}: cannot be read: {error}") from error
  except (json.JSONDecodeError, yaml.YAMLError) as error:
    raise ConfigError(f"{path}: cannot be parsed: {error}") from error
  if not isinstance(entries, dict):
    raise ConfigError(f"{path}: must hold a mapping of entries, not a list")
  return entries


_NO_CONFIGURATION = (
  "No configuration was chosen: name one, e.g. `with tetrominoes`. "
  "`print_named_configs` lists them."
)


def build_part(config: Mapping[str, Any], key: str) -> Any:
  """Builds one of the plans "data", "model" and "optimizer".

  Raises:
    ConfigError: lists every fault of the plan.
  """
  if "constructor" not in config[key]:
    raise ConfigError(f"{key}.constructor: missing")
  return utils.build(config[key], identifier=key)


def check(config: Mapping[str, Any], known: Mapping[str, Any]) -> None:
  """Checks a whole configuration before any work starts.

  Args:
    config: all entries.
    known: {key: default} of all entries that there are. A value must be of its
      default's type, integers pass for floats, and None for no default.

  Raises:
    ConfigError: lists every fault.
  """
  faults = [
    f"{key}={value!r}: unknown key. {utils.did_you_mean(key, known, 'keys')}"
    for key, value in config.items()
    if key not in known
  ]
  told = []
  for key, default in known.items():
    value = config.get(key, default)
    if found := _value_faults(key, value, default):
      faults += found
      told.append(f"{key}={value!r}")
  if not any("constructor" in config[key] for key in PLANS[:2]):
    raise ConfigError("\n".join([*faults, _NO_CONFIGURATION]))
  for key in PLANS:
    try:
      build_part(config, key)
    except ConfigError as error:
      # A plan repeats a value that is wrong where it comes from.
      lines = str(error).splitlines()
      faults += [x for x in lines if not any(t in x for t in told)]
  if faults:
    raise ConfigError("\n".join(faults))


# {key: lowest allowed value}; others may be any value of their type.
_AT_LEAST = {
  "batch_size": 1,
  "base_batch_size": 1,
  "n_z": 1,
  "num_components": 2,
  "num_iters": 1,
  "stop_after_steps": 1,
  "save_summaries_steps": 1,
  "save_images_steps": 1,
  "save_checkpoint_steps": 1,
  "keep_checkpoints": 1,
  "seed": 0,
}
_ABOVE_ZERO = ("base_learn_rate", "learn_rate")


def _value_faults(key: str, value: Any, default: Any) -> list[str]:
  """Faults of a top-level entry's type and range."""
  if default is None and value is None:
    return []
  types = {bool: "True or False", int: "an integer", float: "a number"}
  types.update({str: "a string", dict: "a mapping of entries"})
  kind = int if key in _AT_LEAST else type(default)
  kind = float if key in _ABOVE_ZERO else kind
  kind = str if default is None and kind is type(None) else kind
  accepted: tuple[type, ...] = (int, float) if kind is float else (kind,)
  is_bool = isinstance(value, bool)
  if not isinstance(value, accepted) or (is_bool and kind is not bool):
    return [f"{key}={value!r}: must be {types[kind]}"]
  if key in _AT_LEAST and value < _AT_LEAST[key]:
    return [f"{key}={value!r}: must be at least {_AT_LEAST[key]}"]
  if key in _ABOVE_ZERO and not (value > 0 and math.isfinite(value)):
    return [f"{key}={value!r}: must be above 0"]
  return []
