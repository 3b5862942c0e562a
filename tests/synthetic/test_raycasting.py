"""Tests of iodine.synthetic.raycasting and iodine.synthetic.solids."""

import math

import numpy as np
import pytest

from iodine.synthetic import raycasting
from iodine.synthetic.raycasting import Lamp
from iodine.synthetic.solids import (
  SHAPES,
  Solid,
  intersect,
  normals_at,
  reflect,
  to_unit_length,
)

_SHAPES = sorted(SHAPES)
# Half of the width at half height, for size 1.
_HALF_WIDTHS = {"sphere": 1, "cube": 1, "cylinder": 1, "capsule": 0.5}


def _vector(*values):
  return np.array(values, np.float32)


def _solid(shape, center=(0.5, -0.25, 0.75), size=0.6, angle=0.4):
  return Solid(shape, _vector(*center), size, angle)


def _contains(solid, points):
  """Whether points [3, N] lie in a solid, from the shapes' definitions."""
  turn = np.array(
    [
      [math.cos(solid.angle), math.sin(solid.angle), 0],
      [-math.sin(solid.angle), math.cos(solid.angle), 0],
      [0, 0, 1],
    ]
  )
  x, y, z = turn @ (points - solid.center[:, None]) / solid.size
  return {
    "sphere": np.sqrt(x**2 + y**2 + z**2) <= 1,
    "cube": np.max(np.abs([x, y, z]), axis=0) <= 1,
    "cylinder": (np.hypot(x, y) <= 1) & (np.abs(z) <= 1),
    "capsule": np.sqrt(x**2 + y**2 + np.maximum(np.abs(z) - 0.5, 0) ** 2)
    <= 0.5,
  }[solid.shape]


def _camera(position=(4.0, -3.0, 2.5), size=(31, 47)):
  return raycasting.look_at(np.array(position), np.zeros(3), 40.0, size)


def _scattered_solids(rng, number=9):
  """Solids all around a camera at (4, -3, 2.5), overlapping ones included."""
  return [
    Solid(
      _SHAPES[i % len(_SHAPES)],
      rng.uniform(-5, 5, 3).astype(np.float32),
      float(rng.uniform(0.2, 1.4)),
      float(rng.uniform(0, 7)),
    )
    for i in range(number)
  ]


def _lamp(position=(1.0, 2.0, 6.0), radius=0.0):
  position = np.array(position)
  return Lamp(
    position.astype(np.float32),
    (-position / np.linalg.norm(position)).astype(np.float32),
    _vector(1, 2, 4),
    radius,
  )


class TestIntersect:
  @pytest.mark.parametrize("shape", _SHAPES)
  def test_straight_lines(self, shape):
    solid = _solid(shape, angle=0.0)
    half = 0.6 * _HALF_WIDTHS[shape]
    origins = np.stack([solid.center + o for o in ([-5, 0, 0], [0, 0, 9])], 1)
    enter, leave = intersect(
      solid, origins, _vector(1, 0, 0, 0, 0, -1).reshape(2, 3).T
    )
    # float32: some units in the last place of 9.
    np.testing.assert_allclose(enter, [5 - half, 9 - 0.6], rtol=1e-5)
    np.testing.assert_allclose(leave, [5 + half, 9 + 0.6], rtol=1e-5)

  @pytest.mark.parametrize("shape", _SHAPES)
  def test_agrees_with_walking_along_the_rays(self, shape):
    solid = _solid(shape)
    rng = np.random.default_rng(3)
    origins = (
      solid.center[:, None] + 3 * to_unit_length(rng.normal(size=(3, 300)))
    ).astype(np.float32)
    aim = solid.center[:, None] + rng.uniform(-0.7, 0.7, (3, 300))
    directions = ((aim - origins) / 2).astype(np.float32)
    enter, leave = intersect(solid, origins, directions)
    assert enter.dtype == leave.dtype == np.float32

    steps = np.linspace(0, 4, 2001)
    inside = np.stack(
      [_contains(solid, origins + t * directions) for t in steps]
    )
    met = inside.any(axis=0)
    assert 50 < met.sum() < 300
    first = steps[inside.argmax(axis=0)]
    last = steps[len(steps) - 1 - inside[::-1].argmax(axis=0)]
    # The walk finds a point at most one step late, and none on short chords.
    np.testing.assert_allclose(enter[met], first[met], atol=0.0021)
    np.testing.assert_allclose(leave[met], last[met], atol=0.0021)
    assert ((leave - enter)[~met] < 0.0021).all()

  @pytest.mark.parametrize("shape", _SHAPES)
  def test_the_farther_away_the_smaller(self, shape):
    solid = _solid(shape, angle=0.0)
    heights = np.linspace(0.7, 3, 8)
    origins = solid.center[:, None] + np.stack(
      [np.full(8, -5.0), np.full(8, 0.1), heights]
    )
    along_x = np.tile(_vector(1, 0, 0.1)[:, None], 8)
    enter, leave = intersect(solid, origins.astype(np.float32), along_x)
    overlap = (leave - enter)[heights > 1.3]
    assert (overlap < 0).all() and np.isfinite(overlap).all()
    assert (np.diff(overlap) < 0).all()


