"""requests, as the SharingHub guide for clients uses it, and with what experience adds."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import requests

HEADERS = {"X-Gitlab-Token": "glpat-benchmark-0123"}


def guide(url_list: str, folder: str) -> int:
    """Get files one after the other, each into memory first, as the guide shows."""
    with open(url_list, encoding="ascii") as file:
        urls = file.read().split()
    for url in urls:
        response = requests.get(url, headers=HEADERS)
        response.raise_for_status()
        with open(os.path.join(folder, url.rpartition("/")[2]), "wb") as target:
            target.write(response.content)
    return len(urls)


def streamed(url: str, path: str) -> int:
    """Get one file in chunks of 1 MiB."""
    with requests.get(url, headers=HEADERS, stream=True) as response, open(path, "wb") as target:
        response.raise_for_status()
        target.writelines(response.iter_content(2**20))
    return 1


def sessions(url_list: str, folder: str, workers: str) -> int:
    """Get many files with a session for each of the workers."""
    with open(url_list, encoding="ascii") as file:
        urls = file.read().split()
    local = threading.local()

    def get(url: str) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        response = local.session.get(url, headers=HEADERS)
        response.raise_for_status()
        with open(os.path.join(folder, url.rpartition("/")[2]), "wb") as target:
            target.write(response.content)

    with ThreadPoolExecutor(int(workers)) as pool:
        return sum(1 for _ in pool.map(get, urls))


def dicts(collection_url: str) -> int:
    """Follow the pages of a collection, and parse them."""
    url: str | None = f"{collection_url}/items"
    count = 0
    with requests.Session() as session:
        while url is not None:
            page = session.get(url, headers=HEADERS).json()
            count += len(page["features"])
            url = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
    return count
