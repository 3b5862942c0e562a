"""A transformer that predicts tokens one after another, given slots.

That of SLATE (Singh, Deng & Ahn 2022, arXiv 2110.11405; code:
singhgautam/slate, transformer.py).

Dimensions: B batch, L length of a sequence, M length of what is attended to, K
slots, d size of the model, n attention heads.
"""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Sequence
from typing import NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine import random_numbers
from iodine.models import layers

__all__ = ["Dropout", "KeysValues", "TransformerDecoder"]

_WIDENING = 4  # of the feed-forward layer


class KeysValues(NamedTuple):
  """What is attended to.

  Attributes:
    keys: [B, n, M, d / n] float32.
    values: [B, n, M, d / n] float32.
  """

  keys: tf.Tensor
  values: tf.Tensor


class Dropout:
  """Dropout of one forward pass: repeatable, different at every call."""

  def __init__(self, rate: float = 0.0, seed: tf.Tensor | None = None):
    """Prepares a forward pass.

    Args:
      rate: share of the entries that become 0; the others are scaled up.
      seed: [2] int32; may be None with rate 0.
    """
    self._rate = rate
    self._seed = seed
    self._calls = 0

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    """Drops entries of a tensor of any shape."""
    if not self._rate:
      return x
    seed = random_numbers.fold_in(self._seed, self._calls)
    self._calls += 1
    return tf.nn.experimental.general_dropout(
      x, self._rate, lambda shape, dtype: random_numbers.uniform(shape, seed)
    )


