"""The one retry layer: a request is sent again until it succeeds, or that has become pointless."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import requests
import tenacity
import urllib3

from stac_gitlab.adapter import current_watch
from stac_gitlab.answers import detached, error_for_failure, without_frames
from stac_gitlab.auth import Credentials, Token
from stac_gitlab.errors import (
    AuthenticationError,
    HTTPStatusError,
    InvalidResponseError,
    NetworkError,
    RateLimitError,
    STACGitLabError,
)
from stac_gitlab.retry import RateGate, RetryPolicy

__all__ = ["Attempts", "error_of", "tried"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Attempts(Generic[T]):
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
        gate: RateGate,
        policy: RetryPolicy,
        end: float,
        idempotent: bool,
    ) -> None:
        self._attempt = attempt
        self._method = method
        self._url = url
        self._credentials = credentials
        self._gate = gate
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
        return tried(
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
            self._waited_until = self._gate.refused(error.retry_after)
            raise
        except AuthenticationError:
            self._gate.served()
            if not self._renews(token):
                raise
            return self._once()
        except STACGitLabError:
            self._gate.served()
            raise
        self._gate.served()
        return result

    def _send(self) -> T:
        try:
            with self._gate.asking(self._waited_until):
                return self._attempt()
        except STACGitLabError as known:
            raise without_frames(known)  # noqa: B904  # it is the same error
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
        secrets = self._credentials.secrets()
        error = error_for_failure(failure, method=self._method, url=self._url, secrets=secrets)
        return error, detached(failure, secrets)

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


def tried(
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
        sleep=lambda seconds: current_watch().sleep(seconds, policy.sleep),
        before_sleep=log,
        reraise=True,
    )
    return retrying(again)


def error_of(state: tenacity.RetryCallState) -> BaseException | None:
    """Return what the attempt that has just been made failed of."""
    return None if state.outcome is None else state.outcome.exception()
