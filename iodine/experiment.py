"""Sacred's record of a run, such that a kill does not harm it."""

import json
import logging
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.run import Run
from sacred.serializer import flatten
from sacred.utils import apply_backspaces_and_linefeeds

from iodine import errors, files
from iodine.errors import ConfigError

__all__ = ["filter_output", "make_safe"]

_LOG = logging.getLogger(__name__)


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
    except (OSError, errors.RunError) as error:
      raise ConfigError(
        f"--file_storage={self.basedir}: cannot be written: {error}"
      ) from error

  def save_json(self, obj: Any, filename: str) -> None:
    if filename == "metrics.json":  # plain numbers and text; indents are slow
      text = json.dumps(obj)
    else:
      text = json.dumps(flatten(obj), sort_keys=True, indent=2)
    try:
      files.write_whole(pathlib.Path(str(self.dir), filename), text)
    except errors.RunError as error:
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
  metrics may then be recorded by any thread, with `run._emit_heartbeat`, beside
  the one in which Sacred does so every some seconds.

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
