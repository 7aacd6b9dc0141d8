"""The transport adapter of our session: requests' own, watched at the socket.

A read timeout bounds the silence between two packets, not the whole answer: a server that sends a
byte a minute, in the headers or the body, escapes it. And a thread that waits for a packet cannot
be told to stop. Only where bytes are taken off the socket can a deadline and a stop be kept, so
that is where they are kept.
"""

from __future__ import annotations

import http.client
import io
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
from http.client import BadStatusLine, HTTPException, HTTPMessage, RemoteDisconnected
from typing import Any, BinaryIO, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from stac_gitlab.http.deadline import STOP_LATENCY, _deadline, current_deadline

READ_AHEAD = 32 * 1024
"""Bytes that may be taken off a socket with the headers: many a file is in there already."""


# Servers whose connections are remembered; beyond, all are looked up anew.
_KNOWN_POOLS = 64
# What TLS holds together, in bytes.
_RECORD = 16 * 1024


class _DeadlineReader(io.RawIOBase):
    """The receiving end of a socket, under the watch that is in force in the reading thread."""

    def __init__(self, sock: socket.socket) -> None:
        # It counts as a user of the socket, which closes only when the last one does.
        self._raw = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._patience = sock.gettimeout()
        self._waits = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self._waits:
            try:
                return self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                return None
        deadline = _deadline.get()
        left = deadline.time_left()
        patience = self._patience
        if left is not None:
            patience = left if patience is None else min(left, patience)
        if deadline.stop is None:
            self._sock.settimeout(patience)
            return self._sock.recv_into(buffer)
        give_up = None if patience is None else time.monotonic() + patience
        while True:
            self._sock.settimeout(STOP_LATENCY)
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                deadline.time_left()
                if give_up is not None and time.monotonic() >= give_up:
                    raise

    @contextmanager
    def only_what_is_there(self) -> Iterator[None]:
        """Let reads return at once, with None where they would have to wait."""
        self._waits = False
        self._sock.settimeout(0)
        try:
            yield
        finally:
            self._waits = True

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _DeadlineSocket:
    """As much of a socket as a response of the standard library asks for, which is this."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock), READ_AHEAD)


class DeadlineResponse(http.client.HTTPResponse):
    """The standard library's response, whose every read is under the :class:`Watch` in force."""

    fp: Any
    length: int | None
    chunked: bool
    chunk_left: int | None
    will_close: bool

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(_DeadlineSocket(sock), *args, **kwargs)  # type: ignore[arg-type]  # see _Watched

    def begin(self) -> None:
        """Read the head of the answer, which tells where its body ends."""
        head = ResponseHead.read_from(self.fp)
        self.headers = self.msg = head.headers
        self.version, self.status, self.reason = head.version, head.status, head.reason
        self.code = head.status
        coding = coding_in(head.headers)
        self.chunked, self.chunk_left = coding == "chunked", None
        # A length beside a coding does not count, not even beside one that nobody knows.
        self.length = None if coding else length_in(head.headers)
        self.will_close = self._check_close()  # type: ignore[attr-defined]  # missing in the stubs
        if head.status in (204, 304):
            # If the body that must not be here comes all the same, it is not the next answer.
            self.will_close |= head.announces_body
            self.chunked, self.length = False, 0
        elif self._method == "HEAD":  # type: ignore[attr-defined]  # likewise
            self.length = 0
        self.will_close |= not self.chunked and self.length is None

    def take(self, buffer: memoryview) -> int:
        """Read what is there straight into `buffer`; return how much, 0 at the end.

        ``readinto`` waits until the buffer is full, and loses what it has when the body breaks off
        before that. TLS comes in records of 16 KiB: as many are taken together as have arrived.

        Raises:
            http.client.HTTPException: If chunked framing breaks off.
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
        if 0 < count <= _RECORD and count < len(buffer):
            # The next read will say again what ends this; what has come before is good.
            with self.fp.raw.only_what_is_there(), suppress(OSError):
                while count < len(buffer) and (piece := self.fp.readinto1(buffer[count:])):
                    count += piece
        if self.length is not None:
            self.length -= count
        if not count or self.length == 0:
            # Ours is the last read of this body; the base class gives the socket back likewise.
            self._close_conn()  # type: ignore[attr-defined]  # missing in the stubs
        return count


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
    """Connect, but do not wait for it when the work is called off.

    Looking up a name, connecting and shaking hands cannot be interrupted from another thread: where
    that may be asked for, they are done in a thread that can be left behind.
    """
    deadline = current_deadline()
    if deadline.stop is None:
        connect()
        return
    outcome: Future[None] = Future()

    def attempt() -> None:
        try:
            connect()
        except BaseException as error:  # noqa: BLE001  # handed over, whatever it is
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    threading.Thread(target=attempt, name="stac-gitlab-connect", daemon=True).start()
    while not wait([outcome], timeout=STOP_LATENCY).done:
        try:
            deadline.time_left()
        except BaseException:
            outcome.add_done_callback(lambda _: connection.close())
            raise
    outcome.result()


class _Connection(HTTPConnection):
    response_class = DeadlineResponse

    def connect(self) -> None:
        _connect(self, super().connect)

    def request(self, *args: Any, **kwargs: Any) -> None:
        # What is to be sent is put together only then: an interrupt of a slow connection would
        # lead through frames that hold the bytes. With TLS urllib3 does so itself.
        if self.sock is None:
            self.connect()
        super().request(*args, **kwargs)


class _SecureConnection(HTTPSConnection):
    response_class = DeadlineResponse

    def connect(self) -> None:
        _connect(self, super().connect)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _SecurePool}


class DeadlineAdapter(HTTPAdapter):
    """requests' adapter over connections that obey the :class:`Watch` in force.

    It retries nothing by itself: that is one layer's work, and not this one's. What requests works
    out anew for each request to a server, it looks up.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._pools: dict[tuple[Any, ...], urllib3.HTTPConnectionPool] = {}
        super().__init__(*args, **kwargs)

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: str | tuple[str, str] | None = None,
    ) -> urllib3.HTTPConnectionPool:
        """Return the pool of connections to the server of a request, as requests calls it."""
        scheme, _, host, *_ = [*(request.url or "").split("/", 3), "", ""]
        key = (scheme, host.rpartition("@")[2], verify, cert, *(proxies or {}).items())
        pool = self._pools.get(key)
        if pool is None:
            found = super().get_connection_with_tls_context(request, verify, proxies, cert)
            pool = cast("urllib3.HTTPConnectionPool", found)
            if len(self._pools) >= _KNOWN_POOLS:
                self._pools.clear()
            self._pools[key] = pool
        return pool

    def close(self) -> None:
        """Close all connections."""
        # They close with the last who knows them.
        self._pools.clear()
        super().close()

    def request_url(
        self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None
    ) -> str:
        """Return what to ask the server, or the proxy, for, as requests calls it."""
        return super().request_url(request, proxies) if proxies else request.path_url

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, as requests calls it."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:
        """Make the pools behind a proxy, as requests calls it."""
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        # A SOCKS manager brings connection classes of its own, which know how to reach the proxy.
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


