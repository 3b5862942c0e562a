"""Extreme numbers: where the exact result fits into float32, ours is finite.

Every property holds for float32 numbers, and for those that a convolution in
bfloat16 gives: all after it computes in float32, see test_precision.py.
"""

import functools

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from iodine.modules import distributions, refinement
from tests.support import closed_forms, tiny

tfd = tfp.distributions

B, K, H, W, C, Z = 2, 3, 2, 1, 2, 3
NUM_EXAMPLES = 100

PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])
DISTS = pytest.mark.parametrize("dist", closed_forms.LOG_DENSITIES)


def extremes(**strategies: st.SearchStrategy):
  """Runs a test for many arrays, the same at every run."""

  def decorate(test):
    settings = hypothesis.settings(
      max_examples=NUM_EXAMPLES,
      deadline=None,
      derandomize=True,
      suppress_health_check=[hypothesis.HealthCheck.differing_executors],
    )
    return settings(hypothesis.given(**strategies)(test))

  return decorate


def arrays(shape: tuple[int, ...], low: float, high: float):
  """Arrays of float32 in a range, of any magnitude."""
  low, high = float(np.float32(low)), float(np.float32(high))
  elements = st.floats(low, high, width=32, allow_subnormal=False)
  return st_numpy.arrays(np.float32, shape, elements=elements)


def as_given_by(precision: str, *values: np.ndarray) -> list[tf.Tensor]:
  """float32 tensors with what the precision keeps of the values."""
  dtype = tf.as_dtype(precision)
  return [tf.cast(tf.cast(value, dtype), tf.float32) for value in values]


def in_float64(*values: tf.Tensor) -> list[np.ndarray]:
  return [value.numpy().astype(np.float64) for value in values]


def assert_finite(*trees):
  for leaf in tf.nest.flatten(trees):
    assert np.isfinite(leaf).all()


@functools.cache
def compiled(fn, *modules):
  """`fn(*modules, *tensors)`, and its gradients by the tensors, compiled.

  fn returns a tensor, or several of which the first is differentiated.
  """

  @functools.partial(tf.function, autograph=False)
  def run(*tensors):
    with tf.GradientTape() as tape:
      tape.watch(tensors)
      results = fn(*modules, *tensors)
      first = results if tf.is_tensor(results) else results[0]
    zero = tf.UnconnectedGradients.ZERO
    return results, tape.gradient(first, tensors, unconnected_gradients=zero)

  return run


# --- Distributions ------------------------------------------------------------


@functools.cache
def posterior_module():
  """That of all shipped configurations."""
  return distributions.LocScaleDistribution(scale="var", scale_act="softplus")


def kl_divergence(module, params, draw):
  dist = module(params)
  kl = tfd.kl_divergence(dist, module.get_default_prior([Z], (K,)))
  z = dist.mean() + dist.stddev() * draw
  return kl, z, dist.log_prob(z), dist.entropy()


@PRECISIONS
@extremes(
  loc=arrays((B, K, Z), -1e6, 1e6),
  scale=arrays((B, K, Z), -1e8, 1e8),
  draw=arrays((B, K, Z), -6, 6),
)
def test_posteriors(precision, loc, scale, draw):
  loc, scale, draw = as_given_by(precision, loc, scale, draw)
  params = tf.concat([loc, scale], -1)
  run = compiled(kl_divergence, posterior_module())
  (kl, z, *others), gradients = run(params, draw)
  loc, scale, draw = in_float64(loc, scale, draw)
  # Of parameters below -87, 1 + exp(parameter) is the lowest float32.
  variance = np.maximum(closed_forms.softplus(scale), 2.0**-126)
  ratio = variance / np.log(2)
  expected = (ratio + loc**2 / np.log(2) - 1 - np.log(ratio)) / 2
  np.testing.assert_allclose(kl, expected.sum(-1), rtol=1e-4, atol=1e-3)
  # Below 10^-38 there are zeros alone.
  atol = 1e-5 * np.abs(loc).max() + 1e-37
  np.testing.assert_allclose(
    z, loc + np.sqrt(variance) * draw, rtol=1e-4, atol=atol
  )
  assert_finite(others, gradients)


def log_density(module, params, x):
  return module(params).log_prob(x)


@functools.cache
def density_module(dist):
  kwargs = {"df": 3.5} if dist == "student_t" else None
  return distributions.LocScaleDistribution(dist, kwargs)


