"""Pictures of where slots look.

Dimensions: B batch, T frames, S steps, K slots, H height, W width, C channels
(1 or 3). Images and attention are in [0, 1], sizes in inches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure

from iodine.checks import check_index, check_shapes
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.panels import new_figure, show_img, step_labels

__all__ = ["attention_plot", "shaded"]

_BLACK = "#000000"
_FAINTEST = 0.35  # of 1, the contrast that is left of an image under a shade
_COVER = 0.85  # of 1, how much a shade hides at full attention


def attention_plot(
  rinfo: Mapping[str, Any], b: int = 0, size: float = 1.4, first_step: int = 0
) -> mpl_figure.Figure:
  """Plots the attention of every slot, one row per step.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    b: index of the scene in the batch.
    size: width of a panel.
    first_step: number of the first step, see `SceneModel`.

  Returns:
    S rows of the image, and the image shaded by each slot's attention.

  Raises:
    ValueError: if the shapes do not match, or `b` is out of range.
  """
  images = np.asarray(rinfo["data"]["image"])
  attention = np.asarray(rinfo["outputs"]["attention"])
  sizes = check_shapes(
    {
      "image": (images, "B T H W C"),
      "attention": (attention, "B S K H W 1"),
    }
  )
  check_index("b", b, sizes["B"])
  steps = range(sizes["S"])
  fig, axes = new_figure(
    sizes["S"],
    1 + sizes["K"],
    size,
    sizes["H"] / sizes["W"],
    titles=["Image", *(f"Slot {k + 1}" for k in range(sizes["K"]))],
    row_labels=step_labels(sizes["S"], first_step),
  )
  colors = get_mask_plot_colors(sizes["K"])
  for t in steps:
    image = images[b, min(t, sizes["T"] - 1)]
    show_img(image, ax=axes[t, 0], color=_BLACK, lw=2.0 * size)
    for panel, color, ax in zip(
      shaded(image, attention[b, t]), colors, axes[t, 1:], strict=True
    ):
      show_img(panel, ax=ax, color=color, lw=2.0 * size)
  return fig


def shaded(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
  """Shades a faint image in every slot's colour, the more the slot attends.

  Args:
    image: [H, W, C].
    attention: [K, H, W, 1].

  Returns:
    [K, H, W, 3].
  """
  gray = np.clip(image, 0.0, 1.0).mean(axis=-1, keepdims=True)
  faint = 1.0 - _FAINTEST * (1.0 - gray)
  colors = get_mask_plot_colors(len(attention))[:, None, None]
  cover = _COVER * np.clip(attention, 0.0, 1.0)
  return faint * (1.0 - cover) + colors * cover
