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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure

from iodine.checks import check_shapes
from iodine.pictures import inferred
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.masks import entity_colors
from iodine.pictures.panels import new_figure, show_img, show_mask

__all__ = [
  "decomposition_figure",
  "decomposition_plot",
  "example_plot",
  "scenes_decomposition_plot",
  "show_decomposition",
]

_BLACK = "#000000"


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
  arrays = inferred.example(rinfo, b)
  pred_mask = arrays["pred_mask"]
  t = inferred.index("t", t, len(pred_mask))
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
  num_background: int = 1,
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
    num_background: how many true masks are background.

  Returns:
    B rows of image, reconstruction, masks, true masks (if given) and K slots.
    True masks have the colours of the slots that found them, see
    `masks.entity_colors`.

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
      true_colors=None
      if true_masks is None
      else entity_colors(true_masks[b], masks[b], num_background),
      mask_components=mask_components,
      lw=2.0 * size,
    )
  return fig


def scenes_decomposition_plot(
  rinfo: Mapping[str, Any],
  num_scenes: int = 4,
  size: float = 1.5,
  num_background: int = 1,
) -> mpl_figure.Figure:
  """Plots decompositions of the first scenes after the last step.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    num_scenes: maximum number of scenes.
    size: width of a panel.
    num_background: how many true masks are background.

  Returns:
    The figure of `decomposition_plot`. If `rinfo` has true masks, they are
    shown, and rows are labelled with the ARI without background.

  Raises:
    ValueError: if an array is missing or misshapen.
  """
  last = {
    name: inferred.get(rinfo, "outputs", name)[:num_scenes, -1]
    for name in ("recons", "pred_mask", "components")
  }
  true_masks, labels = rinfo["data"].get("true_mask"), None
  if true_masks is not None:
    true_masks = np.asarray(true_masks)[:num_scenes, -1]
    scores = inferred.get(rinfo, "metrics", "ari_nobg")[:num_scenes, -1]
    labels = [f"ARI {x:.2f}" if np.isfinite(x) else "" for x in scores]
  return decomposition_plot(
    inferred.get(rinfo, "data", "image")[:num_scenes, -1],
    last["recons"][:, 0],
    last["pred_mask"],
    last["components"],
    true_masks=true_masks,
    row_labels=labels,
    size=size,
    num_background=num_background,
  )


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
  colors=None,
  true_colors=None,
):
  """Fills a row: image, reconstruction, masks, [true mask], components."""
  panels = iter(row)
  if colors is None:
    colors = get_mask_plot_colors(len(components))
  frame = {"color": _BLACK, "lw": lw}
  show_img(image, ax=next(panels), **frame)
  show_img(recons, ax=next(panels), **frame)
  show_mask(masks[..., 0], ax=next(panels), colors=colors, **frame)
  if true_mask is not None:
    show_mask(true_mask[..., 0], ax=next(panels), colors=true_colors, **frame)
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
