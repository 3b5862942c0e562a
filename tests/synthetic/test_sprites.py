"""Tests of iodine.synthetic.sprites and its reader."""

import numpy as np
import pytest

from iodine.synthetic import __main__ as cli
from iodine.synthetic import generation, sprites, sprites_reader


def _sample(num_scenes, seed=5, **kwargs):
  rng = np.random.default_rng(seed)
  return sprites.sample_scenes(rng, num_scenes, **kwargs)


@pytest.fixture(scope="module", name="scenes")
def _scenes():
  return _sample(2000, num_objects=3)


def _is_disc_pixel(row, column, size):
  """Whether a pixel's centre lies in the disc; in units of half a pixel."""
  away = (2 * row + 1 - size) ** 2 + (2 * column + 1 - size) ** 2
  return away < size**2


def _silhouette(scenes, scene, entity):
  """The pixels of a whole sprite as a set, from its factors alone."""
  top, left, size, shape = (
    int(scenes[name][scene, entity]) for name in ("x", "y", "size", "shape")
  )
  return {
    (top + row, left + column)
    for row in range(size)
    for column in range(size)
    if sprites.SHAPES[shape] == "square" or _is_disc_pixel(row, column, size)
  }


def _seen(scenes, scene, entity):
  mask = scenes["mask"][scene, entity, ..., 0]
  return set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True))


def test_scenes_fit_their_features(scenes):
  assert set(scenes) == set(sprites.FEATURES)
  for name, feature in sprites.FEATURES.items():
    assert scenes[name].shape == (2000, *feature.shape), name
    dtype = np.uint8 if feature.kind == "bytes" else np.float32
    assert scenes[name].dtype == dtype, name


def test_masks_partition_the_image(scenes):
  assert set(np.unique(scenes["mask"])) == {0, 255}
  np.testing.assert_array_equal(scenes["mask"].sum(1, dtype=int), 255)


def test_masks_are_what_is_seen(scenes):
  """A pixel belongs to the last sprite that has it, else to the background."""
  occlusions = 0
  for scene in range(200):
    whole = [_silhouette(scenes, scene, entity) for entity in range(1, 4)]
    for entity in range(1, 4):
      later = set().union(*whole[entity:])
      assert _seen(scenes, scene, entity) == whole[entity - 1] - later
      assert len(whole[entity - 1] - later) >= 0.75 * len(whole[entity - 1])
      occlusions += bool(whole[entity - 1] & later)
    assert not _seen(scenes, scene, 0) & set().union(*whole)
  assert occlusions > 50


def test_disc_and_square():
  """Hand-drawn: a disc of 6 pixels at row 2, column 5, then a square of 7."""
  kwargs = {"size": np.array([[0, 6]]), "color": np.zeros([1, 2, 3])}
  at = {"x": np.array([[0, 2]]), "y": np.array([[0, 5]])}
  _, mask = sprites.render(np.array([[0, 2]]), **at, **kwargs)
  expected = np.zeros([16, 16], bool)
  rows = (".####.", "######", "######", "######", "######", ".####.")
  expected[2:8, 5:11] = [[cell == "#" for cell in row] for row in rows]
  np.testing.assert_array_equal(mask[0, 1, ..., 0] > 0, expected)

  kwargs["size"] = np.array([[0, 7]])
  _, mask = sprites.render(np.array([[0, 1]]), **at, **kwargs)
  expected[:] = False
  expected[2:9, 5:12] = True
  np.testing.assert_array_equal(mask[0, 1, ..., 0] > 0, expected)


def test_pixels_have_their_entitys_color(scenes):
  owner = scenes["mask"][..., 0].argmax(1)
  color = scenes["color"][np.arange(2000)[:, None, None], owner]
  np.testing.assert_array_equal(scenes["image"], np.round(255 * color))
  # No sprite looks like the background.
  contrast = np.abs(sprites.COLORS - sprites.BACKGROUND_COLOR)
  assert (contrast >= 0.5).all()


