"""Checkpoints from and to the reference's format."""

import glob
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine import tf1_checkpoint
from iodine.commands.train import make_trainer
from iodine.config import resolution
from iodine.data.pipeline import Position
from iodine.errors import ConfigError
from iodine.files import make_folder
from iodine.runs import checkpoint_files, loading
from iodine.runs import checkpoints as run_checkpoints
from iodine.runs import folder as run_folder

__all__ = ["convert_checkpoint", "export_tf1"]

_LOG = logging.getLogger(__name__)


def convert_checkpoint(entries: Mapping[str, Any]) -> str:
  """Writes a checkpoint of the reference as one of training.

  Args:
    entries: the whole configuration: from `tf1_checkpoint` to
      `checkpoint_dir`, a folder that is new or empty.

  Returns:
    Prefix of the new files.
  """
  source = _required(entries, "tf1_checkpoint")
  folder = pathlib.Path(entries["checkpoint_dir"]).expanduser()
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ConfigError(
      f"checkpoint_dir={str(folder)!r}: exists already. Name a new folder."
    )
  dataset, model, optimizer = resolution.build(entries)
  trainer = make_trainer(dataset, model, optimizer, entries["seed"])
  checkpoint_files.restore(source, trainer.model, trainer.optimizer)
  make_folder(folder, "checkpoint_dir")
  run = run_checkpoints.RunCheckpoints(folder, trainer, keep=1)
  prefix = run.save(dataset, Position(0, 0))
  # What the original was trained with, for `evaluate`.
  size = loading.inner_batch_size(entries, checkpoint_files.find(source))
  own = {**entries["model"], "inner_batch_size": size}
  run_folder.save_config(folder, {**entries, "model": own})
  _LOG.info("Wrote %s", prefix)
  return prefix


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
  if path.is_dir() or list(path.parent.glob(f"{glob.escape(path.name)}.*")):
    raise ConfigError(
      f"tf1_checkpoint={prefix!r}: exists already. Name a new prefix, such as "
      f"exported/model.ckpt."
    )
  dataset, model, optimizer = resolution.build(entries)
  trainer = make_trainer(dataset, model, optimizer, entries["seed"])
  checkpoint_files.restore(
    entries["checkpoint_dir"], trainer.model, trainer.optimizer
  )
  make_folder(path.parent, "tf1_checkpoint")
  tf1_checkpoint.save(prefix, trainer.model, trainer.optimizer)
  _LOG.info("Wrote %s", prefix)
  return prefix


def _required(entries: Mapping[str, Any], key: str) -> str:
  if not entries[key]:
    raise ConfigError(f"{key}: missing; name the prefix of the files")
  return entries[key]
