#!/usr/bin/env bash
# Fetches the datasets; --help says more.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
# shellcheck source=scripts/download.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/download.sh"

default_address=https://storage.googleapis.com/multi-object-datasets
address=${IODINE_DATASETS_URL:-$default_address}
folder=${IODINE_DATA_DIR:-data}

show_help() {
  cat <<HELP
Usage: $0 [options] NAME...

Fetches DeepMind's multi-object datasets:
  tetrominoes      300 MB
  multi_dsprites   up to 1 GB (colored_on_grayscale)
  clevr6           10.5 GB
  objects_room     7 GB
  all              all of these

$help
  IODINE_DATA_DIR      folder for the files (default: data in the current one)
  IODINE_DATASETS_URL  address of a mirror
                       (default: $default_address)
  PYTHON               Python 3.9 or later (default: python3)
HELP
}

parse_arguments "$@"
[ "${#names[@]}" -gt 0 ] || { show_help >&2 && exit 2; }
case " ${names[*]} " in
  *' all '*) names=(tetrominoes multi_dsprites clevr6 objects_room) ;;
esac
files=()
for name in "${names[@]}"; do
  case $name in
    tetrominoes | objects_room) files+=("$name/${name}_train") ;;
    multi_dsprites) files+=("$name/${name}_colored_on_grayscale") ;;
    clevr6) files+=(clevr_with_masks/clevr_with_masks_train) ;;
    *)
      die 2 "unknown dataset '$name'" \
        "Choices: tetrominoes, multi_dsprites, clevr6, objects_room, all." ;;
  esac
done
start
for file in "${files[@]}"; do
  fetch "${address%/}/$file.tfrecords" "${folder%/}/${file##*/}.tfrecords"
done
