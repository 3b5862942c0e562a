"""Tests of iodine.runs.checkpoint_files: finding and reading either format."""

import json
import logging
import os
import pathlib
import shutil

import numpy as np
import pytest

from iodine import tf1_checkpoint, training
from iodine.config import plans
from iodine.data import datasets
from iodine.runs import checkpoint_files
from iodine.runs import checkpoints as run_checkpoints
from iodine.tf1_checkpoint import CheckpointError
from tests.support import tiny
from tests.support.places import PARITY

_INDEX, _DATA = ".index", ".data-00000-of-00001"


def _touch(folder: pathlib.Path, *names: str) -> None:
  """Makes empty files; `find` does not look into them."""
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _pair(prefix: str) -> tuple[str, str]:
  return prefix + _INDEX, prefix + _DATA


def _state_file(folder: pathlib.Path, last: str) -> None:
  (folder / "checkpoint").write_text(
    f'model_checkpoint_path: "{last}"\nall_model_checkpoint_paths: "{last}"\n'
  )


# --- Finding ------------------------------------------------------------------


@pytest.mark.parametrize(
  "given",
  [
    "",
    "model.ckpt",
    "model.ckpt.index",
    "model.ckpt.meta",
    f"model.ckpt{_DATA}",
  ],
  ids=["folder", "prefix", "index", "meta", "data"],
)
@pytest.mark.parametrize("relative", [False, True])
def test_a_single_checkpoint_is_found(tmp_path, monkeypatch, given, relative):
  folder = tmp_path / "clevr6"
  _touch(folder, *_pair("model.ckpt"), "model.ckpt.meta", "notes.txt")
  monkeypatch.chdir(tmp_path)
  folder = pathlib.Path("clevr6") if relative else folder
  path = os.path.join(folder, given)
  assert checkpoint_files.find(path) == str(folder / "model.ckpt")


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  _touch(tmp_path / "runs", *_pair("model.ckpt"))
  assert checkpoint_files.find("~/runs") == str(
    tmp_path / "runs" / "model.ckpt"
  )


@pytest.mark.parametrize("relative", [False, True])
def test_of_several_the_state_file_names_one(tmp_path, monkeypatch, relative):
  folder = tmp_path / "run"
  for step in (9, 10, 200):
    _touch(folder, *_pair(f"model.ckpt-{step}"))
  monkeypatch.chdir(tmp_path)
  folder = pathlib.Path("run") if relative else folder
  assert checkpoint_files.find(str(folder)) == str(folder / "model.ckpt-200")
  _state_file(folder, "model.ckpt-9")
  assert checkpoint_files.find(str(folder)) == str(folder / "model.ckpt-9")


@pytest.mark.parametrize("exists", [False, True])
def test_a_state_file_of_another_place_means_the_file_here(tmp_path, exists):
  folder, elsewhere = tmp_path / "copy", tmp_path / "original"
  for name in ("first.ckpt", "second.ckpt"):
    _touch(folder, *_pair(name))
    if exists:
      _touch(elsewhere, *_pair(name))
  _state_file(folder, str(elsewhere / "first.ckpt"))
  assert checkpoint_files.find(str(folder)) == str(folder / "first.ckpt")


def test_a_state_file_may_name_what_lies_elsewhere(tmp_path):
  _touch(tmp_path / "original", *_pair("model.ckpt"))
  (tmp_path / "pointer").mkdir()
  _state_file(tmp_path / "pointer", str(tmp_path / "original" / "model.ckpt"))
  expected = str(tmp_path / "original" / "model.ckpt")
  assert checkpoint_files.find(str(tmp_path / "pointer")) == expected


def test_a_state_file_that_names_nothing_is_told_of(tmp_path, caplog):
  _touch(tmp_path, *_pair("model.ckpt-3"), *_pair("model.ckpt-12"))
  _state_file(tmp_path, "/gone/model.ckpt-40")
  assert checkpoint_files.find(str(tmp_path)) == str(tmp_path / "model.ckpt-12")
  assert "/gone/model.ckpt-40, which is not there" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"not a state file"])
