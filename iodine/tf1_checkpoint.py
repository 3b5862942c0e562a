"""Name-based checkpoints of the TF1 reference: reading and writing.

Variables of the port carry the reference's names, because `utils.build` opens
the scope of a plan's key around each module. What differs is renamed here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine.training import Adam

__all__ = ["CheckpointError", "RestoreReport", "restore", "save"]

# Sonnet 2's layer norm has other names for its variables than Sonnet 1's.
_LAYER_NORM_NAMES = {"scale": "gamma", "offset": "beta"}
# TF1's names of Adam's moments of a variable.
_SLOT_NAMES = {"m": "Adam", "v": "Adam_1"}
# A checkpoint without these can be used: they start at their initial values.
_OPTIONAL = re.compile(
  r"(factor_evaluator/.*|.*_mean_var/(M2|mean|total)|global_step"
  r"|beta[12]_power|.*/Adam(_1)?)"
)


class CheckpointError(ValueError):
  """A checkpoint that cannot be read or does not fit; text for the user."""


class RestoreReport(NamedTuple):
  """TF1 names of variables: restored, left at initial values, and unused."""

  found: tuple[str, ...]
  missing: tuple[str, ...]
  unused: tuple[str, ...]


def variable_names(model: tf.Module) -> dict[str, tf.Variable]:
  """Maps the reference's names to a model's variables.

  Args:
    model: an IODINE that `utils.build` has built and that has its variables.

  Returns:
    {name: variable}, optimizer's state not included.

  Raises:
    ValueError: if the model has no variables yet, or two share a name.
  """
  renamed = {}
  for module in model.submodules:
    if isinstance(module, snt.LayerNorm) and hasattr(module, "scale"):
      renamed[module.scale.ref()] = _LAYER_NORM_NAMES["scale"]
      renamed[module.offset.ref()] = _LAYER_NORM_NAMES["offset"]
  names: dict[str, tf.Variable] = {}
  for variable in model.variables:
    name = variable.name.partition(":")[0]
    if variable.ref() in renamed:
      name = f"{name.rpartition('/')[0]}/{renamed[variable.ref()]}"
    if name in names:
      raise ValueError(f"two variables of the model are called {name}")
    names[name] = variable
  if not names:
    raise ValueError(
      "the model has no variables yet: call it once, or `initialize`"
    )
  return names


def _optimizer_names(
  optimizer: Adam, model_names: Mapping[str, tf.Variable]
) -> dict[str, tf.Variable]:
  """Maps the reference's names to the optimizer's state."""
  names = {
    "global_step": optimizer.step,
    "beta1_power": optimizer.beta1_power,
    "beta2_power": optimizer.beta2_power,
  }
  for name, variable in model_names.items():
    for key, moment in optimizer.slots.get(variable.name, {}).items():
      names[f"{name}/{_SLOT_NAMES[key]}"] = moment
  return names


def restore(
  path: str, model: tf.Module, optimizer: Adam | None = None
) -> RestoreReport:
  """Restores from a name-based TF1 checkpoint.

  Adam's moments and powers start afresh unless the checkpoint has all of them;
  its step is kept.

  Args:
    path: prefix of the files, e.g. "checkpoints/clevr6/model.ckpt".
    model: an IODINE that has its variables.
    optimizer: restored too, unless None.

  Returns:
    What was found, missing and unused, in TF1 names.

  Raises:
    CheckpointError: if the files cannot be read, a shape does not fit (all of
      them are listed), or a variable is missing that has to be there. Nothing
      is restored then.
  """
  names = variable_names(model)
  if optimizer is not None:
    optimizer.initialize(model.trainable_variables)
  state = {} if optimizer is None else _optimizer_names(optimizer, names)
  targets = {**names, **state}
  values = _read(path)
  missing = sorted(set(targets) - set(values))
  misfits = [
    f"  {name}: {list(values[name].shape)} in the checkpoint, "
    f"{list(targets[name].shape)} in the model"
    for name in sorted(set(targets) & set(values))
    if tuple(values[name].shape) != tuple(targets[name].shape)
  ]
  lacking = [name for name in missing if not _OPTIONAL.fullmatch(name)]
  if misfits or lacking:
    raise CheckpointError(_fault_text(path, misfits, lacking))
  if optimizer is not None and set(missing) & (set(state) - {"global_step"}):
    # Half of Adam's state is worse than none.
    optimizer.reset()
    missing = sorted(
      {*missing, *state} - {"global_step"} | ({"global_step"} & set(missing))
    )
  found = sorted(set(targets) - set(missing))
  for name in found:
    targets[name].assign(values[name])
  unused = sorted(set(values) - set(targets))
  return RestoreReport(tuple(found), tuple(missing), tuple(unused))


def _fault_text(
  path: str, misfits: Sequence[str], lacking: Sequence[str]
) -> str:
  lines = [f"{path}: does not fit the model that the configuration describes."]
  if misfits:
    lines += ["Shapes differ:", *misfits]
  if lacking:
    lines += ["Not in the checkpoint:", *(f"  {name}" for name in lacking)]
  return "\n".join(lines)


def _read(path: str) -> dict[str, np.ndarray]:
  """Reads all tensors of a checkpoint."""
  try:
    reader = tf.train.load_checkpoint(path)
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names}
  except (ValueError, tf.errors.OpError, RuntimeError) as error:
    reason = str(error).splitlines()[0]
    raise CheckpointError(
      f"{path}: cannot be read as a checkpoint ({reason}). Expected the prefix "
      f"of a pair PREFIX.index and PREFIX.data-00000-of-00001."
    ) from error


def save(path: str, model: tf.Module, optimizer: Adam | None = None) -> None:
  """Writes a name-based TF1 checkpoint, PATH.index and PATH.data-*.

  Args:
    path: prefix of the files.
    model: an IODINE that has its variables.
    optimizer: its state is written too, unless None.
  """
  names = variable_names(model)
  if optimizer is not None:
    names = {**names, **_optimizer_names(optimizer, names)}
  ordered = sorted(names)
  tf.raw_ops.SaveV2(
    prefix=path,
    tensor_names=ordered,
    shape_and_slices=[""] * len(ordered),
    tensors=[names[name].read_value() for name in ordered],
  )
