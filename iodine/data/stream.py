"""The endless stream of training scenes, which can start at any position.

The order of an epoch depends only on a seed and the epoch's number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

__all__ = [
  "START",
  "Position",
  "batches",
  "check_position",
  "set_graph_seed",
  "shuffled",
]


class Position(NamedTuple):
  """A position in the endless stream of training scenes.

  Attributes:
    epoch: number of completed epochs, an int64 scalar.
    offset: number of scenes already used in this epoch, an int64 scalar.
  """

  epoch: Any = 0
  offset: Any = 0


START = Position(0, 0)


def batches(
  order: Callable[[tf.Tensor], tf.data.Dataset],
  to_scene: Callable[[Any], Any],
  batch_size: int,
  start: Position,
) -> tf.data.Dataset:
  """Joins epochs, and batches their scenes.

  Args:
    order: maps an epoch to its scenes, in some form.
    to_scene: converts that form to a scene.
    batch_size: B; a batch may span two epochs.
    start: where to start, from `check_position`. Scenes already used in that
      epoch are read and skipped.

  Returns:
    A dataset of pairs: a batch, and the `Position` after it.
  """

  def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
    scenes = order(epoch).enumerate(start=1)
    scenes = scenes.skip(tf.where(epoch == start.epoch, start.offset, 0))
    return scenes.map(
      lambda used, scene: (to_scene(scene), Position(epoch, used)),
      num_parallel_calls=tf.data.AUTOTUNE,
    )

  epochs = tf.data.Dataset.counter(start.epoch, dtype=tf.int64)
  joined = epochs.flat_map(one_epoch).batch(batch_size, drop_remainder=True)
  joined = joined.map(
    lambda scenes, used: (scenes, Position(used.epoch[-1], used.offset[-1]))
  )
  return joined.prefetch(tf.data.AUTOTUNE)


def shuffled(
  scenes: tf.data.Dataset, epoch: tf.Tensor, seed: int, buffer: int | None
) -> tf.data.Dataset:
  """Shuffles in an order determined by (seed, epoch); for use in a graph.

  Args:
    scenes: scenes in any form.
    epoch: number of the epoch, scalar int64.
    seed: seed of the order, at least 0.
    buffer: size of the shuffle buffer, in scenes; None: no shuffling.
  """
  if buffer is None:
    return scenes
  set_graph_seed(seed)
  return scenes.shuffle(buffer, seed=epoch, reshuffle_each_iteration=False)


def set_graph_seed(seed: int) -> None:
  """Sets the seed of the current graph.

  TensorFlow combines an operation's seed with its graph's. Setting the latter,
  for the graph of an epoch only, keeps the program's global seed from changing
  the order.
  """
  # TensorFlow special-cases seed 0, which fails together with a tensor.
  tf.random.set_seed(1 + seed)


def check_position(position: Any) -> Position:
  """Converts a position to tensors; raises ValueError if it is impossible."""
  try:
    epoch, offset = (operator.index(count) for count in position)
    valid = epoch >= 0 and offset >= 0
  except (TypeError, ValueError):
    valid = False
  if not valid:
    raise ValueError(
      f"position={position!r}: expected a Position of two integers of at "
      "least 0, epoch and offset."
    )
  return Position(tf.constant(epoch, tf.int64), tf.constant(offset, tf.int64))
