"""Prints the files of a bucket; download_checkpoints.sh runs this.

  python scripts/list_bucket.py PREFIX < LISTING

LISTING is what a bucket's address answers to `?prefix=PREFIX`, in XML. Prints
what comes after PREFIX in the name of each file, a line each.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree

# Folders and names of files that no shell or file system takes for more.
_NAME = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*", re.ASCII)
_MOST_BYTES = 10_000_000


def _fail(message: str):
  sys.exit(
    f"error: {message}\n"
    "  Download the files by hand, for instance with gsutil, and name their\n"
    "  folder by checkpoint_dir=."
  )


prefix = sys.argv[1]
listing = sys.stdin.buffer.read(_MOST_BYTES)
if b"<!DOCTYPE" in listing or b"<!ENTITY" in listing:
  _fail("the list of files has declarations that no bucket's has")
try:
  root = ElementTree.fromstring(listing)
except ElementTree.ParseError as parse_error:
  _fail(f"the list of files cannot be read ({parse_error})")
keys = [
  element.text or ""
  for element in root.iter()
  if element.tag.rpartition("}")[2] == "Key"
]
names = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
names = [name for name in names if name and not name.endswith("/")]
if not names:
  _fail(f"there are no files {prefix}*")
for name in names:
  if not _NAME.fullmatch(name):
    _fail(f"the list has a file with the odd name {name!r}")
print("\n".join(names))
