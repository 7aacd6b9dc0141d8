"""Items and options made tasks.

The only requests list repositories, to find out which existing files are unchanged.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pystac

from stac_gitlab.download.assets import HasAssets, PathTemplate, check_asset
from stac_gitlab.download.content_version import compact_records, read_records
from stac_gitlab.download.git_blobs import list_blob_ids
from stac_gitlab.download.local_copy import ItemFile
from stac_gitlab.download.options import AllOptions, folder_of
from stac_gitlab.download.report import AssetResult, DownloadReport, StoppedError, human_size
from stac_gitlab.download.source import Locator, redacted_url
from stac_gitlab.download.task import DownloadTask
from stac_gitlab.errors import DownloadError
from stac_gitlab.files.disk_space import free_space
from stac_gitlab.files.partial_file import (
    Leftover,
    leftovers_for,
    leftovers_in,
    remove_leftovers,
)
from stac_gitlab.files.paths import (
    STRICTEST_NAMING,
    FileNaming,
    NameClashError,
    TakenNames,
    relative_path,
)
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import quoted, redacting_logger
from stac_gitlab.settings import expect

logger = redacting_logger(__name__)


@dataclass
class ItemPlan:
    """The tasks of one item.

    Attributes:
        name: The name of the item in reports and messages; empty if there is only one.
        results: The result of each selected asset, in the order of the item; None until it is
            known. Those of assets that cannot become a task are known from the start.
        item_file: The file of the item, if it is to be written when the results are known.
        item_path: The path of that file, as reports name it.
        error: Why the file of the item could not be written.
    """

    name: str
    tasks: list[DownloadTask]
    results: dict[str, AssetResult | None]
    item_file: ItemFile | None = None
    item_path: Path | None = None
    error: DownloadError | None = None
    _finished: int = 0

    @property
    def has_failures(self) -> bool:
        """Whether an asset could not become a task, or its task has failed."""
        return any(r is not None and r.status == "failed" for r in self.results.values())

    def add_result(self, task: DownloadTask, result: AssetResult) -> None:
        """Add the result of a task. The last one completes the file of the item."""
        self.results[task.key] = result
        self._finished += 1
        if self._finished == len(self.tasks):
            self.write_item()

    def write_item(self) -> None:
        """Write the file of the item, once."""
        item_file, self.item_file = self.item_file, None
        if item_file is None:
            return
        report = self.report()
        files = {task.key: task.target for task in self.tasks if task.key in report.paths}
        try:
            item_file.write(files, {result.key for result in report.failed})
        except DownloadError as error:
            self.error, self.item_path = error, None

    def report(self) -> DownloadReport:
        """Return the report of the item. A task without a result was not started."""
        for task in self.tasks:
            if self.results[task.key] is None:
                error = StoppedError.of(task.key, started=False)
                self.results[task.key] = task.result("failed", error=error)
        results = {key: r for key, r in self.results.items() if r is not None}
        return DownloadReport(results, self.item_path)


class Planner:
    """Makes tasks of the assets of items that are downloaded into one folder.

    Args:
        options: Checked options.
        template: The path of an asset below the folder. None if there is one item only: then the
            path is the asset key.
        name: The name of the one item in reports and messages, if there is no template.

    Attributes:
        folder: The output folder, as an absolute path: the current folder may change.

    Raises:
        ConfigurationError: If the folder or the template is not valid.
    """

    def __init__(
        self,
        session: GitLabSession,
        output_dir: str | os.PathLike[str],
        options: AllOptions,
        template: str | None = None,
        name: str = "",
    ) -> None:
        self._name = name
        folder = folder_of(output_dir)
        self._template = None if template is None else PathTemplate(template)
        self.folder = folder.absolute()
        # Tasks elsewhere may have another current folder.
        self._reported_folder = folder if options["executor"] is None else self.folder
        self._options = options
        self._session = session
        self._portable = options["portable_names"] or os.name == "nt"
        self._locator = Locator(session, options["alternates"], options["verify"])
        self._records = read_records(self.folder)
        self._leftovers: dict[str, Mapping[str, list[Leftover]]] = {}
        self._missing_folders: set[str] = set()
        self._taken = TakenNames(STRICTEST_NAMING)
        # Until it is known which names are the same file here.
        self._paths: dict[str, str] | None = None if options["portable_names"] else {}
        self._item_names: set[str] = set()

    def reserve(self, paths: Mapping[str, str]) -> None:
        """Reserve some paths, as :meth:`TakenNames.take` does."""
        try:
            self._taken.take(paths)
            if self._paths is not None:
                self._paths.update(paths)
        except NameClashError:
            if self._paths is None:
                raise
            # They would be the same file on some system. Only now is it worth trying on this one.
            self._taken = TakenNames(self._naming())
            self._taken.take(self._paths)
            self._paths = None
            self._taken.take(paths)

    def plan(
        self, item: HasAssets, assets: Mapping[str, pystac.Asset], item_file: ItemFile | None = None
    ) -> ItemPlan:
        """Return the plan for some assets of an item, and for the file of the item itself."""
        name = self._name if self._template is None else self._unique_name(item)
        item_path = None if item_file is None else self.reported(item_file.path)
        plan = ItemPlan(name, [], dict.fromkeys(assets), item_file, item_path)
        if item_file is not None:
            remove_leftovers(self._leftovers_for(item_file.path))
        for key, asset in assets.items():
            try:
                check_asset(key, asset)
                plan.tasks.append(self._task(item, key, asset, name))
            except DownloadError as error:
                plan.results[key] = _failed(key, asset, error)
        try:
            self.reserve({task.name: task.path for task in plan.tasks})
            if not self._options["dry_run"]:
                _check_space(plan.tasks)
                plan.tasks = self._with_blob_ids(item, plan.tasks)
        except DownloadError as error:
            for task in plan.tasks:
                plan.results[task.key] = task.result("failed", error=_own_error(task, error))
            plan.tasks, plan.item_file, plan.item_path = [], None, None
        return plan

    def plan_unreached(self, item: HasAssets, assets: Mapping[str, pystac.Asset]) -> ItemPlan:
        """Return the plan, without tasks, for an item that was not reached before the end."""
        plan = ItemPlan(self._unique_name(item), [], dict.fromkeys(assets))
        for key, asset in assets.items():
            plan.results[key] = _failed(key, asset, StoppedError.of(str(key), started=False))
        return plan

    def reported(self, path: str) -> Path:
        """Return a path below the output folder as reports name it."""
        return self._reported_folder.joinpath(*path.split("/"))

    def compact_records(self) -> None:
        """Remove outdated records, if there are many."""
        if self._records.need_compacting:
            compact_records(self.folder)

    def remove_empty_folders(self) -> None:
        """Remove the folders that were created for files which then failed."""
        for missing in self._missing_folders:
            folder = missing
            with contextlib.suppress(OSError):
                while folder != os.fspath(self.folder):
                    os.rmdir(folder)
                    folder = os.path.dirname(folder)

    def _task(self, item: HasAssets, key: str, asset: pystac.Asset, name: str) -> DownloadTask:
        path = relative_path(key, portable=self._portable)
        if self._template is not None:
            path = relative_path(self._template.path(item, path, asset), portable=self._portable)
        source, origin = self._locator.locate(item, key, asset)
        return DownloadTask(
            source=source,
            href=redacted_url(source.url),
            folder=self.folder,
            path=path,
            reported_folder=self._reported_folder,
            origin=origin,
            record=self._records.get(path),
            leftovers=self._leftovers_for(path),
            overwrite=self._options["overwrite"],
            verify=self._options["verify"] in (True, "checksum"),
            segments=self._options["segments"],
            item_name=name,
        )

    def _with_blob_ids(self, item: HasAssets, tasks: list[DownloadTask]) -> list[DownloadTask]:
        """Add blob ids to the tasks whose file may be unchanged, with one listing a repository."""
        properties: object = getattr(item, "properties", None)
        places: dict[str, tuple[str, str]] = {}
        for task in tasks:
            url = task.source.url
            place = self._session.dialect_of(url).tree_url(
                url,
                item_id=str(getattr(item, "id", "")),
                properties=properties if isinstance(properties, Mapping) else {},
            )
            if place is not None and task.could_be_current():
                places[task.key] = place
        paths: dict[str, list[str]] = defaultdict(list)
        for url, path in places.values():
            paths[url].append(path)
        ids = {url: list_blob_ids(self._session, url, paths[url]) for url in paths}
        found = {key: ids[url].get(path) for key, (url, path) in places.items()}
        return [replace(task, blob_id=found.get(task.key)) for task in tasks]

    def _unique_name(self, item: HasAssets) -> str:
        """Return the id of an item, or a longer name if an earlier item has the same id."""
        base = name = str(getattr(item, "id", ""))
        if name in self._item_names:
            base = name = f"{getattr(item, 'collection_id', None)}/{name}"
        numbers = itertools.count(2)
        while name in self._item_names:
            name = f"{base} ({next(numbers)})"
        self._item_names.add(name)
        return name

    def _leftovers_for(self, path: str) -> tuple[Leftover, ...]:
        target = os.path.join(self.folder, *path.split("/"))
        folder = os.path.dirname(target)
        if folder not in self._leftovers:
            self._leftovers[folder] = leftovers_in(folder)
            if not os.path.isdir(folder):
                self._missing_folders.add(folder)
        found = self._leftovers[folder]
        return tuple(leftovers_for(target, found)) if found else ()

    def _naming(self) -> FileNaming:
        try:
            if not self._options["dry_run"]:
                self.folder.mkdir(parents=True, exist_ok=True)
                return FileNaming.of(self.folder)
        except OSError as error:
            logger.info("Whether names differ by case only cannot be tried: %s", error)
        return FileNaming.usual()


def read_items(items: Iterable[pystac.Item], errors: list[Exception]) -> Iterator[pystac.Item]:
    """Yield items until reading them fails; the exception is added to `errors`."""
    try:
        for item in items:
            expect("an element of items", item, pystac.Item, wanted="an item")
            yield item
    except Exception as error:  # noqa: BLE001  # raised when the items before are downloaded
        errors.append(error)


def _check_space(tasks: Sequence[DownloadTask]) -> None:
    """Raise a DownloadError if the files of known size do not fit on the disk."""
    needed = sum(map(_missing_bytes, tasks))
    if not needed:
        return
    folder = tasks[0].folder
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    free = free_space(existing)
    if free is not None and needed > free:
        raise DownloadError(
            f"{human_size(needed)} are needed, but {str(folder)!r} has only {human_size(free)} "
            "free. Nothing was downloaded. Free some space, or choose another folder."
        )


def _missing_bytes(task: DownloadTask) -> int:
    size = task.source.size
    if not size:
        return 0
    try:
        existing = task.target.stat().st_size if task.target.is_file() else None
    except OSError:
        # The task reports it when it writes the file.
        existing = None
    is_kept = task.overwrite in ("never", "error") or (
        task.overwrite == "if-changed" and existing == size
    )
    if existing is not None and is_kept:
        return 0
    # A partial file of an earlier run takes part of the space already.
    return max(0, size - max((leftover.size for leftover in task.leftovers), default=0))


def _failed(key: object, asset: object, error: DownloadError) -> AssetResult:
    """Return the result of an asset that cannot become a task; code can build any asset."""
    href = redacted_url(str(getattr(asset, "href", "")))
    return AssetResult(str(key), href, status="failed", error=error)


def _own_error(task: DownloadTask, error: DownloadError) -> DownloadError:
    if not isinstance(error, NameClashError) or task.name in error.names:
        return error
    return DownloadError(
        f"{quoted(task.key)}: not started, because other names of the same item collide."
    )
