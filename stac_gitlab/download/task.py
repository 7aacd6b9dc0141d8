"""One asset: skip, resume or fetch.

A task is plain data, which any thread or process can run. It says where the file comes from and
where it goes, and what is known about an existing file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from stac_gitlab.download.checked_file import TransferResult
from stac_gitlab.download.content_version import Record, append_record
from stac_gitlab.download.git_blobs import git_ids_of
from stac_gitlab.download.report import AssetResult, AssetStatus, StoppedError
from stac_gitlab.download.source import Source, url_digest
from stac_gitlab.download.substitutes import POINTER_SIZE, error_for_pointer
from stac_gitlab.download.transfer import NotModified, copy_file, download_file
from stac_gitlab.errors import DownloadError, STACGitLabError
from stac_gitlab.files.checksums import BUFFER_SIZE, Checksum
from stac_gitlab.files.partial_file import Leftover, PartialFile, remove_leftovers
from stac_gitlab.files.paths import contained_path
from stac_gitlab.http.deadline import Cancelled, Deadline, current_deadline, enforcing
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import quoted, redacting_logger

logger = redacting_logger(__name__)
Overwrite = Literal["if-changed", "always", "never", "error"]
"""What to do if a file exists already."""

OnBytes = Callable[[str, int, int | None], None]
"""Called with the name of a task, the bytes received so far, and the size of the file."""

_USUAL_ADVICE = (
    "An existing file there is unchanged. Check the free space and the permissions of the folder."
)
_ADVICE = {
    errno.EISDIR: "Remove this folder, or choose another output folder.",
    errno.ENAMETOOLONG: "Choose an output folder with a shorter path.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or lower max_workers=.",
    errno.EFBIG: "The file system, or a limit (ulimit -f), allows only smaller files.",
}
_UNUSABLE_FOLDER = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class UnusableFolderError(DownloadError):
    """The disk is full or read-only, so no other file can be written either."""


@dataclass(frozen=True)
class DownloadTask:
    """One asset to download.

    Attributes:
        href: The redacted URL of the source.
        folder: The output folder, as an absolute path.
        path: The path of the file below the folder, with slashes.
        reported_folder: The output folder as the paths of results begin with it.
        origin: The path of a local asset of a local item.
        record: What was recorded when the file was downloaded before.
        leftovers: Partial files of earlier runs.
        blob_id: The git blob id of the remote file, if it is known.
        verify: Whether to compare checksums.
        segments: How many connections to use for the file.
        item_name: The name of the item, if there are several.
    """

    source: Source
    href: str
    folder: Path
    path: str
    reported_folder: Path
    origin: Path | None = None
    record: Record | None = None
    leftovers: tuple[Leftover, ...] = ()
    blob_id: str | None = None
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
        """The name of the task, unique in a run."""
        return f"{self.item_name}: {self.key}" if self.item_name else self.key

    @cached_property
    def target(self) -> Path:
        """The path of the file."""
        return self.folder.joinpath(*self.path.split("/"))

    def is_current(self) -> bool | None:
        """Return whether the file exists and is unchanged; None if only the server knows.

        Without a request, only a checksum proves that it is unchanged. A date in the metadata does
        not: a file can change without it.

        Raises:
            DownloadError: If the file exists and ``overwrite="error"``.
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
        size, checksum = self.source.size, self.source.checksum
        if size is not None and target.stat().st_size != size:
            return False
        if checksum is not None and self.verify:
            return self.target_has(checksum)
        record = self.valid_record()
        if self.blob_id is not None:
            if record is not None and record.blob_id == self.blob_id:
                return True
            with contextlib.suppress(PermissionError):
                ids = git_ids_of(target, blob=True, sha256=True)
                if self.blob_id in (ids.blob, ids.pointer) and not self._is_pointer():
                    return True
        return None if record is not None and record.validator is not None else False

    def could_be_current(self) -> bool:
        """Return whether the blob id of the remote file would decide if the file is current."""
        if self.overwrite != "if-changed" or (self.source.checksum is not None and self.verify):
            return False
        try:
            size = self.target.stat().st_size if _is_file(self.target) else None
        except OSError:
            return False
        return size is not None and self.source.size in (None, size)

    def valid_record(self) -> Record | None:
        """Return the record if it is about this source and the file as it is now."""
        record = self.record
        if record is None or record.source != url_digest(self.source.url):
            return None
        return record if record.describes(self.target) else None

    def target_has(self, checksum: Checksum) -> bool:
        """Return whether the file has a checksum. If a record states it, the file is not read.

        In a shared folder, a file may be unreadable. It can be replaced, as far as that is allowed.
        """
        record = self.valid_record()
        if record is not None and record.checksum == str(checksum):
            return True
        with contextlib.suppress(PermissionError):
            return digest_of_file(self.target, checksum) == checksum.digest
        return False

    def _is_pointer(self) -> bool:
        """Return whether the file is a pointer, as a clone without Git LFS or DVC leaves it."""
        with self.target.open("rb") as file:
            return error_for_pointer(self.source, file.read(POINTER_SIZE)) is not None

    def preview(self) -> AssetResult:
        """Return the result that is to be expected, without a request."""
        try:
            return self.result("skipped" if self.is_current() else "planned")
        except (STACGitLabError, OSError) as error:
            return self.result("failed", error=_own_error(self, error))

    def result(
        self,
        status: AssetStatus,
        *,
        size: int | None = None,
        checksum: str | None = None,
        verified: bool = False,
        error: Exception | None = None,
    ) -> AssetResult:
        """Return a result of this task."""
        return AssetResult(
            key=self.key,
            href=self.href,
            path=self.reported_folder.joinpath(*self.path.split("/")),
            size=self.source.size if size is None else size,
            checksum=checksum,
            status=status,
            verified=verified,
            error=error,
        )


