"""Sacred's options: what they mean, and what is wrong with their values."""

import logging
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from iodine import observers
from iodine.errors import ConfigError
from iodine.files import is_plain_name

__all__ = ["OPTIONS", "Option", "check", "check_clean"]

_CAPTURE_MODES = ("no", "sys", "fd")
_BEATS = (0.1, 1_000_000)  # seconds between two of Sacred's heartbeats
_MAX_ID = 100  # bytes; the name of a run's folder has more than the id


class Option(NamedTuple):
  """One of Sacred's options.

  Attributes:
    letter: its short form.
    value: what follows it; "" if nothing does.
    help: what it does, for people.
    is_common: whether the general help shows it.
  """

  letter: str
  value: str
  help: str
  is_common: bool = False


# {long form: option}, in the order in which help shows them.
OPTIONS = {
  "--help": Option("-h", "", "show this help, or that of a command", True),
  "--file_storage": Option(
    "-F",
    "FOLDER",
    "record the run there: configuration, scalars and output",
    True,
  ),
  "--mongo_db": Option(
    "-m",
    "DATABASE",
    "record it in MongoDB: [HOST:PORT:]NAME[.COLLECTION[:ID]][!PRIORITY]",
    True,
  ),
  "--unobserved": Option("-u", "", "record nothing", True),
  "--loglevel": Option(
    "-l",
    "LEVEL",
    "log from this level on: DEBUG, INFO (the default), WARNING, ERROR, "
    "CRITICAL, or 0 to 50",
    True,
  ),
  "--print-config": Option("-p", "", "print the configuration first", True),
  "--id": Option("-i", "ID", "the run's id, instead of the recorder's"),
  "--name": Option("-n", "NAME", "what the record calls the experiment"),
  "--comment": Option("-c", "TEXT", "a comment for the record"),
  "--sql": Option(
    "-s",
    "DATABASE",
    "record the run in an SQL database: "
    "DIALECT://USER:PASSWORD@HOST:PORT/NAME, or sqlite:///FILE",
  ),
  "--tiny_db": Option("-t", "FOLDER", "record the run in a TinyDB there"),
  "--s3": Option("-S", "PLACE", "record the run in s3://BUCKET/FOLDER"),
  "--beat-interval": Option(
    "-b", "SECONDS", "time between two writes of the record"
  ),
  "--capture": Option(
    "-C",
    "MODE",
    "what output is recorded: none (no), that of Python (sys, the default) or "
    "of all libraries (fd)",
  ),
  "--enforce_clean": Option(
    "-e", "", "refuse to run unless git has all changes of the code"
  ),
  "--queue": Option("-q", "", "record the run as waiting; do not start it"),
  "--priority": Option("-P", "NUMBER", "the priority of a waiting run"),
  "--debug": Option("-d", "", "no effect: errors are always shown in full"),
  "--pdb": Option("-D", "", "open the debugger where a run fails"),
  "--force": Option("-f", "", "no effect: wrong entries are always errors"),
}


def check(options: Mapping[str, Any]) -> None:
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


def check_clean() -> None:
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
