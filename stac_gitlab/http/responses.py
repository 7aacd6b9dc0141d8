"""A response: a complete document, or the error that its status or content means."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests
import urllib3

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
from stac_gitlab.redaction import MAX_ERROR_BODY, printable, redact, redact_response

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
    line = _request_line(clean)
    advice = advice or usual_advice(line.partition(" ")[0], clean.url, status)
    message = f"{line}: {status} {clean.reason or ''}".rstrip()
    message += f" (the server says: {said}). {advice}" if said else f". {advice}"
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
    reason = _shortened(redact(_reason(failure)))
    response = failure.response if isinstance(failure, requests.TooManyRedirects) else None
    if response is not None and any(
        "Set-Cookie" in each.headers for each in (response, *response.history)
    ):
        return AuthenticationError(
            f"{line}: the server sets a cookie and redirects again and again. It wants a login by "
            "cookie, and cookies are not kept here. Use a token or a signed URL of it, or download "
            "the file with a browser.",
            response=redact_response(response),
        )
    if type(failure) is OSError and failure.errno is None:
        # requests raises this before it connects, if a file with certificates is missing.
        return ConfigurationError(f"{line}: not sent ({reason}). Check the path.")
    cls, problem, advice = _explained(failure, reason)
    return cls(f"{line}: {problem} ({reason}). {advice}", url=redacted)


def _explained(failure: Exception, reason: str) -> tuple[Callable[..., STACGitLabError], str, str]:
    """Return the class of the error for a failure, what went wrong, and what to do."""
    kind = _kind(failure)
    if isinstance(failure, requests.TooManyRedirects):
        advice = "They may lead in a circle. If you expect so many, raise Limits(redirects=)."
        return InvalidResponseError, "too many redirects", advice
    if _HEAD_TOO_LARGE.match(reason):
        advice = "The operator of the server, or of a proxy, has to shorten them."
        return InvalidResponseError, "the headers of the response are too large", advice
    if isinstance(failure, _BAD_REQUESTS):
        problem = "this URL, or its redirect target, is not valid"
        return InvalidResponseError, problem, "Check the URL."
    if isinstance(failure, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        advice = (
            "The server is slow or unreachable. Try again, or raise timeout= of the GitLabStacIO "
            "or STACDownloader, or deadline= of its RetryPolicy."
        )
        return RequestTimeoutError, "no complete response in time", advice
    if issubclass(kind, requests.exceptions.SSLError):
        advice = (
            "If your organisation has its own certificate authority, name its file in "
            "REQUESTS_CA_BUNDLE."
        )
        return NetworkError, "no secure connection", advice
    root = _root(failure)
    # RemoteDisconnected is both: the connection ended before a response.
    is_broken = isinstance(root, http.client.HTTPException) and not isinstance(root, OSError)
    if is_broken or isinstance(failure, _BROKEN_BODIES):
        cls = partial(InvalidResponseError, truncated=True)
        return cls, "the response was cut short or is malformed", "Try again."
    if issubclass(kind, requests.exceptions.ProxyError):
        advice = "Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
        return NetworkError, "no connection through the proxy", advice
    return NetworkError, "no connection", "Check the address and the network."


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


def _kind(failure: Exception) -> type[requests.exceptions.RequestException]:
    """Return the exception class of requests for a failure."""
    if isinstance(_root(failure), _BROKEN_HANDSHAKES):
        return requests.ConnectionError
    for cls in type(failure).__mro__:
        # The constructor of a subclass from another package may have other parameters.
        if issubclass(cls, requests.RequestException) and cls.__module__ == "requests.exceptions":
            return cls
    return requests.ConnectionError


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


def header_without_secret(name: str, headers: Mapping[str, str]) -> str | None:
    """Return the value of a header; None if there is none, or if it contains a secret."""
    value = headers.get(name)
    return None if value is None or redact(value) != value else value


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
