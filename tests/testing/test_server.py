"""The SharingHub stand-in does what a real server was seen to do, beyond what was recorded."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import itertools
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pystac
import pytest
import requests

from stac_gitlab.testing import (
    AccessLevel,
    Category,
    Fault,
    GitLabServer,
    Project,
    ProjectSeries,
    Release,
    SharingHubServer,
    TokenHolder,
    User,
    generated_projects,
)
from stac_gitlab.testing.downloads import Compression
from stac_gitlab.testing.exchange import Headers, RecordedRequest

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
BOTH = Project("group/both", {"x.csv": b""}, categories=("dataset", "ai-model"))
MODEL = Project("models/net", {"net.onnx": b"\0"}, categories=("ai-model",), keywords=("cnn",))
HIDDEN = Project("hidden/data", {"x.csv": b"1"}, private=True, guests=("carol",), members=("bob",))
ORPHAN = Project("group/orphan", categories=())
PROJECTS = [LAKES, BOTH, MODEL, HIDDEN, ORPHAN]

Get = Callable[..., requests.Response]


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    tokens: dict[str, TokenHolder] = {
        "glpat-owner": AccessLevel.MAINTAINER,
        "glpat-bob": "bob",
        "glpat-carol": "carol",
        "glpat-dave": "dave",
        "glpat-small": User(level=AccessLevel.MAINTAINER, scopes=frozenset({"read_user"})),
    }
    with SharingHubServer(PROJECTS, tokens=tokens) as running:
        yield running


@pytest.fixture
def get(hub: SharingHubServer) -> Iterator[Get]:
    """GET below the server's address, as the owner unless told otherwise."""
    with requests.Session() as session:
        session.trust_env = False

        def ask(
            path: str, token: str | None = "glpat-owner", method: str = "GET", **options: Any
        ) -> requests.Response:
            headers = {"Accept-Encoding": "identity", **options.pop("headers", {})}
            if token:
                headers["X-Gitlab-Token"] = token
            url = path if path.startswith("http") else hub.url + path
            return session.request(method, url, headers=headers, timeout=5, **options)

        yield ask


def ids(response: requests.Response) -> list[str]:
    return [feature["id"] for feature in response.json()["features"]]


def link(document: dict[str, Any], rel: str) -> str | None:
    return next((each["href"] for each in document["links"] if each["rel"] == rel), None)


def hrefs(document: Any) -> Iterator[str]:
    """Every href of a document, at any depth."""
    for value in document.values() if isinstance(document, dict) else document:
        if isinstance(value, dict | list):
            yield from hrefs(value)
    if isinstance(document, dict) and "href" in document:
        yield document["href"]


# Tokens


@pytest.mark.parametrize("path", ["", "/", "/collections", "/collections/dataset"])
def test_a_bad_token_opens_what_needs_no_gitlab(get: Get, path: str) -> None:
    assert get(f"/api/stac{path}", "glpat-wrong").status_code == 200
    assert get(f"/api/stac{path}", None).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/collections/dataset/items",
        "/collections/dataset/items/group/both",
        "/search?collections=dataset",
    ],
)
@pytest.mark.parametrize("token", ["glpat-wrong", "glpat-small"])
def test_a_bad_token_opens_nothing_that_needs_gitlab(get: Get, path: str, token: str) -> None:
    response = get(f"/api/stac{path}", token)
    assert response.status_code == 401
    assert "Invalid token" in response.json()["detail"]
    assert "WWW-Authenticate" not in response.headers


def test_conformance_needs_no_token(get: Get) -> None:
    assert get("/api/stac/conformance", None).status_code == 200


@pytest.mark.parametrize("header", ["Authorization", "PRIVATE-TOKEN"])
def test_gitlabs_own_headers_are_no_token(get: Get, header: str) -> None:
    response = get("/api/stac/collections", None, headers={header: "Bearer glpat-owner"})
    assert response.status_code == 401


def test_the_token_in_the_query_beats_the_header(get: Get) -> None:
    path = "/api/stac/collections/dataset/items?gitlab_token="
    assert get(f"{path}glpat-owner", "glpat-wrong").status_code == 200
    assert get(f"{path}glpat-wrong", "glpat-owner").status_code == 401


def test_a_token_in_the_header_is_written_into_links_to_files_only(get: Get) -> None:
    item = get("/api/stac/collections/dataset/items/group/sub/lakes").json()
    for href in hrefs(item):
        assert ("gitlab_token=glpat-owner" in href) == ("/api/download/" in href), href
    assert "p.png?ref=main&cache=300&gitlab_token=glpat-owner)" in item["properties"]["description"]


def test_a_token_in_the_query_is_written_into_every_link(get: Get, hub: SharingHubServer) -> None:
    for path in ("", "/collections", "/collections/dataset", "/collections/dataset/items?limit=1"):
        query = f"{'&' if '?' in path else '?'}gitlab_token=glpat-owner"
        document = get(f"/api/stac{path}{query}", None).json()
        for href in hrefs(document):
            if href.startswith(hub.stac_url):
                assert "gitlab_token=glpat-owner" in href, href


