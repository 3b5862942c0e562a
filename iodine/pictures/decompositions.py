"""Figures of what a model infers: NumPy arrays in, matplotlib Figures out.

The figures are independent of pyplot: they need no closing and display
themselves in a notebook. Save one with `figure.savefig(path)`.

`rinfo` is the result of the model's `eval` as NumPy arrays; its inputs at step
t are those that led to step t (zeros for t = 0). Dimensions: B batch, T steps
(the results of `SceneModel.infer`), K slots, L true entities, H height, W
width, C channels (1 or 3). Images are floats in [0, 1], sizes in inches. NaN
pixels are magenta.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib import image as mpl_image
from matplotlib import ticker

from iodine.checks import check_shapes
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.panels import (
  GAP,
  clean_ax,
  label_font_size,
  new_figure,
  show_coords,
  show_img,
  show_mask,
  show_mat,
  step_labels,
  value_range,
)

__all__ = (
  "clean_ax",
  "decomposition_figure",
  "decomposition_plot",
  "example_plot",
  "get_mask_plot_colors",
  "inputs_plot",
  "iterations_plot",
  "scenes_decomposition_plot",
  "show_coords",
  "show_decomposition",
  "show_img",
  "show_mask",
  "show_mat",
)

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


def example_plot(
  rinfo: Mapping[str, Any],
  b: int = 0,
  t: int = -1,
  mask_components: bool = False,
  size: float = 2,
  column_titles: bool = True,
) -> mpl_figure.Figure:
  """Plots image, reconstruction, masks and components of one step.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    b: index of the example in the batch.
    t: refinement step.
    mask_components: whether to hide a component outside its mask.
    size: width of a panel.
    column_titles: whether to name the panels.

  Returns:
    A figure of one row and 3 + K columns.

  Raises:
    ValueError: if an array is missing or misshapen, or `b` or `t` out of range.
  """
  arrays = _example_arrays(rinfo, b)
  pred_mask = arrays["pred_mask"]
  t = _index("t", t, len(pred_mask))
  fig, axes = decomposition_figure(
    1,
    len(pred_mask[t]),
    arrays["image"].shape[-3:-1],
    size,
    column_titles,
  )
  show_decomposition(
    axes[0],
    arrays["image"][min(t, len(arrays["image"]) - 1)],
    arrays["recons"][t, 0],
    pred_mask[t],
    arrays["components"][t],
    mask_components=mask_components,
    lw=2.0 * size,
  )
  return fig


def decomposition_plot(
  image: np.ndarray,
  recons: np.ndarray,
  masks: np.ndarray,
  components: np.ndarray,
  true_masks: np.ndarray | None = None,
  row_labels: Sequence[str] | None = None,
  mask_components: bool = True,
  size: float = 1.5,
) -> mpl_figure.Figure:
  """Plots decompositions of scenes, one row per scene.

  Args:
    image: [B, H, W, C].
    recons: [B, H, W, C].
    masks: [B, K, H, W, 1].
    components: [B, K, H, W, C].
    true_masks: [B, L, H, W, 1] or None.
    row_labels: a label for each scene (such as "ARI 0.98") or None.
    mask_components: whether to hide a slot outside its mask.
    size: width of a panel.

  Returns:
    B rows of image, reconstruction, masks, true masks (if given) and K slots.

  Raises:
    ValueError: if an array is misshapen, or there are not B labels.
  """
  image, recons, masks, components = map(
    np.asarray, (image, recons, masks, components)
  )
  checks = {
    "image": (image, "B H W C"),
    "recons": (recons, "B H W C"),
    "masks": (masks, "B K H W 1"),
    "components": (components, "B K H W C"),
  }
  if true_masks is not None:
    true_masks = np.asarray(true_masks)
    checks["true_masks"] = (true_masks, "B L H W 1")
  sizes = check_shapes(checks)
  if row_labels is not None and len(row_labels) != sizes["B"]:
    raise ValueError(
      f"row_labels has {len(row_labels)} texts for {sizes['B']} images."
    )
  fig, axes = decomposition_figure(
    sizes["B"],
    sizes["K"],
    image.shape[1:3],
    size,
    true_mask=true_masks is not None,
    row_labels=row_labels,
  )
  for b, row in enumerate(axes):
    show_decomposition(
      row,
      image[b],
      recons[b],
      masks[b],
      components[b],
      true_mask=None if true_masks is None else true_masks[b],
      mask_components=mask_components,
      lw=2.0 * size,
    )
  return fig


def scenes_decomposition_plot(
  rinfo: Mapping[str, Any], num_scenes: int = 4, size: float = 1.5
) -> mpl_figure.Figure:
  """Plots decompositions of the first scenes after the last step.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    num_scenes: maximum number of scenes.
    size: width of a panel.

  Returns:
    The figure of `decomposition_plot`. If `rinfo` has true masks, they are
    shown, and rows are labelled with the ARI without background.

  Raises:
    ValueError: if an array is missing or misshapen.
  """
  last = {
    name: _get(rinfo, "outputs", name)[:num_scenes, -1]
    for name in ("recons", "pred_mask", "components")
  }
  true_masks, labels = rinfo["data"].get("true_mask"), None
  if true_masks is not None:
    true_masks = np.asarray(true_masks)[:num_scenes, -1]
    scores = _get(rinfo, "metrics", "ari_nobg")[:num_scenes, -1]
    labels = [f"ARI {x:.2f}" if np.isfinite(x) else "" for x in scores]
  return decomposition_plot(
    _get(rinfo, "data", "image")[:num_scenes, -1],
    last["recons"][:, 0],
    last["pred_mask"],
    last["components"],
    true_masks=true_masks,
    row_labels=labels,
    size=size,
  )


def iterations_plot(
  rinfo: Mapping[str, Any],
  b: int = 0,
  mask_components: bool = False,
  size: float = 2,
  first_step: int = 0,
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

  Returns:
    A figure of T + 1 rows and 2 + K columns (3 + K for a sequence).

  Raises:
    ValueError: if an array is missing or misshapen, or `b` out of range.
  """
  arrays = _example_arrays(rinfo, b)
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
  if is_sequence:
    for t, ax in enumerate(axes[:-1, 0]):
      show_img(image[min(t, len(image) - 1)], ax=ax)
    axes[-1, 0].set_visible(False)
    axes = axes[:, 1:]
  colors = get_mask_plot_colors(num_slots)
  for t in range(num_steps):
    show_img(arrays["recons"][t, 0], ax=axes[t, 0])
    show_mask(arrays["pred_mask"][t, ..., 0], ax=axes[t, 1])
    for k in range(num_slots):
      show_img(
        components[t, k],
        ax=axes[t, k + 2],
        color=colors[k],
        lw=2.0 * size,
        mask=arrays["pred_mask"][t, k] if mask_components else None,
      )
  _show_last_row(axes[-1], arrays, label_font_size(size))
  return fig


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
  components = _get(rinfo, "outputs", "components")
  inputs = _get(rinfo, "inputs", "spatial")
  if not inputs:
    raise ValueError("rinfo['inputs']['spatial'] is empty: nothing to plot.")
  sizes = check_shapes({"components": (components, "B T K H W C")})
  names = [name for name in _INPUTS_ORDER if name in inputs]
  names += sorted(set(inputs) - set(names))
  b = _index("b", b, sizes["B"])
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
    value = value[b, _index("t", t, value.shape[1])]
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


