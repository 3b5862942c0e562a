"""Files and folders that appear whole or not at all."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

from iodine.errors import ConfigError, RunError

__all__ = ["results_in", "write_whole"]


def make_folder(folder: pathlib.Path, key: str) -> None:
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ConfigError(f"{key}: {folder} cannot be made: {error}") from error


@contextlib.contextmanager
def new_files(
  folder: pathlib.Path, patterns: Sequence[str]
) -> Iterator[pathlib.Path]:
  """A place for new files, which take the place of old ones all at once.

  Args:
    folder: where they go in the end.
    patterns: what a run may leave there; such files of earlier runs go. The
      one of the last pattern goes first and comes last.

  Yields:
    A folder for the new files, which is gone afterwards.
  """
  with results_in(folder, "pictures_dir"):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
      yield pathlib.Path(new)
      for pattern in reversed(patterns):
        for path in folder.glob(pattern):
          path.unlink()
      for pattern in patterns:
        for path in sorted(pathlib.Path(new).glob(pattern)):
          path.replace(folder / path.name)


@contextlib.contextmanager
def results_in(folder: pathlib.Path, entry: str) -> Iterator[None]:
  """Removes a folder again if it is new and no results come.

  Args:
    folder: is made within, unless it exists.
    entry: of the configuration, which chose it; errors name it.

  Raises:
    ConfigError: if the folder cannot be written to.
  """
  is_new = not folder.exists()
  try:
    yield
  except BaseException as error:
    if is_new:
      with contextlib.suppress(OSError):
        folder.rmdir()
    if isinstance(error, OSError):
      raise ConfigError(
        f"{entry}: {folder} cannot be written to: {error}"
      ) from error
    raise


def write_whole(path: pathlib.Path, content: str | bytes) -> None:
  """Writes or replaces a file; if that breaks off, what was there stays.

  Raises:
    RunError: if it cannot be written.
  """
  partial = path.with_name(f"{path.name}.partial")
  data = content.encode() if isinstance(content, str) else content
  try:
    partial.write_bytes(data)
    partial.replace(path)
  except OSError as error:
    partial.unlink(missing_ok=True)
    raise RunError(f"{path}: cannot be written: {error.strerror}") from error
