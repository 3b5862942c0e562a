"""Tests for iodine.modules.factor_eval."""

import copy

import numpy as np
import pytest
import tensorflow as tf

from iodine import errors
from iodine.config import plans
from iodine.modules import factor_eval

# Odd and distinct, so that swapped axes fail.
B, K, L, H, W, Z = 3, 4, 5, 7, 2, 6
MAPPING = (
  ("position", 2, "scalar"),
  ("shape", 5, "categorical"),
  ("orientation", 2, "angle"),
  ("material", 3, "categorical"),
)
MODES = pytest.mark.parametrize("mode", ["eager", "compiled"])
# Sums of a few hundred float32 numbers of order one.
TOLERANCE = dict(rtol=1e-4, atol=1e-5)


def _build(mapping=MAPPING):
  return plans.build(
    {
      "constructor": "iodine.modules.factor_eval.FactorRegressor",
      "mapping": mapping,
    },
    "factor_evaluator",
  )


def _data(seed=0, num_examples=B):
  """Arguments of a call; some objects are not visible."""
  rng = np.random.default_rng(seed)
  slots = rng.integers(K, size=[num_examples, H, W])
  objects = rng.integers(L, size=[num_examples, H, W])
  pred_mask = 0.2 + 0.6 * (slots[:, None] == np.arange(K)[:, None, None])
  pred_mask += rng.uniform(-0.1, 0.1, size=pred_mask.shape)
  visibility = np.ones([num_examples, L])
  visibility[0, 3:] = 0
  visibility[-1, 1] = 0
  size = [num_examples, L]
  true_mask = objects[:, None] == np.arange(L)[:, None, None]
  return dict(
    z=rng.normal(size=[num_examples, K, Z]).astype("float32"),
    factors=dict(
      position=rng.normal(3.0, 2.0, size=[*size, 2]).astype("float32"),
      # As in the files: integers as bytes or as floats.
      shape=rng.integers(5, size=[*size, 1]).astype("uint8"),
      orientation=rng.uniform(0, 6.28, size=[*size, 1]).astype("float32"),
      material=rng.integers(3, size=[*size, 1]).astype("float32"),
      unused=rng.normal(size=[*size, 3]).astype("float32"),
    ),
    visibility=visibility.astype("float32"),
    pred_mask=pred_mask[..., None].astype("float32"),
    true_mask=true_mask[..., None].astype("float32"),
  )


def _call(mode, fn, data):
  """Calls `fn(**data)` eagerly, or compiled for any batch size."""
  data = tf.nest.map_structure(tf.convert_to_tensor, data)
  if mode == "eager":
    return fn(**data)
  specs = tf.nest.map_structure(
    lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), data
  )
  compiled = tf.function(
    lambda data: fn(**data), input_signature=[specs], autograph=False
  )
  return compiled(data)


def _initialize(module):
  """Creates the variables and gives the predictor random values."""
  data = tf.nest.map_structure(tf.constant, _data(seed=9))
  module(**data, is_training=False)
  rng = np.random.default_rng(1)
  for v in module.trainable_variables:
    v.assign(rng.normal(scale=0.5, size=v.shape))
  return {v.name.split("/")[-1]: v.numpy() for v in module.trainable_variables}


def _np_moments(target, visibility):
  """Weighted mean, variance (ddof 1) and number; target [N, L, n]."""
  x, weights = target.reshape(-1, target.shape[-1]), visibility.reshape(-1, 1)
  total = weights.sum()
  mean = (weights * x).sum(0) / total
  return mean, (weights * (x - mean) ** 2).sum(0) / (total - 1), total


def _np_targets(factors):
  theta = factors["orientation"]
  return dict(
    position=factors["position"].astype(float),
    shape=np.eye(5)[factors["shape"][..., 0]],
    orientation=np.concatenate([np.cos(theta), np.sin(theta)], axis=-1),
    material=np.eye(3)[factors["material"][..., 0].astype(int)],
  )


