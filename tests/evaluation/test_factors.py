"""Tests of iodine.evaluation.factors."""

import numpy as np
import pytest
import tensorflow as tf

from iodine.config import reading
from iodine.config.plans import build
from iodine.config.resolution import resolve
from iodine.evaluation import factors

IS_OBJECT = np.array([[False, True, True], [False, True, False]])


def _factors(**changed):
  position = [[[9, 9], [1, 5], [3, 5]], [[9, 9], [2, 8], [7, 7]]]
  return {
    "color": np.array([[[9], [4], [2]], [[9], [4], [7]]], np.uint8),
    "orientation": np.ones([2, 3, 1]),
    "position": np.array(position, np.float32),
    "shape": np.array([[[0], [1], [3]], [[0], [3], [5]]], np.float32),
    **changed,
  }


@pytest.mark.parametrize(
  "config", ["clevr6", "demo", "multi_dsprites", "tetrominoes"]
)
def test_types_are_those_that_configurations_say(config):
  entries = resolve(reading.named_configs()[config])
  dataset = build(
    {**entries["data"], "batch_size": 1, "path": "none"}, identifier="data"
  )
  for name, _, kind in entries["model"]["factor_evaluator"]["mapping"]:
    dtype, _ = dataset.factors[name]
    assert factors.type_of(name, tf.as_dtype(dtype).as_numpy_dtype) == kind


def test_columns_of_vectors_are_apart_and_categories_are_integers():
  apart = factors.columns(_factors())
  assert list(apart) == [
    *("color", "orientation", "position_0", "position_1", "shape")
  ]
  np.testing.assert_array_equal(apart["position_1"], [[9, 5, 5], [9, 8, 7]])
  for name in ("color", "shape"):
    assert np.issubdtype(apart[name].dtype, np.integer)


def test_numbers_are_standardised_and_categories_counted_by_objects_alone():
  encoding = factors.Encoding(_factors(), IS_OBJECT)
  names = [item.name for item in encoding.properties]
  assert names == ["shape", "position", "color"]  # the published order
  shape, position, color = encoding.properties
  np.testing.assert_array_equal(shape.categories, [1, 3])
  np.testing.assert_array_equal(color.categories, [2, 4])
  assert position.categories is None
  assert encoding.size == 2 + 2 + 2
  targets = encoding.encode(_factors())
  assert targets.shape == (2, 3, 6) and targets.dtype == np.float32
  of_objects = targets[IS_OBJECT]
  numbers = of_objects[:, position.columns]
  np.testing.assert_allclose(numbers.mean(axis=0), 0.0, atol=1e-6)
  np.testing.assert_allclose(numbers.std(axis=0), 1.0, rtol=1e-6)
  np.testing.assert_array_equal(
    of_objects[:, shape.columns], [[1, 0], [0, 1], [0, 1]]
  )
  # Entity 2 of scene 1 has a shape and a color that no object has.
  assert not targets[1, 2, shape.columns].any()
  assert not targets[1, 2, color.columns].any()


def test_what_all_objects_have_alike_is_left_out():
  alike = _factors(color=np.ones([2, 3, 1]))
  alike["position"][..., 1] = 4.0
  encoding = factors.Encoding(alike, IS_OBJECT)
  assert encoding.left_out == ["color"]
  assert [item.name for item in encoding.properties] == ["shape", "position"]
  assert np.isfinite(encoding.encode(alike)).all()
