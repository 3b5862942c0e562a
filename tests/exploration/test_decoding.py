"""Tests for iodine.exploration.decoding."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from tests.support import tiny

C, H, K, W, Z = tiny.C, tiny.H, tiny.K, tiny.W, tiny.Z
# The same numbers by another order of float32 operations.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def _decode(model, z):
  """Decodes [B, K, Z] as the model does: recons and masks."""
  _, dist = model.decode(tf.constant(z, tf.float32))
  return dist.mean().numpy()[:, 0], model.output_dist.masks(dist).numpy()


@pytest.mark.parametrize("count", [1, K + 1, 20 * K - 1])
def test_slots_are_decoded_one_by_one(model, info, count):
  z = np.random.default_rng(0).standard_normal([3, count, Z])
  slots = exploration.decode_slots(model, z)
  assert slots.components.shape == (3, count, H, W, C)
  assert slots.mask_logits.shape == (3, count, H, W, 1)
  # The last one beside any other.
  pair = np.stack([np.full(Z, 0.7), z[-1, -1]])[None]
  _, dist = model.decode(tf.constant(pair, tf.float32))
  np.testing.assert_allclose(
    slots.components[-1, -1],
    model.output_dist.components(dist)[0, 1],
    **TOLERANCE,
  )
  np.testing.assert_allclose(
    slots.mask_logits[-1, -1],
    model.output_dist.mask_logits(dist)[0, 1],
    **TOLERANCE,
  )


def test_composed_slots_are_the_models_mixture(model, info):
  z = info["latent"]["z"][:, -1]
  composed = exploration.compose(*exploration.decode_slots(model, z))
  outputs = info["outputs"]
  np.testing.assert_allclose(
    composed.recons, outputs["recons"][:, -1, 0], **TOLERANCE
  )
  np.testing.assert_allclose(
    composed.masks, outputs["pred_mask"][:, -1], **TOLERANCE
  )


def test_composing_bears_logits_of_any_size():
  logits = np.array([1e4, -1e4, -np.inf]).reshape(3, 1, 1, 1)
  components = np.array([0.2, 0.5, 0.9]).reshape(3, 1, 1, 1)
  composed = exploration.compose(components, logits)
  np.testing.assert_array_equal(composed.masks.ravel(), [1.0, 0.0, 0.0])
  np.testing.assert_array_equal(composed.recons.ravel(), [0.2])


def test_samples_of_the_prior(model, info):
  samples = exploration.prior_samples(model, 7, seed=1)
  z = model.prior.sample(7, seed=tf.constant([1, 1]))
  recons, masks = _decode(model, z)
  np.testing.assert_allclose(samples.recons, recons, **TOLERANCE)
  np.testing.assert_allclose(samples.masks, masks, **TOLERANCE)
  again = exploration.prior_samples(model, 7, seed=1)
  np.testing.assert_array_equal(again.recons, samples.recons)
  other = exploration.prior_samples(model, 7, seed=2)
  assert not np.allclose(other.recons, samples.recons)
  assert not np.allclose(samples.recons[0], samples.recons[1])
