"""Curves: scores over refinement steps, scalars over training steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib import ticker

from iodine.checks import check_shapes
from iodine.pictures.panels import NotebookFigure

__all__ = ["curves_plot", "scores_plot"]

_LINE_COLOR = "#0072B2"
# From dark to pale, the palest of which still shows on white.
_LINE_COLORS = mpl.colormaps["viridis"]
_PALEST = 0.85

_Line = Sequence[float] | np.ndarray


def scores_plot(
  scores: Mapping[str, _Line | Mapping[str, _Line]],
  num_cols: int = 4,
  size: float = 2.6,
  first_step: int = 0,
) -> mpl_figure.Figure:
  """Plots scores over refinement steps, one panel each.

  Args:
    scores: {title: one value per step}, or, for several lines in a panel,
      {title: {label: one value per step}}.
    num_cols: panels in a row.
    size: width of a panel.
    first_step: number of the first step, see `SceneModel`.

  Returns:
    The figure.

  Raises:
    ValueError: if there is no score.
  """
  if not scores:
    raise ValueError("scores is empty: there is nothing to plot.")
  fig, axes = _panels(len(scores), num_cols, size)
  for ax, (title, values) in zip(axes, scores.items(), strict=False):
    lines = values if isinstance(values, Mapping) else {None: values}
    for (label, line), color in zip(lines.items(), _colors(lines), strict=True):
      steps = range(first_step, first_step + len(line))
      ax.plot(steps, line, marker=".", color=color, label=label)
    if isinstance(values, Mapping):
      ax.legend(fontsize=8)
    ax.set_title(title, fontsize=9)
    ax.set_xlabel("refinement step", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    ax.yaxis.set_major_locator(ticker.MaxNLocator(5))
    ax.grid(alpha=0.3)
  for ax in axes[len(scores) :]:
    ax.set_visible(False)
  return fig


def _colors(lines: Collection) -> list:
  """Colours of a panel's lines, in their order."""
  if len(lines) == 1:
    return [_LINE_COLOR]
  return list(_LINE_COLORS(np.linspace(0.0, _PALEST, len(lines))))


_SMOOTHING = 25  # a running mean spans 1 / _SMOOTHING of a curve


def curves_plot(
  curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
  num_cols: int = 4,
  size: float = 2.6,
) -> mpl_figure.Figure:
  """Plots scalars over training steps, one panel each.

  Args:
    curves: {title: (steps [n], values [n])}, n at least 1.
    num_cols: panels in a row.
    size: width of a panel.

  Returns:
    The figure: the values, drawn faintly, and their running mean.

  Raises:
    ValueError: if there is no curve, or the shapes do not match.
  """
  if not curves:
    raise ValueError("curves is empty: there is nothing to plot.")
  fig, axes = _panels(len(curves), num_cols, size)
  for ax, (title, (steps, values)) in zip(axes, curves.items(), strict=False):
    check_shapes({"steps": (steps, "n"), f"{title} values": (values, "n")})
    ax.plot(steps, values, color=_LINE_COLOR, alpha=0.25, lw=0.8)
    marker = "." if len(steps) == 1 else None
    ax.plot(steps, _smoothed(values), color=_LINE_COLOR, lw=1.4, marker=marker)
    ax.set_title(title, fontsize=9)
    ax.set_xlabel("training step", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    ax.yaxis.set_major_locator(ticker.MaxNLocator(5))
    ax.grid(alpha=0.3)
  for ax in axes[len(curves) :]:
    ax.set_visible(False)
  return fig


def _smoothed(values: np.ndarray) -> np.ndarray:
  """Centred running mean of the finite values."""
  half = len(values) // (2 * _SMOOTHING)
  kernel = np.ones(2 * half + 1)
  finite = np.isfinite(values)
  total = np.convolve(np.where(finite, values, 0.0), kernel, "same")
  count = np.convolve(finite, kernel, "same")
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _panels(
  count: int, num_cols: int, size: float
) -> tuple[NotebookFigure, np.ndarray]:
  """A figure and its axes, row by row; as many as a whole grid has."""
  num_cols = min(num_cols, count)
  num_rows = -(-count // num_cols)
  fig = NotebookFigure(
    figsize=(num_cols * size, num_rows * size * 0.8), layout="constrained"
  )
  return fig, fig.subplots(num_rows, num_cols, squeeze=False).ravel()
