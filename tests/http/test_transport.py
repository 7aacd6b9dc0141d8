"""Deadlines and stops are kept where bytes are taken off the socket."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import urllib3

from stac_gitlab.http.adapter import DeadlineAdapter
from stac_gitlab.http.deadline import Cancelled, Deadline, current_deadline, enforcing
from stac_gitlab.http.transport import DeadlineResponse
from stac_gitlab.testing import Fault, LoopbackServer
from tests.conftest import Clock
from tests.raw_server import RawServer, silence, trickling


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        adapter = DeadlineAdapter()
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        yield session


# -- the watch ----------------------------------------------------------------------------------


def test_without_a_watch_nothing_is_limited() -> None:
    assert current_deadline().time_left() is None


def test_a_watch_tells_what_is_left_and_when_nothing_is(clock: Clock) -> None:
    deadline = Deadline(clock.now + 5, clock=clock.time)
    assert deadline.time_left() == 5
    clock.now += 5
    with pytest.raises(TimeoutError, match="deadline"):
        deadline.time_left()


def test_a_watch_is_in_force_in_its_block_and_its_thread_only() -> None:
    deadline = Deadline()
    elsewhere: list[Deadline] = []
    with enforcing(deadline):
        assert current_deadline() is deadline
        thread = threading.Thread(target=lambda: elsewhere.append(current_deadline()))
        thread.start()
        thread.join(5)
    assert current_deadline() is not deadline
    assert elsewhere[0] is not deadline


def test_a_sleep_ends_when_the_work_is_called_off(clock: Clock) -> None:
    Deadline().sleep(3, clock.sleep)
    assert clock.slept == [3]
    stop = threading.Event()
    Deadline(stop=stop).sleep(0.001, clock.sleep)
    stop.set()
    with pytest.raises(Cancelled):
        Deadline(stop=stop).sleep(1000, clock.sleep)
    with pytest.raises(Cancelled):
        Deadline(stop=stop).time_left()


# -- at the socket ------------------------------------------------------------------------------


OK = b"HTTP/1.1 200 OK\r\n"
SLOW = {
    "headers": trickling(OK + b"X-Long: ", b"x"),
    "body": trickling(OK + b"Content-Length: 1000\r\n\r\n"),
    "chunks": trickling(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "one endless chunk size": trickling(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "nothing": silence,
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW)
def test_a_deadline_ends_the_read(
    answer: Callable[[RawServer, socket.socket], None], session: requests.Session
) -> None:
    with RawServer(answer) as server, enforcing(Deadline(time.monotonic() + 0.3)):
        began = time.monotonic()
        with pytest.raises((requests.Timeout, requests.ConnectionError)):
            session.get(server.url, timeout=20)
        assert 0.2 < time.monotonic() - began < 10


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW)
def test_a_stop_ends_the_read(
    answer: Callable[[RawServer, socket.socket], None], session: requests.Session
) -> None:
    stop = threading.Event()
    with RawServer(answer) as server, enforcing(Deadline(stop=stop)):
        threading.Timer(0.1, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            session.get(server.url, timeout=20)
        assert time.monotonic() - began < 10


def test_a_watch_that_can_be_stopped_keeps_the_read_timeout(session: requests.Session) -> None:
    with RawServer(silence) as server, enforcing(Deadline(stop=threading.Event())):
        began = time.monotonic()
        with pytest.raises(requests.Timeout):
            session.get(server.url, timeout=0.3)
        assert time.monotonic() - began < 10


def test_patience_between_two_packets_outlives_a_stopped_wait(session: requests.Session) -> None:
    # Waiting for a stop looks up every quarter of a second; the packet that comes later counts.
    def late(server: RawServer, connection: socket.socket) -> None:
        server.send(connection, [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"there"], 0.35)

    with RawServer(late) as server, enforcing(Deadline(stop=threading.Event())):
        assert session.get(server.url, timeout=5).content == b"there"


def test_a_connection_serves_again_after_a_whole_answer(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.route("/x", b"x" * 100_000)
    for _ in range(5):
        assert session.get(f"{server.url}/x", timeout=5).content == b"x" * 100_000
    pools = session.get_adapter(server.url).poolmanager.pools
    assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118  # no dict


def test_a_deadline_of_one_request_does_not_follow_its_connection(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.route("/x", b"there")
    with enforcing(Deadline(time.monotonic() + 1)):
        session.get(f"{server.url}/x", timeout=5)
    server.inject(Fault(delay=1.2))
    assert session.get(f"{server.url}/x", timeout=60).content == b"there"


@pytest.mark.parametrize("fault", [Fault(), Fault(chunked=True), Fault(close=True)])
def test_a_body_is_taken_piece_by_piece_into_a_buffer(
    fault: Fault, server: LoopbackServer, session: requests.Session
) -> None:
    content = bytes(range(256)) * 1000
    server.route("/x", content)
    server.inject(fault)
    with session.get(f"{server.url}/x", stream=True, timeout=5) as response:
        source = response.raw._fp
        assert isinstance(source, DeadlineResponse)
        buffer = memoryview(bytearray(10_000))
        taken = b""
        while count := source.take(buffer):
            taken += buffer[:count]
        assert taken == content
        assert source.take(buffer) == 0


def test_what_came_before_a_cut_is_not_lost(
    server: LoopbackServer, session: requests.Session
) -> None:
    server.route("/x", b"x" * 1000)
    server.inject(Fault(cut_after=600))
    buffer = memoryview(bytearray(1000))
    with session.get(f"{server.url}/x", stream=True, timeout=5) as response:
        taken = 0
        while count := response.raw._fp.take(buffer):
            taken += count
    assert taken == 600


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_an_interim_answer_is_not_the_answer(session: requests.Session, interim: bytes) -> None:
    pieces = [
        b"HTTP/1.1 " + interim + b"\r\nLink: </style.css>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
    ]
    with RawServer(lambda server, connection: server.send(connection, pieces, 0.05)) as server:
        answer = session.get(server.url, timeout=5)
        assert (answer.status_code, answer.content) == (200, b"whole")


@pytest.mark.parametrize("interim", [b"100 Continue", b"103 Early Hints", b"101 Switch"])
def test_nothing_but_interim_answers_is_no_answer(
    session: requests.Session, interim: bytes
) -> None:
    flood = itertools.repeat(b"HTTP/1.1 " + interim + b"\r\n\r\n")
    with (
        RawServer(lambda server, connection: server.send(connection, flood)) as server,
        pytest.raises(requests.ConnectionError, match="in place of a final response"),
    ):
        session.get(server.url, timeout=5)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize(
    "announced",
    [
        *(b"Content-Length: 4", b"Content-Length: +4"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"),
    ],
)
def test_a_body_that_must_not_be_there_is_not_the_next_answer(
    session: requests.Session, status: bytes, announced: bytes
) -> None:
    followed: list[bytes] = []

    def answer(_: RawServer, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 " + status + b"\r\n" + announced + b"\r\n\r\n")
        followed.append(connection.recv(100))

    with RawServer(answer) as server:
        for _ in range(2):
            assert session.get(server.url, timeout=5, stream=True).raw.read(9) == b""
    assert followed == [b"", b""]


@pytest.mark.parametrize(
    "coding",
    [
        *(b"gzip, chunked", b"\x0bchunked", b"chunked, chunked"),
        *(b"identity\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: gzip"),
    ],
)
def test_a_length_beside_a_coding_is_not_where_the_next_answer_begins(
    session: requests.Session, coding: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: " + coding
    rest = b"{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    answer = head + b"\r\n\r\n" + rest
    with RawServer(lambda server, connection: server.send(connection, [answer])) as server:
        response = session.get(server.url, timeout=5, stream=True)
        assert response.raw.read1(decode_content=False) == rest


def test_nothing_is_tried_again_here(server: LoopbackServer, session: requests.Session) -> None:
    server.inject(Fault(status=503, times=None))
    assert session.get(f"{server.url}/x", timeout=5).status_code == 503
    server.inject(Fault(reset=True, times=None))
    server.clear_faults()
    server.inject(Fault(reset=True, times=None))
    with pytest.raises(requests.ConnectionError):
        session.get(f"{server.url}/x", timeout=5)
    assert len(server.requests) == 2


# -- connecting ---------------------------------------------------------------------------------


def addresses(count: int) -> Callable[..., Any]:
    """A name lookup that finds so many addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", 9)) for n in range(count)]
    return lambda *_args, **_options: found


