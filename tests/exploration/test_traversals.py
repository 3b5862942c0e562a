"""Tests for iodine.exploration.traversals."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from tests.support import tiny

B, C, H, K, S, W, Z = tiny.B, tiny.C, tiny.H, tiny.K, tiny.S, tiny.W, tiny.Z
# The same numbers by another order of float32 operations.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def _decode(model, z):
  """Decodes [B, K, Z] as the model does: recons and masks."""
  _, dist = model.decode(tf.constant(z, tf.float32))
  return dist.mean().numpy()[:, 0], model.output_dist.masks(dist).numpy()


def test_the_kl_of_latents_adds_up_to_that_of_slots(model, info):
  kl = exploration.latent_kl(model, info)
  assert kl.shape == (B, S, K, Z)
  np.testing.assert_allclose(kl.sum(axis=-1), info["losses"]["kl"], rtol=1e-4)


@pytest.mark.parametrize("slot", range(K))
def test_a_traversal_varies_one_latent_of_one_slot(model, info, slot):
  traversal = exploration.traverse(
    model, info, slot, b=2, latents=[3, 1], num_values=4, extent=1.5
  )
  means = info["latent"]["z_mean"][:, -1]
  np.testing.assert_array_equal(traversal.latents, [3, 1])
  np.testing.assert_allclose(traversal.offsets, [-1.5, -0.5, 0.5, 1.5])
  assert traversal.components.shape == (2, 4, H, W, C)
  for row, latent in enumerate([3, 1]):
    centre, deviation = means[..., latent].mean(), means[..., latent].std()
    current = means[2, slot, latent]
    np.testing.assert_allclose(
      traversal.current[row], (current - centre) / deviation, rtol=1e-3
    )
    for column, offset in enumerate(traversal.offsets):
      z = means[2:3].copy()
      z[0, slot, latent] = centre + offset * deviation
      recons, masks = _decode(model, z)
      np.testing.assert_allclose(
        traversal.scenes[row, column], recons[0], **TOLERANCE
      )
      np.testing.assert_allclose(
        traversal.masks[row, column], masks[0, slot], **TOLERANCE
      )
      np.testing.assert_allclose(
        traversal.components[row, column],
        exploration.decode_slots(model, z).components[0, slot],
        **TOLERANCE,
      )


def test_a_traversal_over_the_prior_decodes_its_values(model, info):
  (deviation,) = {float(x) for x in model.prior.stddev()[0]}
  traversal = exploration.traverse(
    model, info, 1, latents=[2], num_values=3, range_of="prior"
  )
  z = info["latent"]["z_mean"][:1, -1].copy()
  z[0, 1, 2] = 2.0 * deviation  # the prior's mean is 0
  np.testing.assert_allclose(
    traversal.scenes[0, -1], _decode(model, z)[0][0], **TOLERANCE
  )


def test_ranges_have_a_width(model, info):
  same = np.ones_like(info["latent"]["z_mean"])
  centre, deviation = exploration.latent_range(
    model, {"latent": {"z_mean": same}}, 0
  )
  np.testing.assert_array_equal(centre, np.ones(Z))
  assert np.all(deviation > 0.0)
  with pytest.raises(ValueError, match=f"slot={K}: expected from 0"):
    exploration.latent_range(model, info, K)


def test_a_traversal_ranks_latents_by_their_kl(model, info):
  traversal = exploration.traverse(model, info, 0, num_latents=3, num_values=2)
  kl = exploration.latent_kl(model, info)[:, -1].mean(axis=(0, 1))
  np.testing.assert_array_equal(traversal.kl, np.sort(kl)[::-1][:3])
  np.testing.assert_array_equal(kl[traversal.latents], traversal.kl)


@pytest.mark.parametrize(
  "arguments, error",
  [
    ({"slot": K}, f"slot={K}: expected from 0 to {K - 1}"),
    ({"slot": -1}, "slot=-1: expected from 0"),
    ({"latents": [0, Z]}, f"latents={Z}: expected from 0 to {Z - 1}"),
    ({"b": B}, f"b={B}: expected from 0 to {B - 1}"),
    ({"range_of": "data"}, "range_of='data': expected one of"),
  ],
)
def test_a_traversal_of_what_there_is_not(model, info, arguments, error):
  with pytest.raises(ValueError, match=error):
    exploration.traverse(model, info, **{"slot": 0, **arguments})
