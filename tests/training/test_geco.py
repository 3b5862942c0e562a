"""Training under GECO: IODINE's losses, the trainer, whole runs."""

import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from iodine import training
from iodine.config import resolution
from iodine.errors import ConfigError
from iodine.geco import Geco
from iodine.runs import checkpoint_files
from iodine.training import replicas
from tests.support import tiny
from tests.support.tiny_runs import TINY, fail, run

WARMUP_STEPS, BETA, CONSTRAINT = 2, 3.0, 40.0
MULTIPLIER = math.log1p(math.exp(BETA))


def _geco(**options):
  return Geco(
    **{"target": -1.0, "warmup_steps": WARMUP_STEPS, "least_beta": BETA}
    | options
  )


def _model(**overrides):
  """A model under a constraint that is met by 40 nats."""
  model = tiny.initialized(
    geco=_geco(), factor_evaluator=None, preprocess=[], **overrides
  )
  model.geco.constraint.assign(CONSTRAINT)
  return model


# --- The losses of IODINE -----------------------------------------------------


@pytest.mark.parametrize(
  "options", [{}, {"inner_batch_size": 3}, {"recompute": True}]
)
@pytest.mark.parametrize("step", [None, WARMUP_STEPS - 1, WARMUP_STEPS])
def test_losses_of_all_steps_are_constrained(step, options):
  model = _model(**options)
  data, noise = tiny.batch(), tiny.noise()
  with tf.GradientTape(persistent=True) as tape:
    loss = model(data, noise=noise, step=step)
    nll = [tf.reduce_mean(x) for x in loss.iterations["re"]]
    kl = [tf.reduce_mean(tf.reduce_sum(x, 1)) for x in loss.iterations["kl"]]
    multiplier = MULTIPLIER if step == WARMUP_STEPS else 1.0
    weights = np.linspace(0, 1, tiny.S)
    of_kl = tf.add_n([w * x for w, x in zip(weights, kl, strict=True)])
    of_nll = tf.add_n([w * x for w, x in zip(weights, nll, strict=True)])
    expected = of_kl + multiplier * of_nll
  gradients = tape.gradient(loss.total, model.trainable_variables)
  same = tape.gradient(expected, model.trainable_variables)
  for gradient, other in zip(gradients, same, strict=True):
    scale = np.max(np.abs(other))
    np.testing.assert_allclose(gradient, other, atol=1e-4 * scale)
  value = of_kl + of_nll
  if step == WARMUP_STEPS:
    value = of_kl - weights.sum() * MULTIPLIER * CONSTRAINT
  np.testing.assert_allclose(loss.total, value, rtol=1e-5)
  np.testing.assert_allclose(loss.scalars["loss/nll"], nll[-1], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"inner_batch_size": 3}])
@pytest.mark.parametrize("step", [None, WARMUP_STEPS - 1, WARMUP_STEPS])
def test_refinement_sees_gradients_of_the_constrained_loss(step, options):
  model = _model(**options)
  image, noise = tiny.batch()["image"], tiny.noise()
  iterations = model.encode(image, noise, step=step)
  zp = tf.constant(iterations["zp"][1])
  with tf.GradientTape() as tape:
    tape.watch(zp)
    z_dist = model.latent_dist(zp)
    _, x_dist = model.decode(z_dist.mean() + z_dist.stddev() * noise[1])
    nll = -tf.reduce_sum(x_dist.log_prob(image))
    kl = tf.reduce_sum(z_dist.kl_divergence(model.prior))
    # Without a step, as in evaluation, the constraint holds.
    multiplier = 1.0 if step == WARMUP_STEPS - 1 else MULTIPLIER
    total = (kl + multiplier * nll) / options.get("inner_batch_size", tiny.B)
  expected = tape.gradient(total, zp).numpy()
  np.testing.assert_allclose(
    iterations["inputs"][1]["flat"]["dzp"],
    expected,
    atol=1e-4 * np.abs(expected).max(),
  )


def test_evaluation_is_constrained_and_changes_no_state():
  model = _model()
  losses = model.infer(tiny.batch(), noise=tiny.noise())["losses"]
  kl = np.mean(np.sum(losses["kl"], axis=2), axis=0)
  weights = np.linspace(0, 1, tiny.S)
  expected = weights @ (kl - MULTIPLIER * CONSTRAINT)
  np.testing.assert_allclose(losses["total"], expected, rtol=1e-5)
  assert float(model.geco.constraint) == CONSTRAINT
  assert float(model.geco.beta) == BETA


