"""Colours of slots."""

from __future__ import annotations

import numpy as np
from matplotlib import colors as mpl_colors

__all__ = ["get_mask_plot_colors"]

# The qualitative palette of Okabe and Ito (2008) without black, then Paul
# Tol's "muted" scheme, ordered so that each colour is the farthest from those
# before it under normal, protan, deutan and tritan vision.
_PALETTE = (
  "#E69F00",
  "#56B4E9",
  "#009E73",
  "#F0E442",
  "#0072B2",
  "#D55E00",
  "#CC79A7",
  "#332288",
  "#882255",
  "#117733",
  "#999933",
  "#88CCEE",
  "#DDCC77",
  "#AA4499",
  "#CC6677",
  "#44AA99",
)

_GOLDEN_RATIO = (5.0**0.5 - 1.0) / 2.0


def get_mask_plot_colors(nr_colors: int) -> np.ndarray:
  """Returns distinct colours for slots, safe for colour-blind readers.

  The first 16 are the palettes of Okabe-Ito (without black) and Paul Tol
  ("muted"). Further colours are saturated hues spaced by the golden ratio,
  unique but not safe for colour-blind readers. Slot k has the
  same colour for any `nr_colors`.

  Args:
    nr_colors: number of colours.

  Returns:
    [nr_colors, 3] float32 RGB in [0, 1].

  Raises:
    ValueError: if `nr_colors` is negative.
  """
  if nr_colors < 0:
    raise ValueError(f"nr_colors must not be negative, got {nr_colors}.")
  extra = np.arange(max(0, nr_colors - len(_PALETTE)))
  hues = np.stack(
    [extra * _GOLDEN_RATIO % 1.0, np.ones(len(extra)), np.ones(len(extra))],
    axis=-1,
  )
  colors = np.concatenate(
    [[mpl_colors.to_rgb(c) for c in _PALETTE], mpl_colors.hsv_to_rgb(hues)]
  )
  return colors[:nr_colors].astype(np.float32)
