"""The download scripts, against a server on this machine that misbehaves."""

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import os
import pathlib
import pty
import random
import re
import resource
import shutil
import signal
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator

import pytest

from tests.support.places import REPOSITORY

_PLACES = {
  "tetrominoes": "/tetrominoes/tetrominoes_train.tfrecords",
  "multi_dsprites": (
    "/multi_dsprites/multi_dsprites_colored_on_grayscale.tfrecords"
  ),
  "clevr6": "/clevr_with_masks/clevr_with_masks_train.tfrecords",
  "objects_room": "/objects_room/objects_room_train.tfrecords",
}
_TETROMINOES = _PLACES["tetrominoes"]
_TETROMINOES_FILE = "tetrominoes_train.tfrecords"
_CHECKPOINTS = "/iodine_checkpoints.zip"
_CLIENTS = ("curl", "wget", "python")
# What the scripts need, less the clients.
_TOOLS = (
  *("awk", "bash", "cat", "dirname", "env", "grep", "mkdir", "mktemp", "mv"),
  *("rm", "tail", "wc"),
)
# Seconds after which a script is taken to hang.
_TIMEOUT = 30

pytestmark = pytest.mark.skipif(
  shutil.which("bash") is None, reason="needs bash"
)


# --- Files to serve -----------------------------------------------------------


def _tfrecord(seed: int = 0, size: int = 300_007) -> bytes:
  """A gzip file of one record, of about `size` bytes that gzip cannot pack."""
  payload = random.Random(seed).randbytes(size)
  length = struct.pack("<Q", len(payload))
  crc = 0xFFFFFFFF
  for byte in length:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
  crc ^= 0xFFFFFFFF
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  record = length + struct.pack("<I", masked) + payload + bytes(4)
  return gzip.compress(record, mtime=0)


def _zip(members: dict[str, bytes]) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return buffer.getvalue()


def _members(leading: str = "checkpoints/") -> dict[str, bytes]:
  """The files of an archive of checkpoints, all of them different."""
  return {
    f"{leading}{model}/{file}": f"{model} {file}".encode() * 50
    for model in ("clevr6", "multi_dsprites", "tetrominoes")
    for file in ("checkpoint", "model.ckpt.data-00000-of-00001")
  }


# --- The server ---------------------------------------------------------------


class _Server(http.server.ThreadingHTTPServer):
  """Serves `files`; the other attributes make it misbehave."""

  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.files: dict[str, bytes] = {}
    self.requests: list[tuple[str, str, str | None]] = []
    self.ranges = True  # Whether it can resume.
    self.head_status = 200
    self.head_length: int | None = None  # What HEAD announces; None: the truth.
    self.has_md5 = False
    # One entry a GET, while there are any: the status to answer with, and the
    # number of bytes after which to break off.
    self.get_statuses: list[int] = []
    self.breaks: list[int] = []
    # Bytes after which a GET waits until the client is gone or `go_on` is set.
    self.stall_after: int | None = None
    self.go_on = threading.Event()

  @property
  def address(self) -> str:
    return f"http://127.0.0.1:{self.server_port}"

  def gets(self) -> list[str | None]:
    """The ranges that were asked for; None: the whole file."""
    return [asked for method, _, asked in self.requests if method == "GET"]

  def handle_error(self, request, client_address):
    pass  # The client left: some tests want that.


class _Handler(http.server.BaseHTTPRequestHandler):
  server: _Server

  def log_message(self, format, *args):
    pass

  def _answer(self, status: int, body: bytes, length: int | None = None):
    self.send_response(status)
    self.send_header(
      "Content-Length", str(len(body) if length is None else length)
    )
    if self.server.has_md5:
      md5 = hashlib.md5(self.server.files[self.path]).digest()
      self.send_header("x-goog-hash", "crc32c=AAAAAA==")
      self.send_header("x-goog-hash", f"md5={base64.b64encode(md5).decode()}")

  def do_HEAD(self):
    server = self.server
    server.requests.append(("HEAD", self.path, None))
    body = server.files.get(self.path)
    if body is None or server.head_status != 200:
      self.send_error(404 if body is None else server.head_status)
      return
    self._answer(200, body, server.head_length)
    self.end_headers()

  def do_GET(self):
    server = self.server
    asked = self.headers.get("Range")
    server.requests.append(("GET", self.path, asked))
    body = server.files.get(self.path)
    status = server.get_statuses.pop(0) if server.get_statuses else 200
    if body is None or status != 200:
      self.send_error(404 if body is None else status)
      return
    start = 0
    if asked and server.ranges:
      start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
      if start >= len(body):
        self.send_error(416)
        return
    self._answer(206 if start else 200, body[start:])
    if start:
      self.send_header(
        "Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}"
      )
    self.end_headers()
    if server.breaks:
      self.wfile.write(body[start : start + server.breaks.pop(0)])
    elif server.stall_after is not None:
      self.wfile.write(body[start : start + server.stall_after])
      self.wfile.flush()
      server.go_on.wait(timeout=_TIMEOUT)
      self.wfile.write(body[start + server.stall_after :])
    else:
      self.wfile.write(body[start:])


