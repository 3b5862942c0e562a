# shellcheck shell=bash
# Resumable, checked downloads. download_checkpoints.sh and download_datasets.sh
# source this file; it runs on bash 3.2 (macOS) and later.
#
# Needs Python 3 and fetches with the first of curl, GNU Wget and Python. A file
# is fetched to NAME.part beside it and renamed when it is complete and checked.

# shellcheck disable=SC2034  # The scripts show it.
options_help="\
  --force      fetch anew and overwrite what is there
  --retries N  how often in a row to try again without any progress (default: 5)
  -h, --help   show this text"

address_variable=""  # The environment variable that can name a mirror.
force=false
retries=5
names=()  # Arguments that are no options.

# What add_download adds, by position.
urls=()
targets=()
checks=()
sizes=()  # Bytes that the server announces; empty: unknown.
md5s=()   # Base64, as Google Cloud Storage announces them; empty: unknown.

part=""    # The partial file that is being written.
lock=""    # The lock file that this process holds.
child=""   # The process that transfers.
scratch="" # Temporary folder.
reason=""  # What the client or the system says of the last failure.

say() { printf '%s\n' "$*"; }

# One "error:" line, then lines with details and the remedy.
complain() {
  printf 'error: %s\n' "$1" >&2
  shift
  local line
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
}

fail() {
  complain "$@"
  exit 1
}

usage_error() {
  complain "$@"
  exit 2
}

# Splits the arguments into options and `names`. The caller defines show_help.
parse_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help)
        show_help
        exit 0
        ;;
      --force) force=true ;;
      --retries=*) retries=${1#*=} ;;
      --retries)
        retries=${2:-}
        [ $# -eq 1 ] || shift
        ;;
      -*)
        usage_error "unknown option $1" \
          "Options: --force, --retries N, --help."
        ;;
      *) names+=("$1") ;;
    esac
    shift
  done
  case $retries in
    '' | *[!0-9]* | ?????*)
      usage_error "--retries '$retries': expected a number from 0 to 9999" ;;
  esac
  retries=$((10#$retries))
}

# --- Set-up and end -----------------------------------------------------------

start_downloads() {
  python=""
  local candidate
  for candidate in "${PYTHON:-}" python3 python; do
    if [ -n "$candidate" ] && "$candidate" -I -c \
      'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
  [ -n "$python" ] || fail "there is no Python 3 on the PATH" \
    "It checks the files. Install it, or name one: PYTHON=/path/to/python3 $0"
  if command -v curl >/dev/null; then
    client=curl
  else
    case $(wget --version 2>/dev/null) in
      *'GNU Wget'*) client=wget ;;
      *) client=python ;;
    esac
  fi
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/iodine_download.XXXXXX") ||
    fail "cannot make a temporary folder in ${TMPDIR:-/tmp}" \
      "Make room there or set TMPDIR to another folder."
  trap end_downloads EXIT
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM
  trap 'interrupted 129' HUP
  # Too large a file (ulimit -f) is then an error that a program can report.
  trap '' XFSZ
}

# Runs Python code $1 with the other arguments. Ctrl-C ends it silently, and the
# current folder holds no modules for it.
run_python() {
  local code=$1
  shift
  "$python" -I -c "import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
$code" "$@"
}

end_downloads() {
  [ -z "$lock" ] || rm -f "$lock"
  [ -z "$scratch" ] || rm -rf "$scratch"
}

# Ends after a signal; what was fetched so far stays.
interrupted() {
  trap '' INT TERM HUP
  if [ -n "$child" ]; then
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  if [ -n "$part" ] && [ -f "$part" ]; then
    complain "interrupted; $part holds $(human "$(bytes "$part")")" \
      "Run the same command again to resume."
  else
    complain "interrupted" "Run the same command again."
  fi
  exit "$1"
}

# Keeps a second run at the same time from writing to the same partial file.
take_lock() {
  local path=$1.lock holder
  if ! (set -C && echo $$ >"$path") 2>/dev/null; then
    holder=$(cat "$path" 2>/dev/null || true)
    case $holder in
      '' | *[!0-9]*) ;;
      *)
        ! kill -0 "$holder" 2>/dev/null || fail \
          "$1 is being fetched by another process ($holder)" \
          "Wait for it to end. If it does something else, remove $path"
        ;;
    esac
    (echo $$ >"$path") 2>"$scratch/log" || fail_to_write "$path"
  fi
  lock=$path
}

# --- Figures ------------------------------------------------------------------

