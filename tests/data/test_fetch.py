"""Downloads from a local server that misbehaves in many ways."""

import gc
import hashlib
import http.server
import os
import threading
import time
import urllib.request

import numpy as np
import pytest

from numpyvit import UserError
from numpyvit.data import fetch as fetching
from numpyvit.data.fetch import fetch
from numpyvit.data.registry import KNOWN

# urllib leaves a socket open after a redirection to an invalid address, and the garbage
# collector warns about it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = []  # the answer to each request in turn: a method of Handler, its arguments
        self.ranges = []  # that were requested
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def handle_error(self, request, client_address):
        """Ignore clients that close the connection."""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        requested = self.headers.get("Range", "")
        self.server.ranges.append(requested)
        start = int(requested.removeprefix("bytes=").removesuffix("-") or 0)
        script = self.server.script
        answer = script.pop(0) if len(script) > 1 else script[0]  # the last one is repeated
        method, *arguments = answer.split()
        getattr(self, method)(start, *map(int, arguments))

    def head(self, code, **fields):
        self.send_response(code)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def part(self, start, body=CONTENT, length=None):
        length = len(body) - start if length is None else length
        if start:
            self.head(
                206,
                Content_Length=length,
                Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}",
            )
        else:
            self.head(200, Content_Length=length)

    def good(self, start):
        self.part(start)
        self.wfile.write(CONTENT[start:])

    def no_ranges(self, start):
        self.part(0)
        self.wfile.write(CONTENT)

    def no_length(self, start):
        self.head(200)
        self.wfile.write(CONTENT)

    def cut(self, start, after):
        self.part(start)
        self.wfile.write(CONTENT[start : start + after])

    def no_length_cut(self, start, after):
        self.head(200)
        self.wfile.write(CONTENT[:after])

    def reset(self, start):
        self.part(start)
        self.wfile.write(CONTENT[start : start + 1000])
        # With SO_LINGER of 0, the client sees a reset connection.
        self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def hang_up(self, start):
        self.connection.close()

    def stall(self, start):
        self.part(start)
        self.wfile.write(CONTENT[start : start + 1000])
        self.wfile.flush()
        time.sleep(3)

    def drip(self, start):
        self.part(start)
        for i in range(start, start + 300):
            self.wfile.write(CONTENT[i : i + 1])
            time.sleep(0.01)

    def silent(self, start):
        time.sleep(3)

    def slow_head(self, start):
        for byte in b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 100:
            self.wfile.write(bytes([byte]))
            time.sleep(0.02)

    def shorter(self, start):
        self.part(start, length=1000)
        self.wfile.write(CONTENT[start:])

    def longer(self, start):
        self.part(start, length=10**12)
        self.wfile.write(CONTENT[start:])

    def endless(self, start):
        self.head(200)
        for _ in range(100):
            self.wfile.write(CONTENT)

    def wrong(self, start):
        self.part(start)
        self.wfile.write(bytes(len(CONTENT) - start))

    def wrong_part(self, start):
        self.head(
            206,
            Content_Length=len(CONTENT) - start,
            Content_Range=f"bytes 7-{len(CONTENT)}/{len(CONTENT)}",
        )
        self.wfile.write(CONTENT[start:])

    def page(self, start):
        self.head(200)
        self.wfile.write(b"<html>please log in to this network")

    def status(self, start, code):
        self.head(code, Content_Length=5)
        self.wfile.write(b"hello")

    def busy(self, start, seconds):
        self.head(503, Retry_After=seconds)

    def away(self, start):
        self.head(302, Location=f"http://127.0.0.1:{self.server.server_port}/elsewhere")

    def file(self, start):
        self.head(302, Location="file:///etc/passwd")

    def zeros_cut(self, start):
        self.part(start)
        self.wfile.write(bytes(1000))

    def chunked_page(self, start):
        self.head(200, Transfer_Encoding="chunked")
        self.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")

    def chunked_drip(self, start):
        self.protocol_version = "HTTP/1.1"
        self.head(200, Transfer_Encoding="chunked")
        for _ in range(300):
            self.wfile.write(b"0")
            time.sleep(0.01)

    def chunked(self, start):
        self.protocol_version = "HTTP/1.1"
        self.head(200, Transfer_Encoding="chunked")
        for i in range(0, len(CONTENT), 60_000):
            chunk = CONTENT[i : i + 60_000]
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def long_length(self, start):
        self.head(200, Content_Length="9" * 5000)

    def to_nowhere(self, start):
        self.head(302, Location="http://[bad")

    def nonsense(self, start):
        self.wfile.write(b"\0\1\2 not http at all\r\n\r\n" * 50)

    def long_line(self, start):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX: " + b"y" * 1_000_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)
    monkeypatch.setattr(fetching, "WAITS", (0.01,) * 4)
    monkeypatch.setattr(fetching, "MAX_WAIT", 0.3)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    servers = []

    def start(*script):
        one = Server()
        one.script = list(script)
        servers.append(one)
        return one, f"http://127.0.0.1:{one.server_port}/file"

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()
    gc.collect()  # so that its warnings do not appear in another test


