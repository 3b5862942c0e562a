"""The download scripts, against a server on this machine that misbehaves."""

import base64
import gzip
import hashlib
import http.server
import io
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
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
_CHECKPOINTS = "/iodine_checkpoints.zip"
_CONTENT = random.Random(0).randbytes(300_000)
_TIMEOUT = 30  # Seconds after which a script is taken to hang.

pytestmark = pytest.mark.skipif(
  not shutil.which("bash") or not shutil.which("curl"),
  reason="needs bash and curl",
)


def _zip(members: dict[str, bytes], kind: int = stat.S_IFREG) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in members.items():
      member = zipfile.ZipInfo(name)
      member.external_attr = (kind | 0o644) << 16
      archive.writestr(member, content)
  return buffer.getvalue()


def _members(leading: str = "checkpoints/") -> dict[str, bytes]:
  """The files of an archive of checkpoints, all of them different."""
  return {
    f"{leading}{model}/{file}": f"{model} {file}".encode() * 50
    for model in ("clevr6", "multi_dsprites", "tetrominoes")
    for file in ("checkpoint", "model.ckpt.data-00000-of-00001")
  }


class _Server(http.server.ThreadingHTTPServer):
  """Serves `files`; the other attributes make it misbehave."""

  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.files = {_TETROMINOES: _CONTENT, _CHECKPOINTS: _zip(_members())}
    self.address = f"http://127.0.0.1:{self.server_port}"
    self.gets: list[str | None] = []  # The ranges that were asked for.
    self.ranges = True  # Whether it can resume.
    self.head_length: str | None = None  # What HEAD states; None: the truth.
    self.has_md5 = True
    self.linked_sha256 = False  # Whether a redirection states it.
    self.redirections: dict[str, str] = {}
    # One entry a request or a GET, while there are any: the status to answer
    # with, and the number of bytes after which to break off.
    self.statuses: list[int] = []
    self.breaks: list[int] = []
    # Bytes after which a GET waits until `go_on` is set.
    self.stall_after = 0
    self.go_on = threading.Event()

  def handle_error(self, request, client_address):
    pass  # The client left: some tests want that.


class _Handler(http.server.BaseHTTPRequestHandler):
  server: _Server

  def log_message(self, format, *args):
    pass

  def do_GET(self):
    server = self.server
    status = server.statuses.pop(0) if server.statuses else 200
    if self.path in server.redirections:
      self.send_response(302)
      self.send_header("Location", server.redirections[self.path])
      self.send_header("Content-Length", "7")
      self.send_header("x-goog-hash", "md5=AAAAAAAAAAAAAAAAAAAAAA==")
      if server.linked_sha256:
        linked = server.files[server.redirections[self.path]]
        sha256 = hashlib.sha256(linked).hexdigest()
        self.send_header("X-Linked-ETag", f'"{sha256}"')
      self.end_headers()
      return
    body = server.files.get(self.path)
    if body is None or status != 200:
      self.send_error(404 if body is None else status)
      return
    asked, start, length = self.headers.get("Range"), 0, str(len(body))
    if self.command == "HEAD":
      length = length if server.head_length is None else server.head_length
    else:
      server.gets.append(asked)
      if asked and server.ranges:
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
        length = str(len(body) - start)
      if start >= len(body):
        self.send_error(416)
        return
    self.send_response(206 if start else 200)
    if start:
      span = f"bytes {start}-{len(body) - 1}/{len(body)}"
      self.send_header("Content-Range", span)
    if length:
      self.send_header("Content-Length", length)
    if server.has_md5:
      md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
      self.send_header("x-goog-hash", "crc32c=AAAAAA==")
      self.send_header("x-goog-hash", f"md5={md5}")
    self.end_headers()
    if self.command == "HEAD":
      return
    body = body[start:]
    if server.breaks:
      body = body[: server.breaks.pop(0)]
    elif server.stall_after:
      self.wfile.write(body[: server.stall_after])
      server.go_on.wait(timeout=_TIMEOUT)
      body = body[server.stall_after :]
    self.wfile.write(body)

  do_HEAD = do_GET  # noqa: N815


