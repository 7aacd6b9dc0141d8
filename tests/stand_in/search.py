"""The parameters of a search, as SharingHub 0.4.0 reads them, and its filters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stac_gitlab.testing import Answer
from stac_gitlab.testing.access import NumberedProject
from stac_gitlab.testing.exchange import response_of
from stac_gitlab.testing.search import CRASH, Box, RejectedError, box_of, boxes_around, is_in_box

DEFAULT_LIMIT = 12
_TOPIC = re.compile(r"\[([\w\s\-]+)\]")
_FLAG = re.compile(r":([\w\-]+)")
_UNSET: Mapping[str, object] = {"limit": DEFAULT_LIMIT}

Problem = dict[str, Any]
Predicate = Callable[[NumberedProject], bool]


def refusal(detail: str | list[Problem]) -> Answer:
    """Return a 422 with its reason."""
    return response_of({"detail": detail}, 422)


def query_integer(query: Mapping[str, str], name: str, default: int) -> int:
    """Return a query parameter that is an integer.

    Raises:
        RejectedError: It is not an integer.
    """
    text = query.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        message = "Input should be a valid integer, unable to parse string as an integer"
        problem = {"type": "int_parsing", "loc": ["query", name], "msg": message, "input": text}
        raise RejectedError(refusal([problem])) from None


@dataclass(frozen=True)
class Search:
    """The parameters of a listing.

    Attributes:
        limit: Items per page.
        sortby: `+field`, `-field`, or a list of `{"field": …, "direction": …}`.
        bbox: Four numbers.
        datetime: A moment, or two moments with a slash between them.
        intersects: A GeoJSON geometry. The stand-in uses a box around each part of it.
        ids: Item ids.
        collections: Collection ids.
        q: Free text, `[topic]` and `:flag`.
    """

    limit: int = DEFAULT_LIMIT
    sortby: str | Sequence[Mapping[str, str]] | None = None
    bbox: Sequence[float] = ()
    datetime: str | None = None
    intersects: Mapping[str, Any] | None = None
    ids: Sequence[str] = ()
    collections: Sequence[str] = ()
    q: Sequence[str] = ()

    @classmethod
    def from_query(cls, query: Mapping[str, str], *, default_limit: int) -> Search:
        """Read the parameters of `GET /search`. Most invalid ones are a 500.

        Raises:
            RejectedError: A parameter is invalid.
        """
        limit = query_integer(query, "limit", default_limit)
        try:
            interval(query.get("datetime"))
            return cls(
                limit=_positive(limit),
                sortby=query.get("sortby") or None,
                bbox=tuple(float(number) for number in _split(query, "bbox")),
                datetime=query.get("datetime") or None,
                intersects=json.loads(query.get("intersects", "null")),
                ids=_split(query, "ids"),
                collections=_split(query, "collections"),
                q=_split(query, "q"),
            )
        except ValueError:
            raise RejectedError(CRASH) from None

    @classmethod
    def from_body(cls, body: bytes, *, default_limit: int) -> Search:
        """Read the body of `POST /search`. Invalid values are a 422.

        Raises:
            RejectedError: The body is invalid.
        """
        try:
            document = json.loads(body)
        except ValueError as error:
            raise RejectedError(refusal([_problem("json_invalid", [], str(error), {})])) from None
        if not isinstance(document, dict):
            message = "Input should be a valid dictionary or object to extract fields from"
            problem = _problem("model_attributes_type", [], message, document)
            raise RejectedError(refusal([problem]))
        if problems := list(_body_problems(document)):
            raise RejectedError(refusal(problems))
        return cls(
            limit=document.get("limit", default_limit),
            sortby=document.get("sortby") or None,
            bbox=tuple(document.get("bbox") or ()),
            datetime=document.get("datetime") or None,
            intersects=document.get("intersects"),
            ids=tuple(document.get("ids") or ()),
            collections=tuple(document.get("collections") or ()),
            q=tuple(document.get("q") or ()),
        )

    def state(self) -> dict[str, object]:
        """Return the query of links to other pages.

        Values of a body are formatted by `str`, which is a bug of the server.
        """
        texts: dict[str, object] = {
            "limit": self.limit,
            "sortby": self.sortby,
            "bbox": ",".join(str(float(number)) for number in self.bbox),
            "datetime": self.datetime,
            "intersects": self.intersects,
            "ids": ",".join(self.ids),
            "collections": ",".join(self.collections),
            "q": ",".join(self.q),
        }
        return {name: text for name, text in texts.items() if text and text != _UNSET.get(name)}

    def sort_field(self) -> tuple[str, bool]:
        """Return the field to sort by, and whether the order is descending."""
        if not self.sortby:
            return "id", False
        if isinstance(self.sortby, str):
            name = self.sortby.lstrip("-+").strip()
            name = name.replace("properties.", "").replace("sharinghub:", "")
            descending = self.sortby.startswith("-")
        else:
            name = self.sortby[0].get("field", "")
            descending = self.sortby[0].get("direction") == "desc"
        return name, descending

    def gitlab_filter(self) -> Predicate | None:
        """Return the filter that GitLab applies: text and topics."""
        text = " ".join(self.q)
        topics = _TOPIC.findall(text)
        words = " ".join(_FLAG.sub("", _TOPIC.sub("", text)).split()).lower()
        if not topics and not words:
            return None

        def matches(found: NumberedProject) -> bool:
            project = found.project
            summary = getattr(project, "summary", None) or ""
            searched = f"{project.path}\n{project.name}\n{summary}".lower()
            return words in searched and all(topic in project.keywords for topic in topics)

        return matches

    def local_filter(self) -> Predicate | None:
        """Return the filter that the server applies after GitLab: place and time.

        Raises:
            RejectedError: The place or the time is invalid.
        """
        boxes = self._boxes()
        span = interval(self.datetime)
        if span is not None and None in {moment.tzinfo for moment in span}:
            raise RejectedError(CRASH)
        starred = "starred" in _FLAG.findall(" ".join(self.q))
        if boxes is None and span is None and not starred:
            return None

        def matches(found: NumberedProject) -> bool:
            # No user of the stand-in has starred a project.
            return not starred and _in_boxes(found, boxes) and _in_span(found, span)

        return matches

    def _boxes(self) -> list[Box] | None:
        if self.intersects:
            boxes = boxes_around(self.intersects)
            if not boxes:
                raise RejectedError(refusal(f"Could not process 'intersects': {self.intersects}"))
            return boxes
        if not self.bbox:
            return None
        if len(self.bbox) != 4:
            raise RejectedError(refusal(f"Could not process 'bbox': {list(self.bbox)}"))
        return [box_of(self.bbox)]


def _positive(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"no page has {limit} items")
    return limit


def interval(text: str | None) -> tuple[datetime, datetime] | None:
    """Parse a moment or a closed interval. The server does not support open intervals.

    Raises:
        ValueError: It is neither.
    """
    if not text:
        return None
    start, *end = (datetime.fromisoformat(part) for part in text.split("/")[:2])
    return start, end[0] if end else start


def _split(query: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = query.get(name, "")
    return tuple(text.split(",")) if text else ()


def _in_boxes(found: NumberedProject, boxes: Sequence[Box] | None) -> bool:
    return boxes is None or any(is_in_box(found, box) for box in boxes)


def _in_span(found: NumberedProject, span: tuple[datetime, datetime] | None) -> bool:
    if span is None:
        return True
    # The dates of the project count, not those in its README.
    created, updated = map(datetime.fromisoformat, (found.created, found.updated))
    start, end = span
    return start <= created <= end or start <= updated <= end or created <= start <= end <= updated


def _problem(
    kind: str, location: Sequence[str], message: str, got: object, **context: object
) -> Problem:
    problem: Problem = {
        "type": kind,
        "loc": ["body", *location],
        "msg": message,
        "input": got,
    }
    return {**problem, "ctx": context} if context else problem


def _body_problems(document: Mapping[str, Any]) -> Iterator[Problem]:
    limit = document.get("limit", 1)
    if not isinstance(limit, int) or isinstance(limit, bool):
        yield _problem("int_type", ["limit"], "Input should be a valid integer", limit)
    elif limit < 1:
        yield _problem("greater_than", ["limit"], "Input should be greater than 0", limit, gt=0)
    for name in ("ids", "collections", "q"):
        value = document.get(name, [])
        if not isinstance(value, list):
            yield _problem("list_type", [name], "Input should be a valid list", value)
    text = document.get("datetime")
    try:
        interval(text)
    except (ValueError, TypeError, AttributeError) as error:
        yield _problem("value_error", ["datetime"], f"Value error, {error}", text, error={})
