"""Pages of a listing in SharingHub 0.4.0: cursors, filters and counts, with their bugs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from stac_gitlab.testing.access import Catalogue, NumberedProject
from stac_gitlab.testing.search import CRASH, RejectedError
from stand_in.order import Order, SortKey
from stand_in.search import Predicate, Search, refusal

_MAX_IDS = 100


@dataclass(frozen=True)
class Cursor:
    """The position of a page in its listing.

    Attributes:
        before: The key before which the page ends. It takes precedence over `after`.
        after: The key after which the page begins.
    """

    before: str | None = None
    after: str | None = None

    def bounds(self, order: Order) -> tuple[int, int]:
        """Return the positions between which the page lies.

        Raises:
            RejectedError: The key is invalid, which is a 500.
        """
        try:
            if self.before:
                return 0, order.position_of(_key(self.before), behind=False)
            if self.after:
                return order.position_of(_key(self.after), behind=True), len(order)
        except (ValueError, TypeError, KeyError, IndexError):
            raise RejectedError(CRASH) from None
        return 0, len(order)


@dataclass(frozen=True)
class Page:
    """A page of projects.

    Attributes:
        projects: The projects.
        matched: The number of all matches; `None` if the server did not count them.
        before: Cursor of the previous page, if there is one.
        after: Cursor of the next page, if there is one.
    """

    projects: Sequence[NumberedProject]
    matched: int | None
    before: str | None = None
    after: str | None = None


def find_page(
    catalogue: Catalogue, order: Order, search: Search, cursor: Cursor, *, local: bool = True
) -> Page:
    """Return the page of a search at a cursor.

    Args:
        catalogue: The projects.
        order: The sorted projects.
        search: The search.
        cursor: The position of the page.
        local: Filter by place and time, which the server omits in reference mode.

    Raises:
        RejectedError: The cursor or a filter is invalid.
    """
    gitlab_filter = search.gitlab_filter()
    local_filter = search.local_filter() if local else None
    start, stop = cursor.bounds(order)
    backwards = bool(cursor.before)
    if gitlab_filter is None and local_filter is None:
        if backwards:
            start = max(start, stop - search.limit)
        else:
            stop = min(stop, start + search.limit)
        positions: Sequence[int] = range(start, stop)
        more_before, more_after = start > 0, stop < len(order)
    else:
        ahead = range(stop - 1, start - 1, -1) if backwards else range(start, stop)
        found = _filtered(catalogue, order, (gitlab_filter, local_filter), ahead)
        taken = list(islice(found, search.limit + 1))
        more, taken = len(taken) > search.limit, taken[: search.limit]
        positions = sorted(taken)
        more_before = more if backwards else start > 0
        more_after = stop < len(order) if backwards else more
    if local_filter is not None:
        continued = bool(cursor.before or cursor.after)
        matched = _guessed(search, len(positions), continued=continued, more=more_after)
    elif gitlab_filter is not None:
        matched = sum(gitlab_filter(catalogue[index]) for index in order)
    else:
        matched = len(order)
    return Page(
        projects=[catalogue[order[position]] for position in positions],
        matched=matched,
        before=_cursor(order.key_at(positions[0])) if positions and more_before else None,
        after=_cursor(order.key_at(positions[-1])) if positions and more_after else None,
    )


def find_ids(
    ids: Sequence[str], find: Callable[[str], NumberedProject | None], category: str
) -> Page:
    """Return items by id, in the order of the ids, on one page whatever the limit.

    Ids that do not exist are omitted.

    Raises:
        RejectedError: There are too many of them for GitLab.
    """
    if len(ids) > _MAX_IDS:
        raise RejectedError(refusal("Query has too high a complexity: ask for fewer ids"))
    found = (find(each) for each in ids)
    projects = [each for each in found if each and category in each.project.categories]
    return Page(projects, matched=len(ids))


def _cursor(key: SortKey) -> str:
    text = json.dumps({"k": list(key)}).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _key(cursor: str) -> SortKey:
    padded = cursor + "=" * (-len(cursor) % 4)
    return tuple(json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))["k"])


def _filtered(
    catalogue: Catalogue,
    order: Order,
    filters: Sequence[Predicate | None],
    positions: range,
) -> Iterator[int]:
    for position in positions:
        found = catalogue[order[position]]
        if all(each is None or each(found) for each in filters):
            yield position


def _guessed(search: Search, returned: int, *, continued: bool, more: bool) -> int | None:
    """Return the count after local filters, which is known if the first page has all matches."""
    complete = (returned < search.limit and not continued) or (
        returned == search.limit and not more
    )
    return returned if complete else None
