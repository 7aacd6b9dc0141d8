"""STACDownloader: the assets of items brought home, many at a time.

What one file needs is ``transfer``'s work, planning that of ``plan``, the threads are ``crew``'s,
and many items ``batch``'s. What is left for this module is what users call.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Self, TypedDict, Unpack
from urllib.parse import quote

import pystac

from stac_gitlab.auth import URL_VARIABLE, TokenSource, hide_token
from stac_gitlab.dialects import api_url
from stac_gitlab.download.assets import HasAssets, Names
from stac_gitlab.download.plan import DEFAULT_TEMPLATE, Batch, Options, Planner, check_space
from stac_gitlab.download.pool import DownloadPool
from stac_gitlab.download.progress import ProgressOption, progress_for
from stac_gitlab.download.remote_file import open_remote
from stac_gitlab.download.report import AssetResult, BatchReport, DownloadReport
from stac_gitlab.download.source import Locator
from stac_gitlab.download.task import DownloadTask, Overwrite
from stac_gitlab.errors import (
    AssetNotFoundError,
    ConfigurationError,
    DownloadError,
    NothingToDownloadWarning,
    STACGitLabError,
)
from stac_gitlab.files.partial_file import PartialFile
from stac_gitlab.files.paths import contained_path, relative_path
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted, redact_text
from stac_gitlab.settings import RetryPolicy, expect, expect_text, path_of, whole_number

# What tells a glob from the name of an asset.
_GLOB = re.compile(r"[*?\[]")


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
    segments: int
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
        max_workers: How many files to download at a time. By default as many as pay: one where
            that keeps the processor busy, else 16 to begin with, and up to 64 while it gets faster.
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
        try:
            # The type that GitLabStacIO declares is for users.
            token: Any = hide_token(auth_token)
        finally:
            del auth_token
        if max_workers is not None:
            whole_number("max_workers", max_workers, least=1)
        if stac_io is not None:
            expect("stac_io", stac_io, GitLabStacIO, wanted="a GitLabStacIO")
        if stac_io is not None and (token is not None or retry is not None):
            raise ConfigurationError(
                "stac_io= brings its own token and retry policy: pass either it or the others."
            )
        if stac_io is None and token is None and base_url is None and retry is None:
            default = pystac.StacIO.default()
            stac_io = default if isinstance(default, GitLabStacIO) else None
        self.stac_io = stac_io or GitLabStacIO(token, base_url=base_url, retry=retry)
        self.base_url = base_url or os.environ.get(URL_VARIABLE) or None
        if self.base_url is not None:
            expect_text("base_url", self.base_url, wanted="a URL")
        self.max_workers = max_workers
        self.progress = progress

    def __repr__(self) -> str:
        if "base_url" not in self.__dict__:
            return "<STACDownloader in the making>"
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
            ConfigurationError: If no `base_url` is known, or an argument is no text.
            HTTPStatusError: If the server refuses; the subclass says why.
        """
        if not self.base_url:
            raise ConfigurationError(
                "load_item needs to know the server: pass base_url='https://hub.example.org', or "
                f"set {URL_VARIABLE}."
            )
        expect_text("collection", collection, wanted="the id of a collection")
        expect_text("namespace", namespace, wanted="the path of a group")
        expect_text("project", project, wanted="the name of a project")
        # Half a character cannot be asked for: what it becomes here is not found.
        path = "/".join(quote(part.strip("/"), errors="replace") for part in (namespace, project))
        name = quote(collection, safe="", errors="replace")
        url = f"{api_url(self.base_url)}/collections/{name}/items/{path}"
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
        segments: int = 1,
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
            segments: How many connections to use for each large file, up to 16. More than one pays
                where a server limits the speed of each connection, and needs one that can serve
                parts of a file; from any other the file comes over one connection.
            fail_fast: Whether to stop at the first failure.
            dry_run: Whether to only tell what would be downloaded, without a request.
            portable_names: Whether to refuse names that some other system could not hold.
            progress: True for bars on a terminal or in a notebook, ``"force"`` for bars anywhere,
                or an object with the methods of :class:`~stac_gitlab.Progress`.
            executor: Where to do the work, in place of threads of this process.

        Returns:
            What became of each asset, by its key.

        Raises:
            DownloadError: If any asset failed, after all others are done. Its ``errors`` and
                ``report`` tell which and why.
            ConfigurationError: If an argument makes no sense.
        """
        wishes = self._wishes(
            roles=roles,
            exclude_roles=exclude_roles,
            include=include,
            exclude=exclude,
            media_types=media_types,
            alternates=alternates,
            overwrite=overwrite,
            verify=verify,
            segments=segments,
            fail_fast=fail_fast,
            dry_run=dry_run,
            portable_names=portable_names,
            progress=progress,
            executor=executor,
        )
        chosen = _chosen(item, wishes)
        planner = Planner(self.stac_io.session, _folder(output_dir), wishes)
        return self._download(item, chosen, planner, wishes)

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
        wishes = self._wishes(**options)
        expect("item", item, pystac.Item, wanted="an item")
        chosen = _chosen(item, wishes)
        name = relative_path(str(item.id), portable=wishes.portable_names)
        relative = relative_path(f"{name}.json", portable=wishes.portable_names)
        if output_dir is None:
            output_dir = f"{name.rpartition('/')[2]}-{time.strftime('%Y%m%d-%H%M%S')}"
        planner = Planner(self.stac_io.session, _folder(output_dir), wishes)
        planner.reserve("the item itself", relative)
        if wishes.dry_run:
            return self._download(item, chosen, planner, wishes)
        try:
            path = contained_path(planner.folder, relative)
            is_there = path.exists()
        except OSError as error:
            raise DownloadError(
                f"{quoted(relative)} cannot be written to {str(planner.folder)!r}: "
                f"{error.strerror or error}."
            ) from error
        if is_there and wishes.overwrite == "error":
            raise DownloadError(
                f"{str(path)!r} exists already. Remove it, or choose another overwrite=."
            )
        report = self._download(item, chosen, planner, wishes)
        if not (is_there and wishes.overwrite == "never"):
            self._write_item(item, path, report)
        return replace(report, item_path=path)

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
        expect("asset", asset, pystac.Asset, wanted="an asset")
        owner = item or asset.owner
        if owner is None or not hasattr(owner, "assets"):
            raise ConfigurationError("This asset belongs to no item: pass item= as well.")
        key = next((key for key, a in owner.assets.items() if a is asset), None)
        if key is None:
            raise AssetNotFoundError(f"{owner!r} has no such asset as {asset!r}.")
        source, origin = Locator(self.stac_io.session).locate(owner, key, asset)
        try:
            if origin is not None:
                return origin.open("rb")
            return open_remote(self.stac_io.session, source)
        except STACGitLabError:
            raise
        except OSError as error:
            raise DownloadError(
                f"{quoted(key)}: {str(error.filename)!r} cannot be opened: "
                f"{error.strerror or error}."
            ) from error

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
        wishes = self._wishes(**options)
        expect("items", items, Iterable, wanted="items, one after the other")
        batch = Batch(self.stac_io, _folder(output_dir), template, wishes)
        return batch.run(items, workers=self.max_workers)

    def download_collection(
        self,
        collection: pystac.Collection,
        output_dir: str | os.PathLike[str],
        *,
        template: str = DEFAULT_TEMPLATE,
        **options: Unpack[DownloadOptions],
    ) -> BatchReport:
        """Download the assets of all items of a collection; see :meth:`download_items`."""
        expect("collection", collection, pystac.Catalog, wanted="a collection")
        return self.download_items(
            collection.get_items(recursive=True), output_dir, template=template, **options
        )

    # -- what they share --------------------------------------------------------------------

    def _wishes(self, **options: Unpack[DownloadOptions]) -> Options:
        wishes = Options(**options)
        return replace(wishes, progress=self.progress) if wishes.progress is None else wishes

    def _download(
        self,
        item: HasAssets,
        chosen: Mapping[str, pystac.Asset],
        planner: Planner,
        options: Options,
    ) -> DownloadReport:
        tasks, refused = planner.plan(item, chosen)
        results = {result.key: result for result in refused}

        def note(task: DownloadTask, result: AssetResult) -> None:
            results[task.key] = result

        if options.dry_run:
            for task in tasks:
                note(task, task.forecast())
        elif not (refused and options.fail_fast):
            check_space(tasks)
            with progress_for(options.progress) as progress:
                progress.expect(len(tasks), sum(task.source.size or 0 for task in tasks))
                pool = DownloadPool(
                    self.stac_io,
                    progress,
                    workers=self.max_workers,
                    executor=options.executor,
                    fail_fast=options.fail_fast,
                )
                try:
                    pool.do(tasks, note)
                finally:
                    planner.tidy_up()
        report = DownloadReport({key: results[key] for key in chosen if key in results})
        if not report.ok:
            raise _failure(report)
        return report

    def _write_item(self, item: pystac.Item, path: Path, report: DownloadReport) -> None:
        """Write an item whose hrefs lead to the files that came, and from here to all others."""
        copy = item.clone()
        for link in copy.links:
            link.target = link.get_absolute_href() or link.target
        # What is read on its own has no relatives: asking for them would take the hub, and a token.
        # The link to its collection stays: the schema demands it of an item that names one.
        for rel in ("self", "root", "parent"):
            copy.remove_links(rel)
        start = path.parent.resolve()
        for key, asset in copy.assets.items():
            if key in report.paths:
                there = os.path.relpath(report.paths[key].resolve(), start).replace(os.sep, "/")
                asset.href = there if there.startswith("../") else f"./{there}"
            else:
                asset.href = item.assets[key].get_absolute_href() or asset.href
        source = item.get_self_href()
        if source:
            copy.add_link(pystac.Link("derived_from", source, media_type="application/geo+json"))
        document = copy.to_dict(include_self_link=False, transform_hrefs=False)
        text = self.stac_io.json_dumps(document)
        text = redact_text(text)
        try:
            # A link that stands there is replaced, as with the assets: it may lead anywhere.
            with PartialFile(path) as part:
                part.write(text.encode("utf-8"))
                part.finish()
        except OSError as error:
            raise DownloadError(
                f"The assets are there, but the item cannot be written to {str(path)!r}: "
                f"{error.strerror or error}.",
                report=report,
            ) from error


def _folder(output_dir: object) -> Path:
    return Path(path_of("output_dir", output_dir, wanted="the path of a folder"))


def _chosen(item: HasAssets, options: Options) -> dict[str, pystac.Asset]:
    """Return the assets that are wanted; do not pass over in silence that there are none."""
    chosen = options.choose(item)
    include = options.include
    wanted = [include] if isinstance(include, str) else list(include or ())
    missing = [name for name in wanted if name not in item.assets and not _GLOB.search(name)]
    keys = ", ".join(map(quoted, item.assets)) or "none at all"
    if missing:
        raise AssetNotFoundError(
            f"{item!r} has no asset {', '.join(map(quoted, missing))}. Its assets: {keys}."
        )
    if not chosen:
        warnings.warn(
            f"{item!r} has no asset that fits (roles={options.roles!r}); there is nothing to "
            f"download. Its assets: {keys}.",
            NothingToDownloadWarning,
            stacklevel=3,
        )
    return chosen


def _failure(report: DownloadReport) -> DownloadError:
    errors = {result.key: result.error for result in report.failed if result.error is not None}
    named = "\n".join(f"  {quoted(key)}: {error}" for key, error in errors.items())
    return DownloadError(
        f"{len(errors)} of {len(report)} assets failed:\n{named}", errors=errors, report=report
    )
