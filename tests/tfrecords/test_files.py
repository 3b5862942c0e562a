"""Tests of finding, inspecting and refusing TFRecord files."""

import gzip
import itertools
import os
import re
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
import tensorflow as tf

from iodine.multi_object_datasets import (
  cater_with_masks,
  multi_dsprites,
  objects_room,
  tetrominoes,
)
from iodine.tfrecords import format as tfrecord_format
from iodine.tfrecords import inspection
from iodine.tfrecords import reading as tfrecord_reading
from iodine.tfrecords.inspection import Feature
from tests.support import record_files

COMPRESSIONS = ["GZIP", "ZLIB", ""]
# One reader of each module.
KINDS = ["tetrominoes", "clevr", "cater", "binarized", "train"]
# The other kinds in the released files' compression alone.
KINDS_AND_COMPRESSIONS = [
  *itertools.product(["tetrominoes"], COMPRESSIONS),
  *((kind, record_files.READERS[kind].compression) for kind in KINDS[1:]),
]


@pytest.fixture(name="record", scope="module")
def fixture_record():
  return record_files.READERS["tetrominoes"].example(0)[0]


@pytest.fixture(name="records", scope="module")
def fixture_records():
  """{kind: a record}."""
  return {
    kind: record_files.READERS[kind].example(1)[0]
    for kind in [*KINDS, "colored_on_colored", "empty_room"]
  }


def read(dataset):
  """Reads to the end: the number of scenes, and the error's explanation."""
  count = 0
  try:
    for _ in dataset:
      count += 1
  except tf.errors.OpError as error:
    return count, inspection.explain(error, source="the data")
  return count, None


