"""Tests for iodine.pictures.compositions."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colors as mpl_colors

from iodine.pictures import compositions
from iodine.pictures.colors import get_mask_plot_colors
from tests.support import explored, inferred
from tests.support.explored import H, W

pytestmark = pytest.mark.filterwarnings("error")

K, NUMBERS = 4, (3, 8, 11, 17)  # of which the first and the last are shown
CHOSEN = [(1, 2), (0, 0), (1, 2), (0, 3), (1, 0)]


def _shown(ax):
  return np.asarray(ax.images[0].get_array())


def _frame(ax):
  return mpl_colors.to_rgb(ax.spines["top"].get_edgecolor())


def _panels(fig, columns):
  return np.array(fig.axes, object).reshape(-1, columns)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_composition_is_below_its_sources(count):
  collage = explored.collage(CHOSEN[:count], num_slots=K)
  fig = compositions.composition_plot(collage, NUMBERS)
  axes = _panels(fig, 2 + max(K, count))
  assert [ax.get_ylabel() for ax in axes[:, 0]] == [
    *("Scene 3", "Scene 17", "Composed")
  ]
  colors = get_mask_plot_colors(count)
  for n, row in enumerate(axes[:-1]):
    np.testing.assert_allclose(_shown(row[0]), collage.images[n], rtol=1e-5)
    np.testing.assert_allclose(_shown(row[1]), collage.recons[n], rtol=1e-5)
    for k, ax in enumerate(row[2 : 2 + K]):
      mask = collage.masks[n, k]
      expected = inferred.through(collage.components[n, k], mask)
      np.testing.assert_allclose(_shown(ax), expected, rtol=1e-5)
      is_chosen = (n, k) in CHOSEN[:count]
      width = ax.spines["top"].get_linewidth()
      assert width > 3.0 if is_chosen else width < 1.0
      if is_chosen:
        color = colors[CHOSEN.index((n, k))]
        np.testing.assert_allclose(_frame(ax), color, atol=1e-6)
    assert not any(ax.get_visible() for ax in row[2 + K :])
  new = axes[-1]
  np.testing.assert_allclose(_shown(new[0]), collage.scene.recons, rtol=1e-5)
  for i, (ax, (n, k)) in enumerate(zip(new[2:], CHOSEN[:count], strict=False)):
    assert ax.get_xlabel() == f"Scene {(3, 17)[n]}, slot {k + 1}"
    np.testing.assert_allclose(_frame(ax), colors[i], atol=1e-6)
    np.testing.assert_array_equal(_shown(ax), _shown(axes[n, 2 + k]))
  assert not any(ax.get_visible() for ax in new[2 + count :])
  fig.draw_without_rendering()
  assert not plt.get_fignums()


def test_scenes_have_the_numbers_of_the_batch():
  fig = compositions.composition_plot(explored.collage([(0, 1)]))
  labels = [ax.get_ylabel() for ax in fig.axes if ax.get_ylabel()]
  assert labels == ["Scene 1", "Scene 4", "Composed"]


def test_masks_are_left_out_where_there_are_none():
  collage = explored.collage(CHOSEN, num_slots=K)
  axes = _panels(compositions.composition_plot(collage), 2 + len(CHOSEN))
  assert axes[-1, 1].get_visible()
  scene = collage.scene._replace(masks=None)
  fig = compositions.composition_plot(collage._replace(scene=scene))
  axes = _panels(fig, 2 + len(CHOSEN))
  assert not axes[-1, 1].get_visible()
  assert axes[-1, 0].get_visible() and axes[-1, 2].get_visible()


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions_are_below_one_another(channels):
  rows = [explored.uniform(5, H, W, channels, seed=i) for i in range(3)]
  axes = _panels(compositions.reconstruction_plot(*rows), 5)
  assert [ax.get_ylabel() for ax in axes[:, 0]] == [
    *("Image", "Reconstruction", "From slots")
  ]
  for row, pictures in zip(axes, rows, strict=True):
    for ax, picture in zip(row, pictures, strict=True):
      expected = np.broadcast_to(picture, [H, W, 3])
      np.testing.assert_allclose(_shown(ax), expected, rtol=1e-5)


def test_what_does_not_fit_is_named():
  collage = explored.collage(CHOSEN, num_slots=K)
  with pytest.raises(ValueError, match="^masks has shape"):
    compositions.composition_plot(
      collage._replace(masks=np.ones([2, K, H, W + 1, 1]))
    )
  with pytest.raises(ValueError, match="scene.masks has shape"):
    compositions.composition_plot(collage._replace(chosen=((0, 0),)))
  images = np.ones([2, H, W, 3])
  with pytest.raises(ValueError, match="rendered has shape"):
    compositions.reconstruction_plot(images, images, images[:1])


@pytest.mark.parametrize(("num_slots", "shape"), [(4, (1, 8)), (7, (2, 6))])
def test_an_edited_scene(num_slots, shape):
  edited = explored.edited(num_slots)
  fig = compositions.edited_plot(edited, slot=2)
  axes = _panels(fig, shape[1])
  assert axes.shape == shape
  axes = axes.ravel()
  shown = 4 + num_slots
  assert [ax.get_title() for ax in axes[:shown]] == [
    *("Image", "Inferred", "Edited", "Masks"),
    *(f"Slot {k + 1}" for k in range(num_slots)),
  ]
  assert not any(ax.get_visible() for ax in axes[shown:])
  pictures = (edited.image, edited.before.recons, edited.after.recons)
  for ax, picture in zip(axes, pictures, strict=False):
    np.testing.assert_allclose(_shown(ax), picture, rtol=1e-5)
  colors = get_mask_plot_colors(num_slots)
  for k, ax in enumerate(axes[4:shown]):
    mask = edited.masks[k]
    expected = inferred.through(edited.components[k], mask)
    np.testing.assert_allclose(_shown(ax), expected, rtol=1e-5)
    np.testing.assert_allclose(_frame(ax), colors[k], atol=1e-6)
    width = ax.spines["top"].get_linewidth()
    assert width > 3.0 if k == 2 else width < 2.0
  # No title stands in the panel above it.
  boxes = [ax.get_tightbbox() for ax in axes[:: shape[1]]]
  assert all(low.y1 <= high.y0 for high, low in itertools.pairwise(boxes))


def test_an_edited_scene_of_slots_that_are_not_decoded_individually():
  boxes = np.tile([0.25, 0.5, 0.75, 1.0], [4, 1])
  places = {
    "boxes": boxes,
    "presence": np.array([0.0, 0.9, 0.0, 0.0]),
    "depth": np.zeros(4),
  }
  edited = explored.edited(
    slots_are_edited=False, has_masks=False, places=places
  )
  fig = compositions.edited_plot(edited, slot=3)
  assert [ax.get_title() for ax in fig.axes] == [
    *("Image", "Inferred", "Edited", "Slot 4, inferred")
  ]
  assert [len(ax.patches) for ax in fig.axes] == [0, 0, 1, 0]
  mask = edited.masks[3]
  expected = inferred.through(edited.components[3], mask)
  np.testing.assert_allclose(_shown(fig.axes[3]), expected, rtol=1e-5)
  with pytest.raises(ValueError, match="slot=4: expected from 0 to 3"):
    compositions.edited_plot(edited, slot=4)
