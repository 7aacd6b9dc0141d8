"""Parts of a file: which bytes an answer holds, and whether they are of the content that is known.

Source: RFC 9110, "Range Requests" and "Conditional Requests".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from stac_gitlab.download.source import Source, digest_of
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.http.decoding import is_encoded
from stac_gitlab.http.transport import is_well_framed, length_in
from stac_gitlab.redaction import redact

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


# What is left of a smaller file is not worth keeping for a later run.
KEEP_FROM = 1024 * 1024


@dataclass(frozen=True)
class Content:
    """One version of a file.

    Attributes:
        validator: What the server calls it: its ETag, or the date of its last change.
        version: What the server calls it, if that promises that two parts belong together.
        total: Bytes of the whole file, where the server tells.
        checksum: What all of it has to hash to, where that is known and matters.
    """

    validator: str | None = None
    version: Version = field(default_factory=Version)
    total: int | None = None
    checksum: Checksum | None = None

    @classmethod
    def of(
        cls,
        response: requests.Response,
        total: int | None,
        source: Source,
        *,
        sha256: str | None,
        verify: bool,
    ) -> Content:
        """Return what an answer tells of its content, `total` bytes of it."""
        headers = response.headers
        called = headers.get("ETag") or headers.get("Last-Modified")
        if called == headers.get("Date"):
            # It may change once more within the same second, and keep its date.
            called = None
        # It is written to the disk and sent back, and a server may have put anything there.
        if called is not None and not (called.isprintable() and redact(called) == called):
            called = None
        # Only a strong ETag, or a date, promises that two parts belong together.
        weak = is_encoded(response) or (called or "").startswith("W/")
        checksum = source.checksum or _checksum_of_sha256(sha256)
        return cls(called, Version(None if weak else called), total, checksum if verify else None)

    @classmethod
    def noted(cls, notes: Mapping[str, Any], source: Source, *, verify: bool) -> Content | None:
        """Return what an earlier run noted, if something can prove that it is of this content."""
        total, called = notes.get("total"), notes.get("validator")
        if notes.get("source") != digest_of(source.url) or not isinstance(total, int):
            return None
        if not (isinstance(called, str) and called.isascii() and called.isprintable()):
            called = None
        promised = source.checksum if verify else None
        if called is None and (promised is None or notes.get("checksum") != str(promised)):
            return None
        # What is promised now counts: the notes may be of a time when nothing was, or anyone's.
        checksum = source.checksum or _checksum_from(notes.get("checksum"))
        return cls(called, Version(called), total, checksum if verify else None)

    def notes(self, source: Source) -> dict[str, Any] | None:
        """Return what a later run has to know to continue, or None if that is not worth it."""
        worth_it = self.total is not None and self.total >= KEEP_FROM
        validator = self.version.validator
        if not worth_it or (validator is None and self.checksum is None):
            return None
        return {
            "source": digest_of(source.url),
            "validator": validator,
            "total": self.total,
            "checksum": None if self.checksum is None else str(self.checksum),
        }


def _checksum_of_sha256(digest: str | None) -> Checksum | None:
    with contextlib.suppress(UnknownChecksumError):
        return Checksum.of_sha256(digest or "")
    return None


def _checksum_from(text: object) -> Checksum | None:
    with contextlib.suppress(UnknownChecksumError):
        return Checksum.parse(text)
    return None