class TestPaths:
  def test_glob_is_sorted(self, tmp_path):
    rng = np.random.default_rng(5)
    expected = []
    names = ["b-00-of-3", "b-01-of-3", "b-02-of-3"]
    for name in names:
      record, arrays = record_files.make_example(tetrominoes.features, rng)
      record_files.write(tmp_path / name, [record])
      expected.append(arrays["x"])
    record_files.write(tmp_path / "c-03-of-3", [record])
    scenes = list(tetrominoes.dataset(tmp_path / "b-*-of-3"))
    np.testing.assert_array_equal([s["x"] for s in scenes], expected)
    paths = inspection.expand_paths([tmp_path / "c*", f"{tmp_path}/b-0[01]-?*"])
    assert [os.path.basename(p) for p in paths] == ["c-03-of-3", *names[:2]]

  @pytest.mark.parametrize("path", ["b-*", "nowhere/b-*"])
  def test_glob_without_match(self, tmp_path, path):
    with pytest.raises(FileNotFoundError, match=r"No file matches .*/b-\*"):
      tetrominoes.dataset(tmp_path / path)

  def test_file_with_the_name_of_a_glob(self, tmp_path, record):
    for name in ("a[1]", "a1"):
      (tmp_path / name).write_bytes(b"")
    assert inspection.expand_paths(tmp_path / "a[1]") == [f"{tmp_path}/a[1]"]
    assert inspection.expand_paths(tmp_path / "a[12]") == [f"{tmp_path}/a1"]

  def test_list_of_files_of_different_compression(self, tmp_path):
    rng = np.random.default_rng(5)
    paths, expected = [], []
    for i, compression in enumerate(["GZIP", "GZIP", "", "ZLIB"]):
      record, arrays = record_files.make_example(tetrominoes.features, rng)
      path = tmp_path / f"scenes_{i}"
      paths.append(record_files.write(path, [record], compression))
      expected.append(arrays["x"])
    scenes = list(tetrominoes.dataset(paths))
    np.testing.assert_array_equal([s["x"] for s in scenes], expected)

  def test_missing_file(self, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*/nowhere"):
      tetrominoes.dataset(tmp_path / "nowhere")

  def test_directory(self, tmp_path):
    with pytest.raises(ValueError, match="is a directory: name the .tfrecords"):
      tetrominoes.dataset(tmp_path)

  @pytest.mark.parametrize("path", [[], None, 3, [3]])
  def test_no_path(self, path):
    with pytest.raises(ValueError, match="tfrecords_path"):
      tetrominoes.dataset(path)


class TestWholeFiles:
  @pytest.mark.parametrize("compression", COMPRESSIONS)
  def test_compression_is_detected(self, tmp_path, record, compression):
    path = record_files.write(tmp_path / "scenes", [record] * 3, compression)
    assert inspection.detect_compression(str(path)) == compression
    dataset = tetrominoes.dataset(path)
    for _ in range(2):
      assert read(dataset) == (3, None)

  def test_uncompressed_length_that_looks_like_a_zlib_header(self, tmp_path):
    # The length 0x9c78 is stored as 78 9c ..., zlib's usual first bytes.
    path = record_files.write(tmp_path / "scenes", [b"x" * 0x9C78], "")
    assert path.read_bytes()[:2] == zlib.compress(b"")[:2]
    assert inspection.detect_compression(str(path)) == ""

  def test_gzip_file_of_several_members(self, tmp_path, record):
    data = record_files.framed(tmp_path, record) * 3
    half = len(data) // 2
    path = tmp_path / "scenes"
    path.write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    assert read(tetrominoes.dataset(path)) == (3, None)
    assert inspection.count_records(str(path)) == 3

  def test_reads_in_a_tf_function(self, tmp_path, record):
    path = record_files.write(tmp_path / "scenes", [record] * 3)

    @tf.function
    def count():
      dataset = tetrominoes.dataset(str(path))
      return dataset.reduce(0, lambda total, scene: total + 1)

    assert count() == 3

  def test_repeated_shuffled_and_saved(self, tmp_path, record):
    path = record_files.write(tmp_path / "scenes", [record] * 3, "ZLIB")
    dataset = tetrominoes.dataset(path, map_parallel_calls=2)
    assert len(list(dataset.repeat(2).shuffle(4).batch(1))) == 6
    dataset.save(str(tmp_path / "saved"))
    assert len(list(tf.data.Dataset.load(str(tmp_path / "saved")))) == 3


class TestNoTFRecordFiles:
  @pytest.mark.parametrize(
    ("content", "message"),
    [
      (b"", "is empty. A download, a copy or a generator"),
      (b"<html>Not found</html>", "looks like a web page"),
      (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
      (b"\x00" * 100, "no TFRecord file: it starts with"),
      (b"PK", "an archive must be unpacked"),
      (
        gzip.compress(b"a tar archive, or some such", mtime=0),
        "no TFRecord file: it holds GZIP data",
      ),
      (gzip.compress(b"", mtime=0), "holds no record"),
      (zlib.compress(b"text of some length"), "holds ZLIB data that start"),
      (b"\x1f\x8b\x08" + b"\xff" * 50, "damaged GZIP data"),
    ],
  )
  @pytest.mark.parametrize("kind", KINDS)
  def test_content(self, tmp_path, kind, content, message):
    path = tmp_path / "scenes.tfrecords"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
      record_files.READERS[kind].open(path)
    assert str(path) in str(error.value)

  def test_cut_off_within_the_first_head(self, tmp_path, record):
    path = record_files.write(tmp_path / "scenes", [record])
    path.write_bytes(path.read_bytes()[:11])
    with pytest.raises(ValueError, match="holds no record"):
      tetrominoes.dataset(path)

  @pytest.mark.parametrize(("kind", "compression"), KINDS_AND_COMPRESSIONS)
  def test_cut_off_within_the_first_record(
    self, tmp_path, records, kind, compression
  ):
    path = record_files.write(tmp_path / "scenes", [records[kind]], compression)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="/scenes, record 0: the .*break") as e:
      record_files.READERS[kind].open(path)
    assert "Fetch or write the file again." in str(e.value)


class TestOtherDatasets:
  @pytest.mark.parametrize(
    ("kind", "other", "found"),
    [
      ("tetrominoes", "train", "image 12288 bytes, mask 28672 bytes"),
      ("clevr", "tetrominoes", "color 12 float, image 3675 bytes"),
      ("cater", "train", "image 12288 bytes, mask 28672 bytes"),
      ("binarized", "colored_on_colored", "color 15 float, image 12288 bytes"),
      ("train", "empty_room", "image 12288 bytes, mask 16384 bytes"),
      ("train", "cater", "camera_matrix 528 float, image 1 bytes (of 405504)"),
    ],
  )
  @pytest.mark.parametrize("compression", COMPRESSIONS)
  def test_first_record(
    self, tmp_path, records, kind, other, found, compression
  ):
    reader = record_files.READERS[kind]
    good = record_files.write(tmp_path / "good", [records[kind]], "")
    path = tmp_path / "scenes"
    record_files.write(path, [records[other]], compression)
    # The second file of several is looked at as well.
    with pytest.raises(ValueError, match="other dataset or variant") as error:
      reader.dataset([str(good), str(path)], *reader.args)
    fault, expected, actual = str(error.value).splitlines()
    assert re.match(rf"{path}, record 0: (Feature|Key): \w+", fault)
    features = inspection.expected_features(reader.features)
    assert expected == f"  expected: {inspection.format_features(features)}"
    assert actual.startswith(f"  found: {found}")

  def test_string_of_another_length(self, tmp_path):
    rng = np.random.default_rng(0)
    record, _ = record_files.make_example(
      cater_with_masks.feature_descriptions(),
      rng,
      {"image": (2, 2), "mask": (33, 11, 64, 64, 1)},
    )
    path = record_files.write(tmp_path / "scenes", [record])
    with pytest.raises(ValueError, match="/scenes, record 0: ") as error:
      cater_with_masks.dataset(path)
    assert "image 1 bytes (of 4), " in str(error.value)

  def test_no_example(self, tmp_path):
    path = record_files.write(tmp_path / "scenes", [b"\xffnonsense"])
    with pytest.raises(ValueError, match="record is no tf.train.Example"):
      tetrominoes.dataset(path)

  @pytest.mark.parametrize(("kind", "compression"), KINDS_AND_COMPRESSIONS)
  def test_later_record(self, tmp_path, records, kind, compression):
    other = records["tetrominoes" if kind != "tetrominoes" else "train"]
    path = tmp_path / "scenes"
    record_files.write(path, [records[kind], records[kind], other], compression)
    count, reason = read(record_files.READERS[kind].open(path))
    assert count == 2
    assert re.match(rf"{path}, record 2: (Feature|Key): ", reason)
    assert reason.endswith(
      ". The file is probably of another dataset or variant, or it is damaged."
    )

  @pytest.mark.parametrize("index", [0, 1])
  @pytest.mark.parametrize("length", [2**31, 2**32 - 1, 2**64 - 1])
  def test_string_that_claims_gigabytes(
    self, tmp_path, records, index, length
  ):  # which crashes TensorFlow's parser
    kind = "tetrominoes"
    record = records[kind]
    start = record.index(b"\x0a\x01", record.index(b"image"))
    long = record[: start + 1] + varint(length) + record[start + 2 :]
    parts = [record, record]
    parts[index] = long
    path = record_files.write(tmp_path / "scenes", parts)
    reason = "The record is no tf.train.Example"
    if not index:
      with pytest.raises(ValueError, match=rf"{path}, record 0: .*{reason}"):
        record_files.READERS[kind].open(path)
      return
    count, found = read(record_files.READERS[kind].open(path))
    assert count == 1
    assert found.startswith(f"{path}, record 1: {reason}")

  def test_what_looks_like_a_long_string_is_read(self, tmp_path):
    # A tag of a string, and 2^32 - 1 as its length, in a number.
    value = np.frombuffer(b"\x0a\xff\xff\xff\xff\x0f\x00\x00", np.float32)
    features = {"x": tf.io.FixedLenFeature([2], tf.float32)}
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=value))
    example = tf.train.Example(
      features=tf.train.Features(feature={"x": feature})
    )
    record = example.SerializeToString()
    assert b"\x0a\xff\xff\xff\xff\x0f" in record
    path = record_files.write(tmp_path / "scenes", [record] * 2)
    found = list(tfrecord_reading.read(path, features, lambda example: example))
    assert len(found) == 2
    assert found[1]["x"].numpy().tobytes() == value.tobytes()

  @pytest.mark.parametrize("module", [multi_dsprites, objects_room])
  def test_unknown_variant(self, module):
    with pytest.raises(ValueError, match="'mono': expected one of"):
      module.dataset("scenes", "mono")


