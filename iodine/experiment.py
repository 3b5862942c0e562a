"""Sacred with plain data, and with records that survive a kill.

What of Sacred is private is used here alone, see `PRIVATE`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sacred import SETTINGS, stdout_capturing
from sacred import Experiment as SacredExperiment
from sacred.arg_parser import printable_usage
from sacred.config import ConfigDict
from sacred.config.config_summary import ConfigSummary
from sacred.observers import FileStorageObserver
from sacred.randomness import set_global_seed
from sacred.run import Run
from sacred.serializer import flatten
from sacred.utils import apply_backspaces_and_linefeeds, iterate_flattened

from iodine import console
from iodine.config import parsing, reading, resolution
from iodine.config.entries import ENTRIES
from iodine.errors import ConfigError, RunError, did_you_mean
from iodine.files import write_whole
from iodine.runs import folder as run_folder

__all__ = ["Experiment", "Record", "filter_output", "make_safe", "usage"]

# {class or module of Sacred: what is used of it without being documented}.
PRIVATE: dict[Any, tuple[str, ...]] = {
  SacredExperiment: ("_create_run", "_check_command", "configurations"),
  Run: ("_id", "_emit_heartbeat"),
  stdout_capturing: ("tee_output_python",),
}

_LOG = logging.getLogger(__name__)


class _Output:
  """What a run has put out, for Sacred to take away bit by bit."""

  closed = False

  def __init__(self) -> None:
    self._lock, self._text = threading.Lock(), io.StringIO()

  def keep(self, text: str) -> None:
    """Adds some."""
    with self._lock:
      self._text.write(text)

  def get(self) -> str:
    """Returns what has come since the last call."""
    with self._lock:
      taken, self._text = self._text.getvalue(), io.StringIO()
    return taken


@contextlib.contextmanager
def _record_output() -> Iterator[_Output]:
  """Sacred's own may lose text while it takes some, and if a run breaks off."""
  output = _Output()
  streams = sys.stdout, sys.stderr
  sys.stdout, sys.stderr = (  # type: ignore[assignment]
    console.Recorded(stream, output.keep) for stream in streams
  )
  try:
    yield output
  finally:
    sys.stdout, sys.stderr = streams


# Capturing file descriptors would hide the terminal from the progress bar.
SETTINGS.CAPTURE_MODE = "sys"
stdout_capturing.tee_output_python = _record_output


class Experiment(SacredExperiment):
  """Sacred, with configurations read as plain data and resolved as a whole.

  Attributes:
    prepared: what `prepare` returned for the run that is about to start.
  """

  prepared: Any = None

  # No __init__: Sacred takes the file that calls its own for the program.
  def set_up(
    self,
    prepare: Callable[[str | None, Mapping[str, Any]], Any],
    is_observed: Callable[[str | None, Mapping[str, Any]], bool],
    reads_checkpoint: Callable[[str | None, Mapping[str, Any]], bool],
  ) -> None:
    """Adds the configurations, and what happens before a command.

    Args:
      prepare: called with a command's name and its configuration before the
        run is recorded; raises ConfigError where that must not start.
      is_observed: called likewise: whether this process records the run.
      reads_checkpoint: called with a command's name and the entries of the
        command line: whether a run's own file stands for its checkpoint.
    """
    self._prepare, self._is_observed = prepare, is_observed
    self._reads_checkpoint = reads_checkpoint
    self.captured_out_filter = filter_output  # type: ignore
    self.configurations.append(_resolve)  # type: ignore
    for config_name, entries in reading.named_configs().items():
      self.add_named_config(config_name, entries)

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
    # Wrong entries are errors, which Sacred would only warn about.
    options = {**(options or {}), "--force": True}
    _check_options(options)
    config_updates = parsing.parse_words(
      config_updates or {}, options.get("UPDATE") or ()
    )
    reading.check_entries(config_updates)
    # Sacred would read a file of a configuration's name, and may run code that
    # it finds there; no file has these names.
    in_place = self._reads_checkpoint(command_name, config_updates)
    named = {
      f"configuration {i}": self._entries(name, in_place)
      for i, name in enumerate(named_configs)
    }
    reading.warn_of_mixture(named_configs, [own() for own in named.values()])
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
    self.prepared = self._prepare(command_name, run.config)
    if not self._is_observed(command_name, run.config):
      run.unobserved = True
    if not run.unobserved:
      make_safe(run)
    return run

  def _entries(self, name: str, in_place: bool) -> ConfigDict:
    """Returns the entries of a named configuration or a file.

    Args:
      name: of a configuration, or a path.
      in_place: see `folder.read_file`.
    """
    if name in self.named_configs:
      return self.named_configs[name]
    if not os.path.exists(name):
      raise ConfigError(
        f"with {name}: no such configuration or file. "
        + did_you_mean(name, self.named_configs, "configurations")
      )
    return ConfigDict(run_folder.read_file(pathlib.Path(name), in_place))

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
    shown = usage(internal)
    return printable_usage(shown), shown, internal


