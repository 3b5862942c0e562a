"""Tests of iodine.multi_object_datasets.segmentation_metrics."""

import numpy as np
import pytest
import tensorflow as tf

from iodine.multi_object_datasets import segmentation_metrics

ari = segmentation_metrics.adjusted_rand_index


def oracle(true_mask, pred_mask):
  """Counts pairs of points one by one, in float64, for one image."""
  counting = true_mask.sum(-1) > 0
  true, pred = true_mask.argmax(-1), pred_mask.argmax(-1)
  true, pred = true[counting], pred[counting]
  different = ~np.eye(len(true), dtype=bool)
  same_true = (true[:, None] == true)[different]
  same_pred = (pred[:, None] == pred)[different]
  both = (same_true & same_pred).mean()
  expected = same_true.mean() * same_pred.mean()
  return (both - expected) / (
    (same_true.mean() + same_pred.mean()) / 2 - expected
  )


def one_hot(ids, groups):
  return np.eye(groups, dtype=np.float32)[np.asarray(ids)]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("left_out", [0.0, 0.4])
def test_agrees_with_pair_counts(compiled, left_out):
  rng = np.random.default_rng(0)
  ids = rng.integers(0, 4, [3, 53])
  noisy = np.where(
    rng.random(ids.shape) < 0.3, rng.integers(0, 4, ids.shape), ids
  )
  true_mask = one_hot(ids, 4) * (rng.random([3, 53, 1]) >= left_out)
  pred_mask = one_hot(noisy, 5) * 0.5 + 0.4 * rng.random([3, 53, 5])
  expected = [oracle(t, p) for t, p in zip(true_mask, pred_mask, strict=True)]
  assert 0.2 < min(expected) < 0.8
  func = tf.function(ari) if compiled else ari
  # Counts are exact in float32 at this size; a few roundings remain.
  np.testing.assert_allclose(func(true_mask, pred_mask), expected, rtol=1e-5)


def test_unknown_batch_size():
  traced = tf.function(
    ari,
    input_signature=[tf.TensorSpec([None, 7, 2]), tf.TensorSpec([None, 7, 3])],
  )
  ids = [[0, 1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0, 1], [0, 1, 0, 1, 0, 1, 0]]
  for batch in (1, 3):
    score = traced(one_hot(ids[:batch], 2), one_hot(ids[:batch], 3))
    np.testing.assert_allclose(score, np.ones(batch), rtol=1e-6)


def test_permuted_groups_are_equal_clusterings():
  ids = np.array([[0, 0, 1, 1, 2, 2, 2]])
  np.testing.assert_allclose(
    ari(one_hot(ids, 3), one_hot((ids + 1) % 3, 3)), [1.0], rtol=1e-6
  )


def test_one_group_in_both_is_one():
  zeros = np.zeros([1, 6], int)
  np.testing.assert_array_equal(ari(one_hot(zeros, 2), one_hot(zeros, 3)), [1])


@pytest.mark.parametrize(
  "counting",
  [[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0]],
  ids=["no_point", "one_point", "one_group"],
)
def test_nan_where_undefined(counting):
  true_mask = one_hot(np.ones([1, 6], int), 2)
  true_mask *= np.array(counting)[None, :, None]
  pred_mask = one_hot([[0, 1, 1, 1, 1, 0]], 2)
  assert np.isnan(ari(true_mask, pred_mask))


@pytest.mark.parametrize(
  ("true_shape", "pred_shape", "message"),
  [
    ([7, 2], [1, 7, 3], "of shape"),
    ([1, 7, 2], [1, 8, 3], "as many predicted"),
    ([1, 3, 3], [1, 3, 4], "fewer groups than points"),
  ],
)
def test_rejects_shapes(true_shape, pred_shape, message):
  with pytest.raises(ValueError, match=message) as error:
    ari(tf.zeros(true_shape), tf.zeros(pred_shape))
  assert str(tuple(true_shape)) in str(error.value)
  assert str(tuple(pred_shape)) in str(error.value)


def test_rejects_unknown_number_of_points():
  traced = tf.function(
    ari,
    input_signature=[tf.TensorSpec([1, None, 2]), tf.TensorSpec([1, None, 3])],
  )
  with pytest.raises(ValueError, match="static numbers"):
    traced(tf.zeros([1, 7, 2]), tf.zeros([1, 7, 3]))
