"""What a run deletes and trusts: what its manifest names, in its own folder."""

import json
import logging
import pathlib
import shutil
from collections.abc import Sequence

import pytest

from iodine import training
from iodine.data import datasets
from iodine.data.pipeline import Position
from iodine.errors import ConfigError
from iodine.runs import checkpoint_files
from iodine.runs import folder as run_folder
from iodine.runs import manifest as run_manifest
from iodine.runs.checkpoints import RunCheckpoints
from iodine.runs.manifest import FileSum, Manifest, SavedCheckpoint
from iodine.tf1_checkpoint import CheckpointError
from tests.support import tiny
from tests.support.loop_runs import checkpoints
from tests.support.tiny_runs import contents

STEPS = 8


@pytest.fixture(scope="module")
def trainer() -> training.Trainer:
  return tiny.trainer()


class Run:
  """Saves and restores as a run does, without the steps in between."""

  def __init__(self, trainer: training.Trainer, data: pathlib.Path):
    self._trainer = trainer
    self._dataset = datasets.Tetrominoes(data, batch_size=2, seed=5)

  def save(self, folder: pathlib.Path, steps: Sequence[int], keep: int) -> None:
    """Goes on in a folder, and saves at these steps."""
    folder.mkdir(exist_ok=True)
    checkpoints = RunCheckpoints(folder, self._trainer, keep)
    checkpoints.restore(self._dataset)
    checkpoints.record_files()
    for step in steps:
      self._trainer.optimizer.step.assign(step)
      checkpoints.save(self._dataset, Position(0, step))

  def restore(self, folder: pathlib.Path) -> int:
    """Restores the last checkpoint; returns the step that it is of."""
    self._trainer.optimizer.step.assign(0)
    checkpoints = RunCheckpoints(folder, self._trainer, 2)
    position = checkpoints.restore(self._dataset)
    step = int(self._trainer.optimizer.step)
    assert position == Position(0, step)
    assert checkpoints.latest == (
      str(folder / f"model.ckpt-{step}") if step else None
    )
    return step


@pytest.fixture(scope="module")
def run(trainer, tmp_path_factory) -> Run:
  return Run(trainer, tmp_path_factory.mktemp("data") / "none.tfrecords")


@pytest.fixture
def folder(run, tmp_path) -> pathlib.Path:
  """The folder of a run with checkpoints at 3, 6 and 8; two are kept."""
  folder = tmp_path / "run_1"
  run.save(folder, (3, 6, STEPS), keep=2)
  assert checkpoints(folder) == {"model.ckpt-6", "model.ckpt-8"}
  return folder


def sums(number: int) -> FileSum:
  return FileSum(number, f"{number:064x}")


def some_manifest() -> Manifest:
  files = {
    f"model.ckpt-40.{kind}": sums(i)
    for i, kind in enumerate(["data-00000-of-00001", "index"])
  }
  return Manifest(
    [SavedCheckpoint(40, files, {"loss/ari_nobg": 0.5})],
    {"config.json": sums(7)},
  )


# --- The file -----------------------------------------------------------------


def test_a_manifest_is_read_as_it_was_written(tmp_path):
  assert run_manifest.load(tmp_path) is None
  some_manifest().save(tmp_path)
  assert run_manifest.load(tmp_path) == some_manifest()


def test_a_checkpoint_takes_the_place_of_one_of_its_step():
  manifest = some_manifest()
  (before,) = manifest.checkpoints
  manifest.add(SavedCheckpoint(7, {}, {}))
  manifest.add(SavedCheckpoint(40, {}, {}))
  assert [c.step for c in manifest.checkpoints] == [7, 40]
  assert before not in manifest.checkpoints


def test_every_flipped_bit_is_noticed(tmp_path, caplog):
  some_manifest().save(tmp_path)
  path = tmp_path / run_manifest.MANIFEST_FILE
  content = path.read_bytes()
  for place in range(len(content)):
    damaged = bytearray(content)
    damaged[place] ^= 1 << (place % 7)
    path.write_bytes(damaged)
    caplog.clear()
    found = run_manifest.load(tmp_path)
    # Blanks between entries mean nothing.
    assert found == some_manifest() or f"{path} is damaged" in caplog.text


