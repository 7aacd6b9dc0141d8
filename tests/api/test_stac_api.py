"""STACAPI reads what an API has and changes what it lets us change, and says what went wrong."""

from __future__ import annotations

import copy
import json
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pystac
import pytest
from api_server import (
    CONFORMANCE,
    FeaturesServer,
    collection,
    item,
    merging,
    problem,
    relative,
    without_next,
)
from stac_documents import a

from stac_gitlab import (
    STACAPI,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    GitLabStacIO,
    IncompleteListingWarning,
    InvalidRequestError,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    NotSTACError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    UndeclaredExtensionWarning,
    UnreadableItemWarning,
)
from stac_gitlab.testing import Fault, LoopbackServer, SharingHubServer, generated_projects

TOKEN = "glpat-api-0000001"


@pytest.fixture
def lakes() -> Iterator[FeaturesServer]:
    with FeaturesServer(item(f"lake-{n:02}") for n in range(25)) as server:
        yield server


@pytest.fixture
def stac_io(clock: Any) -> Iterator[GitLabStacIO]:
    retry = RetryPolicy(max_attempts=3, clock=clock.time, sleep=clock.sleep)
    with GitLabStacIO(TOKEN, retry=retry) as reader:
        yield reader


@pytest.fixture
def api(lakes: FeaturesServer, stac_io: GitLabStacIO) -> STACAPI:
    return STACAPI(lakes.url, stac_io=stac_io)


def targets(server: LoopbackServer) -> list[str]:
    """What was asked since the last call."""
    asked = [f"{request.method} {request.target}" for request in server.requests]
    server.clear_requests()
    return asked


def ids(things: Any) -> list[str]:
    return [each["id"] if isinstance(each, dict) else each.id for each in things]


NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = [f"lake-{n:02}" for n in range(25)]


# -- landing page, conformance, collections -------------------------------------------------------


def test_conformance_comes_from_the_landing_page_and_is_asked_for_once(
    api: STACAPI, lakes: FeaturesServer
) -> None:
    assert set(CONFORMANCE) <= set(api.conformance())
    assert api.conformance() is api.conformance()
    assert targets(lakes) == ["GET /"]


def test_conformance_comes_from_its_own_page_where_the_landing_page_is_silent(
    lakes: FeaturesServer, stac_io: GitLabStacIO
) -> None:
    silent = {**lakes.landing_page(), "conformsTo": []}
    lakes.landing_page = lambda: silent  # type: ignore[method-assign]
    assert STACAPI(lakes.url, stac_io=stac_io).conformance() == tuple(lakes.conforms_to)
    assert targets(lakes) == ["GET /", "GET /conformance"]


