"""Tests of the readers in iodine.multi_object_datasets."""

import gzip
import pathlib
import zlib

import numpy as np
import pytest
import tensorflow as tf

from iodine.multi_object_datasets import (
  _tfrecords,
  clevr_with_masks,
  multi_dsprites,
  objects_room,
  tetrominoes,
)

REAL_SCENES = (
  pathlib.Path(__file__).parents[2]
  / "shared"
  / "data"
  / "tetrominoes_mini.tfrecords"
)


def make_example(features, rng):
  """Returns a serialized example of random values, and these by feature."""
  stored, arrays = {}, {}
  for name, description in features.items():
    if description.dtype == tf.string:
      array = rng.integers(0, 256, description.shape, dtype=np.uint8)
      flat = array.tobytes()
      stored[name] = tf.train.Feature(
        bytes_list=tf.train.BytesList(
          value=[flat[i : i + 1] for i in range(len(flat))]
        )
      )
    else:
      array = rng.random(description.shape, dtype=np.float32)
      stored[name] = tf.train.Feature(
        float_list=tf.train.FloatList(value=array.ravel())
      )
    arrays[name] = array
  example = tf.train.Example(features=tf.train.Features(feature=stored))
  return example.SerializeToString(), arrays


def write(path, records, compression="GZIP"):
  with tf.io.TFRecordWriter(str(path), compression) as writer:
    for record in records:
      writer.write(record)
  return path


@pytest.fixture(name="record")
def fixture_record():
  return make_example(tetrominoes.features, np.random.default_rng(0))[0]


def check_reader(dataset, arrays, shapes):
  """Compares a reader's only scene with what was stored."""
  (scene,) = dataset
  assert set(scene) == set(shapes)
  for name, (shape, dtype) in shapes.items():
    assert dataset.element_spec[name] == tf.TensorSpec(shape, dtype), name
    np.testing.assert_array_equal(scene[name], arrays[name], err_msg=name)


@pytest.mark.parametrize("parallel", [None, 2])
def test_tetrominoes(tmp_path, parallel):
  record, arrays = make_example(tetrominoes.features, np.random.default_rng(1))
  path = write(tmp_path / "scenes", [record])
  check_reader(
    tetrominoes.dataset(path, 1000, parallel),
    arrays,
    {
      "image": ([35, 35, 3], tf.uint8),
      "mask": ([4, 35, 35, 1], tf.uint8),
      "x": ([4], tf.float32),
      "y": ([4], tf.float32),
      "shape": ([4], tf.float32),
      "color": ([4, 3], tf.float32),
      "visibility": ([4], tf.float32),
    },
  )


def test_clevr_with_masks(tmp_path):
  record, arrays = make_example(
    clevr_with_masks.features, np.random.default_rng(2)
  )
  path = write(tmp_path / "scenes", [record])
  check_reader(
    clevr_with_masks.dataset(str(path)),
    arrays,
    {
      "image": ([240, 320, 3], tf.uint8),
      "mask": ([11, 240, 320, 1], tf.uint8),
      "pixel_coords": ([11, 3], tf.float32),
      **{
        name: ([11], tf.float32)
        for name in ("x", "y", "z", "rotation", "visibility")
      },
      **{
        name: ([11], tf.uint8)
        for name in ("size", "material", "shape", "color")
      },
    },
  )


@pytest.mark.parametrize(
  ("variant", "entities", "channels"),
  [
    ("binarized", 4, 1),
    ("colored_on_grayscale", 6, 3),
    ("colored_on_colored", 5, 3),
  ],
)
def test_multi_dsprites(tmp_path, variant, entities, channels):
  features = multi_dsprites.feature_descriptions(entities, channels == 1)
  record, arrays = make_example(features, np.random.default_rng(3))
  assert arrays["mask"].shape == (64, 64, entities, 1)
  arrays["mask"] = np.moveaxis(arrays["mask"], 2, 0)
  path = write(tmp_path / "scenes", [record])
  names = ("x", "y", "shape", "visibility", "orientation", "scale")
  check_reader(
    multi_dsprites.dataset(str(path), variant),
    arrays,
    {
      "image": ([64, 64, channels], tf.uint8),
      "mask": ([entities, 64, 64, 1], tf.uint8),
      "color": ([entities, channels], tf.float32),
      **{name: ([entities], tf.float32) for name in names},
    },
  )


