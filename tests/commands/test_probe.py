"""The command `probe`."""

import json
import logging
import re

import numpy as np
import pytest
from PIL import Image

from iodine.evaluation import dci, probes
from tests.support.tiny_runs import (
  NUM_SCENES,
  TINY,
  TINY_EFFICIENT_MORL,
  TINY_GNM,
  TINY_SLATE,
  TINY_SLOT_ATTENTION,
  fail,
  run,
)

_FILES = {"probe.json", "probe.md", "properties.png"}
_PROPERTIES = {"shape", "position", "color"}


@pytest.fixture(autouse=True)
def _short(monkeypatch, caplog):
  """Training and trees of an instant."""
  monkeypatch.setattr(probes, "MOST_STEPS", 4)
  monkeypatch.setattr(probes, "_CHECK_STEPS", 2)
  monkeypatch.setattr(dci, "_LEAST_OBJECTS", 3)
  monkeypatch.setattr(dci, "_LEAST_PIXELS", 0)
  monkeypatch.setattr(dci, "_LEAST_IOU", 0.0)
  caplog.set_level(logging.INFO)


@pytest.fixture
def words(data_dir, trained, tmp_path) -> tuple[str, ...]:
  return (
    *TINY,
    f"data_dir={data_dir}",
    f"checkpoint_dir={trained}",
    f"evaluation_dir={tmp_path}/out",
    *("seed=5", "range_scenes=2", "num_test_scenes=6"),
    *("num_train_scenes=4", "num_validation_scenes=3", "probes=linear"),
  )


def _result(folder) -> dict:
  return json.loads((folder / "probe.json").read_text())


def test_probe_prints_and_writes_what_it_finds(words, tmp_path, capsys):
  pytest.importorskip("sklearn")
  run("probe", *words, "match_by=loss,mask,order", "probes=mlp1")
  folder = tmp_path / "out"
  figures = {"importances.png", "activeness.png"}
  assert {path.name for path in folder.iterdir()} == _FILES | figures
  result = _result(folder)
  assert (result["scenes"], result["train_scenes"]) == (6, 4)
  assert result["validation_scenes"] == 3
  assert result["objects"] == 6 * 3
  names = {
    f"probe/{match_by}/{name}/{factor}"
    for match_by in ("loss", "mask", "order")
    for name in ("dummy", "mlp1")
    for factor in _PROPERTIES
  }
  scores = ("disentanglement", "completeness", "informativeness")
  assert set(result["metrics"]) == names | {f"dci/{name}" for name in scores}
  assert result["kinds"]["shape"] == "accuracy"
  assert result["kinds"]["color"] == result["kinds"]["position"] == "R^2"
  assert result["training"]["mask/mlp1"]["steps"] == 4
  importances = np.array(result["dci"]["importances"])
  assert importances.shape == (5, len(result["dci"]["factors"]))
  assert result["dci"]["protocol"] == "own"
  assert len(result["activeness"]) == 5
  assert result["configuration"]["match_by"] == "loss,mask,order"
  printed = capsys.readouterr().out
  value = result["metrics"]["probe/order/mlp1/color"]["mean"]
  assert re.search(rf"color +R\^2 .*{value:.3f}", printed)
  text = (folder / "probe.md").read_text()
  assert f" {value:.3f} |" in text and "matched in order" in text
  for path in folder.glob("*.png"):
    with Image.open(path) as image:
      assert image.width > 200, path


def test_shifted_scenes_test_the_probes_of_unshifted_ones(
  words, tmp_path, capsys
):
  results = {}
  for name, shift in (
    ("plain", ()),
    ("test", ("data.shift=object_color",)),
    ("both", ("data.shift=object_color", "probe_shift=both")),
    ("occluded", ("data.shift=occlusion",)),
  ):
    folder = tmp_path / name
    run("probe", *words, "dci=False", *shift, f"evaluation_dir={folder}")
    results[name] = _result(folder)
    printed = capsys.readouterr().out
    if name == "test":
      told = "Properties of 18 objects (6 modified) in 6 scenes with shift "
      told += "object_color, matched by the loss; probes trained on 4 unshifted"
      assert told in printed
      assert told in (folder / "probe.md").read_text()
      assert re.search(r"color +R\^2 +modified +- +-\n", printed)
  assert results["plain"]["shift"] is results["plain"]["modified_objects"]
  plain, test = (results[name]["metrics"] for name in ("plain", "test"))
  key = "probe/loss/linear/position"
  rows = {f"{key}{row}" for row in ("", "/modified", "/unmodified")}
  assert {name for name in test if key in name} == rows | {f"{key}/unshifted"}
  both = results["both"]["metrics"]
  assert {name for name in both if key in name} == rows
  occluded = {name for name in results["occluded"]["metrics"] if key in name}
  assert occluded == {key, f"{key}/unshifted"}
  # The probe is the same, and so is what it tells of unshifted scenes.
  assert results["test"]["training"] == results["plain"]["training"]
  assert results["both"]["training"] != results["plain"]["training"]
  for name, score in plain.items():
    assert test[f"{name}/unshifted"] == score
  assert test[key] != plain[key]
  color = "probe/loss/linear/color"
  assert test[f"{color}/modified"]["mean"] is None
  assert test[f"{color}/unmodified"] == test[color]
  assert results["test"]["modified_objects"] == 6
  assert not results["test"]["trained_on_shifted"]
  assert results["both"]["trained_on_shifted"]


