"""Tests of GNM; tests/parity holds it against the published code."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration, training
from iodine.geco import Geco
from iodine.models.gnm import (
  GNM,
  Background,
  Curriculum,
  ImageEncoder,
  PictureDecoder,
  StructDRAW,
  SymbolHead,
  annealing,
  counting,
  objective,
  renderer,
  slots,
  symbols,
)
from iodine.models.gnm.renderer import Covering, Objects
from iodine.models.gnm.spatial_transformer import place
from tests.support import tiny_gnm
from tests.support.tiny_gnm import SIDE, A, B, C, G, K, N


@functools.cache
def _model(**overrides):
  """A small model, for tests that leave it as it is."""
  return tiny_gnm.initialized(**overrides)


def _noise(model, batch=B):
  return model.noise([np.random.default_rng(i) for i in range(batch)])


# --- The spatial transformer --------------------------------------------------


def _placed(glimpse, where, size=(9, 12)):
  """One glimpse [h, w, C] in one image, by a loop over pixels."""
  scale_x, scale_y, shift_x, shift_y = where
  height, width = glimpse.shape[:2]
  image = np.zeros([*size, glimpse.shape[2]])
  for y, x in np.ndindex(*size):
    u = ((2 * x + 1) / size[1] - 1 - shift_x) / scale_x
    v = ((2 * y + 1) / size[0] - 1 - shift_y) / scale_y
    column, row = ((u + 1) * width - 1) / 2, ((v + 1) * height - 1) / 2
    for i, j in np.ndindex(height, width):
      weight = max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j))
      image[y, x] += weight * glimpse[i, j]
  return image


def test_place_against_a_loop():
  rng = np.random.default_rng(1)
  glimpses = rng.random([2, 3, 4, 5, 2], np.float32)
  where = rng.uniform(0.2, 0.9, [2, 3, 4]).astype(np.float32)
  where[..., 2:] = rng.uniform(-1.2, 1.2, [2, 3, 2])
  images = place(tf.constant(glimpses), tf.constant(where), (9, 12)).numpy()
  for index in np.ndindex(2, 3):
    np.testing.assert_allclose(
      images[index], _placed(glimpses[index], where[index]), atol=1e-5
    )


def test_a_whole_glimpse_is_the_image_and_a_quarter_a_corner():
  glimpse = np.random.default_rng(2).random([1, 6, 6, 1], np.float32)
  whole = place(glimpse, tf.constant([[1.0, 1.0, 0.0, 0.0]]), (6, 6))
  np.testing.assert_allclose(whole, glimpse, atol=1e-6)
  # x goes right and y down: this is the corner at the top right.
  corner = place(glimpse, tf.constant([[0.5, 0.5, 0.5, -0.5]]), (12, 12))
  np.testing.assert_allclose(corner[:, :6, 6:], glimpse, atol=1e-6)
  # Beyond the edge, there is no more than rounding.
  assert np.max(corner[:, 6:]) < 1e-5 and np.max(corner[:, :, :6]) < 1e-5


@pytest.mark.parametrize("scale", [0.0, 1e-20])
def test_a_glimpse_without_size_is_finite(scale):
  where = tf.constant([[scale, scale, 0.1, 0.2]])
  with tf.GradientTape() as tape:
    tape.watch(where)
    image = place(tf.ones([1, 3, 3, 1]), where, (5, 5))
  assert np.max(np.abs(image)) == 0.0
  assert np.all(np.isfinite(tape.gradient(image, where)))


def test_gradients_of_places_against_differences():
  rng = np.random.default_rng(3)
  glimpses = rng.random([1, 4, 4, 1], np.float32)
  where = np.array([[0.6, 0.7, 0.13, -0.21]], np.float32)
  weights = rng.random([1, 7, 7, 1], np.float32)

  def value(x):
    return np.sum(_placed(glimpses[0], x, (7, 7)) * weights[0])

  variable = tf.constant(where)
  with tf.GradientTape() as tape:
    tape.watch(variable)
    total = tf.reduce_sum(place(glimpses, variable, (7, 7)) * weights)
  gradient = tape.gradient(total, variable).numpy()
  for i in range(4):
    step = 1e-6 * np.eye(4)[i]
    difference = (value(where[0] + step) - value(where[0] - step)) / 2e-6
    np.testing.assert_allclose(gradient[0, i], difference, rtol=1e-3)


# --- Symbols ------------------------------------------------------------------


def test_places_of_cells():
  where = np.zeros([1, N, N, 4], np.float32)
  where[0, 1, 0] = (np.log(0.25 / 0.75), np.log(4.0), 0.0, 9.0)
  boxes = symbols.squashed_where(tf.constant(where)).numpy()[0]
  np.testing.assert_allclose(boxes[0, 1], [0.5, 0.5, 0.5, -0.5], rtol=1e-6)
  # A side of a quarter, stretched: twice as high, half as wide; and a whole
  # cell further down.
  np.testing.assert_allclose(boxes[1, 0], [0.125, 0.5, -0.5, 1.5], rtol=1e-6)


def test_relaxed_presence():
  logits = tf.constant([0.0, 3.0, -8.8, 8.8])
  half = symbols.relaxed_bernoulli(logits, tf.fill([4], 0.5), 0.5)
  np.testing.assert_allclose(half, tf.sigmoid(2.0 * logits), rtol=1e-5)
  for edge in (0.0, 1.0):
    sample = symbols.relaxed_bernoulli(logits, tf.fill([4], edge), 0.5)
    np.testing.assert_allclose(sample, edge, atol=1e-5)
  uniform = tf.constant(np.random.default_rng(0).random(20_000, np.float32))
  present = symbols.relaxed_bernoulli(tf.constant(1.0), uniform, 0.3) > 0.5
  assert abs(np.mean(present) - 0.731) < 0.01


def test_first_places_are_small_and_in_their_cells():
  head = SymbolHead([6])
  head(tf.random.stateless_normal([1, N, N, 5], [1, 2]), A)
  values = {v.name: v.numpy() for v in head.variables}
  np.testing.assert_array_equal(
    values["head/where/b:0"], [-1, 0, 0, 0, 0, 0, 0, 0]
  )
  assert 0.005 < np.abs(values["head/where/w:0"]).max() <= 0.01


# --- Rendering ----------------------------------------------------------------


def _objects(presence, depth):
  """Objects that cover the image, in front of each other."""
  count = len(presence)
  return Objects(
    tf.reshape(tf.constant(presence), [1, count, 1]),
    tf.tile([[[1.0, 1.0, 0.0, 0.0]]], [1, count, 1]),
    tf.reshape(tf.constant(depth), [1, count, 1]),
    tf.zeros([1, count, A]),
  )


def _one_pixel(colors, alphas):
  """Glimpses [1, K, 1, 1, 2] of grey and alpha."""
  return tf.reshape(
    tf.stack([colors, alphas], axis=1), [1, len(colors), 1, 1, 2]
  )


def test_front_objects_hide_others():
  background = tf.fill([1, 1, 1, 1], 0.5)
  scene = renderer.render(
    _objects([1.0, 1.0], [30.0, -30.0]),
    _one_pixel([0.2, 0.8], [1.0, 1.0]),
    background,
    (1, 1),
  )
  assert float(scene.image[0, 0, 0, 0]) == pytest.approx(0.8, abs=1e-6)
  parts = renderer.shares(scene).numpy().ravel()
  np.testing.assert_allclose(parts, [0, 1, 0], atol=1e-6)
  # The published ones have no depth, and a negative background.
  np.testing.assert_allclose(
    renderer.masks_of(scene).numpy().ravel(), [1, 1, -1], atol=1e-6
  )


def test_transparent_objects_over_a_background():
  scene = renderer.render(
    _objects([0.5, 1.0], [0.0, 0.0]),
    _one_pixel([0.8, 0.4], [0.4, 0.6]),
    tf.fill([1, 1, 1, 1], 0.5),
    (1, 1),
  )
  masks = np.array([0.2, 0.6])
  weights = masks / masks.sum()
  expected = weights @ (masks * [0.8, 0.4]) + 0.2 * 0.5
  assert float(scene.image[0, 0, 0, 0]) == pytest.approx(expected, rel=1e-5)
  parts = renderer.shares(scene).numpy().ravel()
  np.testing.assert_allclose(parts, [*(0.8 * weights), 0.2], rtol=1e-5)
  pictures = renderer.components(scene).numpy().ravel()
  np.testing.assert_allclose(pictures, [0.8, 0.4], rtol=1e-5)


def test_clipped_alpha_has_the_gradient_of_the_sum():
  presence = tf.constant([1.0, 1.0])
  with tf.GradientTape() as tape:
    tape.watch(presence)
    scene = renderer.render(
      _objects([1.0, 1.0], [0.0, 0.0])._replace(
        presence=tf.reshape(presence, [1, 2, 1])
      ),
      _one_pixel([0.8, 0.4], [1.0, 0.7]),
      None,
      (1, 1),
    )
    alpha = tf.reduce_sum(scene.alpha)
  assert float(alpha) == pytest.approx(1.0)
  np.testing.assert_allclose(
    tape.gradient(alpha, presence), [1.0, 0.7], rtol=1e-5
  )


def test_curriculum():
  curriculum = Curriculum(alpha=0.9, from_step=2, to_step=5)
  holds = [bool(curriculum(tf.constant(i, tf.int64)).holds) for i in range(7)]
  assert [i for i in range(7) if holds[i]] == [3, 4]
  arguments = (
    _objects([1.0], [0.0]),
    _one_pixel([1.0], [1.0]),
    tf.zeros([1, 1, 1, 1]),
    (1, 1),
    True,
  )
  plain = renderer.render(*arguments)
  for holds, alpha, mask in ((True, 0.9, 0.99), (False, 1.0, 1.0)):
    scene = renderer.render(*arguments, Covering(tf.constant(holds), 0.9))
    assert float(scene.alpha[0, 0, 0, 0]) == pytest.approx(alpha)
    assert float(scene.masks[0, 0, 0, 0, 0]) == pytest.approx(mask)
  assert float(plain.alpha[0, 0, 0, 0]) == pytest.approx(1.0)


# --- Annealing ----------------------------------------------------------------


def test_linear_schedules():
  ramp = annealing.linear(
    "a", {"start": 1.0, "end": 0.5, "from_step": 10, "to_step": 20}
  )
  expected = {0: 1.0, 10: 1.0, 15: 0.75, 20: 0.5, 10**6: 0.5}
  for step, value in expected.items():
    actual = float(ramp(tf.constant(step, tf.int64)))
    assert actual == pytest.approx(value, rel=1e-6)
  assert float(annealing.linear("a", 3)(tf.constant(7, tf.int64))) == 3.0


@pytest.mark.parametrize(
  "value, message",
  [
    ("1", "a='1': is text; expected a number, or a mapping of start"),
    ({"start": 1, "end": 2}, "a: expected to_step as well"),
    ({"stop": 1}, "a.stop=1: unknown key. Did you mean 'to_step'?"),
    (
      {"start": 1, "end": 2, "from_step": 5, "to_step": 5},
      "a.to_step=5: must be after from_step=5",
    ),
    ({"start": float("nan"), "end": 1, "to_step": 5}, "a.start=nan: expected"),
  ],
)
def test_wrong_schedules(value, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    annealing.linear("a", value)


# --- The model ----------------------------------------------------------------


def test_total_is_the_weighted_sum():
  weights = {"presence": 2.0, "global": {"start": 0, "end": 4, "to_step": 8}}
  model = _model_of(
    kl_weights=weights, auxiliary_weights={"where": 3.0, "what": 0.0}
  )
  scalars = model(
    tiny_gnm.batch(), noise=_noise(model), step=tf.constant(2, tf.int64)
  ).scalars
  terms = ("presence", "where", "depth", "what", "background", "global")
  factors = {"presence": 2.0}
  total = float(scalars["loss/nll"])
  for term in terms:
    total += factors.get(term, 1.0) * float(scalars[f"loss/kl_{term}"])
  for term in terms[:-1]:
    factor = {"where": 3.0, "what": 0.0}.get(term, 1.0)
    total += factor * float(scalars[f"loss/kl_auxiliary_{term}"])
  np.testing.assert_allclose(scalars["loss/total"], total, rtol=1e-5)
  summed = sum(float(scalars[f"loss/kl_{term}"]) for term in terms)
  np.testing.assert_allclose(scalars["loss/kl"], summed, rtol=1e-5)


def test_a_constraint_takes_the_place_of_the_likelihood():
  model = _model_of()
  plain = model(tiny_gnm.batch(), noise=_noise(model)).scalars
  model.use_geco(Geco(-1.0, warmup_steps=0))
  constrained = model(tiny_gnm.batch(), noise=_noise(model)).scalars
  # Its state is still 0.
  np.testing.assert_allclose(
    constrained["loss/total"],
    plain["loss/total"] - plain["loss/nll"],
    rtol=1e-4,
  )


def _model_of(**options):
  """A model whose options are no keys of a cache."""
  return tiny_gnm.initialized(**options)


def test_what_infer_returns():
  model = _model()
  noise = _noise(model)
  info = model.eval(tiny_gnm.batch(), noise=noise)
  outputs, latent = info["outputs"], info["latent"]
  assert outputs["recons"].shape == [B, 1, 1, SIDE, SIDE, C]
  assert outputs["pred_mask"].shape == [B, 1, K, SIDE, SIDE, 1]
  assert outputs["components"].shape == [B, 1, K, SIDE, SIDE, C]
  assert outputs["boxes"].shape == [B, 1, K, 4]
  assert outputs["presence"].shape == outputs["depth"].shape == [B, 1, K]
  assert model.n_z == 7 + G
  for name in ("z", "z_mean", "z_std"):
    assert latent[name].shape == [B, 1, K, model.n_z]
  masks = outputs["pred_mask"].numpy()
  np.testing.assert_allclose(masks.sum(axis=2), 1.0, atol=1e-5)
  assert masks.min() >= 0.0
  loss = model(tiny_gnm.batch(), noise=noise, step=tf.constant(10**6, tf.int64))
  for here, there in (("recons", "loss/nll"), ("kl", "loss/kl")):
    value = np.mean(np.sum(info["losses"][here], axis=-1, keepdims=True))
    if here == "recons":
      value = np.mean(info["losses"][here])
    np.testing.assert_allclose(value, loss.scalars[there], rtol=1e-4)
  np.testing.assert_array_equal(latent["z"][:, 0, :, 0], [[0] * 4 + [1]] * B)


def test_scenes_of_their_own_slots_are_the_reconstructions():
  model = _model()
  info = model.infer(tiny_gnm.batch(), noise=_noise(model))
  z = info["latent"]["z"][:, 0]
  recons, masks = model.compose(z)
  np.testing.assert_allclose(
    recons, info["outputs"]["recons"][:, 0, 0], atol=1e-5
  )
  np.testing.assert_allclose(
    masks, info["outputs"]["pred_mask"][:, 0], atol=1e-5
  )
  # The order of slots does not matter.
  shuffled = tf.gather(z, [4, 2, 0, 3, 1], axis=1)
  np.testing.assert_allclose(model.compose(shuffled).recons, recons, atol=1e-5)
  # Without the background: black behind the objects, and shared.
  alone, masks = model.compose(z[:, :-1])
  assert np.mean(alone) < np.mean(recons)
  np.testing.assert_allclose(np.sum(masks, axis=1), 1.0, atol=1e-5)
  # An object that is moved elsewhere.
  moved = z.numpy()
  moved[:, 0, 4] += 0.5
  assert np.abs(model.compose(tf.constant(moved)).recons - recons).max() > 1e-3


def test_a_slot_is_moved():
  model = _model()
  info = exploration.infer(model, tiny_gnm.batch(), seed=3)
  z = info["latent"]["z"][1, -1].copy()
  scenes = exploration.move_slot(model, info, 2, [(0, 0), (0.5, -0.25)], b=1)
  np.testing.assert_allclose(
    scenes.recons[0], info["outputs"]["recons"][1, 0, 0], atol=1e-5
  )
  z[2, 4:6] += (0.5, -0.25)
  moved = model.compose(tf.constant(z[np.newaxis])).recons[0]
  np.testing.assert_allclose(scenes.recons[1], moved, atol=1e-5)
  assert np.abs(scenes.recons[1] - scenes.recons[0]).max() > 1e-3
  centres = info["outputs"]["boxes"].reshape(B, 1, K, 2, 2).mean(axis=3)
  places = exploration.slot_places(model, info["latent"]["z"])
  np.testing.assert_allclose(places, centres, atol=1e-6)
  put = exploration.put_slots(model, z, places[1, 0])
  z[2, 4:6] -= (0.5, -0.25)
  np.testing.assert_array_equal(put, info["latent"]["z"][1, -1])
  with pytest.raises(ValueError, match="slot=5: expected from 0 to 4"):
    exploration.move_slot(model, info, K, [(0, 0)])
  model.place_latents = None
  with pytest.raises(ValueError, match="GNM has no latents of a slot's place"):
    exploration.move_slot(model, info, 2, [(0, 0)])
  del model.place_latents


def test_deviations_of_slots_to_first_order():
  model = _model()
  record = model(tiny_gnm.batch(), noise=_noise(model)).iterations
  means, deviations = slots.moments(record.posterior, record.background)
  where = record.posterior.where
  for entry in range(4):
    step = np.zeros(4, np.float32)
    step[entry] = 1e-2
    both = [
      symbols.squashed_where(where.loc + sign * step * where.scale)
      for sign in (1, -1)
    ]
    changes = (both[0] - both[1]).numpy().reshape(B, N * N, 4) / 2e-2
    columns = [0, 1] if entry < 2 else [entry]
    squares = np.square(changes[..., columns])
    if entry == 0:
      expected = squares
    elif entry == 1:
      expected = np.sqrt(expected + squares)
      np.testing.assert_allclose(
        deviations[:, :-1, 2:4], expected, rtol=2e-3, atol=1e-5
      )
    else:
      np.testing.assert_allclose(
        deviations[:, :-1, 2 + entry],
        np.sqrt(squares[..., 0]),
        rtol=2e-3,
        atol=1e-5,
      )
  assert not np.any(deviations[:, :, 0])
  np.testing.assert_array_equal(means[:, -1, :7], [[1, 1, 1, 1, 0, 0, 0]] * B)


def test_samples():
  model = _model()
  seed = tf.constant([1, 2])
  for mode in (True, False):
    recons, masks = model.sample(3, seed, mode)
    assert recons.shape == [3, SIDE, SIDE, C]
    assert masks.shape == [3, K, SIDE, SIDE, 1]
    np.testing.assert_allclose(np.sum(masks, axis=1), 1.0, atol=1e-5)
    assert np.ptp(recons, axis=0).max() > 1e-3
    np.testing.assert_array_equal(model.sample(3, seed, mode).recons, recons)
  assert np.any(model.sample(3, seed, True).recons != recons)


def test_log_likelihood_is_above_the_evidence_bound():
  model = _model()
  data = tiny_gnm.batch()
  one = [
    model.log_likelihood(data, 1, tf.constant([i, 0])).numpy() for i in range(8)
  ]
  many = model.log_likelihood(data, 20, tf.constant([1, 2])).numpy()
  assert many.shape == (B,)
  assert np.all(many > np.mean(one, axis=0))


def test_published_masks():
  model = _model(published_masks=True)
  record = model(tiny_gnm.batch(), noise=_noise(model)).iterations
  info = model.infer(tiny_gnm.batch(), noise=_noise(model))
  masks = info["outputs"]["pred_mask"][:, 0].numpy()
  np.testing.assert_allclose(masks.sum(axis=1), 1.0, atol=1e-5)
  assert record.scene.rendered.masks.shape == [B, N * N, SIDE, SIDE, 1]
  plain = _model().infer(tiny_gnm.batch(), noise=_noise(model))
  assert np.any(masks != plain["outputs"]["pred_mask"][:, 0])


def test_without_overlap():
  model = _model_of(background=None, overlap=False)
  assert model.num_components == N * N and model.n_z == 7 + A
  noise = _noise(model)
  assert "bg" not in noise
  info = model.eval(tiny_gnm.batch(), noise=noise)
  masks = info["outputs"]["pred_mask"][:, 0].numpy()
  assert masks.shape == (B, N * N, SIDE, SIDE, 1)
  np.testing.assert_allclose(masks.sum(axis=1), 1.0, atol=1e-5)
  scalars = model(tiny_gnm.batch(), noise=noise).scalars
  assert "loss/kl_background" not in scalars
  recons, _ = model.compose(info["latent"]["z"][:, 0])
  np.testing.assert_allclose(
    recons, info["outputs"]["recons"][:, 0, 0], atol=1e-5
  )
  assert model.sample(2, tf.constant([1, 2])).masks.shape[1] == N * N


def test_counting():
  z = np.zeros([3, K, 7 + G], np.float32)
  z[:, -1, :2] = 1.0  # a background
  z[0, :2, 1] = 0.9
  z[1, :3, 1] = (0.4, 0.6, 0.7)
  z[0, 1, 2:7] = (0.25, 0.5, 0.5, -0.5, 7.0)
  places = slots.places(tf.constant(z))
  np.testing.assert_allclose(places["boxes"][0, 1], [0.625, 0, 0.875, 0.5])
  assert float(places["depth"][0, 1]) == 7.0
  masks = np.zeros([3, 1, 4, 2, 2, 1], np.float32)
  masks[:, 0, 0] = 1.0
  masks[0, 0, 1:3, 0, 0] = 1.0
  masks[1, 0, 1:4, 1, 1] = 1.0
  presence = places["presence"][:, tf.newaxis]
  info = {"data": {"true_mask": masks}, "outputs": {"presence": presence}}
  records = {k: v.numpy() for k, v in counting.records(info, 1).items()}
  np.testing.assert_array_equal(records["count"], [[2], [2], [0]])
  np.testing.assert_array_equal(records["true_count"], [2, 3, 0])
  scores = counting.scores(records)
  np.testing.assert_allclose(scores["count/accuracy"], [2 / 3])
  np.testing.assert_allclose(scores["count/error"], [1 / 3])
  assert counting.scores(counting.records({**info, "data": {}}, 1)) == {}


def test_noise_of_a_scene_is_its_own():
  model = _model()
  noise = _noise(model)
  alone = model.noise([np.random.default_rng(1)])
  for key, value in noise.items():
    assert value.dtype == np.float32
    np.testing.assert_array_equal(alone[key][:, 0], value[:, 1])
  many = model.noise([np.random.default_rng(5)] * 200)
  assert 0 <= many["pres_uniform"].min() < many["pres_uniform"].max() < 1
  assert many["where"].min() < -1.0


def test_compiled_equals_eager():
  model = _model()
  data, seed = tiny_gnm.batch(), tf.constant([5, 6])
  step = tf.constant(3, tf.int64)
  call = tf.function(
    lambda image: model({"image": image}, seed=seed, step=step),
    input_signature=[tf.TensorSpec([None, 1, SIDE, SIDE, C])],
    autograph=False,
  )
  eager = model({"image": data["image"]}, seed=seed, step=step)
  for key, value in call(data["image"]).scalars.items():
    np.testing.assert_allclose(value, eager.scalars[key], rtol=1e-4)


@pytest.mark.slow
def test_a_step_of_sub_batches():
  model = _model_of(curriculum=Curriculum(), n_z=2, kl_weights={"global": 1.0})
  trainer = training.Trainer(
    model,
    training.RMSprop(1e-3, clip_norm=1.0),
    seed=0,
    distribution=training.replicas.Distribution(accumulate=2),
  )
  before = [v.numpy() for v in model.trainable_variables]
  scalars = trainer.step(tiny_gnm.batch(4))
  assert all(np.isfinite(value) for value in scalars.values())
  for variable, value in zip(model.trainable_variables, before, strict=True):
    assert np.any(variable.numpy() != value), variable.name


def test_kl_of_bernoulli_variables():
  q, p = tf.constant([0.0, 0.3, 1.0]), tf.constant([0.5, 0.3, 0.5])
  np.testing.assert_allclose(
    objective.bernoulli_kl(q, p), [np.log(2), 0, np.log(2)], atol=1e-6
  )
  assert np.all(np.isfinite(objective.bernoulli_kl(q, 1.0 - q)))


@pytest.mark.parametrize(
  "options, size",
  [
    (
      dict(
        encoder=ImageEncoder(),
        struct_draw=StructDRAW(),
        head=SymbolHead(),
        glimpse_decoder=PictureDecoder(),
        background=Background(),
        n_z=64,
      ),
      8_636_446,
    ),
    (
      dict(
        encoder=ImageEncoder([16, 16, 32, 32, 64, 64, 64, 64, 64]),
        struct_draw=StructDRAW(
          encoder_size=64, decoder_size=64, decoder_sizes=[512, 512]
        ),
        head=SymbolHead([64, 64]),
        glimpse_decoder=PictureDecoder(
          [64, 64, 32, 16, 8], [1, 1, 1, 1, 3, 3], [4, 2, 2, 2, 1, 1]
        ),
        n_z=20,
        overlap=False,
      ),
      2_930_708,
    ),
  ],
)
def test_size_of_the_published_models(options, size):
  model = GNM(**options)
  model.initialize((128, 128, 3 if options["n_z"] == 64 else 1), {})
  count = sum(v.shape.num_elements() for v in model.trainable_variables)
  assert count == size


@pytest.mark.parametrize(
  "options, message",
  [
    ({"sigma": 0.0}, "sigma=0.0: expected a number above 0"),
    ({"num_cells": 0}, "num_cells=0: expected an integer of at least 1"),
    ({"overlap": False}, "overlap=False: needs background=None"),
    ({"kl_weights": {"wher": 1.0}}, "kl_weights.wher: unknown key. Did you"),
    ({"auxiliary_weights": {"global": 1.0}}, "auxiliary_weights.global: unkn"),
    ({"published_masks": 1}, "published_masks=1: expected True or False"),
    ({"head": None}, "head=None: expected a module"),
    ({"num_cells": 3}, "the encoder makes 2 x 2 cells of 16 x 16 pixels, but"),
  ],
)
def test_wrong_arguments(options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    tiny_gnm.initialized(**options)


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: ImageEncoder([4, 6], [3], [1], [4]), "output_channels[1]=6: expe"),
    (lambda: ImageEncoder([4, 6], [3], [-1]), "strides[0]=-1: expected an int"),
    (lambda: PictureDecoder([4], [3], [2, 2, 2]), "upscales=[2, 2, 2]: expect"),
    (lambda: Curriculum(alpha=1.0), "alpha=1.0: expected a number in [0, 1)"),
    (lambda: StructDRAW(num_draws=0), "num_draws=0: expected an integer of"),
  ],
)
def test_wrong_parts(make, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    make()


def test_images_and_latents_that_do_not_fit():
  model = _model()
  with pytest.raises(ValueError, match="16 x 8 pixels; expected a square"):
    model({"image": tf.zeros([1, 1, 16, 8, C])})
  with pytest.raises(ValueError, match="background's factors make 16 x 16"):
    model({"image": tf.zeros([1, 1, 32, 32, C])})
  with pytest.raises(ValueError, match=r"z has shape \[2, 4, 5\]"):
    model.compose(tf.zeros([2, 4, 5]))
  with pytest.raises(ValueError, match=r"noise\['bg'\] has shape \[1, 3, 4\]"):
    model(tiny_gnm.batch(), noise=_noise(model, 3))
