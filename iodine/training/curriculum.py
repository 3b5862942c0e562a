"""The number of refinement steps as a function of the training step."""

from collections.abc import Sequence

from iodine import checks
from iodine.scene_model import SceneModel

__all__ = ["Curriculum"]


class Curriculum:
  """Stages of training with numbers of refinement steps of their own.

  EfficientMORL (arXiv 2106.03630) begins with three and goes on with fewer.

  Attributes:
    stages: ((first training step, number of refinement steps), ...).
  """

  def __init__(self, stages: Sequence[Sequence[int]]):
    """Makes a curriculum.

    Args:
      stages: see the attribute. The first begins at step 0, each later one
        after the one before.

    Raises:
      ValueError: for anything else.
    """
    checks.check(checks.curriculum_fault("curriculum", stages))
    self.stages = tuple((int(step), int(iters)) for step, iters in stages)

  def __call__(self, step: int) -> int:
    """The number of refinement steps at a training step, from 0 on."""
    return [iters for first, iters in self.stages if first <= step][-1]

  def check(self, model: SceneModel, most_frames: int | None = None) -> None:
    """Checks that a model can do with all stages.

    Args:
      model: the model to train.
      most_frames: number of frames that the data have; None: enough.

    Raises:
      ValueError: if it has no number of refinement steps that may change, or
        not these ones.
    """
    if not model.can("set_num_iters"):
      raise ValueError(
        f"curriculum={self._shown()}: a {type(model).__name__} has no number "
        "of refinement steps to change; leave out curriculum"
      )
    for first, num_iters in self.stages:
      try:
        with model.with_num_iters(num_iters):
          frames = model.num_frames
      except ValueError as error:
        raise ValueError(
          f"curriculum={self._shown()}: at step {first}, {error}"
        ) from error
      if most_frames is not None and frames > most_frames:
        raise ValueError(
          f"curriculum={self._shown()}: at step {first}, the model needs "
          f"{frames} frames of a scene, but the dataset has {most_frames}"
        )

  def _shown(self) -> list[list[int]]:
    """The stages as in a configuration."""
    return [list(stage) for stage in self.stages]
