"""Panels of a figure, and the figures that hold them.

Images are floats in [0, 1], sizes in inches. Pixels that are NaN are drawn in
magenta.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import image as mpl_image

from iodine.checks import check_shapes
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.masks import on_checkerboard, segmentation

__all__ = (
  "GAP",
  "NotebookFigure",
  "clean_ax",
  "label_font_size",
  "new_figure",
  "show_coords",
  "show_img",
  "show_mask",
  "show_mat",
  "step_labels",
  "value_range",
)

_NAN_COLOR = (1.0, 0.0, 1.0)
GAP = 0.08  # inches between panels
_MARGIN = 0.1  # inches around a figure, where there is no text
_LINE = 0.022  # height of a line of text, in inches per point of font size


def clean_ax(ax: mpl_axes.Axes, color: Any = None, lw: float = 4.0) -> None:
  """Removes the ticks of `ax` and, given a colour, draws a frame around it."""
  ax.set_xticks([])
  ax.set_yticks([])
  if color is not None:
    for spine in ax.spines.values():
      spine.set_linewidth(lw)
      spine.set_color(color)


def show_img(
  img: np.ndarray,
  mask: np.ndarray | None = None,
  ax: mpl_axes.Axes | None = None,
  norm: bool = False,
  color: Any = None,
  lw: float = 4.0,
) -> mpl_image.AxesImage:
  """Shows an image, and a checkerboard where a mask hides it.

  Args:
    img: [H, W, C]. Only the first three channels are shown; of two, only the
      first (a decoder's parameters: the location).
    mask: [H, W, 1] in [0, 1] or None.
    ax: axes to draw into; by default those of a new figure.
    norm: whether to stretch values to [0, 1]; otherwise they are clipped.
    color: colour of the frame or None.
    lw: width of the frame in points.
  """
  img = np.asarray(img, np.float32)
  check_shapes({"img": (img, "H W C")})
  img = img[..., :3] if img.shape[-1] >= 3 else img[..., :1].repeat(3, -1)
  img = _stretch(img) if norm else np.clip(img, 0.0, 1.0)
  if mask is not None:
    check_shapes({"img": (img, "H W C"), "mask": (mask, "H W 1")})
    img = on_checkerboard(img, np.clip(mask, 0.0, 1.0))
  return _show_rgb(img, ax, color, lw)


def show_mask(
  m: np.ndarray,
  ax: mpl_axes.Axes | None = None,
  color: Any = None,
  lw: float = 4.0,
  colors: np.ndarray | None = None,
) -> mpl_image.AxesImage:
  """Shows soft masks [K, H, W] as a segmentation, one colour per slot.

  `colors` are those of the slots, see `masks.segmentation`; the other arguments
  are those of `show_img`.
  """
  m = np.asarray(m, np.float32)
  check_shapes({"m": (m, "K H W")})
  return _show_rgb(segmentation(np.moveaxis(m, 0, -1), colors), ax, color, lw)


def show_mat(
  m: np.ndarray,
  ax: mpl_axes.Axes | None = None,
  vmin: float | None = None,
  vmax: float | None = None,
  cmap: str = "viridis",
  color: Any = None,
  lw: float = 4.0,
) -> mpl_image.AxesImage:
  """Shows the first channel of [H, W, C] with a colour map.

  Args:
    m: [H, W, C].
    ax: axes to draw into; by default those of a new figure.
    vmin: lower end of the colour map; by default the minimum of `m`.
    vmax: upper end of the colour map; by default the maximum of `m`.
    cmap: name of the colour map.
    color: colour of the frame or None.
    lw: width of the frame in points.
  """
  m = np.asarray(m, np.float32)
  check_shapes({"m": (m, "H W C")})
  lower, upper = value_range(m[..., 0])
  ax = _new_ax() if ax is None else ax
  clean_ax(ax, color, lw)
  return ax.imshow(
    np.ma.masked_invalid(m[..., 0]),
    cmap=mpl.colormaps[cmap].with_extremes(bad=_NAN_COLOR),
    vmin=lower if vmin is None else vmin,
    vmax=upper if vmax is None else vmax,
    interpolation="nearest",
  )


def show_coords(
  m: np.ndarray,
  ax: mpl_axes.Axes | None = None,
  color: Any = None,
  lw: float = 4.0,
) -> mpl_image.AxesImage:
  """Shows coordinate channels [H, W, C], each in its own colour.

  The other arguments are those of `show_img`.
  """
  m = np.asarray(m, np.float32)
  check_shapes({"m": (m, "H W C")})
  rgb = _stretch(m) @ get_mask_plot_colors(m.shape[-1])
  return _show_rgb(rgb / max(value_range(rgb)[1], 1.0), ax, color, lw)


def value_range(values: np.ndarray) -> tuple[float, float]:
  """Returns minimum and maximum of the finite values, never equal."""
  finite = values[np.isfinite(values)]
  vmin, vmax = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
  if vmax - vmin < 1e-6:
    vmin, vmax = vmin - 0.1, vmax + 0.1
  return float(vmin), float(vmax)


def _stretch(values: np.ndarray) -> np.ndarray:
  """Maps the range of finite values to [0, 1], infinities to its ends."""
  vmin, vmax = value_range(values)
  return np.clip((values - vmin) / (vmax - vmin), 0.0, 1.0)


def _show_rgb(
  rgb: np.ndarray, ax: mpl_axes.Axes | None, color: Any, lw: float
) -> mpl_image.AxesImage:
  """Shows [H, W, 3], clipped to [0, 1], NaN pixels in magenta."""
  is_nan = np.isnan(rgb).any(axis=-1, keepdims=True)
  rgb = np.where(is_nan, _NAN_COLOR, np.clip(rgb, 0.0, 1.0))
  ax = _new_ax() if ax is None else ax
  clean_ax(ax, color, lw)
  return ax.imshow(rgb, interpolation="nearest")


class NotebookFigure(mpl_figure.Figure):
  """A figure that notebooks display with any matplotlib backend."""

  def _repr_png_(self) -> bytes:
    buffer = io.BytesIO()
    self.savefig(buffer, format="png")
    return buffer.getvalue()


def _new_ax() -> mpl_axes.Axes:
  return new_figure(1, 1, 4.0, 1.0)[1][0, 0]


def step_labels(num_steps: int, first_step: int) -> list[str]:
  """Names of the results of `SceneModel.infer`.

  Args:
    num_steps: S, how many there are.
    first_step: see `SceneModel`.

  Returns:
    S labels: "step <number>", and "layer <number>", from 1 on, of the layers of
    a hierarchy.
  """
  num_layers = 1 - first_step if first_step < 0 else 0
  return [
    f"layer {t + 1}" if t < num_layers else f"step {t + first_step}"
    for t in range(num_steps)
  ]


def label_font_size(extent: float) -> float:
  """Returns the font size at which any label fits `extent` inches."""
  return min(10.0, 8.0 * extent)


def new_figure(
  num_rows: int,
  num_cols: int,
  size: float,
  aspect: float,
  titles: Sequence[str | None] | None = None,
  row_labels: Sequence[str] | None = None,
  footer: bool = False,
  right: float = _MARGIN,
  titled_rows: bool = False,
) -> tuple[NotebookFigure, np.ndarray]:
  """Returns a figure and its axes, [rows, columns]; lengths are in inches.

  Args:
    num_rows: number of rows of panels.
    num_cols: number of columns of panels.
    size: width of a panel.
    aspect: height of a panel divided by its width.
    titles: a title for each column or None.
    row_labels: a label for each row, of one or several lines, or None.
    footer: whether to leave space for labels below the last row.
    right: right margin.
    titled_rows: whether to leave space for titles above every row.
  """
  if size <= 0:
    raise ValueError(f"size must be positive, got {size}.")
  title_size, label_size = label_font_size(size), label_font_size(size * aspect)
  num_lines = max((s.count("\n") + 1 for s in row_labels or ()), default=0)
  left = num_lines * _LINE * label_size + GAP if num_lines else _MARGIN
  title = _LINE * title_size + GAP
  top = title if titles or titled_rows else _MARGIN
  row_gap = title if titled_rows else GAP
  bottom = title if footer else _MARGIN
  inner_width = num_cols * size + (num_cols - 1) * GAP
  inner_height = num_rows * size * aspect + (num_rows - 1) * row_gap
  width, height = left + inner_width + right, bottom + inner_height + top
  fig = NotebookFigure(figsize=(width, height))
  axes = fig.subplots(
    num_rows,
    num_cols,
    squeeze=False,
    gridspec_kw={
      "left": left / width,
      "right": 1.0 - right / width,
      "bottom": bottom / height,
      "top": 1.0 - top / height,
      "wspace": GAP / size,
      "hspace": row_gap / (size * aspect),
    },
  )
  for ax, text in zip(axes[0], titles or (), strict=False):
    ax.set_title(text, fontsize=title_size)
  for ax, label in zip(axes[:, 0], row_labels or (), strict=False):
    ax.set_ylabel(label, fontsize=label_size)
  return fig, axes
