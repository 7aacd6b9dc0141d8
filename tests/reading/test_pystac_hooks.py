"""Stock pystac walks an API as if it were files, and asks for no more than it needs."""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
import pickle
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pystac
import pytest
from pystac.item_collection import ItemCollection
from pystac.link import Link
from pystac.stac_io import DefaultStacIO
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from stac_documents import a

from stac_gitlab import (
    STACAPI,
    AuthenticationError,
    GitLabStacIO,
    HTTPStatusError,
    IncompleteListingWarning,
    InvalidResponseError,
    NotFoundError,
    NotSTACError,
    PermissionDeniedError,
    RetryPolicy,
    UnreadableItemWarning,
    materialize,
)
from stac_gitlab.reading import pystac_hooks
from stac_gitlab.reading.members import MAX_LEVELS
from stac_gitlab.reading.untrusted_links import ExtensionName
from stac_gitlab.testing import (
    Answer,
    Fault,
    LoopbackServer,
    Project,
    RecordedRequest,
    SharingHubServer,
    generated_projects,
    sample_projects,
)

TOKEN = "glpat-hooks-000001"

PROJECTS = [
    Project("group/lakes", {"data/lakes.csv": b"id"}, title="Lakes"),
    Project("group/sub/Rivers", {"rivers.csv": b"id", "a.png": b"p"}, title="Rivers"),
    Project("group/seas", {"seas.csv": b"id"}, title="Seas"),
    Project("models/net", {"net.onnx": b"net"}, categories=("ai-model",)),
]
DATASETS = [p.path for p in PROJECTS[:3]]


def all_hooks() -> tuple[pystac_hooks.Hook, ...]:
    try:
        client_hooks = importlib.import_module("stac_gitlab.search.client_hooks")
    except ModuleNotFoundError:
        return pystac_hooks.HOOKS
    return (*pystac_hooks.HOOKS, *client_hooks.CLIENT_HOOKS)


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(PROJECTS, token=TOKEN) as running:
        yield running


@pytest.fixture
def stac_io() -> Iterator[GitLabStacIO]:
    with GitLabStacIO(TOKEN) as reader:
        yield reader


@pytest.fixture
def root(hub: SharingHubServer, stac_io: GitLabStacIO) -> pystac.Catalog:
    return pystac.Catalog.from_file(hub.stac_url, stac_io=stac_io)


@pytest.fixture
def datasets(hub: SharingHubServer, stac_io: GitLabStacIO) -> pystac.Collection:
    return pystac.Collection.from_file(dataset_url(hub), stac_io=stac_io)


def dataset_url(hub: SharingHubServer) -> str:
    return f"{hub.stac_url}/collections/dataset"


def asked(server: LoopbackServer) -> list[str]:
    """The targets of all requests since the last call, below the API."""
    targets = [request.target.removeprefix("/api/stac") for request in server.requests]
    server.clear_requests()
    return targets


def ids(objects: Any) -> list[str]:
    return [each.id for each in objects]


# -- laziness -------------------------------------------------------------------------------


def test_a_walk_asks_for_each_thing_when_it_is_needed(
    hub: SharingHubServer, root: pystac.Catalog
) -> None:
    assert asked(hub) == [""]
    items = root.get_items(recursive=True)
    assert asked(hub) == []
    assert next(items).id == "models/net"
    assert asked(hub) == ["/collections/ai-model", "/collections/ai-model/items?limit=100"]
    assert next(items).id == "group/lakes"
    assert asked(hub) == ["/collections/dataset", "/collections/dataset/items?limit=100"]
    assert ids(items) == DATASETS[1:]
    assert asked(hub) == []


def test_the_items_of_a_collection_cost_the_page_and_once_the_root(
    hub: SharingHubServer, datasets: pystac.Collection
) -> None:
    assert asked(hub) == ["/collections/dataset"]
    assert ids(datasets.get_items()) == DATASETS
    assert asked(hub) == ["/", "/collections/dataset/items?limit=100"]
    assert ids(datasets.get_items()) == DATASETS
    assert asked(hub) == ["/collections/dataset/items?limit=100"]


@pytest.mark.usefixtures("always_ahead")
def test_the_first_item_costs_one_page_and_the_second_begins_one_more() -> None:
    hub = SharingHubServer(generated_projects(50), token=TOKEN)
    with hub, GitLabStacIO(TOKEN, page_size=10) as reader:
        collection = pystac.Collection.from_file(dataset_url(hub), stac_io=reader)
        items = collection.get_items()
        next(items)
        assert len([r for r in hub.requests if r.path.endswith("/items")]) == 1
        for _ in range(9):
            next(items)
        for thread in threading.enumerate():
            if thread.name == "stac-gitlab-page":
                thread.join(5)
        assert len([r for r in hub.requests if r.path.endswith("/items")]) == 2


def test_one_item_is_asked_for_by_itself(
    hub: SharingHubServer, datasets: pystac.Collection
) -> None:
    asked(hub)
    (item,) = datasets.get_items("group/sub/Rivers")
    assert item.properties["title"] == "Rivers"
    assert asked(hub) == ["/collections/dataset/items/group/sub/Rivers", "/"]


def test_several_ids_are_each_asked_for_once(
    hub: SharingHubServer, datasets: pystac.Collection
) -> None:
    wanted = ("group/seas", "group/none", "group/lakes", "group/seas")
    asked(hub)
    assert ids(datasets.get_items(*wanted)) == ["group/seas", "group/lakes"]
    assert len(asked(hub)) == 4  # three items and the root


def test_an_id_in_other_letter_case_is_the_canonical_item(datasets: pystac.Collection) -> None:
    assert ids(datasets.get_items("GROUP/SUB/rivers")) == ["group/sub/Rivers"]


@pytest.mark.parametrize("name", ["group/none", "models/net", "", "no such thing?#", "é"])
def test_an_unknown_id_or_one_of_another_collection_yields_nothing(
    datasets: pystac.Collection, name: str
) -> None:
    assert ids(datasets.get_items(name)) == []


def test_an_id_is_found_from_the_root(hub: SharingHubServer, root: pystac.Catalog) -> None:
    assert ids(root.get_items("group/lakes", recursive=True)) == ["group/lakes"]
    assert not [r for r in hub.requests if r.path.endswith("/items")]
    assert ids(root.get_items("group/lakes")) == []


def test_an_answer_that_does_not_say_whether_the_item_is_there_is_an_error(
    hub: SharingHubServer, datasets: pystac.Collection
) -> None:
    hub.inject(Fault(path="/items/", status=403, times=None))
    with pytest.raises(HTTPStatusError):
        list(datasets.get_items("group/lakes"))


@pytest.mark.filterwarnings("ignore:get_item is deprecated:DeprecationWarning")
def test_the_deprecated_get_item_works(datasets: pystac.Collection) -> None:
    item = datasets.get_item("group/seas")
    assert item is not None
    assert item.id == "group/seas"


# -- what stock calls see -------------------------------------------------------------------


