"""Figures of the same scenes by several models: NumPy in, Figures out.

Dimensions: N scenes, K slots, which may differ from model to model, L true
entities, H height, W width, C channels (1 or 3). Images and masks are in
[0, 1], sizes in inches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import figure as mpl_figure

from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.decompositions import (
  decomposition_figure,
  show_decomposition,
)
from iodine.pictures.masks import object_colors
from iodine.pictures.panels import new_figure, show_img, show_mask

__all__ = ["Decomposed", "of_info", "scenes_plot", "slots_plot"]

_LABEL_WIDTH = 17  # characters in a line of a row's label


class Decomposed(NamedTuple):
  """What a model makes of scenes.

  Attributes:
    name: of the model.
    image: [N, H, W, C], as the model was shown them.
    true_masks: [N, L, H, W, 1] or None.
    recons: [N, H, W, C].
    masks: [N, K, H, W, 1].
    components: [N, K, H, W, C].
    num_background: how many true masks are background.
  """

  name: str
  image: np.ndarray
  true_masks: np.ndarray | None
  recons: np.ndarray
  masks: np.ndarray
  components: np.ndarray
  num_background: int = 1

  def colors(self, n: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Colours of a scene's true entities and of its slots.

    Args:
      n: index of the scene.

    Returns:
      See `masks.object_colors`; without true masks, None and those of slots.
    """
    if self.true_masks is None:
      return None, get_mask_plot_colors(self.masks.shape[1])
    return object_colors(self.true_masks[n], self.masks[n], self.num_background)


def of_info(
  name: str, info: Mapping[str, Any], num_background: int = 1
) -> Decomposed:
  """Takes the last step of the result of `exploration.infer`.

  Args:
    name: of the model.
    info: what it inferred.
    num_background: how many true masks are background.
  """
  data, outputs = info["data"], info["outputs"]
  true_masks = data.get("true_mask")
  return Decomposed(
    name,
    data["image"][:, -1],
    None if true_masks is None else true_masks[:, -1],
    outputs["recons"][:, -1, 0],
    outputs["pred_mask"][:, -1],
    outputs["components"][:, -1],
    num_background,
  )


def scenes_plot(
  models: Sequence[Decomposed], numbers: Sequence[int], size: float = 1.5
) -> mpl_figure.Figure:
  """Plots reconstructions and masks of several models.

  Args:
    models: at least one, all of the same scenes.
    numbers: of the scenes, N.
    size: width of a panel.

  Returns:
    A column for each scene: the image and its true masks, if any, as the first
    model sees them; below, reconstruction and masks of each model. Objects and
    the slots that found them have the same colours, see `Decomposed.colors`.
  """
  first = models[0]
  has_masks = first.true_masks is not None
  labels = ["Image", *["True mask"] * has_masks]
  for model in models:
    labels += [_label(model.name), "Mask"]
  height, width = first.image.shape[1:3]
  fig, axes = new_figure(
    len(labels),
    len(numbers),
    size,
    height / width,
    titles=[f"Scene {number}" for number in numbers],
    row_labels=labels,
  )
  for n, column in enumerate(axes.T):
    panels = iter(column)
    show_img(first.image[n], ax=next(panels))
    if first.true_masks is not None:
      colors, _ = first.colors(n)
      show_mask(first.true_masks[n, ..., 0], ax=next(panels), colors=colors)
    for model in models:
      _, colors = model.colors(n)
      show_img(model.recons[n], ax=next(panels))
      show_mask(model.masks[n, ..., 0], ax=next(panels), colors=colors)
  return fig


def slots_plot(
  models: Sequence[Decomposed], n: int = 0, size: float = 1.5
) -> mpl_figure.Figure:
  """Plots the slots that several models find in a scene.

  Args:
    models: at least one, all of the same scenes.
    n: index of the scene.
    size: width of a panel.

  Returns:
    A row for each model: image, reconstruction, masks, true masks, if any, and
    its slots where their masks are, in the colours of `scenes_plot`.
  """
  first = models[0]
  most = max(len(model.masks[n]) for model in models)
  has_masks = first.true_masks is not None
  fig, axes = decomposition_figure(
    len(models),
    most,
    first.image.shape[1:3],
    size,
    true_mask=has_masks,
    row_labels=[_label(model.name) for model in models],
  )
  for model, row in zip(models, axes, strict=True):
    missing = most - len(model.masks[n])
    shown = len(row) - missing
    true_colors, colors = model.colors(n)
    show_decomposition(
      row[:shown],
      model.image[n],
      model.recons[n],
      model.masks[n],
      model.components[n],
      true_mask=None if model.true_masks is None else model.true_masks[n],
      mask_components=True,
      lw=2.0 * size,
      colors=colors,
      true_colors=true_colors,
    )
    for ax in row[shown:]:
      ax.set_visible(False)
  return fig


def _label(name: str) -> str:
  return "\n".join(textwrap.wrap(name, _LABEL_WIDTH))
