"""Tests for iodine.scene_model."""

import numpy as np
import pytest
import tensorflow as tf

from iodine.geco import Geco
from iodine.scene_model import DecodedSlots, Loss, SceneModel, mix
from tests.support import tiny
from tests.support.joint import Joint

H, W, K, Z = 4, 5, 3, 2


class _Plain(SceneModel):
  """Can nothing but what every model can."""

  def __init__(self):
    super().__init__(name="plain")
    self.num_components = K
    self.n_z = Z

  def __call__(self, data, noise=None, seed=None, step=None):
    raise NotImplementedError

  def infer(self, data, noise=None, seed=None):
    raise NotImplementedError

  def noise(self, rngs):
    return None


class _Independent(_Plain):
  """Decodes K slots at a time, as the contract has it."""

  def decode_slots(self, z):
    tf.debugging.assert_equal(tf.shape(z)[1:], [K, Z])
    pictures = tf.tile(z[:, :, None, None], [1, 1, H, W, 1])
    return DecodedSlots(pictures[..., :1], pictures[..., 1:])


# --- The objective ------------------------------------------------------------


class _Probabilistic(_Plain):
  has_likelihood = True


NLL, KL = tf.constant([-5.0, 2.0, 7.0]), tf.constant([3.0, 0.5, 1.0])


@pytest.mark.parametrize("kl_weight, expected", [(1.0, 17 / 6), (0.5, 25 / 12)])
def test_the_objective_is_the_negative_elbo(kl_weight, expected):
  loss = _Probabilistic().objective(NLL, KL, kl_weight=kl_weight)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize(
  "step, kl_weight, expected",
  [
    (None, 0.5, 0.75 - np.log(2) * 8),
    (10, 0.5, 0.75 - np.log(2) * 8),
    (9, 0.5, 25 / 12),
    (None, 0.0, 4 / 3),  # no KL: nothing to trade the likelihood for
  ],
)
def test_the_objective_under_a_constraint(step, kl_weight, expected):
  model = _Probabilistic()
  model.use_geco(Geco(-1.0, warmup_steps=10, least_beta=0.0))
  model.geco.initialize()
  model.geco.constraint.assign(8.0)
  loss = model.objective(NLL, KL, step, kl_weight)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_a_constraint_needs_a_likelihood():
  with pytest.raises(ValueError, match="geco.target=-1.5: a _Plain has no l"):
    _Plain().use_geco(Geco(-1.5))


def test_a_model_with_a_likelihood_tells_it():
  class Silent(_Probabilistic):
    def __call__(self, data, noise=None, seed=None, step=None):
      return Loss(tf.constant(0.0), {"loss/total": tf.constant(0.0)})

  with pytest.raises(
    ValueError, match="Silent: has_likelihood is set, but .* none is loss/nll"
  ):
    Silent().initialize((H, W, 3), {})


# --- Composing ----------------------------------------------------------------


@pytest.mark.parametrize("num_slots", [1, K, K + 1, 2 * K - 1])
def test_any_number_of_slots_is_composed(run, num_slots):
  z = np.random.default_rng(0).normal(size=[4, num_slots, Z])
  recons, masks = run(_Independent().compose)(tf.constant(z, tf.float32))
  shares = np.exp(z[..., 1]) / np.exp(z[..., 1]).sum(axis=1, keepdims=True)
  expected = np.tile(shares[..., None, None, None], [1, 1, H, W, 1])
  np.testing.assert_allclose(masks, expected, rtol=1e-5)
  expected = (shares * z[..., 0]).sum(axis=1)[:, None, None, None]
  np.testing.assert_allclose(
    recons, np.tile(expected, [1, H, W, 1]), rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_slots_are_mixed_under_any_leading_axes(leading):
  rng = np.random.default_rng(0)
  slots = DecodedSlots(
    rng.uniform(size=[*leading, K, H, W, 3]),
    rng.normal(size=[*leading, K, H, W, 1]),
  )
  recons, masks = mix(slots)
  np.testing.assert_allclose(masks.numpy().sum(axis=-4), 1.0)
  np.testing.assert_allclose(
    recons, (masks * slots.components).numpy().sum(axis=-4)
  )
  slots.mask_logits[..., 0, :, :, :] = -np.inf
  rest = DecodedSlots(*(x[..., 1:, :, :, :] for x in slots))
  np.testing.assert_allclose(mix(slots).recons, mix(rest).recons)


def test_a_model_composes_what_it_decodes():
  model = tiny.initialized()
  z = tf.random.stateless_normal([2, tiny.K, tiny.Z], [0, 0])
  _, dist = model.decode(z)
  recons, masks = model.compose(z)
  # The same numbers by another order of float32 operations.
  close = {"rtol": 1e-5, "atol": 1e-5}
  np.testing.assert_allclose(recons, dist.mean()[:, 0], **close)
  np.testing.assert_allclose(masks, model.output_dist.masks(dist), **close)


# --- What a model can ---------------------------------------------------------


@pytest.mark.parametrize(
  "model, can",
  [
    (_Plain, set()),
    (_Independent, {"decode_slots", "compose"}),
    (Joint, {"compose"}),
  ],
)
def test_what_a_model_can(model, can):
  methods = ("decode_slots", "compose", "places", "sample")
  assert {method for method in methods if model().can(method)} == can


@pytest.mark.parametrize(
  "method, argument, what",
  [
    ("compose", np.zeros([1, K, Z]), "render scenes from slots"),
    ("decode_slots", np.zeros([1, K, Z]), "decode slots"),
    ("places", np.zeros([1, K, Z]), "tell where slots are"),
    ("sample", 3, "sample scenes"),
  ],
)
def test_what_a_model_cannot(method, argument, what):
  with pytest.raises(NotImplementedError, match=f"_Plain cannot {what}"):
    getattr(_Plain(), method)(argument)


def test_refinements_are_counted_from_the_first_result_on():
  assert tiny.build().num_refinements == tiny.NUM_ITERS
  assert Joint().num_refinements == 2
