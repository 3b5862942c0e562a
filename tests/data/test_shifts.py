"""Tests of iodine.data.shifts, through the datasets that have them."""

import colorsys
import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from iodine.data import cache as scene_cache
from iodine.data import datasets, opening, shifts
from iodine.data.pipeline import IODINEDataset
from iodine.data.shifts import color_jitter
from iodine.synthetic import generation, multi_dsprites
from tests.support.small_datasets import Blobs, Clips

NUM_SCENES = 40


@dataclasses.dataclass(eq=False, kw_only=True)
class Shapes(IODINEDataset):
  """Scenes of up to three coloured rectangles in two frames."""

  num_true_objects = 4
  num_frames = 2
  factors = {"color": (tf.float32, 3), "shape": (tf.uint8, 1)}
  path: str = "own"  # which colours

  def examples(self):
    rng = np.random.default_rng(5)
    count = NUM_SCENES
    owner = np.zeros([count, 2, 12, 15], np.int64)
    for scene in owner:
      for label in range(1, rng.integers(1, 5)):
        top, left = rng.integers(0, 9), rng.integers(0, 12)
        scene[:, top : top + 4, left : left + 5] = label
    mask = owner[:, :, None] == np.arange(4)[:, None, None]
    palette = rng.integers(1, 256, [count, 4, 3])
    if self.path != "own":
      palette = 255 - palette
    scenes = np.arange(count)[:, None, None, None]
    visible = mask.any(axis=(1, 3, 4))
    visible[:, 0] = True
    scenes = {
      "image": np.uint8(palette[scenes, owner]),
      "mask": np.uint8(255 * mask)[..., None],
      "visibility": np.float32(visible),
      "factors": {
        "color": np.float32(palette) / 255,
        "shape": np.uint8(np.where(visible, rng.integers(1, 4, (count, 4)), 0)),
      },
    }
    data = tf.data.Dataset.from_tensor_slices(scenes)
    return data.take(30) if self.path == "short" else data

  def stored_files(self):
    if self.path == "missing":
      raise FileNotFoundError
    return [self.path]

  def _source(self):
    return self.path


def shapes(shift=None, **options):
  given = {"batch_size": NUM_SCENES, "image_dim": (12, 15), "seed": 1}
  return Shapes(shift=shift, **{**given, **options})


def whole(dataset):
  """All scenes as one batch of NumPy arrays."""
  batches = list(dataset("eval"))
  return tf.nest.map_structure(lambda *x: np.concatenate(x), *batches)


@pytest.fixture(scope="module", name="plain")
def fixture_plain():
  return whole(shapes())


@pytest.fixture(scope="module", name="sprites_path")
def fixture_sprites_path(tmp_path_factory):
  paths = {}
  for variant in multi_dsprites.VARIANTS:
    paths[variant] = tmp_path_factory.mktemp("sprites") / variant
    generation.write_tfrecords(
      paths[variant],
      multi_dsprites.features(variant),
      lambda rng, count, variant=variant: multi_dsprites.sample_scenes(
        rng, count, variant
      ),
      num_scenes=NUM_SCENES,
      seed=2,
    )
  return paths


def seen(mask, num_background=1):
  """[B, L] visibility by its definition."""
  visible = mask.any(axis=(1, 3, 4, 5))
  visible[:, :num_background] = True
  return visible.astype(np.float32)


# --- Each shift ---------------------------------------------------------------


