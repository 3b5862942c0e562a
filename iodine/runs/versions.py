"""What a run was computed with: package versions, machine, git commit."""

import datetime
import importlib.metadata
import json
import logging
import pathlib
import platform
import subprocess
from typing import Any

from iodine import files

__all__ = ["VERSIONS_FILE", "save_versions"]

VERSIONS_FILE = "versions.json"

_GIT_SECONDS = 10  # at most

_LOG = logging.getLogger(__name__)


def save_versions(folder: pathlib.Path, step: int) -> None:
  """Adds an entry for this process to a run's file `versions.json`.

  The file is a list with an entry for each time that the run was started or
  continued, of these keys:

  - date: when that was;
  - step: number of steps that had been taken before;
  - python, platform: version and system;
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
  """Reads the entries of earlier processes; none if the file is damaged."""
  try:
    entries = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    return []
  except (OSError, ValueError, RecursionError) as error:
    _LOG.warning("%s cannot be read and begins anew: %s", path, error)
    return []
  return entries if isinstance(entries, list) else []


def _versions(step: int) -> dict[str, Any]:
  now = datetime.datetime.now().astimezone()
  found = {
    distribution.metadata["Name"]: distribution.version
    for distribution in importlib.metadata.distributions()
  }
  return {
    "date": now.isoformat(" ", "seconds"),
    "step": step,
    "python": platform.python_version(),
    "platform": platform.platform(),
    "commit": _commit(),
    "packages": {name: found[name] for name in sorted(filter(None, found))},
  }


def _commit() -> str | None:
  """Describes the commit of this package's checkout, if it lies in one."""
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / ".git").exists():  # git would also look further up
    return None
  command = ["git", "--no-optional-locks", "-C", str(root), "describe"]
  command += ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
  try:
    output = subprocess.run(
      command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return output.stdout.strip() or None
