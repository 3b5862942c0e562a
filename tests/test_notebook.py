"""Eval.ipynb runs from top to bottom; its stored outputs are in order."""

import ast
import base64
import io
import os
import pathlib
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.places import REPOSITORY
from tests.support.tiny_runs import (
  TINY,
  TINY_SLOT_ATTENTION,
  run,
  write_scenes,
)

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

NOTEBOOK = REPOSITORY / "Eval.ipynb"
SCRIPT = REPOSITORY / "scripts" / "execute_notebook.py"
MAX_BYTES = 1_500_000
# Cells that show a picture, in the order of the notebook.
PICTURES = (
  *("decomposition", "scenes", "iterations", "scores", "inputs", "factors"),
  *("traversal", "sliders", "removal", "swap", "compose", "samples"),
  *("custom", "more", "sizes"),
)
# The line that chooses what is loaded.
CHOICE = 'CONFIG, CHECKPOINT_DIR = "demo", None'
_PATH = re.compile(r"(?<![\w.~])/(?!/)\w+/[\w.]+|[A-Z]:\\\\|~/")


def _read(path: pathlib.Path) -> Any:
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  return notebook


def _code_cells(notebook: Any) -> list:
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _pictures(notebook: Any) -> dict[str, Image.Image]:
  """{id of a cell: its picture}."""
  pictures = {}
  for cell in _code_cells(notebook):
    for output in cell.outputs:
      png = output.get("data", {}).get("image/png")
      if png is not None:
        assert cell.id not in pictures
        pictures[cell.id] = Image.open(io.BytesIO(base64.b64decode(png)))
  return pictures


def _texts(notebook: Any) -> Iterator[str]:
  """Everything of the outputs and the metadata but the pictures."""
  yield str(notebook.metadata)
  for cell in notebook.cells:
    yield str(cell.metadata)
    for output in cell.get("outputs", ()):
      yield output.get("text", "")
      yield str(output.get("metadata", ""))
      for kind, content in output.get("data", {}).items():
        yield kind if kind == "image/png" else content


