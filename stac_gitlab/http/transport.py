"""The transport adapter of our session: HTTP/1.1 framing, under a deadline.

The read timeout of requests limits the silence between two packets. A server that sends one byte a
minute never exceeds it, and a thread that waits for a packet cannot be cancelled. A deadline and a
cancellation take effect only where bytes are read from the socket, so they are checked here.
"""

from __future__ import annotations

import contextvars
import http.client
import io
import os
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import (
    BadStatusLine,
    HTTPException,
    HTTPMessage,
    IncompleteRead,
    RemoteDisconnected,
)
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connectionpool import (  # type: ignore[attr-defined]  # VCR.py patches .connection
    HTTPConnection,
    HTTPConnectionPool,
    HTTPSConnection,
    HTTPSConnectionPool,
)
from urllib3.exceptions import ConnectTimeoutError

from stac_gitlab.http.deadline import STOP_LATENCY, current_deadline

READ_AHEAD = 32 * 1024
"""Bytes that may be read from a socket together with the headers: a small file is among them."""

# The largest record of TLS, in bytes.
_TLS_RECORD = 16 * 1024
# Bytes of the line with the size of a chunk, extensions included.
_MAX_CHUNK_LINE = 4096
# RFC 9112, 7.1. Some servers pad the size with spaces.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket, under the deadline of the reading thread."""

    def __init__(self, sock: socket.socket) -> None:
        # The socket stays open until this file is closed as well.
        self._raw = sock.makefile("rb")
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._may_wait = True
        self._process = os.getpid()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._process != os.getpid():
            # After a fork, each of the two processes would get a part of the body.
            raise ConnectionError("the connection belongs to the process that opened it")
        if not self._may_wait:
            try:
                return self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                return None
        deadline = current_deadline()
        left = deadline.time_left()
        timeout = self._timeout
        if left is not None:
            timeout = left if timeout is None else min(left, timeout)
        if deadline.stop is None:
            self._sock.settimeout(timeout)
            return self._sock.recv_into(buffer)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._sock.settimeout(STOP_LATENCY)
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                deadline.time_left()
                if end is not None and time.monotonic() >= end:
                    raise

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Let a read return None at once if nothing has arrived."""
        self._may_wait = False
        self._sock.settimeout(0)
        try:
            yield
        finally:
            self._may_wait = True

    def close(self) -> None:
        self._raw.close()
        super().close()


class DeadlineResponse(http.client.HTTPResponse):
    """The response of the standard library, read under a deadline, with strict framing."""

    fp: Any
    length: int | None
    chunked: bool
    chunk_left: int | None
    will_close: bool

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        reader = io.BufferedReader(_DeadlineReader(sock), READ_AHEAD)
        # The standard library calls no other method of the socket.
        readable = SimpleNamespace(makefile=lambda _mode: reader)
        super().__init__(readable, *args, **kwargs)  # type: ignore[arg-type]  # see above

    def begin(self) -> None:
        """Read the head of the response, which says where the body ends."""
        head = ResponseHead.read_from(self.fp)
        self.headers = self.msg = head.headers
        self.version, self.status, self.reason = head.version, head.status, head.reason
        self.code = head.status
        coding = coding_in(head.headers)
        self.chunked, self.chunk_left = coding == "chunked", None
        # RFC 9112, 6.3: a Transfer-Encoding, even an unknown one, overrides Content-Length.
        self.length = None if coding else length_in(head.headers)
        self.will_close = self._check_close()  # type: ignore[attr-defined]  # missing in the stubs
        if head.status in (204, 304):
            # A body that is sent nevertheless must not be read as the next response.
            lengths = head.headers.get_all("Content-Length", ["0"])
            self.will_close |= lengths != ["0"] or "Transfer-Encoding" in head.headers
            self.chunked, self.length = False, 0
        elif self._method == "HEAD":  # type: ignore[attr-defined]  # likewise
            self.length = 0
        # After a failure, servers close connections unannounced. A request sent meanwhile is lost.
        self.will_close |= head.status == 500
        self.will_close |= not self.chunked and self.length is None

    def take(self, buffer: memoryview) -> int:
        """Read what has arrived into `buffer`; return the number of bytes, 0 at the end.

        ``readinto`` waits until the buffer is full, and loses its content if the body breaks off
        before. All records of TLS that have arrived are read together.

        Raises:
            http.client.HTTPException: If chunked framing is broken.
        """
        if self.fp is None:
            return 0
        if self.chunked:
            data = self.read1(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        if self.length is not None:
            buffer = buffer[: self.length]
        count: int = self.fp.readinto1(buffer) if buffer else 0
        if 0 < count <= _TLS_RECORD and count < len(buffer):
            # An error here comes again with the next read; the bytes before it are valid.
            with self.fp.raw.without_waiting(), suppress(OSError):
                while count < len(buffer) and (more := self.fp.readinto1(buffer[count:])):
                    count += more
        if self.length is not None:
            self.length -= count
        if not count or self.length == 0:
            # The body is complete: release the socket, as the base class does.
            self._close_conn()  # type: ignore[attr-defined]  # missing in the stubs
        return count

    def _get_chunk_left(self) -> int | None:
        """Return the unread bytes of the current chunk, or None at the end of the body.

        The standard library accepts ``+12c``, ``0x12c`` and ``1_2c`` as sizes, and any two bytes
        as the end of a chunk: a proxy may read the same bytes as other chunks.
        """
        if not self.chunk_left:
            if self.chunk_left is not None and self._safe_read(2) != b"\r\n":  # type: ignore[attr-defined]  # missing in the stubs
                raise HTTPException("a chunk that does not end where its size says")
            line = self.fp.readline(_MAX_CHUNK_LINE)
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                if line.endswith(b"\n") or len(line) == _MAX_CHUNK_LINE:
                    raise HTTPException("a chunk without a valid size")
                raise IncompleteRead(b"")
            self.chunk_left = int(match[1], 16)
            if self.chunk_left == 0:
                # A trailer has the form and the limit of a head. Some servers leave it out.
                with suppress(RemoteDisconnected):
                    _lines_from(self.fp)
                self._close_conn()  # type: ignore[attr-defined]  # missing in the stubs
                self.chunk_left = None
        return self.chunk_left


def drop_inherited_connections(adapter: HTTPAdapter) -> None:
    """Close a forked child's copies of the idle connections of its parent.

    Closing a copy sends nothing, under TLS neither. Locks are replaced and not acquired, because a
    thread of the parent may have held them at the fork.
    """
    for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
        manager.pools.lock = threading.RLock()
        for key in manager.pools.keys():  # noqa: SIM118  # no dict
            idle = manager.pools[key].pool
            if idle is None:
                continue
            connections = [connection for connection in idle.queue if connection is not None]
            queue.Queue.__init__(idle, idle.maxsize)
            for _ in range(idle.maxsize):
                idle.put(None)
            for connection in connections:
                connection.close()


def _connect(connection: HTTPConnection, connect: Callable[[], None]) -> None:
    """Connect, at most until the deadline of this thread.

    A name lookup cannot be interrupted, and urllib3 applies its timeout to each address of a server
    anew. Both happen in another thread, which is abandoned if it takes too long.
    """
    deadline = current_deadline()
    if deadline.at is None and deadline.stop is None:
        connect()
        return
    outcome: Future[None] = Future()

    def attempt() -> None:
        try:
            connect()
        except BaseException as error:  # noqa: BLE001  # raised in the waiting thread
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    # With the context of this thread, its deadline applies to the response of a proxy as well.
    run = partial(contextvars.copy_context().run, attempt)
    threading.Thread(target=run, name="stac-gitlab-connect", daemon=True).start()
    try:
        while not outcome.done():
            left = deadline.time_left()
            wait([outcome], STOP_LATENCY if left is None else min(left, STOP_LATENCY))
    except BaseException as error:
        outcome.add_done_callback(lambda _: connection.close())
        if isinstance(error, TimeoutError):
            raise ConnectTimeoutError(connection, str(error)) from None
        raise
    outcome.result()


class _Connection(HTTPConnection):
    response_class = DeadlineResponse

    def connect(self) -> None:
        _connect(self, super().connect)

    def request(self, *args: Any, **kwargs: Any) -> None:
        # urllib3 connects only after it has assembled the request. An interrupt of a slow
        # connection would then have the headers, and the token, in the locals of its traceback.
        # With TLS urllib3 connects first.
        if self.sock is None:
            self.connect()
        super().request(*args, **kwargs)


class _SecureConnection(HTTPSConnection):
    response_class = DeadlineResponse

    def connect(self) -> None:
        _connect(self, super().connect)


_OUR_CONNECTIONS: dict[Any, Any] = {
    HTTPConnection: _Connection,
    HTTPSConnection: _SecureConnection,
}


class DeadlineAdapter(HTTPAdapter):
    """The adapter of requests, with connections that keep the deadline of the reading thread.

    It retries nothing, because all retries happen in one place.
    """

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: str | tuple[str, str] | None = None,
    ) -> urllib3.HTTPConnectionPool:
        """Return the connection pool for a request, as requests calls it."""
        pool = cast(
            "urllib3.HTTPConnectionPool",
            super().get_connection_with_tls_context(request, verify, proxies, cert),
        )
        # Not once and for all: recorders such as VCR.py replace the class while a test runs. The
        # connections of a SOCKS proxy are of another class, which knows how to reach it.
        usual = type(pool).ConnectionCls
        pool.ConnectionCls = _OUR_CONNECTIONS.get(usual, usual)
        return pool


class StandInAdapter(BaseAdapter):
    """Sends requests through a tool for tests, such as VCR.py.

    Args:
        send: Sends a request, as adapters do.
    """

    def __init__(self, send: Callable[..., requests.Response]) -> None:
        super().__init__()
        self._send = send

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        """Send a request, as requests calls it."""
        request = request.copy()
        # VCR.py records plain strings only.
        request.headers = CaseInsensitiveDict({n: str(v) for n, v in request.headers.items()})
        return self._send(request, *args, **kwargs)

    def close(self) -> None:
        """Do nothing: the owner of `send` closes what it has opened."""


def are_connections_replaced() -> bool:
    """Tell whether a tool such as VCR.py has replaced the connections of all pools."""
    usual = {HTTPConnectionPool.ConnectionCls, HTTPSConnectionPool.ConnectionCls}
    return not usual <= _OUR_CONNECTIONS.keys()


MAX_HEAD = 256 * 1024
"""Upper limit of the head of a response, in bytes."""


_MAX_INTERIM = 100
_STATUS_LINE = re.compile(r"HTTP/(\d\.\d)[ \t]+([1-9]\d\d)(?:[ \t](.*))?")
# Each of these takes linear time, however much white space a server sends.
_HEADER = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)\r?\n", re.MULTILINE)
# RFC 9112, 5.2: a line that begins with white space continues the header before it.
_FOLD = re.compile(r"(?<![ \t])[ \t]*(?:\r?\n[ \t]+)+")
_LENGTH = re.compile(r"[ \t]*([0-9]{1,18})[ \t]*")


@dataclass(frozen=True)
class ResponseHead:
    """The head of a response.

    Attributes:
        version: 10 for HTTP/1.0 and what is older, 11 for HTTP/1.1.
        status: The status code.
        reason: The reason phrase.
        headers: Names and values in their order, without the white space around them.
    """

    version: int
    status: int
    reason: str
    headers: HTTPMessage

    @classmethod
    def read_from(cls, stream: BinaryIO) -> ResponseHead:
        """Read the head of the next response, and skip interim responses (such as 103) before it.

        Raises:
            RemoteDisconnected: If the connection ends before the head does.
            HTTPException: If it is too large, malformed, or not HTTP/1.
        """
        for _ in range(_MAX_INTERIM):
            status_line, *lines = _lines_from(stream)
            match = _STATUS_LINE.fullmatch(status_line.rstrip())
            if match is None or match[1] > "1.9":
                raise BadStatusLine("the response does not begin with an HTTP/1 status line")
            status, reason = int(match[2]), match[3] or ""
            if status >= 200:
                version = 11 if match[1] > "1.0" else 10
                return cls(version, status, reason.strip(), _headers_in(lines))
            if status == 101:
                break
        raise HTTPException(f"{status} in place of a final response")


def is_chunked(headers: Mapping[str, str] | HTTPMessage) -> bool:
    """Tell whether a body comes in chunks, each with its length."""
    return coding_in(headers) == "chunked"


def coding_in(headers: Mapping[str, str] | HTTPMessage) -> str:
    """Return the transfer coding of a body, or an empty text if there is none."""
    coding = _joined("Transfer-Encoding", headers).strip(" \t").lower()
    return "" if coding == "identity" else coding


def length_in(headers: Mapping[str, str] | HTTPMessage) -> int | None:
    """Return the length that the headers give for a body, or None without a valid one."""
    value = _joined("Content-Length", headers)
    if "," in value:
        # RFC 9110, 8.6: proxies join repeated headers. Equal values count as one.
        value, *others = {part.strip(" \t") for part in value.split(",")}
        if others:
            return None
    match = _LENGTH.fullmatch(value)
    return int(match[1]) if match else None


def _joined(name: str, headers: Mapping[str, str] | HTTPMessage) -> str:
    """Return the value of a header; repeated ones are joined by commas."""
    if isinstance(headers, HTTPMessage):
        return ", ".join(headers.get_all(name, ()))
    return headers.get(name, "")


class _Headers(HTTPMessage):
    """Headers that are listed without the checks of the email package."""

    def items(self) -> list[tuple[str, str]]:
        return [*self.raw_items()]


def _lines_from(stream: BinaryIO) -> list[str]:
    """Return the lines of a head with their line ends, without the empty line."""
    lines: list[str] = []
    room = MAX_HEAD
    while (line := stream.readline(room + 1)) not in (b"\r\n", b"\n"):
        room -= len(line)
        if room < 0:
            raise HTTPException(f"got more than {MAX_HEAD} bytes of headers")
        if not line.endswith(b"\n"):
            raise RemoteDisconnected("Remote end closed connection without response")
        lines.append(line.decode("latin-1"))
    return lines or [""]


def _headers_in(lines: list[str]) -> HTTPMessage:
    text = "".join(lines)
    found = _HEADER.findall(text)
    if len(found) != len(lines):
        unfolded = _FOLD.sub(" ", text)
        found = _HEADER.findall(unfolded)
        if len(found) != unfolded.count("\n"):
            raise HTTPException("a malformed header")
    headers = _Headers()
    for name, value in found:
        headers.set_raw(name, value.strip(" \t"))
    return headers


def is_well_framed(response: requests.Response) -> bool:
    """Tell whether the headers say unambiguously where the body ends.

    The standard library accepts ``+5`` and ``5_0`` as lengths, and returns a body that is
    ``gzip, chunked`` with its chunk sizes.
    """
    headers = response.headers
    is_valid = length_in(headers) is not None or not headers.get("Content-Length", "").strip()
    return coding_in(headers) in ("", "chunked") and is_valid
