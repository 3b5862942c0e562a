"""Tests for iodine.pictures.tiles."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import checks
from iodine.pictures import colors as slot_colors
from iodine.pictures import tiles as pictures
from tests.support import inferred

tfd = tfp.distributions

# Odd and distinct, so that swapped axes fail.
B, T, K, H, W = 3, 5, 4, 7, 9
CHANNELS = pytest.mark.parametrize("channels", [1, 3])
MODES = pytest.mark.parametrize("mode", ["eager", "static", "unknown"])


def _random(*shape):
  return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def _masks(*shape):
  masks = _random(*shape)
  return masks / masks.sum(-1, keepdims=True)


def _call(mode, fn, *args, **kwargs):
  """Calls `fn` eagerly, traced, or traced with all but the last size unknown.

  The slots of masks with a trailing 1 (rank 6) stay known as well.
  """
  if mode == "eager":
    return fn(*args, **kwargs).numpy()

  def spec(x):
    known = {x.ndim - 1} | ({2} if x.ndim == 6 else set())
    return tf.TensorSpec(
      [d if i in known else None for i, d in enumerate(x.shape)], x.dtype
    )

  specs = [
    spec(a) if mode == "unknown" else tf.TensorSpec(a.shape, a.dtype)
    for a in args
  ]
  traced = tf.function(lambda *a: fn(*a, **kwargs), input_signature=specs)
  return traced(*args).numpy()


def _np_rgb(image):
  return np.broadcast_to(image, (*image.shape[:-1], 3))


def _np_frame(image, width, value=0.5):
  """Draws a border around one image [H, W, C]."""
  height, length, channels = image.shape
  framed = np.full(
    [height + 2 * width, length + 2 * width, channels], value, np.float32
  )
  framed[width : width + height, width : width + length] = image
  return framed


def _np_segmentation(masks):
  """Colours one example's masks [H, W, K]."""
  return inferred.segmentation(np.moveaxis(masks, -1, 0))


class TestColors:
  def test_colors_are_unique_and_do_not_depend_on_their_number(self):
    colors = slot_colors.get_mask_plot_colors(40)
    assert colors.dtype == np.float32
    assert colors.min() >= 0.0
    assert colors.max() <= 1.0
    assert len(np.unique(colors, axis=0)) == 40
    for n in (0, 1, 7, 16, 17):
      np.testing.assert_array_equal(
        slot_colors.get_mask_plot_colors(n), colors[:n]
      )

  def test_first_colors_differ_in_every_kind_of_vision(self):
    # Simulation matrices on linear RGB: Machado, Oliveira & Fernandes (2009),
    # severity 1. Eleven evenly spaced hues would come as close as 0.005.
    vision = {
      "normal": np.eye(3),
      "protan": np.array(
        [
          [0.152286, 1.052583, -0.204868],
          [0.114503, 0.786281, 0.099216],
          [-0.003882, -0.048116, 1.051998],
        ]
      ),
      "deutan": np.array(
        [
          [0.367322, 0.860646, -0.227968],
          [0.280085, 0.672501, 0.047413],
          [-0.011820, 0.042940, 0.968881],
        ]
      ),
      "tritan": np.array(
        [
          [1.255528, -0.076749, -0.178779],
          [-0.078411, 0.930809, 0.147602],
          [0.004733, 0.691367, 0.303900],
        ]
      ),
    }
    linear = slot_colors.get_mask_plot_colors(11) ** 2.2
    for name, matrix in vision.items():
      seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
      distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
      assert distances[~np.eye(11, dtype=bool)].min() > 0.1, name

  def test_negative_number_is_an_error(self):
    with pytest.raises(ValueError, match="got -1"):
      slot_colors.get_mask_plot_colors(-1)

  @MODES
  def test_color_transform(self, mode):
    masks = _masks(B, H, W, K)
    expected = np.stack([*map(_np_segmentation, masks)])
    actual = _call(mode, pictures.color_transform, masks)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert actual.dtype == masks.dtype


