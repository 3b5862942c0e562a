"""The folders of runs."""

import json
import pathlib

import pytest

from iodine.errors import ConfigError
from iodine.runs import folder as run_folder


def test_a_new_run_gets_the_lowest_free_number(tmp_path):
  base = str(tmp_path / "deep" / "run")
  assert (
    run_folder.open_folder(base, False, None) == tmp_path / "deep" / "run_1"
  )
  (tmp_path / "deep" / "run_2").mkdir()
  (tmp_path / "deep" / "run_4").mkdir()
  numbers = [run_folder.open_folder(base, False, None).name for _ in range(2)]
  assert numbers == ["run_3", "run_5"]


def test_the_folder_itself_stays_free(tmp_path):
  # Only numbered folders are runs.
  (tmp_path / "run").mkdir()
  folder = run_folder.open_folder(str(tmp_path / "run"), False, None)
  assert folder == tmp_path / "run_1"
  assert folder.is_dir()


@pytest.mark.parametrize("run_id", [7, "7", "5f0c"])
def test_the_observers_run_id_names_the_folder(run_id, tmp_path):
  folder = run_folder.open_folder(str(tmp_path / "run"), False, run_id)
  assert folder == tmp_path / f"run_{run_id}"
  assert folder.is_dir()


def test_an_existing_folder_is_refused(tmp_path):
  folder = tmp_path / "run_7"
  folder.mkdir()
  with pytest.raises(ConfigError) as error:
    run_folder.open_folder(str(tmp_path / "run"), False, 7)
  text = str(error.value)
  assert f"{folder} already exists" in text
  assert f"`continue_run=True checkpoint_dir={folder}`" in text


def test_a_continued_run_keeps_its_folder(tmp_path):
  folder = tmp_path / "run_7"
  folder.mkdir()
  assert run_folder.open_folder(str(folder), True, 9) == folder
  assert list(tmp_path.iterdir()) == [folder]


def test_a_missing_folder_to_continue_names_those_that_there_are(tmp_path):
  for name in ("run_2", "run_10", "other_1"):
    (tmp_path / name).mkdir()
  (tmp_path / "run_3").write_text("no folder")
  with pytest.raises(ConfigError) as error:
    run_folder.open_folder(str(tmp_path / "run"), True, None)
  text = str(error.value)
  assert f"there is no folder checkpoint_dir={str(tmp_path / 'run')!r}" in text
  assert str(tmp_path / "run_2") in text
  assert str(tmp_path / "run_10") in text
  assert "other_1" not in text
  assert "run_3" not in text
  assert not (tmp_path / "run").exists()


def test_a_missing_parent_to_continue_in_is_an_error(tmp_path):
  with pytest.raises(ConfigError, match="there is no folder"):
    run_folder.open_folder(str(tmp_path / "nowhere" / "run"), True, None)
  assert not (tmp_path / "nowhere").exists()


def test_a_file_cannot_be_continued(tmp_path):
  (tmp_path / "run").write_text("no folder")
  with pytest.raises(ConfigError, match="there is no folder"):
    run_folder.open_folder(str(tmp_path / "run"), True, None)


@pytest.mark.parametrize("run_id", [None, 1])
def test_a_parent_that_is_a_file_is_an_error(run_id, tmp_path):
  (tmp_path / "parent").write_text("no folder")
  with pytest.raises(ConfigError, match=r"run_1 cannot be made: "):
    run_folder.open_folder(str(tmp_path / "parent" / "run"), False, run_id)


def test_a_folder_that_may_not_be_made_is_an_error(tmp_path, monkeypatch):
  # Permissions do not stop the superuser, who may run the tests.
  def refuse(*_, **__):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
  with pytest.raises(ConfigError) as error:
    run_folder.open_folder(str(tmp_path / "run"), False, None)
  assert "run_1 cannot be made: " in str(error.value)
  assert "Permission denied" in str(error.value)


@pytest.mark.parametrize("name", ["", ".", "/", "runs/.."])
def test_a_name_that_takes_no_number_is_an_error(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "runs").mkdir()
  with pytest.raises(ConfigError, match="checkpoint_dir="):
    run_folder.open_folder(name, False, None)
  assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_home_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert run_folder.open_folder("~/run", False, None) == tmp_path / "run_1"
  assert run_folder.open_folder("~/run_1", True, None) == tmp_path / "run_1"


@pytest.mark.parametrize(
  "name, has_checkpoint, in_place, place",
  [
    ("config.json", True, True, "run_1"),
    ("config.json", True, False, "elsewhere"),  # for a new run
    ("config.json", False, True, "elsewhere"),  # a record of Sacred's
    ("mine.json", True, True, "elsewhere"),
  ],
)
def test_a_runs_own_file_stands_for_its_checkpoint(
  tmp_path, name, has_checkpoint, in_place, place
):
  folder = tmp_path / "run_1"
  folder.mkdir()
  path = folder / name
  path.write_text(f'{{"checkpoint_dir": "{tmp_path}/elsewhere"}}')
  if has_checkpoint:
    (folder / "model.ckpt-3.index").touch()
  entries = run_folder.read_file(path, in_place)
  assert entries == {"checkpoint_dir": f"{tmp_path}/{place}"}


def test_the_configuration_is_saved_whole_or_not_at_all(tmp_path):
  config = {"n_z": 3, "model": {"channels": [4, None]}, "rate": 2.5e-5}
  run_folder.save_config(tmp_path, config)
  path = tmp_path / run_folder.CONFIG_FILE
  assert json.loads(path.read_text()) == {**config, "format": 1}
  with pytest.raises(TypeError):
    run_folder.save_config(tmp_path, {"n_z": object()})
  assert json.loads(path.read_text()) == {**config, "format": 1}
  run_folder.save_config(tmp_path, {"n_z": 4})
  assert json.loads(path.read_text()) == {"n_z": 4, "format": 1}
  assert [path.name for path in tmp_path.iterdir()] == [run_folder.CONFIG_FILE]
