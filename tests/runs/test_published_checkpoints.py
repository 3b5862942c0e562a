"""Restoring checkpoints that published code of other models wrote."""

import pathlib
import shutil
import sys
from collections.abc import Mapping

import numpy as np
import pytest

from iodine import training
from iodine.data import datasets
from iodine.models.slate import SLATE
from iodine.models.slot_attention import (
  ConvEncoder,
  SlotAttention,
  SlotAttentionAutoEncoder,
  SpatialBroadcastDecoder,
)
from iodine.runs import checkpoint_files
from iodine.runs import checkpoints as run_checkpoints
from iodine.tf1_checkpoint import CheckpointError
from tests.parity import cases
from tests.parity import gnm as gnm_cases
from tests.support import tiny
from tests.support.places import PARITY

_GOOGLE = PARITY / "slot_attention_tiny_autoencoder" / "tf_checkpoint"
_LIGHTNING = PARITY / "slot_attention_hhousen_tiny_autoencoder"
_SETS = PARITY / "slot_attention_tiny_set_prediction" / "tf_checkpoint"
_SLATE = PARITY / "slate_tiny"
_GNM = PARITY / "gnm_tiny"


def _google(with_layer_norm: bool = True, **attention) -> training.Trainer:
  """Of the size of Google's tiny auto-encoder."""
  model = SlotAttentionAutoEncoder(
    ConvEncoder(
      [5, 6, 7, 8], mlp_sizes=[10, 10], with_layer_norm=with_layer_norm
    ),
    SlotAttention(12, mlp_size=20, **attention),
    SpatialBroadcastDecoder([7, 6, 6, 5, 5]),
    n_z=12,
    num_components=3,
  )
  optimizer = training.make_optimizer(1e-3, beta1=0.9)
  trainer = training.Trainer(model, optimizer, seed=3)
  trainer.initialize((32, 48, 3), {})
  return trainer


def _values() -> dict[str, np.ndarray]:
  """What Google's tiny checkpoint holds."""
  return checkpoint_files.read(checkpoint_files.find(str(_GOOGLE)))


def _hhousen() -> SlotAttentionAutoEncoder:
  model = SlotAttentionAutoEncoder(
    ConvEncoder([8], mlp_sizes=[8, 8]),
    SlotAttention(8),
    SpatialBroadcastDecoder(),
    n_z=8,
    num_components=3,
  )
  model.initialize((32, 32, 3), {})
  return model


def test_google_s_with_its_optimizer():
  trainer = _google()
  report = checkpoint_files.restore(
    str(_GOOGLE), trainer.model, trainer.optimizer
  )
  assert not report.missing + report.unused
  expected = cases.read_arrays(_GOOGLE.parent / "expected.npz")
  name = "slot_attention/project_q"
  for actual, kind in (
    (trainer.model._slot_attention._project_q.w, "after"),
    (trainer.optimizer.slots[f"{name}/w:0"]["m"], "adam_m"),
    (trainer.optimizer.slots[f"{name}/w:0"]["v"], "adam_v"),
  ):
    np.testing.assert_array_equal(actual, expected[f"{kind}/{name}/kernel"])
  assert trainer.optimizer.step == 3
  assert float(trainer.optimizer.beta1_power) == pytest.approx(0.9**4)


def test_google_s_for_evaluation_leaves_nothing_over():
  report = checkpoint_files.restore(str(_GOOGLE), _google().model)
  assert len(report.found) == 49
  assert not report.missing + report.unused


def _write(folder: pathlib.Path, values: Mapping[str, np.ndarray]) -> None:
  """Writes an object-based checkpoint of Google's keys."""
  named = {f"{key}/.ATTRIBUTES/VARIABLE_VALUE": v for key, v in values.items()}
  graph = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"", object)}
  tiny.write_checkpoint(folder / "ckpt-1", {**named, **graph})


@pytest.mark.parametrize("layer", ["layer-1", "slot_attention_auto_encoder"])
def test_keys_of_another_version_of_tensorflow(tmp_path, layer):
  first = "network/layer_with_weights-0/"
  assert any(key.startswith(first) for key in _values())
  _write(
    tmp_path,
    {k.replace(first, f"network/{layer}/"): v for k, v in _values().items()},
  )
  report = checkpoint_files.restore(str(tmp_path), _google().model)
  assert not report.missing + report.unused


