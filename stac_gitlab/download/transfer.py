"""One file: downloaded from its URL or copied, complete and verified, or not at all.

The bytes are hashed while they are written to a partial file beside the target, which is moved
onto the target after all checks have passed. A body that breaks off is resumed where the server can
prove that the rest belongs to the same content, and downloaded from the start otherwise.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import requests

from stac_gitlab.download.ranges import KEEP_FROM, ByteRange, ContentVersion, if_changed
from stac_gitlab.download.report import human_size
from stac_gitlab.download.source import PAGE_START, POINTER_SIZE, Source
from stac_gitlab.download.stream import (
    FIRST_SEGMENT,
    BodyReader,
    BrokenBodyError,
    SegmentedDownload,
    StallRule,
)
from stac_gitlab.errors import (
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    LFSPointerError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files.checksums import Checksum, HashingBuffers, UnknownChecksumError
from stac_gitlab.files.partial_file import Leftover, PartialFile
from stac_gitlab.http.deadline import current_deadline
from stac_gitlab.http.decoding import is_encoded, reader_of
from stac_gitlab.http.retry import call_with_retries, error_of
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.http.transport import is_chunked, length_in
from stac_gitlab.redaction import quoted

logger = logging.getLogger(__name__)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
OnBytes = Callable[[int, int | None], None]
"""Called with the bytes received so far and those of the whole file, if they are known."""


@dataclass(frozen=True)
class TransferResult:
    """What is known about a file that was downloaded or copied.

    Attributes:
        size: Bytes in the file.
        checksum: The multihash of the bytes, where one was compared.
        verified: Whether the length or a checksum proves that the file is complete.
        resumed: Whether the body broke off, in this run or an earlier one, and was resumed.
        validator: The entity tag of the content, or the date of its last change.
    """

    size: int
    checksum: str | None
    verified: bool
    resumed: bool
    validator: str | None = None


OnFinish = Callable[[TransferResult, PartialFile], None]
"""Called with a complete and verified file, just before it is moved onto its target."""


class NotModified(Exception):  # noqa: N818  # not an error
    """The content on the server still has the known validator."""


def download_file(
    session: GitLabSession,
    source: Source,
    target: Path,
    *,
    verify: bool = True,
    known: str | None = None,
    leftovers: Sequence[Leftover] = (),
    segments: int = 1,
    on_bytes: OnBytes | None = None,
    on_finish: OnFinish | None = None,
    response: requests.Response | None = None,
) -> TransferResult:
    """Download one file to `target`.

    Args:
        session: The session to use.
        source: Where the file comes from, and what its metadata say.
        target: The path of the file. Its folder exists; a file that is there is replaced.
        verify: Whether to compute and compare checksums.
        known: The validator of the file at `target`; the same content is not downloaded again.
        leftovers: Partial files of earlier runs; one of the same content is continued.
        segments: The number of connections to use, if the server supports range requests.
        on_bytes: Called as bytes arrive.
        on_finish: Called before the finished file is moved onto its target.
        response: A response that holds the whole body, if there is one already.

    Raises:
        NotModified: If the content on the server still has the validator `known`.
        DownloadError: If the body is not what the metadata describe; nothing has changed then.
        HTTPStatusError: If the server responds with an error.
        NetworkError: If there is no connection, after all attempts.
        OSError: If the file cannot be written; nothing has changed then.
    """
    with PartialFile(target) as part:
        transfer = _FileTransfer(
            session,
            source,
            target,
            part,
            verify=verify,
            known=known,
            segments=segments,
            on_bytes=on_bytes or (lambda _received, _size: None),
        )
        try:
            result = transfer.run(leftovers, response)
        except (LFSPointerError, ChecksumMismatchError, IncompleteDownloadError) as error:
            if not transfer.can_start_over_after(error):
                raise
            result = transfer.run()
        _finish(part, result, on_finish)
    return result


def copy_file(
    source: Source,
    origin: Path,
    target: Path,
    *,
    verify: bool = True,
    on_finish: OnFinish | None = None,
) -> TransferResult:
    """Copy one local file to `target`, and compare it with its metadata.

    Raises:
        DownloadError: If the file is not what the metadata describe; nothing has changed then.
        OSError: If it cannot be read or written.
    """
    checksum = source.checksum if verify else None
    with (
        origin.open("rb", buffering=0) as file,
        HashingBuffers(checksum, expected=os.fstat(file.fileno()).st_size) as hashing,
        PartialFile(target) as part,
    ):
        while count := file.readinto(hashing.buffer):
            current_deadline().time_left()
            part.write(hashing.buffer[:count])
            hashing.feed(count)
        source.check_size(part.size)
        source.check_digest(checksum, hashing.digest())
        result = TransferResult(part.size, _text_of(checksum), verified=True, resumed=False)
        _finish(part, result, on_finish)
    return result


def _finish(part: PartialFile, result: TransferResult, on_finish: OnFinish | None) -> None:
    if on_finish is not None:
        on_finish(result, part)
    part.finish()


def _text_of(checksum: Checksum | None) -> str | None:
    return None if checksum is None else str(checksum)


class _FileTransfer:
    """Downloads one file into a partial file, in as many attempts as that takes."""

    def __init__(
        self,
        session: GitLabSession,
        source: Source,
        target: Path,
        part: PartialFile,
        *,
        verify: bool,
        known: str | None,
        segments: int,
        on_bytes: OnBytes,
    ) -> None:
        self._session = session
        self._source = source
        self._folder = target.parent
        self._part = part
        self._verify = verify
        self._known = known
        self._segments = segments
        self._on_bytes = on_bytes
        # After a mismatch, a checksum no longer proves that parts of the body fit together.
        self._trusts_checksum = True
        self._decode: bool | None = None
        self._has_started_over = False

    def run(
        self, leftovers: Sequence[Leftover] = (), response: requests.Response | None = None
    ) -> TransferResult:
        """Download and verify the file, and try again where that helps.

        Args:
            leftovers: Partial files that may be continued.
            response: The first response, if there is one already.
        """
        policy = self._session.retry
        self._response = response
        self._version = ContentVersion()
        self._hashing = HashingBuffers(None, expected=0)
        self._is_encoded = self._is_complete = self._resumed = False
        self._most_received = self._fruitless_attempts = 0
        self._stall = StallRule(policy)
        self._part.truncate()
        self._continue_leftover(leftovers)
        try:
            return call_with_retries(
                self._attempt,
                BrokenBodyError,
                policy,
                wait=lambda _: policy.backoff(max(1, self._fruitless_attempts)),
                stop=lambda _: self._fruitless_attempts >= policy.max_attempts,
                log=lambda state: logger.info(
                    "Continuing in %.1f s: %s", state.upcoming_sleep, error_of(state)
                ),
            )
        except BrokenBodyError as broken:
            if isinstance(broken.__cause__, DownloadError):
                self._part.save_resume_info(None)
                raise broken.__cause__ from None
            raise IncompleteDownloadError(str(broken)) from broken.__cause__
        except DownloadError:
            # These bytes are wrong: a later run must not continue them.
            self._part.save_resume_info(None)
            raise
        except OSError as error:
            if error.errno in _DISK_FULL:
                # Others need the space more than a later run does.
                self._part.save_resume_info(None)
            raise
        finally:
            self._hashing.close()

    def can_start_over_after(self, error: DownloadError) -> bool:
        """Return whether :meth:`run` may succeed, once more and from the start, after an error."""
        if isinstance(error, LFSPointerError):
            url = self._session.dialect_of(self._source.url).lfs_url(self._source.url)
            self._source = replace(self._source, url=url or self._source.url)
            return url is not None
        if self._is_encoded and self._is_complete:
            # The metadata may describe the bytes before or after the decoding.
            self._decode = not self._decode
            return True
        # The bytes may have been damaged on their way, or come from more than one version.
        self._trusts_checksum = False
        return self._is_complete and isinstance(error, ChecksumMismatchError)

    # -- one attempt --------------------------------------------------------------------------

    def _attempt(self) -> TransferResult:
        """Download what is missing, and verify the file."""
        try:
            with self._request() as response:
                is_framed = self._read(response)
            return self._verified(is_framed=is_framed)
        except BrokenBodyError:
            # Attempts are renewed whenever new bytes arrive. Bytes that arrive once more are not
            # new, or a body that is always cut at the same place would be requested for ever.
            progress = max(0, self._part.size - self._most_received)
            self._stall.add(progress)
            is_fruitless = not progress or self._stall.is_stalled
            self._fruitless_attempts = self._fruitless_attempts + 1 if is_fruitless else 0
            self._most_received += progress
            raise

    def _request(self) -> requests.Response:
        """Request the rest of the body, or all of it where the rest cannot be had."""
        offset = self._part.size
        if not offset or not self._can_resume:
            return self._request_all()
        response = self._session.open(
            self._source.url,
            headers={"Range": self._range_from(offset), **self._version.range_conditions()},
            statuses=frozenset({412, 416}),
        )
        part = ByteRange.of(response)
        if part is not None and part.start == offset and self._version.matches(response):
            self._version = replace(self._version, size=self._version.size or part.size)
            self._resumed = True
            return response
        if response.status_code == 200:
            return self._start(response)
        # The content has changed, or the server does not support range requests.
        response.close()
        return self._request_all()

    def _request_all(self) -> requests.Response:
        """Request the whole body, or the first of several segments."""
        response, self._response = self._response, None
        if response is not None:
            return self._start(response)
        is_segmented = self._segments > 1
        headers = if_changed(self._known)
        statuses = {304} if headers else set()
        if is_segmented:
            headers["Range"] = self._range_from(0)
            statuses.add(416)
        response = self._session.open(
            self._source.url, headers=headers, statuses=frozenset(statuses)
        )
        if response.status_code == 304:
            # There is no body, but only reading it releases the connection.
            reader_of(response)(1)
            response.close()
            raise NotModified
        if not is_segmented or response.status_code not in (206, 416):
            return self._start(response)
        part = ByteRange.of(response)
        if part is not None and part.start == 0 and part.size is not None:
            self._start_version(response, part.size)
            if part.stop == part.size or self._can_resume:
                return response
        response.close()
        self._segments = 1
        return self._request_all()

    def _start(self, response: requests.Response) -> requests.Response:
        """Start from the beginning with a response that holds the whole body."""
        if response.status_code not in (200, 203):
            response.close()
            raise IncompleteDownloadError(
                f"{quoted(self._source.key)}: the server responded with {response.status_code}, "
                "which is not the whole file. The server may still be preparing it; try again "
                "later."
            )
        self._is_encoded = is_encoded(response)
        if not self._is_encoded:
            self._decode = None
        elif self._decode is None:
            self._decode = not self._source.is_stored_encoded(response)
        has_size = not (self._decode or is_chunked(response.headers))
        self._start_version(response, length_in(response.headers) if has_size else None)
        return response

    def _start_version(self, response: requests.Response, size: int | None) -> None:
        self._part.truncate()
        self._resumed = False
        checksum = self._source.checksum or self._checksum_of(response, size)
        self._version = ContentVersion.of(
            response, size=size, checksum=checksum if self._verify else None
        )
        self._start_hashing()
        self._part.save_resume_info(self._version.resume_info(self._source))

    def _checksum_of(self, response: requests.Response, size: int | None) -> Checksum | None:
        with suppress(UnknownChecksumError):
            return Checksum.of_sha256(self._session.sha256_of(response.headers, size) or "")
        return None

    def _continue_leftover(self, leftovers: Sequence[Leftover]) -> None:
        """Take over the longest partial file that provably has the same content."""
        for leftover in sorted(leftovers, key=lambda leftover: -leftover.size):
            version = ContentVersion.from_resume_info(
                leftover.resume_info() or {}, self._source, verify=self._verify
            )
            if version is not None and self._part.take_over(leftover):
                self._version = version
                # At least one byte is requested: the response proves that the rest is right.
                self._part.truncate(max(0, min(leftover.size, (version.size or 0) - 1)))
                self._part.save_resume_info(version.resume_info(self._source))
                self._start_hashing()
                self._hash_from(0)
                return

    @property
    def _can_resume(self) -> bool:
        """Whether something can prove that parts of the body belong together."""
        return self._version.has_strong_validator or (
            self._trusts_checksum and self._version.checksum is not None
        )

    def _range_from(self, offset: int) -> str:
        end = offset + FIRST_SEGMENT - 1 if self._segments > 1 else ""
        return f"bytes={offset}-{end}"

    def _check_free_space(self, size: int) -> None:
        # A small file is not worth the system call.
        if size < KEEP_FROM:
            return
        free = shutil.disk_usage(self._folder).free
        if size > free:
            raise DownloadError(
                f"{quoted(self._source.key)}: the download needs {human_size(size)}, but "
                f"{str(self._folder)!r} has only {human_size(free)} free. Free some space, or "
                "choose another folder."
            )

    # -- the body -----------------------------------------------------------------------------

    def _start_hashing(self) -> None:
        self._hashing.close()
        size = self._version.size
        expected = self._source.size if size is None else size
        self._hashing = HashingBuffers(self._version.checksum, expected=expected)

    def _hash_from(self, start: int) -> None:
        """Hash the partial file from byte `start` on, if there is a checksum to compare."""
        if self._version.checksum is not None:
            for count in self._part.read_into(lambda: self._hashing.buffer, start):
                current_deadline().time_left()
                self._hashing.feed(count)

    def _read(self, response: requests.Response) -> bool:
        """Write a body to the partial file; return whether the server marked its end."""
        self._source.check_body(response, decode=self._decode is not False)
        size, part = self._version.size, ByteRange.of(response)
        self._source.check_limit(size or 0, self._session.limits.file_bytes)
        self._check_free_space((size or 0) - self._part.size)
        if self._segments > 1 and size is not None and part is not None and part.stop < size:
            self._read_segments(response, part, size)
            return True
        body = BodyReader(
            response,
            url=self._source.url,
            session=self._session,
            decode=self._decode is not False,
        )
        self._write(body, response)
        if size is not None and self._part.size < size:
            raise BrokenBodyError(
                f"{quoted(self._source.key)}: the connection ended after {self._part.size} of "
                f"{size} bytes. Try again."
            )
        return body.is_framed

    def _write(self, body: BodyReader, response: requests.Response) -> None:
        size, allowed = self._version.size, self._session.limits.file_bytes
        expected = self._source.size if size is None else size
        hashing = self._hashing
        for count in body.read_into(lambda: hashing.buffer):
            before = self._part.size
            self._source.check_limit(before + count, allowed)
            self._part.write(hashing.buffer[:count])
            if not before:
                self._check_start(response, hashing.buffer[: min(count, PAGE_START)].tobytes)
            elif before < POINTER_SIZE:
                self._check_start(response, self._read_start)
            if expected is not None and self._part.size > expected:
                self._is_complete = True
                raise IncompleteDownloadError(
                    f"{quoted(self._source.key)}: the body has more than the {expected} bytes that "
                    "were announced."
                )
            hashing.feed(count)
            self._on_bytes(self._part.size, size)

    def _read_segments(self, response: requests.Response, part: ByteRange, size: int) -> None:
        """Write the rest of the body to the partial file, over several connections."""
        self._source.check_announced(size)
        # If the process is killed, the partial file has gaps, and must not be continued.
        self._part.save_resume_info(None)
        segments = SegmentedDownload(
            self._session,
            self._source.url,
            path=self._part.open_path(),
            version=self._version,
            on_bytes=self._on_bytes,
        )
        try:
            segments.run(response, part, self._segments)
        finally:
            self._part.truncate(segments.size_without_gaps())
            self._part.save_resume_info(self._version.resume_info(self._source))
        self._hash_from(part.start)
        self._check_start(response, self._read_start)
        if self._part.size < size:
            # The rest over one connection: the server may not support several.
            self._segments = 1
            raise BrokenBodyError(
                f"{quoted(self._source.key)}: {self._part.size} of {size} bytes arrived over "
                "several connections before one of them failed. Try again."
            )

    # -- the checks ---------------------------------------------------------------------------

    def _read_start(self) -> bytes:
        return self._part.read_start(PAGE_START)

    def _check_start(self, response: requests.Response, read_start: Callable[[], bytes]) -> None:
        """Stop as early as possible if the body is not the file; its first packet may be short."""
        # The start is no local variable: it may contain the token, and a traceback may show it.
        error = self._source.error_for_page(response, read_start())
        if error is not None:
            raise error
        # A small body may be a pointer, which is known only when it is complete.
        if self._part.size >= POINTER_SIZE:
            self._source.check_announced(self._version.size)

    def _verified(self, *, is_framed: bool) -> TransferResult:
        """Check the file, which has come to its end, and return what is known about it."""
        source, version, size = self._source, self._version, self._part.size
        if size < POINTER_SIZE:
            source.check_no_pointer(self._part.read_start(POINTER_SIZE))
        self._is_complete = is_framed or size == source.size
        try:
            source.check_size(size)
            source.check_digest(version.checksum, self._hashing.digest())
        except (IncompleteDownloadError, ChecksumMismatchError) as error:
            if self._is_complete:
                raise
            # Nothing marks the end of such a body: it may have broken off.
            raise BrokenBodyError(str(error)) from error
        verified = self._is_complete or version.checksum is not None
        if not verified:
            warnings.warn(
                f"{quoted(source.key)}: the server did not state the length of the file, and the "
                "metadata have neither file:size nor file:checksum. The file may be incomplete.",
                UnverifiedDownloadWarning,
                stacklevel=2,
            )
        return TransferResult(
            size,
            _text_of(version.checksum),
            verified=verified,
            resumed=self._resumed,
            validator=version.validator,
        )
