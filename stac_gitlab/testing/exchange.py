"""One HTTP exchange: the request as it arrived, and the response before it is framed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Content = bytes | str | Mapping[str, Any] | list[Any]
"""A body as tests write it: bytes, text, or an object to send as JSON."""

_BYTE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Headers(Mapping[str, str]):
    """Headers with case-insensitive names. Values of a repeated header are joined by a comma.

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
        method: The method in upper case.
        target: The target of the request line, as the client quoted it.
        path: The path of the target, percent-decoded.
        query: The decoded query parameters. Of a repeated parameter, the last value.
        headers: The headers, with case-insensitive names.
        body: The body, empty if there was none.
        status: The status of the response. `None` if the connection was closed before one was sent.
        arrived: Time of arrival, by `time.monotonic()`, in seconds.
        abandoned: Whether the client closed the connection while the response was being sent. This
            goes unnoticed for a body that fits into the buffers of the sockets.
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
        """The path as the client quoted it, without the query."""
        return self.target.partition("?")[0]

    @property
    def query_string(self) -> str:
        """The query as the client quoted it, without the question mark."""
        return self.target.partition("?")[2]

    def json(self) -> Any:
        """Parse the body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """A response before it is framed.

    Attributes:
        status: The status code.
        headers: Name and value pairs, in the order in which they are sent. The framing headers
            (`Content-Length`, `Transfer-Encoding`, `Connection`) are added when it is sent.
        body: The bytes, or an iterable of pieces.
        length: The length in bytes of a body in pieces, if it is known.
        chunked: Send the body in chunks, without a length.
        hang_up: Close the connection afterwards without a `Connection: close` header.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Iterable[bytes] = b""
    length: int | None = None
    chunked: bool = False
    hang_up: bool = False

    def header(self, name: str) -> str | None:
        """Return the value of a header, or `None`. The name is case-insensitive."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def with_headers(self, changes: Mapping[str, str | None]) -> Answer:
        """Return a copy with these headers set, or removed where the value is `None`."""
        changed = {name.lower() for name in changes}
        kept = [(name, value) for name, value in self.headers if name.lower() not in changed]
        added = [(name, value) for name, value in changes.items() if value is not None]
        return replace(self, headers=(*kept, *added))


def response_of(
    content: Content, status: int = 200, headers: Mapping[str, str | None] | None = None
) -> Answer:
    """Return a response with this content, under a media type that suits its Python type."""
    if isinstance(content, bytes):
        media_type, body = "application/octet-stream", content
    elif isinstance(content, str):
        media_type, body = "text/plain; charset=utf-8", content.encode()
    else:
        media_type = "application/json"
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, (("content-type", media_type),), body).with_headers(headers or {})


def ranged_response(whole: Answer, request: RecordedRequest) -> Answer | None:
    """Apply the `Range` and the conditions of a request to a response.

    The validators are the `ETag` and `Last-Modified` headers of the response.

    Returns:
        A 304, a 206 or the whole response; `None` if the range starts behind the end of the body.
    """
    body = whole.body
    if not isinstance(body, bytes):
        raise TypeError("only a response whose body is bytes can be cut into ranges")
    whole = whole.with_headers({"accept-ranges": "bytes"})
    if _is_not_modified(whole, request):
        return replace(whole, status=304, body=b"")
    wanted = _requested_range(request, len(body))
    condition = request.headers.get("If-Range")
    current = (None, whole.header("etag"), whole.header("last-modified"))
    if wanted is None or condition not in current:
        return whole
    if not wanted:
        return None
    span = f"bytes {wanted.start}-{wanted.stop - 1}/{len(body)}"
    part = replace(whole, status=206, body=body[wanted.start : wanted.stop])
    return part.with_headers({"content-range": span})


def strong_etag(body: bytes) -> str:
    """Return a strong entity tag of these bytes."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def accepts_gzip(request: RecordedRequest) -> bool:
    """Return whether the client accepts a gzip-encoded body."""
    return "gzip" in request.headers.get("Accept-Encoding", "")


def _is_not_modified(whole: Answer, request: RecordedRequest) -> bool:
    etags = request.headers.get("If-None-Match")
    if etags is not None:
        return whole.header("etag") in [tag.strip() for tag in etags.split(",")]
    since = request.headers.get("If-Modified-Since")
    return since is not None and since == whole.header("last-modified")


def _requested_range(request: RecordedRequest, size: int) -> range | None:
    """Return the range of a `Range` header, empty if it starts behind the end of the body.

    `None` means the whole body: the header is missing, invalid or names several ranges (RFC 9110,
    section 14.2, allows a server to ignore it).
    """
    match = _BYTE_RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
