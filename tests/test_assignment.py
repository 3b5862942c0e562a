"""Tests of iodine.assignment, against all assignments there are."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from iodine import assignment
from iodine.compiling import compiled


@pytest.mark.parametrize("rows, columns", [(3, 3), (2, 4), (4, 2)])
def test_assignment_is_the_cheapest(rows, columns, run):
  rng = np.random.default_rng(0)
  costs = rng.uniform(size=[5, rows, columns]).astype(np.float32)
  pairs = run(assignment.assign)(tf.constant(costs)).numpy()
  assert pairs.shape == (5, 2, min(rows, columns))
  for table, (first, second) in zip(costs, pairs, strict=True):
    assert len(set(first)) == len(set(second)) == min(rows, columns)
    assert list(first) == sorted(first)
    wide = table if rows <= columns else table.T
    cheapest = min(
      sum(wide[i, j] for i, j in enumerate(order))
      for order in itertools.permutations(range(wide.shape[1]), len(wide))
    )
    np.testing.assert_allclose(table[first, second].sum(), cheapest, rtol=1e-6)


@pytest.mark.parametrize("rows, columns", [(5, 7), (7, 5)])
def test_xla_s_assignment_is_scipy_s(rows, columns):
  rng = np.random.default_rng(0)
  costs = rng.uniform(size=[30, rows, columns]).astype(np.float32)
  costs[:2, 1, 2] = np.nan, np.inf
  assign = compiled(assignment.assign, xla=True)
  np.testing.assert_array_equal(
    assign(tf.constant(costs)), assignment.assign(tf.constant(costs))
  )
  ties = np.round(3 * rng.uniform(size=costs.shape)).astype(np.float32)
  found, expected = (
    [table[tuple(pair)].sum() for table, pair in zip(ties, pairs, strict=True)]
    for pairs in (
      assign(tf.constant(ties)).numpy(),
      assignment.assign(tf.constant(ties)).numpy(),
    )
  )
  np.testing.assert_array_equal(found, expected)


def test_costs_that_are_not_finite_are_avoided():
  costs = tf.constant([[[np.nan, 1.0], [2.0, np.inf]]])
  np.testing.assert_array_equal(assignment.assign(costs), [[[0, 1], [1, 0]]])
