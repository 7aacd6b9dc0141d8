"""One asset to bring home, as plain data that any thread or process can do.

A job says where the file comes from and where it goes, and what is known about the file that stands
there already. Doing it brings the file home, or finds that it is there unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from stac_gitlab.download.report import AssetResult, AssetStatus
from stac_gitlab.download.source import Source, digest_of
from stac_gitlab.download.transfer import NotModified, Received, copy_file, receive
from stac_gitlab.errors import DownloadError, STACGitLabError
from stac_gitlab.files.checksums import BUFFER_SIZE, Checksum
from stac_gitlab.files.partial_file import OWN_PREFIX, Leftover, PartialFile, open_own
from stac_gitlab.files.paths import contained_path
from stac_gitlab.http.deadline import Cancelled, Deadline, current_deadline, enforcing
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted

logger = logging.getLogger(__name__)
Overwrite = Literal["if-changed", "always", "never", "error"]
OnBytes = Callable[[str, int, int | None], None]
"""Called with the name of a job, the bytes that are there, and those announced."""


@dataclass(frozen=True)
class DownloadTask:
    """One asset to bring home.

    Attributes:
        source: Where the file comes from.
        href: The same for people to read, without secrets.
        folder: The output folder.
        path: Where the file goes below it, with slashes.
        origin: Where the file is on this machine, for a local asset of a local item.
        record: What was noted when the file was downloaded before.
        leftovers: What earlier runs left of the file.
        version: The version of the item, where its server tells one.
        overwrite: What to do about a file that stands there.
        verify: Whether to compare checksums.
        segments: How many connections to use for the file.
        item_name: What the item is called, where there are several.
    """

    source: Source
    href: str
    folder: Path
    path: str
    origin: Path | None = None
    record: Record | None = None
    leftovers: tuple[Leftover, ...] = ()
    version: str | None = None
    overwrite: Overwrite = "if-changed"
    verify: bool = True
    segments: int = 1
    item_name: str = ""

    @property
    def key(self) -> str:
        """The asset key."""
        return self.source.key

    @property
    def name(self) -> str:
        """What to call it among all jobs of a run."""
        return f"{self.item_name}: {self.key}" if self.item_name else self.key

    @cached_property
    def target(self) -> Path:
        """Where the file goes."""
        return self.folder.joinpath(*self.path.split("/"))

    def is_there(self) -> bool | None:
        """Tell whether the file is there and unchanged; None if only its server can tell.

        Raises:
            DownloadError: If a file is there and ``overwrite="error"``.
        """
        target = self.target
        if self.overwrite == "always" or not _is_file(target):
            return False
        if self.overwrite == "error":
            raise DownloadError(
                f"{quoted(self.key)}: {str(target)!r} exists already. Remove it, or choose another "
                "overwrite=."
            )
        if self.overwrite == "never":
            return True
        known = self.record if self.record is not None and self.record.describes(target) else None
        if known is not None and known.source != digest_of(self.source.url):
            known = None
        size, checksum = self.source.size, self.source.checksum
        if size is not None and target.stat().st_size != size:
            return False
        if checksum is not None and self.verify:
            return (known is not None and known.checksum == str(checksum)) or (
                _digest(target, checksum) == checksum.digest
            )
        if known is None:
            return False
        if known.has_etag:
            return None
        if known.version is not None and known.version == self.version:
            return True
        return None if known.validator is not None else False

    def forecast(self) -> AssetResult:
        """Return what would become of this job, as far as that can be told without a request."""
        try:
            return self.result("skipped" if self.is_there() else "planned")
        except DownloadError as error:
            return self.result("failed", error=error)
        except OSError as error:
            return self.result("failed", error=_cannot_write(self, error))

    def result(
        self,
        status: AssetStatus,
        *,
        size: int | None = None,
        checksum: str | None = None,
        verified: bool = False,
        error: Exception | None = None,
    ) -> AssetResult:
        """Return what became of this job."""
        return AssetResult(
            key=self.key,
            href=self.href,
            path=self.target,
            size=self.source.size if size is None else size,
            checksum=checksum,
            status=status,
            verified=verified,
            error=error,
        )


def run_task(
    task: DownloadTask,
    stac_io: GitLabStacIO,
    *,
    stop: threading.Event | None = None,
    on_bytes: OnBytes | None = None,
) -> AssetResult:
    """Bring one asset home; whatever goes wrong stands in the result."""
    started = time.monotonic()
    with enforcing(Deadline(stop=stop)):
        try:
            result = _bring(task, stac_io, on_bytes)
            _clear(task)
        except Cancelled:
            result = task.result("failed", error=DownloadError(f"{quoted(task.key)}: called off."))
        except STACGitLabError as error:
            result = task.result("failed", error=error)
        except OSError as error:
            result = task.result("failed", error=_cannot_write(task, error))
    return replace(result, seconds=time.monotonic() - started)


def _bring(task: DownloadTask, stac_io: GitLabStacIO, on_bytes: OnBytes | None) -> AssetResult:
    target = contained_path(task.folder, task.path)
    there = task.is_there()
    if there:
        return task.result(
            "skipped", size=target.stat().st_size, verified=task.overwrite != "never"
        )

    def note(received: Received, part: PartialFile) -> None:
        size, mtime_ns = part.size_and_mtime_ns()
        record = Record(
            path=task.path,
            size=size,
            mtime_ns=mtime_ns,
            source=digest_of(task.source.url),
            checksum=received.checksum,
            validator=received.validator,
            version=task.version,
        )
        try:
            append_record(task.folder, record)
        except OSError as error:
            # Someone else's folder, perhaps. Without a record a later run downloads once more.
            logger.info("Not noted for a later run: %s", error)

    if task.origin is not None:
        received = copy_file(task.source, task.origin, target, verify=task.verify, on_finish=note)
    else:
        known = task.record.validator if there is None and task.record is not None else None
        name = task.name
        try:
            received = receive(
                stac_io.session,
                task.source,
                target,
                verify=task.verify,
                known=known,
                leftovers=task.leftovers,
                segments=task.segments,
                on_bytes=None if on_bytes is None else lambda n, total: on_bytes(name, n, total),
                on_finish=note,
            )
        except NotModified:
            return task.result("skipped", size=target.stat().st_size, verified=True)
    return task.result(
        "resumed" if received.resumed else "downloaded",
        size=received.size,
        checksum=received.checksum,
        verified=received.verified,
    )


def _clear(task: DownloadTask) -> None:
    """Remove what earlier runs left of a file that is whole now."""
    for leftover in task.leftovers:
        with contextlib.suppress(OSError):
            leftover.remove()


def _is_file(path: Path) -> bool:
    """Tell whether a regular file is there.

    Unlike `Path.is_file` since Python 3.14, it raises an OSError for a path that can never be
    written, such as one that is too long.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def _digest(path: Path, checksum: Checksum) -> bytes:
    hasher = checksum.hasher()
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            current_deadline().time_left()
    return checksum.digest_of(hasher)


def _cannot_write(task: DownloadTask, error: OSError) -> DownloadError:
    if task.origin is not None and error.filename in (task.origin, str(task.origin)):
        return DownloadError(
            f"{quoted(task.key)}: the local file {str(task.origin)!r} cannot be read: "
            f"{error.strerror or error}."
        )
    return DownloadError(
        f"{quoted(task.key)}: {str(task.target)!r} cannot be written: "
        f"{error.strerror or error}. What stood there before is unchanged. "
        "Check the free space and the permissions of the folder."
    )


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


_RECORD_FIELDS = tuple(field.name for field in fields(Record))


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
        record = Record(**{name: entry[name] for name in _RECORD_FIELDS if name in entry})
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
