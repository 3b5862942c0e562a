"""Tests of iodine.pictures.comparisons."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from iodine.pictures import comparisons
from iodine.pictures.colors import get_mask_plot_colors

pytestmark = pytest.mark.filterwarnings("error")

N, L, H, W = 3, 4, 5, 7


def _decomposed(name, num_slots, has_masks=True, size=(H, W)):
  rng = np.random.default_rng(num_slots)
  masks = rng.random([N, num_slots, *size, 1])
  true = rng.integers(2, size=[N, L, *size, 1])
  return comparisons.Decomposed(
    name,
    rng.random([N, *size, 3]),
    true if has_masks else None,
    rng.random([N, *size, 3]),
    masks / masks.sum(1, keepdims=True),
    rng.random([N, num_slots, *size, 3]),
  )


def _shown(ax):
  return np.asarray(ax.images[0].get_array())


def _panels(fig, columns):
  return np.array(fig.axes, object).reshape(-1, columns)


@pytest.mark.parametrize("has_masks", [True, False])
def test_scenes(has_masks):
  models = [
    _decomposed("first", 2, has_masks),
    _decomposed("a name of several words", 6, has_masks, (4, 9)),
  ]
  fig = comparisons.scenes_plot(models, [4, 5, 6])
  axes = _panels(fig, N)
  labels = [ax.get_ylabel() for ax in axes[:, 0]]
  assert labels == [
    *("Image", *["True mask"] * has_masks, "first", "Mask"),
    *("a name of several\nwords", "Mask"),
  ]
  assert [ax.get_title() for ax in axes[0]] == ["Scene 4", "Scene 5", "Scene 6"]
  for n, column in enumerate(axes.T):
    np.testing.assert_allclose(_shown(column[0]), models[0].image[n], 1e-5)
    for model, (recons, mask) in zip(
      models, column[1 + has_masks :].reshape(2, 2), strict=True
    ):
      np.testing.assert_allclose(_shown(recons), model.recons[n], 1e-5)
      colors = get_mask_plot_colors(len(model.masks[n]))
      expected = np.moveaxis(model.masks[n, ..., 0], 0, -1) @ colors
      np.testing.assert_allclose(_shown(mask), expected, 1e-5)
  assert not plt.get_fignums()


@pytest.mark.parametrize("has_masks", [True, False])
def test_slots_of_a_scene(has_masks):
  models = [_decomposed("a", 2, has_masks), _decomposed("b", 6, has_masks)]
  fig = comparisons.slots_plot(models, n=1)
  axes = _panels(fig, 3 + has_masks + 6)
  assert [ax.get_ylabel() for ax in axes[:, 0]] == ["a", "b"]
  for model, row in zip(models, axes, strict=True):
    np.testing.assert_allclose(_shown(row[0]), model.image[1], 1e-5)
    np.testing.assert_allclose(_shown(row[1]), model.recons[1], 1e-5)
    slots = row[3 + has_masks :]
    count = len(model.masks[1])
    assert [ax.get_visible() for ax in slots] == [k < count for k in range(6)]
    for k in range(count):
      mask = model.masks[1, k]
      expected = model.components[1, k] * mask + 1.0 - mask
      np.testing.assert_allclose(_shown(slots[k]), expected, rtol=1e-5)


def test_lines_of_a_label_fit():
  one, two = (
    comparisons.scenes_plot([_decomposed(name, 2)], [1, 2, 3])
    for name in ("short", "a name of several words")
  )
  assert two.get_figwidth() > one.get_figwidth()


def test_of_info():
  model = _decomposed("a", 2)
  steps = lambda last: np.stack([np.zeros_like(last), last], axis=1)
  info = {
    "data": {"image": steps(model.image), "true_mask": steps(model.true_masks)},
    "outputs": {
      "recons": steps(model.recons)[:, :, None],
      "pred_mask": steps(model.masks),
      "components": steps(model.components),
    },
  }
  for actual, expected in zip(
    comparisons.of_info("a", info)[1:], model[1:], strict=True
  ):
    np.testing.assert_array_equal(actual, expected)
  del info["data"]["true_mask"]
  assert comparisons.of_info("a", info).true_masks is None
