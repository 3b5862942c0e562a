"""Tests of iodine.pictures.scenes."""

import io

import numpy as np
import pytest

from iodine.pictures import scenes as scene_pictures


def panels(figure):
  return [ax for ax in figure.axes if ax.get_visible()]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_scene_is_above_its_masks(channels):
  rng = np.random.default_rng(0)
  images = rng.random([7, 5, 8, channels])
  masks = np.zeros([7, 2, 5, 8])
  masks[:, 1] = 1
  masks[6, :, 2, 3] = [1, 0]
  figure = scene_pictures.scenes_plot(images, masks, num_cols=3)
  assert len(figure.axes) == 3 * 2 * 3
  assert len(panels(figure)) == 14
  # Scene 6 is the first of the third row of scenes.
  image, mask = (figure.axes[row * 3].images[0].get_array() for row in (4, 5))
  np.testing.assert_allclose(
    image, np.broadcast_to(images[6], [5, 8, 3]), atol=1e-6
  )
  different = np.any(mask != mask[0, 0], axis=-1)
  assert np.argwhere(different).tolist() == [[2, 3]]
  figure.savefig(io.BytesIO())


def test_without_masks():
  figure = scene_pictures.scenes_plot(np.zeros([2, 5, 8, 3]))
  assert len(figure.axes) == len(panels(figure)) == 2


@pytest.mark.parametrize(
  ("images", "masks", "message"),
  [
    (np.zeros([0, 5, 8, 3]), None, "nothing to show"),
    (np.zeros([5, 8, 3]), None, "expected .N, H, W, C."),
    (np.zeros([2, 5, 8, 3]), np.zeros([2, 3, 8, 5]), "masks has shape"),
  ],
)
def test_wrong_arrays(images, masks, message):
  with pytest.raises(ValueError, match=message):
    scene_pictures.scenes_plot(images, masks)
