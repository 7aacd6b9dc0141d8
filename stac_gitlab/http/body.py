"""The body of a response: decoded, and read up to a limit."""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Callable, Mapping
from functools import partial

import requests
import urllib3
from urllib3.exceptions import DecodeError
from urllib3.response import BaseHTTPResponse

from stac_gitlab.errors import InvalidResponseError
from stac_gitlab.http.deadline import current_deadline
from stac_gitlab.http.head import coding_in, length_in
from stac_gitlab.http.transport import DeadlineResponse
from stac_gitlab.redaction import MAX_ERROR_BODY, quoted, redact

ACCEPT_ENCODING = "gzip, deflate"
"""The codings that can be undone. The end of a body is marked in both."""

_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
# More than one is rare already, and each multiplies what a few bytes can become.
_MAX_CODINGS = 5
_PIECE = 16 * 1024
_CHUNK = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"

Read = Callable[[int], bytes]
"""Reads at least one byte and at most as many as asked for; none at the end of the body only."""


def codings_of(headers: Mapping[str, str]) -> list[str]:
    """Return the content codings of a body, in the order in which they were applied."""
    named = headers.get("Content-Encoding")
    if not named:
        return []
    names = (name.strip().lower() for name in named.split(","))
    return [name for name in names if name not in ("", "identity")]


def is_encoded(response: requests.Response) -> bool:
    """Tell whether the body has to be decoded, although identity was asked for."""
    return bool(codings_of(response.headers))


def is_decodable(response: requests.Response) -> bool:
    """Tell whether every coding of the body can be undone here."""
    codings = codings_of(response.headers)
    return len(codings) <= _MAX_CODINGS and _CODINGS.issuperset(codings)


def body_reader(response: requests.Response, *, decode: bool = True) -> Read:
    """Return a function that reads the decoded body of a response piece by piece.

    It raises ``urllib3.exceptions.DecodeError`` if a coding is garbled, or has not come to its end
    where the body ends.

    Args:
        response: The response.
        decode: Whether to undo its codings; False for a file that is stored in them.

    Raises:
        InvalidResponseError: If a coding cannot be undone here.
    """
    raw = response.raw
    read: Read
    is_decoded = False
    if isinstance(raw, DeadlineResponse):
        read = raw.read_some
    elif isinstance(raw, BaseHTTPResponse):
        read = partial(raw.read1, decode_content=False)
    else:
        # Some mocks and recorders replace the response by one that only has `read`. VCR.py has an
        # HTTPResponse, and records and plays decoded bodies.
        read, is_decoded = raw.read, isinstance(raw, http.client.HTTPResponse)
    if not decode or is_decoded or _has_no_body(response):
        return read
    if not is_decodable(response):
        url = redact(response.url)
        coding = quoted(response.headers["Content-Encoding"])
        raise InvalidResponseError(
            f"{url}: the response has the Content-Encoding {coding}, which cannot be decoded and "
            f"was not requested. Accepted are: {ACCEPT_ENCODING}.",
            url=url,
        )
    for coding in reversed(codings_of(response.headers)):
        read = _Decoder(coding, read).read
    return read


def whole_body(response: requests.Response, max_bytes: int) -> bytes:
    """Return the decoded body of a document.

    Raises:
        InvalidResponseError: If it is larger than `max_bytes`.
    """
    chunks: list[bytes] = []
    size = length_in(response.headers) or 0
    if size <= max_bytes:
        size = 0
        read = body_reader(response)
        while size <= max_bytes and (chunk := read(_CHUNK)):
            # An adapter of the caller's does not check the deadline.
            current_deadline().time_left()
            size += len(chunk)
            chunks.append(chunk)
    if size > max_bytes:
        url = redact(response.url)
        raise InvalidResponseError(
            f"{response.request.method} {url}: the document is larger than {max_bytes} bytes. If "
            "you expect that, raise max_document_bytes.",
            url=url,
        )
    return b"".join(chunks)


def beginning_of_body(response: requests.Response) -> bytes:
    """Read as much of an error's body as is kept, and as can be read of it."""
    body = b""
    try:
        read = body_reader(response)
        while piece := read(MAX_ERROR_BODY - len(body)):
            body += piece
            if len(body) >= MAX_ERROR_BODY:
                response.raw.close()
                break
    except (InvalidResponseError, urllib3.exceptions.HTTPError, OSError):
        response.raw.close()
    return body


def _has_no_body(response: requests.Response) -> bool:
    """Tell whether a response says that it has no body, and so nothing that could be decoded."""
    headers, method = response.headers, response.request.method if response.request else None
    is_empty = not coding_in(headers) and length_in(headers) == 0
    return is_empty or method == "HEAD" or response.status_code in (204, 304)


class _Decoder:
    """Undoes one coding.

    urllib3 decodes as well, but accepts a body that ends before its end marker.
    """

    def __init__(self, coding: str, read: Read) -> None:
        self._coding = coding
        self._read = read
        self._encoded = b""
        self._stream: zlib._Decompress | None = None
        self._members = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` decoded bytes, and none at the end only."""
        while (stream := self._stream or self._next_member()) is not None:
            try:
                data = stream.decompress(self._encoded, size)
            except zlib.error as error:
                raise DecodeError(f"{self._coding}: {error}") from None
            self._encoded = stream.unconsumed_tail
            self._stream = stream
            if stream.eof:
                self._encoded, self._stream = stream.unused_data, None
            elif not data:
                self._encoded = self._read(_PIECE)
                if not self._encoded:
                    raise self._ended_early()
            if data:
                return data
        return b""

    def _ended_early(self) -> DecodeError:
        return DecodeError(f"{self._coding}: the body ends before its end marker")

    def _next_member(self) -> zlib._Decompress | None:
        """Return what decodes the next member of a gzip file, or the only one of deflate."""
        head = self._next_bytes()
        if not head:
            if not self._members:
                raise self._ended_early()
            return None
        is_gzip = self._coding != "deflate"
        if self._members and not (is_gzip and head == _GZIP_MAGIC):
            raise DecodeError(f"{self._coding}: other bytes follow the end of the body")
        self._members += 1
        if is_gzip:
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        # RFC 9110, 8.4.1.2: the zlib format is right, but some servers send bare deflate.
        is_zlib = head[0] & 15 == zlib.DEFLATED and int.from_bytes(head, "big") % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)

    def _next_bytes(self) -> bytes:
        """Return the two bytes by which a member is known, without the padding before it."""
        while True:
            if self._members:
                # Padding with zeros is usual on tapes; Python and gzip pass over it, too.
                self._encoded = self._encoded.lstrip(b"\0")
            if len(self._encoded) >= 2:
                break
            piece = self._read(_PIECE)
            if not piece:
                break
            self._encoded += piece
        return self._encoded[:2]