def _show_last_row(row, arrays, font_size):
  """Fills the last row of `iterations_plot`."""
  show_img(arrays["image"][-1], ax=row[0])
  row[0].set_xlabel(
    "Image" if len(arrays["image"]) == 1 else "Last frame", fontsize=font_size
  )
  if "true_mask" in arrays:
    show_mask(arrays["true_mask"][-1, ..., 0], ax=row[1])
    row[1].set_xlabel("True mask", fontsize=font_size)
  else:
    row[1].set_visible(False)
  if "pred_mask_logits" not in arrays:
    for ax in row[2:]:
      ax.set_visible(False)
    return
  logits = arrays["pred_mask_logits"][-1]
  vmin, vmax = value_range(logits)
  for k, ax in enumerate(row[2:]):
    show_mat(logits[k], ax=ax, vmin=vmin, vmax=vmax)
    ax.set_xlabel(f"Mask logits {k + 1}", fontsize=font_size)


def decomposition_figure(
  num_rows,
  num_slots,
  image_size,
  size,
  titled=True,
  true_mask=False,
  row_labels=None,
):
  """Returns figure and axes for `show_decomposition`, one row per scene."""
  titles = (
    ["Image", "Reconstruction", "Mask"]
    + ["True mask"] * true_mask
    + [f"Slot {k + 1}" for k in range(num_slots)]
  )
  height, width = image_size
  return new_figure(
    num_rows,
    len(titles),
    size,
    height / width,
    titles=titles if titled else None,
    row_labels=row_labels,
  )


