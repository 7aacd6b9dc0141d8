"""Sorted listings, and the keys of their cursors."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from stac_gitlab.testing import User
from stac_gitlab.testing.access import FIRST_NUMBER, Catalogue
from stac_gitlab.testing.search import SORT_KEYS

SortKey = tuple[str | int, ...]


class Order(Sequence[int]):
    """Indices of projects in the order of a listing, with the keys for its cursors."""

    def __init__(
        self, indices: Sequence[int], keys: Sequence[SortKey] | None = None, *, reverse: bool
    ) -> None:
        self._indices = indices
        self._keys = keys
        self._reverse = reverse

    @classmethod
    def of(
        cls, catalogue: Catalogue, category: str, user: User, field: str, *, descending: bool
    ) -> Order:
        """Sort the projects of a collection that a user may see."""
        indices = catalogue.visible(category, user)
        if field not in SORT_KEYS:
            return cls(indices, reverse=descending)
        key_of = SORT_KEYS[field]
        keyed = sorted(
            ((key_of(catalogue[index]), index + FIRST_NUMBER), index) for index in indices
        )
        return cls([index for _, index in keyed], [key for key, _ in keyed], reverse=descending)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> int:  # type: ignore[override]  # no slices needed
        return self._indices[-1 - position if self._reverse else position]

    def key_at(self, position: int) -> SortKey:
        """Return the key of the project at a position."""
        if self._keys is None:
            return (self[position] + FIRST_NUMBER,)
        return self._keys[-1 - position if self._reverse else position]

    def position_of(self, key: SortKey, *, behind: bool) -> int:
        """Return the position of the project with a key, or the next position.

        Raises:
            ValueError: No listing in this order has such a key.
        """
        if self._keys is None:
            # The keys of other orders end in the number, too. The server takes them for it.
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
