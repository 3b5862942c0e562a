"""Imports TensorFlow without what it logs meanwhile.

Its libraries write of processors and GPUs to standard error as they are loaded,
before they read TF_CPP_MIN_LOG_LEVEL. Whatever may be the first to import
TensorFlow therefore imports this module before. The lines are shown if the
import fails, and if that variable is set to 0 or 1.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_STDERR = 2  # its descriptor: sys.stderr may be another one, as in a notebook


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
  """Holds back what is written to standard error; shows it after an error."""
  with contextlib.ExitStack() as stack:
    try:
      shown = os.dup(_STDERR)
      stack.callback(os.close, shown)
      held = stack.enter_context(tempfile.TemporaryFile())
    except OSError:  # It is closed, or there is no place for a file.
      yield
      return
    os.dup2(held.fileno(), _STDERR)
    try:
      yield
    except Exception:
      held.seek(0)
      os.write(shown, held.read())
      raise
    finally:
      os.dup2(shown, _STDERR)


def _import() -> None:
  asked_for = os.environ.setdefault(_LEVEL, "3") in ("0", "1")
  silence = contextlib.nullcontext() if asked_for else _held_back()
  with silence:
    import tensorflow  # noqa: F401


if "tensorflow" not in sys.modules:
  _import()
