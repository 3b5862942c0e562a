"""What the documents tell to run, runs as it stands there."""

import json
import os
import pathlib
import re
import subprocess

import numpy as np
import pytest

import iodine
from iodine import tf1_checkpoint
from iodine.synthetic import generation, sprites
from tests.support.documents import blocks
from tests.support.places import REPOSITORY
from tests.support.tiny_runs import TINY_GNM, TINY_SLATE, run, write_scenes

_FACTORS = {"position": 2, "color": 3, "shape": 1}


def _blocks(document: str, language: str) -> list[str]:
  return blocks((REPOSITORY / document).read_text(), language)


def _execute(code: str) -> dict:
  names: dict = {}
  exec(compile(code, "<document>", "exec"), names)
  return names


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  """The current folder, with a few scenes of two datasets."""
  monkeypatch.chdir(tmp_path)
  write_scenes(tmp_path / "data" / "tetrominoes_train.tfrecords", 13)
  generation.write_tfrecords(
    tmp_path / "data" / "demo_train.tfrecords",
    sprites.FEATURES,
    sprites.sample_scenes,
    num_scenes=20,
    seed=0,
  )
  return tmp_path


def test_the_readme_reads_a_file(folder):
  code = next(x for x in _blocks("README.md", "python") if "scenes =" in x)
  scene = next(iter(_execute(code)["scenes"]))
  assert scene["image"].shape == (35, 35, 3)


def test_the_readme_loads_a_model(folder):
  code = next(x for x in _blocks("README.md", "python") if "infer" in x)
  masks = _execute(code)["info"]["outputs"]["pred_mask"]
  assert masks.shape[:3] == (1, 9, 4)  # steps, the initial one too, and slots
  np.testing.assert_allclose(masks.sum(axis=2), 1.0, atol=1e-5)


def test_the_readme_trains_a_model(folder, capsys):
  code = next(x for x in _blocks("README.md", "python") if "Trainer" in x)
  names = _execute(code)
  assert names["batch"]["image"].shape == (8, 1, 16, 16, 3)
  assert np.isfinite(float(names["scalars"]["loss/total"]))
  assert "tf.Tensor" in capsys.readouterr().out


def test_every_python_block_of_the_readme_is_run():
  assert len(_blocks("README.md", "python")) == 3


def test_a_checkpoint_of_the_reference(folder):
  (code,) = _blocks("docs/checkpoints.md", "python")
  entries = iodine.resolve(iodine.named_configs()["tetrominoes"])
  _, model, optimizer = iodine.build(entries)
  model.initialize(image_shape=(35, 35, 3), factors=_FACTORS)
  (folder / "checkpoints" / "tetrominoes").mkdir(parents=True)
  tf1_checkpoint.save("checkpoints/tetrominoes/model.ckpt", model, optimizer)
  report = _execute(code)["report"]
  assert not report.missing and not report.unused
  assert (folder / "exported" / "model.ckpt.index").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
  "name, words",
  [("gnm_small", TINY_GNM), ("slate_tetrominoes_small", TINY_SLATE)],
)
def test_the_pages_of_models(name, words, folder):
  run(*words, f"checkpoint_dir=checkpoints/{name}", "held_out_scenes=2")
  (code,) = _blocks(f"docs/{name.partition('_')[0]}.md", "python")
  names = _execute(code)
  scenes = names["moved"] if name == "gnm_small" else names["mixed"]
  assert np.isfinite(scenes).all()


# --- Tutorials ----------------------------------------------------------------


def _run_commands(document: str, *more: str) -> list[str]:
  """Runs the commands of iodine.main, training for a step only."""
  commands = re.findall(
    r"^python -m iodine\.main (.*)$",
    "\n".join(_blocks(document, "bash")),
    re.MULTILINE,
  )
  for command in commands:
    run(*command.split(), *more)
  return commands


