"""Slot Attention: its module, its parts, and the auto-encoder."""

import math

import numpy as np
import pytest
import tensorflow as tf

from iodine.config import reading, resolution
from iodine.models.slot_attention import (
  AreaLoss,
  ConvEncoder,
  Glimpse,
  PatchDecoder,
  SeparationLoss,
  SlotAttention,
  SlotAttentionAutoEncoder,
  SpatialBroadcastDecoder,
  attention_pictures,
)
from tests.support.module_checks import check_gradients, perturb

B, H, W, N, C, K, D, T = 2, 12, 20, 11, 5, 3, 8, 2


def make_attention(**options):
  module = SlotAttention(**{"n_z": D, "num_iters": T, "mlp_size": 7, **options})
  inputs = np.random.default_rng(0).normal(size=[B, N, C])
  noise = np.random.default_rng(1).normal(size=[B, K, D])
  inputs, noise = inputs.astype(np.float32), noise.astype(np.float32)
  module(inputs, noise)
  perturb(module)
  return module, inputs, noise


def make_model(attention=(), **options):
  return SlotAttentionAutoEncoder(
    encoder=ConvEncoder([4, 6], [3], [1], mlp_sizes=[7, 7]),
    slot_attention=SlotAttention(
      **{"n_z": D, "num_iters": T, "mlp_size": 7, **dict(attention)}
    ),
    decoder=SpatialBroadcastDecoder([5, 6], [5, 3, 3], [2, 1, 1]),
    **{"n_z": D, "num_components": K, **options},
  )


def make_data(seed=0):
  rng = np.random.default_rng(seed)
  owners = rng.integers(3, size=[B, 1, H, W])
  masks = np.moveaxis(np.eye(3, dtype=np.float32)[owners], -1, 2)[..., None]
  image = rng.uniform(size=[B, 1, H, W, 3]).astype(np.float32)
  return {"image": image, "mask": masks}


def oracle(module, inputs, noise, heads=1, epsilon=1e-3):
  """Slots and attention of every iteration, in loops."""
  values = {v.name.split(":")[0]: v.numpy() for v in module.variables}
  get = lambda name: values[f"slot_attention/{name}"]

  def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * get(f"{name}/scale") + get(f"{name}/offset")

  def gru(x, h):
    i = np.split(x @ get("gru/w_i") + get("gru/b_i"), 3)
    s = np.split(h @ get("gru/w_h") + get("gru/b_h"), 3)
    z, r = (1 / (1 + np.exp(-i[j] - s[j])) for j in range(2))
    return z * h + (1 - z) * np.tanh(i[2] + r * s[2])

  size = D // heads
  k = norm(inputs, "norm_inputs") @ get("project_k/w")
  v = norm(inputs, "norm_inputs") @ get("project_v/w")
  slots = get("slots_mu") + np.exp(get("slots_log_sigma")) * noise
  results = []
  for _ in range(module.num_updates):
    q = norm(slots, "norm_slots") @ get("project_q/w")
    attention = np.zeros([B, N, heads, K])
    means = np.zeros([B, K, D])
    for b in range(B):
      for n in range(N):
        for p in range(heads):
          part = slice(p * size, (p + 1) * size)
          for s in range(K):
            attention[b, n, p, s] = k[b, n, part] @ q[b, s, part] / size**0.5
        exp = np.exp(attention[b, n])
        attention[b, n] = exp / exp.sum()
      for p in range(heads):
        part = slice(p * size, (p + 1) * size)
        for s in range(K):
          weights = attention[b, :, p, s] + 1e-8
          means[b, s, part] = weights @ v[b, :, part] / weights.sum()
    h = np.stack(
      [[gru(means[b, s], slots[b, s]) for s in range(K)] for b in range(B)]
    )
    hidden = np.maximum(
      norm(h, "norm_mlp") @ get("mlp_0/w") + get("mlp_0/b"), 0
    )
    slots = h + hidden @ get("mlp_1/w") + get("mlp_1/b")
    results.append((slots, attention.reshape(B, N, heads * K)))
  return results


