"""What only GitLab does: token headers by kind of token, and files of private repositories.

The web routes ``/-/raw/`` and ``/-/blob/`` do not accept tokens: they respond with a sign-in page.
The repository files API accepts them, so the file is requested there. The STAC object keeps its web
href, and its relative links keep working.

Source: GitLab REST API documentation, "Authentication" and "Repository files".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from stac_gitlab.auth import Token
from stac_gitlab.dialects.base import Dialect

_WEB_FILE = re.compile(r"^/(?P<project>.+?)/-/(?:raw|blob)/(?P<rest>.+)$")
_API_FILE = re.compile(
    r"(?P<project>.*/api/v4/projects/[^/]+)/repository/files/(?P<path>[^/]+)/raw"
)
_JWT_OR_OAUTH = re.compile(r"^(?:[0-9a-f]{64}|eyJ[\w-]+\.[\w-]+\.[\w-]*)$")
# The first prefix that fits. An instance may configure other prefixes, so this only chooses a
# header and never refuses a token.
_HEADER_BY_PREFIX = (
    ("glcbt-", "JOB-TOKEN"),
    ("gldt-", "Deploy-Token"),
    ("glpat-", "PRIVATE-TOKEN"),
)


class GitLab(Dialect):
    """GitLab's REST API and the web addresses of its repositories."""

    def __init__(self) -> None:
        # The ref under which a file of a project was found: the first guess for the next file. Only
        # the order of guesses depends on it, so threads may overwrite each other.
        self._refs: dict[str, str] = {}

    def speaks(self, url: str) -> bool:
        if "/api/v4/" not in url and "/-/" not in url:
            return False
        path = urlsplit(url).path
        return "/api/v4/" in path or "/-/" in path

    def token_header(self, token: Token) -> tuple[str, str]:
        if token.is_job_token:
            return "JOB-TOKEN", ""
        if _JWT_OR_OAUTH.match(token.value):
            return "Authorization", "Bearer"
        for prefix, header in _HEADER_BY_PREFIX:
            if token.value.startswith(prefix):
                return header, ""
        return "PRIVATE-TOKEN", ""

    def request_urls(self, url: str) -> Iterator[str]:
        """Yield the API URLs of a web file URL: one for each way to split ref and path.

        A ref may hold slashes, so ``/-/raw/a/b/c.json`` is ``b/c.json`` at ``a`` or ``c.json`` at
        ``a/b``. The first segment is tried first, after the ref that fitted the last time.
        """
        parts = urlsplit(url)
        match = _WEB_FILE.match(parts.path)
        if match is None:
            yield url
            return
        project = unquote(match["project"])
        segments = [unquote(segment) for segment in match["rest"].split("/")]
        splits = [("/".join(segments[:n]), "/".join(segments[n:])) for n in range(1, len(segments))]
        home = f"{parts.scheme}://{parts.netloc}/api/v4/projects/{quote(project, safe='')}"
        known = self._refs.get(home, "")
        splits.sort(key=lambda split: split[0] != known)
        for ref, path in splits:
            # The caller takes the next URL only if this one was not found.
            self._refs[home] = ref
            file = quote(path, safe="")
            yield f"{home}/repository/files/{file}/raw?ref={quote(ref, safe='')}&lfs=true"
        # The file was not found at any ref, so the guess stays the same.
        self._refs[home] = known

    def goes_on_after(self, missing: str) -> bool:
        """Stop if GitLab found the project and the ref: no other ref can begin with that one."""
        return "404 File Not Found" not in missing and "404 Project Not Found" not in missing

    def base_href(self, requested: str, received: str) -> str:
        """Return the web URL of a file, although the file came from the files API."""
        return requested if _WEB_FILE.match(urlsplit(requested).path) else received

    def advice(self, status: int) -> str | None:
        if status == 401:
            return (
                "GitLab does not know this token: it may be wrong, revoked or expired. "
                "Make a new one with the scope read_api or read_repository."
            )
        if status == 403:
            return (
                "The token lacks a scope or a role for this. Reading files needs the scope "
                "read_api or read_repository and at least the Reporter role; a CI job token also "
                "needs its project on the other project's allowlist."
            )
        if status == 404:
            return (
                "GitLab responds alike for what does not exist and for what this token may "
                "not see. Check the project, the ref and the path, and the token's access."
            )
        return None

    def lfs_url(self, url: str) -> str | None:
        """Return the URL of the content in the files API."""
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        if "/api/v4/projects/" not in parts.path or ("lfs", "true") in query:
            return None
        query = [(name, value) for name, value in query if name != "lfs"]
        return urlunsplit(parts._replace(query=urlencode([*query, ("lfs", "true")])))

    def tree_url(
        self, url: str, *, item_id: str, properties: Mapping[str, Any]
    ) -> tuple[str, str] | None:
        parts = urlsplit(url)
        match = _API_FILE.fullmatch(parts.path)
        ref = dict(parse_qsl(parts.query)).get("ref")
        if match is None or ref is None:
            return None
        query = urlencode({"recursive": "true", "per_page": 100, "ref": ref})
        listing = parts._replace(path=f"{match['project']}/repository/tree", query=query)
        return urlunsplit(listing), unquote(match["path"])

    def archive_url(
        self, item_url: str, *, item_id: str, properties: Mapping[str, Any], ref: str | None
    ) -> str | None:
        """Return the URL in the API, by default at the ref that the item was read from."""
        parts = urlsplit(next(self.request_urls(item_url)))
        match = _API_FILE.fullmatch(parts.path)
        if match is None:
            return None
        ref = ref or dict(parse_qsl(parts.query)).get("ref")
        path = f"{match['project']}/repository/archive.zip"
        return urlunsplit(parts._replace(path=path, query=urlencode({"sha": ref} if ref else {})))

    def sha256(self, headers: Mapping[str, str], size: int | None) -> str | None:
        """Return the hash in GitLab's headers, unless the response holds an LFS object.

        The headers describe the file in the repository. For a file in LFS that is the pointer, and
        its size is not that of the response.
        """
        if headers.get("X-Gitlab-Size") != str(size):
            return None
        return headers.get("X-Gitlab-Content-Sha256")


class GitLFS(GitLab):
    """Git LFS at GitLab, which takes tokens as the password of a Basic login.

    Source: GitLab documentation, "Git LFS"; Git LFS documentation, "Authentication".
    """

    def speaks(self, url: str) -> bool:
        return "/info/lfs/" in urlsplit(url).path

    def token_header(self, token: Token) -> tuple[str, str]:
        user = "gitlab-ci-token" if token.is_job_token else "oauth2"
        return "Authorization", f"Basic {user}"
