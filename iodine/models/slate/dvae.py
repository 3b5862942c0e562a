"""A discrete VAE: an image as a grid of tokens, each of 4 x 4 pixels.

The one of SLATE (Singh, Deng & Ahn 2022, arXiv 2110.11405; code:
singhgautam/slate, dvae.py), a small relative of that of DALL-E.

Dimensions: B batch, H height, W width, C channels, h = H / 4, w = W / 4, V size
of the vocabulary.
"""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Callable

import sonnet as snt
import tensorflow as tf

from iodine.models import layers

__all__ = ["DVAE", "PATCH", "gumbel_softmax"]

PATCH = 4  # pixels on each side of a token

_HIDDEN = 64
_UPSCALE = 2  # by each pixel shuffle


class DVAE(snt.Module):
  """Encoder to logits of tokens, and decoder from (soft) one-hot tokens.

  Layers are numbered as in the published code, where a pixel shuffle counts.
  """

  def __init__(self, vocab_size: int, name: str = "dvae"):
    """Makes a dVAE without variables.

    Args:
      vocab_size: V.
      name: scope of the variables.
    """
    super().__init__(name=name)
    self._encoder = [
      _Block(_HIDDEN, PATCH, PATCH, name="encoder_0"),
      *(_Block(_HIDDEN, name=f"encoder_{i}") for i in range(1, 7)),
      _convolution(vocab_size, name="encoder_7"),
    ]
    wide = _HIDDEN * _UPSCALE**2
    self._decoder: list[Callable[[tf.Tensor], tf.Tensor]] = [
      _Block(_HIDDEN, name="decoder_0"),
      _Block(_HIDDEN, 3, name="decoder_1"),
      _Block(_HIDDEN, name="decoder_2"),
      _Block(_HIDDEN, name="decoder_3"),
      _Block(wide, name="decoder_4"),
      layers.pixel_shuffle,
      _Block(_HIDDEN, 3, name="decoder_6"),
      _Block(_HIDDEN, name="decoder_7"),
      _Block(_HIDDEN, name="decoder_8"),
      _Block(wide, name="decoder_9"),
      layers.pixel_shuffle,
    ]

  def encode(self, image: tf.Tensor) -> tf.Tensor:
    """Computes the logits of tokens.

    Args:
      image: [B, H, W, C] float32 in [0, 1]; H and W are multiples of 4.

    Returns:
      [B, h, w, V] float32, not normalised.
    """
    net = image
    for layer in self._encoder:
      net = layer(net)
    return net

  def decode(self, tokens: tf.Tensor, num_channels: int) -> tf.Tensor:
    """Decodes tokens to an image.

    Args:
      tokens: [B, h, w, V] float32 in [0, 1], one-hot or a relaxation of it.
      num_channels: C, the same in every call.

    Returns:
      [B, H, W, C] float32, not bounded.
    """
    self._create_output(num_channels)
    net = tokens
    for layer in self._decoder:
      net = layer(net)
    return self._output(net)

  @snt.once
  def _create_output(self, num_channels: int) -> None:
    self._output = _convolution(num_channels, name="decoder_11")


class _Block(snt.Module):
  """Convolution without bias, normalisation of the whole example, ReLU."""

  def __init__(
    self, channels: int, kernel: int = 1, stride: int = 1, name: str = "block"
  ):
    super().__init__(name=name)
    self._conv = snt.Conv2D(
      channels,
      kernel,
      stride=stride,
      padding="SAME" if stride == 1 else "VALID",
      with_bias=False,
      w_init=layers.kaiming_uniform(),
      name="conv",
    )
    self._norm = snt.GroupNorm(1, name="norm")

  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(self._norm(self._conv(inputs)))


def _convolution(channels: int, name: str) -> snt.Conv2D:
  return snt.Conv2D(channels, 1, w_init=layers.glorot_uniform(), name=name)


def gumbel_softmax(
  log_probs: tf.Tensor,
  gumbel: tf.Tensor,
  temperature: tf.Tensor | float,
  hard: bool = False,
) -> tf.Tensor:
  """A differentiable sample of a categorical distribution.

  Args:
    log_probs: [..., V] float32, log-probabilities.
    gumbel: [..., V] float32, draws of a standard Gumbel distribution.
    temperature: [] float32 above 0.
    hard: whether the sample is one-hot. Its gradient is that of the relaxed one
      all the same (straight-through).

  Returns:
    [..., V] float32 in [0, 1], summing to 1.
  """
  relaxed = tf.nn.softmax((log_probs + gumbel) / temperature)
  if not hard:
    return relaxed
  one_hot = tf.one_hot(tf.argmax(relaxed, axis=-1), relaxed.shape[-1])
  return one_hot - tf.stop_gradient(relaxed) + relaxed
