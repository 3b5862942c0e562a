"""Whether stored scenes are what their dataset says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from iodine.pictures import tiles

__all__ = ["check_scene_spec"]

if TYPE_CHECKING:
  from iodine.data.pipeline import IODINEDataset


def check_scene_spec(dataset: IODINEDataset, spec: Mapping[str, Any]) -> None:
  """Checks what `IODINEDataset.examples` gives.

  Args:
    dataset: Of the scenes.
    spec: The structure of a scene.

  Raises:
    ValueError: if something is missing, of another type or shape, or does not
      go with the options.
  """
  name = type(dataset).__name__
  has_masks = dataset.num_true_objects is not None
  absent = {"image", *(["mask"] if has_masks else [])} - set(spec)
  if absent:
    raise ValueError(
      f"{name}: the scenes have no {sorted(absent)}, only {sorted(spec)}."
    )
  bounds = {
    key: value
    for key in ("min_num_objects", "max_num_objects")
    if (value := getattr(dataset, key)) is not None
  }
  if bounds and not has_masks:
    given = " and ".join(f"{key}={value}" for key, value in bounds.items())
    raise ValueError(
      f"{name}: there are no masks to count objects by, so leave out {given}."
    )
  sizes = _check_shapes(dataset, spec)
  crop_region = dataset.remaining_crop()
  if crop_region is not None:
    (_, bottom), (_, right) = crop_region
    if bottom > sizes["H"] or right > sizes["W"]:
      raise ValueError(
        f"{name}: crop_region={crop_region} reaches beyond the stored image "
        f"of {sizes['H']} rows and {sizes['W']} columns."
      )


def _check_shapes(
  dataset: IODINEDataset, spec: Mapping[str, tf.TensorSpec]
) -> dict[str, int]:
  """Returns the sizes H and W of stored images."""
  channels = "C" if dataset.grayscale else str(dataset.num_channels)
  dims = {"image": f"H W {channels}"}
  if dataset.num_true_objects is not None:
    dims["mask"] = f"{dataset.num_true_objects} H W 1"
  name = type(dataset).__name__
  for key in dims:
    if spec[key].dtype != tf.uint8 or not spec[key].shape.is_fully_defined():
      raise ValueError(
        f"{name}: {key} must be uint8 of a static shape, not {spec[key]}."
      )
  if dataset.num_frames > 1 or spec["image"].shape.rank == 4:
    dims = {key: f"{dataset.num_frames} {value}" for key, value in dims.items()}
  try:
    return tiles.check_shapes(
      {key: (spec[key], value) for key, value in dims.items()}
    )
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from None
