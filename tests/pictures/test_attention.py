"""Tests for iodine.pictures.attention."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colors as mpl_colors

from iodine.pictures import attention as attention_pictures
from iodine.pictures.colors import get_mask_plot_colors

pytestmark = pytest.mark.filterwarnings("error")

# Odd and distinct, so that swapped axes fail.
B, S, K, H, W = 2, 3, 4, 7, 9


def _rinfo(channels=3, num_frames=1):
  rng = np.random.default_rng(0)
  attention = rng.uniform(size=[B, S, K, H, W, 1])
  return {
    "data": {"image": rng.uniform(size=[B, num_frames, H, W, channels])},
    "outputs": {"attention": attention / attention.sum(axis=2, keepdims=True)},
  }


def _shown(ax):
  return np.asarray(ax.images[0].get_array())


def test_a_shade_is_the_stronger_the_more_a_slot_attends():
  attention = np.linspace(0.0, 1.0, 5).reshape(1, 1, 5, 1)
  image = np.full([1, 5, 1], 0.4)
  (row,) = attention_pictures.shaded(image, attention)[0]
  (color,) = get_mask_plot_colors(1)
  np.testing.assert_allclose(row[0], row[0, 0])  # gray where it looks away
  away = np.abs(row - color).sum(axis=-1)
  assert np.all(np.diff(away) < 0)
  assert away[-1] < 0.3 * away[0]


def test_the_image_is_seen_under_a_shade():
  image = np.array([0.0, 1.0]).reshape(1, 2, 1)
  for share in (0.0, 1.0):
    attention = np.full([K, 1, 2, 1], share)
    dark, bright = np.moveaxis(
      attention_pictures.shaded(image, attention)[:, 0], 1, 0
    )
    assert np.all(bright - dark > 0.04)


def test_values_out_of_range_are_clipped():
  image = np.array([-0.5, 2.0]).reshape(1, 2, 1)
  attention = np.full([K, 1, 2, 1], 1.0 / K)
  np.testing.assert_allclose(
    attention_pictures.shaded(image, attention),
    attention_pictures.shaded(np.clip(image, 0.0, 1.0), attention),
  )


@pytest.mark.parametrize("num_frames", [1, S])
@pytest.mark.parametrize("channels", [1, 3])
def test_attention_has_a_row_per_step(channels, num_frames):
  rinfo = _rinfo(channels, num_frames)
  fig = attention_pictures.attention_plot(rinfo, b=1, first_step=1)
  axes = np.array(fig.axes, object).reshape(S, 1 + K)
  assert [ax.get_title() for ax in axes[0]] == [
    *("Image", "Slot 1", "Slot 2", "Slot 3", "Slot 4")
  ]
  assert [ax.get_ylabel() for ax in axes[:, 0]] == [
    "step 1",
    "step 2",
    "step 3",
  ]
  for t, row in enumerate(axes):
    image = rinfo["data"]["image"][1, min(t, num_frames - 1)]
    expected = np.broadcast_to(image, [H, W, 3])
    np.testing.assert_allclose(_shown(row[0]), expected, rtol=1e-5)
    panels = attention_pictures.shaded(
      image, rinfo["outputs"]["attention"][1, t]
    )
    for k, ax in enumerate(row[1:]):
      np.testing.assert_allclose(_shown(ax), panels[k], rtol=1e-5)
      frame = mpl_colors.to_rgb(ax.spines["top"].get_edgecolor())
      np.testing.assert_allclose(frame, get_mask_plot_colors(K)[k])
  fig.draw_without_rendering()
  assert not plt.get_fignums()


def test_what_does_not_fit_is_named():
  rinfo = _rinfo()
  with pytest.raises(ValueError, match=f"b={B}: expected from 0 to {B - 1}"):
    attention_pictures.attention_plot(rinfo, b=B)
  rinfo["outputs"]["attention"] = np.ones([B, S, K, H, W + 1, 1])
  with pytest.raises(ValueError, match="attention has shape"):
    attention_pictures.attention_plot(rinfo)
