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


@pytest.mark.parametrize("num_slots", [3, 6])
def test_modified_objects_keep_their_slots_and_others_share_the_rest(num_slots):
  rng = np.random.default_rng(2)
  unaffected, cost = rng.standard_normal([2, B, L, num_slots])
  is_object = _is_object()
  is_modified = is_object & (rng.uniform(size=[B, L]) < 0.4)
  assert is_modified[1].any() and not is_modified[1].all()
  slots = matching.in_two_steps(unaffected, cost, is_object, is_modified)
  assert slots.dtype == np.int32
  for b in range(B):
    objects, expected = np.flatnonzero(is_object[b]), np.full(L, -1)
    first = _least(unaffected[b], objects, range(num_slots))
    for i in np.flatnonzero(is_modified[b]):
      expected[i] = first.get(i, -1)
    others = objects[~is_modified[b, objects]]
    free = [k for k in range(num_slots) if k not in expected]
    for i, k in _least(cost[b], others, free).items():
      expected[i] = k
    np.testing.assert_array_equal(slots[b], expected)
  # Each of the two costs decides somewhere.
  for costs in (unaffected, cost):
    assert (slots != matching.by_cost(costs, is_object)).any()


def _least(cost, entities, slots):
  """{entity: slot} of the cheapest assignment of as many as there can be."""
  count = min(len(entities), len(slots))
  return min(
    (
      dict(zip(rows, columns, strict=True))
      for rows in itertools.combinations(entities, count)
      for columns in itertools.permutations(slots, count)
    ),
    key=lambda pairs: sum(cost[i, k] for i, k in pairs.items()),
  )


def test_without_modified_objects_the_whole_cost_decides():
  rng = np.random.default_rng(2)
  unaffected, cost = rng.standard_normal([2, B, L, 4])
  is_object = _is_object()
  np.testing.assert_array_equal(
    matching.in_two_steps(
      unaffected, cost, is_object, np.zeros_like(is_object)
    ),
    matching.by_cost(cost, is_object),
  )


def test_order_is_lexicographic():
  targets = np.array([[[9, 9, 9], [1, 5, 0], [0, 7, 0], [1, 2, 8], [1, 2, 7]]])
  is_object = np.array([[False, True, True, True, True]])
  slots = matching.in_order(targets, is_object, num_slots=6)
  np.testing.assert_array_equal(slots, [[-1, 3, 0, 2, 1]])


def test_objects_at_the_end_of_the_order_are_left_over():
  targets = np.arange(L)[np.newaxis, ::-1, np.newaxis]
  slots = matching.in_order(targets, np.ones([1, L], bool), num_slots=2)
  np.testing.assert_array_equal(slots, [[-1, -1, -1, 1, 0]])
