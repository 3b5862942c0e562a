"""Tests for iodine.modules.refinement."""

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from iodine import errors
from iodine.config import plans
from iodine.modules import distributions, refinement
from tests.support import module_checks

# Odd and distinct, so that swapped axes fail.
B, K, H, W, ZP, HIDDEN = 2, 3, 5, 7, 6, 4
MODES = pytest.mark.parametrize("mode", ["eager", "compiled"])
# Sums of a few float32 products of order one.
TOLERANCE = dict(rtol=1e-5, atol=1e-5)


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _values(module):
  """{variable's name without the first two scopes and ":0": its value}."""
  return {
    v.name.removesuffix(":0").split("/", 2)[2]: v.numpy()
    for v in module.variables
  }


def _np_sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _np_elu(x):
  return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


class TestResHead:
  @staticmethod
  def _build():
    return plans.build(
      {"constructor": "iodine.modules.refinement.ResHead"}, "refinement_head"
    )

  @MODES
  def test_matches_numpy(self, mode):
    head = self._build()
    zp, hidden = _random(B, K, ZP), _random(B, K, HIDDEN, seed=1)
    with tf.name_scope("caller"):
      module_checks.call(mode, head, zp, hidden)
    scope = "refinement_head/residual_head"
    assert module_checks.shapes(head) == {
      f"{scope}/linear/w": (HIDDEN, ZP),
      f"{scope}/linear/b": (ZP,),
    }
    module_checks.perturb(head)
    values = _values(head)
    expected = zp + hidden @ values["linear/w"] + values["linear/b"]
    np.testing.assert_allclose(
      module_checks.call(mode, head, zp, hidden), expected, **TOLERANCE
    )
    module_checks.check_gradients(mode, head, head, zp, hidden)


class TestPredictorCorrectorHead:
  @staticmethod
  def _build(**options):
    return plans.build(
      {
        "constructor": "iodine.modules.refinement.PredictorCorrectorHead",
        **options,
      },
      "refinement_head",
    )

  @MODES
  @pytest.mark.parametrize(
    "options, act",
    [
      (dict(), _np_elu),
      (dict(hidden_sizes=[]), _np_elu),
      (
        dict(
          hidden_sizes=(7, 8),
          pred_gate_bias=0.7,
          corrector_gate_bias=-1.3,
          activation="tanh",
        ),
        np.tanh,
      ),
    ],
  )
  def test_matches_numpy(self, mode, options, act):
    head = self._build(**options)
    zp, hidden = _random(B, K, ZP), _random(B, K, HIDDEN, seed=1)
    head(tf.constant(zp), tf.constant(hidden))
    module_checks.perturb(head)
    values = _values(head)

    def linear(x, scope):
      return x @ values[f"{scope}/w"] + values[f"{scope}/b"]

    net, count = zp, len(options.get("hidden_sizes", [64]))
    for i in range(count + 1):
      net = linear(act(net) if i else net, f"mlp/linear_{i}")
    predicted, logit = np.split(net, 2, axis=-1)
    p = _np_sigmoid(logit + options.get("pred_gate_bias", 0.0))
    g = _np_sigmoid(
      linear(hidden, "linear_1") + options.get("corrector_gate_bias", 0.0)
    )
    corrected = g * linear(hidden, "linear") + (1 - g) * zp
    expected = p * predicted + (1 - p) * corrected
    np.testing.assert_allclose(
      module_checks.call(mode, head, zp, hidden), expected, **TOLERANCE
    )

  @MODES
  def test_names_and_gradients(self, mode):
    head = self._build(hidden_sizes=[7])
    zp, hidden = _random(B, K, ZP), _random(B, K, HIDDEN, seed=1)
    with tf.name_scope("caller"):
      module_checks.call(mode, head, zp, hidden)
    scope = "refinement_head/predcorr_head"
    assert module_checks.shapes(head) == {
      f"{scope}/linear/w": (HIDDEN, ZP),
      f"{scope}/linear/b": (ZP,),
      f"{scope}/linear_1/w": (HIDDEN, ZP),
      f"{scope}/linear_1/b": (ZP,),
      f"{scope}/mlp/linear_0/w": (ZP, 7),
      f"{scope}/mlp/linear_0/b": (7,),
      f"{scope}/mlp/linear_1/w": (7, 2 * ZP),
      f"{scope}/mlp/linear_1/b": (2 * ZP,),
    }
    module_checks.check_gradients(mode, head, head, zp, hidden)

  @pytest.mark.parametrize(
    "options, message",
    [
      (dict(hidden_sizes=64), "hidden_sizes=64: must be a list"),
      (
        dict(hidden_sizes=[0]),
        r"hidden_sizes\[0\]=0: expected an integer of at least 1",
      ),
      (dict(activation="elv"), "unknown activation 'elv'. Did you mean 'elu'"),
    ],
  )
  def test_errors(self, options, message):
    with pytest.raises(errors.ConfigError, match=f"refinement_head: {message}"):
      self._build(**options)


