"""Which latents have sliders, what these are called, and how far they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from iodine import exploration
from iodine.pictures.latents import importance_text
from iodine.scene_model import SceneModel

__all__ = [
  "EXTENTS",
  "NUM_SHOWN",
  "RANGE_TEXTS",
  "latent_name",
  "ordered_names",
]

NUM_SHOWN = 8  # latents that have sliders at first
# Values span at least +/- this, in standard deviations or, of samples, from the
# lowest to the highest.
EXTENTS = {"posterior": 3.0, "prior": 3.0, "samples": 1.0}
RANGE_TEXTS = {
  "posterior": "standard deviations from the mean of this batch",
  "prior": "standard deviations from the prior's mean",
  "samples": "from this batch's lowest value (\u22121) to its highest (+1)",
}
_PLACE_NAMES = ("x", "y")


def ordered_names(
  model: SceneModel,
  info: Mapping[str, Any],
  slot: int,
  range_of: str,
  factor_of: Callable[[int], str] | None = None,
) -> dict[int, str]:
  """Names all latents, those of a place first, then the most important.

  Args:
    model: the model that made `info`, and which `can("compose")`.
    info: result of `exploration.infer`.
    slot: slot of the first scene whose latents are ranked, where their
      importance depends on it.
    range_of: see `exploration.latent_range`.
    factor_of: what else to say of a latent, such as `Correlations.name`.

  Returns:
    {latent: its name, with its importance}.
  """
  places = model.place_latents or ()
  names = {latent: latent_name(model, latent) for latent in places}
  latents: Sequence[int] = range(model.n_z)
  texts = [latent_name(model, latent).capitalize() for latent in latents]
  if factor_of is not None:
    parts = zip(texts, map(factor_of, latents), strict=True)
    texts = [": ".join(filter(None, pair)) for pair in parts]
  # To render a scene for every value of every latent takes too long.
  if model.can("decode_slots"):
    importance = exploration.latent_importance(
      model, info, slot, range_of=range_of
    )
    for latent, value in enumerate(importance):
      texts[latent] += f", {importance_text(range_of, value)}"
    latents = np.argsort(-importance, kind="stable").tolist()
  return names | {k: texts[k] for k in latents if k not in names}


def latent_name(model: SceneModel, latent: int) -> str:
  """The name of a latent without its importance."""
  places = model.place_latents or ()
  if latent in places:
    return _PLACE_NAMES[places.index(latent)]
  return f"latent {latent}"
