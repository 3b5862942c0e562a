"""Progress of long work: a bar on a terminal, log lines elsewhere."""

import contextlib
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

__all__ = ["progress"]

_LOG = logging.getLogger(__name__)

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


class TrainingProgress:
  """A bar on a terminal, else log lines; means between two reports."""

  def __init__(self, step: int, stop: int, batch_size: int):
    self._stop = stop
    self._batch_size = batch_size
    self._bar = tqdm.tqdm(
      total=stop,
      initial=step,
      unit="step",
      dynamic_ncols=True,
      disable=not sys.stderr.isatty(),
    )
    self._values: dict[str, list[float]] = {"loss": [], "ari": []}
    self._start: tuple[float, int] | None = None

  def __enter__(self) -> "TrainingProgress":
    self._redirect: contextlib.AbstractContextManager = contextlib.nullcontext()
    if not self._bar.disable:
      self._redirect = logging_redirect_tqdm()
    self._redirect.__enter__()
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self._redirect.__exit__(*exc_info)
    self._bar.close()

  def advance(self, step: int, values: Mapping[str, float]) -> None:
    """Counts a step."""
    if self._start is None:  # the first step also compiles
      self._start = (time.perf_counter(), step)
    self._values["loss"].append(values["loss/total"])
    ari = values.get("loss/ari_nobg", math.nan)
    if not math.isnan(ari):  # of a batch without objects or masks
      self._values["ari"].append(ari)
    self._bar.update()

  def report(self, step: int) -> dict[str, float]:
    """Shows and returns the means since the last report."""
    means = {k: statistics.fmean(v) for k, v in self._values.items() if v}
    self._values = {k: [] for k in self._values}
    assert self._start is not None
    begin, first = self._start
    rate = (step - first) / max(time.perf_counter() - begin, 1e-9)
    words = [f"loss {means['loss']:.2f}"] if "loss" in means else []
    if "ari" in means:
      words.append(f"ARI-nobg {means['ari']:.3f}")
    if rate > 0:
      words.append(f"{rate * self._batch_size:.1f} img/s")
    self._bar.set_postfix_str(", ".join(words))
    if self._bar.disable:
      left = (
        tqdm.tqdm.format_interval((self._stop - step) / rate) if rate else "?"
      )
      _LOG.info(
        "step %d/%d  %s  ETA %s", step, self._stop, "  ".join(words), left
      )
    return means