def test_walk_yields_catalogs_with_their_children_and_items(root: pystac.Catalog) -> None:
    seen = [(c.id, ids(children), ids(items)) for c, children, items in root.walk()]
    assert seen == [
        ("sharinghub-lab", ["ai-model", "dataset"], []),
        ("ai-model", [], ["models/net"]),
        ("dataset", [], DATASETS),
    ]


def test_describe_draws_the_tree(root: pystac.Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    root.describe()
    assert capsys.readouterr().out.splitlines() == [
        "* <Catalog id=sharinghub-lab>",
        "    * <Collection id=ai-model>",
        "      * <Item id=models/net>",
        "    * <Collection id=dataset>",
        *(f"      * <Item id={name}>" for name in DATASETS),
    ]


def test_everything_validates() -> None:
    hub = SharingHubServer(generated_projects(5), token=TOKEN)
    with hub, GitLabStacIO(TOKEN) as reader:
        pystac.StacIO.set_default(reader)
        assert pystac.Catalog.from_file(hub.stac_url).validate_all() == 5


def test_fully_resolve_reaches_every_item(hub: SharingHubServer, root: pystac.Catalog) -> None:
    root.fully_resolve()
    assert len([r for r in hub.requests if r.path.endswith("/items")]) == 2


def test_children_and_collections_are_found(hub: SharingHubServer, root: pystac.Catalog) -> None:
    assert ids(root.get_children()) == ["ai-model", "dataset"]
    assert ids(root.get_collections()) == ["ai-model", "dataset"]
    asked(hub)
    child = root.get_child("dataset")
    assert child is not None
    assert child.get_parent() is root
    assert child.get_root() is root
    assert root.get_child("none") is None
    assert asked(hub) == []


def test_get_child_asks_for_the_likely_one_first(
    hub: SharingHubServer, root: pystac.Catalog
) -> None:
    asked(hub)
    assert root.get_child("dataset") is not None
    assert asked(hub) == ["/collections/dataset"]


def test_update_extent_from_items_sees_all_items(datasets: pystac.Collection) -> None:
    datasets.update_extent_from_items()
    assert datasets.extent.temporal.intervals[0][0] is not None


def test_relations_of_an_item_cost_no_request(hub: SharingHubServer, root: pystac.Catalog) -> None:
    collection = root.get_child("dataset")
    item = next(root.get_items("group/lakes", recursive=True))
    asked(hub)
    assert item.get_root() is root
    assert item.get_parent() is collection
    assert item.get_collection() is collection
    assert item.collection_id == "dataset"
    assert asked(hub) == []


def test_items_equal_those_that_stock_pystac_makes_of_the_same_json(
    hub: SharingHubServer, stac_io: GitLabStacIO, root: pystac.Catalog
) -> None:
    def progress(item: pystac.Item) -> dict[str, Any]:
        found = item.to_dict(transform_hrefs=False)
        found["links"] = sorted(
            # A link to an object that is at hand shows that object's title, in stock pystac too.
            (link["rel"], link["href"].rstrip("/"))
            for link in found["links"]
        )
        return found

    page = stac_io.read_json(f"{dataset_url(hub)}/items")
    stock = [progress(pystac.Item.from_dict(feature)) for feature in page["features"]]
    assert [progress(i) for i in root.get_items(recursive=True) if "group" in i.id] == stock
    for item in root.get_items(*DATASETS, recursive=True):
        assert progress(item) in stock


def test_the_default_reader_serves_like_an_explicit_one(hub: SharingHubServer) -> None:
    pystac.StacIO.set_default(GitLabStacIO(TOKEN))
    root = pystac.Catalog.from_file(hub.stac_url)
    assert ids(root.get_items(recursive=True)) == ["models/net", *DATASETS]
    assert ids(pystac.Collection.from_file(dataset_url(hub)).get_items()) == DATASETS
    item = pystac.Item.from_file(hub.item_url("group/lakes"))
    parent = item.get_parent()
    assert parent is not None
    assert ids(parent.get_items()) == DATASETS


def test_read_file_gives_catalogs_collections_and_items(
    hub: SharingHubServer, stac_io: GitLabStacIO
) -> None:
    for url, kind in (
        (hub.stac_url, pystac.Catalog),
        (dataset_url(hub), pystac.Collection),
        (hub.item_url("group/lakes"), pystac.Item),
    ):
        assert type(pystac.read_file(url, stac_io=stac_io)) is kind


def test_items_read_by_themselves_keep_their_reader(
    hub: SharingHubServer, stac_io: GitLabStacIO
) -> None:
    for item in (
        pystac.Item.from_file(hub.item_url("group/lakes"), stac_io=stac_io),
        pystac.read_file(hub.item_url("group/lakes"), stac_io=stac_io),
        next(iter(ItemCollection.from_file(f"{dataset_url(hub)}/items", stac_io=stac_io))),
    ):
        root, parent = item.get_root(), item.get_parent()
        assert root is not None
        assert parent is not None
        assert (root.id, parent.id) == ("sharinghub-lab", "dataset")
        assert ids(parent.get_items()) == DATASETS


def test_an_item_collection_holds_one_page(hub: SharingHubServer, stac_io: GitLabStacIO) -> None:
    found = ItemCollection.from_file(f"{dataset_url(hub)}/items?limit=2", stac_io=stac_io)
    assert ids(found) == DATASETS[:2]


# -- the landing page -----------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("read", [pystac.Catalog.from_file, pystac.read_file])
def test_a_landing_page_is_its_own_root_by_either_name(
    hub: SharingHubServer, stac_io: GitLabStacIO, read: Callable[..., pystac.Catalog], slash: str
) -> None:
    root = read(f"{hub.stac_url}{slash}", stac_io=stac_io)
    assert root.get_root() is root
    assert asked(hub) == [slash]


def test_catalog_from_file_of_a_collection_is_the_collection(
    hub: SharingHubServer, stac_io: GitLabStacIO
) -> None:
    found = pystac.Catalog.from_file(dataset_url(hub), stac_io=stac_io)
    assert type(found) is pystac.Collection
    assert ids(found.get_items()) == DATASETS


def test_other_mismatches_are_errors_that_say_what_came(
    hub: SharingHubServer, stac_io: GitLabStacIO
) -> None:
    class OwnCatalog(pystac.Catalog):
        pass

    for read, url, came in (
        (pystac.Item.from_file, dataset_url(hub), "a Collection (id 'dataset')"),
        (pystac.Collection.from_file, hub.stac_url, "a Catalog (id 'sharinghub-lab')"),
        (pystac.Catalog.from_file, hub.item_url("group/lakes"), "a Feature (id 'group/lakes')"),
        (OwnCatalog.from_file, dataset_url(hub), "a Collection (id 'dataset')"),
        (pystac.Item.from_file, f"{dataset_url(hub)}/items", "a FeatureCollection"),
        (ItemCollection.from_file, hub.item_url("group/lakes"), "a Feature"),
        (pystac.read_file, f"{hub.stac_url}/conformance", "JSON that is not STAC"),
    ):
        with pytest.raises(pystac.STACTypeError) as caught:
            read(url, stac_io=stac_io)
        assert isinstance(caught.value, NotSTACError)
        assert came in str(caught.value)


# -- other servers --------------------------------------------------------------------------


class API:
    """A small STAC API on plain routes, to be bent by a test."""

    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        self.url = server.url

    def catalog(
        self, path: str, *links: dict[str, Any], kind: str = "catalog", **fields: Any
    ) -> dict[str, Any]:
        own = [self.link("self", path), self.link("root", "/"), *links]
        document = {**a(kind, id=path.strip("/") or "root", links=own), **fields}
        self.server.route(path, document)
        return document

    def collection(self, path: str, *links: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return self.catalog(path, *links, kind="collection", **fields)

    def item(self, name: str, *links: dict[str, Any]) -> dict[str, Any]:
        document = a("item", id=name, links=[self.link("self", f"/item/{name}"), *links])
        self.server.route(f"/item/{name}", document)
        return document

    def items(self, path: str, *names: str, next_href: str | None = None) -> None:
        links = [] if next_href is None else [{"rel": "next", "href": next_href}]
        features = [self.item(name) for name in names]
        self.server.route(path, {"type": "FeatureCollection", "features": features, "links": links})

    def link(self, rel: str, path: str, **more: Any) -> dict[str, Any]:
        return {"rel": rel, "href": path if "://" in path else f"{self.url}{path}", **more}

    def read(self, path: str, reader: GitLabStacIO) -> pystac.Catalog:
        return pystac.Catalog.from_file(f"{self.url}{path}", stac_io=reader)


@pytest.fixture
def api(server: LoopbackServer) -> API:
    return API(server)


@pytest.mark.parametrize(
    ("link", "wanted"),
    [
        ({"href": "c/items"}, "/c/items?limit=100"),
        ({"href": "./c/items?f=json"}, "/c/items?f=json&limit=100"),
        ({"href": "/c/items?limit=3"}, "/c/items?limit=3"),
        ({"href": "c/items", "type": "application/json"}, "/c/items?limit=100"),
        ({"href": "c/items", "type": "application/geo+json; charset=utf-8"}, "/c/items?limit=100"),
        ({"href": "c/items", "type": "Application/Geo+JSON"}, "/c/items?limit=100"),
    ],
)
def test_an_items_link_is_followed_however_it_is_written(
    api: API, stac_io: GitLabStacIO, link: dict[str, Any], wanted: str
) -> None:
    api.catalog("/")
    api.collection("/c", {"rel": "items", **link})
    api.items("/c/items", "a", "b")
    assert ids(api.read("/c", stac_io).get_items()) == ["a", "b"]
    assert wanted in asked(api.server)


def test_of_several_items_links_the_one_with_stac_is_followed(
    api: API, stac_io: GitLabStacIO
) -> None:
    api.catalog("/")
    api.collection(
        "/c",
        api.link("items", "/c/items?f=html", type="text/html"),
        api.link("items", "/c/items?f=gml", type="application/gml+xml"),
        api.link("items", "/c/items", type="application/geo+json"),
    )
    api.items("/c/items", "a")
    assert ids(api.read("/c", stac_io).get_items()) == ["a"]
    assert asked(api.server)[-1] == "/c/items?limit=100"


def test_a_collection_with_only_html_items_has_none(api: API, stac_io: GitLabStacIO) -> None:
    api.catalog("/")
    api.collection("/c", api.link("items", "/c/items", type="text/html"))
    assert ids(api.read("/c", stac_io).get_items()) == []


def test_an_items_endpoint_under_another_name_is_scanned_for_ids(
    api: API, stac_io: GitLabStacIO
) -> None:
    api.catalog("/")
    api.collection("/c", api.link("items", "/search?collections=c"))
    api.items("/search", "a", "b")
    assert ids(api.read("/c", stac_io).get_items("b")) == ["b"]


def test_item_links_come_first_and_are_not_repeated(api: API, stac_io: GitLabStacIO) -> None:
    api.catalog("/")
    api.item("a")
    api.collection("/c", api.link("item", "/item/a"), api.link("items", "/c/items"))
    api.items("/c/items", "b", "a", "c")
    assert ids(api.read("/c", stac_io).get_items()) == ["a", "b", "c"]


def test_a_linked_item_is_found_by_id_without_asking_the_endpoint(
    api: API, stac_io: GitLabStacIO
) -> None:
    api.catalog("/")
    api.item("a")
    api.collection("/c", api.link("item", "/item/a"), api.link("items", "/c/items"))
    assert ids(api.read("/c", stac_io).get_items("a")) == ["a"]
    assert "/c/items/a" not in asked(api.server)


def test_no_item_has_an_empty_id(api: API, stac_io: GitLabStacIO) -> None:
    api.catalog("/")
    api.collection("/c", api.link("items", "/c/items"))
    api.items("/c/items/", "a")
    assert ids(api.read("/c", stac_io).get_items("")) == []


@pytest.mark.parametrize("number", [5, "5"])
def test_an_item_with_a_number_for_an_id_is_found(
    api: API, stac_io: GitLabStacIO, number: Any
) -> None:
    api.catalog("/")
    api.collection("/c", api.link("items", "/c/items"))
    api.server.route("/c/items/5", {**api.item("x"), "id": number})
    assert ids(api.read("/c", stac_io).get_items("5")) == [number]


def test_an_id_is_quoted_as_one_segment(api: API, stac_io: GitLabStacIO) -> None:
    api.catalog("/")
    api.collection("/c", api.link("items", "/c/items?key=v"))
    api.server.route("/c/items/a/b #?", api.item("a/b #?"))
    assert ids(api.read("/c", stac_io).get_items("a/b #?")) == ["a/b #?"]
    assert "/c/items/a%2Fb%20%23%3F?key=v" in asked(api.server)


def test_a_collection_that_is_reached_by_a_link_lists_its_items(
    api: API, stac_io: GitLabStacIO
) -> None:
    api.catalog("/", api.link("child", "/sub"))
    api.catalog("/sub", api.link("child", "/c"))
    api.collection("/c", api.link("items", "/c/items"))
    api.items("/c/items", "a")
    root = api.read("/", stac_io)
    assert ids(root.get_items(recursive=True)) == ["a"]
    assert asked(api.server) == ["/", "/sub", "/c", "/c/items?limit=100"]


def test_a_root_that_cannot_be_read_does_not_hide_the_items(
    api: API, stac_io: GitLabStacIO
) -> None:
    api.collection("/c", api.link("items", "/c/items"))
    api.items("/c/items", "a", "b")
    collection = api.read("/c", stac_io)
    items = list(collection.get_items())
    assert ids(items) == ["a", "b"]
    assert items[0].get_parent() is collection
    with pytest.raises(pystac.STACError) as caught:
        collection.get_root()
    assert isinstance(caught.value.__cause__, NotFoundError)


def paged_collections(api: API, *, child: bool = False) -> None:
    def listed(request: RecordedRequest) -> Any:
        last = request.query.get("page") == "2"
        links = [] if last else [{"rel": "next", "href": "collections?page=2"}]
        return {"collections": [second] if last else [first], "links": links}

    api.catalog("/", api.link("data", "/collections"), *[api.link("child", "/one")] * child)
    first = api.collection("/one", api.link("items", "/one/items"))
    second = api.collection("/two", api.link("items", "/two/items"))
    api.items("/one/items", "a")
    api.items("/two/items", "b")
    api.server.route("/collections", listed)


def test_a_landing_page_with_only_data_has_its_collections_as_children(
    api: API, stac_io: GitLabStacIO
) -> None:
    paged_collections(api)
    root = api.read("/", stac_io)
    assert asked(api.server) == ["/"]
    children = root.get_children()
    assert next(iter(children)).id == "one"
    assert asked(api.server) == ["/collections"]
    assert ids(root.get_collections()) == ["one", "two"]
    assert ids(root.get_items(recursive=True)) == ["a", "b"]
    two = root.get_child("two")
    assert two is not None
    assert two.get_parent() is root
    assert two.get_root() is root
    assert root.get_child("two") is two
    assert root.get_child("three") is None


def test_a_child_is_asked_for_by_its_id_where_there_is_a_list_of_collections(
    api: API, stac_io: GitLabStacIO
) -> None:
    paged_collections(api)
    api.collection("/collections/a/b c", id="a/b c")
    api.server.route("/data/collections", {"collections": []})
    root = api.read("/", stac_io)
    asked(api.server)
    child = root.get_child("a/b c")
    assert isinstance(child, pystac.Collection)
    assert child.get_parent() is child.get_root() is root
    assert asked(api.server) == ["/collections/a%2Fb%20c"]


def test_a_child_that_is_not_at_its_usual_place_is_looked_for_in_the_list(
    api: API, stac_io: GitLabStacIO
) -> None:
    paged_collections(api)
    root = api.read("/", stac_io)
    for status in (404, 400, 422):
        api.server.inject(Fault(path="/collections/two", status=status))
        two = root.get_child("two")
        assert two is not None
        assert two.id == "two"
    api.collection("/collections/two", id="another")
    assert root.get_child("two") is two
    assert root.get_child("") is None
    api.server.inject(Fault(path="/collections/two", status=403))
    with pytest.raises(PermissionDeniedError):
        root.get_child("two")


def test_a_child_is_asked_for_by_its_id_before_links_that_do_not_look_like_it(
    api: API, stac_io: GitLabStacIO
) -> None:
    links = [api.link("child", f"/c{n}") for n in range(5)]
    api.catalog("/", api.link("data", "/collections"), *links)
    for number in range(5):
        api.collection(f"/c{number}")
    api.collection("/collections/lakes", id="lakes")
    root = api.read("/", stac_io)
    asked(api.server)
    assert root.get_child("lakes") is not None
    assert asked(api.server) == ["/collections/lakes"]
    assert root.get_child("c3") is not None
    assert asked(api.server) == ["/c3"]
    assert root.get_child("none") is None
    # Links are followed several at a time, if the server takes noticeable time.
    assert sorted(asked(api.server)) == ["/c0", "/c1", "/c2", "/c4", "/collections/none"]
    assert root.get_child("none") is None
    assert asked(api.server) == [], "all that there is is known"


def test_collections_without_links_to_themselves_cost_no_request(
    api: API, stac_io: GitLabStacIO
) -> None:
    paged_collections(api)
    bare = api.collection("/bare", api.link("parent", "/nowhere"))
    bare["links"] = [link for link in bare["links"] if link["rel"] != "self"]
    api.server.route("/collections", {"collections": [bare]})
    assert ids(api.read("/", stac_io).get_children()) == ["bare"]
    assert asked(api.server) == ["/", "/collections"]


def test_child_links_are_preferred_to_the_list_of_collections(
    api: API, stac_io: GitLabStacIO
) -> None:
    paged_collections(api, child=True)
    assert ids(api.read("/", stac_io).get_children()) == ["one"]
    assert "/collections" not in asked(api.server)


@pytest.mark.parametrize(
    "bad",
    [
        *(None, 5, "x", {}, {"id": "c", "type": "Collection"}),
        a("collection", id="bad", extent={"spatial": {"bbox": [[0]]}, "temporal": {}}),
        {name: value for name, value in a("collection", id="bad").items() if name != "license"},
    ],
)
def test_a_broken_collection_does_not_end_the_list(
    api: API, stac_io: GitLabStacIO, bad: Any
) -> None:
    api.catalog("/", api.link("data", "/collections"))
    good = [a("collection", id="one"), a("collection", id="two")]
    api.server.route("/collections", {"collections": [good[0], bad, good[1]]})
    with pytest.warns(UnreadableItemWarning, match="Left out.*collection") as warned:
        assert ids(api.read("/", stac_io).get_children()) == ["one", "two"]
    with pytest.warns(UnreadableItemWarning):
        assert ids(STACAPI(f"{api.url}/", stac_io=stac_io).collections()) == ["one", "two"]
    assert len(warned) == 1
    with (
        GitLabStacIO(on_bad_item="raise") as strict,
        pytest.raises(InvalidResponseError, match="/collections"),
    ):
        list(api.read("/", strict).get_children())


BROKEN_MEMBERS: dict[str, Any] = {
    "missing": Answer(404),
    "forbidden": Answer(403),
    "failing": Answer(500),
    "no JSON": b"{oops",
    "a page": {"type": "FeatureCollection", "features": []},
    "a web page": "<!DOCTYPE html><html><p>Gone",
    "no datetime": a("item", properties={}),
    "no id": {name: value for name, value in a("item").items() if name != "id"},
}


@pytest.mark.parametrize("rel", ["item", "child"])
@pytest.mark.parametrize("how", [*BROKEN_MEMBERS, "another type"])
def test_a_broken_link_does_not_end_a_listing(api: API, how: str, rel: str) -> None:
    kind = {"item": "item", "child": "catalog"}
    other = a(kind["item" if rel == "child" else "child"], id="other")
    api.server.route("/x", BROKEN_MEMBERS.get(how, other))
    for name in ("one", "two"):
        api.server.route(f"/{name}", a(kind[rel], id=name))
    api.catalog("/", *(api.link(rel, f"/{name}") for name in ("one", "x", "two")))
    method = "get_items" if rel == "item" else "get_children"
    with GitLabStacIO(retry=RetryPolicy(max_attempts=1)) as lenient:
        root = api.read("/", lenient)
        with pytest.warns(UnreadableItemWarning) as warned:
            assert ids(getattr(root, method)()) == ["one", "two"]
    assert len(warned) == 1
    with GitLabStacIO(retry=RetryPolicy(max_attempts=1), on_bad_item="raise") as strict:
        root = api.read("/", strict)
        with pytest.raises((pystac.STACError, InvalidResponseError)):
            list(getattr(root, method)())


def test_a_server_that_refuses_everything_ends_a_listing(api: API, stac_io: GitLabStacIO) -> None:
    api.server.route("/x", Answer(401))
    api.catalog("/", api.link("item", "/x"))
    with pytest.raises(pystac.STACError) as caught:
        list(api.read("/", stac_io).get_items())
    assert isinstance(caught.value.__cause__, AuthenticationError)


def test_what_pystac_refuses_is_left_out_with_a_warning(api: API, stac_io: GitLabStacIO) -> None:
    api.catalog("/")
    api.collection("/c", api.link("items", "/c/items"))
    bad = api.item("bad")
    bad["properties"] = {"datetime": "the day before yesterday"}
    page = {"type": "FeatureCollection", "features": [api.item("a"), bad, api.item("b")]}
    api.server.route("/c/items", page)
    with pytest.warns(UnreadableItemWarning, match="item 'bad'.*pystac cannot make"):
        assert ids(api.read("/c", stac_io).get_items()) == ["a", "b"]
    with GitLabStacIO(on_bad_item="raise") as strict:
        items = api.read("/c", strict).get_items()
        assert next(items).id == "a"
        with pytest.raises(InvalidResponseError, match="pystac cannot make"):
            next(items)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("links", [{"rel": "self"}], "links[0].href"),
        ("links", [{"rel": "self", "href": 5}], "links[0].href"),
        ("assets", {"k": {}}, "assets['k'].href"),
        ("properties", None, "properties"),
    ],
)
def test_an_item_collection_with_a_broken_item_is_an_error_that_names_the_field(
    api: API, stac_io: GitLabStacIO, place: str, value: Any, named: str
) -> None:
    page = {"type": "FeatureCollection", "features": [{**api.item("a"), place: value}]}
    api.server.route("/items", page)
    with pytest.raises(InvalidResponseError) as caught:
        ItemCollection.from_file(f"{api.url}/items", stac_io=stac_io)
    assert named in str(caught.value)