def _np_regressor(values, data, seen=()):
  """Loss, scalars, assignment and predictions, object by object.

  `seen` are the batches that the running moments know.
  """
  outputs = data["z"].astype(float) @ values["w:0"] + values["b:0"]
  sizes = np.cumsum([size for _, size, _ in MAPPING])[:-1]
  names = [name for name, _, _ in MAPPING]
  predictions = dict(zip(names, np.split(outputs, sizes, axis=-1), strict=True))
  targets = _np_targets(data["factors"])
  visibility = data["visibility"]
  variances = {
    name: _np_moments(
      np.concatenate([_np_targets(d["factors"])[name] for d in seen]),
      np.concatenate([d["visibility"] for d in seen]),
    )[1]
    for name in ("position", "orientation")
  }
  num_examples = len(visibility)
  assignment = np.zeros([num_examples, L, K])
  loss, scalars = 0.0, dict.fromkeys(names, 0.0)
  for b, entity in np.ndindex(num_examples, L):
    overlap = (data["true_mask"][b, entity] * data["pred_mask"][b]).sum(
      (1, 2, 3)
    )
    k = overlap.argmax()
    assignment[b, entity, k] = visibility[b, entity]
    for name, size, kind in MAPPING:
      target, predicted = targets[name][b, entity], predictions[name][b, k]
      if kind == "categorical":
        log_probs = predicted - np.logaddexp.reduce(predicted)
        loss -= visibility[b, entity] * (target * log_probs).sum()
        hit = target.argmax() == predicted.argmax()
        scalars[name] += visibility[b, entity] * hit / visibility.sum()
      else:
        squares = visibility[b, entity] * (target - predicted) ** 2
        loss += squares.sum()
        r_squared = (1 - squares / variances[name]).sum()
        scalars[name] += r_squared / (num_examples * L * size)
  return loss / visibility.sum(), scalars, assignment, predictions


@MODES
def test_matches_numpy_over_three_batches(mode):
  module = _build()
  values = _initialize(module)
  seen = []
  for seed, num_examples in enumerate([B, 2, B]):
    data = _data(seed, num_examples)
    seen.append(data)
    loss, scalars, moments, predictions, assignment = _call(mode, module, data)
    expected = _np_regressor(values, data, seen)
    np.testing.assert_allclose(loss, expected[0], **TOLERANCE)
    assert list(scalars) == [name for name, _, _ in MAPPING]
    for name, scalar in scalars.items():
      assert scalar.shape == []
      np.testing.assert_allclose(scalar, expected[1][name], **TOLERANCE)
      np.testing.assert_allclose(
        predictions[name], expected[3][name][:, None], **TOLERANCE
      )
    np.testing.assert_array_equal(assignment, expected[2])
    assert list(moments) == ["position", "orientation"]
    for name, found in moments.items():
      wanted = _np_moments(
        np.concatenate([_np_targets(d["factors"])[name] for d in seen]),
        np.concatenate([d["visibility"] for d in seen]),
      )
      for f, w in zip(found, wanted, strict=True):
        assert f.shape == [2]
        np.testing.assert_allclose(f, np.broadcast_to(w, [2]), **TOLERANCE)
  # Neither all right nor all wrong: what was compared could differ.
  assert 0 < scalars["shape"] < 1
  assert 0 < scalars["material"] < 1


@MODES
def test_moments_stay_without_training(mode):
  module = _build()
  values = _initialize(module)
  first, second = _data(0), _data(1, 2)
  _call(mode, module, first)
  before = [v.numpy() for v in module.variables]
  outputs = _call(mode, lambda **d: module(**d, is_training=False), second)
  for variable, value in zip(module.variables, before, strict=True):
    np.testing.assert_array_equal(variable, value)
  expected = _np_regressor(values, second, [first])
  np.testing.assert_allclose(outputs[0], expected[0], **TOLERANCE)
  for name, scalar in outputs[1].items():
    np.testing.assert_allclose(scalar, expected[1][name], **TOLERANCE)


