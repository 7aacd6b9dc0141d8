"""A stand-in for GitLab's raw file endpoint, and for the web routes that lead to a sign-in page.

The endpoint takes tokens in GitLab's own headers; the web routes ignore them, as the real ones
do. What a raw file looks like is `repository`'s affair.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote, unquote

from stac_gitlab.testing import repository
from stac_gitlab.testing.access import PUBLIC, TokenHolder, User, users_by_token
from stac_gitlab.testing.catalogue import Catalogue, Entry
from stac_gitlab.testing.exchange import Answer, RecordedRequest, json_answer, text_answer
from stac_gitlab.testing.loopback import LoopbackServer
from stac_gitlab.testing.projects import Project
from stac_gitlab.testing.repository import Refusal, RefusedError

# Matched against the target as it was quoted: a slash that is not %2F ends a segment.
_RAW = re.compile(r"/api/v4/projects/([^/]+)/repository/files/([^/]+)/raw")
_ARCHIVE = re.compile(r"/api/v4/projects/([^/]+)/repository/archive\.zip")
_PROJECT = re.compile(r"/api/v4/projects/([^/]+)")
_WEB = re.compile(r"/.+/-/(?:raw|blob)/.+")

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


class GitLabServer(LoopbackServer):
    """A GitLab over any sequence of projects.

    Args:
        projects: The projects.
        token: A token that sees everything. Without `token` and `tokens` there is one anyway.
        tokens: Tokens and who they belong to, as for `SharingHubServer`.
        lfs_redirect: Where a file in Git LFS is to be had, for `lfs=true`: a function from the
            project's path and the file's path to an address on another host. The answer is then
            a 302 to it; otherwise it is the content.
        rate_limit: Requests a minute, told in `RateLimit-*` headers. The server only counts:
            for a 429 inject a fault.
        public: Let callers without a token read what is not private.
        job_token_projects: Paths of the only projects that a `JOB-TOKEN` opens; `None` is all.

    Example:
        >>> from urllib.request import Request, urlopen
        >>> lakes = Project("group/lakes", {"data/lakes.csv": b"id"})
        >>> with GitLabServer([lakes]) as gitlab:
        ...     address = gitlab.raw_url("group/lakes", "data/lakes.csv")
        ...     request = Request(address, headers={"PRIVATE-TOKEN": gitlab.token})
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
        rate_limit: int | None = None,
        public: bool = False,
        job_token_projects: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.catalogue = Catalogue(projects)
        self.users = users_by_token(token, tokens)
        self.token = next(iter(self.users))
        self.rate_limit = rate_limit
        self.lfs_redirect = lfs_redirect
        self.public = public
        self.job_token_projects = job_token_projects
        self._answered = 0
        self._api_routes: list[tuple[re.Pattern[str], Callable[..., Answer]]] = [
            (_RAW, self._raw),
            (_ARCHIVE, self._archive),
            (_PROJECT, self._project),
        ]

    def raw_url(self, project: str, path: str, ref: str = "main", *, lfs: bool = True) -> str:
        """The address of a file at the raw endpoint."""
        quoted = f"{_quoted(project)}/repository/files/{_quoted(path)}"
        return f"{self.url}/api/v4/projects/{quoted}/raw?ref={_quoted(ref)}{'&lfs=true' * lfs}"

    def web_url(self, project: str, path: str, ref: str = "main", *, view: str = "raw") -> str:
        """The address of a file as a browser shows it, which no token opens."""
        return f"{self.url}/{project}/-/{view}/{ref}/{path}"

    def answer(self, request: RecordedRequest) -> Answer:
        if request.raw_path == "/users/sign_in":
            headers = (("content-type", "text/html; charset=utf-8"),)
            return Answer(200, headers, _SIGN_IN_PAGE.encode())
        if _WEB.fullmatch(request.path):
            return _redirect(f"{self.url}/users/sign_in")
        if not request.raw_path.startswith("/api/v4/"):
            return super().answer(request)
        try:
            answer = self._routed(request)
        except RefusedError as refused:
            answer = _refused(refused.refusal)
        return answer.with_headers(self._limits())

    def _routed(self, request: RecordedRequest) -> Answer:
        for pattern, serve in self._api_routes:
            match = pattern.fullmatch(request.raw_path)
            if match is None:
                continue
            if request.method not in ("GET", "HEAD"):
                return json_answer(405, {"error": "405 Not Allowed"}, (("allow", "GET, HEAD"),))
            return serve(request, *(unquote(group) for group in match.groups()))
        raise RefusedError(repository.NO_ROUTE)

    def _raw(self, request: RecordedRequest, project: str, path: str) -> Answer:
        entry = repository.check_readable(*self._asked(request, project))
        lfs = request.query.get("lfs") == "true"
        redirected = lfs and self.lfs_redirect is not None and entry.project.in_lfs(path)
        answer = repository.raw_file(
            entry, path, request.query.get("ref"), lfs=lfs and not redirected, request=request
        )
        if redirected and self.lfs_redirect is not None:
            return _redirect(self.lfs_redirect(entry.project.path, path))
        return answer

    def _archive(self, request: RecordedRequest, project: str) -> Answer:
        entry = repository.check_readable(*self._asked(request, project))
        ref = request.query.get("sha") or str(entry.project.ref)
        return repository.archive(entry, ref, cached=False, request=request)

    def _project(self, request: RecordedRequest, project: str) -> Answer:
        entry = repository.check_visible(*self._asked(request, project))
        return json_answer(
            200,
            {
                "id": entry.number,
                "name": entry.project.name,
                "name_with_namespace": entry.full_name,
                "path_with_namespace": entry.project.path,
                "default_branch": entry.project.ref,
                "web_url": f"{self.url}/{entry.project.path}",
            },
        )

    def _asked(self, request: RecordedRequest, name: str) -> tuple[Entry | None, User]:
        """The project that a request names, and the user who asks."""
        user = self._user(request)
        entry = self.catalogue.named(name)
        allowed = self.job_token_projects
        if entry is not None and allowed is not None and "JOB-TOKEN" in request.headers:
            entry = entry if entry.project.path in allowed else None
        return entry, user

    def _user(self, request: RecordedRequest) -> User:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        token = (
            request.headers.get("PRIVATE-TOKEN")
            or request.headers.get("JOB-TOKEN")
            or (bearer if scheme.lower() == "bearer" else "")
        )
        if not token:
            if self.public:
                return PUBLIC
            raise RefusedError(repository.NO_PROJECT)
        user = self.users.get(token)
        if user is None:
            raise RefusedError(repository.UNAUTHORIZED)
        return user

    def _limits(self) -> dict[str, str | None]:
        if self.rate_limit is None:
            return {}
        self._answered += 1
        return {
            "RateLimit-Limit": str(self.rate_limit),
            "RateLimit-Name": "throttle_authenticated_api",
            "RateLimit-Observed": str(self._answered),
            "RateLimit-Remaining": str(max(0, self.rate_limit - self._answered)),
            "RateLimit-Reset": str(int(time.time()) // 60 * 60 + 60),
        }


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _redirect(place: str) -> Answer:
    return Answer(302, (("location", place), ("content-type", "text/html")), b"<html></html>")


def _refused(refusal: Refusal) -> Answer:
    said = refusal.document
    return (
        text_answer(refusal.status, said)
        if isinstance(said, str)
        else json_answer(refusal.status, said)
    )
