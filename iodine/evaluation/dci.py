"""Disentanglement, completeness and informativeness of slots.

Eastwood & Williams (2018), "A framework for the quantitative evaluation of
disentangled representations", for the slots of objects as in EfficientMORL's
published code. Needs scikit-learn, the extra `dci`.

Dimensions: N scenes, L true entities, K slots, Z latent size, M objects, F
factors.
"""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from iodine.errors import ConfigError
from iodine.evaluation import factors as true_factors
from iodine.evaluation.matching import by_cost
from iodine.evaluation.representations import Representations

__all__ = [
  "Disentanglement",
  "Objects",
  "check_installed",
  "completeness",
  "disentanglement",
  "is_installed",
  "match_objects",
  "matched_objects",
  "measure",
]

_LEAST_PIXELS = 50  # of an object
_LEAST_IOU = 0.1  # of an object and its slot
_LEAST_OBJECTS = 20  # for halves to learn from and to test on
_SPLIT_SEED = 5
_EPSILON = 1e-11  # of importances, before they are normalised


class Objects(NamedTuple):
  """Objects of many scenes, each in a slot.

  Attributes:
    codes: [M, Z], the slots' latents.
    factors: {name: [M]}, true factors; of integers, if they are categories.
  """

  codes: np.ndarray
  factors: dict[str, np.ndarray]


class Disentanglement(NamedTuple):
  """How single latents stand for single factors.

  Attributes:
    disentanglement: see the function of this name.
    completeness: likewise.
    informativeness: how well latents predict factors that were not seen.
    importances: [Z, F], of each latent for each factor.
    factors: F names.
    num_objects: M.
  """

  disentanglement: float
  completeness: float
  informativeness: float
  importances: np.ndarray
  factors: tuple[str, ...]
  num_objects: int


def is_installed() -> bool:
  """Whether there is scikit-learn."""
  return importlib.util.find_spec("sklearn") is not None


def check_installed() -> None:
  """Raises ConfigError unless there is scikit-learn."""
  if not is_installed():
    raise ConfigError(
      "dci: needs scikit-learn, which the extra `dci` installs (in a checkout: "
      "pip install '.[dci]')"
    )


def match_objects(
  iou: np.ndarray,
  pixels: np.ndarray,
  is_object: np.ndarray,
  least_pixels: int = _LEAST_PIXELS,
) -> tuple[np.ndarray, np.ndarray]:
  """Assigns objects of a scene to slots, for the largest sum of IoUs.

  Args:
    iou: [L, K], see `Representations`.
    pixels: [L], of each entity.
    is_object: [L] bool, which entities are objects in the scene.
    least_pixels: of an object that counts.

  Returns:
    Indices of entities and of their slots, as many of each. Without objects of
    fewer pixels, and those of an IoU below 0.1.
  """
  (slots,) = by_cost(-iou[np.newaxis], is_object[np.newaxis])
  is_kept = (slots >= 0) & (pixels >= least_pixels)
  is_kept &= iou[np.arange(len(slots)), slots] >= _LEAST_IOU
  entities = np.flatnonzero(is_kept)
  return entities, slots[entities]


def matched_objects(
  scenes: Representations, least_pixels: int = _LEAST_PIXELS
) -> Objects:
  """Collects the objects of scenes with the latents of their slots.

  Args:
    scenes: of a model with masks.
    least_pixels: of an object that counts.

  Returns:
    The objects. Of a factor of several columns, each is a factor by itself.
  """
  assert scenes.iou is not None
  places: list[np.ndarray] = []  # [3, m]: scenes, entities, slots
  for b, measures in enumerate(
    zip(scenes.iou, scenes.pixels, scenes.is_object, strict=True)
  ):
    entities, slots = match_objects(*measures, least_pixels)
    places.append(np.stack([np.full_like(slots, b), entities, slots]))
  b, entities, slots = np.concatenate(places, axis=1)
  apart = true_factors.columns(scenes.factors)
  return Objects(
    scenes.codes[b, slots],
    {name: values[b, entities] for name, values in apart.items()},
  )


def measure(
  objects: Objects,
  as_published: bool = False,
  on_progress: Callable[[int], object] = lambda factors: None,
) -> Disentanglement:
  """Scores how well single latents stand for single factors.

  Gradient boosting predicts every factor from the latents of one half of the
  objects; the importances of the latents give disentanglement and completeness,
  predictions of the other half informativeness.

  Args:
    objects: the objects; factors of one value are left out.
    as_published: whether factors of categories are regressed, too, and
      informativeness is the share of predictions that equal a factor exactly,
      as in the published code; else it is the mean of the accuracies of
      categories and the R^2 of the others.
    on_progress: called with 1 after every factor.

  Raises:
    ConfigError: if there are too few objects, or all are alike.
  """
  from sklearn import model_selection

  count = len(objects.codes)
  if count < _LEAST_OBJECTS:
    raise ConfigError(
      f"dci: {count} objects were found in slots, and {_LEAST_OBJECTS} are "
      "needed; raise num_scenes, or take a model that finds objects"
    )
  train, test = model_selection.train_test_split(
    np.arange(count), test_size=0.5, random_state=_SPLIT_SEED
  )
  fitted, names = [], []
  for name, values in objects.factors.items():
    if len(set(values[train])) > 1:
      names.append(name)
      fitted.append(_fit(objects.codes, values, train, test, as_published))
    on_progress(1)
  if not fitted:
    raise ConfigError("dci: all objects have the same factors")
  columns, rates = zip(*fitted, strict=True)
  importances = np.stack(columns, axis=1)
  return Disentanglement(
    disentanglement(importances),
    completeness(importances),
    float(np.mean(rates)),
    importances,
    tuple(names),
    count,
  )


def _fit(
  codes: np.ndarray,
  values: np.ndarray,
  train: np.ndarray,
  test: np.ndarray,
  as_published: bool,
) -> tuple[np.ndarray, float]:
  """Importances [Z] of latents for a factor [M], and how well they tell it."""
  from sklearn import ensemble

  kind = ensemble.GradientBoostingRegressor
  if np.issubdtype(values.dtype, np.integer) and not as_published:
    kind = ensemble.GradientBoostingClassifier
  estimator = kind(random_state=_SPLIT_SEED).fit(codes[train], values[train])
  importances = np.abs(estimator.feature_importances_)
  if as_published:
    is_equal = estimator.predict(codes[test]) == values[test]
    return importances, float(np.mean(is_equal))
  return importances, float(estimator.score(codes[test], values[test]))


def disentanglement(importance: np.ndarray) -> float:
  """How far every latent stands for one factor, weighted by its importance.

  Args:
    importance: [Z, F], not negative.

  Returns:
    A number in [0, 1].
  """
  return _concentration(importance)


def completeness(importance: np.ndarray) -> float:
  """How far every factor is in one latent; see `disentanglement`."""
  return _concentration(importance.T)


def _concentration(rows: np.ndarray) -> float:
  """1 - entropy of every row, to the base of its length, weighted by sums."""
  if not (total := rows.sum()):
    return 0.0
  shares = rows + _EPSILON
  shares = shares / shares.sum(axis=1, keepdims=True)
  entropy = -np.sum(shares * np.log(shares), axis=1) / np.log(rows.shape[1])
  return float(np.sum((1.0 - entropy) * rows.sum(axis=1)) / total)