def varint(number):
  digits = []
  while number >= 0x80:
    digits.append(number & 0x7F | 0x80)
    number >>= 7
  return bytes([*digits, number])


def cut_within_a_record(framed, compression):
  start = len(record_files.compress(framed[:2], compression, whole=False))
  data = record_files.compress(framed, compression, whole=False)
  return data[: (start + len(data)) // 2]


def cut_within_a_head(framed, compression):
  return record_files.compress([*framed[:2], framed[2][:5]], compression)


def cut_between_records(framed, compression):
  return record_files.compress(framed[:2], compression, whole=False)


def cut_within_the_last_checksum(framed, compression):
  return record_files.compress(framed, compression)[:-1]


def change_a_record(framed, compression):
  changed = bytearray(framed[2])
  changed[len(changed) // 2] ^= 1
  return record_files.compress([*framed[:2], changed], compression)


def change_a_length(framed, compression):
  changed = bytearray(framed[2])
  changed[1] ^= 1
  return record_files.compress([*framed[:2], changed], compression)


def change_the_last_checksum(framed, compression):
  data = bytearray(record_files.compress(framed, compression))
  data[-6 if compression == "GZIP" else -2] ^= 1  # a gzip file's size is last
  return bytes(data)


def append_something(framed, compression):
  data = record_files.compress(framed[:2], compression)
  return data + b"something that is no record"


def append_something_with_the_same_size(framed, compression):
  data = record_files.compress(framed[:2], compression)
  return data + b"something" + data[-4:]  # where gzip states the size


def append_zeros(framed, compression):
  return record_files.compress(framed[:2], compression) + bytes(1000)


def append_a_stream(framed, compression):
  first = record_files.compress(framed[:2], compression)
  return first + record_files.compress(framed[2:], compression)


CUT_OFF = "the file breaks off within this record"
BREAKS_OFF = "the [GZLIBP]{4} data break off before their end"
CHECKSUM = "the record is empty or fails its checksum"
STREAM = r"the [GZLIBP]{4} data are damaged \(.*incorrect data check\)"
FOLLOWS = "something follows that is no [GZLIBP]{4} data"
ANOTHER = "another stream of ZLIB data follows, .* does not read"
# What is said of each compression; None: nothing is wrong, or to be noticed.
DAMAGES = {
  cut_within_a_record: (BREAKS_OFF, BREAKS_OFF, CUT_OFF),
  cut_within_a_head: (CUT_OFF, CUT_OFF, CUT_OFF),
  cut_between_records: (BREAKS_OFF, BREAKS_OFF, None),
  cut_within_the_last_checksum: (BREAKS_OFF, BREAKS_OFF, CUT_OFF),
  change_a_record: (CHECKSUM, CHECKSUM, CHECKSUM),
  change_a_length: (CHECKSUM, CHECKSUM, CHECKSUM),
  change_the_last_checksum: (STREAM, STREAM, CHECKSUM),
  append_something: (FOLLOWS, FOLLOWS, CHECKSUM),
  append_something_with_the_same_size: (FOLLOWS, FOLLOWS, CHECKSUM),
  append_zeros: (FOLLOWS, FOLLOWS, CHECKSUM),
  append_a_stream: (None, ANOTHER, None),
}
CAUSES = {
  CUT_OFF: "generator was probably interrupted. Fetch or write the file again.",
  BREAKS_OFF: "was probably interrupted. Fetch or write the file again.",
  ANOTHER: "Write the records to one stream, or to files of their own.",
}
CHANGED = "were probably changed, lost or added. Fetch or write the file again."


@pytest.fixture(name="framed", scope="module")
def fixture_framed(records, tmp_path_factory):
  """{kind: the bytes of three records}."""
  folder = tmp_path_factory.mktemp("framed")
  return {
    kind: [record_files.framed(folder, records[kind])] * 3 for kind in KINDS
  }


class TestDamage:
  @pytest.mark.parametrize("damage", DAMAGES)
  @pytest.mark.parametrize(("kind", "compression"), KINDS_AND_COMPRESSIONS)
  def test_is_one_clear_error(
    self, tmp_path, framed, kind, damage, compression
  ):
    path = tmp_path / "scenes"
    path.write_bytes(damage(framed[kind], compression))
    expected = DAMAGES[damage][COMPRESSIONS.index(compression)]
    try:
      dataset = record_files.READERS[kind].open(path)
    except ValueError as error:  # a small file is inflated at once
      assert expected == STREAM  # noqa: PT017
      assert re.match(rf"{path}, record 0: {STREAM}", str(error))  # noqa: PT017
      return
    count, reason = read(dataset)
    if expected is None:
      assert reason is None
      assert count == (2 if damage is cut_between_records else 3)
      return
    assert re.match(rf"{path}, record {count}: {expected}\. ", reason)
    assert reason.endswith(CAUSES.get(expected, CHANGED))
    # Where data are inflated ahead, damage is met before its record's turn.
    if expected != STREAM:
      is_last = damage is cut_within_the_last_checksum and compression
      assert count == (3 if is_last else 2)
    # The next epoch is no better.
    assert read(dataset) == (count, reason)

  @pytest.mark.parametrize("compression", COMPRESSIONS)
  @pytest.mark.parametrize("damage", DAMAGES)
  def test_is_noticed_in_counting(self, tmp_path, framed, damage, compression):
    path = tmp_path / "scenes"
    path.write_bytes(damage(framed["tetrominoes"], compression))
    expected = DAMAGES[damage][COMPRESSIONS.index(compression)]
    plain_checksums = (change_a_record, change_the_last_checksum)
    if expected is None or (expected == CHECKSUM and damage in plain_checksums):
      # The checksums of records' data are not computed.
      count = 2 if damage is cut_between_records else 3
      assert inspection.count_records(str(path)) == count
      return
    with pytest.raises(ValueError, match=rf"{path}, record \d: {expected}\. "):
      inspection.count_records(str(path))

  def test_whoever_iterates_sees_the_reason(self, tmp_path, framed):
    path = tmp_path / "scenes"
    path.write_bytes(cut_within_a_record(framed["tetrominoes"], "GZIP"))
    with pytest.raises(tf.errors.OpError, match="record 2: the GZIP data brea"):
      list(tetrominoes.dataset(path))

  def test_second_of_two_files(self, tmp_path, framed, record):
    path = tmp_path / "scenes"
    path.write_bytes(cut_within_a_record(framed["tetrominoes"], "GZIP"))
    good = record_files.write(tmp_path / "good", [record] * 3)
    dataset = tetrominoes.dataset([good, path, good], map_parallel_calls=2)
    count, reason = read(dataset)
    assert count == 5
    assert reason.startswith(f"{path}, record 2: the GZIP data break off")

  def test_file_that_is_gone(self, tmp_path, record):
    paths = [
      record_files.write(tmp_path / name, [record] * 3) for name in ("a", "b")
    ]
    dataset = tetrominoes.dataset(paths)
    paths[1].unlink()
    results = []
    # An error that is ignored without end would keep the test from failing.
    thread = threading.Thread(
      target=lambda: results.extend(read(dataset)), daemon=True
    )
    thread.start()
    thread.join(timeout=60)
    assert results
    assert results[1] == f"Cannot read {paths[1]}; No such file or directory"

  @pytest.mark.parametrize("compression", COMPRESSIONS)
  @pytest.mark.parametrize("num_records", [0, 1])
  def test_file_that_shrank(self, tmp_path, record, compression, num_records):
    path = record_files.write(tmp_path / "scenes", [record] * 3, compression)
    dataset = tetrominoes.dataset(path)
    framed = [record_files.framed(tmp_path, record)] * num_records
    path.write_bytes(
      record_files.compress(framed, compression, whole=False) if framed else b""
    )
    count, reason = read(dataset)
    assert count == num_records
    expected = BREAKS_OFF if compression else "the file was changed after it"
    assert re.match(rf"{path}, record {count}: {expected}", reason)

  def test_error_of_another_reader(self, tmp_path, framed):
    path = tmp_path / "scenes"
    path.write_bytes(cut_within_a_record(framed["tetrominoes"], ""))
    with pytest.raises(tf.errors.DataLossError) as error:
      list(tf.data.TFRecordDataset([str(path)]))
    reason = inspection.explain(error.value, source="Tetrominoes: scenes")
    assert re.match(r"Tetrominoes: scenes: truncated record at \d+", reason)
    assert "\n" not in reason
    assert "{{" not in reason


def claiming(length, framed, index, compression, num_zeros=1 << 22):
  """Good records, a head that claims `length` bytes, then zeros."""
  parts = [framed] * index
  parts += [record_files.head(length), bytes(num_zeros)]
  return record_files.compress(parts, compression)


class TestClaims:
  """Heads with the right checksum that claim more than is there."""

  @pytest.mark.parametrize("compression", COMPRESSIONS)
  @pytest.mark.parametrize("index", [0, 2, 100])
  @pytest.mark.parametrize(
    "length", [tfrecord_format.MAX_RECORD_BYTES + 1, 2**40, 2**64 - 1]
  )
  def test_too_long_a_record(
    self, tmp_path, framed, compression, index, length
  ):  # which TensorFlow reserves memory for, or inflates all there is
    path = tmp_path / "scenes"
    path.write_bytes(
      claiming(length, framed["tetrominoes"][0], index, compression)
    )
    fault = f"{path}, record {index}: the record claims to be {length:,} bytes"
    if index:
      count, reason = read(tetrominoes.dataset(path))
      assert count == index
      assert reason.startswith(fault)
    else:
      for function in (tetrominoes.dataset, inspection.first_record):
        with pytest.raises(ValueError, match=fault):
          function(str(path))
    with pytest.raises(ValueError, match=fault):
      inspection.count_records(str(path))

  @pytest.mark.parametrize("compression", COMPRESSIONS)
  def test_longer_than_the_rest(self, tmp_path, framed, compression):
    path = tmp_path / "scenes"
    path.write_bytes(
      claiming(1 << 23, framed["tetrominoes"][0], 2, compression)
    )
    count, reason = read(tetrominoes.dataset(path))
    assert count == 2
    assert reason.startswith(f"{path}, record 2: {CUT_OFF}")

  def test_four_gibibytes_of_zeros(self, tmp_path, framed):
    # The size modulo 2^32 is that of the two records.
    path = tmp_path / "scenes"
    path.write_bytes(b"".join(framed["tetrominoes"][:2]))
    os.truncate(path, path.stat().st_size + 2**32)
    count, reason = read(tetrominoes.dataset(path))
    assert count == 2
    assert reason.startswith(f"{path}, record 2: {CHECKSUM}")

  @pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
  def test_what_is_inflated_is_not_kept(self, tmp_path, framed, compression):
    path = tmp_path / "scenes"
    size = 1 << 26
    parts = [
      framed["tetrominoes"][0],
      *(record_files.head(size), bytes(size + 4)),
      *(record_files.head(2**40), bytes(size)),
    ]
    path.write_bytes(record_files.compress(parts, compression))
    tracemalloc.start()
    try:
      assert inspection.estimate_records(str(path)) > 2
      with pytest.raises(ValueError, match="record 2: the record claims"):
        inspection.count_records(str(path))
      assert tracemalloc.get_traced_memory()[1] < size / 8
    finally:
      tracemalloc.stop()

  def test_a_bomb_is_not_inflated(self, tmp_path):
    path = tmp_path / "scenes"
    size = 1 << 26
    parts = [record_files.head(2**40), bytes(size)]
    path.write_bytes(record_files.compress(parts, "GZIP"))
    tracemalloc.start()
    try:
      with pytest.raises(ValueError, match="record 0: the record claims"):
        inspection.first_record(str(path))
      assert tracemalloc.get_traced_memory()[1] < size / 8
    finally:
      tracemalloc.stop()


class TestInspection:
  @pytest.mark.parametrize(("kind", "compression"), KINDS_AND_COMPRESSIONS)
  def test_first_record(self, tmp_path, records, kind, compression):
    path = tmp_path / "scenes"
    record_files.write(path, [records[kind], b"other"], compression)
    assert inspection.first_record(str(path)) == records[kind]

  @pytest.mark.parametrize("kind", KINDS)
  def test_features_are_the_expected_ones(self, records, kind):
    reader = record_files.READERS[kind]
    found = inspection.record_features(records[kind])
    assert list(found) == sorted(found)
    sizes = {name: feature.value_bytes for name, feature in found.items()}
    expected = inspection.expected_features(reader.features)
    assert {
      name: feature._replace(value_bytes=None)
      for name, feature in found.items()
    } == expected
    strings = record_files.STRING_SHAPES.get(reader.module, {})
    for name, feature in found.items():
      size = np.prod(strings[name]) if name in strings else 1
      assert sizes[name] == (size if feature.kind == "bytes" else None)

  def test_features_of_every_kind(self):
    example = tf.train.Example()
    example.features.feature["b"].int64_list.value.extend([1, 2, 3])
    example.features.feature["c"].bytes_list.value.extend([b"four", b""])
    example.features.feature["a"].float_list.value.extend([])
    example.features.feature["d"].Clear()
    features = inspection.record_features(example.SerializeToString())
    assert features == {
      "a": Feature("float", 0),
      "b": Feature("int64", 3),
      "c": Feature("bytes", 2, 4),
      "d": Feature("none", 0),
    }
    text = "a 0 float, b 3 int64, c 2 bytes (of 4), d 0 none"
    assert inspection.format_features(features) == text
    assert inspection.format_features({}) == "nothing"

  @pytest.mark.parametrize("compression", COMPRESSIONS)
  # Records of few bytes, and ones longer than what is inflated at once.
  @pytest.mark.parametrize(("size", "count"), [(3, 20_000), (300_000, 5)])
  def test_count(self, tmp_path, compression, size, count):
    path = tmp_path / "scenes"
    data = np.random.default_rng(0).bytes(size)
    record_files.write(path, [data] * count, compression)
    assert inspection.count_records(str(path)) == count

  @pytest.mark.parametrize("compression", COMPRESSIONS)
  def test_count_of_a_long_file_that_is_cut_off(self, tmp_path, compression):
    data = np.random.default_rng(0).bytes(300_000)
    framed = record_files.framed(tmp_path, data)
    path = tmp_path / "scenes"
    path.write_bytes(
      record_files.compress([framed] * 4 + [framed[:5]], compression)
    )
    with pytest.raises(ValueError, match=f"{path}, record 4: {CUT_OFF}"):
      inspection.count_records(str(path))

  def test_count_of_no_file(self, tmp_path):
    with pytest.raises(FileNotFoundError):
      inspection.count_records(str(tmp_path / "nowhere"))
