"""Priors of the layers of the hierarchy.

Dimensions: B batch, K slots, Z latent size, L layers.
"""

import iodine.quiet_tensorflow

from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from iodine.models import layers
from iodine.models.efficient_morl.gaussian import Gaussian

__all__ = ["PRIORS", "PriorNetwork", "layer_priors"]

# "reversed": p(z_l | z_l+1), from the last layer down; "reversed++": and of the
# refined posteriors p(z_0 | z_1); "bottom-up": p(z_l | z_l-1). The prior at the
# other end, and else of refined posteriors, is standard normal.
PRIORS = ("reversed++", "reversed", "bottom-up")

_HIDDEN_SIZE = 128


class PriorNetwork(snt.Module):
  """The prior of a layer's latent, given that of a neighbouring layer."""

  def __init__(self, n_z: int, init_gain: float, name: str = "prior"):
    """Makes a network without variables.

    Args:
      n_z: Z.
      init_gain: gain of the Glorot normal initial weights.
      name: name of the module.
    """
    super().__init__(name=name)

    def linear(size: int, name: str) -> snt.Linear:
      return snt.Linear(size, **layers.initializers(init_gain), name=name)

    self._hidden = linear(_HIDDEN_SIZE, "hidden")
    self._mean = linear(n_z, "mean")
    self._raw = linear(n_z, "raw")

  def __call__(self, z: tf.Tensor) -> Gaussian:
    """Computes the prior of every slot by itself, given z [B, K, Z]."""
    hidden = tf.nn.elu(self._hidden(z))
    return Gaussian(self._mean(hidden), self._raw(hidden))


def layer_priors(
  kind: str,
  posteriors: Sequence[Gaussian],
  network: PriorNetwork,
  noise: tf.Tensor,
) -> list[Gaussian | None]:
  """The priors of all layers, from new samples of the posteriors.

  Args:
    kind: of `PRIORS`.
    posteriors: of L layers, from the lowest on.
    network: computes the priors.
    noise: [L - 1, B, K, Z] float32, standard normal, of the samples: of the
      layers from the last down to the second, or from the first up.

  Returns:
    The prior of every layer; None: standard normal.
  """
  order = list(range(len(posteriors)))
  if kind != "bottom-up":
    order.reverse()
  priors: list[Gaussian | None] = [None] * len(order)
  for i, layer in enumerate(order[1:]):
    z = posteriors[order[i]].sample(noise[i])
    priors[layer] = network(z)
  return priors
