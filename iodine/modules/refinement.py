"""The refinement network: one step of iterative inference."""

from collections.abc import Mapping, Sequence
from typing import Any

import sonnet as snt
import tensorflow as tf

from iodine.modules import utils

__all__ = ["PredictorCorrectorHead", "RefinementCore", "ResHead"]


class RefinementCore(snt.RNNCore):
  """Encoder of image-like inputs, recurrent net, and head that updates zp.

  Equation 3 and figure 2c of the paper (reference: refinement.py:23-98).
  """

  def __init__(
    self,
    encoder_net: snt.Module,
    recurrent_net: snt.RNNCore,
    refinement_head: snt.Module,
    name: str = "refinement",
  ):
    """Constructor.

    Args:
      encoder_net: maps [B * K, H, W, C] to params [B * K, H1].
      recurrent_net: maps ([B, K, H2], state) to ([B, K, H3], state).
      refinement_head: maps (zp [B, K, Zp], [B, K, H3]) to the new zp.
      name: of the module.
    """
    super().__init__(name=name)
    self._encoder_net = encoder_net
    self._recurrent_net = recurrent_net
    self._refinement_head = refinement_head

  def initial_state(self, batch_size: int | tf.Tensor, **kwargs: Any) -> Any:
    """State of the recurrent net before the first step; batch_size is B * K."""
    return self._recurrent_net.initial_state(batch_size, **kwargs)

  def __call__(
    self,
    inputs: Mapping[str, Mapping[str, tf.Tensor]],
    prev_state: Any,
    zp: tf.Tensor | None = None,
  ) -> tuple[tf.Tensor, Any]:
    """Connects the module.

    Args:
      inputs: {"spatial": {name: [B, K or 1, H, W, c]},
        "flat": {name: [B, K, n]}}, float32; either may be empty, not both.
        Entries are joined in the order of their names.
      prev_state: of the recurrent net.
      zp: [B, K, Zp] float32, what the head updates; default: the flat "zp".

    Returns:
      (new zp [B, K, Zp], new state).

    Raises:
      ValueError: if there is no zp, or no input at all.
    """
    spatial, flat = inputs["spatial"], inputs["flat"]
    if zp is None and "zp" not in flat:
      raise ValueError("RefinementCore: 'zp' is neither an argument nor in flat")
    if not spatial and not flat:
      raise ValueError("RefinementCore: there is no input")
    zp = flat["zp"] if zp is None else zp
    num_slots = utils.static_shape("zp", zp, ["B", "K", "Zp"])[1]
    values = []
    if spatial:
      joined = self.prepare_spatial_inputs(spatial, num_slots)
      values.append(self._encoder_net(joined).params)
    values += [flat[name] for name in sorted(flat)]
    hidden, state = self._recurrent_net(tf.concat(values, axis=-1), prev_state)
    return self._refinement_head(zp, hidden), state

  @staticmethod
  def prepare_spatial_inputs(
    inputs: Mapping[str, tf.Tensor], num_slots: int
  ) -> tf.Tensor:
    """Joins {name: [B, K or 1, H, W, c]} to [B, K, H, W, sum of c]."""
    values = []
    for name in sorted(inputs):
      value = inputs[name]
      if utils.static_shape(name, value, "BKHWC")[1] == 1:
        value = tf.tile(value, [1, num_slots, 1, 1, 1])
      values.append(value)
    return tf.concat(values, axis=-1)


class ResHead(snt.Module):
  """Adds a linear function of the hidden vector to zp.

  Reference: refinement.py:101-121.
  """

  def __init__(self, name: str = "residual_head"):
    super().__init__(name=name)

  def __call__(self, zp_old: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """Args: zp_old: [B, K, Zp]; inputs: [B, K, H]. Returns: [B, K, Zp]."""
    self._initialize(zp_old.shape[-1])
    return zp_old + self._update(inputs)

  @snt.once
  def _initialize(self, num_params: int):
    self._update = snt.BatchApply(snt.Linear(num_params, name="linear"))


class PredictorCorrectorHead(snt.Module):
  """Head for sequences: predicts zp from its past, corrects it from the frame.

  With gates g (corrector) and p (predictor):
  zp' = p * predicted + (1 - p) * (g * update + (1 - g) * zp)
  (reference: refinement.py:124-185).
  """

  def __init__(
    self,
    hidden_sizes: Sequence[int] = (64,),
    pred_gate_bias: float = 0.0,
    corrector_gate_bias: float = 0.0,
    activation: Any = "elu",
    name: str = "predcorr_head",
  ):
    """Constructor.

    Args:
      hidden_sizes: of the predictor's MLP.
      pred_gate_bias: added to the predictor gate's logit.
      corrector_gate_bias: added to the corrector gate's logit.
      activation: of the MLP, name or function.
      name: of the module.
    """
    super().__init__(name=name)
    if not isinstance(hidden_sizes, list | tuple):
      raise ValueError(f"hidden_sizes={hidden_sizes!r}: must be a list")
    for i, size in enumerate(hidden_sizes):
      utils.check_positive_int(f"hidden_sizes[{i}]", size)
    self._hidden_sizes = tuple(hidden_sizes)
    self._pred_gate_bias = pred_gate_bias
    self._corrector_gate_bias = corrector_gate_bias
    self._activation = utils.get_act_func(activation)

  def __call__(self, zp_old: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """Args: zp_old: [B, K, Zp]; inputs: [B, K, H]. Returns: [B, K, Zp]."""
    self._initialize(zp_old.shape[-1])
    gate = tf.sigmoid(self._update_gate(inputs) + self._corrector_gate_bias)
    corrected = zp_old + gate * (self._update(inputs) - zp_old)
    predicted, gate_logit = tf.split(self._predict(zp_old), 2, axis=-1)
    gate = tf.sigmoid(gate_logit + self._pred_gate_bias)
    return corrected + gate * (predicted - corrected)

  @snt.once
  def _initialize(self, num_params: int):
    # Sonnet 1 numbers modules that share a name.
    self._update = snt.BatchApply(snt.Linear(num_params, name="linear"))
    self._update_gate = snt.BatchApply(snt.Linear(num_params, name="linear_1"))
    self._predict = snt.BatchApply(
      snt.nets.MLP(
        [*self._hidden_sizes, 2 * num_params],
        activation=self._activation,
        name="mlp",
      )
    )