@pytest.mark.parametrize(("size", "gray"), [(0.4, None), (0.5, 0.25)])
def test_occlusion(plain, size, gray):
  options = {"size": size, "gray": gray}
  shifted = whole(shapes({"name": "occlusion", **options}))
  height, width = math.floor(12 * size), math.floor(15 * size)
  objects = plain["mask"][:, :, 1:].sum(axis=(1, 2))[..., 0]
  hidden, places = [], set()
  for i, image in enumerate(shifted["image"]):
    # A frame of 0 and 1 in an image of that size, found by its colour.
    is_gray = (image == (0.5 if gray is None else gray)).all(axis=(0, 3))
    rows, columns = (np.flatnonzero(is_gray.any(axis)) for axis in (1, 0))
    top, left = rows[0], columns[0]
    square = np.zeros([12, 15], bool)
    square[top : top + height, left : left + width] = True
    np.testing.assert_array_equal(is_gray, square)
    expected = np.where(
      square[..., None], image[0, top, left], plain["image"][i]
    )
    np.testing.assert_array_equal(image, expected)
    owner = np.arange(4)[:, None, None, None] == 0
    expected = np.where(square[..., None], owner, plain["mask"][i])
    np.testing.assert_array_equal(shifted["mask"][i], expected)
    hidden.append(objects[i][square].sum())
    places.add((top, left))
  np.testing.assert_array_equal(shifted["visibility"], seen(shifted["mask"]))
  assert len(places) > NUM_SCENES / 4
  one = whole(shapes({"name": "occlusion", **options, "num_places": 1}))
  np.testing.assert_array_equal(one["visibility"], seen(one["mask"]))
  assert (one["visibility"] != plain["visibility"]).any()
  # The best of five places hides no more than the first of them.
  first = (plain["mask"] & ~one["mask"])[:, :, 1:].sum((1, 2, 3, 4, 5))
  assert (np.array(hidden) <= first).all()
  assert np.mean(hidden) < 0.7 * np.mean(first)


def test_occlusion_of_clevr_is_darker():
  assert datasets.CLEVR.occluder_gray == 0.2
  assert datasets.MultiDSprites.occluder_gray == 0.5


def test_crop(plain):
  shifted = whole(shapes("crop"))
  # The middle 8 x 10 pixels, from row 2 and column 2 (2.5, to even).
  image = plain["image"][:, :, 2:10, 2:12]
  mask = plain["mask"][:, :, :, 2:10, 2:12]

  def places(size, new):
    return np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)

  rows, columns = places(8, 12), places(10, 15)
  y, x = rows.astype(int), columns.astype(int)
  down, right = (rows - y)[:, None, None], (columns - x)[:, None]
  below, beside = np.minimum(y + 1, 7), np.minimum(x + 1, 9)
  upper = image[:, :, y] * (1 - down) + image[:, :, below] * down
  expected = upper[..., x, :] * (1 - right) + upper[..., beside, :] * right
  np.testing.assert_allclose(shifted["image"], expected, atol=1e-5)
  rows = ((np.arange(12) + 0.5) * 8 / 12).astype(int)
  columns = ((np.arange(15) + 0.5) * 10 / 15).astype(int)
  expected = mask[:, :, :, rows][..., columns, :]
  np.testing.assert_array_equal(shifted["mask"], expected)
  np.testing.assert_array_equal(shifted["visibility"], seen(expected))
  assert (shifted["visibility"] != plain["visibility"]).any()
  tf.nest.map_structure(
    np.testing.assert_array_equal, shifted["factors"], plain["factors"]
  )
  assert "modified" not in shifted