class _Scripts:
  """Runs the scripts in a folder of their own."""

  def __init__(self, folder: pathlib.Path, server: _Server):
    self.server = server
    self.folder, self.bin = folder / "run", folder / "bin"
    self.folder.mkdir()
    self.bin.mkdir()
    self.add_tool("sleep", 'echo "$1" >>"$HOME/pauses"')  # Spends no time.
    self.environment = {
      "PATH": f"{self.bin}:{os.environ['PATH']}",
      "PYTHON": sys.executable,
      "HOME": str(folder),  # No settings of curl.
      "IODINE_CHECKPOINTS_URL": server.address,
      "IODINE_DATASETS_URL": server.address,
      "IODINE_CLEVRTEX_URL": f"{server.address}/clevrtex",
      "IODINE_SHAPES3D_URL": f"{server.address}/3d-shapes",
      "IODINE_LIBRARY_URL": f"{server.address}/library",
      "IODINE_HHOUSEN_URL": f"{server.address}/hhousen/",
      "IODINE_SLOT_ATTENTION_URL": f"{server.address}/bucket",
      "IODINE_EFFICIENTMORL_URL": f"{server.address}/examples/",
    }
    self.pauses = folder / "pauses"
    self.target = self.folder / "data" / "tetrominoes_train.tfrecords"
    self.part = self.target.with_name(f"{self.target.name}.part")

  def add_tool(self, name: str, command: str):
    path = self.bin / name
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)

  def start(self, script: str, *arguments: str, **options) -> subprocess.Popen:
    options |= dict(cwd=self.folder, env=self.environment, text=True)
    options |= dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command = [str(REPOSITORY / f"download_{script}.sh"), *arguments]
    return subprocess.Popen(command, start_new_session=True, **options)

  def run(self, script: str, *arguments: str, code: int = 0, **options) -> str:
    """Runs a script to its end, checks the exit status, returns its output."""
    process = self.start(script, *arguments, **options)
    try:
      output, errors = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      pytest.fail(f"{script} hangs: {process.communicate()}")
    assert process.returncode == code, output + errors
    assert "Traceback" not in errors, errors
    if code:  # One error, with a remedy.
      assert len(re.findall("^error: ", errors, re.MULTILINE)) == 1, errors
      assert re.search(r"error: .*\n  \w", errors), errors
    return output + errors

  def datasets(self, *arguments: str, **options) -> str:
    return self.run("datasets", *(arguments or ["tetrominoes"]), **options)

  def fetches(self, *arguments: str) -> str:
    """Runs a script that leaves the right file behind."""
    output = self.datasets(*arguments)
    assert self.target.read_bytes() == _CONTENT
    return output

  def write_part(self, content: bytes):
    self.part.parent.mkdir(exist_ok=True)
    self.part.write_bytes(content)

  def data(self, folder: str) -> dict[str, bytes]:
    """The files of a folder of data/, less the archives."""
    root = self.folder / "data" / folder
    return {
      str(path.relative_to(root)): path.read_bytes()
      for path in root.rglob("*")
      if path.is_file() and not path.name.endswith(".tar.gz")
    }

  def unpacked(self) -> dict[str, bytes]:
    """The files of checkpoints/, less the archive."""
    return {
      str(path.relative_to(self.folder)): path.read_bytes()
      for path in self.folder.glob("checkpoints/**/*")
      if path.is_file() and path.name != "iodine_checkpoints.zip"
    }


@pytest.fixture
def scripts(tmp_path: pathlib.Path) -> Iterator[_Scripts]:
  server = _Server()
  threading.Thread(target=server.serve_forever, args=[0.02]).start()
  yield _Scripts(tmp_path, server)
  server.go_on.set()
  server.shutdown()
  server.server_close()


class TestTransfer:
  def test_fetches_once_and_tells_the_size_beforehand(self, scripts: _Scripts):
    output = scripts.fetches()
    assert f"{scripts.server.address}{_TETROMINOES}\nIt has 0.3 MB." in output
    assert os.listdir(scripts.target.parent) == [scripts.target.name]
    assert "is there already (0.3 MB)" in scripts.datasets()
    assert scripts.server.gets == [None]

  def test_resumes_what_breaks_off(self, scripts: _Scripts):
    scripts.server.breaks = [100_003, 77_777]
    # What made progress does not count as a failure in a row.
    output = scripts.fetches("tetrominoes", "--retries", "1")
    assert scripts.server.gets == [None, "bytes=100003-", "bytes=177780-"]
    assert scripts.pauses.read_text() == "1\n1\n"
    assert "Broken off at 0.1 MB; trying again." in output

  def test_gives_up_and_resumes_in_the_next_run(self, scripts: _Scripts):
    scripts.server.breaks = [100_003] + [0] * 7
    output = scripts.datasets("tetrominoes", "--retries=7", code=1)
    assert f"cannot fetch {scripts.server.address}{_TETROMINOES}: " in output
    assert scripts.pauses.read_text() == "1\n2\n4\n8\n16\n30\n30\n"
    assert not scripts.target.exists()
    assert scripts.part.read_bytes() == _CONTENT[:100_003]
    assert "Resuming at 0.1 MB" in scripts.fetches()
    assert scripts.server.gets[-1] == "bytes=100003-"

  def test_server_that_cannot_resume(self, scripts: _Scripts):
    scripts.server.ranges = False
    scripts.server.breaks = [100_003] * 20
    scripts.datasets("tetrominoes", "--retries", "1", code=1)
    assert not scripts.target.exists()
    scripts.server.breaks = []
    scripts.fetches()

  @pytest.mark.parametrize("head_length", [None, "", "0x7"])
  def test_partial_file_that_cannot_be_of_this_file(
    self, scripts: _Scripts, head_length: str | None
  ):
    scripts.server.head_length, scripts.server.has_md5 = head_length, False
    scripts.write_part(bytes(300_001))
    scripts.fetches()
    assert scripts.server.gets == [None]

  def test_complete_partial_file(self, scripts: _Scripts):
    scripts.write_part(_CONTENT)
    scripts.fetches()
    assert not scripts.server.gets

  def test_server_error_for_a_while(self, scripts: _Scripts):
    scripts.server.statuses = [200, 503]
    scripts.fetches()

  def test_follows_redirections(self, scripts: _Scripts):
    scripts.server.files["/elsewhere"] = scripts.server.files.pop(_TETROMINOES)
    scripts.server.redirections[_TETROMINOES] = "/elsewhere"
    scripts.fetches()

  @pytest.mark.parametrize("location", [_TETROMINOES, "file:///etc/passwd"])
  def test_redirections_that_are_not_followed(
    self, scripts: _Scripts, location: str
  ):
    scripts.server.redirections[_TETROMINOES] = location
    assert "cannot fetch http://127" in scripts.datasets(code=1)
    assert not os.listdir(scripts.target.parent)


