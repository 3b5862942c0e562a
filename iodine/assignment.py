"""Assignments of least cost, by the Hungarian algorithm."""

import iodine.quiet_tensorflow

import numpy as np
import tensorflow as tf
from scipy import optimize

__all__ = ["assign"]

# What a cost that is not finite counts as.
_HUGE = 1e30


def assign(costs: tf.Tensor) -> tf.Tensor:
  """The assignment of least total cost.

  Args:
    costs: [B, N, K] float32; N and K are known, and may differ.

  Returns:
    [B, 2, min(N, K)] int64, indices of rows (in their order) and columns.
  """
  assignment = tf.numpy_function(_assign, [costs], tf.int64)
  return tf.ensure_shape(assignment, [costs.shape[0], 2, min(costs.shape[1:])])


def _assign(costs: np.ndarray) -> np.ndarray:
  costs = np.where(np.isfinite(costs), costs, _HUGE)
  pairs = [optimize.linear_sum_assignment(table) for table in costs]
  return np.array(pairs, np.int64).reshape(-1, 2, min(costs.shape[1:]))
