"""A server on this machine that misbehaves in every way that we could think of."""

import gc
import hashlib
import http.server
import os
import threading
import time

import numpy as np
import pytest

from numpyvit import UserError
from numpyvit.data import fetch as fetching
from numpyvit.data.fetch import fetch

# urllib leaves the socket open of an answer that sends it to an address that is none; the collector finds it
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.asked = (
            [],
            [],
        )  # what to do with each request in turn; the ranges asked for
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def handle_error(self, request, client_address):
        """A client that went away is no error here."""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        script = self.server.script
        how = script.pop(0) if len(script) > 1 else script[0]  # the last one goes on for ever
        getattr(self, how.partition(" ")[0])(start, *map(int, how.split()[1:]))

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
        self.connection.setsockopt(
            1, 13, b"\1\0\0\0\0\0\0\0"
        )  # SO_LINGER of 0: the client sees a reset
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
            self.wfile.write(
                f"{len(CONTENT[i : i + 60_000]):x}\r\n".encode() + CONTENT[i : i + 60_000] + b"\r\n"
            )
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
    monkeypatch.setattr(fetching, "LONGEST", 0.3)
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
    gc.collect()  # here, and not in another test


def get(tmp_path, *urls):
    began = time.perf_counter()
    fetch(urls, tmp_path / "in" / "file.gz", len(CONTENT), SHA256, bar=False)
    assert time.perf_counter() - began < 10


def whole(tmp_path):
    folder = tmp_path / "in"
    return [p.name for p in folder.iterdir()] == ["file.gz"] and (
        folder / "file.gz"
    ).read_bytes() == CONTENT


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
def test_what_can_be_got_is_got(tmp_path, server, script):
    _, url = server(*script)
    get(tmp_path, url)
    assert whole(tmp_path)


def test_it_goes_on_where_it_was_cut(tmp_path, server):
    one, url = server("cut 100000", "cut 50000", "good")
    get(tmp_path, url)
    assert one.asked == ["", "bytes=100000-", "bytes=150000-"]
    assert whole(tmp_path)


def test_a_connection_that_is_cut_often_but_gets_on_is_not_given_up(tmp_path, server):
    one, url = server("cut 5000")
    get(tmp_path, url)
    assert len(one.asked) == 60
    assert whole(tmp_path)


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
def test_a_host_that_does_not_have_it_is_left_at_once_for_the_mirror(tmp_path, server, how):
    (bad, bad_url), (_, good_url) = server(how), server("good")
    get(tmp_path, bad_url, good_url)
    assert whole(tmp_path)
    assert len(bad.asked) == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (("status 404",), "it answers 404 Not Found"),
        (("status 503",), "it answers 503 Service Unavailable"),
        (("wrong",), "it sends another file than that of SHA-256"),
        (("stall",), "timed out"),
        (("drip",), "sent"),
        (("hang_up",), r"closed connection"),
        (("cut 0",), "the connection was cut after 0 of 300,000 bytes"),
        (("longer",), "it offers 1,000,000,000,000 bytes, not 300,000"),
        (("endless",), "it sends more than 300,000 bytes"),
        (("cut 5", "wrong_part"), "it sends another part than it was asked for"),
        (("away",), "redirect"),
        (("file",), "not allowed"),
        (("slow_head",), "timed out"),
        (("page", "page", "status 404"), "404"),
    ],
)
def test_what_cannot_be_got_ends_with_one_line_and_never_reaches_the_cache(
    tmp_path, server, script, message
):
    _, url = server(*script)
    with pytest.raises(UserError, match=message) as error:
        get(tmp_path, url)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("file.gz could not be fetched (127.0.0.1:")
    assert not (tmp_path / "in" / "file.gz").exists()
    parts = list((tmp_path / "in").iterdir())  # none that is empty
    assert [p.name for p in parts] in ([], ["file.gz.part"])
    assert all(0 < p.stat().st_size <= len(CONTENT) + (1 << 17) for p in parts)


def test_a_beginning_that_is_wrong_is_thrown_away(tmp_path, server):
    one, url = server("good")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file.gz.part").write_bytes(bytes(1234))
    get(tmp_path, url)
    assert one.asked == ["bytes=1234-", ""]
    assert whole(tmp_path)
    (tmp_path / "in" / "file.gz").unlink()
    (tmp_path / "in" / "file.gz.part").write_bytes(bytes(len(CONTENT) + 1))
    get(tmp_path, url)
    assert whole(tmp_path)


def test_the_next_call_goes_on_too(tmp_path, server):
    _, bad = server("cut 123456", "status 404")
    with pytest.raises(UserError):
        get(tmp_path, bad)
    one, url = server("good")
    get(tmp_path, url)
    assert one.asked == ["bytes=123456-"]
    assert whole(tmp_path)


def test_what_is_all_there_but_for_its_name_is_not_fetched_again(tmp_path, server):
    one, url = server("status 404")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file.gz.part").write_bytes(CONTENT)
    get(tmp_path, url)
    assert one.asked == []
    assert whole(tmp_path)


def test_no_network(tmp_path, server, monkeypatch):
    monkeypatch.setattr(fetching, "WAITS", (60.0,))
    with pytest.raises(UserError, match=r"nowhere\.invalid: "):
        get(tmp_path, "http://nowhere.invalid/file")  # at once


def test_a_folder_that_cannot_be_written_to(tmp_path, server):
    _, url = server("good")
    (tmp_path / "in").write_text("I am a file")
    with pytest.raises(
        UserError, match=r"could not be written \(.*choose a folder that can be written to"
    ):
        get(tmp_path, url)
    assert (tmp_path / "in").read_text() == "I am a file"


@pytest.mark.parametrize("how", ["zeros_cut", "chunked_page", "page", "status 503", "stall"])
def test_a_host_whose_beginning_is_wrong_does_not_spoil_the_mirror(tmp_path, server, how):
    (_, bad_url), (_, good_url) = server(how), server("good")
    get(tmp_path, bad_url, good_url)
    assert whole(tmp_path)


def test_what_has_come_is_kept_where_a_host_begins_at_the_beginning(tmp_path, server):
    _, url = server("cut 200000", "no_length_cut 10", "status 404")
    with pytest.raises(UserError):
        get(tmp_path, url)
    assert (tmp_path / "in" / "file.gz.part").read_bytes() == CONTENT[:200000]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such lock")
def test_two_at_once(tmp_path, server):
    _, url = server("good")
    (tmp_path / "in").mkdir()
    with (
        open(tmp_path / "in" / "file.gz.part", "ab") as f,
        fetching.held(f, "no"),
        pytest.raises(UserError, match="is being fetched by another process: wait for it"),
    ):
        get(tmp_path, url)
    assert (tmp_path / "in" / "file.gz.part").exists()  # it was the other one's
    get(tmp_path, url)
    assert whole(tmp_path)
