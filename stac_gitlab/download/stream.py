"""The body of a download, read with as few copies as possible and watched for stalls."""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import requests
import urllib3

from stac_gitlab.download.ranges import Version, span_of
from stac_gitlab.errors import IncompleteDownloadError, STACGitLabError
from stac_gitlab.files.checksums import BUFFER_SIZE
from stac_gitlab.http.deadline import (
    STOP_LATENCY,
    Cancelled,
    Deadline,
    current_deadline,
    enforcing,
)
from stac_gitlab.http.decoding import is_encoded, reader_of
from stac_gitlab.http.responses import error_for_failure, without_request
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.http.transport import (
    READ_AHEAD,
    DeadlineResponse,
    is_chunked,
    length_in,
)
from stac_gitlab.redaction import redact
from stac_gitlab.settings import RetryPolicy


class BrokenBodyError(IncompleteDownloadError):
    """The body ended early or stalled: worth another attempt."""


class BodyReader:
    """The body of one response."""

    def __init__(self, response: requests.Response, *, url: str, session: GitLabSession) -> None:
        self._raw = response.raw
        self._is_encoded = is_encoded(response)
        self._read = reader_of(response)
        self._url = url
        self._session = session
        self._room = READ_AHEAD
        self.is_framed = is_chunked(response.headers) or length_in(response.headers) is not None

    def into(self, buffer: Callable[[], memoryview]) -> Iterator[int]:
        """Fill one buffer after the other; yield how many bytes each holds.

        Raises:
            BrokenBodyError: If the body breaks off or stalls.
        """
        policy = self._session.retry
        pace = _StallRule(policy)
        while True:
            try:
                with enforcing(
                    Deadline(pace.limit(), clock=policy.clock, stop=current_deadline().stop)
                ):
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
        if not self._is_encoded and isinstance(source, DeadlineResponse):
            # What came in one packet with the headers is taken alone: `readinto1` would wait for
            # more at once, and lose it if the body breaks off there.
            count = source.take(buffer[: self._room])
            self._room = len(buffer)
            if not count:
                self._raw.release_conn()
            return count
        chunk = self._read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _explained(self, failure: Exception, stall: str = "") -> tuple[BrokenBodyError, Exception]:
        """Return what to raise of a failure, and a cause of it that can be shown."""
        cause = without_request(failure)
        if stall:
            return BrokenBodyError(f"GET {redact(self._url)}: {stall}"), cause
        error = error_for_failure(failure, method="GET", url=self._url)
        return BrokenBodyError(str(error)), cause


class _StallRule:
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


logger = logging.getLogger(__name__)
FIRST_STRETCH = 4 * 1024 * 1024
"""Bytes that are asked for first; a smaller file is there with them."""


# So many stretches for each connection: enough for all to end at about the same time.
_ROUNDS = 8
_SMALLEST, _LARGEST = 1024 * 1024, 64 * 1024 * 1024


@dataclass
class _Segment:
    """The bytes from `at` to `stop`, of which those before `at` are there already."""

    at: int
    stop: int


@dataclass
class SegmentedDownload:
    """The rest of a file, brought over several connections. Works once.

    Attributes:
        session: What to ask with.
        url: Where the file is.
        path: The file to write into.
        total: Bytes that it will have.
        version: What the server calls this content; other content ends everything.
        on_bytes: Called with the bytes that are there and those of the whole file.
    """

    session: GitLabSession
    url: str
    path: str
    total: int
    version: Version
    on_bytes: Callable[[int, int | None], None]
    _segments_list: list[_Segment] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _come: int = 0
    _size: int = 0

    def run(self, first: requests.Response, span: range, connections: int) -> None:
        """Get everything from `first` on, or as much of it as can be had.

        Args:
            first: An answer with a part of the file.
            span: Which part that is.
            connections: How many to use at a time.

        Raises:
            OSError: If the file cannot be written.
            Stopped: If the work was called off.
        """
        self._come = span.start
        self._segments_list = [_Segment(span.start, span.stop)]
        size = (self.total - span.stop) // (connections * _ROUNDS)
        self._size = min(max(size, _SMALLEST), _LARGEST)
        with ThreadPoolExecutor(connections, "stac-gitlab-segment") as threads:
            try:
                futures = [threads.submit(self._receive, first, self._segments_list[0])]
                futures += [threads.submit(self._work) for _ in range(connections - 1)]
                while wait(futures, STOP_LATENCY, FIRST_EXCEPTION).not_done:
                    if any(future.done() and future.exception() for future in futures):
                        break
                    current_deadline().time_left()
            finally:
                self._stop.set()
        for failure in filter(None, (future.exception() for future in futures)):
            if not isinstance(failure, (STACGitLabError, Cancelled)):
                raise failure
            logger.info("Going on over one connection: %s", failure)

    def without_gap(self) -> int:
        """Return how much of the file is there, counted from its start."""
        gaps = (stretch.at for stretch in self._segments_list if stretch.at < stretch.stop)
        return next(gaps, self._segments_list[-1].stop)

    def _work(self) -> None:
        while (stretch := self._next()) is not None:
            self._ask(stretch)

    def _receive(self, response: requests.Response, stretch: _Segment) -> None:
        self._take(response, stretch)
        self._work()

    def _next(self) -> _Segment | None:
        with self._lock:
            start = self._segments_list[-1].stop
            if start >= self.total or self._stop.is_set():
                return None
            stretch = _Segment(start, min(start + self._size, self.total))
            self._segments_list.append(stretch)
        return stretch

    def _ask(self, stretch: _Segment) -> None:
        headers = {
            "Range": f"bytes={stretch.at}-{stretch.stop - 1}",
            **self.version.if_unchanged(),
        }
        with enforcing(Deadline(stop=self._stop)):
            response = self.session.open(self.url, headers=headers, statuses=frozenset({416}))
        with response:
            fits = span_of(response) == range(stretch.at, stretch.stop)
            if not (fits and self.version.is_that_of(response)):
                raise IncompleteDownloadError(
                    f"the server answers {response.status_code}, which is not the part of the file "
                    "that was asked for"
                )
            self._take(response, stretch)

    def _take(self, response: requests.Response, stretch: _Segment) -> None:
        buffer = memoryview(bytearray(BUFFER_SIZE))
        body = BodyReader(response, url=self.url, session=self.session)
        # A handle of its own has a position of its own.
        with open(self.path, "r+b", buffering=0) as file, enforcing(Deadline(stop=self._stop)):
            file.seek(stretch.at)
            for count in body.into(lambda: buffer):
                if stretch.at + count > stretch.stop:
                    raise IncompleteDownloadError("more came than was asked for")
                content = buffer[:count]
                while content:
                    content = content[file.write(content) :]
                stretch.at += count
                with self._lock:
                    self._come += count
                    self.on_bytes(self._come, self.total)
        if stretch.at < stretch.stop:
            raise IncompleteDownloadError("the connection ended before its part did")
