"""What only SharingHub does.

It serves GitLab projects as STAC items, and writes the caller's token into hrefs and Markdown. Its
hrefs are not percent-encoded. Its item cache may name another collection than the one requested.
One broken project makes the whole page a 500.

Source: observed at SharingHub 0.4.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from stac_gitlab.auth import Origin, parse_host
from stac_gitlab.dialects.base import Dialect
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.redaction import redact, strip_token_parameters

_ITEMS_PATH = re.compile(r"/api/stac/collections/(?P<collection>[^/]+)/items(?:/|$)")
# Other servers have APIs below such a path, for example at /api/stac/v1.
_STAC = r"stac(?:/?$|/(?:collections|conformance|search)(?:/|$))"
_API_PATH = re.compile(rf"/api/(?:{_STAC}|(?:download|proxy)(?:/|$))")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_STAC_PATH = re.compile(rf"/api/{_STAC}")
_DOWNLOAD_PATH = re.compile(r"/api/download/")
_EARLIEST, _LATEST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
_LINKS_OF_A_COLLECTION = frozenset({"self", "parent", "collection"})
_LINKS_TO_THE_API = _LINKS_OF_A_COLLECTION | {"root"}


def api_url(base_url: str) -> str:
    """Return the URL of a SharingHub's STAC API, given the server's address or that URL itself.

    Raises:
        ConfigurationError: If it is not the address of a server.
    """
    if "://" not in base_url:
        (named, *_) = sorted(parse_host(base_url.partition("/")[0]))
        base_url = f"{named.scheme}://{base_url}"
    if Origin.of(base_url) is None:
        raise ConfigurationError(
            f"{redact(base_url)!r} is not the address of a SharingHub. Give one such as "
            "'https://hub.example.org'."
        )
    return f"{base_url.rstrip('/').removesuffix('/api/stac')}/api/stac"


class SharingHub(Dialect):
    """SharingHub's STAC API and its download routes."""

    ignored_by_items = frozenset({"intersects", "q", "sortby"})
    # The later pages of a POST are requested with GET, and with parameters that are not quoted.
    searches_by_get = True
    advice = MappingProxyType(
        {
            400: "The project exists, but in another collection than the one requested. Use the "
            "collection that the server names.",
            401: "SharingHub got no valid token. Pass a GitLab token with the scope read_api, and "
            "check that it has not expired.",
            403: "The token is valid, but has no right to these files: a guest of a project sees "
            "its description only. Ask for the Reporter role, and use the scope read_api.",
            404: "SharingHub responds alike for what does not exist and for what this token may "
            "not see. Check the collection and the project path, and the token's access.",
        }
    )

    def speaks(self, url: str) -> bool:
        return "/api/" in url and _API_PATH.search(urlsplit(url).path) is not None

    def generates(self, url: str) -> bool:
        return _STAC_PATH.search(urlsplit(url).path) is not None

    def query_parameters(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Close an open interval, and cut a box at the antimeridian.

        The server responds with a 500 to an open interval. It reads a box whose west is greater
        than its east as a band around the world. Geometries it reads as they are.
        """
        parameters = dict(parameters)
        start, separator, end = parameters.get("datetime", "").partition("/")
        if separator:
            start = _EARLIEST if start in ("", "..") else start
            end = _LATEST if end in ("", "..") else end
            parameters["datetime"] = f"{start}/{end}"
        halves = _halves(parameters.get("bbox", ""))
        if halves is not None:
            del parameters["bbox"]
            parameters["intersects"] = json.dumps(halves, separators=(",", ":"))
        return parameters

    def item_url(self, page_url: str, item_id: str) -> str:
        """Return the URL of one project. Its slashes stay: proxies like to refuse ``%2F``."""
        parts = urlsplit(page_url)
        listing = parts.path.rstrip("/")
        if listing.endswith("/search"):
            collection = quote(dict(parse_qsl(parts.query)).get("collections", ""), safe="")
            listing = f"{listing.removesuffix('/search')}/collections/{collection}/items"
        path = f"{listing}/{quote(item_id, safe='/')}"
        return urlunsplit(parts._replace(path=path))

    def correct(self, document: dict[str, Any], url: str) -> None:
        """Correct the collection, the server name and the download URLs of items.

        The item cache returns what was requested the last time: maybe for another collection, or
        under another name of the same server. The URL of this request decides.
        """
        features = document.get("features")
        items = features if isinstance(features, list) else [document]
        match = _ITEMS_PATH.search(urlsplit(url).path)
        asked = None if match is None else unquote(match["collection"])
        base = _base(url)
        for item in items:
            if not isinstance(item, dict) or item.get("type") != "Feature" or base is None:
                continue
            if asked is not None:
                _move_to_collection(item, asked)
            _move_to_server(item, base)
            self._correct_hrefs(item, f"{base}/api/stac")

    def _correct_hrefs(self, item: dict[str, Any], api: str) -> None:
        assets, properties = item.get("assets"), item.get("properties")
        if not isinstance(assets, dict) or not isinstance(item.get("id"), str):
            return
        for key, asset in assets.items():
            href = asset.get("href") if isinstance(asset, dict) else None
            if isinstance(href, str) and "/api/download/" in href:
                asset["href"] = self.asset_url(
                    href,
                    key=key,
                    item_id=item["id"],
                    item_url=api,
                    properties=properties if isinstance(properties, dict) else {},
                )

    def is_missing(self, status: int) -> bool:
        """Count 400 in: that is the response for a project of another collection."""
        return status == 400 or super().is_missing(status)

    def is_same_id(self, requested: str, received: str) -> bool:
        """Ignore the case, as SharingHub does; the response has the canonical spelling."""
        return requested.casefold() == received.casefold()

    def short_forms(self, page_url: str) -> tuple[Mapping[str, str], ...]:
        """Return the modes: previews lack most assets and properties, references all of them."""
        parts = urlsplit(page_url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        is_listing = parts.path.rstrip("/").endswith(("/items", "/search"))
        if not is_listing or query.get("mode", "full") != "full":
            return ()
        forms = {"mode": "preview"}, {"mode": "reference"}
        # References ignore these filters.
        return forms[:1] if query.keys() & {"bbox", "datetime", "intersects"} else forms

    def asset_url(
        self, href: str, *, key: str, item_id: str, item_url: str, properties: Mapping[str, Any]
    ) -> str:
        """Rebuild a download URL from the asset key and the ref, with every segment quoted.

        SharingHub writes ``data/a#b.csv`` as ``…/data/a?ref=main#b.csv``; the key tells what was
        meant. The item cache may have written another name of the same server: the server that the
        item was read from is the one to ask for the item's own files.
        """
        href = strip_token_parameters(href)
        base, route, rest = _split_download(href)
        if base is None:
            return href
        own_base = _base(item_url)
        tail, _, query = rest.partition("?")
        query, _, _fragment = query.partition("#")
        tail, _, _fragment = tail.partition("#")
        project, separator, written = tail.partition("/repository/")
        if item_id and tail.lower().startswith(f"{item_id.lower()}/repository/"):
            project, separator, written = (
                tail[: len(item_id)],
                "/repository/",
                tail[len(item_id) + 12 :],
            )
        if own_base is not None and project.lower().removesuffix("/archive.zip") == item_id.lower():
            base = own_base
        if not separator:
            return f"{base}{route}{_quote_once(tail)}?{query}"
        path = _meant_path(written, key)
        number = properties.get("sharinghub:id")
        ref = dict(parse_qsl(query, keep_blank_values=True)).get("ref")
        if number is not None and ref is not None and _router_fails(project, path):
            twice = quote(quote(path, safe=""), safe="")
            return (
                f"{base}/api/proxy/projects/{number}/repository/files/{twice}/raw"
                f"?ref={quote(ref, safe='')}&lfs=true"
            )
        return f"{base}{route}{quote(project)}/repository/{quote(path)}?{query}"

    def tree_url(
        self, url: str, *, item_id: str, properties: Mapping[str, Any]
    ) -> tuple[str, str] | None:
        """List the files of the item's own project, through the proxy to GitLab's API."""
        base, _, rest = _split_download(url)
        path, _, query = rest.partition("?")
        folder = f"{quote(item_id)}/repository/"
        number, ref = properties.get("sharinghub:id"), dict(parse_qsl(query)).get("ref")
        if (
            base is None
            or not str(number).isdecimal()
            or ref is None
            or not path.lower().startswith(folder.lower())
        ):
            return None
        query = urlencode({"recursive": "true", "per_page": 100, "ref": ref})
        listing = f"{base}/api/proxy/projects/{number}/repository/tree?{query}"
        return listing, unquote(path[len(folder) :])

    def archive_url(
        self, item_url: str, *, item_id: str, properties: Mapping[str, Any], ref: str | None
    ) -> str | None:
        """Return the URL of the download route, or of the proxy to GitLab's API.

        The download route needs a ref, and fails for some projects.
        """
        base, number = _base(item_url), properties.get("sharinghub:id")
        if base is None:
            return None
        if ref is not None and "repository" not in item_id.split("/"):
            return f"{base}/api/download/{quote(item_id)}/archive.zip?{urlencode({'ref': ref})}"
        if not str(number).isdecimal():
            return None
        url = f"{base}/api/proxy/projects/{number}/repository/archive.zip"
        return url if ref is None else f"{url}?{urlencode({'sha': ref})}"

    def lfs_url(self, url: str) -> str | None:
        """Return the same URL with the parameter that asks for the content."""
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        if not _DOWNLOAD_PATH.search(parts.path) or ("lfs", "true") in query:
            return None
        return urlunsplit(parts._replace(query=urlencode([*query, ("lfs", "true")])))


def _halves(bbox: str) -> dict[str, Any] | None:
    """Return the two parts of a box that crosses the antimeridian, as a geometry; else None."""
    try:
        west, south, east, north = map(float, bbox.split(","))
    except ValueError:
        return None
    if west <= east:
        return None
    sides = (west, 180.0), (-180.0, east)
    rings = [
        [[left, south], [right, south], [right, north], [left, north], [left, south]]
        for left, right in sides
    ]
    return {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}


def _move_to_collection(item: dict[str, Any], asked: str) -> None:
    named = item.get("collection")
    if not isinstance(named, str) or named == asked:
        return
    item["collection"] = asked
    wrong, right = f"/collections/{quote(named)}", f"/collections/{quote(asked)}"
    links = item.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and _has_rel(link, _LINKS_OF_A_COLLECTION):
            href = link.get("href")
            if isinstance(href, str):
                link["href"] = re.sub(rf"{re.escape(wrong)}(?=/|$)", lambda _: right, href, count=1)


def _move_to_server(item: dict[str, Any], base: str) -> None:
    """Make the links to the root, parent and collection lead to the server of the request."""
    links, right = item.get("links"), f"{base}/api/stac/"
    for link in links if isinstance(links, list) else ():
        href = link.get("href") if isinstance(link, dict) else None
        if not isinstance(href, str) or href.startswith(right):
            continue
        named = _base(href) if _has_rel(link, _LINKS_TO_THE_API) else None
        if named is not None and named != base:
            link["href"] = f"{base}{href[len(named) :]}"


def _has_rel(link: Mapping[str, Any], rels: frozenset[str]) -> bool:
    rel = link.get("rel")
    return isinstance(rel, str) and rel in rels


def _base(url: str) -> str | None:
    """Return what stands before ``/api/stac`` in the URL of an item."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # No URL: that is told when the shape of the document is checked.
        return None
    match = _API_PATH.search(parts.path)
    if not parts.netloc or match is None:
        return None
    return f"{parts.scheme}://{parts.netloc}{parts.path[: match.start()]}"


def _split_download(href: str) -> tuple[str | None, str, str]:
    """Split ``{base}/api/download/{rest}``; the base is None for any other href."""
    match = _DOWNLOAD_PATH.search(href)
    if match is None or not href.startswith(("http://", "https://")):
        return None, "", ""
    return href[: match.start()], match[0], href[match.end() :]


def _meant_path(written: str, key: str) -> str:
    """Return the repository path that is meant by `written` in the href of asset `key`."""
    # pystac writes the backslashes of an href as slashes.
    as_read = key.replace("\\", "/")
    if unquote(written) in (key, as_read) or re.split(r"[?#]", as_read, maxsplit=1)[0] == written:
        return key
    # The asset is called otherwise than its file. What looks quoted was quoted by us before.
    return (
        unquote(written) if _ESCAPE.search(written) and _quote_once(written) == written else written
    )


def _router_fails(project: str, path: str) -> bool:
    """Return whether the download route is known to fail for this path."""
    if "repository" in path.split("/") or "repository" in project.split("/"):
        return True
    try:
        path.encode("latin-1")
    except UnicodeEncodeError:
        return True
    return False


def _quote_once(path: str) -> str:
    return quote(path, safe="/%")
