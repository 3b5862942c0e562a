"""What pictures show, in words, for readers who do not see them."""

from typing import NamedTuple

__all__ = ["Description", "description"]


class Description(NamedTuple):
  """caption: short, shown below a picture. alt: stands for the picture."""

  caption: str
  alt: str


_DESCRIPTIONS = {
  "decomposition.png": Description(
    "Scenes and their slots",
    "One row for each scene: the image, its reconstruction, the segmentation "
    "by slots, and each slot by itself in a frame of its colour.",
  ),
  "decompositions.png": Description(
    "The same scenes by each model",
    "One block for each model: the scenes' images, above reconstructions and "
    "segmentations by slots.",
  ),
  "slots.png": Description(
    "All slots of the first scene, by each model",
    "One row for each model: the first scene's slots, each where its mask is.",
  ),
  "boxes.png": Description(
    "Boxes around objects",
    "The scenes' images with a box around every object, in its slot's colour, "
    "and its order of depth as a number.",
  ),
  "reconstruction.png": Description(
    "Images, reconstructions and renderings",
    "Three rows: the images, their reconstructions, and what the model renders "
    "from the slots alone.",
  ),
  "refinement.gif": Description(
    "Several scenes, step by step",
    "An animation of the refinement steps. One row for each scene: image, "
    "reconstruction, segmentation, and each slot by itself.",
  ),
  "refinement.png": Description(
    "The first scene at every step",
    "The first scene's reconstruction, masks and slots, side by side for every "
    "refinement step.",
  ),
  "attention.gif": Description(
    "Several scenes, step by step",
    "An animation of the refinement steps. One row for each scene: the image, "
    "and the image shaded by the attention of each slot.",
  ),
  "attention.png": Description(
    "The first scene at every step",
    "The first scene's image shaded by the attention of each slot, for every "
    "refinement step.",
  ),
  "scores.png": Description(
    "Scores at every step",
    "Line charts, one for each score, over the refinement steps.",
  ),
  "inputs.png": Description(
    "Inputs of the last step",
    "A grid of the refinement network's inputs for the first scene, with a row "
    "for each slot.",
  ),
  "factors.png": Description(
    "Correlations of latents and factors",
    "A table with a row for each factor and a column for each latent; the "
    "stronger a correlation, the darker its cell.",
  ),
  "traversal.gif": Description(
    "All of these latents at once",
    "An animation in which each column is a latent that goes through its "
    "range: the slot alone above, the scene below.",
  ),
  "traversal.png": Description(
    "One latent in each row",
    "One row for each latent, its values from the lowest to the highest: the "
    "slot alone and the scene at each value. A triangle marks the inferred "
    "value.",
  ),
  "removal.png": Description(
    "The first scene without each slot",
    "The first scene and its masks, and the scene as it looks without each of "
    "its slots in turn.",
  ),
  "swap.png": Description(
    "Two scenes that swap a slot",
    "Two scenes before and after they swap a slot, with the slots that are "
    "swapped.",
  ),
  "samples.png": Description(
    "Scenes that the model makes up",
    "Scenes of random latents, with their masks where the model has them.",
  ),
  "training.png": Description(
    "Scalars of the training",
    "Line charts, one for each scalar, over the training steps, with running "
    "means.",
  ),
}


def description(file: str) -> Description:
  """Describes a picture by its file's name; the name itself if unknown."""
  return _DESCRIPTIONS.get(file, Description(file, file))