@pytest.fixture
def server() -> Iterator[_Server]:
  server = _Server()
  server.files[_TETROMINOES] = _tfrecord()
  server.files[_CHECKPOINTS] = _zip(_members())
  thread = threading.Thread(
    target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
  )
  thread.start()
  yield server
  server.go_on.set()
  server.shutdown()
  server.server_close()


# --- Running the scripts ------------------------------------------------------


class _Scripts:
  """Runs the scripts in a folder, with one client on the PATH."""

  def __init__(self, folder: pathlib.Path, server: _Server, client: str):
    self.folder = folder / "run"
    self.folder.mkdir()
    self.bin = folder / "bin"
    self.bin.mkdir()
    self.temporary = folder / "tmp"
    self.temporary.mkdir()
    for tool in _TOOLS if client == "python" else (*_TOOLS, client):
      path = shutil.which(tool)
      if path is None:
        pytest.skip(f"needs {tool}")
      (self.bin / tool).symlink_to(path)
    self.add_tool("python3", f'exec "{sys.executable}" "$@"')
    self.add_tool("sleep", 'echo "$1" >>"$HOME/pauses"')
    self.environment = {
      "PATH": str(self.bin),
      "HOME": str(folder),  # No settings of the clients.
      "TMPDIR": str(self.temporary),
      "IODINE_CHECKPOINTS_URL": server.address,
      "IODINE_DATASETS_URL": server.address,
    }

  def add_tool(self, name: str, command: str):
    path = self.bin / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)

  def start(self, script: str, *arguments: str, **options) -> subprocess.Popen:
    defaults = dict(
      cwd=self.folder,
      env=self.environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    return subprocess.Popen(
      [str(REPOSITORY / script), *arguments], **{**defaults, **options}
    )

  def run(self, script: str, *arguments: str, code: int = 0, **options) -> str:
    """Runs a script to its end, checks the exit status, returns its output."""
    process = self.start(script, *arguments, **options)
    try:
      output, errors = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      output, errors = process.communicate()
      pytest.fail(f"{script} hangs:\n{output}{errors}")
    assert process.returncode == code, output + errors
    assert "Traceback" not in errors and "line " not in errors, errors
    assert (code == 0) == (not errors), errors
    assert not list(self.temporary.iterdir())
    assert not list(self.folder.rglob("*.lock"))
    return output + errors

  def pauses(self) -> list[str]:
    """The seconds between attempts; the tests do not spend them."""
    path = pathlib.Path(self.environment["HOME"], "pauses")
    return path.read_text().split() if path.exists() else []

  def datasets(self, *arguments: str, **options) -> str:
    return self.run("download_datasets.sh", *arguments, **options)

  def checkpoints(self, *arguments: str, **options) -> str:
    return self.run("download_checkpoints.sh", *arguments, **options)

  @property
  def target(self) -> pathlib.Path:
    return self.folder / "data" / _TETROMINOES_FILE

  @property
  def part(self) -> pathlib.Path:
    return self.folder / "data" / f"{_TETROMINOES_FILE}.part"

  def write_part(self, content: bytes):
    self.part.parent.mkdir(exist_ok=True)
    self.part.write_bytes(content)


@pytest.fixture(params=_CLIENTS)
def scripts(
  request: pytest.FixtureRequest, tmp_path: pathlib.Path, server: _Server
) -> _Scripts:
  """The scripts with each of the clients."""
  return _Scripts(tmp_path, server, request.param)


@pytest.fixture
def any_scripts(tmp_path: pathlib.Path, server: _Server) -> _Scripts:
  """The scripts with one client, for what all clients have in common."""
  return _Scripts(
    tmp_path, server, "curl" if shutil.which("curl") else "python"
  )


# --- Transfers ----------------------------------------------------------------


class TestTransfer:
  def test_fetches_once_and_tells_the_size_beforehand(
    self, scripts: _Scripts, server: _Server
  ):
    output = scripts.datasets("tetrominoes")
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]
    assert f"{server.address}{_TETROMINOES}, 300.1 kB" in output
    assert re.search(
      r"Disk space in data: [\d.]+ .B free, 300.1 kB nee", output
    )
    assert os.listdir(scripts.target.parent) == [_TETROMINOES_FILE]

    modified = scripts.target.stat().st_mtime_ns
    output = scripts.datasets("tetrominoes")
    assert "is there already (300.1 kB)" in output
    assert server.gets() == [None]
    assert scripts.target.stat().st_mtime_ns == modified

  def test_resumes_what_breaks_off(self, scripts: _Scripts, server: _Server):
    server.breaks = [100_003, 77_777]
    # What made progress does not count as a failure in a row.
    output = scripts.datasets("tetrominoes", "--retries", "1")
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]
    assert server.gets() == [None, "bytes=100003-", "bytes=177780-"]
    assert scripts.pauses() == ["1", "1"]
    assert "Broken off at 100.0 kB" in output

  def test_gives_up_and_resumes_in_the_next_run(
    self, scripts: _Scripts, server: _Server
  ):
    server.breaks = [100_003, 0]
    output = scripts.datasets("tetrominoes", "--retries", "1", code=1)
    assert scripts.pauses() == ["1"]
    assert "broke off at 100.0 kB of 300.1 kB" in output
    assert "Run the same command again: it resumes from data/tetr" in output
    assert not scripts.target.exists()
    content = server.files[_TETROMINOES]
    assert scripts.part.read_bytes() == content[:100_003]

    output = scripts.datasets("tetrominoes")
    assert "Resuming data/tetrominoes_train.tfrecords.part at 100.0" in output
    assert scripts.target.read_bytes() == content
    assert server.gets()[2:] == ["bytes=100003-"]

  def test_starts_afresh_where_the_server_cannot_resume(
    self, scripts: _Scripts, server: _Server
  ):
    server.ranges = False
    server.breaks = [100_003]
    scripts.datasets("tetrominoes")
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]

  def test_ends_where_the_server_neither_resumes_nor_completes(
    self, scripts: _Scripts, server: _Server
  ):
    server.ranges = False
    server.breaks = [100_003] * 20
    output = scripts.datasets("tetrominoes", "--retries", "1", code=1)
    assert "broke off at 100.0 kB of 300.1 kB" in output
    assert not scripts.target.exists()

  def test_discards_a_longer_partial_file(
    self, scripts: _Scripts, server: _Server
  ):
    scripts.write_part(bytes(300_500))
    output = scripts.datasets("tetrominoes")
    assert "is longer than the file" in output
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]

  @pytest.mark.parametrize("length", [300_500, 77])
  def test_works_where_the_size_is_unknown(
    self, scripts: _Scripts, server: _Server, length: int
  ):
    server.head_status = 405
    server.breaks = [100_003]
    scripts.write_part(server.files[_TETROMINOES].ljust(length)[:length])
    output = scripts.datasets("tetrominoes")
    assert "size unknown" in output and "at least 0 bytes needed" in output
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]

  def test_takes_a_complete_partial_file(
    self, scripts: _Scripts, server: _Server
  ):
    scripts.write_part(server.files[_TETROMINOES])
    scripts.datasets("tetrominoes")
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]
    assert not server.gets()

  def test_follows_redirections(self, scripts: _Scripts, server: _Server):
    class Redirect(_Handler):
      def do_GET(self):
        self.send_response(302)
        self.send_header("Location", server.address + self.path)
        self.send_header("Content-Length", "0")
        self.send_header("x-goog-hash", "md5=AAAAAAAAAAAAAAAAAAAAAA==")
        self.end_headers()

      do_HEAD = do_GET  # noqa: N815

    first = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirect)
    threading.Thread(target=first.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{first.server_port}"
    scripts.environment["IODINE_DATASETS_URL"] = address
    try:
      output = scripts.datasets("tetrominoes")
    finally:
      first.shutdown()
      first.server_close()
    assert "300.1 kB" in output
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]


