"""Finding and reading checkpoints of any format.

The reference's checkpoints are name-based (TF1), those of training object-based
(TF2). Both are read as {name: value} under the reference's names. Other models'
published ones, object-based or files of PyTorch, have names of their own.
"""

import iodine.quiet_tensorflow

import contextlib
import logging
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore
from tensorflow.core.protobuf import trackable_object_graph_pb2

from iodine import tf1_checkpoint, torch_checkpoint
from iodine.runs import manifest
from iodine.scene_model import SceneModel
from iodine.tf1_checkpoint import CheckpointError, RestoreReport
from iodine.training import Optimizer

__all__ = [
  "candidates",
  "check_constraint",
  "check_whole",
  "find",
  "for_model",
  "is_shipped",
  "log_report",
  "read",
  "restore",
  "short_name",
  "weights_in",
]

# The file of a folder that names its last checkpoint, and all that are kept.
STATE_FILE = "checkpoint"
TRAINER_SEED = "trainer_seed"
# What training saves beside model and optimizer; early versions, a counter.
RUN_STATE = (TRAINER_SEED, "seed", "epoch", "offset", "save_counter")

# Models that come with the package: a folder per configuration, of its name.
_PRETRAINED = pathlib.Path(__file__).resolve().parents[1] / "pretrained"

_LOG = logging.getLogger(__name__)

# What the names of the state of `Geco` begin with.
_GECO = "geco/"
# What each optimizer keeps of a variable.
_MOMENTS_OF = {"Adam": "Adam's moments", "RMSprop": "RMSprop's mean squares"}
# The entry in which an object-based checkpoint describes itself.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# What Google's training loops call the model in such checkpoints; its variables
# have no names that last, but keys.
_NETWORK = "network/"
_END_OF_KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
_FILE_OF_PAIR = re.compile(r"(.*)\.(index|meta|data-\d{5}-of-\d{5})")
_SHARD = re.compile(r"(.*)\.data-(\d{5})-of-(\d{5})")
_MOST = 10  # checkpoints or files that an error lists
_STEP = re.compile(r"(.*)-(\d+)")
_WEIGHTS = re.compile(
  r".*\.(index|data-\d{5}-of-\d{5})|.*_temp|.*\.tempstate.*"
  r"|\.iodine-[0-9a-f]{8}"  # of a scratch folder
)


def find(path: str) -> str:
  """Finds the checkpoint that is meant.

  Args:
    path: a folder, the prefix of a checkpoint's files, one of the files, or a
      file of PyTorch. In a folder: the first of `candidates` with all of its
      files, or what its file `checkpoint` names in another folder. If there is
      no folder
      "checkpoints/demo", it stands for the last of its runs, "demo_1",
      "demo_2", ..., that has a checkpoint, or else for the model that comes
      with the package.

  Returns:
    The prefix of its files; `.index` and all `.data-*` files exist. Or the file
    of PyTorch.

  Raises:
    CheckpointError: if there is none, several with nothing to choose by, or a
      file of it is missing; it lists what is there.
  """
  given = pathlib.Path(path).expanduser()
  if given.is_dir():
    prefix = _find_in_folder(given)
  elif pathlib.Path(f"{given}.index").is_file():
    prefix = str(given)
  elif match := _FILE_OF_PAIR.fullmatch(str(given)):
    prefix = match[1]
  elif torch_checkpoint.is_file(str(given)):
    prefix = str(given)
  elif newest := _newest_run(given):
    prefix = _find_in_folder(newest)
    _LOG.info(
      "There is no %s: using its newest run, %s. `checkpoint_dir=` names "
      "another",
      path,
      newest,
    )
  elif (shipped := _shipped(given)).is_dir():
    prefix = _find_in_folder(shipped)
    _LOG.info("There is no %s: using the model shipped with IODINE", path)
  else:
    raise CheckpointError(f"{path}: there is no checkpoint. {_listing(given)}")
  check_whole(prefix)
  return prefix


def is_shipped(prefix: str) -> bool:
  """Whether a checkpoint is one that comes with the package."""
  return _PRETRAINED in pathlib.Path(prefix).resolve().parents


