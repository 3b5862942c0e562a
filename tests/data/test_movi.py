"""Tests of iodine.data.movi: videos, frames, instances, faults."""

import sys

import numpy as np
import pytest

from iodine.data import opening
from iodine.data.datasets import MOVi
from iodine.errors import ConfigError
from tests.support import movi_files
from tests.support.tiny_runs import TINY_MODEL, train_and_describe

COUNTS = [3, 5, 4]


@pytest.fixture(name="videos", scope="module")
def fixture_videos():
  pytest.importorskip("tensorflow_datasets")
  return [movi_files.video(i, count) for i, count in enumerate(COUNTS)]


@pytest.fixture(name="path", scope="module")
def fixture_path(tmp_path_factory, videos):
  path = tmp_path_factory.mktemp("tfds")
  movi_files.write(path, {"train": videos, "validation": videos[:1]})
  return path


def build(path, **options):
  return MOVi(path=path, **{"batch_size": 3, "shuffle_buffer": None, **options})


def test_videos(path, videos):
  dataset = build(path, num_frames=5)
  assert dataset.estimated_num_examples() == 3
  (batch,) = dataset("eval")
  # TensorFlow Datasets shuffles what it writes: videos are told by a pixel.
  first = np.rint(batch["image"][:, 0, 0, 0, 0] * 255).astype(int)
  order = first // 10
  assert sorted(order) == [0, 1, 2]
  for i, number in enumerate(order):
    video = videos[number]
    np.testing.assert_allclose(
      batch["image"][i], video["video"][:5] / 255, atol=1e-6
    )
    count = COUNTS[number]
    assert batch["visibility"][i].numpy().sum() == count + 1
    labels = video["segmentations"][:5, None]
    expected = labels == np.arange(11)[:, None, None, None]
    np.testing.assert_array_equal(batch["mask"][i], expected)
    instances = video["instances"]
    factors = {name: x[i].numpy() for name, x in batch["factors"].items()}
    for value in factors.values():
      assert not value[0].any() and not value[count + 1 :].any()
    for j, instance in enumerate(instances, start=1):
      position = instance["image_positions"][0]
      np.testing.assert_allclose(factors["position"][j], position)
      np.testing.assert_allclose(factors["color"][j], instance["color"])
      for name in ("shape", "size", "material"):
        assert factors[name][j] == 1 + instance[f"{name}_label"]
  assert dataset("train").element_spec == dataset.batch_spec()
  assert build(path).num_frames == 24
  assert build(path, split="validation").estimated_num_examples() == 1
  (file,) = dataset.stored_files()
  assert file.startswith(f"{path}/movi_a/128x128/1.0.0/movi_a-train.tfrecord")


def test_one_frame(path, videos):
  dataset = build(path, frame=7)
  assert (dataset.num_frames, dataset.estimated_num_examples()) == (1, 3)
  (batch,) = dataset("eval")
  shown = np.rint(batch["image"][:, :, 0, 0, 0] * 255).astype(int)
  assert sorted(shown[:, 0]) == [7, 17, 27]
  positions = batch["factors"]["position"][:, 1]
  for value, position in zip(shown[:, 0], positions, strict=True):
    instance = videos[value // 10]["instances"][0]
    np.testing.assert_allclose(position, instance["image_positions"][7])


def test_each_frame(path):
  dataset = build(path, frame="each", batch_size=72, image_dim=(4, 4))
  assert dataset.estimated_num_examples() == 72
  (batch,) = dataset("eval")
  shown = np.rint(batch["image"][:, 0, 0, 0, 0] * 255).astype(int)
  for video in np.split(shown, 3):
    np.testing.assert_array_equal(video, video[0] + np.arange(24))


# --- Faults -------------------------------------------------------------------


def fault(dataset):
  with (
    pytest.raises(ConfigError) as caught,
    opening.data_errors_as_config_errors(dataset),
  ):
    list(dataset("eval"))
  return str(caught.value)


def test_missing_folder_split_and_features(path, tmp_path, videos):
  text = fault(build(path, level="c", resolution=256))
  assert f"there is no folder {path}/movi_c/256x256 of Tensor" in text
  assert "cp -r gs://kubric-public/tfds/movi_c/256x256 " in text
  text = fault(build(path, split="test"))
  assert "has no split='test'; there is: train, validation." in text
  scenes = {"train": videos[:1]}
  movi_files.write(tmp_path, scenes, without=("segmentations", "size_label"))
  text = fault(build(tmp_path))
  assert "1.0.0 has no segmentations; it is not of MOVi-A." in text
  movi_files.write(tmp_path / "b", scenes, without=("size_label",))
  text = fault(build(tmp_path / "b"))
  assert "1.0.0 has no instances/size_label; it is not of MOVi-A." in text


def test_damaged_folder(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  folder = tmp_path / "movi_a" / "128x128" / "1.0.0"
  folder.mkdir(parents=True)
  text = fault(build(tmp_path))
  assert f"MOVi: {folder} cannot be read (" in text
  assert text.endswith("). Copy it again.")


def test_more_instances_than_a_level_has(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  videos = {"train": [movi_files.video(0, 11)]}
  movi_files.write(tmp_path, videos, level="b")
  text = fault(build(tmp_path, level="b"))
  assert "a video has more than 10 instances, the most of movi_b" in text
  movi_files.write(tmp_path, videos, level="d")
  (batch,) = build(tmp_path, level="d", frame=0)("eval")
  assert batch["visibility"].numpy().sum() == 12
  assert set(batch["factors"]) == {"position"}


def test_tensorflow_datasets_is_an_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  text = fault(build(tmp_path))
  assert (
    "needs the package tensorflow-datasets, which the extra `movi` i" in text
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"level": "g"}, "level='g': no such value. Valid values: a, b"),
    ({"resolution": 64}, "resolution=64: no such value"),
    ({"split": "val"}, "split='val': no such value"),
    ({"num_frames": 25}, "num_frames=25: expected an integer from 1 to 24"),
    ({"frame": 24}, "frame=24: expected an integer from 0 to 23 or None"),
    ({"frame": "all"}, "frame='all': is text; expected an integer"),
    ({"min_num_objects": 11}, "min_num_objects=11: expected"),
  ],
)
def test_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    build("tfds", **options)


def test_training_and_description(path, tmp_path, capsys):
  words = (
    "with",
    "movi_a",
    *TINY_MODEL,
    f"data.path={path}",
    "image_dim=[8,8]",
    "data.num_frames=2",
    "batch_size=1",
  )
  shown = train_and_describe(capsys, tmp_path, *words, held_out_scenes=1)
  assert "11 a scene: 1 background first, then up to 10 objects" in shown
  assert "  size" in shown
