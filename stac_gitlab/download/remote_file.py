"""An asset opened like a file: read in ranges if its server supports them, else downloaded first.

All ranges have to be of the version that was opened: another ETag, date or size is an error,
because a mixture of two versions is neither.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import pystac
import requests
import urllib3

from stac_gitlab.download.assets import HasAssets, check_asset
from stac_gitlab.download.checked_file import PAGE_START, POINTER_SIZE, error_for_substitute
from stac_gitlab.download.content_version import ByteRange, ContentVersion
from stac_gitlab.download.source import Locator, Source, Verify
from stac_gitlab.download.stream import BrokenBodyError, StallRule
from stac_gitlab.download.transfer import download_file
from stac_gitlab.errors import (
    AssetNotFoundError,
    ConfigurationError,
    DownloadError,
    IncompleteDownloadError,
    STACGitLabError,
)
from stac_gitlab.http.body import body_reader
from stac_gitlab.http.deadline import Deadline, enforcing
from stac_gitlab.http.retry import call_with_retries
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import printable, quoted, redact
from stac_gitlab.settings import expect

# Bytes of one range request: random access wastes at most this much, and a reader that asks for
# small pieces needs one request for each block.
BLOCK_SIZE = 1024 * 1024
# Bytes that are copied at a time out of a block.
_BUFFER_SIZE = 8192


def open_asset(
    session: GitLabSession, asset: pystac.Asset, item: HasAssets | None, verify: Verify
) -> BinaryIO:
    """Open an asset for reading.

    Raises:
        ConfigurationError: If an argument is not valid.
        DownloadError: If the file is not what the metadata describe; or if the server does not
            support ranges, and the temporary file cannot be written.
        HTTPStatusError: If the server responds with an error.
        NetworkError: If there is no connection.
    """
    expect("asset", asset, pystac.Asset, wanted="an asset")
    owner = item or asset.owner
    if owner is None or not hasattr(owner, "assets"):
        raise ConfigurationError("This asset belongs to no item: pass item= as well.")
    key = next((key for key, a in owner.assets.items() if a is asset), None)
    if key is None:
        raise AssetNotFoundError(f"{printable(repr(owner))} has no such asset.")
    check_asset(key, asset)
    source, path = Locator(session, verify=verify).locate(owner, key, asset)
    try:
        return _open_remote(session, source) if path is None else path.open("rb")
    except STACGitLabError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{quoted(key)}: {str(error.filename)!r} cannot be opened: {error.strerror or error}."
        ) from error


def _open_remote(session: GitLabSession, source: Source) -> BinaryIO:
    if session.dialect_of(source.url).generates(source.url):
        return _open_downloaded(session, source)
    response = session.open(
        source.url, headers={"Range": f"bytes=0-{BLOCK_SIZE - 1}"}, statuses=frozenset({416})
    )
    if response.status_code == 200:
        # The whole file is on its way already. It is read to its end at once: a server does not
        # wait for a slow reader.
        return _open_downloaded(session, source, response)
    with response:
        part = ByteRange.of(response)
        if part is None or part.start or part.stop > BLOCK_SIZE or part.size is None:
            return _open_downloaded(session, source)
        file = _RangeReader(session, source, response, part)
    if not file.may_be_the_file(response):
        # A download finds out, and raises the error that says why.
        return _open_downloaded(session, source)
    return cast("BinaryIO", io.BufferedReader(file, _BUFFER_SIZE))


def _open_downloaded(
    session: GitLabSession, source: Source, response: requests.Response | None = None
) -> BinaryIO:
    try:
        with tempfile.TemporaryDirectory(prefix="stac-gitlab-") as scratch:
            path = Path(scratch) / "asset"
            download_file(session, source, path, response=response)
            if os.name != "nt":
                # The name is removed with the folder; the open file remains.
                return path.open("rb")
            return io.BytesIO(path.read_bytes())
    except OSError as error:
        if isinstance(error, STACGitLabError):
            raise
        # Without any usable folder, gettempdir() would raise the same error again.
        folder = "" if tempfile.tempdir is None else f" {os.fsdecode(tempfile.tempdir)!r}"
        raise DownloadError(
            f"{quoted(source.key)}: the temporary folder{folder} cannot be written: "
            f"{error.strerror or error}. Free some space there, or name another one in TMPDIR."
        ) from error


class _RangeReader(io.RawIOBase):
    """A file of known size; the first response holds a part of it, and identifies its version."""

    def __init__(
        self, session: GitLabSession, source: Source, response: requests.Response, part: ByteRange
    ) -> None:
        self._session = session
        self._source = source
        self._size = part.size or part.stop
        self._version = ContentVersion.of(response, size=self._size)
        self._position = 0
        # The first block is kept for readers that return to the header of a file.
        self._first_block = self._block = b""
        self._block_start = 0
        self._stall = StallRule(session.retry)
        self._last_fetch = session.retry.clock()
        with contextlib.suppress(BrokenBodyError):
            block = bytearray(part.stop)
            count = self._read_body(response, memoryview(block))
            self._first_block = bytes(block[:count])

    def may_be_the_file(self, response: requests.Response) -> bool:
        """Return whether this may be the file that the metadata describe."""
        expected, checksum = self._source.size, self._source.checksum
        if self._size < POINTER_SIZE or expected not in (None, self._size):
            return False
        start = self._first_block[:PAGE_START]
        if error_for_substitute(self._session, self._source, response, start) is not None:
            return False
        if checksum is None or len(self._first_block) < self._size:
            return True
        hasher = checksum.hasher()
        hasher.update(self._first_block)
        return checksum.digest_of(hasher) == checksum.digest

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
            raise ValueError(f"a file has no position {bases[whence] + offset}")
        self._position = bases[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._size - self._position))]
        if not view:
            return 0
        piece = self._fetched(len(view))
        if not piece and len(view) >= BLOCK_SIZE:
            count = self._fetch_into(view)
        else:
            piece = piece or self._fetch_block()[: len(view)]
            count = len(piece)
            view[:count] = piece
        self._position += count
        return count

    def readall(self) -> bytes:
        # The base class reads some kilobytes at a time.
        content = bytearray(max(0, self._size - self._position))
        view = memoryview(content)
        while view:
            view = view[self.readinto(view) :]
        return bytes(content)

    def _fetched(self, count: int) -> bytes:
        """Return up to `count` bytes from the current position on that were fetched already."""
        start, first_block = self._position, self._first_block
        if start < len(first_block):
            return first_block[start : start + count]
        start -= self._block_start
        return self._block[start : start + count] if start >= 0 else b""

    def _fetch_block(self) -> bytes:
        """Fetch the block from the current position on."""
        block = bytearray(min(BLOCK_SIZE, self._size - self._position))
        fetched = self._fetch_into(memoryview(block))
        self._block_start, self._block = self._position, bytes(block[:fetched])
        return self._block

    def _fetch_into(self, view: memoryview) -> int:
        """Fill `view` from the current position on, as far as one response goes."""
        policy = self._session.retry
        self._stall.skip(policy.clock() - self._last_fetch)
        try:
            count = call_with_retries(
                lambda: self._fetch_once(view),
                BrokenBodyError,
                policy,
                wait=lambda state: policy.backoff(state.attempt_number),
                stop=lambda state: state.attempt_number >= policy.max_attempts,
            )
        finally:
            self._last_fetch = policy.clock()
        self._stall.add(count)
        if count == len(view):
            self._stall.restart()
        elif self._stall.is_stalled:
            raise IncompleteDownloadError(f"{quoted(self._source.key)}: {self._stall}")
        return count

    def _fetch_once(self, view: memoryview) -> int:
        start = self._position
        response = self._session.open(
            self._source.url,
            headers={
                "Range": f"bytes={start}-{start + len(view) - 1}",
                **self._version.range_conditions(),
            },
            statuses=frozenset({412, 416}),
        )
        with response:
            part = ByteRange.of(response)
            if part is None or part.start != start or not self._version.matches(response):
                raise DownloadError(
                    f"{quoted(self._source.key)}: the file has changed while it was read. Open it "
                    "again."
                )
            count = self._read_body(response, view[: part.stop - start])
        if not count:
            raise BrokenBodyError(
                f"{quoted(self._source.key)}: none of the {len(view)} bytes from byte {start} on "
                "arrived. Try again."
            )
        return count

    def _read_body(self, response: requests.Response, view: memoryview) -> int:
        """Read a body into `view`, as far as it arrives; return the number of bytes."""
        policy = self._session.retry
        rest, read = view, body_reader(response)
        try:
            with enforcing(Deadline(policy.clock() + policy.deadline, clock=policy.clock)):
                while rest and (chunk := read(len(rest))):
                    rest[: len(chunk)] = chunk
                    rest = rest[len(chunk) :]
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as failure:
            if len(rest) == len(view):
                raise BrokenBodyError(
                    f"{quoted(self._source.key)}: the connection broke "
                    f"({redact(str(failure))}). Try again."
                ) from None
        return len(view) - len(rest)
