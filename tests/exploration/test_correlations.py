"""Tests for iodine.exploration.correlations."""

import numpy as np
import pytest
from scipy import stats

from iodine.exploration import Correlations, correlate

M, Z = 60, 4


@pytest.fixture
def codes():
  return np.random.default_rng(0).normal(size=[M, Z]).astype(np.float32)


def test_numbers_against_scipy(codes):
  y = codes @ [1.0, -0.5, 0.0, 0.1]
  found = correlate(codes, {"x": y, "minus": -y.astype(np.float32)})
  expected = [stats.pearsonr(codes[:, i], y).statistic for i in range(Z)]
  np.testing.assert_allclose(found.values[:, 0], expected, rtol=1e-5)
  np.testing.assert_allclose(found.values[:, 1], -found.values[:, 0], 1e-5)
  assert found.factors == ("x", "minus") and found.num_objects == M


def test_categories_by_their_share_of_the_variance(codes):
  kinds = np.arange(M) % 3 + 5
  codes[:, 0] = np.array([4.0, -1.0, 2.0])[kinds - 5]
  codes[:, 1] += 2.0 * (kinds == 6)
  found = correlate(codes, {"shape": kinds}).values[:, 0]
  assert found[0] == pytest.approx(1.0)
  # F of an analysis of variance has the same sums of squares.
  groups = [codes[kinds == k, 1].astype(np.float64) for k in (5, 6, 7)]
  f = stats.f_oneway(*groups).statistic
  share = 1 - (M - 1) / (2 * f + M - 3)
  assert found[1] == pytest.approx(np.sqrt(share), rel=1e-5)


def test_many_random_categories_explain_nothing():
  rng = np.random.default_rng(1)
  codes = rng.normal(size=[300, 50])
  shapes = rng.integers(19, size=300)
  found = correlate(codes, {"shape": shapes}).values
  assert np.mean(found**2) < 0.02  # 18 / 299 without the correction


def test_a_constant_goes_with_nothing(codes):
  codes[:, 1] = 2.0
  found = correlate(
    codes,
    {"x": codes[:, 0], "same": np.ones(M), "kind": np.zeros(M, int)},
  ).values
  np.testing.assert_allclose(found[:2], [[1, 0, 0], [0, 0, 0]], atol=1e-6)
  np.testing.assert_array_equal(found[2:, 1:], 0)


def test_a_latent_is_named_by_the_factor_it_follows_best():
  values = np.array([[0.2, -0.876, 0.5], [0.1, -0.29, 0.0]])
  found = Correlations(values, ("x", "y", "color"), 20)
  assert found.name(0) == "y \N{MINUS SIGN}0.88"
  assert found.name(1) == ""
