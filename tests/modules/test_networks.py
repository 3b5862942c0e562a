"""Tests for iodine.modules.networks."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import errors
from iodine.config import plans
from iodine.devices import has_avx512
from iodine.modules import networks, utils
from tests.support import module_checks

# Odd and distinct, so that swapped axes fail.
B, K, H, W, C, Z = 2, 3, 5, 7, 3, 4
MODES = pytest.mark.parametrize("mode", ["eager", "compiled"])
# Sums of up to a few hundred float32 products of order one.
TOLERANCE = dict(rtol=2e-5, atol=2e-5)
# Of a normal distribution of stddev 1 that is cut at -2 and 2.
TRUNCATED_STDDEV = 0.8796257
TRUNCATED_KURTOSIS = 2.3655


def _random(*shape):
  return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def _tensor(*shape):
  return tf.constant(_random(*shape))


def _values(module):
  """{variable's name without the first scope and ":0": its value}."""
  return {
    v.name.removesuffix(":0").split("/", 1)[1]: v.numpy()
    for v in module.variables
  }


def _check_truncated_normal(values, stddev):
  """Values follow a normal distribution that is cut at two stddevs.

  Mean and stddev may be off by five standard errors: a chance of 1e-6.
  """
  values = values.ravel() / stddev
  assert values.size > 2000, "too few for a sharp test"
  assert np.abs(values).max() <= 2.0
  assert np.abs(values).max() > 1.9
  root = np.sqrt(values.size)
  assert abs(values.mean()) < 5 * TRUNCATED_STDDEV / root
  error = TRUNCATED_STDDEV * np.sqrt(TRUNCATED_KURTOSIS - 1) / 2 / root
  assert abs(values.std() - TRUNCATED_STDDEV) < 5 * error


def _np_elu(x):
  return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _np_relu(x):
  return np.maximum(x, 0)


def _np_padding(size, kernel, stride, rate=1):
  """Output size and padding before the input of a SAME convolution."""
  out = -(-size // stride)
  total = max((out - 1) * stride + (kernel - 1) * rate + 1 - size, 0)
  return out, total // 2


def _np_conv(x, w, b, stride, rate=1):
  """SAME convolution of x [B, H, W, C] with w [h, w, C, C']."""
  (sh, sw), (rh, rw) = stride, (rate, rate)
  out_h, top = _np_padding(x.shape[1], w.shape[0], sh, rh)
  out_w, left = _np_padding(x.shape[2], w.shape[1], sw, rw)
  out = np.zeros([len(x), out_h, out_w, w.shape[3]]) + b
  for i, j, p, q in np.ndindex(out_h, out_w, *w.shape[:2]):
    row, column = i * sh - top + p * rh, j * sw - left + q * rw
    if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
      out[:, i, j] += x[:, row, column] @ w[p, q]
  return out


def _np_conv_transpose(x, w, b, stride):
  """The transpose of `_np_conv`, to s times the size; w [h, w, C', C]."""
  sh, sw = stride
  height, width = x.shape[1] * sh, x.shape[2] * sw
  _, top = _np_padding(height, w.shape[0], sh)
  _, left = _np_padding(width, w.shape[1], sw)
  out = np.zeros([len(x), height, width, w.shape[2]]) + b
  for i, j, p, q in np.ndindex(*x.shape[1:3], *w.shape[:2]):
    row, column = i * sh - top + p, j * sw - left + q
    if 0 <= row < height and 0 <= column < width:
      out[:, row, column] += x[:, i, j] @ w[p, q].T
  return out


def _np_mlp(x, values, scope, act, count, final=False):
  for i in range(count):
    x = x @ values[f"{scope}/linear_{i}/w"] + values[f"{scope}/linear_{i}/b"]
    x = act(x) if i < count - 1 or final else x
  return x


def _np_conv_net(x, values, act, strides, final):
  for i, stride in enumerate(strides):
    scope = f"conv_net_2d/conv_2d_{i}"
    x = _np_conv(x, values[f"{scope}/w"], values[f"{scope}/b"], stride)
    x = act(x) if i < len(strides) - 1 or final else x
  return x


class TestConvNet2D:
  @MODES
  @pytest.mark.parametrize(
    "kernels, strides, rates",
    [
      ([3], [1], [1]),
      ([5, (3, 1)], [2, (1, 3)], [1]),
      ([[3, 4], 2], [[2, 3], 2], [1]),
      ([3], [1], [1, 2]),
    ],
  )
  def test_matches_numpy(self, mode, kernels, strides, rates):
    net = networks.ConvNet2D([4, 2], kernels, strides, rates, activation="elu")
    image = _random(B, H, W, C)
    net(tf.zeros([1, H, W, C]))
    module_checks.perturb(net)
    values = _values(net)
    expected = image
    for i in range(2):
      stride = strides[i % len(strides)]
      stride = (stride, stride) if isinstance(stride, int) else stride
      w, b = values[f"conv_2d_{i}/w"], values[f"conv_2d_{i}/b"]
      expected = _np_conv(expected, w, b, stride, rates[i % len(rates)])
      expected = _np_elu(expected) if i == 0 else expected
    np.testing.assert_allclose(
      module_checks.call(mode, net, image), expected, **TOLERANCE
    )

  @MODES
  @pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (1, 7), (3, 1), (2, 4)])
  @pytest.mark.parametrize("channels", [1, 3, 4, 8, 9])
  def test_few_channels_are_those_of_a_convolution(
    self, mode, kernel, channels
  ):
    net = networks.ConvNet2D([channels], [kernel], [1])
    image = _random(B, H, W, C)
    net(tf.zeros([1, H, W, C]))
    module_checks.perturb(net)
    w, b = (v for n in "wb" for v in net.variables if f"/{n}:" in v.name)
    weights = tf.constant(_random(H, W, channels))

    def derivatives(function, image):
      """Gradients, and gradients of the image's gradient."""
      with tf.GradientTape(persistent=True) as outer:
        outer.watch(image)
        with tf.GradientTape() as tape:
          tape.watch(image)
          outputs = function(image)
          loss = tf.reduce_sum(weights * tf.square(outputs))
        slope = tf.reduce_sum(tf.math.cos(tape.gradient(loss, image)))
      sources = [image, w, b]
      first, second = (
        outer.gradient(loss, sources),
        outer.gradient(slope, sources),
      )
      return outputs, first, second

    found = module_checks.call(mode, lambda x: derivatives(net, x), image)
    expected = derivatives(
      lambda x: tf.nn.conv2d(x, w, 1, "SAME") + b, tf.constant(image)
    )
    flat = map(tf.nest.flatten, (found, expected))
    for ours, theirs in zip(*flat, strict=True):
      atol = 2e-5 * np.abs(theirs).max()
      np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)

  @MODES
  @pytest.mark.parametrize("kernel, stride", [(3, 1), (5, 2), (3, (2, 3))])
  def test_transpose_matches_numpy(self, mode, kernel, stride):
    net = networks.ConvNet2D(
      [4, None], [kernel], [stride], activation="elu", transpose=True
    )
    image = _random(B, 3, 2, C)
    net(tf.zeros([1, 3, 2, C]), 2)
    module_checks.perturb(net)
    values = _values(net)
    stride = (stride, stride) if isinstance(stride, int) else stride
    expected = image
    for i, act in enumerate([_np_elu, lambda x: x]):
      scope = f"conv_2d_transpose_{i}"
      w, b = values[f"{scope}/w"], values[f"{scope}/b"]
      expected = act(_np_conv_transpose(expected, w, b, stride))
    outputs = module_checks.call(mode, lambda x: net(x, 2), image)
    np.testing.assert_allclose(outputs, expected, **TOLERANCE)

  def test_activate_final_and_default_activation(self):
    plain = networks.ConvNet2D([6], [1], [1])
    final = networks.ConvNet2D([6], [1], [1], activate_final=True)
    image = _random(B, H, W, C)
    outputs, _ = plain(image).numpy(), final(image)
    assert outputs.min() < 0
    for mine, theirs in zip(final.variables, plain.variables, strict=True):
      mine.assign(theirs)
    np.testing.assert_array_equal(final(image), _np_relu(outputs))

  def test_bias_per_layer(self):
    net = networks.ConvNet2D([4, 2], [1], [1], use_bias=[False, True])
    net(_tensor(B, H, W, C))
    assert list(_values(net)) == ["conv_2d_0/w", "conv_2d_1/b", "conv_2d_1/w"]
    net = networks.ConvNet2D([4, 2], [1], [1], use_bias=False)
    net(_tensor(B, H, W, C))
    assert list(_values(net)) == ["conv_2d_0/w", "conv_2d_1/w"]

  @pytest.mark.parametrize("transpose", [False, True])
  def test_last_channels_at_the_first_call(self, transpose):
    net = networks.ConvNet2D([4, None], [3], [1], transpose=transpose)
    image = tf.constant(_random(B, H, W, C))
    with pytest.raises(ValueError, match="first call must say how many"):
      net(image)
    assert net(image, 6).shape == [B, H, W, 6]
    assert net(image).shape == [B, H, W, 6]
    with pytest.raises(ValueError, match="=2: the last convolution has 6"):
      net(image, 2)

  def test_stride_is_the_product(self):
    net = networks.ConvNet2D([4, 2, 3], [3], [2, (3, 1), [5, 7]])
    assert net.stride == (30, 14)

  @pytest.mark.parametrize(
    "change, message",
    [
      (dict(output_channels=[]), "output_channels must not be empty"),
      (dict(output_channels=[4, 0]), r"output_channels\[1\]=0: expected an"),
      (dict(output_channels=[None, 4]), r"output_channels\[0\]=None: expec"),
      (dict(kernel_shapes=3), "kernel_shapes=3: must be a list"),
      (dict(kernel_shapes=[3] * 3), r"kernel_shapes=\[3, 3, 3\]: needs 1 or 2"),
      (dict(strides=[0]), "strides=0: expected an integer of at least 1"),
      (dict(strides=[True]), "strides=True: expected an integer of at least 1"),
      (
        dict(strides=[1, [2, -1]]),
        "strides=-1: expected an integer of at least 1",
      ),
      (dict(rates=[1.5]), "rates=1.5: expected an integer of at least 1"),
      (dict(output_channels=4), "output_channels=4: must be a list"),
      (
        dict(strides=[(2, 2, 2)]),
        r"strides=\(2, 2, 2\): must be an integer or",
      ),
      (dict(use_bias=[True] * 3), "use_bias=.*a boolean, or 1 or 2 of them"),
      (dict(use_bias=1), "use_bias=1: must be a boolean, or 1 or 2 of them"),
      (dict(activation="eluu"), "unknown activation 'eluu'. Did you mean 'elu"),
    ],
  )
  def test_errors(self, change, message):
    options = dict(output_channels=[4, 2], kernel_shapes=[3], strides=[1])
    with pytest.raises(ValueError, match=message):
      networks.ConvNet2D(**{**options, **change})


