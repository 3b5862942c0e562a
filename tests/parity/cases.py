"""The files of recorded cases."""

import json
import pathlib
from collections.abc import Set
from typing import Any

import numpy as np

from tests.parity.report import Report


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """The sizes and options of a case; empty if it has none."""
  path = folder / "config.json"
  return json.loads(path.read_text()) if path.exists() else {}


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of an archive."""
  with np.load(path) as archive:
    return {name: archive[name] for name in archive.files}


def compare_names(
  report: Report, group: str, actual: Set[Any], expected: Set[Any]
) -> None:
  """Compares two sets of names, or of names with shapes."""
  for kind, names in (
    ("only in the record", expected - actual),
    ("only here", actual - expected),
  ):
    if names:
      report.fail(group, f"{kind}: {', '.join(map(str, sorted(names)[:8]))}")
  if actual == expected and expected:
    report.tell(group, f"{len(expected):>4} names agree")
  elif not expected:
    report.fail(group, "nothing was compared")
