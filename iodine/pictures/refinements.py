"""Figures of how a decomposition comes about, and of what refines it.

See `iodine.pictures.decompositions` for `rinfo` and the dimensions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib import image as mpl_image
from matplotlib import ticker

from iodine.checks import check_shapes
from iodine.pictures import inferred
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.masks import entity_colors
from iodine.pictures.panels import (
  GAP,
  label_font_size,
  new_figure,
  show_coords,
  show_img,
  show_mask,
  show_mat,
  step_labels,
  value_range,
)

__all__ = ["inputs_plot", "iterations_plot"]

_BLACK = "#000000"
_COLORBAR_WIDTH = 0.14  # inches
_COLORBAR_MARGIN = 0.9  # inches for a colour bar and its numbers

# Inputs shown as images, and all spatial inputs in the order of their rows.
_IMAGE_INPUTS = ("image", "components")
_INPUTS_ORDER = (
  "image",
  "components",
  "dcomponents",
  "mask",
  "pred_mask",
  "dmask",
  "posterior",
  "log_prob",
  "counterfactual",
  "coordinates",
)


def iterations_plot(
  rinfo: Mapping[str, Any],
  b: int = 0,
  mask_components: bool = False,
  size: float = 2,
  first_step: int = 0,
  num_background: int = 1,
) -> mpl_figure.Figure:
  """Plots reconstruction, masks and components, one row per step.

  The last row shows the image and, if present, true masks and logits of the
  final masks. For a sequence, an extra first column shows each step's frame.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    b: index of the example in the batch.
    mask_components: whether to hide a component outside its mask.
    size: width of a panel.
    first_step: number of the first step, see `SceneModel`.
    num_background: how many true masks are background.

  Returns:
    A figure of T + 1 rows and 2 + K columns (3 + K for a sequence).

  Raises:
    ValueError: if an array is missing or misshapen, or `b` out of range.
  """
  arrays = inferred.example(rinfo, b)
  image, components = arrays["image"], arrays["components"]
  num_steps, num_slots, height, width, _ = components.shape
  is_sequence = len(image) > 1
  titles = (
    ["Frame"] * is_sequence
    + ["Reconstruction", "Mask"]
    + [f"Slot {k + 1}" for k in range(num_slots)]
  )
  labels = [*step_labels(num_steps, first_step), ""]
  fig, axes = new_figure(
    num_steps + 1,
    len(titles),
    size,
    height / width,
    titles=titles,
    row_labels=labels,
    footer=True,
  )
  colors = get_mask_plot_colors(num_slots)
  frame: dict[str, Any] = {"color": _BLACK, "lw": 2.0 * size}
  if is_sequence:
    for t, ax in enumerate(axes[:-1, 0]):
      show_img(image[min(t, len(image) - 1)], ax=ax, **frame)
    axes[-1, 0].set_visible(False)
    axes = axes[:, 1:]
  for t in range(num_steps):
    show_img(arrays["recons"][t, 0], ax=axes[t, 0], **frame)
    show_mask(arrays["pred_mask"][t, ..., 0], ax=axes[t, 1], **frame)
    for k in range(num_slots):
      show_img(
        components[t, k],
        ax=axes[t, k + 2],
        color=colors[k],
        lw=2.0 * size,
        mask=arrays["pred_mask"][t, k] if mask_components else None,
      )
  _show_last_row(axes[-1], arrays, num_background, label_font_size(size), frame)
  return fig


def _show_last_row(row, arrays, num_background, font_size, frame):
  """Fills the last row of `iterations_plot`."""
  show_img(arrays["image"][-1], ax=row[0], **frame)
  row[0].set_xlabel(
    "Image" if len(arrays["image"]) == 1 else "Last frame", fontsize=font_size
  )
  if "true_mask" in arrays:
    true_mask = arrays["true_mask"][-1]
    colors = entity_colors(true_mask, arrays["pred_mask"][-1], num_background)
    show_mask(true_mask[..., 0], ax=row[1], colors=colors, **frame)
    row[1].set_xlabel("True mask", fontsize=font_size)
  else:
    row[1].set_visible(False)
  if "pred_mask_logits" not in arrays:
    for ax in row[2:]:
      ax.set_visible(False)
    return
  logits = arrays["pred_mask_logits"][-1]
  vmin, vmax = value_range(logits)
  colors = get_mask_plot_colors(len(logits))
  for k, ax in enumerate(row[2:]):
    show_mat(
      logits[k], ax=ax, vmin=vmin, vmax=vmax, color=colors[k], lw=frame["lw"]
    )
    ax.set_xlabel(f"Mask logits {k + 1}", fontsize=font_size)


def inputs_plot(
  rinfo: Mapping[str, Any], b: int = 0, t: int = 0, size: float = 2
) -> mpl_figure.Figure:
  """Plots the spatial inputs of the refinement network, one per row.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    b: index of the example in the batch.
    t: refinement step that the inputs led to; for step 0 they are zero.
    size: width of a panel.

  Returns:
    One column per slot; inputs shared by all slots have a black frame.

  Raises:
    ValueError: if an array is missing or misshapen, there is no spatial input,
      or `b` or `t` is out of range.
  """
  components = inferred.get(rinfo, "outputs", "components")
  inputs = inferred.get(rinfo, "inputs", "spatial")
  if not inputs:
    raise ValueError("rinfo['inputs']['spatial'] is empty: nothing to plot.")
  sizes = check_shapes({"components": (components, "B T K H W C")})
  names = [name for name in _INPUTS_ORDER if name in inputs]
  names += sorted(set(inputs) - set(names))
  b = inferred.index("b", b, sizes["B"])
  fig, axes = new_figure(
    len(names),
    sizes["K"],
    size,
    sizes["H"] / sizes["W"],
    row_labels=names,
    titles=[f"Slot {k + 1}" for k in range(sizes["K"])],
    right=_COLORBAR_MARGIN,
  )
  for name, row in zip(names, axes, strict=True):
    value = np.asarray(inputs[name])
    slots = "1" if value.ndim > 2 and value.shape[2] == 1 else "K"
    check_shapes(
      {
        "components": (components, "B _ K H W _"),
        f"inputs/spatial/{name}": (value, f"B _ {slots} H W _"),
      }
    )
    value = value[b, inferred.index("t", t, value.shape[1])]
    _show_input(row, name, value, size)
  return fig


def _show_input(row, name, value, size):
  """Fills a row of `inputs_plot` with one input, [K or 1, H, W, C]."""
  show: Callable[..., mpl_image.AxesImage]
  has_colorbar = False
  if name == "coordinates":
    show = show_coords
  elif name in _IMAGE_INPUTS:
    show = show_img
  elif name == "dcomponents" or value.shape[-1] > 1:
    show = functools.partial(show_img, norm=True)
  else:
    has_colorbar = True
    vmin, vmax = value_range(value)
    if name == "dmask":  # the neutral colour means a zero gradient
      vmax = max(abs(vmin), abs(vmax))
      vmin = -vmax
    show = functools.partial(
      show_mat,
      vmin=vmin,
      vmax=vmax,
      cmap="coolwarm" if name == "dmask" else "viridis",
    )
  shared = len(value) == 1
  colors = get_mask_plot_colors(len(row))
  for k, ax in enumerate(row):
    mappable = show(
      value[0 if shared else k],
      ax=ax,
      lw=2.0 * size,
      color=_BLACK if shared else colors[k],
    )
  if has_colorbar:
    _draw_colorbar(mappable, size)


def _draw_colorbar(mappable, size):
  """Draws a colour bar at the right of a panel of width `size`."""
  ax = mappable.axes
  cax = ax.inset_axes([1.0 + GAP / size, 0.0, _COLORBAR_WIDTH / size, 1.0])
  # The labels of the outermost ticks would touch those of the next row.
  colorbar = ax.figure.colorbar(
    mappable,
    cax=cax,
    ticks=ticker.MaxNLocator(4, prune="both"),
    format=ticker.FuncFormatter(lambda value, _: f"{value:.4g}"),
  )
  height, width = mappable.get_size()
  colorbar.ax.tick_params(
    labelsize=0.8 * label_font_size(size * height / width)
  )
