"""The event files in a run's folder, which TensorBoard shows."""

import pathlib
import time

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.plugins.scalar import metadata
from tensorboard.util import tensor_util
from tensorflow.core.util import event_pb2

__all__ = ["read_scalars", "write_restart"]

# Values to read of each scalar; of longer ones, a random choice.
_MOST_VALUES = 2000


def read_scalars(
  folder: pathlib.Path,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads the scalars that training wrote for TensorBoard.

  Where a continued run took a step again, its later values count.

  Args:
    folder: the run's folder.

  Returns:
    {name: (steps [n] int, values [n] float)}, in the order of the steps; empty
    if the folder has no event file.
  """
  if not any(folder.glob("*tfevents*")):
    return {}
  # TensorBoard's own; unlike `event_accumulator`'s, it minds restarts.
  events = plugin_event_accumulator.EventAccumulator(
    str(folder),
    size_guidance={plugin_event_accumulator.TENSORS: _MOST_VALUES},
  )
  events.Reload()
  scalars = {}
  for name in events.Tags()["tensors"]:
    kind = events.SummaryMetadata(name).plugin_data.plugin_name
    if kind != metadata.PLUGIN_NAME:
      continue
    # Later files of a continued run come later, and win.
    points = {
      event.step: tensor_util.make_ndarray(event.tensor_proto).item()
      for event in events.Tensors(name)
    }
    steps = sorted(points)
    scalars[name] = (
      np.array(steps),
      np.array([points[step] for step in steps]),
    )
  return scalars


def write_restart(writer: tf.summary.SummaryWriter, step: int) -> None:
  """Marks a restart: what was written for later steps until now is void.

  TensorBoard then drops what a killed run wrote after its last checkpoint.

  Args:
    writer: comes from `tf.summary.create_file_writer`.
    step: the last step that counts; the run goes on after it.
  """
  event = event_pb2.Event(
    wall_time=time.time(),
    step=step + 1,
    session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
  )
  # tf.summary writes nothing but summaries.
  tf.raw_ops.ImportEvent(
    writer=writer._resource, event=event.SerializeToString()
  )
