"""Metrics that compare decompositions with images and true masks.

Dimensions: B batch, T frames, S steps, L true entities, K slots, H height,
W width, N points or objects, M predictions, D distances. docs/scores.md has
the formulas.
"""

import iodine.quiet_tensorflow

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from iodine.assignment import assign
from iodine.multi_object_datasets import segmentation_metrics

__all__ = [
  "adjusted_rand_indices",
  "average_precision",
  "frame",
  "is_score",
  "matched_segments",
  "mean_of_defined",
  "mean_squared_error",
  "measure",
  "segmentation_scores",
]


# Scores per scene: names and descriptions.
SCENE_SCORES = {
  "ari": "ARI",
  "ari_nobg": "ARI without background",
  "miou": "mIoU",
  "miou_nobg": "mIoU without background",
  "dice": "Dice",
  "dice_nobg": "Dice without background",
  "sc": "segmentation covering",
  "covering": "mean segmentation covering",
  "segment_count": "right number of segments",
  "mse": "MSE",
  "recons": "reconstruction loss (nats)",
  "kl": "KL (nats)",
  "elbo": "ELBO (nats)",
}


def is_score(name: str) -> bool:
  """Whether a training scalar is a score: the higher, the better.

  A score may be NaN, which in any other scalar ends the run: ARI and average
  precision are undefined for a batch without objects, R^2 for the first batch.
  What is no score is a loss, or a part of one: the lower, the better.
  """
  is_factor = name.startswith("factor/") and name != "factor/loss"
  is_precision = name.startswith("ap/")
  return is_factor or is_precision or name in ("loss/ari", "loss/ari_nobg")


def frame(sequence: tf.Tensor, t: int) -> tf.Tensor:
  """Frame t of [B, T, ...], or the last if there are fewer: [B, 1, ...]."""
  t = min(t, sequence.shape[1] - 1)
  return sequence[:, t : t + 1]


def measure(
  info: Mapping[str, Any], num_background_entities: int
) -> dict[str, tf.Tensor]:
  """Computes scores for every step of every scene.

  Args:
    info: result of `SceneModel.infer`.
    num_background_entities: how many true masks are background.

  Returns:
    {name: [B, S]}: mse if there is a reconstruction; those of
    `adjusted_rand_indices` and `segmentation_scores` if there are masks and
    true ones.
  """
  data, outputs = info["data"], info["outputs"]
  scores = {}
  if "recons" in outputs:
    scores["mse"] = _over_steps(
      mean_squared_error, data["image"], outputs["recons"][:, :, 0]
    )
  if "true_mask" in data and "pred_mask" in outputs:
    scores.update(
      _over_steps(
        lambda true_mask, pred_mask: {
          **adjusted_rand_indices(
            true_mask, pred_mask, num_background_entities
          ),
          **segmentation_scores(true_mask, pred_mask, num_background_entities),
        },
        data["true_mask"],
        outputs["pred_mask"],
      )
    )
  return scores


def _over_steps(
  score: Callable[[tf.Tensor, tf.Tensor], Any],
  true: tf.Tensor,
  predicted: tf.Tensor,
) -> Any:
  """Maps a score over steps: [B, T, ...], [B, S, ...] to nested [B, S]."""
  steps = [
    score(frame(true, t)[:, 0], predicted[:, t])
    for t in range(predicted.shape[1])
  ]
  return tf.nest.map_structure(lambda *x: tf.stack(x, axis=1), *steps)


def adjusted_rand_indices(
  true_mask: tf.Tensor, pred_mask: tf.Tensor, num_background_entities: int
) -> dict[str, tf.Tensor]:
  """Computes the ARI of a batch of segmentations.

  Args:
    true_mask: [B, L, H, W, 1] float32 in {0, 1}, background first.
    pred_mask: [B, K, H, W, 1] float32; the argmax is used.
    num_background_entities: how many true masks are background.

  Returns:
    {"ari": [B], "ari_nobg": [B]}: over all pixels, and over object pixels only.
    NaN as in `segmentation_metrics.adjusted_rand_index`.
  """
  true_points, pred_points = _points(true_mask), _points(pred_mask)
  objects = true_points[..., num_background_entities:]
  ari = segmentation_metrics.adjusted_rand_index
  return {
    "ari": ari(true_points, pred_points),
    "ari_nobg": ari(objects, pred_points),
  }


