"""Proofs that an existing file is unchanged: records of earlier runs, and git blob ids."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from stac_gitlab.errors import InvalidResponseError, STACGitLabError
from stac_gitlab.files.checksums import BUFFER_SIZE
from stac_gitlab.files.partial_file import (
    OWN_PREFIX,
    PartialFile,
    leftovers_for,
    leftovers_in,
    open_own,
)
from stac_gitlab.http.deadline import current_deadline
from stac_gitlab.http.responses import Document
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import redacting_logger

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

    def __post_init__(self) -> None:
        # It is sent as a header, and anybody may have written the file.
        validator = self.validator
        if isinstance(validator, str) and not (validator.isascii() and validator.isprintable()):
            object.__setattr__(self, "validator", None)

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


_RECORD_FIELDS = tuple(field.name for field in fields(Record))


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
            record = _parse_record(line)
            if record is not None:
                records[record.path] = record
    records.outdated = lines - len(records)
    return records


def append_record(folder: Path, record: Record) -> None:
    """Add a record.

    Raises:
        OSError: If the folder cannot be written to.
    """
    # Not through a link, which could lead out of the folder; nor into a pipe without a reader.
    unusual = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | unusual
    handle = os.open(folder / FILE_NAME, flags, 0o666)
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
        for leftover in leftovers_for(path, leftovers_in(folder)):
            leftover.remove()
        with PartialFile(path) as partial_file:
            partial_file.write(b"".join(record.line() for record in current))
            partial_file.finish()
    except OSError as error:
        logger.info("The records in %s cannot be rewritten: %s", folder, error)


def _parse_record(line: bytes) -> Record | None:
    """Return the record in a line, or None if the line is not valid."""
    try:
        entry = json.loads(line)
        record = Record(**{name: entry[name] for name in _RECORD_FIELDS if name in entry})
    except (ValueError, TypeError, RecursionError):
        return None
    is_valid = (
        type(record.size) is type(record.mtime_ns) is int
        and isinstance(record.path, str)
        and isinstance(record.source, str)
        and all(
            value is None or isinstance(value, str)
            for value in (record.checksum, record.validator, record.blob_id)
        )
    )
    return record if is_valid else None


# -- git blob ids ----------------------------------------------------------------------------------

_MAX_PAGE_BYTES = 4 * 1024 * 1024
_MIN_PAGES = 20


def list_blob_ids(session: GitLabSession, url: str, paths: Iterable[str]) -> dict[str, str]:
    """Return the blob ids of files in a repository, by their paths.

    A file is missing in the result if the repository cannot be listed, since the token may lack
    the permission, or the server the endpoint.

    Args:
        session: Sends the requests.
        url: GitLab's listing of a repository tree.
        paths: The files. Other files may be in the result as well.
    """
    missing = set(paths)
    found: dict[str, str] = {}
    page = "1"
    # Each page costs less than a download. But a few files do not justify a thousand pages.
    max_pages = max(_MIN_PAGES, len(missing))
    try:
        for _ in range(max_pages):
            entries, page = session.fetch(
                _with_page(url, page),
                _parse,
                max_bytes=_MAX_PAGE_BYTES,
                retry=session.retry.replace(max_attempts=1),
            )
            found.update(entries)
            missing.difference_update(entries)
            if not page or not missing:
                break
    except STACGitLabError as error:
        logger.info("The repository cannot be listed: %s", error)
    return found


def blob_ids_of(path: Path) -> tuple[str, str]:
    """Return the blob id of a local file, and that of the Git LFS pointer to such a file."""
    size = path.stat().st_size
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    sha256 = hashlib.sha256()
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            sha1.update(buffer[:count])
            sha256.update(buffer[:count])
            current_deadline().time_left()
    pointer = (
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{sha256.hexdigest()}\nsize {size}\n"
    ).encode()
    pointer_id = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False)
    return sha1.hexdigest(), pointer_id.hexdigest()


def _parse(document: Document) -> tuple[dict[str, str], str]:
    """Return the blob ids on a page, and the number of the next page or an empty text."""
    try:
        entries = json.loads(document.body)
        found = {
            str(entry["path"]): str(entry["id"]) for entry in entries if entry["type"] == "blob"
        }
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InvalidResponseError("This is not a listing of a repository.") from None
    page = document.headers.get("X-Next-Page", "")
    return found, page if page.isascii() and page.isdigit() else ""


def _with_page(url: str, page: str) -> str:
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), ("page", page)]
    return urlunsplit(parts._replace(query=urlencode(query)))
