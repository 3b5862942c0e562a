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
from iodine.exploration import edited_scene
from iodine.pictures import compositions
from iodine.pictures import sliders as latent_sliders
from tests.support import tiny, tiny_gnm
from tests.support.joint import Joint

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
  """What was drawn in a test: edited scenes, each with the chosen slot."""
  calls = []
  plot = compositions.edited_plot

  def remember(edited, slot, **kwargs):
    calls.append((edited, slot))
    return plot(edited, slot, **kwargs)

  monkeypatch.setattr(compositions, "edited_plot", remember)
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
  edited, _ = drawn[-1]
  for array, other in (
    (edited.image, info["data"]["image"][b, -1]),
    (edited.after.recons, dist.mean()[0, 0]),
    (edited.masks, model.output_dist.masks(dist)[0]),
    (edited.components, model.output_dist.components(dist)[0]),
  ):
    np.testing.assert_allclose(array, other, **TOLERANCE)


def _centre(info, latent) -> tuple[float, float]:
  means = info["latent"]["z_mean"][:, -1, :, latent]
  return means.mean(), means.std()


def test_the_sliders_start_with_what_was_inferred(sliders, drawn, model, info):
  _assert_drawn(drawn, model, info, 0)
  slot = exploration.object_slot(info)
  assert [chosen for _, chosen in drawn] == [slot]
  ranking = exploration.traverse(model, info, slot, num_latents=Z, num_values=2)
  assert (sliders.scene.value, sliders.slot.value) == (1, slot + 1)
  assert (sliders.scene.max, sliders.slot.max) == (B, K)
  assert list(sliders.values) == ranking.latents.tolist()
  for latent, kl, current in zip(
    ranking.latents, ranking.importance, ranking.current, strict=True
  ):
    slider = sliders.values[latent]
    assert slider.description == f"Latent {latent}, KL {kl:.2f}"
    assert slider.value == pytest.approx(current, rel=1e-4)
  assert sliders.message.value == "As inferred"
  assert sliders.show_all.layout.display == "none"


def test_sliders_tell_which_factors_latents_follow(model, info):
  widgets = latent_sliders.explore_latents(
    model, info, lambda latent: "x 0.88" if latent == 2 else ""
  )
  names = {
    latent: slider.description.partition(", ")[0]
    for latent, slider in widgets.values.items()
  }
  expected = {k: f"Latent {k}" for k in names} | {2: "Latent 2: x 0.88"}
  assert names == expected


@pytest.mark.parametrize("range_of", exploration.RANGES)
def test_a_value_redraws_the_scene(sliders, drawn, model, info, range_of):
  sliders.range_of.value = range_of
  sliders.slot.value = 3 - sliders.slot.value
  slot, before = sliders.slot.value - 1, sliders.picture.value
  samples = info["latent"]["z"][:, -1, :, 3]
  ends = {
    "posterior": np.dot([[1, -3], [1, 3]], _centre(info, 3)),
    "prior": np.array([-3.0, 3.0]) * np.sqrt(np.log(2.0)),  # its mean is 0
    "samples": (samples.min(), samples.max()),
  }
  slider = sliders.values[3]
  for value, end in zip((slider.min, slider.max), ends[range_of], strict=True):
    slider.value = value
    _assert_drawn(drawn, model, info, 0, [(slot, 3, end)])
  assert sliders.message.value == f"Changed: slot {slot + 1}: latent 3"
  assert sliders.picture.value != before
  with Image.open(io.BytesIO(sliders.picture.value)) as image:
    assert image.format == "PNG"


def test_changes_stay_until_they_are_reset(sliders, drawn, model, info):
  first, second = sliders.slot.value, 3 - sliders.slot.value
  sliders.values[1].value = 2.0
  sliders.slot.value = second
  sliders.values[4].value = -2.0
  sliders.values[0].value = 1.0
  inferred = info["latent"]["z_mean"][0, -1, second - 1]
  values = [np.dot(_centre(info, i), (1, x)) for i, x in ((1, 2), (4, -2))]
  one = (first - 1, 1, values[0])
  two = (second - 1, 4, values[1])
  three = (second - 1, 0, sum(_centre(info, 0)))
  _assert_drawn(drawn, model, info, 0, [one, two, three])
  texts = sorted(
    [f"slot {first}: latent 1", f"slot {second}: latent 0, latent 4"]
  )
  assert sliders.message.value == f"Changed: {'; '.join(texts)}"

  sliders.scene.value = 2
  _assert_drawn(drawn, model, info, 1)
  assert sliders.message.value == "As inferred"
  sliders.scene.value = 1
  _assert_drawn(drawn, model, info, 0, [one, two, three])
  assert sliders.values[4].value == pytest.approx(-2.0, rel=1e-4)

  sliders.reset.click()
  _assert_drawn(drawn, model, info, 0, [one])
  centre, deviation = _centre(info, 4)
  assert sliders.values[4].value == pytest.approx(
    (inferred[4] - centre) / deviation, rel=1e-4
  )
  sliders.reset_all.click()
  _assert_drawn(drawn, model, info, 0)
  sliders.slot.value = first
  assert sliders.values[1].value != pytest.approx(2.0, abs=0.01)
  assert sliders.message.value == "As inferred"


