"""Agreement with recorded outputs of the TensorFlow 1 reference.

A case is a folder `tests/parity/tiny_*`:
  config.json: what the reference was built from.
  inputs.npz: a batch, and `eps`, [steps, S, B, K, Z] standard-normal draws.
  expected.npz: what the reference computed from `tf1_initial` and the inputs.
  eval.npz: what its `eval` returned.
  tf1_initial, tf1_trained: its checkpoints before and after training.
  variables.txt: names and shapes of the variables in these.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from iodine import tf1_checkpoint, training
from iodine.config import plans
from tests.support import tiny
from tests.support.places import PARITY

# Relative L2 errors per tensor. Run twice with different convolution libraries,
# the reference differs from itself by 1e-6 in the median and by up to 1e-3 in
# what training changes.
FORWARD_BOUND = 5e-4
TRAINING_BOUND = 5e-3
MEDIAN_BOUND = 2e-5
CHANGES_MEDIAN_BOUND = 2e-4
# Absolute: where two slots explain a pixel equally well, rounding decides, and
# one pixel moves an adjusted Rand index by up to 4e-3.
ARI_BOUND = 5e-3

_CASES = sorted(path.parent for path in PARITY.glob("tiny_*/config.json"))


class Case:
  """A recorded run, and the port built from its configuration."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.config = json.loads((folder / "config.json").read_text())
    self.inputs = np.load(folder / "inputs.npz")
    self.expected = np.load(folder / "expected.npz")
    self.data: dict[str, Any] = {
      key: tf.constant(self.inputs[key])
      for key in ("image", "mask", "visibility")
    }
    self.data["factors"] = {
      key.removeprefix("factors/"): tf.constant(self.inputs[key])
      for key in self.inputs.files
      if key.startswith("factors/")
    }
    self.noise = [tf.constant(draws) for draws in self.inputs["eps"]]

  def trainer(self, checkpoint: str) -> training.Trainer:
    """Restores "tf1_initial" or "tf1_trained"."""
    model = plans.build(self.config["model"], identifier="model")
    optimizer = training.make_optimizer(self.config["learn_rate"])
    trainer = training.Trainer(model, optimizer)
    factors = {k: v.shape[-1] for k, v in self.data["factors"].items()}
    trainer.initialize(self.data["image"].shape[2:], factors)
    tf1_checkpoint.restore(self.path(checkpoint), model, optimizer)
    return trainer

  def path(self, checkpoint: str) -> str:
    return str(self.folder / checkpoint / "model.ckpt")


@pytest.fixture(scope="module", params=_CASES, ids=lambda path: path.name)
def case(request: pytest.FixtureRequest) -> Case:
  return Case(request.param)


def _error(actual: Any, expected: Any) -> float:
  """Relative L2 error; infinite where the shapes differ."""
  actual = np.asarray(actual, np.float64)
  expected = np.asarray(expected, np.float64)
  if actual.shape != expected.shape:
    return float("inf")
  difference = np.linalg.norm(actual - expected)
  return float(difference / (np.linalg.norm(expected) + 1e-8))


def _check(
  actual: Mapping[str, Any],
  expected: Mapping[str, Any],
  bound: float,
  median_bound: float = float("inf"),
) -> None:
  """Compares every expected tensor; a missing one fails."""
  assert expected
  errors = {}
  for key, value in expected.items():
    if key not in actual:
      errors[key] = float("inf")
    elif key.endswith(("/ari", "/ari_nobg")):
      assert np.shape(actual[key]) == value.shape, key
      difference = np.max(np.abs(np.asarray(actual[key]) - value))
      errors[key] = 0.0 if difference <= ARI_BOUND else float("inf")
    else:
      errors[key] = _error(actual[key], value)
  # Written so that NaN fails as well.
  bad = {k: f"{e:.1e}" for k, e in errors.items() if not e <= bound}
  assert not bad
  assert np.median(list(errors.values())) <= median_bound


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


def _starting(archive: Any, *prefixes: str) -> dict[str, np.ndarray]:
  return {k: archive[k] for k in archive.files if k.startswith(prefixes)}


def _centred(logits: Any) -> np.ndarray:
  """Mask logits are defined up to a constant per pixel."""
  logits = np.asarray(logits, np.float64)
  return logits - logits.mean(axis=-1, keepdims=True)


def test_both_cases_are_there():
  # The tests below run over whatever folders there are.
  assert [path.name for path in _CASES] == ["tiny_cos", "tiny_lstm"]


