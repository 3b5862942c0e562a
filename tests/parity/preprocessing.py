"""Agreement with Google's preprocessing of CLEVR for Slot Attention.

A case is a folder:
  inputs.npz: image [h, w, 3] uint8; of four objects 3d_coords [4, 3] in scene
    units, and the classes size, material, shape, color [4], from 0 on.
  expected.npz: object_discovery_image and set_prediction_image [128, 128, 3] in
    [-1, 1], with and without a crop, and set_prediction_target [10, 19].
"""

import pathlib

import numpy as np
import tensorflow as tf

from iodine.data.datasets import CLEVR
from iodine.data.preprocessing import preprocess
from iodine.models.slot_attention import Properties
from iodine.models.slot_attention.base import scaled
from tests.parity import cases
from tests.parity.report import Report, largest_difference

_ABSOLUTE = 1e-6


def check(folder: pathlib.Path) -> Report:
  """Holds the data's pipeline against a case; see `tests.parity.check`."""
  inputs = cases.read_arrays(folder / "inputs.npz")
  recorded = cases.read_arrays(folder / "expected.npz")
  report = Report(folder.name, recorded)
  example = {"image": tf.constant(inputs["image"])}
  image_dim, crop = CLEVR.image_dim, CLEVR.crop_region

  def image(crop_region) -> tf.Tensor:
    scene = preprocess(example, image_dim, crop_region, half_pixel_centers=True)
    return scaled(scene["image"][0])

  actual = {
    "object_discovery_image": image(crop),
    "set_prediction_image": image(None),
    "set_prediction_target": _target(
      inputs, len(recorded["set_prediction_target"])
    ),
  }
  report.compare(
    "preprocessing",
    report.known(actual),
    _ABSOLUTE,
    error=largest_difference,
  )
  return report


def _target(inputs: dict[str, np.ndarray], count: int) -> np.ndarray:
  """Objects and padding, as the model encodes them: [count, 19]."""
  padding = count - len(inputs["3d_coords"])

  def padded(value: np.ndarray) -> tf.Tensor:
    # Nothing stands for the background, of which there is none.
    return tf.constant(np.pad(value, [(0, padding), (0, 0)])[None])

  names = ("size", "material", "shape", "color")
  data = {
    "visibility": padded(np.ones([count - padding, 1], np.float32))[..., 0],
    "factors": {
      "location": padded(inputs["3d_coords"]),
      # Classes are counted from 1 in the data here.
      **{name: padded(inputs[name][:, None] + 1) for name in names},
    },
  }
  return Properties().encode(data, num_background_entities=0)[0].numpy()
