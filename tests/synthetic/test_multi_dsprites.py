"""Tests of iodine.synthetic.multi_dsprites."""

import colorsys
import functools

import numpy as np
import pytest

from iodine.multi_object_datasets import multi_dsprites as reader
from iodine.synthetic import __main__ as cli
from iodine.synthetic import generation, multi_dsprites

_VARIANTS = multi_dsprites.VARIANTS
_FACTORS = ("shape", "x", "y", "orientation", "scale")

# Parts of three frames of dSprites' published animation: shape, x and y 0,
# scale 1, orientation in steps of 2 pi/39, top left corner of the part.
_PUBLISHED = {
  ("square", 2, 4, 4): """
    ................##......
    .............######.....
    ..........#########.....
    .......############.....
    ....################....
    .###################....
    ####################....
    #####################...
    .####################...
    .####################...
    .#####################..
    ..####################..
    ..####################..
    ..#####################.
    ...####################.
    ...####################.
    ...#####################
    ....####################
    ....###################.
    ....################....
    .....############.......
    .....#########..........
    .....######.............
    ......##................""",
  ("ellipse", 4, 6, 5): """
    ...............###....
    ...........#########..
    .........############.
    ........##############
    ......################
    .....#################
    ....##################
    ...###################
    ..###################.
    ..###################.
    .###################..
    .###################..
    ###################...
    ##################....
    #################.....
    ################......
    ##############........
    .############.........
    ..#########...........
    ....###...............""",
  ("heart", 4, 5, 5): """
    .........######...
    ........########..
    ........#########.
    .......##########.
    .......##########.
    ........#########.
    .######.##########
    .################.
    #################.
    #################.
    #################.
    #################.
    #################.
    .################.
    ..##############..
    ...#############..
    .......#########..
    ..............##..
    ................#.""",
}


@functools.cache
def _scenes(variant):
  return multi_dsprites.sample_scenes(np.random.default_rng(5), 1000, variant)


def _draw_one(shape, **factors):
  """The pixels of a sprite on its own, [64, 64] bool."""
  factors = {"x": 0.5, "y": 0.5, "orientation": 0, "scale": 1} | factors
  shape = multi_dsprites.SHAPES.index(shape)
  _, mask = multi_dsprites.render(
    shape=np.array([[0, shape]]),
    color=np.zeros([1, 2, 3]),
    visibility=np.ones([1, 2]),
    **{name: np.array([[0, value]]) for name, value in factors.items()},
  )
  return mask[0, :, :, 1, 0] > 0


def _whole_sprites(scenes):
  """The pixels of all entities, covered ones included: [B, 64, 64, L]."""
  num_entities = scenes["shape"].shape[1]
  visibility = scenes["visibility"] > 0
  alone = [
    multi_dsprites.render(
      *(scenes[name] for name in _FACTORS),
      scenes["color"],
      visibility & (np.arange(num_entities) == entity),
    )[1][..., entity, 0]
    for entity in range(num_entities)
  ]
  return np.stack(alone, axis=-1) > 0


@pytest.mark.parametrize("variant", _VARIANTS)
def test_scenes_fit_the_readers_features(variant):
  expected = reader.feature_descriptions(
    reader.MAX_NUM_ENTITIES[variant], variant == "binarized"
  )
  features = multi_dsprites.features(variant)
  scenes = _scenes(variant)
  assert set(features) == set(scenes) == set(expected)
  for name, feature in features.items():
    assert list(feature.shape) == expected[name].shape, name
    is_bytes = name in reader.BYTE_FEATURES
    assert feature.kind == ("bytes" if is_bytes else "float")
    assert scenes[name].shape == (1000, *feature.shape), name
    assert scenes[name].dtype == (np.uint8 if is_bytes else np.float32), name


@pytest.mark.parametrize("variant", _VARIANTS)
def test_masks_partition_the_image(variant):
  mask = _scenes(variant)["mask"]
  assert set(np.unique(mask)) == {0, 255}
  np.testing.assert_array_equal(mask.sum(3, dtype=int), 255)


@pytest.mark.parametrize("variant", _VARIANTS)
def test_image_is_the_colors_composed_by_the_masks(variant):
  scenes = _scenes(variant)
  owner = scenes["mask"][..., 0].argmax(3)
  color = scenes["color"][np.arange(1000)[:, None, None], owner]
  np.testing.assert_array_equal(scenes["image"], np.round(255 * color))
  # No information is lost: the colours are those of the pixels.
  np.testing.assert_allclose(scenes["image"] / 255, color, atol=1e-7)


@pytest.mark.parametrize("variant", _VARIANTS)
def test_later_entities_cover_earlier_ones(variant):
  scenes = {name: v[:200] for name, v in _scenes(variant).items()}
  whole = _whole_sprites(scenes)
  num_entities = whole.shape[-1]
  overlaps = 0
  for entity in range(num_entities):
    later = whole[..., entity + 1 :].any(axis=-1)
    expected = ~later if entity == 0 else whole[..., entity] & ~later
    np.testing.assert_array_equal(
      scenes["mask"][..., entity, 0] > 0, expected, err_msg=str(entity)
    )
    if entity:
      overlaps += (whole[..., entity] & later).any(axis=(1, 2)).sum()
  assert overlaps > 40


