"""Arrays of what a model inferred, checked before anything is drawn.

`rinfo` is the result of the model's `eval` as NumPy arrays. Dimensions: B
batch, F frames, T steps, K slots, L true entities, H height, W width, C
channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from iodine.checks import check_shapes

__all__ = ["example", "get", "index"]


def example(rinfo: Mapping[str, Any], b: int) -> dict[str, np.ndarray]:
  """Returns the arrays of example `b` without their batch dimension."""
  dims = {
    "recons": "B T 1 H W C",
    "pred_mask": "B T K H W 1",
    "components": "B T K H W C",
  }
  if "pred_mask_logits" in rinfo.get("outputs", {}):
    dims["pred_mask_logits"] = "B T K H W 1"
  arrays = {name: get(rinfo, "outputs", name) for name in dims}
  # A still image has one frame, a sequence at least one per step.
  arrays["image"] = get(rinfo, "data", "image")
  dims["image"] = "B F H W C"
  if rinfo["data"].get("true_mask") is not None:
    arrays["true_mask"] = get(rinfo, "data", "true_mask")
    dims["true_mask"] = "B F L H W 1"
  sizes = check_shapes({k: (arrays[k], dims[k]) for k in dims})
  b = index("b", b, sizes["B"])
  return {name: array[b] for name, array in arrays.items()}


def get(rinfo: Mapping[str, Any], section: str, name: str) -> Any:
  """Returns `rinfo[section][name]`, a dict or an array."""
  values = rinfo.get(section, {})
  if name not in values:
    raise ValueError(
      f"rinfo['{section}']['{name}'] is missing; rinfo['{section}'] has: "
      f"{', '.join(sorted(values)) or 'nothing'}."
    )
  value = values[name]
  return value if isinstance(value, Mapping) else np.asarray(value)


def index(name: str, index: int, length: int) -> int:
  """Returns `index` counted from the start."""
  if not -length <= index < length:
    raise ValueError(
      f"{name}={index} is out of range; valid: {-length} to {length - 1}."
    )
  return index % length
