"""Faults: responses replaced, delayed, cut or garbled on purpose."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from stac_gitlab.testing.exchange import Answer, Content, RecordedRequest, response_of


@dataclass(frozen=True)
class Fault:
    r"""A fault for the requests that match.

    With `status` the fault replaces the response. Without it, the fault disturbs the real one.
    `Fault()` changes nothing and only counts.

    Attributes:
        path: Regular expression, searched in the decoded path without the query.
        method: The method; `None` matches all.
        query: Regular expression, searched in the query as it was sent; `None` matches all.
        status: Status of a response that replaces the real one.
        headers: Headers of that response. Without `status`, headers to set in the real response,
            or to remove where the value is `None`.
        body: Body of that response, or a body to replace the real one: bytes, text, or an object to
            send as JSON.
        answer: A function that makes the whole response; it takes precedence over `status`.
        times: How many matching requests are affected; `None` means all of them.
        after: How many matching requests pass before that.
        delay: Seconds to wait before anything is sent. Closing the server ends the wait.
        cut_after: Close the connection after so many bytes of the body, under headers that promise
            all of it.
        reset: Reset the TCP connection: before the response, or after `cut_after` bytes of its
            body.
        drop: Close the connection without sending a byte.
        trickle: Send the body in pieces of so many bytes, with so many seconds after each.
        chunked: Send the body in chunks, without a length.
        close: Send the body without a length or chunks, so that the end of the connection is its
            end. With `cut_after`, clients cannot tell that bytes are missing.
        hang_up: Close the connection after a complete response without a `Connection: close`
            header.
        gzip: Compress the body, whatever the client accepts.

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
        """Return whether the fault concerns this request."""
        return (
            (self.method is None or self.method.upper() == request.method)
            and re.search(self.path, request.path) is not None
            and (self.query is None or re.search(self.query, request.query_string) is not None)
        )

    def response(
        self, request: RecordedRequest, real: Callable[[RecordedRequest], Answer]
    ) -> Answer:
        """Return the response under this fault, given the function that makes the real one."""
        if self.answer is not None:
            answer = self.answer(request)
        elif self.status is not None:
            answer = response_of(b"" if self.body is None else self.body, self.status)
        else:
            answer = real(request)
            if self.body is not None:
                answer = replace(answer, body=response_of(self.body).body, length=None)
        answer = answer.with_headers(self.headers)
        if self.gzip:
            body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
            answer = replace(answer, body=gzip.compress(body, mtime=0), length=None)
            answer = answer.with_headers({"content-encoding": "gzip"})
        return replace(
            answer,
            chunked=answer.chunked or self.chunked,
            hang_up=answer.hang_up or self.hang_up,
        )


class ArmedFault:
    """A fault that a server applies, and how often it did.

    Attributes:
        fault: The fault.
        hits: How many requests were affected so far.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        self._passed = 0
        self._disarmed = False
        self._lock = threading.Lock()

    def affects(self, request: RecordedRequest) -> bool:
        """Count a request, and return whether it is affected."""
        fault = self.fault
        with self._lock:
            used_up = fault.times is not None and self.hits >= fault.times
            if self._disarmed or used_up or not fault.matches(request):
                return False
            if self._passed < fault.after:
                self._passed += 1
                return False
            self.hits += 1
            return True

    def disarm(self) -> None:
        """Let every later request pass."""
        with self._lock:
            self._disarmed = True
