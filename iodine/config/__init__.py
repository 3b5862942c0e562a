"""What a user asks for: entries, files, plans."""

from iodine.config.resolution import load_file

__all__ = ["load_file"]
