"""What a distribution shift is.

Dimensions: T frames, L true entities, H height and W width of the image, H' and
W' of the masks, C channels, n size of a factor.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import tensorflow as tf

from iodine import checks

if TYPE_CHECKING:
  from iodine.data.scenes import StoredScenes

__all__ = ["Scene", "Shift"]

_MOST_SEED = 2**31 - 2

Scene = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift(abc.ABC):
  """Changes scenes, or selects some.

  Attributes:
    name: what a configuration calls it.
    affected_factors: the factors that are no longer true of the objects that
      `modified` marks, if it modifies objects one by one.
    selects: whether it leaves out scenes by `keeps`.
    seed: of what is random, from 0 to 2**31 - 2. It is the shift's own, so that
      models that were trained with other seeds see the same scenes.
  """

  name: ClassVar[str]
  affected_factors: ClassVar[tuple[str, ...]] = ()
  selects: ClassVar[bool] = False

  seed: int = 0

  def __post_init__(self):
    checks.check(*self._faults())

  def unshifted(self) -> Shift | None:
    """What it shifts away from: the scenes of this shift; None: all scenes."""
    return None

  def bounds(self, dataset: StoredScenes) -> tuple[int | None, int | None]:
    """The fewest and the most objects of its scenes.

    Args:
      dataset: of which no file is opened yet.

    Raises:
      ValueError: if the dataset does not say enough.
    """
    return dataset.min_num_objects, dataset.max_num_objects

  def check(self, dataset: StoredScenes) -> None:
    """Raises ValueError if the dataset lacks what the shift needs."""
    if self.affected_factors and dataset.num_true_objects is None:
      raise ValueError(
        f"shift={self.name}: needs masks, which tell objects apart; "
        f"{dataset} has none"
      )

  def keeps(self, example: Mapping[str, Any], num_background: int) -> tf.Tensor:
    """Whether it selects a stored scene, a scalar bool; asked if it `selects`.

    Args:
      example: see `iodine.data.pipeline.IODINEDataset.examples`.
      num_background: how many leading entities are background.
    """
    raise NotImplementedError

  def examples(
    self, dataset: StoredScenes, examples: tf.data.Dataset
  ) -> tf.data.Dataset:
    """The stored scenes, with what else the shift needs of each."""
    del dataset
    return examples

  def preprocessed(
    self, example: Scene, preprocess: Callable[[Scene], Scene]
  ) -> Scene:
    """What a preprocessed scene has besides its own, of a stored one.

    Args:
      example: a scene of `examples`.
      preprocess: makes a scene of what is stored.
    """
    del example, preprocess
    return {}

  def stored_files(self, dataset: StoredScenes) -> Sequence[str] | None:
    """The files that it reads beside the dataset's own; None: unknown."""
    del dataset
    return ()

  def cache_key(self, dataset: StoredScenes) -> Any:
    """JSON value of what it changes in cached scenes; None: nothing."""
    del dataset
    return None

  def stored_spec(self, spec: Scene) -> Scene:
    """The structure of a preprocessed scene before the shift."""
    return spec

  def shifted_spec(self, spec: Scene) -> Scene:
    """The structure of a scene after the shift."""
    if self.affected_factors:
      return {**spec, "modified": spec["visibility"]}
    return spec

  def __call__(
    self, scene: Scene, number: tf.Tensor, dataset: StoredScenes
  ) -> Scene:
    """Shifts a scene; for use in a graph.

    Args:
      scene: image [T, H, W, C] float32 in [0, 1]; with masks also mask [T, L,
        H', W', 1] uint8 in {0, 1}, visibility [L] float32 and factors {name:
        [L, n]}.
      number: of the scene in file order, after the filter, scalar int64.
      dataset: of the scene.

    Returns:
      The scene, shifted. Shifts with `affected_factors` add `modified`, [L]
      float32, 1 for the objects that are modified, else 0.
    """
    del number, dataset
    return scene

  def _faults(self) -> Iterator[str | None]:
    """Yields the errors in the options, and None for correct ones."""
    yield checks.int_fault("seed", self.seed, 0, _MOST_SEED)

  def __str__(self) -> str:
    options = [
      f"{field.name}={value!r}"
      for field in dataclasses.fields(self)
      if (value := getattr(self, field.name)) != field.default
    ]
    return f"{self.name} ({', '.join(options)})" if options else self.name
