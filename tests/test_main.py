"""The command line, run within the tests' process wherever that can be."""

import importlib.util
import io
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from iodine import console
from iodine import main as command_line
from iodine.config import resolution
from tests.support.tiny_runs import (
  STEPS,
  TINY,
  contents,
  fail,
  metrics,
  run,
  start,
  write_scenes,
)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
  caplog.set_level(logging.INFO)


# --- A whole run --------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_run(
  data_dir: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
  """The folder of a run with checkpoints in run_1, Sacred's files in storage/1.

  Not to be changed.
  """
  folder = tmp_path_factory.mktemp("whole")
  run(
    "-F",
    folder / "storage",
    *TINY,
    f"data_dir={data_dir}",
    f"checkpoint_dir={folder}/run",
    "seed=3",
  )
  return folder


@pytest.fixture
def copied_run(whole_run: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
  """A copy of that run's checkpoints."""
  folder = tmp_path / "run_1"
  folder.mkdir()
  for name, value in contents(whole_run / "run_1").items():
    (folder / name).write_bytes(value)
  return folder


def test_a_run_leaves_checkpoint_configuration_and_pictures(whole_run):
  folder = whole_run / "run_1"
  names = {
    re.sub(r"tfevents\..*", "tfevents", x.name) for x in folder.iterdir()
  }
  assert names == {
    "checkpoint",
    "config.json",
    "data.json",
    "manifest.json",
    "decomposition.png",
    "events.out.tfevents",
    f"model.ckpt-{STEPS}.data-00000-of-00001",
    f"model.ckpt-{STEPS}.index",
    "run.lock",
    "versions.json",
  }
  assert (folder / "run.lock").read_bytes() == b""


def test_without_a_gpu_a_run_says_so_once(
  copied_run, data_dir, monkeypatch, caplog
):
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
  words = (f"data_dir={data_dir}", f"checkpoint_dir={copied_run}")
  run(*TINY, *words, "continue_run=True")
  assert caplog.text.count("No GPU found") == 1


def test_sacred_gets_metrics_and_status(whole_run):
  storage = whole_run / "storage" / "1"
  values = metrics(storage)
  assert set(values) == {"loss", "ari"}
  for metric in values.values():
    assert list(metric) == list(range(1, STEPS + 1))
    assert np.all(np.isfinite(list(metric.values())))
  record = json.loads((storage / "run.json").read_text())
  assert record["status"] == "COMPLETED"
  assert record["meta"]["named_configs"] == ["tetrominoes"]
  info = json.loads((storage / "info.json").read_text())
  assert info["checkpoint_dir"] == str(whole_run / "run_1")


def standard_error(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
  """Takes it, the log included, within a test as pytest replaces it."""
  stream = io.StringIO()
  monkeypatch.setattr(sys, "stderr", stream)
  handler = console.Handler()
  handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
  monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
  return stream


def test_sacred_keeps_what_was_shown(data_dir, tmp_path, monkeypatch):
  shown = standard_error(monkeypatch)
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run")
  run("-F", tmp_path / "storage", *words)
  kept = (tmp_path / "storage" / "1" / "cout.txt").read_text()
  assert f"INFO - step {STEPS}/{STEPS}  loss " in kept
  assert kept == shown.getvalue()


def test_sacred_keeps_what_a_terminal_showed_without_the_bar(
  data_dir, tmp_path, monkeypatch
):
  shown = standard_error(monkeypatch)
  shown.isatty = lambda: True
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run")
  run("-F", tmp_path / "storage", *words)
  kept = (tmp_path / "storage" / "1" / "cout.txt").read_text()
  for step in range(1, STEPS + 1):
    assert f"\nstep {step}/{STEPS}  loss " in kept
  assert f"INFO - Done: {tmp_path}/run_1/model.ckpt-{STEPS}, " in kept
  config = f"{tmp_path}/run_1/config.json"
  for command in ("evaluate", "visualize"):
    program = "python -m iodine.main"
    assert f"INFO - Next: {program} {command} with {config}\n" in kept
  assert "\r" in shown.getvalue()
  assert "\r" not in kept
  # No line is torn by the bar.
  assert "\nINFO - Done: " in re.sub(r"[^\n]*\r", "", shown.getvalue())


def test_sacred_keeps_what_an_interrupted_run_showed(
  data_dir, tmp_path, monkeypatch
):
  shown = standard_error(monkeypatch)
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run")
  logger = logging.getLogger("iodine.runs.loop")
  handler = SignalAt(2, signal.SIGTERM)
  logger.addHandler(handler)
  try:
    with pytest.raises(SystemExit):
      run("-F", tmp_path / "storage", *words)
  finally:
    logger.removeHandler(handler)
  kept = (tmp_path / "storage" / "1" / "cout.txt").read_text()
  assert "SIGTERM at step 2: saved " in kept
  assert shown.getvalue().startswith(kept)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sys", "fd", "no"])
def test_the_output_is_captured_as_asked(mode, data_dir, tmp_path):
  words = (*TINY, f"data_dir={data_dir}", "checkpoint_dir=run")
  process = start("-C", mode, "-F", "storage", *words, cwd=tmp_path)
  output = process.communicate(timeout=300)[0]
  kept = (tmp_path / "storage" / "1" / "cout.txt").read_text()
  assert f"step {STEPS}/{STEPS}  loss " in output
  assert (f"step {STEPS}/{STEPS}  loss " in kept) == (mode != "no")
  assert kept in output


def test_a_runs_own_file_is_a_valid_argument(whole_run, capsys):
  path = whole_run / "run_1" / "config.json"
  config = json.loads(path.read_text())
  assert config["seed"] == 3
  assert config["n_z"] == config["model"]["n_z"] == 5
  sacreds = json.loads(
    (whole_run / "storage" / "1" / "config.json").read_text()
  )
  # Whose plans leave out what the other entries say.
  assert config.pop("format") == 1
  assert resolution.filled({k: sacreds[k] for k in config}) == config
  run("print_config", "with", path, "n_z=7")
  assert len(re.findall(r"\bn_z = 7\b", capsys.readouterr().out)) == 1


def test_equal_seeds_give_equal_runs_in_folders_of_their_own(
  whole_run, data_dir, tmp_path, monkeypatch
):
  monkeypatch.setenv("IODINE_DATA_DIR", str(data_dir))
  monkeypatch.chdir(tmp_path)
  (tmp_path / "run_1").mkdir()
  # Without an observer's id, the lowest free number.
  run(*TINY, "checkpoint_dir=run", "seed=3")
  assert not list((tmp_path / "run_1").iterdir())
  weights, expected = (
    tf.train.load_variable(
      tf.train.latest_checkpoint(str(folder)),
      "trainer/model/initial_zp/.ATTRIBUTES/VARIABLE_VALUE",
    )
    for folder in (tmp_path / "run_2", whole_run / "run_1")
  )
  np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


# --- Continuing ---------------------------------------------------------------


class SignalAt(logging.Handler):
  """Sends this process a signal when the log tells of a step."""

  def __init__(self, step: int, number: signal.Signals):
    super().__init__()
    self._start = f"step {step}/"
    self._number = number

  def emit(self, record: logging.LogRecord) -> None:
    if record.getMessage().startswith(self._start):
      os.kill(os.getpid(), self._number)


def interrupt(
  capsys: pytest.CaptureFixture,
  number: signal.Signals,
  code: int,
  *words: object,
) -> None:
  """Starts a run that gets a signal in its second step."""
  logger = logging.getLogger("iodine.runs.loop")
  handler = SignalAt(2, number)
  logger.addHandler(handler)
  try:
    assert fail(capsys, code, *words) == ""
  finally:
    logger.removeHandler(handler)


def test_an_interrupted_run_goes_on_to_the_same_losses(
  whole_run, data_dir, tmp_path, capsys, caplog
):
  storage, folder = tmp_path / "storage", tmp_path / "run_1"
  words = ("-F", storage, *TINY, f"data_dir={data_dir}")
  first = (*words, f"checkpoint_dir={tmp_path}/run", "seed=3")
  interrupt(capsys, signal.SIGTERM, 143, *first)
  assert f"SIGTERM at step 2: saved {folder}/model.ckpt-2" in caplog.text
  record = json.loads((storage / "1" / "run.json").read_text())
  assert record["status"] == "INTERRUPTED"

  # Another seed has no effect, and the user is told.
  run(*words, "continue_run=True", f"checkpoint_dir={folder}", "seed=4")
  warnings = [x for x in caplog.records if x.levelno == logging.WARNING]
  assert any(
    "seed=4 has no effect: a continued run keeps its seed, 3" in x.getMessage()
    for x in warnings
  )
  config = json.loads((folder / "config.json").read_text())
  assert config["seed"] == 3
  continued = metrics(storage / "2")
  whole = metrics(whole_run / "storage" / "1")
  for name, values in continued.items():
    assert list(values) == list(range(3, STEPS + 1))
    for step, value in values.items():
      # On several threads, sums are rounded differently from run to run.
      assert value == pytest.approx(whole[name][step], rel=1e-4, abs=1e-4)


def test_ctrl_c_has_an_exit_code_of_its_own(data_dir, tmp_path, capsys):
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run")
  interrupt(capsys, signal.SIGINT, 130, *words)
  assert (tmp_path / "run_1" / "model.ckpt-2.index").is_file()


def test_continuing_without_a_seed_warns_of_none(copied_run, data_dir, caplog):
  words = (*TINY, f"data_dir={data_dir}", "continue_run=True")
  run(*words, f"checkpoint_dir={copied_run}")
  assert "nothing is left to do" in caplog.text
  assert "has no effect" not in caplog.text
  assert json.loads((copied_run / "config.json").read_text())["seed"] == 3


def test_a_configuration_that_does_not_fit_leaves_the_folder_as_it_was(
  copied_run, data_dir, capsys
):
  (copied_run / "config.json").unlink()  # which would tell of the difference
  before = contents(copied_run)
  words = (*TINY, f"data_dir={data_dir}", "continue_run=True", "n_z=6")
  error = fail(capsys, 2, *words, f"checkpoint_dir={copied_run}")
  assert f"{copied_run}/model.ckpt-{STEPS}: does not fit the model" in error
  assert contents(copied_run) == before


def test_a_folder_that_is_not_there_cannot_be_continued(
  data_dir, tmp_path, capsys
):
  (tmp_path / "run_2").mkdir()
  words = (*TINY, f"data_dir={data_dir}", "continue_run=True")
  error = fail(capsys, 2, *words, f"checkpoint_dir={tmp_path}/run")
  assert "there is no folder checkpoint_dir=" in error
  assert f"There are: {tmp_path}/run_2." in error


def test_an_existing_folder_is_refused(data_dir, tmp_path, capsys):
  (tmp_path / "run_7").mkdir()
  words = ("--id=7", *TINY, f"data_dir={data_dir}")
  error = fail(capsys, 2, *words, f"checkpoint_dir={tmp_path}/run")
  assert f"{tmp_path}/run_7 already exists" in error
  assert not list((tmp_path / "run_7").iterdir())


# --- Runs that fail -----------------------------------------------------------


def test_missing_data_say_where_to_get_them(tmp_path, capsys):
  error = fail(
    capsys, 2, *TINY, f"data_dir={tmp_path}", f"checkpoint_dir={tmp_path}/run"
  )
  path = f"{tmp_path}/tetrominoes_train.tfrecords"
  assert f"there is no file {path}" in error
  assert "https://storage.googleapis.com/multi-object-datasets" in error
  assert "python -m iodine.synthetic tetrominoes --scenes 10000" in error
  assert f"--output {path}" in error
  assert not list(tmp_path.iterdir())


def test_data_that_are_broken_from_the_start_are_an_error(tmp_path, capsys):
  path = tmp_path / "broken.tfrecords"
  path.write_bytes(b"no scenes")
  words = (*TINY, f"checkpoint_dir={tmp_path}/run")
  error = fail(capsys, 2, *words, f"data.path={path}")
  assert error.startswith("ConfigError: data: ")
  assert str(path) in error
  assert [x.name for x in tmp_path.iterdir()] == [path.name]


def test_data_that_break_off_are_an_error_of_the_run(tmp_path, capsys):
  path = write_scenes(tmp_path / "broken.tfrecords", 300)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 4])
  words = (*TINY, f"checkpoint_dir={tmp_path}/run", f"data.path={path}")
  scope = ("stop_after_steps=100", "held_out_scenes=0")
  error = fail(capsys, 1, *words, *scope)
  assert re.match(r"Error: step \d+: the data cannot be read", error)
  assert f"{path}, record " in error


