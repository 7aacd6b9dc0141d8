"""The items and children of a static catalog are read several at a time, in their order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pystac
import pytest
from stac_documents import a

from stac_gitlab import GitLabStacIO, UnreadableItemWarning
from stac_gitlab.reading.read_ahead import WIDTH
from stac_gitlab.testing import Fault, LoopbackServer, RecordedRequest

COUNT = 60


@pytest.fixture
def catalog(server: LoopbackServer) -> Iterator[pystac.Catalog]:
    """A catalog of many items, behind a root of its own."""
    links = [{"rel": "item", "href": f"./item-{n}.json"} for n in range(COUNT)]
    server.route("/catalog.json", a("catalog", links=links))
    for n in range(COUNT):
        server.route(f"/item-{n}.json", a("item", id=f"i{n}"))
    with GitLabStacIO() as reader:
        yield pystac.Catalog.from_file(f"{server.url}/catalog.json", stac_io=reader)


def ids(items: Iterator[pystac.Item]) -> list[str]:
    return [item.id for item in items]


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "stac-gitlab-link"]


@pytest.mark.usefixtures("always_ahead")
def test_all_items_come_in_order_and_once(catalog: pystac.Catalog, server: LoopbackServer) -> None:
    assert ids(catalog.get_items()) == [f"i{n}" for n in range(COUNT)]
    assert ids(catalog.get_items()) == [f"i{n}" for n in range(COUNT)]
    assert len(server.requests) == 1 + COUNT


@pytest.mark.usefixtures("always_ahead")
def test_items_are_read_at_the_same_time(catalog: pystac.Catalog, server: LoopbackServer) -> None:
    together = threading.Barrier(WIDTH)

    def answer(request: RecordedRequest) -> Any:
        if "item-0." not in request.path and int(request.path[6:-5]) <= WIDTH:
            together.wait(30)
        return a("item", id=f"i{request.path[6:-5]}")

    for n in range(COUNT):
        server.route(f"/item-{n}.json", answer)
    assert ids(catalog.get_items()) == [f"i{n}" for n in range(COUNT)]


@pytest.mark.usefixtures("always_ahead")
def test_the_first_item_costs_one_request_and_later_ones_a_bounded_number(
    catalog: pystac.Catalog, server: LoopbackServer
) -> None:
    items = catalog.get_items()
    next(items)
    assert len(server.requests) == 2
    next(items)
    for thread in threads():
        thread.join(10)
    assert len(server.requests) == 3 + WIDTH


@pytest.mark.usefixtures("always_ahead")
def test_a_caller_that_stops_cancels_what_is_under_way(
    catalog: pystac.Catalog, server: LoopbackServer
) -> None:
    items = catalog.get_items()
    next(items)
    server.inject(Fault(path=r"item-[2-9]\.", delay=60, times=None))
    next(items)
    items.close()  # type: ignore[attr-defined]  # a generator
    for thread in threads():
        thread.join(10)
    assert threads() == []


@pytest.mark.usefixtures("always_ahead")
def test_a_broken_item_is_left_out_in_its_place(
    catalog: pystac.Catalog, server: LoopbackServer
) -> None:
    server.inject(Fault(path="item-7.json", status=404, times=None))
    items = catalog.get_items()
    assert ids(next(items) for _ in range(7)) == [f"i{n}" for n in range(7)]
    with pytest.warns(UnreadableItemWarning, match="item-7"):
        assert next(items).id == "i8"


@pytest.mark.usefixtures("always_ahead")
def test_two_links_to_one_item_read_it_once(server: LoopbackServer) -> None:
    links = [{"rel": "item", "href": f"./item-{n % 3}.json"} for n in range(12)]
    server.route("/catalog.json", a("catalog", links=links))
    for n in range(3):
        server.route(f"/item-{n}.json", a("item", id=f"i{n}"))
    with GitLabStacIO() as reader:
        catalog = pystac.Catalog.from_file(f"{server.url}/catalog.json", stac_io=reader)
        assert ids(catalog.get_items()) == [f"i{n % 3}" for n in range(12)]
    assert len(server.requests) == 4


@pytest.mark.usefixtures("always_ahead")
def test_a_walk_reads_children_ahead(server: LoopbackServer) -> None:
    links = [{"rel": "child", "href": f"./c{n}/catalog.json"} for n in range(5)]
    server.route("/catalog.json", a("catalog", links=links))
    for n in range(5):
        inner = [{"rel": "item", "href": f"./{k}.json"} for k in range(3)]
        server.route(f"/c{n}/catalog.json", a("catalog", id=f"c{n}", links=inner))
        for k in range(3):
            server.route(f"/c{n}/{k}.json", a("item", id=f"i{n}{k}"))
    with GitLabStacIO() as reader:
        catalog = pystac.Catalog.from_file(f"{server.url}/catalog.json", stac_io=reader)
        found = [item.id for _, _, items in catalog.walk() for item in items]
    assert found == [f"i{n}{k}" for n in range(5) for k in range(3)]
    assert len(server.requests) == 1 + 5 + 15


def test_a_fast_server_is_asked_for_one_at_a_time(
    catalog: pystac.Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stac_gitlab.reading.paging.LONG_WAIT", 60)
    assert len(ids(catalog.get_items())) == COUNT
    assert threads() == []