def test_selected_scenes_test_the_probes_of_the_others(words, tmp_path, caplog):
  shift = ("data.shift.name=held_out", "data.shift.factors.shape=3")
  run("probe", *words, "dci=False", *shift)
  # Two of the 13 scenes have such an object.
  assert "The data have 11 scenes, not 13: 5 test, 4 train" in caplog.text
  assert "2 scenes test the probes, not 5" in caplog.text
  result = _result(tmp_path / "out")
  counts = [result[k] for k in ("scenes", "train_scenes", "validation_scenes")]
  assert counts == [2, 4, 2]
  key = "probe/loss/linear/position"
  metrics = result["metrics"]
  assert {name for name in metrics if key in name} == {key, f"{key}/unshifted"}


def test_the_same_seed_finds_the_same(words, tmp_path):
  metrics = []
  for size in (3, 4):
    run("probe", *words, "dci=False", f"batch_size={size}")
    metrics.append(_result(tmp_path / "out")["metrics"])
  for name, score in metrics[0].items():
    other = metrics[1][name]["mean"]
    assert score["mean"] == pytest.approx(other, rel=1e-3, abs=1e-3), name


def test_earlier_figures_do_not_stay(words, tmp_path):
  folder = tmp_path / "out"
  folder.mkdir()
  (folder / "importances.png").write_text("of an earlier run")
  run("probe", *words, "dci=False")
  assert {path.name for path in folder.iterdir()} == _FILES | {"activeness.png"}
  assert "dci" not in _result(folder)


def test_dci_as_published_says_so(words, tmp_path, capsys):
  pytest.importorskip("sklearn")
  run("probe", *words, "protocol=efficientmorl")
  assert _result(tmp_path / "out")["dci"]["protocol"] == "as published"
  assert "EfficientMORL's DCI (as published), " in capsys.readouterr().out


def test_fewer_scenes_are_shared_out(words, tmp_path, caplog):
  run("probe", *words, "dci=False", "num_train_scenes=30")
  result = _result(tmp_path / "out")
  counts = [result[k] for k in ("scenes", "train_scenes", "validation_scenes")]
  assert counts == [2, 10, 1]
  told = f"The data have {NUM_SCENES} scenes, not 39: 2 test, 10 train and 1"
  assert told in caplog.text


def test_scenes_that_training_saw_are_told(words, caplog):
  run("probe", *words, "dci=False", "held_out_scenes=5")
  assert "num_test_scenes=6: training held out the first 5" in caplog.text


@pytest.mark.parametrize(
  "model", [TINY_SLOT_ATTENTION, TINY_SLATE, TINY_GNM, TINY_EFFICIENT_MORL]
)
def test_other_models(model, data_dir, tmp_path):
  common = (*model, f"data_dir={data_dir}", "seed=3")
  run(*common, f"checkpoint_dir={tmp_path}/run")
  run(
    "probe",
    *common,
    f"checkpoint_dir={tmp_path}/run_1",
    *("match_by=loss,mask", "probes=linear", "range_scenes=1", "dci=False"),
  )
  result = _result(tmp_path / "run_1" / "probe")
  scores = [score["mean"] for score in result["metrics"].values()]
  assert len(scores) == 2 * 2 * len(_PROPERTIES)
  assert np.isfinite(scores).all()
  has_latents = model in (TINY_GNM, TINY_EFFICIENT_MORL)
  assert ("activeness" in result) == has_latents


def test_without_scikit_learn_dci_is_left_out(words, monkeypatch, caplog):
  monkeypatch.setattr(dci, "is_installed", lambda: False)
  run("probe", *words)
  assert "DCI is left out: it needs scikit-learn" in caplog.text


def test_objects_too_few_for_dci_leave_it_out(words, monkeypatch, caplog):
  pytest.importorskip("sklearn")
  monkeypatch.setattr(dci, "_LEAST_OBJECTS", 1000)
  run("probe", *words)
  assert "DCI is left out. dci: " in caplog.text


# --- Mistakes -----------------------------------------------------------------


@pytest.mark.parametrize(
  "word, told",
  [
    ("probes=mlp9", "probes='mlp9': expected some of linear, mlp1"),
    ("probes=mlp1,mlp1", "each once"),
    ("match_by=masks", "match_by='masks': expected some of loss, mask, order"),
    ("num_train_scenes=0", "num_train_scenes=0"),
    ("dci=yes please", "dci='yes please'"),
    ("probe_shift=train", "probe_shift='train'"),
    ("probe_shift=both", "probe_shift='both': there is no data.shift"),
  ],
)
def test_wrong_entries_are_told_before_any_work(capsys, words, word, told):
  assert told in fail(capsys, 2, "probe", *words, word)


def test_dci_needs_scikit_learn(capsys, words, tmp_path, monkeypatch):
  monkeypatch.setattr(dci, "is_installed", lambda: False)
  error = fail(capsys, 2, "probe", *words, "dci=True")
  assert "pip install '.[dci]'" in error
  assert not (tmp_path / "out").exists()


def test_data_without_factors_are_an_error(capsys, words, tmp_path):
  Image.new("RGB", (7, 9)).save(tmp_path / "a.png")
  error = fail(
    capsys,
    2,
    "probe",
    *words,
    "data.constructor=iodine.modules.data.ImageFolder",
    f"data.path={tmp_path}",
    "data.max_num_objects=None",
    "model.factor_evaluator=None",
  )
  assert "has no factors of objects" in error
  assert not (tmp_path / "out").exists()


def test_scenes_too_few_are_an_error(capsys, words, tmp_path):
  error = fail(capsys, 2, "probe", *words, "data.skip=11")
  assert "the data have 2 scenes, too few" in error
  assert not (tmp_path / "out").exists()