class TestMLP:
  @MODES
  @pytest.mark.parametrize("sizes", [[6, 5], [6, None]])
  @pytest.mark.parametrize("final", [False, True])
  def test_matches_numpy_over_leading_dimensions(self, mode, sizes, final):
    mlp = networks.MLP(sizes, activation="elu", activate_final=final)
    data = _random(B, K, 7)
    mlp(tf.constant(data), 5)
    module_checks.perturb(mlp)
    expected = _np_mlp(data, _values(mlp), "mlp", _np_elu, 2, final)
    outputs = module_checks.call(mode, lambda x: mlp(x, 5).params, data)
    np.testing.assert_allclose(outputs, expected, **TOLERANCE)

  def test_without_bias_and_default_activation(self):
    mlp = networks.MLP([6, 5], use_bias=False)
    data = _random(B, 7)
    outputs = mlp(tf.constant(data)).params
    values = _values(mlp)
    assert list(values) == ["mlp/linear_0/w", "mlp/linear_1/w"]
    hidden = _np_relu(data @ values["mlp/linear_0/w"])
    expected = hidden @ values["mlp/linear_1/w"]
    np.testing.assert_allclose(outputs, expected, **TOLERANCE)

  def test_last_size_at_the_first_call(self):
    mlp = networks.MLP([6, None])
    with pytest.raises(ValueError, match="first call must give output_size"):
      mlp(_tensor(B, 7))
    assert mlp(_tensor(B, 7), 5).params.shape == [B, 5]
    assert mlp(_tensor(B, 7)).params.shape == [B, 5]
    with pytest.raises(ValueError, match="=6: the last layer has 5"):
      mlp(_tensor(B, 7), 6)

  @pytest.mark.parametrize(
    "sizes, message",
    [
      ([], r"output_sizes=\[\]: must be a non-empty list"),
      (3, "output_sizes=3: must be a non-empty list"),
      ([None, 3], r"output_sizes\[0\]=None: expected an integer of at least 1"),
      ([4, -3], r"output_sizes\[1\]=-3: expected an integer of at least 1"),
    ],
  )
  def test_errors(self, sizes, message):
    with pytest.raises(ValueError, match=message):
      networks.MLP(sizes)


