"""Refinement steps that are recomputed in the outer backward pass.

Training differentiates through all refinement steps, and so keeps the outputs
of all their convolutions. Here only a step's inputs and the gradients shown to
the refinement network are kept; the rest is recomputed, a step at a time, when
the outer gradient needs it (gradient checkpointing).
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

__all__ = ["DIFFERENTIATED", "recomputed"]

# Besides zp and state, later steps and losses depend on these.
DIFFERENTIATED = ("kl", "re")


def recomputed(
  refine: Callable[..., tuple[dict[str, Any], tf.Tensor, Any]],
) -> Callable[..., tuple[dict[str, Any], tf.Tensor, Any]]:
  """Makes a refinement step use less memory and more time.

  The inner backward pass is not repeated: the gradients it passes to the
  refinement network are small, and no outer gradient flows through them.

  Args:
    refine: a function of zp [B, K, Zp], the recurrent state (nested tensors),
      other arguments, and `gradients` (None or those of an earlier call). It
      returns a record with "kl" [B, K], "re" [B] and "gradients", the new zp,
      and the new state. It must draw the same numbers each time, and its
      variables must exist.

  Returns:
    A function with the same results and the same arguments, without
    `gradients`. Of the record only "kl" and "re" are differentiable.
  """

  def call(zp: tf.Tensor, state: Any, *others: Any) -> tuple:
    structure: list = []

    @tf.custom_gradient
    def step(*inputs: tf.Tensor) -> tuple:
      record, outputs = _flat_call(refine, state, inputs, others, None)
      structure.append(record)

      def backward(
        *upstream: tf.Tensor, variables: tuple[tf.Variable, ...] = ()
      ) -> tuple:
        # Wait for the outer gradient; otherwise everything is kept after all.
        with tf.control_dependencies(upstream):
          again = [tf.identity(x) for x in inputs]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
          tape.watch([*again, *variables])
          _, outputs = _flat_call(
            refine, state, again, others, record["gradients"]
          )
        gradients = tape.gradient(
          outputs, [*again, *variables], output_gradients=list(upstream)
        )
        return gradients[: len(again)], gradients[len(again) :]

      return outputs, backward

    outputs = step(zp, *tf.nest.flatten(state))
    record = dict(structure[0])
    values = dict(zip(DIFFERENTIATED, outputs, strict=False))
    zp, *new_state = outputs[len(DIFFERENTIATED) :]
    return {**record, **values}, zp, tf.nest.pack_sequence_as(state, new_state)

  return call


def _flat_call(
  refine: Callable[..., tuple[dict[str, Any], tf.Tensor, Any]],
  state: Any,
  inputs: Sequence[tf.Tensor],
  others: tuple,
  gradients: dict[str, tf.Tensor] | None,
) -> tuple[dict[str, Any], list[tf.Tensor]]:
  """A step's record, and a flat list of its differentiable results."""
  zp, *flat_state = inputs
  old_state = tf.nest.pack_sequence_as(state, flat_state)
  record, zp, new_state = refine(zp, old_state, *others, gradients=gradients)
  values = [record[name] for name in DIFFERENTIATED]
  return record, [*values, zp, *tf.nest.flatten(new_state)]
