"""A server that writes to its connections whatever a test says, byte by byte if need be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self  # in `typing` from Python 3.11 on

Answer = Callable[["RawServer", socket.socket], None]


class RawServer:
    """Reads one request from each connection, hands the connection over, and hangs up.

    Args:
        answer: Takes the server and the connection, and writes an answer to it.

    Attributes:
        requests: The requests that came, as bytes.
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
        """Send piece by piece with a pause after each, until the client or the test has enough."""
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
            # What the client still sends must not turn our goodbye into a reset.
            connection.shutdown(socket.SHUT_WR)


def trickling(head: bytes, piece: bytes = b" ") -> Answer:
    """The head comes at once, and then one piece after the other, for longer than anyone waits."""

    def answer(server: RawServer, connection: socket.socket) -> None:
        server.send(connection, [head])
        server.send(connection, [piece] * 1000, 0.02)

    return answer


def silence(server: RawServer, connection: socket.socket) -> None:
    """Nothing comes."""
    server.send(connection, [b""], 30)
