"""Clipping, groups, Adam and RMSprop, against NumPy."""

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from iodine import training
from iodine.errors import ConfigError
from tests.support import tiny, tiny_runs

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


def test_make_optimizer_has_the_defaults_of_the_paper():
  a, b = training.make_optimizer(1e-3), training.Adam(1e-3, beta1=0.95)
  variables = [tf.Variable([1.0, -2.0], name=name) for name in "ab"]
  for optimizer, variable in zip((a, b), variables, strict=True):
    optimizer.initialize([variable])
    optimizer.apply([tf.constant([3e-8, 5.0])], [variable])
  np.testing.assert_array_equal(variables[0], variables[1])
  np.testing.assert_array_equal(a.beta1_power, np.square(np.float32(0.95)))
  np.testing.assert_array_equal(a.beta2_power, np.square(np.float32(0.999)))


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


# --- The place of epsilon -----------------------------------------------------


@pytest.mark.parametrize("form", ["tensorflow", "pytorch"])
def test_forms_of_epsilon_against_numpy(form):
  beta1, beta2, epsilon, rate = 0.9, 0.99, 1e-3, 0.1
  optimizer = training.Adam(
    rate, beta1, beta2, epsilon, epsilon_form=form, clip_norm=None
  )
  start = np.array([1.0, -2.0, 0.5])
  variable = tf.Variable(start, dtype=tf.float32, name="w")
  optimizer.initialize([variable])
  m, v, value = np.zeros(3), np.zeros(3), start
  gradient = np.array([1e-4, 2e-3, 3.0])  # about epsilon, and far above it
  for t in range(1, 6):
    optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    if form == "pytorch":
      root = np.sqrt(v / (1 - beta2**t)) + epsilon
      value = value - rate * m / (1 - beta1**t) / root
    else:
      scaled = rate * math.sqrt(1 - beta2**t) / (1 - beta1**t)
      value = value - scaled * m / (np.sqrt(v) + epsilon)
  # float32 rounds 1 - beta2^t to 6e-6 and the variables to 1e-7 a step.
  np.testing.assert_allclose(variable - start, value - start, 1e-4, 5e-7)


# --- RMSprop ------------------------------------------------------------------


def test_rmsprop_against_numpy():
  decay, epsilon, rate = 0.9, 1e-3, 0.1
  optimizer = training.RMSprop(
    training.Schedule(rate, warmup_steps=2, warmup_from_zero=False),
    decay,
    epsilon,
    clip_norm=None,
  )
  start = np.array([1.0, -2.0, 0.5])
  variable = tf.Variable(start, dtype=tf.float32, name="w")
  optimizer.initialize([variable])
  v, value = np.zeros(3), start
  gradient = np.array([1e-4, -2e-3, 3.0])  # about epsilon, and far above it
  for t in range(1, 6):
    optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    v = decay * v + (1 - decay) * gradient**2
    value = value - rate * min(t / 2, 1) * gradient / (np.sqrt(v) + epsilon)
  np.testing.assert_allclose(variable - start, value - start, 1e-5, 5e-7)
  np.testing.assert_allclose(optimizer.slots["w:0"]["v"], v, rtol=1e-5)
  assert int(optimizer.step) == 5


def test_state_of_rmsprop():
  optimizer = training.RMSprop(0.1)
  variables = _variables("a/w", "b/w")
  optimizer.initialize(variables)
  optimizer.apply([tf.ones([1]), None], variables)
  names = {v.name for v in optimizer.variables}
  assert names == {"a/w/RMSProp:0", "b/w/RMSProp:0", "global_step:0"}
  assert float(optimizer.slots["a/w:0"]["v"][0]) == pytest.approx(0.01)
  assert float(optimizer.slots["b/w:0"]["v"][0]) == 0.0
  optimizer.reset()
  assert float(optimizer.slots["a/w:0"]["v"][0]) == 0.0
  assert int(optimizer.step) == 1