def test_a_public_server_answers_without_a_token() -> None:
    with SharingHubServer(PROJECTS, public=True) as hub:
        url = f"{hub.stac_url}/collections/dataset/items"
        page = requests.get(url, timeout=5)
        assert "hidden/data" not in ids(page)
        assert "gitlab_token" not in page.text
        item = f"{hub.url}/api/download/group/both/repository/x.csv?ref=main"
        assert requests.get(item, timeout=5).status_code == 200
        wrong = requests.get(url, headers={"X-Gitlab-Token": "wrong"}, timeout=5)
        assert wrong.status_code == 401


def test_a_revoked_token_is_invalid(get: Get, hub: SharingHubServer) -> None:
    del hub.users["glpat-owner"]
    assert get("/api/stac/collections/dataset/items").status_code == 401


@pytest.mark.parametrize(
    ("token", "item", "download"),
    [
        ("glpat-owner", 200, 200),
        ("glpat-bob", 200, 200),
        ("glpat-carol", 200, 403),
        ("glpat-dave", 404, 404),
        ("glpat-small", 401, 403),
        ("glpat-wrong", 401, 401),
        (None, 401, 401),
    ],
)
def test_who_may_see_a_private_project(
    get: Get, token: str | None, item: int, download: int
) -> None:
    assert get("/api/stac/collections/dataset/items/hidden/data", token).status_code == item
    path = "/api/download/hidden/data/repository/x.csv?ref=main"
    assert get(path, token).status_code == download


def test_a_guest_sees_an_item_without_assets(get: Get) -> None:
    item = get("/api/stac/collections/dataset/items/hidden/data", "glpat-carol").json()
    assert item["assets"] == {}
    assert item["properties"]["sharinghub:access-level"] == AccessLevel.GUEST


def test_a_listing_shows_what_the_caller_may_see(get: Get) -> None:
    path = "/api/stac/collections/dataset/items"
    assert "hidden/data" in ids(get(path, "glpat-carol"))
    assert "hidden/data" not in ids(get(path, "glpat-dave"))
    assert get(path, "glpat-dave").json()["numberMatched"] == 2


def test_every_caller_without_a_token_of_their_own_gets_the_same_one() -> None:
    assert SharingHubServer().token == SharingHubServer().token
    assert SharingHubServer(token="mine").token == "mine"


# Names and addresses


def test_links_name_the_server_as_it_was_called(get: Get, hub: SharingHubServer) -> None:
    other = f"http://localhost:{hub.port}"
    root = get("/api/stac", headers={"Host": f"localhost:{hub.port}"}).json()
    assert link(root, "self") == f"{other}/api/stac/"
    secure = get("/api/stac", headers={"X-Forwarded-Proto": "https"}).json()
    assert link(secure, "self") == f"https://127.0.0.1:{hub.port}/api/stac/"


def test_the_api_may_be_elsewhere() -> None:
    with SharingHubServer([LAKES], base_path="/hub/api/stac") as hub:
        headers = {"X-Gitlab-Token": hub.token}
        assert hub.stac_url == f"{hub.url}/hub/api/stac"
        item = requests.get(hub.item_url("group/sub/Lakes"), headers=headers, timeout=5).json()
        href = item["assets"]["data/train.csv"]["href"]
        assert href.startswith(f"{hub.url}/hub/api/download/")
        assert requests.get(href, timeout=5).content == FILES["data/train.csv"]


@pytest.mark.parametrize("path", ["group/sub/Lakes", "group%2Fsub%2FLakes", "GROUP/sub/lakes"])
def test_an_item_is_found_however_its_id_is_written(get: Get, path: str) -> None:
    item = get(f"/api/stac/collections/dataset/items/{path}").json()
    assert item["id"] == "group/sub/Lakes"
    assert (link(item, "self") or "").endswith("/items/group/sub/Lakes")


def test_a_slash_too_many_is_redirected_or_no_id(get: Get) -> None:
    response = get("/api/stac/collections/?x=1", allow_redirects=False)
    assert response.status_code == 307
    assert response.headers["location"].endswith("/api/stac/collections?x=1")
    response = get("/api/stac/collections/dataset/items/")
    assert (response.status_code, response.json()["detail"]) == (400, "No feature ID given")


def test_hrefs_are_not_quoted(get: Get) -> None:
    item = get("/api/stac/collections/dataset/items/group/sub/lakes").json()
    href = item["assets"]["data/a#b.csv"]["href"]
    assert href.endswith("/data/a?ref=main&gitlab_token=glpat-owner#b.csv")
    assert get(href).status_code == 404


