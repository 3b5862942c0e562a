"""Compares variables by the published names that a record has for them.

A record may have, of every variable, gradient/NAME and gradient_norm/NAME at
step 0, and after training after/NAME or change/NAME, adam_m/NAME, adam_v/NAME,
adam_m_norm/NAME and adam_v_norm/NAME.
"""

import importlib.util
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import tf1_checkpoint, training
from iodine.models import published
from iodine.runs import checkpoint_files
from iodine.scene_model import SceneModel
from tests.parity.report import Pair, Report, relative_error

# Relative L2 errors per tensor, from the records' READMEs: those of gradients,
# and of what training changes.
GRADIENTS = 1e-4
CHANGES = 5e-3
# The group of variables on whose gradients rounding alone decides: there, Adam
# magnifies noise to whole steps. Shares of the norm of all gradients, and of
# the sum of the learning rates, that are not exceeded.
ROUNDING = "rounding alone"
_NOISE = 1e-5
_MOST_STEPS = 10.0
_MOMENTS = {"m": "adam_m", "v": "adam_v"}

Values = Mapping[str, np.ndarray]


def values_of(model: SceneModel) -> dict[str, np.ndarray]:
  """{name: value} of a model's variables."""
  return {v.name.partition(":")[0]: v.numpy() for v in model.variables}


def moments_of(
  values: Values, optimizer: training.Optimizer, kind: str
) -> dict[str, np.ndarray]:
  """{name of each value: its moment "m" or "v"}, zeros if it has none."""
  moments = {name: np.zeros_like(value) for name, value in values.items()}
  for name, slot in optimizer.slots.items():
    moments[name.partition(":")[0]] = slot[kind].numpy()
  return moments