def test_a_damaged_state_file_is_none(tmp_path, content):
  _touch(tmp_path, *_pair("model.ckpt-3"), *_pair("model.ckpt-12"))
  (tmp_path / "checkpoint").write_bytes(content)
  assert checkpoint_files.find(str(tmp_path)) == str(tmp_path / "model.ckpt-12")


def _find_fails(path: object, *fragments: object) -> None:
  with pytest.raises(CheckpointError) as error:
    checkpoint_files.find(str(path))
  for fragment in (path, *fragments):
    assert str(fragment) in str(error.value), error.value


def test_several_without_a_choice_are_listed(tmp_path):
  _touch(tmp_path, *_pair("a.ckpt"), *_pair("b.ckpt-7"))
  _find_fails(
    tmp_path, "2 checkpoints", tmp_path / "a.ckpt", tmp_path / "b.ckpt-7"
  )
  # Steps of different runs are not compared either.
  _touch(tmp_path / "steps", *_pair("a.ckpt-3"), *_pair("b.ckpt-7"))
  _find_fails(tmp_path / "steps", "2 checkpoints")


def test_a_list_does_not_go_on_for_ever(tmp_path):
  for i in range(14):
    _touch(tmp_path, *_pair(f"model{i:02}.ckpt"))
  _find_fails(tmp_path, "14 checkpoints", "model09.ckpt and 4 more")


def test_checkpoints_a_folder_below_are_listed(tmp_path):
  for name in ("clevr6", "tetrominoes"):
    _touch(tmp_path / name, *_pair("model.ckpt"))
  folders = (f"{tmp_path}/clevr6, {tmp_path}/tetrominoes",)
  _find_fails(tmp_path, "no checkpoint", *folders)
  _find_fails(tmp_path / "clevr", "no checkpoint", *folders)


def test_a_folder_without_any_lists_what_it_holds(tmp_path):
  _find_fails(tmp_path, "no checkpoint", "holds: nothing")
  _touch(tmp_path, "checkpoints.zip", "config.json")
  _find_fails(tmp_path, "no checkpoint", "holds: checkpoints.zip, config.json")


def test_a_place_that_does_not_exist(tmp_path):
  folder = tmp_path / "nowhere"
  _find_fails(folder / "model.ckpt", f"The folder {folder} does not exist")


def test_a_wrong_prefix_lists_the_right_one(tmp_path):
  _touch(tmp_path, *_pair("model.ckpt-3"))
  _find_fails(
    tmp_path / "model.ckpt-4", f"Name one of: {tmp_path}/model.ckpt-3"
  )


@pytest.mark.parametrize("given", ["", "model.ckpt", "model.ckpt.index"])
def test_missing_shards_are_named(tmp_path, given):
  _touch(tmp_path, "model.ckpt.index", "model.ckpt.data-00001-of-00004")
  path = os.path.join(tmp_path, given)
  with pytest.raises(CheckpointError) as error:
    checkpoint_files.find(path)
  missing = [f"{tmp_path}/model.ckpt.data-0000{i}-of-00004" for i in (0, 2, 3)]
  assert f"is missing: {', '.join(missing)}." in str(error.value)


def test_all_shards_are_enough(tmp_path):
  shards = [f"model.ckpt.data-0000{i}-of-00003" for i in range(3)]
  _touch(tmp_path, "model.ckpt.index", *shards, "model.ckpt-2.index")
  prefix = str(tmp_path / "model.ckpt")
  assert checkpoint_files.find(prefix) == prefix
  # Another checkpoint's files do not count.
  _find_fails(f"{prefix}-2", f"is missing: {prefix}-2{_DATA}")


