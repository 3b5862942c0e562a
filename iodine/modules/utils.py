"""Activations and distributions by name, coordinates, running moments.

Also exports `build` and the errors under the names in the reference (utils.py).
"""

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import sonnet as snt
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import checks
from iodine.config.plans import ALLOWED_CONSTRUCTORS, build
from iodine.errors import ConfigError, did_you_mean

__all__ = [
  "ACT_FUNCS",
  "ALLOWED_CONSTRUCTORS",
  "ConfigError",
  "DISTS",
  "OnlineMeanVarEstimator",
  "build",
  "coordinate_channels",
  "did_you_mean",
  "get_act_func",
  "get_distribution",
]

tfd = tfp.distributions


def _softmax(logits: tf.Tensor) -> tf.Tensor:
  """Softmax over the last axis, for any rank; CPU kernels support at most 5."""
  rows = tf.reshape(logits, [-1, logits.shape[-1]])
  return tf.reshape(tf.nn.softmax(rows), tf.shape(logits))


ACT_FUNCS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
  "identity": tf.identity,
  "sigmoid": tf.nn.sigmoid,
  "tanh": tf.nn.tanh,
  "relu": tf.nn.relu,
  "leaky_relu": lambda x: tf.nn.leaky_relu(x, 0.01),  # PyTorch's slope
  "elu": tf.nn.elu,
  "selu": tf.nn.selu,
  "softplus": tf.nn.softplus,
  "exp": tf.exp,
  "softmax": _softmax,
}

DISTS: dict[str, type] = {
  "normal": tfd.Normal,
  "log_normal": tfd.LogNormal,
  "laplace": tfd.Laplace,
  "logistic": tfd.Logistic,
  "student_t": tfd.StudentT,
}


def get_act_func(name_or_func: str | Callable | None) -> Callable:
  """Returns an activation by name, a callable as is, identity for None.

  Raises:
    ValueError: if the name is unknown.
  """
  if name_or_func is None:
    return tf.identity
  if callable(name_or_func):
    return name_or_func
  name = str(name_or_func).lower()
  if name not in ACT_FUNCS:
    raise ValueError(
      f"unknown activation {name_or_func!r}. {did_you_mean(name, ACT_FUNCS)}"
    )
  return ACT_FUNCS[name]


def get_distribution(name_or_dist: str | type) -> type:
  """Returns a TFP distribution class by name, or a class as is.

  Raises:
    ValueError: if the name is unknown.
  """
  if inspect.isclass(name_or_dist):
    return name_or_dist
  name = str(name_or_dist).lower()
  if name not in DISTS:
    raise ValueError(
      f"unknown distribution {name_or_dist!r}. {did_you_mean(name, DISTS)}"
    )
  return DISTS[name]


def coordinate_channels(
  height: int,
  width: int,
  coord_type: str | None,
  coord_freqs: int = 3,
  order: str = "hw",
) -> np.ndarray:
  """Makes channels that encode pixel positions.

  Args:
    height: H, in pixels.
    width: W, in pixels.
    coord_type: "linear": two channels, from -1 to 1 along H and W; "cos":
      products of cosines with 0 to coord_freqs - 1 half waves along each axis,
      without the constant one; None: no channels.
    coord_freqs: F, number of frequencies per axis for "cos".
    order: order of the linear channels, "hw" (reference's decoder,
      networks.py:242-249) or "xy" (its refinement network, iodine.py:592-597).

  Returns:
    [H, W, 2], [H, W, F * F - 1] or [H, W, 0] float32.

  Raises:
    ValueError: if coord_type is unknown or coord_freqs is not positive.
  """
  if coord_type is None:
    return np.zeros([height, width, 0], np.float32)
  if coord_type == "linear":
    h, w = np.meshgrid(
      np.linspace(-1.0, 1.0, height, dtype=np.float32),
      np.linspace(-1.0, 1.0, width, dtype=np.float32),
      indexing="ij",
    )
    return np.stack([h, w] if order == "hw" else [w, h], axis=-1)
  if coord_type == "cos":
    checks.check(
      checks.size_fault(
        "coord_freqs", coord_freqs, most=checks.MOST_FREQUENCIES
      )
    )
    freqs = np.arange(coord_freqs, dtype=np.float32)
    x = np.linspace(0.0, np.pi, width, dtype=np.float32)
    y = np.linspace(0.0, np.pi, height, dtype=np.float32)
    basis = (
      np.cos(x[:, None] * freqs)[None, :, :, None]
      * np.cos(y[:, None] * freqs)[:, None, None, :]
    )
    return basis.reshape(height, width, -1)[..., 1:]
  raise ValueError(
    f"coord_type={coord_type!r}: must be 'linear', 'cos' or None"
  )