# The size of a file; 0 where there is none.
bytes() {
  if [ -f "$1" ]; then
    echo $(($(wc -c <"$1")))
  else
    echo 0
  fi
}

# 1234567 -> 1.2 MB
human() {
  local unit=kB tenth=100
  if [ "$1" -lt 1000 ]; then
    echo "$1 bytes"
    return
  fi
  [ "$1" -lt 1000000 ] || { unit=MB && tenth=100000; }
  [ "$1" -lt 1000000000 ] || { unit=GB && tenth=100000000; }
  echo "$(($1 / tenth / 10)).$(($1 / tenth % 10)) $unit"
}

free_bytes() {
  run_python \
    'import shutil, sys; print(shutil.disk_usage(sys.argv[1]).free)' "$1"
}

# 7000 -> 1 h 56 min
duration() {
  if [ "$1" -ge 3600 ]; then
    echo "$(($1 / 3600)) h $(($1 % 3600 / 60)) min"
  elif [ "$1" -ge 60 ]; then
    echo "$(($1 / 60)) min"
  else
    echo "$1 s"
  fi
}

# --- The server's answer without the file -------------------------------------

head_curl() {
  curl -sSIL --connect-timeout 20 --max-time 60 --url "$1"
}

head_wget() {
  # The header lines come indented, on the standard error.
  local exit_code=0
  wget --spider -S -nv --tries=1 --timeout=20 -- "$1" 2>&1 || exit_code=$?
  wget_code "$exit_code"
}

head_python() {
  run_python '
import http.client, ssl, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], method="HEAD")
try:
  with urllib.request.urlopen(request, timeout=20) as answer:
    print("HTTP/1.1", answer.status, answer.headers, sep=" ")
except urllib.error.HTTPError as error:
  print("HTTP/1.1", error.code, error.headers, sep=" ")
except (OSError, ValueError, http.client.HTTPException) as error:
  reason = getattr(error, "reason", error)
  print(reason, file=sys.stderr)
  sys.exit(60 if isinstance(reason, ssl.SSLError) else 7)
' "$1"
}

# Asks for status, size and MD5 of a file; empty where the server tells nothing.
# No answer at all: `reason` and `fetch_code` (as of fetch) say why.
ask_server() {
  fetch_code=0 status="" size="" md5="" reason=""
  "head_$client" "$1" >"$scratch/head" 2>"$scratch/log" || fetch_code=$?
  # With redirections, the last answer counts.
  awk '
    { sub(/\r$/, ""); sub(/^ +/, "") }
    /^HTTP\/[0-9.]+ +[0-9]/ { status = $2; size = md5 = "" }
    tolower($1) == "content-length:" { size = $2 }
    tolower($1) == "x-goog-hash:" && match($0, /md5=[A-Za-z0-9+\/=]+/) {
      md5 = substr($0, RSTART + 4, RLENGTH - 4)
    }
    END { print status; print size; print md5 }
  ' "$scratch/head" >"$scratch/answer"
  { read -r status && read -r size && read -r md5; } <"$scratch/answer" || true
  if [ "$status" != 200 ]; then
    size="" md5=""
  fi
  case $size in
    *[!0-9]* | ???????????????????*) size="" ;;
  esac
  if [ -z "$status" ]; then
    [ "$client" != wget ] || cat "$scratch/head" >>"$scratch/log"
    reason=$(last_message)
    reason=${reason:-"$client ended with status $fetch_code"}
  fi
}

# The last thing that the client complained about.
last_message() {
  awk '
    { sub(/\r$/, "") }
    /^ / || /^$/ || /^http/ { next }
    { sub(/^curl: \([0-9]+\) /, ""); sub(/^(wget|mkdir|mv): /, "") }
    { sub(/^.*: line [0-9]+: /, ""); message = $0 }
    END { print message }
  ' "$scratch/log"
}

# --- The transfer -------------------------------------------------------------

# Its exit statuses are those of curl.
fetch_with_python='
import http.client, os, re, ssl, sys, urllib.error, urllib.request

def stop(code, message):
  print(message, file=sys.stderr)
  sys.exit(code)

url, path = sys.argv[1:]
start = os.path.getsize(path)
request = urllib.request.Request(url)
if start:
  request.add_header("Range", "bytes=%d-" % start)
try:
  answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
  print(error.code)
  stop(22, "The server answers %d %s" % (error.code, error.reason))
except (OSError, ValueError, http.client.HTTPException) as error:
  reason = getattr(error, "reason", error)
  stop(60 if isinstance(reason, ssl.SSLError) else 7, reason)