class TestSlotAttention:
  @pytest.mark.parametrize(
    "options, heads, epsilon",
    [
      ({}, 1, 1e-3),
      ({"num_heads": 2, "norm_epsilon": 1e-5}, 2, 1e-5),
      ({"num_heads": 4, "implicit": True}, 4, 1e-3),
    ],
  )
  def test_every_iteration(self, options, heads, epsilon):
    module, inputs, noise = make_attention(**options)
    updates = module(inputs, noise)
    expected = oracle(module, inputs, noise, heads, epsilon)
    assert len(updates) == len(expected) == T + ("implicit" in options)
    for update, (slots, attention) in zip(updates, expected, strict=True):
      np.testing.assert_allclose(update.slots, slots, atol=2e-5)
      np.testing.assert_allclose(update.attention, attention, atol=2e-6)

  def test_is_equivariant_to_the_order_of_slots(self):
    module, inputs, noise = make_attention()
    order = [2, 0, 1]
    slots = module(inputs, noise)[-1].slots.numpy()
    permuted = module(inputs, noise[:, order])[-1].slots
    np.testing.assert_allclose(permuted, slots[:, order], atol=1e-5)

  def test_is_invariant_to_the_order_of_the_set(self):
    module, inputs, noise = make_attention()
    slots = module(inputs, noise)[-1].slots
    reversed_ = module(inputs[:, ::-1], noise)[-1].slots
    np.testing.assert_allclose(reversed_, slots, atol=1e-5)

  def gradients(self, module, inputs, noise):
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      loss = tf.reduce_sum(module(inputs, noise)[-1].slots)
    return tape.gradient(
      loss, {"mu": module.slots_mu, "inputs": inputs, "gru": module._gru.w_i}
    )

  def test_implicit_gradients_are_those_of_the_last_update(self):
    module, inputs, noise = make_attention(implicit=True)
    found = self.gradients(module, inputs, noise)
    assert found["mu"] is None and not module.slots_mu.trainable
    # From the same slots, one iteration has the same gradients.
    before = module(inputs, noise)[-2].slots
    one, _, _ = make_attention(num_iters=1)
    for target, source in zip(one.variables, module.variables, strict=True):
      target.assign(source)
    one.slots_mu.assign(tf.zeros([1, 1, D]))
    one.slots_log_sigma.assign(tf.zeros([1, 1, D]))
    expected = self.gradients(one, inputs, before.numpy())
    for name in ("inputs", "gru"):
      np.testing.assert_allclose(found[name], expected[name], atol=1e-4)

  def test_initial_slots_can_be_fixed(self):
    trained, _, _ = make_attention()
    fixed, _, _ = make_attention(train_initial_slots=False)
    names = {v.name for v in fixed.trainable_variables}
    missing = {v.name for v in trained.trainable_variables} - names
    assert missing == {
      "slot_attention/slots_mu:0",
      "slot_attention/slots_log_sigma:0",
    }

  @pytest.mark.parametrize(
    "initial_values, bound",
    [
      ("glorot", math.sqrt(6 / 401)),
      ("xavier", math.sqrt(6 / 800)),
      ("pytorch", math.sqrt(6 / 800)),
    ],
  )
  def test_initial_slots(self, initial_values, bound):
    module = SlotAttention(400, initial_values=initial_values)
    module.initial_slots(tf.zeros([1, 1, 400]))
    for variable in (module.slots_mu, module.slots_log_sigma):
      assert 0.95 * bound < np.abs(variable).max() <= bound

  @pytest.mark.parametrize(
    "options, message",
    [
      ({"num_heads": 3}, "num_heads=3: must divide n_z=8"),
      ({"num_iters": 0}, "num_iters=0: expected an integer of at least 1"),
      ({"norm_epsilon": 0}, "norm_epsilon=0: expected a number above 0"),
      ({"implicit": 1}, "implicit=1"),
      ({"initial_values": "keras"}, "initial_values='keras': no such value"),
    ],
  )
  def test_errors(self, options, message):
    with pytest.raises(ValueError, match=message):
      SlotAttention(**{"n_z": D, **options})


def test_attention_pictures():
  module, _, noise = make_attention(num_heads=2)
  inputs = np.random.default_rng(2).normal(size=[B, 6, C]).astype(np.float32)
  updates = module(inputs, noise)
  attention = [update.attention for update in updates]
  pictures = attention_pictures(attention, K, (2, 3), (4, 9)).numpy()
  assert pictures.shape == (B, T, K, 4, 9, 1)
  np.testing.assert_allclose(pictures.sum(axis=2), 1, atol=1e-6)
  # Feature 4 is in row 1, column 1: rows 2 to 3, columns 3 to 5.
  share = updates[1].attention.numpy()[:, 4].reshape(B, 2, K).sum(axis=1)
  block = pictures[:, 1, :, 2:4, 3:6, 0]
  expected = np.broadcast_to(share[:, :, None, None], block.shape)
  np.testing.assert_allclose(block, expected, atol=1e-6)


