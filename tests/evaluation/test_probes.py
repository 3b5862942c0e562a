"""Tests of iodine.evaluation.probes."""

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from iodine.errors import ConfigError
from iodine.evaluation import probes
from iodine.evaluation.factors import Encoding
from iodine.evaluation.representations import Representations

K, L, Z = 4, 3, 7
NUM_SHAPES = 3


def _scenes(count=330, seed=0, informed=True):
  """Scenes of two objects; each is in a random slot, if codes are informed."""
  rng = np.random.default_rng(seed)
  is_object = rng.uniform(size=[count, L]) < 0.8
  is_object[:, 0] = False
  factors = {
    "position": rng.uniform(3, 9, size=[count, L, 2]).astype(np.float32),
    "shape": rng.integers(1, 1 + NUM_SHAPES, [count, L, 1]).astype(np.float32),
  }
  codes = rng.standard_normal([count, K, Z]).astype(np.float32)
  cosine = rng.uniform(0.0, 0.2, size=[count, L, K]).astype(np.float32)
  scenes = np.arange(count)
  slots = np.argsort(rng.uniform(size=[count, K]), axis=1)
  for entity in range(1, L):
    slot = slots[:, entity]
    cosine[scenes, entity, slot] = 0.9
    if informed:
      shape = factors["shape"][:, entity, 0].astype(int) - 1
      codes[scenes, slot, 1:3] = factors["position"][:, entity] / 6 - 1
      codes[scenes, slot, 3:6] = np.eye(NUM_SHAPES)[shape]
  unmodified = np.zeros_like(is_object)
  pixels = np.zeros([count, L])
  return Representations(
    codes, is_object, unmodified, factors, pixels, cosine, cosine, None
  )


@pytest.fixture
def short(monkeypatch):
  """Training of a few steps."""
  monkeypatch.setattr(probes, "MOST_STEPS", 400)
  monkeypatch.setattr(probes, "_CHECK_STEPS", 100)


def _train(name, match_by="mask", seed=3, **options):
  """Trains a probe and scores it, on scenes of its own for each."""
  train = _scenes(seed=0, **options)
  encoding = Encoding(train.factors, train.is_object)
  sets = [
    probes.examples(scenes, encoding, match_by)
    for scenes in (train, *(_scenes(100, i, **options) for i in (1, 2)))
  ]
  trained = probes.train(name, encoding, *sets[:2], seed)
  return trained, probes.scores(trained, encoding, sets[2])["all"]


# --- Probes on slots that hold all, or nothing --------------------------------


@pytest.mark.parametrize("match_by", ["loss", "mask"])
def test_slots_that_hold_the_properties_tell_them(short, match_by):
  _, scores = _train("mlp1", match_by)
  assert scores["shape"] == 1.0
  assert 0.99 < scores["position"] <= 1.0


def test_slots_that_hold_the_properties_are_not_in_order(short):
  _, scores = _train("mlp1", "order")
  assert scores["position"] < 0.3


def test_slots_that_hold_nothing_tell_what_the_dummy_does(short):
  _, scores = _train("linear", informed=False)
  _, dummy = _train(probes.BASELINE, informed=False)
  assert dummy["position"] == pytest.approx(0.0, abs=0.03)
  assert scores["position"] == pytest.approx(dummy["position"], abs=0.1)
  assert dummy["shape"] == pytest.approx(1 / NUM_SHAPES, abs=0.1)
  assert scores["shape"] == pytest.approx(dummy["shape"], abs=0.1)


def test_the_same_seed_gives_the_same_numbers(monkeypatch):
  monkeypatch.setattr(probes, "MOST_STEPS", 20)
  monkeypatch.setattr(probes, "_CHECK_STEPS", 10)
  (first, scores), (second, again) = (_train("mlp2") for _ in range(2))
  assert first.losses == second.losses and scores == again
  assert _train("mlp2", seed=4)[0].losses != first.losses


