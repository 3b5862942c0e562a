"""Scores of a model over many scenes, for every refinement step.

Dimensions: N scenes, B batch, S steps, L true entities,
K slots, n size of a factor.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import exploration
from iodine.compiling import compiled
from iodine.data.batch import check_pixels
from iodine.metrics import SCENE_SCORES
from iodine.modules.factor_eval import Factor, FactorRegressor
from iodine.scene_model import SceneModel

__all__ = ["OWN", "Evaluation", "Protocol", "Score", "evaluate"]

# {name: [B, ...]} of every draw, of every batch.
_Batches = list[list[dict[str, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Score:
  """One score after the last refinement step, and after every step.

  Attributes:
    mean: mean over scenes, except those where it is NaN (without objects, say).
      A factor's score is over all objects of all scenes, and a set score, such
      as average precision, over all scenes at once.
    std: standard deviation over scenes; None for factors and set scores.
    stderr: standard error of the mean; None for factors and set scores.
    undefined: number of scenes left out as NaN.
    per_step: mean after every step, S numbers.
    measure: what the score of a factor is: "accuracy" or "R^2"; else None.
  """

  mean: float
  std: float | None
  stderr: float | None
  undefined: int
  per_step: tuple[float, ...]
  measure: str | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Result of `evaluate`.

  Attributes:
    scenes: N.
    scores: {name: Score}: those of `SCENE_SCORES` that the data allows, those
      of `SceneModel.set_scores`, and factor/<name>: accuracy of a categorical
      factor, else R^2.
    images_per_second: throughput, without the first batch, which compiles.
    first_step: number of the first step, see `SceneModel`.
  """

  scenes: int
  scores: Mapping[str, Score]
  images_per_second: float
  first_step: int = 0


class Protocol(NamedTuple):
  """How scenes are scored.

  Attributes:
    measure: of a model, a batch and its noise: what is compared, as tensors.
      {"scenes": {name: [B, S]}, "factors": {name: ...}, "records": {name:
      [B, ...]}}, of which the last two may be missing.
    ddof: N - ddof divides the squares of a standard deviation over N scenes.
  """

  measure: Callable[[SceneModel, Mapping[str, Any], Any], dict[str, Any]]
  ddof: int


def evaluate(
  model: SceneModel,
  batches: Iterable[Mapping[str, Any]],
  batch_size: int,
  seed: int,
  num_samples: int = 1,
  on_progress: Callable[[int], object] = lambda scenes: None,
  protocol: Protocol | None = None,
  xla: bool = False,
) -> Evaluation:
  """Scores a model, without keeping the scenes' pixels in memory.

  A scene's noise depends only on `seed` and the scene's index. The scores do
  not depend on the batch size if the model does not, such as IODINE with a
  fixed `inner_batch_size`.

  Args:
    model: restored model.
    batches: batches of at most `batch_size` scenes, see `SceneModel.__call__`.
    batch_size: B; smaller batches are padded.
    seed: seed of the noise, at least 0.
    num_samples: posterior draws per scene, over which its scores are averaged.
    on_progress: called with the number of scenes of every batch.
    protocol: how scenes are scored; None: `OWN`.
    xla: whether XLA compiles what the model computes of a batch.

  Returns:
    The scores.

  Raises:
    ValueError: if there is no scene, or a pixel is outside [0, 1].
  """
  protocol = OWN if protocol is None else protocol
  measure = compiled(functools.partial(protocol.measure, model), xla)
  collected = _Collected(model, num_samples, protocol.ddof)
  done, timed, start = 0, 0, 0.0
  for batch in batches:
    check_pixels(batch["image"])
    size = int(batch["image"].shape[0])
    batch = tf.nest.map_structure(lambda x: _fill(x, batch_size), dict(batch))
    scenes = range(done, done + batch_size)
    for draw in range(num_samples):
      noise = exploration.scene_noise(model, seed, scenes, draw)
      measured = tf.nest.map_structure(
        lambda x, size=size: x.numpy()[:size], measure(batch, noise)
      )
      collected.add(draw, measured)
    done += size
    timed += size if start else 0
    start = start or time.perf_counter()
    on_progress(size)
  if not done:
    raise ValueError("there is no scene to evaluate")
  rate = timed / (time.perf_counter() - start) if timed else float("nan")
  return Evaluation(done, collected.scores(), rate, model.first_step)


