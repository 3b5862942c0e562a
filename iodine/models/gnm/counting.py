"""How many objects there are, inferred and true.

Dimensions: N scenes, B batch, S answers, K slots, L true entities.
"""

import iodine.quiet_tensorflow

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["records", "scores"]


def records(
  info: Mapping[str, Any], num_background_entities: int
) -> dict[str, tf.Tensor]:
  """Counts objects.

  Args:
    info: result of `GNM.infer`.
    num_background_entities: how many true masks are background.

  Returns:
    count: [B, S] float32, slots whose presence is above a half; true_count: [B]
    float32, objects with a pixel. Nothing if there are no true masks.
  """
  data = info["data"]
  if "true_mask" not in data:
    return {}
  present = tf.round(info["outputs"]["presence"])
  objects = data["true_mask"][:, -1, num_background_entities:]
  visible = tf.reduce_max(objects, axis=[2, 3, 4])
  return {
    "count": tf.reduce_sum(present, axis=2),
    "true_count": tf.reduce_sum(tf.round(visible), axis=1),
  }


def scores(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Scores of counts.

  Args:
    values: result of `records`, of N scenes.

  Returns:
    count/accuracy: [S], share of the scenes whose count is right; count/error:
    [S], mean absolute error. Nothing without counts.
  """
  if "count" not in values:
    return {}
  errors = np.abs(values["count"] - values["true_count"][:, np.newaxis])
  return {
    "count/accuracy": np.mean(errors == 0, axis=0),
    "count/error": np.mean(errors, axis=0),
  }
