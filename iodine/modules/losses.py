"""Losses of the refinement steps, and how they are weighed."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

__all__ = ["iteration_weights", "mean_kl", "weighted_sum"]


def iteration_weights(
  iter_loss_weight: str | float | Sequence[float], num_iters: int
) -> tuple[float, ...]:
  """Weights of the losses before the first refinement step and after each.

  Args:
    iter_loss_weight: "linspace" from 0 to 1, one number for all, or a list.
    num_iters: refinement steps.

  Returns:
    num_iters + 1 numbers.

  Raises:
    ValueError: for other values, or weights that are negative or not finite.
  """
  steps = num_iters + 1
  value = iter_loss_weight
  if value == "linspace":
    return tuple(np.linspace(0.0, 1.0, steps).tolist())
  if isinstance(value, int | float) and not isinstance(value, bool):
    weights = (float(value),) * steps
  elif isinstance(value, list | tuple):
    if len(value) != steps:
      raise ValueError(
        f"iter_loss_weight={list(value)}: {len(value)} weights, but "
        f"num_iters={num_iters} needs {steps} (one before the first step, one "
        f"after each)"
      )
    for weight in value:
      if not isinstance(weight, int | float) or isinstance(weight, bool):
        raise ValueError(f"iter_loss_weight: {weight!r} is no number")
    weights = tuple(float(w) for w in value)
  else:
    raise ValueError(
      f"iter_loss_weight={value!r}: must be 'linspace', a number or a list"
    )
  if not all(math.isfinite(w) and w >= 0 for w in weights):
    raise ValueError(
      f"iter_loss_weight={value!r}: weights must be finite and not negative"
    )
  return weights


def weighted_sum(
  weights: Sequence[float], losses: Sequence[tf.Tensor]
) -> tf.Tensor:
  """Sum over steps of weight times loss, scalars."""
  return tf.add_n([w * x for w, x in zip(weights, losses, strict=True)])


def mean_kl(kl: tf.Tensor) -> tf.Tensor:
  """KL [B, K] of slots to nats per image, a scalar."""
  return tf.reduce_mean(tf.reduce_sum(kl, axis=1))
