"""EfficientMORL: a hierarchical VAE of slots, and a few steps of refinement."""

from __future__ import annotations

import iodine.quiet_tensorflow

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine import checks, random_numbers
from iodine.models.efficient_morl import weights
from iodine.models.efficient_morl.gaussian import Gaussian, stddev
from iodine.models.efficient_morl.hierarchy import Hierarchy, Inference
from iodine.models.efficient_morl.likelihoods import LIKELIHOODS
from iodine.models.efficient_morl.priors import (
  PRIORS,
  PriorNetwork,
  layer_priors,
)
from iodine.models.efficient_morl.refinement import (
  Refinement,
  RefinementNetwork,
)
from iodine.models.noise import slot_noise, split_seed
from iodine.models.slot_attention.attention import attention_pictures
from iodine.models.slot_attention.base import scaled
from iodine.models.slot_attention.encoder import EncodedImage
from iodine.scene_model import Composition, DecodedSlots, Loss, SceneModel, mix

__all__ = ["EfficientMORL"]


class _Decoded(NamedTuple):
  """A scene of slots."""

  z: tf.Tensor  # [B, K, Z]
  components: tf.Tensor  # [B, K, H, W, C]
  mask_logits: tf.Tensor  # [B, K, H, W, 1]
  log_masks: tf.Tensor  # [B, K, H, W, 1]
  nll: tf.Tensor  # [B]


class _Step(NamedTuple):
  """The last layer's posterior, or a refined one, and what comes of it."""

  posterior: tf.Tensor  # [B, K, 2 * Z]
  decoded: _Decoded
  kl: tf.Tensor  # [B, K]
  loss: tf.Tensor  # []
  refinement: Refinement | None  # that led to it


class _Record(NamedTuple):
  """What a call computed."""

  encoded: EncodedImage
  inference: Inference
  priors: list[Gaussian | None]  # L
  layer_kls: list[tf.Tensor]  # L times [B, K]
  steps: list[_Step]  # I + 1


