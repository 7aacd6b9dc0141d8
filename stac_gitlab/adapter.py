"""The transport adapter of our session: requests' own, watched at the socket.

A read timeout bounds the silence between two packets, not the whole answer: a server that sends a
byte a minute, in the headers or the body, escapes it. And a thread that waits for a packet cannot
be told to stop. Only where bytes are taken off the socket can a deadline and a stop be kept, so
that is where they are kept.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from stac_gitlab.head import Head, coding_in, length_in
from stac_gitlab.line import away

__all__ = [
    "READ_AHEAD",
    "STOP_LATENCY",
    "DeadlineAdapter",
    "Stopped",
    "Watch",
    "WatchedResponse",
    "current_watch",
    "pause",
    "watching",
]

READ_AHEAD = 32 * 1024
"""Bytes that may be taken off a socket with the headers: many a file is in there already."""

# Servers whose connections are remembered; beyond, all are looked up anew.
_KNOWN_POOLS = 64

# What TLS holds together, in bytes.
_RECORD = 16 * 1024

STOP_LATENCY = 0.25
"""How long a waiting thread may take to notice that it is to stop, in seconds."""


class Stopped(Exception):  # noqa: N818  # no error: someone asked for it
    """The work was called off from another thread."""


def pause(seconds: float) -> None:
    """Wait. Looked up when called, so that replacing ``time.sleep`` in a test has an effect."""
    time.sleep(seconds)


class Watch:
    """How long a piece of work may take, and whether it was called off.

    Args:
        at: When it has to be over, by `clock`; None for no limit.
        clock: What tells the time, in seconds.
        stop: Set from outside to call the work off.
    """

    def __init__(
        self,
        at: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        stop: threading.Event | None = None,
    ) -> None:
        self.at = at
        self.clock = clock
        self.stop = stop

    def time_left(self) -> float | None:
        """Return the seconds that are left, or None without a limit.

        Raises:
            Stopped: If the work was called off.
            TimeoutError: If no time is left.
        """
        if self.stop is not None and self.stop.is_set():
            raise Stopped
        if self.at is None:
            return None
        left = self.at - self.clock()
        if left <= 0:
            raise TimeoutError("the deadline of the whole request has passed")
        return left

    def sleep(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Wait, but not longer than until the work is called off.

        Raises:
            Stopped: If it is.
        """
        with away():
            if self.stop is None or sleep is not pause:
                sleep(seconds)
            else:
                self.stop.wait(seconds)
        if self.stop is not None and self.stop.is_set():
            raise Stopped


_watch: ContextVar[Watch] = ContextVar("stac_gitlab_watch", default=Watch())  # noqa: B039  # never changed


class watching:  # noqa: N801  # a context manager that reads like a function
    """Let a watch be in force for everything that this thread reads from a socket."""

    def __init__(self, watch: Watch) -> None:
        self._own = watch

    def __enter__(self) -> None:
        self._token = _watch.set(self._own)

    def __exit__(self, *_: object) -> None:
        _watch.reset(self._token)


def current_watch() -> Watch:
    """Return the watch that is in force in this thread."""
    return _watch.get()


class _WatchedReader(io.RawIOBase):
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
        watch = _watch.get()
        left = watch.time_left()
        patience = self._patience
        if left is not None:
            patience = left if patience is None else min(left, patience)
        if watch.stop is None:
            self._sock.settimeout(patience)
            with away():
                return self._sock.recv_into(buffer)
        give_up = None if patience is None else time.monotonic() + patience
        while True:
            self._sock.settimeout(STOP_LATENCY)
            try:
                with away():
                    return self._sock.recv_into(buffer)
            except TimeoutError:
                watch.time_left()
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


class _Watched:
    """As much of a socket as a response of the standard library asks for, which is this."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_WatchedReader(self._sock), READ_AHEAD)


class WatchedResponse(http.client.HTTPResponse):
    """The standard library's response, whose every read is under the :class:`Watch` in force."""

    fp: Any
    length: int | None
    chunked: bool
    chunk_left: int | None
    will_close: bool

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(_Watched(sock), *args, **kwargs)  # type: ignore[arg-type]  # see _Watched

    def begin(self) -> None:
        """Read the head of the answer, which tells where its body ends."""
        head = Head.read_from(self.fp)
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


def _connect(connection: HTTPConnection, connect: Callable[[], None]) -> None:
    """Connect, but do not wait for it when the work is called off.

    Looking up a name, connecting and shaking hands cannot be interrupted from another thread: where
    that may be asked for, they are done in a thread that can be left behind.
    """
    watch = current_watch()
    if watch.stop is None:
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
    with away():
        while not wait([outcome], timeout=STOP_LATENCY).done:
            try:
                watch.time_left()
            except BaseException:
                outcome.add_done_callback(lambda _: connection.close())
                raise
    outcome.result()


class _Connection(HTTPConnection):
    response_class = WatchedResponse

    def connect(self) -> None:
        _connect(self, super().connect)

    def request(self, *args: Any, **kwargs: Any) -> None:
        # What is to be sent is put together only then: an interrupt of a slow connection would
        # lead through frames that hold the bytes. With TLS urllib3 does so itself.
        if self.sock is None:
            self.connect()
        super().request(*args, **kwargs)


class _SecureConnection(HTTPSConnection):
    response_class = WatchedResponse

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
