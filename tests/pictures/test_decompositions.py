"""Tests for iodine.pictures.decompositions."""

import copy
import itertools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colors as mpl_colors
from matplotlib import figure as mpl_figure

from iodine.pictures import decompositions

pytestmark = pytest.mark.filterwarnings("error")

# Odd and distinct, so that swapped axes fail.
B, T, L, H, W = 2, 3, 5, 7, 9


def _rinfo(num_slots=4, channels=3, num_frames=1):
  """Returns what `IODINE.eval` returns, with random content."""
  rng = np.random.default_rng(0)

  def uniform(*shape):
    return rng.uniform(size=shape).astype(np.float32)

  logits = rng.normal(size=[B, T, num_slots, H, W, 1])
  masks = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
  spatial = {
    "image": uniform(B, T, 1, H, W, channels),
    "components": uniform(B, T, num_slots, H, W, channels),
    "dcomponents": rng.normal(size=[B, T, num_slots, H, W, channels]),
    "mask": logits,
    "pred_mask": masks,
    "dmask": 1e-4 * rng.normal(size=[B, T, num_slots, H, W, 1]),
    "posterior": masks,
    "log_prob": -1500.0 * uniform(B, T, 1, H, W, 1),
    "counterfactual": rng.normal(size=[B, T, num_slots, H, W, 1]),
    "capacity": np.full([B, T, num_slots, H, W, 1], 0.5),
    "coordinates": uniform(B, T, 1, H, W, 8),
  }
  for value in spatial.values():
    value[:, 0] = 0.0
  return {
    "data": {
      "image": uniform(B, num_frames, H, W, channels),
      "true_mask": np.eye(L)[
        rng.integers(L, size=[B, num_frames, H, W, 1])
      ].transpose(0, 1, 5, 2, 3, 4),
    },
    "outputs": {
      "recons": uniform(B, T, 1, H, W, channels),
      "pred_mask": masks,
      "pred_mask_logits": logits,
      "components": uniform(B, T, num_slots, H, W, channels),
    },
    "inputs": {"spatial": spatial, "flat": {}},
  }


def _decomposition(rinfo, **kwargs):
  outputs = rinfo["outputs"]
  return decompositions.decomposition_plot(
    rinfo["data"]["image"][:, 0],
    outputs["recons"][:, -1, 0],
    outputs["pred_mask"][:, -1],
    outputs["components"][:, -1],
    **kwargs,
  )


def _titles(fig):
  return [ax.get_title() for ax in fig.axes if ax.get_title()]


def _axes(fig, rows, cols):
  """Returns the axes of `fig` as an array [rows, cols]."""
  return np.array(fig.axes, object).reshape([rows, cols])


def _shown(ax):
  """Returns the array that `ax` shows."""
  return np.asarray(ax.images[0].get_array())


def _segmentation(masks):
  return np.einsum(
    "khw,kc->hwc", masks, decompositions.get_mask_plot_colors(len(masks))
  )


def _rgb(image):
  return np.broadcast_to(image, (*image.shape[:-1], 3))


def _assert_readable(fig):
  """Draws `fig`; its texts must neither overlap nor leave it."""
  assert isinstance(fig, mpl_figure.Figure)
  fig.draw_without_rendering()
  boxes = {}
  for ax in itertools.chain(fig.axes, *(ax.child_axes for ax in fig.axes)):
    texts = [ax.title, ax.xaxis.label, ax.yaxis.label]
    texts += ax.get_xticklabels() + [
      label
      for tick, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
      if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1]
    ]
    for text in texts:
      if ax.get_visible() and text.get_visible() and text.get_text():
        boxes[text] = text.get_window_extent()
  for text, box in boxes.items():
    assert 0 <= box.x0 < box.x1 <= fig.bbox.x1, text
    assert 0 <= box.y0 < box.y1 <= fig.bbox.y1, text
  for (text, box), (other, other_box) in itertools.combinations(
    boxes.items(), 2
  ):
    assert not box.overlaps(other_box), (text, other)


