"""Ray casting of a few solids, lit by a few lamps, in NumPy.

World coordinates have z upwards. Arrays of points and of directions have their
three coordinates first and are float32. Lists of samples (image positions) are
sorted by row, so that those near a solid are found fast.

Dimensions: N samples, points or rays; H, W height and width of an image.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from iodine.synthetic.solids import Solid, dot, intersect, to_unit_length

__all__ = [
  "Camera",
  "Lamp",
  "Trace",
  "floor_visibility",
  "highlight",
  "irradiance",
  "look_at",
  "pixel_centers",
  "render",
  "solid_visibility",
  "trace",
  "visible_pixels",
]

# Extra samples of a pixel: a rotated grid, in which rows and columns differ.
_SUBSAMPLES = ((0.125, 0.625), (0.375, 0.125), (0.625, 0.875), (0.875, 0.375))
# Smallest cosine of the viewing angle; keeps highlights finite.
_GRAZING = 0.15

_CUBE_CORNERS = 2 * np.indices((2, 2, 2)).reshape(3, 8) - np.float32(1)
# Half width and height, for a solid of size 1, of a box whose shadow encloses
# the solid's shadow and penumbra.
_SHADOW_REACH, _SHADOW_HEIGHT = 1.5, 2.2


class Camera(NamedTuple):
  """A pinhole camera.

  Attributes:
    position: [3] float32.
    axes: [3, 3] float32, rows are unit vectors: right and down in the image,
      and forwards.
    focal_length: focal length in pixels.
    image_size: H, W.
  """

  position: np.ndarray
  axes: np.ndarray
  focal_length: float
  image_size: tuple[int, int]

  def directions(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns rays through image positions.

    Args:
      rows: [N] float32. A pixel's centre is at index + 0.5.
      columns: [N] float32.

    Returns:
      [3, N] float32, of length 1 along the optical axis: a ray's point at
      parameter t has depth t.
    """
    height, width = self.image_size
    right, down, forward = self.axes[:, :, None]
    return (
      forward
      + right * ((columns - width / 2) / self.focal_length)
      + down * ((rows - height / 2) / self.focal_length)
    )

  def project(
    self, points: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and positive depth, [N] each, of points [3, N]."""
    height, width = self.image_size
    x, y, depth = self.axes @ (points - self.position[:, None])
    scale = self.focal_length / depth
    return y * scale + height / 2, x * scale + width / 2, depth


class Lamp(NamedTuple):
  """A round lamp that shines forwards, most strongly along its axis.

  Attributes:
    position: [3] float32.
    axis: [3] float32, unit vector.
    color: [3] float32, irradiance at distance 1 on the axis.
    radius: radius of the lamp; larger lamps cast softer shadows.
  """

  position: np.ndarray
  axis: np.ndarray
  color: np.ndarray
  radius: float


class Trace(NamedTuple):
  """What is visible at samples.

  Attributes:
    owner: [N] int8, index of the first solid that the ray meets; -1: none.
    depth: [N] float32, its depth there; infinite if there is none.
  """

  owner: np.ndarray
  depth: np.ndarray


def look_at(
  position: np.ndarray,
  target: np.ndarray,
  focal_length: float,
  image_size: tuple[int, int],
) -> Camera:
  """Returns an upright camera at `position` [3], centred on `target` [3]."""
  forward = (target - position) / np.linalg.norm(target - position)
  right = np.cross(forward, [0, 0, 1])
  right /= np.linalg.norm(right)
  axes = np.stack([right, np.cross(forward, right), forward])
  return Camera(
    np.asarray(position, np.float32),
    axes.astype(np.float32),
    focal_length,
    image_size,
  )


@functools.cache
def pixel_centers(image_size: tuple[int, int]) -> np.ndarray:
  """[2, H * W] float32: row and column of each pixel's centre."""
  centers = np.indices(image_size).reshape(2, -1) + 0.5
  centers = centers.astype(np.float32)
  centers.flags.writeable = False  # Shared by all callers.
  return centers


def _image_span(
  across: float, depth: float, radius: float
) -> tuple[float, float]:
  """Slopes of the tangents to a disc, in the plane of one image axis."""
  distance = math.hypot(across, depth)
  if distance <= radius:
    return -math.inf, math.inf
  angle, half = math.atan2(across, depth), math.asin(radius / distance)
  low, high = angle - half, angle + half
  return (
    math.tan(low) if low > -math.pi / 2 else -math.inf,
    math.tan(high) if high < math.pi / 2 else math.inf,
  )


class _Box(NamedTuple):
  """A region of the image, in pixels."""

  top: float
  bottom: float
  left: float
  right: float


def _image_box(camera: Camera, solid: Solid) -> _Box | None:
  """The image region that contains a solid; None if it is behind the camera."""
  x, y, depth = (camera.axes @ (solid.center - camera.position)).tolist()
  if depth <= -solid.radius:
    return None
  height, width = camera.image_size
  left, right = _image_span(x, depth, solid.radius)
  top, bottom = _image_span(y, depth, solid.radius)
  scale = camera.focal_length
  return _Box(
    top * scale + height / 2,
    bottom * scale + height / 2,
    left * scale + width / 2,
    right * scale + width / 2,
  )


def _inside(box: _Box, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Indices of the samples in a box; `rows` is sorted."""
  first, last = np.searchsorted(rows, [box.top, box.bottom])
  columns = columns[first:last]
  inside = (columns >= box.left) & (columns <= box.right)
  return np.flatnonzero(inside) + first


def trace(
  camera: Camera,
  solids: Sequence[Solid],
  rows: np.ndarray,
  columns: np.ndarray,
) -> Trace:
  """Finds the visible solid at each sample.

  Args:
    camera: the camera.
    solids: at most 127 solids.
    rows: [N] float32, sorted.
    columns: [N] float32.

  Returns:
    The visible solids and their depths.
  """
  owner = np.full(len(rows), -1, np.int8)
  nearest = np.full(len(rows), np.inf, np.float32)
  origin = camera.position[:, None]
  for index, solid in enumerate(solids):
    box = _image_box(camera, solid)
    if box is None:
      continue
    near = _inside(box, rows, columns)
    directions = camera.directions(rows[near], columns[near])
    enter, leave = intersect(solid, origin, directions)
    hit = (enter <= leave) & (enter > 0) & (enter < nearest[near])
    nearest[near[hit]] = enter[hit]
    owner[near[hit]] = index
  return Trace(owner, nearest)


def visible_pixels(camera: Camera, solids: Sequence[Solid]) -> np.ndarray:
  """[number of solids]: number of pixels at whose centre each is visible."""
  owner = trace(camera, solids, *pixel_centers(camera.image_size)).owner
  return np.bincount(owner + 1, minlength=len(solids) + 1)[1:]


def _shadow(points: np.ndarray, lamp: Lamp, solid: Solid) -> np.ndarray:
  """Share of a lamp's light that a solid lets through to points [3, N]: [N].

  Rays that pass deep below the surface are dark; those that graze it are in the
  penumbra, as wide as the lamp's image through a pinhole there.
  """
  way = lamp.position[:, None] - points
  enter, leave = intersect(solid, points, way)
  length = np.sqrt(dot(way, way))
  enter = np.maximum(enter, 0)
  chord = (np.minimum(leave, 1) - enter) * length
  # Depth of the chord: below a rounded surface, and below an edge.
  depth = chord / 2
  if solid.shape != "cube":
    depth *= np.abs(chord) / (4 * solid.size)
  width = 2 * lamp.radius * enter + 0.02 * solid.size
  lit = np.clip(0.5 - depth / width, 0, 1)
  return lit * lit * (3 - 2 * lit)


def _shadow_box(camera: Camera, lamp: Lamp, solid: Solid) -> _Box:
  """The image region that contains a solid's shadow on the floor."""
  corners = solid.center[:, None] + solid.size * _SHADOW_REACH * _CUBE_CORNERS
  height = solid.center[2] + solid.size * (_SHADOW_HEIGHT - 1)
  corners[2] = np.where(_CUBE_CORNERS[2] > 0, height, 0)
  way = corners - lamp.position[:, None]
  everywhere = _Box(-math.inf, math.inf, -math.inf, math.inf)
  if way[2].max() > -1e-3:
    return everywhere
  # Where rays past the corners of an enclosing box meet the floor.
  on_floor = corners - way * (corners[2] / way[2])
  rows, columns, depth = camera.project(on_floor)
  if depth.min() <= 0:
    return everywhere
  return _Box(rows.min(), rows.max(), columns.min(), columns.max())


def floor_visibility(
  camera: Camera,
  solids: Sequence[Solid],
  lamp: Lamp,
  points: np.ndarray,
  rows: np.ndarray,
  columns: np.ndarray,
) -> np.ndarray:
  """Share of a lamp's light that reaches points on the floor, z = 0.

  Args:
    camera: the camera.
    solids: solids that may cast shadows.
    lamp: the lamp.
    points: [3, N] float32.
    rows: [N] float32, sorted; image positions of the points.
    columns: [N] float32.

  Returns:
    [N] float32 in [0, 1].
  """
  visibility = np.ones(len(rows), np.float32)
  for solid in solids:
    near = _inside(_shadow_box(camera, lamp, solid), rows, columns)
    visibility[near] *= _shadow(points[:, near], lamp, solid)
  return visibility


def solid_visibility(
  solids: Sequence[Solid], receiver: Solid, lamp: Lamp, points: np.ndarray
) -> np.ndarray:
  """Share of a lamp's light that reaches points on a solid past the others.

  Args:
    solids: solids that may cast shadows; the receiver is ignored.
    receiver: the solid that the points are on.
    lamp: the lamp.
    points: [3, N] float32.

  Returns:
    [N] float32 in [0, 1].
  """
  visibility = np.ones(points.shape[1], np.float32)
  centers = np.stack([solid.center for solid in solids], axis=1)
  reach = np.array([solid.radius for solid in solids]) + receiver.radius
  # Distances of the others from the line between the receiver and the lamp.
  way = (lamp.position - receiver.center)[:, None]
  offsets = centers - receiver.center[:, None]
  along = np.clip(dot(offsets, way) / dot(way, way), 0, 1)
  offsets -= along * way
  near = dot(offsets, offsets) < reach**2
  for solid in itertools.compress(solids, near):
    if solid is not receiver:
      visibility *= _shadow(points, lamp, solid)
  return visibility


def irradiance(
  points: np.ndarray, normals: np.ndarray, lamp: Lamp
) -> np.ndarray:
  """A lamp's unoccluded light on surfaces.

  Args:
    points: [3, N] float32.
    normals: [3, N] or [3, 1] float32, unit vectors.
    lamp: the lamp.

  Returns:
    [3, N] float32, RGB.
  """
  way, strength = _towards(points, lamp)
  return lamp.color[:, None] * (strength * np.maximum(dot(normals, way), 0))


def highlight(
  points: np.ndarray,
  normals: np.ndarray,
  view: np.ndarray,
  lamp: Lamp,
  lobes: Sequence[tuple[float, float]],
) -> np.ndarray:
  """A lamp's unoccluded light reflected by microfacets.

  Args:
    points: [3, N] float32.
    normals: [3, N] float32, unit vectors.
    view: [3, N] float32, unit vectors towards the viewer.
    lamp: the lamp.
    lobes: share of the light reflected by facets of each roughness, the alpha
      of the GGX distribution, in (0, 1].

  Returns:
    [3, N] float32, RGB: the radiance.
  """
  way, strength = _towards(points, lamp)
  strength *= dot(normals, way) > 0
  strength /= (4 * math.pi) * np.maximum(dot(normals, view), _GRAZING)
  cosine2 = dot(normals, to_unit_length(way + view)) ** 2
  density = sum(
    share * roughness**2 / (cosine2 * (roughness**2 - 1) + 1) ** 2
    for share, roughness in lobes
  )
  return lamp.color[:, None] * (strength * density)


def _towards(points: np.ndarray, lamp: Lamp) -> tuple[np.ndarray, np.ndarray]:
  """Unit vectors [3, N] to a lamp, and its light relative to its colour."""
  way = lamp.position[:, None] - points
  distance2 = dot(way, way)
  way /= np.sqrt(distance2)
  return way, np.maximum(-dot(lamp.axis, way), 0) / distance2


# Maps samples, rows and columns [N] float32, sorted by row, to owner [N]
# of any integer dtype and RGB [3, N] float32.
Shader = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def render(
  shade: Shader, image_size: tuple[int, int], contrast: float
) -> tuple[np.ndarray, np.ndarray]:
  """Renders a picture, with several samples per pixel at edges.

  Args:
    shade: returns owner and colour at samples.
    image_size: H, W.
    contrast: neighbouring pixels that differ by more are at an edge.

  Returns:
    owner: [H, W], the owner at the centre of each pixel.
    image: [3, H, W] float32.
  """
  height, width = image_size
  owner, image = shade(*pixel_centers(image_size))
  owner, image = owner.reshape(image_size), image.reshape(3, height, width)
  edges = np.flatnonzero(_edges(owner, image, contrast))
  offsets = np.array(_SUBSAMPLES, np.float32)
  # One row of samples after another.
  rows = (edges // width)[:, None] + offsets[:, 0]
  order = np.argsort(rows, axis=None, kind="stable")
  columns = (edges % width)[:, None] + offsets[:, 1]
  _, colors = shade(
    rows.ravel()[order].astype(np.float32),
    columns.ravel()[order].astype(np.float32),
  )
  samples = np.empty_like(colors)
  samples[:, order] = colors
  image.reshape(3, -1)[:, edges] = samples.reshape(
    3, -1, len(_SUBSAMPLES)
  ).mean(-1)
  return owner, image


def _edges(owner: np.ndarray, image: np.ndarray, contrast: float) -> np.ndarray:
  """[H, W] bool: pixels that differ from one above, below, left or right."""
  edges = np.zeros(owner.shape, bool)
  for a, b in _neighbours():
    differ = owner[a] != owner[b]
    for channel in image:
      differ |= np.abs(channel[a] - channel[b]) > contrast
    edges[a] |= differ
    edges[b] |= differ
  return edges


def _neighbours() -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
  """For each axis, indices of all pixels but the last, and but the first."""
  yield np.s_[:-1, :], np.s_[1:, :]
  yield np.s_[:, :-1], np.s_[:, 1:]