@pytest.mark.parametrize("variant", _VARIANTS)
def test_a_part_of_every_sprite_is_seen(variant):
  """The seed has scenes of which some were drawn anew for this."""
  scenes = _scenes(variant)
  seen = scenes["mask"].any(axis=(1, 2, 4))
  np.testing.assert_array_equal(seen, scenes["visibility"])


@pytest.mark.parametrize("variant", _VARIANTS)
def test_numbers_of_sprites(variant):
  fewest, most = {
    "binarized": (2, 3),
    "colored_on_grayscale": (2, 5),
    "colored_on_colored": (1, 4),
  }[variant]
  visibility = _scenes(variant)["visibility"]
  assert visibility.shape[1] == most + 1
  # The background first, then the sprites, then those that are not there.
  assert (visibility[:, 0] == 1).all() and (np.diff(visibility) <= 0).all()
  counts = np.bincount(visibility[:, 1:].sum(1).astype(int))
  assert not counts[:fewest].any()
  share = 1 / (most + 1 - fewest)
  deviation = np.sqrt(1000 * share * (1 - share))
  np.testing.assert_allclose(counts[fewest:], 1000 * share, atol=5 * deviation)


@pytest.mark.parametrize("variant", _VARIANTS)
def test_all_factors_are_used_alike(variant):
  """Those of invisible entities included, as in the real files."""
  scenes = _scenes(variant)
  values = {
    "shape": [1, 2, 3],
    "scale": [0.5, 0.6, 0.7, 0.8, 0.9, 1],
    "x": np.linspace(0, 1, 32),
    "y": np.linspace(0, 1, 32),
  }
  for name, expected in values.items():
    found, counts = np.unique(scenes[name][:, 1:], return_counts=True)
    np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)
    # Binomial counts, at five standard deviations.
    mean = counts.sum() / len(expected)
    np.testing.assert_allclose(counts, mean, atol=5 * mean**0.5, err_msg=name)
  assert (scenes["x"] != scenes["y"]).any()


@pytest.mark.parametrize("variant", _VARIANTS)
def test_orientations_stay_within_the_symmetry(variant):
  scenes = _scenes(variant)
  shape, orientation = scenes["shape"][:, 1:], scenes["orientation"][:, 1:]
  for code, period in ((1, np.pi / 2), (2, np.pi), (3, 2 * np.pi)):
    found = np.unique(orientation[shape == code])
    expected = np.arange(39) * period / 39
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_real_orientations():
  """The first, a middle and the last of the 77 values of a real file."""
  found = np.unique(_scenes("colored_on_colored")["orientation"])
  assert len(np.unique(found.round(5))) == 77
  for value in (0.04027677, 1.6110731, 3.2221463, 6.122078):
    assert np.abs(found - value).min() < 1e-6


@pytest.mark.parametrize("variant", _VARIANTS)
def test_background_comes_first(variant):
  scenes = _scenes(variant)
  for name in ("x", "y", "shape", "orientation"):
    assert not scenes[name][:, 0].any(), name
  assert (scenes["scale"][:, 0] == 1).all()


def test_binarized_is_white_on_black():
  scenes = _scenes("binarized")
  assert not scenes["color"][:, 0].any()
  assert (scenes["color"][:, 1:] == 1).all()
  assert set(np.unique(scenes["image"])) == {0, 255}


def test_colors_on_grayscale():
  color = _scenes("colored_on_grayscale")["color"]
  background = color[:, 0]
  assert (background == background[:, :1]).all()
  assert background.min() < 0.05 and background.max() > 0.95
  hsv = np.array([colorsys.rgb_to_hsv(*c) for c in color[:, 1:].reshape(-1, 3)])
  np.testing.assert_allclose(hsv.min(0), [0, 0.2, 0.35], atol=0.02)
  np.testing.assert_allclose(hsv.max(0), 1, atol=0.02)
  # Uniform: means of 5000 draws, with deviations of at most 0.005.
  np.testing.assert_allclose(hsv.mean(0), [0.5, 0.6, 0.675], atol=0.02)


def test_colors_on_color():
  color = _scenes("colored_on_colored")["color"]
  for entity in (0, 1):
    mean, deviation = color[:, entity].mean(0), color[:, entity].std(0)
    np.testing.assert_allclose(mean, 0.5, atol=0.05)
    np.testing.assert_allclose(deviation, 12**-0.5, atol=0.03)
  assert (color[:, 0, 0] != color[:, 0, 1]).any()


@pytest.mark.parametrize("shape, steps, top, left", _PUBLISHED)
def test_sprites_are_those_of_dsprites(shape, steps, top, left):
  rows = _PUBLISHED[shape, steps, top, left].split()
  part = np.array([[cell == "#" for cell in row] for row in rows])
  expected = np.zeros([64, 64], bool)
  expected[top : top + part.shape[0], left : left + part.shape[1]] = part
  angle = steps * 2 * np.pi / 39
  drawn = _draw_one(shape, x=0, y=0, orientation=angle)
  np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("shape", multi_dsprites.SHAPES[1:])
