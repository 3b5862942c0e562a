"""Standard output and error, and the log that goes there."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from iodine.errors import RunError

__all__ = [
  "Handler",
  "Recorded",
  "checked_output",
  "columns",
  "error",
  "keep",
  "paint",
  "program",
  "terminal",
]

_STYLES = {"red": 31, "yellow": 33, "blue": 34, "bold": 1, "faint": 2}
_LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


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


def paint(text: str, style: str, stream: TextIO) -> str:
  """Text in a colour if it goes to a terminal, and NO_COLOR is not set.

  Args:
    text: a part of a line.
    style: red, yellow, blue, bold or faint.
    stream: where the text goes.
  """
  is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
  if is_plain or not stream.isatty():
    return text
  return f"\033[{_STYLES[style]}m{text}\033[0m"


def error(name: str) -> str:
  """The name of an error for standard error, red on a terminal."""
  return paint(name, "red", sys.stderr)


def columns() -> int:
  """The width of the terminal: $COLUMNS, or 80 where there is none."""
  return shutil.get_terminal_size().columns


def program() -> str:
  """The words that start this program."""
  is_installed = pathlib.Path(sys.argv[0]).name == "iodine"
  return "iodine" if is_installed else "python -m iodine.main"


class Handler(logging.StreamHandler):
  """Logs to what is standard error at the moment, above a progress bar.

  On a terminal, the levels from WARNING on have colours, which are not kept.
  """

  def emit(self, record: logging.LogRecord) -> None:
    """Writes a line."""
    screen = terminal()
    if screen is None:
      self.stream = sys.stderr
      super().emit(record)
      return
    import tqdm  # which takes a while

    self.stream = screen
    with tqdm.tqdm.external_write_mode(file=screen):
      super().emit(record)
    keep(super().format(record))

  def format(self, record: logging.LogRecord) -> str:
    """Makes a line, for the stream that it goes to."""
    text, level = super().format(record), record.levelname
    if level not in _LEVELS:
      return text
    return text.replace(level, paint(level, _LEVELS[level], self.stream), 1)


class _Output:
  """A stream whose errors no code takes for errors of its own files.

  Where nobody reads it any more, the work goes on, and the rest is dropped.
  """

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> int:
    """Writes to the stream."""
    with _explained(self._stream):
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Flushes the stream."""
    with _explained(self._stream):
      self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


@contextlib.contextmanager
def _explained(stream: TextIO) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    with contextlib.suppress(OSError):  # what is buffered has to go somewhere
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, stream.fileno())
      os.close(nowhere)
    if not isinstance(error, BrokenPipeError):
      raise RunError(
        f"standard output cannot be written: {error.strerror}"
      ) from error


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
  """Tells errors of standard output from those of files; flushes it.

  Standard streams that are closed lead to nowhere, so that no file gets what is
  written to their descriptors.

  Raises:
    RunError: if standard output cannot be written, unless nobody reads it.
  """
  for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, mode))
  stream = sys.stdout
  sys.stdout = _Output(stream)  # type: ignore[assignment]
  try:
    yield
  finally:
    try:
      sys.stdout.flush()
    finally:
      sys.stdout = stream
