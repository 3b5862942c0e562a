"""Named configurations, config files, and the check of a configuration."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from iodine import checks, errors
from iodine.config import plans
from iodine.config.entries import (
  OF_MODEL,
  PLANS,
  choice_faults,
  data_dir,
  value_faults,
)
from iodine.errors import ConfigError

__all__ = [
  "build_part",
  "check",
  "complete",
  "derived_data",
  "derived_model",
  "derived_optimizer",
  "resolve",
  "scaled_learn_rate",
  "sub_batch_size",
  "without_derived",
]

# What a configuration's learning rate is scaled by.
_RATE_SOURCES = ("base_learn_rate", "batch_size", "base_batch_size")
# Images in a sub-batch, which training writes into its folder's config.json;
# no entry that anyone sets.
SUB_BATCH_SIZE = "sub_batch_size"
_MAKE_OPTIMIZER = "iodine.training.make_optimizer"


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


def derived_data(
  batch_size: int | None,
  data_dir: str,
  data_file: str | None,
  image_dim: Sequence[int] | None,
) -> dict[str, Any]:
  """What the dataset's plan takes from other entries.

  Args:
    batch_size: B.
    data_dir: the folder of the datasets.
    data_file: a path within it; None: `data.path` does not follow.
    image_dim: (H, W); None: what the dataset's class says.
  """
  plan: dict[str, Any] = {"batch_size": batch_size}
  if image_dim is not None:
    plan["image_dim"] = image_dim
  if data_file is not None:
    plan["path"] = os.path.join(str(data_dir), str(data_file))
  return plan


def derived_model(
  n_z: int | None,
  num_components: int | None,
  num_iters: int | None,
  precision: str,
  recompute: bool,
) -> dict[str, Any]:
  """What the model's plan takes from other entries."""
  return {
    "n_z": n_z,
    "num_components": num_components,
    "num_iters": num_iters,
    "precision": precision,
    "recompute": recompute,
    "output_dist": {"num_components": num_components},
  }


def _derived_plans(entries: Mapping[str, Any]) -> dict[str, Any]:
  """What data and model take from the other entries of a configuration."""
  return {
    "data": derived_data(
      entries.get("batch_size"),
      entries.get("data_dir", data_dir()),
      entries.get("data_file"),
      entries.get("image_dim"),
    ),
    "model": derived_model(
      entries.get("n_z"),
      entries.get("num_components"),
      entries.get("num_iters"),
      entries.get("precision", "float32"),
      entries.get("recompute", False),
    ),
  }


def derived_optimizer(
  plan: Mapping[str, Any], learn_rate: float | None
) -> dict[str, Any]:
  """What the optimizer's plan takes from the learning rate.

  Args:
    plan: the optimizer's plan as far as it is set, for `make_optimizer` (or
      nothing) or for TF1's optimizer.
    learn_rate: of the first step.
  """
  constructor = plan.get("constructor", _MAKE_OPTIMIZER)
  if constructor == _MAKE_OPTIMIZER:
    return {"constructor": constructor, "learn_rate": learn_rate}
  if str(constructor).endswith(".AdamOptimizer"):
    if isinstance(plan.get("learning_rate"), Mapping):
      return {"learning_rate": {"learning_rate": learn_rate}}
    return {"learning_rate": learn_rate}
  return {}


def without_derived(entries: Mapping[str, Any]) -> dict[str, Any]:
  """Drops what follows from a file's other entries anyway.

  A run's own file holds every entry. Without those that are derived, an
  override reaches what depends on it, as it does in a named configuration.

  Args:
    entries: of a config file.

  Returns:
    The rest. An entry that differs from what would be derived stays.
  """
  derived: dict[str, Any] = {}
  if all(key in entries for key in _RATE_SOURCES):
    derived["learn_rate"] = scaled_learn_rate(
      *(entries[key] for key in _RATE_SOURCES)
    )
  rate = entries.get("learn_rate", derived.get("learn_rate"))
  derived["optimizer"] = derived_optimizer(entries.get("optimizer", {}), rate)
  derived.update(_derived_plans(entries))
  rest = _difference(entries, derived)
  rest.pop(SUB_BATCH_SIZE, None)
  return rest


def _difference(
  entries: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, Any]:
  """The entries, nested ones too, that another mapping does not hold alike."""
  rest = {}
  for key, value in entries.items():
    if isinstance(value, Mapping) and isinstance(other.get(key), Mapping):
      rest[key] = _difference(value, other[key])
    elif key not in other or value is None or value != other[key]:
      rest[key] = value
  return rest


