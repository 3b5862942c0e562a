"""Progress of long work: a bar on a terminal, log lines elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

__all__ = ["progress"]

_LOG_INTERVAL = 10.0  # Seconds between two lines where there is no terminal.


@contextlib.contextmanager
def progress(
  total: int | None, unit: str, logger: logging.Logger
) -> Iterator[Callable[[int], object]]:
  """Shows count, rate and time left.

  Args:
    total: How many there are to be, about; None: that is unknown.
    unit: What is counted, in the plural.
    logger: Of the lines.

  Yields:
    A function that takes how many came since its last call.
  """
  if sys.stderr.isatty():
    bar = tqdm.tqdm(total=total, unit=f" {unit}", dynamic_ncols=True)
    with logging_redirect_tqdm(), bar:
      yield bar.update
    return

  start = last = time.monotonic()
  count = 0

  def update(new: int) -> None:
    nonlocal last, count
    count += new
    now = time.monotonic()
    if now - last < _LOG_INTERVAL or count == total:
      return
    last = now
    rate = count / (now - start)
    words = [f"{count:,} {unit}", f"{rate:.1f} {unit}/s"]
    if total is not None and total > count:
      words[0] = f"{count:,} of {total:,} {unit}"
      words.append(f"{tqdm.tqdm.format_interval((total - count) / rate)} left")
    logger.info(", ".join(words))

  yield update
