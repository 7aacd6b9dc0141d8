"""The file of a download: checked while it is written, and when it is complete."""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests

from stac_gitlab.download.content_version import KEEP_FROM, ByteRange, ContentVersion
from stac_gitlab.download.git_blobs import is_lfs_pointer
from stac_gitlab.download.report import human_size
from stac_gitlab.download.source import Source
from stac_gitlab.download.stream import BodyReader, BrokenBodyError, SegmentedDownload
from stac_gitlab.errors import (
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    InvalidResponseError,
    LFSPointerError,
    SecretInFileWarning,
    STACGitLabError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files.checksums import BUFFER_SIZE, HashingBuffers
from stac_gitlab.files.disk_space import SpaceClaim
from stac_gitlab.files.partial_file import Leftover, PartialFile
from stac_gitlab.http.deadline import current_deadline
from stac_gitlab.http.responses import is_html
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import KnownSecrets, Secret, printable, quoted, redact, redact_response

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
        self._secrets.add(response)
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
        self._secrets.add(response)
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
        if self.size and (other := other_format(source, self._part.read_start(PAGE_START))):
            warnings.warn(other, UnverifiedDownloadWarning, stacklevel=2)
        return TransferResult(
            self.size,
            None if checksum is None else str(checksum),
            verified=verified,
            resumed=self.resumed,
            validator=self.version.validator,
        )

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


POINTER_SIZE = 1024
"""Bytes of the largest body that may be a pointer in place of the file."""

PAGE_START = 8192
"""Bytes from the start of a body that show whether it is a page."""

_MAX_EXCERPT = 200
_DVC_POINTER = re.compile(rb"(?:^|\n)outs:[ \t\r]*+\n\s*+(?:-\s++)?(?:md5|etag|size|path|hash):")
# The formats whose files begin with certain bytes: their names and media types, and those bytes.
_FORMATS = {
    name: (re.compile(names, re.IGNORECASE), re.compile(start, re.DOTALL))
    for name, names, start in (
        ("TIFF", r".*\.tiff?|image/(?:tiff|vnd\.stac\.geotiff)", rb"II[*+]\0|MM\0[*+]"),
        (
            "ZIP",
            r".*\.(?:zip|kmz|npz)|application/(?:x-)?zip(?:-compressed)?",
            rb"PK[\x03\x05\x07]",
        ),
        ("netCDF", r".*\.nc4?|application/(?:x-)?netcdf4?", rb"CDF[\x01\x02\x05]|\x89HDF"),
        ("HDF5", r".*\.(?:h5|hdf5)|application/(?:x-)?hdf5", rb"\x89HDF"),
        ("JPEG 2000", r".*\.(?:jp2|j2k)|image/jp2", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
        ("JPEG", r".*\.jpe?g|image/jpeg", rb"\xff\xd8\xff"),
        ("PNG", r".*\.png|image/png", rb"\x89PNG\r\n"),
        ("Parquet", r".*\.(?:geo)?parquet|application/(?:vnd\.apache\.|x-)parquet", rb"PAR1"),
        ("gzip", r".*\.t?gz|application/(?:x-)?gzip", rb"\x1f\x8b"),
    )
}
# The start of JSON, XML or HTML, perhaps with a byte order mark. A few bytes do not tell it from
# binary content that begins with the same character.
_TEXT_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{<][^\0-\x08\x0e-\x1f]{7,63}")


def error_for_substitute(
    session: GitLabSession, source: Source, response: requests.Response, start: bytes
) -> STACGitLabError | None:
    """Return an error if a body is a page or a message in place of the file.

    The caller raises it: the body may contain the token, and this frame, which a traceback may
    show, has it among its locals.
    """
    is_page = "html" in (source.media_type or "") or source.key.lower().endswith((".html", ".htm"))
    if not is_page and is_html(response, start):
        return session.page_error(response, start, wanted=f"the file {quoted(source.key)}")
    expected = _expected_format(source)
    if expected is None or not _is_text(start):
        return None
    url = redact_response(response).url
    message = redact(printable(start.decode("utf-8", "replace").strip(), limit=PAGE_START))
    return InvalidResponseError(
        f"GET {url}: the server sent a message in place of the {expected} file "
        f"{quoted(source.key)}: {message[:_MAX_EXCERPT]}",
        url=url,
    )


def other_format(source: Source, start: bytes) -> str:
    """Return what to say of a file of another format than its name or media type states."""
    expected = _expected_format(source)
    if expected is None or _FORMATS[expected][1].match(start):
        return ""
    found = next((name for name, (_, known) in _FORMATS.items() if known.match(start)), None)
    if found is None:
        return ""
    return f"{quoted(source.key)} should be a {expected} file, but it is a {found} file."


def error_for_pointer(source: Source, content: bytes) -> LFSPointerError | None:
    """Return an error if a body is a pointer of Git LFS or DVC to the file."""
    if is_lfs_pointer(content):
        return LFSPointerError(
            f"{quoted(source.key)}: the server sent a Git LFS pointer in place of the file. "
            f"{redact(source.url)} serves the repository without LFS. Use the URL of GitLab's "
            "files API with lfs=true, or run 'git lfs pull' in a clone."
        )
    is_dvc_file = source.key.lower().endswith((".dvc", "dvc.lock"))
    if _DVC_POINTER.match(content) and not is_dvc_file:
        return LFSPointerError(
            f"{quoted(source.key)}: the server sent a DVC pointer in place of the file. Run "
            "'dvc pull' in a clone of the project."
        )
    return None


def _is_text(start: bytes) -> bool:
    match = _TEXT_START.match(start)
    if match is None:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(match[0])
    except UnicodeDecodeError:
        return False
    return True


def _expected_format(source: Source) -> str | None:
    """Return the format that the media type of a file states, or else its name."""
    media_type = (source.media_type or "").partition(";")[0].strip()
    path = urlsplit(source.url).path
    if path.lower().endswith((".json", ".xml", ".txt")):
        # The href of metadata is sometimes listed with the media type of the data.
        return None
    is_stated = media_type not in ("", "application/octet-stream")
    for stated in (media_type,) if is_stated else (source.key, path):
        for name, (known, _) in _FORMATS.items():
            if known.fullmatch(stated):
                return name
    return None


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
