"""This package, as its users write it."""

from __future__ import annotations

import hashlib

import pystac

from stac_gitlab import GitLabStacIO, STACDownloader, publish
from stac_gitlab import mirror as mirror_catalog
from stac_gitlab.reading.listing import list_items

TOKEN = "glpat-benchmark-0123"


def _reader(url: str) -> GitLabStacIO:
    return GitLabStacIO(TOKEN, base_url="/".join(url.split("/")[:3]))


def nothing() -> int:
    """Import, and do nothing."""
    return 0


def download(item_url: str, folder: str, workers: str = "") -> int:
    """Bring home all assets of an item."""
    with _reader(item_url) as stac_io:
        item = pystac.Item.from_file(item_url, stac_io=stac_io)
        downloader = STACDownloader(stac_io=stac_io, max_workers=int(workers) if workers else None)
        return len(downloader.download_assets(item, folder, roles=None).paths)


def project(item_url: str, folder: str) -> int:
    """Bring home the archive of an item's project."""
    with _reader(item_url) as stac_io:
        item = pystac.Item.from_file(item_url, stac_io=stac_io)
        path = STACDownloader(stac_io=stac_io).download_project(item, f"{folder}/project")
        return sum(1 for _ in path.iterdir())


def in_segments(item_url: str, folder: str, segments: str) -> int:
    """Bring home the one large asset of an item, over several connections."""
    with _reader(item_url) as stac_io:
        item = pystac.Item.from_file(item_url, stac_io=stac_io)
        downloader = STACDownloader(stac_io=stac_io)
        report = downloader.download_assets(item, folder, roles=None, segments=int(segments))
        return len(report.paths)


def objects(collection_url: str) -> int:
    """Walk through the items of a collection."""
    with _reader(collection_url) as stac_io:
        pystac.StacIO.set_default(stac_io)
        return sum(1 for _ in pystac.Catalog.from_file(collection_url).get_items())


def dicts(collection_url: str) -> int:
    """Walk through the items of a collection as dictionaries."""
    with _reader(collection_url) as stac_io:
        return sum(1 for _ in list_items(stac_io, f"{collection_url}/items"))


def mirror(collection_url: str, folder: str) -> int:
    """Mirror a collection without the assets of its items."""
    with _reader(collection_url) as stac_io:
        report = mirror_catalog(collection_url, folder, assets=False, stac_io=stac_io)
        return report.new + report.unchanged


def publish_folder(source: str, server: str, token: str, folder: str) -> int:
    """Publish a folder to a project of its own for each `folder`, and return the commits."""
    name = hashlib.sha256(folder.encode()).hexdigest()[:16]
    with GitLabStacIO(token, base_url=server) as stac_io:
        project = f"{server}/alpine/p{name}"
        report = publish(source, project, create_project=True, stac_io=stac_io)
        return len(report.commits)
