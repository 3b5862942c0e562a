"""Tests for iodine.pictures.boxes."""

import numpy as np
import pytest

from iodine.pictures.boxes import boxes_plot
from iodine.pictures.colors import get_mask_plot_colors

B, K, H, W = 3, 4, 10, 20


def _rinfo():
  boxes = np.zeros([B, 1, K, 4])
  boxes[1, 0] = [
    [0.0, 0.0, 0.5, 0.2],
    [0.25, 0.5, 0.75, 1.0],
    [0.1, 0.1, 0.9, 0.9],
    [0.0, 0.0, 1.0, 1.0],
  ]
  presence, depth = np.zeros([B, 1, K]), np.zeros([B, 1, K])
  presence[1, 0] = [0.9, 0.6, 0.4, 0.0]
  depth[1, 0] = [2.0, -1.0, 0.0, 0.0]
  return {
    "data": {"image": np.full([B, 1, H, W, 3], 0.5)},
    "outputs": {"boxes": boxes, "presence": presence, "depth": depth},
  }


def test_boxes_of_present_objects_in_order_of_depth():
  fig = boxes_plot(_rinfo(), num_scenes=2)
  assert len(fig.axes) == 2
  empty, ax = fig.axes
  assert not empty.patches and not empty.texts
  behind, front = ax.patches  # drawn in this order
  colors = get_mask_plot_colors(K)
  for patch, corner, extent, slot in (
    (behind, (-0.5, -0.5), (10, 2), 0),
    (front, (4.5, 4.5), (10, 5), 1),
  ):
    np.testing.assert_allclose(patch.get_xy(), corner)
    np.testing.assert_allclose((patch.get_width(), patch.get_height()), extent)
    np.testing.assert_allclose(patch.get_edgecolor()[:3], colors[slot])
  assert [text.get_text() for text in ax.texts] == ["2", "1"]


def test_shapes_that_do_not_match():
  rinfo = _rinfo()
  rinfo["outputs"]["presence"] = np.zeros([B, 1, K + 1])
  with pytest.raises(ValueError, match="presence has shape"):
    boxes_plot(rinfo)
