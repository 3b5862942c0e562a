"""Scenes like those of the CLEVR (with masks) dataset.

Spheres, cubes and cylinders in two sizes, two materials and eight colours stand
on a grey floor under four lamps, 240x320 pixels. Geometry and appearance follow
the original generator, facebookresearch/clevr-dataset-gen: placement rules and
camera jitter its `render_images.py`, camera and focal length its
`base_scene.blend`.

Codes are indices into `COLORS`, `SHAPES`, `MATERIALS` and `SIZES`. The original
codes are not published; these follow the order of its `properties.json`.

Dimensions: B scenes, L = 11 entities (entity 0 is the background), H = 240,
W = 320; N samples of a picture.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iodine.synthetic import clevr_shading, raycasting
from iodine.synthetic.raycasting import Camera
from iodine.synthetic.records import Feature
from iodine.synthetic.solids import Solid

__all__ = [
  "COLORS",
  "FEATURES",
  "IMAGE_SIZE",
  "MATERIALS",
  "MAX_NUM_ENTITIES",
  "MAX_NUM_OBJECTS",
  "MIN_VISIBLE_PIXELS",
  "SHAPES",
  "SIZES",
  "sample_scenes",
]

IMAGE_SIZE = (240, 320)
MAX_NUM_ENTITIES = 11
MAX_NUM_OBJECTS = MAX_NUM_ENTITIES - 1

FEATURES = {
  "image": Feature((*IMAGE_SIZE, 3), "bytes"),
  "mask": Feature((MAX_NUM_ENTITIES, *IMAGE_SIZE, 1), "bytes"),
  "x": Feature((MAX_NUM_ENTITIES,), "float"),
  "y": Feature((MAX_NUM_ENTITIES,), "float"),
  "z": Feature((MAX_NUM_ENTITIES,), "float"),
  "pixel_coords": Feature((MAX_NUM_ENTITIES, 3), "float"),
  "rotation": Feature((MAX_NUM_ENTITIES,), "float"),
  "size": Feature((MAX_NUM_ENTITIES,), "bytes"),
  "material": Feature((MAX_NUM_ENTITIES,), "bytes"),
  "shape": Feature((MAX_NUM_ENTITIES,), "bytes"),
  "color": Feature((MAX_NUM_ENTITIES,), "bytes"),
  "visibility": Feature((MAX_NUM_ENTITIES,), "float"),
}

# Indexed by the codes; 0 means no object. A size is half the object's height.
SHAPES = ("none", "cube", "sphere", "cylinder")
MATERIALS = ("none", "rubber", "metal")
SIZES = (0.0, 0.7, 0.35)
COLORS = {
  "none": (0, 0, 0),
  "gray": (87, 87, 87),
  "red": (173, 35, 35),
  "blue": (42, 75, 215),
  "green": (29, 105, 20),
  "brown": (129, 74, 25),
  "purple": (129, 38, 192),
  "cyan": (41, 208, 208),
  "yellow": (255, 238, 51),
}
_METAL = MATERIALS.index("metal")

# Minimum visible area of each object, in pixels.
MIN_VISIBLE_PIXELS = 200

# Placement rules: centres are within +-_EXTENT, the circles around objects are
# at least _MIN_GAP apart, and centres differ by at least _MARGIN along the
# camera's directions on the floor.
_EXTENT = 3.0
_MIN_GAP = 0.25
_MARGIN = 0.4
_MAX_TRIES = 50

_FOCAL_LENGTH = 35 / 32 * IMAGE_SIZE[1]
_CAMERA_POSITION = (7.4811, -6.5076, 5.3437)
_CAMERA_JITTER = 0.5


class _Objects(NamedTuple):
  """The objects of a scene: solids, and codes [number of objects]."""

  solids: Sequence[Solid]
  rotation: np.ndarray
  size: np.ndarray
  material: np.ndarray
  shape: np.ndarray
  color: np.ndarray


def sample_scenes(
  rng: np.random.Generator,
  num_scenes: int,
  min_objects: int = 3,
  max_objects: int = MAX_NUM_OBJECTS,
) -> dict[str, np.ndarray]:
  """Samples scenes in the format of the dataset's reader.

  The number of objects is uniform; so are, independently, shapes, sizes,
  materials, colours, rotations, and the positions that the placement rules
  allow. At least `MIN_VISIBLE_PIXELS` of each object are visible.

  Args:
    rng: source of all randomness.
    num_scenes: B.
    min_objects: fewest objects in a scene, 1 to 10.
    max_objects: most objects in a scene, `min_objects` to 10.

  Returns:
    Arrays by the names in `FEATURES`, zero for the background and missing
    objects:
      image: [B, H, W, 3] uint8.
      mask: [B, L, H, W, 1] uint8, 255 where the entity is visible, else 0.
      x, y, z: [B, L] float32, the object's centre. z points upwards from the
        floor at 0; the camera aims at the origin.
      pixel_coords: [B, L, 3] float32, the centre in the image: column and row,
        rounded to integers, and depth along the camera's axis.
      rotation: [B, L] float32, about the vertical, in degrees from 0 to 360.
      size, material, shape, color: [B, L] uint8, indices into `SIZES`,
        `MATERIALS`, `SHAPES` and the names in `COLORS`.
      visibility: [B, L] float32, 1 for the background and the objects.

  Raises:
    ValueError: if the numbers of objects are not a range within 1 to 10.
  """
  if not 1 <= min_objects <= max_objects <= MAX_NUM_OBJECTS:
    raise ValueError(
      f"min_objects={min_objects}, max_objects={max_objects}: expected 1 <= "
      f"min_objects <= max_objects <= {MAX_NUM_OBJECTS}."
    )
  scenes = {
    name: np.zeros(
      (num_scenes, *feature.shape),
      np.uint8 if feature.kind == "bytes" else np.float32,
    )
    for name, feature in FEATURES.items()
  }
  for index in range(num_scenes):
    num_objects = int(rng.integers(min_objects, max_objects, endpoint=True))
    scene = {name: values[index] for name, values in scenes.items()}
    _sample_scene(rng, num_objects, scene)
  return scenes


def _sample_scene(
  rng: np.random.Generator, num_objects: int, scene: dict[str, np.ndarray]
) -> None:
  """Samples one scene into arrays of zeros."""
  camera = _sample_camera(rng)
  lamps = clevr_shading.sample_lamps(rng)
  objects = _sample_objects(rng, num_objects, camera)
  # The original generator treats the colours as linear RGB.
  albedos = np.array(list(COLORS.values()))[objects.color] / 255
  owner, image = clevr_shading.draw(
    camera, lamps, objects.solids, albedos, objects.material == _METAL
  )
  scene["image"][:] = image
  for entity in range(num_objects + 1):
    scene["mask"][entity, ..., 0] = (owner == entity - 1) * np.uint8(255)

  used = slice(1, num_objects + 1)
  for name in ("rotation", "size", "material", "shape", "color"):
    scene[name][used] = getattr(objects, name)
  centers = np.stack([solid.center for solid in objects.solids], axis=1)
  scene["x"][used], scene["y"][used], scene["z"][used] = centers
  rows, columns, depth = camera.project(centers)
  scene["pixel_coords"][used] = np.stack(
    [np.round(columns), np.round(rows), depth], axis=-1
  )
  scene["visibility"][: num_objects + 1] = 1


def _sample_camera(rng: np.random.Generator) -> Camera:
  """Samples a camera that aims at the origin."""
  jitter = rng.uniform(-_CAMERA_JITTER, _CAMERA_JITTER, 3)
  position = np.array(_CAMERA_POSITION) + jitter
  return raycasting.look_at(position, np.zeros(3), _FOCAL_LENGTH, IMAGE_SIZE)


def _sample_objects(
  rng: np.random.Generator, num_objects: int, camera: Camera
) -> _Objects:
  """Samples objects until enough of each is visible."""
  while True:
    size = rng.integers(1, len(SIZES), num_objects)
    positions = _sample_positions(rng, [SIZES[s] for s in size], camera)
    if positions is None:
      continue
    shape = rng.integers(1, len(SHAPES), num_objects)
    rotation = rng.uniform(0, 360, num_objects).astype(np.float32)
    solids = [
      Solid(
        SHAPES[shape[i]],
        np.array([*positions[i], SIZES[size[i]]], np.float32),
        SIZES[size[i]],
        math.radians(rotation[i]),
      )
      for i in range(num_objects)
    ]
    if raycasting.visible_pixels(camera, solids).min() >= MIN_VISIBLE_PIXELS:
      material = rng.integers(1, len(MATERIALS), num_objects)
      color = rng.integers(1, len(COLORS), num_objects)
      return _Objects(solids, rotation, size, material, shape, color)


def _sample_positions(
  rng: np.random.Generator, sizes: Sequence[float], camera: Camera
) -> np.ndarray | None:
  """Places objects one after another.

  Args:
    rng: source of all randomness.
    sizes: half the objects' widths.
    camera: camera whose directions on the floor keep objects apart.

  Returns:
    [number of objects, 2]; None if an object did not fit.
  """
  # Unit vectors on the floor: to the camera's right and away from it.
  right, _, forward = camera.axes[:, :2]
  directions = np.stack([right, forward / np.linalg.norm(forward)], axis=-1)
  positions = np.zeros([len(sizes), 2])
  for i, size in enumerate(sizes):
    drawn = rng.uniform(-_EXTENT, _EXTENT, [_MAX_TRIES, 2])
    offsets = drawn[:, None] - positions[:i]
    gap = np.hypot(*offsets.transpose(2, 0, 1)) - size - np.array(sizes[:i])
    margin = np.abs(offsets @ directions).min(-1)
    allowed = ((gap >= _MIN_GAP) & (margin >= _MARGIN)).all(axis=1)
    if not allowed.any():
      return None
    positions[i] = drawn[allowed.argmax()]
  return positions