@pytest.mark.parametrize("name, layers", probes.PROBES.items())
def test_probes_have_hidden_layers_of_the_published_size(name, layers):
  probe = probes._make(name, 5, 6, np.random.default_rng(0))
  sizes = [
    v.shape.as_list() for v in probe.trainable_variables if "/w" in v.name
  ]
  widths = [5, *[256] * layers, 6]
  assert sorted(sizes) == sorted(
    map(list, zip(widths, widths[1:], strict=False))
  )
  codes = tf.random.stateless_normal([2, 3, 5], [0, 0])
  expected = codes
  variables = {v.name: v for v in probe.trainable_variables}
  for i in range(layers + 1):
    (w,) = (v for k, v in variables.items() if f"linear_{i}/w" in k)
    expected = expected @ w
    if i < layers:
      expected = tf.maximum(expected, 0.01 * expected)
  np.testing.assert_allclose(probe(codes), expected, rtol=1e-4, atol=1e-5)


# --- The protocol of training -------------------------------------------------


def test_the_rate_is_halved_twice():
  rate = probes._Halved(1e-3)
  steps = (0, 1999, 2000, 3999, 4000, 5999)
  rates = [float(rate(tf.constant(step, tf.int64))) for step in steps]
  np.testing.assert_allclose(
    rates, [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4], rtol=1e-6
  )


def test_batches_are_full_and_epochs_in_an_order_of_their_own():
  batches = probes._batches(150, np.random.default_rng(0))
  taken = [next(batches) for _ in range(4)]
  assert {len(batch) for batch in taken} == {64}
  epochs = [np.concatenate(taken[:2]), np.concatenate(taken[2:])]
  for epoch in epochs:
    assert len(set(epoch)) == 128
  assert (epochs[0] != epochs[1]).any()
  assert len(next(probes._batches(9, np.random.default_rng(0)))) == 9


@pytest.mark.parametrize(
  "losses, has_stopped",
  [
    ([5.0, 4.0, 3.0, 2.0], False),
    ([5.0, 5.0, 5.0], False),
    ([5.0, 5.0, 5.0, 5.0], True),
    ([5.0, 4.995, 4.992, 4.991], True),
    ([5.0, 4.995, 4.992, 4.98], False),
    ([5.0, 6.0, 7.0, 4.0], False),
    # The mean of all losses so far would still improve.
    ([9.0, 3.0, 3.0, 3.0, 3.0], True),
  ],
)
def test_three_checks_without_an_improvement_end_it(losses, has_stopped):
  assert probes._has_stopped(losses) == has_stopped


def test_training_is_checked_every_250_steps_and_ends_when_it_stops(
  monkeypatch,
):
  counts: list[int] = []
  train = _scenes(informed=False)
  encoding = Encoding(train.factors, train.is_object)
  examples = probes.examples(train, encoding, "mask")
  monkeypatch.setattr(probes, "_has_stopped", lambda losses: len(losses) == 2)
  trained = probes.train(
    probes.BASELINE, encoding, examples, examples, 0, counts.append
  )
  assert trained.steps == sum(counts) == 500
  assert len(trained.losses) == 2
  assert trained.losses[1] < trained.losses[0]


def test_losses_of_batches_count_by_their_scenes():
  scenes = _scenes(70)
  encoding = Encoding(scenes.factors, scenes.is_object)
  examples = probes.examples(scenes, encoding, "mask")
  sizes: list[int] = []

  def loss_of(batch):
    sizes.append(batch.num_scenes)
    return tf.constant(float(len(sizes)))

  assert probes._mean_loss(loss_of, examples) == pytest.approx(
    (64 * 1 + 6 * 2) / 70
  )
  assert sizes == [64, 6]


