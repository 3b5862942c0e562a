"""Pictures of where objects are, and which is in front.

Dimensions: B batch, T frames, S steps, K slots, H height, W width, C channels
(1 or 3). Images are in [0, 1], sizes in inches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import patches

from iodine.checks import check_shapes
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.panels import label_font_size, new_figure, show_img

__all__ = ["boxes_plot", "draw_boxes"]

_PRESENT = 0.5  # least presence of an object that is shown


def boxes_plot(
  rinfo: Mapping[str, Any], num_scenes: int = 8, size: float = 2.0
) -> mpl_figure.Figure:
  """Plots images with a box around every object, after the last step.

  A box has its slot's colour and, at its upper left corner, its place in the
  order of depth: 1 is in front.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    num_scenes: most scenes that are shown.
    size: width of a panel.

  Returns:
    A panel for each of the first scenes.

  Raises:
    ValueError: if the shapes do not match.
  """
  images, outputs = rinfo["data"]["image"], rinfo["outputs"]
  names = ("boxes", "presence", "depth")
  boxes, presence, depth = (np.asarray(outputs[name]) for name in names)
  sizes = check_shapes(
    {
      "image": (images, "B T H W C"),
      "boxes": (boxes, "B S K 4"),
      "presence": (presence, "B S K"),
      "depth": (depth, "B S K"),
    }
  )
  count = min(sizes["B"], num_scenes)
  fig, axes = new_figure(1, count, size, sizes["H"] / sizes["W"])
  for b, ax in enumerate(axes[0]):
    show_img(images[b, -1], ax=ax)
    draw_boxes(ax, boxes[b, -1], presence[b, -1], depth[b, -1], size)
  return fig


def draw_boxes(
  ax: mpl_axes.Axes,
  boxes: np.ndarray,
  presence: np.ndarray,
  depth: np.ndarray,
  size: float,
) -> None:
  """Draws the boxes of present objects into a panel, those in front last.

  Args:
    ax: the panel, which shows an image.
    boxes: [K, 4], left, top, right and bottom, from 0 to 1 in the image.
    presence: [K] in [0, 1].
    depth: [K], small in front.
    size: width of the panel.
  """
  (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
  start = np.array([left, top])
  scale = np.array([right - left, bottom - top])
  colors = get_mask_plot_colors(len(boxes))
  present = [k for k in np.argsort(depth) if presence[k] >= _PRESENT]
  for rank, k in reversed(list(enumerate(present, 1))):
    corner, opposite = (start + scale * boxes[k].reshape(2, 2)).tolist()
    ax.add_patch(
      patches.Rectangle(
        corner,
        opposite[0] - corner[0],
        opposite[1] - corner[1],
        fill=False,
        edgecolor=colors[k],
        linewidth=size,
      )
    )
    ax.text(
      corner[0],
      corner[1],
      str(rank),
      color=colors[k],
      fontsize=label_font_size(size),
      verticalalignment="bottom",
      clip_on=True,
    )
