"""IODINE: decompose images into objects without supervision.

Trains with `python -m iodine.main with tetrominoes`.
"""

import contextlib
import importlib.util
import logging
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# TensorFlow reads this as it is imported: errors only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# pylint: disable=wrong-import-position
import tensorflow as tf  # noqa: E402
from docopt import DocoptExit  # noqa: E402
from sacred import SETTINGS, Experiment  # noqa: E402
from sacred.arg_parser import printable_usage  # noqa: E402
from sacred.config import ConfigDict  # noqa: E402
from sacred.randomness import set_global_seed  # noqa: E402
from sacred.run import Run  # noqa: E402
from sacred.utils import SacredInterrupt  # noqa: E402

from iodine import errors, experiment
from iodine.commands import convert as convert_command
from iodine.commands import decompose as decompose_command
from iodine.commands import describe_data as describe_data_command
from iodine.commands import evaluate as evaluate_command
from iodine.commands import inspect as inspect_command
from iodine.commands import train as train_command
from iodine.commands import traverse as traverse_command
from iodine.commands import visualize as visualize_command
from iodine.config import entries as config_entries
from iodine.config import reading
from iodine.config import resolution as configuration
from iodine.data import opening
from iodine.errors import ConfigError, did_you_mean
from iodine.runs import continuation, loading
from iodine.runs import folder as run_folder
from iodine.runs import lock as run_lock
from iodine.runs import loop as training_loop
from iodine.runs import versions as run_versions
from iodine.training import replicas

__all__ = ["ex", "load_checkpoint", "main"]

# Capturing file descriptors would hide the terminal from the progress bar.
SETTINGS.CAPTURE_MODE = "sys"

# Commands that only show the configuration, which may then be incomplete.
_SHOWING = (
  "print_config",
  "print_dependencies",
  "print_named_configs",
  "save_config",
  "inspect_checkpoint",
)


# What has to be alike wherever a run trains.
_ALIKE = ("accumulate", "batch_size", "model", "optimizer", "stop_after_steps")


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
    # Sacred asks it whether to raise errors, be it from an earlier run.
    self.current_run = None
    # `_check_config` reports what Sacred would warn about.
    options = {**(options or {}), "--force": True}
    _check_options(options)
    reading.check_entries(config_updates or {})
    # Sacred would read a file of a configuration's name, and may run code that
    # it finds there; no file has these names.
    named = {
      f"configuration {i}": self._entries(name)
      for i, name in enumerate(named_configs)
    }
    self.named_configs.update(named)
    try:
      run = super()._create_run(
        command_name, config_updates, list(named), info, meta_info, options
      )
    except ModuleNotFoundError as error:
      raise ConfigError(
        f"An observer needs the package {error.name}"
      ) from error
    finally:
      for name in named:
        del self.named_configs[name]
    run.meta_info["named_configs"] = list(named_configs)
    if _trains_with_others(run.config, command_name):
      # One record of a run is enough.
      cluster = replicas.cluster_of_environment()
      run.unobserved = run.unobserved or not cluster.is_chief
    if not run.unobserved:
      experiment.make_safe(run)
    return run

  def _entries(self, name: str) -> ConfigDict:
    """Returns the entries of a named configuration or a file."""
    if name in self.named_configs:
      return self.named_configs[name]
    if not os.path.exists(name):
      raise ConfigError(
        f"with {name}: no such configuration or file. "
        + did_you_mean(name, self.named_configs, "configurations")
      )
    entries = reading.load_file(name)
    return ConfigDict(configuration.without_derived(entries))

  def _check_command(self, cmd_name: str) -> None:
    commands = dict(self.gather_commands())
    if cmd_name is not None and cmd_name not in commands:
      raise ConfigError(
        f"{cmd_name}: no such command. "
        + did_you_mean(cmd_name, commands, "commands")
      )

  def get_usage(self, program_name: str | None = None) -> tuple[str, ...]:
    """Returns a short and a long usage, and one for the parser of arguments."""
    *_, internal = super().get_usage(program_name)
    usage = _with_program_name(internal)
    return printable_usage(usage), usage, internal


