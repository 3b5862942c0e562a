"""Tests of iodine.evaluation, against statistics and scores in NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from iodine.evaluation import scores as scoring
from iodine.modules import factor_eval
from tests.support import tiny

NUM_SCENES = 8
SEED = 4
SCENE_SCORES = {*tiny.MASK_SCORES, "mse", "recons", "kl", "elbo"}
FACTORS = {"factor/position", "factor/shape"}
INNER_BATCH_SIZE = 3


def _data(without=(), num_scenes=NUM_SCENES):
  return tiny.batch(num_scenes, without=without)


def _batches(data, batch_size):
  """Cuts a batch of all scenes into smaller ones; the last may be smaller."""
  total = len(data["image"])
  for start in range(0, total, batch_size):
    stop = min(start + batch_size, total)
    yield tf.nest.map_structure(lambda x, i=start, j=stop: x[i:j], data)


def _evaluate(model, data=None, batch_size=5, compiled=False, **options):
  data = _data() if data is None else data
  # Compiling takes longer than all the scenes here.
  tf.config.run_functions_eagerly(not compiled)
  try:
    return scoring.evaluate(
      model,
      _batches(data, batch_size),
      batch_size=batch_size,
      seed=options.pop("seed", SEED),
      **options,
    )
  finally:
    tf.config.run_functions_eagerly(False)


def _model(**overrides):
  # Gradients of a wide distribution are small, so that their layer norm, and
  # with it everything, depends on what the inner loss is divided by.
  plan = {"inner_batch_size": INNER_BATCH_SIZE, **overrides}
  return tiny.initialized(pixel_dist={"scale_val": 3.0}, **plan)


def _noise(model, num_scenes, seed=SEED, draw=0):
  """[S, N, K, Z]: what a scene sees depends on its place alone."""
  shape = (model.num_iters + 1, model.num_components, model.n_z)
  draws = [
    np.random.default_rng([seed, draw, i]).standard_normal(shape, np.float32)
    for i in range(num_scenes)
  ]
  return tf.constant(np.stack(draws, axis=1))


@pytest.fixture(scope="module")
def model():
  return _model()


@pytest.fixture(scope="module")
def result(model):
  return _evaluate(model, compiled=True)


@pytest.fixture(scope="module")
def info(model):
  """What the model's `eval` makes of all scenes at once, as NumPy arrays."""
  noise = _noise(model, NUM_SCENES)
  info = model.eval(_data(), noise=noise)
  return tf.nest.map_structure(lambda x: x.numpy(), info)


# --- Scores of scenes ---------------------------------------------------------


def _covering(true_mask, pred_mask):
  """Best intersection over union of each object with a pixel, then the mean."""
  segments = pred_mask[..., 0].argmax(0)
  best = []
  for mask in true_mask[1:, ..., 0] > 0:
    if mask.any():
      pairs = [(mask, segments == k) for k in range(len(pred_mask))]
      best.append(max((a & b).sum() / (a | b).sum() for a, b in pairs))
  return np.mean(best)


def test_scores_agree_with_numpy(model, result, info):
  assert result.scenes == NUM_SCENES
  assert set(result.scores) == SCENE_SCORES | FACTORS
  kl = info["losses"]["kl"].sum(2)
  recons = info["losses"]["recons"]
  covering = [
    [_covering(true[0], step) for step in steps]
    for true, steps in zip(
      info["data"]["true_mask"], info["outputs"]["pred_mask"], strict=True
    )
  ]
  error = (info["outputs"]["recons"] - info["data"]["image"][:, None]) ** 2
  expected = {
    **{name: info["metrics"][name] for name in tiny.MASK_SCORES},
    "covering": np.array(covering),
    "mse": error[:, :, 0].mean((2, 3, 4)),
    "recons": recons,
    "kl": kl,
    "elbo": -recons - kl,
  }
  for name, values in expected.items():
    score = result.scores[name]
    assert values.shape == (NUM_SCENES, tiny.S)
    values = values.astype(np.float64)
    deviation = values[:, -1].std(ddof=1)
    # Other batch sizes and compiled code round differently.
    close = lambda actual, value, name=name: np.testing.assert_allclose(
      actual, value, rtol=1e-5, atol=1e-6, err_msg=name
    )
    close(score.per_step, values.mean(0))
    close(score.mean, values.mean(0)[-1])
    close(score.std, deviation)
    close(score.stderr, deviation / np.sqrt(NUM_SCENES))
    assert score.undefined == 0
    assert score.mean == score.per_step[-1]
    assert all(type(x) is float for x in (score.mean, score.std, score.stderr))


