"""Tests for iodine.pictures.animations."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from iodine.pictures import animations
from iodine.pictures.attention import shaded
from iodine.pictures.colors import get_mask_plot_colors
from tests.support import explored, inferred

# Odd and distinct, so that swapped axes fail.
B, S, K, H, W = 2, 3, 4, 7, 9
FACTOR = 3
GAP = 5  # gap and frame on each side of a panel
LINE = 16  # height of a line of text


def _rinfo(channels=3, num_frames=1):
  rng = np.random.default_rng(0)
  masks = rng.uniform(size=[B, S, K, H, W, 1])
  return {
    "data": {"image": rng.uniform(size=[B, num_frames, H, W, channels])},
    "outputs": {
      "recons": rng.uniform(size=[B, S, 1, H, W, channels]),
      "pred_mask": masks / masks.sum(axis=2, keepdims=True),
      "components": rng.uniform(size=[B, S, K, H, W, channels]),
    },
  }


def _panel(frame, row, column):
  """What a panel shows, at its own size; its pixels must be squares."""
  height, width = FACTOR * H + 2 * GAP, FACTOR * W + 2 * GAP
  top, left = LINE + row * height + GAP, column * width + GAP
  panel = frame[top : top + FACTOR * H, left : left + FACTOR * W]
  small = panel[::FACTOR, ::FACTOR]
  np.testing.assert_array_equal(panel, animations.upscale(small, FACTOR))
  return small


def _bytes(image):
  rgb = np.broadcast_to(image, (*image.shape[:-1], 3))
  return np.rint(255.0 * np.clip(rgb, 0.0, 1.0))


@pytest.mark.parametrize(
  "height, target, factor",
  [(16, 80, 5), (35, 80, 2), (64, 80, 1), (128, 80, 1), (30, 256, 9)],
)
def test_the_magnification_comes_close_to_the_target(height, target, factor):
  assert animations.magnification(height, target) == factor


@pytest.mark.parametrize("num_frames", [1, S])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_refinement_has_a_frame_per_step(channels, num_frames):
  rinfo = _rinfo(channels, num_frames)
  outputs = rinfo["outputs"]
  frames, durations = animations.refinement_frames(rinfo, [1, 0], FACTOR * H)
  assert len(frames) == len(durations) == S
  assert durations[-1] > durations[0] == durations[1]
  colors = get_mask_plot_colors(K)
  for t, frame in enumerate(frames):
    for row, b in enumerate([1, 0]):
      masks = outputs["pred_mask"][b, t]
      image = rinfo["data"]["image"][b, min(t, num_frames - 1)]
      segmentation = inferred.segmentation(masks[..., 0])
      panels = [image, outputs["recons"][b, t, 0], segmentation]
      panels += list(inferred.through(outputs["components"][b, t], masks))
      for column, panel in enumerate(panels):
        np.testing.assert_array_equal(_panel(frame, row, column), _bytes(panel))
    # Just above the picture of the first slot, its frame.
    color = frame[LINE + GAP - 1, 3 * (FACTOR * W + 2 * GAP) + GAP]
    np.testing.assert_array_equal(color, _bytes(colors[0]))
    bar = frame[-1]
    share = (t + 1) / S
    filled = np.all(bar != 255, axis=-1) | (bar[:, 0] == 0)
    assert filled.sum() == round(share * len(bar))
    assert filled[0] and not filled[round(share * len(bar)) :].any()


@pytest.mark.parametrize("num_frames", [1, S])
def test_attention_has_a_frame_per_step(num_frames):
  rinfo = _rinfo(num_frames=num_frames)
  rinfo["outputs"] = {"attention": rinfo["outputs"]["pred_mask"]}
  frames, durations = animations.attention_frames(rinfo, [1, 0], FACTOR * H)
  assert len(frames) == len(durations) == S
  for t, frame in enumerate(frames):
    for row, b in enumerate([1, 0]):
      image = rinfo["data"]["image"][b, min(t, num_frames - 1)]
      shades = shaded(image, rinfo["outputs"]["attention"][b, t])
      for column, panel in enumerate([image, *shades]):
        np.testing.assert_array_equal(_panel(frame, row, column), _bytes(panel))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_traversal_goes_there_and_back(channels):
  traversal = explored.traversal(rows=3, columns=5, channels=channels)
  frames, durations = animations.traversal_frames(traversal, FACTOR * H)
  assert len(frames) == len(durations) == 8
  for frame, n in zip(frames, [0, 1, 2, 3, 4, 3, 2, 1], strict=True):
    for row in range(3):
      mask = traversal.masks[row, n]
      alone = inferred.through(traversal.components[row, n], mask)
      np.testing.assert_array_equal(_panel(frame, 0, row), _bytes(alone))
      np.testing.assert_array_equal(
        _panel(frame, 1, row), _bytes(traversal.scenes[row, n])
      )


def test_a_traversal_may_show_the_scene_alone():
  traversal = explored.traversal(alone=False)
  frames, durations = animations.traversal_frames(
    traversal, FACTOR * H, value_ms=250
  )
  assert durations == [250] * 8
  assert frames.shape[1] == LINE + FACTOR * H + 2 * GAP
  np.testing.assert_array_equal(
    _panel(frames[1], 0, 2), _bytes(traversal.scenes[2, 1])
  )


def test_columns_and_steps_are_named(monkeypatch):
  texts = []

  def blank(text, width):
    texts.append(text)
    return np.full([LINE, width, 3], 255, np.uint8)

  monkeypatch.setattr(animations, "_text", blank)
  animations.refinement_frames(_rinfo(), [0], FACTOR * H)
  slots = ["Slot 1", "Slot 2", "Slot 3", "Slot 4"]
  columns = ["Image", "Reconstruction", "Masks", *slots]
  expected = []
  for step in (1, 2, 3):
    expected += [*columns, f"Step {step} of 3"]
  assert texts == expected
  texts.clear()
  traversal = explored.traversal(rows=3)
  animations.traversal_frames(traversal, FACTOR * H)
  headers = [f"Latent {latent}" for latent in traversal.latents]
  assert texts[:3] == headers
  texts.clear()
  followed = dict(zip(traversal.latents.tolist(), ["x", "", "y"], strict=True))
  animations.traversal_frames(
    traversal, FACTOR * H, names=lambda latent: followed[latent]
  )
  one, two, three = headers
  assert texts[:3] == [f"{one}\nx", f"{two}\n", f"{three}\ny"]


def test_text_is_black_in_the_middle_of_white():
  line = animations._text("Slot 1", 80)
  assert line.shape == (LINE, 80, 3)
  dark = np.argwhere(line[..., 0] < 128)
  assert dark.size and line[0].min() == line[:, :10].min() == 255
  assert abs(dark[:, 1].mean() - 40) < 4 and abs(dark[:, 0].mean() - 8) < 3
  area = animations._text("Slot 1\nblue 0.9", 80)
  assert area.shape == (2 * LINE, 80, 3)
  for half in np.split(area, 2):
    dark = np.argwhere(half[..., 0] < 128)
    assert dark.size and abs(dark[:, 1].mean() - 40) < 4
  np.testing.assert_array_equal(
    animations._text("x \u22120.9", 80), animations._text("x -0.9", 80)
  )


def test_shapes_are_checked():
  rinfo = _rinfo()
  rinfo["outputs"]["recons"] = rinfo["outputs"]["recons"][:, :, 0]
  with pytest.raises(ValueError, match="recons has shape"):
    animations.refinement_frames(rinfo)
  with pytest.raises(ValueError, match="masks has shape"):
    animations.traversal_frames(
      explored.traversal()._replace(masks=np.ones([1]))
    )


def test_a_file_repeats_for_ever_and_keeps_its_colors(tmp_path):
  x, y = np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 30))
  frames = np.stack(
    [
      np.stack([x, y, np.full_like(x, value)], axis=-1).astype(np.uint8)
      for value in (0, 10, 200)
    ]
  )
  frames[:, 3, 5] = (255, 255, 0)  # rare, and to be seen
  path = tmp_path / "test.gif"
  animations.save_gif(path, animations.Animation(frames, [100, 200, 700]))
  with Image.open(path) as image:
    assert image.format == "GIF"
    assert image.info["loop"] == 0
    shown = [
      (np.asarray(frame.convert("RGB"), int), frame.info["duration"])
      for frame in ImageSequence.Iterator(image)
    ]
  assert [duration for _, duration in shown] == [100, 200, 700]
  error = np.abs(np.stack([frame for frame, _ in shown]) - frames)
  assert error.mean() < 6.0
  assert error[:, 3, 5].max() < 20


def test_most_colors_go_where_most_pixels_are(tmp_path):
  values = 128 + 30 * np.random.default_rng(0).standard_normal([100, 100, 3])
  frame = np.clip(values, 0, 255).astype(np.uint8)
  path = tmp_path / "test.gif"
  animations.save_gif(path, animations.Animation(frame[None], [100]))
  with Image.open(path) as image:
    error = np.abs(np.asarray(image.convert("RGB"), int) - frame)
  # A palette spread over all colours alike is off by 6.3.
  assert error.mean() < 5.7


def test_what_stays_the_same_takes_little_room(tmp_path):
  rng = np.random.default_rng(0)
  still = rng.integers(256, size=[60, 80, 3], dtype=np.uint8)
  sizes = []
  for count in (1, 20):
    frames = np.tile(still, [count, 1, 1, 1])
    for corner in (0, -1):
      frames[:, corner, corner] = 12 * np.arange(count)[:, None]
    path = tmp_path / f"{count}.gif"
    animations.save_gif(path, animations.Animation(frames, [90] * count))
    sizes.append(path.stat().st_size)
  assert sizes[1] < 5 * sizes[0]


def test_equal_frames_make_a_still_picture(tmp_path):
  frames = np.full([3, 6, 8, 3], 90, np.uint8)
  animations.save_gif(
    tmp_path / "still.gif", animations.Animation(frames, [50, 50, 100])
  )
  with Image.open(tmp_path / "still.gif") as image:
    assert image.n_frames == 1
    np.testing.assert_array_equal(image.convert("RGB"), frames[0])
