"""Adjusted Rand index of segmentations."""

from __future__ import annotations

import tensorflow as tf

__all__ = ["adjusted_rand_index"]


def adjusted_rand_index(
  true_mask: tf.Tensor, pred_mask: tf.Tensor, name: str = "ari_score"
) -> tf.Tensor:
  """Computes the adjusted Rand index (ARI), the similarity of two clusterings.

  Points whose row of `true_mask` is all zeros are ignored; use this to exclude
  the background. Hubert and Arabie (1985), "Comparing partitions",
  doi:10.1007/BF01908075.

  The result is NaN (0 / 0) if fewer than two points count, or if the points
  that count form one true and one predicted group. But it is 1 if the argmax of
  each mask is the same at all points, including the ignored ones.

  Args:
    true_mask: [B, N, L] one-hot true groups, or zeros.
    pred_mask: [B, N, K] scores of the predicted groups; the argmax is used.
    name: name scope of the operations.

  Returns:
    [B] float32: 1 for equal clusterings, about 0 for independent ones.

  Raises:
    ValueError: if the masks are not of rank 3 with the same static N, or
      neither number of groups is below N.
  """
  with tf.name_scope(name):
    true_mask = tf.convert_to_tensor(true_mask)
    pred_mask = tf.convert_to_tensor(pred_mask)
    num_pred_groups = _check_shapes(true_mask, pred_mask)
    true_ids = tf.argmax(true_mask, -1)
    pred_ids = tf.argmax(pred_mask, -1)
    true_one_hot = tf.cast(true_mask, tf.float32)
    pred_one_hot = tf.one_hot(pred_ids, num_pred_groups)

    # counts[b, k, l]: points of predicted group k and true group l.
    counts = tf.einsum("bnk,bnl->bkl", pred_one_hot, true_one_hot)
    num_points = tf.reduce_sum(true_one_hot, axis=[1, 2])
    # Ordered pairs of points grouped together in both, in true, in predicted.
    both = tf.reduce_sum(_pairs(counts), axis=[1, 2])
    true_pairs = tf.reduce_sum(_pairs(tf.reduce_sum(counts, 1)), axis=1)
    pred_pairs = tf.reduce_sum(_pairs(tf.reduce_sum(counts, 2)), axis=1)

    expected = true_pairs * pred_pairs / _pairs(num_points)
    maximum = (true_pairs + pred_pairs) / 2
    index = (both - expected) / (maximum - expected)
    # A single group in both clusterings gives 0 / 0, but they agree.
    both_single = tf.logical_and(_all_equal(true_ids), _all_equal(pred_ids))
    return tf.where(both_single, tf.ones_like(index), index)


def _check_shapes(true_mask: tf.Tensor, pred_mask: tf.Tensor) -> int:
  """Returns the number of predicted groups."""
  shapes = f"true_mask {true_mask.shape}, pred_mask {pred_mask.shape}"
  if true_mask.shape.rank != 3 or pred_mask.shape.rank != 3:
    raise ValueError(
      "adjusted_rand_index takes masks of shape [batch, points, groups], "
      f"got {shapes}."
    )
  num_points, num_true_groups = true_mask.shape[1:]
  num_pred_groups = pred_mask.shape[2]
  if None in (num_points, num_true_groups, num_pred_groups):
    raise ValueError(
      "adjusted_rand_index needs static numbers of points and groups (only "
      f"the batch may be unknown), got {shapes}."
    )
  if not true_mask.shape[1:2].is_compatible_with(pred_mask.shape[1:2]):
    raise ValueError(
      "adjusted_rand_index needs as many predicted as true points, got "
      f"{shapes}."
    )
  if num_points <= num_true_groups and num_points <= num_pred_groups:
    raise ValueError(
      "adjusted_rand_index requires fewer groups than points in one of the "
      f"masks (one point per group is not handled), got {shapes}."
    )
  return num_pred_groups


def _pairs(count: tf.Tensor) -> tf.Tensor:
  return count * (count - 1)


def _all_equal(values: tf.Tensor) -> tf.Tensor:
  return tf.reduce_all(tf.equal(values, values[..., :1]), axis=-1)
