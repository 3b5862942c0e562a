"""Tests for iodine.pictures.decompositions."""

import copy
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colors as mpl_colors

from iodine.pictures import decompositions, refinements
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.masks import entity_colors
from tests.support import inferred
from tests.support.inferred import B, H, T, W

pytestmark = pytest.mark.filterwarnings("error")


def _decomposition(rinfo, **kwargs):
  outputs = rinfo["outputs"]
  return decompositions.decomposition_plot(
    rinfo["data"]["image"][:, 0],
    outputs["recons"][:, -1, 0],
    outputs["pred_mask"][:, -1],
    outputs["components"][:, -1],
    **kwargs,
  )


@pytest.mark.parametrize(
  ("size", "num_slots", "channels"),
  [(1, 4, 3), (1, 11, 1), (2, 1, 1), (2, 11, 3)],
)
def test_every_plot_is_readable_and_leaves_pyplot_alone(
  size, num_slots, channels
):
  rinfo = inferred.rinfo(num_slots, channels)
  before = copy.deepcopy(rinfo)
  for t in (0, T - 1):  # inputs are constant at step 0
    inferred.assert_readable(refinements.inputs_plot(rinfo, t=t, size=size))
  inferred.assert_readable(decompositions.example_plot(rinfo, size=size))
  inferred.assert_readable(refinements.iterations_plot(rinfo, size=size))
  inferred.assert_readable(
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
  rinfo = inferred.rinfo(4, channels)
  fig = decompositions.example_plot(
    rinfo, b=1, t=1, mask_components=mask_components
  )
  assert inferred.titles(fig) == ["Image", "Reconstruction", "Mask"] + [
    f"Slot {k}" for k in (1, 2, 3, 4)
  ]
  outputs = rinfo["outputs"]
  masks, comps = outputs["pred_mask"][1, 1], outputs["components"][1, 1]
  if mask_components:
    comps = inferred.through(comps, masks)
  expected = [
    inferred.rgb(rinfo["data"]["image"][1, 0]),
    inferred.rgb(outputs["recons"][1, 1, 0]),
    inferred.segmentation(masks[..., 0]),
    *map(inferred.rgb, comps),
  ]
  assert len(fig.axes) == len(expected)
  for ax, panel in zip(fig.axes, expected, strict=True):
    np.testing.assert_allclose(inferred.shown(ax), panel, atol=1e-6)
  frames = [
    mpl_colors.to_rgb(ax.spines["left"].get_edgecolor()) for ax in fig.axes[3:]
  ]
  np.testing.assert_allclose(frames, get_mask_plot_colors(4))
  assert not inferred.titles(
    decompositions.example_plot(rinfo, column_titles=False)
  )


@pytest.mark.parametrize("num_scenes", [1, 4])
def test_scenes_decomposition_plot(num_scenes):
  rinfo = inferred.rinfo(4, num_frames=T)
  rinfo["metrics"] = {"ari_nobg": np.arange(B * T).reshape(B, T) / 7.0}
  rinfo["metrics"]["ari_nobg"][1, -1] = np.nan
  rows = min(num_scenes, B)
  fig = decompositions.scenes_decomposition_plot(rinfo, num_scenes)
  axes = inferred.axes(fig, rows, 8)
  assert [ax.get_ylabel() for ax in axes[:, 0]] == ["ARI 0.29", ""][:rows]
  data, outputs = rinfo["data"], rinfo["outputs"]
  for b, row in enumerate(axes):
    masks = outputs["pred_mask"][b, -1]
    true = data["true_mask"][b, -1, ..., 0]
    slots = inferred.through(outputs["components"][b, -1], masks)
    expected = [
      data["image"][b, -1],
      outputs["recons"][b, -1, 0],
      inferred.segmentation(masks[..., 0]),
      inferred.segmentation(true, entity_colors(true[..., None], masks)),
      *slots,
    ]
    for ax, panel in zip(row, expected, strict=True):
      np.testing.assert_allclose(inferred.shown(ax), panel, atol=1e-6)
  inferred.assert_readable(fig)
  del rinfo["data"]["true_mask"], rinfo["metrics"]
  fig = decompositions.scenes_decomposition_plot(rinfo, num_scenes)
  assert "True mask" not in inferred.titles(fig)
  assert len(fig.axes) == rows * 7


def test_decomposition_plot():
  rinfo = inferred.rinfo(4)
  outputs, true_masks = rinfo["outputs"], rinfo["data"]["true_mask"][:, 0]
  fig = _decomposition(
    rinfo, true_masks=true_masks, row_labels=["ARI 0.98", "ARI 0.50"]
  )
  assert inferred.titles(fig) == [
    "Image",
    "Reconstruction",
    "Mask",
    "True mask",
  ] + [f"Slot {k}" for k in (1, 2, 3, 4)]
  axes = inferred.axes(fig, B, 8)
  assert [ax.get_ylabel() for ax in axes[:, 0]] == ["ARI 0.98", "ARI 0.50"]
  masks, comps = outputs["pred_mask"][1, -1], outputs["components"][1, -1]
  np.testing.assert_allclose(
    inferred.shown(axes[1, 2]), inferred.segmentation(masks[..., 0]), atol=1e-6
  )
  np.testing.assert_allclose(
    inferred.shown(axes[1, 3]),
    inferred.segmentation(
      true_masks[1, ..., 0], entity_colors(true_masks[1], masks)
    ),
    atol=1e-6,
  )
  np.testing.assert_allclose(
    inferred.shown(axes[1, 7]), inferred.through(comps, masks)[3], atol=1e-6
  )
  assert len(_decomposition(rinfo).axes) == B * 7


def test_nan_and_constant_panels():
  rinfo = inferred.rinfo()
  rinfo["outputs"]["recons"][:, :, :, 2] = np.nan
  rinfo["outputs"]["pred_mask"][:] = np.nan
  rinfo["outputs"]["pred_mask_logits"][:] = np.nan
  rinfo["outputs"]["components"][:, :, 1] = np.inf
  for value in rinfo["inputs"]["spatial"].values():
    value[0, 1] = np.nan
    value[0, 2, :, :3] = -np.inf
  for t in range(T):
    inferred.assert_readable(refinements.inputs_plot(rinfo, t=t))
  inferred.assert_readable(
    refinements.iterations_plot(rinfo, mask_components=True)
  )
  fig = decompositions.example_plot(rinfo)
  inferred.assert_readable(fig)
  recons = inferred.shown(fig.axes[1])
  np.testing.assert_array_equal(recons[2], [[1.0, 0.0, 1.0]] * W)
  np.testing.assert_allclose(recons[3], rinfo["outputs"]["recons"][0, -1, 0, 3])


def test_figures_display_themselves_in_a_notebook(tmp_path):
  fig: Any = decompositions.example_plot(inferred.rinfo(), size=1)
  assert fig._repr_png_().startswith(b"\x89PNG")
  fig.savefig(tmp_path / "example.png")
  assert (tmp_path / "example.png").stat().st_size > 1000


class TestErrors:
  @pytest.mark.parametrize(
    "plot",
    [
      decompositions.example_plot,
      refinements.iterations_plot,
      refinements.inputs_plot,
    ],
  )
  def test_index_out_of_range(self, plot):
    with pytest.raises(ValueError, match="b=2 is out of range; valid: -2 to 1"):
      plot(inferred.rinfo(), b=2)

  @pytest.mark.parametrize(
    "plot", [decompositions.example_plot, refinements.inputs_plot]
  )
  def test_step_out_of_range(self, plot):
    with pytest.raises(ValueError, match="t=3 is out of range; valid: -3 to 2"):
      plot(inferred.rinfo(), t=3)

  def test_missing_array(self):
    rinfo = inferred.rinfo()
    del rinfo["outputs"]["recons"]
    with pytest.raises(
      ValueError,
      match=(
        r"rinfo\['outputs'\]\['recons'\] is missing; .* has: components, p"
      ),
    ):
      decompositions.example_plot(rinfo)
    with pytest.raises(ValueError, match=r"rinfo\['outputs'\] has: nothing"):
      refinements.inputs_plot({})

  def test_wrong_shape_names_the_array_and_both_shapes(self):
    rinfo = inferred.rinfo(4)
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
    rinfo = inferred.rinfo(4)
    rinfo["inputs"]["spatial"]["mask"] = np.zeros([B, T, 5, H, W, 1])
    with pytest.raises(
      ValueError,
      match=(r"inputs/spatial/mask has shape \[2, 3, 5, 7, 9, 1\], .* K=4"),
    ):
      refinements.inputs_plot(rinfo)

  def test_no_inputs(self):
    rinfo = inferred.rinfo()
    rinfo["inputs"]["spatial"] = {}
    with pytest.raises(ValueError, match="is empty"):
      refinements.inputs_plot(rinfo)

  def test_labels_must_be_one_for_each_image(self):
    with pytest.raises(ValueError, match="row_labels has 1 texts for 2 images"):
      _decomposition(inferred.rinfo(), row_labels=["ARI 1.00"])

  def test_size_must_be_positive(self):
    with pytest.raises(ValueError, match="size must be positive, got 0"):
      decompositions.example_plot(inferred.rinfo(), size=0)
