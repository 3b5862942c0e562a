"""Tests of iodine.training."""

import math
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from iodine import tf1_checkpoint, training
from tests.support import tiny

# A learning rate at which a few steps change the losses visibly.
_LEARN_RATE = 3e-3
# Fewer iterations than elsewhere, as every trainer compiles a step.
_NUM_ITERS = 1
_NOISE = tiny.noise(num_iters=_NUM_ITERS)


def _trainer(seed: int | None = 7, **overrides: Any) -> training.Trainer:
  """Makes a trainer; all of them start from the same variables."""
  model = tiny.initialized(num_iters=_NUM_ITERS, **overrides)
  return training.Trainer(model, training.make_optimizer(_LEARN_RATE), seed)


def _losses(trainer: training.Trainer, num_steps: int) -> list[float]:
  data = tiny.batch()
  return [float(trainer.step(data)["loss/total"]) for _ in range(num_steps)]


# --- Learning rate ------------------------------------------------------------


@pytest.mark.parametrize(
  "step, factor", [(0, 1.0), (1, 10**-1e-6), (250_000, 10**-0.25), (3e6, 1e-3)]
)
def test_learning_rate_decays_continuously(step, factor):
  optimizer = training.make_optimizer(2e-4)
  optimizer.initialize([])
  optimizer.step.assign(int(step))
  learn_rate = optimizer.learn_rate()
  assert learn_rate.dtype == tf.float32
  # float32 holds the exponent, 3 at most here, to 2e-7.
  np.testing.assert_allclose(learn_rate, 2e-4 * factor, rtol=1e-6)


def test_exponential_decay_takes_other_rates():
  schedule = training.ExponentialDecay(0.5, decay_steps=20, decay_rate=0.25)
  for step, expected in ((0, 0.5), (10, 0.25), (30, 0.0625)):
    rate = schedule(tf.constant(step, tf.int64))
    np.testing.assert_allclose(rate, expected, rtol=1e-6)


def test_make_optimizer_has_the_defaults_of_the_paper():
  a, b = training.make_optimizer(1e-3), training.Adam(1e-3, beta1=0.95)
  variables = [tf.Variable([1.0, -2.0], name=name) for name in "ab"]
  for optimizer, variable in zip((a, b), variables, strict=True):
    optimizer.initialize([variable])
    optimizer.apply([tf.constant([3e-8, 5.0])], [variable])
  np.testing.assert_array_equal(variables[0], variables[1])
  np.testing.assert_array_equal(a.beta1_power, np.square(np.float32(0.95)))
  np.testing.assert_array_equal(a.beta2_power, np.square(np.float32(0.999)))


# --- Adam ---------------------------------------------------------------------


class _NumpyAdam:
  """TF1's Adam in float64; the powers are exact."""

  def __init__(self, value, learn_rate, beta1, beta2, epsilon):
    self.value = np.asarray(value, np.float64)
    self.m, self.v = np.zeros_like(self.value), np.zeros_like(self.value)
    self._settings = learn_rate, beta1, beta2, epsilon

  def apply(self, gradient, t, global_step):
    """Step number t (from 1) since the moments started at zero."""
    learn_rate, beta1, beta2, epsilon = self._settings
    gradient = np.asarray(gradient, np.float64)
    self.m += (1 - beta1) * (gradient - self.m)
    self.v += (1 - beta2) * (gradient**2 - self.v)
    learn_rate *= 0.1 ** (global_step / 1e6)
    learn_rate *= math.sqrt(1 - beta2**t) / (1 - beta1**t)
    self.value -= learn_rate * self.m / (np.sqrt(self.v) + epsilon)


