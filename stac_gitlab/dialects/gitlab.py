"""What only GitLab does: token headers by kind of token, and files of private projects.

The web routes, such as ``/-/raw/`` and ``/-/archive/``, do not accept tokens: they respond with a
sign-in page. The API accepts them, so the file is requested there. The STAC object keeps its web
href, and its relative links keep working.

Source: GitLab REST API documentation, "Authentication", "Repository files", "Repositories", "Job
artifacts", "Releases" and "Packages".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from stac_gitlab.auth import Origin, Token, path_of_server
from stac_gitlab.dialects.base import Dialect

_WEB_PATH = re.compile(r"/(?P<project>.+?)/-/(?P<route>.+)")
_WEB_FILE = re.compile(r"(?:raw|blob)/(?P<rest>.+)")
# Routes of the web site, the same in the API of the project, and the query parameters of both.
# A ref, a tag and the path of an artifact may hold slashes.
_WEB_DOWNLOADS = tuple(
    (re.compile(web), api, frozenset(parameters))
    for web, api, *parameters in (
        (
            r"archive/(?P<ref>.+)/[^/]+?\.(?P<format>zip|tar|tar\.gz|tar\.bz2|tbz2?|tb2|bz2)",
            "repository/archive.{format}?sha={ref}",
            "path",
        ),
        (r"jobs/(?P<job>\d+)/artifacts/download", "jobs/{job}/artifacts"),
        (r"jobs/(?P<job>\d+)/artifacts/(?:raw|file)/(?P<path>.+)", "jobs/{job}/artifacts/{path}"),
        (r"jobs/artifacts/(?P<ref>.+)/download", "jobs/artifacts/{ref}/download", "job"),
        (
            r"jobs/artifacts/(?P<ref>.+?)/(?:raw|file)/(?P<path>.+)",
            "jobs/artifacts/{ref}/raw/{path}",
            "job",
        ),
        (
            r"releases/permalink/latest/downloads/(?P<path>.+)",
            "releases/permalink/latest/downloads/{path}",
        ),
        (r"releases/(?P<ref>.+?)/downloads/(?P<path>.+)", "releases/{ref}/downloads/{path}"),
    )
)
# Pages that the API has no counterpart for, and where it has what they show.
_WEB_PAGES = (
    (re.compile(r"package(?:_file)?s/.*"), "packages/generic/{name}/{version}/{file}"),
    (re.compile(r"releases(?:/.*)?"), "releases"),
    (re.compile(r"(?:jobs|pipelines)/.*"), "jobs/{job}/artifacts"),
    (re.compile(r"tree/.*"), "repository/tree"),
)
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
    """GitLab's REST API and the web addresses of its projects.

    Args:
        paths: The paths of servers that are below one, such as ``/gitlab``, by origin.
    """

    advice = MappingProxyType(
        {
            401: "GitLab does not know this token: it may be wrong, revoked or expired. "
            "Make a new one with the scope read_api or read_repository.",
            403: "The token lacks a scope or a role for this. Reading files needs the scope "
            "read_api or read_repository and at least the Reporter role; a CI job token also "
            "needs its project on the other project's allowlist.",
            404: "GitLab responds alike for what does not exist and for what this token may "
            "not see. Check the project, the ref and the path, and the token's access.",
        }
    )

    def __init__(self, paths: Mapping[Origin, str] | None = None) -> None:
        self._paths = dict(paths or {})
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
        """Yield the API URLs of a web URL: one for each way to split the ref and path of a file.

        A ref may hold slashes, so ``/-/raw/a/b/c.json`` is ``b/c.json`` at ``a`` or ``c.json`` at
        ``a/b``. The first segment is tried first, after the ref that fitted the last time.
        """
        home, route = self._project_api(url)
        match = _WEB_FILE.fullmatch(route)
        if match is None:
            yield _download_api(home, route, urlsplit(url).query) or url
            return
        segments = [unquote(segment) for segment in match["rest"].split("/")]
        splits = [("/".join(segments[:n]), "/".join(segments[n:])) for n in range(1, len(segments))]
        known = self._refs.get(home, "")
        splits.sort(key=lambda split: split[0] != known)
        for ref, path in splits:
            # The caller takes the next URL only if this one was not found.
            self._refs[home] = ref
            file = quote(path, safe="")
            yield f"{home}/repository/files/{file}/raw?ref={quote(ref, safe='')}&lfs=true"
        # The file was not found at any ref, so the guess stays the same.
        self._refs[home] = known

    def _project_api(self, url: str) -> tuple[str, str]:
        """Return the API URL of the project of a web URL, and the route behind ``/-/``.

        The route is empty if the URL is none of the web site.
        """
        parts, root = urlsplit(url), path_of_server(url, self._paths)
        match = _WEB_PATH.fullmatch(parts.path[len(root) :])
        if match is None:
            return "", ""
        project = quote(unquote(match["project"]), safe="")
        return f"{parts.scheme}://{parts.netloc}{root}/api/v4/projects/{project}", match["route"]

    def goes_on_after(self, missing: str) -> bool:
        """Stop if GitLab found the project and the ref: no other ref can begin with that one."""
        return "404 File Not Found" not in missing and "404 Project Not Found" not in missing

    def base_href(self, requested: str, received: str) -> str:
        """Return the web URL of a file, although the file came from the API."""
        home, route = self._project_api(requested)
        query = urlsplit(requested).query
        is_web = _WEB_FILE.fullmatch(route) or _download_api(home, route, query)
        return requested if is_web else received

    def advice_for_page(self, url: str) -> str | None:
        """Name the address in the API of what a page shows. The page does not name all of it."""
        home, route = self._project_api(url)
        api = next((api for page, api in _WEB_PAGES if page.fullmatch(route)), None)
        if api is None:
            return None
        return f"GitLab takes no token for this page. Use the API instead: {home}/{api}"

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
        return "/info/lfs/" in url and "/info/lfs/" in urlsplit(url).path

    def token_header(self, token: Token) -> tuple[str, str]:
        user = "gitlab-ci-token" if token.is_job_token else "oauth2"
        return "Authorization", f"Basic {user}"


def _download_api(home: str, route: str, query: str) -> str | None:
    """Return the API URL of a download from the web site, or None if it is none."""
    asked = parse_qsl(query)
    if dict(asked).get("file_type", "archive") != "archive":
        # A report of a job, which the API does not serve.
        return None
    for web, api, parameters in _WEB_DOWNLOADS:
        match = web.fullmatch(route)
        if match is None:
            continue
        # A slash of a path stays: the API takes paths of artifacts as the rest of the URL.
        named = {
            name: quote(unquote(text), safe="/" if name == "path" else "")
            for name, text in match.groupdict().items()
        }
        kept = [(name, value) for name, value in asked if name in parameters]
        url = f"{home}/{api.format(**named)}"
        return f"{url}{'&' if '?' in url else '?'}{urlencode(kept)}" if kept else url
    return None
