"""Tests for iodine.exploration.inference."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration, metrics
from tests.support import tiny

B, C, H, K, S, W = tiny.B, tiny.C, tiny.H, tiny.K, tiny.S, tiny.W


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
    **{
      label: info["metrics"][name].mean(axis=0)
      for name, label in metrics.SCENE_SCORES.items()
      if name in tiny.MASK_SCORES - {"ari"}
    },
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
  assert list(exploration.step_scores(changed)) == list(expected)[2:-1]


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


def test_the_largest_segment_is_the_background():
  owners = np.array([[2, 2, 0, 0], [2, 0, 0, 1], [0, 0, 0, 2]])
  masks = np.eye(3)[owners].transpose(2, 0, 1)[None, None, ..., None]
  assert exploration.background_slot({"outputs": {"pred_mask": masks}}) == 0
  with pytest.raises(ValueError, match="b=1: expected from 0 to 0"):
    exploration.background_slot({"outputs": {"pred_mask": masks}}, 1)


def test_the_noise_of_a_scene_is_its_own(model, info):
  batch = tiny.batch()
  z = exploration.infer(model, batch, 3, scenes=range(5, 5 + B))["latent"]["z"]
  others = [2, 0]
  part = {"image": tf.gather(batch["image"], others)}
  numbers = [5 + b for b in others]
  again = exploration.infer(model, part, 3, scenes=numbers)["latent"]["z"]
  # Only the first draw is the same: the inner loss is a mean over the batch.
  np.testing.assert_allclose(again[:, 0], z[others, 0], rtol=1e-5)
  other = exploration.infer(model, part, 4, scenes=numbers)["latent"]["z"]
  assert np.all(other[:, 0] != again[:, 0])
