"""A plain GET over an idle connection is the same as one through requests and urllib3."""

from __future__ import annotations

import gc
import gzip
import http.client
import logging
import random
import socket
import traceback
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from stac_gitlab.auth import Credentials
from stac_gitlab.auth.origins import PREPARED_URL
from stac_gitlab.errors import InvalidResponseError
from stac_gitlab.http.adapter import DeadlineAdapter
from stac_gitlab.http.head import Headers
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.http.transport import DeadlineConnection
from stac_gitlab.redaction import Secret
from stac_gitlab.settings import RetryPolicy
from tests.raw_server import Answer, RawServer

OK = b"HTTP/1.1 200 OK\r\n"
BODY = OK + b"Content-Length: 2\r\nX-A: 1\r\nContent-Type: text/plain\r\nx-a: 2\r\n\r\nok"
HEADERS = {"User-Agent": "test", "Accept-Encoding": "identity", "X-Token": Secret("glpat-canary")}


def answering(*responses: bytes) -> Answer:
    """Answer the requests of each connection with these responses, and then close it."""

    def answer(server: RawServer, connection: socket.socket) -> None:
        with suppress(OSError):
            for response in responses[:-1]:
                connection.sendall(response)
                request = connection.recv(65536)
                if not request:
                    return
                server.requests.append(request)
            connection.sendall(responses[-1])

    return answer


@pytest.fixture
def adapter() -> Iterator[DeadlineAdapter]:
    adapter = DeadlineAdapter()
    yield adapter
    adapter.close()