def test_the_loss_is_the_mean_of_matched_pairs(run):
  scenes = _scenes(6)
  encoding = Encoding(scenes.factors, scenes.is_object)
  rng = np.random.default_rng(5)
  predictions = rng.standard_normal([6, K, encoding.size]).astype(np.float32)
  examples = probes.examples(scenes, encoding, "mask")
  targets, slots = examples.targets.numpy(), examples.slots.numpy()
  losses = []
  for b, i in np.argwhere(scenes.is_object):
    value, target = predictions[b, slots[b, i]], targets[b, i]
    logits = value[:NUM_SHAPES]  # shape comes first
    log_probs = logits - np.log(np.exp(logits).sum())
    error = np.mean((value - target)[NUM_SHAPES:] ** 2)
    losses.append(error - log_probs[target[:NUM_SHAPES].argmax()])
  loss = run(lambda x: probes._loss(encoding, examples, x))
  np.testing.assert_allclose(
    loss(tf.constant(predictions)), np.mean(losses), rtol=1e-5
  )


def test_matching_by_the_loss_has_no_gradient_of_its_own_and_is_the_least():
  scenes = _scenes(6)
  encoding = Encoding(scenes.factors, scenes.is_object)
  by_loss = probes.examples(scenes, encoding, "loss")
  by_mask = probes.examples(scenes, encoding, "mask")
  predictions = tf.Variable(
    tf.random.stateless_normal([6, K, encoding.size], [1, 2])
  )
  with tf.GradientTape(persistent=True) as tape:
    loss = probes._loss(encoding, by_loss, predictions)
    other = probes._loss(encoding, by_mask, predictions)
  assert float(loss) < float(other)
  gradient = tape.gradient(loss, predictions).numpy()
  matrix = probes._loss_matrix(encoding, by_loss.targets, predictions)
  slots = probes._slots(by_loss, matrix).numpy()
  # Only slots that are matched learn.
  for b, k in np.ndindex(6, K):
    assert gradient[b, k].any() == (k in slots[b])


# --- Scores -------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn():
  sklearn_metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(0)
  true = rng.standard_normal([50, 3]) * [1, 5, 0.1] + 4
  pred = true + rng.standard_normal([50, 3])
  expected = sklearn_metrics.r2_score(true, pred)
  assert probes._r_squared(true, pred) == pytest.approx(expected)
  true[:, 1] = 2.0
  expected = sklearn_metrics.r2_score(true, pred)
  assert probes._r_squared(true, pred) == pytest.approx(expected)
  labels, logits = rng.integers(4, size=50), rng.standard_normal([50, 4])
  expected = sklearn_metrics.accuracy_score(labels, logits.argmax(axis=1))
  assert probes._accuracy(np.eye(4)[labels], logits) == pytest.approx(expected)


class _Known(snt.Module):
  """Predicts the code itself."""

  def __call__(self, codes):
    return codes


_KNOWN = probes.Trained(_Known(), 1, (0.0,))


def test_scores_are_of_all_objects_together():
  scenes = _scenes(100, seed=1)
  encoding = Encoding(scenes.factors, scenes.is_object)
  rng = np.random.default_rng(0)
  codes = rng.standard_normal([100, K, encoding.size]).astype(np.float32)
  scenes = scenes._replace(codes=codes)
  examples = probes.examples(scenes, encoding, "mask")
  scores = probes.scores(_KNOWN, encoding, examples)
  assert list(scores) == ["all"]
  scores = scores["all"]
  b, i = np.nonzero(scenes.is_object)
  pred = codes[b, examples.slots.numpy()[b, i]]
  true = examples.targets.numpy()[b, i]
  right = pred[:, :NUM_SHAPES].argmax(1) == true[:, :NUM_SHAPES].argmax(1)
  assert scores["shape"] == pytest.approx(right.mean())
  errors = np.sum((pred - true)[:, NUM_SHAPES:] ** 2, axis=0)
  spread = len(true) * np.var(true[:, NUM_SHAPES:], axis=0)
  expected = np.mean(1 - errors / spread)
  assert scores["position"] == pytest.approx(expected, rel=1e-4)


