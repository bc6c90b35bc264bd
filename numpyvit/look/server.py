"""The demo's HTTP server: one page, on this machine only, and a few fixed routes.

Any page in the user's browser can send requests to a server on this machine. An answer
is therefore given only if the request carries the random token, which is in the address
that the demo prints; if its Host is this server, so that no foreign name that was made
to point here is served; and if its Origin, if any, is this page. Requests are small and
must arrive within TIMEOUT seconds, and the number of connections is limited. No route
reads a path.
"""

import io
import json
import os
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..errors import UserError
from .fields import read_json
from .routes import ROUTES, Request
from .session import Session

HOST = "127.0.0.1"
TIMEOUT = 10  # seconds in which a request must arrive, and an answer must be accepted
CONNECTIONS = 64  # at the same time
BODY = 65536  # bytes, at least; see Server.largest_body
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HTML, JSON, BYTES = "text/html; charset=utf-8", "application/json", "application/octet-stream"


class Refused(Exception):
    """The request is not answered; status and a line that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves a session to pages on this machine.

    make_page(nonce) returns the HTML of the page. port: 0 for any free one. Raises
    UserError if the port is in use. `url` is the address of the page, with the token.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = os.name == "posix"  # elsewhere, two servers could share the port

    def __init__(self, session: Session, make_page: Callable[[str], str], port: int = 0) -> None:
        self.session = session
        self.make_page = make_page
        self.token = secrets.token_urlsafe(24)
        self.free = threading.BoundedSemaphore(CONNECTIONS)
        H, W, C = session.shape
        self.largest_body = max(BODY, 4 * H * W * C + 4096)  # the pixels of an image, as JSON
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(
                f"port {port} cannot be used ({why}): choose another one, or 0 for any free one"
            ) from None

    def server_bind(self) -> None:
        """Bind the socket. (The inherited function looks up a name, which can be slow.)"""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/?token={self.token}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close it if there are too many."""
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that broke off, and a line about other errors."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            report("a connection", error)


class DeadlineReader(io.RawIOBase):
    """Reads from a socket until a deadline, however slowly the bytes arrive."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection, self.deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.connection.settimeout(max(0.001, self.deadline - time.monotonic()))
        count = self.connection.recv_into(buffer)
        self.connection.settimeout(TIMEOUT)
        return count


class Handler(BaseHTTPRequestHandler):
    """Answers one request. (By HTTP/1.0, the connection is then closed.)"""

    server: Server
    server_version, sys_version = "numpyvit", ""
    wbufsize = -1  # one packet for the headers and a small body

    def setup(self) -> None:
        super().setup()
        reader = DeadlineReader(self.connection, time.monotonic() + TIMEOUT)
        self.rfile = io.BufferedReader(reader)

    def do_GET(self) -> None:
        self.respond()

    do_POST = do_GET

    def respond(self) -> None:
        """Answer the request, whatever happens."""
        nonce = secrets.token_urlsafe(16)
        status, kind, body = 200, JSON, b""
        try:
            kind, body = self.answer(nonce)
        except Refused as refused:
            status, body = refused.status, error_body(refused)
        except UserError as error:
            status, body = 422, error_body(error)
        except TimeoutError:
            status, body = 408, error_body("the request did not arrive in time")
        except ConnectionError:
            return
        except Exception as error:
            status, body = 500, error_body("an error in the server, which its terminal shows")
            report(self.path, error)
        self.send(status, kind, body, nonce)

    def answer(self, nonce: str) -> tuple[str, bytes]:
        """Return the type and the bytes of the answer."""
        url = urlsplit(self.path)
        self.check_sender(url.query)
        if url.path == "/":
            self.check_method("GET")
            return HTML, self.server.make_page(nonce).encode()
        if url.path == "/model":
            self.check_method("GET")
            return JSON, to_json(self.server.session.describe())
        if url.path not in ROUTES:
            raise Refused(404, "there is nothing at this address")
        self.check_method("POST")
        result = ROUTES[url.path](self.server.session, self.read_request())
        return (BYTES, result) if isinstance(result, bytes) else (JSON, to_json(result))

    def check_method(self, method: str) -> None:
        """Refuse the other method."""
        if self.command != method:
            raise Refused(405, f"this address takes {method} only")

    def check_sender(self, query: str) -> None:
        """Refuse a request that does not come from the page of this server."""
        port = self.server.server_port
        hosts = [f"{name}:{port}" for name in (HOST, "localhost")]
        if port == 80:
            hosts += [HOST, "localhost"]
        if self.headers.get_all("Host", []) not in [[host] for host in hosts]:
            raise Refused(403, "this is not the host that was asked for")
        origins = self.headers.get_all("Origin", [])
        if origins and origins not in [[f"http://{host}"] for host in hosts]:
            raise Refused(403, "requests of other pages are not answered")
        tokens = self.headers.get_all("X-Token", [])
        if self.command == "GET":
            tokens = parse_qs(query).get("token", [])
        token = self.server.token.encode()
        if len(tokens) != 1 or not secrets.compare_digest(tokens[0].encode(), token):
            raise Refused(
                403, "open the address that numpyvit demo has printed: the token is wrong"
            )

    def read_request(self) -> Request:
        """Return the body of the request, read as what its type says."""
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths or "Transfer-Encoding" in self.headers:
            raise Refused(411, "the length of the request is missing")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise Refused(400, "the length of the request is not a number")
        largest = self.server.largest_body
        if len(lengths[0]) > 12 or int(lengths[0]) > largest:
            raise Refused(413, f"the request is longer than {largest:,} bytes")
        body = self.rfile.read(int(lengths[0]))
        if len(body) < int(lengths[0]):
            raise Refused(400, "the request is shorter than its length says")
        page = self.headers.get("X-Page", "")[:64]
        if self.headers.get_content_maintype() == "image":
            return Request(page, {}, body)
        try:
            return Request(page, read_json(body), b"")
        except ValueError as error:
            raise Refused(400, f"the request is not a JSON object ({str(error)[:100]})") from None

    def send(self, status: int, kind: str, body: bytes, nonce: str) -> None:
        """Send an answer with the headers that protect the page."""
        with suppress(OSError):
            self.send_response(status)
            headers = {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Content-Security-Policy": POLICY.format(nonce),
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-store",
                "Cross-Origin-Resource-Policy": "same-origin",
            }
            if status == 405:
                headers["Allow"] = "GET" if self.command == "POST" else "POST"
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            if status >= 400:
                self.drop_rest()

    def drop_rest(self) -> None:
        """Discard what is still arriving, for at most a second.

        Otherwise the system would reset the connection, and the sender might never see
        the answer.
        """
        self.connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + 1
        self.connection.settimeout(0.2)
        while time.monotonic() < end and self.connection.recv(65536):
            pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is not HTTP, or whose method is unknown."""
        self.close_connection = True
        if not hasattr(self, "request_version"):
            self.request_version = "HTTP/1.0"
        self.send(int(code), JSON, error_body(message or "the request is not HTTP"), "")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def to_json(result: Any) -> bytes:
    """Return an answer as JSON, which has no NaN."""
    return json.dumps(result, allow_nan=False, separators=(",", ":")).encode()


def error_body(error: object) -> bytes:
    """Return an error as JSON: {"error": "one line"}."""
    return to_json({"error": " ".join(str(error).split())[:500]})


def report(where: str, error: object) -> None:
    """Print an unexpected error as one line."""
    line = " ".join(f"numpyvit: {where.partition('?')[0]}: {error!r}".split())
    print(line.encode("ascii", "backslashreplace").decode()[:500], file=sys.stderr)
