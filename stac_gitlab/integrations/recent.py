"""Values that are made once, and kept for a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Entry(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    values: list[T] = field(default_factory=list)
    made: float = 0.0


class Recent(Generic[T]):
    """Values by key. Threads that need the same one wait until the first has made it.

    Args:
        lifetime: Seconds after which a value is made again; None for never.
        most: How many values to keep.
    """

    def __init__(self, lifetime: float | None, most: int) -> None:
        self._lifetime, self._most = lifetime, most
        self.clear()

    def clear(self) -> None:
        """Forget all values. A forked child needs this, because a lock may be held in it."""
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry[T]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key, made if there is none or it is too old."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        with entry.lock:
            if not entry.values or self._is_old(entry):
                entry.values[:] = [make()]
                entry.made = time.monotonic()
            return entry.values[0]

    def known(self, key: Hashable) -> T | None:
        """Return the value of a key if it was made lately."""
        with self._lock:
            entry = self._entries.get(key)
        if entry is None or not entry.values or self._is_old(entry):
            return None
        return entry.values[0]

    def forget(self, key: Hashable) -> None:
        """Forget the value of a key."""
        with self._lock:
            self._entries.pop(key, None)

    def _is_old(self, entry: _Entry[T]) -> bool:
        return self._lifetime is not None and time.monotonic() - entry.made > self._lifetime
