"""Agreement with recorded outputs of the TensorFlow 1 reference of IODINE.

A case is a folder:
  config.json: what the reference was built from.
  inputs.npz: a batch, and `eps`, [steps, S, B, K, Z] standard-normal draws.
  expected.npz: what the reference computed from `tf1_initial` and the inputs.
  eval.npz: what its `eval` returned; not of sequential data.
  tf1_initial, tf1_trained: its checkpoints before and after training.
  variables.txt: names and shapes of the variables in these; may be missing.
"""

import functools
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import tf1_checkpoint, training
from iodine.config import plans
from tests.parity import cases
from tests.parity.report import (
  Pair,
  Report,
  largest_difference,
  relative_error,
)
from tests.support import tiny

# Relative L2 errors per tensor. Run twice with different convolution libraries,
# the reference differs from itself by 1e-6 in the median and by up to 1e-3 in
# what training changes.
_FORWARD = 5e-4
_TRAINING = 5e-3
_MEDIAN = 2e-5
_MEDIAN_OF_CHANGES = 2e-4
# What is smaller than this in all is noise.
_error = functools.partial(relative_error, least_norm=1e-8)
# Absolute: where two slots explain a pixel equally well, rounding decides, and
# one pixel moves an adjusted Rand index by up to 4e-3.
_ARI = 5e-3