class TestFailure:
  @pytest.mark.parametrize("address", [None, "http://127.0.0.1:1", "file:///x"])
  def test_nothing_there(self, scripts: _Scripts, address: str | None):
    scripts.server.files.clear()
    if address:
      scripts.environment["IODINE_DATASETS_URL"] = address
    output = scripts.datasets(code=1)
    assert f"cannot fetch {address or scripts.server.address}/tetrom" in output
    assert "Check the network" in output and "--help" in output
    assert not os.listdir(scripts.target.parent)

  @pytest.mark.parametrize("length", ["299999", "300001"])
  def test_wrong_size(self, scripts: _Scripts, length: str):
    scripts.server.head_length = length
    output = scripts.datasets(code=1)
    assert f"it has 300000 bytes instead of {length}" in output
    assert not os.listdir(scripts.target.parent)

  def test_web_page(self, scripts: _Scripts):
    scripts.server.files[_TETROMINOES] = b"\n <!DOCTYPE html>Log in"
    scripts.server.has_md5 = False
    assert "it is a web page" in scripts.datasets(code=1)
    assert not scripts.target.exists()

  def test_poisoned_partial_file(self, scripts: _Scripts):
    scripts.write_part(bytes(5000))
    assert "but its MD5 checksum is not" in scripts.datasets(code=1)
    assert not os.listdir(scripts.target.parent)
    scripts.fetches()
    assert scripts.server.gets == ["bytes=5000-", None]

  def test_file_that_is_there(self, scripts: _Scripts):
    scripts.write_part(b"own")
    scripts.part.rename(scripts.target)
    scripts.environment["IODINE_DATASETS_URL"] = "http://127.0.0.1:1"
    assert "is there already" in scripts.datasets()
    scripts.environment["IODINE_DATASETS_URL"] = scripts.server.address
    output = scripts.datasets(code=1)
    assert "it has 3 bytes instead of 300000" in output
    assert scripts.target.read_bytes() == b"own"
    scripts.fetches("tetrominoes", "--force")

  def test_file_that_is_there_of_other_content(self, scripts: _Scripts):
    own = _CONTENT[:-1] + b"x"
    scripts.write_part(own)
    scripts.part.rename(scripts.target)
    output = scripts.datasets(code=1)
    assert "is not the server's file: its MD5 checksum is not" in output
    assert "add --force" in output
    assert scripts.target.read_bytes() == own
    scripts.fetches("tetrominoes", "--force")

  def test_archive_that_is_there_of_other_content(self, scripts: _Scripts):
    scripts.run("checkpoints")
    archive = scripts.folder / "checkpoints" / "iodine_checkpoints.zip"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    assert "MD5 checksum is not" in scripts.run("checkpoints", code=1)

  def test_partial_file_that_cannot_be_checked(self, scripts: _Scripts):
    scripts.server.has_md5 = False
    poisoned = bytearray(_CONTENT[:200_000])
    poisoned[100_000:100_100] = bytes(100)
    scripts.write_part(bytes(poisoned))
    scripts.fetches()
    assert scripts.server.gets == [None]
    # What breaks off in this run is resumed.
    scripts.target.unlink()
    scripts.server.breaks = [100_003]
    scripts.fetches()
    assert scripts.server.gets == [None, None, "bytes=100003-"]

  def test_disk_fills_up(self, scripts: _Scripts):
    def limit():
      resource.setrlimit(resource.RLIMIT_FSIZE, (131_072, 131_072))

    # Without the signal, too large a file is an error as a full disk is.
    output = scripts.datasets(code=1, preexec_fn=limit, restore_signals=False)
    assert "cannot write data/tetrominoes_train.tfrecords.part" in output
    assert 0 < scripts.part.stat().st_size <= 131_072
    scripts.fetches()


