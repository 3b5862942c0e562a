"""Optimizers: clipping of gradients, Adam and RMSprop."""

import abc
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import checks
from iodine.errors import ConfigError, did_you_mean
from iodine.training.schedules import Schedule

__all__ = ["Adam", "Group", "Optimizer", "RMSprop", "make_optimizer"]


# (reference: main.py:80)
CLIP_NORM = 5.0
_NORM_TYPES = (2, "inf")
_EPSILON_FORMS = ("tensorflow", "pytorch")


class Group(NamedTuple):
  """Variables that have a learning rate of their own.

  Attributes:
    match: regular expression, searched for in a variable's name.
    schedule: their learning rate.
  """

  match: str
  schedule: Schedule

  def has(self, variable: tf.Variable) -> bool:
    """Whether a variable belongs to the group."""
    return re.search(self.match, variable.name.partition(":")[0]) is not None


class Optimizer(tf.Module, abc.ABC):
  """Base class of optimizers.

  A subclass says which state a variable has, and takes a variable's step.

  Attributes:
    clip_norm: c, norm of all gradients together to which they are clipped
      before a step; None: no clipping.
    clip_norm_type: 2, the root of the sum of squares, or "inf", the largest
      absolute entry.
    clip_epsilon: e in the common factor min(1, c / (norm + e)); PyTorch's is
      1e-6.
    step: int64 variable, number of steps taken; created by `initialize`.
    slots: {name of a variable: {name: variable}}, the state of each variable.
  """

  step: tf.Variable
  # {name of a variable's state: end of its name in checkpoints}.
  _state_names: Mapping[str, str]

  def __init__(
    self,
    learn_rate: float | Schedule,
    clip_norm: float | None,
    clip_norm_type: int | str,
    clip_epsilon: float,
    groups: Mapping[str, Group] | None,
    name: str,
  ):
    """Makes an optimizer without state.

    Args:
      learn_rate: a number above 0, or a schedule.
      clip_norm: above 0 or None.
      clip_norm_type: see above.
      clip_epsilon: in [0, 1).
      groups: {name: variables with a learning rate of their own}; a variable
        belongs to one at most.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    if not isinstance(learn_rate, Schedule):
      learn_rate = Schedule(learn_rate)
    checks.check(
      None
      if clip_norm is None
      else checks.above_zero_fault("clip_norm", clip_norm),
      checks.choice_fault("clip_norm_type", clip_norm_type, _NORM_TYPES),
      checks.share_fault("clip_epsilon", clip_epsilon),
    )
    self._schedule = learn_rate
    self.clip_norm = clip_norm
    self.clip_norm_type, self.clip_epsilon = clip_norm_type, clip_epsilon
    self._groups = dict(groups or {})
    self._group_of: dict[str, str] = {}  # by the names of variables
    self.slots: dict[str, dict[str, tf.Variable]] = {}

  @abc.abstractmethod
  def _apply(
    self,
    gradient: tf.Tensor,
    variable: tf.Variable,
    state: Mapping[str, tf.Variable],
    learn_rate: tf.Tensor,
  ) -> None:
    """Takes a step of one variable."""

  def initialize(self, variables: Sequence[tf.Variable]) -> None:
    """Creates all state that does not exist yet.

    Raises:
      ConfigError: if a group has none of the variables, or two have the same.
    """
    self._assign_groups(variables)
    if not hasattr(self, "step"):
      self.step = _state(0, "global_step", tf.int64)
    for variable in variables:
      if variable.name not in self.slots:
        zeros = tf.zeros(variable.shape, variable.dtype)
        name = variable.name.partition(":")[0]
        self.slots[variable.name] = {
          key: _state(zeros, f"{name}/{end}")
          for key, end in self._state_names.items()
        }

  def _assign_groups(self, variables: Sequence[tf.Variable]) -> None:
    """Sets which group each variable belongs to."""
    assigned: dict[str, str] = {}
    for name, group in self._groups.items():
      members = [v.name for v in variables if group.has(v)]
      if not members:
        scopes = sorted({v.name.partition("/")[0] for v in variables})
        raise ConfigError(
          f"optimizer.groups.{name}: match={group.match!r} is in no name of a "
          f"variable; names begin with {', '.join(scopes) or '(none)'}"
        )
      for member in members:
        if member in assigned:
          raise ConfigError(
            f"optimizer.groups: {member} is in both {assigned[member]} and "
            f"{name}; set a `match` that only one of them has"
          )
        assigned[member] = name
    self._group_of = assigned

  def reset(self) -> None:
    """Resets all state except `step`."""
    for slot in self.slots.values():
      for state in slot.values():
        state.assign(tf.zeros_like(state))

  def learn_rate(self) -> tf.Tensor:
    """The learning rate of the next step, scalar float32.

    With groups, that of the variables outside of them.
    """
    return self._schedule(self._step_or_zero())

  def group_learn_rates(self) -> dict[str, tf.Tensor]:
    """{name: learning rate of the next step, scalar float32} of the groups."""
    step = self._step_or_zero()
    return {name: g.schedule(step) for name, g in self._groups.items()}

  def _step_or_zero(self) -> tf.Tensor | tf.Variable:
    return getattr(self, "step", tf.constant(0))

  def clip(
    self, gradients: Sequence[tf.Tensor | None], global_norm: tf.Tensor
  ) -> list[tf.Tensor | None]:
    """Scales all gradients by one factor, by the rule of the attributes.

    Args:
      gradients: dense float32 tensors, or None.
      global_norm: [] float32, their common 2-norm.

    Returns:
      The clipped gradients.
    """
    if self.clip_norm is None:
      return list(gradients)
    if self.clip_norm_type == 2 and not self.clip_epsilon:
      clipped, _ = tf.clip_by_global_norm(
        gradients, self.clip_norm, use_norm=global_norm
      )
      return clipped
    norm = global_norm
    if self.clip_norm_type == "inf":
      present = [g for g in gradients if g is not None]
      norm = tf.reduce_max([tf.reduce_max(tf.abs(g)) for g in present])
    factor = tf.minimum(1.0, self.clip_norm / (norm + self.clip_epsilon))
    return [g if g is None else g * factor for g in gradients]

  def apply(
    self,
    gradients: Sequence[tf.Tensor | None],
    variables: Sequence[tf.Variable],
  ) -> None:
    """Takes one step; variables without a gradient stay unchanged.

    Call `initialize` with the variables first.
    """
    learn_rate, group_rates = self.learn_rate(), self.group_learn_rates()
    for gradient, variable in zip(gradients, variables, strict=True):
      if gradient is None:
        continue
      if variable.name not in self.slots:
        raise ValueError(
          f"{variable.name} was created after the optimizer's state: call "
          f"`initialize` with all that the data will have, factors included"
        )
      group = self._group_of.get(variable.name)
      self._apply(
        gradient,
        variable,
        self.slots[variable.name],
        learn_rate if group is None else group_rates[group],
      )
    self.step.assign_add(1)


class Adam(Optimizer):
  """Adam as TF1 computes it, with TF1's state.

  lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t), w -= lr_t m / (sqrt(v) + eps).
  As in TF1, the powers are variables, multiplied at each step: their float32
  rounding, including the underflow of beta1_power, is part of a checkpoint.

  In TF1 checkpoints, `step` is called `global_step`; `slots` holds the moments
  "m" and "v".
  """

  _state_names: Mapping[str, str] = {"m": "Adam", "v": "Adam_1"}

  def __init__(
    self,
    learning_rate: float | Schedule = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    clip_norm: float | None = CLIP_NORM,
    name: str = "Adam",
    *,
    epsilon_form: str = "tensorflow",
    clip_norm_type: int | str = 2,
    clip_epsilon: float = 0.0,
    groups: Mapping[str, Group] | None = None,
  ):
    """Makes an optimizer without state.

    Args:
      learning_rate: a number above 0, or a schedule.
      beta1: decay of the first moment, in [0, 1).
      beta2: decay of the second moment, in [0, 1).
      epsilon: added to the root of the second moment, above 0.
      clip_norm: see `Optimizer`, above 0 or None.
      name: name of the module; accepted for plans of the TF1 reference.
      epsilon_form: what epsilon is added to: "tensorflow", also Keras', the
        root of the moment as it is, or "pytorch", also optax', that of the
        moment divided by 1 - beta2^t.
      clip_norm_type: see `Optimizer`.
      clip_epsilon: see `Optimizer`, in [0, 1).
      groups: see `Optimizer`.

    Raises:
      ValueError: for values out of range.
    """
    if not isinstance(learning_rate, Schedule):
      checks.check(checks.above_zero_fault("learning_rate", learning_rate))
    super().__init__(
      learning_rate, clip_norm, clip_norm_type, clip_epsilon, groups, name
    )
    checks.check(
      checks.share_fault("beta1", beta1),
      checks.share_fault("beta2", beta2),
      checks.above_zero_fault("epsilon", epsilon),
      checks.choice_fault("epsilon_form", epsilon_form, _EPSILON_FORMS),
    )
    self._beta1, self._beta2 = beta1, beta2
    self._epsilon, self._epsilon_form = epsilon, epsilon_form

  def initialize(self, variables: Sequence[tf.Variable]) -> None:
    """Creates counters and any missing moments, see `Optimizer.initialize`."""
    super().initialize(variables)
    if not hasattr(self, "beta1_power"):
      self.beta1_power = _state(self._beta1, "beta1_power")
      self.beta2_power = _state(self._beta2, "beta2_power")

  def reset(self) -> None:
    """Resets moments and powers, see `Optimizer.reset`."""
    super().reset()
    self.beta1_power.assign(self._beta1)
    self.beta2_power.assign(self._beta2)

  def apply(
    self,
    gradients: Sequence[tf.Tensor | None],
    variables: Sequence[tf.Variable],
  ) -> None:
    """Takes one step, see `Optimizer.apply`."""
    super().apply(gradients, variables)
    self.beta1_power.assign(self.beta1_power * self._beta1)
    self.beta2_power.assign(self.beta2_power * self._beta2)

  def _apply(
    self,
    gradient: tf.Tensor,
    variable: tf.Variable,
    state: Mapping[str, tf.Variable],
    learn_rate: tf.Tensor,
  ) -> None:
    epsilon = self._epsilon
    if self._epsilon_form == "pytorch":
      # The kernel adds it to the other root; there, it is equivalent to this.
      epsilon *= tf.sqrt(1.0 - self.beta2_power)
    tf.raw_ops.ResourceApplyAdam(
      var=variable.handle,
      m=state["m"].handle,
      v=state["v"].handle,
      beta1_power=self.beta1_power,
      beta2_power=self.beta2_power,
      lr=learn_rate,
      beta1=self._beta1,
      beta2=self._beta2,
      epsilon=epsilon,
      grad=gradient,
    )


class RMSprop(Optimizer):
  """RMSprop as PyTorch computes it, without momentum and not centred.

  v = decay v + (1 - decay) g^2, w -= lr g / (sqrt(v) + epsilon), from v = 0 and
  without correcting that: the first step is lr / sqrt(1 - decay) long. TF's
  kernel adds epsilon to v. `slots` holds the mean square "v".
  """

  _state_names: Mapping[str, str] = {"v": "RMSProp"}

  def __init__(
    self,
    learn_rate: float | Schedule = 0.01,
    decay: float = 0.99,
    epsilon: float = 1e-8,
    clip_norm: float | None = CLIP_NORM,
    name: str = "RMSProp",
    *,
    clip_norm_type: int | str = 2,
    clip_epsilon: float = 0.0,
    groups: Mapping[str, Group] | None = None,
  ):
    """Makes an optimizer without state.

    Args:
      learn_rate: a number above 0, or a schedule.
      decay: of the mean square, in [0, 1); PyTorch's alpha.
      epsilon: added to the root of the mean square, above 0.
      clip_norm: see `Optimizer`, above 0 or None.
      name: name of the module.
      clip_norm_type: see `Optimizer`.
      clip_epsilon: see `Optimizer`, in [0, 1).
      groups: see `Optimizer`.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(
      learn_rate, clip_norm, clip_norm_type, clip_epsilon, groups, name
    )
    checks.check(
      checks.share_fault("decay", decay),
      checks.above_zero_fault("epsilon", epsilon),
    )
    self._decay, self._epsilon = decay, epsilon

  def _apply(
    self,
    gradient: tf.Tensor,
    variable: tf.Variable,
    state: Mapping[str, tf.Variable],
    learn_rate: tf.Tensor,
  ) -> None:
    square = self._decay * state["v"] + (1.0 - self._decay) * tf.square(
      gradient
    )
    state["v"].assign(square)
    variable.assign_sub(
      learn_rate * gradient / (tf.sqrt(square) + self._epsilon)
    )