class _Case:
  """A recorded run, and the port built from its configuration.

  Attributes:
    trainer: of the recorded sizes; `restore` gives it its state.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.config = cases.read_config(folder)
    inputs = cases.read_arrays(folder / "inputs.npz")
    self.data: dict[str, Any] = {
      key: tf.constant(inputs[key]) for key in ("image", "mask", "visibility")
    }
    self.data["factors"] = {
      key.removeprefix("factors/"): tf.constant(value)
      for key, value in inputs.items()
      if key.startswith("factors/")
    }
    self.noise = [tf.constant(draws) for draws in inputs["eps"]]

    model = plans.build(self.config["model"], identifier="model")
    optimizer = training.make_optimizer(self.config["learn_rate"])
    self.trainer = training.Trainer(model, optimizer)
    factors = {k: v.shape[-1] for k, v in self.data["factors"].items()}
    self.trainer.initialize(self.data["image"].shape[2:], factors)

  def restore(self, checkpoint: str) -> training.Trainer:
    """Restores the trainer from "tf1_initial" or "tf1_trained"."""
    tf1_checkpoint.restore(
      self.path(checkpoint), self.trainer.model, self.trainer.optimizer
    )
    return self.trainer

  def path(self, checkpoint: str) -> str:
    return str(self.folder / checkpoint / "model.ckpt")


def check(folder: pathlib.Path) -> Report:
  """Holds the port against a case; see `tests.parity.check`."""
  case = _Case(folder)
  recorded = cases.read_arrays(folder / "expected.npz")
  evaluated: dict[str, np.ndarray] = {}
  if (folder / "eval.npz").exists():
    evaluated = cases.read_arrays(folder / "eval.npz")
  report = Report(
    folder.name,
    {**recorded, **{f"eval/{k}": v for k, v in evaluated.items()}},
  )
  _forward(case, report)
  if evaluated:
    _eval(case, report)
  _training(case, report)
  _names(case, report)
  return report


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
  """Nested dicts and lists to {path: leaf}."""
  if isinstance(tree, list):
    tree = dict(enumerate(tree))
  if not isinstance(tree, Mapping):
    return {prefix: tree}
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    flat.update(_flat(value, f"{prefix}/{key}" if prefix else str(key)))
  return flat


def _compare(report: Report, group: str, pairs: Mapping[str, Pair]) -> None:
  """Compares values that are not of training."""
  is_ari = lambda key: key.endswith(("/ari", "/ari_nobg"))
  indices = {k: pair for k, pair in pairs.items() if is_ari(k)}
  others = {k: pair for k, pair in pairs.items() if not is_ari(k)}
  report.compare(group, others, _FORWARD, _MEDIAN, _error)
  report.compare(
    f"{group}, ARI",
    indices,
    _ARI,
    error=largest_difference,
    is_optional=True,
  )


def _centred(logits: Any) -> np.ndarray:
  """Mask logits are defined up to a constant per pixel."""
  logits = np.asarray(logits, np.float64)
  return logits - logits.mean(axis=-1, keepdims=True)


def _saved(
  model: tf.Module, optimizer: training.Adam | None = None
) -> dict[str, np.ndarray]:
  """{TF1 name: value}, as `tf1_checkpoint.save` writes them."""
  with tempfile.TemporaryDirectory() as folder:
    prefix = f"{folder}/model.ckpt"
    tf1_checkpoint.save(prefix, model, optimizer)
    return tiny.read_checkpoint(prefix)


def _forward(case: _Case, report: Report) -> None:
  model = case.restore("tf1_initial").model
  with tf.GradientTape() as tape:
    total, scalars, iterations = model(case.data, noise=case.noise[0])
  dists = iterations["x_dist"]
  mixtures = [dist.mixture_distribution for dist in dists]
  inputs = [
    {f"{kind}/{name}": v for kind in step for name, v in step[kind].items()}
    for step in iterations["inputs"]
  ]
  actual = {
    "loss/total_return": total,
    **_flat(dict(scalars), "scalars"),
    **_flat({key: iterations[key] for key in ("z", "zp", "kl", "re")}, "iter"),
    **_flat([m.probs_parameter() for m in mixtures], "iter/mask_probs"),
    **_flat([m.logits_parameter() for m in mixtures], "iter/mask_logits"),
    **_flat(
      [dist.components_distribution.mean() for dist in dists],
      "iter/component_mean",
    ),
    **_flat([dist.mean() for dist in dists], "iter/recons"),
    **{
      f"inputs/{name}/{t}": value
      for t, step in enumerate(inputs)
      for name, value in step.items()
    },
    **_flat(_saved(model), "moments_after_one_call"),
  }
  pairs = report.pairs(
    actual, "loss/", "scalars/", "iter/", "inputs/", "moments_after_one_call/"
  )
  for key, pair in pairs.items():
    if "/mask_logits/" in key:
      pairs[key] = Pair(_centred(pair.actual), _centred(pair.expected))
  _compare(report, "forward", pairs)

  variables = model.trainable_variables
  gradients = tape.gradient(total, variables)
  actual = {
    f"grad/{tf1_checkpoint.reference_name(variable.name)}": gradient
    for variable, gradient in zip(variables, gradients, strict=True)
    if gradient is not None
  }
  actual["global_norm"] = tf.linalg.global_norm(gradients)
  pairs = report.pairs(actual, "grad/", "global_norm")
  report.compare("gradients", pairs, _TRAINING, _MEDIAN_OF_CHANGES, _error)


def _eval(case: _Case, report: Report) -> None:
  model = case.restore("tf1_initial").model
  info = _flat(model.eval(case.data, noise=case.noise[0]), "eval")
  report.leave_out(
    [
      f"eval/factor_regressor/metrics/{name}"
      for name, _, kind in case.config["model"]["factor_evaluator"]["mapping"]
      if kind != "categorical"
    ],
    "an R^2 of running moments, updated within `eval` in no defined order",
  )
  _compare(report, "eval", report.pairs(info, "eval/"))


def _train(
  trainer: training.Trainer,
  case: _Case,
  noise: Sequence[tf.Tensor],
  prefix: str,
  report: Report,
) -> None:
  """Takes a step for each draw; compares losses and norms of gradients."""
  steps = [trainer.step(case.data, noise=draws) for draws in noise]
  actual = {
    f"{prefix}/loss": [scalars["loss/total"] for scalars in steps],
    f"{prefix}/global_norm": [s["debug/global_grad_norm"] for s in steps],
  }
  report.compare(prefix, report.pairs(actual, f"{prefix}/"), _TRAINING)


def _training(case: _Case, report: Report) -> None:
  num_steps = len(report.recorded["train/loss"])
  trainer = case.restore("tf1_initial")
  _train(trainer, case, case.noise[:num_steps], "train", report)

  before = tiny.read_checkpoint(case.path("tf1_initial"))
  after = _saved(trainer.model, trainer.optimizer)
  trained = tiny.read_checkpoint(case.path("tf1_trained"))
  report.compare(
    "tf1_trained",
    report.pairs({f"after/{k}": v for k, v in trained.items()}, "after/"),
    0.0,
  )
  changes = {}
  for key, value in report.starting("after/").items():
    name = key.removeprefix("after/")
    # The recorded run fetched no summaries, and so left the moments alone.
    if "_mean_var/" not in name:
      start = np.asarray(before[name], np.float64)
      changes[key] = Pair(np.asarray(after[name]) - start, value - start)
  report.compare("changes", changes, _TRAINING, _MEDIAN_OF_CHANGES, _error)

  trainer = case.restore("tf1_trained")
  if int(trainer.optimizer.step) != num_steps:
    report.fail("resume", f"tf1_trained is at step {trainer.optimizer.step}")
  _train(trainer, case, case.noise[num_steps:], "resume", report)


def _names(case: _Case, report: Report) -> None:
  """Compares names, shapes and types of all variables."""
  path = case.folder / "variables.txt"
  if not path.exists():
    return
  saved = {
    (name, "x".join(map(str, value.shape)), value.dtype.name)
    for name, value in _saved(
      case.trainer.model, case.trainer.optimizer
    ).items()
  }
  # A scalar's line has nothing between its two blanks.
  listed = {tuple(line.split(" ")) for line in path.read_text().splitlines()}
  cases.compare_names(report, "variables.txt", saved, listed)
