"""Tests for iodine.runs.summaries."""

import contextlib
import itertools
import re
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorflow.core.util import event_pb2

from iodine.runs import summaries
from iodine.tfrecords import format as tfrecord_format


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


def _start(folder, step, values):
  """Starts or continues a run."""
  with contextlib.closing(summaries.open_writer(folder, step)) as writer:
    with writer.as_default():
      for i, value in enumerate(values):
        tf.summary.scalar("loss/total", value, step + 1 + i)


def _set_clocks(folder, seconds):
  """Has the starts happen at some seconds of the clock."""
  paths = sorted(folder.iterdir(), key=summaries._start)
  for path, second in zip(paths, seconds, strict=True):
    # Those of containers may be alike but for the second.
    path.rename(folder / f"events.out.tfevents.{second:010}.host.1.0.v2")


def _curve(folder):
  steps, values = summaries.read_scalars(folder)["loss/total"]
  return dict(zip(steps.tolist(), values.tolist(), strict=True))


@pytest.mark.parametrize(
  "seconds", list(itertools.permutations([1000, 2000, 3000]))
)
def test_continuations_count_whatever_the_clock_shows(tmp_path, seconds):
  _start(tmp_path, 0, [1.0, 1.0, 1.0, 1.0])
  _start(tmp_path, 2, [2.0, 2.0, 2.0])
  _start(tmp_path, 2, [3.0])
  _set_clocks(tmp_path, seconds)
  assert _curve(tmp_path) == {1: 1.0, 2: 1.0, 3: 3.0}


def test_files_of_earlier_versions_count_by_their_steps(tmp_path, monkeypatch):
  monkeypatch.setattr(summaries, "_START_TEXT", re.compile("no number"))
  _start(tmp_path, 0, [1.0, 1.0, 1.0, 1.0])
  _start(tmp_path, 2, [2.0, 2.0, 2.0])
  _set_clocks(tmp_path, [2000, 1000])
  assert _curve(tmp_path) == {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.0}


@pytest.mark.parametrize("seconds", [(0, -1), (-1, 0), (0, 1)])
def test_tensorboard_shows_continuations_after_a_clock_went_back(
  tmp_path, seconds
):
  _start(tmp_path, 0, [1.0, 1.0, 1.0, 1.0])
  _start(tmp_path, 2, [2.0, 2.0])
  later = round(time.time()) + 7200
  _set_clocks(tmp_path, [later + second for second in seconds])
  _start(tmp_path, 3, [])
  events = plugin_event_accumulator.EventAccumulator(str(tmp_path))
  events.Reload()
  assert [
    (event.step, tf.make_ndarray(event.tensor_proto).item())
    for event in events.Tensors("loss/total")
  ] == [(1, 1.0), (2, 1.0), (3, 2.0)]
  assert len(list(tmp_path.iterdir())) == 3


def test_names_in_order_stay(tmp_path):
  _start(tmp_path, 0, [1.0])
  _set_clocks(tmp_path, [1000])
  (before,) = tmp_path.iterdir()
  _start(tmp_path, 1, [1.0])
  assert before.exists()


@pytest.mark.parametrize("harm", ["cut", "flipped", "length", "no event"])
def test_a_damaged_file_is_told(tmp_path, caplog, harm):
  _write(tmp_path, {i: float(i) for i in range(10)}, ".a")
  (path,) = tmp_path.iterdir()
  content = bytearray(path.read_bytes())
  if harm == "cut":
    del content[-1]
  elif harm == "flipped":
    content[len(content) // 2] ^= 1
  elif harm == "length":
    head = (2**40).to_bytes(8, "little")
    checksum = tfrecord_format._masked_crc32c(head).to_bytes(4, "little")
    content[len(content) :] = head + checksum
  else:
    with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
      writer.write(b"\xff\xff")
    content += (tmp_path / "x").read_bytes()
    (tmp_path / "x").unlink()
  path.write_bytes(content)
  curve = _curve(tmp_path)
  assert 0 < len(curve) <= 10
  (record,) = caplog.records
  assert f"Cut off or damaged: {path}." in record.getMessage()


def test_any_flipped_bit_is_told(tmp_path, caplog):
  _write(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0}, ".a")
  (path,) = tmp_path.iterdir()
  content = path.read_bytes()
  expected = _curve(tmp_path)
  for i in range(0, len(content), 7):
    caplog.clear()
    path.write_bytes(content[:i] + bytes([content[i] ^ 16]) + content[i + 1 :])
    scalars = summaries.read_scalars(tmp_path)
    assert len(caplog.records) == 1
    if scalars:
      assert _curve(tmp_path).items() <= expected.items()


def test_a_scalar_that_claims_gigabytes_is_no_scalar(tmp_path):
  _write(tmp_path, {1: 1.0}, ".a")
  event = event_pb2.Event(step=2)
  value = event.summary.value.add(tag="loss/total")
  value.metadata.plugin_data.plugin_name = "scalars"
  value.tensor.dtype = tf.float32.as_datatype_enum
  value.tensor.float_val.append(1.0)
  value.tensor.tensor_shape.dim.add(size=2**40)
  with tf.io.TFRecordWriter(str(tmp_path / "tfevents.b")) as writer:
    writer.write(event.SerializeToString())
  assert _curve(tmp_path) == {1: 1.0}


@pytest.mark.parametrize("files", [[], ["model.ckpt-5.index"]])
def test_a_folder_without_events(tmp_path, files):
  for name in files:
    (tmp_path / name).touch()
  assert summaries.read_scalars(tmp_path) == {}