print(answer.status)
if start and answer.status != 206:
  stop(33, "The server cannot resume")
if start:
  came = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
  if not came or int(came.group(1)) != start:
    stop(33, "The server resumes elsewhere")
length = answer.headers.get("Content-Length", "")
left = int(length) if length.isdigit() else None
try:
  with open(path, "ab") as part:
    while True:
      try:
        block = answer.read(1 << 16)
      except (OSError, http.client.HTTPException) as error:
        stop(18, error)
      if not block:
        break
      part.write(block)
      part.flush()
      if left is not None:
        left -= len(block)
except OSError as error:
  stop(23, error)
if left:
  stop(18, "The transfer ended with %d bytes left" % left)
'

# Appends to $part what it lacks of address $1, of size $2. Sets `status`
# (HTTP's), `reason` and `fetch_code` (0: done, 23: cannot write, 33: the server
# cannot resume, 60: bad certificate, else: the network or `status`). The client
# runs in the background, as signals would otherwise wait for its end.
fetch() {
  local url=$1 total=$2
  local command=()
  case $client in
    curl)
      command=(curl -sSfL -C - --connect-timeout 20 --speed-limit 1
        --speed-time 60 -w '%{http_code}\n' -o "$part" --url "$url")
      ;;
    wget)
      command=(wget -c -S -nv --tries=1 --timeout=60 -O "$part" -- "$url")
      ;;
    python) command=("$python" -I -c "$fetch_with_python" "$url" "$part") ;;
  esac
  fetch_code=0
  "${command[@]}" >"$scratch/status" 2>"$scratch/log" &
  child=$!
  if [ -t 2 ]; then
    show_progress "$total"
  fi
  wait "$child" || fetch_code=$?
  child=""
  if [ "$client" = wget ]; then
    awk '/^ +HTTP\// { print $2 }' "$scratch/log" >"$scratch/status"
    wget_code "$fetch_code" || fetch_code=$?
  fi
  status=$(tail -n 1 "$scratch/status")
  reason=$(last_message)
}

# Returns what curl would where wget exits with status $1.
wget_code() {
  case $1 in
    3) return 23 ;;
    5) return 60 ;;
  esac
  return "$1"
}

# Draws a bar until the transfer ends. An empty total: unknown.
show_progress() {
  local total=$1 before begun=$SECONDS now seconds rate text percent bar
  before=$(bytes "$part")
  while kill -0 "$child" 2>/dev/null; do
    now=$(bytes "$part")
    seconds=$((SECONDS - begun))
    rate=$(((now - before) / (seconds > 0 ? seconds : 1)))
    text="$(human "$now")  $(human "$rate")/s"
    if [ -n "$total" ] && [ "$total" -gt 0 ]; then
      percent=$((now >= total ? 100 : now * 100 / total))
      printf -v bar '%*s' $((percent / 4)) ''
      printf -v bar '[%-25s] %3d %%' "${bar// /#}" "$percent"
      text="$bar  $(human "$now") of $(human "$total")  $(human "$rate")/s"
      if [ "$rate" -gt 0 ] && [ "$now" -lt "$total" ]; then
        text="$text  $(duration $(((total - now) / rate))) left"
      fi
    fi
    # Clears what is left of a longer line.
    printf '\r%s\033[K' "$text" >&2
    sleep 0.5
  done
  printf '\r\033[K' >&2
}

# Fetches address $1, of size $2, to $part until it is complete.
transfer() {
  local url=$1 total=$2 can_resume=true best now failures=0 pause
  best=$(bytes "$part")
  while true; do
    "$can_resume" || : >"$part"
    fetch "$url" "$total"
    now=$(bytes "$part")
    if [ "$status" = 416 ] || [ "$fetch_code" = 33 ]; then
      if "$can_resume"; then
        say "The server cannot resume; starting afresh."
        can_resume=false best=0
        continue
      fi
    elif [ "$fetch_code" = 0 ]; then
      [ "$now" -lt "${total:-0}" ] || return 0
      reason="the server ended the transfer early"
    fi
    fail_for_good "$url" "$total"
    if [ "$now" -gt "$best" ]; then
      best=$now failures=0
    fi
    failures=$((failures + 1))
    [ "$failures" -le "$retries" ] || fail_at_network "$url" "$now" "$total"
    pause=$((failures > 5 ? 30 : 1 << (failures - 1)))
    say "Broken off at $(human "$now") ($reason); trying again in $pause s."
    sleep "$pause" &
    child=$!
    wait "$child"
    child=""
  done
}

