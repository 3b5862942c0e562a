"""Masks as colours, and pictures seen through them.

Dimensions: K slots, L true entities, H height, W width, C channels.
"""

from __future__ import annotations

import numpy as np

from iodine import metrics
from iodine.pictures.colors import get_mask_plot_colors

__all__ = [
  "after_greys",
  "entity_colors",
  "object_colors",
  "on_checkerboard",
  "segmentation",
]

# Greys of the first and the last of several true backgrounds.
_BACKGROUND = (0.7, 0.4)
_SQUARES = 8  # of the checkerboard, along an image's shorter side
_LIGHT, _DARK = 1.0, 0.85


def segmentation(
  masks: np.ndarray, colors: np.ndarray | None = None
) -> np.ndarray:
  """Colours every pixel by the slot that owns it, the paler the less surely.

  Where slots share a pixel, the one of the largest mask decides on the hue and
  the size of that mask on the opacity, on white. A mixture of colours might
  look like another slot's.

  Args:
    masks: [..., K] in [0, 1].
    colors: [K, 3] RGB in [0, 1]; None: `get_mask_plot_colors`.

  Returns:
    [..., 3] float32 RGB in [0, 1]; NaN where a mask is.
  """
  masks = np.asarray(masks, np.float32)
  if colors is None:
    colors = get_mask_plot_colors(masks.shape[-1])
  opacity = np.clip(masks.max(axis=-1, keepdims=True), 0.0, 1.0)
  owners = masks.argmax(axis=-1)
  return 1.0 - opacity * (1.0 - np.asarray(colors, np.float32)[owners])


def on_checkerboard(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Shows images through masks, and a checkerboard where these hide them.

  Args:
    images: [..., H, W, C] in [0, 1].
    masks: [..., H, W, 1] in [0, 1].

  Returns:
    [..., H, W, C].
  """
  height, width = images.shape[-3:-1]
  side = max(1, round(min(height, width) / _SQUARES))
  rows, columns = np.indices((height, width)) // side
  is_dark = (rows + columns)[..., np.newaxis] % 2
  board = np.where(is_dark, _DARK, _LIGHT).astype(np.float32)
  return images * masks + board * (1.0 - masks)


def entity_colors(
  true_mask: np.ndarray, pred_mask: np.ndarray, num_background: int = 1
) -> np.ndarray:
  """Colours of true entities that tell which slot has found them.

  Args:
    true_mask: [L, H, W, 1] in {0, 1}, background first.
    pred_mask: [K, H, W, 1]; the largest owns a pixel.
    num_background: how many true masks are background.

  Returns:
    [L, 3] RGB: greys for the background, for an object the colour of its slot,
    see `metrics.matched_segments`, and a colour of no slot if it has none.
  """
  slots = _slots(true_mask, pred_mask)[num_background:]
  num_slots = len(pred_mask)
  spare = num_slots + np.arange(len(slots))
  colors = get_mask_plot_colors(num_slots + len(slots))
  return after_greys(colors[np.where(slots < 0, spare, slots)], num_background)


def object_colors(
  true_mask: np.ndarray, pred_mask: np.ndarray, num_background: int = 1
) -> tuple[np.ndarray, np.ndarray]:
  """Colours of objects that are the same whatever slots have found them.

  They make the masks of several models comparable.

  Args:
    true_mask: see `entity_colors`.
    pred_mask: see `entity_colors`.
    num_background: see `entity_colors`.

  Returns:
    [L, 3] RGB of the entities, greys for the background, and [K, 3] of the
    slots: that of the entity which a slot has found, see
    `metrics.matched_segments`, or a colour of no object.
  """
  slots = _slots(true_mask, pred_mask)
  num_objects, num_slots = len(slots) - num_background, len(pred_mask)
  colors = get_mask_plot_colors(num_objects + num_slots)
  of_entities = after_greys(colors[:num_objects], num_background)
  of_slots = np.zeros([num_slots, 3], np.float32)
  is_found = slots >= 0
  of_slots[slots[is_found]] = of_entities[is_found]
  others = np.setdiff1d(np.arange(num_slots), slots)
  of_slots[others] = colors[num_objects : num_objects + len(others)]
  return of_entities, of_slots


def _slots(true_mask: np.ndarray, pred_mask: np.ndarray) -> np.ndarray:
  """The slot [L] of each entity; -1: none."""
  true, predicted = (
    np.asarray(mask, np.float32)[np.newaxis] for mask in (true_mask, pred_mask)
  )
  return metrics.matched_segments(true, predicted)[0].numpy()


def after_greys(colors: np.ndarray, num_background: int) -> np.ndarray:
  """Colours of true entities: greys for the background, then the objects'.

  Args:
    colors: [N, 3] of the objects.
    num_background: how many entities are background.

  Returns:
    [num_background + N, 3] float32 RGB.
  """
  greys = np.linspace(*_BACKGROUND, num_background, dtype=np.float32)
  return np.concatenate([greys[:, np.newaxis].repeat(3, axis=1), colors])
