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


def test_bar_on_a_terminal(monkeypatch, caplog):
  terminal = io.StringIO()
  terminal.isatty = lambda: True
  monkeypatch.setattr(sys, "stderr", terminal)
  with progress.progress(4, "scenes", logging.getLogger("test")) as update:
    update(3)
  assert "3/4" in terminal.getvalue()
  assert not caplog.messages
