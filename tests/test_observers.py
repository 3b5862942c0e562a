"""Sacred's options: each works, or is refused in one line before any work."""

import importlib.machinery
import importlib.util
import json
import logging
import sys
import types

import pytest
from sacred.observers import RunObserver

from iodine import observers
from iodine.runs import versions
from tests.support.tiny_runs import TINY, fail, run

PACKAGES = {
  "--mongo_db=db": "pymongo",
  "--sql=sqlite:///runs.db": "sqlalchemy",
  "--s3=s3://bucket/runs": "boto3",
  "--tiny_db=runs": "tinydb, tinydb_serialization, hashfs",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch, caplog) -> None:
  monkeypatch.chdir(tmp_path)
  caplog.set_level(logging.INFO)


@pytest.fixture
def no_packages(monkeypatch) -> None:
  """None of those that some observers need is installed."""
  find = importlib.util.find_spec
  missing = ", ".join(PACKAGES.values()).split(", ")
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *args: None if name in missing else find(name, *args),
  )


@pytest.fixture
def all_packages(monkeypatch) -> None:
  """Those that some observers need seem to be installed."""
  monkeypatch.setattr(observers, "_is_installed", lambda module: True)


@pytest.mark.parametrize("command", ["train", "print_named_configs"])
@pytest.mark.parametrize(
  "option, fault",
  [
    ("--mongo_db=db name", "must be [HOST:PORT:]DATABASE[.COLL"),
    ("--mongo_db=localhost:db", "must be [HOST:PORT:]DATABASE[.COLL"),
    ("--s3=bucket", "must be s3://BUCKET/FOLDER"),
    ("--s3=s3://bucket", "must be s3://BUCKET/FOLDER"),
    ("--s3=s3:///folder", "must be s3://BUCKET/FOLDER"),
    ("--sql=nonsense", "must be DIALECT://USER:PASSWORD@HOST"),
    ("--file_storage=", "must not be empty"),
    ("--id=foo/bar", "must be a name for folders"),
    ("--id=..", "must be a name for folders"),
    ("--id=²", "must be a name for folders"),
    ("--id=.", "must be a name for folders"),
    ("--id=_sources", "must be a name for folders"),
    (f"--id={'x' * 101}", "must be a name for folders"),
    ("--beat-interval=inf", "must be a number of seconds"),
    ("--beat-interval=nan", "must be a number of seconds"),
    ("--beat-interval=-1", "must be a number of seconds"),
    ("--beat-interval=0", "must be a number of seconds"),
    ("--beat-interval=1e10", "must be a number of seconds"),
    ("--priority=inf", "must be a number"),
    ("--priority=nan", "must be a number"),
    ("--loglevel=51", "must be a number from 0 to 50"),
    ("--name=", "must not be empty"),
  ],
)
def test_a_wrong_value_is_told_in_one_line(
  option, fault, command, all_packages, capsys, tmp_path
):
  error = fail(capsys, 2, option, command)
  assert error.startswith(f"ConfigError: {option}: {fault}")
  assert error.count("\n") == 1
  assert not list(tmp_path.iterdir())


def test_wrong_values_are_told_together(capsys):
  error = fail(capsys, 2, "-b", "nan", "-C", "all", "-i", "a/b", "-S", "bucket")
  for option in ("--beat-interval=nan", "--capture=all", "--id=a/b", "--s3="):
    assert option in error


def test_all_packages_that_are_missing_are_told_at_once(no_packages, capsys):
  error = fail(capsys, 2, *PACKAGES, "with", "tetrominoes")
  for option, packages in PACKAGES.items():
    assert f"{option}: needs {packages}, " in error
  assert error.count("pip install") == len(error.splitlines()) == len(PACKAGES)


