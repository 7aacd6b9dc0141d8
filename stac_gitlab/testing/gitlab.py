"""A stand-in for GitLab: raw files and archives for its tokens, a sign-in page for browsers."""

from __future__ import annotations

import codecs
import hashlib
import io
import posixpath
import re
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from urllib.parse import quote, unquote

from stac_gitlab.testing.access import (
    PUBLIC,
    AccessLevel,
    Catalogue,
    NumberedProject,
    TokenHolder,
    User,
    users_by_token,
)
from stac_gitlab.testing.exchange import Answer, RecordedRequest, ranged_response, response_of
from stac_gitlab.testing.loopback import LoopbackServer
from stac_gitlab.testing.projects import Project

API_PATH = "/api/v4/"

_WEB_FILE = re.compile(r"/.+/-/(?:raw|blob)/.+")
_SIGN_IN_PAGE = """<!DOCTYPE html>
<html class="devise-layout-html" lang="en">
<head><title>Sign in · GitLab</title></head>
<body class="login-page">
<form class="gl-p-5" action="/users/sign_in" method="post">
<input type="text" name="user[login]"><input type="password" name="user[password]">
<button type="submit">Sign in</button>
</form>
</body>
</html>
"""

_FRAME = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "strict-transport-security": "max-age=63072000",
    "referrer-policy": "strict-origin-when-cross-origin",
    "vary": "Origin, Accept-Encoding",
}
_UNCACHED = {
    "cache-control": "max-age=0, private, must-revalidate, no-store, no-cache",
    "pragma": "no-cache",
    "expires": "Fri, 01 Jan 1990 00:00:00 GMT",
}
_REVALIDATED = {
    "cache-control": "max-age=0, private, must-revalidate",
    "content-transfer-encoding": "binary",
}
_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}
_TEXT_SAMPLE = 8192  # bytes
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format allows

_NO_PROJECT = response_of({"message": "404 Project Not Found"}, 404)
_NO_FILE = response_of({"message": "404 File Not Found"}, 404)
_NO_COMMIT = response_of({"message": "404 Commit Not Found"}, 404)
_NO_ROUTE = response_of({"error": "404 Not Found"}, 404)
_FORBIDDEN = response_of({"message": "403 Forbidden"}, 403)
_UNAUTHORIZED = response_of({"message": "401 Unauthorized"}, 401)
_NOT_ALLOWED = response_of({"error": "405 Not Allowed"}, 405, {"allow": "GET, HEAD"})
_INSUFFICIENT_SCOPE = response_of(
    {
        "error": "insufficient_scope",
        "error_description": "The request requires higher privileges than provided by the token.",
        "scope": "api read_api read_repository",
    },
    403,
)
_BEHIND_THE_END = response_of("invalid range: failed to overlap\n", 416)


