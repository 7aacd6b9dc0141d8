"""What the caller wishes for, made jobs: which assets, from where, to where. Without a request."""

from __future__ import annotations

import contextlib
import os
import shutil
import string
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pystac

from stac_gitlab.download.assets import HasAssets, Names, filter_assets
from stac_gitlab.download.pool import DownloadPool
from stac_gitlab.download.progress import Progress, ProgressOption, progress_for
from stac_gitlab.download.report import AssetResult, BatchReport, DownloadReport, human_size
from stac_gitlab.download.source import Locator, self_href
from stac_gitlab.download.task import DownloadTask, Overwrite, read_records
from stac_gitlab.errors import ConfigurationError, DownloadError, NothingToDownloadWarning
from stac_gitlab.files.partial_file import Leftover, leftovers_for, leftovers_in
from stac_gitlab.files.paths import FileNaming, NameClashError, TakenNames, relative_path
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted, redact
from stac_gitlab.settings import expect

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
    ) -> tuple[list[DownloadTask], list[AssetResult]]:
        """Return the jobs for `assets`, and a failure for each that cannot become one.

        Args:
            item: The item.
            assets: Those of its assets that are wanted, by key.
            path_of: Where the asset with a key goes, below the output folder.
            item_name: What to call the item, where there are several.
        """
        tasks: list[DownloadTask] = []
        refused: list[AssetResult] = []
        dialect = self._session.dialect_of(self_href(item))
        version = dialect.item_version(getattr(item, "properties", {}))
        for key, asset in assets.items():
            try:
                task = self._job(item, key, asset, path_of(key), version=version, name=item_name)
                tasks.append(task)
            except DownloadError as error:
                href = self.locator.redacted_url(asset.href)
                refused.append(AssetResult(key, href, status="failed", error=error))
        try:
            self._taken.take({task.name: task.path for task in tasks})
        except NameClashError as clash:
            return [], refused + [_refused(task, clash) for task in tasks]
        return tasks, refused

    def _job(
        self,
        item: HasAssets,
        key: str,
        asset: pystac.Asset,
        path: str,
        *,
        version: str | None,
        name: str,
    ) -> DownloadTask:
        relative_path(key, portable=self._portable)
        if path != key:
            path = relative_path(path, portable=self._portable)
        source, origin = self.locator.locate(item, key, asset)
        return DownloadTask(
            source=source,
            href=self.locator.redacted_url(source.url),
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


def check_space(tasks: Sequence[DownloadTask]) -> None:
    """Check before the first byte that what is known to come has room.

    Raises:
        DownloadError: If it has not.
    """
    needed = sum(map(_bytes_to_come, tasks))
    if not needed:
        return
    folder = tasks[0].folder
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


def _bytes_to_come(task: DownloadTask) -> int:
    size = task.source.size
    if not size:
        return 0
    try:
        old = task.target.stat().st_size if task.target.is_file() else None
    except OSError:
        # What is the matter there is told when the file is to be written.
        old = None
    stays = task.overwrite in ("never", "error") or (task.overwrite == "if-changed" and old == size)
    if old is not None and stays:
        return 0
    # What an earlier run left has its room already.
    return max(0, size - max((leftover.size for leftover in task.leftovers), default=0))


def _refused(task: DownloadTask, clash: NameClashError) -> AssetResult:
    if task.name in clash.names:
        return task.result("failed", error=clash)
    others = f"{quoted(task.key)}: not begun, because other names of the same item collide."
    return task.result("failed", error=DownloadError(others))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"The folder {str(folder)!r} cannot be made: {error.strerror or error}."
        ) from error


DEFAULT_TEMPLATE = "{collection}/{id}/{key}"
_TEMPLATE_FIELDS = frozenset({"collection", "id", "key", "year", "month", "day"})
# Of the items, this many take turns.
_ITEMS_AT_ONCE = 4


