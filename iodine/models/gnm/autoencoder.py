"""From images to latents, and from latents to images.

Dimensions: B batch, N cells on each side, D features of a cell, A size of an
appearance, K objects, H height, W width, C channels, h side of a glimpse.
"""

import iodine.quiet_tensorflow

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models.gnm import renderer, symbols
from iodine.models.gnm.background import Background, BackgroundLatent
from iodine.models.gnm.decoder import PictureDecoder
from iodine.models.gnm.encoder import ImageEncoder
from iodine.models.gnm.renderer import Covering, Objects, Rendered
from iodine.models.gnm.struct_draw import GlobalLatent, StructDRAW
from iodine.models.gnm.symbols import SymbolDistributions, SymbolHead, Symbols

__all__ = [
  "Drawn",
  "Explained",
  "Imagined",
  "AutoEncoder",
  "each",
  "flat",
  "objects_of",
]


class Drawn(NamedTuple):
  """Scenes that were drawn.

  Attributes:
    objects: K objects.
    glimpses: [B, K, h, h, C + 1] float32 in [0, 1], colours and alpha; without
      alpha where objects cannot overlap.
    background: [B, H, W, C] float32 in [0, 1]; None: no background.
    rendered: see `renderer.render`.
  """

  objects: Objects
  glimpses: tf.Tensor
  background: tf.Tensor | None
  rendered: Rendered


class Explained(NamedTuple):
  """What images are made of.

  Attributes:
    features: [B, N, N, D] float32, of the images.
    global_latent: see `StructDRAW`.
    prior: p(z | z_g) of the symbols.
    posterior: q(z | x) of the symbols.
    symbols: drawn of the posterior.
    background: its latent; None: no background.
    scene: what was drawn.
  """

  features: tf.Tensor
  global_latent: GlobalLatent
  prior: SymbolDistributions
  posterior: SymbolDistributions
  symbols: Symbols
  background: BackgroundLatent | None
  scene: Drawn


class Imagined(NamedTuple):
  """Scenes of the prior.

  Attributes:
    global_latent: see `StructDRAW`.
    scene: what was drawn.
  """

  global_latent: GlobalLatent
  scene: Drawn


