"""Tests of iodine.modules.data."""

import collections
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from iodine.data import datasets
from iodine.multi_object_datasets import (
  clevr_with_masks,
  multi_dsprites,
  objects_room,
  tetrominoes,
)
from iodine.synthetic import __main__ as synthetic
from iodine.synthetic import generation, sprites
from tests.support.places import REAL_SCENES

needs_real_scenes = pytest.mark.skipif(
  not REAL_SCENES.exists(), reason="no real scenes here"
)


def assert_equal(actual, expected):
  tf.nest.map_structure(np.testing.assert_array_equal, actual, expected)


def make_reader(features):
  """Returns a reader of given arrays, {name: one row per scene}."""

  def reader(path, *variant, read_buffer_size=None, map_parallel_calls=None):
    del path, variant, read_buffer_size, map_parallel_calls
    return tf.data.Dataset.from_tensor_slices(features)

  return reader


def tetromino_features(num_scenes, visible=None):
  """Scenes of which the image and factor x tell the index."""
  index = np.arange(num_scenes)
  mask = np.zeros([num_scenes, 4, 35, 35, 1], np.uint8)
  mask[:, 0] = 255
  visibility = np.ones([num_scenes, 4], np.float32)
  if visible is not None:
    visibility = np.float32(np.arange(4) <= np.asarray(visible)[:, None])
  zeros = np.zeros([num_scenes, 4], np.float32)
  return {
    "image": np.broadcast_to(
      np.uint8(index)[:, None, None, None], [num_scenes, 35, 35, 3]
    ),
    "mask": mask,
    "x": zeros + np.float32(index)[:, None],
    "y": zeros,
    "shape": zeros,
    "color": np.zeros([num_scenes, 4, 3], np.float32),
    "visibility": visibility,
  }


@pytest.fixture(name="path")
def fixture_path(tmp_path):
  path = tmp_path / "scenes.tfrecords"
  path.touch()
  return path


@pytest.fixture(name="numbered")
def fixture_numbered(path):
  """Makes datasets of numbered scenes."""

  def make(num_scenes, visible=None, **kwargs):
    kwargs = {"batch_size": 3, "seed": 5, "shuffle_buffer": 4, **kwargs}
    features = tetromino_features(num_scenes, visible)
    return datasets.Tetrominoes(path, reader=make_reader(features), **kwargs)

  return make


def indices(batch):
  """The numbers of a batch's scenes, equal in image and factors."""
  number = np.round(batch["image"].numpy()[:, 0, 0, 0, 0] * 255).astype(int)
  factor = batch["factors"]["position"].numpy()[:, 0, 0].astype(int)
  np.testing.assert_array_equal(number, factor)
  return number.tolist()


# Preprocessing


def resize_oracle(image, size, bilinear):
  """TF1's resize of [h, w, C]: pixel i samples at i * h / H."""
  for axis, new in enumerate(size):
    old = image.shape[axis]
    at = np.arange(new) * (old / new)
    low = np.floor(at).astype(int)
    if not bilinear:
      image = np.take(image, low, axis)
      continue
    high = np.minimum(low + 1, old - 1)
    shape = [1, 1, 1]
    shape[axis] = new
    weight = (at - low).reshape(shape)
    image = (
      np.take(image, low, axis) * (1 - weight)
      + np.take(image, high, axis) * weight
    )
  return image


@pytest.mark.parametrize("size", [(5, 17), (14, 6), (9, 11)])
@pytest.mark.parametrize("grayscale", [False, True])
def test_crops_and_resizes_as_tensorflow_1(path, size, grayscale):
  rng = np.random.default_rng(0)
  features = tetromino_features(2)
  features["image"] = rng.integers(0, 256, [2, 13, 19, 3], dtype=np.uint8)
  owner = rng.integers(0, 4, [2, 13, 19])
  features["mask"] = np.uint8(
    255 * (owner[:, None] == np.arange(4)[:, None, None])
  )[..., None]
  dataset = datasets.Tetrominoes(
    path,
    batch_size=2,
    image_dim=size,
    crop_region=((3, 12), (7, 18)),
    grayscale=grayscale,
    reader=make_reader(features),
  )
  (batch,) = dataset("eval")
  channels = 1 if grayscale else 3
  assert dataset.num_channels == channels
  assert batch["image"].shape == (2, 1, *size, channels)
  assert batch["mask"].shape == (2, 1, 4, *size, 1)
  for b in range(2):
    image = features["image"][b, 3:12, 7:18] / 255
    image = resize_oracle(image, size, bilinear=True)
    if grayscale:
      image = image.mean(-1, keepdims=True)
    # float32 against float64 of values up to 1.
    np.testing.assert_allclose(batch["image"][b, 0], image, atol=1e-6)
    for k in range(4):
      mask = resize_oracle(
        features["mask"][b, k, 3:12, 7:18] / 255, size, bilinear=False
      )
      np.testing.assert_array_equal(batch["mask"][b, 0, k], mask)