class Batch:
    """The assets of many items. Works once.

    Args:
        stac_io: The reader whose session to use.
        folder: The output folder.
        template: Where an asset goes below it.
        options: What the caller wishes for.

    Raises:
        ConfigurationError: If the template makes no sense.
        DownloadError: If nothing can be written to the folder.
    """

    def __init__(
        self, stac_io: GitLabStacIO, folder: Path, template: str, options: Options
    ) -> None:
        self._template = _checked_template(template)
        self._stac_io = stac_io
        self._options = options
        self._planner = Planner(stac_io.session, folder, options)
        self._results: dict[str, dict[str, AssetResult | None]] = {}
        self._broken: Exception | None = None

    def run(self, items: Iterable[pystac.Item], *, workers: int | None) -> BatchReport:
        """Bring everything home, and return what became of it.

        Args:
            items: The items, taken as they are needed.
            workers: How many files to download at a time; None for as many as pay.

        Raises:
            DownloadError: If anything failed, `items` included.
        """
        options = self._options
        with progress_for(None if options.dry_run else options.progress) as progress:
            tasks = self._jobs(items, progress)
            if options.dry_run:
                for task in tasks:
                    self._note(task, task.forecast())
            else:
                pool = DownloadPool(
                    self._stac_io,
                    progress,
                    workers=workers,
                    executor=options.executor,
                    fail_fast=options.fail_fast,
                )
                try:
                    pool.do(tasks, self._note)
                finally:
                    self._planner.tidy_up()
        report = self._report()
        if self._broken is not None or not report.ok:
            raise self._failure(report) from self._broken
        if report and not any(report.values()):
            warnings.warn(
                f"None of {len(report)} items has an asset that fits (roles={options.roles!r}); "
                "there is nothing to download.",
                NothingToDownloadWarning,
                stacklevel=3,
            )
        return report

    def _note(self, task: DownloadTask, result: AssetResult) -> None:
        self._results[task.item_name][task.key] = result

    def _report(self) -> BatchReport:
        return BatchReport(
            {
                name: DownloadReport({key: r for key, r in results.items() if r is not None})
                for name, results in self._results.items()
            }
        )

    def _failure(self, report: BatchReport) -> DownloadError:
        failed = report.failed
        errors = {name: r.error for name, r in failed.items() if r.error is not None}
        lines = [f"{len(failed)} assets of {len(report)} items failed:"] if failed else []
        lines += [f"  {quoted(name)}: {error}" for name, error in errors.items()]
        if self._broken is not None:
            lines.append(
                f"After {len(report)} items there were no more to be had "
                f"({type(self._broken).__name__}): {redact(str(self._broken))}"
            )
        return DownloadError("\n".join(lines), errors=errors, report=report)

    # -- what is done next --------------------------------------------------------------------

    def _jobs(self, items: Iterable[pystac.Item], progress: Progress) -> Iterator[DownloadTask]:
        """Yield the jobs of a few items in turn."""
        waiting = self._taken_from(items)
        turns: deque[Iterator[DownloadTask]] = deque()
        while True:
            while len(turns) < _ITEMS_AT_ONCE:
                item = next(waiting, None)
                if item is None:
                    break
                tasks, refused = self._plan(item)
                if refused and self._options.fail_fast:
                    return
                progress.expect(len(tasks), sum(task.source.size or 0 for task in tasks))
                turns.append(iter(tasks))
            if not turns:
                return
            turn = turns.popleft()
            task = next(turn, None)
            if task is not None:
                yield task
                turns.append(turn)

    def _taken_from(self, items: Iterable[pystac.Item]) -> Iterator[pystac.Item]:
        try:
            for item in items:
                if not isinstance(item, pystac.Item):
                    raise ConfigurationError(f"an item was expected, {item!r} came.")
                yield item
        except Exception as error:  # noqa: BLE001  # told at the end, whatever it is
            self._broken = error

    def _plan(self, item: pystac.Item) -> tuple[list[DownloadTask], list[AssetResult]]:
        """Return the jobs of an item, and what cannot become one."""
        chosen = self._options.choose(item)
        name = self._name_of(item)
        self._results[name] = dict.fromkeys(chosen)
        tasks, refused = self._planner.plan(
            item, chosen, lambda key: self._path(item, key), item_name=name
        )
        if not self._options.dry_run:
            try:
                check_space(tasks)
            except DownloadError as full:
                refused += [task.result("failed", error=full) for task in tasks]
                tasks = []
        self._results[name].update((result.key, result) for result in refused)
        return tasks, refused

    def _name_of(self, item: pystac.Item) -> str:
        """Return what the report calls an item: its id, or more where that is taken."""
        name = str(item.id)
        if name in self._results:
            name = f"{item.collection_id}/{item.id}"
        again = name
        number = 2
        while again in self._results:
            again = f"{name} ({number})"
            number += 1
        return again

    def _path(self, item: pystac.Item, key: str) -> str:
        moment = item.datetime or _start_of(item)
        # Each by itself, because in the middle of a path more would pass.
        return self._template.format(
            collection=relative_path(str(item.collection_id or "no-collection")),
            id=relative_path(str(item.id)),
            key=key,
            year="undated" if moment is None else f"{moment.year:04}",
            month="undated" if moment is None else f"{moment.month:02}",
            day="undated" if moment is None else f"{moment.day:02}",
        )


def _start_of(item: pystac.Item) -> datetime | None:
    try:
        return item.common_metadata.start_datetime
    except (ValueError, TypeError, OverflowError):
        # Not a date, whatever it is; an item like that has files all the same.
        return None


def _checked_template(template: str) -> str:
    expect("template", template, str, wanted="a text such as '{id}/{key}'")
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        if fields <= _TEMPLATE_FIELDS:
            template.format(**dict.fromkeys(_TEMPLATE_FIELDS, ""))
    except (ValueError, LookupError) as error:
        raise ConfigurationError(f"template={template!r}: {error}.") from None
    if not fields <= _TEMPLATE_FIELDS or "key" not in fields:
        raise ConfigurationError(
            f"template={template!r}: use {{key}}, and of the others only "
            + ", ".join(f"{{{name}}}" for name in sorted(_TEMPLATE_FIELDS - {"key"}))
            + "."
        )
    return template