def test_hostile_assets_and_links_come_verbatim() -> None:
    extra = {
        "../../evil.txt": {"href": "s3://bucket/evil", "roles": ["data"]},
        "/abs/evil.txt": {"path": "x.csv", "roles": ["data"], "title": "X"},
    }
    links = ({"rel": "about", "href": "docs/about.md"}, {"rel": "via", "href": "https://e.org"})
    project = Project("a/b", {"x.csv": b"1"}, extra_assets=extra, extra_links=links)
    with SharingHubServer([project]) as hub:
        headers = {"X-Gitlab-Token": hub.token}
        item = requests.get(hub.item_url("a/b"), headers=headers, timeout=5).json()
    assert item["assets"]["../../evil.txt"] == extra["../../evil.txt"]
    assert item["assets"]["/abs/evil.txt"]["href"].endswith(
        f"/api/download/a/b/repository/x.csv?ref=main&gitlab_token={hub.token}"
    )
    assert (link(item, "about") or "").endswith(f"/docs/about.md?ref=main&gitlab_token={hub.token}")
    assert link(item, "via") == "https://e.org"


def test_a_gitlab_stand_in_is_named_in_providers_and_messages() -> None:
    with GitLabServer([LAKES]) as gitlab, SharingHubServer([LAKES], gitlab=gitlab) as hub:
        headers = {"X-Gitlab-Token": hub.token}
        item = requests.get(hub.item_url("group/sub/lakes"), headers=headers, timeout=5).json()
        assert item["properties"]["providers"][0]["url"] == f"{gitlab.url}/group/sub/Lakes"
        path = f"{hub.url}/api/download/group/sub/lakes/repository/no?ref=main"
        assert gitlab.url in requests.get(path, headers=headers, timeout=5).json()["detail"]


def test_a_project_in_two_categories_is_in_both(get: Get) -> None:
    for category in ("dataset", "ai-model"):
        item = get(f"/api/stac/collections/{category}/items/group/both").json()
        assert item["collection"] == category
    response = get("/api/stac/collections/ai-model/items/group/sub/lakes")
    assert response.status_code == 400


def test_the_item_cache_gives_everybody_the_first_answer() -> None:
    tokens: dict[str, TokenHolder] = {"glpat-1": "bob", "glpat-2": "bob"}
    with SharingHubServer(PROJECTS, tokens=tokens, item_cache=True) as hub:

        def ask(category: str, token: str) -> str:
            url = hub.item_url("group/both", category)
            return requests.get(url, headers={"X-Gitlab-Token": token}, timeout=5).text

        first, second = ask("dataset", "glpat-1"), ask("ai-model", "glpat-2")
        assert first == second
        assert "gitlab_token=glpat-1" in second


def test_a_project_without_category_is_an_error(get: Get) -> None:
    assert get("/api/stac/collections/dataset/items/group/orphan").status_code == 500


def test_stock_pystac_reads_what_comes(get: Get) -> None:
    catalog = pystac.Catalog.from_dict(get("/api/stac").json())
    collection = pystac.Collection.from_dict(get("/api/stac/collections/dataset").json())
    item = pystac.Item.from_dict(get("/api/stac/collections/dataset/items/group/sub/lakes").json())
    assert (catalog.id, collection.id, item.id) == ("sharinghub-lab", "dataset", "group/sub/Lakes")
    assert list(item.get_assets(role="data")) == [*FILES]


def test_items_are_described_by_their_readme(get: Get) -> None:
    readme = "\n# Title\n\n\n\nFirst.\n\n<img src='a/b.png'>\n\n![x](https://e.org/i.png)\n"
    project = Project("a/b", readme=readme, preview="shots/one.jpg", name="B")
    long = Project("a/long", readme="word " * 50)
    with SharingHubServer([project, long], token="t") as hub:
        item = get(hub.item_url("a/b"), "t").json()
        source = f"{hub.url}/api/download/a/b/repository/a/b.png?ref=main&cache=300&gitlab_token=t"
        assert item["properties"]["description"] == (
            f'# Title\n\nFirst.\n\n<img src="{source}">\n\n![x](https://e.org/i.png)'
        )
        assert item["assets"]["preview.jpg"]["type"] == "image/jpeg"
        assert "/shots/one.jpg?ref=main&cache=300" in (link(item, "preview") or "")
        page = get(f"{hub.stac_url}/collections/dataset/items?mode=preview", "t").json()
        texts = [feature["properties"]["description"] for feature in page["features"]]
        assert texts[0] == "First.\n\n<img src='a/b.png'>"
        assert texts[1] == ("word " * 30).strip() + "..."


def test_the_collections_are_those_of_the_projects_unless_given() -> None:
    tools = Project("a/b", categories=("tools", "dataset"))
    with SharingHubServer([tools], token="t") as hub:
        assert list(hub.categories) == ["ai-model", "dataset", "tools"]
        page = requests.get(f"{hub.stac_url}/collections?gitlab_token=t", timeout=5).json()
        assert [each["title"] for each in page["collections"]] == ["AI Models", "Datasets", "Tools"]
    logo = "https://e.org/logo"
    with SharingHubServer(
        [tools], token="t", categories=["dataset", Category("x", logo=logo)]
    ) as hub:
        page = requests.get(f"{hub.stac_url}/collections?gitlab_token=t", timeout=5).json()
        assert [each["id"] for each in page["collections"]] == ["dataset", "x"]
        assert page["collections"][1]["links"][-1]["type"] == "image/png"


