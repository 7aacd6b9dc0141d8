"""The loopback server records requests, serves routes and applies faults."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from stac_gitlab.testing import Answer, Fault, Headers, LoopbackServer, RecordedRequest

BODY = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer({"/bytes": BODY, "/json": {"a": 1}, "/text": "hello"}) as running:
        yield running


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.trust_env = False
        yield opened


def received(server: LoopbackServer, path: str = "/bytes") -> bytes:
    """Send a request, and return everything until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_routes_serve_bytes_text_and_json(
    server: LoopbackServer, session: requests.Session
) -> None:
    assert session.get(f"{server.url}/bytes").content == BODY
    assert session.get(f"{server.url}/text").text == "hello"
    assert session.get(f"{server.url}/json").json() == {"a": 1}
    assert session.get(f"{server.url}/json").headers["content-type"] == "application/json"


def test_a_route_may_be_a_function_of_the_request(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.route("/echo", lambda request: {"method": request.method, "sent": request.json()})
    server.route("/teapot", Answer(418, (("x-pot", "tea"),), b"short and stout"))
    assert session.post(f"{server.url}/echo", json=[1]).json() == {"method": "POST", "sent": [1]}
    teapot = session.get(f"{server.url}/teapot")
    assert (teapot.status_code, teapot.headers["X-Pot"]) == (418, "tea")


def test_the_exception_of_a_function_is_in_the_response(
    server: LoopbackServer, session: requests.Session
) -> None:
    def broken(request: RecordedRequest) -> Answer:
        raise LookupError(f"no idea of {request.path}")

    server.route("/broken", broken)
    response = session.get(f"{server.url}/broken")
    assert response.status_code == 500
    assert "LookupError: no idea of /broken" in response.text


def test_a_path_without_route_is_not_found(
    server: LoopbackServer, session: requests.Session
) -> None:
    assert session.get(f"{server.url}/nothing").status_code == 404


def test_head_has_the_length_and_no_body(server: LoopbackServer, session: requests.Session) -> None:
    response = session.head(f"{server.url}/bytes")
    assert (response.headers["content-length"], response.content) == (str(len(BODY)), b"")


def test_requests_are_recorded_as_they_were_sent(
    server: LoopbackServer, session: requests.Session
) -> None:
    session.post(
        f"{server.url}/a%2Fb%20c?x=1&y=%2F&empty=", data=b"body", headers={"X-Gitlab-Token": "t"}
    )
    (request,) = server.requests
    assert request.method == "POST"
    assert request.target == "/a%2Fb%20c?x=1&y=%2F&empty="
    assert request.raw_path == "/a%2Fb%20c"
    assert request.path == "/a/b c"
    assert request.query == {"x": "1", "y": "/", "empty": ""}
    assert request.headers["x-gitlab-TOKEN"] == "t"
    assert "PRIVATE-TOKEN" not in request.headers
    assert request.body == b"body"
    assert request.status == 404
    server.clear_requests()
    assert server.requests == []


def test_a_connection_is_kept_for_the_next_request(server: LoopbackServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", "/text")
    connection.getresponse().read()
    kept = connection.sock
    connection.request("GET", "/json")
    assert connection.getresponse().read() == b'{"a":1}'
    assert connection.sock is kept
    connection.close()


def test_a_fault_replaces_the_response_so_many_times(
    server: LoopbackServer, session: requests.Session
) -> None:
    fault = Fault(status=429, headers={"Retry-After": "3"}, body="wait", after=1, times=2)
    armed = server.inject(fault)
    responses = [session.get(f"{server.url}/text") for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 429, 429, 200]
    assert (responses[1].headers["retry-after"], responses[1].text) == ("3", "wait")
    assert armed.hits == 2


def test_a_fault_affects_matching_requests_only(
    server: LoopbackServer, session: requests.Session
) -> None:
    fault = Fault(r"/te.t$", method="post", query="page=2", status=503, times=None)
    armed = server.inject(fault)
    url = f"{server.url}/text"
    assert session.get(f"{url}?page=2").status_code == 200
    assert session.post(f"{url}?page=1").status_code == 200
    assert session.post(f"{server.url}/json?page=2").status_code == 200
    assert session.post(f"{url}?page=2").status_code == 503
    armed.disarm()
    assert session.post(f"{url}?page=2").status_code == 200


def test_the_fault_armed_first_is_applied_first(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.inject(Fault(status=500))
    server.inject(Fault(status=502))
    codes = [session.get(f"{server.url}/text").status_code for _ in range(3)]
    assert codes == [500, 502, 200]
    server.inject(Fault(status=500))
    server.clear_faults()
    assert session.get(f"{server.url}/text").status_code == 200


def test_a_fault_redirects(server: LoopbackServer, session: requests.Session) -> None:
    server.inject(Fault(path="/text", status=302, headers={"Location": f"{server.url}/json"}))
    assert session.get(f"{server.url}/text").json() == {"a": 1}
    assert [request.status for request in server.requests] == [302, 200]


def test_a_function_makes_the_response_of_a_fault(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.inject(Fault(answer=lambda request: Answer(299, (), request.path.encode())))
    response = session.get(f"{server.url}/text")
    assert (response.status_code, response.content) == (299, b"/text")


def test_a_fault_changes_headers_and_body_of_the_real_response(
    server: LoopbackServer, session: requests.Session
) -> None:
    changed = {"content-type": None, "etag": '"1"'}
    server.inject(Fault(path="/text", headers=changed, body={"b": 2}))
    response = session.get(f"{server.url}/text")
    assert (response.status_code, response.json()) == (200, {"b": 2})
    assert "content-type" not in response.headers
    assert response.headers["etag"] == '"1"'


def test_a_cut_body_is_shorter_than_its_length(server: LoopbackServer) -> None:
    server.inject(Fault(cut_after=100))
    head, _, body = received(server).partition(b"\r\n\r\n")
    assert f"content-length: {len(BODY)}".encode() in head
    assert body == BODY[:100]


def test_a_cut_body_without_length_looks_complete(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.inject(Fault(cut_after=100, close=True))
    response = session.get(f"{server.url}/bytes")
    assert "content-length" not in response.headers
    assert response.headers["connection"] == "close"
    assert response.content == BODY[:100]


def test_a_chunked_body_is_complete_or_cut(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.inject(Fault(chunked=True))
    whole = session.get(f"{server.url}/bytes")
    assert whole.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in whole.headers
    assert whole.content == BODY
    server.inject(Fault(chunked=True, cut_after=100))
    body = received(server).partition(b"\r\n\r\n")[2]
    assert body == b"%x\r\n" % len(BODY) + BODY[:100]
    server.inject(Fault(chunked=True, cut_after=100, trickle=(50, 0)))
    body = received(server).partition(b"\r\n\r\n")[2]
    assert body == b"32\r\n" + BODY[:50] + b"\r\n32\r\n" + BODY[50:100] + b"\r\n"


def test_a_reset_comes_before_the_response_or_within_the_body(server: LoopbackServer) -> None:
    server.inject(Fault(reset=True))
    with pytest.raises(ConnectionResetError):
        received(server)
    server.inject(Fault(reset=True, cut_after=10))
    with pytest.raises(ConnectionResetError):
        received(server)
    assert [request.status for request in server.requests] == [None, 200]


def test_a_dropped_connection_has_no_response(server: LoopbackServer) -> None:
    server.inject(Fault(drop=True))
    assert received(server) == b""
    assert server.requests[0].status is None


def test_hang_up_closes_the_connection_without_a_header(server: LoopbackServer) -> None:
    server.inject(Fault(hang_up=True))
    response = received(server, "/text")  # returns because the connection is closed
    assert response.endswith(b"hello")
    assert b"connection: close" not in response.lower()


def test_a_body_trickles(server: LoopbackServer, session: requests.Session) -> None:
    server.inject(Fault(path="/text", trickle=(2, 0.01)))
    begun = time.monotonic()
    assert session.get(f"{server.url}/text").text == "hello"
    assert time.monotonic() - begun > 0.02


def test_a_response_is_delayed(server: LoopbackServer, session: requests.Session) -> None:
    server.inject(Fault(delay=0.05))
    begun = time.monotonic()
    assert session.get(f"{server.url}/text").text == "hello"
    assert time.monotonic() - begun >= 0.05


def test_a_body_is_compressed_although_the_client_does_not_accept_it(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.inject(Fault(gzip=True))
    response = session.get(
        f"{server.url}/bytes", headers={"Accept-Encoding": "identity"}, stream=True
    )
    assert response.headers["content-encoding"] == "gzip"
    raw = response.raw.read(decode_content=False)
    assert len(raw) == int(response.headers["content-length"])
    assert gzip.decompress(raw) == BODY


@pytest.mark.parametrize("fault", [Fault(delay=60), Fault(trickle=(1, 60))])
def test_closing_the_server_ends_delays(fault: Fault) -> None:
    server = LoopbackServer({"/bytes": BODY}).start()
    server.inject(fault)
    client = threading.Thread(target=received, args=(server,))
    client.start()
    while not server.requests:
        time.sleep(0.001)
    server.close()
    client.join(30)
    assert not client.is_alive()


def test_closing_ends_every_connection_and_thread() -> None:
    before = set(threading.enumerate())
    server = LoopbackServer({"/text": "hello"}).start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as idle:
        assert requests.get(f"{server.url}/text", timeout=5).text == "hello"
        server.close()
        assert idle.recv(1) == b""
    assert set(threading.enumerate()) <= before
    server.close()  # the second call does nothing


def test_a_server_starts_and_stops_at_once() -> None:
    begun = time.monotonic()
    for _ in range(20):
        with LoopbackServer():
            pass
    assert time.monotonic() - begun < 10


def test_a_server_may_be_started_again() -> None:
    server = LoopbackServer({"/text": "hello"})
    for _ in range(2):
        with server:
            assert requests.get(f"{server.url}/text", timeout=5).text == "hello"
    assert len(server.requests) == 2


def test_a_stopped_server_has_no_url() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = LoopbackServer().url


def test_two_servers_are_two_origins(server: LoopbackServer) -> None:
    with LoopbackServer() as other:
        assert other.origin != server.origin
    assert server.origin == server.url == f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("asked", "status", "body", "span"),
    [
        ("bytes=10-19", 206, BODY[10:20], f"bytes 10-19/{len(BODY)}"),
        ("bytes=10200-", 206, BODY[10200:], f"bytes 10200-10239/{len(BODY)}"),
        ("bytes=-5", 206, BODY[-5:], f"bytes 10235-10239/{len(BODY)}"),
        ("bytes=10230-99999", 206, BODY[10230:], f"bytes 10230-10239/{len(BODY)}"),
        ("bytes=99999-", 416, b"range not satisfiable", f"bytes */{len(BODY)}"),
        ("bytes=5-1", 200, BODY, None),
        ("bytes=-", 200, BODY, None),
        ("bytes=0-1,5-6", 200, BODY, None),
        ("lines=1-2", 200, BODY, None),
    ],
)
def test_a_route_with_ranges(
    server: LoopbackServer,
    session: requests.Session,
    asked: str,
    status: int,
    body: bytes,
    span: str | None,
) -> None:
    server.route("/ranged", BODY, ranges=True)
    response = session.get(f"{server.url}/ranged", headers={"Range": asked})
    assert (response.status_code, response.content) == (status, body)
    assert response.headers.get("content-range") == span


def test_a_range_needs_the_same_entity_tag(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.route("/ranged", BODY, ranges=True)
    etag = session.get(f"{server.url}/ranged").headers["etag"]
    headers = {"Range": "bytes=0-1", "If-Range": etag}
    assert session.get(f"{server.url}/ranged", headers=headers).status_code == 206
    headers["If-Range"] = '"another"'
    assert session.get(f"{server.url}/ranged", headers=headers).content == BODY
    server.route("/named", BODY, ranges=True, headers={"ETag": '"mine"'})
    assert session.get(f"{server.url}/named").headers["etag"] == '"mine"'


def test_a_body_in_pieces_is_streamed(server: LoopbackServer, session: requests.Session) -> None:
    pieces = [b"a" * 300_000, b"b" * 10]
    server.route("/pieces", lambda _: Answer(body=iter(pieces)))
    server.route("/counted", lambda _: Answer(body=iter(pieces), length=300_010))
    response = session.get(f"{server.url}/pieces")
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.content == b"".join(pieces)
    response = session.get(f"{server.url}/counted")
    assert response.headers["content-length"] == "300010"
    assert response.content == b"".join(pieces)


def test_a_request_is_abandoned_if_the_client_disconnects(server: LoopbackServer) -> None:
    server.route("/large", bytes(50_000_000))
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(1000)
    (request,) = server.requests
    deadline = time.monotonic() + 5
    while not request.abandoned and time.monotonic() < deadline:
        time.sleep(0.001)
    assert request.abandoned


def test_header_names_ignore_case_and_repeated_headers_are_joined() -> None:
    headers = Headers([("Vary", "Origin"), ("vary", "Accept"), ("X-One", "1")])
    assert dict(headers) == {"vary": "Origin, Accept", "X-One": "1"}
    assert (headers["VARY"], len(headers), "x-one" in headers) == ("Origin, Accept", 2, True)
    assert "X-One" in repr(headers)


def test_requests_have_a_time_of_arrival(server: LoopbackServer) -> None:
    before = time.monotonic()
    requests.get(f"{server.url}/text", timeout=5)
    assert before < server.requests[0].arrived < time.monotonic()
    assert not server.requests[0].abandoned


def test_a_port_may_be_chosen() -> None:
    with LoopbackServer() as first:
        port = first.port
    server = LoopbackServer({"/text": "hello"}).start(port)
    assert server.port == port
    server.close()


def test_many_clients_are_served_at_once(server: LoopbackServer) -> None:
    texts: list[str] = []
    clients = [
        threading.Thread(
            target=lambda: texts.append(requests.get(f"{server.url}/text", timeout=5).text)
        )
        for _ in range(40)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join(5)
    assert texts == ["hello"] * 40
    assert len(server.requests) == 40