# Fails where trying again cannot help.
fail_for_good() {
  case $fetch_code in
    23) fail_to_write "$part" ;;
    51 | 60 | 77) fail_at_certificate "$1" ;;
  esac
  case $status in
    408 | 416 | 429) ;;
    4??)
      [ -s "$part" ] || rm -f "$part"
      fail_at_status "$1"
      ;;
  esac
}

fail_at_status() {
  fail "$1: the server answers with HTTP status $status" \
    "The file may have moved: $address_variable can name another place" \
    "(see --help)."
}

fail_at_certificate() {
  fail "$1: the server's certificate cannot be verified: $reason" \
    "Install the system's CA certificates, and see whether a proxy is between" \
    "this machine and the server."
}

# There is no connection, or none that lasts.
fail_at_network() {
  local url=$1 now=$2 total=$3 progress
  if [ "$now" = 0 ]; then
    rm -f "$part"
    fail "cannot fetch $url: $reason" \
      "Check the network (and http_proxy, https_proxy), then run the same" \
      "command again."
  fi
  progress=$(human "$now")
  [ -z "$total" ] || progress="$progress of $(human "$total")"
  fail "$url broke off at $progress: $reason" \
    "Run the same command again: it resumes from $part"
}

# The reason is in $reason or in $scratch/log.
fail_to_write() {
  local path=$1 free
  free=$(free_bytes "$(dirname "$path")" 2>/dev/null || true)
  [ -z "$free" ] || free=" Free: $(human "$free")."
  fail "cannot write $path: ${reason:-"$(last_message)"}" \
    "The disk may be full or read-only, the file larger than allowed, or the" \
    "folder someone else's.$free Then run the same command again: it resumes."
}

# --- Checks of files ----------------------------------------------------------
# Each prints what is wrong with file $1 and returns 1, or prints nothing.

check_zip() {
  run_python '
import sys, zipfile
try:
  with zipfile.ZipFile(sys.argv[1]) as archive:
    broken = archive.testzip()
except Exception as error:  # Damaged archives raise many kinds.
  with open(sys.argv[1], "rb") as file:
    page = file.read(512).lstrip().startswith(b"<")
  print("it is a web page" if page else
        "it is no sound zip archive (%s)" % error)
  sys.exit(1)
if broken:
  print("its member %r is damaged" % broken)
  sys.exit(1)
' "$1"
}

# A TFRecord file, compressed or not, starts with the length of a record and the
# masked CRC-32C of that length.
check_tfrecord() {
  run_python '
import sys, zlib

def starts_with_record(data):
  crc = 0xFFFFFFFF
  for byte in data[:8]:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
  crc ^= 0xFFFFFFFF
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  return len(data) == 12 and int.from_bytes(data[8:], "little") == masked

with open(sys.argv[1], "rb") as file:
  head = file.read(1 << 16)
if starts_with_record(head[:12]):
  sys.exit()
try:
  # 32: zlib finds out whether it is gzip or zlib.
  if starts_with_record(zlib.decompressobj(32 + 15).decompress(head, 12)):
    sys.exit()
except zlib.error:
  pass
page = head.lstrip().startswith(b"<")
print("it is a web page" if page else
      "it does not start with a TFRecord (but with %r)" % head[:12])
sys.exit(1)
' "$1"
}

check_md5() {
  run_python '
import base64, hashlib, sys
try:
  digest = hashlib.new("md5", usedforsecurity=False)
except TypeError:  # Python 3.8 and older.
  digest = hashlib.new("md5")
with open(sys.argv[1], "rb") as file:
  for block in iter(lambda: file.read(1 << 20), b""):
    digest.update(block)
if base64.b64encode(digest.digest()).decode() != sys.argv[2]:
  print("its MD5 checksum is not the one that the server announces")
  sys.exit(1)
' "$1" "$2"
}

# --- Downloads ----------------------------------------------------------------

# add_download ADDRESS FILE CHECK, CHECK being check_zip or check_tfrecord. All
# files of one run go to one folder.
add_download() {
  urls+=("$1")
  targets+=("$2")
  checks+=("$3")
}

# Fetches what was added and is not there yet. Returns 1 where a file is there
# that is not the server's.
download_all() {
  local folder i=0 result=0
  local missing=()
  folder=$(dirname "${targets[0]}")
  while [ "$i" -lt "${#urls[@]}" ]; do
    ask_server "${urls[i]}"
    sizes[i]=$size
    md5s[i]=$md5
    if "$force" || [ ! -e "${targets[i]}" ]; then
      check_answer "${urls[i]}"
      missing+=("$i")
    else
      check_present "$i" || result=1
    fi
    i=$((i + 1))
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    reason=""
    mkdir -p "$folder" 2>"$scratch/log" || fail_to_write "$folder"
    check_room "$folder" "${missing[@]}"
    for i in "${missing[@]}"; do download "$i"; done
  fi
  return "$result"
}

