"""The installed package, its dependency lists and the Makefile."""

import ast
import email.message
import email.parser
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from importlib import metadata

import pytest
from packaging import requirements, utils

from iodine import __version__
from tests.support.places import REPOSITORY

_PACKAGE = REPOSITORY / "iodine"
_CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
_EXTRAS = {
  "dci",
  "gpu",
  "mongo",
  "notebook",
  "hdf5",
  "movi",
  "pytorch",
  "deepmind-readers",
}

needs_make = pytest.mark.skipif(
  shutil.which("make") is None, reason="needs make"
)


def _run(
  command: list, cwd: pathlib.Path, **environment: str
) -> subprocess.CompletedProcess:
  # Neither PYTHONPATH nor make's own variables may reach the inner command.
  kept = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "PYTHON")
  }
  return subprocess.run(
    [str(part) for part in command],
    cwd=cwd,
    env={**kept, **environment},
    capture_output=True,
    text=True,
    timeout=240,
    check=False,
  )


def _checked(command: list, cwd: pathlib.Path, **environment: str) -> str:
  result = _run(command, cwd, **environment)
  assert result.returncode == 0, f"{command}:\n{result.stdout}{result.stderr}"
  return result.stdout


def _requirements(name: str) -> dict[str, requirements.Requirement]:
  """The requirements of a file by their normalised names."""
  lines = (REPOSITORY / name).read_text().splitlines()
  parsed = [
    requirements.Requirement(line)
    for line in lines
    if line.strip() and not line.startswith("#")
  ]
  return {utils.canonicalize_name(entry.name): entry for entry in parsed}


# --- The wheel ----------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A wheel that is built as a release is: from the source distribution."""
  setuptools = _requirements("requirements.txt")["setuptools"]
  if metadata.version("setuptools") not in setuptools.specifier:
    pytest.skip(f"needs {setuptools}")
  folder = tmp_path_factory.mktemp("packaging")
  source = folder / "source"
  ignore = shutil.ignore_patterns("__pycache__")
  for name in ("iodine", "configs"):
    shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
  for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
    shutil.copy(REPOSITORY / name, source)
  build_sdist = (
    "import sys; from setuptools import build_meta; "
    "build_meta.build_sdist(sys.argv[1])"
  )
  _checked([sys.executable, "-c", build_sdist, folder], cwd=source)
  (sdist,) = folder.glob("*.tar.gz")
  _checked(
    [
      sys.executable,
      "-m",
      "pip",
      "wheel",
      "--quiet",
      "--no-deps",
      "--no-build-isolation",
      "--wheel-dir",
      folder,
      sdist,
    ],
    cwd=folder,
  )
  (built,) = folder.glob("*.whl")
  return built


def _wheel_metadata(wheel: pathlib.Path) -> email.message.Message:
  with zipfile.ZipFile(wheel) as archive:
    (name,) = [
      n for n in archive.namelist() if n.endswith(".dist-info/METADATA")
    ]
    return email.parser.Parser().parsestr(archive.read(name).decode())