def test_every_step_differs(result):
  for name in SCENE_SCORES - tiny.MASK_SCORES:
    assert len(set(result.scores[name].per_step)) == tiny.S


def _is_close(actual, expected, rtol):
  assert set(actual.scores) == set(expected.scores)
  assert actual.scenes == expected.scenes
  for name, score in expected.scores.items():
    other = actual.scores[name]
    assert other.undefined == score.undefined
    values = [
      (other.mean, score.mean),
      *zip(other.per_step, score.per_step, strict=True),
    ]
    if score.std is not None:
      values += [(other.std, score.std), (other.stderr, score.stderr)]
    for a, b in values:
      assert a == pytest.approx(b, rel=rtol, abs=rtol), name


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_scores_do_not_depend_on_the_batch_size(model, result, batch_size):
  # Rounding alone; means differ by up to 5e-6 on a CPU.
  actual = _evaluate(model, batch_size=batch_size)
  _is_close(actual, result, rtol=1e-5)


def test_without_an_inner_batch_size_they_do_depend_on_it():
  # So the test above can fail.
  model = _model(inner_batch_size=None)
  one, seven = (_evaluate(model, batch_size=b).scores["kl"] for b in (1, 7))
  assert one.mean != pytest.approx(seven.mean, rel=1e-3)


def test_the_seed_decides(model, result):
  first, second = (_evaluate(model).scores for _ in range(2))
  assert first == second
  other = _evaluate(model, seed=SEED + 1).scores
  assert other["recons"].mean != pytest.approx(result.scores["recons"].mean)


@pytest.mark.parametrize("sizes", [dict(num_components=5), dict(num_iters=4)])
def test_other_slots_and_steps_than_trained(model, result, sizes):
  other = _model(**sizes)
  trained = {v.name: v for v in model.variables}
  for variable in other.variables:
    variable.assign(trained[variable.name])
  scores = _evaluate(other).scores
  assert set(scores) == SCENE_SCORES | FACTORS
  for name, score in scores.items():
    assert len(score.per_step) == sizes.get("num_iters", tiny.NUM_ITERS) + 1
    assert np.all(np.isfinite(score.per_step)), name
  if "num_iters" in sizes:
    # A scene draws its noise step by step: the first steps are the same.
    steps = scores["recons"].per_step[: tiny.S]
    expected = result.scores["recons"].per_step
    np.testing.assert_allclose(steps, expected, rtol=1e-4)


def test_a_sequence_is_scored_frame_by_frame():
  model = _model(sequential=True)
  data = tiny.batch(3, frames=tiny.S)
  result = _evaluate(model, data, batch_size=2)
  info = model.eval(data, noise=_noise(model, 3))
  true, pred = info["data"]["true_mask"], info["outputs"]["pred_mask"]
  for t in range(tiny.S):
    expected = np.mean(
      [_covering(true[i, t].numpy(), pred[i, t].numpy()) for i in range(3)]
    )
    actual = result.scores["covering"].per_step[t]
    assert actual == pytest.approx(expected, rel=1e-5)


def test_several_draws_are_averaged_scene_by_scene(model, result):
  draws = [
    model.eval(_data(), noise=_noise(model, NUM_SCENES, draw=d))["losses"]
    for d in range(3)
  ]
  values = np.stack([draw["recons"].numpy() for draw in draws])
  expected = values.mean(0).astype(np.float64)
  score = _evaluate(model, num_samples=3).scores["recons"]
  np.testing.assert_allclose(score.per_step, expected.mean(0), rtol=1e-4)
  deviation = expected[:, -1].std(ddof=1)
  assert score.std == pytest.approx(deviation, rel=1e-4)
  assert score.mean != pytest.approx(result.scores["recons"].mean, rel=1e-4)


