"""Animated GIFs of what a model infers: NumPy arrays in, files out.

Dimensions: N frames or values, B scenes, S results of `SceneModel.infer`, K
slots, R latents, H height, W width, C channels (1 or 3). Images and masks are
in [0, 1]; frames are [H', W', 3] uint8.
"""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from iodine.checks import check_shapes
from iodine.pictures.attention import shaded
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.masks import on_checkerboard, segmentation

__all__ = [
  "Animation",
  "attention_frames",
  "magnification",
  "refinement_frames",
  "save_gif",
  "save_still",
  "traversal_frames",
  "upscale",
]

if typing.TYPE_CHECKING:
  from iodine.exploration import Traversal

_STEP_MS = 500  # duration of a refinement step
_LAST_STEP_MS = 2000
_VALUE_MS = 90  # duration of a value of a latent, one of many
_NUM_COLORS = 250  # of 256 at most
_FRAME = 2  # pixels around a panel
_GAP = 3  # pixels around a frame
_BAR_HEIGHT = 6  # pixels
_LINE_HEIGHT = 16  # of a line of text, in pixels
_TEXT_SIZE = 11  # pixels
_BAR_COLOR = (0.0, 0.45, 0.7)
_GRAY = (0.5, 0.5, 0.5)

# An image [H, W, C] and the colour of its frame.
_Panel = tuple[np.ndarray, Sequence[float]]


class Animation(typing.NamedTuple):
  """frames: [N, H', W', 3] uint8. durations: [N], in milliseconds."""

  frames: np.ndarray
  durations: list[int]


def magnification(height: int, target: int) -> int:
  """The integer factor, at least 1, that best matches a target height."""
  return max(1, round(target / height))


def upscale(image: np.ndarray, factor: int) -> np.ndarray:
  """Repeats the pixels of [..., H, W, C] `factor` times in both directions."""
  return image.repeat(factor, axis=-3).repeat(factor, axis=-2)


def refinement_frames(
  rinfo: Mapping[str, Any], scenes: Sequence[int] = (0,), height: int = 80
) -> Animation:
  """Animates reconstruction, masks and slots, one frame per step.

  Each scene is a row: image, reconstruction, masks, and each slot, on a
  checkerboard where its mask hides it. A bar at the bottom counts the steps.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    scenes: indices of scenes in the batch.
    height: approximate height of a panel, in pixels; scaling is by an integer.

  Returns:
    S frames; the last one is shown longest.

  Raises:
    ValueError: if the shapes do not match.
  """
  outputs = rinfo["outputs"]
  image = np.asarray(rinfo["data"]["image"])
  sizes = check_shapes(
    {
      "recons": (outputs["recons"], "B S 1 H W C"),
      "pred_mask": (outputs["pred_mask"], "B S K H W 1"),
      "components": (outputs["components"], "B S K H W C"),
      "image": (image, "B _ H W C"),
    }
  )
  colors = [_GRAY, _GRAY, _GRAY, *get_mask_plot_colors(sizes["K"])]
  names = ["Image", "Reconstruction", "Masks", *_slot_names(sizes["K"])]

  def panels(b: int, t: int) -> list[_Panel]:
    masks = outputs["pred_mask"][b, t]
    pictures = [
      image[b, min(t, image.shape[1] - 1)],
      outputs["recons"][b, t, 0],
      segmentation(np.moveaxis(masks[..., 0], 0, -1)),
      *on_checkerboard(outputs["components"][b, t], masks),
    ]
    return list(zip(pictures, colors, strict=True))

  factor = magnification(sizes["H"], height)
  return _steps(panels, names, scenes, sizes["S"], factor)


def attention_frames(
  rinfo: Mapping[str, Any], scenes: Sequence[int] = (0,), height: int = 80
) -> Animation:
  """Animates where slots look, one frame per step.

  Each scene is a row: the image, and the image shaded by each slot's attention.
  A bar at the bottom counts the steps.

  Args:
    rinfo: result of the model's `eval`, as NumPy arrays.
    scenes: indices of scenes in the batch.
    height: approximate height of a panel, in pixels; scaling is by an integer.

  Returns:
    S frames; the last one is shown longest.

  Raises:
    ValueError: if the shapes do not match.
  """
  attention = rinfo["outputs"]["attention"]
  image = np.asarray(rinfo["data"]["image"])
  sizes = check_shapes(
    {
      "attention": (attention, "B S K H W 1"),
      "image": (image, "B _ H W C"),
    }
  )
  colors = [_GRAY, *get_mask_plot_colors(sizes["K"])]
  names = ["Image", *_slot_names(sizes["K"])]

  def panels(b: int, t: int) -> list[_Panel]:
    frame = image[b, min(t, image.shape[1] - 1)]
    pictures = [frame, *shaded(frame, attention[b, t])]
    return list(zip(pictures, colors, strict=True))

  factor = magnification(sizes["H"], height)
  return _steps(panels, names, scenes, sizes["S"], factor)


def _slot_names(num_slots: int) -> list[str]:
  return [f"Slot {slot}" for slot in range(1, num_slots + 1)]


def _steps(
  panels: Callable[[int, int], list[_Panel]],
  names: Sequence[str],
  scenes: Sequence[int],
  num_steps: int,
  factor: int,
) -> Animation:
  """Animates steps: a row for each scene, a bar that counts the steps."""
  frames = [
    _with_bar(
      _tile([panels(b, t) for b in scenes], names, factor), t + 1, num_steps
    )
    for t in range(num_steps)
  ]
  durations = [_STEP_MS] * (num_steps - 1) + [_LAST_STEP_MS]
  return Animation(np.stack(frames), durations)


