"""Scenes like those of the Objects Room dataset.

Spheres, cubes, cylinders and capsules stand in a square room under a blue sky,
64x64 pixels; the camera, near one corner, sees the two opposite walls. Floor,
walls and objects have random hues. The original is rendered with MuJoCo and
known only from its reader's description and picture; the proportions of camera,
room and objects follow that picture. The original environment also has
icosahedra, cones and triangles.

Dimensions: B scenes, L entities: sky, floor, left and right wall, then up to
L - 4 objects; H = W = 64; N samples of a picture.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iodine.synthetic import raycasting
from iodine.synthetic.raycasting import Camera, Lamp
from iodine.synthetic.records import Feature
from iodine.synthetic.solids import (
  SHAPES,
  Solid,
  dot,
  normals_at,
  to_unit_length,
)

__all__ = [
  "IMAGE_SIZE",
  "MAX_NUM_ENTITIES",
  "MIN_VISIBLE_PIXELS",
  "NUM_BACKGROUND_ENTITIES",
  "VARIANTS",
  "features",
  "sample_scenes",
]

IMAGE_SIZE = (64, 64)
MAX_NUM_ENTITIES = {
  "train": 7,
  "six_objects": 10,
  "empty_room": 4,
  "identical_color": 10,
}
VARIANTS = tuple(MAX_NUM_ENTITIES)
# The sky, the floor and the two halves of the wall.
NUM_BACKGROUND_ENTITIES = 4
_SKY, _FLOOR, _LEFT_WALL, _RIGHT_WALL = range(NUM_BACKGROUND_ENTITIES)

# Fewest and most objects.
_NUM_OBJECTS = {
  "train": (1, 3),
  "six_objects": (6, 6),
  "empty_room": (0, 0),
  "identical_color": (4, 6),
}
# Minimum visible area of each object, in pixels.
MIN_VISIBLE_PIXELS = 12

# The camera sees the walls x = _WALL and y = _WALL.
_WALL = 3.5
_WALL_HEIGHT = 2.1
_CAMERA_HEIGHT = (0.6, 0.9)
_FOCAL_LENGTH = 32 / math.tan(math.radians(25))
_MAX_YAW = math.radians(15)  # Away from the diagonal of the room.

# Half the height of an object, and its distance ahead of the camera.
_SIZES = (0.22, 0.36)
_DISTANCES = (1.5, 5.5)
# Minimum gap between objects, and between objects and walls.
_MIN_GAP = 0.1
_MAX_TRIES = 50

_LAMP_HEIGHT = 7.0
_LAMP_RADIUS = 0.4
_LAMP_IRRADIANCE = 0.75  # On the floor below the lamp.
_AMBIENT = 0.3
# Added to the ambient light; the right wall is darker.
_WALL_LIGHT = {_LEFT_WALL: 0.55, _RIGHT_WALL: 0.42}
_LOBES = ((0.06, 0.4),)
_SKY_COLOR = (0.6, 0.89, 0.98)
_WALL_SATURATION = 0.8
_EDGE_CONTRAST = 0.1


class _Room(NamedTuple):
  """A scene; `colors` has a column for each entity: [3, L]."""

  camera: Camera
  lamp: Lamp
  solids: Sequence[Solid]
  colors: np.ndarray


def features(variant: str = "train") -> dict[str, Feature]:
  """Returns the features of a scene of a variant: image and masks."""
  _check_variant(variant)
  return {
    "image": Feature((*IMAGE_SIZE, 3), "bytes"),
    "mask": Feature((MAX_NUM_ENTITIES[variant], *IMAGE_SIZE, 1), "bytes"),
  }


def sample_scenes(
  rng: np.random.Generator, num_scenes: int, variant: str = "train"
) -> dict[str, np.ndarray]:
  """Samples scenes in the format of the dataset's reader.

  "train" has 1 to 3 objects, "six_objects" 6, "empty_room" none, and
  "identical_color" 4 to 6 objects of one colour. At least `MIN_VISIBLE_PIXELS`
  of each are visible.

  Args:
    rng: source of all randomness.
    num_scenes: B.
    variant: one of `VARIANTS`.

  Returns:
    Arrays by name:
      image: [B, H, W, 3] uint8.
      mask: [B, L, H, W, 1] uint8, 255 where the entity is visible, else 0, in
        the order sky, floor, left wall, right wall, objects. L is
        `MAX_NUM_ENTITIES[variant]`.

  Raises:
    ValueError: if the variant is unknown.
  """
  _check_variant(variant)
  scenes = {
    name: np.zeros((num_scenes, *feature.shape), np.uint8)
    for name, feature in features(variant).items()
  }
  entities = np.arange(MAX_NUM_ENTITIES[variant])[:, None, None]
  for i in range(num_scenes):
    room = _sample_room(rng, variant)
    owner, image = raycasting.render(
      functools.partial(_shade, room),
      IMAGE_SIZE,
      _EDGE_CONTRAST,
    )
    scenes["image"][i] = np.round(255 * image).transpose(1, 2, 0)
    scenes["mask"][i, ..., 0] = np.where(owner == entities, 255, 0)
  return scenes


def _check_variant(variant: str) -> None:
  """Raises a ValueError for an unknown variant."""
  if variant not in MAX_NUM_ENTITIES:
    raise ValueError(f"variant={variant!r}: choose from {', '.join(VARIANTS)}.")


def _sample_room(rng: np.random.Generator, variant: str) -> _Room:
  """Samples a room with objects."""
  low, high = _NUM_OBJECTS[variant]
  num_objects = int(rng.integers(low, high, endpoint=True))
  camera = _sample_camera(rng)
  lamp = Lamp(
    np.array([*rng.uniform(-_WALL, _WALL, 2), _LAMP_HEIGHT], np.float32),
    np.array([0, 0, -1], np.float32),
    np.full(3, _LAMP_IRRADIANCE * _LAMP_HEIGHT**2, np.float32),
    _LAMP_RADIUS,
  )
  solids = _sample_solids(rng, num_objects, camera)
  hues = rng.uniform(size=2 + num_objects)
  if variant == "identical_color":
    hues[2:] = hues[2]
  floor, wall, *objects = _saturated(hues).T
  wall = 1 - _WALL_SATURATION * (1 - wall)
  colors = np.stack([_SKY_COLOR, floor, wall, wall, *objects], axis=1)
  return _Room(camera, lamp, solids, colors.astype(np.float32))


def _saturated(hues: np.ndarray) -> np.ndarray:
  """Converts hues [N] in [0, 1] to bright saturated RGB [3, N] in [0, 1]."""
  channels = np.array([[0], [4], [2]])
  return np.clip(np.abs((6 * hues + channels) % 6 - 3) - 1, 0, 1)


def _sample_camera(rng: np.random.Generator) -> Camera:
  """Samples a camera near a corner, looking roughly along the diagonal."""
  x, y = rng.uniform(-0.9 * _WALL, -0.4 * _WALL, 2)
  position = np.array([x, y, rng.uniform(*_CAMERA_HEIGHT)])
  yaw = math.pi / 4 + rng.uniform(-_MAX_YAW, _MAX_YAW)
  pitch = rng.uniform(-0.12, -0.02)
  ahead = np.array([math.cos(yaw), math.sin(yaw), pitch])
  return raycasting.look_at(
    position, position + ahead, _FOCAL_LENGTH, IMAGE_SIZE
  )


def _sample_solids(
  rng: np.random.Generator, num_objects: int, camera: Camera
) -> list[Solid]:
  """Samples objects until enough of each is visible."""
  shapes = list(SHAPES)
  while True:
    solids: list[Solid] = []
    for _ in range(_MAX_TRIES):
      if len(solids) == num_objects:
        break
      solid = _sample_solid(rng, shapes, camera)
      if _has_room(solid, solids):
        solids.append(solid)
    if len(solids) < num_objects:
      continue
    if (raycasting.visible_pixels(camera, solids) >= MIN_VISIBLE_PIXELS).all():
      return solids


def _sample_solid(
  rng: np.random.Generator, shapes: Sequence[str], camera: Camera
) -> Solid:
  """Samples one object on the floor ahead of the camera."""
  size = rng.uniform(*_SIZES)
  distance = rng.uniform(*_DISTANCES)
  sideways = distance * rng.uniform(-1, 1) * (32 / _FOCAL_LENGTH)
  right, _, forward = camera.axes[:, :2]
  place = camera.position[:2] + distance * forward + sideways * right
  return Solid(
    shapes[int(rng.integers(len(shapes)))],
    np.array([*place, size], np.float32),
    size,
    rng.uniform(0, 2 * math.pi),
  )


def _has_room(solid: Solid, others: Sequence[Solid]) -> bool:
  """Whether an object is far enough from the walls and other objects."""
  if np.abs(solid.center[:2]).max() + solid.radius + _MIN_GAP > _WALL:
    return False
  return all(
    np.linalg.norm(solid.center[:2] - other.center[:2])
    >= solid.radius + other.radius + _MIN_GAP
    for other in others
  )


def _shade(
  room: _Room, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Shades samples: owner [N], the index of an entity, and RGB [3, N]."""
  camera = room.camera
  seen = raycasting.trace(camera, room.solids, rows, columns)
  directions = camera.directions(rows, columns)
  owner, depth = _trace_room(camera, directions)
  solid = seen.owner >= 0
  owner[solid] = seen.owner[solid] + NUM_BACKGROUND_ENTITIES
  depth[solid] = seen.depth[solid]
  points = camera.position[:, None] + depth * directions

  light = np.ones_like(points)
  gloss = np.zeros_like(points)
  floor = np.flatnonzero(owner == _FLOOR)
  visibility = raycasting.floor_visibility(
    camera,
    room.solids,
    room.lamp,
    points[:, floor],
    rows[floor],
    columns[floor],
  )
  up = np.array([[0], [0], [1]], np.float32)
  light[:, floor] = _AMBIENT + visibility * raycasting.irradiance(
    points[:, floor], up, room.lamp
  )
  for wall, strength in _WALL_LIGHT.items():
    light[:, owner == wall] = _AMBIENT + strength
  for i, receiver in enumerate(room.solids):
    own = np.flatnonzero(owner == i + NUM_BACKGROUND_ENTITIES)
    light[:, own], gloss[:, own] = _light_solid(
      room, receiver, points[:, own], directions[:, own]
    )
  return owner, np.clip(room.colors[:, owner] * light + gloss, 0, 1)