class TestCNN:
  PLAN = dict(
    constructor="iodine.modules.networks.CNN",
    cnn_opt=dict(
      output_channels=[8, 6],
      kernel_shapes=[3],
      strides=[2, (1, 2)],
      activation="elu",
    ),
    mlp_opt=dict(output_sizes=[9, 5], activation="tanh"),
  )

  def _build(self, **changes):
    return plans.build({**self.PLAN, **changes}, "encoder_net")

  @MODES
  @pytest.mark.parametrize("cnn_mode", ["flatten", "avg_pool"])
  def test_matches_numpy(self, mode, cnn_mode):
    cnn = self._build(mode=cnn_mode)
    image = _random(B, K, H, W, C)
    cnn(tf.constant(image))
    module_checks.perturb(cnn)
    values = {k.split("/", 1)[1]: v for k, v in _values(cnn).items()}
    net = image.reshape(B * K, H, W, C)
    net = _np_conv_net(net, values, _np_elu, [(2, 2), (1, 2)], final=True)
    assert net.shape == (B * K, 3, 2, 6)
    if cnn_mode == "flatten":
      net = net.reshape(B * K, -1)
    else:
      net = net.mean(axis=(1, 2))
    expected = _np_mlp(net, values, "mlp", np.tanh, 2).reshape(B, K, 5)
    outputs = module_checks.call(mode, lambda x: cnn(x).params, image)
    np.testing.assert_allclose(outputs, expected, **TOLERANCE)

  @MODES
  def test_names_and_gradients(self, mode):
    cnn = self._build()
    image = _random(B, H, W, C)
    with tf.name_scope("caller"):
      module_checks.call(mode, lambda x: cnn(x).params, image)
    assert module_checks.shapes(cnn) == {
      "encoder_net/cnn/conv_net_2d/conv_2d_0/w": (3, 3, C, 8),
      "encoder_net/cnn/conv_net_2d/conv_2d_0/b": (8,),
      "encoder_net/cnn/conv_net_2d/conv_2d_1/w": (3, 3, 8, 6),
      "encoder_net/cnn/conv_net_2d/conv_2d_1/b": (6,),
      "encoder_net/cnn/mlp/linear_0/w": (3 * 2 * 6, 9),
      "encoder_net/cnn/mlp/linear_0/b": (9,),
      "encoder_net/cnn/mlp/linear_1/w": (9, 5),
      "encoder_net/cnn/mlp/linear_1/b": (5,),
    }
    module_checks.check_gradients(mode, cnn, lambda x: cnn(x).params, image)

  def test_activate_final_of_the_mlp(self):
    cnn = self._build(
      mlp_opt=dict(output_sizes=[64], activation="relu", activate_final=True)
    )
    outputs = cnn(_tensor(B, H, W, C)).params.numpy()
    assert outputs.min() == 0.0 < outputs.max()

  @MODES
  def test_initial_values(self, mode):
    tf.random.set_seed(0)
    cnn = self._build(
      cnn_opt=dict(output_channels=[30, 20], kernel_shapes=[5], strides=[1]),
      mlp_opt=dict(output_sizes=[150]),
      mode="avg_pool",
    )
    module_checks.call(mode, lambda x: cnn(x).params, _random(B, H, W, C))
    scope = "encoder_net/cnn"
    values = {v.name.removesuffix(":0"): v.numpy() for v in cnn.variables}
    for layer, fan_in in [
      ("conv_net_2d/conv_2d_0", 5 * 5 * C),
      ("conv_net_2d/conv_2d_1", 5 * 5 * 30),
      ("mlp/linear_0", 20),
    ]:
      weights = values.pop(f"{scope}/{layer}/w")
      _check_truncated_normal(weights, 1 / np.sqrt(fan_in))
      np.testing.assert_array_equal(values.pop(f"{scope}/{layer}/b"), 0.0)
    assert not values

  @pytest.mark.parametrize(
    "change, message",
    [
      (
        dict(mode="avgpool"),
        "mode='avgpool': unknown. Did you mean 'avg_pool'?.*avg_pool, flatten",
      ),
      (
        dict(cnn_opt=dict(output_channels=[4], kernel_shape=[3], strides=[1])),
        r"cnn_opt.kernel_shape=\[3\]: unknown key. Did you mean 'kernel_shapes",
      ),
      (
        dict(cnn_opt=dict(output_channels=[4], kernel_shapes=[3])),
        "cnn_opt.strides: missing",
      ),
      (
        dict(cnn_opt=dict(output_channels=4, kernel_shapes=[3], strides=[1])),
        "cnn_opt.output_channels=4: must be a list",
      ),
      (dict(cnn_opt=None), "cnn_opt=None: must be a mapping"),
      (dict(mlp_opt=[9]), r"mlp_opt=\[9\]: must be a mapping"),
      (
        dict(
          cnn_opt=dict(
            output_channels=[4, None], kernel_shapes=[3], strides=[1]
          )
        ),
        r"output_channels=\[4, None\]: the last must be a number",
      ),
      (
        dict(mlp_opt=dict(output_sizes=[4, None])),
        r"output_sizes=\[4, None\]: the last must be a number",
      ),
      (
        dict(mlp_opt=dict(output_size=[4])),
        "output_sizes=None: must be a non-empty list",
      ),
      (
        dict(mlp_opt=dict(output_sizes=[4], activations="elu")),
        "mlp_opt.activations='elu': unknown key. Did you mean 'activation'?",
      ),
    ],
  )
  def test_errors_name_the_plan(self, change, message):
    with pytest.raises(errors.ConfigError, match=f"encoder_net: .*{message}"):
      self._build(**change)


