"""A STAC API - Features server in memory, with transactions and several styles of paging."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from stac_gitlab.testing import Answer, LoopbackServer, RecordedRequest

GEOJSON = "application/geo+json"
STAC = "https://api.stacspec.org/v1.0.0"
CONFORMANCE = [
    f"{STAC}/core",
    f"{STAC}/ogcapi-features",
    f"{STAC}/item-search",
    f"{STAC}/ogcapi-features/extensions/transaction",
]
EXTENSIONS = [
    f"{STAC}/ogcapi-features#fields",
    f"{STAC}/ogcapi-features#sort",
    f"{STAC}/ogcapi-features#query",
    f"{STAC}/ogcapi-features#free-text",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
]


def item(name: str, collection: str = "lakes", **fields: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "geometry": {"type": "Point", "coordinates": [7.0, 46.5]},
        "bbox": [7.0, 46.5, 7.0, 46.5],
        "properties": {"datetime": "2024-01-01T00:00:00Z"},
        "links": [],
        "assets": {"data": {"href": "https://files.example.org/data.tif"}},
        **fields,
    }


def collection(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": f"About {name}",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None, None]]},
        },
        "links": [],
        **fields,
    }


def problem(status: int, said: str) -> Answer:
    body = json.dumps({"code": str(status), "description": said}).encode()
    return Answer(status, (("content-type", "application/json"),), body)


def stac(document: Any, status: int = 200, **headers: str) -> Answer:
    body = json.dumps(document).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    named = {"content-type": "application/json", **headers}
    if isinstance(document, Mapping) and document.get("type") in ("Feature", "Collection"):
        named.setdefault("etag", etag)
    return Answer(status, tuple(named.items()), body)


Paging = Callable[["FeaturesServer", RecordedRequest, list[dict[str, Any]]], dict[str, Any]]


class FeaturesServer(LoopbackServer):
    """A server whose collections and items are dictionaries in `descriptions` and `holdings`.

    Args:
        items: The items of the collection ``lakes``.
        paging: The style of paging.
        conforms_to: The conformance classes that it declares.
        cap: The maximum number of items on a page.
        counts: Whether pages have `numberMatched`.
    """

    def __init__(
        self,
        items: Iterable[Mapping[str, Any]] = (),
        *,
        paging: Paging | None = None,
        conforms_to: list[str] | None = None,
        cap: int = 10_000,
        counts: bool = True,
    ) -> None:
        super().__init__()
        self.descriptions: dict[str, dict[str, Any]] = {"lakes": collection("lakes")}
        self.holdings: dict[str, dict[str, dict[str, Any]]] = {
            "lakes": {each["id"]: dict(each) for each in items}
        }
        self.paging = paging or by_token
        self.conforms_to = [*CONFORMANCE, *EXTENSIONS] if conforms_to is None else conforms_to
        self.cap = cap
        self.counts = counts
        self.refuses_writing = False
        self.links_of_collections: list[dict[str, Any]] | None = None

    def answer(self, request: RecordedRequest) -> Answer:
        path = [unquote(part) for part in request.raw_path.strip("/").split("/") if part]
        if self.refuses_writing and request.method != "GET" and path[:1] != ["search"]:
            return problem(403, "this token may only read")
        match path:
            case []:
                return stac(self.landing_page())
            case ["conformance"]:
                return stac({"conformsTo": self.conforms_to})
            case ["collections"]:
                return self._collections(request)
            case ["collections", name]:
                return self._collection(request, name)
            case ["search"]:
                everything = [i for held in self.holdings.values() for i in held.values()]
                return stac(self.paging(self, request, everything))
            case ["collections", name, "items"] if name in self.holdings:
                return self._items(request, name)
            case ["collections", name, "items", item_id] if name in self.holdings:
                return self._item(request, name, item_id)
        return super().answer(request)

    def landing_page(self) -> dict[str, Any]:
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "api",
            "description": "An API",
            "conformsTo": self.conforms_to,
            "links": [
                {"rel": "self", "href": f"{self.url}/"},
                {"rel": "root", "href": f"{self.url}/"},
                {"rel": "conformance", "href": f"{self.url}/conformance"},
                {"rel": "data", "href": f"{self.url}/collections"},
                {"rel": "search", "href": f"{self.url}/search", "type": GEOJSON, "method": "GET"},
                {"rel": "search", "href": f"{self.url}/search", "type": GEOJSON, "method": "POST"},
            ],
        }

    def described(self, name: str) -> dict[str, Any]:
        url = f"{self.url}/collections/{name}"
        links = self.links_of_collections
        if links is None:
            links = [
                {"rel": "self", "href": url},
                {"rel": "root", "href": f"{self.url}/"},
                {"rel": "parent", "href": f"{self.url}/"},
                {"rel": "items", "href": f"{url}/items", "type": "application/geo+json"},
            ]
        return {**self.descriptions[name], "links": links}

    def _collections(self, request: RecordedRequest) -> Answer:
        if request.method == "POST":
            sent = request.json()
            if sent["id"] in self.descriptions:
                return problem(409, f"collection {sent['id']} already exists")
            self.descriptions[sent["id"]] = sent
            self.holdings.setdefault(sent["id"], {})
            return stac(self.described(sent["id"]), 201)
        listed = [self.described(name) for name in self.descriptions]
        return stac({"collections": listed, "links": []})

    def _collection(self, request: RecordedRequest, name: str) -> Answer:
        if name not in self.descriptions:
            return problem(404, f"no collection {name}")
        if request.method == "DELETE":
            del self.descriptions[name], self.holdings[name]
            return Answer(204)
        if request.method == "PUT":
            self.descriptions[name] = request.json()
        if request.method == "PATCH":
            self.descriptions[name].update(request.json())
        return stac(self.described(name))

    def _items(self, request: RecordedRequest, name: str) -> Answer:
        held = self.holdings[name]
        if request.method != "POST":
            return stac(self.paging(self, request, list(held.values())))
        sent = request.json()
        if sent["id"] in held:
            return problem(409, f"item {sent['id']} already exists")
        if "properties" not in sent:
            return problem(422, "body.properties: field required")
        held[sent["id"]] = sent
        return stac(sent, 201)

    def _item(self, request: RecordedRequest, name: str, item_id: str) -> Answer:
        held = self.holdings[name]
        if item_id not in held:
            return problem(404, f"no item {item_id}")
        now = stac(held[item_id])
        condition = request.headers.get("If-Match")
        if condition is not None and condition != now.header("etag"):
            return problem(412, "it has changed")
        if request.method == "DELETE":
            del held[item_id]
            return Answer(204)
        if request.method == "PUT":
            held[item_id] = request.json()
        if request.method == "PATCH":
            held[item_id]["properties"].update(request.json()["properties"])
        return stac(held[item_id])


# -- styles of paging ---------------------------------------------------------------------------


def asked(request: RecordedRequest) -> dict[str, Any]:
    return request.json() if request.method == "POST" else dict(request.query)


def page_of(
    server: FeaturesServer,
    items: list[dict[str, Any]],
    start: int,
    limit: int,
    *links: dict[str, Any],
) -> dict[str, Any]:
    page: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": items[start : start + limit],
        "links": list(links),
    }
    if server.counts:
        page["numberMatched"] = len(items)
    return page


def place_in(server: FeaturesServer, request: RecordedRequest) -> tuple[int, int]:
    wanted = asked(request)
    return int(wanted.get("token", 0)), min(server.cap, int(wanted.get("limit", 10)))


def by_token(
    server: FeaturesServer, request: RecordedRequest, items: list[dict[str, Any]]
) -> dict[str, Any]:
    """The next link repeats the query with a token: in the URL, or in the body of a POST."""
    start, limit = place_in(server, request)
    if start + limit >= len(items):
        return page_of(server, items, start, limit)
    again = {**asked(request), "token": start + limit}
    link: dict[str, Any] = {"rel": "next", "href": f"{server.url}{request.path}"}
    if request.method == "POST":
        link |= {"method": "POST", "body": again}
    else:
        link["href"] += "?" + "&".join(f"{name}={value}" for name, value in again.items())
    return page_of(server, items, start, limit, link)


def merging(
    server: FeaturesServer, request: RecordedRequest, items: list[dict[str, Any]]
) -> dict[str, Any]:
    """The next link has only the changes, to be merged into the request (`merge`)."""
    start, limit = place_in(server, request)
    if request.method != "POST":
        return by_token(server, request, items)
    if start + limit >= len(items):
        return page_of(server, items, start, limit)
    link = {
        "rel": "next",
        "href": f"{server.url}{request.path}",
        "method": "post",
        "merge": True,
        "body": {"token": start + limit},
        "headers": {"X-Page": str(start + limit)},
    }
    return page_of(server, items, start, limit, link)


def relative(
    server: FeaturesServer, request: RecordedRequest, items: list[dict[str, Any]]
) -> dict[str, Any]:
    """Next links are relative. There is an empty page before the last page, and one after it."""
    start, limit = place_in(server, request)
    if start > len(items):
        return page_of(server, items, start, limit)
    if "again" not in request.query and start and start + limit >= len(items):
        link = {"rel": "next", "href": f"?token={start}&limit={limit}&again=1"}
        return page_of(server, items, len(items), limit, link)
    link = {"rel": "next", "href": f"?token={start + limit}&limit={limit}"}
    if start + limit >= len(items):
        link = {"rel": "next", "href": f"?token={len(items) + 1}&limit={limit}"}
    return page_of(server, items, start, limit, link)


def without_next(
    server: FeaturesServer, request: RecordedRequest, items: list[dict[str, Any]]
) -> dict[str, Any]:
    """There is no next link."""
    _, limit = place_in(server, request)
    return page_of(server, items, 0, limit)
