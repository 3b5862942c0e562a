"""Tests for iodine.quiet_tensorflow, in processes that import it afresh."""

import ast
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.places import REPOSITORY

_PACKAGE = REPOSITORY / "iodine"
# Whatever imports one of these imports TensorFlow.
_TENSORFLOW = ("tensorflow", "sonnet", "tensorflow_probability")
_QUIET = "iodine.quiet_tensorflow"


def _python(
  code: str, path: pathlib.Path = REPOSITORY, level: str | None = None
) -> subprocess.CompletedProcess:
  env = dict(os.environ, PYTHONPATH=f"{path}:{REPOSITORY}")
  env.pop("TF_CPP_MIN_LOG_LEVEL", None)
  if level is not None:
    env["TF_CPP_MIN_LOG_LEVEL"] = level
  words = [sys.executable, "-c", code]
  return subprocess.run(words, env=env, capture_output=True, text=True)


def _write_stand_in(folder: pathlib.Path, end: str = "") -> pathlib.Path:
  """Writes a package `tensorflow` that logs as TensorFlow's libraries do."""
  package = folder / "tensorflow"
  package.mkdir()
  (package / "__init__.py").write_text(
    "import contextlib, os\n"
    "with contextlib.suppress(OSError): os.write(2, b'I0000 oneDNN is on')\n"
    + end
  )
  return folder


def test_tensorflow_logs_nothing_up_to_its_first_tensor():
  done = _python(
    "import iodine.metrics, logging, sys, tensorflow as tf\n"
    "tf.zeros([len(tf.config.list_physical_devices())])\n"
    "tf.get_logger().error('of the user')"
  )
  assert done.returncode == 0
  assert [x.split(":")[-1] for x in done.stderr.splitlines()] == ["of the user"]


@pytest.mark.parametrize("level, is_shown", [(None, 0), ("2", 0), ("0", 1)])
def test_the_variable_of_tensorflow_asks_for_the_lines(
  level, is_shown, tmp_path
):
  done = _python(f"import {_QUIET}", _write_stand_in(tmp_path), level)
  assert (done.returncode, done.stdout) == (0, "")
  assert done.stderr == "I0000 oneDNN is on" * is_shown


def test_an_import_that_fails_shows_what_was_logged(tmp_path):
  path = _write_stand_in(tmp_path, "raise ImportError('no such library')")
  done = _python(f"import {_QUIET}", path)
  assert done.returncode == 1
  assert done.stderr.startswith("I0000 oneDNN is on")
  assert "no such library" in done.stderr


def test_standard_error_is_there_again(tmp_path):
  code = f"import os, {_QUIET}; os.write(2, b'later')"
  assert _python(code, _write_stand_in(tmp_path)).stderr == "later"


def test_a_closed_standard_error_is_no_error(tmp_path):
  done = _python(
    f"import os; os.close(2); import {_QUIET}; print('done')",
    _write_stand_in(tmp_path),
  )
  assert (done.returncode, done.stdout) == (0, "done\n")


def _imports(path: pathlib.Path) -> Iterator[str]:
  """Modules that a file imports as it is imported, in their order."""
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.Import):
      yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield str(node.module)


def test_whatever_imports_tensorflow_does_so_quietly():
  loud = []
  for path in _PACKAGE.rglob("*.py"):
    modules = list(_imports(path))
    first = [x for x in modules if x.split(".")[0] in _TENSORFLOW]
    if first and _QUIET not in modules[: modules.index(first[0])]:
      if _QUIET not in _imports(path.with_name("__init__.py")):
        loud.append(str(path.relative_to(_PACKAGE)))
  assert not loud
