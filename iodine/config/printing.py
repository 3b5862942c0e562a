"""A whole configuration as text for people."""

import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from iodine import console
from iodine.config.entries import ENTRIES

__all__ = ["format_config"]

_HELP_COLUMN = 37
_LEAST_HELP = 30  # columns, on however narrow a terminal


def format_config(entries: Mapping[str, Any], given: Collection[str]) -> str:
  """All entries of a configuration with their helps, a line or more each.

  On a terminal, those that are given are blue, and the helps faint.

  Args:
    entries: the whole configuration.
    given: dotted names of the entries, and of what is inside of them, that
      configuration, files and command line set.
  """
  lines = ["Configuration:"]
  for name in ENTRIES:
    (assigned, is_given), *inside = _assigned(name, entries[name], given, 1)
    lines += _with_help(assigned, is_given, ENTRIES[name].help)
    lines += [_painted(line, is_set) for line, is_set in inside]
  return "\n".join(lines)


def _assigned(
  path: str, value: Any, given: Collection[str], depth: int
) -> Iterator[tuple[str, bool]]:
  """Yields lines of a value, and of what is inside of it: whether it is given.

  Args:
    path: dotted name of the value.
    value: the value.
    given: see `format_config`.
    depth: of the indentation.
  """
  start = "  " * depth + path.rpartition(".")[2]
  if not isinstance(value, Mapping) or not value:
    yield f"{start} = {value!r}", path in given
    return
  yield f"{start}:", path in given
  for name, inside in value.items():
    yield from _assigned(f"{path}.{name}", inside, given, depth + 1)


def _with_help(assigned: str, is_given: bool, text: str) -> list[str]:
  """Lines of an entry: its help stands to the right, and below."""
  width = max(console.columns() - _HELP_COLUMN - len("# "), _LEAST_HELP)
  helps = [_faint(f"# {line}") for line in _wrapped(text, width)]
  space = " " * (_HELP_COLUMN - len(assigned))
  lines = [_painted(assigned, is_given)]
  if space:
    lines[0] += space + helps.pop(0)
  return lines + [" " * _HELP_COLUMN + line for line in helps]


def _wrapped(text: str, width: int) -> list[str]:
  return textwrap.wrap(text, width, break_on_hyphens=False)


def _painted(line: str, is_given: bool) -> str:
  return console.paint(line, "blue", sys.stdout) if is_given else line


def _faint(text: str) -> str:
  return console.paint(text, "faint", sys.stdout)
