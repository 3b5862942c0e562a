"""Agreement with recorded outputs of Slot Attention's published code.

A case is a folder:
  config.json: sizes, optimizer and schedule.
  weights.npz: initial weights under published names and in their layouts.
  inputs.npz: pictures, noise [S, B, K, D], and the set to predict, if any.
  expected.npz: forward pass, gradients and training steps.
  tf_checkpoint, lightning.ckpt: checkpoints as the published code writes them,
    after training and before it; may be missing.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import training
from iodine.models import layers, published
from iodine.models.slot_attention import (
  AreaLoss,
  ConvEncoder,
  Properties,
  SeparationLoss,
  SlotAttention,
  SlotAttentionAutoEncoder,
  SlotAttentionSetPredictor,
  SpatialBroadcastDecoder,
  weights,
)
from iodine.models.slot_attention.mask_losses import MaskLoss
from iodine.runs import checkpoint_files
from iodine.scene_model import SceneModel
from tests.parity import cases, variables
from tests.parity.report import Pair, Report
from tests.parity.variables import Variables

_FORWARD = 1e-5
_LOSSES = 1e-5


def is_of_torch(values: Mapping[str, Any]) -> bool:
  """Whether published names are those of a PyTorch version."""
  return not any("/" in name for name in values)


def table_of(values: Mapping[str, Any]) -> published.Table:
  """The table for published names."""
  return weights.PYTORCH if is_of_torch(values) else weights.GOOGLE


def make_model(
  values: Mapping[str, np.ndarray],
  config: Mapping[str, Any],
  grids: Mapping[str, Sequence[int]],
  mask_losses: Mapping[str, MaskLoss] | None = None,
) -> SceneModel:
  """Builds a model of the size and version of published weights.

  Args:
    values: the weights by published names.
    config: num_slots, num_iterations, layer_norm_epsilon; resolution and, if
      it does not follow from grids, the strides of the decoder.
    grids: {"encoder" or "decoder": size of its smallest feature map}; where
      there is none, that of the image.
    mask_losses: see `SlotAttentionAutoEncoder`.

  Returns:
    The model, without variables.
  """
  is_torch = is_of_torch(values)
  shapes = published.shapes(values, table_of(values))
  sizes = weights.options(shapes)
  activation = "leaky_relu" if is_torch else "relu"
  epsilon = config["layer_norm_epsilon"]

  def of(part: str) -> dict[str, Any]:
    start = f"model.{part}."
    return {
      key.removeprefix(start): value
      for key, value in sizes.items()
      if key.startswith(start)
    }

  def doublings(part: str) -> int:
    return _doublings(
      config["resolution"], grids.get(part, config["resolution"])
    )

  # Strides of 2 come after the encoder's first layer, and first in a decoder.
  twos = doublings("encoder")
  count = len(of("encoder")["output_channels"])
  encoder = ConvEncoder(
    **of("encoder"),
    strides=[1] + [2] * twos + [1] * (count - twos - 1),
    activation=activation,
    norm_epsilon=epsilon,
  )
  attention = SlotAttention(
    sizes["n_z"],
    config["num_iterations"],
    **of("slot_attention"),
    norm_epsilon=epsilon,
    attention_epsilon=config.get("slot_attention_epsilon", 1e-8),
    train_initial_slots=not is_torch,
    implicit="slot_attention.slot_mu" in values,
  )
  sizes_of_slots = sizes["n_z"], config["num_slots"]
  if "decoder/conv_0/w" not in shapes:
    hidden_size = shapes["slot_attention_set_predictor/mlp_0/w"][1]
    return SlotAttentionSetPredictor(
      encoder, attention, *sizes_of_slots, hidden_size=hidden_size
    )
  twos = doublings("decoder")
  count = len(of("decoder")["kernel_shapes"])
  layers_of = config.get("arch", {}).get("decoder_layers")
  strides = [stride for _, _, stride in layers_of or []]
  decoder = SpatialBroadcastDecoder(
    **of("decoder"),
    strides=strides or [2] * twos + [1] * (count - twos),
    activation=activation,
    alignment="pytorch" if is_torch else "tensorflow",
  )
  return SlotAttentionAutoEncoder(
    encoder, attention, decoder, *sizes_of_slots, mask_losses
  )


class _Case:
  """A recorded run, and what it takes to build the model again."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.config = cases.read_config(folder)
    self.weights = cases.read_arrays(folder / "weights.npz")
    self.inputs = cases.read_arrays(folder / "inputs.npz")
    self.expected = cases.read_arrays(folder / "expected.npz")
    self.is_torch = is_of_torch(self.weights)
    self.predicts_sets = "target" in self.inputs
    self.noise = [tf.constant(draw[None]) for draw in self.inputs["noise"]]
    # Recorded pictures are in [-1, 1].
    image = tf.constant(self.inputs["image"][:, None] * 0.5 + 0.5)
    self.data: dict[str, Any] = {"image": image}
    if self.predicts_sets:
      self.data.update(_objects(self.inputs["target"]))

  def trainer(
    self, report: Report, mask_losses: Mapping[str, MaskLoss] | None = None
  ) -> training.Trainer:
    """The model with the recorded weights, and its optimizer."""
    arch = self.config.get("arch", self.config)
    smallest = arch.get("decoder_initial_size", arch.get("decoder_resolution"))
    grids = {"encoder": arch.get("position_grid"), "decoder": smallest}
    for part, key in (("encoder", "encoder_cnn"), ("decoder", "decoder_pos")):
      if key in self.expected:
        grids[part] = self.expected[key].shape[1:3]
    config = {**self.config, "resolution": self.data["image"].shape[2:4]}
    model = make_model(
      self.weights,
      config,
      {part: grid for part, grid in grids.items() if grid},
      mask_losses,
    )
    trainer = training.Trainer(model, self._optimizer())
    factors = {
      name: value.shape[-1]
      for name, value in self.data.get("factors", {}).items()
    }
    trainer.initialize(self.data["image"].shape[2:], factors)
    self.variables(model).load(report, model)
    return trainer

  def variables(self, model: SceneModel) -> Variables:
    """The names of the record and of a model."""
    constants = {
      name: layers.position_grid(*value.shape[1:3])[None]
      for name, value in self.weights.items()
      if name.endswith(".grid")
    }
    undecided = self.config.get("noise_decides", [])
    return Variables(
      table_of(self.weights), model, self.weights, undecided, constants
    )

  def _optimizer(self) -> training.Adam:
    config = self.config
    steps = config.get("total_steps", 0)
    return training.make_optimizer(
      config.get("learning_rate", config.get("lr_main", config.get("lr"))),
      beta1=0.9,
      clip_norm=None,
      warmup_steps=config.get(
        "warmup_steps", config.get("warmup_steps_pct", 0) * steps
      ),
      decay_steps=config.get(
        "decay_steps", config.get("decay_steps_pct", 0) * steps
      ),
      decay_rate=config.get("decay_rate", config.get("scheduler_gamma")),
      epsilon_form="pytorch" if self.is_torch else "tensorflow",
    )


