"""Tests of precision=bfloat16: what it changes, and what stays float32.

A bfloat16 has 8 significant bits: rounding is off by up to 2^-9, 0.2%, of a
number. The bounds below are those that bfloat16 is held to; they are three
times what is measured, or more.
"""

import json

import numpy as np
import pytest
import tensorflow as tf

from iodine import training
from iodine.config import reading, resolution
from iodine.devices import has_avx512
from iodine.errors import ConfigError
from iodine.modules import _convolutions, networks, utils
from tests.support import tiny

# Relative errors, in the Euclidean norm, of all steps' losses and latents.
LOSS_BOUND, LATENT_BOUND = 0.02, 0.06
# Cosines of gradients' angle to those of float32.
COSINE_BOUND, VARIABLE_COSINE_BOUND = 0.999, 0.99
# A few hundred bfloat16 products and sums of one sign, added up in float32.
ROUNDING = 0.01

_PRECISIONS = ("float32", "bfloat16")
PRECISIONS = pytest.mark.parametrize("precision", _PRECISIONS)


def _relative_error(actual, expected):
  actual, expected = np.asarray(actual), np.asarray(expected)
  return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def _cosine(a, b):
  a, b = np.ravel(a), np.ravel(b)
  return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def _loss_and_gradients(precision):
  """(total, iterations, {variable's name: gradient}) of the tiny model."""
  model = tiny.initialized(precision=precision)
  with tf.GradientTape() as tape:
    total, _, iterations = model(tiny.batch(), noise=tiny.noise())
  variables = {v.name: v for v in model.trainable_variables}
  return total, iterations, tape.gradient(total, variables)


@pytest.fixture(scope="module")
def results():
  """{precision: `_loss_and_gradients`}."""
  return {p: _loss_and_gradients(p) for p in _PRECISIONS}


# --- The model ----------------------------------------------------------------


def test_losses_and_latents_are_near(results):
  (loss, expected, _), (low_loss, low, _) = map(results.get, _PRECISIONS)
  assert _relative_error(low_loss, loss) < LOSS_BOUND
  for t in range(tiny.S):
    assert _relative_error(low["re"][t], expected["re"][t]) < LOSS_BOUND
    assert _relative_error(low["z"][t], expected["z"][t]) < LATENT_BOUND
    assert _relative_error(low["zp"][t], expected["zp"][t]) < LATENT_BOUND
  # Not the same: bfloat16 was in use.
  assert _relative_error(low["re"][0], expected["re"][0]) > 1e-5
  assert _relative_error(low["zp"][1], expected["zp"][1]) > 1e-5


def test_gradients_point_the_same_way(results):
  expected, low = (results[p][2] for p in _PRECISIONS)
  flat = [
    np.concatenate([np.ravel(g[n]) for n in expected]) for g in (low, expected)
  ]
  assert _cosine(*flat) > COSINE_BOUND
  for name in expected:
    if name.endswith(("/w:0", "/b:0")):
      assert _cosine(low[name], expected[name]) > VARIABLE_COSINE_BOUND, name


def test_all_but_the_convolutions_is_float32(results):
  total, iterations, gradients = results["bfloat16"]
  del iterations["z_dist"]  # a distribution
  x_dists = iterations.pop("x_dist")
  outputs = [x_dists[-1].mean(), x_dists[-1].mixture_distribution.logits]
  for tensor in tf.nest.flatten([total, iterations, gradients, outputs]):
    assert tensor.dtype == tf.float32
  for variable in tiny.initialized(precision="bfloat16").variables:
    assert variable.dtype != tf.bfloat16


@PRECISIONS
def test_convolutions_of_decoder_and_encoder_have_the_precision(precision):
  model = tiny.initialized(precision=precision)
  step = tf.function(model.eval, autograph=False)
  graph = step.get_concrete_function(tiny.batch()).graph
  types = {
    (op.name.split("/")[0], op.inputs[0].dtype)
    for op in graph.get_operations()
    # That of coordinates alone always is in float32.
    if op.type == "Conv2D" and op.inputs[0].op.type != "Const"
  }
  dtype = tf.as_dtype(precision)
  assert types == {("pixel_decoder", dtype), ("encoder_net", dtype)}


@PRECISIONS
def test_a_step_is_traced_once(precision):
  model = tiny.build(precision=precision)
  trainer = training.Trainer(model, training.make_optimizer(1e-3), seed=0)
  for i in range(3):
    data = tiny.batch()
    data["image"] = data["image"] * i / 2
    trainer.step(data)
  assert trainer._compiled_step.experimental_get_tracing_count() == 1


