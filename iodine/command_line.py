"""The commands, for Sacred: what each needs before it runs, and its help.

TensorFlow is not imported before a command needs it, so that help and mistakes
take no time.
"""

from collections.abc import Mapping, Set
from types import ModuleType
from typing import Any

from iodine.config import resolution
from iodine.config.entries import PLANS
from iodine.experiment import Experiment, Record

__all__ = ["ex"]

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
  if command_name in _LISTING or (
    shows and "constructor" not in config["model"]
  ):
    return None
  needs_configuration = command_name != inspect_checkpoint.__name__
  if needs_configuration and not given & set(PLANS):
    resolution.check(config)
  if shows:
    if given:  # else it is one that comes with the project
      resolution.build(config)
    return None
  commands = _commands()  # also of others, as Sacred then seeds TensorFlow
  return commands.prepare(config) if _is_training(command_name) else None


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
  return command_name in (
    evaluate.__name__,
    probe.__name__,
    export_tf1.__name__,
    visualize.__name__,
    traverse.__name__,
    compose.__name__,
    decompose.__name__,
    sample.__name__,
    inspect_checkpoint.__name__,
  )


ex = Experiment("iodine", save_git_info=False)
ex.set_up(_prepare, _is_observed, _reads_checkpoint)


@ex.main
def train(_config, _run):
  """Train a model, or resume training it (continue_run=True)."""
  record = Record(_run)
  try:
    _commands().train(_config, ex.prepared, record)
  finally:
    record.flush()  # which Sacred leaves out where a run breaks off


@ex.command(unobserved=True)
def evaluate(_config):
  """Score a checkpoint over many scenes; print and write the scores."""
  _commands().evaluate(_config)


@ex.command(unobserved=True)
def probe(_config):
  """Measure what slots tell of objects: properties, DCI, activeness."""
  _commands().probe(_config)


@ex.command(unobserved=True)
def compare(_config):
  """Score and draw several checkpoints side by side (checkpoints=[a,b])."""
  _commands().compare(_config)


@ex.command(unobserved=True)
def convert_checkpoint(_config):
  """Convert from_checkpoint, of published code, to checkpoint_dir."""
  _commands().convert_checkpoint(_config)


@ex.command(unobserved=True)
def export_tf1(_config):
  """Convert checkpoint_dir to tf1_checkpoint, which the reference reads."""
  _commands().export_tf1(_config)


@ex.command(unobserved=True)
def describe_data(_config):
  """Describe what the data files hold; draw twelve scenes."""
  _commands().describe_data(_config)


@ex.command(unobserved=True)
def visualize(_config):
  """Draw what a checkpoint has learned; write pictures and a page of them."""
  _commands().visualize(_config)


@ex.command(unobserved=True)
def traverse(_config):
  """Draw what latents of a slot do (slot=1 latents=[3,7] scene=1)."""
  _commands().traverse(_config)


@ex.command(unobserved=True)
def compose(_config):
  """Compose a scene of slots of others (scenes=[1,2,3] slots=[2,1,4])."""
  _commands().compose(_config)


@ex.command(unobserved=True)
def decompose(_config):
  """Decompose your own image (image=PATH)."""
  _commands().decompose(_config)


@ex.command(unobserved=True)
def sample(_config):
  """Draw scenes that a model makes up, of its prior (seed=0)."""
  _commands().sample(_config)


@ex.command(unobserved=True)
def inspect_checkpoint(_config):
  """List what is in checkpoint_dir, and the configurations that would fit."""
  _commands().inspect_checkpoint(_config)
