"""Log densities in closed form, in float64, that ours are compared with."""

import math

import numpy as np


def softplus(x):
  return np.logaddexp(0, x)


def log_softmax(x):
  return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def normal(x, loc, scale):
  return -(((x - loc) / scale) ** 2) / 2 - np.log(scale * np.sqrt(2 * np.pi))


def log_normal(x, loc, scale):
  return normal(np.log(x), loc, scale) - np.log(x)


def laplace(x, loc, scale):
  return -np.abs(x - loc) / scale - np.log(2 * scale)


def logistic(x, loc, scale):
  y = (x - loc) / scale
  return -y - np.log(scale) - 2 * softplus(-y)


def student_t(x, loc, scale, df=3.5):
  y = (x - loc) / scale
  constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2)
  constant -= math.log(df * math.pi) / 2
  return constant - np.log(scale) - (df + 1) / 2 * np.log1p(y**2 / df)


def mixture(components, logits):
  """Log-sum-exp over K of [B, K, H, W] and mask logits [B, K, H, W, 1]."""
  log_masks = np.moveaxis(logits[..., 0].astype(float), 1, -1)
  joint = np.moveaxis(components, 1, -1) + log_softmax(log_masks)
  return np.logaddexp.reduce(joint, axis=-1)


# {name as in a configuration: log density of x, loc and scale}.
LOG_DENSITIES = {
  "normal": normal,
  "log_normal": log_normal,
  "laplace": laplace,
  "logistic": logistic,
  "student_t": student_t,
}
