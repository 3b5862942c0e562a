#!/usr/bin/env bash
# Fetches the datasets; --help says more.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
# shellcheck source=scripts/download.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/download.sh"

address_variable=IODINE_DATASETS_URL
default_address=https://storage.googleapis.com/multi-object-datasets
address=${IODINE_DATASETS_URL:-$default_address}
folder=${IODINE_DATA_DIR:-data}
choices="tetrominoes multi_dsprites clevr6 objects_room"

show_help() {
  cat <<HELP
Usage: $0 [options] NAME...

Fetches DeepMind's multi-object datasets:
  tetrominoes      300 MB
  multi_dsprites   up to 1 GB (colored_on_grayscale)
  clevr6           10.5 GB
  objects_room     7 GB
  all              all of these

Run again, it resumes what was broken off and leaves alone what is there.

Options:
$options_help

Environment:
  IODINE_DATA_DIR      folder for the files (default: data in the current one)
  IODINE_DATASETS_URL  address of a mirror
                       (default: $default_address)
  PYTHON               Python 3 for the checks (default: python3)
HELP
}

# The place of a dataset under the address; nothing for an unknown name.
place() {
  case $1 in
    tetrominoes) echo tetrominoes/tetrominoes_train.tfrecords ;;
    multi_dsprites)
      echo multi_dsprites/multi_dsprites_colored_on_grayscale.tfrecords ;;
    clevr6) echo clevr_with_masks/clevr_with_masks_train.tfrecords ;;
    objects_room) echo objects_room/objects_room_train.tfrecords ;;
  esac
}

# Fails for a name that is none of the choices.
check_name() {
  local nearest
  [ "$1" != all ] && [ -z "$(place "$1")" ] || return 0
  # shellcheck disable=SC2086  # Each of the choices is an argument.
  nearest=$(run_python '
import difflib, sys
print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], n=1, cutoff=0.4))
' "$1" $choices all)
  usage_error "unknown dataset '$1'" \
    ${nearest:+"Did you mean $nearest?"} "Choices: ${choices// /, }, all."
}

parse_arguments "$@"
if [ "${#names[@]}" -eq 0 ]; then
  show_help >&2
  exit 2
fi
start_downloads
wanted=" "
for name in "${names[@]}"; do
  check_name "$name"
  wanted="$wanted$name "
done
for name in $choices; do
  case $wanted in
    *" $name "* | *" all "*)
      path=$(place "$name")
      add_download "${address%/}/$path" "${folder%/}/${path##*/}" check_tfrecord
      ;;
  esac
done
download_all