class OnlineMeanVarEstimator(snt.Module):
  """Weighted running mean and variance by Welford's algorithm.

  Variables `total`, `mean` and `M2` have the shape of the input reduced over
  `axis` (reference: utils.py:360-420).
  """

  def __init__(
    self,
    axis: Sequence[int] | None = None,
    ddof: float = 0.0,
    name: str = "online_mean_var",
  ):
    """Makes an estimator without variables; the first call creates them.

    Args:
      axis: axes to reduce over; None: all.
      ddof: subtracted from the sum of weights in the variance.
      name: scope of the variables.
    """
    super().__init__(name=name)
    self._axis = None if axis is None else list(axis)
    self._ddof = ddof

  def __call__(
    self,
    x: tf.Tensor,
    weights: tf.Tensor | None = None,
    update: bool = True,
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Adds x to the estimates and returns them.

    Args:
      x: [...] float32.
      weights: weights >= 0, broadcastable to x; None: ones.
      update: whether to change the variables.

    Returns:
      (mean, variance, sum of weights), each of x's shape reduced over `axis`.
      The variance is NaN until the weights add up to more than `ddof`.
    """
    weights = tf.ones_like(x) if weights is None else weights
    weights = tf.broadcast_to(weights, tf.shape(x))
    sum_weights = tf.reduce_sum(weights, self._axis)
    self._initialize(x)
    if update:
      self.total.assign_add(sum_weights)
      total = tf.convert_to_tensor(self.total)
      delta = (x - self.mean) * weights
      self.mean.assign_add(
        tf.math.divide_no_nan(tf.reduce_sum(delta, self._axis), total)
      )
      self.m2.assign_add(tf.reduce_sum(delta * (x - self.mean), self._axis))
    total = tf.convert_to_tensor(self.total)
    degrees = total - self._ddof
    variance = tf.where(
      degrees > 0, tf.math.divide_no_nan(self.m2, degrees), np.nan
    )
    return tf.convert_to_tensor(self.mean), variance, total

  @property
  def is_initialized(self) -> bool:
    """Whether the variables exist, that is, after the first call."""
    return hasattr(self, "total")

  def state(self) -> list[tf.Tensor]:
    """[total, mean, M2], for `since` and `merge`."""
    variables = (self.total, self.mean, self.m2)
    return [tf.convert_to_tensor(variable) for variable in variables]

  def since(self, before: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Contributions since an earlier `state`, as sums that add over copies.

    They are taken about the earlier mean, which is well-conditioned.
    """
    (total0, mean0, m20), (total, mean, m2) = before, self.state()
    shift = mean - mean0
    return [total - total0, total * shift, m2 - m20 + total * tf.square(shift)]

  def merge(
    self, before: Sequence[tf.Tensor], sums: Sequence[tf.Tensor]
  ) -> None:
    """Merges the contributions of all copies since they were last equal.

    Args:
      before: the common `state` at that time.
      sums: results of `since`, summed over all copies, this one included.
    """
    (total0, mean0, m20), (count, first, second) = before, sums
    total = total0 + count
    shift = tf.math.divide_no_nan(first, total)
    self.total.assign(total)
    self.mean.assign(mean0 + shift)
    self.m2.assign(m20 + second - total * tf.square(shift))

  @snt.once
  def _initialize(self, x: tf.Tensor) -> None:
    axes = range(x.shape.rank) if self._axis is None else self._axis
    reduced = {axis % x.shape.rank for axis in axes}
    shape = [s for i, s in enumerate(x.shape) if i not in reduced]
    zeros = tf.zeros(shape, x.dtype)
    self.total = tf.Variable(zeros, trainable=False, name="total")
    self.mean = tf.Variable(zeros, trainable=False, name="mean")
    self.m2 = tf.Variable(zeros, trainable=False, name="M2")