@pytest.fixture
def passed_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets of the requests that requests and urllib3 did not send."""
    targets: list[str] = []
    genuine = DeadlineConnection.get

    def get(self: DeadlineConnection, target: str, headers: Headers, timeout: Any) -> Any:
        response = genuine(self, target, headers, timeout)
        targets.extend([] if response is None else [target])
        return response

    monkeypatch.setattr(DeadlineConnection, "get", get)
    return targets


def get(
    adapter: DeadlineAdapter, url: str, headers: Mapping[str, Any] = HEADERS, **different: Any
) -> requests.Response:
    request = requests.PreparedRequest()
    request.prepare_method("GET")
    request.url = url
    request.headers = Headers(headers.items())
    settings = {"stream": True, "timeout": (5, 5), "verify": True, "cert": None, "proxies": {}}
    settings |= different
    return adapter.send_over_idle(request, **settings) or adapter.send(request, **settings)


def test_both_ways_send_and_return_the_same(
    adapter: DeadlineAdapter, passed_over: list[str]
) -> None:
    with RawServer(answering(BODY, BODY)) as server:
        url = f"{server.url}/a%20b/(c)?ref=main&lfs=true"
        responses = [get(adapter, url)]
        assert responses[0].content == b"ok"
        responses.append(get(adapter, url))
        assert responses[1].content == b"ok"
    assert passed_over == ["/a%20b/(c)?ref=main&lfs=true"]
    assert server.requests[0] == server.requests[1]
    usual, quick = map(vars, responses)
    # Each has those of its own.
    for name in ("raw", "request", "connection", "elapsed"):
        usual.pop(name)
        quick.pop(name, None)
    assert usual == quick


@pytest.mark.parametrize(
    "different",
    [
        {"url": "/a#b"},
        {"url": "/a%2db"},
        {"url": "/a/../b"},
        {"url": "/a|b"},
        {"headers": {**HEADERS, "Host": "other.example.org"}},
        {"headers": {"Accept-Encoding": "identity"}},
        {"headers": {**HEADERS, "X-Bytes": b"1"}},
        {"headers": {**HEADERS, "X-Broken": "1\r\n 2"}},
        {"headers": {**HEADERS, "X-Latin": "\xe9"}},
        {"verify": "/another/bundle.pem"},
        {"stream": False},
    ],
    ids=str,
)
def test_what_the_layers_would_change_goes_through_them(
    adapter: DeadlineAdapter, passed_over: list[str], different: dict[str, Any]
) -> None:
    with RawServer(answering(BODY, BODY)) as server:
        assert get(adapter, f"{server.url}/a").content == b"ok"
        url = server.url + different.pop("url", "/a")
        with suppress(OSError):
            # The file with certificates is missing.
            assert get(adapter, url, **different).content == b"ok"
        adapter.close()
    assert passed_over == []


def test_a_proxy_is_used(adapter: DeadlineAdapter, passed_over: list[str]) -> None:
    with RawServer(answering(BODY, BODY)) as server, RawServer(answering(BODY)) as proxy:
        get(adapter, f"{server.url}/a").close()
        url = f"{server.url}/b"
        assert get(adapter, url, proxies={"http": proxy.url}).content == b"ok"
    assert proxy.requests[0].startswith(f"GET {url} ".encode())
    assert passed_over == []


def watched(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Replace a method as a tool that measures or records requests does."""
    seen: list[object] = []
    genuine = getattr(owner, name)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        seen.append(args)
        return genuine(*args, **kwargs)

    monkeypatch.setattr(owner, name, replacement)
    return seen


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (requests.Session, "send"),
        (HTTPAdapter, "send"),
        (urllib3.HTTPConnectionPool, "urlopen"),
        (urllib3.connection.HTTPConnection, "request"),
        (urllib3.connection.HTTPConnection, "getresponse"),
        (http.client.HTTPConnection, "putrequest"),
        (http.client.HTTPConnection, "getresponse"),
    ],
    ids=lambda value: getattr(value, "__qualname__", value),
)
def test_tools_that_replace_a_layer_see_each_request(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(answering(BODY, BODY)) as server, GitLabSession(Credentials()) as session:
        assert session.open(f"{server.url}/a").content == b"ok"
        seen = watched(owner, name, monkeypatch)
        assert session.open(f"{server.url}/b").content == b"ok"
    assert len(seen) == 1


def test_redirects_over_an_idle_connection_are_followed(passed_over: list[str]) -> None:
    redirect = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    with (
        RawServer(answering(redirect, BODY, redirect, BODY)) as server,
        GitLabSession(Credentials()) as session,
    ):
        for _ in range(2):
            response = session.open(f"{server.url}/here")
            assert response.content == b"ok"
            assert [step.url for step in response.history] == [f"{server.url}/here"]
            assert response.url == f"{server.url}/there"
    assert passed_over == ["/there", "/here", "/there"]


def test_hooks_see_each_response() -> None:
    seen: list[str] = []
    with RawServer(answering(BODY, BODY)) as server, GitLabSession(Credentials()) as session:
        session.hooks["response"].append(lambda response, **_: seen.append(response.url))
        for _ in range(2):
            assert session.open(f"{server.url}/a").content == b"ok"
    assert len(seen) == 2


def test_logging_and_debugging_show_each_request(
    adapter: DeadlineAdapter,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with RawServer(answering(BODY, BODY, BODY)) as server:
        assert get(adapter, f"{server.url}/a").content == b"ok"
        with caplog.at_level(logging.DEBUG, logger="urllib3.connectionpool"):
            assert get(adapter, f"{server.url}/logged").content == b"ok"
        monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
        assert get(adapter, f"{server.url}/printed").content == b"ok"
    assert "GET /logged" in caplog.text
    assert "GET /printed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (b"", requests.ConnectionError),
        (OK[:9], requests.ConnectionError),
        (b"HTTP/2 200\r\n\r\n", requests.ConnectionError),
        (OK + b"no header\r\n\r\n", requests.ConnectionError),
    ],
)
def test_failures_are_those_of_requests(
    adapter: DeadlineAdapter,
    passed_over: list[str],
    second: bytes,
    expected: type[Exception],
) -> None:
    raised = []
    for first in ([BODY], []):
        with RawServer(answering(*first, second)) as server:
            for _ in first:
                assert get(adapter, f"{server.url}/a").content == b"ok"
            with pytest.raises(expected) as caught:
                get(adapter, f"{server.url}/a")
            raised.append(str(caught.value))
            assert caught.value.request.url == f"{server.url}/a"  # type: ignore[attr-defined]  # of requests
        # The connection was closed: the next request opens another.
        assert len(server.requests) == len(first) + 1
    assert raised[0] == raised[1]
    assert passed_over == []


