"""Unpacks the released checkpoints; download_checkpoints.sh runs this.

  python scripts/unpack_checkpoints.py ARCHIVE [--force]

Nothing goes to its folder where a member is suspicious or would replace a file.
"""

import os
import pathlib
import shutil
import stat
import sys
import tempfile
import zipfile
import zlib

_MODELS = ("clevr6", "multi_dsprites", "tetrominoes")


def _fail(message: str, *remedy: str):
  sys.exit("\n  ".join([f"error: {message}", *remedy]))


def _checked_parts(member: zipfile.ZipInfo) -> list[str]:
  """The folders and the name of a member."""
  name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
  parts = name.split("/")
  if name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
    _fail(f"member {name!r} would land elsewhere", "Nothing is unpacked.")
  if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
    _fail(f"member {name!r} is a link or special", "Nothing is unpacked.")
  return [part for part in parts if part not in ("", ".")]


def _leading(names: list[list[str]]) -> list[str]:
  """The folders around those of the models, or around all files."""
  for parts in names:
    for i, part in enumerate(parts[:-1]):
      if part in _MODELS:
        return parts[:i]
  return os.path.commonprefix([parts[:-1] for parts in names])


def _plan(archive: zipfile.ZipFile, path: pathlib.Path):
  """Members by the files that they become."""
  members = [(_checked_parts(member), member) for member in archive.infolist()]
  members = [
    (parts, member)
    for parts, member in members
    if not member.is_dir() and "__MACOSX" not in parts
  ]
  leading = _leading([parts for parts, _ in members])
  files, taken = {}, {path.name.casefold()}
  for parts, member in members:
    shared = parts[: len(leading)] == leading
    name = "/".join(parts[len(leading) :] if shared else parts)
    if name.casefold() in taken:
      _fail(f"two files would become {name}", "Nothing is unpacked.")
    taken.add(name.casefold())
    target = path.parent / name
    if path.parent.resolve() not in target.resolve().parents:
      _fail(f"{target} leads elsewhere by a link", "Remove that link.")
    files[target] = member
  return files


def _same(target: pathlib.Path, member: zipfile.ZipInfo) -> bool:
  return target.is_file() and zlib.crc32(target.read_bytes()) == member.CRC


def _unpack(archive: zipfile.ZipFile, path: pathlib.Path, force: bool):
  files = _plan(archive, path)
  new = [target for target in files if not _same(target, files[target])]
  differing = [str(target) for target in new if os.path.lexists(target)]
  if differing and not force:
    remedy = "Nothing is unpacked. Move them away, or add --force."
    _fail(f"these files differ from those in {path}:", *differing, remedy)
  with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
    copies = {new[i]: pathlib.Path(scratch, str(i)) for i in range(len(new))}
    for target, copy in copies.items():
      with archive.open(files[target]) as source, open(copy, "wb") as file:
        shutil.copyfileobj(source, file)
    for target, copy in copies.items():
      target.parent.mkdir(parents=True, exist_ok=True)
      copy.replace(target)
  print(f"{len(new)} files unpacked, {len(files) - len(new)} already there")
  for parent in sorted({target.parent for target in files}):
    print(f"  checkpoint_dir={parent}")


path = pathlib.Path(sys.argv[1])
try:
  with zipfile.ZipFile(path) as archive:
    _unpack(archive, path, "--force" in sys.argv)
except KeyboardInterrupt:
  sys.exit(130)
except Exception as error:  # Damaged archives raise many kinds.
  remedy = "If it is damaged, --force fetches it anew. If the disk is full or"
  _fail(f"cannot unpack {path}: {error}", remedy, "read-only, see to that.")
