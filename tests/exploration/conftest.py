"""A tiny model, and what it infers."""

from typing import Any

import pytest

from iodine import exploration
from iodine.modules.iodine import IODINE
from tests.support import tiny


@pytest.fixture(scope="package")
def model() -> IODINE:
  return tiny.initialized()


@pytest.fixture(scope="package")
def info(model: IODINE) -> dict[str, Any]:
  """Not to be changed."""
  return exploration.infer(model, tiny.batch(), seed=3)