@pytest.mark.parametrize("size", [(6, 10), (20, 31)])
def test_resizes_as_tensorflow_2_on_request(path, size):
  rng = np.random.default_rng(0)
  features = tetromino_features(2)
  features["image"] = rng.integers(0, 256, [2, 13, 19, 3], dtype=np.uint8)
  features["mask"] = np.uint8(255 * rng.integers(2, size=[2, 4, 13, 19, 1]))
  dataset = datasets.Tetrominoes(
    path,
    batch_size=2,
    image_dim=size,
    half_pixel_centers=True,
    reader=make_reader(features),
  )
  (batch,) = dataset("eval")
  image = tf.image.resize(features["image"] / np.float32(255), size)
  np.testing.assert_allclose(batch["image"][:, 0], image, atol=1e-6)
  for b in range(2):
    mask = tf.image.resize(features["mask"][b] // 255, size, "nearest")
    np.testing.assert_array_equal(batch["mask"][b, 0], mask)


def test_caches_of_before_there_was_a_choice_of_resizing_stay(path, tmp_path):
  options = dict(batch_size=2, cache_dir=str(tmp_path / "cache"))
  path.write_bytes(b"")
  plain = datasets.Tetrominoes(path, **options)._cache().path
  same = datasets.Tetrominoes(path, half_pixel_centers=False, **options)
  other = datasets.Tetrominoes(path, half_pixel_centers=True, **options)
  assert same._cache().path == plain != other._cache().path


@needs_real_scenes
def test_real_tetrominoes():
  stored = list(tetrominoes.dataset(REAL_SCENES).as_numpy_iterator())
  dataset = datasets.Tetrominoes(REAL_SCENES, batch_size=4)
  batches = list(dataset("eval").as_numpy_iterator())
  assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
  batch = {
    name: np.concatenate([b[name] for b in batches])
    for name in ("image", "mask", "visibility")
  }
  for i, scene in enumerate(stored):
    np.testing.assert_array_equal(
      batch["image"][i, 0], scene["image"] / np.float32(255)
    )
    np.testing.assert_array_equal(batch["mask"][i, 0], scene["mask"] == 255)
    np.testing.assert_array_equal(batch["visibility"][i], scene["visibility"])
    factors = {k: v[i % 4] for k, v in batches[i // 4]["factors"].items()}
    assert set(factors) == {"position", "shape", "color"}
    np.testing.assert_array_equal(
      factors["position"], np.stack([scene["x"], scene["y"]], 1)
    )
    np.testing.assert_array_equal(factors["shape"][:, 0], scene["shape"])
    np.testing.assert_array_equal(factors["color"], scene["color"])


def test_sprites(tmp_path):
  path = tmp_path / "new.tfrecords"
  with pytest.raises(FileNotFoundError, match="iodine.synthetic sprites --sc"):
    datasets.Sprites(path, batch_size=2)()
  generation.write_tfrecords(
    path, sprites.FEATURES, sprites.sample_scenes, num_scenes=5, seed=3
  )
  (stored,) = generation.sample_chunks(sprites.sample_scenes, 5, seed=3)
  (batch,) = datasets.Sprites(path, batch_size=5)("eval")
  np.testing.assert_array_equal(
    batch["image"], stored["image"][:, None] / np.float32(255)
  )
  np.testing.assert_array_equal(batch["mask"], stored["mask"][:, None] == 255)
  np.testing.assert_array_equal(batch["visibility"], stored["visibility"])
  factors = {
    "color": stored["color"],
    "shape": stored["shape"][..., None],
    "size": stored["size"][..., None],
    "position": np.stack([stored["x"], stored["y"]], axis=2),
  }
  assert_equal({k: v.numpy() for k, v in batch["factors"].items()}, factors)


def clevr_features(num_scenes):
  rng = np.random.default_rng(1)
  entities = [num_scenes, 11]
  features = {
    name: rng.random(entities, dtype=np.float32)
    for name in ("x", "y", "z", "rotation")
  }
  features |= {
    name: rng.integers(low, high, entities, dtype=np.uint8)
    for name, low, high in (
      ("size", 1, 3),
      ("material", 3, 5),
      ("shape", 5, 8),
      ("color", 8, 17),
    )
  }
  return features | {
    "image": rng.integers(0, 256, [num_scenes, 240, 320, 3], dtype=np.uint8),
    "mask": np.zeros([num_scenes, 11, 240, 320, 1], np.uint8),
    "pixel_coords": rng.random([num_scenes, 11, 3], dtype=np.float32),
    "visibility": np.ones([num_scenes, 11], np.float32),
  }


def test_clevr_factors_and_default_size(path):
  features = clevr_features(1)
  dataset = datasets.CLEVR(path, batch_size=1, reader=make_reader(features))
  (batch,) = dataset("eval")
  factors = batch["factors"]
  for name in ("size", "shape", "color", "rotation"):
    np.testing.assert_array_equal(factors[name][..., 0], features[name])
  np.testing.assert_array_equal(factors["position"], features["pixel_coords"])
  crop = features["image"][0, 29:221, 64:256] / 255
  np.testing.assert_allclose(
    batch["image"][0, 0], resize_oracle(crop, (128, 128), True), atol=1e-6
  )


def variant_features(module, entities, channels=3):
  """Two scenes of zeros as a variant's reader gives them."""
  if module is objects_room:
    described = objects_room.feature_descriptions(entities)
  else:
    described = multi_dsprites.feature_descriptions(entities, channels == 1)
    described["mask"] = tf.io.FixedLenFeature([entities, 64, 64, 1], tf.string)
  return {
    name: np.zeros(
      [2, *d.shape], np.uint8 if d.dtype == tf.string else np.float32
    )
    for name, d in described.items()
  }


DSPRITES = [
  (
    datasets.MultiDSprites,
    variant,
    multi_dsprites,
    entities,
    1 if variant == "binarized" else 3,
  )
  for variant, entities in multi_dsprites.MAX_NUM_ENTITIES.items()
]
ROOMS = [
  (datasets.ObjectsRoom, variant, objects_room, entities, 3)
  for variant, entities in objects_room.MAX_NUM_ENTITIES.items()
]


@pytest.mark.parametrize(
  ("cls", "variant", "module", "entities", "channels"), DSPRITES + ROOMS
)
def test_variants(path, cls, variant, module, entities, channels):
  features = variant_features(module, entities, channels)
  dataset = cls(
    path,
    batch_size=2,
    dataset_variant=variant,
    image_dim=(9, 5),
    reader=make_reader(features),
  )
  assert dataset.num_true_objects == entities
  assert dataset.num_channels == channels
  assert variant in dataset.download_url
  (batch,) = dataset("eval")
  assert batch["image"].shape == (2, 1, 9, 5, channels)
  assert dataset("train").element_spec == dataset.batch_spec()
  assert set(batch["factors"]) == set(dataset.factors)


@pytest.mark.parametrize("cls", [datasets.MultiDSprites, datasets.ObjectsRoom])
def test_unknown_variant(cls):
  with pytest.raises(ValueError, match="dataset_variant='mono': expected one"):
    cls("scenes", batch_size=2, dataset_variant="mono")


def test_own_reader_gets_the_variant(path):
  calls = []

  def reader(path, dataset_variant, map_parallel_calls=None):
    calls.append((path, dataset_variant))
    return tf.data.Dataset.from_tensor_slices(
      variant_features(objects_room, 10)
    )

  dataset = datasets.ObjectsRoom(
    path, batch_size=1, reader=reader, dataset_variant="six_objects"
  )
  next(iter(dataset()))
  assert calls == [(str(path), "six_objects")]


def test_batch_spec(numbered):
  dataset = numbered(5, image_dim=(7, 9))
  spec = dataset.batch_spec()
  assert spec == dataset("train").element_spec
  assert spec == dataset("summary").element_spec
  assert dataset.batch_spec(6)["mask"].shape == [6, 1, 4, 7, 9, 1]


def test_clevr_batch_spec(path):
  dataset = datasets.CLEVR(
    path, batch_size=2, reader=make_reader(clevr_features(1))
  )
  assert dataset.batch_spec() == dataset("train").element_spec


# The choice of scenes


@pytest.mark.parametrize(
  ("bounds", "expected"),
  [
    ({}, [0, 1, 2, 3, 4, 5]),
    ({"min_num_objects": 2}, [1, 3, 5]),
    ({"max_num_objects": 1}, [0, 2, 4]),
    ({"min_num_objects": 1, "max_num_objects": 2}, [0, 3, 4, 5]),
    ({"max_num_objects": 0}, [2]),
    ({"min_num_objects": 1, "skip": 1}, [1, 3, 4, 5]),
    ({"min_num_objects": 1, "skip": 1, "take": 2}, [1, 3]),
    ({"take": 100}, [0, 1, 2, 3, 4, 5]),
  ],
)
def test_filter_counts_foreground_objects(numbered, bounds, expected):
  # Objects beside the background in scenes 0, 1, ...
  dataset = numbered(6, visible=[1, 3, 0, 2, 1, 2], batch_size=2, **bounds)
  chosen = sum((indices(batch) for batch in dataset("eval")), [])
  assert chosen == expected
  trained = set()
  for batch in dataset("train").take(6):
    trained |= set(indices(batch))
  assert trained == set(expected)


def test_objects_room_visibility(path):
  features = variant_features(objects_room, 7)
  # Scene 0: wall 3 is hidden, one object. Scene 1: objects in slots 4 and 6.
  features["mask"][0, [0, 1, 2, 5], 3, 8] = 255
  features["mask"][1, [0, 1, 2, 3, 4, 6], 5, 2] = 255
  dataset = datasets.ObjectsRoom(
    path, batch_size=2, reader=make_reader(features)
  )
  (batch,) = dataset("eval")
  np.testing.assert_array_equal(
    batch["visibility"], [[1, 1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 1, 0, 1]]
  )
  dataset = datasets.ObjectsRoom(
    path, batch_size=2, reader=make_reader(features), min_num_objects=2
  )
  (batch,) = dataset("eval")
  np.testing.assert_array_equal(batch["visibility"], [[1, 1, 1, 1, 1, 0, 1]])


@pytest.mark.parametrize("subset", ["train", "summary", "eval"])
@pytest.mark.parametrize(
  "bounds", [{"min_num_objects": 3}, {"max_num_objects": 0}, {"skip": 6}]
)
def test_no_scene_left(numbered, path, subset, bounds):
  dataset = numbered(6, visible=[1, 2, 1, 1, 2, 2], **bounds)
  with pytest.raises(ValueError, match="no scene left") as error:
    dataset(subset)
  ((name, bound),) = bounds.items()
  assert f"{name}={bound}" in str(error.value)
  assert str(path) in str(error.value)


# Subsets


def test_eval_is_one_pass_in_order(numbered):
  batches = [indices(batch) for batch in numbered(8)("eval")]
  assert batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_summary_repeats_one_batch(numbered):
  for batch in numbered(8)("summary").take(3):
    assert indices(batch) == [0, 1, 2]


def test_summary_of_few_scenes(numbered):
  (batch,) = numbered(2)("summary").take(1)
  assert indices(batch) == [0, 1, 0]


def test_unknown_subset(numbered):
  with pytest.raises(ValueError, match="subset='test': expected one of"):
    numbered(2)("test")


def test_train_feeds_a_compiled_loop(numbered):
  iterator = iter(numbered(5, shuffle_buffer=None)("train"))

  @tf.function
  def total():
    result = 0.0
    for _ in tf.range(5):
      result += tf.reduce_sum(next(iterator)["factors"]["position"][:, 0, 0])
    return result

  assert total() == 3 * (0 + 1 + 2 + 3 + 4)


# The training stream and its positions


def stream(dataset, count, position=(0, 0)):
  """[(scenes of a batch, position after it)], in plain integers."""
  return [
    (indices(batch), tuple(int(p) for p in after))
    for batch, after in dataset.batches(position).take(count)
  ]


def test_stream_without_shuffling(numbered):
  dataset = numbered(5, shuffle_buffer=None)
  assert stream(dataset, 4) == [
    ([0, 1, 2], (0, 3)),
    ([3, 4, 0], (1, 1)),
    ([1, 2, 3], (1, 4)),
    ([4, 0, 1], (2, 2)),
  ]


def test_file_smaller_than_batch(numbered):
  dataset = numbered(2, batch_size=5, shuffle_buffer=None)
  assert stream(dataset, 2) == [
    ([0, 1, 0, 1, 0], (2, 1)),
    ([1, 0, 1, 0, 1], (4, 2)),
  ]


def test_train_is_the_stream(numbered):
  dataset = numbered(7)
  batches = [indices(batch) for batch in dataset("train").take(6)]
  assert batches == [scenes for scenes, _ in stream(dataset, 6)]


@pytest.mark.parametrize("shuffle_buffer", [None, 4, 100])
def test_every_epoch_has_all_scenes_once(numbered, shuffle_buffer):
  dataset = numbered(7, shuffle_buffer=shuffle_buffer)
  scenes = np.ravel([scenes for scenes, _ in stream(dataset, 7)])
  epochs = scenes.reshape(3, 7)
  np.testing.assert_array_equal(np.sort(epochs), [range(7)] * 3)
  distinct = len({tuple(epoch) for epoch in epochs})
  assert distinct == (1 if shuffle_buffer is None else 3)


@pytest.mark.parametrize("shuffle_buffer", [None, 4, 100])
def test_resumes_at_every_position(numbered, shuffle_buffer):
  whole = stream(numbered(7, shuffle_buffer=shuffle_buffer), 12)
  assert whole[-1][1] == (5, 1)
  for i, (_, after) in enumerate(whole[:-2]):
    # A new object, as in a new process; JSON makes tuples lists.
    dataset = numbered(7, shuffle_buffer=shuffle_buffer)
    assert stream(dataset, 2, list(after)) == whole[i + 1 : i + 3]


def test_resumed_batches_are_equal_in_all_tensors(numbered):
  batches = list(numbered(7).batches().take(5))
  resumed = numbered(7).batches(batches[1][1]).take(3)
  for (batch, _), (again, _) in zip(batches[2:], resumed, strict=True):
    assert_equal(batch, again)


def test_far_epochs_cost_no_replay(numbered):
  dataset = numbered(7)
  reads = collections.Counter()
  reader = dataset._read

  def counting_reader(*args, **kwargs):
    def count(example):
      tf.py_function(lambda: reads.update(["scenes"]), [], [])
      return example

    return reader(*args, **kwargs).map(count)

  dataset._read = counting_reader
  ((_, after),) = stream(dataset, 1, datasets.Position(10**9, 2))
  assert after == (10**9, 5)
  # The test for a first scene, this epoch, and what is prefetched.
  assert reads["scenes"] < 100


def test_order_depends_on_the_seed_alone(numbered):
  tf.random.set_seed(1)
  first = stream(numbered(20), 7)
  tf.random.set_seed(2)
  expected = tf.random.uniform([3])
  tf.random.set_seed(2)
  assert stream(numbered(20), 7) == first
  # Nor does opening a dataset touch the program's own generator.
  np.testing.assert_array_equal(tf.random.uniform([3]), expected)
  assert stream(numbered(20, seed=6), 7) != first


def test_seed_is_drawn_if_not_given(numbered):
  first, second = numbered(20, seed=None), numbered(20, seed=None)
  assert first.seed != second.seed
  assert stream(first, 7) != stream(second, 7)
  assert stream(numbered(20, seed=first.seed), 7) == stream(first, 7)


@pytest.mark.parametrize(
  "position", [(-1, 0), (0, -2), (1,), 3, ("a", 0), (1.5, 0)]
)
def test_impossible_position(numbered, position):
  with pytest.raises(ValueError, match="expected a Position of two integers"):
    numbered(5).batches(position)


# Arguments


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"batch_size": 0}, "batch_size=0: expected an integer of at least 1"),
    ({"batch_size": 2.0}, "batch_size=2.0: expected an integer"),
    ({"batch_size": True}, "batch_size=True: expected an integer"),
    ({"shuffle_buffer": 0}, "shuffle_buffer=0: .* at least 1 or None"),
    ({"skip": -1}, "skip=-1"),
    ({"take": 0}, "take=0"),
    ({"seed": -3}, "seed=-3: expected an integer from 0 to 2147483646"),
    ({"seed": 2**31 - 1}, "seed=2147483647"),
    ({"min_num_objects": -1}, "min_num_objects=-1"),
    ({"min_num_objects": 4}, "min_num_objects=4: .* from 0 to 3"),
    ({"max_num_objects": "6"}, "max_num_objects='6'"),
    ({"min_num_objects": 3, "max_num_objects": 2}, "above the maximum"),
    ({"image_dim": 35}, "image_dim=35: expected .height, width."),
    ({"image_dim": (35, 0)}, "image_dim"),
    ({"crop_region": ((5, 3), (0, 4))}, "crop_region"),
    ({"crop_region": (3, 4)}, "crop_region"),
    ({"grayscale": "no"}, "grayscale='no': expected True or False"),
    ({"path": ""}, "path='': expected a file name"),
    ({"path": None}, "path=None: expected a file name"),
    ({"path": []}, r"path=\[\]: expected a file name"),
  ],
)
def test_impossible_arguments(kwargs, message):
  with pytest.raises(ValueError, match=message):
    datasets.Tetrominoes(**{"path": "scenes", "batch_size": 2, **kwargs})


