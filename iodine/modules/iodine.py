"""IODINE: iterative amortized inference for scenes of several objects."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from iodine import checks, errors, metrics
from iodine.data.batch import check_batch
from iodine.modules import _info, utils
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
from iodine.pictures import tiles

__all__ = ["IODINE"]

# Reference quirk (iodine.py:269): z is joined with this before decoding.
LATENT_CONSTANT = 5.0


class _Step(NamedTuple):
  """What one refinement step computes before zp is updated."""

  z_dist: tfd.Distribution
  z: tf.Tensor  # [B, K, Z]
  x_params: MixtureParameters
  x_dist: tfd.MixtureSameFamily
  log_probs: MixtureLogProbs
  kl: tf.Tensor  # [B, K], nats
  re: tf.Tensor  # [B], nats


class IODINE(snt.Module):
  """Iterative Object Decomposition Inference NEtwork (arXiv 1903.00450).

  Slots z_k explain an image together as a spatial mixture. Starting from
  learned parameters zp, every step samples z, decodes it, and shows the
  refinement network the image, the reconstruction and gradients of the loss;
  it answers with better parameters.

  Dimensions: B batch, T frames, S = num_iters + 1 steps, K slots, L true
  entities, H, W, C of the image, Z latent size, Zp parameters of a latent.
  """

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
    num_background_entities: int = 1,
    precision: str = "float32",
    recompute: bool = False,
    name: str = "iodine",
  ):
    """Constructor.

    Args:
      decoder: z to pictures and masks.
      refinement_core: the refinement network.
      latent_dist: posterior of z_k as a function of zp_k; its distribution at
        zp = 0 is the prior.
      output_dist: spatial mixture over the decoder's outputs.
      n_z: Z, size of each slot's latent.
      num_components: K, number of slots.
      num_iters: refinement steps.
      sequential: whether step t sees frame t; else all see frame 0.
      factor_evaluator: predicts true factors from latents; None: left out.
      stop_gradients: refinement inputs through which the outer gradient does
        not flow.
      iter_loss_weight: weights of the num_iters + 1 losses: "linspace" from 0
        to 1, one number for all, or a list.
      inputs: what the refinement network sees, names among `INPUTS`.
      preprocess: the inputs that layer norm is applied to; None: the three
        gradients, log_prob and counterfactual.
      coord_type: "linear" or "cos", of the input "coordinates".
      coord_freqs: frequencies per axis for "cos".
      inner_batch_size: divides the summed inner loss whose gradients are
        inputs; None: the batch at hand, as in the reference, which makes
        results depend slightly on the batch size.
      num_background_entities: leading true masks that are no objects.
      precision: "float32" or "bfloat16", what the convolutions of decoder and
        refinement core compute in; all else is float32.
      recompute: whether training computes each refinement step again when it
        needs its gradient, for less memory and more time. The results are the
        same, to rounding.
      name: of the module.

    Raises:
      ValueError: for values out of range, unknown inputs, or a latent
        distribution without a KL divergence.
    """
    super().__init__(name=name)
    for key, value in (
      ("n_z", n_z),
      ("num_components", num_components),
      ("num_iters", num_iters),
      ("num_background_entities", num_background_entities),
    ):
      checks.check_positive_int(key, value)
    for key, module in (
      ("decoder", decoder),
      ("refinement_core", refinement_core),
      ("latent_dist", latent_dist),
      ("output_dist", output_dist),
    ):
      checks.check_module(key, module)
    if factor_evaluator is not None:
      checks.check_module("factor_evaluator", factor_evaluator)
    for key, value in (("sequential", sequential), ("recompute", recompute)):
      if not isinstance(value, bool):
        raise ValueError(f"{key}={value!r}: must be true or false")
    open_gradients = set(INNER_GRADIENTS) & set(inputs) - set(stop_gradients)
    if recompute and open_gradients:
      raise ValueError(
        f"recompute=true keeps the inner gradients, through which no outer "
        f"gradient can then flow: add {sorted(open_gradients)} to "
        f"stop_gradients"
      )
    if inner_batch_size is not None:
      checks.check_positive_int("inner_batch_size", inner_batch_size)
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
    self.num_iters = num_iters
    self.sequential = sequential
    self.factor_evaluator = factor_evaluator
    self.iter_loss_weights = iteration_weights(iter_loss_weight, num_iters)
    self.inner_batch_size = inner_batch_size
    self.num_background_entities = num_background_entities
    self.recompute = recompute
    self._set_precision(precision)
    self._image_shape: tuple[int, int, int] | None = None
    self._check_kl()
    self._refinement_inputs = RefinementInputs(
      output_dist,
      inputs=inputs,
      stop_gradients=stop_gradients,
      preprocess=NORMALIZED_INPUTS if preprocess is None else preprocess,
      coord_type=coord_type,
      coord_freqs=coord_freqs,
    )

  def _set_precision(self, precision: str) -> None:
    if precision not in utils.PRECISIONS:
      raise ValueError(
        f"precision={precision!r}: unknown. "
        f"{errors.did_you_mean(precision, utils.PRECISIONS)}"
      )
    for module in self.submodules:
      if isinstance(module, ConvNet2D):
        module.dtype = tf.as_dtype(precision)

  @property
  def prior(self) -> tfd.Distribution:
    """Distribution of all slots' latents, batch [K], event [Z]."""
    return self.latent_dist.get_default_prior(
      [self.n_z], (self.num_components,)
    )

  def initialize(self, image_shape: Sequence[int], factors: Mapping) -> None:
    """Creates all variables, without data.

    Args:
      image_shape: (H, W, C).
      factors: {name: n}, sizes of the data's factors as in [B, L, n]; empty if
        there are none.
    """
    if len(image_shape) != 3:
      raise ValueError(f"image_shape={tuple(image_shape)}: must be (H, W, C)")
    height, width, channels = image_shape
    frames = self.num_iters + 1 if self.sequential else 1
    data: dict[str, Any] = {
      "image": tf.zeros([1, frames, height, width, channels])
    }
    if factors:
      entities = self.num_background_entities + 1
      data["mask"] = tf.ones([1, frames, entities, height, width, 1])
      data["visibility"] = tf.ones([1, entities])
      data["factors"] = {
        k: tf.zeros([1, entities, n]) for k, n in factors.items()
      }
    self._forward(data, None, None, is_training=False)

  def __call__(
    self,
    data: Mapping[str, Any],
    noise: tf.Tensor | None = None,
    seed: tf.Tensor | None = None,
  ) -> tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, list]]:
    """The training loss: those of all refinement steps, and the factor loss.

    Updates the factor evaluator's running moments.

    Args:
      data: image: [B, T, H, W, C] float32 in [0, 1], and optionally mask:
        [B, T, L, H, W, 1] in {0, 1}, visibility: [B, L] float32 and factors:
        {name: [B, L, n]}. T is 1 unless the model is sequential. What needs
        entries that are not there is left out.
      noise: [S, B, K, Z] float32 standard normal: step t samples
        mean + stddev * noise[t]. None: z is sampled.
      seed: [2] int32 for that sampling; None: not repeatable.

    Returns:
      total loss: scalar, nats per image, mean over the batch;
      scalars: {name: scalar}: loss/total, loss/recons (weighted by step),
        loss/kl (unweighted), loss/mse, loss/ari, loss/ari_nobg, factor/loss,
        factor/<name>;
      iterations: lists over steps: z [B,K,Z], zp [B,K,Zp], z_dist, x_dist, kl
        [B,K], re [B] and recons_loss [] (S entries), inputs {"spatial",
        "flat"} (num_iters).

    Raises:
      ValueError: if data have other shapes or types than those above, or, where
        there is no graph, other values.
    """
    return self._forward(data, noise, seed, is_training=True)

  def _forward(
    self,
    data: Mapping[str, Any],
    noise: tf.Tensor | None,
    seed: tf.Tensor | None,
    is_training: bool,
  ) -> tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, list]]:
    data = self._check_data(data)
    iterations = self.encode(data["image"], noise, seed)
    recons_loss = [tf.reduce_mean(re) for re in iterations["re"]]
    kl_loss = [mean_kl(kl) for kl in iterations["kl"]]
    iterations["recons_loss"] = recons_loss
    recons = weighted_sum(self.iter_loss_weights, recons_loss)
    kl = weighted_sum(self.iter_loss_weights, kl_loss)
    total = recons + kl
    scalars = {"loss/kl": tf.add_n(kl_loss), "loss/recons": recons}
    x_dist = iterations["x_dist"][-1]
    evaluator = self.evaluator_for(data)
    if evaluator is not None:
      mask = metrics.frame(data["mask"], self.num_iters, self.sequential)[:, 0]
      factor_loss, factor_scalars, *_ = evaluator(
        tf.stop_gradient(iterations["z"][-1]),
        data["factors"],
        data["visibility"],
        tf.stop_gradient(self.output_dist.masks(x_dist)),
        mask,
        is_training=is_training,
      )
      total += factor_loss
      scalars["factor/loss"] = factor_loss
      scalars.update({f"factor/{k}": v for k, v in factor_scalars.items()})
    scalars["loss/total"] = total
    scalars.update(self._monitored_scalars(x_dist, data))
    return total, scalars, iterations

  def encode(
    self,
    image: tf.Tensor,
    noise: tf.Tensor | None = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, list]:
    """Infers the latents of an image or sequence (equations 2 and 3).

    Args:
      image: [B, T, H, W, C] float32 in [0, 1].
      noise: as in a call of the model.
      seed: likewise.

    Returns:
      iterations, as a call of the model returns them but for recons_loss.
    """
    batch = tf.shape(image)[0]
    self._create_initial_zp()
    zp = tf.tile(
      self.initial_zp[tf.newaxis, tf.newaxis], [batch, self.num_components, 1]
    )
    steps = self.num_iters + 1
    if noise is not None:
      noise = tf.convert_to_tensor(noise)
      expected = f"{steps} B {self.num_components} {self.n_z}"
      checks.check_shapes(
        {"image": (image, "B T H W C"), "noise": (noise, expected)}
      )
    # Stateless, so that a step that is computed again draws the same.
    seed = tfp.random.sanitize_seed(seed)
    seeds = tf.unstack(tfp.random.split_seed(seed, n=steps))
    state = self.refinement_core.initial_state(batch * self.num_components)
    names = ("z", "zp", "z_dist", "x_dist", "inputs", "kl", "re")
    iterations: dict[str, list] = {name: [] for name in names}
    refine = recomputed(self._refine) if self.recompute else self._refine
    for t in range(steps):
      frame = metrics.frame(image, t, self.sequential)
      draw = None if noise is None else noise[t]
      if t < self.num_iters:
        record, next_zp, state = refine(zp, state, frame, draw, seeds[t])
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
    gradients: dict[str, tf.Tensor] | None = None,
  ) -> tuple[dict[str, Any], tf.Tensor, Any]:
    """One refinement step: its record, the new zp, the new state.

    The inner gradients are computed unless they are given.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(zp)
      step = self._decode_step(zp, frame, draw, seed)
      loss = self._inner_loss(step)
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
      z = z_dist.sample(seed=seed)
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
      image_shape: (H, W, C); None: that of the images seen last.

    Returns:
      The decoder's outputs (pixel [B,K,H,W,Cp], mask [B,K,H,W,1]) and the
      spatial mixture, batch [B, 1, H, W] and event [C].

    Raises:
      ValueError: if there is no image_shape yet.
    """
    image_shape = image_shape or self._image_shape
    if image_shape is None:
      raise ValueError(
        "decode: the image's size is unknown; pass image_shape=(H, W, C), or "
        "call the model or `initialize` first"
      )
    checks.static_shape("z", z, ["B", self.num_components, self.n_z])
    z = tf.pad(z, [[0, 0], [0, 0], [0, 1]], constant_values=LATENT_CONSTANT)
    pixel_shape = self.output_dist.input_shapes(image_shape).pixel[1:]
    params = self.decoder(z, pixel_shape)
    return params, self.output_dist(params.pixel, params.mask)

  def eval(
    self,
    data: Mapping[str, Any],
    noise: tf.Tensor | None = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Everything that the model computes for a batch; changes no variable.

    Args:
      data: as in a call of the model. A sequential model compares step t with
        frame t.
      noise: likewise.
      seed: likewise.

    Returns:
      Nested dict of tensors, S = num_iters + 1 steps, true_mask, ARI and
      factors only where the data have what they need:
      data: image [B,T,H,W,C], true_mask [B,T,L,H,W,1], visibility [B,L],
        factors {name: [B,L,n]};
      inputs: flat {name: [B,S,K,n]}, spatial {name: [B,S,K or 1,H,W,c]}:
        entry t was seen by the step that made zp[t], entry 0 is zero;
      latent: z, z_mean, z_std [B,S,K,Z];
      outputs: recons [B,S,1,H,W,C], pred_mask [B,S,K,H,W,1] in [0, 1],
        pred_mask_logits [B,S,K,H,W,1] as decoded, components [B,S,K,H,W,C];
      losses: total [], recons [B,S] and kl [B,S,K] in nats, factor [S];
      metrics: ari [B,S], ari_nobg [B,S], mse [B,S];
      factor_regressor: assignment [B,S,L,K], metrics {name: [S]},
        predictions {name: [B,S,L,size]}.
    """
    data = self._check_data(data)
    total, _, iterations = self._forward(data, noise, seed, is_training=False)
    return _info.collect(self, data, total, iterations)

  def get_sample_images(
    self, nr_samples: int = 16, seed: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Decodes samples of the prior.

    Args:
      nr_samples: how many; a grid of 4 x 4 holds at most 16.
      seed: [2] int32, or None.

    Returns:
      [1, H', W', C] float32 in [0, 1], a grid of pictures.
    """
    z = self.prior.sample(nr_samples, seed=seed)
    _, x_dist = self.decode(z)
    samples = tf.clip_by_value(x_dist.mean()[:, 0], 0.0, 1.0)
    return tiles.images_to_grid(samples)[tf.newaxis]

  def get_overview_images(
    self,
    data: Mapping[str, Any],
    nr_images: int = 4,
    mask_components: bool = False,
    seed: tf.Tensor | None = None,
  ) -> dict[str, tf.Tensor]:
    """Pictures for TensorBoard.

    Args:
      data: as in a call of the model; only `image` is used.
      nr_images: how many of the batch.
      mask_components: whether to show components through their masks.
      seed: [2] int32, or None.

    Returns:
      {name: [1, H', W', 3 or C] float32 in [0, 1]}: "overview" (image,
      reconstruction, masks, components), "sequence" (the refinement steps) and
      "samples" (of the prior).
    """
    image = self._check_data({"image": data["image"][:nr_images]})["image"]
    seeds = (None, None)
    if seed is not None:
      seeds = tf.unstack(tfp.random.split_seed(seed, n=2))
    iterations = self.encode(image, seed=seeds[0])
    # The reference shows the frame of the last refinement step, whose
    # reconstruction is the last but one (iodine.py:393).
    t = min(self.num_iters, image.shape[1]) - 1
    x_dists = iterations["x_dist"]
    return {
      "overview": tiles.get_overview_image(
        image[:, t : t + 1], x_dists[-1], mask_components=mask_components
      ),
      "sequence": tiles.construct_iterations_image(
        image[:, : t + 1, tf.newaxis],
        _info.stack_steps(dist.mean() for dist in x_dists[:-1]),
        _info.stack_steps(
          self.output_dist.masks(dist) for dist in x_dists[:-1]
        ),
      ),
      "samples": self.get_sample_images(seed=seeds[1]),
    }

  def _check_data(self, data: Mapping[str, Any]) -> dict[str, Any]:
    """See `check_batch`."""
    checked = check_batch(
      data, self.num_iters, self.sequential, self.num_background_entities
    )
    self._remember_image_shape(checked["image"].shape[2:])
    return checked

  def _remember_image_shape(self, shape: tf.TensorShape) -> None:
    """Sets what `decode` assumes; the number of channels cannot change."""
    if self._image_shape is not None and self._image_shape[2] != shape[2]:
      raise ValueError(
        f"image: expected {self._image_shape[2]} channels, as the model was "
        f"first called with, got shape {shape}"
      )
    self._image_shape = tuple(shape)

  def evaluator_for(self, data: Mapping[str, Any]) -> FactorRegressor | None:
    """The factor evaluator, if the data have what it needs."""
    needed = ("mask", "visibility", "factors")
    return self.factor_evaluator if all(k in data for k in needed) else None

  def _check_kl(self) -> None:
    prior = self.prior
    try:
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

  def _inner_loss(self, step: _Step) -> tf.Tensor:
    """The loss whose gradients the refinement network sees: a scalar, nats."""
    if self.inner_batch_size is None:
      return tf.reduce_mean(step.re) + mean_kl(step.kl)
    total = tf.reduce_sum(step.re) + tf.reduce_sum(step.kl)
    return total / self.inner_batch_size

  def _monitored_scalars(
    self, x_dist: tfd.MixtureSameFamily, data: Mapping[str, Any]
  ) -> dict[str, tf.Tensor]:
    frame = metrics.frame(data["image"], self.num_iters, self.sequential)
    error = tf.square(frame - x_dist.mean())
    scalars = {"loss/mse": tf.reduce_mean(error)}
    if "mask" in data:
      mask = metrics.frame(data["mask"], self.num_iters, self.sequential)[:, 0]
      indices = metrics.adjusted_rand_indices(
        mask, self.output_dist.masks(x_dist), self.num_background_entities
      )
      for name, value in indices.items():
        scalars[f"loss/{name}"] = metrics.mean_of_defined(value)
    return scalars


def iteration_weights(
  iter_loss_weight: str | float | Sequence[float], num_iters: int
) -> tuple[float, ...]:
  """Weights of the losses before the first refinement step and after each.

  Args:
    iter_loss_weight: "linspace" from 0 to 1, one number for all, or a list.
    num_iters: refinement steps.

  Returns:
    num_iters + 1 numbers.

  Raises:
    ValueError: for other values, or weights that are negative or not finite.
  """
  steps = num_iters + 1
  value = iter_loss_weight
  if value == "linspace":
    return tuple(np.linspace(0.0, 1.0, steps).tolist())
  if isinstance(value, int | float) and not isinstance(value, bool):
    weights = (float(value),) * steps
  elif isinstance(value, list | tuple):
    if len(value) != steps:
      raise ValueError(
        f"iter_loss_weight={list(value)}: {len(value)} weights, but "
        f"num_iters={num_iters} needs {steps} (one before the first step, one "
        f"after each)"
      )
    for weight in value:
      if not isinstance(weight, int | float) or isinstance(weight, bool):
        raise ValueError(f"iter_loss_weight: {weight!r} is no number")
    weights = tuple(float(w) for w in value)
  else:
    raise ValueError(
      f"iter_loss_weight={value!r}: must be 'linspace', a number or a list"
    )
  if not all(math.isfinite(w) and w >= 0 for w in weights):
    raise ValueError(
      f"iter_loss_weight={value!r}: weights must be finite and not negative"
    )
  return weights


def weighted_sum(
  weights: Sequence[float], losses: Sequence[tf.Tensor]
) -> tf.Tensor:
  """Sum over steps of weight times loss, scalars."""
  return tf.add_n([w * x for w, x in zip(weights, losses, strict=True)])


def mean_kl(kl: tf.Tensor) -> tf.Tensor:
  """KL [B, K] of slots to nats per image, a scalar."""
  return tf.reduce_mean(tf.reduce_sum(kl, axis=1))
