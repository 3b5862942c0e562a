"""Scores by the conventions of EfficientMORL's published code.

Emami et al. (2021), "Efficient Iterative Amortized Inference for Learning
Symmetric and Disentangled Multi-Object Representations". Any model can be
scored so; one without a posterior has no KL.

Dimensions: B batch, S steps, L true entities, K slots, h and w height and width
of the true masks, H and W those of the images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import metrics
from iodine.errors import ConfigError
from iodine.evaluation.scores import Protocol
from iodine.multi_object_datasets import segmentation_metrics
from iodine.scene_model import SceneModel, shows_decomposition

__all__ = ["PROTOCOL", "foreground_ari", "resized"]


def foreground_ari(
  true_mask: tf.Tensor, pred_mask: tf.Tensor, num_background_entities: int = 1
) -> tf.Tensor:
  """Computes the ARI over the pixels of objects, which is never undefined.

  A pixel belongs to the last of its entities, and to the slot of the largest
  mask. Masks of another size than the true ones are resized to it.

  Args:
    true_mask: [B, L, h, w, 1] in {0, 1}, background first.
    pred_mask: [B, K, H, W, 1] float32.
    num_background_entities: how many true masks are background.

  Returns:
    [B] float32; 0 for a scene without objects, 1 for a single object that is in
    a single slot.
  """
  num_entities, num_slots = true_mask.shape[1], pred_mask.shape[1]
  numbers = tf.range(num_entities)[:, tf.newaxis, tf.newaxis, tf.newaxis]
  labels = tf.reduce_max(tf.cast(true_mask, tf.int32) * numbers, axis=1)
  objects = tf.one_hot(_flat(labels), num_entities)[
    ..., num_background_entities:
  ]
  owners = tf.argmax(resized(pred_mask, true_mask.shape[2:4]), axis=1)
  slots = tf.one_hot(_flat(owners), num_slots)  # [B, h * w, K]
  overlap = tf.einsum("bpl,bpk->blk", objects, slots)
  num_true = tf.math.count_nonzero(tf.reduce_sum(overlap, axis=2), axis=1)
  num_pred = tf.math.count_nonzero(tf.reduce_sum(overlap, axis=1), axis=1)
  ari = segmentation_metrics.adjusted_rand_index(objects, slots)
  ari = tf.where((num_true == 1) & (num_pred == 1), tf.ones_like(ari), ari)
  is_defined = (num_true > 0) & tf.math.is_finite(ari)
  return tf.where(is_defined, ari, tf.zeros_like(ari))


def _flat(labels: tf.Tensor) -> tf.Tensor:
  """[B, h, w, 1] to [B, h * w]."""
  return tf.reshape(labels, [-1, labels.shape[1] * labels.shape[2]])


def resized(masks: tf.Tensor, size: tf.TensorShape) -> tf.Tensor:
  """[B, K, H, W, 1] to [B, K, h, w, 1], bicubic as in Pillow."""
  if masks.shape[2:4] == size:
    return masks
  rows, columns = map(_resizing, masks.shape[2:4], size)
  return tf.einsum("yh,xw,bkhwc->bkyxc", rows, columns, masks)


def _resizing(old: int, new: int) -> np.ndarray:
  """[new, old] float32, the matrix that resizes columns of `old` pixels."""
  with tf.init_scope():  # an operation that XLA does not have
    columns = tf.eye(old)[:, :, tf.newaxis]
    return tf.image.resize(
      columns, [new, old], "bicubic", antialias=True
    ).numpy()[..., 0]


def _measure(
  model: SceneModel, batch: Mapping[str, Any], noise: Any
) -> dict[str, Any]:
  """See `Protocol`; the model is shown no masks, which may be larger."""
  info = model.infer({"image": batch["image"]}, noise=noise)
  if not shows_decomposition(info):
    raise ConfigError(
      f"protocol=efficientmorl: a {type(model).__name__} does not decompose "
      "images, and has none of its scores; leave protocol out"
    )
  scenes = metrics.measure(info, model.num_background_entities)  # mse alone
  if "kl" in info.get("losses", {}):
    scenes["kl"] = tf.reduce_sum(info["losses"]["kl"], axis=2)
  if "mask" in batch:
    masks = info["outputs"]["pred_mask"]
    steps = [
      foreground_ari(
        metrics.frame(batch["mask"], t)[:, 0],
        masks[:, t],
        model.num_background_entities,
      )
      for t in range(masks.shape[1])
    ]
    scenes["ari_nobg"] = tf.stack(steps, axis=1)
  return {"scenes": scenes}


PROTOCOL = Protocol(_measure, ddof=0)
