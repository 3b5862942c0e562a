"""The nested `info` that `IODINE.eval` returns."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from iodine import metrics

__all__ = ["collect", "stack_steps"]

if typing.TYPE_CHECKING:
  from iodine.modules.factor_eval import FactorRegressor
  from iodine.modules.iodine import IODINE


def stack_steps(values: Iterable[tf.Tensor]) -> tf.Tensor:
  """One [B, ...] per refinement step to [B, S, ...]."""
  return tf.stack(list(values), axis=1)


def collect(
  model: IODINE,
  data: Mapping[str, Any],
  total_loss: tf.Tensor,
  iterations: Mapping[str, list],
) -> dict[str, Any]:
  """Arranges what a forward pass computed (reference: iodine.py:278-364).

  Args:
    model: that computed it.
    data: the batch, checked.
    total_loss: scalar, nats.
    iterations: lists over refinement steps.

  Returns:
    See `IODINE.eval`.
  """
  dist = model.output_dist
  x_dists, z_dists = iterations["x_dist"], iterations["z_dist"]
  recons = stack_steps(x.mean() for x in x_dists)
  pred_mask = stack_steps(dist.masks(x) for x in x_dists)
  z = stack_steps(iterations["z"])
  info: dict[str, Any] = {
    "data": {k: v for k, v in data.items() if k != "mask"},
    "inputs": _stack_inputs(iterations["inputs"]),
    "latent": {
      "z": z,
      "z_mean": stack_steps(d.mean() for d in z_dists),
      "z_std": stack_steps(d.stddev() for d in z_dists),
    },
    "outputs": {
      "recons": recons,
      "pred_mask": pred_mask,
      "pred_mask_logits": stack_steps(dist.mask_logits(x) for x in x_dists),
      "components": stack_steps(dist.components(x) for x in x_dists),
    },
    "losses": {
      "total": total_loss,
      "recons": stack_steps(iterations["re"]),
      "kl": stack_steps(iterations["kl"]),
    },
    "metrics": {
      "mse": tf.reduce_mean(
        tf.square(recons[:, :, 0] - data["image"]), axis=[2, 3, 4]
      )
    },
  }
  if "mask" in data:
    info["data"]["true_mask"] = data["mask"]
    info["metrics"].update(_step_ari(model, data["mask"], pred_mask))
  evaluator = model.evaluator_for(data)
  if evaluator is not None:
    info["losses"]["factor"], info["factor_regressor"] = _step_factors(
      evaluator, model.sequential, data, z, pred_mask
    )
  return info


def _stack_inputs(inputs: Sequence[Mapping]) -> dict[str, dict]:
  """Inputs of every step, a zero entry in front, as the reference pads them."""
  return {
    kind: {
      name: stack_steps(
        [
          tf.zeros_like(first),
          *(step[kind][name] for step in inputs),
        ]
      )
      for name, first in inputs[0][kind].items()
    }
    for kind in inputs[0]
  }


def _step_ari(
  model: IODINE, mask: tf.Tensor, pred_mask: tf.Tensor
) -> dict[str, tf.Tensor]:
  """ARI of every step, {name: [B, S]}.

  Args: mask: [B, T, L, H, W, 1]; pred_mask: [B, S, K, H, W, 1].
  """
  steps = [
    metrics.adjusted_rand_indices(
      metrics.frame(mask, t, model.sequential)[:, 0],
      pred_mask[:, t],
      model.num_background_entities,
    )
    for t in range(model.num_iters + 1)
  ]
  return {key: stack_steps(step[key] for step in steps) for key in steps[0]}


def _step_factors(
  evaluator: FactorRegressor,
  sequential: bool,
  data: Mapping[str, Any],
  z: tf.Tensor,
  pred_mask: tf.Tensor,
) -> tuple[tf.Tensor, dict[str, Any]]:
  """Factor loss [S] and the entry `factor_regressor`.

  Args: z: [B, S, K, Z]; pred_mask: [B, S, K, H, W, 1].
  """
  losses, scores, predictions, assignments = [], [], [], []
  for t in range(z.shape[1]):
    loss, scalars, _, predicted, assignment = evaluator(
      z[:, t],
      data["factors"],
      data["visibility"],
      pred_mask[:, t],
      metrics.frame(data["mask"], t, sequential)[:, 0],
      is_training=False,
    )
    losses.append(loss)
    scores.append(scalars)
    assignments.append(assignment)
    # What the assigned slot predicts: [B, 1, K, size] to [B, L, size].
    predictions.append(
      {
        name: tf.reduce_sum(value * assignment[..., tf.newaxis], axis=2)
        for name, value in predicted.items()
      }
    )
  return tf.stack(losses), {
    "assignment": stack_steps(assignments),
    "metrics": {k: tf.stack([s[k] for s in scores]) for k in scores[0]},
    "predictions": {
      k: stack_steps(p[k] for p in predictions) for k in predictions[0]
    },
  }
