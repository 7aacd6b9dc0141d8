"""Settings that users pass, and the checks of arguments."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stac_gitlab.errors import ConfigurationError
from stac_gitlab.redaction import printable


def pause(seconds: float) -> None:
    """Wait. ``time.sleep`` is looked up at each call, so tests can replace it."""
    time.sleep(seconds)


@dataclass(frozen=True)
class RetryPolicy:
    """When a request is tried again. Immutable; use :meth:`replace` for a variation.

    Attributes:
        max_attempts: Maximum number of times that a request is sent, including the first.
        deadline: Seconds that one document may take with all its attempts, waits and redirects.
        backoff_base: Seconds; the n-th wait is drawn between 0 and ``backoff_base * 2 ** (n - 1)``.
        backoff_cap: Seconds; no drawn wait is longer.
        max_wait: Seconds; a server that asks for more is not waited for.
        statuses: The HTTP statuses that are worth another attempt.
        min_rate: Bytes per second below which a download counts as stalled.
        stall_window: Seconds over which `min_rate` is measured.
        sleep: Function that waits for some seconds.
        clock: Function that returns the time for deadlines, in seconds.

    Raises:
        ConfigurationError: If a value makes no sense.
    """

    max_attempts: int = 5
    deadline: float = 300.0
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    max_wait: float = 120.0
    statuses: frozenset[int] = frozenset({408, 429, 500, 502, 503, 504})
    min_rate: float = 1024.0
    stall_window: float = 60.0
    sleep: Callable[[float], None] = dataclasses.field(default=pause, repr=False, compare=False)
    clock: Callable[[], float] = dataclasses.field(
        default=time.monotonic, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        whole_number("max_attempts (1 switches retries off)", self.max_attempts, least=1)
        for name in ("deadline", "backoff_base", "backoff_cap", "max_wait", "stall_window"):
            number(name, getattr(self, name), unit="seconds")
        number("min_rate", self.min_rate, unit="bytes per second")
        for name in ("sleep", "clock"):
            expect(name, getattr(self, name), Callable, wanted="a function")
        expect("statuses", self.statuses, Iterable, wanted="several HTTP statuses")
        object.__setattr__(self, "statuses", frozenset(self.statuses))
        for status in self.statuses:
            whole_number("statuses", status, least=100)

    def replace(self, **changes: object) -> RetryPolicy:
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # any field

    def backoff(self, attempt: int) -> float:
        """Draw the seconds to wait after a failed attempt (1 for the first): full jitter."""
        ceiling = min(self.backoff_cap, self.backoff_base * 2.0 ** min(attempt - 1, 60))
        return random.uniform(0.0, ceiling)  # noqa: S311  # spreads load, guards nothing


_MAX_NESTING = 200


@dataclass(frozen=True)
class Limits:
    """Upper limits on what is accepted from servers.

    Immutable; use :meth:`replace` for a variation. Whatever exceeds a limit raises an error that
    names it. The size of a document is an argument of :class:`~stac_gitlab.GitLabStacIO` itself.
    Times are set in a :class:`~stac_gitlab.RetryPolicy`.

    Attributes:
        redirects: Consecutive redirects that are followed.
        nesting: Levels of objects and lists in a document; at most 200. STAC needs about ten
            levels. pystac copies and writes documents by recursion, with several calls a level,
            and Python stops at a thousand calls.
        members: Values in a document: members of objects and elements of lists. Estimated before
            parsing from the number of commas and opening brackets. A short document of many empty
            values would otherwise take a hundred times its size in memory.
        empty_pages: Consecutive pages that list nothing.
        file_bytes: Bytes of one downloaded file, decompressed; None for no limit.
        archive_files: Files in the archive of a project.
        archive_bytes: Bytes of all files in the archive of a project; None for 100 times the size
            of the archive, but at least 1 GiB.

    Raises:
        ConfigurationError: If a value makes no sense.
    """

    redirects: int = 10
    nesting: int = 128
    members: int = 5_000_000
    empty_pages: int = 1000
    file_bytes: int | None = None
    archive_files: int = 100_000
    archive_bytes: int | None = None

    def __post_init__(self) -> None:
        whole_number("redirects", self.redirects, least=0)
        if whole_number("nesting", self.nesting, least=1) > _MAX_NESTING:
            raise ConfigurationError(
                f"nesting={self.nesting}: pystac can work with at most {_MAX_NESTING} levels."
            )
        whole_number("members", self.members, least=1)
        whole_number("empty_pages", self.empty_pages, least=0)
        whole_number("archive_files", self.archive_files, least=0)
        for name in ("file_bytes", "archive_bytes"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), least=0)

    def replace(self, **changes: object) -> Limits:
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # any field


DEFAULT_TIMEOUT = (10.0, 60.0)
"""Seconds to wait for a connection, and for each packet of a response."""


OFFLINE_VARIABLE = "STAC_GITLAB_OFFLINE"
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})


def offline_setting(offline: bool | None) -> str | None:
    """Return which setting forbids requests, in words; None if none does.

    Args:
        offline: The argument; None for what the environment says.

    Raises:
        ConfigurationError: If the environment says neither yes nor no.
    """
    if offline is not None:
        expect("offline", offline, bool, wanted="True, False or None")
        return "offline=True" if offline else None
    value = os.environ.get(OFFLINE_VARIABLE, "").strip().lower()
    if value not in _ON | _OFF:
        raise ConfigurationError(f"{OFFLINE_VARIABLE}={value!r}: set it to 1 or 0.")
    return f"{OFFLINE_VARIABLE} is set" if value in _ON else None


def timeout_pair(timeout: Any) -> tuple[float, float]:
    """Return the seconds to wait for a connection, and for each packet of a response."""
    pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if len(pair) != 2 or not all(type(s) in (int, float) and s > 0 for s in pair):
        raise ConfigurationError(
            f"timeout={timeout!r}: give seconds, or (seconds to connect, seconds between packets). "
            "A request without a timeout can hang for ever."
        )
    return pair


# -- checks of arguments: each raises a ConfigurationError that names the argument ----------------


def expect(name: str, value: object, kind: Any, *, wanted: str) -> None:
    """Check that the argument `name` is an instance of `kind`, which `wanted` says in words."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} has to be {wanted}, not {_type_name(value)}.")


