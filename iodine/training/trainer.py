"""The compiled training step."""

import contextlib
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import metrics, random_numbers
from iodine.compiling import compiled
from iodine.data.batch import check_pixels
from iodine.modules.utils import OnlineMeanVarEstimator
from iodine.scene_model import SceneModel
from iodine.training.curriculum import Curriculum
from iodine.training.optimizer import Optimizer
from iodine.training.replicas import Distribution

__all__ = ["Trainer"]

_LOG = logging.getLogger(__name__)


class Trainer(tf.Module):
  """Takes training steps; holds all state that they depend on.

  `distribution` splits a batch into sub-batches. The model processes one at a
  time, so its inner losses are means over a sub-batch, as in the paper over the
  images of one GPU. Gradients and scalars are averaged over the sub-batches;
  the mean gradient is clipped, and the optimizer takes one step. A score that
  is undefined for some sub-batches (`metrics.is_score`) is averaged
  over the others. Then the model's `geco` is updated, by the mean nll.
  (`factor/<scalar>`, an R^2, uses the replica's variance so far.)

  Randomness depends only on `seed`, the optimizer's step and the index of the
  sub-batch, so a resumed run draws the same numbers as an uninterrupted one, on
  any devices.

  All variables are created by `initialize` or by the first batch.

  Attributes:
    model: model to train.
    optimizer: optimizer that takes the steps.
    seed: int64 variable, seed of the noise.
    distribution: where the sub-batches run.
    curriculum: number of refinement steps by training step; None: the model's.
  """

  def __init__(
    self,
    model: SceneModel,
    optimizer: Optimizer,
    seed: int | None = None,
    distribution: Distribution | None = None,
    curriculum: Curriculum | None = None,
    xla: bool = False,
  ):
    """Makes a trainer; only the seed's variable is created.

    Args:
      model: model to train.
      optimizer: optimizer that takes the steps.
      seed: seed of the noise, in [0, 2^31); None: chosen at random.
      distribution: make model, optimizer and trainer in its scope; None: one
        device, which processes a batch as a whole.
      curriculum: see the attribute.
      xla: whether XLA compiles loss and gradients of a sub-batch; all else of a
        step, such as the mean over replicas, is not compiled by it.

    Raises:
      ValueError: if the seed is out of range, or the curriculum does not suit
        the model.
    """
    super().__init__(name="trainer")
    if seed is None:
      seed = int(np.random.default_rng().integers(2**31))
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**31:
      raise ValueError(f"seed={seed!r}: must be an integer from 0 to 2^31 - 1")
    self.model = model
    self.optimizer = optimizer
    self.distribution = distribution or Distribution()
    if curriculum is not None:
      curriculum.check(model)
    self.curriculum = curriculum
    self._num_iters: int | None = None  # of the last step, by the curriculum
    self.seed = tf.Variable(
      seed, dtype=tf.int64, trainable=False, name="trainer_seed"
    )
    self._compiled_step = compiled(self.traced_step)
    # A part of that; XLA's compiled code is a part of its own.
    self._gradients_of_part = (
      compiled(self._gradients, xla) if xla else self._gradients
    )
    self._gradient_norms: tf.Tensor | None = None

  def initialize(
    self,
    image_shape: Sequence[int],
    factors: Mapping[str, int],
    num_background_entities: int | None = None,
  ) -> None:
    """Creates all variables, see `SceneModel.initialize`."""
    with self.distribution.scope():
      self.model.initialize(image_shape, factors, num_background_entities)
      self.optimizer.initialize(self.model.trainable_variables)

  def step(
    self, data: Mapping[str, Any], noise: Any = None
  ) -> dict[str, tf.Tensor]:
    """Takes one compiled step.

    Args:
      data: a batch, see `SceneModel.__call__`.
      noise: see `SceneModel.noise`; None: drawn from seed and step.

    Returns:
      {name: scalar}: the scalars of the model before the step,
      "debug/global_grad_norm" before clipping; if the optimizer has groups,
      "debug/learn_rate" and "debug/learn_rate_<group>"; if the model has
      `geco`, its "geco/constraint" and "geco/beta" before the step.

    Raises:
      ValueError: if images are outside [0, 1] or NaN, or the batch cannot be
        split into equal sub-batches. No variable is changed.
    """
    check_pixels(data["image"])
    if not self.optimizer.slots:
      # Variables are created outside the compiled function.
      image_shape = data["image"].shape[2:]
      factors = {k: v.shape[-1] for k, v in data.get("factors", {}).items()}
      self.initialize(image_shape, factors)
    scalars, self._gradient_norms = self._compiled_step(
      data, noise, self._stage()
    )
    return scalars

  def _stage(self) -> int | None:
    """The next step's number of refinement steps, if there is a curriculum."""
    if self.curriculum is None:
      return None
    step = int(self.optimizer.step.numpy())
    num_iters = self.curriculum(step)
    if num_iters != self._num_iters:
      _LOG.info("From step %d on: num_iters=%d in training", step, num_iters)
    self._num_iters = num_iters
    return num_iters

  def gradient_norms(self) -> dict[str, float]:
    """{variable name: norm} of the last step's gradients before clipping."""
    if self._gradient_norms is None:
      return {}
    names = [variable.name for variable in self.model.trainable_variables]
    norms = self._gradient_norms.numpy().tolist()
    return dict(zip(names, norms, strict=True))

  def traced_step(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    num_iters: int | None = None,
  ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Takes a step, for use in a graph; all variables must exist.

    Args:
      data: see `step`; pixels are not checked.
      noise: see `step`.
      num_iters: number of refinement steps; None: the model's.

    Returns:
      Scalars, see `step`, and the norms [n] of the gradients of the n trainable
      variables before clipping.
    """
    stage: contextlib.AbstractContextManager = contextlib.nullcontext()
    if num_iters is not None:
      stage = self.model.with_num_iters(num_iters)
    with stage:
      return self.distribution.run(self._step_of_replica, data, noise)

  def _step_of_replica(
    self, data: Mapping[str, Any], noise: Any
  ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Takes a step on one replica; returns scalars and gradient norms."""
    estimators = self._shared_estimators()
    before = [estimator.state() for estimator in estimators]
    gradients, scalars, defined = self.distribution.mean(
      lambda index: self._gradients_of_part(index, data, noise)
    )
    sums = self.distribution.sum_of_replicas(
      [e.since(state) for e, state in zip(estimators, before, strict=True)]
    )
    for estimator, *states in zip(estimators, before, sums, strict=True):
      estimator.merge(*states)
    for name, share in defined.items():
      scalars[name] /= share  # 0 / 0, NaN, if none is defined
    norms = [tf.linalg.global_norm([gradient]) for gradient in gradients]
    # Replicas may round their norms differently.
    norm = self.distribution.mean_of_replicas(tf.linalg.global_norm(gradients))
    scalars = {
      **scalars,
      "debug/global_grad_norm": norm,
      **self._learn_rates(),
      **self._geco_scalars(),
    }
    gradients = self.optimizer.clip(gradients, norm)
    step = tf.identity(self.optimizer.step)
    self.optimizer.apply(gradients, self.model.trainable_variables)
    if self.model.geco is not None:
      num_values = math.prod(self.model.image_shape)
      self.model.geco.update(scalars["loss/nll"], step, num_values)
    return scalars, tf.stack(norms)

  def _geco_scalars(self) -> dict[str, tf.Tensor]:
    """The state of the constraint on the likelihood, if there is one."""
    geco = self.model.geco
    if geco is None:
      return {}
    return {
      "geco/constraint": tf.identity(geco.constraint),
      "geco/beta": tf.identity(geco.beta),
    }

  def _learn_rates(self) -> dict[str, tf.Tensor]:
    """The scalars of the step's learning rates, if there are several."""
    groups = self.optimizer.group_learn_rates()
    if not groups:
      return {}
    return {
      "debug/learn_rate": self.optimizer.learn_rate(),
      **{f"debug/learn_rate_{name}": rate for name, rate in groups.items()},
    }

  def _gradients(
    self, index: Any, data: Mapping[str, Any], noise: Any
  ) -> tuple[list[tf.Tensor | None], dict[str, tf.Tensor], dict]:
    """One sub-batch's gradients, its scalars, and which of these are defined.

    The last is {name: 0 or 1} for scalars that may be NaN; 0 replaces NaN.
    """
    seed = None
    count = self.distribution.num_sub_batches
    if noise is None:
      seed = tf.cast(tf.stack([self.seed, self.optimizer.step]), tf.int32)
    if count > 1:
      data = tf.nest.map_structure(lambda x: _part(x, index, count), data)
      if noise is not None:
        noise = tf.nest.map_structure(
          lambda x: _part(x, index, count, axis=1), noise
        )
      else:
        seed = random_numbers.fold_in(seed, index)
    with tf.GradientTape() as tape:
      loss = self.model(
        data, noise=noise, seed=seed, step=tf.identity(self.optimizer.step)
      )
    gradients = [
      # An embedding's are IndexedSlices, which moments of all rows need whole.
      gradient if gradient is None else tf.convert_to_tensor(gradient)
      for gradient in tape.gradient(loss.total, self.model.trainable_variables)
    ]
    scalars = dict(loss.scalars)
    defined = {}
    for name in filter(metrics.is_score, scalars):
      value, is_nan = scalars[name], tf.math.is_nan(scalars[name])
      scalars[name] = tf.where(is_nan, tf.zeros_like(value), value)
      defined[name] = 1.0 - tf.cast(is_nan, value.dtype)
    return gradients, scalars, defined

  def _shared_estimators(self) -> list[OnlineMeanVarEstimator]:
    """The running moments to be synchronised between replicas."""
    if self.distribution.num_replicas == 1:
      return []
    return [
      module
      for module in self.model.submodules
      if isinstance(module, OnlineMeanVarEstimator) and module.is_initialized
    ]


def _part(x: tf.Tensor, index: Any, count: int, axis: int = 0) -> tf.Tensor:
  """One of `count` consecutive parts of an axis."""
  before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
  if size is None or size % count:
    raise ValueError(
      f"data: a batch of {size} cannot be cut into {count} equal sub-batches"
    )
  parts = tf.reshape(x, [*before, count, size // count, *after])
  return tf.gather(parts, index, axis=axis)