class TestNetworkFailure:
  def test_missing_on_the_server(self, scripts: _Scripts, server: _Server):
    del server.files[_TETROMINOES]
    output = scripts.datasets("tetrominoes", code=1)
    assert f"{_TETROMINOES}: the server answers with HTTP status 404" in output
    assert "IODINE_DATASETS_URL can name another place" in output
    assert not scripts.folder.joinpath("data").exists()

  def test_missing_where_only_get_tells(
    self, scripts: _Scripts, server: _Server
  ):
    server.head_status = 405
    server.get_statuses = [404]
    output = scripts.datasets("tetrominoes", code=1)
    assert "the server answers with HTTP status 404" in output
    assert not scripts.part.exists()

  def test_server_error_for_a_while(self, scripts: _Scripts, server: _Server):
    server.get_statuses = [500]
    output = scripts.datasets("tetrominoes")
    assert "500" in output and "trying again in 1 s" in output
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]

  def test_pauses_grow(self, any_scripts: _Scripts, server: _Server):
    server.get_statuses = [500] * 9
    any_scripts.datasets("tetrominoes", "--retries", "7", code=1)
    assert any_scripts.pauses() == ["1", "2", "4", "8", "16", "30", "30"]

  def test_server_error_for_good(self, scripts: _Scripts, server: _Server):
    server.head_status = 503
    server.get_statuses = [503] * 9
    output = scripts.datasets("tetrominoes", "--retries=0", code=1)
    assert "cannot fetch http://127" in output and "503" in output
    assert "Check the network" in output
    assert not scripts.part.exists()

  def test_refused_connection(self, scripts: _Scripts, server: _Server):
    server.shutdown()
    server.server_close()
    output = scripts.datasets("tetrominoes", code=1)
    assert "cannot fetch http://127.0.0.1" in output
    assert re.search("refused|connect", output), output
    assert "Check the network" in output

  def test_certificate_that_nobody_signed(
    self, scripts: _Scripts, server: _Server, tmp_path: pathlib.Path
  ):
    if shutil.which("openssl") is None:
      pytest.skip("needs openssl")
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
      ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
      + ["-subj", "/CN=127.0.0.1", "-keyout", certificate]
      + ["-out", tmp_path / "public.pem"],
      capture_output=True,
      check=True,
    )
    with certificate.open("a") as file:
      file.write((tmp_path / "public.pem").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    address = server.address.replace("http:", "https:")
    scripts.environment["IODINE_DATASETS_URL"] = address
    output = scripts.datasets("tetrominoes", code=1)
    assert "certificate cannot be verified: " in output
    assert "Install the system's CA certificates" in output

  def test_present_files_need_no_network(
    self, any_scripts: _Scripts, server: _Server
  ):
    any_scripts.write_part(server.files[_TETROMINOES])
    any_scripts.part.rename(any_scripts.target)
    server.shutdown()
    server.server_close()
    output = any_scripts.datasets("tetrominoes")
    assert "is there already" in output and "Not compared" in output


class TestCheck:
  def test_announcement_too_long(self, scripts: _Scripts, server: _Server):
    server.head_length = 300_500
    output = scripts.datasets("tetrominoes", "--retries", "1", code=1)
    assert "of 300.5 kB" in output
    assert not scripts.target.exists()

  def test_announcement_too_short(self, scripts: _Scripts, server: _Server):
    server.head_length = 250_000
    output = scripts.datasets("tetrominoes", code=1)
    assert f"has {len(server.files[_TETROMINOES])} bytes instead of" in output
    assert not scripts.part.exists() and not scripts.target.exists()

  @pytest.mark.parametrize(
    "content, fault",
    [
      (b"<!DOCTYPE html><html>Log in</html>", "it is a web page"),
      (b"no records", "it does not start with a TFRecord"),
      (
        gzip.compress(b"no records, but gzip", mtime=0),
        "not start with a TFRecord",
      ),
      (b"", "it does not start with a TFRecord"),
    ],
  )
  def test_what_is_no_tfrecord(
    self, any_scripts: _Scripts, server: _Server, content: bytes, fault: str
  ):
    server.files[_TETROMINOES] = content
    output = any_scripts.datasets("tetrominoes", code=1)
    assert fault in output and "It is removed" in output
    assert not any_scripts.part.exists() and not any_scripts.target.exists()

  def test_accepts_uncompressed_records(
    self, any_scripts: _Scripts, server: _Server
  ):
    server.files[_TETROMINOES] = gzip.decompress(server.files[_TETROMINOES])
    any_scripts.datasets("tetrominoes")
    assert any_scripts.target.read_bytes() == server.files[_TETROMINOES]

  def test_accepts_real_records(
    self, any_scripts: _Scripts, server: _Server, mini_tfrecords: pathlib.Path
  ):
    server.files[_TETROMINOES] = mini_tfrecords.read_bytes()
    any_scripts.datasets("tetrominoes")
    assert any_scripts.target.read_bytes() == mini_tfrecords.read_bytes()

  def test_fetches_a_damaged_partial_file_anew(
    self, scripts: _Scripts, server: _Server
  ):
    server.has_md5 = True
    content = server.files[_TETROMINOES]
    scripts.write_part(content[:100] + bytes(5000))
    output = scripts.datasets("tetrominoes")
    assert "damaged (its MD5 checksum" in output
    assert scripts.target.read_bytes() == content

  def test_damage_on_the_way(self, any_scripts: _Scripts, server: _Server):
    archive = bytearray(server.files[_CHECKPOINTS])
    archive[80] ^= 0xFF  # In the data of the first member.
    server.files[_CHECKPOINTS] = bytes(archive)
    output = any_scripts.checkpoints(code=1)
    assert "iodine_checkpoints.zip was fetched, but it" in output
    assert not list(any_scripts.folder.rglob("*.*"))

  def test_archive_that_is_a_web_page(
    self, any_scripts: _Scripts, server: _Server
  ):
    server.files[_CHECKPOINTS] = b"\n<html>Log in</html>"
    assert "it is a web page" in any_scripts.checkpoints(code=1)


# --- The disk -----------------------------------------------------------------


@contextlib.contextmanager
def _mounted(folder: pathlib.Path, options: str) -> Iterator[None]:
  """A file system in memory, for tests that run as root."""
  folder.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
  if (
    not sys.platform.startswith("linux")
    or not shutil.which("mount")
    or subprocess.run(command, capture_output=True, check=False).returncode
  ):
    pytest.skip("cannot mount a file system")
  try:
    yield
  finally:
    subprocess.run(["umount", str(folder)], check=True)


class TestDisk:
  def test_too_little_room(self, scripts: _Scripts, server: _Server):
    server.head_length = 2 * 10**15
    output = scripts.datasets("tetrominoes", code=1)
    assert "too little for 2000000.0 GB" in output and "Make room" in output
    assert not server.gets()

  def test_several_files_need_room_together(
    self, any_scripts: _Scripts, server: _Server
  ):
    free = shutil.disk_usage(any_scripts.folder).free
    server.files[_PLACES["clevr6"]] = _tfrecord()
    server.head_length = int(0.7 * free)
    output = any_scripts.datasets("tetrominoes", "clevr6", code=1)
    assert "too little for" in output
    assert not server.gets()

  def test_fills_up(self, scripts: _Scripts, server: _Server):
    with _mounted(scripts.folder / "data", "size=128k"):
      server.head_status = 405  # So that it begins at all.
      output = scripts.datasets("tetrominoes", code=1)
      assert f"cannot write data/{_TETROMINOES_FILE}.part" in output
      assert "The disk may be full" in output and "it resumes" in output
      assert 0 < scripts.part.stat().st_size <= 128 * 1024

  def test_is_read_only(self, any_scripts: _Scripts):
    with _mounted(any_scripts.folder / "data", "ro"):
      output = any_scripts.datasets("tetrominoes", code=1)
    assert f"cannot write data/{_TETROMINOES_FILE}.part: " in output
    assert "Read-only file system" in output

  @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
  def test_folder_is_someone_elses(self, any_scripts: _Scripts):
    folder = any_scripts.folder / "data"
    folder.mkdir(mode=0o555)
    output = any_scripts.datasets("tetrominoes", code=1)
    assert "cannot write data/" in output and "Permission denied" in output

  def test_folder_is_a_file(self, any_scripts: _Scripts):
    any_scripts.folder.joinpath("data").write_text("x")
    output = any_scripts.datasets("tetrominoes", code=1)
    assert "cannot write data: " in output and "exists" in output

  def test_file_reaches_the_limit_of_sizes(
    self, scripts: _Scripts, server: _Server
  ):
    limit = 131_072
    output = scripts.datasets(
      "tetrominoes",
      code=1,
      preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (limit, limit)
      ),
    )
    assert f"cannot write data/{_TETROMINOES_FILE}.part" in output
    assert "the file larger than allowed" in output
    assert 0 < scripts.part.stat().st_size <= limit

    scripts.datasets("tetrominoes")
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]
    assert server.gets()[-1].startswith("bytes=")