class TestParts:
  def test_encoder_without_norm_and_with_strides(self):
    encoder = ConvEncoder(
      [4, 5],
      [3],
      [2, 1],
      mlp_sizes=[6],
      activation="leaky_relu",
      with_layer_norm=False,
    )
    encoded = encoder(tf.random.stateless_normal([B, H, W, 3], [0, 1]))
    assert encoded.grid == (6, 10)
    assert encoded.features.shape == (B, 60, 6)
    np.testing.assert_array_equal(
      encoded.normed, tf.reshape(encoded.positioned, [B, 60, 5])
    )
    assert np.min(encoded.convolved) < 0  # a leaky ReLU comes last

  def test_alignments_differ_by_a_pixel(self):
    slots = tf.random.stateless_normal([4, D], [0, 1])
    pictures = []
    for alignment in ("tensorflow", "pytorch"):
      decoder = SpatialBroadcastDecoder([], [5], [2], alignment=alignment)
      decoder(slots, [H, W, 3])
      for variable in decoder.variables:
        seed = [7, variable.shape.num_elements()]
        variable.assign(tf.random.stateless_normal(variable.shape, seed))
      pictures.append(decoder(slots, [H, W, 3])[1].numpy())
    ours, shifted = pictures
    np.testing.assert_allclose(ours[:, 1:, 1:], shifted[:, :-1, :-1], atol=1e-5)
    assert np.abs(ours - shifted).max() > 0.1

  def test_decoder_needs_a_size_that_its_strides_divide(self):
    decoder = SpatialBroadcastDecoder([5], [5, 3], [4, 1])
    with pytest.raises(ValueError, match="4 in all, do not divide.*10x12"):
      decoder(tf.zeros([1, D]), [10, 12, 3])

  @pytest.mark.parametrize(
    "make, message",
    [
      (lambda: ConvEncoder([4, 4], [3, 3, 3]), r"kernel_shapes=\[3, 3, 3\]"),
      (lambda: ConvEncoder(activation="rleu"), "unknown activation 'rleu'"),
      (lambda: ConvEncoder(norm_epsilon=-1), "norm_epsilon=-1"),
      (
        lambda: SpatialBroadcastDecoder(
          [4], [3, 3], [3, 1], alignment="pytorch"
        ),
        r"strides=\[3, 1\]: with alignment='pytorch', expected at most half",
      ),
      (
        lambda: SpatialBroadcastDecoder(alignment="torch"),
        "alignment='torch': no such value",
      ),
    ],
  )
  def test_errors(self, make, message):
    with pytest.raises(ValueError, match=message):
      make()


class TestMaskLosses:
  masks = tf.nn.softmax(tf.random.stateless_normal([B, K, 6, 5, 1], [1, 2]), 1)

  def test_separation(self):
    masks = self.masks.numpy().astype(float)
    entropy = -(masks * np.log(masks)).sum(axis=1).mean()
    found = SeparationLoss("entropy")(self.masks)
    np.testing.assert_allclose(found, entropy, rtol=1e-5)
    found = SeparationLoss("max")(self.masks)
    np.testing.assert_allclose(found, 1 - masks.max(axis=1).mean(), rtol=1e-5)

  def test_area(self):
    areas = self.masks.numpy().sum(axis=(2, 3, 4))
    values = []
    for area in areas.ravel():
      missing = 30 - 2 * 4.0 - area
      values.append(min((area - 8.0) ** 2, max(missing, 0) * missing) / 64)
    found = AreaLoss(object_area=4.0, slot_area=8.0)(self.masks)
    np.testing.assert_allclose(found, np.mean(values), rtol=1e-4)

  @pytest.mark.parametrize(
    "step, weight", [(0, 0.0), (10, 0.0), (15, 1.0), (20, 2.0), (999, 2.0)]
  )
  def test_weight(self, step, weight):
    loss = SeparationLoss("max", 2.0, 10, 20)
    np.testing.assert_allclose(loss.weight(tf.constant(step)), weight, 1e-5)

  def test_weight_may_rise_at_once(self):
    loss = SeparationLoss("max", 2.0, 10, 10)
    weights = [loss.weight(tf.constant(step)) for step in (9, 10)]
    np.testing.assert_allclose(weights, [0.0, 2.0])

  def test_are_part_of_the_loss(self):
    model = make_model(
      mask_losses={"separation": SeparationLoss("max", 2, 0, 4)}
    )
    data, noise = make_data(), model.noise([np.random.default_rng(0)] * B)
    plain, full = (
      model(data, noise=noise, step=tf.constant(s, tf.int64)) for s in (0, 4)
    )
    separation = full.scalars["loss/separation"]
    np.testing.assert_allclose(full.total, plain.total + 2 * separation)
    np.testing.assert_allclose(
      plain.total, plain.scalars["loss/reconstruction"]
    )

  @pytest.mark.parametrize(
    "make, message",
    [
      (lambda: SeparationLoss("mean"), "kind='mean': no such value"),
      (lambda: SeparationLoss(weight=0), "weight=0"),
      (lambda: AreaLoss(start_step=9, end_step=8), "end_step=8: must not be"),
      (lambda: make_model(mask_losses={"a": 3}), "mask_losses.a=3"),
    ],
  )
  def test_errors(self, make, message):
    with pytest.raises(ValueError, match=message):
      make()


