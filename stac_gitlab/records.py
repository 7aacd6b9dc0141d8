"""What a second run needs to know about the first, in a file beside the downloads.

A record describes one downloaded file: its size and time of change, so that a change on this side
is noticed, and what its server called this version of it, so that a change on the other side is. It
is written before the file is moved into place; one that describes no file costs nothing. URLs are
kept as digests only, so the file holds no secret.

Records are lines that are only ever appended, each in one write, so that several runs can share a
folder. A line that cannot be read, or is missing, costs a download and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path

from stac_gitlab.part import OWN_PREFIX, open_own

__all__ = ["Record", "append_record", "digest_of", "read_records"]

FILE_NAME = f"{OWN_PREFIX}-records.jsonl"

# Longer than any line of ours: what stands in our file's place then is something else.
_MAX_LINE = 1024 * 1024


@dataclass(frozen=True)
class Record:
    """One downloaded file.

    Attributes:
        path: Its path below the output folder, with slashes.
        size: Bytes.
        mtime_ns: When it was changed last, in ns since 1970.
        source: Digest of the URL that it came from.
        checksum: Its multihash, where one was computed.
        validator: What its server calls this content: its ETag, or the date of its last change.
        version: The version of the item that it belongs to, where its server tells one.
    """

    path: str
    size: int
    mtime_ns: int
    source: str
    checksum: str | None = None
    validator: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        # It is sent as a header, and the file may have been written by anyone.
        validator = self.validator
        if isinstance(validator, str) and not (validator.isascii() and validator.isprintable()):
            object.__setattr__(self, "validator", None)

    @property
    def has_etag(self) -> bool:
        """Whether the server names its versions, rather than only dating them."""
        return self.validator is not None and self.validator.startswith(('"', "W/"))

    def describes(self, target: Path) -> bool:
        """Tell whether the file is as it was when it was downloaded."""
        try:
            stat = target.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)


_FIELDS = tuple(field.name for field in fields(Record))


def digest_of(url: str) -> str:
    """Return what a record keeps of a URL."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read_records(folder: Path) -> dict[str, Record]:
    """Return the latest record of each path."""
    records: dict[str, Record] = {}
    with contextlib.suppress(OSError), open_own(folder / FILE_NAME) as file:
        while (line := file.readline(_MAX_LINE)) and len(line) < _MAX_LINE:
            record = _record_of(line)
            if record is not None:
                records[record.path] = record
    return records


def _record_of(line: bytes) -> Record | None:
    """Read a line; None if it is not one of ours, whoever wrote it."""
    try:
        entry = json.loads(line)
        record = Record(**{name: entry[name] for name in _FIELDS if name in entry})
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (record.path, record.source)
    may_be_missing = (record.checksum, record.validator, record.version)
    sound = (
        type(record.size) is type(record.mtime_ns) is int
        and all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in may_be_missing)
    )
    return record if sound else None


def append_record(folder: Path, record: Record) -> None:
    """Add a record.

    Raises:
        OSError: If the folder cannot be written to.
    """
    line = json.dumps({k: v for k, v in vars(record).items() if v is not None}) + "\n"
    # Not through a link, which could lead out of the folder; nor into a pipe that nobody reads.
    unusual = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | unusual
    handle = os.open(folder / FILE_NAME, flags, 0o666)
    try:
        os.write(handle, line.encode("ascii"))
    finally:
        os.close(handle)
