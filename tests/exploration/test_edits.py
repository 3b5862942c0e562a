"""Tests for iodine.exploration.edits."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from tests.support import tiny
from tests.support.joint import Joint

B, H, K, W = tiny.B, tiny.H, tiny.K, tiny.W
# The same numbers by another order of float32 operations.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def _decode(model, z):
  """Decodes [B, K, Z] as the model does: recons and masks."""
  _, dist = model.decode(tf.constant(z, tf.float32))
  return dist.mean().numpy()[:, 0], model.output_dist.masks(dist).numpy()


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


# --- A model that decodes slots jointly ---------------------------------------


@pytest.fixture(scope="module")
def joint():
  model = Joint()
  return model, exploration.infer(model, tiny.batch(3), seed=3)


def _brightness(z):
  return z.mean(axis=0) ** 2


def test_scenes_without_a_slot_are_rendered_from_the_others(joint):
  model, info = joint
  removal = exploration.remove_slots(info, b=1, model=model)
  z = info["latent"]["z"][1, -1]
  np.testing.assert_allclose(removal.whole.recons[0, 0], _brightness(z))
  np.testing.assert_array_equal(
    removal.whole.masks, info["outputs"]["pred_mask"][1, -1]
  )
  assert removal.without.masks is None
  for k, recons in enumerate(removal.without.recons):
    np.testing.assert_allclose(
      recons[2, 3], _brightness(np.delete(z, k, axis=0)), rtol=1e-6
    )


def test_scenes_that_swap_a_slot_are_rendered_from_the_new_ones(joint):
  model, info = joint
  swap = exploration.swap_slots(info, (0, 1), (2, 0), model)
  z = info["latent"]["z"][[0, 2], -1]
  for i in (0, 1):
    np.testing.assert_allclose(
      swap.before.recons[i, 0, 0], _brightness(z[i]), rtol=1e-6
    )
  z[0, 1], z[1, 0] = z[1, 0].copy(), z[0, 1].copy()
  for i in (0, 1):
    np.testing.assert_allclose(
      swap.after.recons[i, 0, 0], _brightness(z[i]), rtol=1e-6
    )
  assert swap.after.masks is None
  assert swap.before.masks.shape == (2, 3, H, W, 1)


def test_without_logits_edits_need_the_model(joint):
  _, info = joint
  with pytest.raises(ValueError, match="a model must render the scenes"):
    exploration.remove_slots(info)
  with pytest.raises(ValueError, match="a model must render the scenes"):
    exploration.swap_slots(info, (0, 0), (1, 0))


# --- Slots of several scenes --------------------------------------------------


def test_a_collage_is_rendered_from_the_chosen_latents(model, info):
  chosen = [(2, 1), (0, 0), (2, 1), (3, 0), (0, 1)]
  collage = exploration.collage(model, info, chosen)
  slots = [
    exploration.decode_slots(model, info["latent"]["z"][b, -1, slot])
    for b, slot in chosen
  ]
  expected = exploration.compose(*map(np.stack, zip(*slots, strict=True)))
  np.testing.assert_allclose(collage.scene.recons, expected.recons, **TOLERANCE)
  np.testing.assert_allclose(collage.scene.masks, expected.masks, **TOLERANCE)
  assert collage.scenes == (0, 2, 3)
  assert collage.chosen == ((1, 1), (0, 0), (1, 1), (2, 0), (0, 1))
  np.testing.assert_array_equal(
    collage.images, info["data"]["image"][[0, 2, 3], 0]
  )
  np.testing.assert_array_equal(
    collage.components, info["outputs"]["components"][[0, 2, 3], -1]
  )


def test_a_collage_of_slots_that_are_decoded_jointly(joint):
  model, info = joint
  collage = exploration.collage(model, info, [(0, 2), (1, 1)])
  z = info["latent"]["z"][:, -1]
  np.testing.assert_allclose(
    collage.scene.recons[0, 0], _brightness(np.stack([z[0, 2], z[1, 1]]))
  )
  assert collage.scene.masks is None


@pytest.mark.parametrize(
  "place, error", [((B, 0), f"b={B}: expected"), ((0, K), f"slot={K}: expec")]
)
def test_a_collage_of_what_there_is_not(model, info, place, error):
  with pytest.raises(ValueError, match=error):
    exploration.collage(model, info, [(0, 0), place])