@pytest.mark.parametrize(
  "shift",
  ["object_color", {"name": "object_style", "style_path": "other"}],
)
def test_one_object_gets_other_pixels(plain, shift):
  shifted = whole(shapes(shift))
  modified = shifted.pop("modified").astype(bool)
  has_objects = plain["visibility"][:, 1:].any(axis=1)
  assert not has_objects.all()
  np.testing.assert_array_equal(modified.sum(axis=1), has_objects)
  assert not modified[:, 0].any()
  assert not (modified & (plain["visibility"] == 0)).any()
  assert modified[:, 1].any() and modified[:, 2].any() and modified[:, 3].any()
  pixels = (plain["mask"] * modified[:, None, :, None, None, None]).any(axis=2)
  changes = shifted["image"] != plain["image"]
  assert not (changes & ~pixels).any()
  assert changes[np.broadcast_to(pixels, changes.shape)].mean() > 0.8
  if shift != "object_color":
    expected = np.where(pixels, 1 - plain["image"], plain["image"])
    np.testing.assert_allclose(shifted["image"], expected, atol=1e-6)
  for name in ("mask", "visibility"):
    np.testing.assert_array_equal(shifted[name], plain[name])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_color_jitter(order):
  image = np.random.default_rng(0).random([2, 4, 5, 3], np.float32)
  brightness, contrast, saturation, turn = 1.4, 0.6, 1.3, 0.2

  def gray(x):
    return (x @ np.array([0.2989, 0.587, 0.114]))[..., None]

  def contrasted(x):
    mean = gray(x).mean((1, 2, 3), keepdims=True)
    return contrast * x + (1 - contrast) * mean

  def turned(x):
    def pixel(rgb):
      hue, *others = colorsys.rgb_to_hsv(*rgb)
      return colorsys.hsv_to_rgb((hue + turn) % 1, *others)

    return np.apply_along_axis(pixel, -1, x)

  steps = [
    lambda x: brightness * x,
    contrasted,
    lambda x: saturation * x + (1 - saturation) * gray(x),
    turned,
  ]
  expected = image.astype(np.float64)
  for step in order:
    expected = np.clip(steps[step](expected), 0, 1)
  factors = tf.constant([brightness, contrast, saturation])
  found = color_jitter.jitter(
    tf.constant(image), factors, tf.constant(turn), tf.constant(order)
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)
  grays = tf.constant(image[..., :1])
  found = color_jitter.jitter(
    grays, tf.constant([1.0, 1.0, 0.5]), tf.constant(0.3), tf.constant(order)
  )
  np.testing.assert_allclose(found, grays, atol=1e-6)


@pytest.mark.parametrize("variant", multi_dsprites.VARIANTS)
def test_object_shape(sprites_path, variant):
  options = {
    "dataset_variant": variant,
    "batch_size": NUM_SCENES,
    "shuffle_buffer": None,
  }
  path = sprites_path[variant]
  dataset = datasets.MultiDSprites(path, shift="object_shape", **options)
  most = dataset.num_true_objects - 2  # with room for one more
  assert dataset.max_num_objects == most
  plain = whole(datasets.MultiDSprites(path, max_num_objects=most, **options))
  shifted = whole(dataset)
  assert len(plain["image"]) == len(shifted["image"]) > 4
  new = shifted["modified"].argmax(axis=1)
  np.testing.assert_array_equal(shifted["modified"].sum(axis=1), 1)
  depths = set()
  for i, place in enumerate(new):
    others = [j for j in range(dataset.num_true_objects) if j != place]
    old = shifted["mask"][i][:, others]
    count = int(plain["visibility"][i].sum())
    assert 1 <= place <= count
    depths.add((place, count))
    sprite = {k: v[i, place] for k, v in shifted["factors"].items()}
    # Other entities keep their order and their factors.
    for name, values in shifted["factors"].items():
      np.testing.assert_array_equal(
        values[i][others][:count], plain["factors"][name][i, :count]
      )
    silhouette = _triangle(sprite)
    above = plain["mask"][i, 0, place:count, ..., 0].any(axis=0)
    triangle = shifted["mask"][i, 0, place, ..., 0].astype(bool)
    # Rounding may decide on pixels whose centre is on an edge.
    assert (triangle != (silhouette & ~above)).sum() <= 2
    expected = plain["mask"][i, 0, :count, ..., 0] & ~triangle
    np.testing.assert_array_equal(old[0, :count, ..., 0], expected)
    expected = np.where(
      triangle[..., None], sprite["color"], plain["image"][i, 0]
    )
    np.testing.assert_allclose(shifted["image"][i, 0], expected, atol=1e-6)
    assert sprite["shape"] == 4
    assert 0 <= sprite["orientation"] < 2 * math.pi / 3
    assert np.isclose(sprite["scale"], multi_dsprites.SCALES).any()
  assert any(place == 1 for place, _ in depths)
  assert any(place == count for place, count in depths)
  np.testing.assert_array_equal(shifted["visibility"], seen(shifted["mask"]))
  np.testing.assert_array_equal(shifted["mask"].sum(axis=2), 1)
  if variant == "binarized":
    assert set(np.unique(shifted["image"])) == {0, 1}


