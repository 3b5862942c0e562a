"""Network modules: convolutional nets, perceptrons, broadcast decoder, LSTM."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sonnet as snt
import tensorflow as tf

from iodine import checks, errors
from iodine.modules import utils
from iodine.modules._convolutions import BroadcastConv2D, ConvNet2D
from iodine.modules.distributions import FlatParameters

__all__ = ["BroadcastConv", "CNN", "ConvNet2D", "DeConv", "LSTM", "MLP"]

# Sonnet 1 adds this to the forget gate's logit; it is not part of the bias
# variable.
FORGET_BIAS = 1.0


def _over_batch(
  function: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor, event_rank: int
) -> tf.Tensor:
  """Applies a function of one batch dimension to all leading dimensions."""
  return snt.BatchApply(function, inputs.shape.rank - event_rank)(inputs)


class MLP(snt.Module):
  """Multi-layer perceptron over the last axis.

  Reference: networks.py:98-127.
  """

  def __init__(
    self,
    output_sizes: Sequence[int | None],
    activation: Any = "relu",
    activate_final: bool = False,
    use_bias: bool = True,
    name: str = "mlp",
  ):
    """Makes a perceptron without variables; the first call creates them.

    Args:
      output_sizes: one entry per layer; if the last is None, the first call
        gives it.
      activation: name or function, applied between the layers.
      activate_final: whether to apply it after the last layer too.
      use_bias: whether layers have a bias.
      name: scope of the variables.
    """
    super().__init__(name=name)
    self._output_sizes = _check_sizes(output_sizes)
    self._options = dict(
      activation=utils.get_act_func(activation),
      activate_final=activate_final,
      with_bias=use_bias,
    )

  def __call__(
    self, data: tf.Tensor, output_size: int | None = None
  ) -> FlatParameters:
    """Args: data: [..., N] float32. Returns: params [..., Y] float32."""
    self._create_net(output_size)
    if output_size not in (None, self._last_size):
      raise ValueError(
        f"output_size={output_size}: the last layer has {self._last_size}"
      )
    return FlatParameters(_over_batch(self._net, data, event_rank=1))

  @snt.once
  def _create_net(self, output_size: int | None) -> None:
    last = self._output_sizes[-1] or output_size
    if last is None:
      raise ValueError(
        "output_sizes ends in None: the first call must give output_size"
      )
    self._last_size = last
    self._net = snt.nets.MLP(
      [*self._output_sizes[:-1], last], name="mlp", **self._options
    )


def _check_sizes(output_sizes: Sequence[int | None]) -> tuple[int | None, ...]:
  if not isinstance(output_sizes, list | tuple) or not output_sizes:
    raise ValueError(f"output_sizes={output_sizes!r}: must be a non-empty list")
  for i, size in enumerate(output_sizes):
    if size is not None or i < len(output_sizes) - 1:
      checks.check(checks.size_fault(f"output_sizes[{i}]", size))
  return tuple(output_sizes)


def _make_mlp(
  mlp_opt: Mapping[str, Any], activate_final: bool | None = None
) -> snt.nets.MLP:
  """Makes Sonnet's MLP from options named as in the reference."""
  if not isinstance(mlp_opt, Mapping):
    raise ValueError(f"mlp_opt={mlp_opt!r}: must be a mapping")
  options = dict(mlp_opt)
  if activate_final is not None:
    options["activate_final"] = activate_final
  sizes = _check_sizes(options.pop("output_sizes", None))
  if sizes[-1] is None:
    raise ValueError(f"output_sizes={list(sizes)}: the last must be a number")
  known = ("activation", "activate_final", "use_bias")
  for key in options:
    if key not in known:
      raise ValueError(
        f"mlp_opt.{key}={options[key]!r}: unknown key. "
        + errors.did_you_mean(key, ("output_sizes", *known), "keys")
      )
  return snt.nets.MLP(
    sizes,
    activation=utils.get_act_func(options.get("activation", "relu")),
    activate_final=options.get("activate_final", False),
    with_bias=options.get("use_bias", True),
    name="mlp",
  )