class TestOtherHands:
  @pytest.mark.parametrize("exists", [True, False])
  def test_links_are_not_followed(
    self, scripts: _Scripts, tmp_path: pathlib.Path, exists: bool
  ):
    outside = tmp_path / "outside"
    if exists:
      outside.write_bytes(b"precious")
    scripts.target.parent.mkdir()
    scripts.part.symlink_to(outside)
    output = scripts.datasets(code=1)
    assert "is there, but is no plain file\n  Move it away" in output
    scripts.part.unlink()
    pathlib.Path(f"{scripts.part}.lock").symlink_to(outside)
    scripts.fetches("tetrominoes", "--force")
    assert outside.exists() == exists
    assert not exists or outside.read_bytes() == b"precious"

  @pytest.mark.parametrize("name", ["target", "part"])
  def test_what_is_in_the_way(self, scripts: _Scripts, name: str):
    scripts.target.parent.write_text("x")
    assert "error: cannot write data\n" in scripts.datasets(code=1)
    scripts.target.parent.unlink()
    getattr(scripts, name).mkdir(parents=True)
    output = scripts.datasets("tetrominoes", "--force", code=1)
    assert "is no plain file" in output

  @pytest.mark.parametrize(
    ("kill", "number", "code"),
    [(os.killpg, 2, 130), (os.kill, 15, 143), (os.killpg, 9, -9)],
  )
  def test_signals(self, scripts: _Scripts, kill, number: int, code: int):
    process = self._start_and_stall(scripts)
    kill(process.pid, number)
    _, errors = process.communicate(timeout=_TIMEOUT)
    assert process.returncode == code, errors
    if code > 0:
      assert errors.startswith("error: interrupted\n  Run the same command")
      with pytest.raises(ProcessLookupError):  # No curl is left.
        os.killpg(process.pid, 0)
    scripts.server.stall_after = 0
    assert "Resuming at" in scripts.fetches()

  def test_a_second_run_at_the_same_time(self, scripts: _Scripts):
    first = self._start_and_stall(scripts)
    output = scripts.datasets(code=1)
    assert "another run is writing to data\n  Wait for it" in output
    scripts.server.go_on.set()
    first.communicate(timeout=_TIMEOUT)
    assert first.returncode == 0
    assert scripts.target.read_bytes() == _CONTENT

  def _start_and_stall(self, scripts: _Scripts) -> subprocess.Popen:
    scripts.server.stall_after = 100_000
    process = scripts.start("datasets", "tetrominoes")
    deadline = time.monotonic() + _TIMEOUT
    while not scripts.part.exists() or not scripts.part.stat().st_size:
      assert process.poll() is None, process.communicate()
      assert time.monotonic() < deadline
      time.sleep(0.02)
    return process


class TestArguments:
  @pytest.mark.parametrize("script", ["datasets", "checkpoints"])
  def test_help(self, scripts: _Scripts, script: str):
    output = scripts.run(script, "--help")
    for word in ("Usage: ", "--force", "--retries", "PYTHON", "_URL"):
      assert word in output
    if script == "datasets":  # Without a name, too, it shows the sizes.
      process = scripts.start("datasets")
      assert process.communicate()[1] == output
      assert process.returncode == 2
      assert "  clevr6           10.5 GB\n" in output

  @pytest.mark.parametrize(
    ("arguments", "message"),
    [
      ("datasets --forse", "unknown option --forse"),
      ("datasets tetrominoes --retries", "--retries '': expected"),
      ("datasets tetrominoes --retries=1e9", "--retries '1e9': expected"),
      ("datasets tetrominoes clevr", "unknown dataset 'clevr'\n  Choices: tet"),
      ("checkpoints clevr6", "unknown checkpoints 'clevr6'\n  Choices: iod"),
    ],
  )
  def test_usage_errors(self, scripts: _Scripts, arguments: str, message: str):
    assert message in scripts.run(*arguments.split(), code=2)
    assert not os.listdir(scripts.folder)

  def test_several_names(self, scripts: _Scripts):
    scripts.server.files = {place: place.encode() for place in _PLACES.values()}
    scripts.datasets("objects_room", "clevr6", "clevr6")
    assert len(os.listdir(scripts.target.parent)) == 2
    scripts.datasets("clevr6", "all")
    for name, place in _PLACES.items():
      file = place.split("/")[-1]
      assert scripts.target.with_name(file).read_text() == place
      config = REPOSITORY / "configs" / f"{name}.yaml"
      if config.exists():  # It looks for this file.
        assert f"data_file: {file}\n" in config.read_text()

  def test_default_addresses(self, scripts: _Scripts):
    scripts.add_tool("curl", "exit 6")
    del scripts.environment["IODINE_DATASETS_URL"]
    del scripts.environment["IODINE_CHECKPOINTS_URL"]
    bucket = "storage.googleapis.com"
    for name, place in _PLACES.items():
      output = scripts.datasets(name, code=1)
      assert f" https://{bucket}/multi-object-datasets{place}:" in output
    output = scripts.run("checkpoints", code=1)
    address = f"https://{bucket}/deepmind-research-iodine{_CHECKPOINTS}"
    assert f" {address}:" in output

  def test_https_does_not_lead_to_http(self, scripts: _Scripts):
    scripts.add_tool("curl", 'echo "$@" >>"$HOME/options"; exit 6')
    for scheme, expected in (
      ("https", "=https"),
      ("HTTPS", "=https"),
      (
        "http",
        "=http,https",
      ),
    ):
      scripts.environment["IODINE_DATASETS_URL"] = f"{scheme}://nowhere"
      scripts.datasets(code=1)
      options = scripts.pauses.with_name("options")
      words = options.read_text().split()
      options.unlink()
      last = len(words) - words[::-1].index("--proto-redir")
      assert words[last] == expected

  @pytest.mark.parametrize("folder", ["-rf", "much data/here/", "--help"])
  def test_odd_folders_and_addresses(self, scripts: _Scripts, folder: str):
    scripts.server.files = {f"/a%20b%20[c]{_TETROMINOES}": _CONTENT}
    scripts.environment["IODINE_DATASETS_URL"] += "/a b [c]/"
    scripts.environment["IODINE_DATA_DIR"] = folder
    scripts.datasets()
    path = scripts.folder / folder / scripts.target.name
    assert path.read_bytes() == _CONTENT

  def test_missing_programs(self, scripts: _Scripts):
    scripts.environment["PYTHON"] = "false"
    assert "false is no Python 3.9 or later" in scripts.datasets(code=1)
    for name in ("bash", "dirname"):
      (scripts.bin / name).symlink_to(shutil.which(name))
    scripts.environment["PATH"] = str(scripts.bin)
    output = scripts.datasets(code=1)
    assert "error: curl is not installed\n  Install it: apt install" in output