@pytest.mark.parametrize(
  "arguments, message",
  [
    ({"decay": 1.0}, "decay=1.0: expected a number in [0, 1)"),
    ({"epsilon": 0.0}, "epsilon=0.0: expected a number above 0"),
    ({"learn_rate": 0}, "learn_rate=0: expected a number above 0"),
    ({"clip_norm": 0}, "clip_norm=0: expected a number above 0"),
  ],
)
def test_rmsprop_errors(arguments, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    training.RMSprop(**arguments)


# --- Clipping -----------------------------------------------------------------

_GRADIENTS = (np.array([[3.0, -8.0]], np.float32), np.array([4.0], np.float32))


def _clipped(**settings):
  """The factor that clips the gradients, one of which is missing."""
  gradients = [tf.constant(g) for g in _GRADIENTS]
  optimizer = training.Adam(**settings)
  norm = tf.linalg.global_norm(gradients)
  first, missing, second = optimizer.clip(
    [gradients[0], None, gradients[1]], norm
  )
  assert missing is None
  factor = float(second[0]) / 4
  np.testing.assert_allclose(first, factor * _GRADIENTS[0], rtol=1e-6)
  return factor


@pytest.mark.parametrize(
  "settings, norm",
  [
    ({"clip_norm_type": 2}, math.sqrt(89)),
    ({"clip_norm_type": 2, "clip_epsilon": 0.5}, math.sqrt(89) + 0.5),
    ({"clip_norm_type": "inf"}, 8),
    ({"clip_norm_type": "inf", "clip_epsilon": 0.5}, 8.5),
  ],
)
def test_clipping_scales_all_gradients_by_one_factor(settings, norm):
  factor = _clipped(clip_norm=2.0, **settings)
  np.testing.assert_allclose(factor, 2 / norm, rtol=1e-6)
  assert _clipped(clip_norm=10.0, **settings) == 1.0
  # At the norm that is allowed, epsilon alone decides.
  epsilon = settings.get("clip_epsilon", 0.0)
  allowed = norm - epsilon
  factor = _clipped(clip_norm=allowed, **settings)
  np.testing.assert_allclose(factor, allowed / norm, rtol=1e-6)


def test_no_clipping():
  assert _clipped(clip_norm=None, clip_norm_type="inf") == 1.0


def test_gradients_of_zero_stay_zero():
  for norm_type in (2, "inf"):
    optimizer = training.Adam(clip_norm=1.0, clip_norm_type=norm_type)
    (clipped,) = optimizer.clip([tf.zeros([3])], tf.constant(0.0))
    np.testing.assert_array_equal(clipped, np.zeros(3))


# --- Groups -------------------------------------------------------------------


def _variables(*names):
  return [tf.Variable([1.0], name=name) for name in names]


def test_groups_have_rates_of_their_own():
  optimizer = training.make_optimizer(
    0.1,
    decay_steps=None,
    warmup_steps=4,
    warmup_from_zero=False,
    groups={
      "dvae": {"learn_rate": 0.3, "warmup_steps": 0},
      "last": {"match": "^head/.*/w$", "warmup_from_zero": True},
    },
  )
  variables = _variables("slate/dvae/w", "slate/w", "head/a/w", "a/head/a/w")
  optimizer.initialize(variables)
  for step in range(3):
    before = [float(v[0]) for v in variables]
    rates = {"": optimizer.learn_rate(), **optimizer.group_learn_rates()}
    main = 0.1 * (step + 1) / 4
    expected = {"": main, "dvae": 0.3, "last": 0.1 * step / 4}
    for name, rate in expected.items():
      np.testing.assert_allclose(rates[name], rate, rtol=1e-6)
    optimizer.apply([tf.ones([1])] * 4, variables)
    # With a constant gradient, Adam's step is the rate.
    moves = [b - float(v[0]) for b, v in zip(before, variables, strict=True)]
    np.testing.assert_allclose(
      moves, [0.3, main, expected["last"], main], rtol=1e-4, atol=1e-7
    )


def test_groups_leave_the_state_s_names_alone():
  plain = training.make_optimizer(0.1)
  grouped = training.make_optimizer(0.1, groups={"a": {"learn_rate": 1.0}})
  names = []
  for optimizer in (plain, grouped):
    optimizer.initialize(_variables("a/w", "b/w"))
    names.append(sorted(v.name for v in optimizer.variables))
  assert names[0] == names[1]
  assert "a/w/Adam_1:0" in names[0] and "global_step:0" in names[0]


def test_a_group_without_variables_is_an_error():
  optimizer = training.make_optimizer(0.1, groups={"dvea": {}})
  message = (
    "optimizer.groups.dvea: match='dvea' is in no name of a variable; names "
    "begin with b, dvae"
  )
  with pytest.raises(ConfigError, match=message):
    optimizer.initialize(_variables("dvae/w", "dvae/v", "b/w"))


def test_a_wrong_group_ends_a_run_before_it_begins(capsys, tmp_path):
  data = tiny_runs.write_scenes(tmp_path / "scenes.tfrecords", 13)
  error = tiny_runs.fail(
    capsys,
    2,
    *tiny_runs.TINY,
    f"data.path={data}",
    f"checkpoint_dir={tmp_path}/run",
    "optimizer.groups.dvae.learn_rate=0.1",
  )
  assert error.startswith(
    "ConfigError: optimizer.groups.dvae: match='dvae' is in no name"
  )
  assert [path.name for path in tmp_path.iterdir()] == [data.name]


def test_a_variable_of_two_groups_is_an_error():
  optimizer = training.make_optimizer(0.1, groups={"a": {}, "w": {}})
  with pytest.raises(ConfigError, match="a/w:0 is in both a and w"):
    optimizer.initialize(_variables("a/w"))


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
    ({"groups": ["dvae"]}, "groups=['dvae']: expected a mapping of groups"),
    ({"groups": {"dvae": 3e-4}}, "groups.dvae=0.0003: expected a mapping"),
    (
      {"groups": {"dvae": {"learning_rate": 1}}},
      "groups.dvae.learning_rate=1: unknown key. Did you mean 'learn_rate'? "
      "Valid keys: cosine_alpha, cosine_steps, decay_after_warmup, decay_rate, "
      "decay_steps, learn_rate, match, warmup_from_zero, warmup_steps",
    ),
    (
      {"groups": {"dvae": {"learn_rate": -1}}},
      "groups.dvae: learn_rate=-1: expected a number above 0",
    ),
    (
      {"groups": {"dvae": {"match": "("}}},
      "groups.dvae.match='(': expected a regular expression",
    ),
    ({"groups": {"dvae": {"match": 3}}}, "groups.dvae.match=3: expected a reg"),
    ({"clip_norm": 0}, "clip_norm=0: expected a number above 0"),
    (
      {"clip_norm_type": 1},
      "clip_norm_type=1: no such value. Valid values: 2, inf",
    ),
    ({"clip_epsilon": -1.0}, "clip_epsilon=-1.0: expected a number in [0, 1)"),
    (
      {"epsilon_form": "keras"},
      "epsilon_form='keras': no such value. Valid values: pytorch, tensorflow",
    ),
    (
      {"warmup_steps": -1},
      "warmup_steps=-1: expected a number of at least 0",
    ),
    ({"cosine_steps": 5}, "cosine_steps=5: with decay_steps=1000000 there"),
  ],
)
def test_make_optimizer_errors(arguments, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    training.make_optimizer(**{"learn_rate": 1e-3, **arguments})
