"""What changes with the training step."""

import iodine.quiet_tensorflow

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import checks
from iodine.errors import did_you_mean
from iodine.models.gnm.renderer import Covering

__all__ = [
  "PRESENCE_PRIOR",
  "TEMPERATURE",
  "Annealed",
  "Annealing",
  "Curriculum",
  "Schedule",
  "linear",
]

# The value ([] float32) at a step ([] int64).
Schedule = Callable[[tf.Tensor], tf.Tensor]

# The terms of the objective, with the published weights' schedules.
_KL_WEIGHTS: dict[str, Any] = {
  "presence": 1.0,
  "where": 1.0,
  "depth": 1.0,
  "what": 1.0,
  "background": 1.0,
  "global": {"start": 0.0, "end": 1.0, "to_step": 100_000},
}
_AUXILIARY_WEIGHTS = {k: 1.0 for k in _KL_WEIGHTS if k != "global"}
TEMPERATURE = {"start": 1.0, "end": 0.5, "from_step": 1_000, "to_step": 20_000}
PRESENCE_PRIOR = {"start": 0.1, "end": 0.001, "to_step": 4_000}
_KEYS = ("start", "end", "from_step", "to_step")


def linear(name: str, value: Any) -> Schedule:
  """A number, or one that goes straight from `start` to `end`.

  Args:
    name: the argument's name.
    value: a number; a mapping of start, end, to_step and from_step (by default
      0): `start` up to from_step, `end` from to_step on; or a schedule, which
      stays as it is.

  Returns:
    The schedule.

  Raises:
    ValueError: for other values, or a ramp that ends before it begins.
  """
  if callable(value):
    return value
  if not isinstance(value, Mapping):
    checks.check(_finite_fault(name, value))
    return lambda step: tf.constant(value, tf.float32)
  for key in value:
    if key not in _KEYS:
      meant = did_you_mean(str(key), _KEYS, "keys")
      raise ValueError(f"{name}.{key}={value[key]!r}: unknown key. {meant}")
  entries = {"from_step": 0, **value}
  if missing := [key for key in _KEYS if key not in entries]:
    raise ValueError(f"{name}: expected {', '.join(missing)} as well")
  start, end, begin, stop = (entries[key] for key in _KEYS)
  checks.check(
    _finite_fault(f"{name}.start", start),
    _finite_fault(f"{name}.end", end),
    checks.int_fault(f"{name}.from_step", begin, 0),
    checks.int_fault(f"{name}.to_step", stop, 1),
  )
  if stop <= begin:
    raise ValueError(f"{name}.to_step={stop}: must be after from_step={begin}")

  def ramp(step: tf.Tensor) -> tf.Tensor:
    # In float32, a difference of late steps would be rounded.
    done = tf.cast(step - begin, tf.float32)
    return start + (end - start) * tf.clip_by_value(
      done / (stop - begin), 0.0, 1.0
    )

  return ramp


def _finite_fault(name: str, value: Any) -> str | None:
  if checks.is_number(value):
    return checks.number_fault(name, value)
  return (
    f"{name}={value!r}: {checks.text_hint(value)}expected a number, or a "
    "mapping of start, end, from_step and to_step"
  )


def _schedules(
  name: str, values: Mapping[str, Any] | None, defaults: Mapping[str, Any]
) -> dict[str, Schedule]:
  """Schedules by name.

  Args:
    name: the argument's name.
    values: {name: see `linear`}; None: none.
    defaults: {name: value} of all that there are.

  Returns:
    {name: schedule} of all that there are.

  Raises:
    ValueError: for unknown names or wrong values.
  """
  if not isinstance(values or {}, Mapping):
    raise ValueError(f"{name}={values!r}: expected a mapping")
  for key in values or {}:
    if key not in defaults:
      meant = did_you_mean(str(key), defaults, "keys")
      raise ValueError(f"{name}.{key}: unknown key. {meant}")
  whole = {**defaults, **(values or {})}
  return {key: linear(f"{name}.{key}", value) for key, value in whole.items()}


class Curriculum:
  """Early steps in which objects cover the same share of every pixel.

  Objects and background both have to explain the whole image then. No object is
  quite certain to be there.
  """

  def __init__(
    self, alpha: float = 0.9, from_step: int = 0, to_step: int = 500
  ):
    """Makes a curriculum.

    Args:
      alpha: the share, in [0, 1).
      from_step: last step before it.
      to_step: first step after it.

    Raises:
      ValueError: for values out of range.
    """
    checks.check(
      checks.share_fault("alpha", alpha),
      checks.int_fault("from_step", from_step, 0),
      checks.int_fault("to_step", to_step, 0),
    )
    self._alpha = float(alpha)
    self._from_step, self._to_step = from_step, to_step

  def __call__(self, step: tf.Tensor) -> Covering:
    """What holds at a step, [] int64."""
    holds = tf.logical_and(step > self._from_step, step < self._to_step)
    return Covering(holds, self._alpha)


class Annealed(NamedTuple):
  """What depends on the step.

  Attributes:
    kl_weights: {name of a term: [] float32}.
    auxiliary_weights: likewise.
    temperature: [] float32, of relaxed presence.
    presence_prior: [] float32, prior probability of an object.
    scale_prior: [] float32, prior mean of a place's a_scale.
    covering: what holds of the curriculum; None: there is none.
  """

  kl_weights: dict[str, tf.Tensor]
  auxiliary_weights: dict[str, tf.Tensor]
  temperature: tf.Tensor
  presence_prior: tf.Tensor
  scale_prior: tf.Tensor
  covering: Covering | None


class Annealing:
  """Makes what depends on the step."""

  def __init__(
    self,
    kl_weights: Mapping[str, Any] | None,
    auxiliary_weights: Mapping[str, Any] | None,
    temperature: Any,
    presence_prior: Any,
    scale_prior: Any,
    curriculum: Curriculum | None,
  ):
    """Checks what is annealed; see `GNM` for the arguments.

    Raises:
      ValueError: for values out of range, or unknown terms.
    """
    self._kl_weights = _schedules("kl_weights", kl_weights, _KL_WEIGHTS)
    self._auxiliary_weights = _schedules(
      "auxiliary_weights", auxiliary_weights, _AUXILIARY_WEIGHTS
    )
    self._temperature = linear("temperature", temperature)
    self._presence_prior = linear("presence_prior", presence_prior)
    self._scale_prior = linear("scale_prior", scale_prior)
    self._curriculum = curriculum

  def __call__(self, step: tf.Tensor | int) -> Annealed:
    """What holds at a step, [] integer, from 0 on."""
    step = tf.cast(step, tf.int64)
    return Annealed(
      {key: weight(step) for key, weight in self._kl_weights.items()},
      {key: weight(step) for key, weight in self._auxiliary_weights.items()},
      self._temperature(step),
      self._presence_prior(step),
      self._scale_prior(step),
      None if self._curriculum is None else self._curriculum(step),
    )