@MODES
def test_invisible_objects_count_for_nothing_but_r_squared(mode):
  module = _build()
  _initialize(module)
  data = _data()
  assert (data["visibility"] == 0).sum() == 3
  changed = copy.deepcopy(data)
  hidden = data["visibility"] == 0
  changed["factors"]["position"][hidden] = 1e3
  changed["factors"]["shape"][hidden] = 1
  changed["factors"]["orientation"][hidden] = 0.0
  changed["factors"]["material"][hidden] = 0.0
  changed["true_mask"][hidden] = 1.0
  module(**tf.nest.map_structure(tf.constant, data))
  run = lambda **d: module(**d, is_training=False)
  before, after = _call(mode, run, data), _call(mode, run, changed)
  for old, new in zip(
    tf.nest.flatten(before), tf.nest.flatten(after), strict=True
  ):
    np.testing.assert_array_equal(old, new)
  np.testing.assert_array_equal(before[-1].numpy().sum(2), data["visibility"])


@MODES
def test_no_visible_object(mode):
  module = _build()
  _initialize(module)
  data = _data()
  _call(mode, module, data)
  data["visibility"][:] = 0.0

  def loss_and_gradients(**data):
    with tf.GradientTape() as tape:
      loss, scalars, *_ = module(**data)
    return loss, scalars, tape.gradient(loss, module.trainable_variables)

  loss, scalars, gradients = _call(mode, loss_and_gradients, data)
  assert loss == 0.0
  assert {name: float(s) for name, s in scalars.items()} == {
    "position": 1.0,
    "shape": 0.0,
    "orientation": 1.0,
    "material": 0.0,
  }
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


@MODES
def test_perfect_predictions(mode):
  # One slot an object, and z holds the factors in the predictor's order.
  module = _build()
  values = _initialize(module)
  data = _data()
  for variable in module.trainable_variables:
    value = values[variable.name.split("/")[-1]]
    variable.assign(np.eye(*value.shape) if value.ndim == 2 else 0 * value)
  objects = np.arange(H * W).reshape(H, W) % K
  masks = (objects == np.arange(K)[:, None, None]).astype("float32")
  slot_of_object = np.array([2, 0, 3, 1])
  data["true_mask"] = np.broadcast_to(masks[:, ..., None], (B, K, H, W, 1))
  data["pred_mask"] = data["true_mask"][:, np.argsort(slot_of_object)]
  data["visibility"] = np.ones([B, K], "float32")
  data["factors"] = {n: f[:, :K] for n, f in data["factors"].items()}
  data["factors"]["shape"] %= 4  # z has six entries: two, and four of five.
  targets = _np_targets(data["factors"])
  z = np.concatenate([targets["position"], 50 * targets["shape"][..., :4]], -1)
  data["z"] = z[:, np.argsort(slot_of_object)].astype("float32")
  _, scalars, _, predictions, assignment = _call(mode, module, data)
  np.testing.assert_allclose(scalars["position"], 1.0, rtol=1e-6)
  np.testing.assert_allclose(scalars["shape"], 1.0)
  assert scalars["orientation"] < 0.9
  np.testing.assert_array_equal(
    assignment, np.broadcast_to(np.eye(K)[slot_of_object], (B, K, K))
  )
  assert predictions["position"].shape == [B, 1, K, 2]


@MODES
def test_names_shapes_and_gradients(mode):
  module = _build()

  def gradients(**data):
    with tf.GradientTape() as tape:
      loss, *_ = module(**data)
    return tape.gradient(loss, module.trainable_variables)

  with tf.name_scope("caller"):
    found = _call(mode, gradients, _data())
  scope = "factor_evaluator/repres_content"
  moments = {
    f"{scope}/{factor}_mean_var/{name}:0": (2,)
    for factor in ("position", "orientation")
    for name in ("M2", "mean", "total")
  }
  assert {v.name: tuple(v.shape) for v in module.variables} == {
    f"{scope}/predict_latents/w:0": (Z, 12),
    f"{scope}/predict_latents/b:0": (12,),
    **moments,
  }
  assert len(found) == len(module.trainable_variables) == 2
  for gradient in found:
    assert np.isfinite(gradient).all()
    # Every factor trains its own columns.
    assert np.all(np.abs(np.reshape(gradient, [-1, 12])).max(axis=0) > 0)


