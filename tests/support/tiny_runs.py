"""Runs of commands on a tiny model and a handful of synthetic scenes."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

from iodine import main as command_line
from iodine.synthetic import generation, tetrominoes
from tests.support.places import REPOSITORY

NUM_SCENES = 13
STEPS = 5
# A model that takes a second to build; sizes odd and distinct.
TINY_MODEL = (
  "batch_size=3",
  "n_z=5",
  "num_components=2",
  "num_iters=1",
  "model.inputs=['image', 'dzp']",
  "model.decoder.pixel_decoder.cnn_opt.output_channels=[4, None]",
  "model.refinement_core.encoder_net.cnn_opt.output_channels=[6]",
  "model.refinement_core.encoder_net.mlp_opt.output_sizes=[8]",
)
TINY = (
  "with",
  "tetrominoes",
  "data.shuffle_buffer=5",
  "data.image_dim=[9, 7]",
  *TINY_MODEL,
  "save_summaries_steps=1",
  "save_images_steps=100",
  "save_checkpoint_steps=100",
  f"stop_after_steps={STEPS}",
)

# Other models, likewise.
_SIZES = (
  "num_components=3",
  "num_iters=2",
  "batch_size=3",
  "stop_after_steps=1",
  "data.shuffle_buffer=5",
)
TINY_SLOT_ATTENTION = (
  "with",
  "slot_attention_tetrominoes",
  "image_dim=[9,7]",
  "n_z=6",
  "model.encoder.output_channels=[4]",
  "model.encoder.kernel_shapes=[3]",
  "model.encoder.strides=[1]",
  "model.encoder.mlp_sizes=[5, 5]",
  "model.decoder.output_channels=[4]",
  "model.decoder.kernel_shapes=[3,3]",
  *_SIZES,
)
TINY_SLATE = (
  "with",
  "slate_tetrominoes_small",
  "image_dim=[12,8]",
  "n_z=8",
  "model.vocab_size=5",
  "model.d_model=8",
  "model.num_heads=2",
  "model.num_blocks=1",
  "model.mlp_size=7",
  *_SIZES,
)
TINY_GNM = (
  "with",
  "gnm_small",
  "data.constructor=iodine.modules.data.Tetrominoes",
  "data_file=tetrominoes_train.tfrecords",
  "image_dim=[16,16]",
  "n_z=5",
  "batch_size=3",
  "stop_after_steps=1",
  "data.shuffle_buffer=5",
)


TINY_EFFICIENT_MORL = (
  "with",
  "efficientmorl_tetrominoes",
  "image_dim=[9,7]",
  "n_z=5",
  "model.num_layers=2",
  "model.encoder.output_channels=[4]",
  "model.encoder.kernel_shapes=[3]",
  "model.encoder.mlp_sizes=[5, 5]",
  "model.decoder.output_channels=[4]",
  "model.decoder.kernel_shapes=[3]",
  "model.decoder.paddings=[0]",
  *_SIZES,
)


def write_scenes(path: pathlib.Path, num_scenes: int) -> pathlib.Path:
  generation.write_tfrecords(
    path,
    tetrominoes.FEATURES,
    functools.partial(tetrominoes.sample_scenes, num_objects=3),
    num_scenes=num_scenes,
    seed=0,
  )
  return path


def run(*words: object) -> None:
  """Runs a command that must come to its end."""
  command_line.main(["iodine", *map(str, words)])


def train_and_describe(
  capsys: pytest.CaptureFixture,
  folder: pathlib.Path,
  *words: object,
  held_out_scenes: int = 2,
) -> str:
  """Trains for two steps, in a folder; returns what describe_data prints."""
  run(
    *words,
    f"held_out_scenes={held_out_scenes}",
    "stop_after_steps=2",
    f"checkpoint_dir={folder}/run",
  )
  assert (folder / "run_1" / "model.ckpt-2.index").is_file()
  capsys.readouterr()
  run("describe_data", *words, f"pictures_dir={folder}")
  return capsys.readouterr().out


def fail(capsys: pytest.CaptureFixture, code: int, *words: object) -> str:
  """Runs a command that must end with an exit code; returns the error."""
  capsys.readouterr()
  with pytest.raises(SystemExit) as stop:
    run(*words)
  output = capsys.readouterr()
  assert stop.value.code == code, output.err
  assert "Traceback" not in output.out + output.err
  return output.err


def metrics(storage: pathlib.Path) -> dict[str, dict[int, float]]:
  """Reads {name: {step: value}} of a run that a FileStorageObserver saw."""
  saved = json.loads((storage / "metrics.json").read_text())
  return {
    name: dict(zip(metric["steps"], metric["values"], strict=True))
    for name, metric in saved.items()
  }


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(*words: object, cwd: pathlib.Path) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-m", "iodine.main", *map(str, words)],
    cwd=cwd,
    env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
