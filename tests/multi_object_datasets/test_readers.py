"""Tests of the readers in iodine.multi_object_datasets."""

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from iodine.data import record_files as record_datasets
from iodine.multi_object_datasets import (
  cater_with_masks,
  clevr_with_masks,
  multi_dsprites,
  objects_room,
  tetrominoes,
)
from iodine.synthetic import __main__ as synthetic
from iodine.tfrecords import inspection
from tests.support import record_files
from tests.support.places import REAL_SCENES


def check_reader(dataset, arrays, shapes):
  """Compares a reader's only scene with what was stored."""
  (scene,) = dataset
  assert set(scene) == set(shapes)
  for name, (shape, dtype) in shapes.items():
    assert dataset.element_spec[name] == tf.TensorSpec(shape, dtype), name
    np.testing.assert_array_equal(scene[name], arrays[name], err_msg=name)


@pytest.mark.parametrize("parallel", [None, 2])
def test_tetrominoes(tmp_path, parallel):
  record, arrays = record_files.make_example(
    tetrominoes.features, np.random.default_rng(1)
  )
  path = record_files.write(tmp_path / "scenes", [record])
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
  record, arrays = record_files.make_example(
    clevr_with_masks.features, np.random.default_rng(2)
  )
  path = record_files.write(tmp_path / "scenes", [record])
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
  record, arrays = record_files.make_example(features, np.random.default_rng(3))
  assert arrays["mask"].shape == (64, 64, entities, 1)
  arrays["mask"] = np.moveaxis(arrays["mask"], 2, 0)
  path = record_files.write(tmp_path / "scenes", [record])
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
  record, arrays = record_files.make_example(
    objects_room.feature_descriptions(entities), np.random.default_rng(4)
  )
  path = record_files.write(tmp_path / "scenes", [record])
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


# What tf.data.TFRecordDataset takes as names of files, and what maps over them.
NAMES = {
  "string": lambda paths: tetrominoes.dataset(paths[0]),
  "bytes": lambda paths: tetrominoes.dataset(paths[0].encode()),
  "array": lambda paths: tetrominoes.dataset(np.array(paths)),
  "scalar": lambda paths: tetrominoes.dataset(tf.constant(paths[0])),
  "vector": lambda paths: tetrominoes.dataset(tf.constant(paths)),
  "matrix": lambda paths: tetrominoes.dataset(tf.constant([paths])),
  "scalars": lambda paths: tetrominoes.dataset(list(map(tf.constant, paths))),
  "dataset": lambda paths: tetrominoes.dataset(names(paths)),
  "batches": lambda paths: tetrominoes.dataset(names(paths).batch(2)),
  "interleave": lambda paths: names(paths).interleave(tetrominoes.dataset),
  "parallel": lambda paths: names(paths).interleave(
    tetrominoes.dataset, cycle_length=2, num_parallel_calls=2
  ),
  "flat_map": lambda paths: (
    names(paths).batch(3).flat_map(lambda some: tetrominoes.dataset(some, 1000))
  ),
  "glob": lambda paths: names([paths[0][:-1] + "*"]).flat_map(
    tetrominoes.dataset
  ),
}


def names(paths):
  return tf.data.Dataset.from_tensor_slices(paths)


@pytest.fixture(name="paths", scope="module")
def fixture_paths(tmp_path_factory):
  """Three files of two scenes, each of another compression."""
  folder = tmp_path_factory.mktemp("scenes")
  record, _ = record_files.READERS["tetrominoes"].example(0)
  return [
    str(record_files.write(folder / f"scenes{i}", [record] * 2, compression))
    for i, compression in enumerate(["GZIP", "", "ZLIB"])
  ]


def in_a_session(iterator):
  """Counts what a TensorFlow 1 iterator gives."""
  following = iterator.get_next()
  count = 0
  with tf.compat.v1.Session() as session:
    while True:
      try:
        session.run(following)
      except tf.errors.OutOfRangeError:
        return count
      count += 1


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_tensorflow_takes(paths, kind):
  expected = 2 if kind in ("string", "bytes", "scalar") else 6
  dataset = NAMES[kind](paths)
  assert len(list(dataset)) == expected
  assert dataset.element_spec == tetrominoes.dataset(paths[0]).element_spec
  with tf.Graph().as_default():
    dataset = NAMES[kind](paths)
    iterator = tf.compat.v1.data.make_one_shot_iterator(dataset)
    assert in_a_session(iterator) == expected


