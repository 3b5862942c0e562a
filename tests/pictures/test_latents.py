"""Tests for iodine.pictures.latents."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colors as mpl_colors
from matplotlib import figure as mpl_figure
from matplotlib import text as mpl_text

from iodine.pictures import curves as curve_pictures
from iodine.pictures import latents as latent_pictures
from iodine.pictures.colors import get_mask_plot_colors
from tests.support import explored, inferred
from tests.support.explored import H, N, R, W

pytestmark = pytest.mark.filterwarnings("error")


def _curves(count=5, length=300):
  steps = np.arange(1, length + 1) * 3400
  return {
    f"a rather long title {i}": (steps, 1e4 * explored.uniform(length, seed=i))
    for i in range(count)
  }


def _assert_readable(fig) -> None:
  """Draws `fig`; its texts must neither overlap nor leave it."""
  assert isinstance(fig, mpl_figure.Figure)
  fig.draw_without_rendering()
  boxes = {}
  for ax in fig.axes:
    low, high = sorted(ax.get_ylim())
    left, right = sorted(ax.get_xlim())
    texts = [ax.title, ax.xaxis.label, ax.yaxis.label]
    for axis, (start, stop) in (
      (ax.xaxis, (left, right)),
      (ax.yaxis, (low, high)),
    ):
      texts += [
        tick.label1
        for tick in axis.get_major_ticks()
        if start <= tick.get_loc() <= stop
      ]
    boxes.update({t: t.get_window_extent() for t in texts if ax.get_visible()})
  boxes.update({t: t.get_window_extent() for t in fig.texts})
  assert all(isinstance(text, mpl_text.Text) for text in boxes)
  boxes = {t: box for t, box in boxes.items() if t.get_text().strip()}
  inferred.assert_apart(fig, boxes)


def _shown(ax, index=0):
  return np.asarray(ax.images[index].get_array())


def _rgb(image):
  return np.broadcast_to(image, (*image.shape[:-1], 3))


def _segmentation(masks):
  return inferred.segmentation(masks[..., 0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [0.5, 1.0])
@pytest.mark.parametrize(
  "plot",
  [
    lambda c, s: latent_pictures.traversal_plot(
      explored.traversal(channels=c), 0.75 * s
    ),
    lambda c, s: latent_pictures.traversal_plot(
      explored.traversal(rows=1, columns=15, channels=c, slot=10), 0.75 * s
    ),
    lambda c, s: latent_pictures.traversal_plot(
      explored.traversal(10, 8, c, range_of="samples"), 0.75 * s
    ),
    lambda c, s: latent_pictures.traversal_plot(
      explored.traversal(channels=c, alone=False), 0.75 * s
    ),
    lambda c, s: latent_pictures.removal_plot(explored.removal(11, c), 1.5 * s),
    lambda c, s: latent_pictures.swap_plot(explored.swap(11, c), 1.5 * s),
  ],
  ids=["traversal", "one_latent", "samples", "scene", "removal", "swap"],
)
def test_every_plot_is_readable_and_leaves_pyplot_alone(plot, scale, channels):
  _assert_readable(plot(channels, scale))
  assert not plt.get_fignums()


# --- traversal_plot -----------------------------------------------------------


def test_a_traversal_shows_the_slot_through_its_mask_and_the_scene():
  traversal = explored.traversal(channels=1)
  fig = latent_pictures.traversal_plot(traversal)
  assert [ax.get_title() for ax in fig.axes] == ["Slot 3 alone", "Scene"]
  alone, scene = fig.axes
  assert len(alone.images) == len(scene.images) == R * N
  masks = traversal.masks
  expected = inferred.through(traversal.components, masks)
  for i, (row, column) in enumerate(np.ndindex(R, N)):
    np.testing.assert_allclose(
      _shown(alone, i), _rgb(expected[row, column]), atol=1e-6
    )
    np.testing.assert_allclose(
      _shown(scene, i), _rgb(traversal.scenes[row, column]), rtol=1e-6
    )
  frame = mpl_colors.to_rgb(alone.patches[0].get_edgecolor())
  np.testing.assert_allclose(frame, get_mask_plot_colors(3)[-1])


def test_a_traversal_names_latents_values_and_what_was_inferred():
  fig = latent_pictures.traversal_plot(explored.traversal())
  alone, scene = fig.axes
  assert [t.get_text() for t in alone.get_yticklabels()] == [
    "latent 122\nKL 12.35",
    "latent 121\nKL 6.18",
    "latent 120\nKL 0.01",
  ]
  assert not scene.get_yticklabels()
  labels = [t.get_text() for t in scene.get_xticklabels()]
  assert labels == ["\u22122", "\u22121", "0", "+1", "+2"]
  # The labels are where the images are.
  rows = [np.mean(image.get_extent()[2:]) for image in alone.images[::N]]
  np.testing.assert_allclose(rows, alone.get_yticks())
  columns = [np.mean(image.get_extent()[:2]) for image in scene.images[:N]]
  np.testing.assert_allclose(columns, scene.get_xticks())
  # -1.25 is three quarters of the way from -2 to -1; 9 is beyond the end.
  (markers,) = alone.lines
  x, y = markers.get_data()
  np.testing.assert_allclose(x[0], 0.75 * columns[1], rtol=1e-6)
  np.testing.assert_allclose(x[-1], columns[-1])
  assert np.all(y < rows)
  assert "(posterior)" in fig.texts[0].get_text()


def test_a_traversal_names_the_factors_that_latents_follow():
  names = {122: "position_1 \N{MINUS SIGN}0.88"}
  fig = latent_pictures.traversal_plot(
    explored.traversal(), names=lambda latent: names.get(latent, "")
  )
  assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == [
    "latent 122\nposition_1 \N{MINUS SIGN}0.88\nKL 12.35",
    "latent 121\nKL 6.18",
    "latent 120\nKL 0.01",
  ]
  _assert_readable(fig)


def test_a_traversal_between_samples_says_so():
  fig = latent_pictures.traversal_plot(
    explored.traversal(range_of="samples", alone=False)
  )
  (scene,) = fig.axes
  assert scene.get_title() == "Scene"
  assert scene.get_yticklabels()[2].get_text() == (
    "latent 120\nactiveness\n1.0e-02"
  )
  assert "to its highest sample (+1)" in fig.texts[0].get_text()
  for i, picture in enumerate(explored.traversal().scenes.reshape(-1, H, W, 3)):
    np.testing.assert_allclose(_shown(scene, i), picture, rtol=1e-6)


def test_of_many_values_some_are_named():
  fig = latent_pictures.traversal_plot(explored.traversal(columns=15))
  labels = [t.get_text() for t in fig.axes[1].get_xticklabels()]
  assert labels[7] == "0"
  assert labels[::2] == [""] * 8


# --- removal_plot and swap_plot -----------------------------------------------


def test_a_removal_shows_scene_and_masks_without_each_slot():
  removal = explored.removal()
  fig = latent_pictures.removal_plot(removal)
  scenes, masks = np.array(fig.axes, object).reshape(2, 6)
  titles = ["Image", "Reconstruction"]
  titles += [f"Without slot {k}" for k in (1, 2, 3, 4)]
  assert [ax.get_title() for ax in scenes] == titles
  np.testing.assert_allclose(_shown(scenes[0]), removal.image)
  np.testing.assert_allclose(_shown(scenes[1]), removal.whole.recons)
  np.testing.assert_allclose(
    _shown(masks[1]), _segmentation(removal.whole.masks), rtol=1e-5
  )
  for k in range(4):
    np.testing.assert_allclose(_shown(scenes[k + 2]), removal.without.recons[k])
    np.testing.assert_allclose(
      _shown(masks[k + 2]),
      _segmentation(removal.without.masks[k]),
      rtol=1e-5,
    )
    for ax in (scenes[k + 2], masks[k + 2]):
      frame = mpl_colors.to_rgb(ax.spines["top"].get_edgecolor())
      np.testing.assert_allclose(frame, get_mask_plot_colors(4)[k])


def test_a_swap_shows_both_scenes_before_and_after():
  swap = explored.swap()
  fig = latent_pictures.swap_plot(swap)
  axes = np.array(fig.axes, object).reshape(2, 6)
  assert [ax.get_ylabel() for ax in axes[:, 0]] == [
    "Scene 1, slot 4",
    "Scene 2, slot 1",
  ]
  for i, slot in enumerate((3, 0)):
    mask = swap.before.masks[i, slot]
    panels = [
      swap.images[i],
      swap.before.recons[i],
      _segmentation(swap.before.masks[i]),
      inferred.through(swap.components[i], mask),
      swap.after.recons[i],
      _segmentation(swap.after.masks[i]),
    ]
    for ax, expected in zip(axes[i], panels, strict=True):
      np.testing.assert_allclose(_shown(ax), expected, rtol=1e-5)
    frame = mpl_colors.to_rgb(axes[i, 3].spines["top"].get_edgecolor())
    np.testing.assert_allclose(frame, get_mask_plot_colors(4)[slot])


def test_edits_without_masks_show_scenes_alone():
  removal, swap = explored.removal(), explored.swap()
  removal = removal._replace(without=removal.without._replace(masks=None))
  fig = latent_pictures.removal_plot(removal)
  _assert_readable(fig)
  assert len(fig.axes) == 6
  for k in range(4):
    np.testing.assert_allclose(
      _shown(fig.axes[k + 2]), removal.without.recons[k]
    )
  swap = swap._replace(after=swap.after._replace(masks=None))
  fig = latent_pictures.swap_plot(swap)
  _assert_readable(fig)
  axes = np.array(fig.axes, object).reshape(2, 5)
  assert [ax.get_title() for ax in axes[0]] == [
    *("Image", "Reconstruction", "Mask", "Slot", "Swapped")
  ]
  for ax, recons in zip(axes[:, 4], swap.after.recons, strict=True):
    np.testing.assert_allclose(_shown(ax), recons)


@pytest.mark.parametrize(
  "plot, wrong, name",
  [
    (
      latent_pictures.traversal_plot,
      explored.traversal()._replace(scenes=np.ones([R, N, H, W + 1, 3])),
      "scenes",
    ),
    (
      latent_pictures.removal_plot,
      explored.removal()._replace(image=np.ones([H, W + 1, 3])),
      "image",
    ),
    (
      latent_pictures.swap_plot,
      explored.swap()._replace(images=np.ones([3, H, W, 3])),
      "images",
    ),
  ],
  ids=["traversal", "removal", "swap"],
)
def test_what_does_not_fit_is_named(plot, wrong, name):
  with pytest.raises(ValueError, match=f"{name} has shape"):
    plot(wrong)


# --- curves_plot --------------------------------------------------------------


def test_curves_are_readable_and_shown_with_their_mean():
  curves = _curves()
  steps, values = next(iter(curves.values()))
  values[7] = np.nan
  fig = curve_pictures.curves_plot(curves)
  _assert_readable(fig)
  assert [ax.get_title() for ax in fig.axes if ax.get_visible()] == list(curves)
  raw, mean = fig.axes[0].lines
  np.testing.assert_array_equal(raw.get_xdata(), steps)
  np.testing.assert_array_equal(raw.get_ydata(), values)
  # Of 300 points, each mean is over 13.
  means = mean.get_ydata()
  for place, part in ((100, values[94:107]), (0, values[:7])):
    np.testing.assert_allclose(means[place], part.mean(), rtol=1e-6)
  np.testing.assert_allclose(means[8], np.nanmean(values[2:15]), rtol=1e-6)


@pytest.mark.parametrize("value", [2.0, np.nan])
def test_a_curve_of_one_point(value):
  fig = curve_pictures.curves_plot({"loss": (np.array([3]), np.array([value]))})
  _assert_readable(fig)
  (point,) = fig.axes[0].lines[1].get_ydata()
  np.testing.assert_equal(point, value)


def test_there_must_be_a_curve_of_as_many_values_as_steps():
  with pytest.raises(ValueError, match="nothing to plot"):
    curve_pictures.curves_plot({})
  with pytest.raises(ValueError, match="loss values has shape"):
    curve_pictures.curves_plot({"loss": (np.arange(3), np.arange(4))})
