"""Unpacks an archive of a dataset; download_datasets.sh runs this.

  python scripts/unpack_dataset.py ARCHIVE.tar.gz NAME... [--force]

Members go beside the archive, from the first folder on that has one of the
names; others are left out. A file that is there is kept if it has the member's
size.
"""

import pathlib
import shutil
import sys
import tarfile
import time

_INTERVAL = 10.0  # Seconds between two lines of progress.


def _fail(message: str, *remedy: str):
  sys.exit("\n  ".join([f"error: {message}", *remedy]))


def _checked_parts(member: tarfile.TarInfo, names: list[str]) -> list[str]:
  """Folders and name of a member below the archive's folder; [] for none."""
  name = member.name
  parts = [part for part in name.split("/") if part not in ("", ".")]
  if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
    _fail(f"member {name!r} would land elsewhere", "Do not use this archive.")
  if not member.isfile():
    _fail(f"member {name!r} is a link or special", "Do not use this archive.")
  found = [i for i, part in enumerate(parts[:-1]) if part in names]
  is_of_macos = parts[-1].startswith("._")
  return parts[found[0] :] if found and not is_of_macos else []


class _Unpacker:
  """Writes members into a folder; counts them."""

  def __init__(self, folder: pathlib.Path, force: bool):
    self.folder, self.force = folder, force
    self.root = folder.resolve()
    self.checked: set[pathlib.Path] = set()
    self.written = self.kept = 0
    self.told = time.monotonic()

  def take(self, member: tarfile.TarInfo, source, parts: list[str]):
    target = self.folder.joinpath(*parts)
    self._make(target.parent)
    if target.is_symlink():
      _fail(f"{target} leads elsewhere by a link", "Remove that link.")
    if target.exists() and not self.force:
      size = target.stat().st_size
      if size != member.size:
        _fail(
          f"{target} has {size} bytes instead of the archive's {member.size}",
          "It is kept. To replace it, add --force or move it away.",
        )
      self.kept += 1
    else:
      part = target.with_name(f"{target.name}.part")
      part.unlink(missing_ok=True)
      with open(part, "xb") as file:
        shutil.copyfileobj(source, file)
      part.replace(target)
      self.written += 1
    if time.monotonic() - self.told > _INTERVAL:
      self.told = time.monotonic()
      print(f"  {self.written + self.kept:,} files so far", flush=True)

  def _make(self, folder: pathlib.Path):
    """Makes a folder, which no link may lead elsewhere."""
    if folder in self.checked:
      return
    if self.root not in (folder.resolve(), *folder.resolve().parents):
      _fail(f"{folder} leads elsewhere by a link", "Remove that link.")
    folder.mkdir(parents=True, exist_ok=True)
    self.checked.add(folder)


def _unpack(path: pathlib.Path, names: list[str], force: bool):
  unpacker = _Unpacker(path.parent, force)
  with tarfile.open(path, "r|gz") as archive:
    for member in archive:
      if member.isdir():
        continue
      if parts := _checked_parts(member, names):
        unpacker.take(member, archive.extractfile(member), parts)
  if not unpacker.written + unpacker.kept:
    _fail(
      f"{path} has no folder {' or '.join(names)}",
      "It is another archive, or another version of it: unpack it by hand.",
    )
  print(f"{unpacker.written:,} files unpacked, {unpacker.kept:,} already there")


path, *words = sys.argv[1:]
try:
  _unpack(
    pathlib.Path(path),
    [word for word in words if word and word != "--force"],
    "--force" in words,
  )
except KeyboardInterrupt:
  sys.exit(130)
except (OSError, EOFError, tarfile.TarError) as error:
  remedy = "If it is damaged, --force fetches it anew. If the disk is full or"
  _fail(f"cannot unpack {path}: {error}", remedy, "read-only, see to that.")
