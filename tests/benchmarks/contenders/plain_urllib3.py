"""urllib3 with its pool of connections, and nothing on top of it."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import urllib3

HEADERS = {"X-Gitlab-Token": "glpat-benchmark-0123"}


def many_files(url_list: str, folder: str, workers: str = "1") -> int:
    """Get many files."""
    with open(url_list, encoding="ascii") as file:
        urls = file.read().split()
    pool = urllib3.PoolManager(maxsize=int(workers), headers=HEADERS)

    def get(url: str) -> None:
        response = pool.request("GET", url)
        with open(os.path.join(folder, url.rpartition("/")[2]), "wb") as target:
            target.write(response.data)

    if workers == "1":
        for url in urls:
            get(url)
        return len(urls)
    with ThreadPoolExecutor(int(workers)) as threads:
        return sum(1 for _ in threads.map(get, urls))


def dicts(collection_url: str) -> int:
    """Follow the pages of a collection, and parse them."""
    pool = urllib3.PoolManager(headers=HEADERS)
    url: str | None = f"{collection_url}/items"
    count = 0
    while url is not None:
        page = json.loads(pool.request("GET", url).data)
        count += len(page["features"])
        url = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
    return count