def _trains_with_others(
  config: Mapping[str, Any], command_name: str | None
) -> bool:
  """Whether this process is to be one of several workers."""
  is_training = command_name in (None, train.__name__)
  return is_training and config.get("strategy") == "multi_worker"


def _with_program_name(usage: str) -> str:
  """Replaces what Sacred calls the program for its parser of arguments."""
  installed = pathlib.Path(sys.argv[0]).name == "iodine"
  program = "iodine" if installed else "python -m iodine.main"
  return usage.replace("dummy", program)


def _check_options(options: Mapping[str, Any]) -> None:
  """Raises ConfigError for a value that one of Sacred's options rejects."""
  level = options.get("--loglevel") or "INFO"
  known_level = isinstance(logging.getLevelName(level), int)
  if not known_level and not str(level).isdecimal():
    raise ConfigError(
      f"--loglevel={level}: must be a number from 0 to 50, or one of DEBUG, "
      "INFO, WARNING, ERROR and CRITICAL"
    )
  modes = ("no", "sys", "fd")
  if options.get("--capture") not in (None, *modes):
    raise ConfigError(
      f"--capture={options['--capture']}: must be one of {', '.join(modes)}"
    )
  for option in ("--beat-interval", "--priority"):
    try:
      float(options.get(option) or 0)
    except ValueError as error:
      raise ConfigError(
        f"{option}={options[option]}: must be a number"
      ) from error
  database = options.get("--mongo_db")
  if database and importlib.util.find_spec("pymongo") is None:
    raise ConfigError(
      f"--mongo_db={database}: needs pymongo, which the extra `mongo` "
      "installs (in a checkout: pip install '.[mongo]')"
    )


ex = _IodineExperiment("iodine", save_git_info=False)
ex.captured_out_filter = experiment.filter_output  # type: ignore
for _name, _entries in reading.named_configs().items():
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
  # what convolutions compute in: float32, or bfloat16, about twice as fast
  # where the processor or the GPU has instructions for it
  precision = "float32"
  # compute refinement steps again for their gradients: less memory, more time
  recompute = False
  # write a trace of ten steps for TensorBoard
  profile = False
  # of a step, on all devices together
  batch_size = 4
  # train on all GPUs of this machine (mirrored), or of those that TF_CONFIG
  # names (multi_worker); None: on one device
  strategy = None
  # parts of a device's share of the batch that it takes in turn, to save memory
  accumulate = 1
  # whether equal seeds give equal bits, which may be slower on GPUs
  deterministic = False
  # learning rate at a batch of base_batch_size
  base_learn_rate = 0.001
  base_batch_size = 32
  # folder of the datasets ($IODINE_DATA_DIR)
  data_dir = config_entries.data_dir()
  # data.path = data_dir/data_file
  data_file = None
  # height and width that images are resized to (None: the dataset's own)
  image_dim = None
  # training leaves out so many of the first scenes
  held_out_scenes = 1000
  # evaluate, describe_data: how many scenes
  num_scenes = 320
  # evaluate: posterior samples of each scene
  num_samples = 1
  # evaluate: folder of the results (None: beside the checkpoint)
  evaluation_dir = None
  # describe_data, visualize, traverse, decompose: folder of the pictures
  pictures_dir = "pictures"
  # visualize, traverse: which scene, from 1 on
  scene = 1
  # visualize, traverse: which slot, from 1 on (None: that of the highest KL)
  slot = None
  # visualize, traverse: which latents, from 0 on (None: those of highest KL)
  latents = None
  # decompose: file of the picture
  image = None
  # convert_checkpoint, export_tf1: prefix of the reference's files
  tf1_checkpoint = None
  # images per GPU in the paper's training
  paper_batch_size = None
  # the paper's scores, mean and standard deviation over training seeds
  paper_scores = {}
  # plan of the dataset, see iodine.modules.data
  data = {}
  # plan of the model, see iodine.modules.iodine
  model = {}
  # plan of the optimizer, see iodine.training
  optimizer = {}