class Variables:
  """The variables of a model and of its record."""

  def __init__(
    self,
    table: published.Table,
    model: SceneModel,
    weights: Values,
    undecided: Sequence[str],
    constants: Values,
  ):
    """Prepares comparisons.

    Args:
      table: of the published names.
      model: has its variables.
      weights: the recorded ones before training.
      undecided: names, or NAME[i] of one entry, that rounding decides on.
      constants: {published name: value here} of what is no variable here.
    """
    self._table = table
    self._weights = weights
    self._full_names = published.full_names(model.variables)
    self._constants = constants
    self._undecided: dict[str, list[int]] = {}
    for text in undecided:
      match = re.fullmatch(r"(.*?)(?:\[(\d+)\])?", text)
      assert match is not None
      entries = self._undecided.setdefault(match[1], [])
      if match[2]:
        entries.append(int(match[2]))

  def is_undecided(self, name: str) -> bool:
    """Whether rounding decides on all of a variable."""
    return self._undecided.get(name) == []

  def load(self, report: Report, model: SceneModel) -> None:
    """Gives a model the recorded weights; each has to have its place."""
    values = model.published_weights(self._weights)
    if values is None:
      report.fail("weights", "the model does not know these weights")
      return
    restored = tf1_checkpoint.restore_values(values, "weights.npz", model)
    for kind, names in (
      ("without a value", restored.missing),
      ("left over", restored.unused),
    ):
      if names:
        report.fail("weights", f"{kind}: {', '.join(names[:8])}")

  def pair(
    self, name: str, own: Values, recorded: np.ndarray, is_whole: bool = False
  ) -> Pair:
    """A recorded value and that here, flat and in the layout here.

    Args:
      name: the published name.
      own: values by the names here.
      recorded: the recorded value.
      is_whole: whether entries that rounding decides on stay; else they are 0
        in both.
    """
    found = published.places(name, self._table)
    if not found:
      return Pair(self._constants.get(name, np.nan), recorded)
    expected = [place.layout(recorded) for place in found]
    actual = [np.asarray(own.get(n, np.nan)) for n in self._names_here(name)]
    shapes = [[np.shape(x) for x in values] for values in (actual, expected)]
    if shapes[0] != shapes[1]:
      return Pair(np.nan, recorded)
    flat = [
      np.concatenate([np.asarray(x, np.float64).ravel() for x in values])
      for values in (actual, expected)
    ]
    if not is_whole:
      for values in flat:
        values[self._undecided.get(name, [])] = 0.0
    return Pair(*flat)

  def published(self, name: str, own: Values) -> np.ndarray:
    """A value here in the published layout; NaN without one.

    Args:
      name: the published name, of one of the weights.
      own: values by the names here.
    """
    shape = self._weights[name].shape
    value = np.full(shape, np.nan)
    order = np.arange(value.size).reshape(shape)
    found = published.places(name, self._table) or ()
    for place, full in zip(found, self._names_here(name), strict=True):
      value.flat[place.layout(order).ravel()] = own[full].ravel()
    return value

  def decided(self, name: str, pair: Pair) -> Pair:
    """A pair in which what rounding decides on is 0."""
    values = [np.array(value) for value in pair]
    for value in values:
      value.flat[self._undecided.get(name, [])] = 0.0
    return Pair(*values)

  def _names_here(self, name: str) -> list[str]:
    """Full names of the variables here of a published name."""
    found = published.places(name, self._table) or ()
    return [self._full_names.get(place.name, place.name) for place in found]

  def compare(
    self, report: Report, group: str, prefix: str, own: Values, bound: float
  ) -> None:
    """Compares recorded arrays PREFIX/NAME with values here."""
    report.compare(group, self._pairs(report, prefix, own), bound)

  def compare_norms(
    self, report: Report, group: str, prefix: str, own: Values, bound: float
  ) -> None:
    """Compares recorded norms PREFIX/NAME with those of values here."""
    pairs = {}
    for key, name in self._names(report, prefix):
      norms = [
        np.linalg.norm(own.get(n, np.nan)) for n in self._names_here(name)
      ]
      pairs[key] = Pair(np.linalg.norm(norms), report.recorded[key])
    report.compare(group, pairs, bound)

  def compare_gradients(self, report: Report, gradients: Values) -> None:
    """Compares gradients at step 0, and their norms."""
    self.compare(report, "gradients", "gradient", gradients, GRADIENTS)
    self.compare_norms(
      report, "gradient norms", "gradient_norm", gradients, GRADIENTS
    )

  def compare_changes(
    self,
    report: Report,
    before: Values,
    after: Values,
    prefix: str = "after",
    bound: float = CHANGES,
  ) -> None:
    """Compares what training changed.

    Args:
      report: of the case.
      before: values here before training.
      after: those after it.
      prefix: of the recorded values after it.
      bound: for the error of every change.
    """
    pairs = {}
    for key, name in self._names(report, prefix):
      new = self.pair(name, after, report.recorded[key])
      if name in self._constants:
        pairs[key] = new
        continue
      old = self.pair(name, before, self._weights[name])
      pairs[key] = Pair(
        new.actual - old.actual, np.asarray(new.expected) - old.expected
      )
    group = "changes" if prefix == "after" else f"changes {prefix}"
    report.compare(group, pairs, bound)

  def compare_moments(
    self, report: Report, after: Values, optimizer: training.Adam
  ) -> None:
    """Compares Adam's moments after training, or their norms."""
    for kind, prefix in _MOMENTS.items():
      moments = moments_of(after, optimizer, kind)
      if report.starting(f"{prefix}/"):
        self.compare(report, prefix, prefix, moments, CHANGES)
      if report.starting(f"{prefix}_norm/"):
        self.compare_norms(
          report, f"norm of {prefix}", f"{prefix}_norm", moments, CHANGES
        )

  def compare_restored(
    self, report: Report, model: SceneModel, optimizer: training.Adam
  ) -> None:
    """Compares what was restored from a checkpoint after training, exactly."""
    values = values_of(model)
    parts = {
      "after": values,
      **{p: moments_of(values, optimizer, k) for k, p in _MOMENTS.items()},
    }
    pairs = {}
    for prefix, own in parts.items():
      for key in report.starting(f"{prefix}/"):
        name = key.removeprefix(f"{prefix}/")
        pairs[key] = self.pair(name, own, report.recorded[key], is_whole=True)
    report.equal("checkpoint", pairs)

  def compare_undecided(
    self,
    report: Report,
    gradients: Values,
    changes: Values,
    optimizer: training.Adam,
    rates: Sequence[Any],
  ) -> None:
    """Checks that what rounding decides on is no more than rounding.

    Gradients that would be 0 without it are small beside the others, and no
    step is longer than a few times the learning rate.

    Args:
      report: of the case.
      gradients: those here at step 0.
      changes: what training changed here.
      optimizer: after training.
      rates: learning rates of all steps.
    """
    norms = [np.linalg.norm(gradient) for gradient in gradients.values()]
    noise = _NOISE * float(np.linalg.norm(norms))
    moments = {k: moments_of(changes, optimizer, k) for k in _MOMENTS}
    limits: dict[str, tuple[Values, float]] = {
      "gradient": (gradients, noise),
      "after": (changes, _MOST_STEPS * float(np.sum(rates))),
      "change": (changes, _MOST_STEPS * float(np.sum(rates))),
      "adam_m": (moments["m"], noise),
      "adam_v": (moments["v"], noise**2),
    }
    pairs = {}
    for prefix, (own, limit) in limits.items():
      for name, entries in self._undecided.items():
        (name_here,) = self._names_here(name)
        for key in (f"{prefix}/{name}", f"{prefix}_norm/{name}"):
          # Of single entries, there is no norm.
          if key in report.recorded and not (entries and "_norm/" in key):
            recorded = report.recorded[key]
            if prefix == "after":
              recorded = recorded - self._weights[name]
            pairs[key] = Pair(
              *(
                np.max(np.abs(np.ravel(x)[entries or slice(None)])) / limit
                for x in (own[name_here], recorded)
              )
            )
    report.compare(ROUNDING, pairs, 1.0, error=np.maximum, is_optional=True)

  def _pairs(self, report: Report, prefix: str, own: Values) -> dict[str, Pair]:
    return {
      key: self.pair(name, own, report.recorded[key])
      for key, name in self._names(report, prefix)
    }

  def _names(self, report: Report, prefix: str) -> list[tuple[str, str]]:
    """Keys PREFIX/NAME and names, less those that rounding decides on."""
    return [
      (key, name)
      for key in report.starting(f"{prefix}/")
      if not self.is_undecided(name := key.removeprefix(f"{prefix}/"))
    ]


