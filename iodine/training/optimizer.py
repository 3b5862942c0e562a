"""The optimizer and its learning rate."""

import abc
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from iodine import checks

__all__ = [
  "Adam",
  "ExponentialDecay",
  "Optimizer",
  "global_step_of_optimizer",
  "make_optimizer",
]


# (reference: main.py:80)
CLIP_NORM = 5.0


class ExponentialDecay:
  """learning_rate * decay_rate ** (step / decay_steps), continuously."""

  def __init__(
    self,
    learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    global_step: None = None,
  ):
    """Makes a schedule.

    Args:
      learning_rate: rate at step 0, above 0.
      decay_steps: number of steps per factor of decay_rate, above 0.
      decay_rate: factor of the decay, above 0.
      global_step: None, for the optimizer's own counter; accepted for plans of
        the TF1 reference.

    Raises:
      ValueError: for values out of range.
    """
    del global_step
    checks.check(
      checks.above_zero_fault("learning_rate", learning_rate),
      checks.above_zero_fault("decay_steps", decay_steps),
      checks.above_zero_fault("decay_rate", decay_rate),
    )
    self._learning_rate = float(learning_rate)
    self._decay_steps = float(decay_steps)
    self._decay_rate = float(decay_rate)

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """The rate (scalar float32) at a step (scalar integer)."""
    exponent = tf.cast(step, tf.float32) / self._decay_steps
    return self._learning_rate * tf.pow(self._decay_rate, exponent)


def global_step_of_optimizer() -> None:
  """Placeholder for TF1's global step: the optimizer has its own counter."""
  return None


class Optimizer(tf.Module, abc.ABC):
  """Base class of optimizers.

  Attributes:
    clip_norm: global norm to which gradients are clipped before a step; None:
      no clipping.
    step: int64 variable, number of steps taken; created by `initialize`.
    slots: {name of a variable: {name: variable}}, the state of each variable.
  """

  clip_norm: float | None = None
  step: tf.Variable
  slots: dict[str, dict[str, tf.Variable]]

  @abc.abstractmethod
  def initialize(self, variables: Sequence[tf.Variable]) -> None:
    """Creates all state that does not exist yet."""

  @abc.abstractmethod
  def reset(self) -> None:
    """Resets all state except `step`."""

  @abc.abstractmethod
  def learn_rate(self) -> tf.Tensor:
    """The learning rate of the next step, scalar float32."""

  @abc.abstractmethod
  def apply(
    self,
    gradients: Sequence[tf.Tensor | None],
    variables: Sequence[tf.Variable],
  ) -> None:
    """Takes one step; variables without a gradient stay unchanged.

    Call `initialize` with the variables first.
    """


