"""Converts a forward pass of IODINE to the result of `SceneModel.infer`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from iodine.modules.distributions import MaskedMixture
from iodine.scene_model import Loss

__all__ = ["collect"]


def collect(output_dist: MaskedMixture, loss: Loss) -> dict[str, Any]:
  """Arranges the results of a forward pass (reference: iodine.py:278-364).

  Args:
    output_dist: the model's output distribution.
    loss: result of the pass, with its lists over refinement steps.

  Returns:
    inputs, latent, outputs and losses, see `SceneModel.infer`.
  """
  iterations = loss.iterations
  x_dists, z_dists = iterations["x_dist"], iterations["z_dist"]
  return {
    "inputs": _stack_inputs(iterations["inputs"]),
    "latent": {
      "z": _stack(iterations["z"]),
      "z_mean": _stack(d.mean() for d in z_dists),
      "z_std": _stack(d.stddev() for d in z_dists),
    },
    "outputs": {
      "recons": _stack(x.mean() for x in x_dists),
      "pred_mask": _stack(output_dist.masks(x) for x in x_dists),
      "pred_mask_logits": _stack(output_dist.mask_logits(x) for x in x_dists),
      "components": _stack(output_dist.components(x) for x in x_dists),
    },
    "losses": {
      "total": loss.total,
      "recons": _stack(iterations["re"]),
      "kl": _stack(iterations["kl"]),
    },
  }


def _stack(values: Iterable[tf.Tensor]) -> tf.Tensor:
  """Stacks one [B, ...] per refinement step to [B, S, ...]."""
  return tf.stack(list(values), axis=1)


def _stack_inputs(inputs: Sequence[Mapping]) -> dict[str, dict]:
  """Stacks inputs, preceded by a zero entry as in the reference."""
  return {
    kind: {
      name: _stack(
        [tf.zeros_like(first), *(step[kind][name] for step in inputs)]
      )
      for name, first in inputs[0][kind].items()
    }
    for kind in inputs[0]
  }
