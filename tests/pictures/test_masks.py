"""Tests for iodine.pictures.masks."""

import numpy as np
import pytest

from iodine.pictures import masks as mask_pictures
from iodine.pictures.colors import get_mask_plot_colors

SIZE = 6


def _masks(*owners):
  """Masks [n, 1, SIZE, 1] of a row of pixels, by the owners' numbers."""
  count = max(map(max, owners)) + 1
  return [
    (np.arange(count)[:, None] == row).astype(float)[:, None, :, None]
    for row in np.array(owners)
  ]


def test_the_largest_mask_decides_on_the_hue_and_its_size_on_the_opacity():
  colors = get_mask_plot_colors(3)
  shares = np.array([[0.6, 0.4, 0.0], [0.0, 0.0, 1.0], [0.2, 0.5, 0.3]])
  shown = mask_pictures.segmentation(shares)
  expected = [
    0.6 * colors[0] + 0.4,
    colors[2],
    0.5 * colors[1] + 0.5,
  ]
  np.testing.assert_allclose(shown, expected, rtol=1e-6)
  np.testing.assert_array_equal(mask_pictures.segmentation(np.zeros(3)), 1.0)
  assert np.isnan(mask_pictures.segmentation(np.full(3, np.nan))).all()
  own = np.eye(3)[::-1]
  np.testing.assert_array_equal(mask_pictures.segmentation(np.eye(3), own), own)


def test_no_mixture_looks_like_another_slot():
  # Mixtures of the palette's colours would come as close as 0.02.
  colors = get_mask_plot_colors(7)
  shares = np.linspace(0.5, 1.0, 26)
  for k, other in np.ndindex(7, 7):
    if k != other:
      mixed = np.zeros([26, 7])
      mixed[:, k], mixed[:, other] = shares, 1.0 - shares
      mixed[0, k] += 1e-3
      shown = mask_pictures.segmentation(mixed)
      others = np.delete(colors, k, axis=0)
      distances = np.linalg.norm(shown[:, None] - others, axis=-1)
      assert distances.min() > 0.1


def test_hidden_pixels_show_a_checkerboard():
  image = np.full([2, 16, 24, 1], 0.5)
  mask = np.zeros([2, 16, 24, 1])
  mask[1], mask[0, :, 12:] = 1, 0.5
  shown = mask_pictures.on_checkerboard(image, mask)
  np.testing.assert_array_equal(shown[1], image[1])
  assert np.unique(shown[0, :, :12]).tolist() == pytest.approx([0.85, 1.0])
  np.testing.assert_allclose(shown[0, :, 12:], 0.25 + 0.5 * shown[0, :, :12])
  # Squares of 2 pixels.
  assert (shown[0, :2, :2] == 1).all() and (shown[0, 2:4, :2] < 1).all()
  assert (shown[0, 2:4, 2:4] == 1).all() and (shown[0, :2, 2:4] < 1).all()


def test_an_object_has_the_color_of_the_slot_that_found_it():
  # Two backgrounds, three objects, of which the slots find two.
  true, predicted = _masks([0, 1, 2, 2, 3, 4], [2, 2, 1, 1, 0, 0])
  colors = mask_pictures.entity_colors(true, predicted, 2)
  palette = get_mask_plot_colors(7)
  for grey in colors[:2]:
    assert len(set(grey.tolist())) == 1
  assert not np.array_equal(colors[0], colors[1])
  np.testing.assert_array_equal(colors[2], palette[1])
  found = [np.array_equal(color, palette[0]) for color in colors[3:]]
  assert sorted(found) == [False, True]
  (lost,) = colors[3:][~np.array(found)]
  assert not (palette[:5] == lost).all(axis=1)[: len(predicted)].any()


def test_a_slot_has_the_color_of_the_object_that_it_found():
  true, predicted = _masks([0, 0, 0, 1, 1, 2], [3, 3, 1, 0, 0, 2])
  entities, slots = mask_pictures.object_colors(true, predicted)
  palette = get_mask_plot_colors(5)
  np.testing.assert_array_equal(entities[1:], palette[: len(entities) - 1])
  np.testing.assert_array_equal(slots[[0, 2, 3]], entities[[1, 2, 0]])
  # The fourth entity is nowhere, so that no slot can have found it.
  np.testing.assert_array_equal(slots[1], get_mask_plot_colors(5)[3])
