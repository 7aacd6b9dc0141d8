"""Repository files and archives as GitLab serves them raw.

Both stand-ins answer downloads from here: `gitlab_server` as they are, `sharinghub_server` as
SharingHub passes them on.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import posixpath
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from stac_gitlab.testing.access import AccessLevel, User
from stac_gitlab.testing.catalogue import Entry
from stac_gitlab.testing.exchange import Answer, RecordedRequest, Validators, ranged_answer

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format can say
_TEXT_SAMPLE = 8192
_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}

_FRAME = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("strict-transport-security", "max-age=63072000"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("vary", "Origin, Accept-Encoding"),
)
_UNCACHED = (
    ("cache-control", "max-age=0, private, must-revalidate, no-store, no-cache"),
    ("pragma", "no-cache"),
    ("expires", "Fri, 01 Jan 1990 00:00:00 GMT"),
)
_REVALIDATED = ("cache-control", "max-age=0, private, must-revalidate")


@dataclass(frozen=True)
class Refusal:
    """GitLab's word for no.

    Attributes:
        status: The status.
        document: The JSON body; text where GitLab answers in plain text.
    """

    status: int
    document: dict[str, Any] | str


class RefusedError(Exception):
    """Raised where GitLab refuses.

    Attributes:
        refusal: What it says.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status)
        self.refusal = refusal


NO_PROJECT = Refusal(404, {"message": "404 Project Not Found"})
NO_FILE = Refusal(404, {"message": "404 File Not Found"})
NO_COMMIT = Refusal(404, {"message": "404 Commit Not Found"})
NO_ROUTE = Refusal(404, {"error": "404 Not Found"})
FORBIDDEN = Refusal(403, {"message": "403 Forbidden"})
UNAUTHORIZED = Refusal(401, {"message": "401 Unauthorized"})
SMALL_SCOPE = Refusal(
    403,
    {
        "error": "insufficient_scope",
        "error_description": "The request requires higher privileges than provided by the token.",
        "scope": "api read_api read_repository",
    },
)
BEHIND_THE_END = Refusal(416, "invalid range: failed to overlap\n")


def check_visible(entry: Entry | None, user: User) -> Entry:
    """The entry, if the user may know of it.

    Raises:
        RefusedError: The token's scopes are too small, or the project is hidden or missing.
    """
    if not user.may_read:
        raise RefusedError(SMALL_SCOPE)
    if entry is None or user.level_on(entry.project) is AccessLevel.NONE:
        raise RefusedError(NO_PROJECT)
    return entry


def check_readable(entry: Entry | None, user: User) -> Entry:
    """The entry, if the user may read its repository.

    Raises:
        RefusedError: As for `check_visible`, or the user is a guest.
    """
    entry = check_visible(entry, user)
    if user.level_on(entry.project) is AccessLevel.GUEST:
        raise RefusedError(FORBIDDEN)
    return entry


def raw_file(
    entry: Entry, path: str, ref: str | None, *, lfs: bool, request: RecordedRequest
) -> Answer:
    """The raw content of a repository file.

    A blob is sent whole whatever `Range` says. A file in Git LFS comes as its pointer, or with
    `lfs` as its content, which honours `Range` and `If-Range`.

    Args:
        entry: The project, which the caller may read.
        path: The file's path.
        ref: Branch or tag; `None` is the default branch.
        lfs: Follow the pointer of a file in Git LFS.
        request: The request that is answered.

    Raises:
        RefusedError: There is no such ref or file, or the range lies behind the end.
    """
    project = entry.project
    files = project.files_at(ref or project.ref or "")
    if files is None:
        raise RefusedError(NO_COMMIT)
    if path not in files:
        raise RefusedError(NO_FILE)
    content = files[path]
    if not project.in_lfs(path):
        return _blob(entry, path, ref or str(project.ref), content)
    if not lfs:
        return _blob(entry, path, ref or str(project.ref), lfs_pointer(content))
    whole = Answer(
        200,
        (
            *_frame(),
            ("content-type", "application/octet-stream"),
            ("content-transfer-encoding", "binary"),
            ("content-disposition", disposition("attachment", path)),
            _REVALIDATED,
        ),
        content,
    )
    return _in_range(whole, entry, request)


