"""Tests for iodine.exploration."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from tests.support import tiny

B, K, S, H, W, C, Z = tiny.B, tiny.K, tiny.S, tiny.H, tiny.W, tiny.C, tiny.Z
# The same numbers by another order of float32 operations.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def model():
  return tiny.initialized()


@pytest.fixture(scope="module")
def info(model):
  return exploration.infer(model, tiny.batch(), seed=3)


def _decode(model, z):
  """Decodes [B, K, Z] as the model does: recons and masks."""
  _, dist = model.decode(tf.constant(z, tf.float32))
  return dist.mean().numpy()[:, 0], model.output_dist.masks(dist).numpy()


# --- infer --------------------------------------------------------------------


def test_infer_gives_arrays_that_its_seed_repeats(model, info):
  leaves = tf.nest.flatten(info)
  assert all(isinstance(x, np.ndarray | np.generic) for x in leaves)
  assert info["outputs"]["components"].shape == (B, S, K, H, W, C)
  again = exploration.infer(model, tiny.batch(), seed=3)["latent"]["z"]
  np.testing.assert_array_equal(again, info["latent"]["z"])
  other = exploration.infer(model, tiny.batch(), seed=4)["latent"]["z"]
  assert np.all(other[:, 0] != again[:, 0])


def test_infer_takes_any_number_of_slots_and_steps():
  model = tiny.initialized(num_components=5, num_iters=3)
  batch = tiny.batch(1, without=["mask", "visibility", "factors"])
  outputs = exploration.infer(model, batch)["outputs"]
  assert outputs["pred_mask"].shape == (1, 4, 5, H, W, 1)


def test_scores_are_means_over_the_scenes_that_have_them(info):
  ari = info["metrics"]["ari"].copy()
  ari[1, 0] = np.nan
  changed = {**info, "metrics": {**info["metrics"], "ari": ari}}
  scores = exploration.step_scores(changed)
  losses = info["losses"]
  expected = {
    "ARI": ari[[0, 2, 3]].mean(axis=0),
    "ARI without background": info["metrics"]["ari_nobg"].mean(axis=0),
    "mean segmentation covering": info["metrics"]["covering"].mean(axis=0),
    "MSE": info["metrics"]["mse"].mean(axis=0),
    "reconstruction loss (nats)": losses["recons"].mean(axis=0),
    "KL (nats)": losses["kl"].sum(axis=2).mean(axis=0),
    "factor regression loss": losses["factor"],
  }
  assert list(scores) == list(expected)
  for name, values in expected.items():
    np.testing.assert_allclose(scores[name], values, rtol=1e-6)
  changed["metrics"]["ari"] = np.full_like(ari, np.nan)
  del changed["metrics"]["ari_nobg"]
  changed["losses"] = {k: v for k, v in losses.items() if k != "factor"}
  assert list(exploration.step_scores(changed)) == list(expected)[2:6]


def test_structure_is_a_tree_of_shapes_and_types():
  info = {
    "data": {"factors": {"x": np.zeros([2, 31], np.int64)}},
    "losses": {"total": np.float32(1.0), "recons": np.zeros([2, 3])},
  }
  assert exploration.structure(info).splitlines() == [
    "data",
    "  factors",
    "    x      [2, 31]  int64",
    "losses",
    "  total    []       float32",
    "  recons   [2, 3]   float64",
  ]


# --- Decoding and composing ---------------------------------------------------


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


# --- KL -----------------------------------------------------------------------


def test_the_kl_of_latents_adds_up_to_that_of_slots(model, info):
  kl = exploration.latent_kl(model, info)
  assert kl.shape == (B, S, K, Z)
  np.testing.assert_allclose(kl.sum(axis=-1), info["losses"]["kl"], rtol=1e-4)


def test_the_object_is_in_the_slot_of_the_highest_kl(info):
  kl = np.zeros_like(info["losses"]["kl"])
  kl[:, 0, 0] = 9.0  # an earlier step does not count
  kl[1, -1, 1] = kl[2, -1, 0] = 2.0
  changed = {**info, "losses": {"kl": kl}}
  assert [exploration.object_slot(changed, b) for b in (1, 2)] == [1, 0]


def test_without_a_kl_the_object_is_the_second_largest_segment():
  owners = np.array([[2, 2, 2, 2], [2, 0, 0, 1], [2, 2, 0, 2]])
  masks = np.eye(3)[owners].transpose(2, 0, 1)[None, None, ..., None]
  info = {"outputs": {"pred_mask": masks}}
  assert exploration.object_slot(info) == 0


# --- Traversals ---------------------------------------------------------------


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


# --- Editing ------------------------------------------------------------------


def test_the_other_slots_fill_in_for_a_removed_one():
  model = tiny.initialized(num_components=3)
  info = exploration.infer(model, tiny.batch())
  removal = exploration.remove_slots(info, b=1)
  outputs = {k: v[1, -1] for k, v in info["outputs"].items()}
  np.testing.assert_array_equal(removal.image, info["data"]["image"][1, 0])
  np.testing.assert_allclose(
    removal.whole.recons, outputs["recons"][0], **TOLERANCE
  )
  for k in range(3):
    masks = outputs["pred_mask"].copy()
    masks[k] = 0.0
    masks /= masks.sum(axis=0)
    np.testing.assert_allclose(removal.without.masks[k], masks, **TOLERANCE)
    np.testing.assert_allclose(
      removal.without.recons[k],
      (masks * outputs["components"]).sum(axis=0),
      **TOLERANCE,
    )


def test_swapped_slots_are_swapped_latents(model, info):
  before = info["outputs"]["components"].copy()
  swap = exploration.swap_slots(info, (0, 1), (2, 0))
  z = info["latent"]["z"][[0, 2], -1]
  np.testing.assert_allclose(
    swap.before.recons, _decode(model, z)[0], **TOLERANCE
  )
  z[0, 1], z[1, 0] = z[1, 0].copy(), z[0, 1].copy()
  recons, masks = _decode(model, z)
  np.testing.assert_allclose(swap.after.recons, recons, **TOLERANCE)
  np.testing.assert_allclose(swap.after.masks, masks, **TOLERANCE)
  np.testing.assert_array_equal(swap.slots, [1, 0])
  np.testing.assert_array_equal(swap.components[0], before[0, -1, 1])
  np.testing.assert_array_equal(swap.components[1], before[2, -1, 0])
  np.testing.assert_array_equal(swap.images, info["data"]["image"][[0, 2], 0])
  np.testing.assert_array_equal(before, info["outputs"]["components"])


def test_edits_of_what_there_is_not(info):
  with pytest.raises(ValueError, match=f"b={B}: expected from 0 to {B - 1}"):
    exploration.remove_slots(info, b=B)
  with pytest.raises(ValueError, match=f"slot={K}: expected from 0"):
    exploration.swap_slots(info, (0, 0), (1, K))


# --- The prior ----------------------------------------------------------------


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
