"""A server that writes raw bytes to its connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

Answer = Callable[["RawServer", socket.socket], None]


class RawServer:
    """Reads one request from each connection, calls `answer`, and closes the connection.

    Args:
        answer: A function of the server and the connection that writes a response to it.

    Attributes:
        requests: The requests, as bytes.
    """

    def __init__(self, answer: Answer) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with suppress(OSError), socket.create_connection(self._socket.getsockname(), timeout=5):
            pass
        self._accepting.join(5)
        self._socket.close()
        for thread in self._threads:
            thread.join(5)

    def send(self, connection: socket.socket, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        """Send pieces with a pause after each, until the client or the test ends it."""
        with suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
                if self._closing.wait(pause) if pause else self._closing.is_set():
                    return

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._closing.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    return
                head += received
            self.requests.append(head)
            self._answer(self, connection)
            # Unread data would turn a plain close into a reset.
            connection.shutdown(socket.SHUT_WR)


def trickling(head: bytes, piece: bytes = b" ") -> Answer:
    """Send the head at once, then a piece every 20 ms, for longer than any test waits."""

    def answer(server: RawServer, connection: socket.socket) -> None:
        server.send(connection, [head])
        server.send(connection, [piece] * 1000, 0.02)

    return answer


def silence(server: RawServer, connection: socket.socket) -> None:
    """Send nothing."""
    server.send(connection, [b""], 30)
