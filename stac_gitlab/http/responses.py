"""What a server's answer means: the error for a status, a sign-in page, a broken connection.

Every error made here says what was asked, what came, what that means and what to do next, and
holds no secret: responses are replaced by a scrubbed copy, and so is what requests and urllib3
raised, whose messages hold URLs and whose frames hold the headers that were sent.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
from collections.abc import Mapping
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
from stac_gitlab.redaction import MAX_ERROR_BODY, printable, redact, redact_response

# Enough to show what a server says; whole bodies belong neither in messages nor in pickles.
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
_USUAL_ADVICE = {
    400: "The server does not accept this request. Check the URL and its parameters.",
    401: "The server wants a valid credential. Check the token, its scope and its expiry date.",
    403: "The credential is valid, but has no right to this. Ask for access, or check the "
    "token's scope.",
    404: "It does not exist, or there is no access to it with this token. Check the URL.",
    405: "The server does not offer this operation here.",
    409: "It exists already. Update it, or choose another id.",
    410: "It is gone for good.",
    412: "It has changed since it was read. Read it again, and repeat the change.",
    422: "The server understood the request, but not one of its values.",
    429: "Too many requests. Ask less often, or try again later.",
}
_SIGN_IN = re.compile(
    rb"users/sign_in|sign[ _-]?in|log[ _-]?in|type=[\"']?password|single sign-on|/oauth|/auth/",
    re.IGNORECASE,
)
_HTML_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)", re.IGNORECASE)
_HTML_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)


def error_for_status(
    response: requests.Response,
    *,
    advice: str | None = None,
    retry_after: float | None = None,
) -> HTTPStatusError:
    """Return the error for a response whose status is not a success.

    Args:
        response: The response; its body has been read.
        advice: What the status means at this server, in place of the usual meaning.
        retry_after: Seconds that the server asks to wait.
    """
    status = response.status_code
    clean = redact_response(response)
    said = _server_says(clean)
    message = (
        f"{_request_line(clean)}: {status} {clean.reason or ''}".rstrip()
        + (f" (the server says: {said})" if said else "")
        + f". {advice or _USUAL_ADVICE.get(status) or _advice_for_class(status)}"
    )
    if retry_after is not None:
        message += f" The server asks to wait {retry_after:.0f} s."
    cls = _CLASS_OF_STATUS.get(status, ServerError if status >= 500 else HTTPStatusError)
    return cls(message, response=clean, retry_after=retry_after)


def error_for_page(response: requests.Response, body: bytes, *, wanted: str) -> STACGitLabError:
    """Return the error for an HTML page that came with a 200 in place of `wanted`."""
    clean = redact_response(response)
    line = _request_line(clean)
    start = body[:8192]
    if _SIGN_IN.search(start) or _SIGN_IN.search(response.url.encode()):
        return AuthenticationError(
            f"{line}: a sign-in page came in place of {wanted}. The server did not accept the "
            "credential, or this address takes none. Check the token, and that the URL is one of "
            "the API rather than of the web site.",
            response=clean,
        )
    return InvalidResponseError(
        f"{line}: an HTML page came in place of {wanted}. Check that the URL is one of the API "
        "rather than of the web site.",
        url=clean.url,
    )


def error_for_failure(failure: Exception, *, method: str, url: str) -> STACGitLabError:
    """Return the error for what requests or urllib3 raised in place of a whole answer."""
    redacted = redact(url)
    line = f"{method} {redacted}"
    kind = _kind(failure)
    reason = redact(_reason(failure))
    if isinstance(failure, requests.TooManyRedirects):
        return InvalidResponseError(
            f"{line}: too many redirects ({reason}). The server sends its callers in circles; if "
            "you expect so many, raise Limits(redirects=).",
            url=redacted,
        )
    if _HEAD_TOO_LARGE.match(reason):
        return InvalidResponseError(
            f"{line}: the head of the answer is too large ({reason}). Whoever runs the server, or "
            "a proxy before it, has to send shorter headers.",
            url=redacted,
        )
    if isinstance(failure, _BAD_REQUESTS):
        return InvalidResponseError(
            f"{line}: this is, or leads to, what cannot be asked for ({reason}). Check the URL.",
            url=redacted,
        )
    if isinstance(failure, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return RequestTimeoutError(
            f"{line}: no whole answer in time ({reason}). The server is slow or out of reach. "
            "Try again, or raise timeout= or the deadline of the RetryPolicy.",
            url=redacted,
        )
    if type(failure) is OSError and failure.errno is None:
        # So requests tells that a file with certificates is missing, before any connection.
        return ConfigurationError(f"{line}: not asked for ({reason}).")
    if issubclass(kind, requests.exceptions.SSLError):
        return NetworkError(
            f"{line}: no secure connection ({reason}). If the server's certificate comes from an "
            "authority of your organisation, name its file in REQUESTS_CA_BUNDLE.",
            url=redacted,
        )
    if isinstance(failure, _BROKEN_BODIES) or _is_garbled(failure):
        return InvalidResponseError(
            f"{line}: the answer was cut short or garbled ({reason}). Try again.",
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


# Whoever takes a URL or a header apart, down to http.client, raises a kind of ValueError.
_BAD_REQUESTS = (ValueError, requests.exceptions.InvalidJSONError)
_BROKEN_BODIES = (
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.DecodeError,
    urllib3.exceptions.IncompleteRead,
    urllib3.exceptions.InvalidChunkLength,
    # requests has names of its own for this one, except where a body is read below it.
    urllib3.exceptions.ProtocolError,
)
# How our adapter says it, and how http.client does under an adapter of the caller's.
_HEAD_TOO_LARGE = re.compile(
    r"got more than \d+ (?:bytes of head|bytes when reading (?:header|status) line|headers)"
)
# A handshake that breaks off may work the next time; one that is refused will not.
_BROKEN_HANDSHAKES = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def is_html(response: requests.Response, body: bytes) -> bool:
    """Tell whether a body is an HTML page, by what it says rather than by what it is called."""
    kind = response.headers.get("Content-Type", "").lower()
    return _HTML_START.match(_HTML_COMMENT.sub(b"", body[:1024])) is not None or (
        "text/html" in kind and body.lstrip()[:1] == b"<"
    )


def without_request(failure: Exception) -> requests.exceptions.RequestException:
    """Return what can be shown of a failure, to be the cause of an error of ours.

    What was raised holds the request with its headers, in attributes and in the frames of its
    traceback, where whatever prints locals would show the token.
    """
    return _kind(failure)(redact(str(failure)))


def without_frames(error: STACGitLabError) -> STACGitLabError:
    """Forget where one of our errors comes from: the frames there hold a body as it came."""
    error.__context__ = None
    return error.with_traceback(None)


def _is_garbled(failure: Exception) -> bool:
    """Tell whether something came that is no answer, rather than nothing."""
    root = _root(failure)
    return isinstance(root, http.client.HTTPException) and not isinstance(root, ConnectionError)


def _kind(failure: Exception) -> type[requests.exceptions.RequestException]:
    """Return the class of requests that names a failure."""
    if isinstance(_root(failure), _BROKEN_HANDSHAKES):
        return requests.ConnectionError
    for cls in type(failure).__mro__:
        # Subclasses made elsewhere (those of a mock, say) may be built in another way.
        if issubclass(cls, requests.RequestException) and cls.__module__ == _REQUESTS:
            return cls
    return requests.ConnectionError


_REQUESTS = requests.exceptions.__name__


def _request_line(response: requests.Response) -> str:
    method = response.request.method if response.request is not None else "GET"
    return f"{method} {response.url}"


def _advice_for_class(status: int) -> str:
    if status >= 500:
        return "The server, or one behind it, failed. Try again later."
    if 300 <= status < 400:
        return "The server points elsewhere without saying where."
    return "The server does not accept this request."


def _server_says(response: requests.Response) -> str:
    """Return what the body of an error says, on one line and shortened."""
    body = response.content
    if not body or is_html(response, body):
        return ""
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, RecursionError):
        text = _message_in(json.loads(text)) or text
    # Once more, because JSON may have hidden something; and before it is cut, because half a secret
    # is still a secret.
    text = redact(printable(" ".join(text.split()), limit=MAX_ERROR_BODY))
    return text if len(text) <= MAX_EXCERPT else f"{text[:MAX_EXCERPT]}…"


def _message_in(body: Any) -> str:
    """Find the message in an error body: FastAPI's, GitLab's, OGC's and the usual others."""
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
    """Return what is at the bottom of an exception: requests wraps it several times."""
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
    # urllib3 puts the connection object, with its address in memory, before some reasons.
    return re.sub(r"^<[^>]*>:\s*|^\w*(?:Connection|Pool)\([^)]*\):\s*", "", text)


class Document:
    """The whole answer to a request for a document.

    Attributes:
        url: Where it came from, after all redirects, without secrets.
        body: The bytes, decoded.
        headers: The response's headers.
        status: The HTTP status.
    """

    __slots__ = ("body", "headers", "status", "url")

    def __init__(self, url: str, body: bytes, headers: Mapping[str, str], status: int) -> None:
        self.url = url
        self.body = body
        self.headers = headers
        self.status = status


def etag_of(headers: Mapping[str, str]) -> str | None:
    """Return the entity tag among the headers of an answer, unless a secret was put into it."""
    etag = headers.get("ETag")
    return None if etag is None or redact(etag) != etag else etag


def text_of(answer: Document) -> str:
    """Return the text of an answer.

    Raises:
        InvalidResponseError: If it is not UTF-8.
    """
    try:
        return answer.body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        redacted = redact(answer.url)
        raise InvalidResponseError(
            f"{redacted}: not UTF-8 text (at byte {error.start}).", url=redacted
        ) from None
