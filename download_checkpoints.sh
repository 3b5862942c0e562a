#!/usr/bin/env bash
# Fetches and unpacks the released checkpoints; --help says more.
set -euo pipefail

repository=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
# shellcheck source=scripts/download.sh
source "$repository/scripts/download.sh"

default_address=https://storage.googleapis.com/deepmind-research-iodine
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

$help
  IODINE_CHECKPOINTS_URL  address of a mirror of $archive
                          (default: $default_address)
  PYTHON                  Python 3.9 or later (default: python3)
HELP
}

parse_arguments "$@"
[ "${#names[@]}" -eq 0 ] ||
  die 2 "unexpected argument '${names[0]}'" "Usage: $0 [options]"
start
fetch "${address%/}/$archive" "$folder/$archive"
"$python" -I "$repository/scripts/unpack_checkpoints.py" "$folder/$archive" \
  "$("$force" && echo --force)"
