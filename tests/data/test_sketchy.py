"""Tests of iodine.data.sketchy: layout, order, choices, faults."""

import itertools
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from iodine.data import scene_files
from iodine.modules.data import Sketchy
from tests.support.small_datasets import fault
from tests.support.tiny_runs import TINY_MODEL, run

H, W = 9, 7
SPLITS = {"train": (0, 1), "valid": (2,), "test": (3,)}
VIEWS = ("fl", "fr")
CROPS = ("c0", "c1", "c2", "c3", "c4", "c5", "full")


def frames(episode):
  return range(2 + episode)


def name_of(episode, frame, view, crop):
  return f"ep{episode:06d}/ep{episode:06d}_t{frame:03d}_{view}_{crop}.png"


def color_of(episode, frame, view, crop):
  """What an image shows."""
  return 20 * episode + frame, 100 * VIEWS.index(view), 9 * CROPS.index(crop)


def write(folder):
  """Writes two frames of episode 0, three of episode 1, and so on."""
  for split, episodes in SPLITS.items():
    for episode in episodes:
      for image in itertools.product([episode], frames(episode), VIEWS, CROPS):
        path = folder / "processed" / split / name_of(*image)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), color_of(*image)).save(path)
      path.with_name(f"ep{episode:06d}_t000_state.pt").write_bytes(b"pickle")
    listed = folder / "processed" / f"{split}_images.txt"
    listed.write_text("/home/someone/elsewhere.png\n")
  return folder


@pytest.fixture(name="stored", scope="module")
def fixture_stored(tmp_path_factory):
  """The files of all tests that do not change them."""
  return write(tmp_path_factory.mktemp("sketchy"))


def build(folder, **options):
  defaults = {"path": folder, "batch_size": 3, "image_dim": (H, W), "seed": 0}
  return Sketchy(**{**defaults, **options})


def colors(batch):
  pixels = np.rint(batch["image"][:, 0, 4, 3].numpy() * 255).astype(int)
  return [tuple(pixel) for pixel in pixels.tolist()]


def all_colors(dataset):
  return sum((colors(batch) for batch in dataset("eval")), [])


# --- Scenes -------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_images_in_order_with_an_episodes_together(stored, split):
  dataset = build(stored, split=split)
  expected = [
    color_of(*image)
    for episode in SPLITS[split]
    for image in itertools.product([episode], frames(episode), VIEWS, CROPS)
  ]
  assert all_colors(dataset) == expected
  assert dataset.estimated_num_examples() == len(expected)
  batch = next(iter(dataset("train")))
  assert set(batch) == {"image"}
  assert batch["image"].shape == (3, 1, H, W, 3)


def test_held_out_scenes_are_whole_frames(stored):
  options = {"views": ["fr"], "crops": ["full"]}
  expected = [color_of(0, t, "fr", "full") for t in frames(0)]
  assert all_colors(build(stored, take=2, **options)) == expected
  expected = [color_of(1, t, "fr", "full") for t in frames(1)]
  assert all_colors(build(stored, skip=2, **options)) == expected


def test_views_and_crops(stored):
  dataset = build(
    stored / "processed", split="valid", views=("fl",), crops=("full", "c4")
  )
  expected = [
    color_of(2, frame, "fl", crop)
    for frame in frames(2)
    for crop in ("c4", "full")
  ]
  assert all_colors(dataset) == expected


def test_training_shuffles_all_images_and_resumes(stored):
  options = {"crops": ["full"], "batch_size": 5, "shuffle_buffer": 1}
  stream = list(build(stored, **options).batches().take(4))
  found = [colors(batch) for batch, _ in stream]
  for epoch in (found[0] + found[1], found[2] + found[3]):
    assert len(set(epoch)) == 10
    assert epoch != sorted(epoch)
  resumed = build(stored, **options).batches(stream[0][1]).take(1)
  assert [colors(batch) for batch, _ in resumed] == found[1:2]


def test_what_is_not_used_is_told(stored, caplog):
  caplog.set_level(logging.INFO)
  build(stored)("eval")
  folder = stored / "processed" / "train"
  assert (
    f"{folder}: 70 images of 2 episodes; 2 other files are not opened"
    in caplog.messages
  )
  assert f"{folder}_images.txt is not used: its paths may be " in caplog.text


