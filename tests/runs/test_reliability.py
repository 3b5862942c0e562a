"""What keeps a run whole: order of writing, what a kill leaves, records."""

import importlib.metadata
import json
import logging
import os
import pathlib
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from sacred import Experiment
from sacred.observers import FileStorageObserver
from sacred.utils import apply_backspaces_and_linefeeds

from iodine import errors, experiment
from iodine.errors import ConfigError
from iodine.runs import lock as run_lock
from iodine.runs import loop as training_loop
from iodine.runs import summaries
from iodine.runs import versions as run_versions
from tests.support.loop_runs import checkpoints, train
from tests.support.tiny_runs import (
  NUM_SCENES,
  TINY,
  contents,
  fail,
  write_scenes,
)
from tests.support.tiny_runs import run as run_command

STEPS = 8  # of a whole run, with checkpoints at 3, 6 and 8; two are kept


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data")
  return write_scenes(folder / "scenes.tfrecords", NUM_SCENES)


@pytest.fixture(scope="module")
def whole_run(scenes, tmp_path_factory):
  """An undisturbed run's folder and metrics; not to be changed."""
  folder = tmp_path_factory.mktemp("runs") / "whole"
  metrics = train(scenes, folder)
  (folder / "config.json").write_text("{}")
  return folder, metrics


@pytest.fixture
def killed_run(whole_run, scenes, tmp_path) -> pathlib.Path:
  """The folder of a run that died after step 7, saved at 3 and 6."""

  class Death(Exception):
    pass

  def die(trainer, step, loss):
    if step == 7:
      raise Death

  folder = tmp_path / "run"
  with pytest.raises(Death):
    train(scenes, folder, on_metric=die)
  (folder / "config.json").write_text("{}")
  assert checkpoints(folder) == {"model.ckpt-3", "model.ckpt-6"}
  return folder


def assert_goes_on(folder, scenes, whole_run, first: int) -> None:
  """The run goes on with a step, and ends as the whole run."""
  whole_folder, whole = whole_run
  metrics = train(scenes, folder)
  assert list(metrics["loss"]) == list(range(first, STEPS + 1))
  for step, loss in metrics["loss"].items():
    # On several threads, sums may be rounded differently from run to run.
    assert loss == pytest.approx(whole["loss"][step], rel=1e-4)
  names, whole_names = (
    {x.name for x in path.iterdir() if "tfevents" not in x.name}
    for path in (folder, whole_folder)
  )
  assert names == whole_names
  steps, values = summaries.read_scalars(folder)["loss/total"]
  np.testing.assert_array_equal(steps, np.arange(1, STEPS + 1))
  expected = [whole["loss"][step] for step in steps]
  np.testing.assert_allclose(values, expected, rtol=1e-4)


# --- What a kill may leave ----------------------------------------------------


def test_a_run_that_died_goes_on(killed_run, scenes, whole_run):
  assert_goes_on(killed_run, scenes, whole_run, 7)


@pytest.mark.slow
def test_what_was_being_written_is_removed(killed_run, scenes, whole_run):
  saving = killed_run / ".model.ckpt.saving"
  saving.mkdir()
  (saving / "model.ckpt-7.index").write_bytes(b"x")
  (killed_run / ".manifest.json.0123abcd.partial").write_bytes(b"x")
  assert_goes_on(killed_run, scenes, whole_run, 7)
  assert not saving.exists()


@pytest.mark.slow
@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_checkpoint_is_finished_that_the_manifest_names(
  killed_run, scenes, whole_run, moved
):
  saving = killed_run / ".model.ckpt.saving"
  saving.mkdir()
  # Data are moved before the index.
  for path in sorted(killed_run.glob("model.ckpt-6.*"))[moved:]:
    path.rename(saving / path.name)
  state = (killed_run / "checkpoint").read_text()
  (killed_run / "checkpoint").write_text(state.replace("-6", "-3"))
  assert_goes_on(killed_run, scenes, whole_run, 7)
  assert not saving.exists()


