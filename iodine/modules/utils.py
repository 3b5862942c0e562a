"""Building modules from plans, look-up tables, coordinates, running moments."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf
import tensorflow_probability as tfp

__all__ = [
  "ACT_FUNCS",
  "ALLOWED_CONSTRUCTORS",
  "ConfigError",
  "DISTS",
  "OnlineMeanVarEstimator",
  "PRECISIONS",
  "build",
  "coordinate_channels",
  "did_you_mean",
  "get_act_func",
  "get_distribution",
  "static_shape",
]

tfd = tfp.distributions


def _softmax(logits: tf.Tensor) -> tf.Tensor:
  """Softmax over the last axis, of any rank: CPU kernels take 5 at most."""
  rows = tf.reshape(logits, [-1, logits.shape[-1]])
  return tf.reshape(tf.nn.softmax(rows), tf.shape(logits))


ACT_FUNCS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
  "identity": tf.identity,
  "sigmoid": tf.nn.sigmoid,
  "tanh": tf.nn.tanh,
  "relu": tf.nn.relu,
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

# What a plan may name beside the public classes of `iodine.modules`:
# {name in a plan: dotted path of what is called}. The plans of the TF1
# reference name TF1's optimizer in either of two spellings.
ALLOWED_CONSTRUCTORS: dict[str, str] = {
  "iodine.training.make_optimizer": "iodine.training.make_optimizer",
  **{
    f"{prefix}.train.{name}": f"iodine.training.{target}"
    for prefix in ("tensorflow", "tensorflow.compat.v1")
    for name, target in (
      ("AdamOptimizer", "Adam"),
      ("exponential_decay", "ExponentialDecay"),
      ("get_or_create_global_step", "global_step_of_optimizer"),
    )
  },
}


# What convolutions may compute in.
PRECISIONS = ("float32", "bfloat16")


class ConfigError(ValueError):
  """A mistake in a configuration; its text is for the user."""


def did_you_mean(
  word: str, choices: Iterable[str], kind: str = "choices"
) -> str:
  """Returns "Did you mean 'x'? Valid <kind>: ..." for an unknown word."""
  choices = sorted(choices)
  lower = {choice.lower(): choice for choice in choices}
  near = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
  hint = f"Did you mean {lower[near[0]]!r}? " if near else ""
  return f"{hint}Valid {kind}: {', '.join(choices) or '(none)'}"


def get_act_func(name_or_func: str | Callable | None) -> Callable:
  """Returns the activation of that name; a callable as it is; None: identity.

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
  """Returns the TFP distribution class of that name; a class as it is.

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


def static_shape(
  name: str, tensor: tf.Tensor, expected: Sequence[Any]
) -> list[Any]:
  """Checks a tensor's static shape at a module's door.

  Args:
    name: what the tensor is called in the error.
    tensor: any tensor of known rank; unknown dimensions fit anything.
    expected: one entry per dimension: a size that must match, or a dimension's
      letter (or None) that fits any size.

  Returns:
    The static shape, a list with None for what is unknown.

  Raises:
    ValueError: naming the tensor, its shape and the expected one.
  """
  shape = [] if tensor.shape.rank is None else tensor.shape.as_list()
  fits = len(shape) == len(expected)
  fits = fits and all(
    not isinstance(want, int) or have is None or have == want
    for have, want in zip(shape, expected, strict=True)
  )
  if not fits:
    wanted = ", ".join("*" if e is None else str(e) for e in expected)
    raise ValueError(
      f"{name}: expected shape [{wanted}], got {tensor.shape} "
      f"({tensor.dtype.name})"
    )
  return shape


def coordinate_channels(
  height: int,
  width: int,
  coord_type: str | None,
  coord_freqs: int = 3,
  order: str = "hw",
) -> np.ndarray:
  """Channels that tell a convolution where it is.

  Args:
    height: H, in pixels.
    width: W, in pixels.
    coord_type: "linear": two channels that run from -1 to 1 along H and W;
      "cos": products of cosines of 0 to coord_freqs - 1 half waves along both
      axes, the constant one left out; None: no channels.
    coord_freqs: F, number of frequencies per axis for "cos".
    order: of the linear channels, "hw" (reference's decoder,
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
    check_positive_int("coord_freqs", coord_freqs)
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


def check_positive_int(name: str, value: Any) -> None:
  """Raises ValueError unless value is an integer of at least 1."""
  if isinstance(value, bool) or not isinstance(value, int | np.integer):
    raise ValueError(f"{name}={value!r}: must be a positive integer")
  if value < 1:
    raise ValueError(f"{name}={value!r}: must be at least 1")


def check_module(name: str, value: Any) -> None:
  """Raises ValueError unless value can be called, as a plan's modules can."""
  if not callable(value):
    raise ValueError(
      f"{name}={value!r}: must be a module; is its 'constructor' missing?"
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
    """Constructor.

    Args:
      axis: the axes to reduce over; None: all.
      ddof: subtracted from the sum of weights in the variance.
      name: of the module.
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
    """Takes x into account and returns the estimates.

    Args:
      x: [...] float32.
      weights: broadcastable to x, at least 0; None: ones.
      update: False leaves the variables alone.

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

  @snt.once
  def _initialize(self, x: tf.Tensor) -> None:
    axes = range(x.shape.rank) if self._axis is None else self._axis
    reduced = {axis % x.shape.rank for axis in axes}
    shape = [s for i, s in enumerate(x.shape) if i not in reduced]
    zeros = tf.zeros(shape, x.dtype)
    self.total = tf.Variable(zeros, trainable=False, name="total")
    self.mean = tf.Variable(zeros, trainable=False, name="mean")
    self.m2 = tf.Variable(zeros, trainable=False, name="M2")


def build(plan: Any, identifier: str) -> Any:
  """Builds what a plan describes, afresh at every call; changes no plan.

  A plan is data. A mapping with a `constructor` entry (a dotted name) becomes
  a call of it with the other entries, themselves built, as keyword arguments.
  Other mappings are built entry by entry, and any other value is kept.

  Every constructor is called in the name scope of its key in the plan, so that
  variables get the names that they have in checkpoints of the TF1 reference:
  `<nearest key>/<module's name>/...`.

  Args:
    plan: nested mappings, lists and scalars (reference:
      configurations.py). A constructor must be a public class of a module
      under `iodine.modules`, or a name in `ALLOWED_CONSTRUCTORS`.
    identifier: the plan's own key, e.g. "model".

  Returns:
    The built object.

  Raises:
    ConfigError: lists every fault of the plan: unknown constructors and keys,
      missing keys, and values that a constructor rejects.
  """
  faults: list[str] = []
  built = _build(plan, identifier, identifier, faults)
  if faults:
    raise ConfigError("\n".join(faults))
  return built


def _build(plan: Any, key: str, path: str, faults: list[str]) -> Any:
  if isinstance(plan, list | tuple):
    return [_plain(item) for item in plan]
  if not isinstance(plan, Mapping):
    return plan
  before = len(faults)
  constructor = None
  if "constructor" in plan:
    constructor = _resolve_constructor(plan["constructor"], path, faults)
    if constructor is not None:
      _check_keys(constructor, plan, path, faults)
  entries = {
    k: _build(v, k, f"{path}.{k}", faults)
    for k, v in plan.items()
    if k != "constructor"
  }
  if "constructor" not in plan:
    return entries
  if len(faults) > before or constructor is None:
    return None
  try:
    # An absolute scope: neither the caller's scope nor outer keys count.
    with tf.name_scope(f"{key}/"):
      return constructor(**entries)
  except (ValueError, TypeError, AttributeError) as error:
    faults.append(f"{path}: {error}")
    return None


def _plain(value: Any) -> Any:
  """Copies nested containers into plain lists and dicts."""
  if isinstance(value, Mapping):
    return {k: _plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(v) for v in value]
  return value


def _resolve_constructor(
  name: Any, path: str, faults: list[str]
) -> Callable | None:
  """Returns what a plan's constructor entry names, or None with a fault."""
  if callable(name):
    return name
  if isinstance(name, str) and name in ALLOWED_CONSTRUCTORS:
    module_name, _, attribute = ALLOWED_CONSTRUCTORS[name].rpartition(".")
    return getattr(importlib.import_module(module_name), attribute)
  module_name, _, attribute = str(name).rpartition(".")
  package = f"{__package__}."
  if not module_name.startswith(package):
    faults.append(
      f"{path}.constructor={name!r}: not allowed. A constructor is a public "
      f"class under {package[:-1]}, or one of: "
      f"{', '.join(sorted(ALLOWED_CONSTRUCTORS))}"
    )
    return None
  try:
    module = importlib.import_module(module_name)
  except ModuleNotFoundError:
    faults.append(
      f"{path}.constructor={name!r}: there is no module {module_name}. "
      + did_you_mean(module_name, _public_modules(), "modules")
    )
    return None
  classes = [
    n
    for n in getattr(module, "__all__", ())
    if inspect.isclass(getattr(module, n))
  ]
  if attribute not in classes:
    faults.append(
      f"{path}.constructor={name!r}: {module_name} has no class "
      f"{attribute!r}. {did_you_mean(attribute, classes, 'classes')}"
    )
    return None
  return getattr(module, attribute)


def _public_modules() -> list[str]:
  names = ("data", "decoder", "distributions", "factor_eval", "iodine")
  return [f"{__package__}.{n}" for n in (*names, "networks", "refinement")]


def _check_keys(
  constructor: Callable, plan: Mapping, path: str, faults: list[str]
) -> None:
  """Compares a plan's keys with the constructor's parameters."""
  is_class = inspect.isclass(constructor)
  function = constructor.__init__ if is_class else constructor
  parameters = [
    p
    for p in inspect.signature(function).parameters.values()
    if p.name != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
  ]
  keys = [k for k in plan if k != "constructor"]
  names = [p.name for p in parameters]
  called = plan["constructor"]  # by the name that the plan knows it by
  if callable(called):
    called = f"{constructor.__module__}.{constructor.__qualname__}"
  for key in keys:
    if key not in names:
      faults.append(
        f"{path}.{key}={plan[key]!r}: unknown key for {called}. "
        + did_you_mean(key, names, "keys")
      )
  for p in parameters:
    if p.default is p.empty and p.name not in keys:
      faults.append(f"{path}.{p.name}: {called} needs this key")
