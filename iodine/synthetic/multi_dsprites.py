"""Scenes like those of the Multi-dSprites datasets.

White or coloured squares, ellipses and hearts on a plain background, 64x64
pixels, hard edges; later entities cover earlier ones. Shapes and factors match
dSprites: redrawn from its factors, the 320 frames of its published animation
differ in 50 of 77,010 sprite pixels.

The contents of the real files are only partly known. DeepMind's description and
picture, other published pictures and listings of factor values give: numbers of
sprites (uniform), codes of the shapes, the values of all factors, orientations
modulo the symmetry of the shape, uniform RGB colours in "colored_on_colored",
and that invisible entities, marked only by `visibility`, have ordinary factors.
Chosen here: the factors of the background, the meaning of x, y and orientation
(as in dSprites), the ranges of saturation and value in "colored_on_grayscale"
(about those of published pictures), and that every sprite is partly visible.

Dimensions: B scenes, L entities (entity 0 is the background), H = W = 64, C
channels, 1 in "binarized", else 3.
"""

import math

import numpy as np

from iodine.synthetic.records import Feature

__all__ = [
  "IMAGE_SIZE",
  "MAX_NUM_ENTITIES",
  "NUM_OBJECTS",
  "NUM_ORIENTATIONS",
  "NUM_POSITIONS",
  "SCALES",
  "SHAPES",
  "SYMMETRIES",
  "VARIANTS",
  "features",
  "render",
  "sample_scenes",
]

IMAGE_SIZE = (64, 64)
MAX_NUM_ENTITIES = {
  "binarized": 4,
  "colored_on_grayscale": 6,
  "colored_on_colored": 5,
}
VARIANTS = tuple(MAX_NUM_ENTITIES)
# Fewest and most sprites.
NUM_OBJECTS = {
  "binarized": (2, 3),
  "colored_on_grayscale": (2, 5),
  "colored_on_colored": (1, 4),
}

# By the datasets' `shape` index; index 0 is the background.
SHAPES = ("", "square", "ellipse", "heart")
_SQUARE, _ELLIPSE, _HEART = 1, 2, 3
# Turning a shape by this angle leaves it unchanged.
SYMMETRIES = np.array([0, math.pi / 2, math.pi, 2 * math.pi])
NUM_ORIENTATIONS = 39
NUM_POSITIONS = 32
SCALES = np.linspace(0.5, 1, 6)

# Sizes at scale 1, in pixels. The heart is the curve x = 16 sin^3 t,
# y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, stretched to this width and
# height; its centre of rotation is 2.17 of its units below the origin.
_SQUARE_RADIUS = 9.6
_ELLIPSE_RADII = (12.77, 7.21)
_HEART_UNIT = (19.2 / 32, 19.2 / 29)
_HEART_CENTER = -2.17
# Centres are in the middle half of the picture.
_MARGIN, _RANGE = 16, 32

_MIN_SATURATION = 0.2
_MIN_VALUE = 0.35


def features(variant: str = "colored_on_grayscale") -> dict[str, Feature]:
  """Returns the features of a scene of a variant.

  Args:
    variant: one of `VARIANTS`.

  Returns:
    The features by name, as DeepMind's reader expects them.

  Raises:
    ValueError: if the variant is unknown.
  """
  _check_variant(variant)
  num_entities = MAX_NUM_ENTITIES[variant]
  num_channels = _num_channels(variant)
  entities = Feature((num_entities,), "float")
  return {
    "image": Feature((*IMAGE_SIZE, num_channels), "bytes"),
    "mask": Feature((*IMAGE_SIZE, num_entities, 1), "bytes"),
    "x": entities,
    "y": entities,
    "shape": entities,
    "color": Feature((num_entities, num_channels), "float"),
    "visibility": entities,
    "orientation": entities,
    "scale": entities,
  }