class TestDiagnosticImage:
  @MODES
  @CHANNELS
  @pytest.mark.parametrize("mask_components", [False, True])
  @pytest.mark.parametrize("nr_images", [2, 6])
  def test_against_numpy(self, mode, channels, mask_components, nr_images):
    images, recons = _random(B, H, W, channels), _random(B, H, W, channels) / 2
    masks, comps = _masks(B, H, W, K), _random(B, H, W, K, channels)
    actual = _call(
      mode,
      pictures.construct_diagnostic_image,
      images,
      recons,
      masks,
      comps,
      border_width=1,
      nr_images=nr_images,
      mask_components=mask_components,
    )
    rows = []
    for b in range(min(B, nr_images)):
      row = [
        _np_frame(_np_rgb(images[b]), 1),
        _np_frame(_np_rgb(recons[b]), 1),
        _np_frame(_np_segmentation(masks[b]), 1, 1.0),
      ]
      for k in range(K):
        comp = comps[b, :, :, k]
        if mask_components:
          comp = comp * masks[b, :, :, k, None]
        row.append(_np_frame(_np_rgb(comp), 1))
      rows.append(np.concatenate(row, axis=1))
    expected = np.concatenate(rows, axis=0)[None]
    assert expected.shape == (1, len(rows) * (H + 2), (K + 3) * (W + 2), 3)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)

  def test_clip(self):
    args = (
      3.0 * _random(B, H, W, 3),
      -_random(B, H, W, 3),
      _masks(B, H, W, K),
      _random(B, H, W, K, 3),
    )
    clipped = pictures.construct_diagnostic_image(*args).numpy()
    raw = pictures.construct_diagnostic_image(*args, clip=False).numpy()
    assert raw.min() < 0.0
    assert raw.max() > 1.0
    np.testing.assert_array_equal(clipped, np.clip(raw, 0.0, 1.0))

  def test_error_names_the_array_and_both_shapes(self):
    with pytest.raises(
      ValueError,
      match=(
        r"components has shape \[3, 7, 9, 5, 3\], expected \[B, H, W, K, C\] "
        r"with B=3 as in images, .*K=4 as in masks, C=3 as in images"
      ),
    ):
      pictures.construct_diagnostic_image(
        _random(B, H, W, 3),
        _random(B, H, W, 3),
        _masks(B, H, W, K),
        _random(B, H, W, K + 1, 3),
      )

  def test_two_channels_are_an_error(self):
    with pytest.raises(ValueError, match="have 2 channels, expected 1 or 3"):
      pictures.construct_diagnostic_image(
        _random(B, H, W, 2),
        _random(B, H, W, 2),
        _masks(B, H, W, K),
        _random(B, H, W, K, 2),
      )


@MODES
@CHANNELS
@pytest.mark.parametrize("num_frames", [1, T])
@pytest.mark.parametrize("nr_seqs", [2, 6])
def test_iterations_image(mode, channels, num_frames, nr_seqs):
  images = _random(B, num_frames, 1, H, W, channels)
  recons = 1.0 - _random(B, T, 1, H, W, channels)
  masks = np.moveaxis(_masks(B, T, H, W, 1, K), -1, 2)
  if mode == "unknown" and num_frames == 1:
    mode = "static"  # a still image is known by its one frame
  actual = _call(
    mode,
    pictures.construct_iterations_image,
    images,
    recons,
    masks,
    border_width=1,
    nr_seqs=nr_seqs,
  )
  rows = []
  for b in range(min(B, nr_seqs)):
    frames = [images[b, t % num_frames, 0] for t in range(T)]
    segmentations = [
      _np_segmentation(np.moveaxis(masks[b, t, ..., 0], 0, -1))
      for t in range(T)
    ]
    for row in (frames, recons[b, :, 0], segmentations):
      rows.append(
        np.concatenate([_np_frame(_np_rgb(x), 1) for x in row], axis=1)
      )
  expected = np.concatenate(rows)[None]
  assert expected.shape[1:3] == (len(rows) * (H + 2), T * (W + 2))
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_iterations_image_error_names_the_array_and_both_shapes():
  with pytest.raises(
    ValueError,
    match=(
      r"masks has shape \[3, 6, 4, 7, 9, 1\], expected \[B, T, K, H, W, 1\] "
      "with B=3 as in recons, T=5 as in recons"
    ),
  ):
    pictures.construct_iterations_image(
      _random(B, T, 1, H, W, 3),
      _random(B, T, 1, H, W, 3),
      _random(B, T + 1, K, H, W, 1),
    )


class TestOverview:
  @CHANNELS
  @pytest.mark.parametrize("num_frames", [1, T])
  @pytest.mark.parametrize("mask_components", [False, True])
  def test_last_step_and_all_steps(self, channels, num_frames, mask_components):
    image = _random(B, num_frames, H, W, channels)
    masks = np.moveaxis(_masks(B, T, H, W, 1, K), -1, 2)
    components = _random(B, T, K, H, W, channels)
    recons = (masks * components).sum(2, keepdims=True)
    actual = pictures.overview(
      {
        "data": {"image": image},
        "outputs": {
          "recons": recons,
          "pred_mask": masks,
          "components": components,
        },
      },
      nr_images=2,
      mask_components=mask_components,
    )
    expected = {
      "overview": pictures.construct_diagnostic_image(
        image[:, -1],
        recons[:, -1, 0],
        np.moveaxis(masks[:, -1, ..., 0], 1, -1),
        np.moveaxis(components[:, -1], 1, -2),
        nr_images=2,
        mask_components=mask_components,
      ),
      "sequence": pictures.construct_iterations_image(
        image[:, :, np.newaxis], recons, masks
      ),
    }
    assert actual.keys() == expected.keys()
    for name, picture in expected.items():
      np.testing.assert_allclose(actual[name], picture, rtol=1e-6)

  def test_what_is_not_reconstructed_has_no_picture(self):
    info = {"data": {"image": _random(B, 1, H, W, 3)}, "outputs": {}}
    assert pictures.overview(info) == {}


