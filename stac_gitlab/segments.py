"""One file over several connections, where each of them is slower than the network.

The file is cut into stretches, and each connection takes the next one that nobody has. Nothing is
tried twice here: whatever goes wrong ends all connections, what stands without a gap at the start
of the file is kept, and whoever asked for the rest goes on from there over one connection.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import requests

from stac_gitlab.adapter import STOP_LATENCY, Stopped, Watch, current_watch, watching
from stac_gitlab.body import Body
from stac_gitlab.errors import IncompleteDownloadError, STACGitLabError
from stac_gitlab.hashing import BUFFER_SIZE
from stac_gitlab.line import away
from stac_gitlab.ranges import Version, span_of
from stac_gitlab.session import GitLabSession

__all__ = ["FIRST_STRETCH", "Segments"]

logger = logging.getLogger(__name__)

FIRST_STRETCH = 4 * 1024 * 1024
"""Bytes that are asked for first; a smaller file is there with them."""

# So many stretches for each connection: enough for all to end at about the same time.
_ROUNDS = 8
_SMALLEST, _LARGEST = 1024 * 1024, 64 * 1024 * 1024


@dataclass
class _Stretch:
    """The bytes from `at` to `stop`, of which those before `at` are there already."""

    at: int
    stop: int


@dataclass
class Segments:
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
    _stretches: list[_Stretch] = field(default_factory=list)
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
        self._stretches = [_Stretch(span.start, span.stop)]
        size = (self.total - span.stop) // (connections * _ROUNDS)
        self._size = min(max(size, _SMALLEST), _LARGEST)
        with ThreadPoolExecutor(connections, "stac-gitlab-segment") as threads:
            try:
                futures = [threads.submit(self._receive, first, self._stretches[0])]
                futures += [threads.submit(self._work) for _ in range(connections - 1)]
                with away():
                    while wait(futures, STOP_LATENCY, FIRST_EXCEPTION).not_done:
                        if any(future.done() and future.exception() for future in futures):
                            break
                        current_watch().time_left()
            finally:
                self._stop.set()
        for failure in filter(None, (future.exception() for future in futures)):
            if not isinstance(failure, (STACGitLabError, Stopped)):
                raise failure
            logger.info("Going on over one connection: %s", failure)

    def without_gap(self) -> int:
        """Return how much of the file is there, counted from its start."""
        gaps = (stretch.at for stretch in self._stretches if stretch.at < stretch.stop)
        return next(gaps, self._stretches[-1].stop)

    def _work(self) -> None:
        while (stretch := self._next()) is not None:
            self._ask(stretch)

    def _receive(self, response: requests.Response, stretch: _Stretch) -> None:
        self._take(response, stretch)
        self._work()

    def _next(self) -> _Stretch | None:
        with self._lock:
            start = self._stretches[-1].stop
            if start >= self.total or self._stop.is_set():
                return None
            stretch = _Stretch(start, min(start + self._size, self.total))
            self._stretches.append(stretch)
        return stretch

    def _ask(self, stretch: _Stretch) -> None:
        headers = {
            "Range": f"bytes={stretch.at}-{stretch.stop - 1}",
            **self.version.if_unchanged(),
        }
        with watching(Watch(stop=self._stop)):
            response = self.session.open(self.url, headers=headers, statuses=frozenset({416}))
        with response:
            fits = span_of(response) == range(stretch.at, stretch.stop)
            if not (fits and self.version.is_that_of(response)):
                raise IncompleteDownloadError(
                    f"the server answers {response.status_code}, which is not the part of the file "
                    "that was asked for"
                )
            self._take(response, stretch)

    def _take(self, response: requests.Response, stretch: _Stretch) -> None:
        buffer = memoryview(bytearray(BUFFER_SIZE))
        body = Body(response, url=self.url, session=self.session)
        # A handle of its own has a position of its own.
        with open(self.path, "r+b", buffering=0) as file, watching(Watch(stop=self._stop)):
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
