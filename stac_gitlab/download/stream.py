"""The body of a download, over one connection or several, and the rule for when it stalls."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import requests
import urllib3

from stac_gitlab.download.content_version import ByteRange, ContentVersion
from stac_gitlab.errors import IncompleteDownloadError, STACGitLabError
from stac_gitlab.files.checksums import BUFFER_SIZE
from stac_gitlab.http.body import body_reader, is_encoded
from stac_gitlab.http.deadline import STOP_LATENCY, Cancelled, Deadline, current_deadline, enforcing
from stac_gitlab.http.head import is_chunked, length_in
from stac_gitlab.http.responses import error_for_failure, redacted_cause
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.http.transport import READ_AHEAD, DeadlineResponse
from stac_gitlab.redaction import redact, redacting_logger
from stac_gitlab.settings import RetryPolicy

FIRST_SEGMENT = 4 * 1024 * 1024
"""Bytes of the first range request of a segmented download: a smaller file needs no other."""

# With this many segments for each connection, all connections end at about the same time.
_SEGMENTS_PER_CONNECTION = 8
_MIN_SEGMENT, _MAX_SEGMENT = 1024 * 1024, 64 * 1024 * 1024
logger = redacting_logger(__name__)


class BrokenBodyError(IncompleteDownloadError):
    """The body ended early or stalled; another attempt may help."""


class StallRule:
    """Tells whether bytes arrive at the minimum rate of a :class:`RetryPolicy`."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.restart()

    def restart(self) -> None:
        """Begin a new window."""
        self._since = self._policy.clock()
        self.received = 0

    def skip(self, seconds: float) -> None:
        """Leave out a time in which nobody waited for bytes."""
        self._since += seconds

    def add(self, count: int) -> None:
        """Count bytes that arrived; a new window begins when there are enough of them."""
        self.received += count
        if self.received >= self._policy.min_rate * self._policy.stall_window:
            self.restart()

    @property
    def now(self) -> float:
        """The time on the policy's clock."""
        return self._policy.clock()

    @property
    def deadline(self) -> float:
        """The end of the window, on the policy's clock."""
        return self._since + self._policy.stall_window

    @property
    def is_stalled(self) -> bool:
        """Whether the window has ended before enough bytes arrived."""
        return self.now >= self.deadline

    def __str__(self) -> str:
        """Return what to say of a stalled download."""
        return (
            f"only {self.received} bytes arrived in {self._policy.stall_window:g} s, fewer than "
            f"{self._policy.min_rate:g} a second. Try again, or change min_rate and stall_window "
            "of the RetryPolicy."
        )


class BodyReader:
    """Reads the body of one response with as few copies as possible.

    Args:
        url: What to call the response in messages.
        decode: Whether to undo its content encoding.

    Attributes:
        is_framed: Whether the response marks the end of its body.
    """

    def __init__(
        self, response: requests.Response, *, url: str, session: GitLabSession, decode: bool = True
    ) -> None:
        raw = response.raw
        # Below urllib3's stream is the response of our own adapter, which reads straight into the
        # buffer. Another adapter, or a mock, may have something else there.
        self._source = raw if isinstance(raw, DeadlineResponse) else getattr(raw, "_fp", None)
        self._release = getattr(raw, "release_conn", None)
        self._is_decoded = decode and is_encoded(response)
        self._read = body_reader(response, decode=decode)
        self._url = url
        self._policy = session.retry
        self._room = READ_AHEAD
        self.is_framed = is_chunked(response.headers) or length_in(response.headers) is not None

    def read_into(self, buffer: Callable[[], memoryview]) -> Iterator[int]:
        """Fill one buffer after the other; yield the number of bytes in each.

        Raises:
            BrokenBodyError: If the body breaks off or stalls.
        """
        policy = self._policy
        rule = StallRule(policy)
        while True:
            try:
                with enforcing(
                    Deadline(rule.deadline, clock=policy.clock, stop=current_deadline().stop)
                ):
                    count = self._read_once(buffer())
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as failure:
                is_stalled = isinstance(failure, TimeoutError) and rule.is_stalled
                problem = f"GET {redact(self._url)}: {rule}" if is_stalled else None
                error, cause = self._explain(failure, problem)
            except http.client.HTTPException as failure:
                error, cause = self._explain(urllib3.exceptions.ProtocolError(str(failure)))
            else:
                if not count:
                    return
                rule.add(count)
                yield count
                continue
            # Raised here, where the failure is no longer its context: it may repeat the token.
            raise error from cause

    def _read_once(self, buffer: memoryview) -> int:
        source = self._source
        if not self._is_decoded and isinstance(source, DeadlineResponse):
            # The bytes that came in one packet with the headers are read alone: `readinto1` would
            # wait for more at once, and lose them if the body breaks off there.
            count = source.take(buffer[: self._room])
            self._room = len(buffer)
            if not count and self._release is not None:
                self._release()
            return count
        chunk = self._read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _explain(
        self, failure: Exception, problem: str | None = None
    ) -> tuple[BrokenBodyError, Exception]:
        """Return the error to raise for a failure, and its cause without secrets."""
        problem = problem or str(error_for_failure(failure, method="GET", url=self._url))
        return BrokenBodyError(problem), redacted_cause(failure)