class TestUnpack:
  @pytest.mark.parametrize("leading", ["", "checkpoints/", "iodine/a/", "./"])
  def test_finds_the_models_in_any_folder(
    self, scripts: _Scripts, leading: str
  ):
    extra = {f"{leading}README": b"about", "__MACOSX/._x": b""}
    scripts.server.files[_CHECKPOINTS] = _zip({**extra, **_members(leading)})
    output = scripts.run("checkpoints")
    assert scripts.unpacked() == {**_members(), "checkpoints/README": b"about"}
    assert "7 files unpacked, 0 already there" in output
    assert "checkpoint_dir=checkpoints/multi_dsprites\n" in output

  def test_files_that_are_there(self, scripts: _Scripts):
    for name in ("zipfile", "hashlib"):  # They are not imported.
      scripts.folder.joinpath(f"{name}.py").write_text("1 / 0")
    scripts.run("checkpoints")
    own = scripts.folder / "checkpoints/clevr6/checkpoint"
    own.unlink()
    assert "1 files unpacked, 5 already there" in scripts.run("checkpoints")
    assert scripts.unpacked() == _members()
    assert scripts.server.gets == [None]
    own.write_bytes(own.read_bytes()[::-1])  # Of the same size.
    differing = scripts.unpacked()
    output = scripts.run("checkpoints", code=1)
    assert "these files differ" in output and "add --force" in output
    assert "\n  checkpoints/clevr6/checkpoint\n" in output
    assert scripts.unpacked() == differing
    scripts.run("checkpoints", "--force")
    assert scripts.unpacked() == _members()

  @pytest.mark.parametrize(
    "name",
    [
      *("../outside", "checkpoints/../../outside", "checkpoints/clevr6/.."),
      *("/tmp/outside", "..\\outside", "C:/outside"),
      *("clevr6/checkpoint", "./iodine_checkpoints.zip"),  # Two of a name.
      *("checkpoints//clevr6/./checkpoint", "checkpoints/clevr6/CHECKPOINT"),
    ],
  )
  def test_refuses_bad_names(self, scripts: _Scripts, name: str):
    scripts.server.files[_CHECKPOINTS] = _zip({**_members(), name: b"evil"})
    output = scripts.run("checkpoints", code=1)
    assert re.search("would (land elsewhere|become )", output), output
    assert not scripts.unpacked()
    assert not list(scripts.folder.parent.rglob("*outside*"))

  @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR])
  def test_refuses_links_and_special_files(self, scripts: _Scripts, kind: int):
    scripts.server.files[_CHECKPOINTS] = _zip({"clevr6/link": b"/etc"}, kind)
    output = scripts.run("checkpoints", code=1)
    assert "'clevr6/link' is a link or special" in output
    assert not scripts.unpacked()

  def test_links_that_are_there(
    self, scripts: _Scripts, tmp_path: pathlib.Path
  ):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = scripts.folder / "checkpoints" / "clevr6"
    link.parent.mkdir()
    link.symlink_to(outside)
    assert "leads elsewhere by a link" in scripts.run("checkpoints", code=1)
    assert not list(outside.iterdir())
    shutil.rmtree(link.parent)
    link.parent.symlink_to(outside)  # The user's own choice.
    scripts.run("checkpoints")
    assert (outside / "clevr6" / "checkpoint").is_file()

  def test_damaged_archive(self, scripts: _Scripts):
    archive = bytearray(scripts.server.files[_CHECKPOINTS])
    archive[80] ^= 0xFF  # In the data of the first member.
    scripts.server.files[_CHECKPOINTS] = bytes(archive)
    output = scripts.run("checkpoints", code=1)
    assert "cannot unpack checkpoints/iodine_checkpoints.zip" in output
    assert os.listdir(scripts.folder / "checkpoints") == [_CHECKPOINTS[1:]]
    scripts.server.files[_CHECKPOINTS] = _zip(_members())
    scripts.run("checkpoints", "--force")
    assert scripts.unpacked() == _members()


