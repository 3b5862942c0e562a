"""Tests for iodine.modules.distributions."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import errors
from iodine.config import plans
from iodine.modules import distributions
from tests.support import closed_forms

tfd = tfp.distributions

# Odd and distinct, so that swapped axes fail.
B, K, H, W, C, Z = 2, 4, 5, 3, 3, 6
MODES = pytest.mark.parametrize("mode", ["eager", "compiled"])
# A handful of float32 operations on numbers of up to some hundred.
TOLERANCE = dict(rtol=2e-5, atol=2e-5)


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _call(mode, fn, *args):
  """Calls `fn` eagerly, or compiled for any batch size."""
  args = [tf.convert_to_tensor(a) for a in args]
  if mode == "eager":
    return fn(*args)
  specs = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in args]
  return tf.function(fn, input_signature=specs, autograph=False)(*args)


def _dist_kwargs(dist):
  return {"df": 3.5} if dist == "student_t" else None


class TestLocScaleDistribution:
  @MODES
  @pytest.mark.parametrize("dist", closed_forms.LOG_DENSITIES)
  def test_log_density(self, mode, dist):
    module = distributions.LocScaleDistribution(
      dist, dist_kwargs=_dist_kwargs(dist)
    )
    params, x = _random(B, K, 2 * Z), np.exp(_random(B, K, Z, seed=1))
    log_prob = _call(mode, lambda p, x: module(p).log_prob(x), params, x)
    loc, log_scale = np.split(params.astype(float), 2, axis=-1)
    expected = closed_forms.LOG_DENSITIES[dist](
      x.astype(float), loc, np.exp(log_scale)
    )
    assert expected.shape == (B, K, Z)
    np.testing.assert_allclose(log_prob, expected.sum(-1), **TOLERANCE)

  @MODES
  @pytest.mark.parametrize(
    "scale, act, scale_of",
    [
      ("stddev", "exp", np.exp),
      ("stddev", None, lambda a: a),
      ("var", "softplus", lambda a: np.sqrt(closed_forms.softplus(a))),
      ("prec", "exp", lambda a: np.exp(-a)),
      ("prec", "sigmoid", lambda a: 1 + np.exp(-a)),
    ],
  )
  def test_scale(self, mode, scale, act, scale_of):
    module = distributions.LocScaleDistribution(
      scale=scale, scale_act=act, loc_act="tanh"
    )
    params = np.abs(_random(B, K, 2 * Z)) - (0.1 if act else 0.0)

    def moments(params):
      dist = module(params)
      return dist.mean(), dist.stddev()

    mean, stddev = _call(mode, moments, params)
    loc, a = np.split(params, 2, axis=-1)
    np.testing.assert_allclose(mean, np.tanh(loc), **TOLERANCE)
    np.testing.assert_allclose(stddev, scale_of(a), **TOLERANCE)

  @MODES
  def test_fixed_scale(self, mode):
    module = distributions.LocScaleDistribution(
      "logistic", scale="fixed", scale_val=0.03, loc_act="sigmoid"
    )
    params, x = _random(B, H, W, C), _random(B, H, W, C, seed=1)
    log_prob = _call(mode, lambda p, x: module(p).log_prob(x), params, x)
    loc = 1 / (1 + np.exp(-params.astype(float)))
    expected = closed_forms.logistic(x, loc, 0.03).sum(-1)
    np.testing.assert_allclose(log_prob, expected, **TOLERANCE)

  @MODES
  def test_trainable_scale(self, mode):
    module = plans.build(
      {
        "constructor": "iodine.modules.distributions.LocScaleDistribution",
        "scale": "fixed",
        "scale_val": -1.0,
        "name": "pixel_distribution",
      },
      "component_dist",
    )
    params, x = _random(B, C), _random(B, C, seed=1)

    def value_and_gradient(params, x):
      with tf.GradientTape() as tape:
        log_prob = tf.reduce_sum(module(params).log_prob(x))
      return log_prob, tape.gradient(log_prob, module.trainable_variables[0])

    with tf.name_scope("caller"):
      log_prob, gradient = _call(mode, value_and_gradient, params, x)
    (scale,) = module.trainable_variables
    assert scale.name == "component_dist/pixel_distribution/scale:0"
    assert scale.shape == []
    assert scale.numpy() == np.float32(0.1)
    expected = closed_forms.normal(x.astype(float), params, 0.1).sum()
    np.testing.assert_allclose(log_prob, expected, **TOLERANCE)
    distance = np.square(x.astype(float) - params) / 0.1**3
    np.testing.assert_allclose(
      gradient, (distance - 1 / 0.1).sum(), **TOLERANCE
    )

  def test_scale_val_counts_for_fixed_scales_only(self):
    module = distributions.LocScaleDistribution(scale_val=-1.0)
    stddev = module(tf.zeros([B, 2 * Z])).stddev()
    np.testing.assert_array_equal(stddev, np.ones([B, Z]))

  def test_takes_classes_and_functions(self):
    module = distributions.LocScaleDistribution(
      tfd.Cauchy, {"validate_args": True}, scale_act=tf.square
    )
    dist = module(tf.constant(_random(B, 2 * Z)))
    assert isinstance(dist.distribution, tfd.Cauchy)
    assert dist.distribution.validate_args
    np.testing.assert_array_equal(
      dist.distribution.scale, _random(B, 2 * Z)[:, Z:] ** 2
    )

  def test_leaves_dist_kwargs_alone(self):
    kwargs = {"df": 3.0}
    module = distributions.LocScaleDistribution("student_t", kwargs)
    kwargs["df"] = 5.0
    dist = module(tf.zeros([B, 2 * Z])).distribution
    assert dist.df == 3.0

  @pytest.mark.parametrize(
    "scale, size", [("stddev", 2 * Z), ("var", 2 * Z), ("fixed", Z)]
  )
  def test_input_shapes(self, scale, size):
    module = distributions.LocScaleDistribution(scale=scale)
    shape = [H, Z]
    assert module.input_shapes(shape).params == [H, size]
    assert module.input_shapes((Z,)).params == [size]
    assert shape == [H, Z]

  def test_default_prior(self):
    module = distributions.LocScaleDistribution(
      scale="var", scale_act="softplus"
    )
    prior = module.get_default_prior([Z], [K])
    assert prior.batch_shape == [K]
    assert prior.event_shape == [Z]
    np.testing.assert_array_equal(prior.mean(), np.zeros([K, Z]))
    np.testing.assert_allclose(
      prior.stddev(), np.full([K, Z], math.sqrt(math.log(2))), rtol=1e-6
    )
    assert module.get_default_prior([Z]).batch_shape == [1]

  @MODES
  def test_gradients_of_parameters(self, mode):
    module = distributions.LocScaleDistribution("student_t", {"df": 3.5})

    def gradient(params, x):
      with tf.GradientTape() as tape:
        tape.watch(params)
        log_prob = module(params).log_prob(x)
      return tape.gradient(log_prob, params)

    params, x = _random(B, 2 * Z), _random(B, Z, seed=1)
    found = _call(mode, gradient, params, x).numpy()
    step = 1e-5  # Central differences in float64: off by some 1e-10.
    params, x = params.astype(float), x.astype(float)
    for i in range(2 * Z):
      moved = []
      for sign in (1, -1):
        p = params.copy()
        p[:, i] += sign * step
        loc, log_scale = np.split(p, 2, axis=-1)
        moved.append(closed_forms.student_t(x, loc, np.exp(log_scale)).sum(-1))
      expected = (moved[0] - moved[1]) / (2 * step)
      np.testing.assert_allclose(found[:, i], expected, **TOLERANCE)

  @pytest.mark.parametrize(
    "options, message",
    [
      (
        dict(dist="norml"),
        "unknown distribution 'norml'. Did you mean 'normal'.*laplace, log_",
      ),
      (
        dict(scale="std"),
        "scale='std': unknown. Did you mean 'stddev'.*fixed, prec, stddev, var",
      ),
      (
        dict(scale_act="softpuls"),
        "unknown activation 'softpuls'. Did you mean 'softplus'",
      ),
      (dict(loc_act="nope"), "unknown activation 'nope'"),
      (dict(scale="fixed", scale_val=0), "scale_val=0: must be above 0, or -1"),
      (dict(scale="fixed", scale_val=-0.5), "scale_val=-0.5: must be above 0"),
      (
        dict(scale="fixed", scale_val="1"),
        "scale_val='1': is text; must be above 0",
      ),
      (
        dict(scale="fixed", scale_val=float("nan")),
        "scale_val=nan: must be above 0",
      ),
      (
        dict(scale="fixed", scale_val=float("inf")),
        "scale_val=inf: must be above 0",
      ),
      (dict(dist="student_t"), "StudentT needs dist_kwargs={'df': ...}"),
      (
        dict(dist="student_t", dist_kwargs={"dof": 3.0}),
        "dist_kwargs.dof=3.0: unknown for StudentT. Did you mean 'df'",
      ),
      (dict(dist_kwargs={"scale": 3.0}), "dist_kwargs.scale=3.0: unknown for"),
    ],
  )
  def test_errors(self, options, message):
    plan = {
      "constructor": "iodine.modules.distributions.LocScaleDistribution",
      **options,
    }
    with pytest.raises(errors.ConfigError, match=f"latent_dist: {message}"):
      plans.build(plan, "latent_dist")

  def test_odd_number_of_parameters(self):
    module = distributions.LocScaleDistribution()
    with pytest.raises(
      ValueError, match=r"expected \[..., 2 \* Z\].*got \(2, 5\)"
    ):
      module(tf.zeros([B, 5]))


class TestBernoulliOutput:
  @MODES
  def test_log_probability(self, mode):
    module = distributions.BernoulliOutput()
    logits = _random(B, H, W, C)
    x = (_random(B, H, W, C, seed=1) > 0).astype("float32")
    log_prob = _call(mode, lambda p, x: module(p).log_prob(x), logits, x)
    expected = (x * logits - closed_forms.softplus(logits)).sum(-1)
    np.testing.assert_allclose(log_prob, expected, **TOLERANCE)

  def test_mean_shapes_and_prior(self):
    module = distributions.BernoulliOutput()
    logits = _random(B, H, W, C)
    mean = module(tf.constant(logits)).mean()
    assert mean.dtype == tf.float32
    np.testing.assert_allclose(mean, 1 / (1 + np.exp(-logits)), **TOLERANCE)
    assert module.input_shapes((H, W, C)).params == [H, W, C]
    prior = module.get_default_prior([H, W, C], [K])
    assert prior.batch_shape == [K, H, W]
    np.testing.assert_array_equal(prior.mean(), np.full([K, H, W, C], 0.5))


def _mixture(k=K, scale_val=0.3, dist="normal", **options):
  component_dist = distributions.LocScaleDistribution(
    dist, scale="fixed", scale_val=scale_val
  )
  return distributions.MaskedMixture(k, component_dist, **options)


def _mixture_inputs():
  pixel, mask = _random(B, K, H, W, C), _random(B, K, H, W, 1, seed=1)
  image = _random(B, 1, H, W, C, seed=2)
  return pixel, mask, image


def _np_components(pixel, image, scale=0.3):
  """Log densities [B, K, H, W] of every component."""
  return closed_forms.normal(image.astype(float), pixel, scale).sum(-1)


class TestMaskedMixture:
  @MODES
  @pytest.mark.parametrize(
    "activation, act",
    [
      (None, lambda x: x),
      ("tanh", np.tanh),
      ("softmax", lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    ],
  )
  def test_log_probs(self, mode, activation, act):
    mixture = _mixture(mask_activation=activation)
    pixel, mask, image = _mixture_inputs()

    def log_probs(pixel, mask, image):
      dist = mixture(pixel, mask)
      return *mixture.log_probs(dist, image), dist.log_prob(image)

    total, components, by_tfp = _call(mode, log_probs, pixel, mask, image)
    expected = _np_components(pixel, image)
    np.testing.assert_allclose(
      components, np.moveaxis(expected, 1, -1)[:, None], **TOLERANCE
    )
    expected = closed_forms.mixture(expected, act(mask))[:, None]
    assert total.shape == (B, 1, H, W)
    np.testing.assert_allclose(total, expected, **TOLERANCE)
    np.testing.assert_allclose(by_tfp, expected, **TOLERANCE)

  @MODES
  def test_mean_masks_and_components(self, mode):
    mixture = _mixture(dist="logistic", mask_activation="tanh")
    pixel, mask, _ = _mixture_inputs()

    def outputs(pixel, mask):
      dist = mixture(pixel, mask)
      return (
        dist.mean(),
        mixture.masks(dist),
        mixture.mask_logits(dist),
        mixture.components(dist),
      )

    mean, masks, logits, components = _call(mode, outputs, pixel, mask)
    weights = np.exp(np.tanh(mask))
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
      mean, (weights * pixel).sum(axis=1, keepdims=True), **TOLERANCE
    )
    np.testing.assert_allclose(masks, weights, **TOLERANCE)
    np.testing.assert_allclose(logits, np.tanh(mask), **TOLERANCE)
    np.testing.assert_array_equal(components, pixel)

  def test_components_with_two_parameters(self):
    mixture = distributions.MaskedMixture(
      K, distributions.LocScaleDistribution("laplace")
    )
    pixel, mask = _random(B, K, H, W, 2 * C), _random(B, K, H, W, 1, seed=1)
    image = _random(B, 1, H, W, C, seed=2)
    dist = mixture(tf.constant(pixel), tf.constant(mask))
    found = mixture.log_probs(dist, tf.constant(image)).components
    loc, log_scale = np.split(pixel.astype(float), 2, axis=-1)
    expected = closed_forms.laplace(image, loc, np.exp(log_scale)).sum(-1)
    np.testing.assert_allclose(
      found[:, 0], np.moveaxis(expected, 1, -1), **TOLERANCE
    )

  @MODES
  def test_log_probs_far_from_the_image(self, mode):
    # 30 stddevs off: the densities underflow, their logarithms do not.
    mixture = _mixture(scale_val=0.03, dist="logistic")
    pixel, mask, image = _mixture_inputs()
    pixel += 30.0

    def value_and_gradients(*args):
      with tf.GradientTape() as tape:
        tape.watch(args)
        total, components = mixture.log_probs(mixture(*args[:2]), args[2])
      return total, components, *tape.gradient(total, args)

    total, components, *gradients = _call(
      mode, value_and_gradients, pixel, mask, image
    )
    expected = closed_forms.logistic(image.astype(float), pixel, 0.03).sum(-1)
    assert expected.max() < -1000
    np.testing.assert_allclose(
      components, np.moveaxis(expected, 1, -1)[:, None], rtol=1e-5
    )
    np.testing.assert_allclose(
      total[:, 0], closed_forms.mixture(expected, mask), rtol=1e-5
    )
    for gradient in gradients:
      assert np.isfinite(gradient).all()
      assert np.abs(gradient).max() > 0

  @MODES
  @pytest.mark.parametrize("activation", [None, "tanh", "softmax"])
  def test_leave_one_out_is_the_mixture_of_the_others(self, mode, activation):
    mixture = _mixture(mask_activation=activation)
    smaller = _mixture(K - 1, mask_activation=activation)
    pixel, mask, image = _mixture_inputs()

    def leave_one_out(pixel, mask, image):
      components = mixture.log_probs(mixture(pixel, mask), image).components
      return mixture.leave_one_out(mask, components)

    found = _call(mode, leave_one_out, pixel, mask, image)
    assert found.shape == (B, K, H, W, 1)
    for k in range(K):
      others = [j for j in range(K) if j != k]
      dist = smaller(
        tf.constant(pixel[:, others]), tf.constant(mask[:, others])
      )
      expected = dist.log_prob(image)  # [B, 1, H, W]
      np.testing.assert_allclose(
        found[:, k, :, :, 0], expected[:, 0], **TOLERANCE
      )

  @MODES
  @pytest.mark.parametrize("case", ["far apart", "equal", "unlikely"])
  def test_leave_one_out_of_extremes(self, mode, case):
    _, mask, _ = _mixture_inputs()
    components = _random(B, 1, H, W, K)
    if case == "far apart":  # One slot leaves nothing to the others.
      mask, components = 30.0 * mask, 1e3 * components
    elif case == "equal":
      mask, components = np.zeros_like(mask), np.zeros_like(components)
    else:
      components -= 1e4

    def value_and_gradients(mask, components):
      with tf.GradientTape() as tape:
        tape.watch([mask, components])
        found = _mixture().leave_one_out(mask, components)
      return found, *tape.gradient(found, [mask, components])

    found, *gradients = _call(mode, value_and_gradients, mask, components)
    for k in range(K):
      others = [j for j in range(K) if j != k]
      expected = closed_forms.mixture(
        np.moveaxis(components[:, 0][..., others], -1, 1), mask[:, others]
      )
      # Numbers of that size have as many digits.
      atol = 1e-6 * np.abs(components).max() + 2e-5
      np.testing.assert_allclose(
        found[:, k, :, :, 0], expected, rtol=0, atol=atol
      )
    # Every one of the K likelihoods shares 1 among its components.
    by_mask, by_component = gradients
    np.testing.assert_allclose(np.sum(by_component, axis=-1), K, rtol=1e-5)
    np.testing.assert_allclose(np.sum(by_mask, axis=1), 0, atol=1e-4)

  def test_leave_one_out_of_two_is_the_other(self):
    mixture = _mixture(2)
    _, mask, _ = _mixture_inputs()
    components = _random(B, 1, H, W, 2)
    found = mixture.leave_one_out(tf.constant(mask[:, :2]), components)
    expected = np.moveaxis(components[..., ::-1], -1, 1)[:, :, 0, :, :, None]
    np.testing.assert_allclose(found, expected, **TOLERANCE)

  @MODES
  @pytest.mark.parametrize("shift", [-25.0, -13.8, 0.0, 60.0])
  def test_posterior(self, mode, shift):
    # At -13.8 = log(1e-6) both terms of the denominator count.
    components = 3 * _random(B, 1, H, W, K) + np.float32(shift)
    found = _call(mode, distributions.MaskedMixture.posterior, components)
    p = np.exp(components.astype(float))
    expected = p / (p.sum(-1, keepdims=True) + 1e-6)
    assert found.shape == (B, K, H, W, 1)
    np.testing.assert_allclose(
      found, np.moveaxis(expected, -1, 1)[:, :, 0, :, :, None], **TOLERANCE
    )

  @MODES
  def test_posterior_of_densities_beyond_float32(self, mode):
    # exp(300) and exp(-2000) are infinity and zero in float32.
    components = np.float32(
      [[300.0, 299.0, -2000.0], [-2000.0] * 3, [-1e30] * 3]
    )
    components = components.reshape(3, 1, 1, 1, 3)

    def value_and_gradient(components):
      with tf.GradientTape() as tape:
        tape.watch(components)
        posterior = distributions.MaskedMixture.posterior(components)
        first = posterior[:, 0]
      return posterior, tape.gradient(first, components)

    found, gradient = _call(mode, value_and_gradient, components)
    a, b = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))
    expected = [[a, b, 0], [0, 0, 0], [0, 0, 0]]
    # 300 in float32 is known to 3e-5, hence its exponential, too.
    np.testing.assert_allclose(found[..., 0, 0, 0], expected, rtol=1e-4)
    assert np.isfinite(gradient).all()
    expected = [a * b, -a * b, 0]
    np.testing.assert_allclose(gradient[0, 0, 0, 0], expected, rtol=1e-4)

  def test_input_shapes_and_default_prior(self):
    mixture = distributions.MaskedMixture(
      K, distributions.LocScaleDistribution()
    )
    shapes = mixture.input_shapes([H, W, C])
    assert shapes.pixel == [K, H, W, 2 * C]
    assert shapes.mask == [K, H, W, 1]
    assert mixture.num_components == K
    prior = mixture.get_default_prior([H, W, C], [B])
    assert prior.batch_shape == [B, 1, H, W]
    assert prior.event_shape == [C]
    probs = prior.mixture_distribution.probs_parameter()
    np.testing.assert_allclose(probs, np.full([B, 1, H, W, K], 1 / K))

  @MODES
  def test_names_and_gradients(self, mode):
    mixture = plans.build(
      {
        "constructor": "iodine.modules.distributions.MaskedMixture",
        "num_components": K,
        "component_dist": {
          "constructor": "iodine.modules.distributions.LocScaleDistribution",
          "dist": "logistic",
          "scale": "fixed",
          "scale_val": -1,
          "name": "pixel_distribution",
        },
      },
      "output_dist",
    )
    pixel, mask, image = _mixture_inputs()

    def gradient(pixel, mask, image):
      with tf.GradientTape() as tape:
        loss = mixture.log_probs(mixture(pixel, mask), image).total
      return tape.gradient(loss, mixture.trainable_variables)

    (gradient,) = _call(mode, gradient, pixel, mask, image)
    (variable,) = mixture.variables
    assert variable.name == "component_dist/pixel_distribution/scale:0"
    assert np.isfinite(gradient)
    assert gradient != 0

  @pytest.mark.parametrize(
    "options, message",
    [
      (dict(k=1), "num_components=1: expected an integer of at least 2"),
      (dict(k=0), "num_components=0: expected an integer of at least 2"),
      (dict(k=2.0), "num_components=2.0: expected an integer of at least 2"),
      (dict(mask_activation="soft"), "unknown activation 'soft'"),
    ],
  )
  def test_errors(self, options, message):
    with pytest.raises(ValueError, match=message):
      _mixture(**options)

  def test_component_dist_without_a_constructor(self):
    with pytest.raises(ValueError, match="component_dist='normal': expected a"):
      distributions.MaskedMixture(K, "normal")

  @pytest.mark.parametrize(
    "pixel, mask, message",
    [
      (
        [B, K, H, W, C],
        [B, K + 1, H, W, 1],
        r"mask has shape \[2, 5, 5, 3, 1\], expected \[B, 4, H, W, 1\]",
      ),
      ([B, K, H, W, C], [B, K, H, W], r"mask has shape \[2, 4, 5, 3\],"),
      ([B, K, H, W, C], [B, K, H, W, 2], r"mask has shape \[2, 4, 5, 3, 2\]"),
      (
        [B, K - 1, H, W, C],
        [B, K, H, W, 1],
        r"pixel has shape \[2, 3, 5, 3, 3\], expected \[B, 4, H, W, Cp\]",
      ),
    ],
  )
  def test_wrong_shapes(self, pixel, mask, message):
    with pytest.raises(ValueError, match=message):
      _mixture()(tf.zeros(pixel), tf.zeros(mask))