_CONV_OPTIONS = (
  "output_channels",
  "kernel_shapes",
  "strides",
  "rates",
  "activation",
  "activate_final",
  "use_bias",
)


def _make_conv_net(
  cnn_opt: Mapping[str, Any], *, open_end: bool, **fixed: Any
) -> ConvNet2D:
  """Makes a ConvNet2D from options, which exclude the `fixed` ones.

  With `open_end` the number of last output channels depends on the image.
  """
  if not isinstance(cnn_opt, Mapping):
    raise ValueError(f"cnn_opt={cnn_opt!r}: must be a mapping")
  known = [k for k in _CONV_OPTIONS if k not in fixed]
  for key in cnn_opt:
    if key not in known:
      raise ValueError(
        f"cnn_opt.{key}={cnn_opt[key]!r}: unknown key. "
        + errors.did_you_mean(key, known, "keys")
      )
  for key in ("output_channels", "kernel_shapes", "strides"):
    if key not in cnn_opt:
      raise ValueError(f"cnn_opt.{key}: missing")
  channels = cnn_opt["output_channels"]
  if not isinstance(channels, list | tuple):
    raise ValueError(f"cnn_opt.output_channels={channels!r}: must be a list")
  if channels and not open_end and channels[-1] is None:
    raise ValueError(
      f"cnn_opt.output_channels={list(channels)}: the last must be a number"
    )
  return ConvNet2D(**cnn_opt, **fixed)


class CNN(snt.Module):
  """Encoder of images: convolutions, then an MLP."""

  MODES = ("flatten", "avg_pool")

  def __init__(
    self,
    cnn_opt: Mapping[str, Any],
    mlp_opt: Mapping[str, Any],
    mode: str = "flatten",
    name: str = "cnn",
  ):
    """Makes an encoder without variables; the first call creates them.

    Args:
      cnn_opt: arguments of ConvNet2D: output_channels, kernel_shapes, strides,
        rates, activation, use_bias. The last layer is activated.
      mlp_opt: arguments of the MLP: output_sizes, activation, activate_final,
        use_bias.
      mode: "flatten" keeps the features' positions, "avg_pool" averages over H
        and W.
      name: scope of the variables.
    """
    super().__init__(name=name)
    if mode not in self.MODES:
      raise ValueError(
        f"mode={mode!r}: unknown. {errors.did_you_mean(mode, self.MODES)}"
      )
    self._mode = mode
    self._cnn = _make_conv_net(cnn_opt, open_end=False, activate_final=True)
    self._mlp = _make_mlp(mlp_opt)

  def __call__(self, image: tf.Tensor) -> FlatParameters:
    """Args: image: [..., H, W, C]. Returns: params [..., Y]; both float32."""
    return FlatParameters(_over_batch(self._encode, image, event_rank=3))

  def _encode(self, image: tf.Tensor) -> tf.Tensor:
    net = self._cnn(image)
    if self._mode == "flatten":
      net = tf.reshape(net, [-1, math.prod(net.shape[1:])])
    else:
      net = tf.reduce_mean(net, axis=[1, 2])
    return self._mlp(net)


