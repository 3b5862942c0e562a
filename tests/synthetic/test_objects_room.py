"""Tests of iodine.synthetic.objects_room."""

import colorsys
import functools
import itertools

import numpy as np
import pytest

from iodine.multi_object_datasets import objects_room as reader
from iodine.synthetic import __main__ as cli
from iodine.synthetic import generation, objects_room

_SKY, _FLOOR, _LEFT, _RIGHT = range(4)


def _sample(num_scenes, variant, seed=5):
  rng = np.random.default_rng(seed)
  return objects_room.sample_scenes(rng, num_scenes, variant)


@pytest.fixture(scope="module", name="scenes")
def _scenes():
  """Scenes of all variants."""
  return {variant: _sample(40, variant) for variant in objects_room.VARIANTS}


def _seen(scenes):
  """[B, L]: in how many pixels each entity is seen."""
  return (scenes["mask"] > 0).sum((2, 3, 4))


def _median_hue(image, mask):
  color = np.median(image[mask[..., 0] > 0], axis=0) / 255
  return colorsys.rgb_to_hsv(*color)[0]


def _hue_distance(a, b):
  return abs((a - b + 0.5) % 1 - 0.5)


@pytest.mark.parametrize("variant", objects_room.VARIANTS)
def test_scenes_fit_the_readers_features(scenes, variant):
  number = reader.MAX_NUM_ENTITIES[variant]
  assert objects_room.MAX_NUM_ENTITIES[variant] == number
  features = objects_room.features(variant)
  assert {name: f.shape for name, f in features.items()} == {
    "image": (64, 64, 3),
    "mask": (number, 64, 64, 1),
  }
  for name, feature in features.items():
    assert feature.kind == "bytes"
    assert scenes[variant][name].shape == (40, *feature.shape)
    assert scenes[variant][name].dtype == np.uint8


@pytest.mark.parametrize("variant", objects_room.VARIANTS)
def test_masks_partition_the_image(scenes, variant):
  mask = scenes[variant]["mask"]
  assert set(np.unique(mask)) == {0, 255}
  np.testing.assert_array_equal(mask.sum(1, dtype=int), 255)


@pytest.mark.parametrize(
  "variant, numbers",
  [
    ("train", {1, 2, 3}),
    ("six_objects", {6}),
    ("empty_room", {0}),
    ("identical_color", {4, 5, 6}),
  ],
)
def test_number_of_objects(scenes, variant, numbers):
  """The objects come after the four of the room, then come empty masks."""
  seen = _seen(scenes[variant])[:, 4:]
  found = (seen > 0).sum(axis=1)
  assert set(found) == numbers
  present = np.arange(seen.shape[1]) < found[:, None]
  assert (seen[present] >= objects_room.MIN_VISIBLE_PIXELS).all()
  assert not seen[~present].any()


def test_order_of_the_room(scenes):
  """Sky above walls above floor, the left wall to the left of the right one."""
  mask = scenes["empty_room"]["mask"][..., 0] > 0
  assert (mask.sum((2, 3)) > 50).all()
  rows = np.arange(64)[:, None]
  height = (mask * rows).sum((2, 3)) / mask.sum((2, 3))
  assert (height[:, _SKY] < height[:, [_LEFT, _RIGHT]].min(1)).all()
  assert (height[:, _FLOOR] > height[:, [_LEFT, _RIGHT]].max(1)).all()
  columns = np.arange(64)
  column = (mask * columns).sum((2, 3)) / mask.sum((2, 3))
  assert (column[:, _LEFT] < column[:, _RIGHT]).all()
  # In every column, from top to bottom: sky, one of the walls, floor.
  owner = mask.argmax(axis=1)
  level = np.array([0, 2, 1, 1])[owner]
  assert (np.diff(level, axis=1) >= 0).all()
  assert set(np.diff(owner[:, 20], axis=1).ravel()) <= {0, 1}


def test_objects_stand_on_the_floor(scenes):
  """Below the lowest pixel of an object that nothing hides is the floor."""
  checked = 0
  mask = scenes["train"]["mask"]
  for owner in mask[~mask[:, 5].any((1, 2, 3)), ..., 0].argmax(axis=1):
    rows, columns = np.nonzero(owner == 4)
    if rows.max() < 63:
      below = owner[rows.max() + 1, columns[rows == rows.max()]]
      assert (below == _FLOOR).all()
      checked += 1
  assert checked > 5