def complete(entries: Mapping[str, Any]) -> dict[str, Any]:
  """A named configuration with what its plans take from other entries.

  Args:
    entries: of a named configuration.

  Returns:
    New entries, whose "data" and "model" can be built.
  """
  return {"seed": None, **_merged(_derived_plans(entries), entries)}


def resolve(
  entries: Mapping[str, Any],
  overrides: Mapping[str, Any],
  defaults: Mapping[str, Any],
) -> dict[str, Any]:
  """All entries of a configuration, those included that follow from others.

  Args:
    entries: of a named configuration or a file.
    overrides: entries that win over these, nested ones too.
    defaults: {key: default} of all entries that there are.

  Returns:
    New entries, to be checked by `check`.
  """
  given = _merged(_merged(defaults, entries), overrides)
  if given["learn_rate"] is None:
    given["learn_rate"] = scaled_learn_rate(
      *(given[key] for key in _RATE_SOURCES)
    )
  optimizer = derived_optimizer(given["optimizer"], given["learn_rate"])
  return complete(_merged({"optimizer": optimizer}, given))


def _merged(
  below: Mapping[str, Any], above: Mapping[str, Any]
) -> dict[str, Any]:
  """Both mappings' entries, nested ones too; those above win."""
  merged = {**below, **above}
  for key in set(below) & set(above):
    if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
      merged[key] = _merged(below[key], above[key])
  return merged


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
  return plans.build(config[key], identifier=key)


def check(
  config: Mapping[str, Any],
  known: Mapping[str, Any],
  start: Callable[[], object] = lambda: None,
) -> None:
  """Checks a whole configuration before any work starts.

  Args:
    config: all entries.
    known: {key: default} of all entries that there are. A value must be of its
      default's type, integers pass for floats, and None for no default.
    start: what has to come before TensorFlow executes anything, which it does
      where plans are built; called unless an entry is wrong.

  Raises:
    ConfigError: lists every fault.
  """
  faults = [
    f"{key}={value!r}: unknown key. {errors.did_you_mean(key, known, 'keys')}"
    for key, value in config.items()
    if key not in known
  ]
  told: list[str] = []
  for key, default in known.items():
    value = config.get(key, default)
    if key in OF_MODEL:
      faults += choice_faults(key, value, config)
    elif found := value_faults(key, value, default):
      if not _follows_from_faults(key, config, told):
        faults += found
      told.append(f"{key}={value!r}")
  if not told:
    faults += _sub_batch_faults(config)
  if not any("constructor" in config[key] for key in PLANS[:2]):
    raise ConfigError("\n".join([*faults, _NO_CONFIGURATION]))
  if not faults:
    start()
  for key in PLANS:
    try:
      build_part(config, key)
    except ConfigError as error:
      # A plan repeats a value that is wrong where it comes from.
      lines = str(error).splitlines()
      faults += [x for x in lines if not any(t in x for t in told)]
  if faults:
    raise ConfigError("\n".join(faults))


def _follows_from_faults(
  key: str, config: Mapping[str, Any], told: list[str]
) -> bool:
  """Whether a wrong learning rate comes from entries told to be wrong."""
  if key != "learn_rate":
    return False
  sources: dict[str, Any] = {name: config.get(name) for name in _RATE_SOURCES}
  return config.get(key) == scaled_learn_rate(**sources) and any(
    f"{name}={value!r}" in told for name, value in sources.items()
  )


def sub_batch_size(
  batch_size: int, accumulate: int, num_replicas: int = 1
) -> int:
  """Images in a sub-batch: batch_size / (num_replicas * accumulate).

  Raises:
    ConfigError: if that is no integer.
  """
  count = num_replicas * accumulate
  if batch_size % count:
    replicas = f"{num_replicas} replicas x " if num_replicas > 1 else ""
    raise ConfigError(
      f"batch_size={batch_size}: must be a multiple of {replicas}"
      f"accumulate={accumulate}, such as {-(-batch_size // count) * count}: it "
      f"is the whole batch of a step, which is cut into {count} equal parts"
    )
  return batch_size // count


def _sub_batch_faults(config: Mapping[str, Any]) -> list[str]:
  batch_size = config["data"].get("batch_size", config["batch_size"])
  if not checks.is_int(batch_size):
    return []  # which the dataset's plan tells
  try:
    sub_batch_size(batch_size, config.get("accumulate", 1))
  except ConfigError as error:
    return [str(error)]
  return []
