"""Tests for iodine.modules.utils."""

import copy
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from sacred.config import custom_containers

from iodine import errors, training
from iodine.config import plans
from iodine.modules import networks, utils

tfd = tfp.distributions

MODES = pytest.mark.parametrize("mode", ["eager", "compiled"])


class TestActFuncs:
  @pytest.mark.parametrize(
    "name, act",
    [
      ("identity", lambda x: x),
      ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
      ("tanh", np.tanh),
      ("relu", lambda x: np.maximum(x, 0)),
      ("elu", lambda x: np.where(x > 0, x, np.expm1(x))),
      (
        "selu",
        lambda x: 1.05070099 * np.where(x > 0, x, 1.67326324 * np.expm1(x)),
      ),
      ("softplus", lambda x: np.log1p(np.exp(x))),
      ("exp", np.exp),
      ("softmax", lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    ],
  )
  def test_every_name(self, name, act):
    x = np.linspace(-2, 3, 12, dtype=np.float32).reshape(4, 3)
    for spelling in (name, name.upper()):
      found = utils.get_act_func(spelling)(tf.constant(x))
      np.testing.assert_allclose(found, act(x.astype(float)), rtol=1e-5)

  def test_knows_no_other_name(self):
    assert len(utils.ACT_FUNCS) == 10

  def test_functions_and_none(self):
    assert utils.get_act_func(tf.square) is tf.square
    assert utils.get_act_func(None) is tf.identity

  @pytest.mark.parametrize(
    "name, message",
    [
      ("rleu", "unknown activation 'rleu'. Did you mean 'relu'.*elu, exp, ide"),
      (3, "unknown activation 3. Valid choices: elu"),
    ],
  )
  def test_unknown(self, name, message):
    with pytest.raises(ValueError, match=message):
      utils.get_act_func(name)


class TestDistributions:
  def test_every_name(self):
    for name, dist in [
      ("normal", tfd.Normal),
      ("log_normal", tfd.LogNormal),
      ("laplace", tfd.Laplace),
      ("logistic", tfd.Logistic),
      ("student_t", tfd.StudentT),
    ]:
      assert utils.get_distribution(name) is dist
      assert utils.get_distribution(name.title()) is dist
    assert len(utils.DISTS) == 5
    assert utils.get_distribution(tfd.Cauchy) is tfd.Cauchy

  @pytest.mark.parametrize(
    "name, message",
    [
      (
        "logistics",
        "unknown distribution 'logistics'. Did you mean 'logistic'",
      ),
      (None, "unknown distribution None. .*laplace, log_normal, logistic"),
    ],
  )
  def test_unknown(self, name, message):
    with pytest.raises(ValueError, match=message):
      utils.get_distribution(name)


class TestDidYouMean:
  def test_names_the_nearest_and_all(self):
    text = errors.did_you_mean(
      "lerning_rate", {"beta", "learning_rate"}, "keys"
    )
    assert (
      text == "Did you mean 'learning_rate'? Valid keys: beta, learning_rate"
    )

  def test_nothing_near(self):
    assert errors.did_you_mean("zzz", ["b", "a"]) == "Valid choices: a, b"
    assert errors.did_you_mean("zzz", []) == "Valid choices: (none)"


class TestCoordinateChannels:
  H, W = 5, 7

  def test_linear(self):
    hw = utils.coordinate_channels(self.H, self.W, "linear", order="hw")
    xy = utils.coordinate_channels(self.H, self.W, "linear", order="xy")
    assert hw.dtype == xy.dtype == np.float32
    assert hw.shape == xy.shape == (self.H, self.W, 2)
    for i, j in np.ndindex(self.H, self.W):
      h, w = -1 + 2 * i / (self.H - 1), -1 + 2 * j / (self.W - 1)
      np.testing.assert_allclose(hw[i, j], [h, w], atol=1e-6)
      np.testing.assert_allclose(xy[i, j], [w, h], atol=1e-6)
    default = utils.coordinate_channels(self.H, self.W, "linear")
    np.testing.assert_array_equal(default, hw)

  @pytest.mark.parametrize("freqs", [1, 2, 3, 4])
  @pytest.mark.parametrize("order", ["hw", "xy"])
  def test_cosine_without_the_constant(self, freqs, order):
    coords = utils.coordinate_channels(self.H, self.W, "cos", freqs, order)
    assert coords.dtype == np.float32
    assert coords.shape == (self.H, self.W, freqs**2 - 1)
    for i, j in np.ndindex(self.H, self.W):
      y, x = np.pi * i / (self.H - 1), np.pi * j / (self.W - 1)
      expected = [
        np.cos(fx * x) * np.cos(fy * y)
        for fx in range(freqs)
        for fy in range(freqs)
      ]
      np.testing.assert_allclose(coords[i, j], expected[1:], atol=1e-6)

  def test_none(self):
    coords = utils.coordinate_channels(self.H, self.W, None)
    assert coords.shape == (self.H, self.W, 0)

  @pytest.mark.parametrize(
    "coord_type, freqs, message",
    [
      ("polar", 3, "coord_type='polar': must be 'linear', 'cos' or None"),
      ("cos", 0, "coord_freqs=0: expected an integer of at least 1"),
      ("cos", 2.5, "coord_freqs=2.5: expected an integer of at least 1"),
      ("cos", True, "coord_freqs=True: expected an integer of at least 1"),
    ],
  )
  def test_errors(self, coord_type, freqs, message):
    with pytest.raises(ValueError, match=message):
      utils.coordinate_channels(self.H, self.W, coord_type, freqs)


class TestOnlineMeanVarEstimator:
  # Sums of some ten float32 numbers.
  TOLERANCE = dict(rtol=1e-5)

  @staticmethod
  def _batches():
    rng = np.random.default_rng(0)
    for size in (2, 4, 3):
      x = rng.normal(size=[size, 5, 3]) * [1.0, 10.0, 0.1]
      weights = rng.uniform(size=[size, 5, 1]) * (rng.uniform() > 0.2)
      yield x.astype("float32"), weights.astype("float32")

  @staticmethod
  def _call(mode, fn):
    if mode == "eager":
      return lambda *args: fn(*map(tf.constant, args))
    specs = [tf.TensorSpec([None, 5, 3]), tf.TensorSpec([None, 5, 1])]
    return tf.function(fn, input_signature=specs, autograph=False)

  @MODES
  @pytest.mark.parametrize("ddof", [0, 1])
  @pytest.mark.parametrize("axis", [[0, 1], [-3, -2], (1, 0)])
  def test_weighted_over_batches(self, mode, ddof, axis):
    estimator = utils.OnlineMeanVarEstimator(axis=axis, ddof=ddof)
    run = self._call(mode, estimator)
    seen, seen_weights = np.zeros([0, 3]), np.zeros([0, 1])
    for x, weights in self._batches():
      found = run(x, weights)
      seen = np.concatenate([seen, x.reshape(-1, 3)])
      seen_weights = np.concatenate([seen_weights, weights.reshape(-1, 1)])
      total = seen_weights.sum()
      mean = (seen_weights * seen).sum(0) / total
      squares = (seen_weights * (seen - mean) ** 2).sum(0)
      expected = mean, squares / (total - ddof), [total] * 3
      for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, **self.TOLERANCE)

  @MODES
  def test_without_weights(self, mode):
    estimator = utils.OnlineMeanVarEstimator(axis=[0])
    run = self._call(mode, lambda x, w: estimator(x))
    batches = list(self._batches())
    for x, weights in batches:
      mean, variance, total = run(x, weights)
    seen = np.concatenate([x for x, _ in batches]).astype(float)
    np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, seen.var(0), **self.TOLERANCE)
    np.testing.assert_array_equal(total, np.full([5, 3], 9.0))

  @MODES
  def test_over_all_axes(self, mode):
    estimator = utils.OnlineMeanVarEstimator()
    run = self._call(mode, lambda x, w: estimator(x))
    batches = list(self._batches())
    for x, weights in batches:
      mean, variance, total = run(x, weights)
    seen = np.concatenate([x.ravel() for x, _ in batches]).astype(float)
    np.testing.assert_allclose(mean, seen.mean(), **self.TOLERANCE)
    np.testing.assert_allclose(variance, seen.var(), **self.TOLERANCE)
    assert total == seen.size

  @MODES
  def test_update_can_be_switched_off(self, mode):
    estimator = utils.OnlineMeanVarEstimator(axis=[0, 1])
    (x, weights), (other, other_weights), _ = self._batches()
    expected = self._call(mode, estimator)(x, weights)
    run = self._call(mode, lambda x, w: estimator(x, w, update=False))
    for f, e in zip(run(other, other_weights), expected, strict=True):
      np.testing.assert_array_equal(f, e)

  @MODES
  def test_nothing_seen(self, mode):
    estimator = utils.OnlineMeanVarEstimator(axis=[0, 1], ddof=1)
    run = self._call(mode, estimator)
    x = np.ones([2, 5, 3], "float32")
    mean, variance, total = run(x, np.zeros([2, 5, 1], "float32"))
    np.testing.assert_array_equal(mean, [0.0] * 3)
    np.testing.assert_array_equal(variance, [np.nan] * 3)
    np.testing.assert_array_equal(total, [0.0] * 3)
    one = np.zeros([2, 5, 1], "float32")
    one[1, 2] = 1.0
    mean, variance, total = run(3 * x, one)
    np.testing.assert_array_equal(mean, [3.0] * 3)
    np.testing.assert_array_equal(variance, [np.nan] * 3)
    np.testing.assert_array_equal(total, [1.0] * 3)
    _, variance, _ = run(5 * x, one)
    np.testing.assert_array_equal(variance, [2.0] * 3)

  @MODES
  def test_variables(self, mode):
    with tf.name_scope("factors/"):
      estimator = utils.OnlineMeanVarEstimator([0, 1], name="x_mean_var")
    with tf.name_scope("caller"):
      self._call(mode, estimator)(*next(self._batches()))
    assert {v.name: tuple(v.shape) for v in estimator.variables} == {
      f"factors/x_mean_var/{name}:0": (3,) for name in ("M2", "mean", "total")
    }
    assert not any(v.trainable for v in estimator.variables)


