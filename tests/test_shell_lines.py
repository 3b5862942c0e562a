"""Shell lines of the documents: bash and zsh read them alike."""

import os
import pathlib
import shutil
import subprocess

import pytest

from tests.support.documents import DOCUMENTS, blocks
from tests.support.places import REPOSITORY

# Programs are not run: each is told of with its arguments, a line for each.
_TELLS = 'for word in "$@"; do printf "[%s]" "$word"; done; echo'
_SHELLS = {
  "bash": (["bash", "--norc"], "command_not_found_handle"),
  # As in a terminal, where "#" begins no comment.
  "zsh": (["zsh", "-f", "-i"], "command_not_found_handler"),
}
_COMPLAINTS = ("no matches found", "parse error", "syntax error")


def _read_by(shell: str, lines: str, folder: pathlib.Path) -> str:
  """What a shell would run, a line for each program."""
  words, handler = _SHELLS[shell]
  program = shutil.which(words[0])
  if program is None:
    pytest.skip(f"needs {shell}")
  for script in REPOSITORY.glob("*.sh"):
    (folder / script.name).write_text(f"#!/bin/sh\n{_TELLS}\n")
    (folder / script.name).chmod(0o755)
  activate = folder / ".venv" / "bin" / "activate"
  activate.parent.mkdir(parents=True, exist_ok=True)
  activate.touch()
  result = subprocess.run(
    [program, *words[1:], "-s"],
    input=f"{handler}() {{ {_TELLS}; }}\n{lines}",
    env={**os.environ, "PATH": str(folder / "none"), "PS1": ""},
    cwd=folder,
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  for complaint in _COMPLAINTS:
    assert complaint not in result.stderr, result.stderr
  return result.stdout


def _lines(document: pathlib.Path) -> str:
  """Shell lines without comments on lines of their own, which do no harm."""
  code = "".join(blocks(document.read_text(encoding="utf-8"), "bash"))
  lines = code.splitlines(keepends=True)
  return "".join(line for line in lines if not line.startswith("#"))


@pytest.mark.parametrize(
  "document", [*filter(_lines, DOCUMENTS)], ids=lambda p: p.name
)
def test_bash_and_zsh_run_the_same(document, tmp_path):
  lines = _lines(document)
  in_bash = _read_by("bash", lines, tmp_path)
  assert in_bash.count("\n") >= 1
  assert _read_by("zsh", lines, tmp_path) == in_bash


@pytest.mark.parametrize("shell", _SHELLS)
def test_words_are_told(shell, tmp_path):
  lines = "python -m a with 'b=[1,2]' \\\n  c=d\n./download_datasets.sh e\n"
  told = _read_by(shell, lines, tmp_path)
  assert told == "[python][-m][a][with][b=[1,2]][c=d]\n[e]\n"


def test_finds_lines_that_shells_read_in_different_ways(tmp_path):
  comment = "python a  # and b\n"
  assert _read_by("bash", comment, tmp_path) == "[python][a]\n"
  assert _read_by("zsh", comment, tmp_path) == "[python][a][#][and][b]\n"
  with pytest.raises(AssertionError, match="no matches found"):
    _read_by("zsh", "python a=[1]\n", tmp_path)
