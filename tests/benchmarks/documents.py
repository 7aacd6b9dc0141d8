"""The STAC documents that are served: items of about 3 KB, pages of them, and what leads there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["API", "COLLECTION", "asset_item", "write_api", "write_static_collection"]

COLLECTION = "points"
API = "api/stac"
PAGE_SIZE = 100

_CONFORMANCE = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
]
_EXTENSIONS = {
    "1.1.0": [
        "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
        "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
        "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    ],
    "1.0.0": [
        "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
        "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
        "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    ],
}
_BANDS = ("blue", "green", "red", "nir", "swir")


def item(number: int, *, api: str, version: str = "1.1.0") -> dict[str, Any]:
    """Return an item of about 3 KB, whose links point into the API at `api`."""
    name = f"scene-{number:07}"
    west, south = (number * 7 % 3590) / 10 - 180, (number * 3 % 1690) / 10 - 85
    east, north = round(west + 0.9, 4), round(south + 0.9, 4)
    corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    here = f"{api}/collections/{COLLECTION}"
    code: dict[str, Any] = (
        {"proj:code": "EPSG:32632"} if version == "1.1.0" else {"proj:epsg": 32632}
    )
    return {
        "type": "Feature",
        "stac_version": version,
        "stac_extensions": _EXTENSIONS[version],
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": f"2024-{number % 12 + 1:02}-{number % 28 + 1:02}T10:20:31.024000Z",
            "created": "2024-07-01T08:00:00Z",
            "updated": "2024-07-02T08:00:00Z",
            "title": f"Scene number {number}",
            "description": "A scene over the points, cut to a grid and corrected for the air.",
            "platform": "sentinel-2a",
            "instruments": ["msi"],
            "constellation": "sentinel-2",
            "gsd": 10,
            "eo:cloud_cover": number % 100,
            "view:off_nadir": 0,
            "view:sun_azimuth": 155.5,
            "view:sun_elevation": 57.2,
            "proj:shape": [10980, 10980],
            "proj:transform": [10, 0, 399960, 0, -10, 5300040, 0, 0, 1],
            **code,
            "license": "CC-BY-4.0",
            "keywords": ["points", "scene", "grid"],
        },
        "collection": COLLECTION,
        "links": [
            {"rel": "self", "href": f"{here}/items/{name}", "type": "application/geo+json"},
            {"rel": "parent", "href": here, "type": "application/json"},
            {"rel": "collection", "href": here, "type": "application/json"},
            {"rel": "root", "href": f"{api}/", "type": "application/json"},
        ],
        "assets": {
            band: {
                "href": f"https://data.example.org/{name}/{band}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "title": f"The {band} band",
                "roles": ["data", "reflectance"],
                "gsd": 10,
            }
            for band in _BANDS
        },
    }


def asset_item(name: str, assets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return an item with the given assets."""
    return {
        **item(0, api="https://hub.example.org/api/stac"),
        "id": name,
        "links": [],
        "assets": {
            key: {"type": "application/octet-stream", "roles": ["data"], **asset}
            for key, asset in assets.items()
        },
    }


def write_api(folder: Path, *, base: str, version: str, items: int) -> None:
    """Write an API as files: a landing page, a collection, and numbered pages of items.

    Args:
        folder: Where to write ``landing.json``, ``collection.json`` and ``pages/``.
        base: The URL of the landing page, without a slash at its end.
        version: The STAC version of all of it.
        items: How many items there are.
    """
    (folder / "pages").mkdir(parents=True)
    _write(folder / "landing.json", _landing(base, version))
    _write(folder / "collection.json", _collection(base, version))
    last = (items + PAGE_SIZE - 1) // PAGE_SIZE
    for page in range(1, last + 1):
        first = (page - 1) * PAGE_SIZE
        numbers = range(first, min(first + PAGE_SIZE, items))
        features = [item(number, api=base, version=version) for number in numbers]
        links = list(_page_links(base, page, last))
        _write(
            folder / "pages" / f"{page}.json",
            {"type": "FeatureCollection", "features": features, "links": links},
        )


def write_static_collection(folder: Path, *, base: str, items: int) -> None:
    """Write a collection with one link and one file for each item."""
    (folder / "items").mkdir(parents=True)
    collection = _collection(base, "1.1.0")
    here = f"{base}/collection.json"
    collection["links"] = [
        {"rel": "self", "href": here},
        {"rel": "root", "href": here},
        *({"rel": "item", "href": f"{base}/items/{number}.json"} for number in range(items)),
    ]
    _write(folder / "collection.json", collection)
    for number in range(items):
        _write(folder / "items" / f"{number}.json", item(number, api=base))


def _landing(base: str, version: str) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "id": "benchmark",
        "stac_version": version,
        "description": "Scenes to be counted.",
        "conformsTo": _CONFORMANCE,
        "links": [
            {"rel": "self", "href": f"{base}/", "type": "application/json"},
            {"rel": "root", "href": f"{base}/", "type": "application/json"},
            {"rel": "data", "href": f"{base}/collections", "type": "application/json"},
            {"rel": "search", "href": f"{base}/search", "type": "application/geo+json"},
        ],
    }


def _collection(base: str, version: str) -> dict[str, Any]:
    here = f"{base}/collections/{COLLECTION}"
    return {
        "type": "Collection",
        "id": COLLECTION,
        "stac_version": version,
        "description": "Scenes to be counted.",
        "license": "CC-BY-4.0",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2024-01-01T00:00:00Z", None]]},
        },
        "links": [
            {"rel": "self", "href": here, "type": "application/json"},
            {"rel": "parent", "href": f"{base}/", "type": "application/json"},
            {"rel": "root", "href": f"{base}/", "type": "application/json"},
            {"rel": "items", "href": f"{here}/items", "type": "application/geo+json"},
        ],
    }


def _page_links(base: str, page: int, last: int) -> Iterator[dict[str, str]]:
    here = f"{base}/collections/{COLLECTION}/items"
    yield {"rel": "self", "href": f"{here}?page={page}", "type": "application/geo+json"}
    yield {"rel": "root", "href": f"{base}/", "type": "application/json"}
    if page < last:
        yield {"rel": "next", "href": f"{here}?page={page + 1}", "type": "application/geo+json"}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