class TestDeConv:
  @staticmethod
  def _build(cells=2 * 3, channels=4, **changes):
    return plans.build(
      {
        "constructor": "iodine.modules.networks.DeConv",
        "mlp_opt": dict(output_sizes=[7, cells * channels], activation="elu"),
        "cnn_opt": dict(
          output_channels=[5, None],
          kernel_shapes=[3],
          strides=[2, (1, 3)],
          activation="elu",
        ),
        **changes,
      },
      "pixel_decoder",
    )

  @MODES
  def test_matches_numpy(self, mode):
    deconv = self._build()
    z = _random(B, K, Z)
    deconv(tf.constant(z), (4, 18, C))
    module_checks.perturb(deconv)
    values = {k.split("/", 1)[1]: v for k, v in _values(deconv).items()}
    net = _np_mlp(z.reshape(B * K, Z), values, "mlp", _np_elu, 2)
    net = net.reshape(B * K, 2, 3, 4)
    for i, (stride, act) in enumerate(
      [((2, 2), _np_elu), ((1, 3), lambda x: x)]
    ):
      scope = f"conv_net_2d_transpose/conv_2d_transpose_{i}"
      w, b = values[f"{scope}/w"], values[f"{scope}/b"]
      net = act(_np_conv_transpose(net, w, b, stride))
    outputs = module_checks.call(
      mode, lambda z: deconv(z, (4, 18, C)).params, z
    )
    np.testing.assert_allclose(
      outputs, net.reshape(B, K, 4, 18, C), **TOLERANCE
    )

  def test_static_shape_at_an_unknown_batch_size(self):
    deconv = self._build()
    compiled = tf.function(
      lambda z: deconv(z, (4, 18, C)).params,
      input_signature=[tf.TensorSpec([None, K, Z])],
      autograph=False,
    )
    outputs = compiled.get_concrete_function().structured_outputs
    assert outputs.shape.as_list() == [None, K, 4, 18, C]

  @MODES
  def test_names_and_gradients(self, mode):
    deconv = self._build()
    z = _random(B, Z)
    decode = lambda z: deconv(z, [4, 18, C]).params
    with tf.name_scope("caller"):
      module_checks.call(mode, decode, z)
    scope = "pixel_decoder/deconv"
    conv = f"{scope}/conv_net_2d_transpose/conv_2d_transpose"
    assert module_checks.shapes(deconv) == {
      f"{scope}/mlp/linear_0/w": (Z, 7),
      f"{scope}/mlp/linear_0/b": (7,),
      f"{scope}/mlp/linear_1/w": (7, 24),
      f"{scope}/mlp/linear_1/b": (24,),
      f"{conv}_0/w": (3, 3, 5, 4),
      f"{conv}_0/b": (5,),
      f"{conv}_1/w": (3, 3, C, 5),
      f"{conv}_1/b": (C,),
    }
    module_checks.check_gradients(mode, deconv, decode, z)

  def test_initial_values(self):
    tf.random.set_seed(0)
    deconv = self._build(
      cells=1,
      channels=20,
      cnn_opt=dict(output_channels=[None], kernel_shapes=[5], strides=[4]),
    )
    deconv(_tensor(B, Z), (4, 4, 9))
    weights = _values(deconv)[
      "deconv/conv_net_2d_transpose/conv_2d_transpose_0/w"
    ]
    assert weights.shape == (5, 5, 9, 20)
    _check_truncated_normal(weights, 1 / np.sqrt(5 * 5 * 20))

  @pytest.mark.parametrize(
    "shape, cells",
    [((5, 18), 6), ((4, 16), 6), ((4, 18), 5), ((4, 18), 3), ((1, 6), 6)],
  )
  def test_indivisible_sizes(self, shape, cells):
    deconv = self._build(cells=cells, channels=1)
    message = (
      f"DeConv: an image of {shape[0]} x {shape[1]} pixels and strides whose "
      f"products are 2 and 6 need H and W that these divide.*got {cells}"
    )
    with pytest.raises(ValueError, match=message):
      deconv(_tensor(B, Z), (*shape, C))

  def test_any_multiple_of_the_cells(self):
    for channels in (1, 5):
      deconv = self._build(cells=1, channels=channels)
      assert deconv(_tensor(B, Z), (2, 6, C)).params.shape == [B, 2, 6, C]

  @pytest.mark.parametrize(
    "change, message",
    [
      (dict(mlp_opt=None), "mlp_opt=None: must be a mapping"),
      (dict(mlp_opt=dict(output_sizes=[])), r"output_sizes=\[\]: must be a"),
    ],
  )
  def test_errors(self, change, message):
    with pytest.raises(errors.ConfigError, match=f"pixel_decoder: {message}"):
      self._build(**change)