class DeadSocket(socket.socket):
    """A socket whose peer never answers."""

    def connect(self, _address: object) -> None:
        threading.Event().wait(self.gettimeout())
        raise TimeoutError("timed out")


def test_all_addresses_of_a_server_share_one_deadline(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses(12))
    monkeypatch.setattr(socket, "socket", DeadSocket)
    began = time.monotonic()
    with enforcing(Deadline(began + 0.3)), pytest.raises(requests.ConnectTimeout, match="deadline"):
        session.get("http://dead.example/", timeout=0.25)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("deadline", ["passes", "is cancelled"])
def test_a_name_lookup_is_not_waited_for_longer_than_allowed(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch, deadline: str
) -> None:
    may_end, stop = threading.Event(), threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: may_end.wait(20) and [])
    began = time.monotonic()
    if deadline == "passes":
        limit, error = Deadline(began + 0.2), requests.ConnectTimeout
    else:
        limit, error = Deadline(stop=stop), Cancelled
        threading.Timer(0.1, stop.set).start()
    with enforcing(limit), pytest.raises(error):
        session.get("http://slow.example/", timeout=20)
    may_end.set()
    assert time.monotonic() - began < 10


# -- chunks -------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
VALID_CHUNKS = {
    "plain": b"5\r\nwhole\r\n0\r\n\r\n",
    "letters of both cases and zeros": b"00A\r\nwhole\r\nand\r\n0b\r\n from here!\r\n000\r\n\r\n",
    "padded": b"5  \r\nwhole\r\n0 \r\n\r\n",
    "extensions": b'5;a="b" ; c\r\nwhole\r\n0;d\r\n\r\n',
    "a trailer": b"5\r\nwhole\r\n0\r\nDigest: x\r\nMore: y\r\n\r\n",
    "no trailer": b"5\r\nwhole\r\n0\r\n",
}
INVALID_CHUNKS = {
    "sign": b"+5\r\nwhole\r\n0\r\n\r\n",
    "minus": b"-5\r\nwhole\r\n0\r\n\r\n",
    "prefix": b"0x5\r\nwhole\r\n0\r\n\r\n",
    "underscore": b"0_5\r\nwhole\r\n0\r\n\r\n",
    "space before": b" 5\r\nwhole\r\n0\r\n\r\n",
    "space within": b"0 5\r\nwhole\r\n0\r\n\r\n",
    "no size": b"\r\nwhole\r\n0\r\n\r\n",
    "extension only": b";a\r\nwhole\r\n0\r\n\r\n",
    "bare line feed behind the size": b"5\nwhole\r\n0\r\n\r\n",
    "carriage return in an extension": b"5;a\rb\r\nwhole\r\n0\r\n\r\n",
    "bare line feed behind the chunk": b"5\r\nwhole\n0\r\n\r\n",
    "longer chunk": b"5\r\nwholesale\r\n0\r\n\r\n",
    "shorter chunk": b"6\r\nwhole\r\n0\r\n\r\n",
    "huge size": b"5" * 17 + b"\r\nwhole\r\n0\r\n\r\n",
    "huge extension": b"5;" + b"a" * 5000 + b"\r\nwhole\r\n0\r\n\r\n",
    "cut in a size": b"5\r\nwhole\r\n0",
    "cut behind a chunk": b"5\r\nwhole\r\n",
    "cut in a chunk": b"5\r\nwho",
    "huge trailer": b"5\r\nwhole\r\n0\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
}


