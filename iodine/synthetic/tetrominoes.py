"""Scenes like those of the Tetrominoes dataset.

Three tetrominoes of four bevelled 5x5 blocks on black, 35x35 pixels, any pixel
position inside the image. Pieces may touch but never overlap.

Dimensions: B scenes, L = 4 entities (entity 0 is the background), H = W = 35.
"""

import numpy as np

from iodine.synthetic.records import Feature

__all__ = [
  "COLORS",
  "FEATURES",
  "IMAGE_SIZE",
  "MAX_NUM_ENTITIES",
  "MAX_NUM_OBJECTS",
  "SHAPES",
  "render",
  "sample_scenes",
]

IMAGE_SIZE = (35, 35)
MAX_NUM_ENTITIES = 4
MAX_NUM_OBJECTS = MAX_NUM_ENTITIES - 1

FEATURES = {
  "image": Feature((*IMAGE_SIZE, 3), "bytes"),
  "mask": Feature((MAX_NUM_ENTITIES, *IMAGE_SIZE, 1), "bytes"),
  "x": Feature((MAX_NUM_ENTITIES,), "float"),
  "y": Feature((MAX_NUM_ENTITIES,), "float"),
  "shape": Feature((MAX_NUM_ENTITIES,), "float"),
  "color": Feature((MAX_NUM_ENTITIES, 3), "float"),
  "visibility": Feature((MAX_NUM_ENTITIES,), "float"),
}

# Block patterns by the dataset's `shape` index, top row first; index 0 is the
# background. The patterns of 1, 4 and 8 are inferred, all others are taken from
# real scenes. The three remaining patterns are ####, #../### and .#/.#/##, and
# the dataset keeps a piece's rotations together: 1-2 are the I, 3-6 the lying
# and 7-10 the standing L and J, 11-12 and 13-14 the lying and standing S and Z,
# 15-16 and 17-18 the lying and standing T, 19 the O. This order leaves one
# index for each of the three.
SHAPES = (
  "",
  "####",  # 1, inferred
  "#/#/#/#",
  "###/#..",
  "#../###",  # 4, inferred
  "..#/###",
  "###/..#",
  "##/.#/.#",
  ".#/.#/##",  # 8, inferred
  "##/#./#.",
  "#./#./##",
  "##./.##",
  ".##/##.",
  ".#/##/#.",
  "#./##/.#",
  ".#./###",
  "###/.#.",
  ".#/##/.#",
  "#./##/#.",
  "##/##",
)

COLORS = np.array(
  [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],  # red, green, blue
    [1, 1, 0],
    [1, 0, 1],
    [0, 1, 1],  # yellow, magenta, cyan
  ],
  np.uint8,
)

# All blocks of a piece look the same, lit from the top left.
_BEVEL = np.array(
  [
    [191, 255, 255, 255, 223],
    [127, 159, 159, 159, 191],
    [127, 159, 159, 159, 191],
    [127, 159, 159, 159, 191],
    [95, 63, 63, 63, 127],
  ],
  np.uint8,
)
_BLOCK_SIZE = len(_BEVEL)


def _block_corners(pattern: str) -> list[tuple[int, int]]:
  """Top left pixel of each block, relative to that of the piece."""
  return [
    (_BLOCK_SIZE * row, _BLOCK_SIZE * column)
    for row, line in enumerate(pattern.split("/"))
    for column, cell in enumerate(line)
    if cell == "#"
  ]


# [20, 4, 2]: shape index, block, (row, column). The background's are not used.
_CORNERS = np.array([[(0, 0)] * 4] + [_block_corners(s) for s in SHAPES[1:]])
# [20, 2]: height and width in pixels.
_EXTENTS = _CORNERS.max(axis=1) + _BLOCK_SIZE


