"""The server answers its own page, and gives everybody else one line."""

import contextlib
import io
import json
import socket
import statistics
import threading
import time

import numpy as np
import pytest
from demo_model import SHAPE, images, session
from PIL import Image

from numpyvit import Classifier, UserError
from numpyvit.look import server as server_module
from numpyvit.look.server import Server
from numpyvit.look.session import Example, Session

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_page(nonce):
    return f"<!DOCTYPE html><script nonce='{nonce}'></script>"


@contextlib.contextmanager
def running(found):
    """Serve a session in a thread."""
    with Server(found, make_page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server():
    with running(session()) as found:
        yield found


@pytest.fixture(autouse=True)
def no_traceback(capfd):
    """No request may make the server print anything, unless a test reads it."""
    yield
    assert capfd.readouterr().err == ""


def send(server, data, wait=5.0):
    """Send bytes and return the whole answer."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=wait) as s:
        with contextlib.suppress(OSError):  # it may answer and close before it has read all
            s.sendall(data)
        return receive(s)


def receive(s):
    """Return what arrives until the other side closes the connection."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := s.recv(65536):
            answer += part
    return answer


def parse(answer):
    """Return status, headers and body of one answer, and check that nothing follows it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(body) == int(headers["Content-Length"])
    assert SECURITY.items() <= headers.items()
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    return int(first.split()[1]), headers, body


def request(server, method, path, body=b"", **changed):
    """Return the bytes of a request as the page sends it; None leaves a header out."""
    headers = {"Host": f"127.0.0.1:{server.server_port}"}
    if method == "POST":
        headers |= {
            "Origin": f"http://127.0.0.1:{server.server_port}",
            "X-Token": server.token,
            "X-Page": "page",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(server, path="/", token=None, **changed):
    token = server.token if token is None else token
    return parse(send(server, request(server, "GET", f"{path}?token={token}", **changed)))


def post(server, path, fields, **changed):
    """Return the status and the fields of the answer, or its bytes."""
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    status, headers, answer = parse(send(server, request(server, "POST", path, body, **changed)))
    if headers["Content-Type"] == "application/json":
        return status, json.loads(answer)
    return status, answer


def is_one_line(answer):
    error = answer["error"]
    return set(answer) == {"error"} and error and "\n" not in error and "Traceback" not in error


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(file, "PNG")
    return file.getvalue()


def drawing(pixels=None):
    pixels = images(1)[0] if pixels is None else pixels
    return {"pixels": pixels.ravel().tolist(), "label": 1}


def test_the_page_has_a_new_nonce_each_time(server):
    nonces = set()
    for _ in range(2):
        status, headers, body = get(server)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        nonce = body.decode().split("'")[1]
        policy = headers["Content-Security-Policy"].split("; ")
        assert {f"script-src 'nonce-{nonce}'", f"style-src 'nonce-{nonce}'"} <= set(policy)
        assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
        assert {"connect-src 'self'", "form-action 'none'", "img-src data: blob:"} <= set(policy)
        nonces.add(nonce)
    assert len(nonces) == 2
    assert server.url == f"http://127.0.0.1:{server.server_port}/?token={server.token}"


def test_the_model(server):
    status, _, body = get(server, "/model")
    assert status == 200
    assert json.loads(body)["classes"] == ["a", "b", "c"]


def test_it_listens_on_this_machine_only(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_every_route_answers(server, monkeypatch):
    pixels = images(1)[0]
    pixels[[0, -1]] = pixels[:, [0, -1]] = 0  # a light image would be inverted
    monkeypatch.setattr(server.session, "examples", [Example("dark", pixels, 1, "as it is")])
    status, found = post(server, "/predict", png(pixels), Content_Type="image/png")
    assert status == 200
    assert found["pixels"] == pixels.ravel().tolist()
    assert found["remark"] == "12x8"
    classifier = server.session.classifier
    assert np.allclose(found["probabilities"], classifier.predict(pixels[None])[0], atol=1e-6)
    assert post(server, "/predict", {"image": 0})[1] == {**found, "remark": "as it is"}

    status, traced = post(server, "/trace", drawing(pixels))
    assert status == 200
    assert np.allclose(traced["probabilities"], found["probabilities"], atol=1e-6)
    asked = {"trace": traced["trace"], "steps": [3], "weights": ["head.out.b"], "dimages": True}
    status, arrays = post(server, "/arrays", asked)
    assert status == 200
    length = int.from_bytes(arrays[:8], "little")
    assert set(json.loads(arrays[8 : 8 + length])) == {"step.3", "weight.head.out.b", "dimages"}

    place = {"trace": traced["trace"], "weight": "embed.w", "index": 3}
    status, nudged = post(server, "/nudge", place)
    assert status == 200
    assert nudged["digits"] > 6
    wrong = post(server, "/nudge", {**place, "broken": "softmax"})[1]
    assert (wrong["numeric"], wrong["losses"]) == (nudged["numeric"], nudged["losses"])
    assert wrong["analytic"] != nudged["analytic"]
    assert post(server, "/nudge", {"trace": traced["trace"], "pixel": 95})[0] == 200
    assert post(server, "/nudge", {"trace": traced["trace"], "step": 0, "index": 95})[0] == 200

    status, learned = post(server, "/step", {**drawing(), "lr": 0.1, "steps": 3})
    assert status == 200
    assert learned["losses"][3] < learned["losses"][0]
    assert post(server, "/undo", {})[1]["undo"] == 0
    assert post(server, "/reset", {})[0] == 200


@pytest.mark.parametrize(
    "host", [None, "evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.:{}", "[::1]:{}"]
)
def test_another_host_is_refused(server, host):
    host = host and host.format(server.server_port)
    assert get(server, Host=host)[0] == 403
    assert post(server, "/predict", {"image": 0}, Host=host)[0] == 403


def test_localhost_is_this_host(server):
    assert get(server, Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "https://127.0.0.1:{}",
        "http://127.0.0.1",
        "http://127.0.0.1:{}.evil.example",
        "",
    ],
)
def test_another_origin_is_refused(server, origin):
    origin = origin.format(server.server_port)
    assert post(server, "/predict", {"image": 0}, Origin=origin)[0] == 403
    assert get(server, Origin=origin)[0] == 403


def test_a_request_without_an_origin_is_answered(server):
    assert post(server, "/predict", {"image": 0}, Origin=None)[0] == 200


@pytest.mark.parametrize("token", ["", "x", "\xe9", None])
def test_a_wrong_token_is_refused(server, token):
    assert post(server, "/predict", {"image": 0}, X_Token=token)[0] == 403
    path = "/" if token is None else f"/?token={token!r}"
    assert parse(send(server, request(server, "GET", path)))[0] == 403
    two = f"/?token={server.token}&token={server.token}"
    assert parse(send(server, request(server, "GET", two)))[0] == 403
    # The token in the address of a POST does not count: it could be in a link.
    assert post(server, f"/predict?token={server.token}", {"image": 0}, X_Token=token)[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/favicon.ico", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/model/", 404),
        ("POST", "/nothing", 404),
        ("GET", "/predict", 405),
        ("POST", "/model", 405),
        ("POST", "/", 405),
        ("PUT", "/predict", 501),
        ("DELETE", "/", 501),
        ("OPTIONS", "/predict", 501),
        ("\x00", "/", 501),
    ],
)
def test_another_address_or_method_is_refused(server, method, path, status):
    if method == "POST":
        assert post(server, path, {})[0] == status
    else:
        found, _, body = parse(
            send(server, request(server, method, f"{path}?token={server.token}"))
        )
        assert found == status
        assert is_one_line(json.loads(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        b'{"image": NaN}',
        b"[" * 60000,
        b'{"a":' * 10000,
        b"1" * 60000,
    ],
)
def test_what_is_not_a_json_object_is_refused(server, body):
    status, answer = post(server, "/predict", body)
    assert status == 400
    assert is_one_line(answer)


TRACE = object()  # stands for the number of a trace


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/predict", {}),
        ("/predict", {"image": 2}),
        ("/predict", {"image": -1}),
        ("/predict", {"image": True}),
        ("/predict", {"image": 0.0}),
        ("/predict", {"image": "/etc/passwd"}),
        ("/trace", {}),
        ("/trace", {**drawing(), "label": 3}),
        ("/trace", {**drawing(), "label": None}),
        ("/trace", {**drawing(), "pixels": [0] * 95}),
        ("/trace", {**drawing(), "pixels": [256] * 96}),
        ("/trace", {**drawing(), "pixels": [-1] * 96}),
        ("/trace", {**drawing(), "pixels": [0.5] * 96}),
        ("/trace", {**drawing(), "pixels": [True] * 96}),
        ("/trace", {**drawing(), "pixels": {"0": 1}}),
        ("/arrays", {"trace": 99999}),
        ("/arrays", {"trace": TRACE, "steps": [10**6]}),
        ("/arrays", {"trace": TRACE, "steps": [-1]}),
        ("/arrays", {"trace": TRACE, "steps": "all"}),
        ("/arrays", {"trace": TRACE, "steps": [True]}),
        ("/arrays", {"trace": TRACE, "weights": ["nothing"]}),
        ("/arrays", {"trace": TRACE, "weights": [3]}),
        ("/arrays", {"trace": TRACE, "gradients": ["../x"]}),
        ("/nudge", {"trace": TRACE}),
        ("/nudge", {"trace": TRACE, "step": 10**6, "index": 0}),
        ("/nudge", {"trace": TRACE, "step": 0, "index": 96}),
        ("/nudge", {"trace": TRACE, "step": 0, "index": -1}),
        ("/nudge", {"trace": TRACE, "weight": "nothing", "index": 0}),
        ("/nudge", {"trace": TRACE, "weight": None, "index": 0}),
        ("/nudge", {"trace": TRACE, "pixel": 96}),
        ("/nudge", {"trace": TRACE, "pixel": 0, "broken": "everything"}),
        ("/nudge", {"trace": TRACE, "pixel": 0, "broken": [1]}),
        ("/step", {**drawing(), "lr": 0, "steps": 1}),
        ("/step", {**drawing(), "lr": -1, "steps": 1}),
        ("/step", {**drawing(), "lr": 10**400, "steps": 1}),
        ("/step", {**drawing(), "lr": "0.1", "steps": 1}),
        ("/step", {**drawing(), "lr": 0.1, "steps": 11}),
        ("/step", {**drawing(), "lr": 0.1, "steps": 0}),
        ("/step", {**drawing(), "lr": 0.1}),
        ("/undo", {}),
    ],
)
def test_fields_that_do_not_fit_are_refused(server, path, fields):
    if fields.get("trace") is TRACE:
        fields = {**fields, "trace": post(server, "/trace", drawing())[1]["trace"]}
    status, answer = post(server, path, fields, X_Page="wrong fields")
    if fields.get("trace") != 99999 and "trace" in fields:
        status, answer = post(server, path, fields)
    assert status == 422
    assert is_one_line(answer)


@pytest.mark.parametrize("body", [b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(100), b"%!PS", b"<svg/>"])
def test_what_is_not_an_image_is_refused(server, body):
    status, answer = post(server, "/predict", body, Content_Type="image/png")
    assert status == 422
    assert is_one_line(answer)
    assert "the image" in answer["error"]
    assert "tmp" not in answer["error"].lower()


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (None, 411),
        ("", 400),
        ("x", 400),
        ("-1", 400),
        ("+5", 400),
        ("1_0", 400),
        ("²", 400),
        ("65537", 413),
        ("9" * 5000, 413),
    ],
)
def test_a_wrong_length_is_refused(server, length, status):
    length = length if length is None else length.encode().decode("latin1")
    assert post(server, "/predict", b"", Content_Length=length)[0] == status


def test_a_chunked_body_is_refused(server):
    assert post(server, "/predict", b"2\r\n{}\r\n0\r\n\r\n", Transfer_Encoding="chunked")[0] == 411


def test_two_lengths_are_refused(server):
    data = request(server, "POST", "/predict", b"{}")
    data = data.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")
    assert parse(send(server, data))[0] == 400


def test_a_body_that_is_too_short_is_refused(server):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as s:
        s.sendall(request(server, "POST", "/predict", b"{}", Content_Length="50"))
        s.shutdown(socket.SHUT_WR)
        assert parse(receive(s))[0] == 400


def test_a_large_body_is_refused_and_not_read(server):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as s:
        # What has not been read is discarded, so that the sender can finish and see the answer.
        s.sendall(request(server, "POST", "/predict", b"x" * 10_000_000))
        status, _, body = parse(receive(s))
    assert status == 413
    assert is_one_line(json.loads(body))


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET " + b"/" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * 70000 + b"\r\n\r\n",
        bytes(range(256)) + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # the beginning of TLS
    ],
)
def test_what_is_not_http_does_no_harm(server, data):
    answer = send(server, data)
    if answer.startswith(b"HTTP/"):
        assert parse(answer)[0] in (400, 403, 414, 431, 501, 505)
    assert get(server)[0] == 200


def test_an_error_in_the_server_is_one_line(server, monkeypatch, capfd):
    def fail(*args):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(server.session, "predict", fail)
    status, answer = post(server, "/predict", {"image": 0})
    assert status == 500
    assert is_one_line(answer)
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("numpyvit: /predict: ZeroDivisionError")


def test_32_clients_at_once_each_get_their_answer(server):
    found = [None] * 32
    pixels = images(32)
    server.session.gradients = {}

    def client(i):
        found[i] = post(server, "/trace", drawing(pixels[i]), X_Page=f"page {i % 8}")

    threads = [threading.Thread(target=client, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = server.session.classifier.predict(pixels)
    for (status, answer), p in zip(found, wanted, strict=True):
        assert status == 200
        assert np.allclose(answer["probabilities"], p, atol=1e-6)


def test_slow_and_silent_clients_do_not_stop_the_others(server, monkeypatch):
    """They are cut off in time, even if a byte arrives every now and then."""
    monkeypatch.setattr(server_module, "TIMEOUT", 0.5)
    clients = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(20)]
    for s in clients:
        s.sendall(b"POST /predict HTTP/1.1\r\n")
    start = time.monotonic()
    assert get(server)[0] == 200
    is_open = [True] * len(clients)
    while any(is_open) and time.monotonic() < start + 8:
        for i, s in enumerate(clients):
            if is_open[i]:
                s.settimeout(0.01)
                try:
                    s.sendall(b"a")
                    is_open[i] = s.recv(10) != b""
                except TimeoutError:
                    pass
                except OSError:
                    is_open[i] = False
    for s in clients:
        s.close()
    assert not any(is_open)
    assert get(server)[0] == 200


def test_a_body_that_does_not_arrive_is_answered_in_time(server, monkeypatch):
    monkeypatch.setattr(server_module, "TIMEOUT", 0.3)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as s:
        s.sendall(request(server, "POST", "/predict", b"", Content_Length="50"))
        assert parse(receive(s))[0] == 408


def test_too_many_connections_are_closed(server):
    clients = [
        socket.create_connection(("127.0.0.1", server.server_port))
        for _ in range(server_module.CONNECTIONS)
    ]
    try:
        assert send(server, request(server, "GET", f"/?token={server.token}")) == b""
    finally:
        for s in clients:
            s.close()
    for _ in range(100):
        if send(server, request(server, "GET", f"/?token={server.token}")):
            break
        time.sleep(0.05)
    assert get(server)[0] == 200


def test_a_client_that_does_not_wait_does_no_harm(server):
    for _ in range(5):
        s = socket.create_connection(("127.0.0.1", server.server_port))
        s.sendall(request(server, "GET", f"/model?token={server.token}"))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        s.close()
    assert get(server)[0] == 200


def test_a_port_in_use_is_a_user_error(server):
    with pytest.raises(UserError, match="cannot be used"):
        Server(server.session, make_page, server.server_port)


def test_the_limit_of_a_body_leaves_room_for_the_image():
    found = session()
    found.shape = (224, 224, 3)
    with Server(found, make_page) as server:
        assert server.largest_body > 4 * 224 * 224 * 3
    assert np.prod(SHAPE) * 4 < server_module.BODY


@pytest.mark.slow
def test_answers_are_fast():
    """The packaged model: /predict within 50 ms, /trace within 300 ms (median)."""
    pixels = np.zeros((28, 28, 1), np.uint8)
    pixels[5:22, 12:15] = 255
    large = png(np.kron(pixels, np.ones((10, 10, 1), np.uint8)))
    with running(Session(Classifier.mnist(), [Example("one", pixels, 1)])) as server:

        def median(path, fields, **changed):
            times = []
            for _ in range(15):
                start = time.perf_counter()
                assert post(server, path, fields, **changed)[0] == 200
                times.append(time.perf_counter() - start)
            return statistics.median(times)

        assert median("/predict", large, Content_Type="image/png") < 0.05
        assert median("/trace", drawing(pixels)) < 0.3
