"""Tests of iodine.modules.iodine."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import tf1_checkpoint
from iodine.config import plans
from iodine.multi_object_datasets import segmentation_metrics
from tests.support import tiny

_SPATIAL = (
  "capacity",
  "components",
  "coordinates",
  "counterfactual",
  "dcomponents",
  "dmask",
  "image",
  "log_prob",
  "mask",
  "posterior",
  "pred_mask",
)
_FLAT = ("dzp", "flat_capacity", "zp")
_SEED = np.array([3, 14], np.int32)


@pytest.fixture(scope="module")
def model():
  """A model that no test may change."""
  return tiny.initialized()


@pytest.fixture(scope="module")
def called(model):
  """What a call of the model returns."""
  return model(tiny.batch(), noise=tiny.noise())


def _leaves(tree: Any) -> list[np.ndarray]:
  """All tensors of a nest, distributions left out."""
  leaves = tf.nest.flatten(tree)
  return [
    np.asarray(leaf)
    for leaf in leaves
    if not isinstance(leaf, tfp.distributions.Distribution)
  ]


def _assert_near(actual: Any, expected: Any, rtol: float = 1e-4):
  """Compares nests in relation to each tensor's largest entry.

  Sums in another order differ by about 1e-7, which the layer norms of small
  gradients amplify.
  """
  actual, expected = _leaves(actual), _leaves(expected)
  assert len(actual) == len(expected) > 0
  for a, b in zip(actual, expected, strict=True):
    atol = rtol * np.max(np.abs(b), initial=1e-6)
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def _call_and_gradients(
  model, data: Mapping, noise: tf.Tensor
) -> tuple[tuple, dict[str, Any]]:
  """Returns what a call returns, and {name: gradient of the total loss}."""
  with tf.GradientTape() as tape:
    result = model(data, noise=noise)
  variables = model.trainable_variables
  gradients = tape.gradient(result[0], variables)
  names = [v.name for v in variables]
  return result, dict(zip(names, gradients, strict=True))


def _assert_finite(*trees: Any):
  for leaf in _leaves(list(trees)):
    assert np.all(np.isfinite(leaf))


# --- Eager mode, tf.function, batch sizes -------------------------------------


def test_compiled_call_equals_eager_call_at_any_batch_size(model):
  traces = []

  def forward(data, noise):
    traces.append(None)
    total, scalars, iterations = model(data, noise=noise)
    del iterations["z_dist"], iterations["x_dist"]
    return total, scalars, iterations

  specs = tf.nest.map_structure(
    lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), tiny.batch()
  )
  noise_spec = tf.TensorSpec([tiny.S, None, tiny.K, tiny.Z])
  # The running moments, which R^2 depends on, change with every call.
  moments = [v for v in model.variables if not v.trainable]
  start = [v.numpy() for v in moments]
  compiled = tf.function(
    forward, input_signature=[specs, noise_spec], autograph=False
  )
  for size in (1, 3):
    results = []
    for fn in (compiled, forward):
      for variable, value in zip(moments, start, strict=True):
        variable.assign(value)
      results.append(fn(tiny.batch(size), tiny.noise(size)))
    _assert_near(*results)
    assert results[0][2]["zp"][-1].shape == (size, tiny.K, 2 * tiny.Z)
  # Two eager calls, and one trace for both sizes.
  assert len(traces) == 3


def test_compiled_eval_equals_eager_eval_at_any_batch_size(model):
  specs = tf.nest.map_structure(
    lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), tiny.batch()
  )
  noise_spec = tf.TensorSpec([tiny.S, None, tiny.K, tiny.Z])
  compiled = tf.function(
    lambda data, noise: model.eval(data, noise=noise),
    input_signature=[specs, noise_spec],
    autograph=False,
  )
  for size in (1, 3):
    arguments = tiny.batch(size), tiny.noise(size)
    info = compiled(*arguments)
    # An ARI is not continuous in the masks.
    expected = model.eval(*arguments)
    for result in (info, expected):
      ari = result["metrics"].pop("ari"), result["metrics"].pop("ari_nobg")
      assert ari[0].shape == ari[1].shape == (size, tiny.S)
    _assert_near(info, expected)


def test_first_call_may_be_compiled():
  model = tiny.build(num_iters=1)
  compiled = tf.function(
    lambda data, noise: model(data, noise=noise)[0], autograph=False
  )
  noise = tiny.noise(num_iters=1)
  total = compiled(tiny.batch(), noise)
  _assert_near(total, model(tiny.batch(), noise=noise)[0])


@pytest.mark.parametrize("inner_batch_size", [None, tiny.B + 1])
def test_influence_of_the_batch_size(inner_batch_size):
  model = tiny.initialized(inner_batch_size=inner_batch_size)
  dmask = []
  for size in (tiny.B, 1):
    _, _, iterations = model(tiny.batch(size), noise=tiny.noise(size))
    dmask.append(iterations["inputs"][1]["spatial"]["dmask"][:1])
  difference = np.max(np.abs(dmask[0] - dmask[1]))
  # dmask has been normalised to a variance of 1; the layer norm's epsilon
  # damps it more in a larger batch, unless the inner loss is divided by a
  # fixed number.
  if inner_batch_size is None:
    assert 2e-4 < difference < 0.1
  else:
    assert difference < 1e-5


def test_inner_batch_size_of_the_batch_at_hand_is_the_default(called):
  model = tiny.initialized(inner_batch_size=tiny.B)
  _, _, iterations = model(tiny.batch(), noise=tiny.noise())
  _assert_near(iterations["zp"], called[2]["zp"])


def test_iterations_have_the_documented_shapes(called):
  total, scalars, iterations = called
  assert total.shape == ()
  assert {v.shape for v in scalars.values()} == {()}
  b, k, z = tiny.B, tiny.K, tiny.Z
  shapes = {
    "z": (b, k, z),
    "zp": (b, k, 2 * z),
    "kl": (b, k),
    "re": (b,),
    "recons_loss": (),
  }
  for key, shape in shapes.items():
    assert [v.shape for v in iterations[key]] == [shape] * tiny.S, key
  assert len(iterations["x_dist"]) == len(iterations["z_dist"]) == tiny.S
  assert len(iterations["inputs"]) == tiny.NUM_ITERS
  image = iterations["x_dist"][0].mean()
  assert image.shape == (b, 1, tiny.H, tiny.W, tiny.C)


# --- Losses -------------------------------------------------------------------


@pytest.mark.parametrize(
  "iter_loss_weight, expected",
  [
    ("linspace", [0.0, 0.5, 1.0]),
    (2, [2.0, 2.0, 2.0]),
    ([0.25, 0, 3], [0.25, 0.0, 3.0]),
  ],
)
def test_iter_loss_weight(iter_loss_weight, expected):
  model = tiny.initialized(iter_loss_weight=iter_loss_weight)
  total, scalars, iterations = model(tiny.batch(), noise=tiny.noise())
  re = [np.mean(values) for values in iterations["re"]]
  kl = [np.mean(np.sum(values, axis=1)) for values in iterations["kl"]]
  assert len(set(re)) == len(set(kl)) == tiny.S  # So that weights matter.
  recons = np.dot(expected, re)
  near = lambda value: pytest.approx(float(value), rel=1e-5)
  assert near(scalars["loss/recons"]) == recons
  assert near(scalars["loss/kl"]) == np.sum(kl)
  loss = recons + np.dot(expected, kl) + scalars["factor/loss"]
  assert near(total) == near(scalars["loss/total"]) == loss
  _assert_near(iterations["recons_loss"], re)


@pytest.mark.parametrize(
  "iter_loss_weight, message",
  [
    ([0.5, 1.0], "2 weights, but num_iters=2 needs 3"),
    ("linear", "must be 'linspace', a number or a list"),
    (True, "must be 'linspace', a number or a list"),
    ([0.0, -1.0, 1.0], "finite and not negative"),
    (float("nan"), "finite and not negative"),
    ([0.0, 1.0, float("inf")], "finite and not negative"),
  ],
)
def test_iter_loss_weight_errors(iter_loss_weight, message):
  with pytest.raises(ValueError, match=message) as error:
    tiny.build(iter_loss_weight=iter_loss_weight)
  assert f"iter_loss_weight={iter_loss_weight!r}" in str(error.value)


def test_reconstruction_error_and_kl_are_those_of_the_distributions(
  model, called
):
  iterations = called[2]
  image = tiny.batch()["image"]
  for t in range(tiny.S):
    log_prob = iterations["x_dist"][t].log_prob(image)
    assert log_prob.shape == (tiny.B, 1, tiny.H, tiny.W)
    _assert_near(iterations["re"][t], -tf.reduce_sum(log_prob, [1, 2, 3]))
    # KL of independent normals; the prior's variance is softplus(0) = ln 2.
    dist, prior_var = iterations["z_dist"][t], np.log(2.0)
    ratio = np.square(dist.stddev()) / prior_var
    kl = 0.5 * (np.square(dist.mean()) / prior_var + ratio - 1 - np.log(ratio))
    _assert_near(iterations["kl"][t], kl.sum(-1))
  assert model.prior.batch_shape == [tiny.K]
  assert model.prior.event_shape == [tiny.Z]


# --- Randomness ---------------------------------------------------------------


def test_noise_replaces_draws(called):
  for t, (z, dist) in enumerate(
    zip(called[2]["z"], called[2]["z_dist"], strict=True)
  ):
    # Compared with NumPy: TensorFlow may fuse the two operations.
    expected = dist.mean() + dist.stddev().numpy() * tiny.noise()[t].numpy()
    np.testing.assert_allclose(z, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["__call__", "eval"])
def test_seed_makes_calls_repeatable(model, method):
  def latents(seed):
    result = getattr(model, method)(tiny.batch(), seed=seed)
    return result["latent"]["z"] if method == "eval" else result[2]["z"]

  first = latents(_SEED)
  for a, b in zip(first, latents(_SEED), strict=True):
    np.testing.assert_array_equal(a, b)
  for other in (_SEED + [0, 1], _SEED + [1, 0], None, None):
    assert np.min(np.abs(first[0] - latents(other)[0])) > 0


def test_every_step_draws_anew(model):
  iterations = model(tiny.batch(), seed=_SEED)[2]
  draws = [
    (z - dist.mean()) / dist.stddev()
    for z, dist in zip(iterations["z"], iterations["z_dist"], strict=True)
  ]
  draws = np.stack(draws).ravel()
  assert np.min(np.diff(np.sort(draws))) > 1e-6
  # Standard normal: the bounds are four standard errors.
  assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
  assert abs(draws.std() - 1) < 4 / np.sqrt(2 * draws.size)


# --- Other sizes, data and distributions --------------------------------------


@pytest.mark.parametrize(
  "num_components, num_iters", [(tiny.K + 3, tiny.NUM_ITERS), (tiny.K, 1)]
)
def test_checkpoint_fits_other_numbers_of_slots_and_iterations(
  model, tmp_path, num_components, num_iters
):
  path = str(tmp_path / "model.ckpt")
  tf1_checkpoint.save(path, model)
  sizes = {"num_components": num_components, "num_iters": num_iters}
  other = tiny.build(**sizes)
  other.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  report = tf1_checkpoint.restore(path, other)
  assert report.missing == report.unused == ()
  assert len(report.found) == len(model.variables)

  _, _, iterations = other(tiny.batch(), noise=tiny.noise(**sizes))
  assert iterations["z"][-1].shape == (tiny.B, num_components, tiny.Z)
  assert len(iterations["z"]) == num_iters + 1
  if num_components == tiny.K:
    _, _, expected = model(tiny.batch(), noise=tiny.noise())
    _assert_near(iterations["zp"], expected["zp"][: num_iters + 1])


@pytest.fixture(scope="module")
def sequential():
  model = tiny.initialized(sequential=True)
  model.num_background_entities = 2
  return model


def test_sequential_model_shows_frame_t_to_step_t(sequential):
  data = tiny.batch(frames=tiny.S)
  _, scalars, iterations = sequential(data, noise=tiny.noise())
  for t in range(tiny.S):
    frame = data["image"][:, t : t + 1]
    log_prob = iterations["x_dist"][t].log_prob(frame)
    _assert_near(iterations["re"][t], -tf.reduce_sum(log_prob, [1, 2, 3]))
  for t in range(tiny.NUM_ITERS):
    spatial = iterations["inputs"][t]["spatial"]
    _assert_near(spatial["image"], data["image"][:, t : t + 1])
  error = data["image"][:, -1:] - iterations["x_dist"][-1].mean()
  _assert_near(scalars["loss/mse"], np.mean(np.square(error)))


def test_sequential_eval_compares_step_t_with_frame_t(sequential):
  data = tiny.batch(frames=tiny.S)
  info = sequential.eval(data, noise=tiny.noise())
  recons = info["outputs"]["recons"][:, :, 0]
  mse = np.mean(np.square(recons - data["image"]), axis=(2, 3, 4))
  _assert_near(info["metrics"]["mse"], mse)
  pred = _points(info["outputs"]["pred_mask"])
  true = _points(data["mask"])
  ari = segmentation_metrics.adjusted_rand_index
  for t in range(tiny.S):
    metrics = {key: v[:, t] for key, v in info["metrics"].items()}
    _assert_near(metrics["ari"], ari(true[:, t], pred[:, t]))
    _assert_near(metrics["ari_nobg"], ari(true[:, t, :, 2:], pred[:, t]))
  # Objects are assigned to slots frame by frame.
  overlap = np.einsum("btpl,btpk->btlk", true, pred)
  assignment = np.eye(tiny.K)[overlap.argmax(-1)]
  assignment = assignment * np.asarray(data["visibility"])[:, None, :, None]
  np.testing.assert_array_equal(
    info["factor_regressor"]["assignment"], assignment
  )
  assert np.all(np.any(assignment, axis=(0, 1, 2)))  # No slot is left out.


def test_sequential_model_ignores_frames_beyond_the_last_step(sequential):
  longer = tiny.batch(frames=tiny.S + 2)
  cut = {**longer, "mask": longer["mask"][:, : tiny.S]}
  cut["image"] = longer["image"][:, : tiny.S]
  # The assertion on data: info["data"] holds what was used.
  a = sequential.eval(longer, noise=tiny.noise())
  b = sequential.eval(cut, noise=tiny.noise())
  tf.nest.assert_same_structure(a, b)
  _assert_near(a, b, rtol=1e-6)


def test_sequential_model_needs_enough_frames(sequential):
  data = tiny.batch(frames=tiny.S - 1)
  message = "image: the model needs 3 frames"
  with pytest.raises(ValueError, match=message) as error:
    sequential(data)
  assert str(data["image"].shape) in str(error.value)
  with pytest.raises(ValueError, match=message):
    sequential.eval(data)


def test_model_of_still_images_sees_frame_0_only(model, called):
  data = tiny.batch()
  data["image"] = tf.concat([data["image"], 1 - data["image"]], axis=1)
  data["mask"] = tf.concat([data["mask"], 1 - data["mask"]], axis=1)
  total, _, iterations = model(data, noise=tiny.noise())
  _assert_near(iterations["zp"], called[2]["zp"], rtol=1e-6)
  _assert_near(iterations["re"], called[2]["re"], rtol=1e-6)
  assert model.eval(data)["data"]["image"].shape[1] == 1
  _assert_finite(total)


def test_grayscale_images():
  model = tiny.initialized(image_shape=(tiny.H, tiny.W, 1))
  data = tiny.batch(channels=1)
  total, scalars, iterations = model(data, noise=tiny.noise())
  _assert_finite(total, scalars)
  image = (tiny.B, 1, tiny.H, tiny.W, 1)
  assert iterations["x_dist"][-1].mean().shape == image
  spatial = iterations["inputs"][-1]["spatial"]
  assert spatial["dcomponents"].shape == (tiny.B, tiny.K, tiny.H, tiny.W, 1)
  assert model.sample(2).recons.shape == (2, tiny.H, tiny.W, 1)


_LOSSES = {"loss/kl", "loss/mse", "loss/nll", "loss/recons", "loss/total"}
_ARI = {"loss/ari", "loss/ari_nobg"}
_FACTORS = {"factor/loss", "factor/position", "factor/shape"}


def test_scenes_without_objects_do_not_count_in_the_ari(model):
  data = tiny.batch()
  empty = np.array(data["mask"])
  empty[1] = 0
  empty[1, :, 0] = 1  # all background
  noise = tiny.noise()
  _, scalars, _ = model(data | {"mask": empty}, noise=noise)
  info = model.eval(data | {"mask": empty}, noise=noise)
  scores = info["metrics"]["ari_nobg"][:, -1].numpy()
  assert np.isnan(scores[1]) and np.isfinite(scores[0])
  _assert_near(scalars["loss/ari_nobg"], np.nanmean(scores))


@pytest.mark.parametrize(
  "without, expected",
  [
    ((), _LOSSES | _ARI | _FACTORS),
    (("factors",), _LOSSES | _ARI),
    (("visibility",), _LOSSES | _ARI),
    (("mask",), _LOSSES),
    (("mask", "visibility", "factors"), _LOSSES),
  ],
)
def test_what_the_data_lack_is_left_out(model, called, without, expected):
  data = tiny.batch(without=without)
  _, scalars, iterations = model(data, noise=tiny.noise())
  assert set(scalars) == expected
  _assert_near(iterations["zp"], called[2]["zp"])
  info = model.eval(data, noise=tiny.noise())
  has_ari, has_factors = "loss/ari" in expected, "factor/loss" in expected
  assert ("ari" in info["metrics"]) == has_ari
  assert ("ari_nobg" in info["metrics"]) == has_ari
  assert ("true_mask" in info["data"]) == has_ari
  assert ("factor_regressor" in info) == has_factors
  assert ("factor" in info["losses"]) == has_factors
  assert info["metrics"]["mse"].shape == (tiny.B, tiny.S)


def test_model_without_factor_evaluator_ignores_factors():
  model = tiny.initialized(factor_evaluator=None)
  _, scalars, _ = model(tiny.batch())
  assert set(scalars) == _LOSSES | _ARI
  assert "factor_regressor" not in model.eval(tiny.batch())


@pytest.mark.parametrize(
  "dist, dist_kwargs", [("logistic", {}), ("student_t", {"df": 3.0})]
)
def test_latents_without_kl_divergence_are_an_error(dist, dist_kwargs):
  latent = {**tiny.LATENT_DIST, "dist": dist, "dist_kwargs": dist_kwargs}
  message = "latent_dist: .*no KL divergence.*use 'normal', 'log_normal'"
  with pytest.raises(ValueError, match=message):
    tiny.build(latent_dist=latent)


@pytest.mark.parametrize("dist", ["log_normal", "laplace"])
def test_other_latents(dist):
  model = tiny.initialized(latent_dist={**tiny.LATENT_DIST, "dist": dist})
  data = tiny.batch()
  result, gradients = _call_and_gradients(model, data, tiny.noise())
  total, _, iterations = result
  _assert_finite(total, gradients)
  z, z_dist = iterations["z"][-1], iterations["z_dist"][-1]
  expected = z_dist.mean() + z_dist.stddev() * tiny.noise()[-1]
  np.testing.assert_allclose(z, expected, rtol=1e-5)
  drawn = model(data, seed=_SEED)[2]["z"][-1]
  assert np.all(drawn > 0) if dist == "log_normal" else np.any(drawn < 0)


def _points(mask: Any) -> np.ndarray:
  """[B, S, n, H, W, 1] to [B, S, H * W, n]."""
  mask = np.moveaxis(np.asarray(mask)[..., 0], 2, -1)
  return mask.reshape(*mask.shape[:2], -1, mask.shape[-1])


@pytest.mark.parametrize("num_background_entities", [1, 2])
def test_ari_without_background(num_background_entities):
  model = tiny.initialized()
  model.num_background_entities = num_background_entities
  data = tiny.batch()
  # Two entities cut across the slots, the others are just what the last step's
  # slots explain.
  info = model.eval(data, noise=tiny.noise())
  pred = _points(info["outputs"]["pred_mask"])
  entities = 2 + pred[:, -1].argmax(-1).reshape(tiny.B, tiny.H, tiny.W)
  entities[:, 1:3] = 0
  entities[:, 4:6] = 1
  mask = np.moveaxis(np.eye(tiny.L, dtype=np.float32)[entities], -1, 1)
  data["mask"] = tf.constant(mask[:, np.newaxis, ..., np.newaxis])

  info = model.eval(data, noise=tiny.noise())
  true = _points(data["mask"])[:, 0]
  ari = segmentation_metrics.adjusted_rand_index
  objects = true[..., num_background_entities:]
  for t in range(tiny.S):
    _assert_near(info["metrics"]["ari"][:, t], ari(true, pred[:, t]))
    _assert_near(info["metrics"]["ari_nobg"][:, t], ari(objects, pred[:, t]))
  _, scalars, _ = model(data, noise=tiny.noise())
  for name in ("ari", "ari_nobg"):
    expected = np.mean(info["metrics"][name][:, -1])
    _assert_near(scalars[f"loss/{name}"], expected)
  # Some images are explained by several slots.
  several = np.array([len(np.unique(e)) > 3 for e in entities])
  assert np.any(several)
  ari_nobg = info["metrics"]["ari_nobg"].numpy()[several, -1]
  if num_background_entities == 2:
    np.testing.assert_allclose(ari_nobg, 1.0, atol=1e-5)
  else:
    assert np.all(ari_nobg < 0.95)


# --- Refinement inputs and gradients ------------------------------------------


def _check_inputs(inputs: tuple[str, ...]):
  """Trains on a subset of the refinement inputs."""
  model = tiny.initialized(inputs=list(inputs), num_iters=1)
  noise = tiny.noise(num_iters=1)
  result, gradients = _call_and_gradients(model, tiny.batch(), noise)
  total, _, iterations = result
  for step in iterations["inputs"]:
    assert set(step["spatial"]) == set(inputs) & set(_SPATIAL)
    assert set(step["flat"]) == set(inputs) & set(_FLAT)
  zp = iterations["zp"]
  assert np.max(np.abs(zp[-1] - zp[0])) > 1e-3
  assert None not in gradients.values()
  _assert_finite(total, gradients)
  layer_norms = {
    v.name.split("layer_norm_")[1].split("/")[0]
    for v in model.variables
    if "layer_norm_" in v.name
  }
  normalized = {"counterfactual", "dcomponents", "dmask", "dzp", "log_prob"}
  assert layer_norms == normalized & set(inputs)
  return model


@pytest.mark.parametrize("name", _SPATIAL + _FLAT)
def test_one_refinement_input_alone(name):
  _check_inputs((name,))


def _without(*names: str) -> tuple[str, ...]:
  return tuple(n for n in _SPATIAL + _FLAT if n not in names)


@pytest.mark.parametrize(
  "inputs",
  [
    _without("zp"),
    _without(*_SPATIAL),
    _without(*_FLAT),
    _without("dzp", "dcomponents", "dmask"),
  ],
  ids=["no_zp", "no_spatial", "no_flat", "no_gradients"],
)
def test_subset_of_refinement_inputs(inputs):
  model = _check_inputs(inputs)
  info = model.eval(tiny.batch())
  for kind, names in (("spatial", _SPATIAL), ("flat", _FLAT)):
    assert set(info["inputs"][kind]) == set(inputs) & set(names)


def test_refinement_inputs_are_joined_by_name(called):
  inputs = ["dzp", "zp", "image", "flat_capacity", "mask"]
  a = tiny.initialized(inputs=inputs)
  b = tiny.initialized(inputs=inputs[::-1])
  for key in ("zp", "re"):
    a_values = a(tiny.batch(), noise=tiny.noise())[2][key]
    b_values = b(tiny.batch(), noise=tiny.noise())[2][key]
    _assert_near(a_values, b_values, rtol=1e-6)
  # A model that ignored its inputs would pass as well.
  assert np.max(np.abs(a_values[-1] - called[2]["re"][-1])) > 1


def test_constant_inputs_and_coordinates(called):
  inputs = called[2]["inputs"][0]
  assert np.all(inputs["flat"]["flat_capacity"] == 0.5)
  assert np.all(inputs["spatial"]["capacity"] == 0.5)
  coordinates = inputs["spatial"]["coordinates"]
  assert coordinates.shape == (tiny.B, 1, tiny.H, tiny.W, 2)
  x, y = np.meshgrid(np.linspace(-1, 1, tiny.W), np.linspace(-1, 1, tiny.H))
  np.testing.assert_allclose(coordinates[1, 0, ..., 0], x, atol=1e-6)
  np.testing.assert_allclose(coordinates[1, 0, ..., 1], y, atol=1e-6)


def test_gradient_inputs_are_those_of_the_inner_loss():
  # Without layer norm the gradients themselves are seen.
  model = tiny.initialized(preprocess=[])
  _, _, iterations = model(tiny.batch(), noise=tiny.noise())
  t = 1
  zp = tf.constant(iterations["zp"][t])
  image = tiny.batch()["image"]
  with tf.GradientTape() as tape:
    tape.watch(zp)
    z_dist = model.latent_dist(zp)
    z = z_dist.mean() + z_dist.stddev() * tiny.noise()[t]
    params, x_dist = model.decode(z)
    re = -tf.reduce_sum(x_dist.log_prob(image), [1, 2, 3])
    kl = tf.reduce_sum(z_dist.kl_divergence(model.prior), axis=1)
    loss = tf.reduce_mean(re + kl)
  dzp, dpixel, dmask = tape.gradient(loss, [zp, params.pixel, params.mask])
  inputs = iterations["inputs"][t]
  _assert_near(inputs["flat"]["dzp"], dzp)
  _assert_near(inputs["spatial"]["dcomponents"], dpixel)
  _assert_near(inputs["spatial"]["dmask"], dmask)


def test_stop_gradients_change_gradients_and_nothing_else(model, called):
  other = tiny.initialized(stop_gradients=[])
  arguments = tiny.batch(), tiny.noise()
  (total, _, iterations), through = _call_and_gradients(other, *arguments)
  for key in ("z", "zp", "kl", "re", "inputs"):
    _assert_near(iterations[key], called[2][key], rtol=1e-6)
  _assert_finite(total)

  _, stopped = _call_and_gradients(model, *arguments)
  assert None not in through.values()
  _assert_finite(through)
  differs = {
    name: np.max(np.abs(stopped[name] - through[name]))
    > 1e-3 * np.max(np.abs(stopped[name]))
    for name in stopped
  }
  assert differs["pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_0/w:0"]
  # The factor evaluator sees z through a stopped gradient in either case.
  evaluator = [name for name in differs if name.startswith("factor_evaluator")]
  assert evaluator and not any(differs[name] for name in evaluator)


def test_factor_loss_does_not_train_the_model(model):
  without = tiny.batch(without=("factors",))
  _, a = _call_and_gradients(model, tiny.batch(), tiny.noise())
  _, b = _call_and_gradients(model, without, tiny.noise())
  for name in a:
    if name.startswith("factor_evaluator"):
      assert np.any(a[name]) and b[name] is None
    else:
      _assert_near(a[name], b[name])


@pytest.mark.parametrize("key", ["inputs", "stop_gradients", "preprocess"])
def test_unknown_input_names(key):
  with pytest.raises(
    ValueError, match=f"{key}: unknown input 'masks'"
  ) as error:
    tiny.build(**{key: ["masks"]})
  assert "Did you mean 'mask'?" in str(error.value)
  with pytest.raises(ValueError, match=f"{key}='zp': must be a list"):
    tiny.build(**{key: "zp"})


# The variance of the latents is softplus(scale). Below about -87 that is zero
# in float32 unless it is kept from it; see test_numbers.py for more.
@pytest.mark.parametrize("loc, scale", [
  (0.0, -80.0), (0.0, -1e8), (0.0, 80.0), (0.0, 1e8), (1e4, 0.0), (-1e4, 0.0),
])  # fmt: skip
def test_extreme_posteriors_give_finite_gradients(loc, scale):
  model = tiny.initialized(num_iters=1)
  model.initial_zp.assign([loc] * tiny.Z + [scale] * tiny.Z)
  noise = tiny.noise(num_iters=1)
  result, gradients = _call_and_gradients(model, tiny.batch(), noise)
  _assert_finite(result[0], result[1], gradients)


# --- Variables ----------------------------------------------------------------


def _shapes(model) -> dict[str, tuple]:
  return {v.name: (tuple(v.shape), v.trainable) for v in model.variables}


@pytest.mark.parametrize(
  "overrides",
  [
    {},
    {"factor_evaluator": None},
    {"sequential": True},
    {"inputs": ["zp", "image"]},
    {"pixel_dist": {"scale_val": -1}},
  ],
  ids=lambda overrides: "-".join(overrides) or "default",
)
def test_initialize_creates_what_a_call_creates(overrides):
  frames = 2 if overrides.get("sequential") else 1
  called = tiny.build(num_iters=1, **overrides)
  initialized = tiny.build(num_iters=1, **overrides)
  called(tiny.batch(frames=frames))
  initialized.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  expected = _shapes(called)
  assert _shapes(initialized) == expected
  assert len(expected) == len(called.variables)  # No two of the same name.
  for variable in initialized.variables:
    if "_mean_var/" in variable.name:
      np.testing.assert_array_equal(variable, np.zeros(variable.shape))
  # It creates none the second time, nor does a later call.
  initialized.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  initialized(tiny.batch(frames=frames))
  assert _shapes(initialized) == expected


def test_initialize_without_factors():
  called, initialized = tiny.build(num_iters=1), tiny.build(num_iters=1)
  called(tiny.batch(without=("factors",)))
  initialized.initialize((tiny.H, tiny.W, tiny.C), {})
  assert _shapes(initialized) == _shapes(called)
  assert not any("factor_evaluator" in name for name in _shapes(called))


def test_call_moves_the_moments_and_eval_changes_nothing():
  model = tiny.initialized()
  model(tiny.batch())
  before = tiny.values(model.variables)
  model.eval(tiny.batch())
  model.infer(tiny.batch())
  model.sample(2)
  after = tiny.values(model.variables)
  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value, err_msg=name)
  model(tiny.batch())
  moved = {
    name
    for name, variable in tiny.values(model.variables).items()
    if np.any(variable != before[name])
  }
  prefix = "factor_evaluator/repres_content/position_mean_var"
  # The same data again: twice the weight and squares, but the same mean.
  assert {f"{prefix}/total:0", f"{prefix}/M2:0"} <= moved
  assert moved <= {f"{prefix}/{key}:0" for key in ("total", "M2", "mean")}


# --- Pictures and errors ------------------------------------------------------


def test_samples_of_the_prior(model):
  recons, masks = model.sample(4, seed=_SEED)
  assert recons.shape == (4, tiny.H, tiny.W, tiny.C)
  assert masks.shape == (4, tiny.K, tiny.H, tiny.W, 1)
  np.testing.assert_allclose(tf.reduce_sum(masks, axis=1), 1, rtol=1e-5)
  z = model.prior.sample(4, seed=_SEED)
  components, logits = model.decode_slots(z)
  weights = tf.nn.softmax(logits, axis=1)
  expected = tf.reduce_sum(weights * components, axis=1)
  np.testing.assert_allclose(recons, expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(recons, model.sample(4, seed=_SEED).recons)
  assert np.any(recons != model.sample(4, seed=_SEED + 1).recons)


def test_noise_of_a_scene_depends_on_its_generator_alone(model):
  def rngs(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]

  noise = model.noise(rngs(3, 4))
  assert noise.shape == (tiny.S, 2, tiny.K, tiny.Z)
  np.testing.assert_array_equal(noise[:, :1], model.noise(rngs(3)))
  assert np.any(noise[:, 1] != noise[:, 0])


def test_decode_needs_an_image_shape():
  model = tiny.build()
  z = tf.zeros([tiny.B, tiny.K, tiny.Z])
  with pytest.raises(ValueError, match="the image's size is unknown"):
    model.decode(z)
  params, x_dist = model.decode(z, (tiny.H, tiny.W, tiny.C))
  image = (tiny.H, tiny.W, tiny.C)
  assert params.pixel.shape == (tiny.B, tiny.K, *image)
  assert params.mask.shape == (tiny.B, tiny.K, tiny.H, tiny.W, 1)
  assert x_dist.mean().shape == (tiny.B, 1, *image)


def test_decode_of_what_a_call_inferred(model, called):
  iterations = called[2]
  _, x_dist = model.decode(iterations["z"][-1])
  _assert_near(x_dist.mean(), iterations["x_dist"][-1].mean(), rtol=1e-6)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda d: {"image": d["image"][:, 0]}, "expected [B, T, H, W, C]"),
    (
      lambda d: {"image": tf.cast(d["image"] * 255, tf.uint8)},
      "image: expected float32 in [0, 1], got uint8",
    ),
    (
      lambda d: {"image": d["image"] * 255},
      "image: expected float32 in [0, 1], got float32 ",
    ),
    (
      lambda d: {**d, "mask": d["mask"][:, :, :, 1:]},
      "mask has shape [4, 1, 6, 8, 7, 1], expected [B, T, L, H, W, 1] with",
    ),
    (
      lambda d: {**d, "mask": d["mask"][..., 0]},
      "mask has shape [4, 1, 6, 9, 7], expected [B, T, L, H, W, 1] with",
    ),
    (lambda d: {"mask": d["mask"]}, "there is no 'image', only ['mask']"),
    (
      lambda d: {**d, "visibility": d["visibility"][:1]},
      "visibility has shape [1, 6], expected [B, L] with B=4",
    ),
    (
      lambda d: {
        **d,
        "mask": d["mask"][:, :, :1],
        "visibility": d["visibility"][:, :1],
        "factors": {k: v[:, :1] for k, v in d["factors"].items()},
      },
      "mask: 1 entities, but num_background_entities=1 leaves no object",
    ),
    (
      lambda d: {"image": tf.repeat(d["image"][..., :1], 4, axis=-1)},
      "expected 3 channels, as the model was first called with",
    ),
    (
      lambda d: {**d, "factors": {"shape": d["factors"]["shape"]}},
      "factor_evaluator.mapping names ['position'], the data have the factors",
    ),
  ],
)
def test_errors_of_data(model, change, message):
  for method in (model, model.eval):
    with pytest.raises(ValueError, match=re.escape(message)):
      method(change(tiny.batch()))


def test_errors_of_noise_and_latents(model):
  with pytest.raises(ValueError, match=r"noise.*expected \[3, B, 2, 5\]"):
    model(tiny.batch(), noise=tiny.noise(num_iters=1))
  with pytest.raises(ValueError, match=r"noise.*expected \[3, B, 2, 5\]"):
    model(tiny.batch(), noise=tiny.noise(num_components=3))
  with pytest.raises(ValueError, match="noise has shape.*B=4 as in image"):
    model(tiny.batch(), noise=tiny.noise(batch_size=3))
  with pytest.raises(ValueError, match=r"z has shape .*, expected \[B, 2, 5\]"):
    model.decode(tf.zeros([tiny.B, tiny.K + 1, tiny.Z]))


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"n_z": 0}, "n_z=0: expected an integer of at least 1"),
    ({"num_iters": 1.0}, "num_iters=1.0: expected an integer of at least 1"),
    ({"num_components": 1}, "num_components=1: expected an integer of at lea"),
    (
      {"inner_batch_size": 0},
      "inner_batch_size=0: expected an integer of at least 1",
    ),
    ({"inputs": []}, "inputs=[]: the refinement network needs at least one"),
    ({"coord_type": "polar"}, "coord_type='polar': must be 'linear' or 'cos'"),
  ],
)
def test_errors_of_the_constructor(overrides, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    tiny.build(**overrides)


def test_numbers_of_slots_must_agree():
  plan = tiny.plan()
  plan["num_components"] = tiny.K + 1
  with pytest.raises(ValueError, match="num_components=3, but the output_dist"):
    plans.build(plan, identifier="model")
