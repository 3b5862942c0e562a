"""The command line before TensorFlow is there, and where its output goes."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.support.places import REPOSITORY
from tests.support.tiny_runs import fail, run

_MAIN = "import sys; from iodine.main import main; main(sys.argv); "


def _start(
  *words: object, code: str = _MAIN, path: pathlib.Path = REPOSITORY, **options
) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-c", code, *map(str, words)],
    **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    env={**os.environ, "PYTHONPATH": f"{path}:{REPOSITORY}"},
    text=True,
  )


# --- TensorFlow, and all else that takes time, is imported late ---------------


@pytest.mark.parametrize(
  "line, code",
  [
    ("--help", 0),
    ("help evaluate", 0),
    ("print_named_configs", 0),
    ("print_config with demo", 0),
    ("--fil=x", 2),
    ("trainn", 2),
    ("", 2),
    ("with tetromino", 2),
    ("with demo batch_siz=4", 2),
    ("evaluate with demo num_scenes=0", 2),
  ],
)
def test_help_and_mistakes_need_no_tensorflow(line, code):
  watched = "import atexit, sys; atexit.register(lambda: print('tensorflow' in "
  done = _start(*line.split(), code=f"{watched}sys.modules)); {_MAIN}")
  assert done.returncode == code, done.stderr
  assert done.stdout.splitlines()[-1] == "False"


def test_the_module_imports_nothing_that_takes_time():
  slow = "{'numpy', 'sacred', 'tensorflow', 'tqdm', 'yaml'}"
  done = _start(
    code=f"import sys, iodine.main; print({slow} & {{*sys.modules}})"
  )
  assert done.stdout == "set()\n"


@pytest.mark.parametrize("package", ["sacred", "tensorflow"])
def test_ctrl_c_during_an_import_is_told_in_a_line(package, tmp_path):
  (tmp_path / f"{package}.py").write_text(
    "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
  )
  done = _start("describe_data", "with", "demo", path=tmp_path)
  assert done.returncode == 130
  *before, last = done.stderr.splitlines()
  assert last == "Interrupted by SIGINT."
  assert all(line.startswith("INFO - ") for line in before)


def test_a_known_configuration_is_checked_with_all_that_changes_it(capsys):
  words = ("print_config", "with", "demo")
  error = fail(capsys, 2, *words, "batch_siz=4", "model.foo=1")
  assert "batch_siz=4: unknown key." in error
  assert "model.foo=1: unknown key" in error
  assert "precision='half'" in fail(capsys, 2, *words, "precision=half")
  error = fail(capsys, 2, "print_config", "with", "batch_siz=4")
  assert error.startswith("ConfigError: batch_siz=4: unknown key. Did you mean")


# --- Standard output ----------------------------------------------------------


def test_output_that_nobody_reads_is_dropped():
  reader, writer = os.pipe()
  os.close(reader)
  done = _start("print_config", "with", "demo", stdout=writer)
  os.close(writer)
  assert done.returncode == 0
  assert all(line.startswith("INFO - ") for line in done.stderr.splitlines())


def test_data_are_not_blamed_for_output(data_dir, tmp_path, monkeypatch):
  reader, writer = os.pipe()
  os.close(reader)
  words = ("with", "tetrominoes", f"data_dir={data_dir}")
  with os.fdopen(writer, "w") as output:
    monkeypatch.setattr(sys, "stdout", output)
    run("describe_data", *words, f"pictures_dir={tmp_path}")
  assert list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ["--help", "print_config with demo"])
def test_a_full_disk_is_told_in_a_line(line):
  if not os.path.exists("/dev/full"):
    pytest.skip("needs /dev/full")
  with open("/dev/full", "w") as full:
    done = _start(*line.split(), stdout=full)
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1] == (
    "Error: standard output cannot be written: No space left on device"
  )
  assert "Traceback" not in done.stderr


def test_standard_streams_may_be_closed(tmp_path):
  words = [sys.executable, "-c", _MAIN, "save_config", "with", "demo"]
  close = (
    f"import os; os.closerange(0, 3); os.execv({sys.executable!r}, {words})"
  )
  assert _start(code=close, cwd=tmp_path).returncode == 0
  assert [x.name for x in tmp_path.iterdir()] == ["config.json"]


def test_a_current_folder_that_is_gone_is_told_in_a_line(tmp_path):
  folder = tmp_path / "gone"
  folder.mkdir()
  leave = "import os; os.rmdir(os.getcwd()); "
  done = _start("print_named_configs", code=leave + _MAIN, cwd=folder)
  assert done.returncode == 1
  assert done.stderr.startswith("Error: the current folder cannot be read (")
  assert len(done.stderr.splitlines()) == 1
