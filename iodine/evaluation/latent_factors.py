"""Measures which true factor every latent follows, over many scenes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from iodine import exploration
from iodine.evaluation import dci, representations
from iodine.evaluation.factors import type_of
from iodine.scene_model import SceneModel

__all__ = ["measure"]

_LEAST_PIXELS = 5  # of an object that counts
_LEAST_OBJECTS = 20


def measure(
  model: SceneModel,
  batches: Iterable[Mapping[str, Any]],
  seed: int,
  on_progress: Callable[[int], object] = lambda scenes: None,
) -> exploration.Correlations | None:
  """Correlates the latents of slots with the factors of the objects in them.

  Args:
    model: restored model that infers slots.
    batches: see `representations.infer`.
    seed: see `representations.infer`.
    on_progress: called with the number of scenes of every batch.

  Returns:
    The correlations over all visible objects that `dci.matched_objects` finds,
    small ones, too; without angles, which wind around. None without masks, such
    factors, or enough objects in slots.
  """
  scenes = representations.infer(model, batches, seed, on_progress=on_progress)
  if scenes.iou is None:
    return None
  scenes = scenes._replace(
    factors={
      name: values
      for name, values in scenes.factors.items()
      if type_of(name, values.dtype) != "angle"
    }
  )
  objects = dci.matched_objects(scenes, _LEAST_PIXELS)
  varied = {k: v for k, v in objects.factors.items() if len(set(v)) > 1}
  if len(objects.codes) < _LEAST_OBJECTS or not varied:
    return None
  return exploration.correlate(objects.codes, varied)