def test_a_missing_index_is_named(tmp_path):
  _touch(tmp_path, f"model.ckpt{_DATA}")
  prefix = tmp_path / "model.ckpt"
  _find_fails(f"{prefix}{_DATA}"[: -len(_DATA)], "no checkpoint", _DATA)
  _find_fails(tmp_path, "no checkpoint", f"holds: model.ckpt{_DATA}")
  with pytest.raises(CheckpointError, match="is missing: .*model.ckpt.index"):
    checkpoint_files.find(f"{prefix}{_DATA}")
  # An older one is not taken for it.
  _touch(tmp_path, *_pair("older.ckpt"))
  _state_file(tmp_path, "model.ckpt")
  _find_fails(tmp_path, f"is missing: {prefix}.index")


def test_one_of_a_pair_that_is_gone_lists_what_is_there(tmp_path):
  _touch(tmp_path, *_pair("other.ckpt"))
  with pytest.raises(CheckpointError) as error:
    checkpoint_files.find(f"{tmp_path}/model.ckpt.index")
  assert f"{tmp_path}/model.ckpt.index." in str(error.value)
  assert f"Name one of: {tmp_path}/other.ckpt" in str(error.value)


# --- Reading and restoring ----------------------------------------------------


def _state(trainer: training.Trainer) -> dict[str, np.ndarray]:
  """{the reference's name: value}."""
  variables = (*trainer.model.variables, *trainer.optimizer.variables)
  return {tf1_checkpoint.reference_name(v.name): v.numpy() for v in variables}


def _assert_equal(actual, expected):
  assert set(actual) == set(expected)
  for name, value in expected.items():
    assert actual[name].dtype == value.dtype, name
    np.testing.assert_array_equal(actual[name], value, err_msg=name)


def _dataset(folder: pathlib.Path, **overrides) -> datasets.Tetrominoes:
  plan = {"batch_size": 2, "seed": 5, **overrides}
  return datasets.Tetrominoes(folder / "none.tfrecords", **plan)


@pytest.fixture(scope="module")
def trained() -> training.Trainer:
  """After a step, so that no moment is zero. Not to be changed."""
  trainer = tiny.trainer()
  trainer.step(tiny.batch(), noise=tiny.noise())
  return trainer


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> dict[str, str]:
  """Prefixes of the same state in both formats."""
  folder = tmp_path_factory.mktemp("formats")
  tf1 = str(folder / "tf1" / "model.ckpt")
  (folder / "tf1").mkdir()
  tf1_checkpoint.save(tf1, trained.model, trained.optimizer)
  (folder / "native").mkdir()
  run = run_checkpoints.RunCheckpoints(folder / "native", trained, keep=2)
  native = run.save(_dataset(folder), datasets.Position(1, 6))
  assert run.latest == native == str(folder / "native" / "model.ckpt-1")
  return {"tf1": tf1, "native": native}


@pytest.fixture(params=["tf1", "native"])
def prefix(request, files) -> str:
  return files[request.param]


def test_both_formats_read_alike(trained, files):
  expected = _state(trained)
  assert expected["global_step"] == 1
  assert len([n for n in expected if n.endswith("/Adam_1")]) > 20
  _assert_equal(checkpoint_files.read(files["tf1"]), expected)
  values = checkpoint_files.read(files["native"])
  of_run = {"trainer_seed": 3, "seed": 5, "epoch": 1, "offset": 6}
  assert {name: values.pop(name) for name in of_run} == of_run
  _assert_equal(values, expected)


def test_both_formats_restore_everything(trained, prefix):
  other = tiny.trainer()
  report = checkpoint_files.restore(prefix, other.model, other.optimizer)
  _assert_equal(_state(other), _state(trained))
  assert report == (tuple(sorted(_state(trained))), (), ())


