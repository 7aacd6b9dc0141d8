"""This package, in a Dask cluster of two processes."""

from __future__ import annotations

import os
import signal

import pystac
from distributed import Client, LocalCluster

from stac_gitlab import GitLabStacIO, STACDownloader

TOKEN = "glpat-benchmark-0123"


class Killer:
    """Progress that kills a worker when a quarter of the files is done."""

    def __init__(self, victim: int, files: int) -> None:
        self._victim = victim
        self._left = files // 4

    def expect(self, _files: int, _size: int | None) -> None: ...

    def advance(self, _key: str, _received: int, _total: int | None) -> None: ...

    def done(self, _key: str, _size: int | None) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(self._victim, signal.SIGKILL)


def download(item_url: str, folder: str, kill: str = "") -> int:
    """Bring home the assets of an item as items of one asset each."""
    server = "/".join(item_url.split("/")[:3])
    token = {"STAC_GITLAB_TOKEN": TOKEN}
    with (
        LocalCluster(n_workers=2, threads_per_worker=8, dashboard_address=None, env=token) as nodes,
        Client(nodes) as client,
        STACDownloader(stac_io=GitLabStacIO(TOKEN, base_url=server)) as downloader,
    ):
        whole = pystac.Item.from_file(item_url, stac_io=downloader.stac_io)
        items = list(_items_of_one_asset(whole))
        victim = min(client.run(os.getpid).values())
        report = downloader.download_items(
            items,
            folder,
            roles=None,
            executor=client.get_executor(),
            progress=Killer(victim, len(items)) if kill else None,
        )
        return sum(len(each.paths) for each in report.values())


def _items_of_one_asset(whole: pystac.Item):
    for number, (key, asset) in enumerate(whole.assets.items()):
        item = pystac.Item(f"item{number:05}", None, None, whole.datetime, {})
        item.add_asset(key, pystac.Asset(asset.href, roles=asset.roles))
        yield item
