"""Tests of iodine.checkpoint_index: claims that TensorFlow would believe."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from iodine import checkpoint_index, tf1_checkpoint
from tests.support import checkpoint_tables

_FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)
_TEXTS = np.array([b"ab", b"c"], object)


@pytest.fixture
def prefix(tmp_path):
  """A checkpoint of numbers, texts and a variable in two parts."""
  path = tmp_path / "model.ckpt"
  tf.raw_ops.SaveV2(
    prefix=str(path),
    tensor_names=["floats", "parts", "parts", "scalar", "texts"],
    shape_and_slices=["", "9 70000 0,4:-", "9 70000 4,5:0,70000", "", ""],
    tensors=[
      _FLOATS,
      np.ones([4, 70_000], np.float32),
      np.zeros([5, 70_000], np.float32),
      np.int64(7),
      _TEXTS,
    ],
  )
  return path


def _change(prefix: pathlib.Path, name: bytes, change) -> None:
  """Changes what the index says of a tensor."""
  table = checkpoint_tables.read(prefix)
  entry = tensor_bundle_pb2.BundleEntryProto.FromString(table[name])
  change(entry)
  checkpoint_tables.write(
    prefix, {**table, name: entry.SerializePartialToString()}
  )


def _dims(*sizes):
  def change(entry):
    del entry.shape.dim[:]
    for size in sizes:
      entry.shape.dim.add(size=size)

  return change


def _set(**values):
  def change(entry):
    for key, value in values.items():
      setattr(entry, key, value)

  return change


def _both(*changes):
  return lambda entry: [change(entry) for change in changes]


def _part(index, dim, **values):
  def change(entry):
    for key, value in values.items():
      setattr(entry.slices[index].extent[dim], key, value)

  return change


def test_whole_files_are_read(prefix):
  values = tf1_checkpoint.read(str(prefix))
  np.testing.assert_array_equal(values["floats"], _FLOATS)
  np.testing.assert_array_equal(values["texts"], _TEXTS)
  assert values["scalar"] == 7
  assert values["parts"].shape == (9, 70_000)
  assert values["parts"].sum() == 4 * 70_000


def test_a_table_that_is_written_anew_is_read(prefix):
  checkpoint_tables.write(prefix, checkpoint_tables.read(prefix))
  values = tf1_checkpoint.read(str(prefix))
  np.testing.assert_array_equal(values["floats"], _FLOATS)
  assert len(values) == 4


def test_an_index_of_several_blocks_is_read(tmp_path):
  names = [f"{i:04d}/{'long_name' * 30}" for i in range(2_000)]
  tf.raw_ops.SaveV2(
    prefix=str(tmp_path / "many"),
    tensor_names=names,
    shape_and_slices=[""] * len(names),
    tensors=[np.float32(i) for i in range(len(names))],
  )
  assert (
    tmp_path / "many.index"
  ).stat().st_size > 2 * 2**18  # bytes of a block
  assert sorted(tf1_checkpoint.read(str(tmp_path / "many"))) == names


@pytest.mark.parametrize(
  "name, change, fault",
  [
    ("floats", _dims(*[1] * 300), "300 dimensions"),
    ("floats", _dims(-2, -3), r"shape \[-2, -3\]"),
    ("floats", _dims(-1), r"shape \[-1\]"),
    ("floats", _dims(2**40, 2**40), "which cannot be"),
    ("floats", _dims(0, 2**62, 2**62), "which cannot be"),
    ("floats", _dims(2**40), "has 4,398,046,511,104 bytes, and not 24"),
    ("floats", _both(_dims(2**40), _set(size=2**42)), "not in the data file"),
    ("floats", _dims(7), "has 28 bytes, and not 24"),
    ("floats", lambda e: setattr(e.shape, "unknown_rank", True), "dimensions"),
    ("floats", _set(dtype=999), "number 999"),
    ("floats", _set(dtype=0), "number 0"),
    ("floats", _set(dtype=101), "number 101"),
    ("floats", _set(dtype=20), "number 20"),  # a resource
    ("floats", _set(dtype=2), "a double of shape|a float64 of shape"),
    ("floats", _set(offset=-8), "not in the data file"),
    ("floats", _set(offset=2**40), "not in the data file"),
    ("floats", _set(size=-24), "not -24"),
    ("floats", _set(shard_id=3), "data file 3 of 1"),
    ("floats", _set(shard_id=-1), "data file -1 of 1"),
    ("texts", _dims(2**30), "1,073,741,824 texts do not fit into"),
    ("texts", _dims(3), "texts"),
    ("texts", _set(size=2**40), "not in the data file"),
    ("texts", _set(size=8), "texts of 3 bytes do not fit into 8"),
    ("parts", _dims(2**40, 70_000), "not in the data file"),
    ("parts", _dims(9), "has a part"),
    ("parts", _part(0, 0, start=-1), "has a part"),
    ("parts", _part(0, 0, length=10), "has a part"),
    ("parts", _part(0, 0, length=3), "other parts"),
    ("parts", lambda e: e.slices.pop(), "other parts"),
    ("parts", lambda e: e.slices.append(e.slices[0]), "twice"),
    ("parts", _set(dtype=3), "other parts"),
  ],
)
def test_a_claim_that_cannot_be_is_one_error(prefix, name, change, fault):
  _change(prefix, name.encode(), change)
  with pytest.raises(tf1_checkpoint.CheckpointError, match=fault) as error:
    tf1_checkpoint.read(str(prefix))
  text = str(error.value)
  assert text.startswith(f"{prefix}: cannot be read")
  assert f"({name}: " in text
  assert len(text.splitlines()) == 1


def test_a_text_longer_than_its_file_is_an_error(tmp_path):
  prefix = tmp_path / "model.ckpt"
  tf.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=["text"],
    shape_and_slices=[""],
    tensors=[np.array(b"a" * 100, object)],
  )
  data = pathlib.Path(f"{prefix}.data-00000-of-00001")
  content = data.read_bytes()
  data.write_bytes(b"\x7f" + content[1:])
  with pytest.raises(tf1_checkpoint.CheckpointError, match="texts of 127"):
    tf1_checkpoint.read(str(prefix))


def test_tensors_that_share_their_bytes_are_refused(prefix):
  table = checkpoint_tables.read(prefix)
  whole = table[b"\0parts\0\1\1\2\x84\x85\x80\xe1\x11p"]
  names = [f"floats_{i}".encode() for i in range(3)]
  shared = dict(sorted({**table, **dict.fromkeys(names, whole)}.items()))
  checkpoint_tables.write(prefix, shared)
  with pytest.raises(tf1_checkpoint.CheckpointError, match="more tensors than"):
    tf1_checkpoint.read(str(prefix))


@pytest.mark.parametrize(
  "change, fault",
  [
    ({"starts": (1,)}, "damaged"),
    ({"starts": (0, 5)}, "damaged"),
    ({"compression": 1}, "compressed"),
  ],
)
def test_a_table_that_can_be_read_in_two_ways(prefix, change, fault):
  checkpoint_tables.write(prefix, checkpoint_tables.read(prefix), **change)
  with pytest.raises(ValueError, match=fault):
    checkpoint_index.check(str(prefix))


def test_names_out_of_order(prefix):
  table = checkpoint_tables.read(prefix)
  checkpoint_tables.write(prefix, dict(reversed(table.items())))
  with pytest.raises(ValueError, match="out of order"):
    checkpoint_index.check(str(prefix))


def test_entries_that_are_none(prefix):
  table = checkpoint_tables.read(prefix)
  checkpoint_tables.write(prefix, {**table, b"texts": b"\xff"})
  with pytest.raises(ValueError, match="texts: "):
    checkpoint_index.check(str(prefix))


def test_no_bytes_of_an_index_escape(prefix):
  """Any byte may be wrong: a ValueError, or what TensorFlow's checksums see."""
  path = pathlib.Path(f"{prefix}.index")
  content = path.read_bytes()
  told = 0
  for place in range(len(content)):
    path.write_bytes(
      content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
    )
    try:
      checkpoint_index.check(str(prefix))
    except (ValueError, OSError):
      told += 1
  assert told > len(content) // 2
