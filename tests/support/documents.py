"""The project's documents, and the code in them."""

import re

from tests.support.places import REPOSITORY

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
  """Blocks of code of a language, in their order."""
  return [code for name, code in FENCE.findall(text) if name == language]
