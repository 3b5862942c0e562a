"""Tests of iodine.progress."""

import io
import logging
import sys
import time

import pytest

from iodine import progress


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  return now


def lines(caplog, clock, total, counts):
  """The log after counts at 10 seconds' distance."""
  caplog.set_level(logging.INFO)
  logger = logging.getLogger("test")
  with progress.progress(total, "scenes", logger) as update:
    for count in counts:
      clock[0] += 10
      update(count)
  return caplog.messages


def test_lines_tell_count_rate_and_time_left(caplog, clock):
  assert lines(caplog, clock, 5_000, [1_000, 500, 3_500]) == [
    "1,000 of 5,000 scenes, 100.0 scenes/s, 00:40 left",
    "1,500 of 5,000 scenes, 75.0 scenes/s, 00:46 left",
  ]


def test_seconds_left(clock):
  with progress.progress(50, "steps", logging.getLogger("test")) as update:
    assert update.seconds_left is None
    clock[0] += 10
    update(20)
    assert update.seconds_left == pytest.approx(15)
  with progress.progress(None, "steps", logging.getLogger("test")) as update:
    clock[0] += 10
    update(20)
    assert update.seconds_left is None


def test_unknown_total(caplog, clock):
  assert lines(caplog, clock, None, [30]) == ["30 scenes, 3.0 scenes/s"]


def test_more_than_the_estimated_total(caplog, clock):
  assert lines(caplog, clock, 20, [30]) == ["30 scenes, 3.0 scenes/s"]


def test_no_line_before_its_time(caplog, clock):
  caplog.set_level(logging.INFO)
  with progress.progress(9, "scenes", logging.getLogger("test")) as update:
    clock[0] += 9
    update(1)
  assert not caplog.messages


def open_terminal(monkeypatch) -> io.StringIO:
  """Makes standard error a terminal, within a test as pytest replaces it."""
  stream = io.StringIO()
  stream.isatty = lambda: True
  monkeypatch.setattr(sys, "stderr", stream)
  return stream


def test_bar_on_a_terminal(monkeypatch, caplog):
  terminal = open_terminal(monkeypatch)
  caplog.set_level(logging.INFO)
  with progress.progress(4, "scenes", logging.getLogger("test")) as update:
    update(3)
  assert "3/4" in terminal.getvalue()
  assert not caplog.messages


def test_what_is_shown_is_beside_the_bar_or_in_the_log(monkeypatch, caplog):
  terminal = open_terminal(monkeypatch)
  caplog.set_level(logging.INFO)
  logger = logging.getLogger("test")
  with progress.progress(4, "steps", logger, done=1) as steps:
    steps()
    steps.show(line="step 2/4  100% done", beside_bar="beside it")
  assert "2/4" in terminal.getvalue()
  assert "beside it" in terminal.getvalue()
  assert not caplog.messages

  terminal.isatty = lambda: False
  with progress.progress(4, "steps", logger, done=1) as steps:
    steps.show(line="step 2/4  100% done", beside_bar="beside it")
  assert caplog.messages == ["step 2/4  100% done"]


def test_counts_need_not_be_logged(caplog, clock):
  caplog.set_level(logging.INFO)
  with progress.progress(
    9, "steps", logging.getLogger("test"), counts_are_logged=False
  ) as steps:
    clock[0] += 60
    steps()
  assert not caplog.messages


def test_a_first_step_that_compiles_is_left_out_of_the_rate(clock):
  with progress.progress(
    1_000, "steps", logging.getLogger("test"), done=100, first_compiles=True
  ) as steps:
    clock[0] += 60
    steps()
    assert (steps.rate, steps.time_left) == (0, "?")
    for _ in range(99):
      clock[0] += 0.5
      steps()
    assert steps.rate == pytest.approx(2)
    assert steps.time_left == "06:40"  # 800 steps


def test_the_time_left_of_an_unknown_total_is_unknown(clock):
  with progress.progress(None, "scenes", logging.getLogger("test")) as update:
    clock[0] += 1
    update(5)
    assert (update.rate, update.time_left) == (5, "?")
