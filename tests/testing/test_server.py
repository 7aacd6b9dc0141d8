"""The SharingHub stand-in of `stac_gitlab.testing` responds as a real server."""

from __future__ import annotations

import gzip
import hashlib
import http.client
from collections.abc import Iterator
from urllib.parse import quote

import pystac
import pytest
import requests
from stand_in.samples import (
    FILES,
    LAKES,
    PROJECTS,
    TOKENS,
    WEIGHTS,
    Get,
    ask,
    download,
    hrefs,
    ids,
    link,
    long_projects,
    numbers,
    walk,
)

from stac_gitlab.testing import (
    AccessLevel,
    Category,
    Fault,
    GitLabServer,
    Project,
    SharingHubServer,
    generated_projects,
)


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(PROJECTS, tokens=TOKENS) as running:
        yield running


@pytest.fixture
def long_hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(long_projects()) as hub:
        yield hub


@pytest.mark.parametrize("path", ["", "/", "/collections", "/collections/dataset"])
def test_an_invalid_token_opens_what_needs_no_gitlab(get: Get, path: str) -> None:
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
def test_an_invalid_token_opens_nothing_that_needs_gitlab(get: Get, path: str, token: str) -> None:
    response = get(f"/api/stac{path}", token)
    assert response.status_code == 401
    assert "Invalid token" in response.json()["detail"]
    assert "WWW-Authenticate" not in response.headers


def test_conformance_needs_no_token(get: Get) -> None:
    assert get("/api/stac/conformance", None).status_code == 200


@pytest.mark.parametrize("header", ["Authorization", "PRIVATE-TOKEN"])
def test_the_token_headers_of_gitlab_are_ignored(get: Get, header: str) -> None:
    response = get("/api/stac/collections", None, headers={header: "Bearer glpat-owner"})
    assert response.status_code == 401


def test_the_token_in_the_query_takes_precedence(get: Get) -> None:
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


def test_a_public_server_needs_no_token() -> None:
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


def test_there_is_a_default_token() -> None:
    assert SharingHubServer().token == SharingHubServer().token
    assert SharingHubServer(token="mine").token == "mine"


def test_links_have_the_host_of_the_request(get: Get, hub: SharingHubServer) -> None:
    other = f"http://localhost:{hub.port}"
    root = get("/api/stac", headers={"Host": f"localhost:{hub.port}"}).json()
    assert link(root, "self") == f"{other}/api/stac/"
    secure = get("/api/stac", headers={"X-Forwarded-Proto": "https"}).json()
    assert link(secure, "self") == f"https://127.0.0.1:{hub.port}/api/stac/"


def test_the_api_may_have_another_path() -> None:
    with SharingHubServer([LAKES], base_path="/hub/api/stac") as hub:
        headers = {"X-Gitlab-Token": hub.token}
        assert hub.stac_url == f"{hub.url}/hub/api/stac"
        item = requests.get(hub.item_url("group/sub/Lakes"), headers=headers, timeout=5).json()
        href = item["assets"]["data/train.csv"]["href"]
        assert href.startswith(f"{hub.url}/hub/api/download/")
        assert requests.get(href, timeout=5).content == FILES["data/train.csv"]


@pytest.mark.parametrize("path", ["group/sub/Lakes", "group%2Fsub%2FLakes", "GROUP/sub/lakes"])
def test_an_item_is_found_by_a_quoted_id_and_in_any_letter_case(get: Get, path: str) -> None:
    item = get(f"/api/stac/collections/dataset/items/{path}").json()
    assert item["id"] == "group/sub/Lakes"
    assert (link(item, "self") or "").endswith("/items/group/sub/Lakes")


def test_hrefs_are_not_quoted(get: Get) -> None:
    item = get("/api/stac/collections/dataset/items/group/sub/lakes").json()
    href = item["assets"]["data/a#b.csv"]["href"]
    assert href.endswith("/data/a?ref=main&gitlab_token=glpat-owner#b.csv")
    assert get(href).status_code == 404


def test_extra_assets_and_links_are_verbatim() -> None:
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


def test_providers_and_messages_name_the_gitlab_stand_in() -> None:
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


def test_a_project_without_a_category_is_a_500(get: Get) -> None:
    assert get("/api/stac/collections/dataset/items/group/orphan").status_code == 500


def test_stock_pystac_reads_the_documents(get: Get) -> None:
    catalog = pystac.Catalog.from_dict(get("/api/stac").json())
    collection = pystac.Collection.from_dict(get("/api/stac/collections/dataset").json())
    item = pystac.Item.from_dict(get("/api/stac/collections/dataset/items/group/sub/lakes").json())
    assert (catalog.id, collection.id, item.id) == ("sharinghub-lab", "dataset", "group/sub/Lakes")
    assert list(item.get_assets(role="data")) == [*FILES]