def test_a_silent_server_is_a_read_timeout(adapter: DeadlineAdapter) -> None:
    def answer(server: RawServer, connection: socket.socket) -> None:
        answering(BODY, b"")(server, connection)
        connection.recv(1)

    with RawServer(answer) as server:
        assert get(adapter, f"{server.url}/a").content == b"ok"
        with pytest.raises(requests.ReadTimeout):
            get(adapter, f"{server.url}/a", timeout=(5, 0.05))


def test_an_unread_response_is_not_the_beginning_of_the_next(
    adapter: DeadlineAdapter, passed_over: list[str]
) -> None:
    long = OK + b"Content-Length: 200000\r\n\r\n" + b"HTTP/1.1 200 OK\r\n\r\n" * 10
    with RawServer(answering(long, BODY)) as server:
        for _ in range(2):
            get(adapter, f"{server.url}/a").raw.release_conn()
        adapter.close()
    assert len(server.requests) == 2
    assert passed_over == []


def test_a_connection_that_the_server_will_close_is_not_used_again(
    adapter: DeadlineAdapter, passed_over: list[str]
) -> None:
    last = BODY.replace(OK, OK + b"Connection: close\r\n")
    with RawServer(answering(BODY, last)) as server:
        for _ in range(3):
            assert get(adapter, f"{server.url}/a").content == b"ok"
        adapter.close()
    assert passed_over == ["/a"]


