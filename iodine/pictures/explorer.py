"""The part of a page that decodes scenes anew as a reader changes their slots.

A script runs the model's decoder by TensorFlow.js, which lies in the folder
web/tensorflow_js, without a network.
"""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import colors as mpl_colors
from PIL import Image

from iodine import exploration
from iodine.exploration import tfjs_graph
from iodine.pictures import animations, latent_controls, sections
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.page import WEB, Widget
from iodine.scene_model import SceneModel

__all__ = ["SCRIPT_FILE", "explorer"]

SCRIPT_FILE = "explore.js"

_RUNTIME = WEB / "tensorflow_js"
_RUNTIME_SCRIPTS = ("tf-core", "tf-converter", "tf-backend-wasm")

_LOG = logging.getLogger(__name__)


def explorer(
  model: SceneModel,
  info: Mapping[str, Any],
  factor_of: Callable[[int], str] | None = None,
) -> Widget | None:
  """Makes the part of a page that explores scenes.

  Args:
    model: model that inferred `info`.
    info: result of `exploration.infer`.
    factor_of: what else to say of a latent, such as `Correlations.name`.

  Returns:
    The part; its script is to be written to the file `SCRIPT_FILE` beside the
    page. None for a model that does not decode slots individually, or whose
    decoder TensorFlow.js cannot run.
  """
  is_possible = sections.can_traverse(model, info) and sections.can_edit(
    model, info
  )
  if not is_possible:
    return None
  try:
    graph = tfjs_graph.decoder_graph(model)
  except ValueError as error:
    _LOG.info("The page has no sliders: %s", error)
    return None
  data = {**_graph_data(graph), **_scene_data(model, info, factor_of)}
  return Widget(
    html=_text("explore.html"),
    style=_text("explore.css"),
    script_file=SCRIPT_FILE,
    script="\n".join(
      [
        *(_text(f"tensorflow_js/{x}.es2017.min.js") for x in _RUNTIME_SCRIPTS),
        f"const EXPLORED = {json.dumps(data)};",
        _text("explore.js"),
      ]
    ),
  )


def _text(name: str) -> str:
  return (WEB / name).read_text(encoding="utf-8")


def _graph_data(graph: tfjs_graph.TfjsGraph) -> dict[str, Any]:
  """What the script loads the decoder from."""
  wasm = (_RUNTIME / "tfjs-backend-wasm-simd.wasm").read_bytes()
  return {
    "wasm": base64.b64encode(wasm).decode(),
    "topology": graph.topology,
    "weight_specs": graph.weight_specs,
    "weights": base64.b64encode(graph.weights).decode(),
    "outputs": tfjs_graph.OUTPUTS,
  }


def _scene_data(
  model: SceneModel,
  info: Mapping[str, Any],
  factor_of: Callable[[int], str] | None,
) -> dict[str, Any]:
  """The scenes, and what their sliders need."""
  range_of = exploration.possible_ranges(model, info)[0]
  slot = exploration.object_slot(info)
  centre, unit = exploration.latent_range(model, info, slot, range_of)
  names = latent_controls.ordered_names(model, info, slot, range_of, factor_of)
  colors = get_mask_plot_colors(model.num_components)
  return {
    "image_shape": model.image_shape,
    "scenes": [
      {
        "image": _data_url(info["data"]["image"][b, -1]),
        "latents": latents.tolist(),
        "object": exploration.object_slot(info, b),
      }
      for b, latents in enumerate(exploration.inferred_latents(info))
    ],
    "colors": [mpl_colors.to_hex(color) for color in colors],
    "latents": [{"index": k, "name": name} for k, name in names.items()],
    "centre": centre.tolist(),
    "unit": unit.tolist(),
    "extent": latent_controls.EXTENTS[range_of],
    "num_shown": latent_controls.NUM_SHOWN,
    "range_text": f"Values are {latent_controls.RANGE_TEXTS[range_of]}.",
  }


def _data_url(image: np.ndarray) -> str:
  """A PNG of an image [H, W, C], as an address that holds it."""
  pixels = animations.to_uint8(np.broadcast_to(image, (*image.shape[:2], 3)))
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
