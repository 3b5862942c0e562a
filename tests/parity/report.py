"""Compares what was computed with what was recorded, and prints the result."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

_MOST = 8  # tensors that one line of faults names


class Pair(NamedTuple):
  """A tensor and its record, in the same layout."""

  actual: Any
  expected: Any


# Of a tensor and its record.
Error = Callable[[Any, Any], float]


def relative_error(
  actual: Any, expected: Any, least_norm: float = 1e-30
) -> float:
  """Relative L2 error; infinite where shapes differ or a number is missing.

  Args:
    actual: a tensor.
    expected: its record.
    least_norm: added to the norm that the difference is divided by.
  """
  actual = np.asarray(actual, np.float64)
  expected = np.asarray(expected, np.float64)
  if actual.shape != expected.shape:
    return float("inf")
  difference = np.linalg.norm(actual - expected)
  if not np.isfinite(difference):
    return float("inf")
  return float(difference / (np.linalg.norm(expected) + least_norm))


def largest_difference(actual: Any, expected: Any) -> float:
  """Largest absolute difference; infinite where shapes differ."""
  actual = np.asarray(actual, np.float64)
  expected = np.asarray(expected, np.float64)
  if actual.shape != expected.shape:
    return float("inf")
  difference = np.max(np.abs(actual - expected), initial=0.0)
  return float(difference) if np.isfinite(difference) else float("inf")


class Comparison(NamedTuple):
  """A recorded array that was compared."""

  group: str
  key: str
  pair: Pair
  bound: float
  error: Error


class Report:
  """The comparisons of one case.

  Attributes:
    failed: whether a bound was exceeded or a comparison left out.
    recorded: {name: array}, what has to be compared; `check_all_compared`.
    compared: what was.
    left_out: names of what cannot be.
  """

  def __init__(self, case: str, recorded: Mapping[str, np.ndarray]):
    """Makes a report.

    Args:
      case: its name, with which every line begins.
      recorded: see above.
    """
    self.failed = False
    self.recorded = dict(recorded)
    self.compared: list[Comparison] = []
    self._case = case
    self._left = set(recorded)
    self.left_out: set[str] = set()

  def starting(self, *prefixes: str) -> dict[str, np.ndarray]:
    """Recorded arrays by the names that begin with one of the prefixes."""
    return {k: v for k, v in self.recorded.items() if k.startswith(prefixes)}

  def known(self, actual: Mapping[str, Any]) -> dict[str, Pair]:
    """Pairs what was computed with what is recorded of it.

    Of large arrays NAME, a record may have NAME_every_4th_row.
    """
    pairs = {}
    for key, value in actual.items():
      if key in self.recorded:
        pairs[key] = Pair(value, self.recorded[key])
      thinned = f"{key}_every_4th_row"
      if thinned in self.recorded:
        rows = np.asarray(value)[..., ::4, :, :]
        pairs[thinned] = Pair(rows, self.recorded[thinned])
    return pairs

  def pairs(self, actual: Mapping[str, Any], *prefixes: str) -> dict[str, Pair]:
    """Pairs the recorded arrays of these prefixes with what was computed.

    A recorded array without a counterpart gets one that no bound allows; those
    that were left out get none.
    """
    return {
      key: Pair(actual.get(key, np.nan), value)
      for key, value in self.starting(*prefixes).items()
      if key not in self.left_out
    }

  def compare(
    self,
    group: str,
    pairs: Mapping[str, Pair],
    bound: float,
    median_bound: float = float("inf"),
    error: Error = relative_error,
    is_optional: bool = False,
  ) -> None:
    """Compares a group of tensors, and prints a line about it.

    Args:
      group: its name.
      pairs: by the names of the record.
      bound: for the error of every tensor.
      median_bound: for the median of the errors.
      error: what is bounded.
      is_optional: whether there may be no pairs.
    """
    self.compared += [
      Comparison(group, key, pair, bound, error) for key, pair in pairs.items()
    ]
    self._left -= set(pairs)
    errors = {key: error(*pair) for key, pair in pairs.items()}
    if not errors:
      if not is_optional:
        self.fail(group, "nothing was compared")
      return
    worst = max(errors, key=lambda key: errors[key])
    median = float(np.median(list(errors.values())))
    # Written so that NaN fails as well.
    bad = [key for key, value in errors.items() if not value <= bound]
    drifts = not median <= median_bound
    self._line(
      group,
      f"{len(errors):>4} tensors  median {median:.1e}  worst "
      f"{errors[worst]:.1e} {worst}  bound {bound:g}"
      + (f", median {median_bound:g}" if np.isfinite(median_bound) else ""),
      fails=bool(bad) or drifts,
    )
    for key in sorted(bad, key=lambda key: -errors[key])[:_MOST]:
      print(f"{'':>48}{errors[key]:.1e} {key}")

  def equal(self, group: str, pairs: Mapping[str, Pair]) -> None:
    """As `compare`, of whole numbers that have to be equal."""
    self.compare(group, pairs, 0.0, error=largest_difference, is_optional=True)

  def leave_out(self, keys: Iterable[str], reason: str) -> None:
    """Says of recorded arrays why they are not compared."""
    names = sorted(set(keys) & self._left)
    self._left -= set(names)
    self.left_out |= set(names)
    if names:
      more = f" and {len(names) - 2} more" if len(names) > 2 else ""
      self._line("left out", f"{', '.join(names[:2])}{more}: {reason}")

  def fail(self, group: str, text: str) -> None:
    """Prints a line about something that is wrong."""
    self._line(group, text, fails=True)

  def tell(self, group: str, text: str) -> None:
    """Prints a line."""
    self._line(group, text)

  def check_all_compared(self) -> None:
    """Fails if any recorded array was neither compared nor left out."""
    if self._left:
      names = sorted(self._left)
      more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
      self.fail("not compared", f"{', '.join(names[:_MOST])}{more}")

  def _line(self, group: str, text: str, fails: bool = False) -> None:
    self.failed |= fails
    end = "  FAILS" if fails else ""
    print(f"{self._case:>28} {group:<18} {text}{end}")
