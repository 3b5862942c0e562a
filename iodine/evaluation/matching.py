"""Which slot is compared with which object.

Dimensions: B batch, L true entities, K slots, D size of a target.
"""

import numpy as np
from scipy import optimize

__all__ = ["MATCHINGS", "by_cost", "in_order"]

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
  for row, costs, objects in zip(slots, cost, is_object, strict=True):
    entities = np.flatnonzero(objects)
    matched, columns = optimize.linear_sum_assignment(costs[entities])
    row[entities[matched]] = columns
  return slots


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
