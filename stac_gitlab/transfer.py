"""One file: brought from a URL to its place, whole and right, or not at all.

The bytes are hashed on their way into a file beside the target, which is moved onto the target only
after every check has passed. A body that breaks off is asked for from where it broke off, if the
server can prove that it is still the same content, and from the start otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import requests
import tenacity

from stac_gitlab.adapter import current_watch
from stac_gitlab.attempts import with_first_try
from stac_gitlab.auth import scrub
from stac_gitlab.body import Body, BrokenBodyError, content_length
from stac_gitlab.errors import (
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    LFSPointerError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.hashing import Hashing
from stac_gitlab.multihash import Checksum, UnknownChecksumError
from stac_gitlab.names import shown
from stac_gitlab.part import Leftover, Part, part_beside
from stac_gitlab.ranges import Version, is_encoded, span_of, total_of
from stac_gitlab.records import digest_of
from stac_gitlab.segments import FIRST_STRETCH, Segments
from stac_gitlab.session import GitLabSession
from stac_gitlab.source import PAGE_START, POINTER_SIZE, Source

__all__ = ["Finishing", "NotModified", "Received", "copy_file", "receive"]

logger = logging.getLogger(__name__)

# What is left of a smaller file is not worth keeping for a later run.
KEEP_FROM = 1024 * 1024


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


Finishing = Callable[[Received, Part], None]
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
    with part_beside(target) as part:
        reception = partial(
            _Reception,
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
    with part_beside(target) as part, origin.open("rb", buffering=0) as file:
        hashing = Hashing(checksum)
        while count := file.readinto(hashing.buffer):
            current_watch().time_left()
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


class _Reception:
    """The attempts to get one body whole into a part."""

    def __init__(
        self,
        session: GitLabSession,
        part: Part,
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
        self._url = source.url
        self._hashing: Hashing | None = None
        self._checksum: Checksum | None = None
        self._called: str | None = None
        self._validator: str | None = None
        self._furthest = 0
        self._in_vain = 0
        self._since = session.retry.clock()
        self._measured = 0
        self._resumed = False
        self._in_segments = False
        self._total: int | None = None
        self._response: requests.Response | None = None

    @property
    def is_continued(self) -> bool:
        """Whether the body is stitched together from answers that may not belong together."""
        return self._resumed or (self._in_segments and self._validator is None)

    def run(
        self, leftovers: Sequence[Leftover] = (), response: requests.Response | None = None
    ) -> Received:
        """Get the body, try again where that helps, and check what came.

        Args:
            leftovers: What may be continued.
            response: The first answer, where it is there already.
        """
        policy = self._session.retry
        self._part.restart()
        self._response = response
        self._continue_one_of(leftovers)
        try:
            framed = with_first_try(
                self._attempt,
                BrokenBodyError,
                lambda: tenacity.Retrying(
                    retry=tenacity.retry_if_exception_type(BrokenBodyError),
                    stop=lambda _: self._in_vain >= policy.max_attempts,
                    wait=lambda _: policy.backoff(max(1, self._in_vain)),
                    sleep=lambda seconds: current_watch().sleep(seconds, policy.sleep),
                    before_sleep=self._log,
                    reraise=True,
                ),
            )
            digest = None if self._hashing is None else self._hashing.digest()
            return self._checked(digest, framed=framed)
        except BrokenBodyError as broken:
            raise IncompleteDownloadError(str(broken)) from broken.__cause__
        except DownloadError:
            # These bytes are wrong: a later run has nothing to continue.
            self._part.describe(None)
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
            self._in_vain = 0 if is_progress else self._in_vain + 1
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
            notes = leftover.description() or {}
            if self._fits(notes) and self._part.take_over(leftover):
                self._take_up(notes)
                return

    def _fits(self, notes: Mapping[str, Any]) -> bool:
        """Tell whether a validator or a checksum can prove that a leftover is of this content."""
        promised, validator = self._source.checksum, notes.get("validator")
        return (
            notes.get("source") == digest_of(self._url)
            and isinstance(notes.get("total"), int)
            and (
                (isinstance(validator, str) and validator.isascii() and validator.isprintable())
                or (
                    self._verify and promised is not None and notes.get("checksum") == str(promised)
                )
            )
        )

    def _take_up(self, notes: Mapping[str, Any]) -> None:
        """Bring everything into the state in which an earlier run left it."""
        self._called = self._validator = notes.get("validator")
        self._total = notes["total"]
        # What is promised now counts: the notes may be of a time when nothing was, or anyone's.
        checksum = self._source.checksum or _checksum_from(notes.get("checksum"))
        self._checksum = checksum if self._verify else None
        # The last byte is asked for in any case: the answer proves that the rest is right.
        self._part.cut(max(0, min(self._part.size, notes["total"] - 1)))
        hashing = self._hashing = self._new_hashing()
        if self._checksum is not None:
            for count in self._part.read_back(lambda: hashing.buffer):
                current_watch().time_left()
                hashing.feed(count)
        self._part.describe(notes)

    def _ask(self, offset: int) -> requests.Response:
        """Ask for the body from `offset` on, or from the start where that cannot be trusted."""
        if offset == 0 or not self._has_proof():
            return self._ask_for_all()
        headers = {"Range": self._range_from(offset), **Version(self._validator).if_unchanged()}
        response = self._session.open(self._url, headers=headers, statuses=frozenset({416}))
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
        return self._validator is not None or (self._trusts_checksum and self._checksum is not None)

    def _continues(self, response: requests.Response, offset: int) -> bool:
        """Tell whether a part is what follows on the first `offset` bytes of the same content."""
        span, total = span_of(response), total_of(response)
        if (
            span is None
            or span.start != offset
            or not Version(self._validator).is_that_of(response)
        ):
            return False
        if self._total is None:
            self._total = total
        return total in (None, self._total)

    def _range_from(self, offset: int) -> str:
        end = offset + FIRST_STRETCH - 1 if self._segments > 1 else ""
        return f"bytes={offset}-{end}"

    def _ask_for_all(self) -> requests.Response:
        response, self._response = self._response, None
        if response is not None:
            self._begin(response)
            return response
        headers = _if_changed(self._known)
        if self._segments > 1:
            headers["Range"] = self._range_from(0)
        response = self._session.open(
            self._url,
            headers=headers,
            statuses=frozenset({304, 416} if self._segments > 1 else {304}),
        )
        if response.status_code == 304:
            # There is no body, but only reading it gives the connection back.
            response.raw.drain_conn()
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
                f"{shown(self._source.key)}: the server answers {response.status_code}, which is "
                "not the whole file. It may be in the making; try again later."
            )
        self._set_up(response, None if is_encoded(response) else content_length(response))

    def _set_up(self, response: requests.Response, total: int | None) -> None:
        self._part.restart()
        self._resumed = False
        encoded = is_encoded(response)
        self._total = total
        called = response.headers.get("ETag") or response.headers.get("Last-Modified")
        # It is written to the disk and sent back, and a server may have put anything there.
        self._called = called if self._is_sound(called) else None
        # Only a strong ETag, or a date, promises that two parts belong together.
        weak = encoded or (self._called or "").startswith("W/")
        self._validator = None if weak else self._called
        self._checksum = self._expected_checksum(response) if self._verify else None
        self._hashing = self._new_hashing()
        self._part.describe(None if encoded else self._notes())

    def _is_sound(self, validator: str | None) -> bool:
        """Tell whether a validator can be kept, and sent back as a header."""
        return (
            validator is not None
            and validator.isprintable()
            and scrub(validator, self._session.credentials.secrets()) == validator
        )

    def _new_hashing(self) -> Hashing:
        if self._hashing is not None:
            self._hashing.close()
        expected = self._total if self._total is not None else self._source.size
        return Hashing(self._checksum, expected=expected)

    def _notes(self) -> dict[str, Any] | None:
        """Return what a later run has to know to continue, or None if that is not worth it."""
        worth_it = self._total is not None and self._total >= KEEP_FROM
        if not worth_it or (self._validator is None and self._checksum is None):
            return None
        return {
            "source": digest_of(self._url),
            "validator": self._validator,
            "total": self._total,
            "checksum": None if self._checksum is None else str(self._checksum),
        }

    def _expected_checksum(self, response: requests.Response) -> Checksum | None:
        if self._source.checksum is not None:
            return self._source.checksum
        # GitLab's hash describes the file in the repository. For a file in LFS that is the
        # pointer; then its size is not the body's either.
        digest = response.headers.get("X-Gitlab-Content-Sha256", "")
        size = response.headers.get("X-Gitlab-Size", "")
        if size == str(self._total):
            with contextlib.suppress(UnknownChecksumError):
                return Checksum.of_sha256(digest)
        return None

    def _take(self, response: requests.Response) -> bool:
        """Write a body to the part; tell whether its end was marked by the server."""
        self._source.check_body(response)
        hashing = self._hashing
        if hashing is None:
            raise AssertionError("a body is taken only after its beginning")
        total = self._total
        allowed = self._session.limits.file_bytes
        self._source.check_limit(total or 0, allowed)
        span = span_of(response)
        if self._segments > 1 and total is not None and span is not None and span.stop < total:
            self._take_in_segments(response, span, total)
            return True
        most = self._source.size if total is None else total
        body = Body(response, url=self._url, session=self._session)
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
                    f"{shown(self._source.key)}: more than the {most} bytes came that were "
                    "announced."
                )
            hashing.feed(count)
            self._on_bytes(self._part.size, total)
        if total is not None and self._part.size < total:
            raise BrokenBodyError(
                f"{shown(self._source.key)}: the connection ended after {self._part.size} of "
                f"{total} bytes. Try again."
            )
        return body.is_framed

    def _take_in_segments(self, response: requests.Response, span: range, total: int) -> None:
        """Write the rest of the body to the part, over several connections."""
        self._source.check_announced(self._total)
        self._in_segments = True
        # A kill would leave a part with gaps, which nobody must continue.
        self._part.describe(None)
        segments = Segments(
            self._session,
            self._url,
            path=self._part.open_path(),
            total=total,
            version=Version(self._validator),
            on_bytes=self._on_bytes,
        )
        try:
            segments.run(response, span, self._segments)
        finally:
            self._part.cut(segments.without_gap())
            self._part.describe(self._notes())
        hashing = self._hashing
        if hashing is not None and self._checksum is not None:
            for count in self._part.read_back(lambda: hashing.buffer, span.start):
                current_watch().time_left()
                hashing.feed(count)
        self._check_beginning(response, self._beginning)
        if self._part.size < total:
            # One connection for the rest: what went wrong may have been the others.
            self._segments = 1
            raise BrokenBodyError(
                f"{shown(self._source.key)}: of {total} bytes, {self._part.size} came over several "
                "connections before one of them failed. Try again."
            )

    def _beginning(self) -> bytes:
        return self._part.beginning(PAGE_START)

    def _check_beginning(self, response: requests.Response, beginning: Callable[[], bytes]) -> None:
        """Refuse as early as possible what is not the file; the first packet may hold a byte."""
        error = self._source.error_for_page(
            response, beginning(), self._session.credentials.secrets()
        )
        if error is not None:
            raise error
        # What is small may be a pointer, which is known only when all of it is there.
        if self._part.size >= POINTER_SIZE:
            self._source.check_announced(self._total)

    def _checked(self, digest: bytes | None, *, framed: bool) -> Received:
        source, size = self._source, self._part.size
        if size < POINTER_SIZE:
            source.check_no_pointer(self._part.beginning(POINTER_SIZE))
        source.check_size(size)
        source.check_digest(self._checksum, digest)
        verified = framed or source.size is not None or self._checksum is not None
        if not verified:
            warnings.warn(
                f"{shown(source.key)}: the server did not say how long the file is, and the "
                "metadata hold neither size nor checksum: nobody can tell whether it is whole.",
                UnverifiedDownloadWarning,
                stacklevel=2,
            )
        checksum = None if self._checksum is None else str(self._checksum)
        return Received(
            size, checksum, verified=verified, resumed=self._resumed, validator=self._called
        )

    def _log(self, state: tenacity.RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        logger.info("Continuing in %.1f s: %s", state.upcoming_sleep, error)


def _checksum_from(text: object) -> Checksum | None:
    try:
        return Checksum.parse(text)
    except UnknownChecksumError:
        return None


def _if_changed(known: str | None) -> dict[str, str]:
    """Return the header that asks for content only if it is not the one that is `known`."""
    if known is None:
        return {}
    is_etag = known.startswith(('"', "W/"))
    return {"If-None-Match" if is_etag else "If-Modified-Since": known}