# Listings


@pytest.fixture
def long_hub() -> Iterator[SharingHubServer]:
    """Twenty projects named backwards."""
    projects = [
        Project(
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
    with SharingHubServer(projects) as hub:
        yield hub


def ask(hub: SharingHubServer, path: str, **options: Any) -> requests.Response:
    headers = {"X-Gitlab-Token": hub.token}
    url = path if path.startswith("http") else f"{hub.stac_url}{path}"
    method = "POST" if "json" in options else "GET"
    return requests.request(method, url, headers=headers, timeout=5, **options)


def numbers(response: requests.Response) -> list[int]:
    return [int(each.rpartition("-")[2]) for each in ids(response)]


def walk(hub: SharingHubServer, path: str, rel: str = "next") -> list[list[int]]:
    """The pages from one on, by the numbers of their projects."""
    pages = []
    href: str | None = path
    while href is not None:
        response = ask(hub, href)
        pages.append(numbers(response))
        href = link(response.json(), rel)
    return pages


def test_pages_follow_each_other_forwards_and_backwards(long_hub: SharingHubServer) -> None:
    path = "/collections/dataset/items?limit=6&mode=reference"
    pages = walk(long_hub, path)
    assert pages == [[*range(6)], [*range(6, 12)], [*range(12, 18)], [18, 19]]
    last = path
    for _ in range(3):
        last = link(ask(long_hub, last).json(), "next") or ""
    assert walk(long_hub, last, "prev")[1:] == [[*range(12, 18)], [*range(6, 12)], [*range(6)]]


def test_a_page_has_twelve_items_unless_told_otherwise(long_hub: SharingHubServer) -> None:
    path = "/collections/dataset/items?mode=reference"
    page = ask(long_hub, path).json()
    assert page["context"] == {"limit": 12, "matched": 20, "returned": 12}
    assert len(ids(ask(long_hub, f"{path}&limit=1000"))) == 20
    long_hub.page_limit = 5
    assert len(ids(ask(long_hub, path))) == 5


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "after=nonsense", "after=e30", "before=eyJrIjogWyJ4Il19"]
)
def test_a_limit_or_cursor_that_is_none_is_a_crash(get: Get, query: str) -> None:
    response = get(f"/api/stac/collections/dataset/items?{query}")
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    assert response.headers["content-type"].startswith("text/plain")


def test_an_unknown_mode_is_refused(get: Get) -> None:
    response = get("/api/stac/collections/dataset/items?mode=short")
    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == "literal_error"


def test_a_broken_readme_breaks_its_page(long_hub: SharingHubServer) -> None:
    path = "/collections/dataset/items?limit=5"
    assert ask(long_hub, path).status_code == 200
    second = link(ask(long_hub, path).json(), "next") or ""
    assert ask(long_hub, second).status_code == 500
    assert ask(long_hub, f"{second}&mode=preview").status_code == 500
    assert numbers(ask(long_hub, f"{second}&mode=reference")) == [*range(5, 10)]
    assert ask(long_hub, "/collections/dataset/items/group/p-07").status_code == 500
    assert ask(long_hub, "/collections/dataset/items/group/p-08").status_code == 200


def test_the_items_endpoint_ignores_the_parameters_of_a_search(long_hub: SharingHubServer) -> None:
    path = "/collections/dataset/items?mode=reference&limit=3&sortby=-title&ids=group/p-09&q=none"
    assert numbers(ask(long_hub, path)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("sortby", "expected"),
    [
        ("title", [19, 18, 17]),
        ("-title", [0, 1, 2]),
        ("+properties.title", [19, 18, 17]),
        ("sharinghub:stars", [0, 3, 6]),
        ("-datetime", [17, 14, 11]),
        ("-end_datetime", [17, 14, 11]),
        ("-start_datetime", [0, 1, 2]),
        ("-id", [19, 18, 17]),
        ("no-such-field", [0, 1, 2]),
    ],
)
def test_a_search_is_sorted(long_hub: SharingHubServer, sortby: str, expected: list[int]) -> None:
    path = f"/search?collections=dataset&mode=reference&limit=3&sortby={quote(sortby)}"
    assert numbers(ask(long_hub, path)) == expected
    pages = walk(long_hub, path)
    assert sorted(itertools.chain(*pages)) == [*range(20)]
    assert len(pages) == 7


def test_a_bbox_selects_and_is_not_counted(long_hub: SharingHubServer) -> None:
    query = "bbox=3.7,0,11,1&mode=preview&limit=3"
    for path in (f"/collections/dataset/items?{query}", f"/search?collections=dataset&{query}"):
        first = ask(long_hub, path)
        assert numbers(first) == [4, 5, 6]
        assert first.json()["numberMatched"] is None
        assert link(first.json(), "prev") is None
        second = link(first.json(), "next") or ""
        assert "bbox=3.7%2C0%2C11%2C1" in second
        assert ask(long_hub, second).status_code == 500  # number 8 is broken
    counted = ask(long_hub, "/search?collections=dataset&bbox=3.7,0,5,1").json()
    assert counted["numberMatched"] == 2