def test_no_frame_of_an_interrupt_holds_the_token(
    adapter: DeadlineAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        """A socket that is interrupted while it sends."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

        def sendall(self, *_: object) -> None:
            raise KeyboardInterrupt

    with RawServer(answering(BODY, BODY)) as server:
        assert get(adapter, f"{server.url}/a").content == b"ok"
        [pool] = adapter._pools.values()
        connection = pool.pool.queue[-1]  # type: ignore[union-attr]  # it is open
        monkeypatch.setattr(connection, "sock", Interrupted(connection.sock))
        monkeypatch.setattr(DeadlineConnection, "is_connected", True)
        with pytest.raises(KeyboardInterrupt) as caught:
            get(adapter, f"{server.url}/a")
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in shown.stack if "stac_gitlab/http" in frame.filename]
    assert ours
    assert not any("canary" in value for frame in ours for value in (frame.locals or {}).values())


def test_a_url_that_is_taken_as_it_is_would_not_be_changed() -> None:
    """Compares with what requests prepares, and with what urllib3 sends of it."""
    numbers = random.Random(7)
    pieces = [*"abzAZ09-._~!$&'()*+,;=:@/?#|\"<> [^", "%2F", "%2f", "%20", "%41", "%", "/../", "//"]
    taken = 0
    for _ in range(20_000):
        rest = "".join(numbers.choices(pieces, k=numbers.randrange(8)))
        url = f"http://{numbers.choice(['a.org', 'a.org:80', 'A.org', 'u@a.org'])}/{rest}"
        match = PREPARED_URL.fullmatch(url)
        if match is None:
            continue
        taken += 1
        prepared = requests.PreparedRequest()
        prepared.prepare_url(url, None)
        assert prepared.url == url
        assert prepared.path_url == match[2]
        assert urllib3.util.url._encode_target(match[2]) == match[2]
    assert taken > 1000


def test_the_session_is_used_like_any_other_of_requests() -> None:
    with RawServer(answering(*[BODY] * 5)) as server, GitLabSession(Credentials()) as session:
        assert session.get(f"{server.url}/a", timeout=5).content == b"ok"
        for timeout in (5, (5, None), urllib3.Timeout(5)):
            response = session.get(f"{server.url}/a", stream=True, timeout=timeout)  # type: ignore[arg-type]  # requests takes it
            assert response.content == b"ok"
        request = requests.Request("GET", f"{server.url}/a").prepare()
        assert session.send(request).content == b"ok"


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"x"\r\nEvil: 1'},
        {"If-None-Match": '"x"\r\nContent-Length: 60'},
        {"X: y": "1"},
        {"X-A: b\r\nEvil": "1"},
        {"X-A": " 1"},
        {"X-A": "1\n 2"},
        {"X-A": None},
        {"X-A": 1},
    ],
    ids=str,
)
def test_no_header_becomes_another(headers: dict[str, Any]) -> None:
    with RawServer(answering(BODY, BODY)) as server, GitLabSession(Credentials()) as session:
        assert session.open(f"{server.url}/a").content == b"ok"
        with pytest.raises(InvalidResponseError):
            session.open(f"{server.url}/a", headers=headers)
    assert len(server.requests) == 1


@pytest.mark.parametrize("earlier", [0, 1])
def test_the_end_of_a_body_is_known_on_both_ways(earlier: int) -> None:
    """The first response comes through urllib3, the second over the idle connection."""
    packed = gzip.compress(b"unpacked")
    for broken, expected in (
        (OK + b"Content-Length: 9\r\n\r\nshort", requests.exceptions.ChunkedEncodingError),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nsh", requests.exceptions.RequestException),
        (OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nshort", InvalidResponseError),
    ):
        with (
            RawServer(answering(*[BODY] * earlier, broken)) as server,
            GitLabSession(Credentials(), retry=RetryPolicy(max_attempts=1)) as session,
        ):
            for _ in range(earlier):
                assert session.open(f"{server.url}/a").content == b"ok"
            with pytest.raises(expected):
                _ = session.open(f"{server.url}/a").content
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with (
        RawServer(answering(*[BODY] * earlier, head + packed)) as server,
        GitLabSession(Credentials()) as session,
    ):
        for _ in range(earlier):
            assert session.open(f"{server.url}/a").content == b"ok"
        assert session.open(f"{server.url}/a").content == b"unpacked"


def test_wrapped_layers_see_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that trace requests replace methods by proxies, which look like the method itself."""

    class Proxy:
        def __init__(self, wrapped: Any) -> None:
            self._wrapped = wrapped
            self.seen = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._wrapped, name)

        def __get__(self, owner: Any, kind: type) -> Any:
            self.seen += owner is not None
            return self if owner is None else self._wrapped.__get__(owner, kind)

    with RawServer(answering(BODY, BODY)) as server, GitLabSession(Credentials()) as session:
        assert session.open(f"{server.url}/a").content == b"ok"
        proxy = Proxy(urllib3.HTTPConnectionPool.urlopen)
        monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", proxy)
        assert session.open(f"{server.url}/b").content == b"ok"
    assert proxy.seen == 1


def test_a_response_that_is_dropped_closes_its_connection_at_once() -> None:
    long = OK + b"Content-Length: 200000\r\n\r\n"
    with RawServer(answering(BODY, long)) as server, GitLabSession(Credentials()) as session:
        assert session.open(f"{server.url}/a").content == b"ok"
        response = session.open(f"{server.url}/a")
        raw = weakref.ref(response.raw)
        gc.disable()
        try:
            del response
            assert raw() is None
        finally:
            gc.enable()


def test_bytes_that_tls_has_decrypted_already_are_not_the_next_response(
    adapter: DeadlineAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(answering(BODY, BODY)) as server:
        assert get(adapter, f"{server.url}/a").content == b"ok"
        [pool] = adapter._pools.values()
        connection = pool.pool.queue[-1]  # type: ignore[union-attr]  # it is open
        assert connection.is_connected
        # They do not show at the socket.
        monkeypatch.setattr(connection, "sock", SocketLike(connection.sock))
        assert not connection.is_connected
        monkeypatch.undo()
        connection.close()


class SocketLike:
    """A socket over TLS that has read more than was asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def pending(self) -> int:
        return 7