@pytest.mark.parametrize(
  ("size", "num_slots", "channels"),
  [(1, 4, 3), (1, 11, 1), (2, 1, 1), (2, 11, 3)],
)
def test_every_plot_is_readable_and_leaves_pyplot_alone(
  size, num_slots, channels
):
  rinfo = _rinfo(num_slots, channels)
  before = copy.deepcopy(rinfo)
  for t in (0, T - 1):  # inputs are constant at step 0
    _assert_readable(decompositions.inputs_plot(rinfo, t=t, size=size))
  _assert_readable(decompositions.example_plot(rinfo, size=size))
  _assert_readable(decompositions.iterations_plot(rinfo, size=size))
  _assert_readable(
    _decomposition(
      rinfo,
      size=size,
      true_masks=rinfo["data"]["true_mask"][:, 0],
      row_labels=["ARI 0.98", "ARI -0.02"],
    )
  )
  assert plt.get_fignums() == []
  for section, name in (("data", "image"), ("outputs", "components")):
    np.testing.assert_array_equal(rinfo[section][name], before[section][name])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mask_components", [False, True])
def test_example_plot(channels, mask_components):
  rinfo = _rinfo(4, channels)
  fig = decompositions.example_plot(
    rinfo, b=1, t=1, mask_components=mask_components
  )
  assert _titles(fig) == ["Image", "Reconstruction", "Mask"] + [
    f"Slot {k}" for k in (1, 2, 3, 4)
  ]
  outputs = rinfo["outputs"]
  masks, comps = outputs["pred_mask"][1, 1], outputs["components"][1, 1]
  if mask_components:
    comps = comps * masks + (1.0 - masks)
  expected = [
    _rgb(rinfo["data"]["image"][1, 0]),
    _rgb(outputs["recons"][1, 1, 0]),
    _segmentation(masks[..., 0]),
    *map(_rgb, comps),
  ]
  assert len(fig.axes) == len(expected)
  for ax, panel in zip(fig.axes, expected, strict=True):
    np.testing.assert_allclose(_shown(ax), panel, atol=1e-6)
  frames = [
    mpl_colors.to_rgb(ax.spines["left"].get_edgecolor()) for ax in fig.axes[3:]
  ]
  np.testing.assert_allclose(frames, decompositions.get_mask_plot_colors(4))
  assert not _titles(decompositions.example_plot(rinfo, column_titles=False))


@pytest.mark.parametrize("num_scenes", [1, 4])
def test_scenes_decomposition_plot(num_scenes):
  rinfo = _rinfo(4, num_frames=T)
  rinfo["metrics"] = {"ari_nobg": np.arange(B * T).reshape(B, T) / 7.0}
  rinfo["metrics"]["ari_nobg"][1, -1] = np.nan
  rows = min(num_scenes, B)
  fig = decompositions.scenes_decomposition_plot(rinfo, num_scenes)
  axes = _axes(fig, rows, 8)
  assert [ax.get_ylabel() for ax in axes[:, 0]] == ["ARI 0.29", ""][:rows]
  data, outputs = rinfo["data"], rinfo["outputs"]
  for b, row in enumerate(axes):
    masks = outputs["pred_mask"][b, -1]
    slots = outputs["components"][b, -1] * masks + (1.0 - masks)
    expected = [
      data["image"][b, -1],
      outputs["recons"][b, -1, 0],
      _segmentation(masks[..., 0]),
      _segmentation(data["true_mask"][b, -1, ..., 0]),
      *slots,
    ]
    for ax, panel in zip(row, expected, strict=True):
      np.testing.assert_allclose(_shown(ax), panel, atol=1e-6)
  _assert_readable(fig)
  del rinfo["data"]["true_mask"], rinfo["metrics"]
  fig = decompositions.scenes_decomposition_plot(rinfo, num_scenes)
  assert "True mask" not in _titles(fig)
  assert len(fig.axes) == rows * 7


def test_iterations_plot():
  rinfo = _rinfo(4)
  fig = decompositions.iterations_plot(rinfo, b=1)
  assert len(fig.axes) == (T + 1) * 6
  axes = _axes(fig, T + 1, 6)
  assert _titles(fig) == ["Reconstruction", "Mask"] + [
    f"Slot {k}" for k in (1, 2, 3, 4)
  ]
  assert [ax.get_ylabel() for ax in axes[:, 0]] == [
    "iter 0",
    "iter 1",
    "iter 2",
    "",
  ]
  assert [ax.get_xlabel() for ax in axes[-1]] == ["Image", "True mask"] + [
    f"Mask logits {k}" for k in (1, 2, 3, 4)
  ]
  outputs, data = rinfo["outputs"], rinfo["data"]
  for t, k in itertools.product(range(T), range(4)):
    np.testing.assert_allclose(
      _shown(axes[t, k + 2]), outputs["components"][1, t, k]
    )
  np.testing.assert_allclose(
    _shown(axes[1, 1]),
    _segmentation(outputs["pred_mask"][1, 1, ..., 0]),
    atol=1e-6,
  )
  np.testing.assert_allclose(
    _shown(axes[-1, 1]),
    _segmentation(data["true_mask"][1, 0, ..., 0]),
    atol=1e-6,
  )
  np.testing.assert_allclose(
    _shown(axes[-1, 3]),
    outputs["pred_mask_logits"][1, -1, 1, ..., 0],
    rtol=1e-6,
  )
  # All logits share one range of colours.
  assert len({ax.images[0].get_clim() for ax in axes[-1, 2:]}) == 1


