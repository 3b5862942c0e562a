"""Progress of long work: a bar on a terminal, log lines elsewhere."""

import contextlib
import logging
import time
from collections.abc import Iterator

import tqdm

from iodine import console, signals

__all__ = ["Progress", "progress"]

_LOG_INTERVAL = 10.0  # seconds between two lines where there is no terminal


@contextlib.contextmanager
def progress(
  total: int | None,
  unit: str,
  logger: logging.Logger,
  *,
  done: int = 0,
  counts_are_logged: bool = True,
  first_compiles: bool = False,
) -> Iterator["Progress"]:
  """Shows count, rate and time left.

  ```
  with progress(1000, "scenes", logger) as update:
    for batch in batches:
      update(len(batch))
  ```

  Args:
    total: count at the end, roughly; None if it is unknown.
    unit: what is counted, in the plural.
    logger: takes the lines where there is no terminal.
    done: count at the start.
    counts_are_logged: whether a line tells of the count every ten seconds;
      else the lines are those of `Progress.show` alone.
    first_compiles: whether the first update takes much longer than the others,
      and is left out of the rate.

  Yields:
    What to call with the number of things done since the last call.
  """
  screen = console.terminal()
  with tqdm.tqdm(
    total=total,
    initial=done,
    unit=f" {unit}",
    file=screen,
    dynamic_ncols=True,
    disable=screen is None,
  ) as bar:
    yield Progress(bar, unit, logger, counts_are_logged, first_compiles)


class Progress:
  """Counts what is done; made by `progress`, which says what it shows."""

  def __init__(
    self,
    bar: tqdm.tqdm,
    unit: str,
    logger: logging.Logger,
    counts_are_logged: bool,
    first_compiles: bool,
  ):
    self._bar = bar
    self._unit = unit
    self._logger = logger
    self._counts_are_logged = counts_are_logged
    self._first_compiles = first_compiles
    self._count = self._first = bar.n
    self._start = self._last_line = time.monotonic()

  def __call__(self, new: int = 1) -> None:
    """Counts `new` more.

    Raises:
      Interrupted: if a signal came and its exception was lost.
    """
    signals.check()
    self._count += new
    self._bar.update(new)
    now = time.monotonic()
    if self._first_compiles:
      self._first_compiles = False
      self._first, self._start = self._count, now
    is_due = now - self._last_line >= _LOG_INTERVAL
    is_done = self._count == self._bar.total
    if self._counts_are_logged and self._bar.disable and is_due and not is_done:
      self._last_line = now
      self._logger.info(self._line())

  def show(self, line: str, beside_bar: str) -> None:
    """Shows what has come of the work.

    Args:
      line: for the log where there is no terminal, and for a run's record.
      beside_bar: the same for a terminal, whose bar shows count and time.
    """
    if self._bar.disable:
      self._logger.info("%s", line)
    else:
      self._bar.set_postfix_str(beside_bar)
      console.keep(line)

  @property
  def rate(self) -> float:
    """Count per second; 0 while nothing counts for it."""
    seconds = time.monotonic() - self._start
    return (self._count - self._first) / max(seconds, 1e-9)

  @property
  def seconds_left(self) -> float | None:
    """At the rate so far; None if it is unknown."""
    if self._bar.total is None or not self.rate:
      return None
    return (self._bar.total - self._count) / self.rate

  @property
  def time_left(self) -> str:
    """Such as "03:20", or "1:02:03" from an hour on; "?" if it is unknown."""
    left = self.seconds_left
    return "?" if left is None else tqdm.tqdm.format_interval(left)

  def _line(self) -> str:
    count, total = f"{self._count:,}", self._bar.total
    is_under_total = total is not None and total > self._count
    if is_under_total:
      count += f" of {total:,}"
    line = f"{count} {self._unit}, {self.rate:.1f} {self._unit}/s"
    return f"{line}, {self.time_left} left" if is_under_total else line
