"""Faults that `stac_gitlab.testing` does not have: invalid framing, broken ranges, and TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from stac_gitlab.errors import (
    AuthenticationError,
    ChecksumMismatchError,
    IncompleteDownloadError,
    LFSPointerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest

SIGN_IN_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head>"
    b'<body><form action="/users/sign_in"><input type="password"></form></body></html>'
)
LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)
DVC_POINTER = b"outs:\n- md5: a304afb96060aad90176268345e10355\n  size: 12345\n  path: lakes.csv\n"

FOR_EVER = 3600.0
"""Seconds. Closing the loopback server ends the wait."""


# -- faults with a name ---------------------------------------------------------------------------


def cut(after: int, *, length: bool = True, **more: Any) -> Fault:
    """The connection is closed after so many bytes. Without a length, clients cannot tell."""
    return Fault(cut_after=after, close=not length, **more)


def stalled(after: int, **more: Any) -> Fault:
    """So many bytes are sent, then nothing, while the connection stays open."""
    return Fault(trickle=(after, FOR_EVER), **more)


def announcing(length: int, **more: Any) -> Fault:
    """The whole body is sent under a wrong `Content-Length`."""
    return Fault(headers={"content-length": str(length)}, hang_up=True, **more)


def in_raw_chunks(wire: bytes, *, etag: str | None = None, **more: Any) -> Fault:
    """The body after `Transfer-Encoding: chunked` is exactly this, valid or not."""
    headers = [("content-type", "application/octet-stream"), ("transfer-encoding", "chunked")]
    if etag is not None:
        headers.append(("etag", etag))
    answer = Answer(200, tuple(headers), wire)
    return Fault(answer=lambda _request: answer, close=True, **more)


# For a body of 40 000 bytes: faults of one response that a download survives, and faults of all
# responses that make it fail.

_PAGE = Answer(200, (("content-type", "text/html"),), SIGN_IN_PAGE)

FAULTS_TO_SURVIVE = {
    "cut": cut(20_000),
    "cut at once": cut(0),
    "reset": Fault(reset=True),
    "reset in the middle": Fault(reset=True, cut_after=20_000),
    "dropped": Fault(drop=True),
    "chunks cut": Fault(chunked=True, cut_after=20_000),
    "chunks garbled": in_raw_chunks(b"5\r\nlakes\r\nzz\r\n"),
    "trickle": Fault(trickle=(5_000, 0.001)),
    "compressed": Fault(gzip=True),
    "too long announced": announcing(50_000),
    "429": Fault(status=429),
    "429 with a hint": Fault(status=429, headers={"Retry-After": "0"}),
    "500": Fault(status=500),
    "502": Fault(status=502),
    "503": Fault(status=503),
}

FAULTS_TO_FAIL_OF = {
    "401": (Fault(status=401), AuthenticationError),
    "403": (Fault(status=403), PermissionDeniedError),
    "404": (Fault(status=404), NotFoundError),
    "429": (Fault(status=429), RateLimitError),
    "429 for an hour": (Fault(status=429, headers={"Retry-After": "3600"}), RateLimitError),
    "500": (Fault(status=500), ServerError),
    "cut": (cut(0), IncompleteDownloadError),
    "cut without length": (cut(0, length=False), IncompleteDownloadError),
    "too long announced": (announcing(50_000), IncompleteDownloadError),
    "too short announced": (announcing(30_000), IncompleteDownloadError),
    "chunks garbled": (in_raw_chunks(b"zz\r\n"), IncompleteDownloadError),
    "sign-in page": (Fault(answer=lambda _: _PAGE), AuthenticationError),
    "LFS pointer": (Fault(body=LFS_POINTER), LFSPointerError),
    "DVC pointer": (Fault(body=DVC_POINTER), LFSPointerError),
    "other bytes": (Fault(body=bytes(40_000)), ChecksumMismatchError),
    "another size": (Fault(body=bytes(4_000)), IncompleteDownloadError),
}


# -- files with and without ranges ----------------------------------------------------------------


@dataclass
class ServedFile:
    """A route for `LoopbackServer` that serves a file, with correct or broken ranges.

    Attributes:
        content: The bytes.
        etag: The entity tag of whole and partial responses.
        modified: `Last-Modified`.
        keeps_ranges: Whether `Range` is supported.
        keeps_if_range: Whether `If-Range` is supported. If not, a part of the new content is sent.
        span: A function from the requested range to the range that is sent.
        cap: The maximum length of a partial response, in bytes.
        headers: Further headers of each response.
    """

    content: bytes
    etag: str | None = '"one"'
    modified: str | None = None
    keeps_ranges: bool = True
    keeps_if_range: bool = True
    span: Callable[[range], range] = field(default=lambda asked: asked)
    cap: int | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, request: RecordedRequest) -> Answer:
        named = {"etag": self.etag, "last-modified": self.modified, **self.headers}
        whole = Answer(200, (("content-type", "application/octet-stream"),), self.content)
        whole = whole.with_headers(named)
        asked = request.headers.get("Range")
        condition = request.headers.get("If-Range")
        if asked is None or not self.keeps_ranges:
            return whole
        if condition is not None and self.keeps_if_range and condition not in named.values():
            return whole
        size = len(self.content)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first)
        if start >= size:
            return Answer(416, (("content-range", f"bytes */{size}"),), b"")
        stop = min(size, int(last) + 1) if last else size
        stop = stop if self.cap is None else min(stop, start + self.cap)
        part = self.span(range(start, stop))
        content_range = f"bytes {part.start}-{part.stop - 1}/{size}"
        return replace(whole, status=206, body=self.content[part.start : part.stop]).with_headers(
            {"content-range": content_range}
        )


def generated(size: int, piece: bytes = bytes(range(256)) * 256) -> Iterator[bytes]:
    """Yield `size` bytes in pieces."""
    while size:
        yield piece[:size]
        size -= min(size, len(piece))


# -- TLS ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for the loopback interface."""

    file: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate with the openssl command line, or skip the test if it is missing."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command line is not installed")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    kind = ["req", "-x509", "-nodes", "-days", "2", "-newkey", "rsa:2048"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(made.key), "-out", str(made.file)]
    subprocess.run([openssl, *kind, *names, *files], check=True, capture_output=True)
    return made


