"""Standard output and error, and the log that goes there."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

__all__ = ["Handler", "Recorded", "keep", "terminal"]


class Recorded:
  """A stream whose text is kept, too.

  Attributes:
    stream: the stream.
    keep: called with the text.
  """

  def __init__(self, stream: TextIO, keep: Callable[[str], object]):
    self.stream = stream
    self.keep = keep

  def write(self, text: str) -> int:
    """Writes to the stream, and keeps the text."""
    self.keep(text)
    return self.stream.write(text)

  def __getattr__(self, name: str) -> Any:
    return getattr(self.stream, name)


def keep(line: str) -> None:
  """Keeps a line where standard error is recorded, and does not show it."""
  if isinstance(sys.stderr, Recorded):
    sys.stderr.keep(f"{line}\n")


def terminal() -> TextIO | None:
  """Standard error if it is a terminal: what is written there is not kept."""
  stream = sys.stderr
  while isinstance(stream, Recorded):
    stream = stream.stream
  return stream if stream is not None and stream.isatty() else None


class Handler(logging.StreamHandler):
  """Logs to what is standard error at the moment, above a progress bar."""

  def emit(self, record: logging.LogRecord) -> None:
    """Writes a line."""
    self.stream = sys.stderr
    screen = terminal()
    if screen is None:
      super().emit(record)
      return
    import tqdm  # which takes a while

    with tqdm.tqdm.external_write_mode(file=screen):
      super().emit(record)
