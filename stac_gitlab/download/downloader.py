"""STACDownloader: what users call."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Self, Unpack, get_args
from urllib.parse import quote

import pystac

from stac_gitlab.auth import URL_VARIABLE, TokenSource, hide_token
from stac_gitlab.dialects import api_url
from stac_gitlab.download.assets import DEFAULT_TEMPLATE, HasAssets, Names
from stac_gitlab.download.local_copy import CATALOG_NAME, ItemFile, LocalCatalog, OnError
from stac_gitlab.download.options import (
    AllOptions,
    DownloadOptions,
    Selection,
    checked_options,
    folder_of,
    select_or_warn,
)
from stac_gitlab.download.plan import ItemPlan, Planner, read_items
from stac_gitlab.download.progress import ProgressOption, check_progress, open_progress
from stac_gitlab.download.project import fetch_project
from stac_gitlab.download.remote_file import open_asset
from stac_gitlab.download.report import BatchReport, DownloadReport, download_error
from stac_gitlab.download.run import run_plans
from stac_gitlab.download.source import Verify
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.files.paths import relative_path
from stac_gitlab.notebook import html_fields
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import redact
from stac_gitlab.settings import (
    DEFAULT_TIMEOUT,
    RetryPolicy,
    expect,
    expect_choice,
    expect_text,
    whole_number,
)


class STACDownloader:
    """Downloads the assets of items: in parallel, verified, never half-written.

    Args:
        auth_token: A GitLab token, a function that returns one, or None for the token of the
            environment. See :class:`~stac_gitlab.GitLabStacIO`.
        base_url: URL of the SharingHub, such as ``https://hub.example.org``. The default is
            ``STAC_GITLAB_URL`` of the environment.
        stac_io: A reader whose token, servers and connections to use, instead of `auth_token` and
            `base_url`. Without any of the three, pystac's default reader is used if it is a
            GitLabStacIO.
        max_workers: How many files to download at the same time. By default, one if that keeps the
            processor busy, else 16 at first, and up to 64 while that increases the throughput.
        retry: When requests are retried.
        timeout: As for :class:`~stac_gitlab.GitLabStacIO`; None for its default.
        progress: How to report progress; see :meth:`download_assets`.

    Raises:
        ConfigurationError: If an argument is not valid, or two of them exclude each other.
    """

    def __init__(
        self,
        auth_token: TokenSource = None,
        base_url: str | None = None,
        *,
        stac_io: GitLabStacIO | None = None,
        max_workers: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | tuple[float, float] | None = None,
        progress: ProgressOption = None,
    ) -> None:
        try:
            # The type that GitLabStacIO declares is for users.
            token: Any = hide_token(auth_token)
        finally:
            del auth_token
        if max_workers is not None:
            whole_number("max_workers", max_workers, least=1)
        check_progress(progress)
        has_settings = any(value is not None for value in (token, retry, timeout))
        if stac_io is not None:
            expect("stac_io", stac_io, GitLabStacIO, wanted="a GitLabStacIO")
            if has_settings:
                raise ConfigurationError(
                    "stac_io= has a token and a retry policy of its own: pass either it or the "
                    "others."
                )
        elif base_url is None and not has_settings:
            default = pystac.StacIO.default()
            stac_io = default if isinstance(default, GitLabStacIO) else None
        timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        self.stac_io = stac_io or GitLabStacIO(
            token, base_url=base_url, retry=retry, timeout=timeout
        )
        self.base_url = base_url or os.environ.get(URL_VARIABLE) or None
        if self.base_url is not None:
            expect_text("base_url", self.base_url, wanted="a URL")
        self.max_workers, self.progress = max_workers, progress

    def __repr__(self) -> str:
        if "base_url" not in self.__dict__:
            return "<STACDownloader, not initialised>"
        server = redact(self.base_url or "any server")
        return f"<STACDownloader for {server} with {self.stac_io!r}>"

    def _repr_html_(self) -> str:
        fields = {
            "server": self.base_url or "any",
            "workers": self.max_workers or "as many as pay",
            "reader": self.stac_io,
        }
        return html_fields("STACDownloader", fields)

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
            collection: The id of the collection, for example ``dataset``.
            namespace: The group of the project, with its parent groups: ``group/subgroup``.
            project: The name of the project.

        Raises:
            ConfigurationError: If no `base_url` is known, or an argument is not text.
            HTTPStatusError: If the server responds with an error; the subclass says which.
        """
        if not self.base_url:
            raise ConfigurationError(
                "load_item needs the address of the server: pass "
                f"base_url='https://hub.example.org', or set {URL_VARIABLE}."
            )
        expect_text("collection", collection, wanted="the id of a collection")
        expect_text("namespace", namespace, wanted="the path of a group")
        expect_text("project", project, wanted="the name of a project")
        # A lone surrogate cannot be sent: the server does not find what replaces it.
        path = "/".join(quote(part.strip("/"), errors="replace") for part in (namespace, project))
        name = quote(collection, safe="", errors="replace")
        url = f"{api_url(self.base_url)}/collections/{name}/items/{path}"
        return pystac.Item.from_file(url, stac_io=self.stac_io)

    def download_assets(
        self,
        item: HasAssets,
        output_dir: str | os.PathLike[str],
        roles: Names = ("data",),
        **options: Unpack[DownloadOptions],
    ) -> DownloadReport:
        """Download the assets of an item that meet all conditions.

        Keys with slashes become sub-folders. An existing file is replaced when the new one is
        complete and verified, and is unchanged until then.

        Args:
            item: An item or collection.
            output_dir: The folder to download into. It is created if it does not exist.
            roles: Roles, of which an asset must have at least one; None for assets of any role, or
                without one.
            **options: The other options, all with a default:

                - `exclude_roles`: roles that an asset must not have.
                - `include`: globs, one of which must match the asset key.
                - `exclude`: globs, none of which may match the asset key.
                - `media_types`: media types, one of which an asset must have.
                - `alternates`: names of alternate assets that are preferred to the asset's own
                  href, the best first.
                - `overwrite`: what to do if a file exists already: ``"if-changed"`` (default)
                  downloads it again if the local or the remote file has changed; or ``"always"``,
                  ``"never"`` or ``"error"``.
                - `verify`: what to compare: True (all), ``"length"``, ``"checksum"`` or False.
                - `segments`: how many connections to use for each large file, up to 16 (default:
                  1). More than one helps if the server limits the rate of a connection and
                  supports range requests; otherwise one connection is used.
                - `fail_fast`: whether to stop at the first failure (default: False).
                - `dry_run`: whether to report only what would be downloaded, without a request
                  (default: False).
                - `portable_names`: whether to reject names that are not valid on every common
                  system (default: False).
                - `progress`: True for bars on a terminal or in a notebook, ``"force"`` for bars
                  anywhere, or an object with the methods of :class:`~stac_gitlab.Progress`.
                - `executor`: a ``concurrent.futures.Executor`` to use instead of threads of this
                  process.

        Returns:
            The result of each selected asset, by asset key.

        Raises:
            DownloadError: If an asset failed, after all others are finished. Its `errors` and
                `report` contain the details. It is a ``requests.HTTPError`` as well if all
                failures are error responses.
            ConfigurationError: If an argument is not valid.
            TypeError: If an option does not exist.
        """
        checked = self._options(roles, options)
        selected = select_or_warn(item, checked)
        planner = Planner(self.stac_io.session, output_dir, checked)
        return self._download(planner.plan(item, selected), planner, checked)

    def download_item(
        self,
        item: pystac.Item,
        output_dir: str | os.PathLike[str] | None = None,
        *,
        roles: Names = ("data",),
        on_error: OnError = "keep",
        **options: Unpack[DownloadOptions],
    ) -> DownloadReport:
        """Download an item with its assets, as a folder that can be read on its own.

        The item is written as ``{id}.json``. The hrefs of downloaded assets are relative to that
        file, and a ``derived_from`` link leads to the original item.

        Args:
            item: The item.
            output_dir: The folder to download into. The default is a new folder
                ``{project}-{timestamp}`` in the current folder.
            roles: As for :meth:`download_assets`.
            on_error: What becomes of a failed asset in the item file: ``"keep"`` (default) keeps
                its remote href, ``"remove"`` leaves it out.
            **options: As for :meth:`download_assets`.

        Returns:
            The result of each selected asset. Its `item_path` is the path of the item file.

        Raises:
            DownloadError: As for :meth:`download_assets`, after the item is written; or if it
                cannot be written.
        """
        checked = self._options(roles, options)
        expect("item", item, pystac.Item, wanted="an item")
        expect_choice("on_error", on_error, get_args(OnError))
        selected = select_or_warn(item, checked)
        portable = checked["portable_names"]
        name = relative_path(str(item.id), portable=portable)
        file_name = relative_path(f"{name}.json", portable=portable)
        if output_dir is None:
            output_dir = f"{name.rpartition('/')[2]}-{time.strftime('%Y%m%d-%H%M%S')}"
        planner = Planner(self.stac_io.session, output_dir, checked)
        planner.reserve({"the item itself": file_name})
        item_file = None
        if not checked["dry_run"]:
            item_file = ItemFile(
                item,
                file_name,
                planner.folder,
                self.stac_io.json_dumps,
                on_error=on_error,
                overwrite=checked["overwrite"],
            )
        return self._download(planner.plan(item, selected, item_file), planner, checked)

    def open(
        self, asset: pystac.Asset, *, item: pystac.Item | None = None, verify: Verify = True
    ) -> BinaryIO:
        """Open an asset for reading, without downloading it to a folder.

        If the server supports range requests, only what is read is requested. Otherwise the whole
        asset is downloaded into a temporary file. The result is seekable and buffered, for
        ``pandas.read_csv``, ``zipfile.ZipFile`` or ``json.load``.

        Args:
            asset: The asset.
            item: The item of the asset. The default is the owner that the asset names.
            verify: As for :meth:`download_assets`.

        Raises:
            DownloadError: If it cannot be opened.
            HTTPStatusError: If the server responds with an error.
            NetworkError: If the server cannot be reached.

        Example::

            with downloader.open(item.assets["data/table.csv"]) as file:
                table = pandas.read_csv(file)
        """
        return open_asset(self.stac_io.session, asset, item, verify)

    def download_project(
        self, item: pystac.Item, output_dir: str | os.PathLike[str], ref: str | None = None
    ) -> Path:
        """Download all files of an item's GitLab project, including those that are no assets.

        The archive of the repository is extracted as `output_dir` in one step, after all checks.

        Args:
            item: An item of a SharingHub, or of a catalog in a GitLab repository.
            output_dir: The folder of the project. It must not exist, or be empty.
            ref: A branch, tag or commit. The default is the default branch of the project, or the
                ref that an item in a repository was read from.

        Returns:
            The path of the folder.

        Raises:
            DownloadError: If the archive cannot be extracted, or the folder is not empty. Links
                are not extracted, with a warning.
            HTTPStatusError: If the server responds with an error.
            NetworkError: If the server cannot be reached.
            ConfigurationError: If the item comes from no project.
        """
        expect("item", item, pystac.Item, wanted="an item")
        if ref is not None:
            expect_text("ref", ref, wanted="a branch, tag or commit")
        folder = folder_of(output_dir)
        with open_progress(self.progress) as progress:
            fetch_project(self.stac_io.session, item, ref, folder, progress)
        return folder

    # -- many items -------------------------------------------------------------------------

    def download_items(
        self,
        items: Iterable[pystac.Item],
        output_dir: str | os.PathLike[str],
        *,
        template: str = DEFAULT_TEMPLATE,
        roles: Names = ("data",),
        save_json: bool = False,
        on_error: OnError = "keep",
        **options: Unpack[DownloadOptions],
    ) -> BatchReport:
        """Download the assets of many items. Items are read as they are needed.

        Args:
            items: Items, for example ``collection.get_items()``.
            output_dir: The folder to download into.
            template: The path of an asset below the folder, made of ``{collection}``, ``{id}``,
                ``{key}``, ``{year}``, ``{month}``, ``{day}``, of properties such as
                ``{properties[platform]}``, and of ``{filename}``, which consists of ``{stem}`` and
                ``{ext}``. A slash in an id, key or property makes sub-folders.
            roles: As for :meth:`download_assets`.
            save_json: Whether to write the items, their collections and a ``catalog.json`` too, as
                a static catalog of the folder that can be read without the server.
            on_error: As for :meth:`download_item`.
            **options: As for :meth:`download_assets`.

        Returns:
            A :class:`~stac_gitlab.DownloadReport` for each item, by item id. Its `catalog_path` is
            the path of the catalog.

        Raises:
            DownloadError: If an asset of any item failed, after all others are finished; or if
                reading the items failed, or one of them cannot be written.
            ConfigurationError: If the template or an option is not valid.
        """
        checked = self._options(roles, options)
        expect("items", items, Iterable, wanted="an iterable of items")
        expect_choice("on_error", on_error, get_args(OnError))
        planner = Planner(self.stac_io.session, output_dir, checked, template)
        catalog: LocalCatalog | None = None
        if save_json and not checked["dry_run"]:
            catalog = LocalCatalog(
                planner.folder,
                self.stac_io,
                on_error=on_error,
                overwrite=checked["overwrite"],
                reserve=planner.reserve,
            )
        selection = Selection(checked)

        def plan_of(item: pystac.Item) -> ItemPlan:
            item_file = None if catalog is None else catalog.add(item)
            return planner.plan(item, selection.select(item), item_file)

        reading_errors: list[Exception] = []
        reader = read_items(items, reading_errors)
        plans = map(plan_of, reader)
        taken = run_plans(self.stac_io, plans, [planner], checked, workers=self.max_workers)
        if isinstance(items, Sized) and not checked["fail_fast"]:
            # There are more if the executor broke, or the disk was full.
            unreached = [planner.plan_unreached(item, selection.select(item)) for item in reader]
            taken |= {plan.name: plan for plan in unreached}
        report = BatchReport({name: plan.report() for name, plan in taken.items()})
        writing_errors = [plan.error for plan in taken.values() if plan.error is not None]
        if catalog is not None:
            if catalog.save():
                report = replace(report, catalog_path=planner.reported(CATALOG_NAME))
            writing_errors += catalog.errors
        if reading_errors or writing_errors or not report.ok:
            error = download_error(report, reading_errors, writing_errors)
            raise error from next(iter(reading_errors), None)
        selection.warn()
        return report

    def download_collection(
        self,
        collection: pystac.Collection,
        output_dir: str | os.PathLike[str],
        *,
        template: str = DEFAULT_TEMPLATE,
        roles: Names = ("data",),
        save_json: bool = False,
        on_error: OnError = "keep",
        **options: Unpack[DownloadOptions],
    ) -> BatchReport:
        """Download the assets of all items of a collection; see :meth:`download_items`."""
        expect("collection", collection, pystac.Catalog, wanted="a collection")
        return self.download_items(
            collection.get_items(recursive=True),
            output_dir,
            template=template,
            roles=roles,
            save_json=save_json,
            on_error=on_error,
            **options,
        )

    def _options(self, roles: Names, options: DownloadOptions) -> AllOptions:
        checked = checked_options({**options, "roles": roles})
        progress = checked["progress"]
        return {**checked, "progress": self.progress if progress is None else progress}

    def _download(self, plan: ItemPlan, planner: Planner, options: AllOptions) -> DownloadReport:
        run_plans(
            self.stac_io,
            [plan],
            [planner],
            options,
            workers=self.max_workers,
            queued=len(plan.tasks),
        )
        report = plan.report()
        if plan.error is not None or not report.ok:
            raise download_error(report, writing_errors=[plan.error] if plan.error else ())
        return report