@pytest.fixture(scope="module")
def stored() -> Any:
  return _read(NOTEBOOK)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
  """The notebook as it comes out where nothing but the package is."""
  folder = tmp_path_factory.mktemp("notebook")
  notebook = _read(NOTEBOOK)
  for cell in _code_cells(notebook):
    cell.outputs, cell.execution_count = [], None
  nbformat.write(notebook, folder / NOTEBOOK.name)
  environment = {
    **os.environ,
    "PYTHONPATH": str(REPOSITORY),
    "IPYTHONDIR": str(folder / "ipython"),
  }
  # A kernel that sees it captures less of what libraries write.
  environment.pop("PYTEST_CURRENT_TEST", None)
  result = subprocess.run(
    [sys.executable, SCRIPT, NOTEBOOK.name],
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
    timeout=280,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert f"Wrote {NOTEBOOK.name}" in result.stdout
  assert (folder / "data" / "demo_train.tfrecords").is_file()
  return _read(folder / NOTEBOOK.name)


def _check_outputs(notebook: Any) -> None:
  """Checks what a reader sees who cannot run the notebook."""
  cells = _code_cells(notebook)
  assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
  assert tuple(_pictures(notebook)) == PICTURES
  for cell in cells:
    for output in cell.outputs:
      assert output.output_type != "error"
      assert output.get("name") != "stderr", output.text
      kinds = set(output.get("data", {}))
      assert kinds <= {"image/png", "text/plain"}, "only a kernel shows it"
  assert notebook.metadata.kernelspec.name == "python3"
  assert set(notebook.metadata) == {"kernelspec", "language_info"}
  names = (str(REPOSITORY), str(pathlib.Path.home()), socket.gethostname())
  for text in _texts(notebook):
    assert not _PATH.search(text)
    assert not any(name in text for name in names if len(name) > 3), text


def test_stored_outputs_are_in_order(stored):
  _check_outputs(stored)
  assert NOTEBOOK.stat().st_size < MAX_BYTES
  for name, picture in _pictures(stored).items():
    assert set(picture.info) <= {"Software", "dpi"}, name
    assert picture.width < 1500, f"{name}: a notebook would shrink it"


def test_finds_paths():
  for text in ("in /tmp/x.", "'/home/me/a'", "C:\\\\Users", "~/a"):
    assert _PATH.search(text), text
  for text in ("[8, 1] nats/image", "https://a.b/c", "data/a/b.c", "a / b"):
    assert not _PATH.search(text), text


def test_runs_on_the_shipped_model_from_top_to_bottom(executed):
  _check_outputs(executed)


def test_what_is_stored_comes_out_again(stored, executed):
  for old, new in zip(stored.cells, executed.cells, strict=True):
    assert (old.id, old.source) == (new.id, new.source)
    if old.cell_type == "code":
      old_text, new_text = (
        [output.get("text") for output in cell.outputs] for cell in (old, new)
      )
      assert old_text == new_text
  new_pictures = _pictures(executed)
  for name, old_picture in _pictures(stored).items():
    # Small pictures are compared, in which other noise changes 2 to 40 levels
    # of 255. Another release of matplotlib moves lines and letters.
    new_picture = new_pictures[name]
    same = old_picture.info.get("Software") == new_picture.info.get("Software")
    old_pixels, new_pixels = (
      np.asarray(picture.convert("RGB").resize((64, 64)), np.float32)
      for picture in (old_picture, new_picture)
    )
    bound = 1.0 if same else 4.0
    assert np.abs(old_pixels - new_pixels).mean() < bound, name


# --- Another configuration ----------------------------------------------------


def _execute(source: str, names: dict[str, Any]) -> Any:
  """Executes a cell's code; returns what a notebook would display."""
  tree = ast.parse(source)
  last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
  exec(compile(tree, "<cell>", "exec"), names)
  if last is None:
    return None
  return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


def test_a_model_that_is_no_iodine(stored, tmp_path, monkeypatch, capsys):
  write_scenes(tmp_path / "data" / "tetrominoes_train.tfrecords", 13)
  monkeypatch.chdir(tmp_path)
  run(*TINY_SLOT_ATTENTION, "checkpoint_dir=checkpoints/mine", "seed=3")
  sources = {cell.id: cell.source for cell in _code_cells(stored)}
  sources["choose"] = 'CONFIG, CHECKPOINT_DIR = "checkpoints/mine_1", None'
  names: dict[str, Any] = {}
  shown = {name: _execute(code, names) for name, code in sources.items()}
  nothing = "SlotAttentionAutoEncoder has nothing to show here."
  assert [k for k, v in shown.items() if v == nothing] == [
    *("inputs", "factors", "samples"),
  ]
  assert "image/png" in shown["sliders"]._repr_mimebundle_()
  for name in ("attention", *PICTURES):
    if shown[name] != nothing and name != "sliders":
      assert shown[name]._repr_png_().startswith(b"\x89PNG"), name
  assert "2 refinement steps" in capsys.readouterr().out


def test_one_line_chooses_another_model(stored, tmp_path, monkeypatch, capsys):
  write_scenes(tmp_path / "data" / "tetrominoes_train.tfrecords", 13)
  monkeypatch.chdir(tmp_path)
  run(*TINY, "stop_after_steps=1", "checkpoint_dir=checkpoints/mine", "seed=3")
  sources = {cell.id: cell.source for cell in _code_cells(stored)}
  assert sources["choose"] == CHOICE
  sources["choose"] = 'CONFIG, CHECKPOINT_DIR = "checkpoints/mine_1", None'
  capsys.readouterr()
  names: dict[str, Any] = {}
  shown = {name: _execute(code, names) for name, code in sources.items()}
  for name in PICTURES:
    if name == "factors":  # of so few objects, none can be told
      assert shown[name] == "IODINE has nothing to show here."
    elif name == "sliders":
      assert "image/png" in shown[name]._repr_mimebundle_()
    else:
      assert shown[name]._repr_png_().startswith(b"\x89PNG"), name
  assert [k for k, v in shown.items() if v is None] == [
    *("imports", "choose", "load", "picture", "info"),
  ]
  printed = capsys.readouterr().out
  assert "3 scenes of tetrominoes, 9 x 7 pixels" in printed
  assert "2 slots with latents of size 5" in printed
  assert re.search(r"pred_mask +\[3, 2, 2, 9, 7, 1\] +float32", printed)