def test_all_faults_are_reported_together():
  with pytest.raises(ValueError, match="Tetrominoes: batch_size=0") as error:
    datasets.Tetrominoes("scenes", batch_size=0, skip=-1, grayscale=1)
  assert "skip=-1" in str(error.value) and "grayscale=1" in str(error.value)


@pytest.mark.parametrize(
  "cls", [datasets.CLEVR, datasets.MultiDSprites, datasets.ObjectsRoom]
)
def test_unknown_arguments_are_errors(cls):
  with pytest.raises(TypeError, match="min_num_objs"):
    cls("scenes", batch_size=2, min_num_objs=3)
  with pytest.raises(TypeError):
    cls("scenes", 2)


def test_lists_of_a_config_file_are_not_kept():
  crop = [[29, 221], [64, 256]]
  dataset = datasets.CLEVR(
    ["a", "b"], batch_size=2, image_dim=[128, 128], crop_region=crop
  )
  crop[0][0] = 0
  assert dataset.image_dim == (128, 128)
  assert dataset.crop_region == ((29, 221), (64, 256))
  assert dataset.path == tuple(str(pathlib.Path(p).absolute()) for p in "ab")


def test_path_is_expanded(monkeypatch):
  monkeypatch.setenv("HOME", "/home/someone")
  path = datasets.Tetrominoes("~/scenes", batch_size=2).path
  assert path == "/home/someone/scenes"
  path = datasets.Tetrominoes("gs://bucket/scenes", batch_size=2).path
  assert path == "gs://bucket/scenes"


