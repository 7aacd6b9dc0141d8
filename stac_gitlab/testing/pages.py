"""Pages of a SharingHub 0.4.0 listing: cursors, filters and counts, down to where they break.

From a `Search` and a cursor to the entries of one page and the cursors of its neighbours. Only the
projects on the page are made, unless a filter has to look at more.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from stac_gitlab.testing.catalogue import Entry, Order, SortKey
from stac_gitlab.testing.search import Predicate, Search, SearchError, crash, refusal

_MAX_IDS = 100


@dataclass(frozen=True)
class Cursor:
    """Where a page lies in its listing.

    Attributes:
        before: The key in front of which it ends. Beats `after`.
        after: The key behind which it begins.
    """

    before: str | None = None
    after: str | None = None

    def bounds(self, order: Order) -> tuple[int, int]:
        """The positions between which the page lies.

        Raises:
            SearchError: The key is none, which the server does not expect.
        """
        try:
            if self.before:
                return 0, order.position_of(_key(self.before), behind=False)
            if self.after:
                return order.position_of(_key(self.after), behind=True), len(order)
        except (ValueError, TypeError, KeyError, IndexError):
            raise SearchError(crash()) from None
        return 0, len(order)


@dataclass(frozen=True)
class Page:
    """The entries of one page.

    Attributes:
        entries: The entries.
        matched: How many there are in all; `None` where the server did not count.
        before: Cursor of the page before, if there is one.
        after: Cursor of the page behind, if there is one.
    """

    entries: Sequence[Entry]
    matched: int | None
    before: str | None = None
    after: str | None = None


def find_page(
    order: Order,
    entry_at: Callable[[int], Entry],
    search: Search,
    cursor: Cursor,
    *,
    local: bool = True,
) -> Page:
    """Find the page that a search and a cursor ask for.

    Args:
        order: The sorted projects.
        entry_at: Makes the entry of an index of `order`.
        search: The search.
        cursor: Where the page lies.
        local: Filter by place and time, which the server leaves out in reference mode.

    Raises:
        SearchError: The cursor is none, or the search cannot be filtered by.
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
        found = _filtered(order, entry_at, (gitlab_filter, local_filter), ahead)
        taken = list(islice(found, search.limit + 1))
        more, taken = len(taken) > search.limit, taken[: search.limit]
        positions = sorted(taken)
        more_before = more if backwards else start > 0
        more_after = stop < len(order) if backwards else more
    if local_filter is not None:
        continued = bool(cursor.before or cursor.after)
        matched = _guessed(search, len(positions), continued=continued, more=more_after)
    elif gitlab_filter is not None:
        matched = sum(gitlab_filter(entry_at(index)) for index in order)
    else:
        matched = len(order)
    return Page(
        entries=[entry_at(order[position]) for position in positions],
        matched=matched,
        before=_cursor(order.key_at(positions[0])) if positions and more_before else None,
        after=_cursor(order.key_at(positions[-1])) if positions and more_after else None,
    )


def find_ids(ids: Sequence[str], find: Callable[[str], Entry | None], category: str) -> Page:
    """Find items by id, in the order of the ids: one page whatever the limit.

    Ids that do not exist are dropped silently.

    Raises:
        SearchError: There are too many of them for GitLab.
    """
    if len(ids) > _MAX_IDS:
        raise SearchError(refusal("Query has too high a complexity: ask for fewer ids"))
    found = (find(each) for each in ids)
    entries = [entry for entry in found if entry and category in entry.project.categories]
    return Page(entries, matched=len(ids))


def _cursor(key: SortKey) -> str:
    text = json.dumps({"k": list(key)}).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _key(cursor: str) -> SortKey:
    padded = cursor + "=" * (-len(cursor) % 4)
    return tuple(json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))["k"])


def _filtered(
    order: Order,
    entry_at: Callable[[int], Entry],
    filters: Sequence[Predicate | None],
    positions: range,
) -> Iterator[int]:
    for position in positions:
        entry = entry_at(order[position])
        if all(each is None or each(entry) for each in filters):
            yield position


def _guessed(search: Search, returned: int, *, continued: bool, more: bool) -> int | None:
    """The count after the server's own filters: known only where the first page holds it all."""
    complete = (returned < search.limit and not continued) or (
        returned == search.limit and not more
    )
    return returned if complete else None
