"""Agreement with what the published code computed; see `check`."""

import pathlib
import shutil

import numpy as np
import pytest

from tests.parity import cases, check
from tests.parity.report import Comparison, Report
from tests.support.places import PARITY

_CASES = check.find(PARITY)


@pytest.fixture(scope="module", params=_CASES, ids=lambda path: path.name)
def report(request: pytest.FixtureRequest) -> Report:
  """What a check of a case came to."""
  return check.run(request.param)


def test_all_cases_are_there():
  assert [path.name for path in _CASES] == ["tiny_cos", "tiny_lstm"]


def test_agrees_with_the_record(report):
  assert not report.failed


def _changed(comparison: Comparison) -> np.ndarray:
  """The record with one number changed by about the size of all."""
  value = np.array(comparison.pair.expected)
  size = np.sqrt(np.mean(np.square(value, dtype=np.float64)))
  value.flat[value.size // 2] += np.asarray(size, value.dtype) or 1
  return value


def test_notices_one_changed_number_of_any_array(report):
  assert {c.key for c in report.compared} | report.left_out == set(
    report.recorded
  )
  noticed = {
    comparison.key
    for comparison in report.compared
    if comparison.error(comparison.pair.actual, _changed(comparison))
    > comparison.bound
  }
  assert set(report.recorded) - report.left_out - noticed == set()


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
  """A copy of the smallest case."""
  return shutil.copytree(PARITY / "tiny_cos", tmp_path / "tiny_cos")


def test_a_change_and_an_array_without_comparison_fail(copy, capsys):
  arrays = cases.read_arrays(copy / "expected.npz")
  arrays["iter/z/1"][0, 0, 0] += 1
  np.savez(copy / "expected.npz", **arrays, other=np.zeros(3))
  assert check.main([str(copy.parent)]) == 1
  lines = capsys.readouterr().out.splitlines()
  faults = [line.split(None, 2)[1:] for line in lines if "FAILS" in line]
  assert [fault[0] for fault in faults] == ["forward", "not"]
  assert "iter/z/1" in faults[0][1]
  assert faults[1][1].startswith("compared")
  assert "other" in faults[1][1]
  assert lines[-1] == "0 of 1 cases agree"


def test_a_folder_without_a_case(tmp_path, capsys):
  assert check.main([str(tmp_path)]) == 2
  assert f"{tmp_path}: no recorded case" in capsys.readouterr().err
