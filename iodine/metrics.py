"""Metrics that compare decompositions with images and true masks.

Dimensions: B batch, T frames, S steps, L true entities, K slots, H height,
W width.
"""

import iodine.quiet_tensorflow

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.multi_object_datasets import segmentation_metrics

__all__ = [
  "adjusted_rand_indices",
  "average_precision",
  "frame",
  "is_score",
  "mean_of_defined",
  "mean_segmentation_covering",
  "mean_squared_error",
  "measure",
]


# Scores per scene: names and descriptions.
SCENE_SCORES = {
  "ari": "ARI",
  "ari_nobg": "ARI without background",
  "covering": "mean segmentation covering",
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
    {name: [B, S]}: mse if there is a reconstruction; ari, ari_nobg and covering
    if there are masks and true ones.
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
          "covering": mean_segmentation_covering(
            true_mask, pred_mask, num_background_entities
          ),
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


def mean_segmentation_covering(
  true_mask: tf.Tensor, pred_mask: tf.Tensor, num_background_entities: int
) -> tf.Tensor:
  """Mean over objects of their best IoU with a predicted segment.

  Objects of all sizes count equally; the background, objects without a pixel
  and pixels that belong to nothing are ignored.

  Args:
    true_mask: [B, L, H, W, 1] float32 in {0, 1}, background first.
    pred_mask: [B, K, H, W, 1] float32; the argmax is a pixel's segment.
    num_background_entities: how many true masks are background.

  Returns:
    [B] float32 in [0, 1]; NaN for scenes without objects.
  """
  objects = _points(true_mask)[..., num_background_entities:]
  segments = tf.one_hot(tf.argmax(_points(pred_mask), -1), pred_mask.shape[1])
  segments *= tf.reduce_max(_points(true_mask), axis=-1, keepdims=True)
  overlap = tf.einsum("bno,bnk->bok", objects, segments)
  object_size = tf.reduce_sum(objects, axis=1)
  segment_size = tf.reduce_sum(segments, axis=1)
  union = object_size[:, :, None] + segment_size[:, None] - overlap
  best = tf.reduce_max(tf.math.divide_no_nan(overlap, union), axis=2)
  present = tf.cast(object_size > 0, tf.float32)
  return tf.reduce_sum(best * present, axis=1) / tf.reduce_sum(present, axis=1)


def average_precision(
  confidences: np.ndarray,
  objects: np.ndarray,
  is_near: np.ndarray,
  num_objects: int,
) -> float:
  """Area under the curve of precision over recall.

  Of the predictions of an object that are near enough, the one of the highest
  confidence is right; all others are wrong. Precision is that of the best point
  of at least the same recall.

  Args:
    confidences: [M] of the predictions.
    objects: [M] int, which object each is of.
    is_near: [M] bool, whether it is near enough to be right.
    num_objects: number of objects that there are.

  Returns:
    A number in [0, 1]; NaN if there is no object.
  """
  if not num_objects:
    return float("nan")
  order = np.argsort(-confidences, kind="stable")
  near = np.flatnonzero(is_near[order])
  is_right = np.zeros(len(order))
  is_right[near[np.unique(objects[order][near], return_index=True)[1]]] = 1
  right = np.cumsum(is_right)
  precision = right / np.arange(1, len(right) + 1)
  best = np.maximum.accumulate(precision[::-1])[::-1]
  return float(np.sum(best * is_right) / num_objects)
