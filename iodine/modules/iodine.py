"""IODINE: iterative amortized inference for scenes of several objects."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from iodine import checks, metrics, random_numbers
from iodine.modules import _info
from iodine.modules._convolutions import ConvNet2D
from iodine.modules._recompute import recomputed
from iodine.modules.decoder import ComponentDecoder
from iodine.modules.distributions import (
  DistributionModule,
  MaskedMixture,
  MixtureLogProbs,
  MixtureParameters,
)
from iodine.modules.factor_eval import FactorRegressor
from iodine.modules.refinement import (
  INNER_GRADIENTS,
  INPUTS,
  NORMALIZED_INPUTS,
  RefinementCore,
  RefinementInputs,
)
from iodine.scene_model import Composition, DecodedSlots, Loss, SceneModel

__all__ = ["IODINE"]

# Reference quirk (iodine.py:269): z is joined with this before decoding.
LATENT_CONSTANT = 5.0


class _Step(NamedTuple):
  """Results of one refinement step before zp is updated."""

  z_dist: tfd.Distribution
  z: tf.Tensor  # [B, K, Z]
  x_params: MixtureParameters
  x_dist: tfd.MixtureSameFamily
  log_probs: MixtureLogProbs
  kl: tf.Tensor  # [B, K], nats
  re: tf.Tensor  # [B], nats


class IODINE(SceneModel):
  """Iterative Object Decomposition Inference NEtwork (arXiv 1903.00450).

  Slots z_k jointly explain an image as a spatial mixture. Starting from learned
  parameters zp, every step samples z and decodes it; the refinement network,
  fed the image, the reconstruction and gradients of the loss, improves zp.

  Dimensions: B batch, T frames, S = num_iters + 1 steps, K slots, L true
  entities, H, W, C image size, Z latent size, Zp parameters of a latent.
  """

  about = (
    "IODINE explains an image by slots. Every slot has a latent that is "
    "decoded to a picture and a mask; a refinement network improves all "
    "latents together, step by step, without ever being told what an object is."
  )

  first_step = 0  # the first result comes before any refinement
  has_likelihood = True

  def __init__(
    self,
    decoder: ComponentDecoder,
    refinement_core: RefinementCore,
    latent_dist: DistributionModule,
    output_dist: MaskedMixture,
    n_z: int,
    num_components: int,
    num_iters: int,
    sequential: bool = False,
    factor_evaluator: FactorRegressor | None = None,
    stop_gradients: Sequence[str] = NORMALIZED_INPUTS,
    iter_loss_weight: str | float | Sequence[float] = "linspace",
    inputs: Sequence[str] = tuple(INPUTS),
    preprocess: Sequence[str] | None = None,
    coord_type: str = "linear",
    coord_freqs: int = 3,
    inner_batch_size: int | None = None,
    precision: str = "float32",
    recompute: bool = False,
    name: str = "iodine",
  ):
    """Makes a model from its modules.

    Args:
      decoder: decodes z to pixels and masks.
      refinement_core: the refinement network.
      latent_dist: posterior of z_k given zp_k; at zp = 0 it is the prior.
      output_dist: spatial mixture over the decoder's outputs.
      n_z: Z, size of each slot's latent.
      num_components: K, number of slots.
      num_iters: number of refinement steps.
      sequential: whether step t sees frame t; otherwise all see frame 0.
      factor_evaluator: predicts true factors from latents; None: no prediction.
      stop_gradients: refinement inputs that block the outer gradient.
      iter_loss_weight: weights of the num_iters + 1 losses: "linspace" from 0
        to 1, one number for all, or a list.
      inputs: inputs of the refinement network, from `INPUTS`.
      preprocess: inputs with layer norm; None: the three
        gradients, log_prob and counterfactual.
      coord_type: "linear" or "cos", type of the input "coordinates".
      coord_freqs: frequencies per axis for "cos".
      inner_batch_size: divisor of the summed inner loss, whose gradients are
        inputs; None: the current batch size, as in the reference, so results
        depend slightly on it.
      precision: of the convolutions in decoder and refinement core, "float32"
        or "bfloat16"; everything else is float32. "tf32" is float32 here, and a
        setting of the devices, see `iodine.devices`.
      recompute: whether to recompute each refinement step for its gradient:
        less memory, more time, the same results up to rounding.
      name: scope of the variables.

    Raises:
      ValueError: for values out of range, unknown inputs, or a latent
        distribution without a KL divergence.
    """
    super().__init__(name=name)
    checks.check_sizes(n_z=n_z, num_components=num_components)
    checks.check_modules(
      decoder=decoder,
      refinement_core=refinement_core,
      latent_dist=latent_dist,
      output_dist=output_dist,
    )
    checks.check_flags(sequential=sequential, recompute=recompute)
    if factor_evaluator is not None:
      checks.check_modules(factor_evaluator=factor_evaluator)
    if inner_batch_size is not None:
      checks.check_positive_ints(inner_batch_size=inner_batch_size)
    open_gradients = set(INNER_GRADIENTS) & set(inputs) - set(stop_gradients)
    if recompute and open_gradients:
      raise ValueError(
        f"recompute=true keeps the inner gradients, through which no outer "
        f"gradient can then flow: add {sorted(open_gradients)} to "
        f"stop_gradients"
      )
    if output_dist.num_components != num_components:
      raise ValueError(
        f"num_components={num_components}, but the output_dist has "
        f"{output_dist.num_components}"
      )
    self.decoder = decoder
    self.refinement_core = refinement_core
    self.latent_dist = latent_dist
    self.output_dist = output_dist
    self.n_z = n_z
    self.num_components = num_components
    self.sequential = sequential
    self.factor_evaluator = factor_evaluator
    # Not itself: Sonnet would make another type of a list.
    self._weights = functools.partial(iteration_weights, iter_loss_weight)
    self.set_num_iters(num_iters)
    self.inner_batch_size = inner_batch_size
    self.recompute = recompute
    self._set_precision(precision)
    self._check_kl()
    self._refinement_inputs = RefinementInputs(
      output_dist,
      inputs=inputs,
      stop_gradients=stop_gradients,
      preprocess=NORMALIZED_INPUTS if preprocess is None else preprocess,
      coord_type=coord_type,
      coord_freqs=coord_freqs,
    )

  def set_num_iters(self, num_iters: int) -> None:
    """Sets the number of refinement steps, see `SceneModel.set_num_iters`."""
    checks.check(
      checks.size_fault("num_iters", num_iters, most=checks.MOST_ITERS)
    )
    self.iter_loss_weights = self._weights(num_iters)
    self.num_iters = num_iters
    self.num_steps = num_iters + 1
    self.num_frames = self.num_steps if self.sequential else 1

  def _set_precision(self, precision: str) -> None:
    checks.check(checks.choice_fault("precision", precision, checks.PRECISIONS))
    dtype = tf.bfloat16 if precision == "bfloat16" else tf.float32
    for module in self.submodules:
      if isinstance(module, ConvNet2D):
        module.dtype = dtype

  @property
  def prior(self) -> tfd.Distribution:
    """Distribution of all slots' latents, batch [K], event [Z]."""
    return self.latent_dist.get_default_prior(
      [self.n_z], (self.num_components,)
    )

  def noise(self, rngs: Sequence[np.random.Generator]) -> tf.Tensor:
    """Draws [S, B, K, Z] float32, see `SceneModel.noise`."""
    shape = (self.num_steps, self.num_components, self.n_z)
    draws = [rng.standard_normal(shape, np.float32) for rng in rngs]
    return tf.constant(np.stack(draws, axis=1))

  def __call__(
    self,
    data: Mapping[str, Any],
    noise: tf.Tensor | None = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | None = None,
  ) -> Loss:
    """Computes the training loss: all refinement steps and the factors.

    Updates the factor evaluator's running moments.

    Args:
      data: see `SceneModel.__call__`. Results that need missing entries are
        left out.
      noise: [S, B, K, Z] float32 standard normal: step t samples
        mean + stddev * noise[t]. None: z is sampled.
      seed: [2] int32 seed of the sampling; None: not repeatable.
      step: [] int64, number of previous training steps, for `geco`; None: 0.

    Returns:
      total: nats per image, averaged over the batch;
      scalars: loss/total, loss/recons (weighted by step), loss/kl (unweighted),
        loss/nll (of the last step), loss/mse, loss/ari, loss/ari_nobg,
        factor/loss, factor/<name>;
      iterations: lists over steps: z [B,K,Z], zp [B,K,Zp], z_dist, x_dist, kl
        [B,K], re [B] and recons_loss [] (S entries), inputs {"spatial",
        "flat"} (num_iters).

    Raises:
      ValueError: see `SceneModel.__call__`.
    """
    data = self.check_data(data)
    return self._forward(
      data, noise, seed, 0 if step is None else step, is_training=True
    )

  def _forward(
    self,
    data: Mapping[str, Any],
    noise: tf.Tensor | None,
    seed: tf.Tensor | None,
    step: tf.Tensor | int | None,
    is_training: bool,
  ) -> Loss:
    """Computes the loss of a checked batch."""
    iterations = self.encode(data["image"], noise, seed, step)
    recons_loss = [tf.reduce_mean(re) for re in iterations["re"]]
    kl_loss = [mean_kl(kl) for kl in iterations["kl"]]
    iterations["recons_loss"] = recons_loss
    recons = weighted_sum(self.iter_loss_weights, recons_loss)
    kl = weighted_sum(self.iter_loss_weights, kl_loss)
    terms = [self.likelihood_term(x, step) for x in recons_loss]
    total = weighted_sum(self.iter_loss_weights, terms) + kl
    scalars = {
      "loss/kl": tf.add_n(kl_loss),
      "loss/recons": recons,
      "loss/nll": recons_loss[-1],
    }
    x_dist = iterations["x_dist"][-1]
    masks = self.output_dist.masks(x_dist)
    evaluator = self.evaluator_for(data)
    if evaluator is not None:
      factors = evaluator(
        tf.stop_gradient(iterations["z"][-1]),
        data["factors"],
        data["visibility"],
        tf.stop_gradient(masks),
        data["mask"][:, -1],
        is_training=is_training,
      )
      total += factors.loss
      scalars["factor/loss"] = factors.loss
      scalars.update({f"factor/{k}": v for k, v in factors.scalars.items()})
    scalars["loss/total"] = total
    scalars.update(
      self.scores(data["image"][:, -1:], x_dist.mean(), masks, data)
    )
    return Loss(total, scalars, iterations)

  def encode(
    self,
    image: tf.Tensor,
    noise: tf.Tensor | None = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | int | None = None,
  ) -> dict[str, list]:
    """Infers the latents of an image or sequence (equations 2 and 3).

    Args:
      image: [B, T, H, W, C] float32 in [0, 1].
      noise: see `__call__`.
      seed: see `__call__`.
      step: see `SceneModel.likelihood_term`.

    Returns:
      iterations, as returned by `__call__` but without recons_loss.
    """
    image = image[:, : self.num_frames]
    batch = tf.shape(image)[0]
    self._create_initial_zp()
    zp = tf.tile(
      self.initial_zp[tf.newaxis, tf.newaxis], [batch, self.num_components, 1]
    )
    steps = self.num_steps
    if noise is not None:
      noise = tf.convert_to_tensor(noise)
      expected = f"{steps} B {self.num_components} {self.n_z}"
      checks.check_shapes(
        {"image": (image, "B T H W C"), "noise": (noise, expected)}
      )
    # Stateless, so that a recomputed step draws the same numbers.
    seed = tfp.random.sanitize_seed(seed)
    seeds = random_numbers.split(seed, steps)
    state = self.refinement_core.initial_state(batch * self.num_components)
    names = ("z", "zp", "z_dist", "x_dist", "inputs", "kl", "re")
    iterations: dict[str, list] = {name: [] for name in names}
    refine = recomputed(self._refine) if self.recompute else self._refine
    for t in range(steps):
      frame = metrics.frame(image, t)
      draw = None if noise is None else noise[t]
      if t < self.num_iters:
        record, next_zp, state = refine(zp, state, frame, draw, seeds[t], step)
      else:
        record = self._decode_step(zp, frame, draw, seeds[t])._asdict()
      record["zp"] = zp
      for name in set(names) & set(record):
        iterations[name].append(record[name])
      zp = next_zp
    return iterations

  def _refine(
    self,
    zp: tf.Tensor,
    state: Any,
    frame: tf.Tensor,
    draw: tf.Tensor | None,
    seed: tf.Tensor,
    training_step: tf.Tensor | int | None,
    gradients: dict[str, tf.Tensor] | None = None,
  ) -> tuple[dict[str, Any], tf.Tensor, Any]:
    """Runs one refinement step; returns its record, new zp and new state.

    The inner gradients are computed unless given.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(zp)
      step = self._decode_step(zp, frame, draw, seed)
      loss = self._inner_loss(step, training_step)
    if gradients is None:
      gradients = self._refinement_inputs.gradients(
        tape, loss, zp, step.x_params
      )
    inputs = self._refinement_inputs(
      frame, zp, step.x_params, step.x_dist, step.log_probs, gradients
    )
    zp, state = self.refinement_core(inputs, state, zp)
    record = {**step._asdict(), "inputs": inputs, "gradients": gradients}
    return record, zp, state

  def _decode_step(
    self,
    zp: tf.Tensor,
    frame: tf.Tensor,
    draw: tf.Tensor | None,
    seed: tf.Tensor | None,
  ) -> _Step:
    z_dist = self.latent_dist(zp)
    if draw is None:
      z = random_numbers.of_latent(z_dist, seed)
    else:
      z = z_dist.mean() + z_dist.stddev() * draw
    x_params, x_dist = self.decode(z)
    log_probs = self.output_dist.log_probs(x_dist, frame)
    return _Step(
      z_dist=z_dist,
      z=z,
      x_params=x_params,
      x_dist=x_dist,
      log_probs=log_probs,
      kl=tfd.kl_divergence(z_dist, self.prior),
      re=-tf.reduce_sum(log_probs.total, axis=[1, 2, 3]),
    )

  def decode(
    self, z: tf.Tensor, image_shape: Sequence[int] | None = None
  ) -> tuple[MixtureParameters, tfd.MixtureSameFamily]:
    """Decodes latents (section 2.1 of the paper).

    Args:
      z: [B, K, Z] float32.
      image_shape: (H, W, C); None: that of the last images.

    Returns:
      The decoder's outputs (pixel [B,K,H,W,Cp], mask [B,K,H,W,1]) and the
      spatial mixture, batch [B, 1, H, W] and event [C].

    Raises:
      ValueError: if no image_shape is known yet.
    """
    image_shape = image_shape or self.image_shape
    checks.check_shapes({"z": (z, f"B {self.num_components} {self.n_z}")})
    z = tf.pad(z, [[0, 0], [0, 0], [0, 1]], constant_values=LATENT_CONSTANT)
    pixel_shape = self.output_dist.input_shapes(image_shape).pixel[1:]
    params = self.decoder(z, pixel_shape)
    return params, self.output_dist(params.pixel, params.mask)

  def infer(
    self,
    data: Mapping[str, Any],
    noise: tf.Tensor | None = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Runs the model on a batch, see `SceneModel.infer`.

    Also returns `losses.total` []. Entry t of `inputs` was the input of the
    step that produced zp[t]; entry 0 is zero. `pred_mask_logits` are not
    normalised.
    """
    data = self.check_data(data)
    loss = self._forward(data, noise, seed, None, is_training=False)
    info = _info.collect(self.output_dist, loss)
    return {"data": self.data_entry(data), **info}

  def decode_slots(self, z: tf.Tensor) -> DecodedSlots:
    """Decodes slots, see `SceneModel.decode_slots`."""
    _, x_dist = self.decode(z)
    return DecodedSlots(
      self.output_dist.components(x_dist), self.output_dist.mask_logits(x_dist)
    )

  def sample(self, num: int, seed: tf.Tensor | None = None) -> Composition:
    """Decodes samples of the prior, see `SceneModel.sample`."""
    _, x_dist = self.decode(self.prior.sample(num, seed=seed))
    return Composition(x_dist.mean()[:, 0], self.output_dist.masks(x_dist))

  def _check_kl(self) -> None:
    try:
      with tf.Graph().as_default():  # compute nothing
        prior = self.prior
        tfd.kl_divergence(prior, prior)
    except NotImplementedError as error:
      name = (
        prior.distribution.name if hasattr(prior, "distribution") else prior
      )
      raise ValueError(
        f"latent_dist: {name} has no KL divergence, which the loss needs; use "
        f"'normal', 'log_normal' or 'laplace'"
      ) from error

  @snt.once
  def _create_initial_zp(self) -> None:
    shape = self.latent_dist.input_shapes([self.n_z]).params
    glorot_uniform = snt.initializers.VarianceScaling(
      mode="fan_avg", distribution="uniform"
    )
    self.initial_zp = tf.Variable(
      glorot_uniform(shape, tf.float32), name="initial_sample_distribution"
    )

  def _inner_loss(
    self, step: _Step, training_step: tf.Tensor | int | None
  ) -> tf.Tensor:
    """The loss whose gradients are refinement inputs: a scalar, nats."""
    kl = tf.reduce_sum(step.kl, axis=1)
    if self.inner_batch_size is None:
      return self.objective(step.re, kl, training_step)
    size = self.inner_batch_size
    nll = tf.reduce_sum(step.re) / size
    return self.likelihood_term(nll, training_step) + tf.reduce_sum(kl) / size


