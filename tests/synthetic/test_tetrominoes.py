"""Tests of iodine.synthetic."""

import logging
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from iodine.synthetic import __main__ as cli
from iodine.synthetic import generation, records, tetrominoes
from tests.support.places import REAL_SCENES, REPOSITORY

# DeepMind's feature description, multi_object_datasets/tetrominoes.py.
_READER_FEATURES = {
  "image": tf.io.FixedLenFeature([35, 35, 3], tf.string),
  "mask": tf.io.FixedLenFeature([4, 35, 35, 1], tf.string),
  "x": tf.io.FixedLenFeature([4], tf.float32),
  "y": tf.io.FixedLenFeature([4], tf.float32),
  "shape": tf.io.FixedLenFeature([4], tf.float32),
  "color": tf.io.FixedLenFeature([4, 3], tf.float32),
  "visibility": tf.io.FixedLenFeature([4], tf.float32),
}


def _read(path):
  """All scenes of a file, as DeepMind's reader decodes them."""
  dataset = tf.data.TFRecordDataset(str(path), compression_type="GZIP")
  scenes = []
  for record in dataset:
    scene = tf.io.parse_single_example(record, _READER_FEATURES)
    for name in ("image", "mask"):
      scene[name] = tf.squeeze(tf.io.decode_raw(scene[name], tf.uint8), -1)
    scenes.append({name: v.numpy() for name, v in scene.items()})
  return {name: np.stack([s[name] for s in scenes]) for name in scenes[0]}


def _write(path, num_scenes=3, seed=0, **kwargs):
  generation.write_tfrecords(
    path,
    tetrominoes.FEATURES,
    tetrominoes.sample_scenes,
    num_scenes=num_scenes,
    seed=seed,
    **kwargs,
  )


def _assert_equal_scenes(actual, expected):
  assert set(actual) == set(expected)
  for name, values in expected.items():
    assert actual[name].dtype == values.dtype, name
    np.testing.assert_array_equal(actual[name], values, err_msg=name)


@pytest.fixture(scope="module", name="scenes")
def _scenes():
  return tetrominoes.sample_scenes(np.random.default_rng(5), 2000)


@pytest.fixture(scope="module", name="real_scenes")
def _real_scenes():
  if not REAL_SCENES.exists():
    pytest.skip(f"needs the real scenes in {REAL_SCENES}")
  return _read(REAL_SCENES)


class TestRecordLayout:
  # Odd, distinct sizes, and one feature beyond each step of the varint length.
  _FEATURES = {
    "image": records.Feature((41, 3, 2), "bytes"),
    "wide": records.Feature((61, 97), "bytes"),
    "pose": records.Feature((5, 7), "float"),
    "scalar": records.Feature((), "float"),
  }

  def _batch(self, batch_size=4):
    rng = np.random.default_rng(1)
    return {
      name: (
        rng.integers(256, size=(batch_size, *f.shape), dtype=np.uint8)
        if f.kind == "bytes"
        else rng.normal(size=(batch_size, *f.shape)).astype(np.float32)
      )
      for name, f in self._FEATURES.items()
    }

  def _example(self, scene):
    """The same scene by way of the protocol buffer classes."""
    example = tf.train.Example()
    for name, values in scene.items():
      feature = example.features.feature[name]
      if self._FEATURES[name].kind == "bytes":
        feature.bytes_list.value.extend(
          bytes([v]) for v in values.ravel().tolist()
        )
      else:
        feature.float_list.value.extend(values.ravel().tolist())
    return example

  def test_records_are_serialised_examples(self):
    batch = self._batch()
    encoded = records.RecordLayout(self._FEATURES).encode(batch)
    for i, record in enumerate(encoded):
      example = self._example({name: v[i] for name, v in batch.items()})
      assert tf.train.Example.FromString(record.tobytes()) == example
      assert record.tobytes() == example.SerializeToString(deterministic=True)

  def test_every_byte_value(self):
    layout = records.RecordLayout({"b": records.Feature((256,), "bytes")})
    encoded = layout.encode({"b": np.arange(256, dtype=np.uint8)[None]})
    example = tf.train.Example.FromString(encoded[0].tobytes())
    values = example.features.feature["b"].bytes_list.value
    assert b"".join(values) == bytes(range(256))

  def test_strided_input(self):
    batch = self._batch(6)
    layout = records.RecordLayout(self._FEATURES)
    every_other = {name: v[::2] for name, v in batch.items()}
    np.testing.assert_array_equal(
      layout.encode(every_other), layout.encode(batch)[::2]
    )

  def test_empty_batch(self):
    layout = records.RecordLayout(self._FEATURES)
    assert layout.encode(self._batch(0)).shape == (0, layout.record_size)

  @pytest.mark.parametrize(
    "name, values, message",
    [
      (
        "pose",
        np.zeros([4, 7, 5], np.float32),
        r"'pose' is float32\[4, 7, 5\], the layout needs float32\[4, 5, 7\]",
      ),
      ("pose", np.zeros([4, 5, 7]), r"'pose' is float64"),
      ("image", np.zeros([3, 41, 3, 2], np.uint8), r"needs uint8|is uint8\[3"),
      ("pos", np.zeros([4], np.float32), r"features .*'pos'.* layout has"),
    ],
  )
  def test_rejects_other_features(self, name, values, message):
    layout = records.RecordLayout(self._FEATURES)
    with pytest.raises(ValueError, match=message):
      layout.encode({**self._batch(), name: values})


