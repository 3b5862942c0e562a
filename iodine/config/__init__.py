"""What a user asks for: entries, files, plans."""

from iodine.config.reading import load_file, named_configs
from iodine.config.resolution import build, resolve

__all__ = ["build", "load_file", "named_configs", "resolve"]