class TestBroadcastConv:
  @staticmethod
  def _build(**changes):
    return plans.build(
      {
        "constructor": "iodine.modules.networks.BroadcastConv",
        "cnn_opt": dict(
          output_channels=[6, None],
          kernel_shapes=[3],
          strides=[1],
          activation="elu",
        ),
        **changes,
      },
      "pixel_decoder",
    )

  @MODES
  @pytest.mark.parametrize(
    "coord_type, freqs, extra",
    [(None, 3, 0), ("linear", 3, 2), ("cos", 3, 8), ("cos", 2, 3)],
  )
  @pytest.mark.parametrize("mlp_opt", [None, dict(output_sizes=[7, 9])])
  def test_matches_numpy(self, mode, coord_type, freqs, extra, mlp_opt):
    decoder = self._build(
      coord_type=coord_type, coord_freqs=freqs, mlp_opt=mlp_opt
    )
    z = _random(B, K, Z)
    decoder(tf.constant(z), (H, W, C))
    module_checks.perturb(decoder)
    values = {k.split("/", 1)[1]: v for k, v in _values(decoder).items()}
    net = z.reshape(B * K, Z)
    if mlp_opt:  # All its layers are activated, relu by default.
      net = _np_mlp(net, values, "mlp", _np_relu, 2, final=True)
    net = np.broadcast_to(net[:, None, None], (B * K, H, W, net.shape[-1]))
    coords = utils.coordinate_channels(H, W, coord_type, freqs, order="hw")
    assert coords.shape == (H, W, extra)
    coords = np.broadcast_to(coords, (B * K, H, W, extra))
    net = np.concatenate([net, coords], axis=-1)
    net = _np_conv_net(net, values, _np_elu, [(1, 1)] * 2, final=False)
    outputs = module_checks.call(
      mode, lambda z: decoder(z, (H, W, C)).params, z
    )
    np.testing.assert_allclose(outputs, net.reshape(B, K, H, W, C), **TOLERANCE)

  @pytest.mark.parametrize(
    "kernel, stride, rate, size",
    [
      ([3, 3], 1, 1, (9, 7)),
      ([5, 2], 1, 1, (9, 7)),
      ([4, 3], [2, 3], 1, (9, 7)),
      ([3, 2], 1, [2, 3], (9, 7)),
      ([7, 5], 1, 1, (3, 2)),  # larger than the image
      ([1, 1], 1, 1, (9, 7)),
    ],
  )
  @pytest.mark.parametrize("coord_type", ["linear", None])
  def test_first_layer_is_a_convolution_of_the_tiled_latent(
    self, kernel, stride, rate, size, coord_type
  ):
    if rate != 1 and not has_avx512():
      pytest.skip("dilated convolutions have no gradient without AVX-512")
    decoder = self._build(
      coord_type=coord_type,
      cnn_opt=dict(
        output_channels=[None],
        kernel_shapes=[kernel],
        strides=[stride],
        rates=[rate],
      ),
    )
    z = tf.constant(_random(B, Z))
    with tf.GradientTape(persistent=True) as tape:
      tape.watch(z)
      outputs = decoder(z, (*size, C)).params
      w, b = (v for n in "wb" for v in decoder.variables if f"/{n}:" in v.name)
      b.assign(_random(C))
      outputs = decoder(z, (*size, C)).params
      rows, columns = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in size), indexing="ij"
      )
      tiled = tf.tile(z[:, None, None], [1, *size, 1])
      coords = np.stack([rows, columns], -1)[None].repeat(B, 0)
      if coord_type:
        tiled = tf.concat([tiled, coords], -1)
      expected = b + tf.nn.conv2d(tiled, w, stride, "SAME", dilations=rate)
      weights = tf.constant(_random(*expected.shape))
      losses = [tf.reduce_sum(x * weights) for x in (outputs, expected)]
    np.testing.assert_allclose(outputs, expected, **TOLERANCE)
    for source in (z, w, b):
      ours, theirs = (tape.gradient(loss, source) for loss in losses)
      np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)

  @MODES
  @pytest.mark.parametrize("kernel", [1, 3])
  def test_modulated_coordinates(self, mode, kernel):
    decoder = self._build(
      modulate=True,
      cnn_opt=dict(output_channels=[None], kernel_shapes=[kernel], strides=[1]),
    )
    decode = lambda z: decoder(z, (H, W, C)).params
    z = _random(B, Z)
    decode(tf.constant(z))
    module_checks.perturb(decoder)
    values = {k.rsplit("/", 1)[1]: v for k, v in _values(decoder).items()}
    w_z, w_coords = np.split(values["w"], [Z], axis=2)
    tiled = np.broadcast_to(z[:, None, None], (B, H, W, Z))
    coords = utils.coordinate_channels(H, W, "linear", 1, order="hw")[None]
    gain = 1 + z @ values["w_gain"]
    expected = _np_conv(tiled, w_z, values["b"], (1, 1))
    expected += gain[:, None, None] * _np_conv(coords, w_coords, 0, (1, 1))
    outputs = module_checks.call(mode, decode, z)
    np.testing.assert_allclose(outputs, expected, **TOLERANCE)
    module_checks.check_gradients(mode, decoder, decode, z)

  def test_first_gains(self):
    decoder = self._build(
      modulate=True,
      cnn_opt=dict(output_channels=[128], kernel_shapes=[1], strides=[1]),
    )
    decoder(_tensor(B, 64), (H, W, 128))
    gains = next(v for v in decoder.variables if "w_gain" in v.name)
    _check_truncated_normal(gains.numpy(), 0.3 / 8)

  @MODES
  def test_names_and_gradients(self, mode):
    # No relu: a dead unit would have a zero gradient.
    decoder = self._build(mlp_opt=dict(output_sizes=[7], activation="elu"))
    z = _random(B, Z)
    decode = lambda z: decoder(z, (H, W, C)).params
    with tf.name_scope("caller"):
      module_checks.call(mode, decode, z)
    scope = "pixel_decoder/broadcast_conv"
    assert module_checks.shapes(decoder) == {
      f"{scope}/mlp/linear_0/w": (Z, 7),
      f"{scope}/mlp/linear_0/b": (7,),
      f"{scope}/conv_net_2d/conv_2d_0/w": (3, 3, 9, 6),
      f"{scope}/conv_net_2d/conv_2d_0/b": (6,),
      f"{scope}/conv_net_2d/conv_2d_1/w": (3, 3, 6, C),
      f"{scope}/conv_net_2d/conv_2d_1/b": (C,),
    }
    module_checks.check_gradients(mode, decoder, decode, z)

  def test_static_shape_at_an_unknown_batch_size(self):
    decoder = self._build()
    compiled = tf.function(
      lambda z: decoder(z, (H, W, C)).params,
      input_signature=[tf.TensorSpec([None, K, Z])],
      autograph=False,
    )
    outputs = compiled.get_concrete_function().structured_outputs
    assert outputs.shape.as_list() == [None, K, H, W, C]

  def test_contradicting_channels(self):
    decoder = self._build(
      cnn_opt=dict(output_channels=[6, 4], kernel_shapes=[3], strides=[1])
    )
    with pytest.raises(ValueError, match="=3: the last convolution has 4"):
      decoder(_tensor(B, Z), (H, W, 3))

  @pytest.mark.parametrize(
    "change, message",
    [
      (
        dict(coord_type="cosine"),
        "coord_type='cosine': must be 'linear', 'cos' or None",
      ),
      (
        dict(coord_type="cos", coord_freqs=0),
        "coord_freqs=0: expected an integer of at least 1",
      ),
      (dict(modulate=1), "modulate=1: expected True or False"),
      (
        dict(modulate=True, coord_type=None),
        "modulate=True: there are no coordinates to scale with coord_type=None",
      ),
      (
        dict(mlp_opt=dict(output_sizes=[4, None])),
        r"output_sizes=\[4, None\]: the last must be a number",
      ),
      (
        dict(
          cnn_opt=dict(
            output_channels=[None], kernel_shapes=[3], strides=[1], padding=1
          )
        ),
        "cnn_opt.padding=1: unknown key. .*Valid keys: activate_final, activa",
      ),
    ],
  )
  def test_errors(self, change, message):
    with pytest.raises(errors.ConfigError, match=f"pixel_decoder: {message}"):
      self._build(**change)


