"""The interface between scene models and the rest of the package.

Training, checkpoints, evaluation, pictures and commands use a model only
through this class. Your own model is a subclass, see docs/own_model.md.

Dimensions: B batch, T frames, S steps, K slots, L true entities, H height,
W width, C channels, Z latent size, N scenes, n size of a factor.
"""

from __future__ import annotations

import iodine.quiet_tensorflow

import abc
import contextlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine import metrics
from iodine.data.batch import check_batch
from iodine.geco import Geco

if typing.TYPE_CHECKING:
  from iodine.modules.factor_eval import FactorRegressor

__all__ = [
  "Composition",
  "DecodedSlots",
  "Loss",
  "SceneModel",
  "mix",
  "shows_decomposition",
]


class Loss(NamedTuple):
  """Result of a call of a model.

  Attributes:
    total: [] float32, minimised by training.
    scalars: {name: []}, logged by training, including "loss/total". A run stops
      if one is not finite, unless `metrics.is_score`.
    iterations: the model's own record, for code specific to that model.
  """

  total: tf.Tensor
  scalars: dict[str, tf.Tensor]
  iterations: Any = None


class DecodedSlots(NamedTuple):
  """Slots, each decoded independently of the others.

  Attributes:
    components: [..., H, W, C] float32, the mean; in [0, 1], or about so where a
      model does not bound it.
    mask_logits: [..., H, W, 1] float32.
  """

  components: Any
  mask_logits: Any


class Composition(NamedTuple):
  """Scenes composed of slots.

  Attributes:
    recons: [..., H, W, C] float32, bounded as `DecodedSlots.components`.
    masks: [..., K, H, W, 1] float32 in [0, 1], summing to 1 over K; None where
      slots have none.
  """

  recons: Any
  masks: Any = None


def mix(slots: DecodedSlots) -> Composition:
  """Composes scenes from slots: their mean, weighted by a softmax over slots.

  Args:
    slots: components [..., K, H, W, C] and mask_logits [..., K, H, W, 1]; minus
      infinity removes a slot, and the others fill in according to their masks.
      At least one slot must remain.

  Returns:
    The scenes, as tensors.
  """
  # Not by tf.nn.softmax, which does not take all ranks.
  total = tf.reduce_logsumexp(slots.mask_logits, axis=-4, keepdims=True)
  masks = tf.exp(slots.mask_logits - total)
  return Composition(tf.reduce_sum(masks * slots.components, axis=-4), masks)


def shows_decomposition(info: Mapping[str, Any]) -> bool:
  """Whether there are reconstructions, masks and slots to draw."""
  return {"recons", "pred_mask", "components"} <= info["outputs"].keys()


