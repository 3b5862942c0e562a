"""Tests of iodine.synthetic.clevr and iodine.synthetic.clevr_shading."""

import itertools

import numpy as np
import pytest

from iodine.multi_object_datasets import clevr_with_masks
from iodine.synthetic import __main__ as cli
from iodine.synthetic import clevr, clevr_shading, generation
from iodine.synthetic.solids import Solid

_NUM_SCENES = 16
_FOCAL_LENGTH = 350  # Pixels: 35 mm with a sensor of 32 mm, 320 pixels wide.


def _sample(num_scenes, seed=5, **kwargs):
  rng = np.random.default_rng(seed)
  return clevr.sample_scenes(rng, num_scenes, **kwargs)


@pytest.fixture(scope="module", name="scenes")
def _scenes():
  return _sample(_NUM_SCENES)


def _owner(scenes):
  return scenes["mask"][..., 0].argmax(axis=1)


def _objects(scenes):
  """The indices of all objects, as pairs of scene and entity."""
  return np.argwhere(scenes["shape"] > 0).tolist()


def _name(names, scenes, factor, scene, entity):
  return list(names)[scenes[factor][scene, entity]]


def _box(mask):
  """Height and width of what is seen, and whether the border cuts it."""
  rows, columns = np.nonzero(mask)
  cut = rows.min() == 0 or rows.max() == mask.shape[0] - 1
  cut |= columns.min() == 0 or columns.max() == mask.shape[1] - 1
  return np.ptp(rows) + 1, np.ptp(columns) + 1, cut


def _unoccluded(scenes, scene, entity):
  """Whether nothing that is nearer touches what is seen of an object."""
  owner = _owner(scenes)[scene]
  seen = owner == entity
  around = np.zeros_like(seen)
  for shift, axis in itertools.product((-2, 2), (0, 1)):
    around |= np.roll(seen, shift, axis)
  depth = scenes["pixel_coords"][scene, :, 2]
  touching = set(np.unique(owner[around])) - {0, entity}
  return all(depth[other] > depth[entity] for other in touching)


def test_scenes_fit_their_features(scenes):
  assert set(scenes) == set(clevr.FEATURES)
  for name, feature in clevr.FEATURES.items():
    assert scenes[name].shape == (_NUM_SCENES, *feature.shape), name
    dtype = np.uint8 if feature.kind == "bytes" else np.float32
    assert scenes[name].dtype == dtype, name


def test_masks_partition_the_image(scenes):
  assert set(np.unique(scenes["mask"])) == {0, 255}
  np.testing.assert_array_equal(scenes["mask"].sum(1, dtype=int), 255)
  seen = (scenes["mask"] > 0).sum((2, 3, 4))
  present = scenes["visibility"] > 0
  assert (seen[present] >= clevr.MIN_VISIBLE_PIXELS).all()
  assert not seen[~present].any()


def test_objects_come_after_the_background_and_before_none(scenes):
  number = scenes["visibility"].sum(1) - 1
  assert number.min() >= 3 and number.max() <= 10 and len(set(number)) > 3
  present = np.arange(11) <= number[:, None]
  np.testing.assert_array_equal(scenes["visibility"], present)
  present[:, 0] = False
  for name in ("x", "y", "z", "rotation", "pixel_coords"):
    assert not scenes[name][~present].any(), name
  for name, most in (("size", 2), ("material", 2), ("shape", 3), ("color", 8)):
    assert not scenes[name][~present].any(), name
    # Every code occurs among some hundred objects.
    assert set(np.unique(scenes[name][present])) == set(range(1, most + 1))


def test_placement(scenes):
  """The rules that do not depend on the camera."""
  sizes = np.array(clevr.SIZES, np.float32)[scenes["size"]]
  np.testing.assert_array_equal(scenes["z"], sizes)
  assert np.abs([scenes["x"], scenes["y"]]).max() <= 3
  for i in range(_NUM_SCENES):
    objects = np.flatnonzero(scenes["shape"][i])
    for a, b in itertools.combinations(objects, 2):
      distance = np.hypot(
        *(scenes[name][i, a] - scenes[name][i, b] for name in "xy")
      )
      assert distance >= sizes[i, a] + sizes[i, b] + 0.25 - 1e-5
  rotation = scenes["rotation"][scenes["shape"] > 0]
  assert 0 <= rotation.min() < 40 and 320 < rotation.max() <= 360


