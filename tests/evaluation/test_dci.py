"""Tests of iodine.evaluation.dci."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from iodine.errors import ConfigError
from iodine.evaluation import dci
from tests.support import tiny

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
  matched = dci.match_objects(true_mask, pred_mask, is_object)
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
  scores = dci.scores(_objects())
  for name in ("disentanglement", "completeness", "informativeness"):
    assert 0.9 < scores[f"dci/{name}"].mean <= 1.0, name
  noisy = dci.scores(_objects(noise=1.0))
  assert noisy["dci/disentanglement"].mean < 0.5
  assert noisy["dci/informativeness"].mean < 0.5


def test_as_published_predictions_of_regressors_are_hardly_ever_equal():
  pytest.importorskip("sklearn")
  scores = dci.scores(_objects(), as_published=True)
  assert scores["dci/disentanglement"].mean > 0.9
  assert scores["dci/informativeness"].mean < 0.4


def test_too_few_objects_are_an_error():
  pytest.importorskip("sklearn")
  with pytest.raises(ConfigError, match="dci: 19 objects were found"):
    dci.scores(_objects(19))


def test_objects_that_are_all_alike_are_an_error():
  pytest.importorskip("sklearn")
  objects = _objects(40)
  alike = {"constant": objects.factors["constant"]}
  with pytest.raises(ConfigError, match="all objects have the same factors"):
    dci.scores(objects._replace(factors=alike))


def test_without_scikit_learn_one_line_says_so(monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn", None)
  with pytest.raises(ConfigError, match=r"pip install '\.\[dci\]'"):
    dci.check_installed()


def _batch(num_scenes):
  """Scenes whose masks have four times the model's size."""
  data = tiny.batch(num_scenes)
  mask = data["mask"].numpy()
  large = mask.repeat(4, axis=3).repeat(4, axis=4)
  return {**data, "mask": tf.constant(large)}


def test_codes_are_the_means_of_the_slots_of_visible_objects():
  model = tiny.initialized(inner_batch_size=2)
  data = {
    k: tf.nest.map_structure(tf.constant, v) for k, v in _batch(3).items()
  }
  batches = [
    tf.nest.map_structure(lambda x, i=i: x[i : i + 2], data) for i in (0, 2)
  ]
  objects = dci.matched_objects(model, batches, seed=7)
  info = exploration.infer(model, tiny.batch(3), 7, scenes=range(3))
  means = info["latent"]["z_mean"][:, -1]
  masks = exploration.render(model, means).masks[..., 0]
  masks = tf.image.resize(
    masks.transpose(0, 2, 3, 1), [4 * tiny.H, 4 * tiny.W], "bicubic"
  )
  expected: dict[str, list] = {"codes": [], "position_1": [], "shape": []}
  for b in range(3):
    is_object = data["visibility"][b].numpy() > 0
    is_object[0] = False
    entities, slots = dci.match_objects(
      data["mask"][b, 0, ..., 0].numpy(),
      masks[b].numpy().transpose(2, 0, 1),
      is_object,
    )
    expected["codes"] += list(means[b, slots])
    factors = {k: v[b].numpy()[entities] for k, v in data["factors"].items()}
    expected["position_1"] += list(factors["position"][:, 1])
    expected["shape"] += list(factors["shape"][:, 0])
  assert len(expected["codes"]) > 2
  np.testing.assert_allclose(objects.codes, expected["codes"], rtol=1e-3)
  for name in ("position_1", "shape"):
    np.testing.assert_array_equal(objects.factors[name], expected[name])
  assert set(objects.factors) == {"position_0", "position_1", "shape"}
  assert np.issubdtype(objects.factors["shape"].dtype, np.integer)


def test_data_without_factors_are_an_error():
  scenes = {**tiny.batch(2), "factors": {}}
  with pytest.raises(ConfigError, match="no factors of objects"):
    dci.matched_objects(tiny.initialized(), [scenes], seed=0)
