"""Tests of the trainer."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from iodine import tf1_checkpoint, training
from iodine.scene_model import Loss, SceneModel
from iodine.training import replicas
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


class _Lookup(SceneModel):
  """An embedding, whose gradient is sparse, and a bias."""

  num_components, n_z = 2, 1

  def __init__(self):
    super().__init__(name="lookup")
    self.table = tf.Variable(np.ones([4, 2]), dtype=tf.float32, name="table")
    self.bias = tf.Variable([1.0], name="bias")

  def __call__(self, data, noise=None, seed=None, step=None):
    del noise, seed, step
    self.check_data(data)
    rows = tf.gather(self.table, [1, 1, 3])
    total = tf.reduce_sum(3.0 * rows) + 2.0 * tf.reduce_sum(self.bias)
    return Loss(total, {"loss/total": total})

  def infer(self, data, noise=None, seed=None):
    raise NotImplementedError

  def noise(self, rngs):
    raise NotImplementedError


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sparse_gradients_become_dense_before_clipping(accumulate):
  optimizer = training.make_optimizer(
    0.1,
    clip_norm=1.0,
    clip_norm_type="inf",
    groups={"bias": {"learn_rate": 0.2}},
  )
  devices = replicas.Distribution(accumulate)
  trainer = training.Trainer(_Lookup(), optimizer, 0, devices)
  scalars = trainer.step({"image": np.zeros([2, 1, 4, 4, 3], np.float32)})
  # Two of the three rows are the same one: its gradient is 2 * 3.
  norm = math.sqrt(2 * 6**2 + 2 * 3**2 + 2**2)
  assert float(scalars["debug/global_grad_norm"]) == pytest.approx(norm)
  assert float(scalars["debug/learn_rate"]) == pytest.approx(0.1)
  assert float(scalars["debug/learn_rate_bias"]) == pytest.approx(0.2)
  first = optimizer.slots[trainer.model.table.name]["m"] / (1 - 0.95)
  expected = np.array([[0, 0], [6, 6], [0, 0], [3, 3]]) / 6
  np.testing.assert_allclose(first, expected, rtol=1e-5)
  # The moments of all rows go on, and so do the rows.
  optimizer.slots[trainer.model.table.name]["m"].assign(tf.ones([4, 2]))
  trainer.step({"image": np.zeros([2, 1, 4, 4, 3], np.float32)})
  after = optimizer.slots[trainer.model.table.name]["m"]
  np.testing.assert_allclose(after, 0.95 + 0.05 * expected, rtol=1e-5)


class _CountingModel(tf.Module):
  """Counts how often a model's call is traced."""

  geco = None

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
