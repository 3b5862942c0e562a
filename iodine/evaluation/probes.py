"""Predicts the properties of objects from slots, with small probes.

Dittadi et al. (2022), "Generalization and Robustness Implications in
Object-Centric Learning". All slots share a probe; the representations stay as
they are. docs/probes.md has the protocol.

Dimensions: N scenes, B batch, L true entities, K slots, Z latent size, D size
of a target.
"""

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import training
from iodine.errors import ConfigError
from iodine.evaluation import matching
from iodine.evaluation.factors import Encoding, Property
from iodine.evaluation.representations import Representations
from iodine.training.schedules import Schedule

__all__ = [
  "BASELINE",
  "MOST_STEPS",
  "PROBES",
  "Examples",
  "Trained",
  "examples",
  "scores",
  "split",
  "train",
]

# {name: hidden layers}.
PROBES = {"linear": 0, "mlp1": 1, "mlp2": 2, "mlp3": 3}
BASELINE = "dummy"  # the same for all slots: what is known without them

_HIDDEN, _SLOPE = 256, 0.01
_BATCH = 64
_LEARN_RATE, _HALVED_AT = 1e-3, (2000, 4000)
MOST_STEPS = 6000
_CHECK_STEPS = 250
_PATIENCE = 3  # checks without an improvement
_IMPROVEMENT = 0.01