@pytest.mark.parametrize("first_step", [0, 1_000_000])
def test_adam_against_numpy(first_step):
  # From gradients far below epsilon, where its place matters, to large ones.
  scales = np.array([1e-11, 1e-9, 1e-8, 1e-7, 1e-4, 1.0, 1e4])
  settings = dict(beta1=0.95, beta2=0.999, epsilon=1e-8)
  rng = np.random.default_rng(0)
  start = rng.standard_normal(scales.shape).astype(np.float32)
  variable = tf.Variable(start, name="w")
  optimizer = training.make_optimizer(1e-3, **settings)
  optimizer.initialize([variable])
  optimizer.step.assign(first_step)
  oracle = _NumpyAdam(start, 1e-3, **settings)
  step = tf.function(
    lambda gradient: optimizer.apply([gradient], [variable]), autograph=False
  )
  num_steps = 2200
  for t in range(1, num_steps + 1):
    # A drift, or the sum of steps would be mostly rounding errors.
    gradient = scales * (rng.standard_normal(scales.shape) + 0.5)
    gradient = gradient.astype(np.float32)
    step(tf.constant(gradient))
    oracle.apply(gradient, t, first_step + t - 1)
    if t in (1, 2, 10, num_steps):
      change = variable.numpy().astype(np.float64) - start
      # Each of the t sums rounds the variable, of about 1, by up to 6e-8.
      np.testing.assert_allclose(
        change, oracle.value - start, rtol=1e-4, atol=6e-8 * t**0.5
      )
  slot = optimizer.slots[variable.name]
  np.testing.assert_allclose(slot["m"], oracle.m, rtol=1e-4)
  np.testing.assert_allclose(slot["v"], oracle.v, rtol=1e-4)
  assert int(optimizer.step) == first_step + num_steps


def test_epsilon_is_outside_of_the_bias_correction():
  # TF1's form: the first step is lr * g / (|g| + epsilon / sqrt(1 - beta2)),
  # 31 times less than that of Kingma and Ba for a gradient far below epsilon.
  optimizer = training.Adam(1.0, beta1=0.95, beta2=0.999, epsilon=1e-8)
  variable = tf.Variable([0.0], name="w")
  optimizer.initialize([variable])
  optimizer.apply([tf.constant([1e-12])], [variable])
  expected = -1e-12 / (1e-12 + 1e-8 / math.sqrt(1e-3))
  np.testing.assert_allclose(variable, [expected], rtol=1e-4)


def test_powers_are_iterated_float32_products():
  optimizer = training.make_optimizer(1e-3)
  variable = tf.Variable([0.5], name="w")
  optimizer.initialize([variable])
  gradient = tf.constant([1.0])
  step = tf.function(
    lambda: optimizer.apply([gradient], [variable]), autograph=False
  )
  beta1, beta2 = np.float32(0.95), np.float32(0.999)
  power1, power2 = beta1, beta2
  smallest = np.finfo(np.float32).tiny
  for _ in range(2200):
    np.testing.assert_array_equal(optimizer.beta2_power, power2)
    if power1 >= smallest:
      np.testing.assert_array_equal(optimizer.beta1_power, power1)
    step()
    power1, power2 = power1 * beta1, power2 * beta2
  # beta1_power has underflowed, and steps still are of the learning rate.
  assert 0 <= float(optimizer.beta1_power) < smallest
  before = variable.numpy()
  step()
  correction = math.sqrt(1 - float(power2))
  change = (variable - before) / (float(optimizer.learn_rate()) * correction)
  root = math.sqrt(1 - 0.999**2201)
  np.testing.assert_allclose(change, [-1.0 / root], rtol=1e-2)


def test_missing_gradient_leaves_a_variable_alone():
  optimizer = training.Adam(0.1)
  variables = [tf.Variable([1.0, 2.0], name=name) for name in ("a", "b")]
  optimizer.initialize(variables)
  ones = tf.ones([2])
  optimizer.apply([ones, ones], variables)
  before = tiny.values([variables[0], *optimizer.slots["a:0"].values()])
  other = variables[1].numpy()
  optimizer.apply([None, ones], variables)
  after = tiny.values([variables[0], *optimizer.slots["a:0"].values()])
  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value)
  assert np.all(variables[1] != other)
  assert int(optimizer.step) == 2