class MeanEncoder(snt.Module):
  """Mean over H and W: [..., H, W, C] to [..., C]."""

  def __call__(self, image):
    return distributions.FlatParameters(tf.reduce_mean(image, axis=[-3, -2]))


class CountingCore(snt.RNNCore):
  """Passes data on and counts its calls."""

  def initial_state(self, batch_size, **unused_kwargs):
    return [tf.zeros([batch_size, 1])]

  def __call__(self, data, prev_state):
    return data, [prev_state[0] + 1]


class TestRefinementCore:
  @staticmethod
  def _transparent():
    """A core whose output is zp and what the recurrent net sees, joined."""
    head = lambda zp, hidden: tf.concat([zp, hidden], axis=-1)
    return refinement.RefinementCore(MeanEncoder(), CountingCore(), head)

  @staticmethod
  def _build():
    return plans.build(
      {
        "constructor": "iodine.modules.refinement.RefinementCore",
        "encoder_net": {
          "constructor": "iodine.modules.networks.CNN",
          "mode": "avg_pool",
          "cnn_opt": dict(
            output_channels=[5],
            kernel_shapes=[3],
            strides=[2],
            activation="elu",
          ),
          "mlp_opt": dict(output_sizes=[7]),
        },
        "recurrent_net": {
          "constructor": "iodine.modules.networks.LSTM",
          "hidden_sizes": [HIDDEN],
        },
        "refinement_head": {"constructor": "iodine.modules.refinement.ResHead"},
      },
      "refinement_core",
    )

  @staticmethod
  def _inputs():
    # Out of alphabetical order.
    return {
      "spatial": {
        "mask": _random(B, K, H, W, 1),
        "image": _random(B, 1, H, W, 3, seed=1),
        "coordinates": _random(B, 1, H, W, 2, seed=2),
      },
      "flat": {
        "zp": _random(B, K, ZP, seed=3),
        "dzp": _random(B, K, ZP, seed=4),
        "capacity": _random(B, K, 1, seed=5),
      },
    }

  @MODES
  def test_joins_inputs_by_name_and_shares_them_among_slots(self, mode):
    core = self._transparent()
    inputs = self._inputs()
    state = core.initial_state(B * K)
    outputs, state = module_checks.call(mode, core, inputs, state)
    spatial, flat = inputs["spatial"], inputs["flat"]
    means = [
      np.broadcast_to(
        spatial[name].mean(axis=(2, 3)), (B, K, spatial[name].shape[-1])
      )
      for name in ("coordinates", "image", "mask")
    ]
    expected = np.concatenate(
      [flat["zp"], *means, flat["capacity"], flat["dzp"], flat["zp"]], axis=-1
    )
    np.testing.assert_allclose(outputs, expected, **TOLERANCE)
    np.testing.assert_array_equal(state[0], np.ones([B * K, 1]))

  @MODES
  def test_zp_as_an_argument_is_no_input(self, mode):
    core = self._transparent()
    inputs = self._inputs()
    zp = inputs["flat"].pop("zp")
    outputs, _ = module_checks.call(
      mode, core, inputs, core.initial_state(B * K), zp
    )
    assert outputs.shape[-1] == ZP + 2 + 3 + 1 + 1 + ZP
    np.testing.assert_array_equal(outputs[..., :ZP], zp)

  @MODES
  def test_zp_among_the_inputs_comes_before_the_argument(self, mode):
    core = self._transparent()
    inputs = self._inputs()
    other = _random(B, K, ZP, seed=9)
    outputs, _ = module_checks.call(
      mode, core, inputs, core.initial_state(B * K), other
    )
    np.testing.assert_array_equal(outputs[..., :ZP], inputs["flat"]["zp"])

  @MODES
  def test_either_kind_of_inputs_may_be_missing(self, mode):
    core = self._transparent()
    zp = _random(B, K, ZP, seed=3)
    state = core.initial_state(B * K)
    inputs = {**self._inputs(), "spatial": {}}
    outputs, _ = module_checks.call(mode, core, inputs, state)
    assert outputs.shape == [B, K, ZP + 1 + ZP + ZP]
    inputs = {**self._inputs(), "flat": {}}
    outputs, _ = module_checks.call(mode, core, inputs, state, zp)
    assert outputs.shape == [B, K, ZP + 2 + 3 + 1]

  def test_leaves_its_inputs_alone(self):
    inputs = tf.nest.map_structure(tf.constant, self._inputs())
    before = {kind: dict(inputs[kind]) for kind in inputs}
    core = self._transparent()
    core(inputs, core.initial_state(B * K))
    assert {kind: list(inputs[kind]) for kind in inputs} == {
      kind: list(before[kind]) for kind in before
    }
    for kind, name in [("spatial", "image"), ("flat", "zp")]:
      assert inputs[kind][name] is before[kind][name]

  @MODES
  def test_names_and_gradients(self, mode):
    core = self._build()
    inputs, state = self._inputs(), core.initial_state(B * K)
    with tf.name_scope("caller"):
      outputs, state = module_checks.call(mode, core, inputs, state)
    assert outputs.shape == [B, K, ZP]
    assert module_checks.shapes(core) == {
      "encoder_net/cnn/conv_net_2d/conv_2d_0/w": (3, 3, 6, 5),
      "encoder_net/cnn/conv_net_2d/conv_2d_0/b": (5,),
      "encoder_net/cnn/mlp/linear_0/w": (5, 7),
      "encoder_net/cnn/mlp/linear_0/b": (7,),
      "recurrent_net/lstm/lstm/w_gates": (
        7 + 1 + 2 * ZP + HIDDEN,
        4 * HIDDEN,
      ),
      "recurrent_net/lstm/lstm/b_gates": (4 * HIDDEN,),
      "refinement_head/residual_head/linear/w": (HIDDEN, ZP),
      "refinement_head/residual_head/linear/b": (ZP,),
    }
    module_checks.check_gradients(mode, core, core, inputs, state)

  def test_without_zp(self):
    core = self._transparent()
    inputs = tf.nest.map_structure(tf.constant, self._inputs())
    del inputs["flat"]["zp"]
    with pytest.raises(ValueError, match="'zp' is neither an argument nor in"):
      core(inputs, core.initial_state(B * K))

  def test_without_inputs(self):
    core = self._transparent()
    inputs = {"spatial": {}, "flat": {}}
    with pytest.raises(ValueError, match="RefinementCore: there is no input"):
      core(inputs, core.initial_state(B * K), tf.zeros([B, K, ZP]))

  def test_wrong_rank_names_the_input(self):
    core = self._transparent()
    inputs = tf.nest.map_structure(tf.constant, self._inputs())
    inputs["spatial"]["image"] = tf.zeros([B, H, W, 3])
    with pytest.raises(
      ValueError,
      match=r"image has shape \[2, 5, 7, 3\], expected \[B, K, H, W, C\]",
    ):
      core(inputs, core.initial_state(B * K))
    inputs = {"spatial": {}, "flat": {"capacity": tf.zeros([B, K, 1])}}
    with pytest.raises(
      ValueError, match=r"zp has shape \[6, 6\], expected \[B, K, Zp\]"
    ):
      core(inputs, core.initial_state(B * K), tf.zeros([B * K, ZP]))

  def test_missing_parts_are_reported(self):
    plan = {"constructor": "iodine.modules.refinement.RefinementCore"}
    with pytest.raises(errors.ConfigError) as error:
      plans.build(plan, "refinement_core")
    for key in ("encoder_net", "recurrent_net", "refinement_head"):
      assert f"refinement_core.{key}: iodine.modules" in str(error.value)

  @pytest.mark.parametrize(
    "key", ["encoder_net", "recurrent_net", "refinement_head"]
  )
  def test_parts_without_a_constructor(self, key):
    plan = {
      "constructor": "iodine.modules.refinement.RefinementCore",
      "encoder_net": {"constructor": MeanEncoder},
      "recurrent_net": {"constructor": CountingCore},
      "refinement_head": {"constructor": "iodine.modules.refinement.ResHead"},
    }
    plans.build(plan, "refinement_core")
    with pytest.raises(
      errors.ConfigError,
      match=f"refinement_core: {key}=None: expected a module",
    ):
      plans.build({**plan, key: None}, "refinement_core")