def test_a_loss_that_is_not_finite_is_an_error_of_the_run(
  data_dir, tmp_path, capsys
):
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run")
  error = fail(capsys, 1, *words, "learn_rate=1e30")
  assert re.match(r"Error: step \d: .+ is (nan|inf)( \(|\.)", error)
  assert not list((tmp_path / "run_1").glob("model.ckpt*"))


def test_a_model_that_does_not_fit_the_data_is_an_error(
  data_dir, tmp_path, capsys
):
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run")
  mapping = "model.factor_evaluator.mapping=[['colour', 3, 'scalar']]"
  error = fail(capsys, 2, *words, mapping)
  assert error.startswith("ConfigError: model: ")
  assert "colour" in error
  assert not list(tmp_path.iterdir())


# --- Commands and options -----------------------------------------------------


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",)])
def test_help_is_there(words, capsys):
  with pytest.raises(SystemExit) as stop:
    run(*words)
  output = capsys.readouterr()
  assert not stop.value.code
  assert "python -m iodine.main COMMAND with CONFIGURATION" in output.out
  for word in ("--file_storage FOLDER", "--mongo_db DATABASE", "print_config"):
    assert word in output.out
  assert not output.err


def test_help_of_a_command(capsys):
  with pytest.raises(SystemExit) as stop:
    run("help", "train")
  assert not stop.value.code
  assert "Train a model, or resume training it" in capsys.readouterr().out