def split(count: int, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
  """How many scenes are for tests, training and validation.

  Args:
    count: scenes that there are, at most the sum of `sizes`.
    sizes: scenes that are wanted for each.

  Returns:
    These, or fewer in the same proportions.

  Raises:
    ConfigError: if there are too few scenes to split.
  """
  if count >= sum(sizes):
    return sizes
  test, _, validation = (max(1, size * count // sum(sizes)) for size in sizes)
  rest = count - test - validation
  if rest < 1:
    raise ConfigError(
      f"probe: the data have {count} scenes, too few to train, validate and "
      "test a probe"
    )
  return test, rest, validation


class Examples(NamedTuple):
  """Scenes as a probe sees them.

  Attributes:
    codes: [N, K, Z] float32.
    targets: [N, L, D] float32, see `Encoding.encode`.
    is_object: [N, L] bool.
    is_modified: [N, L] bool, which objects a shift has modified.
    slots: [N, L] int32, the slot of each object, see `matching.by_cost`; None:
      matched by the loss.
  """

  codes: tf.Tensor
  targets: tf.Tensor
  is_object: tf.Tensor
  is_modified: tf.Tensor
  slots: tf.Tensor | None

  @property
  def num_scenes(self) -> int:
    """N."""
    return int(self.codes.shape[0])

  def take(self, indices: Any) -> "Examples":
    """Scenes of these indices."""
    return Examples._make(
      None if x is None else tf.gather(x, indices) for x in self
    )


def examples(
  scenes: Representations, encoding: Encoding, match_by: str
) -> Examples:
  """Makes examples of scenes.

  Args:
    scenes: representations; with masks, if they are to match. To train with,
      those without modified objects.
    encoding: of the training scenes.
    match_by: one of `matching.MATCHINGS`.
  """
  targets = encoding.encode(scenes.factors)
  slots = None
  if match_by == "mask":
    assert scenes.cosine is not None
    slots = matching.by_cost(1.0 - scenes.cosine, scenes.is_object)
  elif match_by == "order":
    count = scenes.codes.shape[1]
    slots = matching.in_order(targets, scenes.is_object, count)
  return Examples(
    tf.constant(scenes.codes),
    tf.constant(targets),
    tf.constant(scenes.is_object),
    tf.constant(scenes.is_modified),
    None if slots is None else tf.constant(slots),
  )


class _Constant(snt.Module):
  """Predicts the same whatever it is given."""

  def __init__(self, size: int):
    super().__init__(name=BASELINE)
    self._value = tf.Variable(tf.zeros([size]), name="value")

  def __call__(self, codes: tf.Tensor) -> tf.Tensor:
    shape = tf.concat([tf.shape(codes)[:-1], tf.shape(self._value)], axis=0)
    return tf.broadcast_to(self._value, shape)


class _Uniform(snt.initializers.Initializer):
  """Weights of PyTorch's linear layers: within 1 / sqrt(inputs)."""

  def __init__(self, rng: np.random.Generator):
    self._rng = rng

  def __call__(self, shape: Any, dtype: tf.DType) -> tf.Tensor:
    bound = 1.0 / math.sqrt(shape[0])
    return tf.constant(self._rng.uniform(-bound, bound, shape), dtype)


def _make(
  name: str, num_inputs: int, size: int, rng: np.random.Generator
) -> snt.Module:
  """Makes a probe, [B, K, Z] to [B, K, D], with its variables."""
  if name == BASELINE:
    return _Constant(size)
  mlp = snt.nets.MLP(
    [_HIDDEN] * PROBES[name] + [size],
    w_init=_Uniform(rng),
    activation=lambda x: tf.nn.leaky_relu(x, _SLOPE),
    name=name,
  )
  probe = snt.BatchApply(mlp, num_dims=2)
  probe(tf.zeros([1, 1, num_inputs]))
  return probe


class _Halved(Schedule):
  """A rate that is halved at certain steps."""

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    rate = super().__call__(step)
    for start in _HALVED_AT:
      rate *= tf.where(step >= start, 0.5, 1.0)
    return rate


class Trained(NamedTuple):
  """A probe after its training.

  Attributes:
    probe: [B, K, Z] to predictions [B, K, D].
    steps: how many it took.
    losses: of the validation scenes, one for every check.
  """

  probe: Callable[[tf.Tensor], tf.Tensor]
  steps: int
  losses: tuple[float, ...]


def train(
  name: str,
  encoding: Encoding,
  training_set: Examples,
  validation_set: Examples,
  seed: int,
  on_progress: Callable[[int], object] = lambda steps: None,
) -> Trained:
  """Trains a probe until its loss on the validation scenes stays the same.

  The published code adds each check's losses to a list that it never empties,
  and compares means of the whole list, so that it stops late. Here, a check is
  the mean over the validation scenes alone.

  Args:
    name: one of `PROBES`, or `BASELINE`.
    encoding: of the training scenes.
    training_set: of which batches are drawn.
    validation_set: of which the loss is checked.
    seed: of initial weights and batches.
    on_progress: called with the number of steps since the last call.

  Returns:
    The probe as it was after the last step.
  """
  rng = np.random.default_rng(seed)
  codes = training_set.codes
  probe = _make(name, int(codes.shape[2]), encoding.size, rng)
  optimizer = training.Adam(
    _Halved(_LEARN_RATE), clip_norm=None, epsilon_form="pytorch"
  )
  optimizer.initialize(probe.trainable_variables)

  @tf.function(autograph=False, reduce_retracing=True)
  def loss_of(batch: Examples) -> tf.Tensor:
    return _loss(encoding, batch, probe(batch.codes))

  @tf.function(autograph=False)
  def step(indices: tf.Tensor) -> None:
    batch = training_set.take(indices)
    with tf.GradientTape() as tape:
      loss = _loss(encoding, batch, probe(batch.codes))
    variables = probe.trainable_variables
    optimizer.apply(tape.gradient(loss, variables), variables)

  losses: list[float] = []
  batches = _batches(training_set.num_scenes, rng)
  for number in range(1, MOST_STEPS + 1):
    step(tf.constant(next(batches)))
    on_progress(1)
    if number % _CHECK_STEPS == 0:
      losses.append(_mean_loss(loss_of, validation_set))
      if _has_stopped(losses):
        break
  return Trained(probe, number, tuple(losses))


def _batches(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Yields indices of full batches, all scenes in each epoch's own order."""
  size = min(_BATCH, count)
  while True:
    order = rng.permutation(count)
    for start in range(0, count - size + 1, size):
      yield order[start : start + size]


def _in_turn(examples: Examples) -> Iterator[Examples]:
  """Yields batches of all scenes; the last may be smaller."""
  count = examples.num_scenes
  for start in range(0, count, _BATCH):
    yield examples.take(tf.range(start, min(start + _BATCH, count)))


def _mean_loss(
  loss_of: Callable[[Examples], tf.Tensor], examples: Examples
) -> float:
  """Mean over batches, weighted by their numbers of scenes."""
  total = 0.0
  for batch in _in_turn(examples):
    total += float(loss_of(batch)) * batch.num_scenes
  return total / examples.num_scenes


def _has_stopped(losses: list[float]) -> bool:
  """Whether the last checks have brought no improvement on an earlier one."""
  best, checks = math.inf, 0
  for loss in losses:
    checks += 1
    if loss < best - _IMPROVEMENT:
      best, checks = loss, 0
  return checks >= _PATIENCE


def _loss(
  encoding: Encoding, batch: Examples, predictions: tf.Tensor
) -> tf.Tensor:
  """Mean loss [] of the matched pairs of all objects."""
  matrix = _loss_matrix(encoding, batch.targets, predictions)
  slots = _slots(batch, matrix)
  pairs = tf.gather(matrix, tf.maximum(slots, 0), axis=2, batch_dims=2)
  is_matched = tf.cast(slots >= 0, tf.float32)
  return tf.math.divide_no_nan(
    tf.reduce_sum(pairs * is_matched), tf.reduce_sum(is_matched)
  )


def _slots(batch: Examples, matrix: tf.Tensor) -> tf.Tensor:
  """The slot [B, L] of each object, see `matching.by_cost`."""
  if batch.slots is not None:
    return batch.slots
  slots = tf.numpy_function(
    matching.by_cost,
    [tf.stop_gradient(matrix), batch.is_object],
    tf.int32,
    stateful=False,
  )
  return tf.ensure_shape(slots, batch.is_object.shape)


def _loss_matrix(
  encoding: Encoding,
  targets: tf.Tensor,
  predictions: tf.Tensor,
  left_out: Collection[str] = (),
) -> tf.Tensor:
  """Losses [B, L, K] of every object and slot, summed over properties.

  Squared errors, mean over a property's columns, and cross entropies (nats);
  without those of the factors in `left_out`.
  """
  batch, entities = tf.unstack(tf.shape(targets)[:2])
  losses = [tf.zeros([batch, entities, tf.shape(predictions)[1]])]
  for item in encoding.properties:
    if item.factor in left_out:
      continue
    target, value = targets[..., item.columns], predictions[..., item.columns]
    if item.categories is not None:
      log_probs = tf.nn.log_softmax(value)
      losses.append(-tf.einsum("bln,bkn->blk", target, log_probs))
    else:
      errors = target[:, :, tf.newaxis] - value[:, tf.newaxis]
      losses.append(tf.reduce_mean(tf.square(errors), axis=-1))
  return tf.add_n(losses)


def scores(
  trained: Trained,
  encoding: Encoding,
  test_set: Examples,
  affected: Collection[str] = (),
) -> dict[str, dict[str, float]]:
  """Scores a probe over all matched objects of all scenes together.

  Args:
    trained: the probe.
    encoding: of the training scenes.
    test_set: scenes that it has not seen.
    affected: the factors that are not true of modified objects, and not scored
      there; none if no object can be modified.

  Returns:
    {objects: {property: score}} of "all", and of "modified" and "unmodified"
    objects if factors are affected. Scores are R^2 of numbers, mean over
    columns, or accuracy of categories; of a category that no training object
    has, no prediction is right. NaN without any object.
  """
  targets, predictions, modified = [], [], []
  for batch in _in_turn(test_set):
    values = trained.probe(batch.codes)
    slots = _test_slots(encoding, batch, values, affected)
    b, entities = np.nonzero(slots >= 0)
    targets.append(batch.targets.numpy()[b, entities])
    predictions.append(values.numpy()[b, slots[b, entities]])
    modified.append(batch.is_modified.numpy()[b, entities])
  true, pred = np.concatenate(targets), np.concatenate(predictions)
  is_modified = np.concatenate(modified)
  scored = {"all": np.ones_like(is_modified)}
  if affected:
    scored |= {"modified": is_modified, "unmodified": ~is_modified}
  found: dict[str, dict[str, float]] = {}
  for name, is_scored in scored.items():
    found[name] = {}
    for item in encoding.properties:
      is_true = ~is_modified | (item.factor not in affected)
      chosen = is_scored & is_true
      found[name][item.name] = _score(item, true[chosen], pred[chosen])
  return found


def _test_slots(
  encoding: Encoding,
  batch: Examples,
  predictions: tf.Tensor,
  affected: Collection[str],
) -> np.ndarray:
  """The slot [B, L] of each object, see `matching.in_two_steps`."""
  if batch.slots is not None:
    return batch.slots.numpy()
  unaffected, cost = (
    _loss_matrix(encoding, batch.targets, predictions, left_out).numpy()
    for left_out in (affected, ())
  )
  return matching.in_two_steps(
    unaffected, cost, batch.is_object.numpy(), batch.is_modified.numpy()
  )


def _score(item: Property, true: np.ndarray, pred: np.ndarray) -> float:
  """The score of a property of objects [M, D]; NaN if there are none."""
  if not len(true):
    return math.nan
  measure = _r_squared if item.categories is None else _accuracy
  return measure(true[:, item.columns], pred[:, item.columns])


def _accuracy(true: np.ndarray, pred: np.ndarray) -> float:
  """Share of objects [M, n] whose category has the largest logit."""
  guesses = np.take_along_axis(true, pred.argmax(axis=1)[:, np.newaxis], axis=1)
  return float(guesses.mean())


def _r_squared(true: np.ndarray, pred: np.ndarray) -> float:
  """R^2 of [M, n], mean over columns; of a constant, 1 or 0."""
  true, pred = true.astype(np.float64), pred.astype(np.float64)
  errors = np.sum((true - pred) ** 2, axis=0)
  spread = np.sum((true - true.mean(axis=0)) ** 2, axis=0)
  with np.errstate(invalid="ignore", divide="ignore"):
    each = np.where(spread > 0, 1.0 - errors / spread, errors == 0)
  return float(each.mean())