def test_background_comes_first(scenes):
  for name in ("x", "y", "shape", "size"):
    assert not scenes[name][:, 0].any()
  np.testing.assert_array_equal(
    scenes["color"][:, 0], np.full([2000, 3], sprites.BACKGROUND_COLOR)
  )
  np.testing.assert_array_equal(scenes["visibility"], np.ones([2000, 4]))


def test_distribution(scenes):
  """Shapes, sizes and colours equally often, positions up to the border."""
  # 6000 draws: standard deviations of 39, 37 and 29; 5 of them are allowed.
  counts = np.bincount(scenes["shape"][:, 1:].astype(int).ravel(), minlength=3)
  np.testing.assert_allclose(counts[1:], 3000, atol=5 * 39)
  size = scenes["size"][:, 1:]
  values, counts = np.unique(size, return_counts=True)
  np.testing.assert_array_equal(values, sprites.SIZES)
  # Scenes of large sprites, which cover more, are not drawn less often.
  np.testing.assert_allclose(counts, 2000, atol=5 * 37)
  codes = scenes["color"][:, 1:] @ np.array([4, 2, 1], np.float32)
  counts = np.bincount(codes.astype(int).ravel(), minlength=8)
  assert counts[0] == counts[7] == 0
  np.testing.assert_allclose(counts[1:7], 1000, atol=5 * 29)
  for first, second in ((1, 2), (1, 3), (2, 3)):
    color = scenes["color"]
    assert (color[:, first] != color[:, second]).any(axis=1).all()
  for name in ("x", "y"):
    assert scenes[name][:, 1:].min() == 0
    assert (scenes[name][:, 1:] + size).max() == 16
  assert (scenes["x"] != scenes["y"]).any()


@pytest.mark.parametrize("num_objects", [1, 2])
def test_number_of_objects(num_objects):
  scenes = _sample(50, num_objects=num_objects)
  present = np.arange(4) <= num_objects
  np.testing.assert_array_equal(scenes["visibility"], np.tile(present, (50, 1)))
  assert (scenes["mask"].any((2, 3, 4)) == present).all()
  for name in ("x", "y", "shape", "size", "color"):
    assert not scenes[name][:, ~present].any()
  assert scenes["shape"][:, 1 : 1 + num_objects].all()


@pytest.mark.parametrize("num_objects", [0, 4])
def test_rejects_other_numbers_of_objects(num_objects):
  with pytest.raises(ValueError, match=f"num_objects={num_objects}: .*1 to 3"):
    _sample(5, num_objects=num_objects)


def test_reader_gives_what_was_sampled(tmp_path):
  path = tmp_path / "scenes.tfrecords"
  arguments = ["--scenes", "7", "--seed", "3", "--objects", "3"]
  assert cli.main(["sprites", *arguments, "--output", str(path)]) == 0
  sampler = cli.DATASETS["sprites"].make_sampler(
    cli.argparse.Namespace(objects=3)
  )
  (expected,) = generation.sample_chunks(sampler, 7, seed=3)
  stored = list(sprites_reader.dataset(str(path)).as_numpy_iterator())
  assert len(stored) == 7
  for i, scene in enumerate(stored):
    assert set(scene) == set(expected)
    for name, value in scene.items():
      assert value.dtype == expected[name].dtype, name
      np.testing.assert_array_equal(value, expected[name][i], err_msg=name)


def test_command_line_draws_two_sprites(tmp_path):
  path = tmp_path / "scenes.tfrecords"
  assert cli.main(["sprites", "--scenes", "3", "--output", str(path)]) == 0
  for scene in sprites_reader.dataset(str(path)).as_numpy_iterator():
    np.testing.assert_array_equal(scene["visibility"], [1, 1, 1, 0])


def test_command_line_rejects_four_sprites(tmp_path, capsys):
  with pytest.raises(SystemExit):
    cli.main(["sprites", "--objects", "4", "--output", str(tmp_path / "new")])
  assert "--objects: invalid choice: 4" in capsys.readouterr().err