class TLSServer(LoopbackServer):
    """A `LoopbackServer` over TLS. It closes connections without `close_notify`."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.file, certificate.key)

    @property
    def url(self) -> str:
        return super().url.replace("http://", "https://")

    def start(self, port: int = 0) -> TLSServer:
        super().start(port)
        listener = self._listener
        assert listener is not None
        # The accepting thread looks the method up for each connection. The handshake is left to
        # the thread that serves the connection.
        process = listener.process_request

        def process_securely(request: socket.socket, address: Any) -> None:
            process(
                self._context.wrap_socket(request, server_side=True, do_handshake_on_connect=False),
                address,
            )

        listener.process_request = process_securely  # type: ignore[method-assign]
        return self


class Gate:
    """A route that holds its responses back until a test opens it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._open = threading.Event()
        self.waiting = threading.Semaphore(0)

    def open(self) -> None:
        """Release all responses."""
        self._open.set()

    def wait_for(self, count: int, timeout: float = 10) -> None:
        """Wait until so many requests are held back."""
        for _ in range(count):
            assert self.waiting.acquire(timeout=timeout), "the requests did not come"

    def __call__(self, request: RecordedRequest) -> Answer:
        def pieces() -> Iterator[bytes]:
            half = len(self._content) // 2
            yield self._content[:half]
            self.waiting.release()
            self._open.wait(60)
            yield self._content[half:]

        return Answer(200, (), pieces(), length=len(self._content))
