"""Simple solids and their intersections with rays, in NumPy.

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

# Radius of the enclosing sphere by shape. Solids of size 1 are within
# |x|, |y|, |z| <= 1; a capsule, whose radius is 0.5, is half as wide.
SHAPES = {
  "sphere": 1.0,
  "cube": math.sqrt(3),
  "cylinder": math.sqrt(2),
  "capsule": 1.0,
}
# Width of the rounded edges of cubes and cylinders of size 1.
_BEVEL = 0.18

_TINY = np.float32(1e-12)


class Solid(NamedTuple):
  """An upright solid.

  Attributes:
    shape: one of `SHAPES`.
    center: [3] float32.
    size: half the height of the solid.
    angle: rotation about the vertical through its centre, in radians.
  """

  shape: str
  center: np.ndarray
  size: float
  angle: float = 0.0

  @property
  def radius(self) -> float:
    """Radius of the enclosing sphere around the centre."""
    return self.size * SHAPES[self.shape]

  def to_local(self, vectors: np.ndarray) -> np.ndarray:
    """Rotates and scales vectors [3, N] to the frame of the unit solid."""
    cos, sin = (
      math.cos(self.angle) / self.size,
      math.sin(self.angle) / self.size,
    )
    x, y, z = vectors
    return np.stack([cos * x + sin * y, cos * y - sin * x, z / self.size])

  def to_world(self, vectors: np.ndarray) -> np.ndarray:
    """Rotates vectors [3, N] back, without scaling."""
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
  """Computes where rays enter and leave a solid.

  Args:
    solid: the solid.
    origins: [3, N] or [3, 1] float32.
    directions: [3, N] float32, of any length.

  Returns:
    [N] float32 each, parameters `t` of the points `origin + t * direction`. The
    line meets the solid if enter <= leave; otherwise, the gap between the two
    grows with the distance at which the line passes.
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
  """Span of a ray within `radius` of the origin, in any dimension."""
  a, b = dot(d, d) + _TINY, dot(o, d)
  discriminant = b * b - a * (dot(o, o) - radius**2)
  root = np.copysign(np.sqrt(np.abs(discriminant)), discriminant)
  return (-b - root) / a, (root - b) / a


def _slab(
  o: np.ndarray, d: np.ndarray, extent: float
) -> tuple[np.ndarray, np.ndarray]:
  """Span of a ray within `extent` of the origin along one axis."""
  inverse = 1 / np.where(d == 0, _TINY, d)
  middle, reach = -o * inverse, extent * np.abs(inverse)
  return middle - reach, middle + reach


def _common(
  *spans: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
  """Intersection of several spans of a ray."""
  enter, leave = spans[0]
  for other_enter, other_leave in spans[1:]:
    enter = np.maximum(enter, other_enter)
    leave = np.minimum(leave, other_leave)
  return enter, leave


def _capsule(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Union of a cylinder of radius and half height 1/2 and two balls."""
  shift = np.array([[0], [0], [0.5]], np.float32)
  spans = [
    _common(_ball(o[:2], d[:2], 0.5), _slab(o[2], d[2], 0.5)),
    _ball(o - shift, d, 0.5),
    _ball(o + shift, d, 0.5),
  ]
  enter, leave = (np.stack(ends) for ends in zip(*spans, strict=True))
  hit = enter <= leave
  # If the line meets none of them, use the one it passes most closely.
  nearest = (leave - enter).argmax(axis=0)[None]
  # The union is convex, so there is no gap between the spans.
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
  """Returns outward unit normals, as if the edges were rounded.

  Args:
    solid: the solid.
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
  """How far coordinates are into the rounded part of a solid of size 1."""
  return values - np.clip(values, _BEVEL - 1, 1 - _BEVEL)
