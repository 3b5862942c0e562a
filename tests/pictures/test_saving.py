"""Tests for iodine.pictures.saving."""

import pathlib

import pytest
from matplotlib.figure import Figure
from PIL import Image

from iodine.pictures import saving


def _figure():
  figure = Figure(figsize=(3.0, 1.5))
  figure.subplots().set_title("A title")
  return figure


def _names(folder: pathlib.Path):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
  "kind, begins", [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")]
)
def test_a_figure_is_there_as_png_and_in_the_albums_format(
  tmp_path, kind, begins
):
  saving.Album(tmp_path, kind).add(_figure(), "a.b.png")
  assert _names(tmp_path) == sorted({"a.b.png", f"a.b.{kind}"})
  assert (tmp_path / f"a.b.{kind}").read_bytes().startswith(begins)
  with Image.open(tmp_path / "a.b.png") as image:
    assert image.size == (600, 300)


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_equal_figures_are_equal_files(kind):
  first, second = (
    saving.contents(_figure(), "a.png", kind)[f"a.{kind}"] for _ in range(2)
  )
  assert first == second


def test_letters_of_a_pdf_are_truetype():
  content = saving.contents(_figure(), "a.png", "pdf")["a.pdf"]
  assert b"/Subtype /Type3" not in content
  assert b"/CIDFontType2" in content


def test_all_forms_of_figures_alone():
  assert saving.forms("a.png", "b.gif") == ["a.png", "a.pdf", "a.svg", "b.gif"]


def test_other_forms_of_an_earlier_run_are_removed(tmp_path):
  (tmp_path / "b.pdf").touch()
  saving.replace(_figure(), tmp_path, "a.png", "pdf")
  assert _names(tmp_path) == ["a.pdf", "a.png", "b.pdf"]
  saving.replace(_figure(), tmp_path, "a.png", "svg")
  assert _names(tmp_path) == ["a.png", "a.svg", "b.pdf"]
  saving.replace(None, tmp_path, "a.png", "svg")
  assert _names(tmp_path) == ["b.pdf"]
