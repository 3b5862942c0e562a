"""Opens the data of a configuration; data errors become ConfigErrors."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from iodine.data import fingerprint
from iodine.data.fingerprint import Fingerprint
from iodine.data.pipeline import IODINEDataset, NoSceneError
from iodine.errors import ConfigError
from iodine.progress import progress
from iodine.tfrecords import inspection

__all__ = [
  "chosen_scenes",
  "data_errors_as_config_errors",
  "first_batch",
  "fingerprint_of",
  "prepare",
  "scenes_from",
  "training_data",
]

_MAX_SCENES = 8  # compared in a picture

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def data_errors_as_config_errors(dataset: IODINEDataset) -> Iterator[None]:
  """Turns errors of data files into ConfigErrors."""
  try:
    yield
  except ConfigError:
    raise
  except inspection.READ_ERRORS as error:
    reason = inspection.explain(error, source=str(dataset))
    raise ConfigError(f"data: {reason}") from error
  except (OSError, ValueError) as error:
    raise ConfigError(f"data: {error}") from error


def prepare(dataset: IODINEDataset) -> None:
  """Writes missing files, if the dataset can generate them.

  Raises:
    ConfigError: if they cannot be written.
  """
  with data_errors_as_config_errors(dataset):
    dataset.prepare()


def fingerprint_of(dataset: IODINEDataset) -> Fingerprint:
  """Reads what the data are, as far as `dataset.verify` asks.

  Raises:
    ConfigError: if a file is missing or cannot be read.
  """
  prepare(dataset)
  with data_errors_as_config_errors(dataset):
    return fingerprint.take(dataset.files_read(), dataset.verify)


def first_batch(dataset: IODINEDataset) -> dict[str, Any]:
  """Reads the batch to show in pictures.

  Raises:
    ConfigError: if a file is missing or invalid.
  """
  prepare(dataset)
  with data_errors_as_config_errors(dataset):
    return next(iter(dataset("summary")))


def scenes_from(
  dataset: IODINEDataset, scene: int, batch_size: int
) -> dict[str, Any]:
  """Reads a batch of scenes, in file order.

  Args:
    dataset: the dataset to read.
    scene: number of the first scene, counted from 1.
    batch_size: number of scenes, clipped to 2 to 8.

  Returns:
    The batch.

  Raises:
    ConfigError: if a file is missing or invalid, or there is no such scene.
  """
  prepare(dataset)
  count = min(max(batch_size, 2), _MAX_SCENES)
  return _scenes_from(dataset, scene, count, f"scene={scene}")


def chosen_scenes(
  dataset: IODINEDataset, scenes: Sequence[int]
) -> dict[str, Any]:
  """Reads the scenes of these numbers, counted from 1 in file order.

  Args:
    dataset: the dataset to read.
    scenes: at least one number.

  Returns:
    A batch of them.

  Raises:
    ConfigError: see `scenes_from`.
  """
  prepare(dataset)
  given = f"scenes={list(scenes)}"
  batches = [_scenes_from(dataset, scene, 1, given) for scene in scenes]
  return tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *batches)


def _scenes_from(
  dataset: IODINEDataset, scene: int, count: int, given: str
) -> dict[str, Any]:
  """Reads up to `count` scenes; `given` is what named them."""
  options = {"batch_size": count, "shuffle_buffer": None}
  shown = dataset.variant(**options, skip=dataset.skip + scene - 1, take=count)
  with data_errors_as_config_errors(shown):
    try:
      return next(iter(shown("eval")))
    except NoSceneError:
      if scene == 1:
        raise
    others = dataset.variant(**options, take=scene)
    total = sum(int(batch["image"].shape[0]) for batch in others("eval"))
  raise ConfigError(
    f"{given}: the data have {total} scenes; name one from 1 to {total}"
  )


def training_data(
  entries: Mapping[str, Any], dataset: IODINEDataset
) -> tuple[IODINEDataset, dict[str, Any]]:
  """Opens the scenes to train on, and the batch to show in pictures.

  The first `held_out_scenes` are reserved for evaluation and pictures, unless
  `data.skip` is set or the file has no other scenes.

  Args:
    entries: the whole configuration.
    dataset: the dataset built from it.

  Returns:
    A dataset, and a batch.

  Raises:
    ConfigError: if a file is missing or invalid.
  """
  prepare(dataset)
  _build_cache(dataset)
  sample = first_batch(dataset)
  count = entries["held_out_scenes"]
  if not count or "skip" in entries["data"]:
    return dataset, sample
  rest = dataset.variant(skip=count)
  with data_errors_as_config_errors(dataset):
    if rest.has_scenes():
      return rest, sample
  _LOG.warning(
    "%s has no more than held_out_scenes=%s: training on all scenes, so that "
    "none are left for evaluation",
    dataset,
    count,
  )
  return dataset, sample


def _build_cache(dataset: IODINEDataset) -> None:
  """Writes the cache, if one is configured and it does not exist yet."""
  if dataset.cache_dir is None:
    return
  with data_errors_as_config_errors(dataset):
    total = dataset.estimated_num_examples()
    read = 0
    with progress(total, "scenes", _LOG) as update:

      def on_progress(num_read: int) -> None:
        nonlocal read
        update(num_read - read)
        read = num_read

      dataset.build_cache(on_progress)
