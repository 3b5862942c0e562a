"""Tests of iodine.pictures.explorer, by what a browser shows."""

import functools
import logging

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from iodine.exploration import tfjs_graph
from iodine.main import load_checkpoint
from iodine.models import efficient_morl, slot_attention
from iodine.pictures import explorer, page
from iodine.pictures.masks import segmentation
from iodine.scene_model import DecodedSlots
from tests.support import tiny, tiny_gnm
from tests.support.browser import Shown
from tests.support.joint import Joint
from tests.support.module_checks import perturb
from tests.support.places import REPOSITORY

# What bytes and another order of float32 operations make of a number.
CLOSE = {"rtol": 0, "atol": 0.52}
B, H, W = 3, 12, 9


def _efficient_morl(channels=3):
  model = efficient_morl.EfficientMORL(
    efficient_morl.ImageEncoder((5, 6), (3,), mlp_sizes=(7, 5)),
    efficient_morl.BroadcastDecoder((5, 6), (3, 5, 3), (1,), "relu"),
    4,
    3,
    num_layers=2,
    num_iters=1,
  )
  model.initialize((H, W, channels), {})
  perturb(model)
  return model


def _slot_attention():
  model = slot_attention.SlotAttentionAutoEncoder(
    encoder=slot_attention.ConvEncoder([4, 6], [3], [1], mlp_sizes=[7, 7]),
    slot_attention=slot_attention.SlotAttention(
      n_z=13, num_iters=2, mlp_size=7
    ),
    decoder=slot_attention.SpatialBroadcastDecoder(
      [5, 6], [5, 3, 3], [3, 1, 1]
    ),
    n_z=13,
    num_components=4,
  )
  model.initialize((H, W, 3), {})
  perturb(model)
  return model


def _other_operations():
  """IODINE, with what no decoder here happens to have."""
  model = tiny.initialized((H, W, 3))
  decode = model.decode_slots

  def decode_slots(z):
    x, logits = decode(z)
    x = tf.nn.leaky_relu(x) - tf.nn.softplus(-x) / (1.5 + tf.nn.selu(-x))
    x = tf.concat([x[..., :1], tf.expand_dims(x[..., 2], -1), x[..., :1]], -1)
    return DecodedSlots(x, logits)

  model.decode_slots = decode_slots
  return model


def _bundled(name):
  return load_checkpoint(REPOSITORY / "iodine" / "pretrained" / name)["model"]


MODELS = {
  "IODINE": functools.partial(tiny.initialized, (H, W, 3)),
  "EfficientMORL": _efficient_morl,
  "EfficientMORL, gray": functools.partial(_efficient_morl, channels=1),
  "Slot Attention": _slot_attention,
  "other operations": _other_operations,
  "demo": functools.partial(_bundled, "demo"),
  "slot_attention_tetrominoes_small": functools.partial(
    _bundled, "slot_attention_tetrominoes_small"
  ),
}


def _infer(model, num_scenes=B):
  rng = np.random.default_rng(1)
  image = rng.random([num_scenes, 1, *model.image_shape], np.float32)
  return exploration.infer(model, {"image": tf.constant(image)}, seed=3)


def _write(model, info, folder):
  widget = explorer.explorer(model, info)
  assert widget is not None
  (folder / widget.script_file).write_text(widget.script, encoding="utf-8")
  text = page.page("Title", "Text", [], [], widget)
  (folder / "index.html").write_text(text, encoding="utf-8")
  return folder / "index.html"


