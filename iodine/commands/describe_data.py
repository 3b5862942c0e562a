"""What the data files hold."""

import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from iodine.config import resolution
from iodine.data import description as data_description
from iodine.data import opening
from iodine.files import make_folder
from iodine.pictures import scenes as scene_pictures
from iodine.progress import progress

__all__ = ["describe_data"]

_NUM_SHOWN = 12  # scenes in the picture

_LOG = logging.getLogger(__name__)


def describe_data(entries: Mapping[str, Any]) -> pathlib.Path:
  """Prints what the data files hold; draws twelve scenes.

  Args:
    entries: the whole configuration; the first `num_scenes` scenes count.

  Returns:
    The picture, in `pictures_dir`.
  """
  (dataset,) = resolution.build(entries, ("data",))
  opening.prepare(dataset)
  with opening.data_errors_as_config_errors(dataset):
    print(f"{dataset.name}, {type(dataset).__name__}")
    print("\n".join(data_description.format_files(dataset)), flush=True)
    scenes = dataset.examples().take(entries["num_scenes"])
    with progress(entries["num_scenes"], "scenes", _LOG) as update:
      statistics = data_description.collect(dataset, _counted(scenes, update))
    lines = data_description.format_statistics(dataset, statistics)
    print("\n".join(lines))
    shown = dataset.variant(batch_size=_NUM_SHOWN, shuffle_buffer=None)
    batch = next(iter(shown("eval")))
  folder = pathlib.Path(entries["pictures_dir"]).expanduser()
  make_folder(folder, "pictures_dir")
  path = folder / f"{dataset.name}_scenes.png"
  masks = batch["mask"][:, 0, ..., 0].numpy() if "mask" in batch else None
  figure = scene_pictures.scenes_plot(batch["image"][:, 0].numpy(), masks)
  figure.savefig(path, dpi=150)
  _LOG.info("Wrote %s", path)
  return path


def _counted(
  items: Iterable[Any], update: Callable[[int], object]
) -> Iterator[Any]:
  for item in items:
    yield item
    update(1)
