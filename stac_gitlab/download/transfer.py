"""One file: brought from a URL to its place, whole and right, or not at all.

The bytes are hashed on their way into a file beside the target, which is moved onto the target only
after every check has passed. A body that breaks off is asked for from where it broke off, if the
server can prove that it is still the same content, and from the start otherwise.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import requests

from stac_gitlab.download.ranges import Content, Version, span_of, total_of
from stac_gitlab.download.source import PAGE_START, POINTER_SIZE, Source
from stac_gitlab.download.stream import (
    FIRST_STRETCH,
    BodyReader,
    BrokenBodyError,
    SegmentedDownload,
)
from stac_gitlab.errors import (
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    LFSPointerError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files.checksums import HashingBuffers
from stac_gitlab.files.partial_file import Leftover, PartialFile
from stac_gitlab.http.deadline import current_deadline
from stac_gitlab.http.decoding import is_encoded, reader_of
from stac_gitlab.http.retry import call_with_retries, error_of
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.http.transport import is_chunked, length_in
from stac_gitlab.redaction import quoted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Received:
    """What came.

    Attributes:
        size: Bytes in the file.
        checksum: The multihash of the bytes, where one was computed.
        verified: Whether the length or a checksum proves that the file is whole.
        resumed: Whether the body broke off, in this run or an earlier one, and was continued.
        validator: What the server calls this content: its ETag, or the date of its last change.
    """

    size: int
    checksum: str | None
    verified: bool
    resumed: bool
    validator: str | None = None


class NotModified(Exception):  # noqa: N818  # no error: good news
    """The server says that the content is the one that is known already."""


Finishing = Callable[[Received, PartialFile], None]
"""Called with a complete and checked part, just before it is moved into place."""


def receive(
    session: GitLabSession,
    source: Source,
    target: Path,
    *,
    verify: bool = True,
    known: str | None = None,
    leftovers: Sequence[Leftover] = (),
    segments: int = 1,
    on_bytes: Callable[[int, int | None], None] | None = None,
    on_finish: Finishing | None = None,
    response: requests.Response | None = None,
) -> Received:
    """Bring one file from its URL to `target`.

    Args:
        session: What to ask with.
        source: Where the file comes from.
        target: Where it goes. Its folder exists; what stands there is replaced.
        verify: Whether to compute and compare checksums.
        known: The validator of what stands at `target`; the same content is not sent again.
        leftovers: What earlier runs left of this file; it is continued if it is the same content.
        segments: How many connections to use, where the server can serve parts of the file.
        on_bytes: Called with the bytes that are there and those announced, as they come.
        on_finish: Called before the finished file is moved into place.
        response: A response that holds the whole body, where it was asked for already.

    Raises:
        NotModified: If the server still has the content named by `known`.
        DownloadError: If what came is not what was promised; nothing has changed then.
        HTTPStatusError: If the server refuses.
        NetworkError: If no connection comes about, after all attempts.
        OSError: If the file cannot be written; nothing has changed then.
    """
    with PartialFile(target) as part:
        reception = partial(
            _FileTransfer,
            session,
            part,
            verify=verify,
            known=known,
            segments=segments,
            on_bytes=on_bytes,
        )
        first = reception(source)
        try:
            received = first.run(leftovers, response)
        except LFSPointerError:
            url = session.dialect_of(source.url).lfs_url(source.url)
            if url is None:
                raise
            received = reception(replace(source, url=url)).run()
        except ChecksumMismatchError:
            if not first.is_continued:
                raise
            # What an earlier run left may have been damaged since, or what broke off may have been
            # something else: once more, from the start, and without trust in what has no name.
            received = reception(source, trusts_checksum=False).run()
        if on_finish is not None:
            on_finish(received, part)
        part.finish()
    return received


def copy_file(
    source: Source,
    origin: Path,
    target: Path,
    *,
    verify: bool = True,
    on_finish: Finishing | None = None,
) -> Received:
    """Copy one local file to `target`, with the checks that the metadata ask for.

    Raises:
        DownloadError: If the file is not what was promised; nothing has changed then.
        OSError: If it cannot be read or written.
    """
    checksum = source.checksum if verify else None
    with PartialFile(target) as part, origin.open("rb", buffering=0) as file:
        hashing = HashingBuffers(checksum)
        while count := file.readinto(hashing.buffer):
            current_deadline().time_left()
            part.write(hashing.buffer[:count])
            hashing.feed(count)
        source.check_size(part.size)
        source.check_digest(checksum, hashing.digest())
        known = None if checksum is None else str(checksum)
        received = Received(part.size, known, verified=True, resumed=False)
        if on_finish is not None:
            on_finish(received, part)
        part.finish()
    return received


# -- one reception ------------------------------------------------------------------------------


class _FileTransfer:
    """The attempts to get one body whole into a part."""

    def __init__(
        self,
        session: GitLabSession,
        part: PartialFile,
        source: Source,
        *,
        verify: bool,
        known: str | None,
        segments: int,
        on_bytes: Callable[[int, int | None], None] | None,
        trusts_checksum: bool = True,
    ) -> None:
        self._trusts_checksum = trusts_checksum
        self._session = session
        self._source = source
        self._part = part
        self._verify = verify
        self._known = known
        self._segments = segments
        self._on_bytes = on_bytes or (lambda _received, _total: None)
        self._content = Content()
        self._hashing: HashingBuffers | None = None
        self._furthest = 0
        self._fruitless_attempts = 0
        self._since = session.retry.clock()
        self._measured = 0
        self._resumed = False
        self._in_segments = False
        self._response: requests.Response | None = None

    @property
    def is_continued(self) -> bool:
        """Whether the body is stitched together from answers that may not belong together."""
        return self._resumed or (self._in_segments and self._content.version.validator is None)

    def run(
        self, leftovers: Sequence[Leftover] = (), response: requests.Response | None = None
    ) -> Received:
        """Get the body, try again where that helps, and check what came.

        Args:
            leftovers: What may be continued.
            response: The first answer, where it is there already.
        """
        policy = self._session.retry
        self._part.truncate()
        self._response = response
        self._continue_one_of(leftovers)
        try:
            framed = call_with_retries(
                self._attempt,
                BrokenBodyError,
                policy,
                wait=lambda _: policy.backoff(max(1, self._fruitless_attempts)),
                stop=lambda _: self._fruitless_attempts >= policy.max_attempts,
                log=lambda state: logger.info(
                    "Continuing in %.1f s: %s", state.upcoming_sleep, error_of(state)
                ),
            )
            digest = None if self._hashing is None else self._hashing.digest()
            return self._checked(digest, framed=framed)
        except BrokenBodyError as broken:
            raise IncompleteDownloadError(str(broken)) from broken.__cause__
        except DownloadError:
            # These bytes are wrong: a later run has nothing to continue.
            self._part.save_resume_info(None)
            raise
        finally:
            if self._hashing is not None:
                self._hashing.close()

    def _attempt(self) -> bool:
        """Ask for what is missing; tell whether the body's end was marked by the server."""
        offset = self._part.size
        try:
            response = self._ask(offset)
            with response:
                return self._take(response)
        except BrokenBodyError:
            # Attempts renew whenever bytes came that never came before. What a restart brings once
            # more is no progress, or a body cut at the same place would be asked for for ever.
            is_progress = self._part.size > self._furthest and self._is_fast_enough()
            self._fruitless_attempts = 0 if is_progress else self._fruitless_attempts + 1
            self._furthest = max(self._furthest, self._part.size)
            raise

    def _is_fast_enough(self) -> bool:
        """Apply the stall rule across attempts: a few bytes in each are no end in sight."""
        policy, now = self._session.retry, self._session.retry.clock()
        took = now - self._since
        if took < policy.stall_window:
            return True
        if self._part.size - self._measured < policy.min_rate * took:
            return False
        self._since, self._measured = now, self._part.size
        return True

    def _continue_one_of(self, leftovers: Sequence[Leftover]) -> None:
        """Take over the longest of what earlier runs left, if it can be proven to fit."""
        for leftover in sorted(leftovers, key=lambda leftover: -leftover.size):
            notes = leftover.resume_info() or {}
            content = Content.noted(notes, self._source, verify=self._verify)
            if content is not None and self._part.take_over(leftover):
                self._take_up(content)
                self._part.save_resume_info(notes)
                return

    def _take_up(self, content: Content) -> None:
        """Bring everything into the state in which an earlier run left it."""
        self._content = content
        # The last byte is asked for in any case: the answer proves that the rest is right.
        self._part.truncate(max(0, min(self._part.size, (content.total or 0) - 1)))
        self._hashing = self._new_hashing()
        self._hash_what_is_there(0)

    def _ask(self, offset: int) -> requests.Response:
        """Ask for the body from `offset` on, or from the start where that cannot be trusted."""
        if offset == 0 or not self._has_proof():
            return self._ask_for_all()
        headers = {"Range": self._range_from(offset), **self._content.version.if_unchanged()}
        response = self._session.open(self._source.url, headers=headers, statuses=frozenset({416}))
        if self._continues(response, offset):
            self._resumed = True
            return response
        if response.status_code == 200:
            self._begin(response)
            return response
        response.close()
        # 416, or another part than the one asked for: this server cannot continue.
        return self._ask_for_all()

    def _has_proof(self) -> bool:
        """Tell whether something can prove that the parts of the body belong together."""
        content = self._content
        return content.version.validator is not None or (
            self._trusts_checksum and content.checksum is not None
        )

    def _continues(self, response: requests.Response, offset: int) -> bool:
        """Tell whether a part is what follows on the first `offset` bytes of the same content."""
        span, total = span_of(response), total_of(response)
        content = self._content
        if span is None or span.start != offset or not content.version.is_that_of(response):
            return False
        if content.total is None:
            self._content = replace(content, total=total)
        return total in (None, self._content.total)

    def _range_from(self, offset: int) -> str:
        end = offset + FIRST_STRETCH - 1 if self._segments > 1 else ""
        return f"bytes={offset}-{end}"

    def _ask_for_all(self) -> requests.Response:
        response, self._response = self._response, None
        if response is not None:
            self._begin(response)
            return response
        headers = Version(self._known).if_changed()
        if self._segments > 1:
            headers["Range"] = self._range_from(0)
        response = self._session.open(
            self._source.url,
            headers=headers,
            statuses=frozenset({304, 416} if self._segments > 1 else {304}),
        )
        if response.status_code == 304:
            # There is no body, but only reading it gives the connection back.
            reader_of(response)(1)
            response.close()
            raise NotModified
        if self._segments > 1 and response.status_code in (206, 416):
            return self._begin_with_part(response)
        self._begin(response)
        return response

    def _begin_with_part(self, response: requests.Response) -> requests.Response:
        """Start anew with the first part of the body, or with all of it where that will not do."""
        span, total = span_of(response), total_of(response)
        if span is not None and span.start == 0 and total is not None:
            self._set_up(response, total)
            if span.stop == total or self._has_proof():
                return response
        response.close()
        self._segments = 1
        return self._ask_for_all()

    def _begin(self, response: requests.Response) -> None:
        """Start anew with a response that holds the whole body."""
        if response.status_code not in (200, 203):
            response.close()
            raise IncompleteDownloadError(
                f"{quoted(self._source.key)}: the server answers {response.status_code}, which is "
                "not the whole file. It may be in the making; try again later."
            )
        has_no_total = is_encoded(response) or is_chunked(response.headers)
        self._set_up(response, None if has_no_total else length_in(response.headers))

    def _set_up(self, response: requests.Response, total: int | None) -> None:
        self._part.truncate()
        self._resumed = False
        self._content = Content.of(
            response,
            total,
            self._source,
            sha256=self._session.sha256_of(response.headers, total),
            verify=self._verify,
        )
        self._hashing = self._new_hashing()
        self._part.save_resume_info(self._content.notes(self._source))

    def _new_hashing(self) -> HashingBuffers:
        if self._hashing is not None:
            self._hashing.close()
        total = self._content.total
        expected = total if total is not None else self._source.size
        return HashingBuffers(self._content.checksum, expected=expected)

    def _hash_what_is_there(self, start: int) -> None:
        """Hash what the part holds from byte `start` on, where a checksum wants it."""
        hashing = self._hashing
        if hashing is not None and self._content.checksum is not None:
            for count in self._part.read_into(lambda: hashing.buffer, start):
                current_deadline().time_left()
                hashing.feed(count)

    def _take(self, response: requests.Response) -> bool:
        """Write a body to the part; tell whether its end was marked by the server."""
        self._source.check_body(response)
        hashing = self._hashing
        if hashing is None:
            raise AssertionError("a body is taken only after its beginning")
        total = self._content.total
        self._source.check_limit(total or 0, self._session.limits.file_bytes)
        span = span_of(response)
        if self._segments > 1 and total is not None and span is not None and span.stop < total:
            self._take_in_segments(response, span, total)
            return True
        body = BodyReader(response, url=self._source.url, session=self._session)
        self._write(body, response, hashing)
        if total is not None and self._part.size < total:
            raise BrokenBodyError(
                f"{quoted(self._source.key)}: the connection ended after {self._part.size} of "
                f"{total} bytes. Try again."
            )
        return body.is_framed

    def _write(
        self, body: BodyReader, response: requests.Response, hashing: HashingBuffers
    ) -> None:
        total, allowed = self._content.total, self._session.limits.file_bytes
        most = self._source.size if total is None else total
        for count in body.into(lambda: hashing.buffer):
            before = self._part.size
            self._source.check_limit(before + count, allowed)
            self._part.write(hashing.buffer[:count])
            if not before:
                first = hashing.buffer[: min(count, PAGE_START)]
                self._check_beginning(response, first.tobytes)
            elif before < POINTER_SIZE:
                self._check_beginning(response, self._beginning)
            if most is not None and self._part.size > most:
                raise IncompleteDownloadError(
                    f"{quoted(self._source.key)}: more than the {most} bytes came that were "
                    "announced."
                )
            hashing.feed(count)
            self._on_bytes(self._part.size, total)

    def _take_in_segments(self, response: requests.Response, span: range, total: int) -> None:
        """Write the rest of the body to the part, over several connections."""
        self._source.check_announced(total)
        self._in_segments = True
        # A kill would leave a part with gaps, which nobody must continue.
        self._part.save_resume_info(None)
        segments = SegmentedDownload(
            self._session,
            self._source.url,
            path=self._part.open_path(),
            total=total,
            version=self._content.version,
            on_bytes=self._on_bytes,
        )
        try:
            segments.run(response, span, self._segments)
        finally:
            self._part.truncate(segments.without_gap())
            self._part.save_resume_info(self._content.notes(self._source))
        self._hash_what_is_there(span.start)
        self._check_beginning(response, self._beginning)
        if self._part.size < total:
            # One connection for the rest: what went wrong may have been the others.
            self._segments = 1
            raise BrokenBodyError(
                f"{quoted(self._source.key)}: of {total} bytes, {self._part.size} came over "
                "several "
                "connections before one of them failed. Try again."
            )

    def _beginning(self) -> bytes:
        return self._part.read_start(PAGE_START)

    def _check_beginning(self, response: requests.Response, beginning: Callable[[], bytes]) -> None:
        """Refuse as early as possible what is not the file; the first packet may hold a byte."""
        error = self._source.error_for_page(response, beginning())
        if error is not None:
            raise error
        # What is small may be a pointer, which is known only when all of it is there.
        if self._part.size >= POINTER_SIZE:
            self._source.check_announced(self._content.total)

    def _checked(self, digest: bytes | None, *, framed: bool) -> Received:
        source, content, size = self._source, self._content, self._part.size
        if size < POINTER_SIZE:
            source.check_no_pointer(self._part.read_start(POINTER_SIZE))
        source.check_size(size)
        source.check_digest(content.checksum, digest)
        verified = framed or source.size is not None or content.checksum is not None
        if not verified:
            warnings.warn(
                f"{quoted(source.key)}: the server did not say how long the file is, and the "
                "metadata hold neither size nor checksum: nobody can tell whether it is whole.",
                UnverifiedDownloadWarning,
                stacklevel=2,
            )
        return Received(
            size,
            None if content.checksum is None else str(content.checksum),
            verified=verified,
            resumed=self._resumed,
            validator=content.validator,
        )