def test_a_summary_that_pystac_refuses_is_an_error_of_ours(api: API, stac_io: GitLabStacIO) -> None:
    api.collection("/c", summaries={"n": {"minimum": None, "maximum": 1}})
    with pytest.raises(InvalidResponseError, match="RequiredPropertyMissing"):
        api.read("/c", stac_io)


def test_an_error_behind_a_link_is_the_cause_of_pystacs_error(api: API) -> None:
    api.catalog("/", api.link("child", "/gone"), api.link("child", "/broken"))
    api.server.route("/broken", {"type": "Catalog", "stac_version": "1.0.0"})
    with GitLabStacIO(on_bad_item="raise") as strict:
        root = api.read("/", strict)
        for name, cause in (("gone", NotFoundError), ("broken", InvalidResponseError)):
            with pytest.raises(pystac.STACError, match=name) as caught:
                root.get_child(name)
            assert isinstance(caught.value.__cause__, cause)


# -- what is not ours -----------------------------------------------------------------------


def test_objects_of_another_reader_never_touch_ours(
    api: API, stac_io: GitLabStacIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    paged_collections(api)
    api.item("x")
    api.collection("/c", api.link("item", "/item/x"), api.link("items", "/c/items"))
    pystac.StacIO.set_default(stac_io)

    def touched(*_: Any, **__: Any) -> Any:
        raise AssertionError("our reader was asked")

    for name in ("read_text", "read_json", "read_page"):
        monkeypatch.setattr(GitLabStacIO, name, touched)
    stock = DefaultStacIO()
    root = pystac.Catalog.from_file(f"{api.url}/", stac_io=stock)
    assert ids(root.get_children()) == []
    assert ids(root.get_items(recursive=True)) == []
    collection = pystac.Collection.from_file(f"{api.url}/c", stac_io=stock)
    assert ids(collection.get_items()) == ["x"]
    assert ids(collection.get_items("x", "a")) == ["x"]
    assert ids(collection.get_items(recursive=True)) == ["x"]
    with pytest.raises(pystac.STACTypeError) as caught:
        pystac.Catalog.from_file(f"{api.url}/c", stac_io=stock)
    assert type(caught.value) is pystac.STACTypeError
    broken = {"type": "FeatureCollection", "stac_version": "1.0.0", "features": [{}]}
    api.server.route("/items", broken)
    with pytest.raises(pystac.STACTypeError) as caught:
        ItemCollection.from_file(f"{api.url}/items", stac_io=stock)
    assert type(caught.value) is pystac.STACTypeError


def test_a_catalog_made_in_memory_is_stock() -> None:
    catalog = pystac.Catalog("c", "d")
    catalog.add_link(pystac.Link("items", "https://nowhere.example.org/items"))
    catalog.add_link(pystac.Link("data", "https://nowhere.example.org/collections"))
    assert list(catalog.get_items()) == []
    assert list(catalog.get_items("a", recursive=True)) == []
    assert list(catalog.get_children()) == []


def test_a_catalog_of_an_api_is_not_saved_without_its_items_in_silence(
    api: API, stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    api.catalog("/")
    api.collection("/c", api.link("items", "/c/items"))
    collection = api.read("/c", stac_io)
    with pytest.warns(IncompleteListingWarning, match=r"call materialize\(catalog\) first"):
        collection.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)


@pytest.mark.parametrize("declares", [True, False])
def test_a_collection_without_links_to_items_is_asked_at_its_usual_place(
    api: API, stac_io: GitLabStacIO, declares: bool
) -> None:
    classes = ["https://api.stacspec.org/v1.0.0/ogcapi-features"] if declares else []
    api.server.route("/", a("catalog", conformsTo=classes))
    api.collection("/collections/all", id="all")
    api.items("/collections/all/items", "a")
    found = api.read("/collections/all", stac_io).get_items()
    assert ids(found) == (["a"] if declares else [])


# -- the table ------------------------------------------------------------------------------


def page_of(*features: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features), "links": []}


