"""One run of a mirror: what the server lists, compared with what the index holds."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pystac

from stac_gitlab.catalogs.mirror_documents import (
    Place,
    as_text,
    catalog_document,
    item_document,
    make_absolute,
    write_catalog,
)
from stac_gitlab.catalogs.mirror_index import CATALOG, ITEM, Entry, MirrorIndex
from stac_gitlab.catalogs.mirror_writer import ItemFile, ItemWriter
from stac_gitlab.download.options import AllOptions, Selection
from stac_gitlab.download.plan import ItemPlan, Planner
from stac_gitlab.download.run import run_plans
from stac_gitlab.errors import DownloadError, STACGitLabError
from stac_gitlab.files.partial_file import OWN_PREFIX
from stac_gitlab.files.paths import contained_path, is_local, is_web, relative_path
from stac_gitlab.notebook import file_link, html_fields, listing
from stac_gitlab.reading.documents import digest_of
from stac_gitlab.reading.listing import is_readable, item_pages, report_bad_member
from stac_gitlab.reading.members import items_endpoint_of, linked_items
from stac_gitlab.reading.objects import id_of, item_of, saved_item
from stac_gitlab.reading.refused_pages import PartialItem, UnreadableItem
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted, redact, strip_token_parameters

MAX_LISTED = 1000
"""Ids and errors that a report names."""

# Items whose assets are downloaded together, and whose files are written together. Their documents
# are in memory.
_BATCH = 64
# The beginning of the digest of an item in a short form.
_PARTIAL = b"partial:"


@dataclass(frozen=True)
class MirrorReport:
    """What :func:`mirror` found and did.

    Attributes:
        catalog_path: The path of the catalog. pystac reads it without the server.
        new: The number of items that were not in the mirror.
        changed: The number of items whose metadata or files were different.
        unchanged: The number of items that are the same.
        gone: The number of items of the mirror that the server no longer lists.
        failed: The number of items of which something is missing. The next run tries them again.
        is_complete: Whether all that the server lists was read. If not, only those items are gone
            whose list was complete, apart from items that cannot be read.
        ids: The ids of the items, by ``new``, ``changed``, ``gone`` and ``failed``; the first 1000
            of each.
        errors: The errors, by ``{item id}: {asset key}`` or item id; the first 1000.
    """

    catalog_path: Path
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0
    failed: int = 0
    is_complete: bool = True
    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    errors: Mapping[str, Exception] = field(default_factory=dict)

    def __str__(self) -> str:
        names = ("new", "changed", "unchanged", "gone", "failed")
        counts = ", ".join(f"{getattr(self, name)} {name}" for name in names)
        return counts if self.is_complete else f"{counts}, incomplete"

    def __repr__(self) -> str:
        return f"<MirrorReport of {str(self.catalog_path)!r}: {self}>"

    def _repr_html_(self) -> str:
        fields: dict[str, object] = {"catalog": file_link(self.catalog_path), "items": str(self)}
        for status, ids in self.ids.items():
            fields[status] = listing(ids, getattr(self, status))
        fields |= itertools.islice(self.errors.items(), 3)
        return html_fields("MirrorReport", fields)


@dataclass
class _Job:
    """An item that is written when its assets are there.

    Attributes:
        entry: The item in the mirror.
        place: The catalog that it is in.
        url: The URL of the original.
        document: The document of the original, of the latest version, with absolute hrefs.
        digest: The digest of the original.
        status: ``new``, ``changed`` or ``unchanged``.
    """

    entry: Entry
    place: Place
    url: str
    document: dict[str, Any]
    digest: bytes
    status: str


_Finished = tuple[_Job, Mapping[str, str], Mapping[str, Exception]]


class MirrorRun:
    """One run of a mirror.

    Attributes:
        is_complete: Whether nothing is known to be missing.
    """

    def __init__(
        self,
        stac_io: GitLabStacIO,
        folder: Path,
        index: MirrorIndex,
        writer: ItemWriter,
        options: AllOptions,
        *,
        assets: bool,
        max_items: int | None,
        prune: bool,
    ) -> None:
        self.is_complete = True
        # Whether all ids are known that the server lists. Items that cannot be read are among them.
        self._is_listed = True
        self._known_omissions = 0
        self._stac_io = stac_io
        # The current folder may change; reports name the folder as the caller did.
        self._folder, self._reported = folder.absolute(), folder
        self._index = index
        self._options = options
        self._assets = assets
        self._left = max_items
        self._prune = prune
        self._selection = Selection(options)
        self._batch: list[_Job] = []
        self._writer = writer
        self._finished: list[_Finished] = []
        self._visited: set[int] = set()
        self._root_path = "catalog.json"
        self._counts: Counter[str] = Counter()
        self._ids: dict[str, list[str]] = defaultdict(list)
        self._errors: dict[str, Exception] = {}

    # -- the walk ---------------------------------------------------------------------------

    def take(self, catalog: pystac.Catalog, parent: Place | None = None) -> None:
        """Bring a catalog with all that it lists into the mirror.

        Raises:
            STACGitLabError: If it cannot be read to its end.
            pystac.STACError: The same, from a link that pystac resolves.
        """
        place = self._add_catalog(catalog, parent)
        if place.entry.number in self._visited:
            return
        self._visited.add(place.entry.number)
        before, known = self._stac_io.omissions, self._known_omissions
        try:
            all_taken = self._take_items(catalog, place)
        except (STACGitLabError, pystac.STACError):
            self._finish_batch()
            raise
        self._finish_batch()
        children = list(catalog.get_children())
        omissions = self._stac_io.omissions - before
        is_listed = all_taken and omissions == self._known_omissions - known
        for child in children:
            self.take(child, place)
        if is_listed:
            self._index.completed(place.entry)
        self._is_listed &= is_listed
        self.is_complete &= is_listed and not omissions

    def _add_catalog(self, catalog: pystac.Catalog, parent: Place | None) -> Place:
        name = str(catalog.id)
        source = "" if parent is None else without_secrets(catalog.get_self_href() or "")
        above = 0 if parent is None else parent.entry.number
        entry = self._index.find(above, CATALOG, name, source) or self._index.add(
            None if parent is None else parent.entry, CATALOG, name, source, file_of(catalog)
        )
        if parent is None:
            self._root_path = entry.path
        is_collection = isinstance(catalog, pystac.Collection)
        place = Place(entry, name if is_collection else None, parent)
        document = catalog_document(catalog, place, parent)
        self._index.described(entry, as_text(document, self._stac_io.json_dumps))
        return place

    def _take_items(self, catalog: pystac.Catalog, place: Place) -> bool:
        """Take the items that a catalog links to, and those that an API lists.

        Returns:
            Whether all were taken.
        """
        if self._left == 0:
            return False
        linked: set[str] = set()
        url = items_endpoint_of(catalog)
        for href, document in linked_items(catalog, self._stac_io):
            if not self._may_take():
                return False
            if url is not None:
                linked.add(str(document["id"]))
            self._take_item(place, document, href, without_secrets(href))
        if url is None:
            return True
        pages = item_pages(self._stac_io, url)
        for document in pages.listed(partial(self._is_readable, place), limit=self._left):
            if str(document["id"]) not in linked:
                if not self._may_take():
                    return False
                self._take_item(place, document, self._url_of(document, url), "")
        return pages.is_complete

    def _is_readable(self, place: Place, listed: Any, url: str) -> bool:
        if is_readable(self._stac_io, listed, url):
            return True
        name = listed.item_id if isinstance(listed, UnreadableItem) else id_of(listed)
        if name is not None:
            self._keep(place, str(name), "")
        return False

    def _keep(self, place: Place, item_id: str, source: str) -> None:
        """Note that an item is still there, though it cannot be read."""
        self._known_omissions += 1
        held = self._index.find(place.entry.number, ITEM, item_id, source)
        if held is not None:
            self._index.seen(held)

    def _may_take(self) -> bool:
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0

    def _url_of(self, document: Mapping[str, Any], items_url: str) -> str:
        for link in document.get("links") or ():
            if link.get("rel") == "self" and is_web(link.get("href")):
                return str(link["href"])
        listed_at = urlunsplit(urlsplit(items_url)._replace(query="", fragment=""))
        return self._stac_io.session.dialect_of(items_url).item_url(listed_at, str(document["id"]))

    def _take_item(self, place: Place, document: dict[str, Any], url: str, source: str) -> None:
        item_id = str(document["id"])
        digest = digest_of(document)
        held = self._index.find(place.entry.number, ITEM, item_id, source)
        is_partial = isinstance(document, PartialItem)
        if is_partial:
            digest = _PARTIAL + digest
        has_file = held is not None and self._has_file(held)
        is_same = has_file and held is not None and held.digest == digest
        # An item of which the server gives a short form only stays as it was.
        is_kept = is_partial and has_file and held is not None and _is_whole(held)
        if held is not None and (is_kept or (is_same and not self._assets)):
            self._index.seen(held)
            self._counts["unchanged"] += 1
            return
        try:
            document = saved_item(document, self._stac_io, "" if is_local(url) else url)
            make_absolute(document, url)
        except (STACGitLabError, ValueError) as error:
            report_bad_member(self._stac_io, error, f"the item {quoted(item_id)}")
            self._keep(place, item_id, source)
            return
        status = "unchanged" if is_same else "new" if _is_new(held) else "changed"
        entry = held or self._index.add(place.entry, ITEM, item_id, source)
        job = _Job(entry, place, url, document, digest, status)
        if not self._assets:
            self._write(job, {}, {})
            return
        self._batch.append(job)
        if len(self._batch) >= _BATCH:
            self._finish_batch()

    def _has_file(self, entry: Entry) -> bool:
        try:
            return os.stat(os.path.join(self._folder, entry.path)).st_size == entry.size
        except OSError:
            return False

    # -- assets -----------------------------------------------------------------------------

    def _finish_batch(self) -> None:
        """Download the assets of the items that wait for them, and write the items."""
        jobs, self._batch = self._batch, []
        planners: list[Planner] = []
        plans: list[ItemPlan] = []
        for job, name in zip(jobs, _names(jobs), strict=True):
            item = item_of(
                copy.deepcopy({**job.document, "links": [{"rel": "self", "href": job.url}]}),
                self._stac_io,
                job.url,
            )
            selected = self._selection.select(item)
            folder = self._folder.joinpath(*job.entry.folder.split("/"))
            planners.append(Planner(self._stac_io.session, folder, self._options, name=name))
            plan = planners[-1].plan(item, selected)
            if selected:
                # Its folder is no link that leads out of the mirror.
                contained_path(self._folder, f"{job.entry.folder}/{OWN_PREFIX}")
            plans.append(plan)
        if plans:
            run_plans(self._stac_io, plans, planners, self._options)
        for job, plan in zip(jobs, plans, strict=True):
            report = plan.report()
            files = {
                key: path.relative_to(self._folder).as_posix() for key, path in report.paths.items()
            }
            if report.downloaded and job.status == "unchanged":
                job.status = "changed"
            errors = {r.key: r.error or DownloadError(r.key) for r in report.failed}
            self._write(job, files, errors)
        self._write_finished()

    # -- files ------------------------------------------------------------------------------

    def _write(self, job: _Job, files: Mapping[str, str], errors: Mapping[str, Exception]) -> None:
        """Write the file of an item, together with others."""
        self._finished.append((job, files, errors))
        if len(self._finished) >= _BATCH:
            self._write_finished()

    def _write_finished(self) -> None:
        """Write the files of the items that wait for it."""
        finished, self._finished = self._finished, []
        written = self._writer.write([_file_of(job, files) for job, files, _ in finished])
        for (job, files, errors), result in zip(finished, written, strict=True):
            name, size = job.entry.id, None
            for key, error in errors.items():
                self._add_error(f"{name}: {key}", error)
            if isinstance(result, DownloadError):
                self._add_error(name, result)
            else:
                size = result
            failed = size is None or bool(errors)
            self._index.saved(job.entry, None if failed else job.digest, size)
            self._count(job.status, name)
            if failed:
                self._count("failed", name)
            elif self._assets and self._prune:
                self._remove_outdated(job.entry, set(files.values()))

    def _remove_outdated(self, entry: Entry, files: set[str]) -> None:
        """Remove the files of assets that an item no longer has."""
        for parent, _, names in os.walk(self._folder.joinpath(*entry.folder.split("/"))):
            for name in names:
                path = Path(parent, name)
                if (
                    not name.startswith(OWN_PREFIX)
                    and path.relative_to(self._folder).as_posix() not in files
                ):
                    path.unlink(missing_ok=True)

    # -- the end ----------------------------------------------------------------------------

    def finish(self, *, failed: bool) -> MirrorReport:
        """Write the catalogs, remove what is gone if asked to, and return the report.

        Args:
            failed: Whether an error ended the run early.
        """
        self.is_complete &= not failed
        self._is_listed &= not failed
        self._counts["gone"] = self._index.find_gone()
        gone = (entry.id for entry in self._index.gone() if entry.kind == ITEM)
        self._ids["gone"] = list(itertools.islice(gone, MAX_LISTED))
        prune = self._prune and self._is_listed
        for catalog, document in self._index.catalogs():
            members = self._index.members(catalog, without_gone=prune)
            write_catalog(self._folder, catalog, document, members)
        if prune:
            for entry in self._index.gone():
                self._remove(entry)
            self._index.remove_gone()
        if self._assets and self.is_complete:
            self._selection.warn()
        return MirrorReport(
            self._reported / self._root_path,
            **{name: self._counts[name] for name in ("new", "changed", "unchanged", "gone")},
            failed=self._counts["failed"],
            is_complete=self.is_complete,
            ids={name: tuple(ids) for name, ids in self._ids.items() if ids},
            errors=self._errors,
        )

    def _remove(self, entry: Entry) -> None:
        path = relative_path(entry.path)
        # The folder of a catalog that is gone may be removed already.
        if self._folder.joinpath(path).parent.is_dir():
            contained_path(self._folder, path).unlink(missing_ok=True)
            shutil.rmtree(self._folder.joinpath(*entry.folder.split("/")), ignore_errors=True)

    def _count(self, status: str, name: str) -> None:
        self._counts[status] += 1
        if status != "unchanged" and len(self._ids[status]) < MAX_LISTED:
            self._ids[status].append(name)

    def _add_error(self, name: str, error: Exception) -> None:
        if len(self._errors) < MAX_LISTED:
            self._errors[name] = error


def _file_of(job: _Job, files: Mapping[str, str]) -> ItemFile:
    document = item_document(job.document, job.url, job.place, job.entry.path, files)
    return ItemFile(job.entry.path, document, is_new=job.entry.size is None)


def _names(jobs: Iterable[_Job]) -> Iterator[str]:
    """Yield different names for some items in messages: their ids, or else their paths."""
    taken: set[str] = set()
    for job in jobs:
        name = job.entry.path if job.entry.id in taken else job.entry.id
        taken.add(name)
        yield name


def _is_whole(held: Entry) -> bool:
    return held.digest is not None and not held.digest.startswith(_PARTIAL)


def _is_new(held: Entry | None) -> bool:
    return held is None or held.size is None


def file_of(catalog: pystac.Catalog) -> str:
    """Return the name of the file of a catalog or collection."""
    return "collection.json" if isinstance(catalog, pystac.Collection) else "catalog.json"


def without_secrets(href: str) -> str:
    """Return an href that can stand in a file."""
    return redact(strip_token_parameters(href))
