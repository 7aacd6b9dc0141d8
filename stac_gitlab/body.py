"""The body of a download, read with as few copies as possible and watched for stalls."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator

import requests
import urllib3

from stac_gitlab.adapter import READ_AHEAD, Watch, WatchedResponse, current_watch, watching
from stac_gitlab.answers import detached, error_for_failure
from stac_gitlab.auth import scrub
from stac_gitlab.errors import IncompleteDownloadError
from stac_gitlab.head import is_chunked, length_in
from stac_gitlab.ranges import is_encoded
from stac_gitlab.retry import RetryPolicy
from stac_gitlab.session import GitLabSession

__all__ = ["Body", "BrokenBodyError", "is_decodable"]


class BrokenBodyError(IncompleteDownloadError):
    """The body ended early or stalled: worth another attempt."""


class Body:
    """The body of one response."""

    def __init__(self, response: requests.Response, *, url: str, session: GitLabSession) -> None:
        self._raw = response.raw
        self._decode = is_encoded(response)
        self._url = url
        self._session = session
        self._secrets = session.credentials.secrets()
        self._room = READ_AHEAD
        self.is_framed = is_chunked(response.headers) or length_in(response.headers) is not None

    def into(self, buffer: Callable[[], memoryview]) -> Iterator[int]:
        """Fill one buffer after the other; yield how many bytes each holds.

        Raises:
            BrokenBodyError: If the body breaks off or stalls.
        """
        policy = self._session.retry
        pace = _Pace(policy)
        while True:
            try:
                with watching(Watch(pace.limit(), clock=policy.clock, stop=current_watch().stop)):
                    count = self._read_into(buffer())
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as failure:
                stall = pace.stall() if isinstance(failure, TimeoutError) else ""
                error, cause = self._explained(failure, stall)
            except http.client.HTTPException as failure:
                error, cause = self._explained(urllib3.exceptions.ProtocolError(str(failure)))
            else:
                if not count:
                    return
                pace.note(count)
                yield count
                continue
            # Not above: what was caught there may repeat the token, and would be kept as context.
            raise error from cause

    def _read_into(self, buffer: memoryview) -> int:
        # Below urllib3's stream stands the response of our own adapter, which reads straight into
        # the buffer. Another adapter, or a mock, may have something else there.
        source = getattr(self._raw, "_fp", None)
        if not self._decode and isinstance(source, WatchedResponse):
            # What came in one packet with the headers is taken alone: `readinto1` would wait for
            # more at once, and lose it if the body breaks off there.
            count = source.take(buffer[: self._room])
            self._room = len(buffer)
            if not count:
                self._raw.release_conn()
            return count
        chunk = self._raw.read1(len(buffer), decode_content=self._decode)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _explained(self, failure: Exception, stall: str = "") -> tuple[BrokenBodyError, Exception]:
        """Return what to raise of a failure, and a cause of it that can be shown."""
        cause = detached(failure, self._secrets)
        if stall:
            return BrokenBodyError(f"GET {scrub(self._url, self._secrets)}: {stall}"), cause
        error = error_for_failure(failure, method="GET", url=self._url, secrets=self._secrets)
        return BrokenBodyError(str(error)), cause


class _Pace:
    """Whether bytes keep coming fast enough: the stall rule of a :class:`RetryPolicy`."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._since = policy.clock()
        self._bytes = 0

    def limit(self) -> float:
        """Return when, on the policy's clock, the body counts as stalled."""
        return self._since + self._policy.stall_window

    def stall(self) -> str:
        """Return what to say of a body that is too slow; nothing of one that is not."""
        policy = self._policy
        if policy.clock() < self.limit():
            return ""
        return (
            f"no whole body in time: {self._bytes} bytes came in {policy.stall_window:g} s, fewer "
            f"than {policy.min_rate:g} a second. Try again, or change min_rate and stall_window of "
            "the RetryPolicy."
        )

    def note(self, count: int) -> None:
        """Note bytes that came; enough of them begin a new window."""
        self._bytes += count
        if self._bytes >= self._policy.min_rate * self._policy.stall_window:
            self._since = self._policy.clock()
            self._bytes = 0


def is_decodable(response: requests.Response) -> bool:
    """Tell whether every encoding of the body can be undone here."""
    named = response.headers.get("Content-Encoding", "identity").split(",")
    known = {"identity", "", *getattr(response.raw, "CONTENT_DECODERS", ())}
    return all(encoding.strip().lower() in known for encoding in named)
