"""Walks over the records of a file, from head to head.

TensorFlow reserves, or inflates, as much memory as a record's head asks for. So
every head is looked at before TensorFlow gets there: a walk stays ahead of the
reader. It skips the data of files without compression, and inflates others.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf

from iodine.tfrecords import format as tfrecord_format

__all__ = ["STEP_BYTES", "Walk", "walk_of"]

# A step of a walk covers about this much of a file.
STEP_BYTES = 1 << 20


class Walk:
  """A walk over one version of a file.

  May be shared by threads.

  Attributes:
    count: number of records passed: their heads are fine, and their data are
      there, unchecked.
    end: where the last of them ends, in inflated bytes.
    is_over: whether there is nothing more to pass.
    fault: why there is not, though the file goes on; None: it ends there, or
      the walk is not over.
  """

  def __init__(self, path: str, compression: str):
    """Starts at the first record; opens no file.

    Args:
      path: path of the file.
      compression: compression of the file: "GZIP", "ZLIB" or "".
    """
    self.count = 0
    self.end = 0
    self.is_over = False
    self.fault: str | None = None
    self._lock = threading.Lock()
    if compression:
      self._steps = self._inflate(path, compression)
    else:
      self._steps = self._seek(path)

  def go_on(self, until: Callable[[], bool]) -> None:
    """Goes on until something holds of this walk, or it is over."""
    with self._lock:
      while not (self.is_over or until()):
        self._step()

  def _step(self) -> None:
    self.is_over = True
    try:
      next(self._steps)
    except StopIteration:
      return
    except tfrecord_format.DamagedStream as error:
      self.fault = str(error)
      return
    except (tf.errors.OpError, OSError) as error:
      self.fault = f"the file cannot be read: {error}"
      return
    self.is_over = False

  def _seek(self, path: str) -> Iterator[None]:
    """Seeks from head to head; in between steps, the file is not open."""
    size = tf.io.gfile.stat(path).length
    while self.end < size:
      stop = min(self.end + STEP_BYTES, size)
      with tfrecord_format.open_seekable(path) as file:
        while self.end < stop:
          file.seek(self.end)
          head = file.read(tfrecord_format.RECORD_HEAD)
          self._pass(tfrecord_format.record_bytes(head, size - self.end))
      yield

  def _inflate(self, path: str, compression: str) -> Iterator[None]:
    """Inflates the whole file, and keeps no more than a head of it."""
    begin, head, size = 0, b"", 0  # of the piece; of the record
    for _, piece in tfrecord_format.inflated(path, compression):
      end = begin + len(piece)
      while self.end + len(head) < end:
        if not size:
          start = self.end + len(head) - begin
          stop = start + tfrecord_format.RECORD_HEAD - len(head)
          head += piece[start:stop]
          if len(head) < tfrecord_format.RECORD_HEAD:
            break
          size = tfrecord_format.record_bytes(head)
        if self.end + size > end:
          break
        self._pass(size)
        head, size = b"", 0
      begin = end
      yield
    if head:
      tfrecord_format.record_bytes(b"")  # the file ends within a record

  def _pass(self, size: int) -> None:
    self.count += 1
    self.end += size


def walk_of(path: str, compression: str) -> Walk:
  """Returns the walk over a file as it is now, as far as it has got.

  Args:
    path: path of the file.
    compression: compression of the file: "GZIP", "ZLIB" or "".

  Raises:
    tf.errors.OpError: if there is no such file.
  """
  stat = tf.io.gfile.stat(path)
  return _walk(path, compression, stat.length, stat.mtime_nsec)


@functools.lru_cache(maxsize=1024)
def _walk(path: str, compression: str, length: int, mtime_nsec: int) -> Walk:
  del length, mtime_nsec
  return Walk(path, compression)
