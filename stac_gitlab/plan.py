"""What the caller wishes for, made jobs: which assets, from where, to where. Without a request."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import pystac

from stac_gitlab.arguments import expect
from stac_gitlab.assets import HasAssets, Names, filter_assets
from stac_gitlab.errors import ConfigurationError, DownloadError
from stac_gitlab.hrefs import Locator, self_href
from stac_gitlab.jobs import Job, Overwrite
from stac_gitlab.names import FileNaming, NameClashError, TakenNames, relative_path, shown
from stac_gitlab.part import Leftover, leftovers_for, leftovers_in
from stac_gitlab.progress import ProgressOption
from stac_gitlab.records import read_records
from stac_gitlab.report import AssetResult, human_size
from stac_gitlab.session import GitLabSession

__all__ = ["Options", "Planner", "check_space"]

MAX_SEGMENTS = 16
_OVERWRITE = ("if-changed", "always", "never", "error")


@dataclass(frozen=True)
class Options:
    """The keyword arguments of :meth:`~stac_gitlab.STACDownloader.download_assets`."""

    roles: Names = ("data",)
    exclude_roles: Names = None
    include: Names = None
    exclude: Names = None
    media_types: Names = None
    alternates: Sequence[str] = ()
    overwrite: Overwrite = "if-changed"
    verify: bool = True
    segments: int = 1
    fail_fast: bool = False
    dry_run: bool = False
    portable_names: bool = False
    progress: ProgressOption = None
    executor: Executor | None = None

    def __post_init__(self) -> None:
        if self.overwrite not in _OVERWRITE:
            choices = ", ".join(map(repr, _OVERWRITE))
            raise ConfigurationError(f"overwrite={self.overwrite!r}: choose from {choices}.")
        if type(self.segments) is not int or not 1 <= self.segments <= MAX_SEGMENTS:
            raise ConfigurationError(
                f"segments={self.segments!r}: choose a number from 1 to {MAX_SEGMENTS}."
            )
        for filtered_by in ("roles", "exclude_roles", "include", "exclude", "media_types"):
            # They are gone through for each item, which an iterator bears only once.
            names = getattr(self, filtered_by)
            if isinstance(names, Iterator):
                object.__setattr__(self, filtered_by, tuple(names))
        if isinstance(self.alternates, str):
            object.__setattr__(self, "alternates", (self.alternates,))
        expect("alternates", self.alternates, Iterable, wanted="names of alternate assets")
        object.__setattr__(self, "alternates", tuple(self.alternates))
        for name in self.alternates:
            expect("alternates", name, str, wanted="names of alternate assets")
        if self.executor is not None and not callable(getattr(self.executor, "submit", None)):
            raise ConfigurationError(
                f"executor has to be a concurrent.futures.Executor, not "
                f"{type(self.executor).__name__}. Leave it out for threads of this process."
            )

    def choose(self, item: HasAssets) -> dict[str, pystac.Asset]:
        """Return the assets of an item that are wanted."""
        return filter_assets(
            item,
            roles=self.roles,
            exclude_roles=self.exclude_roles,
            include=self.include,
            exclude=self.exclude,
            media_types=self.media_types,
        )


class Planner:
    """Makes jobs of the assets of one item, or of many that go into one folder.

    Args:
        session: Knows the dialect of each server.
        folder: The output folder; it is made if it is missing, unless nothing is to happen.
        options: What the caller wishes for.

    Attributes:
        folder: The output folder.
        locator: Knows where assets come from.

    Raises:
        DownloadError: If nothing can be written to the folder.
    """

    def __init__(self, session: GitLabSession, folder: Path, options: Options) -> None:
        # Workers elsewhere may have another working folder.
        self.folder = folder if options.executor is None else folder.absolute()
        self.locator = Locator(session, options.alternates, options.verify)
        self._session = session
        self._options = options
        self._portable = options.portable_names or os.name == "nt"
        if not options.dry_run:
            _make_folder(self.folder)
        self._records = read_records(self.folder)
        self._left: dict[str, Mapping[str, list[Leftover]]] = {}
        self._missing: set[str] = set()
        self._taken = TakenNames(self._naming())

    def reserve(self, name: str, path: str) -> None:
        """Keep a path free of assets; `name` is what messages call what goes there."""
        self._taken.take({name: path})

    def plan(
        self,
        item: HasAssets,
        assets: Mapping[str, pystac.Asset],
        path_of: Callable[[str], str] = str,
        *,
        item_name: str = "",
    ) -> tuple[list[Job], list[AssetResult]]:
        """Return the jobs for `assets`, and a failure for each that cannot become one.

        Args:
            item: The item.
            assets: Those of its assets that are wanted, by key.
            path_of: Where the asset with a key goes, below the output folder.
            item_name: What to call the item, where there are several.
        """
        jobs: list[Job] = []
        refused: list[AssetResult] = []
        dialect = self._session.dialect_of(self_href(item))
        version = dialect.item_version(getattr(item, "properties", {}))
        for key, asset in assets.items():
            try:
                job = self._job(item, key, asset, path_of(key), version=version, name=item_name)
                jobs.append(job)
            except DownloadError as error:
                href = self.locator.shown_url(asset.href)
                refused.append(AssetResult(key, href, status="failed", error=error))
        try:
            self._taken.take({job.name: job.path for job in jobs})
        except NameClashError as clash:
            return [], refused + [_refused(job, clash) for job in jobs]
        return jobs, refused

    def _job(
        self,
        item: HasAssets,
        key: str,
        asset: pystac.Asset,
        path: str,
        *,
        version: str | None,
        name: str,
    ) -> Job:
        relative_path(key, portable=self._portable)
        if path != key:
            path = relative_path(path, portable=self._portable)
        source, origin = self.locator.locate(item, key, asset)
        return Job(
            source=source,
            href=self.locator.shown_url(source.url),
            folder=self.folder,
            path=path,
            origin=origin,
            record=self._records.get(path),
            leftovers=self._leftovers(path),
            version=version,
            overwrite=self._options.overwrite,
            verify=self._options.verify,
            segments=self._options.segments,
            item_name=name,
        )

    def _leftovers(self, path: str) -> tuple[Leftover, ...]:
        target = os.path.join(self.folder, *path.split("/"))
        folder = os.path.dirname(target)
        if folder not in self._left:
            self._left[folder] = leftovers_in(folder)
            if not os.path.isdir(folder):
                self._missing.add(folder)
        found = self._left[folder]
        return tuple(leftovers_for(target, found)) if found else ()

    def tidy_up(self) -> None:
        """Remove the folders that were made for files which did not come."""
        for place in self._missing:
            folder = place
            with contextlib.suppress(OSError):
                while folder != os.fspath(self.folder):
                    os.rmdir(folder)
                    folder = os.path.dirname(folder)

    def _naming(self) -> FileNaming:
        if self._options.portable_names:
            return FileNaming.strictest()
        return FileNaming.of(self.folder) if self.folder.is_dir() else FileNaming.usual()


def check_space(jobs: Sequence[Job]) -> None:
    """Check before the first byte that what is known to come has room.

    Raises:
        DownloadError: If it has not.
    """
    needed = sum(map(_bytes_to_come, jobs))
    if not needed:
        return
    folder = jobs[0].folder
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        # Nobody knows: then the files themselves will tell.
        return
    if needed > free:
        raise DownloadError(
            f"{human_size(needed)} are to come, and {str(folder)!r} has {human_size(free)} free. "
            "Nothing was downloaded. Make room, or choose another folder."
        )


def _bytes_to_come(job: Job) -> int:
    size = job.source.size
    if not size:
        return 0
    try:
        old = job.target.stat().st_size if job.target.is_file() else None
    except OSError:
        # What is the matter there is told when the file is to be written.
        old = None
    stays = job.overwrite in ("never", "error") or (job.overwrite == "if-changed" and old == size)
    if old is not None and stays:
        return 0
    # What an earlier run left has its room already.
    return max(0, size - max((leftover.size for leftover in job.leftovers), default=0))


def _refused(job: Job, clash: NameClashError) -> AssetResult:
    if job.name in clash.names:
        return job.result("failed", error=clash)
    others = f"{shown(job.key)}: not begun, because other names of the same item collide."
    return job.result("failed", error=DownloadError(others))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"The folder {str(folder)!r} cannot be made: {error.strerror or error}."
        ) from error