class TestTetrominoes:
  def test_features_are_the_readers(self):
    assert {
      name: (list(f.shape), f.kind) for name, f in tetrominoes.FEATURES.items()
    } == {
      name: (f.shape, "bytes" if f.dtype == tf.string else "float")
      for name, f in _READER_FEATURES.items()
    }

  def test_shapes_are_the_19_fixed_tetrominoes(self):
    """Every rotation and reflection of a piece is in the table, once."""

    def blocks(pattern):
      return np.array(
        [[cell == "#" for cell in line] for line in pattern.split("/")]
      )

    known = {
      blocks(s).tobytes() + bytes(blocks(s).shape)
      for s in tetrominoes.SHAPES[1:]
    }
    assert len(known) == len(tetrominoes.SHAPES) - 1 == 19
    for pattern in tetrominoes.SHAPES[1:]:
      piece = blocks(pattern)
      assert piece.sum() == 4
      for turns in range(4):
        for turned in (np.rot90(piece, turns), np.rot90(piece.T, turns)):
          assert turned.tobytes() + bytes(turned.shape) in known

  def test_renders_the_real_scenes(self, real_scenes):
    assert len(real_scenes["image"]) == 10
    image, mask = tetrominoes.render(
      *(real_scenes[name] for name in ("shape", "x", "y", "color"))
    )
    np.testing.assert_array_equal(image, real_scenes["image"])
    np.testing.assert_array_equal(mask, real_scenes["mask"])

  def test_looks_like_the_real_scenes(self, real_scenes, scenes):
    """Types, background factors, and the values that occur are the same."""
    for name, real in real_scenes.items():
      assert scenes[name].dtype == real.dtype, name
      assert scenes[name].shape[1:] == real.shape[1:], name
    for name in ("image", "mask", "visibility", "color"):
      np.testing.assert_array_equal(
        np.unique(scenes[name]), np.unique(real_scenes[name]), err_msg=name
      )
    for name in ("x", "y", "shape", "color", "visibility"):
      np.testing.assert_array_equal(
        np.unique(scenes[name][:, 0], axis=0),
        np.unique(real_scenes[name][:, 0], axis=0),
        err_msg=name,
      )

  def test_masks_partition_the_image(self, scenes):
    mask = scenes["mask"]
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask.sum(1, dtype=int), 255)
    # A tetromino is never covered: 4 blocks of 25 pixels.
    np.testing.assert_array_equal(
      mask[:, 1:].sum((2, 3, 4), dtype=int), 100 * 255
    )

  def test_factors_agree_with_the_picture(self, scenes):
    for i in range(200):
      image = scenes["image"][i]
      background = scenes["mask"][i, 0, ..., 0] > 0
      assert not image[background].any()
      for e in range(1, 4):
        seen = scenes["mask"][i, e, ..., 0] > 0
        rows, columns = np.nonzero(seen)
        assert scenes["x"][i, e] == rows.min()
        assert scenes["y"][i, e] == columns.min()
        box = seen[
          rows.min() : rows.max() + 1, columns.min() : columns.max() + 1
        ]
        pattern = "/".join(
          "".join(".#"[cell] for cell in line)
          for line in box[2::5, 2::5].astype(int)
        )
        assert pattern == tetrominoes.SHAPES[int(scenes["shape"][i, e])]
        np.testing.assert_array_equal(
          image[seen] > 0,
          np.broadcast_to(scenes["color"][i, e] > 0, image[seen].shape),
        )

  def test_distribution(self, scenes):
    """All shapes and colours equally often, all positions to the border."""
    shape = scenes["shape"][:, 1:].astype(int)
    counts = np.bincount(shape.ravel(), minlength=20)
    # 6000 draws: the expected 316 and 1000 have standard deviations of 17 and
    # 29; 5 of them leave room for the generator of another NumPy version.
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:], 6000 / 19, atol=5 * 17)
    codes = scenes["color"][:, 1:] @ np.array([4, 2, 1], np.float32)
    counts = np.bincount(codes.astype(int).ravel(), minlength=8)
    assert counts[0] == counts[7] == 0
    np.testing.assert_allclose(counts[1:7], 1000, atol=5 * 29)
    for axis, name in enumerate(("x", "y")):
      extent = np.array(
        [
          5
          * (
            pattern.count("/") + 1 if axis == 0 else len(pattern.split("/")[0])
          )
          for pattern in tetrominoes.SHAPES
        ]
      )
      position = scenes[name][:, 1:]
      assert position.min() == 0
      assert (position + extent[shape]).max() == 35
      assert set(np.unique(position % 5)) == {0, 1, 2, 3, 4}

  def test_touching_is_allowed(self, scenes):
    owner = scenes["mask"][..., 0].argmax(1)
    left, right = owner[:, :, :-1], owner[:, :, 1:]
    assert ((left > 0) & (right > 0) & (left != right)).any()

  @pytest.mark.parametrize("num_objects", [1, 2])
  def test_fewer_objects(self, num_objects):
    scenes = tetrominoes.sample_scenes(
      np.random.default_rng(2), 50, num_objects=num_objects
    )
    present = np.arange(4) <= num_objects
    np.testing.assert_array_equal(
      scenes["visibility"], np.tile(present, (50, 1))
    )
    assert (scenes["mask"].any((2, 3, 4)) == present).all()
    for name in ("x", "y", "shape", "color"):
      assert not scenes[name][:, ~present].any()
    assert scenes["shape"][:, 1 : 1 + num_objects].all()

  @pytest.mark.parametrize("num_objects", [0, 4])
  def test_rejects_other_numbers_of_objects(self, num_objects):
    message = f"num_objects={num_objects}: .*1 to 3"
    with pytest.raises(ValueError, match=message):
      tetrominoes.sample_scenes(np.random.default_rng(2), 5, num_objects)