# Files


def test_missing_file_says_where_to_get_it(tmp_path):
  path = tmp_path / "no such folder" / "scenes.tfrecords"
  dataset = datasets.Tetrominoes(path, batch_size=2)
  with pytest.raises(FileNotFoundError) as error:
    dataset()
  text = str(error.value)
  assert f"there is no file {path}." in text
  assert "/tetrominoes/tetrominoes_train.tfrecords" in text
  assert (
    f"python -m iodine.synthetic tetrominoes --scenes 10000 --seed 0 "
    f"--output '{path}'"
  ) in text


@pytest.mark.parametrize(
  ("cls", "variant", "url"),
  [
    (datasets.CLEVR, None, "clevr_with_masks/clevr_with_masks_train"),
    (
      datasets.MultiDSprites,
      "binarized",
      "multi_dsprites/multi_dsprites_binarized",
    ),
    (datasets.ObjectsRoom, "train", "objects_room/objects_room_train"),
    (
      datasets.ObjectsRoom,
      "empty_room",
      "objects_room/objects_room_test_empty_room",
    ),
  ],
)
def test_missing_file_of_other_datasets(tmp_path, cls, variant, url):
  kwargs = {"dataset_variant": variant} if variant else {}
  paths = [tmp_path / "here", tmp_path / "a", tmp_path / "b"]
  paths[0].touch()
  with pytest.raises(FileNotFoundError) as error:
    cls(paths, batch_size=2, **kwargs)()
  text = str(error.value)
  assert f"no file {tmp_path / 'a'}. (1 more are missing.)" in text
  assert (
    f"https://storage.googleapis.com/multi-object-datasets/{url}.tfrecords"
  ) in text
  name = url.split("/")[0].replace("_with_masks", "")
  assert f"python -m iodine.synthetic {name} " in text


