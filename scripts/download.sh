# shellcheck shell=bash
# Resumable, checked downloads with curl. download_checkpoints.sh and
# download_datasets.sh source this file; it runs on bash 3.2 (macOS) and later.
#
# A file is fetched to NAME.part beside it and renamed when it has the size and
# the checksum that are known, from the server (MD5 of Google's, SHA-256 of
# Hugging Face's) or the script, or that are within (gzip). One that is there
# already has to have them, too.

# shellcheck disable=SC2034  # The scripts show it.
help="\
Run again, it resumes what was broken off, if there is a checksum, and checks
and leaves alone what is there.

Options:
  --force      fetch anew and overwrite what is there
  --retries N  how often in a row to try again without any progress (default: 5)
  -h, --help   show this text

Environment:"

force=false
retries=5
names=()  # Arguments that are no options.
child=""  # The curl that fetches.
curl_options=(-gfL --proto '=http,https' --max-redirs 10
  --connect-timeout 20 --speed-limit 1 --speed-time 60)

# die STATUS MESSAGE REMEDY...
die() {
  printf 'error: %s\n' "$2" >&2
  printf '  %s\n' "${@:3}" >&2
  exit "$1"
}

die_at_write() {
  die 1 "cannot write $1" \
    "The disk may be full or read-only, or the folder someone else's." \
    "Then run the same command again: it resumes."
}

die_at_network() {
  die 1 "cannot fetch $1: curl ended with status $code" \
    "Check the network (and http_proxy, https_proxy), or name a mirror (see" \
    "--help). Then run the same command again: it resumes."
}

# Splits the arguments into options and `names`. The caller defines show_help.
parse_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) show_help && exit ;;
      --force) force=true ;;
      --retries=*) retries=${1#*=} ;;
      --retries) retries=${2:-} && shift "$(($# > 1))" ;;
      -*) die 2 "unknown option $1" "Options: --force, --retries N, --help." ;;
      *) names+=("$1") ;;
    esac
    shift
  done
  [[ $retries =~ ^[0-9]{1,4}$ ]] ||
    die 2 "--retries '$retries': expected a number up to 9999" \
      "For instance: --retries 10"
  retries=$((10#$retries))
}

# Makes `folder` and keeps other runs out of it until this one ends.
start() {
  command -v curl >/dev/null || die 1 "curl is not installed" \
    "Install it: apt install curl, dnf install curl or brew install curl"
  python=${PYTHON:-python3}
  "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' \
    2>/dev/null || die 1 "$python is no Python 3.9 or later" \
    "Install one, or say where it is: PYTHON=/path/to/python3 $0"
  trap 'stop 130' INT
  trap 'stop 143' TERM
  case $folder in -*) folder=./$folder ;; esac
  # The lock ends with the last process that holds the open folder.
  { mkdir -p "$folder" && exec 9<"$folder"; } || die_at_write "$folder"
  "$python" -I -c '
import fcntl, sys
try: fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError: sys.exit(1)
except OSError: pass  # A file system without locks.
' || die 1 "another run is writing to $folder" \
    "Wait for it to end, then run the same command again."
}

# Ends after a signal; what was fetched so far stays.
stop() {
  trap '' INT TERM
  [ -z "$child" ] || kill "$child" 2>/dev/null || true
  wait
  [ ! -t 2 ] || echo >&2  # Ends curl's bar.
  die "$1" "interrupted" "Run the same command again: it resumes."
}

# The size of a file; 0 where there is none.
bytes() {
  if [ -f "$1" ]; then echo $(($(wc -c <"$1"))); else echo 0; fi
}

# 1234567 -> 1.2 MB
human() {
  awk -v n="$1" 'BEGIN {
    if (n < 1e9) printf "%.1f MB", n / 1e6; else printf "%.1f GB", n / 1e9 }'
}

