"""The commands, for Sacred: what each needs before it runs, and its help.

TensorFlow is not imported before a command needs it, so that help and mistakes
take no time.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from types import ModuleType
from typing import Any

from sacred import commands as sacreds

from iodine import manual
from iodine.config import entries as config_entries
from iodine.config import printing, resolution
from iodine.config.entries import PLANS
from iodine.errors import ConfigError
from iodine.experiment import Experiment, Record, modified_entries

__all__ = ["COMMANDS", "ex"]

# {name: what help says of it}, of every command.
COMMANDS: dict[str, manual.Command] = {}
# Commands for whose `checkpoint_dir` a run's own file may stand.
_READING: set[str] = set()

# Sacred's commands that only show the configuration, which may then be
# incomplete, and those that do without.
_SHOWING = ("print_config", "save_config")
_LISTING = ("print_dependencies", "print_named_configs")


def _prepare(
  command_name: str | None, config: Mapping[str, Any], given: Set[str]
) -> Any:
  """Reports every fault of a configuration before a run is recorded.

  Args:
    command_name: None: the default.
    config: the whole configuration.
    given: names of the entries that files and the command line set.
  """
  shows = command_name in _SHOWING
  if command_name in _LISTING:
    return None
  if shows and "constructor" not in config["model"]:
    if found := config_entries.faults(config):
      raise ConfigError("\n".join(found.values()))
    return None
  needs_configuration = command_name != inspect_checkpoint.__name__
  if needs_configuration and not given & set(PLANS):
    resolution.check(config)
  if shows:
    if given:  # else it is one that comes with the project
      resolution.build(config)
    return None
  module = _commands()  # also of others, as Sacred then seeds TensorFlow
  return module.prepare(config) if _is_training(command_name) else None


def _commands() -> ModuleType:
  """What the commands do; it imports TensorFlow."""
  from iodine import commands

  return commands


def _is_observed(command_name: str | None, config: Mapping[str, Any]) -> bool:
  """Whether this process records the run: of several workers only the chief."""
  if _is_training(command_name) and config["strategy"] == "multi_worker":
    from iodine.training import replicas

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
  return command_name in _READING


def _explain(word: str | None) -> str:
  """The help of a word; of None, the general one."""
  if word is None:
    return manual.overview(COMMANDS, _named())
  return manual.about(word, COMMANDS)


def _named() -> dict[str, dict[str, Any]]:
  """{name: entries} of the configurations that come with the project."""
  return {name: config() for name, config in ex.named_configs.items()}


ex = Experiment("iodine", save_git_info=False)
ex.set_up(_prepare, _is_observed, _reads_checkpoint, _explain)


def _command(
  group: str,
  example: str,
  *,
  is_unobserved: bool = True,
  reads_checkpoint: bool = False,
  entries: Sequence[str] | None = None,
) -> Callable[[Callable], Callable]:
  """Makes a function a command, with what help says besides its docstring.

  Args:
    group: see `manual.Command`, also for `example` and `entries`.
    example: of a command line.
    is_unobserved: whether Sacred records none of its runs.
    reads_checkpoint: whether it reads what `checkpoint_dir` names.
    entries: that count of those of every command; None: all.
  """

  def add(function: Callable) -> Callable:
    name, text = function.__name__, inspect.getdoc(function) or ""
    COMMANDS[name] = manual.Command(group, example, text, entries)
    if reads_checkpoint:
      _READING.add(name)
    return ex.command(function, unobserved=is_unobserved)

  return add


# --- The commands, in the order in which help shows them ----------------------


@_command("train", "train with tetrominoes batch_size=32", is_unobserved=False)
def train(_config, _run):
  """Train a model, or resume training it (continue_run=True).

  This is what happens without a COMMAND, too. Checkpoints, configuration,
  scalars for TensorBoard and a picture of the finished model are written to a
  new folder, `checkpoint_dir` with "_1", "_2" and so on after it.
  """
  record = Record(_run)
  try:
    _commands().train(_config, ex.prepared, record)
  finally:
    record.flush()  # which Sacred leaves out where a run breaks off


ex.default_command = train.__name__  # type: ignore[assignment]


@_command("look", "evaluate with demo num_scenes=100", reads_checkpoint=True)
def evaluate(_config):
  """Score a model over many scenes; print and write the scores.

  Writes a table (evaluation.md), a figure of the scores over refinement steps
  (evaluation.png) and evaluation.json to `evaluation_dir`.
  """
  _commands().evaluate(_config)


@_command("look", "probe with demo probes=linear,mlp1", reads_checkpoint=True)
def probe(_config):
  """Measure what slots tell of objects: properties, DCI, activeness.

  Writes tables (probe.md), figures and probe.json to `evaluation_dir`, by
  default a folder `probe` beside the checkpoint.
  """
  _commands().probe(_config)


@_command(
  "look",
  "compare with clevr6 'checkpoints=[checkpoints/a_1,checkpoints/b_1]'",
)
def compare(_config):
  """Score and draw several models side by side on the same scenes.

  Writes a table, pictures and a page of them to `pictures_dir`/DATASET/compare.
  """
  _commands().compare(_config)


@_command("look", "visualize with demo scene=3", reads_checkpoint=True)
def visualize(_config):
  """Draw what a model has learned: pictures, animations, a page of them.

  Decomposition, refinement, scores, latent traversals, edited scenes, samples
  and training curves, as far as model and data have them. Writes to
  `pictures_dir`/DATASET/visualize; open index.html there.
  """
  _commands().visualize(_config)


@_command(
  "look", "traverse with demo slot=1 'latents=[3,2]'", reads_checkpoint=True
)
def traverse(_config):
  """Draw what the latents of a slot do.

  Writes a picture and an animation to `pictures_dir`/DATASET/traverse.
  """
  _commands().traverse(_config)


@_command(
  "look",
  "compose with demo 'scenes=[1,2,3,1]' 'slots=[3,3,3,2]' seed=0",
  reads_checkpoint=True,
)
def compose(_config):
  """Compose a new scene of slots of several scenes.

  Writes composition.png, which has all slots to choose from, and scene.png to
  `pictures_dir`/DATASET/compose.
  """
  _commands().compose(_config)


@_command("look", "decompose with demo image=photo.png", reads_checkpoint=True)
def decompose(_config):
  """Decompose your own image.

  Prints how well it is reconstructed, beside scenes of the model's own data.
  Writes image, reconstruction, masks, and every slot as a PNG that is
  transparent outside its mask, to `pictures_dir`/DATASET/decompose/IMAGE.
  """
  _commands().decompose(_config)


@_command("look", "sample with demo seed=1", reads_checkpoint=True)
def sample(_config):
  """Draw scenes that a model makes up: samples of its prior.

  Writes samples.png to `pictures_dir`/DATASET/sample.
  """
  _commands().sample(_config)


@_command(
  "look",
  "describe_data with tetrominoes",
  entries=("data_dir", "data_file", "image_dim", "seed", "data"),
)
def describe_data(_config):
  """Describe what the data files hold; draw twelve scenes.

  Prints number of scenes, compression, features, and the values of every
  factor; writes DATASET_scenes.png to `pictures_dir`.
  """
  _commands().describe_data(_config)


@_command(
  "checkpoints",
  "convert_checkpoint with clevr6 from_checkpoint=checkpoints/clevr6 "
  "checkpoint_dir=checkpoints/mine",
)
def convert_checkpoint(_config):
  """Convert a checkpoint of published code to one of this program.

  Writes a new folder, `checkpoint_dir`, from which continue_run=True can
  resume.
  """
  _commands().convert_checkpoint(_config)


@_command(
  "checkpoints",
  "export_tf1 with clevr6 checkpoint_dir=checkpoints/mine "
  "tf1_checkpoint=exported/model.ckpt",
  reads_checkpoint=True,
)
def export_tf1(_config):
  """Convert a checkpoint to the format of IODINE's published code.

  Writes the files of a TensorFlow 1 checkpoint, with Adam's moments and the
  step.
  """
  _commands().export_tf1(_config)


@_command(
  "checkpoints",
  "inspect_checkpoint with checkpoint_dir=checkpoints/clevr6",
  reads_checkpoint=True,
  entries=("checkpoint_dir",),
)
def inspect_checkpoint(_config):
  """List the variables of a checkpoint, and the configurations that fit.

  It needs no configuration, and writes nothing.
  """
  _commands().inspect_checkpoint(_config)


@_command("configuration", "print_config with clevr6 batch_size=2", entries=())
def print_config(_run):
  """Print all entries, with what a configuration and other entries make them.

  Any configuration and any entry may follow.
  """
  text = printing.format_config(_run.config, modified_entries(_run))
  sys.stdout.write(f"{text}\n")


@_command("configuration", "print_named_configs", entries=())
def print_named_configs():
  """List the configurations that come with the program."""
  sys.stdout.write(f"{manual.configurations(_named())}\n")


@_command("configuration", "save_config with clevr6 batch_size=2", entries=())
def save_config(_config, _log):
  """Write all entries to config.json, a valid argument of `with`.

  Any configuration and any entry may follow.
  """
  sacreds.save_config(_config, _log)


@_command("configuration", "print_dependencies", entries=())
def print_dependencies(_run):
  """Print the versions of the packages, and digests of the sources."""
  sacreds.print_dependencies(_run)
