"""What a command line was meant to say that cannot be understood."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from iodine.config.entries import ENTRIES
from iodine.errors import did_you_mean

__all__ = [
  "Words",
  "apart",
  "asked_for",
  "explain",
  "no_command",
  "torn_value",
]

_BRACKETS = {"[": "]", "(": ")", "{": "}", "'": "'", '"': '"'}


class Words(NamedTuple):
  """The words of a command line, as far as options can be told from others.

  Attributes:
    plain: words that belong to no option, in order.
    options: their long names, in order.
    unknown: words with dashes that are no options, in order.
  """

  plain: list[str]
  options: list[str]
  unknown: list[str]


def apart(words: Sequence[str], flags: Mapping[str, tuple[str, bool]]) -> Words:
  """Takes words apart.

  Args:
    words: of a command line, without the program.
    flags: {-short or --long: (--long, whether a value follows)}.
  """
  found = Words([], [], [])
  rest = iter(words)
  for word in rest:
    if not word.startswith("-") or word[1:2] in ("", *"0123456789"):
      found.plain.append(word)
      continue
    for flag, attached in _flags(word, flags):
      if flag not in flags:
        found.unknown.append(word)
        break
      name, has_value = flags[flag]
      found.options.append(name)
      if has_value:
        if not attached:
          next(rest, None)
        break
  return found


def _flags(
  word: str, flags: Mapping[str, tuple[str, bool]]
) -> Iterator[tuple[str, bool]]:
  """Yields the flags of a word, and whether more of the word follows each."""
  if word.startswith("--"):
    name, equals, _ = word.partition("=")
    long = [flag for flag in flags if flag.startswith(name)]
    yield (long[0] if len(long) == 1 else name), bool(equals)
    return
  for i, letter in enumerate(word[1:], 2):
    yield f"-{letter}", i < len(word)


def asked_for(found: Words) -> str | None:
  """The word that help is asked for; None: help in general."""
  words = [word for word in found.plain if word != "help"]
  if not words or words[0] == "with":
    return None
  return words[0].partition("=")[0]


def explain(
  words: Sequence[str],
  found: Words,
  commands: Collection[str],
  configs: Collection[str],
) -> str | None:
  """Says what is wrong with words that make no command; None: it is not known.

  Args:
    words: of the command line, without the program.
    found: the same, taken apart.
    commands: names of commands.
    configs: names of configurations.
  """
  if found.unknown:
    return _explain_dashes(words, found.unknown[0])
  for option in found.options:
    if found.options.count(option) > 1:
      return f"{option}: must be given once only"
  before, after = found.plain, []
  if "with" in before:
    place = before.index("with")
    before, after = before[:place], before[place + 1 :]
    if not after:
      return "with: needs a configuration or KEY=VALUE after it"
  command = "train"  # where none is named
  if before[:1] and before[0] not in commands:
    if not _is_update(before[0], configs):
      return no_command(before[0], commands)
  elif before:
    command, *before = before
  if not before:
    return None
  if before[0] in commands:
    return f"{before[0]}: only one command can be run at a time"
  given = " ".join(before).removeprefix("with ").split()  # which may be a word
  meant = shlex.join([command, "with", *given, *after])
  return (
    f"{' '.join(given)}: configurations and entries come after `with`. Did you "
    f"mean `{meant}`?"
  )


def no_command(name: str, commands: Collection[str]) -> str:
  """Says that a command does not exist, and which ones do."""
  near = did_you_mean(name, commands, "commands")
  return f"{name}: no such command. {near}"


def _is_update(word: str, configs: Collection[str]) -> bool:
  """Whether a word would make sense after `with`."""
  is_file = word.endswith((".json", ".yaml", ".yml")) or os.path.isfile(word)
  return "=" in word or word in configs or is_file


def _explain_dashes(words: Sequence[str], word: str) -> str | None:
  """Explains a word that is no option; None if it resembles no entry."""
  name, equals, value = word.lstrip("-").partition("=")
  name = name.replace("-", "_")
  if name.partition(".")[0] not in ENTRIES:
    return None
  if not equals:
    following = words[list(words).index(word) + 1 :]
    value = following[0] if following else "VALUE"
  return (
    f"{word}: entries of the configuration come after `with`, without dashes: "
    f"{name}={value}"
  )


def torn_value(updates: Sequence[str], configs: Collection[str]) -> str | None:
  """Explains an entry that spaces have torn apart; None if none is.

  Args:
    updates: words after `with`.
    configs: names of configurations.
  """
  for i, word in enumerate(updates):
    before, following = updates[max(i - 1, 0) : i], updates[i + 1 :]
    if torn := _torn(before, word, following, configs):
      return (
        f"{' '.join(torn)}: an entry is one word. Write it without spaces: "
        f"{''.join(torn)}"
      )
  return None


def _torn(
  before: Sequence[str],
  word: str,
  following: Sequence[str],
  configs: Collection[str],
) -> Sequence[str]:
  """Words that seem to be one entry with a word; none if that is whole."""
  key, equals, value = word.partition("=")
  if equals and not key:
    is_key = before and not _is_update(before[0], configs)
    return [*before, word, *following[: not value]] if is_key else []
  if equals and not value:
    is_value = following and not _is_update(following[0], configs)
    return [word, following[0]] if is_value else []
  end = _BRACKETS.get(value[:1])
  if end and not value[1:].endswith(end):
    ends = [j for j, x in enumerate(following, 1) if x.endswith(end)]
    return [word, *following[: ends[0]]] if ends else []
  return []
