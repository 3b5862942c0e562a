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

from docopt import DocoptExit

from iodine import commands, console, signals
from iodine.commands.train import prepare as prepare_training
from iodine.config import resolution
from iodine.errors import ConfigError, LogFormatter, RunError
from iodine.experiment import Experiment, Record, usage
from iodine.runs import loading
from iodine.signals import Interrupted
from iodine.training import replicas

__all__ = ["ex", "load_checkpoint", "main"]

# Commands that only show the configuration, which may then be incomplete.
_SHOWING = ("print_config", "save_config")


def _prepare(command_name: str | None, config: Mapping[str, Any]) -> Any:
  """Reports every fault of a configuration before a run is recorded."""
  if command_name in _SHOWING and "constructor" in config["model"]:
    resolution.build(config)
  return prepare_training(config) if _is_training(command_name) else None


def _is_observed(command_name: str | None, config: Mapping[str, Any]) -> bool:
  """Whether this process records the run: of several workers only the chief."""
  if _is_training(command_name) and config["strategy"] == "multi_worker":
    return replicas.cluster_of_environment().is_chief
  return _is_training(command_name)


def _is_training(command_name: str | None) -> bool:
  return command_name in (None, train.__name__)


def _reads_checkpoint(
  command_name: str | None, given: Mapping[str, Any]
) -> bool:
  """Whether a command reads the checkpoint that `checkpoint_dir` names."""
  if _is_training(command_name):
    return given.get("continue_run") is True
  return command_name in (
    evaluate.__name__,
    export_tf1.__name__,
    visualize.__name__,
    traverse.__name__,
    decompose.__name__,
    inspect_checkpoint.__name__,
  )


ex = Experiment("iodine", save_git_info=False)
ex.set_up(_prepare, _is_observed, _reads_checkpoint)


@ex.main
def train(_config, _run):
  """Train a model, or resume training it (continue_run=True)."""
  record = Record(_run)
  try:
    commands.train(_config, ex.prepared, record)
  finally:
    record.flush()  # which Sacred leaves out where a run breaks off


@ex.command(unobserved=True)
def evaluate(_config):
  """Score a checkpoint over many scenes; print and write the scores."""
  replicas.warn_without_gpu()
  commands.evaluate(_config)


@ex.command(unobserved=True)
def convert_checkpoint(_config):
  """Convert tf1_checkpoint, of the reference, to checkpoint_dir."""
  commands.convert_checkpoint(_config)


@ex.command(unobserved=True)
def export_tf1(_config):
  """Convert checkpoint_dir to tf1_checkpoint, which the reference reads."""
  commands.export_tf1(_config)


@ex.command(unobserved=True)
def describe_data(_config):
  """Describe what the data files hold; draw twelve scenes."""
  commands.describe_data(_config)


@ex.command(unobserved=True)
def visualize(_config):
  """Draw what a checkpoint has learned; write pictures and a page of them."""
  commands.visualize(_config)


@ex.command(unobserved=True)
def traverse(_config):
  """Draw what latents of a slot do (slot=1 latents=[3,7] scene=1)."""
  commands.traverse(_config)


@ex.command(unobserved=True)
def decompose(_config):
  """Decompose your own image (image=PATH)."""
  commands.decompose(_config)


@ex.command(unobserved=True)
def inspect_checkpoint(_config):
  """List what is in checkpoint_dir, and the configurations that would fit."""
  commands.inspect_checkpoint(_config)


def load_checkpoint(
  config_name_or_path: str | os.PathLike,
  checkpoint_dir: str | os.PathLike | None = None,
  **overrides: Any,
) -> loading.LoadedCheckpoint:
  """Restores a model, and runs it on one batch of its dataset.

  ```
  restored = load_checkpoint("demo", num_components=4, num_iters=8)
  model, dataset = restored["model"], restored["dataset"]
  batch = dataset.image_batch(image)  # [H, W, C] or [B, H, W, C]
  info = exploration.infer(model, batch)
  ```

  runs the model on any image, with any number of slots and refinement steps.

  Args:
    config_name_or_path: a named configuration, a configuration file, or the
      folder of a training run.
    checkpoint_dir: folder, prefix or file of a checkpoint of either format;
      None: the folder of the run, or the configuration's own.
    **overrides: entries of the configuration; `**{"data.shuffle_buffer": 10}`
      reaches inside of one.

  Returns:
    A dict: model; dataset; inputs, its first batch; info, what the model
    infers of that, as NumPy arrays (see `SceneModel.eval`).

  Raises:
    ConfigError: for a mistake in configuration, checkpoint or data.
  """
  return loading.load_checkpoint(config_name_or_path, checkpoint_dir, overrides)


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command line.

  Exit codes: 0 done; 1 the run failed; 2 a mistake in the command, the
  configuration or a file; 128 + n ended by signal n, in training with
  everything saved.

  Args:
    argv: the words of the command; None: those of this process.
  """
  argv = list(sys.argv if argv is None else argv)
  handler = console.Handler()
  handler.setFormatter(LogFormatter("%(levelname)s - %(message)s"))
  logging.basicConfig(handlers=[handler], level=logging.INFO)
  for name in ("absl", "tensorflow", "tensorboard"):
    logging.getLogger(name).setLevel(logging.ERROR)
  try:
    with signals.handled():
      ex.run_commandline(argv)
  except DocoptExit as error:
    _fail(usage(f"{error}\nTry `dummy --help`."), 2)
  except ConfigError as error:
    _fail(f"ConfigError: {error}", 2)
  except Interrupted as interrupt:
    if not interrupt.is_told:
      print(interrupt, file=sys.stderr)
    sys.exit(128 + interrupt.signal_number)
  except KeyboardInterrupt:
    _fail("Interrupted.", 130)
  except RunError as error:
    _fail(f"Error: {error}", 1)


def _fail(message: str, code: int) -> None:
  print(message, file=sys.stderr)
  sys.exit(code)


if __name__ == "__main__":
  main()