class TestWriting:
  def test_reader_gives_what_was_sampled(self, tmp_path):
    path = tmp_path / "new" / "folder" / "scenes.tfrecords"
    progress = []
    # More than one chunk, the last one cut short.
    _write(path, num_scenes=300, seed=7, on_progress=progress.append)
    chunks = list(
      generation.sample_chunks(tetrominoes.sample_scenes, 300, seed=7)
    )
    assert [len(chunk["x"]) for chunk in chunks] == progress
    assert len(progress) == 2 and sum(progress) == 300
    _assert_equal_scenes(
      _read(path),
      {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]},
    )
    assert list(path.parent.iterdir()) == [path]

  def test_equal_seeds_give_equal_files(self, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
      _write(tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert a[4:8] == bytes(4)  # The gzip header holds no time of writing.

  def test_scenes_do_not_depend_on_their_number(self):
    few, many = (
      list(generation.sample_chunks(tetrominoes.sample_scenes, n, seed=11))
      for n in (5, 600)
    )
    _assert_equal_scenes(few[0], {k: v[:5] for k, v in many[0].items()})
    assert not np.array_equal(many[0]["image"], many[1]["image"])

  @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
  def test_failure_leaves_no_file(self, tmp_path, error):
    def fail(num_written):
      assert len(list(tmp_path.iterdir())) == 1  # The partial file.
      raise error

    with pytest.raises(error):
      _write(tmp_path / "scenes", on_progress=fail)
    assert not list(tmp_path.iterdir())

  def test_what_killed_processes_left_is_removed(self, tmp_path):
    for name in (".scenes.17.partial", ".scenes.abc.partial", ".b.17.partial"):
      (tmp_path / name).write_text("half")
    _write(tmp_path / "scenes")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".b.17.partial", "scenes"]

  def test_failure_keeps_the_file_to_replace(self, tmp_path):
    path = tmp_path / "scenes"
    path.write_text("old")

    def fail(num_written):
      raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
      _write(path, overwrite=True, on_progress=fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class TestCommandLine:
  def _run(self, *args):
    return cli.main(["tetrominoes", *map(str, args)])

  def test_writes_and_reports(self, tmp_path, caplog):
    path = tmp_path / "data" / "scenes.tfrecords"
    with caplog.at_level(logging.INFO, "iodine.synthetic"):
      status = self._run(
        "--scenes", 4, "--seed", 2, "--objects", 2, "--output", path
      )
    assert status == 0
    assert "Wrote 4 scenes" in caplog.text and str(path) in caplog.text
    scenes = _read(path)
    np.testing.assert_array_equal(scenes["visibility"], [[1, 1, 1, 0]] * 4)

  def test_force_replaces(self, tmp_path):
    path = tmp_path / "scenes"
    path.write_text("old")
    assert self._run("--scenes", 1, "--force", "--output", path) == 0
    assert len(_read(path)["x"]) == 1

  @pytest.mark.parametrize(
    "args, message",
    [
      (["--scenes", "0"], "--scenes: '0': must be an integer from 1 up"),
      (["--scenes", "many"], "--scenes: 'many': must be an integer from 1"),
      (["--seed", "-1"], "--seed: '-1': must be an integer from 0 up"),
      (["--objects", "4"], "--objects: invalid choice: 4"),
      (["--scene", "3"], "unrecognized arguments: --scene 3"),
      (["--output", "{tmp}"], "{tmp} is a directory: name a file in it."),
      (["--output", "{tmp}/old"], "{tmp}/old exists: name another file, or"),
      (["--output", "{tmp}/old/new"], "{tmp}/old"),
      (["--output", "/dev/null", "--force"], "/dev/null is no regular file"),
    ],
  )
  def test_errors_are_one_line(self, tmp_path, capsys, args, message):
    (tmp_path / "old").write_text("old")
    args = [a.format(tmp=tmp_path) for a in args]
    with pytest.raises(SystemExit) as e:
      self._run("--scenes", 1, "--output", tmp_path / "new", *args)
    assert e.value.code == 2
    error = capsys.readouterr().err
    assert message.format(tmp=tmp_path) in error
    assert error.count("\n") == 1 and error.endswith("\n")
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"

  def test_unknown_dataset(self, capsys):
    with pytest.raises(SystemExit) as e:
      cli.main(["tetromino", "--output", "x"])
    assert e.value.code == 2
    assert "choose from" in capsys.readouterr().err

  @pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
  def test_interrupt(self, tmp_path, signal_number):
    with subprocess.Popen(
      [
        sys.executable,
        "-m",
        "iodine.synthetic",
        "tetrominoes",
        "--scenes",
        "100000000",
        "--output",
        str(tmp_path / "scenes"),
      ],
      cwd=REPOSITORY,
      stderr=subprocess.PIPE,
      text=True,
    ) as process:
      try:
        deadline = time.monotonic() + 60
        # Wait for scenes in the partial file.
        while not any(p.stat().st_size for p in tmp_path.iterdir()):
          assert process.poll() is None and time.monotonic() < deadline
          time.sleep(0.1)
        process.send_signal(signal_number)
        _, error = process.communicate(timeout=60)
      finally:
        process.kill()
    assert process.returncode == 130
    assert f"Interrupted: {tmp_path / 'scenes'} was not written." in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())
