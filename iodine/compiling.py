"""Compiles functions of tensors, by XLA where that is asked for."""

import iodine.quiet_tensorflow

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from iodine.errors import ConfigError

__all__ = ["check_xla", "compiled", "is_for_xla", "xla_errors_explained"]

_IS_FOR_XLA = contextvars.ContextVar("is_for_xla", default=False)
# What XLA raises for what it cannot compile, or has no library for.
_ERRORS = (
  tf.errors.InternalError,
  tf.errors.InvalidArgumentError,
  tf.errors.NotFoundError,
  tf.errors.UnimplementedError,
)
# What its message then has.
_WORDS = ("XLA", "libdevice", "Detected unsupported operations")
_MOST_TOLD = 300  # characters of it


def compiled(
  function: Callable[..., Any], xla: bool = False
) -> Callable[..., Any]:
  """Compiles a function, once for all shapes and types that it is called with.

  Args:
    function: of nested tensors; it creates no variables.
    xla: whether XLA compiles it, as a whole. All shapes must be known then;
      for random numbers, see `iodine.random_numbers`.

  Returns:
    The compiled function.
  """
  if not xla:
    return tf.function(function, autograph=False)

  @functools.wraps(function)
  def traced(*args: Any, **kwargs: Any) -> Any:
    token = _IS_FOR_XLA.set(True)
    try:
      return function(*args, **kwargs)
    finally:
      _IS_FOR_XLA.reset(token)

  return tf.function(traced, autograph=False, jit_compile=True)


def is_for_xla() -> bool:
  """Whether what is traced now is for XLA, which cannot call Python."""
  return _IS_FOR_XLA.get()


def check_xla() -> None:
  """Compiles a few operations, to tell a missing XLA before any work.

  Raises:
    ConfigError: if XLA cannot compile for the device that computes.
  """
  with xla_errors_explained():
    # Its functions of numbers are in a library that a GPU's XLA needs.
    compiled(tf.exp, xla=True)(tf.zeros([2]))


@contextlib.contextmanager
def xla_errors_explained(xla: bool = True) -> Iterator[None]:
  """Raises ConfigError for what XLA cannot compile.

  Args:
    xla: whether XLA is in use; else nothing changes.
  """
  try:
    yield
  except _ERRORS as error:
    message = str(error.message)
    if not xla or not any(word in message for word in _WORDS):
      raise
    told = [line.strip() for line in message.splitlines() if line.strip()]
    shown = next(
      (line for line in told if any(word in line for word in _WORDS)), told[0]
    )
    devices = tf.config.list_physical_devices("GPU")
    raise ConfigError(
      f"xla=True: XLA cannot compile this for the {'GPU' if devices else 'CPU'}"
      f" ({shown[:_MOST_TOLD]}). Set it to False"
    ) from error