@pytest.fixture
def unhooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """pystac without the hooks."""
    for hook in all_hooks():
        hooked = hook.owner.__dict__.get(hook.method)
        stock: Any = getattr(hooked, "__func__", hooked)
        if hasattr(stock, "__wrapped__"):
            stock = stock.__wrapped__
            stock = classmethod(stock) if isinstance(hooked, classmethod) else stock
            monkeypatch.setattr(hook.owner, hook.method, stock)


def test_the_table_lists_exactly_what_is_changed() -> None:
    pytest.importorskip("pystac_client")
    hooks = all_hooks()
    modules = [m for m in list(sys.modules.values()) if m.__name__.startswith("pystac")]
    classes = {c for m in modules for c in vars(m).values() if isinstance(c, type)}
    changed = {
        (owner, name)
        for owner in (*classes, *modules)
        for name, value in vars(owner).items()
        if getattr(getattr(value, "__func__", value), pystac_hooks._MARK, False)
        and (isinstance(owner, type) or value.__module__ == owner.__name__)
    }
    assert changed == {(hook.owner, hook.method) for hook in hooks}


def test_the_documentation_lists_every_hook_with_its_reason() -> None:
    page = Path(__file__).parents[2] / "docs" / "how-it-works.md"
    rows = [line.split("|")[1:3] for line in page.read_text("utf-8").splitlines() if "|" in line]
    documented = {name.strip(" `"): why.strip() for names, why in rows for name in names.split(",")}
    hooks = {f"{h.owner.__name__}.{h.method}": h.reason for h in pystac_hooks.HOOKS}
    assert {name: why for name, why in documented.items() if "." in name} == hooks