def _trace_room(
  camera: Camera, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Traces the empty room: owner [N] intp, and depth [N] float32."""
  # Every ray meets a plane, because the camera looks towards the corner.
  x, y, z = camera.position.tolist()
  ahead = np.maximum(directions, np.float32(1e-6))
  to_right, to_left = (_WALL - x) / ahead[0], (_WALL - y) / ahead[1]
  depth = np.minimum(to_left, to_right)
  owner = np.where(to_left < to_right, _LEFT_WALL, _RIGHT_WALL)
  height = z + depth * directions[2]
  owner[height > _WALL_HEIGHT] = _SKY
  below = height < 0
  owner[below] = _FLOOR
  depth[below] = -z / directions[2, below]
  return owner, depth


def _light_solid(
  room: _Room, solid: Solid, points: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Diffuse light on an object's points, and specular light: [3, N] each."""
  normals = normals_at(solid, points)
  view = -to_unit_length(directions)
  visibility = raycasting.solid_visibility(
    room.solids, solid, room.lamp, points
  )
  lamp = visibility * raycasting.irradiance(points, normals, room.lamp)
  gloss = visibility * raycasting.highlight(
    points, normals, view, room.lamp, _LOBES
  )
  # A weak light at the camera shows the sides.
  front = 0.45 * np.maximum(dot(normals, view), 0)
  return _AMBIENT + front + lamp, gloss