@dataclass
class _Segment:
    """A part of the file: the bytes before `position` are written, those up to `stop` missing."""

    position: int
    stop: int


@dataclass
class SegmentedDownload:
    """The rest of a file, downloaded over several connections. Works once.

    Attributes:
        version: The version of the content, with its size; another one ends the download.
        connections: The number of connections to use at a time.
        on_bytes: Called with the bytes received so far and those of the whole file.
    """

    session: GitLabSession
    url: str
    version: ContentVersion
    connections: int
    on_bytes: Callable[[int, int | None], None]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, first: requests.Response, part: ByteRange, path: str) -> None:
        """Download everything from the `part` that `first` holds on, or as much as possible.

        Raises:
            OSError: If the file cannot be written.
            Cancelled: If the download was cancelled.
        """
        self._path = path
        self._size = self.version.size or part.stop
        self._received = part.start
        self._segments = [_Segment(part.start, part.stop)]
        size = (self._size - part.stop) // (self.connections * _SEGMENTS_PER_CONNECTION)
        self._segment_size = min(max(size, _MIN_SEGMENT), _MAX_SEGMENT)
        with ThreadPoolExecutor(self.connections, "stac-gitlab-segment") as threads:
            try:
                responses = [first, *[None] * (self.connections - 1)]
                futures = [threads.submit(self._download_segments, r) for r in responses]
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

    def size_without_gaps(self) -> int:
        """Return the number of bytes from the start of the file that are all there."""
        missing = (
            segment.position for segment in self._segments if segment.position < segment.stop
        )
        return next(missing, self._segments[-1].stop)

    def _download_segments(self, first: requests.Response | None) -> None:
        if first is not None:
            self._write(first, self._segments[0])
        while (segment := self._next_segment()) is not None:
            self._download(segment)

    def _next_segment(self) -> _Segment | None:
        with self._lock:
            start = self._segments[-1].stop
            if start >= self._size or self._stop.is_set():
                return None
            segment = _Segment(start, min(start + self._segment_size, self._size))
            self._segments.append(segment)
        return segment

    def _download(self, segment: _Segment) -> None:
        headers = {
            "Range": f"bytes={segment.position}-{segment.stop - 1}",
            **self.version.range_conditions(),
        }
        with enforcing(Deadline(stop=self._stop)):
            response = self.session.open(self.url, headers=headers, statuses=frozenset({412, 416}))
        with response:
            part = ByteRange.of(response)
            wanted = (segment.position, segment.stop)
            is_wanted = part is not None and (part.start, part.stop) == wanted
            if not (is_wanted and self.version.matches(response)):
                raise IncompleteDownloadError(
                    f"the response ({response.status_code}) is not the part of the file that was "
                    "requested"
                )
            self._write(response, segment)

    def _write(self, response: requests.Response, segment: _Segment) -> None:
        buffer = memoryview(bytearray(BUFFER_SIZE))
        body = BodyReader(response, url=self.url, session=self.session)
        # Each thread needs a file position of its own.
        with open(self._path, "r+b", buffering=0) as file, enforcing(Deadline(stop=self._stop)):
            file.seek(segment.position)
            for count in body.read_into(lambda: buffer):
                if segment.position + count > segment.stop:
                    raise IncompleteDownloadError("the response is longer than it said")
                content = buffer[:count]
                while content:
                    content = content[file.write(content) :]
                segment.position += count
                with self._lock:
                    self._received += count
                    self.on_bytes(self._received, self._size)
        if segment.position < segment.stop:
            raise IncompleteDownloadError("the connection ended before its part did")
