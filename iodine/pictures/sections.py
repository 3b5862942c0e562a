"""Picture files, each with a text that explains it.

Every function writes files named as in `PICTURES` to a folder, and returns a
section of a page. `info` is the result of `exploration.infer`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from iodine import exploration
from iodine.pictures import animations, curves, decompositions
from iodine.pictures import latents as latent_pictures
from iodine.pictures import scenes as scene_pictures
from iodine.pictures.page import Section
from iodine.scene_model import SceneModel, shows_decomposition

__all__ = ["PICTURES", "can_traverse", "decomposition", "sections", "traversal"]

# Pictures that a page may show, in this order.
PICTURES = (
  "decomposition.png",
  "refinement.gif",
  "refinement.png",
  "scores.png",
  "inputs.png",
  "traversal.gif",
  "traversal.png",
  "removal.png",
  "swap.png",
  "samples.png",
  "training.png",
)
_SHOWN_SCENES = 4
_NUM_SAMPLES = 12
_SMOOTH_VALUES = 15  # number of values of a latent in an animation
_DPI = 100
# Scalars of training in the order of their panels, with titles.
_CURVES = {
  "loss/total": "total loss",
  "loss/recons": "reconstruction loss (nats)",
  "loss/kl": "KL (nats)",
  "loss/mse": "MSE",
  "loss/ari_nobg": "ARI without background",
  "loss/ari": "ARI",
}


def sections(
  model: SceneModel,
  info: Mapping[str, Any],
  folder: pathlib.Path,
  slot: int,
  latents: Sequence[int] | None,
  seed: int,
  scalars: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> Iterator[Section]:
  """Draws all pictures that model and data allow.

  Args:
    model: model that inferred `info`.
    info: result of `exploration.infer`.
    folder: folder for the pictures.
    slot: slot of the first scene to traverse and to swap.
    latents: latents to traverse; None: those with the highest KL.
    seed: seed of the samples.
    scalars: scalars of training, {name: (steps, values)}.

  Yields:
    The sections, in the order of `PICTURES`.
  """
  draws, has_steps = shows_decomposition(info), model.num_steps > 1
  if draws:
    yield decomposition(info, folder, "decomposition.png")
  if draws and has_steps:
    yield _refinement(info, folder)
  if has_steps:
    yield _scores(info, folder)
  if "inputs" in info:
    yield _inputs(info, folder)
  if can_traverse(model, info):
    yield traversal(model, info, folder, "traversal", slot, latents)
  if "pred_mask_logits" in info["outputs"]:
    yield _edits(info, folder, slot)
  if model.can("sample"):
    yield _samples(model, folder, seed)
  if scalars:
    yield _training(scalars, folder)


def can_traverse(model: SceneModel, info: Mapping[str, Any]) -> bool:
  """Whether a slot's latents can be varied individually."""
  has_posterior = "z_mean" in info.get("latent", {})
  return has_posterior and model.can("decode_slots") and model.prior is not None


def decomposition(
  info: Mapping[str, Any], folder: pathlib.Path, name: str
) -> Section:
  """Draws every scene beside its decomposition."""
  _save(decompositions.scenes_decomposition_plot(info), folder, name)
  about_ari = ""
  if "true_mask" in info["data"]:
    about_ari = (
      " ARI compares the masks with the true ones over the pixels of objects: "
      "1 is perfect, 0 is chance."
    )
  return Section(
    "Decomposition",
    "A row for each scene: the image, its reconstruction, which slot explains "
    "which pixel, and every slot where its mask is. A slot keeps its colour in "
    f"all pictures of this page.{about_ari}",
    [name],
  )


