"""Git blob ids: one listing of a repository proves which files are unchanged."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from stac_gitlab.errors import InvalidResponseError, STACGitLabError
from stac_gitlab.files.checksums import BUFFER_SIZE
from stac_gitlab.http.deadline import current_deadline
from stac_gitlab.http.responses import Document
from stac_gitlab.http.session import GitLabSession

logger = logging.getLogger(__name__)
_MAX_PAGE_BYTES = 4 * 1024 * 1024


def list_blob_ids(session: GitLabSession, url: str, *, max_pages: int) -> dict[str, str]:
    """Return the blob id of each file of a repository, by its path.

    The result is empty if the repository cannot be listed: the token may lack the permission, or
    the server the endpoint.

    Args:
        session: Sends the requests.
        url: The first page of GitLab's listing of a repository tree.
        max_pages: How many pages to request at most.
    """
    found: dict[str, str] = {}
    page = "1"
    try:
        for _ in range(max_pages):
            entries, page = session.fetch(
                _with_page(url, page),
                _parse,
                max_bytes=_MAX_PAGE_BYTES,
                retry=session.retry.replace(max_attempts=1),
            )
            found.update(entries)
            if not page:
                break
    except STACGitLabError as error:
        logger.info("The repository cannot be listed: %s", error)
    return found


def blob_ids_of(path: Path) -> tuple[str, str]:
    """Return the blob id of a local file, and that of the Git LFS pointer to such a file."""
    size = path.stat().st_size
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    sha256 = hashlib.sha256()
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            sha1.update(buffer[:count])
            sha256.update(buffer[:count])
            current_deadline().time_left()
    pointer = (
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{sha256.hexdigest()}\nsize {size}\n"
    ).encode()
    pointer_id = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False)
    return sha1.hexdigest(), pointer_id.hexdigest()


def _parse(document: Document) -> tuple[dict[str, str], str]:
    """Return the blob ids on a page, and the number of the next page or an empty text."""
    try:
        entries = json.loads(document.body)
        found = {
            str(entry["path"]): str(entry["id"]) for entry in entries if entry["type"] == "blob"
        }
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InvalidResponseError("This is not a listing of a repository.") from None
    page = document.headers.get("X-Next-Page", "")
    return found, page if page.isascii() and page.isdigit() else ""


def _with_page(url: str, page: str) -> str:
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), ("page", page)]
    return urlunsplit(parts._replace(query=urlencode(query)))
