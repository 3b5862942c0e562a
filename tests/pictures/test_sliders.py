"""Tests for iodine.pictures.sliders: what they draw, without a browser."""

import base64
import io
import logging
import sys

import numpy as np
import pytest
import tensorflow as tf
from matplotlib import figure as mpl_figure
from PIL import Image

from iodine import exploration
from iodine.pictures import decompositions
from iodine.pictures import sliders as latent_sliders
from tests.support import tiny

ipywidgets = pytest.importorskip("ipywidgets")

B, K, Z = tiny.B, tiny.K, tiny.Z
# The same numbers by another order of float32 operations.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def model():
  return tiny.initialized()


@pytest.fixture(scope="module")
def info(model):
  return exploration.infer(model, tiny.batch(), seed=3)


@pytest.fixture
def drawn(monkeypatch) -> list:
  """What was drawn in a test: image, recons, masks, components."""
  calls = []
  plot = decompositions.decomposition_plot

  def remember(*arrays, **kwargs):
    calls.append([array[0] for array in arrays])
    return plot(*arrays, **kwargs)

  monkeypatch.setattr(decompositions, "decomposition_plot", remember)
  return calls


@pytest.fixture
def sliders(model, info, drawn) -> latent_sliders.LatentSliders:
  sliders = latent_sliders.explore_latents(model, info)
  assert isinstance(sliders, latent_sliders.LatentSliders)
  return sliders


def _assert_drawn(drawn, model, info, b, changes=()) -> None:
  """Compares the last picture with what the whole model decodes."""
  means = info["latent"]["z_mean"][b : b + 1, -1].copy()
  for slot, latent, value in changes:
    means[0, slot, latent] = value
  _, dist = model.decode(tf.constant(means))
  mixture = model.output_dist
  expected = (
    info["data"]["image"][b, -1],
    dist.mean()[0, 0],
    mixture.masks(dist)[0],
    mixture.components(dist)[0],
  )
  for array, other in zip(drawn[-1], expected, strict=True):
    np.testing.assert_allclose(array, other, **TOLERANCE)


def _centre(info, latent) -> tuple[float, float]:
  means = info["latent"]["z_mean"][:, -1, :, latent]
  return means.mean(), means.std()


def test_the_sliders_start_with_what_was_inferred(sliders, drawn, model, info):
  _assert_drawn(drawn, model, info, 0)
  assert len(drawn) == 1
  slot = exploration.object_slot(info)
  ranking = exploration.traverse(model, info, slot, num_latents=Z, num_values=2)
  assert (sliders.scene.value, sliders.slot.value) == (1, slot + 1)
  assert (sliders.scene.max, sliders.slot.max) == (B, K)
  assert [i for _, i in sliders.latent.options] == ranking.latents.tolist()
  assert sliders.latent.options[0][0].endswith(
    f"(KL {ranking.importance[0]:.2f})"
  )
  assert sliders.latent.value == ranking.latents[0]
  assert sliders.value.value == pytest.approx(ranking.current[0], rel=1e-4)
  assert sliders.message.value == f"Inferred: {ranking.current[0]:+.2f}"


@pytest.mark.parametrize("slot", range(K))
def test_a_value_redraws_the_scene(sliders, drawn, model, info, slot):
  sliders.slot.value, sliders.latent.value = slot + 1, 3
  before = sliders.picture.value
  centre, deviation = _centre(info, 3)
  for value in (1.5, -2.25):
    sliders.value.value = value
    change = (slot, 3, centre + value * deviation)
    _assert_drawn(drawn, model, info, 0, [change])
  assert sliders.picture.value != before
  with Image.open(io.BytesIO(sliders.picture.value)) as image:
    assert image.format == "PNG"


def test_values_can_be_of_the_prior(sliders, drawn, model, info):
  sliders.latent.value = 2
  sliders.range_of.value = "prior"
  slot = sliders.slot.value - 1
  deviation = np.sqrt(np.log(2.0))  # the prior's mean is 0
  inferred = info["latent"]["z_mean"][0, -1, slot, 2] / deviation
  assert sliders.value.value == pytest.approx(inferred, rel=1e-5)
  sliders.value.value = -2.0
  _assert_drawn(drawn, model, info, 0, [(slot, 2, -2.0 * deviation)])


def test_values_can_reach_from_the_lowest_sample_to_the_highest(
  sliders, drawn, model, info
):
  sliders.latent.value = 4
  sliders.range_of.value = "samples"
  samples = info["latent"]["z"][:, -1, :, 4]
  assert (sliders.value.min, sliders.value.max) == (-1.0, 1.0)
  for value, limit in ((-1.0, samples.min()), (1.0, samples.max())):
    sliders.value.value = value
    _assert_drawn(drawn, model, info, 0, [(sliders.slot.value - 1, 4, limit)])


