"""Pictures of what a checkpoint has learned: the commands that draw them."""

import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from iodine import exploration
from iodine.data.datasets import IODINEDataset, NoSceneError
from iodine.data.opening import build_data, user_faults
from iodine.errors import ConfigError
from iodine.files import new_files
from iodine.modules.iodine import IODINE
from iodine.pictures import animations, curves, decompositions, page
from iodine.pictures import latents as latent_pictures
from iodine.pictures import scenes as scene_pictures
from iodine.pictures.page import Section
from iodine.runs import loading, summaries

__all__ = ["traverse", "visualize"]

INDEX_FILE = "index.html"
# What `visualize` writes, in the order of the page.
_PICTURES = (
  *("decomposition.png", "refinement.gif", "refinement.png", "scores.png"),
  *("inputs.png", "traversal.gif", "traversal.png", "removal.png", "swap.png"),
  *("samples.png", "training.png"),
)
_MAX_SCENES = 8  # that latents are compared over
_SHOWN_SCENES = 4
_NUM_SAMPLES = 12
_SMOOTH_VALUES = 15  # of a latent, in an animation
_DPI = 100
# Scalars of training in the order of their panels, and what they are.
_CURVES = {
  "loss/total": "total loss (nats)",
  "loss/recons": "reconstruction loss (nats)",
  "loss/kl": "KL (nats)",
  "loss/mse": "MSE",
  "loss/ari_nobg": "ARI without background",
  "loss/ari": "ARI",
}

_LOG = logging.getLogger(__name__)


def visualize(entries: Mapping[str, Any]) -> pathlib.Path:
  """Draws what a checkpoint has learned, and a page that shows the pictures.

  Args:
    entries: the whole configuration; of the data, the scenes from `scene` on
      count, at most eight.

  Returns:
    The page, in `pictures_dir`/<the data's name>/visualize. It replaces an
    earlier one with all pictures at once, when everything is drawn.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration.
  """
  dataset, batch = _read_scenes(entries)
  model, prefix = loading.restored_model(entries, dataset)
  folder = _folder(entries, dataset, "visualize")
  with new_files(folder, [*_PICTURES, INDEX_FILE]) as new:
    info = exploration.infer(model, batch, entries["seed"])
    sections = list(_draw(entries, model, info, prefix, new))
    text = page.page(
      f"What IODINE makes of {dataset.name}",
      f"IODINE explains an image by {model.num_components} slots. Every slot "
      "has a latent that is decoded to a picture and a mask; a refinement "
      "network improves all latents together, step by step, without ever being "
      "told what an object is.",
      _facts(entries, dataset, model, prefix),
      sections,
    )
    (new / INDEX_FILE).write_text(text, encoding="utf-8")
  _LOG.info("Wrote %s", folder / INDEX_FILE)
  return folder / INDEX_FILE


def traverse(entries: Mapping[str, Any]) -> pathlib.Path:
  """Draws what latents of a slot do, as a picture and as an animation.

  Args:
    entries: the whole configuration; `scene`, `slot` and `latents` choose.

  Returns:
    The picture, in `pictures_dir`/<the data's name>/traverse; the animation
    lies beside it.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration.
  """
  dataset, batch = _read_scenes(entries)
  model, _ = loading.restored_model(entries, dataset)
  folder = _folder(entries, dataset, "traverse")
  info = exploration.infer(model, batch, entries["seed"])
  slot = _slot(entries, info)
  name = f"scene_{entries['scene']}_slot_{slot + 1}"
  with new_files(folder, [f"{name}.gif", f"{name}.png"]) as new:
    _draw_traversal(entries, model, info, new, name)
  path = folder / f"{name}.png"
  _LOG.info("Wrote %s and %s", path, path.with_suffix(".gif"))
  return path


def _read_scenes(
  entries: Mapping[str, Any],
) -> tuple[IODINEDataset, dict[str, Any]]:
  """The dataset from `scene` on, and a batch of it."""
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


def _slot(entries: Mapping[str, Any], info: Mapping[str, Any]) -> int:
  """The chosen slot, counted from 0."""
  if entries["slot"] is None:
    return exploration.object_slot(info)
  return entries["slot"] - 1


def _facts(
  entries: Mapping[str, Any],
  dataset: IODINEDataset,
  model: IODINE,
  prefix: str,
) -> list[tuple[str, str]]:
  height, width = dataset.image_dim
  return [
    ("Checkpoint", prefix),
    ("Images", f"{height} x {width} pixels, from scene {entries['scene']} on"),
    ("Slots", str(model.num_components)),
    ("Refinement steps", str(model.num_iters)),
    ("Size of a latent", str(model.n_z)),
    ("Seed", str(entries["seed"])),
  ]


