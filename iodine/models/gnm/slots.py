"""A slot's latent: an object or a background as one vector, in plain terms.

It holds all that is needed to draw the slot, in any scene: [whether it is a
background, presence, scale x, scale y, shift x, shift y, depth, code]. The code
is an object's appearance or a background's latent, with zeros at the end if it
is the shorter one. A background covers the image: presence 1, scales 1, shifts
and depth 0.

Dimensions: N scenes, K slots, A and G sizes of an appearance and a background's
latent, Z = 7 + max(A, G).
"""

import iodine.quiet_tensorflow

from typing import NamedTuple

import tensorflow as tf

from iodine.models.gnm import symbols
from iodine.models.gnm.autoencoder import flat, objects_of
from iodine.models.gnm.background import BackgroundLatent
from iodine.models.gnm.renderer import Objects
from iodine.models.gnm.symbols import SymbolDistributions

__all__ = ["PLACE", "Slots", "moments", "pack", "places", "size", "unpack"]

_BACKGROUND = (1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
_NUM_SYMBOLS = len(_BACKGROUND)
PLACE = (4, 5)  # entries of shift x and y


class Slots(NamedTuple):
  """Slots, each of which may be an object or a background.

  Attributes:
    is_background: [N, K, 1] float32 in [0, 1].
    objects: with presence 0 where they are none.
    background: [N, K, G] float32.
  """

  is_background: tf.Tensor
  objects: Objects
  background: tf.Tensor


def size(n_what: int, n_background: int) -> int:
  """Z; n_background is 0 where there is no background."""
  return _NUM_SYMBOLS + max(n_what, n_background)


def pack(
  objects: Objects, background: tf.Tensor | None, fill: bool = True
) -> tf.Tensor:
  """Latents of scenes.

  Args:
    objects: K objects.
    background: [N, G] float32; None: no background.
    fill: whether the background's plain symbols are those of a background;
      else they are 0, as their deviations are.

  Returns:
    [N, K, Z] or, with a background, which comes last, [N, K + 1, Z].
  """
  flags = tf.zeros_like(objects.presence)
  z = tf.concat([flags, *objects], axis=-1)
  if background is None:
    return z
  whole = size(objects.what.shape[-1], background.shape[-1])
  symbols = tf.constant(_BACKGROUND if fill else [0.0] * _NUM_SYMBOLS)
  symbols = tf.tile(symbols[tf.newaxis], [tf.shape(background)[0], 1])
  last = tf.concat([symbols, background], axis=-1)

  def padded(x: tf.Tensor) -> tf.Tensor:
    return tf.pad(x, [*[[0, 0]] * (x.shape.rank - 1), [0, whole - x.shape[-1]]])

  return tf.concat([padded(z), padded(last)[:, tf.newaxis]], axis=1)


def unpack(z: tf.Tensor, n_what: int, n_background: int) -> Slots:
  """What latents stand for.

  Args:
    z: [N, K, Z] float32.
    n_what: A.
    n_background: G; 0 where there is no background.

  Returns:
    The slots.
  """
  flags, presence, where, depth, code = tf.split(
    z, [1, 1, 4, 1, z.shape[-1] - _NUM_SYMBOLS], axis=-1
  )
  objects = Objects(
    presence * (1.0 - flags),
    where,
    depth,
    code[..., :n_what],
  )
  return Slots(flags, objects, code[..., :n_background])


def places(z: tf.Tensor) -> dict[str, tf.Tensor]:
  """Where slots are.

  Args:
    z: [N, K, Z] float32.

  Returns:
    boxes: [N, K, 4], left, top, right and bottom, from 0 to 1 in the image;
    presence: [N, K], of an object; depth: [N, K].
  """
  flags, presence, scale_x, scale_y, x, y, depth = tf.unstack(
    z[..., :_NUM_SYMBOLS], axis=-1
  )
  edges = (x - scale_x, y - scale_y, x + scale_x, y + scale_y)
  return {
    "boxes": (tf.stack(edges, axis=-1) + 1.0) / 2.0,
    "presence": presence * (1.0 - flags),
    "depth": depth,
  }


def moments(
  posterior: SymbolDistributions, background: BackgroundLatent | None
) -> tuple[tf.Tensor, tf.Tensor]:
  """Means and deviations of the latents of scenes.

  Args:
    posterior: of the symbols of N x N cells.
    background: with a posterior; None: no background.

  Returns:
    [B, K, Z] each: probabilities of presence and means of the others, squashed
    where they are; their standard deviations, to first order where squashed.
  """
  loc = scale = None
  if background is not None and background.posterior is not None:
    loc, scale = background.posterior.loc, background.posterior.scale
  means = objects_of(symbols.mean_symbols(posterior))
  where = posterior.where
  # Of s = sigmoid(a): ds / s = (1 - s) da; of exp(a / 2): half of da.
  relative = tf.sqrt(
    tf.square((1.0 - tf.sigmoid(where.loc[..., :1])) * where.scale[..., :1])
    + tf.square(where.scale[..., 1:2] / 2.0)
  )
  num_cells = where.loc.shape[1]
  slopes = (1.0 - tf.square(tf.tanh(where.loc[..., 2:]))) * 2.0 / num_cells
  deviations = Objects(
    presence=tf.sqrt(means.presence * (1.0 - means.presence)),
    where=tf.concat(
      [
        means.where[..., :2] * flat(relative),
        flat(slopes * where.scale[..., 2:]),
      ],
      axis=-1,
    ),
    depth=flat(posterior.depth.scale),
    what=flat(posterior.what.scale),
  )
  return pack(means, loc), pack(deviations, scale, fill=False)
