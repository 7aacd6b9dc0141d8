"""What is known of the content that is being brought, so that a later run can go on with it.

Two parts of a file may be put together if a validator of the server, or a checksum of the whole,
proves that they belong together. What proves it is noted beside the part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from stac_gitlab.auth import scrub
from stac_gitlab.multihash import Checksum, UnknownChecksumError
from stac_gitlab.ranges import Version, is_encoded
from stac_gitlab.records import digest_of
from stac_gitlab.source import Source

__all__ = ["Content"]

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
        verify: bool,
        secrets: frozenset[str],
    ) -> Content:
        """Return what an answer tells of its content, `total` bytes of it."""
        headers = response.headers
        called = headers.get("ETag") or headers.get("Last-Modified")
        if called == headers.get("Date"):
            # It may change once more within the same second, and keep its date.
            called = None
        # It is written to the disk and sent back, and a server may have put anything there.
        if called is not None and not (called.isprintable() and scrub(called, secrets) == called):
            called = None
        # Only a strong ETag, or a date, promises that two parts belong together.
        weak = is_encoded(response) or (called or "").startswith("W/")
        checksum = source.checksum or _checksum_of_gitlab(response, total)
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


def _checksum_of_gitlab(response: requests.Response, total: int | None) -> Checksum | None:
    # GitLab's hash describes the file in the repository. For a file in LFS that is the pointer;
    # then its size is not the body's either.
    if response.headers.get("X-Gitlab-Size", "") == str(total):
        with contextlib.suppress(UnknownChecksumError):
            return Checksum.of_sha256(response.headers.get("X-Gitlab-Content-Sha256", ""))
    return None


def _checksum_from(text: object) -> Checksum | None:
    with contextlib.suppress(UnknownChecksumError):
        return Checksum.parse(text)
    return None