class Explorer(Shown):
  """A page with the part that explores."""

  def __init__(self, browser, path, **context):
    super().__init__(browser, path, **context)
    self.page.wait_for_selector("#explore-controls", timeout=60_000)
    self.settle()

  def click(self, name, role="button"):
    self.page.get_by_role(role, name=name, exact=True).click()
    self.settle()

  def choose(self, name, value):
    self.page.locator(f"#explore-{name}").select_option(label=str(value))
    self.settle()

  def status(self):
    return self.page.locator("#explore-status").text_content()

  def assert_scene(self, model, z, removed=(), picture="scene-picture"):
    """Compares what is shown with what TensorFlow renders of z [K, Z]."""
    slots = exploration.decode_slots(model, z)
    slots.mask_logits[list(removed)] = -np.inf
    scene = exploration.compose(*slots)
    recons = np.broadcast_to(scene.recons, (*scene.recons.shape[:2], 3))
    shown = self.pixels(f"#explore-{picture}")
    np.testing.assert_allclose(
      shown[..., :3], 255 * recons.clip(0.0, 1.0), **CLOSE
    )
    assert np.all(shown[..., 3] == 255)
    if picture == "scene-picture":
      masks = 255 * segmentation(np.moveaxis(scene.masks[..., 0], 0, -1))
      shown = self.pixels("#explore-masks")
      np.testing.assert_allclose(shown[..., :3], masks, **CLOSE)
      for k in set(range(len(z))) - set(removed):
        alpha = self.pixels(f"#explore-slots button:nth-child({k + 1}) canvas")
        np.testing.assert_allclose(
          alpha[..., 3], 255 * scene.masks[k, ..., 0], **CLOSE
        )


@pytest.fixture(scope="module")
def model():
  return tiny.initialized((H, W, 3), num_components=3)


@pytest.fixture(scope="module")
def info(model):
  """Not to be changed."""
  return _infer(model)


@pytest.fixture(scope="module")
def path(model, info, tmp_path_factory):
  return _write(model, info, tmp_path_factory.mktemp("page"))


@pytest.fixture
def z(info):
  """[B, K, Z], what the page starts with; a copy."""
  return exploration.inferred_latents(info).copy()


@pytest.fixture
def shown(browser, path):
  shown = Explorer(browser, path)
  yield shown
  assert not shown.faults
  shown.page.context.close()


@pytest.mark.parametrize("name", MODELS)
def test_the_page_shows_what_tensorflow_decodes(browser, tmp_path, name):
  model = MODELS[name]()
  info = _infer(model)
  shown = Explorer(browser, _write(model, info, tmp_path))
  for b, z in enumerate(exploration.inferred_latents(info)):
    shown.choose("scene", b + 1)
    shown.assert_scene(model, z)
  shown.click("Remove slot 2")
  shown.assert_scene(model, z, removed=[1])
  assert not shown.faults
  shown.page.context.close()


def test_dragging_a_latent_redraws_the_scene(shown, model, info, z):
  slot = exploration.object_slot(info)
  importance = exploration.latent_importance(model, info, slot)
  latent = int(importance.argmax())
  centre, unit = exploration.latent_range(model, info, slot)
  slider = shown.page.locator("#explore-latents input").first
  before = shown.pixels("#explore-scene-picture")
  slider.scroll_into_view_if_needed()
  box = slider.bounding_box()
  height = box["y"] + box["height"] / 2
  shown.page.mouse.move(box["x"] + box["width"] / 2, height)
  shown.page.mouse.down()
  for share in (0.6, 0.8, 0.95):
    shown.page.mouse.move(box["x"] + share * box["width"], height)
    shown.settle()
    # While the button is still down.
    value = float(slider.input_value())
    z[0, slot, latent] = centre[latent] + value * unit[latent]
    shown.assert_scene(model, z[0])
  shown.page.mouse.up()
  assert value > 1.5
  assert np.abs(shown.pixels("#explore-scene-picture") - before).max() > 2
  assert shown.status() == (
    f"Scene 1 is changed: slot {slot + 1}: latent {latent}."
  )
  shown.click("Reset scene")
  np.testing.assert_array_equal(shown.pixels("#explore-scene-picture"), before)
  assert shown.status() == "Scene 1 is as inferred."


def test_a_click_removes_a_slot_and_restores_it(shown, model, z):
  before = shown.pixels("#explore-scene-picture")
  shown.click("Remove slot 1")
  shown.assert_scene(model, z[0], removed=[0])
  assert shown.status() == "Scene 1 is changed: slot 1 is removed."
  shown.click("Remove slot 3")
  shown.assert_scene(model, z[0], removed=[0, 2])
  # One must remain.
  last = shown.page.get_by_role("button", name="Remove slot 2")
  assert last.get_attribute("aria-disabled") == "true"
  last.click(force=True)
  shown.settle()
  shown.assert_scene(model, z[0], removed=[0, 2])
  shown.click("Restore slot 1")
  shown.click("Restore slot 3")
  np.testing.assert_array_equal(shown.pixels("#explore-scene-picture"), before)


