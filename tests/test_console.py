"""Colours of the log and of errors: for terminals alone, and never kept."""

import io
import logging
import sys

import pytest

from iodine import console


class _Screen(io.StringIO):
  """A stream that says what it is."""

  def __init__(self, is_terminal: bool):
    super().__init__()
    self._is_terminal = is_terminal

  def isatty(self) -> bool:
    return self._is_terminal


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.delenv("NO_COLOR", raising=False)
  monkeypatch.setenv("TERM", "xterm")


def _logged(screen: _Screen, monkeypatch: pytest.MonkeyPatch) -> str:
  """What is kept of three lines that are logged to a screen."""
  kept: list[str] = []
  monkeypatch.setattr(sys, "stderr", console.Recorded(screen, kept.append))
  handler = console.Handler()
  handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
  logger = logging.Logger("test")
  logger.addHandler(handler)
  logger.info("one")
  logger.warning("two: WARNING")
  logger.error("three")
  return "".join(kept)


_PLAIN = "INFO - one\nWARNING - two: WARNING\nERROR - three\n"


def test_levels_have_colours_on_a_terminal_and_none_in_the_record(monkeypatch):
  screen = _Screen(is_terminal=True)
  assert _logged(screen, monkeypatch) == _PLAIN
  lines = [x.lstrip("\r") for x in screen.getvalue().splitlines()]
  assert lines == [
    "INFO - one",
    "\033[33mWARNING\033[0m - two: WARNING",
    "\033[31mERROR\033[0m - three",
  ]


def test_files_and_pipes_get_no_colours(monkeypatch):
  screen = _Screen(is_terminal=False)
  assert _logged(screen, monkeypatch) == _PLAIN
  assert screen.getvalue() == _PLAIN


@pytest.mark.parametrize("name, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_turned_off(name, value, monkeypatch):
  screen = _Screen(is_terminal=True)
  assert console.paint("x", "red", screen) == "\033[31mx\033[0m"
  monkeypatch.setenv(name, value)
  assert console.paint("x", "red", screen) == "x"
  monkeypatch.setenv("NO_COLOR", "")
  monkeypatch.setenv("TERM", "xterm")
  assert console.paint("x", "bold", screen) == "\033[1mx\033[0m"


@pytest.mark.parametrize(
  "path, program",
  [("/usr/bin/iodine", "iodine"), ("main.py", "python -m iodine.main")],
)
def test_the_program_is_called_as_it_was(path, program, monkeypatch):
  monkeypatch.setattr(sys, "argv", [path])
  assert console.program() == program
