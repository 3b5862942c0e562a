"""Help: of the program, its commands, configurations, entries and options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from iodine import console
from iodine.config import reading
from iodine.config.entries import ENTRIES, PLANS
from iodine.errors import ConfigError, nearest
from iodine.options import OPTIONS

__all__ = [
  "GROUPS",
  "MODELS",
  "Command",
  "EntryHelp",
  "about",
  "by_model",
  "configurations",
  "entry_help",
  "helps_by_command",
  "overview",
]

GROUPS = {
  "train": "Train",
  "look": "Look at what a model has learned, and at data",
  "checkpoints": "Checkpoints",
  "configuration": "Show the configuration",
}
# {module of a model: what papers call it}.
MODELS = {
  "iodine": "IODINE",
  "slot_attention": "Slot Attention",
  "slate": "SLATE",
  "efficient_morl": "EfficientMORL",
  "gnm": "GNM",
}

_EXAMPLES = (
  "visualize with demo",
  "describe_data with tetrominoes_small",
  "train with tetrominoes_small batch_size=16",
  "evaluate with checkpoints/tetrominoes_small_1/config.json",
)
_OPTIONS_WORD = "options"

_WIDEST_WORD = 34  # of a table, unless its text begins in the next line
_LEAST_TEXT = 30  # columns, on however narrow a terminal


class Command(NamedTuple):
  """What help says of a command.

  Attributes:
    group: one of `GROUPS`.
    example: words of a command line, without the program.
    text: what it does, in a first paragraph of one line, and what it writes.
    entries: names of the entries of every command that count for this one;
      None: all.
  """

  group: str
  example: str
  text: str
  entries: Sequence[str] | None = None

  @property
  def summary(self) -> str:
    """The first line."""
    return self.text.partition("\n")[0]


class EntryHelp(NamedTuple):
  """What help says of an entry of a configuration.

  Attributes:
    text: what it is; where that differs between commands, it names them.
    value: what it may be.
    default: its value where nothing is set.
    commands: that it is of; none: all that have a configuration.
  """

  text: str
  value: str
  default: str
  commands: Sequence[str]


def overview(
  commands: Mapping[str, Command], named: Mapping[str, Mapping[str, Any]]
) -> str:
  """The general help.

  Args:
    commands: {name: command}, in order.
    named: {name: entries} of the configurations.
  """
  program = console.program()
  common = [name for name, option in OPTIONS.items() if option.is_common]
  lines = [
    *_wrapped(
      "Decomposes images into objects without supervision: trains IODINE and "
      "other models, scores them, and draws what they have learned."
    ),
    "",
    f"  {program} COMMAND with CONFIGURATION [ENTRY=VALUE ...] [OPTION ...]",
    f"  {program} help [COMMAND | CONFIGURATION | ENTRY | {_OPTIONS_WORD}]",
    "",
    "Examples:",
    *(f"  {program} {example}" for example in _EXAMPLES),
  ]
  for group, title in GROUPS.items():
    own = {k: v.summary for k, v in commands.items() if v.group == group}
    lines += ["", f"{title}:", *_table(own)]
  lines += ["", configurations(named)]
  lines += ["", "Options:", *_options(common)]
  lines += _wrapped(f"`help {_OPTIONS_WORD}` lists all.", "  ")
  return "\n".join(lines)


def configurations(named: Mapping[str, Mapping[str, Any]]) -> str:
  """A list of the named configurations, by model, a sentence each.

  Args:
    named: {name: entries}.
  """
  lines = ["Configurations:"]
  for model, sentences in by_model(named).items():
    lines += [f"  {model}:", *_table(sentences, "    ")]
  return "\n".join(lines)


def by_model(
  named: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, str]]:
  """What the named configurations are.

  Args:
    named: {name: entries}.

  Returns:
    {what papers call a model: {name: a sentence}}.
  """
  found: dict[str, dict[str, str]] = {model: {} for model in MODELS.values()}
  for name, entries in named.items():
    *_, module, _ = entries["model"]["constructor"].split(".")
    sentence = _first_sentence(reading.head_comment(name))
    model = MODELS[module]
    found[model][name] = sentence.removeprefix(f"{model} on ")
  return {model: own for model, own in found.items() if own}


def about(word: str, commands: Mapping[str, Command]) -> str:
  """The help of a word.

  Args:
    word: name of a command, a configuration or an entry, or "options".
    commands: {name: command}.

  Raises:
    ConfigError: if there is no such thing.
  """
  named, entry = reading.config_names(), word.partition(".")[0]
  if word in commands:
    return _about_command(word, commands)
  if word in named:
    return reading.head_comment(word)
  if word in ENTRIES or entry in PLANS:
    return _about_entry(entry, commands)
  if word == _OPTIONS_WORD:
    return "\n".join(["Options:", *_options(OPTIONS)])
  near = nearest(word, [*commands, *named, *ENTRIES, _OPTIONS_WORD])
  meant = f"Did you mean {near!r}? " if near else ""
  raise ConfigError(
    f"{word}: no such command, configuration or entry. {meant}`help` lists "
    "commands and configurations"
  )


def _about_command(name: str, commands: Mapping[str, Command]) -> str:
  command = commands[name]
  lines = _wrapped(f"{name}: {command.summary}")
  for paragraph in command.text.split("\n\n")[1:]:
    lines += ["", *_wrapped(paragraph)]
  lines += ["", "Example:", f"  {console.program()} {command.example}"]
  own, common = {}, {}
  for entry, (default, text, *_) in ENTRIES.items():
    helps = helps_by_command(text, commands)
    if name in helps:
      own[f"{entry}={default}"] = helps[name]
    elif not helps and (command.entries is None or entry in command.entries):
      common[entry] = text
  if own:
    lines += ["", "Its entries, with their defaults:", *_table(own)]
  if common:
    title = "Entries that it shares with other commands:"
    lines += ["", title, *_table(common)]
  return "\n".join(lines)


def helps_by_command(text: str, commands: Collection[str]) -> dict[str, str]:
  """What the help of an entry says to each command that has it.

  Args:
    text: such as "evaluate: how many scenes" or "traverse, compose: which slot;
      evaluate: what to score", see `Entry`.
    commands: names of commands.

  Returns:
    {command: help}; empty if the entry is of all commands.
  """
  found: dict[str, str] = {}
  names: list[str] = []
  for part in text.split("; "):
    head, colon, rest = part.partition(": ")
    if colon and set(head.split(", ")) <= set(commands):
      names = head.split(", ")
      found.update(dict.fromkeys(names, rest))
    else:
      found.update({name: f"{found[name]}; {part}" for name in names})
  return found


def _about_entry(name: str, commands: Mapping[str, Command]) -> str:
  found = entry_help(name, commands)
  rows = {
    "value": found.value,
    "default": found.default,
    "of": ", ".join(found.commands) or "every command that has a configuration",
  }
  return "\n".join([*_wrapped(f"{name}: {found.text}"), "", *_table(rows)])


def entry_help(name: str, commands: Collection[str]) -> EntryHelp:
  """What help says of an entry of a configuration.

  Args:
    name: of the entry.
    commands: names of all commands.
  """
  entry = ENTRIES[name]
  fault = entry.fault(name, _Nothing()) or ""
  expected = fault.partition(f"{_Nothing()!r}: ")[2].removeprefix("expected ")
  expected = expected.replace("no such value. Valid values:", "one of")
  if entry.fault(name, None) is None and not expected.endswith("None"):
    expected += ", or None"
  users = helps_by_command(entry.help, commands)
  texts = set(users.values())
  text = texts.pop() if len(texts) == 1 else entry.help
  return EntryHelp(text, expected, repr(entry.default), tuple(users))


class _Nothing:
  """A value that no entry has, so that its fault tells what it must be."""

  def __repr__(self) -> str:
    return "?"


def _first_sentence(text: str) -> str:
  paragraph = " ".join(text.partition("\n\n")[0].split())
  return re.split(r"\.(?: |$)", paragraph)[0]


def _options(names: Iterable[str]) -> list[str]:
  rows = {}
  for name in names:
    letter, value, text, _ = OPTIONS[name]
    rows[f"{letter}, {name} {value}".rstrip()] = text
  return _table(rows)


def _table(rows: Mapping[str, str], indent: str = "  ") -> list[str]:
  """Lines of {word: its text}, in two columns as wide as the terminal."""
  width = max((n for n in map(len, rows) if n <= _WIDEST_WORD), default=0)
  space = indent + " " * (width + 2)
  lines = []
  for word, text in rows.items():
    start = f"{indent}{word:<{width}}  "
    if len(word) > width:
      lines.append(start.rstrip())
      start = space
    lines += _wrapped(text, start, space)
  return lines


def _wrapped(text: str, start: str = "", rest: str | None = None) -> list[str]:
  """Lines as wide as the terminal; the second and all others begin alike."""
  return textwrap.wrap(
    text,
    max(console.columns(), len(start) + _LEAST_TEXT),
    initial_indent=start,
    subsequent_indent=start if rest is None else rest,
    break_long_words=False,
    break_on_hyphens=False,
  )
