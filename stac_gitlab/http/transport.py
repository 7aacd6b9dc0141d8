"""Connections and responses: HTTP/1.1 framing, under a deadline.

The read timeout of requests limits the silence between two packets. A server that sends one byte a
minute never exceeds it, and a thread that waits for a packet cannot be cancelled. A deadline and a
cancellation take effect only where bytes are read from the socket, so they are checked here.
"""

from __future__ import annotations

import contextvars
import http.client
import io
import os
import re
import socket
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from types import SimpleNamespace
from typing import Any

from urllib3.connectionpool import (  # type: ignore[attr-defined]  # VCR.py patches .connection
    HTTPConnection,
    HTTPSConnection,
)
from urllib3.exceptions import ConnectTimeoutError, ProtocolError

from stac_gitlab.http.deadline import STOP_LATENCY, current_deadline
from stac_gitlab.http.head import (
    Headers,
    Message,
    ResponseHead,
    coding_in,
    head_text,
    length_in,
)

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
        self.timeout = sock.gettimeout()
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
        timeout = self.timeout
        if left is not None:
            timeout = left if timeout is None else min(left, timeout)
        if deadline.stop is None:
            self._sock.settimeout(timeout)
            return self._sock.recv_into(buffer)
        end = None if timeout is None else time.monotonic() + timeout
        # Each change of it is a system call.
        if self._sock.gettimeout() != STOP_LATENCY:
            self._sock.settimeout(STOP_LATENCY)
        while True:
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
    """The response of the standard library, read under a deadline, with strict framing.

    Attributes:
        fields: The headers.
        on_end: Called once with whether the body was read to its end, or the response closed
            before.
    """

    fp: Any
    length: int | None
    chunked: bool
    chunk_left: int | None
    will_close: bool
    fields: Headers
    on_end: Callable[[bool], None] | None = None
    stream: Callable[..., Iterator[bytes]]
    _is_cut = False

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        reader = io.BufferedReader(_DeadlineReader(sock), READ_AHEAD)
        # The standard library calls no other method of the socket.
        readable = SimpleNamespace(makefile=lambda _mode: reader)
        super().__init__(readable, *args, **kwargs)  # type: ignore[arg-type]  # see above

    def begin(self) -> None:
        """Read the head of the response, as http.client calls it."""
        self.headers = self.msg = Message(self.read_head().fields)
        self.code = self.status

    def read_head(self) -> ResponseHead:
        """Read the head of the response, which says where the body ends."""
        head = ResponseHead.read_from(self.fp)
        self.fields = fields = Headers(head.fields)
        self.version, self.status, self.reason = head.version, head.status, head.reason
        coding = coding_in(fields)
        self.chunked, self.chunk_left = coding == "chunked", None
        # RFC 9112, 6.3: a Transfer-Encoding, even an unknown one, overrides Content-Length.
        self.length = None if coding else length_in(fields)
        if self.length is None and not coding and "," in fields.get("Content-Length", ""):
            raise HTTPException("Content-Length contains several values")
        connection = fields.get("Connection", "").lower()
        self.will_close = (
            "close" in connection if head.version > 10 else "keep-alive" not in connection
        )
        if head.status in (204, 304):
            # A body that is sent nevertheless must not be read as the next response.
            self.will_close |= fields.get("Content-Length", "0") != "0"
            self.will_close |= "Transfer-Encoding" in fields
            self.chunked, self.length = False, 0
        elif self._method == "HEAD":  # type: ignore[attr-defined]  # likewise
            self.length = 0
        # After a failure, servers close connections unannounced. A request sent meanwhile is lost.
        self.will_close |= head.status == 500
        self.will_close |= not self.chunked and self.length is None
        return head

    def close(self) -> None:
        """Close the response. The next one cannot come before the rest of this one is read."""
        if self.fp is not None and (self.chunked or self.length != 0):
            self._is_cut = True
        super().close()

    def _close_conn(self) -> None:
        super()._close_conn()  # type: ignore[misc]  # missing in the stubs
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self.is_read)

    @property
    def is_read(self) -> bool:
        """Whether the body was read to its end."""
        return self.fp is None and not self._is_cut

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
            self._close_conn()
        return count

    def read_some(self, size: int) -> bytes:
        """Return up to `size` bytes of the body as they arrive, none at its end only.

        Raises:
            urllib3.exceptions.ProtocolError: If the body breaks off.
            TimeoutError: If it does not arrive in time.
        """
        buffer = bytearray(size)
        try:
            count = self.take(memoryview(buffer))
            if not count and self.length:
                raise HTTPException(f"the body ended {self.length} bytes early")
        except BaseException as error:
            self.close()
            is_broken = isinstance(error, (OSError, HTTPException))
            if is_broken and not isinstance(error, TimeoutError):
                raise ProtocolError(f"Connection broken: {error!r}", error) from error
            raise
        return bytes(buffer[:count])

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
                    head_text(self.fp)
                self._close_conn()
                self.chunk_left = None
        return self.chunk_left


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