def test_slots_without_a_posterior_have_sliders(drawn):
  """As those of Slot Attention."""
  model = tiny.initialized()
  info = exploration.infer(model, tiny.batch(), seed=3)
  info["latent"] = {"z": info["latent"]["z"]}
  sliders = latent_sliders.explore_latents(model, info)
  assert sliders.range_of.options == ("samples",)
  slot = sliders.slot.value - 1
  active = exploration.latent_importance(model, info, slot, range_of="samples")
  order = np.argsort(-active)
  assert [i for _, i in sliders.latent.options] == order.tolist()
  assert "activeness" in sliders.latent.options[0][0]
  z = info["latent"]["z"]
  inferred = {**info, "latent": {"z_mean": z}}
  sliders.value.value = 1.0
  change = (slot, order[0], z[:, -1, :, order[0]].max())
  _assert_drawn(drawn, model, inferred, 0, [change])


def test_any_other_choice_returns_to_what_was_inferred(
  sliders, drawn, model, info
):
  others = [
    (sliders.scene, 3),
    (sliders.slot, 3 - sliders.slot.value),
    (sliders.latent, sliders.latent.options[-1][1]),
    (sliders.range_of, "prior"),
  ]
  for control, other in others:
    sliders.value.value = sliders.value.max / 2
    count = len(drawn)
    control.value = other
    assert len(drawn) == count + 1
    _assert_drawn(drawn, model, info, sliders.scene.value - 1)


def test_a_change_decodes_the_slot_alone(sliders, monkeypatch):
  decoded = []
  decode_slots = exploration.decode_slots

  def remember(model, z):
    decoded.append(z.shape)
    return decode_slots(model, z)

  monkeypatch.setattr(exploration, "decode_slots", remember)
  sliders.value.value = 1.0
  sliders.slot.value = 3 - sliders.slot.value
  assert decoded == [(Z,), (Z,)]
  sliders.scene.value = 2
  assert decoded[2:] == [(K, Z), (Z,)]


def test_values_reach_as_far_as_what_was_inferred(model, info):
  far = {**info, "latent": {**info["latent"]}}
  means = far["latent"]["z_mean"] = info["latent"]["z_mean"].copy()
  means[1, -1, 0, 4] = 50.0  # B K - 1 others near 0 leave it 2.6 away
  sliders = latent_sliders.explore_latents(model, far)
  sliders.range_of.value = "prior"
  sliders.scene.value, sliders.slot.value, sliders.latent.value = 2, 1, 4
  assert sliders.value.value == pytest.approx(50.0 / np.sqrt(np.log(2.0)))
  assert sliders.value.max == -sliders.value.min == sliders.value.value
  sliders.scene.value = 1
  assert (sliders.value.min, sliders.value.max) == (-3.0, 3.0)


def test_errors_of_a_redraw_reach_the_user(sliders, monkeypatch, caplog):
  def fail(*args, **kwargs):
    raise MemoryError("no room for a picture")

  before = sliders.picture.value
  with monkeypatch.context() as patch:
    patch.setattr(decompositions, "decomposition_plot", fail)
    sliders.value.value = 1.0
  assert sliders.message.value == "MemoryError: no room for a picture"
  assert "no room for a picture" in caplog.text
  assert sliders.picture.value == before
  sliders.value.value = 2.0
  assert "MemoryError" not in sliders.message.value
  assert sliders.picture.value != before


def test_a_notebook_is_given_sliders_and_a_picture(sliders):
  sliders.value.value = 2.0
  bundle = sliders._repr_mimebundle_()
  view = bundle["application/vnd.jupyter.widget-view+json"]
  box = sliders._box
  assert view["model_id"] == box.model_id
  shown = {*box.children}.union(*(row.children for row in box.children[:-1]))
  assert {
    *(sliders.scene, sliders.slot, sliders.latent, sliders.value),
    *(sliders.range_of, sliders.message, sliders.picture),
  } <= shown
  assert base64.b64decode(bundle["image/png"]) == sliders.picture.value
  assert set(bundle) == {
    "application/vnd.jupyter.widget-view+json",
    "image/png",
    "text/plain",
  }


def test_without_ipywidgets_there_is_a_picture(
  model, info, drawn, monkeypatch, caplog
):
  monkeypatch.setitem(sys.modules, "ipywidgets", None)
  with caplog.at_level(logging.WARNING):
    picture = latent_sliders.explore_latents(model, info)
  assert isinstance(picture, mpl_figure.Figure)
  _assert_drawn(drawn, model, info, 0)
  assert "pip install '.[notebook]'" in caplog.text
