"""A GNM small enough for quick tests, and images for it."""

from typing import Any

import numpy as np
import tensorflow as tf

from iodine.models.gnm import (
  GNM,
  Background,
  ImageEncoder,
  PictureDecoder,
  StructDRAW,
  SymbolHead,
)

B, N, A, G, SIDE, C = 2, 2, 3, 4, 16, 3
K = N * N + 1


def initialized(**overrides: Any) -> GNM:
  """A small model, all of whose variables are random."""
  options = dict(
    encoder=ImageEncoder([5, 6, 7], [4], [2]),
    struct_draw=StructDRAW(2, 3, 7, 6, 1, [8], [9], [5]),
    head=SymbolHead([6]),
    glimpse_decoder=PictureDecoder([6, 5], [3], [2]),
    n_z=A,
    num_cells=N,
    background=Background(G, [6, 5], [1], [4, 2, 2], [1], [6], [7]),
  )
  model = GNM(**{**options, **overrides})
  model.initialize((SIDE, SIDE, C), {})
  for variable in model.variables:
    rng = np.random.default_rng(list(variable.name.encode()))
    mean = 1.0 if variable.name.endswith("/scale:0") else 0.0
    variable.assign(rng.normal(mean, 0.4, variable.shape))
  return model


def batch(batch_size: int = B) -> dict[str, tf.Tensor]:
  """Random images and masks."""
  rng = np.random.default_rng(0)
  image = rng.random([batch_size, 1, SIDE, SIDE, C], np.float32)
  owner = rng.integers(3, size=[batch_size, 1, SIDE, SIDE])
  mask = owner[:, :, None, ..., None] == np.arange(3).reshape(1, 1, 3, 1, 1, 1)
  return {
    "image": tf.constant(image),
    "mask": tf.constant(mask.astype(np.float32)),
  }