def test_transposed_convolutions_compute_in_float32():
  decoder = networks.DeConv(
    {"output_sizes": [8]},
    {"output_channels": [None], "kernel_shapes": [3], "strides": [2]},
  )
  z = tf.constant(np.random.default_rng(0).normal(size=[2, 3]), tf.float32)
  outputs = []
  for precision in reversed(_PRECISIONS):
    decoder._cnn.dtype = tf.as_dtype(precision)
    outputs.append(decoder(z, (4, 2, 3)).params)
  np.testing.assert_array_equal(*outputs)
  assert all(v.dtype == tf.float32 for v in decoder.variables)


# --- Sums over many pixels ----------------------------------------------------


@pytest.mark.skipif(not has_avx512(), reason="the processor has no AVX-512")
@pytest.mark.parametrize("channels", [3, 32])  # few, for which there is a way
def test_gradients_add_up_many_pixels(channels):
  # A sum of ones in bfloat16 would end at 256.
  net = _convolutions.ConvNet2D([channels], [3], [1])
  net.dtype = tf.bfloat16
  image = tf.ones([2, 48, 48, 5])
  net(image)
  with tf.GradientTape() as tape:
    outputs = net(image)
  gradients = tape.gradient(outputs, net.variables)
  pixels = 2 * 48 * 48
  seen = 2 * np.outer([47, 48, 47], [47, 48, 47])  # by the kernel's entries
  expected = {"b": pixels, "w": seen[:, :, None, None]}
  for variable, gradient in zip(net.variables, gradients, strict=True):
    name = variable.name.split("/")[-1][0]
    np.testing.assert_allclose(
      gradient, np.broadcast_to(expected[name], gradient.shape), rtol=ROUNDING
    )


def test_gradients_of_the_broadcast_layer_add_up_many_pixels():
  net = _convolutions.ConvNet2D(
    [4], [3], [1], first_layer=_convolutions.BroadcastConv2D
  )
  z, coords = tf.ones([3, 2]), utils.coordinate_channels(48, 48, "linear")
  net((z, coords))
  gradients = {}
  for dtype in (tf.float32, tf.bfloat16):
    with tf.GradientTape() as tape:
      outputs = net((tf.cast(z, dtype), coords))
      assert outputs.dtype == tf.float32
    gradients[dtype] = tape.gradient(outputs, net.variables)
  for expected, low in zip(*gradients.values(), strict=True):
    # Coordinates add up to nothing, the rest to thousands.
    atol = ROUNDING * np.abs(expected).max()
    np.testing.assert_allclose(low, expected, rtol=0, atol=atol)


# --- The configuration --------------------------------------------------------


def _resolved(entries, **overrides):
  return resolution.resolve(entries, overrides)


def test_the_entry_reaches_the_model():
  entries = reading.named_configs()["demo"]
  assert _dtypes(_resolved(entries)) == {tf.float32}
  assert _dtypes(_resolved(entries, precision="bfloat16")) == {tf.bfloat16}


def _dtypes(entries) -> set[tf.DType]:
  """What the convolutions of a configuration's model compute in."""
  (model,) = resolution.build(entries, ("model",))
  nets = [m for m in model.submodules if isinstance(m, _convolutions.ConvNet2D)]
  assert len(nets) == 2
  return {tf.as_dtype(net.dtype) for net in nets}


def test_a_run_s_own_precision_is_kept_unless_it_is_overridden(tmp_path):
  path = tmp_path / "config.json"
  saved = _resolved(reading.named_configs()["demo"], precision="bfloat16")
  path.write_text(json.dumps(saved))
  entries = resolution.without_derived(reading.load_file(path))
  assert _dtypes(_resolved(entries)) == {tf.bfloat16}
  assert _dtypes(_resolved(entries, precision="float32")) == {tf.float32}


def test_a_run_without_the_entry_is_one_in_float32():
  saved = dict(_resolved(reading.named_configs()["demo"]))
  del saved["precision"]
  entries = resolution.without_derived(saved)
  assert _dtypes(_resolved(entries)) == {tf.float32}


def test_errors():
  message = "precision='float16': .*Did you mean 'bfloat16'"
  with pytest.raises(ConfigError, match=message):
    tiny.build(precision="float16")
  entries = _resolved(reading.named_configs()["demo"], precision="float16")
  with pytest.raises(ConfigError, match=message) as error:
    resolution.build(entries)
  assert str(error.value).count("float16'") == 2  # the value and the remedy
