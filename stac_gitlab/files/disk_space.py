"""The free space of disks, and what running downloads will still take of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

# Of a small disk a twentieth, of a large one not more than so many bytes.
_RESERVE = 256 * 1024 * 1024
_RESERVED_PART = 20


def free_space(folder: str | os.PathLike[str]) -> int | None:
    """Return the free bytes on the disk of a folder, or None if the file system does not say."""
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(folder)
        # Some network file systems report no size at all.
        return usage.free if usage.total else None
    return None


def is_nearly_full(folder: str | os.PathLike[str]) -> bool:
    """Return whether less is free than others may need at once: 256 MiB, or 5 % of the disk."""
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(folder)
        return usage.free < min(_RESERVE, usage.total // _RESERVED_PART)
    return False


class SpaceClaim:
    """The claim of a file in progress on the free space, which several downloads share.

    Args:
        folder: The folder of the file.
        missing: Returns how many bytes of it are still to be written.
    """

    _lock = threading.Lock()
    _held: set[SpaceClaim] = set()  # noqa: RUF012  # shared by all on purpose

    def __init__(self, folder: Path, missing: Callable[[], int]) -> None:
        self._folder = folder
        self._missing = missing
        self._device = 0

    def take(self) -> int | None:
        """Claim the missing bytes if they fit, else return how many would fit."""
        with SpaceClaim._lock:
            self._held.discard(self)
            free = free_space(self._folder)
            if free is None:
                return None
            self._device = os.stat(self._folder).st_dev
            others = (claim._missing() for claim in self._held if claim._device == self._device)
            left = max(0, free - sum(others))
            if self._missing() > left:
                return left
            self._held.add(self)
            return None

    def release(self) -> None:
        """Give the claim up."""
        with SpaceClaim._lock:
            self._held.discard(self)

    @classmethod
    def _renew(cls) -> None:
        """Forget what the parent of a forked process claims; its threads may hold the lock."""
        cls._lock = threading.Lock()
        cls._held = set()


if hasattr(os, "register_at_fork"):  # Windows has no fork.
    os.register_at_fork(after_in_child=SpaceClaim._renew)
