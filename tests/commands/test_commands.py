"""The commands on checkpoints."""

import json
import logging
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from iodine.config import reading, resolution
from iodine.data import datasets
from iodine.errors import ConfigError
from iodine.evaluation import efficient_morl
from iodine.evaluation import scores as scoring
from iodine.runs import checkpoint_files
from tests.support import tiny
from tests.support.places import PARITY, SHARED
from tests.support.tiny_runs import (
  NUM_SCENES,
  TINY,
  contents,
  fail,
  run,
  write_scenes,
)

STEPS = 2
FILES = {"evaluation.json", "evaluation.md", "evaluation.png"}
_DATA = ".data-00000-of-00001"
_SHARED = SHARED / "parity"


@pytest.fixture(autouse=True)
def _log(caplog):
  caplog.set_level(logging.INFO)


@pytest.fixture
def copied(trained, tmp_path) -> pathlib.Path:
  """A copy of that run without its pictures and events."""
  folder = tmp_path / "copied"
  folder.mkdir()
  for path in trained.iterdir():
    if path.name.startswith(("checkpoint", "config", "model")):
      shutil.copy(path, folder)
  return folder


def _evaluate(data_dir, folder, *words):
  run(
    "evaluate",
    *TINY,
    f"data_dir={data_dir}",
    f"checkpoint_dir={folder}",
    "seed=5",
    *words,
  )


def _result(folder) -> dict:
  return json.loads((folder / "evaluation.json").read_text())


# --- evaluate -----------------------------------------------------------------


def test_evaluate_prints_and_writes_the_scores(data_dir, copied, capsys):
  _evaluate(data_dir, copied, "num_scenes=10")
  assert set(contents(copied / "evaluation")) == FILES
  result = _result(copied / "evaluation")
  assert result["scenes"] == 10
  assert result["checkpoint"] == str(copied / f"model.ckpt-{STEPS}")
  assert result["configuration"]["num_scenes"] == 10
  assert result["configuration"]["seed"] == 5
  assert result["images_per_second"] > 0
  names = {*tiny.MASK_SCORES, "mse", "recons", "kl", "elbo"}
  factors = {f"factor/{name}" for name in ("position", "color", "shape")}
  assert set(result["metrics"]) == set(result["per_step"]) == names | factors
  assert {len(steps) for steps in result["per_step"].values()} == {2}
  printed = capsys.readouterr().out
  assert re.search(r"ARI without background .*0\.992 \+- 0\.004", printed)
  assert f"{result['metrics']['mse']['mean']:.4g}" in printed
  assert "five training seeds" in printed


def test_evaluate_by_another_protocol(data_dir, copied, monkeypatch, capsys):
  sizes = []
  ari = efficient_morl.foreground_ari

  def remember(true_mask, pred_mask, *args):
    sizes.append((true_mask.shape[2:4].as_list(), pred_mask.shape[2:4]))
    return ari(true_mask, pred_mask, *args)

  monkeypatch.setattr(efficient_morl, "foreground_ari", remember)
  _evaluate(data_dir, copied, "protocol=efficientmorl")
  # The true masks are those of the file; the model is shown smaller images.
  assert ([35, 35], [9, 7]) in sizes
  folder = copied / "evaluation_efficientmorl"
  assert not (copied / "evaluation").exists()
  assert set(_result(folder)["metrics"]) == {"ari_nobg", "mse", "kl"}
  title, *_ = (folder / "evaluation.md").read_text().splitlines()
  assert title.endswith(", protocol efficientmorl")
  printed = capsys.readouterr().out
  assert "KL (nats)" in printed
  assert re.search(r"ARI without background .*0\.992 \+- 0\.004", printed)


def test_evaluate_knows_no_rate_of_a_single_batch(data_dir, copied, caplog):
  _evaluate(data_dir, copied, "num_scenes=1")  # whose time is that of compiling
  assert _result(copied / "evaluation")["images_per_second"] is None
  assert "without the first batch" not in caplog.text
  assert f"Wrote the scores to {copied}/evaluation" in caplog.text


