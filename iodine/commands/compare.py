"""Several trained models on the same scenes, beside each other."""

import dataclasses
import gc
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from iodine.commands.evaluate import enough_memory, score_scenes
from iodine.commands.visualize import infer_from, pictures_folder
from iodine.compiling import check_xla
from iodine.config import resolution
from iodine.data.datasets import IODINEDataset
from iodine.data.opening import (
  data_errors_as_config_errors,
  first_batch,
  scenes_from,
)
from iodine.errors import ConfigError
from iodine.evaluation import comparison, cost
from iodine.evaluation.comparison import Compared
from iodine.evaluation.report import aligned, check_paper
from iodine.files import new_files
from iodine.pictures import comparisons, page, sections
from iodine.pictures.saving import Album, forms
from iodine.progress import progress
from iodine.runs import checkpoint_files, loading
from iodine.scene_model import shows_decomposition
from iodine.training import replicas

__all__ = ["compare"]

JSON_FILE, MARKDOWN_FILE = "comparison.json", "comparison.md"
INDEX_FILE = "index.html"
PICTURES = ("decompositions.png", "slots.png")

# What a model's own dataset decides, of scenes of the same dataset.
_PREPROCESSING = (
  "image_dim",
  "crop_region",
  "grayscale",
  "half_pixel_centers",
)
# Options of a dataset that do not change which scenes there are.
_FREE = (
  *_PREPROCESSING,
  *("batch_size", "shuffle_buffer", "seed", "skip", "take", "cache_dir"),
  *("verify", "name", "path", "reader"),
)

_LOG = logging.getLogger(__name__)


class _Candidate(NamedTuple):
  """A model to compare, which is built when its turn comes.

  Attributes:
    path: as it was given.
    name: in tables and pictures.
    entries: of the model's own configuration.
    dataset: the scenes as this model is shown them.
    published: scores of `entries` for the same data.
  """

  path: str
  name: str
  entries: dict[str, Any]
  dataset: IODINEDataset
  published: Mapping[str, Any]

  def build(self) -> loading.Trained:
    """Builds the model, which predicts no factors."""
    trained = loading.build_trained(self.entries)
    # Those that it was trained for may not be those of these scenes.
    trained.model.factor_evaluator = None
    return trained._replace(dataset=self.dataset)


def compare(entries: Mapping[str, Any]) -> list[Compared]:
  """Scores and draws several models on the same scenes.

  One model at a time is in memory.

  Args:
    entries: the whole configuration, whose scenes are used; `checkpoints` are
      the models, each with the configuration that it was trained with.

  Returns:
    Scores and costs, in the order of `checkpoints`. Table, pictures and a page
    of them are in `pictures_dir`/<the data's name>/compare, where they replace
    earlier ones together, when everything is done.

  Raises:
    ConfigError: lists what is wrong with the checkpoints, before any of them is
      scored, or names a mistake in data or configuration.
    RunError: if a batch needs more memory than there is.
  """
  replicas.warn_without_gpu()
  _check_choices(entries)
  (scenes,) = resolution.build(entries, ("data",))
  candidates = _candidates(entries, scenes)
  numbers = _check_data(entries, candidates)
  _check_fit(candidates)
  if entries["xla"]:
    check_xla()
  folder = pictures_folder(entries, scenes, "compare")
  files = [*forms(*PICTURES), JSON_FILE, MARKDOWN_FILE, INDEX_FILE]
  with new_files(folder, files) as new:
    models, drawn = [], []
    for candidate in candidates:
      _LOG.info("%s: %s", candidate.name, candidate.entries["checkpoint_dir"])
      with enough_memory(entries["batch_size"]):
        model, decomposed = _measure(entries, candidate)
      models.append(model)
      drawn += [decomposed] if decomposed else []
      gc.collect()  # the model, whose parts refer to each other
    _write(entries, scenes, models, drawn, numbers, new)
  _LOG.info("Wrote %s", folder / INDEX_FILE)
  return models