class TestAutoEncoder:
  def test_loss_is_that_of_images_from_minus_1_to_1(self):
    model, data = make_model(), make_data()
    noise = model.noise([np.random.default_rng(b) for b in range(B)])
    loss = model(data, noise=noise)
    info = model.infer(data, noise=noise)
    error = np.square(data["image"] - info["outputs"]["recons"][:, -1]).mean()
    np.testing.assert_allclose(loss.total, 4 * error, rtol=1e-5)
    np.testing.assert_allclose(loss.scalars["loss/mse"], error, rtol=1e-5)
    assert {"loss/total", "loss/ari", "loss/ari_nobg"} <= set(loss.scalars)

  def test_answers_are_those_of_fewer_iterations(self):
    model, data = make_model(), make_data()
    model.initialize((H, W, 3), {})
    noise = model.noise([np.random.default_rng(b) for b in range(B)])
    info = model.infer(data, noise=noise)
    assert model.num_steps == T
    short = make_model({"num_iters": 1})
    short.initialize((H, W, 3), {})
    for target, source in zip(short.variables, model.variables, strict=True):
      assert target.name == source.name
      target.assign(source)
    expected = short.infer(data, noise=noise)
    for name, value in expected["outputs"].items():
      np.testing.assert_allclose(
        info["outputs"][name][:, :1], value, atol=1e-5, err_msg=name
      )

  def test_entries_of_infer(self):
    model, data = make_model(), make_data()
    info = model.infer(data, seed=tf.constant([1, 2]))
    outputs = {k: tuple(v.shape) for k, v in info["outputs"].items()}
    assert outputs == {
      "recons": (B, T, 1, H, W, 3),
      "pred_mask": (B, T, K, H, W, 1),
      "pred_mask_logits": (B, T, K, H, W, 1),
      "components": (B, T, K, H, W, 3),
      "attention": (B, T, K, H, W, 1),
    }
    assert info["latent"]["z"].shape == (B, T, K, D)
    slots = model.decode_slots(info["latent"]["z"][:, -1])
    np.testing.assert_allclose(
      slots.components, info["outputs"]["components"][:, -1], atol=1e-5
    )
    mixed = tf.reduce_sum(
      info["outputs"]["pred_mask"] * info["outputs"]["components"], axis=2
    )
    np.testing.assert_allclose(
      mixed, info["outputs"]["recons"][:, :, 0], atol=1e-5
    )

  def test_any_number_of_slots_and_iterations(self):
    model, more = make_model(), make_model({"num_iters": 5}, num_components=6)
    for m in (model, more):
      m.initialize((H, W, 3), {})
    for target, source in zip(more.variables, model.variables, strict=True):
      target.assign(source)
    info = more.infer(make_data(), seed=tf.constant([1, 2]))
    assert info["outputs"]["pred_mask"].shape == (B, 5, 6, H, W, 1)

  def test_noise_of_a_scene_is_its_own(self):
    model = make_model()
    rngs = lambda: [np.random.default_rng(b) for b in range(B)]
    noise = model.noise(rngs())
    assert noise.shape == (1, B, K, D) and noise.dtype == np.float32
    np.testing.assert_array_equal(noise[:, 1:], model.noise(rngs()[1:]))

  def test_seed_makes_it_repeatable(self):
    model, data = make_model(), make_data()
    totals = [
      float(model(data, seed=tf.constant(seed)).total)
      for seed in ([0, 1], [0, 1], [0, 2])
    ]
    assert totals[0] == totals[1] != totals[2]
    assert float(model(data).total) != float(model(data).total)

  def test_noise_of_the_wrong_shape(self):
    with pytest.raises(ValueError, match="noise"):
      make_model()(make_data(), noise=np.zeros([1, B, K, D, 1], np.float32))

  def test_parts_must_be_modules(self):
    with pytest.raises(ValueError, match="encoder"):
      SlotAttentionAutoEncoder(None, SlotAttention(D), None, D, K)


