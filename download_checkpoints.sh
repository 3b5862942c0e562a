#!/usr/bin/env bash
# Fetches and unpacks the released checkpoints; --help says more.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
# shellcheck source=scripts/download.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/download.sh"

address_variable=IODINE_CHECKPOINTS_URL
default_address=http://storage.googleapis.com/deepmind-research-iodine
address=${IODINE_CHECKPOINTS_URL:-$default_address}
folder=checkpoints
archive=iodine_checkpoints.zip

show_help() {
  cat <<HELP
Usage: $0 [options]

Fetches the checkpoints that DeepMind released and unpacks them into $folder/
in the current folder: clevr6, multi_dsprites and tetrominoes. The archive
stays there, so that a second run finds it. Files that are there and differ
from the archive's are kept.

Run again, it resumes what was broken off and leaves alone what is there.

Options:
$options_help

Environment:
  IODINE_CHECKPOINTS_URL  address of a mirror of $archive
                          (default: $default_address)
  PYTHON                  Python 3 for the checks (default: python3)
HELP
}

# Unpacks archive $1 into folder $2; $3: whether to overwrite.
unpack() {
  "$python" -I -c '
import os, pathlib, shutil, stat, sys, zipfile, zlib

MODELS = ("clevr6", "multi_dsprites", "tetrominoes")


def fail(message, *details):
  print("\n  ".join(["error: " + message, *details]), file=sys.stderr)
  sys.exit(1)


def safe_parts(member):
  """The folders and the name of a member that may be unpacked."""
  name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
  parts = name.split("/")
  if name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
    fault = "would land outside of %s" % folder
  elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
    fault = "is a link or a special file"
  else:
    return [part for part in parts if part not in ("", ".")]
  fail("%s is refused: its member %r %s" % (path, name, fault),
       "Nothing was unpacked.")


def leading_folders(names):
  """The folders around those of the models, or around all files."""
  for parts in names:
    for i, part in enumerate(parts[:-1]):
      if part in MODELS:
        return parts[:i]
  common = os.path.commonprefix([parts[:-1] for parts in names])
  return list(common)


def plan(archive):
  """Members by the files that they become."""
  members = [(safe_parts(member), member) for member in archive.infolist()]
  members = [
      (parts, member) for parts, member in members
      if parts and not member.filename.endswith("/")
      and parts[0] != "__MACOSX" and parts[-1] != ".DS_Store"]
  if not members:
    fail("%s holds no files" % path)
  leading = leading_folders([parts for parts, _ in members])
  files = {}
  for parts, member in members:
    if parts[:len(leading)] == leading:
      parts = parts[len(leading):]
    target = folder.joinpath(*parts)
    if target in files or target == path:
      fail("%s is refused: two files would become %s" % (path, target),
           "Nothing was unpacked.")
    files[target] = member
  return files


def same(target, member):
  if not target.is_file() or target.stat().st_size != member.file_size:
    return False
  crc = 0
  with open(target, "rb") as file:
    for block in iter(lambda: file.read(1 << 20), b""):
      crc = zlib.crc32(block, crc)
  return crc == member.CRC


def check_targets(files):
  """Fails where a file would be lost or land elsewhere by a link."""
  root = folder.resolve()
  for target in files:
    if root not in target.resolve().parents:
      fail("%s is refused: %s would land outside of %s"
           % (path, target, folder),
           "A link in %s leads there: remove it." % folder)
  differing = [str(target) for target in files if os.path.lexists(target)]
  if differing and not overwrite:
    fail("these files are there already and differ from those in %s:" % path,
         *differing, "They are kept, and nothing was unpacked. To overwrite "
         "them, add --force, or move them away.")


def write(archive, member, target):
  target.parent.mkdir(parents=True, exist_ok=True)
  part = target.with_name(target.name + ".part")
  try:
    with archive.open(member) as source, open(part, "wb") as file:
      shutil.copyfileobj(source, file)
    os.replace(part, target)
  finally:
    if part.exists():
      part.unlink()


def main():
  with zipfile.ZipFile(path) as archive:
    files = plan(archive)
    new = {target: member for target, member in files.items()
           if not same(target, member)}
    check_targets(new)
    needed = sum(member.file_size for member in new.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
      fail("the disk of %s has %.1f MB free, too little for the %.1f MB in %s"
           % (folder, free / 1e6, needed / 1e6, path))
    for target, member in new.items():
      try:
        write(archive, member, target)
      except OSError as error:
        fail("cannot write %s: %s" % (target, error.strerror or error),
             "Make room, or make the folder writable, then run the same "
             "command again.")
  print("%d files unpacked, %d were there already:"
        % (len(new), len(files) - len(new)))
  for parent in sorted({target.parent for target in files}):
    print("  checkpoint_dir=%s" % parent)


path, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
overwrite = sys.argv[3] == "true"
try:
  main()
except KeyboardInterrupt:
  sys.exit(130)
' "$1" "$2" "$3"
}

parse_arguments "$@"
[ "${#names[@]}" -eq 0 ] ||
  usage_error "unexpected argument '${names[0]}'" "Usage: $0 [options]"
start_downloads
add_download "${address%/}/$archive" "$folder/$archive" check_zip
download_all
unpack "$folder/$archive" "$folder" "$force"
