"""Agreement with recorded outputs of EfficientMORL's published code.

A case is a folder of one of three kinds. Names and layouts are the code's own,
but channels are last.
  A model: config.json with its options (`Net`, `training`); weights.npz, its
    state dict; inputs.npz: x [3, B, H, W, C] in [-1, 1], mask, and standard
    normal draws; expected.npz: forward passes, gradients, training steps. A key
    NAME@n holds every n-th entry.
  Its evaluation: config.json, weights.npz, and evaluation.npz, of scenes each
    of which is a batch.
  Single functions: functions.npz.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import exploration, metrics, training
from iodine.evaluation import dci, efficient_morl, representations
from iodine.geco import Geco
from iodine.models import layers, published
from iodine.models.efficient_morl import (
  BroadcastDecoder,
  EfficientMORL,
  ImageEncoder,
  weights,
)
from iodine.models.efficient_morl.gaussian import Gaussian, stddev
from iodine.models.efficient_morl.likelihoods import LIKELIHOODS
from iodine.models.efficient_morl.recurrence import DualGRU
from iodine.models.slot_attention import SpatialBroadcastDecoder
from iodine.training.schedules import Schedule
from tests.parity import cases, variables
from tests.parity.report import Pair, Report, largest_difference
from tests.parity.variables import Variables

# Relative L2 errors, from the records' README: of the worst tensor of small
# cases and of those at full size, and of the median tensor of either.
_BOUNDS = {
  "forward": (2e-5, 5e-5, 2e-6),
  "refined": (2e-5, 2e-3, float("inf")),
  "losses": (2e-5, 1e-4, float("inf")),
  "later losses": (1e-4, 1e-4, float("inf")),
  "latents": (2e-5, 2e-3, float("inf")),
  "gradients": (2e-5, 5e-4, 3e-5),
  "changes": (3e-3, 1e-2, 5e-4),
}
_GRID_COLUMNS = 8
_INPUTS_OF_PARTS = ("/noise", "/slot", "/slots")
_FULL_SIZE = 32  # pixels along a side
_GECO = 1e-4
_RATES = 1e-6
_SCORES = 1e-5  # absolute
_FUNCTIONS = 2e-6

_LIKELIHOODS = {"Gaussian": "gaussian", "GMM": "mixture"}
_WARMUP = 10_000
_HALF_LIFE = 100_000

Arrays = Mapping[str, np.ndarray]


def is_case(folder: pathlib.Path) -> bool:
  """Whether a folder is a case of one of the kinds."""
  return "Net" in cases.read_config(folder) or _functions(folder).exists()


def check(folder: pathlib.Path) -> Report:
  """Holds model or functions against a case; see `tests.parity.check`."""
  if _functions(folder).exists():
    return _check_functions(folder)
  if (folder / "evaluation.npz").exists():
    return _check_evaluation(folder)
  return _check_model(folder)


def _functions(folder: pathlib.Path) -> pathlib.Path:
  return folder / "functions.npz"


def make_decoder(kind: str) -> snt.Module:
  """The decoder that the published code calls by a name."""
  if kind == "big":
    return SpatialBroadcastDecoder(alignment="pytorch", initial_values=0.02)
  if kind == "small":
    return BroadcastDecoder((32, 32, 32), (5, 5, 5, 3), (1,), "relu")
  assert kind == "iodine", kind
  return BroadcastDecoder()


def make_model(net: Mapping[str, Any], kl_beta: float = 1.0) -> EfficientMORL:
  """Builds a model.

  Args:
    net: the published code's options.
    kl_beta: weight of the KL.

  Returns:
    The model, without variables.
  """
  prior = "reversed++" if net["reverse_prior_plusplus"] else "reversed"
  return EfficientMORL(
    ImageEncoder(),
    make_decoder(net["image_decoder"]),
    net["z_size"],
    net["K"],
    num_layers=net["stochastic_layers"],
    num_iters=net["refinement_iters"],
    likelihood=_LIKELIHOODS[net["image_likelihood"]],
    log_scale=net["log_scale"],
    prior="bottom-up" if net["bottom_up_prior"] else prior,
    dual_gru=net["use_DualGRU"],
    kl_beta=kl_beta,
  )


class _Case:
  """A recorded run, and what it takes to build the model again."""

  def __init__(self, folder: pathlib.Path):
    self.config = cases.read_config(folder)
    self.net = self.config["Net"]
    self.image_shape = (*self.net["input_size"][1:], self.net["input_size"][0])
    self.weights = {
      name: value.astype(np.float32)
      for name, value in cases.read_arrays(folder / "weights.npz").items()
    }
    self.is_full_size = min(self.image_shape[:2]) >= _FULL_SIZE

  def model(self, report: Report) -> EfficientMORL:
    """The model with the recorded weights."""
    return self.trainer(report).model

  def trainer(self, report: Report) -> training.Trainer:
    """The model with the recorded weights, and its optimizer."""
    run = {**self.config, **self.config.get("training", {})}
    model = make_model(self.net, run["kl_beta"])
    target = run.get("geco_reconstruction_target")
    if target is not None:
      model.use_geco(
        Geco(
          target,
          step_size=run.get("geco_beta_stepsize", 1e-6),
          alpha=run.get("geco_ema_alpha", 0.99),
          warmup_steps=self.net["geco_warm_start"],
          acceleration=run.get("geco_step_size_acceleration") or 1,
        )
      )
    trainer = training.Trainer(model, _optimizer(run), seed=0)
    trainer.initialize(self.image_shape, {})
    self.variables(model).load(report, model)
    trainer.optimizer.step.assign(run.get("first_step", 0))
    return trainer

  def variables(self, model: EfficientMORL) -> Variables:
    """The names of the record and of the model."""
    undecided = []
    for name, entries in self.config.get("rounding_only", {}).items():
      if entries == "all":
        undecided.append(name)
      else:
        undecided += [f"{name}[{entry}]" for entry in entries]
    known = weights.renamed(self.weights)
    return Variables(weights.TABLE, model, known, undecided, {})

  def compare(self, report: Report, group: str, what: str, actual: Any) -> None:
    """Compares arrays by their names, within the bounds of a kind."""
    small, full, median = _BOUNDS[what]
    report.compare(
      group,
      _known(report, actual),
      full if self.is_full_size else small,
      median,
      is_optional=True,
    )


def _optimizer(run: Mapping[str, Any]) -> training.Adam:
  schedule = {}
  if run.get("use_scheduler"):
    schedule = _schedule(run["warmup"])
  return training.make_optimizer(
    run.get("lr", 4e-4),
    beta1=0.9,
    epsilon_form="pytorch",
    clip_norm=run.get("clip_grad_norm") or None,
    clip_epsilon=1e-6,
    **{"decay_steps": None, **schedule},
  )


def _schedule(warmup: int) -> dict[str, Any]:
  return {
    "warmup_steps": warmup,
    "decay_steps": _HALF_LIFE,
    "decay_rate": 0.5,
    "decay_after_warmup": True,
  }


def _known(report: Report, actual: Arrays) -> dict[str, Pair]:
  """Pairs what was computed with what is recorded, thinned as the record."""
  pairs = {}
  for key, expected in report.recorded.items():
    name, _, stride = key.partition("@")
    if name in actual:
      value = np.asarray(actual[name])
      pairs[key] = Pair(
        value.reshape(-1)[:: int(stride)] if stride else value, expected
      )
  return pairs


def _data(x: Any, mask: np.ndarray | None = None) -> dict[str, tf.Tensor]:
  """A batch of images in [-1, 1] and masks in [0, 255]."""
  data = {"image": tf.constant(np.clip(x[:, None] * 0.5 + 0.5, 0.0, 1.0))}
  if mask is not None:
    data["mask"] = tf.constant((mask[:, None] / 255.0).astype(np.float32))
  return data


def _log_masks(mask_logits: Any) -> Any:
  """Logarithms of masks [..., K, H, W, 1]."""
  return mask_logits - tf.reduce_logsumexp(mask_logits, axis=-4, keepdims=True)


# --- Models -------------------------------------------------------------------


def _check_model(folder: pathlib.Path) -> Report:
  case = _Case(folder)
  report = Report(folder.name, cases.read_arrays(folder / "expected.npz"))
  inputs = cases.read_arrays(folder / "inputs.npz")
  _evaluation(case, report, inputs)
  _training(case, report, inputs)
  return report


def _evaluation(case: _Case, report: Report, inputs: Arrays) -> None:
  """Compares forward passes as after training, with refinement and without."""
  model = case.model(report)
  data = _data(inputs["x"][0], inputs["mask"][0])
  step = tf.constant(case.net["geco_warm_start"] + 1)
  noise = inputs["noise_eval"]
  prefixes = {"eval/": len(noise)}
  prefixes["eval_no_refinement/"] = len(noise) - model.num_iters
  for prefix, count in prefixes.items():
    if count != len(noise):
      model.set_num_iters(0)
    loss = model(data, noise=noise[:count], step=step)
    _compare_forward(case, report, prefix, loss, model)
    info = model.eval(data, noise=noise[:count])
    outputs, of_layers = info["outputs"], {}
    for layer in range(model.num_layers - 1):
      scope = f"{prefix}layer_{layer}/"
      of_layers[f"{scope}means"] = outputs["components"][:, layer]
      of_layers[f"{scope}mask_logprobs"] = _log_masks(
        outputs["pred_mask_logits"][:, layer]
      )
    case.compare(report, "layers decoded", "forward", of_layers)
    last = {name: value[:, -1] for name, value in info["metrics"].items()}
    _compare_scores(report, prefix, last, data["mask"][:, 0])


def _compare_scores(
  report: Report, prefix: str, scores: Arrays, true_mask: tf.Tensor
) -> None:
  """Compares scores [B], given masks [B, L, H, W, 1]."""
  actual = {
    f"{prefix}ari": _defined(scores["ari_nobg"], true_mask),
    f"{prefix}ari_with_background": _defined(scores["ari"], true_mask),
    f"{prefix}mse": scores["mse"],
  }
  report.compare(
    f"{prefix.rstrip('/')} scores",
    _known(report, actual),
    _SCORES,
    error=largest_difference,
    is_optional=True,
  )


def _defined(ari: Any, true_mask: tf.Tensor) -> np.ndarray:
  """An ARI [B] that is 1 of one object found as one, and 0 of none."""
  has_objects = np.any(true_mask[:, 1:], axis=(1, 2, 3, 4))
  return np.where(np.isnan(ari), has_objects, ari)


def _compare_forward(
  case: _Case, report: Report, prefix: str, loss: Any, model: EfficientMORL
) -> None:
  record = loss.iterations
  height, width = case.image_shape[:2]
  forward = {"features": record.encoded.features}
  for layer, attention in enumerate(record.inference.attention):
    scope = f"layer_{layer}/"
    forward[f"{scope}attention"] = tf.reshape(
      tf.transpose(attention, [0, 2, 1]),
      [-1, model.num_components, height, width, 1],
    )
    forward |= _parts(scope, record.inference.posteriors[layer + 1])
    forward[f"{scope}kl"] = record.layer_kls[layer]
    if record.priors[layer] is not None:
      prior = tf.concat(record.priors[layer], axis=-1)
      forward |= _parts(f"prior_of_layer_{layer}/", prior)
  refined: dict[str, Any] = {}
  losses = {
    "total_loss": loss.total,
    "nll": loss.scalars["loss/nll"],
    "kl": loss.scalars["loss/kl"],
  }
  for i, step in enumerate(record.steps):
    scope, decoded = f"step_{i}/", step.decoded
    of_step = {
      f"{scope}z": decoded.z,
      f"{scope}means": decoded.components,
      f"{scope}mask_logprobs": decoded.log_masks,
      f"{scope}recon": tf.reduce_sum(
        tf.exp(decoded.log_masks) * decoded.components, axis=1
      ),
      f"{scope}nll": decoded.nll,
      f"{scope}kl_slots": step.kl,
      f"{scope}kl": tf.reduce_sum(step.kl, axis=1),
    }
    losses[f"{scope}loss"] = step.loss
    if step.refinement is not None:
      of_step |= _parts(scope, step.posterior)
      of_step |= {
        f"{scope}lambda_gradient": step.refinement.gradient,
        f"{scope}normed_gradient": step.refinement.normed,
        f"{scope}hidden": step.refinement.hidden,
        f"{scope}delta": step.refinement.delta,
      }
    (refined if i else forward).update(of_step)
  deltas = [step.refinement.delta for step in record.steps[1:]]
  if deltas:
    refined["deltas"] = tf.reduce_mean(tf.norm(deltas, axis=-1), axis=[1, 2])
  for what, values in (
    ("forward", forward),
    ("refined", refined),
    ("losses", losses),
  ):
    named = {f"{prefix}{name}": value for name, value in values.items()}
    case.compare(report, f"{prefix.rstrip('/')} {what}", what, named)


def _parts(scope: str, posterior: tf.Tensor) -> dict[str, tf.Tensor]:
  mean, raw = Gaussian.of(posterior)
  return {f"{scope}loc": mean, f"{scope}softplus": raw}


def _training(case: _Case, report: Report, inputs: Arrays) -> None:
  trainer = case.trainer(report)
  model, optimizer = trainer.model, trainer.optimizer
  names = case.variables(model)
  before = variables.values_of(model)
  rates = []
  state: dict[str, Any] = {}
  for i, (x, noise) in enumerate(
    zip(inputs["x"], inputs["noise_train"], strict=True)
  ):
    data, prefix = _data(x), f"train_{i}/"
    step = int(optimizer.step)
    gradients = variables.gradients_of(model, data, noise, step)
    if i == 0:
      first = gradients
      loss = model(data, noise=noise, step=tf.constant(step))
      _compare_forward(case, report, "train/", loss, model)
      _compare_tensors(case, report, names, "gradients", "gradient", first)
    _compare_norms(case, report, names, f"{prefix}gradient_norm", gradients, i)
    rates.append(float(optimizer.learn_rate()))
    scalars = trainer.step(data, noise=noise)
    state |= {
      f"{prefix}learning_rate": rates[-1],
      f"{prefix}total_loss": scalars["loss/total"],
      f"{prefix}nll": scalars["loss/nll"],
      f"{prefix}kl": scalars["loss/kl"],
      f"{prefix}global_gradient_norm": scalars["debug/global_grad_norm"],
    }
    if model.geco is not None:
      state[f"{prefix}geco_C_ema"] = model.geco.constraint.numpy()
      state[f"{prefix}geco_beta"] = model.geco.beta.numpy()
    after = variables.values_of(model)
    changes = {name: after[name] - before[name] for name in after}
    _compare_norms(case, report, names, f"{prefix}change_norm", changes, i)
  _compare_state(case, report, state)
  _compare_tensors(case, report, names, "changes", "change", changes)
  names.compare_undecided(report, first, changes, optimizer, rates)


def _compare_state(case: _Case, report: Report, state: Arrays) -> None:
  """Compares what training steps tell, by what it depends on."""
  pairs = _known(report, state)

  def ending(*ends: str) -> dict[str, Pair]:
    return {key: pair for key, pair in pairs.items() if key.endswith(ends)}

  report.compare(
    "learning rates", ending("learning_rate"), _RATES, is_optional=True
  )
  geco = ending("geco_C_ema", "geco_beta")
  if geco:
    report.compare("GECO", geco, _GECO)
  else:
    unused = [key for key in report.recorded if key.startswith("train_")]
    unused = [key for key in unused if "/geco_" in key]
    report.leave_out(unused, "the state of GECO, which is not used")
  for group, what, ends in (
    ("training losses", "later losses", ("loss", "nll", "kl")),
    ("global norms", "gradients", ("gradient_norm",)),
  ):
    named = {key: pair.actual for key, pair in ending(*ends).items()}
    case.compare(report, group, what, named)


def _compare_tensors(
  case: _Case,
  report: Report,
  names: Variables,
  what: str,
  prefix: str,
  own: Arrays,
) -> None:
  """Compares recorded arrays PREFIX/NAME with values of variables here."""
  actual, recorded = {}, {}
  for key in report.starting(f"{prefix}/"):
    name, _, _ = key.removeprefix(f"{prefix}/").partition("@")
    if not names.is_undecided(name):
      actual[f"{prefix}/{name}"] = names.published(name, own)
      recorded[key] = name
  pairs = {
    key: names.decided(recorded[key], pair) if "@" not in key else pair
    for key, pair in _known(report, actual).items()
  }
  small, full, median = _BOUNDS[what]
  bound = full if case.is_full_size else small
  report.compare(what, pairs, bound, median)


def _compare_norms(
  case: _Case,
  report: Report,
  names: Variables,
  key: str,
  own: Arrays,
  index: int,
) -> None:
  """Compares the norms of all variables, those that rounding decides on as 0.

  Args:
    case: of the record.
    report: of the case.
    names: of the variables.
    key: of the recorded norms.
    own: values here.
    index: number of training steps before; weights that have changed differ.
  """
  if key not in report.recorded:
    return
  of_change = key.endswith("change_norm")
  order = case.config["gradient_names"]
  norms = np.array([np.linalg.norm(names.published(n, own)) for n in order])
  expected = report.recorded[key].copy()
  left_out = [
    i
    for i, name in enumerate(order)
    if names.is_undecided(name)
    or (of_change and name in case.config["rounding_only"])
  ]
  norms[left_out] = expected[left_out] = 0.0
  what = "changes" if of_change or index else "gradients"
  small, full, _ = _BOUNDS[what]
  report.compare(
    key,
    {key: Pair(norms, expected)},
    full if case.is_full_size else small,
    error=_largest_relative_difference,
  )


def _largest_relative_difference(actual: Any, expected: Any) -> float:
  """Of the entries of two vectors without negative numbers."""
  differences = np.abs(np.subtract(actual, expected, dtype=np.float64))
  return float(np.max(differences / np.maximum(expected, 1e-30)))


# --- Evaluation ---------------------------------------------------------------


def _check_evaluation(folder: pathlib.Path) -> Report:
  case = _Case(folder)
  arrays = cases.read_arrays(folder / "evaluation.npz")
  inputs = {
    name: arrays.pop(name)
    for name in list(arrays)
    if name in ("image", "mask", "x") or name.endswith(_INPUTS_OF_PARTS)
  }
  report = Report(folder.name, arrays)
  model = case.model(report)

  def infer(part: str, scene: int) -> dict[str, Any]:
    batch = slice(scene, scene + 1)
    noise = inputs[f"{part}/noise"][batch].swapaxes(0, 1)
    return model.eval(
      _data(inputs["x"][batch], inputs["mask"][batch]), noise=noise
    )

  measured = [
    efficient_morl.PROTOCOL.measure(
      model,
      _data(inputs["x"][scene][None], inputs["mask"][scene][None]),
      inputs["metrics/noise"][scene][:, None],
    )["scenes"]
    for scene in range(len(inputs["x"]))
  ]
  scores = {
    f"metrics/{name}": [scene[key][0, -1] for scene in measured]
    for name, key in (("ari", "ari_nobg"), ("mse", "mse"), ("kl", "kl"))
  }
  small, _, _ = _BOUNDS["losses"]
  report.compare("metrics", _known(report, scores), small)
  outputs = infer("sample_viz", 0)["outputs"]
  masks = outputs["pred_mask"]
  pictures = {
    "recons": outputs["recons"][:, :, 0],
    "pred_mask": masks,
    "pred_mask_logits": _log_masks(outputs["pred_mask_logits"]),
    "components": masks * outputs["components"] + 1.0 - masks,
    "attention": outputs["attention"],
  }
  named = {f"sample_viz/{name}": value for name, value in pictures.items()}
  case.compare(report, "pictures", "forward", named)
  _compare_latents(case, report, model, inputs)
  return report


def _compare_latents(
  case: _Case,
  report: Report,
  model: EfficientMORL,
  inputs: Arrays,
) -> None:
  """Compares ranges, activeness and a traversal.

  The published code draws from the last posterior once more. Its traversal has
  limits of its own: about half the width of the range, the square roots of the
  distances to its ends.
  """

  def sample(part: str, scene: int) -> np.ndarray:
    *draws, last = inputs[f"{part}/noise"][scene]
    data = _data(inputs["x"][scene][None])
    latent = model.infer(data, np.stack(draws)[:, None])["latent"]
    return (latent["z_mean"] + latent["z_std"] * last)[0, -1].numpy()

  scenes = range(len(inputs["x"]))
  limits = exploration.latent_limits(
    np.stack([sample("range", scene) for scene in scenes])
  )
  variance = exploration.activeness(
    model,
    np.stack([sample("activeness", scene) for scene in scenes]),
    inputs["activeness/slots"].tolist(),
    limits,
  )
  actual = {"range/min_max": limits, "activeness/variance": variance}
  case.compare(report, "latents", "latents", actual)
  low, high = limits.T
  middle = (high - low) / 2.0
  values = np.linspace(
    middle - np.sqrt(np.abs(low - middle)),
    middle + np.sqrt(np.abs(high - middle)),
    _GRID_COLUMNS,
    axis=1,
  )
  varied = exploration.vary_latents(
    model,
    sample("traversal", 0),
    int(inputs["traversal/slot"]),
    np.arange(model.n_z),
    values,
  )
  # Two black pixels around every image.
  framed = np.pad(varied.scenes, [(0, 0), (0, 0), (2, 2), (2, 0), (0, 0)])
  rows = np.concatenate(framed.swapaxes(0, 1), axis=2)  # [Z, H + 4, ...]
  grid = np.pad(np.concatenate(rows), [(0, 0), (0, 2), (0, 0)])
  case.compare(report, "traversal", "latents", {"traversal/grid": grid})


# --- Single functions ---------------------------------------------------------


def _check_functions(folder: pathlib.Path) -> Report:
  arrays = cases.read_arrays(_functions(folder))
  inputs = {name: v for name, v in arrays.items() if _is_input(name)}
  report = Report(
    folder.name, {k: v for k, v in arrays.items() if k not in inputs}
  )
  actual = {
    **_positions(report.recorded),
    **_deviations(inputs),
    **_likelihoods(inputs, report.recorded),
    **_kl(inputs),
    **_dual_gru(inputs),
    **_decoders(inputs),
  }
  report.compare("functions", _known(report, actual), _FUNCTIONS)
  _compare_ari(inputs, report)
  _compare_rates(inputs, report)
  _compare_geco(inputs, report)
  _compare_dci(inputs, report)
  return report


_OUTPUTS = (
  *("lr/values", "lr/resumed_values", "std/std", "std/gradient", "kl/kl"),
  *("geco/acceleration_1", "geco/acceleration_5", "dual_gru/output"),
  *("ari/without_background", "ari/with_background"),
  *("matching/true_index", "matching/slot_index"),
)
_PARTS_OF_OUTPUTS = (
  *("positions/", "nll/g", "rgb", "mask_logits", "disentanglement"),
  "completeness",
)


def _is_input(name: str) -> bool:
  if name == "nll/mask_logits":
    return True
  return name not in _OUTPUTS and not any(
    part in name for part in _PARTS_OF_OUTPUTS
  )


def _positions(recorded: Arrays) -> dict[str, Any]:
  """In the order of the published code, whose image is transposed."""
  grids = {}
  for name, value in recorded.items():
    if name.startswith("positions/"):
      width, height = value.shape[:2]
      grid = layers.position_grid(height, width)[..., [2, 0, 1, 3]]
      if width != height:
        grid = layers.position_grid(width, height)[..., [2, 0, 1, 3]]
      grids[name] = grid
  return grids


def _deviations(inputs: Arrays) -> dict[str, Any]:
  raw = tf.constant(inputs["std/softplus"])
  with tf.GradientTape() as tape:
    tape.watch(raw)
    deviation = stddev(raw)
  # Where both are equal, PyTorch's minimum has half the gradient.
  gradient = tape.gradient(deviation, raw) * np.where(raw == 80.0, 0.5, 1.0)
  return {"std/std": deviation, "std/gradient": gradient}


def _likelihoods(inputs: Arrays, recorded: Arrays) -> dict[str, Any]:
  log_masks = _log_masks(inputs["nll/mask_logits"])
  values = {}
  for name, kind in (("gmm", "mixture"), ("gaussian", "gaussian")):
    for text in ("-1.20", "-2.30"):
      values[f"nll/{name}_{text}"] = LIKELIHOODS[kind](
        tf.constant(inputs["nll/image"]),
        tf.constant(inputs["nll/means"]),
        log_masks,
        _log_scale(text),
      )
  return values


def _log_scale(text: str) -> float:
  """The log scale whose first digits are these: ln 0.3 or ln 0.1."""
  return {"-1.20": -1.2039728, "-2.30": -2.3025859}[text]


def _kl(inputs: Arrays) -> dict[str, Any]:
  q, p = (
    Gaussian(
      tf.constant(inputs[f"kl/{name}_loc"]),
      tf.constant(inputs[f"kl/{name}_softplus"]),
    )
    for name in "qp"
  )
  return {"kl/kl": q.kl(p)}


def _restore(module: snt.Module, values: Arrays) -> None:
  """Gives a module published weights, each of which has its place."""
  scopes = published.full_names(module.variables)
  by_name = {v.name.partition(":")[0]: v for v in module.variables}
  assert len(values) == len(by_name), (sorted(values), sorted(by_name))
  for name, value in values.items():
    (place,) = published.places(name, weights.TABLE) or ()
    by_name[scopes[place.name]].assign(place.layout(value.astype(np.float32)))


def _dual_gru(inputs: Arrays) -> dict[str, Any]:
  size = inputs["dual_gru/state"].shape[-1] // 2
  x, state = (tf.constant(inputs[f"dual_gru/{k}"]) for k in ("input", "state"))
  with tf.name_scope("hierarchy/"):
    module = DualGRU(size)
  module(x, state)
  start = "dual_gru/cell."
  _restore(
    module,
    {
      f"hvae_networks.gru.cell.{name.removeprefix(start)}": value
      for name, value in inputs.items()
      if name.startswith(start)
    },
  )
  return {"dual_gru/output": module(x, state)}


def _decoders(inputs: Arrays) -> dict[str, Any]:
  values = {}
  # Sizes of the images that were decoded.
  for kind, side in (("small", 9), ("iodine", 7), ("big", 96)):
    scope = f"decoder_{kind}/"
    z = tf.constant(inputs[f"{scope}z"])
    with tf.name_scope("decoder/"):
      decoder = make_decoder(kind)
    decoder(z, (side, side, 3))
    start = f"{scope}weights/"
    _restore(
      decoder,
      {
        f"hvae_networks.image_decoder.{name.removeprefix(start)}": value
        for name, value in inputs.items()
        if name.startswith(start)
      },
    )
    _, output = decoder(z, (side, side, 3))
    rgb, logits = tf.sigmoid(output[..., :3]), output[..., 3:]
    step = 5 if kind == "big" else 1
    values[f"{scope}rgb"] = rgb[:, ::step, ::step]
    values[f"{scope}mask_logits"] = logits[:, ::step, ::step]
    values[f"{scope}corner_rgb"] = rgb[:, :6, :6]
    values[f"{scope}end_rgb"] = rgb[:, -6:, -6:]
  return values


def _compare_ari(inputs: Arrays, report: Report) -> None:
  true = tf.constant(inputs["ari/true_mask"].astype(np.float32) / 255.0)
  scores = metrics.adjusted_rand_indices(
    true, tf.constant(inputs["ari/pred"]), 1
  )
  actual = {
    "ari/without_background": efficient_morl.foreground_ari(
      true, tf.constant(inputs["ari/pred"])
    ),
    "ari/with_background": _defined(scores["ari"], true),
  }
  report.compare(
    "ARI", _known(report, actual), _SCORES, error=largest_difference
  )


def _compare_dci(inputs: Arrays, report: Report) -> None:
  is_object = inputs["matching/presence"] > 0
  is_object[0] = False  # the background
  true_mask = inputs["matching/true_mask"] > 0
  overlaps = representations.overlaps(
    true_mask[np.newaxis], inputs["matching/pred_mask"][np.newaxis]
  )
  entities, slots = dci.match_objects(
    overlaps[0], true_mask.sum(axis=(1, 2)), is_object
  )
  actual = {"matching/true_index": entities, "matching/slot_index": slots}
  report.equal("matching", _known(report, actual))
  importance = inputs["dci/importance"]
  # A row or a column by itself is weighted by nothing else.
  actual = {
    "dci/disentanglement": dci.disentanglement(importance),
    "dci/disentanglement_per_code": [
      dci.disentanglement(row[np.newaxis]) for row in importance
    ],
    "dci/completeness": dci.completeness(importance),
    "dci/completeness_per_factor": [
      dci.completeness(column[:, np.newaxis]) for column in importance.T
    ],
  }
  report.compare("disentanglement", _known(report, actual), _FUNCTIONS)


def _compare_rates(inputs: Arrays, report: Report) -> None:
  schedule = Schedule(4e-4, **_schedule(_WARMUP))
  actual = {
    f"lr/{prefix}values": _of_steps(schedule, inputs[f"lr/{prefix}steps"])
    for prefix in ("", "resumed_")
  }
  # The published code's first rate after it goes on is that without a decay.
  actual["lr/resumed_values"][0] = 4e-4
  report.compare("learning rates", _known(report, actual), _RATES)


def _of_steps(schedule: Schedule, steps: Iterable[int]) -> list[Any]:
  return [schedule(tf.constant(step)) for step in steps]


def _compare_geco(inputs: Arrays, report: Report) -> None:
  num_values = 35 * 35 * 3
  for acceleration in (1, 5):
    geco = Geco(-1.224, step_size=1e-3, acceleration=acceleration)
    rows = []
    for i, nll in enumerate(inputs["geco/nll"]):
      constraint = -float(geco.likelihood_term(tf.constant(nll)))
      geco.update(tf.constant(nll), 1000 + i, num_values)
      rows.append([constraint, float(geco.constraint), float(geco.beta)])
    key = f"geco/acceleration_{acceleration}"
    report.compare(key, _known(report, {key: rows}), _GECO)