def _state(value: Any, name: str, dtype: tf.DType = tf.float32) -> tf.Variable:
  """A variable of the optimizer, named as in TF1 checkpoints."""
  with tf.name_scope(""):  # regardless of the current scope
    return tf.Variable(value, dtype=dtype, trainable=False, name=name)


def make_optimizer(
  learn_rate: float,
  beta1: float = 0.95,
  beta2: float = 0.999,
  epsilon: float = 1e-8,
  decay_steps: float | None = 1_000_000,
  decay_rate: float = 0.1,
  clip_norm: float | None = CLIP_NORM,
  *,
  warmup_steps: float = 0,
  warmup_from_zero: bool = True,
  decay_after_warmup: bool = False,
  cosine_steps: float | None = None,
  cosine_alpha: float = 0.0,
  epsilon_form: str = "tensorflow",
  clip_norm_type: int | str = 2,
  clip_epsilon: float = 0.0,
  groups: Mapping[str, Mapping[str, Any]] | None = None,
) -> Adam:
  """Makes Adam; by default the paper's (reference: configurations.py:121-133).

  Args:
    learn_rate: see `Schedule`.
    beta1: decay of the first moment.
    beta2: decay of the second moment.
    epsilon: added to the root of the second moment, see epsilon_form.
    decay_steps: see `Schedule`; None: no exponential decay.
    decay_rate: see `Schedule`.
    clip_norm: norm to which all gradients together are clipped; None: no
      clipping.
    warmup_steps: see `Schedule`.
    warmup_from_zero: see `Schedule`.
    decay_after_warmup: see `Schedule`.
    cosine_steps: see `Schedule`; decay_steps must be None then.
    cosine_alpha: see `Schedule`.
    epsilon_form: "tensorflow" or "pytorch", see `Adam`.
    clip_norm_type: 2 or "inf", see `Optimizer`.
    clip_epsilon: see `Optimizer`.
    groups: {name: entries}, variables with a learning rate of their own. The
      entries are those of `Schedule`, each by default as above, and `match`, a
      regular expression that is searched for in the names of variables, by
      default the group's name. Clipping is over all variables together.

  Returns:
    The optimizer.

  Raises:
    ValueError: for values out of range, or unknown entries of a group.

  Example:
    >>> make_optimizer(  # SLATE
    ...   1e-4, beta1=0.9, epsilon_form="pytorch", decay_steps=None,
    ...   warmup_steps=30_000, warmup_from_zero=False,
    ...   clip_norm=1.0, clip_norm_type="inf", clip_epsilon=1e-6,
    ...   groups={"dvae": {"learn_rate": 3e-4, "warmup_steps": 0}})
  """
  schedule: dict[str, Any] = {
    "learn_rate": learn_rate,
    "warmup_steps": warmup_steps,
    "warmup_from_zero": warmup_from_zero,
    "decay_after_warmup": decay_after_warmup,
    "decay_steps": decay_steps,
    "decay_rate": decay_rate,
    "cosine_steps": cosine_steps,
    "cosine_alpha": cosine_alpha,
  }
  return Adam(
    Schedule(**schedule),
    beta1,
    beta2,
    epsilon,
    clip_norm,
    epsilon_form=epsilon_form,
    clip_norm_type=clip_norm_type,
    clip_epsilon=clip_epsilon,
    groups=_groups(groups, schedule),
  )


