"""Learning rates as functions of the step."""

import math

import tensorflow as tf

from iodine import checks

__all__ = ["ExponentialDecay", "Schedule", "global_step_of_optimizer"]


class Schedule:
  """Learning rate: constant, or with warm-up and one of two decays.

  At step t, from 0, with o = 0 if `warmup_from_zero`, else 1, the rate is

    learn_rate * warm-up * decay
    warm-up = min(1, (t + o) / warmup_steps)
    decay   = decay_rate^(d / decay_steps)
           or alpha + (1 - alpha) (1 + cos(pi min(1, t / cosine_steps))) / 2

  where alpha is `cosine_alpha`, and d = t: either decay also runs during the
  warm-up. With `decay_after_warmup`, d = t - warmup_steps, but 0 as long as
  that is not above 1: the step after the warm-up has the full rate, as in
  EfficientMORL. Slot Attention has both the warm-up from 0 and the first decay,
  SLATE a warm-up that starts at learn_rate / warmup_steps, and then a constant
  rate.
  """

  def __init__(
    self,
    learn_rate: float,
    warmup_steps: float = 0,
    warmup_from_zero: bool = True,
    decay_steps: float | None = None,
    decay_rate: float = 0.1,
    cosine_steps: float | None = None,
    cosine_alpha: float = 0.0,
    decay_after_warmup: bool = False,
  ):
    """Makes a schedule.

    Args:
      learn_rate: the base rate, above 0.
      warmup_steps: steps of linear warm-up; 0: none. Not whole where published
        PyTorch code takes a share of all steps.
      warmup_from_zero: whether the rate of the first step is 0, if there is a
        warm-up.
      decay_steps: number of steps per factor of decay_rate, above 0; None: no
        exponential decay.
      decay_rate: factor of the exponential decay, above 0.
      cosine_steps: step from which on the rate is cosine_alpha * learn_rate,
        above 0; None: no cosine decay.
      cosine_alpha: share of the rate that the cosine decay leaves, in [0, 1).
      decay_after_warmup: whether the exponential decay begins after the
        warm-up, see above.

    Raises:
      ValueError: for values out of range, or for both kinds of decay.
    """
    checks.check(
      checks.above_zero_fault("learn_rate", learn_rate),
      checks.not_negative_fault("warmup_steps", warmup_steps),
      checks.flag_fault("warmup_from_zero", warmup_from_zero),
      _steps_fault("decay_steps", decay_steps),
      checks.above_zero_fault("decay_rate", decay_rate),
      _steps_fault("cosine_steps", cosine_steps),
      checks.share_fault("cosine_alpha", cosine_alpha),
      checks.flag_fault("decay_after_warmup", decay_after_warmup),
    )
    if None not in (decay_steps, cosine_steps):
      raise ValueError(
        f"cosine_steps={cosine_steps}: with decay_steps={decay_steps} there "
        "would be two decays; set decay_steps to None for this one"
      )
    self._learn_rate = float(learn_rate)
    self._warmup_steps = float(warmup_steps)
    self._warmup_offset = 0.0 if warmup_from_zero else 1.0
    self._decay_steps, self._decay_rate = decay_steps, float(decay_rate)
    self._decay_after_warmup = decay_after_warmup
    self._cosine_steps, self._alpha = cosine_steps, float(cosine_alpha)

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """The rate (scalar float32) at a step (scalar integer)."""
    step = tf.cast(step, tf.float32)
    rate = tf.constant(self._learn_rate, tf.float32)
    if self._decay_steps is not None:
      elapsed = step
      if self._decay_after_warmup:
        elapsed -= self._warmup_steps
        elapsed = tf.where(elapsed > 1.0, elapsed, 0.0)
      rate *= tf.pow(self._decay_rate, elapsed / float(self._decay_steps))
    if self._cosine_steps is not None:
      angle = math.pi * tf.minimum(1.0, step / float(self._cosine_steps))
      half_wave = 0.5 * (1.0 + tf.cos(angle))
      rate *= self._alpha + (1.0 - self._alpha) * half_wave
    if self._warmup_steps:
      done = (step + self._warmup_offset) / self._warmup_steps
      rate *= tf.minimum(1.0, done)
    return rate


def _steps_fault(name: str, value: float | None) -> str | None:
  return None if value is None else checks.above_zero_fault(name, value)


class ExponentialDecay(Schedule):
  """learning_rate * decay_rate ** (step / decay_steps), continuously."""

  def __init__(
    self,
    learning_rate: float,
    decay_steps: float,
    decay_rate: float,
    global_step: None = None,
  ):
    """Makes a schedule, from the arguments of TF1's function.

    Args:
      learning_rate: rate at step 0, above 0.
      decay_steps: see `Schedule`.
      decay_rate: see `Schedule`.
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
    super().__init__(
      learning_rate, decay_steps=decay_steps, decay_rate=decay_rate
    )


def global_step_of_optimizer() -> None:
  """Placeholder for TF1's global step: the optimizer has its own counter."""
  return None