def test_objects_stand_apart_in_the_room():
  rng = np.random.default_rng(7)
  shapes = set()
  for _ in range(10):
    solids = objects_room._sample_room(rng, "six_objects").solids
    for solid, other in itertools.combinations(solids, 2):
      distance = np.linalg.norm((solid.center - other.center)[:2])
      assert distance > solid.radius + other.radius
    for solid in solids:
      shapes.add(solid.shape)
      assert solid.center[2] == np.float32(solid.size)
      assert np.abs(solid.center[:2]).max() + solid.radius < 3.5
  assert shapes == {"sphere", "cube", "cylinder", "capsule"}


def test_colors(scenes):
  """Walls have one hue, the sky is blue, other hues are all over the place."""
  hues = {entity: [] for entity in range(5)}
  for image, mask in zip(*scenes["train"].values(), strict=True):
    for entity in range(5):
      hues[entity].append(_median_hue(image, mask[entity]))
    if min(_seen({"mask": mask[None]})[0, 2:4]) > 10:
      assert _hue_distance(hues[_LEFT][-1], hues[_RIGHT][-1]) < 0.03
  assert np.ptp(hues[_SKY]) < 0.01 and 0.5 < hues[_SKY][0] < 0.6
  for entity in (_FLOOR, _LEFT, 4):
    counts, _ = np.histogram(hues[entity], 4, (0, 1))
    assert counts.min() >= 3
  # Hues of floor, wall and objects are independent of one another.
  for a, b in ((_FLOOR, _LEFT), (_LEFT, 4), (_FLOOR, 4)):
    apart = [_hue_distance(x, y) for x, y in zip(hues[a], hues[b], strict=True)]
    assert np.mean(np.array(apart) > 0.1) > 0.5


def test_identical_color_is_of_all_objects(scenes):
  def spread(variant):
    distances = []
    for image, mask in zip(*scenes[variant].values(), strict=True):
      hues = [_median_hue(image, m) for m in mask[4:] if (m > 0).sum() > 30]
      distances += [_hue_distance(hues[0], hue) for hue in hues[1:]]
    return np.array(distances)

  # Edges are mixed with what is behind; few pixels have a darker hue.
  assert np.quantile(spread("identical_color"), 0.95) < 0.03
  assert np.median(spread("six_objects")) > 0.1


def test_objects_are_shaded_and_cast_shadows(scenes):
  """The floor is darkest next to objects, and light varies on objects."""
  image, mask = (scenes["train"][name] for name in ("image", "mask"))
  floor = mask[:, _FLOOR, ..., 0] > 0
  contrast = [
    np.quantile(i[m].max(-1), 0.5) - i[m].max(-1).min()
    for i, m in zip(image.astype(int), floor, strict=True)
  ]
  empty = scenes["empty_room"]
  plain = [
    np.quantile(i[m].max(-1), 0.5) - i[m].max(-1).min()
    for i, m in zip(
      empty["image"].astype(int), empty["mask"][:, 1, ..., 0] > 0, strict=True
    )
  ]
  assert np.median(contrast) > np.median(plain) + 30


def test_rejects_an_unknown_variant():
  message = r"variant='test': choose from train, six_objects, empty_room, "
  for function in (functools.partial(_sample, 1), objects_room.features):
    with pytest.raises(ValueError, match=message):
      function("test")


def test_scenes_do_not_depend_on_their_number():
  sample = functools.partial(objects_room.sample_scenes, variant="train")
  few, many = (
    list(generation.sample_chunks(sample, number, seed=1, chunk_size=4))
    for number in (2, 9)
  )
  for name in ("image", "mask"):
    np.testing.assert_array_equal(few[0][name], many[0][name][:2])
  assert not np.array_equal(many[0]["image"], many[1]["image"])


@pytest.mark.parametrize("variant", objects_room.VARIANTS)
def test_reader_gives_what_was_sampled(tmp_path, variant):
  path = tmp_path / "scenes.tfrecords"
  arguments = ["--scenes", "3", "--seed", "4", "--variant", variant]
  assert cli.main(["objects_room", *arguments, "--output", str(path)]) == 0
  (expected,) = generation.sample_chunks(
    functools.partial(objects_room.sample_scenes, variant=variant),
    3,
    seed=4,
    chunk_size=cli.DATASETS["objects_room"].chunk_size,
  )
  stored = list(reader.dataset(str(path), variant).as_numpy_iterator())
  assert len(stored) == 3
  for i, scene in enumerate(stored):
    for name in ("image", "mask"):
      np.testing.assert_array_equal(scene[name], expected[name][i])


def test_bad_options_are_one_line_errors(tmp_path, capsys):
  arguments = ["--variant", "test", "--output", str(tmp_path / "new")]
  with pytest.raises(SystemExit) as error:
    cli.main(["objects_room", *arguments])
  assert error.value.code == 2
  text = capsys.readouterr().err
  assert "--variant: invalid choice: 'test'" in text and text.count("\n") == 1
  assert not list(tmp_path.iterdir())
