"""Errors whose text is for the user."""

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "RunError", "did_you_mean"]


class ConfigError(ValueError):
  """A mistake in a configuration; its text is for the user."""


def did_you_mean(
  word: str, choices: Iterable[str], kind: str = "choices"
) -> str:
  """Returns "Did you mean 'x'? Valid <kind>: ..." for an unknown word."""
  choices = sorted(choices)
  lower = {choice.lower(): choice for choice in choices}
  near = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
  hint = f"Did you mean {lower[near[0]]!r}? " if near else ""
  return f"{hint}Valid {kind}: {', '.join(choices) or '(none)'}"


class RunError(Exception):
  """A run that cannot go on; its text is for the user."""
