"""What `SceneModel.eval` returns, of random numbers, and what figures show."""

import itertools

import numpy as np
from matplotlib import figure as mpl_figure

from iodine.pictures.colors import get_mask_plot_colors

# Odd and distinct, so that swapped axes fail.
B, T, L, H, W = 2, 3, 5, 7, 9


def rinfo(num_slots=4, channels=3, num_frames=1):
  """Returns what `IODINE.eval` returns, with random content."""
  rng = np.random.default_rng(0)

  def uniform(*shape):
    return rng.uniform(size=shape).astype(np.float32)

  logits = rng.normal(size=[B, T, num_slots, H, W, 1])
  masks = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
  spatial = {
    "image": uniform(B, T, 1, H, W, channels),
    "components": uniform(B, T, num_slots, H, W, channels),
    "dcomponents": rng.normal(size=[B, T, num_slots, H, W, channels]),
    "mask": logits,
    "pred_mask": masks,
    "dmask": 1e-4 * rng.normal(size=[B, T, num_slots, H, W, 1]),
    "posterior": masks,
    "log_prob": -1500.0 * uniform(B, T, 1, H, W, 1),
    "counterfactual": rng.normal(size=[B, T, num_slots, H, W, 1]),
    "capacity": np.full([B, T, num_slots, H, W, 1], 0.5),
    "coordinates": uniform(B, T, 1, H, W, 8),
  }
  for value in spatial.values():
    value[:, 0] = 0.0
  return {
    "data": {
      "image": uniform(B, num_frames, H, W, channels),
      "true_mask": np.eye(L)[
        rng.integers(L, size=[B, num_frames, H, W, 1])
      ].transpose(0, 1, 5, 2, 3, 4),
    },
    "outputs": {
      "recons": uniform(B, T, 1, H, W, channels),
      "pred_mask": masks,
      "pred_mask_logits": logits,
      "components": uniform(B, T, num_slots, H, W, channels),
    },
    "inputs": {"spatial": spatial, "flat": {}},
  }


def titles(fig):
  return [ax.get_title() for ax in fig.axes if ax.get_title()]


def axes(fig, rows, cols):
  """Returns the axes of `fig` as an array [rows, cols]."""
  return np.array(fig.axes, object).reshape([rows, cols])


def shown(ax):
  """Returns the array that `ax` shows."""
  return np.asarray(ax.images[0].get_array())


def segmentation(masks, colors=None):
  """Masks [K, H, W] as `masks.segmentation` colours them, pixel by pixel."""
  colors = get_mask_plot_colors(len(masks)) if colors is None else colors
  result = np.ones([*masks.shape[1:], 3])
  for y, x in np.ndindex(*masks.shape[1:]):
    k = masks[:, y, x].argmax()
    share = masks[k, y, x]
    result[y, x] = share * colors[k] + (1.0 - share)
  return result


def through(images, masks):
  """Images [..., H, W, C] as they are seen through masks [..., H, W, 1].

  Of so small ones, the squares of the checkerboard are single pixels.
  """
  board = np.ones(images.shape[-3:])
  board[::2, 1::2] = board[1::2, ::2] = 0.85
  return images * masks + board * (1.0 - masks)


def rgb(image):
  return np.broadcast_to(image, (*image.shape[:-1], 3))


def assert_readable(fig):
  """Draws `fig`; its texts must neither overlap nor leave it."""
  assert isinstance(fig, mpl_figure.Figure)
  fig.draw_without_rendering()
  boxes = {}
  for ax in itertools.chain(fig.axes, *(ax.child_axes for ax in fig.axes)):
    texts = [ax.title, ax.xaxis.label, ax.yaxis.label]
    texts += ax.get_xticklabels() + [
      label
      for tick, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
      if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1]
    ]
    for text in texts:
      if ax.get_visible() and text.get_visible() and text.get_text():
        boxes[text] = text.get_window_extent()
  assert_apart(fig, boxes)


def assert_apart(fig, boxes):
  """Checks that texts, {text: its box}, are in a figure and do not overlap."""
  for text, box in boxes.items():
    assert 0 <= box.x0 < box.x1 <= fig.bbox.x1, text
    assert 0 <= box.y0 < box.y1 <= fig.bbox.y1, text
  for (text, box), (other, other_box) in itertools.combinations(
    boxes.items(), 2
  ):
    assert not box.overlaps(other_box), (text, other)
