"""git blob ids: of local files, and of the files that GitLab lists in a repository.

Source: git documentation, "Git Objects"; GitLab REST API documentation, "Repositories".
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from stac_gitlab.errors import InvalidResponseError, STACGitLabError
from stac_gitlab.files.checksums import BUFFER_SIZE
from stac_gitlab.http.deadline import STOP_LATENCY, Deadline, current_deadline, enforcing
from stac_gitlab.http.responses import Document
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import redact, redacting_logger
from stac_gitlab.settings import RetryPolicy

_POINTER_VERSION = "https://git-lfs.github.com/spec/v1"
# The first versions of Git LFS had another name, and Windows has other line ends.
_POINTER_START = re.compile(
    rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\r?\n"
)
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_MAX_PAGE_BYTES = 4 * 1024 * 1024
_MIN_PAGES = 20
_PARALLEL_REQUESTS = 8
logger = redacting_logger(__name__)


def list_blob_ids(session: GitLabSession, url: str, paths: Iterable[str]) -> dict[str, str]:
    """Return the blob ids of files in a repository, by their paths.

    A file is missing in the result if the repository cannot be listed, since the token may lack
    the permission, or the server the endpoint.

    Args:
        url: GitLab's listing of a repository tree.
        paths: The files. Other files may be in the result as well.
    """
    wanted = set(paths)
    found: dict[str, str] = {}
    # Each page costs less than a download. But a few files do not justify a thousand pages.
    max_pages = max(_MIN_PAGES, len(wanted))
    try:
        once = session.retry.replace(max_attempts=1)
        for entries in itertools.islice(tree_pages(session, url, retry=once), max_pages):
            found |= entries
            if wanted <= found.keys():
                break
    except STACGitLabError as error:
        logger.info("The repository cannot be listed: %s", error)
    return found


def tree_pages(
    session: GitLabSession, url: str, *, retry: RetryPolicy | None = None
) -> Iterator[dict[str, str]]:
    """Yield the blob ids of the files in a repository by their paths, page by page.

    Args:
        url: GitLab's listing of a repository tree.
        retry: Replaces the session's policy.

    Raises:
        STACGitLabError: If a page cannot be read.
    """
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    stop = threading.Event()

    def read(page: int) -> _Page:
        page_url = urlunsplit(parts._replace(query=urlencode([*query, ("page", page)])))
        return session.fetch(page_url, _parse, max_bytes=_MAX_PAGE_BYTES, retry=retry)

    def read_in_background(page: int) -> _Page:
        with enforcing(Deadline(stop=stop)):
            return read(page)

    with ThreadPoolExecutor(_PARALLEL_REQUESTS, "stac-gitlab-tree") as pool:
        try:
            number, page = 1, read(1)
            yield page.blob_ids
            at_once = 1
            # Pages whose numbers do not grow would never end.
            while page.following > number:
                last = min(page.last, page.following + at_once - 1)
                numbers = range(page.following, max(page.following, last) + 1)
                futures = [pool.submit(read_in_background, number) for number in numbers]
                for number, future in zip(numbers, futures, strict=True):
                    page = _result_of(future)
                    yield page.blob_ids
                    if page.following != number + 1:
                        at_once = 1
                        for other in futures:
                            other.cancel()
                        break
                else:
                    # Not many from the beginning: perhaps the first pages are enough.
                    at_once = min(2 * at_once, _PARALLEL_REQUESTS)
        finally:
            stop.set()
    if page.following:
        raise InvalidResponseError(
            f"{redact(url)}: the page after page {number} is page {page.following} again.",
            url=redact(url),
        )


class GitIds(NamedTuple):
    """What git and Git LFS call a file.

    Attributes:
        size: Its size in bytes.
        blob: The blob id of the file; None if it was not wanted.
        sha256: The SHA-256 of the file, in hex, which is its id in Git LFS; None if not wanted.
    """

    size: int
    blob: str | None = None
    sha256: str | None = None

    @property
    def pointer(self) -> str | None:
        """The blob id of the Git LFS pointer to the file."""
        return None if self.sha256 is None else blob_id(lfs_pointer(self.sha256, self.size))


def is_lfs_pointer(content: bytes) -> bool:
    """Return whether a file that begins with `content` is a Git LFS pointer."""
    return _POINTER_START.match(content) is not None


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the Git LFS pointer to a file."""
    text = f"version {_POINTER_VERSION}\noid sha256:{sha256}\nsize {size}\n"
    return text.encode()


def blob_id(content: bytes) -> str:
    """Return the git blob id of a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def git_ids_of(path: Path, *, blob: bool, sha256: bool) -> GitIds:
    """Return the wanted ids of a local file, which is read once."""
    size = path.stat().st_size
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if blob else None
    sha2 = hashlib.sha256() if sha256 else None
    hashes = [each for each in (sha1, sha2) if each is not None]
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            for each in hashes:
                each.update(buffer[:count])
            current_deadline().time_left()
    return GitIds(
        size,
        None if sha1 is None else sha1.hexdigest(),
        None if sha2 is None else sha2.hexdigest(),
    )


class _Page(NamedTuple):
    """A page of a listing.

    Attributes:
        blob_ids: The blob ids of its files, by their paths.
        following: The number of the next page, or 0 if there is none.
        last: The number of the last page, or 0 if the server does not tell.
    """

    blob_ids: dict[str, str]
    following: int
    last: int


def _result_of(future: Future[_Page]) -> _Page:
    """Wait for a page, unless this thread is cancelled."""
    while wait([future], STOP_LATENCY).not_done:
        current_deadline().time_left()
    return future.result()


def _parse(document: Document) -> _Page:
    try:
        entries = json.loads(document.body)
        found = {
            str(entry["path"]): str(entry["id"]) for entry in entries if entry["type"] == "blob"
        }
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InvalidResponseError("This is not a listing of a repository.") from None
    following, total = (
        int(match[0]) if (match := _NUMBER.fullmatch(document.headers.get(name, ""))) else 0
        for name in ("X-Next-Page", "X-Total")
    )
    return _Page(found, following, -(-total // max(1, len(entries))))
