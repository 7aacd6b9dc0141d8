"""One asset to bring home, as plain data that any thread or process can do.

A job says where the file comes from and where it goes, and what is known about the file that stands
there already. Planning makes jobs of an item's assets, without a request; doing one brings the file
home, or finds that it is there unchanged.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pystac
from pystac.utils import safe_urlparse

from stac_gitlab.adapter import Stopped, Watch, watching
from stac_gitlab.assets import HasAssets
from stac_gitlab.auth import Origin, scrub
from stac_gitlab.errors import DownloadError, STACGitLabError, UnverifiedDownloadWarning
from stac_gitlab.multihash import Checksum, UnknownChecksumError
from stac_gitlab.names import contained_path, relative_path, shown
from stac_gitlab.part import Leftover, Part, leftovers_for, leftovers_in
from stac_gitlab.records import Record, append_record, digest_of
from stac_gitlab.report import AssetResult, Status
from stac_gitlab.session import GitLabSession
from stac_gitlab.sharinghub import strip_token
from stac_gitlab.stac_io import GitLabStacIO
from stac_gitlab.transfer import BUFFER_SIZE, NotModified, Received, Source, copy_file, receive

__all__ = ["Job", "OnBytes", "Overwrite", "Planner", "do_job"]

Overwrite = Literal["if-changed", "always", "never", "error"]

OnBytes = Callable[[str, int, int | None], None]
"""Called with an asset key, the bytes that are there, and those announced."""

_TOOL_FOR_SCHEME = {
    "s3": "boto3, or 'aws s3 cp'",
    "gs": "google-cloud-storage, or 'gcloud storage cp'",
    "az": "azure-storage-blob",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "ftp": "curl",
    "sftp": "sftp",
}


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
        version: The version of the item, where its server tells one.
        overwrite: What to do about a file that stands there.
        verify: Whether to compare checksums.
        leftovers: What earlier runs left of the file.
        item_id: The item that it belongs to, where there are several.
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
    item_id: str = ""

    @property
    def key(self) -> str:
        """The asset key."""
        return self.source.key

    @property
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
            for leftover in job.leftovers:
                leftover.remove()
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
        append_record(
            job.folder,
            Record(
                path=job.path,
                size=size,
                mtime_ns=mtime_ns,
                source=digest_of(job.source.url),
                checksum=received.checksum,
                validator=received.validator,
                version=job.version,
            ),
        )

    if job.origin is not None:
        received = copy_file(job.source, job.origin, target, verify=job.verify, on_finish=note)
    else:
        known = job.record.validator if there is None and job.record is not None else None
        key = job.key
        try:
            received = receive(
                stac_io.session,
                job.source,
                target,
                verify=job.verify,
                known=known,
                leftovers=job.leftovers,
                on_bytes=None if on_bytes is None else lambda n, total: on_bytes(key, n, total),
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


def _digest(path: Path, checksum: Checksum) -> bytes:
    hasher = checksum.hasher()
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
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


# -- planning -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planner:
    """Makes jobs of assets, without a request.

    Attributes:
        session: Knows the dialect of each server.
        folder: The output folder.
        records: What is known about the files in it.
        overwrite: What to do about files that stand there.
        verify: Whether to compare checksums.
        portable_names: Whether to refuse names that some other system could not hold.
        alternates: Names of alternate assets to prefer to the main href, best first.
    """

    session: GitLabSession
    folder: Path
    records: Mapping[str, Record]
    overwrite: Overwrite = "if-changed"
    verify: bool = True
    portable_names: bool = False
    alternates: Sequence[str] = ()
    _left: dict[Path, Mapping[str, list[Leftover]]] = field(default_factory=dict, repr=False)

    def plan(
        self,
        item: HasAssets,
        assets: Mapping[str, pystac.Asset],
        path_of: Callable[[str], str] = str,
    ) -> tuple[list[Job], list[AssetResult]]:
        """Return the jobs for `assets`, and a failure for each that cannot become one.

        Args:
            item: The item.
            assets: Those of its assets that are wanted, by key.
            path_of: Where the asset with a key goes, below the output folder.
        """
        jobs: list[Job] = []
        refused: list[AssetResult] = []
        for key, asset in assets.items():
            try:
                jobs.append(self._job(item, key, asset, path=path_of(key)))
            except (DownloadError, ValueError) as error:
                href = self.shown_url(asset.href)
                if not isinstance(error, DownloadError):
                    # What urllib says of an address that it cannot take apart.
                    error = DownloadError(f"{shown(key)}: {shown(href)} is not a URL: {error}.")
                refused.append(AssetResult(key, href, status="failed", error=error))
        return jobs, refused

    def locate(self, item: HasAssets, key: str, asset: pystac.Asset) -> tuple[Source, Path | None]:
        """Return where an asset comes from, and its path if that is on this machine.

        Raises:
            DownloadError: If it is where this package cannot, or must not, fetch it.
        """
        item_url = _self_href(item)
        source = Source(
            url=self._href(asset),
            key=key,
            size=_promised_size(asset),
            checksum=_promised_checksum(key, asset) if self.verify else None,
            media_type=asset.media_type,
        )
        scheme = safe_urlparse(source.url).scheme.lower()
        if scheme in ("", "file"):
            if not item_url or Origin.of(item_url) is not None:
                where = Origin.of(item_url) or "nowhere in particular"
                raise DownloadError(
                    f"{shown(key)}: an item from {where} points at a file on this machine. Only "
                    "an item that was read from a local file, or was told to stand at one with "
                    "set_self_href, gets to choose local files."
                )
            return source, _local_path(source.url)
        if scheme not in ("http", "https"):
            tool = _TOOL_FOR_SCHEME.get(scheme, "a tool that speaks it")
            raise DownloadError(
                f"{shown(key)}: {scheme}:// is not downloaded by stac_gitlab. Use {tool} for "
                f"{self.shown_url(source.url)}."
            )
        url = self.session.dialect_of(source.url).asset_url(
            strip_token(source.url),
            key=key,
            item_id=str(getattr(item, "id", "")),
            item_url=item_url,
            properties=getattr(item, "properties", {}),
        )
        return replace(source, url=url), None

    def _job(self, item: HasAssets, key: str, asset: pystac.Asset, *, path: str) -> Job:
        portable = self.portable_names or os.name == "nt"
        relative_path(key, portable=portable)
        path = relative_path(path, portable=portable)
        source, origin = self.locate(item, key, asset)
        dialect = self.session.dialect_of(_self_href(item))
        return Job(
            source=source,
            href=self.shown_url(source.url),
            folder=self.folder,
            path=path,
            origin=origin,
            record=self.records.get(path),
            leftovers=self._leftovers(path),
            version=dialect.item_version(getattr(item, "properties", {})),
            overwrite=self.overwrite,
            verify=self.verify,
            item_id=str(getattr(item, "id", "")),
        )

    def shown_url(self, href: str) -> str:
        return scrub(strip_token(href), self.session.credentials.secrets())

    def _leftovers(self, path: str) -> tuple[Leftover, ...]:
        target = self.folder.joinpath(*path.split("/"))
        if target.parent not in self._left:
            self._left[target.parent] = leftovers_in(target.parent)
        return tuple(leftovers_for(target, self._left[target.parent]))

    def _href(self, asset: pystac.Asset) -> str:
        """Return the absolute href to use: of the preferred alternate, or the asset's own."""
        alternates = asset.extra_fields.get("alternate")
        if isinstance(alternates, Mapping):
            hrefs = (_href_of(alternates.get(name)) for name in self.alternates)
            preferred = next(filter(None, hrefs), None)
            if preferred is not None:
                asset = _with_href(asset, preferred)
        # An absolute href is taken as written: parsing it would lose what a "#" or "?" in the name
        # of a file has done to it.
        if safe_urlparse(asset.href).scheme:
            return asset.href
        start = asset.owner.get_self_href() if asset.owner is not None else None
        if start and Origin.of(start) is None:
            # pystac would take a "#" or "?" in the name of a local file for the end of the name.
            return str(_local_path(start).parent / asset.href)
        return asset.get_absolute_href() or asset.href


def _local_path(href: str) -> Path:
    return Path(url2pathname(urlsplit(href).path) if href[:5].lower() == "file:" else href)


def _href_of(alternate: object) -> str | None:
    href = alternate.get("href") if isinstance(alternate, Mapping) else None
    return href if isinstance(href, str) else None


def _with_href(asset: pystac.Asset, href: str) -> pystac.Asset:
    other = asset.clone()
    other.href = href
    other.owner = asset.owner
    return other


def _self_href(item: HasAssets) -> str:
    return (item.get_self_href() or "") if isinstance(item, pystac.STACObject) else ""


def _promised_size(asset: pystac.Asset) -> int | None:
    size = asset.extra_fields.get("file:size")
    return size if type(size) is int and size >= 0 else None


def _promised_checksum(key: str, asset: pystac.Asset) -> Checksum | None:
    text = asset.extra_fields.get("file:checksum")
    if text is None:
        return None
    try:
        return Checksum.parse(text)
    except UnknownChecksumError as error:
        warnings.warn(
            f"{shown(key)}: not verified against file:checksum: {error}.",
            UnverifiedDownloadWarning,
            stacklevel=2,
        )
        return None
