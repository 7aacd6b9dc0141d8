"""Everything that stac_gitlab raises or warns about.

::

    STACGitLabError
    ├── ConfigurationError          (ValueError)            an argument or setting makes no sense
    ├── RemoteWriteError            (NotImplementedError)   writing to a URL
    ├── NetworkError                (requests.ConnectionError)
    │   └── RequestTimeoutError     (requests.Timeout)
    ├── InvalidResponseError        (ValueError)            not JSON, not STAC, truncated
    │   └── NotSTACError            (pystac.STACTypeError)  JSON, but not the STAC object asked for
    ├── HTTPStatusError             (requests.HTTPError)
    │   ├── AuthenticationError     401, or a sign-in page in place of an answer
    │   ├── ConflictError           409, 412
    │   ├── InvalidRequestError     400, 422
    │   ├── PermissionDeniedError   403
    │   ├── NotFoundError           404
    │   ├── RateLimitError          429
    │   └── ServerError             5xx
    └── DownloadError
        ├── AssetNotFoundError
        ├── ChecksumMismatchError
        ├── IncompleteDownloadError
        ├── LFSPointerError
        └── UnsafePathError

    STACGitLabWarning               (UserWarning)
    ├── IncompleteListingWarning
    ├── InsecureTransportWarning
    ├── NothingToDownloadWarning
    ├── UndeclaredExtensionWarning
    ├── UnreadableItemWarning
    └── UnverifiedDownloadWarning

In brackets stands the class that users' ``except`` clauses already name. Every error pickles with
its attributes, so it survives the way back from a worker process. No message holds a secret: what
is raised here was scrubbed by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pystac
import requests


def _restore(
    cls: type[STACGitLabError], args: tuple[Any, ...], state: dict[str, Any]
) -> STACGitLabError:
    """Rebuild a pickled error without calling a constructor that wants keywords."""
    error = cls.__new__(cls, *args)
    # OSError, from which the errors of requests descend, leaves this to its constructor.
    error.args = args
    error.__dict__.update(state)
    return error


class STACGitLabError(Exception):
    """Root of every error that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


class ConfigurationError(STACGitLabError, ValueError):
    """An argument, environment variable or setting makes no sense."""


class RemoteWriteError(STACGitLabError, NotImplementedError):
    """Something was to be written to a URL; this package writes local files only."""


class NetworkError(STACGitLabError, requests.ConnectionError):
    """The server could not be reached, or the connection broke before a whole answer came.

    Attributes:
        url: What was asked, without secrets.
    """

    def __init__(self, message: str, *, url: str = "") -> None:
        super().__init__(message)
        self.url = url


class RequestTimeoutError(NetworkError, requests.Timeout):
    """The server did not answer in time, or the deadline of the whole request passed."""


class InvalidResponseError(STACGitLabError, ValueError):
    """An answer (or a local file) is not what it has to be: not JSON, not STAC, cut short.

    Attributes:
        url: Where the document came from, without secrets.
        truncated: Whether it ends in the middle. Asking again may help then, and only then.
    """

    def __init__(self, message: str, *, url: str = "", truncated: bool = False) -> None:
        super().__init__(message)
        self.url = url
        self.truncated = truncated


class NotSTACError(InvalidResponseError, pystac.STACTypeError):
    """A document is sound JSON, but not a STAC object, or not one of the type asked for."""


class HTTPStatusError(STACGitLabError, requests.HTTPError):
    """The server answered with a status that is not a success.

    Attributes:
        response: The answer. Its request, URL, headers and body have been scrubbed of secrets.
        status_code: The HTTP status.
        url: What was asked, without secrets.
        retry_after: Seconds that the server asks to wait, or None where it gives no hint.
    """

    def __init__(
        self, message: str, *, response: requests.Response, retry_after: float | None = None
    ) -> None:
        super().__init__(message, response=response)
        self.status_code: int = response.status_code
        self.url: str = response.url
        self.retry_after = retry_after


class AuthenticationError(HTTPStatusError):
    """401, or a sign-in page answered as 200: no credential, or one that is not valid."""


class ConflictError(HTTPStatusError):
    """409 or 412: it exists already, or it is not what it was when it was read."""


class InvalidRequestError(HTTPStatusError):
    """400 or 422: the server does not accept a filter, an item or another value."""


class PermissionDeniedError(HTTPStatusError):
    """403: the credential is valid, but has no right to this."""


class NotFoundError(HTTPStatusError):
    """404: it does not exist, or this credential may not know that it does."""


class RateLimitError(HTTPStatusError):
    """429: too many requests. `retry_after` says how long to wait, where the server does."""


class ServerError(HTTPStatusError):
    """5xx: the server, or one behind it, failed."""


class DownloadError(STACGitLabError):
    """One or more assets could not be brought home.

    Attributes:
        errors: What went wrong, by asset key.
        report: What became of every asset of the call, where there is a report.
    """

    def __init__(
        self,
        message: str,
        *,
        errors: Mapping[str, Exception] | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.errors: dict[str, Exception] = dict(errors or {})
        self.report = report


class AssetNotFoundError(DownloadError):
    """The item has no such asset."""


class ChecksumMismatchError(DownloadError):
    """The bytes that came are not the bytes that the metadata promise."""


class IncompleteDownloadError(DownloadError):
    """Fewer or more bytes came than were announced."""


class LFSPointerError(DownloadError):
    """A Git LFS (or DVC) pointer came in place of the data it points to."""


class UnsafePathError(DownloadError):
    """An asset key or item id cannot be made a file name inside the output folder."""


class STACGitLabWarning(UserWarning):
    """Root of every warning that this package gives."""


class IncompleteListingWarning(STACGitLabWarning):
    """A server listed fewer things than it said there are."""


class InsecureTransportWarning(STACGitLabWarning):
    """A token is sent over plain http to another machine."""


class NothingToDownloadWarning(STACGitLabWarning):
    """None of the assets of an item fits what was asked for."""


class UndeclaredExtensionWarning(STACGitLabWarning):
    """A filter is used that the server does not say it understands; it may ignore it."""


class UnreadableItemWarning(STACGitLabWarning):
    """One item of a page could not be read, and was left out."""


class UnverifiedDownloadWarning(STACGitLabWarning):
    """Nothing was there to check a downloaded file against."""