def test_cache(stored, tmp_path):
  folder = shutil.copytree(stored, tmp_path / "own")
  options = {"split": "test", "cache_dir": str(tmp_path / "cache")}
  next(iter(build(folder, **options)()))
  next(iter(build(folder, **options)()))
  assert len(list((tmp_path / "cache").iterdir())) == 1
  path = folder / "processed" / "test" / name_of(3, 1, "fl", "c3")
  Image.new("RGB", (16, 16)).save(path)
  next(iter(build(folder, **options)()))
  assert len(list((tmp_path / "cache").iterdir())) == 2


def test_files_that_stand_for_all(stored, monkeypatch):
  monkeypatch.setattr(scene_files, "_MOST_COMPARED", 2)
  dataset = build(stored, split="test")
  folder = stored / "processed" / "test"
  expected = [name_of(3, 0, "fl", "c0"), name_of(3, 4, "fr", "full")]
  assert dataset.stored_files() == [str(folder / name) for name in expected]
  assert len(dataset.variant(verify=True).stored_files()) == 5 * 14


# --- Files that cannot be used ------------------------------------------------


def test_no_folder(tmp_path):
  text = fault(build(tmp_path, split="valid"))
  assert f"there is no folder {tmp_path}/processed/valid. Fetch it: " in text
  assert text.endswith("./download_datasets.sh sketchy")
  (tmp_path / "valid").mkdir()
  text = fault(build(tmp_path, split="valid"))
  assert f"{tmp_path}/valid has no episode (folders such as ep000000)" in text
  (tmp_path / "valid" / "ep000001").mkdir()
  text = fault(build(tmp_path, split="valid"))
  assert f"{tmp_path}/valid/ep000001 has no image." in text


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_missing_image(stored, tmp_path, frame):
  folder = shutil.copytree(stored, tmp_path / "own")
  path = folder / "processed" / "train" / name_of(1, frame, "fr", "c2")
  path.unlink()
  text = fault(build(folder))
  assert f"there is no file {path}, though the episode has the frames " in text
  assert len(all_colors(build(folder, views=["fl"]))) == 35


def test_damaged_image(stored, tmp_path):
  folder = shutil.copytree(stored, tmp_path / "own")
  path = folder / "processed" / "valid" / name_of(2, 1, "fr", "c2")
  path.write_bytes(path.read_bytes()[:-30])
  text = fault(build(folder, split="valid"))
  assert f"{path}: damaged or cut off (" in text


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"split": "val"}, "split='val': no such value. Did you mean 'valid'?"),
    ({"views": "fl"}, "views='fl': expected a list of some of fl, fr"),
    ({"views": []}, "views=.*: expected a list of some of"),
    ({"crops": ["c6"]}, "crops=.*: expected a list of some of c0, c1, "),
    ({"crops": ["c1", "c1"]}, "crops=.*: expected a list of some of c0, "),
    ({"path": 3}, "path=3: is a number"),
  ],
)
def test_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    build("nowhere", **options)


def test_filter_without_masks(stored):
  text = fault(build(stored, max_num_objects=3))
  assert "there are no masks to count objects by" in text


# --- The configuration --------------------------------------------------------


def test_trains_evaluates_and_describes(stored, tmp_path, capsys):
  words = (
    "with",
    "sketchy",
    f"data.path={stored}",
    f"checkpoint_dir={tmp_path}/run",
    f"pictures_dir={tmp_path}",
    "image_dim=[9,7]",
    *TINY_MODEL,
    "stop_after_steps=2",
  )
  run(*words)
  words = (*words, f"checkpoint_dir={tmp_path}/run_1")
  capsys.readouterr()
  run("evaluate", *words, "data.split=valid", "num_scenes=4")
  assert "MSE" in capsys.readouterr().out
  run("describe_data", *words, "data.split=test")
  output = capsys.readouterr().out
  assert f"Sketchy: {stored}, test: 70 scenes" in output
  assert "masks     none: scores that need them are left out" in output
  assert (tmp_path / "sketchy_scenes.png").is_file()