def test_margins_along_the_camera():
  """The rule that depends on the camera: apart to the right and in depth."""
  rng = np.random.default_rng(2)
  camera = clevr._sample_camera(rng)
  objects = clevr._sample_objects(rng, 8, camera)
  forward = camera.axes[2, :2] / np.linalg.norm(camera.axes[2, :2])
  for direction in (camera.axes[0, :2], forward):
    along = [solid.center[:2] @ direction for solid in objects.solids]
    assert np.diff(np.sort(along)).min() >= 0.4 - 1e-5


def test_camera_is_that_of_the_generator():
  positions = np.array(
    [
      clevr._sample_camera(np.random.default_rng(seed)).position
      for seed in range(30)
    ]
  )
  away = np.abs(positions - [7.4811, -6.5076, 5.3437])
  assert away.max() <= 0.5 and (away.max(axis=0) > 0.4).all()
  camera = clevr._sample_camera(np.random.default_rng(0))
  row, column, depth = camera.project(np.zeros([3, 1], np.float32))
  np.testing.assert_allclose([row[0], column[0]], [120, 160], atol=1e-3)
  np.testing.assert_allclose(depth, np.linalg.norm(camera.position), rtol=1e-6)


def test_pixel_coords_are_column_row_and_depth(scenes):
  """They lie on the object, or on one in front of it."""
  owner = _owner(scenes)
  occluded = 0
  for scene, entity in _objects(scenes):
    column, row, depth = scenes["pixel_coords"][scene, entity]
    assert column == int(column) and row == int(row)
    if not (0 <= row < 240 and 0 <= column < 320):
      continue
    seen = owner[scene, int(row), int(column)]
    if seen != entity:
      occluded += 1
      assert seen > 0
      assert scenes["pixel_coords"][scene, seen, 2] < depth
  assert 0 < occluded < 0.2 * len(_objects(scenes))


def test_pixel_coords_are_of_one_camera(scenes):
  """A pinhole camera maps x, y, z to column, row and depth."""
  for i in range(_NUM_SCENES):
    objects = np.flatnonzero(scenes["shape"][i])
    if len(objects) < 6:
      continue
    column, row, depth = scenes["pixel_coords"][i, objects].T
    seen = np.stack(
      [
        (column - 160) * depth / _FOCAL_LENGTH,
        (row - 120) * depth / _FOCAL_LENGTH,
        depth,
      ]
    )
    world = np.stack([scenes[name][i, objects] for name in "xyz"])
    # Distances in the camera's coordinates are those of the world. Half of a
    # pixel is 0.02 at depth 14.
    first, second = np.triu_indices(len(objects), 1)
    np.testing.assert_allclose(
      np.linalg.norm(seen[:, first] - seen[:, second], axis=0),
      np.linalg.norm(world[:, first] - world[:, second], axis=0),
      atol=0.06,
    )


def test_silhouettes_have_size_and_shape(scenes):
  """In units of the object's size at its depth."""
  found = set()
  for scene, entity in _objects(scenes):
    mask = scenes["mask"][scene, entity, ..., 0] > 0
    height, width, cut = _box(mask)
    if cut or not _unoccluded(scenes, scene, entity):
      continue
    size = clevr.SIZES[scenes["size"][scene, entity]]
    unit = size * _FOCAL_LENGTH / scenes["pixel_coords"][scene, entity, 2]
    shape = _name(clevr.SHAPES, scenes, "shape", scene, entity)
    found.add((shape, size))
    filled = mask.sum() / (height * width)
    if shape == "sphere":
      # Round but for the stretching far from the middle.
      np.testing.assert_allclose([height, width], 2 * unit, rtol=0.15)
      np.testing.assert_allclose(filled, np.pi / 4, atol=0.04)
    elif shape == "cylinder":
      # The top is nearer than the centre.
      assert 1.95 * unit < width < 2.6 * unit
      assert height > 2.2 * unit and filled > 0.76
    else:
      # The diagonal at most; what is nearer than the centre looks larger.
      assert 1.9 * unit < width < 1.2 * 2**1.5 * unit
  assert len(found) == 6  # All shapes and sizes.


def _chromaticity(color):
  linear = (np.asarray(color, float) / 255) ** 2.2
  return linear / linear.sum(axis=-1, keepdims=True)