def test_a_script_of_tensorflow_1(paths):
  with tf.Graph().as_default():
    dataset = tetrominoes.dataset(paths[0]).repeat(2).batch(4)
    scene = dataset.make_one_shot_iterator().get_next()
    with tf.compat.v1.train.SingularMonitoredSession() as session:
      assert session.run(scene)["image"].shape == (4, 35, 35, 3)


def test_a_placeholder(paths):
  with tf.Graph().as_default():
    placeholder = tf.compat.v1.placeholder(tf.string, [None])
    dataset = tetrominoes.dataset(placeholder)
    iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
    image = iterator.get_next()["image"]
    with tf.compat.v1.Session() as session:
      session.run(iterator.initializer, {placeholder: paths[1:]})
      assert session.run(image).shape == (35, 35, 3)


def test_names_of_something_else(paths):
  with pytest.raises(ValueError, match="a dataset of .*int64.*: expected one"):
    tetrominoes.dataset(tf.data.Dataset.range(3))
  with pytest.raises(
    ValueError, match=r"tfrecords_path=.*3.*: expected a path"
  ):
    tetrominoes.dataset(tf.constant(3))


def test_a_file_of_a_dataset_of_names_that_is_missing(tmp_path):
  path = str(tmp_path / "nowhere")
  with pytest.raises(tf.errors.OpError) as error:
    list(names([path]).interleave(tetrominoes.dataset))
  reason = inspection.explain(error.value, source="the data")
  assert reason == f"There is no file {path}."


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


def test_cater_with_masks(tmp_path):
  record, arrays = record_files.READERS["cater"].example(5)
  # Stored by entity, then by frame.
  assert arrays["object_positions"].shape == (11, 33, 3)
  arrays["object_positions"] = np.moveaxis(arrays["object_positions"], 0, 1)
  path = record_files.write(tmp_path / "scenes", [record], "ZLIB")
  check_reader(
    cater_with_masks.dataset(str(path)),
    arrays,
    {
      "image": ([33, 64, 64, 3], tf.uint8),
      "mask": ([33, 11, 64, 64, 1], tf.uint8),
      "camera_matrix": ([33, 4, 4], tf.float32),
      "object_positions": ([33, 11, 3], tf.float32),
    },
  )


def deepminds(reader):
  """DeepMind's reader of that name; skips the test where there is none."""
  name = f"multi_object_datasets.{reader.module}"
  package = importlib.util.find_spec("multi_object_datasets")
  if package is None or importlib.util.find_spec(name) is None:
    pytest.skip(f"needs {name} of DeepMind's package")
  return record_datasets.resolve_reader(f"{name}.dataset")


def check_same(reader, path):
  """Compares what our reader and DeepMind's give for a file."""
  ours = reader.open(path)
  theirs = deepminds(reader)(str(path), *reader.args)
  assert ours.element_spec == theirs.element_spec
  pairs = list(zip(ours, theirs, strict=True))
  assert len(pairs) == 2
  for our_scene, their_scene in pairs:
    for name, value in their_scene.items():
      np.testing.assert_array_equal(our_scene[name], value, err_msg=name)


@pytest.mark.parametrize("kind", list(record_files.READERS))
def test_deepminds_reader_gives_the_same(tmp_path, kind):
  reader = record_files.READERS[kind]
  deepminds(reader)
  records = [reader.example(seed)[0] for seed in range(2)]
  path = record_files.write(tmp_path / "scenes", records, reader.compression)
  check_same(reader, path)


@pytest.mark.parametrize(
  "kind",
  [
    kind
    for kind, reader in record_files.READERS.items()
    if reader.module.removesuffix("_with_masks") in synthetic.DATASETS
  ],
)
def test_deepminds_reader_gives_the_same_for_synthetic_scenes(tmp_path, kind):
  reader = record_files.READERS[kind]
  deepminds(reader)
  name = reader.module.removesuffix("_with_masks")
  options = ["--variant", *reader.args] if reader.args else []
  path = tmp_path / "scenes.tfrecords"
  command = [name, "--scenes", "2", "--output", str(path), *options]
  assert synthetic.main(command) == 0
  check_same(reader, path)