def sample_scenes(
  rng: np.random.Generator,
  num_scenes: int,
  num_objects: int = MAX_NUM_OBJECTS,
) -> dict[str, np.ndarray]:
  """Samples scenes in the format of the dataset's reader.

  Shapes (19) and colours (6) are uniform and independent; positions are uniform
  among those without overlaps.

  Args:
    rng: source of all randomness.
    num_scenes: B.
    num_objects: tetrominoes in each scene, 1 to 3; the real dataset has 3.
      The remaining entities are invisible, with all features zero.

  Returns:
    Arrays by the names in `FEATURES`:
      image: [B, H, W, 3] uint8.
      mask: [B, L, H, W, 1] uint8, 255 where the entity is visible, else 0.
      x, y: [B, L] float32, row and column (in this order) of the top left
        corner of the entity's bounding box, in pixels; 0 for the background.
      shape: [B, L] float32, index into `SHAPES`; 0 for the background.
      color: [B, L, 3] float32, RGB in {0, 1}; black for the background.
      visibility: [B, L] float32, 1 for the background and the tetrominoes.

  Raises:
    ValueError: if `num_objects` is not 1, 2 or 3.
  """
  if not 1 <= num_objects <= MAX_NUM_OBJECTS:
    raise ValueError(
      f"num_objects={num_objects}: a scene holds 1 to {MAX_NUM_OBJECTS} "
      "tetrominoes."
    )
  objects = slice(1, 1 + num_objects)
  shape = np.zeros([num_scenes, MAX_NUM_ENTITIES], np.intp)
  shape[:, objects] = rng.integers(1, len(SHAPES), [num_scenes, num_objects])
  color = np.zeros([num_scenes, MAX_NUM_ENTITIES, 3], np.uint8)
  color[:, objects] = COLORS[
    rng.integers(len(COLORS), size=[num_scenes, num_objects])
  ]
  position = np.zeros([num_scenes, MAX_NUM_ENTITIES, 2], np.intp)
  position[:, objects] = _sample_positions(rng, shape[:, objects])
  visibility = np.zeros([num_scenes, MAX_NUM_ENTITIES], np.float32)
  visibility[:, : 1 + num_objects] = 1

  x, y = position[..., 0], position[..., 1]
  image, mask = render(shape, x, y, color)
  return {
    "image": image,
    "mask": mask,
    "x": x.astype(np.float32),
    "y": y.astype(np.float32),
    "shape": shape.astype(np.float32),
    "color": color.astype(np.float32),
    "visibility": visibility,
  }


def render(
  shape: np.ndarray, x: np.ndarray, y: np.ndarray, color: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Renders scenes from their factors.

  Args:
    shape: [B, L] index into `SHAPES`; 0 for the background, which is entity 0,
      and for missing entities.
    x: [B, L] row of the top left corner, in pixels.
    y: [B, L] column of the top left corner, in pixels.
    color: [B, L, 3] RGB in {0, 1}.

  Returns:
    image: [B, H, W, 3] uint8.
    mask: [B, L, H, W, 1] uint8, 255 where the entity is visible, else 0. The
      last of overlapping entities is visible.
  """
  shape, color = shape.astype(np.intp), color.astype(np.uint8)
  scenes, entities = np.nonzero(shape)
  corners = np.stack([x, y], axis=-1).astype(np.intp)[scenes, entities]
  corners = corners[:, None] + _CORNERS[shape[scenes, entities]]
  # Block pixels as [objects, 4 blocks, 5 rows, 5 columns].
  offsets = np.arange(_BLOCK_SIZE)
  rows = corners[..., 0, None, None] + offsets[:, None]
  columns = corners[..., 1, None, None] + offsets
  scene = scenes[:, None, None, None]

  owner = np.zeros([len(shape), *IMAGE_SIZE], np.uint8)
  owner[scene, rows, columns] = entities[:, None, None, None]
  shade = np.zeros_like(owner)
  shade[scene, rows, columns] = _BEVEL

  pixel_color = color[np.arange(len(shape))[:, None, None], owner]
  labels = np.arange(shape.shape[1], dtype=np.uint8)[:, None, None, None]
  mask = (owner[:, None, ..., None] == labels).astype(np.uint8) * np.uint8(255)
  return shade[..., None] * pixel_color, mask


def _sample_positions(
  rng: np.random.Generator, shape: np.ndarray
) -> np.ndarray:
  """Samples positions of tetrominoes that do not overlap.

  Redraws all positions of a scene until none of its tetrominoes overlap.
  Placing them one by one could leave no room for the last.

  Args:
    rng: source of all randomness.
    shape: [B, num_objects] index into `SHAPES`, not 0.

  Returns:
    [B, num_objects, 2] row and column of the top left corners.
  """
  position = np.zeros([*shape.shape, 2], np.intp)
  pending = np.arange(len(shape))
  while pending.size:
    limits = np.array(IMAGE_SIZE) - _EXTENTS[shape[pending]]
    drawn = rng.integers(limits, endpoint=True)
    position[pending] = drawn
    pending = pending[_overlapping(shape[pending], drawn)]
  return position


def _overlapping(shape: np.ndarray, position: np.ndarray) -> np.ndarray:
  """[B] bool: whether any two tetrominoes of a scene share a pixel."""
  blocks = position[:, :, None] + _CORNERS[shape]  # [B, num_objects, 4, 2]
  overlap = np.zeros(len(shape), bool)
  for first in range(shape.shape[1]):
    for second in range(first):
      distance = np.abs(blocks[:, first, :, None] - blocks[:, second, None, :])
      overlap |= (distance < _BLOCK_SIZE).all(-1).any((1, 2))
  return overlap
