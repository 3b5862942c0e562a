"""Sets up the devices that compute: their memory, and their arithmetic."""

import iodine.quiet_tensorflow

import contextlib
import pathlib

import tensorflow as tf

from iodine.errors import ConfigError

__all__ = ["check_training", "has_avx512", "set_up"]

_CPUINFO = pathlib.Path("/proc/cpuinfo")


def set_up(precision: str) -> None:
  """Sets up all devices, before TensorFlow computes anything.

  GPUs give memory as it is needed, so that several processes share one.
  TensorFlow's own default is to take all of it. It also multiplies float32 in
  TF32, which has 11 significant bits instead of 24, where a GPU can.

  Args:
    precision: the entry of the configuration; "tf32" allows TF32.
  """
  for gpu in tf.config.list_physical_devices("GPU"):
    # It is in use already, as in a notebook, or divided.
    with contextlib.suppress(RuntimeError, ValueError):
      tf.config.experimental.set_memory_growth(gpu, True)
  tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")


def check_training(precision: str) -> None:
  """Checks that the devices compute right gradients.

  Args:
    precision: the entry of the configuration.

  Raises:
    ConfigError: for "bfloat16" on a processor without AVX-512.
  """
  if precision != "bfloat16" or has_avx512():
    return
  if tf.config.list_physical_devices("GPU"):
    return
  raise ConfigError(
    "precision='bfloat16': this processor has no AVX-512, without which "
    "TensorFlow also sums gradients over pixels in bfloat16, so that they are "
    "wrong. Set precision=float32, or train on a GPU"
  )


def has_avx512() -> bool:
  """Whether the processor has AVX-512; unknown, as on macOS, counts as yes.

  Without it, TensorFlow 2.21 leaves oneDNN out: it then sums gradients of
  bfloat16 in bfloat16, and has none of dilated convolutions.
  """
  return not _CPUINFO.exists() or "avx512f" in _CPUINFO.read_text()
