"""How often and how long to try again, and what a server says about waiting.

:class:`RetryPolicy` is the value object that users set. :func:`wait_hint` reads the headers in
which servers announce when to come back. :class:`RateGate` is what threads share: one 429 slows all
of them.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

import requests
import tenacity
import urllib3

from stac_gitlab.auth import Credentials, Token
from stac_gitlab.errors import (
    AuthenticationError,
    HTTPStatusError,
    InvalidResponseError,
    NetworkError,
    RateLimitError,
    STACGitLabError,
)
from stac_gitlab.http.deadline import STOP_LATENCY, current_deadline
from stac_gitlab.http.responses import error_for_failure, redacted_cause, without_traceback
from stac_gitlab.settings import RetryPolicy

# A reset above this is a point in time (seconds since 1970), below it a delay in seconds: the same
# header means one at GitLab and the other in the IETF drafts.
EPOCH_THRESHOLD = 10**9
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*", re.ASCII)
_RATE_LIMIT_ITEM = re.compile(r"(?:^|[;,\s])(r|t|remaining|reset)\s*=\s*(\d+)", re.ASCII)
_RATE_LIMIT_FIELDS = {"r": "remaining", "t": "reset", "remaining": "remaining", "reset": "reset"}


def retry_after(
    headers: Mapping[str, str], *, rate_limited: bool, now: float | None = None
) -> float | None:
    """Return the seconds that a response asks to wait, or None where it does not say.

    Args:
        headers: The response's headers, looked up without regard to case.
        rate_limited: Whether the status is 429. Only then do the ``RateLimit`` headers, which
            GitLab sends with every answer, say when to come back.
        now: Seconds since 1970 for a response without ``Date``; the local clock by default.

    Malformed and negative values count as absent; an absurdly long wait is returned as it is, for
    the caller to refuse.

    Source: RFC 9110 (Retry-After), the IETF RateLimit header drafts, GitLab's rate limit headers.
    """
    at = _date(headers.get("Date"))
    if at is None:
        at = time.time() if now is None else now
    wait = _seconds_or_date(headers.get("Retry-After"), at)
    if wait is None:
        milliseconds = _number(headers.get("x-amz-retry-after"))
        wait = None if milliseconds is None else milliseconds / 1000
    if wait is None and rate_limited:
        wait = _rate_limit_wait(headers, at)
    return None if wait is None else max(0.0, wait)


def _rate_limit_wait(headers: Mapping[str, str], at: float) -> float | None:
    wait = _ietf_rate_limit(headers.get("RateLimit"))
    for name in ("RateLimit-Reset", "X-RateLimit-Reset"):
        if wait is None:
            reset = _number(headers.get(name))
            if reset is not None:
                wait = reset - at if reset > EPOCH_THRESHOLD else reset
    if wait is None:
        date = _date(headers.get("RateLimit-ResetTime"))
        wait = None if date is None else date - at
    return wait


def _ietf_rate_limit(value: str | None) -> float | None:
    """Read ``"api";r=0;t=55`` or ``remaining=0, reset=55``: the exhausted quota counts."""
    if not value:
        return None
    waits: list[float] = []
    for quota in re.split(r",\s*(?=\")", value):
        fields = {_RATE_LIMIT_FIELDS[name]: n for name, n in _RATE_LIMIT_ITEM.findall(quota)}
        if "reset" in fields and int(fields.get("remaining", "0")[:9]) == 0:
            waits.append(float(fields["reset"]))
    return max(waits, default=None)


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


def _seconds_or_date(value: str | None, at: float) -> float | None:
    seconds = _number(value)
    if seconds is not None:
        return seconds
    date = _date(value)
    return None if date is None else date - at


class RateLimiter:
    """What all threads know about how much one origin bears.

    Before a 429 it lets everyone through. A 429 stops everyone until the wait is over, leaves a
    quarter of the places to ask from, and lets their number grow again with answers that are not a
    429: each request that is under way when the server has had enough is a wasted one. From then on
    requests also keep the distance at which the server would have served them all, pauses included,
    and close up little by little.
    """

    # Answers, times the current number of askers, until one more may ask.
    _PATIENCE = 16
    # Seconds between two requests: never more than the one, not worth a wait below the other.
    _SLOWEST, _FASTEST = 1.0, 0.001
    # How much shorter the distance gets with every answer.
    _CLOSING_UP = 0.99
    # Fewer answers than this, between two storms, do not tell how many the server bears.
    _TELLING = 4

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        # Who waits for a place, in the order in which they came; set to have them look again.
        self._waiting: dict[threading.Event, None] = {}
        self._asking = 0
        self._limit: int | None = None
        self._served = 0
        self._refused = 0
        self._open_at = 0.0
        self._distance = 0.0
        self._next_turn = 0.0
        self._round_began: float | None = None
        self._round_served = 0
        self._last_left = 0.0

    @contextmanager
    def asking(self, waited_until: float = 0.0) -> Iterator[None]:
        """Hold one of the places, after waiting for it and for the end of a pause.

        Args:
            waited_until: A pause that the caller has already sat out, as :meth:`refused` gave it.

        Raises:
            TimeoutError: If the deadline passes before.
        """
        turn = self._enter(waited_until)
        try:
            if turn > 0:
                self._wait_for_turn(turn)
            yield
        finally:
            with self._lock:
                self._asking -= 1
                self._last_left = self._policy.clock()
                self._call_next()

    def _enter(self, waited_until: float) -> float:
        """Take a place; return the seconds until its turn comes."""
        if self._limit is None:
            with self._lock:
                self._asking += 1
            return 0.0
        ticket = threading.Event()
        try:
            while True:
                with self._lock:
                    open_at, now = self._open_at, self._policy.clock()
                    is_open = open_at <= now or open_at <= waited_until
                    if is_open and self._has_place_for(ticket):
                        self._asking += 1
                        return self._turn_after(now)
                    if is_open:
                        ticket.clear()
                        self._waiting[ticket] = None
                if is_open:
                    # Without the lock: those who leave need it.
                    ticket.wait(STOP_LATENCY)
                    current_deadline().time_left()
                else:
                    self._pause(open_at - now)
                    waited_until = open_at
        finally:
            if ticket in self._waiting:
                with self._lock:
                    del self._waiting[ticket]
                    self._call_next()

    def _has_place_for(self, ticket: threading.Event) -> bool:
        """Tell whether a place is free, and nobody has waited for it longer."""
        is_free = self._limit is None or self._asking < self._limit
        # Whoever has just left comes back sooner than anyone wakes up, and would have it for ever.
        return is_free and next(iter(self._waiting), ticket) is ticket

    def _call_next(self) -> None:
        """Wake up who has waited longest, if it can have a place."""
        first = next(iter(self._waiting), None)
        if first is not None and self._has_place_for(first):
            first.set()

    def _turn_after(self, now: float) -> float:
        if self._round_began is None:
            self._round_began = now
        elif self._asking == 1:
            # That nobody has asked for anything for a while says nothing about the server.
            idle = now - max(self._last_left, self._open_at)
            self._round_began += idle if idle > self._SLOWEST else 0.0
        if not self._distance:
            return 0.0
        turn = max(now, self._next_turn)
        self._next_turn = turn + self._distance
        return turn - now

    def _pause(self, seconds: float) -> None:
        left = current_deadline().time_left()
        current_deadline().sleep(
            seconds if left is None else min(seconds, left), self._policy.sleep
        )
        current_deadline().time_left()

    def _wait_for_turn(self, seconds: float) -> None:
        try:
            self._pause(seconds)
        except BaseException:
            # Turns that nobody took would put off all later ones, further with every request.
            with self._lock:
                self._next_turn -= self._distance
            raise

    def refused(self, hint: float | None) -> float:
        """Note a 429; return the time, on the policy's clock, at which everyone may ask again."""
        with self._lock:
            now = self._policy.clock()
            if hint is not None and hint > self._policy.max_wait:
                # Nobody waits that long: every request is to hear so at once.
                return now
            if self._open_at > now and not hint:
                # A late answer of a storm that is already being waited for.
                return self._open_at
            is_news = self._open_at <= now
            if is_news:
                # One storm is one lesson, however many requests were under way when it came.
                self._refused += 1
                self._limit = max(1, (self._limit or self._asking) // 4)
                self._served = 0
            # "Wait 0 seconds" from a server that has just refused is no hint at all.
            self._open_at = max(self._open_at, now + (hint or self._backoff()))
            if is_news:
                self._keep_distance()
            return self._open_at

    def _keep_distance(self) -> None:
        """Spread over the whole round, its pause included, what the server served in it."""
        self._next_turn = self._open_at
        if self._round_began is None or self._round_served < self._TELLING:
            # After a pause that was too short, say: the round goes on.
            return
        round_took = self._open_at - self._round_began
        self._distance = min(self._SLOWEST, round_took / self._round_served)
        self._round_began, self._round_served = None, 0

    def _backoff(self) -> float:
        # At least half of the ceiling: full jitter would let some threads ask again at once, and
        # while the server refuses everyone each of those requests is a wasted one.
        ceiling = self._policy.backoff_base * 2.0 ** min(self._refused - 1, 60)
        ceiling = min(self._policy.backoff_cap, ceiling)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311  # spreads load, guards nothing

    def served(self) -> None:
        """Note an answer that is not a 429."""
        if self._limit is None:
            return
        with self._lock:
            # Whoever serves something has not refused for good: the next wait is a short one again.
            self._refused = 0
            self._served += 1
            self._round_served += 1
            self._distance *= self._CLOSING_UP
            if self._distance < self._FASTEST:
                self._distance = 0.0
            if self._limit is not None and self._served >= self._PATIENCE * self._limit:
                self._served = 0
                self._limit += 1
                self._call_next()


logger = logging.getLogger(__name__)
T = TypeVar("T")


class Retrying(Generic[T]):
    """One request with all its attempts.

    Args:
        attempt: Sends the request once, and makes something of the answer.
        method: The HTTP method, for messages.
        url: What is asked for.
        credentials: Whose token to renew after a 401.
        gate: What is known about how much the server bears.
        policy: When to try again.
        end: When, on the policy's clock, it has to be over.
        idempotent: Whether the request may be sent more than once.
    """

    def __init__(
        self,
        attempt: Callable[[], T],
        *,
        method: str,
        url: str,
        credentials: Credentials,
        gate: RateLimiter,
        policy: RetryPolicy,
        end: float,
        idempotent: bool,
    ) -> None:
        self._attempt = attempt
        self._method = method
        self._url = url
        self._credentials = credentials
        self._limiter = gate
        self._policy = policy
        self._end = end
        self._idempotent = idempotent
        self._waited_until = 0.0
        self._renewed = False

    def run(self) -> T:
        """Return what the first successful attempt gives.

        Raises:
            STACGitLabError: What the last attempt raised.
        """
        return call_with_retries(
            self._once,
            STACGitLabError,
            self._policy,
            is_worth_retrying=self._is_worth_retrying,
            wait=self._wait,
            stop=self._must_stop,
            log=self._log,
        )

    def _once(self) -> T:
        allowed = self._credentials.allows(self._url)
        token = self._credentials.token() if allowed else None
        try:
            result = self._send()
        except RateLimitError as error:
            self._waited_until = self._limiter.refused(error.retry_after)
            raise
        except AuthenticationError:
            self._limiter.served()
            if not self._renews(token):
                raise
            return self._once()
        except STACGitLabError:
            self._limiter.served()
            raise
        self._limiter.served()
        return result

    def _send(self) -> T:
        try:
            with self._limiter.asking(self._waited_until):
                return self._attempt()
        except STACGitLabError as known:
            raise without_traceback(known)  # noqa: B904  # it is the same error
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            # Of http.client, for what cannot be a header.
            ValueError,
        ) as failure:
            error, cause = self._explained(failure)
        raise error from cause

    def _explained(self, failure: Exception) -> tuple[STACGitLabError, Exception]:
        error = error_for_failure(failure, method=self._method, url=self._url)
        return error, redacted_cause(failure)

    def _renews(self, token: Token | None) -> bool:
        """After a 401, get a new token from the caller's function, once a request."""
        if self._renewed or not self._credentials.allows(self._url):
            return False
        self._renewed = True
        return self._credentials.renew(token)

    def _is_worth_retrying(self, error: BaseException) -> bool:
        if not self._idempotent:
            return False
        if isinstance(error, HTTPStatusError):
            return error.status_code in self._policy.statuses and (
                error.retry_after is None or error.retry_after <= self._policy.max_wait
            )
        if isinstance(error, NetworkError):
            return not isinstance(error.__cause__, requests.exceptions.SSLError)
        return isinstance(error, InvalidResponseError) and error.truncated

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = error_of(state)
        if isinstance(error, RateLimitError):
            return max(0.0, self._waited_until - self._policy.clock())
        if isinstance(error, HTTPStatusError) and error.retry_after:
            return error.retry_after
        return self._policy.backoff(state.attempt_number)

    def _must_stop(self, state: tenacity.RetryCallState) -> bool:
        left = self._end - self._policy.clock()
        tired = state.attempt_number >= self._policy.max_attempts
        if tired or state.upcoming_sleep >= left:
            why = f"{state.attempt_number} attempts" if tired else "the time allowed for it"
            error = error_of(state)
            if state.attempt_number > 1 and error is not None and error.args:
                error.args = (f"{error.args[0]} (Given up after {why}.)", *error.args[1:])
            return True
        return False

    def _log(self, state: tenacity.RetryCallState) -> None:
        error = error_of(state)
        logger.info(
            "Attempt %d of %d failed, waiting %.1f s: %s",
            state.attempt_number,
            self._policy.max_attempts,
            state.upcoming_sleep,
            error,
        )


