"""Describes a dataset's files: scenes, objects, factors, features."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tqdm

from iodine.data import preprocessing
from iodine.data.datasets import IODINEDataset, RecordDataset, Shapes3D
from iodine.tfrecords import inspection

__all__ = ["Statistics", "collect", "format_files", "format_statistics"]

_BAR_WIDTH = 40  # characters of the longest bar
# Larger files are not fully inflated just to count their scenes.
_COUNTED_BYTES = 100 * 2**20
_MANY_VALUES = 12  # more distinct values are shown as a range


@dataclasses.dataclass
class Statistics:
  """Statistics of stored scenes.

  Attributes:
    image_shape: shape of a stored image, [h, w, C] or [T, h, w, C].
    num_entities: L; 0: no masks.
    num_scenes: number of scenes read.
    num_passing: how many of them pass the filter by number of objects.
    num_objects: [N] foreground objects of each scene; None: no masks.
    partition: share of pixels owned by exactly one entity; None: no masks.
    factors: {name: [M, n]} for the M foreground objects of all scenes.
  """

  image_shape: Sequence[int] = ()
  num_entities: int = 0
  num_scenes: int = 0
  num_passing: int = 0
  num_objects: np.ndarray | None = None
  partition: float | None = None
  factors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def collect(dataset: IODINEDataset, scenes: Iterator[dict]) -> Statistics:
  """Collects statistics of all given scenes.

  Args:
    dataset: the dataset that the scenes belong to.
    scenes: scenes from `IODINEDataset.examples`.

  Returns:
    Their statistics.
  """
  background = dataset.num_background_entities
  result = Statistics()
  counts: list[int] = []
  owned: list[float] = []
  factors: dict[str, list[np.ndarray]] = {name: [] for name in dataset.factors}
  for scene in scenes:
    result.num_scenes += 1
    result.image_shape = scene["image"].shape
    if dataset.num_true_objects is None:
      result.num_passing += 1
      continue
    visible = preprocessing.visibility(scene, background).numpy() > 0.5
    result.num_entities = len(visible)
    is_object = visible & (np.arange(len(visible)) >= background)
    counts.append(int(np.sum(is_object)))
    result.num_passing += bool(dataset.has_wanted_objects(scene))
    mask = scene["mask"].numpy() > 127
    owned.append(float(np.mean(mask.sum(-4) == 1)))
    for name, values in factors.items():
      factor = scene["factors"][name].numpy()
      values.append(factor.reshape(len(factor), -1)[is_object])
  if counts:
    result.num_objects = np.array(counts)
    result.partition = float(np.mean(owned))
    result.factors = {k: np.concatenate(v) for k, v in factors.items()}
  return result


def format_files(dataset: IODINEDataset) -> list[str]:
  """Describes files, compression, and expected and stored features."""
  if not isinstance(dataset, RecordDataset):
    count = dataset.estimated_num_examples()
    lines = [f"data      {dataset}: {count or 'unknown number of'} scenes"]
    if isinstance(dataset, Shapes3D):
      lines.append("factors of whole images, as categories:")
      factors = dataset.categories().items()
      lines += [f"  {name:<11}  {_values(rank)}" for name, rank in factors]
    return lines
  files = dataset.stored_files()
  lines = [f"file      {path}: {_size(path)}" for path in files]
  record = inspection.record_features(inspection.first_record(files[0]))
  expected = inspection.expected_features(dataset.expected_features())
  width = max(map(len, {*record, *expected}))
  lines.append(f"{'feature':<{width}}  {'expected':<18}  stored in record 0")
  for name in sorted({*record, *expected}):
    cells = [
      inspection.format_features({"": features[name]}).strip()
      if name in features
      else "-"
      for features in (expected, record)
    ]
    lines.append(f"{name:<{width}}  {cells[0]:<18}  {cells[1]}")
  return lines


def _size(path: str) -> str:
  size = tf.io.gfile.stat(path).length
  compression = inspection.detect_compression(path) or "not compressed"
  if size <= _COUNTED_BYTES:
    count = f"{inspection.count_records(path):,}"
  else:
    count = f"about {inspection.estimate_records(path):,}"
  return f"{count} scenes, {tqdm.tqdm.format_sizeof(size)}B, {compression}"


def format_statistics(
  dataset: IODINEDataset, statistics: Statistics
) -> list[str]:
  """Describes sizes, numbers of objects and ranges of factors."""
  shape = " x ".join(map(str, statistics.image_shape))
  height, width = dataset.image_dim
  lines = [
    f"image     {shape} uint8; the model sees {height} x {width} x "
    f"{dataset.num_channels} in [0, 1]",
  ]
  if statistics.num_objects is None:
    return [*lines, "masks     none: scores that need them are left out"]
  background, entities = (
    dataset.num_background_entities,
    statistics.num_entities,
  )
  bounds = (
    f"min_num_objects={dataset.min_num_objects}, "
    f"max_num_objects={dataset.max_num_objects}"
  )
  lines += [
    f"entities  {entities} a scene: {background} background first, then up to "
    f"{entities - background} objects; those that are absent have visibility 0 "
    "and an empty mask",
    f"masks     {statistics.partition:.2%} of the pixels belong to exactly one "
    "entity",
    f"filter    {statistics.num_passing} of {statistics.num_scenes} scenes "
    f"pass {bounds}",
    *([f"shift     {dataset.shift}"] if dataset.shift is not None else []),
    "objects a scene, without the background:",
    *_histogram(statistics.num_objects),
  ]
  if statistics.factors:
    lines.append("factors of these objects:")
  width = max(map(len, statistics.factors), default=0)
  for name, values in statistics.factors.items():
    for i, column in enumerate(values.T):
      label = name if values.shape[1] == 1 else f"{name}[{i}]"
      lines.append(f"  {label:<{width + 3}}  {_values(column)}")
  return lines


def _histogram(counts: np.ndarray) -> Iterator[str]:
  numbers = np.bincount(counts)
  for value in range(counts.min(), counts.max() + 1):
    bar = "#" * round(_BAR_WIDTH * numbers[value] / numbers.max())
    yield f"  {value:>3}  {numbers[value] / len(counts):>6.1%}  {bar}"


def _values(values: np.ndarray) -> str:
  if not len(values):
    return "no object"
  distinct = np.unique(values)
  if len(distinct) <= _MANY_VALUES:
    return ", ".join(f"{value:g}" for value in distinct)
  kind = "" if np.array_equal(distinct, np.round(distinct)) else "real "
  return (
    f"{values.min():g} to {values.max():g} ({len(distinct)} distinct "
    f"{kind}values)"
  )
