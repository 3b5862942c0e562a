"""Tests of iodine.data.opening: the cache, and the scenes left out."""

import json
import logging

import numpy as np
import pytest

from iodine.config import plans
from iodine.data import datasets, opening
from iodine.errors import ConfigError
from iodine.synthetic import generation, sprites
from tests.support.tiny_runs import NUM_SCENES


def _training_data(entries):
  return opening.training_data(entries, _dataset(entries))


def _dataset(entries):
  return plans.build(entries["data"], "data", {"seed": entries["seed"]})


def _entries(data_dir, held_out, **plan):
  return {
    "seed": 3,
    "held_out_scenes": held_out,
    "data": {
      "constructor": "iodine.modules.data.Tetrominoes",
      "path": str(data_dir / "tetrominoes_train.tfrecords"),
      "batch_size": 2,
      "image_dim": [9, 7],
      **plan,
    },
  }


@pytest.fixture(scope="module")
def images(data_dir) -> np.ndarray:
  """All scenes in the order of the file."""
  dataset = _dataset(_entries(data_dir, 0))
  return np.concatenate([b["image"].numpy() for b in dataset("eval")])


def _seen(dataset, images) -> set[int]:
  """Which scenes an epoch of training shows."""
  seen: list[int] = []
  for batch, position in dataset.batches():
    for image in batch["image"].numpy():
      (index,) = np.flatnonzero((images == image).all((1, 2, 3, 4)))
      seen.append(int(index))
    if int(position.epoch) >= 2:
      return set(seen)
  raise AssertionError("training is endless")


@pytest.mark.parametrize(
  "held_out, plan, first",
  [
    (4, {}, 4),
    (12, {}, 12),
    (0, {}, 0),
    (4, {"skip": 6}, 6),
    (4, {"skip": 0}, 0),
  ],
)
def test_training_leaves_the_first_scenes_out(
  data_dir, images, caplog, held_out, plan, first
):
  assert len(images) == NUM_SCENES
  entries = _entries(data_dir, held_out, **plan)
  dataset, sample = _training_data(entries)
  assert _seen(dataset, images) == set(range(first, NUM_SCENES))
  shown = plan.get("skip", 0)
  np.testing.assert_array_equal(sample["image"], images[shown : shown + 2])
  assert not [x for x in caplog.records if x.levelno >= logging.WARNING]
  assert dataset.seed == 3


@pytest.mark.parametrize("held_out", [NUM_SCENES, 1000])
def test_a_small_file_is_trained_on_as_a_whole(
  data_dir, images, caplog, held_out
):
  dataset, _ = _training_data(_entries(data_dir, held_out))
  assert _seen(dataset, images) == set(range(NUM_SCENES))
  assert f"no more than held_out_scenes={held_out}: training on" in caplog.text


# --- The cache ----------------------------------------------------------------


def test_the_cache_is_written_once(data_dir, images, tmp_path, caplog):
  caplog.set_level(logging.INFO)
  entries = _entries(data_dir, 4, cache_dir=str(tmp_path))
  dataset, sample = _training_data(entries)
  assert "Wrote 13 scenes" in caplog.text
  assert _seen(dataset, images) == set(range(4, NUM_SCENES))
  np.testing.assert_array_equal(sample["image"], images[:2])
  caplog.clear()
  dataset, _ = _training_data(entries)
  assert "Wrote" not in caplog.text
  assert _seen(dataset, images) == set(range(4, NUM_SCENES))
  (folder,) = tmp_path.iterdir()
  # By this name caches are found that were written before the class moved.
  key = json.loads((folder / "index.json").read_text())["key"]
  assert key["dataset"] == "iodine.modules.data.Tetrominoes"


def test_a_small_file_with_a_cache(data_dir, images, tmp_path, caplog):
  entries = _entries(data_dir, 1000, cache_dir=str(tmp_path))
  dataset, _ = _training_data(entries)
  assert _seen(dataset, images) == set(range(NUM_SCENES))
  assert "no more than held_out_scenes=1000: training on" in caplog.text


def test_a_cache_that_cannot_be_written(data_dir, tmp_path):
  (tmp_path / "file").touch()
  entries = _entries(data_dir, 0, cache_dir=str(tmp_path / "file"))
  with pytest.raises(ConfigError, match="data: .*file"):
    _training_data(entries)


@pytest.mark.parametrize("cache", [False, True])
def test_a_damaged_file_is_no_short_one(data_dir, tmp_path, cache):
  whole = (data_dir / "tetrominoes_train.tfrecords").read_bytes()
  file = tmp_path / "tetrominoes_train.tfrecords"
  file.write_bytes(whole[: len(whole) // 2])
  plan = {"cache_dir": str(tmp_path / "cache")} if cache else {}
  entries = _entries(tmp_path, 1000, **plan)
  with pytest.raises(ConfigError, match=f"data: .*{file}.*record"):
    _training_data(entries)
  assert {path.name for path in tmp_path.iterdir()} <= {file.name, "cache"}
  if cache:
    assert not list((tmp_path / "cache").iterdir())


# --- The demonstration's scenes -----------------------------------------------


def _demo(path):
  return {
    "seed": 1,
    "data": {
      "constructor": "iodine.modules.data.Sprites",
      "path": str(path),
      "batch_size": 5,
    },
  }


def test_missing_scenes_of_the_demonstration_are_written(tmp_path, monkeypatch):
  monkeypatch.setattr(datasets, "_NUM_SPRITES", 7)
  path = tmp_path / "new" / "scenes"
  dataset = _dataset(_demo(path))
  opening.prepare(dataset)
  first, second = dataset("eval")
  assert len(first["image"]) == 5 and len(second["image"]) == 2
  (stored,) = generation.sample_chunks(sprites.sample_scenes, 7, seed=0)
  np.testing.assert_array_equal(
    first["image"], stored["image"][:5, None] / np.float32(255)
  )
  path.write_text("something else")
  opening.prepare(_dataset(_demo(path)))
  assert path.read_text() == "something else"


def test_scenes_that_cannot_be_written(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(ConfigError, match="data: .*file"):
    opening.prepare(_dataset(_demo(tmp_path / "file" / "scenes")))
