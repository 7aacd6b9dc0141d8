"""``ls``, ``show`` and ``search``: what a server has."""

from __future__ import annotations

import argparse
import json
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pystac

from stac_gitlab.api.item_query import ItemQuery, query_parameters
from stac_gitlab.api.stac_api import STACAPI
from stac_gitlab.catalogs.describe import describe_assets
from stac_gitlab.cli.options import reader, stac_url, url_of
from stac_gitlab.cli.output import Output
from stac_gitlab.download.assets import asset_roles
from stac_gitlab.download.report import human_size
from stac_gitlab.errors import ConfigurationError, NotSTACError, UndeclaredExtensionWarning
from stac_gitlab.files.paths import is_local
from stac_gitlab.reading.listing import list_items, readable_item_of
from stac_gitlab.reading.paging import with_parameters
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import printable, redact

_MAX_DESCRIPTION = 1000
_SEARCHED = ("bbox", "datetime", "limit", "sortby", "fields", "filter", "filter_lang", "query", "q")


def read(io: GitLabStacIO, url: str) -> pystac.Item | pystac.Catalog:
    """Return the object at a URL or path. The address of a SharingHub stands for its API."""
    found = io.read_stac_object(stac_url(url))
    if not isinstance(found, (pystac.Item, pystac.Catalog)):
        raise NotSTACError(f"{redact(url)}: neither a catalog nor an item.", url=redact(url))
    return found


def read_items(io: GitLabStacIO, url: str) -> Iterator[pystac.Item]:
    """Yield the items of an item, a catalog, a collection or a search."""
    try:
        found = read(io, url)
    except (NotSTACError, pystac.STACTypeError):
        document = io.read_json(stac_url(url))
        if document.get("type") != "FeatureCollection":
            raise
    else:
        yield from [found] if isinstance(found, pystac.Item) else found.get_items(recursive=True)
        return
    features = document["features"] if is_local(url) else list_items(io, url)
    for feature in features:
        item = readable_item_of(io, feature, url)
        if item is not None:
            yield item


# -- ls -------------------------------------------------------------------------------------------


def list_(arguments: argparse.Namespace, output: Output) -> int:
    """Print what a hub, a collection, a search or an item has."""
    url = url_of(arguments)
    with reader(arguments, url) as io:
        try:
            found = read(io, url)
        except (NotSTACError, pystac.STACTypeError):
            items = list(islice(read_items(io, url), arguments.max_items + 1))
            _list_items(output, items, arguments.max_items)
            return 0
        if isinstance(found, pystac.Item):
            _list_assets(output, found, _sizes(found, io) if arguments.sizes else {})
        else:
            _list_catalog(output, found, arguments.max_items)
    return 0


def _list_catalog(output: Output, catalog: pystac.Catalog, most: int) -> None:
    if output.json:
        output.data(list(_listed(catalog, most)))
        return
    output.say(output.bold(printable(catalog.title or catalog.id)))
    is_empty = True
    for child in catalog.get_children():
        is_empty = False
        output.say(f"  {output.bold(printable(child.id))}  {printable(_title_of(child))}")
        _print_items(output, _first_items(child, most), most, indent=4)
    if is_empty:
        _print_items(output, _first_items(catalog, most), most, indent=2)


def _list_items(output: Output, items: list[pystac.Item], most: int) -> None:
    if output.json:
        output.data([_summary(item) for item in items[:most]])
    else:
        _print_items(output, items, most, indent=0)


def _first_items(catalog: pystac.Catalog, most: int) -> list[pystac.Item]:
    return list(islice(catalog.get_items(), most + 1)) if most else []


def _print_items(output: Output, items: list[pystac.Item], most: int, *, indent: int) -> None:
    rows = []
    for item in items[:most]:
        roles = {role for asset in item.assets.values() for role in asset_roles(asset)}
        sizes = [_size_of(asset) for asset in item.assets.values()]
        known = sum(size for size in sizes if size is not None)
        size = human_size(known) if known else ""
        rows.append((item.id, _title_of(item), ", ".join(sorted(roles)), size))
    output.rows(rows, indent=indent)
    if len(items) > most > 0:
        output.say(" " * indent + "… more: see -n")


def _list_assets(output: Output, item: pystac.Item, sizes: dict[str, int | None]) -> None:
    if output.json:
        listed = []
        for key, asset in item.assets.items():
            known = {"file:size": sizes[key]} if sizes.get(key) is not None else {}
            listed.append({"key": key, **asset.to_dict(), **known})
        output.data(listed)
        return
    output.say(f"{output.bold(printable(item.id))}  {printable(_title_of(item))}")
    rows = []
    for key, asset in item.assets.items():
        size = sizes.get(key, _size_of(asset))
        shown = "" if size is None else human_size(size)
        title = asset.title if asset.title != key else ""
        rows.append((key, ", ".join(asset_roles(asset)), shown, asset.media_type, title))
    output.rows(rows, indent=2)


def _sizes(item: pystac.Item, io: GitLabStacIO) -> dict[str, int | None]:
    """Return the sizes of the files of an item, as far as the server tells them."""
    described = item.clone()
    describe_assets(described, remote="headers", stac_io=io)
    return {key: _size_of(asset) for key, asset in described.assets.items()}


def _size_of(asset: pystac.Asset) -> int | None:
    size = asset.extra_fields.get("file:size")
    return size if isinstance(size, int) else None