def test_a_checkpoint_that_was_not_announced_does_not_count(
  killed_run, scenes, whole_run
):
  for suffix in ("index", "data-00000-of-00001"):
    shutil.copy(
      whole_run[0] / f"model.ckpt-{STEPS}.{suffix}",
      killed_run / f"model.ckpt-{STEPS}.{suffix}",
    )
  assert_goes_on(killed_run, scenes, whole_run, 7)


@pytest.mark.parametrize("kind", ["index", "data-*"])
def test_an_old_checkpoint_may_be_half_removed(
  killed_run, scenes, whole_run, kind
):
  (path,) = killed_run.glob(f"model.ckpt-3.{kind}")
  path.unlink()
  assert_goes_on(killed_run, scenes, whole_run, 7)


@pytest.mark.parametrize("size", [None, 0, 1000])
def test_a_first_checkpoint_that_is_not_whole_does_not_count(
  killed_run, scenes, whole_run, caplog, size
):
  (killed_run / "checkpoint").unlink()
  (killed_run / "manifest.json").unlink()  # earlier versions wrote none
  for path in killed_run.glob("model.ckpt-6.*"):
    path.unlink()
  (path,) = killed_run.glob("*.index")
  if size is None:
    path.unlink()
  else:
    os.truncate(path, size)
  assert_goes_on(killed_run, scenes, whole_run, 1)
  assert "The first checkpoint in" in caplog.text


def test_a_first_checkpoint_that_was_not_announced_counts(
  killed_run, scenes, whole_run
):
  (killed_run / "checkpoint").unlink()
  (killed_run / "manifest.json").unlink()
  for path in killed_run.glob("model.ckpt-6.*"):
    path.unlink()
  metrics = train(scenes, killed_run)
  assert list(metrics["loss"]) == list(range(4, STEPS + 1))


def test_a_picture_that_is_missing_at_the_end_is_drawn(
  whole_run, scenes, tmp_path
):
  folder = pathlib.Path(shutil.copytree(whole_run[0], tmp_path / "copy"))
  picture = folder / training_loop.PICTURE_NAME
  expected = tf.io.decode_png(picture.read_bytes()).shape
  picture.unlink()
  assert train(scenes, folder) == {}
  assert tf.io.decode_png(picture.read_bytes()).shape == expected


# --- The order of writing -----------------------------------------------------


def test_records_are_on_disk_before_a_checkpoint_is(
  scenes, tmp_path, monkeypatch
):
  folder = tmp_path / "run"
  flushed = []
  loop = training_loop.run

  def flush():
    steps, _ = summaries.read_scalars(folder)["loss/total"]
    flushed.append((int(steps[-1]), checkpoints(folder)))

  monkeypatch.setattr(
    training_loop,
    "run",
    lambda *args: loop(*args, flush_metrics=flush),
  )
  train(scenes, folder, keep_checkpoints=5)
  names = [f"model.ckpt-{step}" for step in (3, 6)]
  assert flushed == [(3, set()), (6, {names[0]}), (8, set(names))]


@pytest.mark.parametrize("function", ["scalar", "image", "flush"])
def test_summaries_that_cannot_be_written_end_the_run(
  scenes, tmp_path, monkeypatch, function
):
  def refuse(*_, **__):
    raise tf.errors.ResourceExhaustedError(None, None, "No space left\n at x")

  if function == "flush":
    create = tf.summary.create_file_writer

    def create_broken(path):
      writer = create(path)
      writer.flush = refuse
      return writer

    monkeypatch.setattr(tf.summary, "create_file_writer", create_broken)
  else:
    monkeypatch.setattr(tf.summary, function, refuse)
  with pytest.raises(errors.RunError) as error:
    train(scenes, tmp_path / "run")
  step = {"scalar": 1, "image": 4, "flush": 3}[function]
  text = str(error.value)
  assert text.startswith(f"step {step}: the summaries cannot be written (No s")
  latest = {"image": f"The last good checkpoint is {tmp_path}/run/model.ckpt-3"}
  assert latest.get(function, "There is no checkpoint yet.") in text


# --- Versions -----------------------------------------------------------------


