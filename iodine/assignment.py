"""Assignments of least cost, by the Hungarian algorithm."""

import iodine.quiet_tensorflow

import functools

import numpy as np
import tensorflow as tf
from scipy import optimize

from iodine.compiling import is_for_xla

__all__ = ["assign"]

# What a cost that is not finite counts as.
_HUGE = 1e30


def assign(costs: tf.Tensor) -> tf.Tensor:
  """The assignment of least total cost.

  SciPy finds it, but where XLA compiles: of several assignments that cost the
  same, that may be another one.

  Args:
    costs: [B, N, K] float32; N and K are known, and may differ.

  Returns:
    [B, 2, min(N, K)] int64, indices of rows (in their order) and columns.
  """
  if is_for_xla():
    return _assign_in_graph(costs)
  assignment = tf.numpy_function(_assign, [costs], tf.int64)
  return tf.ensure_shape(assignment, [costs.shape[0], 2, min(costs.shape[1:])])


def _assign(costs: np.ndarray) -> np.ndarray:
  costs = np.where(np.isfinite(costs), costs, _HUGE)
  pairs = [optimize.linear_sum_assignment(table) for table in costs]
  return np.array(pairs, np.int64).reshape(-1, 2, min(costs.shape[1:]))


# --- In TensorFlow's operations alone -----------------------------------------


def _assign_in_graph(costs: tf.Tensor) -> tf.Tensor:
  """As `assign`, by shortest augmenting paths, for all tables at once."""
  costs = tf.where(tf.math.is_finite(costs), costs, _HUGE)
  costs = tf.cast(costs, tf.float64)
  num_rows, num_columns = costs.shape[1:]
  if num_rows > num_columns:
    rows = _columns_of_rows(tf.transpose(costs, [0, 2, 1]))
    columns = tf.argsort(rows)  # rows are to be in their order
    rows = tf.gather(rows, columns, batch_dims=1)
  else:
    columns = _columns_of_rows(costs)
    rows = tf.broadcast_to(tf.range(num_rows), tf.shape(columns))
  return tf.cast(tf.stack([rows, columns], axis=1), tf.int64)


def _columns_of_rows(costs: tf.Tensor) -> tf.Tensor:
  """The column of each row: costs [B, N, K] float64, N <= K, to [B, N] int32.

  Rows come one after the other. Each looks for the shortest path, by costs less
  the prices of their row and column, over columns that have a row to a column
  that has none; the rows on the path then move on by one column. Beside the
  columns, one more, K, has the row that comes.
  """
  batch = tf.shape(costs)[0]
  num_rows, num_columns = costs.shape[1:]

  def add_row(row: tf.Tensor, state: tuple) -> tuple:
    rows, row_prices, column_prices = state
    rows = tf.concat([rows, tf.fill([batch, 1], row)], axis=1)
    rows, *prices = _with_row(costs, rows, row_prices, column_prices)
    return row + 1, (rows[:, :-1], *prices)

  state = (
    tf.fill([batch, num_columns], num_rows),  # the row of each column, or N
    tf.zeros([batch, num_rows], tf.float64),
    tf.zeros([batch, num_columns], tf.float64),
  )
  _, (rows, *_) = tf.while_loop(
    lambda row, _: row < num_rows, add_row, (0, state)
  )
  is_row = rows[:, tf.newaxis] == tf.range(num_rows)[:, tf.newaxis]
  return tf.argmax(tf.cast(is_row, tf.int32), axis=2, output_type=tf.int32)


def _with_row(
  costs: tf.Tensor,
  rows: tf.Tensor,
  row_prices: tf.Tensor,
  column_prices: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Gives the row of the last column one of the others.

  Args:
    costs: [B, N, K] float64.
    rows: [B, K + 1] int32, the row of each column; N: none.
    row_prices: [B, N] float64.
    column_prices: [B, K] float64.

  Returns:
    The new rows and prices.
  """
  num_rows, num_columns = costs.shape[1:]
  row_sets = tf.one_hot(rows, num_rows, dtype=tf.float64)  # [B, K + 1, N]
  start = tf.fill(tf.shape(rows)[:1], num_columns)
  state = (
    row_prices,
    column_prices,
    tf.fill(tf.shape(column_prices), tf.constant(np.inf, tf.float64)),
    tf.fill(tf.shape(column_prices), num_columns),
    tf.zeros(tf.shape(rows), tf.bool),
  )
  column, (row_prices, column_prices, _, before, _) = tf.while_loop(
    lambda column, _: tf.reduce_any(_at(rows, column) < num_rows),
    functools.partial(_visit, costs, rows, row_sets),
    (start, state),
  )
  before = tf.concat([before, start[:, tf.newaxis]], axis=1)  # K leads to K

  def move(column: tf.Tensor, rows: tf.Tensor) -> tuple:
    """Gives a column the row of the one before it on the path."""
    previous = _at(before, column)
    here = tf.range(num_columns + 1) == column[:, tf.newaxis]
    return previous, tf.where(here, _at(rows, previous)[:, tf.newaxis], rows)

  _, rows = tf.while_loop(
    lambda column, _: tf.reduce_any(column < num_columns), move, (column, rows)
  )
  return rows, row_prices, column_prices


def _visit(
  costs: tf.Tensor,
  rows: tf.Tensor,
  row_sets: tf.Tensor,
  column: tf.Tensor,
  state: tuple,
) -> tuple:
  """Goes on from a column's row to the nearest column not yet visited.

  Tables whose column has no row are done, and stay as they are.
  """
  row_prices, column_prices, lengths, before, visited = state
  num_rows, num_columns = costs.shape[1:]
  active = (_at(rows, column) < num_rows)[:, tf.newaxis]
  visited |= active & (tf.range(num_columns + 1) == column[:, tf.newaxis])
  row = tf.minimum(_at(rows, column), num_rows - 1)
  reduced = (
    _at(costs, row) - _at(row_prices, row)[:, tf.newaxis] - column_prices
  )
  is_free = active & ~visited[:, :-1]
  is_shorter = is_free & (reduced < lengths)
  lengths = tf.where(is_shorter, reduced, lengths)
  before = tf.where(is_shorter, column[:, tf.newaxis], before)
  to_visit = tf.where(is_free, lengths, np.inf)
  nearest = tf.argmin(to_visit, axis=1, output_type=tf.int32)
  step = tf.where(active, tf.reduce_min(to_visit, 1, keepdims=True), 0.0)
  paid = tf.where(visited, step, 0.0)
  return tf.where(active[:, 0], nearest, column), (
    row_prices + tf.linalg.matvec(row_sets, paid, transpose_a=True),
    column_prices - paid[:, :-1],
    tf.where(is_free, lengths - step, lengths),
    before,
    visited,
  )


def _at(values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
  """Values [B, n, ...] at index [B]: [B, ...]."""
  return tf.gather(values, index, batch_dims=1)
