"""Errors whose text is for the user."""

import difflib
import logging
from collections.abc import Iterable

__all__ = [
  "ConfigError",
  "LogFormatter",
  "RunError",
  "did_you_mean",
  "nearest",
  "printable",
]


def printable(text: str) -> str:
  """Text for a terminal, which takes some characters for commands.

  Names of folders and variables, and what is in files, may hold any. Those that
  cannot be printed are replaced by what Python writes for them; lines and tabs
  stay.
  """
  if text.isprintable():
    return text
  return "".join(
    c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text
  )


class LogFormatter(logging.Formatter):
  """Makes log lines that are `printable`."""

  def format(self, record: logging.LogRecord) -> str:
    """See the base class."""
    return printable(super().format(record))


class _ForUsers(Exception):
  """An error whose text can be printed as it is."""

  def __str__(self) -> str:
    return printable(super().__str__())


class ConfigError(_ForUsers, ValueError):
  """A mistake in a configuration; its text is for the user."""


def did_you_mean(
  word: str, choices: Iterable[str], kind: str = "choices"
) -> str:
  """Returns "Did you mean 'x'? Valid <kind>: ..." for an unknown word."""
  choices = sorted(choices)
  near = nearest(word, choices)
  hint = f"Did you mean {near!r}? " if near else ""
  return f"{hint}Valid {kind}: {', '.join(choices) or '(none)'}"


def nearest(word: str, choices: Iterable[str]) -> str | None:
  """Returns the choice that a word most resembles; None if it is like none."""
  lower = {choice.lower(): choice for choice in choices}
  near = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
  return lower[near[0]] if near else None


class RunError(_ForUsers):
  """A run that cannot go on; its text is for the user."""