_LISTING = """<?xml version='1.0' encoding='UTF-8'?>
<ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>
<Name>bucket</Name><IsTruncated>false</IsTruncated>{contents}
</ListBucketResult>"""


class TestSlotAttention:
  """Google's checkpoints, whose files the bucket lists."""

  KINDS = ("object_discovery", "set_prediction")
  NAMES = ("checkpoint", "ckpt-2.data-00000-of-00001", "ckpt-2.index")

  def _serve(self, server: _Server, *more: str) -> dict[str, bytes]:
    """Serves both folders; the files by their names beside each other."""
    files = {}
    for kind in self.KINDS:
      prefix = f"slot-attention/{kind}/"
      keys = [prefix, *(f"{prefix}{name}" for name in (*self.NAMES, *more))]
      contents = "".join(f"<Contents><Key>{k}</Key></Contents>" for k in keys)
      listing = _LISTING.format(contents=contents).encode()
      server.files[f"/bucket?prefix={prefix}"] = listing
      for name in self.NAMES:
        content = f"{kind} {name}".encode()
        server.files[f"/bucket/{prefix}{name}"] = content
        files[f"checkpoints/slot_attention/{kind}/{name}"] = content
    return files

  def test_fetches_what_the_bucket_lists(self, scripts: _Scripts):
    files = self._serve(scripts.server)
    output = scripts.run("checkpoints", "slot_attention")
    assert scripts.unpacked() == files
    folder = "checkpoints/slot_attention/set_prediction"
    assert f"  checkpoint_dir={folder}\n" in output
    assert "is there already" in scripts.run("checkpoints", "slot_attention")

  def test_both_models(self, scripts: _Scripts):
    files = self._serve(scripts.server)
    scripts.run("checkpoints", "iodine", "slot_attention")
    assert set(files) < set(scripts.unpacked())
    assert set(scripts.unpacked()) - set(files)

  @pytest.mark.parametrize("name", ["../../x", "a b", "$(x)", "/x", "-rf"])
  def test_refuses_odd_names(self, scripts: _Scripts, name: str):
    self._serve(scripts.server, name)
    output = scripts.run("checkpoints", "slot_attention", code=1)
    assert f"a file with the odd name {name!r}" in output
    assert not scripts.unpacked()

  @pytest.mark.parametrize(
    ("listing", "fault"),
    [
      (b"<html><p></html>", "cannot be read"),
      (b"<!DOCTYPE x><ListBucketResult/>", "has declarations"),
      (b"<ListBucketResult/>", "no files slot-attention/object_discovery/*"),
    ],
  )
  def test_other_answers(self, scripts: _Scripts, listing: bytes, fault: str):
    self._serve(scripts.server)
    place = "/bucket?prefix=slot-attention/object_discovery/"
    scripts.server.files[place] = listing
    output = scripts.run("checkpoints", "slot_attention", code=1)
    assert fault in output
    assert "by hand" in output

  def test_no_listing(self, scripts: _Scripts):
    output = scripts.run("checkpoints", "slot_attention", code=1)
    assert f"cannot fetch {scripts.server.address}/bucket?prefix=" in output


class TestEfficientMORL:
  """The authors' checkpoints, two files."""

  FILES = (
    "emorl-tetrominoes-seed-1200-state-200000.pth",
    "emorl-clevr6-seed-2004-state-300000.pth",
  )

  def test_fetches_both(self, scripts: _Scripts):
    files = {}
    for name in self.FILES:
      content = f"content of {name}".encode()
      scripts.server.files[f"/examples/{name}"] = content
      files[f"checkpoints/efficientmorl/{name}"] = content
    output = scripts.run("checkpoints", "efficientmorl")
    assert scripts.unpacked() == files
    for name in files:
      assert f"  checkpoint_dir={name}\n" in output
    assert "is there already" in scripts.run("checkpoints", "efficientmorl")

  def test_nothing_there(self, scripts: _Scripts):
    output = scripts.run("checkpoints", "efficientmorl", code=1)
    assert f"cannot fetch {scripts.server.address}/examples/emorl-" in output
    assert not scripts.unpacked()