def test_pixels_have_the_colour_of_the_factor(scenes):
  """The nearest of the eight hues in most of an object's pixels."""
  names = list(clevr.COLORS)[1:]
  # The generator takes the colours' values for linear ones.
  known = np.array([clevr.COLORS[name] for name in names], float)
  known /= known.sum(axis=1, keepdims=True)
  right = {"rubber": [], "metal": []}
  for scene, entity in _objects(scenes):
    pixels = scenes["image"][scene][scenes["mask"][scene, entity, ..., 0] > 0]
    median = np.median(_chromaticity(np.maximum(pixels, 1)), axis=0)
    nearest = np.linalg.norm(known - median, axis=1).argmin()
    material = _name(clevr.MATERIALS, scenes, "material", scene, entity)
    right[material].append(nearest + 1 == scenes["color"][scene, entity])
  assert np.mean(right["rubber"]) > 0.97
  # In metal, other objects are mirrored.
  assert np.mean(right["metal"]) > 0.9


def _draw(solids, is_metal):
  rng = np.random.default_rng(0)
  camera = clevr._sample_camera(rng)
  lamps = clevr_shading.sample_lamps(rng)
  albedos = np.full([len(solids), 3], (0.5, 0.15, 0.7))
  return clevr_shading.draw(camera, lamps, solids, albedos, is_metal)


def _solid(shape, x=0.0, y=0.0, size=0.7, angle=0.0):
  return Solid(shape, np.array([x, y, size], np.float32), size, angle)


def test_objects_cast_shadows():
  _, empty = _draw([], [])
  owner, image = _draw([_solid("cylinder")], [False])
  floor = owner < 0
  change = (image.astype(int) - empty).mean(axis=-1)[floor]
  # The pixels at the cylinder's edge have something of its colour.
  assert np.mean(change > 1) < 0.005
  assert np.sum(change < -10) > 500
  assert np.mean(change == 0) > 0.5


def test_floor_looks_like_the_generators():
  """Its example pictures have medians of 105 at the top, 138 at the bottom."""
  _, empty = _draw([], [])
  assert np.ptp(empty.astype(int), axis=-1).max() < 30  # Almost grey.
  assert 98 < empty[:24].mean() < 110
  assert 125 < empty[200:].mean() < 150


def test_objects_shade_one_another():
  """A large cube between a small one and the lamp to the left."""
  solids = [_solid("cube", 0.5, 0, 0.35), _solid("cube", -0.53, -0.8)]
  owner, together = _draw(solids, [False, False])
  alone_owner, alone = _draw(solids[:1], [False])
  seen = (owner == 0) & (alone_owner == 0)
  change = together[seen].astype(int) - alone[seen]
  # Half of the cube, not only some pixels at its edge.
  assert np.quantile(change, 0.95) <= 0
  assert np.quantile(change, 0.5) <= -2 and np.quantile(change, 0.1) <= -5


def test_metal_shines():
  owner, rubber = _draw([_solid("sphere")], [False])
  _, metal = _draw([_solid("sphere")], [True])
  sphere = owner == 0
  assert metal[sphere].max() > 250 > 200 > rubber[sphere].max()
  assert metal[sphere].std() > 1.3 * rubber[sphere].std()


def test_metal_is_what_the_factor_says(scenes):
  brightest = {"rubber": [], "metal": []}
  for scene, entity in _objects(scenes):
    pixels = scenes["image"][scene][scenes["mask"][scene, entity, ..., 0] > 0]
    material = _name(clevr.MATERIALS, scenes, "material", scene, entity)
    brightest[material].append(np.quantile(pixels.max(axis=-1), 0.99))
  assert np.median(brightest["metal"]) > 1.1 * np.median(brightest["rubber"])


def test_lamps_are_those_of_the_generator():
  positions = np.array(
    [
      [lamp.position for lamp in clevr_shading.sample_lamps(rng)[:3]]
      for rng in map(np.random.default_rng, range(30))
    ]
  )
  away = np.abs(
    positions
    - [
      [6.4467, -2.9052, 4.2584],
      [-4.6711, -4.0136, 3.0112],
      [-1.1685, 2.6460, 5.8157],
    ]
  )
  assert away.max() <= 1.001 and (away.max(axis=0) > 0.8).all()
  for lamp in clevr_shading.sample_lamps(np.random.default_rng(0)):
    np.testing.assert_allclose(
      lamp.axis, -lamp.position / np.linalg.norm(lamp.position), atol=1e-5
    )


