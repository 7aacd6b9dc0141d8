"""Downloads in a Dask cluster of two processes. It is run by the Python of the test servers.

    run.py URL FOLDER MODE [ADDRESS OF THE CODE]

It prints what became of the files as JSON. The token is on standard input; only the workers have it
in their environment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask
import pystac
from distributed import Client, LocalCluster

from stac_gitlab import STACAPI, DownloadError, GitLabStacIO, STACDownloader


class Progress:
    """Counts files, and kills a worker when some are done."""

    def __init__(self, victim: int | None) -> None:
        self.counts: Counter[str] = Counter()
        self._victim = victim
        self._lock = threading.Lock()

    def expect(self, files: int, _size: int | None) -> None:
        self.counts["expected"] += files

    def advance(self, _key: str, _received: int, _total: int | None) -> None:
        pass

    def done(self, _key: str, size: int | None) -> None:
        with self._lock:
            self.counts["done"] += 1
            self.counts["bytes"] += size or 0
            if self.counts["done"] == 10 and self._victim is not None:
                os.kill(self._victim, signal.SIGKILL)


def main() -> None:
    url, folder, mode = sys.argv[1:4]
    token = sys.stdin.readline().strip()
    # With 0, the tasks of a dead worker are given up instead of repeated.
    dask.config.set({"distributed.scheduler.allowed-failures": 0 if mode == "lose" else 3})
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=8 if mode == "limited" else 2,
            dashboard_address=None,
            env={"STAC_GITLAB_TOKEN": token},
        ) as cluster,
        Client(cluster) as client,
    ):
        if mode == "page":
            os.environ["STAC_GITLAB_TOKEN"] = token
            run_page(Path(sys.argv[4]), cluster.scheduler_address)
            return
        pids: dict[str, int] = client.run(os.getpid)
        victim = min(pids.values()) if mode in ("kill", "lose") else None
        progress = Progress(victim)
        with STACDownloader(stac_io=GitLabStacIO(token, base_url=url)) as downloader:
            items = (
                limited_items(url)
                if mode == "limited"
                else list(STACAPI(f"{url}/api/stac", stac_io=downloader.stac_io).items("dataset"))
            )
            error = ""
            try:
                report: Any = downloader.download_items(
                    items, folder, roles=None, executor=client.get_executor(), progress=progress
                )
            except DownloadError as failed:
                report, error = failed.report, str(failed)
        states = Counter(result.status for each in report.values() for result in each.values())
    print(json.dumps({"states": states, "counts": progress.counts, "error": error}))


def limited_items(url: str) -> list[pystac.Item]:
    items = []
    for number in range(160):
        item = pystac.Item(f"{number}", None, None, datetime(2024, 1, 5, tzinfo=UTC), {})
        item.add_asset("a", pystac.Asset(f"{url}/limited?{number}", roles=["data"]))
        items.append(item)
    return items


def run_page(code: Path, scheduler: str) -> None:
    """Run the code of a page, whose cluster is this one."""
    text = code.read_text(encoding="utf-8").replace("tcp://scheduler.example.org:8786", scheduler)
    exec(compile(text, str(code), "exec"), {"__name__": "page"})


if __name__ == "__main__":
    main()
