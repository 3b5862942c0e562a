"""Small modules whose variables and outputs are recorded in files.

A file <case>.npz holds all that its test needs: the plan as JSON, variables and
inputs by name, and the outputs that they gave when they were recorded. It is
never written again for a change of the code: that a later version reads it and
computes the same is the point.

Dimensions: B batch, K slots, L true entities, H height, W width, C channels,
Z latent size.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import training
from iodine.config import plans
from iodine.tf1_checkpoint import reference_name
from tests.support import tiny

FOLDER = pathlib.Path(__file__).resolve().parent
# Odd and distinct where they can be; H and W are multiples of DeConv's stride.
B, K, L, H, W, C, Z = 2, 3, 4, 8, 6, 3, 5
PARAMETERS = 2 * Z  # of a slot's latent

Tensors = dict[str, tf.Tensor]


class Case(NamedTuple):
  """What is recorded.

  Attributes:
    plan: of the module.
    inputs: {name: shape}; they are uniform in [0, 1).
    call: {name: output} of module and inputs.
    takes_steps: whether what is recorded are Adam's steps down the sum of the
      outputs' squares.
  """

  plan: dict[str, Any]
  inputs: dict[str, Sequence[int]]
  call: Callable[[Any, Tensors], Tensors]
  takes_steps: bool = False


class Golden(NamedTuple):
  """What a file holds; arrays by name."""

  plan: dict[str, Any]
  variables: dict[str, np.ndarray]
  inputs: dict[str, np.ndarray]
  outputs: dict[str, np.ndarray]


class Instance:
  """A case's module, built afresh; it has all its variables."""

  def __init__(
    self,
    case: Case,
    plan: Mapping[str, Any],
    inputs: Mapping[str, np.ndarray],
  ):
    self._case = case
    self._inputs = {name: tf.constant(x) for name, x in inputs.items()}
    self.module = plans.build(plan, "model")
    self.optimizer: training.Adam | None = None
    self._call()
    if case.takes_steps:
      self.optimizer = training.make_optimizer(learn_rate=0.01)
      self.optimizer.initialize(self.module.trainable_variables)

  def variables(self) -> dict[str, tf.Variable]:
    """Those of module and optimizer, by the names that checkpoints have."""
    variables = list(self.module.variables)
    if self.optimizer is not None:
      variables += self.optimizer.variables
    return {reference_name(variable.name): variable for variable in variables}

  def _call(self) -> Tensors:
    return self._case.call(self.module, self._inputs)

  def outputs(self) -> dict[str, np.ndarray]:
    """What is compared: outputs, or all variables after a step of Adam."""
    if self.optimizer is None:
      return {name: value.numpy() for name, value in self._call().items()}
    variables = self.module.trainable_variables
    with tf.GradientTape() as tape:
      outputs = self._call()
      loss = tf.add_n([tf.reduce_sum(tf.square(x)) for x in outputs.values()])
    self.optimizer.apply(tape.gradient(loss, variables), variables)
    return {name: value.numpy() for name, value in self.variables().items()}


def record(case: Case) -> Golden:
  """Builds a case and runs it on values of its own."""
  rng = np.random.default_rng(0)
  inputs = {
    name: rng.random(shape, np.float32) for name, shape in case.inputs.items()
  }
  instance = Instance(case, case.plan, inputs)
  for variable in instance.module.variables:
    noise = rng.standard_normal(variable.shape).astype(np.float32)
    # Initial biases are zero, which would hide that one is left out; a moment
    # is a count, or a sum of squares.
    if variable.trainable:
      variable.assign_add(0.3 * noise)
    else:
      variable.assign(2.0 + np.abs(noise))
  if case.takes_steps:
    instance.outputs()  # fills the optimizer's state
  variables = {k: v.numpy() for k, v in instance.variables().items()}
  return Golden(case.plan, variables, inputs, instance.outputs())


def write(path: pathlib.Path, golden: Golden) -> None:
  """Writes a file."""
  arrays = {
    f"{part}/{name}": value
    for part in ("variables", "inputs", "outputs")
    for name, value in getattr(golden, part).items()
  }
  np.savez_compressed(path, plan=json.dumps(golden.plan), **arrays)


def read(path: pathlib.Path) -> Golden:
  """Reads a file."""
  parts: dict[str, dict[str, np.ndarray]] = {}
  with np.load(path) as arrays:
    plan = json.loads(str(arrays["plan"]))
    for key in set(arrays) - {"plan"}:
      part, _, name = key.partition("/")
      parts.setdefault(part, {})[name] = arrays[key]
  return Golden(plan=plan, **parts)


# --- The cases ----------------------------------------------------------------


def _plan(constructor: str, /, **entries: Any) -> dict[str, Any]:
  return {"constructor": f"iodine.modules.{constructor}", **entries}


def _flat(module: Any, inputs: Tensors) -> Tensors:
  return {"params": module(inputs["x"]).params}


def _decoded(module: Any, inputs: Tensors) -> Tensors:
  return {"params": module(inputs["z"], (H, W, C)).params}


def _two_steps(module: Any, inputs: Tensors) -> Tensors:
  first, state = module(inputs["x"], module.initial_state(B * K))
  second, state = module(inputs["x"], state)
  return {"first": first, "second": second, "cell": state[-1][1]}


def _updated(module: Any, inputs: Tensors) -> Tensors:
  return {"zp": module(inputs["zp"], inputs["hidden"])}


def _refined(module: Any, inputs: Tensors) -> Tensors:
  given = {
    "spatial": {"image": inputs["image"], "mask": inputs["mask"]},
    "flat": {"zp": inputs["zp"]},
  }
  first, state = module(given, module.initial_state(B * K))
  second, _ = module(given, state)
  return {"first": first, "second": second}


