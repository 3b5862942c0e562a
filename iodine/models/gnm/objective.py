"""Likelihood, and what a scene's latents cost.

Sums over all but the batch and the cells; nats. Dimensions: B batch, N cells on
each side, H height, W width, C channels.
"""

import iodine.quiet_tensorflow

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine.models.gnm.autoencoder import Explained
from iodine.models.gnm.symbols import SymbolDistributions, Symbols

__all__ = [
  "auxiliary_kls",
  "bernoulli_kl",
  "kl",
  "kl_of_slots",
  "kls",
  "log_likelihood",
  "log_ratios",
]

_EPSILON = 1e-15
_LEAST_PRESENCE = 1e-5
# Of the place before squashing: scale (whose mean is annealed), ratio, x, y.
_WHERE_STDS = (0.1, 0.3, 1.0, 1.0)


def log_likelihood(
  image: tf.Tensor, recons: tf.Tensor, sigma: float
) -> tf.Tensor:
  """Log-density of images [B, H, W, C] under N(recons, sigma), [B]."""
  log_probs = tfd.Normal(recons, sigma).log_prob(image)
  return tf.reduce_sum(log_probs, axis=[1, 2, 3])


def kl(first: tfd.Normal, second: tfd.Normal) -> tf.Tensor:
  """KL(first || second) of normal distributions, summed over the last axis."""
  return tf.reduce_sum(tfd.kl_divergence(first, second), axis=-1)


def bernoulli_kl(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
  """KL of Bernoulli distributions of these probabilities, with any shape."""

  def log_quotient(p: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
    return tf.math.log(p + _EPSILON) - tf.math.log(q + _EPSILON)

  return first * log_quotient(first, second) + (1.0 - first) * log_quotient(
    1.0 - first, 1.0 - second
  )


def _symbol_kls(
  posterior: SymbolDistributions, prior: SymbolDistributions
) -> dict[str, tf.Tensor]:
  """KL of the symbols from their prior given the global latent.

  Presence counts as a Bernoulli variable, not as the relaxed one.

  Args:
    posterior: q(z | x).
    prior: p(z | z_g).

  Returns:
    {presence, where, depth, what: [B, N, N]}.
  """
  presence = bernoulli_kl(
    tf.sigmoid(posterior.presence), tf.sigmoid(prior.presence)
  )
  return {
    "presence": presence[..., 0],
    "where": kl(posterior.where, prior.where),
    "depth": kl(posterior.depth, prior.depth),
    "what": kl(posterior.what, prior.what),
  }


def _symbol_auxiliary_kls(
  posterior: SymbolDistributions,
  presence: tf.Tensor,
  presence_prior: tf.Tensor,
  scale_prior: tf.Tensor,
) -> dict[str, tf.Tensor]:
  """KL of the symbols from fixed priors, which keep training stable.

  But for presence itself, an object's counts by its presence.

  Args:
    posterior: q(z | x).
    presence: [B, N, N, 1] float32, drawn.
    presence_prior: [] float32, prior probability of an object.
    scale_prior: [] float32, prior mean of a place's a_scale.

  Returns:
    See `_symbol_kls`.
  """
  standard = tfd.Normal(0.0, 1.0)
  where = tfd.Normal(tf.stack([scale_prior, 0.0, 0.0, 0.0]), _WHERE_STDS)
  counted = tf.maximum(presence[..., 0], _LEAST_PRESENCE)
  presence_kl = bernoulli_kl(tf.sigmoid(posterior.presence), presence_prior)
  return {
    "presence": presence_kl[..., 0],
    "where": counted * kl(posterior.where, where),
    "depth": counted * kl(posterior.depth, standard),
    "what": counted * kl(posterior.what, standard),
  }


def _log_ratio(
  z: tf.Tensor, prior: tfd.Normal, posterior: tfd.Normal
) -> tf.Tensor:
  """Log p(z) - log q(z) [B], summed over all axes but the first."""
  ratios = prior.log_prob(z) - posterior.log_prob(z)
  return tf.reduce_sum(ratios, axis=list(range(1, ratios.shape.rank)))


def _symbol_log_ratios(
  symbols: Symbols, prior: SymbolDistributions, posterior: SymbolDistributions
) -> dict[str, tf.Tensor]:
  """Log p - log q of drawn symbols.

  That of presence is linear between absent and present.

  Args:
    symbols: drawn of the posterior.
    prior: p(z | z_g).
    posterior: q(z | x).

  Returns:
    {presence, where, depth, what: [B]}.
  """

  def log_prob(logits: tf.Tensor) -> tf.Tensor:
    z = symbols.presence
    return z * tf.math.log_sigmoid(logits) + (1.0 - z) * tf.math.log_sigmoid(
      -logits
    )

  presence = log_prob(prior.presence) - log_prob(posterior.presence)
  return {
    "presence": tf.reduce_sum(presence, axis=[1, 2, 3]),
    "where": _log_ratio(symbols.where, prior.where, posterior.where),
    "depth": _log_ratio(symbols.depth, prior.depth, posterior.depth),
    "what": _log_ratio(symbols.what, prior.what, posterior.what),
  }


def kls(explained: Explained) -> dict[str, tf.Tensor]:
  """KL of the posteriors from their priors, {name of a term: [B]}."""
  terms = _over_cells(_symbol_kls(explained.posterior, explained.prior))
  background, latent = explained.background, explained.global_latent
  if background is not None:
    terms["background"] = kl(background.posterior, background.prior)
  of_draws = kl(latent.posterior, latent.prior)
  return {**terms, "global": tf.reduce_sum(of_draws, axis=1)}


def auxiliary_kls(
  explained: Explained, presence_prior: tf.Tensor, scale_prior: tf.Tensor
) -> dict[str, tf.Tensor]:
  """KL of the posteriors from fixed priors, {name of a term: [B]}.

  Args:
    explained: what images are made of.
    presence_prior: see `_symbol_auxiliary_kls`.
    scale_prior: likewise.
  """
  terms = _over_cells(
    _symbol_auxiliary_kls(
      explained.posterior,
      explained.symbols.presence,
      presence_prior,
      scale_prior,
    )
  )
  if explained.background is not None:
    posterior = explained.background.posterior
    terms["background"] = kl(posterior, tfd.Normal(0.0, 1.0))
  return terms


def _over_cells(terms: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  return {key: tf.reduce_sum(x, axis=[1, 2]) for key, x in terms.items()}


def log_ratios(explained: Explained) -> dict[str, tf.Tensor]:
  """Log p - log q of what was drawn, {name of a term: [B]}."""
  ratios = _symbol_log_ratios(
    explained.symbols, explained.prior, explained.posterior
  )
  background, latent = explained.background, explained.global_latent
  if background is not None:
    ratios["background"] = _log_ratio(
      background.z, background.prior, background.posterior
    )
  ratios["global"] = _log_ratio(latent.z, latent.prior, latent.posterior)
  return ratios


def kl_of_slots(explained: Explained) -> tf.Tensor:
  """KL [B, K] of cells and background, which sums to that of all terms.

  An equal part of the global latent's is every slot's.
  """
  of_cells = tf.add_n(
    list(_symbol_kls(explained.posterior, explained.prior).values())
  )
  of_slots = tf.reshape(of_cells, [-1, of_cells.shape[1] * of_cells.shape[2]])
  terms = kls(explained)
  if "background" in terms:
    last = terms["background"][:, tf.newaxis]
    of_slots = tf.concat([of_slots, last], axis=1)
  return of_slots + terms["global"][:, tf.newaxis] / of_slots.shape[1]
