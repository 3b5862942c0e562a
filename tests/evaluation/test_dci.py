"""Tests of iodine.evaluation.dci."""

import sys

import numpy as np
import pytest

from iodine.errors import ConfigError
from iodine.evaluation import dci, representations
from iodine.evaluation.representations import Representations

# Importances and scores of the published code.
IMPORTANCE = np.array(
  [
    [0.9897055, 0.5455144, 0.0, 0.57813317],
    [0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.3657063, 0.0],
    [0.0, 0.06314999, 1.2778584, 0.0],
    [0.09713639, 0.50482845, 0.29860187, 0.0],
  ]
)


def test_scores_of_importances_are_the_published_ones():
  close = {"rel": 1e-6}
  assert dci.disentanglement(IMPORTANCE) == pytest.approx(0.49088526, **close)
  assert dci.completeness(IMPORTANCE) == pytest.approx(0.6451129, **close)


def test_importances_of_nothing_score_zero():
  assert dci.disentanglement(np.zeros([3, 2])) == 0.0
  assert dci.completeness(np.zeros([3, 2])) == 0.0


def test_a_latent_for_each_factor_is_perfect():
  assert dci.disentanglement(2 * np.eye(4)[:, :3]) == pytest.approx(1.0)
  assert dci.completeness(2 * np.eye(4)[:, :3]) == pytest.approx(1.0)


def _boxes(*boxes):
  """Masks [n, 40, 40] of boxes (top, bottom, left, right)."""
  masks = np.zeros([len(boxes), 40, 40], np.uint8)
  for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
    mask[top:bottom, left:right] = 255
  return masks


# The fourth object of slot 1 has 50 of 130 pixels in common with it; the first
# slot owns all pixels that no other one does.
@pytest.mark.parametrize(
  "box, expected",
  [
    ((10, 18, 10, 20), ([1, 2, 4], [4, 2, 1])),
    ((0, 0, 0, 0), ([1, 2], [4, 2])),  # the IoU with slot 0 is 0.07
  ],
)
def test_objects_are_matched_one_by_one_if_large_and_found(box, expected):
  true_mask = _boxes(
    (0, 40, 0, 40),  # the background
    (0, 10, 0, 10),
    (0, 10, 10, 20),
    (18, 20, 0, 20),  # of 40 pixels
    (10, 15, 0, 20),
    (30, 40, 0, 40),  # not in the scene
  )
  pred_mask = _boxes(
    (0, 0, 0, 0), box, (0, 10, 9, 20), (18, 20, 0, 20), (0, 10, 0, 9)
  )
  is_object = np.array([False, True, True, True, True, False])
  iou = representations.overlaps(
    true_mask[np.newaxis] > 0, pred_mask[np.newaxis]
  )
  pixels = np.sum(true_mask > 0, axis=(1, 2))
  matched = dci.match_objects(iou[0], pixels, is_object)
  np.testing.assert_array_equal(matched, expected)


def _objects(count=300, noise=0.0):
  """Latents 2, 0 and 1 stand for the factors, 3 and 4 for nothing."""
  rng = np.random.default_rng(0)
  factors = {
    "x": rng.uniform(size=count),
    "y": rng.uniform(size=count),
    "shape": rng.integers(1, 4, size=count),
    "constant": np.ones(count),
  }
  codes = rng.standard_normal([count, 5])
  for latent, name in ((2, "x"), (0, "y"), (1, "shape")):
    codes[:, latent] = factors[name] + noise * codes[:, latent]
  return dci.Objects(codes, factors)


def test_latents_that_are_factors_are_disentangled():
  pytest.importorskip("sklearn")
  counts: list[int] = []
  measured = dci.measure(_objects(), on_progress=counts.append)
  assert sum(counts) == 4
  for name in ("disentanglement", "completeness", "informativeness"):
    assert 0.9 < getattr(measured, name) <= 1.0, name
  assert measured.factors == ("x", "y", "shape")  # the others are constant
  assert measured.num_objects == 300
  assert measured.importances.shape == (5, 3)
  assert measured.importances.argmax(axis=0).tolist() == [2, 0, 1]
  noisy = dci.measure(_objects(noise=1.0))
  assert noisy.disentanglement < 0.5
  assert noisy.informativeness < 0.5


def test_importances_are_those_of_scikit_learn():
  pytest.importorskip("sklearn")
  from sklearn import ensemble, model_selection

  objects = _objects(noise=0.5)
  measured = dci.measure(objects)
  halves = model_selection.train_test_split(
    objects.codes, objects.factors["x"], test_size=0.5, random_state=5
  )
  trees = ensemble.GradientBoostingRegressor(random_state=5)
  trees.fit(halves[0], halves[2])
  np.testing.assert_allclose(
    measured.importances[:, 0], trees.feature_importances_
  )


def test_as_published_predictions_of_regressors_are_hardly_ever_equal():
  pytest.importorskip("sklearn")
  measured = dci.measure(_objects(), as_published=True)
  assert measured.disentanglement > 0.9
  assert measured.informativeness < 0.4


def test_too_few_objects_are_an_error():
  pytest.importorskip("sklearn")
  with pytest.raises(ConfigError, match="dci: 19 objects were found"):
    dci.measure(_objects(19))


def test_objects_that_are_all_alike_are_an_error():
  pytest.importorskip("sklearn")
  objects = _objects(40)
  alike = {"constant": objects.factors["constant"]}
  with pytest.raises(ConfigError, match="all objects have the same factors"):
    dci.measure(objects._replace(factors=alike))


def test_without_scikit_learn_one_line_says_so(monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn", None)
  with pytest.raises(ConfigError, match=r"pip install '\.\[dci\]'"):
    dci.check_installed()


def test_objects_are_in_the_slots_of_the_highest_iou():
  rng = np.random.default_rng(0)
  iou = np.zeros([2, 3, 4], np.float32)
  iou[0, 1, 3], iou[0, 2, 0], iou[1, 2, 1] = 0.9, 0.8, 0.7
  position = rng.uniform(size=[2, 3, 2])
  scenes = Representations(
    codes=rng.uniform(size=[2, 4, 5]),
    is_object=np.array([[False, True, True]] * 2),
    is_modified=np.zeros([2, 3], bool),
    factors={
      "position": position,
      "shape": np.array([[[0.0], [2.0], [3.0]], [[0.0], [1.0], [2.0]]]),
    },
    pixels=np.full([2, 3], 60),
    iou=iou,
    cosine=iou,
    samples=None,
  )
  objects = dci.matched_objects(scenes)
  np.testing.assert_array_equal(
    objects.codes, scenes.codes[[0, 0, 1], [3, 0, 1]]
  )
  assert set(objects.factors) == {"position_0", "position_1", "shape"}
  np.testing.assert_array_equal(
    objects.factors["position_1"], position[[0, 0, 1], [1, 2, 2], 1]
  )
  np.testing.assert_array_equal(objects.factors["shape"], [2, 3, 2])
  assert np.issubdtype(objects.factors["shape"].dtype, np.integer)
