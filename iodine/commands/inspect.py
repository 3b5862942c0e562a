"""What is in a checkpoint."""

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from iodine import errors, tf1_checkpoint
from iodine.config import reading, resolution
from iodine.progress import progress
from iodine.runs import checkpoint_files, loading

__all__ = ["inspect_checkpoint"]


# What is in the names of an optimizer's state in Google's checkpoints.
_KERAS_MOMENT = "/.OPTIMIZER_SLOT/"

# Variables do not depend on these, but the time to create them does.
_SMALLEST = {"num_iters": 1, "num_components": 2}

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Summary:
  """What a checkpoint's variables amount to."""

  parameters: int
  slots: int
  others: int


def inspect_checkpoint(entries: Mapping[str, Any]) -> None:
  """Prints variables of a checkpoint and the configurations that would fit.

  Args:
    entries: the whole configuration, of which `checkpoint_dir` counts.
  """
  prefix = checkpoint_files.find(entries["checkpoint_dir"])
  values = checkpoint_files.read(prefix)
  width = max((len(name) for name in values), default=0)
  for name in sorted(values):
    value = values[name]
    shape = "x".join(map(str, value.shape)) or "scalar"
    dtype = "string" if value.dtype == object else value.dtype
    print(f"{errors.printable(name):<{width}}  {shape:>12}  {dtype}")
  summary = _summary(values)
  owners = {tf1_checkpoint.moment_owner(name) for name in values}
  owner = "RMSprop" if "RMSprop" in owners else "Adam"
  print(
    f"\n{errors.printable(prefix)}: {summary.parameters:,} parameters, "
    f"{summary.slots:,} numbers of {owner}'s, {summary.others} other entries"
  )
  fits, unknown = [], []
  configurations = reading.named_configs()
  with progress(len(configurations), "configurations", _LOG) as update:
    for name, own in configurations.items():
      try:
        if _fits(own, prefix, values):
          fits.append(name)
      except errors.ConfigError:  # Some data files tell the images' channels.
        unknown.append(name)
      update()
  if unknown:
    print(f"Not known without their data: {', '.join(unknown)}")
  print(
    f"Configurations that fit, with any number of slots: "
    f"{', '.join(fits) or 'none'}"
  )


def _summary(values: Mapping[str, np.ndarray]) -> _Summary:
  slots = {
    name
    for name in values
    if tf1_checkpoint.moment_owner(name) or _KERAS_MOMENT in name
  }
  weights = {
    name
    for name, value in values.items()
    if re.search("[./]", name)
    and not re.search("_mean_var/|^(optimizer|geco)/", name)
    and value.dtype.kind == "f"
  } - slots
  return _Summary(
    parameters=sum(values[n].size for n in weights),
    slots=sum(values[n].size for n in slots),
    others=len(values) - len(weights) - len(slots),
  )


def _fits(
  configuration: Mapping[str, Any],
  prefix: str,
  values: Mapping[str, np.ndarray],
) -> bool:
  """Whether a configuration describes the checkpoint's model.

  Raises:
    ConfigError: if that cannot be told, as a data file is missing.
  """
  entries = resolution.resolve(configuration, _SMALLEST)
  dataset, model = resolution.build(entries, ("data", "model"))
  loading.initialize(model, dataset)
  try:
    own = checkpoint_files.for_model(values, prefix, model)
  except tf1_checkpoint.CheckpointError:
    return False
  return tf1_checkpoint.fits(own, model)