def test_versions_get_an_entry_for_each_start(tmp_path):
  run_versions.save_versions(tmp_path, 0)
  run_versions.save_versions(tmp_path, 40)
  assert {x.name for x in tmp_path.iterdir()} == {"versions.json"}
  first, second = json.loads((tmp_path / "versions.json").read_text())
  assert (first["step"], second["step"]) == (0, 40)
  assert first["packages"]["numpy"] == np.__version__
  assert first["packages"]["sacred"] == importlib.metadata.version("sacred")
  assert first["python"].startswith("3.")
  assert first["date"] <= second["date"]
  assert first["format"] == 1
  assert first["threads"] >= 1


def test_versions_tell_the_number_of_threads(tmp_path, monkeypatch):
  monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
  run_versions.save_versions(tmp_path, 0)
  (entry,) = json.loads((tmp_path / "versions.json").read_text())
  assert entry["threads"] == 7


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"{}", b"[" * 10**5])
def test_versions_that_cannot_be_read_begin_anew(tmp_path, content, caplog):
  (tmp_path / "versions.json").write_bytes(content)
  run_versions.save_versions(tmp_path, 7)
  (entry,) = json.loads((tmp_path / "versions.json").read_text())
  assert entry["step"] == 7
  aside = tmp_path / "versions.json.damaged-1"
  assert aside.read_bytes() == content
  assert "what it held is in versions.json.damaged-1" in caplog.text
  (tmp_path / "versions.json").write_bytes(b"again")
  run_versions.save_versions(tmp_path, 8)
  assert aside.read_bytes() == content
  assert (tmp_path / "versions.json.damaged-2").read_bytes() == b"again"


def test_entries_of_versions_of_later_formats_are_kept(tmp_path):
  later = [{"format": 99, "x": [1]}]
  (tmp_path / "versions.json").write_text(json.dumps(later))
  run_versions.save_versions(tmp_path, 7)
  entries = json.loads((tmp_path / "versions.json").read_text())
  assert entries[:1] == later
  assert entries[1]["step"] == 7


@pytest.fixture
def package(tmp_path, monkeypatch) -> pathlib.Path:
  """A folder that holds this package, as far as it knows."""
  root = tmp_path / "root"
  (root / "iodine" / "runs").mkdir(parents=True)
  (root / "iodine" / "runs" / "versions.py").touch()
  path = str(root / "iodine" / "runs" / "versions.py")
  monkeypatch.setattr(run_versions, "__file__", path)
  return root


def saved_commit(folder: pathlib.Path) -> str | None:
  run_versions.save_versions(folder, 0)
  return json.loads((folder / "versions.json").read_text())[-1]["commit"]


def git(folder: pathlib.Path, *words: str) -> str:
  identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
  command = ["git", "-C", str(folder), *identity, *words]
  return subprocess.run(
    command, check=True, capture_output=True, text=True
  ).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_a_checkout_is_told(package, tmp_path):
  git(tmp_path, "init")  # around the package, and none of its business
  git(tmp_path, "commit", "--allow-empty", "-m", "x")
  assert saved_commit(tmp_path) is None
  git(package, "init")
  assert saved_commit(tmp_path) is None  # there is no commit yet
  git(package, "add", ".")
  git(package, "commit", "-m", "x")
  git(package, "tag", "v1")
  commit = git(package, "rev-parse", "HEAD")
  assert saved_commit(tmp_path) == commit
  (package / "iodine" / "runs" / "versions.py").write_text("changed")
  assert saved_commit(tmp_path) == f"{commit}-dirty"


def test_without_git_there_is_no_commit(package, tmp_path, monkeypatch):
  (package / ".git").mkdir()
  monkeypatch.setenv("PATH", "")
  assert saved_commit(tmp_path) is None


# --- Sacred's records ---------------------------------------------------------


@pytest.mark.parametrize(
  "text",
  [
    "",
    "one\ntwo\n",
    "one\n 10%\r 20%\r100%\ntwo\n",
    "\rone\ntwo",
    "one\ntwp\bo\n\nthree\rT",
    "one\r\ntwo\r\n",
    "a\b\b\bb\nc",
    "one\ntwo\r",
  ],
)
def test_output_is_filtered_as_sacred_does(text):
  assert experiment.filter_output(text) == apply_backspaces_and_linefeeds(text)