# --- Signals, other runs, the terminal ----------------------------------------


def _wait_for_bytes(path: pathlib.Path, process: subprocess.Popen):
  deadline = time.monotonic() + _TIMEOUT
  while not path.exists() or not path.stat().st_size:
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline, f"{path} does not grow"
    time.sleep(0.02)


class TestInterruption:
  @pytest.mark.parametrize(
    "number, to_group, code",
    [
      (signal.SIGINT, True, 130),  # As Ctrl-C does.
      (signal.SIGTERM, False, 143),
    ],
  )
  def test_keeps_the_partial_file(
    self,
    scripts: _Scripts,
    server: _Server,
    number: signal.Signals,
    to_group: bool,
    code: int,
  ):
    server.stall_after = 100_000
    process = scripts.start("download_datasets.sh", "tetrominoes")
    _wait_for_bytes(scripts.part, process)
    (os.killpg if to_group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=_TIMEOUT)
    assert process.returncode == code, errors
    assert errors.startswith(f"error: interrupted; data/{_TETROMINOES_FILE}")
    assert "Run the same command again to resume." in errors
    assert len(errors.splitlines()) == 2, errors
    # No client is left.
    with pytest.raises(ProcessLookupError):
      os.killpg(process.pid, 0)
    assert scripts.part.stat().st_size <= 100_000

    server.stall_after = None
    scripts.datasets("tetrominoes")
    assert scripts.target.read_bytes() == server.files[_TETROMINOES]

  def test_a_second_run_at_the_same_time(
    self, any_scripts: _Scripts, server: _Server
  ):
    server.stall_after = 100_000
    first = any_scripts.start("download_datasets.sh", "tetrominoes")
    _wait_for_bytes(any_scripts.part, first)
    second = any_scripts.start("download_datasets.sh", "tetrominoes")
    _, errors = second.communicate(timeout=_TIMEOUT)
    assert second.returncode == 1
    assert f"is being fetched by another process ({first.pid})" in errors
    server.go_on.set()
    output, errors = first.communicate(timeout=_TIMEOUT)
    assert first.returncode == 0, output + errors
    assert any_scripts.target.read_bytes() == server.files[_TETROMINOES]

  def test_a_lock_of_a_process_that_is_gone(self, any_scripts: _Scripts):
    any_scripts.write_part(b"")
    gone = subprocess.Popen(["true"])
    gone.wait()
    lock = pathlib.Path(f"{any_scripts.part}.lock")
    lock.write_text(f"{gone.pid}\n")
    any_scripts.datasets("tetrominoes")
    assert any_scripts.target.exists() and not lock.exists()


