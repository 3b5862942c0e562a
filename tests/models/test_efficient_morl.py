"""Tests of EfficientMORL; tests/parity holds it against the published code."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from iodine import training
from iodine.geco import Geco
from iodine.models.efficient_morl import (
  BroadcastDecoder,
  EfficientMORL,
  ImageEncoder,
  weights,
)
from iodine.models.efficient_morl.priors import PRIORS
from iodine.scene_model import SceneModel
from tests.support.module_checks import perturb

B, K, Z, L, T = 2, 3, 4, 3, 2
H, W, C = 6, 9, 2


def _new_model(with_geco=False, **overrides):
  """A small model, all of whose variables are random."""
  options = dict(num_layers=L, num_iters=T)
  model = EfficientMORL(
    ImageEncoder((5, 6), (3,), mlp_sizes=(7, 5)),
    BroadcastDecoder((5, 6), (3, 5, 3), (1,), "relu"),
    Z,
    K,
    **{**options, **overrides},
  )
  if with_geco:
    model.use_geco(Geco(-1.0))
  model.initialize((H, W, C), {})
  perturb(model)
  return model


@functools.cache
def _model(**overrides):
  """The same, for tests that leave it as it is."""
  return _new_model(**overrides)


def _data(batch=B):
  image = np.random.default_rng(0).random([batch, 1, H, W, C], np.float32)
  return {"image": tf.constant(image)}


def _noise(model, batch=B):
  return model.noise([np.random.default_rng(i) for i in range(batch)])


def test_what_infer_returns():
  model = _model()
  noise = _noise(model)
  info = model.infer(_data(), noise=noise)
  steps = L + T
  shapes = {
    ("outputs", "recons"): [B, steps, 1, H, W, C],
    ("outputs", "pred_mask"): [B, steps, K, H, W, 1],
    ("outputs", "pred_mask_logits"): [B, steps, K, H, W, 1],
    ("outputs", "components"): [B, steps, K, H, W, C],
    ("outputs", "attention"): [B, steps, K, H, W, 1],
    ("latent", "z"): [B, steps, K, Z],
    ("latent", "z_mean"): [B, steps, K, Z],
    ("latent", "z_std"): [B, steps, K, Z],
    ("losses", "recons"): [B, steps],
    ("losses", "kl"): [B, steps, K],
  }
  for (part, name), shape in shapes.items():
    assert info[part][name].shape == shape, name
  assert (model.num_steps, model.first_step) == (steps, 1 - L)
  assert model.num_refinements == T
  latent = {name: value.numpy() for name, value in info["latent"].items()}
  draws = np.concatenate([noise[1 : 1 + L], noise[-T:]]).swapaxes(0, 1)
  np.testing.assert_allclose(
    latent["z"], latent["z_mean"] + latent["z_std"] * draws, atol=1e-5
  )
  for name in ("pred_mask", "attention"):
    total = info["outputs"][name].numpy().sum(axis=2)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
  decoded = model.decode_slots(latent["z"][:, 1])
  np.testing.assert_allclose(
    decoded.components, info["outputs"]["components"][:, 1], atol=1e-5
  )


def test_losses_are_weighted_the_earlier_the_more():
  model = _model(kl_beta=0.5)
  noise = _noise(model)
  loss = model(_data(), noise=noise)
  losses = model.infer(_data(), noise=noise)["losses"]
  recons, kl = (np.mean(losses[k], axis=0) for k in ("recons", "kl"))
  steps = (recons + 0.5 * kl.sum(axis=-1))[L - 1 :]
  expected = (5 * steps[0] + 4 * steps[1] + 3 * steps[2]) / 3
  np.testing.assert_allclose(loss.total, expected, rtol=1e-5)
  np.testing.assert_allclose(loss.scalars["loss/nll"], recons[-1], rtol=1e-5)
  np.testing.assert_allclose(loss.scalars["loss/kl"], kl[-1].sum(), rtol=1e-5)


def test_kl_of_a_layer_includes_those_below():
  model = _model()
  noise = _noise(model)
  own = model(_data(), noise=noise).iterations.layer_kls
  kl = model.infer(_data(), noise=noise)["losses"]["kl"]
  np.testing.assert_allclose(
    kl[:, :L], np.cumsum(np.stack(own, axis=1), axis=1), rtol=1e-4
  )


@pytest.mark.parametrize("dual_gru", [True, False])
@pytest.mark.parametrize("prior", PRIORS)
def test_compiled_equals_eager(prior, dual_gru):
  model = _model(prior=prior, dual_gru=dual_gru, likelihood="mixture")
  noise = _noise(model)
  call = tf.function(
    lambda image, noise: model({"image": image}, noise=noise).total,
    input_signature=[
      tf.TensorSpec([None, 1, H, W, C]),
      tf.TensorSpec([len(noise), None, K, Z]),
    ],
    autograph=False,
  )
  image = _data()["image"]
  eager = model({"image": image}, noise=noise).total
  np.testing.assert_allclose(call(image, noise), eager, rtol=1e-4)


@pytest.mark.parametrize("num_layers, num_iters", [(0, 0), (0, 2), (1, 1)])
def test_any_depth_has_the_same_variables_and_learns(num_layers, num_iters):
  model = _new_model(num_layers=num_layers, num_iters=num_iters)
  shapes = {v.name: v.shape for v in model.variables}
  assert shapes == {v.name: v.shape for v in _model().variables}
  trainer = training.Trainer(model, training.make_optimizer(1e-3), seed=0)
  before = float(trainer.step(_data())["loss/total"])
  for _ in range(5):
    after = float(trainer.step(_data())["loss/total"])
  assert np.isfinite(after) and after < before
  info = model.infer(_data())
  assert info["outputs"]["recons"].shape[1] == max(num_layers, 1) + num_iters
  assert ("attention" in info["outputs"]) == (num_layers > 0)


def test_steps_of_refinement_may_change():
  model = _new_model()
  noise = _noise(model)
  all_steps = model.infer(_data(), noise=noise)["outputs"]["recons"]
  model.set_num_iters(1)
  assert len(_noise(model)) == len(noise) - 1
  fewer = model.infer(_data(), noise=noise[:-1])["outputs"]["recons"]
  np.testing.assert_allclose(fewer, all_steps[:, :-1], atol=1e-5)
  with pytest.raises(ValueError, match="num_iters=-1"):
    model.set_num_iters(-1)


@pytest.mark.parametrize("size, ratios", [(None, (1, 3)), (6, (6, 6))])
def test_gradients_of_the_mean_over_the_inner_batch(size, ratios):
  model = _model(inner_batch_size=size)
  noise = _noise(model, 3)
  image = _data(3)["image"]
  sums = [
    model({"image": image[:n]}, noise=noise[:, :n])
    .iterations.steps[1]
    .refinement.gradient[:1]
    * ratio
    for n, ratio in zip((1, 3), ratios, strict=True)
  ]
  np.testing.assert_allclose(*sums, rtol=1e-3, atol=1e-3)


def test_refinement_has_no_gradients_of_second_order():
  model = _model(num_iters=1)
  noise = _noise(model)
  weights = model._decoder._layers[-1].w
  with tf.GradientTape() as tape:
    record = model(_data(), noise=noise).iterations
    normed = record.steps[1].refinement.normed
  assert tape.gradient(normed, weights) is None


def test_noise():
  model = _model()
  noise = _noise(model, 3)
  assert noise.shape == (2 * L + T, 3, K, Z)
  alone = model.noise([np.random.default_rng(1)])
  np.testing.assert_array_equal(alone[:, 0], noise[:, 1])
  with pytest.raises(ValueError, match=r"noise has shape \[7, 2, 3, 4\]"):
    model(_data(), noise=noise[1:, :2])
  totals = [
    float(model(_data(), seed=tf.constant([1, seed])).total)
    for seed in (2, 2, 3)
  ]
  assert totals[0] == totals[1] != totals[2]


@pytest.mark.parametrize(
  "options, network_runs",
  [
    ({"prior": "reversed++"}, L - 1),
    ({"prior": "reversed++", "num_iters": 0}, 0),
    ({"prior": "reversed++", "num_layers": 0}, 0),
    ({"prior": "reversed"}, 0),
    ({"prior": "bottom-up"}, 0),
    ({"prior": "bottom-up", "num_iters": 0}, L - 1),
  ],
)
def test_samples_are_of_the_prior_of_what_is_decoded(
  monkeypatch, options, network_runs
):
  model = _new_model(**options)
  calls, network = [], model._prior_network
  monkeypatch.setattr(
    model, "_prior_network", lambda z: calls.append(z) or network(z)
  )
  seed = tf.constant([1, 2])
  scenes = model.sample(5, seed)
  assert scenes.recons.shape == [5, H, W, C]
  assert scenes.masks.shape == [5, K, H, W, 1]
  assert len(calls) == network_runs
  np.testing.assert_array_equal(model.sample(5, seed).recons, scenes.recons)
  assert np.ptp(scenes.recons, axis=0).max() > 0


@pytest.mark.parametrize("paddings", [(1,), (0, 2, 1)])
def test_decoder_convolves_slots_at_all_places(paddings):
  decoder = BroadcastDecoder((5, 6), (3, 5, 3), paddings, "elu")
  slots = tf.random.stateless_normal([4, Z], [1, 2])
  decoder(slots, (H, W, C))
  perturb(decoder)
  positions, output = decoder(slots, (H, W, C))
  assert output.shape == [4, H, W, C + 1]
  x = slots[:, None, None] + positions
  paddings = paddings * 3 if len(paddings) == 1 else paddings
  for index, (layer, padding) in enumerate(
    zip(decoder._layers, paddings, strict=True)
  ):
    x = tf.nn.elu(x) if index else x
    sides = [padding, padding]
    x = tf.pad(x, [[0, 0], sides, sides, [0, 0]])
    x = tf.nn.conv2d(x, layer.w, 1, "VALID") + layer.b
  np.testing.assert_allclose(output, x, rtol=1e-4, atol=1e-4)


def test_decoder_that_leaves_no_canvas():
  decoder = BroadcastDecoder((5,), (3,), (2,))
  with pytest.raises(ValueError, match="over 0x5 pixels for .* of 4x9"):
    decoder(tf.zeros([1, Z]), (4, 9, C))
  with pytest.raises(ValueError, match=r"paddings=\[3\]: .* smaller"):
    BroadcastDecoder((5,), (3,), [3])


@pytest.mark.parametrize(
  "n_z, decoder, count",
  [
    (32, ((32, 32, 32), (5, 5, 5, 3), (1,)), 467_236),
    (64, (), 666_500),
  ],
)
def test_size_of_the_published_models(n_z, decoder, count):
  model = EfficientMORL(ImageEncoder(), BroadcastDecoder(*decoder), n_z, 4)
  model.initialize((8, 8, 3), {})
  sizes = [v.shape.num_elements() for v in model.trainable_variables]
  assert sum(sizes) == count


def test_initial_values():
  tf.random.set_seed(0)
  model = EfficientMORL(ImageEncoder(), BroadcastDecoder(), 64, 4)
  model.initialize((8, 8, 3), {})
  values = {
    v.name.removeprefix("efficient_morl/").removesuffix(":0"): v.numpy()
    for v in model.variables
  }
  # Standard deviations.
  expected = {
    "encoder/conv_1/w": 0.02 * np.sqrt(2 / (25 * 128)),
    "encoder/position/linear/w": 0.5 / np.sqrt(3),
    "decoder/position/linear/w": 0.02 * np.sqrt(2 / (4 + 64)),
    "decoder/conv_0/w": 0.02 * np.sqrt(2 / (9 * 128)),
    "hierarchy/project_q/w": 0.02 * np.sqrt(2 / 128),
    "hierarchy/dual_gru/w_in_1": 1.0,
    "hierarchy/dual_gru/b_ih": 1.0,
    "hierarchy/mlp_raw_0/w": 0.02 * np.sqrt(2 / 192),
    "prior/mean/w": 0.02 * np.sqrt(2 / 192),
    "refinement/gru/w_h": 1 / 8 / np.sqrt(3),
    "refinement/raw/w": 0.02 * np.sqrt(2 / 128),
  }
  for end, deviation in expected.items():
    (value,) = (v for name, v in values.items() if name.endswith(end))
    assert abs(np.std(value) / deviation - 1) < 0.15, end
  (initial,) = (v for n, v in values.items() if n.endswith("posterior"))
  np.testing.assert_array_equal(initial, [[0.0] * 64 + [1.0] * 64])


def _published(model, prefix="module.", hvae="hvae_networks."):
  """A published checkpoint that fits; values of each name are its number."""
  d = 2 * Z
  shapes = {
    "init_posterior": (1, d),
    "pos_embed_projection.weight": (6, 4),
    "pos_embed_projection.bias": (6,),
    "encoder_pt_1.0.weight": (5, 2, 3, 3),
    "encoder_pt_1.2.weight": (6, 5, 3, 3),
    "image_decoder.decode.0.weight": (5, Z, 3, 3),
    "image_decoder.decode.2.weight": (6, 5, 5, 5),
    "image_decoder.decode.4.weight": (3, 6, 3, 3),
    "gru.cell.weight_ih_1": (d, Z),
    "gru.cell.bias_ih": (4 * Z,),
  }
  values = {
    f"{prefix}{hvae}{name}": np.full(shape, i, np.float32)
    for i, (name, shape) in enumerate(shapes.items())
  }
  return {
    **values,
    f"{prefix}geco_C_ema": np.float32(0.0),
    f"{prefix}geco_beta": np.float32(0.55),
  }


@pytest.mark.parametrize("with_geco", [True, False])
def test_checkpoints_of_the_code_s_versions(with_geco):
  model = _new_model(with_geco)
  values = _published(model)
  new = model.published_weights(values)
  names = {variable.name.partition(":")[0] for variable in model.variables}
  assert set(new) <= names
  assert ("geco/beta" in new) == with_geco
  old = {}
  for name, value in values.items():
    part = name.removeprefix("module.hvae_networks.")
    moved = part.startswith(("encoder_pt_", "pos_embed_projection."))
    if not moved:
      name = name.replace("hvae_networks", "object_discovery_block")
    old[f"module.{part}" if moved else name] = value
  block = "module.object_discovery_block."
  old |= {
    f"{block}generation_relation.0.weight": np.zeros(3),
    f"{block}gru.cell.zeros": np.zeros(3),
    f"{block}gru.cell.zeros_n": np.zeros(3),
  }
  translated = model.published_weights(old)
  assert set(translated) == set(new)
  for name, value in new.items():
    np.testing.assert_array_equal(translated[name], value)


def test_state_of_geco_that_a_model_does_not_have_is_left_over():
  values = _published(_model())
  values["module.geco_beta"] = np.float32(15.0)
  assert "geco/beta" in _model().published_weights(values)


def test_channels_of_transposed_convolutions():
  shapes = {
    "hierarchy/initial_posterior": (1, 2 * Z),
    "decoder/conv_0/w": (5, 5, 6, Z),
    "decoder/conv_1/w": (3, 3, 7, 6),
    "decoder/conv_2/w": (3, 3, C + 1, 7),
  }
  options = weights.options(shapes)
  assert options["n_z"] == Z
  assert options["model.decoder.output_channels"] == (6, 7)
  assert options["model.decoder.kernel_shapes"] == (5, 3, 3)


def test_checkpoint_of_another_size():
  values = _published(_model())
  other = _new_model(dual_gru=False)
  with pytest.raises(ValueError, match="model.dual_gru=True  .is False"):
    other.published_weights(values)
  assert other.published_weights({"x": np.zeros(2)}) is None


@pytest.mark.parametrize(
  "options, fault",
  [
    ({"num_layers": -1}, "num_layers=-1"),
    ({"num_iters": 1.5}, "num_iters=1.5"),
    ({"likelihood": "gmm"}, "likelihood='gmm': no such value"),
    ({"prior": "bottom-up++"}, "prior='bottom-up..': no such value"),
    ({"log_scale": "a"}, "log_scale='a': is text; expected a finite number"),
    ({"kl_beta": -1.0}, "kl_beta=-1.0: expected a number of at least 0"),
    ({"init_gain": 0}, "init_gain=0: expected a number above 0"),
    ({"inner_batch_size": 0}, "inner_batch_size=0"),
    ({"dual_gru": 1}, "dual_gru=1: expected True or False"),
    ({"decoder": None}, "decoder=None: expected a module"),
  ],
)
def test_wrong_arguments(options, fault):
  parts = {"encoder": ImageEncoder(), "decoder": BroadcastDecoder()}
  with pytest.raises(ValueError, match=fault):
    EfficientMORL(**{**parts, "n_z": Z, "num_components": K, **options})


def test_it_can_all_that_a_model_may():
  assert isinstance(_model(), SceneModel)
  assert all(map(_model().can, ("decode_slots", "compose", "sample")))
  prior = _model().prior
  assert (prior.batch_shape, prior.event_shape) == ([K], [Z])
