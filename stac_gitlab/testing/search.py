"""The parameters of a SharingHub listing, and the errors for invalid ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from stac_gitlab.testing.access import Catalogue, NumberedProject
from stac_gitlab.testing.exchange import Answer, response_of

CRASH = replace(response_of("Internal Server Error", 500), hang_up=True)
"""The response after an exception inside the server, which closes the connection unannounced."""


SORT_KEYS: Mapping[str, Callable[[NumberedProject], str | int]] = {
    "name": lambda found: found.project.name.lower(),
    "title": lambda found: found.project.name.lower(),
    "created": lambda found: found.created,
    "start_datetime": lambda found: found.created,
    "updated": lambda found: found.updated,
    "datetime": lambda found: found.updated,
    "end_datetime": lambda found: found.updated,
    "stars": lambda found: found.project.stars,
}
"""What the server sorts by. It sorts by number where another field is given."""


class RejectedError(Exception):
    """Raised for a request that gets an error response.

    Attributes:
        answer: The response.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def detail(status: int, text: str) -> Answer:
    """Return an error document."""
    return response_of({"detail": text}, status)


@dataclass(frozen=True)
class Search:
    """The parameters of a listing. Dates are those of the project, as in the real server.

    `after` is the position of the first project of the page in the sorted listing.
    """

    limit: int
    collections: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    bbox: tuple[float, ...] = ()
    datetime: str = ""
    q: tuple[str, ...] = ()
    sortby: str = ""
    after: int = 0
    mode: str = "full"
    gitlab_token: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, Any], *, limit: int) -> Self:
        """Read the parameters of a query or a body.

        Raises:
            RejectedError: A parameter is invalid, or the stand-in does not implement it.
        """
        if unknown := sorted(set(asked) - {each.name for each in fields(cls)}):
            raise RejectedError(detail(501, f"The stand-in does not implement {unknown}"))
        parsed = {**asked, "limit": asked.get("limit", limit)}
        try:
            for name in {"limit", "after"} & set(parsed):
                parsed[name] = int(parsed[name])
            for name in {"collections", "ids", "bbox", "q"} & set(parsed):
                listed = parsed[name]
                parsed[name] = tuple(listed.split(",") if isinstance(listed, str) else listed)
            parsed["bbox"] = tuple(map(float, parsed.get("bbox", ())))
            if isinstance(parsed.get("sortby"), list):
                first = parsed["sortby"][0]
                parsed["sortby"] = f"{'-' * (first.get('direction') == 'desc')}{first['field']}"
            search = cls(**parsed)
            _ = search.span
        except (LookupError, TypeError, ValueError) as error:
            raise RejectedError(detail(422, str(error))) from None
        if search.limit < 1:
            raise RejectedError(CRASH)
        if search.mode not in ("full", "preview", "reference"):
            raise RejectedError(detail(501, f"The stand-in does not implement mode={search.mode}"))
        return search

    @property
    def span(self) -> tuple[dt.datetime, dt.datetime] | None:
        """The first and the last moment. Open intervals are unknown to the server."""
        if not self.datetime:
            return None
        first, _, last = self.datetime.partition("/")
        return dt.datetime.fromisoformat(first), dt.datetime.fromisoformat(last or first)

    @property
    def is_filtered(self) -> bool:
        """Whether the number of matches is unknown."""
        return bool(self.ids or self.bbox or self.datetime or self.q)

    def order(self, catalogue: Catalogue, indices: Sequence[int]) -> Sequence[int]:
        """Return the indices of projects in the order of the listing."""
        if not self.sortby:
            return indices
        name = self.sortby.strip("+- ").removeprefix("properties.").removeprefix("sharinghub:")
        key = SORT_KEYS.get(name, _number)
        descending = self.sortby.startswith("-")
        return sorted(indices, key=lambda index: key(catalogue[index]), reverse=descending)

    def matches(self, found: NumberedProject) -> bool:
        """Return whether a project has the words of the search, and is in its extent."""
        text = f"{found.project.path}\n{found.project.name}".lower()
        if " ".join(self.q).lower() not in text:
            return False
        if self.bbox:
            if found.project.bbox is None:
                return False
            west, south, east, north = found.project.bbox
            left, bottom, right, top = self.bbox
            if not (left <= east and west <= right and bottom <= north and south <= top):
                return False
        if self.span is None:
            return True
        first, last = self.span
        created, updated = map(dt.datetime.fromisoformat, (found.created, found.updated))
        return created <= last and first <= updated

    def query(self, endpoint: str) -> dict[str, object]:
        """Return the query of the link to the next page."""
        collections = self.collections if endpoint == "/search" else ()
        listed = {"collections": collections, "bbox": self.bbox, "q": self.q}
        query = {
            **{name: ",".join(map(str, values)) for name, values in listed.items()},
            "datetime": self.datetime,
            "sortby": self.sortby,
            "mode": self.mode.removeprefix("full"),
        }
        return {"limit": self.limit, **{name: text for name, text in query.items() if text}}


def _number(found: NumberedProject) -> int:
    return found.number