def usage(text: str) -> str:
  """Replaces what Sacred calls the program for its parser of arguments."""
  installed = pathlib.Path(sys.argv[0]).name == "iodine"
  program = "iodine" if installed else "python -m iodine.main"
  return text.replace("dummy", program)


def _resolve(
  fixed: Mapping[str, Any] | None = None,
  preset: Mapping[str, Any] | None = None,
  fallback: Mapping[str, Any] | None = None,
) -> ConfigSummary:
  """The whole configuration, in place of Sacred's scopes.

  Args:
    fixed: what was given, by named configurations, files and the command line.
    preset: likewise, without the command line.
    fallback: not used.
  """
  del fallback
  given = fixed or {}
  summary = ConfigSummary(
    modified={name for name, _ in iterate_flattened(given)},
    docs={name: entry.help for name, entry in ENTRIES.items()},
  )
  entries = resolution.resolve(preset or {}, given)
  if ENTRIES["seed"].fault("seed", entries["seed"]):
    resolution.build(entries)  # which raises; Sacred takes the seed at once
  if entries["seed"] is None:
    del entries["seed"]  # Sacred draws one.
  summary.update(entries)
  return summary


class Record:
  """What Sacred keeps of a run, as far as training has to do with it.

  Attributes:
    run_id: of the observer that records the run; None: there is none.
    info: entries for the record.
  """

  def __init__(self, run: Run):
    self._run = run
    self.run_id: int | str | None = run._id
    self.info: dict[str, Any] = run.info

  def log_scalar(self, name: str, value: float, step: int) -> None:
    """Records a metric."""
    self._run.log_scalar(name, value, step)

  def flush(self) -> None:
    """Writes all metrics to disk."""
    self._run._emit_heartbeat()

  def is_given(self, name: str) -> bool:
    """Whether the user chose the value of an entry."""
    return name in self._run.config_modifications.modified

  def set_seed(self, seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow."""
    set_global_seed(seed)


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


class _SafeFileStorage(FileStorageObserver):
  """Replaces files as a whole, and says where it cannot write.

  All metrics of a run are written again each time, so this has to be quick.
  """

  def log_metrics(self, metrics_by_name: Mapping[str, Any], info: Any) -> None:
    if metrics_by_name:
      super().log_metrics(metrics_by_name, info)

  def started_event(self, *args: Any, **kwargs: Any) -> Any:
    try:
      return super().started_event(*args, **kwargs)
    except (OSError, RunError) as error:
      raise ConfigError(
        f"--file_storage={self.basedir}: cannot be written: {error}"
      ) from error

  def save_json(self, obj: Any, filename: str) -> None:
    if filename == "metrics.json":  # plain numbers and text; indents are slow
      text = json.dumps(obj)
    else:
      text = json.dumps(flatten(obj), sort_keys=True, indent=2)
    try:
      write_whole(pathlib.Path(str(self.dir), filename), text)
    except RunError as error:
      if "stop_time" not in (self.run_entry or {}):
        raise
      _LOG.warning("Sacred's record lacks the end of the run: %s", error)

  def failed_event(self, *args: Any, **kwargs: Any) -> None:
    if self.run_entry is not None:  # else the record could not be begun
      super().failed_event(*args, **kwargs)


def filter_output(text: str) -> str:
  """Applies backspaces and carriage returns, as a terminal does.

  Sacred gives it all output of a run every some seconds, so lines without these
  cost nothing.
  """
  places = [place for mark in "\b\r" if (place := text.find(mark)) >= 0]
  if not places:
    return text
  start = text.rfind("\n", 0, min(places)) + 1
  return text[:start] + apply_backspaces_and_linefeeds(text[start:])


def make_safe(run: Run) -> None:
  """Prepares a run that has not started yet.

  Folders of -F are made, which Sacred does while it starts a run. The run's
  metrics may then be recorded by any thread, with `Record.flush`, beside the
  one in which Sacred does so every some seconds.

  Args:
    run: of Sacred.

  Raises:
    ConfigError: if a folder cannot be made.
  """
  for observer in run.observers:
    if isinstance(observer, FileStorageObserver):
      observer.__class__ = _SafeFileStorage  # -F makes Sacred's own
      try:
        os.makedirs(observer.basedir, exist_ok=True)
      except OSError as error:
        raise ConfigError(
          f"--file_storage={observer.basedir}: cannot be made: {error}"
        ) from error
  record, lock = run._emit_heartbeat, threading.Lock()

  def record_alone() -> None:
    with lock:
      record()

  run._emit_heartbeat = record_alone  # type: ignore[method-assign]