@pytest.mark.parametrize("where", ["folder", "data"])
def test_restoring_finds_the_files(trained, prefix, where):
  model = tiny.build()
  model.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  given = (
    prefix + _DATA if where == "data" else str(pathlib.Path(prefix).parent)
  )
  report = checkpoint_files.restore(given, model)
  assert report.unused == ()
  expected = tiny.values(trained.model.variables)
  for name, value in tiny.values(model.variables).items():
    np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_another_number_of_slots_and_steps(trained, prefix):
  model = tiny.build(num_components=5, num_iters=4)
  model.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  report = checkpoint_files.restore(prefix, model)
  assert report.missing == ()
  info = model.eval(tiny.batch(), noise=tiny.noise(4, 5, 4))
  assert info["outputs"]["pred_mask"].shape == (4, 5, 5, tiny.H, tiny.W, 1)
  expected = tiny.values(trained.model.variables)
  np.testing.assert_equal(tiny.values(model.variables), expected)


@pytest.mark.parametrize("suffix", [_INDEX, _DATA])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_damaged_files_are_one_error_and_change_nothing(
  trained, prefix, tmp_path, suffix, damage
):
  for part in (_INDEX, _DATA):
    shutil.copy(prefix + part, tmp_path / f"copy.ckpt{part}")
  path = tmp_path / f"copy.ckpt{suffix}"
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0xFF
  kept = {"truncated": len(content) // 2, "flipped": None, "emptied": 0}[damage]
  path.write_bytes(content[:kept])
  before = tiny.values(trained.model.variables)
  with pytest.raises(CheckpointError) as error:
    checkpoint_files.restore(str(tmp_path), trained.model)
  assert f"{tmp_path}/copy.ckpt: cannot be read" in str(error.value)
  np.testing.assert_equal(tiny.values(trained.model.variables), before)


def test_a_damaged_object_graph_is_an_error(tmp_path):
  prefix = tmp_path / "model.ckpt"
  graph = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"\xff\xff graph")}
  tiny.write_checkpoint(prefix, graph)
  with pytest.raises(CheckpointError, match="object graph is damaged"):
    checkpoint_files.read(str(prefix))


def test_strings_keep_zeros_at_their_end(tmp_path):
  prefix = tmp_path / "model.ckpt"
  tiny.write_checkpoint(prefix, {"text": np.array(b"ab\0\0", object)})
  assert checkpoint_files.read(str(prefix))["text"].item() == b"ab\0\0"


# --- The report ---------------------------------------------------------------


def test_the_report_is_one_table(trained, files, tmp_path, caplog):
  values = checkpoint_files.read(files["tf1"])
  evaluator = "factor_evaluator/repres_content/predict_latents"
  missing = ("global_step", f"{evaluator}/w", f"{evaluator}/b")
  named = {k: v for k, v in values.items() if k not in missing}
  named = {k: v for k, v in named.items() if not k.endswith("/Adam_1")}
  named["dataset/epoch"] = np.int64(3)
  tiny.write_checkpoint(tmp_path / "model.ckpt", named)
  other = tiny.trainer()
  caplog.set_level(logging.INFO, "iodine.runs.checkpoint_files")
  report = checkpoint_files.restore(str(tmp_path), other.model, other.optimizer)
  (record,) = caplog.records
  lines = record.getMessage().splitlines()
  found = len(report.found)
  assert lines[0] == f"Restored {tmp_path}/model.ckpt: {found} variables"
  slots = len(trained.model.trainable_variables)
  rest = [tuple(x.rsplit(" ", 1)) for x in lines[1:] if "moments" not in x]
  listed = {(kind.strip(), name) for kind, name in rest}
  assert listed == {
    *(("missing, as it was", name) for name in missing),
    *(("missing, as it was", f"beta{i}_power") for i in (1, 2)),
    ("unused", "dataset/epoch"),
  }
  (moments,) = [x for x in lines[1:] if "moments" in x]
  assert moments.split("missing, as it was")[1].strip() == (
    f"Adam's moments of {slots} variables"
  )