@pytest.mark.parametrize(
    ("bbox", "found"),
    [
        ("5,45,15,48", True),
        ("15,48,16,49", True),
        ("4,44,5,45", True),
        ("4,44,4.9,49", False),
        ("15.1,44,16,49", False),
        ("4,43,16,44.9", False),
        ("4,48.1,16,49", False),
    ],
)
def test_a_bbox_selects_what_it_touches(get: Get, bbox: str, *, found: bool) -> None:
    page = get(f"/api/stac/search?collections=dataset&bbox={bbox}")
    assert ids(page) == (["group/sub/Lakes"] if found else [])


def test_a_filtered_listing_is_paged_both_ways(long_hub: SharingHubServer) -> None:
    path = "/search?collections=dataset&mode=preview&limit=3&bbox=9.7,0,16.2,1"
    assert walk(long_hub, path) == [[10, 11, 12], [13, 14, 15], [16]]
    second = ask(long_hub, link(ask(long_hub, path).json(), "next") or "").json()
    last = link(second, "next") or ""
    assert walk(long_hub, last, "prev") == [[16], [13, 14, 15], [10, 11, 12]]
    assert ask(long_hub, last).json()["numberMatched"] is None
    single = path.replace("limit=3", "limit=1").replace("9.7,0,16.2,1", "0,0,2,1")
    assert walk(long_hub, single) == [[0], [1], [2]]
    second = link(ask(long_hub, single).json(), "next") or ""
    assert walk(long_hub, second, "prev") == [[1], [0]]


def test_a_bbox_is_ignored_in_reference_mode(long_hub: SharingHubServer) -> None:
    path = "/search?collections=dataset&mode=reference&limit=1&bbox=3.7,0,11,1"
    assert numbers(ask(long_hub, path)) == [0]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("bbox=1,2,3", 422),
        ("bbox=1,2,3,4,5,6", 422),
        ("datetime=2024-01-01T00:00:00/2024-01-01T00:00:00Z", 500),
        ("bbox=a,b,c,d", 500),
        ("datetime=2024-01-01T00:00:00Z/..", 500),
        ("datetime=2024-01-01T00:00:00", 500),
        ("datetime=2024-01-01T00:00:00Z", 200),
        ("collections=nope", 422),
    ],
)
def test_what_a_search_refuses_or_chokes_on(get: Get, query: str, status: int) -> None:
    collections = "" if "collections" in query else "&collections=dataset"
    assert get(f"/api/stac/search?{query}{collections}").status_code == status


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("2020-06-01T00:00:00Z/2020-07-01T00:00:00Z", [1, 2]),
        ("2021-01-01T00:00:00Z", [1, 2]),
        ("2021-01-02T00:00:00+00:00/2021-06-01T00:00:00Z", [2]),
        ("2019-12-01T00:00:00Z/2020-02-01T00:00:00Z", [1, 2]),
        ("2019-01-01T00:00:00Z/2019-06-01T00:00:00Z", []),
    ],
)
def test_a_datetime_selects_by_what_happened_to_the_project(span: str, expected: list[int]) -> None:
    began, ago = "2020-01-01T00:00:00Z", ("2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z")
    projects = [
        Project("a/p-1", created=began, updated="2021-01-01T00:00:00Z", temporal=ago),
        Project("a/p-2", created=began, updated="2022-01-01T00:00:00Z"),
    ]
    with SharingHubServer(projects) as hub:
        for path in ("/collections/dataset/items?", "/search?collections=dataset&"):
            assert numbers(ask(hub, f"{path}datetime={quote(span)}")) == expected


def test_free_text_and_topics_select(get: Get, long_hub: SharingHubServer) -> None:
    base = "/api/stac/search?collections=ai-model&mode=reference&q="
    assert ids(get(f"{base}NET")) == ["models/net"]
    assert ids(get(f"{base}[cnn]")) == ["models/net"]
    assert ids(get(f"{base}[rnn]")) == []
    assert ids(get(f"{base}net [rnn]")) == []
    assert ids(get(f"{base}models,net")) == []
    assert ids(get(f"{base}net,[cnn]")) == ["models/net"]
    assert ids(get(f"{base}:starred&mode=preview")) == []
    even = "/search?collections=dataset&mode=reference&limit=4&q=[even]"
    assert ask(long_hub, even).json()["numberMatched"] == 10
    assert walk(long_hub, even) == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]