def _regressed(module: Any, inputs: Tensors) -> Tensors:
  result = module(
    z=inputs["z"],
    factors={"position": inputs["position"], "shape": 4.0 * inputs["shape"]},
    visibility=tf.round(inputs["visibility"]),
    pred_mask=inputs["pred_mask"],
    true_mask=tf.round(inputs["true_mask"]),
    is_training=False,
  )
  return {
    "loss": result.loss,
    "r_squared": result.scalars["position"],
    "mean": result.moments["position"][0],
  }


def _log_prob(module: Any, inputs: Tensors) -> Tensors:
  return {"log_prob": module(inputs["params"]).log_prob(inputs["x"])}


def _mixture_log_prob(module: Any, inputs: Tensors) -> Tensors:
  mixture = module(inputs["pixel"], inputs["mask"])
  return {"log_prob": mixture.log_prob(inputs["x"])}


def _decoded_slots(module: Any, inputs: Tensors) -> Tensors:
  return module(inputs["z"], (H, W, C))._asdict()


def _evaluated(module: Any, inputs: Tensors) -> Tensors:
  data = {
    "image": inputs["image"],
    "mask": tf.round(inputs["mask"]),
    "visibility": tf.round(inputs["visibility"]),
    "factors": {
      "position": inputs["position"],
      "shape": tf.cast(4.0 * inputs["shape"], tf.int32),
    },
  }
  info = module.eval(data, inputs["noise"])
  losses, factors = info["losses"], info["factor_regressor"]["metrics"]
  return {
    "recons": info["outputs"]["recons"],
    "z_mean": info["latent"]["z_mean"],
    "kl": losses["kl"],
    "factor_loss": losses["factor"],
    "r_squared": factors["position"],
  }


_LEARNED_SCALE = _plan(
  "distributions.LocScaleDistribution",
  dist="logistic",
  scale="fixed",
  scale_val=-1,
  name="pixel_distribution",
)
_MLP = _plan("networks.MLP", output_sizes=[4, 3], activation="elu")
_CNN = _plan(
  "networks.CNN",
  mode="avg_pool",
  cnn_opt=dict(output_channels=[4], kernel_shapes=[3], strides=[2]),
  mlp_opt=dict(output_sizes=[5]),
)
_BROADCAST_CONV = _plan(
  "networks.BroadcastConv",
  cnn_opt=dict(output_channels=[4, None], kernel_shapes=[3], strides=[1]),
  mlp_opt=dict(output_sizes=[7]),
)
_LSTM = _plan("networks.LSTM", hidden_sizes=[4, 3])
_FACTORS = {"position": [B, L, 2], "shape": [B, L, 1], "visibility": [B, L]}

CASES = {
  "mlp": Case(_MLP, {"x": [B, K, Z]}, _flat),
  "cnn": Case(_CNN, {"x": [B, H, W, C]}, _flat),
  "deconv": Case(
    _plan(
      "networks.DeConv",
      mlp_opt=dict(output_sizes=[2 * (H // 2) * (W // 2)]),
      cnn_opt=dict(
        output_channels=[3, None], kernel_shapes=[3], strides=[2, 1]
      ),
    ),
    {"z": [B, Z]},
    _decoded,
  ),
  "broadcast_conv": Case(_BROADCAST_CONV, {"z": [B, Z]}, _decoded),
  "lstm": Case(_LSTM, {"x": [B, K, Z]}, _two_steps),
  "residual_head": Case(
    _plan("refinement.ResHead"),
    {"zp": [B, K, PARAMETERS], "hidden": [B, K, 3]},
    _updated,
  ),
  "predictor_corrector_head": Case(
    _plan("refinement.PredictorCorrectorHead", hidden_sizes=[4]),
    {"zp": [B, K, PARAMETERS], "hidden": [B, K, 3]},
    _updated,
  ),
  "refinement_core": Case(
    _plan(
      "refinement.RefinementCore",
      encoder_net=_CNN,
      recurrent_net=_LSTM,
      refinement_head=_plan("refinement.ResHead"),
    ),
    {
      "image": [B, 1, H, W, C],
      "mask": [B, K, H, W, 1],
      "zp": [B, K, PARAMETERS],
    },
    _refined,
  ),
  "factor_regressor": Case(
    _plan(
      "factor_eval.FactorRegressor",
      mapping=[["position", 2, "scalar"], ["shape", 4, "categorical"]],
    ),
    {
      **_FACTORS,
      "z": [B, K, Z],
      "pred_mask": [B, K, H, W, 1],
      "true_mask": [B, L, H, W, 1],
    },
    _regressed,
  ),
  "learned_scale": Case(
    _LEARNED_SCALE, {"params": [B, C], "x": [B, C]}, _log_prob
  ),
  "masked_mixture": Case(
    _plan(
      "distributions.MaskedMixture",
      num_components=K,
      component_dist=_LEARNED_SCALE,
    ),
    {
      "pixel": [B, K, H, W, C],
      "mask": [B, K, H, W, 1],
      "x": [B, 1, H, W, C],
    },
    _mixture_log_prob,
  ),
  "component_decoder": Case(
    _plan("decoder.ComponentDecoder", pixel_decoder=_BROADCAST_CONV),
    {"z": [B, K, Z]},
    _decoded_slots,
  ),
  "iodine": Case(
    tiny.plan(num_components=K, num_iters=2, n_z=Z),
    {
      **_FACTORS,
      "image": [B, 1, H, W, C],
      "mask": [B, 1, L, H, W, 1],
      "noise": [3, B, K, Z],
    },
    _evaluated,
  ),
  "adam": Case(_MLP, {"x": [B, K, Z]}, _flat, takes_steps=True),
}
