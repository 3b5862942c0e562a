"""Records the golden checkpoints of tests/golden, those that are not there yet.

  python -m scripts.write_golden [--force] [CASE ...]

A file that is there proves that a later version still loads what an earlier one
saved. It is replaced with --force alone.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.golden import cases  # noqa: E402


def main(
  argv: Sequence[str] | None = None, folder: pathlib.Path = cases.FOLDER
) -> None:
  """Writes the files of cases; the words of the command choose which."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("case", nargs="*", help="which; none: those not there")
  parser.add_argument("--force", action="store_true", help="replace files")
  arguments = parser.parse_args(argv)
  paths = {name: folder / f"{name}.npz" for name in cases.CASES}
  for name in arguments.case:
    if name not in paths:
      parser.error(f"{name}: no such case; there are {', '.join(paths)}")
  chosen = arguments.case or [
    name for name in paths if arguments.force or not paths[name].exists()
  ]
  kept = [name for name in chosen if paths[name].exists()]
  if kept and not arguments.force:
    sys.exit(f"{', '.join(kept)}: recorded already. --force records anew")
  for name in chosen:
    cases.write(paths[name], cases.record(cases.CASES[name]))
    print(f"Wrote {paths[name]}, {paths[name].stat().st_size:,} bytes")


if __name__ == "__main__":
  main()
