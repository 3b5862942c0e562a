"""Symbols of objects: presence, place, depth and appearance, one set per cell.

Dimensions: B batch, N cells on each side, D features of a cell, K objects, A
size of an appearance (z_what).
"""

import iodine.quiet_tensorflow

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sonnet as snt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine import checks
from iodine.models import layers
from iodine.models.gnm.layers import Convolutions
from iodine.models.gnm.struct_draw import normal

__all__ = [
  "SymbolDistributions",
  "SymbolHead",
  "Symbols",
  "mean_symbols",
  "mode_symbols",
  "relaxed_bernoulli",
  "sample_symbols",
  "squashed_where",
]

_LOGIT_SCALE = 8.8
_WHERE_SIZE = 4
_WHERE_LIMIT = 0.01  # of initial weights
_SCALE_START = -1.0  # initial mean of a_scale
# Noise of presence stays so far from 0 and 1: float32's epsilon.
_UNIFORM_EPSILON = 1.1920929e-07


class SymbolDistributions(NamedTuple):
  """Distributions of the symbols of all cells.

  Attributes:
    presence: [B, N, N, 1] float32, logits.
    where: normal, [B, N, N, 4], of the place before `squashed_where`.
    depth: normal, [B, N, N, 1].
    what: normal, [B, N, N, A].
  """

  presence: tf.Tensor
  where: tfd.Normal
  depth: tfd.Normal
  what: tfd.Normal


class Symbols(NamedTuple):
  """Symbols, with the axes of `SymbolDistributions`.

  Attributes:
    presence: [B, N, N, 1] float32 in [0, 1].
    where: [B, N, N, 4] float32, before `squashed_where`.
    depth: [B, N, N, 1] float32.
    what: [B, N, N, A] float32.
  """

  presence: tf.Tensor
  where: tf.Tensor
  depth: tf.Tensor
  what: tf.Tensor


class SymbolHead(snt.Module):
  """Features of a cell to distributions of its symbols.

  The same network serves the posterior, from features of the image, and the
  prior, from the map of the global latent.
  """

  def __init__(
    self,
    output_channels: Sequence[int] = (128, 128),
    kernel_shapes: Sequence[int] = (1,),
    num_groups: Sequence[int] = (1,),
    name: str = "head",
  ):
    """Makes a head without variables.

    Args:
      output_channels: see `Convolutions`.
      kernel_shapes: see `Convolutions`.
      num_groups: see `Convolutions`.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    self._hidden = Convolutions(
      output_channels, kernel_shapes, num_groups=num_groups, name="hidden"
    )
    self._presence = _output(1, "presence")
    self._depth = _output(2, "depth")
    self._where = snt.Conv2D(
      2 * _WHERE_SIZE,
      1,
      w_init=snt.initializers.RandomUniform(-_WHERE_LIMIT, _WHERE_LIMIT),
      b_init=_where_bias,
      name="where",
    )

  def __call__(self, features: tf.Tensor, n_what: int) -> SymbolDistributions:
    """Computes distributions.

    Args:
      features: [B, N, N, D] float32.
      n_what: A, the same in every call.

    Returns:
      The distributions.
    """
    self._create_what(n_what)
    net = self._hidden(features)
    return SymbolDistributions(
      presence=_LOGIT_SCALE * tf.tanh(self._presence(net)),
      where=normal(self._where(net)),
      depth=normal(self._depth(net)),
      what=normal(self._what(net)),
    )

  @snt.once
  def _create_what(self, n_what: int) -> None:
    self._what = _output(2 * n_what, "what")


def _output(channels: int, name: str) -> snt.Conv2D:
  return snt.Conv2D(channels, 1, **layers.initializers("pytorch"), name=name)


def _where_bias(shape: Sequence[int], dtype: tf.DType) -> tf.Tensor:
  return tf.one_hot(0, shape[0], _SCALE_START, 0.0, dtype=dtype)


def relaxed_bernoulli(
  logits: tf.Tensor, uniform: tf.Tensor, temperature: tf.Tensor | float
) -> tf.Tensor:
  """A differentiable sample of a Bernoulli distribution.

  Args:
    logits: [...] float32.
    uniform: [...] float32 in [0, 1], uniform noise.
    temperature: [] float32 above 0.

  Returns:
    [...] float32 in [0, 1].
  """
  uniform = tf.clip_by_value(uniform, _UNIFORM_EPSILON, 1.0 - _UNIFORM_EPSILON)
  logistic = tf.math.log(uniform) - tf.math.log1p(-uniform)
  return tf.sigmoid((logits + logistic) / temperature)


def sample_symbols(
  distributions: SymbolDistributions,
  noise: Mapping[str, tf.Tensor],
  temperature: tf.Tensor | float,
) -> Symbols:
  """Draws symbols.

  Args:
    distributions: of the symbols.
    noise: pres_uniform [B, N, N, 1], uniform; where, depth and what, standard
      normal, with the shapes of `Symbols`.
    temperature: [] float32, of presence.

  Returns:
    The symbols.
  """

  def draw(name: str, distribution: tfd.Normal) -> tf.Tensor:
    return distribution.loc + distribution.scale * noise[name]

  return Symbols(
    presence=relaxed_bernoulli(
      distributions.presence, noise["pres_uniform"], temperature
    ),
    where=draw("where", distributions.where),
    depth=draw("depth", distributions.depth),
    what=draw("what", distributions.what),
  )


def mode_symbols(distributions: SymbolDistributions) -> Symbols:
  """The likeliest symbols: present or not, and means of the others."""
  present = tf.cast(distributions.presence > 0.0, tf.float32)
  return mean_symbols(distributions)._replace(presence=present)


def mean_symbols(distributions: SymbolDistributions) -> Symbols:
  """Probabilities of presence, and means of the others."""
  return Symbols(
    presence=tf.sigmoid(distributions.presence),
    where=distributions.where.loc,
    depth=distributions.depth.loc,
    what=distributions.what.loc,
  )


def squashed_where(where: tf.Tensor) -> tf.Tensor:
  """Boxes of objects, in the image's coordinates from -1 to 1.

  With a = (scale, ratio, x, y) of the cell in row i and column j:
  s = sigmoid(a_scale), r = exp(a_ratio); scales s / sqrt(r) and s sqrt(r);
  shift x = (2 / N) (j + 1 / 2 + tanh(a_x)) - 1, and so y with i. A box covers
  [shift - scale, shift + scale]; s is its side as a part of the image's.

  Args:
    where: [..., N, N, 4] float32.

  Returns:
    [..., N, N, 4] float32: scale x, scale y, shift x, shift y.

  Raises:
    ValueError: if the shape differs.
  """
  rows, columns = where.shape[-3:-1]
  checks.check(
    None
    if rows == columns and where.shape[-1] == _WHERE_SIZE
    else f"where has shape {list(where.shape)}, expected [..., N, N, 4]"
  )
  a_scale, a_ratio, a_x, a_y = tf.unstack(where, axis=-1)
  scale, root = tf.sigmoid(a_scale), tf.exp(a_ratio / 2.0)
  centres = tf.range(rows, dtype=tf.float32) + 0.5
  to_image = 2.0 / rows
  shift_x = to_image * (centres + tf.tanh(a_x)) - 1.0
  shift_y = to_image * (centres[:, tf.newaxis] + tf.tanh(a_y)) - 1.0
  return tf.stack([scale / root, scale * root, shift_x, shift_y], axis=-1)