def rewrite(folder: pathlib.Path, change) -> None:
  """Changes a manifest, with the right checksum."""
  path = folder / run_manifest.MANIFEST_FILE
  entries = json.loads(path.read_text())
  change(entries)
  del entries["sha256"]
  entries["sha256"] = run_manifest._digest(entries)
  path.write_text(json.dumps(entries))


@pytest.mark.parametrize(
  "name",
  [
    "/home/user/model.ckpt-40.index",
    "../run_1/model.ckpt-40.index",
    "model.ckpt-*.index",
    "model.ckpt-41.index",
    "model.ckpt-40.index/x",
    "config.json",
  ],
)
def test_a_manifest_names_checkpoints_of_its_folder_alone(
  tmp_path, caplog, name
):
  some_manifest().save(tmp_path)

  def change(entries):
    entries["checkpoints"][0]["files"][name] = sums(1)._asdict()

  rewrite(tmp_path, change)
  assert run_manifest.load(tmp_path) is None
  assert "is damaged and does not count" in caplog.text


@pytest.mark.parametrize("step", [-1, 1.5e400, "x", None, [], {}])
def test_an_impossible_manifest_does_not_count(tmp_path, caplog, step):
  some_manifest().save(tmp_path)
  rewrite(tmp_path, lambda entries: entries["checkpoints"][0].update(step=step))
  assert run_manifest.load(tmp_path) is None
  assert "is damaged and does not count" in caplog.text


def test_a_later_format_is_an_error(tmp_path):
  some_manifest().save(tmp_path)
  rewrite(tmp_path, lambda entries: entries.update(format=2))
  with pytest.raises(
    ConfigError, match="a later version .* Update the package"
  ):
    run_manifest.load(tmp_path)


def test_a_run_has_a_manifest(folder):
  manifest = run_manifest.load(folder)
  assert manifest is not None
  # What was removed last is dropped by the next save.
  assert [c.name for c in manifest.checkpoints][-2:] == [
    "model.ckpt-6",
    "model.ckpt-8",
  ]
  for checkpoint in manifest.checkpoints[-2:]:
    assert list(checkpoint.files) == [
      f"{checkpoint.name}.data-00000-of-00001",
      f"{checkpoint.name}.index",
    ]
    assert checkpoint.change(folder) is None
  assert str(folder.parent) not in (folder / "checkpoint").read_text()


def test_a_configuration_that_was_changed_is_told(run, folder, caplog):
  path = folder / "config.json"
  path.write_text('{"n_z": 4, "seed": 3}')
  run_folder.read_file(path, in_place=True)
  run.save(folder, [9], keep=2)
  run_folder.read_file(path, in_place=True)
  assert "was edited" not in caplog.text
  path.write_text('{"n_z": 5, "seed": 3}')
  run_folder.read_file(path, in_place=True)
  assert f"{path} is not as it was written: it was edited, or" in caplog.text


# --- What is not ours stays ---------------------------------------------------


def test_files_that_look_like_ours_stay(run, folder):
  theirs = {
    "model.ckpt-1.index": "",
    "model.ckpt-1.data-00000-of-00001": "",
    "model.ckpt-7_temp/part": "",
    "data.partial/scenes": "",
    "notes.partial": "",
    "checkpoint.tmp12": "",
  }
  for name in theirs:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(theirs[name])
  run.save(folder, (9, 10), keep=1)
  assert {name: (folder / name).read_text() for name in theirs} == theirs
  assert checkpoints(folder) == {"model.ckpt-10", "model.ckpt-1"}


def test_a_file_in_the_place_of_ours_stays(run, folder):
  path = folder / "model.ckpt-6.index"
  path.unlink()
  path.write_text("someone else's notes")
  run.save(folder, (9, 10), keep=1)
  assert path.read_text() == "someone else's notes"


@pytest.mark.parametrize("name", ["[a]_1", "?_1", "*", "a{b,c}"])
def test_a_folder_of_any_name_has_its_own_checkpoints(
  run, folder, tmp_path, name
):
  neighbours = [tmp_path / other for other in ("a_1", "b_1", "ab")]
  for neighbour in neighbours:
    shutil.copytree(folder, neighbour)
  before = [contents(neighbour) for neighbour in neighbours]
  for step in (3, STEPS):
    run.save(tmp_path / name, [step], keep=1)
    assert checkpoints(tmp_path / name) == {f"model.ckpt-{step}"}
  assert run.restore(tmp_path / name) == STEPS
  assert [contents(neighbour) for neighbour in neighbours] == before


