"""Set prediction: properties, average precision, assignment, the model."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from iodine import exploration, training
from iodine.config import reading, resolution
from iodine.evaluation import scores as scoring
from iodine.models.slot_attention import (
  ConvEncoder,
  Properties,
  SlotAttention,
  SlotAttentionSetPredictor,
)
from iodine.models.slot_attention import set_prediction as predicting
from iodine.synthetic import clevr, generation
from iodine.training.replicas import Distribution
from tests.support.module_checks import perturb
from tests.support.places import SHARED
from tests.support.tiny_runs import fail, run

# Entities, with a background; slots; image; properties.
B, L, K, H, W = 4, 4, 5, 8, 12
N = L - 1
POSITION = ("location", 2, -1.0, 3.0)
CATEGORIES = (("shape", 3), ("color", 2))
P = 2 + 3 + 2 + 1
FACTORS = {"location": 2, "shape": 1, "color": 1}
SCORES = ("ap/inf", "ap/1", "ap/0.5", "ap/0.25", "ap/0.125")


def make_model(**options):
  options = {"properties": Properties(POSITION, CATEGORIES), **options}
  return SlotAttentionSetPredictor(
    ConvEncoder([4, 6], [3], [1, 2], mlp_sizes=[7, 7]),
    SlotAttention(n_z=6, num_iters=2, mlp_size=7),
    **{"n_z": 6, "num_components": K, "hidden_size": 9, **options},
  )


def initialized(**options):
  tf.random.set_seed(1)
  model = make_model(**options)
  model.initialize((H, W, 3), FACTORS)
  perturb(model)
  return model


def make_data(num_scenes=B, seed=0):
  rng = np.random.default_rng(seed)
  visible = rng.uniform(size=[num_scenes, L]) < 0.7
  visible[:, 0] = True
  factors = {
    "location": rng.uniform(-1, 3, [num_scenes, L, 2]).astype(np.float32),
    "shape": rng.integers(1, 4, [num_scenes, L, 1]).astype(np.uint8),
    "color": rng.integers(1, 3, [num_scenes, L, 1]).astype(np.uint8),
  }
  owners = rng.integers(L, size=[num_scenes, 1, H, W])
  masks = np.moveaxis(np.eye(L, dtype=np.uint8)[owners], -1, 2)[..., None]
  image = rng.uniform(size=[num_scenes, 1, H, W, 3]).astype(np.float32)
  return {
    "image": image,
    "mask": masks,
    "visibility": visible.astype(np.float32),
    "factors": factors,
  }


def noise_of(model, num_scenes=B, seed=3):
  return model.noise(
    [np.random.default_rng([seed, i]) for i in range(num_scenes)]
  )


# --- Properties ---------------------------------------------------------------


def test_objects_are_encoded():
  data = make_data()
  target = Properties(POSITION, CATEGORIES).encode(data, 1)
  expected = np.zeros([B, N, P])
  for b, n in itertools.product(range(B), range(N)):
    if data["visibility"][b, n + 1]:
      get = lambda name, b=b, n=n: data["factors"][name][b, n + 1]
      expected[b, n, :2] = (get("location") + 1) / 4
      expected[b, n, 2 + get("shape")[0] - 1] = 1
      expected[b, n, 5 + get("color")[0] - 1] = 1
      expected[b, n, -1] = 1
  assert 0 < expected[..., -1].sum() < B * N
  np.testing.assert_allclose(target, expected, atol=1e-7)


def test_clevr_s_objects_have_19_entries():
  assert Properties().size == 19
  folder = SHARED / "parity_slot_attention" / "preprocessing"
  if not folder.exists():
    pytest.skip("there is no ../shared/parity_slot_attention")
  inputs = np.load(folder / "inputs.npz")
  pad = lambda x: np.pad(x, [(1, 6), (0, 0)])[None]
  names = ("size", "material", "shape", "color")  # counted from 0 there
  factors = {name: pad(inputs[name][:, None] + 1) for name in names}
  target = Properties().encode(
    {
      "factors": {"location": pad(inputs["3d_coords"]), **factors},
      "visibility": np.float32(np.arange(11) < 5)[None],
    },
    1,
  )
  expected = np.load(folder / "expected.npz")["set_prediction_target"]
  np.testing.assert_allclose(target[0], expected, atol=1e-6)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"position": ("x", 1, 0)}, r"position=\('x', 1, 0\): expected \(name"),
    ({"position": ("x", 1, 2, 2)}, "lowest value must be below the highest"),
    ({"position": ("x", 0, 0, 1)}, "position: size of 'x'=0: expected an int"),
    ({"categories": ("shape",)}, r"categories: 'shape': expected \(name, numb"),
    ({"categories": [["a", 1.5]]}, "categories: classes of 'a'=1.5: expected"),
  ],
)
def test_errors_of_properties(options, message):
  with pytest.raises(ValueError, match=message):
    Properties(**options)


# --- Average precision --------------------------------------------------------


def _random_pair(seed):
  """Predictions, some of which are near to objects, and objects."""
  rng = np.random.default_rng(seed)
  properties = Properties(POSITION, CATEGORIES)
  target = properties.encode(make_data(9, seed), 1).numpy()
  predictions = rng.uniform(size=[9, K, P])
  for b in range(9):
    source = rng.permutation(N)
    close = target[b, source] + rng.normal(0, 0.06, [N, P])
    predictions[b, : N - 1] = close[: N - 1]
    predictions[b, N] = target[b, source[0]]  # once more
  predictions[..., -1] = rng.permutation(9 * K).reshape(9, K) / (9 * K)
  return properties, predictions, target


def _loop_precision(predictions, target, most):
  """Average precision as the published code finds it, one by one."""
  taken, right = set(), []
  order = sorted(
    itertools.product(range(len(predictions)), range(K)),
    key=lambda place: -predictions[place][-1],
  )
  for b, k in order:
    best = None
    for n in range(target.shape[1]):
      kinds = [
        predictions[b, k, s].argmax() == target[b, n, s].argmax()
        for s in (slice(2, 5), slice(5, 7))
      ]
      if target[b, n, -1] and all(kinds):
        offset = (predictions[b, k, :2] - target[b, n, :2]) * 4
        distance = np.sqrt((offset**2).sum())
        if best is None or distance < best[0]:
          best = (distance, n)
    is_right = best is not None and best[0] < most and (b, best[1]) not in taken
    if is_right:
      taken.add((b, best[1]))
    right.append(is_right)
  total = target[..., -1].sum()
  points = [(0.0, 0.0)]
  for m in range(1, len(right) + 1):
    points.append((sum(right[:m]) / total, sum(right[:m]) / m))
  area = 0.0
  for i in range(1, len(points)):
    best_precision = max(p for _, p in points[i:])
    area += (points[i][0] - points[i - 1][0]) * best_precision
  return area


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_against_loops(seed):
  properties, predictions, target = _random_pair(seed)
  scores = properties.average_precision(predictions, target)
  expected = [
    _loop_precision(predictions, target, most)
    for most in (np.inf, 1.0, 0.5, 0.25, 0.125)
  ]
  assert properties.score_names == SCORES
  assert 0 < expected[-1] < expected[-2] < expected[0] < 1
  np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_average_precision_of_the_truth_is_1_and_of_nothing_undefined():
  properties, _, target = _random_pair(0)
  np.testing.assert_array_equal(
    properties.average_precision(target, target), np.ones(5)
  )
  scores = properties.average_precision(target, np.zeros_like(target))
  assert np.all(np.isnan(scores))


def test_average_precision_of_the_published_code():
  folder = SHARED / "parity_slot_attention" / "tiny_set_prediction"
  if not folder.exists():
    pytest.skip("there is no ../shared/parity_slot_attention")
  inputs = np.load(folder / "inputs.npz")
  expected = np.load(folder / "expected.npz")
  scores = Properties().average_precision(
    inputs["ap_pred"], inputs["ap_target"]
  )
  np.testing.assert_allclose(scores, expected["ap"], atol=1e-6)
  costs = predicting.pairwise_cost(inputs["target"], expected["predictions"])
  np.testing.assert_allclose(costs, expected["pairwise_cost"], rtol=1e-5)


# --- Cost ---------------------------------------------------------------------


def test_cost_is_huber_s():
  rng = np.random.default_rng(0)
  target = rng.normal(0, 1.5, [2, 3, 7]).astype(np.float32)
  predictions = rng.normal(0, 1.5, [2, 4, 7]).astype(np.float32)
  errors = np.abs(target[:, :, None] - predictions[:, None])
  assert errors.min() < 1 < errors.max()
  expected = np.where(errors <= 1, errors**2 / 2, errors - 0.5).mean(-1)
  costs = predicting.pairwise_cost(target, predictions)
  np.testing.assert_allclose(costs, expected, rtol=1e-5)


# --- The model ----------------------------------------------------------------


@pytest.mark.parametrize("count", [K, 2])
def test_loss_is_the_cost_of_the_matched_pairs(count):
  model = initialized(num_components=count)
  data, noise = make_data(), noise_of(model)
  loss = model(data, noise=noise)
  record = loss.iterations
  costs, pairs = record.costs.numpy(), record.assignment.numpy()
  assert costs.shape == (B, N, count)
  matched = [costs[b][i, j].sum() for b, (i, j) in enumerate(pairs)]
  np.testing.assert_allclose(loss.total, np.mean(matched), rtol=1e-5)
  assert set(loss.scalars) == {"loss/total", *SCORES}
  info = model.infer(data, noise=noise)
  assert model.num_steps == 2
  last = info["outputs"]["properties"][:, -1]
  np.testing.assert_allclose(last, record.predictions, rtol=1e-4)
  assert info["outputs"]["attention"].shape == (B, 2, count, H, W, 1)
  assert info["latent"]["z"].shape == (B, 2, count, 6)


def test_gradients_reach_all_variables():
  model = initialized()
  with tf.GradientTape() as tape:
    loss = model(make_data(), noise=noise_of(model))
  for variable, gradient in zip(
    model.trainable_variables,
    tape.gradient(loss.total, model.trainable_variables),
    strict=True,
  ):
    assert np.all(np.isfinite(gradient)), variable.name
    # The softmax over slots cancels this one.
    if "norm_slots/offset" not in variable.name:
      assert np.any(np.abs(gradient) > 1e-9), variable.name


def test_predictions_that_are_not_finite_give_such_a_loss():
  model = initialized()
  model.variables[0].assign(np.nan * model.variables[0])
  assert np.isnan(model(make_data(), noise=noise_of(model)).total)


def test_compiled_steps_on_sub_batches():
  def losses(accumulate):
    optimizer = training.make_optimizer(1e-2)
    trainer = training.Trainer(
      initialized(), optimizer, 0, Distribution(accumulate)
    )
    noise = noise_of(trainer.model)
    return [trainer.step(make_data(), noise=noise) for _ in range(3)]

  once, twice = losses(1), losses(2)
  for a, b in zip(once, twice, strict=True):
    np.testing.assert_allclose(a["loss/total"], b["loss/total"], rtol=1e-4)
  assert once[-1]["loss/total"] < once[0]["loss/total"]
  assert set(SCORES) < set(twice[0])


def test_evaluation_ranks_the_objects_of_all_scenes():
  model, data = initialized(), make_data(7)
  batches = lambda size: (
    tf.nest.map_structure(lambda x, i=i: x[i : i + size], data)
    for i in range(0, 7, size)
  )
  evaluate = lambda size, **options: (
    scoring.evaluate(model, batches(size), size, 5, **options).scores
  )
  scores = evaluate(3)
  assert tuple(scores) == SCORES
  assert scores["ap/inf"].mean > 0
  draws = []
  for draw in range(2):
    rngs = [np.random.default_rng([5, draw, i]) for i in range(7)]
    info = model.infer(data, noise=model.noise(rngs))
    records = {k: v.numpy() for k, v in model.records(info).items()}
    draws.append(model.set_scores(records))
  twice = evaluate(7, num_samples=2)
  for name, score in scores.items():
    np.testing.assert_allclose(score.per_step, draws[0][name], rtol=1e-5)
    assert (score.mean, score.std) == (score.per_step[-1], None)
    mean = (draws[0][name] + draws[1][name]) / 2
    np.testing.assert_allclose(twice[name].per_step, mean, rtol=1e-5)
  # The one of the batch is among what is explored.
  explored = exploration.step_scores(exploration.infer(model, data, 0))
  assert set(explored) == set(SCORES)


def test_images_alone_can_be_explored():
  model = initialized()
  info = exploration.infer(model, {"image": make_data()["image"]})
  assert "set_scores" not in info and exploration.step_scores(info) == {}


def test_data_without_the_properties_are_an_error():
  message = (
    "the data lack color, which are to be predicted; they have the factors "
    r"\['location', 'shape'\]. For CLEVR, take data.constructor="
  )
  with pytest.raises(ValueError, match=message):
    make_model().initialize((H, W, 3), {"location": 2, "shape": 1})
  with pytest.raises(ValueError, match="location.*expected \\[B, L, 2\\]"):
    make_model().initialize((H, W, 3), {**FACTORS, "location": 3})


def test_the_configuration_has_the_published_size():
  entries = resolution.resolve(
    reading.named_configs()["slot_attention_clevr10_properties"]
  )
  data, model = resolution.build(entries, ["data", "model"])
  factors = {name: size for name, (_, size) in data.factors.items()}
  model.initialize((*data.image_dim, 3), factors)
  assert sum(v.shape.num_elements() for v in model.variables) == 380_755
  assert (data.crop_region, data.batch_size) == (None, 512)
  assert data.half_pixel_centers
  assert (model.num_components, model.num_steps) == (10, 3)


# --- Under the commands -------------------------------------------------------

WORDS = (
  "with",
  "slot_attention_clevr10_properties",
  "batch_size=3",
  "n_z=6",
  "num_components=4",
  "num_iters=2",
  "data.image_dim=[8, 12]",
  "model.hidden_size=5",
  "model.encoder.output_channels=[4]",
  "model.encoder.strides=[2]",
  "model.encoder.mlp_sizes=[6]",
  "data.shuffle_buffer=5",
  "save_summaries_steps=1",
  "stop_after_steps=2",
  "num_scenes=7",
)


def _sample(rng, num_scenes):
  """Pixels and factors at random, in the format of CLEVR."""
  scenes = {}
  for name, feature in clevr.FEATURES.items():
    shape = (num_scenes, *feature.shape)
    high = {"color": 9, "shape": 4}.get(name, 3)
    if feature.kind == "bytes":
      scenes[name] = rng.integers(1, high, shape, np.uint8)
    else:
      scenes[name] = rng.uniform(-3, 3, shape).astype(np.float32)
  scenes["visibility"] = np.float32(np.arange(11) < 5) * np.ones(
    [num_scenes, 1], np.float32
  )
  return scenes


@pytest.fixture(scope="module")
def words(tmp_path_factory):
  folder = tmp_path_factory.mktemp("set_prediction")
  path = folder / "clevr.tfrecords"
  generation.write_tfrecords(
    path, clevr.FEATURES, _sample, num_scenes=7, seed=0, chunk_size=7
  )
  common = (*WORDS, f"data.path={path}", f"pictures_dir={folder}/pictures")
  run(*common, f"checkpoint_dir={folder}/run")
  return (*common, f"checkpoint_dir={folder}/run_1"), folder


def test_evaluate(words, capsys):
  words, folder = words
  run("evaluate", *words)
  assert "ap/0.125" in capsys.readouterr().out
  text = (folder / "run_1" / "evaluation" / "evaluation.json").read_text()
  result = json.loads(text)
  assert tuple(result["metrics"]) == SCORES
  assert result["metrics"]["ap/inf"]["std"] is None
  assert [len(steps) for steps in result["per_step"].values()] == [2] * 5


def test_visualize_draws_the_attention(words):
  words, folder = words
  run("visualize", *words)
  (folder,) = (folder / "pictures").glob("*/visualize")
  names = {path.name for path in folder.glob("*.*")}
  drawn = {"attention.gif", "attention.png", "scores.png", "training.png"}
  assert drawn | {"index.html"} <= names
  assert not {"decomposition.png", "refinement.png", "removal.png"} & names


def test_commands_on_decompositions_say_that_there_is_none(words, capsys):
  words, folder = words
  picture = folder / "scene.png"
  Image.new("RGB", (12, 8)).save(picture)
  error = fail(capsys, 2, "decompose", *words, f"image={picture}")
  assert "SlotAttentionSetPredictor does not reconstruct images" in error
  error = fail(capsys, 2, "traverse", *words)
  assert "SlotAttentionSetPredictor renders no scenes from slots" in error
  error = fail(capsys, 2, "compose", *words)
  assert "SlotAttentionSetPredictor" in error
