"""The contract between a model of scenes and all that serves it.

Training, checkpoints, evaluation, pictures and commands know a model by this
class alone. A model of your own is a subclass, see docs/own_model.md.

Dimensions: B batch, T frames, S steps, K slots, L true entities, H height,
W width, C channels, Z latent size, N scenes, n size of a factor.
"""

from __future__ import annotations

import abc
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine import metrics
from iodine.data.batch import check_batch

if typing.TYPE_CHECKING:
  from iodine.modules.factor_eval import FactorRegressor

__all__ = [
  "Composition",
  "DecodedSlots",
  "Loss",
  "SceneModel",
  "shows_decomposition",
]


class Loss(NamedTuple):
  """What a call of a model returns.

  Attributes:
    total: [] float32, what training minimises.
    scalars: {name: []}, what training logs, "loss/total" among them. A run ends
      where one is not finite, unless `metrics.may_be_undefined`.
    iterations: the model's own record, for whoever knows the model.
  """

  total: tf.Tensor
  scalars: dict[str, tf.Tensor]
  iterations: Any = None


class DecodedSlots(NamedTuple):
  """Slots as they are decoded, each without regard to the others.

  Attributes:
    components: [..., H, W, C] float32 in [0, 1], the mean.
    mask_logits: [..., H, W, 1] float32.
  """

  components: Any
  mask_logits: Any


class Composition(NamedTuple):
  """Scenes composed of slots.

  Attributes:
    recons: [..., H, W, C] float32 in [0, 1].
    masks: [..., K, H, W, 1] float32 in [0, 1], summing to 1 over K.
  """

  recons: Any
  masks: Any


def shows_decomposition(info: Mapping[str, Any]) -> bool:
  """Whether there are reconstruction, masks and slots to be drawn."""
  return {"recons", "pred_mask", "components"} <= info["outputs"].keys()


