"""Items made of documents that nobody else needs: the same that stock pystac makes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pystac.extensions.hooks import ExtensionHooks

from stac_gitlab.reading.objects import OwnDocument, item_from

VERSIONS = ("0.8.1", "0.9.0", "1.0.0-beta.2", "1.0.0-rc.1", "1.0.0", "1.1.0")

ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.1.0",
    "stac_extensions": [],
    "id": "scene",
    "geometry": {"type": "Point", "coordinates": [1, 2]},
    "bbox": [1, 2, 1, 2],
    "properties": {
        "datetime": "2024-01-31T10:20:31.024Z",
        "license": "proprietary",
        "deprecated": True,
        "dtr:start_datetime": "2019-01-01T00:00:00Z",
        "checksum:multihash": "1220" + "0" * 64,
        "eo:platform": "sentinel-2a",
        "eo:instrument": "msi",
        "eo:epsg": 32632,
        "eo:off_nadir": 3,
        "eo:bands": [{"name": "B1", "common_name": "red"}],
        "file:size": 5,
        "item:license": "other",
        "label:property": "kind",
        "label:task": ["classification"],
        "mlm:name": "net",
        "proj:epsg": 32632,
        "sar:type": "GRD",
        "sar:polarization": ["VV"],
        "sci:doi": "10.5/abc",
        "storage:platform": "AWS",
        "storage:region": "eu-central-1",
        "storage:tier": "Standard",
    },
    "collection": "scenes",
    "links": [
        {"rel": "self", "href": "https://hub.example.org/items/scene", "type": "a/b", "title": "S"},
        {"rel": "parent", "href": "..\\collection.json"},
        {"rel": "via", "href": "https://e.org/a?b=c", "method": "POST", "body": {"a": 1}},
        {"rel": "odd", "href": "x", "": 5},
    ],
    "assets": {
        "data": {
            "href": "s3://bucket/data.tif",
            "title": "Data",
            "description": "All of it",
            "type": "image/tiff",
            "roles": ["data"],
            "proj:epsg": 4326,
            "eo:bands": [0],
            "checksum:multihash": "1220" + "0" * 64,
            "classification:classes": [{"value": 1, "color-hint": "ff0000"}],
            "file:checksum": "1220" + "0" * 64,
        },
        "bare": {"href": ".\\a.txt", "type": None, "": 0},
    },
    "assets:more": [1],
}


def extensions() -> list[str]:
    if hasattr(pystac.EXTENSION_HOOKS, "_discover"):
        pystac.EXTENSION_HOOKS._discover()  # only now it knows all
    hooks = pystac.EXTENSION_HOOKS.hooks.values()
    names = {name for each in hooks for name in {each.schema_uri, *each.prev_extension_ids}}
    return sorted({*names, "dtr", "datetime-range", "commons", "collection-assets", "nonsense"})


def progress(made: Callable[[], pystac.Item]) -> Any:
    """Return everything there is to an item, or to the error that comes in place of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            item = made()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is to be the same
            return type(error), str(error)
    for part in (*item.links, *item.assets.values()):
        assert part.owner is item
    return {
        **vars(item),
        "time zone": repr(item.datetime),
        "links": [{**vars(link), "owner": None} for link in item.links],
        "assets": [(k, {**vars(asset), "owner": None}) for k, asset in item.assets.items()],
        "order": [*item.extra_fields, *item.properties],
        "warnings": [(w.category, str(w.message)) for w in caught],
    }


def assert_like_stock(document: dict[str, Any]) -> None:
    stock = progress(lambda: pystac.Item.from_dict(document))
    assert progress(lambda: item_from(copy.deepcopy(document))) == stock
    own = OwnDocument(copy.deepcopy(document))
    assert progress(lambda: pystac.Item.from_dict(own, preserve_dict=False)) == stock


@pytest.mark.parametrize("version", VERSIONS)
def test_items_of_all_versions_and_extensions_are_like_those_of_stock_pystac(version: str) -> None:
    document = {**ITEM, "stac_version": version}
    names = extensions()
    assert_like_stock(document)
    assert_like_stock({**document, "stac_extensions": None})
    assert_like_stock({**document, "stac_extensions": names})
    for name in names:
        assert_like_stock({**document, "stac_extensions": [name]})
        assert_like_stock({**document, "stac_extensions": ["https://e.org/v1/schema.json", name]})