@pytest.mark.parametrize("state", ["", "absolute", "wildcards"])
def test_a_copy_leaves_its_original_alone(run, folder, tmp_path, state):
  copy = pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))
  prefix = {
    "absolute": f"{folder}/model.ckpt-{STEPS}",
    "wildcards": f"{tmp_path}/*/model.ckpt-*",
  }.get(state)
  if prefix:
    for path in (copy / "manifest.json", copy / "checkpoint"):
      path.unlink()
    (copy / "checkpoint").write_text(
      f'model_checkpoint_path: "{prefix}"\n'
      f'all_model_checkpoint_paths: "{prefix}"\n'
    )
  before = contents(folder)
  assert run.restore(copy) == STEPS
  run.save(copy, (9, 10), keep=1)
  assert contents(folder) == before


def test_a_link_in_the_place_of_the_new_checkpoint_is_not_followed(
  run, folder, tmp_path
):
  target = tmp_path / "target"
  target.mkdir()
  (target / "file").write_text("of someone else")
  (folder / ".model.ckpt.saving").symlink_to(target)
  (folder / "model.ckpt-9.index").symlink_to(target / "file")
  run.save(folder, [9], keep=2)
  assert contents(target) == {"file": b"of someone else"}
  assert not (folder / "model.ckpt-9.index").is_symlink()


# --- Damage -------------------------------------------------------------------


def damage(folder: pathlib.Path, kind: str, step: int) -> None:
  (index,) = folder.glob(f"model.ckpt-{step}.index")
  (data,) = folder.glob(f"model.ckpt-{step}.data*")
  if kind == "index missing":
    index.unlink()
  elif kind == "data missing":
    data.unlink()
  else:
    path = index if "index" in kind else data
    content = bytearray(path.read_bytes())
    if "zeros" in kind:
      content[:] = bytes(len(content))
    elif "cut" in kind:
      del content[len(content) // 2 :]
    else:
      content[len(content) // 3] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize(
  "kind",
  [
    "index missing",
    "index zeros",
    "index cut",
    "data missing",
    "data zeros",
    "data cut",
    "data bit",
  ],
)
def test_a_run_goes_on_from_the_last_whole_checkpoint(
  run, folder, caplog, kind, is_old
):
  damage(folder, kind, STEPS)
  if is_old:  # earlier versions wrote no manifest
    (folder / "manifest.json").unlink()
  assert run.restore(folder) == 6
  told = [r.getMessage() for r in caplog.records if r.levelno > logging.INFO]
  assert f"model.ckpt-{STEPS}" in "\n".join(told)
  assert told[-1] == (
    f"Resuming from the last whole checkpoint, {folder}/model.ckpt-6"
  )
  # The damaged one does not count again.
  run.save(folder, [7], keep=2)
  caplog.clear()
  assert run.restore(folder) == 7
  assert "Resuming from" not in caplog.text


def test_of_damaged_ones_the_last_is_named(run, folder):
  for step in (6, STEPS):
    damage(folder, "data bit", step)
  before = contents(folder)
  with pytest.raises(CheckpointError) as error:
    run.restore(folder)
  assert f"{folder}/model.ckpt-{STEPS}: " in str(error.value)
  assert contents(folder) == before


@pytest.mark.parametrize(
  "remains",
  [
    ["model.ckpt-3.data-00000-of-00001", "model.ckpt-6.data-00000-of-00001"],
    ["model.ckpt-7_temp"],
    ["x.ckpt.tempstate1234"],
  ],
)
def test_remains_of_weights_are_no_new_run(run, tmp_path, remains):
  for name in remains:
    (tmp_path / name).write_bytes(b"weights")
  with pytest.raises(CheckpointError) as error:
    run.restore(tmp_path)
  for name in (tmp_path, *remains):
    assert str(name) in str(error.value)
  assert {path.name for path in tmp_path.iterdir()} == set(remains)


def test_an_empty_folder_is_a_new_run(run, tmp_path):
  assert run.restore(tmp_path) == 0


def test_what_is_missing_in_a_folder_is_told(folder, caplog):
  damage(folder, "index missing", STEPS)
  assert checkpoint_files.find(str(folder)) == str(folder / "model.ckpt-6")
  told = f"{folder}/model.ckpt-{STEPS} is not whole: using {folder}/model.ck"
  assert told in caplog.text
