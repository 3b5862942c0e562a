"""Tests of iodine.pictures.probes."""

import io

import numpy as np
import pytest

from iodine.pictures import probes

_PROBES = {"dummy": [0.0, 0.5], "linear": [0.9, 0.7], "mlp1": [-3.0, 1.0]}


def test_properties_have_a_bar_for_every_probe():
  panels = {"Matched by the loss": _PROBES, "Matched by masks": _PROBES}
  figure = probes.properties_plot(panels, ["x", "shape"], "dummy")
  assert [ax.get_title() for ax in figure.axes] == list(panels)
  for ax in figure.axes:
    bars = ax.containers
    assert [group.get_label() for group in bars] == list(_PROBES)
    heights = [[bar.get_height() for bar in group] for group in bars]
    assert heights == [[0.0, 0.5], [0.9, 0.7], [-0.05, 1.0]]
    middles = [[bar.get_center()[0] for bar in group] for group in bars]
    np.testing.assert_allclose(np.mean(middles, axis=0), [0.0, 1.0], atol=1e-9)
    colors = {group[0].get_facecolor() for group in bars}
    assert len(colors) == 3
  labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
  assert labels == ["x", "shape"]
  figure.savefig(io.BytesIO())


def test_importances_have_a_row_for_every_factor():
  importances = np.random.default_rng(0).uniform(size=[5, 3])
  figure = probes.importances_plot(importances, ["x", "y", "shape"])
  (image,) = figure.axes[0].images
  np.testing.assert_allclose(image.get_array(), importances.T)
  labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
  assert labels == ["x", "y", "shape"]
  figure.savefig(io.BytesIO())


@pytest.mark.parametrize("num_latents", [3, 70])
def test_the_most_active_latents_are_first(num_latents):
  activeness = np.random.default_rng(1).uniform(size=num_latents)
  ax = probes.activeness_plot(activeness).axes[0]
  heights = [bar.get_height() for bar in ax.patches]
  assert heights == sorted(activeness, reverse=True)
  first = int(ax.get_xticklabels()[0].get_text())
  assert first == activeness.argmax()
  ax.figure.savefig(io.BytesIO())


def test_numbers_that_do_not_match_are_errors():
  with pytest.raises(ValueError, match="linear"):
    probes.properties_plot({"": {"linear": [0.1]}}, ["x", "y"], "dummy")
  with pytest.raises(ValueError, match="importances"):
    probes.importances_plot(np.zeros([5, 3]), ["x"])


@pytest.mark.parametrize("num_latents", [5, 40])
def test_correlations_have_numbers_where_there_is_room(num_latents):
  values = np.linspace(-1, 1, num_latents * 2).reshape(num_latents, 2)
  figure = probes.correlations_plot(values, ["x", "shape"])
  ax = figure.axes[0]
  (image,) = ax.images
  np.testing.assert_allclose(image.get_array(), values.T)
  assert image.get_clim() == (-1, 1)
  texts = {text.get_position(): text.get_text() for text in ax.texts}
  if num_latents == 5:
    assert texts[0, 0] == "\N{MINUS SIGN}1.0" and texts[4, 1] == "1.0"
  assert len(texts) == (10 if num_latents == 5 else 0)
  figure.savefig(io.BytesIO())
