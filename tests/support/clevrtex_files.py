"""Small ClevrTex datasets in the layout of the published files."""

import json
import pathlib

import numpy as np
from PIL import Image

SIZE = (240, 320)
# Of the published masks, for the labels from 0 on.
PALETTE = (
  *((0, 0, 0), (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)),
  *((141, 211, 199), (255, 255, 179), (190, 186, 218), (251, 128, 114)),
  *((128, 177, 211), (253, 180, 98)),
)
_SHAPES = ("cube", "sphere", "cylinder", "monkey")
_UNSEEN_SHAPES = ("cone", "icosahedron", "torus", "teapot")


def labels_of(index: int) -> np.ndarray:
  """[240, 320] uint8: object 1 is cut off by the crop, the last one small."""
  labels = np.zeros(SIZE, np.uint8)
  labels[0:20, 0:20] = 1  # outside of the central crop
  for i in range(2, num_objects(index) + 1):
    labels[30 + 15 * i : 44 + 15 * i, 80 + 10 * i : 130 + 10 * i] = i
  return labels


def num_objects(index: int) -> int:
  return 3 + index % 8


def content_of(index: int, variant: str) -> dict:
  """The JSON file."""
  shapes = _UNSEEN_SHAPES if variant == "outd" else _SHAPES
  objects = [
    {
      "shape": shapes[i % 4],
      "size": ("large", "medium", "small")[i % 3],
      "rotation": 30.5 * i,
      "3d_coords": [0.5 * i, -0.25 * i, 0.7],
      "pixel_coords": [80 + 10 * i, 30 + 15 * i, 9.5 + i],
      "index": i,
      "color": ("gray", "yellow")[i % 2],
      "material": "rubber" if variant == "vbg" else "poliigonbricks01",
    }
    for i in range(1, num_objects(index) + 1)
  ]
  name = f"CLEVRTEX_{variant}_{index:06d}"
  return {
    "num_objects": len(objects),
    "split": variant,
    "image_index": index,
    "image_filename": f"{name}.png",
    "mask_filename": f"{name}_flat.png",
    "ground_material": "whitemarble",
    "objects": objects[::-1],  # Their order says nothing.
  }


def path_of(folder: pathlib.Path, index: int, suffix: str, variant: str):
  name = f"CLEVRTEX_{variant}_{index:06d}{suffix}"
  return folder / f"clevrtex_{variant}" / str(index // 1000) / name


def write(folder: pathlib.Path, count: int, variant: str = "full"):
  """Writes scenes; the red of an image tells its number."""
  for index in range(count):
    path = path_of(folder, index, ".png", variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = labels_of(index)
    pixels = np.empty([*SIZE, 4], np.uint8)
    pixels[..., 0] = 10 * index
    pixels[..., 1:3] = 20 * labels[..., None]
    pixels[..., 3] = 200  # to be ignored
    Image.fromarray(pixels).save(path, compress_level=1)
    write_mask(path_of(folder, index, "_flat.png", variant), labels)
    content = json.dumps(content_of(index, variant), indent=2)
    path_of(folder, index, ".json", variant).write_text(content)
  return folder


def write_mask(path: pathlib.Path, labels: np.ndarray):
  image = Image.fromarray(labels)
  mask = Image.frombytes("P", image.size, image.tobytes())
  mask.putpalette([value for color in PALETTE for value in color])
  mask.save(path)