@pytest.mark.slow
def test_evaluate_does_not_depend_on_the_batch_size(
  data_dir, copied, tmp_path, caplog
):
  # The batch of training, 3, is beside the checkpoint.
  for size in (4, 11):
    words = (f"batch_size={size}", f"evaluation_dir={tmp_path}/{size}")
    _evaluate(data_dir, copied, *words)
    assert "Inner losses are divided by 3" in caplog.text
    assert "divided by 4" not in caplog.text
  assert f"The data have {NUM_SCENES} scenes, not num_scenes=320" in caplog.text
  first, second = (_result(tmp_path / name) for name in ("4", "11"))
  assert first["scenes"] == second["scenes"] == NUM_SCENES
  for name, values in first["per_step"].items():
    np.testing.assert_allclose(
      values, second["per_step"][name], rtol=1e-4, atol=1e-5, err_msg=name
    )
  assert not (copied / "evaluation").exists()


def test_evaluate_takes_other_slots_steps_and_draws(data_dir, copied):
  words = ("num_components=3", "num_iters=2", "num_samples=2", "num_scenes=4")
  _evaluate(data_dir, copied, *words)
  result = _result(copied / "evaluation")
  assert {len(steps) for steps in result["per_step"].values()} == {3}
  assert result["scenes"] == 4


@pytest.mark.parametrize(
  "given, saved, paper, expected",
  [
    (9, {"model": {"inner_batch_size": 8}}, 6, 9),
    (None, {"model": {"inner_batch_size": 8}, "data": {"batch_size": 7}}, 6, 8),
    (None, {"model": {}, "data": {"batch_size": 7}}, 6, 7),
    (None, {"n_z": 5}, 6, 6),
    (None, None, 6, 6),
    (None, None, None, 3),
  ],
  ids=["model", "saved_inner", "saved_batch", "other_file", "paper", "batch"],
)
def test_what_inner_losses_are_divided_by(
  data_dir, copied, monkeypatch, given, saved, paper, expected
):
  if saved is None:
    (copied / "config.json").unlink()
  else:
    (copied / "config.json").write_text(json.dumps(saved))
  models = []

  def stop(model, *args, **kwargs):
    models.append(model)
    raise ConfigError("seen")

  monkeypatch.setattr(scoring, "evaluate", stop)
  words = [f"paper_batch_size={paper}"]
  words += [f"model.inner_batch_size={given}"] if given else []
  with pytest.raises(SystemExit):
    _evaluate(data_dir, copied, *words)
  assert [model.inner_batch_size for model in models] == [expected]


def _evaluate_fails(capsys, data_dir, folder, *words, code=2) -> str:
  """Checks that nothing is written, and that the error is one."""
  before = contents(folder)
  words = ("evaluate", *TINY, f"data_dir={data_dir}", *words)
  error = fail(capsys, code, *words, f"checkpoint_dir={folder}", "seed=5")
  assert contents(folder) == before
  assert error.count("Error") == 1
  return error


def test_evaluate_with_a_wrong_configuration(data_dir, copied, capsys):
  error = _evaluate_fails(capsys, data_dir, copied, "n_z=6")
  assert "does not fit the model" in error
  assert "[10] in the checkpoint, [12] in the model" in error


def test_evaluate_with_factors_that_the_data_lack(data_dir, copied, capsys):
  mapping = "model.factor_evaluator.mapping=[['colour', 3, 'scalar']]"
  error = _evaluate_fails(capsys, data_dir, copied, mapping)
  assert error.startswith("ConfigError: model: ")
  assert "colour" in error


@pytest.mark.slow
def test_evaluate_with_a_truncated_file_keeps_the_last_results(
  copied, tmp_path, capsys
):
  path = write_scenes(tmp_path / "broken.tfrecords", 300)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
  words = (f"data.path={path}", "num_scenes=300")
  error = _evaluate_fails(capsys, tmp_path, copied, *words)
  assert error.startswith(f"ConfigError: data: {path}, record ")
  assert not (copied / "evaluation").exists()
  (tmp_path / "results").mkdir()
  for name in FILES:
    (tmp_path / "results" / name).write_text("of an earlier evaluation")
  before = contents(tmp_path / "results")
  words = (*words, f"evaluation_dir={tmp_path}/results")
  _evaluate_fails(capsys, tmp_path, copied, *words)
  assert contents(tmp_path / "results") == before


def test_evaluate_without_data(copied, tmp_path, capsys):
  error = _evaluate_fails(capsys, tmp_path, copied)
  assert f"there is no file {tmp_path}/tetrominoes_train.tfrecords" in error