def _groups(
  groups: Mapping[str, Mapping[str, Any]] | None, schedule: Mapping[str, Any]
) -> dict[str, Group]:
  """Makes groups of the entries of a plan.

  Args:
    groups: see `make_optimizer`.
    schedule: what a group's schedule has where its own entries say nothing.
  """
  if groups is not None and not isinstance(groups, Mapping):
    raise ValueError(f"groups={groups!r}: expected a mapping of groups")
  made = {}
  for name, entries in (groups or {}).items():
    if not isinstance(entries, Mapping):
      raise ValueError(f"groups.{name}={entries!r}: expected a mapping")
    if unknown := sorted(set(entries) - {"match", *schedule}):
      meant = did_you_mean(unknown[0], ["match", *schedule], "keys")
      raise ValueError(
        f"groups.{name}.{unknown[0]}={entries[unknown[0]]!r}: unknown key. "
        f"{meant}"
      )
    own = {**schedule, **entries}
    match = own.pop("match", name)
    try:
      re.compile(match)
    except (re.error, TypeError) as error:
      raise ValueError(
        f"groups.{name}.match={match!r}: expected a regular expression "
        f"({error})"
      ) from error
    try:
      made[name] = Group(match, Schedule(**own))
    except ValueError as error:
      raise ValueError(f"groups.{name}: {error}") from error
  return made
