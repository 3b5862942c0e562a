"""IODINE: decompose images into objects without supervision.

Trains with `python -m iodine.main with tetrominoes`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from docopt import DocoptExit

from iodine import console, signals
from iodine.errors import ConfigError, LogFormatter, RunError
from iodine.signals import Interrupted

if TYPE_CHECKING:
  from iodine.runs.loading import LoadedCheckpoint

__all__ = ["load_checkpoint", "main"]

# Whose warnings are of no use to who trains a model.
_QUIET = ("absl", "tensorflow", "tensorboard")


def __getattr__(name: str) -> Any:
  """`ex`, the experiment of Sacred. All else that takes time comes later."""
  if name == "ex":
    from iodine.command_line import ex

    return ex
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_checkpoint(
  config_name_or_path: str | os.PathLike,
  checkpoint_dir: str | os.PathLike | None = None,
  **overrides: Any,
) -> LoadedCheckpoint:
  """Restores a model, and runs it on one batch of its dataset.

  ```
  restored = load_checkpoint("demo", num_components=4, num_iters=8)
  model, dataset = restored["model"], restored["dataset"]
  batch = dataset.image_batch(image)  # [H, W, C] or [B, H, W, C]
  info = exploration.infer(model, batch)
  ```

  runs the model on any image, with any number of slots and refinement steps.

  Args:
    config_name_or_path: a named configuration, a configuration file, or the
      folder of a training run.
    checkpoint_dir: folder, prefix or file of a checkpoint of either format;
      None: the folder of the run, or the configuration's own.
    **overrides: entries of the configuration; `**{"data.shuffle_buffer": 10}`
      reaches inside of one.

  Returns:
    A dict: model; dataset; inputs, its first batch; info, what the model
    infers of that, as NumPy arrays (see `SceneModel.eval`).

  Raises:
    ConfigError: for a mistake in configuration, checkpoint or data.
  """
  from iodine.runs import loading

  return loading.load_checkpoint(config_name_or_path, checkpoint_dir, overrides)


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command line.

  Exit codes: 0 done; 1 the run failed; 2 a mistake in the command, the
  configuration or a file; 128 + n ended by signal n, in training with
  everything saved.

  Args:
    argv: the words of the command; None: those of this process.
  """
  argv = list(sys.argv if argv is None else argv)
  handler = console.Handler()
  handler.setFormatter(LogFormatter("%(levelname)s - %(message)s"))
  handler.addFilter(_is_shown)
  logging.basicConfig(handlers=[handler], level=logging.INFO)
  try:
    with console.checked_output(), signals.handled():
      _check_current_folder()
      from iodine.command_line import ex

      ex.run_commandline(argv)
  except DocoptExit as error:
    text = f"{error}\nTry `dummy --help`."
    _fail(text.replace("dummy", console.program()), 2)
  except ConfigError as error:
    _fail(f"{console.error('ConfigError')}: {error}", 2)
  except Interrupted as interrupt:
    if not interrupt.is_told:
      print(interrupt, file=sys.stderr)
    sys.exit(128 + interrupt.signal_number)
  except KeyboardInterrupt:
    _fail("Interrupted.", 130)
  except RunError as error:
    _fail(f"{console.error('Error')}: {error}", 1)


def _is_shown(record: logging.LogRecord) -> bool:
  package = record.name.partition(".")[0]
  return package not in _QUIET or record.levelno >= logging.ERROR


def _check_current_folder() -> None:
  try:
    os.getcwd()
  except OSError as error:
    raise RunError(
      f"the current folder cannot be read ({error.strerror}). Change to another"
    ) from error


def _fail(message: str, code: int) -> None:
  with contextlib.suppress(OSError):  # A full disk changes no exit code.
    print(message, file=sys.stderr)
  sys.exit(code)


if __name__ == "__main__":
  main()
