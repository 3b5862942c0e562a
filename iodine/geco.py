"""GECO: training under a constraint on the likelihood."""

import iodine.quiet_tensorflow

import sonnet as snt
import tensorflow as tf

from iodine import checks

__all__ = ["Geco"]


class Geco(snt.Module):
  """Generalised ELBO with Constrained Optimisation (arXiv 1810.00597).

  Rather than nll + KL, the KL is minimised under the constraint that the
  negative log-likelihood of an image be at most T. A multiplier B weighs the
  nll; it grows while the constraint is not met, and shrinks while it is. This
  is the form of EfficientMORL (arXiv 2106.03630): B = softplus(b), and

    loss = KL - B (c + stop(C - c)),  c = T - nll

  where C is a moving average of c. So the loss's value is KL - B C, and its
  gradient that of KL + B nll. Until the end of a warm-up, the loss is nll + KL.

  Attributes:
    target: t, nats per value of an image, negative or not; an image of
      `num_values` values, H * W * C, has T = t * num_values.
    constraint: [] float32 variable, C, nats per image; 0 at first. Created by
      `initialize` or the first use.
    beta: [] float32 variable, b; `least_beta` at first. Created likewise.
  """

  constraint: tf.Variable
  beta: tf.Variable

  def __init__(
    self,
    target: float,
    step_size: float = 1e-6,
    alpha: float = 0.99,
    warmup_steps: int = 1_000,
    acceleration: float = 1.0,
    least_beta: float = 0.55,
    name: str = "geco",
  ):
    """Sets the constants; no variable is created.

    Args:
      target: see the attribute.
      step_size: change of b in a step, per nat of C, above 0.
      alpha: decay of the moving average, in [0, 1).
      warmup_steps: training steps during which the loss is nll + KL, and no
        state changes.
      acceleration: factor of the step size while the constraint is met, above
        0.
      least_beta: lower bound of b, and its first value. At 0.55, B is about 1.
      name: name of the module; the variables are called geco/constraint and
        geco/beta in any scope.

    Raises:
      ValueError: for values out of range.
    """
    checks.check(
      checks.finite_fault("target", target),
      checks.above_zero_fault("step_size", step_size),
      checks.share_fault("alpha", alpha),
      checks.int_fault("warmup_steps", warmup_steps, 0),
      checks.above_zero_fault("acceleration", acceleration),
      checks.finite_fault("least_beta", least_beta),
    )
    super().__init__(name=name)
    self.target = float(target)
    self._step_size, self._alpha = float(step_size), float(alpha)
    self._warmup_steps = int(warmup_steps)
    self._acceleration = float(acceleration)
    self._least_beta = float(least_beta)

  @snt.once
  def initialize(self) -> None:
    """Creates the variables."""
    with tf.name_scope(""):  # regardless of the current scope
      self.constraint = tf.Variable(
        0.0, trainable=False, name="geco/constraint"
      )
      self.beta = tf.Variable(
        self._least_beta, trainable=False, name="geco/beta"
      )

  @property
  def multiplier(self) -> tf.Tensor:
    """B, the weight of the nll: [] float32."""
    self.initialize()
    return tf.nn.softplus(self.beta)

  def likelihood_term(
    self, nll: tf.Tensor, step: tf.Tensor | int | None = None
  ) -> tf.Tensor:
    """What takes the place of the nll in a loss.

    Args:
      nll: [] float32, mean over images, nats per image.
      step: [] integer, number of previous training steps; None: after the
        warm-up, as in evaluation.

    Returns:
      [] float32: nll during the warm-up; then a term of value -B C, whose
      gradient is that of B nll. (T cancels out.)
    """
    # A difference that is exactly 0 gives the gradient, without rounding C.
    gradient = nll - tf.stop_gradient(nll)
    constrained = tf.stop_gradient(self.multiplier) * (
      gradient - tf.stop_gradient(self.constraint)
    )
    if step is None:
      return constrained
    return tf.where(step < self._warmup_steps, nll, constrained)

  def update(
    self, nll: tf.Tensor, step: tf.Tensor | int, num_values: int
  ) -> None:
    """Updates the state after a training step.

    The first update after the warm-up sets C to c and leaves b; others do
    C <- alpha C + (1 - alpha) c, then b <- max(least_beta, b - a step_size C),
    where a is `acceleration` for C above 0, else 1.

    Args:
      nll: [] float32, mean over all images of the step, nats per image.
      step: [] integer, number of previous training steps.
      num_values: values of an image, H * W * C.
    """
    self.initialize()
    gap = self.target * num_values - nll
    average = self._alpha * self.constraint + (1.0 - self._alpha) * gap
    begins = tf.equal(step, self._warmup_steps)
    goes_on = step > self._warmup_steps
    constraint = tf.where(goes_on, average, self.constraint)
    constraint = tf.where(begins, gap, constraint)
    rate = self._step_size * tf.where(constraint > 0, self._acceleration, 1.0)
    beta = tf.maximum(self._least_beta, self.beta - rate * constraint)
    self.beta.assign(tf.where(goes_on, beta, self.beta))
    self.constraint.assign(constraint)
