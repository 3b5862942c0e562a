"""Makes a whole configuration of what a user gives, and builds it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from iodine import checks
from iodine.config import plans
from iodine.config.entries import (
  ENTRIES,
  PLANS,
  data_dir,
  defaults,
  faults,
)
from iodine.config.reading import merged
from iodine.errors import ConfigError

__all__ = [
  "SUB_BATCH_SIZE",
  "build",
  "check",
  "filled",
  "precision",
  "resolve",
  "scaled_learn_rate",
  "sub_batch_size",
  "without_derived",
]

_FLOAT = 4  # bytes
# What the learning rate is computed from.
_RATE_SOURCES = ("base_learn_rate", "batch_size", "base_batch_size")
# Images in a sub-batch, which training writes into its folder's config.json;
# no entry that anyone sets.
SUB_BATCH_SIZE = "sub_batch_size"
# A wrong value is told once: plans see the default in its place, or this.
_STAND_INS = {"learn_rate": 1.0, "image_dim": (1, 1)}
_NO_CONFIGURATION = (
  "No configuration was chosen: name one, e.g. `with tetrominoes`. "
  "`print_named_configs` lists them."
)


def resolve(
  entries: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """All entries of a configuration.

  Args:
    entries: of a named configuration or a file.
    overrides: entries that win over these, nested ones too.

  Returns:
    The defaults below these, and what follows from others: `learn_rate`, and
    `data.path` from `data_dir` and `data_file`. To be checked by `build`.
  """
  whole = merged(merged(defaults(), entries), overrides or {})
  if whole["learn_rate"] is None:
    whole["learn_rate"] = scaled_learn_rate(whole)
  path = _data_path(whole)
  if path is not None and isinstance(whole["data"], Mapping):
    whole["data"] = {"path": path, **whole["data"]}
  return whole


def scaled_learn_rate(entries: Mapping[str, Any]) -> float | None:
  """base_learn_rate * sqrt(batch_size / base_batch_size).

  None where the numbers do not allow it; `build` then says what is wrong.
  """
  try:
    rate, size, base = (entries[key] for key in _RATE_SOURCES)
    return rate * math.sqrt(size / base)
  except (KeyError, TypeError, ValueError, ZeroDivisionError):
    return None


def _data_path(entries: Mapping[str, Any]) -> str | None:
  if entries.get("data_file") is None:
    return None
  folder = entries.get("data_dir", data_dir())
  return os.path.join(str(folder), str(entries["data_file"]))


def without_derived(entries: Mapping[str, Any]) -> dict[str, Any]:
  """Drops what follows from other entries anyway.

  A run's own file holds every entry. Without those that follow from others, an
  override reaches what depends on it, as it does in a named configuration.

  Args:
    entries: of a file.

  Returns:
    The rest. An entry that differs from what would follow stays.
  """
  rest = {k: v for k, v in entries.items() if k != SUB_BATCH_SIZE}
  shared = _shared(rest)
  if rest.get("learn_rate") == scaled_learn_rate(rest):
    rest.pop("learn_rate", None)
  for key in PLANS:
    if isinstance(rest.get(key), Mapping):
      rest[key] = _without_shared(rest[key], shared)
  data = rest.get("data")
  if isinstance(data, dict) and data.get("path") == _data_path(rest):
    data.pop("path", None)
  return rest


def _without_shared(plan: Any, shared: Mapping[str, Any]) -> Any:
  """A plan without what its constructors would be given anyway."""
  if not isinstance(plan, Mapping):
    return plan
  is_call = "constructor" in plan
  return {
    key: _without_shared(value, shared)
    for key, value in plan.items()
    if not (is_call and key in shared and shared[key] == value)
  }


def filled(entries: Mapping[str, Any]) -> dict[str, Any]:
  """A whole configuration whose plans hold all that their constructors get.

  Each plan can then be built without the others, as the reference's can.
  """
  shared = _shared(entries)
  return {
    key: plans.filled(value, shared) if key in PLANS else value
    for key, value in entries.items()
  }


def _shared(entries: Mapping[str, Any]) -> dict[str, Any]:
  """What constructors are given of a configuration's entries."""
  # TF1's optimizer, which the reference's plans name, has it by that name.
  named = {**entries, "learning_rate": entries.get("learn_rate")}
  return {
    key: value
    for key, value in named.items()
    if key not in PLANS and value is not None
  }


