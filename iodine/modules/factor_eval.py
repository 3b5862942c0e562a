"""Predicts the true factors of objects from the latents."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine import checks, errors, metrics
from iodine.modules import utils

__all__ = ["Factor", "FactorRegressor", "FactorResult"]


class Factor(NamedTuple):
  """A factor: its name, size of its prediction, and type.

  type: "scalar" (size values), "categorical" (size classes) or "angle" (size
  2: cosine and sine of radians).
  """

  name: str
  size: int
  type: str


TYPES = ("scalar", "categorical", "angle")

DEFAULT_MAPPING = (
  Factor("color", 3, "scalar"),
  Factor("shape", 4, "categorical"),
  Factor("scale", 1, "scalar"),
  Factor("x", 1, "scalar"),
  Factor("y", 1, "scalar"),
  Factor("orientation", 2, "angle"),
)


class FactorResult(NamedTuple):
  """Result of a `FactorRegressor`.

  Attributes:
    loss: scalar, squared errors and cross entropies (nats) summed over factors,
      averaged over visible objects.
    scalars: {name: scalar}, accuracy of a categorical factor, else R^2 with the
      running variance. As in the reference, R^2 is a mean over all B, L and n,
      in which invisible objects count as 1 and the background as an object.
    moments: {name: (mean [n], variance [n], total [n])}.
    predictions: {name: [B, 1, K, size]}.
    assignment: [B, L, K] float32, one-hot, zero for invisible objects.
  """

  loss: tf.Tensor
  scalars: dict[str, tf.Tensor]
  moments: dict[str, tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
  predictions: dict[str, tf.Tensor]
  assignment: tf.Tensor


class FactorRegressor(snt.Module):
  """A linear map from each slot's z to the factors of its object.

  Each object is assigned to the slot whose mask overlaps it most. Trained with
  the model, without passing gradients to it (reference: factor_eval.py).
  """

  def __init__(
    self,
    mapping: Sequence[Sequence] | None = None,
    name: str = "repres_content",
  ):
    """Makes a regressor for the given factors.

    Args:
      mapping: (name, size, type) per factor; None: those of Multi-dSprites.
      name: scope of the variables.

    Raises:
      ValueError: for a malformed entry or an unknown type.
    """
    super().__init__(name=name)
    entries = DEFAULT_MAPPING if mapping is None else mapping
    self._mapping = tuple(_check_factor(entry) for entry in entries)
    if not self._mapping:
      raise ValueError("mapping is empty: leave the factor_evaluator out")
    names = [m.name for m in self._mapping]
    for name in names:
      if names.count(name) > 1:
        raise ValueError(f"mapping: {name!r} appears twice")
    self._predictor = snt.Linear(
      sum(m.size for m in self._mapping), name="predict_latents"
    )
    self._moments = {
      m.name: utils.OnlineMeanVarEstimator(
        axis=[0, 1], ddof=1, name=f"{m.name}_mean_var"
      )
      for m in self._mapping
      if m.type != "categorical"
    }

  @property
  def mapping(self) -> tuple[Factor, ...]:
    """The factors, in the order of the predictor's outputs."""
    return self._mapping

  def __call__(
    self,
    z: tf.Tensor,
    factors: Mapping[str, tf.Tensor],
    visibility: tf.Tensor,
    pred_mask: tf.Tensor,
    true_mask: tf.Tensor,
    is_training: bool = True,
  ) -> FactorResult:
    """Assigns objects to slots and compares predicted with true factors.

    Args:
      z: [B, K, Z] float32.
      factors: {name: [B, L, n]}, any number type; n = 1 for categories (their
        index) and angles (radians).
      visibility: [B, L] float32, 1 for entities in the scene, background
        included, and 0 for padding.
      pred_mask: [B, K, H, W, 1] float32 in [0, 1].
      true_mask: [B, L, H, W, 1] float32 in {0, 1}.
      is_training: whether to update the running moments.

    Raises:
      ValueError: if the data lack a factor.
    """
    missing = [m.name for m in self._mapping if m.name not in factors]
    if missing:
      raise ValueError(
        f"factor_evaluator.mapping names {missing}, the data have the factors "
        f"{sorted(factors)}"
      )
    predictions = {
      name: value[:, tf.newaxis] for name, value in self.predict(z).items()
    }
    targets, moments = {}, {}
    for m in self._mapping:
      target = self.target(m, factors[m.name])
      if m.name in self._moments:
        moments[m.name] = self._moments[m.name](
          target, visibility[:, :, tf.newaxis], update=is_training
        )
      targets[m.name] = target[:, :, tf.newaxis]  # [B, L, 1, n]

    assignment = self._assign(pred_mask, true_mask, visibility)
    num_visible = tf.reduce_sum(visibility)
    errors = tf.add_n(
      [
        tf.broadcast_to(
          _error(m, targets[m.name], predictions[m.name]), tf.shape(assignment)
        )
        for m in self._mapping
      ]
    )
    loss = tf.math.divide_no_nan(
      tf.reduce_sum(assignment * errors), num_visible
    )
    scalars = {}
    for m in self._mapping:
      pair = targets[m.name], predictions[m.name]
      if m.type == "categorical":
        scalars[m.name] = _accuracy(*pair, assignment, num_visible)
      else:
        _, variance, _ = moments[m.name]
        scalars[m.name] = _r_squared(*pair, assignment, variance)
    return FactorResult(loss, scalars, moments, predictions, assignment)

  def measure(
    self, info: Mapping[str, Any]
  ) -> tuple[tf.Tensor, dict[str, Any]]:
    """Evaluates the prediction of factors from the latents of every step.

    Args:
      info: result of `SceneModel.infer` with true masks, visibility, factors.

    Returns:
      The loss [S], and a dict: assignment [B, S, L, K], metrics {name: [S]},
      predictions {name: [B, S, L, size]} from the slot assigned to each object.
    """
    data, z = info["data"], info["latent"]["z"]
    steps = [
      self(
        z[:, t],
        data["factors"],
        data["visibility"],
        info["outputs"]["pred_mask"][:, t],
        metrics.frame(data["true_mask"], t)[:, 0],
        is_training=False,
      )
      for t in range(z.shape[1])
    ]
    predictions = [
      {
        # [B, 1, K, size] to [B, L, size].
        name: tf.reduce_sum(value * step.assignment[..., tf.newaxis], axis=2)
        for name, value in step.predictions.items()
      }
      for step in steps
    ]
    return tf.stack([step.loss for step in steps]), {
      "assignment": tf.stack([step.assignment for step in steps], axis=1),
      "metrics": tf.nest.map_structure(
        lambda *x: tf.stack(x), *[step.scalars for step in steps]
      ),
      "predictions": tf.nest.map_structure(
        lambda *x: tf.stack(x, axis=1), *predictions
      ),
    }

  def predict(self, z: tf.Tensor) -> dict[str, tf.Tensor]:
    """Predicted factors: z [..., Z] float32 to {name: [..., size]}.

    Categories are logits, angles (cosine, sine).
    """
    predict = snt.BatchApply(self._predictor, z.shape.rank - 1)
    values = tf.split(predict(z), [m.size for m in self._mapping], axis=-1)
    return {m.name: v for m, v in zip(self._mapping, values, strict=True)}

  @staticmethod
  def target(factor: Factor, value: tf.Tensor) -> tf.Tensor:
    """Converts a factor to the target of the regression.

    Args:
      factor: one of the mapping.
      value: [B, L, n] values in the data, any number type.

    Returns:
      [B, L, size] float32: classes one-hot, angles as (cosine, sine).

    Raises:
      ValueError: if n does not match the factor's type.
    """
    width = factor.size if factor.type == "scalar" else 1
    checks.check_shapes({f"factor {factor.name!r}": (value, f"B L {width}")})
    if factor.type == "categorical":
      return tf.one_hot(tf.cast(value[..., 0], tf.int32), factor.size)
    value = tf.cast(value, tf.float32)
    if factor.type == "angle":
      return tf.concat([tf.cos(value), tf.sin(value)], axis=-1)
    return value

  @staticmethod
  def _assign(
    pred_mask: tf.Tensor, true_mask: tf.Tensor, visibility: tf.Tensor
  ) -> tf.Tensor:
    """The slot that overlaps each object most, one-hot [B, L, K]."""
    overlap = tf.einsum("blhwc,bkhwc->blk", true_mask, pred_mask)
    best = tf.argmax(overlap, axis=2)
    return tf.one_hot(best, pred_mask.shape[1]) * visibility[:, :, tf.newaxis]


