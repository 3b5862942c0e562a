"""Tests for iodine/__init__.py: the main names, which take no time."""

import importlib
import subprocess
import sys

import pytest

import iodine
from tests.support.places import REPOSITORY


def _python(code: str) -> str:
  """What a process prints that imports the package afresh."""
  return subprocess.run(
    [sys.executable, "-c", code],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=True,
  ).stdout


def test_importing_it_imports_nothing_else():
  code = "import sys; a = set(sys.modules); import iodine; b = set(sys.modules)"
  printed = _python(f"{code}; print(*sorted(b - a))").split()
  packages = {name.partition(".")[0]: name for name in printed}
  others = packages.keys() - sys.stdlib_module_names
  assert [packages[name] for name in others] == ["iodine"]


def test_configurations_are_read_without_tensorflow():
  code = (
    "import iodine, sys; iodine.resolve(iodine.named_configs()['demo']); "
    "print('tensorflow' in sys.modules)"
  )
  assert _python(code) == "False\n"


@pytest.mark.parametrize("name", iodine.__all__)
def test_a_name_is_that_of_its_module(name):
  value = getattr(iodine, name)
  module = importlib.import_module(value.__module__)
  assert value is getattr(module, name)
  assert name in dir(iodine)
  assert getattr(iodine, name) is value


def test_another_name_is_no_attribute():
  with pytest.raises(AttributeError, match="'iodine' has no attribute 'lod'"):
    iodine.lod  # noqa: B018