@pytest.mark.parametrize(
  ("cls", "variants"),
  [
    (datasets.CLEVR, [None]),
    (datasets.MultiDSprites, list(multi_dsprites.MAX_NUM_ENTITIES)),
    (datasets.ObjectsRoom, list(objects_room.MAX_NUM_ENTITIES)),
    (datasets.Sprites, [None]),
    (datasets.Tetrominoes, [None]),
  ],
)
def test_the_command_that_generates_a_file(tmp_path, capsys, cls, variants):
  path = tmp_path / "exists"
  path.touch()
  for variant in variants:
    kwargs = {"dataset_variant": variant} if variant else {}
    command = cls(path, batch_size=2, **kwargs).synthetic_command
    with pytest.raises(SystemExit):
      synthetic.main([*command.split(), "--output", str(path)])
    # All that is wrong with the command.
    assert "exists: name another file" in capsys.readouterr().err


@needs_real_scenes
def test_file_of_another_dataset():
  dataset = datasets.ObjectsRoom(REAL_SCENES, batch_size=2)
  with pytest.raises(ValueError, match="of another dataset or variant"):
    dataset("train")


@needs_real_scenes
def test_several_files():
  dataset = datasets.Tetrominoes([REAL_SCENES, str(REAL_SCENES)], batch_size=10)
  first, second = dataset("eval")
  assert_equal(first, second)