def _tar(
  members: dict[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = ""
) -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
    for name, content in members.items():
      member = tarfile.TarInfo(name)
      member.size, member.type = len(content) if not link else 0, kind
      member.linkname = link
      archive.addfile(member, io.BytesIO(content))
  return buffer.getvalue()


_SCENE = "clevrtex_outd/0/CLEVRTEX_outd_000000"
_OUTD = "/clevrtex/clevrtex_outd.tar.gz"


class TestArchives:
  """Datasets in archives, which are unpacked."""

  MEMBERS = {f"{_SCENE}.png": b"image", f"{_SCENE}.json": b"objects" * 9}

  @pytest.fixture(autouse=True)
  def _serve(self, scripts: _Scripts):
    scripts.server.has_md5 = False
    scripts.server.files[_OUTD] = _tar(self.MEMBERS)

  def test_unpacks(self, scripts: _Scripts):
    output = scripts.datasets("clevrtex_outd")
    assert scripts.data("clevrtex") == self.MEMBERS
    assert "2 files unpacked, 0 already there" in output
    path = "data/clevrtex data.dataset_variant=outd"
    assert f"  data.path={path}\n" in output
    again = scripts.datasets("clevrtex_outd")
    assert "0 files unpacked, 2 already there" in again
    assert scripts.server.gets == [None]

  def test_goes_on_after_a_kill(self, scripts: _Scripts):
    scripts.datasets("clevrtex_outd")
    folder = scripts.folder / "data" / "clevrtex"
    folder.joinpath(f"{_SCENE}.png").unlink()
    folder.joinpath(f"{_SCENE}.png.part").write_bytes(b"im")
    assert "1 files unpacked, 1 already" in scripts.datasets("clevrtex_outd")
    assert scripts.data("clevrtex") == self.MEMBERS

  def test_file_of_another_size_is_kept(self, scripts: _Scripts):
    scripts.datasets("clevrtex_outd")
    own = scripts.folder / "data" / "clevrtex" / f"{_SCENE}.png"
    own.write_bytes(b"mine")
    output = scripts.datasets("clevrtex_outd", code=1)
    assert f"{_SCENE}.png has 4 bytes instead of the archive's 5" in output
    assert own.read_bytes() == b"mine"
    scripts.datasets("clevrtex_outd", "--force")
    assert scripts.data("clevrtex") == self.MEMBERS

  def test_all_parts(self, scripts: _Scripts):
    expected = {}
    for i in range(1, 6):
      members = {f"clevrtex_full/{i}/CLEVRTEX_full.png": b"%d" % i}
      place = f"/clevrtex/clevrtex_full_part{i}.tar.gz"
      scripts.server.files[place] = _tar(members)
      expected |= members
    scripts.datasets("clevrtex_full")
    assert scripts.data("clevrtex") == expected

  @pytest.mark.parametrize("leading", ["", "./", "sketchy/", "a/b/processed/"])
  def test_sketchy_in_any_folder(self, scripts: _Scripts, leading: str):
    name = "processed/train/ep000000/ep000000_t000_fl_full.png"
    if leading.endswith("processed/"):
      name = name.removeprefix("processed/")
    archive = _tar({leading + name: b"x", "README": b"y", "train/._z": b""})
    place = "/hhousen/genesis_sketchy_processed.tar.gz"
    scripts.server.files[place] = archive
    output = scripts.datasets("sketchy")
    expected = "processed/" if "processed" in leading + name else ""
    name = name.removeprefix("processed/")
    assert scripts.data("sketchy") == {expected + name: b"x"}
    assert "  data.path=data/sketchy\n" in output

  @pytest.mark.parametrize("damage", ["cut", "flipped", "page"])
  def test_damaged_archive(self, scripts: _Scripts, damage: str):
    whole = scripts.server.files[_OUTD]
    if damage == "cut":
      scripts.server.files[_OUTD] = whole[:-4]
    elif damage == "flipped":
      scripts.server.files[_OUTD] = whole[:-8] + b"oops" + whole[-4:]
    else:
      scripts.server.files[_OUTD] = b"<html>Log in</html>"
    output = scripts.datasets("clevrtex_outd", code=1)
    fault = "a web page" if damage == "page" else "no whole gzip file"
    assert f"was fetched, but it is {fault}" in output
    assert not scripts.data("clevrtex")

  def test_resumes_an_archive(self, scripts: _Scripts):
    noise = {f"{_SCENE}.png": _CONTENT}
    scripts.server.files[_OUTD] = _tar(noise)
    scripts.server.breaks = [100_003]
    scripts.datasets("clevrtex_outd", "--retries=0", code=1)
    assert "Resuming at 0.1 MB" in scripts.datasets("clevrtex_outd")
    assert scripts.server.gets == [None, "bytes=100003-"]
    assert scripts.data("clevrtex") == noise

  def test_another_archive(self, scripts: _Scripts):
    scripts.server.files[_OUTD] = _tar({"clevrtex_full/0/a.png": b"x"})
    output = scripts.datasets("clevrtex_outd", code=1)
    assert "has no folder clevrtex_outd" in output
    scripts.server.files[_OUTD] = gzip.compress(b"no tar" * 200)
    output = scripts.datasets("clevrtex_outd", "--force", code=1)
    assert "cannot unpack data/clevrtex/clevrtex_outd.tar.gz: " in output

  @pytest.mark.parametrize(
    "name", ["../outside", f"{_SCENE}/../../../../outside", "/tmp/outside"]
  )
  def test_refuses_bad_names(self, scripts: _Scripts, name: str):
    scripts.server.files[_OUTD] = _tar({name: b"evil"})
    output = scripts.datasets("clevrtex_outd", code=1)
    assert f"member {name!r} would land elsewhere" in output
    assert not list(scripts.folder.parent.rglob("*outside*"))

  @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
  def test_refuses_links(self, scripts: _Scripts, kind: bytes):
    scripts.server.files[_OUTD] = _tar({_SCENE: b""}, kind, "/etc/passwd")
    output = scripts.datasets("clevrtex_outd", code=1)
    assert f"{_SCENE!r} is a link or special" in output
    assert not scripts.data("clevrtex")

  @pytest.mark.parametrize("link", ["clevrtex_outd", f"{_SCENE}.png"])
  def test_links_that_are_there(
    self, scripts: _Scripts, tmp_path: pathlib.Path, link: str
  ):
    outside = tmp_path / "outside"
    outside.mkdir()
    path = scripts.folder / "data" / "clevrtex" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    output = scripts.datasets("clevrtex_outd", code=1)
    assert "leads elsewhere by a link" in output
    assert not list(outside.iterdir())


class TestHDF5:
  """Datasets in files of their own."""

  NAMES = {
    "3dshapes": ["/3d-shapes/3dshapes.h5"],
    "hhousen_clevr": ["/hhousen/clevr_with_masks.h5"],
    "hhousen_tetrominoes": ["/hhousen/tetrominoes.h5"],
    "hhousen_ravens": [
      f"/hhousen/RAVENS%20Robot%20Dataset/ravens_robot_data_{split}.h5"
      for split in ("train", "test")
    ],
    "library_clevrtex": [
      "/library/clevrtex-full.hdf5",
      "/library/clevrtex-metadata.npy",
    ],
  }

  @pytest.mark.parametrize("name", NAMES)
  def test_fetches(self, scripts: _Scripts, name: str):
    places = self.NAMES[name]
    scripts.server.files = {place: place.encode() for place in places}
    scripts.datasets(name)
    folder = name.split("_")[0].replace("library", "object_centric_library")
    found = scripts.data("" if name == "3dshapes" else folder)
    assert found == {place.split("/")[-1]: place.encode() for place in places}

  @pytest.mark.parametrize(
    "name",
    ["clevr", "multi_dsprites", "objects_room", "shapestacks", "tetrominoes"],
  )
  def test_known_checksums(self, scripts: _Scripts, name: str):
    full = {
      "clevr": "clevr_10",
      "multi_dsprites": "multidsprites_colored_on_grayscale",
      "objects_room": "objects_room_train",
    }.get(name, name)
    place = f"/library/{full}-full.hdf5"
    scripts.server.files[place] = _CONTENT
    scripts.server.has_md5 = False
    output = scripts.datasets(f"library_{name}", code=1)
    assert re.search(
      "fetched, but its SHA-256 checksum is not [0-9a-f]{64}", output
    )
    assert not scripts.data("object_centric_library")

  def test_checksum_that_a_redirection_states(self, scripts: _Scripts):
    server, place = scripts.server, "/hhousen/tetrominoes.h5"
    server.has_md5, server.linked_sha256 = False, True
    server.files["/elsewhere"] = _CONTENT
    server.redirections[place] = "/elsewhere"
    server.breaks = [100_003]
    scripts.datasets("hhousen_tetrominoes", "--retries=0", code=1)
    assert "Resuming at 0.1 MB" in scripts.datasets("hhousen_tetrominoes")
    path = scripts.folder / "data" / "hhousen" / "tetrominoes.h5"
    assert path.read_bytes() == _CONTENT
    path.write_bytes(_CONTENT[::-1])
    output = scripts.datasets("hhousen_tetrominoes", code=1)
    assert "is not the server's file: its SHA-256 checksum is not" in output

  def test_default_addresses(self, scripts: _Scripts):
    scripts.add_tool("curl", "exit 6")
    for name in ("CLEVRTEX", "SHAPES3D", "LIBRARY", "HHOUSEN"):
      del scripts.environment[f"IODINE_{name}_URL"]
    hub = "huggingface.co/HHousen/object-discovery-pytorch/resolve/main"
    for name, address in (
      (
        "clevrtex_camo",
        "thor.robots.ox.ac.uk/datasets/clevrtex/clevrtex_camo.tar.gz",
      ),
      ("3dshapes", "storage.googleapis.com/3d-shapes/3dshapes.h5"),
      (
        "library_shapestacks",
        "data-download.compute.dtu.dk/multi_object_datasets/"
        "shapestacks-full.hdf5",
      ),
      ("sketchy", f"{hub}/Datasets/genesis_sketchy_processed.tar.gz"),
      (
        "hhousen_ravens",
        f"{hub}/Datasets/RAVENS%20Robot%20Dataset/ravens_robot_data_train.h5",
      ),
    ):
      output = scripts.datasets(name, code=1)
      assert f" https://{address}:" in output
