"""Name-based checkpoints of the TF1 reference: reading and writing.

Variables of the port carry the reference's names, because `utils.build` opens
the scope of a plan's key around each module. What differs is renamed here.
"""

import iodine.quiet_tensorflow

import contextlib
import glob
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checkpoint_index
from iodine.errors import ConfigError
from iodine.training import Optimizer

__all__ = [
  "CheckpointError",
  "RestoreReport",
  "fits",
  "is_optimizer_state",
  "moment_owner",
  "read",
  "reference_name",
  "restore",
  "restore_values",
  "save",
]

# Sonnet 2's layer norm has other names for its variables than Sonnet 1's.
_LAYER_NORM = re.compile(r"(.*/layer_norm_\w+)/(scale|offset)(/Adam(?:_1)?)?")
_LAYER_NORM_NAMES = {"scale": "gamma", "offset": "beta"}
# Ends of the names of what an optimizer keeps of a variable, and whose it is.
_OWNERS = {"Adam": "Adam", "Adam_1": "Adam", "RMSProp": "RMSprop"}
_MOMENTS = re.compile(rf"beta[12]_power|.*/({'|'.join(_OWNERS)})")
_OPTIMIZER = re.compile(rf"global_step|{_MOMENTS.pattern}")
# A checkpoint without these can be used: they start at their initial values.
_OPTIONAL = re.compile(rf"factor_evaluator/.*|{_OPTIMIZER.pattern}")


class CheckpointError(ConfigError):
  """A checkpoint cannot be read or does not fit; the text is for the user."""


class RestoreReport(NamedTuple):
  """TF1 names of variables: restored, not in the file, and left over there.

  Missing optimizer state starts afresh; other missing variables keep the
  values that they have.
  """

  found: tuple[str, ...]
  missing: tuple[str, ...]
  unused: tuple[str, ...]


def reference_name(name: str) -> str:
  """What the reference calls a variable of the port, by its name."""
  name = name.partition(":")[0]
  if match := _LAYER_NORM.fullmatch(name):
    scope, last, slot = match.groups()
    return f"{scope}/{_LAYER_NORM_NAMES[last]}{slot or ''}"
  return name


def moment_owner(name: str) -> str | None:
  """The optimizer that keeps this of a variable; None: it is no such name."""
  return _OWNERS.get(name.rpartition("/")[2]) if "/" in name else None


def is_optimizer_state(name: str) -> bool:
  """Whether this is the reference's name for some of its optimizer's state."""
  return _OPTIMIZER.fullmatch(name) is not None


def _named_variables(
  model: tf.Module, optimizer: Optimizer | None
) -> dict[str, tf.Variable]:
  """Maps the reference's names to variables of model and optimizer.

  Raises:
    ValueError: if the model has no variables yet, or two share a name.
  """
  try:
    variables = list(model.variables)
  except ValueError as error:  # Sonnet's, with the module's whole configuration
    raise ValueError(
      "the model has no variables yet: call it once, or `initialize`"
    ) from error
  if optimizer is not None:
    optimizer.initialize(model.trainable_variables)
    variables += optimizer.variables
  names: dict[str, tf.Variable] = {}
  for variable in variables:
    name = reference_name(variable.name)
    if name in names:
      raise ValueError(f"two variables of the model are called {name}")
    names[name] = variable
  return names


def restore(
  path: str, model: tf.Module, optimizer: Optimizer | None = None
) -> RestoreReport:
  """Restores from a name-based TF1 checkpoint.

  An optimizer's moments and powers start afresh unless the checkpoint has all
  of them; its step is kept.

  Args:
    path: prefix of the files, e.g. "checkpoints/clevr6/model.ckpt".
    model: the model to restore; it has its variables.
    optimizer: restored too, unless None.

  Returns:
    What was found, missing and unused, in TF1 names.

  Raises:
    CheckpointError: if the files cannot be read, a shape does not fit (all of
      them are listed), or a variable is missing that has to be there. Nothing
      is restored then.
  """
  return restore_values(read(path), path, model, optimizer)


def restore_values(
  values: Mapping[str, np.ndarray],
  path: str,
  model: tf.Module,
  optimizer: Optimizer | None = None,
) -> RestoreReport:
  """Does what `restore` does with what was read from `path`."""
  targets = _named_variables(model, optimizer)
  misfits, lacking = _faults(values, targets)
  if misfits or lacking:
    raise CheckpointError(_fault_text(path, misfits, lacking))
  missing = set(targets) - set(values)
  moments = {name for name in targets if _MOMENTS.fullmatch(name)}
  if optimizer is not None and missing & moments:
    # Half of an optimizer's state is worse than none.
    optimizer.reset()
    missing |= moments
  found = sorted(set(targets) - missing)
  for name in found:
    targets[name].assign(values[name])
  unused = sorted(set(values) - set(targets))
  return RestoreReport(tuple(found), tuple(sorted(missing)), tuple(unused))


