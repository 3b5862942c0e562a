"""Tests of SLATE; tests/parity holds it against the published code."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from iodine import training
from iodine.models.slate import SLATE
from iodine.models.slate.dvae import gumbel_softmax
from iodine.models.slate.transformer import Dropout

B, K, T, D, V = 3, 4, 2, 6, 7
H, W, C = 8, 12, 2
N = 2 * 3


@functools.cache
def _model(**overrides):
  """A small model, for tests that leave it as it is."""
  return _new_model(**overrides)


def _new_model(**overrides):
  """A small model, all of whose variables are random."""
  options = dict(
    n_z=D,
    num_components=K,
    num_iters=T,
    vocab_size=V,
    d_model=10,
    num_heads=5,
    num_blocks=2,
    dropout=0.0,
    mlp_size=9,
    num_slot_heads=1,
  )
  model = SLATE(**{**options, **overrides})
  model.initialize((H, W, C), {})
  for variable in model.variables:
    rng = np.random.default_rng(list(variable.name.encode()))
    mean = 1.0 if variable.name.endswith("/scale:0") else 0.0
    variable.assign(rng.normal(mean, 0.4, variable.shape))
  return model


def _data(batch=B):
  rng = np.random.default_rng(0)
  image = rng.random([batch, 1, H, W, C], np.float32)
  owner = rng.integers(3, size=[batch, 1, H, W])
  mask = owner[:, :, None, ..., None] == np.arange(3).reshape(1, 1, 3, 1, 1, 1)
  return {
    "image": tf.constant(image),
    "mask": tf.constant(mask.astype(np.float32)),
  }


def _noise(model, batch=B):
  """What training may be given: the noise of slots, and of tokens."""
  noise = model.noise([np.random.default_rng(i) for i in range(batch)])
  gumbel = np.random.default_rng(7).gumbel(size=[2, batch, 2, 3, V])
  return {**noise, "gumbel": gumbel.astype(np.float32)}


def test_noise_of_a_scene_is_its_own():
  model = _model()
  slots = _noise(model)["slots"]
  assert slots.shape == (1, B, K, D)
  (alone,) = model.noise([np.random.default_rng(1)]).values()
  np.testing.assert_array_equal(alone[:, 0], slots[:, 1])
  many = model.noise([np.random.default_rng(5)] * 300)["slots"]
  assert abs(many.std() - 1.0) < 0.05


def test_drawn_tokens_follow_their_probabilities():
  model = _model()
  images = tf.zeros([500, H, W, C])
  gumbel = model._gumbel(None, tf.constant([3, 4]), images).numpy()
  assert gumbel.shape == (2, 500, 2, 3, V)
  assert np.isfinite(gumbel).all()
  assert abs(gumbel.mean() - 0.577) < 0.05
  assert abs(gumbel.std() - np.pi / np.sqrt(6)) < 0.05


def test_loss_is_repeatable_with_a_seed():
  model = _model(dropout=0.3)
  data = _data()

  def loss(seed, noise=None):
    return float(model(data, noise=noise, seed=tf.constant(seed)).total)

  assert loss([1, 2]) == loss([1, 2])
  assert loss([1, 2]) != loss([1, 3])
  # Dropout depends on the seed alone, the rest on the noise.
  noise = _noise(model)
  assert loss([1, 2], noise) == loss([1, 2], noise)
  assert loss([1, 2], noise) != loss([1, 3], noise)
  without = _model()
  by_noise = [
    float(without(data, noise=noise, seed=tf.constant([1, i])).total)
    for i in range(2)
  ]
  assert by_noise[0] == by_noise[1]
  # Tokens without noise of their own depend on the seed.
  slots = {"slots": noise["slots"]}
  assert loss([1, 2], slots) == loss([1, 2], slots)
  assert loss([1, 2], slots) != loss([1, 3], slots)


def test_dropout_drops_and_scales():
  dropout = Dropout(0.25, tf.constant([1, 2]))
  x = tf.ones([200, 50])
  once, again = dropout(x).numpy(), dropout(x).numpy()
  assert set(np.unique(once)) == {np.float32(0), np.float32(1 / 0.75)}
  assert abs((once == 0).mean() - 0.25) < 0.02
  assert (once != again).any()
  np.testing.assert_array_equal(Dropout()(x), x)


def test_evaluation_drops_nothing_and_draws_no_tokens():
  data = _data()
  model = _model()
  noise = _noise(model)
  expected = model.infer(data, noise=noise)
  slots = {"slots": noise["slots"]}
  actual = _model(dropout=0.9).infer(data, noise=slots)
  tf.nest.map_structure(np.testing.assert_array_equal, actual, expected)


def test_what_infer_returns():
  model = _model()
  data = _data()
  info = model.eval(data, seed=tf.constant([1, 2]))
  outputs = info["outputs"]
  assert outputs["recons"].shape == [B, T, 1, H, W, C]
  assert outputs["pred_mask"].shape == [B, T, K, H, W, 1]
  assert outputs["components"].shape == [B, T, K, H, W, C]
  assert info["latent"]["z"].shape == [B, T, K, D]
  assert info["metrics"]["ari"].shape == [B, T]
  masks, recons = outputs["pred_mask"].numpy(), outputs["recons"].numpy()
  np.testing.assert_allclose(masks.sum(axis=2), 1.0, rtol=1e-5)
  patches = masks.reshape(B, T, K, H // 4, 4, W // 4, 4)
  assert np.ptp(patches, axis=(4, 6)).max() == 0
  assert np.ptp(patches, axis=2).max() > 0
  image = data["image"].numpy()[:, :, None]
  np.testing.assert_allclose(
    outputs["components"], image * masks + 1 - masks, rtol=1e-5
  )
  assert 0 <= recons.min() < recons.max() <= 1
  np.testing.assert_array_equal(recons[:, 0], recons[:, 1])


def test_compiled_equals_eager():
  model = _model(dropout=0.2)
  data, seed = _data(), tf.constant([5, 6])
  call = tf.function(
    lambda image: model({"image": image}, seed=seed, step=tf.constant(3)),
    input_signature=[tf.TensorSpec([None, 1, H, W, C])],
    autograph=False,
  )
  eager = model({"image": data["image"]}, seed=seed, step=tf.constant(3))
  for key, value in call(data["image"]).scalars.items():
    np.testing.assert_allclose(value, eager.scalars[key], rtol=1e-5)


def test_the_dvae_learns_from_the_squared_error_alone():
  model = _model()
  variables = model.trainable_variables
  with tf.GradientTape(persistent=True) as tape:
    scalars = model(_data(), seed=tf.constant([1, 2])).scalars
  of_error = tape.gradient(scalars["loss/mse_sum"], variables)
  of_tokens = tape.gradient(scalars["loss/cross_entropy"], variables)
  for variable, *gradients in zip(variables, of_error, of_tokens, strict=True):
    is_dvae = "dvae" in variable.name
    learned, other = gradients if is_dvae else reversed(gradients)
    assert other is None, variable.name
    assert np.abs(tf.convert_to_tensor(learned)).max() > 0, variable.name


def test_a_cache_changes_nothing():
  model = _model()
  slots = tf.random.stateless_normal([B, K, D], [1, 2])
  tokens = model._generate(slots)
  assert tokens.shape == [B, N] and len(np.unique(tokens)) > 1
  projected = model._slot_projection(slots)
  embeddings = model._embed(tokens)[:, :-1]
  decoded, _ = model._transformer(embeddings, projected, Dropout())
  logits = model._to_logits(decoded)
  np.testing.assert_array_equal(tf.argmax(logits, -1), tokens)
  seen = model._transformer.see(projected)
  cache = model._transformer.empty_cache(B, N)
  for i in range(N):
    step, cache = model._transformer.step(
      embeddings[:, i : i + 1], tf.constant(i), seen, cache
    )
    np.testing.assert_allclose(step[:, 0], decoded[:, i], rtol=1e-4, atol=1e-5)


def test_compositions():
  model = _model()
  z = tf.random.stateless_normal([5, K + 1, D], [1, 2])
  recons, masks = model.compose(z)
  assert recons.shape == [5, H, W, C] and masks is None
  assert 0 <= np.min(recons) < np.max(recons) <= 1
  np.testing.assert_allclose(
    model.compose(z[2:3]).recons[0], recons[2], atol=1e-5
  )


def test_slots_of_several_heads():
  model = _model(num_slot_heads=3, hard=True)
  record = model(_data(), seed=tf.constant([1, 2])).iterations
  codes, update = record["codes"].numpy(), record["updates"][-1]
  assert update.attention.shape == [B, N, 3 * K]
  # One-hot up to the rounding of the straight-through sum.
  np.testing.assert_allclose(np.sort(codes)[..., -1], 1.0, atol=1e-6)
  np.testing.assert_allclose(np.sort(codes)[..., :-1], 0.0, atol=1e-6)
  masks = model._masks([update])[:, 0].numpy()
  heads = update.attention.numpy().reshape(B, 2, 3, 3, K).sum(axis=3)
  np.testing.assert_allclose(
    masks[:, :, ::4, ::4, 0], heads.transpose(0, 3, 1, 2), rtol=1e-5
  )


def test_implicit_differentiation():
  model = _model(implicit=True)
  assert model.num_steps == T + 1
  info = model.infer(_data(), seed=tf.constant([1, 2]))
  assert info["latent"]["z"].shape == [B, T + 1, K, D]
  fixed = {v.name for v in model.variables if not v.trainable}
  assert fixed == {
    f"slate/slot_attention/slots_{name}:0" for name in ("mu", "log_sigma")
  }
  with tf.GradientTape() as tape:
    loss = model(_data(), seed=tf.constant([1, 2])).total
  for gradient in tape.gradient(loss, model.trainable_variables):
    assert np.abs(tf.convert_to_tensor(gradient)).max() > 0


def test_a_step_of_sub_batches():
  model = _new_model(dropout=0.1, num_blocks=1, num_iters=1)
  trainer = training.Trainer(
    model,
    training.make_optimizer(1e-3),
    seed=0,
    distribution=training.replicas.Distribution(accumulate=2),
  )
  scalars = trainer.step(_data(4), _noise(model, 4))
  assert all(np.isfinite(value) for value in scalars.values())


def test_hard_tokens_have_the_gradient_of_relaxed_ones():
  log_probs = tf.math.log_softmax(tf.random.stateless_normal([4, V], [1, 2]))
  gumbel = tf.random.stateless_normal([4, V], [3, 4])
  weights = tf.random.stateless_normal([4, V], [5, 6])
  gradients = []
  for hard in (False, True):
    with tf.GradientTape() as tape:
      tape.watch(log_probs)
      sample = gumbel_softmax(log_probs, gumbel, 0.5, hard)
      value = tf.reduce_sum(sample * weights)
    gradients.append(tape.gradient(value, log_probs))
  np.testing.assert_allclose(*gradients, rtol=1e-6)
  best = tf.argmax(log_probs + gumbel, axis=-1)
  np.testing.assert_allclose(sample, tf.one_hot(best, V), atol=1e-6)


def test_initial_values():
  model = SLATE(d_model=32, n_z=48, num_blocks=2, vocab_size=40)
  model.initialize((16, 16, 3), {})
  values = {
    v.name.removeprefix("slate/").removesuffix(":0"): v.numpy()
    for v in model.variables
  }
  # Uniform within these limits.
  limits = {
    "dvae/encoder_0/conv/w": np.sqrt(6 / (4 * 4 * 3)),
    "dvae/decoder_1/conv/w": np.sqrt(6 / (9 * 64)),
    "dvae/encoder_7/w": np.sqrt(6 / (64 + 40)),
    "input_mlp_0/w": np.sqrt(6 / 32),
    "input_mlp_1/w": np.sqrt(6 / (32 + 32)),
    "slot_attention/slots_mu": np.sqrt(6 / (48 + 48)),
    "slot_attention/project_k/w": np.sqrt(6 / (32 + 48)),
    "slot_attention/mlp_0/w": np.sqrt(6 / 48),
    "slot_attention/gru/w_i": np.sqrt(6 / (48 + 3 * 48)),
    "slot_projection/w": np.sqrt(6 / (48 + 32)),
    "to_logits/w": np.sqrt(6 / (32 + 40)),
    "transformer/block_1/self_attention/query/w": np.sqrt(6 / 64),
    "transformer/block_1/self_attention/output/w": np.sqrt(6 / 64 / 6),
    "transformer/block_0/cross_attention/output/w": np.sqrt(6 / 64 / 6),
    "transformer/block_0/ffn_0/w": np.sqrt(6 / 32),
    "transformer/block_0/ffn_1/w": np.sqrt(6 / (32 + 128) / 6),
  }
  for name, limit in limits.items():
    largest = np.abs(values[name]).max()
    assert 0.85 * limit < largest <= limit * (1 + 1e-6), name
  assert abs(values["embedding"].std() - 1.0) < 0.1
  assert 1.5 < np.abs(values["positions"]).max() <= 2.0
  for name, value in values.items():
    if name.endswith(("/b", "/offset", "/b_i", "/b_h")):
      assert not value.any(), name


def test_size_of_the_published_model():
  model = SLATE()
  model.initialize((64, 64, 3), {})
  sizes = {v.name: v.shape.num_elements() for v in model.trainable_variables}
  assert sum(sizes.values()) == 3_616_451
  assert sum(n for name, n in sizes.items() if "dvae" in name) == 285_635


@pytest.mark.parametrize(
  "options, fault",
  [
    ({"d_model": 10, "num_heads": 4}, "d_model=10: expected a multiple of num"),
    ({"n_z": 6, "num_slot_heads": 4}, "n_z=6: expected a multiple of num_slot"),
    ({"vocab_size": 0}, "vocab_size=0"),
    ({"num_iters": 0}, "num_iters=0"),
    ({"dropout": 1.0}, r"dropout=1.0: .*\[0, 1\)"),
    ({"tau_final": 0.0}, "tau_final=0.0: expected a number above 0"),
    ({"tau_steps": 0}, "tau_steps=0"),
    ({"hard": 1}, "hard=1: expected True or False"),
  ],
)
def test_wrong_arguments(options, fault):
  with pytest.raises(ValueError, match=fault):
    SLATE(**options)


def test_images_that_do_not_fit():
  model = _model()
  with pytest.raises(ValueError, match="height=10: expected a multiple of .*4"):
    model({"image": tf.zeros([1, 1, 10, W, C])})
  with pytest.raises(ValueError, match="width=9: expected a multiple of .*4"):
    model({"image": tf.zeros([1, 1, H, 9, C])})
  with pytest.raises(ValueError, match="16 x 12 pixels, .* images of 8 x 12"):
    model.infer({"image": tf.zeros([1, 1, 16, W, C])})


def test_noise_that_does_not_fit():
  model = _model()
  noise = _noise(model, 2)
  with pytest.raises(ValueError, match=r"gumbel.* \[2, 2, 2, 3, 7\]"):
    model(_data(), noise=noise)
  with pytest.raises(ValueError, match=r"noise has shape \[1, 2, 4, 6\]"):
    model.infer(_data(), noise=noise)


def test_slots_that_do_not_fit():
  with pytest.raises(ValueError, match=r"z has shape \[2, 4, 5\]"):
    _model().compose(tf.zeros([2, K, D - 1]))
  with pytest.raises(ValueError, match="tokens is unknown; call the model"):
    SLATE(n_z=D).compose(tf.zeros([2, K, D]))


def test_temperature():
  model = _model(tau_start=1.0, tau_final=0.1, tau_steps=4)
  expected = {0: 1.0, 1: 0.45 * 0.5**0.5 + 0.55, 2: 0.55, 4: 0.1, 9: 0.1}
  for step, tau in expected.items():
    scalars = model(_data(), step=tf.constant(step)).scalars
    np.testing.assert_allclose(scalars["tau"], tau, rtol=1e-6)
