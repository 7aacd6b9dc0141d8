"""The documents of a mirror: items and catalogs with relative links, and where they came from."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
from pystac.utils import datetime_to_str, str_to_datetime

from stac_gitlab.catalogs.mirror_index import ITEM, Entry
from stac_gitlab.download.local_copy import (
    MEDIA_TYPES,
    STRUCTURE,
    ToJSON,
    add_links,
    relative_href,
    without_structure,
)
from stac_gitlab.download.source import absolute_href
from stac_gitlab.errors import DownloadError
from stac_gitlab.files.partial_file import PartialFile
from stac_gitlab.files.paths import contained_path
from stac_gitlab.redaction import redact_text

ORIGIN = "origin"
"""The name of the alternate asset that leads to the original of a file in the mirror."""

_LINKS_WRITTEN_TOGETHER = 100
_OPTIONAL_TIMES = ("created", "updated")
_TIMES = ("start_datetime", "end_datetime", *_OPTIONAL_TIMES)
_VALID_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)", re.ASCII)
_JSON, _GEOJSON = MEDIA_TYPES["child"], MEDIA_TYPES["item"]


class Place:
    """A catalog of the mirror, as the place of what it lists.

    Args:
        entry: The catalog.
        collection_id: Its id, if it is a collection.
        parent: The place of the catalog itself.

    Attributes:
        entry: The catalog.
    """

    def __init__(self, entry: Entry, collection_id: str | None, parent: Place | None) -> None:
        self.entry = entry
        self._root: str = entry.path if parent is None else parent._root
        self._collections: dict[str, str] = {} if parent is None else {**parent._collections}
        if collection_id is not None:
            self._collections[collection_id] = entry.path
        self._links: dict[Any, list[dict[str, str]]] = {}

    def item_links(self, collection_id: Any) -> list[dict[str, str]]:
        """Return the links of an item here to the root, its parent and its collection."""
        key = collection_id if isinstance(collection_id, str) else None
        if key not in self._links:
            targets = {"root": self._root, "parent": self.entry.path}
            if key in self._collections:
                targets["collection"] = self._collections[key]
            # All items of a catalog are in its folder.
            document = f"{self.entry.path.rpartition('/')[0]}/item.json".lstrip("/")
            self._links[key] = [
                {"rel": rel, "href": relative_href(path, document), "type": _JSON}
                for rel, path in targets.items()
            ]
        return self._links[key]

    def catalog_links(self, parent: Place | None) -> dict[str, str]:
        """Return the links of this catalog to the root and its parent, by relation."""
        targets = {"root": self._root}
        if parent is not None:
            targets["parent"] = parent.entry.path
        return {rel: relative_href(path, self.entry.path) for rel, path in targets.items()}


def make_absolute(document: dict[str, Any], url: str) -> None:
    """Make the hrefs of the assets and links of an item absolute, in place."""
    for holder in (*document["assets"].values(), *document["links"]):
        href = holder.get("href")
        if isinstance(href, str) and href:
            holder["href"] = absolute_href(href, url)


def item_document(
    document: Mapping[str, Any], url: str, place: Place, path: str, files: Mapping[str, str]
) -> dict[str, Any]:
    """Return the document of an item in the mirror.

    Args:
        document: The original, with absolute hrefs.
        url: The URL of the original.
        place: Where the item is.
        path: The path of its file.
        files: The paths of its files in the mirror, by asset key.
    """
    own = place.item_links(document.get("collection"))
    replaced = STRUCTURE.union(link["rel"] for link in own)
    kept = [link for link in document["links"] if link["rel"] not in replaced]
    came_from = {"rel": "derived_from", "href": url, "type": _GEOJSON}
    assets = {
        key: _with_origin(asset, relative_href(files[key], path)) if key in files else asset
        for key, asset in document["assets"].items()
    }
    properties = _valid(document["properties"])
    changed = {"properties": properties, "links": [*own, *kept, came_from], "assets": assets}
    return {**document, **changed}


def _valid(properties: dict[str, Any]) -> dict[str, Any]:
    """Return properties without what SharingHub writes though STAC does not allow it.

    A project without a README has an empty description. Dates are as the README has them; they are
    read as pystac reads them.
    """
    changes: dict[str, Any] = {}
    if properties.get("description") == "":
        changes["description"] = None
    for name in _TIMES:
        time = properties.get(name, "")
        if time is None and name in _OPTIONAL_TIMES:
            changes[name] = None
        elif type(time) is str and time and not _VALID_TIME.fullmatch(time):
            with contextlib.suppress(ValueError, OverflowError):
                changes[name] = _in_utc(str_to_datetime(time))
    if not changes:
        return properties
    changed = {**properties, **changes}
    return {n: v for n, v in changed.items() if n not in changes or v is not None}


def _in_utc(time: datetime) -> str:
    # pystac takes a time without a zone for one in UTC.
    return datetime_to_str(time if time.tzinfo is None else time.astimezone(UTC))


def _with_origin(asset: Mapping[str, Any], href: str) -> dict[str, Any]:
    """Return an asset with the href of its file, and its own href as an alternate one.

    The extension is not added to ``stac_extensions``: pystac would need the network to validate.
    """
    others = asset.get("alternate")
    known = others if isinstance(others, Mapping) else {}
    return {**asset, "href": href, "alternate": {**known, ORIGIN: {"href": asset["href"]}}}


def catalog_document(catalog: pystac.Catalog, place: Place, parent: Place | None) -> dict[str, Any]:
    """Return the document of a catalog in the mirror, without links to what it lists."""
    links = place.catalog_links(parent)
    copy = without_structure(catalog, links)
    add_links(copy, links, catalog.get_self_href())
    for key, asset in getattr(copy, "assets", {}).items():
        asset.href = catalog.assets[key].get_absolute_href() or asset.href  # type: ignore[attr-defined]  # a collection
    document = copy.to_dict(include_self_link=False, transform_hrefs=False)
    # The mirror is no API.
    document.pop("conformsTo", None)
    return document


def write_catalog(folder: Path, catalog: Entry, document: str, members: Iterable[Entry]) -> None:
    """Write the file of a catalog with links to its members, one at a time.

    Raises:
        DownloadError: If it cannot be written.
    """
    fields: dict[str, Any] = json.loads(document)
    links = fields.pop("links")
    start = f"{catalog.folder}/" if catalog.folder else ""
    waiting: list[str] = []
    try:
        with PartialFile(contained_path(folder, catalog.path)) as file:
            file.write(f"{json.dumps(fields, indent=2)[:-2]},\n".encode())
            separator = '  "links": [\n    '
            for link in links:
                file.write(f"{separator}{json.dumps(link)}".encode())
                separator = ",\n    "
            for member in members:
                # Names of files in a mirror have no character that JSON escapes.
                href = f"./{member.path.removeprefix(start)}"
                media_type = _GEOJSON if member.kind == ITEM else _JSON
                waiting.append(
                    f'{separator}{{"rel": "{member.kind}", "href": "{href}", '
                    f'"type": "{media_type}"}}'
                )
                separator = ",\n    "
                if len(waiting) >= _LINKS_WRITTEN_TOGETHER:
                    file.write("".join(waiting).encode())
                    waiting.clear()
            file.write("".join([*waiting, "\n  ]\n}\n"]).encode())
            file.finish()
    except OSError as error:
        raise DownloadError(
            f"The catalog cannot be written to {str(folder / catalog.path)!r}: "
            f"{error.strerror or error}."
        ) from error


def as_text(document: dict[str, Any], to_json: ToJSON) -> str:
    """Return a document as JSON, without secrets."""
    return redact_text(to_json(document))