def _refinement(info: Mapping[str, Any], folder: pathlib.Path) -> Section:
  scenes = range(min(_SHOWN_SCENES, len(info["data"]["image"])))
  animation = animations.refinement_frames(info, scenes)
  animations.save_gif(folder / "refinement.gif", animation)
  figure = decompositions.iterations_plot(info, mask_components=True, size=1.4)
  _save(figure, folder, "refinement.png")
  return Section(
    "Refinement",
    "How the decomposition comes about. In motion: image, reconstruction, "
    "masks and slots of several scenes; the bar below counts the steps. "
    "Standing still: every step of the first scene.",
    ["refinement.gif", "refinement.png"],
  )


def _scores(info: Mapping[str, Any], folder: pathlib.Path) -> Section:
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


def _inputs(info: Mapping[str, Any], folder: pathlib.Path) -> Section:
  _save(decompositions.inputs_plot(info, t=-1, size=1.2), folder, "inputs.png")
  return Section(
    "What the refinement network sees",
    "The inputs that led to the last step, for the first scene: the image, "
    "what the slots make of it, gradients of the loss with respect to pictures "
    "and masks, how likely each pixel is, and how likely it would be without a "
    "slot. Inputs in a black frame are the same for all slots.",
    ["inputs.png"],
  )


def traversal(
  model: SceneModel,
  info: Mapping[str, Any],
  folder: pathlib.Path,
  name: str,
  slot: int,
  latents: Sequence[int] | None,
) -> Section:
  """Draws the effect of a slot's latents, as <name>.gif and <name>.png."""
  smooth = exploration.traverse(
    model, info, slot, latents=latents, num_values=_SMOOTH_VALUES
  )
  animation = animations.traversal_frames(smooth)
  animations.save_gif(folder / f"{name}.gif", animation)
  varied = exploration.traverse(model, info, slot, latents=latents)
  _save(latent_pictures.traversal_plot(varied), folder, f"{name}.png")
  shown = ", ".join(map(str, varied.latents))
  return Section(
    "Latent traversal",
    f"Slot {slot + 1} of the first scene as one of its latents varies and all "
    "others stay: the slot alone, and the scene with it. In motion: latents "
    f"{shown}, from left to right. KL is what a latent tells beyond the prior, "
    "in nats, on average over slots and scenes.",
    [f"{name}.gif", f"{name}.png"],
  )


def _edits(info: Mapping[str, Any], folder: pathlib.Path, slot: int) -> Section:
  removal = exploration.remove_slots(info)
  _save(latent_pictures.removal_plot(removal), folder, "removal.png")
  text = (
    "The first scene without each of its slots in turn: the other slots fill "
    "in, as their masks say."
  )
  if len(info["data"]["image"]) < 2:
    return Section("Editing a scene", text, ["removal.png"])
  swap = exploration.swap_slots(
    info, (0, slot), (1, exploration.object_slot(info, 1))
  )
  _save(latent_pictures.swap_plot(swap), folder, "swap.png")
  text += " Then two scenes that swap a slot, an object in most cases."
  return Section("Editing scenes", text, ["removal.png", "swap.png"])


def _samples(model: SceneModel, folder: pathlib.Path, seed: int) -> Section:
  samples = exploration.prior_samples(model, _NUM_SAMPLES, seed)
  figure = scene_pictures.scenes_plot(samples.recons, samples.masks[..., 0])
  _save(figure, folder, "samples.png")
  return Section(
    "Samples of the prior",
    "Scenes of random latents, each above its masks. The slots are drawn "
    "without regard to one another, so that objects may overlap or be missing.",
    ["samples.png"],
  )


def _training(
  scalars: Mapping[str, tuple[np.ndarray, np.ndarray]], folder: pathlib.Path
) -> Section:
  names = [name for name in _CURVES if name in scalars]
  names += sorted(set(scalars) - set(names))
  labelled = {_CURVES.get(name, name): scalars[name] for name in names}
  _save(curves.curves_plot(labelled), folder, "training.png")
  return Section(
    "Training",
    "Scalars over training steps, from the event files beside the checkpoint, "
    "and their running means.",
    ["training.png"],
  )


def _save(figure: Figure, folder: pathlib.Path, name: str) -> None:
  figure.savefig(folder / name, dpi=_DPI)
