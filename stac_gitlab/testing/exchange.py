"""One HTTP exchange as the stand-in servers see it: the request that came and the answer that goes.

This module owns the values. Sockets are `loopback`'s, what to answer is each server's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Content = bytes | str | Mapping[str, Any] | list[Any]
"""What a test may hand in as a body: bytes, text, or something to write as JSON."""

_BYTE_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")


class Headers(Mapping[str, str]):
    """Headers by name in any letter case; a repeated header is joined by a comma.

    Example:
        >>> headers = Headers([("X-Gitlab-Token", "glpat-1")])
        >>> headers["x-gitlab-token"], "X-GITLAB-TOKEN" in headers
        ('glpat-1', True)
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._named: dict[str, tuple[str, str]] = {}
        for name, value in pairs:
            key = name.lower()
            joined = f"{self._named[key][1]}, {value}" if key in self._named else value
            self._named[key] = (name, joined)

    def __getitem__(self, name: str) -> str:
        return self._named[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._named.values())

    def __len__(self) -> int:
        return len(self._named)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._named

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


@dataclass
class RecordedRequest:
    """A request as it arrived.

    Attributes:
        method: The method, upper case.
        target: The request line's target, exactly as the client quoted it.
        path: The target's path with its percent escapes decoded.
        query: The decoded query parameters; of a repeated one the last.
        headers: The headers, by name in any letter case.
        body: The body, empty where there was none.
        status: The status that was answered; `None` until then, and for ever where the
            connection was cut before an answer.
        arrived: When it arrived, by `time.monotonic()`.
        abandoned: Whether the client closed the connection while the answer was being sent. A
            body that fits the sockets' buffers is sent before anybody can tell.
    """

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Headers
    body: bytes = b""
    status: int | None = None
    arrived: float = 0.0
    abandoned: bool = False

    @property
    def raw_path(self) -> str:
        """The target's path as the client quoted it, without the query."""
        return self.target.partition("?")[0]

    @property
    def query_string(self) -> str:
        """The query as the client quoted it, without the question mark."""
        return self.target.partition("?")[2]

    def json(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """An answer before it is framed for the wire.

    Attributes:
        status: The status code.
        headers: Name and value pairs in the order in which they are sent. The framing headers
            (`Content-Length`, `Transfer-Encoding`, `Connection`) are added when the answer is sent.
        body: Bytes, or pieces of bytes made while they are sent.
        length: The length in bytes of a body in pieces, where it is known.
        chunked: Send in chunks and tell no length.
        hang_up: Close the socket afterwards without saying so in a header.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Iterable[bytes] = b""
    length: int | None = None
    chunked: bool = False
    hang_up: bool = False

    def header(self, name: str) -> str | None:
        """The value of a header, whatever its letter case; `None` where there is none."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def with_headers(self, changes: Mapping[str, str | None]) -> Answer:
        """The same answer with headers replaced or added, or removed where the value is `None`."""
        changed = {name.lower() for name in changes}
        kept = [(name, value) for name, value in self.headers if name.lower() not in changed]
        added = [(name, value) for name, value in changes.items() if value is not None]
        return replace(self, headers=(*kept, *added))


@dataclass(frozen=True)
class Validators:
    """What a client may hold against a later version of the same bytes."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The validators as answer headers."""
        named = (("etag", self.etag), ("last-modified", self.last_modified))
        return tuple((name, value) for name, value in named if value is not None)

    def allow_range(self, request: RecordedRequest) -> bool:
        """Whether the request's `If-Range`, if it has one, still holds."""
        condition = request.headers.get("If-Range")
        return condition is None or condition in (self.etag, self.last_modified)

    def met_by(self, request: RecordedRequest) -> bool:
        """Whether the request names this very version as the one that its sender has."""
        etags = request.headers.get("If-None-Match")
        if etags is not None:
            return self.etag is not None and self.etag in [tag.strip() for tag in etags.split(",")]
        since = request.headers.get("If-Modified-Since")
        return since is not None and since == self.last_modified


def json_answer(status: int, document: Any, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An answer in compact UTF-8 JSON."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, (("content-type", "application/json"), *headers), body)


def text_answer(status: int, text: str, *, hang_up: bool = False) -> Answer:
    """An answer in plain text."""
    headers = (("content-type", "text/plain; charset=utf-8"),)
    return Answer(status, headers, text.encode(), hang_up=hang_up)


def content_answer(content: Content, status: int = 200, media_type: str | None = None) -> Answer:
    """An answer made of what a test hands in: bytes, text or something to write as JSON."""
    if isinstance(content, bytes):
        return Answer(
            status, (("content-type", media_type or "application/octet-stream"),), content
        )
    if isinstance(content, str):
        text_type = media_type or "text/plain; charset=utf-8"
        return Answer(status, (("content-type", text_type),), content.encode())
    answer = json_answer(status, content)
    return answer.with_headers({"content-type": media_type}) if media_type else answer


def _requested_range(request: RecordedRequest, size: int) -> range | None:
    """The bytes that a `Range` header asks for, empty where they lie behind the end.

    `None` where the header is missing, names several ranges or makes no sense: a server then
    answers with the whole.
    """
    match = _BYTE_RANGE.match(request.headers.get("Range", ""))
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)


def ranged_answer(whole: Answer, request: RecordedRequest, validators: Validators) -> Answer | None:
    """The part of an answer that the request's `Range` asks for, the whole where it asks for none.

    A sender that has this version already gets a 304 without a body.

    Returns:
        The answer, or `None` where the range lies behind the end: what a 416 looks like is the
        server's own affair.
    """
    body = whole.body
    if not isinstance(body, bytes):
        raise TypeError("only an answer whose body is bytes can be cut into ranges")
    whole = replace(
        whole, headers=(*whole.headers, *validators.headers(), ("accept-ranges", "bytes"))
    )
    if validators.met_by(request):
        return replace(whole, status=304, body=b"")
    wanted = _requested_range(request, len(body))
    if wanted is None or not validators.allow_range(request):
        return whole
    if not wanted:
        return None
    span = ("content-range", f"bytes {wanted.start}-{wanted.stop - 1}/{len(body)}")
    return replace(
        whole, status=206, headers=(*whole.headers, span), body=body[wanted.start : wanted.stop]
    )


def strong_etag(body: bytes) -> str:
    """A strong entity tag of these bytes."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def accepts_gzip(request: RecordedRequest) -> bool:
    """Whether the request's `Accept-Encoding` names gzip."""
    return "gzip" in request.headers.get("Accept-Encoding", "")


__all__ = [
    "Answer",
    "Content",
    "Headers",
    "RecordedRequest",
    "Validators",
    "accepts_gzip",
    "content_answer",
    "json_answer",
    "ranged_answer",
    "strong_etag",
    "text_answer",
]