def fits(values: Mapping[str, np.ndarray], model: tf.Module) -> bool:
  """Whether `restore_values` would accept these for the model."""
  return not any(_faults(values, _named_variables(model, None)))


def _faults(
  values: Mapping[str, np.ndarray], targets: Mapping[str, tf.Variable]
) -> tuple[list[str], list[str]]:
  """Lines about values that do not fit, and names that are not there."""
  misfits = [
    line
    for name in sorted(set(targets) & set(values))
    if (line := _misfit(name, values[name], targets[name]))
  ]
  missing = sorted(set(targets) - set(values))
  return misfits, [n for n in missing if not _OPTIONAL.fullmatch(n)]


def _misfit(name: str, value: np.ndarray, variable: tf.Variable) -> str | None:
  """Says how a value does not fit its variable; None if it does."""
  there, here = f"{list(value.shape)}", f"{list(variable.shape)}"
  dtype = np.dtype(variable.dtype.as_numpy_dtype)
  if value.dtype.kind != dtype.kind:
    there, here = f"{value.dtype} {there}", f"{dtype} {here}"
  if there == here:
    return None
  return f"{name}: {there} in the checkpoint, {here} in the model"


def _fault_text(
  path: str, misfits: Sequence[str], lacking: Sequence[str]
) -> str:
  lines = [f"{path}: does not fit the model that the configuration describes."]
  if misfits:
    lines += ["Shapes or types differ:", *(f"  {line}" for line in misfits)]
  if lacking:
    lines += ["Not in the checkpoint:", *(f"  {name}" for name in lacking)]
  lines.append(
    f"`python -m iodine.main inspect_checkpoint with checkpoint_dir={path}` "
    f"lists what it holds and the configurations that fit."
  )
  return "\n".join(lines)


def read(path: str) -> dict[str, np.ndarray]:
  """Reads all tensors of a checkpoint: {key: value}.

  Raises:
    CheckpointError: if the files cannot be read.
  """
  try:
    checkpoint_index.check(path)
    with _without_wildcards(os.fspath(path)) as prefix:
      reader = tf.train.load_checkpoint(prefix)
      names = reader.get_variable_to_shape_map()
      return {name: _array(reader.get_tensor(name)) for name in names}
  except (
    OSError,
    ValueError,
    IndexError,
    RuntimeError,
    tf.errors.OpError,
  ) as error:
    reason = str(error).splitlines()[0]
    raise CheckpointError(
      f"{path}: cannot be read as a checkpoint ({reason}). Expected the prefix "
      f"of a pair PREFIX.index and PREFIX.data-00000-of-00001."
    ) from error


@contextlib.contextmanager
def _without_wildcards(path: str) -> Iterator[str]:
  """Names a checkpoint by a path in which TensorFlow sees no pattern.

  It looks for the index with wildcards, and would not find `runs/[a]_1`.
  """
  if glob.escape(path) == path and "\\" not in path:
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    for kind in ("index", "data-*"):
      for file in glob.glob(f"{glob.escape(path)}.{kind}"):
        link = pathlib.Path(folder, f"model.ckpt{file[len(path) :]}")
        link.symlink_to(pathlib.Path(file).absolute())
    yield f"{folder}/model.ckpt"


def _array(value: np.ndarray | np.generic | bytes) -> np.ndarray:
  # NumPy's own type for bytes would drop zeros at their end.
  return np.asarray(value, object if isinstance(value, bytes) else None)


def save(
  path: str, model: tf.Module, optimizer: Optimizer | None = None
) -> None:
  """Writes a name-based TF1 checkpoint, PATH.index and PATH.data-*.

  Args:
    path: prefix of the files.
    model: the model to save; it has its variables.
    optimizer: its state is written too, unless None.

  Raises:
    CheckpointError: if that fails.
  """
  names = _named_variables(model, optimizer)
  ordered = sorted(names)
  try:
    tf.raw_ops.SaveV2(
      prefix=path,
      tensor_names=ordered,
      shape_and_slices=[""] * len(ordered),
      tensors=[names[name].read_value() for name in ordered],
    )
  except tf.errors.OpError as error:
    reason = error.message.strip().splitlines()[0]
    raise CheckpointError(f"{path}: cannot be written ({reason})") from error
