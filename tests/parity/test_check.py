"""Agreement with what the published code computed; see `check`."""

import shutil

import numpy as np
import pytest

from tests.parity import cases, check, slate, slot_attention, variables
from tests.parity.report import Comparison, Report
from tests.support.places import PARITY

_CASES = check.find(PARITY)
_SMALLEST = PARITY / "slot_attention_preprocessing"


@pytest.fixture(scope="module", params=_CASES, ids=lambda path: path.name)
def report(request: pytest.FixtureRequest) -> Report:
  """What a check of a case came to."""
  return check.run(request.param)


def test_all_cases_are_there():
  assert [path.name for path in _CASES] == [
    "efficientmorl_tiny_gaussian_small",
    "gnm_tiny",
    "slate_names",
    "slate_tiny",
    "slot_attention_hhousen_tiny_autoencoder",
    "slot_attention_names",
    "slot_attention_preprocessing",
    "slot_attention_tiny_autoencoder",
    "slot_attention_tiny_set_prediction",
    "tiny_cos",
    "tiny_lstm",
  ]


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
  # Of these, no more than the size can be told.
  rounding = {c.key for c in report.compared if c.group == variables.ROUNDING}
  assert set(report.recorded) - report.left_out - noticed <= rounding


def _faults(output: str) -> dict[str, str]:
  """{group: text} of the lines about what is wrong."""
  lines = [line for line in output.splitlines() if "FAILS" in line]
  # A line is CASE GROUP TEXT, where the group has up to two words.
  return {" ".join(line.split()[1:3]): line for line in lines}


def test_a_change_and_an_array_without_comparison_fail(tmp_path, capsys):
  copy = shutil.copytree(
    PARITY / "slot_attention_preprocessing", tmp_path / "a"
  )
  arrays = cases.read_arrays(copy / "expected.npz")
  arrays["set_prediction_target"][3, 18] += 1e-5
  np.savez(copy / "expected.npz", **arrays, other=np.zeros(3))
  assert check.main([str(tmp_path)]) == 1
  output = capsys.readouterr().out
  faults = _faults(output)
  assert list(faults) == ["preprocessing 3", "not compared"]
  assert "set_prediction_target" in faults["preprocessing 3"]
  assert "other" in faults["not compared"]
  assert output.splitlines()[-1] == "0 of 1 cases agree"


@pytest.mark.parametrize("change", ["rename", "drop", "resize"])
def test_names_that_differ_fail(tmp_path, capsys, change):
  name = "untitled_ai_clevr_128.txt"
  text = (PARITY / "slot_attention_names" / name).read_text()
  line = "slot_attention.mlp.0.bias [128] float32\n"
  assert line in text
  new = {"rename": line.replace("bias", "offset"), "drop": "", "resize": ""}
  new["resize"] = line.replace("128", "127")
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / name).write_text(text.replace(line, new[change]))
  assert check.main([str(tmp_path)]) == 1
  assert "mlp_0/b" in capsys.readouterr().out


def test_an_assignment_may_differ_in_padding_alone():
  costs = np.array([[1.0, 3, 4], [5, 2, 2], [6, 2, 2]])
  mine = np.array([[0, 1, 2], [0, 1, 2]])
  is_real = np.array([True, False, False])
  agree = lambda slots: slot_attention._agree(
    mine, np.array([[0, 1, 2], slots]), is_real, costs
  )
  assert agree([0, 1, 2])
  assert agree([0, 2, 1])
  assert not agree([1, 0, 2])
  assert not agree([0, 1, 1])
  assert not slot_attention._agree(
    mine, np.array([[0, 1, 2], [0, 2, 1]]), np.array([True, True, True]), costs
  )


def test_of_what_slate_records_only_unknown_margins_are_left_out():
  gap = np.float32(0.1)
  report = Report("a", {"token_margin": gap, "z_margin": gap, "z": gap})
  slate._compare_margins(report, {"token_margin": gap})
  slate.leave_out_margins(report)
  assert report.left_out == {"z_margin"}
  report.check_all_compared()
  assert report.failed


def test_a_folder_without_a_case(tmp_path, capsys):
  assert check.main([str(tmp_path)]) == 2
  assert f"{tmp_path}: no recorded case" in capsys.readouterr().err


def test_an_error_is_told_of_its_case(tmp_path, capsys):
  copy = shutil.copytree(
    PARITY / "slot_attention_preprocessing", tmp_path / "a"
  )
  arrays = cases.read_arrays(copy / "inputs.npz")
  del arrays["color"]
  np.savez(copy / "inputs.npz", **arrays)
  assert check.main([str(tmp_path)]) == 1
  assert "color" in _faults(capsys.readouterr().out)["error KeyError:"]