def test_the_usage_names_the_installed_program(capsys, monkeypatch):
  monkeypatch.setattr(sys, "argv", ["/usr/bin/iodine"])
  assert "Usage:\n  iodine [(with UPDATE...)]" in fail(capsys, 2, "--foo")


def test_an_error_is_red_on_a_terminal(capsys, monkeypatch):
  monkeypatch.setattr(
    console, "paint", lambda text, style, _: f"{style} {text}"
  )
  assert fail(capsys, 2, "trainn").startswith(
    "red ConfigError: trainn: no such"
  )


@pytest.mark.parametrize(
  "words", [("--foo", "with", "tetrominoes"), ("-F",), ("train", "-m")]
)
def test_an_unknown_or_incomplete_option_shows_the_usage(words, capsys):
  error = fail(capsys, 2, *words)
  assert "Usage:\n  python -m iodine.main [(with UPDATE...)]" in error
  assert "Try `python -m iodine.main --help`." in error
  assert "dummy" not in error


def test_an_unknown_command_names_the_nearest(capsys):
  error = fail(capsys, 2, "trainn", "with", "tetrominoes")
  assert error.startswith("ConfigError: trainn: no such command.")
  assert "Did you mean 'train'? Valid commands: " in error


@pytest.mark.parametrize(
  "option, fault",
  [
    ("--loglevel=LOUD", "must be a number from 0 to 50, or one of DEBUG"),
    ("--capture=all", "must be one of no, sys, fd"),
    ("--beat-interval=often", "must be a number of seconds from 0.1 to 1,000"),
    ("--priority=high", "must be a number"),
  ],
)
def test_a_wrong_value_of_an_option_is_an_error(option, fault, capsys):
  error = fail(capsys, 2, option, "with", "tetrominoes")
  assert error.startswith(f"ConfigError: {option}: ")
  assert fault in error