class SceneModel(snt.Module, abc.ABC):
  """A model that represents images by slots.

  A subclass sets the attributes and implements `__call__`, `infer` and `noise`.
  It may also implement `decode_slots` or `compose`, `places` and `sample`, for
  more pictures.

  Attributes:
    about: a sentence on how the model works, shown beside pictures.
    num_components: K, number of slots.
    n_z: Z, size of a slot's latent.
    num_steps: S, number of results of `infer`, at least 1.
    first_step: number of refinement steps before the first result of `infer`: 0
      or 1. Negative if the first results are of layers of a hierarchy, the last
      of which has number 0.
    num_iters: number of refinement steps, of models whose number may change
      (`set_num_iters`).
    place_latents: indices of x and y in a slot's latent that tells a place,
      from -1 to 1 in the image, to the right and down; None: it tells none.
    num_frames: T, number of frames that the model uses.
    num_background_entities: number of leading true masks that are background; a
      property of the data, set by `initialize`.
    factor_evaluator: predicts true factors from latents; None: no prediction.
    has_likelihood: whether the loss is of a likelihood and a KL, by `objective`
      or `likelihood_term`. The scalars then include "loss/nll", the mean
      negative log-likelihood of the last result, nats per image.
    geco: constraint on the likelihood; None: nll + KL is minimised.
  """

  about = ""
  num_components: int
  n_z: int
  num_steps: int = 1
  first_step: int = 1
  num_iters: int
  place_latents: tuple[int, int] | None = None
  num_frames: int = 1
  num_background_entities: int = 1
  factor_evaluator: FactorRegressor | None = None
  has_likelihood: bool = False
  geco: Geco | None = None
  _image_shape: tuple[int, int, int] | None = None

  # --- Methods that a model implements ----------------------------------------
  # Sonnet's name scopes would hide that these methods are abstract.

  @abc.abstractmethod
  @snt.no_name_scope
  def __call__(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | None = None,
  ) -> Loss:
    """Computes the training loss; starts with `self.check_data(data)`.

    Args:
      data: image: [B, T, H, W, C] float32 in [0, 1], and optionally mask:
        [B, T, L, H, W, 1] in {0, 1}, visibility: [B, L] float32 and factors:
        {name: [B, L, n]}.
      noise: result of `noise`, used instead of random numbers; None: random.
      seed: [2] int32 seed of the random numbers; None: not repeatable.
      step: [] int64, number of previous training steps, for annealing; None: 0.

    Returns:
      The loss.

    Raises:
      ValueError: if shapes or types of the data differ from those above or, in
        eager mode, values do.
    """

  @abc.abstractmethod
  @snt.no_name_scope
  def infer(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Runs the model on a batch; changes no variable.

    Args:
      data: see `__call__`.
      noise: see `__call__`.
      seed: see `__call__`.

    Returns:
      A nested dict of tensors. Every model returns `data` (`self.data_entry`).
      Those that decompose images return
      outputs: recons [B, S, 1, H, W, C], pred_mask [B, S, K, H, W, 1] (the
        largest owns a pixel), components [B, S, K, H, W, C];
      and those of the following that it has; pictures and scores that need
      others are left out:
      outputs: pred_mask_logits [B, S, K, H, W, 1]; attention
        [B, S, K, H, W, 1], each slot's share of the attention that a pixel
        gets, summing to 1 over K; boxes [B, S, K, 4], left, top, right and
        bottom as parts of the image, presence [B, S, K] of an object in [0, 1],
        depth [B, S, K], small in front;
      latent: z, z_mean, z_std [B, S, K, Z];
      losses: recons [B, S], kl [B, S, K], nats;
      inputs: spatial {name: [B, S, K or 1, H, W, c]}, flat
        {name: [B, S, K, n]}.
    """

  @abc.abstractmethod
  @snt.no_name_scope
  def noise(self, rngs: Sequence[np.random.Generator]) -> Any:
    """Draws the noise of B scenes, one from each generator.

    Args:
      rngs: B generators; a scene's noise depends only on its own generator.

    Returns:
      Nested tensors [n, B, ...], the `noise` of a call of the model; n is S, or
      whatever the model needs. None if it draws nothing.
    """

  # --- Optional methods -------------------------------------------------------

  @property
  def prior(self) -> tfd.Distribution | None:
    """Distribution of all slots' latents, batch [K], event [Z]; None: none."""
    return None

  def decode_slots(self, z: tf.Tensor) -> DecodedSlots:
    """Decodes slots, each independently of the others.

    Args:
      z: [N, K, Z] float32.

    Returns:
      components [N, K, H, W, C] and mask_logits [N, K, H, W, 1].
    """
    raise self._cannot("decode slots")

  def compose(self, z: tf.Tensor) -> Composition:
    """Renders scenes from slots.

    A model that has `decode_slots` has this, too. One that decodes the slots of
    a scene jointly overrides it.

    Args:
      z: [N, K', Z] float32, any number K' of slots, at least 1.

    Returns:
      recons [N, H, W, C] and masks [N, K', H, W, 1] or None.
    """
    if not self.can("decode_slots"):
      raise self._cannot("render scenes from slots")
    return mix(self.decode_each(z))

  def places(self, z: tf.Tensor) -> dict[str, tf.Tensor]:
    """Where slots are.

    Args:
      z: [N, K', Z] float32, any number K' of slots.

    Returns:
      boxes [N, K', 4], presence [N, K'] and depth [N, K'], see `infer`.
    """
    raise self._cannot("tell where slots are")

  def sample(self, num: int, seed: tf.Tensor | None = None) -> Composition:
    """Samples scenes from the model.

    Args:
      num: N, number of scenes.
      seed: [2] int32 seed; None: not repeatable.

    Returns:
      recons [N, H, W, C] and masks [N, K, H, W, 1] or None.
    """
    raise self._cannot("sample scenes")

  def records(self, info: Mapping[str, Any]) -> dict[str, Any]:
    """What `set_scores` needs of the scenes of a batch.

    Args:
      info: result of `infer`.

    Returns:
      {name: [B, ...]}, as tensors; by default none.
    """
    del info
    return {}

  def set_scores(
    self, records: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Scores of many scenes that are no means over them.

    Args:
      records: {name: [N, ...]}, what `records` returns of all scenes.

    Returns:
      {name: [S]}, of every answer of `infer`; by default none. The names are
      free but for those of `metrics.SCENE_SCORES` and factor/<name>.
    """
    del records
    return {}

  def published_weights(
    self, values: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray] | None:
    """Translates a checkpoint of the model's published code.

    Args:
      values: {published name: value}, of a file of PyTorch or of an
        object-based checkpoint of Keras.

    Returns:
      {name of the model's variable: value}, and an optimizer's state under the
      names that it has in TF1 checkpoints; what is left over keeps its name.
      None if the values are not of such a checkpoint.

    Raises:
      ValueError: says which options the checkpoint needs that the model does
        not have; continues a sentence that begins with the file.
    """
    del values
    return None

  def set_num_iters(self, num_iters: int) -> None:
    """Sets `num_iters`, and `num_steps` with it, from the next call on.

    Args:
      num_iters: number of refinement steps; variables do not depend on it.

    Raises:
      ValueError: if it is out of range, or does not fit the model's options.
    """
    raise self._cannot("change its number of refinement steps")

  def can(self, method: str) -> bool:
    """Whether the model has an optional method, its own or by another one."""
    if getattr(type(self), method) is not getattr(SceneModel, method):
      return True
    return method == "compose" and self.can("decode_slots")

  def _cannot(self, what: str) -> NotImplementedError:
    return NotImplementedError(f"{type(self).__name__} cannot {what}")

  # --- Methods of all models --------------------------------------------------

  @property
  def num_refinements(self) -> int:
    """Number of refinement steps before the last result of `infer`."""
    return self.first_step + self.num_steps - 1

  @contextlib.contextmanager
  def with_num_iters(self, num_iters: int) -> Iterator[None]:
    """Sets `num_iters` for the calls within a `with` statement.

    Raises:
      ValueError: see `set_num_iters`.
    """
    before = self.num_iters
    self.set_num_iters(num_iters)
    try:
      yield
    finally:
      self.set_num_iters(before)

  def decode_each(self, z: tf.Tensor) -> DecodedSlots:
    """Decodes any number of slots by `decode_slots`, in groups of K.

    Args:
      z: [..., Z] float32.

    Returns:
      The slots, with the leading axes of `z`.
    """
    leading = tf.shape(z)[:-1]
    rows = tf.reshape(z, [-1, self.n_z])
    count = tf.shape(rows)[0]
    rows = tf.pad(rows, [[0, -count % self.num_components], [0, 0]])
    slots = self.decode_slots(
      tf.reshape(rows, [-1, self.num_components, self.n_z])
    )

    def ungroup(x: tf.Tensor) -> tf.Tensor:
      x = tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], axis=0))[:count]
      return tf.reshape(x, tf.concat([leading, tf.shape(x)[1:]], axis=0))

    return DecodedSlots(*map(ungroup, slots))

  def initialize(
    self,
    image_shape: Sequence[int],
    factors: Mapping[str, int],
    num_background_entities: int | None = None,
  ) -> None:
    """Creates all variables, without data.

    Args:
      image_shape: (H, W, C).
      factors: {name: n}, sizes of the data's factors [B, L, n]; may be empty.
      num_background_entities: value of the attribute; None: leave unchanged.

    Raises:
      ValueError: if the image shape is invalid or unsuitable for the model,
        two variables have the same name, which checkpoints identify them by, or
        a model with a likelihood does not tell it.
    """
    if len(image_shape) != 3:
      raise ValueError(f"image_shape={tuple(image_shape)}: must be (H, W, C)")
    if num_background_entities is not None:
      self.num_background_entities = num_background_entities
    data: dict[str, Any] = {
      "image": tf.zeros([1, self.num_frames, *image_shape])
    }
    if factors:
      entities = self.num_background_entities + 1
      data["mask"] = tf.ones(
        [1, self.num_frames, entities, *image_shape[:2], 1]
      )
      # Nothing is visible, so that no running moment counts these zeros.
      data["visibility"] = tf.zeros([1, entities])
      data["factors"] = {
        k: tf.zeros([1, entities, n]) for k, n in factors.items()
      }
    if self.geco is not None:
      self.geco.initialize()
    scalars = self(data).scalars
    if self.has_likelihood and "loss/nll" not in scalars:
      raise ValueError(
        f"{type(self).__name__}: has_likelihood is set, but of the scalars "
        f"{', '.join(scalars)} none is loss/nll"
      )
    names = [variable.name.partition(":")[0] for variable in self.variables]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
      raise ValueError(
        f"several variables are called {', '.join(repeated)}; give the modules "
        "that have them different names"
      )

  def check_data(self, data: Mapping[str, Any]) -> dict[str, Any]:
    """Checks a batch and keeps the entries that the model uses.

    Args:
      data: see `__call__`.

    Returns:
      The entries as tensors, with T frames.

    Raises:
      ValueError: names the entry, its value and what was expected.
    """
    checked = check_batch(data, self.num_frames, self.num_background_entities)
    shape = tuple(checked["image"].shape[2:])
    if self._image_shape is not None and self._image_shape[2] != shape[2]:
      raise ValueError(
        f"image: expected {self._image_shape[2]} channels, as the model was "
        f"first called with, got shape {checked['image'].shape[2:]}"
      )
    self._image_shape = shape
    return checked

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the last images.

    Raises:
      ValueError: if there have been none yet.
    """
    if self._image_shape is None:
      raise ValueError(
        "the image's size is unknown; call the model or `initialize` first"
      )
    return self._image_shape

  def data_entry(self, data: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the entry `data` of the result of `infer`.

    Args:
      data: result of `check_data`.

    Returns:
      image [B, T, H, W, C] and, if present, true_mask [B, T, L, H, W, 1],
      visibility [B, L] and factors {name: [B, L, n]}.
    """
    names = {"mask": "true_mask"}
    return {names.get(key, key): value for key, value in data.items()}

  def scores(
    self,
    image: tf.Tensor,
    recons: tf.Tensor,
    masks: tf.Tensor,
    data: Mapping[str, Any],
  ) -> dict[str, tf.Tensor]:
    """Computes scalars for monitoring training.

    Args:
      image: [B, 1, H, W, C], the target.
      recons: [B, 1, H, W, C], the reconstruction.
      masks: [B, K, H, W, 1], the masks.
      data: result of `check_data`; the true masks of its last frame are used.

    Returns:
      {name: []}: loss/mse, and, with true masks, loss/ari and loss/ari_nobg.
    """
    scalars = {"loss/mse": tf.reduce_mean(tf.square(image - recons))}
    if "mask" in data:
      indices = metrics.adjusted_rand_indices(
        data["mask"][:, -1], masks, self.num_background_entities
      )
      for name, value in indices.items():
        scalars[f"loss/{name}"] = metrics.mean_of_defined(value)
    return scalars

  def use_geco(self, geco: Geco) -> None:
    """Sets `geco`, before `initialize`.

    Raises:
      ValueError: if the model has no likelihood.
    """
    if not self.has_likelihood:
      raise ValueError(
        f"geco.target={geco.target}: a {type(self).__name__} has no likelihood "
        "to constrain; leave out geco.target"
      )
    self.geco = geco

  def likelihood_term(
    self, nll: tf.Tensor, step: tf.Tensor | int | None = None
  ) -> tf.Tensor:
    """The part of a loss that is due to the likelihood.

    Args:
      nll: [] float32, negative log-likelihood, nats per image, averaged over
        images.
      step: [] integer, number of previous training steps; None: evaluation.

    Returns:
      [] float32: nll or, with `geco`, see `Geco.likelihood_term`.
    """
    if self.geco is None:
      return nll
    return self.geco.likelihood_term(nll, step)

  def objective(
    self,
    nll: tf.Tensor,
    kl: tf.Tensor,
    step: tf.Tensor | int | None = None,
    kl_weight: float = 1.0,
  ) -> tf.Tensor:
    """The loss of one result: the negative ELBO or, with `geco`, its form.

    Args:
      nll: [B] float32, negative log-likelihood, nats per image.
      kl: [B] float32, nats per image.
      step: see `likelihood_term`.
      kl_weight: factor of the KL; 0: the loss is the nll, `geco` or not.

    Returns:
      [] float32, averaged over images.
    """
    nll = tf.reduce_mean(nll)
    if not kl_weight:
      return nll
    return self.likelihood_term(nll, step) + kl_weight * tf.reduce_mean(kl)

  def evaluator_for(self, data: Mapping[str, Any]) -> FactorRegressor | None:
    """The factor evaluator, if a batch (or its `data_entry`) has factors."""
    present = {"mask" if key == "true_mask" else key for key in data}
    needed = {"mask", "visibility", "factors"}
    return self.factor_evaluator if needed <= present else None

  def eval(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Runs and scores the model on a batch; changes no variable.

    Args:
      data: see `__call__`.
      noise: see `__call__`.
      seed: see `__call__`.

    Returns:
      The result of `infer` and, if model and data allow,
      metrics: {name: [B, S]}, see `metrics.measure`;
      losses: factor [S]; factor_regressor: assignment [B, S, L, K], metrics
        {name: [S]}, predictions {name: [B, S, L, size]}.
    """
    info = self.infer(data, noise=noise, seed=seed)
    info["metrics"] = metrics.measure(info, self.num_background_entities)
    evaluator = self.evaluator_for(info["data"])
    if evaluator is not None:
      loss, info["factor_regressor"] = evaluator.measure(info)
      info["losses"] = {**info.get("losses", {}), "factor": loss}
    return info