def test_empty_file(path):
  with pytest.raises(ValueError, match="is empty"):
    datasets.Tetrominoes(path, batch_size=2)()


@pytest.mark.parametrize(
  ("change", "kwargs", "message"),
  [
    (
      {"mask": np.zeros([2, 5, 35, 35, 1], np.uint8)},
      {},
      r"mask has shape .* expected \[4, H, W, 1\]",
    ),
    (
      {"image": np.zeros([2, 35, 35, 1], np.uint8)},
      {},
      r"image has shape .* expected \[H, W, 3\]",
    ),
    ({}, {"crop_region": ((0, 36), (0, 35))}, "beyond the stored image"),
  ],
)
def test_reader_that_does_not_fit(path, change, kwargs, message):
  reader = make_reader(tetromino_features(2) | change)
  dataset = datasets.Tetrominoes(path, batch_size=2, reader=reader, **kwargs)
  with pytest.raises(ValueError, match=message):
    dataset()


def test_reader_without_masks(path):
  features = tetromino_features(2)
  del features["mask"]
  dataset = datasets.Tetrominoes(
    path, batch_size=2, reader=make_reader(features)
  )
  with pytest.raises(ValueError, match=r"have no \['mask'\]"):
    dataset()


# Readers by name


@needs_real_scenes
def test_reader_by_name():
  dataset = datasets.Tetrominoes(
    REAL_SCENES,
    batch_size=10,
    reader="iodine.multi_object_datasets.tetrominoes.dataset",
  )
  (batch,) = dataset("eval")
  assert len(batch["image"]) == 10