@pytest.mark.parametrize("database", ["iodine", "localhost:27017:iodine"])
def test_a_database_needs_its_extra(database, capsys, monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *args: None if name == "pymongo" else find(name, *args),
  )
  error = fail(capsys, 2, "-m", database, "with", "tetrominoes")
  assert f"--mongo_db={database}: needs pymongo" in error
  assert "extra `mongo`" in error


def test_a_storage_that_cannot_be_made_is_an_error(data_dir, tmp_path, capsys):
  (tmp_path / "file").write_text("no folder")
  words = ("-F", tmp_path / "file" / "storage", *TINY, f"data_dir={data_dir}")
  error = fail(capsys, 2, *words, f"checkpoint_dir={tmp_path}/run")
  assert f"--file_storage={tmp_path}/file/storage: cannot be made" in error
  assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_mistake_is_found_after_a_run_in_the_same_process(capsys):
  command_line.ex.run("print_config", named_configs=["tetrominoes"])
  assert "unknown key" in fail(capsys, 2, "with", "tetrominoes", "n_zz=3")


# --- Processes of their own ---------------------------------------------------


def read_until(process: subprocess.Popen, pattern: str) -> str:
  """Reads lines until one matches; returns them."""
  lines = []
  assert process.stdout is not None
  for line in process.stdout:
    lines.append(line)
    if re.search(pattern, line):
      return "".join(lines)
  raise AssertionError(f"no {pattern!r} in:\n{''.join(lines)}")