def _triangle(sprite):
  """[64, 64] bool, by the corners: inside is on one side of all edges."""
  angles = sprite["orientation"][0] + 2 * np.pi / 3 * np.arange(4)
  x, y = 16 + 32 * sprite["x"][0], 16 + 32 * sprite["y"][0]
  corners_x = x + 12 * sprite["scale"][0] * np.cos(angles)
  corners_y = y - 12 * sprite["scale"][0] * np.sin(angles)
  column, row = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
  inside = np.ones([64, 64], bool)
  for k in range(3):
    edge = corners_x[k + 1] - corners_x[k], corners_y[k + 1] - corners_y[k]
    inside &= (
      edge[0] * (row - corners_y[k]) - edge[1] * (column - corners_x[k]) < 0
    )
  return inside


def test_more_objects(plain):
  counts = plain["visibility"][:, 1:].sum(axis=1)
  shifted = whole(shapes("more_objects", max_num_objects=1))
  np.testing.assert_array_equal(shifted["image"], plain["image"][counts > 1])
  assert "modified" not in shifted


def test_held_out(plain, tmp_path):
  visible = plain["visibility"] > 0
  visible[:, 0] = False
  shape, color = (plain["factors"][x] for x in ("shape", "color"))
  wanted = color[visible & (shape[..., 0] == 2)][0]
  found = (shape[..., 0] == 2) & (color == wanted).all(axis=-1) & visible
  found = found.any(axis=1)
  assert 0 < found.sum() < NUM_SCENES
  factors = {"color": wanted.tolist(), "shape": 2}
  shift = {"name": "held_out", "factors": factors}
  for mode, expected in (("keep", found), ("drop", ~found)):
    for cache_dir in (None, str(tmp_path)):
      dataset = shapes({**shift, "mode": mode}, cache_dir=cache_dir)
      dataset.build_cache()
      np.testing.assert_array_equal(
        whole(dataset)["image"], plain["image"][expected]
      )
  # Each selection has a cache of its own.
  assert len(list(tmp_path.iterdir())) == 2
  kept = shapes({"name": "held_out", "factors": {"shape": 2}})
  is_there = ((shape[..., 0] == 2) & visible).any(axis=1)
  np.testing.assert_array_equal(whole(kept)["image"], plain["image"][is_there])


# --- Unshifted scenes ---------------------------------------------------------


@pytest.mark.parametrize("shift", ["object_color", "more_objects"])
def test_unshifted_scenes_are_those_without_the_shift(shift):
  dataset = shapes(shift, max_num_objects=2).unshifted()
  np.testing.assert_equal(whole(dataset), whole(shapes(max_num_objects=2)))
  assert dataset.unshifted() is dataset


def test_what_is_held_out_departs_from_the_scenes_without(plain):
  shift = {"name": "held_out", "factors": {"shape": 2}}
  unshifted = shapes(shift).unshifted()
  dropped = shapes({**shift, "mode": "drop"})
  np.testing.assert_equal(whole(unshifted), whole(dropped))
  assert len(whole(unshifted)["image"]) < NUM_SCENES
  assert dropped.unshifted() is dropped


def test_scenes_before_those_of_another_dataset(plain):
  counts = plain["visibility"][:, 1:].sum(axis=1)
  others = shapes(skip=20)
  # The same scenes, some of them, and none of them.
  assert shapes("crop").num_before(others, most=100) == 20
  assert shapes("crop").num_before(others, most=7) == 7
  fewer = shapes("crop", max_num_objects=1)
  assert fewer.num_before(others, most=100) == (counts[:20] <= 1).sum()
  more = shapes("more_objects", max_num_objects=1)
  others = shapes(max_num_objects=1, skip=2)
  assert more.num_before(others, most=100) == (counts > 1).sum()


# --- What all have in common --------------------------------------------------