def test_ids_select_in_their_order_and_are_counted_before(get: Get) -> None:
    base = "/api/stac/search?mode=reference&limit=1&ids="
    wanted = "group/both,no/such,group/sub/lakes,models/net"
    page = get(f"{base}{wanted}&collections=dataset")
    assert ids(page) == ["group/both", "group/sub/Lakes"]
    assert page.json()["numberMatched"] == 4
    assert ids(get(f"{base}{wanted}")) == []
    many = ",".join(["group/both"] * 120)
    assert get(f"{base}{many}&collections=dataset").status_code == 422


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"limit": 0}, "greater_than"),
        ({"limit": "1"}, "int_type"),
        ({"ids": "group/both"}, "list_type"),
        ({"datetime": "2024-01-01T00:00:00Z/.."}, "value_error"),
        ([1], "model_attributes_type"),
    ],
)
def test_a_wrong_body_is_refused(get: Get, body: Any, kind: str) -> None:
    response = get("/api/stac/search", method="POST", json=body)
    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == kind


def test_a_body_that_is_no_json_is_refused(get: Get) -> None:
    response = get("/api/stac/search", method="POST", data=b"{")
    assert (response.status_code, response.json()["detail"][0]["type"]) == (422, "json_invalid")


def test_paging_a_posted_search_is_broken(long_hub: SharingHubServer) -> None:
    body: dict[str, Any] = {"collections": ["dataset"], "limit": 3}
    geometry = {"type": "Polygon", "coordinates": [[[3.7, 0], [11, 0], [11, 1], [3.7, 0]]]}
    path = "/search?mode=preview"
    first = ask(long_hub, path, json={**body, "intersects": geometry})
    assert numbers(first) == [4, 5, 6]
    assert ask(long_hub, link(first.json(), "next") or "").status_code == 500
    sortby = [{"field": "title", "direction": "asc"}]
    first = ask(long_hub, "/search?mode=reference", json={**body, "sortby": sortby})
    assert numbers(first) == [19, 18, 17]
    second = ask(long_hub, link(first.json(), "next") or "")
    assert second.status_code == 200
    assert numbers(second) == [18, 19]  # not 16, 15, 14


@pytest.mark.parametrize("intersects", [{"type": "Point"}, {"type": "Point", "coordinates": "x"}])
def test_a_geometry_that_is_none_is_refused(get: Get, intersects: Any) -> None:
    body = {"collections": ["dataset"], "intersects": intersects}
    assert get("/api/stac/search", method="POST", json=body).status_code == 422


# Downloads


def download(path: str, ref: str | None = "main") -> str:
    query = "" if ref is None else f"?ref={quote(ref)}"
    return f"/api/download/group/sub/lakes/repository/{quote(path)}{query}"


@pytest.mark.parametrize("path", [path for path in FILES if path.isascii()])
def test_a_file_comes_as_it_is_unless_a_folder_is_named_repository(get: Get, path: str) -> None:
    response = get(download(path))
    if "repository" in path:
        assert response.status_code == 404
        assert "repository%2Fdata/repository/files/inner.csv" in response.json()["detail"]
        assert "404 Project Not Found" in response.json()["detail"]
    else:
        assert (response.status_code, response.content) == (200, FILES[path])


def test_some_scripts_are_more_than_a_header_holds(get: Get) -> None:
    assert get(download("data/été.csv")).content == b"summer"
    response = get(download("data/データ.csv"))
    assert (response.status_code, response.text) == (500, "Internal Server Error")


@pytest.mark.parametrize("path", FILES)
def test_the_proxy_serves_every_path(get: Get, path: str) -> None:
    item = get("/api/stac/collections/dataset/items/group/sub/lakes").json()
    number = item["properties"]["sharinghub:id"]
    twice = quote(quote(path, safe=""), safe="")
    for project in (number, "group%252Fsub%252Flakes"):
        url = f"/api/proxy/projects/{project}/repository/files/{twice}/raw?ref=main&lfs=true"
        response = get(url)
        assert (response.status_code, response.content) == (200, FILES[path])
    once = quote(path, safe="")
    expected = 200 if "/" not in path else 404
    url = f"/api/proxy/projects/{number}/repository/files/{once}/raw?ref=main&lfs=true"
    if "%" not in once or "/" in path:
        assert get(url).status_code == expected


def test_the_proxy_escapes_names_that_no_header_holds(get: Get) -> None:
    path = quote(quote("data/データ.csv", safe=""), safe="")
    response = get(f"/api/proxy/projects/101/repository/files/{path}/raw?ref=main")
    name = quote("データ.csv")
    assert response.headers["content-disposition"] == (
        f"inline; filename=\"{name}\"; filename*=UTF-8''{name}"
    )


def test_the_proxy_follows_lfs_only_when_told(get: Get) -> None:
    url = "/api/proxy/projects/101/repository/files/weights%252Fw.bin/raw?ref=main"
    assert get(url).text.startswith("version https://git-lfs")
    assert get(f"{url}&lfs=true").content == WEIGHTS


