"""Tests of iodine.data.fingerprint: which changes of data are noticed."""

import functools
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from iodine.data import fingerprint
from iodine.data.datasets import ImageFolder, Tetrominoes
from iodine.errors import ConfigError
from iodine.synthetic import generation, tetrominoes
from tests.support.small_datasets import Clips
from tests.support.tiny_runs import TINY, contents, fail, run, write_scenes

SIZE = 3_000_017
# No multiple of what a sample or the distance between two is.
UNSAMPLED = 1_234_567


@pytest.fixture(name="files")
def fixture_files(tmp_path):
  folder = tmp_path / "data"
  (folder / "more").mkdir(parents=True)
  random = np.random.default_rng(0)
  names = ("a", "b", "more/a")
  for name, size in zip(names, (SIZE, 5, 40_000), strict=True):
    (folder / name).write_bytes(random.bytes(size))
  return [folder / name for name in names]


def take(files, verify=False):
  return fingerprint.take([str(file) for file in files], verify)


def flip(path, place):
  content = bytearray(path.read_bytes())
  content[place] ^= 1
  path.write_bytes(content)


# --- Files --------------------------------------------------------------------


def test_data_may_move(files, tmp_path):
  before = take(files)
  assert [file.name for file in before.files] == ["a", "b", "more/a"]
  moved = shutil.copytree(tmp_path / "data", tmp_path / "moved")
  now = [moved / file.relative_to(tmp_path / "data") for file in files]
  os.utime(now[0], (1, 1))
  assert before.difference(take(now)) is None
  assert before == take(now)
  renamed = now[0].rename(moved / "c")
  assert before.difference(take([renamed, *now[1:]])) is None


@pytest.mark.parametrize("place", [0, SIZE - 1, 4095, SIZE - 4096])
def test_both_ends_are_looked_at(files, place):
  before = take(files)
  flip(files[0], place)
  assert before.difference(take(files)) == "a has other content"


def test_every_byte_of_a_small_file_is_looked_at(files):
  before = take(files[1:])
  for place in range(5):
    flip(files[1], place)
    assert before.difference(take(files[1:])) == "b has other content"
    flip(files[1], place)


def test_other_content_between_the_ends(files):
  before = take(files)
  content = bytearray(files[0].read_bytes())
  content[10_000:-10_000] = bytes(SIZE - 20_000)
  files[0].write_bytes(content)
  assert before.difference(take(files)) == "a has other content"


def test_what_is_appended_or_cut_off(files):
  before = take(files)
  with files[1].open("ab") as file:
    file.write(b"garbage")
  assert before.difference(take(files)) == "b has 12 bytes, not 5"
  files[0].write_bytes(files[0].read_bytes()[:-1])
  assert before.difference(take(files)) == (
    "a has 3,000,016 bytes, not 3,000,017 (1 more files differ)"
  )


def test_files_that_come_and_go(files, tmp_path):
  before = take(files)
  assert before.difference(take(files[:2])) == "more/a is missing"
  assert before.difference(take(files[1:])) == "a is missing"
  new = tmp_path / "data" / "c"
  new.touch()
  assert before.difference(take([*files, new])) == "c is new"
  assert before.difference(take(files[::-1])) == (
    "the files come in another order"
  )


def test_one_byte_is_seen_if_every_byte_is_read(files):
  sampled, whole = take(files), take(files, verify=True)
  assert whole.files[0].sha256 == (
    hashlib.sha256(files[0].read_bytes()).hexdigest()
  )
  assert whole.difference(take(files, verify=True)) is None
  flip(files[0], UNSAMPLED)
  now = take(files, verify=True)
  assert whole.difference(now) == ("a has other content, as its SHA-256 shows")
  # Samples do not show it, or this test would show nothing.
  assert sampled.difference(now) is None
  assert whole.difference(take(files)) is None


def test_a_digest_of_everything_stays_known(files):
  whole = take(files, verify=True)
  assert take(files).with_digests_of(whole) == whole
  assert whole.with_digests_of(take(files)) == whole
  unknown = take(files)
  assert unknown.with_digests_of(fingerprint.Fingerprint(None)) == unknown


def test_a_large_file_costs_little(tmp_path):
  path = tmp_path / "a"
  with path.open("wb") as file:
    file.truncate(10 * 2**30)  # of holes
  (file,) = take([path]).files
  assert file.size == 10 * 2**30
  starts = fingerprint._starts(file.size)
  assert len(starts) * fingerprint._SAMPLE_BYTES <= 2**20
  assert starts[0] == 0
  assert starts[-1] == file.size - fingerprint._SAMPLE_BYTES


# --- What a run's folder says -------------------------------------------------


@pytest.mark.parametrize("verify", [False, True])
def test_a_saved_fingerprint_is_read_as_it_was(files, tmp_path, verify):
  for saved in (take(files, verify), fingerprint.Fingerprint(None)):
    fingerprint.save(tmp_path, saved)
    assert fingerprint.load(tmp_path) == saved
  fingerprint.save(tmp_path, take(files, verify))
  text = (tmp_path / "data.json").read_text()
  assert json.loads(text)["format"] == 1
  assert str(tmp_path) not in text


@pytest.mark.parametrize(
  "text",
  [
    "",
    "[" * 100_000,
    "[]",
    "{}",
    '{"format": 1}',
    '{"format": 1, "files": 3}',
    '{"format": 1, "files": [3]}',
    '{"format": 1, "files": [{"name": "a"}]}',
    '{"format": 1, "files": [{"name": 1, "size": "1", "samples": "x"}]}',
    '{"format": 1, "files": [{"name": "a", "size": "1", "samples": "x"}]}',
  ],
)
def test_a_damaged_file_is_told(tmp_path, text):
  path = tmp_path / "data.json"
  path.write_text(text)
  with pytest.raises(ConfigError) as caught:
    fingerprint.load(tmp_path)
  assert str(caught.value) == (
    f"{path} is damaged. To continue all the same, delete {path}"
  )


