"""Tests of iodine.evaluation.matching."""

import itertools

import numpy as np
import pytest

from iodine.evaluation import matching

B, L, D = 7, 5, 3


def _is_object():
  present = np.random.default_rng(1).uniform(size=[B, L]) < 0.6
  present[0], present[1] = False, True
  return present


@pytest.mark.parametrize("num_slots", [3, 6])
def test_costs_are_the_least_of_all_assignments(num_slots):
  cost = np.random.default_rng(0).standard_normal([B, L, num_slots])
  is_object = _is_object()
  slots = matching.by_cost(cost, is_object)
  assert slots.dtype == np.int32
  assert (slots[~is_object] == -1).all()
  for b in range(B):
    entities = np.flatnonzero(slots[b] >= 0)
    count = min(int(is_object[b].sum()), num_slots)
    assert len(entities) == len(set(slots[b, entities])) == count
    least = min(
      cost[b, list(rows), list(columns)].sum()
      for rows in itertools.combinations(np.flatnonzero(is_object[b]), count)
      for columns in itertools.permutations(range(num_slots), count)
    )
    assert cost[b, entities, slots[b, entities]].sum() == pytest.approx(least)


def test_order_is_lexicographic():
  targets = np.array([[[9, 9, 9], [1, 5, 0], [0, 7, 0], [1, 2, 8], [1, 2, 7]]])
  is_object = np.array([[False, True, True, True, True]])
  slots = matching.in_order(targets, is_object, num_slots=6)
  np.testing.assert_array_equal(slots, [[-1, 3, 0, 2, 1]])


def test_objects_at_the_end_of_the_order_are_left_over():
  targets = np.arange(L)[np.newaxis, ::-1, np.newaxis]
  slots = matching.in_order(targets, np.ones([1, L], bool), num_slots=2)
  np.testing.assert_array_equal(slots, [[-1, -1, -1, 1, 0]])