def archive(entry: Entry, ref: str, *, cached: bool, request: RecordedRequest) -> Answer:
    """The zip archive of a branch or tag: in chunks, or with a length once it is cached.

    Raises:
        RefusedError: There is no such ref, or the range lies behind the end.
    """
    project = entry.project
    if project.files_at(ref) is None:
        raise RefusedError(NO_FILE)
    commit = commit_id(entry, ref)
    stem = f"{posixpath.basename(project.path)}-{ref.replace('/', '-')}-{commit}"
    answer = Answer(
        200,
        (
            *_frame(),
            ("content-type", "application/zip"),
            ("content-disposition", f'attachment; filename="{stem}.zip"'),
            ("content-transfer-encoding", "binary"),
            _REVALIDATED,
        ),
        archive_bytes(entry, ref, stem),
        chunked=not cached,
    )
    return _in_range(answer, entry, request) if cached else answer


def _in_range(whole: Answer, entry: Entry, request: RecordedRequest) -> Answer:
    part = ranged_answer(whole, request, Validators(last_modified=http_date(entry.updated)))
    if part is None:
        raise RefusedError(BEHIND_THE_END)
    return part


def archive_bytes(entry: Entry, ref: str, folder: str) -> bytes:
    """A zip of a branch or tag with everything in one folder; the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archived:
        for path, content in sorted((entry.project.files_at(ref) or {}).items()):
            archived.writestr(zipfile.ZipInfo(f"{folder}/{path}", _ZIP_DATE), content)
    return buffer.getvalue()


def lfs_pointer(content: bytes) -> bytes:
    """The Git LFS pointer of some content."""
    return LFS_POINTER.format(oid=_digests(content).sha256, size=len(content)).encode()


def commit_id(entry: Entry, ref: str) -> str:
    """The id of the commit that a ref names; another one when the list of files changes."""
    names = "\n".join(sorted(entry.project.files_at(ref) or {}))
    return hashlib.sha1(f"{entry.project.path}\n{ref}\n{names}".encode()).hexdigest()  # noqa: S324 - git's


def http_date(moment: str) -> str:
    """An RFC 3339 time as HTTP writes it."""
    parsed = datetime.fromisoformat(moment)
    return format_datetime(parsed.astimezone(UTC), usegmt=True)


def disposition(kind: str, path: str) -> str:
    """A `Content-Disposition` with the file's name unescaped, be it malformed by that."""
    name = posixpath.basename(path)
    return f"{kind}; filename=\"{name}\"; filename*=UTF-8''{name}"


@dataclass(frozen=True)
class _Digests:
    sha256: str
    blob_id: str


@lru_cache(maxsize=64)
def _digests(content: bytes) -> _Digests:
    """Digests, kept because tests ask for the same large file again and again."""
    blob = hashlib.sha1(b"blob %d\0" % len(content))  # noqa: S324 - git's own
    blob.update(content)
    return _Digests(hashlib.sha256(content).hexdigest(), blob.hexdigest())


def _frame() -> Iterator[tuple[str, str]]:
    yield from _FRAME
    yield "x-request-id", uuid.uuid4().hex[:26].upper()


def _blob(entry: Entry, path: str, ref: str, content: bytes) -> Answer:
    media_type = _blob_type(path, content)
    digests = _digests(content)
    commit = commit_id(entry, ref)
    kind = "attachment" if media_type == "application/octet-stream" else "inline"
    return Answer(
        200,
        (
            *_frame(),
            ("content-type", media_type),
            ("content-disposition", disposition(kind, path)),
            *_UNCACHED,
            ("x-gitlab-blob-id", digests.blob_id),
            ("x-gitlab-commit-id", commit),
            ("x-gitlab-content-sha256", digests.sha256),
            ("x-gitlab-encoding", "base64"),
            ("x-gitlab-file-name", quote(posixpath.basename(path))),
            ("x-gitlab-file-path", quote(path)),
            ("x-gitlab-last-commit-id", commit),
            ("x-gitlab-ref", quote(ref)),
            ("x-gitlab-size", str(len(content))),
        ),
        content,
    )


def _blob_type(path: str, content: bytes) -> str:
    """GitLab tells text from binary by looking, and names few types besides."""
    image = _IMAGES.get(posixpath.splitext(path)[1].lower())
    if image is not None:
        return image
    sample = content[:_TEXT_SAMPLE]
    if b"\0" in sample:
        return "application/octet-stream"
    try:
        # Incrementally, because the sample may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(sample, len(sample) == len(content))
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain; charset=utf-8"
