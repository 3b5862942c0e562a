"""Holds the models against recorded outputs of the published code.

  python -m tests.parity.check CASE...

A CASE is a folder of recorded files, or a folder of such folders. What kind it
is follows from its files. Prints a line about every group of tensors: their
number, the median of their errors, the worst one with its name, and the bound.
Every recorded array has to be compared or to be known as decided by rounding
alone. Exits with 1 if anything differs or is left out, 2 if there is no case.
"""

import iodine.quiet_tensorflow

import argparse
import logging
import pathlib
import sys
from collections.abc import Callable, Sequence

from tests.parity import (
  cases,
  efficientmorl,
  gnm,
  iodine,
  names,
  preprocessing,
  slate,
  slot_attention,
)
from tests.parity.report import Report

_Check = Callable[[pathlib.Path], Report]

# By the entry `system` of config.json.
_OF_SYSTEM: dict[str | None, _Check] = {
  "slate": slate.check,
  "slot_attention": slot_attention.check,
}


def check_of(folder: pathlib.Path) -> _Check | None:
  """What checks a case; None if a folder is none."""
  if (folder / "tf1_initial").is_dir():
    return iodine.check
  if efficientmorl.is_case(folder):
    return efficientmorl.check
  if (folder / "inputs.npz").exists() and not cases.read_config(folder):
    return preprocessing.check
  if names.is_case(folder):
    return names.check
  if gnm.is_case(folder):
    return gnm.check
  return _OF_SYSTEM.get(cases.read_config(folder).get("system"))


def find(path: pathlib.Path) -> list[pathlib.Path]:
  """The cases that a path names: itself, or the folders in it."""
  if not path.is_dir():
    return []
  if check_of(path):
    return [path]
  folders = sorted(inner for inner in path.iterdir() if inner.is_dir())
  return [folder for folder in folders if check_of(folder)]


def run(folder: pathlib.Path) -> Report:
  """Checks a case, of those that `find` finds, and prints the report."""
  check = check_of(folder)
  assert check is not None, folder
  try:
    report = check(folder)
  except (ValueError, LookupError) as error:
    report = Report(folder.name, {})
    report.fail("error", f"{type(error).__name__}: {error}")
  report.check_all_compared()
  return report


def main(arguments: Sequence[str] | None = None) -> int:
  """Checks the cases of the command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m tests.parity.check",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("cases", nargs="+", type=pathlib.Path, metavar="CASE")
  found, strange = [], []
  for path in parser.parse_args(arguments).cases:
    inside = find(path)
    found += inside
    # A pattern such as cases/* also names the files beside the cases.
    if not inside and not path.is_file():
      strange.append(path)
  for path in strange:
    print(f"{path}: no recorded case", file=sys.stderr)
  if strange or not found:
    parser.print_usage(sys.stderr)
    return 2
  logging.getLogger("tensorflow").setLevel(logging.ERROR)  # about retracing
  agree = [not run(folder).failed for folder in found]
  print(f"{sum(agree)} of {len(agree)} cases agree")
  return 0 if all(agree) else 1


if __name__ == "__main__":
  sys.exit(main())
