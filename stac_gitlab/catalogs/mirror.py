"""A local, self-contained STAC catalog of an API or a static catalog, kept up to date.

Items are taken one by one and compared by their digests. Only those that differ are written.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pystac

from stac_gitlab.catalogs.mirror_index import MirrorIndex
from stac_gitlab.catalogs.mirror_run import (
    MirrorReport,
    MirrorRun,
    file_of,
    without_secrets,
)
from stac_gitlab.catalogs.mirror_writer import ItemWriter
from stac_gitlab.download.assets import Names
from stac_gitlab.download.local_copy import read_existing
from stac_gitlab.download.options import checked_options, folder_of
from stac_gitlab.download.progress import ProgressOption, open_progress
from stac_gitlab.errors import ConfigurationError, DownloadError, STACGitLabError
from stac_gitlab.reading.stac_io import GitLabStacIO, default_reader, reader_of
from stac_gitlab.redaction import quoted
from stac_gitlab.settings import expect, path_of, whole_number


def mirror(
    catalog: pystac.Catalog | str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    roles: Names = ("data",),
    include: Names = None,
    assets: bool = True,
    max_items: int | None = None,
    prune: bool = False,
    stac_io: GitLabStacIO | None = None,
    progress: ProgressOption = None,
) -> MirrorReport:
    """Make a local copy of a catalog that needs no server, or bring such a copy up to date.

    Run it again to bring what is new and what has changed. A run that was interrupted continues in
    the same way: what has arrived is not requested again, except the lists of items.

    Args:
        catalog: An API, a collection or a static catalog: a pystac object, or its URL or path.
        output_dir: The folder of the mirror.
        roles: The roles of the assets to download; None for assets of any role.
        include: Globs, one of which must match the asset key.
        assets: Whether to download assets. Others keep their remote href.
        max_items: The maximum number of items over all catalogs; None for all.
        prune: Whether to remove what the server no longer lists. Nothing is removed if a list was
            incomplete. A listed item that cannot be read stays.
        stac_io: The reader. The default is that of `catalog`, or pystac's default reader if it is a
            `GitLabStacIO`, or else a new one.
        progress: How to report the progress of the assets, as for `STACDownloader`.

    Returns:
        What was new, changed, unchanged and gone.

    Raises:
        ConfigurationError: If an argument makes no sense, or the folder is the mirror of another
            catalog, or in use.
        DownloadError: If an asset or a file of an item failed, after all others are finished. Its
            `report` is the `MirrorReport`.
        STACGitLabError: If the catalog cannot be read to its end. What was read is in the mirror.

    Example:
        >>> report = mirror("https://hub.example.org/api/stac", "hub")  # doctest: +SKIP
        >>> pystac.Catalog.from_file("hub/catalog.json").describe()  # doctest: +SKIP
    """
    if max_items is not None:
        whole_number("max_items", max_items, least=0)
    if stac_io is not None:
        expect("stac_io", stac_io, GitLabStacIO, wanted="a GitLabStacIO")
    options = checked_options({"roles": roles, "include": include, "progress": progress})
    folder = folder_of(output_dir)
    root = _root(catalog, stac_io)
    own = reader_of(root) or default_reader()
    with (
        open_progress(options["progress"]) as shown,
        _opened_index(folder, root) as index,
        ItemWriter(folder.absolute(), own.json_dumps) as writer,
    ):
        options["progress"] = shown
        run = MirrorRun(
            own,
            folder,
            index,
            writer,
            options,
            assets=assets,
            max_items=max_items,
            prune=prune,
        )
        failure: Exception | None = None
        try:
            run.take(root)
        except (STACGitLabError, pystac.STACError) as error:
            failure = error
        report = run.finish(failed=failure is not None)
    if failure is not None:
        raise failure
    if report.errors:
        examples = [f"  {name}: {e}" for name, e in itertools.islice(report.errors.items(), 3)]
        raise DownloadError(
            f"{report.failed} items of the mirror {str(folder)!r} are incomplete. Run mirror() "
            "again to try them again.\n" + "\n".join(examples),
            errors=report.errors,
            report=report,
        )
    return report


def _root(catalog: Any, stac_io: GitLabStacIO | None) -> pystac.Catalog:
    """Return the catalog, read through the reader."""
    if not isinstance(catalog, pystac.Catalog):
        wanted = "a catalog, or its URL or path"
        href = path_of("catalog", catalog, wanted=wanted)
        return pystac.Catalog.from_file(href, stac_io=stac_io or default_reader())
    own = reader_of(catalog)
    if own is not None and stac_io in (None, own):
        return catalog
    found = catalog.get_self_href()
    if found is None:
        raise ConfigurationError(
            f"The catalog {quoted(str(catalog.id))} has no self link, so there is nothing to read "
            "again. Save it first: catalog.normalize_and_save(folder)."
        )
    return pystac.Catalog.from_file(found, stac_io=stac_io or default_reader())


def _opened_index(folder: Path, root: pystac.Catalog) -> MirrorIndex:
    source = without_secrets(root.get_self_href() or str(root.id)).rstrip("/")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"The folder {str(folder)!r} cannot be created: {error.strerror or error}."
        ) from error
    index = MirrorIndex(folder, source)
    if index.is_new:
        links = read_existing(folder, file_of(root)).get("links", ())
        origins = [link.get("href") for link in links if link.get("rel") == "derived_from"]
        if links and source not in [str(origin).rstrip("/") for origin in origins]:
            index.discard()
            raise ConfigurationError(
                f"{str(folder)!r} has another catalog already. Choose another folder."
            )
    return index