def get(tmp_path, *urls):
    start = time.perf_counter()
    fetch(urls, tmp_path / "in" / "file.gz", len(CONTENT), SHA256, bar=False)
    assert time.perf_counter() - start < 10


def is_complete(tmp_path):
    """Return whether the folder contains the right file and nothing else."""
    folder = tmp_path / "in"
    names = [p.name for p in folder.iterdir()]
    return names == ["file.gz"] and (folder / "file.gz").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "script",
    [
        ("good",),
        ("no_ranges",),
        ("no_length",),
        ("away", "good"),
        ("status 503", "good"),
        ("busy 0", "busy 0", "good"),
        ("status 429", "status 500", "good"),
        ("cut 100000", "good"),
        ("cut 100", "cut 100", "cut 0", "good"),
        ("cut 100000", "no_ranges"),
        ("no_length_cut 200000", "good"),
        ("no_length_cut 200000", "no_length"),
        ("reset", "reset", "good"),
        ("hang_up", "good"),
        ("stall", "good"),
        ("drip", "good"),
        ("silent", "good"),
        ("cut 10", "status 416", "good"),
        ("page", "good"),
        ("chunked",),
        ("chunked_page", "good"),
        ("chunked_drip", "good"),
        ("long_length", "good"),
        ("to_nowhere", "good"),
        ("cut 200000", "no_length_cut 10", "good"),
        ("zeros_cut", "good"),
        ("nonsense", "good"),
        ("long_line", "good"),
        ("slow_head", "good"),
    ],
)
def test_temporary_problems_are_overcome(tmp_path, server, script):
    _, url = server(*script)
    get(tmp_path, url)
    assert is_complete(tmp_path)


def test_a_broken_connection_is_resumed(tmp_path, server):
    one, url = server("cut 100000", "cut 50000", "good")
    get(tmp_path, url)
    assert one.ranges == ["", "bytes=100000-", "bytes=150000-"]
    assert is_complete(tmp_path)


def test_a_host_that_makes_progress_is_never_given_up(tmp_path, server):
    one, url = server("cut 5000")
    get(tmp_path, url)
    assert len(one.ranges) == 60
    assert is_complete(tmp_path)


@pytest.mark.parametrize(
    "how",
    [
        "status 404",
        "status 403",
        "status 410",
        "wrong",
        "shorter",
        "longer",
        "endless",
        "file",
        "status 400",
    ],
)
def test_a_host_without_the_file_is_asked_once_and_the_next_is_used(tmp_path, server, how):
    (bad, bad_url), (_, good_url) = server(how), server("good")
    get(tmp_path, bad_url, good_url)
    assert is_complete(tmp_path)
    assert len(bad.ranges) == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (("status 404",), "it answers 404 Not Found"),
        (("status 503",), "it answers 503 Service Unavailable"),
        (("wrong",), "it sends a file whose SHA-256 is not"),
        (("stall",), "timed out"),
        (("drip",), "sent"),
        (("hang_up",), r"closed connection"),
        (("cut 0",), "the connection was closed after 0 of 300,000 bytes"),
        (("longer",), "it offers 1,000,000,000,000 bytes, not 300,000"),
        (("endless",), "it sends more than 300,000 bytes"),
        (("cut 5", "wrong_part"), "it sends a different range than requested"),
        (("away",), "redirect"),
        (("file",), "not allowed"),
        (("slow_head",), "timed out"),
        (("page", "page", "status 404"), "404"),
    ],
)
def test_a_failed_download_raises_one_line_and_leaves_no_wrong_file(
    tmp_path, server, script, message
):
    _, url = server(*script)
    with pytest.raises(UserError, match=message) as error:
        get(tmp_path, url)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("file.gz could not be downloaded (127.0.0.1:")
    assert not (tmp_path / "in" / "file.gz").exists()
    parts = list((tmp_path / "in").iterdir())  # an empty one is removed
    assert [p.name for p in parts] in ([], ["file.gz.part"])
    assert all(0 < p.stat().st_size <= len(CONTENT) + (1 << 17) for p in parts)


