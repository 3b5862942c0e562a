"""Simple solids and where rays meet them, in NumPy.

World coordinates have z upwards. Arrays of points and of directions have their
three coordinates first and are float32.

Dimensions: N points or rays.
"""

import math
from typing import NamedTuple

import numpy as np

__all__ = [
  "SHAPES",
  "Solid",
  "dot",
  "intersect",
  "normals_at",
  "reflect",
  "to_unit_length",
]

# Solids of size 1 lie within |x|, |y|, |z| <= 1, and a capsule, whose radius is
# 0.5, within half of that sideways. By shape: radius of the enclosing sphere.
SHAPES = {
  "sphere": 1.0,
  "cube": math.sqrt(3),
  "cylinder": math.sqrt(2),
  "capsule": 1.0,
}
# How far the edges of cubes and cylinders look rounded, for size 1.
_BEVEL = 0.18

_TINY = np.float32(1e-12)


class Solid(NamedTuple):
  """A solid that stands upright.

  Attributes:
    shape: One of `SHAPES`.
    center: [3] float32.
    size: Half of its height.
    angle: Rotation about the vertical through its centre, in radians.
  """

  shape: str
  center: np.ndarray
  size: float
  angle: float = 0.0

  @property
  def radius(self) -> float:
    """Radius of the sphere about the centre that encloses the solid."""
    return self.size * SHAPES[self.shape]

  def to_local(self, vectors: np.ndarray) -> np.ndarray:
    """Turns and scales vectors [3, N] as if the solid were in unit pose."""
    cos, sin = (
      math.cos(self.angle) / self.size,
      math.sin(self.angle) / self.size,
    )
    x, y, z = vectors
    return np.stack([cos * x + sin * y, cos * y - sin * x, z / self.size])

  def to_world(self, vectors: np.ndarray) -> np.ndarray:
    """Turns vectors [3, N] back, without scaling them."""
    cos, sin = math.cos(self.angle), math.sin(self.angle)
    x, y, z = vectors
    return np.stack([cos * x - sin * y, cos * y + sin * x, z])


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Inner products over the first axis, of [D], [D, 1] or [D, N]."""
  total = a[0] * b[0]
  for x, y in zip(a[1:], b[1:], strict=True):
    total += x * y
  return total


def to_unit_length(vectors: np.ndarray) -> np.ndarray:
  """Scales vectors [3, N] to length 1."""
  return vectors / np.sqrt(dot(vectors, vectors) + _TINY)


def reflect(directions: np.ndarray, normals: np.ndarray) -> np.ndarray:
  """Mirrors directions [3, N] at planes with unit normals [3, N]."""
  return directions - 2 * dot(directions, normals) * normals


def intersect(
  solid: Solid, origins: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Where rays enter and leave a solid.

  Args:
    solid: The solid.
    origins: [3, N] or [3, 1] float32.
    directions: [3, N] float32, of any length.

  Returns:
    [N] float32 each, parameters `t` of the points `origin + t * direction`. The
    line meets the solid where the first is at most the second; elsewhere the
    second is the smaller, the farther away the line passes.
  """
  o = solid.to_local(origins - solid.center[:, None])
  d = solid.to_local(directions)
  if solid.shape == "sphere":
    return _ball(o, d, 1.0)
  if solid.shape == "cube":
    spans = [_slab(o[axis], d[axis], 1.0) for axis in range(3)]
    return _common(*spans)
  if solid.shape == "cylinder":
    return _common(_ball(o[:2], d[:2], 1.0), _slab(o[2], d[2], 1.0))
  return _capsule(o, d)


def _ball(
  o: np.ndarray, d: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
  """Within `radius` of the origin, in as many dimensions as there are."""
  a, b = dot(d, d) + _TINY, dot(o, d)
  discriminant = b * b - a * (dot(o, o) - radius**2)
  root = np.copysign(np.sqrt(np.abs(discriminant)), discriminant)
  return (-b - root) / a, (root - b) / a


def _slab(
  o: np.ndarray, d: np.ndarray, extent: float
) -> tuple[np.ndarray, np.ndarray]:
  """Within `extent` of the origin along one axis."""
  inverse = 1 / np.where(d == 0, _TINY, d)
  middle, reach = -o * inverse, extent * np.abs(inverse)
  return middle - reach, middle + reach


def _common(
  *spans: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
  """What several spans of a ray have in common."""
  enter, leave = spans[0]
  for other_enter, other_leave in spans[1:]:
    enter = np.maximum(enter, other_enter)
    leave = np.minimum(leave, other_leave)
  return enter, leave


def _capsule(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """A cylinder of radius and height 1/2 between two balls: their union."""
  shift = np.array([[0], [0], [0.5]], np.float32)
  spans = [
    _common(_ball(o[:2], d[:2], 0.5), _slab(o[2], d[2], 0.5)),
    _ball(o - shift, d, 0.5),
    _ball(o + shift, d, 0.5),
  ]
  enter, leave = (np.stack(ends) for ends in zip(*spans, strict=True))
  hit = enter <= leave
  # Where the line meets none of them, that which it passes most closely.
  nearest = (leave - enter).argmax(axis=0)[None]
  # It is convex, so there is no gap between the spans.
  return (
    np.minimum(
      np.take_along_axis(enter, nearest, axis=0)[0],
      np.where(hit, enter, np.inf).min(axis=0),
    ),
    np.maximum(
      np.take_along_axis(leave, nearest, axis=0)[0],
      np.where(hit, leave, -np.inf).max(axis=0),
    ),
  )


def normals_at(solid: Solid, points: np.ndarray) -> np.ndarray:
  """Outward unit normals, as if the edges were rounded.

  Args:
    solid: The solid.
    points: [3, N] float32, on its surface.

  Returns:
    [3, N] float32.
  """
  local = solid.to_local(points - solid.center[:, None])
  if solid.shape == "capsule":
    local[2] -= np.clip(local[2], -0.5, 0.5)
  elif solid.shape == "cube":
    local = _beyond_edge(local)
  elif solid.shape == "cylinder":
    radius = np.sqrt(dot(local[:2], local[:2]) + _TINY)
    local[:2] *= _beyond_edge(radius) / radius
    local[2] = _beyond_edge(local[2])
  return solid.to_world(to_unit_length(local))


def _beyond_edge(values: np.ndarray) -> np.ndarray:
  """How far coordinates lie in the rounded part of a solid of size 1."""
  return values - np.clip(values, _BEVEL - 1, 1 - _BEVEL)