class EfficientMORL(SceneModel):
  """Efficient multi-object representation learning (arXiv 2106.03849).

  L stochastic layers infer slots by attention, bottom up; a few steps refine
  the last layer's posterior by the gradient of the loss, as IODINE does. Layers
  and steps share one decoder. (Emami et al. 2021; code: pemami4911/
  EfficientMORL.)

  Dimensions: B batch, K slots, Z latent size, L layers, I refinement steps,
  S = max(L, 1) + I results of `infer`.
  """

  about = (
    "EfficientMORL explains an image by slots. The layers of a hierarchical "
    "VAE let them compete for its pixels; steps of refinement then improve "
    "their distributions by the gradient of the loss."
  )

  has_likelihood = True

  def __init__(
    self,
    encoder: snt.Module,
    decoder: snt.Module,
    n_z: int,
    num_components: int,
    num_layers: int = 3,
    num_iters: int = 3,
    likelihood: str = "gaussian",
    log_scale: float = -2.3025851,
    prior: str = "reversed++",
    dual_gru: bool = True,
    kl_beta: float = 1.0,
    init_gain: float = 0.02,
    inner_batch_size: int | None = None,
    name: str = "efficient_morl",
  ):
    """Makes a model; the first call creates the variables.

    Args:
      encoder: maps an image to a set, such as `ImageEncoder`.
      decoder: maps a slot to a picture and a mask, such as `BroadcastDecoder`;
        a sigmoid bounds the picture.
      n_z: Z.
      num_components: K.
      num_layers: L; 0: refinement begins at the learned initial posterior.
      num_iters: I, may be 0.
      likelihood: "gaussian": one Gaussian around the mixture of the slots'
        pictures; "mixture": a mixture of Gaussians for every channel.
      log_scale: logarithm of the Gaussians' standard deviation.
      prior: see `priors.PRIORS`.
      dual_gru: whether means and deviations have a GRU each, or one together.
      kl_beta: weight of the KL.
      init_gain: gain of the Glorot normal initial weights; encoder and decoder
        have their own. With the published 0.02 the slots begin all alike.
      inner_batch_size: number of images over which the loss is averaged whose
        gradient refines; None: those of the batch, as in the published code.
      name: scope of the variables.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(n_z=n_z, num_components=num_components)
    checks.check_modules(encoder=encoder, decoder=decoder)
    checks.check(
      checks.size_fault("num_layers", num_layers, 0, checks.MOST_ITERS),
      checks.finite_fault("log_scale", log_scale),
      checks.not_negative_fault("kl_beta", kl_beta),
      checks.above_zero_fault("init_gain", init_gain),
      checks.int_fault("inner_batch_size", inner_batch_size, 1, optional=True),
    )
    checks.check(
      checks.choice_fault("likelihood", likelihood, list(LIKELIHOODS)),
      checks.choice_fault("prior", prior, PRIORS),
    )
    checks.check_flags(dual_gru=dual_gru)
    self.n_z = n_z
    self.num_components = num_components
    self.num_layers = num_layers
    self.first_step = min(0, 1 - num_layers)
    self.set_num_iters(num_iters)
    self._encoder, self._decoder = encoder, decoder
    self._nll = LIKELIHOODS[likelihood]
    self._log_scale = float(log_scale)
    self._prior_kind = prior
    self._dual_gru = dual_gru
    self._kl_beta = float(kl_beta)
    self._inner_batch_size = inner_batch_size
    self._hierarchy = Hierarchy(num_layers, n_z, dual_gru, init_gain)
    self._prior_network = PriorNetwork(n_z, init_gain)
    self._refine = RefinementNetwork(n_z, init_gain)

  def set_num_iters(self, num_iters: int) -> None:
    """Sets the number of refinement steps, see `SceneModel.set_num_iters`."""
    checks.check(
      checks.size_fault("num_iters", num_iters, 0, checks.MOST_ITERS)
    )
    self.num_iters = num_iters
    self.num_steps = max(self.num_layers, 1) + num_iters

  # --- The contract -----------------------------------------------------------

  @property
  def prior(self) -> tfd.Distribution:
    """The standard normal prior at the end of the hierarchy."""
    shape = (self.num_components, self.n_z)
    return tfd.MultivariateNormalDiag(tf.zeros(shape), tf.ones(shape))

  def noise(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Draws noise, see `SceneModel`.

    Args:
      rngs: B generators.

    Returns:
      [n, B, K, Z] float32, standard normal, of samples in the order of the
      published code: of the initial posterior, of L layers, of L - 1 layers
      again for their priors, and of I refined posteriors.
    """
    shape = (self._num_draws, self.num_components, self.n_z)
    draws = [rng.standard_normal(shape, np.float32) for rng in rngs]
    return np.stack(draws, axis=1)

  def __call__(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | None = None,
  ) -> Loss:
    """Computes the training loss, a weighted sum over steps.

    Args:
      data: see `SceneModel`.
      noise: see `noise`.
      seed: see `SceneModel`.
      step: see `SceneModel`; used with `geco`.

    Returns:
      total: nats per image, averaged over the batch;
      scalars: loss/total; loss/nll and loss/kl, of the last step, unweighted
        nats; loss/mse, loss/ari, loss/ari_nobg;
      iterations: what was computed on the way.

    Raises:
      ValueError: see `SceneModel`.
    """
    data = self.check_data(data)
    image = data["image"][:, 0]
    step = tf.constant(0, tf.int64) if step is None else step
    record = self._run(image, noise, seed, step)
    losses = [step.loss for step in record.steps]
    total = tf.add_n(
      [w * x for w, x in zip(self._weights(), losses, strict=True)]
    )
    last = record.steps[-1]
    recons, masks = mix(self._slots(last.decoded))
    scalars = {
      "loss/total": total,
      "loss/nll": tf.reduce_mean(last.decoded.nll),
      "loss/kl": tf.reduce_mean(tf.reduce_sum(last.kl, axis=1)),
      **self.scores(data["image"][:, :1], recons[:, None], masks, data),
    }
    return Loss(total, scalars, record)

  def infer(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Runs the model, see `SceneModel`.

    The first L results are of the layers, from the lowest on, each of a sample
    of its own posterior; with no layer, there is one of the initial posterior.
    The others are of the refined posteriors. The KL of a layer is that of all
    layers up to it, from their priors; that of a refined posterior is from its
    own prior alone. Attention is that of the layers; the last repeats.

    Args:
      data: see `SceneModel`.
      noise: see `noise`.
      seed: see `SceneModel`.

    Returns:
      See `SceneModel`.
    """
    data = self.check_data(data)
    image = data["image"][:, 0]
    noise = self._noise(image, noise, seed)
    record = self._run(image, noise, None, None)
    inference = record.inference
    # The last layer is the first of the steps.
    below = inference.posteriors[1:-1]
    posteriors = below + [step.posterior for step in record.steps]
    decoded = [
      self._decode(Gaussian.of(posterior).sample(noise[layer]), image)
      for layer, posterior in enumerate(below, 1)
    ] + [step.decoded for step in record.steps]
    of_layers = itertools.accumulate(record.layer_kls[:-1])
    kls = [*of_layers, *(step.kl for step in record.steps)]
    stacked = _Decoded(*(tf.stack(x, 1) for x in zip(*decoded, strict=True)))
    mean, raw = Gaussian.of(tf.stack(posteriors, axis=1))
    recons, masks = mix(self._slots(stacked))
    outputs = {
      "recons": recons[:, :, tf.newaxis],
      "pred_mask": masks,
      "pred_mask_logits": stacked.mask_logits,
      "components": stacked.components,
    }
    if inference.attention:
      outputs["attention"] = self._attention(record)
    return {
      "data": self.data_entry(data),
      "outputs": outputs,
      "latent": {"z": stacked.z, "z_mean": mean, "z_std": stddev(raw)},
      "losses": {"recons": stacked.nll, "kl": tf.stack(kls, axis=1)},
    }

  def decode_slots(self, z: tf.Tensor) -> DecodedSlots:
    """Decodes slots, see `SceneModel`."""
    flat = tf.reshape(z, [-1, self.n_z])
    _, output = self._decoder(flat, self.image_shape)
    output = tf.reshape(output, [-1, *z.shape[1:2], *output.shape[1:]])
    channels = output.shape[-1] - 1
    # A split's gradient is a concatenation, that of slices a sum.
    pictures, mask_logits = tf.split(output, [channels, 1], axis=-1)
    return DecodedSlots(tf.sigmoid(pictures), mask_logits)

  def sample(self, num: int, seed: tf.Tensor | None = None) -> Composition:
    """Samples scenes, see `SceneModel`.

    Decodes samples of the prior of the last result of `infer`. With
    "reversed++" and refinement that is p(z_0 | z_1), reached from the top down.
    """
    is_chain = self._prior_kind == (
      "reversed++" if self.num_iters else "bottom-up"
    )
    chain = max(self.num_layers - 1, 0) if is_chain else 0
    shape = [num, self.num_components, self.n_z]
    seeds = split_seed(seed, chain + 1)
    z = random_numbers.normal(shape, seeds[0])
    for i in range(1, chain + 1):
      noise = random_numbers.normal(shape, seeds[i])
      z = self._prior_network(z).sample(noise)
    return mix(self.decode_slots(z))

  def published_weights(
    self, values: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray] | None:
    """Translates checkpoints of pemami4911/EfficientMORL."""
    return weights.translate(values, self._options(), self.variables)

  # --- Parts ------------------------------------------------------------------

  @property
  def _num_draws(self) -> int:
    return 1 + self.num_layers + max(self.num_layers - 1, 0) + self.num_iters

  def _options(self) -> dict[str, Any]:
    """The options that a published checkpoint may not fit."""
    parts = {"encoder": self._encoder, "decoder": self._decoder}
    return {
      "n_z": self.n_z,
      "model.dual_gru": self._dual_gru,
      **{
        f"model.{part}.{key}": value
        for part, module in parts.items()
        for key, value in getattr(module, "options", {}).items()
      },
    }

  def _weights(self) -> list[float]:
    """Weights of the losses of all steps; the earlier, the larger."""
    count = self.num_iters + 1
    return [(count + 2 - i) / count for i in range(count)]

  def _run(
    self,
    image: tf.Tensor,
    noise: Any,
    seed: tf.Tensor | None,
    step: tf.Tensor | None,
  ) -> _Record:
    """Infers the slots of images [B, H, W, C]."""
    draws = self._noise(image, noise, seed)
    first_prior, first_refined = self.num_layers + 1, -self.num_iters
    encoded = self._encoder(scaled(image))
    self._create_networks(encoded.features)
    inference = self._hierarchy(encoded.features, draws)
    posterior = inference.posteriors[-1]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(posterior)
      posteriors = list(map(Gaussian.of, inference.posteriors[1:]))
      priors = layer_priors(
        self._prior_kind, posteriors, self._prior_network, draws[first_prior:]
      )
      kls = [q.kl(p) for q, p in zip(posteriors, priors, strict=True)]
      kl = tf.add_n(kls) if kls else tf.zeros(tf.shape(posterior)[:2])
      steps = [self._step(posterior, draws[self.num_layers], image, kl, step)]
    prior = priors[0] if priors and self._prior_kind == "reversed++" else None
    hidden = tf.zeros_like(steps[0].decoded.z)
    for i in range(self.num_iters):
      gradient = self._gradient(tape, steps[-1], i)
      refinement = self._refine(posterior, gradient, hidden)
      posterior, hidden = posterior + refinement.delta, refinement.hidden
      with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(posterior)
        kl = Gaussian.of(posterior).kl(prior)
        draw = draws[first_refined + i]
        refined = self._step(posterior, draw, image, kl, step)
      steps.append(refined._replace(refinement=refinement))
    return _Record(encoded, inference, priors, kls, steps)

  @snt.once
  def _create_networks(self, features: tf.Tensor) -> None:
    """Creates variables that do not depend on numbers of layers and steps."""
    z = tf.zeros([1, self.num_components, self.n_z])
    posterior = tf.concat([z, z], axis=-1)
    keys_and_values = self._hierarchy.keys_and_values(features[:1])
    self._hierarchy.layer(posterior, z, *keys_and_values)
    self._prior_network(z)
    self._refine(posterior, posterior, z)

  def _step(
    self,
    posterior: tf.Tensor,
    noise: tf.Tensor,
    image: tf.Tensor,
    kl: tf.Tensor,
    step: tf.Tensor | None,
  ) -> _Step:
    """Decodes a sample of a posterior.

    Args:
      posterior: [B, K, 2 * Z].
      noise: [B, K, Z].
      image: [B, H, W, C].
      kl: [B, K].
      step: [] integer, number of previous training steps; None: evaluation.
    """
    decoded = self._decode(Gaussian.of(posterior).sample(noise), image)
    loss = self.objective(
      decoded.nll, tf.reduce_sum(kl, axis=1), step, self._kl_beta
    )
    return _Step(posterior, decoded, kl, loss, None)

  def _gradient(
    self, tape: tf.GradientTape, step: _Step, index: int
  ) -> tf.Tensor:
    """Gradient [B, K, 2 * Z] of a step's loss with respect to its posterior."""
    gradient = tape.gradient(step.loss, step.posterior)
    if self._inner_batch_size is not None:
      batch = tf.cast(tf.shape(gradient)[0], tf.float32)
      gradient *= batch / self._inner_batch_size
    return gradient

  def _decode(self, z: tf.Tensor, image: tf.Tensor) -> _Decoded:
    """Decodes slots [B, K, Z], and scores them by the image."""
    components, mask_logits = self.decode_slots(z)
    log_masks = mask_logits - tf.reduce_logsumexp(
      mask_logits, axis=1, keepdims=True
    )
    nll = self._nll(image, components, log_masks, self._log_scale)
    return _Decoded(z, components, mask_logits, log_masks, nll)

  def _slots(self, decoded: _Decoded) -> DecodedSlots:
    return DecodedSlots(decoded.components, decoded.mask_logits)

  def _attention(self, record: _Record) -> tf.Tensor:
    """[B, S, K, H, W, 1]."""
    attention = record.inference.attention
    attention = attention + attention[-1:] * self.num_iters
    return attention_pictures(
      attention,
      self.num_components,
      record.encoded.grid,
      self.image_shape[:2],
    )

  def _noise(
    self, image: tf.Tensor, noise: Any, seed: tf.Tensor | None
  ) -> tf.Tensor:
    """All draws [n, B, K, Z]."""
    return slot_noise(
      image, self.num_components, self.n_z, noise, seed, self._num_draws
    )
