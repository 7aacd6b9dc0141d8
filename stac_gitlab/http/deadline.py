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
        with away():
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


# Seconds after which a thread goes ahead although it is not in front: where those in front compute,
# and where they mostly wait.
_PATIENCE = 0.05
_IMPATIENCE = 0.001
# How much of what was seen of the turns before still counts after another one.
_MEMORY = 0.9


class Line:
    """What threads stand in line for. One of them is in front."""

    def __init__(self) -> None:
        self._front = threading.Lock()
        # Of the turns so far, in seconds: how long they were, and how much of that was computing.
        self._length = self._busy = 0.0

    def enter(self) -> bool:
        """Wait to be in front, but not for long; tell whether it came to that."""
        is_moving = self._busy >= self._length / 4
        if not self._front.acquire(timeout=_PATIENCE if is_moving else _IMPATIENCE):
            return False
        self._entered, self._entered_busy = time.monotonic(), time.thread_time()
        return True

    def leave(self) -> None:
        """Let the next one get in front."""
        self._length = self._length * _MEMORY + time.monotonic() - self._entered
        self._busy = self._busy * _MEMORY + time.thread_time() - self._entered_busy
        self._front.release()


class _Here(threading.local):
    line: Line | None = None
    is_in_front = False


_here = _Here()


class standing_in:  # noqa: N801  # a context manager that reads like a function
    """Let this thread stand in a line, but for when it is :class:`away`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __enter__(self) -> None:
        self._outer = _here.line
        _change(self._line)

    def __exit__(self, *_: object) -> None:
        _change(self._outer)


class away:  # noqa: N801  # a context manager that reads like a function
    """Let others get in front while this thread waits, if it stands in a line."""

    def __enter__(self) -> None:
        self._line = _here.line
        if self._line is not None:
            _change(None)

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            _change(self._line)


def _change(line: Line | None) -> None:
    """Leave the line that this thread stands in, and stand in another one, or in none."""
    left = _here.line if _here.is_in_front else None
    # An interrupt may come between any two of these steps. What it leaves locked costs the others
    # their patience, and nothing else.
    _here.line, _here.is_in_front = line, False
    if left is not None:
        left.leave()
    if line is not None:
        _here.is_in_front = line.enter()