@pytest.mark.faults
@pytest.mark.parametrize(
  "number, code",
  [
    (signal.SIGINT, 130),
    (signal.SIGTERM, 143),
    (signal.SIGHUP, 129),
    (signal.SIGUSR1, 138),
  ],
)
def test_a_process_that_gets_a_signal_saves_and_exits(
  number, code, data_dir, tmp_path
):
  words = (*TINY, f"data_dir={data_dir}", "save_summaries_steps=20")
  process = start(
    *words, "checkpoint_dir=run", "stop_after_steps=1000000", cwd=tmp_path
  )
  try:
    output = read_until(process, r"step \d+/1000000 ")
    process.send_signal(number)
    output += process.communicate(timeout=120)[0]
  finally:
    process.kill()
  assert process.returncode == code
  assert "Traceback" not in output
  saved = re.search(rf"{number.name} at step (\d+): saved (\S+)\.", output)
  assert saved, output
  step = int(saved[1])
  assert (tmp_path / f"run_1/model.ckpt-{step}.index").is_file()
  process = start(
    *words,
    "continue_run=True",
    "checkpoint_dir=run_1",
    f"stop_after_steps={step + 2}",
    cwd=tmp_path,
  )
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 0, output
  assert f"Restored run_1/model.ckpt-{step}" in output
  assert f"Done: run_1/model.ckpt-{step + 2}" in output


@pytest.mark.faults
def test_a_process_that_is_killed_goes_on_from_its_last_checkpoint(
  data_dir, tmp_path
):
  words = (*TINY, f"data_dir={data_dir}", "save_checkpoint_steps=10")
  process = start(
    *words, "checkpoint_dir=run", "stop_after_steps=1000000", cwd=tmp_path
  )
  try:
    read_until(process, r"step 25/1000000 ")
  finally:
    process.kill()
    process.communicate()
  latest = tf.train.latest_checkpoint(str(tmp_path / "run_1"))
  step = int(latest.rpartition("-")[2])
  assert step >= 20 and step % 10 == 0
  process = start(
    *words,
    "continue_run=True",
    "checkpoint_dir=run_1",
    f"stop_after_steps={step + 2}",
    cwd=tmp_path,
  )
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 0, output
  assert f"step {step + 1}/{step + 2} " in output