@PRECISIONS
@DISTS
@extremes(
  x=arrays((B, Z), -1e3, 1e3),
  loc=arrays((B, Z), -1e3, 1e3),
  log_scale=arrays((B, Z), -20, 20),
)
def test_log_densities(precision, dist, x, loc, log_scale):
  if dist == "log_normal":
    x = np.maximum(np.abs(x), np.float32(1e-6))
  x, loc, log_scale = as_given_by(precision, x, loc, log_scale)
  params = tf.concat([loc, log_scale], -1)
  found, gradients = compiled(log_density, density_module(dist))(params, x)
  x, loc, log_scale = in_float64(x, loc, log_scale)
  expected = closed_forms.LOG_DENSITIES[dist](x, loc, np.exp(log_scale))
  # Logarithms of the scale, up to 20, may cancel with the rest.
  atol = 1e-4 * (np.abs(expected).sum() + 20)
  np.testing.assert_allclose(found, expected.sum(-1), rtol=0, atol=atol)
  assert_finite(gradients)


@pytest.mark.parametrize("act", ["relu", "elu", None])
@pytest.mark.parametrize("scale", ["stddev", "var", "prec"])
def test_scales_that_are_not_positive_are_the_lowest(scale, act):
  module = distributions.LocScaleDistribution(scale=scale, scale_act=act)
  params = tf.constant([[0.0, 0.0, 0.0, -1.0]])
  with tf.GradientTape() as tape:
    tape.watch(params)
    stddev = module(params).stddev()
    entropy = module(params).entropy()
  lowest = 2.0**-126
  expected = {"stddev": lowest, "var": lowest**0.5, "prec": 1 / lowest}[scale]
  np.testing.assert_allclose(stddev, [[expected] * 2], rtol=1e-6)
  assert_finite(entropy, tape.gradient(entropy, params))


@PRECISIONS
@extremes(
  logits=arrays((B, Z), -1e6, 1e6),
  x=st_numpy.arrays(np.float32, (B, Z), elements=st.sampled_from([0.0, 1.0])),
)
def test_bernoulli_variables(precision, logits, x):
  logits, x = as_given_by(precision, logits, x)
  module = bernoulli_module()
  found, gradients = compiled(log_density, module)(logits, x)
  logits, x = in_float64(logits, x)
  expected = x * logits - closed_forms.softplus(logits)
  np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-5, atol=1e-4)
  assert_finite(gradients)


@functools.cache
def bernoulli_module():
  return distributions.BernoulliOutput()


# --- Mixtures -----------------------------------------------------------------

SCALE = 0.03


@functools.cache
def mixture_module(dist, activation=None):
  kwargs = {"df": 3.5} if dist == "student_t" else None
  pixels = distributions.LocScaleDistribution(
    dist, kwargs, scale="fixed", scale_val=SCALE
  )
  return distributions.MaskedMixture(K, pixels, mask_activation=activation)


def all_of_a_mixture(module, pixel, mask, image):
  dist = module(pixel, mask)
  total, components = module.log_probs(dist, image)
  others = module.leave_one_out(mask, components)
  posterior = module.posterior(components)
  masks = module.masks(dist)
  return total + tf.reduce_sum(others + posterior + masks, [1, 4])[:, None], (
    *(total, components, others, posterior, masks),
  )


@PRECISIONS
@pytest.mark.parametrize("dist", ["normal", "laplace", "logistic"])
@extremes(
  pixel=arrays((B, K, H, W, C), -1e3, 1e3),
  mask=arrays((B, K, H, W, 1), -1e4, 1e4),
  image=arrays((B, 1, H, W, C), 0, 1),
)
def test_mixtures(precision, dist, pixel, mask, image):
  module = mixture_module(dist)
  pixel, mask = as_given_by(precision, pixel, mask)
  image = tf.constant(image)
  (_, found), gradients = compiled(all_of_a_mixture, module)(pixel, mask, image)
  total, components, others, posterior, masks = found
  pixel, mask, image = in_float64(pixel, mask, image)
  log_density_of = closed_forms.LOG_DENSITIES[dist]
  expected = log_density_of(image, pixel, SCALE).sum(-1)  # [B, K, H, W]
  near = dict(rtol=1e-5, atol=1e-5 * (1e4 + np.abs(expected).max()))
  np.testing.assert_allclose(
    components[:, 0], np.moveaxis(expected, 1, -1), **near
  )
  np.testing.assert_allclose(
    total[:, 0], closed_forms.mixture(expected, mask), **near
  )
  for k in range(K):
    rest = [j for j in range(K) if j != k]
    np.testing.assert_allclose(
      others[:, k, ..., 0],
      closed_forms.mixture(expected[:, rest], mask[:, rest]),
      **near,
    )
  # Of the components that we found: their differences count.
  p = np.exp(components.numpy()[:, 0].astype(np.float64))
  p = np.moveaxis(p / (p.sum(-1, keepdims=True) + 1e-6), -1, 1)
  np.testing.assert_allclose(posterior[..., 0], p, rtol=1e-4, atol=1e-6)
  p = np.exp(closed_forms.log_softmax(np.moveaxis(mask[..., 0], 1, -1)))
  np.testing.assert_allclose(
    masks[..., 0], np.moveaxis(p, -1, 1), rtol=1e-4, atol=1e-6
  )
  assert_finite(gradients)


