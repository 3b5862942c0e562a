"""What it costs to decompose images: parameters, time and memory."""

import ctypes
import gc
import pathlib
import re
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import exploration
from iodine.scene_model import SceneModel

__all__ = ["NUM_CALLS", "Cost", "measure"]

NUM_CALLS = 10  # that are timed
_NUM_WARM_UPS = 2  # of which the first compiles


class Cost(NamedTuple):
  """What it costs to decompose images.

  Attributes:
    parameters: number of trainable ones.
    milliseconds: of an image, the median over several batches.
    memory: bytes that the model needed at most, of a batch; None: not known.
  """

  parameters: int
  milliseconds: float
  memory: int | None


def measure(
  model: SceneModel,
  restore: Callable[[], object],
  image: tf.Tensor,
  seed: int,
  on_progress: Callable[[], object] = lambda: None,
) -> Cost:
  """Measures what it costs to decompose a batch.

  The time is that of the compiled `SceneModel.infer`, up to the last step's
  outputs in NumPy, without the first calls. The memory is that of variables,
  compiled graph and batch, without what compiling needs: on a GPU, what
  TensorFlow's allocator counts; elsewhere resident memory of the process, which
  Linux tells.

  Args:
    model: built, without variables.
    restore: creates the model's variables and restores them.
    image: [B, T, H, W, C] float32 in [0, 1].
    seed: of the noise, see `exploration.scene_noise`.
    on_progress: called after each of `NUM_CALLS` timed calls.
  """
  memory = _Memory()
  restore()
  noise = exploration.scene_noise(model, seed, range(len(image)))
  infer = tf.function(
    lambda image, noise: _last_outputs(model, image, noise), autograph=False
  )

  def call() -> float:
    start = time.perf_counter()
    tf.nest.map_structure(lambda tensor: tensor.numpy(), infer(image, noise))
    return time.perf_counter() - start

  for _ in range(_NUM_WARM_UPS):
    call()
  memory.forget_peak()  # else it would count what is kept from call to call
  call()
  most = memory.peak()
  seconds = []
  for _ in range(NUM_CALLS):
    seconds.append(call())
    on_progress()
  return Cost(
    sum(int(np.prod(v.shape)) for v in model.trainable_variables),
    1000 * statistics.median(seconds) / len(image),
    most,
  )


def _last_outputs(
  model: SceneModel, image: tf.Tensor, noise: Any
) -> dict[str, tf.Tensor]:
  outputs = model.infer({"image": image}, noise=noise)["outputs"]
  return {name: value[:, -1] for name, value in outputs.items()}


class _Memory:
  """Memory that is needed beyond what there was when this was made."""

  def __init__(self) -> None:
    self._on_gpu = bool(tf.config.list_logical_devices("GPU"))
    self.forget_peak()
    self._before = self._highest()

  def forget_peak(self) -> None:
    """Frees what is free, and has the peak start from there."""
    gc.collect()
    if self._on_gpu:
      tf.config.experimental.reset_memory_stats("GPU:0")
      return
    _trim()
    try:
      # Linux: the highest resident memory is the present one from now on.
      pathlib.Path("/proc/self/clear_refs").write_text("5")
      self._is_known = True
    except OSError:
      self._is_known = False

  def peak(self) -> int | None:
    """Bytes; None where they are not known."""
    highest = self._highest()
    if highest is None or self._before is None or not self._is_known:
      return None
    return max(highest - self._before, 0)

  def _highest(self) -> int | None:
    if self._on_gpu:
      self._is_known = True
      return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    try:
      status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
      return None
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB", status, re.MULTILINE))
    try:
      # Without libraries, of which more and more is read in.
      return 1024 * (int(kilobytes["VmHWM"]) - int(kilobytes["RssFile"]))
    except KeyError:
      return None


def _trim() -> None:
  """Gives memory that C's allocator keeps for later back to the system."""
  trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
  if trim is not None:
    trim(0)