CHANGES = [
  "occlusion",
  "object_color",
  {"name": "object_style", "style_path": "other"},
]


def assert_are_scenes(batch, scenes, numbers):
  """Whether a batch holds those of all scenes that have these numbers."""
  tf.nest.map_structure(
    lambda found, all_: np.testing.assert_array_equal(found, all_[numbers]),
    batch,
    scenes,
  )


@pytest.mark.parametrize("shift", CHANGES)
@pytest.mark.parametrize("is_cached", [False, True])
def test_a_scene_is_shifted_alike_in_any_order(
  shift, is_cached, tmp_path, monkeypatch
):
  monkeypatch.setattr(scene_cache, "_MAX_SCENES_PER_FILE", 7)
  expected = whole(shapes(shift))
  # Colours tell which scene it is.
  colors = expected["factors"]["color"]
  ids = {tuple(color.ravel()): i for i, color in enumerate(colors)}
  options = {"seed": 6, "shuffle_buffer": 10, "batch_size": 8, "skip": 3}
  if is_cached:
    options["cache_dir"] = str(tmp_path)
  dataset = shapes(shift, **options)
  assert dataset("train").element_spec == dataset.batch_spec()
  order = []
  for batch in dataset("train").take(9):
    batch = tf.nest.map_structure(lambda x: x.numpy(), batch)
    places = [ids[tuple(c.ravel())] for c in batch["factors"]["color"]]
    order += places
    assert_are_scenes(batch, expected, places)
  assert set(order) == set(range(3, NUM_SCENES))
  assert order != sorted(order)
  part = shapes(shift, **{**options, "batch_size": 3, "take": 5})
  assert_are_scenes(whole(part), expected, slice(3, 8))


def test_the_shifts_seed_decides_and_no_other():
  first = whole(shapes("occlusion"))["image"]
  other_order = whole(shapes("occlusion", seed=9))["image"]
  np.testing.assert_array_equal(first, other_order)
  other = whole(shapes({"name": "occlusion", "seed": 1}))["image"]
  assert (first != other).any(axis=(1, 2, 3, 4)).mean() > 0.5


def test_the_cache_holds_scenes_before_the_shift(tmp_path):
  shapes(cache_dir=str(tmp_path)).build_cache()
  shifted = shapes("occlusion", cache_dir=str(tmp_path))
  shifted.build_cache()
  assert len(list(tmp_path.iterdir())) == 1
  np.testing.assert_array_equal(
    whole(shifted)["image"], whole(shapes("occlusion"))["image"]
  )
  styled = {"name": "object_style", "style_path": "other"}
  shapes(styled, cache_dir=str(tmp_path)).build_cache()
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("shift", ["occlusion", "object_color"])
def test_masks_of_the_stored_size_are_shifted_too(shift):
  small = {"image_dim": (6, 5)}
  shifted = whole(shapes(shift, **small).with_stored_masks())
  resized = whole(shapes(shift, **small))
  np.testing.assert_array_equal(shifted["image"], resized["image"])
  assert shifted["mask"].shape[3:5] == (12, 15)
  np.testing.assert_array_equal(shifted["mask"].sum(axis=2), 1)
  # Nearest neighbours of them are the masks of the images.
  rows, columns = np.arange(6) * 12 // 6, np.arange(5) * 15 // 5
  few = shifted["mask"][:, :, :, rows][..., columns, :]
  np.testing.assert_array_equal(few, resized["mask"])


def test_videos_without_masks_can_be_covered_and_cropped():
  for shift in ("occlusion", "crop"):
    clips = Clips(batch_size=5, image_dim=(8, 10), shift=shift)
    (batch,) = clips("eval")
    assert set(batch) == {"image"}
    is_gray = (batch["image"] == 0.5).numpy()
    # The same place in every frame.
    assert (is_gray == is_gray[:, :1]).all()
    assert is_gray.sum() == (5 * 3 * 3 * 4 * 3 if shift == "occlusion" else 0)


