"""The refinement network: one step of iterative inference."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine import checks, errors
from iodine.modules import utils
from iodine.modules.distributions import (
  MaskedMixture,
  MixtureLogProbs,
  MixtureParameters,
)

__all__ = [
  "INNER_GRADIENTS",
  "INPUTS",
  "NORMALIZED_INPUTS",
  "PredictorCorrectorHead",
  "RefinementCore",
  "RefinementInputs",
  "ResHead",
]

# Possible inputs of the refinement network and their kind: flat ones are
# [B, K, n], spatial ones [B, K or 1, H, W, c].
INPUTS = {
  "image": "spatial",
  "zp": "flat",
  "mask": "spatial",
  "components": "spatial",
  "dmask": "spatial",
  "dzp": "flat",
  "dcomponents": "spatial",
  "posterior": "spatial",
  "log_prob": "spatial",
  "pred_mask": "spatial",
  "capacity": "spatial",
  "flat_capacity": "flat",
  "coordinates": "spatial",
  "counterfactual": "spatial",
}
# Inputs that by default stop gradients and have a layer norm.
NORMALIZED_INPUTS = (
  "dcomponents",
  "dmask",
  "dzp",
  "log_prob",
  "counterfactual",
)
# Inputs that are gradients of the inner loss.
INNER_GRADIENTS = ("dzp", "dcomponents", "dmask")
# Reference quirk (iodine.py:476, 488): these inputs are constant.
CAPACITY = 0.5


class RefinementInputs(snt.Module):
  """The auxiliary inputs of the refinement network.

  Reference: iodine.py:428-533.
  """

  def __init__(
    self,
    output_dist: MaskedMixture,
    inputs: Sequence[str] = tuple(INPUTS),
    stop_gradients: Sequence[str] = NORMALIZED_INPUTS,
    preprocess: Sequence[str] = NORMALIZED_INPUTS,
    coord_type: str = "linear",
    coord_freqs: int = 3,
    name: str = "preprocess",
  ):
    """Selects the inputs and makes their layer norms.

    Args:
      output_dist: mixture that models the images.
      inputs: names of the inputs, from `INPUTS`.
      stop_gradients: inputs that block the outer gradient.
      preprocess: inputs with layer norm.
      coord_type: "linear" or "cos", type of the input "coordinates".
      coord_freqs: frequencies per axis for "cos".
      name: scope of the variables.

    Raises:
      ValueError: for unknown names or values, or without any input.
    """
    super().__init__(name=name)
    self._output_dist = output_dist
    self._inputs = _check_names("inputs", inputs)
    self._stop_gradients = _check_names("stop_gradients", stop_gradients)
    if not self._inputs:
      raise ValueError("inputs=[]: the refinement network needs at least one")
    if coord_type not in ("linear", "cos"):
      raise ValueError(f"coord_type={coord_type!r}: must be 'linear' or 'cos'")
    utils.coordinate_channels(
      1, 1, coord_type, coord_freqs
    )  # checks the latter
    self._coord_type = coord_type
    self._coord_freqs = coord_freqs
    self._layer_norms = {
      name: snt.LayerNorm(
        axis=slice(2, None),
        create_scale=True,
        create_offset=True,
        name=f"layer_norm_{name}",
      )
      for name in _check_names("preprocess", preprocess)
    }

  def gradients(
    self,
    tape: tf.GradientTape,
    loss: tf.Tensor,
    zp: tf.Tensor,
    x_params: MixtureParameters,
  ) -> dict[str, tf.Tensor]:
    """Computes the gradients of the inner loss that are inputs.

    Args:
      tape: tape that recorded the loss as a function of zp.
      loss: scalar, nats.
      zp: [B, K, Zp].
      x_params: parameters decoded from a sample of zp.

    Returns:
      {"dzp", "dcomponents", "dmask"}, shaped like zp, pixel, mask.
    """
    sources = {"dzp": zp, "dcomponents": x_params.pixel, "dmask": x_params.mask}
    sources = {k: v for k, v in sources.items() if k in self._inputs}
    return tape.gradient(loss, sources)

  def __call__(
    self,
    frame: tf.Tensor,
    zp: tf.Tensor,
    x_params: MixtureParameters,
    x_dist: tfd.MixtureSameFamily,
    log_probs: MixtureLogProbs,
    gradients: Mapping[str, tf.Tensor],
  ) -> dict[str, dict[str, tf.Tensor]]:
    """Collects the inputs of one step.

    Args:
      frame: [B, 1, H, W, C] float32 in [0, 1].
      zp: [B, K, Zp] float32, parameters of the posterior.
      x_params: parameters decoded from a sample of the posterior.
      x_dist: mixture with these parameters.
      log_probs: log-likelihoods of the frame under that mixture.
      gradients: result of `self.gradients`.

    Returns:
      {"spatial": {name: [B, K or 1, H, W, c]}, "flat": {name: [B, K, n]}}.
    """
    total = log_probs.total[..., tf.newaxis]  # [B, 1, H, W, 1]
    mask, components = x_params.mask, log_probs.components
    dist = self._output_dist
    potential = {
      "image": lambda: frame,
      "log_prob": lambda: total,
      "mask": lambda: mask,
      "pred_mask": lambda: dist.masks(x_dist),
      "components": lambda: x_params.pixel,
      "posterior": lambda: dist.posterior(components),
      "capacity": lambda: CAPACITY * tf.ones_like(mask),
      "coordinates": lambda: self._coordinates(frame),
      "counterfactual": lambda: total - dist.leave_one_out(mask, components),
      "zp": lambda: zp,
      "flat_capacity": lambda: CAPACITY * tf.ones_like(zp[..., :1]),
      "dzp": lambda: gradients["dzp"],
      "dcomponents": lambda: gradients["dcomponents"],
      "dmask": lambda: gradients["dmask"],
    }
    final: dict[str, dict[str, tf.Tensor]] = {"spatial": {}, "flat": {}}
    for name in self._inputs:
      value = potential[name]()
      if name in self._stop_gradients:
        value = tf.stop_gradient(value)
      if name in self._layer_norms:
        value = self._layer_norms[name](value)
      final[INPUTS[name]][name] = value
    return final

  def _coordinates(self, frame: tf.Tensor) -> tf.Tensor:
    """[B, 1, H, W, coordinates] in (x, y) order; the decoder uses (h, w)."""
    height, width = frame.shape[2:4]
    coords = utils.coordinate_channels(
      height, width, self._coord_type, self._coord_freqs, order="xy"
    )
    coords = coords[np.newaxis, np.newaxis]
    return tf.tile(coords, [tf.shape(frame)[0], 1, 1, 1, 1])


def _check_names(key: str, names: Sequence[str]) -> tuple[str, ...]:
  if not isinstance(names, list | tuple):
    raise ValueError(f"{key}={names!r}: must be a list of input names")
  for name in names:
    if name not in INPUTS:
      raise ValueError(
        f"{key}: unknown input {name!r}. {errors.did_you_mean(name, INPUTS)}"
      )
  return tuple(names)


class RefinementCore(snt.RNNCore):
  """Encoder of spatial inputs, recurrent net, and head that updates zp.

  Equation 3 and figure 2c of the paper (reference: refinement.py:23-98).
  """

  def __init__(
    self,
    encoder_net: snt.Module,
    recurrent_net: snt.RNNCore,
    refinement_head: snt.Module,
    name: str = "refinement",
  ):
    """Makes a core from its networks.

    Args:
      encoder_net: maps [B, K, H, W, C] to params [B, K, H1].
      recurrent_net: maps ([B, K, H2], state) to ([B, K, H3], state).
      refinement_head: maps (zp [B, K, Zp], [B, K, H3]) to the new zp.
      name: name of the module.
    """
    super().__init__(name=name)
    checks.check_modules(
      encoder_net=encoder_net,
      recurrent_net=recurrent_net,
      refinement_head=refinement_head,
    )
    self._encoder_net = encoder_net
    self._recurrent_net = recurrent_net
    self._refinement_head = refinement_head

  def initial_state(self, batch_size: int | tf.Tensor, **kwargs: Any) -> Any:
    """Initial state of the recurrent net; batch_size is B * K."""
    return self._recurrent_net.initial_state(batch_size, **kwargs)

  def __call__(
    self,
    inputs: Mapping[str, Mapping[str, tf.Tensor]],
    prev_state: Any,
    zp: tf.Tensor | None = None,
  ) -> tuple[tf.Tensor, Any]:
    """Takes one refinement step.

    Args:
      inputs: {"spatial": {name: [B, K or 1, H, W, c]},
        "flat": {name: [B, K, n]}}, float32; either may be empty, not both.
        Entries are joined in the order of their names.
      prev_state: state of the recurrent net.
      zp: [B, K, Zp] float32, updated by the head if the flat inputs have no
        "zp". Theirs takes precedence, including layer norm and stopped
        gradients if configured, as in the reference (refinement.py:58).

    Returns:
      (new zp [B, K, Zp], new state).

    Raises:
      ValueError: if there is no zp or no input.
    """
    spatial, flat = inputs["spatial"], inputs["flat"]
    zp = flat.get("zp", zp)
    if zp is None:
      raise ValueError(
        "RefinementCore: 'zp' is neither an argument nor in flat"
      )
    if not spatial and not flat:
      raise ValueError("RefinementCore: there is no input")
    num_slots = checks.check_shapes({"zp": (zp, "B K Zp")})["K"]
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
    """Concatenates {name: [B, K or 1, H, W, c]} to [B, K, H, W, sum of c]."""
    values = []
    for name in sorted(inputs):
      value = inputs[name]
      if checks.check_shapes({name: (value, "B K H W C")})["K"] == 1:
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
  def _initialize(self, num_params: int) -> None:
    self._update = snt.BatchApply(snt.Linear(num_params, name="linear"))


class PredictorCorrectorHead(snt.Module):
  """Head for sequences: predicts zp from the old one, corrects it by the frame.

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
    """Makes a head without variables; the first call creates them.

    Args:
      hidden_sizes: layer sizes of the predictor's MLP.
      pred_gate_bias: added to the predictor gate's logit.
      corrector_gate_bias: added to the corrector gate's logit.
      activation: activation of the MLP, name or function.
      name: scope of the variables.
    """
    super().__init__(name=name)
    if not isinstance(hidden_sizes, list | tuple):
      raise ValueError(f"hidden_sizes={hidden_sizes!r}: must be a list")
    for i, size in enumerate(hidden_sizes):
      checks.check(checks.size_fault(f"hidden_sizes[{i}]", size))
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
  def _initialize(self, num_params: int) -> None:
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
