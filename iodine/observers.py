"""Sacred's observers, as its options ask for them: all that record a run.

What is wrong with an option is told before work starts, and without the
frames of the libraries that an observer needs.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sacred.observers import (
  FileStorageObserver,
  MongoObserver,
  RunObserver,
  S3Observer,
  SqlObserver,
  TinyDbObserver,
)
from sacred.observers.mongo import get_pattern, parse_mongo_db_arg
from sacred.run import Run
from sacred.serializer import flatten

from iodine.errors import ConfigError, RunError
from iodine.files import write_whole

__all__ = ["OPTIONS", "add", "faults"]

_LOG = logging.getLogger(__name__)

_ANSWER_SECONDS = 5  # that a database has
_S3_PLACE = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<basedir>.+)")


class _SafeFileStorage(FileStorageObserver):
  """Replaces files as a whole, and says where it cannot write.

  All metrics of a run are written again each time, so this has to be quick.
  """

  def queued_event(self, *args: Any, **details: Any) -> Any:
    # Sacred would look for the sources in the working directory.
    sources = self.save_sources(details["ex_info"])
    details["ex_info"] = {**details["ex_info"], "sources": sources}
    self.copy_sources = False
    return super().queued_event(*args, **details)

  def log_metrics(self, metrics_by_name: Mapping[str, Any], info: Any) -> None:
    if metrics_by_name:
      super().log_metrics(metrics_by_name, info)

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


def _make_mongo(place: str) -> RunObserver:
  import pymongo

  details = parse_mongo_db_arg(place)
  url = details.get("url")
  client: Any = pymongo.MongoClient(
    url, serverSelectionTimeoutMS=1000 * _ANSWER_SECONDS
  )
  try:
    client.admin.command("ping")
  except pymongo.errors.ConnectionFailure as error:
    raise ConfigError(
      f"no database answers at {url or 'localhost:27017'} within "
      f"{_ANSWER_SECONDS} seconds. Start MongoDB there, or name another place"
    ) from error
  finally:
    client.close()
  return MongoObserver(**details)  # more patient, once the run has begun


def _mongo_fault(place: str) -> str | None:
  if re.match(get_pattern(), place):
    return None
  return "must be [HOST:PORT:]DATABASE[.COLLECTION[:ID]][!PRIORITY]"


def _make_s3(place: str) -> RunObserver:
  match = _S3_PLACE.fullmatch(place)
  assert match, "see _s3_fault"
  return S3Observer(**match.groupdict())


def _s3_fault(place: str) -> str | None:
  return None if _S3_PLACE.fullmatch(place) else "must be s3://BUCKET/FOLDER"


def _sql_fault(place: str) -> str | None:
  if re.match(r"\w+(\+\w+)?://", place):
    return None
  return "must be DIALECT://USER:PASSWORD@HOST:PORT/DATABASE, or sqlite:///FILE"


class _Kind(NamedTuple):
  """What an option makes an observer of.

  Attributes:
    make: called with the option's value; may raise anything.
    fault: called likewise: what is wrong with the value, if anything is.
    modules: that Sacred imports for it.
    source: where these come from.
    can_queue: whether Sacred can queue a run there.
  """

  make: Callable[[str], RunObserver]
  fault: Callable[[str], str | None] = lambda value: None
  modules: tuple[str, ...] = ()
  source: str = ""
  can_queue: bool = True


_KINDS = {
  "--file_storage": _Kind(FileStorageObserver),
  "--mongo_db": _Kind(
    _make_mongo,
    _mongo_fault,
    ("pymongo",),
    "which the extra `mongo` installs (in a checkout: pip install '.[mongo]')",
  ),
  "--sql": _Kind(
    SqlObserver,
    _sql_fault,
    ("sqlalchemy",),
    "see `pip install sqlalchemy`",
    can_queue=False,
  ),
  "--s3": _Kind(
    _make_s3, _s3_fault, ("boto3",), "see `pip install boto3`", can_queue=False
  ),
  "--tiny_db": _Kind(
    TinyDbObserver,
    modules=("tinydb", "tinydb_serialization", "hashfs"),
    source="see `pip install tinydb tinydb-serialization hashfs`",
    can_queue=False,
  ),
}
OPTIONS = tuple(_KINDS)


def faults(options: Mapping[str, Any]) -> list[str]:
  """What is wrong with options that ask for observers.

  Args:
    options: {--option: value} of a command; None: not given.
  """
  found = []
  for option, kind in _KINDS.items():
    value = options.get(option)
    if value is None:
      continue
    wrong = [kind.fault(value)]
    if missing := [x for x in kind.modules if not _is_installed(x)]:
      wrong.append(f"needs {', '.join(missing)}, {kind.source}")
    if any(wrong):
      told = "; ".join(filter(None, wrong))
      found.append(f"{_shown(option, value)}: {told}")
    if options.get("--queue") and not kind.can_queue:
      found.append(f"--queue: Sacred cannot queue a run in {option}")
  return found


def add(run: Run, options: Mapping[str, Any]) -> None:
  """Makes the observers that options ask for, and prepares all that a run has.

  Args:
    run: that has not started. It raises ConfigError as it starts if an observer
      cannot begin the record.
    options: without `faults`.

  Raises:
    ConfigError: if an observer cannot be made, such as for a database that
      does not answer, or the folder of one.
  """
  named = [(_name(observer), observer) for observer in run.observers]
  for option, kind in _KINDS.items():
    if (value := options.get(option)) is None:
      continue
    shown = _shown(option, value)
    try:
      named.append((shown, kind.make(value)))
    except Exception as error:  # of any library
      raise ConfigError(f"{shown}: {_reason(error)}") from error
  begun: list[RunObserver] = []
  for shown, observer in named:
    if isinstance(observer, FileStorageObserver):
      observer.__class__ = _SafeFileStorage
      try:
        os.makedirs(observer.basedir, exist_ok=True)
      except OSError as error:
        raise ConfigError(f"{shown}: cannot be made: {error}") from error
    for event in ("started_event", "queued_event"):
      begin = functools.partial(
        _begin, run, begun, observer, shown, getattr(observer, event)
      )
      setattr(observer, event, begin)
  run.observers = [observer for _, observer in named]


def _name(observer: RunObserver) -> str:
  """What an observer is called that no option of this command asked for."""
  if isinstance(observer, FileStorageObserver):
    return f"--file_storage={observer.basedir}"
  return type(observer).__name__


def _begin(
  run: Run,
  begun: list[RunObserver],
  observer: RunObserver,
  shown: str,
  start: Callable[..., Any],
  **details: Any,
) -> Any:
  """Begins an observer's record of a run.

  Args:
    run: the run.
    begun: observers of the run that have begun; this one is added.
    observer: the observer.
    shown: the option that asked for it.
    start: called with the rest.
    **details: of the run.

  Raises:
    ConfigError: if it cannot be begun; then only those that have begun go on.
  """
  try:
    run_id = start(**details)
  except Exception as error:  # of any library
    run.observers = list(begun)
    raise ConfigError(
      f"{shown}: cannot be written: {_reason(error)}"
    ) from error
  begun.append(observer)
  return run_id


def _is_installed(module: str) -> bool:
  return importlib.util.find_spec(module) is not None


def _shown(option: str, value: str) -> str:
  """An option as it was given, less the password of a place."""
  place = re.sub("(://[^:/@]*):[^@/]*@", r"\1:...@", value)
  return f"{option}={place}"


def _reason(error: Exception) -> str:
  """What an error says, in one line."""
  if isinstance(error, ModuleNotFoundError):  # such as a database's driver
    return f"needs {error.name}, see `pip install {error.name}`"
  line, *_ = str(error).strip().splitlines() or [type(error).__name__]
  return line
