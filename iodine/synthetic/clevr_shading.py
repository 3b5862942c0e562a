"""Light and materials of the CLEVR scenes.

Lamps and their jitter match the original generator,
facebookresearch/clevr-dataset-gen: `base_scene.blend` and `render_images.py`.
Blender traces all indirect light; this models the lamps, with shadows and
highlights, light reflected by the floor, and reflections in metal. Light is
linear RGB; the picture is encoded as sRGB.

Dimensions: S solids, N samples of a picture, H, W its height and width.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iodine.synthetic import raycasting
from iodine.synthetic.raycasting import Camera, Lamp
from iodine.synthetic.solids import (
  Solid,
  dot,
  intersect,
  normals_at,
  reflect,
  to_unit_length,
)

__all__ = ["draw", "sample_lamps"]

_LAMP_JITTER = 1.0
# The area lamps, all aimed at the origin: position, colour, watts, radius. In
# Blender, a lamp of P watts causes the irradiance P / 4 at distance 1.
_AREA_LAMPS = (
  ((6.4467, -2.9052, 4.2584), (1.0, 0.9323, 0.8167), 100, 0.28),
  ((-4.6711, -4.0136, 3.0112), (0.7617, 0.8177, 1.0), 30, 0.28),
  ((-1.1685, 2.6460, 5.8157), (1.0, 1.0, 1.0), 50, 0.56),
)
# The sun is a distant lamp.
_SUN_DIRECTION = np.array([0.4145, -0.1946, 0.8890])
_SUN_DISTANCE = 1000.0
_SUN_IRRADIANCE = 0.45
_SUN_TANGENT = 0.1

_UP = np.array([[0], [0], [1]], np.float32)
_FLOOR_ALBEDO = 0.8
# Share of the floor's light that is reflected by surrounding objects.
_FLOOR_AMBIENT = 0.15
# Between these distances from the origin, the floor bends upwards behind the
# scene, so that it does not darken further.
_BACKDROP_DIRECTION = np.array([[-0.9032], [0.4292], [0.0]], np.float32)
_BACKDROP_SPAN = (4.0, 14.0)
_BACKDROP_RADIANCE = 0.14

# Reflectance and roughness; metal is a mixture of polished and brushed.
_RUBBER_LOBES = ((0.02, 0.35),)
_POLISHED, _BRUSHED = 0.6, 0.4
_METAL_LOBES = ((_POLISHED, 0.09), (_BRUSHED, 0.25))

# Neighbouring pixels that differ by more are antialiased.
_EDGE_CONTRAST = 0.05

# sRGB bytes by linear intensity, in steps of 1 / _STEPS.
_STEPS = 8191
_SRGB = np.linspace(0, 1, _STEPS + 1)
_SRGB = np.where(
  _SRGB < 0.0031308, 12.92 * _SRGB, 1.055 * _SRGB ** (1 / 2.4) - 0.055
)
_SRGB = np.round(255 * _SRGB).astype(np.uint8)


class _Body(NamedTuple):
  """A solid with a material; `floor_light` [3, 1] is the radiance below it."""

  solid: Solid
  albedo: np.ndarray
  is_metal: bool
  floor_light: np.ndarray


class _Scene(NamedTuple):
  """Everything in a picture."""

  camera: Camera
  lamps: Sequence[Lamp]
  solids: Sequence[Solid]
  bodies: Sequence[_Body]


def sample_lamps(rng: np.random.Generator) -> list[Lamp]:
  """Samples the three area lamps and adds the sun, which is fixed."""
  lamps = [
    (
      np.array(position) + rng.uniform(-_LAMP_JITTER, _LAMP_JITTER, 3),
      watts / 4 * np.array(color),
      radius,
    )
    for position, color, watts, radius in _AREA_LAMPS
  ]
  sun = np.full(3, _SUN_IRRADIANCE * _SUN_DISTANCE**2)
  lamps.append(
    (_SUN_DISTANCE * _SUN_DIRECTION, sun, _SUN_TANGENT * _SUN_DISTANCE)
  )
  return [
    Lamp(
      position.astype(np.float32),
      (-position / np.linalg.norm(position)).astype(np.float32),
      color.astype(np.float32),
      radius,
    )
    for position, color, radius in lamps
  ]


def draw(
  camera: Camera,
  lamps: Sequence[Lamp],
  solids: Sequence[Solid],
  albedos: np.ndarray,
  is_metal: Sequence[bool] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Renders solids on the floor.

  Args:
    camera: the camera.
    lamps: the lamps.
    solids: S solids.
    albedos: [S, 3] colours of the solids, linear RGB in [0, 1].
    is_metal: [S], whether a solid is metal, else rubber.

  Returns:
    owner: [H, W] integer, the solid at the centre of each pixel; -1: the floor.
    image: [H, W, 3] uint8, sRGB.
  """
  bodies = [
    _Body(
      solid,
      albedo[:, None].astype(np.float32),
      bool(metal),
      _floor_radiance(solid.center[:, None] * (1 - _UP), lamps),
    )
    for solid, albedo, metal in zip(solids, albedos, is_metal, strict=True)
  ]
  owner, image = raycasting.render(
    functools.partial(_shade, _Scene(camera, lamps, solids, bodies)),
    camera.image_size,
    _EDGE_CONTRAST,
  )
  steps = np.clip(image * _STEPS + 0.5, 0, _STEPS).astype(np.int16)
  return owner, _SRGB[steps].transpose(1, 2, 0)