def _model_plan():
  """A plan with all that the reference's configurations contain."""
  return {
    "constructor": "iodine.modules.iodine.IODINE",
    "n_z": 5,
    "num_components": 3,
    "num_iters": 2,
    "iter_loss_weight": "linspace",
    "coord_type": "cos",
    "coord_freqs": 3,
    "decoder": {
      "constructor": "iodine.modules.decoder.ComponentDecoder",
      "pixel_decoder": {
        "constructor": "iodine.modules.networks.BroadcastConv",
        "cnn_opt": {
          "output_channels": [8, None],
          "kernel_shapes": [3],
          "strides": [1],
          "activation": "elu",
        },
        "coord_type": "linear",
        "coord_freqs": 3,
      },
    },
    "refinement_core": {
      "constructor": "iodine.modules.refinement.RefinementCore",
      "encoder_net": {
        "constructor": "iodine.modules.networks.CNN",
        "mode": "avg_pool",
        "cnn_opt": {
          "output_channels": [8, 6],
          "strides": [2],
          "kernel_shapes": [3],
          "activation": "elu",
        },
        "mlp_opt": {"output_sizes": [7, 9], "activation": "elu"},
      },
      "recurrent_net": {
        "constructor": "iodine.modules.networks.LSTM",
        "hidden_sizes": [4],
      },
      "refinement_head": {"constructor": "iodine.modules.refinement.ResHead"},
    },
    "latent_dist": {
      "constructor": "iodine.modules.distributions.LocScaleDistribution",
      "dist": "normal",
      "scale_act": "softplus",
      "scale": "var",
      "name": "latent_dist",
    },
    "output_dist": {
      "constructor": "iodine.modules.distributions.MaskedMixture",
      "num_components": 3,
      "component_dist": {
        "constructor": "iodine.modules.distributions.LocScaleDistribution",
        "dist": "logistic",
        "scale": "fixed",
        "scale_val": 0.03,
        "name": "pixel_distribution",
      },
    },
    "factor_evaluator": {
      "constructor": "iodine.modules.factor_eval.FactorRegressor",
      "mapping": [
        ("position", 2, "scalar"),
        ("color", 3, "scalar"),
        ("shape", 20, "categorical"),
      ],
    },
  }


