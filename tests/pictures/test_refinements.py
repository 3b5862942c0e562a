"""Tests for iodine.pictures.refinements."""

import itertools

import numpy as np
import pytest

from iodine.pictures import decompositions, refinements
from iodine.pictures.colors import get_mask_plot_colors
from iodine.pictures.masks import entity_colors
from tests.support import inferred
from tests.support.inferred import B, H, T, W

pytestmark = pytest.mark.filterwarnings("error")


def test_iterations_plot():
  rinfo = inferred.rinfo(4)
  fig = refinements.iterations_plot(rinfo, b=1)
  assert len(fig.axes) == (T + 1) * 6
  axes = inferred.axes(fig, T + 1, 6)
  assert inferred.titles(fig) == ["Reconstruction", "Mask"] + [
    f"Slot {k}" for k in (1, 2, 3, 4)
  ]
  assert [ax.get_ylabel() for ax in axes[:, 0]] == [
    "step 0",
    "step 1",
    "step 2",
    "",
  ]
  assert [ax.get_xlabel() for ax in axes[-1]] == ["Image", "True mask"] + [
    f"Mask logits {k}" for k in (1, 2, 3, 4)
  ]
  outputs, true = rinfo["outputs"], rinfo["data"]["true_mask"][1, 0]
  for t, k in itertools.product(range(T), range(4)):
    np.testing.assert_allclose(
      inferred.shown(axes[t, k + 2]), outputs["components"][1, t, k]
    )
  np.testing.assert_allclose(
    inferred.shown(axes[1, 1]),
    inferred.segmentation(outputs["pred_mask"][1, 1, ..., 0]),
    atol=1e-6,
  )
  np.testing.assert_allclose(
    inferred.shown(axes[-1, 1]),
    inferred.segmentation(
      true[..., 0], entity_colors(true, outputs["pred_mask"][1, -1])
    ),
    atol=1e-6,
  )
  np.testing.assert_allclose(
    inferred.shown(axes[-1, 3]),
    outputs["pred_mask_logits"][1, -1, 1, ..., 0],
    rtol=1e-6,
  )
  # All logits share one range of colours.
  assert len({ax.images[0].get_clim() for ax in axes[-1, 2:]}) == 1


def test_iterations_of_a_model_without_logits_from_step_1_on():
  rinfo = inferred.rinfo()
  del rinfo["outputs"]["pred_mask_logits"]
  fig = refinements.iterations_plot(rinfo, first_step=1)
  axes = np.array(fig.axes, object).reshape(T + 1, -1)
  labels = [ax.get_ylabel() for ax in axes[:, 0]]
  assert labels == ["step 1", "step 2", "step 3", ""]
  assert [ax.get_visible() for ax in axes[-1, :3]] == [True, True, False]
  assert not any(ax.get_visible() for ax in axes[-1, 3:])
  inferred.assert_readable(fig)


def test_layers_of_a_hierarchy_are_named():
  fig = refinements.iterations_plot(inferred.rinfo(), first_step=-1)
  axes = np.array(fig.axes, object).reshape(T + 1, -1)
  labels = [ax.get_ylabel() for ax in axes[:, 0]]
  assert labels == ["layer 1", "layer 2", "step 1", ""]


@pytest.mark.parametrize("missing", ["absent", "none"])
def test_plots_without_true_masks(missing):
  rinfo = inferred.rinfo()
  if missing == "absent":
    del rinfo["data"]["true_mask"]
  else:
    rinfo["data"]["true_mask"] = None
  fig = refinements.iterations_plot(rinfo)
  assert not fig.axes[T * 6 + 1].get_visible()
  assert fig.axes[T * 6].get_visible()
  inferred.assert_readable(fig)
  inferred.assert_readable(decompositions.example_plot(rinfo))


def test_sequence_shows_the_frame_of_each_step():
  rinfo = inferred.rinfo(num_frames=T)
  frames = rinfo["data"]["image"][0]
  fig = refinements.iterations_plot(rinfo)
  axes = inferred.axes(fig, T + 1, 7)
  assert inferred.titles(fig)[:2] == ["Frame", "Reconstruction"]
  for t in range(T):
    np.testing.assert_allclose(inferred.shown(axes[t, 0]), frames[t])
  assert not axes[-1, 0].get_visible()
  np.testing.assert_allclose(inferred.shown(axes[-1, 1]), frames[-1])
  assert axes[-1, 1].get_xlabel() == "Last frame"
  inferred.assert_readable(fig)
  for t in (1, -1):
    example = decompositions.example_plot(rinfo, t=t)
    np.testing.assert_allclose(inferred.shown(example.axes[0]), frames[t])


def test_inputs_plot():
  rinfo = inferred.rinfo(4)
  spatial = rinfo["inputs"]["spatial"]
  spatial["dmask"][1, 2, 0, 3, 4] = 0.5  # positive and negative ends differ
  fig = refinements.inputs_plot(rinfo, b=1, t=2)
  axes = inferred.axes(fig, len(spatial), 4)
  assert inferred.titles(fig) == [f"Slot {k}" for k in (1, 2, 3, 4)]
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
      inferred.shown(axes[3, k]), spatial["mask"][1, 2, k, ..., 0], rtol=1e-6
    )
    np.testing.assert_allclose(
      inferred.shown(axes[7, k]),
      spatial["log_prob"][1, 2, 0, ..., 0],
      rtol=1e-6,
    )
  vmin, vmax = axes[5, 0].images[0].get_clim()
  assert vmin == -vmax == pytest.approx(-np.abs(spatial["dmask"][1, 2]).max())
  # Shared inputs have a black frame, those of a slot one of its colour.
  edges = [axes[row, 2].spines["top"].get_edgecolor()[:3] for row in (0, 1)]
  np.testing.assert_allclose(edges, [(0, 0, 0), get_mask_plot_colors(3)[2]])


@pytest.mark.parametrize("name", ["image", "dmask", "zeta"])
def test_inputs_plot_of_a_single_input(name):
  rinfo = inferred.rinfo()
  value = rinfo["inputs"]["spatial"].get(name, np.ones([B, T, 1, H, W, 2]))
  rinfo["inputs"]["spatial"] = {name: value}
  fig = refinements.inputs_plot(rinfo, t=-1)
  assert len(fig.axes) == 4
  assert fig.axes[0].get_ylabel() == name
  inferred.assert_readable(fig)
