"""Makes a run of what `run_training.py` has trained.

  python -m scripts.import_training FOLDER checkpoints/tetrominoes_1

The new folder holds a checkpoint of model, optimizer and seed, and can be
evaluated and continued as any run's.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import iodine.quiet_tensorflow

import numpy as np

from iodine.commands.convert import new_place, write_run
from iodine.commands.train import make_trainer
from iodine.config import resolution
from iodine.errors import ConfigError, RunError
from iodine.runs import folder as run_folder
from iodine.training import replicas
from scripts.run_training import TRAINED_FILE


def main(argv: Sequence[str] | None = None) -> None:
  """Writes the run's folder."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("folder", type=pathlib.Path, help="what was exported")
  parser.add_argument("checkpoint_dir", type=pathlib.Path, help="new")
  arguments = parser.parse_args(argv)
  try:
    name = import_run(arguments.folder, arguments.checkpoint_dir)
  except (ConfigError, RunError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
  config = arguments.checkpoint_dir / run_folder.CONFIG_FILE
  print(
    f"Wrote {arguments.checkpoint_dir / name}. Next:\n"
    f"  python -m iodine.main evaluate with {config}"
  )


def import_run(folder: pathlib.Path, checkpoint_dir: pathlib.Path) -> str:
  """Writes a run.

  Args:
    folder: what was exported, and trained.
    checkpoint_dir: is new or empty.

  Returns:
    The checkpoint's name.

  Raises:
    ConfigError: if a folder is not as it must be, or if this version builds
      other variables than that which exported.
  """
  trained = folder / TRAINED_FILE
  if not trained.is_file():
    raise ConfigError(f"{folder}: there is no {TRAINED_FILE}; train first")
  place = new_place(checkpoint_dir)
  saved = run_folder.read_file(folder / run_folder.CONFIG_FILE, in_place=False)
  entries = resolution.resolve(saved)
  dataset, model, optimizer = resolution.build(entries)
  trainer = make_trainer(
    dataset,
    model,
    optimizer,
    entries["seed"],
    replicas.create(None, entries["accumulate"]),
  )
  values = dict(np.load(trained))
  for variable in trainer.variables:
    value = values.get(variable.name)
    if value is None or value.shape != variable.shape:
      raise ConfigError(
        f"{trained}: does not fit {variable.name}, as if another version had "
        "exported it. Import with the version that exported"
      )
    variable.assign(value)
  parts = trainer.distribution.num_sub_batches
  if parts > 1:
    entries[resolution.SUB_BATCH_SIZE] = dataset.batch_size // parts
  return write_run(entries, trainer, dataset, place)


if __name__ == "__main__":
  main()
