"""One asset to bring home, as plain data that any thread or process can do.

A job says where the file comes from and where it goes, and what is known about the file that stands
there already. Doing it brings the file home, or finds that it is there unchanged.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from stac_gitlab.adapter import Stopped, Watch, current_watch, watching
from stac_gitlab.errors import DownloadError, STACGitLabError
from stac_gitlab.hashing import BUFFER_SIZE
from stac_gitlab.multihash import Checksum
from stac_gitlab.names import contained_path, shown
from stac_gitlab.part import Leftover, Part
from stac_gitlab.records import Record, append_record, digest_of
from stac_gitlab.report import AssetResult, Status
from stac_gitlab.source import Source
from stac_gitlab.stac_io import GitLabStacIO
from stac_gitlab.transfer import NotModified, Received, copy_file, receive

__all__ = ["Job", "OnBytes", "Overwrite", "do_job"]

logger = logging.getLogger(__name__)

Overwrite = Literal["if-changed", "always", "never", "error"]

OnBytes = Callable[[str, int, int | None], None]
"""Called with the name of a job, the bytes that are there, and those announced."""


@dataclass(frozen=True)
class Job:
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
        if self.overwrite == "always" or not target.is_file():
            return False
        if self.overwrite == "error":
            raise DownloadError(
                f"{shown(self.key)}: {str(target)!r} exists already. Remove it, or choose another "
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
        status: Status,
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


def do_job(
    job: Job,
    stac_io: GitLabStacIO,
    *,
    stop: threading.Event | None = None,
    on_bytes: OnBytes | None = None,
) -> AssetResult:
    """Bring one asset home; whatever goes wrong stands in the result."""
    started = time.monotonic()
    with watching(Watch(stop=stop)):
        try:
            result = _bring(job, stac_io, on_bytes)
            _clear(job)
        except Stopped:
            result = job.result("failed", error=DownloadError(f"{shown(job.key)}: called off."))
        except STACGitLabError as error:
            result = job.result("failed", error=error)
        except OSError as error:
            result = job.result("failed", error=_cannot_write(job, error))
    return replace(result, seconds=time.monotonic() - started)


def _bring(job: Job, stac_io: GitLabStacIO, on_bytes: OnBytes | None) -> AssetResult:
    target = contained_path(job.folder, job.path)
    there = job.is_there()
    if there:
        return job.result("skipped", size=target.stat().st_size, verified=job.overwrite != "never")

    def note(received: Received, part: Part) -> None:
        size, mtime_ns = part.stamp()
        record = Record(
            path=job.path,
            size=size,
            mtime_ns=mtime_ns,
            source=digest_of(job.source.url),
            checksum=received.checksum,
            validator=received.validator,
            version=job.version,
        )
        try:
            append_record(job.folder, record)
        except OSError as error:
            # Someone else's folder, perhaps. Without a record a later run downloads once more.
            logger.info("Not noted for a later run: %s", error)

    if job.origin is not None:
        received = copy_file(job.source, job.origin, target, verify=job.verify, on_finish=note)
    else:
        known = job.record.validator if there is None and job.record is not None else None
        name = job.name
        try:
            received = receive(
                stac_io.session,
                job.source,
                target,
                verify=job.verify,
                known=known,
                leftovers=job.leftovers,
                segments=job.segments,
                on_bytes=None if on_bytes is None else lambda n, total: on_bytes(name, n, total),
                on_finish=note,
            )
        except NotModified:
            return job.result("skipped", size=target.stat().st_size, verified=True)
    return job.result(
        "resumed" if received.resumed else "downloaded",
        size=received.size,
        checksum=received.checksum,
        verified=received.verified,
    )


def _clear(job: Job) -> None:
    """Remove what earlier runs left of a file that is whole now."""
    for leftover in job.leftovers:
        with contextlib.suppress(OSError):
            leftover.remove()


def _digest(path: Path, checksum: Checksum) -> bytes:
    hasher = checksum.hasher()
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            current_watch().time_left()
    return checksum.digest_of(hasher)


def _cannot_write(job: Job, error: OSError) -> DownloadError:
    if job.origin is not None and error.filename in (job.origin, str(job.origin)):
        return DownloadError(
            f"{shown(job.key)}: the local file {str(job.origin)!r} cannot be read: "
            f"{error.strerror or error}."
        )
    return DownloadError(
        f"{shown(job.key)}: {str(job.target)!r} cannot be written: {error.strerror or error}. What "
        "stood there before is unchanged. Check the free space and the permissions of the folder."
    )
