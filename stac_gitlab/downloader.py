"""STACDownloader: the assets of an item brought home, many at a time.

What one file needs is ``transfer``'s work, which names are safe is told by ``names``, and which URL
an asset has is told by the dialect of the server that its item came from. What is left for this
module: which assets, in which threads, and a report of what became of each.
"""

from __future__ import annotations

import contextvars
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pystac
from pystac.utils import safe_urlparse

from stac_gitlab.adapter import Stopped, Watch, watching
from stac_gitlab.assets import HasAssets, Names, filter_assets
from stac_gitlab.auth import URL_VARIABLE, Origin, TokenSource, scrub
from stac_gitlab.errors import (
    AssetNotFoundError,
    ConfigurationError,
    DownloadError,
    NothingToDownloadWarning,
    STACGitLabError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.multihash import Checksum, UnknownChecksumError
from stac_gitlab.names import FileNaming, contained_path, relative_path, shown
from stac_gitlab.retry import RetryPolicy
from stac_gitlab.session import GitLabSession
from stac_gitlab.sharinghub import api_url, strip_token
from stac_gitlab.stac_io import GitLabStacIO
from stac_gitlab.transfer import Received, Source, copy_file, receive

__all__ = ["AssetResult", "DownloadReport", "STACDownloader"]

# What tells a glob from the name of an asset.
_GLOB = re.compile(r"[*?\[]")

Status = Literal["downloaded", "resumed", "skipped", "failed", "planned"]

_TOOL_FOR_SCHEME = {
    "s3": "boto3, or 'aws s3 cp'",
    "gs": "google-cloud-storage, or 'gcloud storage cp'",
    "az": "azure-storage-blob",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "ftp": "'curl'",
    "sftp": "'sftp'",
}


@dataclass(frozen=True)
class AssetResult:
    """What became of one asset.

    Attributes:
        key: The asset key.
        href: Where it came from, without secrets.
        path: Where the file is, or would be.
        size: Bytes in the file, if there is one.
        checksum: The multihash of the bytes, where one was computed.
        seconds: How long it took.
        status: ``downloaded``, ``resumed`` (broken off and continued), ``skipped``, ``failed`` or
            ``planned``.
        verified: Whether a length or checksum proves that the file is whole.
        error: What went wrong, if something did.
    """

    key: str
    href: str
    path: Path | None = None
    size: int | None = None
    checksum: str | None = None
    seconds: float = 0.0
    status: Status = "downloaded"
    verified: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class DownloadReport(Mapping[str, AssetResult]):
    """What became of every asset, by its key, in the item's order."""

    results: Mapping[str, AssetResult] = field(default_factory=dict)

    def __getitem__(self, key: str) -> AssetResult:
        return self.results[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def _with_status(self, *statuses: Status) -> list[AssetResult]:
        return [result for result in self.results.values() if result.status in statuses]

    @property
    def paths(self) -> dict[str, Path]:
        """Where the files are, by asset key."""
        there = self._with_status("downloaded", "resumed", "skipped")
        return {result.key: result.path for result in there if result.path is not None}

    @property
    def downloaded(self) -> list[AssetResult]:
        """The assets that came over the network."""
        return self._with_status("downloaded", "resumed")

    @property
    def skipped(self) -> list[AssetResult]:
        """The assets that were there already."""
        return self._with_status("skipped")

    @property
    def failed(self) -> list[AssetResult]:
        """The assets that could not be had."""
        return self._with_status("failed")

    @property
    def bytes(self) -> int:
        """Bytes that were downloaded."""
        return sum(result.size or 0 for result in self.downloaded)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def __str__(self) -> str:
        lines = [
            f"{result.status:<10} {_human(result.size):>9}  {shown(result.key)[1:-1]}"
            + (f"  {result.error}" if result.error else "")
            for result in self.results.values()
        ]
        total = f"{len(self.downloaded)} downloaded ({_human(self.bytes)})"
        return "\n".join(
            [*lines, f"{total}, {len(self.skipped)} skipped, {len(self.failed)} failed"]
        )


class STACDownloader:
    """Downloads the assets of items: in parallel, checked, never half-written.

    Args:
        auth_token: A GitLab token, a function that returns one, or None for the one in the
            environment. See :class:`~stac_gitlab.GitLabStacIO`.
        base_url: URL of the SharingHub, such as ``https://hub.example.org``; ``STAC_GITLAB_URL``
            where it is None.
        stac_io: The reader whose token, servers and connections to use, in place of `auth_token`
            and `base_url`. With none of the three, that is pystac's default reader if it is a
            GitLabStacIO.
        max_workers: How many files to download at a time.
        retry: When requests are tried again.

    Raises:
        ConfigurationError: If the arguments contradict each other.
    """

    def __init__(
        self,
        auth_token: TokenSource = None,
        base_url: str | None = None,
        *,
        stac_io: GitLabStacIO | None = None,
        max_workers: int = 8,
        retry: RetryPolicy | None = None,
    ) -> None:
        if max_workers < 1:
            raise ConfigurationError(f"max_workers={max_workers}: at least one has to work.")
        if stac_io is not None and (auth_token is not None or retry is not None):
            raise ConfigurationError(
                "stac_io= brings its own token and retry policy: pass either it or the others."
            )
        if stac_io is None and auth_token is None and base_url is None and retry is None:
            default = pystac.StacIO.default()
            stac_io = default if isinstance(default, GitLabStacIO) else None
        self.stac_io = stac_io or GitLabStacIO(auth_token, base_url=base_url, retry=retry)
        self.base_url = base_url or os.environ.get(URL_VARIABLE) or None
        self.max_workers = max_workers

    def __repr__(self) -> str:
        return f"<STACDownloader from {self.base_url or 'anywhere'} with {self.stac_io!r}>"

    def __enter__(self) -> STACDownloader:  # noqa: PYI034  # not meant to be subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.stac_io.close()

    def load_item(self, collection: str, namespace: str, project: str) -> pystac.Item:
        """Return the item of a project of the SharingHub at `base_url`.

        Args:
            collection: The collection, ``dataset`` for example.
            namespace: The group of the project, with its parent groups: ``group/subgroup``.
            project: The project.

        Raises:
            ConfigurationError: If no `base_url` is known.
            HTTPStatusError: If the server refuses; the subclass says why.
        """
        if not self.base_url:
            raise ConfigurationError(
                "load_item needs to know the server: pass base_url='https://hub.example.org', or "
                f"set {URL_VARIABLE}."
            )
        path = "/".join(quote(part.strip("/")) for part in (namespace, project))
        url = f"{api_url(self.base_url)}/collections/{quote(collection, safe='')}/items/{path}"
        return pystac.Item.from_file(url, stac_io=self.stac_io)

    def download_assets(
        self,
        item: HasAssets,
        output_dir: str | os.PathLike[str],
        roles: Names = ("data",),
        *,
        exclude_roles: Names = None,
        include: Names = None,
        exclude: Names = None,
        media_types: Names = None,
        verify: bool = True,
        fail_fast: bool = False,
        portable_names: bool = False,
    ) -> DownloadReport:
        """Download the assets of an item that fit everything asked for.

        Keys with slashes become sub-folders. A file that stands where an asset goes is replaced,
        once the new one is complete.

        Args:
            item: An item or collection.
            output_dir: The folder to download into; it is made if it is missing.
            roles: Roles, one of which an asset has to have; None for assets of any role.
            exclude_roles: Roles that it may not have.
            include: Globs, one of which its key has to match.
            exclude: Globs, none of which its key may match.
            media_types: Media types, one of which it has to have.
            verify: Whether to compare checksums.
            fail_fast: Whether to stop at the first failure.
            portable_names: Whether to refuse names that some other system could not hold.

        Returns:
            What became of each asset, by its key.

        Raises:
            DownloadError: If any asset failed, after all others are done. Its ``errors`` and
                ``report`` tell which and why.
        """
        chosen = filter_assets(
            item,
            roles=roles,
            exclude_roles=exclude_roles,
            include=include,
            exclude=exclude,
            media_types=media_types,
        )
        _check_selection(item, chosen, include, roles)
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        jobs, refused = _plan(self.stac_io.session, item, chosen, portable=portable_names)
        naming = FileNaming.strictest() if portable_names else FileNaming.of(folder)
        naming.check_distinct({job.source.key: job.path for job in jobs})
        results = {result.key: result for result in refused}
        if not (refused and fail_fast):
            work = _Work(self.stac_io, folder, verify=verify)
            results.update(work.do(jobs, self.max_workers, fail_fast=fail_fast))
        report = DownloadReport({key: results[key] for key in chosen if key in results})
        if not report.ok:
            raise _failure(report)
        return report


@dataclass(frozen=True)
class _Job:
    """One asset to bring home: from where, and to which path below the output folder."""

    source: Source
    path: str
    origin: Path | None = None
    """Where the file is on this machine, for the local asset of a local item."""


class _Work:
    """The jobs of one call, done by threads that stop together."""

    def __init__(self, stac_io: GitLabStacIO, folder: Path, *, verify: bool) -> None:
        self._stac_io = stac_io
        self._folder = folder
        self._verify = verify
        self._stop = threading.Event()

    def do(
        self, jobs: Sequence[_Job], max_workers: int, *, fail_fast: bool
    ) -> dict[str, AssetResult]:
        """Do all jobs; on an interrupt, stop within a second and pass it on."""
        if not jobs:
            return {}
        results: dict[str, AssetResult] = {}
        workers = ThreadPoolExecutor(min(max_workers, len(jobs)), thread_name_prefix="stac-gitlab")
        try:
            futures = {
                # Each gets the caller's context, in which its own watch is then set.
                workers.submit(contextvars.copy_context().run, self._do_one, job): job
                for job in jobs
            }
            pending: set[Future[AssetResult]] = set(futures)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED, timeout=0.5)
                for future in done:
                    result = future.result()
                    results[result.key] = result
                    if result.error is not None and fail_fast:
                        self._stop.set()
                if self._stop.is_set():
                    break
        finally:
            self._stop.set()
            workers.shutdown(wait=True, cancel_futures=True)
        for future, job in futures.items():
            if future.done() and not future.cancelled() and job.source.key not in results:
                results[job.source.key] = future.result()
        return results

    def _do_one(self, job: _Job) -> AssetResult:
        started = time.monotonic()
        source = job.source
        href = scrub(source.url, self._stac_io.credentials.secrets())
        try:
            target = contained_path(self._folder, job.path)
            with watching(Watch(stop=self._stop)):
                received = self._bring(job, target)
        except Stopped:
            error: Exception = DownloadError(f"{shown(source.key)}: called off.")
        except STACGitLabError as failure:
            error = failure
        except OSError as failure:
            error = _cannot_write(job.path, failure)
        else:
            return AssetResult(
                key=source.key,
                href=href,
                path=target,
                size=received.size,
                checksum=received.checksum,
                seconds=time.monotonic() - started,
                status="resumed" if received.resumed else "downloaded",
                verified=received.verified,
            )
        return AssetResult(
            source.key, href, seconds=time.monotonic() - started, status="failed", error=error
        )

    def _bring(self, job: _Job, target: Path) -> Received:
        if job.origin is not None:
            return copy_file(job.source, job.origin, target, verify=self._verify)
        return receive(self._stac_io.session, job.source, target, verify=self._verify)


def _plan(
    session: GitLabSession, item: HasAssets, assets: Mapping[str, pystac.Asset], *, portable: bool
) -> tuple[list[_Job], list[AssetResult]]:
    """Return the jobs for `assets`, and a failure for each that cannot become one."""
    jobs: list[_Job] = []
    refused: list[AssetResult] = []
    for key, asset in assets.items():
        try:
            jobs.append(_job(session, item, key, asset, portable=portable))
        except DownloadError as error:
            href = scrub(strip_token(asset.href))
            refused.append(AssetResult(key, href, status="failed", error=error))
    return jobs, refused


def _job(
    session: GitLabSession, item: HasAssets, key: str, asset: pystac.Asset, *, portable: bool
) -> _Job:
    path = relative_path(key, portable=portable or os.name == "nt")
    item_url = _self_href(item)
    # An absolute href is taken as written: parsing it would lose what a "#" or "?" in the name of
    # a file has done to it.
    scheme = safe_urlparse(asset.href).scheme.lower()
    href = asset.href if scheme else (asset.get_absolute_href() or asset.href)
    scheme = safe_urlparse(href).scheme.lower()
    source = Source(
        url=href,
        key=key,
        size=_promised_size(asset),
        checksum=_promised_checksum(key, asset),
        media_type=asset.media_type,
    )
    if scheme in ("", "file"):
        if Origin.of(item_url) is not None:
            raise DownloadError(
                f"{shown(key)}: an item from {Origin.of(item_url)} points at a file on this "
                "machine. Remote metadata do not get to choose local files."
            )
        return _Job(source, path, origin=Path(safe_urlparse(href).path))
    if scheme not in ("http", "https"):
        tool = _TOOL_FOR_SCHEME.get(scheme, "a tool that speaks it")
        raise DownloadError(
            f"{shown(key)}: {scheme}:// is not downloaded by stac_gitlab. Use {tool} for "
            f"{scrub(strip_token(href))}."
        )
    url = session.dialect_of(item_url).asset_url(
        strip_token(href),
        key=key,
        item_id=str(getattr(item, "id", "")),
        item_url=item_url,
        properties=getattr(item, "properties", {}),
    )
    return _Job(replace(source, url=url), path)


def _self_href(item: HasAssets) -> str:
    return item.get_self_href() or "" if isinstance(item, pystac.STACObject) else ""


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


def _check_selection(
    item: HasAssets, chosen: Mapping[str, pystac.Asset], include: Names, roles: Names
) -> None:
    """Do not pass over in silence that there is nothing to do."""
    wanted = [include] if isinstance(include, str) else list(include or ())
    missing = [name for name in wanted if name not in item.assets and not _GLOB.search(name)]
    keys = ", ".join(map(shown, item.assets)) or "none at all"
    if missing:
        raise AssetNotFoundError(
            f"{item!r} has no asset {', '.join(map(shown, missing))}. Its assets: {keys}."
        )
    if not chosen:
        warnings.warn(
            f"{item!r} has no asset that fits (roles={roles!r}); there is nothing to download. Its "
            f"assets: {keys}.",
            NothingToDownloadWarning,
            stacklevel=3,
        )


def _failure(report: DownloadReport) -> DownloadError:
    errors = {result.key: result.error for result in report.failed if result.error is not None}
    named = "\n".join(f"  {shown(key)}: {error}" for key, error in errors.items())
    return DownloadError(
        f"{len(errors)} of {len(report)} assets failed:\n{named}", errors=errors, report=report
    )


def _cannot_write(path: str, error: OSError) -> DownloadError:
    return DownloadError(
        f"{shown(path)} cannot be written: {error.strerror or error}. What stood there before is "
        "unchanged. Check the free space and the permissions of the folder."
    )


def _human(size: int | None) -> str:
    if size is None:
        return "-"
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