# Asks for `size`, `md5` (in base64) and, unless it is known, `sha256` of address
# $1, and tries again $2 times. They are empty where the server does not state
# them.
ask_server() {
  local head linked
  size="" md5="" code=0
  head=$(curl "${options[@]}" -sSI --max-time 60 --retry "$2" \
    --retry-max-time 600 --url "$1" | tr -d '\r') || code=$?
  [ "$code" = 0 ] || return 0
  linked=$(sed -n 's/^[Xx]-[Ll]inked-[Ee][Tt]ag: *"\([0-9a-f]\{64\}\)".*/\1/p' \
    <<<"$head" | tail -n 1)  # Stated ahead of the redirection.
  sha256=${sha256:-$linked}
  head=${head##*$'\nHTTP/'}  # After redirections, the last answer counts.
  size=$(sed -n 's/^[Cc]ontent-[Ll]ength: *//p' <<<"$head")
  md5=$(sed -n 's/^[Xx]-[Gg]oog-[Hh]ash:.*md5=\([^,]*\).*/\1/p' <<<"$head")
  [[ $size =~ ^[1-9][0-9]{0,14}$ ]] || size=""
}

# Appends to `part` what it lacks of address $1. By its own --retry, curl would
# begin anew.
transfer() {
  local now best=0 failures=0 meter=-sS
  [ ! -t 2 ] || meter=-#
  until [ "$(bytes "$part")" = "$size" ]; do
    code=0
    curl "${options[@]}" "$meter" -C - -o "$part" --url "$1" &
    child=$!
    wait "$child" || code=$?
    child=""
    case $code in
      0) break ;;
      23) die_at_write "$part" ;;
      33)
        echo "The server cannot resume; starting afresh."
        rm -f "$part" && continue
        ;;
    esac
    now=$(bytes "$part")
    [ "$now" -le "$best" ] || { best=$now && failures=0; }
    failures=$((failures + 1))
    [ "$failures" -le "$retries" ] || die_at_network "$1"
    echo "Broken off at $(human "$now"); trying again."
    sleep $((failures > 5 ? 30 : 1 << (failures - 1)))
  done
}

# Whether there is anything to check the content of `target` by.
has_checksum() {
  [ -n "$md5$sha256" ] || [[ $target == *.gz ]]
}

# Prints what is wrong with the complete file $1, if anything.
find_fault() {
  local here
  here=$(bytes "$1")
  if [ "$here" != "${size:-$here}" ]; then
    echo "it has $here bytes instead of $size"
  elif [ -n "$sha256" ]; then
    "$python" -I -c '
import hashlib, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
digest = hashlib.sha256()
while block := sys.stdin.buffer.read(1 << 20): digest.update(block)
if digest.hexdigest() != sys.argv[1]:
  print("its SHA-256 checksum is not", sys.argv[1])
' "$sha256" <"$1"
  elif [ -n "$md5" ]; then
    "$python" -I -c '
import base64, hashlib, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
digest = hashlib.md5(usedforsecurity=False)
while block := sys.stdin.buffer.read(1 << 20): digest.update(block)
if base64.b64encode(digest.digest()).decode() != sys.argv[1]:
  print("its MD5 checksum is not the one that the server states")
' "$md5" <"$1"
  elif head -c 256 "$1" | LC_ALL=C grep -qiE '^ *<(!doctype|html)'; then
    echo "it is a web page"
  elif [[ $target == *.gz ]]; then
    "$python" -I -c '
import gzip, signal, sys, zlib
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
  with gzip.open(sys.stdin.buffer) as file:
    while file.read(1 << 20): pass
except (OSError, EOFError, zlib.error):
  print("it is no whole gzip file")
' <"$1"
  fi
}

# fetch ADDRESS FILE [SHA256]. A file that is there is kept, unless `force`.
fetch() {
  local url=${1// /%20} target=$2 part=$2.part sha256=${3:-}
  local path size md5 code fault
  local options=("${curl_options[@]}" --proto-redir '=http,https')
  case $url in  # Who is asked over https may not lead elsewhere over http.
    [Hh][Tt][Tt][Pp][Ss]:*) options+=(--proto-redir '=https') ;;
  esac
  for path in "$target" "$part"; do
    if [ -L "$part" ] || { [ -e "$path" ] && [ ! -f "$path" ]; }; then
      die 1 "$path is there, but is no plain file" \
        "Move it away, then run the same command again."
    fi
  done
  if [ -e "$target" ] && ! "$force"; then
    ask_server "$url" 0
    ! has_checksum || echo "Checking $target"
    fault=$(find_fault "$target")
    [ -z "$fault" ] || die 1 "$target is not the server's file: $fault" \
      "It is kept. To replace it, add --force or move it away."
    echo "$target is there already ($(human "$(bytes "$target")"))."
    return
  fi
  echo "Fetching $url"
  ask_server "$url" "$retries"
  [ "$code" = 0 ] || die_at_network "$url"
  [ -z "$size" ] || echo "It has $(human "$size")."
  # What is longer, or cannot be checked in the end, may not be of this file.
  if ! has_checksum || [ "$(bytes "$part")" -gt "${size:-0}" ]; then
    rm -f "$part"
  fi
  [ ! -s "$part" ] || echo "Resuming at $(human "$(bytes "$part")")."
  transfer "$url"
  echo "Checking $part"
  fault=$(find_fault "$part")
  [ -z "$fault" ] || {
    rm -f "$part"
    die 1 "$url was fetched, but $fault" \
      "It is removed: run the same command again to fetch it afresh. If the" \
      "error stays, the server or a proxy sends a wrong file."
  }
  mv -f "$part" "$target" || die_at_write "$target"
  echo "$target is complete."
}
