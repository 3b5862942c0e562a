"""Commands on shifted scenes."""

import json
import logging

import pytest

from tests.support.tiny_runs import TINY, contents, fail, run

OCCLUDED = ("data.shift.name=occlusion", "data.shift.size=0.5")


@pytest.fixture(autouse=True)
def _log(caplog):
  caplog.set_level(logging.INFO)


def test_evaluate_names_the_shift(data_dir, trained, tmp_path, capsys, caplog):
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={trained}", "seed=5")
  scores = {}
  for name, shift in (("plain", ()), ("occluded", OCCLUDED)):
    folder = tmp_path / name
    run("evaluate", *words, *shift, f"evaluation_dir={folder}")
    result = json.loads((folder / "evaluation.json").read_text())
    scores[name] = result["metrics"]["mse"]["mean"]
  assert scores["occluded"] != scores["plain"]
  assert result["shift"] == "occlusion (size=0.5)"
  assert "shift: occlusion (size=0.5)" in capsys.readouterr().out
  title, *_ = (folder / "evaluation.md").read_text().splitlines()
  assert title.endswith(", shift occlusion (size=0.5)")
  # Of the run's three objects, no scene has more than these.
  more = ("data.max_num_objects=2", "data.shift=more_objects")
  run("evaluate", *words, *more, f"evaluation_dir={tmp_path}/more")
  assert "the model has 2 slots; num_components=4 gives one" in caplog.text
  error = fail(capsys, 2, "evaluate", *words, "data.shift=oclusion")
  assert "data: Tetrominoes: shift='oclusion': no such shift" in error
  assert "Did you mean 'occlusion'?" in error


def test_a_run_goes_on_with_its_shift_alone(data_dir, tmp_path, capsys):
  words = (*TINY, f"data_dir={data_dir}", "seed=3")
  start = ("data.shift=object_color", f"checkpoint_dir={tmp_path}/run")
  run(*words, *start, "stop_after_steps=1")
  again = ("continue_run=True", f"checkpoint_dir={tmp_path}/run_1")
  again = (*again, "stop_after_steps=2")
  error = fail(capsys, 2, *words, *again)
  assert "data.shift: saved 'object_color', now nothing" in error
  run(*words, *again, "data.shift=object_color")
  assert any("ckpt-2" in name for name in contents(tmp_path / "run_1"))


def test_describe_data_draws_the_shifted_scenes(data_dir, tmp_path, capsys):
  words = ("with", "tetrominoes", f"data_dir={data_dir}", *OCCLUDED)
  run("describe_data", *words, f"pictures_dir={tmp_path}")
  assert "shift     occlusion (size=0.5)" in capsys.readouterr().out
  assert set(contents(tmp_path)) == {"tetrominoes_occlusion_scenes.png"}
  words = (*words[:3], "data.shift.name=held_out", "data.shift.factors.size=1")
  error = fail(capsys, 2, "describe_data", *words)
  assert "shift=held_out, factors.size=1: no such factor. " in error