def test_iterations_of_a_model_without_logits_from_step_1_on():
  rinfo = _rinfo()
  del rinfo["outputs"]["pred_mask_logits"]
  fig = decompositions.iterations_plot(rinfo, first_step=1)
  axes = np.array(fig.axes, object).reshape(T + 1, -1)
  labels = [ax.get_ylabel() for ax in axes[:, 0]]
  assert labels == ["iter 1", "iter 2", "iter 3", ""]
  assert [ax.get_visible() for ax in axes[-1, :3]] == [True, True, False]
  assert not any(ax.get_visible() for ax in axes[-1, 3:])
  _assert_readable(fig)


def test_layers_of_a_hierarchy_are_named():
  fig = decompositions.iterations_plot(_rinfo(), first_step=-1)
  axes = np.array(fig.axes, object).reshape(T + 1, -1)
  labels = [ax.get_ylabel() for ax in axes[:, 0]]
  assert labels == ["layer 1", "layer 2", "iter 1", ""]


@pytest.mark.parametrize("missing", ["absent", "none"])
def test_plots_without_true_masks(missing):
  rinfo = _rinfo()
  if missing == "absent":
    del rinfo["data"]["true_mask"]
  else:
    rinfo["data"]["true_mask"] = None
  fig = decompositions.iterations_plot(rinfo)
  assert not fig.axes[T * 6 + 1].get_visible()
  assert fig.axes[T * 6].get_visible()
  _assert_readable(fig)
  _assert_readable(decompositions.example_plot(rinfo))


def test_sequence_shows_the_frame_of_each_step():
  rinfo = _rinfo(num_frames=T)
  frames = rinfo["data"]["image"][0]
  fig = decompositions.iterations_plot(rinfo)
  axes = _axes(fig, T + 1, 7)
  assert _titles(fig)[:2] == ["Frame", "Reconstruction"]
  for t in range(T):
    np.testing.assert_allclose(_shown(axes[t, 0]), frames[t])
  assert not axes[-1, 0].get_visible()
  np.testing.assert_allclose(_shown(axes[-1, 1]), frames[-1])
  assert axes[-1, 1].get_xlabel() == "Last frame"
  _assert_readable(fig)
  for t in (1, -1):
    example = decompositions.example_plot(rinfo, t=t)
    np.testing.assert_allclose(_shown(example.axes[0]), frames[t])


def test_inputs_plot():
  rinfo = _rinfo(4)
  spatial = rinfo["inputs"]["spatial"]
  spatial["dmask"][1, 2, 0, 3, 4] = 0.5  # positive and negative ends differ
  fig = decompositions.inputs_plot(rinfo, b=1, t=2)
  axes = _axes(fig, len(spatial), 4)
  assert _titles(fig) == [f"Slot {k}" for k in (1, 2, 3, 4)]
  names = [ax.get_ylabel() for ax in axes[:, 0]]
  assert names == [
    "image",
    "components",
    "dcomponents",
    "mask",
    "pred_mask",
    "dmask",
    "posterior",
    "log_prob",
    "counterfactual",
    "coordinates",
    "capacity",
  ]
  with_colorbar = [
    n for n, ax in zip(names, axes[:, -1], strict=True) if ax.child_axes
  ]
  assert with_colorbar == [
    "mask",
    "pred_mask",
    "dmask",
    "posterior",
    "log_prob",
    "counterfactual",
    "capacity",
  ]
  for k in range(4):
    np.testing.assert_allclose(
      _shown(axes[3, k]), spatial["mask"][1, 2, k, ..., 0], rtol=1e-6
    )
    np.testing.assert_allclose(
      _shown(axes[7, k]), spatial["log_prob"][1, 2, 0, ..., 0], rtol=1e-6
    )
  vmin, vmax = axes[5, 0].images[0].get_clim()
  assert vmin == -vmax == pytest.approx(-np.abs(spatial["dmask"][1, 2]).max())
  # Shared inputs have a black frame, those of a slot one of its colour.
  edges = [axes[row, 2].spines["top"].get_edgecolor()[:3] for row in (0, 1)]
  np.testing.assert_allclose(
    edges, [(0, 0, 0), decompositions.get_mask_plot_colors(3)[2]]
  )


