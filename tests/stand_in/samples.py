"""Projects for the tests of the stand-ins, and short ways to send requests to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import requests

from stac_gitlab.testing import (
    AccessLevel,
    Project,
    Release,
    SharingHubServer,
    TokenHolder,
    User,
)
from stand_in.hub import RecordedProject

WEIGHTS = bytes(range(250)) * 4
FILES = {
    "data/a#b.csv": b"hash",
    "data/train.csv": b"x,y\n" * 500,
    "data/repository/inner.csv": b"inner",
    "data/データ.csv": b"script",
    "data/été.csv": b"summer",
    "weights/w.bin": WEIGHTS,
    "blob.bin": bytes(3000),
}
LAKES = Project(
    "group/sub/Lakes",
    FILES,
    title="Lakes of the Alps",
    readme="# Lakes\n\n![Preview](images/p.png)\n\nMany lakes.",
    lfs=("weights/*",),
    bbox=(5, 45, 15, 48),
    releases=(Release("v1"),),
)
PROJECTS = [
    LAKES,
    Project("group/both", {"x.csv": b""}, categories=("dataset", "ai-model")),
    Project("models/net", {"net.onnx": b"\0"}, categories=("ai-model",), keywords=("cnn",)),
    Project("hidden/data", {"x.csv": b"1"}, private=True, guests=("carol",), members=("bob",)),
    Project("group/orphan", categories=()),
]
TOKENS: dict[str, TokenHolder] = {
    "glpat-owner": AccessLevel.MAINTAINER,
    "glpat-bob": "bob",
    "glpat-carol": "carol",
    "glpat-dave": "dave",
    "glpat-small": User(level=AccessLevel.MAINTAINER, scopes=frozenset({"read_user"})),
}

Get = Callable[..., requests.Response]


def long_projects() -> list[Project]:
    """Twenty projects in the reverse order of their names."""
    return [
        RecordedProject(
            f"group/p-{number:02d}",
            {"x.csv": b""},
            name=f"Project {99 - number}",
            stars=number % 3,
            created=f"2020-01-{28 - number:02d}T00:00:00Z",
            updated=f"2021-01-{number * 7 % 20 + 1:02d}T00:00:00Z",
            bbox=(number, 0, number + 0.5, 1),
            keywords=("even",) if number % 2 == 0 else (),
            broken=number == 7,
            broken_preview=number == 8,
        )
        for number in range(20)
    ]


def ids(response: requests.Response) -> list[str]:
    return [feature["id"] for feature in response.json()["features"]]


def numbers(response: requests.Response) -> list[int]:
    return [int(each.rpartition("-")[2]) for each in ids(response)]


def link(document: dict[str, Any], rel: str) -> str | None:
    return next((each["href"] for each in document["links"] if each["rel"] == rel), None)


def hrefs(document: Any) -> Iterator[str]:
    """Yield all hrefs of a document, at any depth."""
    for value in document.values() if isinstance(document, dict) else document:
        if isinstance(value, dict | list):
            yield from hrefs(value)
    if isinstance(document, dict) and "href" in document:
        yield document["href"]


def ask(hub: SharingHubServer, path: str, **options: Any) -> requests.Response:
    """Send a request below the STAC API: a POST if there is JSON to send."""
    headers = {"X-Gitlab-Token": hub.token}
    url = path if path.startswith("http") else f"{hub.stac_url}{path}"
    method = "POST" if "json" in options else "GET"
    return requests.request(method, url, headers=headers, timeout=5, **options)


def walk(hub: SharingHubServer, path: str, rel: str = "next") -> list[list[int]]:
    """Follow the links of pages, and return the numbers of the projects on each."""
    pages = []
    href: str | None = path
    while href is not None:
        response = ask(hub, href)
        pages.append(numbers(response))
        href = link(response.json(), rel)
    return pages


def download(path: str, ref: str | None = "main") -> str:
    query = "" if ref is None else f"?ref={quote(ref)}"
    return f"/api/download/group/sub/lakes/repository/{quote(path)}{query}"