def test_a_category_that_training_lacks_is_never_right():
  true, pred = np.zeros([3, 2]), np.eye(3)[:, :2]
  true[0, 0] = 1.0
  assert probes._accuracy(true, pred) == pytest.approx(1 / 3)


# --- Modified objects ---------------------------------------------------------


def _modified(count=60):
  """Scenes whose second object is modified: its shape is another than stored.

  Codes are the targets of the objects in slots 1 and 2.
  """
  scenes = _scenes(count)
  is_object = np.tile([False, True, True], [count, 1])
  is_modified = np.tile([False, False, True], [count, 1])
  encoding = Encoding(scenes.factors, is_object)
  codes = np.full([count, K, encoding.size], 2.0, np.float32)
  codes[:, 1:3] = encoding.encode(scenes.factors)[:, 1:]
  codes[..., :NUM_SHAPES] *= 20.0  # logits
  codes[:, 2, :NUM_SHAPES] = np.roll(codes[:, 2, :NUM_SHAPES], 1, axis=-1)
  changed = {"codes": codes, "is_object": is_object, "is_modified": is_modified}
  return scenes._replace(**changed), encoding


def test_modified_objects_are_matched_and_scored_without_affected_factors():
  scenes, encoding = _modified()
  examples = probes.examples(scenes, encoding, "loss")
  scores = probes.scores(_KNOWN, encoding, examples, affected=("shape",))
  assert list(scores) == ["all", "modified", "unmodified"]
  for found in scores.values():
    assert found["position"] == pytest.approx(1.0)
  assert np.isnan(scores["modified"]["shape"])
  assert scores["all"]["shape"] == scores["unmodified"]["shape"] == 1.0
  # Their shapes would cost some objects their slots.
  blind = probes.scores(_KNOWN, encoding, examples)
  assert blind["all"]["position"] < 0.9


def test_all_factors_may_be_affected():
  scenes, encoding = _modified(5)
  examples = probes.examples(scenes, encoding, "loss")
  scores = probes.scores(_KNOWN, encoding, examples, ("shape", "position"))
  assert np.isnan(list(scores["modified"].values())).all()
  assert np.isfinite(list(scores["all"].values())).all()


def test_masks_match_modified_objects_too():
  scenes, encoding = _modified(5)
  examples = probes.examples(scenes, encoding, "mask")
  slots = probes._test_slots(encoding, examples, examples.codes, ("shape",))
  np.testing.assert_array_equal(slots, examples.slots)
  assert (slots[:, 1:] >= 0).all()


@pytest.mark.parametrize("match_by", ["loss", "mask"])
def test_training_sees_no_modified_objects(match_by):
  scenes, encoding = _modified(5)
  seen = scenes.without_modified()
  examples = probes.examples(seen, encoding, match_by)
  matrix = probes._loss_matrix(encoding, examples.targets, examples.codes)
  slots = np.array(probes._slots(examples, matrix))
  assert (slots[:, 1] >= 0).all() and (slots[:, 2] == -1).all()
  other = seen._replace(
    factors={k: np.roll(x, 1, axis=0) for k, x in seen.factors.items()}
  )
  for x, stored in zip(
    other.factors.values(), seen.factors.values(), strict=True
  ):
    x[:, :2] = stored[:, :2]
  others = probes.examples(other, encoding, match_by)
  assert (others.targets.numpy() != examples.targets.numpy()).any()
  losses = [probes._loss(encoding, x, x.codes) for x in (examples, others)]
  assert float(losses[0]) == float(losses[1])


# --- Splits -------------------------------------------------------------------


@pytest.mark.parametrize(
  "count, expected",
  [(50, (10, 30, 10)), (25, (5, 15, 5)), (60, (10, 30, 10)), (3, (1, 1, 1))],
)
def test_fewer_scenes_are_split_in_the_same_proportions(count, expected):
  assert probes.split(count, (10, 30, 10)) == expected


def test_two_scenes_are_too_few():
  with pytest.raises(ConfigError, match="2 scenes, too few"):
    probes.split(2, (10, 30, 10))
