"""Notebook sliders that show the effect of a slot's latents.

They need the package ipywidgets. Without it, or without a running kernel, a
picture is shown instead.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from iodine import exploration
from iodine.pictures import decompositions
from iodine.pictures.latents import importance_text
from iodine.scene_model import SceneModel

__all__ = ["LatentSliders", "explore_latents"]

# Values span at least +/- this, in standard deviations or, of samples, from the
# lowest to the highest.
_EXTENT = {"posterior": 3.0, "prior": 3.0, "samples": 1.0}
_PANEL = 1.2  # width of a panel, in inches

_LOG = logging.getLogger(__name__)


def explore_latents(
  model: SceneModel, info: Mapping[str, Any]
) -> LatentSliders | Figure:
  """Makes sliders that change a latent of a slot, above the decoded scene.

  Args:
    model: model that inferred `info`.
    info: result of `exploration.infer`.

  Returns:
    An object that a notebook displays: the sliders or, without ipywidgets, the
    first scene as inferred.
  """
  try:
    import ipywidgets
  except ImportError:
    _LOG.warning(
      "The sliders need the package ipywidgets, which the extra `notebook` "
      "installs (in a checkout: pip install '.[notebook]'). This is a picture."
    )
    scene = _Scene(model, info, 0)
    return scene.figure(0, scene.latents[0])
  return LatentSliders(ipywidgets, model, info)


class LatentSliders:
  """Sliders for scene, slot, latent and its value, above the decoded scene.

  Choosing a scene, slot, latent or range resets the value to the inferred one.

  Attributes:
    scene: scene of the batch, counted from 1.
    slot: slot, counted from 1; initially an object's.
    latent: latent, counted from 0; the most important first.
    range_of: range that scales the value, see `exploration.latent_range`.
    value: value of the latent, from the centre of its range, in its unit.
    message: inferred value or error message.
    picture: PNG of image, reconstruction, masks and slots.
  """

  def __init__(
    self, widgets: ModuleType, model: SceneModel, info: Mapping[str, Any]
  ):
    """Makes the sliders and draws the first scene.

    Args:
      widgets: the package ipywidgets.
      model: model that inferred `info`.
      info: result of `exploration.infer`.
    """
    self._model, self._info = model, info
    self._decoded = _Scene(model, info, 0)
    num_scenes, _, num_slots, _ = info["latent"]["z"].shape
    ranges = exploration.possible_ranges(model, info)
    slot = exploration.object_slot(info)
    importance = exploration.latent_importance(
      model, info, slot, range_of=ranges[0]
    )
    self.scene = widgets.IntSlider(min=1, max=num_scenes, description="Scene")
    self.slot = widgets.IntSlider(slot + 1, 1, num_slots, description="Slot")
    self.latent = widgets.SelectionSlider(
      options=[
        (f"{i} ({importance_text(ranges[0], importance[i])})", int(i))
        for i in np.argsort(-importance)
      ],
      description="Latent",
    )
    self.value = widgets.FloatSlider(
      step=0.05, readout_format="+.2f", description="Value"
    )
    self.range_of = widgets.ToggleButtons(options=ranges, description="Range")
    self.message = widgets.Label()
    self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
    controls = (self.scene, self.slot, self.latent, self.value, self.range_of)
    self._box = widgets.VBox(
      [
        widgets.HBox([self.scene, self.slot]),
        widgets.HBox([self.latent, self.value]),
        widgets.HBox([self.range_of, self.message]),
        self.picture,
      ]
    )
    for control in controls:
      control.observe(self._on_change, "value")
    self._reset_value()
    self._draw()

  def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
    """The sliders, with a picture where they cannot be shown."""
    return {
      **self._box._repr_mimebundle_(**kwargs),
      "image/png": base64.b64encode(self.picture.value).decode(),
      "text/plain": "Sliders for scene, slot, latent and value",
    }

  def _on_change(self, change: Mapping[str, Any]) -> None:
    try:
      if self.scene.value - 1 != self._decoded.b:
        self._decoded = _Scene(self._model, self._info, self.scene.value - 1)
      if change["owner"] is not self.value:
        self._reset_value()
      self._draw()
    except Exception as error:  # A widget's callback would hide it.
      _LOG.exception("The picture of the sliders cannot be drawn")
      self.message.value = f"{type(error).__name__}: {error}"

  def _range(self) -> tuple[float, float]:
    """Centre and unit of the latent."""
    centre, unit = exploration.latent_range(
      self._model, self._info, self.slot.value - 1, self.range_of.value
    )
    return centre[self.latent.value], unit[self.latent.value]

  def _inferred(self) -> float:
    """The inferred value, from the centre, in units."""
    centre, unit = self._range()
    latents = self._decoded.latents[self.slot.value - 1]
    return float((latents[self.latent.value] - centre) / unit)

  def _reset_value(self) -> None:
    """Resets the value to the inferred one, without drawing."""
    inferred = self._inferred()
    self.value.unobserve(self._on_change, "value")
    try:
      self.value.max = max(_EXTENT[self.range_of.value], abs(inferred))
      self.value.min = -self.value.max
      self.value.value = inferred
    finally:
      self.value.observe(self._on_change, "value")

  def _draw(self) -> None:
    slot, (centre, unit) = self.slot.value - 1, self._range()
    latents = self._decoded.latents[slot].copy()
    latents[self.latent.value] = centre + self.value.value * unit
    png = io.BytesIO()
    self._decoded.figure(slot, latents).savefig(png, format="png")
    self.picture.value = png.getvalue()
    self.message.value = f"Inferred: {self._inferred():+.2f}"


class _Scene:
  """A scene after the last refinement step, with slots decoded once.

  Attributes:
    b: index in the batch, from 0.
    latents: [K, Z], see `exploration.inferred_latents`.
  """

  def __init__(self, model: SceneModel, info: Mapping[str, Any], b: int):
    self.b = b
    self.latents = exploration.inferred_latents(info)[b]
    self._model = model
    self._image = info["data"]["image"][b, -1]
    self._slots = exploration.decode_slots(model, self.latents)

  def figure(self, slot: int, latents: np.ndarray) -> Figure:
    """Draws the scene with latents [Z] of one slot; decodes only that slot.

    The other slots stay as inferred.
    """
    components, logits = (array.copy() for array in self._slots)
    changed = exploration.decode_slots(self._model, latents)
    components[slot], logits[slot] = changed
    recons, masks = exploration.compose(components, logits)
    return decompositions.decomposition_plot(
      self._image[np.newaxis],
      recons[np.newaxis],
      masks[np.newaxis],
      components[np.newaxis],
      size=_PANEL,
    )
