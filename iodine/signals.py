"""Signals that end the work, so that none is lost and none comes too early.

Python turns Ctrl-C into an exception wherever it happens to be, and drops that
within the callback of a weak reference or a `__del__`. Here each signal is
noted as well, and long work asks for it from time to time, see `check`.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Interrupted", "check", "deferred", "fatal", "handled"]

# Ctrl-C, kill and job managers, a terminal that closes, Slurm before its time
# limit.
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_LOG = logging.getLogger(__name__)

_received: list[int] = []
_previous: dict[int, Any] = {}  # the handlers that ours replace
_is_deferred = False


class Interrupted(KeyboardInterrupt):
  """A signal ended the work.

  Attributes:
    signal_number: of the signal.
    is_told: whether the user was told what became of the work.
  """

  def __init__(self, signal_number: int, is_told: bool = False):
    super().__init__(f"Interrupted by {signal.Signals(signal_number).name}.")
    self.signal_number = signal_number
    self.is_told = is_told


@contextlib.contextmanager
def handled() -> Iterator[None]:
  """Has the first signal raise `Interrupted`; the second ends at once.

  Signals that the process was started to ignore (nohup, a job in the
  background) stay ignored. Within another such context, and in any thread but
  the main one, nothing changes.
  """
  global _received
  if _previous or threading.current_thread() is not threading.main_thread():
    yield
    return
  for number in _NUMBERS:
    handler = signal.getsignal(number)
    if handler not in (signal.SIG_IGN, None):
      _previous[number] = handler
      signal.signal(number, _receive)
  try:
    yield
  finally:
    _restore()
    _previous.clear()
    _received = []  # not cleared: `deferred` has handed it out


@contextlib.contextmanager
def deferred() -> Iterator[list[int]]:
  """Collects signals instead of raising `Interrupted`.

  Yields:
    Numbers of the signals that came, one from before the context included.
  """
  global _is_deferred
  with handled():
    _is_deferred = True
    try:
      yield _received
    finally:
      _is_deferred = False


@contextlib.contextmanager
def fatal() -> Iterator[None]:
  """Lets signals end the process at once, while Python cannot handle any.

  Handlers that are installed in the context, by a library say, go with it.
  """
  handlers = {number: signal.getsignal(number) for number in _NUMBERS}
  for number, handler in handlers.items():
    if handler is not signal.SIG_IGN:
      signal.signal(number, signal.SIG_DFL)
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def check() -> None:
  """Raises `Interrupted` if a signal came and its exception was lost."""
  is_main = threading.current_thread() is threading.main_thread()
  if _received and is_main and not _is_deferred:
    raise Interrupted(_received[0])


def _receive(number: int, frame: Any) -> None:
  del frame
  _received.append(number)
  _restore()
  if signal.SIGHUP in _previous:
    # A terminal that closes sends two.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
  if not _is_deferred:
    raise Interrupted(number)
  _LOG.info(
    "%s: saving after this step. Once more ends at once, without saving",
    signal.Signals(number).name,
  )


def _restore() -> None:
  for number, handler in _previous.items():
    signal.signal(number, handler)
