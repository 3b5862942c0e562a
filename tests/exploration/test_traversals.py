"""Tests for iodine.exploration.traversals."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from tests.support import tiny
from tests.support.joint import Joint

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
  np.testing.assert_array_equal(traversal.importance, np.sort(kl)[::-1][:3])
  np.testing.assert_array_equal(kl[traversal.latents], traversal.importance)


def test_a_traversal_between_samples_goes_from_one_limit_to_the_other(
  model, info
):
  limits = np.stack([-1.0 - np.arange(Z), 2.0 * np.arange(Z)], axis=1)
  traversal = exploration.traverse(
    model,
    info,
    1,
    latents=[4, 2],
    num_values=4,
    range_of="samples",
    limits=limits,
  )
  np.testing.assert_allclose(traversal.offsets, [-1, -1 / 3, 1 / 3, 1])
  means = info["latent"]["z_mean"][:1, -1]
  for row, latent in enumerate([4, 2]):
    for column, value in enumerate(np.linspace(*limits[latent], 4)):
      z = means.copy()
      z[0, 1, latent] = value
      np.testing.assert_allclose(
        traversal.scenes[row, column], _decode(model, z)[0][0], **TOLERANCE
      )
    inferred = limits[latent].mean() + traversal.current[row] * (
      np.ptp(limits[latent]) / 2
    )
    np.testing.assert_allclose(inferred, means[0, 1, latent], rtol=1e-5)


def test_limits_are_those_of_the_samples_at_hand(model, info):
  z = info["latent"]["z"][:, -1]
  centre, unit = exploration.latent_range(model, info, 0, "samples")
  np.testing.assert_allclose(centre - unit, z.min(axis=(0, 1)), rtol=1e-5)
  np.testing.assert_allclose(centre + unit, z.max(axis=(0, 1)), rtol=1e-5)


def test_between_samples_latents_are_ranked_by_activeness(model, info):
  active = exploration.latent_importance(model, info, 1, 2, range_of="samples")
  limits = exploration.latent_limits(info["latent"]["z"][:, -1])
  means = info["latent"]["z_mean"][2:3, -1]
  (expected,) = exploration.activeness(model, means, [1], limits)
  np.testing.assert_array_equal(active, expected)
  options = {"slot": 1, "b": 2, "range_of": "samples", "num_values": 2}
  traversal = exploration.traverse(model, info, num_latents=3, **options)
  np.testing.assert_array_equal(traversal.latents, np.argsort(-active)[:3])
  # Another importance, of other scenes say, decides instead.
  importance = np.arange(Z, dtype=float)
  for latents, shown in ((None, [4, 3]), ([1, 4], [1, 4])):
    traversal = exploration.traverse(
      model,
      info,
      latents=latents,
      num_latents=2,
      importance=importance,
      **options,
    )
    np.testing.assert_array_equal(traversal.latents, shown)
    np.testing.assert_array_equal(traversal.importance, shown)


def test_the_usual_range_is_the_first_that_a_model_has(model, info):
  assert exploration.possible_ranges(model, info) == exploration.RANGES
  assert exploration.traverse(model, info, 0, latents=[1]).range_of == (
    "posterior"
  )
  without = {**info, "latent": {"z": info["latent"]["z"]}}
  assert exploration.possible_ranges(model, without) == ("samples",)
  assert exploration.traverse(model, without, 0, latents=[1]).range_of == (
    "samples"
  )
  assert exploration.possible_ranges(model, {**info, "latent": {}}) == ()


def test_slots_that_are_decoded_jointly_can_be_traversed():
  model = Joint()
  info = exploration.infer(model, tiny.batch(3), seed=3)
  z = info["latent"]["z"][:, -1]
  traversal = exploration.traverse(model, info, 2, b=1, num_values=3)
  assert traversal.components is None
  assert traversal.masks is None
  for row, latent in enumerate(traversal.latents):
    limits = z[..., latent].min(), z[..., latent].max()
    for column, value in enumerate(np.linspace(*limits, 3)):
      scene = z[1].copy()
      scene[2, latent] = value
      np.testing.assert_allclose(
        traversal.scenes[row, column, 3, 5], scene.mean(axis=0) ** 2, rtol=1e-5
      )


def test_what_has_no_slots_cannot_be_traversed(model, info):
  with pytest.raises(ValueError, match="IODINE renders no scenes from slots"):
    exploration.traverse(model, {**info, "latent": {}}, 0)


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