def sample_scenes(
  rng: np.random.Generator,
  num_scenes: int,
  variant: str = "colored_on_grayscale",
) -> dict[str, np.ndarray]:
  """Samples scenes in the format of the dataset's files.

  All factors are uniform and independent, except that positions are redrawn
  while a sprite is fully covered. Entities beyond the sampled number of sprites
  are invisible, with ordinary factors.

  Args:
    rng: source of all randomness.
    num_scenes: B.
    variant: one of `VARIANTS`.

  Returns:
    Arrays by the names in `features(variant)`:
      image: [B, H, W, C] uint8.
      mask: [B, H, W, L, 1] uint8, 255 where the entity is visible, else 0. The
        dataset's reader moves L to the front.
      x, y: [B, L] float32, the sprite's centre of rotation (for a heart, a
        little below its centre), one of `NUM_POSITIONS` values in [0, 1], which
        are 16 to 48 pixels from the left and from the top; 0 for the
        background.
      shape: [B, L] float32, index into `SHAPES`; 0 for the background.
      color: [B, L, C] float32, intensities in [0, 1].
      visibility: [B, L] float32, 1 for the background and visible sprites, else
        0.
      orientation: [B, L] float32, radians, counterclockwise in the picture,
        below the shape's entry in `SYMMETRIES`; 0 for the background.
      scale: [B, L] float32, one of `SCALES`; 1 for the background.

  Raises:
    ValueError: if the variant is unknown.
  """
  _check_variant(variant)
  entities = [num_scenes, MAX_NUM_ENTITIES[variant]]
  shape = rng.integers(1, len(SHAPES), entities)
  turns = rng.integers(NUM_ORIENTATIONS, size=entities) / NUM_ORIENTATIONS
  scale = rng.choice(SCALES, entities)
  shape[:, 0] = 0
  scale[:, 0] = 1
  orientation = turns * SYMMETRIES[shape]
  color = _sample_colors(rng, num_scenes, variant)
  fewest, most = NUM_OBJECTS[variant]
  num_objects = rng.integers(fewest, most, [num_scenes, 1], endpoint=True)
  visibility = np.arange(entities[1]) <= num_objects

  x, y = _sample_positions(rng, shape, orientation, scale, visibility)
  image, mask = render(shape, x, y, orientation, scale, color, visibility)
  factors = {
    "x": x,
    "y": y,
    "shape": shape,
    "color": color,
    "visibility": visibility,
    "orientation": orientation,
    "scale": scale,
  }
  return {"image": image, "mask": mask} | {
    name: values.astype(np.float32) for name, values in factors.items()
  }