# Of `_model_plan` for images of three channels, as TF1 has them, layer norms
# (`iodine.tf1_checkpoint` renames theirs) left out. The encoder sees 24
# channels: image, components and dcomponents 3 each, coordinates 8, mask,
# dmask, posterior, log_prob, pred_mask, capacity and counterfactual 1 each;
# the recurrent net the encoder's 9, zp and dzp 10 each, and flat_capacity 1.
MODEL_VARIABLES = """
encoder_net/cnn/conv_net_2d/conv_2d_0/b 8
encoder_net/cnn/conv_net_2d/conv_2d_0/w 3x3x24x8
encoder_net/cnn/conv_net_2d/conv_2d_1/b 6
encoder_net/cnn/conv_net_2d/conv_2d_1/w 3x3x8x6
encoder_net/cnn/mlp/linear_0/b 7
encoder_net/cnn/mlp/linear_0/w 6x7
encoder_net/cnn/mlp/linear_1/b 9
encoder_net/cnn/mlp/linear_1/w 7x9
factor_evaluator/repres_content/color_mean_var/M2 3
factor_evaluator/repres_content/color_mean_var/mean 3
factor_evaluator/repres_content/color_mean_var/total 3
factor_evaluator/repres_content/position_mean_var/M2 2
factor_evaluator/repres_content/position_mean_var/mean 2
factor_evaluator/repres_content/position_mean_var/total 2
factor_evaluator/repres_content/predict_latents/b 25
factor_evaluator/repres_content/predict_latents/w 5x25
model/iodine/initial_sample_distribution 10
pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_0/b 8
pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_0/w 3x3x8x8
pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_1/b 4
pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_1/w 3x3x8x4
recurrent_net/lstm/lstm/b_gates 16
recurrent_net/lstm/lstm/w_gates 34x16
refinement_head/residual_head/linear/b 10
refinement_head/residual_head/linear/w 4x10
"""