class DeadlineConnection(HTTPConnection):
    """A connection whose responses keep the deadline of the reading thread."""

    _process = 0
    _last_response: Callable[[], DeadlineResponse | None] = staticmethod(lambda: None)

    def response_class(self, *args: Any, **kwargs: Any) -> DeadlineResponse:  # type: ignore[override]  # a class in the stubs
        """Return the next response, as http.client creates it."""
        response = DeadlineResponse(*args, **kwargs)
        # It may refer to the connection. A circle would leave both to the garbage collector.
        self._last_response = weakref.ref(response)
        return response

    @property
    def is_own(self) -> bool:
        """Whether this process opened the connection, and not one that it was forked from."""
        return self._process == os.getpid()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open and idle. urllib3 closes one that is not."""
        response = self._last_response()
        is_idle = response is None or response.is_read
        # Bytes that TLS has decrypted already do not show at the socket.
        has_more = self.sock is not None and getattr(self.sock, "pending", int)()
        return is_idle and self.is_own and not has_more and super().is_connected

    def close(self) -> None:
        """Close the connection and its response, unless that comes to its end by being closed."""
        super().close()
        response = self._last_response()
        if response is not None and not response.will_close:
            response.close()

    def connect(self) -> None:
        """Connect, as urllib3 calls it."""
        self._process = os.getpid()
        _connect(self, super().connect)

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, as urllib3 calls it."""
        # urllib3 connects only after it has assembled the request. An interrupt of a slow
        # connection would then have the headers, and the token, in the locals of its traceback.
        # With TLS urllib3 connects first.
        if self.sock is None:
            self.connect()
        super().request(*args, **kwargs)

    def get(
        self, target: str, headers: Mapping[str, str], timeout: float | None
    ) -> DeadlineResponse | None:
        """Send a GET over the open connection, without the steps of urllib3 and http.client.

        Returns:
            The response with its head; None, and nothing is sent, for headers that these steps
            would change, or if they print what they send.
        """
        if self.debuglevel:
            return None
        host = self.host if self.port == self.default_port else f"{self.host}:{self.port}"
        head = _head_of_get(target, host, headers)
        if head is None:
            return None
        try:
            sys.audit("http.client.send", self, head)
            # It fits into the empty buffer of the system, so the timeout does not matter.
            self.sock.sendall(head)
        finally:
            # An interrupt leads through this frame, and the token is in the head.
            del head
        response = self.response_class(self.sock, method="GET")
        response.fp.raw.timeout = timeout
        try:
            response.read_head()
        except BaseException:
            response.close()
            raise
        if response.will_close:
            self.close()
        return response


def _head_of_get(target: str, host: str, headers: Mapping[str, str]) -> bytes | None:
    """Return the head of a GET, or None if urllib3 or http.client would change its headers."""
    names = {name.lower() for name in headers}
    if not names >= _ALWAYS_SENT or not names.isdisjoint(_SENT_OTHERWISE):
        return None
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}"]
    for name, value in headers.items():
        # Each by itself: a line break in one of them would look like one more header.
        if not isinstance(value, str) or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            return None
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[!-~][\t -~]*)?")
# urllib3 adds these if they are missing.
_ALWAYS_SENT = frozenset({"accept-encoding", "user-agent"})
_SENT_OTHERWISE = frozenset({"host", "content-length", "transfer-encoding"})


class _SecureConnection(DeadlineConnection, HTTPSConnection):
    """The same over TLS."""


OUR_CONNECTIONS: dict[Any, Any] = {
    HTTPConnection: DeadlineConnection,
    HTTPSConnection: _SecureConnection,
}
"""Our connections, by the class of urllib3 that they replace."""
