"""The decomposition of your own image."""

import itertools
import logging
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from iodine import checks, exploration
from iodine.commands.evaluate import EVALUATION_FOLDER
from iodine.commands.visualize import pictures_folder
from iodine.data import image_files
from iodine.data.opening import data_errors_as_config_errors
from iodine.errors import ConfigError
from iodine.evaluation import report
from iodine.files import new_files, plain_name, source_of
from iodine.metrics import SCENE_SCORES
from iodine.pictures import animations, sections
from iodine.pictures.masks import segmentation
from iodine.pictures.saving import Album, forms
from iodine.runs import loading, summaries
from iodine.scene_model import shows_decomposition

__all__ = ["decompose", "save_image"]

OVERVIEW_FILE = "overview.png"

_LOG = logging.getLogger(__name__)

_SLOT_PIXELS = 256  # about the height of a slot's own file
_UNLIKE = 4.0  # times the MSE of its data: that of a picture unlike them


def decompose(entries: Mapping[str, Any]) -> pathlib.Path:
  """Decomposes the image in a file.

  Prints how well the picture is reconstructed, and scenes of the data that the
  model was trained on.

  Args:
    entries: the whole configuration, of which `image` names the file and `fit`
      says what is done to one of another aspect ratio.

  Returns:
    A folder, `pictures_dir`/<the data's name>/decompose/<the file's name>, of
    image.png, reconstruction.png, masks.png, slot_1.png and so on, transparent
    where their masks are, and overview.png. Where another file of that name has
    its pictures there, a number follows the name.

  Raises:
    ConfigError: for a mistake in image, checkpoint or configuration.
  """
  if not entries["image"]:
    raise ConfigError("image: missing; name a picture, image=PATH")
  path = pathlib.Path(entries["image"]).expanduser()
  trained = loading.open_trained(entries)
  model, dataset, prefix = trained
  with data_errors_as_config_errors(dataset):
    grayscale = dataset.num_channels == 1
  try:
    pixels = image_files.load_image(
      path, dataset.image_dim, grayscale, fit=entries["fit"]
    )
    _tell_of_fit(image_files.image_size(path), dataset.image_dim, entries)
  except (OSError, image_files.ImageFileError) as error:
    raise ConfigError(f"image: {error}") from error
  trained.restore()
  batch = dataset.image_batch(pixels)
  # For some a video, in which nothing moves.
  batch["image"] = tf.repeat(batch["image"], model.num_frames, axis=1)
  source = os.path.realpath(path)
  folder = _own_folder(
    pictures_folder(entries, dataset, "decompose"), path.stem, source
  )
  files = ["image.png", "reconstruction.png", "masks.png", "slot_*.png"]
  files += forms(OVERVIEW_FILE)
  with new_files(folder, files, source) as new:
    info = exploration.infer(model, batch, entries["seed"])
    if not shows_decomposition(info):
      raise ConfigError(
        f"decompose: a {type(model).__name__} does not reconstruct images"
      )
    _save_slots(new, info)
    album = Album(new, entries["pictures_format"])
    sections.decomposition(model, info, album, OVERVIEW_FILE)
  _print_scores(info, pathlib.Path(prefix).parent)
  _LOG.info("Wrote %s", folder)
  return folder


def _tell_of_fit(
  stored: tuple[int, int], size: Sequence[int], entries: Mapping[str, Any]
) -> None:
  """Logs what is done to a picture of another aspect ratio."""
  if stored[0] * size[1] == stored[1] * size[0]:
    return
  fit = entries["fit"]
  others = [f"fit={name}" for name in checks.FITS if name != fit]
  _LOG.info(
    "%s x %s pixels become %s x %s by fit=%s; see `help fit` for %s",
    *stored,
    *size,
    fit,
    " and ".join(others),
  )


def _print_scores(info: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Prints scores of the picture beside those of scenes, in a run's folder."""
  metrics, losses = info["metrics"], info.get("losses", {})
  own = {"mse": float(metrics["mse"][0, -1])}
  if {"recons", "kl"} <= losses.keys():
    elbo = -losses["recons"][0, -1] - losses["kl"][0, -1].sum()
    own["elbo"] = float(elbo)
  usual, source = _usual_scores(folder)
  for name, value in own.items():
    line = f"{SCENE_SCORES[name]}: {value:.4g}"
    if name in usual:
      line += f" (its data: {usual[name]:.4g}, {source})"
    print(line)
  if own["mse"] > _UNLIKE * usual.get("mse", math.inf):
    _LOG.warning("This picture is unlike what the model was trained on")


def _usual_scores(folder: pathlib.Path) -> tuple[dict[str, float], str]:
  """Mean scores of the data that a run was trained on, and whence they are."""
  if stored := report.stored_means(folder / EVALUATION_FOLDER):
    means, scenes = stored
    return means, f"evaluation of {scenes:,} scenes"
  scalars = summaries.read_scalars(folder)
  if "loss/mse" not in scalars:
    return {}, ""
  values = scalars["loss/mse"][1]
  last = values[-max(1, len(values) // 10) :]
  return {"mse": float(np.mean(last))}, "end of training"


def _own_folder(parent: pathlib.Path, stem: str, source: str) -> pathlib.Path:
  """The folder of an image, by the stem of its file's name."""
  name = plain_name(stem)
  names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))
  folders = (parent / name for name in names)
  return next(f for f in folders if source_of(f) in (None, source))


def _save_slots(folder: pathlib.Path, info: Mapping[str, Any]) -> None:
  """Saves image, reconstruction, masks and slots, magnified."""
  outputs = {k: v[0, -1] for k, v in info["outputs"].items()}
  masks = outputs["pred_mask"]
  save_image(folder / "image.png", info["data"]["image"][0, -1])
  save_image(folder / "reconstruction.png", outputs["recons"][0])
  colors = segmentation(np.moveaxis(masks[..., 0], 0, -1))
  save_image(folder / "masks.png", colors)
  for k, component in enumerate(outputs["components"]):
    rgb = np.broadcast_to(component, (*component.shape[:2], 3))
    rgba = np.concatenate([rgb, masks[k]], axis=-1)
    save_image(folder / f"slot_{k + 1}.png", rgba)


def save_image(path: pathlib.Path, image: np.ndarray) -> None:
  """Saves [H, W, 1, 3 or 4], floats in [0, 1], every pixel as a square."""
  pixels = np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
  factor = animations.magnification(len(pixels), _SLOT_PIXELS)
  pixels = animations.upscale(pixels, factor)
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
    path
  )