def test_draws_a_bar_on_a_terminal(any_scripts: _Scripts, server: _Server):
  server.stall_after = 140_000
  any_scripts.add_tool("sleep", f"exec {shutil.which('sleep')} 0.05")
  ours, theirs = pty.openpty()
  try:
    process = any_scripts.start(
      "download_datasets.sh", "tetrominoes", stderr=theirs
    )
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # EIO: the script has ended.
      while block := os.read(ours, 1024):
        drawn += block
        if re.search(rb"4[0-9] %", drawn):
          server.go_on.set()
    process.communicate(timeout=_TIMEOUT)
  finally:
    os.close(ours)
  assert process.returncode == 0, drawn
  # The client may still hold some of the 140 kB back.
  assert re.search(rb"\[#{11} {14}\]  4[4-6] %  1[34]\d\.\d kB of 300", drawn)
  assert drawn.endswith(b"\r\x1b[K")  # Nothing of the bar stays.


# --- Arguments and surroundings -----------------------------------------------


class TestDatasetNames:
  def test_without_a_name_it_shows_the_sizes(self, any_scripts: _Scripts):
    output = any_scripts.datasets(code=2)
    for name, size in [
      ("tetrominoes", "300 MB"),
      ("multi_dsprites", "up to 1 GB"),
      ("clevr6", "10.5 GB"),
      ("objects_room", "7 GB"),
    ]:
      assert re.search(f"{name} +{size}", output)

  @pytest.mark.parametrize(
    "name, hint", [("clevr", "clevr6"), ("dsprites", "multi_dsprites")]
  )
  def test_unknown_name(
    self, any_scripts: _Scripts, server: _Server, name: str, hint: str
  ):
    output = any_scripts.datasets("tetrominoes", name, code=2)
    assert f"unknown dataset '{name}'\n  Did you mean {hint}?" in output
    assert ": tetrominoes, multi_dsprites, clevr6, objects_room, all." in output
    assert not server.requests

  def test_name_like_no_other(self, any_scripts: _Scripts):
    output = any_scripts.datasets("", code=2)
    assert "Choices: " in output and "Did you mean" not in output

  @pytest.mark.parametrize(
    "names, expected",
    [
      (["all"], list(_PLACES)),
      (["clevr6", "all", "clevr6"], list(_PLACES)),
      (["objects_room", "clevr6"], ["clevr6", "objects_room"]),
    ],
  )
  def test_several_names(
    self,
    any_scripts: _Scripts,
    server: _Server,
    names: list[str],
    expected: list[str],
  ):
    for seed, place in enumerate(_PLACES.values()):
      server.files[place] = _tfrecord(seed, 1000 + seed)
    any_scripts.datasets(*names)
    data = any_scripts.folder / "data"
    fetched = {path.name: path.read_bytes() for path in data.iterdir()}
    assert fetched == {
      _PLACES[name].split("/")[-1]: server.files[_PLACES[name]]
      for name in expected
    }
    assert len(server.gets()) == len(expected)

  def test_files_have_the_names_that_the_configurations_look_for(self):
    for name, place in _PLACES.items():
      config = REPOSITORY / "configs" / f"{name}.yaml"
      if config.exists():
        assert f"data_file: {place.split('/')[-1]}\n" in config.read_text()

  @pytest.mark.parametrize(
    "script, name, address",
    [
      (
        "download_datasets.sh",
        [name],
        f"https://storage.googleapis.com/multi-object-datasets{place}",
      )
      for name, place in _PLACES.items()
    ]
    + [
      (
        "download_checkpoints.sh",
        [],
        "http://storage.googleapis.com/deepmind-research-iodine"
        "/iodine_checkpoints.zip",
      )
    ],
  )
  def test_default_address(
    self, any_scripts: _Scripts, script: str, name: list[str], address: str
  ):
    any_scripts.add_tool(
      "curl", 'echo "curl: (6) Could not resolve host: x" >&2; exit 6'
    )
    del any_scripts.environment["IODINE_DATASETS_URL"]
    del any_scripts.environment["IODINE_CHECKPOINTS_URL"]
    output = any_scripts.run(script, *name, code=1)
    expected = f"cannot fetch {address}: Could not resolve host: x\n"
    assert expected in output


