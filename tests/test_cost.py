"""What a step costs on paper, against counts by hand."""

import json

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("jax")

from benchmarks import cost
from scripts.export_training import step_module

_SIZE, _IN, _OUT, _KERNEL = 20, 16, 24, 3


class _Trainer:
  """A convolution without padding, alone or in a loop."""

  def __init__(self, num_times: int = 0):
    self._num_times = num_times
    shape = [_KERNEL, _KERNEL, _IN, _OUT]
    self.kernel = tf.Variable(tf.ones(shape), name="kernel")
    self.variables = [self.kernel]

  def traced_step(self, data):
    def convolved(total):
      maps = tf.nn.conv2d(data["image"] + total, self.kernel, 1, "VALID")
      return tf.reduce_sum(maps)

    if not self._num_times:
      return {"loss/total": convolved(0.0)}, None
    _, total = tf.while_loop(
      lambda i, _: i < self._num_times,
      lambda i, total: (i + 1, convolved(total)),
      (0, 0.0),
    )
    return {"loss/total": total}, None


def _analysed(batch_size: int, num_times: int = 0, fused: bool = False):
  image = np.zeros([batch_size, _SIZE, _SIZE, _IN], np.float32)
  trainer = _Trainer(num_times)
  module, spec, _ = step_module(trainer, {"image": tf.constant(image)})
  return cost.analysed(module, spec, fused)


def _by_hand(batch_size: int) -> int:
  pixels = batch_size * (_SIZE - _KERNEL + 1) ** 2
  return 2 * pixels * _OUT * _KERNEL**2 * _IN


class TestAnalysis:
  def test_of_a_convolution(self):
    found = _analysed(3, fused=True)
    assert found["flops"] == pytest.approx(_by_hand(3), rel=0.01)
    assert found["flops"] >= _by_hand(3)
    assert found["loops"] == 0
    # The images are read at least, and the maps that are summed are small.
    least = 4 * 3 * _SIZE**2 * _IN
    assert least < found["fused_bytes"] <= found["bytes"] < 10 * least

  def test_grows_with_the_batch(self):
    one, two, four = (_analysed(size)["flops"] for size in (1, 2, 4))
    assert four - two == 2 * (two - one)
    assert four == pytest.approx(4 * one, rel=1e-3)

  def test_counts_the_body_of_a_loop_once_and_says_so(self):
    found = _analysed(2, num_times=5)
    assert found["loops"] == 1
    assert found["flops"] == pytest.approx(_by_hand(2), rel=0.05)


class TestPrediction:
  gpu = cost.Gpu({"float32": 1e12, "tf32": 8e12}, 2e12, 100e9)
  counted = {
    "config": "some",
    "batch_size": 4,
    "flops": 8e12,
    "bytes": 9e12,
    "fused_bytes": 6e12,
    "parameters": 25_000_000,
    "images": 7_200_000,
    "images_a_gpu": 2,
  }

  def test_is_bound_by_arithmetic_or_by_memory(self):
    speed = lambda counted, precision: cost.images_per_s(
      counted, self.gpu, precision
    )
    assert speed(self.counted, "float32") == 4 / 8
    assert speed(self.counted, "tf32") == 4 / 3
    unfused = {k: v for k, v in self.counted.items() if k != "fused_bytes"}
    assert speed(unfused, "tf32") == 4 / 4.5

  def test_of_several_gpus(self):
    # 100 MB of gradients, over the links of a machine or a slower network.
    assert cost.all_reduce_s(25_000_000, self.gpu, 1) == 0
    assert cost.all_reduce_s(25_000_000, self.gpu, 8) == 1.75e-3
    assert cost.all_reduce_s(25_000_000, self.gpu, 16) == 1.875 * 2e-3
    assert cost.growth(self.counted, self.gpu, "float32", 8) == {
      "gpus": 8,
      "step_ms": 4000.0,
      "all_reduce_ms": 1.75,
      "hours": 500.2,
    }

  def test_table_goes_on_with_what_is_there(self, tmp_path, monkeypatch):
    file = tmp_path / "counts.jsonl"
    lines = [
      {**self.counted, "config": name} for name in cost.reading.config_names()
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(cost.subprocess, "run", None)  # nothing is left to do
    rows = cost._table(cost._all_counts(file, fused=True)).splitlines()
    assert len(rows) == len(lines) + 2
    assert len({row.count("|") for row in rows}) == 1
    assert "| 2,000.0 | 1,500,000 |" in rows[-1]