@pytest.mark.parametrize(
  "reader",
  [
    "os.system",
    "tensorflow.data.TFRecordDataset",
    "dataset",
    "iodine",
    3,
    "iodine_other.readers.dataset",
    "iodine.dataset",
    "iodine.modules.data.dataclasses",
    "iodine.main.main",
  ],
)
def test_reader_elsewhere_is_refused(reader):
  with pytest.raises(ValueError, match="reader=.*dotted name of a function"):
    datasets.Tetrominoes("scenes", batch_size=2, reader=reader)


@pytest.mark.parametrize(
  "reader",
  [
    "iodine.multi_object_datasets.tetrominoes.datasets",
    "iodine.multi_object_datasets.tetromino.dataset",
    "iodine.multi_object_datasets.tetrominoes.IMAGE_SIZE",
    "iodine.multi_object_datasets.tetrominoes.tf",
  ],
)
def test_no_such_reader(reader):
  with pytest.raises(ValueError, match="has no function|No module named"):
    datasets.Tetrominoes("scenes", batch_size=2, reader=reader)


class HidesDeepMindsPackage:
  """An import finder for which the package is not installed."""

  @staticmethod
  def find_spec(name, path=None, target=None):
    if name.split(".")[0] == "multi_object_datasets":
      raise ModuleNotFoundError(
        "No module named 'multi_object_datasets'", name="multi_object_datasets"
      )


def forget_deepminds_package(monkeypatch):
  for name in list(sys.modules):
    if name.split(".")[0] == "multi_object_datasets":
      monkeypatch.delitem(sys.modules, name)


def test_deepmind_package_not_installed(monkeypatch):
  forget_deepminds_package(monkeypatch)
  monkeypatch.setattr(sys, "meta_path", [HidesDeepMindsPackage, *sys.meta_path])
  with pytest.raises(ValueError, match="extra `deepmind-readers`"):
    datasets.Tetrominoes(
      "scenes", batch_size=2, reader="multi_object_datasets.tetrominoes.dataset"
    )


STAND_IN = """
import tensorflow as tf

features = {"x": tf.FixedLenFeature([4], tf.float32)}

def _decode(record):
  example = tf.parse_single_example(record, features)
  empty = tf.zeros([4])
  return {
      "image": tf.zeros([35, 35, 3], tf.uint8),
      "mask": tf.zeros([4, 35, 35, 1], tf.uint8),
      "x": example["x"] + 100, "y": empty, "shape": empty,
      "color": tf.zeros([4, 3]), "visibility": empty,
  }

def dataset(tfrecords_path, read_buffer_size=None, map_parallel_calls=None):
  raw = tf.data.TFRecordDataset(tfrecords_path, compression_type="GZIP")
  return raw.map(_decode, num_parallel_calls=map_parallel_calls)
"""


def test_reader_that_uses_the_tensorflow_1_api(tmp_path, monkeypatch):
  """DeepMind's package calls functions that TensorFlow 2 has elsewhere."""
  package = tmp_path / "multi_object_datasets"
  package.mkdir()
  (package / "__init__.py").touch()
  (package / "tetrominoes.py").write_text(STAND_IN)
  monkeypatch.syspath_prepend(str(tmp_path))
  forget_deepminds_package(monkeypatch)
  path = tmp_path / "scenes"
  x = tf.train.Feature(float_list=tf.train.FloatList(value=[1, 2, 3, 4]))
  example = tf.train.Example(features=tf.train.Features(feature={"x": x}))
  with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
    writer.write(example.SerializeToString())
  try:
    dataset = datasets.Tetrominoes(
      path, batch_size=2, reader="multi_object_datasets.tetrominoes.dataset"
    )
  finally:
    for name in ("", ".tetrominoes"):
      sys.modules.pop("multi_object_datasets" + name, None)
  assert sys.modules["tensorflow"] is tf
  for subset in ("train", "eval"):
    batch = next(iter(dataset(subset)))
    np.testing.assert_array_equal(
      batch["factors"]["position"][0, :, 0], [101, 102, 103, 104]
    )


