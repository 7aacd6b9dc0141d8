"""pystac-client searches over our session: its objects, our tokens, retries, paging and errors."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import pystac
import pytest
import requests
from api_server import FeaturesServer, collection, item, merging, problem, relative, without_next
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from stac_documents import a
from stand_in import RecordedHub, RecordedProject
from urllib3.util import Retry

from stac_gitlab import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    GitLabStacIO,
    IncompleteListingWarning,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    NotSTACError,
    PartialItemWarning,
    RateLimitError,
    RetryPolicy,
    ServerError,
    STACGitLabError,
    UnreadableItemWarning,
)
from stac_gitlab.search import GitLabStacApiIO, open_client
from stac_gitlab.testing import Fault, LoopbackServer

TOKEN = "glpat-search-00001"
COLLECTIONS = "https://api.stacspec.org/v1.0.0/collections"
GEOJSON = "application/geo+json"


@pytest.fixture
def lakes() -> Iterator[FeaturesServer]:
    with FeaturesServer(item(f"lake-{n:02}") for n in range(25)) as server:
        server.conforms_to = [*server.conforms_to, COLLECTIONS]
        yield server


@pytest.fixture
def retry(clock: Any) -> RetryPolicy:
    return RetryPolicy(max_attempts=3, clock=clock.time, sleep=clock.sleep)


@pytest.fixture
def client(lakes: FeaturesServer, retry: RetryPolicy) -> Iterator[Client]:
    opened = open_client(lakes.url, TOKEN, retry=retry)
    yield opened
    opened._stac_io.close()  # type: ignore[union-attr]


def ids(things: Any) -> list[str]:
    return [each["id"] if isinstance(each, dict) else each.id for each in things]


NAMES = [f"lake-{n:02}" for n in range(25)]


def test_importing_the_package_does_not_import_pystac_client() -> None:
    said = "import sys, stac_gitlab; sys.exit('pystac_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False, timeout=60).returncode == 0


# -- the code of a catalog's documentation, as it is written there ------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_code_that_catalogs_show_their_users_runs(lakes: FeaturesServer, method: str) -> None:
    lakes.descriptions["sentinel-1-grd"] = collection("sentinel-1-grd")
    thumbnail = {"thumbnail": {"href": f"{lakes.url}/thumbnail.png"}}
    lakes.holdings["sentinel-1-grd"] = {
        f"S1A_{n}": item(f"S1A_{n}", "sentinel-1-grd", assets=thumbnail) for n in range(30)
    }
    lakes.holdings["lakes"] = {}
    client = open_client(f"{lakes.url}/")

    collections = client.get_collections()
    assert ids(collections) == ["lakes", "sentinel-1-grd"]
    s1_collection = client.get_collection("sentinel-1-grd")
    assert s1_collection is not None
    assert s1_collection.description == "About sentinel-1-grd"

    point = SimpleNamespace(__geo_interface__={"type": "Point", "coordinates": [16.6068, 49.1951]})
    search = client.search(
        collections=[s1_collection],
        intersects=point,
        max_items=10,
        method=method,
    )
    assert search.matched() == 30
    items = search.item_collection()
    assert len(items) == 10
    for each in items:
        assert each.properties["datetime"] == "2024-01-01T00:00:00Z"
    assets = items[0].assets
    assert list(assets.keys()) == ["thumbnail"]
    assert assets["thumbnail"].href == f"{lakes.url}/thumbnail.png"
    assert {request.method for request in lakes.requests if request.path == "/search"} == {method}


def test_a_post_that_needs_a_login_says_so_while_get_does_not(lakes: FeaturesServer) -> None:
    lakes.inject(Fault(method="POST", status=401, times=None))
    client = open_client(lakes.url)
    assert ids(client.search(max_items=3, method="GET").items()) == NAMES[:3]
    with pytest.raises(AuthenticationError, match="No token was sent"):
        client.search(max_items=3).matched()


# -- one session --------------------------------------------------------------------------------


def test_it_is_what_pystac_client_looks_for_and_what_we_look_for(client: Client) -> None:
    reader = client._stac_io
    assert isinstance(reader, GitLabStacApiIO)
    assert isinstance(reader, StacApiIO)
    assert isinstance(reader, GitLabStacIO)


def test_the_session_of_the_given_reader_is_used(lakes: FeaturesServer) -> None:
    with GitLabStacIO(TOKEN, base_url=lakes.url) as reader:
        bridge = GitLabStacApiIO(reader)
        assert bridge.session is reader.session
        assert bridge.credentials is reader.credentials
        client = Client.open(lakes.url, stac_io=bridge)
        assert len(list(client.search(limit=10).items())) == 25
        assert len(list(open_client(lakes.url, stac_io=reader).search().items())) == 25
    assert {r.headers["X-Gitlab-Token"] for r in lakes.requests} == {TOKEN}


def test_options_and_a_reader_exclude_each_other(lakes: FeaturesServer) -> None:
    with GitLabStacIO() as reader:
        with pytest.raises(ConfigurationError):
            GitLabStacApiIO(reader, page_size=5)
        with pytest.raises(ConfigurationError):
            open_client(lakes.url, TOKEN, stac_io=reader)


def test_opening_does_not_reset_what_was_set(lakes: FeaturesServer) -> None:
    bridge = GitLabStacApiIO(TOKEN, timeout=(3, 4), headers={"X-Api-Key": "key-0000001"})
    client = Client.open(lakes.url, stac_io=bridge)
    assert bridge.timeout == bridge.session.timeout == (3, 4)
    assert bridge.headers == {"X-Api-Key": "key-0000001"}
    Client.open(
        lakes.url, stac_io=bridge, timeout=7, headers={"X-More": "1"}, parameters={"f": "json"}
    )
    assert bridge.session.timeout == (7, 7)
    same = GitLabStacApiIO(TOKEN, timeout=None, parameters={"f": "json"}, request_modifier=None)
    assert same.timeout == (10, 60)
    list(client.search(max_items=1).items())
    assert lakes.requests[-1].headers["X-More"] == "1"
    assert lakes.requests[-1].query == {"f": "json"}
    bridge.close()


def test_parameters_go_to_the_opened_server_and_to_no_other(lakes: FeaturesServer) -> None:
    with FeaturesServer([item("far")]) as other:
        lakes.paging = lambda *_: {
            "type": "FeatureCollection",
            "features": [item("near")],
            "links": [{"rel": "next", "href": f"{other.url}/search"}],
        }
        bridge = GitLabStacApiIO(TOKEN)
        client = Client.open(lakes.url, stac_io=bridge, parameters={"key": "secret-parameter"})
        assert ids(client.search(method="GET").items()) == ["near", "far"]
        assert lakes.requests[-1].query["key"] == "secret-parameter"
        assert other.requests[0].query == {}
        assert "X-Gitlab-Token" not in other.requests[0].headers
        bridge.close()


def test_a_request_modifier_sees_every_request(lakes: FeaturesServer) -> None:
    def sign(request: requests.Request) -> requests.Request | None:
        seen.append(request.method)
        request.headers["X-Signed"] = "yes"
        request.params = {"signature": "abc"}
        return None if request.method == "GET" else request

    seen: list[str] = []
    bridge = GitLabStacApiIO(TOKEN)
    client = Client.open(lakes.url, stac_io=bridge, request_modifier=sign)
    list(client.search(limit=20).items())
    assert seen == ["GET", "POST", "POST"]
    assert all(request.headers["X-Signed"] == "yes" for request in lakes.requests)
    assert all(request.query["signature"] == "abc" for request in lakes.requests)
    assert lakes.requests[-1].json()["token"] == 20
    bridge.close()


def test_a_modifier_of_items_is_called(lakes: FeaturesServer) -> None:
    def sign(thing: Any) -> None:
        for each in thing["features"] if isinstance(thing, dict) else ():
            each["properties"]["signed"] = True

    client = open_client(lakes.url, modifier=sign)
    assert next(client.search().items()).properties["signed"]


def test_a_search_is_tried_again(lakes: FeaturesServer, client: Client) -> None:
    for method in ("GET", "POST"):
        lakes.inject(Fault(path="search", status=503, times=2))
        assert len(list(client.search(method=method, limit=100).items())) == 25
    lakes.inject(Fault(path="search", drop=True))
    assert client.search().matched() == 25


def test_what_creates_is_not_tried_again(lakes: FeaturesServer, client: Client) -> None:
    lakes.inject(Fault(method="POST", path="items", status=503, times=None))
    bridge = client._stac_io
    assert bridge is not None
    lakes.clear_requests()
    with pytest.raises(ServerError):
        bridge.request(
            f"{lakes.url}/collections/lakes/items", method="POST", parameters=item("new")
        )
    assert len(lakes.requests) == 1


def test_nothing_that_is_logged_holds_the_token(
    lakes: FeaturesServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    list(client.search(limit=20).items())
    assert TOKEN not in caplog.text


def test_tokens_in_an_answer_are_gone_from_it(lakes: FeaturesServer, client: Client) -> None:
    href = f"https://files.example.org/data.tif?gitlab_token={TOKEN}"
    lakes.holdings["lakes"] = {"a": item("a", assets={"data": {"href": href}})}
    [found] = client.search().items()
    assert found.assets["data"].href == "https://files.example.org/data.tif"


# -- paging -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("paging", [None, merging], ids=["token", "merge"])
def test_every_item_comes_exactly_once(
    lakes: FeaturesServer, client: Client, size: int, method: str, paging: Any
) -> None:
    lakes.paging = paging or lakes.paging
    assert ids(client.search(limit=size, method=method).items()) == NAMES
    if paging and method == "POST" and size < 25:
        assert lakes.requests[-1].json()["limit"] == size, "merged"
        assert "X-Page" in lakes.requests[-1].headers


def test_empty_pages_and_relative_links_end_nothing(lakes: FeaturesServer, client: Client) -> None:
    lakes.paging = relative
    assert ids(client.search(limit=10, method="GET").items()) == NAMES


def test_a_search_without_next_that_loses_items_warns(
    lakes: FeaturesServer, client: Client
) -> None:
    lakes.paging = without_next
    with pytest.warns(IncompleteListingWarning):
        assert len(list(client.search(limit=10).items())) == 10


def test_a_server_that_pages_in_circles_is_an_error(lakes: FeaturesServer, client: Client) -> None:
    lakes.paging = lambda server, request, items: {
        "type": "FeatureCollection",
        "features": items[:1],
        "links": [{"rel": "next", "href": f"{server.url}/search?page=1"}],
    }
    with pytest.raises(InvalidResponseError, match=r"same page|in circles"):
        list(client.search(method="GET").items())


def test_nothing_found_is_nothing(lakes: FeaturesServer, client: Client) -> None:
    lakes.holdings["lakes"] = {}
    assert list(client.search().items()) == []
    assert client.search().matched() == 0


def test_the_items_of_a_collection_come_from_its_endpoint(
    lakes: FeaturesServer, client: Client
) -> None:
    found = client.get_collection("lakes")
    assert found is not None
    assert ids(found.get_items()) == NAMES
    one = found.get_item("lake-03")
    assert one is not None
    assert one.id == "lake-03"
    assert found.get_item("none") is None


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "cls"),
    [
        (Fault(status=401, times=None), AuthenticationError),
        (Fault(status=404, times=None), NotFoundError),
        (Fault(status=409, times=None), ConflictError),
        (Fault(status=429, times=None, headers={"retry-after": "1"}), RateLimitError),
        (Fault(status=500, times=None), ServerError),
        (Fault(drop=True, times=None), NetworkError),
        (Fault(body="{", times=None), InvalidResponseError),
    ],
)
def test_an_error_is_ours_and_the_one_of_pystac_client(
    lakes: FeaturesServer, client: Client, fault: Fault, cls: type[STACGitLabError]
) -> None:
    lakes.inject(fault)
    for ask in (
        lambda: client.search().matched(),
        lambda: list(client.search().items()),
        lambda: client._stac_io.read_text(f"{lakes.url}/text"),  # type: ignore[union-attr]
    ):
        if fault.body is not None and "text" in str(ask.__code__.co_consts):
            continue
        with pytest.raises(cls) as caught:
            ask()
        assert isinstance(caught.value, APIError)
        assert type(caught.value).__name__ == cls.__name__
        assert getattr(caught.value, "status_code", None) == fault.status
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(again) is type(caught.value)
        assert str(again) == str(caught.value)


def test_a_text_that_is_none_is_an_error(lakes: FeaturesServer, client: Client) -> None:
    bridge = client._stac_io
    assert bridge is not None
    lakes.route("/text", b"\xff\xfe")
    with pytest.raises(APIError, match="not UTF-8"):
        bridge.read_text(f"{lakes.url}/text")
    lakes.route("/text", f"see https://hub.example.org/?gitlab_token={TOKEN} and {TOKEN}")
    assert bridge.request(f"{lakes.url}/text") == "see https://hub.example.org/ and ***"


def test_an_error_shows_no_token(lakes: FeaturesServer, client: Client) -> None:
    lakes.answer = lambda request: problem(422, f"bad {TOKEN}")  # type: ignore[method-assign]
    with pytest.raises(APIError) as caught:
        client.search(method="GET").matched()
    assert TOKEN not in f"{caught.value!r} {caught.value}"


# -- the rest of a reader -----------------------------------------------------------------------


def test_it_reads_and_writes_local_files(tmp_path: Any) -> None:
    bridge = GitLabStacApiIO()
    path = str(tmp_path / "item.json")
    bridge.save_json(path, item("a"))
    assert bridge.read_json(path)["id"] == "a"
    assert json.loads(bridge.read_text(path))["id"] == "a"
    with pytest.raises(NotImplementedError):
        bridge.save_json("https://hub.example.org/item.json", {})


def test_links_are_followed_with_what_they_say(lakes: FeaturesServer, client: Client) -> None:
    bridge = client._stac_io
    assert bridge is not None
    link = pystac.Link("next", f"{lakes.url}/search")
    link.extra_fields = {"method": "post", "body": {"limit": 3}}
    assert len(bridge.read_json(link)["features"]) == 3
    assert json.loads(bridge.read_text(link))["numberMatched"] == 25


def test_it_pickles_without_its_token_and_copies_to_itself(
    lakes: FeaturesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = GitLabStacApiIO(base_url=lakes.url)
    bridge.update(parameters={"f": "json"})
    assert copy.deepcopy(bridge) is bridge
    again = pickle.loads(pickle.dumps(bridge))
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    client = Client.open(lakes.url, stac_io=again)
    assert ids(client.search(max_items=2).items()) == NAMES[:2]
    assert lakes.requests[-1].headers["X-Gitlab-Token"] == TOKEN
    assert lakes.requests[-1].query == {"f": "json"}


def test_items_of_a_client_keep_reading_through_it(lakes: FeaturesServer, client: Client) -> None:
    found = next(client.search().items())
    assert found.get_root() is client


# -- a SharingHub ---------------------------------------------------------------------------------

AROUND = {"type": "Polygon", "coordinates": [[[-1, 0], [3, 0], [3, 1], [-1, 1], [-1, 0]]]}
# Too long for the URLs of most proxies.
FINE_EDGE = [[n / 1000, 0] for n in range(-3000, 1001, 8)]
FINELY = {"type": "Polygon", "coordinates": [[*FINE_EDGE, [1, 1], [-3, 1], [-3, 0]]]}


@pytest.fixture
def hub() -> Iterator[RecordedHub]:
    projects = [
        RecordedProject(
            f"group/p{n}", {"f": b"x"}, name=f"P{9 - n}", broken=n == 2, bbox=(n, 0, n + 0.5, 1)
        )
        for n in range(-5, 5)
    ]
    with RecordedHub(projects, token=TOKEN) as server:
        yield server


@pytest.mark.filterwarnings("ignore::stac_gitlab.PartialItemWarning")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("search", "found"),
    [
        ({"datetime": "1990-01-01T00:00:00Z/.."}, [*range(-5, 5)]),
        ({"datetime": "../2100-01-01T00:00:00Z"}, [*range(-5, 5)]),
        ({"datetime": "../1990-01-01T00:00:00Z"}, []),
        ({"bbox": [2.9, 0, -3.9, 1]}, [-5, -4, 3, 4]),
        ({"intersects": AROUND}, [-1, 0, 1, 2, 3]),
        ({"intersects": FINELY, "limit": 20, "datetime": "1990-01-01/.."}, [-3, -2, -1, 0, 1]),
        ({"ids": ["group/p1", "group/p-3"]}, [-3, 1]),
    ],
)
def test_a_sharinghub_gets_what_it_understands(
    search: dict[str, Any], found: list[int], method: str, hub: RecordedHub, retry: RetryPolicy
) -> None:
    client = open_client(hub.stac_url, TOKEN, retry=retry)
    asked = client.search(collections=["dataset"], method=method, **{"limit": 2, **search})
    numbers = sorted(int(name.removeprefix("group/p")) for name in ids(asked.items()))
    assert numbers == found


@pytest.mark.filterwarnings("ignore::stac_gitlab.PartialItemWarning")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_sharinghub_sorts_all_pages(method: str, hub: RecordedHub, retry: RetryPolicy) -> None:
    client = open_client(hub.stac_url, TOKEN, retry=retry)
    search = client.search(
        collections=["dataset"], sortby="-properties.title", limit=3, method=method
    )
    assert [each.properties["title"] for each in search.items()] == [
        *sorted((f"P{9 - n}" for n in range(-5, 5)), reverse=True)
    ]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("limit", [None, 3])
def test_a_bad_project_ends_no_search(
    limit: int | None, method: str, hub: RecordedHub, retry: RetryPolicy
) -> None:
    client = open_client(hub.stac_url, TOKEN, retry=retry)
    for listing in (
        client.search(collections=["dataset"], limit=limit, method=method).items(),
        client.get_collection("dataset").get_items(),
    ):
        with pytest.warns(PartialItemWarning, match="group/p2"):
            assert len({each.id for each in listing}) == 10
    strict = GitLabStacIO(TOKEN, retry=retry, on_bad_item="raise")
    search = open_client(hub.stac_url, stac_io=strict).search(collections=["dataset"])
    with pytest.raises(ServerError, match="group/p2") as caught:
        list(search.items())
    assert isinstance(caught.value, APIError)


# -- what pystac-client would stumble over --------------------------------------------------------


def landing_page(server: LoopbackServer, **more: Any) -> None:
    core = "https://api.stacspec.org/v1.0.0/"
    document = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "top",
        "description": "Of all",
        "conformsTo": [f"{core}{name}" for name in ("core", "item-search", "collections")],
        "links": [{"rel": "search", "href": f"{server.url}/search", "type": GEOJSON}],
    }
    server.route("/", {**document, **more})


@pytest.mark.parametrize(
    "more", [{"conformsTo": 5}, {"conformsTo": [["x"]]}, {"conformsTo": {"a": 1}}]
)
def test_a_landing_page_that_declares_no_texts_is_an_error(
    server: LoopbackServer, more: dict[str, Any]
) -> None:
    landing_page(server, **more)
    with pytest.raises(InvalidResponseError, match="conformsTo"):
        open_client(f"{server.url}/")


def test_a_link_whose_method_is_no_text_is_an_error(server: LoopbackServer) -> None:
    landing_page(server, links=[{"rel": "search", "href": f"{server.url}/s", "method": {}}])
    with pytest.raises(InvalidResponseError, match="a method that is no text"):
        open_client(f"{server.url}/")


@pytest.mark.parametrize(
    "feature",
    [
        {},
        {"type": "Feature"},
        {"type": "Feature", "id": "a", "properties": [], "links": [], "assets": {}},
        {"type": "Feature", "id": "a", "properties": {"datetime": "soon"}, "links": []},
        {"type": "Feature", "id": "a", "properties": {"datetime": 5}, "links": [{}]},
        {"type": "Catalog", "id": "a", "description": "", "links": []},
    ],
)
def test_what_a_search_finds_is_an_item_or_an_error_of_ours(
    server: LoopbackServer, feature: Any
) -> None:
    landing_page(server)
    server.route("/search", {"type": "FeatureCollection", "features": [feature], "links": []})
    strict = GitLabStacIO(on_bad_item="raise")
    search = open_client(f"{server.url}/", stac_io=strict).search(method="GET")
    for read in (search.items, search.pages, search.item_collection):
        with pytest.raises(InvalidResponseError) as caught:
            list(read())
        assert isinstance(caught.value, APIError)


def test_a_broken_item_is_left_out_of_a_search(server: LoopbackServer) -> None:
    landing_page(server)
    features = [item("a"), {**item("b"), "properties": []}, item("c")]
    server.route("/search", {"type": "FeatureCollection", "features": features, "links": []})
    search = open_client(f"{server.url}/").search(method="GET")
    with pytest.warns(UnreadableItemWarning, match="item 'b'"):
        assert ids(search.items()) == ["a", "c"]


def test_what_is_no_object_is_left_out_of_a_search(server: LoopbackServer) -> None:
    landing_page(server)
    server.route("/search", {"type": "FeatureCollection", "features": [None, 5], "links": []})
    with pytest.warns(UnreadableItemWarning, match="no object"):
        assert list(open_client(f"{server.url}/").search(method="GET").items()) == []


@pytest.mark.parametrize(
    "broken", [{}, {"extent": []}, {"links": [5]}, {"id": True}, {"providers": 5}]
)
def test_a_listed_collection_is_one_or_an_error_of_ours(
    server: LoopbackServer, broken: dict[str, Any]
) -> None:
    landing_page(server, links=[{"rel": "data", "href": f"{server.url}/collections"}])
    server.route("/collections", {"collections": [{"type": "Collection", **broken}], "links": []})
    with pytest.warns(UnreadableItemWarning, match="collection"):
        assert list(open_client(f"{server.url}/").get_collections()) == []
    strict = open_client(f"{server.url}/", stac_io=GitLabStacIO(on_bad_item="raise"))
    with pytest.raises(InvalidResponseError) as caught:
        list(strict.get_collections())
    assert isinstance(caught.value, APIError)


def test_a_search_is_not_posted_with_the_token_where_a_stranger_wants_it(
    server: LoopbackServer, other_server: LoopbackServer
) -> None:
    target = {"rel": "search", "href": f"{server.url}/api/v4/user/keys", "method": "POST"}
    landing_page(other_server, links=[{**target, "type": GEOJSON}])
    stac_io = GitLabStacIO(TOKEN, base_url=server.url)
    client = open_client(f"{other_server.url}/", stac_io=stac_io)
    with pytest.raises(InvalidResponseError, match="names this URL for its search"):
        list(client.search(method="POST").items())
    assert server.requests == []


def test_a_count_that_is_none_is_an_error_of_ours(server: LoopbackServer) -> None:
    landing_page(server)
    found = {"type": "FeatureCollection", "features": [], "links": [], "context": "5"}
    server.route("/search", found)
    with pytest.raises(InvalidResponseError, match="context is no object"):
        open_client(f"{server.url}/").search(method="GET").matched()


# -- arguments of pystac-client's own reader ----------------------------------------------------


def test_a_timeout_reads_back_as_it_was_given() -> None:
    assert GitLabStacApiIO(TOKEN, timeout=7).timeout == 7
    assert pickle.loads(pickle.dumps(GitLabStacApiIO(timeout=(3, 4)))).timeout == (3, 4)


@pytest.mark.parametrize(("retries", "attempts"), [(5, 6), (None, 1), (Retry(2), 3)])
def test_the_number_of_retries_is_that_of_pystac_client(retries: Any, attempts: int) -> None:
    policy = RetryPolicy(backoff_base=0)
    bridge = GitLabStacApiIO(TOKEN, max_retries=retries, retry=policy)
    assert bridge.session.retry == policy.replace(max_attempts=attempts)
    with pytest.raises(ConfigurationError, match="max_retries"):
        GitLabStacApiIO(TOKEN, max_retries=-1)


def test_the_option_conformance_is_deprecated() -> None:
    with pytest.warns(FutureWarning, match="add_conforms_to"):
        GitLabStacApiIO(TOKEN, conformance=["https://api.stacspec.org/v1.0.0/core"])


def test_a_server_that_may_not_be_contacted_is_an_api_error(server: LoopbackServer) -> None:
    bridge = GitLabStacApiIO(TOKEN, base_url="https://hub.example.org", only_hosts=[])
    with pytest.raises(APIError, match="only_hosts") as caught:
        bridge.read_json(f"{server.url}/")
    assert isinstance(caught.value, ConfigurationError)


CORE = "https://api.stacspec.org/v1.0.0/core"


def serve_one_collection(
    server: LoopbackServer, collection_id: str, *, conforms_to: list[str] | None
) -> str:
    """Serve a landing page and a collection, and return the URL of its items."""
    url = f"{server.url}/collections/{quote(collection_id, safe='')}"
    links = [
        {"rel": "root", "href": f"{server.url}/"},
        {"rel": "child", "href": url},
        {"rel": "data", "href": f"{server.url}/collections"},
    ]
    server.route("/", a("catalog", links=links, conformsTo=conforms_to))
    links = [{"rel": "self", "href": url}, {"rel": "items", "href": f"{url}/items"}]
    server.route(f"/collections/{collection_id}", a("collection", id=collection_id, links=links))
    return f"{url}/items"


ODD_IDS = ["a/b", "a?b", "a#b", "a%2Fb", "a b", "é"]


@pytest.mark.parametrize("name", ODD_IDS)
def test_an_id_with_special_characters_is_one_segment_of_the_url(
    name: str, server: LoopbackServer
) -> None:
    features = "https://api.stacspec.org/v1.0.0/ogcapi-features"
    serve_one_collection(server, name, conforms_to=[CORE, COLLECTIONS, features])
    server.route(f"/collections/{name}/items/{name}", a("item", id=name))
    found = open_client(f"{server.url}/").get_collection(name)
    assert found is not None
    assert found.id == name
    read = found.get_item(name)
    assert read is not None
    assert read.id == name
    assert found.get_item(f"{name}-missing") is None
    assert quote(name, safe="") in server.requests[-2].target


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("conforms_to", [None, [], [CORE, COLLECTIONS]])
def test_a_server_without_urls_of_single_items_is_searched_for_an_id(
    conforms_to: list[str] | None, recursive: bool, server: LoopbackServer
) -> None:
    items = serve_one_collection(server, "c", conforms_to=conforms_to)
    features = [a("item", id=name) for name in ("x", "y", "z")]
    server.route(urlsplit(items).path, {"type": "FeatureCollection", "features": features})
    client = open_client(f"{server.url}/")
    assert client.get_conforms_to() == (conforms_to or [])
    found = client.get_collection("c")
    assert found is not None
    read = found.get_item("y", recursive=recursive)
    assert read is not None
    assert read.id == "y"
    assert found.get_item("missing", recursive=recursive) is None


@pytest.mark.parametrize("kind", ["collection", "item"])
def test_what_is_no_catalog_is_not_opened_as_a_client(kind: str, server: LoopbackServer) -> None:
    server.route("/x", a(kind))
    with pytest.raises(ClientTypeError, match=f"{server.url}/x: a .* not the landing page") as e:
        open_client(f"{server.url}/x")
    assert isinstance(e.value, NotSTACError)
    assert isinstance(e.value, APIError)
    assert type(pickle.loads(pickle.dumps(e.value))) is type(e.value)