MAX_HEAD = 256 * 1024
"""Bytes that a head may have."""


_MAX_INTERIM = 100
_STATUS_LINE = re.compile(r"HTTP/(\d\.\d)[ \t]+([1-9]\d\d)(?:[ \t](.*))?")
# Neither this nor the next may try to end the same white space at each of its characters: a server
# can send as much of it as fits.
_HEADER = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)\r?\n", re.MULTILINE)
# A header may go on in lines that begin with white space, which stands for a single space.
_FOLD = re.compile(r"(?<![ \t])[ \t]*(?:\r?\n[ \t]+)+")
_LENGTH = re.compile(r"[ \t]*([0-9]{1,18})[ \t]*")


@dataclass(frozen=True)
class ResponseHead:
    """The head of an answer.

    Attributes:
        version: 10 for HTTP/1.0 and what is older, 11 for HTTP/1.1.
        status: The three digits.
        reason: What the server calls that.
        headers: Names and values as they came, without the white space around them.
    """

    version: int
    status: int
    reason: str
    headers: HTTPMessage

    @property
    def announces_body(self) -> bool:
        """Whether there is word of a body, sensible or not."""
        lengths = self.headers.get_all("Content-Length", ["0"])
        return lengths != ["0"] or "Transfer-Encoding" in self.headers

    @classmethod
    def read_from(cls, stream: BinaryIO) -> ResponseHead:
        """Read the head of the next answer, and pass over interim ones (103, say) before it.

        Raises:
            RemoteDisconnected: If the connection ends before the head does.
            HTTPException: If it is too long, garbled, or not of HTTP/1.
        """
        for _ in range(_MAX_INTERIM):
            status_line, *lines = _lines_from(stream)
            match = _STATUS_LINE.fullmatch(status_line.rstrip())
            if match is None or match[1] > "1.9":
                raise BadStatusLine("it does not begin as HTTP/1 does")
            status, reason = int(match[2]), match[3] or ""
            if status >= 200:
                version = 11 if match[1] > "1.0" else 10
                return cls(version, status, reason.strip(), _headers_in(lines))
            if status == 101:
                break
        raise HTTPException(f"{status} in place of an answer")