def iteration_weights(
  iter_loss_weight: str | float | Sequence[float], num_iters: int
) -> tuple[float, ...]:
  """Weights of the losses before the first refinement step and after each.

  Args:
    iter_loss_weight: "linspace" from 0 to 1, one number for all, or a list.
    num_iters: number of refinement steps.

  Returns:
    num_iters + 1 numbers.

  Raises:
    ValueError: for other values, or weights that are negative or not finite.
  """
  steps = num_iters + 1
  value: Any = iter_loss_weight
  if value == "linspace":
    return tuple(np.linspace(0.0, 1.0, steps).tolist())
  weights = value if isinstance(value, list | tuple) else [value] * steps
  if len(weights) != steps:
    raise ValueError(
      f"iter_loss_weight={value!r}: {len(weights)} weights, but "
      f"num_iters={num_iters} needs {steps} (one before the first step, one "
      f"after each)"
    )
  if not all(checks.is_number(w) and 0.0 <= w < math.inf for w in weights):
    raise ValueError(
      f"iter_loss_weight={value!r}: must be 'linspace', a number or a list of "
      f"numbers, finite and not negative"
    )
  return tuple(float(w) for w in weights)


def weighted_sum(
  weights: Sequence[float], losses: Sequence[tf.Tensor]
) -> tf.Tensor:
  """Weighted sum of scalar losses over steps."""
  return tf.add_n([w * x for w, x in zip(weights, losses, strict=True)])


def mean_kl(kl: tf.Tensor) -> tf.Tensor:
  """Averages the KL [B, K] of slots to nats per image, a scalar."""
  return tf.reduce_mean(tf.reduce_sum(kl, axis=1))
