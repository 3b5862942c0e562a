"""What a run was computed with: package versions, machine, git commit."""

import iodine.quiet_tensorflow

import datetime
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import subprocess
from typing import Any

import tensorflow as tf

from iodine import files

__all__ = ["DIRTY", "VERSIONS_FILE", "commit", "save_versions"]

VERSIONS_FILE = "versions.json"
DIRTY = "-dirty"
FORMAT = 1  # of an entry

_GIT_SECONDS = 10  # at most

_LOG = logging.getLogger(__name__)


def save_versions(folder: pathlib.Path, step: int) -> None:
  """Adds an entry for this process to a run's file `versions.json`.

  The file is a list with an entry for each time that the run was started or
  continued, of these keys:

  - format: of the entry, 1;
  - date: when that was;
  - step: number of steps that had been taken before;
  - python, platform: version and system;
  - threads: of an operation on the CPU; sums, and so the last bits of results,
    depend on their number;
  - commit: the commit of the git checkout that this package lies in, with
    "-dirty" if its files differ; null if it lies in none;
  - packages: {name: version} of all that are installed.

  Args:
    folder: the run's folder, which exists.
    step: number of steps that have been taken.

  Raises:
    RunError: if the file cannot be written.
  """
  path = folder / VERSIONS_FILE
  text = json.dumps([*_earlier(path), _versions(step)], indent=1)
  files.write_whole(path, f"{text}\n")


def _earlier(path: pathlib.Path) -> list[Any]:
  """Reads the entries of earlier processes; moves a damaged file aside."""
  try:
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
      raise ValueError("it is no list")
  except FileNotFoundError:
    return []
  except (OSError, ValueError, RecursionError) as error:
    kept = _keep_aside(path)
    _LOG.warning(
      "%s cannot be read (%s) and is started over%s", path, error, kept
    )
    return []
  return entries


def _keep_aside(path: pathlib.Path) -> str:
  """Gives a damaged file another name; returns words for it."""
  number = 1
  while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
    number += 1
  try:
    path.rename(aside)
  except OSError as error:
    return f": {error}"
  return f"; what it held is in {aside.name}"


def _versions(step: int) -> dict[str, Any]:
  now = datetime.datetime.now().astimezone()
  found = {
    distribution.metadata["Name"]: distribution.version
    for distribution in importlib.metadata.distributions()
  }
  return {
    "format": FORMAT,
    "date": now.isoformat(" ", "seconds"),
    "step": step,
    "python": platform.python_version(),
    "platform": platform.platform(),
    "threads": _threads(),
    "commit": commit(),
    "packages": {name: found[name] for name in sorted(filter(None, found))},
  }


def _threads() -> int:
  """Threads that TensorFlow takes for an operation on the CPU."""
  chosen = tf.config.threading.get_intra_op_parallelism_threads()
  given = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
  if chosen or given.isdecimal():
    return chosen or int(given)
  if hasattr(os, "sched_getaffinity"):  # not on every system
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def commit() -> str | None:
  """The commit of this package's checkout, with `DIRTY` if files differ.

  None if it lies in no checkout, or git cannot tell.
  """
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / ".git").exists():  # git would also look further up
    return None
  command = ["git", "--no-optional-locks", "-C", str(root), "describe"]
  command += ["--always", f"--dirty={DIRTY}", "--abbrev=40", "--exclude=*"]
  try:
    output = subprocess.run(
      command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return output.stdout.strip() or None
