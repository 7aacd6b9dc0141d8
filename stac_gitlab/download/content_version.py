"""Whether content is the same: of two parts of a file, and of a file here and at its server.

Source: RFC 9110, "Conditional Requests" and "Range Requests".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import requests

from stac_gitlab.download.source import Source, url_digest
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.files.partial_file import (
    OWN_PREFIX,
    leftovers_for,
    leftovers_in,
    open_own,
    remove_leftovers,
    replace_file,
)
from stac_gitlab.http.body import is_encoded
from stac_gitlab.http.head import is_well_framed, length_in
from stac_gitlab.redaction import redact, redacting_logger

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
        saved = None
        with contextlib.suppress(UnknownChecksumError):
            saved = Checksum.parse(info.get("checksum"))
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


def has_other_date(response: requests.Response, validator: str | None) -> bool:
    """Return whether a 304 response to a date states another one.

    It means that the content is not newer, but an older version may have been restored.
    """
    if "If-Modified-Since" not in if_changed(validator):
        return False
    return response.headers.get("Last-Modified", validator) != validator


def _usable(validator: object) -> str | None:
    """Return a validator that can be saved and sent back: a server may write anything there."""
    if isinstance(validator, str) and validator.isascii() and validator.isprintable():
        return validator if redact(validator) == validator else None
    return None


logger = redacting_logger(__name__)
FILE_NAME = f"{OWN_PREFIX}-records.jsonl"
# Longer than any record: then the file is not one of ours.
_MAX_LINE = 1024 * 1024
_MAX_OUTDATED = 100


@dataclass(frozen=True)
class Record:
    """One downloaded file.

    Attributes:
        path: Its path below the output folder, with slashes.
        size: Size in bytes.
        mtime_ns: Time of its last modification, in ns since 1970.
        source: Digest of the URL that it came from.
        checksum: Its multihash, if one was computed.
        validator: The content version that the server sent: an ETag, or a Last-Modified date.
        blob_id: Its git blob id, or that of the Git LFS pointer to it.
    """

    path: str
    size: int
    mtime_ns: int
    source: str
    checksum: str | None = None
    validator: str | None = None
    blob_id: str | None = None

    def describes(self, target: Path) -> bool:
        """Return whether the file is as it was when it was downloaded."""
        try:
            status = target.stat()
        except (OSError, ValueError):
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)

    def line(self) -> bytes:
        """Return the record as one line of JSON."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return f"{json.dumps(known)}\n".encode("ascii")


_FIELD_TYPES = {field.name: int if field.type == "int" else str for field in fields(Record)}


class Records(dict[str, Record]):
    """The latest record of each path.

    Attributes:
        outdated: How many lines of the file are of no use.
    """

    outdated = 0

    @property
    def need_compacting(self) -> bool:
        """Whether most lines are outdated."""
        return self.outdated > max(len(self), _MAX_OUTDATED)


def read_records(folder: Path) -> Records:
    """Return the latest record of each path."""
    records = Records()
    lines = 0
    with contextlib.suppress(OSError), open_own(folder / FILE_NAME) as file:
        while (line := file.readline(_MAX_LINE)) and len(line) < _MAX_LINE:
            lines += 1
            if (record := _parse_record(line)) is not None:
                records[record.path] = record
    records.outdated = lines - len(records)
    return records


def append_record(folder: Path, record: Record) -> None:
    """Add a record; raise an OSError if the folder cannot be written to."""
    # Not through a link, which could lead out of the folder; nor into a pipe without a reader.
    unusual = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | unusual
    handle = os.open(os.path.join(folder, FILE_NAME), flags, 0o666)
    try:
        os.write(handle, record.line())
    finally:
        os.close(handle)


def compact_records(folder: Path) -> None:
    """Rewrite the records without the outdated lines.

    A record that another run appends in the meantime may be lost. That costs a download later, but
    is never wrong, since a record counts only for a file with its size and time of modification.
    """
    path = folder / FILE_NAME
    current = [
        record
        for record in read_records(folder).values()
        if record.describes(folder.joinpath(*record.path.split("/")))
    ]
    try:
        remove_leftovers(leftovers_for(path, leftovers_in(folder)))
        replace_file(path, b"".join(record.line() for record in current))
    except OSError as error:
        logger.info("The records in %s cannot be rewritten: %s", folder, error)


def _parse_record(line: bytes) -> Record | None:
    """Return the record in a line, or None if the line is not valid."""
    try:
        entry = json.loads(line)
        known = {name: entry[name] for name in _FIELD_TYPES if entry.get(name) is not None}
        record = Record(**known)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if any(type(value) is not _FIELD_TYPES[name] for name, value in known.items()):
        return None
    # It is sent as a header, and anybody may have written the file.
    return replace(record, validator=_usable(record.validator))
