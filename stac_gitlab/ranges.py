"""Parts of a file: which bytes an answer holds, and whether they are of the content that is known.

Source: RFC 9110, "Range Requests" and "Conditional Requests".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import requests

from stac_gitlab.head import coding_in, length_in

__all__ = ["Version", "is_encoded", "is_well_framed", "span_of", "total_of"]

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)", re.IGNORECASE)


@dataclass(frozen=True)
class Version:
    """What a server calls a content.

    Attributes:
        validator: An entity tag, or a date; None where the server does not tell. Parts are put
            together by a strong one only.
    """

    validator: str | None = None

    def if_unchanged(self) -> dict[str, str]:
        """Return the header that asks for a part of this content, or else for all of another."""
        return {} if self.validator is None else {"If-Range": self.validator}

    def if_changed(self) -> dict[str, str]:
        """Return the header that asks for any content but this one."""
        if self.validator is None:
            return {}
        is_etag = self.validator.startswith(('"', "W/"))
        return {"If-None-Match" if is_etag else "If-Modified-Since": self.validator}

    def is_that_of(self, response: requests.Response) -> bool:
        """Tell whether an answer is of the same content.

        A server that passes over If-Range names other content here, and so gives itself away.
        """
        named = "ETag" if (self.validator or "").startswith('"') else "Last-Modified"
        return not self.validator or response.headers.get(named, self.validator) == self.validator


def span_of(response: requests.Response) -> range | None:
    """Return which bytes of the file an answer holds, or None if it is no plain part of it."""
    if response.status_code != 206 or is_encoded(response) or not is_well_framed(response):
        return None
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None:
        return None
    span = range(int(match[1]), int(match[2]) + 1)
    return span if span and length_in(response.headers) in (None, len(span)) else None


def total_of(response: requests.Response) -> int | None:
    """Return the size that the whole file has, where a part of it tells."""
    size = response.headers.get("Content-Range", "").strip().rpartition("/")[2]
    return int(size) if size.isascii() and size.isdigit() and len(size) < 19 else None


def is_encoded(response: requests.Response) -> bool:
    """Tell whether the body has to be decoded, although identity was asked for."""
    return response.headers.get("Content-Encoding", "identity").strip().lower() != "identity"


def is_well_framed(response: requests.Response) -> bool:
    """Tell whether there is one way only to read where the body ends.

    The standard library reads ``+5`` and ``5_0`` as lengths, and takes what is ``gzip, chunked``,
    chunk sizes included, for the body.
    """
    headers = response.headers
    is_clear = length_in(headers) is not None or not headers.get("Content-Length", "").strip()
    return coding_in(headers) in ("", "chunked") and is_clear
