"""Figures of scenes that were rendered from slots: NumPy in, Figures out.

Dimensions: N scenes, K slots, P chosen slots, H height, W width, C channels (1
or 3). Images and masks are in [0, 1], sizes in inches. Slots and scenes are
indexed from 0 and labelled from 1.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure

from iodine.checks import check_index, check_shapes
from iodine.pictures.boxes import draw_boxes
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.panels import (
  label_font_size,
  new_figure,
  show_img,
  show_mask,
)

__all__ = ["composition_plot", "edited_plot", "reconstruction_plot"]

if typing.TYPE_CHECKING:
  from iodine.exploration import Collage, Edited

_MOST_COLUMNS = 8  # of panels, in a notebook
_BLACK = "#000000"
_GRAY = "#c0c0c0"


def composition_plot(
  collage: Collage, numbers: Sequence[int] | None = None, size: float = 1.5
) -> mpl_figure.Figure:
  """Plots a scene composed of slots, below the scenes that they come from.

  Args:
    collage: result of `exploration.collage`.
    numbers: of all scenes of the batch; None: from 1 on.
    size: width of a panel.

  Returns:
    A row for each source scene: image, reconstruction, and every slot where its
    mask is; a chosen slot has a frame in its colour among the new masks. The
    last row has the composed scene, its masks, if any, and the chosen slots.

  Raises:
    ValueError: if the shapes do not match.
  """
  shapes = {
    "images": (collage.images, "N H W C"),
    "recons": (collage.recons, "N H W C"),
    "components": (collage.components, "N K H W C"),
    "masks": (collage.masks, "N K H W 1"),
    "scene.recons": (collage.scene.recons, "H W C"),
  }
  num_chosen = len(collage.chosen)
  if collage.scene.masks is not None:
    shapes["scene.masks"] = (collage.scene.masks, f"{num_chosen} H W 1")
  sizes = check_shapes(shapes)
  num_scenes, num_slots = sizes["N"], sizes["K"]
  names = [
    f"Scene {b + 1 if numbers is None else numbers[b]}" for b in collage.scenes
  ]
  titles = ["Image", "Reconstruction"]
  titles += [f"Slot {k + 1}" for k in range(num_slots)]
  fig, axes = new_figure(
    num_scenes + 1,
    2 + max(num_slots, num_chosen),
    size,
    sizes["H"] / sizes["W"],
    titles=titles,
    row_labels=[*names, "Composed"],
    footer=True,
  )
  colors = get_mask_plot_colors(num_chosen)
  # Of a slot that is chosen twice, the first colour.
  uses = dict(zip(reversed(collage.chosen), colors[::-1], strict=True))
  for n, row in enumerate(axes[:-1]):
    show_img(collage.images[n], ax=row[0], color=_BLACK, lw=2.0 * size)
    show_img(collage.recons[n], ax=row[1], color=_BLACK, lw=2.0 * size)
    for k, ax in enumerate(row[2 : 2 + num_slots]):
      is_used = (n, k) in uses
      show_img(
        collage.components[n, k],
        mask=collage.masks[n, k],
        ax=ax,
        color=uses.get((n, k), _GRAY),
        lw=(3.0 if is_used else 0.5) * size,
      )
    _hide(row[2 + num_slots :])
  _show_composed(axes[-1], collage, names, colors, size)
  return fig


def _show_composed(
  row: np.ndarray,
  collage: Collage,
  names: Sequence[str],
  colors: np.ndarray,
  size: float,
) -> None:
  """Fills the last row of `composition_plot`."""
  font_size = label_font_size(size)
  show_img(collage.scene.recons, ax=row[0], color=_BLACK, lw=2.0 * size)
  row[0].set_xlabel("New scene", fontsize=font_size)
  if collage.scene.masks is None:
    _hide(row[1:2])
  else:
    masks = collage.scene.masks[..., 0]
    show_mask(masks, ax=row[1], color=_BLACK, lw=2.0 * size)
    row[1].set_xlabel("New masks", fontsize=font_size)
  for (n, k), color, ax in zip(collage.chosen, colors, row[2:], strict=False):
    show_img(
      collage.components[n, k],
      mask=collage.masks[n, k],
      ax=ax,
      color=color,
      lw=3.0 * size,
    )
    ax.set_xlabel(f"{names[n]}, slot {k + 1}", fontsize=font_size)
  _hide(row[2 + len(colors) :])


def _hide(axes: Iterable[mpl_axes.Axes]) -> None:
  for ax in axes:
    ax.set_visible(False)


def edited_plot(
  edited: Edited, slot: int, size: float = 1.5
) -> mpl_figure.Figure:
  """Plots a scene before and after its latents were changed.

  Args:
    edited: result of `exploration.EditedScene.render`.
    slot: the slot that is being changed, which has a thick frame.
    size: width of a panel.

  Returns:
    Image, scene as inferred, scene as edited, with boxes if there are any, its
    masks, if any, and every slot where its mask is; of a model that decodes no
    slot by itself, only the inferred picture of `slot`. Many panels take
    several rows.

  Raises:
    ValueError: if the shapes do not match, or `slot` is out of range.
  """
  shapes = {
    "image": (edited.image, "H W C"),
    "before": (edited.before.recons, "H W C"),
    "after": (edited.after.recons, "H W C"),
    "components": (edited.components, "K H W C"),
    "masks": (edited.masks, "K H W 1"),
  }
  if edited.after.masks is not None:
    shapes["after.masks"] = (edited.after.masks, "K H W 1")
  sizes = check_shapes(shapes)
  check_index("slot", slot, sizes["K"])
  has_masks = edited.after.masks is not None
  shown, note = range(sizes["K"]), ""
  if not edited.slots_are_edited:
    shown, note = range(slot, slot + 1), ", inferred"
  titles = ["Image", "Inferred", "Edited"] + ["Masks"] * has_masks
  titles += [f"Slot {k + 1}{note}" for k in shown]
  fig, axes = _titled_panels(titles, sizes["H"] / sizes["W"], size)
  frame: dict[str, Any] = {"color": _BLACK, "lw": 2.0 * size}
  show_img(edited.image, ax=axes[0], **frame)
  show_img(edited.before.recons, ax=axes[1], **frame)
  show_img(edited.after.recons, ax=axes[2], **frame)
  if edited.places is not None:
    draw_boxes(axes[2], **edited.places, size=size)
  if edited.after.masks is not None:
    show_mask(edited.after.masks[..., 0], ax=axes[3], **frame)
  colors = get_mask_plot_colors(sizes["K"])
  for k, ax in zip(shown, axes[3 + has_masks :], strict=True):
    show_img(
      edited.components[k],
      mask=edited.masks[k],
      ax=ax,
      color=colors[k],
      lw=(4.0 if k == slot else 1.0) * size,
    )
  return fig


def _titled_panels(
  titles: Sequence[str], aspect: float, size: float
) -> tuple[mpl_figure.Figure, list[mpl_axes.Axes]]:
  """A figure of titled panels, in as many rows of equal length as it takes."""
  num_rows = -(-len(titles) // _MOST_COLUMNS)
  num_cols = -(-len(titles) // num_rows)
  fig, grid = new_figure(num_rows, num_cols, size, aspect, titled_rows=True)
  axes = grid.ravel().tolist()
  _hide(axes[len(titles) :])
  for ax, title in zip(axes, titles, strict=False):
    ax.set_title(title, fontsize=label_font_size(size))
  return fig, axes[: len(titles)]


def reconstruction_plot(
  images: np.ndarray,
  recons: np.ndarray,
  rendered: np.ndarray,
  size: float = 1.5,
) -> mpl_figure.Figure:
  """Plots scenes, their reconstructions, and what their slots render.

  Args:
    images: [N, H, W, C].
    recons: [N, H, W, C].
    rendered: [N, H, W, C], see `exploration.render`.
    size: width of a panel.

  Returns:
    A figure of three rows, a column for each scene.

  Raises:
    ValueError: if the shapes do not match.
  """
  rows = {"images": images, "recons": recons, "rendered": rendered}
  sizes = check_shapes({k: (x, "N H W C") for k, x in rows.items()})
  fig, axes = new_figure(
    len(rows),
    sizes["N"],
    size,
    sizes["H"] / sizes["W"],
    row_labels=["Image", "Reconstruction", "From slots"],
  )
  for row, pictures in zip(axes, rows.values(), strict=True):
    for ax, picture in zip(row, pictures, strict=True):
      show_img(picture, ax=ax)
  return fig
