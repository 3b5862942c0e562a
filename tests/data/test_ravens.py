"""Tests of iodine.data.ravens: cameras, ids, counts, faults."""

import numpy as np
import pytest

from iodine.data import hdf5_files
from iodine.data.datasets import RAVENS
from tests.support import hdf5_layouts as layouts
from tests.support.tiny_runs import TINY_MODEL, train_and_describe

h5py = pytest.importorskip("h5py")

N, (H, W) = layouts.NUM_SCENES, layouts.SIZE
ARRAYS = layouts.ravens()


@pytest.fixture(name="path")
def fixture_path(tmp_path):
  return layouts.write(tmp_path / "ravens_robot_data_train.h5", ARRAYS)


def build(path, **options):
  defaults = {"batch_size": N, "image_dim": (H, W), "crop_region": None}
  return RAVENS(path, **{**defaults, **options})


def test_scenes(path):
  dataset = build(path)
  assert dataset.estimated_num_examples() == N
  (batch,) = dataset("eval")
  np.testing.assert_allclose(
    batch["image"][:, 0], ARRAYS["color"] / 255, atol=1e-6
  )
  expected = layouts.masks(ARRAYS["segm"], 12) // 255
  np.testing.assert_array_equal(batch["mask"][:, 0], expected)
  visible = expected.any(axis=(2, 3, 4))
  visible[:, :4] = True
  np.testing.assert_array_equal(batch["visibility"], visible)
  assert not visible[:, 5].any()  # a gap in the ids
  assert dataset("train").element_spec == dataset.batch_spec()


@pytest.mark.parametrize("slice_images", [1, 2, 4, 100])
@pytest.mark.parametrize(
  ("cameras", "images"),
  [
    (["front"], [0, 3]),
    (["left"], [1, 4]),
    (["right"], [2, 5]),
    (["front", "right"], [0, 2, 3, 5]),
    (["right", "left", "front"], range(N)),
  ],
)
def test_cameras(path, monkeypatch, slice_images, cameras, images):
  monkeypatch.setattr(hdf5_files, "_SLICE_BYTES", slice_images * 4 * H * W)
  dataset = build(path, cameras=cameras)
  assert dataset.estimated_num_examples() == len(images)
  (batch,) = dataset("eval")
  expected = ARRAYS["color"][list(images)] / 255
  np.testing.assert_allclose(batch["image"][:, 0], expected, atol=1e-6)
  # Of the scene with five objects on the table.
  (batch,) = build(path, cameras=cameras, min_num_objects=4)("eval")
  expected = ARRAYS["color"][[i for i in images if i >= 3]] / 255
  np.testing.assert_allclose(batch["image"][:, 0], expected, atol=1e-6)


def test_filter_asks_how_many_lie_on_the_table(path):
  (batch,) = build(path, max_num_objects=3)("eval")
  assert len(batch["image"]) == 3
  # More than three by the masks.
  assert (batch["visibility"].numpy()[:, 4:].sum(axis=1) > 3).any()


def test_published_crops(tmp_path):
  color = np.arange(640, dtype=np.uint16).astype(np.uint8)
  color = np.broadcast_to(color[None, None, :, None], [3, 480, 640, 3])
  arrays = {
    "color": color,
    "segm": np.zeros([3, 480, 640], np.uint8),
    "num_objects_on_table": np.array([3]),
  }
  path = layouts.write(tmp_path / "a.h5", arrays, compression="gzip")
  dataset = RAVENS(path, batch_size=3, image_dim=(480, 500))
  (batch,) = dataset("eval")
  expected = color[:, :, 70:570] / 255
  np.testing.assert_allclose(batch["image"][:, 0], expected, atol=1e-6)
  assert RAVENS(path, batch_size=3).image_dim == (128, 128)


def test_ids_beyond_the_last_entity(tmp_path, caplog):
  segm = ARRAYS["segm"].copy()
  segm[1, 0, :3] = [12, 200, 255]
  path = layouts.write(tmp_path / "a.h5", {**ARRAYS, "segm": segm})
  dataset = build(path)
  for _ in range(2):
    (batch,) = dataset("eval")
  owner = batch["mask"].numpy()[1, 0, :, 0, :3, 0].argmax(axis=0)
  assert owner.tolist() == [11, 11, 0]
  (line,) = [x for x in caplog.messages if "beyond" in x]
  assert "in images 0 to 5, 2 pixels have ids up to 200, beyond" in line


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"color": None}, "has no dataset 'color'; there is: num_objects_on_table"),
    ({"segm": None}, "has no dataset 'segm'"),
    ({"num_objects_on_table": None}, "has no dataset 'num_objects_on_table'"),
    ({"segm": ARRAYS["segm"][:3]}, "expected [3 N, h, w], like color (6, 8,"),
    ({"segm": ARRAYS["segm"].astype(np.int32)}, "expected uint8 and not int32"),
    ({"segm": ARRAYS["segm"][..., None]}, "expected 3 dimensions"),
    ({"num_objects_on_table": np.ones(6, int)}, "a number for three of the 6"),
  ],
)
def test_wrong_files(tmp_path, changes, message):
  path = layouts.write(tmp_path / "a.h5", {**ARRAYS, **changes})
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    build(path)("eval")
  assert str(caught.value).startswith(f"{path}: ")
  assert message in str(caught.value)


@pytest.mark.parametrize("cameras", ["front", [], ["top"], ["left", "left"], 3])
def test_arguments(cameras):
  with pytest.raises(ValueError, match="cameras=.*: expected some of"):
    build("a.h5", cameras=cameras)


def test_training_and_description(path, tmp_path, capsys):
  words = (
    "with",
    "tetrominoes",
    *TINY_MODEL,
    "data.constructor=iodine.modules.data.RAVENS",
    f"data_file={path.name}",
    f"data_dir={tmp_path}",
    "data.crop_region=[[0,8],[1,9]]",
    "image_dim=[8,8]",
    "model.factor_evaluator=null",
  )
  shown = train_and_describe(capsys, tmp_path, *words)
  assert "12 a scene: 4 background first, then up to 8 objects" in shown
