"""Tests of iodine.torch_checkpoint; files need the package torch."""

import argparse
import collections
import os
import pathlib
import sys
import zipfile

import numpy as np
import pytest

from iodine import torch_checkpoint
from iodine.tf1_checkpoint import CheckpointError


@pytest.fixture
def torch():
  return pytest.importorskip("torch")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
  return str(tmp_path / "best_model.pt")


def _weights(torch) -> dict:
  return collections.OrderedDict(
    {
      "conv.weight": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)),
      "half": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
      "mask": torch.tensor([True, False]),
    }
  )


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_reads_weights(torch, path, prefix, key, is_zip):
  weights = {f"{prefix}{k}": v for k, v in _weights(torch).items()}
  content = weights
  if key is not None:
    options = argparse.Namespace(num_slots=7)
    content = {"epoch": 3, "hyper_parameters": options, key: weights}
  torch.save(content, path, _use_new_zipfile_serialization=is_zip)
  values = torch_checkpoint.read(path)
  assert set(values) == {"conv.weight", "half", "mask"}
  np.testing.assert_array_equal(
    values["conv.weight"], np.arange(6, dtype=np.float32).reshape(2, 3)
  )
  assert values["half"].dtype == np.float32
  np.testing.assert_array_equal(values["half"], [0.5, -2.0])
  assert values["mask"].dtype == bool


class _RunsCode:
  def __init__(self, trace: pathlib.Path):
    self._trace = trace

  def __reduce__(self):
    return os.mkdir, (str(self._trace),)


def test_a_file_never_runs_code(torch, path, tmp_path):
  trace = tmp_path / "trace"
  content = {"hyper_parameters": _RunsCode(trace), "model": _weights(torch)}
  torch.save(content, path)
  with pytest.raises(CheckpointError, match="could run code") as error:
    torch_checkpoint.read(path)
  assert not trace.exists()
  assert f"({os.mkdir.__module__}.mkdir)" in str(error.value)
  assert "torch.save(model.state_dict()" in str(error.value)
  assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("fault", ["cut off", "empty", "changed", "text"])
def test_damaged_files(torch, path, fault):
  torch.save(_weights(torch), path)
  content = bytearray(pathlib.Path(path).read_bytes())
  if fault == "cut off":
    del content[len(content) // 2 :]
  elif fault == "empty":
    content.clear()
  elif fault == "changed":
    number = np.float32(5).tobytes()  # of the weights
    content[content.index(number)] += 1
  else:
    content = bytearray(b"<html>Not found</html>")
  pathlib.Path(path).write_bytes(content)
  with pytest.raises(CheckpointError, match="download it again") as error:
    torch_checkpoint.read(path)
  assert str(error.value).startswith(f"{path}: cannot be read as a file of")


@pytest.mark.parametrize("content", [[1], {"epoch": 3}, {"model": {}}])
def test_a_file_without_weights(torch, path, content):
  torch.save(content, path)
  with pytest.raises(CheckpointError, match="holds no weights"):
    torch_checkpoint.read(path)


@pytest.mark.parametrize("kind", ["sparse", "expanded"])
def test_tensors_that_are_more_than_their_numbers(torch, path, kind):
  weights = torch.ones(1, 1)
  values = {
    "sparse": weights.to_sparse(),
    "expanded": weights.half().expand(10**6, 10**6),
  }
  torch.save({"w": values[kind]}, path)
  with pytest.raises(CheckpointError, match="w cannot be read .*Save it as"):
    torch_checkpoint.read(path)


def test_a_compressed_archive_is_not_unpacked(torch, path):
  torch.save({"w": torch.zeros(10**6)}, path)
  with zipfile.ZipFile(path) as archive:
    parts = {name: archive.read(name) for name in archive.namelist()}
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in parts.items():
      archive.writestr(name, content)
  with pytest.raises(CheckpointError, match="parts are larger than the file"):
    torch_checkpoint.read(path)


def test_torch_is_missing(monkeypatch, path):
  monkeypatch.setitem(sys.modules, "torch", None)
  pathlib.Path(path).touch()
  with pytest.raises(CheckpointError, match="pip install '.*pytorch.*'"):
    torch_checkpoint.read(path)


def test_files_are_known_by_their_names(tmp_path):
  names = ["a.pt", "a.pth", "checkpoint.pt.tar", "a.ckpt"]
  for name in [*names, "a.npz", "model.ckpt.index"]:
    (tmp_path / name).touch()
  (tmp_path / "folder.pt").mkdir()
  assert [
    path.name
    for path in sorted(tmp_path.iterdir())
    if torch_checkpoint.is_file(str(path))
  ] == sorted(names)
