"""The bytes of a remote file by position: read in ranges, or downloaded first without them.

All ranges have to be of the version that was opened: another ETag, date or size is an error,
because a mixture of two versions is neither.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import tempfile
import threading
import warnings
import weakref
from pathlib import Path
from typing import BinaryIO

import requests
import urllib3

from stac_gitlab.download.content_version import ByteRange, ContentVersion
from stac_gitlab.download.source import Source
from stac_gitlab.download.stream import BrokenBodyError, StallRule
from stac_gitlab.download.substitutes import (
    FORMAT_START,
    PAGE_START,
    POINTER_SIZE,
    error_for_substitute,
    media_type_of,
    other_format,
)
from stac_gitlab.download.transfer import download_file
from stac_gitlab.errors import (
    DownloadError,
    IncompleteDownloadError,
    STACGitLabError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.http.body import body_reader
from stac_gitlab.http.deadline import Deadline, enforcing
from stac_gitlab.http.retry import call_with_retries
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import quoted, redact

# Bytes of one range request: random access wastes at most this much, and a reader that asks for
# small pieces needs one request for each block.
BLOCK_SIZE = 1024 * 1024
# The blocks of a file that is read from one end to the other grow up to this many times that.
_MAX_GROWTH = 8
# A read of this part of a block, or more, is requested alone.
_LARGE_PART = 4
# Bytes that are requested after such a read: buffers round what they ask for up or down.
_TAIL = 8192


def open_content(session: GitLabSession, source: Source) -> RangedContent | LocalContent:
    """Return the content of a remote file.

    Raises:
        DownloadError: If the file is not what the metadata describe; or if the server does not
            support ranges, and the temporary file cannot be written.
        HTTPStatusError: If the server responds with an error.
        NetworkError: If there is no connection.
    """
    if session.dialect_of(source.url).generates(source.url):
        return _downloaded(session, source)
    response = session.open(
        source.url, headers={"Range": f"bytes=0-{BLOCK_SIZE - 1}"}, statuses=frozenset({416})
    )
    if response.status_code == 200:
        # The whole file is on its way already. It is read to its end at once: a server does not
        # wait for a slow reader.
        return _downloaded(session, source, response)
    with response:
        part = ByteRange.of(response)
        if part is None or part.start or part.stop > BLOCK_SIZE or part.size is None:
            return _downloaded(session, source)
        content = RangedContent(session, source, response, part)
    if not content.may_be_the_file(response):
        # A download finds out, and raises the error that says why.
        return _downloaded(session, source)
    content.warn_of_other_format(response)
    return content


def _downloaded(
    session: GitLabSession, source: Source, response: requests.Response | None = None
) -> LocalContent:
    try:
        with tempfile.TemporaryDirectory(prefix="stac-gitlab-") as scratch:
            path = Path(scratch) / "asset"
            download_file(session, source, path, response=response)
            if os.name != "nt":
                # The name is removed with the folder; the open file remains.
                return LocalContent(path.open("rb"))
            return LocalContent(io.BytesIO(path.read_bytes()))
    except OSError as error:
        if isinstance(error, STACGitLabError):
            raise
        # Without any usable folder, gettempdir() would raise the same error again.
        folder = "" if tempfile.tempdir is None else f" {os.fsdecode(tempfile.tempdir)!r}"
        raise DownloadError(
            f"{quoted(source.key)}: the temporary folder{folder} cannot be written: "
            f"{error.strerror or error}. Free some space there, or name another one in TMPDIR."
        ) from error


class LocalContent:
    """The content of a file that was downloaded. Threads may share it.

    Args:
        file: The downloaded file, which is closed with this object.

    Attributes:
        size: Its size in bytes.
        is_outdated: False.
    """

    is_outdated = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._lock = threading.Lock()
        # A finalizer of the file itself would warn that nobody has closed it.
        self._closing = weakref.finalize(self, file.close)

    def detach(self) -> BinaryIO:
        """Return the file, which is closed by the caller then."""
        self._closing.detach()
        return self._file

    def read_into(self, start: int, view: memoryview) -> int:
        """Fill `view` from the position `start` on; return the number of bytes, 0 at the end."""
        if hasattr(os, "preadv") and not isinstance(self._file, io.BytesIO):
            return os.preadv(self._file.fileno(), [view], start)
        with self._lock:
            self._file.seek(start)
            content = self._file.read(len(view))
        view[: len(content)] = content
        return len(content)


class RangedContent:
    """The content of a file whose server supports ranges. Threads may share it.

    Attributes:
        size: The size of the file in bytes.
        version: The version that was opened.
        is_outdated: Whether the server was seen to have another version since.
    """

    is_outdated = False

    def __init__(
        self, session: GitLabSession, source: Source, response: requests.Response, part: ByteRange
    ) -> None:
        self._session = session
        self._source = source
        self.size = part.size or part.stop
        self.version = ContentVersion.of(response, size=self.size)
        # The first block is kept for readers that return to the header of a file.
        self._first_block = b""
        with contextlib.suppress(BrokenBodyError):
            block = bytearray(part.stop)
            count = self._read_body(response, memoryview(block))
            self._first_block = bytes(block[:count])

    def may_be_the_file(self, response: requests.Response) -> bool:
        """Return whether this may be the file that the metadata describe."""
        expected, checksum = self._source.size, self._source.checksum
        if self.size < POINTER_SIZE or expected not in (None, self.size):
            return False
        start = self._first_block[:PAGE_START]
        if error_for_substitute(self._session, self._source, response, start) is not None:
            return False
        if checksum is None or len(self._first_block) < self.size:
            return True
        hasher = checksum.hasher()
        hasher.update(self._first_block)
        return checksum.digest_of(hasher) == checksum.digest

    def warn_of_other_format(self, response: requests.Response) -> None:
        """Warn if the file has another format than the metadata state."""
        start = self._first_block[:FORMAT_START]
        if start and (problem := other_format(self._source, start, media_type_of(response))):
            warnings.warn(problem, UnverifiedDownloadWarning, stacklevel=2)

    @property
    def held(self) -> int:
        """The number of bytes at the start that are known without another request."""
        return len(self._first_block)

    def stall_rule(self) -> StallRule:
        """Return the rule for how slowly the bytes of several requests may arrive."""
        return StallRule(self._session.retry)

    def stalled(self, rule: StallRule) -> IncompleteDownloadError:
        """Return the error for bytes that arrive too slowly."""
        return IncompleteDownloadError(f"{quoted(self._source.key)}: {rule}")

    def read_into(self, start: int, view: memoryview) -> int:
        """Fill `view` from the position `start` on, as far as one response goes.

        Returns:
            The number of bytes, 0 at the end.

        Raises:
            DownloadError: If the file has changed, or its bytes do not arrive.
            HTTPStatusError: If the server responds with an error.
            NetworkError: If there is no connection.
        """
        view = view[: max(0, self.size - start)]
        held = self._first_block[start : start + len(view)]
        if held or not view:
            view[: len(held)] = held
            return len(held)
        policy = self._session.retry
        return call_with_retries(
            lambda: self._fetch_once(start, view),
            BrokenBodyError,
            policy,
            wait=lambda state: policy.backoff(state.attempt_number),
            stop=lambda state: state.attempt_number >= policy.max_attempts,
        )

    def _fetch_once(self, start: int, view: memoryview) -> int:
        response = self._session.open(
            self._source.url,
            headers={
                "Range": f"bytes={start}-{start + len(view) - 1}",
                **self.version.range_conditions(),
            },
            statuses=frozenset({412, 416}),
        )
        with response:
            part = ByteRange.of(response)
            if part is None or part.start != start or not self.version.matches(response):
                self.is_outdated = True
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


def read_range(content: RangedContent | LocalContent, start: int, stop: int) -> bytes:
    """Return the bytes from `start` to `stop`, or to the end of the file if that comes before.

    Raises:
        STACGitLabError: As for :meth:`RangedContent.read_into`.
    """
    stop = min(stop, content.size)
    result = bytearray(max(0, stop - start))
    view = memoryview(result)
    if isinstance(content, LocalContent):
        while view and (count := content.read_into(stop - len(view), view)):
            view = view[count:]
        return bytes(result)
    rule = content.stall_rule()
    while view:
        count = content.read_into(stop - len(view), view)
        view = view[count:]
        rule.add(count)
        if view and rule.is_stalled:
            raise content.stalled(rule)
    return bytes(result)


class BlockReader:
    """Reads content in blocks, which grow while it is read from one end to the other."""

    def __init__(self, content: RangedContent) -> None:
        self._content = content
        self._block, self._start = b"", 0
        # The position after what was requested last, and how much to request from there on.
        self._stop, self._ahead = content.held, BLOCK_SIZE
        self._stall = content.stall_rule()
        self._last_fetch = self._stall.now

    def read_into(self, start: int, view: memoryview) -> int:
        """Fill a part of `view` from the position `start` on; return its size, 0 at the end."""
        content = self._content
        if not view or start >= content.size:
            return 0
        if start < content.held:
            return content.read_into(start, view[: content.held - start])
        if not self._start <= start < self._start + len(self._block):
            count = self._size_of_block(start, len(view))
            if count <= len(view):
                return self._fetch_into(start, view[:count])
            block = bytearray(count)
            count = self._fetch_into(start, memoryview(block))
            self._block, self._start = bytes(block[:count]), start
        offset = start - self._start
        piece = self._block[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def _fetch_into(self, start: int, view: memoryview) -> int:
        stall = self._stall
        stall.skip(stall.now - self._last_fetch)
        try:
            count = self._content.read_into(start, view)
        finally:
            self._last_fetch = stall.now
        self._stop = start + count
        stall.add(count)
        if count == len(view):
            stall.restart()
        elif stall.is_stalled:
            raise self._content.stalled(stall)
        return count

    def _size_of_block(self, start: int, wanted: int) -> int:
        """Return the number of bytes to request from `start` on."""
        is_next, is_large = start == self._stop, wanted >= BLOCK_SIZE // _LARGE_PART
        self._ahead = min(2 * self._ahead, _MAX_GROWTH * BLOCK_SIZE) if is_next else BLOCK_SIZE
        if is_next or not is_large:
            count = max(wanted, self._ahead)
        else:
            count = wanted if wanted >= _MAX_GROWTH * BLOCK_SIZE else wanted + _TAIL
        return min(count, self._content.size - start)
