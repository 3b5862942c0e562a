"""Tests of iodine.evaluation.cost."""

import itertools
import time

import numpy as np
import pytest
import tensorflow as tf

from iodine.evaluation import cost
from tests.support import tiny

_MEBIBYTE = 2**20


class _Model:
  """Needs a given amount of memory for a batch."""

  def __init__(self, megabytes: int):
    self._size = megabytes * _MEBIBYTE // 4
    self.trainable_variables = []

  def noise(self, rngs):
    return None

  def infer(self, data, noise):
    table = tf.random.uniform([self._size], seed=1)
    total = tf.reduce_sum(data["image"]) + tf.reduce_max(table)
    return {"outputs": {"recons": tf.reshape(total, [1, 1])}}


def _measure(model, **options):
  return cost.measure(
    model, options.pop("restore", lambda: None), tf.ones([2, 1, 3, 3, 1]), 0
  )


def test_memory_is_what_a_batch_needs():
  small = _measure(_Model(16)).memory
  if small is None:
    pytest.skip("this system does not tell the memory of a process")
  large = _measure(_Model(96)).memory
  assert small < 80 * _MEBIBYTE
  assert 64 * _MEBIBYTE < large < 300 * _MEBIBYTE


def test_variables_count_as_memory():
  kept = []
  model = _Model(1)

  def restore():
    kept.append(tf.Variable(tf.ones([100 * _MEBIBYTE // 4])))

  memory = _measure(model, restore=restore).memory
  if memory is None:
    pytest.skip("this system does not tell the memory of a process")
  assert memory > 64 * _MEBIBYTE


def test_memory_may_be_unknown(monkeypatch):
  monkeypatch.setattr(cost._Memory, "_highest", lambda self: None)
  assert _measure(_Model(1)).memory is None


def test_time_is_the_median_of_an_image(monkeypatch):
  # Of each call the start and the end; the first two compile, of the third
  # the memory is measured.
  seconds = [9.0, 8.0, 7.0, 0.5, 0.1, 0.2, 0.3, 0.2, 7.0, 0.2, 0.2, 0.1, 0.3]
  assert len(seconds) == 3 + cost.NUM_CALLS
  ends = itertools.accumulate(x for s in seconds for x in (0.0, s))
  monkeypatch.setattr(time, "perf_counter", lambda: next(ends))
  called = []
  measured = cost.measure(
    _Model(1),
    lambda: None,
    tf.ones([4, 1, 3, 3, 1]),
    0,
    lambda: called.append(1),
  )
  assert measured.milliseconds == pytest.approx(200 / 4)
  assert len(called) == cost.NUM_CALLS


def test_parameters_are_those_that_are_trained():
  model = tiny.initialized()
  batch = tiny.batch(2)
  measured = cost.measure(model, lambda: None, batch["image"], 0)
  expected = sum(np.size(v.numpy()) for v in model.trainable_variables)
  assert measured.parameters == expected