class TestNormals:
  @pytest.mark.parametrize("shape", _SHAPES)
  def test_middles_of_faces(self, shape):
    solid = _solid(shape)
    side = _vector(math.cos(0.4), math.sin(0.4), 0)
    top = _vector(0, 0, 1)
    width = 0.6 * _HALF_WIDTHS[shape]
    points = solid.center + np.stack([width * side, -width * side, 0.6 * top])
    np.testing.assert_allclose(
      normals_at(solid, points.T).T, [side, -side, top], atol=1e-6
    )

  @pytest.mark.parametrize("shape", ["cube", "cylinder"])
  def test_faces_are_flat(self, shape):
    solid = _solid(shape, angle=0.0)
    points = solid.center + 0.6 * np.array(
      [[0.6, 0.3, 1], [1, 0, 0.7], [0.4, -0.5, -1]]
    )
    np.testing.assert_allclose(
      normals_at(solid, points.T.astype(np.float32)).T,
      [[0, 0, 1], [1, 0, 0], [0, 0, -1]],
      atol=1e-5,
    )

  @pytest.mark.parametrize("shape", ["sphere", "capsule"])
  def test_smooth_solids_have_their_gradient(self, shape):
    solid = _solid(shape)
    rng = np.random.default_rng(4)
    way = to_unit_length(rng.normal(size=(3, 40))).astype(np.float32)
    origin = (solid.center[:, None] + 5 * way).astype(np.float32)
    enter, _ = intersect(solid, origin, -way)
    points = origin - enter * way
    offset = points - solid.center[:, None]
    if shape == "capsule":
      offset[2] -= np.clip(offset[2], -0.3, 0.3)
    np.testing.assert_allclose(
      normals_at(solid, points), to_unit_length(offset), atol=1e-4
    )

  def test_edges_are_rounded(self):
    cube = _solid("cube", angle=0.0)
    edge = cube.center + 0.6 * _vector(1, 0, 1)
    corner = cube.center + 0.6 * _vector(-1, 1, 1)
    np.testing.assert_allclose(
      normals_at(cube, np.stack([edge, corner], axis=1)).T,
      [_vector(1, 0, 1) / 2**0.5, _vector(-1, 1, 1) / 3**0.5],
      atol=1e-6,
    )

  def test_reflection(self):
    normal = to_unit_length(_vector(0, 1, 1)[:, None])
    np.testing.assert_allclose(
      reflect(_vector(2, 0, -3)[:, None], normal)[:, 0], [2, 3, 0], atol=1e-6
    )


