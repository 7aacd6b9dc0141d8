"""Odd documents: what stock pystac reads, we read, with the same result."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pystac
import pytest
from pystac.item_collection import ItemCollection
from pystac.stac_io import DefaultStacIO
from stac_documents import a

from stac_gitlab import GitLabStacIO, RetryPolicy, STACGitLabError
from stac_gitlab.testing import LoopbackServer

GONE = object()
ODD = (GONE, None, "", 0, 1.5, True, [], {}, ["x"], {"x": 1}, "text", [None], [[]], -1)
WEB = "https://hub.example.org"
ASSET = {
    "href": f"{WEB}/a.tif",
    "type": "image/tiff",
    "roles": ["data"],
    "title": "A",
    "eo:bands": [{"name": "red"}],
}
LINKS = [
    {"rel": "self", "href": f"{WEB}/doc"},
    {"rel": "root", "href": WEB, "type": "application/json", "title": "Root"},
    {"rel": "license", "href": f"{WEB}/license", "type": "text/html"},
]
ITEM = a(
    "item",
    stac_extensions=["https://stac-extensions.github.io/eo/v1.0.0/schema.json", "bare"],
    links=LINKS,
    assets={"a": ASSET},
    bbox=[0, 0, 1, 1],
    collection="c",
)
COLLECTION = a(
    "collection",
    links=LINKS,
    keywords=["lakes"],
    providers=[{"name": "Us", "roles": ["host"]}],
    summaries={"gsd": [10], "eo:cloud_cover": {"minimum": 0, "maximum": 1}},
    assets={"a": ASSET},
    item_assets={"a": {"type": "image/tiff", "roles": ["data"]}},
)
OLD_ITEM = {**ITEM, "stac_version": "0.8.1", "stac_extensions": ["eo", "commons", "nonsense"]}
OLD_COLLECTION = {
    **{name: value for name, value in COLLECTION.items() if name != "type"},
    "stac_version": "0.9.0",
    "stac_extensions": ["asset", "eo"],
    "summaries": {"gsd": {"min": 1, "max": 2}},
    "assets": {"a": {"title": "A"}},
}
DOCUMENTS: dict[str, tuple[type[pystac.STACObject], dict[str, Any]]] = {
    "item": (pystac.Item, ITEM),
    "old item": (pystac.Item, OLD_ITEM),
    "collection": (pystac.Collection, COLLECTION),
    "old collection": (pystac.Collection, OLD_COLLECTION),
    "catalog": (pystac.Catalog, a("catalog", links=LINKS, stac_extensions=[], title="T")),
}


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield (*place, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*place, key))


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    holder: Any = document
    for key in place[:-1]:
        holder = holder[key]
    if value is GONE:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return document


def outcome(read: Callable[[], dict[str, Any]]) -> tuple[str | None, Exception | None]:
    """Return what was read as JSON, or the error."""
    try:
        return json.dumps(read(), sort_keys=True), None
    except Exception as error:  # noqa: BLE001  # whatever pystac raises
        return None, error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_with_an_odd_value_is_read_like_in_stock_pystac(
    kind: str, server: LoopbackServer
) -> None:
    cls, document = DOCUMENTS[kind]
    stock = DefaultStacIO()
    url, page_url = f"{server.url}/doc", f"{server.url}/page"
    readable = differences = 0
    with GitLabStacIO(base_url=server.url, retry=RetryPolicy(max_attempts=1)) as ours:
        for place in places(document):
            for value in ODD:
                if value is None and place[-1] == "href" and "links" in place:
                    # Whether stock pystac reads it depends on the version of Python.
                    continue
                odd = changed(document, place, value)
                server.route("/doc", odd)
                server.route("/page", {"type": "FeatureCollection", "features": [odd]})

                def read(stac_io: pystac.StacIO) -> dict[str, Any]:
                    return cls.from_file(url, stac_io).to_dict(transform_hrefs=False)

                def read_page(stac_io: pystac.StacIO) -> dict[str, Any]:
                    return ItemCollection.from_file(page_url, stac_io).to_dict()

                for way in (read, read_page) if cls is pystac.Item else (read,):
                    expected, refusal = outcome(lambda: way(stock))  # noqa: B023  # called at once
                    got, error = outcome(lambda: way(ours))  # noqa: B023
                    readable += refusal is None
                    if refusal is None and place[-3:] == ("links", 0, "href") and way is read_page:
                        # A relative self link of a listed item would be a path on this machine.
                        continue
                    if got != expected or not (error is None or isinstance(error, STACGitLabError)):
                        differences += 1
                        print(way.__name__, place, repr(value), expected, got, repr(error))
    assert readable > 100
    assert not differences
