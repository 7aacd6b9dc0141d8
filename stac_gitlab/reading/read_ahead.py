"""Documents that links of a catalog lead to, read a few at a time before they are needed."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import pystac
from pystac.link import Link

from stac_gitlab.files.paths import is_web
from stac_gitlab.reading import paging
from stac_gitlab.reading.stac_io import GitLabStacIO, ready_document

WIDTH = 32
"""Documents that are read at the same time."""


class ReadAhead:
    """Reads what links lead to in their order. Close it to cancel what is under way.

    Reading ahead begins with the second link, if the first took noticeable time.

    Args:
        links: The links, in the order in which they are needed.
        root: The catalog that knows which of them were read already.
    """

    def __init__(
        self, stac_io: GitLabStacIO, links: Sequence[Link], root: pystac.Catalog | None
    ) -> None:
        self._io = stac_io
        self._root = root
        self._upcoming = deque(links)
        self._under_way: dict[str, Future[dict[str, Any]]] = {}
        self._stop = threading.Event()
        self._process = os.getpid()
        self._is_slow = False

    @contextmanager
    def needing(self, link: Link) -> Iterator[None]:
        """Let the reader use what was read ahead for a link, and read more."""
        if self._upcoming and self._upcoming[0] is link:
            self._upcoming.popleft()
        href = _href_of(link)
        while self._is_slow and self._upcoming and len(self._under_way) < WIDTH:
            self._begin(self._upcoming.popleft())
        document = self._under_way.pop(href, None)
        if self._process != os.getpid():
            # This process is a fork. The threads are in its parent.
            self._is_slow, document = False, None
            self._under_way.clear()
        known = ready_document.set(None if document is None else (href, document))
        started = time.perf_counter() - time.thread_time()
        try:
            yield
        finally:
            ready_document.reset(known)
            if document is None:
                waited = time.perf_counter() - time.thread_time() - started
                self._is_slow = waited >= paging.LONG_WAIT

    def close(self) -> None:
        """Cancel the requests that are under way."""
        self._stop.set()

    def _begin(self, link: Link) -> None:
        href = _href_of(link)
        if link.is_resolved() or not is_web(href) or href in self._under_way:
            return
        if self._root is not None and self._root._resolved_objects.get_by_href(href):
            return
        read = partial(self._io.read_json, href)
        self._under_way[href] = paging.in_background(read, self._stop, name="stac-gitlab-link")


def _href_of(link: Link) -> str:
    try:
        return link.get_absolute_href() or ""
    except ValueError:
        # It is not a URL. The error is raised when the link is followed.
        return ""
