"""Writes a file of synthetic scenes.

Scenes are sampled in chunks of a fixed size, each with its own random
generator, so scene i depends only on the seed and i, not on how many are
written.
"""

import glob
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from iodine import leftovers
from iodine.files import whole_file
from iodine.synthetic.records import Feature, RecordLayout

__all__ = ["CHUNK_SIZE", "Sampler", "sample_chunks", "write_tfrecords"]

# Changing it changes the scenes of every seed.
CHUNK_SIZE = 256
# Fastest; level 6 makes the file 2.5 times smaller but is slower.
_COMPRESSION_LEVEL = 1

# Samples a batch of scenes: (generator, batch size) -> arrays by feature name.
Sampler = Callable[[np.random.Generator, int], Mapping[str, np.ndarray]]


def sample_chunks(
  sample: Sampler, num_scenes: int, seed: int, chunk_size: int = CHUNK_SIZE
) -> Iterator[dict[str, np.ndarray]]:
  """Yields `num_scenes` scenes in batches.

  Args:
    sample: samples the scenes of one chunk.
    num_scenes: total number of scenes.
    seed: seed of the scenes, non-negative; scene i is the same for any
      `num_scenes`.
    chunk_size: scenes sampled and held in memory at once; changes the scenes.

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

  It is written to a temporary file in the same folder and renamed when complete
  or removed on failure. Those of killed processes are removed first.

  Args:
    path: path of the file to write. Its folder is created.
    features: features of a scene.
    sample: samples the scenes of one chunk.
    num_scenes: number of scenes to write.
    seed: seed of the scenes, non-negative; equal seeds give equal files.
    overwrite: whether an existing file may be replaced.
    chunk_size: as in `sample_chunks`.
    on_progress: called with the number of scenes written since the last call.

  Raises:
    OSError: if the file cannot be written, or exists and `overwrite` is False.
  """
  path = pathlib.Path(path)
  _check_output(path, overwrite)
  path.parent.mkdir(parents=True, exist_ok=True)
  partials = f".{glob.escape(path.name)}.*.partial"  # of whole_file
  with leftovers.writing_in(path.parent, partials), whole_file(path) as partial:
    _write_records(
      partial,
      RecordLayout(features),
      sample_chunks(sample, num_scenes, seed, chunk_size),
      on_progress,
    )


def _check_output(path: str | os.PathLike[str], overwrite: bool) -> None:
  """Raises an OSError if `path` must not be written.

  Args:
    path: path of the file to write.
    overwrite: whether an existing file may be replaced.

  Raises:
    IsADirectoryError: if `path` is a directory.
    FileExistsError: if `path` exists and must not be replaced, or is not a
      regular file.
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
  # TensorFlow takes seconds to load; report earlier errors without it.
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