class _RefusedError(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class GitLabAPI:
    """The part of GitLab's REST API that serves files, without a socket.

    Args:
        catalogue: The projects.
        users: Users by token.
        public: Whether callers without a token may read what is not private.

    Attributes:
        lfs_redirect: As for `GitLabServer`.
    """

    def __init__(
        self, catalogue: Catalogue, users: Mapping[str, User], *, public: bool = False
    ) -> None:
        self.lfs_redirect: Callable[[str, str], str] | None = None
        self._catalogue = catalogue
        self._users = users
        self._public = public
        # Matched against the raw path, because only %2F keeps a path within its segment.
        repository = rf"{API_PATH}projects/([^/]+)/repository"
        self._routes: list[tuple[str, Callable[..., Answer]]] = [
            (rf"{repository}/files/([^/]+)/raw", self._raw_file),
            (rf"{repository}/archive\.zip", self._archive),
            (rf"{repository}/tree", self._tree),
        ]

    def answer(self, request: RecordedRequest) -> Answer:
        """Return the response to a request below `/api/v4/`."""
        for pattern, serve in self._routes:
            if match := re.fullmatch(pattern, request.raw_path):
                if request.method not in ("GET", "HEAD"):
                    return _NOT_ALLOWED
                try:
                    return serve(request, *map(unquote, match.groups()))
                except _RefusedError as refused:
                    return refused.answer
        return _NO_ROUTE

    def _raw_file(self, request: RecordedRequest, name: str, path: str) -> Answer:
        found = self._readable(request, name)
        project = found.project
        ref = request.query.get("ref") or project.ref or ""
        files = project.files_at(ref)
        if files is None:
            raise _RefusedError(_NO_COMMIT)
        if path not in files:
            raise _RefusedError(_NO_FILE)
        if not project.in_lfs(path):
            return _blob(found, path, ref, files[path])
        if request.query.get("lfs") != "true":
            return _blob(found, path, ref, _lfs_pointer(files[path]))
        if self.lfs_redirect is not None:
            return _redirect(self.lfs_redirect(project.path, path))
        part = ranged_response(_lfs_object(found, path, files[path]), request)
        return _BEHIND_THE_END if part is None else part

    def _archive(self, request: RecordedRequest, name: str) -> Answer:
        found = self._readable(request, name)
        ref = request.query.get("sha") or str(found.project.ref)
        files = found.project.files_at(ref)
        if files is None:
            raise _RefusedError(_NO_FILE)
        stem = posixpath.basename(found.project.path)
        stem = f"{stem}-{ref.replace('/', '-')}-{_commit_id(found.project, ref)}"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in sorted(files.items()):
                archive.writestr(zipfile.ZipInfo(f"{stem}/{path}", _ZIP_DATE), content)
        headers = {
            **_FRAME,
            "x-request-id": _request_id(),
            "content-type": "application/zip",
            "content-disposition": f'attachment; filename="{stem}.zip"',
            **_REVALIDATED,
        }
        return Answer(200, tuple(headers.items()), buffer.getvalue(), chunked=True)

    def _tree(self, request: RecordedRequest, name: str) -> Answer:
        project = self._readable(request, name).project
        files = project.files_at(request.query.get("ref") or str(project.ref))
        if files is None:
            raise _RefusedError(_NO_FILE)
        size, page = int(request.query.get("per_page", 20)), int(request.query.get("page", 1))
        entries = []
        for path in sorted(files)[size * (page - 1) : size * page]:
            blob = _lfs_pointer(files[path]) if project.in_lfs(path) else files[path]
            entries.append(
                {
                    "id": _digests(blob)[1],
                    "name": posixpath.basename(path),
                    "type": "blob",
                    "path": path,
                    "mode": "100644",
                }
            )
        next_page = str(page + 1) if size * page < len(files) else ""
        return response_of(entries, 200, {"x-total": str(len(files)), "x-next-page": next_page})

    def _user(self, request: RecordedRequest) -> User:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        token = (
            request.headers.get("PRIVATE-TOKEN")
            or request.headers.get("JOB-TOKEN")
            or (bearer if scheme.lower() == "bearer" else "")
        )
        if not token:
            if self._public:
                return PUBLIC
            raise _RefusedError(_NO_PROJECT)
        if token not in self._users:
            raise _RefusedError(_UNAUTHORIZED)
        return self._users[token]

    def _visible(self, user: User, name: str) -> NumberedProject:
        if not user.may_read:
            raise _RefusedError(_INSUFFICIENT_SCOPE)
        found = self._catalogue.find(name)
        if found is None or user.level_on(found.project) is AccessLevel.NONE:
            raise _RefusedError(_NO_PROJECT)
        return found

    def _readable(self, request: RecordedRequest, name: str) -> NumberedProject:
        user = self._user(request)
        found = self._visible(user, name)
        if user.level_on(found.project) is AccessLevel.GUEST:
            raise _RefusedError(_FORBIDDEN)
        return found


class GitLabServer(LoopbackServer):
    """A GitLab over any sequence of projects.

    It accepts tokens in `PRIVATE-TOKEN`, `JOB-TOKEN` and `Authorization: Bearer`. The web routes
    ignore them and redirect to a sign-in page, as the real ones do.

    Args:
        projects: The projects.
        token: A token that sees everything.
        tokens: Tokens and their owners, as for `SharingHubServer`. Without `token` and `tokens`
            there is a default token.
        lfs_redirect: A function from the path of a project and the path of a file to the URL of
            that file in object storage. Requests with `lfs=true` for a file in Git LFS are then
            redirected there; by default they get the content.
        public: Let callers without a token read what is not private.

    Attributes:
        users: Users by token. Removing a token here revokes it.
        token: The first token.

    Example:
        >>> from urllib.request import Request, urlopen
        >>> lakes = Project("group/lakes", {"data/lakes.csv": b"id"})
        >>> with GitLabServer([lakes]) as gitlab:
        ...     url = gitlab.raw_url("group/lakes", "data/lakes.csv")
        ...     request = Request(url, headers={"PRIVATE-TOKEN": gitlab.token})
        ...     with urlopen(request) as response:
        ...         response.read()
        b'id'
    """

    def __init__(
        self,
        projects: Sequence[Project] = (),
        *,
        token: str | None = None,
        tokens: Mapping[str, TokenHolder] | None = None,
        lfs_redirect: Callable[[str, str], str] | None = None,
        public: bool = False,
    ) -> None:
        super().__init__()
        self.users = users_by_token(token, tokens)
        self.token = next(iter(self.users))
        self.api = GitLabAPI(Catalogue(projects), self.users, public=public)
        self.api.lfs_redirect = lfs_redirect

    def raw_url(self, project: str, path: str, ref: str = "main", *, lfs: bool = True) -> str:
        """Return the URL of a file at the raw endpoint."""
        file = f"projects/{_quoted(project)}/repository/files/{_quoted(path)}/raw"
        return f"{self.url}{API_PATH}{file}?ref={_quoted(ref)}{'&lfs=true' * lfs}"

    def web_url(self, project: str, path: str, ref: str = "main", *, view: str = "raw") -> str:
        """Return the URL of a file as a browser shows it. No token opens it."""
        return f"{self.url}/{project}/-/{view}/{ref}/{path}"

    def answer(self, request: RecordedRequest) -> Answer:
        if request.raw_path == "/users/sign_in":
            return response_of(_SIGN_IN_PAGE, 200, {"content-type": "text/html; charset=utf-8"})
        if _WEB_FILE.fullmatch(request.path):
            return _redirect(f"{self.url}/users/sign_in")
        if request.raw_path.startswith(API_PATH):
            return self.api.answer(request)
        return super().answer(request)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _redirect(url: str) -> Answer:
    return response_of(b"<html></html>", 302, {"location": url, "content-type": "text/html"})


def _request_id() -> str:
    return uuid.uuid4().hex[:26].upper()


def _disposition(kind: str, path: str) -> str:
    name = posixpath.basename(path)
    return f"{kind}; filename=\"{name}\"; filename*=UTF-8''{name}"  # unescaped, as GitLab sends it


def _blob(found: NumberedProject, path: str, ref: str, content: bytes) -> Answer:
    """Return a file from Git. GitLab ignores `Range` for it."""
    media_type = _media_type(path, content)
    sha256, blob_id = _digests(content)
    commit = _commit_id(found.project, ref)
    kind = "attachment" if media_type == "application/octet-stream" else "inline"
    headers = {
        **_FRAME,
        "x-request-id": _request_id(),
        "content-type": media_type,
        "content-disposition": _disposition(kind, path),
        **_UNCACHED,
        "x-gitlab-blob-id": blob_id,
        "x-gitlab-commit-id": commit,
        "x-gitlab-content-sha256": sha256,
        "x-gitlab-encoding": "base64",
        "x-gitlab-file-name": quote(posixpath.basename(path)),
        "x-gitlab-file-path": quote(path),
        "x-gitlab-last-commit-id": commit,
        "x-gitlab-ref": quote(ref),
        "x-gitlab-size": str(len(content)),
    }
    return Answer(200, tuple(headers.items()), content)


def _lfs_object(found: NumberedProject, path: str, content: bytes) -> Answer:
    updated = datetime.fromisoformat(found.updated).astimezone(UTC)
    headers = {
        **_FRAME,
        "x-request-id": _request_id(),
        "content-type": "application/octet-stream",
        "content-disposition": _disposition("attachment", path),
        **_REVALIDATED,
        "last-modified": format_datetime(updated, usegmt=True),
    }
    return Answer(200, tuple(headers.items()), content)


def _lfs_pointer(content: bytes) -> bytes:
    sha256, _ = _digests(content)
    version = "version https://git-lfs.github.com/spec/v1"
    return f"{version}\noid sha256:{sha256}\nsize {len(content)}\n".encode()


def _commit_id(project: Project, ref: str) -> str:
    """Return a made-up commit id, another one if the names of the files change."""
    names = "\n".join(sorted(project.files_at(ref) or {}))
    return hashlib.sha1(f"{project.path}\n{ref}\n{names}".encode()).hexdigest()  # noqa: S324 - Git uses it


@lru_cache(maxsize=64)
def _digests(content: bytes) -> tuple[str, str]:
    """Return the SHA-256 and the blob id, cached because tests repeat requests for large files."""
    blob = hashlib.sha1(b"blob %d\0" % len(content))  # noqa: S324 - Git uses it
    blob.update(content)
    return hashlib.sha256(content).hexdigest(), blob.hexdigest()


def _media_type(path: str, content: bytes) -> str:
    """Return the media type as GitLab guesses it: images by name, text by its first bytes."""
    image = _IMAGES.get(posixpath.splitext(path)[1].lower())
    if image is not None:
        return image
    sample = content[:_TEXT_SAMPLE]
    try:
        # The sample may end within a character.
        decoder = codecs.getincrementaldecoder("utf-8")()
        text = decoder.decode(sample, final=len(sample) == len(content))
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "application/octet-stream" if "\0" in text else "text/plain; charset=utf-8"
