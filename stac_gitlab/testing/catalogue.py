"""The projects of a server as one numbered, searchable whole.

A project's number is its place in the sequence plus `FIRST_NUMBER`, so that a sequence that makes
its projects on demand never has to be kept. What has to be known of every project (its
collections, whether everybody may see it, its path) is read once, unless the sequence is a
`ProjectSeries` and says it for all of them.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stac_gitlab.testing.access import AccessLevel, User
from stac_gitlab.testing.projects import Project, ProjectSeries

FIRST_NUMBER = 101
_CREATED_FROM = datetime(2022, 1, 1, tzinfo=UTC)
_UPDATED_FROM = datetime(2024, 1, 1, tzinfo=UTC)
_CREATED_DAYS = 700  # keeps what is made up before what is updated, for any number
_KEPT_ORDERS = 8

SortKey = tuple[str | int, ...]


@dataclass(frozen=True)
class Entry:
    """A project with its number in the catalogue."""

    number: int
    project: Project

    @property
    def created(self) -> str:
        """When the project was made, RFC 3339."""
        return self.project.created or _stamp(
            _CREATED_FROM + timedelta(days=self.number % _CREATED_DAYS)
        )

    @property
    def updated(self) -> str:
        """When something last happened in the project, RFC 3339."""
        return self.project.updated or _stamp(_UPDATED_FROM + timedelta(hours=self.number))

    @property
    def full_name(self) -> str:
        """GitLab's name with namespace: `Group / Sub-Group / Project Name`."""
        groups = self.project.path.rpartition("/")[0]
        return (
            f"{groups}/".title().replace("/", " / ") + self.project.name
            if groups
            else self.project.name
        )


SORT_FIELDS: Mapping[str, Callable[[Entry], str | int]] = {
    "name": lambda entry: entry.project.name.lower(),
    "created": lambda entry: entry.created,
    "updated": lambda entry: entry.updated,
    "stars": lambda entry: entry.project.stars,
}
"""What GitLab can sort by, beside the number that it falls back to."""


class Order(Sequence[int]):
    """Indices of projects in the order of a listing, with the keys that its cursors hold."""

    def __init__(
        self, indices: Sequence[int], keys: Sequence[SortKey] | None = None, *, reverse: bool
    ) -> None:
        self._indices = indices
        self._keys = keys
        self._reverse = reverse

    def reversed(self) -> Order:
        """The same listing from its last to its first."""
        return Order(self._indices, self._keys, reverse=not self._reverse)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> int:  # type: ignore[override]  # no slices needed
        place = -1 - position if self._reverse else position
        return self._indices[place]

    def key_at(self, position: int) -> SortKey:
        """The key of the project at a position."""
        if self._keys is None:
            return (self[position] + FIRST_NUMBER,)
        return self._keys[-1 - position if self._reverse else position]

    def position_of(self, key: SortKey, *, behind: bool) -> int:
        """The position of the project with a key, or the one behind it.

        Raises:
            ValueError: No listing in this order has such a key.
        """
        if self._keys is None:
            # A cursor made for another order ends in the number as well: it is taken for it.
            number = key[-1]
            if not isinstance(number, int):
                raise ValueError(f"no number: {key!r}")
            low = bisect_left(self._indices, number - FIRST_NUMBER)
            high = bisect_left(self._indices, number - FIRST_NUMBER + 1)
        else:
            if [type(part) for part in key] != [type(part) for part in self._keys[0]]:
                raise ValueError(f"not a key of this order: {key!r}")
            low = bisect_left(self._keys, key)
            high = low + (low < len(self._keys) and self._keys[low] == key)
        if self._reverse:
            low, high = len(self) - high, len(self) - low
        return high if behind else low


class Catalogue:
    """The projects behind a server, by number, by path and by collection.

    Args:
        projects: Any sequence of projects.
    """

    def __init__(self, projects: Sequence[Project]) -> None:
        self._projects = projects
        self._lock = threading.RLock()
        self._by_path: dict[str, int] | None = None
        self._by_category: dict[str, Sequence[int]] | None = None
        self._private: frozenset[int] = frozenset()
        self._orders: dict[tuple[object, ...], Order] = {}

    def __len__(self) -> int:
        return len(self._projects)

    def entry_at(self, index: int) -> Entry:
        """The project at an index."""
        return Entry(index + FIRST_NUMBER, self._projects[index])

    def with_number(self, number: int) -> Entry | None:
        """The project with a number, if there is one."""
        index = number - FIRST_NUMBER
        return self.entry_at(index) if 0 <= index < len(self._projects) else None

    def with_path(self, path: str) -> Entry | None:
        """The project at a path, letter case ignored, if there is one."""
        path = path.strip("/").lower()
        if isinstance(self._projects, ProjectSeries):
            index = self._projects.find(path)
        else:
            index = self._scanned_paths().get(path)
        return None if index is None else self.entry_at(index)

    def named(self, name: str) -> Entry | None:
        """The project with a number or at a path, as GitLab's API takes either."""
        return self.with_number(int(name)) if name.isdecimal() else self.with_path(name)

    def categories(self) -> list[str]:
        """The collections that projects are in, in the order of their first project."""
        if isinstance(self._projects, ProjectSeries):
            return list(self._projects.categories)
        return list(self._scanned_categories())

    def order(
        self, category: str, user: User, field: str = "id", *, descending: bool = False
    ) -> Order:
        """The projects of a collection that a user may see, sorted.

        Args:
            category: The collection.
            user: Who asks.
            field: One of `SORT_FIELDS`; anything else is the number.
            descending: From the last to the first.
        """
        indices = self._visible(category, user)
        if field not in SORT_FIELDS:
            return Order(indices, reverse=descending)
        key = (category, user, field)
        with self._lock:
            ascending = self._orders.get(key)
            if ascending is None:
                ascending = self._sorted(indices, SORT_FIELDS[field])
                while len(self._orders) >= _KEPT_ORDERS:
                    del self._orders[next(iter(self._orders))]
                self._orders[key] = ascending
        return ascending.reversed() if descending else ascending

    def _sorted(self, indices: Iterable[int], field: Callable[[Entry], str | int]) -> Order:
        keyed = sorted(
            ((field(self.entry_at(index)), index + FIRST_NUMBER), index) for index in indices
        )
        return Order([index for _, index in keyed], [key for key, _ in keyed], reverse=False)

    def _visible(self, category: str, user: User) -> Sequence[int]:
        if isinstance(self._projects, ProjectSeries):
            return range(len(self._projects)) if category in self._projects.categories else ()
        indices = self._scanned_categories().get(category, ())
        if not self._private:
            return indices
        return [
            index
            for index in indices
            if index not in self._private or user.level_on(self._projects[index]) > AccessLevel.NONE
        ]

    def _scanned_paths(self) -> dict[str, int]:
        self._scan()
        return self._by_path or {}

    def _scanned_categories(self) -> dict[str, Sequence[int]]:
        self._scan()
        return self._by_category or {}

    def _scan(self) -> None:
        with self._lock:
            if self._by_path is not None:
                return
            by_path: dict[str, int] = {}
            by_category: dict[str, array[int]] = {}
            private = []
            for index, project in enumerate(self._projects):
                by_path[project.path.lower()] = index
                for category in project.categories:
                    by_category.setdefault(category, array("L")).append(index)
                if project.private:
                    private.append(index)
            self._private = frozenset(private)
            self._by_category = dict(by_category)
            self._by_path = by_path


def _stamp(moment: datetime) -> str:
    return f"{moment.replace(tzinfo=None).isoformat()}Z"
