"""The limit: what Python can do over a socket, with the simplest HTTP that works here."""

from __future__ import annotations

import hashlib
import os
import queue
import socket
import ssl
import threading
from urllib.parse import urlsplit

BUFFER_SIZE = 256 * 1024


class Connection:
    """A kept-alive connection that gets one file after the other."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        self._host = f"{host}:{port}"
        self._socket: socket.socket = socket.create_connection((host, port))
        if parts.scheme == "https":
            self._socket = ssl.create_default_context().wrap_socket(
                self._socket, server_hostname=host
            )
        self._buffer = memoryview(bytearray(BUFFER_SIZE))

    def get(self, url: str, path: str, *, hasher: hashlib._Hash | None = None) -> None:
        """Write a file to `path`, and hash it on the way."""
        request = f"GET {urlsplit(url).path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n"
        self._socket.sendall(request.encode())
        start = b""
        while b"\r\n\r\n" not in start:
            start += self._socket.recv(16384)
        head, _, body = start.partition(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) - len(body)
        with open(path, "wb", buffering=0) as file:
            file.write(body)
            if hasher is not None:
                hasher.update(body)
            while left:
                count = self._socket.recv_into(self._buffer)
                file.write(self._buffer[:count])
                if hasher is not None:
                    hasher.update(self._buffer[:count])
                left -= count


def one_file(url: str, path: str, hashed: str = "") -> int:
    """Get one file."""
    hasher = hashlib.sha256() if hashed else None
    Connection(url).get(url, path, hasher=hasher)
    return 1


def hash_alone(path: str) -> int:
    """Hash a file that is in memory."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return 1


def many_files(url_list: str, folder: str, workers: str) -> int:
    """Get many files, over as many connections as there are workers."""
    with open(url_list, encoding="ascii") as file:
        urls = file.read().split()
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for url in urls:
        waiting.put(url)

    def work() -> None:
        connection = Connection(urls[0])
        while True:
            try:
                url = waiting.get_nowait()
            except queue.Empty:
                return
            connection.get(url, os.path.join(folder, url.rpartition("/")[2]))

    threads = [threading.Thread(target=work) for _ in range(int(workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(urls)
