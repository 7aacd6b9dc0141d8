"""Retries (with tenacity), and the rate limit that threads share."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import requests
import tenacity
import urllib3

from stac_gitlab.auth import Credentials
from stac_gitlab.errors import (
    AuthenticationError,
    HTTPStatusError,
    InvalidResponseError,
    NetworkError,
    OfflineError,
    RateLimitError,
    STACGitLabError,
)
from stac_gitlab.http.deadline import STOP_LATENCY, current_deadline
from stac_gitlab.http.rate_headers import Quota
from stac_gitlab.http.responses import error_for_failure, redacted_cause, without_traceback
from stac_gitlab.redaction import redacting_logger
from stac_gitlab.settings import RetryPolicy

logger = redacting_logger(__name__)
T = TypeVar("T")


class RateLimiter:
    """The rate limit of one origin, shared by all threads.

    Before the first 429 there is no limit, unless the server says how many requests it still
    accepts: then no more are sent at the same time, and none until the next quota begins. A 429
    pauses all threads until the wait is over, and reduces the number of concurrent requests to a
    quarter: each request that is in flight at the next 429 is wasted. The number grows again with
    successful responses. Requests also keep the interval at which the server would have accepted
    all of them, pauses included, and the interval shrinks with successful responses.
    """

    # Successful responses, times the current limit, until one more request may be concurrent.
    _RESPONSES_TO_GROW = 16
    # Limits of the interval, in seconds. A shorter one is not worth a wait.
    _MAX_INTERVAL, _MIN_INTERVAL = 1.0, 0.001
    # What each successful response does to the interval.
    _SHRINK = 0.99
    # Seconds by which servers round the end of a quota. One that ends earlier is a former one.
    _ROUNDED = 1.0
    # With fewer responses between two 429, nothing can be said about the rate.
    _MIN_SAMPLE = 4

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        # Threads that wait for a slot, in the order of their arrival. An event wakes its thread.
        self._waiting: dict[threading.Event, None] = {}
        self._in_flight = 0
        self._limit: int | None = None
        # Requests that the server still accepts, as far as it says so, and the end of that quota.
        self._remaining: int | None = None
        self._quota_end = 0.0
        self._served = 0
        self._refused = 0
        self._paused_until = 0.0
        self._interval = 0.0
        self._next_start = 0.0
        self._round_start: float | None = None
        self._round_served = 0
        self._last_end = 0.0

    @contextmanager
    def slot(self, waited_until: float = 0.0) -> Iterator[None]:
        """Hold a slot for one request, after waiting for it and for the end of a pause.

        Args:
            waited_until: The end of a pause that the caller has waited for already, as returned by
                :meth:`refused`.

        Raises:
            TimeoutError: If the deadline passes before.
        """
        delay = self._acquire(waited_until)
        try:
            if delay > 0:
                try:
                    self._sleep(delay)
                except BaseException:
                    # A start that is not used must not delay all later ones.
                    with self._lock:
                        self._next_start -= self._interval
                    raise
            yield
        finally:
            with self._lock:
                self._in_flight -= 1
                self._last_end = self._policy.clock()
                self._wake_next()

    def _acquire(self, waited_until: float) -> float:
        """Take a slot; return the seconds until the request may start."""
        if self._limit is None and self._remaining is None:
            with self._lock:
                self._in_flight += 1
            return 0.0
        ticket = threading.Event()
        try:
            while True:
                with self._lock:
                    paused_until, now = self._paused_until, self._policy.clock()
                    is_open = paused_until <= now or paused_until <= waited_until
                    if is_open and self._is_free_for(ticket):
                        self._in_flight += 1
                        return self._delay(now)
                    if is_open:
                        ticket.clear()
                        self._waiting[ticket] = None
                if is_open:
                    ticket.wait(STOP_LATENCY)
                    current_deadline().time_left()
                else:
                    self._sleep(paused_until - now)
                    waited_until = paused_until
        finally:
            if ticket in self._waiting:
                with self._lock:
                    del self._waiting[ticket]
                    self._wake_next()

    def _is_free_for(self, ticket: threading.Event) -> bool:
        """Tell whether there is a free slot for which no thread has waited longer."""
        is_free = self._limit is None or self._in_flight < self._limit
        if self._remaining is not None:
            # Perhaps the server has not counted those in flight. After the last one, the next quota
            # is tried with a single request.
            is_free = is_free and self._in_flight < max(1, self._remaining)
        # First come, first served; otherwise a returning thread starves the rest.
        return is_free and next(iter(self._waiting), ticket) is ticket

    def _wake_next(self) -> None:
        """Wake the thread that has waited longest, if there is a slot for it."""
        first = next(iter(self._waiting), None)
        if first is not None and self._is_free_for(first):
            first.set()

    def _delay(self, now: float) -> float:
        """Return the seconds until the next start that the interval allows."""
        if self._round_start is None:
            self._round_start = now
        elif self._in_flight == 1:
            # A time without requests says nothing about the server.
            idle = now - max(self._last_end, self._paused_until)
            self._round_start += idle if idle > self._MAX_INTERVAL else 0.0
        if not self._interval:
            return 0.0
        start = max(now, self._next_start)
        self._next_start = start + self._interval
        return start - now

    def _sleep(self, seconds: float) -> None:
        deadline = current_deadline()
        left = deadline.time_left()
        deadline.sleep(seconds if left is None else min(seconds, left), self._policy.sleep)
        deadline.time_left()

    def note_quota(self, quota: Quota) -> None:
        """Note what a response that is not a 429 says about the requests that are left."""
        with self._lock:
            now, before = self._policy.clock(), self._remaining
            end = now + (quota.reset or 0.0)
            if before is None and not quota.remaining:
                # Perhaps this server always says so.
                return
            if before is None or now >= self._quota_end:
                self._remaining, self._quota_end = quota.remaining, end
            elif end >= self._quota_end - self._ROUNDED:
                # A response may have been overtaken by later ones, which have less.
                self._remaining = min(before, quota.remaining)
            if before and not self._remaining and end <= now + self._policy.max_wait:
                self._paused_until = max(self._paused_until, end)
            self._wake_next()

    def refused(self, hint: float | None) -> float:
        """Note a 429; return the end of the pause, on the policy's clock.

        Args:
            hint: The wait in seconds that the server asks for.
        """
        with self._lock:
            now = self._policy.clock()
            if hint is not None and hint > self._policy.max_wait:
                # No pause: each request is to fail at once, with this hint.
                return now
            if self._paused_until > now and not hint:
                # A late response of the burst that caused the pause.
                return self._paused_until
            is_new = self._paused_until <= now
            if is_new:
                # A burst counts once, however many of its requests are refused.
                self._refused += 1
                self._limit = max(1, (self._limit or self._in_flight) // 4)
                self._served = 0
            # A hint of 0 seconds in a 429 is no hint.
            self._paused_until = max(self._paused_until, now + (hint or self._backoff()))
            if is_new:
                self._set_interval()
            return self._paused_until

    def _set_interval(self) -> None:
        """Spread the requests that were served since the last 429 over that time and the pause."""
        self._next_start = self._paused_until
        if self._round_start is None or self._round_served < self._MIN_SAMPLE:
            # Perhaps the last pause was too short: the round continues.
            return
        duration = self._paused_until - self._round_start
        self._interval = min(self._MAX_INTERVAL, duration / self._round_served)
        self._round_start, self._round_served = None, 0

    def _backoff(self) -> float:
        # At least half of the ceiling. With full jitter some threads would retry at once, and be
        # refused again.
        ceiling = self._policy.backoff_base * 2.0 ** min(self._refused - 1, 60)
        ceiling = min(self._policy.backoff_cap, ceiling)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311  # no cryptography

    def served(self) -> None:
        """Note a response that is not a 429."""
        if self._limit is None:
            return
        with self._lock:
            # The next pause is a short one again.
            self._refused = 0
            self._served += 1
            self._round_served += 1
            self._interval *= self._SHRINK
            if self._interval < self._MIN_INTERVAL:
                self._interval = 0.0
            if self._served >= self._RESPONSES_TO_GROW * self._limit:
                self._served = 0
                self._limit += 1
                self._wake_next()


@dataclass(kw_only=True, eq=False, repr=False)
class Retrying(Generic[T]):
    """One request with all its attempts.

    Attributes:
        attempt: Sends the request once and returns the result.
        method: The HTTP method, for messages.
        url: The URL.
        credentials: The token to renew after a 401.
        limiter: The rate limit of the origin.
        policy: When to retry.
        end: The deadline, on the policy's clock.
        idempotent: Whether the request may be sent more than once.
    """

    attempt: Callable[[], T]
    method: str
    url: str
    credentials: Credentials
    limiter: RateLimiter
    policy: RetryPolicy
    end: float
    idempotent: bool
    _waited_until: float = field(default=0.0, init=False)
    _renewed: bool = field(default=False, init=False)

    def run(self) -> T:
        """Return the result of the first successful attempt.

        Raises:
            STACGitLabError: The error of the last attempt.
        """
        return call_with_retries(
            self._once,
            STACGitLabError,
            self.policy,
            is_worth_retrying=self._is_worth_retrying,
            wait=self._wait,
            stop=self._stop,
            log=self._log,
        )

    def _once(self) -> T:
        allowed = self.credentials.allows(self.url)
        token = self.credentials.token() if allowed else None
        try:
            result = self._send()
        except RateLimitError as error:
            self._waited_until = self.limiter.refused(error.retry_after)
            raise
        except AuthenticationError:
            self.limiter.served()
            # Once a request: a server may refuse every token.
            was_renewed, self._renewed = self._renewed, True
            if was_renewed or not self.credentials.renew(token):
                raise
            return self._once()
        except STACGitLabError:
            self.limiter.served()
            raise
        self.limiter.served()
        return result

    def _send(self) -> T:
        try:
            with self.limiter.slot(self._waited_until):
                return self.attempt()
        except STACGitLabError as known:
            raise without_traceback(known)  # noqa: B904  # it is the same error
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            # http.client raises it for an invalid header.
            ValueError,
        ) as failure:
            error = error_for_failure(failure, method=self.method, url=self.url)
            cause = redacted_cause(failure)
        # Outside the handler: the failure, which has the token, must not become the context.
        raise error from cause

    def _is_worth_retrying(self, error: BaseException) -> bool:
        if not self.idempotent:
            return False
        if isinstance(error, HTTPStatusError):
            return error.status_code in self.policy.statuses and (
                error.retry_after is None or error.retry_after <= self.policy.max_wait
            )
        if isinstance(error, NetworkError):
            is_final = isinstance(error.__cause__, requests.exceptions.SSLError)
            return not (is_final or isinstance(error, OfflineError))
        return isinstance(error, InvalidResponseError) and error.truncated

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = error_of(state)
        if isinstance(error, RateLimitError):
            return max(0.0, self._waited_until - self.policy.clock())
        if isinstance(error, HTTPStatusError) and error.retry_after:
            return error.retry_after
        return self.policy.backoff(state.attempt_number)

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        was_last = state.attempt_number >= self.policy.max_attempts
        if not was_last and state.upcoming_sleep < self.end - self.policy.clock():
            return False
        why = f"{state.attempt_number} attempts" if was_last else "the time allowed for it"
        error = error_of(state)
        if state.attempt_number > 1 and isinstance(error, STACGitLabError):
            error.extend(f"(Given up after {why}.)")
        return True

    def _log(self, state: tenacity.RetryCallState) -> None:
        count, most, wait = state.attempt_number, self.policy.max_attempts, state.upcoming_sleep
        logger.info(
            "Attempt %d of %d failed, waiting %.1f s: %s", count, most, wait, error_of(state)
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
    """Return the result of `call`, with retries by tenacity.

    The first attempt is made without tenacity, whose bookkeeping takes longer than some requests.
    If it fails, tenacity counts it as its own first attempt.

    Args:
        call: The function to call.
        failures: The exceptions after which another attempt may succeed.
        policy: How to sleep.
        wait: Returns the seconds to wait before the next attempt.
        stop: Tells whether there is no next attempt.
        is_worth_retrying: Selects among the `failures`.
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
    """Return the exception of the latest attempt."""
    return None if state.outcome is None else state.outcome.exception()
