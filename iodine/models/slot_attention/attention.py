"""Slot attention: slots compete for the elements of a set.

Dimensions: B batch, N elements of the input set, C their size, T iterations,
K slots, D slot size, P heads, M hidden size of the MLP, H height and W width of
an image.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models import layers

__all__ = ["SlotAttention", "SlotUpdate", "attention_pictures"]

# "xavier": as "glorot", but mu and log sigma with the fans that PyTorch sees,
# and the MLP's first layer Kaiming uniform.
INITIAL_VALUES = (*layers.INITIAL_VALUES, "xavier")


class SlotUpdate(NamedTuple):
  """One iteration of slot attention.

  Attributes:
    q: [B, K, D] float32, queries before scaling.
    logits: [B, N, P * K], of the attention, head by head.
    attention: [B, N, P * K] float32, their softmax.
    log_weights: [B, N, P * K], logarithm of the weights of the means, before
      these are normalised over the elements.
    gru_output: [B, K, D].
    mlp_output: [B, K, D], added to the former.
    slots: [B, K, D], the updated slots.
  """

  q: tf.Tensor
  logits: tf.Tensor
  attention: tf.Tensor
  log_weights: tf.Tensor
  gru_output: tf.Tensor
  mlp_output: tf.Tensor
  slots: tf.Tensor


class SlotAttention(snt.Module):
  """The module of Locatello et al. 2020 (arXiv 2006.15055, algorithm 1).

  Slots start from noise. In every iteration the attention of each element is a
  softmax over the slots; a GRU and an MLP update each slot by the mean of the
  values that it attends to.

  Attributes:
    options: {argument: value}, those that weights depend on.
    num_iters: T, number of iterations.
  """

  num_iters: int

  def __init__(
    self,
    n_z: int,
    num_iters: int = 3,
    mlp_size: int = 128,
    num_heads: int = 1,
    norm_epsilon: float = 1e-3,
    attention_epsilon: float = 1e-8,
    train_initial_slots: bool = True,
    implicit: bool = False,
    with_saliency: bool = False,
    initial_values: str = "glorot",
    name: str = "slot_attention",
  ):
    """Makes a module; the defaults are those of Google's code.

    Args:
      n_z: D, size of a slot.
      num_iters: T, number of iterations.
      mlp_size: M, hidden size of the MLP after the GRU.
      num_heads: P, a divisor of D. With several heads, the softmax is over
        heads and slots together (SLATE).
      norm_epsilon: of the three layer norms; 1e-5 in PyTorch's versions.
      attention_epsilon: added to the attention before it is normalised over the
        elements.
      train_initial_slots: whether mean and deviation of the initial slots are
        trained; not in untitled-ai's version.
      implicit: whether gradients flow through one more iteration alone, from
        detached slots (Chang et al. 2022, arXiv 2207.00787; HHousen's version).
        The initial slots are not trained then.
      with_saliency: whether an element counts in the means by the exponential
        of a linear map of it, so that slots can ignore a background. Not of the
        paper.
      initial_values: "glorot": Google's; "pytorch": PyTorch's defaults
        (untitled-ai); "xavier": SLATE's and HHousen's.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(n_z=n_z, mlp_size=mlp_size, num_heads=num_heads)
    checks.check(
      checks.above_zero_fault("norm_epsilon", norm_epsilon),
      checks.above_zero_fault("attention_epsilon", attention_epsilon),
    )
    checks.check_flags(
      train_initial_slots=train_initial_slots,
      implicit=implicit,
      with_saliency=with_saliency,
    )
    checks.check(
      checks.choice_fault("initial_values", initial_values, INITIAL_VALUES)
    )
    if n_z % num_heads:
      raise ValueError(f"num_heads={num_heads}: must divide n_z={n_z}")
    self.options = {
      "n_z": n_z,
      "mlp_size": mlp_size,
      "norm_epsilon": norm_epsilon,
      "implicit": implicit,
    }
    self._size = n_z
    self.set_num_iters(num_iters)
    self._num_heads = num_heads
    self._attention_epsilon = attention_epsilon
    self._implicit = implicit
    self._trains_initial_slots = train_initial_slots and not implicit
    self._initial_values = initial_values
    of_layers = "pytorch" if initial_values == "pytorch" else "glorot"

    def projection(name: str) -> snt.Linear:
      weights = layers.initializers(of_layers)["w_init"]
      return snt.Linear(n_z, with_bias=False, w_init=weights, name=name)

    self._norm_inputs = layers.layer_norm(norm_epsilon, "norm_inputs")
    self._norm_slots = layers.layer_norm(norm_epsilon, "norm_slots")
    self._norm_mlp = layers.layer_norm(norm_epsilon, "norm_mlp")
    self._project_q = projection("project_q")
    self._project_k = projection("project_k")
    self._project_v = projection("project_v")
    self._saliency = None
    if with_saliency:
      values = layers.initializers(of_layers)
      self._saliency = snt.Linear(1, **values, name="saliency")
    self._gru = layers.GRU(n_z, of_layers)
    first = layers.initializers(of_layers)
    if initial_values == "xavier":
      first = {"w_init": layers.kaiming_uniform()}
    self._mlp = [
      snt.Linear(mlp_size, **first, name="mlp_0"),
      snt.Linear(n_z, **layers.initializers(of_layers), name="mlp_1"),
    ]

  def set_num_iters(self, num_iters: int) -> None:
    """Sets the number of iterations.

    Raises:
      ValueError: if it is out of range.
    """
    checks.check(
      checks.size_fault("num_iters", num_iters, most=checks.MOST_ITERS)
    )
    self.num_iters = num_iters

  @property
  def num_updates(self) -> int:
    """Number of updates of the slots: T, and one more if implicit."""
    return self.num_iters + self._implicit

  @property
  def num_heads(self) -> int:
    """P, number of heads."""
    return self._num_heads

  def __call__(self, inputs: tf.Tensor, noise: tf.Tensor) -> list[SlotUpdate]:
    """Binds slots to a set.

    Args:
      inputs: [B, N, C] float32.
      noise: [B, K, D] float32, standard normal noise of the initial slots.

    Returns:
      `num_updates` updates, the last of which has the result.
    """
    k, v = map(self._heads, self.keys_and_values(inputs))
    saliency = self._log_saliency(inputs)
    slots = self.initial_slots(noise)
    updates = []
    for iteration in range(self.num_updates):
      if self._implicit and iteration == self.num_updates - 1:
        slots = tf.stop_gradient(slots)
      updates.append(self._update(slots, k, v, saliency))
      slots = updates[-1].slots
    return updates

  def initial_slots(self, noise: tf.Tensor) -> tf.Tensor:
    """Slots before the first iteration: noise [B, K, D] to [B, K, D]."""
    self._create_initial_slots()
    return self.slots_mu + tf.exp(self.slots_log_sigma) * noise

  def keys_and_values(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Keys and values [B, N, D] of inputs [B, N, C]."""
    inputs = self._norm_inputs(inputs)
    return self._project_k(inputs), self._project_v(inputs)

  def _log_saliency(self, inputs: tf.Tensor) -> tf.Tensor | None:
    """[B, N, 1], at most 0, of inputs [B, N, C]."""
    if self._saliency is None:
      return None
    saliency = self._saliency(inputs)
    # Only ratios count, and exponentials of these do not overflow.
    return saliency - tf.stop_gradient(
      tf.reduce_max(saliency, axis=1, keepdims=True)
    )

  def _update(
    self,
    slots: tf.Tensor,
    k: tf.Tensor,
    v: tf.Tensor,
    saliency: tf.Tensor | None,
  ) -> SlotUpdate:
    """One iteration.

    Args:
      slots: [B, K, D].
      k: keys, [B, P, N, D / P].
      v: values, likewise.
      saliency: [B, N, 1], or None.
    """
    q = self._project_q(self._norm_slots(slots))
    scale = (self._size // self._num_heads) ** -0.5
    logits = tf.linalg.matmul(k, self._heads(q * scale), transpose_b=True)
    logits = _joined(logits)
    attention = tf.nn.softmax(logits)
    weights = attention + self._attention_epsilon
    log_weights = tf.math.log(weights)
    if saliency is not None:
      weights *= tf.exp(saliency)
      log_weights += saliency
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = _split(weights, self._num_heads)
    means = _joined(tf.linalg.matmul(weights, v, transpose_a=True))
    gru_output = self._gru(means, slots)
    hidden = tf.nn.relu(self._mlp[0](self._norm_mlp(gru_output)))
    mlp_output = self._mlp[1](hidden)
    return SlotUpdate(
      q=q,
      logits=logits,
      attention=attention,
      log_weights=log_weights,
      gru_output=gru_output,
      mlp_output=mlp_output,
      slots=gru_output + mlp_output,
    )

  def _heads(self, x: tf.Tensor) -> tf.Tensor:
    """[B, N, D] to [B, P, N, D / P]."""
    return _split(x, self._num_heads)

  @snt.once
  def _create_initial_slots(self) -> None:
    size = self._size
    # Keras sees 1 and D as the fans of [1, 1, D], PyTorch D and D.
    fans = 1 + size if self._initial_values == "glorot" else 2 * size
    bound = math.sqrt(6.0 / fans)
    for name in ("slots_mu", "slots_log_sigma"):
      value = tf.random.uniform([1, 1, size], -bound, bound)
      variable = tf.Variable(
        value, trainable=self._trains_initial_slots, name=name
      )
      setattr(self, name, variable)


def _split(x: tf.Tensor, num_heads: int) -> tf.Tensor:
  """Heads as an axis of their own: [B, N, P * n] to [B, P, N, n]."""
  if num_heads == 1:
    return tf.expand_dims(x, 1)
  length, size = x.shape[1:]
  x = tf.reshape(x, [-1, length, num_heads, size // num_heads])
  return tf.transpose(x, [0, 2, 1, 3])


def _joined(x: tf.Tensor) -> tf.Tensor:
  """The inverse: [B, P, N, n] to [B, N, P * n]."""
  num_heads, length, size = x.shape[1:]
  if num_heads == 1:
    return tf.squeeze(x, 1)
  x = tf.transpose(x, [0, 2, 1, 3])
  return tf.reshape(x, [-1, length, num_heads * size])


def attention_pictures(
  attention: Sequence[tf.Tensor],
  num_slots: int,
  grid: Sequence[int],
  image_size: Sequence[int],
) -> tf.Tensor:
  """The share of every element that each slot gets, as pictures.

  Args:
    attention: T results of iterations, [B, N, P * K] float32, head by head, of
      the elements of a feature map.
    num_slots: K.
    grid: (h, w), size of the feature map, N = h * w.
    image_size: (H, W), size of the pictures.

  Returns:
    [B, T, K, H, W, 1] float32 in [0, 1], summing to 1 over K; shares of heads
    are added, features repeated (nearest neighbours).
  """
  shares = tf.stack(list(attention), axis=1)
  steps, elements, maps = shares.shape[1:]
  shares = tf.reshape(
    shares, [-1, steps, elements, maps // num_slots, num_slots]
  )
  shares = tf.transpose(tf.reduce_sum(shares, axis=3), [0, 1, 3, 2])
  pictures = tf.reshape(shares, [-1, *grid, 1])
  if tuple(grid) != tuple(image_size):
    pictures = tf.image.resize(pictures, image_size, "nearest")
  return tf.reshape(pictures, [-1, steps, num_slots, *image_size, 1])
