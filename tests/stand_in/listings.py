"""The listing endpoints of SharingHub 0.4.0: the items of a collection, and the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from stac_gitlab.testing import RecordedRequest
from stac_gitlab.testing.documents import GEOJSON, JSON, Document, View, item_page, link
from stac_gitlab.testing.search import RejectedError
from stand_in.pages import Cursor, Page
from stand_in.search import Search, refusal

Mode = Literal["reference", "preview", "full"]

_ITEMS_PARAMETERS = ("limit", "bbox", "datetime")


@dataclass(frozen=True)
class Listing:
    """A request to a listing endpoint.

    Attributes:
        endpoint: The path of the endpoint below the STAC API.
        asked: The query of the request.
        search: The search.
        mode: How much of each item is returned.
        cursor: The position of the page.
    """

    endpoint: str
    asked: dict[str, str]
    search: Search
    mode: Mode = "full"
    cursor: Cursor = field(default_factory=Cursor)

    @classmethod
    def of_collection(
        cls, request: RecordedRequest, collection: str, *, default_limit: int
    ) -> Listing:
        """Read a request for the items of a collection, which ignores most search parameters.

        Raises:
            RejectedError: A parameter is invalid.
        """
        known = {name: request.query[name] for name in _ITEMS_PARAMETERS if name in request.query}
        mode = _mode(request)
        search = Search.from_query(known, default_limit=default_limit)
        return cls(
            f"/collections/{collection}/items",
            dict(request.query),
            replace(search, collections=(collection,)),
            mode,
            _cursor(request),
        )

    @classmethod
    def of_search(cls, request: RecordedRequest, *, default_limit: int) -> Listing:
        """Read a request to the search endpoint.

        Raises:
            RejectedError: A parameter or the body is invalid.
        """
        mode = _mode(request)
        if request.method == "POST":
            search = Search.from_body(request.body, default_limit=default_limit)
        else:
            search = Search.from_query(request.query, default_limit=default_limit)
        return cls("/search", dict(request.query), search, mode, _cursor(request))

    def page(self, view: View, page: Page, features: Sequence[Document]) -> Document:
        """Return the page as a document."""
        links = [
            link("self", GEOJSON, view.stac(self.endpoint, self.asked)),
            link("root", JSON, view.stac("/")),
            *(
                link("collection", JSON, view.stac(f"/collections/{collection}"))
                for collection in self.search.collections
            ),
        ]
        again = {**self._state(), **self.asked}
        if page.before:
            query = {**_without(again, "after"), "before": page.before}
            links.append(_step("prev", view.stac(self.endpoint, query)))
        if page.after:
            query = {**_without(again, "before"), "after": page.after}
            links.append(_step("next", view.stac(self.endpoint, query)))
        return item_page(features, links, limit=self.search.limit, matched=page.matched)

    def _state(self) -> dict[str, object]:
        """Return the parameters that links to other pages repeat."""
        state = self.search.state()
        return state if self.endpoint == "/search" else _without(state, "collections")


def _cursor(request: RecordedRequest) -> Cursor:
    return Cursor(request.query.get("before"), request.query.get("after"))


def _mode(request: RecordedRequest) -> Mode:
    mode = request.query.get("mode", "full")
    if mode in ("reference", "preview", "full"):
        return cast("Mode", mode)
    expected = "'reference', 'preview' or 'full'"
    problem = {
        "type": "literal_error",
        "loc": ["query", "mode"],
        "msg": f"Input should be {expected}",
        "input": mode,
        "ctx": {"expected": expected},
    }
    raise RejectedError(refusal([problem]))


def _step(rel: str, href: str) -> Document:
    return {"rel": rel, "href": href, "type": GEOJSON}


def _without(query: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in query.items() if key != name}
