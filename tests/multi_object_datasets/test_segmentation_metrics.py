"""Tests of iodine.multi_object_datasets.segmentation_metrics."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sklearn_metrics

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


def segmentations(rng, scenes, points, groups, slots):
  """Random true ids, which of them count, and predicted ids: [scenes, points].

  Scenes take turns in what is special about them.
  """
  true = rng.integers(groups, size=[scenes, points])
  # Objects of any number: some groups are empty.
  true %= rng.integers(1, groups + 1, [scenes, 1])
  counting = np.ones([scenes, points], bool)
  copied = rng.random([scenes, points]) < rng.random([scenes, 1])
  pred = np.where(copied, true, rng.integers(slots, size=[scenes, points]))
  kind = np.arange(scenes) % 8
  pred[kind == 1] = 2  # one predicted cluster
  true[kind == 2] = 3  # one true cluster
  counting[kind >= 3] = rng.random(counting[kind >= 3].shape) < 0.6
  counting[kind == 4] = False  # an empty foreground
  counting[kind == 5] = np.arange(points) == 7  # a single point
  true[kind == 6], pred[kind == 6] = 1, 4
  counting[kind == 6, 0] = False
  true[kind == 7] = rng.permutation(slots)[pred[kind == 7]] % groups
  return true, counting, pred


def test_agrees_with_scikit_learn():
  scenes, points, groups, slots = 1000, 61, 5, 9
  rng = np.random.default_rng(1)
  true, counting, pred = segmentations(rng, scenes, points, groups, slots)
  true_mask = one_hot(true, groups) * counting[..., None]
  pred_mask = one_hot(pred, slots) + 0.9 * rng.random([scenes, points, slots])
  pred = pred_mask.argmax(-1)
  actual = ari(true_mask, pred_mask).numpy()
  expected = np.array(
    [
      sklearn_metrics.adjusted_rand_score(t[c], p[c])
      for t, c, p in zip(true, counting, pred, strict=True)
    ]
  )
  # NaN by definition: fewer than two points count, or those that do are one
  # group in both, unless each mask's argmax is the same at all points.
  # scikit-learn has 1 for all of these.
  groups_of = lambda ids: np.array(
    [len(np.unique(i[c])) for i, c in zip(ids, counting, strict=True)]
  )
  trivial = (groups_of(true) <= 1) & (groups_of(pred) <= 1)
  trivial |= counting.sum(1) < 2
  same = lambda ids: (ids == ids[:, :1]).all(1)
  undefined = trivial & ~(same(true_mask.argmax(-1)) & same(pred))
  assert np.all(expected[trivial] == 1)
  np.testing.assert_array_equal(np.isnan(actual), undefined)
  assert 200 < undefined.sum() < 500
  assert np.ptp(expected[~undefined]) > 1
  # Counts of pairs are exact in float32 here; the quotient is not.
  np.testing.assert_allclose(
    actual[~undefined], expected[~undefined], atol=1e-5
  )


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