def chunks_of(session: requests.Session, body: bytes) -> bytes:
    """What is read of a chunked body, as documents and downloads are read."""
    read = b""
    with RawServer(lambda server, connection: server.send(connection, [CHUNKED + body])) as server:
        source = session.get(server.url, timeout=5, stream=True).raw
        while data := source.read1(decode_content=False):
            read += data
    return read


@pytest.mark.parametrize("body", VALID_CHUNKS.values(), ids=VALID_CHUNKS)
def test_chunks_are_joined(session: requests.Session, body: bytes) -> None:
    assert chunks_of(session, body) in (b"whole", b"whole\r\nand from here!")


@pytest.mark.parametrize("body", INVALID_CHUNKS.values(), ids=INVALID_CHUNKS)
def test_chunks_that_another_reader_would_read_otherwise_are_refused(
    session: requests.Session, body: bytes
) -> None:
    with pytest.raises(urllib3.exceptions.ProtocolError):
        chunks_of(session, body)


# -- TLS and proxies ----------------------------------------------------------------------------


def test_a_deadline_and_a_stop_end_a_read_under_tls(
    tls_server: LoopbackServer, session: requests.Session
) -> None:
    tls_server.route("/x", b"x" * 1000)
    tls_server.inject(Fault(trickle=(1, 0.02), times=None))
    began = time.monotonic()
    with enforcing(Deadline(began + 0.3)), pytest.raises(requests.RequestException):
        session.get(f"{tls_server.url}/x", timeout=20)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with enforcing(Deadline(stop=stop)), pytest.raises(Cancelled):
        session.get(f"{tls_server.url}/x", timeout=20)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "fault", [Fault(), Fault(cut_after=150_000), Fault(reset=True, cut_after=150_000)]
)
def test_records_of_tls_that_have_arrived_are_taken_together(
    tls_server: LoopbackServer, session: requests.Session, fault: Fault
) -> None:
    content = bytes(range(256)) * 600
    tls_server.route("/x", content)
    tls_server.inject(fault)
    with session.get(f"{tls_server.url}/x", stream=True, timeout=5) as response:
        # Long enough for most of it to stand in the buffers of the system.
        time.sleep(0.2)
        buffer = memoryview(bytearray(len(content)))
        counts = []
        with contextlib.suppress(OSError):
            while count := response.raw._fp.take(buffer[sum(counts) :]):
                counts.append(count)
    assert max(counts) > 16 * 1024
    assert buffer[: sum(counts)] == content[: sum(counts)]
    assert sum(counts) == len(content) or fault.cut_after


