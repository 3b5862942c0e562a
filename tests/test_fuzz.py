"""Hostile files: every one of them loads, or gives one of our errors.

Each test mutates whole files of one kind. None of them may crash, hang, take
much memory, start a program, write a file or reach the network while it is
read. `make test-faults` reads over 100,000 files, the fast tests some hundred.
"""

import contextlib
import faulthandler
import io
import pathlib
import re
import resource
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from PIL import Image

from iodine import tf1_checkpoint
from iodine.config import reading, resolution
from iodine.data import image_files
from iodine.data.datasets import HDF5
from iodine.errors import ConfigError
from iodine.runs import checkpoint_files
from iodine.runs import checkpoints as run_checkpoints
from iodine.tfrecords import inspection
from iodine.tfrecords import reading as tfrecord_reading
from tests.support import checkpoint_tables, record_files

# Longest time, in seconds, and largest growth of the process, in bytes, that
# reading may take. (An image of the largest size allowed is 0.8 GB as RGB, RGBA
# and laid on white.)
HANGS_AFTER = 60
MAX_GROWTH = 2 * 2**30

# What reading a file must not do; events of Python's audit hooks.
_FORBIDDEN = re.compile(
  r"os\.(system|exec|fork|forkpty|posix_spawn|spawn|startfile|remove|rename)|"
  r"subprocess\.Popen|pickle\.find_class|marshal\.loads|socket\.connect|"
  r"shutil\..*|ctypes\.dlopen"
)
_guarded = False
_violations: list[str] = []


def _audit(event: str, args: tuple) -> None:
  if not _guarded:
    return
  writes = event == "open" and isinstance(args[1], str) and args[1] not in (
    "r", "rb"
  )  # fmt: skip
  if writes or _FORBIDDEN.fullmatch(event):
    _violations.append(f"{event} {args}")


sys.addaudithook(_audit)


@contextlib.contextmanager
def guard() -> Iterator[None]:
  """Ends the process where reading hangs; fails where it does what it may not.

  A process that ends is a failed test to pytest-xdist, and to anyone.
  """
  global _guarded
  faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
  _guarded = True
  try:
    yield
  finally:
    _guarded = False
    faulthandler.cancel_dump_traceback_later()
  assert not _violations
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  scale = 1 if sys.platform == "darwin" else 1024
  assert peak * scale - _START_RSS < MAX_GROWTH


_START_RSS = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
  1 if sys.platform == "darwin" else 1024
)

# --- Mutations ----------------------------------------------------------------

