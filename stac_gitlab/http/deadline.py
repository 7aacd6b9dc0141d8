"""Deadlines and cancellation, checked wherever a thread waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar

from stac_gitlab.settings import pause

STOP_LATENCY = 0.25
"""How long a waiting thread may take to notice that it is to stop, in seconds."""


class Cancelled(Exception):  # noqa: N818  # no error: someone asked for it
    """The work was called off from another thread."""


class Deadline:
    """How long a piece of work may take, and whether it was called off.

    Args:
        at: When it has to be over, by `clock`; None for no limit.
        clock: What tells the time, in seconds.
        stop: Set from outside to call the work off.
    """

    def __init__(
        self,
        at: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        stop: threading.Event | None = None,
    ) -> None:
        self.at = at
        self.clock = clock
        self.stop = stop

    def time_left(self) -> float | None:
        """Return the seconds that are left, or None without a limit.

        Raises:
            Stopped: If the work was called off.
            TimeoutError: If no time is left.
        """
        if self.stop is not None and self.stop.is_set():
            raise Cancelled
        if self.at is None:
            return None
        left = self.at - self.clock()
        if left <= 0:
            raise TimeoutError("the deadline of the whole request has passed")
        return left

    def sleep(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Wait, but not longer than until the work is called off.

        Raises:
            Stopped: If it is.
        """
        if self.stop is None or sleep is not pause:
            sleep(seconds)
        else:
            self.stop.wait(seconds)
        if self.stop is not None and self.stop.is_set():
            raise Cancelled


_deadline: ContextVar[Deadline] = ContextVar("stac_gitlab_watch", default=Deadline())  # noqa: B039  # never changed


class enforcing:  # noqa: N801  # a context manager that reads like a function
    """Let a watch be in force for everything that this thread reads from a socket."""

    def __init__(self, deadline: Deadline) -> None:
        self._own = deadline

    def __enter__(self) -> None:
        self._token = _deadline.set(self._own)

    def __exit__(self, *_: object) -> None:
        _deadline.reset(self._token)


def current_deadline() -> Deadline:
    """Return the watch that is in force in this thread."""
    return _deadline.get()
