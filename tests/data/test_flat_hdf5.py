"""Tests of iodine.data.flat_hdf5: published layouts, splits, faults."""

import numpy as np
import pytest

from iodine.data import hdf5_files, opening
from iodine.data.datasets import FlatHDF5
from iodine.data.flat_hdf5 import PUBLISHED_SPLITS
from iodine.errors import ConfigError
from tests.support import hdf5_layouts as layouts
from tests.support.tiny_runs import TINY_MODEL, train_and_describe

h5py = pytest.importorskip("h5py")

N, (H, W) = layouts.NUM_SCENES, layouts.SIZE


def build(path, **options):
  return FlatHDF5(path, **{"batch_size": N, "image_dim": (H, W), **options})


def check(batch, arrays, owner, num_entities):
  np.testing.assert_allclose(
    batch["image"][:, 0], arrays["image"] / 255, atol=1e-6
  )
  expected = layouts.masks(owner, num_entities) // 255
  np.testing.assert_array_equal(batch["mask"][:, 0], expected)
  visible = layouts.visibility(owner, num_entities)
  np.testing.assert_array_equal(batch["visibility"], visible)


@pytest.mark.parametrize(
  ("layout", "num_entities"), [(layouts.clevr, 11), (layouts.tetrominoes, 4)]
)
def test_masks_of_entities(tmp_path, layout, num_entities):
  arrays = layout()
  path = layouts.write(tmp_path / "a.h5", arrays, compression="gzip")
  keys = {"position": ["y", "x"], "color": ["color"]}
  dataset = build(path, factor_keys=keys)
  assert dataset.num_true_objects == num_entities
  color = arrays["color"].reshape(N, num_entities, -1)
  sizes = {name: size for name, (_, size) in dataset.factors.items()}
  assert sizes == {"position": 2, "color": color.shape[2]}
  (batch,) = dataset("eval")
  check(batch, arrays, layouts.owners(num_entities), num_entities)
  expected = np.stack([arrays["y"], arrays["x"]], axis=2)
  np.testing.assert_array_equal(batch["factors"]["position"], expected)
  np.testing.assert_array_equal(batch["factors"]["color"], color)
  assert dataset("train").element_spec == dataset.batch_spec()


def test_labels(tmp_path):
  arrays = layouts.object_centric_library()
  path = layouts.write(tmp_path / "a.hdf5", arrays)
  (batch,) = build(path, factor_keys={"a": ["shape", "color"]})("eval")
  check(batch, arrays, layouts.owners(6), 6)
  expected = np.concatenate([arrays["shape"], arrays["color"]], axis=2)
  np.testing.assert_allclose(batch["factors"]["a"], expected)


def test_labels_of_several_backgrounds(tmp_path):
  arrays = layouts.object_centric_library(4)
  path = layouts.write(tmp_path / "a.hdf5", arrays)
  dataset = build(path, num_background_entities=4, max_num_objects=1)
  (batch,) = dataset("eval")
  count = int((arrays["num_actual_objects"] <= 1).sum())
  assert len(batch["image"]) == count == N - 1
  text = fault(build(path))
  assert "num_background_entities=1. (In this form, Objects Room's" in text
  assert f"{path}: scene 0 has num_actual_objects=1 and 5 visible ent" in text


def test_labels_without_visibility(tmp_path):
  arrays = layouts.box_world()
  path = layouts.write(tmp_path / "a.h5", arrays)
  options = {"mask_key": "segmentation_mask"}
  (batch,) = build(path, **options, num_entities=5)("eval")
  check(batch, arrays, layouts.owners(5), 5)
  text = fault(build(path, **options))
  assert "Set num_entities, the largest label + 1." in text
  text = fault(build(path, **options, num_entities=4))
  assert f"in scene {N - 1}, /segmentation_mask has the label 4, but" in text
  assert "there are 4 entities, 0 to 3. Set num_entities if" in text


