"""Sacred with plain data, and with records that survive a kill.

What of Sacred is private is used here alone, see `PRIVATE`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import pathlib
import pdb
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from docopt import DocoptExit, docopt
from sacred import SETTINGS, stdout_capturing
from sacred import Experiment as SacredExperiment
from sacred.config import ConfigDict
from sacred.config.config_summary import ConfigSummary
from sacred.randomness import set_global_seed
from sacred.run import Run
from sacred.utils import apply_backspaces_and_linefeeds, iterate_flattened

from iodine import console, observers, usage
from iodine import options as run_options
from iodine.config import parsing, printing, reading, resolution
from iodine.config.entries import ENTRIES
from iodine.errors import ConfigError, did_you_mean
from iodine.runs import folder as run_folder

__all__ = [
  "Experiment",
  "Record",
  "filter_output",
  "make_safe",
  "modified_entries",
]

# {class or module of Sacred: what is used of it without being documented}.
PRIVATE: dict[Any, tuple[str, ...]] = {
  SacredExperiment: ("_create_run", "configurations"),
  Run: ("_id", "_emit_heartbeat"),
  stdout_capturing: ("tee_output_python",),
}

# What Sacred logs as a run starts, which its id or its first lines tell.
_CHATTER = ("Running command '%s'", "Started")


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
    prepare: Callable[[str | None, Mapping[str, Any], Set[str]], Any],
    is_observed: Callable[[str | None, Mapping[str, Any]], bool],
    reads_checkpoint: Callable[[str | None, Mapping[str, Any]], bool],
    explain: Callable[[str | None], str],
  ) -> None:
    """Adds the configurations, and what happens before a command.

    Args:
      prepare: called with a command's name, its configuration and the names
        of the entries that files and the command line set, before the run is
        recorded; raises ConfigError where that must not start.
      is_observed: called likewise: whether this process records the run.
      reads_checkpoint: called with a command's name and the entries of the
        command line: whether a run's own file stands for its checkpoint.
      explain: called with a word: its help; with None: the general help.
    """
    self._prepare, self._is_observed = prepare, is_observed
    self._reads_checkpoint, self._explain = reads_checkpoint, explain
    self.captured_out_filter = filter_output  # type: ignore
    self.configurations.append(_resolve)  # type: ignore
    for config_name, entries in reading.named_configs().items():
      self.add_named_config(config_name, entries)

  def run_commandline(self, argv: Sequence[str] | None = None) -> Run | None:
    """Runs a command line, in place of Sacred's, which prints every error.

    Args:
      argv: its words, the program first; None: those of this process.

    Raises:
      ConfigError: if the words make no command; else what the command raises.
      DocoptExit: likewise, with the usage.
      SystemExit: after help.
    """
    _, *words = sys.argv if argv is None else argv
    found = usage.apart(words, self._flags())
    if "--help" in found.options or found.plain[:1] == ["help"]:
      sys.stdout.write(f"{self._explain(usage.asked_for(found))}\n")
      sys.exit()
    args = self._parsed(words, found)
    try:
      # Without debug, Sacred warns of every run that nothing records.
      return self.run(args["COMMAND"], options={**args, "--debug": True})
    except Exception as error:
      if args["--pdb"] and not isinstance(error, ConfigError):
        traceback.print_exc()
        pdb.post_mortem()
      raise

  def _flags(self) -> dict[str, tuple[str, bool]]:
    """{-short or --long: (--long, whether a value follows)}."""
    return {
      flag: (option.get_flag(), not option.is_flag)
      for option in self.all_cli_options
      for flag in option.get_flags()
    }

  def _parsed(self, words: Sequence[str], found: usage.Words) -> dict[str, Any]:
    """Reads a command line; the COMMAND that it names exists."""
    *_, usage_text = self.get_usage()
    commands = dict(self.gather_commands())
    try:
      args = docopt(usage_text, list(words), default_help=False)
    except DocoptExit as error:
      told = usage.explain(words, found, commands, self.named_configs)
      if told is None:
        raise DocoptExit(_without_insides(error, found)) from None
      raise ConfigError(told) from None
    command = args["COMMAND"] or self.default_command
    if command not in commands:
      told = usage.explain(words, found, commands, self.named_configs)
      raise ConfigError(told or usage.no_command(str(command), commands))
    if told := usage.torn_value(args["UPDATE"], self.named_configs):
      raise ConfigError(told)
    return {**args, "COMMAND": command}

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
    run_options.check(options)
    if options.get("--enforce_clean"):
      run_options.check_clean()
    if words := options.get("UPDATE"):
      config_updates, named_configs = parsing.parse_words(words)
    config_updates = config_updates or {}
    reading.check_entries(config_updates)
    in_place = self._reads_checkpoint(command_name, config_updates)
    found = [self._entries(name, in_place) for name in named_configs]
    # Before these are known by other names, too.
    given = self._given(config_updates, named_configs, found)
    # What is done here, Sacred need not do.
    ours = dict.fromkeys(
      (*observers.OPTIONS, "--enforce_clean", "--print-config")
    )
    with self._known(found) as names:
      run = super()._create_run(
        command_name,
        config_updates,
        names,
        info,
        meta_info,
        {**options, **ours},
      )
    run.run_logger.addFilter(_is_worth_telling)
    run.meta_info["named_configs"] = list(named_configs)
    run.meta_info["options"].update((k, options.get(k)) for k in ours)
    if options.get("--print-config"):
      text = printing.format_config(run.config, modified_entries(run))
      sys.stdout.write(f"{text}\n")
    self.prepared = self._prepare(command_name, run.config, given)
    if not self._is_observed(command_name, run.config):
      run.unobserved = True
    if not run.unobserved:
      make_safe(run, options)
    if run.queue_only and (run.unobserved or not run.observers):
      raise ConfigError(
        "--queue: nothing would keep the run. Queue a training with -F or -m, "
        "and without -u"
      )
    return run

  def _given(
    self,
    config_updates: Mapping[str, Any],
    named_configs: Sequence[str],
    found: Sequence[ConfigDict],
  ) -> set[str]:
    """Names of the entries that files and the command line set.

    It warns of configurations that do not go together.

    Args:
      config_updates: entries of the command line.
      named_configs: names and files after `with`.
      found: what they hold.
    """
    entries = [config() for config in found]
    reading.warn_of_mixture(named_configs, entries)
    of_files = (
      set(values)
      for name, values in zip(named_configs, entries, strict=True)
      if name not in self.named_configs
    )
    return set(config_updates).union(*of_files)

  @contextlib.contextmanager
  def _known(self, configs: Sequence[ConfigDict]) -> Iterator[list[str]]:
    """Has Sacred know configurations for a time, by the names it yields.

    Sacred would read a file of a configuration's name, and may run code that it
    finds there; no file has these names. It gets copies, as it merges one into
    another.
    """
    copies = copy.deepcopy(configs)
    named = {f"configuration {i}": x for i, x in enumerate(copies)}
    self.named_configs.update(named)
    try:
      yield list(named)
    finally:
      for name in named:
        del self.named_configs[name]

  def _entries(self, name: str, in_place: bool) -> ConfigDict:
    """Returns the entries of a named configuration or a file.

    Args:
      name: of a configuration, or a path.
      in_place: see `folder.read_file`.
    """
    if name in self.named_configs:
      return self.named_configs[name]
    if name.partition(".")[0] in ENTRIES and not os.path.exists(name):
      raise ConfigError(f"with {name}: needs a value: {name}=VALUE")
    if not os.path.exists(name):
      raise ConfigError(
        f"with {name}: no such configuration or file. "
        + did_you_mean(name, self.named_configs, "configurations")
      )
    return ConfigDict(run_folder.read_file(pathlib.Path(name), in_place))


def modified_entries(run: Run) -> Set[str]:
  """Dotted names of what configuration, files and command line set of a run."""
  return run.config_modifications.modified


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


def _without_insides(error: DocoptExit, found: usage.Words) -> str:
  """What the parser says, in words of the command line."""
  said = str(error).splitlines()[0]
  if found.unknown:
    return f"{found.unknown[0]}: no such option"
  return "These words make no command" if "(None" in said else said


def _is_worth_telling(record: logging.LogRecord) -> bool:
  """Not that Sacred failed after no time: ConfigError says why, and all."""
  is_config_error = isinstance(sys.exc_info()[1], ConfigError)
  is_failure = is_config_error and record.msg.startswith("Failed after")
  return not is_failure and record.msg not in _CHATTER


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


def make_safe(run: Run, options: Mapping[str, Any] | None = None) -> None:
  """Prepares a run that is recorded, and has not started yet.

  The run's metrics may then be recorded by any thread, with `Record.flush`,
  beside the one in which Sacred does so every some seconds.

  Args:
    run: of Sacred.
    options: {--option: value}, of which some ask for observers.

  Raises:
    ConfigError: see `observers.add`.
  """
  observers.add(run, options or {})
  record, lock = run._emit_heartbeat, threading.Lock()

  def record_alone() -> None:
    with lock:
      record()

  run._emit_heartbeat = record_alone  # type: ignore[method-assign]