def _shipped(path: pathlib.Path) -> pathlib.Path:
  """The folder in the package that stands in for a configuration's folder."""
  folder, name = path.parent, path.name
  return _PRETRAINED / (name if str(folder) == "checkpoints" else "none")


def _newest_run(path: pathlib.Path) -> pathlib.Path | None:
  """Of the runs PATH_1, PATH_2, ... that have a checkpoint, the last."""
  if not path.parent.is_dir():
    return None
  start = f"{path.name}_"
  runs = [
    folder
    for folder in path.parent.iterdir()
    if folder.name.startswith(start)
    and re.fullmatch("[0-9]+", folder.name[len(start) :])
    and _prefixes(folder, "*.index")
  ]
  return max(runs, key=lambda run: int(run.name[len(start) :]), default=None)


def _find_in_folder(folder: pathlib.Path) -> str:
  """The prefix of the last checkpoint in a folder; see `find`."""
  found = candidates(folder, manifest.load(folder))
  named = _read_state_file(folder)
  if named and not _is_there(named) and not _is_there(folder / named.name):
    _LOG.warning(
      "The file `checkpoint` in %s names %s, which is not there", folder, named
    )
  for prefix in found:
    with contextlib.suppress(CheckpointError):
      check_whole(prefix)
      if prefix != found[0]:
        _LOG.warning("%s is not whole: using %s", found[0], prefix)
      return prefix
  if found:
    return found[0]  # whose fault `find` tells
  if named and _is_there(named):
    return str(named)
  prefixes = [*_prefixes(folder, "*.index"), *_torch_files(folder)]
  many = f"{len(prefixes)} checkpoints" if prefixes else "no checkpoint"
  raise CheckpointError(f"{folder}: there is {many}. {_listing(folder)}")


def candidates(
  folder: pathlib.Path, own: manifest.Manifest | None
) -> list[str]:
  """Checkpoints in a folder, in the order in which they are tried.

  Args:
    folder: of a run, or of checkpoints of any other origin.
    own: the folder's manifest, if it has one.

  Returns:
    Prefixes, whose files may be missing: those of the manifest, the last one
    first; then what the file `checkpoint` names as the last one, else the only
    one there is, or of PREFIX-1, PREFIX-2, ... that of the highest step; then
    others of this PREFIX. Without any, a file of PyTorch, if it is the only
    one. Empty if there is nothing to choose by.
  """
  saved = own.checkpoints if own else []
  prefixes = [str(folder / checkpoint.name) for checkpoint in reversed(saved)]
  there = _prefixes(folder, "*.index")
  named = _read_state_file(folder)
  if named and _is_there(folder / named.name):
    prefixes.append(str(folder / named.name))
  if not prefixes and _is_series(there):
    prefixes.append(max(there, key=_step))
  series = _series(prefixes[0]) if prefixes else None
  if series is not None:
    others = [prefix for prefix in there if _series(prefix) == series]
    prefixes += sorted(others, key=_step, reverse=True)
  of_torch = _torch_files(folder)
  if not prefixes and not there and len(of_torch) == 1:
    prefixes = of_torch
  return list(dict.fromkeys(prefixes))


def weights_in(folder: pathlib.Path) -> list[str]:
  """Sorted names of what may be files of checkpoints, or remains of such."""
  return sorted(
    path.name for path in folder.iterdir() if _WEIGHTS.fullmatch(path.name)
  )


def _prefixes(folder: pathlib.Path, index_files: str) -> list[str]:
  """Sorted prefixes of the checkpoints whose index files match a pattern."""
  return sorted(str(p.with_suffix("")) for p in folder.glob(index_files))


def _torch_files(folder: pathlib.Path) -> list[str]:
  """Sorted paths of the files of PyTorch in a folder."""
  return sorted(
    str(path)
    for path in folder.iterdir()
    if torch_checkpoint.is_file(str(path))
  )


def _is_there(prefix: pathlib.Path) -> bool:
  """Whether there is any file of a checkpoint."""
  return pathlib.Path(f"{prefix}.index").is_file() or bool(_shards(prefix))