@pytest.mark.slow
def test_from_a_folder_of_pictures_to_slots(folder):
  make_pictures, mine = (
    _blocks("docs/own_images.md", language)[0]
    for language in ("python", "yaml")
  )
  _execute(make_pictures)
  (folder / "mine.yaml").write_text(mine)
  shorter = ("stop_after_steps=1", "batch_size=2", "held_out_scenes=2")
  assert len(_run_commands("docs/own_images.md", *shorter)) == 4
  assert (folder / "checkpoints" / "mine_1" / "decomposition.png").is_file()
  drawn = {path.name for path in (folder / "pictures").rglob("*")}
  assert {"index.html", "reconstruction.png", "slot_4.png"} <= drawn


@pytest.mark.slow
def test_a_dataset_of_ones_own(folder, monkeypatch):
  source, make_file, _ = _blocks("docs/own_dataset.md", "python")
  (discs,) = _blocks("docs/own_dataset.md", "yaml")
  (folder / "my_data.py").write_text(source)
  (folder / "discs.yaml").write_text(discs)
  monkeypatch.syspath_prepend(folder)
  monkeypatch.setenv("IODINE_MODELS", "my_data")
  _execute(make_file)
  shorter = ("stop_after_steps=1", "batch_size=2", "num_scenes=5")
  assert len(_run_commands("docs/own_dataset.md", *shorter)) == 3
  (found,) = (folder / "checkpoints" / "discs_1").rglob("evaluation.json")
  assert json.loads(found.read_text())["scenes"] == 5


# --- Slurm --------------------------------------------------------------------

_STAND_INS = {
  "python": 'echo "$*" >> calls; echo "$TF_CONFIG" >> configs; exit $CODE',
  "srun": 'for i in $TASKS; do SLURM_PROCID=$i "$@"; done',
  "scontrol": (
    'case $1 in show) echo a1; echo a2;; *) echo "$*" >> calls;; esac'
  ),
}


def _submit(script: str, folder: pathlib.Path, **environment: str) -> list[str]:
  """Runs a job's script; returns what it has called."""
  programs = folder / "bin"
  programs.mkdir(exist_ok=True)
  for name, code in _STAND_INS.items():
    (programs / name).write_text(f"#!/bin/bash\n{code}\n")
    (programs / name).chmod(0o755)
  activate = folder / ".venv" / "bin" / "activate"
  activate.parent.mkdir(parents=True, exist_ok=True)
  activate.touch()
  (folder / "calls").unlink(missing_ok=True)
  path = f"{programs}:{os.environ['PATH']}"
  subprocess.run(
    ["bash", "-c", script],
    cwd=folder,
    env={"PATH": path, "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a[1-2]"}
    | environment,
    check=False,
  )
  return (folder / "calls").read_text().splitlines()


def test_a_job_goes_on_where_it_was(tmp_path):
  script = next(x for x in _blocks("docs/clusters.md", "bash") if "USR1" in x)
  begun = "-m iodine.main --id=7 with clevr6 strategy=mirrored batch_size=32"
  first = _submit(script, tmp_path, TASKS="0", CODE="138")
  assert first == [begun, "requeue 7"]
  (tmp_path / "checkpoints" / "clevr6_7").mkdir(parents=True)
  more = "continue_run=True checkpoint_dir=checkpoints/clevr6_7"
  assert _submit(script, tmp_path, TASKS="0", CODE="0") == [f"{begun} {more}"]


def test_the_machines_of_a_job_know_each_other(tmp_path):
  *_, script = _blocks("docs/clusters.md", "bash")
  _submit(script, tmp_path, TASKS="0 1", CODE="0")
  lines = " ".join((tmp_path / "configs").read_text().split())
  first, second = re.findall(r"\{.*?\}\}", lines.replace("}} ", "}}\n"))
  workers = {"worker": ["a1:12345", "a2:12345"]}
  for index, text in enumerate((first, second)):
    task = {"type": "worker", "index": index}
    assert json.loads(text) == {"cluster": workers, "task": task}