class TestSurroundings:
  @pytest.mark.parametrize(
    "script", ["download_datasets.sh", "download_checkpoints.sh"]
  )
  def test_help(self, any_scripts: _Scripts, script: str):
    output = any_scripts.run(script, "--help")
    for word in ("Usage: ", "--force", "--retries", "_URL"):
      assert word in output
    output = any_scripts.run(script, "--forse", code=2)
    assert "unknown option --forse" in output
    output = any_scripts.run(script, "--retries", code=2)
    assert "--retries ''" in output

  def test_checkpoints_take_no_name(self, any_scripts: _Scripts):
    output = any_scripts.checkpoints("clevr6", code=2)
    assert "unexpected argument 'clevr6'" in output

  def test_data_dir_with_spaces_and_a_trailing_slash(
    self, any_scripts: _Scripts, server: _Server, tmp_path: pathlib.Path
  ):
    folder = tmp_path / "much data" / "here"
    any_scripts.environment["IODINE_DATA_DIR"] = f"{folder}/"
    any_scripts.environment["IODINE_DATASETS_URL"] += "/"
    output = any_scripts.datasets("tetrominoes")
    assert f"\n{folder}/{_TETROMINOES_FILE} is complete" in output
    assert f"{server.address}{_TETROMINOES}, " in output
    content = folder.joinpath(_TETROMINOES_FILE).read_bytes()
    assert content == server.files[_TETROMINOES]

  def test_modules_in_the_current_folder_are_not_imported(
    self, any_scripts: _Scripts
  ):
    for name in ("zipfile", "zlib", "shutil", "hashlib"):
      any_scripts.folder.joinpath(f"{name}.py").write_text("1 / 0")
    any_scripts.checkpoints()

  def test_without_python(self, any_scripts: _Scripts):
    any_scripts.add_tool("python3", "exit 1")
    output = any_scripts.datasets("tetrominoes", code=1)
    assert "there is no Python 3 on the PATH" in output

  def test_a_wget_that_is_not_gnu_is_not_used(self, any_scripts: _Scripts):
    (any_scripts.bin / "curl").unlink(missing_ok=True)
    any_scripts.add_tool("wget", "echo BusyBox >&2; exit 1")
    assert "To fetch with python:" in any_scripts.datasets("tetrominoes")