def test_every_hook_has_a_reason_and_a_test() -> None:
    for hook in all_hooks():
        assert hook.reason
        assert callable(globals()[hook.test])


def test_installing_again_changes_nothing() -> None:
    before = [getattr(hook.owner, hook.method) for hook in all_hooks()]
    pystac_hooks.install()
    pystac_hooks.install(all_hooks())
    assert [getattr(hook.owner, hook.method) for hook in all_hooks()] == before


@pytest.mark.parametrize("hook", all_hooks(), ids=lambda h: f"{h.owner.__name__}.{h.method}")
def test_what_is_hooked_still_shows_its_name_and_its_signature(hook: pystac_hooks.Hook) -> None:
    pytest.importorskip("pystac_client")
    importlib.import_module("stac_gitlab.search")
    hooked = getattr(hook.owner, hook.method)
    assert hooked.__name__ == hook.method
    stock = hooked.__wrapped__
    assert inspect.signature(getattr(hooked, "__func__", hooked)) == inspect.signature(stock)


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_lists_no_items_of_an_api(api: API, stac_io: GitLabStacIO) -> None:
    api.catalog("/", api.link("items", "/items"))
    api.items("/items", "a")
    assert list(api.read("/", stac_io).get_items()) == []


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_reads_all_children_before_the_first_item(
    api: API, stac_io: GitLabStacIO
) -> None:
    for name in ("/one", "/two"):
        api.catalog(name, api.link("item", "/item"))
    api.server.route("/item", api.item("a"))
    api.catalog("/", api.link("child", "/one"), api.link("child", "/two"))
    next(api.read("/", stac_io).get_items(recursive=True))
    assert "/two" in asked(api.server)


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_finds_no_child_in_a_list_of_collections(
    api: API, stac_io: GitLabStacIO
) -> None:
    paged_collections(api)
    assert api.read("/", stac_io).get_child("one") is None


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_forgets_the_reader_of_an_item(api: API, stac_io: GitLabStacIO) -> None:
    api.server.route("/item", api.item("a"))
    item = pystac.Item.from_file(f"{api.url}/item", stac_io=stac_io)
    assert getattr(item, "_stac_io", None) is None
    api.collection("/c")
    with pytest.raises(pystac.STACTypeError):
        api.read("/c", stac_io)


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_forgets_the_reader_of_an_item_collection(
    api: API, stac_io: GitLabStacIO
) -> None:
    api.server.route("/items", page_of(api.item("a")))
    [item] = ItemCollection.from_file(f"{api.url}/items", stac_io=stac_io).items
    assert getattr(item, "_stac_io", None) is None


