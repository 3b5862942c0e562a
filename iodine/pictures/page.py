"""A self-contained page of pictures that works offline."""

import html
import importlib.resources
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from iodine.pictures import descriptions

__all__ = [
  "WEB",
  "Section",
  "Widget",
  "markdown",
  "markdown_code",
  "moves",
  "page",
  "still",
]


class Section(NamedTuple):
  """A section of a page.

  Attributes:
    title: heading.
    text: explanation.
    files: names of pictures, see `descriptions`.
    table: rows of a table above the pictures; the first row, and of each row
      the first cell, are headers.
  """

  title: str
  text: str
  files: Sequence[str] = ()
  table: Sequence[Sequence[str]] = ()


class Widget(NamedTuple):
  """A part of a page that a script brings to life; it is trusted as it is.

  Attributes:
    html: its elements.
    style: its style sheet.
    script_file: name of the file beside the page that holds the script.
    script: content of that file.
  """

  html: str
  style: str
  script_file: str
  script: str


WEB = importlib.resources.files("iodine.pictures") / "web"


def page(
  title: str,
  text: str,
  facts: Iterable[tuple[str, str]],
  sections: Iterable[Section],
  widget: Widget | None = None,
) -> str:
  """Renders a page.

  Args:
    title: heading of the page.
    text: introduction.
    facts: names and values, listed below the text.
    sections: remaining sections; their pictures are in the page's folder, and
      so is the `still` of every animation.
    widget: comes before the sections; None: none. Its script is in the page's
      folder, too.

  Returns:
    HTML; special characters in the arguments are escaped.
  """
  lines = ["<dl>"]
  for name, value in facts:
    lines.append(f"<dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd>")
  lines.append("</dl>")
  style = _part("page.css")
  if widget is not None:
    style += widget.style
    lines.append(widget.html)
    lines.append(
      f'<script src="{_escaped(widget.script_file)}" defer></script>'
    )
  for section in sections:
    lines += _section(section)
  return string.Template(_part("page.html")).substitute(
    title=_escaped(title),
    text=_escaped(text),
    style=style,
    body="\n".join(lines),
    script=_part("page.js"),
  )


def _part(name: str) -> str:
  return (WEB / name).read_text(encoding="utf-8")


def _section(section: Section) -> Iterator[str]:
  yield "<section>"
  yield f"<h2>{_escaped(section.title)}</h2>"
  yield f"<p>{_escaped(section.text)}</p>"
  yield from _table(section.table)
  for file in section.files:
    yield from _figure(file)
  yield "</section>"


def _figure(file: str) -> Iterator[str]:
  """A picture that a click enlarges, with a still if it moves."""
  name, words = _escaped(file), descriptions.description(file)
  image = f'<img src="{name}" alt="{_escaped(words.alt)}">'
  if moves(file):
    source = f'<source class="still" srcset="{_escaped(still(file))}"'
    source += ' media="(prefers-reduced-motion: reduce)">'
    image = f"<picture>{source}{image}</picture>"
  yield "<figure>"
  yield f'<a class="enlarge" href="{name}" title="Enlarge">{image}</a>'
  yield f"<figcaption>{_escaped(words.caption)}</figcaption>"
  yield "</figure>"


def moves(file: str) -> bool:
  """Whether a picture is an animation."""
  return file.endswith(".gif")


def still(file: str) -> str:
  """Name of the picture that stands for an animation that is stopped."""
  return f"{file.removesuffix('.gif')}_still.png"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
  if not rows:
    return
  yield '<div class="table"><table>'
  for i, row in enumerate(rows):
    tags = ["th" if i == 0 or j == 0 else "td" for j in range(len(row))]
    cells = zip(tags, map(_escaped, row), strict=True)
    yield f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for tag, cell in cells)}</tr>"
  yield "</table></div>"


def _escaped(text: str) -> str:
  return html.escape(_visible(text))


def markdown(text: str) -> str:
  """Escapes text so that Markdown shows it as it is, in a line or table."""
  return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", _visible(text, "\n\t"))


def markdown_code(text: str) -> str:
  """Writes text as Markdown's code, in a line."""
  text = _visible(text, "\n\t")
  longest = max(map(len, re.findall("`+", text)), default=0)
  fence = "`" * (longest + 1)
  return f"{fence} {text} {fence}" if longest else f"{fence}{text}{fence}"


# Control characters, marks that turn the direction of text, lone surrogates.
_INVISIBLE = re.compile(
  "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def _visible(text: str, others: str = "") -> str:
  r"""Writes what does not show as Python does, such as \x1b, and `others`."""
  text = _INVISIBLE.sub(lambda match: ascii(match[0])[1:-1], text)
  return text.translate({ord(c): ascii(c)[1:-1] for c in others})