# One's own images


def test_image_batch():
  dataset = datasets.Tetrominoes("scenes", batch_size=2, image_dim=(5, 7))
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, [3, 5, 7, 3], dtype=np.uint8)
  batch = dataset.image_batch(images)
  assert set(batch) == {"image"}
  assert batch["image"].dtype == tf.float32
  np.testing.assert_array_equal(
    batch["image"], images[:, None] / np.float32(255)
  )
  np.testing.assert_array_equal(
    dataset.image_batch(images[1] / 255)["image"],
    np.float32(images[1:2, None] / 255),
  )


@pytest.mark.parametrize(
  ("images", "message"),
  [
    (np.zeros([7, 5, 3]), r"\[5, 7, 3\].*got \[7, 5, 3\]"),
    (np.zeros([5, 7, 4]), "drop an alpha channel"),
    (np.zeros([5, 7]), "expected shape"),
    (np.zeros([5, 7, 3], np.int64), "got int64"),
    (np.full([5, 7, 3], 1.01), "Divide intensities"),
    (np.full([5, 7, 3], -0.01), "values outside"),
    (np.full([5, 7, 3], np.nan), "values outside"),
  ],
)
def test_image_batch_rejects(images, message):
  dataset = datasets.Tetrominoes("scenes", batch_size=2, image_dim=(5, 7))
  with pytest.raises(ValueError, match=message):
    dataset.image_batch(images)


def cater_features(num_scenes):
  rng = np.random.default_rng(2)
  owner = rng.integers(0, 9, [num_scenes, 33, 64, 64])
  owner[:, 5:][owner[:, 5:] == 3] = 0  # entity 3 leaves after five frames
  mask = owner[:, :, None] == np.arange(11)[:, None, None]
  return {
    "image": rng.integers(0, 256, [num_scenes, 33, 64, 64, 3], dtype=np.uint8),
    "mask": np.uint8(255 * mask)[..., None],
    "camera_matrix": np.zeros([num_scenes, 33, 4, 4], np.float32),
    "object_positions": np.zeros([num_scenes, 33, 11, 3], np.float32),
  }


@pytest.mark.parametrize("frames", [33, 7])
def test_cater(path, frames):
  features = cater_features(2)
  reader = make_reader(features)
  dataset = datasets.CATER(path, batch_size=2, num_frames=frames, reader=reader)
  (batch,) = dataset("eval")
  np.testing.assert_array_equal(
    batch["image"], features["image"][:, :frames] / np.float32(255)
  )
  np.testing.assert_array_equal(
    batch["mask"], features["mask"][:, :frames] // 255
  )
  np.testing.assert_array_equal(batch["visibility"], [[1] * 9 + [0] * 2] * 2)
  assert batch["factors"] == {}
  assert dataset("train").element_spec == dataset.batch_spec()


@pytest.mark.parametrize("frames", [0, 34, "all"])
def test_impossible_number_of_frames(frames):
  with pytest.raises(ValueError, match="num_frames=.*from 1 to 33"):
    datasets.CATER("scenes", batch_size=2, num_frames=frames)


def test_wildcards(tmp_path):
  paths = [tmp_path / f"train-{i}-of-2" for i in range(2)]
  for seed, path in enumerate(paths):
    generation.write_tfrecords(
      path, sprites.FEATURES, sprites.sample_scenes, num_scenes=3, seed=seed
    )
  expected = datasets.Sprites(paths, batch_size=6)
  by_glob = datasets.Sprites(tmp_path / "train-*-of-2", batch_size=6)
  assert_equal(next(iter(by_glob("eval"))), next(iter(expected("eval"))))
  with pytest.raises(FileNotFoundError, match="no file .*test-"):
    datasets.Sprites(tmp_path / "test-*-of-2", batch_size=6)("eval")


def test_datasets_declare_what_the_readers_give():
  assert (
    datasets.CLEVR.num_true_objects == clevr_with_masks.MAX_NUM_ENTITIES == 11
  )
  assert datasets.Tetrominoes.num_true_objects == 4
  assert datasets.Sprites.num_true_objects == sprites.MAX_NUM_ENTITIES == 4
  assert datasets.ObjectsRoom.num_background_entities == 4
  assert datasets.CLEVR.num_background_entities == 1