class TestCamera:
  def test_known_projection(self):
    camera = raycasting.look_at(
      np.array([0.0, -10.0, 0.0]), np.zeros(3), 100.0, (60, 80)
    )
    points = np.array([[0, 0, 0], [1, 0, 2], [-2, 10, 0]], np.float32).T
    rows, columns, depth = camera.project(points)
    np.testing.assert_allclose(columns, [40, 50, 30], atol=1e-4)
    np.testing.assert_allclose(rows, [30, 10, 30], atol=1e-4)
    np.testing.assert_allclose(depth, [10, 10, 20], rtol=1e-6)

  def test_rays_lead_back_to_the_pixels(self):
    camera = _camera()
    rows, columns = raycasting.pixel_centers((31, 47))
    assert rows[0] == columns[0] == 0.5 and len(rows) == 31 * 47
    points = camera.position[:, None] + 7 * camera.directions(rows, columns)
    back = camera.project(points)
    # float32 at coordinates of 10 and 47 pixels.
    for actual, expected in zip(back, (rows, columns, 7), strict=True):
      np.testing.assert_allclose(actual, expected, atol=1e-3)


class TestTrace:
  @pytest.mark.parametrize("seed", range(6))
  def test_agrees_with_testing_every_ray(self, seed):
    """Also of solids beside, behind and around the camera."""
    solids = _scattered_solids(np.random.default_rng(seed))
    camera = _camera()
    samples = raycasting.pixel_centers(camera.image_size)
    seen = raycasting.trace(camera, solids, *samples)

    depth = []
    for solid in solids:
      enter, leave = intersect(
        solid, camera.position[:, None], camera.directions(*samples)
      )
      depth.append(np.where((enter <= leave) & (enter > 0), enter, np.inf))
    nearest = np.min(depth, axis=0)
    expected = np.where(np.isinf(nearest), -1, np.argmin(depth, axis=0))
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(seen.owner, expected)
    np.testing.assert_array_equal(seen.depth, nearest)
    np.testing.assert_array_equal(
      raycasting.visible_pixels(camera, solids),
      [(expected == i).sum() for i in range(len(solids))],
    )

  def test_samples_in_any_number(self):
    solids = _scattered_solids(np.random.default_rng(1))
    camera = _camera()
    rows, columns = raycasting.pixel_centers(camera.image_size)
    every = raycasting.trace(camera, solids, rows, columns)
    some = np.flatnonzero(np.random.default_rng(2).uniform(size=31 * 47) < 0.2)
    part = raycasting.trace(camera, solids, rows[some], columns[some])
    np.testing.assert_array_equal(part.owner, every.owner[some])
    np.testing.assert_array_equal(part.depth, every.depth[some])


def _blocked(solid, points, lamp):
  """Whether the way from points to a lamp leads through a solid."""
  way = lamp.position[:, None] - points
  return np.any(
    [_contains(solid, points + t * way) for t in np.linspace(0, 1, 801)], axis=0
  )