def _shade(
  scene: _Scene, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Shades samples: owner [N], -1 for the floor, and RGB [3, N]."""
  camera = scene.camera
  owner, depth = raycasting.trace(camera, scene.solids, rows, columns)
  image = np.empty((3, len(rows)), np.float32)
  floor = np.flatnonzero(owner < 0)
  image[:, floor] = _shade_floor(scene, rows[floor], columns[floor])
  for i, body in enumerate(scene.bodies):
    seen = np.flatnonzero(owner == i)
    way = camera.directions(rows[seen], columns[seen])
    points = camera.position[:, None] + depth[seen] * way
    normals = normals_at(body.solid, points)
    shade = _shade_metal if body.is_metal else _shade_rubber
    image[:, seen] = shade(scene, body, points, normals, -to_unit_length(way))
  return owner, np.minimum(image, 1)


def _floor_radiance(
  points: np.ndarray,
  lamps: Sequence[Lamp],
  visibilities: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
  """[3, N]: radiance of the floor at points [3, N], by default unshadowed."""
  light = np.zeros_like(points)
  for i, lamp in enumerate(lamps):
    add = raycasting.irradiance(points, _UP, lamp)
    if visibilities is not None:
      add *= _FLOOR_AMBIENT + (1 - _FLOOR_AMBIENT) * visibilities[i]
    light += add
  light *= _FLOOR_ALBEDO / math.pi
  start, end = _BACKDROP_SPAN
  distance = dot(_BACKDROP_DIRECTION, points)
  bent = np.clip((distance - start) / (end - start), 0, 1)
  return light + bent * (_BACKDROP_RADIANCE - light)


def _shade_floor(
  scene: _Scene, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
  """[3, N]: RGB of samples of the floor."""
  camera = scene.camera
  directions = camera.directions(rows, columns)
  points = camera.position[:, None] - directions * (
    camera.position[2] / directions[2]
  )
  visibilities = [
    raycasting.floor_visibility(
      camera, scene.solids, lamp, points, rows, columns
    )
    for lamp in scene.lamps
  ]
  return _floor_radiance(points, scene.lamps, visibilities)


def _light_from_floor(
  body: _Body, points: np.ndarray, normals: np.ndarray
) -> np.ndarray:
  """[3, N]: irradiance from the floor, which fills half the view of a side."""
  light = body.floor_light * (math.pi / 2 * (1 - normals[2]))
  # The solid's own shadow is on the floor beside it.
  return light * (0.6 + 0.4 * np.minimum(points[2] / body.solid.size, 1))


def _shade_rubber(
  scene: _Scene,
  body: _Body,
  points: np.ndarray,
  normals: np.ndarray,
  view: np.ndarray,
) -> np.ndarray:
  """[3, N]: RGB of a body's points: matt, with a faint highlight."""
  light = _light_from_floor(body, points, normals)
  gloss = np.zeros_like(points)
  for lamp in scene.lamps:
    visibility = raycasting.solid_visibility(
      scene.solids, body.solid, lamp, points
    )
    light += visibility * raycasting.irradiance(points, normals, lamp)
    gloss += visibility * raycasting.highlight(
      points, normals, view, lamp, _RUBBER_LOBES
    )
  return light * (body.albedo / math.pi) + gloss


def _shade_metal(
  scene: _Scene,
  body: _Body,
  points: np.ndarray,
  normals: np.ndarray,
  view: np.ndarray,
) -> np.ndarray:
  """[3, N]: RGB of a body's points: a coloured mirror."""
  light = _mirrored(scene, body, points, reflect(-view, normals))
  for lamp in scene.lamps:
    visibility = raycasting.solid_visibility(
      scene.solids, body.solid, lamp, points
    )
    light += visibility * raycasting.highlight(
      points, normals, view, lamp, _METAL_LOBES
    )
  return light * body.albedo


def _mirrored(
  scene: _Scene, mirror: _Body, points: np.ndarray, way: np.ndarray
) -> np.ndarray:
  """[3, N]: RGB visible from a body's points in directions [3, N]."""
  distance = points[2] / np.maximum(-way[2], 1e-3)
  image = _floor_radiance(points + distance * way, scene.lamps)
  # The brushed part blurs the horizon.
  image *= _POLISHED * _ramp(-way[2], 0.03) + _BRUSHED * _ramp(-way[2], 0.3)
  backdrop = np.maximum(dot(_BACKDROP_DIRECTION, way), 0) * _ramp(way[2], 0.1)
  image += _BACKDROP_RADIANCE * backdrop
  nearest = np.where(way[2] < 0, distance, np.inf)
  for body in scene.bodies:
    if body is mirror:
      continue
    enter, leave = intersect(body.solid, points, way)
    hit = np.flatnonzero((enter <= leave) & (enter > 0) & (enter < nearest))
    if hit.size:
      nearest[hit] = enter[hit]
      at = points[:, hit] + enter[hit] * way[:, hit]
      normals = normals_at(body.solid, at)
      light = _light_from_floor(body, at, normals)
      for lamp in scene.lamps:
        light += raycasting.irradiance(at, normals, lamp)
      image[:, hit] = light * (body.albedo / math.pi)
  return image


def _ramp(values: np.ndarray, width: float) -> np.ndarray:
  """Rises from 0 to 1 for values from -width to width."""
  return np.clip(values / (2 * width) + 0.5, 0, 1)
