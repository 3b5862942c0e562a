"""Figures of scenes of a dataset."""

from __future__ import annotations

import numpy as np
from matplotlib import figure as mpl_figure

from iodine.checks import check_shapes
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.masks import after_greys
from iodine.pictures.panels import clean_ax, new_figure, show_img, show_mask

__all__ = ["scenes_plot"]


def scenes_plot(
  images: np.ndarray,
  masks: np.ndarray | None = None,
  num_cols: int = 6,
  size: float = 1.5,
  num_background: int = 0,
) -> mpl_figure.Figure:
  """Shows scenes, each above its true masks.

  Args:
    images: [N, H, W, C] in [0, 1], N at least 1.
    masks: [N, L, H, W] in [0, 1], one colour per entity; None: no masks.
    num_cols: scenes in a row.
    size: width of a panel, in inches.
    num_background: how many of the first masks are background, which is grey.

  Returns:
    The figure.

  Raises:
    ValueError: if the shapes do not match or there is no scene.
  """
  shapes = {"images": (images, "N H W C")}
  if masks is not None:
    shapes["masks"] = (masks, "N L H W")
  count, height, width = (check_shapes(shapes)[d] for d in "NHW")
  if not count:
    raise ValueError("images is empty: there is nothing to show.")
  num_cols = min(num_cols, count)
  panels = 1 if masks is None else 2  # per scene, one below the other
  num_rows = -(-count // num_cols) * panels
  names = ["image", "masks"][:panels]
  fig, axes = new_figure(
    num_rows,
    num_cols,
    size,
    height / width,
    row_labels=names * (num_rows // panels),
  )
  colors = None
  if masks is not None:
    objects = get_mask_plot_colors(masks.shape[1] - num_background)
    colors = after_greys(objects, num_background)
  for ax in axes.ravel():
    clean_ax(ax)
  for i in range(num_rows // panels * num_cols):
    row, column = i // num_cols * panels, i % num_cols
    if i >= count:
      for ax in axes[row : row + panels, column]:
        ax.set_visible(False)
      continue
    show_img(images[i], ax=axes[row, column])
    if masks is not None:
      show_mask(masks[i], ax=axes[row + 1, column], colors=colors)
  return fig
