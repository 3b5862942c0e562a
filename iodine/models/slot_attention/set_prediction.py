"""Set prediction with Slot Attention: every slot tells an object's properties.

Dimensions: B batch, K slots, D slot size, S updates of the slots, L true
entities, N objects with padding, P entries that describe an object.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.assignment import assign
from iodine.models import layers
from iodine.models.slot_attention.attention import SlotAttention, SlotUpdate
from iodine.models.slot_attention.base import SlotModel, scaled
from iodine.models.slot_attention.encoder import EncodedImage
from iodine.models.slot_attention.properties import Properties
from iodine.scene_model import Loss

__all__ = ["SlotAttentionSetPredictor", "pairwise_cost"]


class _Record(NamedTuple):
  """What a training step computed, see the members' classes."""

  encoded: EncodedImage
  updates: list[SlotUpdate]
  predictions: tf.Tensor  # [B, K, P]
  costs: tf.Tensor  # [B, N, K]
  assignment: tf.Tensor  # [B, 2, min(N, K)], indices of objects and slots


class SlotAttentionSetPredictor(SlotModel):
  """Slot Attention for set prediction (Locatello et al. 2020, section 3.3).

  An MLP maps each slot to the properties of an object. The slots are matched
  with the true objects and the padding by the Hungarian algorithm; the loss is
  the sum of the matched pairs' costs, a mean over the batch. Images are scaled
  to [-1, 1] inside of the model. There are no masks and no reconstruction.
  """

  about = (
    "Slot Attention explains an image by slots that compete for its pixels. An "
    "MLP tells the properties of an object from each slot; there is no picture "
    "of it."
  )

  def __init__(
    self,
    encoder: snt.Module,
    slot_attention: SlotAttention,
    n_z: int,
    num_components: int,
    properties: Properties | None = None,
    hidden_size: int = 64,
    initial_values: str = "glorot",
    name: str = "slot_attention_set_predictor",
  ):
    """Makes a model; the defaults are those of Google's code.

    Args:
      encoder: maps an image to a set, such as `ConvEncoder`.
      slot_attention: binds slots to the set.
      n_z: D, size of a slot.
      num_components: K, number of slots.
      properties: what is predicted; None: the properties of CLEVR's objects.
      hidden_size: of the MLP.
      initial_values: see `layers.initializers`.
      name: scope of the variables.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(encoder, slot_attention, n_z, num_components, name)
    checks.check_sizes(hidden_size=hidden_size)
    self.properties = Properties() if properties is None else properties
    if not isinstance(self.properties, Properties):
      raise ValueError(f"properties={properties!r}: must be Properties")
    self._mlp = [
      snt.Linear(size, **layers.initializers(initial_values), name=f"mlp_{i}")
      for i, size in enumerate((hidden_size, self.properties.size))
    ]

  def __call__(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | None = None,
  ) -> Loss:
    """Computes the loss, see `SceneModel`.

    Args:
      data: see `SceneModel`; visibility and the factors that `properties` name
        must be there.
      noise: [1, B, K, D] float32, standard normal, of the initial slots.
      seed: see `SceneModel`.
      step: see `SceneModel`; of no effect.

    Returns:
      The loss; `iterations` holds what was computed on the way.
    """
    del step
    data = self.check_data(data)
    target = self.properties.encode(data, self.num_background_entities)
    encoded, updates = self._bind(scaled(data["image"][:, 0]), noise, seed)
    predictions = self._predict(updates[-1].slots)
    costs = pairwise_cost(target, predictions)
    # A cost that is not finite stays so in the loss, which ends the run.
    assignment = assign(costs)
    pairs = tf.gather_nd(costs, tf.transpose(assignment, [0, 2, 1]), 1)
    loss = tf.reduce_mean(tf.reduce_sum(pairs, axis=1))
    scores = dict(
      zip(
        self.properties.score_names,
        tf.unstack(self.properties.average_precision(predictions, target)),
        strict=True,
      )
    )
    return Loss(
      loss,
      {"loss/total": loss, **scores},
      _Record(encoded, updates, predictions, costs, assignment),
    )

  def infer(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Runs the model, see `SceneModel`.

    The slots of every iteration are read: answer s is what a model with s
    iterations gives.

    Args:
      data: see `SceneModel`.
      noise: see `__call__`.
      seed: see `SceneModel`.

    Returns:
      data, latent.z and outputs: properties [B, S, K, P] in [0, 1], see
      `Properties`, and attention [B, S, K, H, W, 1].
    """
    data = self.check_data(data)
    encoded, updates = self._bind(scaled(data["image"][:, 0]), noise, seed)
    z = tf.stack([update.slots for update in updates], axis=1)
    return {
      "data": self.data_entry(data),
      "outputs": {
        "properties": self._predict(z),
        "attention": self._attention(encoded, updates),
      },
      "latent": {"z": z},
    }

  def records(self, info: Mapping[str, Any]) -> dict[str, Any]:
    """Predicted and true properties, see `SceneModel`."""
    data = info["data"]
    if self.properties.missing(data):
      return {}
    target = self.properties.encode(data, self.num_background_entities)
    return {"predictions": info["outputs"]["properties"], "target": target}

  def set_scores(
    self, records: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Average precision at several distances, see `SceneModel`."""
    if not records:
      return {}
    steps = [
      self.properties.average_precision(predictions, records["target"])
      for predictions in np.swapaxes(records["predictions"], 0, 1)
    ]
    return dict(
      zip(self.properties.score_names, np.stack(steps, axis=1), strict=True)
    )

  def _predict(self, slots: tf.Tensor) -> tf.Tensor:
    """Properties [..., P] in [0, 1] of slots [..., D]."""
    rows = tf.reshape(slots, [-1, slots.shape[-1]])
    rows = self._mlp[1](tf.nn.relu(self._mlp[0](rows)))
    shape = tf.concat([tf.shape(slots)[:-1], [self.properties.size]], axis=0)
    predictions = tf.reshape(tf.sigmoid(rows), shape)
    return tf.ensure_shape(
      predictions, [*slots.shape[:-1], self.properties.size]
    )


def pairwise_cost(target: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
  """The Huber cost of every pair, a mean over the entries.

  Args:
    target: [B, N, P] float32.
    predictions: [B, K, P] float32.

  Returns:
    [B, N, K]: e^2 / 2 where |e| <= 1, else |e| - 1 / 2.
  """
  errors = tf.abs(target[:, :, tf.newaxis] - predictions[:, tf.newaxis])
  quadratic = tf.minimum(errors, 1.0)
  costs = 0.5 * tf.square(quadratic) + errors - quadratic
  return tf.reduce_mean(costs, axis=-1)
