"""Tests for iodine.exploration.latent_samples."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from tests.support import tiny
from tests.support.joint import Joint

K, Z = tiny.K, tiny.Z


def test_samples_are_those_that_infer_gives():
  model = tiny.initialized(inner_batch_size=2)
  data = tiny.batch(5)
  batches = [
    tf.nest.map_structure(lambda x, i=i: x[i : i + 2], data) for i in (0, 2, 4)
  ]
  counts = []
  z = exploration.sampled_latents(model, batches, 7, counts.append)
  info = exploration.infer(model, data, 7, scenes=range(5))
  np.testing.assert_allclose(
    z, info["latent"]["z"][:, -1], rtol=1e-3, atol=1e-4
  )
  assert counts == [2, 2, 1]


def test_limits_are_over_all_slots_and_scenes():
  z = np.random.default_rng(0).standard_normal([4, 3, 5])
  np.testing.assert_array_equal(
    exploration.latent_limits(z),
    [[z[..., d].min(), z[..., d].max()] for d in range(5)],
  )


def test_activeness_is_the_variance_of_what_is_rendered(model, info):
  z = info["latent"]["z"][:3, -1]
  limits = np.stack([-1.0 - np.arange(Z), 0.5 * np.arange(Z)], axis=1)
  slots, counts = [1, 0, 1], []
  actual = exploration.activeness(
    model, z, slots, limits, on_progress=counts.append
  )
  assert actual.shape == (3, Z)
  assert counts == [1, 1, 1]
  for scene, slot in enumerate(slots):
    for latent in range(Z):
      changed = np.repeat(z[scene][None], 6, axis=0)
      changed[:, slot, latent] = np.linspace(*limits[latent], 6)
      images = exploration.render(model, changed).recons
      np.testing.assert_allclose(
        actual[scene, latent], images.var(axis=0, ddof=1).mean(), rtol=1e-3
      )
  some = exploration.activeness(model, z, slots, limits, [4, 2])
  np.testing.assert_allclose(some, actual[:, [4, 2]], rtol=1e-5)


def test_slots_may_be_decoded_jointly():
  model = Joint()
  exploration.infer(model, tiny.batch(1))  # which tells the image's size
  z = np.full([1, 3, 3], 0.5, np.float32)
  limits = np.array([[0.0, 0.0], [-1.0, 2.0], [0.5, 0.6]])
  (actual,) = exploration.activeness(model, z, [1], limits)
  for value, (low, high) in zip(actual, limits, strict=True):
    # The brightness of one of three channels.
    channel = ((1.0 + np.linspace(low, high, 6)) / 3.0) ** 2
    np.testing.assert_allclose(
      value, channel.var(ddof=1) / 3.0, rtol=1e-5, atol=1e-12
    )


@pytest.mark.parametrize(
  "slots, limits, error",
  [
    ([0], np.zeros([Z, 2]), "slots has shape"),
    ([0, K], np.zeros([Z, 2]), f"slot={K}: expected from 0"),
    ([0, 1], np.zeros([Z + 1, 2]), "limits has shape"),
  ],
)
def test_activeness_of_what_there_is_not(model, slots, limits, error):
  z = np.zeros([2, K, Z], np.float32)
  with pytest.raises(ValueError, match=error):
    exploration.activeness(model, z, slots, limits)
