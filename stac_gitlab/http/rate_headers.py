"""The headers that ask for a wait, and those that say how many requests are left."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

# A reset above this is a time in seconds since 1970, as GitLab sends it. Below, it is a delay in
# seconds, as the IETF drafts define it.
EPOCH_THRESHOLD = 10**9
_MOST_REQUESTS = 10**9
_NUMBER = re.compile(r"\s*+(\d++(?:\.\d++)?)\s*+", re.ASCII)
_RATE_LIMIT_ITEM = re.compile(r"(?:^|[;,\s])(r|t|remaining|reset)\s*=\s*(\d+)", re.ASCII)
_RATE_LIMIT_FIELDS = {"r": "remaining", "t": "reset", "remaining": "remaining", "reset": "reset"}


def retry_after(
    headers: Mapping[str, str], *, rate_limited: bool, now: float | None = None
) -> float | None:
    """Return the wait in seconds that a response asks for, or None.

    Args:
        headers: The headers of the response; names are not case-sensitive.
        rate_limited: Whether the status is 429. Only then the ``RateLimit`` headers count, which
            GitLab sends with every response.
        now: Seconds since 1970 for a response without ``Date``; the local clock by default.

    Malformed and negative values count as absent. A very long wait is returned unchanged.

    Source: RFC 9110 (Retry-After), the IETF RateLimit header drafts, GitLab's rate limit headers.
    """
    at = _server_time(headers, now)
    wait = _number(headers.get("Retry-After"))
    if wait is None:
        wait = _until(headers.get("Retry-After"), at)
    if wait is None:
        milliseconds = _number(headers.get("x-amz-retry-after"))
        wait = None if milliseconds is None else milliseconds / 1000
    if wait is None and rate_limited:
        wait = _rate_limit_wait(headers, at)
    return None if wait is None else max(0.0, wait)


def _rate_limit_wait(headers: Mapping[str, str], at: float) -> float | None:
    exhausted = (quota.reset for quota in _quotas(headers.get("RateLimit")) if not quota.remaining)
    wait = max((reset for reset in exhausted if reset is not None), default=None)
    for name in ("RateLimit-Reset", "X-RateLimit-Reset"):
        if wait is None:
            reset = _number(headers.get(name))
            if reset is not None:
                wait = reset - at if reset > EPOCH_THRESHOLD else reset
    return _until(headers.get("RateLimit-ResetTime"), at) if wait is None else wait


class Quota(NamedTuple):
    """How many more requests a server accepts.

    Attributes:
        remaining: The number of requests.
        reset: Seconds until the next quota begins, if known.
    """

    remaining: int
    reset: float | None


def quota_of(headers: Mapping[str, str], *, now: float | None = None) -> Quota | None:
    """Return the quota in the headers of a response, or None.

    Args:
        headers: As for :func:`retry_after`.
        now: As for :func:`retry_after`.

    Source: the IETF RateLimit header drafts, GitLab's rate limit headers.
    """
    for name in ("RateLimit-Remaining", "X-RateLimit-Remaining"):
        remaining = _number(headers.get(name))
        if remaining is not None:
            reset = _rate_limit_wait(headers, _server_time(headers, now))
            return Quota(int(min(remaining, _MOST_REQUESTS)), reset)
    limits = headers.get("RateLimit")
    return min(_quotas(limits), default=None, key=lambda quota: quota.remaining) if limits else None


def _quotas(value: str | None) -> Iterator[Quota]:
    """Yield the quotas of a `RateLimit` field: ``"api";r=0;t=55`` or ``remaining=0, reset=55``."""
    for text in re.split(r",\s*(?=\")", value or ""):
        fields = {_RATE_LIMIT_FIELDS[name]: n for name, n in _RATE_LIMIT_ITEM.findall(text)}
        if fields:
            reset = float(fields["reset"]) if "reset" in fields else None
            yield Quota(int(fields.get("remaining", "0")[:9]), reset)


def _server_time(headers: Mapping[str, str], now: float | None) -> float:
    """Return the time by the clock of the server, in seconds since 1970."""
    local = time.time() if now is None else now
    date = _date(headers.get("Date"))
    # The server leaves out fractions of a second. If the clocks agree, the local one is exact.
    return local if date is None or date <= local < date + 1 else date


def _number(value: str | None) -> float | None:
    match = _NUMBER.fullmatch(value or "")
    return float(match[1]) if match else None


def _date(value: str | None) -> float | None:
    if not value:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None


def _until(date_text: str | None, at: float) -> float | None:
    """Return the seconds until a date, or None if the text is no date."""
    date = _date(date_text)
    return None if date is None else date - at