class TestPresentFile:
  @pytest.mark.parametrize(
    "content, fault",
    [
      (_tfrecord(seed=1, size=1000), "bytes, the server's file"),
      (None, "it does not start with a TFRecord"),
    ],
  )
  def test_is_kept_unless_forced(
    self,
    any_scripts: _Scripts,
    server: _Server,
    content: bytes | None,
    fault: str,
  ):
    if content is None:  # The right size, but no records.
      content = bytes(len(server.files[_TETROMINOES]))
    clevr6 = _PLACES["clevr6"]
    server.files[clevr6] = _tfrecord(seed=2, size=2000)
    any_scripts.write_part(content)
    any_scripts.part.rename(any_scripts.target)
    output = any_scripts.datasets("tetrominoes", "clevr6", code=1)
    assert "is there already, but it" in output and fault in output
    assert "add --force or move it away" in output
    assert any_scripts.target.read_bytes() == content
    # The others are fetched all the same.
    path = any_scripts.target.parent / clevr6.split("/")[-1]
    assert path.read_bytes() == server.files[clevr6]

    any_scripts.datasets("tetrominoes", "--force")
    assert any_scripts.target.read_bytes() == server.files[_TETROMINOES]

  def test_that_is_a_folder(self, any_scripts: _Scripts):
    any_scripts.target.mkdir(parents=True)
    output = any_scripts.datasets("tetrominoes", code=1)
    assert "is there, but is no file" in output


# --- Checkpoints --------------------------------------------------------------


def _unpacked(scripts: _Scripts) -> dict[str, bytes]:
  """The files in checkpoints/, less the archive."""
  return {
    str(path.relative_to(scripts.folder)): path.read_bytes()
    for path in scripts.folder.rglob("*")
    if path.is_file() and path.name != "iodine_checkpoints.zip"
  }


