"""A response: its decoded body, and the error that its status or content means."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import requests
import urllib3
from urllib3.exceptions import DecodeError
from urllib3.response import BaseHTTPResponse

from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    HTTPStatusError,
    InvalidRequestError,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    STACGitLabError,
)
from stac_gitlab.http.advice import usual_advice
from stac_gitlab.http.transport import coding_in, length_in
from stac_gitlab.redaction import MAX_ERROR_BODY, printable, quoted, redact, redact_response

# Characters of foreign text in a message.
MAX_EXCERPT = 300
_CLASS_OF_STATUS: dict[int, type[HTTPStatusError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    410: NotFoundError,
    412: ConflictError,
    422: InvalidRequestError,
    429: RateLimitError,
}
_SIGN_IN = re.compile(
    rb"users/sign_in|sign[ _-]?in|log[ _-]?in|type=[\"']?password|single sign-on|/oauth|/auth/",
    re.IGNORECASE,
)
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<!--.*?-->\s*+)*+<(?:!doctype\s+html|html)",
    re.IGNORECASE | re.DOTALL,
)


def error_for_status(
    response: requests.Response,
    *,
    advice: str | None = None,
    retry_after: float | None = None,
) -> HTTPStatusError:
    """Return the error for a response whose status is not a success.

    Args:
        response: The response; its body has been read.
        advice: What the status means at this server, instead of its usual meaning.
        retry_after: The wait in seconds that the server asks for.
    """
    status = response.status_code
    clean = redact_response(response)
    said = _server_says(clean)
    method = (clean.request.method if clean.request is not None else None) or "GET"
    message = (
        f"{_request_line(clean)}: {status} {clean.reason or ''}".rstrip()
        + (f" (the server says: {said})" if said else "")
        + f". {advice or usual_advice(method, clean.url, status)}"
    )
    if retry_after is not None:
        message += f" The server asks to wait {retry_after:.0f} s."
    cls = _CLASS_OF_STATUS.get(status, ServerError if status >= 500 else HTTPStatusError)
    return cls(message, response=clean, retry_after=retry_after)


def error_for_page(response: requests.Response, body: bytes, *, wanted: str) -> STACGitLabError:
    """Return the error for an HTML page that came with status 200 instead of `wanted`."""
    clean = redact_response(response)
    line = _request_line(clean)
    start = body[:8192]
    if _SIGN_IN.search(start) or _SIGN_IN.search(response.url.encode()):
        return AuthenticationError(
            f"{line}: a sign-in page came in place of {wanted}. Check the token, and that this is "
            "a URL of the API and not of the web site.",
            response=clean,
        )
    return InvalidResponseError(
        f"{line}: an HTML page came in place of {wanted}. Check that this is a URL of the API and "
        "not of the web site.",
        url=clean.url,
    )


def error_for_failure(failure: Exception, *, method: str, url: str) -> STACGitLabError:
    """Return the error for what requests or urllib3 raised instead of a complete response."""
    redacted = redact(url)
    line = f"{method} {redacted}"
    kind = _kind(failure)
    reason = _shortened(redact(_reason(failure)))
    if isinstance(failure, requests.TooManyRedirects):
        if _sets_cookies(failure.response):
            return AuthenticationError(
                f"{line}: the server sets a cookie and redirects again and again. It wants a login "
                "by cookie, and cookies are not kept here. Use a token or a signed URL of it, or "
                "download the file with a browser.",
                response=redact_response(failure.response),
            )
        return InvalidResponseError(
            f"{line}: too many redirects ({reason}). They may lead in a circle. If you expect so "
            "many, raise Limits(redirects=).",
            url=redacted,
        )
    if _HEAD_TOO_LARGE.match(reason):
        return InvalidResponseError(
            f"{line}: the headers of the response are too large ({reason}). The operator of the "
            "server, or of a proxy, has to shorten them.",
            url=redacted,
        )
    if isinstance(failure, _BAD_REQUESTS):
        return InvalidResponseError(
            f"{line}: this URL, or its redirect target, is not valid ({reason}). Check the URL.",
            url=redacted,
        )
    if isinstance(failure, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return RequestTimeoutError(
            f"{line}: no complete response in time ({reason}). The server is slow or unreachable. "
            "Try again, or raise timeout= of the GitLabStacIO or STACDownloader, or deadline= of "
            "its RetryPolicy.",
            url=redacted,
        )
    if type(failure) is OSError and failure.errno is None:
        # requests raises this before it connects, if a file with certificates is missing.
        return ConfigurationError(f"{line}: not sent ({reason}). Check the path.")
    if issubclass(kind, requests.exceptions.SSLError):
        return NetworkError(
            f"{line}: no secure connection ({reason}). If your organisation has its own "
            "certificate authority, name its file in REQUESTS_CA_BUNDLE.",
            url=redacted,
        )
    if isinstance(failure, _BROKEN_BODIES) or _is_malformed(failure):
        return InvalidResponseError(
            f"{line}: the response was cut short or is malformed ({reason}). Try again.",
            url=redacted,
            truncated=True,
        )
    if issubclass(kind, requests.exceptions.ProxyError):
        return NetworkError(
            f"{line}: no connection through the proxy ({reason}). Check HTTP_PROXY, HTTPS_PROXY "
            "and NO_PROXY.",
            url=redacted,
        )
    return NetworkError(
        f"{line}: no connection ({reason}). Check the address and the network.", url=redacted
    )


def _sets_cookies(response: requests.Response | None) -> TypeGuard[requests.Response]:
    """Return whether a response, or one of those that led to it, sets a cookie."""
    if response is None:
        return False
    return any("Set-Cookie" in each.headers for each in (response, *response.history))


# requests, urllib3 and http.client raise a ValueError for a URL or a header that they cannot parse.
_BAD_REQUESTS = (ValueError, requests.exceptions.InvalidJSONError)
_BROKEN_BODIES = (
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.DecodeError,
    urllib3.exceptions.IncompleteRead,
    urllib3.exceptions.InvalidChunkLength,
    # requests translates this one, except where a body is read without it.
    urllib3.exceptions.ProtocolError,
)
# The message of our adapter, and that of http.client below an adapter of the caller.
_HEAD_TOO_LARGE = re.compile(
    r"got more than \d+ (?:bytes of headers|bytes when reading (?:header|status) line|headers)"
)
# A handshake that breaks off may succeed the next time. One that is refused will not.
_BROKEN_HANDSHAKES = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def is_html(response: requests.Response, body: bytes) -> bool:
    """Tell whether a body is an HTML page, mainly by its content."""
    kind = response.headers.get("Content-Type", "").lower()
    return _HTML_START.match(body[:1024]) is not None or (
        "text/html" in kind and body.lstrip()[:1] == b"<"
    )


def redacted_cause(failure: Exception) -> requests.exceptions.RequestException:
    """Return a copy of an exception that can be the cause of one of our errors.

    The original has the request, and so the token, in attributes and in the locals of its
    traceback.
    """
    return _kind(failure)(_shortened(redact(str(failure))))


def without_traceback(error: STACGitLabError) -> STACGitLabError:
    """Remove the traceback, whose frames contain a body that is not redacted."""
    error.__context__ = None
    return error.with_traceback(None)


def _is_malformed(failure: Exception) -> bool:
    """Tell whether a response came that is not valid HTTP."""
    root = _root(failure)
    return isinstance(root, http.client.HTTPException) and not isinstance(root, ConnectionError)


def _kind(failure: Exception) -> type[requests.exceptions.RequestException]:
    """Return the exception class of requests for a failure."""
    if isinstance(_root(failure), _BROKEN_HANDSHAKES):
        return requests.ConnectionError
    for cls in type(failure).__mro__:
        # The constructor of a subclass from another package may have other parameters.
        if issubclass(cls, requests.RequestException) and cls.__module__ == _REQUESTS:
            return cls
    return requests.ConnectionError


_REQUESTS = requests.exceptions.__name__


def _request_line(response: requests.Response) -> str:
    method = response.request.method if response.request is not None else "GET"
    return f"{method} {response.url}"


def _server_says(response: requests.Response) -> str:
    """Return the message in the body of an error, on one line and shortened."""
    body = response.content
    if not body or is_html(response, body):
        return ""
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, RecursionError):
        text = _message_in(json.loads(text)) or text
    # JSON escapes may have hidden a secret. Redact before shortening: half a secret is one, too.
    text = redact(printable(" ".join(text.split()), limit=MAX_ERROR_BODY))
    return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_EXCERPT else f"{text[:MAX_EXCERPT]}…"


def _message_in(body: Any) -> str:
    """Return the message in an error body of FastAPI, GitLab, OGC API and the like."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_message_in, body)))
    if not isinstance(body, dict):
        return ""
    if "loc" in body and "msg" in body:
        place = body["loc"] if isinstance(body["loc"], list) else [body["loc"]]
        return f"{'.'.join(map(str, place))}: {body['msg']}"
    for name in ("detail", "message", "description", "error_description", "error", "title"):
        found = _message_in(body.get(name))
        if found:
            return found
    return ""


