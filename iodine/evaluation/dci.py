"""Disentanglement, completeness and informativeness of slots.

Eastwood & Williams (2018), "A framework for the quantitative evaluation of
disentangled representations", for the slots of objects as in EfficientMORL's
published code. Needs scikit-learn, the extra `dci`.

Dimensions: N scenes, L true entities, K slots, Z latent size, h and w height
and width of the true masks, M objects, F factors.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy import optimize

from iodine import exploration
from iodine.errors import ConfigError
from iodine.evaluation.efficient_morl import resized
from iodine.evaluation.scores import Score
from iodine.scene_model import SceneModel

__all__ = [
  "Objects",
  "check_installed",
  "completeness",
  "disentanglement",
  "match_objects",
  "matched_objects",
  "scores",
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


def check_installed() -> None:
  """Raises ConfigError unless there is scikit-learn."""
  try:
    import sklearn  # noqa: F401
  except ImportError:
    raise ConfigError(
      "dci: needs scikit-learn, which the extra `dci` installs (in a checkout: "
      "pip install '.[dci]')"
    ) from None


def match_objects(
  true_mask: np.ndarray, pred_mask: np.ndarray, is_object: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Assigns objects of a scene to slots, for the largest sum of IoUs.

  Args:
    true_mask: [L, h, w], above 0 where an entity is.
    pred_mask: [K, h, w]; the largest owns a pixel.
    is_object: [L] bool, which entities are objects in the scene.

  Returns:
    Indices of entities and of their slots, as many of each. Without objects of
    fewer than 50 pixels, and those of an IoU below 0.1.
  """
  entities = np.flatnonzero(is_object)
  true = (true_mask[entities] > 0).reshape(len(entities), -1)
  owners = pred_mask.argmax(axis=0).ravel()
  pred = owners == np.arange(len(pred_mask))[:, np.newaxis]
  overlap = true.astype(np.float64) @ pred.T
  union = true.sum(axis=1)[:, np.newaxis] + pred.sum(axis=1) - overlap
  iou = overlap / np.maximum(union, 1)
  rows, slots = optimize.linear_sum_assignment(iou, maximize=True)
  kept = (true.sum(axis=1)[rows] >= _LEAST_PIXELS) & (
    iou[rows, slots] >= _LEAST_IOU
  )
  return entities[rows[kept]], slots[kept]


def matched_objects(
  model: SceneModel,
  batches: Iterable[Mapping[str, Any]],
  seed: int,
  on_progress: Callable[[int], object] = lambda scenes: None,
) -> Objects:
  """Collects the objects of scenes with the latents of their slots.

  Args:
    model: restored model.
    batches: batches with masks of any size, visibility and factors.
    seed: seed of the noise, see `exploration.scene_noise`.
    on_progress: called with the number of scenes of every batch.

  Returns:
    The objects, of posterior means, or of z without a posterior. A factor
    "shape" or of integers is one of categories; of several columns, each is a
    factor by itself.

  Raises:
    ConfigError: if the model infers no slots or masks, or the data have no
      factors.
  """
  infer = tf.function(
    lambda image, noise: _codes_and_masks(model, image, noise), autograph=False
  )
  codes: list[np.ndarray] = []
  factors: dict[str, list[np.ndarray]] = {}
  done = 0
  for batch in batches:
    if not batch.get("factors"):
      raise ConfigError("dci: the data have no factors of objects")
    size = int(batch["image"].shape[0])
    noise = exploration.scene_noise(model, seed, range(done, done + size))
    of_batch, masks = infer(batch["image"], noise)
    masks = resized(masks, batch["mask"].shape[3:5])[..., 0].numpy()
    true_masks = batch["mask"][:, -1, ..., 0].numpy()
    is_object = batch["visibility"].numpy() > 0
    is_object[:, : model.num_background_entities] = False
    columns = _columns(batch["factors"])
    for b in range(size):
      entities, slots = match_objects(true_masks[b], masks[b], is_object[b])
      codes.append(of_batch[b].numpy()[slots])
      for name, values in columns.items():
        factors.setdefault(name, []).append(values[b, entities])
    done += size
    on_progress(size)
  return Objects(
    np.concatenate(codes), {k: np.concatenate(v) for k, v in factors.items()}
  )


def _codes_and_masks(
  model: SceneModel, image: tf.Tensor, noise: Any
) -> tuple[tf.Tensor, tf.Tensor]:
  """Codes [B, K, Z], and masks [B, K, H, W, 1] that they decode to."""
  info = model.infer({"image": image}, noise)
  masks = info["outputs"].get("pred_mask")
  if "z" not in info.get("latent", {}) or masks is None:
    raise ConfigError(
      f"dci: a {type(model).__name__} does not infer slots with masks"
    )
  codes = exploration.inferred_latents(info)
  if model.can("decode_slots"):
    return codes, model.compose(codes).masks
  return codes, masks[:, -1]


def _columns(factors: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
  """{name: [B, L]} of factors [B, L, n], each column by itself."""
  columns = {}
  for name, values in factors.items():
    count = values.shape[-1]
    for i in range(count):
      column = values[..., i].numpy()
      if name == "shape":
        column = np.rint(column).astype(np.int64)
      columns[name if count == 1 else f"{name}_{i}"] = column
  return columns


def scores(objects: Objects, as_published: bool = False) -> dict[str, Score]:
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

  Returns:
    {"dci/disentanglement", "dci/completeness", "dci/informativeness"}.

  Raises:
    ConfigError: if there are too few objects.
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
  fitted = [
    _fit(objects.codes, values, train, test, as_published)
    for values in objects.factors.values()
    if len(set(values[train])) > 1
  ]
  if not fitted:
    raise ConfigError("dci: all objects have the same factors")
  importances, rates = zip(*fitted, strict=True)
  matrix = np.stack(importances, axis=1)
  named = {
    "disentanglement": disentanglement(matrix),
    "completeness": completeness(matrix),
    "informativeness": float(np.mean(rates)),
  }
  return {
    f"dci/{name}": Score(value, None, None, 0, (value,))
    for name, value in named.items()
  }


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