def _objects(target: np.ndarray) -> dict[str, Any]:
  """Visibility and factors of which a recorded target [B, N, P] was made."""
  background = np.zeros_like(target[:, :1])
  position, *classes, is_real = np.split(
    np.concatenate([background, target], axis=1), [3, 5, 7, 10, 18], axis=-1
  )
  visibility = is_real[..., 0]
  visibility[:, 0] = 1.0
  names = ("size", "material", "shape", "color")
  factors = {
    name: part.argmax(-1)[..., None] + 1  # counted from 1, as in the data
    for name, part in zip(names, classes, strict=True)
  }
  factors["location"] = position * 6.0 - 3.0
  return {
    "visibility": tf.constant(visibility),
    "factors": {
      k: tf.constant(v.astype(np.float32)) for k, v in factors.items()
    },
  }


def _doublings(image_size: Sequence[int], grid: Sequence[int]) -> int:
  """How many strides of 2 there are between an image and a feature map."""
  doublings = round(math.log2(image_size[0] / grid[0]))
  if [n * 2**doublings for n in grid] != list(image_size):
    raise ValueError(f"{grid} is not {image_size} by powers of 2")
  return doublings


def check(folder: pathlib.Path) -> Report:
  """Holds the models against a case; see `tests.parity.check`."""
  case = _Case(folder)
  report = Report(folder.name, case.expected)
  _forward(case, report)
  if case.predicts_sets:
    _sets(case, report)
  elif case.is_torch:
    _mask_losses(case, report)
  _training(case, report)
  _checkpoints(case, report)
  return report


