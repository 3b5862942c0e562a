"""Notebook sliders that change the latents of slots.

They need the package ipywidgets. Without it, or without a running kernel, a
picture is shown instead.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from iodine import exploration
from iodine.pictures import compositions, saving
from iodine.pictures.latent_controls import (
  EXTENTS,
  NUM_SHOWN,
  RANGE_TEXTS,
  latent_name,
  ordered_names,
)
from iodine.scene_model import SceneModel

__all__ = ["LatentSliders", "explore_latents"]

_PLACE_TEXT = (
  "x, y: shares of the image's width and height, from its upper left corner"
)
_SAVED = pathlib.Path("pictures")
_PANEL = 1.2  # width of a panel, in inches
_SLIDER = 14  # least width of a slider and its number, in em
_DIGIT = 0.6  # width of a character of a description, in em

_LOG = logging.getLogger(__name__)


def explore_latents(
  model: SceneModel,
  info: Mapping[str, Any],
  names: Callable[[int], str] | None = None,
) -> LatentSliders | Figure:
  """Makes sliders that change the latents of slots, above the edited scene.

  Args:
    model: model that inferred `info`, and which `can("compose")`.
    info: result of `exploration.infer`.
    names: what else to say of a latent, such as `Correlations.name`.

  Returns:
    An object that a notebook displays: the sliders or, without ipywidgets, the
    first scene as inferred.

  Raises:
    ValueError: if the model renders no scenes from slots that it infers.
  """
  try:
    import ipywidgets
  except ImportError:
    _LOG.warning(
      "The sliders need the package ipywidgets, which the extra `notebook` "
      "installs (in a checkout: pip install '.[notebook]'). This is a picture."
    )
    scene = exploration.EditedScene(model, info)
    return _figure(scene, exploration.object_slot(info))
  return LatentSliders(ipywidgets, model, info, names)


class LatentSliders:
  """Sliders for all latents of a slot, above the edited scene.

  Changes stay while another slot or scene is chosen, until they are reset.

  Attributes:
    scene: scene of the batch, counted from 1.
    slot: slot, counted from 1; initially an object's.
    range_of: range that scales the values, see `exploration.latent_range`.
    values: {latent: its slider}, counted from 0; x and y of the slot's place
      first, if latents tell it, then the most important. A value is from the
      centre of the range, in its unit; x and y are as in
      `exploration.slot_places`. Most are made only when `show_all` is on.
    show_all: whether there are sliders for all latents, not only for the first.
    reset: button that resets the slot to what was inferred.
    reset_all: button that resets all slots of the scene.
    save: button that writes the picture as PDF and PNG into the folder
      `pictures`.
    message: what differs from what was inferred, the file just written, or
      an error message.
    picture: PNG of the scene, see `compositions.edited_plot`.
  """

  def __init__(
    self,
    widgets: ModuleType,
    model: SceneModel,
    info: Mapping[str, Any],
    names: Callable[[int], str] | None = None,
  ):
    """Makes the sliders and draws the first scene.

    Args:
      widgets: the package ipywidgets.
      model: model that inferred `info`.
      info: result of `exploration.infer`.
      names: see `explore_latents`.

    Raises:
      ValueError: see `explore_latents`.
    """
    self._widgets, self._model, self._info = widgets, model, info
    self._scenes = {0: exploration.EditedScene(model, info)}
    self._places = model.place_latents or ()
    self._settling = False
    ranges = exploration.possible_ranges(model, info)
    num_scenes, _, num_slots, _ = info["latent"]["z"].shape
    slot = exploration.object_slot(info)
    self._names = ordered_names(model, info, slot, ranges[0], names)
    self.scene = widgets.IntSlider(1, 1, num_scenes, description="Scene")
    self.slot = widgets.IntSlider(slot + 1, 1, num_slots, description="Slot")
    self.range_of = widgets.ToggleButtons(
      options=ranges,
      description="Range",
      tooltips=[RANGE_TEXTS[name] for name in ranges],
    )
    self.show_all = widgets.ToggleButton(
      description=f"All {len(self._names)} latents",
      layout={} if len(self._names) > NUM_SHOWN else {"display": "none"},
    )
    self.reset = widgets.Button(description="Reset slot")
    self.reset_all = widgets.Button(description="Reset all slots")
    self.save = widgets.Button(description="Save as PDF")
    self.message = widgets.Label()
    self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
    self.values: dict[int, Any] = {}
    column = f"minmax({self._description_width() + _SLIDER:.0f}em, 1fr)"
    self._grid = widgets.GridBox(
      layout={"grid_template_columns": f"repeat(auto-fill, {column})"}
    )
    self._box = self._arranged()
    for control in (self.scene, self.slot, self.range_of, self.show_all):
      control.observe(self._guarded(self._settle), "value")
    self.reset.on_click(self._guarded(self._reset_slot))
    self.reset_all.on_click(self._guarded(self._reset_all))
    self.save.on_click(self._guarded(self._save, redraws=False))
    self._settle()
    self._draw()

  def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
    """The sliders, with a picture where they cannot be shown."""
    return {
      **self._box._repr_mimebundle_(**kwargs),
      "image/png": base64.b64encode(self.picture.value).decode(),
      "text/plain": "Sliders for the latents of a slot",
    }

  # --- Parts ------------------------------------------------------------------

  def _arranged(self) -> Any:
    """All widgets in a box."""
    widgets = self._widgets
    texts = [f"{k}: {RANGE_TEXTS[k]}" for k in self.range_of.options]
    if self._places:
      texts.append(_PLACE_TEXT)
    wrapped = functools.partial(widgets.HBox, layout={"flex_flow": "row wrap"})
    return widgets.VBox(
      [
        wrapped([self.scene, self.slot, self.reset, self.reset_all, self.save]),
        wrapped([self.range_of, self.show_all]),
        widgets.HTML("; ".join(texts) + "."),
        self._grid,
        self.message,
        self.picture,
      ]
    )

  def _description_width(self) -> float:
    """Width of the longest name, in em."""
    return _DIGIT * max(map(len, self._names.values()))

  def _make_slider(self, latent: int) -> Any:
    """A slider for a latent, whose value and bounds are set later."""
    is_place = latent in self._places
    slider = self._widgets.FloatSlider(
      min=-1.0,
      max=1.0,
      step=0.01 if is_place else 0.05,
      readout_format=".2f" if is_place else "+.2f",
      description=self._names[latent],
      # Whole scenes take too long to follow the mouse.
      continuous_update=self._model.can("decode_slots"),
      style={"description_width": f"{self._description_width():.0f}em"},
      layout={"width": "auto"},
    )
    changed = functools.partial(self._change, latent)
    slider.observe(self._guarded(changed), "value")
    return slider

  # --- Reactions --------------------------------------------------------------

  def _guarded(
    self, action: Callable[[], None], redraws: bool = True
  ) -> Callable[[Any], None]:
    """A callback that acts and draws; errors show, which it would hide."""

    def react(_: Any) -> None:
      if self._settling:
        return
      try:
        action()
        if redraws:
          self._draw()
      except Exception as error:
        _LOG.exception("The sliders cannot do this")
        self.message.value = f"{type(error).__name__}: {error}"

    return react

  def _change(self, latent: int) -> None:
    """Sets a latent of the slot to the value of its slider."""
    value, z = self.values[latent].value, self._latents()
    if latent in self._places:
      places = exploration.slot_places(self._model, z)
      places[self._places.index(latent)] = value
      z[:] = exploration.put_slots(self._model, z, places)
    else:
      centre, unit = self._range()
      z[latent] = centre[latent] + value * unit[latent]

  def _reset_slot(self) -> None:
    slot = self.slot.value - 1
    self._latents()[:] = self._edited().inferred[slot]
    self._settle()

  def _reset_all(self) -> None:
    scene = self._edited()
    scene.latents[:] = scene.inferred
    self._settle()

  def _save(self) -> None:
    _SAVED.mkdir(exist_ok=True)
    name = f"scene_{self.scene.value}_slot_{self.slot.value}"
    figure = _figure(self._edited(), self.slot.value - 1)
    saving.replace(figure, _SAVED, f"{name}.png", "pdf")
    self.message.value = f"Wrote {_SAVED / name}.pdf"

  def _settle(self) -> None:
    """Sets all sliders to the slot's latents, without drawing."""
    shown = list(self._names)[: None if self.show_all.value else NUM_SHOWN]
    for latent in shown:
      if latent not in self.values:
        self.values[latent] = self._make_slider(latent)
    self._grid.children = [self.values[latent] for latent in shown]
    inferred = self._edited().inferred[self.slot.value - 1]
    both = np.stack([inferred, self._latents()])
    centre, unit = self._range()
    offsets = (both - centre) / unit
    if self._places:
      places = exploration.slot_places(self._model, both)
    extent = EXTENTS[self.range_of.value]
    self._settling = True
    try:
      for latent, slider in self.values.items():
        if latent in self._places:
          ends = places[:, self._places.index(latent)].tolist()
          low, high = min(0.0, *ends), max(1.0, *ends)
        else:
          ends = offsets[:, latent].tolist()
          high = max(extent, *map(abs, ends))
          low = -high
        slider.min, slider.max, slider.value = low, high, ends[1]
    finally:
      self._settling = False

  # --- The scene --------------------------------------------------------------

  def _edited(self) -> exploration.EditedScene:
    """The chosen scene."""
    b = self.scene.value - 1
    if b not in self._scenes:
      self._scenes[b] = exploration.EditedScene(self._model, self._info, b)
    return self._scenes[b]

  def _latents(self) -> np.ndarray:
    """Latents [Z] of the chosen slot; a view."""
    return self._edited().latents[self.slot.value - 1]

  def _range(self) -> tuple[np.ndarray, np.ndarray]:
    """Centre and unit of the slot's latents, [Z] each."""
    return exploration.latent_range(
      self._model, self._info, self.slot.value - 1, self.range_of.value
    )

  def _draw(self) -> None:
    scene, png = self._edited(), io.BytesIO()
    _figure(scene, self.slot.value - 1).savefig(png, format="png")
    self.picture.value = png.getvalue()
    changes = []
    for slot, changed in enumerate(scene.changed):
      names = [
        latent_name(self._model, k) for k in np.flatnonzero(changed).tolist()
      ]
      if names:
        changes.append(f"slot {slot + 1}: {', '.join(names)}")
    self.message.value = (
      f"Changed: {'; '.join(changes)}" if changes else "As inferred"
    )


def _figure(scene: exploration.EditedScene, slot: int) -> Figure:
  return compositions.edited_plot(scene.render(), slot, size=_PANEL)
