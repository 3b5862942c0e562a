"""Small scenes of squares and discs, for small models.

Two sprites of 6 to 8 pixels in two of six colours on grey, 16x16 pixels. They
may partly cover each other; a mask marks the visible pixels.

Dimensions: B scenes, L = 4 entities (entity 0 is the background), H = W = 16.
"""

import numpy as np

from iodine.synthetic.records import Feature

__all__ = [
  "BACKGROUND_COLOR",
  "COLORS",
  "FEATURES",
  "IMAGE_SIZE",
  "MAX_NUM_ENTITIES",
  "MAX_NUM_OBJECTS",
  "SHAPES",
  "SIZES",
  "render",
  "sample_scenes",
]

IMAGE_SIZE = (16, 16)
MAX_NUM_ENTITIES = 4
MAX_NUM_OBJECTS = MAX_NUM_ENTITIES - 1

FEATURES = {
  "image": Feature((*IMAGE_SIZE, 3), "bytes"),
  "mask": Feature((MAX_NUM_ENTITIES, *IMAGE_SIZE, 1), "bytes"),
  "x": Feature((MAX_NUM_ENTITIES,), "float"),
  "y": Feature((MAX_NUM_ENTITIES,), "float"),
  "shape": Feature((MAX_NUM_ENTITIES,), "float"),
  "size": Feature((MAX_NUM_ENTITIES,), "float"),
  "color": Feature((MAX_NUM_ENTITIES, 3), "float"),
  "visibility": Feature((MAX_NUM_ENTITIES,), "float"),
}

# Indexed by `shape`.
SHAPES = ("background", "square", "disc")
_DISC = SHAPES.index("disc")

# Height and width of a sprite, in pixels.
SIZES = (6, 7, 8)

BACKGROUND_COLOR = 0.5  # All three channels.
COLORS = np.array(
  [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],  # red, green, blue
    [1, 1, 0],
    [1, 0, 1],
    [0, 1, 1],  # yellow, magenta, cyan
  ],
  np.float32,
)

# Minimum visible share of each sprite.
_MIN_SEEN = 0.75


def sample_scenes(
  rng: np.random.Generator, num_scenes: int, num_objects: int = 2
) -> dict[str, np.ndarray]:
  """Samples scenes.

  Shapes, sizes and colours are uniform and independent, except that the colours
  within a scene differ; positions are uniform among those where at least three
  quarters of each sprite are visible.

  Args:
    rng: source of all randomness.
    num_scenes: B.
    num_objects: sprites in each scene, 1 to 3. The remaining entities are
      invisible, with all features zero.

  Returns:
    Arrays by the names in `FEATURES`:
      image: [B, H, W, 3] uint8.
      mask: [B, L, H, W, 1] uint8, 255 where the entity is visible, else 0.
      x, y: [B, L] float32, row and column (in this order) of the top left
        corner of the whole sprite's bounding box, in pixels; 0 for the
        background.
      shape: [B, L] float32, index into `SHAPES`.
      size: [B, L] float32, one of `SIZES`; 0 for the background.
      color: [B, L, 3] float32, RGB in [0, 1].
      visibility: [B, L] float32, 1 for the background and the sprites.

  Raises:
    ValueError: if `num_objects` is not 1, 2 or 3.
  """
  if not 1 <= num_objects <= MAX_NUM_OBJECTS:
    raise ValueError(
      f"num_objects={num_objects}: a scene holds 1 to {MAX_NUM_OBJECTS} "
      "sprites."
    )
  objects = slice(1, 1 + num_objects)
  drawn = [num_scenes, num_objects]
  shape = np.zeros([num_scenes, MAX_NUM_ENTITIES], np.intp)
  shape[:, objects] = rng.integers(1, len(SHAPES), drawn)
  size = np.zeros_like(shape)
  size[:, objects] = rng.choice(SIZES, drawn)
  color = np.zeros([*shape.shape, 3], np.float32)
  color[:, 0] = BACKGROUND_COLOR
  # Distinct colours: the first of a random order.
  order = rng.permuted(np.tile(np.arange(len(COLORS)), (num_scenes, 1)), axis=1)
  color[:, objects] = COLORS[order[:, :num_objects]]
  position = _sample_positions(rng, shape, size)
  visibility = np.zeros(shape.shape, np.float32)
  visibility[:, : 1 + num_objects] = 1

  x, y = position[..., 0], position[..., 1]
  image, mask = render(shape, size, x, y, color)
  return {
    "image": image,
    "mask": mask,
    "x": x.astype(np.float32),
    "y": y.astype(np.float32),
    "shape": shape.astype(np.float32),
    "size": size.astype(np.float32),
    "color": color,
    "visibility": visibility,
  }