def test_an_authorization_header_replaces_the_token(get: Get) -> None:
    basic = {"Authorization": "Basic Ym9iOnNlY3JldA=="}
    response = get(download("blob.bin"), headers=basic)
    assert response.status_code == 404
    assert "404 Project Not Found" in response.json()["detail"]
    bearer = {"Authorization": "Bearer glpat-bob"}
    assert get(download("blob.bin"), headers=bearer).status_code == 200
    unknown = {"Authorization": "Bearer gloas-unknown"}
    assert get(download("blob.bin"), headers=unknown).status_code == 404


def test_a_range_is_honoured_for_lfs_only(get: Get) -> None:
    wanted = {"Range": "bytes=10-19"}
    assert get(download("blob.bin"), headers=wanted).status_code == 200
    part = get(download("weights/w.bin"), headers=wanted)
    assert (part.status_code, part.content) == (206, WEIGHTS[10:20])
    assert part.headers["content-range"] == "bytes 10-19/1000"
    same = {**wanted, "If-Range": part.headers["last-modified"]}
    assert get(download("weights/w.bin"), headers=same).status_code == 206
    changed = {**wanted, "If-Range": "Mon, 01 Jan 2001 00:00:00 GMT"}
    assert get(download("weights/w.bin"), headers=changed).content == WEIGHTS


def test_blobs_tell_their_digest(get: Get) -> None:
    headers = get(download("blob.bin")).headers
    assert headers["x-gitlab-content-sha256"] == hashlib.sha256(bytes(3000)).hexdigest()
    git_blob = hashlib.sha1(b"blob 3000\0" + bytes(3000)).hexdigest()
    assert headers["x-gitlab-blob-id"] == git_blob
    assert headers["content-disposition"].startswith("attachment;")


@pytest.mark.parametrize(
    ("compression", "compressed"),
    [("text", {"data/train.csv"}), ("all", {"data/train.csv", "blob.bin"}), ("nothing", set())],
)
def test_downloads_are_compressed_for_those_who_accept_it(
    compression: Compression, compressed: set[str]
) -> None:
    with SharingHubServer([LAKES], compressed_downloads=compression) as hub:
        headers = {"X-Gitlab-Token": hub.token, "Accept-Encoding": "gzip"}
        for path in ("data/train.csv", "blob.bin"):
            response = requests.get(hub.url + download(path), headers=headers, timeout=5)
            assert ("content-encoding" in response.headers) == (path in compressed)
            assert ("content-length" in response.headers) == (path not in compressed)
            assert response.content == FILES[path]


@pytest.mark.parametrize(
    ("name", "content", "media_type", "kind"),
    [
        ("a.csv", b"x", "text/plain; charset=utf-8", "inline"),
        ("a.csv", b"x" * 8191 + "é".encode() + b"x", "text/plain; charset=utf-8", "inline"),
        ("a.csv", b"\xe9", "application/octet-stream", "attachment"),
        ("a.csv", "é".encode()[:1], "application/octet-stream", "attachment"),
        ("a.bin", b"a\0b", "application/octet-stream", "attachment"),
        ("a.PNG", b"\x89PNG", "image/png", "inline"),
        ("a.jpg", b"\xff", "image/jpeg", "inline"),
    ],
)
def test_text_is_told_from_binary_by_looking(
    name: str, content: bytes, media_type: str, kind: str
) -> None:
    with SharingHubServer([Project("a/b", {name: content})], token="t") as hub:
        url = f"{hub.url}/api/download/a/b/repository/{name}?ref=main&gitlab_token=t"
        headers = requests.get(url, timeout=5).headers
    assert headers["content-type"] == media_type
    assert headers["content-disposition"].partition(";")[0] == kind


def test_a_cache_time_is_told(get: Get) -> None:
    url = f"{download('blob.bin')}&cache=300"
    assert get(url).headers["cache-control"] == "private, max-age=300"
    assert get(f"{download('blob.bin')}&cache=x").status_code == 422


def test_an_unknown_ref_is_not_found(get: Get) -> None:
    response = get(download("blob.bin", "nope"))
    assert response.status_code == 404
    assert "404 Commit Not Found" in response.json()["detail"]


def test_an_archive_is_chunked_or_cached(get: Get) -> None:
    url = "/api/download/group/sub/lakes/archive.zip?ref=v1"
    chunked = get(url)
    with zipfile.ZipFile(io.BytesIO(chunked.content)) as archive:
        assert {name.partition("/")[2] for name in archive.namelist()} == {*FILES, "README.md"}
    assert chunked.headers["transfer-encoding"] == "chunked"
    assert get("/api/download/group/sub/lakes/archive.zip").status_code == 422
    assert get(url.replace("v1", "v2")).status_code == 404
    with SharingHubServer(PROJECTS, token="glpat-owner", cached_archives=True) as hub:
        cached = get(hub.url + url)
        assert cached.headers["content-length"] == str(len(chunked.content))
        part = get(hub.url + url, headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, b"PK\x03\x04")


def test_only_reading_is_allowed(get: Get) -> None:
    for path in (download("blob.bin"), "/api/stac", "/api/stac/collections/dataset/items"):
        for method in ("HEAD", "PUT"):
            response = get(path, method=method)
            assert (response.status_code, response.headers["allow"]) == (405, "GET")