def test_no_gradient_through_the_moments():
  module = _build()
  _initialize(module)
  data = tf.nest.map_structure(tf.constant, _data())
  with tf.GradientTape() as tape:
    tape.watch([data["z"], data["pred_mask"]])
    loss, *_ = module(**data)
  gradients = tape.gradient(loss, [data["z"], data["pred_mask"]])
  assert np.isfinite(gradients[0]).all()
  assert np.abs(gradients[0]).max() > 0
  assert gradients[1] is None  # The choice of a slot has no gradient.


def test_predict_over_any_leading_dimensions():
  module = _build()
  values = _initialize(module)
  z = tf.constant(_data()["z"])
  expected = z.numpy() @ values["w:0"] + values["b:0"]
  found = module.predict(z)
  joined = np.concatenate([found[name] for name, _, _ in MAPPING], axis=-1)
  np.testing.assert_allclose(joined, expected, **TOLERANCE)
  flat = module.predict(z[:, 1])
  np.testing.assert_allclose(flat["shape"], found["shape"][:, 1], **TOLERANCE)


def test_initial_values():
  tf.random.set_seed(0)
  module = _build([("a", 400, "scalar")])
  module.predict(tf.zeros([1, Z]))
  values = {v.name.split("/")[-1]: v.numpy() for v in module.variables}
  np.testing.assert_array_equal(values["b:0"], 0.0)
  # A normal distribution of stddev 1 / sqrt(Z), cut at two stddevs: its own
  # stddev is 0.88 of that, known to 1.2% from 2400 draws.
  weights = values["w:0"] * np.sqrt(Z)
  assert 1.9 < np.abs(weights).max() <= 2.0
  np.testing.assert_allclose(weights.std(), 0.8796, rtol=0.06)


def test_default_mapping_is_that_of_multi_dsprites():
  assert factor_eval.FactorRegressor().mapping == (
    ("color", 3, "scalar"),
    ("shape", 4, "categorical"),
    ("scale", 1, "scalar"),
    ("x", 1, "scalar"),
    ("y", 1, "scalar"),
    ("orientation", 2, "angle"),
  )


def test_mapping_of_lists_or_tuples():
  module = _build([["a", 2, "scalar"], ("b", 3, "categorical")])
  assert module.mapping == (("a", 2, "scalar"), ("b", 3, "categorical"))
  assert module.mapping[1].type == "categorical"


@pytest.mark.parametrize(
  "mapping, message",
  [
    ([], "mapping is empty: leave the factor_evaluator out"),
    ([("a", 2)], r"mapping: \['a', 2\]: must be \(name, size, type\)"),
    (["abc"], r"mapping: 'abc': must be \(name, size, type\)"),
    (
      [("a", 0, "scalar")],
      "mapping: size of 'a'=0: expected an integer of at least 1",
    ),
    ([("a", "2", "scalar")], "mapping: size of 'a'='2': is text; expected"),
    (
      [("a", 2, "categoric")],
      "mapping: type 'categoric' of 'a': unknown. Did you mean 'categorical'",
    ),
    ([("a", 1, "angle")], "mapping: size of angle 'a': must be 2"),
    (
      [("a", 1, "scalar"), ("b", 1, "scalar"), ("a", 3, "categorical")],
      "mapping: 'a' appears twice",
    ),
  ],
)
def test_errors_in_the_mapping(mapping, message):
  with pytest.raises(errors.ConfigError, match=f"factor_evaluator: {message}"):
    _build(mapping)


def test_factors_that_the_data_lack():
  data = tf.nest.map_structure(tf.constant, _data())
  del data["factors"]["material"], data["factors"]["shape"]
  with pytest.raises(
    ValueError,
    match=r"mapping names \['shape', 'material'\], the data have the factors "
    r"\['orientation', 'position', 'unused'\]",
  ):
    _build()(**data)


@pytest.mark.parametrize(
  "name, size, expected", [("position", 3, 2), ("shape", 5, 1)]
)
def test_factors_of_another_size(name, size, expected):
  data = tf.nest.map_structure(tf.constant, _data())
  data["factors"][name] = tf.zeros([B, L, size])
  with pytest.raises(
    ValueError,
    match=rf"factor '{name}' has shape .*, expected \[B, L, {expected}\]",
  ):
    _build()(**data)