def test_a_database_that_does_not_answer_is_told_in_seconds(
  all_packages, monkeypatch, capsys, data_dir, tmp_path
):
  errors = types.SimpleNamespace(ConnectionFailure=type("X", (Exception,), {}))
  waits = []

  class Client:
    def __init__(self, url, **options):
      assert url == "localhost:27099"
      waits.append(options["serverSelectionTimeoutMS"])
      self.admin = self

    def command(self, name):
      raise errors.ConnectionFailure(f"{name}: refused\nand much more")

    def close(self):
      waits.append("closed")

  pymongo = types.ModuleType("pymongo")
  pymongo.__spec__ = importlib.machinery.ModuleSpec("pymongo", None)
  pymongo.MongoClient, pymongo.errors = Client, errors
  monkeypatch.setitem(sys.modules, "pymongo", pymongo)
  place = "localhost:27099:db"
  error = fail(capsys, 2, "-m", place, *TINY, f"data_dir={data_dir}")
  assert error.startswith(
    f"ConfigError: --mongo_db={place}: no database answers at localhost:27099 "
    "within 5 seconds."
  )
  assert error.count("\n") == 1
  assert waits == [5000, "closed"]
  assert not list(tmp_path.iterdir())


class _Broken(RunObserver):
  """Cannot begin, and must not be asked to end."""

  priority = 0  # after all others

  def __init__(self, place: str):
    self.place = place

  def started_event(self, **details):
    raise OSError(f"{self.place}: gone\n(and a long story)")

  def failed_event(self, **details):
    raise AssertionError("had not begun")


def test_a_record_that_cannot_be_begun_is_told_in_one_line(
  monkeypatch, capsys, caplog, data_dir, tmp_path
):
  monkeypatch.setitem(observers._KINDS, "--sql", observers._Kind(_Broken))
  place = "x://me:secret@host/db"
  words = ("-F", "storage", "-s", place, *TINY, f"data_dir={data_dir}")
  error = fail(capsys, 2, *words)
  shown = "--sql=x://me:...@host/db"
  assert f"ConfigError: {shown}: cannot be written: x://me" in error
  assert "long story" not in error
  assert "Failed after" not in caplog.text
  assert "had not begun" not in caplog.text
  record = json.loads((tmp_path / "storage" / "1" / "run.json").read_text())
  assert record["status"] == "FAILED"
  assert [path.name for path in tmp_path.iterdir()] == ["storage"]


def test_a_driver_that_is_missing_is_named(monkeypatch, capsys, data_dir):
  def make(place):
    raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

  monkeypatch.setitem(observers._KINDS, "--sql", observers._Kind(make))
  error = fail(capsys, 2, "-s", "x", *TINY, f"data_dir={data_dir}")
  assert error == (
    "ConfigError: --sql=x: needs psycopg, see `pip install psycopg`\n"
  )


def test_a_run_is_queued_from_any_folder(data_dir, tmp_path):
  run("-q", "-F", "storage", "-P", "3", *TINY, f"data_dir={data_dir}")
  assert [path.name for path in tmp_path.iterdir()] == ["storage"]
  folder = tmp_path / "storage" / "1"
  record = json.loads((folder / "run.json").read_text())
  assert record["status"] == "QUEUED"
  assert record["meta"]["priority"] == 3
  assert record["meta"]["options"]["--file_storage"] == "storage"
  sources = dict(record["experiment"]["sources"])
  for source in sources.values():
    assert (tmp_path / "storage" / source).is_file()
  assert json.loads((folder / "config.json").read_text())["n_z"] == 5


@pytest.mark.parametrize(
  "words",
  [
    ("-q",),
    ("-q", "-u", "-F", "storage"),
    ("-q", "-F", "storage", "print_named_configs"),
    ("-q", "-t", "storage"),
    ("-q", "-s", "sqlite:///storage.db"),
    ("-q", "-S", "s3://bucket/storage"),
  ],
)
def test_a_run_that_nothing_would_keep_is_not_queued(
  words, all_packages, capsys, data_dir, tmp_path
):
  error = fail(capsys, 2, *words, *TINY, f"data_dir={data_dir}")
  assert error.startswith("ConfigError: --queue: ")
  assert error.count("\n") == 1
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "commit, fault",
  [
    ("0a1b2c", None),
    ("0a1b2c-dirty", "files of the checkout differ from its commit"),
    (None, "needs git, and the package in a git checkout"),
  ],
)
def test_only_the_code_of_a_commit_is_clean(commit, fault, capsys, monkeypatch):
  monkeypatch.setattr(versions, "commit", lambda: commit)
  if fault is None:
    run("-e", "print_named_configs")
  else:
    error = fail(capsys, 2, "-e", "print_named_configs")
    assert error.startswith(f"ConfigError: --enforce_clean: {fault}")