class AutoEncoder(snt.Module):
  """The modules of a model, put together.

  Attributes:
    num_cells: N.
    struct_draw: the global latent.
    background: makes the background; None: black.
    overlap: whether objects may overlap, see `renderer.render`.
    noise_shapes: {name: shape}, those of a scene's noise.
  """

  def __init__(
    self,
    encoder: ImageEncoder,
    struct_draw: StructDRAW,
    head: SymbolHead,
    glimpse_decoder: PictureDecoder,
    background: Background | None,
    num_cells: int,
    n_what: int,
    overlap: bool,
  ):
    """Puts modules together.

    Args:
      encoder: makes features of cells.
      struct_draw: the global latent.
      head: makes distributions of symbols from features.
      glimpse_decoder: makes an object's picture.
      background: see above.
      num_cells: N.
      n_what: A.
      overlap: see above.
    """
    super().__init__(name="autoencoder")
    self._encoder, self.struct_draw = encoder, struct_draw
    self._head, self._glimpse_decoder = head, glimpse_decoder
    self.background, self.overlap = background, overlap
    self.num_cells, self._n_what = num_cells, n_what
    cells = (num_cells, num_cells)
    self.noise_shapes = {
      **({"bg": (background.n_background,)} if background else {}),
      "global": (struct_draw.num_draws, struct_draw.n_global),
      "pres_uniform": (*cells, 1),
      "where": (*cells, 4),
      "depth": (*cells, 1),
      "what": (*cells, n_what),
    }

  def explain(
    self,
    image: tf.Tensor,
    noise: Mapping[str, tf.Tensor],
    temperature: tf.Tensor,
    covering: Covering | None = None,
  ) -> Explained:
    """Draws latents of images, and scenes of these.

    Args:
      image: [B, H, W, C] float32 in [0, 1].
      noise: {name: [B, ...]}, see `noise_shapes`.
      temperature: [] float32, of relaxed presence.
      covering: see `renderer.render`.

    Returns:
      What the images are made of.

    Raises:
      ValueError: if the image's size does not fit.
    """
    features = self._encoder(image)
    self._check_cells(image, features)
    latent = self.struct_draw(features, noise["global"])
    posterior, prior = self._symbols(features), self._symbols(latent.map)
    drawn = symbols.sample_symbols(posterior, noise, temperature)
    background = None
    if self.background is not None:
      background = self.background.infer(features, latent.z, noise["bg"])
    scene = self.draw(
      objects_of(drawn),
      self._picture(background, image.shape[-1]),
      image.shape[1:],
      covering,
    )
    return Explained(
      features, latent, prior, posterior, drawn, background, scene
    )

  def imagine(
    self,
    noise: Mapping[str, tf.Tensor],
    temperature: tf.Tensor | None,
    image_shape: Sequence[int],
    covering: Covering | None = None,
  ) -> Imagined:
    """Draws a global latent of its prior, and the scenes that it tells of.

    Args:
      noise: {name: [B, ...]}, see `noise_shapes`.
      temperature: [] float32, of relaxed presence; None: given the global
        latent, nothing else is drawn, and global is the only noise needed.
      image_shape: (H, W, C).
      covering: see `renderer.render`.

    Returns:
      The scenes.
    """
    latent = self.struct_draw.sample(noise["global"])
    distributions = self._symbols(latent.map)
    if temperature is None:
      drawn = symbols.mode_symbols(distributions)
    else:
      drawn = symbols.sample_symbols(distributions, noise, temperature)
    background = None
    if self.background is not None:
      background = self.background.sample(
        latent.z, None if temperature is None else noise["bg"]
      )
    picture = self._picture(background, image_shape[-1])
    return Imagined(
      latent, self.draw(objects_of(drawn), picture, image_shape, covering)
    )

  def draw(
    self,
    objects: Objects,
    background: tf.Tensor | None,
    image_shape: Sequence[int],
    covering: Covering | None = None,
  ) -> Drawn:
    """Draws objects.

    Args:
      objects: K objects, any number.
      background: [B, H, W, C] float32; None: black.
      image_shape: (H, W, C).
      covering: see `renderer.render`.

    Returns:
      The scenes.
    """
    height, width, channels = image_shape
    glimpses = each(
      lambda what: self._glimpse_decoder(what, channels + self.overlap),
      objects.what,
    )
    rendered = renderer.render(
      objects, glimpses, background, (height, width), self.overlap, covering
    )
    return Drawn(objects, glimpses, background, rendered)

  def _symbols(self, features: tf.Tensor) -> SymbolDistributions:
    return self._head(features, self._n_what)

  def _picture(
    self, latent: BackgroundLatent | None, num_channels: int
  ) -> tf.Tensor | None:
    """The background's picture; None: no background."""
    if self.background is None or latent is None:
      return None
    return self.background.decode(latent.z, num_channels)

  def _check_cells(self, image: tf.Tensor, features: tf.Tensor) -> None:
    rows, columns = features.shape[1:3]
    size = self.num_cells
    checks.check(
      None
      if (rows, columns) == (size, size)
      else f"image: the encoder makes {rows} x {columns} cells of "
      f"{image.shape[1]} x {image.shape[2]} pixels, but num_cells={size}; set "
      "num_cells, encoder.strides or image_dim"
    )


def flat(x: tf.Tensor) -> tf.Tensor:
  """Cells [B, N, N, d] as objects [B, N * N, d], row by row."""
  return tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])


def objects_of(drawn: Symbols) -> Objects:
  """What symbols of N x N cells say of objects, row by row."""
  where = symbols.squashed_where(drawn.where)
  return Objects(*map(flat, drawn._replace(where=where)))


def each(function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
  """Applies a function of [B, d] to [B, K, d]."""
  return snt.BatchApply(function, 2)(x)
