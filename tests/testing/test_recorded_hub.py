"""`RecordedHub` has details of a real SharingHub beyond those of the recorded exchanges."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import requests
from stand_in import Compression, RecordedHub
from stand_in.samples import (
    FILES,
    LAKES,
    PROJECTS,
    TOKENS,
    Get,
    ask,
    download,
    ids,
    link,
    long_projects,
    numbers,
    walk,
)

from stac_gitlab.testing import (
    Project,
    ProjectSeries,
    TokenHolder,
    generated_projects,
)
from stac_gitlab.testing.exchange import Headers, RecordedRequest


@pytest.fixture
def hub() -> Iterator[RecordedHub]:
    with RecordedHub(PROJECTS, tokens=TOKENS) as running:
        yield running


@pytest.fixture
def long_hub() -> Iterator[RecordedHub]:
    with RecordedHub(long_projects()) as hub:
        yield hub


def test_a_trailing_slash_is_redirected_or_an_empty_id(get: Get) -> None:
    response = get("/api/stac/collections/?x=1", allow_redirects=False)
    assert response.status_code == 307
    assert response.headers["location"].endswith("/api/stac/collections?x=1")
    response = get("/api/stac/collections/dataset/items/")
    assert (response.status_code, response.json()["detail"]) == (400, "No feature ID given")


def test_the_item_cache_repeats_the_first_response() -> None:
    tokens: dict[str, TokenHolder] = {"glpat-1": "bob", "glpat-2": "bob"}
    with RecordedHub(PROJECTS, tokens=tokens, item_cache=True) as hub:

        def ask(category: str, token: str) -> str:
            url = hub.item_url("group/both", category)
            return requests.get(url, headers={"X-Gitlab-Token": token}, timeout=5).text

        first, second = ask("dataset", "glpat-1"), ask("ai-model", "glpat-2")
        assert first == second
        assert "gitlab_token=glpat-1" in second


def test_items_are_described_by_their_readme(get: Get) -> None:
    readme = "\n# Title\n\n\n\nFirst.\n\n<img src='a/b.png'>\n\n![x](https://e.org/i.png)\n"
    project = Project("a/b", readme=readme, preview="shots/one.jpg", name="B")
    long = Project("a/long", readme="word " * 50)
    with RecordedHub([project, long], token="t") as hub:
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


def test_pages_follow_each_other_forwards_and_backwards(long_hub: RecordedHub) -> None:
    path = "/collections/dataset/items?limit=6&mode=reference"
    pages = walk(long_hub, path)
    assert pages == [[*range(6)], [*range(6, 12)], [*range(12, 18)], [18, 19]]
    last = path
    for _ in range(3):
        last = link(ask(long_hub, last).json(), "next") or ""
    assert walk(long_hub, last, "prev")[1:] == [[*range(12, 18)], [*range(6, 12)], [*range(6)]]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "after=nonsense", "after=e30", "before=eyJrIjogWyJ4Il19"]
)
def test_an_invalid_limit_or_cursor_is_a_500(get: Get, query: str) -> None:
    response = get(f"/api/stac/collections/dataset/items?{query}")
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    assert response.headers["content-type"].startswith("text/plain")


def test_an_unknown_mode_is_a_422(get: Get) -> None:
    response = get("/api/stac/collections/dataset/items?mode=short")
    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == "literal_error"


def test_a_broken_readme_breaks_its_page(long_hub: RecordedHub) -> None:
    path = "/collections/dataset/items?limit=5"
    assert ask(long_hub, path).status_code == 200
    second = link(ask(long_hub, path).json(), "next") or ""
    assert ask(long_hub, second).status_code == 500
    assert ask(long_hub, f"{second}&mode=preview").status_code == 500
    assert numbers(ask(long_hub, f"{second}&mode=reference")) == [*range(5, 10)]
    assert ask(long_hub, "/collections/dataset/items/group/p-07").status_code == 500
    assert ask(long_hub, "/collections/dataset/items/group/p-08").status_code == 200


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
def test_a_search_is_sorted(long_hub: RecordedHub, sortby: str, expected: list[int]) -> None:
    path = f"/search?collections=dataset&mode=reference&limit=3&sortby={quote(sortby)}"
    assert numbers(ask(long_hub, path)) == expected
    pages = walk(long_hub, path)
    assert sorted(itertools.chain(*pages)) == [*range(20)]
    assert len(pages) == 7


def test_a_bbox_selects_and_is_not_counted(long_hub: RecordedHub) -> None:
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


def test_a_filtered_listing_is_paged_both_ways(long_hub: RecordedHub) -> None:
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


def test_a_bbox_is_ignored_in_reference_mode(long_hub: RecordedHub) -> None:
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
def test_invalid_search_parameters_are_a_422_or_a_500(get: Get, query: str, status: int) -> None:
    collections = "" if "collections" in query else "&collections=dataset"
    assert get(f"/api/stac/search?{query}{collections}").status_code == status


def test_a_search_finds_text_and_topics(get: Get, long_hub: RecordedHub) -> None:
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


def test_ids_select_in_their_order_and_are_counted_first(get: Get) -> None:
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
def test_an_invalid_body_is_a_422(get: Get, body: Any, kind: str) -> None:
    response = get("/api/stac/search", method="POST", json=body)
    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == kind


def test_a_body_that_is_not_json_is_a_422(get: Get) -> None:
    response = get("/api/stac/search", method="POST", data=b"{")
    assert (response.status_code, response.json()["detail"][0]["type"]) == (422, "json_invalid")


def test_paging_a_posted_search_is_broken(long_hub: RecordedHub) -> None:
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
def test_an_invalid_geometry_is_a_422(get: Get, intersects: Any) -> None:
    body = {"collections": ["dataset"], "intersects": intersects}
    assert get("/api/stac/search", method="POST", json=body).status_code == 422


def test_the_proxy_quotes_names_outside_latin_1(get: Get) -> None:
    path = quote(quote("data/データ.csv", safe=""), safe="")
    response = get(f"/api/proxy/projects/101/repository/files/{path}/raw?ref=main")
    name = quote("データ.csv")
    assert response.headers["content-disposition"] == (
        f"inline; filename=\"{name}\"; filename*=UTF-8''{name}"
    )


def test_an_authorization_header_replaces_the_token(get: Get) -> None:
    basic = {"Authorization": "Basic Ym9iOnNlY3JldA=="}
    response = get(download("blob.bin"), headers=basic)
    assert response.status_code == 404
    assert "404 Project Not Found" in response.json()["detail"]
    bearer = {"Authorization": "Bearer glpat-bob"}
    assert get(download("blob.bin"), headers=bearer).status_code == 200
    unknown = {"Authorization": "Bearer gloas-unknown"}
    assert get(download("blob.bin"), headers=unknown).status_code == 404


@pytest.mark.parametrize(
    ("compression", "compressed"),
    [("text", {"data/train.csv"}), ("all", {"data/train.csv", "blob.bin"}), ("nothing", set())],
)
def test_downloads_are_compressed_if_the_client_accepts_it(
    compression: Compression, compressed: set[str]
) -> None:
    with RecordedHub([LAKES], compressed_downloads=compression) as hub:
        headers = {"X-Gitlab-Token": hub.token, "Accept-Encoding": "gzip"}
        for path in ("data/train.csv", "blob.bin"):
            response = requests.get(hub.url + download(path), headers=headers, timeout=5)
            assert ("content-encoding" in response.headers) == (path in compressed)
            assert ("content-length" in response.headers) == (path not in compressed)
            assert response.content == FILES[path]


def test_the_cache_time_is_a_header(get: Get) -> None:
    url = f"{download('blob.bin')}&cache=300"
    assert get(url).headers["cache-control"] == "private, max-age=300"
    assert get(f"{download('blob.bin')}&cache=x").status_code == 422


def test_an_archive_is_chunked_or_cached(get: Get) -> None:
    url = "/api/download/group/sub/lakes/archive.zip?ref=v1"
    chunked = get(url)
    with zipfile.ZipFile(io.BytesIO(chunked.content)) as archive:
        assert {name.partition("/")[2] for name in archive.namelist()} == {*FILES, "README.md"}
    assert chunked.headers["transfer-encoding"] == "chunked"
    assert get("/api/download/group/sub/lakes/archive.zip").status_code == 422
    assert get(url.replace("v1", "v2")).status_code == 404
    with RecordedHub(PROJECTS, token="glpat-owner", cached_archives=True) as hub:
        cached = get(hub.url + url)
        assert cached.headers["content-length"] == str(len(chunked.content))
        part = get(hub.url + url, headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, b"PK\x03\x04")


def test_a_page_makes_only_its_own_projects() -> None:
    made: list[int] = []
    series = generated_projects(100_000)

    def make(index: int) -> Project:
        made.append(index)
        return series[index]

    hub = RecordedHub(ProjectSeries(len(series), make, series.find))
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
