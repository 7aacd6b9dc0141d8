"""An asset opened like a file: read in ranges where its server can, from a temporary elsewhere.

Ranges are read as long as they are of the content that was opened: another ETag, date or length
is an error, because a mixture of two versions is neither.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import requests
import urllib3

from stac_gitlab.download.ranges import span_of, total_of
from stac_gitlab.download.source import POINTER_SIZE, Source
from stac_gitlab.download.transfer import receive
from stac_gitlab.errors import DownloadError, IncompleteDownloadError
from stac_gitlab.http.deadline import Deadline, enforcing
from stac_gitlab.http.decoding import reader_of
from stac_gitlab.http.retry import call_with_retries
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import quoted, redact

# What is asked for at a time: a round trip brings this much, and random access wastes at most this.
BLOCK_SIZE = 1024 * 1024


def open_remote(session: GitLabSession, source: Source) -> BinaryIO:
    """Open the file at a URL for reading.

    Raises:
        DownloadError: If what came is not what was promised.
        HTTPStatusError: If the server refuses.
        NetworkError: If no connection comes about.
        OSError: If the server does not serve ranges, and the temporary cannot be written.
    """
    response = session.open(
        source.url, headers={"Range": f"bytes=0-{BLOCK_SIZE - 1}"}, statuses=frozenset({416})
    )
    if response.status_code == 200:
        # The body that is coming is the whole file: it is read to its end, since servers count on
        # that, and the file stands ready.
        return _spooled(session, source, response)
    with response:
        span = span_of(response)
        if span is None or span.start != 0 or len(span) > BLOCK_SIZE or total_of(response) is None:
            return _spooled(session, source)
        ranges = _Ranges(session, source, response)
        ranges.keep(response, span)
    if ranges.is_doubtful():
        return _spooled(session, source)
    return cast("BinaryIO", io.BufferedReader(ranges, BLOCK_SIZE))


def _spooled(
    session: GitLabSession, source: Source, response: requests.Response | None = None
) -> BinaryIO:
    with tempfile.TemporaryDirectory(prefix="stac-gitlab-") as folder:
        path = Path(folder) / "asset"
        receive(session, source, path, response=response)
        if os.name != "nt":
            # The name goes with the folder; the open file stays.
            return path.open("rb")
        return io.BytesIO(path.read_bytes())


class _Ranges(io.RawIOBase):
    """A file of known size on a server that serves ranges of it.

    Args:
        session: What to ask with.
        source: Where the file is.
        response: The first answer, which says how large the file is and which version.
    """

    def __init__(self, session: GitLabSession, source: Source, response: requests.Response) -> None:
        self._session = session
        self._source = source
        self._size = total_of(response) or 0
        self._etag = response.headers.get("ETag")
        self._modified = response.headers.get("Last-Modified")
        self._first = b""
        self._position = 0
        self._spent: float = 0
        self._came = 0

    def keep(self, response: requests.Response, span: range) -> None:
        """Keep the beginning of the file, as far as it comes."""
        first = bytearray(len(span))
        with contextlib.suppress(_BrokenRangeError):
            count = self._take(response, memoryview(first))
            self._first = bytes(first[:count])

    def is_doubtful(self) -> bool:
        """Tell whether this may be anything else than the file that the metadata describe."""
        promised, checksum = self._source.size, self._source.checksum
        if self._size < POINTER_SIZE or (promised is not None and promised != self._size):
            return True
        if checksum is None or len(self._first) < self._size:
            return False
        hasher = checksum.hasher()
        hasher.update(self._first)
        return checksum.digest_of(hasher) != checksum.digest

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if whence not in bases:
            raise ValueError(f"whence={whence}: choose 0, 1 or 2")
        if bases[whence] + offset < 0:
            raise ValueError(f"there is no position {bases[whence] + offset} in a file")
        self._position = bases[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._size - self._position))]
        if not view:
            return 0
        known = self._first[self._position : self._position + len(view)]
        if known:
            view[: len(known)] = known
            count = len(known)
        else:
            count = self._fetch_into(view)
        self._position += count
        return count

    def readall(self) -> bytes:
        # The base class asks for some kilobytes at a time.
        content = bytearray(max(0, self._size - self._position))
        view = memoryview(content)
        while view:
            view = view[self.readinto(view) :]
        return bytes(content)

    def _fetch_into(self, view: memoryview) -> int:
        """Fill `view` from the current position on, as far as one answer goes."""
        policy = self._session.retry
        began = policy.clock()
        count = call_with_retries(
            lambda: self._fetch_once(view),
            _BrokenRangeError,
            policy,
            wait=lambda state: policy.backoff(state.attempt_number),
            stop=lambda state: state.attempt_number >= policy.max_attempts,
        )
        self._check_pace(count, len(view), policy.clock() - began)
        return count

    def _check_pace(self, count: int, wanted: int, took: float) -> None:
        """Apply the stall rule to what comes in answers that are shorter than asked for."""
        policy = self._session.retry
        if count == wanted:
            self._spent = self._came = 0
            return
        self._spent += took
        self._came += count
        if self._spent >= policy.stall_window and self._came < policy.min_rate * self._spent:
            raise IncompleteDownloadError(
                f"{quoted(self._source.key)}: only {self._came} bytes came in {self._spent:.0f} s. "
                "Try again, or download it."
            )

    def _fetch_once(self, view: memoryview) -> int:
        start = self._position
        headers = {"Range": f"bytes={start}-{start + len(view) - 1}"}
        strong = self._etag is not None and self._etag.startswith('"')
        validator = self._etag if strong else self._modified
        if validator is not None:
            headers["If-Range"] = validator
        response = self._session.open(
            self._source.url, headers=headers, statuses=frozenset({412, 416})
        )
        with response:
            span = span_of(response)
            if span is None or span.start != start or not self._is_of_same_version(response):
                raise DownloadError(
                    f"{quoted(self._source.key)}: the file has changed while it was read. Open it "
                    "again."
                )
            count = self._take(response, view[: len(span)])
        if not count:
            raise _BrokenRangeError(
                f"{quoted(self._source.key)}: nothing came of the {len(view)} bytes from {start} "
                "on. Try again."
            )
        return count

    def _is_of_same_version(self, response: requests.Response) -> bool:
        """Compare what the server says now: it may have passed over If-Range."""
        etag = response.headers.get("ETag", self._etag)
        modified = response.headers.get("Last-Modified", self._modified)
        return (
            etag == self._etag
            and (etag is not None or modified == self._modified)
            and total_of(response) in (None, self._size)
        )

    def _take(self, response: requests.Response, view: memoryview) -> int:
        """Read a body into `view`, as far as it comes; return how far."""
        policy = self._session.retry
        room, read = view, reader_of(response)
        try:
            with enforcing(Deadline(policy.clock() + policy.deadline, clock=policy.clock)):
                while room and (chunk := read(len(room))):
                    room[: len(chunk)] = chunk
                    room = room[len(chunk) :]
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as failure:
            if len(room) == len(view):
                raise _BrokenRangeError(
                    f"{quoted(self._source.key)}: the connection broke "
                    f"({redact(str(failure))}). Try again."
                ) from None
        return len(view) - len(room)


class _BrokenRangeError(IncompleteDownloadError):
    """A range broke off before its first byte: worth another attempt."""