def _forward(case: _Case, report: Report) -> None:
  model = case.trainer(report).model
  record = model(case.data, noise=case.noise[0]).iterations
  encoded, updates = record.encoded, record.updates
  attention = model._slot_attention
  stacked = lambda field: np.stack([getattr(u, field) for u in updates])
  keys, values = attention.keys_and_values(encoded.features)
  slots = updates[-1].slots
  actual = {
    "encoder_cnn": encoded.convolved,
    "encoder_pos": encoded.positioned,
    "encoder_layer_norm": encoded.normed,
    "features": encoded.features,
    "norm_inputs": attention._norm_inputs(encoded.features),
    "k": keys,
    "v": values,
    "initial_slots": attention.initial_slots(case.noise[0][0]),
    "q_raw": stacked("q"),
    "attention_logits": stacked("logits"),
    "attention": stacked("attention"),
    "gru_output": stacked("gru_output"),
    "slot_mlp": stacked("mlp_output"),
    "slots": stacked("slots"),
    "final_slots": slots,
  }
  if case.predicts_sets:
    actual["predictions"] = record.predictions
    actual["pairwise_cost"] = record.costs
  else:
    flat = tf.reshape(slots, [-1, slots.shape[-1]])
    positioned, output = model._decoder(flat, model.image_shape)
    actual["decoder_pos"], actual["decoder_output"] = positioned, output
    actual["reconstruction"] = record.explained.recons
    actual["masks"] = record.explained.masks
    actual["slot_reconstructions"] = record.explained.components
  pairs = report.known(actual)
  if "final_slots" in pairs:  # in PyTorch's version as the decoder gets them
    expected = report.recorded["final_slots"]
    pairs["final_slots"] = Pair(np.reshape(slots, expected.shape), expected)
  report.compare("forward", pairs, _FORWARD)


def _sets(case: _Case, report: Report) -> None:
  """Compares the assignment, and average precision of other predictions."""
  model = case.trainer(report).model
  record = model(case.data, noise=case.noise[0]).iterations
  is_real = case.inputs["target"][..., -1] > 0.5
  costs = record.costs.numpy()

  def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """0 if the assignments are equally good, and equal for real objects."""
    if np.shape(actual) != np.shape(expected):
      return float("inf")
    agree = [
      _agree(mine, theirs, is_real[scene], costs[scene])
      for scene, (mine, theirs) in enumerate(zip(actual, expected, strict=True))
    ]
    return 0.0 if all(agree) else float("inf")

  pairs = report.known({"assignment": record.assignment.numpy()})
  report.compare("assignment", pairs, 0.0, error=error)
  properties = Properties()
  scores = properties.average_precision(
    case.inputs["ap_pred"], case.inputs["ap_target"]
  )
  names = [name.partition("/")[2] for name in properties.score_names]
  thresholds = [-1.0 if name == "inf" else float(name) for name in names]
  pairs = report.known({"ap": scores, "ap_thresholds": thresholds})
  report.compare("average precision", pairs, _FORWARD)