def sacred_run(storage: pathlib.Path, function) -> None:
  """Runs a function of Sacred's run, observed and made safe."""
  own = Experiment("test", save_git_info=False)
  own.observers.append(FileStorageObserver(storage))
  own.main(lambda _run: function(_run))
  run = own._create_run()
  experiment.make_safe(run)
  run()


def test_metrics_of_several_threads_are_all_recorded(tmp_path, monkeypatch):
  count = 200
  busy, overlaps = [], []
  log_metrics = FileStorageObserver.log_metrics

  def slow_log_metrics(*args):
    overlaps.extend(busy)
    busy.append(1)
    time.sleep(0.001)
    log_metrics(*args)
    busy.pop()

  monkeypatch.setattr(FileStorageObserver, "log_metrics", slow_log_metrics)

  def log(run):
    def beat():
      for step in range(50):
        run.log_scalar("beat", 1.0, step)
        run._emit_heartbeat()

    threads = [threading.Thread(target=beat) for _ in range(4)]
    for thread in threads:
      thread.start()
    for step in range(count):
      run.log_scalar("loss", step / 7, step)
    for thread in threads:
      thread.join()

  sacred_run(tmp_path, log)
  assert not overlaps
  record = json.loads((tmp_path / "1" / "metrics.json").read_text())["loss"]
  assert record["steps"] == list(range(count))
  assert record["values"] == [step / 7 for step in range(count)]
  assert len(record["timestamps"]) == count
  status = json.loads((tmp_path / "1" / "run.json").read_text())["status"]
  assert status == "COMPLETED"


def test_a_record_that_cannot_be_begun_is_an_error(tmp_path, monkeypatch):
  def refuse(*_, **__):
    raise OSError(30, "Read-only file system")

  monkeypatch.setattr(FileStorageObserver, "_make_run_dir", refuse)
  with pytest.raises(ConfigError, match=r"--file_storage=.*: cannot be writt"):
    sacred_run(tmp_path, lambda run: None)


# --- The command line ---------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
  """A folder with data and a finished run, run_1; not to be changed."""
  folder = tmp_path_factory.mktemp("finished")
  write_scenes(folder / "tetrominoes_train.tfrecords", NUM_SCENES)
  words = (*TINY, f"data_dir={folder}", "stop_after_steps=2", "seed=3")
  run_command(*words, f"checkpoint_dir={folder}/run")
  return folder


def continued(folder: pathlib.Path, *words: object) -> tuple:
  data = f"data_dir={folder}"
  place = f"checkpoint_dir={folder}/run_1"
  return (*TINY, data, place, "stop_after_steps=2", "continue_run=True", *words)


def test_another_model_is_told_and_changes_nothing(finished, capsys):
  before = contents(finished / "run_1")
  error = fail(capsys, 2, *continued(finished, "n_z=6"))
  assert error.startswith("ConfigError: checkpoint_dir=")
  assert "  n_z: saved 5, now 6\n" in error
  assert "May differ: " in error
  assert contents(finished / "run_1") == before


def test_a_folder_in_use_is_refused(finished, capsys):
  with run_lock.locked(finished / "run_1"):
    before = contents(finished / "run_1")
    error = fail(capsys, 2, *continued(finished))
    assert contents(finished / "run_1") == before
  assert error.startswith(f"ConfigError: checkpoint_dir='{finished}/run_1': ")
  assert "trains here" in error


def test_a_runs_own_file_goes_on_with_it(finished, tmp_path, caplog):
  folder = pathlib.Path(shutil.copytree(finished / "run_1", tmp_path / "run_1"))
  caplog.set_level(logging.INFO)
  run_command(
    *("with", folder / "config.json", "continue_run=True"),
    *(f"checkpoint_dir={folder}", "stop_after_steps=3"),
  )
  assert f"Done: {folder}/model.ckpt-3" in caplog.text
  versions = json.loads((folder / "versions.json").read_text())
  assert [entry["step"] for entry in versions] == [0, 2]


def test_a_seed_that_is_no_seed_is_told(finished, tmp_path, capsys):
  folder = pathlib.Path(shutil.copytree(finished, tmp_path / "copy"))
  path = folder / "run_1" / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "seed": "x"}))
  error = fail(capsys, 2, *continued(folder))
  assert "seed='x': is text; expected an integer" in error