class TestUnpack:
  @pytest.mark.parametrize("leading", ["", "checkpoints/", "iodine/a/", "./"])
  def test_finds_the_models_in_any_folder(
    self, any_scripts: _Scripts, server: _Server, leading: str
  ):
    members = _members(leading)
    extra = {
      f"{leading}README": b"about",
      "__MACOSX/._x": b"",
      f"{leading}clevr6/.DS_Store": b"",
      f"{leading}clevr6/": b"",
      ".": b"",
    }
    server.files[_CHECKPOINTS] = _zip({**extra, **members})
    output = any_scripts.checkpoints()
    expected = {**_members(), "checkpoints/README": b"about"}
    assert _unpacked(any_scripts) == expected
    assert "7 files unpacked, 0 were there already" in output
    assert "checkpoint_dir=checkpoints/multi_dsprites\n" in output

  def test_keeps_the_folder_of_a_single_model(
    self, any_scripts: _Scripts, server: _Server
  ):
    server.files[_CHECKPOINTS] = _zip({"clevr6/model.ckpt.index": b"1"})
    any_scripts.checkpoints()
    assert _unpacked(any_scripts) == {
      "checkpoints/clevr6/model.ckpt.index": b"1"
    }

  def test_takes_other_names(self, any_scripts: _Scripts, server: _Server):
    server.files[_CHECKPOINTS] = _zip({"a/b/model": b"1", "a/c/model": b"2"})
    any_scripts.checkpoints()
    assert _unpacked(any_scripts) == {
      "checkpoints/b/model": b"1",
      "checkpoints/c/model": b"2",
    }

  def test_resumes_the_archive(self, scripts: _Scripts, server: _Server):
    server.breaks = [300, 200]
    scripts.checkpoints()
    assert _unpacked(scripts) == _members()
    assert server.gets() == [None, "bytes=300-", "bytes=500-"]

  def test_second_run(self, any_scripts: _Scripts, server: _Server):
    any_scripts.checkpoints()
    lost = any_scripts.folder / "checkpoints/clevr6/checkpoint"
    lost.unlink()
    output = any_scripts.checkpoints()
    assert "1 files unpacked, 5 were there already" in output
    assert _unpacked(any_scripts) == _members()
    assert server.gets() == [None]

  def test_differing_files_are_kept_unless_forced(
    self, any_scripts: _Scripts, server: _Server
  ):
    own = any_scripts.folder / "checkpoints/clevr6/checkpoint"
    own.parent.mkdir(parents=True)
    content = _members()["checkpoints/clevr6/checkpoint"]
    own.write_bytes(content[::-1])  # Of the same size.
    output = any_scripts.checkpoints(code=1)
    assert "differ from those in checkpoints/iodine_checkpoints.zip" in output
    assert "\n  checkpoints/clevr6/checkpoint\n" in output
    assert "add --force" in output
    name = "checkpoints/clevr6/checkpoint"
    assert _unpacked(any_scripts) == {name: content[::-1]}

    any_scripts.checkpoints("--force")
    assert _unpacked(any_scripts) == _members()

  @pytest.mark.parametrize(
    "name",
    [
      "../outside",
      "checkpoints/../../outside",
      "checkpoints/clevr6/..",
      "/tmp/outside",
      "..\\outside",
      "C:/outside",
    ],
  )
  def test_refuses_members_that_leave_the_folder(
    self, any_scripts: _Scripts, server: _Server, name: str
  ):
    server.files[_CHECKPOINTS] = _zip({**_members(), name: b"evil"})
    output = any_scripts.checkpoints(code=1)
    assert "is refused: its member" in output
    assert "would land outside of checkpoints" in output
    assert "Nothing was unpacked" in output
    assert not _unpacked(any_scripts)
    assert not list(any_scripts.folder.parent.rglob("*outside*"))

  @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO])
  def test_refuses_links_and_special_files(
    self, any_scripts: _Scripts, server: _Server, kind: int
  ):
    buffer = io.BytesIO(_zip(_members()))
    with zipfile.ZipFile(buffer, "a") as archive:
      member = zipfile.ZipInfo("checkpoints/clevr6/link")
      member.create_system = 3  # Unix.
      member.external_attr = (kind | 0o777) << 16
      archive.writestr(member, "/etc")
    server.files[_CHECKPOINTS] = buffer.getvalue()
    output = any_scripts.checkpoints(code=1)
    assert "'checkpoints/clevr6/link' is a link or a special file" in output
    assert not _unpacked(any_scripts)

  def test_refuses_to_follow_a_link_that_is_there(
    self, any_scripts: _Scripts, tmp_path: pathlib.Path
  ):
    outside = tmp_path / "outside"
    outside.mkdir()
    checkpoints = any_scripts.folder / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "clevr6").symlink_to(outside)
    output = any_scripts.checkpoints(code=1)
    assert "would land outside of checkpoints" in output
    assert not list(outside.iterdir())

  def test_checkpoints_may_be_a_link_itself(
    self, any_scripts: _Scripts, tmp_path: pathlib.Path
  ):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (any_scripts.folder / "checkpoints").symlink_to(elsewhere)
    any_scripts.checkpoints()
    assert (elsewhere / "tetrominoes" / "checkpoint").is_file()

  @pytest.mark.parametrize(
    "names",
    [
      ["clevr6/a", "checkpoints/clevr6/a"],
      ["checkpoints/clevr6/a", "checkpoints/clevr6/./a"],
      ["clevr6/a", "iodine_checkpoints.zip"],
    ],
  )
  def test_refuses_two_members_for_one_file(
    self, any_scripts: _Scripts, server: _Server, names: list[str]
  ):
    server.files[_CHECKPOINTS] = _zip(dict.fromkeys(names[::-1], b"1"))
    output = any_scripts.checkpoints(code=1)
    assert "two files would become checkpoints/" in output
    assert not _unpacked(any_scripts)

  def test_disk_fills_up(self, any_scripts: _Scripts, server: _Server):
    members = {"checkpoints/clevr6/model.ckpt.index": bytes(300_000)}
    server.files[_CHECKPOINTS] = _zip(members)
    with _mounted(any_scripts.folder / "checkpoints", "size=128k"):
      output = any_scripts.checkpoints(code=1)
      assert "too little for the 0.3 MB" in output
      assert not _unpacked(any_scripts)

  def test_file_reaches_the_limit_of_sizes(
    self, any_scripts: _Scripts, server: _Server
  ):
    members = {"checkpoints/clevr6/model.ckpt.index": bytes(300_000)}
    server.files[_CHECKPOINTS] = _zip(members)
    limit = (131_072, 131_072)
    output = any_scripts.checkpoints(
      code=1,
      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert (
      "cannot write checkpoints/clevr6/model.ckpt.index: File too" in output
    )
    assert not _unpacked(any_scripts)
