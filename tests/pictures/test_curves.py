"""Tests for iodine.pictures.curves."""

import matplotlib as mpl
import numpy as np
import pytest

from iodine.pictures import curves


def test_a_panel_for_each_score():
  fig = curves.scores_plot({"ARI": [0.5, 0.75], "MSE": [2.0, 1.0]}, 1, 2.0, 3)
  ari, mse = fig.axes
  assert (ari.get_title(), mse.get_title()) == ("ARI", "MSE")
  (line,) = ari.lines
  np.testing.assert_array_equal(line.get_xydata(), [[3, 0.5], [4, 0.75]])
  assert ari.get_legend() is None


def test_several_lines_share_a_panel():
  lines = {"2 slots": [0.5, 0.75], "3 slots": np.array([0.25, 0.5, 1.0])}
  (ax,) = curves.scores_plot({"ARI": lines}).axes
  assert [line.get_ydata().tolist() for line in ax.lines] == [
    [0.5, 0.75],
    [0.25, 0.5, 1.0],
  ]
  legend = ax.get_legend()
  assert [text.get_text() for text in legend.texts] == ["2 slots", "3 slots"]
  colors = [mpl.colors.to_hex(line.get_color()) for line in ax.lines]
  assert len(set(colors)) == 2


def test_nothing_to_plot():
  with pytest.raises(ValueError, match="scores is empty"):
    curves.scores_plot({})
  with pytest.raises(ValueError, match="curves is empty"):
    curves.curves_plot({})