# Every entry that a configuration may have, with a value of its type.
DEFAULTS: dict[str, Any] = {**defaults(), "learn_rate": None, "seed": None}


# ruff: noqa: F841
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
  precision,
  recompute,
  data_dir,
  data_file,
  image_dim,
  optimizer,
):
  # base_learn_rate * sqrt(batch_size / base_batch_size)
  learn_rate = configuration.scaled_learn_rate(
    base_learn_rate, batch_size, base_batch_size
  )
  data = configuration.derived_data(batch_size, data_dir, data_file, image_dim)
  model = configuration.derived_model(
    n_z, num_components, num_iters, precision, recompute
  )
  optimizer = configuration.derived_optimizer(optimizer, learn_rate)


@ex.config_hook
def _check_config(config, command_name, logger):
  """Reports every fault of the configuration before any work starts."""
  if command_name not in _SHOWING or "constructor" in config["model"]:
    configuration.check(
      config, DEFAULTS, lambda: _start_workers(config, command_name)
    )
  if config["data"].get("batch_size") != config["batch_size"]:
    logger.warning(
      "data.batch_size=%s, but the learning rate follows batch_size=%s",
      config["data"].get("batch_size"),
      config["batch_size"],
    )
  return {}


def _start_workers(config: Mapping[str, Any], command_name: str) -> None:
  """Joins the other workers, before TensorFlow executes anything."""
  if _trains_with_others(config, command_name):
    _distribution(config)


def _distribution(config: Mapping[str, Any]) -> replicas.Distribution:
  batch_size = config["data"].get("batch_size", config["batch_size"])
  return replicas.create(config["strategy"], config["accumulate"], batch_size)


class _Stopped(SacredInterrupt):
  """A run that a signal ended; Sacred records it as interrupted."""

  def __init__(self, signal_number: int):
    super().__init__(signal_number)
    self.signal_number = signal_number


@ex.main
def train(_config, _run):
  """Train a model, or go on with it (continue_run=True)."""
  replicas.warn_without_gpu()
  if _config["deterministic"]:
    tf.config.experimental.enable_op_determinism()
  with contextlib.ExitStack() as folder_lock:
    _train(_config, _run, folder_lock)


def _train(config, run, folder_lock):
  devices = _distribution(config)
  folder, entries = None, config
  if config["continue_run"] and devices.is_chief:
    folder = _open_folder(config, run, folder_lock)
    entries = _continued(config, folder)
  dataset, sample = opening.training_data(entries)
  with devices.explain_lost_workers():
    devices.check_alike([config[key] for key in _ALIKE])
    trainer = train_command.build_trainer(entries, dataset, devices)
  if folder is None and devices.is_chief:
    folder = _open_folder(config, run, folder_lock)
  settings = training_loop.Settings(
    stop_after_steps=config["stop_after_steps"],
    save_summaries_steps=config["save_summaries_steps"],
    save_images_steps=config["save_images_steps"],
    save_checkpoint_steps=config["save_checkpoint_steps"],
    keep_checkpoints=config["keep_checkpoints"],
    profile=config["profile"],
  )

  def save_config():
    if folder is None:
      return
    seeds = {"seed": int(trainer.seed.numpy()), "data.seed": dataset.seed}
    given = "seed" in run.config_modifications.modified
    entries = run_folder.config_to_save(config, seeds, given)
    if devices.num_sub_batches > 1:
      size = dataset.batch_size // devices.num_sub_batches
      entries[configuration.SUB_BATCH_SIZE] = size
    run_folder.save_config(folder, entries)
    run_versions.save_versions(folder, int(trainer.optimizer.step.numpy()))

  try:
    training_loop.run(
      trainer,
      dataset,
      sample,
      folder,
      settings,
      run.log_scalar,
      on_ready=save_config,
      flush_metrics=run._emit_heartbeat,
    )
  except training_loop.Interrupted as interrupt:
    raise _Stopped(interrupt.signal_number) from interrupt
  except tf.errors.UnimplementedError as error:
    if not config["deterministic"]:
      raise
    raise ConfigError(
      f"deterministic=True: {error.message}. Set it to False, or train on the "
      "CPU (CUDA_VISIBLE_DEVICES=)"
    ) from error


