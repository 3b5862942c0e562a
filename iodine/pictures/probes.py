"""Figures of what slots tell of objects: NumPy in, Figures out.

Dimensions: Z latent size, F factors, P properties. Sizes are in inches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure

from iodine.checks import check_shapes
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.panels import NotebookFigure

__all__ = [
  "activeness_plot",
  "correlations_plot",
  "importances_plot",
  "properties_plot",
]

_BASELINE_COLOR = "#BBBBBB"
_BAR_COLOR = "#0072B2"
_GROUP = 0.8  # width of a group of bars, of the space between two
_MOST_LABELS = 24  # of latents along an axis
_DARK = 0.6  # correlation from which on its colour is dark


def properties_plot(
  panels: Mapping[str, Mapping[str, Sequence[float] | np.ndarray]],
  properties: Sequence[str],
  baseline: str,
) -> mpl_figure.Figure:
  """Plots how well probes predict properties, as groups of bars.

  Args:
    panels: {title: {probe: [P] scores, at most 1}}; what is below 0 is drawn as
      a little below.
    properties: P labels.
    baseline: the probe that is drawn in grey.

  Returns:
    The figure.

  Raises:
    ValueError: if shapes do not match.
  """
  width = 1.6 + 0.9 * len(properties)
  fig = NotebookFigure(figsize=(width, 2.6 * len(panels)), layout="constrained")
  axes = fig.subplots(len(panels), squeeze=False)[:, 0]
  for ax, (title, probes) in zip(axes, panels.items(), strict=True):
    _grouped_bars(ax, probes, len(properties), baseline)
    ax.set_title(title, fontsize=9)
    ax.set_xticks(range(len(properties)), properties, fontsize=8)
    ax.tick_params(axis="x", length=0)
    ax.tick_params(axis="y", labelsize=8)
    ax.set_ylim(-0.08, 1.0)
    ax.axhline(0.0, color="black", lw=0.6)
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
  axes[0].legend(
    fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0)
  )
  return fig


def _grouped_bars(
  ax: mpl_axes.Axes,
  probes: Mapping[str, Sequence[float] | np.ndarray],
  count: int,
  baseline: str,
) -> None:
  colors = iter(get_mask_plot_colors(len(probes)))
  bar = _GROUP / len(probes)
  for i, (name, values) in enumerate(probes.items()):
    heights = np.asarray(values, np.float64)
    check_shapes({name: (heights, str(count))})
    ax.bar(
      np.arange(count) + bar * (i + 0.5) - _GROUP / 2.0,
      np.maximum(heights, -0.05),
      bar,
      label=name,
      color=_BASELINE_COLOR if name == baseline else next(colors),
    )


def importances_plot(
  importances: np.ndarray, factors: Sequence[str]
) -> mpl_figure.Figure:
  """Plots how much every latent matters for every factor.

  Args:
    importances: [Z, F], not negative.
    factors: F labels.

  Returns:
    The figure: a row for each factor, a column for each latent.

  Raises:
    ValueError: if the shapes do not match.
  """
  return _factors_plot(
    importances, factors, "importance", cmap="Blues", vmin=0.0
  )


def correlations_plot(
  correlations: np.ndarray, factors: Sequence[str]
) -> mpl_figure.Figure:
  """Plots how closely every latent follows every factor.

  Args:
    correlations: [Z, F], from -1 to 1.
    factors: F labels.

  Returns:
    The figure: a row for each factor, a column for each latent, with numbers
    where there is room for them.

  Raises:
    ValueError: if the shapes do not match.
  """
  return _factors_plot(
    correlations,
    factors,
    "correlation",
    has_numbers=len(correlations) <= _MOST_LABELS,
    cmap="RdBu_r",
    vmin=-1.0,
    vmax=1.0,
  )


def _factors_plot(
  values: np.ndarray,
  factors: Sequence[str],
  title: str,
  has_numbers: bool = False,
  **colors: Any,
) -> mpl_figure.Figure:
  """A matrix of latents and factors, values [Z, F], with a bar of colours."""
  check_shapes({f"{title}s": (values, f"Z {len(factors)}")})
  num_latents = len(values)
  cell = min(0.4, 12.0 / num_latents)
  fig = NotebookFigure(
    figsize=(2.2 + cell * num_latents, 1.0 + 0.32 * len(factors)),
    layout="constrained",
  )
  ax = fig.subplots()
  image = ax.imshow(values.T, aspect="auto", **colors)
  if has_numbers:
    for latent, factor in np.ndindex(values.shape):
      value = values[latent, factor].round(1) + 0.0  # no negative zero
      ax.text(
        latent,
        factor,
        f"{value:.1f}".replace("-", "\u2212"),
        color="white" if abs(value) > _DARK else "black",
        fontsize=7,
        ha="center",
        va="center",
      )
  ax.set_yticks(range(len(factors)), factors, fontsize=8)
  every = -(-num_latents // _MOST_LABELS)
  ax.set_xticks(range(0, num_latents, every))
  ax.tick_params(labelsize=8, length=0)
  ax.set_xlabel("latent", fontsize=8)
  bar = fig.colorbar(image, ax=ax, pad=0.02)
  bar.ax.tick_params(labelsize=7)
  bar.set_label(title, fontsize=8)
  return fig


def activeness_plot(activeness: np.ndarray) -> mpl_figure.Figure:
  """Plots how much every latent changes scenes, the most active first.

  Args:
    activeness: [Z], see `exploration.activeness`.

  Returns:
    The figure.

  Raises:
    ValueError: if the shape is another one.
  """
  check_shapes({"activeness": (activeness, "Z")})
  order = np.argsort(-activeness, kind="stable")
  count = len(order)
  fig = NotebookFigure(
    figsize=(1.4 + min(0.3 * count, 12.0), 2.6), layout="constrained"
  )
  ax = fig.subplots()
  ax.bar(range(count), activeness[order], color=_BAR_COLOR)
  size = 8 if count <= 2 * _MOST_LABELS else 5
  ax.set_xticks(range(count), order, fontsize=size)
  ax.tick_params(axis="x", length=0, rotation=90 if count > _MOST_LABELS else 0)
  ax.tick_params(axis="y", labelsize=8)
  ax.ticklabel_format(axis="y", scilimits=(-2, 2))
  ax.yaxis.get_offset_text().set_fontsize(8)
  ax.set_xlim(-0.6, count - 0.4)
  ax.set_xlabel("latent", fontsize=8)
  ax.set_ylabel("activeness", fontsize=8)
  ax.grid(axis="y", alpha=0.3)
  ax.set_axisbelow(True)
  return fig