def tunnel_to(port: int) -> Callable[[RawServer, socket.socket], None]:
    """A proxy that connects whoever asks to one port of this machine."""

    def answer(server: RawServer, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as there:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(there, connection), daemon=True)
            back.start()
            _copy(connection, there)
            back.join(5)

    return answer


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while received := source.recv(65536):
            sink.sendall(received)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_a_tunnel_through_a_proxy_is_watched_too(
    tls_server: LoopbackServer, session: requests.Session
) -> None:
    tls_server.route("/x", b"x" * 1000)
    with RawServer(tunnel_to(tls_server.port)) as proxy:
        session.proxies = {"https": proxy.url}
        assert session.get(f"{tls_server.url}/x", timeout=5).content == b"x" * 1000
        assert proxy.requests[0].startswith(b"CONNECT 127.0.0.1:%d " % tls_server.port)
        tls_server.inject(Fault(trickle=(1, 0.02)))
        with enforcing(Deadline(time.monotonic() + 0.3)), pytest.raises(requests.RequestException):
            session.get(f"{tls_server.url}/x", timeout=20)
        session.close()


def test_a_proxy_that_never_answers_is_watched_too(
    tls_server: LoopbackServer, session: requests.Session
) -> None:
    with RawServer(SLOW["headers"]) as proxy:
        session.proxies = {"https": proxy.url}
        began = time.monotonic()
        with enforcing(Deadline(began + 0.3)), pytest.raises(requests.RequestException):
            session.get(f"{tls_server.url}/x", timeout=20)
        assert time.monotonic() - began < 10