def test_without_an_optimizer_its_state_is_no_news(prefix, caplog):
  model = tiny.initialized()
  caplog.set_level(logging.INFO, "iodine.runs.checkpoint_files")
  report = checkpoint_files.restore(prefix, model)
  assert report[1:] == ((), ())
  (message,) = caplog.messages
  assert message == f"Restored {prefix}: {len(report.found)} variables"


def test_what_is_no_optimizers_is_unused(files, tmp_path, caplog):
  values = {**checkpoint_files.read(files["tf1"]), "dataset/epoch": np.int64(3)}
  tiny.write_checkpoint(tmp_path / "model.ckpt", values)
  caplog.set_level(logging.INFO, "iodine.runs.checkpoint_files")
  report = checkpoint_files.restore(str(tmp_path), tiny.initialized())
  assert report.unused == ("dataset/epoch",)
  assert caplog.messages[0].splitlines()[1:] == [
    "  unused             dataset/epoch"
  ]


# --- Misfits ------------------------------------------------------------------


def _misfit_text(prefix: str, plan: dict) -> str:
  """The error of a model of another plan, which stays as it is."""
  model = plans.build(plan, identifier="model")
  model.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  before = tiny.values(model.variables)
  with pytest.raises(CheckpointError) as error:
    checkpoint_files.restore(prefix, model)
  np.testing.assert_equal(tiny.values(model.variables), before)
  return str(error.value)


@pytest.mark.parametrize("kind", ["tf1", "native"])
def test_a_misfit_lists_names_with_both_shapes(files, kind):
  text = _misfit_text(files[kind], tiny.plan(n_z=6))
  first, title, *lines, last = text.splitlines()
  prefix = checkpoint_files.find(files[kind])
  assert first.startswith(f"{prefix}: does not fit the model")
  assert title == "Shapes or types differ:"
  name = "model/iodine/initial_sample_distribution"
  assert f"  {name}: [10] in the checkpoint, [12] in the model" in lines
  assert all(" in the checkpoint, " in line for line in lines)
  assert f"inspect_checkpoint with checkpoint_dir={prefix}`" in last


def test_layers_that_are_not_there_are_listed(files):
  plan = tiny.plan()
  convolutions = plan["decoder"]["pixel_decoder"]["cnn_opt"]
  convolutions["output_channels"] = [4, 4, None]
  text = _misfit_text(files["native"], plan)
  layer = "pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_2"
  assert f"Not in the checkpoint:\n  {layer}/b\n  {layer}/w" in text


# --- The checkpoints of a run -------------------------------------------------


def test_a_run_goes_on_where_it_was_saved(trained, files, tmp_path):
  folder = pathlib.Path(files["native"]).parent
  other = tiny.trainer()
  other.seed.assign(11)
  dataset = _dataset(tmp_path, seed=12)
  run = run_checkpoints.RunCheckpoints(folder, other, keep=2)
  assert run.restore(dataset) == datasets.Position(1, 6)
  assert (int(other.seed), dataset.seed) == (3, 5)
  _assert_equal(_state(other), _state(trained))


@pytest.mark.parametrize("name", ["tiny_lstm", "tiny_cos"])
def test_a_run_goes_on_from_a_checkpoint_of_the_reference(tmp_path, name):
  shutil.copytree(PARITY / name / "tf1_trained", tmp_path / "run")
  config = json.loads((PARITY / name / "config.json").read_text())
  recorded = np.load(PARITY / name / "inputs.npz")
  model = plans.build(config["model"], identifier="model")
  trainer = training.Trainer(model, training.make_optimizer(1e-3), seed=7)
  factors = {
    key.removeprefix("factors/"): recorded[key].shape[-1]
    for key in recorded.files
    if key.startswith("factors/")
  }
  trainer.initialize(recorded["image"].shape[2:], factors)
  run = run_checkpoints.RunCheckpoints(tmp_path / "run", trainer, keep=1)
  dataset = _dataset(tmp_path)
  assert run.restore(dataset) == datasets.Position(0, 0)
  assert (int(trainer.seed), dataset.seed) == (7, 5)
  original = checkpoint_files.read(
    str(PARITY / name / "tf1_trained/model.ckpt")
  )
  _assert_equal(_state(trainer), original)
  saved = run.save(dataset, datasets.Position(2, 1))
  # The original stays, and what training saved is the last one.
  assert (tmp_path / "run" / "model.ckpt.index").is_file()
  assert checkpoint_files.find(str(tmp_path / "run")) == saved
  assert run.restore(dataset) == datasets.Position(2, 1)


