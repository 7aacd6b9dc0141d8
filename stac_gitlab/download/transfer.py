"""One file: downloaded from its URL or copied, complete and verified, or not at all.

The bytes are hashed while they are written to a partial file beside the target, which is moved
onto the target after all checks have passed. A body that breaks off is resumed where the server can
prove that the rest belongs to the same content, and downloaded from the start otherwise.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import requests

from stac_gitlab.download.checked_file import CheckedFile, OnBytes, TransferResult
from stac_gitlab.download.content_version import (
    ByteRange,
    ContentVersion,
    has_other_date,
    if_changed,
)
from stac_gitlab.download.source import Source
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
    InvalidResponseError,
    LFSPointerError,
)
from stac_gitlab.files.checksums import Checksum, HashingBuffers, UnknownChecksumError
from stac_gitlab.files.partial_file import Leftover, PartialFile
from stac_gitlab.http.body import body_reader, is_encoded
from stac_gitlab.http.deadline import current_deadline
from stac_gitlab.http.head import is_chunked, length_in
from stac_gitlab.http.responses import Document
from stac_gitlab.http.retry import call_with_retries, error_of
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import quoted, redact, redact_document, redacting_logger

logger = redacting_logger(__name__)
_MAX_DOCUMENT = 64 * 1024 * 1024
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
OnFinish = Callable[[TransferResult, PartialFile], None]
"""Called with a complete and verified file, just before it is moved onto its target."""


class NotModified(Exception):  # noqa: N818  # not an error
    """The content on the server is still that of the file."""


def download_file(
    session: GitLabSession,
    source: Source,
    target: Path,
    *,
    verify: bool = True,
    known: str | None = None,
    target_has: Callable[[Checksum], bool] | None = None,
    leftovers: Sequence[Leftover] = (),
    segments: int = 1,
    on_bytes: OnBytes | None = None,
    on_finish: OnFinish | None = None,
    response: requests.Response | None = None,
) -> TransferResult:
    """Download one file to `target`.

    A document that the server generates is saved without secrets. Its bytes are not those of a
    file, so no size and no checksum apply to it.

    Args:
        source: Where the file comes from, and what its metadata say.
        target: The path of the file. Its folder exists; a file that is there is replaced.
        verify: Whether to compute and compare checksums.
        known: The validator of the file at `target`; the same content is not downloaded again.
        target_has: Returns whether the file at `target` has a checksum. If the server states the
            checksum of the file in its headers, the same content is not downloaded again.
        leftovers: Partial files of earlier runs; one of the same content is continued.
        segments: The number of connections to use, if the server supports range requests.
        on_finish: Called before the finished file is moved onto its target.
        response: A response that holds the whole body, if there is one already.

    Raises:
        NotModified: If the content on the server is that of the file at `target`.
        DownloadError: If the body is not what the metadata describe; nothing has changed then.
        HTTPStatusError: If the server responds with an error.
        NetworkError: If there is no connection, after all attempts.
        OSError: If the file cannot be written; nothing has changed then.
    """
    if session.dialect_of(source.url).generates(source.url):
        return _save_document(session, source, target, on_finish)
    with PartialFile(target) as part:
        transfer = _FileTransfer(
            session,
            source,
            target,
            part,
            verify,
            known,
            target_has,
            segments,
            on_bytes or (lambda _received, _size: None),
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
        closing(HashingBuffers(checksum, expected=os.fstat(file.fileno()).st_size)) as hashing,
        PartialFile(target) as part,
    ):
        while count := file.readinto(hashing.buffer):
            current_deadline().time_left()
            part.write(hashing.buffer[:count])
            hashing.feed(count)
        source.check_size(part.size)
        source.check_digest(checksum, hashing.digest())
        multihash = None if checksum is None else str(checksum)
        result = TransferResult(part.size, multihash, verified=True)
        _finish(part, result, on_finish)
    return result


def _save_document(
    session: GitLabSession, source: Source, target: Path, on_finish: OnFinish | None
) -> TransferResult:
    """Download a document that the server generates, and save it without the secrets in it."""

    def parse(document: Document) -> bytes:
        url = redact(document.url)
        try:
            # In an object, because the document may be a bare text.
            content = {"document": json.loads(document.body)}
            redact_document(content, document.body, url=url)
        except (ValueError, RecursionError):
            raise InvalidResponseError(f"GET {url}: the document is not JSON.", url=url) from None
        return json.dumps(content["document"], indent=2).encode()

    content = session.fetch(source.url, parse, max_bytes=_MAX_DOCUMENT)
    with PartialFile(target) as part:
        part.write(content)
        result = TransferResult(part.size, None, verified=True)
        _finish(part, result, on_finish)
    return result


def _finish(part: PartialFile, result: TransferResult, on_finish: OnFinish | None) -> None:
    if on_finish is not None:
        on_finish(result, part)
    part.finish()


@dataclass
class _FileTransfer:
    """Downloads one file into a partial file, in as many attempts as that takes.

    The attributes are those of :func:`download_file`.
    """

    session: GitLabSession
    source: Source
    target: Path
    part: PartialFile
    verify: bool
    known: str | None
    target_has: Callable[[Checksum], bool] | None
    segments: int
    on_bytes: OnBytes
    # After a mismatch, a checksum no longer proves that parts of the body fit together.
    _trusts_checksum: bool = True
    # None until a response is encoded.
    _decode: bool | None = None

    def run(
        self, leftovers: Sequence[Leftover] = (), response: requests.Response | None = None
    ) -> TransferResult:
        """Download and verify the file, and try again where that helps."""
        policy = self.session.retry
        self._response = response
        self._file = CheckedFile(
            self.session, self.part, self.source, self.target.parent, on_bytes=self.on_bytes
        )
        self._most_received = self._fruitless_attempts = 0
        self._stall = StallRule(policy)
        try:
            self._file.continue_leftover(leftovers, verify=self.verify)
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
                self._file.forget_resume_info()
                raise broken.__cause__ from None
            raise IncompleteDownloadError(str(broken)) from broken.__cause__
        except DownloadError:
            self._file.forget_resume_info()
            raise
        except OSError as error:
            if error.errno in _DISK_FULL:
                self._file.forget_resume_info()
            raise
        finally:
            self._file.close()

    def can_start_over_after(self, error: DownloadError) -> bool:
        """Return whether :meth:`run` may succeed, once more and from the start, after an error."""
        if isinstance(error, LFSPointerError):
            url = self.session.dialect_of(self.source.url).lfs_url(self.source.url)
            self.source = replace(self.source, url=url or self.source.url)
            return url is not None
        # Nothing could be decoded, and there is a checksum to tell whether nothing had to be.
        is_mislabelled = (
            self._decode is True and not self._file.size and self.source.checksum is not None
        )
        if is_mislabelled or (self._decode is not None and self._file.is_complete):
            # The metadata may describe the bytes before or after the decoding.
            self._decode = not self._decode
            return True
        # The bytes may have been damaged on their way, or come from more than one version.
        self._trusts_checksum = False
        return self._file.is_complete and isinstance(error, ChecksumMismatchError)

    def _attempt(self) -> TransferResult:
        """Download what is missing, and verify the file."""
        try:
            with self._request() as response:
                is_framed = self._read(response)
            return self._file.verify(is_framed=is_framed)
        except BrokenBodyError:
            # Attempts are renewed whenever new bytes arrive. Bytes that arrive once more are not
            # new, or a body that is always cut at the same place would be requested for ever.
            progress = max(0, self._file.size - self._most_received)
            self._stall.add(progress)
            is_fruitless = not progress or self._stall.is_stalled
            self._fruitless_attempts = self._fruitless_attempts + 1 if is_fruitless else 0
            self._most_received += progress
            raise

    def _request(self) -> requests.Response:
        """Request the rest of the body, or all of it where the rest cannot be had."""
        offset, version = self._file.size, self._file.version
        if not offset or not self._can_resume:
            return self._request_all()
        response = self.session.open(
            self.source.url,
            headers={"Range": self._range_from(offset), **version.range_conditions()},
            statuses=frozenset({412, 416}),
        )
        part = ByteRange.of(response)
        if part is not None and part.start == offset and version.matches(response):
            self._file.version = replace(version, size=version.size or part.size)
            self._file.resumed = True
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
        is_segmented = self.segments > 1
        headers = if_changed(self.known)
        statuses = {304} if headers else set()
        if is_segmented:
            headers["Range"] = self._range_from(0)
            statuses.add(416)
        response = self.session.open(self.source.url, headers=headers, statuses=frozenset(statuses))
        if response.status_code == 304:
            # There is no body, but only reading it releases the connection.
            body_reader(response)(1)
            response.close()
            if not has_other_date(response, self.known):
                raise NotModified
            self.known = None
            return self._request_all()
        part = ByteRange.of(response)
        self._check_modification(response, part)
        if not is_segmented or response.status_code not in (206, 416):
            return self._start(response)
        if part is not None and part.start == 0 and part.size is not None:
            self._file.start(self._version_of(response, part.size))
            if part.stop == part.size or self._can_resume:
                return response
        response.close()
        self.segments = 1
        return self._request_all()

    def _check_modification(self, response: requests.Response, part: ByteRange | None) -> None:
        """Raise NotModified if the headers prove that the file at the target is the same."""
        if self.target_has is None:
            return
        size = length_in(response.headers) if part is None else part.size
        checksum = self._stated_checksum(response, size)
        if checksum is not None and self.target_has(checksum):
            response.close()
            raise NotModified

    def _start(self, response: requests.Response) -> requests.Response:
        """Start from the beginning with a response that holds the whole body."""
        if response.status_code not in (200, 203):
            response.close()
            raise IncompleteDownloadError(
                f"{quoted(self.source.key)}: the server responded with {response.status_code}, "
                "which is not the whole file. The server may still be preparing it; try again "
                "later."
            )
        if not is_encoded(response):
            self._decode = None
        elif self._decode is None:
            self._decode = not self.source.is_stored_encoded(response)
        has_size = not (self._decode or is_chunked(response.headers))
        size = length_in(response.headers) if has_size else None
        self._file.start(self._version_of(response, size))
        return response

    def _version_of(self, response: requests.Response, size: int | None) -> ContentVersion:
        checksum = self.source.checksum or self._stated_checksum(response, size)
        return ContentVersion.of(response, size=size, checksum=checksum if self.verify else None)

    def _stated_checksum(self, response: requests.Response, size: int | None) -> Checksum | None:
        """Return the checksum of the whole file that the headers state."""
        stated = self.session.sha256_of(response.headers, size)
        with suppress(UnknownChecksumError):
            return None if stated is None else Checksum.of_sha256(stated)
        return None

    @property
    def _can_resume(self) -> bool:
        """Whether something can prove that parts of the body belong together."""
        version = self._file.version
        return version.has_strong_validator or (
            self._trusts_checksum and version.checksum is not None
        )

    def _range_from(self, offset: int) -> str:
        end = offset + FIRST_SEGMENT - 1 if self.segments > 1 else ""
        return f"bytes={offset}-{end}"

    def _read(self, response: requests.Response) -> bool:
        """Write a body to the file; return whether the server marked its end."""
        url, decode = self.source.url, self._decode is not False
        self.source.check_body(response, decode=decode)
        self._file.check_size_limits()
        size, part = self._file.version.size, ByteRange.of(response)
        if self.segments > 1 and size is not None and part is not None and part.stop < size:
            segments = SegmentedDownload(
                self.session, url, self._file.version, self.segments, self.on_bytes
            )
            # If a connection fails, one is used for the rest: the server may not support several.
            self.segments = 1
            self._file.write_segments(response, part, segments)
            return True
        body = BodyReader(response, url=url, session=self.session, decode=decode)
        self._file.write(response, body)
        return body.is_framed
