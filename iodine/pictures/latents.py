"""Figures of latents, edited scenes and training: NumPy in, Figures out.

They show results of `iodine.exploration` and display themselves in a notebook;
save one with `figure.savefig(path)`.

Dimensions: R latents, N values, K slots, H height, W width, C channels (1 or
3). Images are in [0, 1], sizes in inches. Slots are indexed from 0 and
labelled from 1.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import patches

from iodine import exploration
from iodine.checks import check_shapes
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.panels import (
  NotebookFigure,
  new_figure,
  show_img,
  show_mask,
)

__all__ = ["importance_text", "removal_plot", "swap_plot", "traversal_plot"]

if typing.TYPE_CHECKING:
  from iodine.exploration import Removal, Swap, Traversal

_BLACK = "#000000"
_GRAY = "#808080"
_PANEL_GAP = 0.16  # between panels of a grid, in widths of a panel
_LINE = 0.022  # height of a line of text, in inches per point of font size


def traversal_plot(
  traversal: Traversal,
  size: float = 0.75,
  names: Callable[[int], str] | None = None,
) -> mpl_figure.Figure:
  """Plots a slot as its latents vary, one row per latent.

  At the left is the slot alone, on a checkerboard where its mask hides it, if
  it has a picture; at the right the scene. A triangle marks the inferred value.

  Args:
    traversal: result of `exploration.traverse`.
    size: width of a panel.
    names: what else to say of a latent, such as `Correlations.name`.

  Returns:
    The figure.

  Raises:
    ValueError: if the shapes do not match.
  """
  sizes = check_shapes(
    {
      **traversal.pictures,
      "latents": (traversal.latents, "R"),
      "importance": (traversal.importance, "R"),
      "current": (traversal.current, "R"),
      "offsets": (traversal.offsets, "N"),
    }
  )
  font_size = min(11.0, 14.5 * size)
  aspect = sizes["H"] / sizes["W"]
  scenes = traversal.scenes
  blocks = [("Scene", scenes, np.ones_like(scenes[..., :1]), _GRAY)]
  if traversal.components is not None and traversal.masks is not None:
    color = get_mask_plot_colors(traversal.slot + 1)[-1]
    title = f"Slot {traversal.slot + 1} alone"
    blocks.insert(0, (title, traversal.components, traversal.masks, color))
  labels = _labels(traversal, names)
  fig, axes = _grids_figure(
    len(blocks), sizes["R"], sizes["N"], aspect, size, font_size, labels
  )
  for ax, (title, images, masks, frame) in zip(axes, blocks, strict=True):
    _fill_grid(ax, images, masks, frame)
    _mark_current(ax, traversal, aspect)
    ax.set_title(title, fontsize=1.15 * font_size, pad=font_size)
    ax.set_xticks(_pitch(1.0) * np.arange(sizes["N"]))
    ax.set_xticklabels(_offset_labels(traversal.offsets))
    ax.set_yticks([])
    ax.tick_params(length=0, labelsize=0.9 * font_size, pad=1.0)
  axes[0].set_yticks(_pitch(aspect) * np.arange(sizes["R"]))
  axes[0].set_yticklabels(labels)
  fig.text(
    0.5,
    0.4 * _LINE * font_size / fig.get_figheight(),
    f"{_unit_text(traversal.range_of)};  \u25bc as inferred",
    fontsize=0.9 * font_size,
    ha="center",
  )
  return fig


def _labels(
  traversal: Traversal, names: Callable[[int], str] | None
) -> list[str]:
  """A label of a few lines for each latent."""
  labels = []
  for latent, value in zip(
    traversal.latents.tolist(), traversal.importance, strict=True
  ):
    lines = [f"latent {latent}", names(latent) if names else ""]
    lines.append(_narrow(importance_text(traversal.range_of, value)))
    labels.append("\n".join(filter(None, lines)))
  return labels


def importance_text(range_of: str, value: float) -> str:
  """The importance of a latent, by `exploration.IMPORTANCE` of its range."""
  name = exploration.IMPORTANCE[range_of]
  return f"{name} {value:.2f}" if name == "KL" else f"{name} {value:.1e}"


def _narrow(text: str) -> str:
  """Breaks a text that is too long beside a panel."""
  return text if len(text) < 12 else text.replace(" ", "\n")


def _unit_text(range_of: str) -> str:
  """What the offsets of a traversal are measured in."""
  if range_of == "samples":
    return "from the latent's lowest (\u22121) to its highest sample (+1)"
  return f"standard deviations from the latent's mean ({range_of})"


def _pitch(extent: float) -> float:
  """Distance between panels of this extent, in widths of a panel."""
  return extent + _PANEL_GAP


def _grids_figure(
  num_grids: int,
  num_rows: int,
  num_cols: int,
  aspect: float,
  size: float,
  font_size: float,
  labels: Sequence[str],
) -> tuple[mpl_figure.Figure, Sequence[mpl_axes.Axes]]:
  """A figure with axes for grids; their unit is the width of a panel."""
  line = _LINE * font_size
  longest = max(len(x) for label in labels for x in label.splitlines())
  left, right, between = (0.4 * longest + 0.6) * line, 0.1, 0.4 * size
  top, bottom = 2.4 * line, 2.6 * line
  grid_width = size * num_cols * _pitch(1.0)
  grid_height = size * num_rows * _pitch(aspect)
  width = left + num_grids * (grid_width + between) - between + right
  height = top + grid_height + bottom
  fig = NotebookFigure(figsize=(width, height))
  axes: Any = fig.subplots(
    1,
    num_grids,
    squeeze=False,
    gridspec_kw={
      "left": left / width,
      "right": 1.0 - right / width,
      "bottom": bottom / height,
      "top": 1.0 - top / height,
      "wspace": between / grid_width,
    },
  )
  return fig, axes[0]


def _fill_grid(
  ax: mpl_axes.Axes, images: np.ndarray, masks: np.ndarray, color: Any
) -> None:
  """Shows images [R, N, H, W, C] through masks; panel (0, 0) is at (0, 0)."""
  num_rows, num_cols, height, width, _ = images.shape
  aspect = height / width
  for row, column in np.ndindex(num_rows, num_cols):
    x, y = column * _pitch(1.0), row * _pitch(aspect)
    shown = show_img(images[row, column], mask=masks[row, column], ax=ax)
    shown.set_extent((x - 0.5, x + 0.5, y + 0.5 * aspect, y - 0.5 * aspect))
    ax.add_patch(
      patches.Rectangle(
        (x - 0.5, y - 0.5 * aspect), 1.0, aspect, fill=False, ec=color, lw=1.0
      )
    )
  ax.set_xlim(-0.5 * _pitch(1.0), (num_cols - 0.5) * _pitch(1.0))
  ax.set_ylim((num_rows - 0.5) * _pitch(aspect), -0.5 * _pitch(aspect))
  ax.set_frame_on(False)


def _mark_current(
  ax: mpl_axes.Axes, traversal: Traversal, aspect: float
) -> None:
  """Marks the inferred value above each row."""
  columns = np.arange(len(traversal.offsets))
  places = np.interp(traversal.current, traversal.offsets, columns)
  rows = np.arange(len(places))
  ax.plot(
    places * _pitch(1.0),
    rows * _pitch(aspect) - 0.5 * aspect - 0.5 * _PANEL_GAP,
    linestyle="none",
    marker=7,  # a triangle whose tip is at the point
    markersize=5,
    color=_BLACK,
    clip_on=False,
  )


def _offset_labels(offsets: np.ndarray) -> list[str]:
  """Labels of columns; if there are many, only some, to save space."""
  every = -(-len(offsets) // 9)
  middle = len(offsets) // 2
  return [
    _signed(offset) if (i - middle) % every == 0 else ""
    for i, offset in enumerate(offsets)
  ]


def _signed(number: float) -> str:
  text = f"{number:+.2g}".replace("-", "\u2212")
  return text if abs(number) > 1e-6 else "0"


def removal_plot(removal: Removal, size: float = 1.5) -> mpl_figure.Figure:
  """Plots a scene with each slot removed in turn, and the resulting masks.

  Args:
    removal: result of `exploration.remove_slots`.
    size: width of a panel.

  Returns:
    A figure of scenes above their masks, if they have any; the columns are the
    image, its reconstruction, and the scene without each slot, framed in the
    slot's colour.

  Raises:
    ValueError: if the shapes do not match.
  """
  has_masks = removal.without.masks is not None
  shapes = {
    "whole.masks": (removal.whole.masks, "K H W 1"),
    "whole.recons": (removal.whole.recons, "H W C"),
    "without.recons": (removal.without.recons, "K H W C"),
    "image": (removal.image, "H W C"),
  }
  if has_masks:
    shapes["without.masks"] = (removal.without.masks, "K K H W 1")
  sizes = check_shapes(shapes)
  num_slots = sizes["K"]
  titles = ["Image", "Reconstruction"]
  titles += [f"Without slot {k + 1}" for k in range(num_slots)]
  fig, axes = new_figure(
    1 + has_masks,
    len(titles),
    size,
    sizes["H"] / sizes["W"],
    titles=titles,
    row_labels=["Scene", "Masks"][: 1 + has_masks],
  )
  frame: dict[str, Any] = {"color": _BLACK, "lw": 2.0 * size}
  colors = get_mask_plot_colors(num_slots)
  show_img(removal.image, ax=axes[0, 0], **frame)
  show_img(removal.whole.recons, ax=axes[0, 1], **frame)
  for recons, color, ax in zip(
    removal.without.recons, colors, axes[0, 2:], strict=True
  ):
    show_img(recons, ax=ax, color=color, lw=2.0 * size)
  if has_masks:
    axes[1, 0].set_frame_on(False)
    axes[1, 0].set(xticks=[], yticks=[])
    show_mask(removal.whole.masks[..., 0], ax=axes[1, 1], **frame)
    for masks, color, ax in zip(
      removal.without.masks, colors, axes[1, 2:], strict=True
    ):
      show_mask(masks[..., 0], ax=ax, color=color, lw=2.0 * size)
  return fig


def swap_plot(swap: Swap, size: float = 1.5) -> mpl_figure.Figure:
  """Plots two scenes before and after swapping a slot, one row each.

  Args:
    swap: result of `exploration.swap_slots`.
    size: width of a panel.

  Returns:
    The figure; swapped slots are framed in their colour.

  Raises:
    ValueError: if the shapes do not match.
  """
  has_masks = swap.after.masks is not None
  shapes = {
    "before.masks": (swap.before.masks, "2 K H W 1"),
    "before.recons": (swap.before.recons, "2 H W C"),
    "images": (swap.images, "2 H W C"),
    "components": (swap.components, "2 H W C"),
    "after.recons": (swap.after.recons, "2 H W C"),
  }
  if has_masks:
    shapes["after.masks"] = (swap.after.masks, "2 K H W 1")
  sizes = check_shapes(shapes)
  titles = ["Image", "Reconstruction", "Mask", "Slot", "Swapped"]
  titles += ["New mask"] * has_masks
  labels = [
    f"Scene {i + 1}, slot {slot + 1}" for i, slot in enumerate(swap.slots)
  ]
  fig, axes = new_figure(
    2,
    len(titles),
    size,
    sizes["H"] / sizes["W"],
    titles=titles,
    row_labels=labels,
  )
  colors = get_mask_plot_colors(sizes["K"])
  frame: dict[str, Any] = {"color": _BLACK, "lw": 2.0 * size}
  for i, (row, slot) in enumerate(zip(axes, swap.slots, strict=True)):
    mask = swap.before.masks[i, slot]
    show_img(swap.images[i], ax=row[0], **frame)
    show_img(swap.before.recons[i], ax=row[1], **frame)
    show_mask(swap.before.masks[i, ..., 0], ax=row[2], **frame)
    show_img(
      swap.components[i],
      mask=mask,
      ax=row[3],
      color=colors[slot],
      lw=2.0 * size,
    )
    show_img(swap.after.recons[i], ax=row[4], **frame)
    if has_masks:
      show_mask(swap.after.masks[i, ..., 0], ax=row[5], **frame)
  return fig