def _root(failure: BaseException) -> BaseException:
    """Return the exception that caused the others: requests and urllib3 wrap it several times."""
    for _ in range(8):
        inner = getattr(failure, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((a for a in failure.args if isinstance(a, BaseException)), None)
        if inner is None:
            break
        failure = inner
    return failure


def _reason(failure: BaseException) -> str:
    root = _root(failure)
    text = " ".join(str(root).split()) or type(root).__name__
    # urllib3 puts the repr of the connection before some reasons.
    return re.sub(r"^<[^>]*>:\s*|^\w*(?:Connection|Pool)\([^)]*\):\s*", "", text)


@dataclass(frozen=True, slots=True)
class Document:
    """A complete response.

    Attributes:
        url: The URL after all redirects, without secrets.
        body: The decoded body.
        headers: The headers.
        status: The HTTP status.
    """

    url: str
    body: bytes
    headers: Mapping[str, str]
    status: int


def etag_of(headers: Mapping[str, str]) -> str | None:
    """Return the ETag, unless it contains a secret."""
    etag = headers.get("ETag")
    return None if etag is None or redact(etag) != etag else etag


def text_of(document: Document) -> str:
    """Return the body as text.

    Raises:
        InvalidResponseError: If it is not UTF-8.
    """
    try:
        return document.body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        redacted = redact(document.url)
        raise InvalidResponseError(
            f"{redacted}: not UTF-8 text (at byte {error.start}).", url=redacted
        ) from None


ACCEPT_ENCODING = "gzip, deflate"
"""The codings that can be undone. The end of a body is marked in both."""

_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
# More than one is rare already, and each multiplies what a few bytes can become.
_MAX_CODINGS = 5
_PIECE = 16 * 1024
_GZIP_MAGIC = b"\x1f\x8b"

Read = Callable[[int], bytes]
"""Reads at least one byte and at most as many as asked for; none at the end of the body only."""


def codings_of(headers: Mapping[str, str]) -> list[str]:
    """Return the content codings of a body, in the order in which they were applied."""
    named = (name.strip().lower() for name in headers.get("Content-Encoding", "").split(","))
    return [name for name in named if name not in ("", "identity")]


def is_encoded(response: requests.Response) -> bool:
    """Tell whether the body has to be decoded, although identity was asked for."""
    return bool(codings_of(response.headers))


def is_decodable(response: requests.Response) -> bool:
    """Tell whether every coding of the body can be undone here."""
    codings = codings_of(response.headers)
    return len(codings) <= _MAX_CODINGS and _CODINGS.issuperset(codings)


def reader_of(response: requests.Response, *, decode: bool = True) -> Read:
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
    # Some mocks and recorders (VCR.py) replace the response of urllib3 by one that only has `read`.
    is_usual = isinstance(raw, BaseHTTPResponse)
    read: Read = partial(raw.read1, decode_content=False) if is_usual else raw.read
    if not decode or isinstance(raw, http.client.HTTPResponse) or _has_no_body(response):
        # An HTTPResponse is VCR.py's, which records and plays decoded bodies.
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


def _has_no_body(response: requests.Response) -> bool:
    """Tell whether a response says that it has no body, and so nothing that could be decoded."""
    headers, method = response.headers, response.request.method if response.request else None
    is_empty = not coding_in(headers) and length_in(headers) == 0
    return is_empty or method == "HEAD" or response.status_code in (204, 304)


class _Decoder:
    """Undoes one coding.

    urllib3 decodes as well, but accepts a body that ends before its end marker.

    Args:
        coding: One of those that can be undone.
        read: Reads the encoded bytes.
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
