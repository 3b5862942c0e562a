"""The optimizer and the compiled training step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.data.batch import check_pixels
from iodine.modules.utils import OnlineMeanVarEstimator
from iodine.training.optimizer import Adam
from iodine.training.replicas import Distribution

__all__ = ["Trainer"]

# Global norm to which gradients are clipped (reference: main.py:80).
CLIP_NORM = 5.0

# Scores that images without an object do not have, and how often they count.
_MAY_BE_UNDEFINED = {"loss/ari", "loss/ari_nobg"}
_COUNT = "count of "


class Trainer(tf.Module):
  """Takes training steps; holds all state that they depend on.

  A step is the mean, of gradients and of scalars, over the sub-batches that
  `distribution` cuts the batch into; the model sees one of them at a time, so
  that its inner losses are means over a sub-batch, as in the paper over the
  images of one GPU. The mean gradient is clipped, and Adam takes one step.
  (`factor/<scalar>`, an R^2, takes the variance that a replica knows by then.)

  Randomness is a function of `seed`, the optimizer's step and the sub-batch's
  index, so that a run that is continued draws what it would have drawn, on
  whatever devices the sub-batches run.

  All variables are created by `initialize`, or by the first batch.

  Attributes:
    model: the IODINE module.
    optimizer: its `Adam`.
    seed: int64 variable.
    distribution: where the sub-batches run.
  """

  def __init__(
    self,
    model: tf.Module,
    optimizer: Adam,
    seed: int | None = None,
    distribution: Distribution | None = None,
  ):
    """Constructor.

    Args:
      model: an IODINE.
      optimizer: what takes the steps.
      seed: of the noise, in [0, 2^31); None: chosen at random.
      distribution: in whose scope model, optimizer and trainer are made; None:
        one device, which takes a batch as a whole.

    Raises:
      ValueError: for another seed.
    """
    super().__init__(name="trainer")
    if seed is None:
      seed = int(np.random.default_rng().integers(2**31))
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**31:
      raise ValueError(f"seed={seed!r}: must be an integer from 0 to 2^31 - 1")
    self.model = model
    self.optimizer = optimizer
    self.distribution = distribution or Distribution()
    self.seed = tf.Variable(
      seed, dtype=tf.int64, trainable=False, name="trainer_seed"
    )
    self._compiled_step = tf.function(self._step, autograph=False)
    self._gradient_norms: tf.Tensor | None = None

  def initialize(
    self, image_shape: Sequence[int], factors: Mapping[str, int]
  ) -> None:
    """Creates all variables, see `IODINE.initialize`."""
    with self.distribution.scope():
      self.model.initialize(image_shape, factors)
      self.optimizer.initialize(self.model.trainable_variables)

  def step(
    self, data: Mapping[str, Any], noise: tf.Tensor | None = None
  ) -> dict[str, tf.Tensor]:
    """Takes one compiled step.

    Args:
      data: a batch, see `IODINE.__call__`.
      noise: [S, B, K, Z] float32 standard normal; None: from seed and step.

    Returns:
      {name: scalar}, those of the model from before the step and
      "debug/global_grad_norm" from before clipping.

    Raises:
      ValueError: if images are outside of [0, 1] or NaN, or the batch cannot
        be cut into equal sub-batches. No variable has changed.
    """
    check_pixels(data["image"])
    if not self.optimizer.slots:
      # Variables are created outside of the compiled function.
      image_shape = data["image"].shape[2:]
      factors = {k: v.shape[-1] for k, v in data.get("factors", {}).items()}
      self.initialize(image_shape, factors)
    scalars, self._gradient_norms = self._compiled_step(data, noise)
    return scalars

  def gradient_norms(self) -> dict[str, float]:
    """{variable's name: norm} of the last step's gradients, before clipping."""
    if self._gradient_norms is None:
      return {}
    names = [variable.name for variable in self.model.trainable_variables]
    norms = self._gradient_norms.numpy().tolist()
    return dict(zip(names, norms, strict=True))

  def _step(
    self, data: Mapping[str, Any], noise: tf.Tensor | None
  ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    return self.distribution.run(self._step_of_replica, data, noise)

  def _step_of_replica(
    self, data: Mapping[str, Any], noise: tf.Tensor | None
  ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Scalars, and the norms of all gradients."""
    gradients, scalars = self.distribution.mean(
      lambda index: self._gradients(index, data, noise),
      [m for m in self.submodules if isinstance(m, OnlineMeanVarEstimator)],
    )
    norms = [tf.linalg.global_norm([gradient]) for gradient in gradients]
    # Each replica rounds its norm in its own way.
    norm = self.distribution.mean_of_replicas(tf.linalg.global_norm(gradients))
    gradients, _ = tf.clip_by_global_norm(gradients, CLIP_NORM, use_norm=norm)
    self.optimizer.apply(gradients, self.model.trainable_variables)
    scalars = {**_defined(scalars), "debug/global_grad_norm": norm}
    return scalars, tf.stack(norms)

  def _gradients(
    self, index: Any, data: Mapping[str, Any], noise: tf.Tensor | None
  ) -> tuple[list[tf.Tensor | None], dict[str, tf.Tensor]]:
    """Gradients and scalars of one sub-batch, the latter as `_countable`."""
    seed = None
    count = self.distribution.num_sub_batches
    if noise is None:
      seed = tf.cast(tf.stack([self.seed, self.optimizer.step]), tf.int32)
    if count > 1:
      data = tf.nest.map_structure(lambda x: _part(x, index, count), data)
      if noise is not None:
        noise = _part(noise, index, count, axis=1)
      else:
        seed = tf.random.fold_in(seed, index)
    with tf.GradientTape() as tape:
      loss, scalars, _ = self.model(data, noise=noise, seed=seed)
    gradients = tape.gradient(loss, self.model.trainable_variables)
    return gradients, scalars if count == 1 else _countable(scalars)


def _part(x: tf.Tensor, index: Any, count: int, axis: int = 0) -> tf.Tensor:
  """One of `count` consecutive parts of an axis."""
  before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
  if size is None or size % count:
    raise ValueError(
      f"data: a batch of {size} cannot be cut into {count} equal sub-batches"
    )
  parts = tf.reshape(x, [*before, count, size // count, *after])
  return tf.gather(parts, index, axis=axis)


def _countable(scalars: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """Scalars of which means can be taken, see `_defined`."""
  countable = dict(scalars)
  for name in _MAY_BE_UNDEFINED & scalars.keys():
    value = scalars[name]
    undefined = tf.math.is_nan(value)
    countable[name] = tf.where(undefined, tf.zeros_like(value), value)
    countable[_COUNT + name] = tf.cast(tf.logical_not(undefined), value.dtype)
  return countable


def _defined(means: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """Means over the sub-batches for which a score is defined."""
  return {
    name: mean / means[_COUNT + name] if _COUNT + name in means else mean
    for name, mean in means.items()
    if not name.startswith(_COUNT)
  }