def _points(mask: tf.Tensor) -> tf.Tensor:
  """[B, N, H, W, 1] to [B, H * W, N]."""
  entities, height, width = mask.shape[1:4]
  points = tf.transpose(mask[..., 0], [0, 2, 3, 1])
  return tf.reshape(points, [-1, height * width, entities])


def mean_squared_error(image: tf.Tensor, recons: tf.Tensor) -> tf.Tensor:
  """Mean over pixels and channels, [B]; both [B, H, W, C] in [0, 1]."""
  return tf.reduce_mean(tf.square(image - recons), axis=[1, 2, 3])


def mean_of_defined(scores: tf.Tensor) -> tf.Tensor:
  """Mean of the scores [B] that are not NaN, a scalar; NaN if all are."""
  defined = tf.logical_not(tf.math.is_nan(scores))
  total = tf.reduce_sum(tf.where(defined, scores, tf.zeros_like(scores)))
  return total / tf.reduce_sum(tf.cast(defined, scores.dtype))


class _Overlaps(NamedTuple):
  """Numbers of pixels of true entities and predicted segments.

  Attributes:
    both: [B, L, K] float32.
    true: [B, L] float32.
    predicted: [B, K] float32.
  """

  both: tf.Tensor
  true: tf.Tensor
  predicted: tf.Tensor

  @property
  def total(self) -> tf.Tensor:
    """[B, L, K], pixels of either, counting those of both twice."""
    return self.true[:, :, tf.newaxis] + self.predicted[:, tf.newaxis]

  @property
  def iou(self) -> tf.Tensor:
    """[B, L, K], intersection over union; 0 where both are empty."""
    return tf.math.divide_no_nan(self.both, self.total - self.both)

  @property
  def dice(self) -> tf.Tensor:
    """[B, L, K], Dice coefficient; 0 where both are empty."""
    return tf.math.divide_no_nan(2.0 * self.both, self.total)


def segmentation_scores(
  true_mask: tf.Tensor, pred_mask: tf.Tensor, num_background_entities: int
) -> dict[str, tf.Tensor]:
  """Compares the masks of entities with segments of an image.

  Pixels that belong to no entity are ignored.

  Args:
    true_mask: [B, L, H, W, 1] float32 in {0, 1}, background first.
    pred_mask: [B, K, H, W, 1] float32; the argmax is a pixel's segment.
    num_background_entities: how many true masks are background.

  Returns:
    {name: [B] float32 in [0, 1]}:
    sc, covering: mean over objects of their best IoU with a segment, weighted
      by their sizes (Arbelaez et al. 2011, "Contour detection and hierarchical
      image segmentation") or not (Engelcke et al. 2020, "GENESIS");
    miou, dice: mean IoU and Dice coefficient of the pairs of entities and
      segments that have the highest sum of IoUs; miou_nobg, dice_nobg: without
      the background's (Karazija et al. 2021, "ClevrTex");
    segment_count: 1 if there are as many segments as entities, else 0.
    NaN where there is nothing to compare.
  """
  overlaps = _overlaps(true_mask, pred_mask)
  return {
    **_matched_scores(overlaps, num_background_entities),
    **_coverings(overlaps, num_background_entities),
  }


def _overlaps(true_mask: tf.Tensor, pred_mask: tf.Tensor) -> _Overlaps:
  entities = _points(true_mask)
  segments = tf.one_hot(tf.argmax(_points(pred_mask), -1), pred_mask.shape[1])
  segments *= tf.reduce_max(entities, axis=-1, keepdims=True)
  return _Overlaps(
    tf.einsum("bnl,bnk->blk", entities, segments),
    tf.reduce_sum(entities, axis=1),
    tf.reduce_sum(segments, axis=1),
  )


