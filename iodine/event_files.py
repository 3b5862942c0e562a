"""Scalars of a training run, read from the event files in its folder."""

import pathlib

import numpy as np
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.scalar import metadata
from tensorboard.util import tensor_util

__all__ = ["read_scalars"]

# Of each scalar and each picture; longer ones are thinned out at random.
_MOST_VALUES = 2000


def read_scalars(
  folder: pathlib.Path,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads what training wrote for TensorBoard.

  Of a continued run, steps that were taken twice count as taken last.

  Args:
    folder: of the run.

  Returns:
    {name: (steps [n] int, values [n] float)}, in the order of the steps; empty
    if the folder has no event file.
  """
  if not any(folder.glob("*tfevents*")):
    return {}
  events = event_accumulator.EventAccumulator(
    str(folder), size_guidance={event_accumulator.TENSORS: _MOST_VALUES}
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