def traversal_frames(
  traversal: Traversal,
  height: int = 80,
  value_ms: int = _VALUE_MS,
  names: Callable[[int], str] | None = None,
) -> Animation:
  """Animates latents that sweep their ranges simultaneously.

  Each latent is a column, in the traversal's order: at the top the slot alone,
  on a checkerboard where its mask hides it, if it has a picture; at the bottom
  the scene.

  Args:
    traversal: result of `exploration.traverse`.
    height: approximate height of a panel, in pixels; scaling is by an integer.
    value_ms: duration of a frame, in milliseconds.
    names: what to say of a latent below its number, such as
      `Correlations.name`.

  Returns:
    2 N - 2 frames, from the lowest value to the highest and back.

  Raises:
    ValueError: if the shapes do not match.
  """
  sizes = check_shapes(traversal.pictures)
  factor = magnification(sizes["H"], height)
  rows = [(traversal.scenes, _GRAY)]
  if traversal.components is not None and traversal.masks is not None:
    alone = on_checkerboard(traversal.components, traversal.masks)
    rows.insert(0, (alone, get_mask_plot_colors(traversal.slot + 1)[-1]))
  headers = [
    f"Latent {latent}" + (f"\n{names(latent)}" if names else "")
    for latent in traversal.latents.tolist()
  ]
  frames = [
    _tile(
      [[(picture, color) for picture in row[:, n]] for row, color in rows],
      headers,
      factor,
    )
    for n in range(sizes["N"])
  ]
  frames += frames[-2:0:-1]
  return Animation(np.stack(frames), [value_ms] * len(frames))


def save_gif(path: str | pathlib.Path, animation: Animation) -> None:
  """Writes an animation that loops forever.

  Args:
    path: path of the file.
    animation: frames and durations.

  Raises:
    OSError: if the file cannot be written.
  """
  frames = _with_few_colors(animation.frames)
  durations: int | list[int] = animation.durations
  if np.array_equal(frames, np.broadcast_to(frames[0], frames.shape)):
    # Pillow merges equal frames, and accepts no list for a single one.
    frames, durations = frames[:1], sum(animation.durations)
  iio.imwrite(
    path,
    frames,
    plugin="pillow",
    extension=".gif",
    duration=durations,
    loop=0,
    optimize=True,
  )


def save_still(gif: pathlib.Path, path: pathlib.Path) -> None:
  """Writes the last frame of an animation, as a PNG.

  Args:
    gif: the animation.
    path: file to write.
  """
  with Image.open(gif) as animation:
    ImageSequence.all_frames(animation)[-1].convert("RGB").save(path)


def _tile(
  rows: Sequence[Sequence[_Panel]], names: Sequence[str], factor: int
) -> np.ndarray:
  """Magnifies panels, frames them and joins them to [H', W', 3] uint8.

  The columns' names are above them.
  """
  framed = [
    np.concatenate([_framed(*panel, factor) for panel in panels], axis=1)
    for panels in rows
  ]
  width = framed[0].shape[1] // len(names)
  header = np.concatenate([_text(name, width) for name in names], axis=1)
  return np.concatenate([header, *framed])


def _text(text: str, width: int) -> np.ndarray:
  """Black text in the middle of white: [lines * _LINE_HEIGHT, width, 3]."""
  height = _LINE_HEIGHT * (1 + text.count("\n"))
  area = Image.new("RGB", (width, height), "white")
  ImageDraw.Draw(area).text(
    (width / 2, height / 2),
    text.replace("\u2212", "-"),  # this font has no minus sign
    fill="black",
    anchor="mm",
    align="center",
    font=ImageFont.load_default(_TEXT_SIZE),
  )
  return np.asarray(area)


def _framed(
  image: np.ndarray, color: Sequence[float], factor: int
) -> np.ndarray:
  """Magnifies an image [H, W, C], with a frame and a white gap around it."""
  rgb = np.broadcast_to(image, (*image.shape[:-1], 3))
  rgb = upscale(to_uint8(rgb), factor)
  for width, value in ((_FRAME, to_uint8(color)), (_GAP, 255)):
    height, length, _ = rgb.shape
    framed = np.empty([height + 2 * width, length + 2 * width, 3], np.uint8)
    framed[:] = value
    framed[width:-width, width:-width] = rgb
    rgb = framed
  return rgb


def to_uint8(values: Any) -> np.ndarray:
  """Rounds values to bytes; those outside [0, 1] are clipped."""
  return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


def _with_bar(frame: np.ndarray, step: int, num_steps: int) -> np.ndarray:
  """Adds the step's number below a frame, and a bar filled accordingly."""
  width = frame.shape[1]
  bar = np.full([_BAR_HEIGHT, width, 3], 255, np.uint8)
  bar[:, : round(step / num_steps * width)] = to_uint8(_BAR_COLOR)
  number = _text(f"Step {step} of {num_steps}", width)
  return np.concatenate([frame, number, bar])


def _with_few_colors(frames: np.ndarray) -> np.ndarray:
  """Rounds colours to a palette that all frames share.

  Pixels that do not change between frames then take no space in a GIF, and flat
  areas do not flicker.
  """
  strip = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
  strip = strip.quantize(
    _NUM_COLORS,
    method=Image.Quantize.MAXCOVERAGE,  # keeps colours that are rare
    kmeans=1,
    dither=Image.Dither.NONE,
  )
  return np.asarray(strip.convert("RGB")).reshape(frames.shape)
