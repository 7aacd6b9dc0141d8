"""Parts of a file, and whether they belong to the same version of its content.

Source: RFC 9110, "Conditional Requests" and "Range Requests".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import requests

from stac_gitlab.download.source import Source, url_digest
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.http.decoding import is_encoded
from stac_gitlab.http.transport import is_well_framed, length_in
from stac_gitlab.redaction import redact

KEEP_FROM = 1024 * 1024
"""Bytes of the smallest file of which a later run resumes a part."""


_CONTENT_RANGE = re.compile(
    r"bytes (\d{1,18})-(\d{1,18})/(?:(\d{1,18})|\*)", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class ByteRange:
    """The part of a file that a response holds.

    Attributes:
        start: Position of the first byte.
        stop: Position after the last byte.
        size: Bytes of the whole file, None if the server does not say.
    """

    start: int
    stop: int
    size: int | None

    @classmethod
    def of(cls, response: requests.Response) -> Self | None:
        """Return the range that a response says it holds, or None if it is not a usable part."""
        if response.status_code != 206 or is_encoded(response) or not is_well_framed(response):
            return None
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if match is None:
            return None
        start, stop = int(match[1]), int(match[2]) + 1
        size = None if match[3] is None else int(match[3])
        is_consistent = start < stop and (size is None or stop <= size)
        if not is_consistent or length_in(response.headers) not in (None, stop - start):
            return None
        return cls(start, stop, size)


@dataclass(frozen=True)
class ContentVersion:
    """One version of a file's content, by all that is known to identify it.

    Attributes:
        etag: The entity tag, strong or weak.
        modified: The date of the last change, as the server wrote it.
        size: Bytes of the whole file.
        checksum: The expected checksum of the whole file.
        is_encoded: Whether the server sends the content compressed.
    """

    etag: str | None = None
    modified: str | None = None
    size: int | None = None
    checksum: Checksum | None = None
    is_encoded: bool = False

    @classmethod
    def of(
        cls, response: requests.Response, *, size: int | None, checksum: Checksum | None = None
    ) -> Self:
        """Return the version that a response describes."""
        modified = response.headers.get("Last-Modified")
        if modified == response.headers.get("Date"):
            # The content may change again within the same second and keep its date (section
            # 8.8.2.2).
            modified = None
        etag = response.headers.get("ETag")
        return cls(_usable(etag), _usable(modified), size, checksum, is_encoded(response))

    @classmethod
    def from_resume_info(
        cls, info: Mapping[str, Any], source: Source, *, verify: bool
    ) -> Self | None:
        """Return the version that an earlier run saved, or None if it cannot be continued."""
        size = info.get("size")
        if info.get("source") != url_digest(source.url) or type(size) is not int:
            return None
        # The checksum of the metadata counts: what was saved may be older, or written by anyone.
        saved = _parsed(info.get("checksum"))
        checksum = (source.checksum or saved) if verify else None
        version = cls(_usable(info.get("etag")), _usable(info.get("modified")), size, checksum)
        is_same = checksum is not None and source.checksum == saved
        return version if version.has_strong_validator or is_same else None

    def resume_info(self, source: Source) -> dict[str, Any] | None:
        """Return what a later run needs to continue a part, or None if that is not worth it."""
        is_large = self.size is not None and self.size >= KEEP_FROM
        if not is_large or not (self.has_strong_validator or self.checksum is not None):
            return None
        return {
            "source": url_digest(source.url),
            "etag": self.etag,
            "modified": self.modified,
            "size": self.size,
            "checksum": None if self.checksum is None else str(self.checksum),
        }

    @property
    def validator(self) -> str | None:
        """The validator for a conditional request: the entity tag, or else the date."""
        return self.etag or self.modified

    @property
    def has_strong_validator(self) -> bool:
        """Whether two parts with the validators of this version fit together (section 15.3.7.3).

        Positions in decoded content mean nothing to a server that sends it encoded.
        """
        return not self.is_encoded and (self._has_strong_etag or self.modified is not None)

    @property
    def _has_strong_etag(self) -> bool:
        return self.etag is not None and not self.etag.startswith("W/")

    def range_conditions(self) -> dict[str, str]:
        """Return the headers that make a range request valid for this version only."""
        if self._has_strong_etag or (self.etag is None and self.modified is not None):
            return {"If-Range": str(self.validator)}
        if self.modified is not None:
            # With a weak entity tag, If-Range allows neither of the two (section 13.1.5).
            return {"If-Unmodified-Since": self.modified}
        return {}

    def matches(self, response: requests.Response) -> bool:
        """Return whether a partial response is of this version.

        A part has to repeat the validators that the whole file has (section 15.3.7). A server that
        ignores the condition of a range request states other ones.
        """
        part = ByteRange.of(response)
        if part is None or (None not in (self.size, part.size) and self.size != part.size):
            return False
        if self.etag is not None and response.headers.get("ETag") != self.etag:
            return False
        # A response to If-Range with an entity tag need not repeat the date.
        needs_date = self.modified is not None and not self._has_strong_etag
        return not needs_date or response.headers.get("Last-Modified") == self.modified


def if_changed(validator: str | None) -> dict[str, str]:
    """Return the headers of a request for the content unless it still has this validator."""
    if validator is None:
        return {}
    is_etag = validator.startswith(('"', "W/"))
    return {"If-None-Match" if is_etag else "If-Modified-Since": validator}


def _usable(validator: object) -> str | None:
    """Return a validator that can be saved and sent back: a server may write anything there."""
    if isinstance(validator, str) and validator.isascii() and validator.isprintable():
        return validator if redact(validator) == validator else None
    return None


def _parsed(checksum: object) -> Checksum | None:
    with contextlib.suppress(UnknownChecksumError):
        return Checksum.parse(checksum)
    return None
