"""Tests of iodine.pictures.comparisons."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from iodine.pictures import comparisons
from tests.support import inferred

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
      expected = inferred.segmentation(
        model.masks[n, ..., 0], model.colors(n)[1]
      )
      np.testing.assert_allclose(_shown(mask), expected, 1e-5)
  assert not plt.get_fignums()


def test_models_that_find_the_same_have_the_same_colors():
  true = np.zeros([1, 3, 4, 6, 1])
  true[0, 0], true[0, 0, :2, :5] = 1, 0
  true[0, 1, :2, :2] = 1
  true[0, 2, :2, 2:5] = 1
  first = _decomposed("a", 3)._replace(
    image=np.zeros([1, 4, 6, 3]),
    recons=np.zeros([1, 4, 6, 3]),
    masks=true,
    true_masks=true,
    components=np.zeros([1, 3, 4, 6, 3]),
  )
  second = first._replace(name="b", masks=true[:, [2, 0, 1]])
  fig = comparisons.scenes_plot([first, second], [1])
  shown = [_shown(ax) for ax in fig.axes]
  np.testing.assert_array_equal(shown[1], shown[3])
  np.testing.assert_array_equal(shown[1], shown[5])
  rows = _panels(comparisons.slots_plot([first, second]), 7)
  frames = [
    [ax.spines["top"].get_edgecolor() for ax in row[4:]] for row in rows
  ]
  assert frames[1] == [frames[0][k] for k in (2, 0, 1)]


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
      expected = inferred.through(model.components[1, k], mask)
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