def test_forward(case, tmp_path):
  model = case.trainer("tf1_initial").model
  total, scalars, iterations = model(case.data, noise=case.noise[0])

  path = tmp_path / "model.ckpt"
  tf1_checkpoint.save(str(path), model)

  dists = iterations["x_dist"]
  mixtures = [dist.mixture_distribution for dist in dists]
  inputs = [
    {f"{kind}/{name}": v for kind in step for name, v in step[kind].items()}
    for step in iterations["inputs"]
  ]
  actual = {
    "loss/total_return": total,
    **{f"scalars/{key}": value for key, value in scalars.items()},
    **_flat({key: iterations[key] for key in ("z", "zp", "kl", "re")}, "iter"),
    **_flat([m.probs_parameter() for m in mixtures], "iter/mask_probs"),
    **_flat(
      [_centred(m.logits_parameter()) for m in mixtures], "iter/mask_logits"
    ),
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
    **{
      f"moments_after_one_call/{name}": value
      for name, value in tiny.read_checkpoint(path).items()
    },
  }
  prefixes = ("loss/", "scalars/", "iter/", "inputs/", "moments_after_one_call")
  expected = {
    key: _centred(value) if "mask_logits" in key else value
    for key, value in _starting(case.expected, *prefixes).items()
  }
  assert any(key.startswith("moments_after_one_call") for key in expected)
  _check(actual, expected, FORWARD_BOUND, MEDIAN_BOUND)


def test_eval(case):
  model = case.trainer("tf1_initial").model
  info = _flat(model.eval(case.data, noise=case.noise[0]))
  # R^2 depends on the running moments, which the reference updates within
  # `eval`, in no defined order.
  skipped = {
    f"factor_regressor/metrics/{name}"
    for name, _, kind in case.config["model"]["factor_evaluator"]["mapping"]
    if kind != "categorical"
  }
  recorded = np.load(case.folder / "eval.npz")
  expected = {key: recorded[key] for key in recorded.files}
  assert skipped < set(expected)
  expected = {k: v for k, v in expected.items() if k not in skipped}
  _check(info, expected, FORWARD_BOUND, MEDIAN_BOUND)


def _train(case: Case, trainer: training.Trainer, noise: list, prefix: str):
  """Takes a step for each draw, and compares losses and gradients' norms."""
  steps = [trainer.step(case.data, noise=draws) for draws in noise]
  expected = {
    **_flat(list(case.expected[f"{prefix}/loss"]), "loss"),
    **_flat(list(case.expected[f"{prefix}/global_norm"]), "norm"),
  }
  assert len(expected) == 2 * len(steps)
  actual = {
    **_flat([scalars["loss/total"] for scalars in steps], "loss"),
    **_flat([scalars["debug/global_grad_norm"] for scalars in steps], "norm"),
  }
  _check(actual, expected, TRAINING_BOUND)


def test_training_steps(case, tmp_path):
  trainer = case.trainer("tf1_initial")
  num_steps = len(case.expected["train/loss"])
  assert num_steps == 3
  _train(case, trainer, case.noise[:num_steps], "train")

  path = tmp_path / "model.ckpt"
  tf1_checkpoint.save(str(path), trainer.model, trainer.optimizer)
  before = tiny.read_checkpoint(case.path("tf1_initial"))
  after = tiny.read_checkpoint(path)
  # The recorded run fetched no summaries, and so left the moments alone.
  expected = {
    key: value
    for key, value in _starting(case.expected, "after/").items()
    if "_mean_var/" not in key
  }
  assert sum(key.endswith(("/Adam", "/Adam_1")) for key in expected) > 40
  change = lambda name, value: np.asarray(value, np.float64) - before[name]
  names = {key: key.removeprefix("after/") for key in expected}
  _check(
    {k: change(name, after[name]) for k, name in names.items()},
    {k: change(name, expected[k]) for k, name in names.items()},
    TRAINING_BOUND,
    CHANGES_MEDIAN_BOUND,
  )


def test_training_resumes_from_the_reference_checkpoint(case):
  num_steps = len(case.expected["train/loss"])
  assert len(case.noise) == num_steps + 2
  trainer = case.trainer("tf1_trained")
  assert int(trainer.optimizer.step) == num_steps
  _train(case, trainer, case.noise[num_steps:], "resume")


def test_names_and_shapes_of_variables(case, tmp_path):
  trainer = case.trainer("tf1_initial")
  path = tmp_path / "model.ckpt"
  tf1_checkpoint.save(str(path), trainer.model, trainer.optimizer)
  saved = {
    (name, "x".join(map(str, value.shape)), value.dtype.name)
    for name, value in tiny.read_checkpoint(path).items()
  }
  lines = (case.folder / "variables.txt").read_text().splitlines()
  # A scalar's line has nothing between its two blanks.
  assert saved == {tuple(line.split(" ")) for line in lines}