def test_a_server_that_says_nothing_declares_nothing(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    server.route("/api", a("catalog"))
    assert STACAPI(f"{server.url}/api", stac_io=stac_io).conformance() == ()
    assert targets(server) == ["GET /api", "GET /api/conformance"]


def test_collections_are_listed_page_by_page_and_each_once(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    one, two = collection("one"), collection("two")
    page = lakes.landing_page()
    page["links"][3]["href"] = "all"
    lakes.landing_page = lambda: page  # type: ignore[method-assign]
    lakes.route("/all", {"collections": [one], "links": [{"rel": "next", "href": "all2"}]})
    lakes.route("/all2", {"collections": [one, two]})
    with pytest.warns(IncompleteListingWarning, match="repeats 1 collections"):
        found = list(api.collections())
    assert ids(found) == ["one", "two"]
    assert all(each.get_root() is api.root for each in found)
    assert targets(lakes) == ["GET /", "GET /all", "GET /all2"]


def test_child_links_serve_where_there_is_no_list_of_collections(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    server.route("/api", a("catalog", links=[{"rel": "child", "href": "one"}]))
    server.route("/one", collection("one"))
    assert ids(STACAPI(f"{server.url}/api", stac_io=stac_io).collections()) == ["one"]


def test_a_collection_is_asked_for_by_its_id_and_is_as_it_is_now(
    api: STACAPI, lakes: FeaturesServer
) -> None:
    lakes.descriptions["a/b c"] = collection("a/b c")
    lakes.holdings["a/b c"] = {}
    assert api.collection("a/b c").id == "a/b c"
    assert targets(lakes)[-1] == "GET /collections/a%2Fb%20c"
    before = api.collection("lakes")
    lakes.descriptions["lakes"]["description"] = "deeper"
    assert api.collection("lakes").description == "deeper" != before.description
    with pytest.raises(NotFoundError):
        api.collection("seas")


@pytest.mark.parametrize("bad", ["", "..", None, 5])
def test_an_id_that_is_none_is_refused_before_a_request(
    api: STACAPI, lakes: FeaturesServer, bad: Any
) -> None:
    for ask in (api.collection, api.items, lambda value: api.item("lakes", value)):
        with pytest.raises(ConfigurationError, match="is no id"):
            ask(bad)
    assert [t for t in targets(lakes) if "items" in t] == []


def test_what_is_no_landing_page_is_an_error(lakes: FeaturesServer, stac_io: GitLabStacIO) -> None:
    with pytest.raises(NotSTACError, match="landing page"):
        STACAPI(f"{lakes.url}/collections/lakes", stac_io=stac_io).conformance()
    with pytest.raises(ConfigurationError, match="GitLabStacIO"):
        STACAPI(lakes.url, stac_io=pystac.StacIO.default())  # type: ignore[arg-type]


def test_without_a_reader_there_is_one_with_the_token_of_the_environment(
    lakes: FeaturesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    monkeypatch.setenv("STAC_GITLAB_URL", lakes.url)
    api = STACAPI(f"{lakes.url}?gitlab_token={TOKEN}")
    assert ids(api.collections()) == ["lakes"]
    assert lakes.requests[0].headers["X-Gitlab-Token"] == TOKEN
    assert TOKEN not in repr(api)
    api.stac_io.close()


# -- items --------------------------------------------------------------------------------------


def test_items_are_asked_for_when_they_are_wanted(api: STACAPI, lakes: FeaturesServer) -> None:
    items = api.items("lakes", limit=10)
    assert targets(lakes) == []
    walk = iter(items)
    assert next(walk).id == "lake-00"
    assert targets(lakes) == [
        "GET /",
        "GET /collections/lakes",
        "GET /collections/lakes/items?limit=10",
    ]
    assert ids(walk) == NAMES[1:]
    assert targets(lakes) == [
        "GET /collections/lakes/items?limit=10&token=10",
        "GET /collections/lakes/items?limit=10&token=20",
    ]
    assert ids(items) == NAMES, "and once more"


def test_items_know_their_relations_without_a_request(api: STACAPI, lakes: FeaturesServer) -> None:
    found = next(iter(api.items("lakes")))
    targets(lakes)
    assert found.get_root() is api.root
    parent = found.get_parent()
    assert parent is not None
    assert parent.id == "lakes"
    assert targets(lakes) == []


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("paging", [None, merging, relative], ids=["token", "merge", "empty pages"])
def test_every_item_comes_exactly_once(
    lakes: FeaturesServer, api: STACAPI, size: int, paging: Any
) -> None:
    lakes.paging = paging or lakes.paging
    assert ids(api.items("lakes", limit=size)) == NAMES
    assert ids(api.items("lakes", limit=size).to_dicts()) == NAMES
    assert ids(each for page in api.items("lakes", limit=size).pages() for each in page) == NAMES


def test_a_limit_that_the_server_lowers_changes_nothing(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    lakes.cap = 4
    assert ids(api.items("lakes", limit=1000)) == NAMES


def test_fewer_items_than_the_server_counted_are_a_warning(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    lakes.paging = without_next
    with pytest.warns(IncompleteListingWarning, match=r"after 10 features.*25 match"):
        assert ids(api.items("lakes", limit=10)) == NAMES[:10]
    lakes.counts = False
    assert ids(api.items("lakes", limit=10)) == NAMES[:10], "nothing to compare with"


@pytest.mark.parametrize(
    ("most", "limit"), [(1, "limit=1"), (3, "limit=3"), (12, "limit=12"), (300, "limit=100")]
)
def test_max_items_ends_the_walk_and_makes_pages_no_larger(
    api: STACAPI, lakes: FeaturesServer, most: int, limit: str
) -> None:
    query = api.items("lakes", max_items=most)
    for found in (ids(query), ids(query.to_dicts()), [i for p in query.pages() for i in ids(p)]):
        assert found == NAMES[:most]
    listed = [t for t in targets(lakes) if "/items" in t]
    assert {target.partition("?")[2] for target in listed} == {limit}
    assert len(listed) == 3
    assert query.matched() == 25


def test_max_items_of_nothing_asks_for_nothing(api: STACAPI, lakes: FeaturesServer) -> None:
    query = api.items("lakes", max_items=0)
    assert ids(query) == ids(query.to_dicts()) == list(query.pages()) == []
    assert not [t for t in targets(lakes) if "/items" in t]


def test_pages_are_those_of_the_server(api: STACAPI) -> None:
    pages = list(api.items("lakes", limit=10, max_items=24).pages())
    assert [len(page) for page in pages] == [10, 10, 4]
    assert isinstance(pages[0], pystac.ItemCollection)
    assert pages[0].items[0].get_root() is api.root


@pytest.mark.usefixtures("always_ahead")
def test_no_thread_is_left_when_the_caller_stops(lakes: FeaturesServer, api: STACAPI) -> None:
    lakes.inject(Fault(query="token=10", delay=60, times=None))
    query = api.items("lakes", limit=10)
    for walk, taken in ((iter(query), 2), (query.to_dicts(), 2), (query.pages(), 1)):
        for _ in range(taken):
            next(walk)
        [thread] = [t for t in threading.enumerate() if t.name == "stac-gitlab-page"]
        walk.close()  # type: ignore[attr-defined]  # a generator
        thread.join(5)
        assert not thread.is_alive()


def test_item_collection_holds_everything(api: STACAPI) -> None:
    assert ids(api.items("lakes").item_collection()) == NAMES


def test_matched_costs_one_item(api: STACAPI, lakes: FeaturesServer) -> None:
    assert api.items("lakes", bbox=[5, 46, 8, 47], limit=50).matched() == 25
    assert targets(lakes)[-1] == "GET /collections/lakes/items?bbox=5,46,8,47&limit=1"
    lakes.counts = False
    assert api.items("lakes").matched() is None


def test_matched_reads_the_count_of_older_servers(lakes: FeaturesServer, api: STACAPI) -> None:
    lakes.paging = lambda *_: {"features": [], "context": {"matched": 3, "returned": 0}}
    assert api.items("lakes").matched() == 3
    lakes.paging = lambda *_: {"features": [], "numberMatched": None, "context": None}
    assert api.items("lakes").matched() is None


def test_filters_arrive_as_the_specification_writes_them(
    api: STACAPI, lakes: FeaturesServer
) -> None:
    point = SimpleNamespace(__geo_interface__={"type": "Point", "coordinates": (7, 46)})
    query = api.items(
        "lakes",
        bbox=point,
        datetime=[NEW_YEAR, None],
        limit=5,
        sortby="+title,-id",
        fields=["id", "-assets"],
        filter="id = 'a+b' AND x > 1",
        query={"a": {"lt": 1}},
        q=["deep", "blue"],
        mode="full",
        flags=[1, 2],
        nothing=None,
        filter_crs="http://www.opengis.net/def/crs/OGC/1.3/CRS84",
    )
    list(query.to_dicts())
    assert lakes.requests[2].query == {
        "bbox": "7,46,7,46",
        "datetime": "2024-01-01T00:00:00Z/..",
        "limit": "5",
        "sortby": "title,-id",
        "fields": "id,-assets",
        "filter": "id = 'a+b' AND x > 1",
        "filter-lang": "cql2-text",
        "query": '{"a":{"lt":1}}',
        "q": "deep,blue",
        "mode": "full",
        "flags": "1,2",
        "filter-crs": "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
    }
    assert "a%2Bb" in lakes.requests[2].query_string, "a bare plus would be a space"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bbox": [1, 2, 3]}, "3 numbers"),
        ({"datetime": "soon"}, "datetime='soon'"),
        ({"limit": 0}, "1 or greater"),
        ({"limit": True}, "whole number"),
        ({"limit": "10"}, "whole number"),
        ({"max_items": -1}, "0 or greater"),
        ({"ids": []}, "at least one id"),
        ({"sortby": 5}, "sortby"),
        ({"fields": []}, "fields"),
        ({"filter": "(a = 1"}, "parentheses"),
        ({"filter_lang": "cql2-text"}, "without a filter"),
        ({"query": {"a": 1}}, "comparison"),
        ({"q": ""}, "is empty"),
        ({"intersects": {"type": "Point"}}, "stac_gitlab.search"),
        ({"collections": ["a"]}, "stac_gitlab.search"),
        ({"other": object()}, "other="),
    ],
)
def test_a_bad_filter_is_refused_before_a_request(
    api: STACAPI, lakes: FeaturesServer, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        api.items("lakes", **wrong)
    assert targets(lakes) == []


def test_what_the_server_does_not_declare_is_sent_with_one_warning(
    stac_io: GitLabStacIO,
) -> None:
    with FeaturesServer([item("a")], conforms_to=CONFORMANCE) as server:
        api = STACAPI(server.url, stac_io=stac_io)
        for option in ({"sortby": "id"}, {"filter": "id = 'a'"}, {"query": "a<1"}, {"q": "a"}):
            with pytest.warns(UndeclaredExtensionWarning, match="does not declare") as warned:
                list(api.items("lakes", **option))  # type: ignore[arg-type]
            assert len(warned) == 1
            assert next(iter(option)) in server.requests[-1].query
            list(api.items("lakes", **option))  # type: ignore[arg-type]
        list(api.items("lakes", bbox=[1, 2, 3, 4], datetime="2024"))


@pytest.mark.parametrize(
    "uri",
    [
        "https://api.stacspec.org/v1.0.0/item-search#filter",
        "https://api.stacspec.org/v1.0.0-rc.2/ogcapi-features#filter",
        "https://api.stacspec.org/v1.0.0-rc.3/ogcapi-features#features-filter",
        "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    ],
)
def test_an_extension_is_known_by_any_of_its_names(stac_io: GitLabStacIO, uri: str) -> None:
    with FeaturesServer([item("a")], conforms_to=[uri]) as server:
        assert ids(STACAPI(server.url, stac_io=stac_io).items("lakes", filter="id = 'a'")) == ["a"]


def test_a_broken_item_is_left_out_with_a_warning(lakes: FeaturesServer, api: STACAPI) -> None:
    lakes.holdings["lakes"]["lake-01"]["properties"] = {"datetime": "the day before yesterday"}
    del lakes.holdings["lakes"]["lake-02"]["properties"]
    with pytest.warns(UnreadableItemWarning) as warned:
        assert ids(api.items("lakes")) == ["lake-00", *NAMES[3:]]
    assert len(warned) == 2


@pytest.mark.parametrize(
    "link",
    [
        {"href": "lakes/items?key=v&limit=3"},
        {"href": "/other/base/items", "type": "application/geo+json"},
    ],
)
def test_items_are_asked_for_where_the_collection_says(
    lakes: FeaturesServer, api: STACAPI, link: dict[str, str]
) -> None:
    url = f"{lakes.url}/collections/lakes"
    lakes.links_of_collections = [{"rel": "self", "href": url}, {"rel": "items", **link}]
    listed = {"type": "FeatureCollection", "features": [item("a")], "links": []}
    lakes.route("/other/base/items", listed)
    assert "a" in [*ids(api.items("lakes", limit=5, bbox=[1, 2, 3, 4])), "a"]
    path, _, query = link["href"].partition("?")
    asked = targets(lakes)[2]
    assert path in asked
    assert asked.endswith("bbox=1,2,3,4&limit=5") or "limit=5&bbox=1,2,3,4" in asked
    assert ("key=v" in asked) == ("key=v" in query)


def test_a_collection_that_was_read_by_pystac_will_do(api: STACAPI, lakes: FeaturesServer) -> None:
    known = pystac.Collection.from_file(f"{lakes.url}/collections/lakes", stac_io=api.stac_io)
    targets(lakes)
    assert next(iter(api.items(known))).get_parent() is known
    assert api.item(known, "lake-03").get_parent() is known
    assert "GET /collections/lakes" not in targets(lakes)


# -- a GET that the server fails on --------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "sent"),
    [
        ({"bbox": (0, 0, 10, 50)}, {"bbox": [0.0, 0.0, 10.0, 50.0]}),
        ({"sortby": "-a"}, {"sortby": [{"field": "a", "direction": "desc"}]}),
        ({"fields": ["a", "-b"]}, {"fields": {"include": ["a"], "exclude": ["b"]}}),
        ({"filter": {"op": "=", "args": [1, 1]}}, {"filter": {"op": "=", "args": [1, 1]}}),
        ({"query": {"a": {"lt": 1}}}, {"query": {"a": {"lt": 1}}}),
    ],
)
def test_a_filter_that_a_server_fails_on_with_get_is_searched_with_post(
    lakes: FeaturesServer, api: STACAPI, filters: dict[str, Any], sent: dict[str, Any]
) -> None:
    search = "https://api.stacspec.org/v1.0.0/item-search"
    names = ("sort", "fields", "query", "filter")
    lakes.conforms_to = [*lakes.conforms_to, *(f"{search}#{name}" for name in names)]
    api.collection("lakes")
    lakes.inject(Fault(path="/(items|search)$", method="GET", status=500, times=None))
    lakes.clear_requests()
    query = api.items("lakes", limit=10, **filters)
    assert ids(query.to_dicts()) == NAMES
    requests = lakes.requests
    assert [request.method for request in requests[-4:]] == ["GET", "POST", "POST", "POST"]
    body = requests[-3].json()
    assert {name: body[name] for name in (*sent, "collections", "limit")} == {
        **sent,
        "collections": ["lakes"],
        "limit": 10,
    }
    assert "token" in {name.lower().rpartition("-")[2] for name in requests[-3].headers}
    assert [len(page) for page in query.pages()] == [10, 10, 5]


def test_a_get_that_fails_is_the_error_where_a_search_is_of_no_use(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    lakes.inject(Fault(path="/(items|search)$", status=500, times=None))
    with pytest.raises(ServerError, match=r"GET .*/items"):
        list(api.items("lakes", bbox=(0, 0, 10, 50)))
    lakes.conforms_to = CONFORMANCE
    lakes.clear_requests()
    api = STACAPI(lakes.url, stac_io=api.stac_io)
    with pytest.raises(ServerError), pytest.warns(UndeclaredExtensionWarning):
        list(api.items("lakes", sortby="a"))
    with pytest.raises(ServerError):
        list(api.items("lakes"))
    assert {request.method for request in lakes.requests} == {"GET"}


# -- ids ----------------------------------------------------------------------------------------


def test_ids_alone_are_asked_for_one_by_one(api: STACAPI, lakes: FeaturesServer) -> None:
    query = api.items("lakes", ids=["lake-07", "none", "lake-03"])
    assert ids(query) == ids(query.to_dicts()) == ["lake-07", "lake-03"]
    assert ids(query.item_collection()) == ["lake-07", "lake-03"]
    assert [len(page) for page in query.pages()] == [2]
    assert query.matched() == 2
    assert ids(api.items("lakes", ids=["lake-07", "lake-03"], max_items=1)) == ["lake-07"]
    assert list(api.items("lakes", ids="none").pages()) == []
    assert not [t for t in targets(lakes) if "items?" in t]


def test_ids_and_other_filters_both_count(api: STACAPI, lakes: FeaturesServer) -> None:
    query = api.items("lakes", ids=["lake-03", "lake-12"], bbox=[5, 46, 8, 47], limit=10)
    assert ids(query) == ["lake-03", "lake-12"]
    listed = [t for t in targets(lakes) if "items?" in t]
    assert all("bbox=5,46,8,47" in target for target in listed)
    assert len(listed) <= 3, "and it ends when all are found"


# -- fields -------------------------------------------------------------------------------------


def test_items_stripped_by_fields_are_usable_as_far_as_can_be(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    bare = {"id": "a", "properties": {"datetime": "2024-01-01T00:00:00Z"}}
    lakes.paging = lambda *_: {"type": "FeatureCollection", "features": [bare], "links": []}
    query = api.items("lakes", fields="id,properties.datetime")
    [found] = query
    assert (found.id, found.collection_id, found.geometry, found.assets) == ("a", "lakes", None, {})
    assert found.get_root() is api.root
    assert list(query.to_dicts()) == [bare], "as the server sent them"
    assert ids(query.item_collection()) == ["a"]


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"id": "a"}, "properties.datetime"),
        ({"properties": {"datetime": "2024-01-01T00:00:00Z"}}, "left out id"),
        ({"properties": {"start_datetime": "2024-01-01T00:00:00Z"}}, "id and properties.datetime"),
    ],
)
def test_items_stripped_too_far_are_an_error_that_says_what_to_do(
    lakes: FeaturesServer, api: STACAPI, left: dict[str, Any], said: str
) -> None:
    lakes.paging = lambda *_: {"type": "FeatureCollection", "features": [left], "links": []}
    query = api.items("lakes", fields="id")
    with pytest.raises(InvalidResponseError, match=said) as caught:
        list(query)
    assert ".to_dicts()" in str(caught.value)
    assert list(query.to_dicts()) == [left]


@pytest.mark.parametrize("bad", [5, {"id": "a", "links": 5}, {"id": "a", "properties": []}])
def test_what_is_no_item_even_without_fields_is_left_out(
    lakes: FeaturesServer, api: STACAPI, bad: Any
) -> None:
    lakes.paging = lambda *_: {"type": "FeatureCollection", "features": [bad], "links": []}
    with pytest.warns(UnreadableItemWarning):
        assert list(api.items("lakes", fields="id").to_dicts()) == []


# -- another host -------------------------------------------------------------------------------


def moved(other: FeaturesServer) -> Any:
    def paging(server: FeaturesServer, request: Any, items: list[dict[str, Any]]) -> dict[str, Any]:
        link = {"rel": "next", "href": f"{other.url}/collections/lakes/items?token=2&limit=30"}
        return {"type": "FeatureCollection", "features": items[:2], "links": [link]}

    return paging


def test_a_next_page_under_another_host_is_read_without_the_token(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    with FeaturesServer(item(name) for name in NAMES) as other:
        lakes.paging = moved(other)
        assert ids(api.items("lakes")) == NAMES
        assert "X-Gitlab-Token" not in other.requests[0].headers
        assert lakes.requests[-1].headers["X-Gitlab-Token"] == TOKEN


def test_a_next_page_that_wants_the_token_under_another_host_says_how_to_allow_that(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    with FeaturesServer(item(name) for name in NAMES) as other:
        lakes.paging = moved(other)

        def guarded(request: Any) -> Any:
            if "X-Gitlab-Token" not in request.headers:
                return problem(401, "no token")
            return FeaturesServer.answer(other, request)

        other.answer = guarded  # type: ignore[method-assign]
        with pytest.raises(AuthenticationError, match=r"was not sent to .*hosts="):
            list(api.items("lakes"))
        hosts = [lakes.url, other.url]
        with GitLabStacIO(TOKEN, hosts=hosts) as reader:
            assert ids(STACAPI(lakes.url, stac_io=reader).items("lakes")) == NAMES


# -- SharingHub ---------------------------------------------------------------------------------


def test_a_sharinghub_is_an_api_like_any_other() -> None:
    with (
        SharingHubServer(generated_projects(30), token=TOKEN) as hub,
        GitLabStacIO(TOKEN) as reader,
        warnings.catch_warnings(),
    ):
        api = STACAPI(hub.stac_url, stac_io=reader)
        [datasets] = [each for each in api.collections() if each.id == "dataset"]
        query = api.items("dataset", limit=7)
        found = ids(query)
        assert len(found) == query.matched() == 30
        assert ids(api.items(datasets, ids=found[3])) == [found[3]]
        assert api.item("dataset", found[5]).id == found[5]


# -- changes to items ---------------------------------------------------------------------------


def test_an_item_is_created_and_comes_back_as_the_server_has_it(
    api: STACAPI, lakes: FeaturesServer
) -> None:
    made = api.create_item("lakes", pystac.Item("new", None, None, NEW_YEAR, {}))
    assert (made.id, made.collection_id) == ("new", "lakes")
    request = lakes.requests[-1]
    assert (request.method, request.path) == ("POST", "/collections/lakes/items")
    assert request.json()["collection"] == "lakes"
    assert request.headers["X-Gitlab-Token"] == TOKEN
    assert request.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_named_and_not_sent(
    number: float, api: STACAPI, lakes: FeaturesServer
) -> None:
    item = pystac.Item("new", None, None, NEW_YEAR, {"depth": [{"mean": number}]})
    requests = len(lakes.requests)
    with pytest.raises(ConfigurationError, match=r"properties\.depth\[0\]\.mean is (nan|inf)"):
        api.create_item("lakes", item)
    assert all(each.method == "GET" for each in lakes.requests[requests:])


def test_an_item_leaves_the_links_to_its_old_home_behind(
    api: STACAPI, lakes: FeaturesServer
) -> None:
    home = pystac.Catalog("home", "in memory, without an href")
    moving = pystac.Item("new", None, None, NEW_YEAR, {})
    moving.add_link(pystac.Link("license", "https://example.org/license"))
    home.add_item(moving)
    api.create_item("lakes", moving)
    assert [link["rel"] for link in lakes.holdings["lakes"]["new"]["links"]] == ["license"]
    assert moving.get_parent() is home, "the caller's own is as it was"
    links = [{"rel": "self", "href": "x"}, {"rel": "via", "href": "y"}]
    api.create_item("lakes", item("other", links=links))
    assert [k["rel"] for k in lakes.holdings["lakes"]["other"]["links"]] == ["via"]


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (item("a", "seas"), "names the collection 'seas'"),
        (collection("a"), "is no item"),
        ({"type": "Feature"}, "is no item"),
        ({"type": "Feature", "id": 5}, "is no item"),
        ("a", "neither a pystac object nor a dictionary"),
    ],
)
def test_what_is_no_item_of_this_collection_is_not_sent(
    api: STACAPI, lakes: FeaturesServer, thing: Any, said: str
) -> None:
    for send in (api.create_item, api.update_item, api.upsert):
        with pytest.raises(ConfigurationError, match=said):
            send("lakes", thing)
    assert targets(lakes) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda api: api.create_item("lakes", item("new")),
        lambda api: api.update_item("lakes", item("lake-00")),
        lambda api: api.patch_item("lakes", "lake-00", {"properties": {}}),
        lambda api: api.delete_item("lakes", "lake-00"),
        lambda api: api.upsert("lakes", item("lake-00")),
        lambda api: api.create_collection(collection("new")),
        lambda api: api.delete_collection("lakes"),
        lambda api: api.create_items("lakes", [item("new")]).failed[0].error,
    ],
    ids=["create", "update", "patch", "delete", "upsert", "collection", "drop", "many"],
)
def test_links_of_a_foreign_server_change_nothing_on_the_hub(
    lakes: FeaturesServer, stac_io: GitLabStacIO, server: LoopbackServer, change: Any
) -> None:
    stac_io.credentials.bind(lakes.url)
    foreign = {**lakes.landing_page(), "links": []}
    foreign["links"] = [{"rel": "data", "href": f"{lakes.url}/collections"}]
    server.route("/", foreign)
    api = STACAPI(f"{server.url}/", stac_io=stac_io)
    with pytest.raises(InvalidResponseError, match="not sent, because a link of") as refused:
        raise change(api) or AssertionError("it was sent")
    assert lakes.url in str(refused.value)
    assert all(request.method == "GET" for request in lakes.requests)


def test_refusals_of_the_server_have_their_classes(lakes: FeaturesServer, api: STACAPI) -> None:
    with pytest.raises(ConflictError, match=r"lake-01 already exists.*another id"):
        api.create_item("lakes", item("lake-01"))
    broken = item("broken")
    del broken["properties"]
    with pytest.raises(InvalidRequestError, match=r"body.properties: field required"):
        api.create_item("lakes", broken)
    for change in (api.update_item, lambda c, i: api.delete_item(c, i["id"])):
        with pytest.raises(NotFoundError):
            change("lakes", item("none"))
    lakes.refuses_writing = True
    with pytest.raises(PermissionDeniedError, match="may only read"):
        api.delete_item("lakes", "lake-01")


@pytest.mark.parametrize(
    "fault", [Fault(status=503, times=None), Fault(drop=True, times=None)], ids=["503", "cut"]
)
def test_what_creates_or_patches_is_sent_once(
    lakes: FeaturesServer, api: STACAPI, fault: Fault
) -> None:
    _ = api.root
    lakes.inject(fault)
    targets(lakes)
    with pytest.raises((ServerError, NetworkError)):
        api.create_item("lakes", item("new"))
    with pytest.raises((ServerError, NetworkError)):
        api.patch_item("lakes", "lake-01", {"properties": {"a": 1}})
    with pytest.raises((ServerError, NetworkError)):
        api.create_collection(collection("new"))
    assert targets(lakes) == [
        "POST /collections/lakes/items",
        "PATCH /collections/lakes/items/lake-01",
        "POST /collections",
    ]


def test_what_replaces_or_deletes_is_tried_again(lakes: FeaturesServer, api: STACAPI) -> None:
    _ = api.root
    targets(lakes)
    lakes.inject(Fault(status=503, times=1))
    api.update_item("lakes", item("lake-01"))
    lakes.inject(Fault(status=503, times=1))
    api.delete_item("lakes", "lake-01")
    assert [t.split()[0] for t in targets(lakes)] == ["PUT", "PUT", "DELETE", "DELETE"]


def test_what_was_sent_stays_as_it_is_where_the_server_answers_with_nothing(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    properties = {"datetime": "2024-01-01T00:00:00Z", "license": "proprietary"}
    mine = item("lake-01", properties=properties, links=[{"rel": "via", "href": "https://e.org"}])
    before = copy.deepcopy(mine)
    for method, change in (("PUT", api.update_item), ("POST", api.create_item)):
        lakes.inject(Fault(status=204, method=method))
        made = change("lakes", mine)
        made.properties["depth"] = 5
        made.assets["data"].href = "elsewhere"
        assert made.properties["license"] == "other"
        assert mine == before


def test_a_redirect_that_would_make_a_get_of_a_change_is_an_error(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    _ = api.root
    lakes.inject(Fault(status=301, headers={"location": f"{lakes.url}/collections"}, method="POST"))
    with pytest.raises(InvalidResponseError, match="would make a GET of it or lose its body"):
        api.create_item("lakes", item("new"))
    assert "new" not in lakes.holdings["lakes"]


def test_a_redirect_that_keeps_the_method_is_followed(lakes: FeaturesServer, api: STACAPI) -> None:
    _ = api.root
    there = f"{lakes.url}/collections/lakes/items/"
    lakes.inject(Fault(status=307, headers={"location": there}, times=1))
    assert api.create_item("lakes", item("new")).id == "new"
    assert "new" in lakes.holdings["lakes"]


def test_an_item_is_replaced_only_if_it_is_what_was_read(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    mine = api.item("lakes", "lake-01")
    mine.properties["depth"] = 30
    assert api.update_item("lakes", mine).properties["depth"] == 30
    assert "If-Match" in lakes.requests[-1].headers
    mine.properties["depth"] = 31
    api.update_item("lakes", mine)
    lakes.holdings["lakes"]["lake-01"]["properties"]["depth"] = 99
    with pytest.raises(ConflictError, match="has changed since it was read"):
        api.update_item("lakes", mine)
    with pytest.raises(ConflictError):
        api.delete_item("lakes", "lake-01", if_match='"another"')
    assert lakes.holdings["lakes"]["lake-01"]["properties"]["depth"] == 99
    api.item("lakes", "lake-01")
    api.delete_item("lakes", "lake-01")
    assert "lake-01" not in lakes.holdings["lakes"]


def test_what_was_not_read_is_replaced_without_a_condition(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    api.update_item("lakes", item("lake-01"))
    assert "If-Match" not in lakes.requests[-1].headers


def test_a_weak_etag_guards_nothing(lakes: FeaturesServer, api: STACAPI) -> None:
    lakes.inject(Fault(headers={"etag": 'W/"weak"'}, times=1, path="/items/"))
    read = api.item("lakes", "lake-01")
    api.update_item("lakes", read)
    assert "If-Match" not in lakes.requests[-1].headers


def test_a_patch_changes_what_it_names(lakes: FeaturesServer, api: STACAPI) -> None:
    patched = api.patch_item("lakes", "lake-01", {"properties": {"depth": 5}})
    assert patched.properties["depth"] == 5
    assert patched.datetime is not None
    assert lakes.requests[-1].headers["Content-Type"] == "application/merge-patch+json"
    lakes.inject(Fault(status=204, body=b"", method="PATCH"))
    operations = [{"op": "add", "path": "/properties/a", "value": 1}]
    assert api.patch_item("lakes", "lake-01", operations).id == "lake-01"
    assert lakes.requests[-2].headers["Content-Type"] == "application/json-patch+json"
    assert lakes.requests[-2].json() == operations
    with pytest.raises(ConfigurationError, match="patch="):
        api.patch_item("lakes", "lake-01", "a")  # type: ignore[arg-type]


def test_an_upsert_adds_or_replaces(lakes: FeaturesServer, api: STACAPI) -> None:
    api.upsert("lakes", item("new"))
    changed = item("new", geometry=None)
    assert api.upsert("lakes", changed).geometry is None
    methods = [t.split()[0] for t in targets(lakes)]
    assert methods == ["GET", "PUT", "POST", "PUT"]
    lakes.inject(Fault(status=404, method="PUT", times=1))
    assert api.upsert("lakes", item("new")).geometry is not None, "somebody else was quicker"


def test_an_answer_without_a_body_is_no_error(lakes: FeaturesServer, api: STACAPI) -> None:
    for body in (b"", b"created", b"{}", b"null"):
        lakes.inject(Fault(status=201, body=body, method="POST", times=1))
        assert api.create_item("lakes", item("new")).id == "new"


# -- many ---------------------------------------------------------------------------------------


def test_many_items_are_created_with_a_report(lakes: FeaturesServer, api: STACAPI) -> None:
    broken = item("broken")
    del broken["properties"]
    given = [item("a"), item("lake-01"), broken, item("b", "seas"), item("a"), 5, item("c")]
    report = api.create_items("lakes", iter(given), max_workers=3)
    assert [result.id for result in report] == ["a", "lake-01", "broken", "b", "a", None, "c"]
    assert [result.status for result in report.created] == ["created", "created"]
    assert [type(r.error).__name__ for r in report.failed] == [
        "ConflictError",
        "InvalidRequestError",
        "ConfigurationError",
        "ConfigurationError",
        "ConfigurationError",
    ]
    assert not report.ok
    assert repr(report) == "<BulkReport: 2 created, 0 updated, 0 skipped, 5 failed>"
    assert {"a", "c"} < set(lakes.holdings["lakes"])


@pytest.mark.parametrize("on_conflict", ["skip", "update"])
def test_what_is_there_already_is_skipped_or_replaced(
    lakes: FeaturesServer, api: STACAPI, on_conflict: Any
) -> None:
    given = [item("a"), item("lake-01", geometry=None)]
    report = api.create_items("lakes", given, on_conflict=on_conflict)
    assert report.ok
    assert ids(report.created) == ["a"]
    assert ids(report.skipped if on_conflict == "skip" else report.updated) == ["lake-01"]
    replaced = lakes.holdings["lakes"]["lake-01"]["geometry"] is None
    assert replaced == (on_conflict == "update")


def test_a_token_that_may_only_read_is_found_out_with_one_request(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    lakes.refuses_writing = True
    with pytest.raises(PermissionDeniedError):
        api.create_items("lakes", (item(f"n{n}") for n in range(100)))
    assert len([t for t in targets(lakes) if t.startswith("POST")]) == 1


def test_items_are_taken_from_the_iterable_as_they_are_needed(
    lakes: FeaturesServer, api: STACAPI
) -> None:
    ahead: list[int] = []

    def made() -> Iterator[dict[str, Any]]:
        for number in range(50):
            there = len(lakes.holdings["lakes"]) - 25
            ahead.append(number - there)
            yield item(f"n{number}")

    assert len(api.create_items("lakes", made(), max_workers=3).created) == 50
    assert max(ahead) <= 4


def test_nothing_to_create_is_an_empty_report(api: STACAPI) -> None:
    report = api.create_items("lakes", [])
    assert report.ok
    assert len(report) == 0
    for wrong in ({"max_workers": 0}, {"on_conflict": "hope"}):
        with pytest.raises(ConfigurationError):
            api.create_items("lakes", [], **wrong)  # type: ignore[arg-type]


# -- changes to collections ---------------------------------------------------------------------


def test_a_collection_lives_and_dies(lakes: FeaturesServer, api: STACAPI) -> None:
    extent = pystac.Extent(
        pystac.SpatialExtent([[5, 45, 11, 48]]), pystac.TemporalExtent([[None, None]])
    )
    made = api.create_collection(pystac.Collection("seas", "Salty", extent))
    assert made.id == "seas"
    assert made.get_root() is api.root
    with pytest.raises(ConflictError):
        api.create_collection(made)
    made.description = "Very salty"
    assert api.update_collection(made).description == "Very salty"
    assert api.patch_collection("seas", {"description": "Deep"}).description == "Deep"
    api.create_item("seas", item("a", "seas"))
    assert ids(api.items("seas")) == ["a"]
    api.delete_collection("seas")
    with pytest.raises(NotFoundError):
        api.collection("seas")
    with pytest.raises(ConfigurationError, match="no collection"):
        api.create_collection(item("a"))


def test_changes_show_no_secret(lakes: FeaturesServer, api: STACAPI) -> None:
    lakes.inject(Fault(status=422, body=json.dumps({"detail": f"bad {TOKEN}"}).encode()))
    with pytest.raises(InvalidRequestError) as caught:
        api.create_item("lakes", item("new"))
    assert TOKEN not in f"{caught.value} {caught.value.response.text}"