def test_the_most_important_of_many_latents_come_first(drawn):
  """As with slots without a posterior, such as those of Slot Attention."""
  model = tiny.initialized(n_z=10)
  info = exploration.infer(model, tiny.batch(), seed=3)
  info["latent"] = {"z": info["latent"]["z"]}
  sliders = latent_sliders.explore_latents(model, info)
  assert sliders.range_of.options == ("samples",)
  slot = sliders.slot.value - 1
  active = exploration.latent_importance(model, info, slot, range_of="samples")
  order = np.argsort(-active).tolist()
  shown = [slider.description for slider in sliders._grid.children]
  assert [text.partition(",")[0] for text in shown] == [
    f"Latent {latent}" for latent in order[:8]
  ]
  assert "activeness" in shown[0]
  assert sliders.show_all.description == "All 10 latents"
  assert sliders.show_all.layout.display is None
  sliders.show_all.value = True
  assert list(sliders.values) == order
  assert len(sliders._grid.children) == 10
  z = info["latent"]["z"]
  sliders.values[order[-1]].value = 1.0
  change = (slot, order[-1], z[:, -1, :, order[-1]].max())
  _assert_drawn(drawn, model, {**info, "latent": {"z_mean": z}}, 0, [change])
  sliders.show_all.value = False
  assert len(sliders._grid.children) == 8


def test_a_change_decodes_the_slot_alone(sliders, monkeypatch):
  decoded = []

  def remember(model, z):
    decoded.append(z.shape)
    return exploration.decode_slots(model, z)

  monkeypatch.setattr(edited_scene, "decode_slots", remember)
  sliders.values[1].value = 1.0
  sliders.slot.value = 3 - sliders.slot.value
  assert decoded == [(1, Z)]
  sliders.scene.value = 2
  assert decoded[1:] == [(K, Z)]
  assert sliders.values[1].continuous_update


def test_values_reach_as_far_as_what_was_inferred(model, info):
  far = {**info, "latent": {**info["latent"]}}
  means = far["latent"]["z_mean"] = info["latent"]["z_mean"].copy()
  means[1, -1, 0, 4] = 50.0  # B K - 1 others near 0 leave it 2.6 away
  sliders = latent_sliders.explore_latents(model, far)
  sliders.range_of.value = "prior"
  sliders.scene.value, sliders.slot.value = 2, 1
  slider = sliders.values[4]
  assert slider.value == pytest.approx(50.0 / np.sqrt(np.log(2.0)))
  assert slider.max == -slider.min == slider.value
  slider.value = 0.0
  assert slider.max > 50.0
  sliders.scene.value = 1
  assert (slider.min, slider.max) == (-3.0, 3.0)


def test_slots_are_moved_in_the_image(drawn):
  model = tiny_gnm.initialized()
  info = exploration.infer(model, tiny_gnm.batch(), seed=3)
  info["latent"]["z_mean"][0, -1, 1, 4:6] = (-0.5, 0.25)
  sliders = latent_sliders.explore_latents(model, info)
  sliders.slot.value = 2
  assert [slider.description for slider in sliders.values.values()] == [
    *("x", "y", *(f"Latent {i}" for i in (0, 1, 2, 3, 6, 7)))
  ]
  assert not sliders.values[4].continuous_update
  inferred = info["latent"]["z_mean"][0, -1].copy()
  for latent, place in ((4, 0.25), (5, 0.625)):
    slider = sliders.values[latent]
    assert (slider.min, slider.value, slider.max) == (0.0, place, 1.0)
  sliders.values[4].value = 0.875
  inferred[1, 4] = 0.75
  assert sliders.message.value == "Changed: slot 2: x"
  edited, slot = drawn[-1]
  assert slot == 1
  z = tf.constant(inferred[np.newaxis])
  for actual, expected in zip(edited.after, model.compose(z), strict=True):
    np.testing.assert_allclose(actual, expected[0], **TOLERANCE)
  left, _, right, _ = edited.places["boxes"][1]
  assert (left + right) / 2.0 == pytest.approx(0.875)
  sliders.reset.click()
  assert sliders.message.value == "As inferred"
  assert "x, y: shares of the image's width" in sliders._box.children[2].value


