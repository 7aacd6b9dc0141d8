"""The parameters of a SharingHub listing, and the errors for invalid ones."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from stac_gitlab.testing.access import Catalogue, NumberedProject
from stac_gitlab.testing.exchange import Answer, response_of

CRASH = replace(response_of("Internal Server Error", 500), hang_up=True)
"""The response after an exception inside the server, which closes the connection unannounced."""
Box = tuple[float, float, float, float]

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
    intersects: Mapping[str, Any] = field(default_factory=dict)
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
            if isinstance(parsed.get("intersects"), str):
                parsed["intersects"] = json.loads(parsed["intersects"])
            parsed["bbox"] = tuple(map(float, parsed.get("bbox", ())))
            if isinstance(parsed.get("sortby"), list):
                first = parsed["sortby"][0]
                parsed["sortby"] = f"{'-' * (first.get('direction') == 'desc')}{first['field']}"
            search = cls(**parsed)
            _ = search.span, search.boxes
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
    def boxes(self) -> list[Box]:
        """The extents of the search. A geometry takes precedence over a box."""
        if not self.intersects:
            return [box_of(self.bbox)] if self.bbox else []
        boxes = boxes_around(self.intersects)
        if not boxes:
            raise ValueError(f"Could not process 'intersects': {self.intersects}")
        return boxes

    @property
    def is_filtered(self) -> bool:
        """Whether the number of matches is unknown."""
        return bool(self.ids or self.bbox or self.intersects or self.datetime or self.q)

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
        if self.boxes and not any(is_in_box(found, box) for box in self.boxes):
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
        place = {"intersects": json.dumps(self.intersects)} if self.intersects else {}
        query = {
            **{name: ",".join(map(str, values)) for name, values in listed.items()},
            **place,
            "datetime": self.datetime,
            "sortby": self.sortby,
            "mode": self.mode.removeprefix("full"),
        }
        return {"limit": self.limit, **{name: text for name, text in query.items() if text}}


def box_of(bbox: Sequence[float]) -> Box:
    """Return a box as the server reads it: around the world, if west is greater than east."""
    west, south, east, north = bbox
    return min(west, east), south, max(west, east), north


def boxes_around(geometry: Mapping[str, Any]) -> list[Box]:
    """Return a box around each part of a GeoJSON geometry."""
    coordinates = geometry.get("coordinates")
    is_multi = str(geometry.get("type")).startswith("Multi")
    parts = coordinates if is_multi and isinstance(coordinates, list) else [coordinates]
    boxes = []
    for positions in filter(None, (list(_positions(part)) for part in parts)):
        easts, norths = zip(*positions, strict=True)
        boxes.append((min(easts), min(norths), max(easts), max(norths)))
    return boxes


def is_in_box(found: NumberedProject, box: Box) -> bool:
    """Return whether the extent of a project touches a box."""
    if found.project.bbox is None:
        return False
    west, south, east, north = found.project.bbox
    return box[0] <= east and west <= box[2] and box[1] <= north and south <= box[3]


def _positions(coordinates: object) -> Iterator[tuple[float, float]]:
    if not isinstance(coordinates, list):
        return
    if coordinates and all(isinstance(number, (int, float)) for number in coordinates):
        if len(coordinates) > 1:
            yield coordinates[0], coordinates[1]
        return
    for inner in coordinates:
        yield from _positions(inner)


def _number(found: NumberedProject) -> int:
    return found.number