def build(
  entries: Mapping[str, Any],
  parts: Sequence[str] = PLANS,
  shared: Mapping[str, Any] | None = None,
) -> list[Any]:
  """Checks a whole configuration, and builds what it describes.

  An entry reaches every constructor of a plan that has a parameter of that name
  and does not set it. The model gets the constraint of the entry `geco`.
  Nothing is computed, and no file is opened.

  Args:
    entries: from `resolve`.
    parts: which of the plans "data", "model" and "optimizer" to build.
    shared: more values that reach constructors in this way.

  Returns:
    What the plans describe, in the order of `parts`.

  Raises:
    ConfigError: lists every fault of the entries and of these plans.
  """
  found = _entry_faults(entries)
  if not _is_chosen(entries):
    check(entries)
  given = {**_shared(_sound(entries)), **(shared or {})}
  built: dict[str, Any] = {}
  for key in parts:
    try:
      if "constructor" not in entries[key]:
        raise ConfigError(f"{key}.constructor: missing")
      built[key] = plans.build(entries[key], key, given)
    except ConfigError as error:
      found += str(error).splitlines()
  if "model" in parts:
    found += _constrain(built.get("model"), entries["geco"])
  if not found:
    found += _precision_faults(entries) if "model" in parts else []
    found += _memory_faults(entries, built)
  if found:
    raise ConfigError("\n".join(found))
  return [built[key] for key in parts]


def check(entries: Mapping[str, Any]) -> None:
  """Checks what can be without TensorFlow: the entries that are no plans.

  Args:
    entries: from `resolve`.

  Raises:
    ConfigError: lists their faults, or says that no configuration was chosen.
  """
  found = _entry_faults(entries)
  if not _is_chosen(entries):
    found.append(_NO_CONFIGURATION)
  if found:
    raise ConfigError("\n".join(found))


def _is_chosen(entries: Mapping[str, Any]) -> bool:
  return any("constructor" in entries[key] for key in ("data", "model"))


def _constrain(model: Any, geco: Any) -> list[str]:
  """Gives a model the constraint of the entry `geco`, or returns its faults."""
  if not isinstance(geco, Mapping) or all(x is None for x in geco.values()):
    return []
  plan = {**geco, "constructor": "iodine.geco.Geco"}
  is_used = geco.get("target") is not None
  if not is_used:
    plan["target"] = 0.0  # so that the others are checked all the same
  try:
    constraint = plans.build(plan, "geco")
    if is_used and model is not None:
      model.use_geco(constraint)
  except (ConfigError, ValueError) as error:
    return str(error).splitlines()
  return []


def precision(entries: Mapping[str, Any]) -> str:
  """The model's own precision, else that of the whole configuration."""
  return entries["model"].get("precision", entries["precision"])


def _precision_faults(entries: Mapping[str, Any]) -> list[str]:
  """Tells of bfloat16 for a model that has no use for it."""
  if entries["precision"] != "bfloat16":
    return []
  if "precision" in plans.filled(entries["model"], {"precision": "bfloat16"}):
    return []
  return [
    "precision='bfloat16': this model does not compute in it; set "
    "precision=float32, or precision=tf32, which is faster on recent GPUs"
  ]


def _memory_faults(
  entries: Mapping[str, Any], built: Mapping[str, Any]
) -> list[str]:
  """Tells of a batch whose masks alone are more than the memory."""
  if entries["strategy"] == "multi_worker" or not {"data", "model"} <= set(
    built
  ):
    return []
  data, slots = built["data"], built["model"].num_components
  height, width = data.image_dim
  images = data.batch_size // entries["accumulate"]
  needed = images * slots * height * width * _FLOAT
  memory = _memory()
  if needed <= memory:
    return []
  return [
    f"batch_size={data.batch_size}: the {slots} masks of {images:,} images of "
    f"{height} x {width} pixels take more than {needed / 2**30:,.1f} GiB, and "
    f"this machine has {memory / 2**30:,.1f} GiB; set a lower batch_size, "
    "num_components or image_dim, or a higher accumulate"
  ]


def _memory() -> int:
  """Bytes of this machine's memory."""
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _entry_faults(entries: Mapping[str, Any]) -> list[str]:
  """What is wrong with the entries, a line each."""
  wrong = faults(entries)
  if entries["learn_rate"] == scaled_learn_rate(entries):
    wrong.pop("learn_rate", None)  # which follows from a fault
  return list(wrong.values()) or _sub_batch_faults(entries)


def _sound(entries: Mapping[str, Any]) -> dict[str, Any]:
  """The entries that are no plans, with stand-ins for wrong values."""
  return {
    key: _STAND_INS.get(key, ENTRIES[key].default)
    if ENTRIES[key].fault(key, value)
    else value
    for key, value in entries.items()
    if key in ENTRIES and key not in PLANS
  }


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


def _sub_batch_faults(entries: Mapping[str, Any]) -> list[str]:
  batch_size = entries["data"].get("batch_size", entries["batch_size"])
  if not checks.is_int(batch_size):
    return []  # which the dataset's plan tells
  try:
    sub_batch_size(batch_size, entries["accumulate"])
  except ConfigError as error:
    return [str(error)]
  return []