@pytest.mark.parametrize(
  "name, shape, count",
  [
    ("slot_attention_clevr6", (128, 128, 3), 890_308),
    ("slot_attention_multi_dsprites", (64, 64, 3), None),
    ("slot_attention_tetrominoes", (35, 35, 3), None),
  ],
)
def test_configurations(name, shape, count):
  entries = resolution.resolve(reading.named_configs()[name])
  (model,) = resolution.build(entries, ["model"])
  model.initialize(shape, {})
  assert (model.n_z, model.num_steps) == (64, 3)
  if count:
    assert sum(v.shape.num_elements() for v in model.variables) == count


class TestSaliency:
  def test_weighs_elements(self):
    module, inputs, noise = make_attention(with_saliency=True)
    values = {v.name: v.numpy() for v in module.variables}
    weights, bias = (values[f"slot_attention/saliency/{x}:0"] for x in "wb")
    (update, *_) = module(inputs, noise)
    expected = np.log(update.attention + 1e-8) + inputs @ weights + bias
    shift = (expected - update.log_weights).numpy()
    np.testing.assert_allclose(
      shift, np.broadcast_to(shift[:, :1, :1], shift.shape), atol=1e-5
    )
    assert np.max(inputs @ weights + bias) != 0

  def test_what_is_not_salient_does_not_count(self):
    module, inputs, noise = make_attention(with_saliency=True)
    for variable in module.variables:
      if "saliency" in variable.name:
        variable.assign(tf.zeros_like(variable))
      if variable.name.endswith("saliency/w:0"):
        variable.assign(tf.one_hot([0], C, 1000.0, axis=0))
    inputs[:, 4:, 0], inputs[:, :4, 0] = -1, 1
    slots = module(inputs, noise)[-1].slots
    inputs[:, 4:, 1:] += 3
    np.testing.assert_allclose(module(inputs, noise)[-1].slots, slots, 1e-4)

  def test_equal_saliency_is_none(self):
    module, inputs, noise = make_attention(with_saliency=True)
    plain, _, _ = make_attention()
    values = {v.name: v for v in module.variables}
    for variable in plain.variables:
      variable.assign(values[variable.name])
    values["slot_attention/saliency/w:0"].assign(tf.zeros([C, 1]))
    for found, expected in zip(
      module(inputs, noise), plain(inputs, noise), strict=True
    ):
      np.testing.assert_allclose(found.slots, expected.slots, atol=1e-5)


class TestGlimpse:
  def make(self):
    attention, _, noise = make_attention(with_saliency=True)
    inputs = np.random.default_rng(3).normal(size=[B, 6, C]).astype(np.float32)
    update = attention(inputs, noise)[-1]
    glimpse = Glimpse(4)
    glimpse(inputs, (2, 3), update)
    perturb(glimpse)
    return glimpse, inputs, update

  def test_is_a_weighted_mean(self):
    glimpse, inputs, update = self.make()
    z = glimpse(inputs, (2, 3), update).numpy()
    assert z.shape == (B, K, D + glimpse.num_numbers) == (B, K, D + 7)
    v = {
      x.name.split(":")[0].partition("/")[2]: x.numpy()
      for x in glimpse.variables
    }
    place = np.array([(y, x) for y in (0, 1) for x in (0, 0.5, 1)])
    mass = np.exp(update.log_weights).sum(axis=1)
    share = np.log(mass / mass.sum(axis=1, keepdims=True))
    for b, k in np.ndindex(B, K):
      query = update.slots[b, k].numpy() @ v["query/w"] + v["query/b"]
      keys = inputs[b] @ v["key/w"] + v["key/b"]
      logits = keys @ query / 2 + update.log_weights[b, :, k].numpy()
      weights = np.exp(logits - logits.max())
      weights /= weights.sum()
      content = weights @ (inputs[b] @ v["value/w"] + v["value/b"])
      expected = np.concatenate(
        [update.slots[b, k], content, share[b, k : k + 1], weights @ place]
      )
      np.testing.assert_allclose(z[b, k], expected, atol=1e-4)

  def test_gradients_reach_all_of_it(self):
    glimpse, inputs, update = self.make()
    check_gradients(
      "eager", glimpse, lambda x: glimpse(x, (2, 3), update), inputs
    )

  def test_needs_one_head(self):
    with pytest.raises(ValueError, match="num_heads=2: with a glimpse"):
      make_model({"num_heads": 2}, glimpse=Glimpse())

  def test_size(self):
    with pytest.raises(ValueError, match="glimpse_size=0"):
      Glimpse(0)