class TransformerDecoder(snt.Module):
  """Blocks of causal self-attention, attention to slots, feed-forward layer.

  Layers are normalised at their inputs (pre-norm). As in the published code,
  the first block goes on from the normalised input, not from the input.
  """

  def __init__(
    self,
    num_blocks: int,
    d_model: int,
    num_heads: int,
    name: str = "transformer",
  ):
    """Makes a decoder without variables.

    Args:
      num_blocks: number of blocks.
      d_model: d.
      num_heads: n, a divisor of d.
      name: scope of the variables.
    """
    super().__init__(name=name)
    self._blocks = [
      _Block(d_model, num_heads, num_blocks, i == 0, name=f"block_{i}")
      for i in range(num_blocks)
    ]
    self._norm = _layer_norm("norm")
    self._cache_size = (num_heads, d_model // num_heads)

  def __call__(
    self, x: tf.Tensor, slots: tf.Tensor, dropout: Dropout
  ) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Decodes whole sequences.

    Args:
      x: [B, L, d] float32, embedded tokens.
      slots: [B, K, d] float32.
      dropout: of attention weights and of the layers' outputs.

    Returns:
      [B, L, d], of which entry i depends on x[:, :i + 1] only, and every
      block's output [B, L, d].
    """
    positions = tf.range(tf.shape(x)[1])
    visible = positions[:, tf.newaxis] >= positions
    outputs = []
    for block, seen in zip(self._blocks, self.see(slots), strict=True):
      normalized = block.normalize(x)
      own = block.self_attention.keys_values(normalized)
      x = block(x, normalized, own, seen, visible, dropout)
      outputs.append(x)
    return self._norm(x), outputs

  def see(self, slots: tf.Tensor) -> list[KeysValues]:
    """What each block attends to of the slots [B, K, d]."""
    return [block.cross_attention.keys_values(slots) for block in self._blocks]

  def empty_cache(self, batch: tf.Tensor, length: int) -> list[KeysValues]:
    """What each block remembers before the first token.

    Args:
      batch: [] int32, B.
      length: L, the most tokens that there will be.
    """
    heads, size = self._cache_size
    zeros = tf.zeros([batch, heads, length, size])
    return [KeysValues(zeros, zeros) for _ in self._blocks]

  def step(
    self,
    x: tf.Tensor,
    position: tf.Tensor,
    seen: Sequence[KeysValues],
    cache: Sequence[KeysValues],
  ) -> tuple[tf.Tensor, list[KeysValues]]:
    """Decodes one more token, without dropout.

    Args:
      x: [B, 1, d] float32, the embedded token.
      position: [] int32 from 0 on, its place in the sequence.
      seen: result of `see`.
      cache: what `step` returned for the token before.

    Returns:
      [B, 1, d], what `__call__` returns at this place, and the new cache.
    """
    length = cache[0].keys.shape[2]
    at_position = tf.range(length) == position
    visible = (tf.range(length) <= position)[tf.newaxis]
    new_cache = []
    for block, slots, old in zip(self._blocks, seen, cache, strict=True):
      normalized = block.normalize(x)
      own = block.self_attention.keys_values(normalized)
      own = KeysValues(
        *(
          tf.where(at_position[:, tf.newaxis], new, before)
          for new, before in zip(own, old, strict=True)
        )
      )
      x = block(x, normalized, own, slots, visible, Dropout())
      new_cache.append(own)
    return self._norm(x), new_cache


class _Block(snt.Module):
  """A block of the decoder."""

  def __init__(
    self,
    d_model: int,
    num_heads: int,
    num_blocks: int,
    is_first: bool,
    name: str,
  ):
    super().__init__(name=name)
    # Gain (3 * blocks)^-0.5 of the layers that add to the residual stream.
    output_init = layers.glorot_uniform((3 * num_blocks) ** -0.5)
    self._is_first = is_first
    self._self_norm = _layer_norm("self_attention_norm")
    self.self_attention = _Attention(
      d_model, num_heads, output_init, name="self_attention"
    )
    self._cross_norm = _layer_norm("cross_attention_norm")
    self.cross_attention = _Attention(
      d_model, num_heads, output_init, name="cross_attention"
    )
    self._ffn_norm = _layer_norm("ffn_norm")
    self._widen = snt.Linear(
      _WIDENING * d_model, w_init=layers.kaiming_uniform(), name="ffn_0"
    )
    self._narrow = snt.Linear(d_model, w_init=output_init, name="ffn_1")

  def normalize(self, x: tf.Tensor) -> tf.Tensor:
    """The input of self-attention."""
    return self._self_norm(x)

  def __call__(
    self,
    x: tf.Tensor,
    normalized: tf.Tensor,
    own: KeysValues,
    slots: KeysValues,
    visible: tf.Tensor,
    dropout: Dropout,
  ) -> tf.Tensor:
    """Args: x: [B, L, d]; normalized: `normalize(x)`; visible: [L, M] bool."""
    if self._is_first:
      x = normalized
    x += self.self_attention(normalized, own, dropout, visible)
    x += self.cross_attention(self._cross_norm(x), slots, dropout)
    hidden = tf.nn.relu(self._widen(self._ffn_norm(x)))
    return x + dropout(self._narrow(hidden))


class _Attention(snt.Module):
  """Attention of several heads, without biases."""

  def __init__(
    self,
    d_model: int,
    num_heads: int,
    output_init: snt.initializers.Initializer,
    name: str,
  ):
    super().__init__(name=name)
    self._num_heads = num_heads
    self._scale = (d_model // num_heads) ** -0.5

    def projection(w_init, name):
      return snt.Linear(d_model, with_bias=False, w_init=w_init, name=name)

    self._query = projection(layers.glorot_uniform(), "query")
    self._key = projection(layers.glorot_uniform(), "key")
    self._value = projection(layers.glorot_uniform(), "value")
    self._output = projection(output_init, "output")

  def keys_values(self, x: tf.Tensor) -> KeysValues:
    """Args: x: [B, M, d], what is attended to."""
    return KeysValues(self._split(self._key(x)), self._split(self._value(x)))

  def __call__(
    self,
    x: tf.Tensor,
    seen: KeysValues,
    dropout: Dropout,
    visible: tf.Tensor | None = None,
  ) -> tf.Tensor:
    """Args: x: [B, L, d]; visible: [L, M] bool. Returns: [B, L, d]."""
    queries = self._scale * self._split(self._query(x))
    scores = tf.matmul(queries, seen.keys, transpose_b=True)
    if visible is not None:
      scores = tf.where(visible, scores, -float("inf"))
    weights = dropout(tf.nn.softmax(scores))
    heads = tf.transpose(tf.matmul(weights, seen.values), [0, 2, 1, 3])
    joined = tf.reshape(heads, tf.shape(x))
    return dropout(self._output(joined))

  def _split(self, x: tf.Tensor) -> tf.Tensor:
    """[B, M, d] to [B, n, M, d / n]."""
    length, size = tf.shape(x)[1], x.shape[-1]
    x = tf.reshape(x, [-1, length, self._num_heads, size // self._num_heads])
    return tf.transpose(x, [0, 2, 1, 3])


def _layer_norm(name: str) -> snt.LayerNorm:
  return layers.layer_norm(1e-5, name)
