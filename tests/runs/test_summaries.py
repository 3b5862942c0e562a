"""Tests for iodine.runs.summaries."""

import numpy as np
import pytest
import tensorflow as tf

from iodine.runs import summaries


def _write(folder, values, suffix, image=False):
  writer = tf.summary.create_file_writer(str(folder), filename_suffix=suffix)
  with writer.as_default():
    for step, value in values.items():
      tf.summary.scalar("loss/total", value, step)
      tf.summary.scalar("loss/mse", 2.0 * value, step)
    if image:
      tf.summary.image("overview", np.zeros([1, 4, 4, 3], np.float32), 1)
  writer.close()


def test_scalars_come_in_the_order_of_steps(tmp_path):
  _write(tmp_path, {1: 5.0, 2: 4.0, 4: 3.5}, ".v2", image=True)
  scalars = summaries.read_scalars(tmp_path)
  assert set(scalars) == {"loss/total", "loss/mse"}
  steps, values = scalars["loss/mse"]
  np.testing.assert_array_equal(steps, [1, 2, 4])
  np.testing.assert_array_equal(values, [10.0, 8.0, 7.0])


def test_steps_that_were_taken_twice_count_as_taken_last(tmp_path):
  _write(tmp_path, {1: 5.0, 3: 3.0}, ".a")
  # Names hold the second and the number of the writer in this process.
  _write(tmp_path, {2: 4.5, 3: 3.5, 4: 2.5}, ".b")
  steps, values = summaries.read_scalars(tmp_path)["loss/total"]
  np.testing.assert_array_equal(steps, [1, 2, 3, 4])
  np.testing.assert_array_equal(values, [5.0, 4.5, 3.5, 2.5])


def test_long_runs_are_thinned_out(tmp_path, monkeypatch):
  monkeypatch.setattr(summaries, "_MOST_VALUES", 10)
  _write(tmp_path, {i: float(i) for i in range(100)}, ".v2")
  steps, values = summaries.read_scalars(tmp_path)["loss/total"]
  assert len(steps) == 10
  assert steps[-1] == 99
  np.testing.assert_array_equal(steps, values)


@pytest.mark.parametrize("files", [[], ["model.ckpt-5.index"]])
def test_a_folder_without_events(tmp_path, files):
  for name in files:
    (tmp_path / name).touch()
  assert summaries.read_scalars(tmp_path) == {}
