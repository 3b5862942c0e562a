"""Tests of iodine.metrics, against counts in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sklearn_metrics

from iodine import metrics

B, L, K, H, W, C = 5, 6, 4, 9, 7, 3


def _true_masks(rng, entities=L, least=1):
  """[B, L, H, W, 1]; later scenes lack their last entities but the least."""
  ids = np.stack(
    [rng.integers(max(least, entities - i), size=[H, W]) for i in range(B)]
  )
  one_hot = ids[:, None] == np.arange(entities).reshape(1, -1, 1, 1)
  return one_hot[..., None].astype(np.float32), ids


def _pred_masks(rng, ids):
  """[B, K, H, W, 1] probabilities that follow the true ids in part."""
  scores = rng.random([B, K, H, W])
  scores += 0.7 * (ids[:, None] % K == np.arange(K).reshape(1, -1, 1, 1))
  scores /= scores.sum(1, keepdims=True)
  return scores[..., None].astype(np.float32)


def _covering(true_mask, pred_mask, background):
  """One scene, object by object."""
  segments = pred_mask[..., 0].argmax(0)
  best = []
  for mask in true_mask[background:, ..., 0] > 0:
    if not mask.any():
      continue
    ious = [
      (mask & (segments == k)).sum() / (mask | (segments == k)).sum()
      for k in range(len(pred_mask))
      if (mask | (segments == k)).any()
    ]
    best.append(max(ious))
  return np.mean(best) if best else np.nan


@pytest.mark.parametrize("background", [1, 2, 4])
def test_covering_agrees_with_numpy(run, background):
  rng = np.random.default_rng(background)
  true_mask, ids = _true_masks(rng)
  pred_mask = _pred_masks(rng, ids)
  expected = [
    _covering(t, p, background)
    for t, p in zip(true_mask, pred_mask, strict=True)
  ]
  assert np.isnan(expected).any() == (background > 1)
  covering = run(
    lambda *masks: metrics.mean_segmentation_covering(*masks, background)
  )
  # Counts are exact in float32; a division and a mean of a few remain.
  np.testing.assert_allclose(covering(true_mask, pred_mask), expected, 1e-6)


def test_covering_counts_objects_of_any_size_alike():
  ids = np.zeros([1, H, W], int)
  ids[:, :4] = 1
  ids[:, 8, 6] = 2
  true_mask = (ids[:, None] == np.arange(3).reshape(1, -1, 1, 1))[..., None]
  true_mask = true_mask.astype(np.float32)
  # The large object is found, of the single pixel nothing but a big segment.
  pred_mask = np.stack([true_mask[:, 1], 1 - true_mask[:, 1]], axis=1)
  score = metrics.mean_segmentation_covering(true_mask, pred_mask, 1)
  rest = H * W - 4 * W
  np.testing.assert_allclose(score, [(1 + 1 / rest) / 2], rtol=1e-6)


def test_covering_of_a_perfect_decomposition_is_one():
  true_mask, _ = _true_masks(np.random.default_rng(0))
  score = metrics.mean_segmentation_covering(true_mask, true_mask, 1)
  np.testing.assert_allclose(score, np.ones(B), rtol=1e-6)


@pytest.mark.parametrize("background", [1, 2])
def test_rand_indices_agree_with_scikit_learn(run, background):
  rng = np.random.default_rng(1)
  true_mask, ids = _true_masks(rng, entities=7, least=4)
  pred_mask = _pred_masks(rng, ids)
  indices = run(
    lambda *masks: metrics.adjusted_rand_indices(*masks, background)
  )(true_mask, pred_mask)
  assert set(indices) == {"ari", "ari_nobg"}
  segments = pred_mask[..., 0].argmax(1)
  for i in range(B):
    objects = ids[i] >= background
    expected = {
      "ari": sklearn_metrics.adjusted_rand_score(
        ids[i].ravel(), segments[i].ravel()
      ),
      "ari_nobg": sklearn_metrics.adjusted_rand_score(
        ids[i][objects], segments[i][objects]
      ),
    }
    assert expected["ari"] != pytest.approx(expected["ari_nobg"], abs=1e-4)
    for name, value in expected.items():
      np.testing.assert_allclose(indices[name][i], value, atol=1e-5)


def test_mean_squared_error_is_per_image(run):
  rng = np.random.default_rng(2)
  image, recons = rng.random([2, B, H, W, C]).astype(np.float32)
  expected = ((image - recons).astype(np.float64) ** 2).mean((1, 2, 3))
  actual = run(metrics.mean_squared_error)(image, recons)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_frame():
  sequence = tf.reshape(tf.range(2 * 3 * 5), [2, 3, 5])
  for t in range(3):
    frame = metrics.frame(sequence, t)
    np.testing.assert_array_equal(frame, sequence[:, t : t + 1])
    still = metrics.frame(sequence[:, :1], t)
    np.testing.assert_array_equal(still, sequence[:, :1])


@pytest.mark.parametrize(
  ("scores", "expected"),
  [([0.5, np.nan, 1.0], 0.75), ([0.25], 0.25), ([np.nan, np.nan], np.nan)],
)
def test_mean_of_defined(scores, expected):
  mean = metrics.mean_of_defined(tf.constant(scores))
  np.testing.assert_equal(mean.numpy(), np.float32(expected))


def test_pixels_that_belong_to_nothing_do_not_count():
  owner = np.array([[0, 0, 1, 1, -1, -1]])
  true = np.float32(owner[:, None] == np.arange(2)[:, None])
  for last in (0, 1):  # what is predicted there
    segments = np.array([[0, 0, 1, 1, last, last]])
    predicted = np.float32(segments[:, None] == np.arange(2)[:, None])
    shape = (1, 2, 1, 6, 1)
    masks = (tf.reshape(true, shape), tf.reshape(predicted, shape))
    assert float(metrics.mean_segmentation_covering(*masks, 1)[0]) == 1
    assert float(metrics.adjusted_rand_indices(*masks, 1)["ari"][0]) == 1