def _check_choices(entries: Mapping[str, Any]) -> None:
  """Raises ConfigError unless there are checkpoints, and a name for each."""
  paths, names = entries["checkpoints"], entries["names"]
  if not paths:
    raise ConfigError(
      "checkpoints: missing; name the models to compare, such as "
      "checkpoints=[demo,checkpoints/mine_1]"
    )
  if names is not None and len(names) != len(paths):
    raise ConfigError(
      f"names={list(names)}: {len(names)} for {len(paths)} checkpoints; give "
      "one to each"
    )
  for key in ("checkpoints", "names"):
    given = list(entries[key] or ())
    if repeated := sorted({x for x in given if given.count(x) > 1}):
      raise ConfigError(f"{key}={given}: {repeated[0]!r} is there twice")


# --- What is checked before any work ------------------------------------------


def _candidates(
  entries: Mapping[str, Any], scenes: IODINEDataset
) -> list[_Candidate]:
  """Finds all models, with their configurations, and builds each once."""
  found, faults = [], []
  for path in entries["checkpoints"]:
    try:
      own = loading.entries_of(path)
      trained = loading.build_trained(own)
      dataset = _as_trained(scenes, trained)
      published: Mapping[str, Any] = {}
      if _has_same_scenes(trained.dataset, scenes):
        published = own["paper_scores"] or {}
        check_paper(published)
    except ConfigError as error:
      faults.append(_fault(path, error))
      continue
    dataset = dataset.variant(
      batch_size=entries["batch_size"], shuffle_buffer=None
    )
    name = _own_name(trained)
    found.append(_Candidate(path, name, own, dataset, published))
  if faults:
    raise ConfigError("\n".join(faults))
  names = entries["names"] or _distinct(found)
  return [c._replace(name=name) for c, name in zip(found, names, strict=True)]


def _fault(path: str, error: ConfigError) -> str:
  told = str(error)
  return f"checkpoints: {told if told.startswith(path) else f'{path}: {told}'}"


def _as_trained(
  scenes: IODINEDataset, trained: loading.Trained
) -> IODINEDataset:
  """The scenes in the form that a model was trained on.

  Raises:
    ConfigError: if they have none.
  """
  own, kind = trained.dataset, type(trained.model).__name__
  if type(own) is type(scenes):
    options = {key: getattr(own, key) for key in _PREPROCESSING}
    try:
      scenes = dataclasses.replace(scenes, **options)
    except ValueError as error:
      raise ConfigError(str(error)) from error
  shown, seen = _image_shape(scenes), _image_shape(own)
  if shown != seen:
    raise ConfigError(
      f"this {kind} was trained on images of {_times(seen)} ({own}), and the "
      f"scenes to compare on are of {_times(shown)} ({scenes}); choose a "
      "configuration of its data, or one with images of that size"
    )
  if trained.model.num_frames > scenes.num_frames:
    raise ConfigError(
      f"this {kind} needs {trained.model.num_frames} frames, and {scenes} has "
      f"{scenes.num_frames}; choose a configuration of its data"
    )
  return scenes


def _image_shape(dataset: IODINEDataset) -> tuple[int, int, int]:
  height, width = dataset.image_dim
  return height, width, dataset.num_channels


def _times(sizes: Sequence[int]) -> str:
  return " x ".join(map(str, sizes))


def _has_same_scenes(own: IODINEDataset, scenes: IODINEDataset) -> bool:
  """Whether two datasets differ in preprocessing and files alone."""
  return type(own) is type(scenes) and all(
    getattr(own, field.name) == getattr(scenes, field.name)
    for field in dataclasses.fields(scenes)
    if field.name not in _FREE
  )


def _own_name(trained: loading.Trained) -> str:
  folder = pathlib.Path(trained.prefix).parent
  return f"{type(trained.model).__name__} {folder.resolve().name}"


def _distinct(candidates: Sequence[_Candidate]) -> list[str]:
  """The models' own names, with their paths where these are the same."""
  names = [candidate.name for candidate in candidates]
  return [
    f"{c.name} ({c.path})" if names.count(c.name) > 1 else c.name
    for c in candidates
  ]


