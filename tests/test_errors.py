"""Tests of iodine.errors."""

import logging

import pytest

from iodine import errors


@pytest.mark.parametrize("kind", [errors.ConfigError, errors.RunError])
def test_errors_send_no_commands_to_a_terminal(kind):
  assert str(kind("a\x1b[31m\x07b: é \u202e\udcff\0\n\tc")) == (
    "a\\x1b[31m\\x07b: é \\u202e\\udcff\\x00\n\tc"
  )


def test_log_lines_send_no_commands_to_a_terminal():
  record = logging.LogRecord(
    "name", logging.INFO, "", 0, "folder %s", ("a\x1b]0;b\r",), None
  )
  assert errors.LogFormatter().format(record) == "folder a\\x1b]0;b\\r"
