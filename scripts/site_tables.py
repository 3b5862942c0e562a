"""Pages of the documentation site that are made of the code itself."""

import html
import itertools
import re
from collections.abc import Mapping
from typing import NamedTuple

from iodine import manual
from iodine.command_line import COMMANDS
from iodine.config import reading
from iodine.config.entries import ENTRIES, PLANS

__all__ = ["Head", "configurations", "entries", "head"]

_FACTS = ("command", "hardware", "hours", "score")
_FACT = re.compile(rf"^  ({'|'.join(_FACTS)}) +", re.MULTILINE)
_INDENT = " " * 12  # of a fact's further lines
# A page without the list of its headings at the side.
_WIDE = ("---", "hide: [toc]", "---", "")
_DOCUMENT = re.compile(r"docs/(\w+\.md)")


class Head(NamedTuple):
  """What a named configuration says of itself above its first entry.

  Attributes:
    about: its first paragraph.
    facts: {"command", "hardware", "hours" or "score": text}; a command may have
      several lines.
    notes: what follows.
  """

  about: str
  facts: Mapping[str, str]
  notes: str


def head(name: str) -> Head:
  """Reads the head of a named configuration."""
  about, rest, *notes = reading.head_comment(name).split("\n\n", 2)
  _, *parts = _FACT.split(rest)
  facts = {
    fact: text.rstrip().replace(f"\n{_INDENT}", "\n")
    for fact, text in zip(parts[::2], parts[1::2], strict=True)
  }
  return Head(about, facts, "".join(notes))


def configurations() -> str:
  """A page of all named configurations: tables by model, then each alone."""
  lines = [
    *_WIDE,
    "# Configurations",
    "",
    "`python -m iodine.main with NAME` trains one. Scores are those of the "
    "paper or of published code where they say so, else those of this project "
    "on scenes that training has not seen.",
  ]
  named = reading.named_configs()
  for model, names in manual.by_model(named).items():
    rows = []
    for name, about in names.items():
      facts = head(name).facts
      scenes = named[name]["data"]["constructor"].rpartition(".")[2]
      # A link in the words of its heading, as of every row's first cell.
      cells = (f"[`{name}`](#{name})", _prose(about), f"`{scenes}`")
      rows.append([*cells, *(_prose(facts[x]) for x in _FACTS[1:])])
    header = ["configuration", "what it is", "data", *_FACTS[1:]]
    lines += ["", f"## {model}", "", *_table(header, rows)]
  lines += ["", "## Each by itself"]
  for name in named:
    lines += ["", *_section(name)]
  return "\n".join(lines) + "\n"


def _section(name: str) -> list[str]:
  about, facts, notes = head(name)
  lines = reading.source_text(name).splitlines()
  source = itertools.dropwhile(lambda line: line.startswith("#"), lines)
  return [
    f"### {name}",
    "",
    _prose(about),
    "",
    "```bash",
    facts["command"],
    "```",
    "",
    *(f"- {fact}: {_prose(facts[fact])}" for fact in _FACTS[1:]),
    "",
    _prose(notes),
    "",
    f'??? note "configs/{name}.yaml"',
    "",
    "    ```yaml",
    *(f"    {line}".rstrip() for line in source),
    "    ```",
  ]


def entries() -> str:
  """A page of all entries of a configuration, and what they may be."""
  lines = [
    *_WIDE,
    "# Entries of a configuration",
    "",
    "Set them in a file or on the command line: "
    "`python -m iodine.main with tetrominoes batch_size=32 data.skip=100`. "
    f"{_and(PLANS)} are plans: what a constructor takes, see "
    "[Data](data.md#options), the model's page and "
    "[the optimizer](own_model.md#the-optimizer).",
    "",
  ]
  rows = []
  for name in ENTRIES:
    found = manual.entry_help(name, COMMANDS)
    users = ", ".join(f"`{x}`" for x in found.commands) or "all"
    default = f"`{found.default}`"
    texts = (_prose(found.text), _prose(found.value))
    rows.append([f"`{name}`", *texts, default, users])
  header = ["entry", "what it is", "value", "default", "commands"]
  return "\n".join([*lines, *_table(header, rows)]) + "\n"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
  """Lines of a table in Markdown."""
  escaped = [
    [" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in rows
  ]
  cells = [header, ["---"] * len(header), *escaped]
  return [f"| {' | '.join(row)} |" for row in cells]


def _prose(text: str) -> str:
  """A text in Markdown, with links to the documents that it names."""
  return _DOCUMENT.sub(r"[docs/\1](\1)", html.escape(text, quote=False))


def _and(names: tuple[str, ...]) -> str:
  *first, last = (f"`{name}`" for name in names)
  return f"{', '.join(first)} and {last}"