class TestRefinementInputs:
  C, K = 2, 4
  SCALE = 0.7

  def _build(self, **options):
    options = {"preprocess": [], "stop_gradients": [], **options}
    return refinement.RefinementInputs(self._mixture(), **options)

  def _mixture(self):
    return distributions.MaskedMixture(
      self.K,
      distributions.LocScaleDistribution(
        "normal", scale="fixed", scale_val=self.SCALE
      ),
    )

  def _data(self):
    """Image, zp, pixel, mask, and gradients by all but the first."""
    shapes = [
      [B, 1, H, W, self.C],
      [B, self.K, ZP],
      [B, self.K, H, W, self.C],
      [B, self.K, H, W, 1],
    ]
    arrays = [_random(*s, seed=i) for i, s in enumerate(shapes)]
    arrays += [_random(*s, seed=9 + i) for i, s in enumerate(shapes[1:])]
    return arrays

  def _collect(self, module, frame, zp, pixel, mask, dzp, dpixel, dmask):
    mixture = self._mixture()
    dist = mixture(pixel, mask)
    return module(
      frame,
      zp,
      distributions.MixtureParameters(pixel, mask),
      dist,
      mixture.log_probs(dist, frame),
      {"dzp": dzp, "dcomponents": dpixel, "dmask": dmask},
    )

  def _np_inputs(self, frame, zp, pixel, mask, dzp, dpixel, dmask):
    y = (frame.astype(float) - pixel) / self.SCALE
    components = -(y**2) / 2 - np.log(self.SCALE * np.sqrt(2 * np.pi))
    components = components.sum(-1, keepdims=True)  # [B, K, H, W, 1]

    def mixture(slots):
      weights = np.exp(mask[:, slots])
      weights /= weights.sum(axis=1, keepdims=True)
      densities = np.exp(components[:, slots])
      return np.log((weights * densities).sum(axis=1, keepdims=True))

    slots = list(range(self.K))
    log_prob = mixture(slots)
    others = [mixture([j for j in slots if j != k]) for k in slots]
    densities = np.exp(components)
    weights = np.exp(mask)
    coordinates = np.zeros([B, 1, H, W, 2])
    for i, j in np.ndindex(H, W):
      coordinates[:, :, i, j] = 2 * j / (W - 1) - 1, 2 * i / (H - 1) - 1
    return dict(
      image=frame,
      zp=zp,
      mask=mask,
      components=pixel,
      dmask=dmask,
      dzp=dzp,
      dcomponents=dpixel,
      posterior=densities / (densities.sum(axis=1, keepdims=True) + 1e-6),
      log_prob=log_prob,
      pred_mask=weights / weights.sum(axis=1, keepdims=True),
      capacity=np.full([B, self.K, H, W, 1], 0.5),
      flat_capacity=np.full([B, self.K, 1], 0.5),
      coordinates=coordinates,
      counterfactual=log_prob - np.concatenate(others, axis=1),
    )

  @MODES
  def test_every_input_matches_numpy(self, mode):
    module = self._build()
    found = module_checks.call(
      mode, lambda *a: self._collect(module, *a), *self._data()
    )
    joined = {**found["spatial"], **found["flat"]}
    expected = self._np_inputs(*self._data())
    assert set(joined) == set(expected) == set(refinement.INPUTS)
    for name, value in expected.items():
      assert name in found["spatial" if value.ndim == 5 else "flat"]
      assert joined[name].shape == value.shape, name
      np.testing.assert_allclose(
        joined[name], value, rtol=1e-4, atol=1e-5, err_msg=name
      )

  @MODES
  def test_layer_norm_over_all_but_examples_and_slots(self, mode):
    module = self._build(preprocess=list(refinement.INPUTS))
    collect = lambda *args: self._collect(module, *args)
    module_checks.call(mode, collect, *self._data())
    rng = np.random.default_rng(0)
    values = {}
    for v in module.variables:
      v.assign(rng.normal(size=v.shape))
      values["/".join(v.name.split("/")[1:])] = v.numpy()
    found = module_checks.call(mode, collect, *self._data())
    found = {**found["spatial"], **found["flat"]}
    for name, x in self._np_inputs(*self._data()).items():
      axes = tuple(range(2, x.ndim))
      centred = x - x.mean(axis=axes, keepdims=True)
      variance = (centred**2).mean(axis=axes, keepdims=True)
      scale = values[f"layer_norm_{name}/scale:0"]
      assert scale.shape == (x.shape[-1],), name
      expected = centred / np.sqrt(variance + 1e-5) * scale
      expected += values[f"layer_norm_{name}/offset:0"]
      # Constant inputs come to 0 / sqrt(1e-5), which magnifies their rounding.
      np.testing.assert_allclose(
        found[name], expected, rtol=1e-3, atol=1e-3, err_msg=name
      )

  def test_defaults(self):
    module = refinement.RefinementInputs(self._mixture())
    found = self._collect(module, *map(tf.constant, self._data()))
    found = {**found["spatial"], **found["flat"]}
    assert set(found) == set(refinement.INPUTS)
    normalized = ("dcomponents", "dmask", "dzp", "log_prob", "counterfactual")
    assert refinement.NORMALIZED_INPUTS == normalized
    for name in normalized:
      np.testing.assert_allclose(
        np.mean(found[name], axis=tuple(range(2, found[name].shape.rank))),
        np.zeros(found[name].shape[:2]),
        atol=1e-5,
      )
    assert len(module.variables) == 2 * len(normalized)

  @MODES
  @pytest.mark.parametrize(
    "stopped", [(), refinement.NORMALIZED_INPUTS, tuple(refinement.INPUTS)]
  )
  def test_gradients_stop_where_asked(self, mode, stopped):
    module = self._build(stop_gradients=stopped)
    flowing = []

    def collect(*args):
      with tf.GradientTape(persistent=True) as tape:
        tape.watch(args[1:])
        found = self._collect(module, *args)
        joined = {**found["spatial"], **found["flat"]}
        sums = {name: tf.reduce_sum(x**2) for name, x in joined.items()}
      flowing[:] = [
        name
        for name, total in sums.items()
        if any(g is not None for g in tape.gradient(total, args[1:]))
      ]
      return joined

    module_checks.call(mode, collect, *self._data())
    constants = ("image", "capacity", "flat_capacity", "coordinates")
    expected = set(refinement.INPUTS) - set(constants) - set(stopped)
    assert set(flowing) == expected

  @MODES
  def test_gradients_of_the_inner_loss(self, mode):
    module = self._build(inputs=["dzp", "dmask", "image"])

    def gradients(zp):
      with tf.GradientTape() as tape:
        tape.watch(zp)
        pixel = zp[..., tf.newaxis, tf.newaxis, : self.C]
        mask = 3.0 * zp[..., tf.newaxis, tf.newaxis, :1]
        x_params = distributions.MixtureParameters(pixel, mask)
        loss = tf.reduce_sum(mask**2) + tf.reduce_sum(zp**3)
      return module.gradients(tape, loss, zp, x_params)

    zp = _random(B, self.K, ZP)
    found = module_checks.call(mode, gradients, zp)
    assert set(found) == {"dzp", "dmask"}  # Those that are inputs.
    np.testing.assert_allclose(
      found["dmask"], 6 * zp[:, :, None, None, :1], **TOLERANCE
    )
    expected = 3 * zp.astype(float) ** 2
    expected[..., 0] += 18 * zp[..., 0]
    np.testing.assert_allclose(found["dzp"], expected, **TOLERANCE)

  def test_cosine_coordinates(self):
    module = self._build(
      inputs=["coordinates"], coord_type="cos", coord_freqs=2
    )
    args = map(tf.constant, self._data())
    coords = self._collect(module, *args)["spatial"]["coordinates"]
    assert coords.shape == [B, 1, H, W, 3]
    for i, j in np.ndindex(H, W):
      y, x = np.cos(np.pi * i / (H - 1)), np.cos(np.pi * j / (W - 1))
      np.testing.assert_allclose(coords[1, 0, i, j], [y, x, x * y], atol=1e-6)

  @pytest.mark.parametrize(
    "options, message",
    [
      (
        dict(inputs=["imag"]),
        "inputs: unknown input 'imag'. Did you mean 'image'",
      ),
      (dict(inputs=[]), r"inputs=\[\]: the refinement network needs at least"),
      (dict(inputs="image"), "inputs='image': must be a list of input names"),
      (dict(stop_gradients=["dz"]), "stop_gradients: unknown input 'dz'"),
      (dict(preprocess=["dz"]), "preprocess: unknown input 'dz'. Did you mean"),
      (dict(coord_type=None), "coord_type=None: must be 'linear' or 'cos'"),
      (dict(coord_type="cos", coord_freqs=0), "coord_freqs=0: expected"),
    ],
  )
  def test_errors(self, options, message):
    with pytest.raises(ValueError, match=message):
      self._build(**options)