@pytest.mark.usefixtures("unhooked", "stock_default_reader")
def test_stock_pystac_makes_a_new_default_reader_each_time() -> None:
    pystac.StacIO.set_default(GitLabStacIO)
    assert pystac.StacIO.default() is not pystac.StacIO.default()


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_forgets_the_reader_of_a_clone(api: API, stac_io: GitLabStacIO) -> None:
    api.catalog("/")
    assert api.read("/", stac_io).clone()._stac_io is None


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_finds_no_target_of_an_empty_href(api: API, stac_io: GitLabStacIO) -> None:
    api.server.route("/catalog", a("catalog", links=[{"rel": "root", "href": ""}]))
    with pytest.raises(ValueError, match="without a target"):
        api.read("/catalog", stac_io).get_root()


def requests_for_relations(hub: SharingHubServer, stac_io: GitLabStacIO) -> dict[str, int]:
    item = pystac.read_file(hub.item_url("group/lakes"), stac_io=stac_io)
    assert isinstance(item, pystac.Item)
    hub.clear_requests()
    counts = {}
    for name in ("to_dict", "get_parent", "get_collection", "get_root"):
        getattr(item, name)()
        counts[name] = len(hub.requests)
    return counts


def test_the_collection_of_an_item_is_read_once(
    hub: SharingHubServer, stac_io: GitLabStacIO
) -> None:
    counts = requests_for_relations(hub, stac_io)
    assert counts == {"to_dict": 0, "get_parent": 1, "get_collection": 2, "get_root": 2}
    item = pystac.Item.from_file(hub.item_url("group/lakes"), stac_io=stac_io)
    hub.clear_requests()
    assert item.get_collection() is item.get_parent()
    assert len(hub.requests) == 2
    root = item.get_root()
    assert root is not None
    assert root.get_self_href() == f"{hub.stac_url}/"


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_reads_the_root_for_a_dictionary(
    hub: SharingHubServer, stac_io: GitLabStacIO
) -> None:
    counts = requests_for_relations(hub, stac_io)
    # Its collection, too, is read twice: as the parent and as the collection.
    assert counts == {"to_dict": 1, "get_parent": 2, "get_collection": 3, "get_root": 3}


