"""STACDownloader: the assets of items brought home, many at a time.

What one file needs is ``transfer``'s work, planning and doing one asset is that of ``jobs``, the
threads are ``crew``'s. What is left for this module is what users call.
"""

from __future__ import annotations

import os
import re
import shutil
import string
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict
from urllib.parse import quote

import pystac
from pystac.utils import make_relative_href

from stac_gitlab.assets import HasAssets, Names, filter_assets
from stac_gitlab.auth import URL_VARIABLE, TokenSource
from stac_gitlab.crew import Crew
from stac_gitlab.errors import (
    AssetNotFoundError,
    ConfigurationError,
    DownloadError,
    NothingToDownloadWarning,
    STACGitLabError,
)
from stac_gitlab.jobs import Job, Overwrite, Planner
from stac_gitlab.names import (
    FileNaming,
    NameClashError,
    TakenNames,
    contained_path,
    relative_path,
    shown,
)
from stac_gitlab.progress import Progress, ProgressOption, progress_for
from stac_gitlab.records import read_records
from stac_gitlab.remote_file import open_remote
from stac_gitlab.report import AssetResult, BatchReport, DownloadReport, human_size
from stac_gitlab.retry import RetryPolicy
from stac_gitlab.sharinghub import api_url
from stac_gitlab.stac_io import GitLabStacIO

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["STACDownloader"]

DEFAULT_TEMPLATE = "{collection}/{id}/{key}"

# What tells a glob from the name of an asset.
_GLOB = re.compile(r"[*?\[]")
# Of the items of a batch, this many take turns, so that a large one does not keep the rest waiting.
_ITEMS_AT_ONCE = 4
_OVERWRITE = ("if-changed", "always", "never", "error")


class DownloadOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`STACDownloader.download_assets`, for its relatives."""

    roles: Names
    exclude_roles: Names
    include: Names
    exclude: Names
    media_types: Names
    alternates: Sequence[str]
    overwrite: Overwrite
    verify: bool
    fail_fast: bool
    dry_run: bool
    portable_names: bool
    progress: ProgressOption
    executor: Executor | None


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
        max_workers: How many files to download at a time. By default 8 to begin with, and up to 64
            while more of them make it faster.
        retry: When requests are tried again.
        progress: What to tell how far downloads are; see :meth:`download_assets`.

    Raises:
        ConfigurationError: If the arguments contradict each other.
    """

    def __init__(
        self,
        auth_token: TokenSource = None,
        base_url: str | None = None,
        *,
        stac_io: GitLabStacIO | None = None,
        max_workers: int | None = None,
        retry: RetryPolicy | None = None,
        progress: ProgressOption = None,
    ) -> None:
        if max_workers is not None and max_workers < 1:
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
        self.progress = progress

    def __repr__(self) -> str:
        return f"<STACDownloader from {self.base_url or 'anywhere'} with {self.stac_io!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.stac_io.close()

    # -- one item ---------------------------------------------------------------------------

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
        alternates: Sequence[str] = (),
        overwrite: Overwrite = "if-changed",
        verify: bool = True,
        fail_fast: bool = False,
        dry_run: bool = False,
        portable_names: bool = False,
        progress: ProgressOption = None,
        executor: Executor | None = None,
    ) -> DownloadReport:
        """Download the assets of an item that fit everything asked for.

        Keys with slashes become sub-folders. A file that stands where an asset goes is replaced
        once the new one is complete and checked, and not touched before.

        Args:
            item: An item or collection.
            output_dir: The folder to download into; it is made if it is missing.
            roles: Roles, one of which an asset has to have; None for assets of any role.
            exclude_roles: Roles that it may not have.
            include: Globs, one of which its key has to match.
            exclude: Globs, none of which its key may match.
            media_types: Media types, one of which it has to have.
            alternates: Names of alternate assets to prefer to the asset's own href, best first.
            overwrite: What to do about a file that is there already: ``"if-changed"`` to download
                it again if it has changed on either side, ``"always"``, ``"never"``, or
                ``"error"``.
            verify: Whether to compare checksums.
            fail_fast: Whether to stop at the first failure.
            dry_run: Whether to only tell what would be downloaded, without a request.
            portable_names: Whether to refuse names that some other system could not hold.
            progress: True for bars on a terminal or in a notebook, ``"force"`` for bars anywhere,
                or an object with the methods of :class:`~stac_gitlab.progress.Progress`.
            executor: Where to do the work, in place of threads of this process.

        Returns:
            What became of each asset, by its key.

        Raises:
            DownloadError: If any asset failed, after all others are done. Its ``errors`` and
                ``report`` tell which and why.
            ConfigurationError: If an argument makes no sense.
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
        planner = self._planner(
            output_dir,
            dry_run=dry_run,
            overwrite=overwrite,
            verify=verify,
            portable_names=portable_names,
            alternates=alternates,
        )
        jobs, refused = planner.plan(item, chosen)
        results = {result.key: result for result in refused}
        try:
            TakenNames(_naming(planner)).take({job.key: job.path for job in jobs})
        except NameClashError as clash:
            results.update(
                (j.key, j.result("failed", error=clash)) for j in jobs if j.key in clash.names
            )
            report = DownloadReport({key: results[key] for key in chosen if key in results})
            raise _failure(report) from clash
        if dry_run:
            results.update((job.key, _planned(job)) for job in jobs)
        elif not (refused and fail_fast):
            _check_space(planner.folder, jobs)
            with progress_for(self.progress if progress is None else progress) as told:
                told.expect(len(jobs), sum(job.source.size or 0 for job in jobs))
                for job, result in self._do(jobs, told, executor, fail_fast=fail_fast):
                    results[job.key] = result
        report = DownloadReport({key: results[key] for key in chosen if key in results})
        if not report.ok:
            raise _failure(report)
        return report

    def download_item(
        self,
        item: pystac.Item,
        output_dir: str | os.PathLike[str] | None = None,
        **options: Unpack[DownloadOptions],
    ) -> DownloadReport:
        """Download an item with its assets, as a folder that can be read on its own.

        The item is written as ``{id}.json``, the hrefs of its downloaded assets relative to that
        file, with a ``derived_from`` link to where it came from.

        Args:
            item: The item.
            output_dir: The folder to download into; ``{project}-{timestamp}`` in the current
                folder where it is None.
            **options: As for :meth:`download_assets`.

        Returns:
            What became of each asset. Its ``item_path`` is the item's own file.

        Raises:
            DownloadError: As for :meth:`download_assets`; the item is not written then.
        """
        if output_dir is None:
            project = item.id.rstrip("/").rpartition("/")[2] or "item"
            output_dir = Path(relative_path(f"{project}-{time.strftime('%Y%m%d-%H%M%S')}"))
        folder = Path(output_dir)
        path = relative_path(f"{item.id}.json", portable=options.get("portable_names", False))
        report = self.download_assets(item, folder, **options)
        if options.get("dry_run"):
            return report
        item_path = self._write_item(item, contained_path(folder, path), report)
        return replace(report, item_path=item_path)

    def open(self, asset: pystac.Asset, *, item: pystac.Item | None = None) -> BinaryIO:
        """Open an asset for reading, without a file on this machine.

        What is read is asked for in ranges where the server can serve them; elsewhere the whole
        asset is fetched once into a temporary file. The result is seekable and buffered, so that
        ``pandas.read_csv``, ``zipfile.ZipFile``, ``rasterio.open`` and ``json.load`` take it.

        Args:
            asset: The asset.
            item: The item that it belongs to; by default the one that it says itself.

        Raises:
            DownloadError: If it cannot be opened.
            HTTPStatusError: If the server refuses.
            NetworkError: If no connection comes about.

        Example::

            with downloader.open(item.assets["data/table.csv"]) as file:
                table = pandas.read_csv(file)
        """
        owner = item or asset.owner
        if owner is None or not hasattr(owner, "assets"):
            raise ConfigurationError("This asset belongs to no item: pass item= as well.")
        key = next((key for key, a in owner.assets.items() if a is asset), None)
        if key is None:
            raise AssetNotFoundError(f"{owner!r} has no such asset as {asset!r}.")
        planner = Planner(self.stac_io.session, Path(), {})
        source, origin = planner.locate(owner, key, asset)
        if origin is not None:
            return origin.open("rb")
        return open_remote(self.stac_io.session, source)

    # -- many items -------------------------------------------------------------------------

    def download_items(
        self,
        items: Iterable[pystac.Item],
        output_dir: str | os.PathLike[str],
        *,
        template: str = DEFAULT_TEMPLATE,
        **options: Unpack[DownloadOptions],
    ) -> BatchReport:
        """Download the assets of many items, taken from `items` as they are needed.

        Args:
            items: Items, ``collection.get_items()`` for example.
            output_dir: The folder to download into.
            template: Where an asset goes below it, made of ``{collection}``, ``{id}``, ``{key}``,
                ``{year}``, ``{month}`` and ``{day}``. A slash in an id makes sub-folders.
            **options: As for :meth:`download_assets`.

        Returns:
            What became of each item: a :class:`~stac_gitlab.DownloadReport` by its id.

        Raises:
            DownloadError: If any asset of any item failed, after all others are done.
            ConfigurationError: If the template or an option makes no sense.
        """
        batch = _Batch(self, Path(output_dir), template, options)
        report = batch.run(items)
        if not report.ok:
            raise DownloadError(
                f"{len(report.failed)} assets of {len(report)} items failed:\n"
                + "\n".join(f"  {name}: {r.error}" for name, r in report.failed.items()),
                errors={name: r.error for name, r in report.failed.items() if r.error},
                report=report,
            )
        return report

    def download_collection(
        self,
        collection: pystac.Collection,
        output_dir: str | os.PathLike[str],
        *,
        template: str = DEFAULT_TEMPLATE,
        **options: Unpack[DownloadOptions],
    ) -> BatchReport:
        """Download the assets of all items of a collection; see :meth:`download_items`."""
        return self.download_items(
            collection.get_items(recursive=True), output_dir, template=template, **options
        )

    # -- what they share --------------------------------------------------------------------

    def _planner(
        self, output_dir: str | os.PathLike[str], *, dry_run: bool, **options: Any
    ) -> Planner:
        if options["overwrite"] not in _OVERWRITE:
            choices = ", ".join(map(repr, _OVERWRITE))
            raise ConfigurationError(f"overwrite={options['overwrite']!r}: choose from {choices}.")
        folder = Path(output_dir)
        if not dry_run:
            _make_folder(folder)
        return Planner(self.stac_io.session, folder, read_records(folder), **options)

    def _do(
        self,
        jobs: Iterable[Job],
        told: Progress,
        executor: Executor | None,
        *,
        fail_fast: bool,
    ) -> Iterator[tuple[Job, AssetResult]]:
        crew = Crew(
            self.stac_io, workers=self.max_workers, executor=executor, on_bytes=told.advance
        )
        for job, result in crew.do(jobs):
            told.done(job.key, result.size)
            if result.error is not None and fail_fast:
                crew.stop()
            yield job, result

    def _write_item(self, item: pystac.Item, path: Path, report: DownloadReport) -> Path:
        copy = item.clone()
        source = item.get_self_href()
        copy.remove_links(pystac.RelType.SELF)
        for key, asset in copy.assets.items():
            if key in report.paths:
                asset.href = make_relative_href(
                    report.paths[key].resolve().as_posix(), path.resolve().as_posix()
                )
            elif item.assets[key].get_absolute_href():
                asset.href = item.assets[key].get_absolute_href() or asset.href
        if source:
            copy.add_link(pystac.Link("derived_from", source, media_type="application/geo+json"))
        self.stac_io.save_json(
            str(path), copy.to_dict(include_self_link=False, transform_hrefs=False)
        )
        return path


class _Batch:
    """The jobs of many items, planned as they are needed, and what became of them."""

    def __init__(
        self,
        downloader: STACDownloader,
        folder: Path,
        template: str,
        options: DownloadOptions,
    ) -> None:
        self._downloader = downloader
        self._options = options
        self._template = _checked_template(template)
        self._planner = downloader._planner(
            folder,
            dry_run=options.get("dry_run", False),
            overwrite=options.get("overwrite", "if-changed"),
            verify=options.get("verify", True),
            portable_names=options.get("portable_names", False),
            alternates=options.get("alternates", ()),
        )
        self._taken = TakenNames(_naming(self._planner))
        self._results: dict[str, dict[str, AssetResult]] = {}
        self._broken: Exception | None = None

    def run(self, items: Iterable[pystac.Item]) -> BatchReport:
        options = self._options
        if options.get("dry_run"):
            for job in self._jobs(items, None):
                self._note(job, _planned(job))
        else:
            told_option = options.get("progress")
            with progress_for(
                self._downloader.progress if told_option is None else told_option
            ) as told:
                jobs = self._jobs(items, told)
                for job, result in self._downloader._do(
                    jobs,
                    told,
                    options.get("executor"),
                    fail_fast=options.get("fail_fast", False),
                ):
                    self._note(job, result)
        if self._broken is not None:
            raise self._broken
        return BatchReport({i: DownloadReport(r) for i, r in self._results.items()})

    def _note(self, job: Job, result: AssetResult) -> None:
        self._results[job.item_id][job.key] = result

    def _jobs(self, items: Iterable[pystac.Item], told: Progress | None) -> Iterator[Job]:
        """Yield the jobs of a few items in turn, so that none keeps the others waiting."""
        waiting = self._items(items)
        turns: deque[Iterator[Job]] = deque()
        while True:
            while len(turns) < _ITEMS_AT_ONCE:
                item = next(waiting, None)
                if item is None:
                    break
                jobs = self._plan(item)
                if told is not None:
                    told.expect(len(jobs), sum(job.source.size or 0 for job in jobs))
                turns.append(iter(jobs))
            if not turns:
                return
            turn = turns.popleft()
            job = next(turn, None)
            if job is not None:
                yield job
                turns.append(turn)

    def _items(self, items: Iterable[pystac.Item]) -> Iterator[pystac.Item]:
        try:
            yield from items
        except (STACGitLabError, pystac.STACError) as error:
            # What came before is brought home all the same; then the caller hears of it.
            self._broken = error

    def _plan(self, item: pystac.Item) -> list[Job]:
        """Return the jobs of an item; one that is bad fails by itself."""
        options = self._options
        chosen = filter_assets(
            item,
            roles=options.get("roles", ("data",)),
            exclude_roles=options.get("exclude_roles"),
            include=options.get("include"),
            exclude=options.get("exclude"),
            media_types=options.get("media_types"),
        )
        name = item.id
        if name in self._results:
            name = f"{item.collection_id}/{item.id}"
        results = self._results[name] = {}
        try:
            jobs, refused = self._planner.plan(item, chosen, lambda key: self._path(item, key))
            self._taken.take({f"{name}: {job.key}": job.path for job in jobs})
        except DownloadError as error:
            jobs = []
            refused = [
                AssetResult(key, self._planner.shown_url(asset.href), status="failed", error=error)
                for key, asset in chosen.items()
            ]
        results.update((result.key, result) for result in refused)
        return [replace(job, item_id=name) for job in jobs]

    def _path(self, item: pystac.Item, key: str) -> str:
        moment = item.datetime or item.common_metadata.start_datetime
        return self._template.format(
            collection=item.collection_id or "no-collection",
            id=item.id,
            key=key,
            year="" if moment is None else f"{moment.year:04}",
            month="" if moment is None else f"{moment.month:02}",
            day="" if moment is None else f"{moment.day:02}",
        )


def _checked_template(template: str) -> str:
    known = {"collection", "id", "key", "year", "month", "day"}
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigurationError(f"template={template!r}: {error}.") from None
    if not fields <= known or "key" not in fields:
        raise ConfigurationError(
            f"template={template!r}: use {{key}}, and of the others only "
            + ", ".join(f"{{{name}}}" for name in sorted(known - {"key"}))
            + "."
        )
    return template


def _planned(job: Job) -> AssetResult:
    try:
        return job.result("skipped" if job.is_there() else "planned")
    except DownloadError as error:
        return job.result("failed", error=error)


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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"The folder {str(folder)!r} cannot be made: {error.strerror or error}."
        ) from error


def _naming(planner: Planner) -> FileNaming:
    if planner.portable_names:
        return FileNaming.strictest()
    return FileNaming.of(planner.folder) if planner.folder.is_dir() else FileNaming.usual()


def _check_space(folder: Path, jobs: Sequence[Job]) -> None:
    """Check before the first byte that what is known to come has room."""
    needed = sum(job.source.size or 0 for job in jobs if not job.target.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{human_size(needed)} are to come, and {str(folder)!r} has {human_size(free)} free. "
            "Nothing was downloaded."
        )


def _failure(report: DownloadReport) -> DownloadError:
    errors = {result.key: result.error for result in report.failed if result.error is not None}
    named = "\n".join(f"  {shown(key)}: {error}" for key, error in errors.items())
    return DownloadError(
        f"{len(errors)} of {len(report)} assets failed:\n{named}", errors=errors, report=report
    )
