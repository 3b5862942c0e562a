"""Sacred with plain data, and with records that survive a kill.

What of Sacred is private is used here alone, see `PRIVATE`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
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
from sacred.arg_parser import printable_usage
from sacred.commands import help_for_command
from sacred.config import ConfigDict
from sacred.config.config_summary import ConfigSummary
from sacred.randomness import set_global_seed
from sacred.run import Run
from sacred.utils import apply_backspaces_and_linefeeds, iterate_flattened

from iodine import console, observers
from iodine import usage as usages
from iodine.config import parsing, reading, resolution
from iodine.config.entries import ENTRIES
from iodine.errors import ConfigError, did_you_mean
from iodine.files import is_plain_name
from iodine.runs import folder as run_folder

__all__ = ["Experiment", "Record", "filter_output", "make_safe", "usage"]

# {class or module of Sacred: what is used of it without being documented}.
PRIVATE: dict[Any, tuple[str, ...]] = {
  SacredExperiment: ("_create_run", "configurations"),
  Run: ("_id", "_emit_heartbeat"),
  stdout_capturing: ("tee_output_python",),
}

_CAPTURE_MODES = ("no", "sys", "fd")
_BEATS = (0.1, 1_000_000)  # seconds between two of Sacred's heartbeats
_MAX_ID = 100  # bytes; the name of a run's folder has more than the id


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
  ) -> None:
    """Adds the configurations, and what happens before a command.

    Args:
      prepare: called with a command's name, its configuration and the names
        of the entries that files and the command line set, before the run is
        recorded; raises ConfigError where that must not start.
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
    _, shown, internal = self.get_usage()
    commands = dict(self.gather_commands())
    found = usages.apart(words, self._flags())
    if "--help" in found.options or found.plain[:1] == ["help"]:
      sys.stdout.write(f"{_help(found.plain, commands, shown)}\n")
      sys.exit()
    args = self._parsed(internal, words, found, commands)
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

  def _parsed(
    self,
    usage_text: str,
    words: Sequence[str],
    found: usages.Words,
    commands: Mapping[str, Any],
  ) -> dict[str, Any]:
    """Reads a command line by a usage; the COMMAND that it names exists."""
    try:
      args = docopt(usage_text, list(words), default_help=False)
    except DocoptExit as error:
      told = usages.explain(words, found, commands, self.named_configs)
      if told is None:
        raise DocoptExit(_without_insides(error, found)) from None
      raise ConfigError(told) from None
    command = args["COMMAND"] or self.default_command
    if command not in commands:
      told = usages.explain(words, found, commands, self.named_configs)
      raise ConfigError(told or usages.no_command(str(command), commands))
    if told := usages.torn_value(args["UPDATE"], self.named_configs):
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
    _check_options(options)
    if options.get("--enforce_clean"):
      _check_clean()
    if words := options.get("UPDATE"):
      config_updates, named_configs = parsing.parse_words(words)
    config_updates = config_updates or {}
    reading.check_entries(config_updates)
    in_place = self._reads_checkpoint(command_name, config_updates)
    found = [self._entries(name, in_place) for name in named_configs]
    # Before these are known by other names, too.
    given = self._given(config_updates, named_configs, found)
    # What is done here, Sacred need not do.
    ours = dict.fromkeys((*observers.OPTIONS, "--enforce_clean"))
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
    finds there; no file has these names.
    """
    named = {f"configuration {i}": x for i, x in enumerate(configs)}
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
  """Raises ConfigError for values that Sacred's options reject, all at once."""
  given = {
    option: value
    for option, value in options.items()
    if option.startswith("--") and value is not None
  }
  wrong = [
    f"{option}={value}: {fault}"
    for option, value in given.items()
    if (fault := _option_fault(option, value))
  ]
  wrong += observers.faults(options)
  if wrong:
    raise ConfigError("\n".join(wrong))


def _option_fault(option: str, value: Any) -> str | None:
  """What is wrong with the value of an option that names no observer."""
  if value == "" and option != "--comment":
    return "must not be empty"
  if option == "--loglevel" and not _is_level(str(value)):
    return (
      "must be a number from 0 to 50, or one of DEBUG, INFO, WARNING, ERROR "
      "and CRITICAL"
    )
  if option == "--capture" and value not in _CAPTURE_MODES:
    return f"must be one of {', '.join(_CAPTURE_MODES)}"
  if option == "--beat-interval":
    least, most = _BEATS
    if not least <= _number(value) <= most:
      return f"must be a number of seconds from {least} to {most:,}"
  if option == "--priority" and not math.isfinite(_number(value)):
    return "must be a number"
  if option == "--id" and not _is_id(str(value)):
    return (
      "must be a name for folders, with no / in it and no more than "
      f"{_MAX_ID} characters"
    )
  return None


def _number(text: Any) -> float:
  try:
    return float(text)
  except ValueError:
    return math.nan


def _is_level(text: str) -> bool:
  if text.isdecimal():
    return int(text) <= logging.CRITICAL
  return isinstance(logging.getLevelName(text), int)


def _is_id(text: str) -> bool:
  """Whether files of a run can lie in a folder of this name."""
  return (
    is_plain_name(text)
    and len(os.fsencode(text)) <= _MAX_ID
    and text not in ("_sources", "_resources")  # of all of Sacred's runs
    and (text.isascii() or not text.isdigit())  # a number to Sacred, as "²"
  )


def _check_clean() -> None:
  """Raises ConfigError unless the code is that of a commit.

  Sacred would ask for each file of the package by itself.
  """
  from iodine.runs import versions

  commit = versions.commit()
  if commit is None:
    raise ConfigError(
      "--enforce_clean: needs git, and the package in a git checkout"
    )
  if commit.endswith(versions.DIRTY):
    raise ConfigError(
      "--enforce_clean: files of the checkout differ from its commit, see "
      "`git status`. Commit them, or put them back"
    )


def _help(words: Sequence[str], commands: Mapping[str, Any], shown: str) -> str:
  """The help of the first command among words, if any; else what is shown."""
  for name in [word for word in words if word != "help"][:1]:
    if name in commands:
      return help_for_command(commands[name])
    if name != "with":
      raise ConfigError(usages.no_command(name, commands))
  return shown


def _without_insides(error: DocoptExit, found: usages.Words) -> str:
  """What the parser says, in words of the command line."""
  said = str(error).splitlines()[0]
  if found.unknown:
    return f"{found.unknown[0]}: no such option"
  return "These words make no command" if "(None" in said else said


def _is_worth_telling(record: logging.LogRecord) -> bool:
  """Not that Sacred failed after no time: ConfigError says why, and all."""
  is_config_error = isinstance(sys.exc_info()[1], ConfigError)
  return not (is_config_error and record.msg.startswith("Failed after"))


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
