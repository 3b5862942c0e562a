"""IODINE: decompose images into objects without supervision.

Trains with `python -m iodine.main with tetrominoes`.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# TensorFlow reads this as it is imported: errors only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# pylint: disable=wrong-import-position
from docopt import DocoptExit  # noqa: E402
from sacred import SETTINGS, Experiment  # noqa: E402
from sacred.run import Run  # noqa: E402
from sacred.utils import (  # noqa: E402
  apply_backspaces_and_linefeeds,
  recursive_update,
)

from iodine import config as configuration  # noqa: E402
from iodine import runs, training, training_loop  # noqa: E402
from iodine.modules.data import IODINEDataset  # noqa: E402
from iodine.modules.utils import ConfigError, did_you_mean  # noqa: E402

__all__ = ["ex", "main"]

# Capturing file descriptors would hide the terminal from the progress bar.
SETTINGS.CAPTURE_MODE = "sys"

# Commands that only show the configuration, which may then be incomplete.
_SHOWING = ("print_config", "print_dependencies", "print_named_configs")
_SHOWING = (*_SHOWING, "save_config", "help")


class _IodineExperiment(Experiment):
  """Sacred, with configurations read as plain data and checked as a whole."""

  def _create_run(
    self,
    command_name: str | None = None,
    config_updates: dict | None = None,
    named_configs: Sequence[str] = (),
    info: dict | None = None,
    meta_info: dict | None = None,
    options: dict | None = None,
  ) -> Run:
    names = [self._named_config(name) for name in named_configs]
    # `_check_config` reports what Sacred would warn about.
    options = {**(options or {}), "--force": True}
    return super()._create_run(
      command_name, config_updates, names, info, meta_info, options
    )

  def _named_config(self, name: str) -> str:
    """Registers a config file under a name; Sacred's reader may run code."""
    if name in self.named_configs:
      return name
    if not os.path.exists(name):
      raise ConfigError(
        f"with {name}: no such configuration or file. "
        + did_you_mean(name, self.named_configs, "configurations")
      )
    key = f"file {len(self.named_configs)}"
    self.add_named_config(key, configuration.load_file(name))
    return key

  def _check_command(self, cmd_name: str) -> None:
    commands = dict(self.gather_commands())
    if cmd_name is not None and cmd_name not in commands:
      raise ConfigError(
        f"{cmd_name}: no such command. "
        + did_you_mean(cmd_name, commands, "commands")
      )


ex = _IodineExperiment("iodine", save_git_info=False)
ex.captured_out_filter = apply_backspaces_and_linefeeds
for _name, _entries in configuration.named_configs().items():
  ex.add_named_config(_name, _entries)


@ex.config
def defaults():
  # go on from the last checkpoint in checkpoint_dir
  continue_run = False
  # a new run appends "_<run id>"
  checkpoint_dir = "checkpoints/iodine"
  # steps between scalars
  save_summaries_steps = 10
  # steps between pictures
  save_images_steps = 500
  # steps between checkpoints
  save_checkpoint_steps = 1000
  # how many checkpoints stay
  keep_checkpoints = 5
  # the step at which the run ends
  stop_after_steps = 1_000_000
  # size of a slot's latent
  n_z = 64
  # number of slots (K)
  num_components = 7
  # refinement steps
  num_iters = 5
  batch_size = 4
  # learn_rate = base_learn_rate * sqrt(batch_size / base_batch_size)
  base_learn_rate = 0.001
  base_batch_size = 32
  # folder of the datasets ($IODINE_DATA_DIR)
  data_dir = configuration.data_dir()
  # data.path = data_dir/data_file
  data_file = None
  # plan of the dataset, see iodine.modules.data
  data = {}
  # plan of the model, see iodine.modules.iodine
  model = {}
  # plan of the optimizer, see iodine.training
  optimizer = {}


# Every entry that a configuration may have, with a value of its type.
DEFAULTS: dict[str, Any] = {**defaults(), "learn_rate": None, "seed": None}