class SceneModel(snt.Module, abc.ABC):
  """A model that explains images by slots.

  A subclass sets the attributes, and implements `__call__`, `infer` and
  `noise`. Slots that it can decode one by one, or sample, make more pictures
  possible: see `decode_slots` and `sample`.

  Attributes:
    about: a sentence for people who look at pictures, on how the model works.
    num_components: K.
    n_z: Z, size of a slot's latent.
    num_steps: S, how many answers `infer` gives, at least 1.
    num_frames: T, frames that the model needs of a batch.
    num_background_entities: how many of a batch's leading true masks are no
      objects; a fact of the data, which `initialize` sets.
    factor_evaluator: predicts true factors from latents; None: left out.
  """

  about = ""
  num_components: int
  n_z: int
  num_steps: int = 1
  num_frames: int = 1
  num_background_entities: int = 1
  factor_evaluator: FactorRegressor | None = None
  _image_shape: tuple[int, int, int] | None = None

  # --- What a model implements ------------------------------------------------
  # In a name scope of Sonnet's, they would no longer count as abstract.

  @abc.abstractmethod
  @snt.no_name_scope
  def __call__(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | None = None,
  ) -> Loss:
    """The training loss; begins with `self.check_data(data)`.

    Args:
      data: image: [B, T, H, W, C] float32 in [0, 1], and optionally mask:
        [B, T, L, H, W, 1] in {0, 1}, visibility: [B, L] float32 and factors:
        {name: [B, L, n]}.
      noise: as `noise` returns it, in place of random numbers; None: they are
        drawn.
      seed: [2] int32 for drawing them; None: not repeatable.
      step: [] int64, training steps taken before, for what is annealed; None:
        0.

    Returns:
      The loss.

    Raises:
      ValueError: if data have other shapes or types than those above, or, where
        there is no graph, other values.
    """

  @abc.abstractmethod
  @snt.no_name_scope
  def infer(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """What the model makes of a batch; changes no variable.

    Args:
      data: as in a call of the model.
      noise: likewise.
      seed: likewise.

    Returns:
      A nested dict of tensors. Every model gives `data` (`self.data_entry`),
      outputs: recons [B, S, 1, H, W, C], pred_mask [B, S, K, H, W, 1] (the
        largest owns a pixel), components [B, S, K, H, W, C];
      and whatever it has of these, without which some pictures and scores are
      left out:
      outputs: pred_mask_logits [B, S, K, H, W, 1];
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
      rngs: B generators; a scene's noise depends on its own alone.

    Returns:
      Nested tensors [n, B, ...] that a call of the model takes as `noise`; n is
      S, or whatever the model needs. None if it draws nothing.
    """

  # --- What only some models can ----------------------------------------------

  @property
  def prior(self) -> tfd.Distribution | None:
    """Distribution of all slots' latents, batch [K], event [Z]; None: none."""
    return None

  def decode_slots(self, z: tf.Tensor) -> DecodedSlots:
    """Decodes slots, each without regard to the others.

    Args:
      z: [N, K, Z] float32.

    Returns:
      components [N, K, H, W, C] and mask_logits [N, K, H, W, 1].
    """
    raise NotImplementedError(f"{type(self).__name__} cannot decode slots")

  def sample(self, num: int, seed: tf.Tensor | None = None) -> Composition:
    """Draws scenes that the model thinks likely.

    Args:
      num: N.
      seed: [2] int32; None: not repeatable.

    Returns:
      recons [N, H, W, C] and masks [N, K, H, W, 1].
    """
    raise NotImplementedError(f"{type(self).__name__} cannot sample scenes")

  def can(self, method: str) -> bool:
    """Whether a model has one of the methods that only some models have."""
    return getattr(type(self), method) is not getattr(SceneModel, method)

  # --- What all models get ----------------------------------------------------

  def initialize(
    self,
    image_shape: Sequence[int],
    factors: Mapping[str, int],
    num_background_entities: int | None = None,
  ) -> None:
    """Creates all variables, without data.

    Args:
      image_shape: (H, W, C).
      factors: {name: n}, sizes of the data's factors as in [B, L, n]; empty if
        there are none.
      num_background_entities: of the data; None: as it is.

    Raises:
      ValueError: if the image's shape is none, or does not suit the model, or
        two variables have the same name, under which checkpoints know them.
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
      # Nothing is visible: no running moment takes these zeros for data.
      data["visibility"] = tf.zeros([1, entities])
      data["factors"] = {
        k: tf.zeros([1, entities, n]) for k, n in factors.items()
      }
    self(data)
    names = [variable.name.partition(":")[0] for variable in self.variables]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
      raise ValueError(
        f"several variables are called {', '.join(repeated)}; give the modules "
        "that have them different names"
      )

  def check_data(self, data: Mapping[str, Any]) -> dict[str, Any]:
    """Checks a batch, and keeps of it what the model uses.

    Args:
      data: as in a call of the model.

    Returns:
      The entries as tensors, with T frames.

    Raises:
      ValueError: names the entry, what it is and what was expected.
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
    """(H, W, C) of the images seen last.

    Raises:
      ValueError: if there was none yet.
    """
    if self._image_shape is None:
      raise ValueError(
        "the image's size is unknown; call the model or `initialize` first"
      )
    return self._image_shape

  def data_entry(self, data: Mapping[str, Any]) -> dict[str, Any]:
    """The entry `data` of what `infer` returns.

    Args:
      data: from `check_data`.

    Returns:
      image [B, T, H, W, C], and what there is of true_mask [B, T, L, H, W, 1],
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
    """Scalars that tell people how well training goes.

    Args:
      image: [B, 1, H, W, C], what was to be reconstructed.
      recons: [B, 1, H, W, C], the reconstruction.
      masks: [B, K, H, W, 1], the masks.
      data: from `check_data`; its last frame's true masks count.

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

  def evaluator_for(self, data: Mapping[str, Any]) -> FactorRegressor | None:
    """The factor evaluator, if a batch, or `data_entry` of it, has factors."""
    present = {"mask" if key == "true_mask" else key for key in data}
    needed = {"mask", "visibility", "factors"}
    return self.factor_evaluator if needed <= present else None

  def eval(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Everything that can be said of a batch; changes no variable.

    Args:
      data: as in a call of the model.
      noise: likewise.
      seed: likewise.

    Returns:
      What `infer` returns, and, where model and data have what they need,
      metrics: mse, ari, ari_nobg, covering [B, S] (`metrics.measure`);
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
