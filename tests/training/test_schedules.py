"""Learning rates, against NumPy and the records of published code."""

import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from iodine import training
from tests.parity import cases
from tests.support.places import PARITY, SHARED


def _rates(schedule, steps):
  return np.array([float(schedule(tf.constant(t, tf.int64))) for t in steps])


def test_by_default_a_rate_is_constant():
  schedule = training.Schedule(3e-4)
  np.testing.assert_array_equal(
    _rates(schedule, [0, 1, 10**6]), np.float32(3e-4)
  )


@pytest.mark.parametrize("warmup_steps", [8, 1.5])
@pytest.mark.parametrize("from_zero, offset", [(True, 0), (False, 1)])
def test_warm_up_is_linear_and_then_over(from_zero, offset, warmup_steps):
  schedule = training.Schedule(
    0.5, warmup_steps=warmup_steps, warmup_from_zero=from_zero
  )
  steps = np.arange(12)
  expected = 0.5 * np.minimum(1.0, (steps + offset) / warmup_steps)
  np.testing.assert_allclose(_rates(schedule, steps), expected, rtol=1e-6)


def test_exponential_decay_runs_during_the_warm_up():
  schedule = training.Schedule(
    4e-4, warmup_steps=10_000, decay_steps=100_000, decay_rate=0.5
  )
  steps = np.array([0, 1, 9_999, 10_000, 100_000, 500_000])
  expected = 4e-4 * np.minimum(1.0, steps / 1e4) * 0.5 ** (steps / 1e5)
  np.testing.assert_allclose(_rates(schedule, steps), expected, rtol=1e-6)
  # What Slot Attention's published schedule gives.
  given = [0.0, 4.0e-8, 3.7318e-4, 3.7321e-4, 2e-4, 1.25e-5]
  np.testing.assert_allclose(_rates(schedule, steps), given, rtol=2e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_cosine_decay_ends_at_a_share_of_the_rate(alpha):
  schedule = training.Schedule(
    2.0, warmup_steps=4, cosine_steps=20, cosine_alpha=alpha
  )
  steps = np.array([0, 2, 4, 10, 19, 20, 1000])
  wave = 0.5 * (1 + np.cos(np.pi * np.minimum(1.0, steps / 20)))
  expected = 2 * (alpha + (1 - alpha) * wave) * np.minimum(1.0, steps / 4)
  # float32 rounds the sum of 1 and a cosine near -1 by up to 6e-8.
  np.testing.assert_allclose(
    _rates(schedule, steps), expected, rtol=1e-6, atol=2e-7
  )
  np.testing.assert_array_equal(_rates(schedule, [20, 1000]), 2 * alpha)


def test_exponential_decay_of_tf1():
  schedule = training.ExponentialDecay(0.5, decay_steps=20, decay_rate=0.25)
  expected = [0.5, 0.25, 0.0625]
  np.testing.assert_allclose(_rates(schedule, [0, 10, 30]), expected, rtol=1e-6)


@pytest.mark.parametrize(
  "step, factor", [(0, 1.0), (1, 10**-1e-6), (250_000, 10**-0.25), (3e6, 1e-3)]
)
def test_the_optimizer_s_own_decay_is_that_of_the_paper(step, factor):
  optimizer = training.make_optimizer(2e-4)
  optimizer.initialize([])
  optimizer.step.assign(int(step))
  learn_rate = optimizer.learn_rate()
  assert learn_rate.dtype == tf.float32
  # float32 holds the exponent, 3 at most here, to 2e-7.
  np.testing.assert_allclose(learn_rate, 2e-4 * factor, rtol=1e-6)


@pytest.mark.parametrize(
  "arguments, message",
  [
    ({"learn_rate": 0.0}, "learn_rate=0.0: expected a number above 0"),
    ({"warmup_steps": -1}, "warmup_steps=-1: expected a number of at least 0"),
    ({"warmup_steps": True}, "warmup_steps=True: expected a number of at"),
    ({"warmup_steps": math.inf}, "warmup_steps=inf: expected a number of at"),
    ({"warmup_from_zero": 1}, "warmup_from_zero=1: expected True or False"),
    ({"decay_after_warmup": 1}, "decay_after_warmup=1: expected True or False"),
    ({"decay_steps": 0}, "decay_steps=0: expected a number above 0"),
    ({"decay_rate": math.nan}, "decay_rate=nan: expected a number above 0"),
    ({"cosine_steps": -3}, "cosine_steps=-3: expected a number above 0"),
    ({"cosine_alpha": 1.0}, "cosine_alpha=1.0: expected a number in [0, 1)"),
    (
      {"cosine_steps": 9, "decay_steps": 5},
      "cosine_steps=9: with decay_steps=5 there would be two decays; set "
      "decay_steps to None",
    ),
  ],
)
def test_errors(arguments, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    training.Schedule(**{"learn_rate": 1e-3, **arguments})


# --- Records of published code ------------------------------------------------


def _record(case):
  """Settings and recorded arrays of a case."""
  folder = SHARED / case
  if not folder.exists():
    pytest.skip(f"there is no ../shared/{case}")
  with open(folder / "config.json") as file:
    return json.load(file), np.load(folder / "expected.npz")


@pytest.mark.parametrize("case", ["tiny_autoencoder", "tiny_set_prediction"])
def test_rates_of_slot_attention(case):
  config, expected = _record(f"parity_slot_attention/{case}")
  schedule = training.Schedule(
    config["learning_rate"],
    warmup_steps=config["warmup_steps"],
    decay_steps=config["decay_steps"],
    decay_rate=config["decay_rate"],
  )
  rates = _rates(schedule, range(config["train_steps"]))
  assert rates[0] == 0.0
  np.testing.assert_allclose(rates, expected["learning_rates"], rtol=1e-6)


def test_rates_of_slot_attention_in_pytorch():
  config, expected = _record("parity_slot_attention/hhousen_tiny_autoencoder")
  total = config["total_steps"]
  schedule = training.Schedule(
    config["lr_main"],
    warmup_steps=config["warmup_steps_pct"] * total,
    decay_steps=config["decay_steps_pct"] * total,
    decay_rate=config["scheduler_gamma"],
  )
  rates = _rates(schedule, range(config["train_steps"]))
  np.testing.assert_allclose(rates, expected["learning_rates"], rtol=1e-6)


def test_rates_of_efficientmorl():
  expected = cases.read_arrays(
    PARITY / "efficientmorl_training" / "expected.npz"
  )
  schedule = training.Schedule(
    4e-4,
    warmup_steps=10_000,
    decay_steps=100_000,
    decay_rate=0.5,
    decay_after_warmup=True,
  )
  # The first step of a continued run has the base rate there.
  for name, first in (("", 0), ("resumed_", 1)):
    steps, values = (
      expected[f"lr/{name}{kind}"][first:] for kind in ("steps", "values")
    )
    np.testing.assert_allclose(_rates(schedule, steps), values, rtol=1e-6)


def test_rates_of_slate():
  config, expected = _record("parity_slate/tiny")
  optimizer = training.make_optimizer(
    config["lr_main"],
    decay_steps=None,
    warmup_steps=config["lr_warmup_steps"],
    warmup_from_zero=False,
    groups={"dvae": {"learn_rate": config["lr_dvae"], "warmup_steps": 0}},
  )
  names = ("slate/dvae/w", "slate/b")
  optimizer.initialize([tf.Variable([0.0], name=name) for name in names])
  for step in range(config["train_steps"]):
    optimizer.step.assign(step)
    rates = optimizer.group_learn_rates()
    np.testing.assert_allclose(
      rates["dvae"], expected["lr_dvae"][step], rtol=1e-6
    )
    np.testing.assert_allclose(
      optimizer.learn_rate(), expected["lr_main"][step], rtol=1e-6
    )