# Sacred makes entries of the names that a scope assigns, with the comments as
# their help. These follow from other entries unless they are set themselves.
@ex.config
def derived(
  batch_size,
  base_batch_size,
  base_learn_rate,
  n_z,
  num_components,
  num_iters,
  data_dir,
  data_file,
  optimizer,
):
  # ruff: noqa: F841
  learn_rate = configuration.scaled_learn_rate(
    base_learn_rate, batch_size, base_batch_size
  )
  data = {"batch_size": batch_size}
  if data_file is not None:
    data["path"] = os.path.join(str(data_dir), str(data_file))
  model = {
    "n_z": n_z,
    "num_components": num_components,
    "num_iters": num_iters,
    "output_dist": {"num_components": num_components},
  }
  if "constructor" not in optimizer:
    optimizer = {
      "constructor": "iodine.training.make_optimizer",
      "learn_rate": learn_rate,
    }


@ex.config_hook
def _check_config(config, command_name, logger):
  """Reports every fault of the configuration before any work starts."""
  if command_name not in _SHOWING or "constructor" in config["model"]:
    configuration.check(config, DEFAULTS)
  if config["data"].get("batch_size") != config["batch_size"]:
    logger.warning(
      "data.batch_size=%s, but the learning rate follows batch_size=%s",
      config["data"].get("batch_size"),
      config["batch_size"],
    )
  return {}


def _build_data(config: Mapping[str, Any]) -> IODINEDataset:
  """Builds the dataset, in the order that the run's seed gives."""
  plan = {"seed": config["seed"], **config["data"]}
  return configuration.build_part({"data": plan}, "data")


def _first_batch(dataset: IODINEDataset) -> dict[str, Any]:
  """Reads the batch that pictures show; a fault of the files is the user's."""
  try:
    return next(iter(dataset("summary")))
  except (FileNotFoundError, ValueError) as error:
    raise ConfigError(f"data: {error}") from error


@ex.main
def train(_config, _run):
  """Train a model, or go on with it (continue_run=True)."""
  dataset = _build_data(_config)
  sample = _first_batch(dataset)
  folder = runs.open_folder(
    _config["checkpoint_dir"], _config["continue_run"], _run._id
  )
  trainer = training.Trainer(
    configuration.build_part(_config, "model"),
    configuration.build_part(_config, "optimizer"),
    seed=_config["seed"],
  )
  runs.save_config(folder, _config)
  _run.info["checkpoint_dir"] = str(folder)
  settings = training_loop.Settings(
    stop_after_steps=_config["stop_after_steps"],
    save_summaries_steps=_config["save_summaries_steps"],
    save_images_steps=_config["save_images_steps"],
    save_checkpoint_steps=_config["save_checkpoint_steps"],
    keep_checkpoints=_config["keep_checkpoints"],
  )
  training_loop.run(
    trainer, dataset, sample, folder, settings, _run.log_scalar
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command line.

  Exit codes: 0 done; 1 the run failed; 2 a mistake in the command, the
  configuration or a file; 128 + n ended by signal n, everything saved.

  Args:
    argv: the words of the command; None: those of this process.
  """
  argv = list(sys.argv if argv is None else argv)
  logging.basicConfig(format="%(levelname)s - %(message)s", level=logging.INFO)
  logging.getLogger("absl").setLevel(logging.WARNING)  # TensorFlow's
  try:
    # Without --debug Sacred prints every exception and exits by itself.
    ex.run_commandline([*argv, "--debug"])
  except DocoptExit as error:
    usage = str(error).replace("dummy", "python -m iodine.main")
    _fail(f"{usage}\nTry `python -m iodine.main --help`.", 2)
  except ConfigError as error:
    _fail(f"ConfigError: {error}", 2)
  except training_loop.Interrupted as interrupt:
    sys.exit(128 + interrupt.signal_number)
  except KeyboardInterrupt:
    _fail("Interrupted before there was anything to save.", 130)
  except training_loop.RunError as error:
    _fail(f"Error: {error}", 1)


def _fail(message: str, code: int) -> None:
  print(message, file=sys.stderr)
  sys.exit(code)


if __name__ == "__main__":
  main()
