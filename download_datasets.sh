#!/usr/bin/env bash
# Fetches the datasets; --help says more.
set -euo pipefail

repository=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
# shellcheck source=scripts/download.sh
source "$repository/scripts/download.sh"

default_address=https://storage.googleapis.com/multi-object-datasets
address=${IODINE_DATASETS_URL:-$default_address}
default_clevrtex=https://thor.robots.ox.ac.uk/datasets/clevrtex
clevrtex=${IODINE_CLEVRTEX_URL:-$default_clevrtex}
default_shapes3d=https://storage.googleapis.com/3d-shapes
shapes3d=${IODINE_SHAPES3D_URL:-$default_shapes3d}
default_library=https://data-download.compute.dtu.dk/multi_object_datasets
library=${IODINE_LIBRARY_URL:-$default_library}
default_hhousen=https://huggingface.co/HHousen/object-discovery-pytorch
default_hhousen=$default_hhousen/resolve/main/Datasets
hhousen=${IODINE_HHOUSEN_URL:-$default_hhousen}
folder=${IODINE_DATA_DIR:-data}

deepmind=(tetrominoes multi_dsprites clevr6 objects_room)
others=(
  clevrtex_{full,camo,pbg,vbg,grassbg,outd} 3dshapes sketchy
  library_{clevr,clevrtex,multi_dsprites,objects_room,shapestacks,tetrominoes}
  hhousen_{clevr,ravens,tetrominoes}
)

show_help() {
  cat <<HELP
Usage: $0 [options] NAME...

Fetches DeepMind's multi-object datasets:
  tetrominoes      300 MB
  multi_dsprites   up to 1 GB (colored_on_grayscale)
  clevr6           10.5 GB
  objects_room     7 GB
  all              all of these

and those of others, each in a folder of the source's name, but for 3dshapes:
  clevrtex_full    ClevrTex, 50,000 scenes in five archives; the variants
                   clevrtex_camo, clevrtex_pbg, clevrtex_vbg, clevrtex_grassbg
                   and clevrtex_outd are an archive each
  3dshapes         3D Shapes (HDF5)
  sketchy          Sketchy as GENESIS-V2's code prepares it, HHousen's archive
  library_NAME     object-centric-library's (HDF5, metadata): clevr, clevrtex,
                   multi_dsprites, objects_room, shapestacks or tetrominoes
  hhousen_NAME     HHousen's (HDF5): clevr, ravens or tetrominoes

Archives are unpacked and stay, so that a second run finds them; delete them if
there is to be none. Sizes that are not given here are told before a transfer.

$help
  IODINE_DATA_DIR      folder for the files (default: data in the current one)
  IODINE_DATASETS_URL  address of a mirror of DeepMind's
                       (default: $default_address)
  IODINE_CLEVRTEX_URL  of ClevrTex
                       (default: $default_clevrtex)
  IODINE_SHAPES3D_URL  of 3D Shapes
                       (default: $default_shapes3d)
  IODINE_LIBRARY_URL   of object-centric-library's
                       (default: $default_library)
  IODINE_HHOUSEN_URL   of HHousen's
                       (default: $default_hhousen)
  PYTHON               Python 3.9 or later (default: python3)
HELP
}

fetch_deepmind() {
  fetch "${address%/}/$1.tfrecords" "${folder%/}/${1##*/}.tfrecords"
}

# place FOLDER: makes a folder within that of the datasets and prints its path.
place() {
  local path=${folder%/}/$1
  mkdir -p "$path" || die_at_write "$path"
  echo "$path"
}

# unpack ARCHIVE NAME...: beside it, from the first folder of one of the names.
unpack() {
  echo "Unpacking $1"
  "$python" -I "$repository/scripts/unpack_dataset.py" "$@" \
    "$("$force" && echo --force)"
}

# fetch_clevrtex VARIANT
fetch_clevrtex() {
  local name=clevrtex_$1 parts part path
  path=$(place clevrtex)
  parts=("$name")
  [ "$1" != full ] || parts=("$name"_part{1,2,3,4,5})
  for part in "${parts[@]}"; do
    fetch "${clevrtex%/}/$part.tar.gz" "$path/$part.tar.gz"
  done
  for part in "${parts[@]}"; do
    unpack "$path/$part.tar.gz" "$name"
  done
  echo "  data.path=$path data.dataset_variant=$1"
}

