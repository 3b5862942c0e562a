"""Losses beside the reconstruction's, which shape masks (HHousen's version).

Dimensions: B batch, K slots, H height, W width.
"""

import abc
import math

import tensorflow as tf

from iodine import checks

__all__ = ["AreaLoss", "MaskLoss", "SeparationLoss"]

# Added to masks before their entropy.
_EPSILON = 1e-8


class MaskLoss(abc.ABC):
  """A loss of masks, whose weight is annealed.

  The weight rises from 0 at `start_step` to its full value at `end_step`, along
  half a period of a cosine.
  """

  def __init__(self, weight: float, start_step: int, end_step: int):
    """Makes a loss.

    Args:
      weight: the full weight, above 0.
      start_step: last step with weight 0, at least 0.
      end_step: first step with the full weight, not before `start_step`.

    Raises:
      ValueError: for values out of range.
    """
    checks.check(
      checks.above_zero_fault("weight", weight),
      checks.int_fault("start_step", start_step, 0),
      checks.int_fault("end_step", end_step, 0),
    )
    if end_step < start_step:
      raise ValueError(
        f"end_step={end_step}: must not be before start_step={start_step}"
      )
    self._weight = weight
    self._start_step, self._end_step = start_step, end_step

  def weight(self, step: tf.Tensor) -> tf.Tensor:
    """The weight (scalar float32) at a step (scalar integer)."""
    duration = max(self._end_step - self._start_step, 1)
    done = tf.cast(step - self._start_step, tf.float32) / duration
    if self._end_step == self._start_step:
      done = tf.cast(step >= self._start_step, tf.float32)
    done = tf.clip_by_value(done, 0.0, 1.0)
    return self._weight * (0.5 - 0.5 * tf.cos(math.pi * done))

  @abc.abstractmethod
  def __call__(self, masks: tf.Tensor) -> tf.Tensor:
    """The loss without its weight, a scalar; masks: [B, K, H, W, 1]."""


class SeparationLoss(MaskLoss):
  """How evenly slots share pixels: the mean over the pixels of an entropy.

  That of "max" is 1 - max over the slots.
  """

  def __init__(
    self,
    kind: str = "entropy",
    weight: float = 0.003,
    start_step: int = 60_000,
    end_step: int = 65_000,
  ):
    """Makes a loss.

    Args:
      kind: "entropy", in nats, or "max".
      weight: see `MaskLoss`.
      start_step: see `MaskLoss`.
      end_step: see `MaskLoss`.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(weight, start_step, end_step)
    checks.check(checks.choice_fault("kind", kind, ("entropy", "max")))
    self._kind = kind

  def __call__(self, masks: tf.Tensor) -> tf.Tensor:
    """See `MaskLoss`."""
    if self._kind == "max":
      return 1.0 - tf.reduce_mean(tf.reduce_max(masks, axis=1))
    masks += _EPSILON
    entropy = -tf.reduce_sum(masks * tf.math.log(masks), axis=1)
    return tf.reduce_mean(entropy)


class AreaLoss(MaskLoss):
  """How far slots are from the sizes of an object and of the background.

  Made for BoxWorld. With A the area of a slot's mask, and G that of an image
  less objects for the other slots, the mean over the slots of
  min((A - a)^2, max(G - A, 0) (G - A)) / a^2.
  """

  def __init__(
    self,
    object_area: float = 81.0,
    slot_area: float = 162.0,
    weight: float = 0.006,
    start_step: int = 0,
    end_step: int = 5_000,
  ):
    """Makes a loss.

    Args:
      object_area: pixels of an object, which the background lacks for each slot
        but one.
      slot_area: a, the pixels wanted of a slot with an object.
      weight: see `MaskLoss`.
      start_step: see `MaskLoss`.
      end_step: see `MaskLoss`.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(weight, start_step, end_step)
    checks.check(
      checks.above_zero_fault("object_area", object_area),
      checks.above_zero_fault("slot_area", slot_area),
    )
    self._object_area, self._slot_area = object_area, slot_area

  def __call__(self, masks: tf.Tensor) -> tf.Tensor:
    """See `MaskLoss`."""
    num_slots, height, width = masks.shape[1:4]
    areas = tf.reduce_sum(masks, axis=[2, 3, 4])
    background = height * width - (num_slots - 1) * self._object_area
    missing = background - areas
    errors = tf.minimum(
      tf.square(areas - self._slot_area), tf.nn.relu(missing) * missing
    )
    return tf.reduce_mean(errors) / self._slot_area**2