def _is_series(prefixes: Sequence[str]) -> bool:
  """Whether there is one prefix, or only PREFIX-1, PREFIX-2, ..."""
  names = {_series(prefix) for prefix in prefixes}
  return len(prefixes) == 1 or (len(names) == 1 and None not in names)


def _series(prefix: str) -> str | None:
  """PREFIX of PREFIX-1; None for a name without a step."""
  match = _STEP.fullmatch(prefix)
  return match[1] if match else None


def _step(prefix: str) -> int:
  """The step in the name of a checkpoint; -1 if it has none."""
  match = _STEP.fullmatch(prefix)
  return int(match[2]) if match else -1


def _read_state_file(folder: pathlib.Path) -> pathlib.Path | None:
  """What the file `checkpoint` of a folder names as the last one, if any."""
  try:
    state = tf.train.get_checkpoint_state(str(folder))
  except ValueError:  # Cut off, or no text.
    return None
  if state is None or not state.model_checkpoint_path:
    return None
  return pathlib.Path(state.model_checkpoint_path)


def _shards(prefix: str | pathlib.Path) -> list[re.Match[str]]:
  """Matches of `_SHARD` for the data files that a checkpoint has."""
  path = pathlib.Path(prefix)
  files = sorted(path.parent.glob("*.data-*")) if path.parent.is_dir() else []
  matches = [_SHARD.fullmatch(file.name) for file in files]
  return [m for m in matches if m and m[1] == path.name]


def _listing(path: pathlib.Path) -> str:
  """Says which checkpoints are in or near a path, or how to have one."""
  remedy = "Train the model first, or name the folder of a trained one."
  folder = path if path.is_dir() else path.parent
  if not folder.is_dir():
    return f"The folder {folder} does not exist. {remedy}"
  inner = sorted({str(p.parent) for p in folder.glob("*/*.index")})
  here = [*_prefixes(folder, "*.index"), *_torch_files(folder)]
  if names := [*here, *inner]:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"Name one of: {', '.join(names[:_MOST])}{more}"
  names = sorted(p.name for p in folder.iterdir())
  return f"{folder} holds: {', '.join(names[:_MOST]) or 'nothing'}. {remedy}"


def short_name(prefix: str) -> str:
  """A checkpoint's folder and name alone, for what others will read."""
  return "/".join(pathlib.Path(prefix).parts[-2:])


def check_whole(prefix: str) -> None:
  """Raises CheckpointError if a file of the checkpoint is missing."""
  if torch_checkpoint.is_file(prefix):
    return
  shards = _shards(prefix)
  total = int(shards[0][3]) if shards else 1
  there = {int(m[2]) for m in shards}
  missing = [
    f"{prefix}.data-{i:05d}-of-{total:05d}"
    for i in range(total)
    if i not in there
  ]
  if not pathlib.Path(f"{prefix}.index").is_file():
    missing.append(f"{prefix}.index")
  if missing:
    raise CheckpointError(
      f"{prefix}: a file of the checkpoint is missing: {', '.join(missing)}. "
      f"Copy or download all of its files. {_listing(pathlib.Path(prefix))}"
    )


def read(prefix: str) -> dict[str, np.ndarray]:
  """Reads a checkpoint of any format under the names of its variables.

  Args:
    prefix: prefix of the files, or a file of PyTorch; see `find`.

  Returns:
    {name: value}; of an object-based checkpoint, the variables of model,
    optimizer and run. Names are the reference's or, if published code of
    another model wrote it, that code's.

  Raises:
    CheckpointError: if it cannot be read.
  """
  if torch_checkpoint.is_file(prefix):
    return torch_checkpoint.read(prefix)
  values = tf1_checkpoint.read(prefix)
  if _OBJECT_GRAPH not in values:
    return values
  if any(key.startswith(_NETWORK) for key in values):
    return {
      key.removesuffix(_END_OF_KEY): value
      for key, value in values.items()
      if key.endswith(_END_OF_KEY)
    }
  graph = trackable_object_graph_pb2.TrackableObjectGraph()
  try:
    graph.ParseFromString(values[_OBJECT_GRAPH].item())
  except DecodeError as error:
    raise CheckpointError(
      f"{prefix}: cannot be read: its object graph is damaged ({error})"
    ) from error
  named = {}
  for node in graph.nodes:
    for attribute in node.attributes:
      if attribute.full_name and attribute.checkpoint_key in values:
        name = tf1_checkpoint.reference_name(attribute.full_name)
        named[name] = values[attribute.checkpoint_key]
  return named


