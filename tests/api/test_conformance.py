"""Each filter is sent to an endpoint that declares it, or the caller is told."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from api_server import CONFORMANCE, FeaturesServer, item

from stac_gitlab import STACAPI, ConfigurationError, GitLabStacIO, UndeclaredExtensionWarning
from stac_gitlab.api.item_query import Conformance
from stac_gitlab.testing import Project, SharingHubServer, generated_projects

TOKEN = "glpat-conformance-01"
STAC = "https://api.stacspec.org/v1.0.0"
CQL2 = "http://www.opengis.net/spec/cql2/1.0/conf"
FILTER = "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter"


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(generated_projects(12), token=TOKEN) as server:
        yield server


def api_of(server: Any) -> STACAPI:
    url = server.stac_url if isinstance(server, SharingHubServer) else server.url
    return STACAPI(url, stac_io=GitLabStacIO(TOKEN, base_url=server.url))


@pytest.mark.parametrize(
    ("uri", "resource", "parameters"),
    [
        (f"{STAC}/ogcapi-features#sort", "ogcapi-features", {"sortby"}),
        (f"{STAC}/ogcapi-features#sort", "item-search", set()),
        ("https://api.stacspec.org/v1.1.0/ogcapi-features#sort", "ogcapi-features", {"sortby"}),
        (f"{STAC}-rc.1/item-search#free-text", "item-search", {"q"}),
        (f"{STAC}-beta.4/item-search#filter:item-search-filter", "item-search", {"filter"}),
        (f"{STAC}/collection-search#free-text", "ogcapi-features", set()),
        (f"{STAC}/collection-search#sort", "item-search", set()),
        (f"{STAC}/ogcapi-features#fields-of-mine", "ogcapi-features", set()),
        ("https://elsewhere.example.org/ogcapi-features#sort", "ogcapi-features", set()),
        (FILTER, "ogcapi-features", {"filter"}),
        (FILTER, "item-search", {"filter"}),
        (FILTER.replace("/filter", "/features-filter"), "ogcapi-features", {"filter"}),
        (FILTER.replace("/filter", "/features-filter"), "item-search", set()),
    ],
)
def test_a_class_counts_for_its_own_resource_only(
    uri: str, resource: str, parameters: set[str]
) -> None:
    assert Conformance((uri,)).parameters_of(resource) == parameters


def test_a_filter_that_only_search_declares_is_sent_to_search() -> None:
    declared = [*CONFORMANCE, f"{STAC}/item-search#sort"]
    with FeaturesServer([item("a")], conforms_to=declared) as server:
        assert [found.id for found in api_of(server).items("lakes", sortby="id")] == ["a"]
        asked = server.requests[-1]
    assert asked.path == "/search"
    assert asked.query == {"sortby": "id", "collections": "lakes", "limit": "100"}


def test_free_text_of_another_resource_is_a_warning() -> None:
    declared = [*CONFORMANCE, f"{STAC}/collection-search#free-text"]
    with (
        FeaturesServer([item("a")], conforms_to=declared) as server,
        pytest.warns(UndeclaredExtensionWarning, match="q="),
    ):
        list(api_of(server).items("lakes", q="resnet"))


@pytest.mark.parametrize(
    ("language", "expression"),
    [("cql2-text", {"op": "=", "args": [1, 1]}), ("cql2-json", "id = 'a'")],
)
def test_a_server_never_gets_the_language_that_it_does_not_declare(
    language: str, expression: Any
) -> None:
    declared = [*CONFORMANCE, FILTER, f"{CQL2}/{language}"]
    with FeaturesServer([item("a")], conforms_to=declared) as server:
        with pytest.raises(ConfigurationError, match=f"declares {language}"):
            list(api_of(server).items("lakes", filter=expression))
        assert not any("filter" in request.query for request in server.requests)


def test_the_text_search_of_a_sharinghub_finds_what_it_should(hub: SharingHubServer) -> None:
    api = api_of(hub)
    everything = [found.to_dict() for found in api.items("dataset")]
    title = everything[3]["properties"]["title"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(api.items("dataset", q=title))
    assert 0 < len(found) < len(everything)
    assert title in {each.properties["title"] for each in found}


def test_a_sharinghub_sorts(hub: SharingHubServer) -> None:
    api = api_of(hub)
    up = [found.id for found in api.items("dataset", sortby="properties.title")]
    down = [found.id for found in api.items("dataset", sortby="-properties.title", limit=5)]
    assert down == up[::-1]


def test_a_filter_that_nothing_honours_is_an_error(
    hub: SharingHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = api_of(hub)
    api.root.remove_links("search")
    with pytest.raises(ConfigurationError, match="ignores q="):
        list(api.items("dataset", q="resnet"))


@pytest.mark.parametrize("interval", ["1990/..", "../2100", "1990-01-01T00:00:00Z/"])
def test_a_sharinghub_gets_closed_intervals(hub: SharingHubServer, interval: str) -> None:
    assert len(list(api_of(hub).items("dataset", datetime=interval))) == 12


@pytest.mark.parametrize("more", [{}, {"q": "p"}, {"sortby": "-properties.title"}])
def test_a_box_across_the_antimeridian_is_no_band_around_a_sharinghub(more: Any) -> None:
    projects = [
        Project(f"group/p{west}", {"f": b"x"}, bbox=(west, 0, west + 1, 1))
        for west in (-180, -175, -100, 0, 100, 175)
    ]
    with SharingHubServer(projects, token=TOKEN) as hub:
        found = api_of(hub).items("dataset", bbox=(170, -5, -170, 5), limit=2, **more)
        assert sorted(item.id for item in found) == ["group/p-175", "group/p-180", "group/p175"]
        assert found.matched() in (3, None)
