"""An asset opened like a file: read in ranges where its server can, from a temporary elsewhere."""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import requests
import tenacity
import urllib3

from stac_gitlab.auth import scrub
from stac_gitlab.errors import DownloadError, IncompleteDownloadError
from stac_gitlab.names import shown
from stac_gitlab.session import GitLabSession
from stac_gitlab.transfer import Source, receive

__all__ = ["open_remote"]

# What is asked for at a time: a round trip brings this much, and random access wastes at most this.
BLOCK_SIZE = 1024 * 1024

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.IGNORECASE)
_EMPTY = re.compile(r"bytes \*/0", re.IGNORECASE)


def open_remote(session: GitLabSession, source: Source) -> BinaryIO:
    """Open the file at a URL for reading.

    Raises:
        DownloadError: If what came is not what was promised.
        HTTPStatusError: If the server refuses.
        NetworkError: If no connection comes about.
    """
    response = session.open(
        source.url, headers={"Range": f"bytes=0-{BLOCK_SIZE - 1}"}, statuses=frozenset({416})
    )
    content_range = response.headers.get("Content-Range", "").strip()
    if response.status_code == 416:
        response.close()
        if _EMPTY.fullmatch(content_range):
            return io.BytesIO()
        return _spooled(session, source, None)
    match = _CONTENT_RANGE.fullmatch(content_range)
    if response.status_code != 206 or match is None or int(match[1]) != 0:
        # The body that is coming is the whole file: it is read to its end, since servers count on
        # that, and the file stands ready.
        return _spooled(session, source, response if response.status_code == 200 else None)
    with response:
        first = _body(response, int(match[2]) + 1, source)
    ranges = _Ranges(session, source, size=int(match[3]), response=response, first=first)
    return cast("BinaryIO", io.BufferedReader(ranges, BLOCK_SIZE))


def _spooled(
    session: GitLabSession, source: Source, response: requests.Response | None
) -> BinaryIO:
    with tempfile.TemporaryDirectory(prefix="stac-gitlab-") as folder:
        path = Path(folder) / "asset"
        receive(session, source, path, response=response)
        if os.name != "nt":
            # The name goes with the folder; the open file stays.
            return path.open("rb")
        return io.BytesIO(path.read_bytes())


class _Ranges(io.RawIOBase):
    """A file of known size on a server that serves ranges of it."""

    def __init__(
        self,
        session: GitLabSession,
        source: Source,
        *,
        size: int,
        response: requests.Response,
        first: bytes,
    ) -> None:
        if source.size is not None and size != source.size:
            raise IncompleteDownloadError(
                f"{shown(source.key)}: the server has {size} bytes, the metadata promise "
                f"{source.size}. The file has changed since the metadata were written."
            )
        self._session = session
        self._source = source
        self._size = size
        self._first = first
        self._position = 0
        etag = response.headers.get("ETag", "")
        self._validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"there is no position {base + offset} in a file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._position))
        if count == 0:
            return 0
        end = self._position + count
        if end <= len(self._first):
            data = self._first[self._position : end]
        else:
            data = self._fetch(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, start: int, end: int) -> bytes:
        policy = self._session.retry
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_BrokenRangeError),
            stop=tenacity.stop_after_attempt(policy.max_attempts),
            wait=lambda state: policy.backoff(state.attempt_number),
            sleep=policy.sleep,
            reraise=True,
        )
        return retrying(self._fetch_once, start, end)

    def _fetch_once(self, start: int, end: int) -> bytes:
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if self._validator is not None:
            headers["If-Range"] = self._validator
        response = self._session.open(self._source.url, headers=headers)
        with response:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            if response.status_code != 206 or match is None or int(match[1]) != start:
                raise DownloadError(
                    f"{shown(self._source.key)}: the file has changed while it was read. Open it "
                    "again."
                )
            return _body(response, end - start, self._source)


class _BrokenRangeError(IncompleteDownloadError):
    """A range broke off: worth another attempt."""


def _body(response: requests.Response, count: int, source: Source) -> bytes:
    try:
        data: bytes = response.raw.read(decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError) as failure:
        raise _BrokenRangeError(
            f"{shown(source.key)}: the connection broke ({scrub(str(failure))}). Try again."
        ) from None
    if len(data) != count:
        raise _BrokenRangeError(
            f"{shown(source.key)}: {len(data)} bytes of a range of {count} came. Try again."
        )
    return data