def test_metal_mirrors_its_surroundings():
  sphere, other = _solid("sphere"), _solid("cube", 1.5, -1.0, 0.35)
  owner, image = _draw([sphere, other], [True, False])
  alone_owner, alone = _draw([sphere], [True])
  seen = (owner == 0) & (alone_owner == 0)
  change = np.abs(image[seen].astype(int) - alone[seen]).max(axis=-1)
  assert 0.01 < np.mean(change > 15) < 0.5


def test_number_of_objects():
  scenes = _sample(3, min_objects=2, max_objects=2)
  np.testing.assert_array_equal(scenes["visibility"].sum(1), 3)
  scenes = _sample(1, min_objects=10, max_objects=10)
  assert scenes["visibility"].all()


@pytest.mark.parametrize("numbers", [(0, 3), (5, 4), (3, 11)])
def test_rejects_other_numbers_of_objects(numbers):
  message = f"min_objects={numbers[0]}, max_objects={numbers[1]}: expected 1 <="
  with pytest.raises(ValueError, match=message):
    _sample(1, min_objects=numbers[0], max_objects=numbers[1])


def test_scenes_do_not_depend_on_their_number():
  def chunks(num_scenes, seed=1):
    return list(
      generation.sample_chunks(
        lambda rng, number: clevr.sample_scenes(rng, number, 3, 4),
        num_scenes,
        seed,
        chunk_size=2,
      )
    )

  few, many, other = chunks(1), chunks(3), chunks(1, seed=2)
  for name in clevr.FEATURES:
    np.testing.assert_array_equal(few[0][name], many[0][name][:1])
  assert not np.array_equal(few[0]["image"], many[1]["image"])
  assert not np.array_equal(few[0]["image"], other[0]["image"])


def test_reader_gives_what_was_sampled(tmp_path):
  path = tmp_path / "scenes.tfrecords"
  arguments = ["--scenes", "3", "--seed", "4", "--max-objects", "4"]
  assert cli.main(["clevr", *arguments, "--output", str(path)]) == 0
  (expected,) = generation.sample_chunks(
    lambda rng, number: clevr.sample_scenes(rng, number, 3, 4),
    3,
    seed=4,
    chunk_size=cli.DATASETS["clevr"].chunk_size,
  )
  stored = list(clevr_with_masks.dataset(str(path)).as_numpy_iterator())
  assert len(stored) == 3
  for i, scene in enumerate(stored):
    assert set(scene) == set(expected)
    for name, value in scene.items():
      assert value.dtype == expected[name].dtype, name
      np.testing.assert_array_equal(value, expected[name][i], err_msg=name)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--min-objects", "0"], "--min-objects: invalid choice: 0"),
    (["--max-objects", "11"], "--max-objects: invalid choice: 11"),
    (["--max-objects", "2"], "--min-objects 3 is above --max-objects 2"),
  ],
)
def test_bad_options_are_one_line_errors(tmp_path, capsys, arguments, message):
  with pytest.raises(SystemExit) as error:
    cli.main(["clevr", *arguments, "--output", str(tmp_path / "new")])
  assert error.value.code == 2
  text = capsys.readouterr().err
  assert message in text and text.count("\n") == 1
  assert not list(tmp_path.iterdir())


def test_features_are_the_readers():
  assert tuple(clevr_with_masks.IMAGE_SIZE) == clevr.IMAGE_SIZE
  assert clevr_with_masks.MAX_NUM_ENTITIES == clevr.MAX_NUM_ENTITIES
  assert set(clevr_with_masks.features) == set(clevr.FEATURES)
  for name, feature in clevr_with_masks.features.items():
    assert tuple(feature.shape) == clevr.FEATURES[name].shape, name
    kind = "bytes" if feature.dtype.name == "string" else "float"
    assert clevr.FEATURES[name].kind == kind, name


def test_scenes_with_hidden_objects_are_drawn_anew(monkeypatch):
  monkeypatch.setattr(clevr, "MIN_VISIBLE_PIXELS", 700)
  scenes = _sample(4, min_objects=5, max_objects=5)
  assert (scenes["mask"] > 0).sum((2, 3, 4))[:, :6].min() >= 700
