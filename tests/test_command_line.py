"""The command line before TensorFlow is there: it is imported late."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.support.places import REPOSITORY
from tests.support.tiny_runs import fail

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