def is_chunked(headers: Mapping[str, str] | HTTPMessage) -> bool:
    """Tell whether a body comes in chunks, each with its length."""
    return coding_in(headers) == "chunked"


def coding_in(headers: Mapping[str, str] | HTTPMessage) -> str:
    """Return how a body is coded for the way, which may say where it ends; empty for not at all."""
    coding = _said("Transfer-Encoding", headers).strip(" \t").lower()
    return "" if coding == "identity" else coding


def length_in(headers: Mapping[str, str] | HTTPMessage) -> int | None:
    """Return how many bytes a body is said to have, or None where nothing sensible is said."""
    said = _said("Content-Length", headers)
    if "," in said:
        # Said twice, and twice the same, it counts: proxies join headers that are repeated.
        said, *others = {part.strip(" \t") for part in said.split(",")}
        if others:
            return None
    match = _LENGTH.fullmatch(said)
    return int(match[1]) if match else None


def _said(name: str, headers: Mapping[str, str] | HTTPMessage) -> str:
    """Return what headers say under a name; what they say more than once is joined by commas."""
    if isinstance(headers, HTTPMessage):
        return ", ".join(headers.get_all(name, ()))
    return headers.get(name, "")


class _Headers(HTTPMessage):
    """Headers that are listed as they came, without a search for what no mail may hold."""

    def items(self) -> list[tuple[str, str]]:
        return [*self.raw_items()]


def _lines_from(stream: BinaryIO) -> list[str]:
    """Return the lines of a head, with the breaks at their ends, without the empty one."""
    lines: list[str] = []
    room = MAX_HEAD
    while (line := stream.readline(room + 1)) not in (b"\r\n", b"\n"):
        room -= len(line)
        if room < 0:
            raise HTTPException(f"got more than {MAX_HEAD} bytes of head")
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
            raise HTTPException("a header that is garbled")
    headers = _Headers()
    for name, value in found:
        headers.set_raw(name, value.strip(" \t"))
    return headers


def is_well_framed(response: requests.Response) -> bool:
    """Tell whether there is one way only to read where the body ends.

    The standard library reads ``+5`` and ``5_0`` as lengths, and takes what is ``gzip, chunked``,
    chunk sizes included, for the body.
    """
    headers = response.headers
    is_clear = length_in(headers) is not None or not headers.get("Content-Length", "").strip()
    return coding_in(headers) in ("", "chunked") and is_clear
