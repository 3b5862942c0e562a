"""Tests for iodine.exploration.edited_scene."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from iodine.exploration import edited_scene
from tests.support import tiny, tiny_gnm
from tests.support.joint import Joint

K, Z = tiny.K, tiny.Z
# The same numbers by another order of float32 operations.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def test_only_changed_slots_are_decoded_again(model, info, monkeypatch):
  decoded = []

  def remember(model, z):
    decoded.append(z.shape)
    return exploration.decode_slots(model, z)

  monkeypatch.setattr(edited_scene, "decode_slots", remember)
  scene = exploration.EditedScene(model, info, b=2)
  before = scene.render()
  scene.latents[1, 3] += 1.5
  after = scene.render()
  scene.render()
  assert decoded == [(K, Z), (1, Z)]
  assert np.argwhere(scene.changed).tolist() == [[1, 3]]

  means = info["latent"]["z_mean"][2:3, -1].copy()
  for edited in (before, after):
    _, dist = model.decode(tf.constant(means))
    masks = model.output_dist.masks(dist)[0]
    for actual, expected in (
      (edited.after.recons, dist.mean()[0, 0]),
      (edited.after.masks, masks),
      (edited.components, model.output_dist.components(dist)[0]),
      (edited.masks, masks),
      (edited.before.recons, before.after.recons),
      (edited.image, info["data"]["image"][2, -1]),
    ):
      np.testing.assert_allclose(actual, expected, **TOLERANCE)
    means[0, 1, 3] += 1.5
  assert after.slots_are_edited
  assert after.places is None

  scene.latents[:] = scene.inferred
  again = scene.render()
  np.testing.assert_allclose(
    again.after.recons, before.after.recons, **TOLERANCE
  )
  assert not scene.changed.any()


def test_scenes_whose_slots_are_decoded_jointly():
  model = Joint()
  info = exploration.infer(model, tiny.batch(without=("factors",)), seed=3)
  scene = exploration.EditedScene(model, info, b=1)
  z = info["latent"]["z"][1, -1].copy()
  z[2, 0] = scene.latents[2, 0] = 0.75
  edited = scene.render()
  np.testing.assert_allclose(
    edited.after.recons, model.compose(tf.constant(z[np.newaxis])).recons[0]
  )
  assert np.abs(edited.after.recons - edited.before.recons).max() > 1e-3
  assert edited.after.masks is None
  assert not edited.slots_are_edited
  outputs = info["outputs"]
  np.testing.assert_array_equal(edited.components, outputs["components"][1, -1])
  np.testing.assert_array_equal(edited.masks, outputs["pred_mask"][1, -1])


def test_boxes_move_with_their_slots():
  model = tiny_gnm.initialized()
  info = exploration.infer(model, tiny_gnm.batch(), seed=3)
  scene = exploration.EditedScene(model, info)
  before = scene.render().places["boxes"].copy()
  place = exploration.slot_places(model, scene.latents[1]) + (0.25, -0.1)
  scene.latents[1] = exploration.put_slots(model, scene.latents[1], place)
  before[1] += (0.25, -0.1, 0.25, -0.1)
  edited = scene.render()
  np.testing.assert_allclose(edited.places["boxes"], before, atol=1e-6)
  z = tf.constant(scene.latents[np.newaxis])
  for actual, expected in zip(edited.after, model.compose(z), strict=True):
    np.testing.assert_allclose(actual, expected[0], **TOLERANCE)


def test_what_cannot_be_edited(model, info):
  with pytest.raises(ValueError, match="b=4: expected from 0 to 3"):
    exploration.EditedScene(model, info, b=4)
  without = {k: v for k, v in info.items() if k != "latent"}
  with pytest.raises(ValueError, match="IODINE renders no scenes from slots"):
    exploration.EditedScene(model, without)