class _Collected:
  """What was measured of all scenes so far, in every draw."""

  def __init__(self, model: SceneModel, num_samples: int, ddof: int):
    self._model = model
    self._ddof = ddof
    self._mapping = {factor.name: factor for factor in _mapping(model)}
    self._factors: dict[str, _FactorScore] = {}
    self._scenes: _Batches = [[] for _ in range(num_samples)]
    self._records: _Batches = [[] for _ in range(num_samples)]

  def add(self, draw: int, measured: Mapping[str, Any]) -> None:
    """Adds what a protocol measured of a batch."""
    self._scenes[draw].append(measured["scenes"])
    self._records[draw].append(measured.get("records", {}))
    for name, values in measured.get("factors", {}).items():
      if name not in self._factors:
        self._factors[name] = _FactorScore(self._mapping[name])
      self._factors[name].add(values)

  def scores(self) -> dict[str, Score]:
    """Statistics of all scenes, see `Evaluation`."""
    scenes, records = map(_joined, (self._scenes, self._records))
    return {
      **_scene_scores(scenes, self._ddof),
      **_set_scores(self._model, records),
      **{f"factor/{k}": value.score() for k, value in self._factors.items()},
    }


def _joined(draws: _Batches) -> list[dict[str, np.ndarray]]:
  """Joins the batches [B, ...] of every draw to [N, ...]."""
  return [
    {k: np.concatenate([batch[k] for batch in batches]) for k in batches[0]}
    for batches in draws
  ]


def _scene_scores(
  draws: list[dict[str, np.ndarray]], ddof: int
) -> dict[str, Score]:
  """Statistics of a scene's means over draws of {name: [N, S]}."""
  return {
    name: _scene_score(np.mean([draw[name] for draw in draws], axis=0), ddof)
    for name in SCENE_SCORES
    if name in draws[0]
  }


def _set_scores(
  model: SceneModel, draws: list[dict[str, np.ndarray]]
) -> dict[str, Score]:
  """Scores of all scenes at once, as means over the draws of their records."""
  if not draws[0]:
    return {}
  sets = [model.set_scores(records) for records in draws]
  scores = {}
  for name in sets[0]:
    steps = np.mean([one[name] for one in sets], axis=0)
    per_step = tuple(float(value) for value in steps)
    scores[name] = Score(per_step[-1], None, None, 0, per_step)
  return scores


def _fill(value: tf.Tensor, size: int) -> tf.Tensor:
  """Repeats the last scene to make `size` scenes."""
  missing = size - int(value.shape[0])
  return tf.concat([value, tf.repeat(value[-1:], missing, axis=0)], axis=0)


def _mapping(model: SceneModel) -> tuple[Factor, ...]:
  evaluator = model.factor_evaluator
  return () if evaluator is None else evaluator.mapping


def _measure(
  model: SceneModel, batch: Mapping[str, Any], noise: Any
) -> dict[str, Any]:
  """Returns what is compared of a batch, see `Protocol`.

  When compiled, `eval` computes only the results used here.
  """
  info = model.eval(batch, noise=noise)
  scenes, losses = dict(info["metrics"]), info.get("losses", {})
  if "recons" in losses:
    scenes["recons"] = losses["recons"]
  if "kl" in losses:
    scenes["kl"] = tf.reduce_sum(losses["kl"], axis=2)
  if {"recons", "kl"} <= scenes.keys():
    scenes["elbo"] = -(scenes["recons"] + scenes["kl"])
  factors = {}
  if "factor_regressor" in info:
    factors = {
      factor.name: _compare_factor(factor, info, model.num_background_entities)
      for factor in _mapping(model)
    }
  records = model.records(info)
  return {"scenes": scenes, "factors": factors, "records": records}