def _title_of(found: Any) -> str:
    title = getattr(found, "title", None) or getattr(found, "properties", {}).get("title")
    return str(title or "")


def _listed(found: pystac.Catalog, most: int) -> Iterator[dict[str, Any]]:
    is_empty = True
    for child in found.get_children():
        is_empty = False
        yield {**_summary(child), "items": list(map(_summary, islice(child.get_items(), most)))}
    if is_empty:
        yield from map(_summary, islice(found.get_items(), most))


def _summary(found: Any) -> dict[str, Any]:
    return {"id": found.id, "title": _title_of(found), "href": found.get_self_href()}


# -- show -----------------------------------------------------------------------------------------


def show(arguments: argparse.Namespace, output: Output) -> int:
    """Print one object."""
    with reader(arguments, arguments.url) as io:
        found = read(io, arguments.url)
    document = found.to_dict(transform_hrefs=False)
    if output.json:
        output.data(document)
        return 0
    output.say(f"{type(found).__name__} {output.bold(printable(str(found.id)))}")
    fields = {**document.get("properties", {}), **document}
    names = ("title", "datetime", "start_datetime", "end_datetime", "license", "keywords", "bbox")
    rows = [(name, _text_of(fields[name])) for name in (*names, "extent") if fields.get(name)]
    output.rows(rows, indent=2)
    _print_description(output, fields.get("description"))
    if isinstance(found, pystac.Item) and found.assets:
        output.say()
        _list_assets(output, found, {})
    return 0


def _text_of(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())


def _print_description(output: Output, text: object) -> None:
    if not isinstance(text, str) or not text.strip():
        return
    output.say()
    shown, columns = printable(_text_of(text), limit=_MAX_DESCRIPTION), output.columns or 80
    for line in textwrap.wrap(shown, max(columns - 2, 10), break_long_words=False):
        output.say(f"  {line}")


# -- search ---------------------------------------------------------------------------------------


def search(arguments: argparse.Namespace, output: Output) -> int:
    """Print the items that match as an ItemCollection."""
    with reader(arguments, arguments.url) as io:
        search = _Search(STACAPI(stac_url(arguments.url), stac_io=io), arguments)
        if arguments.matched:
            return _print_matched(output, search.matched())
        found = list(islice(search.items(), arguments.max_items))
    document = {"type": "FeatureCollection", "features": found}
    if arguments.save:
        io.save_json(arguments.save, document)
        output.say(f"{len(found)} items saved to {arguments.save}")
    else:
        output.data(document)
    return 0


def _print_matched(output: Output, count: int | None) -> int:
    if output.json:
        output.data({"matched": count})
    else:
        output.say("The server does not say how many." if count is None else f"{count} items")
    return 0 if count is not None else 1


class _Search:
    """A query for each collection: a SharingHub searches one at a time."""

    def __init__(self, api: STACAPI, arguments: argparse.Namespace) -> None:
        self._api = api
        self._filters = {name: getattr(arguments, name) for name in _SEARCHED}
        self._max_items = arguments.max_items
        self._geometry = _geometry_in(arguments.intersects) if arguments.intersects else None
        self._ids = arguments.ids
        collections: Iterable[str] = arguments.collections or [c.id for c in api.collections()]
        self._collections = list(dict.fromkeys(collections))
        if arguments.sortby and len(self._collections) > 1:
            warnings.warn(
                "--sortby sorts the items of each collection. Name one collection with -c.",
                UndeclaredExtensionWarning,
                stacklevel=2,
            )

    def items(self) -> Iterator[dict[str, Any]]:
        """Yield the items of one collection after another."""
        for collection in self._collections:
            if self._geometry is None:
                yield from self._query(collection).to_dicts()
            else:
                yield from self._intersecting(collection)

    def matched(self) -> int | None:
        """Return how many items match, if the server says so."""
        if self._geometry is not None:
            return sum(1 for _ in self.items())
        counts = [self._query(collection).matched() for collection in self._collections]
        return None if None in counts else sum(count or 0 for count in counts)

    def _query(self, collection: str) -> ItemQuery:
        most: Any = self._max_items
        return self._api.items(collection, ids=self._ids, max_items=most, **self._filters)

    def _intersecting(self, collection: str) -> Iterator[dict[str, Any]]:
        """Yield items from ``/search``: an items endpoint knows no ``intersects``."""
        link = self._api.root.get_single_link("search")
        url = None if link is None else link.get_absolute_href()
        if url is None:
            raise ConfigurationError("--intersects: the server has no search. Use --bbox.")
        parameters = query_parameters(self._filters, others={})
        parameters |= {"collections": collection, "intersects": str(self._geometry)}
        if self._ids:
            parameters["ids"] = ",".join(self._ids)
        yield from list_items(self._api.stac_io, with_parameters(url, parameters))


def _geometry_in(text: str) -> str:
    """Return the geometry of ``--intersects``, which may be a feature or the name of a file."""
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).read_text(encoding="utf-8")
        found = json.loads(text)
        geometry = found["geometry"] if found.get("type") == "Feature" else found
        if not isinstance(geometry["type"], str):
            raise TypeError("no type")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"--intersects: neither a GeoJSON geometry nor a file with one ({error})."
        ) from None
    return json.dumps(geometry)