fetch_sketchy() {
  local path archive=genesis_sketchy_processed.tar.gz
  path=$(place sketchy)
  fetch "${hhousen%/}/$archive" "$path/$archive"
  unpack "$path/$archive" processed train valid test
  echo "  data.path=$path"
}

# fetch_library NAME SHA256_OF_SCENES SHA256_OF_METADATA, of which ClevrTex has
# none (addtt/object-centric-library: check_data.py).
fetch_library() {
  local path
  path=$(place object_centric_library)
  fetch "${library%/}/$1-full.hdf5" "$path/$1-full.hdf5" "${2:-}"
  fetch "${library%/}/$1-metadata.npy" "$path/$1-metadata.npy" "${3:-}"
}

# fetch_hhousen FOLDER/FILE
fetch_hhousen() {
  local path
  path=$(place hhousen)
  fetch "${hhousen%/}/$1" "$path/${1##*/}"
}

fetch_dataset() {
  case $1 in
    tetrominoes | objects_room) fetch_deepmind "$1/$1_train" ;;
    multi_dsprites) fetch_deepmind "$1/$1_colored_on_grayscale" ;;
    clevr6) fetch_deepmind clevr_with_masks/clevr_with_masks_train ;;
    clevrtex_*) fetch_clevrtex "${1#*_}" ;;
    3dshapes) fetch "${shapes3d%/}/$1.h5" "${folder%/}/$1.h5" ;;
    sketchy) fetch_sketchy ;;
    library_clevr)
      fetch_library clevr_10 \
        419dd56bc7791541daaa246d4b60a00ab3d9c0b9a1330c8b8a015350130240c2 \
        d29017b07e9f59c746706ab679d32540eb33ce5582028d59b4594c1a6a850daf
      ;;
    library_clevrtex) fetch_library clevrtex ;;
    library_multi_dsprites)
      fetch_library multidsprites_colored_on_grayscale \
        a16e5777790adce45e83734b9693061b84725b341fb900439fe64bb08d9b2530 \
        9cbbbf1212ad9e5c80e31fd1658ccd953065513ee2a55c3ca6adab09ba74c68a
      ;;
    library_objects_room)
      fetch_library objects_room_train \
        5bddda03ebb48dca426071317c3d3ed1fb1a6683fd20c5fdf57a0a8c04bf2444 \
        8c63f928ff46667d8362e2fda1dee38d3e152877c2c9bdae80acfed82632c985
      ;;
    library_shapestacks)
      fetch_library shapestacks \
        09433b2e629744fc2aaa81d5f922d8b0509500bcb0e49d884675f4f8d52c1928 \
        bb975905693c706d91c338d66a22fa6761ca37472d0641482446018eaaa0c2be
      ;;
    library_tetrominoes)
      fetch_library tetrominoes \
        de19edfe00e6322058edbad25c9b3a8c55f7112cf9dac1565ccd87a2cdb87ffd \
        39ec2179213e1281e24d2f0869751846e8dd065bbcf5e1f1b435d967b73824fd
      ;;
    hhousen_clevr) fetch_hhousen clevr_with_masks.h5 ;;
    hhousen_tetrominoes) fetch_hhousen tetrominoes.h5 ;;
    hhousen_ravens)
      fetch_hhousen "RAVENS Robot Dataset/ravens_robot_data_train.h5"
      fetch_hhousen "RAVENS Robot Dataset/ravens_robot_data_test.h5"
      ;;
  esac
}

parse_arguments "$@"
[ "${#names[@]}" -gt 0 ] || { show_help >&2 && exit 2; }
case " ${names[*]} " in
  *' all '*) names+=("${deepmind[@]}") ;;
esac
chosen=()
for name in "${names[@]}"; do
  case " ${deepmind[*]} ${others[*]} all " in
    *" $name "*) ;;
    *)
      die 2 "unknown dataset '$name'" \
        "Choices: ${deepmind[*]} all ${others[*]}."
      ;;
  esac
  case " ${chosen[*]-} all " in
    *" $name "*) ;;
    *) chosen+=("$name") ;;
  esac
done
start
for name in "${chosen[@]}"; do
  fetch_dataset "$name"
done