def test_initialize_keeps_moments_and_reset_clears_them():
  optimizer = training.Adam(0.1)
  variable = tf.Variable([1.0], name="w")
  optimizer.initialize([variable])
  optimizer.apply([tf.constant([2.0])], [variable])
  optimizer.initialize([variable])
  slot = optimizer.slots["w:0"]
  np.testing.assert_allclose(slot["m"], [0.2], rtol=1e-6)
  optimizer.reset()
  assert float(slot["m"][0]) == float(slot["v"][0]) == 0.0
  assert float(optimizer.beta1_power) == np.float32(0.9)
  assert float(optimizer.beta2_power) == np.float32(0.999)
  assert int(optimizer.step) == 1


@pytest.mark.parametrize(
  "arguments, message",
  [
    ({"learn_rate": 0}, "learn_rate=0: expected a number above 0"),
    ({"learn_rate": -1e-3}, "learn_rate=-0.001: expected a number above 0"),
    ({"learn_rate": float("nan")}, "learn_rate=nan: expected a number above 0"),
    ({"learn_rate": float("inf")}, "learn_rate=inf: expected a number above 0"),
    (
      {"learn_rate": "1e-3"},
      "learn_rate='1e-3': is text; expected a number above 0",
    ),
    ({"learn_rate": True}, "learn_rate=True: expected a number above 0"),
    ({"beta1": 1.0}, "beta1=1.0: expected a number in [0, 1)"),
    ({"beta1": -0.1}, "beta1=-0.1: expected a number in [0, 1)"),
    ({"beta2": float("nan")}, "beta2=nan: expected a number in [0, 1)"),
    ({"beta2": "0.9"}, "beta2='0.9': is text; expected a number in [0, 1)"),
    ({"epsilon": 0.0}, "epsilon=0.0: expected a number above 0"),
    ({"decay_steps": 0}, "decay_steps=0: expected a number above 0"),
    ({"decay_rate": -0.1}, "decay_rate=-0.1: expected a number above 0"),
  ],
)
def test_make_optimizer_errors(arguments, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    training.make_optimizer(**{"learn_rate": 1e-3, **arguments})


# --- Trainer ------------------------------------------------------------------


@pytest.mark.parametrize(
  "loss_weight, is_clipped", [(1.0, True), (1e-7, False)]
)
def test_step_clips_gradients_to_a_global_norm_of_5(loss_weight, is_clipped):
  trainer = _trainer(iter_loss_weight=loss_weight, factor_evaluator=None)
  model = trainer.model
  with tf.GradientTape() as tape:
    loss, expected, _ = model(tiny.batch(), noise=_NOISE)
  variables = model.trainable_variables
  gradients = tape.gradient(loss, variables)
  norm = math.sqrt(sum(np.sum(np.square(g)) for g in gradients))
  assert norm > 50 if is_clipped else norm < 0.5

  scalars = dict(trainer.step(tiny.batch(), noise=_NOISE))
  global_norm = scalars.pop("debug/global_grad_norm")
  assert float(global_norm) == pytest.approx(norm, rel=1e-4)
  # The other scalars are those of the model from before the step.
  assert set(scalars) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(value, scalars[name], rtol=1e-4, atol=1e-6)

  factor = 5 / norm if is_clipped else 1.0
  for variable, gradient in zip(variables, gradients, strict=True):
    slot = trainer.optimizer.slots[variable.name]
    clipped = slot["m"] / (1 - 0.95)  # After one step.
    largest = factor * np.max(np.abs(gradient))
    np.testing.assert_allclose(
      clipped, factor * gradient, rtol=0, atol=1e-3 * largest
    )


class _CountingModel(tf.Module):
  """Counts how often a model's call is traced."""

  def __init__(self, model):
    super().__init__()
    self.model = model
    self.num_traces = 0

  def initialize(self, *sizes):
    self.model.initialize(*sizes)

  def __call__(self, data, **options):
    self.num_traces += 1
    return self.model(data, **options)


def test_first_step_creates_all_variables_and_is_the_only_one_traced():
  model = _CountingModel(tiny.build(num_iters=_NUM_ITERS))
  trainer = training.Trainer(model, training.make_optimizer(_LEARN_RATE))
  data = tiny.batch()
  flipped = tf.nest.map_structure(lambda x: x[::-1], data)
  losses = [float(trainer.step(d)["loss/total"]) for d in (data, flipped, data)]
  assert model.num_traces == 1
  assert np.all(np.isfinite(losses)) and len(set(losses)) == 3

  names = {variable.name for variable in model.trainable_variables}
  assert set(trainer.optimizer.slots) == names
  other = _trainer()
  other.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  assert sorted(v.name for v in other.variables) == sorted(
    v.name for v in trainer.variables
  )


class _Run:
  """Steps of a trainer: variables before, losses."""

  def __init__(self, num_steps: int):
    self.trainer = _trainer()
    self.before = tiny.values(self.trainer.model.variables)
    self.losses = _losses(self.trainer, num_steps)


@pytest.fixture(scope="module")
def uninterrupted():
  return _Run(num_steps=4)


@pytest.fixture(scope="module")
def interrupted():
  return _Run(num_steps=2)


def test_steps_train_and_update_the_moments(uninterrupted):
  after = tiny.values(uninterrupted.trainer.model.variables)
  for name, value in uninterrupted.before.items():
    assert np.any(after[name] != value), name
  total = after["factor_evaluator/repres_content/position_mean_var/total:0"]
  visible = np.sum(tiny.batch()["visibility"])
  np.testing.assert_allclose(total, [4 * visible] * 2)


def test_same_seed_gives_the_same_losses(uninterrupted, interrupted):
  # Threads may sum in another order.
  np.testing.assert_allclose(
    interrupted.losses, uninterrupted.losses[:2], rtol=1e-5
  )


def test_noise_depends_on_seed_and_step():
  trainer = _trainer(seed=7)
  trainer.optimizer.initialize([])
  start = tiny.values(trainer.model.variables)

  def loss(seed, step):
    for variable in trainer.model.variables:
      variable.assign(start[variable.name])
    trainer.seed.assign(seed)
    trainer.optimizer.step.assign(step)
    return _losses(trainer, 1)[0]

  first = loss(7, 0)
  for seed, step in ((7, 1), (8, 0), (0, 7)):
    assert abs(loss(seed, step) - first) > 1e-3 * first
  assert loss(7, 0) == pytest.approx(first, rel=1e-5)


def test_no_seed_is_a_random_one():
  model = tiny.build()
  optimizer = training.make_optimizer(_LEARN_RATE)
  seeds = [int(training.Trainer(model, optimizer).seed) for _ in range(3)]
  assert len(set(seeds)) == 3
  assert all(0 <= seed < 2**31 for seed in seeds)
  assert int(training.Trainer(model, optimizer, seed=5).seed) == 5


@pytest.mark.parametrize("form", ["tf2", "tf1"])
def test_continued_run_equals_an_uninterrupted_one(
  uninterrupted, interrupted, tmp_path, form
):
  path = str(tmp_path / "model.ckpt")
  first = interrupted.trainer
  # A TF1 checkpoint does not hold the seed.
  second = _trainer(seed=7 if form == "tf1" else 1)
  for variable in second.model.trainable_variables:
    variable.assign(tf.zeros_like(variable))  # All has to come from the file.
  if form == "tf2":
    tf.train.Checkpoint(trainer=first).write(path)
    second.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
    status = tf.train.Checkpoint(trainer=second).read(path)
    status.assert_consumed()
  else:
    tf1_checkpoint.save(path, first.model, first.optimizer)
    tf1_checkpoint.restore(path, second.model, second.optimizer)
  losses = interrupted.losses + _losses(second, 2)
  np.testing.assert_allclose(losses, uninterrupted.losses, rtol=1e-5)
  assert int(second.optimizer.step) == 4
  expected = tiny.values(uninterrupted.trainer.model.variables)
  for name, value in tiny.values(second.model.variables).items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-5)
