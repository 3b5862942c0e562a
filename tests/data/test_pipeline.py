"""Tests of iodine.data.pipeline: datasets of one's own, and the cache."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from iodine.data import cache as scene_cache
from tests.support.small_datasets import Blobs, Clips


def numbers(batch):
  return batch["factors"]["number"][:, 0, 0].numpy().astype(int).tolist()


def test_videos_without_masks():
  clips = Clips(batch_size=2, image_dim=(4, 5))
  first, *_ = batches = list(clips("eval"))
  assert [len(batch["image"]) for batch in batches] == [2, 2, 1]
  assert set(first) == {"image"}
  assert first["image"].shape == (2, 3, 4, 5, 3)
  expected = np.array([[0, 1, 2], [10, 11, 12]]) / 255
  np.testing.assert_allclose(first["image"][:, :, 2, 3, 1], expected, 1e-6)
  assert clips("train").element_spec == clips.batch_spec()


def test_frames_masks_and_factors():
  blobs = Blobs(batch_size=6, image_dim=(7, 9))
  (batch,) = blobs("eval")
  assert batch["mask"].dtype == tf.uint8
  assert batch["mask"].shape == (6, 2, 3, 7, 9, 1)
  np.testing.assert_array_equal(tf.reduce_sum(batch["mask"], 2), 1)
  owner = tf.argmax(batch["mask"], 2)[..., 0]
  np.testing.assert_allclose(batch["image"][..., 0], owner * 100 / 255, 1e-6)
  # Present is what owns a pixel of any frame, and the background.
  visibility = [[1, 1, 1], [1, 0, 0], [1, 1, 0], *[[1, 1, 1]] * 3]
  np.testing.assert_array_equal(batch["visibility"], visibility)
  assert numbers(batch) == [0, 1, 2, 3, 4, 5]
  assert blobs("train").element_spec == blobs.batch_spec()


def test_masks_are_resized_frame_by_frame():
  (batch,) = Blobs(batch_size=6, image_dim=(5, 4))("eval")
  (whole,) = Blobs(batch_size=6, image_dim=(7, 9))("eval")
  rows = np.arange(5) * 7 // 5
  columns = np.arange(4) * 9 // 4
  expected = whole["mask"].numpy()[:, :, :, rows][:, :, :, :, columns]
  np.testing.assert_array_equal(batch["mask"], expected)


@pytest.mark.parametrize("crop", [None, ((2, 7), (1, 9))])
def test_masks_may_keep_the_size_that_they_are_stored_in(crop, tmp_path):
  (whole,) = Blobs(batch_size=6, image_dim=(7, 9))("eval")
  blobs = Blobs(
    batch_size=6, image_dim=(5, 4), crop_region=crop, cache_dir=str(tmp_path)
  )
  stored = blobs.with_stored_masks()
  (batch,), (resized,) = stored("eval"), blobs("eval")
  (top, bottom), (left, right) = crop or ((0, 7), (0, 9))
  np.testing.assert_array_equal(
    batch["mask"], whole["mask"][:, :, :, top:bottom, left:right]
  )
  np.testing.assert_array_equal(batch["image"], resized["image"])
  assert resized["mask"].shape[3:] == (5, 4, 1)
  assert stored("train").element_spec == stored.batch_spec()


def test_without_masks_there_are_none_to_keep():
  clips = Clips(batch_size=2, image_dim=(4, 5)).with_stored_masks()
  assert set(next(iter(clips("eval")))) == {"image"}


def test_filter_needs_masks():
  clips = Clips(batch_size=2, image_dim=(4, 5), max_num_objects=3)
  with pytest.raises(ValueError, match="no masks to count.*max_num_objects=3"):
    clips("eval")


@pytest.mark.parametrize(
  ("example", "message"),
  [
    ({"image": np.zeros([3, 8, 10, 3])}, "image must be uint8"),
    ({"image": np.zeros([2, 8, 10, 3], np.uint8)}, r"expected \[3, H, W, 3\]"),
    ({"image": np.zeros([8, 10, 3], np.uint8)}, r"expected \[3, H, W, 3\]"),
    ({"video": np.zeros([3, 8, 10, 3], np.uint8)}, r"have no \['image'\]"),
  ],
)
def test_examples_that_do_not_fit(example, message):
  class Wrong(Clips):
    def examples(self):
      return tf.data.Dataset.from_tensors(example)

  with pytest.raises(ValueError, match=f"Wrong: .*{message}"):
    Wrong(batch_size=2, image_dim=(4, 5))("eval")


def test_examples_of_unknown_shape():
  class Wrong(Clips):
    def examples(self):
      spec = {"image": tf.TensorSpec(None, tf.uint8)}
      return tf.data.Dataset.from_generator(list, output_signature=spec)

  with pytest.raises(ValueError, match="static shape"):
    Wrong(batch_size=2, image_dim=(4, 5))("eval")


# The cache


@pytest.fixture(name="small_files", autouse=True)
def fixture_small_files(monkeypatch):
  monkeypatch.setattr(scene_cache, "_MAX_SCENES_PER_FILE", 2)


def cached(tmp_path, **kwargs):
  options = {"batch_size": 2, "image_dim": (7, 9), "seed": 3, "name": "blobs"}
  return Blobs(cache_dir=str(tmp_path), **{**options, **kwargs})


def test_training_writes_the_cache_and_reads_it(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  first = cached(tmp_path)
  next(iter(first()))
  assert first.opened == 1
  assert "Writing preprocessed scenes to" in caplog.text
  again = cached(tmp_path, batch_size=3)
  (batch,) = again("eval").take(1)
  (expected,) = Blobs(batch_size=3, image_dim=(7, 9))("eval").take(1)
  tf.nest.map_structure(np.testing.assert_array_equal, batch, expected)
  next(iter(again()))
  assert next(iter(again("summary")))["image"].shape[0] == 3
  assert not again.opened
  assert again().element_spec == again.batch_spec()


def test_evaluation_alone_writes_no_cache(tmp_path):
  blobs = cached(tmp_path)
  next(iter(blobs("eval")))
  next(iter(blobs("summary")))
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shuffle_buffer", [None, 2, 100])
def test_cached_epochs_and_positions(tmp_path, shuffle_buffer):
  options = {"count": 7, "shuffle_buffer": shuffle_buffer, "skip": 1}
  blobs = cached(tmp_path, **options)
  stream = [(numbers(b), after) for b, after in blobs.batches().take(9)]
  epochs = np.ravel([scenes for scenes, _ in stream]).reshape(3, 6)
  np.testing.assert_array_equal(np.sort(epochs), [range(1, 7)] * 3)
  distinct = len({tuple(epoch) for epoch in epochs})
  assert distinct == (1 if shuffle_buffer is None else 3)
  for i, (_, after) in enumerate(stream[:-2]):
    resumed = cached(tmp_path, **options).batches(after).take(2)
    found = [numbers(batch) for batch, _ in resumed]
    assert found == [scenes for scenes, _ in stream[i + 1 : i + 3]]
  other = cached(tmp_path, **options, seed=4)
  order = [numbers(batch) for batch in other().take(9)]
  is_shuffled = shuffle_buffer is not None
  assert (order != [scenes for scenes, _ in stream]) == is_shuffled


def test_filter_skip_and_take_of_the_cache(tmp_path):
  options = {"min_num_objects": 1}
  cached(tmp_path, **options).build_cache()
  for skip, take, expected in (
    (0, None, [0, 2, 3, 4, 5]),
    (1, 2, [2, 3]),
    (4, None, [5]),
  ):
    blobs = cached(tmp_path, skip=skip, take=take, **options)
    found = sum((numbers(batch) for batch in blobs("eval")), [])
    assert found == expected
    assert not blobs.opened
  assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("subset", ["train", "summary", "eval"])
def test_no_scene_of_the_cache_left(tmp_path, subset):
  cached(tmp_path).build_cache()
  with pytest.raises(ValueError, match="no scene left.*skip=6"):
    cached(tmp_path, skip=6)(subset)


@pytest.mark.parametrize(
  "change",
  [
    {"image_dim": (6, 9)},
    {"crop_region": ((0, 5), (1, 6))},
    {"grayscale": True},
    {"max_num_objects": 1},
    {"source": 1},
    {"count": 5},
  ],
)
def test_what_changes_scenes_changes_the_cache(tmp_path, change):
  cached(tmp_path).build_cache()
  changed = cached(tmp_path, **change)
  changed.build_cache()
  assert changed.opened
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
  "change", [{"batch_size": 5}, {"seed": 9}, {"shuffle_buffer": 7}, {"take": 3}]
)
def test_what_does_not_change_scenes_keeps_the_cache(tmp_path, change):
  cached(tmp_path).build_cache()
  changed = cached(tmp_path, **change)
  changed.build_cache()
  assert not changed.opened


def test_progress_counts_what_the_filter_leaves_out(tmp_path):
  progress = []
  cached(tmp_path, max_num_objects=1).build_cache(progress.append)
  assert progress == [3]  # scenes 1 and 2 of 6 are kept


def test_nothing_to_cache(tmp_path):
  with pytest.raises(ValueError, match="no scene left"):
    cached(tmp_path, count=0).build_cache()
  assert list(tmp_path.iterdir()) == []