def render(
  shape: np.ndarray,
  x: np.ndarray,
  y: np.ndarray,
  orientation: np.ndarray,
  scale: np.ndarray,
  color: np.ndarray,
  visibility: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Renders scenes from their factors.

  Args:
    shape: [B, L] index into `SHAPES`; entity 0 is the background.
    x: [B, L] column of the sprite's centre; 0 and 1 are a quarter of the width
      from the left and right borders.
    y: [B, L] row of the sprite's centre, likewise from top and bottom.
    orientation: [B, L] radians, counterclockwise.
    scale: [B, L] size; the square of scale 1 has 19.2 pixels a side.
    color: [B, L, C] intensities in [0, 1].
    visibility: [B, L], whether the entity exists.

  Returns:
    image: [B, H, W, C] uint8.
    mask: [B, H, W, L, 1] uint8, 255 where the entity is visible, else 0. The
      last of overlapping entities is visible.
  """
  owner = _owner(_silhouettes(shape, x, y, orientation, scale, visibility))
  values = np.round(255 * color).astype(np.uint8)
  image = values[np.arange(len(shape))[:, None, None], owner]
  labels = np.arange(shape.shape[1])
  mask = np.where(owner[..., None] == labels, np.uint8(255), np.uint8(0))
  return image, mask[..., None]


def _check_variant(variant: str) -> None:
  if variant not in VARIANTS:
    raise ValueError(f"variant={variant!r}: expected one of {list(VARIANTS)}.")


def _num_channels(variant: str) -> int:
  return 1 if variant == "binarized" else 3


def _silhouettes(
  shape: np.ndarray,
  x: np.ndarray,
  y: np.ndarray,
  orientation: np.ndarray,
  scale: np.ndarray,
  visibility: np.ndarray,
) -> np.ndarray:
  """[B, L, H, W] bool: the pixels of whole entities, including covered ones.

  The background has all pixels, a missing entity none.
  """
  pixels = np.zeros([*shape.shape, *IMAGE_SIZE], bool)
  for code, is_inside in _IS_INSIDE.items():
    chosen = (shape == code) & (visibility > 0)
    size, angle, left, top = (
      values[chosen][:, None, None] for values in (scale, orientation, x, y)
    )
    # Pixel centres relative to the sprite's: right and up, [N, H, W].
    right = np.arange(IMAGE_SIZE[1]) + 0.5 - (_MARGIN + _RANGE * left)
    up = (_MARGIN + _RANGE * top) - np.arange(IMAGE_SIZE[0])[:, None] - 0.5
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    pixels[chosen] = is_inside(cos * right + sin * up, cos * up - sin * right)
  pixels[:, 0] = True
  return pixels


def _is_in_square(right: np.ndarray, up: np.ndarray) -> np.ndarray:
  return np.maximum(np.abs(right), np.abs(up)) < _SQUARE_RADIUS


def _is_in_ellipse(right: np.ndarray, up: np.ndarray) -> np.ndarray:
  return np.hypot(right / _ELLIPSE_RADII[0], up / _ELLIPSE_RADII[1]) < 1


def _is_in_heart(right: np.ndarray, up: np.ndarray) -> np.ndarray:
  """Whether a point is between the upper and the lower half of the curve.

  Both have sin^2 t = (x/16)^(2/3), and cosines c and -c; there
  y = 4 - 2 c^2 - 8 c^4 + c (19 - 8 c^2).
  """
  x, y = right / _HEART_UNIT[0], up / _HEART_UNIT[1] + _HEART_CENTER
  cos2 = np.maximum(0, 1 - np.cbrt(x / 16) ** 2)  # 0 beyond the curve's width.
  middle = 4 - cos2 * (2 + 8 * cos2)
  return np.abs(y - middle) < np.sqrt(cos2) * (19 - 8 * cos2)


_IS_INSIDE = {
  _SQUARE: _is_in_square,
  _ELLIPSE: _is_in_ellipse,
  _HEART: _is_in_heart,
}


def _owner(silhouettes: np.ndarray) -> np.ndarray:
  """[B, H, W]: the last entity that has the pixel."""
  last_first = silhouettes[:, ::-1]
  return silhouettes.shape[1] - 1 - last_first.argmax(axis=1)


def _sample_positions(
  rng: np.random.Generator,
  shape: np.ndarray,
  orientation: np.ndarray,
  scale: np.ndarray,
  visibility: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Samples positions at which each sprite is partly visible.

  Redraws all positions of a scene until they are valid.

  Returns:
    x, y: [B, L] in [0, 1], 0 for the background.
  """
  x, y = np.zeros(shape.shape), np.zeros(shape.shape)
  labels = np.arange(shape.shape[1])[:, None, None]
  pending = np.arange(len(shape))
  while pending.size:
    for position in (x, y):
      drawn = rng.integers(NUM_POSITIONS, size=[pending.size, shape.shape[1]])
      drawn[:, 0] = 0
      position[pending] = drawn / (NUM_POSITIONS - 1)
    factors = (shape, x, y, orientation, scale, visibility)
    owner = _owner(_silhouettes(*(values[pending] for values in factors)))
    seen = (owner[:, None] == labels).any(axis=(2, 3))
    pending = pending[(seen != visibility[pending]).any(axis=1)]
  return x, y


def _sample_colors(
  rng: np.random.Generator, num_scenes: int, variant: str
) -> np.ndarray:
  """Samples colours of all entities: [B, L, C], multiples of 1/255."""
  entities = [num_scenes, MAX_NUM_ENTITIES[variant]]
  if variant == "colored_on_colored":
    return rng.integers(256, size=[*entities, 3]) / 255
  if variant == "binarized":
    color = np.ones([*entities, 1])
    color[:, 0] = 0
    return color
  hue = rng.uniform(size=entities)
  saturation = rng.uniform(_MIN_SATURATION, 1, entities)
  value = rng.uniform(_MIN_VALUE, 1, entities)
  color = np.round(255 * _hsv_to_rgb(hue, saturation, value)) / 255
  color[:, 0] = rng.integers(256, size=[num_scenes, 1]) / 255  # Grey.
  return color


def _hsv_to_rgb(
  hue: np.ndarray, saturation: np.ndarray, value: np.ndarray
) -> np.ndarray:
  """Converts hue, saturation and value, [...], to [..., 3] RGB, in [0, 1]."""
  sector = (6 * hue[..., None] + np.array([5, 3, 1])) % 6
  ramp = np.clip(np.minimum(sector, 4 - sector), 0, 1)
  return value[..., None] * (1 - saturation[..., None] * ramp)