class TestPatchDecoder:
  Z = 9

  def make(self, size=5):
    decoder = PatchDecoder(size, [6], max_offset=3.0)
    decoder(tf.zeros([1, self.Z]), (H, W, 2))
    perturb(decoder)
    return decoder

  def values(self, decoder):
    return {
      v.name.split(":")[0].partition("/")[2]: v.numpy()
      for v in decoder.variables
    }

  def test_places_a_patch_by_bilinear_interpolation(self):
    decoder = self.make()
    z = np.random.default_rng(0).uniform(size=[4, self.Z]).astype(np.float32)
    centres, output = decoder(z, (H, W, 2))
    slots, v = z[:, :-3], self.values(decoder)
    hidden = np.maximum(slots @ v["hidden_0/w"] + v["hidden_0/b"], 0)
    patches = (hidden @ v["patch/w"] + v["patch/b"]).reshape(4, 5, 3, 5)
    outside = hidden @ v["outside/w"] + v["outside/b"]
    outside[:, -1] += v["scale"] * z[:, -3]
    offset = 3.0 * np.tanh(slots @ v["offset/w"] + v["offset/b"])
    place = z[:, -2:] * [H - 1, W - 1] + offset
    np.testing.assert_allclose(centres, place, rtol=1e-4)
    expected = np.broadcast_to(outside[:, None, None], [4, H, W, 3]).copy()
    for m, y, x in np.ndindex(4, H, W):
      for i, j in np.ndindex(5, 5):
        row, column = centres[m].numpy() + [i - 2, j - 2]
        weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
        expected[m, y, x] += weight * patches[m, i, :, j]
    np.testing.assert_allclose(output, expected, atol=1e-4)

  def test_place_and_patch_are_trained(self):
    decoder = self.make()
    z = tf.random.stateless_uniform([4, self.Z], [1, 1])
    check_gradients("compiled", decoder, lambda x: decoder(x, (H, W, 2))[1], z)

  def test_serves_the_auto_encoder(self):
    model = SlotAttentionAutoEncoder(
      ConvEncoder([4], [3], [2], mlp_sizes=[7, 7]),
      SlotAttention(D, T, with_saliency=True),
      PatchDecoder(5, [6]),
      D,
      K,
      glimpse=Glimpse(4),
    )
    data = {"image": make_data()["image"][..., :2]}
    noise = model.noise([np.random.default_rng(0)] * B)
    assert noise.shape == (1, B, K, D)
    info = model.infer(data, noise=noise)
    assert info["outputs"]["components"].shape == (B, T, K, H, W, 2)
    z = info["latent"]["z"]
    assert z.shape == (B, T, K, model.n_z) == (B, T, K, D + 7)
    slots = model.decode_slots(z[:, -1])
    np.testing.assert_allclose(
      slots.components, info["outputs"]["components"][:, -1], atol=1e-5
    )

  @pytest.mark.parametrize(
    "options",
    [
      {"patch_size": 0},
      {"hidden_sizes": [0]},
      {"initial_values": 0},
      {"max_offset": 0},
    ],
  )
  def test_errors(self, options):
    with pytest.raises(ValueError, match=next(iter(options))):
      PatchDecoder(**options)


def test_a_dilated_encoder_sees_further():
  pictures = np.zeros([2, H, W, 3], np.float32)
  pictures[1, 6, 14] = 1
  changed = []
  for rates in ([1], [3]):
    encoder = ConvEncoder([4], [3], rates=rates, activation="identity")
    convolved = encoder(tf.constant(pictures)).convolved.numpy()
    rows = np.flatnonzero(np.ptp(convolved, axis=0).any(axis=(1, 2)))
    changed.append(rows.tolist())
  assert changed == [[5, 6, 7], [3, 6, 9]]