def _agree(
  mine: np.ndarray, theirs: np.ndarray, is_real: np.ndarray, costs: np.ndarray
) -> bool:
  """Whether two assignments differ at most in targets that are padding.

  Padding is the same in every row, so that its order is arbitrary.

  Args:
    mine: [2, n], targets in order and their slots.
    theirs: [2, n].
    is_real: [N] bool, which targets are no padding.
    costs: [N, K], of targets and slots.
  """
  (targets, slots), (other_targets, other_slots) = mine, theirs
  return bool(
    np.array_equal(targets, other_targets)
    and len(set(other_slots)) == len(slots)
    and set(other_slots) <= set(range(costs.shape[1]))
    and np.array_equal(slots[is_real[targets]], other_slots[is_real[targets]])
    and np.isclose(
      costs[targets, slots].sum(), costs[targets, other_slots].sum(), _FORWARD
    )
  )


def _mask_losses(case: _Case, report: Report) -> None:
  """Compares losses of the masks, at their full weights."""
  if not report.starting("separation_"):
    return
  actual = {}
  for kind in ("entropy", "max"):
    losses: dict[str, MaskLoss] = {
      "separation": SeparationLoss(kind, case.config["separation_tau"], 0, 0),
      "area": AreaLoss(
        weight=case.config["area_tau"], start_step=0, end_step=0
      ),
    }
    model = case.trainer(report, losses).model
    loss = model(case.data, noise=case.noise[0])
    actual[f"separation_{kind}"] = loss.scalars["loss/separation"]
    actual[f"total_loss_{kind}"] = loss.total
    actual["area_loss"] = loss.scalars["loss/area"]
  report.compare("losses of masks", report.known(actual), _LOSSES)


def _training(case: _Case, report: Report) -> None:
  trainer = case.trainer(report)
  model, optimizer = trainer.model, trainer.optimizer
  names = case.variables(model)
  gradients = variables.gradients_of(model, case.data, case.noise[0])
  names.compare_gradients(report, gradients)
  before = variables.values_of(model)
  rates, losses, norms = [], [], []
  for step in range(case.config["train_steps"]):
    rates.append(optimizer.learn_rate())
    scalars = trainer.step(case.data, noise=case.noise[step])
    losses.append(scalars["loss/total"])
    norms.append(scalars["debug/global_grad_norm"])
  actual = {
    "losses": losses,
    "learning_rates": rates,
    "after_loss_noise0": model(case.data, noise=case.noise[0]).total,
  }
  report.compare("training", report.known(actual), _LOSSES)
  report.compare(
    "global norms",
    report.known({"global_gradient_norms": norms}),
    variables.GRADIENTS,
    is_optional=True,
  )
  after = variables.values_of(model)
  names.compare_changes(report, before, after)
  names.compare_moments(report, after, optimizer)
  changes = {name: after[name] - before[name] for name in after}
  names.compare_undecided(report, gradients, changes, optimizer, rates)


def _checkpoints(case: _Case, report: Report) -> None:
  """Compares what is restored from checkpoints of the published code."""
  path = case.folder / "tf_checkpoint"
  if path.is_dir():
    trainer = case.trainer(report)
    model, optimizer = trainer.model, trainer.optimizer
    restored = checkpoint_files.restore(str(path), model, optimizer)
    if restored.missing or restored.unused:
      report.fail(path.name, f"{restored.missing} {restored.unused}")
    if int(optimizer.step) != case.config["train_steps"]:
      report.fail(path.name, f"is at step {int(optimizer.step)}")
    case.variables(model).compare_restored(report, model, optimizer)
    loss = model(case.data, noise=case.noise[0]).total
    pairs = report.known({"after_loss_noise0": loss})
    report.compare("loss, restored", pairs, _LOSSES, is_optional=True)
  for name in ("lightning.ckpt", "best_model.pt"):
    path = case.folder / name
    if path.exists():
      variables.check_torch_file(path, case.trainer(report).model, report)