@pytest.mark.parametrize("name", ["image", "dmask", "zeta"])
def test_inputs_plot_of_a_single_input(name):
  rinfo = _rinfo()
  value = rinfo["inputs"]["spatial"].get(name, np.ones([B, T, 1, H, W, 2]))
  rinfo["inputs"]["spatial"] = {name: value}
  fig = decompositions.inputs_plot(rinfo, t=-1)
  assert len(fig.axes) == 4
  assert fig.axes[0].get_ylabel() == name
  _assert_readable(fig)


def test_decomposition_plot():
  rinfo = _rinfo(4)
  outputs, true_masks = rinfo["outputs"], rinfo["data"]["true_mask"][:, 0]
  fig = _decomposition(
    rinfo, true_masks=true_masks, row_labels=["ARI 0.98", "ARI 0.50"]
  )
  assert _titles(fig) == ["Image", "Reconstruction", "Mask", "True mask"] + [
    f"Slot {k}" for k in (1, 2, 3, 4)
  ]
  axes = _axes(fig, B, 8)
  assert [ax.get_ylabel() for ax in axes[:, 0]] == ["ARI 0.98", "ARI 0.50"]
  masks, comps = outputs["pred_mask"][1, -1], outputs["components"][1, -1]
  np.testing.assert_allclose(
    _shown(axes[1, 2]), _segmentation(masks[..., 0]), atol=1e-6
  )
  np.testing.assert_allclose(
    _shown(axes[1, 3]), _segmentation(true_masks[1, ..., 0]), atol=1e-6
  )
  np.testing.assert_allclose(
    _shown(axes[1, 7]), comps[3] * masks[3] + 1.0 - masks[3], atol=1e-6
  )
  assert len(_decomposition(rinfo).axes) == B * 7


def test_nan_and_constant_panels():
  rinfo = _rinfo()
  rinfo["outputs"]["recons"][:, :, :, 2] = np.nan
  rinfo["outputs"]["pred_mask"][:] = np.nan
  rinfo["outputs"]["pred_mask_logits"][:] = np.nan
  rinfo["outputs"]["components"][:, :, 1] = np.inf
  for value in rinfo["inputs"]["spatial"].values():
    value[0, 1] = np.nan
    value[0, 2, :, :3] = -np.inf
  for t in range(T):
    _assert_readable(decompositions.inputs_plot(rinfo, t=t))
  _assert_readable(decompositions.iterations_plot(rinfo, mask_components=True))
  fig = decompositions.example_plot(rinfo)
  _assert_readable(fig)
  recons = _shown(fig.axes[1])
  np.testing.assert_array_equal(recons[2], [[1.0, 0.0, 1.0]] * W)
  np.testing.assert_allclose(recons[3], rinfo["outputs"]["recons"][0, -1, 0, 3])


def test_figures_display_themselves_in_a_notebook(tmp_path):
  fig: Any = decompositions.example_plot(_rinfo(), size=1)
  assert fig._repr_png_().startswith(b"\x89PNG")
  fig.savefig(tmp_path / "example.png")
  assert (tmp_path / "example.png").stat().st_size > 1000