def _model_data():
  rng = np.random.default_rng(0)
  owner = rng.integers(4, size=[2, 1, 1, 5, 7, 1])
  mask = owner == np.arange(4).reshape(4, 1, 1, 1)
  data = {
    "image": rng.uniform(size=[2, 1, 5, 7, 3]),
    "mask": mask,
    "visibility": np.ones([2, 4]),
    "factors": {
      "position": rng.uniform(size=[2, 4, 2]),
      "color": rng.uniform(size=[2, 4, 3]),
      "shape": rng.integers(20, size=[2, 4, 1]),
    },
  }
  return tf.nest.map_structure(lambda x: tf.constant(x, tf.float32), data)


def _listing(module):
  return sorted(
    f"{v.name.removesuffix(':0')} {'x'.join(map(str, v.shape))}"
    for v in module.variables
  )


LSTM = "iodine.modules.networks.LSTM"


class TestBuild:
  def _fault(self, plan, key="model"):
    with pytest.raises(errors.ConfigError) as error:
      plans.build(plan, key)
    return str(error.value)

  @pytest.mark.parametrize("compiled", [False, True])
  def test_reference_plan_gives_the_names_of_tf1(self, compiled):
    with tf.name_scope("outer"):
      model = plans.build(_model_plan(), identifier="model")
    run = tf.function(model, autograph=False) if compiled else model
    with tf.name_scope("caller"):
      run(_model_data())
    listing = [line for line in _listing(model) if "/layer_norm_" not in line]
    assert listing == MODEL_VARIABLES.split("\n")[1:-1]

  def test_every_call_builds_afresh_and_changes_no_plan(self):
    plan = _model_plan()
    before = copy.deepcopy(plan)
    first, second = plans.build(plan, "model"), plans.build(plan, "model")
    data = _model_data()
    first(data), second(data)
    assert plan == before
    # Equality takes a list for a tuple no more than this does.
    assert type(plan["factor_evaluator"]["mapping"][0]) is tuple
    assert _listing(first) == _listing(second)
    handles = {id(v.handle) for v in first.variables}
    assert handles.isdisjoint(id(v.handle) for v in second.variables)
    modules = {id(m) for m in first.submodules}
    assert modules.isdisjoint(id(m) for m in second.submodules)

  def test_read_only_plans(self):
    def freeze(plan):
      if isinstance(plan, dict):
        return types.MappingProxyType({k: freeze(v) for k, v in plan.items()})
      if isinstance(plan, list):
        return tuple(freeze(v) for v in plan)
      return plan

    plans.build(freeze(_model_plan()), "model")
    plan = custom_containers.make_read_only(_model_plan())
    plans.build(plan, "model")

  def test_values_are_copied(self):
    class Keeper:
      def __init__(self, options, sizes):
        self.options, self.sizes = options, sizes

    plan = {
      "constructor": Keeper,
      "options": {"a": {"b": [1, (2, {"c": 3})]}},
      "sizes": ({"d": [4]},),
    }
    keeper = plans.build(plan, "keeper")
    assert keeper.options == {"a": {"b": [1, [2, {"c": 3}]]}}
    assert keeper.sizes == [{"d": [4]}]
    keeper.options["a"]["b"].append(5)
    keeper.sizes[0]["d"].append(5)
    assert plan["options"] == {"a": {"b": [1, (2, {"c": 3})]}}
    assert plan["sizes"] == ({"d": [4]},)

  def test_what_has_no_constructor_is_kept(self):
    assert plans.build(3, "seed") == 3
    assert plans.build(None, "seed") is None
    assert plans.build({"a": {"b": [1]}}, "x") == {"a": {"b": [1]}}
    built = plans.build(
      {"first": {"constructor": LSTM, "hidden_sizes": []}, "n": 2}, "x"
    )
    assert isinstance(built["first"], networks.LSTM)
    assert built["n"] == 2

  def test_scope_is_the_nearest_key(self):
    plan = {"net": {"constructor": LSTM, "hidden_sizes": [2]}}
    with tf.name_scope("outer"), tf.name_scope("net"):
      nets = [plans.build(plan, "model")["net"] for _ in range(2)]
    for net in nets:
      net(tf.zeros([1, 1, 3]), net.initial_state(1))
      assert {v.name for v in net.variables} == {
        "net/lstm/lstm/w_gates:0",
        "net/lstm/lstm/b_gates:0",
      }

  def test_callables_in_a_plan(self):
    class Component(networks.LSTM):
      pass

    built = plans.build({"constructor": Component, "hidden_sizes": []}, "x")
    assert isinstance(built, Component)

  @pytest.mark.parametrize(
    "prefix", ["tensorflow.train", "tensorflow.compat.v1.train"]
  )
  def test_optimizer_of_the_reference(self, prefix):
    optimizer = plans.build(
      {
        "constructor": f"{prefix}.AdamOptimizer",
        "learning_rate": {
          "constructor": f"{prefix}.exponential_decay",
          "learning_rate": 0.003,
          "global_step": {"constructor": f"{prefix}.get_or_create_global_step"},
          "decay_steps": 1000,
          "decay_rate": 0.1,
        },
        "beta1": 0.95,
      },
      "optimizer",
    )
    assert isinstance(optimizer, training.Adam)
    optimizer.initialize([])
    for step, rate in [(0, 3e-3), (500, 3e-3 / np.sqrt(10)), (1000, 3e-4)]:
      optimizer.step.assign(step)
      np.testing.assert_allclose(optimizer.learn_rate(), rate, rtol=1e-6)
    # The powers start at the betas; TF1's default of the second is 0.999.
    assert optimizer.beta1_power.numpy() == np.float32(0.95)
    assert optimizer.beta2_power.numpy() == np.float32(0.999)

  def test_optimizer_of_the_port(self):
    plan = {"constructor": "iodine.training.make_optimizer", "learn_rate": 0.02}
    optimizer = plans.build(plan, "optimizer")
    assert isinstance(optimizer, training.Adam)
    np.testing.assert_allclose(optimizer.learn_rate(), 0.02, rtol=1e-6)
    fault = self._fault({**plan, "learn_rate": -1}, "optimizer")
    assert fault == "optimizer: learn_rate=-1: expected a number above 0"

  @pytest.mark.parametrize(
    "name",
    [
      "os.system",
      "builtins.eval",
      "subprocess.Popen",
      "eval",
      "tensorflow.io.gfile.remove",
      "tensorflow.train.GradientDescentOptimizer",
      "sonnet.Linear",
      "iodine.training.Trainer",
      "iodine.tf1_checkpoint.save",
      "iodine.modules",
      "iodine.modules_of_others.Thing",
      "",
      ".",
      None,
      3,
      ["os.system"],
      {"os": "system"},
    ],
  )
  def test_constructors_outside_the_table(self, name):
    fault = self._fault({"constructor": name, "command": "true"})
    assert fault.startswith(f"model.constructor={name!r}: not allowed. ")
    assert "tensorflow.train.AdamOptimizer" in fault
    assert "\n" not in fault

  def test_what_is_allowed_is_one_table(self, monkeypatch):
    name = "collections.OrderedDict"
    self._fault({"constructor": name})
    monkeypatch.setitem(plans.ALLOWED_CONSTRUCTORS, name, name)
    assert plans.build({"constructor": name}, "x") == {}

  @pytest.mark.parametrize(
    "module, name",
    [
      # Functions,
      ("utils", "build"),
      ("utils", "get_act_func"),
      # names that begin with an underscore,
      ("networks", "_LSTMLayer"),
      ("networks", "__builtins__"),
      ("utils", "__loader__"),
      # what the module itself imported,
      ("data", "np"),
      ("networks", "utils"),
      ("networks", "FlatParameters"),
      ("networks", "Mapping"),
      # and what is no class.
      ("utils", "DISTS"),
      ("networks", ""),
    ],
  )
  def test_only_public_classes_of_the_module(self, module, name):
    path = f"iodine.modules.{module}.{name}"
    fault = self._fault({"constructor": path})
    assert fault.startswith(
      f"model.constructor={path!r}: iodine.modules.{module} has no class "
      f"{name!r}."
    )
    assert "Valid classes: " in fault
    assert "np" not in fault.split("Valid classes: ")[1].split(", ")

  @pytest.mark.parametrize(
    "module, hint",
    [
      ("iodine.modules.network", "Did you mean 'iodine.modules.networks'"),
      ("iodine.modules.networks.snt", "Did you mean 'iodine.modules.networks'"),
      ("iodine.modules.data.np.random", "iodine.modules.decoder"),
      ("iodine.modules..training", "Valid modules"),
      ("iodine.modules.", "Valid modules"),
    ],
  )
  def test_missing_modules(self, module, hint):
    fault = self._fault({"constructor": f"{module}.CNN"})
    assert fault.startswith(
      f"model.constructor='{module}.CNN': there is no module {module}. "
    )
    assert hint in fault

  def test_nearest_class(self):
    fault = self._fault({"constructor": "iodine.modules.networks.Cnn"})
    assert "has no class 'Cnn'. Did you mean 'CNN'?" in fault
    assert "BroadcastConv, CNN, ConvNet2D, DeConv, LSTM, MLP" in fault

  def test_unknown_and_missing_keys(self):
    fault = self._fault({"constructor": LSTM, "hiden_sizes": [2]}, "rnn")
    assert fault.split("\n") == [
      "rnn.hiden_sizes=[2]: unknown key for iodine.modules.networks.LSTM. "
      "Did you mean 'hidden_sizes'? Valid keys: hidden_sizes, name",
      "rnn.hidden_sizes: iodine.modules.networks.LSTM needs this key",
    ]

  def test_self_is_no_key(self):
    fault = self._fault({"constructor": LSTM, "hidden_sizes": [], "self": 1})
    assert "model.self=1: unknown key" in fault
    fault = self._fault({"constructor": LSTM, "hidden_sizes": [], 1: 2})
    assert "model.1=2: unknown key" in fault

  def test_all_faults_are_reported_together(self):
    plan = _model_plan()
    plan["n_zz"] = plan.pop("n_z")
    plan["decoder"]["pixel_decoder"]["coord_type"] = "cosine"
    core = plan["refinement_core"]
    core["encoder_net"]["constructor"] = "iodine.modules.networks.CNNN"
    core["recurrent_net"]["hidden_sizes"] = [0]
    core["refinement_head"]["constructor"] = "os.system"
    plan["latent_dist"]["scale"] = "variance"
    plan["output_dist"]["component_dist"]["dsit"] = "normal"
    plan["factor_evaluator"]["mapping"][0] = ("position", 2)
    faults = self._fault(plan).split("\n")
    expected = [
      "model.n_zz=5: unknown key for iodine.modules.iodine.IODINE. Did you "
      "mean 'n_z'?",
      "model.n_z: iodine.modules.iodine.IODINE needs this key",
      "model.decoder.pixel_decoder: coord_type='cosine'",
      "model.refinement_core.encoder_net.constructor=",
      "model.refinement_core.recurrent_net: hidden_sizes[0]=0",
      "model.refinement_core.refinement_head.constructor='os.system'",
      "model.latent_dist: scale='variance': unknown. Did you mean 'var'",
      "model.output_dist.component_dist.dsit='normal': unknown key",
      "model.factor_evaluator: mapping: ['position', 2]",
    ]
    assert len(faults) == len(expected)
    for start in expected:
      assert sum(fault.startswith(start) for fault in faults) == 1, start

  def test_error_is_a_value_error(self):
    assert issubclass(errors.ConfigError, ValueError)

  def test_mistakes_of_the_code_are_no_faults_of_the_plan(self):
    class Broken:
      def __init__(self):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
      plans.build({"constructor": Broken}, "x")


@pytest.mark.parametrize("rank", range(1, 8))
def test_softmax_of_any_rank(rank):
  # Kernels on the CPU refuse more than five dimensions.
  logits = np.random.default_rng(rank).normal(size=[2] * (rank - 1) + [3])
  exponentials = np.exp(logits)
  expected = exponentials / exponentials.sum(axis=-1, keepdims=True)
  softmax = utils.get_act_func("softmax")
  np.testing.assert_allclose(
    softmax(tf.constant(logits, tf.float32)), expected, rtol=1e-5
  )
