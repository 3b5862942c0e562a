"""Which true factor every latent follows.

Dimensions: M objects, Z latent size, F factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

__all__ = ["Correlations", "correlate"]

_WEAKEST = 0.3  # correlation that names a latent


class Correlations(NamedTuple):
  """How latents and factors of objects go together.

  Attributes:
    values: [Z, F] float64, Pearson's correlations, from -1 to 1; of a factor of
      categories, the correlation ratio, from 0 to 1.
    factors: F names.
    num_objects: M.
  """

  values: np.ndarray
  factors: tuple[str, ...]
  num_objects: int

  def name(self, latent: int) -> str:
    """The factor that a latent follows best, such as "x 0.88"; or "".

    A latent that follows none (no correlation reaches 0.3) has no name.
    """
    values = self.values[latent]
    best = int(np.abs(values).argmax())
    if abs(values[best]) < _WEAKEST:
      return ""
    return f"{self.factors[best]} {values[best]:.2f}".replace("-", "\u2212")


def correlate(
  codes: np.ndarray, factors: Mapping[str, np.ndarray]
) -> Correlations:
  """Correlates the latents of objects with their factors.

  The correlation ratio is the square root of the share of a latent's variance
  that categories explain, less what as many random categories would (epsilon
  squared, Kelley 1935).

  Args:
    codes: [M, Z], the latents of each object's slot.
    factors: {name: [M]}, at least one; integers are categories.

  Returns:
    The correlations; 0 where a latent or a factor has a single value.
  """
  codes = codes.astype(np.float64)
  columns = [
    _ratios(codes, values)
    if np.issubdtype(values.dtype, np.integer)
    else _pearson(codes, values.astype(np.float64))
    for values in factors.values()
  ]
  return Correlations(np.stack(columns, axis=1), tuple(factors), len(codes))


def _pearson(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Correlations [Z] of latents [M, Z] and a factor [M]."""
  x, y = codes - codes.mean(axis=0), values - values.mean()
  norm = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
  return _quotient(y @ x, norm)


def _ratios(codes: np.ndarray, categories: np.ndarray) -> np.ndarray:
  """Correlation ratios [Z] of latents [M, Z] and categories [M]."""
  kinds, indices = np.unique(categories, return_inverse=True)
  sums = np.zeros([len(kinds), codes.shape[1]])
  np.add.at(sums, indices, codes)
  means = sums / np.bincount(indices)[:, np.newaxis]
  within = ((codes - means[indices]) ** 2).sum(axis=0)
  total = ((codes - codes.mean(axis=0)) ** 2).sum(axis=0)
  spare = max(len(codes) - len(kinds), 1)
  share = _quotient(total - within * (len(codes) - 1) / spare, total)
  return np.sqrt(np.maximum(share, 0.0))


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """0 where the denominator is, but for rounding."""
  is_zero = denominator <= 1e-12
  return np.where(is_zero, 0.0, numerator / np.where(is_zero, 1, denominator))
