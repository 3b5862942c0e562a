"""Writes a file of synthetic scenes.

Scenes are drawn in chunks of a fixed size, each from a random generator of its
own, so scene i depends on the seed and on i alone, not on how many are written.
"""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from iodine.files import whole_file
from iodine.synthetic.records import Feature, RecordLayout

__all__ = ["CHUNK_SIZE", "Sampler", "sample_chunks", "write_tfrecords"]

# Changing it changes the scenes of every seed.
CHUNK_SIZE = 256
# The fastest; level 6 makes the file 2.5 times smaller and writing slower.
_COMPRESSION_LEVEL = 1

# Draws a batch of scenes: (generator, batch size) -> arrays by feature name.
Sampler = Callable[[np.random.Generator, int], Mapping[str, np.ndarray]]


def sample_chunks(
  sample: Sampler, num_scenes: int, seed: int, chunk_size: int = CHUNK_SIZE
) -> Iterator[dict[str, np.ndarray]]:
  """Yields `num_scenes` scenes in batches.

  Args:
    sample: Draws the scenes of one chunk.
    num_scenes: How many scenes all batches hold together.
    seed: Non-negative. The first scenes are the same for any `num_scenes`.
    chunk_size: Scenes drawn at once, and in memory at once. Another size gives
      other scenes.

  Yields:
    Arrays by feature name, each with a leading batch axis.
  """
  for chunk, start in enumerate(range(0, num_scenes, chunk_size)):
    # As SeedSequence(seed).spawn(chunk + 1)[chunk].
    seeds = np.random.SeedSequence(seed, spawn_key=(chunk,))
    scenes = sample(np.random.default_rng(seeds), chunk_size)
    yield {name: v[: num_scenes - start] for name, v in scenes.items()}


def write_tfrecords(
  path: str | os.PathLike[str],
  features: Mapping[str, Feature],
  sample: Sampler,
  *,
  num_scenes: int,
  seed: int,
  overwrite: bool = False,
  chunk_size: int = CHUNK_SIZE,
  on_progress: Callable[[int], object] = lambda num_written: None,
) -> None:
  """Writes scenes to a GZIP TFRecord file.

  The file appears under its name when it is whole; until then it grows under a
  temporary name beside it, which is removed if anything goes wrong.

  Args:
    path: The file to write. Its folder is created.
    features: What a scene holds.
    sample: Draws the scenes of one chunk.
    num_scenes: How many scenes to write.
    seed: Non-negative; equal seeds give equal files.
    overwrite: Whether an existing file may be replaced.
    chunk_size: As for `sample_chunks`.
    on_progress: Called with the number of scenes written since the last call.

  Raises:
    OSError: The file cannot be written, or exists without `overwrite`.
  """
  path = pathlib.Path(path)
  _check_output(path, overwrite)
  path.parent.mkdir(parents=True, exist_ok=True)
  with whole_file(path) as partial:
    _write_records(
      partial,
      RecordLayout(features),
      sample_chunks(sample, num_scenes, seed, chunk_size),
      on_progress,
    )


def _check_output(path: str | os.PathLike[str], overwrite: bool) -> None:
  """Raises an OSError where `path` must not be written.

  Args:
    path: The file to write.
    overwrite: Whether an existing file may be replaced.

  Raises:
    IsADirectoryError: `path` is a directory.
    FileExistsError: `path` exists and is not to be replaced, or is no regular
      file.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise IsADirectoryError(f"{path} is a directory: name a file in it.")
  if path.exists() and not path.is_file():
    raise FileExistsError(f"{path} is no regular file: name another one.")
  if path.exists() and not overwrite:
    raise FileExistsError(
      f"{path} exists: name another file, or pass --force "
      "(overwrite=True) to replace it."
    )


def _write_records(
  path: pathlib.Path,
  layout: RecordLayout,
  chunks: Iterator[Mapping[str, np.ndarray]],
  on_progress: Callable[[int], object],
) -> None:
  """Serialises and writes all chunks."""
  # TensorFlow takes seconds to load: an error found before need not wait.
  import tensorflow as tf

  options = tf.io.TFRecordOptions(
    compression_type="GZIP", compression_level=_COMPRESSION_LEVEL
  )
  try:
    with tf.io.TFRecordWriter(str(path), options) as writer:
      for chunk in chunks:
        records = layout.encode(chunk)
        for record in records:
          writer.write(record.tobytes())
        on_progress(len(records))
  except tf.errors.OpError as e:
    raise OSError(e.message) from e