def test_a_wrong_part_is_discarded(tmp_path, server):
    one, url = server("good")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file.gz.part").write_bytes(bytes(1234))
    get(tmp_path, url)
    assert one.ranges == ["bytes=1234-", ""]
    assert is_complete(tmp_path)
    (tmp_path / "in" / "file.gz").unlink()
    (tmp_path / "in" / "file.gz.part").write_bytes(bytes(len(CONTENT) + 1))
    get(tmp_path, url)
    assert is_complete(tmp_path)


def test_the_next_call_resumes_the_download(tmp_path, server):
    _, bad = server("cut 123456", "status 404")
    with pytest.raises(UserError):
        get(tmp_path, bad)
    one, url = server("good")
    get(tmp_path, url)
    assert one.ranges == ["bytes=123456-"]
    assert is_complete(tmp_path)


def test_a_complete_part_is_not_downloaded_again(tmp_path, server):
    one, url = server("status 404")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file.gz.part").write_bytes(CONTENT)
    get(tmp_path, url)
    assert one.ranges == []
    assert is_complete(tmp_path)


def test_without_a_network_it_fails_immediately(tmp_path, server, monkeypatch):
    monkeypatch.setattr(fetching, "WAITS", (60.0,))
    with pytest.raises(UserError, match=r"nowhere\.invalid: "):
        get(tmp_path, "http://nowhere.invalid/file")


def test_a_folder_that_is_not_writable(tmp_path, server):
    _, url = server("good")
    (tmp_path / "in").write_text("I am a file")
    with pytest.raises(UserError, match=r"could not be written \(.*choose a writable folder"):
        get(tmp_path, url)
    assert (tmp_path / "in").read_text() == "I am a file"


@pytest.mark.parametrize("how", ["zeros_cut", "chunked_page", "page", "status 503", "stall"])
def test_a_wrong_part_of_one_host_does_not_spoil_the_next(tmp_path, server, how):
    (_, bad_url), (_, good_url) = server(how), server("good")
    get(tmp_path, bad_url, good_url)
    assert is_complete(tmp_path)


def test_a_part_is_kept_when_a_host_sends_the_file_from_the_start(tmp_path, server):
    _, url = server("cut 200000", "no_length_cut 10", "status 404")
    with pytest.raises(UserError):
        get(tmp_path, url)
    assert (tmp_path / "in" / "file.gz.part").read_bytes() == CONTENT[:200000]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such locks")
def test_a_second_process_is_refused(tmp_path, server):
    _, url = server("good")
    (tmp_path / "in").mkdir()
    with (
        open(tmp_path / "in" / "file.gz.part", "ab") as f,
        fetching.exclusive_lock(f, "no"),
        pytest.raises(UserError, match="is being downloaded by another process: wait for it"),
    ):
        get(tmp_path, url)
    assert (tmp_path / "in" / "file.gz.part").exists()  # it belongs to the other process
    get(tmp_path, url)
    assert is_complete(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
@pytest.mark.parametrize("make", [os.symlink, os.link, lambda victim, part: os.mkfifo(part)])
@pytest.mark.parametrize("how", ["good", "page"])
def test_a_part_that_is_a_link_or_a_pipe_is_refused(tmp_path, server, make, how):
    _, url = server(how)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "in").mkdir()
    make(victim, tmp_path / "in" / "file.gz.part")
    with pytest.raises(UserError, match="is not a download that was begun"):
        get(tmp_path, url)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "in" / "file.gz").exists()


def test_a_redirect_may_not_leave_https():
    follow = fetching.NoDowngrade().redirect_request
    secure = urllib.request.Request("https://example.org/file", headers={"Range": "bytes=9-"})
    for url in ("http://example.org/file", "http://169.254.169.254/", "ftp://example.org/file"):
        with pytest.raises(fetching.RefusedError, match="without encryption"):
            follow(secure, None, 302, "Found", {}, url)
    found = follow(secure, None, 302, "Found", {}, "https://mirror.example.org/file")
    assert found.get_header("Range") == "bytes=9-"
    plain = urllib.request.Request("http://example.org/file")
    assert follow(plain, None, 302, "Found", {}, "http://example.org/other").type == "http"


def test_hosts_without_encryption_are_the_last():
    for known in KNOWN.values():
        assert known.hosts[0].startswith("https://")
        schemes = [host.split(":")[0] for host in known.hosts]
        assert schemes == sorted(schemes, reverse=True)