class TestHelpers:
  def test_show_img_norm_and_mask(self):
    img = np.linspace(-3.0, 5.0, H * W * 3).reshape(H, W, 3)
    mask = np.zeros([H, W, 1])
    mask[2] = 1.0
    shown = np.asarray(
      decompositions.show_img(img, mask=mask, norm=True).get_array()
    )
    np.testing.assert_allclose(shown[2], (img[2] + 3.0) / 8.0, atol=1e-6)
    np.testing.assert_array_equal(np.delete(shown, 2, axis=0), 1.0)

  @pytest.mark.parametrize(("channels", "first"), [(2, 1), (6, 3), (4, 3)])
  def test_show_img_shows_the_location_of_more_parameters(
    self, channels, first
  ):
    img = np.random.default_rng(0).uniform(size=[H, W, channels])
    shown = np.asarray(decompositions.show_img(img).get_array())
    np.testing.assert_allclose(shown, _rgb(img[..., :first]), rtol=1e-6)

  def test_show_mat_draws_nan_in_magenta(self):
    m = np.ones([H, W, 1])
    m[1, 2] = np.nan
    mappable = decompositions.show_mat(m, cmap="coolwarm", vmin=-1.0)
    assert mappable.get_clim() == pytest.approx((-1.0, 1.1))
    rgba = mappable.to_rgba(np.ma.masked_invalid(m[..., 0]))
    np.testing.assert_allclose(rgba[1, 2], mpl_colors.to_rgba("magenta"))

  @pytest.mark.parametrize("channels", [1, 2, 8])
  def test_show_coords_stays_in_range(self, channels):
    m = np.random.default_rng(0).normal(size=[H, W, channels])
    shown = np.asarray(decompositions.show_coords(m).get_array())
    assert shown.shape == (H, W, 3)
    assert 0.0 <= shown.min() < shown.max() <= 1.0

  def test_helpers_draw_into_given_axes(self):
    ax = mpl_figure.Figure().subplots()
    mappable = decompositions.show_mask(
      np.eye(3)[:, :, None], ax=ax, color="red"
    )
    assert mappable.axes is ax
    np.testing.assert_allclose(
      _shown(ax)[:, 0], decompositions.get_mask_plot_colors(3)
    )
    assert ax.spines["top"].get_edgecolor() == mpl_colors.to_rgba("red")
    assert not len(ax.get_xticks())
    assert not len(ax.get_yticks())


class TestErrors:
  @pytest.mark.parametrize(
    "plot",
    [
      decompositions.example_plot,
      decompositions.iterations_plot,
      decompositions.inputs_plot,
    ],
  )
  def test_index_out_of_range(self, plot):
    with pytest.raises(ValueError, match="b=2 is out of range; valid: -2 to 1"):
      plot(_rinfo(), b=2)

  @pytest.mark.parametrize(
    "plot", [decompositions.example_plot, decompositions.inputs_plot]
  )
  def test_step_out_of_range(self, plot):
    with pytest.raises(ValueError, match="t=3 is out of range; valid: -3 to 2"):
      plot(_rinfo(), t=3)

  def test_missing_array(self):
    rinfo = _rinfo()
    del rinfo["outputs"]["recons"]
    with pytest.raises(
      ValueError,
      match=(
        r"rinfo\['outputs'\]\['recons'\] is missing; .* has: components, p"
      ),
    ):
      decompositions.example_plot(rinfo)
    with pytest.raises(ValueError, match=r"rinfo\['outputs'\] has: nothing"):
      decompositions.inputs_plot({})

  def test_wrong_shape_names_the_array_and_both_shapes(self):
    rinfo = _rinfo(4)
    rinfo["outputs"]["pred_mask"] = rinfo["outputs"]["pred_mask"][..., 0]
    with pytest.raises(
      ValueError,
      match=(
        r"pred_mask has shape \[2, 3, 4, 7, 9\], expected "
        r"\[B, T, K, H, W, 1\]"
      ),
    ):
      decompositions.example_plot(rinfo)

  def test_wrong_shape_of_an_input(self):
    rinfo = _rinfo(4)
    rinfo["inputs"]["spatial"]["mask"] = np.zeros([B, T, 5, H, W, 1])
    with pytest.raises(
      ValueError,
      match=(r"inputs/spatial/mask has shape \[2, 3, 5, 7, 9, 1\], .* K=4"),
    ):
      decompositions.inputs_plot(rinfo)

  def test_no_inputs(self):
    rinfo = _rinfo()
    rinfo["inputs"]["spatial"] = {}
    with pytest.raises(ValueError, match="is empty"):
      decompositions.inputs_plot(rinfo)

  def test_labels_must_be_one_for_each_image(self):
    with pytest.raises(ValueError, match="row_labels has 1 texts for 2 images"):
      _decomposition(_rinfo(), row_labels=["ARI 1.00"])

  def test_size_must_be_positive(self):
    with pytest.raises(ValueError, match="size must be positive, got 0"):
      decompositions.example_plot(_rinfo(), size=0)