def test_scenes_swap_slots(shown, model, z):
  shown.choose("own-slot", 1)
  shown.choose("other-scene", 3)
  shown.choose("other-slot", 2)
  shown.assert_scene(model, z[2], picture="other-picture")
  shown.click("Swap")
  z[0, 0], z[2, 1] = z[2, 1].copy(), z[0, 0].copy()
  shown.assert_scene(model, z[0])
  shown.assert_scene(model, z[2], picture="other-picture")
  shown.choose("scene", 3)
  shown.assert_scene(model, z[2])
  assert "slot 2: another slot" in shown.status()
  shown.click("Reset all scenes")
  shown.choose("scene", 1)
  assert shown.status() == "Scene 1 is as inferred."


def test_the_keyboard_does_it_all(shown, model, info, z):
  page = shown.page
  slot = exploration.object_slot(info)
  focused = "document.activeElement.matches(':focus-visible')"
  names = []
  page.keyboard.press("Tab")
  while page.evaluate("document.activeElement !== document.body"):
    assert page.evaluate(focused)
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
    names.append(
      page.evaluate(
        "document.activeElement.textContent || "
        "document.activeElement.labels?.[0].textContent"
      )
    )
    if names[-1] == "Remove slot 2":
      page.keyboard.press("Space")
      names[-1] = "Slot 2"
    if (names[-1] or "").startswith("Latent"):
      page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
  shown.settle()
  assert {"Slot 2", "Reset scene", "Swap"} <= set(names)
  assert sum((name or "").startswith("Latent") for name in names) == tiny.Z
  status = shown.status()
  assert "slot 2 is removed" in status and f"slot {slot + 1}: " in status


def test_sliders_of_another_slot(shown, model, info, z):
  shown.page.get_by_label("slot 3", exact=True).check()
  slider = shown.page.locator("#explore-latents input").first
  slider.press("End")
  shown.settle()
  centre, unit = exploration.latent_range(model, info, 2)
  latent = int(exploration.latent_importance(model, info, 0).argmax())
  z[0, 2, latent] = centre[latent] + float(slider.input_value()) * unit[latent]
  shown.assert_scene(model, z[0])


def test_a_phone_does_not_scroll_sideways(browser, path):
  shown = Explorer(browser, path, viewport={"width": 390, "height": 844})
  assert not shown.is_wide()
  shown.page.context.close()


def test_one_scene_has_nobody_to_swap_with(browser, model, tmp_path):
  shown = Explorer(browser, _write(model, _infer(model, 1), tmp_path))
  assert not shown.page.get_by_role("button", name="Swap").is_visible()
  assert not shown.faults
  shown.page.context.close()


# --- Without a browser --------------------------------------------------------


def test_models_that_decode_no_single_slots_have_no_explorer():
  joint = Joint()
  data = {"image": tf.ones([2, 1, H, W, 3])}
  info = exploration.infer(joint, data, seed=1)
  assert explorer.explorer(joint, info) is None
  gnm = tiny_gnm.initialized()
  assert (
    explorer.explorer(gnm, exploration.infer(gnm, tiny_gnm.batch())) is None
  )


@pytest.mark.slow
def test_every_operation_that_is_allowed_is_compared():
  graphs = [tfjs_graph.decoder_graph(make()) for make in MODELS.values()]
  ops = {node["op"] for graph in graphs for node in graph.topology["node"]}
  assert ops == tfjs_graph._OPS


def test_a_decoder_that_the_browser_cannot_run(
  model, info, monkeypatch, caplog
):
  caplog.set_level(logging.INFO)
  monkeypatch.setattr(tfjs_graph, "_OPS", tfjs_graph._OPS - {"Elu"})
  assert explorer.explorer(model, info) is None
  assert "no sliders: TensorFlow.js cannot run Elu" in caplog.text
