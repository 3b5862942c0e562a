"""Signals: noted at any time, never lost, and the second one ends at once."""

import logging
import os
import signal
import subprocess
import sys
import threading
import weakref

import pytest

from iodine import signals
from iodine.progress import progress
from iodine.signals import Interrupted

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
_LOG = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def _default_sighup():
  """As if the tests did not run under nohup, which has it ignored."""
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, before)


def send(number: int) -> None:
  os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_the_work(number):
  before = [signal.getsignal(n) for n in NUMBERS]
  with pytest.raises(Interrupted) as error, signals.handled():
    send(number)
  assert error.value.signal_number == number
  assert str(error.value) == f"Interrupted by {number.name}."
  assert [signal.getsignal(n) for n in NUMBERS] == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_lost_ends_the_work():
  class Thing:
    pass

  with signals.handled(), progress(3, "things", _LOG) as update:
    update()
    thing = Thing()
    reference = weakref.ref(thing, lambda _: send(signal.SIGINT))
    del thing  # Python drops what is raised within the callback.
    assert reference() is None
    with pytest.raises(Interrupted):
      update()


@pytest.mark.parametrize("number", NUMBERS)
def test_signals_wait_while_they_are_deferred(number, caplog):
  caplog.set_level(logging.INFO)
  with signals.deferred() as received:
    assert not received
    send(number)
    signals.check()
    assert received == [number]
  assert f"{number.name}: saving after this step. Once more" in caplog.text


def test_the_second_signal_ends_at_once():
  with signals.deferred():
    send(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as error:
      send(signal.SIGINT)
  assert not isinstance(error.value, Interrupted)


def test_a_lost_signal_is_known_to_what_defers_them():
  with signals.handled():
    with pytest.raises(Interrupted):
      send(signal.SIGTERM)
    with signals.deferred() as received:
      assert received == [signal.SIGTERM]


def test_a_closing_terminal_may_send_two():
  with signals.deferred() as received:
    send(signal.SIGHUP)
    send(signal.SIGHUP)
    assert received == [signal.SIGHUP]


@pytest.mark.parametrize("number", NUMBERS)
def test_signals_may_be_fatal_for_a_time(number):
  before = signal.getsignal(number)
  with signals.handled():
    ours = signal.getsignal(number)
    with signals.fatal():
      assert signal.getsignal(number) is signal.SIG_DFL
      signal.signal(number, signal.SIG_IGN)  # as TensorFlow does
    assert signal.getsignal(number) is ours is not before
  assert signal.getsignal(number) is before


def test_ignored_signals_stay_ignored():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
  try:
    with signals.handled():
      send(signal.SIGHUP)
      assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


def test_other_threads_change_nothing():
  found = []

  def run() -> None:
    with signals.handled(), signals.deferred() as received:
      found.append((signal.getsignal(signal.SIGTERM), received))

  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert found == [(before, [])]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_ends_in_a_line(number):
  script = f"""
import os
from iodine import commands, main
commands.describe_data = lambda entries: os.kill(os.getpid(), {number:d})
main.main(["iodine", "describe_data", "with", "demo"])
"""
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 128 + number, done.stderr
  assert "Traceback" not in done.stderr
  assert done.stderr.splitlines()[-1] == f"Interrupted by {number.name}."