def test_the_format_of_another_version(tmp_path):
  (tmp_path / "data.json").write_text('{"format": 2, "files": null}')
  with pytest.raises(ConfigError, match=r"data\.json: format 2, but this"):
    fingerprint.load(tmp_path)


def test_data_that_are_in_no_file(tmp_path):
  clips = Clips(batch_size=1, image_dim=(8, 10))
  assert clips.stored_files() is None
  now = fingerprint.take(clips.stored_files(), verify=True)
  fingerprint.save(tmp_path, now)
  assert fingerprint.check(tmp_path, now, "data") == now


def test_files_of_a_dataset_without_a_cache_key_changing(tmp_path):
  path = write_scenes(tmp_path / "a.tfrecords", 2)
  options = {"batch_size": 1, "cache_dir": str(tmp_path)}
  plain = Tetrominoes(path, **options)
  assert plain.stored_files() == [str(path)]
  verified = Tetrominoes(path, verify=True, **options)
  assert verified._cache().path == plain._cache().path
  with pytest.raises(ValueError, match="verify=1: expected True or False"):
    Tetrominoes(path, verify=1, **options)


def test_images_and_masks(tmp_path):
  folder = tmp_path / "images"
  (folder / "masks").mkdir(parents=True)
  for name in ("b", "a"):
    Image.new("RGB", (3, 3)).save(folder / f"{name}.bmp")
    Image.new("L", (3, 3)).save(folder / "masks" / f"{name}.png")
  dataset = ImageFolder(folder, batch_size=1, image_dim=(2, 2))

  def now():
    return fingerprint.take(dataset.stored_files(), verify=False)

  before = now()
  assert [file.name for file in before.files] == [
    *("a.bmp", "b.bmp", "masks/a.png", "masks/b.png")
  ]
  (folder / "notes.txt").touch()
  assert before.difference(now()) is None
  Image.new("L", (3, 3), 1).save(folder / "masks" / "b.png")
  assert "masks/b.png has " in before.difference(now())
  (folder / "a.bmp").unlink()
  assert before.difference(now()).startswith("a.bmp is missing (")


# --- Runs ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
  """A run of two steps, with the data beside it."""
  folder = tmp_path_factory.mktemp("finished")
  write_scenes(folder / "tetrominoes_train.tfrecords", 7)
  run(*words(folder), f"checkpoint_dir={folder}/run")
  return folder


@pytest.fixture(name="copied")
def fixture_copied(finished, tmp_path) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(finished, tmp_path / "copied"))


def words(folder, *more):
  return (*TINY, f"data_dir={folder}", "stop_after_steps=2", *more)


def continued(folder, *more):
  place = (f"checkpoint_dir={folder}/run_1", "continue_run=True")
  return words(folder, *place, "stop_after_steps=3", *more)


def refused(capsys, folder, *more):
  before = contents(folder / "run_1")
  error = fail(capsys, 2, *continued(folder, *more))
  assert contents(folder / "run_1") == before
  assert error.startswith(
    f"ConfigError: checkpoint_dir='{folder}/run_1': continue_run=True, but "
    "these are not the data of that run: tetrominoes_train.tfrecords has "
  )
  assert f"delete {folder}/run_1/data.json" in error
  assert error.count("\n") == 1
  return error


def test_a_run_says_what_its_data_are(finished):
  assert fingerprint.load(finished / "run_1") == take(
    [finished / "tetrominoes_train.tfrecords"]
  )


def test_a_run_goes_on_with_the_same_data_elsewhere(copied):
  before = (copied / "run_1" / "data.json").read_bytes()
  run(*continued(copied))
  assert (copied / "run_1" / "data.json").read_bytes() == before
  assert (copied / "run_1" / "model.ckpt-3.index").exists()


def test_other_scenes_of_the_same_kind_are_refused(copied, capsys):
  data = copied / "tetrominoes_train.tfrecords"
  scenes = functools.partial(tetrominoes.sample_scenes, num_objects=3)
  generation.write_tfrecords(
    data, tetrominoes.FEATURES, scenes, num_scenes=7, seed=1, overwrite=True
  )
  refused(capsys, copied)
  (copied / "run_1" / "data.json").unlink()  # the remedy
  run(*continued(copied))
  assert fingerprint.load(copied / "run_1") == take([data])


def test_garbage_that_is_appended_is_refused(copied, capsys):
  with (copied / "tetrominoes_train.tfrecords").open("ab") as file:
    file.write(b"garbage")
  assert " bytes, not " in refused(capsys, copied)


def test_a_run_of_an_earlier_version_goes_on(copied, caplog):
  caplog.set_level("INFO")
  (copied / "run_1" / "data.json").unlink()
  run(*continued(copied))
  assert caplog.text.count("run_1 has no data.json: ") == 1
  assert (copied / "run_1" / "data.json").exists()


def test_every_byte_is_verified_on_request(copied, capsys, caplog):
  caplog.set_level("INFO")
  run(*continued(copied, "data.verify=True"))
  assert "Reading all data for their SHA-256" in caplog.text
  path = copied / "run_1" / "data.json"
  saved = json.loads(path.read_text())
  data = copied / "tetrominoes_train.tfrecords"
  digest = hashlib.sha256(data.read_bytes()).hexdigest()
  assert [file["sha256"] for file in saved["files"]] == [digest]
  # As if samples had not shown it.
  saved["files"][0]["sha256"] = "0" * 64
  path.write_text(json.dumps(saved))
  assert "as its SHA-256 shows" in refused(capsys, copied, "data.verify=True")
