#!/usr/bin/env bash
# Fetches and unpacks the released checkpoints; --help says more.
set -euo pipefail

repository=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
# shellcheck source=scripts/download.sh
source "$repository/scripts/download.sh"

default_address=https://storage.googleapis.com/deepmind-research-iodine
address=${IODINE_CHECKPOINTS_URL:-$default_address}
default_bucket=https://storage.googleapis.com/gresearch
bucket=${IODINE_SLOT_ATTENTION_URL:-$default_bucket}
default_examples=https://raw.githubusercontent.com/pemami4911/EfficientMORL/main/examples
examples=${IODINE_EFFICIENTMORL_URL:-$default_examples}
folder=checkpoints
archive=iodine_checkpoints.zip

show_help() {
  cat <<HELP
Usage: $0 [options] [NAME...]

Fetches released checkpoints into $folder/ in the current folder:
  iodine          DeepMind's of IODINE (default): clevr6, multi_dsprites and
                  tetrominoes. The archive stays there, so that a second run
                  finds it. Files that are there and differ from the archive's
                  are kept.
  slot_attention  Google's of Slot Attention: object_discovery and
                  set_prediction, in folders of these names
  efficientmorl   the authors' of EfficientMORL: emorl-tetrominoes-*.pth and
                  emorl-clevr6-*.pth, files of PyTorch

$help
  IODINE_CHECKPOINTS_URL     address of a mirror of $archive
                             (default: $default_address)
  IODINE_SLOT_ATTENTION_URL  address of a mirror of the bucket of Slot Attention
                             (default: $default_bucket)
  IODINE_EFFICIENTMORL_URL   address of a mirror of the files of EfficientMORL
                             (default: $default_examples)
  PYTHON                     Python 3.9 or later (default: python3)
HELP
}

fetch_iodine() {
  fetch "${address%/}/$archive" "$folder/$archive"
  "$python" -I "$repository/scripts/unpack_checkpoints.py" \
    "$folder/$archive" "$("$force" && echo --force)"
}

# The names of the files are the bucket's to tell.
fetch_slot_attention() {
  local kind prefix listing files file target code
  for kind in object_discovery set_prediction; do
    prefix=slot-attention/$kind/
    echo "Listing ${bucket%/}/$prefix"
    code=0
    listing=$(curl "${curl_options[@]}" -sS --max-time 60 --retry "$retries" \
      --retry-max-time 600 --max-filesize 10000000 \
      --url "${bucket%/}?prefix=$prefix") || code=$?
    [ "$code" = 0 ] || die_at_network "${bucket%/}?prefix=$prefix"
    files=$("$python" -I "$repository/scripts/list_bucket.py" "$prefix" \
      <<<"$listing")
    for file in $files; do
      target=$folder/slot_attention/$kind/$file
      mkdir -p "$(dirname "$target")" || die_at_write "$target"
      fetch "${bucket%/}/$prefix$file" "$target"
    done
    echo "  checkpoint_dir=$folder/slot_attention/$kind"
  done
}

fetch_efficientmorl() {
  local file target
  for file in emorl-tetrominoes-seed-1200-state-200000.pth \
    emorl-clevr6-seed-2004-state-300000.pth; do
    target=$folder/efficientmorl/$file
    mkdir -p "$(dirname "$target")" || die_at_write "$target"
    fetch "${examples%/}/$file" "$target"
    echo "  checkpoint_dir=$target"
  done
}

parse_arguments "$@"
[ "${#names[@]}" -gt 0 ] || names=(iodine)
for name in "${names[@]}"; do
  case $name in
    iodine | slot_attention | efficientmorl) ;;
    *)
      die 2 "unknown checkpoints '$name'" \
        "Choices: iodine, slot_attention, efficientmorl."
      ;;
  esac
done
start
for name in "${names[@]}"; do
  "fetch_$name"
done