class DeConv(snt.Module):
  """Decoder of a plain VAE: an MLP, then transposed convolutions.

  The reference's cannot run (networks.py:130-172), since it passes the MLP's
  flat output to a convolution. Here it is reshaped to [H / s, W / s, C0], where
  s is the product of the strides.
  """

  def __init__(
    self,
    mlp_opt: Mapping[str, Any],
    cnn_opt: Mapping[str, Any],
    name: str = "deconv",
  ):
    """Makes a decoder without variables; the first call creates them.

    Args:
      mlp_opt: arguments of the MLP; its last size is C0 * H / s * W / s.
      cnn_opt: arguments of ConvNet2D; the last output channels are None.
      name: scope of the variables.
    """
    super().__init__(name=name)
    self._mlp = _make_mlp(mlp_opt)
    self._mlp_size = mlp_opt["output_sizes"][-1]
    self._cnn = _make_conv_net(cnn_opt, open_end=True, transpose=True)

  def __call__(
    self, z: tf.Tensor, output_shape: Sequence[int]
  ) -> FlatParameters:
    """Decodes latents.

    Args:
      z: [..., Z] float32.
      output_shape: (H, W, C).

    Returns:
      params [..., H, W, C] float32.

    Raises:
      ValueError: if H or W is not a multiple of the product of the strides, or
        the MLP's last size not a multiple of H / s * W / s.
    """
    decode = functools.partial(self._decode, output_shape=output_shape)
    return FlatParameters(_over_batch(decode, z, event_rank=1))

  def _decode(self, z: tf.Tensor, output_shape: Sequence[int]) -> tf.Tensor:
    height, width, channels = output_shape
    rows, columns = self._cnn.stride
    cells = (height // rows) * (width // columns)
    if height % rows or width % columns or self._mlp_size % max(cells, 1):
      raise ValueError(
        f"DeConv: an image of {height} x {width} pixels and strides whose "
        f"products are {rows} and {columns} need H and W that these divide, "
        f"and a last output size of the MLP that is a multiple of "
        f"H / {rows} * W / {columns}; got {self._mlp_size}"
      )
    net = tf.reshape(
      self._mlp(z),
      [-1, height // rows, width // columns, self._mlp_size // cells],
    )
    # With an unknown batch size, transposed convolutions lose the image size.
    return tf.ensure_shape(self._cnn(net, channels), [None, *output_shape])


class BroadcastConv(snt.Module):
  """Spatial broadcast decoder: convolutions of tiled z and coordinates.

  Section 2.1 of the paper (reference: networks.py:175-275).
  """

  def __init__(
    self,
    cnn_opt: Mapping[str, Any],
    mlp_opt: Mapping[str, Any] | None = None,
    coord_type: str | None = "linear",
    coord_freqs: int = 3,
    modulate: bool = False,
    name: str = "broadcast_conv",
  ):
    """Makes a decoder without variables; the first call creates them.

    Args:
      cnn_opt: arguments of ConvNet2D; the last output channels are None.
      mlp_opt: arguments of an MLP (all layers activated) applied to z before
        the broadcast; None: no MLP.
      coord_type: "linear", "cos" or None, see `utils.coordinate_channels`.
      coord_freqs: frequencies per axis for "cos".
      modulate: whether z also scales what the first layer makes of the
        coordinates, see `BroadcastConv2D`. The reference only adds both.
      name: scope of the variables.

    Raises:
      ValueError: for options out of range, or `modulate` without coordinates.
    """
    super().__init__(name=name)
    checks.check_flags(modulate=modulate)
    if modulate and coord_type is None:
      raise ValueError(
        "modulate=True: there are no coordinates to scale with coord_type=None"
      )
    self._cnn = _make_conv_net(
      cnn_opt,
      open_end=True,
      first_layer=functools.partial(BroadcastConv2D, modulate=modulate),
    )
    self._mlp = None
    if mlp_opt is not None:
      self._mlp = _make_mlp(mlp_opt, activate_final=True)
    utils.coordinate_channels(1, 1, coord_type, coord_freqs)  # checks both
    self._coord_type = coord_type
    self._coord_freqs = coord_freqs

  def __call__(
    self, z: tf.Tensor, output_shape: Sequence[int]
  ) -> FlatParameters:
    """Decodes latents.

    Args:
      z: [..., Z] float32.
      output_shape: (H, W, C).

    Returns:
      params [..., H, W, C] float32.
    """
    decode = functools.partial(self._decode, output_shape=output_shape)
    return FlatParameters(_over_batch(decode, z, event_rank=1))

  def _decode(self, z: tf.Tensor, output_shape: Sequence[int]) -> tf.Tensor:
    height, width, channels = output_shape
    if self._mlp is not None:
      z = self._mlp(z)
    coords = utils.coordinate_channels(
      height, width, self._coord_type, self._coord_freqs
    )
    return self._cnn((tf.cast(z, self._cnn.dtype), coords), channels)


class LSTM(snt.RNNCore):
  """A stack of LSTM layers, applied to all slots in parallel.

  Any number of layers; with none, data pass through (reference:
  networks.py:278-312).
  """

  def __init__(self, hidden_sizes: Sequence[int], name: str = "lstm"):
    """Args: hidden_sizes: one per layer. name: scope of the variables."""
    super().__init__(name=name)
    if not isinstance(hidden_sizes, list | tuple):
      raise ValueError(f"hidden_sizes={hidden_sizes!r}: must be a list")
    for i, size in enumerate(hidden_sizes):
      checks.check(checks.size_fault(f"hidden_sizes[{i}]", size))
    # Sonnet 1 numbers modules that share a name.
    self._layers = [
      _LSTMLayer(size, name=f"lstm_{i}" if i else "lstm")
      for i, size in enumerate(hidden_sizes)
    ]

  def initial_state(self, batch_size: int | tf.Tensor, **kwargs: Any) -> list:
    """Zero state of every layer for `batch_size` = B * K rows."""
    return [layer.initial_state(batch_size, **kwargs) for layer in self._layers]

  def __call__(
    self, data: tf.Tensor, prev_states: list
  ) -> tuple[tf.Tensor, list]:
    """Runs all layers for one step.

    Args:
      data: [B, K, H] float32.
      prev_states: states from `initial_state` or the last call.

    Returns:
      ([B, K, Y] float32, new states).

    Raises:
      ValueError: if the number of states is not that of the layers.
    """
    if len(prev_states) != len(self._layers):
      raise ValueError(
        f"LSTM: {len(self._layers)} layers, {len(prev_states)} states"
      )
    out = snt.merge_leading_dims(data, num_dims=2)
    new_states = []
    for layer, state in zip(self._layers, prev_states, strict=True):
      out, state = layer(out, state)
      new_states.append(state)
    return snt.split_leading_dim(out, data, num_dims=2), new_states


_LSTMState = tuple[tf.Tensor, tf.Tensor]  # hidden, cell: [N, Y] each


class _LSTMLayer(snt.RNNCore):
  """An LSTM with Sonnet 1's variables, gate order and initial values.

  Sonnet 2's `snt.LSTM` splits the weights, orders the gates i, f, g, o, and
  includes the forget bias in its variable; TF1 checkpoints use the form below
  (Sonnet 1: gated_rnn.py:100-290).
  """

  def __init__(self, hidden_size: int, name: str):
    super().__init__(name=name)
    self._hidden_size = hidden_size

  def initial_state(
    self, batch_size: int | tf.Tensor, **unused_kwargs: Any
  ) -> _LSTMState:
    zeros = tf.zeros([batch_size, self._hidden_size])
    return zeros, zeros

  def __call__(
    self, inputs: tf.Tensor, prev_state: _LSTMState
  ) -> tuple[tf.Tensor, _LSTMState]:
    """Args: inputs: [N, H]; prev_state: (hidden, cell), each [N, Y]."""
    prev_hidden, prev_cell = prev_state
    self._initialize(inputs)
    joined = tf.concat([inputs, prev_hidden], axis=1)
    gates = tf.matmul(joined, self.w_gates) + self.b_gates
    i, j, f, o = tf.split(gates, 4, axis=1)  # input, candidate, forget, output
    cell = tf.sigmoid(f + FORGET_BIAS) * prev_cell
    cell += tf.sigmoid(i) * tf.tanh(j)
    hidden = tf.tanh(cell) * tf.sigmoid(o)
    return hidden, (hidden, cell)

  @snt.once
  def _initialize(self, inputs: tf.Tensor) -> None:
    size = inputs.shape[-1] + self._hidden_size
    initializer = snt.initializers.TruncatedNormal(stddev=1 / math.sqrt(size))
    gates = 4 * self._hidden_size
    self.w_gates = tf.Variable(
      initializer([size, gates], inputs.dtype), name="w_gates"
    )
    self.b_gates = tf.Variable(
      initializer([gates], inputs.dtype), name="b_gates"
    )