def _open_folder(
  config: Mapping[str, Any], run: Run, folder_lock: contextlib.ExitStack
) -> pathlib.Path:
  """Opens the run's folder, and locks it as long as folder_lock is open."""
  folder = run_folder.open_folder(
    config["checkpoint_dir"], config["continue_run"], run._id
  )
  folder_lock.enter_context(run_lock.locked(folder))
  run.info["checkpoint_dir"] = str(folder)
  return folder


def _continued(
  config: Mapping[str, Any], folder: pathlib.Path
) -> Mapping[str, Any]:
  """Checks what a run goes on with; returns it with the seeds of that run.

  A checkpoint has the seeds, too, but a run may have been killed before it
  saved one.
  """
  saved = run_folder.load_config(folder)
  continuation.check_drift(saved, config, folder)
  seeds = {"seed": saved.get("seed", config["seed"])}
  data_seed = saved.get("data", {}).get("seed", config["data"].get("seed"))
  entries = {**config, **seeds}
  if data_seed is not None:
    entries["data"] = {**config["data"], "seed": data_seed}
  configuration.check(entries, DEFAULTS)
  set_global_seed(entries["seed"])  # of the initial weights
  return entries


@ex.command(unobserved=True)
def evaluate(_config):
  """Score a checkpoint over many scenes; print and write the scores."""
  replicas.warn_without_gpu()
  evaluate_command.evaluate(_config)


@ex.command(unobserved=True)
def convert_checkpoint(_config):
  """Convert tf1_checkpoint, of the reference, to checkpoint_dir."""
  convert_command.convert_checkpoint(_config)


@ex.command(unobserved=True)
def export_tf1(_config):
  """Convert checkpoint_dir to tf1_checkpoint, which the reference reads."""
  convert_command.export_tf1(_config)


@ex.command(unobserved=True)
def describe_data(_config):
  """Tell what the data files hold; draw twelve scenes."""
  describe_data_command.describe_data(_config)


@ex.command(unobserved=True)
def visualize(_config):
  """Draw what a checkpoint has learned; write pictures and a page of them."""
  visualize_command.visualize(_config)


@ex.command(unobserved=True)
def traverse(_config):
  """Draw what latents of a slot do (slot=1 latents=[3,7] scene=1)."""
  traverse_command.traverse(_config)


@ex.command(unobserved=True)
def decompose(_config):
  """Take a picture of your own apart (image=PATH)."""
  decompose_command.decompose(_config)


@ex.command(unobserved=True)
def inspect_checkpoint(_config):
  """List what is in checkpoint_dir, and the configurations that would fit."""
  inspect_command.inspect_checkpoint(_config)


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
  return loading.load_checkpoint(
    config_name_or_path, DEFAULTS, checkpoint_dir, overrides
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
  for name in ("absl", "tensorflow", "tensorboard"):
    logging.getLogger(name).setLevel(logging.ERROR)
  try:
    ex.run_commandline(_with_debug(argv))
  except DocoptExit as error:
    usage = _with_program_name(f"{error}\nTry `dummy --help`.")
    _fail(usage, 2)
  except ConfigError as error:
    _fail(f"ConfigError: {error}", 2)
  except _Stopped as stop:
    sys.exit(128 + stop.signal_number)
  except KeyboardInterrupt:
    _fail("Interrupted without saving.", 130)
  except errors.RunError as error:
    _fail(f"Error: {error}", 1)


def _with_debug(argv: Sequence[str]) -> list[str]:
  """Adds --debug, without which Sacred prints every exception and exits."""
  program, *words = argv
  if words[:1] == ["help"] or set(words) & {
    *("-h", "--help"),
    *("-d", "--debug"),
    *("-D", "--pdb"),
  }:
    return [program, *words]
  return [program, "--debug", *words]


def _fail(message: str, code: int) -> None:
  print(message, file=sys.stderr)
  sys.exit(code)


if __name__ == "__main__":
  main()