def _draw(
  entries: Mapping[str, Any],
  model: IODINE,
  info: Mapping[str, Any],
  prefix: str,
  folder: pathlib.Path,
) -> Iterator[Section]:
  """Draws the pictures of the page, one section after the other."""
  yield _draw_decomposition(info, folder, "decomposition.png")
  yield _draw_refinement(info, folder)
  yield _draw_scores(info, folder)
  _save(decompositions.inputs_plot(info, t=-1, size=1.2), folder, "inputs.png")
  yield Section(
    "What the refinement network sees",
    "The inputs that led to the last step, for the first scene: the image, "
    "what the slots make of it, gradients of the loss with respect to pictures "
    "and masks, how likely each pixel is, and how likely it would be without a "
    "slot. Inputs in a black frame are the same for all slots.",
    ["inputs.png"],
  )
  yield _draw_traversal(entries, model, info, folder, "traversal")
  yield _draw_edits(entries, info, folder)
  samples = exploration.prior_samples(model, _NUM_SAMPLES, entries["seed"])
  figure = scene_pictures.scenes_plot(samples.recons, samples.masks[..., 0])
  _save(figure, folder, "samples.png")
  yield Section(
    "Samples of the prior",
    "Scenes of random latents, each above its masks. The slots are drawn "
    "without regard to one another, so that objects may overlap or be missing.",
    ["samples.png"],
  )
  scalars = summaries.read_scalars(pathlib.Path(prefix).parent)
  if scalars:
    names = [name for name in _CURVES if name in scalars]
    names += sorted(set(scalars) - set(names))
    labelled = {_CURVES.get(name, name): scalars[name] for name in names}
    _save(curves.curves_plot(labelled), folder, "training.png")
    yield Section(
      "Training",
      "Scalars over training steps, from the event files beside the "
      "checkpoint, and their running means.",
      ["training.png"],
    )


def _draw_decomposition(
  info: Mapping[str, Any], folder: pathlib.Path, name: str
) -> Section:
  _save(decompositions.scenes_decomposition_plot(info), folder, name)
  told = ""
  if "true_mask" in info["data"]:
    told = (
      " ARI compares the masks with the true ones over the pixels of objects: "
      "1 is perfect, 0 is chance."
    )
  return Section(
    "Decomposition",
    "A row for each scene: the image, its reconstruction, which slot explains "
    "which pixel, and every slot where its mask is. A slot keeps its colour in "
    f"all pictures of this page.{told}",
    [name],
  )


def _draw_refinement(info: Mapping[str, Any], folder: pathlib.Path) -> Section:
  scenes = range(min(_SHOWN_SCENES, len(info["data"]["image"])))
  animation = animations.refinement_frames(info, scenes)
  animations.save_gif(folder / "refinement.gif", animation)
  figure = decompositions.iterations_plot(info, mask_components=True, size=1.4)
  _save(figure, folder, "refinement.png")
  return Section(
    "Refinement",
    "How the decomposition comes about. In motion: image, reconstruction, "
    "masks and slots of several scenes; the bar below counts the steps. "
    "Standing still: every step of the first scene. All scenes start from the "
    "same learned distribution of latents.",
    ["refinement.gif", "refinement.png"],
  )


def _draw_scores(info: Mapping[str, Any], folder: pathlib.Path) -> Section:
  scores = exploration.step_scores(info)
  _save(
    curves.scores_plot(scores, num_cols=3, size=3.0),
    folder,
    "scores.png",
  )
  return Section(
    "Scores over refinement steps",
    f"Means over {len(info['data']['image'])} scenes; step 0 comes before the "
    "first refinement.",
    ["scores.png"],
  )


def _draw_traversal(
  entries: Mapping[str, Any],
  model: IODINE,
  info: Mapping[str, Any],
  folder: pathlib.Path,
  name: str,
) -> Section:
  """Draws <name>.gif and <name>.png."""
  slot, latents = _slot(entries, info), entries["latents"]
  smooth = exploration.traverse(
    model, info, slot, latents=latents, num_values=_SMOOTH_VALUES
  )
  animation = animations.traversal_frames(smooth)
  animations.save_gif(folder / f"{name}.gif", animation)
  traversal = exploration.traverse(model, info, slot, latents=latents)
  _save(latent_pictures.traversal_plot(traversal), folder, f"{name}.png")
  shown = ", ".join(map(str, traversal.latents))
  return Section(
    "Latent traversal",
    f"Slot {slot + 1} of the first scene as one of its latents varies and all "
    "others stay: the slot alone, and the scene with it. In motion: latents "
    f"{shown}, from left to right. KL is what a latent tells beyond the prior, "
    "in nats, on average over slots and scenes.",
    [f"{name}.gif", f"{name}.png"],
  )


def _draw_edits(
  entries: Mapping[str, Any], info: Mapping[str, Any], folder: pathlib.Path
) -> Section:
  removal = exploration.remove_slots(info)
  _save(latent_pictures.removal_plot(removal), folder, "removal.png")
  text = (
    "The first scene without each of its slots in turn: the other slots fill "
    "in, as their masks say."
  )
  if len(info["data"]["image"]) < 2:
    return Section("Editing a scene", text, ["removal.png"])
  swap = exploration.swap_slots(
    info,
    (0, _slot(entries, info)),
    (1, exploration.object_slot(info, 1)),
  )
  _save(latent_pictures.swap_plot(swap), folder, "swap.png")
  text += " Then two scenes that swap a slot, an object in most cases."
  return Section("Editing scenes", text, ["removal.png", "swap.png"])


def _save(figure: Figure, folder: pathlib.Path, name: str) -> None:
  figure.savefig(folder / name, dpi=_DPI)


def _folder(
  entries: Mapping[str, Any], dataset: IODINEDataset, command: str
) -> pathlib.Path:
  root = pathlib.Path(entries["pictures_dir"]).expanduser()
  return root / dataset.name / command
