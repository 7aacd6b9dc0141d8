"""Deadlines and cancellation, checked wherever a thread waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from stac_gitlab.settings import pause

STOP_LATENCY = 0.25
"""Seconds within which a waiting thread notices a cancellation."""


class Cancelled(Exception):  # noqa: N818  # no error: the caller asked for it
    """The work was cancelled from another thread."""


@dataclass(frozen=True, slots=True, eq=False)
class Deadline:
    """When work has to be finished, and whether it was cancelled.

    Attributes:
        at: The time limit, on `clock`; None for none.
        clock: Returns the time in seconds.
        stop: An event that another thread sets to cancel the work.
    """

    at: float | None = None
    clock: Callable[[], float] = time.monotonic
    stop: threading.Event | None = None

    def time_left(self) -> float | None:
        """Return the seconds that are left, or None without a time limit.

        Raises:
            Cancelled: If the work was cancelled.
            TimeoutError: If no time is left.
        """
        self.check_cancelled()
        if self.at is None:
            return None
        left = self.at - self.clock()
        if left <= 0:
            raise TimeoutError("the deadline of the whole request has passed")
        return left

    def sleep(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Call `sleep`, or wait for a cancellation as long.

        Raises:
            Cancelled: If the work was cancelled.
        """
        if self.stop is None or sleep is not pause:
            sleep(seconds)
        else:
            self.stop.wait(seconds)
        self.check_cancelled()

    def check_cancelled(self) -> None:
        """Raise :class:`Cancelled` if the work was cancelled."""
        if self.stop is not None and self.stop.is_set():
            raise Cancelled


_current: ContextVar[Deadline] = ContextVar("stac_gitlab_deadline", default=Deadline())  # noqa: B039  # never changed


class enforcing:  # noqa: N801  # used like a function
    """Applies a deadline to everything that this thread reads from a socket, in its block."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __enter__(self) -> None:
        self._token = _current.set(self._deadline)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def current_deadline() -> Deadline:
    """Return the deadline that applies to this thread."""
    return _current.get()
