"""``ls``, ``show`` and ``search``: what a server has."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pystac

from stac_gitlab.api.stac_api import STACAPI
from stac_gitlab.cli.options import Commands, add_cache, add_command, reader, stac_url, url_of
from stac_gitlab.cli.output import Output
from stac_gitlab.download.assets import asset_roles
from stac_gitlab.download.report import human_size
from stac_gitlab.errors import ConfigurationError, NotSTACError
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import printable, redact


def add_parser(commands: Commands) -> None:
    """Add the commands to the parser."""
    ls = add_command(commands, "ls", _ls, "list a hub, a collection or an item")
    add_cache(ls)
    ls.add_argument("url", nargs="?", metavar="URL", help="default: STAC_GITLAB_URL")
    ls.add_argument(
        "-n", "--max-items", type=int, default=20, help="items of each collection (default: 20)"
    )
    show = add_command(commands, "show", _show, "show one object with its metadata")
    add_cache(show)
    show.add_argument("url", metavar="URL")
    search = add_command(commands, "search", _search, "print matching items as an ItemCollection")
    add_cache(search)
    search.add_argument("url", metavar="URL", help="the landing page of the STAC API")
    search.add_argument("-c", "--collections", nargs="+", metavar="ID", help="default: all")
    search.add_argument("--ids", nargs="+", metavar="ID")
    search.add_argument("--bbox", nargs=4, type=float, metavar=("W", "S", "E", "N"))
    search.add_argument("--datetime", help="an instant or an interval, such as 2024-01/2024-03")
    search.add_argument("--sortby", nargs="+", metavar="FIELD", help="'-' before it: descending")
    search.add_argument("--fields", nargs="+", metavar="FIELD", help="'-' before it: left out")
    search.add_argument("--filter", help="a CQL2 filter, as a text or as JSON")
    search.add_argument("--filter-lang", choices=("cql2-text", "cql2-json"))
    search.add_argument("--query", help="comparisons of the Query extension, as JSON")
    search.add_argument("-k", "--q", help="words to find in titles and descriptions")
    search.add_argument("--limit", type=int, help="items on a page")
    search.add_argument("-n", "--max-items", type=int, help="items in all (default: all)")
    search.add_argument("--save", metavar="FILE", help="write to a file instead of stdout")


def read(io: GitLabStacIO, url: str) -> pystac.Item | pystac.Catalog:
    """Return the object at a URL or path. The address of a SharingHub stands for its API."""
    found = io.read_stac_object(stac_url(url))
    if not isinstance(found, (pystac.Item, pystac.Catalog)):
        raise NotSTACError(f"{redact(url)}: neither a catalog nor an item.", url=redact(url))
    return found


# -- ls -------------------------------------------------------------------------------------------


def _ls(arguments: argparse.Namespace, output: Output) -> int:
    url = url_of(arguments)
    with reader(arguments, url) as io:
        found = read(io, url)
        if output.json:
            output.data(list(_listed(found, arguments.max_items)))
        elif isinstance(found, pystac.Item):
            _print_assets(output, found)
        else:
            _print_tree(output, found, arguments.max_items)
    return 0


def _print_tree(output: Output, catalog: pystac.Catalog, most: int) -> None:
    output.say(output.bold(printable(catalog.title or catalog.id)))
    is_empty = True
    for child in catalog.get_children():
        is_empty = False
        output.say(f"  {output.bold(printable(child.id))}  {_title_of(child)}")
        _print_items(output, child, most, indent=4)
    _print_items(output, catalog, most if is_empty else 0, indent=2)


def _print_items(output: Output, catalog: pystac.Catalog, most: int, *, indent: int) -> None:
    items = list(islice(catalog.get_items(), most + 1)) if most else []
    rows = []
    for item in items[:most]:
        roles = {role for asset in item.assets.values() for role in asset_roles(asset)}
        rows.append((item.id, item.properties.get("title"), ", ".join(sorted(roles))))
    output.rows(rows, indent=indent)
    if len(items) > most:
        output.say(" " * indent + "… more: see -n")


def _print_assets(output: Output, item: pystac.Item) -> None:
    output.say(f"{output.bold(printable(item.id))}  {_title_of(item)}")
    rows = []
    for key, asset in item.assets.items():
        size = asset.extra_fields.get("file:size")
        shown = human_size(size) if isinstance(size, int) else ""
        rows.append((key, ", ".join(asset_roles(asset)), shown, asset.media_type))
    output.rows(rows, indent=2)


def _title_of(found: Any) -> str:
    title = getattr(found, "title", None) or getattr(found, "properties", {}).get("title")
    return printable(str(title or ""))


def _listed(found: pystac.Item | pystac.Catalog, most: int) -> Iterator[dict[str, Any]]:
    if isinstance(found, pystac.Item):
        for key, asset in found.assets.items():
            yield {"key": key, **asset.to_dict()}
        return
    is_empty = True
    for child in found.get_children():
        is_empty = False
        items = [_summary(item) for item in islice(child.get_items(), most)]
        yield {**_summary(child), "items": items}
    if is_empty:
        yield from map(_summary, islice(found.get_items(), most))


def _summary(found: Any) -> dict[str, Any]:
    return {"id": found.id, "title": _title_of(found), "href": found.get_self_href()}


# -- show -----------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace, output: Output) -> int:
    with reader(arguments, arguments.url) as io:
        found = read(io, arguments.url)
        document = found.to_dict(transform_hrefs=False)
        if output.json:
            output.data(document)
            return 0
        output.say(f"{type(found).__name__} {output.bold(printable(str(found.id)))}")
        fields = {**document.get("properties", {}), **document}
        names = ("title", "description", "datetime", "license", "keywords", "bbox", "extent")
        rows = [(name, _text_of(fields[name])) for name in names if fields.get(name)]
        output.rows(rows, indent=2)
        if isinstance(found, pystac.Item):
            _print_assets(output, found)
    return 0


def _text_of(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    first = " ".join(text.split())
    return first if len(first) <= 100 else f"{first[:100]}…"


# -- search ---------------------------------------------------------------------------------------


def _search(arguments: argparse.Namespace, output: Output) -> int:
    with reader(arguments, arguments.url) as io:
        found = list(islice(_matching(io, arguments), arguments.max_items))
    document = {"type": "FeatureCollection", "features": found}
    if arguments.save:
        io.save_json(arguments.save, document)
        output.say(f"{len(found)} items saved to {arguments.save}")
    else:
        output.data(document)
    return 0


def _matching(io: GitLabStacIO, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    api = STACAPI(stac_url(arguments.url), stac_io=io)
    wanted: Iterable[str] = arguments.collections or [each.id for each in api.collections()]
    names = ("ids", "bbox", "datetime", "sortby", "fields", "filter", "filter_lang", "q", "limit")
    filters = {name: getattr(arguments, name) for name in names}
    if arguments.query:
        try:
            filters["query"] = json.loads(arguments.query)
        except ValueError as error:
            raise ConfigurationError(f"--query is not JSON: {error}.") from None
    for collection in wanted:
        yield from api.items(collection, max_items=arguments.max_items, **filters).to_dicts()
