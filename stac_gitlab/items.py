"""A document made a ``pystac.Item``: the same that ``Item.from_dict`` makes, in half the time.

pystac leaves its caller's document as it is, and copies it several times for that. A document that
was just read from a page is needed by nobody else; what is on it becomes part of the item as it is.
Identifying and migrating stay pystac's own work.
"""

from __future__ import annotations

import re
import warnings
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any

import pystac
from pystac.link import Link
from pystac.serialization import identify_stac_object, migrate_to_latest
from pystac.serialization.identify import STACJSONDescription
from pystac.utils import str_to_datetime
from pystac.version import STACVersion

__all__ = ["OwnDocument", "item_from"]

# The fields that are arguments of Item, or none of its business. All others are its extra fields.
_FIELDS = frozenset(
    {
        *("type", "stac_version", "stac_extensions", "id", "collection"),
        *("geometry", "bbox", "properties", "links", "assets"),
    }
)

_TEXT = frozenset({str})

# pystac-core 1.15.0 finds out about deprecation in ways of its own: there it makes the items.
_PYSTAC_TELLS_DEPRECATION = hasattr(pystac.EXTENSION_HOOKS, "get_deprecation_message")

# URLs that stay as they are when pystac takes them apart and puts them together again.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:-]+(?:/[A-Za-z0-9._~/@%+,=:-]*)?")

# Times that every Python reads as pystac does, except for what it then calls UTC.
_USUAL_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{3}(?:\d{3})?)?Z", re.ASCII
)


class OwnDocument(dict[str, Any]):
    """An item's document that nobody else holds, so that pystac may migrate it without a copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnDocument:
        # While it changes this list, pystac goes by what stood there before.
        if isinstance(self.get("stac_extensions"), list):
            self["stac_extensions"] = self["stac_extensions"].copy()
        return self


def item_from(document: dict[str, Any]) -> pystac.Item:
    """Return the item that a document describes. The document is used up.

    Raises:
        Exception: Whatever pystac raises about a document that is none.
    """
    version, extensions = document.get("stac_version"), document.get("stac_extensions") or []
    if (
        not _PYSTAC_TELLS_DEPRECATION
        or document.get("type") != "Feature"
        or type(version) is not str
        or type(extensions) is not list
        or not _TEXT.issuperset(map(type, extensions))
    ):
        return pystac.Item.from_dict(document)
    document = _migrated(document, version, extensions)
    properties = document.get("properties", {})
    time = properties.get("datetime")
    item = pystac.Item(
        id=document.get("id"),  # type: ignore[arg-type]  # as pystac has it
        geometry=document.get("geometry"),
        bbox=document.get("bbox"),
        datetime=None if time is None else _time_from(time),
        properties=properties,
        stac_extensions=document.get("stac_extensions"),
        collection=document.get("collection"),
        extra_fields={k: v for k, v in document.items() if k not in _FIELDS},
    )
    item.assets = {k: _asset_from(a, item) for k, a in document.get("assets", {}).items()}
    item.links = [_link_from(link, item) for link in document.get("links", [])]
    message = pystac.EXTENSION_HOOKS.get_deprecation_message(item)
    if message is not None:
        warnings.warn(message, pystac.DeprecatedWarning, stacklevel=2)
    return item


def _time_from(text: str) -> datetime:
    """Return the time that a text names: what pystac makes of it, in a sixth of the time."""
    if type(text) is str and _USUAL_TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text[:-1]).replace(tzinfo=_utc())
        except ValueError:
            # There is no such day, which pystac is to say.
            pass
    return str_to_datetime(text)


@lru_cache
def _utc() -> tzinfo | None:
    return str_to_datetime("2000-01-01T00:00:00Z").tzinfo


def _migrated(document: dict[str, Any], version: str, extensions: list[str]) -> dict[str, Any]:
    described = _described(version, tuple(extensions))
    if version != STACVersion.DEFAULT_STAC_VERSION or not all(":" in name for name in extensions):
        return migrate_to_latest(OwnDocument(document), described)
    # Of the latest version, only extensions can be out of date; those by a bare name are gone.
    document["stac_extensions"] = extensions
    version_id = described.version_range.latest_valid_version()
    pystac.EXTENSION_HOOKS.migrate(document, version_id, described)
    return document


@lru_cache
def _described(version: str, extensions: tuple[str, ...]) -> STACJSONDescription:
    """Return what pystac identifies an item as; those on a page are mostly alike."""
    return identify_stac_object(
        {"type": "Feature", "stac_version": version, "stac_extensions": list(extensions)}
    )


def _asset_from(document: dict[str, Any], item: pystac.Item) -> pystac.Asset:
    asset = pystac.Asset(
        document.pop("href"),
        document.pop("title", None),
        document.pop("description", None),
        document.pop("type", None),
        document.pop("roles", None),
        document if any(document) else None,
    )
    asset.owner = item
    return asset


def _link_from(document: dict[str, Any], item: pystac.Item) -> Link:
    rel, href = document.pop("rel"), document.pop("href")
    # Of a self link pystac makes an absolute href, which takes longer than all of the rest.
    is_plain = rel == "self" and type(href) is str and _PLAIN_URL.fullmatch(href)
    link = Link(
        "" if is_plain else rel,
        href,
        document.pop("type", None),
        document.pop("title", None),
        document if any(document) else None,
    )
    link.rel = rel
    link.owner = item
    return link