def gradients_of(
  model: SceneModel, data: Mapping[str, Any], noise: Any, step: int = 0
) -> dict[str, np.ndarray]:
  """{name: gradient of the loss at a step}, zeros where there is none."""
  variables = model.trainable_variables
  with tf.GradientTape() as tape:
    total = model(data, noise=noise, step=tf.constant(step, tf.int64)).total
  gradients = tape.gradient(
    total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
  )
  named = {
    variable.name.partition(":")[0]: tf.convert_to_tensor(gradient).numpy()
    for variable, gradient in zip(variables, gradients, strict=True)
  }
  zeros = {name: np.zeros_like(v) for name, v in values_of(model).items()}
  return {**zeros, **named}


def check_torch_file(
  path: pathlib.Path, model: SceneModel, report: Report
) -> None:
  """Compares what is restored from a file of PyTorch with a model's weights.

  Args:
    path: of the file.
    model: has the weights that the file holds.
    report: of the case.
  """
  if importlib.util.find_spec("torch") is None:
    report.tell(path.name, "not read, as the package torch is not installed")
    return
  expected = values_of(model)
  for variable in model.variables:
    variable.assign(tf.zeros_like(variable))
  checkpoint_files.restore(str(path), model)
  actual = values_of(model)
  errors = [relative_error(actual[name], expected[name]) for name in expected]
  if max(errors) > 0:
    report.fail(path.name, f"differs from weights.npz by {max(errors):.1e}")
  else:
    report.tell(path.name, f"{len(errors):>4} variables")
