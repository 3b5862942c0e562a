"""A trace of some training steps for TensorBoard."""

import iodine.quiet_tensorflow

import contextlib
import logging
import pathlib
from collections.abc import Iterator

import tensorflow as tf

__all__ = ["StepProfiler"]

_LOG = logging.getLogger(__name__)


class StepProfiler:
  """Traces the steps that follow the first one, which also compiles.

  A context manager, which ends the trace early where the steps end early.
  """

  def __init__(self, folder: pathlib.Path | None, num_steps: int = 10):
    """Traces nothing yet.

    Args:
      folder: the run's folder; the trace goes to `plugins/profile` in it. None:
        nothing is traced.
      num_steps: number of steps to trace.
    """
    self._folder = folder
    self._left = 1 + num_steps
    self._is_tracing = False

  def __enter__(self) -> "StepProfiler":
    return self

  def __exit__(self, *exc_info: object) -> None:
    self._stop()

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Surrounds a training step.

    Args:
      number: the optimizer's step that it is, counted from 1.
    """
    if self._is_tracing:
      with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
        yield
    else:
      yield
    self._left -= 1
    if self._left == 0:
      self._stop()
    elif self._left > 0 and self._folder is not None and not self._is_tracing:
      tf.profiler.experimental.start(str(self._folder))
      self._is_tracing = True

  def _stop(self) -> None:
    if self._is_tracing:
      self._is_tracing = False
      tf.profiler.experimental.stop()
      _LOG.info(
        "Traced some steps: `tensorboard --logdir %s`, with the package "
        "tensorboard-plugin-profile, shows them",
        self._folder,
      )