def test_without_masks(tmp_path):
  path = layouts.write(tmp_path / "a.h5", layouts.clevr())
  (batch,) = build(path, mask_key=None)("eval")
  assert set(batch) == {"image"}


def test_pixels_of_no_entity(tmp_path):
  arrays = layouts.object_centric_library()
  arrays["mask"][1, 2:4, 3] = 255
  path = layouts.write(tmp_path / "a.h5", arrays)
  text = fault(build(path))
  assert "in scene 1, /mask has the label 255, but there are 6 entit" in text
  assert "partial_masks=true" in text
  (batch,) = build(path, partial_masks=True)("eval")
  owned = batch["mask"].numpy()[:, 0].sum(axis=1)
  assert owned.sum() == owned.size - 2
  assert owned.max() == 1
  arrays = layouts.clevr()
  arrays["mask"][2, :, 0, :4] = 0
  path = layouts.write(tmp_path / "b.h5", arrays)
  assert "in scene 2 of /mask, 4 pixels belong to no ent" in fault(build(path))
  (batch,) = build(path, partial_masks=True)("eval")
  assert batch["mask"].numpy()[2, 0].sum() == H * W - 4
  arrays["mask"][2, :2, 0, :3] = 255
  path = layouts.write(tmp_path / "b.h5", arrays)
  text = fault(build(path, partial_masks=True))
  assert "in scene 2 of /mask, 3 pixels belong to several entities" in text


# --- Splits -------------------------------------------------------------------


def test_scenes_of_a_split(tmp_path):
  arrays = layouts.object_centric_library()
  path = layouts.write(tmp_path / "a.h5", arrays, chunks=True)
  dataset = build(path, split=(2, 5))
  assert dataset.estimated_num_examples() == 3
  (batch,) = dataset("eval")
  images = arrays["image"][2:5] / 255
  np.testing.assert_allclose(batch["image"][:, 0], images, atol=1e-6)
  text = fault(build(path, split=(2, N + 1)))
  assert text == (
    f"data: {path}: split=(2, 7) ends at scene 7, but the file has 6. Name a "
    "split of these data, or (first, stop)."
  )
  text = fault(build(path, split="object_discovery_clevr/val"))
  assert "split='object_discovery_clevr/val' ends at scene 85,000" in text


def test_a_split_begins_within_a_chunk(tmp_path, monkeypatch):
  monkeypatch.setattr(hdf5_files, "_SLICE_BYTES", 1)
  arrays = layouts.object_centric_library()
  path = layouts.write(tmp_path / "a.h5", {**arrays, "image": None})
  with h5py.File(path, "a") as file:
    file.create_dataset("image", data=arrays["image"], chunks=(2, H, W, 3))
  images = [
    scenes["image"] for scenes in build(path, split=(1, N - 1))._slices()
  ]
  assert [len(x) for x in images] == [1, 2, 1]
  np.testing.assert_array_equal(np.concatenate(images), arrays["image"][1:-1])


def test_published_splits_follow_one_another():
  sources = {name.split("/")[0] for name in PUBLISHED_SPLITS}
  for source in sources:
    ends = [PUBLISHED_SPLITS[f"{source}/{x}"] for x in ("train", "val", "test")]
    assert ends[0][0] == 0
    assert [x[1] for x in ends[:2]] == [x[0] for x in ends[1:]]
  assert PUBLISHED_SPLITS["object_discovery_clevr/test"] == (85_000, 100_000)
  assert PUBLISHED_SPLITS["object_centric_library_clevrtex/test"][0] == 45_000


# --- Files that cannot be used ------------------------------------------------


def fault(dataset):
  with (
    pytest.raises(ConfigError) as caught,
    opening.data_errors_as_config_errors(dataset),
  ):
    list(dataset("eval"))
  text = str(caught.value)
  assert "\n" not in text
  return text