_NUMBERS = [
  number.to_bytes(size, order)
  for size in (1, 2, 4, 8)
  for number in (0, 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
  for order in ("little", "big")
]
_PIECES = st.binary(min_size=1, max_size=8) | st.sampled_from(_NUMBERS)
# What is done, where (as a part of the file's length), how far it reaches, and
# what is put there.
_MUTATIONS = st.lists(
  st.tuples(
    st.sampled_from(["flip", "overwrite", "insert", "delete", "copy", "cut"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 64),
    _PIECES,
  ),
  min_size=1,
  max_size=5,
)


def mutate(data: bytes, mutations: Sequence[tuple]) -> bytes:
  mutated = bytearray(data)
  for kind, place, reach, piece in mutations:
    start = int(place * len(mutated))
    if kind == "flip" and mutated:
      mutated[start] ^= 1 << reach % 8
    elif kind == "overwrite":
      mutated[start : start + len(piece)] = piece
    elif kind == "insert":
      mutated[start:start] = piece
    elif kind == "delete":
      del mutated[start : start + reach]
    elif kind == "copy":
      mutated[start:start] = mutated[start : start + reach]
    elif kind == "cut":
      del mutated[start:]
  return bytes(mutated)


def fuzz(
  seeds: Sequence[bytes],
  num_inputs: int,
  store: Callable[[int, bytes], None],
  read: Callable[[], bool],
) -> None:
  """Reads mutated files.

  Args:
    seeds: whole files.
    num_inputs: how many to read.
    store: puts what became of a seed, given with its index, where it is read.
    read: tells whether what was stored could be read; raises nothing but an
      AssertionError.
  """
  counts = {True: 0, False: 0}
  few = num_inputs < 1000

  @hypothesis.settings(
    max_examples=num_inputs,
    database=None,
    deadline=None,
    derandomize=few,  # the fast tests read the same files every time
    phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(st.integers(0, len(seeds) - 1), _MUTATIONS)
  def check(index, mutations):
    store(index, mutate(seeds[index], mutations))
    with guard():
      readable = read()
    counts[readable] += 1

  for index, seed in enumerate(seeds):
    store(index, seed)
    assert read(), f"seed {index} cannot be read"
  check()
  print(f"{sum(counts.values())} inputs, {counts[True]} of them readable")
  # Else the mutations are too mild, or so coarse that nothing is reached.
  assert counts[False] and (few or counts[True])


def _storing(path: pathlib.Path) -> Callable[[int, bytes], None]:
  """What `fuzz` stores whole files with."""

  def store(index: int, data: bytes) -> None:
    del index
    path.write_bytes(data)

  return store


def _told(fault: str, path: pathlib.Path) -> bool:
  """Checks an error's text; returns False, for a file that was not read."""
  assert str(path) in fault
  assert len(fault) < 3000
  return False


def inputs(few: int, many: int) -> pytest.MarkDecorator:
  """Runs a test with few inputs in the fast tests, with many in the others."""
  return pytest.mark.parametrize(
    "num_inputs", [few, pytest.param(many, marks=pytest.mark.faults)]
  )


# --- Images -------------------------------------------------------------------


def _images() -> list[bytes]:
  rng = np.random.default_rng(0)
  noise = Image.fromarray(rng.integers(256, size=[6, 8, 3], dtype=np.uint8))
  labels = Image.fromarray(rng.integers(4, size=[6, 8], dtype=np.uint8))
  deep = Image.fromarray(rng.integers(2**16, size=[6, 8], dtype=np.uint16))
  exif = Image.Exif()
  exif[0x0112] = 6
  options = [
    (noise, dict(format="PNG")),
    (noise, dict(format="PNG", exif=exif, dpi=(72, 72))),
    (noise.convert("RGBA"), dict(format="PNG")),
    (labels, dict(format="PNG")),
    (labels.convert("P"), dict(format="PNG", transparency=1)),
    (deep, dict(format="PNG")),
    (noise.convert("1"), dict(format="PNG")),
    (noise, dict(format="JPEG")),
    (noise, dict(format="JPEG", progressive=True, exif=exif)),
    (noise.convert("CMYK"), dict(format="JPEG")),
    (noise.convert("P"), dict(format="GIF")),
    (
      noise.convert("P"),
      dict(format="GIF", save_all=True, append_images=[labels.convert("P")]),
    ),
    (noise, dict(format="BMP")),
    (noise.convert("P"), dict(format="BMP")),
    (noise, dict(format="WEBP", lossless=True)),
    (noise.convert("RGBA"), dict(format="WEBP")),
  ]
  files = []
  for image, arguments in options:
    buffer = io.BytesIO()
    image.save(buffer, **arguments)
    files.append(buffer.getvalue())
  return files


@inputs(300, 45_000)
def test_images(tmp_path, num_inputs):
  path = tmp_path / "a"

  def load(path: pathlib.Path) -> None:
    image = image_files.load_image(path, size=(5, 4))
    assert image.shape == (5, 4, 3)

  def store(index: int, data: bytes) -> None:
    del index
    path.write_bytes(_with_checksums(data))

  def read() -> bool:
    readable = False
    for loader in (load, image_files.load_labels, image_files.image_size):
      try:
        loader(path)
        readable |= loader is load
      except image_files.ImageFileError as error:
        _told(str(error), path)
    return readable

  fuzz(_images(), num_inputs, store, read)


def _with_checksums(data: bytes) -> bytes:
  """Mends the checksums of a PNG file, half of the time.

  What they guard would else hardly be reached.
  """
  if not data.startswith(b"\x89PNG") or zlib.crc32(data) % 2:
    return data
  mended = bytearray(data)
  place = 8
  while place + 12 <= len(data):
    (length,) = struct.unpack(">I", data[place : place + 4])
    end = place + 8 + length
    if end + 4 > len(data):
      break
    checksum = zlib.crc32(data[place + 4 : end])
    mended[end : end + 4] = struct.pack(">I", checksum)
    place = end + 4
  return bytes(mended)


# --- Configurations -----------------------------------------------------------

_YAML = b"""\
n_z: 8
batch_size: 4   # a comment
learn_rate: 1.0e-3
data: &data
  constructor: iodine.modules.data.Tetrominoes
  path: [a, "b*"]
  crop_region: [[0, 30], [0, 30]]
model:
  constructor: iodine.modules.iodine.IODINE
  latent_dist: {constructor: tf.nn.elu, scale: null, <<: *data}
  text: |
    two
    lines
"""
_JSON = (
  b'{"n_z": 8, "learn_rate": 0.001, "data": {"constructor": "iodine.modules.'
  b'data.Tetrominoes", "path": ["a", "b\\u00e9"], "x": [[0, -1], null, true]}}'
)
_PYTHON_TAGS = [
  b"!!python/object/apply:os.system ['touch hacked']",
  b"!!python/name:os.system",
  b"!!python/object/new:subprocess.Popen [[touch, hacked]]",
]


def _check_configuration(entries: dict[str, Any]) -> None:
  entries = resolution.without_derived(entries)
  resolution.build(resolution.resolve(entries))


@inputs(300, 20_000)
def test_configurations(tmp_path, monkeypatch, num_inputs):
  monkeypatch.chdir(tmp_path)
  paths = [tmp_path / name for name in ("a.yaml", "a.json")]
  current = paths[0]

  def store(index: int, data: bytes) -> None:
    nonlocal current
    current = paths[index == 1]
    current.write_bytes(data)

  def read() -> bool:
    try:
      entries = reading.load_file(current)
    except ConfigError:
      return False
    with contextlib.suppress(ConfigError):
      _check_configuration(entries)
    return True

  fuzz([_YAML, _JSON], num_inputs, store, read)


@pytest.mark.parametrize(
  "text",
  [
    "!!python/object/apply:os.system ['touch hacked']",
    "!!python/name:os.system",
    "!!python/object/new:subprocess.Popen [[touch, hacked]]",
    "[" * 100_000,
    "&a [*a]",
    "&a {b: *a}",
    # Ten lists of ten of what was before: 10^12 entries in a kilobyte.
    "[&a0 [x], "
    + ", ".join(f"&a{i} [{f'*a{i - 1}, ' * 10}]" for i in range(1, 13))
    + "]",
    "1" * 100_000,
    "2001-01-01 25:61:61",
    "0o777_",
    "! x",
  ],
)
@pytest.mark.parametrize("key", ["n_z", "data", "optimizer"])
def test_configurations_that_attack(tmp_path, monkeypatch, text, key):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / "a.yaml"
  path.write_text(f"{key}: {text}")
  with guard(), pytest.raises(ConfigError):
    _check_configuration(reading.load_file(path))
  assert not (tmp_path / "hacked").exists()


# --- TFRecord files -----------------------------------------------------------

_FEATURES = {
  "image": tf.io.FixedLenFeature([3, 4, 1], tf.string),
  "x": tf.io.FixedLenFeature([5], tf.float32),
}


def _decode(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  return tfrecord_reading.decode_bytes(example, ["image"])


def _record(seed: int) -> bytes:
  rng = np.random.default_rng(seed)
  return record_files.make_example(_FEATURES, rng)[0]


def _tfrecord_files(folder: pathlib.Path) -> list[bytes]:
  """Files of three records, of every compression."""
  parts = [record_files.framed(folder, _record(i)) for i in range(3)]
  return [record_files.compress(parts, kind) for kind in ("", "GZIP", "ZLIB")]


def _read_records(path: pathlib.Path) -> bool:
  """Reads a file to its end."""
  try:
    dataset = tfrecord_reading.read(path, _FEATURES, _decode)
    for _ in dataset:
      pass
  except inspection.READ_ERRORS as error:
    fault = inspection.explain(error, source=str(path))
  except ValueError as error:
    fault = str(error)
  else:
    return True
  return _told(fault, path)


@inputs(25, 1_000)
def test_tfrecord_files(tmp_path, num_inputs):
  path = tmp_path / "a.tfrecords"
  seeds = _tfrecord_files(tmp_path)
  fuzz(seeds, num_inputs, _storing(path), lambda: _read_records(path))


@inputs(100, 10_000)
def test_inspection_of_tfrecord_files(tmp_path, num_inputs):
  path = tmp_path / "a.tfrecords"

  def read() -> bool:
    try:
      record = inspection.first_record(str(path))
      inspection.count_records(str(path))
    except ValueError as error:
      return _told(str(error), path)
    try:
      inspection.record_features(record)
    except ValueError as error:
      return "is no tf.train.Example" not in str(error)
    return True

  fuzz(_tfrecord_files(tmp_path), num_inputs, _storing(path), read)


@inputs(25, 4_000)
def test_records_with_the_right_checksums(tmp_path, num_inputs):
  path = tmp_path / "a.tfrecords"

  def store(index: int, data: bytes) -> None:
    records = [_record(i) for i in range(2)]
    records.insert(index, data)
    record_files.write(path, records, "")

  seeds = [_record(2), _record(3)]
  fuzz(seeds, num_inputs, store, lambda: _read_records(path))


# --- Checkpoints --------------------------------------------------------------


def _read_checkpoint(folder: pathlib.Path) -> bool:
  try:
    checkpoint_files.read(checkpoint_files.find(str(folder)))
  except tf1_checkpoint.CheckpointError as error:
    return _told(str(error), folder)
  return True


def _saved(folder: pathlib.Path) -> dict[str, bytes]:
  """The files of a checkpoint as training writes it: {name: content}."""
  module = tf.Module()
  module.variables_of_it = [
    tf.Variable(np.arange(3 * i, dtype=np.float32), name=f"linear_{i}/w")
    for i in range(1, 4)
  ]
  manager = tf.train.CheckpointManager(
    tf.train.Checkpoint(trainer=module),
    str(folder),
    max_to_keep=2,
    checkpoint_name=run_checkpoints.CHECKPOINT_NAME,
  )
  manager.save(checkpoint_number=7)
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@inputs(200, 16_000)
def test_checkpoints(tmp_path, num_inputs):
  whole = _saved(tmp_path)
  names = list(whole)
  assert len(names) == 3

  def store(index: int, data: bytes) -> None:
    for name, content in whole.items():
      (tmp_path / name).write_bytes(content)
    (tmp_path / names[index]).write_bytes(data)

  seeds = list(whole.values())
  fuzz(seeds, num_inputs, store, lambda: _read_checkpoint(tmp_path))


@inputs(300, 4_000)
def test_indexes_with_the_right_checksums(tmp_path, num_inputs):
  prefix = tmp_path / "model.ckpt"
  tf.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=["floats", "parts", "parts", "texts"],
    shape_and_slices=["", "9 7 0,4:-", "9 7 4,5:0,7", ""],
    tensors=[
      tf.zeros([2, 3]),
      tf.ones([4, 7]),
      tf.zeros([5, 7]),
      tf.constant(["ab", "c"]),
    ],
  )
  table = checkpoint_tables.read(prefix)
  names = list(table)

  def store(index: int, data: bytes) -> None:
    checkpoint_tables.write(prefix, {**table, names[index]: data})

  seeds = list(table.values())
  fuzz(seeds, num_inputs, store, lambda: _read_checkpoint(tmp_path))


@inputs(60, 4_000)
def test_object_graphs_with_the_right_checksums(tmp_path, num_inputs):
  _saved(tmp_path / "whole")
  prefix = checkpoint_files.find(str(tmp_path / "whole"))
  values = tf1_checkpoint.read(prefix)
  (key,) = (k for k, v in values.items() if v.dtype == object)
  del values[key]

  def store(index: int, data: bytes) -> None:
    del index
    tf.raw_ops.SaveV2(
      prefix=str(tmp_path / "model.ckpt"),
      tensor_names=[*values, key],
      shape_and_slices=[""] * (len(values) + 1),
      tensors=[*values.values(), data],
    )

  graph = tf1_checkpoint.read(prefix)[key].item()
  fuzz([graph], num_inputs, store, lambda: _read_checkpoint(tmp_path))


# --- HDF5 ---------------------------------------------------------------------


@inputs(200, 8_000)
def test_hdf5_files(tmp_path, num_inputs):
  h5py = pytest.importorskip("h5py")
  seeds = []
  for version, options in (
    ("earliest", {}),
    ("latest", {"chunks": True, "compression": "gzip", "fletcher32": True}),
    ("earliest", {"chunks": True, "compression": "lzf", "shuffle": True}),
  ):
    rng = np.random.default_rng(0)
    seeds_path = tmp_path / "seed.h5"
    with h5py.File(seeds_path, "w", libver=version) as file:
      group = file.create_group("train")
      for name, shape in (
        ("imgs", [3, 4, 5, 3]),
        ("masks", [3, 2, 4, 5, 1]),
        ("factors", [3, 2, 4]),
      ):
        values = rng.integers(256, size=shape).astype(np.uint8)
        group.create_dataset(name, data=values, **options)
    seeds.append(seeds_path.read_bytes())
  path = tmp_path / "a.h5"

  def read() -> bool:
    try:
      # What a dataset of this file does for each slice of scenes.
      dataset = HDF5(
        path, batch_size=1, image_dim=(4, 5), factor_columns={"x": [0, 1]}
      )
      next(dataset._slices())
    except ValueError as error:
      return _told(str(error), path)
    return True

  fuzz(seeds, num_inputs, _storing(path), read)


@pytest.mark.parametrize(
  "shapes",
  [
    {"imgs": (1, 10**5, 10**5, 3)},
    {"imgs": (1, 10**3, 10**3, 3), "masks": (1, 10**3, 10**3, 10**3, 1)},
  ],
)
def test_hdf5_files_that_claim_to_be_large(tmp_path, shapes):
  h5py = pytest.importorskip("h5py")
  path = tmp_path / "a.h5"
  with h5py.File(path, "w") as file:
    for key, shape in shapes.items():
      # Chunks that were never written take no place.
      file.create_dataset(f"train/{key}", shape, "uint8", chunks=True)
  with guard(), pytest.raises(ValueError, match=f"{path}: .*pixels"):
    HDF5(path, batch_size=1, image_dim=(4, 5)).examples()