@pytest.mark.parametrize("suffix", [".index", _DATA])
@pytest.mark.parametrize("damage", ["missing", "half"])
def test_evaluate_with_half_a_checkpoint(
  data_dir, copied, capsys, suffix, damage
):
  path = copied / f"model.ckpt-{STEPS}{suffix}"
  if damage == "missing":
    path.unlink()
  else:
    os.truncate(path, path.stat().st_size // 2)
  error = _evaluate_fails(capsys, data_dir, copied)
  fault = "is missing" if damage == "missing" else "cannot be read as a"
  assert fault in error
  assert str(copied / f"model.ckpt-{STEPS}") in error


def test_evaluate_without_a_checkpoint(data_dir, tmp_path, capsys):
  error = _evaluate_fails(capsys, data_dir, tmp_path)
  assert (
    f"{tmp_path}: there is no checkpoint. {tmp_path} holds: nothing" in error
  )


@pytest.mark.parametrize("folder", ["file", "file/results"])
def test_evaluate_into_what_is_no_folder(
  data_dir, copied, tmp_path, capsys, folder
):
  (tmp_path / "file").write_text("no folder")
  words = (f"evaluation_dir={tmp_path}/{folder}",)
  error = _evaluate_fails(capsys, data_dir, copied, *words)
  assert f"evaluation_dir: {tmp_path}/{folder} cannot be made" in error


def test_evaluate_checks_the_papers_scores_first(data_dir, copied, capsys):
  words = ("paper_scores.ari=[0.9]",)
  error = _evaluate_fails(capsys, data_dir, copied, *words)
  assert "paper_scores.ari=[0.9]: must be [mean, standard deviation]" in error


@pytest.mark.parametrize(
  "fault, code, text",
  [
    (
      tf.errors.ResourceExhaustedError(None, None, "OOM"),
      1,
      "set a lower batch_size than 3",
    ),
    (OSError(28, "No space left on device"), 2, "No space left on device"),
  ],
  ids=["memory", "disk"],
)
def test_evaluate_that_fails_late(
  data_dir, copied, capsys, monkeypatch, fault, code, text
):
  def give_up(*args, **kwargs):
    raise fault

  monkeypatch.setattr(scoring, "evaluate", give_up)
  error = _evaluate_fails(capsys, data_dir, copied, code=code)
  assert text in error
  assert "data:" not in error


# --- convert_checkpoint and export_tf1 ----------------------------------------

_CASES = {"tiny_lstm": [16, 16], "tiny_cos": [13, 13], "tetrominoes": [35, 35]}


def _is_adam_state(name: str) -> bool:
  return name.startswith("beta") or name.endswith(("/Adam", "/Adam_1"))


def _assert_same_bits(actual, expected):
  assert set(actual) == set(expected)
  for name, value in expected.items():
    assert actual[name].dtype == value.dtype, name
    assert actual[name].shape == value.shape, name
    assert actual[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("adam", [True, False], ids=["adam", "no_adam"])
@pytest.mark.parametrize(
  "case",
  [
    "tiny_lstm",
    "tiny_cos",
    pytest.param("tetrominoes", marks=pytest.mark.slow),
  ],
)
def test_there_and_back_to_the_bit(tmp_path, case, adam):
  folder = (PARITY if case.startswith("tiny") else _SHARED) / case
  if not folder.is_dir():
    pytest.skip(f"needs {folder}")
  original = tiny.read_checkpoint(folder / "tf1_trained" / "model.ckpt")
  source = str(folder / "tf1_trained")
  if not adam:
    original = {k: v for k, v in original.items() if not _is_adam_state(k)}
    source = str(tmp_path / "weights.ckpt")
    tiny.write_checkpoint(source, original)
  words = ("with", folder / "config.json", f"data.image_dim={_CASES[case]}")
  native, exported = tmp_path / "native", tmp_path / "back" / "model.ckpt"
  words += (f"checkpoint_dir={native}",)
  run("convert_checkpoint", *words, f"tf1_checkpoint={source}")
  run("export_tf1", *words, f"tf1_checkpoint={exported}")
  actual = tiny.read_checkpoint(exported)
  if adam:
    assert any(map(_is_adam_state, original))
  else:
    fresh = {k: v for k, v in actual.items() if _is_adam_state(k)}
    actual = {k: v for k, v in actual.items() if k not in fresh}
    assert fresh.pop("beta1_power") == np.float32(0.95)
    assert fresh.pop("beta2_power") == np.float32(0.999)
    assert fresh and not any(np.any(value) for value in fresh.values())
  assert actual["global_step"] == 3
  _assert_same_bits(actual, original)
  # What was converted reads alike, and says what it was trained with.
  values = checkpoint_files.read(str(native / "model.ckpt-3"))
  _assert_same_bits({k: values[k] for k in original}, original)
  saved = json.loads((native / "config.json").read_text())
  assert saved["model"]["inner_batch_size"] == 2


@pytest.fixture(scope="module")
def converted(data_dir, tmp_path_factory) -> pathlib.Path:
  """The folder of tiny_cos as a run. Not to be changed."""
  folder = tmp_path_factory.mktemp("converted") / "run"
  run("convert_checkpoint", *_tiny_cos(data_dir, folder), *_SOURCE)
  return folder


_SOURCE = (f"tf1_checkpoint={PARITY}/tiny_cos/tf1_trained",)


def _tiny_cos(data_dir, folder):
  path = data_dir / "tetrominoes_train.tfrecords"
  return (
    "with",
    PARITY / "tiny_cos" / "config.json",
    "data.image_dim=[13, 13]",
    f"data.path={path}",
    f"checkpoint_dir={folder}",
  )


@pytest.mark.slow
def test_a_converted_checkpoint_goes_on_training(data_dir, converted, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(converted, folder)
  words = ("continue_run=True", "stop_after_steps=5")
  run(*_tiny_cos(data_dir, folder), *words)
  values = checkpoint_files.read(checkpoint_files.find(str(folder)))
  before = checkpoint_files.read(checkpoint_files.find(str(converted)))
  assert (before["global_step"], values["global_step"]) == (3, 5)
  name = "model/iodine/initial_sample_distribution"
  assert np.all(values[name] != before[name])
  # Adam went on from the moments that were converted.
  powers = before["beta2_power"] * np.float32(0.999) * np.float32(0.999)
  assert values["beta2_power"] == pytest.approx(powers, rel=1e-6)


@pytest.mark.slow
def test_training_goes_on_from_the_references_files(data_dir, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(PARITY / "tiny_cos" / "tf1_trained", folder)
  words = ("continue_run=True", "stop_after_steps=4")
  run(*_tiny_cos(data_dir, folder), *words)
  assert checkpoint_files.find(str(folder)) == str(folder / "model.ckpt-4")
  assert checkpoint_files.read(str(folder / "model.ckpt-4"))["global_step"] == 4


def test_evaluate_reads_the_references_files(data_dir, tmp_path, caplog):
  folder = tmp_path / "released"
  shutil.copytree(PARITY / "tiny_cos" / "tf1_trained", folder)
  words = ("num_scenes=3", "paper_batch_size=32")
  run("evaluate", *_tiny_cos(data_dir, folder), *words)
  assert _result(folder / "evaluation")["scenes"] == 3
  assert "Inner losses are divided by 32" in caplog.text
  assert "unused" not in caplog.text  # no optimizer, no news of its state


def test_export_of_a_trained_run(data_dir, trained, tmp_path):
  target = tmp_path / "exported" / "model.ckpt"
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={trained}")
  run("export_tf1", *words, f"tf1_checkpoint={target}")
  actual = tiny.read_checkpoint(target)
  expected = checkpoint_files.read(checkpoint_files.find(str(trained)))
  of_run = ("trainer_seed", "seed", "epoch", "offset", "save_counter")
  expected = {k: v for k, v in expected.items() if k not in of_run}
  _assert_same_bits(actual, expected)
  assert actual["global_step"] == STEPS
  assert np.any(actual["encoder_net/cnn/mlp/linear_0/w/Adam_1"])


@pytest.mark.parametrize("name", ["config.json", "model.index"])
def test_convert_refuses_a_folder_in_use(data_dir, tmp_path, capsys, name):
  (tmp_path / name).write_text("precious")
  words = ("convert_checkpoint", *_tiny_cos(data_dir, tmp_path), *_SOURCE)
  error = fail(capsys, 2, *words)
  assert f"checkpoint_dir='{tmp_path}': exists already" in error
  assert contents(tmp_path) == {name: b"precious"}
  words = ("convert_checkpoint", *_tiny_cos(data_dir, tmp_path / name))
  assert "exists already" in fail(capsys, 2, *words, *_SOURCE)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_conversion_that_was_cut_off_is_not_continued(
  data_dir, converted, tmp_path, capsys, count
):
  # As a kill leaves a folder that was there, and empty, before.
  (tmp_path / ".iodine-0123abcd" / "new").mkdir(parents=True)
  for name in [f"model.ckpt-3{_DATA}", "manifest.json", "config.json"][:count]:
    shutil.copy(converted / name, tmp_path)
  words = (*_tiny_cos(data_dir, tmp_path), "continue_run=True")
  error = fail(capsys, 2, *words, "stop_after_steps=5")
  assert "there is no whole checkpoint" in error or "is missing" in error
  assert not list(tmp_path.glob("*.index"))


@pytest.mark.parametrize("suffix", [".index", _DATA, ".meta"])
def test_export_refuses_existing_files(
  data_dir, trained, tmp_path, capsys, suffix
):
  (tmp_path / f"model.ckpt{suffix}").write_text("precious")
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={trained}")
  words = ("export_tf1", *words, f"tf1_checkpoint={tmp_path}/model.ckpt")
  error = fail(capsys, 2, *words)
  assert f"tf1_checkpoint='{tmp_path}/model.ckpt': exists already" in error
  assert contents(tmp_path) == {f"model.ckpt{suffix}": b"precious"}


@pytest.mark.parametrize("command", ["convert_checkpoint", "export_tf1"])
def test_a_misfit_leaves_no_folder(
  data_dir, trained, tmp_path, capsys, command
):
  new = tmp_path / "new" / "place"
  keys = ("tf1_checkpoint", "checkpoint_dir")
  source, target = keys if command == "convert_checkpoint" else keys[::-1]
  words = (*TINY, "n_z=6", f"data_dir={data_dir}")
  words = (*words, f"{source}={trained}", f"{target}={new}")
  assert "does not fit the model" in fail(capsys, 2, command, *words)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "command, entry",
  [("convert_checkpoint", "from_checkpoint"), ("export_tf1", "tf1_checkpoint")],
)
def test_the_prefix_is_needed(data_dir, tmp_path, capsys, command, entry):
  words = (command, *_tiny_cos(data_dir, tmp_path / "new"))
  assert f"{entry}: missing; name " in fail(capsys, 2, *words)


def test_an_export_that_cannot_be_written(data_dir, trained, tmp_path, capsys):
  (tmp_path / "file").write_text("no folder")
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={trained}")
  words = ("export_tf1", *words)
  error = fail(capsys, 2, *words, f"tf1_checkpoint={tmp_path}/file/model.ckpt")
  assert f"tf1_checkpoint: {tmp_path}/file cannot be made" in error


# --- inspect_checkpoint -------------------------------------------------------


@pytest.mark.parametrize("given", ["trained", "exported"])
def test_inspect_lists_variables_and_fitting_configurations(
  trained, tmp_path, capsys, monkeypatch, given
):
  values = checkpoint_files.read(checkpoint_files.find(str(trained)))
  folder = trained
  if given == "exported":
    folder = tmp_path
    text = {"text": np.array(b"comment", object)}
    tiny.write_checkpoint(folder / "model.ckpt", {**values, **text})
  saved = resolution.without_derived(reading.load_file(trained / "config.json"))
  configurations = {
    "same": saved,
    "more_slots": {**saved, "num_components": 5},
    "other_size": {**saved, "n_z": 6},
  }
  monkeypatch.setattr(reading, "named_configs", lambda: configurations)
  run("inspect_checkpoint", "with", f"checkpoint_dir={folder}")
  lines = capsys.readouterr().out.splitlines()
  rows = {tuple(line.split()) for line in lines if line}
  assert ("encoder_net/cnn/mlp/linear_0/w", "6x8", "float32") in rows
  assert ("global_step", "scalar", "int64") in rows
  assert (given == "exported") == (("text", "scalar", "string") in rows)
  assert lines[0].split()[0] == sorted(values)[0]
  weights = {
    k: v
    for k, v in values.items()
    if "/" in k and not _is_adam_state(k) and "_mean_var/" not in k
  }
  assert {k for k in values if k.endswith("/Adam")} == {
    f"{k}/Adam" for k in weights
  }
  parameters = sum(value.size for value in weights.values())
  total = [line for line in lines if "parameters" in line]
  assert f": {parameters:,} parameters, {2 * parameters:,} numbers" in total[0]
  assert lines[-1].endswith("with any number of slots: same, more_slots")


_GOOGLE = PARITY / "slot_attention_tiny_autoencoder" / "tf_checkpoint"
_GOOGLES_SIZES = (
  "n_z=12",
  "num_components=3",
  "data.image_dim=[16, 32]",
  "model.encoder.output_channels=[5, 6, 7, 8]",
  "model.encoder.mlp_sizes=[10, 10]",
  "model.slot_attention.mlp_size=20",
  "model.decoder.output_channels=[7, 6, 6, 5, 5]",
  "model.decoder.strides=[2, 2, 2, 2, 1, 1]",
  "model.decoder.kernel_shapes=[5, 5, 5, 5, 5, 3]",
)


def test_a_published_checkpoint_is_converted_and_inspected(
  data_dir, tmp_path, capsys, monkeypatch
):
  words = ("with", "slot_attention_tetrominoes", *_GOOGLES_SIZES)
  words += (f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run")
  run("convert_checkpoint", *words, f"from_checkpoint={_GOOGLE}")
  values = checkpoint_files.read(checkpoint_files.find(f"{tmp_path}/run"))
  expected = np.load(_GOOGLE.parent / "expected.npz")
  name = "slot_attention/project_q"
  actual = values[f"slot_attention/{name}/w"]
  np.testing.assert_array_equal(actual, expected[f"after/{name}/kernel"])
  assert values["global_step"] == 3
  saved = resolution.without_derived(
    reading.load_file(tmp_path / "run" / "config.json")
  )
  assert "inner_batch_size" not in saved["model"]
  configurations = {"same": saved, "other_size": {**saved, "n_z": 6}}
  monkeypatch.setattr(reading, "named_configs", lambda: configurations)
  for source in (_GOOGLE, tmp_path / "run"):
    capsys.readouterr()
    run("inspect_checkpoint", "with", f"checkpoint_dir={source}")
    output = capsys.readouterr().out
    assert ": 11,479 parameters, 22,958 numbers of Adam's" in output
    assert output.endswith("with any number of slots: same\n")


def test_convert_takes_one_checkpoint(data_dir, tmp_path, capsys):
  words = ("convert_checkpoint", *_tiny_cos(data_dir, tmp_path / "run"))
  words += (*_SOURCE, f"from_checkpoint={_GOOGLE}")
  assert "both name what to convert" in fail(capsys, 2, *words)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_inspect_knows_the_papers_configurations(capsys):
  if not _SHARED.is_dir():
    pytest.skip(f"needs {_SHARED}")
  folder = _SHARED / "tetrominoes" / "tf1_trained"
  run("inspect_checkpoint", "with", f"checkpoint_dir={folder}")
  assert capsys.readouterr().out.splitlines()[-1].endswith(": tetrominoes")


def test_evaluation_takes_the_scenes_that_were_left_out(
  data_dir, copied, monkeypatch
):
  seen = []

  def stop(model, batches, **kwargs):
    seen.extend(batch["image"].numpy() for batch in batches)
    raise ConfigError("seen")

  monkeypatch.setattr(scoring, "evaluate", stop)
  with pytest.raises(SystemExit):
    _evaluate(data_dir, copied, "num_scenes=7", "held_out_scenes=7")
  dataset = datasets.Tetrominoes(
    data_dir / "tetrominoes_train.tfrecords", batch_size=7, image_dim=(9, 7)
  )
  (first,) = dataset("eval").take(1)
  np.testing.assert_array_equal(np.concatenate(seen), first["image"])


def test_the_shipped_model_takes_its_scenes_apart(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(datasets, "_NUM_SPRITES", 40)
  monkeypatch.chdir(tmp_path)
  run("evaluate", "with", "demo", f"data_dir={tmp_path}", "num_scenes=40")
  (tmp_path / "demo_train.tfrecords").unlink()
  (folder,) = tmp_path.iterdir()
  assert {path.name for path in folder.iterdir()} == FILES
  scores = json.loads((folder / "evaluation.json").read_text())["metrics"]
  # Of 1,000 scenes: 0.89, standard deviation over scenes 0.11.
  assert scores["ari_nobg"]["mean"] > 0.83