def test_an_unpickled_item_becomes_a_dictionary_without_a_request(
    hub: SharingHubServer, datasets: pystac.Collection
) -> None:
    item = next(datasets.get_items())
    again = pickle.loads(pickle.dumps(item))
    hub.clear_requests()
    assert again.to_dict() == item.to_dict()
    assert hub.requests == []


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_cannot_copy_a_link_without_a_target() -> None:
    with pytest.raises(ValueError, match="No target"):
        Link("about", "").clone()


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_reads_a_local_schema_for_a_remote_document(tmp_path: Path) -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "not": {}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    name = ExtensionName.of(str(tmp_path / "schema.json"), url="https://hub.example.org/item")
    with pytest.raises(pystac.errors.STACValidationError, match="against schema at /"):
        JsonSchemaSTACValidator().validate_extension(
            a("item"), pystac.STACObjectType.ITEM, "1.0.0", name
        )


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_copies_a_deep_catalog_until_python_stops_it(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    for level in range(1000):
        catalog_at(server, f"/{level}", ("child", f"/{level + 1}"))
    catalog = pystac.Catalog.from_file(f"{server.url}/0", stac_io=stac_io)
    with pytest.raises((RecursionError, pystac.STACError)) as caught:
        catalog.full_copy()
    assert isinstance(
        caught.value.__cause__ or caught.value, (RecursionError, InvalidResponseError)
    )


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_makes_paths_of_any_id(tmp_path: Path) -> None:
    catalog = pystac.Catalog("root", "d")
    catalog.add_child(pystac.Catalog("../../out", "d"))
    catalog.normalize_hrefs(str(tmp_path))
    [child] = catalog.get_children()
    assert not os.path.abspath(child.self_href).startswith(str(tmp_path))


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_saves_an_api_without_items(
    api: API, stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    api.catalog("/")
    api.collection("/c", api.link("items", "/c/items"))
    collection = pystac.Collection.from_file(f"{api.url}/c", stac_io=stac_io)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collection.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    assert [path.name for path in tmp_path.rglob("*.json")] == ["collection.json"]


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("cls", [pystac.Item, pystac.Catalog, pystac.Collection])
def test_stock_pystac_fails_over_a_broken_document(cls: type[pystac.STACObject]) -> None:
    kind = cls.__name__.lower()
    with pytest.raises((KeyError, AttributeError, pystac.STACTypeError)):
        cls.from_dict({**a(kind), "links": [{}]})


# -- memory and threads ---------------------------------------------------------------------


def test_items_are_yielded_and_not_hoarded() -> None:
    hub = SharingHubServer(generated_projects(3000), token=TOKEN)
    with hub, GitLabStacIO(TOKEN, page_size=100) as reader:
        root = pystac.Catalog.from_file(hub.stac_url, stac_io=reader)
        items = root.get_items(recursive=True)
        for _ in range(300):
            next(items)
        cached = len(root._resolved_objects.hrefs_to_objects)
        hub.clear_requests()
        tracemalloc.start()
        try:
            for _ in range(300):
                next(items)
            gc.collect()
            tracemalloc.reset_peak()
            early, _ = tracemalloc.get_traced_memory()
            count = sum(1 for _ in items)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count == 2400
        assert len(root._resolved_objects.hrefs_to_objects) == cached == 3
    # 2,400 items kept would be some 20 MB; a page is below one, and garbage may wait.
    assert peak - early < 14 * 2**20


def test_sixteen_threads_walk_through_one_reader(hub: SharingHubServer) -> None:
    with GitLabStacIO(TOKEN, page_size=2) as reader, ThreadPoolExecutor(16) as pool:

        def walk(_: int) -> list[str]:
            root = pystac.Catalog.from_file(hub.stac_url, stac_io=reader)
            return ids(root.get_items(recursive=True))

        assert list(pool.map(walk, range(48))) == [["models/net", *DATASETS]] * 48
    assert {r.headers.get("X-Gitlab-Token") for r in hub.requests} == {TOKEN}


def test_sixteen_threads_walk_one_catalog(root: pystac.Catalog) -> None:
    with ThreadPoolExecutor(16) as pool:
        walks = list(pool.map(lambda _: ids(root.get_items(recursive=True)), range(48)))
    assert walks == [["models/net", *DATASETS]] * 48


# -- materialize ----------------------------------------------------------------------------


def saved_items(folder: Path) -> list[str]:
    stock = pystac.Catalog.from_file(next(folder.glob("c*.json")), stac_io=DefaultStacIO())
    return ids(stock.get_items(recursive=True))


def test_a_materialized_root_saves_and_reads_back_without_us(
    root: pystac.Catalog, tmp_path: Path
) -> None:
    assert materialize(root) is root
    root.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    assert saved_items(tmp_path) == ["models/net", *DATASETS]
    text = "".join(p.read_text() for p in tmp_path.rglob("*.json"))
    assert TOKEN not in text
    assert "gitlab_token" not in text


def test_a_materialized_collection_saves_with_its_items(
    datasets: pystac.Collection, tmp_path: Path
) -> None:
    materialize(datasets)
    datasets.set_root(datasets)
    datasets.set_parent(None)
    datasets.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    stock = pystac.Collection.from_file(str(tmp_path / "collection.json"), stac_io=DefaultStacIO())
    assert ids(stock.get_items()) == DATASETS


def test_what_is_saved_is_what_the_server_said(root: pystac.Catalog, tmp_path: Path) -> None:
    before = {i.id: i.to_dict()["properties"] for i in root.get_items(recursive=True)}
    materialize(root).normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    documents = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    after = {d["id"]: d["properties"] for d in documents if d["type"] == "Feature"}
    assert after == before


def test_nothing_that_is_saved_points_back_to_the_listings(
    root: pystac.Catalog, tmp_path: Path
) -> None:
    materialize(root).normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    for path in tmp_path.rglob("*.json"):
        rels = {link["rel"] for link in json.loads(path.read_text())["links"]}
        assert not rels & {"items", "data"}, path


def test_materialized_items_cost_no_further_request(
    hub: SharingHubServer, root: pystac.Catalog
) -> None:
    materialize(root)
    asked(hub)
    assert ids(root.get_items(recursive=True)) == ["models/net", *DATASETS]
    assert ids(root.get_items("group/lakes", recursive=True)) == ["group/lakes"]
    copied = root.full_copy()
    assert ids(copied.get_items(recursive=True)) == ["models/net", *DATASETS]
    assert asked(hub) == []


def test_map_items_works_on_a_copy(hub: SharingHubServer, root: pystac.Catalog) -> None:
    materialize(root)
    asked(hub)

    def tagged(item: pystac.Item) -> pystac.Item:
        item.properties["tag"] = "x"
        return item

    mapped = root.map_items(tagged)
    assert [i.properties.get("tag") for i in mapped.get_items(recursive=True)] == ["x"] * 4
    assert [i.properties.get("tag") for i in root.get_items(recursive=True)] == [None] * 4
    assert asked(hub) == []


def test_generate_subcatalogs_sorts_the_items(root: pystac.Catalog, tmp_path: Path) -> None:
    materialize(root)
    made = root.generate_subcatalogs("${year}")
    assert made
    assert sorted(ids(root.get_items(recursive=True))) == sorted(["models/net", *DATASETS])
    assert all(not list(c.get_item_links()) for c in root.get_collections())
    root.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    assert sorted(saved_items(tmp_path)) == sorted(["models/net", *DATASETS])


def test_materializing_twice_changes_nothing(hub: SharingHubServer, root: pystac.Catalog) -> None:
    first = [(c.id, len(c.links)) for c, _, _ in materialize(root).walk()]
    asked(hub)
    assert [(c.id, len(c.links)) for c, _, _ in materialize(root).walk()] == first
    assert asked(hub) == []


@pytest.mark.parametrize("most", [0, 1, 2, 4, 9])
def test_max_items_counts_over_all_collections(root: pystac.Catalog, most: int) -> None:
    materialize(root, max_items=most)
    assert ids(root.get_items(recursive=True)) == ["models/net", *DATASETS][:most]


def test_max_items_asks_for_no_page_too_many() -> None:
    hub = SharingHubServer(generated_projects(50), token=TOKEN)
    with hub, GitLabStacIO(TOKEN, page_size=10) as reader:
        collection = pystac.Collection.from_file(dataset_url(hub), stac_io=reader)
        materialize(collection, max_items=1)
        pages = [r for r in hub.requests if r.path.endswith("/items")]
        assert len(pages) == 1
        other = pystac.Collection.from_file(dataset_url(hub), stac_io=reader)
        hub.clear_requests()
        materialize(other, max_items=0)
        assert not [r for r in hub.requests if r.path.endswith("/items")]


def test_a_landing_page_with_only_data_is_materialized_into_child_links(
    api: API, stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    paged_collections(api)
    root = api.read("/", stac_io)
    materialize(root).normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    assert saved_items(tmp_path) == ["a", "b"]


def test_item_links_survive_beside_materialized_ones(api: API, stac_io: GitLabStacIO) -> None:
    api.catalog("/")
    api.item("a")
    api.collection("/c", api.link("item", "/item/a"), api.link("items", "/c/items"))
    api.items("/c/items", "a", "b")
    collection = api.read("/c", stac_io)
    materialize(collection)
    assert ids(collection.get_items()) == ["a", "b"]
    assert len(collection.get_item_links()) == 2


def test_the_class_as_default_reader_is_one_reader() -> None:
    pystac.StacIO.set_default(GitLabStacIO)
    reader = pystac.StacIO.default()
    assert isinstance(reader, GitLabStacIO)
    assert pystac.StacIO.default() is reader


def test_another_class_as_default_reader_is_made_anew_each_time_as_in_pystac() -> None:
    pystac.StacIO.set_default(DefaultStacIO)
    assert pystac.StacIO.default() is not pystac.StacIO.default()


def test_a_collection_that_was_read_by_itself_is_saved_to_stand_by_itself(tmp_path: Path) -> None:
    with SharingHubServer(sample_projects(), token=TOKEN) as hub, GitLabStacIO(TOKEN) as stac_io:
        url = f"{hub.stac_url}/collections/dataset"
        collection = materialize(pystac.Collection.from_file(url, stac_io=stac_io))
        collection.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    saved = pystac.Collection.from_file(tmp_path / "collection.json", stac_io=DefaultStacIO())
    items = list(saved.get_items())
    assert len(items) == 2
    assert {item.get_root().id for item in items} == {"dataset"}
    assert {item.get_parent().id for item in items} == {"dataset"}


@pytest.mark.parametrize("kind", ["catalog", "collection", "item"])
def test_a_clone_has_fields_of_its_own(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(json.dumps(a(kind, nested={})))
    original = pystac.read_file(path, stac_io=GitLabStacIO())
    original.clone().extra_fields["nested"]["more"] = 1
    assert original.extra_fields["nested"] == {}


def test_a_clone_keeps_the_reader() -> None:
    with SharingHubServer(sample_projects(), token=TOKEN) as hub, GitLabStacIO(TOKEN) as stac_io:
        collection = pystac.Collection.from_file(f"{hub.stac_url}/collections/dataset", stac_io)
        assert [item.id for item in collection.clone().get_items()] == [
            item.id for item in collection.get_items()
        ]


# -- catalogs without an end ----------------------------------------------------------------------


def catalog_at(server: LoopbackServer, path: str, *links: tuple[str, str]) -> dict[str, Any]:
    document = a(
        "catalog",
        id=path.strip("/"),
        links=[{"rel": rel, "href": f"{server.url}{href}"} for rel, href in links],
    )
    server.route(path, document)
    return document


def lead_in_circles(server: LoopbackServer, how: str) -> pystac.Catalog:
    if how == "itself":
        catalog_at(server, "/a", ("child", "/a"), ("root", "/a"))
    elif how == "its parent":
        catalog_at(server, "/a", ("child", "/b"), ("root", "/a"))
        catalog_at(server, "/b", ("child", "/a"), ("parent", "/a"), ("root", "/a"))
    elif how == "roots that change":
        catalog_at(server, "/a", ("child", "/b"), ("root", "/b"), ("parent", "/b"))
        catalog_at(server, "/b", ("child", "/a"), ("root", "/a"), ("parent", "/a"))
    elif how == "a list of itself":
        catalog_at(server, "/a", ("data", "/list"))
        listed = a("collection")
        itself = [{"rel": "self", "href": f"{server.url}/a"}]
        server.route("/list", {"collections": [{**listed, "links": itself}], "links": []})
    else:
        for level in range(300):
            catalog_at(server, f"/a{level}", ("child", f"/a{level + 1}"))
        catalog_at(server, "/a", ("child", "/a0"))
    return pystac.Catalog.from_file(f"{server.url}/a")


WALKS: dict[str, Callable[[pystac.Catalog], Any]] = {
    "get_items": lambda catalog: list(catalog.get_items(recursive=True)),
    "get_child": lambda catalog: catalog.get_child("none", recursive=True),
    "walk": lambda catalog: list(catalog.walk()),
    "fully_resolve": lambda catalog: catalog.fully_resolve(),
    "full_copy": lambda catalog: catalog.full_copy(),
    "materialize": materialize,
    "save": lambda catalog: catalog.normalize_and_save("unused", "SELF_CONTAINED"),
}


CIRCLES = ("itself", "its parent", "roots that change", "a list of itself", "no end")
# These go by links, and there is none to what is listed.
HARMLESS = {("a list of itself", "full_copy"), ("a list of itself", "save")}


@pytest.mark.parametrize(
    ("how", "walk"),
    [(how, walk) for how in CIRCLES for walk in WALKS if (how, walk) not in HARMLESS],
)
def test_a_catalog_that_has_no_end_is_an_error(
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    how: str,
    walk: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pystac.StacIO.set_default(stac_io)
    with pytest.raises(InvalidResponseError, match="would not end"):
        WALKS[walk](lead_in_circles(server, how))
    assert os.listdir(tmp_path) == []


def test_a_catalog_may_be_as_deep_as_pystac_can_go(
    server: LoopbackServer, stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    pystac.StacIO.set_default(stac_io)
    for level in range(MAX_LEVELS):
        catalog_at(server, f"/{level}", ("child", f"/{level + 1}"), ("root", "/0"))
    catalog_at(server, f"/{MAX_LEVELS}", ("root", "/0"))
    catalog = pystac.Catalog.from_file(f"{server.url}/0")
    assert len(list(catalog.walk())) == MAX_LEVELS + 1
    assert list(catalog.get_items(recursive=True)) == []
    catalog.full_copy().normalize_hrefs(str(tmp_path))


def test_an_id_with_half_a_character_is_nowhere(datasets: pystac.Collection) -> None:
    assert list(datasets.get_items("\ud800")) == []


@pytest.mark.usefixtures("unhooked")
def test_stock_pystac_client_refuses_a_collection_with_a_foreign_error(api: API) -> None:
    client = pytest.importorskip("pystac_client")
    api.server.route("/c", a("collection"))
    with pytest.raises(client.errors.ClientTypeError) as caught:
        client.Client.open(f"{api.url}/c")
    assert not isinstance(caught.value, client.exceptions.APIError)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.filterwarnings("ignore")
def test_stock_pystac_client_writes_ids_into_urls_as_they_are(api: API) -> None:
    client = pytest.importorskip("pystac_client")
    features = "https://api.stacspec.org/v1.0.0/ogcapi-features"
    api.server.route("/", a("catalog", conformsTo=[features]))
    items = {"rel": "items", "href": f"{api.url}/collections/a/items"}
    api.server.route("/collections/a", a("collection", id="a", links=[items]))
    api.server.route("/collections/a/items/b", a("item", id="b"))
    collection = client.Client.open(f"{api.url}/").get_collection("a?x")
    assert collection.id == "a"
    assert collection.get_item("b#x").id == "b"
