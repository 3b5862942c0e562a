"""Tests of iodine.data.cache."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from iodine.data import cache as scene_cache
from iodine.tfrecords import inspection
from tests.support import record_files

SPEC = {
  "image": tf.TensorSpec([1, 3, 5, 2], tf.float32),
  "mask": tf.TensorSpec([1, 4, 3, 5, 1], tf.uint8),
  "factors": {"x": tf.TensorSpec([4, 1], tf.float32)},
}


def scenes(count, every=1):
  """Random scenes, whose factor x is their number; one in `every`."""
  rng = np.random.default_rng(0)
  numbers = np.arange(count, dtype=np.float32)
  features = {
    "image": rng.random([count, 1, 3, 5, 2], dtype=np.float32),
    "mask": rng.integers(0, 2, [count, 1, 4, 3, 5, 1], dtype=np.uint8),
    "factors": {"x": np.tile(numbers[:, None, None], [1, 4, 1])},
  }
  dataset = tf.data.Dataset.from_tensor_slices(features).enumerate()
  return dataset.filter(lambda place, _: place % every == 0)


@pytest.fixture(name="small_files", autouse=True)
def fixture_small_files(monkeypatch):
  monkeypatch.setattr(scene_cache, "_MAX_SCENES_PER_FILE", 3)


def make(folder, key="a", spec=None):
  return scene_cache.SceneCache(folder, "things", spec or SPEC, {"key": key})


def numbers(cache, dataset):
  found = [cache.unpack(record) for _, record in dataset]
  return [int(scene["factors"]["x"][0, 0]) for scene in found]


def test_gives_back_what_it_got(tmp_path):
  cache = make(tmp_path / "new")
  assert cache.num_scenes() is None
  progress = []
  cache.write(scenes(20, every=2), progress.append)
  assert cache.num_scenes() == make(tmp_path / "new").num_scenes() == 10
  # The place of the last scene of each file, counted from 1.
  assert progress == [5, 11, 17, 19]
  read = list(cache.read().map(lambda _, record: cache.unpack(record)))
  for (_, expected), scene in zip(scenes(20, every=2), read, strict=True):
    tf.nest.map_structure(np.testing.assert_array_equal, expected, scene)
  unpacked = cache.read().map(lambda _, record: cache.unpack(record))
  assert unpacked.element_spec == SPEC
  assert [p.name for p in (tmp_path / "new").iterdir()] == [cache.path.name]
  assert cache.path.name.startswith("things-")


@pytest.mark.parametrize("skip", [0, 1, 3, 4, 10, 11])
@pytest.mark.parametrize("take", [None, 1, 2, 3, 7, 100])
def test_skip_and_take(tmp_path, skip, take):
  cache = make(tmp_path)
  cache.write(scenes(11))
  expected = list(range(11))[skip : None if take is None else skip + take]
  assert numbers(cache, cache.read(skip, take)) == expected
  mixed = cache.read_mixed(skip, take, tf.constant(1, tf.int64))
  assert sorted(numbers(cache, mixed)) == expected
  for records in (cache.read(skip, take), mixed):
    told = [int(number) for number, _ in records]
    assert told == numbers(cache, records)


def test_mixes_the_whole_file_by_its_seed(tmp_path, monkeypatch):
  monkeypatch.setattr(scene_cache, "_CYCLE_LENGTH", 8)
  cache = make(tmp_path)
  cache.write(scenes(300))

  def mixed(seed):
    tf.random.set_seed(5)
    return numbers(
      cache, cache.read_mixed(0, None, tf.constant(seed, tf.int64))
    )

  first = mixed(1)
  assert first == mixed(1)
  assert first != mixed(2)
  # In a file sorted by anything, every stretch is a sample of the whole.
  for start in range(0, 300, 24):
    stretch = first[start : start + 24]
    assert np.ptp(stretch) > 100


def test_another_key_or_structure_is_another_cache(tmp_path):
  make(tmp_path).write(scenes(4))
  assert make(tmp_path).num_scenes() == 4
  assert make(tmp_path, key="b").num_scenes() is None
  other = {**SPEC, "image": tf.TensorSpec([1, 3, 5, 2], tf.float16)}
  assert make(tmp_path, spec=other).num_scenes() is None


@pytest.mark.parametrize(
  "damage",
  [
    "cut",
    "missing",
    "no index",
    *("{", "[]", "[" * 10**5, "\xff", '{"num_scenes": 7}', '{"bytes": []}'),
    '{"num_scenes": "7", "bytes": []}',
    '{"num_scenes": 7, "bytes": 3}',
  ],
)
def test_damaged_cache_is_written_anew(tmp_path, damage):
  cache = make(tmp_path)
  cache.write(scenes(7))
  file = sorted(cache.path.glob("*.tfrecords"))[1]
  index = cache.path / "index.json"
  if damage == "cut":
    file.write_bytes(file.read_bytes()[:-1])
  elif damage == "missing":
    file.unlink()
  elif damage == "no index":
    index.unlink()
  else:
    index.write_text(damage, encoding="latin-1")
  assert cache.num_scenes() is None
  with pytest.raises(FileNotFoundError, match="no whole cache"):
    cache.read()
  cache.write(scenes(7))
  assert numbers(cache, cache.read()) == list(range(7))


def test_index_tells_people_what_it_is(tmp_path):
  cache = make(tmp_path)
  cache.write(scenes(7))
  index = json.loads((cache.path / "index.json").read_text())
  assert index["num_scenes"] == 7
  assert index["key"]["key"] == "a"


def test_nothing_is_left_of_a_failure(tmp_path):
  def fail(num_read):
    if num_read > 3:
      raise KeyboardInterrupt

  cache = make(tmp_path)
  with pytest.raises(KeyboardInterrupt):
    cache.write(scenes(20), fail)
  assert list(tmp_path.iterdir()) == []


def test_keeps_the_cache_of_a_faster_process(tmp_path):
  cache = make(tmp_path)

  def other_process(num_read):  # with the same id, as in another container
    make(tmp_path).write(scenes(7))
    return os.stat(cache.path).st_ino

  inodes = []
  cache.write(
    scenes(3), lambda num_read: inodes.append(other_process(num_read))
  )
  assert [os.stat(cache.path).st_ino] == inodes
  assert [path.name for path in tmp_path.iterdir()] == [cache.path.name]


def test_removes_what_killed_processes_left(tmp_path):
  left = [
    ".clevr-0123456789abcdef.17.partial",
    ".x-y-0123456789abcdef.a.partial",
  ]
  kept = [".clevr-0123456789abcdef", ".video.mp4.partial"]
  for name in left + kept:
    (tmp_path / name).mkdir()
    (tmp_path / name / "000000.tfrecords").write_bytes(b"scenes")
  cache = make(tmp_path)

  def check(num_read):  # while another process writes, nothing is removed
    if num_read == 3:
      (tmp_path / left[0]).mkdir()
      make(tmp_path, key="b").write(scenes(1))
      assert (tmp_path / left[0]).exists()

  cache.write(scenes(4), check)
  names = {path.name for path in tmp_path.iterdir()}
  others = {cache.path.name, make(tmp_path, key="b").path.name}
  assert names == {*kept, *others, left[0]}


def test_a_damaged_cache_goes_only_when_the_new_one_is_there(tmp_path):
  cache = make(tmp_path)
  cache.write(scenes(7))
  index = cache.path / "index.json"
  index.unlink()

  def fail(num_read):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    cache.write(scenes(7), fail)
  assert [path.name for path in tmp_path.iterdir()] == [cache.path.name]
  cache.write(scenes(7))
  assert index.exists()
  assert [path.name for path in tmp_path.iterdir()] == [cache.path.name]


def damage_a_scene(data):
  data[len(data) // 2] ^= 1


def claim_too_much(data):
  data[:12] = record_files.head(2**40)


@pytest.mark.parametrize(
  ("damage", "reason"),
  [
    (damage_a_scene, "a scene fails its checksum."),
    (claim_too_much, "0 of 3 scenes can be read."),
  ],
)
@pytest.mark.parametrize("is_mixed", [False, True])
def test_damaged_bytes_are_one_clear_error(tmp_path, damage, reason, is_mixed):
  cache = make(tmp_path)
  cache.write(scenes(7))
  file = sorted(cache.path.glob("*.tfrecords"))[1]
  data = bytearray(file.read_bytes())
  damage(data)
  file.write_bytes(data)
  records = cache.read()
  if is_mixed:
    records = cache.read_mixed(0, None, tf.constant(1, tf.int64))
  with pytest.raises(tf.errors.OpError) as error:
    numbers(cache, records)
  assert inspection.explain(error.value, source="the data") == (
    f"{file}: {reason} Delete the folder {cache.path}: it is a cache, and "
    "will be rewritten."
  )


def test_a_file_that_is_gone_is_one_clear_error(tmp_path):
  cache = make(tmp_path)
  cache.write(scenes(7))
  records = cache.read()
  file = sorted(cache.path.glob("*.tfrecords"))[1]
  file.unlink()
  with pytest.raises(tf.errors.OpError) as error:
    numbers(cache, records)
  reason = inspection.explain(error.value, source="the data")
  assert reason.startswith(f"{file}: the file cannot be read: ")


def test_the_format_is_part_of_the_key(tmp_path, monkeypatch):
  cache = make(tmp_path)
  # Caches of the first format go on being found.
  assert cache.path.name == "things-be7b338990a7d2bb"
  cache.write(scenes(4))
  monkeypatch.setattr(scene_cache, "_FORMAT", 2)
  other = make(tmp_path)
  assert other.num_scenes() is None
  other.write(scenes(5))
  assert (cache.num_scenes(), other.num_scenes()) == (4, 5)


def test_folder_that_cannot_be_written(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(OSError, match="file"):
    make(tmp_path / "file").write(scenes(3))