class TestWheel:
  def test_has_all_modules_configs_and_models_and_nothing_else(
    self, wheel: pathlib.Path
  ):
    expected = {
      str(path.relative_to(REPOSITORY)) for path in _PACKAGE.rglob("*.py")
    }
    configs = {f"iodine/configs/{path.name}" for path in _CONFIGS}
    models = {
      str(path.relative_to(REPOSITORY))
      for path in (_PACKAGE / "pretrained").rglob("*.*")
    }
    web = {
      str(path.relative_to(REPOSITORY))
      for path in (_PACKAGE / "pictures" / "web").rglob("*.*")
    }
    assert configs and models and web
    with zipfile.ZipFile(wheel) as archive:
      members = {
        name for name in archive.namelist() if ".dist-info/" not in name
      }
    marker = {"iodine/py.typed"}  # for type checkers of users
    assert members == expected | configs | models | web | marker

  def test_requires_what_requirements_txt_lists(self, wheel: pathlib.Path):
    entries = [
      requirements.Requirement(line)
      for line in _wheel_metadata(wheel).get_all("Requires-Dist", [])
    ]
    required = {
      utils.canonicalize_name(entry.name): entry.specifier
      for entry in entries
      if entry.marker is None
    }
    assert required == {
      name: entry.specifier
      for name, entry in _requirements("requirements.txt").items()
    }

  def test_offers_the_extras(self, wheel: pathlib.Path):
    assert set(_wheel_metadata(wheel).get_all("Provides-Extra", [])) == _EXTRAS

  def test_has_the_name_and_the_version(self, wheel: pathlib.Path):
    found = _wheel_metadata(wheel)
    # `iodine` on PyPI is another project.
    assert (found["Name"], found["Version"]) == ("iodine-tf2", __version__)

  def test_names_its_licence(self, wheel: pathlib.Path):
    assert _wheel_metadata(wheel)["License-Expression"] == "Apache-2.0"
    with zipfile.ZipFile(wheel) as archive:
      assert any(
        name.endswith("/licenses/LICENSE") for name in archive.namelist()
      )

  def test_works_outside_the_checkout(
    self, wheel: pathlib.Path, tmp_path: pathlib.Path
  ):
    site = tmp_path / "site"
    _checked(
      [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        site,
        wheel,
      ],
      cwd=tmp_path,
    )
    assert (site / "bin" / "iodine").is_file()
    # The environment of the tests may hold this package, too.
    origin = _checked(
      [sys.executable, "-c", "import iodine; print(iodine.__file__)"],
      cwd=tmp_path,
      PYTHONPATH=str(site),
    )
    assert pathlib.Path(origin.strip()).is_relative_to(site)
    printed = _checked(
      [site / "bin" / "iodine", "print_config", "with", "tetrominoes"],
      cwd=tmp_path,
      PYTHONPATH=str(site),
    )
    assert "base_learn_rate" in printed


# --- Dependency lists ---------------------------------------------------------


def _imported_packages() -> dict[str, set[str]]:
  """Top-level names that the package imports, and the files that do so."""
  found: dict[str, set[str]] = {}
  for path in _PACKAGE.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module or ""]
      for name in names:
        found.setdefault(name.split(".")[0], set()).add(
          str(path.relative_to(REPOSITORY))
        )
  return found


def test_every_import_is_a_requirement():
  # Packages of the extras; their users say so where one is missing.
  provided = {
    "iodine",
    "h5py",
    "ipywidgets",
    "pymongo",
    "sklearn",
    "tensorflow_datasets",
    "torch",
    "multi_object_datasets",
  }
  for name in _requirements("requirements.txt"):
    files = metadata.distribution(name).files or []
    provided |= {path.parts[0].removesuffix(".py") for path in files}
  imported = _imported_packages()
  undeclared = set(imported) - provided - set(sys.stdlib_module_names)
  assert not {name: sorted(imported[name]) for name in undeclared}


@pytest.mark.parametrize(
  "name",
  [f"requirements{kind}.txt" for kind in ("", "-dev", "-ci", "-docs")],
)
def test_every_requirement_has_a_lower_bound(name: str):
  for entry in _requirements(name).values():
    operators = {specifier.operator for specifier in entry.specifier}
    assert ">=" in operators, f"{name}: {entry}"
    # pip could fetch a URL for a release on an index, but an index takes none.
    assert entry.url is None, f"{name}: {entry}"


def test_make_and_package_metadata_support_the_same_pythons():
  pyproject = (REPOSITORY / "pyproject.toml").read_text()
  makefile = (REPOSITORY / "Makefile").read_text()
  workflow = (REPOSITORY / ".github/workflows/test.yml").read_text()
  versions = re.findall(r'Python :: 3\.(\d+)"', pyproject)
  first, last = versions[0], versions[-1]
  assert f'requires-python = ">=3.{first},<3.{int(last) + 1}"' in pyproject
  assert f"(3, {first}) <= version[:2] <= (3, {last})" in makefile
  (matrix,) = re.findall(r"python-version: \[(.*)\]", workflow)
  assert re.findall(r'"3\.(\d+)"', matrix) == versions


def test_the_browser_s_runtime_is_what_its_table_lists():
  folder = _PACKAGE / "pictures" / "web" / "tensorflow_js"
  table = (folder / "README.md").read_text()
  sums = dict(re.findall(r"\| (\S+) \| @\S+ \| ([0-9a-f]{64}) \|", table))
  files = [path for path in folder.iterdir() if path.name != "README.md"]
  assert sums == {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files
  }
  assert sum(path.stat().st_size for path in files) < 2e6


# --- Supply chain -------------------------------------------------------------


