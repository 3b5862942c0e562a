"""Picture files, each with a text that explains it.

Every function writes files named as in `PICTURES` to an album, and returns a
section of a page. `info` is the result of `exploration.infer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from iodine import exploration
from iodine.pictures import (
  animations,
  attention,
  boxes,
  comparisons,
  compositions,
  curves,
  decompositions,
  page,
  probes,
  refinements,
)
from iodine.pictures import latents as latent_pictures
from iodine.pictures import scenes as scene_pictures
from iodine.pictures.page import Section
from iodine.pictures.saving import Album
from iodine.scene_model import SceneModel, shows_decomposition

__all__ = [
  "PICTURES",
  "can_edit",
  "can_render",
  "can_traverse",
  "comparison",
  "composition",
  "decomposition",
  "samples",
  "sections",
  "traversal",
  "traverse",
]

# Pictures that a page may show, in this order; a still stands for an animation.
PICTURES = (
  "decomposition.png",
  "boxes.png",
  "reconstruction.png",
  "refinement.gif",
  "refinement_still.png",
  "refinement.png",
  "attention.gif",
  "attention_still.png",
  "attention.png",
  "scores.png",
  "inputs.png",
  "factors.png",
  "traversal.gif",
  "traversal_still.png",
  "traversal.png",
  "removal.png",
  "swap.png",
  "samples.png",
  "training.png",
)
_SHOWN_SCENES = 4
_NUM_SAMPLES = 12
_SMOOTH_VALUES = 15  # number of values of a latent in an animation
# What latents are ranked by, see `exploration.IMPORTANCE`.
_IMPORTANCE_TEXTS = {
  "KL": "KL is what a latent tells beyond the prior, in nats, on average over "
  "slots and scenes.",
  "activeness": "Activeness is how much a pixel's colour varies as a latent "
  "goes from its lowest value to its highest: the variance, on average over "
  "the scene.",
}
_ABOUT_NAMES = (
  "Below its number is the factor that a latent follows best, with their "
  "correlation. "
)
# Scalars of training in the order of their panels, with titles.
_CURVES = {
  "loss/total": "total loss",
  "loss/recons": "reconstruction loss (nats)",
  "loss/kl": "KL (nats)",
  "loss/nll": "last step's NLL (nats)",
  "geco/constraint": "GECO: constraint (nats)",
  "geco/beta": "GECO: beta",
  "loss/mse": "MSE",
  "loss/ari_nobg": "ARI without background",
  "loss/ari": "ARI",
}


def sections(
  model: SceneModel,
  info: Mapping[str, Any],
  album: Album,
  slot: int,
  latents: Sequence[int] | None,
  seed: int,
  scalars: Mapping[str, tuple[np.ndarray, np.ndarray]],
  correlations: exploration.Correlations | None = None,
) -> list[Section]:
  """Draws all pictures that model and data allow.

  Args:
    model: model that inferred `info`.
    info: result of `exploration.infer`.
    album: where the pictures go.
    slot: slot of the first scene to traverse and to swap.
    latents: latents to traverse; None: the most important.
    seed: seed of the samples.
    scalars: scalars of training, {name: (steps, values)}.
    correlations: of the model's latents with factors of objects; None: unknown.

  Returns:
    The sections, in the order of `PICTURES`.
  """
  drawn = [*_inferred(model, info, album)]
  if correlations is not None:
    drawn.append(_factors(correlations, album))
  names = None if correlations is None else correlations.name
  drawn += _explored(model, info, album, slot, latents, seed, names)
  if scalars:
    drawn.append(_training(scalars, album))
  for section in drawn:
    for file in filter(page.moves, section.files):
      animations.save_still(
        album.folder / file, album.folder / page.still(file)
      )
  return drawn


def _inferred(
  model: SceneModel, info: Mapping[str, Any], album: Album
) -> Iterator[Section]:
  """Draws how the model explains the scenes."""
  draws, has_steps = shows_decomposition(info), model.num_steps > 1
  if draws:
    yield decomposition(model, info, album, "decomposition.png")
  if {"boxes", "presence", "depth"} <= info["outputs"].keys():
    yield _boxes(info, album)
  if can_render(model, info) and "pred_mask_logits" not in info["outputs"]:
    yield _reconstruction(model, info, album)
  if draws and has_steps:
    yield _refinement(model, info, album)
  if "attention" in info["outputs"]:
    yield _attention(model, info, album)
  scores = exploration.step_scores(info)
  if scores and has_steps:
    yield _scores(model, scores, len(info["data"]["image"]), album)
  if "inputs" in info:
    yield _inputs(info, album)


def _explored(
  model: SceneModel,
  info: Mapping[str, Any],
  album: Album,
  slot: int,
  latents: Sequence[int] | None,
  seed: int,
  names: Callable[[int], str] | None,
) -> Iterator[Section]:
  """Draws other scenes than those that were inferred."""
  if can_traverse(model, info):
    pair = traverse(model, info, slot, latents)
    yield traversal(*pair, album, "traversal", names=names)
  if can_edit(model, info):
    yield _edits(model, info, album, slot)
  if model.can("sample"):
    yield samples(model, album, "samples.png", seed)


def can_render(model: SceneModel, info: Mapping[str, Any]) -> bool:
  """Whether the model renders scenes from slots that it infers."""
  has_latents = "z" in info.get("latent", {})
  return shows_decomposition(info) and has_latents and model.can("compose")


def can_edit(model: SceneModel, info: Mapping[str, Any]) -> bool:
  """Whether scenes can be drawn without some of their slots."""
  has_logits = "pred_mask_logits" in info["outputs"]
  return (shows_decomposition(info) and has_logits) or can_render(model, info)


def can_traverse(model: SceneModel, info: Mapping[str, Any]) -> bool:
  """Whether a slot's latents can be varied individually, in little time.

  Rendering a scene anew for every value takes longer, see `traverse`.
  """
  has_ranges = exploration.possible_ranges(model, info)
  return bool(has_ranges) and model.can("decode_slots")


def decomposition(
  model: SceneModel, info: Mapping[str, Any], album: Album, name: str
) -> Section:
  """Draws every scene beside its decomposition."""
  figure = decompositions.scenes_decomposition_plot(
    info, num_background=model.num_background_entities
  )
  album.add(figure, name)
  about_true = ""
  if "true_mask" in info["data"]:
    about_true = (
      " A true object has the colour of the slot that found it, the true "
      "background is grey. ARI compares the masks with the true ones over the "
      "pixels of objects: 1 is perfect, 0 is chance."
    )
  return Section(
    "Decomposition",
    "A row for each scene: the image, its reconstruction, which slot explains "
    "which pixel (the paler, the less surely), and every slot where its mask "
    "is, on a checkerboard. A slot keeps its colour in all pictures of this "
    f"page.{about_true}",
    [name],
  )


def _boxes(info: Mapping[str, Any], album: Album) -> Section:
  album.add(boxes.boxes_plot(info), "boxes.png")
  return Section(
    "Boxes",
    "A box around every object that is more likely there than not, in its "
    "slot's colour. Numbers tell the order of depth: 1 is in front.",
    ["boxes.png"],
  )


def _reconstruction(
  model: SceneModel, info: Mapping[str, Any], album: Album
) -> Section:
  figure = compositions.reconstruction_plot(
    info["data"]["image"][:, -1],
    info["outputs"]["recons"][:, -1, 0],
    exploration.render(model, info["latent"]["z"][:, -1]).recons,
  )
  album.add(figure, "reconstruction.png")
  return Section(
    "Reconstruction",
    "Every scene above its reconstruction, and above what the model renders "
    "from the slots alone.",
    ["reconstruction.png"],
  )


def _attention(
  model: SceneModel, info: Mapping[str, Any], album: Album
) -> Section:
  scenes = range(min(_SHOWN_SCENES, len(info["data"]["image"])))
  animation = animations.attention_frames(info, scenes)
  animations.save_gif(album.folder / "attention.gif", animation)
  figure = attention.attention_plot(info, first_step=model.first_step)
  album.add(figure, "attention.png")
  return Section(
    "Attention",
    "Where every slot looks: the stronger its colour on a pixel, the larger "
    "its share of the attention there. In motion: several scenes; the bar "
    "below counts the steps. Standing still: every step of the first scene.",
    ["attention.gif", "attention.png"],
  )


def composition(
  collage: exploration.Collage,
  numbers: Sequence[int],
  album: Album,
  name: str,
) -> None:
  """Draws a composed scene below those that its slots come from.

  Args:
    collage: result of `exploration.collage`.
    numbers: numbers of the batch's scenes, from 1 on.
    album: where the picture goes.
    name: name of the file.
  """
  album.add(compositions.composition_plot(collage, numbers), name)


def comparison(
  models: Sequence[comparisons.Decomposed],
  numbers: Sequence[int],
  album: Album,
  names: Sequence[str],
) -> Section:
  """Draws what several models make of the same scenes.

  Args:
    models: at least one.
    numbers: numbers of the scenes, from 1 on.
    album: where the pictures go.
    names: names of the two files, of all scenes and of the first one's slots.
  """
  album.add(comparisons.scenes_plot(models, numbers), names[0])
  album.add(comparisons.slots_plot(models), names[1])
  return Section(
    "Decompositions",
    "The same scenes by each model: its reconstruction, and which slot "
    "explains which pixel. Then all slots of the first scene where their masks "
    f"are. {_about_colors(models)}",
    names,
  )


def _about_colors(models: Sequence[comparisons.Decomposed]) -> str:
  if models[0].true_masks is None:
    return "Slots have no order; colours tell those of one model apart."
  return (
    "A slot has the colour of the true object that it has found, or grey where "
    "it has found the background."
  )


def _refinement(
  model: SceneModel, info: Mapping[str, Any], album: Album
) -> Section:
  scenes = range(min(_SHOWN_SCENES, len(info["data"]["image"])))
  animation = animations.refinement_frames(info, scenes)
  animations.save_gif(album.folder / "refinement.gif", animation)
  figure = refinements.iterations_plot(
    info,
    mask_components=True,
    size=1.4,
    first_step=model.first_step,
    num_background=model.num_background_entities,
  )
  album.add(figure, "refinement.png")
  return Section(
    "Refinement",
    "How the decomposition comes about. In motion: image, reconstruction, "
    "masks and slots of several scenes; the bar below counts the steps. "
    "Standing still: every step of the first scene.",
    ["refinement.gif", "refinement.png"],
  )


def _scores(
  model: SceneModel,
  scores: Mapping[str, np.ndarray],
  num_scenes: int,
  album: Album,
) -> Section:
  figure = curves.scores_plot(
    scores, num_cols=3, size=3.0, first_step=model.first_step
  )
  album.add(figure, "scores.png")
  text = f"Means over {num_scenes} scenes"
  if model.first_step <= 0:
    text += "; step 0 comes before the first refinement"
  if model.first_step < 0:
    text += ", and is that of the last layer"
  return Section("Scores over refinement steps", f"{text}.", ["scores.png"])


def _inputs(info: Mapping[str, Any], album: Album) -> Section:
  album.add(refinements.inputs_plot(info, t=-1, size=1.2), "inputs.png")
  return Section(
    "What the refinement network sees",
    "The inputs that led to the last step, for the first scene: the image, "
    "what the slots make of it, gradients of the loss with respect to pictures "
    "and masks, how likely each pixel is, and how likely it would be without a "
    "slot. Inputs in a black frame are the same for all slots.",
    ["inputs.png"],
  )


def _factors(correlations: exploration.Correlations, album: Album) -> Section:
  figure = probes.correlations_plot(correlations.values, correlations.factors)
  album.add(figure, "factors.png")
  return Section(
    "Latents and factors",
    "How closely the latents of slots follow the true factors of the objects "
    f"in them: correlations over {correlations.num_objects:,} objects. Where a "
    "row and a column have one strong value, a latent stands for a factor. A "
    "factor of categories has no sign.",
    ["factors.png"],
  )


def traverse(
  model: SceneModel,
  info: Mapping[str, Any],
  slot: int,
  latents: Sequence[int] | None,
  range_of: str | None = None,
) -> tuple[exploration.Traversal, exploration.Traversal]:
  """Varies latents of a slot of the first scene, for `traversal`."""
  moving = exploration.traverse(
    model,
    info,
    slot,
    latents=latents,
    num_values=_SMOOTH_VALUES,
    range_of=range_of,
  )
  chosen = moving.latents.tolist()
  still = exploration.traverse(
    model, info, slot, latents=chosen, range_of=range_of
  )
  return moving, still


def traversal(
  moving: exploration.Traversal,
  still: exploration.Traversal,
  album: Album,
  name: str,
  value_ms: int | None = None,
  names: Callable[[int], str] | None = None,
) -> Section:
  """Draws the effect of a slot's latents, as <name>.gif and <name>.png.

  Args:
    moving: what is animated.
    still: the same latents, perhaps at fewer values.
    album: where the pictures go.
    name: name of the files, without extension.
    value_ms: duration of a value of the animation, in milliseconds; None: short
      enough for many values.
    names: see `latents.traversal_plot`.
  """
  timing = {} if value_ms is None else {"value_ms": value_ms}
  animation = animations.traversal_frames(moving, **timing, names=names)
  animations.save_gif(album.folder / f"{name}.gif", animation)
  figure = latent_pictures.traversal_plot(still, names=names)
  album.add(figure, f"{name}.png")
  shown = ", ".join(map(str, moving.latents))
  what = "the scene"
  if still.components is not None:
    what = "the slot alone, and the scene with it"
  return Section(
    "Latent traversal",
    f"Slot {still.slot + 1} of the first scene as one of its latents varies "
    f"and all others stay: {what}. In motion: latents {shown}, from left to "
    "right. "
    f"{_ABOUT_NAMES if names else ''}"
    f"{_IMPORTANCE_TEXTS[exploration.IMPORTANCE[still.range_of]]}",
    [f"{name}.gif", f"{name}.png"],
  )


def _edits(
  model: SceneModel, info: Mapping[str, Any], album: Album, slot: int
) -> Section:
  removal = exploration.remove_slots(info, model=model)
  album.add(latent_pictures.removal_plot(removal), "removal.png")
  text = "The first scene without each of its slots in turn: the other slots "
  text += (
    "are rendered without it."
    if removal.without.masks is None
    else "fill in, as their masks say."
  )
  if len(info["data"]["image"]) < 2:
    return Section("Editing a scene", text, ["removal.png"])
  swap = exploration.swap_slots(
    info, (0, slot), (1, exploration.object_slot(info, 1)), model
  )
  album.add(latent_pictures.swap_plot(swap), "swap.png")
  text += " Then two scenes that swap a slot, an object in most cases."
  return Section("Editing scenes", text, ["removal.png", "swap.png"])


def samples(model: SceneModel, album: Album, name: str, seed: int) -> Section:
  """Draws scenes of the prior."""
  scenes = exploration.prior_samples(model, _NUM_SAMPLES, seed)
  masks = None if scenes.masks is None else scenes.masks[..., 0]
  album.add(scene_pictures.scenes_plot(scenes.recons, masks), name)
  above = "" if masks is None else ", each above its masks"
  text = f"Scenes of random latents{above}."
  if model.prior is not None:  # of each slot alone
    text += (
      " The slots are drawn without regard to one another, so that objects may "
      "overlap or be missing."
    )
  return Section("Samples of the prior", text, [name])


def _training(
  scalars: Mapping[str, tuple[np.ndarray, np.ndarray]], album: Album
) -> Section:
  names = [name for name in _CURVES if name in scalars]
  names += sorted(set(scalars) - set(names))
  labelled = {_CURVES.get(name, name): scalars[name] for name in names}
  album.add(curves.curves_plot(labelled), "training.png")
  return Section(
    "Training",
    "Scalars over training steps, from the event files beside the checkpoint, "
    "and their running means.",
    ["training.png"],
  )