def test_continuing_needs_the_same_style():
  dataset = shapes({"name": "object_style", "style_path": "other"})
  assert dataset.files_read() == ["own", "other"]
  assert shapes("crop").files_read() == ["own"]


# --- Mistakes -----------------------------------------------------------------


@pytest.mark.parametrize(
  ("shift", "message"),
  [
    ("oclusion", "no such shift. Did you mean 'occlusion'"),
    (4, "shift=4: no such shift"),
    (["crop"], "no such shift"),
    ({"size": 0.4}, "name is missing"),
    ({"name": "occlusion", "sise": 1}, "Did you mean 'size'"),
    ({"name": "occlusion", "size": 0}, "size=0: expected a number above 0"),
    ({"name": "occlusion", "size": "x"}, "size='x': is text"),
    ({"name": "occlusion", "gray": 1.5}, r"expected a number in \[0, 1\]"),
    ({"name": "occlusion", "num_places": 0}, "num_places=0: expected"),
    ({"name": "occlusion", "seed": -1}, "seed=-1: expected"),
    ({"name": "crop", "zoom": 1}, "zoom=1: expected a number above 1"),
    ({"name": "object_color", "strength": 0.6}, "strength=0.6: expected"),
    ("object_style", "shift=object_style, style_path: is missing"),
    ({"name": "object_style", "style_path": 3}, "style_path=3: is a number"),
    ("object_shape", "scenes of MultiDSprites alone"),
    ("more_objects", "Set max_num_objects"),
    ("held_out", "shift=held_out, factors: is missing"),
    ({"name": "held_out", "factors": {}}, "factors={}: expected factors"),
    ({"name": "held_out", "factors": {"a": "b"}}, "factors.a='b': is text"),
    (
      {"name": "held_out", "factors": {"shape": 1}, "mode": "kep"},
      "mode='kep': no such value. Did you mean 'keep'",
    ),
  ],
)
def test_wrong_shifts_are_one_clear_error(shift, message):
  with pytest.raises(ValueError, match=f"Shapes: .*{message}"):
    shapes(shift)


@pytest.mark.parametrize(
  ("dataset", "message"),
  [
    (
      lambda: Clips(batch_size=2, image_dim=(4, 5), shift="object_color"),
      "shift=object_color: needs masks",
    ),
    (
      lambda: shapes({"name": "held_out", "factors": {"colour": 3}}),
      "factors.colour=3: no such factor. Did you mean 'color'",
    ),
    (
      lambda: shapes({"name": "held_out", "factors": {"color": 3}}),
      "factors.color=3: expected a list of 3 numbers",
    ),
    (
      lambda: shapes("more_objects", max_num_objects=3),
      r"no scene left with min_num_objects=4.*shift=more_objects",
    ),
    (
      lambda: shapes({"name": "object_style", "style_path": "missing"}),
      "style_path='missing': there is no such file",
    ),
    (
      lambda: shapes({"name": "object_style", "style_path": "short"}),
      "style_path='short': has fewer scenes than the data",
    ),
    (
      lambda: Blobs(
        batch_size=2,
        image_dim=(4, 5),
        shift={"name": "object_style", "style_path": "a"},
      ),
      "has no path",
    ),
  ],
)
def test_shifts_that_do_not_fit_the_data(dataset, message):
  dataset = dataset()
  with (
    pytest.raises(ValueError, match=message),
    opening.data_errors_as_config_errors(dataset),
  ):
    whole(dataset)


def test_a_triangle_needs_whole_images(sprites_path):
  with pytest.raises(ValueError, match="leave out crop_region="):
    datasets.MultiDSprites(
      sprites_path["colored_on_grayscale"],
      batch_size=2,
      crop_region=((0, 32), (0, 32)),
      shift="object_shape",
    )


def test_a_shift_tells_its_options():
  assert str(shifts.resolve("crop")) == "crop"
  shift = shifts.resolve({"name": "held_out", "factors": {"shape": 1}})
  assert str(shift) == "held_out (factors={'shape': 1})"
  assert shifts.resolve(shift) is shift