def test_samples_are_clipped_and_tiled():
  recons = 2.0 * _random(5, H, W, 3) - 0.5
  grid = pictures.samples(recons)
  expected = pictures.images_to_grid(np.clip(recons, 0.0, 1.0))
  np.testing.assert_array_equal(grid, expected[None])


class TestGrid:
  @MODES
  @pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 7, 1), (5, 7, 3)])
  @pytest.mark.parametrize(
    ("batch", "kwargs", "rows", "cols"),
    [
      (6, {}, 2, 4),
      (8, {}, 2, 4),
      (19, {}, 4, 4),  # three are left out
      (19, {"max_grid_height": None}, 5, 4),
      (3, {"grid_height": 2, "grid_width": 5}, 2, 5),
      (7, {"grid_height": 2, "grid_width": None}, 2, 4),
      (11, {"grid_height": 2, "grid_width": None, "max_grid_width": 3}, 2, 3),
      (11, {"grid_width": 3, "image_border_value": 0.25}, 4, 3),
      (2, {"grid_width": 3, "image_border_value": 0.0}, 1, 3),
      (5, {"grid_width": 3, "image_border_value": None}, 2, 3),
    ],
  )
  def test_against_numpy(self, mode, shape, batch, kwargs, rows, cols):
    images = _random(batch, *shape)
    actual = _call(mode, pictures.images_to_grid, images, **kwargs)
    border = kwargs.get("image_border_value", 0.5)
    pad = 0 if border is None else 2
    pad_x = pad if len(shape) > 1 else 0
    height, width, channels = (*shape, 1, 1)[:3]
    full = images.reshape([batch, height, width, channels])
    step_y, step_x = height + 2 * pad, width + 2 * pad_x
    expected = np.full([rows * step_y, cols * step_x, channels], border or 0.0)
    for i in range(min(batch, rows * cols)):
      y, x = i // cols * step_y + pad, i % cols * step_x + pad_x
      expected[y : y + height, x : x + width] = full[i]
    np.testing.assert_array_equal(actual, expected.astype(np.float32))

  def test_static_shape_is_kept(self):
    traced = tf.function(pictures.images_to_grid).get_concrete_function(
      tf.TensorSpec([6, 5, 7, 3], tf.float32)
    )
    assert traced.output_shapes == tf.TensorShape([2 * 9, 4 * 11, 3])

  @pytest.mark.parametrize(
    ("kwargs", "message"),
    [
      ({"grid_width": None}, "both None"),
      ({"grid_width": 0}, "grid_width must be a positive int or None, got 0"),
      ({"grid_height": 2.5}, "grid_height must be .* got 2.5"),
      ({"max_grid_height": -1}, "max_grid_height must be .* got -1"),
    ],
  )
  def test_impossible_sizes_are_errors(self, kwargs, message):
    with pytest.raises(ValueError, match=message):
      pictures.images_to_grid(_random(3, 5, 7, 3), **kwargs)

  @pytest.mark.parametrize(
    ("images", "message"),
    [
      (np.zeros([2, 5, 7, 3], np.uint8), r"uint8 of shape \(2, 5, 7, 3\)"),
      (np.zeros([2, 1, 5, 7, 3], np.float32), r"of shape \(2, 1, 5, 7, 3\)"),
    ],
  )
  def test_wrong_images_are_errors(self, images, message):
    with pytest.raises(ValueError, match=message):
      pictures.images_to_grid(images)


class TestCheckShapes:
  def test_returns_the_sizes(self):
    assert checks.check_shapes(
      {
        "a": (np.zeros([2, 5, 1]), "B H 1"),
        "b": (np.zeros([5, 8, 3]), "H _ C"),
      }
    ) == {"B": 2, "H": 5, "C": 3}

  @pytest.mark.parametrize(
    ("shape", "dims", "message"),
    [
      ([2, 5], "B H C", r"b has shape \[2, 5\], expected \[B, H, C\] with B=2"),
      ([2, 5, 3, 1], "B H C", r"b has shape \[2, 5, 3, 1\], expected"),
      ([2, 6], "B H", r"b has shape \[2, 6\], .* H=5 as in a"),
      ([3], "1", r"b has shape \[3\], expected \[1\]\."),
    ],
  )
  def test_errors(self, shape, dims, message):
    with pytest.raises(ValueError, match=message):
      checks.check_shapes(
        {"a": (np.zeros([2, 5]), "B H"), "b": (np.zeros(shape), dims)}
      )
