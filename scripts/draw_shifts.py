"""Draws scenes of the synthetic datasets before and after each shift.

python -m scripts.draw_shifts [--output docs/shifts.png]
"""

import argparse
import io
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import iodine.quiet_tensorflow

import numpy as np

from iodine.data.datasets import CLEVR, IODINEDataset, MultiDSprites
from iodine.files import write_whole
from iodine.pictures.panels import clean_ax, new_figure, show_img
from iodine.synthetic import clevr, generation, multi_dsprites

_NUM_COLUMNS = 8
_NUM_CLEVR = 60
_NUM_SPRITES = 50
_HELD_OUT = {"name": "held_out", "factors": {"color": 3, "shape": 1}}


def _rows(folder: pathlib.Path) -> list[tuple[str, np.ndarray]]:
  """Labels, and images [N, H, W, C] of as many scenes as a row has."""
  files = {name: folder / name for name in ("clevr", "sprites")}
  generation.write_tfrecords(
    files["clevr"],
    clevr.FEATURES,
    clevr.sample_scenes,
    num_scenes=_NUM_CLEVR,
    seed=0,
  )
  generation.write_tfrecords(
    files["sprites"],
    multi_dsprites.features(),
    multi_dsprites.sample_scenes,
    num_scenes=_NUM_SPRITES,
    seed=0,
  )
  options: dict[str, Any] = {"batch_size": _NUM_COLUMNS, "shuffle_buffer": None}

  def clevr6(shift: str | Mapping | None) -> IODINEDataset:
    return CLEVR(files["clevr"], max_num_objects=6, shift=shift, **options)

  def sprites(shift: str | None) -> IODINEDataset:
    return MultiDSprites(
      files["sprites"], max_num_objects=4, shift=shift, **options
    )

  datasets = [
    ("CLEVR6", clevr6(None)),
    ("occlusion", clevr6("occlusion")),
    ("crop", clevr6("crop")),
    ("object_color", clevr6("object_color")),
    ("more_objects", clevr6("more_objects")),
    ("held_out", clevr6(_HELD_OUT)),
    ("dSprites", sprites(None)),
    ("object_shape", sprites("object_shape")),
  ]
  return [
    (label, next(iter(dataset("eval")))["image"][:, 0].numpy())
    for label, dataset in datasets
  ]


def main() -> None:
  """Writes the picture."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--output", type=pathlib.Path, default=pathlib.Path("docs/shifts.png")
  )
  output = parser.parse_args().output
  with tempfile.TemporaryDirectory() as folder:
    rows = _rows(pathlib.Path(folder))
  figure, axes = new_figure(
    len(rows), _NUM_COLUMNS, 1.0, 1.0, row_labels=[label for label, _ in rows]
  )
  for (_, images), row in zip(rows, axes, strict=True):
    for i, ax in enumerate(row):
      clean_ax(ax)
      if i < len(images):
        show_img(images[i], ax=ax)
      else:
        ax.set_visible(False)
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=120)
  write_whole(output, picture.getvalue())
  print(f"Wrote {output}")


if __name__ == "__main__":
  main()