# --- The trainer --------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_updates_the_state_by_the_nll_of_all_sub_batches(accumulate):
  geco = _geco(target=1.0, alpha=0.5, step_size=1e-3, acceleration=4.0)
  model = tiny.initialized(geco=geco, num_iters=1, factor_evaluator=None)
  trainer = training.Trainer(
    model,
    training.make_optimizer(3e-3),
    seed=7,
    distribution=replicas.Distribution(accumulate),
  )
  constraint, beta = 0.0, BETA
  changed = 0
  for step in range(6):
    scalars = trainer.step(tiny.batch())
    # Those that the step's loss was computed with.
    np.testing.assert_allclose(scalars["geco/constraint"], constraint, 1e-4)
    np.testing.assert_allclose(scalars["geco/beta"], beta, 1e-5)
    gap = 1.0 * tiny.H * tiny.W * tiny.C - float(scalars["loss/nll"])
    if step == WARMUP_STEPS:
      constraint = gap
    elif step > WARMUP_STEPS:
      constraint = 0.5 * constraint + 0.5 * gap
      rate = 1e-3 * (4.0 if constraint > 0 else 1.0)
      changed += beta != (beta := max(BETA, beta - rate * constraint))
    np.testing.assert_allclose(geco.constraint, constraint, rtol=1e-4)
    np.testing.assert_allclose(geco.beta, beta, rtol=1e-5)
  assert changed  # The target is out of reach: the multiplier grows.


# --- Runs ---------------------------------------------------------------------

_WORDS = (
  *TINY,
  "seed=3",
  "geco.target=-1.5",
  "geco.step_size=0.001",
  "geco.warmup_steps=1",
  "curriculum=[[0, 2], [2, 1]]",
)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
  """A run of five steps."""
  folder = tmp_path_factory.mktemp("geco")
  run(*_WORDS, f"data_dir={data_dir}", f"checkpoint_dir={folder}/run")
  return folder / "run_1"


def test_a_continued_run_goes_on_exactly(finished, data_dir, tmp_path, caplog):
  caplog.set_level("INFO")
  words = (*_WORDS, f"data_dir={data_dir}")
  run(*words, f"checkpoint_dir={tmp_path}/run", "stop_after_steps=3")
  assert re.findall("From step (.*) on: num_iters=(.)", caplog.text) == [
    ("0", "2"),
    ("2", "1"),
  ]
  folder = tmp_path / "run_1"
  run(*words, f"checkpoint_dir={folder}", "continue_run=True")
  expected, values = (
    checkpoint_files.read(str(x / "model.ckpt-5")) for x in (finished, folder)
  )
  assert expected.keys() == values.keys()
  assert expected["geco/beta"] > 0.55
  for name, value in expected.items():
    np.testing.assert_allclose(
      values[name], value, rtol=1e-5, atol=1e-7, err_msg=name
    )


def test_commands_use_the_model_of_a_run(finished, tmp_path, capsys):
  words = ("with", finished / "config.json", f"checkpoint_dir={finished}")
  run("evaluate", *words, "num_scenes=3", f"evaluation_dir={tmp_path}/scores")
  scores = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
  # As many steps as the configuration says, whatever the last stage.
  assert len(scores["per_step"]["mse"]) == 1 + 1
  error = fail(capsys, 2, "evaluate", *words, "geco.target=null")
  assert error.startswith(f"ConfigError: {finished}/model.ckpt-5: was trained")
  assert "set geco.target as in the config.json" in error
  run("export_tf1", *words, f"tf1_checkpoint={tmp_path}/model.ckpt")
  run(
    *("convert_checkpoint", "with", finished / "config.json"),
    f"from_checkpoint={tmp_path}/model.ckpt",
    f"checkpoint_dir={tmp_path}/converted",
  )
  saved, again = (
    checkpoint_files.read(checkpoint_files.find(str(folder)))
    for folder in (finished, tmp_path / "converted")
  )
  for name in ("geco/beta", "geco/constraint"):
    np.testing.assert_array_equal(saved[name], again[name])


def test_a_checkpoint_without_the_state_is_refused():
  values = tiny.values(tiny.initialized().variables)
  model = tiny.initialized(geco=_geco())
  with pytest.raises(
    ConfigError,
    match=r"old: was not trained with GECO; leave out geco.target=-1.0",
  ):
    checkpoint_files.check_constraint(values, "old", model)


@pytest.mark.parametrize(
  "words, error",
  [
    (
      ["slot_attention_tetrominoes", "geco.target=-1.2"],
      "geco.target=-1.2: a SlotAttentionAutoEncoder has no likelihood to "
      "constrain; leave out geco.target",
    ),
    (
      ["tetrominoes", "geco.targt=-1.2"],
      "geco.targt=-1.2: unknown key for iodine.geco.Geco. Did you mean "
      "'target'?",
    ),
    (
      ["tetrominoes", "geco.alpha=1.5"],
      "geco: alpha=1.5: expected a number in [0, 1)",
    ),
    (
      ["tetrominoes", "geco.target=high"],
      "geco: target='high': is text; expected a finite number",
    ),
    (["tetrominoes", "geco=-1.2"], "geco=-1.2: expected a mapping of entries"),
  ],
)
def test_mistakes_are_told_before_any_work(words, error, capsys):
  assert fail(capsys, 2, "with", *words).startswith(f"ConfigError: {error}")


def test_without_a_target_there_is_no_constraint():
  entries = resolution.resolve({"model": tiny.plan()})
  (model,) = resolution.build(entries, ("model",))
  assert model.geco is None