@pytest.mark.parametrize("name", [*ITEM, "properties.datetime", "links.0.href", "assets.data.href"])
@pytest.mark.parametrize("value", ["missing", None, 5, "text", [], {}, [[]], {"a": {}}])
def test_whatever_stands_in_a_field_comes_to_the_same(name: str, value: Any) -> None:
    document = copy.deepcopy(ITEM)
    holder: Any = document
    *path, last = [int(part) if part.isdigit() else part for part in name.split(".")]
    for part in path:
        holder = holder[part]
    if value == "missing":
        del holder[last]
    else:
        holder[last] = value
    assert_like_stock(document)


@pytest.mark.parametrize(
    "href",
    [
        "https://hub.example.org",
        "https://hub.example.org/",
        "https://hub.example.org//a/./b/../c",
        "https:///a//b",
        "http:////a",
        "HTTPS://Hub.Example.org:443/a",
        "https://hub.example.org/a?",
        "https://hub.example.org/a#",
        "https://hub.example.org/a;b?c=d#e",
        "https://hub.example.org/a b",
        " https://hub.example.org/a\n",
        "https://hub.example.org/a\\b",
        "https://[::1]/a",
        "https://hub.example.org/\u00e4",
        "s3://bucket/a",
        "./a.json",
        "/a.json",
        "C:\\a.json",
        "",
    ],
)
def test_self_links_come_to_the_same(href: str) -> None:
    assert_like_stock({**ITEM, "links": [{"rel": "self", "href": href}]})


@settings(max_examples=200, deadline=None)
@given(href=st.text(alphabet="htps:/aB0.-?#;%\\ ~@+,=[]\t", max_size=12))
def test_any_self_link_comes_to_the_same(href: str) -> None:
    for begun in ("", "http://a"):
        assert_like_stock({**ITEM, "links": [{"rel": "self", "href": begun + href}]})


@pytest.mark.parametrize(
    "time",
    [
        "2024-02-29T23:59:59Z",
        "2024-02-29T23:59:59.1Z",
        "2024-02-29T23:59:59.125Z",
        "2024-02-29T23:59:59.000001Z",
        "2024-02-29T23:59:59.0000019Z",
        "2023-02-29T23:59:59Z",
        "2024-02-29T24:00:00Z",
        "2024-02-29T23:59:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "2024-02-29t23:59:59z",
        "2024-02-29 23:59:59Z",
        "2024-02-29T23:59:59Z\n",
        "2024-02-29T23:59:59",
        "2024-02-29T23:59:59+00:00",
        "2024-02-29T23:59:59-08:00",
        "2024-02-29T23Z",
        "2024-02-29",
        "2024-W09-4T23:59:59Z",
        "\u0662\u0660\u0662\u0664-02-29T23:59:59Z",
        "",
    ],
)
def test_times_come_to_the_same(time: str) -> None:
    assert_like_stock({**ITEM, "properties": {"datetime": time}})


def test_extensions_that_are_registered_later_are_heeded() -> None:
    class Hooks(ExtensionHooks):
        schema_uri = "https://example.org/v2/schema.json"
        prev_extension_ids = frozenset({"https://example.org/v1/schema.json"})  # type: ignore[assignment]
        stac_object_types = frozenset({pystac.STACObjectType.ITEM})  # type: ignore[assignment]

    document = {**ITEM, "stac_extensions": ["https://example.org/v1/schema.json"]}
    assert item_from(copy.deepcopy(document)).stac_extensions == document["stac_extensions"]
    pystac.EXTENSION_HOOKS.add_extension_hooks(Hooks())
    try:
        assert_like_stock(document)
        assert item_from(copy.deepcopy(document)).stac_extensions == [Hooks.schema_uri]
    finally:
        pystac.EXTENSION_HOOKS.remove_extension_hooks(Hooks.schema_uri)


def test_a_document_that_is_no_item_is_an_error() -> None:
    for kind in ("Catalog", "Collection", "FeatureCollection", 5, None):
        assert_like_stock({**ITEM, "type": kind})
