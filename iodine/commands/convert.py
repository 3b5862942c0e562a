"""Checkpoints from published formats, and to the reference's.

Both commands may be killed at any time: what they write is there when all of it
is, and a repetition removes what was left of a killed one.
"""

import glob
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine import devices, tf1_checkpoint
from iodine.commands.train import make_trainer
from iodine.config import plans, resolution
from iodine.data.pipeline import IODINEDataset, Position
from iodine.errors import ConfigError
from iodine.files import (
  make_folder,
  put,
  remove_remains,
  results_in,
  scratch_folder,
)
from iodine.runs import checkpoint_files, loading
from iodine.runs import checkpoints as run_checkpoints
from iodine.runs import folder as run_folder
from iodine.training import Trainer

__all__ = ["convert_checkpoint", "export_tf1", "new_place", "write_run"]

_LOG = logging.getLogger(__name__)


def convert_checkpoint(entries: Mapping[str, Any]) -> str:
  """Writes a checkpoint of published code as one of training.

  Args:
    entries: the whole configuration: from `from_checkpoint` (or, by its old
      name, `tf1_checkpoint`) to `checkpoint_dir`, a folder that is new or
      empty.

  Returns:
    Prefix of the new files.
  """
  source = _source(entries)
  folder = pathlib.Path(entries["checkpoint_dir"]).expanduser()
  place = new_place(folder)
  dataset, trainer = _build(entries)
  checkpoint_files.restore(source, trainer.model, trainer.optimizer)
  # What the original was trained with, for `evaluate`.
  size = loading.inner_batch_size(entries, checkpoint_files.find(source))
  own = plans.filled(entries["model"], {"inner_batch_size": size})
  name = write_run({**entries, "model": own}, trainer, dataset, place)
  prefix = str(folder / name)
  _LOG.info("Wrote %s", prefix)
  return prefix


def new_place(folder: pathlib.Path) -> pathlib.Path:
  """Where the folder of a run is to be written.

  Removes what killed processes left there.

  Args:
    folder: as it was given.

  Returns:
    Its real path.

  Raises:
    ConfigError: if there is more than an empty folder.
  """
  place = pathlib.Path(os.path.realpath(folder))
  for written in (place, place.parent):
    remove_remains(written)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ConfigError(
      f"checkpoint_dir={str(folder)!r}: exists already. Name a new folder."
    )
  return place


def write_run(
  entries: Mapping[str, Any],
  trainer: Trainer,
  dataset: IODINEDataset,
  folder: pathlib.Path,
) -> str:
  """Writes the folder of a run with one checkpoint, whole or not at all.

  Args:
    entries: the whole configuration.
    trainer: what the checkpoint holds.
    dataset: what it was trained on, from whose start the run would go on.
    folder: is new or empty.

  Returns:
    The checkpoint's name.

  Raises:
    ConfigError: if the folder cannot be written.
  """
  parent = folder if folder.is_dir() else folder.parent
  with results_in(parent, "checkpoint_dir"):
    make_folder(parent, "checkpoint_dir")
    with scratch_folder(parent) as new:
      run = run_checkpoints.RunCheckpoints(new, trainer, keep=1)
      name = pathlib.Path(run.save(dataset, Position(0, 0))).name
      run_folder.save_config(new, entries)
      run.record_files()
      put(new, folder, _in_order(new))
  return name


def export_tf1(entries: Mapping[str, Any]) -> str:
  """Writes a checkpoint under the reference's names.

  Args:
    entries: the whole configuration: from `checkpoint_dir` to the prefix
      `tf1_checkpoint`, of which there is no file yet.

  Returns:
    Prefix of the new files.
  """
  prefix = str(pathlib.Path(_required(entries, "tf1_checkpoint")).expanduser())
  path = pathlib.Path(prefix)
  remove_remains(path.parent)
  if path.is_dir() or list(path.parent.glob(f"{glob.escape(path.name)}.*")):
    raise ConfigError(
      f"tf1_checkpoint={prefix!r}: exists already. Name a new prefix, such as "
      f"exported/model.ckpt."
    )
  _, trainer = _build(entries)
  checkpoint_files.restore(
    entries["checkpoint_dir"], trainer.model, trainer.optimizer
  )
  with results_in(path.parent, "tf1_checkpoint"):
    make_folder(path.parent, "tf1_checkpoint")
    with scratch_folder(path.parent) as new:
      try:
        tf1_checkpoint.save(
          str(new / path.name), trainer.model, trainer.optimizer
        )
      except tf1_checkpoint.CheckpointError as error:
        reason = str(error).replace(str(new), str(path.parent))
        raise ConfigError(reason) from error
      put(new, path.parent, _in_order(new))
  _LOG.info("Wrote %s", prefix)
  return prefix


# Files of a converted run in the order in which they come: as long as one is
# missing, the folder is taken for remains, and no run starts anew there.
_LAST = ("manifest.json", run_folder.CONFIG_FILE, ".index", "checkpoint")


def _in_order(new: pathlib.Path) -> list[str]:
  """The files of a checkpoint: data first, then as in `_LAST`."""

  def rank(name: str) -> int:
    suffix = pathlib.PurePath(name).suffix
    return max(_LAST.index(x) if x in _LAST else -1 for x in (name, suffix))

  return sorted((path.name for path in new.iterdir()), key=rank)


def _source(entries: Mapping[str, Any]) -> str:
  """What is to be converted."""
  given = [
    key for key in ("from_checkpoint", "tf1_checkpoint") if entries.get(key)
  ]
  if len(given) > 1 and entries[given[0]] != entries[given[1]]:
    raise ConfigError(
      f"from_checkpoint={entries[given[0]]!r} and "
      f"tf1_checkpoint={entries[given[1]]!r} both name what to convert; leave "
      "one out"
    )
  if not given:
    raise ConfigError(
      "from_checkpoint: missing; name a folder, the prefix of a checkpoint's "
      "files, or a file of PyTorch"
    )
  return entries[given[0]]


def _build(entries: Mapping[str, Any]) -> tuple[IODINEDataset, Trainer]:
  """Builds what a configuration describes, with all variables."""
  dataset, model, optimizer = resolution.build(entries)
  devices.set_up(resolution.precision(entries))
  return dataset, make_trainer(dataset, model, optimizer, entries["seed"])


def _required(entries: Mapping[str, Any], key: str) -> str:
  if not entries[key]:
    raise ConfigError(f"{key}: missing; name the prefix of the files")
  return entries[key]