class Adam(Optimizer):
  """Adam as TF1 computes it, with TF1's state.

  lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t), w -= lr_t m / (sqrt(v) + eps).
  As in TF1, the powers are variables, multiplied at each step: their float32
  rounding, including the underflow of beta1_power, is part of a checkpoint.

  In TF1 checkpoints, `step` is called `global_step`; `slots` holds the moments
  "m" and "v".
  """

  def __init__(
    self,
    learning_rate: float | ExponentialDecay = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    clip_norm: float | None = CLIP_NORM,
    name: str = "Adam",
  ):
    """Makes an optimizer without state.

    Args:
      learning_rate: a number above 0, or a schedule.
      beta1: decay of the first moment, in [0, 1).
      beta2: decay of the second moment, in [0, 1).
      epsilon: added to the root of the second moment, above 0.
      clip_norm: see `Optimizer`, above 0 or None.
      name: name of the module; accepted for plans of the TF1 reference.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    has_schedule = isinstance(learning_rate, ExponentialDecay)
    checks.check(
      None
      if has_schedule
      else checks.above_zero_fault("learning_rate", learning_rate),
      checks.share_fault("beta1", beta1),
      checks.share_fault("beta2", beta2),
      checks.above_zero_fault("epsilon", epsilon),
      None
      if clip_norm is None
      else checks.above_zero_fault("clip_norm", clip_norm),
    )
    self._learning_rate = learning_rate
    self._beta1, self._beta2 = beta1, beta2
    self._epsilon = epsilon
    self.clip_norm = clip_norm
    self.slots = {}

  def initialize(self, variables: Sequence[tf.Variable]) -> None:
    """Creates counters and any missing moments."""
    if not hasattr(self, "step"):
      self.step = _state(0, "global_step", tf.int64)
      self.beta1_power = _state(self._beta1, "beta1_power")
      self.beta2_power = _state(self._beta2, "beta2_power")
    for variable in variables:
      if variable.name not in self.slots:
        zeros = tf.zeros(variable.shape, variable.dtype)
        name = variable.name.partition(":")[0]
        self.slots[variable.name] = {
          "m": _state(zeros, f"{name}/Adam"),
          "v": _state(zeros, f"{name}/Adam_1"),
        }

  def reset(self) -> None:
    """Resets moments and powers, see `Optimizer.reset`."""
    self.beta1_power.assign(self._beta1)
    self.beta2_power.assign(self._beta2)
    for slot in self.slots.values():
      for moment in slot.values():
        moment.assign(tf.zeros_like(moment))

  def learn_rate(self) -> tf.Tensor:
    """See `Optimizer.learn_rate`."""
    if isinstance(self._learning_rate, ExponentialDecay):
      return self._learning_rate(getattr(self, "step", tf.constant(0)))
    return tf.constant(self._learning_rate, tf.float32)

  def apply(
    self,
    gradients: Sequence[tf.Tensor | None],
    variables: Sequence[tf.Variable],
  ) -> None:
    """Takes one step, see `Optimizer.apply`."""
    learn_rate = self.learn_rate()
    for gradient, variable in zip(gradients, variables, strict=True):
      if gradient is None:
        continue
      if variable.name not in self.slots:
        raise ValueError(
          f"{variable.name} was created after the optimizer's state: call "
          f"`initialize` with all that the data will have, factors included"
        )
      slot = self.slots[variable.name]
      tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=slot["m"].handle,
        v=slot["v"].handle,
        beta1_power=self.beta1_power,
        beta2_power=self.beta2_power,
        lr=learn_rate,
        beta1=self._beta1,
        beta2=self._beta2,
        epsilon=self._epsilon,
        grad=gradient,
      )
    self.beta1_power.assign(self.beta1_power * self._beta1)
    self.beta2_power.assign(self.beta2_power * self._beta2)
    self.step.assign_add(1)


def _state(value: Any, name: str, dtype: tf.DType = tf.float32) -> tf.Variable:
  """A variable of the optimizer, named as in TF1 checkpoints."""
  with tf.name_scope(""):  # regardless of the current scope
    return tf.Variable(value, dtype=dtype, trainable=False, name=name)


def make_optimizer(
  learn_rate: float,
  beta1: float = 0.95,
  beta2: float = 0.999,
  epsilon: float = 1e-8,
  decay_steps: int = 1_000_000,
  decay_rate: float = 0.1,
  clip_norm: float | None = CLIP_NORM,
) -> Adam:
  """Makes the paper's optimizer (reference: configurations.py:121-133).

  Args:
    learn_rate: initial rate, multiplied by decay_rate every decay_steps.
    beta1: decay of the first moment.
    beta2: decay of the second moment.
    epsilon: added to the root of the second moment.
    decay_steps: see `ExponentialDecay`.
    decay_rate: see `ExponentialDecay`.
    clip_norm: global norm to which gradients are clipped; None: no clipping.

  Returns:
    The optimizer.

  Raises:
    ValueError: for values out of range.
  """
  checks.check(checks.above_zero_fault("learn_rate", learn_rate))
  schedule = ExponentialDecay(learn_rate, decay_steps, decay_rate)
  return Adam(schedule, beta1, beta2, epsilon, clip_norm)
