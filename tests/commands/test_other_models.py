"""The commands that draw, with models that are unlike IODINE."""

import logging
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from iodine.pictures import sections
from tests.support.tiny_runs import (
  TINY_EFFICIENT_MORL,
  TINY_GNM,
  TINY_SLATE,
  TINY_SLOT_ATTENTION,
  fail,
  run,
)

_COMMON = {
  *("decomposition.png", "refinement.gif", "refinement.png"),
  *("attention.gif", "attention.png", "scores.png", "training.png"),
  *("refinement_still.png", "attention_still.png"),
  *("removal.png", "swap.png", "index.html"),
}


@pytest.fixture(scope="module", params=[TINY_SLOT_ATTENTION, TINY_SLATE])
def trained_words(request, data_dir, tmp_path_factory) -> tuple[str, ...]:
  """What commands are given that use a model of one step."""
  folder = tmp_path_factory.mktemp("run")
  words = (*request.param, f"data_dir={data_dir}", "seed=3")
  run(*words, f"checkpoint_dir={folder}/run")
  return (*words, f"checkpoint_dir={folder}/run_1")


@pytest.fixture
def words(trained_words, tmp_path, caplog) -> tuple[str, ...]:
  caplog.set_level(logging.INFO)
  return (*trained_words, f"pictures_dir={tmp_path}")


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  return tmp_path / "tetrominoes"


def test_visualize(words, folder, caplog):
  run("visualize", *words)
  pictures = {path.name for path in (folder / "visualize").glob("*.*")}
  expected = set(_COMMON)
  if "slate_tetrominoes_small" in words:
    expected.add("reconstruction.png")
  else:
    expected |= {"traversal.gif", "traversal_still.png", "traversal.png"}
    expected.add("explore.js")
  # Whether there are objects enough to tell factors depends on the masks.
  expected |= pictures & {"factors.png"}
  assert pictures - {".iodine.json"} == expected
  page = (folder / "visualize" / "index.html").read_text()
  shown = re.findall(r'(?:src|srcset)="([^"]*\.(?:png|gif))"', page)
  shown.sort(key=sections.PICTURES.index)
  assert shown == [name for name in sections.PICTURES if name in expected]
  # Both results come after a step.
  assert "<dt>Refinement steps</dt><dd>2</dd>" in page
  assert "step 0" not in page
  assert "Clipping" not in caplog.text


def test_compose(words, folder):
  run("compose", *words, "scenes=[2,1,2,5]", "slots=[3,1,3,2]")
  with Image.open(folder / "compose" / "scene.png") as image:
    assert (image.height > image.width) and image.mode == "RGB"


def test_decompose(words, folder, tmp_path):
  pixels = np.random.default_rng(0).integers(256, size=(11, 8, 3), dtype="u1")
  Image.fromarray(pixels).save(tmp_path / "mine.png")
  run("decompose", *words, f"image={tmp_path}/mine.png")
  assert (folder / "decompose" / "mine" / "slot_3.png").is_file()


def test_traverse(words, folder, capsys):
  run("traverse", *words, "range_scenes=2", "latents=[1,0]")
  names = {path.name for path in (folder / "traverse").glob("*.*")}
  pictures = {
    f"scene_1_slot_{k}.{kind}" for k in (1, 2, 3) for kind in ("gif", "png")
  }
  assert names - {".iodine.json"} == {*pictures, "z_range.txt"}


def test_traverse_in_a_range_that_there_is_not(words, folder, capsys):
  error = fail(capsys, 2, "traverse", *words, "range_of=prior")
  assert "has no posterior with a fixed prior; set range_of=samples" in error
  assert "cannot sample scenes" in fail(capsys, 2, "sample", *words)
  assert not folder.exists()


def test_a_hierarchy_with_refinement(data_dir, tmp_path):
  words = (*TINY_EFFICIENT_MORL, f"data_dir={data_dir}", "seed=3")
  run(*words, f"checkpoint_dir={tmp_path}/run")
  words = (
    *words,
    f"checkpoint_dir={tmp_path}/run_1",
    f"pictures_dir={tmp_path}",
  )
  run("visualize", *words)
  folder = tmp_path / "tetrominoes" / "visualize"
  pictures = {path.name for path in folder.glob("*.*")}
  assert _COMMON | {"traversal.png", "samples.png"} <= pictures
  page = (folder / "index.html").read_text()
  assert "<dt>Refinement steps</dt><dd>2</dd>" in page
  assert "step 0 comes before the first refinement, and is that of" in page
  run("traverse", *words)
  run("evaluate", *words, "num_iters=0", "num_scenes=2")


def test_gnm(data_dir, tmp_path, capsys):
  words = (*TINY_GNM, f"data_dir={data_dir}", "seed=3")
  run(*words, f"checkpoint_dir={tmp_path}/run")
  words = (
    *words,
    f"checkpoint_dir={tmp_path}/run_1",
    f"pictures_dir={tmp_path}",
  )
  run("visualize", *words)
  folder = tmp_path / "tetrominoes" / "visualize"
  shown = re.findall(r'src="([^"]*)"', (folder / "index.html").read_text())
  assert shown == [
    "decomposition.png",
    "boxes.png",
    "reconstruction.png",
    "removal.png",
    "swap.png",
    "samples.png",
    "training.png",
  ]
  run("evaluate", *words, "num_scenes=4")
  assert "count/accuracy" in capsys.readouterr().out
  run("compose", *words, "scenes=[2,1]", "slots=[3,17]")
  run("sample", *words)
  assert (folder.parent / "sample" / "samples.png").is_file()
  run("traverse", *words, "range_scenes=2", "slot=3", "latents=[4,5]")
  assert (folder.parent / "traverse" / "scene_1_slot_3.png").is_file()
  run("inspect_checkpoint", *words)
  output = capsys.readouterr().out
  assert "numbers of RMSprop's" in output
  # It goes on with the optimizer's state.
  run(*words, "continue_run=True", "stop_after_steps=2")