def expect_text(name: str, value: Any, *, wanted: str = "a text") -> str:
    """Return `value` if it is a text that is not empty."""
    expect(name, value, str, wanted=wanted)
    if not value:
        raise ConfigurationError(f"{name} is empty; it has to be {wanted}.")
    return str(value)


def expect_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that the argument `name` is one of a few texts."""
    if value not in choices:
        *others, last = map(repr, choices)
        raise ConfigurationError(f"{name}={value!r}: choose {', '.join(others)} or {last}.")


def path_of(name: str, value: Any, *, wanted: str = "a path") -> str:
    """Return a path as text. A zero byte is an error."""
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    expect(name, given, str, wanted=wanted)
    if "\0" in given:
        raise ConfigurationError(f"{name} holds a zero byte; it has to be {wanted}.")
    return str(given)


def dict_of(name: str, value: Any) -> dict[str, Any]:
    """Return a mapping, or pairs of keys and values, as a dictionary."""
    try:
        made = dict(value)
    except (TypeError, ValueError):
        made = {None: None}
    if not all(isinstance(key, str) for key in made):
        raise ConfigurationError(
            f"{name} has to be a dictionary with texts as its keys, not {_type_name(value)}."
        )
    return made


def whole_number(name: str, value: Any, *, least: int) -> int:
    """Return `value` if it is a whole number, and not less than `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r}: give a whole number, {least} or greater.")
    return value


def number(name: str, value: Any, *, unit: str) -> float:
    """Return `value` if it is a number of seconds, bytes or the like: zero or greater."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not value >= 0:
        raise ConfigurationError(f"{name}={value!r}: give {unit}, zero or more.")
    return float(value)


def _type_name(value: object) -> str:
    if isinstance(value, Mapping):
        return "one with other keys"
    return "None" if value is None else type(value).__name__


def expect_finite(name: str, value: Any) -> None:
    """Check that JSON can hold all numbers of a value."""
    unchecked: list[tuple[str, Any]] = [(name, value)]
    while unchecked:
        place, one = unchecked.pop()
        if isinstance(one, float) and not math.isfinite(one):
            raise ConfigurationError(
                f"{printable(place)} is {one}, a number that JSON cannot hold. Replace it with a "
                "finite number or None. Nothing was sent."
            )
        if isinstance(one, Mapping):
            unchecked.extend((f"{place}.{key}", inner) for key, inner in one.items())
        elif isinstance(one, (list, tuple)):
            unchecked.extend((f"{place}[{index}]", inner) for index, inner in enumerate(one))
