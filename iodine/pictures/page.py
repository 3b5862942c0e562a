"""A self-contained page of pictures that works offline."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

__all__ = ["Section", "markdown", "markdown_code", "page"]


class Section(NamedTuple):
  """A section of a page.

  Attributes:
    title: heading.
    text: explanation.
    files: names of pictures.
    table: rows of a table above the pictures; the first row, and of each row
      the first cell, are headers.
  """

  title: str
  text: str
  files: Sequence[str] = ()
  table: Sequence[Sequence[str]] = ()


_STYLE = """\
:root { color-scheme: light dark; }
body {
  font: 1rem/1.55 system-ui, sans-serif; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem;
}
p, dl { max-width: 46rem; }
h2 { margin-top: 2.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
div { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
tr { border-bottom: thin solid #8886; }
img {
  display: block; max-width: 100%; height: auto; margin: 1rem 0;
  background: #fff; padding: .4rem; box-sizing: border-box;
  border-radius: .4rem; box-shadow: 0 0 .4rem #8886;
}"""


def page(
  title: str,
  text: str,
  facts: Iterable[tuple[str, str]],
  sections: Iterable[Section],
) -> str:
  """Renders a page.

  Args:
    title: heading of the page.
    text: introduction.
    facts: names and values, listed below the text.
    sections: remaining sections; their pictures are in the page's folder.

  Returns:
    HTML; special characters in the arguments are escaped.
  """
  title, text = _escaped(title), _escaped(text)
  lines = [
    "<!DOCTYPE html>",
    '<html lang="en">',
    "<head>",
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f"<title>{title}</title>",
    f"<style>\n{_STYLE}\n</style>",
    "</head>",
    "<body>",
    f"<h1>{title}</h1>",
    f"<p>{text}</p>",
    "<dl>",
  ]
  for name, value in facts:
    name, value = _escaped(name), _escaped(value)
    lines.append(f"<dt>{name}</dt><dd>{value}</dd>")
  lines.append("</dl>")
  for section in sections:
    heading = _escaped(section.title)
    lines.append(f"<h2>{heading}</h2>")
    lines.append(f"<p>{_escaped(section.text)}</p>")
    lines += _table(section.table)
    for file in section.files:
      name = _escaped(file)
      lines.append(f'<img src="{name}" alt="{heading}: {name}">')
  return "\n".join([*lines, "</body>", "</html>", ""])


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
  if not rows:
    return
  yield "<div><table>"
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