@pytest.mark.parametrize(
  "lock, names",
  [
    ("requirements.lock", ["requirements.txt", "requirements-dev.txt"]),
    ("requirements-ci.lock", ["requirements-ci.txt"]),
  ],
)
def test_locks_hold_what_is_required_with_hashes(lock: str, names: list[str]):
  text = (REPOSITORY / lock).read_text()
  assert "://" not in text  # no index, no package from elsewhere
  entries = re.split(r"\n(?=[a-z])", re.sub(r"(?m)^ *#.*\n", "", text).strip())
  locked: dict[str, list[str]] = {}
  for entry in entries:
    name, version = re.match(r"(\S+)==([\w.]+)", entry).groups()
    assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), name
    locked.setdefault(name, []).append(version)
  for file in names:
    for name, required in _requirements(file).items():
      assert locked[name], name
      for version in locked[name]:
        assert required.specifier.contains(version), (name, version)


def test_actions_are_named_by_commit():
  workflow = (REPOSITORY / ".github/workflows/test.yml").read_text()
  actions = re.findall(r"uses: (.*)", workflow)
  assert actions
  for action in actions:
    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+", action)


# --- The Makefile -------------------------------------------------------------

# Stands for an interpreter: `-m venv` makes an environment whose pip writes its
# arguments to pip.log, and finds no package where the file `offline` exists.
_FAKE_VENV_PYTHON = """\
#!/bin/sh
case "$*" in
  "-m pip install"*" -r "*) echo "$@" >> pip.log; test ! -e offline;;
  "-m pip install"*) echo "$@" >> pip.log;;
  "-m jupyterlab"* | "-m mkdocs"*) echo "$@" >> run.log;;
  *) exec {python} "$@";;
esac
"""


def _fake_python(folder: pathlib.Path, preamble: str) -> pathlib.Path:
  """An interpreter that runs `preamble` before what it is told to run."""
  inner = folder / "fake_venv_python"
  inner.write_text(_FAKE_VENV_PYTHON.format(python=sys.executable))
  inner.chmod(0o755)
  fake = folder / "fake_python"
  fake.write_text(
    f"#!{sys.executable}\n"
    + preamble
    + textwrap.dedent(f"""
      import pathlib, shutil, sys
      if sys.argv[1] == "-c":
        code, sys.argv[:] = sys.argv[2], ["-c", *sys.argv[3:]]
        exec(code)
      elif sys.argv[1:3] == ["-m", "venv"]:
        bin = pathlib.Path(sys.argv[-1], "bin")
        shutil.rmtree(bin, ignore_errors=True)
        bin.mkdir(parents=True)
        shutil.copy({str(inner)!r}, bin / "python")
      """)
  )
  fake.chmod(0o755)
  return fake


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
  """A folder with all that the set-up reads."""
  folder = tmp_path / "checkout"
  folder.mkdir()
  for name in (
    "Makefile",
    "pyproject.toml",
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-docs.txt",
  ):
    shutil.copy(REPOSITORY / name, folder)
  return folder


