"""What a forked child must not share with its parent: it is made anew there."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """An object whose connections, locks or threads belong to one process."""

    def renew_in_child(self) -> None:
        """Replace what belongs to the parent process.

        No lock may be acquired here: a thread that does not exist in the child may have held it.
        """


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(owner: Renewable) -> None:
    """Have ``owner.renew_in_child()`` called in every forked child while `owner` exists."""
    _renewables.add(owner)


def _renew_all() -> None:
    for owner in list(_renewables):
        owner.renew_in_child()


if hasattr(os, "register_at_fork"):  # Windows has no fork.
    os.register_at_fork(after_in_child=_renew_all)