def show_decomposition(
  row,
  image,
  recons,
  masks,
  components,
  true_mask=None,
  mask_components=False,
  lw=4.0,
):
  """Fills a row: image, reconstruction, masks, [true mask], components."""
  panels = iter(row)
  show_img(image, ax=next(panels), color=_BLACK, lw=lw)
  show_img(recons, ax=next(panels), color=_BLACK, lw=lw)
  show_mask(masks[..., 0], ax=next(panels), color=_BLACK, lw=lw)
  if true_mask is not None:
    show_mask(true_mask[..., 0], ax=next(panels), color=_BLACK, lw=lw)
  colors = get_mask_plot_colors(len(components))
  for component, mask, color, ax in zip(
    components, masks, colors, panels, strict=True
  ):
    show_img(
      component,
      ax=ax,
      color=color,
      lw=lw,
      mask=mask if mask_components else None,
    )


def _example_arrays(rinfo: Mapping[str, Any], b: int) -> dict[str, np.ndarray]:
  """Returns the arrays of example `b` without their batch dimension."""
  dims = {
    "recons": "B T 1 H W C",
    "pred_mask": "B T K H W 1",
    "components": "B T K H W C",
  }
  if "pred_mask_logits" in rinfo.get("outputs", {}):
    dims["pred_mask_logits"] = "B T K H W 1"
  arrays = {name: _get(rinfo, "outputs", name) for name in dims}
  # A still image has one frame, a sequence at least one per step.
  arrays["image"] = _get(rinfo, "data", "image")
  dims["image"] = "B F H W C"
  if rinfo["data"].get("true_mask") is not None:
    arrays["true_mask"] = _get(rinfo, "data", "true_mask")
    dims["true_mask"] = "B F L H W 1"
  sizes = check_shapes({k: (arrays[k], dims[k]) for k in dims})
  b = _index("b", b, sizes["B"])
  return {name: array[b] for name, array in arrays.items()}


def _get(rinfo: Mapping[str, Any], section: str, name: str) -> Any:
  """Returns `rinfo[section][name]`, a dict or an array."""
  values = rinfo.get(section, {})
  if name not in values:
    raise ValueError(
      f"rinfo['{section}']['{name}'] is missing; rinfo['{section}'] has: "
      f"{', '.join(sorted(values)) or 'nothing'}."
    )
  value = values[name]
  return value if isinstance(value, Mapping) else np.asarray(value)


def _index(name: str, index: int, length: int) -> int:
  """Returns `index` counted from the start."""
  if not -length <= index < length:
    raise ValueError(
      f"{name}={index} is out of range; valid: {-length} to {length - 1}."
    )
  return index % length