@needs_make
class TestSetup:
  @pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
  def test_refuses_an_unsupported_python(
    self, checkout: pathlib.Path, version: tuple[int, ...]
  ):
    fake = _fake_python(checkout, f"import sys; sys.version_info = {version}")
    result = _run(["make", "setup", f"PYTHON={fake}"], cwd=checkout)
    assert result.returncode != 0
    dotted = ".".join(map(str, version))
    assert (
      f"is Python {dotted}, but this project needs Python 3.10 to 3.13"
      in result.stderr
    )
    assert "make setup PYTHON=python3.12" in result.stderr
    assert not (checkout / ".venv").exists()

  def test_says_that_the_venv_module_is_missing(self, checkout: pathlib.Path):
    fake = _fake_python(checkout, 'import sys; sys.modules["ensurepip"] = None')
    result = _run(["make", "setup", f"PYTHON={fake}"], cwd=checkout)
    assert result.returncode != 0
    assert "apt install python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()

  def test_says_that_there_is_no_such_interpreter(self, checkout: pathlib.Path):
    result = _run(["make", "setup", "PYTHON=python9.9"], cwd=checkout)
    assert result.returncode != 0
    assert "There is no python9.9 on the PATH" in result.stderr

  def test_runs_again_only_when_requirements_change(
    self, checkout: pathlib.Path
  ):
    command = ["make", "setup", f"PYTHON={_fake_python(checkout, '')}"]
    log = checkout / "pip.log"
    _checked(command, cwd=checkout)
    assert "-r requirements.txt -r requirements-dev.txt" in log.read_text()

    log.unlink()
    _checked(command, cwd=checkout)
    _checked(["make", "setup"], cwd=checkout)  # Keeps the .venv that is there.
    assert not log.exists()

    done = (checkout / ".venv" / ".setup-done").stat().st_mtime
    os.utime(checkout / "requirements.txt", (done + 1, done + 1))
    _checked(["make", "setup"], cwd=checkout)
    assert "-r requirements.txt" in log.read_text()

  def test_is_not_done_when_it_fails(self, checkout: pathlib.Path):
    command = ["make", "setup", f"PYTHON={_fake_python(checkout, '')}"]
    done = checkout / ".venv" / ".setup-done"
    (checkout / "offline").touch()
    assert _run(command, cwd=checkout).returncode != 0
    assert not done.exists()

    (checkout / "offline").unlink()
    _checked(command, cwd=checkout)
    assert done.exists()

    later = done.stat().st_mtime + 1
    os.utime(checkout / "requirements.txt", (later, later))
    (checkout / "offline").touch()
    assert _run(command, cwd=checkout).returncode != 0
    assert not done.exists()

  def test_takes_the_oldest_dependencies_when_asked(
    self, checkout: pathlib.Path
  ):
    fake = f"PYTHON={_fake_python(checkout, '')}"
    _checked(["make", "setup", fake, "DEPENDENCIES=oldest"], cwd=checkout)
    environment = checkout / ".venv-oldest"
    assert (environment / ".setup-done").exists()
    assert not (checkout / ".venv").exists()
    log = (checkout / "pip.log").read_text()
    assert "-r requirements-dev.txt -c .venv-oldest/oldest.txt" in log
    bounds = (environment / "oldest.txt").read_text().split()
    assert "tensorflow==2.18" in bounds
    assert "setuptools==77.0.3" in bounds  # which has an upper bound, too
    assert len(bounds) == len(_requirements("requirements.txt"))

    result = _run(["make", "setup", "DEPENDENCIES=old"], cwd=checkout)
    assert result.returncode != 0
    assert "DEPENDENCIES=old: must be newest, oldest or locked" in result.stderr

  def test_installs_what_is_locked_by_its_hashes(self, checkout: pathlib.Path):
    shutil.copy(REPOSITORY / "requirements.lock", checkout)
    fake = f"PYTHON={_fake_python(checkout, '')}"
    _checked(["make", "setup", fake, "DEPENDENCIES=locked"], cwd=checkout)
    assert (checkout / ".venv-locked" / ".setup-done").exists()
    first, own = (checkout / "pip.log").read_text().splitlines()
    assert first.endswith("--require-hashes -r requirements.lock")
    assert "--no-deps" in own  # nothing else is fetched, not even pip

  @pytest.mark.parametrize(
    "target, packages, command",
    [
      ("lab", "-e .[notebook]", "-m jupyterlab Eval.ipynb"),
      ("docs", "-r requirements-docs.txt", "-m mkdocs build --strict --quiet"),
    ],
  )
  def test_installs_what_one_command_needs_when_it_first_runs(
    self, checkout: pathlib.Path, target: str, packages: str, command: str
  ):
    make = ["make", target, f"PYTHON={_fake_python(checkout, '')}"]
    for runs in (1, 2):
      _checked(make, cwd=checkout)
      assert (checkout / "run.log").read_text() == f"{command}\n" * runs
      installed = (checkout / "pip.log").read_text().splitlines()
      assert len(installed) == 4  # pip, requirements, the project, and these
      assert installed[-1].endswith(packages)

  def test_makes_the_environment_anew_for_another_python(
    self, checkout: pathlib.Path
  ):
    _checked(
      ["make", "setup", f"PYTHON={_fake_python(checkout, '')}"], cwd=checkout
    )
    other = (3, 10) if sys.version_info[:2] != (3, 10) else (3, 11)
    fake = _fake_python(
      checkout, f"import sys; sys.version_info = {(*other, 0)}"
    )
    printed = _checked(["make", "setup", f"PYTHON={fake}"], cwd=checkout)
    assert "Making .venv" in printed


@needs_make
def test_make_alone_lists_the_commands():
  printed = _checked(["make"], cwd=REPOSITORY)
  for command in ("setup", "test", "test-all", "lint", "demo", "lab", "docs"):
    assert f"make {command} " in printed
