"""Threads that stand in line for the interpreter, where they would fight for it.

Python computes in one thread at a time, and hands over at every call of the system, however short.
Where dozens of threads have something to compute, each such call wakes another one up, often on
another processor, and all of them take longer. In a line, whoever is in front goes on until it has
to wait for the network. Nobody stands there for long where those in front wait for a disk instead.
"""

from __future__ import annotations

import threading
import time

__all__ = ["Line", "away", "standing_in"]

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
