"""Which slot is compared with which object.

Dimensions: B batch, L true entities, K slots, D size of a target.
"""

import numpy as np
from scipy import optimize

__all__ = ["MATCHINGS", "by_cost", "in_order", "in_two_steps"]

# By the loss itself, by masks, or in an order that the targets fix.
MATCHINGS = ("loss", "mask", "order")


def by_cost(cost: np.ndarray, is_object: np.ndarray) -> np.ndarray:
  """Assigns objects to slots one by one, for the least sum of costs.

  Args:
    cost: [B, L, K], finite.
    is_object: [B, L] bool, which entities are objects.

  Returns:
    [B, L] int32, the slot of each object; -1 for what is none, and for objects
    that are left over where there are more of them than slots.
  """
  slots = np.full(is_object.shape, -1, np.int32)
  all_slots = np.arange(cost.shape[2])
  for row, costs, objects in zip(slots, cost, is_object, strict=True):
    _assign(row, costs, objects, all_slots)
  return slots


def _assign(
  row: np.ndarray, costs: np.ndarray, objects: np.ndarray, slots: np.ndarray
) -> None:
  """Enters the slots of a scene's objects in a row [L], of those given."""
  entities = np.flatnonzero(objects)
  matched, places = optimize.linear_sum_assignment(
    costs[np.ix_(entities, slots)]
  )
  row[entities[matched]] = slots[places]


def in_two_steps(
  unaffected_cost: np.ndarray,
  cost: np.ndarray,
  is_object: np.ndarray,
  is_modified: np.ndarray,
) -> np.ndarray:
  """Assigns modified objects by what is still true of them, then the others.

  First, all objects are assigned by `unaffected_cost`, which decides for the
  modified ones; then the others, by `cost`, to the slots that are left. Without
  modified objects, it is `by_cost` of `cost`. (Dittadi et al. 2022)

  Args:
    unaffected_cost: [B, L, K], finite, without affected factors.
    cost: [B, L, K], finite, of all factors.
    is_object: [B, L] bool, which entities are objects.
    is_modified: [B, L] bool, which of these a shift has modified.

  Returns:
    [B, L] int32, see `by_cost`.
  """
  slots = np.where(is_modified, by_cost(unaffected_cost, is_object), -1)
  for row, costs, others in zip(
    slots, cost, is_object & ~is_modified, strict=True
  ):
    _assign(row, costs, others, np.setdiff1d(np.arange(cost.shape[2]), row))
  return slots.astype(np.int32)


def in_order(
  targets: np.ndarray, is_object: np.ndarray, num_slots: int
) -> np.ndarray:
  """Assigns the s-th object to slot s, in the order of their targets.

  Args:
    targets: [B, L, D], compared by the first column, then by the next.
    is_object: [B, L] bool, which entities are objects.
    num_slots: K.

  Returns:
    [B, L] int32, see `by_cost`.
  """
  slots = np.full(is_object.shape, -1, np.int32)
  for row, values, objects in zip(slots, targets, is_object, strict=True):
    entities = np.flatnonzero(objects)
    order = np.lexsort(values[entities].T[::-1])[:num_slots]
    row[entities[order]] = np.arange(len(order))
  return slots