def test_places_outside_the_image_can_be_reached(drawn):
  model = tiny_gnm.initialized()
  info = exploration.infer(model, tiny_gnm.batch(), seed=3)
  info["latent"]["z_mean"][0, -1, 1, 4:6] = (1.5, -1.25)
  sliders = latent_sliders.explore_latents(model, info)
  sliders.slot.value = 2
  x, y = sliders.values[4], sliders.values[5]
  assert (x.min, x.value, x.max) == (0.0, 1.25, 1.25)
  assert (y.min, y.value, y.max) == (-0.125, -0.125, 1.0)


def test_slots_that_are_decoded_jointly(drawn):
  model = Joint()
  info = exploration.infer(model, tiny.batch(without=("factors",)), seed=3)
  sliders = latent_sliders.explore_latents(model, info)
  sliders.values[2].value = 1.0
  z = info["latent"]["z"]
  slots = z[:1, -1].copy()
  slots[0, sliders.slot.value - 1, 2] = z[:, -1, :, 2].max()
  np.testing.assert_allclose(
    drawn[-1][0].after.recons,
    model.compose(tf.constant(slots)).recons[0],
    rtol=1e-5,
  )


def test_models_without_scenes_of_slots(model, info):
  without = {k: v for k, v in info.items() if k != "latent"}
  with pytest.raises(ValueError, match="IODINE renders no scenes from slots"):
    latent_sliders.explore_latents(model, without)


def test_errors_of_a_redraw_reach_the_user(sliders, monkeypatch, caplog):
  def fail(*args, **kwargs):
    raise MemoryError("no room for a picture")

  before = sliders.picture.value
  with monkeypatch.context() as patch:
    patch.setattr(compositions, "edited_plot", fail)
    sliders.values[1].value = 1.0
  assert sliders.message.value == "MemoryError: no room for a picture"
  assert "no room for a picture" in caplog.text
  assert sliders.picture.value == before
  sliders.values[1].value = 2.0
  assert "MemoryError" not in sliders.message.value
  assert sliders.picture.value != before


def test_the_picture_is_saved_for_print(
  sliders, drawn, tmp_path, monkeypatch, caplog
):
  monkeypatch.chdir(tmp_path)
  sliders.values[1].value = 2.0
  num_drawn = len(drawn)
  sliders.save.click()
  name = f"scene_1_slot_{sliders.slot.value}"
  assert sliders.message.value == f"Wrote pictures/{name}.pdf"
  written = tmp_path / "pictures" / f"{name}.pdf"
  assert written.read_bytes().startswith(b"%PDF")
  before, saved = drawn[num_drawn - 1 :]
  np.testing.assert_array_equal(before[0].after.recons, saved[0].after.recons)
  assert before[1] == saved[1]

  monkeypatch.chdir(tmp_path / "pictures")
  (tmp_path / "pictures" / "pictures").touch()
  sliders.save.click()
  assert "pictures" in sliders.message.value
  assert "Error" in sliders.message.value
  assert "The sliders cannot do this" in caplog.text


def test_a_notebook_is_given_sliders_and_a_picture(sliders):
  sliders.values[1].value = 2.0
  bundle = sliders._repr_mimebundle_()
  view = bundle["application/vnd.jupyter.widget-view+json"]
  box = sliders._box
  assert view["model_id"] == box.model_id
  shown = {*box.children}.union(
    *(getattr(row, "children", ()) for row in box.children)
  )
  assert {
    *(sliders.scene, sliders.slot, sliders.reset, sliders.reset_all),
    sliders.save,
    *(sliders.range_of, sliders.show_all, *sliders.values.values()),
    *(sliders.message, sliders.picture),
  } <= shown
  for name in exploration.RANGES:
    assert f"{name}: " in box.children[2].value
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