def _check_factor(entry: Sequence) -> Factor:
  if not isinstance(entry, list | tuple) or len(entry) != len(Factor._fields):
    raise ValueError(f"mapping: {entry!r}: must be (name, size, type)")
  factor = Factor(*entry)
  checks.check(
    checks.size_fault(f"mapping: size of {factor.name!r}", factor.size)
  )
  if factor.type not in TYPES:
    raise ValueError(
      f"mapping: type {factor.type!r} of {factor.name!r}: unknown. "
      + errors.did_you_mean(factor.type, TYPES)
    )
  if factor.type == "angle" and factor.size != 2:
    raise ValueError(f"mapping: size of angle {factor.name!r}: must be 2")
  return factor


def _error(factor: Factor, target: tf.Tensor, pred: tf.Tensor) -> tf.Tensor:
  """Error of every slot for every object: [B, L, K]."""
  if factor.type == "categorical":
    shape = tf.broadcast_dynamic_shape(tf.shape(target), tf.shape(pred))
    return tf.nn.softmax_cross_entropy_with_logits(
      labels=tf.broadcast_to(target, shape), logits=tf.broadcast_to(pred, shape)
    )
  return tf.reduce_sum(tf.square(target - pred), axis=-1)


def _accuracy(
  target: tf.Tensor,
  pred: tf.Tensor,
  assignment: tf.Tensor,
  num_visible: tf.Tensor,
) -> tf.Tensor:
  """Share of objects classified correctly: [B, L, 1, n], [B, 1, K, n]."""
  correct = tf.equal(tf.argmax(target, axis=-1), tf.argmax(pred, axis=-1))
  hits = tf.cast(correct, tf.float32) * assignment
  return tf.math.divide_no_nan(tf.reduce_sum(hits), num_visible)


def _r_squared(
  target: tf.Tensor,
  pred: tf.Tensor,
  assignment: tf.Tensor,
  variance: tf.Tensor,
) -> tf.Tensor:
  """1 - squared error / variance [n], mean over all B, L and n."""
  squares = tf.square(target - pred) * assignment[..., tf.newaxis]
  return tf.reduce_mean(1.0 - tf.reduce_sum(squares, axis=2) / variance)