def test_what_is_missing_or_left_over(tmp_path):
  values = _values()
  scope = "network/layer_with_weights-0"
  values[f"{scope}/other/kernel"] = np.zeros(3)
  _write(tmp_path, values)
  report = checkpoint_files.restore(str(tmp_path), _google().model)
  assert report.unused == ("other/kernel",)
  values.pop(f"{scope}/slot_attention/gru/bias")
  _write(tmp_path, values)
  lines = _error(tmp_path, _google().model).splitlines()
  start = lines.index("Not in the checkpoint:")
  assert lines[start + 1 : -1] == [
    "  slot_attention/gru/b_h",
    "  slot_attention/gru/b_i",
  ]


def test_a_run_goes_on_from_google_s(tmp_path):
  shutil.copytree(_GOOGLE, tmp_path / "run")
  trainer = _google()
  run = run_checkpoints.RunCheckpoints(tmp_path / "run", trainer, keep=1)
  dataset = datasets.Tetrominoes(tmp_path / "none.tfrecords", batch_size=2)
  assert run.restore(dataset) == datasets.Position(0, 0)
  assert trainer.optimizer.step == 3
  saved = run.save(dataset, datasets.Position(0, 2))
  other = _google()
  report = checkpoint_files.restore(saved, other.model, other.optimizer)
  assert not report.missing + report.unused
  np.testing.assert_array_equal(
    other.model._slot_attention._gru.w_h, trainer.model._slot_attention._gru.w_h
  )


def _error(path: pathlib.Path, model) -> str:
  before = [v.numpy() for v in model.variables]
  with pytest.raises(CheckpointError) as error:
    checkpoint_files.restore(str(path), model)
  for old, variable in zip(before, model.variables, strict=True):
    np.testing.assert_array_equal(old, variable)
  return str(error.value)


def test_another_version_needs_other_options():
  model = _google(with_layer_norm=False, norm_epsilon=1e-5, implicit=True).model
  first, *lines = _error(_GOOGLE, model).splitlines()
  assert first.endswith(
    "is a checkpoint of Google's code, which needs other options. Set:"
  )
  assert set(lines) == {
    "  model.encoder.with_layer_norm=True  (is False)",
    "  model.slot_attention.norm_epsilon=0.001  (is 1e-05)",
    "  model.slot_attention.implicit=False  (is True)",
  }


def test_another_size_needs_other_options(tmp_path):
  values = _values()
  key = "network/layer_with_weights-0/encoder_cnn/layer_with_weights-1/kernel"
  values[key] = np.zeros([3, 3, 5, 9], np.float32)
  _write(tmp_path, values)
  assert _error(tmp_path, _google().model).splitlines()[1:] == [
    "  model.encoder.output_channels=[5, 9, 7, 8]  (is [5, 6, 7, 8])",
    "  model.encoder.kernel_shapes=[5, 3, 5, 5]  (is [5, 5, 5, 5])",
  ]


def test_a_model_of_another_kind():
  text = _error(_GOOGLE, tiny.initialized())
  assert "is no checkpoint of IODINE that can be translated" in text
  assert "inspect_checkpoint" in text
  text = _error(_SETS, _google().model)
  assert "is no checkpoint of SlotAttentionAutoEncoder" in text


# --- Files of PyTorch ---------------------------------------------------------


@pytest.mark.parametrize("given", ["", "lightning.ckpt"])
def test_a_file_of_pytorch_is_found(given):
  found = checkpoint_files.find(str(_LIGHTNING / given))
  assert found == str(_LIGHTNING / "lightning.ckpt")


def test_one_of_several_files_has_to_be_named(tmp_path):
  for name in ("best_model.pt", "checkpoint.pt.tar"):
    (tmp_path / name).touch()
  with pytest.raises(CheckpointError, match="2 checkpoints"):
    checkpoint_files.find(str(tmp_path))
  found = checkpoint_files.find(str(tmp_path / "best_model.pt"))
  assert found == str(tmp_path / "best_model.pt")
  (tmp_path / "model.ckpt.index").touch()
  (tmp_path / "model.ckpt.data-00000-of-00001").touch()
  assert checkpoint_files.find(str(tmp_path)) == str(tmp_path / "model.ckpt")