def test_scenes_without_an_object_are_left_out_and_counted(model):
  data = _data()
  empty = (2, 7)
  mask = data["mask"].numpy()
  for i in empty:
    mask[i, :, 1:] = 0
    mask[i, :, 0] = 1
  result = _evaluate(model, {**data, "mask": tf.constant(mask)})
  info = model.eval(
    {**data, "mask": tf.constant(mask)}, noise=_noise(model, NUM_SCENES)
  )
  assert result.scores["covering"].undefined == len(empty)
  assert result.scores["ari"].undefined == 0
  values = info["metrics"]["ari_nobg"].numpy().astype(np.float64)
  score = result.scores["ari_nobg"]
  assert score.undefined == np.isnan(values[:, -1]).sum() > 0
  np.testing.assert_allclose(
    score.per_step, np.nanmean(values, axis=0), rtol=1e-5, atol=1e-6
  )
  values = values[~np.isnan(values[:, -1]), -1]
  deviation = values.std(ddof=1)
  assert score.std == pytest.approx(deviation, rel=1e-5)
  stderr = deviation / np.sqrt(len(values))
  assert score.stderr == pytest.approx(stderr, rel=1e-5)


def test_scores_that_no_scene_has_are_nan(model):
  data = _data(num_scenes=2)
  mask = np.zeros(data["mask"].shape, np.float32)
  mask[:, :, 0] = 1
  result = _evaluate(model, {**data, "mask": tf.constant(mask)})
  score = result.scores["covering"]
  assert score.undefined == 2
  for value in (score.mean, score.std, score.stderr, *score.per_step):
    assert math.isnan(value)


def test_one_scene_has_no_deviation(model):
  score = _evaluate(model, _data(num_scenes=1)).scores["recons"]
  assert math.isfinite(score.mean)
  assert math.isnan(score.std)
  assert math.isnan(score.stderr)


# --- Factors ------------------------------------------------------------------


def _factor_scores(data, predictions):
  """{name: [S]} over the visible objects of all scenes, one by one."""
  visible = [
    (i, entity)
    for i, row in enumerate(data["visibility"].numpy())
    for entity in range(1, len(row))
    if row[entity]
  ]
  position = data["factors"]["position"].numpy()
  shape = data["factors"]["shape"].numpy()[..., 0]
  targets = np.array([position[i, e] for i, e in visible], np.float64)
  classes = np.array([shape[i, e] for i, e in visible])
  scores = {"factor/position": [], "factor/shape": []}
  for t in range(tiny.S):
    predicted = np.array([predictions["position"][i, t, e] for i, e in visible])
    logits = np.array([predictions["shape"][i, t, e] for i, e in visible])
    residual = ((predicted - targets) ** 2).sum(0)
    total = ((targets - targets.mean(0)) ** 2).sum(0)
    scores["factor/position"].append((1 - residual / total).mean())
    scores["factor/shape"].append((logits.argmax(1) == classes).mean())
  return scores


def _check_factors(data, result, predictions):
  for name, expected in _factor_scores(data, predictions).items():
    score = result.scores[name]
    np.testing.assert_allclose(score.per_step, expected, rtol=1e-4)
    assert score.mean == score.per_step[-1]
    assert (score.std, score.stderr, score.undefined) == (None, None, 0)


def test_factors_of_visible_objects_agree_with_numpy(result, info):
  assert result.scores["factor/position"].mean < 1
  assert 0 < result.scores["factor/shape"].mean < 1
  assert result.scores["factor/position"].measure == "R^2"
  assert result.scores["factor/shape"].measure == "accuracy"
  assert result.scores["mse"].measure is None
  assert not np.all(info["data"]["visibility"])
  _check_factors(_data(), result, info["factor_regressor"]["predictions"])


def test_invisible_objects_and_the_background_have_no_effect(model, result):
  data = _data()
  counts = (data["visibility"].numpy() > 0) & (np.arange(tiny.L) > 0)
  position = data["factors"]["position"].numpy()
  position[~counts] = 1e3
  shape = data["factors"]["shape"].numpy()
  shape[~counts] = 3 - shape[~counts]
  factors = {"position": tf.constant(position), "shape": tf.constant(shape)}
  scores = _evaluate(model, {**data, "factors": factors}).scores
  for name in FACTORS:
    np.testing.assert_allclose(
      scores[name].per_step, result.scores[name].per_step, rtol=1e-6
    )


