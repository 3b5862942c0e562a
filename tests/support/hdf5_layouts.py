"""Small HDF5 files in the layouts of published ones."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

NUM_SCENES = 6
SIZE = (8, 10)


def owners(
  num_entities: int, seed: int = 0, num_background: int = 1
) -> np.ndarray:
  """Which entity owns each pixel: [N, h, w] uint8.

  Backgrounds and the first object are in each scene, the last object in none
  but the last scene.
  """
  rng = np.random.default_rng(seed)
  values = rng.integers(num_entities - 1, size=[NUM_SCENES, *SIZE])
  values[-1, 0, 0] = num_entities - 1
  first = np.arange(num_background + 1)
  values[:, -1, : len(first)] = first
  return values.astype(np.uint8)


def _images(seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(256, size=[NUM_SCENES, *SIZE, 3], dtype=np.uint8)


def masks(owner: np.ndarray, num_entities: int) -> np.ndarray:
  """[N, L, h, w, 1] uint8, 0 or 255."""
  entities = np.arange(num_entities)[:, None, None]
  return np.uint8(255) * (owner[:, None] == entities)[..., None]


def visibility(owner: np.ndarray, num_entities: int) -> np.ndarray:
  """[N, L] float32, 1 for an entity that owns a pixel."""
  return masks(owner, num_entities).any(axis=(2, 3, 4)).astype(np.float32)


def clevr() -> dict[str, np.ndarray]:
  """clevr_with_masks.h5 of HHousen/object-discovery-pytorch."""
  rng = np.random.default_rng(1)
  owner, entities = owners(11), 11
  number = lambda *shape: rng.standard_normal(
    [NUM_SCENES, entities, *shape]
  ).astype(np.float32)
  return {
    "image": _images(),
    "mask": masks(owner, entities),
    "visibility": visibility(owner, entities),
    **{
      name: rng.integers(1, 4, [NUM_SCENES, entities]).astype(np.uint8)
      for name in ("color", "material", "shape", "size")
    },
    **{name: number() for name in ("x", "y", "z", "rotation")},
    "pixel_coords": number(3),
  }


def tetrominoes() -> dict[str, np.ndarray]:
  """tetrominoes.h5 of HHousen/object-discovery-pytorch."""
  owner, entities = owners(4), 4
  shape = [NUM_SCENES, entities]
  return {
    "image": _images(),
    "mask": masks(owner, entities),
    "visibility": visibility(owner, entities),
    **{name: np.ones(shape, np.float32) for name in ("x", "y", "shape")},
    "color": np.ones([*shape, 3], np.float32),
  }


def box_world() -> dict[str, np.ndarray]:
  """The box world of HHousen/object-discovery-pytorch: labels alone."""
  owner = owners(5)
  return {
    "image": _images(),
    "segmentation_mask": owner,
    "num_objects": owner.max(axis=(1, 2)).astype(np.int64),
  }


def object_centric_library(num_background: int = 1) -> dict[str, np.ndarray]:
  """A `-full.hdf5` of addtt/object-centric-library: labels and counts."""
  owner, entities = owners(6, num_background=num_background), 6
  visible = visibility(owner, entities)
  shape = [NUM_SCENES, entities]
  return {
    "image": _images(),
    "mask": owner[..., None],
    "visibility": visible[..., None],
    "num_actual_objects": visible.sum(axis=1, keepdims=True) - num_background,
    "x": np.arange(NUM_SCENES * entities, dtype=np.float32).reshape(shape),
    "color": np.random.default_rng(2).random([*shape, 3], dtype=np.float32),
    "shape": np.ones([*shape, 1], np.int64),
  }


def ravens() -> dict[str, np.ndarray]:
  """ravens_robot_data_train.h5: two scenes, each seen by three cameras."""
  owner = owners(9, num_background=4)
  owner[owner == 5] = 10  # ids with gaps
  return {
    "color": _images(),
    "segm": owner,
    "num_objects_on_table": np.array([3, 5]),
  }


def write(
  path: pathlib.Path, arrays: Mapping[str, Any], **options: Any
) -> pathlib.Path:
  """Writes a dataset for each array.

  Args:
    path: the file.
    arrays: by name; None: left out.
    **options: of `h5py.Group.create_dataset`.
  """
  import h5py

  with h5py.File(path, "w") as file:
    for name, values in arrays.items():
      if values is not None:
        file.create_dataset(name, data=values, **options)
  return path
