"""SLATE: slots of a grid of tokens, decoded to tokens by a transformer."""

from __future__ import annotations

import iodine.quiet_tensorflow

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checks, random_numbers
from iodine.models import layers
from iodine.models.noise import slot_noise, split_seed
from iodine.models.slate import weights
from iodine.models.slate.dvae import DVAE, PATCH, gumbel_softmax
from iodine.models.slate.transformer import Dropout, TransformerDecoder
from iodine.models.slot_attention.attention import (
  SlotAttention,
  SlotUpdate,
  attention_pictures,
)
from iodine.scene_model import Composition, Loss, SceneModel

__all__ = ["SLATE"]

_NORM_EPSILON = 1e-5
_NUM_TOKEN_DRAWS = 2  # one for the dVAE, one for the transformer


class _Reading(NamedTuple):
  """What slot attention makes of tokens."""

  embeddings: tf.Tensor  # [B, N + 1, d]
  inputs: tf.Tensor  # [B, N, d], of slot attention
  updates: list[SlotUpdate]  # S


class SLATE(SceneModel):
  """SLot Attention TransformEr (arXiv 2110.11405).

  A discrete VAE turns an image into a grid of tokens. Slot attention groups
  the tokens into slots, and a transformer that sees the slots predicts the
  tokens in turn. The dVAE is trained by its own squared error alone, everything
  else by the cross entropy of the tokens alone. (code: singhgautam/slate.)

  Slots have no pictures or masks of their own: masks are those of slot
  attention, one value for 4 x 4 pixels.

  Dimensions: B batch, N = H / 4 * W / 4 tokens, V vocabulary, d size of the
  transformer, K slots, D = n_z size of a slot, S slot updates.

  Attributes:
    dvae: the discrete VAE.
  """

  about = (
    "SLATE turns an image into a grid of tokens. Slots compete for the tokens "
    "by attention, and a transformer predicts the tokens from the slots, one "
    "after another. Masks show what each slot attended to."
  )

  def __init__(
    self,
    n_z: int = 192,
    num_components: int = 3,
    num_iters: int = 3,
    vocab_size: int = 1024,
    d_model: int = 192,
    num_heads: int = 4,
    num_blocks: int = 4,
    dropout: float = 0.1,
    mlp_size: int = 192,
    num_slot_heads: int = 1,
    hard: bool = False,
    tau_start: float = 1.0,
    tau_final: float = 0.1,
    tau_steps: int = 30_000,
    implicit: bool = False,
    name: str = "slate",
  ):
    """Makes a model; the first call creates the variables.

    The defaults are those of the published code, for 3D Shapes.

    Args:
      n_z: D, size of a slot.
      num_components: K, number of slots.
      num_iters: number of slot updates.
      vocab_size: V, number of tokens.
      d_model: d, size of the transformer and of embedded tokens.
      num_heads: number of the transformer's attention heads, a divisor of d.
      num_blocks: number of the transformer's blocks.
      dropout: share of entries that training drops in the transformer.
      mlp_size: hidden size of slot attention's MLP.
      num_slot_heads: number of slot attention's heads, a divisor of D.
      hard: whether the dVAE decodes one-hot tokens in training, with
        straight-through gradients, or relaxed ones.
      tau_start: temperature of the relaxed tokens at step 0.
      tau_final: temperature from step `tau_steps` on.
      tau_steps: number of steps over which the temperature falls, as a cosine.
      implicit: whether one more slot update follows, through which alone
        gradients flow (Chang, Griffiths & Levine 2022, arXiv 2207.00787), as in
        HHousen/object-discovery-pytorch.
      name: scope of the variables.

    Raises:
      ValueError: for values out of range, or sizes that heads do not divide.
    """
    super().__init__(name=name)
    checks.check_sizes(
      n_z=n_z,
      num_components=num_components,
      vocab_size=vocab_size,
      d_model=d_model,
      num_heads=num_heads,
      num_blocks=num_blocks,
      mlp_size=mlp_size,
      num_slot_heads=num_slot_heads,
    )
    checks.check(
      checks.share_fault("dropout", dropout),
      checks.above_zero_fault("tau_start", tau_start),
      checks.above_zero_fault("tau_final", tau_final),
      checks.int_fault("tau_steps", tau_steps, 1),
    )
    checks.check_flags(hard=hard, implicit=implicit)
    checks.check(
      checks.multiple_fault("d_model", d_model, "num_heads", num_heads),
      checks.multiple_fault("n_z", n_z, "num_slot_heads", num_slot_heads),
    )
    self.n_z = n_z
    self.num_components = num_components
    self._options = {
      "n_z": n_z,
      "model.vocab_size": vocab_size,
      "model.d_model": d_model,
      "model.num_blocks": num_blocks,
      "model.mlp_size": mlp_size,
      "model.implicit": implicit,
    }
    self._vocab_size = vocab_size
    self._d_model = d_model
    self._dropout = dropout
    self._hard = hard
    self._tau_start = tau_start
    self._tau_final = tau_final
    self._tau_steps = tau_steps
    self.dvae = DVAE(vocab_size)
    xavier, kaiming = layers.glorot_uniform(), layers.kaiming_uniform()
    self._input_norm = layers.layer_norm(_NORM_EPSILON, "input_norm")
    self._input_mlp = [
      snt.Linear(d_model, w_init=kaiming, name="input_mlp_0"),
      tf.nn.relu,
      snt.Linear(d_model, w_init=xavier, name="input_mlp_1"),
    ]
    self._slot_attention = SlotAttention(
      n_z,
      num_iters,
      mlp_size,
      num_heads=num_slot_heads,
      norm_epsilon=_NORM_EPSILON,
      implicit=implicit,
      initial_values="xavier",
    )
    self.set_num_iters(num_iters)
    self._slot_projection = snt.Linear(
      d_model, with_bias=False, w_init=xavier, name="slot_projection"
    )
    self._transformer = TransformerDecoder(num_blocks, d_model, num_heads)
    self._to_logits = snt.Linear(
      vocab_size, with_bias=False, w_init=xavier, name="to_logits"
    )
    self._grid_shape: tuple[int, int] | None = None
    # On CPUs, XLA makes one program of the many small operations for a token.
    # On GPUs, it would need parts of CUDA that are often not there.
    self._compiled_generate = tf.function(
      self._generate,
      autograph=False,
      jit_compile=not tf.config.list_physical_devices("GPU"),
    )

  def set_num_iters(self, num_iters: int) -> None:
    """Sets the number of slot updates, see `SceneModel.set_num_iters`."""
    self._slot_attention.set_num_iters(num_iters)
    self.num_iters = num_iters
    self.num_steps = self._slot_attention.num_updates

  # --- The contract -----------------------------------------------------------

  def noise(self, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
    """Draws the noise of B scenes that evaluation needs, see `SceneModel`.

    Args:
      rngs: B generators.

    Returns:
      slots: [1, B, K, D] float32, standard normal, of the initial slots.
    """
    shape = (1, self.num_components, self.n_z)
    slots = [rng.standard_normal(shape, np.float32) for rng in rngs]
    return {"slots": np.stack(slots, axis=1)}

  def __call__(
    self,
    data: Mapping[str, Any],
    noise: Mapping[str, Any] | None = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | None = None,
  ) -> Loss:
    """Computes the training loss: squared error plus cross entropy.

    Args:
      data: see `SceneModel.__call__`; H and W are multiples of 4.
      noise: slots, see `noise`, and, optionally, gumbel [2, B, h, w, V]
        float32, standard Gumbel, with h = H / 4 and w = W / 4: for the tokens
        that the dVAE decodes, and for those that the transformer learns.
      seed: [2] int32 seed of the noise, unless given, and of dropout; None: not
        repeatable.
      step: [] int64, number of previous training steps, for the temperature.

    Returns:
      total: loss/mse_sum + loss/cross_entropy;
      scalars: loss/total, loss/mse_sum (squared error of the dVAE, summed over
        an image), loss/cross_entropy (nats, summed over an image's tokens),
        both averaged over the batch; loss/mse, loss/ari, loss/ari_nobg
        (`SceneModel.scores`); tau, the temperature;
      iterations: dvae_logits [B, h, w, V], codes [B, h, w, V] (what the dVAE
        decodes), recons [B, H, W, C] (not bounded), tokens [B, N] int64,
        embeddings [B, N + 1, d], inputs [B, N, d] (of slot attention), updates
        (S `SlotUpdate`s), slots_projected [B, K, d], blocks (of the
        transformer, [B, N, d]), decoded [B, N, d], logits [B, N, V].

    Raises:
      ValueError: see `SceneModel.__call__`; if 4 does not divide H and W, or
        they are not those of the first call.
    """
    data = self.check_data(data)
    image = self._image(data)
    seeds = split_seed(seed, 3)
    gumbel = self._gumbel(noise, seeds[0], image)
    tau = self._tau(step)
    dvae_logits = self.dvae.encode(image)
    log_probs = tf.nn.log_softmax(dvae_logits)
    codes = gumbel_softmax(log_probs, gumbel[0], tau, self._hard)
    recons = self.dvae.decode(codes, image.shape[-1])
    mse_sum = _sum_of_image(tf.square(image - recons))

    tokens = _flat_argmax(log_probs + gumbel[1])
    dropout = Dropout(self._dropout, seeds[2])
    reading = self._read(
      tokens, self._slot_noise(noise, seeds[1], image), dropout
    )
    slots = self._slot_projection(reading.updates[-1].slots)
    decoded, blocks = self._transformer(
      reading.embeddings[:, :-1], slots, dropout
    )
    logits = self._to_logits(decoded)
    cross_entropy = _sum_of_image(
      tf.nn.sparse_softmax_cross_entropy_with_logits(tokens, logits)
    )
    total = mse_sum + cross_entropy
    masks = self._masks(reading.updates[-1:])[:, 0]
    scalars = {
      "loss/total": total,
      "loss/mse_sum": mse_sum,
      "loss/cross_entropy": cross_entropy,
      "tau": tau,
      **self.scores(image[:, tf.newaxis], recons[:, tf.newaxis], masks, data),
    }
    iterations = {
      "dvae_logits": dvae_logits,
      "codes": codes,
      "recons": recons,
      "tokens": tokens,
      **reading._asdict(),
      "slots_projected": slots,
      "blocks": blocks,
      "decoded": decoded,
      "logits": logits,
    }
    return Loss(total, scalars, iterations)

  def infer(
    self,
    data: Mapping[str, Any],
    noise: Mapping[str, Any] | None = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Runs the model on a batch, see `SceneModel.infer`.

    Tokens are the likeliest ones, nothing is dropped. Step s is slot update s.
    The reconstruction is that of the dVAE, the same at every step; a slot's
    picture is the image on white where its mask is low. `outputs.attention` is
    `outputs.pred_mask`.

    Args:
      data: see `__call__`.
      noise: see `noise`; only the slots' is used.
      seed: [2] int32 seed of the slots' noise.
    """
    data = self.check_data(data)
    image = self._image(data)
    tokens = _flat_argmax(self.dvae.encode(image))
    recons = self._picture(tokens)
    slot_noise = self._slot_noise(noise, split_seed(seed, 1)[0], image)
    reading = self._read(tokens, slot_noise, Dropout())
    masks = self._masks(reading.updates)
    steps = self.num_steps
    slots = [update.slots for update in reading.updates]
    return {
      "data": self.data_entry(data),
      "outputs": {
        "recons": tf.repeat(recons[:, tf.newaxis, tf.newaxis], steps, axis=1),
        "pred_mask": masks,
        "attention": masks,
        "components": image[:, tf.newaxis, tf.newaxis] * masks + 1.0 - masks,
      },
      "latent": {"z": tf.stack(slots, axis=1)},
    }

  def compose(self, z: tf.Tensor) -> Composition:
    """Renders scenes from slots: the likeliest tokens, one after another.

    Args:
      z: [N, K, D] float32, slots, such as `latent.z` of the last step; K may be
        any number.

    Returns:
      recons [N, H, W, C] float32 in [0, 1]; no masks.

    Raises:
      ValueError: if the image's size is not known yet.
    """
    checks.check_shapes({"z": (z, f"N K {self.n_z}")})
    self._grid()
    return Composition(self._picture(self._compiled_generate(z)))

  def published_weights(
    self, values: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray] | None:
    """Translates checkpoints of singhgautam/slate and of HHousen's version."""
    own = {**self._options, "tokens": math.prod(self._grid())}
    return weights.translate(values, own, self.variables)

  # --- Parts ------------------------------------------------------------------

  def _image(self, data: Mapping[str, Any]) -> tf.Tensor:
    """The first frame [B, H, W, C]; may create what depends on its size."""
    image = data["image"][:, 0]
    height, width = image.shape[1:3]
    checks.check(
      checks.multiple_fault("height", height, "the side of a token", PATCH),
      checks.multiple_fault("width", width, "the side of a token", PATCH),
    )
    self._create_embeddings(height // PATCH, width // PATCH)
    grid = self._grid()
    if grid != (height // PATCH, width // PATCH):
      raise ValueError(
        f"image: {height} x {width} pixels, but the model has positions for "
        f"images of {grid[0] * PATCH} x {grid[1] * PATCH}, as it was first "
        "called with"
      )
    return image

  @snt.once
  def _create_embeddings(self, height: int, width: int) -> None:
    """Token 0 begins a sequence; token t of the dVAE is t + 1."""
    self._grid_shape = (height, width)
    table = tf.random.normal([self._vocab_size + 1, self._d_model])
    self._embedding = tf.Variable(table, name="embedding")
    shape = [1, height * width + 1, self._d_model]
    self._positions = tf.Variable(
      tf.random.truncated_normal(shape), name="positions"
    )

  def _grid(self) -> tuple[int, int]:
    """(h, w), the numbers of tokens."""
    if self._grid_shape is None:
      raise ValueError(
        "the number of tokens is unknown; call the model or `initialize` first"
      )
    return self._grid_shape

  def _tau(self, step: tf.Tensor | None) -> tf.Tensor:
    """The temperature, a cosine from start to final."""
    step = 0 if step is None else step
    progress = tf.minimum(tf.cast(step, tf.float32) / self._tau_steps, 1.0)
    middle = (self._tau_start + self._tau_final) / 2
    amplitude = (self._tau_start - self._tau_final) / 2
    return amplitude * tf.cos(math.pi * progress) + middle

  def _gumbel(
    self, noise: Mapping[str, Any] | None, seed: tf.Tensor, image: tf.Tensor
  ) -> tf.Tensor:
    """The two draws [2, B, h, w, V] of tokens."""
    shape = (*self._grid(), self._vocab_size)
    if noise is not None and "gumbel" in noise:
      dims = " ".join(map(str, (_NUM_TOKEN_DRAWS, "B", *shape)))
      gumbel = tf.convert_to_tensor(noise["gumbel"])
      checks.check_shapes(
        {"image": (image, "B _ _ _"), "noise['gumbel']": (gumbel, dims)}
      )
      return gumbel
    # Not 0, whose Gumbel draw is not finite.
    sizes = [_NUM_TOKEN_DRAWS, tf.shape(image)[0], *shape]
    uniform = tf.maximum(
      random_numbers.uniform(sizes, seed), np.finfo(np.float32).tiny
    )
    return -tf.math.log(-tf.math.log(uniform))

  def _slot_noise(
    self, noise: Mapping[str, Any] | None, seed: tf.Tensor, image: tf.Tensor
  ) -> tf.Tensor:
    """Standard normal [B, K, D]."""
    given = None if noise is None else noise["slots"]
    return slot_noise(image, self.num_components, self.n_z, given, seed)[0]

  def _embed(self, tokens: tf.Tensor) -> tf.Tensor:
    """Tokens [B, N] of the dVAE to [B, N + 1, d], with positions."""
    sequence = tf.pad(tokens + 1, [[0, 0], [1, 0]])
    return tf.gather(self._embedding, sequence) + self._positions

  def _read(
    self, tokens: tf.Tensor, noise: tf.Tensor, dropout: Dropout
  ) -> _Reading:
    """Infers slots from tokens [B, N]."""
    embeddings = dropout(self._embed(tokens))
    inputs = self._input_norm(embeddings[:, 1:])
    for layer in self._input_mlp:
      inputs = layer(inputs)
    return _Reading(embeddings, inputs, self._slot_attention(inputs, noise))

  def _masks(self, updates: Sequence[SlotUpdate]) -> tf.Tensor:
    """Attention as masks [B, S, K, H, W, 1]."""
    grid = self._grid()
    size = (grid[0] * PATCH, grid[1] * PATCH)
    attention = [update.attention for update in updates]
    return attention_pictures(attention, self.num_components, grid, size)

  def _picture(self, tokens: tf.Tensor) -> tf.Tensor:
    """The dVAE's image [B, H, W, C] of tokens [B, N], within [0, 1]."""
    tokens = tf.reshape(tokens, [-1, *self._grid()])
    recons = self.dvae.decode(
      tf.one_hot(tokens, self._vocab_size), self.image_shape[-1]
    )
    return tf.clip_by_value(recons, 0.0, 1.0)

  def _generate(self, z: tf.Tensor) -> tf.Tensor:
    """Predicts the tokens [N, L] of slots [N, K, D], the likeliest in turn."""
    seen = self._transformer.see(self._slot_projection(z))
    length = math.prod(self._grid())
    batch = tf.shape(z)[0]

    def predict(position, token, tokens, cache):
      """From the token before, which is 0 at the beginning."""
      x = tf.gather(self._embedding, token) + self._positions[:, position]
      decoded, cache = self._transformer.step(
        x[:, tf.newaxis], position, seen, cache
      )
      token = tf.argmax(self._to_logits(decoded[:, 0]), -1, tf.int32)
      return position + 1, token + 1, tokens.write(position, token), cache

    first = tf.zeros([batch], tf.int32)
    _, _, tokens, _ = tf.while_loop(
      lambda position, *_: position < length,
      predict,
      (
        tf.constant(0),
        first,
        tf.TensorArray(tf.int32, length, element_shape=first.shape),
        self._transformer.empty_cache(batch, length),
      ),
      maximum_iterations=length,
    )
    return tf.transpose(tokens.stack())


def _flat_argmax(logits: tf.Tensor) -> tf.Tensor:
  """[B, h, w, V] to [B, h * w] int64, row by row."""
  tokens = tf.argmax(logits, axis=-1)
  return tf.reshape(tokens, [-1, math.prod(tokens.shape[1:])])


def _sum_of_image(x: tf.Tensor) -> tf.Tensor:
  """Sum of each image's entries [B, ...], averaged over the batch."""
  return tf.reduce_mean(tf.reduce_sum(x, axis=list(range(1, x.shape.rank))))