def call_with_retries(
    call: Callable[[], T],
    failures: type[Exception],
    policy: RetryPolicy,
    *,
    wait: Callable[[tenacity.RetryCallState], float],
    stop: Callable[[tenacity.RetryCallState], bool],
    is_worth_retrying: Callable[[BaseException], bool] = lambda _error: True,
    log: Callable[[tenacity.RetryCallState], None] | None = None,
) -> T:
    """Return what `call` gives, at once or when tenacity has tried it again.

    Nearly every call succeeds at once, and tenacity's book-keeping takes longer than some of them:
    it begins with the first failure, which it then sees as its own first attempt.

    Args:
        call: What to try.
        failures: What may be worth another attempt.
        policy: How to sleep.
        wait: How many seconds to wait before the next attempt.
        stop: Whether there is no next one.
        is_worth_retrying: Which of the `failures` are worth another attempt.
        log: Called before each wait.
    """
    try:
        return call()
    except failures as failure:
        first = [failure]

    def again() -> T:
        if first:
            raise first.pop()
        return call()

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, failures) and is_worth_retrying(error)
        ),
        wait=wait,
        stop=stop,
        sleep=lambda seconds: current_deadline().sleep(seconds, policy.sleep),
        before_sleep=log,
        reraise=True,
    )
    return retrying(again)


def error_of(state: tenacity.RetryCallState) -> BaseException | None:
    """Return what the attempt that has just been made failed of."""
    return None if state.outcome is None else state.outcome.exception()