def test_the_collections_are_those_of_the_projects_by_default() -> None:
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


def test_a_page_has_twelve_items_by_default(long_hub: SharingHubServer) -> None:
    path = "/collections/dataset/items?mode=reference"
    page = ask(long_hub, path).json()
    assert page["context"] == {"limit": 12, "matched": 20, "returned": 12}
    assert len(ids(ask(long_hub, f"{path}&limit=1000"))) == 20
    long_hub.page_limit = 5
    assert len(ids(ask(long_hub, path))) == 5


def test_the_items_endpoint_ignores_the_parameters_of_a_search(long_hub: SharingHubServer) -> None:
    path = "/collections/dataset/items?mode=reference&limit=3&sortby=-title&ids=group/p-09&q=none"
    assert numbers(ask(long_hub, path)) == [0, 1, 2]


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
def test_a_bbox_selects_what_it_intersects(get: Get, bbox: str, *, found: bool) -> None:
    page = get(f"/api/stac/search?collections=dataset&bbox={bbox}")
    assert ids(page) == (["group/sub/Lakes"] if found else [])


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
def test_a_datetime_selects_by_the_dates_of_the_project(span: str, expected: list[int]) -> None:
    began, ago = "2020-01-01T00:00:00Z", ("2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z")
    projects = [
        Project("a/p-1", created=began, updated="2021-01-01T00:00:00Z", temporal=ago),
        Project("a/p-2", created=began, updated="2022-01-01T00:00:00Z"),
    ]
    with SharingHubServer(projects) as hub:
        for path in ("/collections/dataset/items?", "/search?collections=dataset&"):
            assert numbers(ask(hub, f"{path}datetime={quote(span)}")) == expected


@pytest.mark.parametrize("path", [path for path in FILES if path.isascii()])
def test_files_are_served_unless_a_folder_is_named_repository(get: Get, path: str) -> None:
    response = get(download(path))
    if "repository" in path:
        assert response.status_code == 404
        assert "repository%2Fdata/repository/files/inner.csv" in response.json()["detail"]
        assert "404 Project Not Found" in response.json()["detail"]
    else:
        assert (response.status_code, response.content) == (200, FILES[path])


def test_a_name_outside_latin_1_is_a_500(get: Get) -> None:
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


def test_the_proxy_follows_lfs_pointers_with_lfs_true(get: Get) -> None:
    url = "/api/proxy/projects/101/repository/files/weights%252Fw.bin/raw?ref=main"
    assert get(url).text.startswith("version https://git-lfs")
    assert get(f"{url}&lfs=true").content == WEIGHTS


def test_only_lfs_objects_support_ranges(get: Get) -> None:
    wanted = {"Range": "bytes=10-19"}
    assert get(download("blob.bin"), headers=wanted).status_code == 200
    part = get(download("weights/w.bin"), headers=wanted)
    assert (part.status_code, part.content) == (206, WEIGHTS[10:20])
    assert part.headers["content-range"] == "bytes 10-19/1000"
    same = {**wanted, "If-Range": part.headers["last-modified"]}
    assert get(download("weights/w.bin"), headers=same).status_code == 206
    changed = {**wanted, "If-Range": "Mon, 01 Jan 2001 00:00:00 GMT"}
    assert get(download("weights/w.bin"), headers=changed).content == WEIGHTS


def test_blobs_have_digest_headers(get: Get) -> None:
    headers = get(download("blob.bin")).headers
    assert headers["x-gitlab-content-sha256"] == hashlib.sha256(bytes(3000)).hexdigest()
    git_blob = hashlib.sha1(b"blob 3000\0" + bytes(3000)).hexdigest()
    assert headers["x-gitlab-blob-id"] == git_blob
    assert headers["content-disposition"].startswith("attachment;")


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
def test_the_media_type_depends_on_the_content(
    name: str, content: bytes, media_type: str, kind: str
) -> None:
    with SharingHubServer([Project("a/b", {name: content})], token="t") as hub:
        url = f"{hub.url}/api/download/a/b/repository/{name}?ref=main&gitlab_token=t"
        headers = requests.get(url, timeout=5).headers
    assert headers["content-type"] == media_type
    assert headers["content-disposition"].partition(";")[0] == kind


def test_an_unknown_ref_is_not_found(get: Get) -> None:
    response = get(download("blob.bin", "nope"))
    assert response.status_code == 404
    assert "404 Commit Not Found" in response.json()["detail"]