# Fails where the answer already tells that fetching is in vain.
check_answer() {
  case $fetch_code in
    51 | 60 | 77) fail_at_certificate "$1" ;;
  esac
  [ -n "$status" ] || fail_at_network "$1" 0 ""
  case $status in
    404 | 410) fail_at_status "$1" ;;
  esac
}

# A file that is there is kept, whatever it is.
check_present() {
  local target=${targets[$1]} check=${checks[$1]} here fault=""
  [ -f "$target" ] || fail "$target is there, but is no file" \
    "Move it away, then run the same command again."
  here=$(bytes "$target")
  if [ -n "$size" ] && [ "$size" != "$here" ]; then
    fault="it has $here bytes, the server's file $size"
  else
    fault=$("$check" "$target") || fault=${fault:-"it cannot be read"}
  fi
  if [ -n "$fault" ]; then
    complain "$target is there already, but $fault" \
      "It is kept. To replace it, add --force or move it away."
    return 1
  fi
  say "$target is there already ($(human "$here"))."
  if [ -n "$reason" ]; then
    say "  Not compared with the server's: $reason"
  fi
}

# Shows sizes and free space; fails where the disk has too little room.
check_room() {
  local folder=$1 i left needed=0 free unknown=false
  shift
  say "To fetch with $client:"
  for i in "$@"; do
    if [ -z "${sizes[i]}" ]; then
      unknown=true
      say "  ${urls[i]}, size unknown"
      continue
    fi
    say "  ${urls[i]}, $(human "${sizes[i]}")"
    left=$((sizes[i] - $(bytes "${targets[i]}.part")))
    # A longer partial file is discarded.
    [ "$left" -ge 0 ] || left=${sizes[i]}
    needed=$((needed + left))
  done
  free=$(free_bytes "$folder") || fail_to_write "$folder"
  "$unknown" && left="at least $(human "$needed")" || left=$(human "$needed")
  say "Disk space in $folder: $(human "$free") free, $left needed"
  [ "$needed" -le "$free" ] ||
    fail "the disk of $folder has $(human "$free") free, too little for $left" \
      "Make room there, or name a folder on another disk (see --help)."
}

# Fetches, checks and renames one file.
download() {
  local i=$1 url target size fault resumed=false
  url=${urls[i]} target=${targets[i]} size=${sizes[i]}
  part=$target.part reason=""
  (: >>"$part") 2>"$scratch/log" || fail_to_write "$part"
  take_lock "$part"
  if [ -n "$size" ] && [ "$(bytes "$part")" -gt "$size" ]; then
    say "$part is longer than the file and thus not of it; starting afresh."
    : >"$part"
  fi
  if [ -s "$part" ]; then
    resumed=true
    say "Resuming $part at $(human "$(bytes "$part")")"
  fi
  while true; do
    if [ -z "$size" ] || [ "$(bytes "$part")" -lt "$size" ]; then
      transfer "$url" "$size"
    fi
    [ -z "${md5s[i]}" ] || say "Checking $part against the server's checksum"
    fault=$(check_part "$i") && break
    rm -f "$part"
    "$resumed" || fail "$url was fetched, but ${fault:-"cannot be read"}" \
      "It is removed. Run the same command again; if the fault stays, the" \
      "server (or a proxy before it) sends a wrong file."
    say "What was resumed is damaged ($fault); starting afresh."
    resumed=false
    (: >>"$part") 2>"$scratch/log" || fail_to_write "$part"
  done
  mv -f "$part" "$target" 2>"$scratch/log" || fail_to_write "$target"
  rm -f "$lock"
  lock="" part=""
  say "$target is complete ($(human "$(bytes "$target")"))."
}

# Prints what is wrong with the complete partial file, and returns 1 then.
check_part() {
  local size=${sizes[$1]} md5=${md5s[$1]} here
  here=$(bytes "$part")
  if [ -n "$size" ] && [ "$here" != "$size" ]; then
    echo "it has $here bytes instead of $size"
    return 1
  fi
  "${checks[$1]}" "$part" || return 1
  [ -z "$md5" ] || check_md5 "$part" "$md5"
}