def render(
  shape: np.ndarray,
  size: np.ndarray,
  x: np.ndarray,
  y: np.ndarray,
  color: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Renders scenes from their factors.

  Args:
    shape: [B, L] index into `SHAPES`; 0 for the background, which is entity 0,
      and for missing entities.
    size: [B, L] height and width of the sprite, in pixels.
    x: [B, L] row of its top left corner, in pixels.
    y: [B, L] column of its top left corner, in pixels.
    color: [B, L, 3] RGB in [0, 1].

  Returns:
    image: [B, H, W, 3] uint8.
    mask: [B, L, H, W, 1] uint8, 255 where the entity is visible, else 0. The
      last of overlapping entities is visible.
  """
  owner = _owner(_silhouettes(shape, size, x, y))
  values = np.round(255 * color).astype(np.uint8)
  image = values[np.arange(len(shape))[:, None, None], owner]
  labels = np.arange(shape.shape[1])[:, None, None]
  mask = np.where(owner[:, None] == labels, np.uint8(255), np.uint8(0))
  return image, mask[..., None]


def _silhouettes(
  shape: np.ndarray, size: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
  """[B, L, H, W] bool: the pixels of whole entities, including covered ones.

  The background has all pixels, a missing entity none.
  """
  radius = size[..., None, None] / 2
  # [B, L, H or 1, W or 1]: centre of each pixel, relative to the sprite's.
  row = np.arange(IMAGE_SIZE[0])[:, None] + 0.5 - x[..., None, None] - radius
  column = np.arange(IMAGE_SIZE[1]) + 0.5 - y[..., None, None] - radius
  square = np.maximum(np.abs(row), np.abs(column)) < radius
  disc = np.hypot(row, column) < radius
  pixels = np.where(shape[..., None, None] == _DISC, disc, square)
  pixels[:, 0] = True
  return pixels


def _owner(silhouettes: np.ndarray) -> np.ndarray:
  """[B, H, W]: the last entity that has the pixel."""
  last_first = silhouettes[:, ::-1]
  return silhouettes.shape[1] - 1 - last_first.argmax(axis=1)


def _sample_positions(
  rng: np.random.Generator, shape: np.ndarray, size: np.ndarray
) -> np.ndarray:
  """Samples positions at which enough of each sprite is visible.

  Redraws all positions of a scene until they are valid.

  Args:
    rng: source of all randomness.
    shape: [B, L] index into `SHAPES`.
    size: [B, L] in pixels; 0 for entities that are not sprites.

  Returns:
    [B, L, 2] row and column of the top left corners, 0 if not a sprite.
  """
  position = np.zeros([*shape.shape, 2], np.intp)
  pending = np.arange(len(shape))
  while pending.size:
    limits = np.array(IMAGE_SIZE) - size[pending][..., None]
    drawn = rng.integers(limits, endpoint=True)
    position[pending] = np.where(shape[pending][..., None] > 0, drawn, 0)
    pending = pending[
      _too_covered(shape[pending], size[pending], position[pending])
    ]
  return position


def _too_covered(
  shape: np.ndarray, size: np.ndarray, position: np.ndarray
) -> np.ndarray:
  """[B] bool: whether too little of any sprite in a scene is visible."""
  whole = _silhouettes(shape, size, position[..., 0], position[..., 1])
  labels = np.arange(shape.shape[1])[:, None, None]
  seen = _owner(whole)[:, None] == labels
  num_whole, num_seen = whole.sum((2, 3)), seen.sum((2, 3))
  return (num_seen < _MIN_SEEN * num_whole)[:, 1:].any(axis=1)
