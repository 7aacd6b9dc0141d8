"""The file of a download: checked while it is written, and when it is complete."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from stac_gitlab.download.content_version import KEEP_FROM, ByteRange, ContentVersion
from stac_gitlab.download.report import human_size
from stac_gitlab.download.source import Source
from stac_gitlab.download.stream import BodyReader, BrokenBodyError, SegmentedDownload
from stac_gitlab.download.substitutes import (
    FORMAT_START,
    PAGE_START,
    POINTER_SIZE,
    error_for_pointer,
    error_for_substitute,
    media_type_of,
    other_format,
)
from stac_gitlab.errors import (
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    SecretInFileWarning,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files.checksums import BUFFER_SIZE, HashingBuffers
from stac_gitlab.files.disk_space import SpaceClaim
from stac_gitlab.files.partial_file import Leftover, PartialFile
from stac_gitlab.http.deadline import current_deadline
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import KnownSecrets, Secret, quoted

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
    resumed: bool = False
    validator: str | None = None


class CheckedFile:
    """A partial file and the version of the content that it gets.

    Attributes:
        version: The version of the content.
        resumed: Whether the body broke off and was resumed.
        is_complete: Whether the body came to its end, right or wrong.
    """

    def __init__(
        self,
        session: GitLabSession,
        part: PartialFile,
        source: Source,
        folder: Path,
        *,
        on_bytes: OnBytes,
    ) -> None:
        self._part = part
        self._source = source
        self._folder = folder
        self._session = session
        self._on_bytes = on_bytes
        self._hashing = HashingBuffers(None, expected=0)
        self._secrets = SentSecrets()
        self._sent_type = ""
        self.version = ContentVersion()
        self.resumed = self.is_complete = False
        self._claim = SpaceClaim(folder, self._missing_bytes)
        part.truncate()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._part.size

    def close(self) -> None:
        """Stop hashing, and give up the claim on free space."""
        self._hashing.close()
        self._claim.release()

    def start(self, version: ContentVersion) -> None:
        """Start from the first byte of a version."""
        self._part.truncate()
        self.resumed = False
        self.version = version
        self._start_hashing()
        self._secrets.restart()
        self._part.save_resume_info(version.resume_info(self._source))

    def continue_leftover(self, leftovers: Sequence[Leftover], *, verify: bool) -> None:
        """Take over the longest partial file that provably has the same content."""
        for leftover in sorted(leftovers, key=lambda leftover: -leftover.size):
            version = ContentVersion.from_resume_info(
                leftover.resume_info() or {}, self._source, verify=verify
            )
            if version is not None and self._part.take_over(leftover):
                self.version = version
                # At least one byte is requested: the response proves that the rest is right.
                self._part.truncate(max(0, min(leftover.size, (version.size or 0) - 1)))
                self._part.save_resume_info(version.resume_info(self._source))
                self._start_hashing()
                self._hash_from(0)
                return

    def forget_resume_info(self) -> None:
        """Keep nothing for a later run: the bytes are wrong, or others need their space."""
        self._part.save_resume_info(None)

    def check_size_limits(self) -> None:
        """Check before the body is read that the file may be, and can be, as large as announced."""
        size = self.version.size or 0
        self._source.check_limit(size, self._session.limits.file_bytes)
        missing = self._missing_bytes()
        # A small file is not worth the system call.
        left = self._claim.take() if missing >= KEEP_FROM else None
        if left is not None:
            raise DownloadError(
                f"{quoted(self._source.key)}: the download needs {human_size(missing)}, but "
                f"{str(self._folder)!r} has only {human_size(left)} free for it. Free some "
                "space, or choose another folder."
            )

    def _missing_bytes(self) -> int:
        return max(0, (self.version.size or 0) - self.size)

    def write(self, response: requests.Response, body: BodyReader) -> None:
        """Append a body.

        Raises:
            BrokenBodyError: If the body ends early.
            DownloadError: If it is not the body of this file.
        """
        size, hashing = self.version.size, self._hashing
        self._note(response)
        expected = self._source.size if size is None else size
        for count in body.read_into(lambda: hashing.buffer):
            before = self.size
            self._source.check_limit(before + count, self._session.limits.file_bytes)
            self._part.write(hashing.buffer[:count])
            if before < POINTER_SIZE:
                self._check_start(response)
            if expected is not None and self.size > expected:
                self.is_complete = True
                raise IncompleteDownloadError(
                    f"{quoted(self._source.key)}: the body has more than the {expected} bytes that "
                    "were announced."
                )
            self._secrets.feed(hashing.buffer, count)
            hashing.feed(count)
            self._on_bytes(self.size, size)
        if size is not None and self.size < size:
            raise BrokenBodyError(
                f"{quoted(self._source.key)}: the connection ended after {self.size} of {size} "
                "bytes. Try again."
            )

    def write_segments(
        self, response: requests.Response, part: ByteRange, segments: SegmentedDownload
    ) -> None:
        """Write the rest of the body, of which a response holds a part, over several connections.

        Raises:
            BrokenBodyError: If one of the connections failed.
            DownloadError: If it is not the body of this file.
        """
        size = self.version.size
        self._note(response)
        self._source.check_announced(size)
        # How much of them is written is not known before all have ended.
        self._claim.release()
        path = self._part.open_path()
        # If the process is killed, the partial file has gaps, and must not be continued.
        self._part.save_resume_info(None)
        try:
            segments.run(response, part, path)
        finally:
            self._part.truncate(segments.size_without_gaps())
            self._part.save_resume_info(self.version.resume_info(self._source))
        self._hash_from(part.start)
        self._check_start(response)
        if self.size != size:
            raise BrokenBodyError(
                f"{quoted(self._source.key)}: {self.size} of {size} bytes arrived over several "
                "connections before one of them failed. Try again."
            )

    def verify(self, *, is_framed: bool) -> TransferResult:
        """Check the file, whose body has ended, and return what is known about it.

        Args:
            is_framed: Whether the server marked the end of the body.

        Raises:
            BrokenBodyError: If the file is wrong and its body may have broken off.
            DownloadError: If the file is wrong.
        """
        source, checksum = self._source, self.version.checksum
        if self.size < POINTER_SIZE and (
            error := error_for_pointer(source, self._part.read_start(POINTER_SIZE))
        ):
            raise error
        self.is_complete = is_framed or self.size == source.size
        try:
            source.check_size(self.size)
            source.check_digest(checksum, self._hashing.digest())
        except (IncompleteDownloadError, ChecksumMismatchError) as wrong:
            if self.is_complete:
                raise
            raise BrokenBodyError(str(wrong)) from wrong
        verified = self.is_complete or checksum is not None
        if not verified:
            warnings.warn(
                f"{quoted(source.key)}: the server did not state the length of the file, and the "
                "metadata have neither file:size nor file:checksum. The file may be incomplete.",
                UnverifiedDownloadWarning,
                stacklevel=2,
            )
        if self._contains_secret():
            warnings.warn(
                f"{quoted(source.key)}: the file contains the token that was sent to download it. "
                "Do not pass it on.",
                SecretInFileWarning,
                stacklevel=2,
            )
        start = self._part.read_start(FORMAT_START)
        if other := other_format(source, start, self._sent_type):
            warnings.warn(other, UnverifiedDownloadWarning, stacklevel=2)
        return TransferResult(
            self.size,
            None if checksum is None else str(checksum),
            verified=verified,
            resumed=self.resumed,
            validator=self.version.validator,
        )

    def _note(self, response: requests.Response) -> None:
        """Note of a response what the checks of the complete file need."""
        self._secrets.add(response)
        self._sent_type = media_type_of(response)

    def _start_hashing(self) -> None:
        self._hashing.close()
        size = self.version.size
        expected = self._source.size if size is None else size
        self._hashing = HashingBuffers(self.version.checksum, expected=expected)

    def _hash_from(self, start: int) -> None:
        """Hash the partial file from byte `start` on, if there is a checksum to compare."""
        if self.version.checksum is not None:
            for count in self._part.read_into(lambda: self._hashing.buffer, start):
                current_deadline().time_left()
                self._hashing.feed(count)

    def _contains_secret(self) -> bool:
        secrets = self._secrets
        if secrets and secrets.searched < self.size:
            # Parts of an earlier run, or of several connections.
            secrets.restart()
            buffer = memoryview(bytearray(BUFFER_SIZE))
            for count in self._part.read_into(lambda: buffer):
                current_deadline().time_left()
                secrets.feed(buffer, count)
        return secrets.found

    def _check_start(self, response: requests.Response) -> None:
        """Stop as early as possible if the body is not the file; its first packet may be short."""
        # The start is no local variable: it may contain the token, and a traceback may show it.
        error = error_for_substitute(
            self._session, self._source, response, self._part.read_start(PAGE_START)
        )
        if error is not None:
            self.forget_resume_info()
            raise error
        # A small body may be a pointer, which is known only when it is complete.
        if self.size >= POINTER_SIZE:
            self._source.check_announced(self.version.size)


class SentSecrets:
    """Looks for secrets in a file that is read one buffer after the other.

    The search takes about a tenth of the time of a SHA-256.

    Attributes:
        found: Whether the file contains one of them.
        searched: Bytes that were searched.
    """

    def __init__(self) -> None:
        self._secrets: tuple[bytes, ...] = ()
        self._overlap = 0
        self.restart()

    def __bool__(self) -> bool:
        """Return whether there is anything to look for."""
        return bool(self._secrets)

    def add(self, response: requests.Response) -> None:
        """Look for the secrets that were sent for a response, redirects included, from now on."""
        sent = KnownSecrets()
        for step in (*response.history, response):
            for value in step.request.headers.values():
                if isinstance(value, Secret):
                    sent.add(value)
        self._secrets = tuple({*self._secrets, *(secret.encode() for secret in sent)})
        self._overlap = max(map(len, self._secrets), default=1) - 1

    def restart(self) -> None:
        """Begin at the start of a file."""
        self.found, self.searched, self._end = False, 0, b""

    def feed(self, buffer: memoryview, count: int) -> None:
        """Search the first `count` bytes of a buffer, and the border to the one before."""
        self.searched += count
        if self.found or not self._secrets:
            return
        # A bytearray can be searched in place; a memoryview would have to be copied.
        content = buffer.obj
        border = self._end + bytes(buffer[: min(count, self._overlap)])
        self.found = any(
            content.find(secret, 0, count) >= 0 or secret in border  # type: ignore[attr-defined]  # of HashingBuffers
            for secret in self._secrets
        )
        end = bytes(buffer[max(0, count - self._overlap) : count])
        self._end = (self._end + end)[-self._overlap :] if self._overlap else b""
