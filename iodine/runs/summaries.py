"""The event files in a run's folder, which TensorBoard shows.

A run writes one each time that it starts or is continued. Which one follows
which is told by a number in its first events rather than by the time in its
name, as clocks may be set back, and differ from machine to machine.
"""

import iodine.quiet_tensorflow

import itertools
import logging
import os
import pathlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore
from tensorboard import data_compat
from tensorboard.plugins.scalar import metadata
from tensorboard.util import tensor_util
from tensorflow.core.util import event_pb2

from iodine.tfrecords import format as tfrecord_format

__all__ = ["open_writer", "read_scalars"]

_LOG = logging.getLogger(__name__)

# Values to read of each scalar; of longer ones, some at equal distances.
_MOST_VALUES = 2000
_HEAD_EVENTS = 3  # among which the mark of a start is
_START = event_pb2.SessionLog.START
_START_TEXT = re.compile(r"start (\d{1,9})")
_NAME = re.compile(r"(.*tfevents\.)(\d{10,})(\..*)")


def read_scalars(
  folder: pathlib.Path,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads the scalars that training wrote for TensorBoard.

  Where a continued run took a step again, its later values count. A warning
  names files that cannot be read to their end.

  Args:
    folder: the run's folder.

  Returns:
    {name: (steps [n] int, values [n] float)}, in the order of the steps; empty
    if the folder has no event file.
  """
  scalars: dict[str, dict[int, float]] = {}
  damaged = []
  for path in _in_order(_event_files(folder)):
    events = _Events(path)
    for event in events:
      if event.session_log.status == _START:  # what comes later is void
        for name, points in scalars.items():
          scalars[name] = {s: v for s, v in points.items() if s < event.step}
      for name, value in _scalars(event):
        scalars.setdefault(name, {})[event.step] = value
    if events.is_damaged:
      damaged.append(str(path))
  if damaged:
    _LOG.warning(
      "Cut off or damaged: %s. The curves lack what follows the damage, up to "
      "where the run was continued",
      ", ".join(damaged),
    )
  return {name: _thinned(points) for name, points in scalars.items() if points}


def open_writer(folder: pathlib.Path, step: int) -> tf.summary.SummaryWriter:
  """Starts an event file, in which a new or continued run goes on.

  Marks what was written for later steps until now as void: TensorBoard then
  drops what a killed run wrote after its last checkpoint. As it reads the files
  in the order of their names, earlier ones that would come later are renamed.

  Args:
    folder: the run's folder, in which no other process writes.
    step: the last step that counts; the run goes on after it.
  """
  earlier = _in_order(_event_files(folder))
  number = 1 + max((_start(path)[0] for path in earlier), default=0)
  writer = tf.summary.create_file_writer(str(folder))
  event = event_pb2.Event(
    wall_time=time.time(),
    step=step + 1,
    session_log=event_pb2.SessionLog(status=_START, msg=f"start {number}"),
  )
  # tf.summary writes nothing but summaries.
  tf.raw_ops.ImportEvent(
    writer=writer._resource, event=event.SerializeToString()
  )
  _put_before(earlier, set(_event_files(folder)) - set(earlier))
  return writer


def _put_before(
  earlier: Sequence[pathlib.Path], new: set[pathlib.Path]
) -> None:
  """Renames event files, given in their order, if they would follow new ones.

  Names hold the second in which a file was begun.
  """
  names = [path.name for path in earlier]
  following = sorted(path.name for path in new)
  if not new or (names == sorted(names) and names[-1:] < following):
    return
  matches = [_NAME.fullmatch(path.name) for path in (*earlier, *new)]
  # Seconds that no name has yet, so that nothing is overwritten.
  first = min(int(match[2]) if match else 0 for match in matches) - len(earlier)
  if first < 0:
    return
  for i, (path, match) in enumerate(zip(earlier, matches, strict=False)):
    if match:
      name = f"{match[1]}{first + i:010}{match[3]}"
      _LOG.info("Renaming %s to %s, to precede the new one", path, name)
      path.rename(path.with_name(name))


def _event_files(folder: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in folder.glob("*tfevents*") if path.is_file()]


def _in_order(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
  """Files in the order in which a run wrote them.

  Those without a number are of earlier versions and come first: by the step
  that they go on from, which grows as a run is continued.
  """
  return sorted(paths, key=lambda path: (*_start(path), path.name))


def _start(path: pathlib.Path) -> tuple[int, int]:
  """Number and first step of the start that an event file tells of; 0, 0."""
  for event in itertools.islice(_Events(path), _HEAD_EVENTS):
    if event.session_log.status == _START:
      match = _START_TEXT.fullmatch(event.session_log.msg)
      return int(match[1]) if match else 0, event.step
  return 0, 0


class _Events:
  """The events in a file, as far as it is whole.

  Attributes:
    is_damaged: whether something follows the last event that was read.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self.is_damaged = False

  def __iter__(self) -> Iterator[event_pb2.Event]:
    self.is_damaged = False
    count = self._count_heads()
    # TensorFlow would take a length for granted, however large.
    records = tf.data.TFRecordDataset(str(self._path)).take(count)
    try:
      for record in records.as_numpy_iterator():
        yield event_pb2.Event.FromString(record)
    except (tf.errors.DataLossError, UnicodeDecodeError, DecodeError):
      self.is_damaged = True

  def _count_heads(self) -> int:
    """Counts the records that are in the file from end to end."""
    with open(self._path, "rb") as file:
      count, end, size = 0, 0, os.fstat(file.fileno()).st_size
      try:
        while end < size:
          file.seek(end)
          head = file.read(tfrecord_format.RECORD_HEAD)
          end += tfrecord_format.record_bytes(head, size - end)
          count += 1
      except tfrecord_format.DamagedStream:
        self.is_damaged = True
    return count


class _Point(NamedTuple):
  name: str
  value: float


def _scalars(event: event_pb2.Event) -> Iterator[_Point]:
  for old in event.summary.value:
    value = data_compat.migrate_value(old)
    kind = value.metadata.plugin_data.plugin_name
    sizes = [dim.size for dim in value.tensor.tensor_shape.dim]
    if kind == metadata.PLUGIN_NAME and all(size == 1 for size in sizes):
      try:
        yield _Point(
          value.tag, float(tensor_util.make_ndarray(value.tensor).item())
        )
      except (TypeError, ValueError):  # no number
        continue


def _thinned(points: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
  steps = np.array(sorted(points))
  if len(steps) > _MOST_VALUES:
    chosen = np.linspace(0, len(steps) - 1, _MOST_VALUES).round().astype(int)
    steps = steps[chosen]
  return steps, np.array([points[step] for step in steps])
