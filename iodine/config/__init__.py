"""What a user asks for: entries, files, plans."""

from iodine.config.reading import load_file

__all__ = ["load_file"]