# Faults


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_gitlabs_errors_come_through_without_a_hint(
    get: Get, hub: SharingHubServer, status: int
) -> None:
    armed = hub.upstream(status, times=2)
    assert get("/api/stac").status_code == 200
    item = get("/api/stac/collections/dataset/items/group/both")
    file = get(download("blob.bin"))
    assert [item.status_code, file.status_code, armed.hits] == [status, status, 2]
    assert item.json()["detail"].startswith(f"HTTP {status} | POST https://gitlab.example.org/")
    assert "GET https://gitlab.example.org/api/v4/projects/group%2Fsub%2Flakes/" in file.text
    assert not {"Retry-After", "RateLimit-Reset"} & set(item.headers)
    assert get(download("blob.bin")).status_code == 200


def test_only_some_paths_may_see_gitlab_fail(get: Get, hub: SharingHubServer) -> None:
    hub.upstream(502, path=r"/download/.*blob\.bin$", times=None, after=1)
    codes = [get(download("blob.bin")).status_code for _ in range(3)]
    assert codes == [200, 502, 502]
    assert get(download("weights/w.bin")).status_code == 200


def test_who_has_no_token_never_reaches_gitlab(get: Get, hub: SharingHubServer) -> None:
    hub.upstream(429, times=None)
    assert get("/api/stac/collections/dataset/items", None).status_code == 401


def test_a_lost_gitlab_is_a_crash_after_which_the_socket_is_closed(
    hub: SharingHubServer,
) -> None:
    hub.upstream()
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=5)
    headers = {"X-Gitlab-Token": hub.token}
    connection.request("GET", "/api/stac/collections/dataset/items", headers=headers)
    response = connection.getresponse()
    assert (response.status, response.read()) == (500, b"Internal Server Error")
    assert response.headers["connection"] is None
    assert not response.will_close
    assert connection.sock is not None
    assert connection.sock.recv(1) == b""  # closed without a word
    connection.close()


def test_faults_of_any_server_work_here_too(get: Get, hub: SharingHubServer) -> None:
    hub.inject(Fault(path=r"/items$", status=429, headers={"Retry-After": "7"}))
    assert get("/api/stac/collections/dataset/items").headers["retry-after"] == "7"
    hub.route("/objects/x", b"1")
    assert get("/objects/x").content == b"1"
    assert get("/objects/y").status_code == 404


def test_requests_are_recorded_with_their_tokens(get: Get, hub: SharingHubServer) -> None:
    get("/api/stac/collections/dataset/items?limit=1")
    (request,) = hub.requests
    assert request.headers["x-gitlab-token"] == "glpat-owner"
    assert (request.path, request.query) == (
        "/api/stac/collections/dataset/items",
        {"limit": "1"},
    )
    assert request.status == 200


def test_json_is_compressed_when_it_is_long(get: Get) -> None:
    accepted = {"Accept-Encoding": "gzip"}
    response = get("/api/stac", headers=accepted, stream=True)
    raw = response.raw.read(decode_content=False)
    assert gzip.decompress(raw).startswith(b'{"stac_version"')
    assert len(raw) == int(response.headers["content-length"])
    assert "content-encoding" not in get("/api/stac/conformance", headers=accepted).headers


# Many projects


def test_a_hundred_thousand_items_are_made_when_asked_for() -> None:
    made: list[int] = []
    series = generated_projects(100_000)

    def make(index: int) -> Project:
        made.append(index)
        return series[index]

    hub = SharingHubServer(ProjectSeries(len(series), make, series.find))
    path = "/api/stac/collections/dataset/items"
    headers = Headers([("X-Gitlab-Token", hub.token), ("Host", "127.0.0.1")])

    def page(**query: str) -> dict[str, Any]:
        request = RecordedRequest("GET", path, path, query, headers)
        body = hub.answer(request).body
        assert isinstance(body, bytes)
        document: dict[str, Any] = json.loads(body)
        return document

    first = page(limit="100")
    assert first["numberMatched"] == 100_000
    assert made == [*range(100)]
    query = parse_qs(urlsplit(link(first, "next") or "").query)
    made.clear()
    second = page(limit="100", after=query["after"][0])
    assert second["features"][0]["id"] == series[100].path
    assert made == [*range(100, 200)]
    begun = time.perf_counter()
    for _ in range(5):
        page(limit="100")
    assert (time.perf_counter() - begun) / 5 < 0.1  # some 5 ms, on a machine at rest


def test_a_plain_sequence_may_be_long_too() -> None:
    path = "/api/stac/collections/dataset/items"
    with SharingHubServer(list(generated_projects(2000))) as hub:
        headers = {"X-Gitlab-Token": hub.token}
        page = requests.get(f"{hub.url}{path}?limit=5", headers=headers, timeout=5).json()
    assert (page["numberMatched"], len(page["features"])) == (2000, 5)