class TestLight:
  @pytest.mark.parametrize("position", [(1.0, 2.0, 6.0), (3.0, 1.5, 2.2)])
  @pytest.mark.parametrize("shape", _SHAPES)
  def test_shadow_on_the_floor(self, shape, position):
    camera, lamp = _camera(), _lamp(position)
    solid = Solid(shape, _vector(0.3, -0.4, 0.6), 0.6, 0.5)
    rows, columns = raycasting.pixel_centers(camera.image_size)
    floor = camera.directions(rows, columns)[2] < -0.1
    rows, columns = rows[floor], columns[floor]
    directions = camera.directions(rows, columns)
    points = camera.position[:, None] - directions * (2.5 / directions[2])
    visibility = raycasting.floor_visibility(
      camera, [solid], lamp, points, rows, columns
    )
    dark = _blocked(solid, points, lamp)
    # All but the rim, which is a little soft.
    rim = [
      _blocked(solid._replace(size=size), points, lamp) for size in (0.52, 0.68)
    ]
    sure = rim[0] == rim[1]
    assert 10 < dark[sure].sum() < 0.5 * len(dark)
    assert (visibility[dark & sure] < 0.2).all()
    assert (visibility[~dark & sure] > 0.8).all()

  def test_large_lamps_make_soft_shadows(self):
    camera = _camera()
    solid = _solid("sphere", center=(0, 0, 0.6))
    rows, columns = raycasting.pixel_centers(camera.image_size)
    directions = camera.directions(rows, columns)
    below = directions[2] < -0.1
    rows, columns, directions = (
      rows[below],
      columns[below],
      directions[:, below],
    )
    points = camera.position[:, None] - directions * (2.5 / directions[2])
    soft = []
    for radius in (0.0, 0.5):
      visibility = raycasting.floor_visibility(
        camera, [solid], _lamp(radius=radius), points, rows, columns
      )
      assert visibility.min() < 0.05 and visibility.max() == 1
      soft.append(((visibility > 0.05) & (visibility < 0.95)).sum())
    assert soft[1] > 3 * soft[0]

  def test_shadow_on_a_solid(self):
    lamp = _lamp((0.0, 0.0, 8.0))
    low = _solid("cube", (0, 0, 0.5), 0.5, 0.0)
    high = _solid("sphere", (0, 0, 3), 0.2)
    far = _solid("sphere", (3, 0, 0.5), 0.5)
    beyond = _solid("sphere", (0, 0, 9.2), 0.5)
    points = np.array([[0, 0, 1], [0.45, 0.45, 1]], np.float32).T
    visibility = raycasting.solid_visibility(
      [far, low, high], low, lamp, points
    )
    np.testing.assert_allclose(visibility, [0, 1], atol=0.01)
    alone = raycasting.solid_visibility([low, far, beyond], low, lamp, points)
    np.testing.assert_array_equal(alone, [1, 1])

  def test_irradiance(self):
    lamp = _lamp((0.0, 0.0, 5.0))
    up = np.array([[0], [0], [1]], np.float32)
    points = np.array([[0, 0, 0], [5, 0, 0], [0, 0, 4]], np.float32).T
    light = raycasting.irradiance(points, up, lamp)
    # Inverse square, and two cosines of 45 degrees.
    expected = np.array([1 / 25, 0.5 / 50, 1])
    np.testing.assert_allclose(
      light, [expected, 2 * expected, 4 * expected], rtol=1e-5
    )
    assert not raycasting.irradiance(points, -up, lamp).any()

  def test_highlight_is_where_the_lamp_is_mirrored(self):
    lamp = _lamp((3.0, 0.0, 3.0))
    points = np.zeros([3, 91], np.float32)
    up = np.array([[0], [0], [1]], np.float32)
    angle = np.radians(np.arange(-90, 1))  # Of the viewer, from the vertical.
    view = np.stack([np.sin(angle), 0 * angle, np.cos(angle)])
    rough, polished = (
      raycasting.highlight(
        points, np.tile(up, 91), view.astype(np.float32), lamp, ((1.0, alpha),)
      )[0]
      for alpha in (0.3, 0.1)
    )
    assert abs(int(polished.argmax()) - 45) <= 1
    assert polished[45] > 5 * rough[45] > 0
    assert polished[70] < rough[70]
    behind = raycasting.highlight(
      points, np.tile(-up, 91), view.astype(np.float32), lamp, ((1.0, 0.3),)
    )
    assert not behind.any()


class TestRender:
  def test_edges_are_smooth_and_masks_are_not(self):
    """A black half-plane, its edge at a quarter of a pixel's width."""

    def shade(rows, columns):
      assert (np.diff(rows) >= 0).all()
      owner = (columns > 5.25).astype(np.int8)
      return owner, np.tile(owner.astype(np.float32), (3, 1))

    owner, image = raycasting.render(shade, (4, 9), 0.1)
    expected = np.tile((np.arange(9) >= 5).astype(float), (4, 1))
    np.testing.assert_array_equal(owner, expected)
    expected[:, 5] = 0.75
    np.testing.assert_array_equal(image, np.tile(expected, (3, 1, 1)))

  def test_smooths_what_differs_in_colour(self):
    def shade(rows, columns):
      value = np.where(rows > 2.5, 1, 0.9) * (columns > 0)
      return np.zeros(len(rows), int), np.tile(value, (3, 1))

    for contrast, middle in ((0.05, 0.95), (0.2, 0.9)):
      _, image = raycasting.render(shade, (5, 3), contrast)
      np.testing.assert_allclose(
        image[0, :, 1], [0.9, 0.9, middle, 1, 1], atol=1e-6
      )
