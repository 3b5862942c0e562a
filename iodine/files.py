"""The folder that a command leaves its results in."""

import contextlib
import pathlib
from collections.abc import Iterator

from iodine.modules.utils import ConfigError

__all__ = ["results_in"]


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