@pytest.mark.parametrize("activation", ["tanh", "softmax", "exp"])
@extremes(
  pixel=arrays((B, K, H, W, C), -1e3, 1e3),
  mask=arrays((B, K, H, W, 1), -80, 80),
  image=arrays((B, 1, H, W, C), 0, 1),
)
def test_mixtures_with_an_activation(activation, pixel, mask, image):
  module = mixture_module("logistic", activation)
  found, gradients = compiled(all_of_a_mixture, module)(
    *map(tf.constant, (pixel, mask, image))
  )
  assert_finite(found, gradients)


def posterior_of(components):
  return distributions.MaskedMixture.posterior(components)


@extremes(components=arrays((B, 1, H, W, K), -1e6, 1e6))
def test_posterior_of_components(components):
  found, gradients = compiled(posterior_of)(tf.constant(components))
  assert_finite(gradients)
  assert np.all((found >= 0) & (found <= 1 + 1e-6))
  # The reference computes this in float32, of densities.
  with np.errstate(over="ignore", invalid="ignore"):
    p = np.exp(components)
    reference = p / (p.sum(-1, keepdims=True) + np.float32(1e-6))
    finite = np.isfinite(p.sum(-1, keepdims=True)) & np.isfinite(reference)
  found = np.moveaxis(found, 1, -1)[:, None, :, :, 0]
  # 88, the highest whose density is finite, is known to 4e-6.
  np.testing.assert_allclose(
    found[finite], reference[finite], rtol=1e-4, atol=1e-6
  )


# --- The refinement network and the model -------------------------------------


@functools.cache
def refinement_inputs():
  return refinement.RefinementInputs(mixture_module("normal"), inputs=["dzp"])


@functools.partial(tf.function, autograph=False)
def normalized(values):
  """The normalised values, and gradients by scale and offset."""
  inputs = refinement_inputs()
  params = distributions.MixtureParameters(None, None)
  log_probs = distributions.MixtureLogProbs(tf.zeros([B, 1, H, W]), None)
  with tf.GradientTape() as tape:
    collected = inputs(None, None, params, None, log_probs, {"dzp": values})
    dzp = collected["flat"]["dzp"]
    result = tf.reduce_sum(tf.square(dzp))
  return dzp, tape.gradient(result, inputs.trainable_variables)


@PRECISIONS
@extremes(
  values=st.one_of(
    arrays((B, K, Z), -1e18, 1e18),
    arrays((B, K, Z), -1e-18, 1e-18),
    arrays((B, K, 1), -1e18, 1e18).map(lambda x: np.repeat(x, Z, axis=-1)),
  )
)
def test_layer_norms(precision, values):
  (values,) = as_given_by(precision, values)
  found, gradients = normalized(values)
  assert_finite(found, gradients)
  assert np.mean(np.square(found), axis=-1).max() < 1.01


@functools.cache
def model_step(precision):
  """(model, compiled function of image and noise: loss and gradients)."""
  model = tiny.initialized(num_iters=1, precision=precision)

  @functools.partial(tf.function, autograph=False)
  def step(image, noise):
    with tf.GradientTape() as tape:
      total, scalars, _ = model({**tiny.batch(), "image": image}, noise=noise)
    return total, scalars, tape.gradient(total, model.trainable_variables)

  return model, step


@PRECISIONS
@extremes(
  loc=arrays((tiny.Z,), -1e4, 1e4),
  scale=arrays((tiny.Z,), -1e8, 1e8),
  image=arrays((tiny.B, 1, tiny.H, tiny.W, tiny.C), 0, 1),
)
def test_a_step_from_any_posterior(precision, loc, scale, image):
  model, step = model_step(precision)
  model.initial_zp.assign(tf.concat([loc, scale], 0))
  assert_finite(step(tf.constant(image), tiny.noise(num_iters=1)))
