"""The listing endpoints of SharingHub: what was asked of them, and the page for it.

The question is parsed in `search`, the page found in `pages`; here the two endpoints are told
apart, and links to the neighbouring pages are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from stac_gitlab.testing.documents import GEOJSON, JSON, Document, Link, item_page, link
from stac_gitlab.testing.exchange import RecordedRequest
from stac_gitlab.testing.pages import Cursor, Page
from stac_gitlab.testing.search import Search, SearchError, refusal
from stac_gitlab.testing.viewpoint import Viewpoint

Mode = Literal["reference", "preview", "full"]

_ITEMS_PARAMETERS = ("limit", "bbox", "datetime")


@dataclass(frozen=True)
class Listing:
    """A question to a listing endpoint.

    Attributes:
        endpoint: The endpoint's path below the STAC API.
        asked: The query of the request.
        search: What is searched for.
        mode: How much of each item is wanted.
        cursor: Where the page lies.
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
        """The question that a request puts to a collection's items endpoint.

        The endpoint knows fewer parameters than the search, and ignores the others.

        Raises:
            SearchError: A parameter is wrong.
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
        """The question that a request puts to the search endpoint.

        Raises:
            SearchError: A parameter or the body is wrong.
        """
        mode = _mode(request)
        if request.method == "POST":
            search = Search.from_body(request.body, default_limit=default_limit)
        else:
            search = Search.from_query(request.query, default_limit=default_limit)
        return cls("/search", dict(request.query), search, mode, _cursor(request))

    def page(self, view: Viewpoint, page: Page, features: Sequence[Document]) -> Document:
        """The page that answers the question."""
        links = [
            link("self", GEOJSON, view.page(self.endpoint, {**self.asked, **view.link_query})),
            link("root", JSON, view.root()),
            *(
                link("collection", JSON, view.stac(f"/collections/{collection}"))
                for collection in self.search.collections
            ),
        ]
        again = {**self._state(), **self.asked}
        if page.before:
            query = {**_without(again, "after"), "before": page.before}
            links.append(_step("prev", view.page(self.endpoint, query)))
        if page.after:
            query = {**_without(again, "before"), "after": page.after}
            links.append(_step("next", view.page(self.endpoint, query)))
        return item_page(features, links, limit=self.search.limit, matched=page.matched)

    def _state(self) -> dict[str, object]:
        """What the links to other pages repeat of the question."""
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
    raise SearchError(refusal([problem]))


def _step(rel: str, href: str) -> Link:
    return {"rel": rel, "href": href, "type": GEOJSON}


def _without(query: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in query.items() if key != name}
