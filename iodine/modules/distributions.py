"""Sonnet modules that turn network outputs into distributions."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from iodine import checks, errors
from iodine.modules import utils

__all__ = [
  "BernoulliOutput",
  "DistributionModule",
  "FlatParameters",
  "LocScaleDistribution",
  "MaskedMixture",
  "MixtureLogProbs",
  "MixtureParameters",
]

SCALES = ("stddev", "var", "prec", "fixed")
# A `scale_val` of -1 means a trainable scale with this initial value
# (reference: distributions.py:145-150).
TRAINABLE_SCALE = -1.0
INITIAL_SCALE = 0.1
# Bounds of an activated scale parameter. Beyond them its square root or
# reciprocal overflows float32, and losses would be infinite.
_LOWEST_SCALE = float(np.finfo(np.float32).tiny)
_HIGHEST_SCALE = 1 / _LOWEST_SCALE
# Activations that make a slot's mask logits depend on the other slots.
_JOINING = (utils.ACT_FUNCS["softmax"], tf.nn.softmax, tf.nn.log_softmax)
# Avoids 0 / 0 in the posterior of a pixel that no component explains
# (reference: iodine.py:424).
POSTERIOR_EPSILON = 1e-6


class FlatParameters(NamedTuple):
  """Parameters of one distribution: a tensor, or the shape of one."""

  params: Any


class MixtureParameters(NamedTuple):
  """Parameters of a spatial mixture: tensors, or their shapes.

  pixel: [B, K, H, W, Cp], per component. mask: [B, K, H, W, 1], logits.
  """

  pixel: Any
  mask: Any


class MixtureLogProbs(NamedTuple):
  """Log-likelihoods of an image under a spatial mixture, in nats per pixel.

  total: [B, 1, H, W], under the mixture. components: [B, 1, H, W, K], under
  each component alone, without the mask.
  """

  total: tf.Tensor
  components: tf.Tensor


class DistributionModule(snt.Module):
  """A distribution as a function of unconstrained parameters."""

  def __call__(self, *params: tf.Tensor) -> tfd.Distribution:
    """Returns the distribution with these parameters."""
    raise NotImplementedError

  def input_shapes(self, output_shape: Sequence[int]) -> Any:
    """Shapes of the parameters of one event of shape `output_shape`."""
    raise NotImplementedError

  def get_default_prior(
    self, output_shape: Sequence[int], batch_dim: Sequence[int] = (1,)
  ) -> tfd.Distribution:
    """The distribution with all parameters zero.

    Args:
      output_shape: shape of one event, e.g. [Z].
      batch_dim: leading dimensions, e.g. [K].

    Returns:
      A distribution of batch shape `batch_dim` over such events. Activations
      apply: a softplus variance gives a stddev of sqrt(ln 2), not 1.
    """
    shapes = self.input_shapes(output_shape)
    return self(*(tf.zeros([*batch_dim, *shape]) for shape in shapes))


class BernoulliOutput(DistributionModule):
  """Independent Bernoulli variables for binary images."""

  def __init__(self, name: str = "bernoulli_output"):
    super().__init__(name=name)

  def input_shapes(self, output_shape: Sequence[int]) -> FlatParameters:
    """See the base class."""
    return FlatParameters(list(output_shape))

  def __call__(self, params: tf.Tensor) -> tfd.Distribution:
    """Args: params: [..., C] logits. Returns: event shape [C], float32."""
    return tfd.Independent(
      tfd.Bernoulli(logits=params, dtype=tf.float32),
      reinterpreted_batch_ndims=1,
    )


class LocScaleDistribution(DistributionModule):
  """Independent variables of one location-scale family.

  The last axis of the parameters holds locations, then scales; locations alone
  if the scale is fixed (reference: distributions.py:77-160).
  """

  def __init__(
    self,
    dist: str | type = "normal",
    dist_kwargs: Mapping[str, Any] | None = None,
    scale_act: str | Callable | None = "exp",
    scale: str = "stddev",
    scale_val: float = 1.0,
    loc_act: str | Callable | None = None,
    name: str = "loc_scale_dist",
  ):
    """Makes a distribution from names or TFP classes.

    Args:
      dist: "normal", "log_normal", "laplace", "logistic", "student_t", or a
        TFP class with parameters `loc` and `scale`.
      dist_kwargs: further arguments, e.g. {"df": 3.0} for "student_t".
      scale_act: activation of the scale parameter, name or function.
      scale: meaning of the activated parameter a, kept within float32's normal
        range: "stddev": scale = a, "var": sqrt(a), "prec": 1 / a; "fixed": no
        parameter, scale = scale_val.
      scale_val: only for scale="fixed": the scale, above 0, in the units of the
        variable; -1 for a trainable scalar, initially 0.1.
      loc_act: activation of the location parameter.
      name: scope of the variables.

    Raises:
      ValueError: for an unknown name, a scale_val that is neither above 0 nor
        -1, or dist_kwargs that are unknown or missing.
    """
    super().__init__(name=name)
    self._dist = utils.get_distribution(dist)
    self._dist_kwargs = dict(dist_kwargs or {})
    self._check_dist_kwargs()
    self._scale_act = utils.get_act_func(scale_act)
    self._loc_act = utils.get_act_func(loc_act)
    if scale not in SCALES:
      raise ValueError(
        f"scale={scale!r}: unknown. {errors.did_you_mean(scale, SCALES)}"
      )
    self._scale = scale
    number = isinstance(scale_val, int | float) and math.isfinite(scale_val)
    if not number or (scale_val <= 0 and scale_val != TRAINABLE_SCALE):
      raise ValueError(
        f"scale_val={scale_val!r}: {checks.text_hint(scale_val)}must be above "
        "0, or -1 for a trainable scale"
      )
    self._scale_val = float(scale_val)

  def _check_dist_kwargs(self) -> None:
    """Raises ValueError for arguments that are unknown or missing."""
    given = {"loc", "scale"}
    parameters = inspect.signature(self._dist).parameters
    names = [n for n in parameters if n not in given]
    for key in self._dist_kwargs:
      if key not in names:
        raise ValueError(
          f"dist_kwargs.{key}={self._dist_kwargs[key]!r}: unknown for "
          f"{self._dist.__name__}. {errors.did_you_mean(key, names, 'keys')}"
        )
    for key in names:
      required = parameters[key].default is inspect.Parameter.empty
      if required and key not in self._dist_kwargs:
        raise ValueError(
          f"{self._dist.__name__} needs dist_kwargs={{{key!r}: ...}}"
        )

  def input_shapes(self, output_shape: Sequence[int]) -> FlatParameters:
    """See the base class."""
    factor = 1 if self._scale == "fixed" else 2
    return FlatParameters([*output_shape[:-1], factor * output_shape[-1]])

  def __call__(self, params: tf.Tensor) -> tfd.Distribution:
    """Returns the distribution with these parameters.

    Args:
      params: [..., 2 * Z] float32, or [..., Z] if the scale is fixed.

    Returns:
      A distribution of batch shape [...] and event shape [Z].

    Raises:
      ValueError: if the last axis cannot be split into location and scale.
    """
    if self._scale == "fixed":
      loc = self._loc_act(params)
      scale = tf.ones_like(loc) * self._fixed_scale()
    else:
      if params.shape[-1] % 2:
        raise ValueError(
          f"params: expected [..., 2 * Z], location and scale side by side, "
          f"got {params.shape}"
        )
      loc, scale = tf.split(params, 2, axis=-1)
      loc, scale = self._loc_act(loc), self._scale_act(scale)
      scale = tf.clip_by_value(scale, _LOWEST_SCALE, _HIGHEST_SCALE)
      if self._scale == "var":
        scale = tf.sqrt(scale)
      elif self._scale == "prec":
        scale = tf.math.reciprocal(scale)
    dist = self._dist(loc=loc, scale=scale, **self._dist_kwargs)
    return tfd.Independent(dist, reinterpreted_batch_ndims=1)

  def _fixed_scale(self) -> float | tf.Variable:
    if self._scale_val != TRAINABLE_SCALE:
      return self._scale_val
    self._create_scale()
    return self.scale

  @snt.once
  def _create_scale(self) -> None:
    self.scale = tf.Variable(INITIAL_SCALE, dtype=tf.float32, name="scale")


class MaskedMixture(DistributionModule):
  """Spatial mixture: a categorical choice of a component at every pixel.

  Equation 1 of the paper (reference: distributions.py:163-225).
  """

  def __init__(
    self,
    num_components: int,
    component_dist: DistributionModule,
    mask_activation: str | Callable | None = None,
    name: str = "masked_mixture",
  ):
    """Makes a mixture of components of one kind.

    Args:
      num_components: K, at least 2.
      component_dist: distribution of one component's pixel.
      mask_activation: activation of the mask logits before the softmax over K.
      name: name of the module.

    Raises:
      ValueError: if K is below 2 or the activation is unknown.
    """
    super().__init__(name=name)
    checks.check(checks.size_fault("num_components", num_components, 2))
    checks.check_modules(component_dist=component_dist)
    self._num_components = num_components
    self._dist = component_dist
    self._mask_activation = utils.get_act_func(mask_activation)

  @property
  def num_components(self) -> int:
    """K, number of components."""
    return self._num_components

  def input_shapes(self, output_shape: Sequence[int]) -> MixtureParameters:
    """See the base class."""
    pixel = [
      self._num_components,
      *self._dist.input_shapes(output_shape).params,
    ]
    return MixtureParameters(pixel=pixel, mask=[*pixel[:-1], 1])

  def __call__(
    self, pixel: tf.Tensor, mask: tf.Tensor
  ) -> tfd.MixtureSameFamily:
    """Returns the mixture with these parameters.

    Args:
      pixel: [B, K, H, W, Cp] float32, parameters of the components.
      mask: [B, K, H, W, 1] float32, logits.

    Returns:
      A distribution of batch shape [B, 1, H, W] and event shape [C].
    """
    k = self._num_components
    checks.check_shapes(
      {
        "mask": (mask, f"B {k} H W 1"),
        "pixel": (pixel, f"B {k} H W Cp"),
      }
    )
    return tfd.MixtureSameFamily(
      mixture_distribution=tfd.Categorical(logits=self._mask_logits(mask)),
      components_distribution=self._dist(
        tf.transpose(pixel, [0, 2, 3, 1, 4])[:, tf.newaxis]
      ),
    )

  def _mask_logits(self, mask: tf.Tensor) -> tf.Tensor:
    """[B, K, H, W, 1] to activated logits [B, 1, H, W, K]."""
    return self._mask_activation(tf.transpose(mask, [0, 4, 2, 3, 1]))

  @staticmethod
  def masks(dist: tfd.MixtureSameFamily) -> tf.Tensor:
    """Probabilities of the components, [B, K, H, W, 1] in [0, 1]."""
    return _slots_first(dist.mixture_distribution.probs_parameter())

  @staticmethod
  def mask_logits(dist: tfd.MixtureSameFamily) -> tf.Tensor:
    """Logits of the components, not normalised, [B, K, H, W, 1]."""
    return _slots_first(dist.mixture_distribution.logits_parameter())

  @staticmethod
  def components(dist: tfd.MixtureSameFamily) -> tf.Tensor:
    """Means of the components, [B, K, H, W, C]."""
    means = dist.components_distribution.mean()[:, 0]
    return tf.transpose(means, [0, 3, 1, 2, 4])

  @staticmethod
  def log_probs(
    dist: tfd.MixtureSameFamily, image: tf.Tensor
  ) -> MixtureLogProbs:
    """Log-likelihoods of an image under the mixture and its components.

    Args:
      dist: mixture returned by a call of this module.
      image: [B, 1, H, W, C] float32.

    Returns:
      MixtureLogProbs, in nats, summed over channels.
    """
    components = dist.components_distribution.log_prob(
      image[..., tf.newaxis, :]
    )
    log_masks = tf.nn.log_softmax(dist.mixture_distribution.logits_parameter())
    return MixtureLogProbs(
      total=tf.reduce_logsumexp(components + log_masks, axis=-1),
      components=components,
    )

  def leave_one_out(self, mask: tf.Tensor, components: tf.Tensor) -> tf.Tensor:
    """Log-likelihood of an image under the mixture without one component.

    Equals calling the module with the parameters of the other K - 1 components
    (reference: iodine.py:441-449), but evaluates each component only once.

    Args:
      mask: [B, K, H, W, 1] float32, logits.
      components: [B, 1, H, W, K] float32 from `log_probs`, nats.

    Returns:
      [B, K, H, W, 1] float32, nats: entry k leaves out component k.
    """
    if self._mask_activation in _JOINING:
      return self._leave_one_out_joined(mask, components)
    logits = _slots_first(self._mask_logits(mask))
    both = tf.stack([_slots_first(components) + logits, logits])
    joint, normalizer = tf.unstack(_logsumexp_of_others(both, axis=2))
    return joint - normalizer

  def _leave_one_out_joined(
    self, mask: tf.Tensor, components: tf.Tensor
  ) -> tf.Tensor:
    """Handles activations of logits that depend on the component left out."""
    k = self._num_components
    others = [[j for j in range(k) if j != i] for i in range(k)]
    # Five axes, [B, H, W, K, K - 1], the most TensorFlow's softmax supports.
    raw = tf.gather(tf.transpose(mask[..., 0], [0, 2, 3, 1]), others, axis=-1)
    log_masks = tf.nn.log_softmax(self._mask_activation(raw))
    joint = tf.gather(components[:, 0], others, axis=-1) + log_masks
    log_probs = tf.reduce_logsumexp(joint, axis=-1)
    return tf.transpose(log_probs, [0, 3, 1, 2])[..., tf.newaxis]

  @staticmethod
  def posterior(components: tf.Tensor) -> tf.Tensor:
    """Posterior of the component at each pixel, under a uniform prior.

    p_k / (sum_j p_j + 1e-6), computed from log densities to avoid overflow
    (reference: iodine.py:420-426).

    Args:
      components: [B, 1, H, W, K] float32 from `log_probs`, nats.

    Returns:
      [B, K, H, W, 1] float32 in [0, 1].
    """
    epsilon = tf.math.log(POSTERIOR_EPSILON)
    log_total = tfp.math.log_add_exp(
      tf.reduce_logsumexp(components, axis=-1, keepdims=True), epsilon
    )
    return _slots_first(tf.exp(components - log_total))


def _slots_first(value: tf.Tensor) -> tf.Tensor:
  """[B, 1, H, W, K] to [B, K, H, W, 1]."""
  return tf.transpose(value, [0, 4, 2, 3, 1])


def _logsumexp_of_others(values: tf.Tensor, axis: int) -> tf.Tensor:
  """For each entry, log-sum-exp of all others along an axis; keeps the shape.

  Leaves an entry out of the sum by subtraction, which is safe for all but the
  highest: the rest of the sum, in units of the highest, is at least 1.
  """
  is_highest = tf.one_hot(
    tf.argmax(values, axis), values.shape[axis], True, False, axis=axis
  )
  highest = tf.reduce_max(values, axis, keepdims=True)
  # In units of the highest, which is itself left out.
  terms = tf.where(is_highest, 0.0, tf.exp(values - highest))
  lower = tf.reduce_sum(terms, axis, keepdims=True) - terms
  without_highest = tf.reduce_logsumexp(
    tf.where(is_highest, -np.inf, values), axis, keepdims=True
  )
  return tf.where(is_highest, without_highest, highest + tf.math.log1p(lower))
