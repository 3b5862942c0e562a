"""GNM: a global latent that tells of objects, each in a cell of a grid."""

from __future__ import annotations

import iodine.quiet_tensorflow

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import checks, random_numbers
from iodine.models.gnm import counting, objective, renderer, slots, weights
from iodine.models.gnm.annealing import (
  PRESENCE_PRIOR,
  TEMPERATURE,
  Annealed,
  Annealing,
  Curriculum,
)
from iodine.models.gnm.autoencoder import AutoEncoder, Drawn, Explained, each
from iodine.models.gnm.background import Background
from iodine.models.gnm.decoder import PictureDecoder
from iodine.models.gnm.encoder import ImageEncoder
from iodine.models.gnm.struct_draw import StructDRAW
from iodine.models.gnm.symbols import SymbolHead
from iodine.models.noise import split_seed
from iodine.scene_model import Composition, Loss, SceneModel

__all__ = ["GNM"]

_LAST_STEP = tf.int64.max
_UNIFORM = "pres_uniform"  # the noise that is not normal


class GNM(SceneModel):
  """Generative Neurosymbolic Machines (arXiv 2010.12152).

  An image is divided into N x N cells. Each may have an object, whose symbols
  tell whether it is there, where, how deep and what it looks like; the
  background is a latent of its own. All of these are tied together by a global
  latent, drawn in several steps, which makes a map of the scene. Sampled from
  its prior, it makes new scenes.

  Dimensions: B batch, N cells on each side, D features of a cell, A size of an
  appearance, G size of the background's latent, L and M steps and size of the
  global latent, K = N * N slots or, with a background, which comes last,
  N * N + 1; Z size of a slot's latent, see `iodine.models.gnm.slots`.

  Attributes:
    annealed: what holds at a step, see `Annealing`.
  """

  about = (
    "GNM divides an image into cells. Each cell may have an object, with a "
    "presence, a place, a depth and an appearance, drawn on a background. A "
    "global latent tells which scenes are likely, and makes new ones."
  )
  first_step = 0
  has_likelihood = True
  place_latents = slots.PLACE

  def __init__(
    self,
    encoder: ImageEncoder,
    struct_draw: StructDRAW,
    head: SymbolHead,
    glimpse_decoder: PictureDecoder,
    n_z: int,
    num_cells: int = 4,
    background: Background | None = None,
    overlap: bool = True,
    sigma: float = 0.2,
    kl_weights: Mapping[str, Any] | None = None,
    auxiliary_weights: Mapping[str, Any] | None = None,
    temperature: Any = TEMPERATURE,
    presence_prior: Any = PRESENCE_PRIOR,
    scale_prior: Any = -1.5,
    curriculum: Curriculum | None = None,
    published_masks: bool = False,
    name: str = "gnm",
  ):
    """Makes a model of its modules; the first call creates the variables.

    What is annealed is a number or a mapping, see `annealing.linear`.

    Args:
      encoder: makes D features for each of N x N cells.
      struct_draw: the global latent.
      head: makes distributions of symbols from D features.
      glimpse_decoder: makes an object's picture.
      n_z: A, size of an appearance.
      num_cells: N, which strides of the encoder make of the image's side.
      background: makes the background; None: black.
      overlap: whether objects may overlap, with depth and alpha; otherwise,
        they just add up, and there is no background. They have a depth all the
        same, as in the published code.
      sigma: standard deviation of pixels.
      kl_weights: {presence, where, depth, what, background, global: weight},
        annealed, of the KL of the posterior from the prior; by default 1, that
        of the global latent from 0 at step 0 to 1 at step 100,000.
      auxiliary_weights: likewise but for global, of the KL from fixed priors;
        by default 1.
      temperature: annealed, of relaxed presence.
      presence_prior: annealed, fixed prior probability of an object.
      scale_prior: annealed, fixed prior mean of the log-odds of an object's
        side as a part of the image's.
      curriculum: of the first steps; None: none.
      published_masks: whether masks are those of the published evaluation:
        without regard to depth, the background's negative where objects
        overlap. Otherwise, they sum to 1.
      name: scope of the variables.

    Raises:
      ValueError: for values out of range, or that do not fit together.
    """
    super().__init__(name=name)
    checks.check_sizes(n_z=n_z, num_cells=num_cells)
    checks.check_flags(overlap=overlap, published_masks=published_masks)
    checks.check(checks.above_zero_fault("sigma", sigma))
    checks.check_modules(
      encoder=encoder,
      struct_draw=struct_draw,
      head=head,
      glimpse_decoder=glimpse_decoder,
    )
    if not overlap and (background is not None or published_masks):
      raise ValueError(
        "overlap=False: needs background=None and published_masks=False, as "
        "there are no alphas"
      )
    self._n_background = background.n_background if background else 0
    self._n_what = n_z
    self.n_z = slots.size(n_z, self._n_background)
    self.num_components = num_cells**2 + (background is not None)
    self._autoencoder = AutoEncoder(
      encoder,
      struct_draw,
      head,
      glimpse_decoder,
      background,
      num_cells,
      n_z,
      overlap,
    )
    self._published_masks = published_masks
    self._sigma = float(sigma)
    self.annealed = Annealing(
      kl_weights,
      auxiliary_weights,
      temperature,
      presence_prior,
      scale_prior,
      curriculum,
    )

  # --- The contract -----------------------------------------------------------

  def noise(self, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
    """Draws the noise of B scenes, see `SceneModel`.

    Args:
      rngs: B generators.

    Returns:
      [1, B, ...] float32: bg [G] (with a background), global [L, M], where
      [N, N, 4], depth [N, N, 1] and what [N, N, A], standard normal;
      pres_uniform [N, N, 1], uniform in [0, 1).
    """
    shapes = self._autoencoder.noise_shapes
    scenes = [
      {
        key: rng.random(shape, np.float32)
        if key == _UNIFORM
        else rng.standard_normal(shape, np.float32)
        for key, shape in shapes.items()
      }
      for rng in rngs
    ]
    return {
      key: np.stack([scene[key] for scene in scenes])[np.newaxis]
      for key in shapes
    }

  def __call__(
    self,
    data: Mapping[str, Any],
    noise: Mapping[str, Any] | None = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | None = None,
  ) -> Loss:
    """Computes the training loss.

    Args:
      data: see `SceneModel.__call__`; square images of the size that encoder
        and background are made for.
      noise: see `noise`.
      seed: [2] int32 seed of the noise, unless given; None: not repeatable.
      step: [] int64, number of previous training steps, for what is annealed.

    Returns:
      total: the weighted sum of the terms;
      scalars, nats per image: loss/total, loss/nll, loss/kl (all KLs, without
        weights), loss/kl_<term> and loss/kl_auxiliary_<term>; loss/mse,
        loss/ari, loss/ari_nobg (`SceneModel.scores`); objects, how many are
        there on average; temperature;
      iterations: an `Explained`.

    Raises:
      ValueError: see `SceneModel.__call__`; if the image's size does not fit.
    """
    data = self.check_data(data)
    image = self._image(data)
    step = 0 if step is None else step
    annealed = self.annealed(step)
    explained = self._explain(image, self._noise(noise, seed, image), annealed)
    recons = explained.scene.rendered.image
    log_likelihood = objective.log_likelihood(image, recons, self._sigma)
    nll = -tf.reduce_mean(log_likelihood)
    total = self.likelihood_term(nll, step)
    scalars = {"loss/nll": nll}
    kls = objective.kls(explained)
    auxiliary_kls = objective.auxiliary_kls(
      explained, annealed.presence_prior, annealed.scale_prior
    )
    for name, terms, factors in (
      ("kl", kls, annealed.kl_weights),
      ("kl_auxiliary", auxiliary_kls, annealed.auxiliary_weights),
    ):
      means = {key: tf.reduce_mean(term) for key, term in terms.items()}
      total += tf.add_n([factors[key] * mean for key, mean in means.items()])
      scalars[f"loss/{name}"] = tf.add_n(list(means.values()))
      for key, mean in means.items():
        scalars[f"loss/{name}_{key}"] = mean
    masks = self._masks(explained.scene)
    present = tf.round(explained.scene.objects.presence)
    scalars |= {
      "loss/total": total,
      **self.scores(image[:, tf.newaxis], recons[:, tf.newaxis], masks, data),
      "objects": tf.reduce_mean(tf.reduce_sum(present, axis=[1, 2])),
      "temperature": annealed.temperature,
    }
    return Loss(total, scalars, explained)

  def infer(
    self,
    data: Mapping[str, Any],
    noise: Mapping[str, Any] | None = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Runs the model on a batch, see `SceneModel.infer`.

    Symbols are drawn as in training, after all annealing.

    Args:
      data: see `__call__`.
      noise: see `noise`.
      seed: [2] int32 seed of the noise.

    Returns:
      See `SceneModel`. `outputs.components` are objects where they are alone
      and opaque. `latent.z_mean` is of the probability of presence and of the
      means of the others, and `latent.z_std` their deviation, to first order
      where they are squashed. `losses.kl` of a slot includes an equal part of
      the global latent's. `outputs.presence` of the background is 0.
    """
    data = self.check_data(data)
    image = self._image(data)
    explained = self._explain(
      image, self._noise(noise, seed, image), self.annealed(_LAST_STEP)
    )
    scene, background = explained.scene, explained.background
    log_likelihood = objective.log_likelihood(
      image, scene.rendered.image, self._sigma
    )
    pictures = renderer.components(scene.rendered)
    if scene.background is not None:
      last = scene.background[:, tf.newaxis]
      pictures = tf.concat([pictures, last], axis=1)
    z = slots.pack(scene.objects, background and background.z)
    means, deviations = slots.moments(explained.posterior, background)
    # Of S = 1 answer.
    return {
      "data": self.data_entry(data),
      "outputs": {
        "recons": _picture(scene)[:, tf.newaxis, tf.newaxis],
        "pred_mask": self._masks(scene)[:, tf.newaxis],
        "components": pictures[:, tf.newaxis],
        **{key: value[:, tf.newaxis] for key, value in self.places(z).items()},
      },
      "latent": {
        "z": z[:, tf.newaxis],
        "z_mean": means[:, tf.newaxis],
        "z_std": deviations[:, tf.newaxis],
      },
      "losses": {
        "recons": -log_likelihood[:, tf.newaxis],
        "kl": objective.kl_of_slots(explained)[:, tf.newaxis],
      },
    }

  def compose(self, z: tf.Tensor) -> Composition:
    """Renders scenes from slots, objects and backgrounds.

    Args:
      z: [N, K', Z] float32, such as `latent.z`, see `iodine.models.gnm.slots`;
        any number K' of slots. Of several backgrounds, the mean is drawn;
        without one, it is black.

    Returns:
      recons [N, H, W, C] in [0, 1], masks [N, K', H, W, 1]. What is black as
      there is no background is shared among all slots.
    """
    checks.check_shapes({"z": (z, f"N K {self.n_z}")})
    chosen = slots.unpack(z, self._n_what, self._n_background)
    flags = chosen.is_background[..., tf.newaxis, tf.newaxis]
    count = tf.reduce_sum(flags, axis=1, keepdims=True)
    parts = flags / tf.maximum(count, 1.0)
    background = None
    if self._autoencoder.background is not None:
      decode = self._autoencoder.background.decode
      channels = self.image_shape[-1]
      pictures = each(lambda x: decode(x, channels), chosen.background)
      background = tf.reduce_sum(parts * pictures, axis=1)
    scene = self._autoencoder.draw(chosen.objects, background, self.image_shape)
    masks, rest = tf.split(
      renderer.shares(scene.rendered), [tf.shape(z)[1], 1], axis=1
    )
    nobody = tf.ones_like(parts) / tf.cast(tf.shape(z)[1], tf.float32)
    masks += rest * tf.where(count > 0.0, parts, nobody)
    return Composition(_picture(scene), masks)

  def places(self, z: tf.Tensor) -> dict[str, tf.Tensor]:
    """Where slots are, see `slots.places`."""
    return slots.places(z)

  def sample(
    self, num: int, seed: tf.Tensor | None = None, mode: bool = True
  ) -> Composition:
    """Samples scenes: a global latent of its prior, then what it tells.

    Args:
      num: N, number of scenes.
      seed: [2] int32 seed; None: not repeatable.
      mode: whether symbols and background are the likeliest ones given the
        global latent; otherwise, they are drawn, too.

    Returns:
      recons [N, H, W, C] in [0, 1], masks [N, K, H, W, 1].

    Raises:
      ValueError: if the image's size is not known yet.
    """
    temperature = None if mode else self.annealed(_LAST_STEP).temperature
    scene = self._autoencoder.imagine(
      self._random(num, seed), temperature, self.image_shape
    ).scene
    return Composition(_picture(scene), self._masks(scene))

  def log_likelihood(
    self,
    data: Mapping[str, Any],
    num_samples: int = 30,
    seed: tf.Tensor | None = None,
  ) -> tf.Tensor:
    """Importance-weighted estimate of the log-likelihood of images.

    Presence counts as relaxed, linear between absent and present, as in the
    published code, so that this is no true bound.

    Args:
      data: see `__call__`.
      num_samples: draws of the posterior.
      seed: [2] int32 seed of the draws.

    Returns:
      [B] float32, nats.
    """
    checks.check_positive_ints(num_samples=num_samples)
    image = self._image(self.check_data(data))
    annealed = self.annealed(_LAST_STEP)
    logs = []
    for draw_seed in split_seed(seed, num_samples):
      explained = self._explain(
        image, self._noise(None, draw_seed, image), annealed
      )
      likelihood = objective.log_likelihood(
        image, explained.scene.rendered.image, self._sigma
      )
      ratios = objective.log_ratios(explained).values()
      logs.append(likelihood + tf.add_n(list(ratios)))
    total = tf.reduce_logsumexp(tf.stack(logs), axis=0)
    return total - math.log(num_samples)

  def records(self, info: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of objects, inferred and, of data with masks, true ones."""
    return counting.records(info, self.num_background_entities)

  def set_scores(
    self, records: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """How well objects are counted, see `counting.scores`."""
    return counting.scores(records)

  def published_weights(
    self, values: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray] | None:
    """Translates checkpoints of the official code and of its versions."""
    draw = self._autoencoder.struct_draw
    own = {
      "n_z": self._n_what,
      "model.num_cells": self._autoencoder.num_cells,
      "model.struct_draw.n_global": draw.n_global,
      "model.struct_draw.num_draws": draw.num_draws,
      "model.background.n_background": self._n_background,
    }
    return weights.translate(values, own, self.variables)

  # --- Parts ------------------------------------------------------------------

  def _image(self, data: Mapping[str, Any]) -> tf.Tensor:
    """The first frame [B, H, W, C], whose size is checked."""
    image = data["image"][:, 0]
    height, width = image.shape[1:3]
    if height != width:
      raise ValueError(f"image: {height} x {width} pixels; expected a square")
    background = self._autoencoder.background
    if background is not None and background.side != height:
      side = background.side
      raise ValueError(
        f"image: {height} x {width} pixels, but the background's factors make "
        f"{side} x {side}; set background.upscales or image_dim"
      )
    return image

  def _noise(
    self,
    noise: Mapping[str, Any] | None,
    seed: tf.Tensor | None,
    image: tf.Tensor,
  ) -> dict[str, tf.Tensor]:
    """The noise of a batch, {name: [B, ...]}, given or random."""
    if noise is None:
      return self._random(tf.shape(image)[0], seed)
    shapes = self._autoencoder.noise_shapes
    given = {key: tf.convert_to_tensor(noise[key]) for key in shapes}
    checks.check_shapes(
      {
        "image": (image, "B _ _ _"),
        **{
          f"noise[{key!r}]": (value, " ".join(map(str, (1, "B", *shapes[key]))))
          for key, value in given.items()
        },
      }
    )
    return {key: value[0] for key, value in given.items()}

  def _random(
    self, batch_size: tf.Tensor | int, seed: tf.Tensor | None
  ) -> dict[str, tf.Tensor]:
    """Random noise of so many scenes."""
    shapes = self._autoencoder.noise_shapes
    seeds = dict(zip(shapes, split_seed(seed, len(shapes)), strict=True))
    return {
      key: (
        random_numbers.uniform if key == _UNIFORM else random_numbers.normal
      )([batch_size, *shape], seeds[key])
      for key, shape in shapes.items()
    }

  def _explain(
    self, image: tf.Tensor, noise: Mapping[str, tf.Tensor], annealed: Annealed
  ) -> Explained:
    return self._autoencoder.explain(
      image, noise, annealed.temperature, annealed.covering
    )

  def _masks(self, scene: Drawn) -> tf.Tensor:
    """Masks of all slots, [B, K, H, W, 1]."""
    if self._published_masks:
      masks = renderer.masks_of(scene.rendered)
    else:
      masks = renderer.shares(scene.rendered)
    if scene.background is not None:
      return masks
    return masks[:, :-1] + masks[:, -1:] / self.num_components


def _picture(scene: Drawn) -> tf.Tensor:
  """What is shown of a scene, [B, H, W, C] in [0, 1]."""
  return tf.clip_by_value(scene.rendered.image, 0.0, 1.0)
