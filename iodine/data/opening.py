"""The dataset of a configuration: built, cached, split, its faults told."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from iodine.config import resolution
from iodine.data.datasets import IODINEDataset, NoSceneError, Sprites
from iodine.errors import ConfigError
from iodine.progress import progress
from iodine.synthetic import generation, sprites
from iodine.tfrecords import inspection

__all__ = [
  "build_data",
  "first_batch",
  "read_scenes",
  "training_data",
  "user_faults",
]

_NUM_SPRITES = 20_000
_MAX_SCENES = 8  # that pictures compare

_LOG = logging.getLogger(__name__)


def build_data(entries: Mapping[str, Any], **overrides: Any) -> IODINEDataset:
  """Builds the dataset, in the order that the configuration's seed gives.

  The scenes of the demonstration are written first if they are not there.

  Args:
    entries: the whole configuration.
    **overrides: of the dataset's plan.

  Returns:
    The dataset; no file is opened.

  Raises:
    ConfigError: for a mistake in the plan, or if they cannot be written.
  """
  plan = {"seed": entries["seed"], **entries["data"], **overrides}
  dataset = resolution.build_part({"data": plan}, "data")
  if isinstance(dataset, Sprites):
    _write_missing_scenes(dataset)
  return dataset


def _write_missing_scenes(dataset: Sprites) -> None:
  """Writes the scenes that only this package makes."""
  path = pathlib.Path(str(dataset.path))
  if path.exists() or not isinstance(dataset.path, str):
    return
  _LOG.info("Writing %s scenes to %s", f"{_NUM_SPRITES:,}", path)
  try:
    generation.write_tfrecords(
      path,
      sprites.FEATURES,
      sprites.sample_scenes,
      num_scenes=_NUM_SPRITES,
      seed=0,
    )
  except OSError as error:
    raise ConfigError(f"data.path={str(path)!r}: {error}") from error


@contextlib.contextmanager
def user_faults(dataset: IODINEDataset) -> Iterator[None]:
  """Turns faults of data files into ConfigErrors."""
  try:
    yield
  except ConfigError:
    raise
  except inspection.READ_ERRORS as error:
    reason = inspection.explain(error, source=str(dataset))
    raise ConfigError(f"data: {reason}") from error
  except (OSError, ValueError) as error:
    raise ConfigError(f"data: {error}") from error


def first_batch(dataset: IODINEDataset) -> dict[str, Any]:
  """Reads the batch that pictures show; a fault of the files is the user's."""
  with user_faults(dataset):
    return next(iter(dataset("summary")))


def read_scenes(
  entries: Mapping[str, Any],
) -> tuple[IODINEDataset, dict[str, Any]]:
  """The dataset from the entry `scene` on, and a batch of it.

  The batch has 2 to 8 scenes, `batch_size` if that is possible.

  Raises:
    ConfigError: for a fault of the files, or if there is no such scene.
  """
  scene = entries["scene"]
  count = min(max(entries["batch_size"], 2), _MAX_SCENES)
  first = entries["data"].get("skip", 0) + scene - 1
  options = {"batch_size": count, "shuffle_buffer": None}
  dataset = build_data(entries, **options, skip=first, take=count)
  try:
    with user_faults(dataset):
      return dataset, next(iter(dataset("eval")))
  except ConfigError as error:
    if scene == 1 or not isinstance(error.__cause__, NoSceneError):
      raise
  others = build_data(entries, **options, take=scene)
  with user_faults(others):
    total = sum(int(batch["image"].shape[0]) for batch in others("eval"))
  raise ConfigError(
    f"scene={scene}: the data have {total} scenes; name one from 1 to {total}"
  )


def training_data(
  entries: Mapping[str, Any],
) -> tuple[IODINEDataset, dict[str, Any]]:
  """The dataset to train on, and the batch that pictures show.

  The first `held_out_scenes` are left to evaluation, and pictures show some of
  them, unless `data.skip` says otherwise or the file has no more than these.
  """
  dataset = build_data(entries)
  _build_cache(dataset)
  sample = first_batch(dataset)
  count = entries["held_out_scenes"]
  if count and "skip" not in entries["data"]:
    rest = build_data(entries, skip=count)
    try:
      with user_faults(rest):
        rest.batches()
    except ConfigError as error:
      if not isinstance(error.__cause__, NoSceneError):
        raise
      _LOG.warning(
        "%s has no more than held_out_scenes=%s: training on all scenes, so "
        "that none are left for evaluation",
        dataset,
        count,
      )
    else:
      return rest, sample
  return dataset, sample


def _build_cache(dataset: IODINEDataset) -> None:
  """Writes the cache, if there is to be one and it is not there yet."""
  if dataset.cache_dir is None:
    return
  with user_faults(dataset):
    total = dataset.estimated_num_examples()
    read = 0
    with progress(total, "scenes", _LOG) as update:

      def on_progress(num_read: int) -> None:
        nonlocal read
        update(num_read - read)
        read = num_read

      dataset.build_cache(on_progress)
