"""What the data files hold."""

import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from iodine.config import resolution
from iodine.data import description as data_description
from iodine.data import opening, shifts
from iodine.data.pipeline import IODINEDataset
from iodine.files import make_folder
from iodine.pictures import scenes as scene_pictures
from iodine.pictures.saving import replace
from iodine.progress import progress

__all__ = ["describe_data"]

_NUM_SHOWN = 12  # scenes in the picture

_LOG = logging.getLogger(__name__)


def describe_data(entries: Mapping[str, Any]) -> pathlib.Path:
  """Prints what the data files hold; draws twelve scenes.

  Args:
    entries: the whole configuration; the first `num_scenes` scenes count.

  Returns:
    The picture, in `pictures_dir`. It shows scenes after a shift; what is
    printed is of the files, before it.
  """
  (dataset,) = resolution.build(entries, ("data",))
  opening.prepare(dataset)
  # Only what reads is in these blocks: a closed pipe is no fault of the data.
  with opening.data_errors_as_config_errors(dataset):
    lines = data_description.format_files(dataset)
    dataset.check_shift()
  print(f"{dataset.name}, {type(dataset).__name__}")
  print("\n".join(lines), flush=True)
  with opening.data_errors_as_config_errors(dataset):
    scenes = iter(dataset.examples().take(entries["num_scenes"]))
  with progress(entries["num_scenes"], "scenes", _LOG) as update:
    read = _counted(dataset, scenes, update)
    statistics = data_description.collect(dataset, read)
  lines = data_description.format_statistics(dataset, statistics)
  print("\n".join(lines), flush=True)
  with opening.data_errors_as_config_errors(dataset):
    shown = dataset.variant(batch_size=_NUM_SHOWN, shuffle_buffer=None)
    batch = next(iter(shown("eval")))
  folder = pathlib.Path(entries["pictures_dir"]).expanduser()
  make_folder(folder, "pictures_dir")
  shift = shifts.resolve(dataset.shift)
  names = [dataset.name, None if shift is None else shift.name, "scenes.png"]
  path = folder / "_".join(filter(None, names))
  masks = batch["mask"][:, 0, ..., 0].numpy() if "mask" in batch else None
  figure = scene_pictures.scenes_plot(
    batch["image"][:, 0].numpy(),
    masks,
    num_background=dataset.num_background_entities,
  )
  replace(figure, folder, path.name, entries["pictures_format"])
  _LOG.info("Wrote %s", path)
  return path


def _counted(
  dataset: IODINEDataset, scenes: Iterator[Any], update: Callable[[int], object]
) -> Iterator[Any]:
  """Reads scenes; errors of the data become ConfigErrors."""
  while True:
    with opening.data_errors_as_config_errors(dataset):
      try:
        scene = next(scenes)
      except StopIteration:
        return
    yield scene
    update(1)