def for_model(
  values: Mapping[str, np.ndarray], prefix: str, model: SceneModel
) -> dict[str, np.ndarray]:
  """Gives the variables of a checkpoint the names that a model has for them.

  Args:
    values: result of `read`.
    prefix: what they were read from.
    model: the model to restore; it has its variables.

  Returns:
    Published values as `SceneModel.published_weights` translates them; others
    as they are.

  Raises:
    CheckpointError: if they are of published code, but of another model, or of
      another size or version.
  """
  try:
    translated = model.published_weights(values)
  except ValueError as error:
    raise CheckpointError(f"{prefix}: {error}") from error
  if translated is not None:
    return translated
  if torch_checkpoint.is_file(prefix) or any(
    name.startswith(_NETWORK) for name in values
  ):
    raise CheckpointError(
      f"{prefix}: is no checkpoint of {type(model).__name__} that can be "
      f"translated; it begins with {', '.join(sorted(values)[:3])}. Choose the "
      "configuration of its model: `python -m iodine.main inspect_checkpoint "
      f"with checkpoint_dir={prefix}` lists those that fit."
    )
  return dict(values)


def check_constraint(
  values: Mapping[str, np.ndarray], prefix: str, model: SceneModel
) -> None:
  """Checks that a constraint on the likelihood has its state, and the reverse.

  Args:
    values: result of `for_model`.
    prefix: what they were read from.
    model: the model to restore.

  Raises:
    CheckpointError: if only one of the two has GECO.
  """
  if any(name.startswith(_GECO) for name in values):
    if model.geco is None:
      raise CheckpointError(
        f"{prefix}: was trained with GECO, whose state weighs the model's "
        "losses; set geco.target as in the config.json beside it"
      )
  elif model.geco is not None:
    raise CheckpointError(
      f"{prefix}: was not trained with GECO; leave out "
      f"geco.target={model.geco.target}"
    )


def restore(
  path: str,
  model: SceneModel,
  optimizer: Optimizer | None = None,
  is_logged: bool = True,
) -> RestoreReport:
  """Restores a model, and an optimizer, from a checkpoint of any format.

  Args:
    path: see `find`.
    model: the model to restore; it has its variables.
    optimizer: restored too, unless None.
    is_logged: whether the log tells what was restored.

  Returns:
    What was found, missing and unused, under the reference's names. Without
    an optimizer, its state in the checkpoint does not count as unused.

  Raises:
    CheckpointError: as `find`, and if the checkpoint cannot be read or does
      not fit. Nothing is restored then.
  """
  prefix = find(path)
  values = for_model(read(prefix), prefix, model)
  check_constraint(values, prefix, model)
  values = {k: v for k, v in values.items() if k not in RUN_STATE}
  report = tf1_checkpoint.restore_values(values, prefix, model, optimizer)
  if optimizer is None:
    unused = (
      name
      for name in report.unused
      if not tf1_checkpoint.is_optimizer_state(name)
    )
    report = report._replace(unused=tuple(unused))
  if is_logged:
    log_report(prefix, report)
  return report


def log_report(prefix: str, report: RestoreReport) -> None:
  """Logs how much was restored, and a table of what is missing or unused."""
  rows = [f"Restored {prefix}: {len(report.found)} variables"]
  kinds = (("missing, as it was", report.missing), ("unused", report.unused))
  for kind, names in kinds:
    # A name per row is what people look for, but not all of an optimizer's.
    owners = {name: tf1_checkpoint.moment_owner(name) for name in names}
    rows += [f"  {kind:<18} {n}" for n, owner in owners.items() if not owner]
    for owner, moments in _MOMENTS_OF.items():
      kept = {n.rpartition("/")[0] for n in names if owners[n] == owner}
      if kept:
        rows.append(f"  {kind:<18} {moments} of {len(kept)} variables")
  _LOG.info("\n".join(rows))