def test_symmetries(shape):
  period = multi_dsprites.SYMMETRIES[multi_dsprites.SHAPES.index(shape)]
  # Centres between pixels, as here, keep the boundary off the pixels' centres.
  at_0, *turned = (
    _draw_one(shape, orientation=0.3 + part * period) for part in (0, 1, 0.5)
  )
  np.testing.assert_array_equal(at_0, turned[0])
  assert (at_0 != turned[1]).any()


@pytest.mark.parametrize("x, y", [(0, 1), (0.25, 0.75), (1, 0.1)])
@pytest.mark.parametrize("shape", ["square", "ellipse"])
def test_x_is_the_column_and_y_the_row_of_the_centre(shape, x, y):
  rows, columns = np.nonzero(_draw_one(shape, x=x, y=y, orientation=0.4))
  # Pixels have a size of 1, and so has the error of a centre of gravity.
  np.testing.assert_allclose(columns.mean() + 0.5, 16 + 32 * x, atol=0.5)
  np.testing.assert_allclose(rows.mean() + 0.5, 16 + 32 * y, atol=0.5)


@pytest.mark.parametrize(
  "shape, area",
  [
    ("square", 19.2**2),
    ("ellipse", np.pi * 12.77 * 7.21),
    # The curve's area is 180 pi before it is stretched.
    ("heart", 180 * np.pi * 19.2 / 32 * 19.2 / 29),
  ],
)
def test_area_grows_with_the_square_of_the_scale(shape, area):
  for scale in multi_dsprites.SCALES:
    # The mean over angles at which the pixels' errors differ.
    drawn = [
      _draw_one(shape, orientation=angle, scale=scale).sum()
      for angle in np.linspace(0.1, 1.4, 8)
    ]
    np.testing.assert_allclose(np.mean(drawn), area * scale**2, rtol=0.02)


@pytest.mark.parametrize("angle", [0, 0.5, 1.2, 2.0, 2.9])
def test_orientation_is_that_of_the_ellipses_long_axis(angle):
  rows, columns = np.nonzero(_draw_one("ellipse", orientation=angle))
  covariance = np.cov(columns, -rows)  # Right and up.
  found = np.arctan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1])
  # Twice the angle, to 0.1: what the pixels of one ellipse tell.
  np.testing.assert_allclose(np.cos(found - 2 * angle), 1, atol=0.005)


def test_scenes_do_not_depend_on_how_many_are_drawn():
  sample = functools.partial(
    multi_dsprites.sample_scenes, variant="colored_on_colored"
  )
  (few,) = generation.sample_chunks(sample, 3, seed=7)
  *_, last = generation.sample_chunks(sample, 258, seed=7)
  first = next(generation.sample_chunks(sample, 258, seed=7))
  for name in few:
    np.testing.assert_array_equal(few[name], first[name][:3], err_msg=name)
  assert (last["image"] != few["image"][:2]).any()
  (other,) = generation.sample_chunks(sample, 3, seed=8)
  assert (other["image"] != few["image"]).any()


@pytest.mark.parametrize("variant", _VARIANTS)
def test_reader_gives_what_was_sampled(tmp_path, variant):
  path = tmp_path / "scenes.tfrecords"
  arguments = ["--scenes", "4", "--seed", "3", "--variant", variant]
  arguments += ["--output", str(path)]
  assert cli.main(["multi_dsprites", *arguments]) == 0
  sample = functools.partial(multi_dsprites.sample_scenes, variant=variant)
  (expected,) = generation.sample_chunks(sample, 4, seed=3)
  # The reader has the entities first.
  expected["mask"] = expected["mask"].transpose(0, 3, 1, 2, 4)
  stored = list(reader.dataset(str(path), variant).as_numpy_iterator())
  assert len(stored) == 4
  for i, scene in enumerate(stored):
    assert set(scene) == set(expected)
    for name, value in scene.items():
      assert value.dtype == expected[name].dtype, name
      np.testing.assert_array_equal(value, expected[name][i], err_msg=name)


def test_command_line_draws_colors_on_grayscale(tmp_path):
  path = tmp_path / "scenes.tfrecords"
  arguments = ["--scenes", "2", "--output", str(path)]
  assert cli.main(["multi_dsprites", *arguments]) == 0
  scenes = reader.dataset(str(path), "colored_on_grayscale")
  assert len(list(scenes)) == 2


def test_rejects_unknown_variants(tmp_path, capsys):
  message = "variant='colored': expected one of .'binarized'"
  with pytest.raises(ValueError, match=message):
    multi_dsprites.features("colored")
  with pytest.raises(ValueError, match=message):
    multi_dsprites.sample_scenes(np.random.default_rng(0), 1, "colored")

  arguments = ["--variant", "colored", "--output", str(tmp_path / "new")]
  with pytest.raises(SystemExit):
    cli.main(["multi_dsprites", *arguments])
  error = capsys.readouterr().err
  assert "--variant: invalid choice: 'colored'" in error
  assert error.count("\n") == 1
  assert not (tmp_path / "new").exists()
