"""Tests of iodine.evaluation.efficient_morl."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from iodine.errors import ConfigError
from iodine.evaluation import efficient_morl
from iodine.evaluation import scores as scoring
from iodine.scene_model import Loss, SceneModel
from tests.support import tiny

NUM_SCENES = 5
SEED = 4


def _one_hot(labels, size):
  return np.eye(size, dtype=np.float32)[labels].reshape(8, 8, size)


def _masks(counts):
  """Masks [1, L, 8, 8, 1] and [1, K, 8, 8, 1] of so many pixels in common."""
  counts = np.array(counts)
  pairs = np.indices(counts.shape).reshape(2, -1).T.repeat(counts.ravel(), 0)
  masks = [
    _one_hot(labels, size).transpose(2, 0, 1)[None, ..., None]
    for labels, size in zip(pairs.T, counts.shape, strict=True)
  ]
  return tf.constant(masks[0]), tf.constant(masks[1])


# Values of the published code for pixels of the true entity in the row, and of
# the slot in the column; the first row is the background.
@pytest.mark.parametrize(
  "counts, expected",
  [
    (
      [[15, 0, 0, 0, 1], [0, 11, 0, 0, 0], [1, 0, 14, 0, 0], [0, 0, 0, 21, 1]],
      0.9300278,
    ),
    (
      [[12, 3, 2, 1, 0], [0, 11, 0, 0, 3], [1, 1, 9, 3, 0], [1, 3, 1, 12, 1]],
      0.37996632,
    ),
    ([[0, 55], [0, 0], [0, 9]], 1.0),  # one object in one slot
    ([[17, 16, 10, 14, 7], [0, 0, 0, 0, 0]], 0.0),  # no object
    ([[64, 0], [0, 0]], 0.0),  # nor more than one slot
    ([[5, 6, 6, 12, 6], [8, 6, 5, 4, 6]], 0.0),  # one object in five slots
    ([[0, 10, 0], [0, 19, 0], [0, 12, 0], [0, 23, 0]], 0.0),  # three in one
  ],
)
def test_the_ari_of_objects_is_never_undefined(counts, expected):
  ari = efficient_morl.foreground_ari(*_masks(counts))
  np.testing.assert_allclose(ari, [expected], rtol=1e-5)


def test_pixels_of_several_entities_are_the_last_ones():
  true_mask, pred_mask = _masks([[9, 9], [20, 0], [0, 26]])
  shared = tf.concat([tf.ones_like(true_mask[:, :1]), true_mask[:, 1:]], axis=1)
  ari = efficient_morl.foreground_ari
  np.testing.assert_allclose(ari(shared, pred_mask), [1.0])
  # With two entities of the background, one object is left.
  np.testing.assert_allclose(ari(shared, pred_mask, 2), [1.0])


def test_masks_are_resized_to_the_true_ones_as_by_pillow():
  rng = np.random.default_rng(0)
  probabilities = rng.random([1, 3, 8, 9, 1], np.float32)
  true_mask = _one_hot(rng.integers(4, size=64), 4)
  true_mask = true_mask.transpose(2, 0, 1)[None, ..., None]
  true_mask = true_mask.repeat(2, axis=2).repeat(3, axis=3)  # 16 x 24
  resized = [
    np.asarray(
      Image.fromarray(picture[..., 0]).resize(
        (24, 16), Image.Resampling.BICUBIC
      )
    )
    for picture in probabilities[0]
  ]
  expected = efficient_morl.foreground_ari(
    true_mask, np.stack(resized)[None, ..., None]
  )
  actual = efficient_morl.foreground_ari(true_mask, probabilities)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  assert 0 < abs(actual.numpy()) < 1


def _evaluate(model, data):
  batches = [
    tf.nest.map_structure(lambda x, i=i: x[i : i + 2], data)
    for i in range(0, len(data["image"]), 2)
  ]
  return scoring.evaluate(
    model, batches, 2, SEED, protocol=efficient_morl.PROTOCOL
  )


def test_scores_are_means_and_population_deviations():
  model = tiny.initialized(inner_batch_size=2)
  data = tiny.batch(NUM_SCENES)
  mask = data["mask"].numpy()
  mask[1, :, 1:] = 0.0  # no object
  data["mask"] = tf.constant(mask.repeat(2, axis=3))
  shape = (tiny.S, tiny.K, tiny.Z)
  noise = [
    np.random.default_rng([SEED, 0, i]).standard_normal(shape, np.float32)
    for i in range(NUM_SCENES)
  ]
  info = model.infer({"image": data["image"]}, tf.stack(noise, axis=1))
  error = (info["outputs"]["recons"][:, :, 0] - data["image"]) ** 2
  ari = [
    efficient_morl.foreground_ari(data["mask"][:, 0], masks)
    for masks in tf.unstack(info["outputs"]["pred_mask"], axis=1)
  ]
  expected = {
    "mse": error.numpy().mean(axis=(2, 3, 4)),
    "kl": info["losses"]["kl"].numpy().sum(axis=2),
    "ari_nobg": np.stack(ari, axis=1),
  }
  result = _evaluate(model, data)
  assert set(result.scores) == set(expected)
  for name, values in expected.items():
    score = result.scores[name]
    close = {"rtol": 1e-3, "atol": 1e-5, "err_msg": name}
    np.testing.assert_allclose(score.per_step, values.mean(axis=0), **close)
    np.testing.assert_allclose(score.mean, values[:, -1].mean(), **close)
    np.testing.assert_allclose(score.std, values[:, -1].std(), **close)
    assert score.undefined == 0
  assert set(_evaluate(model, {"image": data["image"]}).scores) == {"mse", "kl"}


def test_a_model_that_does_not_decompose_images_has_no_scores():
  class Classifier(SceneModel):
    num_components, n_z = 2, 3

    def __call__(self, data, noise=None, seed=None, step=None):
      return Loss(tf.zeros([]), {})

    def infer(self, data, noise=None, seed=None):
      return {"data": self.data_entry(self.check_data(data)), "outputs": {}}

    def noise(self, rngs):
      return None

  with pytest.raises(ConfigError, match="a Classifier does not decompose"):
    _evaluate(Classifier(), tiny.batch(2))