def run_task(
    task: DownloadTask,
    session: GitLabSession,
    *,
    stop: threading.Event | None = None,
    on_bytes: OnBytes | None = None,
) -> AssetResult:
    """Download one asset. The result contains the error if it fails."""
    started = time.monotonic()
    with enforcing(Deadline(stop=stop)):
        try:
            result = _run(task, session, on_bytes)
            remove_leftovers(task.leftovers)
        except Cancelled:
            result = task.result("failed", error=StoppedError.of(task.key, started=True))
        except (STACGitLabError, OSError) as error:
            result = task.result("failed", error=_own_error(task, error))
    return replace(result, seconds=time.monotonic() - started)


def _run(task: DownloadTask, session: GitLabSession, on_bytes: OnBytes | None) -> AssetResult:
    target = contained_path(task.folder, task.path)
    status = target.stat() if _is_file(target) else None
    is_current = status is not None and task.is_current()
    if is_current and status is not None:
        _record_blob_id(task, status)
        return task.result("skipped", size=status.st_size, verified=task.overwrite != "never")
    known = task.record.validator if is_current is None and task.record is not None else None
    may_be_current = status is not None and task.could_be_current()
    target_has = task.target_has if may_be_current else None
    try:
        received = _fetch(task, target, session, on_bytes, known=known, target_has=target_has)
    except NotModified:
        return task.result("skipped", size=target.stat().st_size, verified=True)
    return task.result(
        "resumed" if received.resumed else "downloaded",
        size=received.size,
        checksum=received.checksum,
        verified=received.verified,
    )


def _record_blob_id(task: DownloadTask, status: os.stat_result) -> None:
    """Record the blob id of an unchanged file, so that a later run need not read the file."""
    if task.blob_id is None or (task.record is not None and task.record.blob_id == task.blob_id):
        return
    known = task.valid_record() or Record(
        task.path, status.st_size, status.st_mtime_ns, url_digest(task.source.url)
    )
    _try_to_record(task.folder, replace(known, blob_id=task.blob_id))


def _try_to_record(folder: Path, record: Record) -> None:
    try:
        append_record(folder, record)
    except OSError as error:
        # Perhaps the folder belongs to somebody else. A later run then downloads the file again.
        logger.info("Cannot be recorded for a later run: %s", error)


def _fetch(
    task: DownloadTask,
    target: Path,
    session: GitLabSession,
    on_bytes: OnBytes | None,
    *,
    known: str | None,
    target_has: Callable[[Checksum], bool] | None,
) -> TransferResult:
    def record(received: TransferResult, partial_file: PartialFile) -> None:
        size, mtime_ns = partial_file.size_and_mtime_ns()
        source = url_digest(task.source.url)
        _try_to_record(
            task.folder,
            Record(task.path, size, mtime_ns, source, received.checksum, received.validator),
        )

    def report(received: int, total: int | None) -> None:
        if on_bytes is not None:
            on_bytes(task.name, received, total)

    if task.origin is not None:
        return copy_file(task.source, task.origin, target, verify=task.verify, on_finish=record)
    return download_file(
        session,
        task.source,
        target,
        verify=task.verify,
        known=known,
        target_has=target_has,
        leftovers=task.leftovers,
        segments=task.segments,
        on_bytes=report,
        on_finish=record,
    )


def _is_file(path: Path) -> bool:
    """Return whether a regular file exists.

    Unlike `Path.is_file` since Python 3.14, it raises an OSError for a path that can never be
    written, such as one that is too long or that of a folder.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return stat.S_ISREG(mode)


def digest_of_file(path: Path, checksum: Checksum) -> bytes:
    """Return the digest of a local file, by the hash function of a checksum."""
    hasher = checksum.hasher()
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            current_deadline().time_left()
    return checksum.digest_of(hasher)


def _own_error(task: DownloadTask, error: STACGitLabError | OSError) -> STACGitLabError:
    if isinstance(error, STACGitLabError):
        return error
    if task.origin is not None and error.filename in (task.origin, str(task.origin)):
        return DownloadError(
            f"{quoted(task.key)}: the local file {str(task.origin)!r} cannot be read: "
            f"{error.strerror or error}."
        )
    kind = UnusableFolderError if error.errno in _UNUSABLE_FOLDER else DownloadError
    return kind(
        f"{quoted(task.key)}: {str(task.target)!r} cannot be written: "
        f"{error.strerror or error}. {_ADVICE.get(error.errno or 0, _USUAL_ADVICE)}"
    )