def _check_data(
  entries: Mapping[str, Any], candidates: Sequence[_Candidate]
) -> list[int]:
  """Reads the scenes of the pictures; returns their numbers, from 1 on."""
  first = entries["scene"]
  for candidate in candidates:
    batch = scenes_from(candidate.dataset, first, entries["batch_size"])
  return list(range(first, first + len(batch["image"])))


def _check_fit(candidates: Sequence[_Candidate]) -> None:
  """Restores each model once, and raises ConfigError where one does not fit."""
  faults = []
  with progress(len(candidates), "checkpoints checked", _LOG) as update:
    for candidate in candidates:
      try:
        candidate.build().restore(is_logged=False)
      except ConfigError as error:
        faults.append(_fault(candidate.path, error))
      gc.collect()
      update()
  if faults:
    raise ConfigError("\n".join(faults))


# --- The work -----------------------------------------------------------------


def _measure(
  entries: Mapping[str, Any], candidate: _Candidate
) -> tuple[Compared, comparisons.Decomposed | None]:
  """Restores a model, and takes its costs, scores and pictures."""
  trained = candidate.build()
  model, dataset = trained.model, trained.dataset
  image = first_batch(dataset)["image"]
  with progress(
    cost.NUM_CALLS, "timed batches", _LOG, first_compiles=True
  ) as update:
    costs = cost.measure(
      model,
      lambda: trained.restore(is_logged=False),
      image,
      entries["seed"],
      update,
    )
  scored = dataset.variant(take=entries["num_scenes"])
  if entries["protocol"] is not None:
    with data_errors_as_config_errors(scored):
      scored = scored.with_stored_masks()
  evaluation = score_scenes(entries, model, scored)
  batch = scenes_from(dataset, entries["scene"], entries["batch_size"])
  info = infer_from(entries, model, batch)
  decomposed = None
  if shows_decomposition(info):
    decomposed = comparisons.of_info(
      candidate.name, info, model.num_background_entities
    )
  compared = Compared(
    name=candidate.name,
    checkpoint=trained.prefix,
    kind=type(model).__name__,
    image_shape=_image_shape(dataset),
    num_components=model.num_components,
    num_refinements=model.num_refinements,
    evaluation=evaluation,
    cost=costs,
    published=candidate.published,
  )
  return compared, decomposed


def _write(
  entries: Mapping[str, Any],
  scenes: IODINEDataset,
  models: Sequence[Compared],
  drawn: Sequence[comparisons.Decomposed],
  numbers: Sequence[int],
  folder: pathlib.Path,
) -> None:
  """Prints the table, and writes it with the pictures and the page."""
  table = comparison.table(models)
  notes = comparison.notes(models, entries["batch_size"], _device())
  print("\n".join([aligned(table), *notes]))
  title = f"{len(models)} models on {scenes.name}"
  if entries["protocol"] is not None:
    title += f", protocol {entries['protocol']}"
  shown = [page.Section("Scores", " ".join(notes), table=table)]
  if drawn:
    album = Album(folder, entries["pictures_format"])
    shown.append(sections.comparison(drawn, numbers, album, PICTURES))
  html = page.page(
    title,
    f"The first {models[0].evaluation.scenes:,} scenes of the file that pass "
    "the configuration's filter, as each model was trained to see them.",
    [
      (model.name, checkpoint_files.short_name(model.checkpoint))
      for model in models
    ],
    shown,
  )
  files = {
    JSON_FILE: comparison.json_text(models, entries),
    MARKDOWN_FILE: comparison.markdown(models, title, notes),
    INDEX_FILE: html,
  }
  for name, text in files.items():
    (folder / name).write_text(text, encoding="utf-8")


def _device() -> str:
  gpus = tf.config.list_physical_devices("GPU")
  if not gpus:
    return "the CPU"
  details = tf.config.experimental.get_device_details(gpus[0])
  return details.get("device_name", "a GPU")
