"""What may differ between a run and its continuation."""

import copy
import json

import pytest

from iodine.config import reading, resolution
from iodine.errors import ConfigError
from iodine.runs import continuation


def resolved(name: str = "tetrominoes", **overrides) -> dict:
  return resolution.resolve(reading.named_configs()[name], overrides)


def saved(name: str = "tetrominoes", **overrides) -> dict:
  """As a run leaves it in its folder."""
  return json.loads(json.dumps({**resolved(name, **overrides), "seed": 3}))


def differences(tmp_path, before: dict, now: dict) -> list[str]:
  """The lines that tell of differences."""
  with pytest.raises(ConfigError) as error:
    continuation.check_drift(before, now, tmp_path)
  first, *lines = str(error.value).splitlines()
  assert first.startswith(f"checkpoint_dir='{tmp_path}': continue_run=True")
  assert lines[-2].startswith("May differ: ")
  command = f"`with {tmp_path}/config.json continue_run=True checkpoint_dir="
  assert lines[-1].startswith(command + str(tmp_path))
  return [line.strip() for line in lines[:-2]]


@pytest.mark.parametrize("name", reading.named_configs())
def test_the_same_configuration_may_go_on(name, tmp_path):
  now = resolved(name, continue_run=True, checkpoint_dir=str(tmp_path))
  continuation.check_drift(saved(name), now, tmp_path)


@pytest.mark.parametrize(
  "overrides, expected",
  [
    ({"n_z": 65}, ["n_z: saved 32, now 65"]),
    ({"num_components": 5}, ["num_components: saved 4, now 5"]),
    ({"num_iters": 6}, ["num_iters: saved 5, now 6"]),
    ({"held_out_scenes": 5}, ["held_out_scenes: saved 1000, now 5"]),
    ({"image_dim": [9, 7]}, ["image_dim: saved None, now [9, 7]"]),
    ({"model": {"n_z": 65}}, ["model.n_z: saved nothing, now 65"]),
    (
      {"n_z": 65, "data": {"max_num_objects": 2}},
      ["data.max_num_objects: saved nothing, now 2", "n_z: saved 32, now 65"],
    ),
  ],
)
def test_another_model_or_other_data_are_told(overrides, expected, tmp_path):
  now = resolved(**overrides)
  assert differences(tmp_path, saved(), now) == expected


def test_another_dataset_is_told(tmp_path):
  lines = differences(tmp_path, saved(), resolved("multi_dsprites"))
  told = "data.constructor: saved 'iodine.modules.data.Tetrominoes', now "
  assert told + "'iodine.modules.data.MultiDSprites'" in lines
  assert not [x for x in lines if x.startswith(("data.path", "learn_rate"))]


def test_an_entry_that_is_gone_is_told(tmp_path):
  before = saved(data={"grayscale": True})
  lines = differences(tmp_path, before, resolved())
  assert lines == ["data.grayscale: saved True, now nothing"]


@pytest.mark.parametrize(
  "overrides",
  [
    {"stop_after_steps": 5, "save_images_steps": 2, "keep_checkpoints": 1},
    {"batch_size": 7, "base_learn_rate": 0.5},
    {"learn_rate": 0.5, "optimizer": {"beta1": 0.5}},
    {"data_dir": "/elsewhere"},
    {"data_file": "other.tfrecords"},
    {"data": {"path": "/x", "cache_dir": "/y", "seed": 8, "shuffle_buffer": 9}},
    {"accumulate": 2, "strategy": "mirrored", "deterministic": True},
    {"precision": "bfloat16", "recompute": True},
    {"model": {"precision": "bfloat16"}},
    {"seed": 9, "scene": 3, "pictures_dir": "x"},
  ],
)
def test_what_may_differ_may(overrides, tmp_path):
  continuation.check_drift(saved(), resolved(**overrides), tmp_path)


def test_tuples_and_whole_floats_are_no_difference(tmp_path):
  now = resolved(image_dim=(35, 35), n_z=32.0)
  continuation.check_drift(saved(image_dim=[35, 35]), now, tmp_path)


def test_entries_of_another_version_are_no_difference(tmp_path):
  before, now = saved(), resolved()
  before["sub_batch_size"] = 4
  del before["num_iters"]
  continuation.check_drift(before, now, tmp_path)


@pytest.mark.parametrize("before", [{}, {"n_z": 32}])
def test_a_folder_that_tells_nothing_may_go_on(before, tmp_path):
  continuation.check_drift(before, resolved(), tmp_path)


def test_nothing_is_changed(tmp_path):
  before, now = saved(), resolved()
  copies = copy.deepcopy((before, now))
  continuation.check_drift(before, now, tmp_path)
  assert (before, now) == copies
