"""Hooks of MkDocs: what `mkdocs.yml` cannot say of the documentation site.

The site has the tree of the repository, so that a link leads to the same
document there and on a code host.
"""

import html
import pathlib
import posixpath
import re

import latex2mathml.converter
import ziamath
from mkdocs import plugins
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts import site_tables

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_DOCUMENTS = ("*.md", "*.ipynb", "CITATION.cff", "docs/*", "benchmarks/*.md")
_PICTURES = ("benchmarks/*.png",)
_GENERATED = {
  "docs/configurations.md": site_tables.configurations,
  "docs/entries.md": site_tables.entries,
}
# Browsers that have no font for formulas get this one.
_FONT = "fonts/STIXTwoMath-Regular.ttf"
# What a code host lists, and the page that says the same of it.
_FOLDERS = {"configs": "docs/configurations.md"}

_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)\)")
_NAME = re.compile(r"`([\w.]+)(?:\(.*\))?`")
_HREF = re.compile(r'(?<=href=")[\w./-]+\.(?:md|ipynb)(?=["#])')
_MATH = re.compile(
  r'<(div|span) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.DOTALL
)


@plugins.event_priority(100)  # before the plugins that read documents
def on_files(files: Files, config: MkDocsConfig) -> None:
  """Replaces the files of docs/ by all documents, by their paths from here."""
  for file in list(files):
    if file.src_dir == config.docs_dir:
      files.remove(file)
  place = (str(_ROOT), config.site_dir, config.use_directory_urls)
  for pattern in (*_DOCUMENTS, *_PICTURES):
    for path in sorted(_ROOT.glob(pattern)):
      files.append(File(path.relative_to(_ROOT).as_posix(), *place))
  for name, content in _GENERATED.items():
    files.append(File.generated(config, name, content=content()))
  font = pathlib.Path(ziamath.__file__).parent / _FONT
  files.append(File.generated(config, _FONT, abs_src_path=str(font)))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
  """Lets links to sources and folders lead to their pages."""
  folder = posixpath.dirname(page.file.src_uri)

  def replaced(link: re.Match) -> str:
    text, target = link.groups()
    path = posixpath.normpath(posixpath.join(folder, target))
    if path in _FOLDERS:
      return f"[{text}]({posixpath.relpath(_FOLDERS[path], folder or '.')})"
    if path.startswith("iodine/") and path.endswith(".py"):
      identifier = _public(path, text)
      return f"[{text}][{identifier}]" if identifier else text
    return link[0]

  return _LINK.sub(replaced, markdown)


def _public(path: str, text: str) -> str | None:
  """The identifier, in the reference, of what a link to a source is about.

  Args:
    path: of the source.
    text: of the link: what is meant there, or anything else.

  Returns:
    None for private modules, which the reference leaves out.
  """
  parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
  if any(map(_is_private, parts)):
    return None
  name = _NAME.fullmatch(text)
  for part in (
    name[1].split(".") if name and not name[1].endswith(".py") else ()
  ):
    if _is_private(part):
      break
    parts.append(part)
  return ".".join(parts)


def _is_private(name: str) -> bool:
  return name.startswith("_") and not name.endswith("__")


def on_page_content(
  html_text: str, page: Page, files: Files, **_: object
) -> str:
  """Renders formulas, and lets links of the notebook lead to pages."""
  if page.file.src_uri.endswith(".ipynb"):

    def url(link: re.Match) -> str:
      file = files.get_file_from_path(link[0])
      return file.url_relative_to(page.file) if file else link[0]

    html_text = _HREF.sub(url, html_text)
  return _MATH.sub(_mathml, html_text)


def _mathml(formula: re.Match) -> str:
  tag, latex = formula.groups()
  display = "block" if tag == "div" else "inline"
  return latex2mathml.converter.convert(html.unescape(latex), display=display)
