"""Minimal STAC documents."""

from __future__ import annotations

import copy
from typing import Any

_ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "lakes",
    "geometry": None,
    "properties": {"datetime": "2020-01-01T00:00:00Z"},
    "links": [],
    "assets": {},
}
_CATALOG: dict[str, Any] = {
    "type": "Catalog",
    "stac_version": "1.0.0",
    "id": "top",
    "description": "d",
    "links": [],
}
_COLLECTION: dict[str, Any] = {
    **_CATALOG,
    "type": "Collection",
    "id": "all",
    "license": "other",
    "extent": {
        "spatial": {"bbox": [[-180, -90, 180, 90]]},
        "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]},
    },
}
KINDS = {"item": _ITEM, "catalog": _CATALOG, "collection": _COLLECTION}


def a(kind: str, **fields: Any) -> dict[str, Any]:
    """Return an item, catalog or collection with these fields."""
    return {**copy.deepcopy(KINDS[kind]), **fields}
