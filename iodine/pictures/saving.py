"""Figures as files: PNG for pages and screens, PDF and SVG for print."""

from __future__ import annotations

import io
import pathlib
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from iodine.config.entries import FIGURE_FORMATS
from iodine.files import write_whole

__all__ = ["Album", "contents", "forms", "replace"]

# Of a PNG, and of what is no line or text in other files: sharp on screens of
# twice the usual density, and legible in print.
_DPI = 200
# Equal figures become equal files.
_NO_DATE: dict[str, dict[str, Any]] = {
  "pdf": {"CreationDate": None},
  "svg": {"Date": None},
}


class Album(NamedTuple):
  """Where figures go.

  Attributes:
    folder: existing folder.
    format: one of `FIGURE_FORMATS`, in which there is a file of each figure,
      beside the PNG file that pages show.
  """

  folder: pathlib.Path
  format: str = "png"

  def add(self, figure: Figure, name: str) -> None:
    """Writes a figure as `name`, NAME.png, and in the album's format."""
    for file, content in contents(figure, name, self.format).items():
      (self.folder / file).write_bytes(content)


def contents(
  figure: Figure, name: str, figure_format: str = "png"
) -> dict[str, bytes]:
  """Encodes a figure.

  Args:
    figure: any.
    name: of the PNG file.
    figure_format: one of `FIGURE_FORMATS`.

  Returns:
    {name of a file: its content}, of the PNG file and that of the format.
  """
  kinds = dict.fromkeys(["png", figure_format])
  return {_form(name, kind): _encoded(figure, kind) for kind in kinds}


def _encoded(figure: Figure, kind: str) -> bytes:
  content = io.BytesIO()
  # TrueType, as publishers ask for; names that do not depend on the time.
  with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "iodine"}):
    figure.savefig(content, format=kind, dpi=_DPI, metadata=_NO_DATE.get(kind))
  return content.getvalue()


def forms(*names: str) -> list[str]:
  """All files that figures of these names may become; others stay."""
  return [
    form
    for name in names
    for form in (
      [_form(name, kind) for kind in FIGURE_FORMATS]
      if name.endswith(".png")
      else [name]
    )
  ]


def _form(name: str, kind: str) -> str:
  return f"{name.removesuffix('.png')}.{kind}"


def replace(
  figure: Figure | None,
  folder: pathlib.Path,
  name: str,
  figure_format: str = "png",
) -> None:
  """Replaces the files of a figure, each atomically.

  Args:
    figure: None: there is none any more.
    folder: existing folder.
    name: of the PNG file; its other forms are removed.
    figure_format: see `contents`.

  Raises:
    RunError: if a file cannot be written.
  """
  new = {} if figure is None else contents(figure, name, figure_format)
  for file in forms(name):
    if file in new:
      write_whole(folder / file, new[file])
    else:
      (folder / file).unlink(missing_ok=True)