class TestLSTM:
  HIDDEN = (5, 8)

  @staticmethod
  def _build(hidden_sizes):
    return plans.build(
      {
        "constructor": "iodine.modules.networks.LSTM",
        "hidden_sizes": hidden_sizes,
      },
      "recurrent_net",
    )

  @staticmethod
  def _np_layer(x, state, w, b):
    """Sonnet 1's LSTM: gates i, j, f, o; forget bias 1 added as it runs."""
    hidden, cell = state
    gates = np.concatenate([x, hidden], axis=1) @ w + b
    i, j, f, o = np.split(gates, 4, axis=1)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(j)
    hidden = np.tanh(cell) * sigmoid(o)
    return hidden, (hidden, cell)

  @MODES
  @pytest.mark.parametrize("count", [0, 1, 2])
  def test_matches_numpy_over_three_steps(self, mode, count):
    hidden_sizes = list(self.HIDDEN[:count])
    lstm = self._build(hidden_sizes)
    lstm(tf.zeros([1, K, 6]), lstm.initial_state(K))
    values = {}
    if count:  # Sonnet refuses to list no variables at all.
      module_checks.perturb(lstm)
      values = _values(lstm)
    states = lstm.initial_state(B * K)
    expected_states = [
      (np.zeros([B * K, h]), np.zeros([B * K, h])) for h in hidden_sizes
    ]
    for data in _random(3, B, K, 6):
      outputs, states = module_checks.call(mode, lstm, data, states)
      expected = data.reshape(B * K, 6)
      for i in range(count):
        scope = ["lstm/lstm", "lstm/lstm_1"][i]
        weights = [values[f"{scope}/{n}"] for n in ("w_gates", "b_gates")]
        expected, expected_states[i] = self._np_layer(
          expected, expected_states[i], *weights
        )
      np.testing.assert_allclose(
        outputs, expected.reshape(B, K, -1), **TOLERANCE
      )
      for state, expected_state in zip(states, expected_states, strict=True):
        for s, e in zip(state, expected_state, strict=True):
          np.testing.assert_allclose(s, e, **TOLERANCE)

  @MODES
  def test_names_and_gradients(self, mode):
    lstm = self._build([5, 8, 4])
    data, states = _random(B, K, 6), lstm.initial_state(B * K)
    states = tf.nest.map_structure(lambda s: s + 0.5, states)
    with tf.name_scope("caller"):
      module_checks.call(mode, lstm, data, states)
    scope = "recurrent_net/lstm"
    assert module_checks.shapes(lstm) == {
      f"{scope}/lstm/w_gates": (6 + 5, 20),
      f"{scope}/lstm/b_gates": (20,),
      f"{scope}/lstm_1/w_gates": (5 + 8, 32),
      f"{scope}/lstm_1/b_gates": (32,),
      f"{scope}/lstm_2/w_gates": (8 + 4, 16),
      f"{scope}/lstm_2/b_gates": (16,),
    }
    module_checks.check_gradients(mode, lstm, lstm, data, states)

  @MODES
  def test_initial_values_of_weights_and_biases(self, mode):
    tf.random.set_seed(0)
    lstm = self._build([600])
    module_checks.call(mode, lstm, _random(B, K, 6), lstm.initial_state(B * K))
    values = _values(lstm)
    stddev = 1 / np.sqrt(6 + 600)
    _check_truncated_normal(values["lstm/lstm/w_gates"], stddev)
    _check_truncated_normal(values["lstm/lstm/b_gates"], stddev)

  def test_initial_state_is_zero(self):
    states = self._build(self.HIDDEN).initial_state(tf.constant(B * K))
    assert [[s.shape for s in state] for state in states] == [
      [[B * K, h]] * 2 for h in self.HIDDEN
    ]
    assert all(np.all(s == 0) for s in tf.nest.flatten(states))

  def test_wrong_number_of_states(self):
    lstm = self._build([5, 8])
    with pytest.raises(ValueError, match="LSTM: 2 layers, 1 states"):
      lstm(_tensor(B, K, 6), lstm.initial_state(B * K)[:1])

  @pytest.mark.parametrize(
    "sizes, message",
    [
      (5, "hidden_sizes=5: must be a list"),
      ([5, 0], r"hidden_sizes\[1\]=0: expected an integer of at least 1"),
      ([2.0], r"hidden_sizes\[0\]=2.0: expected an integer of at least 1"),
    ],
  )
  def test_errors(self, sizes, message):
    with pytest.raises(errors.ConfigError, match=f"recurrent_net: {message}"):
      self._build(sizes)
