"""Tests for iodine.runs.loading, by way of `iodine.main.load_checkpoint`."""

import json
import logging
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from iodine.errors import ConfigError
from iodine.main import load_checkpoint
from tests.support.tiny_runs import TINY, run, write_scenes

B, K, H, W = 3, 2, 9, 7


@pytest.fixture(autouse=True)
def _log(caplog):
  caplog.set_level(logging.INFO)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
  """The folder of a run of two steps. Not to be changed."""
  folder = tmp_path_factory.mktemp("trained")
  write_scenes(folder / "data" / "tetrominoes_train.tfrecords", 13)
  run(
    *TINY,
    f"data_dir={folder}/data",
    f"checkpoint_dir={folder}/run",
    "stop_after_steps=2",
    "seed=3",
  )
  return folder / "run_1"


@pytest.mark.parametrize("given", ["folder", "file", "copy"])
def test_a_run_is_loaded_from_its_folder(trained, tmp_path, given):
  source, where = trained, None
  if given == "file":
    source = trained / "config.json"
  elif given == "copy":  # a file elsewhere, and where the checkpoint is
    source = tmp_path / "mine.json"
    shutil.copy(trained / "config.json", source)
    where = trained
  loaded = load_checkpoint(source, where)
  assert set(loaded) == {"model", "dataset", "inputs", "info"}
  assert loaded["inputs"]["image"].shape == (B, 1, H, W, 3)
  info = loaded["info"]
  assert isinstance(info["outputs"]["recons"], np.ndarray)
  np.testing.assert_array_equal(
    info["data"]["image"], loaded["inputs"]["image"]
  )
  expected = exploration.infer(loaded["model"], loaded["inputs"], seed=3)
  tf.nest.map_structure(np.testing.assert_array_equal, info, expected)
  weights = tf.train.load_variable(
    str(trained / "model.ckpt-2"),
    "trainer/model/initial_zp/.ATTRIBUTES/VARIABLE_VALUE",
  )
  np.testing.assert_array_equal(loaded["model"].initial_zp, weights)


def test_a_runs_own_file_finds_its_checkpoint(trained, tmp_path, capsys):
  run("inspect_checkpoint", "with", trained / "config.json")
  assert f"\n{trained}/model.ckpt-2: " in capsys.readouterr().out
  shutil.copytree(trained, tmp_path / "other")
  words = (trained / "config.json", f"checkpoint_dir={tmp_path}/other")
  run("inspect_checkpoint", "with", *words)
  assert f"\n{tmp_path}/other/model.ckpt-2: " in capsys.readouterr().out


def test_entries_can_be_overridden(trained):
  overrides = {"data.shuffle_buffer": None, "model": {"coord_freqs": 4}}
  loaded = load_checkpoint(
    trained, batch_size=1, num_components=5, num_iters=3, **overrides
  )
  assert loaded["info"]["outputs"]["pred_mask"].shape == (1, 4, 5, H, W, 1)
  assert loaded["dataset"].shuffle_buffer is None
  # Not the batch at hand: that of the training.
  assert loaded["model"].inner_batch_size == B


def test_any_image_can_be_run(trained):
  loaded = load_checkpoint(trained)
  image = np.random.default_rng(0).integers(256, size=[H, W, 3], dtype=np.uint8)
  batch = loaded["dataset"].image_batch(image)
  info = exploration.infer(loaded["model"], batch)
  assert info["outputs"]["recons"].shape == (1, 2, 1, H, W, 3)
  np.testing.assert_allclose(
    info["data"]["image"][0, 0], image / 255, rtol=1e-6
  )


def test_a_named_configuration_has_its_entries(trained):
  config = json.loads((trained / "config.json").read_text())
  overrides = {key: config[key] for key in ("model", "n_z", "num_iters")}
  loaded = load_checkpoint(
    "tetrominoes",
    trained,
    data_dir=str(trained.parent / "data"),
    image_dim=[H, W],
    batch_size=B,
    num_components=K,
    **overrides,
  )
  assert loaded["info"]["outputs"]["components"].shape == (B, 2, K, H, W, 3)
  assert loaded["dataset"].name == "tetrominoes"


@pytest.mark.parametrize(
  "name, overrides, error",
  [
    ("tetromino", {}, "tetromino: no such configuration.*Did you mean 'tetr"),
    (None, {"num_component": 2}, "num_component=2: unknown key. Did you mean"),
    (None, {"data.shufle": 2}, "data.shufle=2: unknown key"),
    (None, {"num_iters": 0}, "num_iters=0: expected an integer of at least 1"),
    (None, {"data dir": "x"}, "'data dir': no valid key"),
    (None, {"data_dir": "/nowhere"}, "there is no file /nowhere/tetrominoes"),
    (None, {"n_z": 6}, r"\[10\] in the checkpoint, \[12\] in the model"),
  ],
)
def test_mistakes_are_told(trained, name, overrides, error):
  with pytest.raises(ConfigError, match=error):
    load_checkpoint(name or trained, **overrides)


def test_without_a_checkpoint(trained, tmp_path):
  with pytest.raises(ConfigError, match=f"{tmp_path}: there is no checkpoint"):
    load_checkpoint(trained, tmp_path)
