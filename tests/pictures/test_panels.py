"""Tests for iodine.pictures.panels."""

import numpy as np
import pytest
from matplotlib import colors as mpl_colors
from matplotlib import figure as mpl_figure

from iodine.pictures import panels
from iodine.pictures.colors import get_mask_plot_colors
from tests.support import inferred
from tests.support.inferred import H, W

pytestmark = pytest.mark.filterwarnings("error")


class TestHelpers:
  def test_show_img_norm_and_mask(self):
    img = np.linspace(-3.0, 5.0, H * W * 3).reshape(H, W, 3)
    mask = np.zeros([H, W, 1])
    mask[2] = 1.0
    shown = np.asarray(panels.show_img(img, mask=mask, norm=True).get_array())
    np.testing.assert_allclose(shown[2], (img[2] + 3.0) / 8.0, atol=1e-6)
    hidden = np.delete(inferred.through(0.0 * img, 0.0 * mask), 2, axis=0)
    np.testing.assert_allclose(np.delete(shown, 2, axis=0), hidden, rtol=1e-6)

  @pytest.mark.parametrize(("channels", "first"), [(2, 1), (6, 3), (4, 3)])
  def test_show_img_shows_the_location_of_more_parameters(
    self, channels, first
  ):
    img = np.random.default_rng(0).uniform(size=[H, W, channels])
    shown = np.asarray(panels.show_img(img).get_array())
    np.testing.assert_allclose(shown, inferred.rgb(img[..., :first]), rtol=1e-6)

  def test_show_mat_draws_nan_in_magenta(self):
    m = np.ones([H, W, 1])
    m[1, 2] = np.nan
    mappable = panels.show_mat(m, cmap="coolwarm", vmin=-1.0)
    assert mappable.get_clim() == pytest.approx((-1.0, 1.1))
    rgba = mappable.to_rgba(np.ma.masked_invalid(m[..., 0]))
    np.testing.assert_allclose(rgba[1, 2], mpl_colors.to_rgba("magenta"))

  @pytest.mark.parametrize("channels", [1, 2, 8])
  def test_show_coords_stays_in_range(self, channels):
    m = np.random.default_rng(0).normal(size=[H, W, channels])
    shown = np.asarray(panels.show_coords(m).get_array())
    assert shown.shape == (H, W, 3)
    assert 0.0 <= shown.min() < shown.max() <= 1.0

  def test_helpers_draw_into_given_axes(self):
    ax = mpl_figure.Figure().subplots()
    mappable = panels.show_mask(np.eye(3)[:, :, None], ax=ax, color="red")
    assert mappable.axes is ax
    np.testing.assert_allclose(
      inferred.shown(ax)[:, 0], get_mask_plot_colors(3)
    )
    assert ax.spines["top"].get_edgecolor() == mpl_colors.to_rgba("red")
    assert not len(ax.get_xticks())
    assert not len(ax.get_yticks())
