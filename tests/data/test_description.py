"""Tests of iodine.data.description, and of the command that prints it."""

import errno
import io
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from iodine.commands import describe_data
from iodine.config import reading, resolution
from iodine.data import datasets
from iodine.data import description as data_description
from tests.support.small_datasets import Blobs, Clips
from tests.support.tiny_runs import fail, run, write_scenes


def text(dataset):
  statistics = data_description.collect(dataset, dataset.examples())
  return data_description.format_statistics(dataset, statistics)


def test_objects_and_filter():
  blobs = Blobs(batch_size=2, image_dim=(4, 5), min_num_objects=2)
  statistics = data_description.collect(blobs, blobs.examples())
  assert statistics.num_scenes == 6
  assert statistics.num_objects.tolist() == [2, 0, 1, 2, 2, 2]
  assert statistics.num_passing == 4
  assert statistics.partition == 1.0
  # One row for each object.
  expected = [0, 0, 2, 3, 3, 4, 4, 5, 5]
  assert statistics.factors["number"][:, 0].tolist() == expected
  lines = "\n".join(text(blobs))
  assert "2 x 7 x 9 x 1 uint8; the model sees 4 x 5 x 1" in lines
  assert "3 a scene: 1 background first, then up to 2 objects" in lines
  assert "4 of 6 scenes pass min_num_objects=2, max_num_objects=None" in lines
  assert "0   16.7%  ##########" in lines
  assert "number     0, 2, 3, 4, 5" in lines


def test_no_masks():
  lines = text(Clips(batch_size=2, image_dim=(4, 5)))
  assert lines[-1] == "masks     none: scores that need them are left out"


def test_number_of_scenes_of_other_data():
  clips = Clips(batch_size=2, image_dim=(4, 5))
  (line,) = data_description.format_files(clips)
  assert line.endswith("Clips: unknown number of scenes")
  clips.estimated_num_examples = lambda: 5
  assert data_description.format_files(clips)[0].endswith("Clips: 5 scenes")


def test_no_object():
  blobs = Blobs(batch_size=2, image_dim=(4, 5))
  scenes = blobs.examples().skip(1).take(1)
  statistics = data_description.collect(blobs, scenes)
  lines = data_description.format_statistics(blobs, statistics)
  assert lines[-1].split() == ["number", "no", "object"]


@pytest.mark.parametrize(
  ("values", "expected"),
  [
    (np.arange(20) % 12, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"),
    (np.arange(20), "0 to 19 (20 distinct values)"),
    (np.arange(20) / 4, "0 to 4.75 (20 distinct real values)"),
  ],
)
def test_values(values, expected):
  class Numbered(datasets.IODINEDataset):
    factors = {"x": (tf.float32, 1)}

    def examples(self):
      raise NotImplementedError

  statistics = data_description.Statistics(
    num_objects=np.ones(1, int), partition=1.0, factors={"x": values[:, None]}
  )
  dataset = Numbered(batch_size=1, image_dim=(2, 2))
  lines = data_description.format_statistics(dataset, statistics)
  assert lines[-1].split(maxsplit=1) == ["x", expected]


# --- The command --------------------------------------------------------------


def describe(capsys, *words):
  run("describe_data", "with", "tetrominoes", *words)
  return capsys.readouterr().out


def test_command(tmp_path, capsys):
  path = tmp_path / "scenes"
  write_scenes(path, 13)
  folder = tmp_path / "pictures"
  out = describe(
    capsys, f"data.path={path}", f"pictures_dir={folder}", "num_scenes=9"
  )
  assert f"{path}: 13 scenes" in out and "GZIP" in out
  assert "9 of 9 scenes pass" in out
  assert "mask        4900 bytes          4900 bytes" in out
  assert "position[1]" in out
  assert [p.name for p in folder.iterdir()] == ["tetrominoes_scenes.png"]


def test_file_of_another_dataset(tmp_path, capsys):
  path = tmp_path / "scenes"
  write_scenes(path, 2)
  capsys.readouterr()
  words = ["describe_data", "with", "clevr6", f"data.path={path}"]
  error = fail(capsys, 2, *words, f"pictures_dir={tmp_path / 'pictures'}")
  assert f"data: {path}, record 0" in error
  assert "another dataset" in error
  assert not (tmp_path / "pictures").exists()


def test_estimated_number_of_scenes(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(data_description, "_COUNTED_BYTES", 1)
  path = tmp_path / "scenes"
  write_scenes(path, 13)
  out = describe(capsys, f"data.path={path}", f"pictures_dir={tmp_path}")
  assert f"{path}: about 13 scenes" in out


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_closed_pipe_is_no_fault_of_the_data(tmp_path, monkeypatch, after):
  path = write_scenes(tmp_path / "scenes", 2)
  entries = resolution.resolve(
    reading.named_configs()["tetrominoes"],
    {"data": {"path": str(path)}, "pictures_dir": str(tmp_path)},
  )

  class Pipe(io.StringIO):
    count = 0

    def write(self, text):
      self.count += 1
      if self.count > after:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
      return len(text)

  monkeypatch.setattr(sys, "stdout", Pipe())
  with pytest.raises(BrokenPipeError):
    describe_data(entries)


def test_a_full_disk_leaves_no_part_of_the_picture(
  tmp_path, capsys, monkeypatch
):
  path = write_scenes(tmp_path / "scenes", 2)
  folder = tmp_path / "pictures"

  def write_bytes(self, data):
    with self.open("wb") as file:
      file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "write_bytes", write_bytes)
  words = ["describe_data", "with", "tetrominoes", f"data.path={path}"]
  error = fail(capsys, 1, *words, f"pictures_dir={folder}")
  assert f"{folder}/tetrominoes_scenes.png: cannot be written: No" in error
  assert not list(folder.iterdir())
