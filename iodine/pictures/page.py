"""A self-contained page of pictures that works offline."""

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Section", "page"]


class Section(NamedTuple):
  """A section of a page: heading, explanation, and picture files."""

  title: str
  text: str
  files: Sequence[str]


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
  title, text = html.escape(title), html.escape(text)
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
    name, value = html.escape(name), html.escape(value)
    lines.append(f"<dt>{name}</dt><dd>{value}</dd>")
  lines.append("</dl>")
  for section in sections:
    heading = html.escape(section.title)
    lines.append(f"<h2>{heading}</h2>")
    lines.append(f"<p>{html.escape(section.text)}</p>")
    for file in section.files:
      name = html.escape(file)
      lines.append(f'<img src="{name}" alt="{heading}: {name}">')
  return "\n".join([*lines, "</body>", "</html>", ""])
