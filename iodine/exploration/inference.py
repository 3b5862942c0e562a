"""What a model infers of scenes, and what can be read off."""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.metrics import SCENE_SCORES
from iodine.scene_model import SceneModel

__all__ = [
  "background_slot",
  "infer",
  "object_slot",
  "scene_noise",
  "step_scores",
  "structure",
]


def infer(
  model: SceneModel,
  batch: Mapping[str, Any],
  seed: int = 0,
  scenes: Iterable[int] | None = None,
) -> dict[str, Any]:
  """Runs a model on a batch and returns everything it infers, in NumPy.

  The variables do not depend on the number of slots or refinement steps: build
  a model with other `num_components` or `num_iters`, and restore it.

  Args:
    model: restored model.
    batch: see `SceneModel.eval`; for your own images: `dataset.image_batch`.
    seed: seed of the latents' noise, from 0 to 2**31 - 1.
    scenes: [B] numbers of the scenes. A scene's noise then depends on the seed
      and its own number alone, as in `evaluate`; None: on its place in the
      batch.

  Returns:
    See `SceneModel.eval`; and set_scores: {name: [S]}, those of the batch, see
    `SceneModel.set_scores`, if there are any.

  Raises:
    ValueError: if the batch does not fit the model, or a pixel is outside
      [0, 1].
  """
  if scenes is None:
    info = model.eval(batch, seed=tf.constant([seed, 0], tf.int32))
  else:
    info = model.eval(batch, noise=scene_noise(model, seed, scenes))
  records = model.records(info)
  info, records = tf.nest.map_structure(
    lambda tensor: tensor.numpy(), (info, records)
  )
  if scores := model.set_scores(records):
    info["set_scores"] = scores
  return info


def scene_noise(
  model: SceneModel, seed: int, scenes: Iterable[int], draw: int = 0
) -> Any:
  """Draws noise that does not depend on how scenes are batched.

  Args:
    model: model whose variables exist.
    seed: seed of the noise, at least 0.
    scenes: [B] numbers of the scenes.
    draw: number of the draw, if a scene has several.

  Returns:
    See `SceneModel.noise`.
  """
  rngs = [np.random.default_rng([seed, draw, scene]) for scene in scenes]
  return model.noise(rngs)


def step_scores(info: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Losses and metrics of every result of `SceneModel.infer`.

  Args:
    info: result of `infer`.

  Returns:
    {description: [S]}, means over the scenes for which a score is defined, and
    scores of the batch as a whole; only scores that the data allows.
  """
  values, losses = dict(info["metrics"]), info.get("losses", {})
  if "recons" in losses:
    values["recons"] = losses["recons"]
  if "kl" in losses:
    values["kl"] = losses["kl"].sum(axis=-1)
  scores = {}
  for name, label in SCENE_SCORES.items():
    if name in values:
      defined = values[name][np.isfinite(values[name]).all(axis=1)]
      if len(defined):
        scores[label] = defined.mean(axis=0)
  scores.update(info.get("set_scores", {}))
  if "factor" in losses:
    scores["factor regression loss"] = losses["factor"]
  return scores


def structure(info: Mapping[str, Any]) -> str:
  """Formats an info as a text tree of names, shapes and dtypes.

  Args:
    info: result of `infer`, or a part of it.

  Returns:
    One line per entry; entries of nested dicts are indented.
  """
  rows = list(_rows(info))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows
  )


def _rows(info: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, ...]]:
  """Yields name, shape and dtype of all entries."""
  for name, value in info.items():
    indented = 2 * depth * " " + name
    if isinstance(value, Mapping):
      yield indented, "", ""
      yield from _rows(value, depth + 1)
    else:
      yield indented, str(list(value.shape)), str(value.dtype)


def object_slot(info: Mapping[str, Any], b: int = 0) -> int:
  """Returns the slot that most likely contains an object.

  This is the slot with the highest KL, because empty slots and plain
  backgrounds stay close to the prior. Without a KL, it is the one with the
  second largest segment; the largest is usually the background. Without masks
  it is the first.

  Args:
    info: result of `infer`.
    b: index of the scene in the batch.

  Returns:
    Index of the slot.

  Raises:
    ValueError: if `b` is out of range.
  """
  masks = info["outputs"].get("pred_mask")  # [B, S, K, H, W, 1]
  if masks is None:
    return 0
  checks.check_index("b", b, len(masks))
  if "kl" in info.get("losses", {}):
    return int(info["losses"]["kl"][b, -1].argmax())
  return int(_largest_first(masks[b, -1])[1])


def background_slot(info: Mapping[str, Any], b: int = 0) -> int:
  """Returns the slot with the largest segment, usually the background.

  Args:
    info: result of `infer`.
    b: index of the scene in the batch.

  Returns:
    Index of the slot.

  Raises:
    ValueError: if `b` is out of range.
  """
  masks = info["outputs"]["pred_mask"]
  checks.check_index("b", b, len(masks))
  return int(_largest_first(masks[b, -1])[0])


def _largest_first(masks: np.ndarray) -> np.ndarray:
  """[K] slots by the number of pixels that they own in masks [K, H, W, 1]."""
  owners = masks.argmax(axis=0).ravel()
  sizes = np.bincount(owners, minlength=len(masks))
  return np.argsort(-sizes, kind="stable")