def test_lightning_needs_the_options_of_its_version():
  pytest.importorskip("torch")
  lines = _error(_LIGHTNING, _hhousen()).splitlines()
  assert "  model.encoder.activation=leaky_relu  (is relu)" in lines
  assert "  model.decoder.alignment=pytorch  (is tensorflow)" in lines
  assert "  model.slot_attention.implicit=True  (is False)" in lines
  assert "  model.encoder.output_channels=[8, 8, 8, 8]  (is [8])" in lines


@pytest.mark.parametrize("kind", ["best_model.pt", "checkpoint.pt.tar", "ckpt"])
def test_slate_s_files(tmp_path, kind):
  torch = pytest.importorskip("torch")
  published = cases.read_arrays(_SLATE / "weights.npz")
  state = {name: torch.tensor(value) for name, value in published.items()}
  if kind == "checkpoint.pt.tar":
    state = {"epoch": 1, "best_val_loss": 0.5, "model": state}
  elif kind == "ckpt":
    named = {f"model.{name}": value for name, value in state.items()}
    state = {"state_dict": named, "hyper_parameters": {"num_slots": 3}}
    kind = "last.ckpt"
  torch.save(state, tmp_path / kind)
  model = SLATE(20, 3, 3, 12, 16, 2, 2, mlp_size=24)
  model.initialize((16, 16, 3), {})
  report = checkpoint_files.restore(str(tmp_path), model)
  assert not report.missing + report.unused
  np.testing.assert_array_equal(model._to_logits.w, published["out.weight"].T)
  other = SLATE(20, 3, 3, 11, 16, 2, 3, mlp_size=24, implicit=True)
  other.initialize((16, 20, 3), {})
  lines = _error(tmp_path, other).splitlines()[1:]
  assert set(lines) == {
    "  model.vocab_size=12  (is 11)",
    "  model.num_blocks=2  (is 3)",
    "  model.implicit=False  (is True)",
    "  tokens=16  (is 20)",
  }


def test_a_missing_torch_is_told(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  assert "pip install '.[pytorch]'" in _error(_LIGHTNING, _hhousen())


def _gnm(**sizes):
  """Of the size of GNM's tiny record, but for sizes of latents."""
  config = cases.read_config(_GNM)
  config["model"]["z"].update(sizes)
  config["train"]["phase_bg_alpha_curriculum"] = False
  model = gnm_cases.make_model(config, lambda name: lambda step: 1.0)
  model.initialize((32, 32, 3), {})
  return model


@pytest.mark.parametrize(
  "encoder", ["img_encoder.enc.conv", "img_encoder.conv"]
)
def test_gnm_of_the_official_code_and_its_versions(encoder):
  values = cases.read_arrays(_GNM / "weights.npz")
  model = _gnm()
  head = "p_z_given_x_or_g_net."
  twice = {
    name.replace(head, "p_z_given_g_net."): value
    for name, value in values.items()
    if name.startswith(head)
  }
  renamed = {
    name.replace("img_encoder.enc.conv", encoder): value
    for name, value in {**values, **twice, "aux_p": np.zeros(1)}.items()
  }
  translated = model.published_weights(renamed)
  # What has no place here keeps its name.
  assert set(translated) - {v.name[:-2] for v in model.variables} == {"aux_p"}
  kernel = values["img_encoder.enc.conv.15.weight"]
  np.testing.assert_array_equal(
    translated["encoder/conv_5/w"], kernel.transpose(2, 3, 1, 0)
  )
  np.testing.assert_array_equal(
    translated["glimpse_decoder/layers/norm_3/scale"],
    values["local_latent_sampler.z_what_decoder_net.conv.14.weight"],
  )
  np.testing.assert_array_equal(
    translated["struct_draw/decoder/h_0"],
    values["global_struct_draw.rnn_dec.h_0"].transpose(0, 2, 3, 1),
  )


def test_gnm_of_other_sizes_is_told():
  values = cases.read_arrays(_GNM / "weights.npz")
  with pytest.raises(ValueError, match="checkpoint of GNM") as error:
    _gnm(z_what_dim=8, z_bg_dim=4).published_weights(values)
  assert "n_z=7  (is 8)" in str(error.value)
  assert "model.background.n_background=5  (is 4)" in str(error.value)
  assert _gnm().published_weights({"other": np.zeros(1)}) is None