OCL = layouts.object_centric_library()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"image": None}, "has no dataset 'image'; there is: color, mask, num_ac"),
    ({"mask": None}, "Set mask_key to its name, or to null to go without m"),
    ({"color": None}, "has no dataset 'color'; there is: image, mask,"),
    ({"visibility": None}, "holds labels, and there is no 'visibility'"),
    ({"image": OCL["image"][..., 0]}, "(6, 8, 10); expected 4 dimensions"),
    ({"image": OCL["image"] / 255}, "expected integers from 0 to 255. Store"),
    ({"mask": OCL["mask"][:, 0]}, "or a label map [N, h, w, 1] or [N, h, w]"),
    ({"mask": OCL["mask"][:5]}, "like image (6, 8, 10, 3)."),
    ({"mask": OCL["mask"][:, None, ..., None]}, "expected 3 or 4 or 5 dime"),
    ({"mask": OCL["mask"] / 2}, ".5, but there are 6 entities, 0 to 5. Set"),
    ({"mask": OCL["mask"].astype(np.int8) - 1}, "/mask has the label -1, but"),
    ({"mask": OCL["mask"].astype("S1")}, "/mask holds |S1; expected numbers"),
    ({"visibility": OCL["visibility"][:4]}, "expected [N, L] = [6, 6]."),
    ({"visibility": OCL["visibility"] * 17}, "/visibility holds 17; expected"),
    ({"visibility": OCL["visibility"][:, :1]}, "more entities than 1, as num"),
    ({"color": np.zeros([6, 6, 9000])}, "and d of at most 8,192."),
    ({"visibility": np.zeros([6, 257])}, "expected at most 256 entities."),
    ({"color": OCL["color"][:, :4]}, "/color has the shape (6, 4, 3); expec"),
    ({"num_actual_objects": np.zeros([6, 2])}, "expected [N, 1] = [6, 1]."),
    (
      {"num_actual_objects": OCL["num_actual_objects"] + 1},
      "of background, not num_background_entities=1.",
    ),
  ],
)
def test_wrong_files(tmp_path, changes, message):
  path = layouts.write(tmp_path / "a.h5", {**OCL, **changes})
  text = fault(build(path, factor_keys={"color": ["color"]}))
  assert text.startswith(f"data: {path}: ")
  assert message in text


def test_masks_that_are_the_other_kind(tmp_path):
  path = layouts.write(tmp_path / "a.h5", layouts.clevr())
  text = fault(build(path, num_entities=7))
  assert "has the shape (6, 11, 8, 10, 1); expected num_entities=7." in text


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"split": "train"}, "split='train': no such value"),
    ({"split": (3, 3)}, r"split=\(3, 3\): expected the name of a published"),
    ({"split": 3}, "split=3: expected the name"),
    ({"factor_keys": {"a": "x"}}, "factor_keys=.* lists of the"),
    ({"factor_keys": {"a": []}}, "factor_keys=.* lists of the"),
    ({"factor_keys": {"a": ["x"]}, "mask_key": None}, "which need masks"),
    ({"num_entities": 1}, "num_entities=1: expected an integer from 2"),
    ({"num_background_entities": 0}, "num_background_entities=0: expected"),
    ({"partial_masks": 1}, "partial_masks=1: expected True"),
    ({"image_key": ""}, "image_key='': expected"),
  ],
)
def test_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    build("a.h5", **options)


# --- End to end ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
  ("layout", "options"),
  [
    (layouts.clevr, ("data.factor_keys={'color': ['color']}",)),
    (layouts.object_centric_library, ("data.split=[0,5]",)),
  ],
)
def test_training_and_description(tmp_path, capsys, layout, options):
  layouts.write(tmp_path / "a.h5", layout())
  words = (
    "with",
    "tetrominoes",
    *TINY_MODEL,
    "data.constructor=iodine.modules.data.FlatHDF5",
    "data_file=a.h5",
    f"data_dir={tmp_path}",
    "image_dim=[8,10]",
    "model.factor_evaluator=null",
    *options,
  )
  shown = train_and_describe(capsys, tmp_path, *words)
  assert "masks     100.00% of the pixels belong to exactly one" in shown