@pytest.mark.parametrize(
  ("variant", "entities"),
  [
    ("train", 7),
    ("six_objects", 10),
    ("empty_room", 4),
    ("identical_color", 10),
  ],
)
def test_objects_room(tmp_path, variant, entities):
  record, arrays = make_example(
    objects_room.feature_descriptions(entities), np.random.default_rng(4)
  )
  path = write(tmp_path / "scenes", [record])
  check_reader(
    objects_room.dataset(str(path), variant),
    arrays,
    {
      "image": ([64, 64, 3], tf.uint8),
      "mask": ([entities, 64, 64, 1], tf.uint8),
    },
  )


@pytest.mark.parametrize("module", [multi_dsprites, objects_room])
def test_unknown_variant(module):
  with pytest.raises(ValueError, match="'mono': expected one of"):
    module.dataset("scenes", "mono")


@pytest.mark.skipif(not REAL_SCENES.exists(), reason="no real scenes here")
def test_real_tetrominoes():
  scenes = list(tetrominoes.dataset(REAL_SCENES).as_numpy_iterator())
  assert len(scenes) == 10
  for scene in scenes:
    mask = scene["mask"][..., 0]
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal((mask == 255).sum(0), 1)
    # A tetromino is four blocks of 5x5 pixels.
    np.testing.assert_array_equal((mask[1:] == 255).sum((1, 2)), 100)
    corners = [np.argwhere(m).min(0) for m in mask[1:]]
    np.testing.assert_array_equal(
      np.stack([scene["x"], scene["y"]], 1)[1:], corners
    )
    assert not scene["image"][mask[0] == 255].any()


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB", ""])
def test_detects_compression(tmp_path, record, compression):
  path = write(tmp_path / "scenes", [record, record, record], compression)
  assert _tfrecords.detect_compression(str(path)) == compression
  assert len(list(tetrominoes.dataset(path))) == 3


def test_uncompressed_length_that_looks_like_a_zlib_header(tmp_path):
  # The length 0x9c78 is stored as 78 9c ..., zlib's usual first bytes.
  path = write(tmp_path / "scenes", [b"x" * 0x9C78], "")
  assert path.read_bytes()[:2] == zlib.compress(b"")[:2]
  assert _tfrecords.detect_compression(str(path)) == ""


def test_list_of_files_of_different_compression(tmp_path):
  rng = np.random.default_rng(5)
  paths, expected = [], []
  for i, compression in enumerate(["GZIP", "GZIP", "", "GZIP"]):
    record, arrays = make_example(tetrominoes.features, rng)
    paths.append(write(tmp_path / f"scenes_{i}", [record], compression))
    expected.append(arrays["x"])
  scenes = list(tetrominoes.dataset(paths))
  np.testing.assert_array_equal([s["x"] for s in scenes], expected)


def test_reads_in_a_tf_function(tmp_path, record):
  path = write(tmp_path / "scenes", [record] * 3)

  @tf.function
  def count():
    dataset = tetrominoes.dataset(str(path))
    return dataset.reduce(0, lambda total, scene: total + 1)

  assert count() == 3


def test_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match="no file .*/nowhere"):
    tetrominoes.dataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "is empty: a download or a generator"),
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
def test_no_tfrecord_file(tmp_path, content, message):
  path = tmp_path / "scenes.tfrecords"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    tetrominoes.dataset(path)
  assert str(path) in str(error.value)


def test_truncated_within_first_record(tmp_path, record):
  path = write(tmp_path / "scenes", [record])
  path.write_bytes(path.read_bytes()[:11])
  with pytest.raises(ValueError, match="holds no record"):
    tetrominoes.dataset(path)


def test_directory(tmp_path):
  with pytest.raises(ValueError, match="is a directory: name the .tfrecords"):
    tetrominoes.dataset(tmp_path)


@pytest.mark.parametrize("path", [[], None, 3, [3]])
def test_no_path(path):
  with pytest.raises(ValueError, match="tfrecords_path"):
    tetrominoes.dataset(path)
