"""Faults: answers replaced, delayed, cut or garbled on purpose.

A `Fault` says what goes wrong, for which requests and how often. Arming it and counting its
hits is the server's work (`loopback`).
"""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from stac_gitlab.testing.exchange import Answer, Content, RecordedRequest, content_answer


@dataclass(frozen=True)
class Fault:
    r"""One thing that goes wrong with matching requests.

    With `status` the fault replaces the answer; without it, it disturbs the real one. A fault
    that does neither (`Fault()`) only counts.

    Attributes:
        path: Regular expression searched in the decoded path (without the query).
        method: Only this method; `None` is any.
        query: Regular expression searched in the query as it was sent; `None` is any.
        status: Answer this status instead.
        headers: Headers of the replaced answer; of a real one, headers to set, or to remove
            where the value is `None`.
        body: Body of the replaced answer, or a body in the real one's place: bytes, text or
            something to write as JSON.
        answer: A function that makes the whole answer; beats `status`.
        times: How many matching requests are hit; `None` is all of them, for ever.
        after: How many matching requests pass unharmed first.
        delay: Seconds to wait before anything is answered. Ends when the server is closed.
        cut_after: Send only so many bytes of the body, under headers that promise all of it,
            then close the connection.
        reset: End with a TCP reset: before the answer, or after `cut_after` bytes of the body.
        drop: Close the connection without a single byte.
        trickle: Send the body in pieces of so many bytes with so many seconds between them.
        chunked: Send the body in chunks, without a length.
        close: Send the body without length or chunks, its end being the end of the connection:
            with `cut_after` nobody can tell that bytes are missing.
        hang_up: Close the connection after a complete answer without saying so in a header.
        gzip: Compress the body whatever the client accepts.

    Example:
        >>> Fault(path=r"/items$", status=429, headers={"Retry-After": "1"}, times=2).times
        2
    """

    path: str = ""
    method: str | None = None
    query: str | None = None
    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: Content | None = None
    answer: Callable[[RecordedRequest], Answer] | None = None
    times: int | None = 1
    after: int = 0
    delay: float = 0.0
    cut_after: int | None = None
    reset: bool = False
    drop: bool = False
    trickle: tuple[int, float] | None = None
    chunked: bool = False
    close: bool = False
    hang_up: bool = False
    gzip: bool = False

    def matches(self, request: RecordedRequest) -> bool:
        """Whether this request is one that the fault is about."""
        return (
            (self.method is None or self.method.upper() == request.method)
            and re.search(self.path, request.path) is not None
            and (self.query is None or re.search(self.query, request.query_string) is not None)
        )

    def changed(
        self, request: RecordedRequest, real: Callable[[RecordedRequest], Answer]
    ) -> Answer:
        """The answer under this fault, given the function that makes the real one."""
        if self.answer is not None:
            answer = self.answer(request)
        elif self.status is not None:
            answer = content_answer(b"" if self.body is None else self.body, self.status)
        else:
            answer = real(request)
            if self.body is not None:
                answer = replace(answer, body=content_answer(self.body).body, length=None)
        answer = answer.with_headers(self.headers)
        if self.gzip:
            answer = replace(answer, body=gzip.compress(_joined(answer.body), mtime=0), length=None)
            answer = answer.with_headers({"content-encoding": "gzip"})
        return replace(
            answer,
            chunked=answer.chunked or self.chunked,
            hang_up=answer.hang_up or self.hang_up,
        )


class ArmedFault:
    """A fault at work: which requests it saw, and which it hit.

    Attributes:
        fault: The fault.
        hits: How many requests were hit so far.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        self._seen = 0
        self._disarmed = False
        self._lock = threading.Lock()

    def strikes(self, request: RecordedRequest) -> bool:
        """Count a request, and say whether it is hit."""
        fault = self.fault
        with self._lock:
            if self._disarmed or (fault.times is not None and self.hits >= fault.times):
                return False
            if not fault.matches(request):
                return False
            self._seen += 1
            if self._seen <= fault.after:
                return False
            self.hits += 1
            return True

    def disarm(self) -> None:
        """Let every later request pass."""
        with self._lock:
            self._disarmed = True


def _joined(body: bytes | Iterable[bytes]) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body)