OWN = Protocol(_measure, ddof=1)


def _compare_factor(
  factor: Factor, info: Mapping[str, Any], num_background_entities: int
) -> dict[str, tf.Tensor]:
  """Returns targets [B, L, n], predictions [B, S, L, n], weights [B, L]."""
  data = info["data"]
  entities = tf.range(data["visibility"].shape[1])
  is_object = tf.cast(entities >= num_background_entities, tf.float32)
  return {
    "target": FactorRegressor.target(factor, data["factors"][factor.name]),
    "prediction": info["factor_regressor"]["predictions"][factor.name],
    "weight": data["visibility"] * is_object,
  }


def _scene_score(values: np.ndarray, ddof: int) -> Score:
  """Statistics of [N, S] values."""
  defined = ~np.isnan(values)
  counts = defined.sum(axis=0)
  with np.errstate(invalid="ignore", divide="ignore"):
    sums = np.where(defined, values, 0.0).astype(np.float64).sum(axis=0)
    means = sums / counts
    squares = np.where(defined, values - means, 0.0) ** 2
    # 0 / 0 = NaN for too few scenes.
    std = np.sqrt(squares.sum(axis=0) / np.maximum(counts - ddof, 0))[-1]
  return Score(
    mean=float(means[-1]),
    std=float(std),
    stderr=float(std / np.sqrt(counts[-1])) if counts[-1] else float("nan"),
    undefined=int(len(values) - counts[-1]),
    per_step=tuple(float(m) for m in means),
  )


class _FactorScore:
  """Accuracy or R^2 of visible foreground objects, accumulated over batches."""

  def __init__(self, factor: Factor):
    self._is_category = factor.type == "categorical"
    self._count = 0.0
    self._hits: Any = 0.0  # [S]
    self._errors: Any = 0.0  # [S, n]
    # Moments are taken about the first batch's mean, so that their difference
    # stays accurate when the mean is large compared to the spread.
    self._origin: np.ndarray | None = None
    self._sum: Any = 0.0  # [n]
    self._squares: Any = 0.0  # [n]

  def add(self, values: Mapping[str, np.ndarray]) -> None:
    """Adds a batch."""
    weight = values["weight"].astype(np.float64)  # [B, L]
    target = values["target"].astype(np.float64)  # [B, L, n]
    prediction = values["prediction"].astype(np.float64)  # [B, S, L, n]
    self._count += weight.sum()
    if self._is_category:
      right = prediction.argmax(-1) == target.argmax(-1)[:, np.newaxis]
      self._hits += (right * weight[:, np.newaxis]).sum(axis=(0, 2))
      return
    errors = (prediction - target[:, np.newaxis]) ** 2
    errors = errors * weight[:, np.newaxis, :, np.newaxis]
    self._errors += errors.sum(axis=(0, 2))
    if self._origin is None:
      self._origin = target.mean(axis=(0, 1))
    target = (target - self._origin) * weight[..., np.newaxis]
    self._sum += target.sum(axis=(0, 1))
    self._squares += (target**2).sum(axis=(0, 1))

  def score(self) -> Score:
    """Returns the score over all objects so far."""
    with np.errstate(invalid="ignore", divide="ignore"):
      if self._is_category:
        steps = self._hits / self._count
      else:
        spread = self._squares - self._sum**2 / self._count
        steps = (1.0 - self._errors / spread).mean(axis=-1)
    per_step = tuple(float(s) for s in np.atleast_1d(steps))
    measure = "accuracy" if self._is_category else "R^2"
    return Score(per_step[-1], None, None, 0, per_step, measure)
