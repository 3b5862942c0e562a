"""Tests of GECO, against NumPy and the records of EfficientMORL's code."""

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from iodine.geco import Geco
from tests.parity import cases
from tests.support.places import PARITY

WARMUP_STEPS = 3
NUM_VALUES = 35 * 35 * 3

# The recorded code adds and subtracts c, of some 1e4 nats, to its average in
# float32, which rounds that by up to 1e-3.
_ROUNDING = 2e-3


def _state(geco):
  return [float(geco.constraint), float(geco.beta)]


@pytest.mark.parametrize("acceleration", [1, 5])
def test_state_and_value_are_those_of_the_published_code(acceleration):
  expected = cases.read_arrays(
    PARITY / "efficientmorl_training" / "expected.npz"
  )
  geco = Geco(-1.224, 1e-3, warmup_steps=0, acceleration=acceleration)
  geco.initialize()

  @tf.function
  def term_and_update(nll, step):
    term = geco.likelihood_term(nll, step)
    geco.update(nll, step, NUM_VALUES)
    return term

  rows = []
  for step, nll in enumerate(expected["geco/nll"]):
    term = term_and_update(tf.constant(nll), tf.constant(step, tf.int64))
    rows.append([-float(term), *_state(geco)])
  recorded = expected[f"geco/acceleration_{acceleration}"]
  np.testing.assert_allclose(rows, recorded, rtol=1e-5, atol=_ROUNDING)
  np.testing.assert_allclose(
    np.array(rows)[:, 2], recorded[:, 2], rtol=1e-5, atol=1e-6
  )


def test_nothing_changes_during_the_warm_up():
  geco = Geco(-1.5, 0.01, 0.75, WARMUP_STEPS, least_beta=0.25)
  states = []
  for step in range(WARMUP_STEPS + 2):
    geco.update(tf.constant(-2.0), step, num_values=4)
    states.append(_state(geco))
  np.testing.assert_allclose(
    states,
    [
      *[[0.0, 0.25]] * WARMUP_STEPS,
      [-4.0, 0.25],  # -1.5 * 4 + 2, and no step of beta
      [-4.0, 0.29],
    ],
    rtol=1e-6,
  )


@pytest.mark.parametrize(
  "step, constrained",
  [(0, False), (WARMUP_STEPS - 1, False), (WARMUP_STEPS, True), (None, True)],
)
def test_value_and_gradient_of_the_term(step, constrained):
  geco = Geco(-1.0, warmup_steps=WARMUP_STEPS)
  geco.initialize()
  geco.constraint.assign(7.5)
  geco.beta.assign(2.0)
  multiplier = math.log1p(math.exp(2.0))
  nll = tf.Variable(12_345.678)
  with tf.GradientTape() as tape:
    term = geco.likelihood_term(nll, step)
  gradients = tape.gradient(term, [nll, geco.beta, geco.constraint])
  assert gradients[1:] == [None, None]
  expected = (-7.5 * multiplier, multiplier) if constrained else (nll, 1.0)
  np.testing.assert_allclose([term, gradients[0]], expected, rtol=1e-6)


def test_names_of_the_state():
  geco = Geco(-1.0)
  with tf.name_scope("model/iodine"):
    geco.initialize()
  assert sorted(v.name for v in geco.variables) == [
    "geco/beta:0",
    "geco/constraint:0",
  ]
  assert not any(v.trainable for v in geco.variables)


@pytest.mark.parametrize(
  "arguments, message",
  [
    ({"target": None}, "target=None: expected a finite number"),
    ({"target": math.inf}, "target=inf: expected a finite number"),
    ({"target": "-1"}, "target='-1': is text; expected a finite number"),
    ({"step_size": 0.0}, "step_size=0.0: expected a number above 0"),
    ({"alpha": 1.0}, "alpha=1.0: expected a number in [0, 1)"),
    ({"warmup_steps": -1}, "warmup_steps=-1: expected an integer of at"),
    ({"acceleration": -1}, "acceleration=-1: expected a number above 0"),
    ({"least_beta": math.nan}, "least_beta=nan: expected a finite number"),
  ],
)
def test_errors(arguments, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    Geco(**{"target": -1.0, **arguments})
