"""Draws scenes of the synthetic datasets, and what shifts make of them.

python -m scripts.draw_scenes datasets [--output docs/datasets.png]
python -m scripts.draw_scenes shifts [--output docs/shifts.png]
"""

import argparse
import functools
import io
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import iodine.quiet_tensorflow

import numpy as np

from iodine.data.datasets import (
  CLEVR,
  IODINEDataset,
  MultiDSprites,
  ObjectsRoom,
  Sprites,
  Tetrominoes,
)
from iodine.files import write_whole
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.masks import after_greys
from iodine.pictures.panels import clean_ax, new_figure, show_img, show_mask
from iodine.synthetic import __main__ as synthetic

_NUM_SCENES = "60"
_HELD_OUT = {"name": "held_out", "factors": {"color": 3, "shape": 1}}

# {label: panels}, each of which draws into given axes.
_Rows = dict[str, list[Callable[..., Any]]]


def _written(folder: pathlib.Path, *names: str) -> dict[str, pathlib.Path]:
  """Writes scenes of these datasets: {name: file}."""
  files = {name: folder / name for name in names}
  for name, file in files.items():
    synthetic.main([name, "--scenes", _NUM_SCENES, "--output", str(file)])
  return files


def _first(dataset: IODINEDataset) -> dict[str, np.ndarray]:
  """The first batch without its frames: {name: [B, ...]}."""
  batch = next(iter(dataset("eval")))
  return {name: batch[name][:, 0].numpy() for name in ("image", "mask")}


def _datasets(folder: pathlib.Path) -> _Rows:
  """Scenes, each beside its true masks."""
  files = _written(
    folder, "sprites", "tetrominoes", "multi_dsprites", "objects_room", "clevr"
  )
  options: dict[str, Any] = {"batch_size": 5, "shuffle_buffer": None}
  datasets = {
    "Sprites": Sprites(files["sprites"], **options),
    "Tetrominoes": Tetrominoes(files["tetrominoes"], **options),
    "dSprites": MultiDSprites(files["multi_dsprites"], **options),
    "Objects Room": ObjectsRoom(files["objects_room"], **options),
    "CLEVR": CLEVR(files["clevr"], **options),
  }
  rows: _Rows = {}
  for label, dataset in datasets.items():
    batch, panels = _first(dataset), rows.setdefault(label, [])
    for image, mask in zip(batch["image"], batch["mask"], strict=True):
      num_background = dataset.num_background_entities
      colors = after_greys(
        get_mask_plot_colors(len(mask) - num_background), num_background
      )
      panels += [
        functools.partial(show_img, image),
        functools.partial(show_mask, mask[..., 0], colors=colors),
      ]
  return rows


def _shifts(folder: pathlib.Path) -> _Rows:
  """Scenes before and after each shift."""
  files = _written(folder, "clevr", "multi_dsprites")
  options: dict[str, Any] = {"batch_size": 8, "shuffle_buffer": None}

  def clevr6(shift: str | Mapping | None) -> IODINEDataset:
    return CLEVR(files["clevr"], max_num_objects=6, shift=shift, **options)

  def dsprites(shift: str | None) -> IODINEDataset:
    return MultiDSprites(
      files["multi_dsprites"], max_num_objects=4, shift=shift, **options
    )

  datasets = {
    "CLEVR6": clevr6(None),
    "occlusion": clevr6("occlusion"),
    "crop": clevr6("crop"),
    "object_color": clevr6("object_color"),
    "more_objects": clevr6("more_objects"),
    "held_out": clevr6(_HELD_OUT),
    "dSprites": dsprites(None),
    "object_shape": dsprites("object_shape"),
  }
  return {
    label: [
      functools.partial(show_img, image) for image in _first(dataset)["image"]
    ]
    for label, dataset in datasets.items()
  }


_PICTURES = {"datasets": _datasets, "shifts": _shifts}


def main() -> None:
  """Writes the picture."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("picture", choices=_PICTURES)
  parser.add_argument(
    "--output", type=pathlib.Path, help="default: docs/PICTURE.png"
  )
  args = parser.parse_args()
  output = args.output or pathlib.Path("docs", f"{args.picture}.png")
  with tempfile.TemporaryDirectory() as folder:
    rows = _PICTURES[args.picture](pathlib.Path(folder))
  num_columns = max(map(len, rows.values()))
  figure, axes = new_figure(
    len(rows), num_columns, 1.0, 1.0, row_labels=list(rows)
  )
  for panels, row in zip(rows.values(), axes, strict=True):
    for ax in row[len(panels) :]:
      ax.set_visible(False)
    for panel, ax in zip(panels, row, strict=False):
      clean_ax(ax)
      panel(ax=ax)
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=120)
  write_whole(output, picture.getvalue())
  print(f"Wrote {output}")


if __name__ == "__main__":
  main()