def test_only_reading_is_allowed(get: Get) -> None:
    for path in (download("blob.bin"), "/api/stac", "/api/stac/collections/dataset/items"):
        for method in ("HEAD", "PUT"):
            response = get(path, method=method)
            assert (response.status_code, response.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_errors_of_gitlab_are_passed_on_without_retry_after(
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


def test_a_fault_of_gitlab_may_affect_some_paths_only(get: Get, hub: SharingHubServer) -> None:
    hub.upstream(502, path=r"/download/.*blob\.bin$", times=None, after=1)
    codes = [get(download("blob.bin")).status_code for _ in range(3)]
    assert codes == [200, 502, 502]
    assert get(download("weights/w.bin")).status_code == 200


def test_a_request_without_a_token_does_not_reach_gitlab(get: Get, hub: SharingHubServer) -> None:
    hub.upstream(429, times=None)
    assert get("/api/stac/collections/dataset/items", None).status_code == 401


def test_a_lost_gitlab_is_a_500_and_a_closed_connection(
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


def test_the_hub_has_the_faults_and_routes_of_a_loopback_server(
    get: Get, hub: SharingHubServer
) -> None:
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


def test_long_json_is_compressed(get: Get) -> None:
    accepted = {"Accept-Encoding": "gzip"}
    response = get("/api/stac", headers=accepted, stream=True)
    raw = response.raw.read(decode_content=False)
    assert gzip.decompress(raw).startswith(b'{"stac_version"')
    assert len(raw) == int(response.headers["content-length"])
    assert "content-encoding" not in get("/api/stac/conformance", headers=accepted).headers


def test_a_plain_sequence_may_be_long() -> None:
    path = "/api/stac/collections/dataset/items"
    with SharingHubServer(list(generated_projects(2000))) as hub:
        headers = {"X-Gitlab-Token": hub.token}
        page = requests.get(f"{hub.url}{path}?limit=5", headers=headers, timeout=5).json()
    assert (page["numberMatched"], len(page["features"])) == (2000, 5)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_search_is_filtered_and_paged(long_hub: SharingHubServer, method: str) -> None:
    query = "/search?collections=dataset&limit=3&bbox=9.7,0,16.2,1"
    body = {"collections": ["dataset"], "limit": 3, "bbox": [9.7, 0, 16.2, 1]}
    first = ask(long_hub, query) if method == "GET" else ask(long_hub, "/search", json=body)
    assert numbers(first) == [10, 11, 12]
    assert first.json()["numberMatched"] is None
    assert walk(long_hub, link(first.json(), "next") or "") == [[13, 14, 15], [16]]


def test_a_search_by_ids_is_one_page_in_their_order(long_hub: SharingHubServer) -> None:
    query = "/search?collections=dataset&limit=1&ids=group/p-05,no/such,group/p-02"
    assert walk(long_hub, query) == [[5, 2]]


@pytest.mark.parametrize(
    ("sortby", "expected"),
    [("-title", [0, 1]), ("%2Bproperties.title", [19, 18]), ("-id", [19, 18]), ("none", [0, 1])],
)
def test_a_search_is_sorted(long_hub: SharingHubServer, sortby: str, expected: list[int]) -> None:
    path = f"/search?collections=dataset&mode=reference&limit=2&sortby={sortby}"
    assert numbers(ask(long_hub, path)) == expected
    pages = walk(long_hub, path)
    assert sorted(number for page in pages for number in page) == [*range(20)]


def test_a_posted_search_is_sorted(long_hub: SharingHubServer) -> None:
    body = {"collections": ["dataset"], "limit": 2}
    sortby = [{"field": "title", "direction": "desc"}]
    assert numbers(ask(long_hub, "/search", json={**body, "sortby": sortby})) == [0, 1]


def test_a_search_finds_words(get: Get) -> None:
    path = "/api/stac/search?collections=dataset&q="
    assert ids(get(f"{path}LAKES")) == ["group/sub/Lakes"]
    assert ids(get(f"{path}seas")) == []


@pytest.mark.parametrize("query", ["fields=id", "filter=a=1", "mode=short"])
def test_a_search_that_the_stand_in_does_not_implement_is_an_error(get: Get, query: str) -> None:
    response = get(f"/api/stac/search?collections=dataset&{query}")
    assert response.status_code == 501
    assert "does not implement" in response.json()["detail"]


def test_the_items_endpoint_is_paged(long_hub: SharingHubServer) -> None:
    path = "/collections/dataset/items?limit=8&mode=reference"
    assert walk(long_hub, path) == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]


def test_a_broken_project_breaks_full_items_only(long_hub: SharingHubServer) -> None:
    assert ask(long_hub, "/collections/dataset/items?limit=8").status_code == 500
    assert ask(long_hub, "/collections/dataset/items?limit=8&mode=reference").status_code == 200
    assert ask(long_hub, "/collections/dataset/items/group/p-07").status_code == 500