def test_an_empty_folder_is_a_new_run(trained, tmp_path):
  before = _state(trained)
  run = run_checkpoints.RunCheckpoints(tmp_path, trained, keep=1)
  assert run.restore(_dataset(tmp_path)) == datasets.Position(0, 0)
  assert run.latest is None
  _assert_equal(_state(trained), before)


@pytest.mark.parametrize("suffix", [_INDEX, _DATA])
def test_half_a_checkpoint_is_no_new_run(trained, files, tmp_path, suffix):
  shutil.copy(files["native"] + suffix, tmp_path / f"model.ckpt-1{suffix}")
  run = run_checkpoints.RunCheckpoints(tmp_path, trained, keep=1)
  with pytest.raises(CheckpointError, match="missing|no whole"):
    run.restore(_dataset(tmp_path))
  assert [x.name for x in tmp_path.iterdir()] == [f"model.ckpt-1{suffix}"]


# --- The model that comes with the package ------------------------------------


def test_the_shipped_model_stands_in_for_one_of_its_name(
  tmp_path, monkeypatch, caplog
):
  caplog.set_level(logging.INFO)
  monkeypatch.chdir(tmp_path)
  prefix = checkpoint_files.find("checkpoints/demo")
  assert checkpoint_files.is_shipped(prefix)
  assert "There is no checkpoints/demo: using the model shipped" in caplog.text
  for path in ("demo", "other/demo", "checkpoints/clevr6", "checkpoints/.."):
    with pytest.raises(checkpoint_files.CheckpointError, match="no checkpoint"):
      checkpoint_files.find(path)
  (tmp_path / "checkpoints" / "demo").mkdir(parents=True)
  with pytest.raises(checkpoint_files.CheckpointError, match="no checkpoint"):
    checkpoint_files.find("checkpoints/demo")
  assert not checkpoint_files.is_shipped(str(tmp_path / "model.ckpt"))


def _run(folder: pathlib.Path) -> pathlib.Path:
  folder.mkdir(parents=True)
  for suffix in (_INDEX, _DATA):
    (folder / f"model.ckpt-3{suffix}").touch()
  return folder


def test_the_newest_run_goes_before_the_shipped_model(
  tmp_path, monkeypatch, caplog
):
  caplog.set_level(logging.INFO)
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / "checkpoints"
  for name in ("demo_2", "demo_9", "demo_10", "demo_last", "demo_2_99"):
    _run(folder / name)
  (folder / "demo_11").mkdir()  # has none yet
  prefix = checkpoint_files.find("checkpoints/demo")
  assert prefix == "checkpoints/demo_10/model.ckpt-3"
  assert "using its newest run, checkpoints/demo_10. `checkp" in caplog.text
  assert checkpoint_files.find("checkpoints/demo_2").startswith(
    "checkpoints/demo_2/"
  )
  _run(folder / "demo")
  assert checkpoint_files.find("checkpoints/demo").startswith(
    "checkpoints/demo/"
  )


def test_the_newest_run_of_names_with_wildcards(tmp_path):
  _run(tmp_path / "a_7")
  _run(tmp_path / "[a]_1")
  prefix = checkpoint_files.find(str(tmp_path / "[a]"))
  assert prefix == str(tmp_path / "[a]_1" / "model.ckpt-3")