def test_r_squared_is_exact_far_from_zero(model, info):
  data = _data()
  # In float32 at 4096, positions keep some 1e-4 of their spread of 1.
  position = data["factors"]["position"] + 4096.0
  factors = {**data["factors"], "position": position}
  data = {**data, "factors": factors}
  result = _evaluate(model, data)
  _check_factors(data, result, info["factor_regressor"]["predictions"])


def test_perfect_predictions_score_one(model, monkeypatch):
  data = _data()
  collect, target = model.eval, factor_eval.FactorRegressor.target

  def perfect(data, noise):
    info = collect(data, noise=noise)
    factors = data["factors"]
    info["factor_regressor"]["predictions"] = {
      factor.name: tf.repeat(
        target(factor, factors[factor.name])[:, None], tiny.S, axis=1
      )
      for factor in model.factor_evaluator.mapping
    }
    return info

  monkeypatch.setattr(model, "eval", perfect)
  scores = _evaluate(model, data).scores
  for name in FACTORS:
    np.testing.assert_allclose(scores[name].per_step, np.ones(tiny.S))


# --- What may be missing, and what it costs -----------------------------------


@pytest.mark.parametrize(
  "without, names",
  [
    (("factors",), SCENE_SCORES),
    (("visibility",), SCENE_SCORES),
    (
      ("mask", "factors", "visibility"),
      SCENE_SCORES - tiny.MASK_SCORES,
    ),
  ],
)
def test_without_masks_or_factors(model, result, without, names):
  actual = _evaluate(model, _data(without)).scores
  assert set(actual) == names
  for name in names:
    expected = result.scores[name].mean
    assert actual[name].mean == pytest.approx(expected, rel=1e-5)


def test_a_model_without_a_factor_evaluator():
  model = tiny.initialized(factor_evaluator=None)
  assert set(_evaluate(model).scores) == SCENE_SCORES


def test_pixels_outside_of_their_range_are_an_error(model):
  data = _data(num_scenes=2)
  data["image"] *= 255
  with pytest.raises(ValueError, match=r"image: expected float32 in \[0, 1\]"):
    _evaluate(model, data, compiled=True)


def test_no_scene_is_an_error(model):
  with pytest.raises(ValueError, match="no scene"):
    scoring.evaluate(model, [], batch_size=4, seed=0)


def test_progress_and_speed(model):
  told = []
  result = _evaluate(model, batch_size=3, on_progress=told.append)
  assert told == [3, 3, 2]
  assert 0 < result.images_per_second < 1e6
  # The only batch also compiles.
  assert math.isnan(_evaluate(model, batch_size=32).images_per_second)


def test_batches_are_read_one_by_one(model, monkeypatch):
  alive = []

  def batches():
    for i, batch in enumerate(_batches(_data(), 3)):
      assert len(alive) == i  # The last one was used up first.
      yield batch

  monkeypatch.setattr(tf, "function", lambda func, **_: func)
  scoring.evaluate(
    model, batches(), batch_size=3, seed=0, on_progress=alive.append
  )
  assert len(alive) == 3


def test_it_is_compiled_once_and_changes_nothing(model, monkeypatch):
  before = tiny.values(model.variables)
  calls = []
  original = model.eval

  def counted(*args, **kwargs):
    calls.append(tf.inside_function())
    return original(*args, **kwargs)

  monkeypatch.setattr(model, "eval", counted)
  _evaluate(model, num_samples=2, compiled=True)
  assert calls == [True]
  np.testing.assert_equal(tiny.values(model.variables), before)


def test_no_tape_watches_a_weight(model, monkeypatch):
  watched = []
  original = tf.GradientTape

  class Tape(original):
    def __exit__(self, *args):
      super().__exit__(*args)
      watched.append(self.watched_variables())

  monkeypatch.setattr(tf, "GradientTape", Tape)
  _evaluate(model)
  assert len(watched) >= tiny.S
  assert not any(watched)