def matched_segments(true_mask: tf.Tensor, pred_mask: tf.Tensor) -> tf.Tensor:
  """Finds the segment of every entity, in pairs of the highest sum of IoUs.

  Args:
    true_mask: see `segmentation_scores`, whose mIoU is of these pairs.
    pred_mask: see `segmentation_scores`.

  Returns:
    [B, L] int64, indices of segments; -1 for an entity that overlaps with none,
    or with none that is left for it.
  """
  overlaps = _overlaps(true_mask, pred_mask)
  pairs = assign(-overlaps.iou)
  iou = tf.gather_nd(overlaps.iou, tf.transpose(pairs, [0, 2, 1]), 1)
  rows = tf.one_hot(pairs[:, 0], true_mask.shape[1], dtype=tf.int64)
  numbers = tf.where(iou > 0, pairs[:, 1] + 1, 0)  # 0: none
  return tf.einsum("bpl,bp->bl", rows, numbers) - 1


def _coverings(
  overlaps: _Overlaps, num_background_entities: int
) -> dict[str, tf.Tensor]:
  """Objects' best IoUs, whatever the others' best ones are."""
  best = tf.reduce_max(overlaps.iou, axis=2)[:, num_background_entities:]
  size = overlaps.true[:, num_background_entities:]
  weights = {"sc": size, "covering": tf.cast(size > 0, size.dtype)}
  return {
    name: tf.reduce_sum(best * weight, axis=1) / tf.reduce_sum(weight, axis=1)
    for name, weight in weights.items()
  }


def _matched_scores(
  overlaps: _Overlaps, num_background_entities: int
) -> dict[str, tf.Tensor]:
  """Scores of entities and segments, each of which is in one pair at most."""
  pairs = assign(-overlaps.iou)
  places = tf.transpose(pairs, [0, 2, 1])
  is_object = tf.cast(pairs[:, 0] >= num_background_entities, tf.float32)
  is_entity = tf.cast(overlaps.true > 0, tf.float32)
  num_entities = tf.reduce_sum(is_entity, axis=1)
  num_background = tf.reduce_sum(is_entity[:, :num_background_entities], axis=1)
  num_segments = tf.math.count_nonzero(overlaps.predicted, 1, dtype=tf.float32)
  # What overlaps with nothing that is left is paired with any of the rest.
  num_pairs = tf.maximum(num_entities, num_segments)
  scores = {}
  for name, table in (("miou", overlaps.iou), ("dice", overlaps.dice)):
    matched = tf.gather_nd(table, places, 1)
    scores[name] = tf.reduce_sum(matched, axis=1) / num_pairs
    scores[f"{name}_nobg"] = tf.reduce_sum(matched * is_object, axis=1) / (
      num_pairs - num_background
    )
  is_right = tf.cast(num_segments == num_entities, tf.float32)
  none = tf.fill(tf.shape(is_right), float("nan"))
  scores["segment_count"] = tf.where(num_entities > 0, is_right, none)
  return scores


def average_precision(
  confidences: tf.Tensor,
  objects: tf.Tensor,
  is_near: tf.Tensor,
  is_real: tf.Tensor,
) -> tf.Tensor:
  """Area under the curve of precision over recall, for several distances.

  Of the predictions of an object that are near enough, the one of the highest
  confidence is right; all others are wrong. Precision is that of the best point
  of at least the same recall.

  Args:
    confidences: [M] float32, of the predictions.
    objects: [M] int32, which object each is of, from 0 to N - 1.
    is_near: [M, D] bool, whether it is near enough to be right.
    is_real: [N] bool, which objects there are.

  Returns:
    [D] float32 in [0, 1]; NaN if there is no object.
  """
  order = tf.argsort(confidences, direction="DESCENDING", stable=True)
  objects, is_near = tf.gather(objects, order), tf.gather(is_near, order)
  places = tf.range(tf.size(order))[:, tf.newaxis]
  first = tf.math.unsorted_segment_min(
    tf.where(is_near, places, tf.int32.max), objects, tf.size(is_real)
  )
  is_right = tf.cast(tf.gather(first, objects) == places, tf.float32)
  precision = tf.cumsum(is_right) / tf.cast(places + 1, tf.float32)
  best = tfp.math.scan_associative(tf.maximum, precision[::-1])[::-1]
  num_real = tf.reduce_sum(tf.cast(is_real, tf.float32))
  return tf.reduce_sum(best * is_right, axis=0) / num_real
