"""Everything that stac_gitlab raises or warns about.

::

    STACGitLabError
    ├── ConfigurationError          (ValueError)            an invalid argument or setting
    ├── RemoteWriteError            (NotImplementedError)   writing to a URL
    ├── NetworkError                (requests.ConnectionError)
    │   ├── OfflineError            not requested, because the reader is offline
    │   └── RequestTimeoutError     (requests.Timeout)
    ├── InvalidResponseError        (ValueError)            not JSON, not STAC, truncated
    │   └── NotSTACError            (pystac.STACTypeError)  JSON, but not the STAC object asked for
    ├── HTTPStatusError             (requests.HTTPError)
    │   ├── AuthenticationError     (PermissionError)       401, or a sign-in page
    │   ├── ConflictError           409, 412
    │   ├── InvalidRequestError     400, 422
    │   ├── PermissionDeniedError   (PermissionError)       403
    │   ├── NotFoundError           (FileNotFoundError)     404
    │   ├── RateLimitError          429
    │   └── ServerError             5xx
    └── DownloadError
        ├── AssetNotFoundError      (FileNotFoundError)
        ├── ChecksumMismatchError
        ├── DownloadHTTPError       (requests.HTTPError)    all failures are error responses
        ├── IncompleteDownloadError
        ├── LFSPointerError
        └── UnsafePathError

    STACGitLabWarning               (UserWarning)
    ├── ImplicitTokenWarning
    ├── IncompleteListingWarning
    ├── InsecureTransportWarning
    ├── NothingToDownloadWarning
    ├── OfflineWarning
    ├── SecretInFileWarning
    ├── UndeclaredExtensionWarning
    ├── UnreadableItemWarning
    │   └── PartialItemWarning
    └── UnverifiedDownloadWarning

The class in brackets is the one that existing ``except`` clauses name. Every error pickles with its
attributes, so worker processes can raise it. Secrets are redacted before an error is raised.

Each constructor names the base class that it initialises: what ``super()`` finds next in the method
resolution order differs between Python versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pystac
import requests

from stac_gitlab.tracebacks import folded_traceback

_LONG_WORD = re.compile(r"\S{300,}")
_MAX_LINE = 1500


def _shortened(message: str) -> str:
    """Return a message without the middle of very long words and lines.

    URLs, ids and texts of servers can have any length: a ``data:`` URL has megabytes.
    """
    if len(message) < 300:
        return message
    message = _LONG_WORD.sub(lambda word: _without_middle(word[0], 250), message)
    return "\n".join(_without_middle(line, _MAX_LINE) for line in message.split("\n"))


def _without_middle(text: str, limit: int) -> str:
    tail = limit // 3
    return text if len(text) <= limit else f"{text[: limit - tail]}…{text[-tail:]}"


def _restore(
    cls: type[STACGitLabError], args: tuple[Any, ...], state: dict[str, Any]
) -> STACGitLabError:
    """Rebuild a pickled error without its constructor, which has required keyword arguments."""
    error = cls.__new__(cls, *args)
    # OSError, a base of requests' errors, sets args in its constructor only.
    error.args = args
    error.__dict__.update(state)
    return error


class STACGitLabError(Exception):
    """Base class of every error that this package raises on purpose."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, _shortened(message))

    def extend(self, text: str | None) -> None:
        """Add a sentence to the message, if there is one."""
        if self.args and text:
            self.args = (f"{self.args[0]} {text}", *self.args[1:])

    def _render_traceback_(self) -> list[str]:
        return folded_traceback(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


class ConfigurationError(STACGitLabError, ValueError):
    """An argument, environment variable or setting is not valid."""


class RemoteWriteError(STACGitLabError, NotImplementedError):
    """Writing to a URL is not supported; only local files can be written."""


class NetworkError(STACGitLabError, requests.ConnectionError):
    """The server could not be reached, or the connection broke before the response was complete.

    Attributes:
        url: The URL of the request, without secrets.
    """

    def __init__(self, message: str, *, url: str = "") -> None:
        requests.RequestException.__init__(self, _shortened(message))
        self.url = url


class OfflineError(NetworkError):
    """The reader is offline, and the document is not in its cache."""


class RequestTimeoutError(NetworkError, requests.Timeout):
    """The server did not respond in time, or the deadline of the whole request passed."""


class InvalidResponseError(STACGitLabError, ValueError):
    """A response or a local file is not valid: not JSON, not STAC, or truncated.

    Attributes:
        url: The URL of the document, without secrets.
        truncated: Whether the document is incomplete. Only then can a retry help.
    """

    def __init__(self, message: str, *, url: str = "", truncated: bool = False) -> None:
        STACGitLabError.__init__(self, message)
        self.url = url
        self.truncated = truncated


class NotSTACError(InvalidResponseError, pystac.STACTypeError):
    """A document is valid JSON, but not a STAC object, or not one of the expected type."""


class HTTPStatusError(STACGitLabError, requests.HTTPError):
    """The server responded with an error status.

    Attributes:
        response: The response. Secrets in its request, URL, headers and body are redacted.
        request: The request of the response, redacted as well.
        status_code: The HTTP status.
        url: The URL of the request, without secrets.
        retry_after: Seconds to wait before a retry, as the server asked; None if it did not say.
    """

    def __init__(
        self, message: str, *, response: requests.Response, retry_after: float | None = None
    ) -> None:
        requests.RequestException.__init__(self, _shortened(message), response=response)
        self.status_code: int = response.status_code
        self.url: str = response.url
        self.retry_after = retry_after


class AuthenticationError(HTTPStatusError, PermissionError):
    """401, or a sign-in page with status 200: the token is missing or not valid."""


class ConflictError(HTTPStatusError):
    """409 or 412: the object exists already, or has changed since it was read."""


class InvalidRequestError(HTTPStatusError):
    """400 or 422: the server does not accept a filter, an item or another value."""


class PermissionDeniedError(HTTPStatusError, PermissionError):
    """403: the token is valid, but lacks the permission."""


class NotFoundError(HTTPStatusError, FileNotFoundError):
    """404: it does not exist, or the token gives no access to it."""


class RateLimitError(HTTPStatusError):
    """429: too many requests. `retry_after` is the wait in seconds, if the server gave one."""


class ServerError(HTTPStatusError):
    """5xx: the server, or a server behind it, failed."""


class DownloadError(STACGitLabError):
    """One or more assets could not be downloaded.

    Attributes:
        errors: The error of each failed asset, by asset key.
        report: The `DownloadReport`, `BatchReport` or `MirrorReport` of the call; None if there is
            none.
    """

    def __init__(
        self,
        message: str,
        *,
        errors: Mapping[str, Exception] | None = None,
        report: Any = None,
    ) -> None:
        STACGitLabError.__init__(self, message)
        self.errors: dict[str, Exception] = dict(errors or {})
        self.report = report


class AssetNotFoundError(DownloadError, FileNotFoundError):
    """The item has no such asset."""


class ChecksumMismatchError(DownloadError):
    """The downloaded bytes do not match the checksum in the metadata."""


class DownloadHTTPError(DownloadError, requests.HTTPError):
    """Assets could not be downloaded, all of them because of an error response.

    Attributes:
        response: The first of the responses. Secrets in it are redacted.
        request: The request of the response, redacted as well.
    """

    def __init__(
        self,
        message: str,
        *,
        response: requests.Response,
        errors: Mapping[str, Exception] | None = None,
        report: Any = None,
    ) -> None:
        DownloadError.__init__(self, message, errors=errors, report=report)
        requests.RequestException.__init__(self, _shortened(message), response=response)


class IncompleteDownloadError(DownloadError):
    """Fewer or more bytes were received than announced."""


class LFSPointerError(DownloadError):
    """A Git LFS or DVC pointer was received instead of the data."""


class UnsafePathError(DownloadError):
    """An asset key or item id cannot be used as a path inside the output folder."""


class STACGitLabWarning(UserWarning):
    """Base class of every warning that this package issues."""

    def __init__(self, message: str) -> None:
        UserWarning.__init__(self, _shortened(message))


class ImplicitTokenWarning(STACGitLabWarning):
    """A token from the environment goes to the first server read, because no server is named."""


class IncompleteListingWarning(STACGitLabWarning):
    """A server listed fewer objects than it announced."""


class InsecureTransportWarning(STACGitLabWarning):
    """A token is sent to another machine over unencrypted HTTP."""


class NothingToDownloadWarning(STACGitLabWarning):
    """No asset of an item matches the filters."""


class OfflineWarning(STACGitLabWarning):
    """Documents are read from the cache only, because the environment says so."""


class SecretInFileWarning(STACGitLabWarning):
    """A downloaded file contains the token that was sent to download it."""


class UndeclaredExtensionWarning(STACGitLabWarning):
    """The server does not declare support for a filter that was used, and may ignore it."""


class UnreadableItemWarning(STACGitLabWarning):
    """An item of a page could not be read and is left out."""


class PartialItemWarning(UnreadableItemWarning):
    """A server gave an item in a short form only, because it fails on the whole item."""


class UnverifiedDownloadWarning(STACGitLabWarning):
    """A downloaded file has neither a length nor a checksum to verify it against."""
