"""An HTTP server on a loopback socket, which records its requests and fails on command."""

from __future__ import annotations

import http.server
import os
import socket
import socketserver
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

from stac_gitlab.testing.exchange import (
    Answer,
    Content,
    Headers,
    RecordedRequest,
    ranged_response,
    response_of,
    strong_etag,
)
from stac_gitlab.testing.faults import ArmedFault, Fault

Buffer = bytes | memoryview

Route = Content | Answer | Callable[[RecordedRequest], "Answer | Content"]
"""What `LoopbackServer.route` serves: content, a response, or a function that returns either."""

_MAX_RECORDED = 100_000
_BLOCK = 256 * 1024  # bytes
_ACCEPT_PAUSE = 0.01  # seconds
_BODILESS = frozenset({204, 304})
_NO_FAULT = Fault()


class LoopbackServer:
    """An HTTP/1.1 server on `127.0.0.1` and a free port, in threads of this process.

    Args:
        routes: Paths and their content, as for `route`.

    Attributes:
        faults: The armed faults, in the order in which they are tried.

    Example:
        >>> from urllib.request import urlopen
        >>> with LoopbackServer({"/greeting": "hello"}) as server:
        ...     with urlopen(f"{server.url}/greeting") as response:
        ...         response.read()
        ...     [(request.method, request.path, request.status) for request in server.requests]
        b'hello'
        [('GET', '/greeting', 200)]
    """

    def __init__(self, routes: Mapping[str, Route] | None = None) -> None:
        self.faults: list[ArmedFault] = []
        self._routes: dict[str, Callable[[RecordedRequest], Answer]] = {}
        self._requests: deque[RecordedRequest] = deque(maxlen=_MAX_RECORDED)
        self._lock = threading.Lock()
        self._listener: _Listener | None = None
        self._accepting: threading.Thread | None = None
        self._closing = threading.Event()
        for path, content in (routes or {}).items():
            self.route(path, content)

    def start(self, port: int = 0) -> Self:
        """Bind the socket and accept connections.

        Args:
            port: The port to listen on; 0 takes a free one.

        Returns:
            The server itself.
        """
        if self._listener is None:
            self._closing.clear()
            self._listener = _Listener(self, port)
            self._accepting = threading.Thread(
                target=self._listener.accept_connections, name=f"{type(self).__name__}", daemon=True
            )
            self._accepting.start()
        return self

    def close(self) -> None:
        """Stop: end all delays, close all connections, join all threads."""
        listener, accepting = self._listener, self._accepting
        if listener is None or accepting is None:
            return
        self._closing.set()
        listener.stop(accepting)
        self._listener = self._accepting = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        if self._listener is None:
            raise RuntimeError("the server is not running: use it in a `with` block, or start() it")
        return int(self._listener.server_address[1])

    @property
    def url(self) -> str:
        """The URL of the server without a trailing slash: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: the same as `url`, for tests that are about origins."""
        return self.url

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests so far, in the order in which they arrived."""
        with self._lock:
            return list(self._requests)

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._requests.clear()

    def inject(self, fault: Fault) -> ArmedFault:
        """Arm a fault. If several match a request, the first one is applied.

        Returns:
            The armed fault, which counts its `hits` and can be disarmed.
        """
        armed = ArmedFault(fault)
        with self._lock:
            self.faults.append(armed)
        return armed

    def clear_faults(self) -> None:
        """Disarm all faults."""
        with self._lock:
            self.faults.clear()

    def route(
        self,
        path: str,
        content: Route,
        *,
        status: int = 200,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        ranges: bool = False,
    ) -> None:
        """Serve content on a path, for all methods.

        Args:
            path: The decoded path, without the query.
            content: Bytes, text, an object to send as JSON, an `Answer`, or a function that takes
                the `RecordedRequest` and returns any of these.
            status: The status of content that is not an `Answer`.
            media_type: Its media type, if it does not follow from its Python type.
            headers: Headers to add.
            ranges: Support `Range` and conditional requests. An entity tag is added if there is
                none.
        """

        def answer(request: RecordedRequest) -> Answer:
            made = content(request) if callable(content) else content
            if not isinstance(made, Answer):
                made = response_of(made, status, {"content-type": media_type} if media_type else {})
            made = made.with_headers(headers or {})
            body = made.body
            if not ranges or not isinstance(body, bytes):
                return made
            if made.header("etag") is None:
                made = made.with_headers({"etag": strong_etag(body)})
            span = {"content-range": f"bytes */{len(body)}"}
            return ranged_response(made, request) or response_of("range not satisfiable", 416, span)

        self._routes[path] = answer

    def answer(self, request: RecordedRequest) -> Answer:
        """Return the response to a request if no fault is applied. Subclasses override this."""
        route = self._routes.get(request.path)
        if route is None:
            return response_of(f"nothing is served at {request.path}", 404)
        return route(request)

    def _record(self, request: RecordedRequest) -> None:
        with self._lock:
            self._requests.append(request)

    def _fault_for(self, request: RecordedRequest) -> Fault:
        with self._lock:
            armed = list(self.faults)
        return next((each.fault for each in armed if each.affects(request)), _NO_FAULT)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._closing.wait(seconds)


class _Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The listening socket and the accepted connections.

    `http.server.ThreadingHTTPServer` would look up the name of the host in DNS.
    """

    daemon_threads = True
    # With the default backlog of 5, a burst of clients waits a second for a repeated SYN.
    request_queue_size = 256

    # Allows a restart on the same port. On Windows, two servers could then share the port.
    allow_reuse_address = os.name == "posix"

    def __init__(self, owner: LoopbackServer, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Connection)
        self.owner = owner
        self.aborted: set[socket.socket] = set()
        self._connections: set[socket.socket] = set()
        self._serving: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def accept_connections(self) -> None:
        """Accept until stopped, without the polling of `serve_forever`, which delays the stop."""
        while not self._stopping.is_set():
            try:
                connection, address = self.socket.accept()
            except OSError:  # out of file descriptors until another connection ends
                self._stopping.wait(_ACCEPT_PAUSE)
                continue
            if self._stopping.is_set():
                connection.close()
            else:
                self.process_request(connection, address)

    def stop(self, accepting: threading.Thread) -> None:
        self._stopping.set()
        # Closing a socket does not wake a blocked accept() on every system. A connection does.
        with socket.create_connection(("127.0.0.1", self.owner.port), timeout=5):
            accepting.join()
        self.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._serving:
            thread.join(timeout=5)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="loopback-connection",
            daemon=True,
        )
        with self._lock:
            self._connections.add(request)
        self._serving = [*filter(threading.Thread.is_alive, self._serving), thread]
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        if request in self.aborted:
            # The base class shuts the connection down first, which prevents the reset.
            self.aborted.discard(request)
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore it: clients disconnect in the middle of a response."""


class _Connection(http.server.BaseHTTPRequestHandler):
    """A connection of a client: reads requests and sends responses under a fault."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if self.parse_request():
            self._exchange()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - name in the base class
        """Do nothing: requests are in `LoopbackServer.requests`."""

    def _exchange(self) -> None:
        owner = self.server.owner
        request = self._received()
        owner._record(request)
        fault = owner._fault_for(request)
        owner._wait(fault.delay)
        if owner._closing.is_set() or fault.drop:
            self.close_connection = True
            return
        if fault.reset and fault.cut_after is None:
            self._reset()
            return
        try:
            answer = fault.response(request, owner.answer)
        except Exception:  # noqa: BLE001 - functions of tests may raise anything
            answer = response_of(f"The stand-in itself failed:\n{traceback.format_exc()}", 500)
        request.status = answer.status
        self._send(request, answer, fault)

    def _received(self) -> RecordedRequest:
        length = int(self.headers.get("Content-Length") or 0)
        path, _, query = self.path.partition("?")
        return RecordedRequest(
            method=self.command,
            target=self.path,
            path=unquote(path),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers=Headers(self.headers.items()),
            body=self.rfile.read(length) if length else b"",
            arrived=time.monotonic(),
        )

    def _send(self, request: RecordedRequest, answer: Answer, fault: Fault) -> None:
        bodiless = request.method == "HEAD" or answer.status in _BODILESS
        length = len(answer.body) if isinstance(answer.body, bytes) else answer.length
        chunked = answer.chunked or (length is None and not fault.close)
        head = [
            f"HTTP/1.1 {answer.status} {_reason(answer.status)}",
            f"date: {self.date_time_string()}",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        if fault.close:
            head.append("connection: close")
        elif chunked:
            head.append("transfer-encoding: chunked")
        elif answer.header("content-length") is None and answer.status not in _BODILESS:
            head.append(f"content-length: {length}")
        if self.close_connection and not fault.close:
            head.append("connection: close")
        if answer.hang_up or fault.close or fault.cut_after is not None:
            self.close_connection = True
        first = _wire("\r\n".join((*head, "", "")))
        pieces = _pieces(b"" if bodiless else answer.body, fault)
        framed: Iterable[Buffer] = (piece for piece, _ in pieces)
        if chunked and not fault.close and not bodiless:
            framed = _chunks(pieces, complete=fault.cut_after is None)
        try:
            self._write_all(first, framed, fault)
        except OSError:
            request.abandoned = True
            raise

    def _write_all(self, first: bytes, pieces: Iterable[Buffer], fault: Fault) -> None:
        pause = fault.trickle[1] if fault.trickle else 0.0
        for piece in pieces:
            # The head is sent with the first piece: one packet for a small response.
            self.wfile.write(first + piece if first else piece)
            first = b""
            self.server.owner._wait(pause)
            if self.server.owner._closing.is_set():
                self.close_connection = True
                return
        if first:
            self.wfile.write(first)
        if fault.reset:
            self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.aborted.add(self.connection)
        self.close_connection = True


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _wire(head: str) -> bytes:
    """Encode headers as servers do: as Latin-1 if possible, else as UTF-8."""
    try:
        return head.encode("latin-1")
    except UnicodeEncodeError:
        return head.encode("utf-8")


def _pieces(body: bytes | Iterable[bytes], fault: Fault) -> Iterator[tuple[Buffer, int]]:
    """Yield the body in pieces, up to where it is cut.

    Each piece comes with its size before the cut, which is the size that a chunk announces.
    """
    size = fault.trickle[0] if fault.trickle else _BLOCK
    left = fault.cut_after
    for block in (body,) if isinstance(body, bytes) else body:
        view = memoryview(block)
        for start in range(0, len(view), size):
            whole = view[start : start + size]
            piece = whole if left is None else whole[:left]
            if left is not None:
                left -= len(piece)
            if len(piece):
                yield piece, len(whole)
            if left == 0:
                return


def _chunks(pieces: Iterator[tuple[Buffer, int]], *, complete: bool) -> Iterator[bytes]:
    """Frame pieces as chunks. An incomplete body ends within a chunk or lacks the last chunk."""
    for piece, announced in pieces:
        end = b"\r\n" if len(piece) == announced else b""
        yield b"".join((b"%x\r\n" % announced, piece, end))
    if complete:
        yield b"0\r\n\r\n"
