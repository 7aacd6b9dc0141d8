"""A GitLab project, read and changed through GitLab's REST API.

Source: GitLab REST API documentation, "Projects", "Branches", "Repositories" and "Commits".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from stac_gitlab.auth import Origin, path_of_server
from stac_gitlab.download.git_blobs import tree_pages
from stac_gitlab.errors import (
    ConfigurationError,
    ConflictError,
    HTTPStatusError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    STACGitLabError,
)
from stac_gitlab.http.responses import Document
from stac_gitlab.reading.documents import parse_json
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted, redact, redact_document

_MAX_BYTES = 64 * 2**20
# What GitLab says in a 400 if a file is not as it was when the tree was listed.
_CONFLICT = re.compile(
    r"changed since you started|already exists|doesn't exist|does not exist", re.IGNORECASE
)
_PROTECTED = re.compile(r"protected|not allowed to push", re.IGNORECASE)
_QUOTA = re.compile(r"quota|storage|size limit", re.IGNORECASE)


class GitLabProject:
    """A project, and the requests that change it.

    Args:
        stac_io: The reader whose session, token and retries are used.
        url: The web address of the project, such as ``https://gitlab.example.org/group/project``.

    Attributes:
        url: The web address.
        path: The path of the project, with its groups.
        origin: The server. Only this one gets the token.

    Raises:
        ConfigurationError: If it is not the address of a project.
    """

    def __init__(self, stac_io: GitLabStacIO, url: str) -> None:
        self.url = re.split("[?#]", url)[0].rstrip("/").removesuffix(".git")
        root = path_of_server(self.url, stac_io.credentials.paths)
        origin = Origin.of(self.url)
        path = "" if origin is None else urlsplit(self.url).path
        self.path = unquote(path.removeprefix(root).strip("/"))
        if origin is None or "/" not in self.path or "/-/" in self.path:
            raise ConfigurationError(
                f"project={quoted(redact(url))}: give the URL of a GitLab project, such as "
                "'https://gitlab.example.org/group/project'."
            )
        self.origin = origin
        self.session = stac_io.session
        self._root = f"{origin}{root}/api/v4"
        self._api = f"{self._root}/projects/{quote(self.path, safe='')}"
        stac_io.credentials.bind(self.url)

    @property
    def lfs_url(self) -> str:
        """The URL of the project's Git LFS API."""
        return f"{self.url}.git/info/lfs"

    def describe(self) -> dict[str, Any]:
        """Return GitLab's description of the project.

        Raises:
            NotFoundError: If it does not exist, or the token has no access to it.
        """
        return self._send("GET", self._api)

    def create(self) -> dict[str, Any]:
        """Create the project, private and without files. Its group has to exist."""
        group, _, name = self.path.rpartition("/")
        namespace = self._send("GET", f"{self._root}/namespaces/{quote(group, safe='')}")
        wanted = {
            "path": name,
            "namespace_id": namespace.get("id"),
            "visibility": "private",
            "lfs_enabled": True,
        }
        return self._send("POST", f"{self._root}/projects", wanted)

    def set_topics(self, topics: Sequence[str]) -> None:
        """Replace the topics of the project."""
        self._send("PUT", self._api, {"topics": list(topics)})

    def head(self, branch: str) -> str | None:
        """Return the latest commit of a branch, or None if there is no such branch."""
        try:
            found = self._send("GET", f"{self._api}/repository/branches/{quote(branch, safe='')}")
        except NotFoundError:
            return None
        commit = found.get("commit")
        return str(commit.get("id")) if isinstance(commit, Mapping) else None

    def blob_ids(self, commit: str) -> dict[str, str]:
        """Return the git blob ids of all files of a commit, by path."""
        query = urlencode({"recursive": "true", "per_page": 100, "ref": commit})
        listing = f"{self._api}/repository/tree?{query}"
        found: dict[str, str] = {}
        for page in tree_pages(self.session, listing):
            found.update(page)
        return found

    def read(self, path: str, commit: str) -> bytes:
        """Return the content of a small file at a commit."""
        return self.session.fetch(
            self._file_url(path, commit, "/raw"), lambda found: found.body, max_bytes=_MAX_BYTES
        )

    def last_commit(self, path: str, commit: str) -> str | None:
        """Return the latest commit, up to `commit`, that changed a file."""
        return self.session.fetch(
            self._file_url(path, commit),
            lambda found: found.headers.get("X-Gitlab-Last-Commit-Id"),
            max_bytes=_MAX_BYTES,
            method="HEAD",
        )

    def commit(self, branch: str, message: str, actions: Sequence[Mapping[str, Any]]) -> str:
        """Make one commit of several changes, all or nothing, and return its id.

        Raises:
            ConflictError: If one of the files is not as the actions say. Nothing is changed.
        """
        wanted = {"branch": branch, "commit_message": message, "actions": list(actions)}
        made = self._send("POST", f"{self._api}/repository/commits", wanted)
        return str(made.get("id"))

    def _file_url(self, path: str, ref: str, suffix: str = "") -> str:
        file = quote(path, safe="")
        return f"{self._api}/repository/files/{file}{suffix}?ref={quote(ref, safe='')}"

    def _send(self, method: str, url: str, body: Any = None) -> dict[str, Any]:
        policy = self.session.retry
        for left in reversed(range(policy.max_attempts)):
            try:
                return self.session.fetch(
                    url,
                    self._parse,
                    max_bytes=_MAX_BYTES,
                    method=method,
                    json=body,
                    write_origin=self.origin,
                )
            except RateLimitError as error:
                # GitLab has not processed the request. The next attempt waits as it asks for.
                if method == "GET" or not left or (error.retry_after or 0.0) > policy.max_wait:
                    raise
            except HTTPStatusError as error:
                if method == "GET":
                    raise
                raise explained(error) from error.__cause__
        raise AssertionError("the last attempt returns or raises")

    def _parse(self, response: Document) -> dict[str, Any]:
        url = redact(response.url)
        try:
            found = parse_json(response.body, url=url, limits=self.session.limits)
            return redact_document(found, response.body, url=url)
        except STACGitLabError:
            raise InvalidResponseError(
                f"{url}: this is not a response of GitLab's API. Check the address of the project.",
                url=url,
            ) from None


def explained(error: HTTPStatusError) -> HTTPStatusError:
    """Return the error of a request that changes a project, with what to do about it."""
    status, said = error.status_code, error.response.text
    if status == 400 and _CONFLICT.search(said):
        return ConflictError(
            f"{error} Someone else has changed the project in the meantime. Nothing of this commit "
            "was changed. Publish again to compare with what is there now.",
            response=error.response,
        )
    note = ""
    if status in (400, 403) and _PROTECTED.search(said):
        note = "The branch is protected. Publish to another one, or ask for the Maintainer role."
    elif status == 403:
        note = "To publish, the token needs the scope api and at least the Developer role."
    elif status == 413:
        note = "A proxy before GitLab limits the size of a request. Pass a smaller lfs_above=."
    elif status == 507 or _QUOTA.search(said):
        note = "The storage of the project is full. Remove files, or ask for a larger quota."
    error.extend(note)
    return error
